// Links, addresses, and what is printed of paths.
#include <gtest/gtest.h>

#include <algorithm>

#include "kitsune2/files.hpp"

namespace kitsune2::files {
namespace {

const std::string kRoot = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";  // bytes 0..31

TEST(Link, ReadsAndPrintsTheSameText) {
  for (const auto& text : std::vector<std::string>{
           "kitsune2://127.0.0.1:4433/ZmlsZXM/" + kRoot,
           "kitsune2://relay.example.org:443/ZmlsZXM/" + kRoot + "?tls=1",
           "kitsune2://[::1]:1/ZmlsZXM/" + kRoot,
           "kitsune2://[fe80::1:2]:65535/_-8/" + kRoot + "?tls=1",
           "kitsune2://h:1/ZmlsZXM/" + kRoot + "?network=0.5",
           "kitsune2://h:1/ZmlsZXM/" + kRoot + "?tls=1,network=0.5",
           "kitsune2://h:1/ZmlsZXM/" + kRoot + "?tls=1,relay=a/b.c,network=0.5",
           "kitsune2://h:1/ZmlsZXM/" + kRoot + "?relay=,network=0.5",
       }) {
    auto link = Link::parse(text);
    ASSERT_TRUE(link) << text << ": " << link.error().to_string();
    EXPECT_EQ(link->to_string(), text);
    auto again = Link::parse(link->to_string());
    ASSERT_TRUE(again);
    EXPECT_EQ(*again, *link);
  }
}

TEST(Link, PartsAreTaken) {
  auto link = Link::parse("kitsune2://[::1]:4433/ZmlsZXM/" + kRoot + "?tls=1");
  ASSERT_TRUE(link);
  EXPECT_EQ(link->host, "::1");
  EXPECT_EQ(link->port, 4433);
  EXPECT_TRUE(link->tls);
  EXPECT_EQ(link->space, SpaceId::from_text("files"));
  EXPECT_EQ(link->root.size(), 32U);
  EXPECT_EQ(link->root.view()[31], 31);
  EXPECT_EQ(link->relay_url(), "wss://[::1]:4433");
  const std::string plain = "kitsune2://h:1/ZmlsZXM/" + kRoot;
  EXPECT_EQ(Link::parse(plain)->relay_url(), "ws://h:1");
  EXPECT_EQ(Link::parse(plain)->network, Dialect::v0_2) << "what earlier versions have printed";
  EXPECT_EQ(Link::parse(plain + "?network=0.5")->network, Dialect::v0_5);
  EXPECT_EQ(Link::parse(plain + "?network=0.5")->relay_url(), "http://h:1/relay");
  EXPECT_EQ(Link::parse(plain + "?tls=1,relay=a/b,network=0.5")->relay_url(), "https://h:1/a/b");
  EXPECT_EQ(Link::parse(plain + "?relay=,network=0.5")->relay_url(), "http://h:1/");
}

// A shell ends a command at it, so none is printed.
TEST(Link, AnAmpersandIsReadAsAComma) {
  const std::string plain = "kitsune2://h:1/ZmlsZXM/" + kRoot;
  for (const std::string query : {"?tls=1&network=0.5", "?tls=1&relay=a/b&network=0.4", "?tls=1,relay=a&network=0.5"}) {
    const auto link = Link::parse(plain + query);
    ASSERT_TRUE(link) << query << ": " << link.error().message;
    std::string printed = plain + query;
    std::replace(printed.begin(), printed.end(), '&', ',');
    EXPECT_EQ(link->to_string(), printed);
  }
}

TEST(Link, SurroundingTextIsLeftOut) {
  for (const std::string& link :
       {"kitsune2://relay.example.org:443/ZmlsZXM/" + kRoot, "kitsune2://[::1]:1/ZmlsZXM/" + kRoot + "?tls=1"}) {
    for (const auto& [before, behind] : std::vector<std::pair<std::string, std::string>>{{"", " "},
                                                                                         {"", "\n"},
                                                                                         {"", "\r\n"},
                                                                                         {" \t", ""},
                                                                                         {"", "."},
                                                                                         {"", ","},
                                                                                         {"", "/"},
                                                                                         {"", ";"},
                                                                                         {"", "!"},
                                                                                         {"\"", "\""},
                                                                                         {"'", "'"},
                                                                                         {"<", ">"},
                                                                                         {"(", ")."},
                                                                                         {"`", "`"},
                                                                                         {"[", "],"},
                                                                                         {"<", ">\n"}}) {
      const auto parsed = Link::parse(before + link + behind);
      ASSERT_TRUE(parsed) << before + link + behind << ": " << parsed.error().message;
      EXPECT_EQ(parsed->to_string(), link);
    }
  }
  for (const std::string text : {"\"\"", " \n ", "<>", "."}) EXPECT_FALSE(Link::parse(text)) << text;
}

TEST(Link, ErrorsNameThePart) {
  const struct {
    std::string text;
    const char* says;
  } kCases[] = {
      {"", "does not begin with kitsune2://"},
      {"http://127.0.0.1:1/ZmlsZXM/" + kRoot, "does not begin with kitsune2://"},
      {"KITSUNE2://127.0.0.1:1/ZmlsZXM/" + kRoot, "does not begin with kitsune2://"},
      {"kitsune2://127.0.0.1:1", "the space is missing"},
      {"kitsune2://127.0.0.1:1/ZmlsZXM", "the root is missing"},
      {"kitsune2://127.0.0.1/ZmlsZXM/" + kRoot, "the port is missing"},
      {"kitsune2://:1/ZmlsZXM/" + kRoot, "the host is missing"},
      {"kitsune2://a b:1/ZmlsZXM/" + kRoot, "a character that is not allowed in a host name"},
      {"kitsune2://u@h:1/ZmlsZXM/" + kRoot, "a character that is not allowed in a host name"},
      {"kitsune2://h:0/ZmlsZXM/" + kRoot, "port 0"},
      {"kitsune2://h:65536/ZmlsZXM/" + kRoot, "the port is not a number from 0 to 65535"},
      {"kitsune2://h:+1/ZmlsZXM/" + kRoot, "the port is not a number"},
      {"kitsune2://h:1x/ZmlsZXM/" + kRoot, "the port is not a number"},
      {"kitsune2://h:/ZmlsZXM/" + kRoot, "the port is not a number"},
      {"kitsune2://::1:4433/ZmlsZXM/" + kRoot, "needs brackets"},
      {"kitsune2://[::1/ZmlsZXM/" + kRoot, "no closing bracket"},
      {"kitsune2://[::1]/ZmlsZXM/" + kRoot, "the port is missing"},
      {"kitsune2://[abc]:1/ZmlsZXM/" + kRoot, "no IPv6 address"},
      {"kitsune2://h:1//" + kRoot, "the space is not base64"},
      {"kitsune2://h:1/ZmlsZXM=/" + kRoot, "the space is not base64"},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot + "=", "the root is not base64"},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot.substr(0, 42), "is the link cut off?"},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot + "/x", "the root is not base64"},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot + "?tls=0",
       "only tls=1, relay=PATH and network=0.4 or 0.5 are known, in this order"},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot + "?network=0.9", "network \"0.9\" is not one that this version knows"},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot + "?network=0.2", "in this order"},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot + "?network=0.5,tls=1", "in this order"},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot + "?relay=a", "in this order"},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot + "?relay=relay,network=0.5", "in this order"},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot + "?relay=/a,network=0.5", "in this order"},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot + "?relay=a%20,network=0.5", "in this order"},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot + "?network=0.5,network=0.5", "in this order"},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot + "?tls=1,,network=0.5", "in this order"},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot + "?,network=0.5", "in this order"},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot + "?", "only tls=1, relay=PATH and network="},
      {"kitsune2://h:1/ZmlsZXM/" + kRoot + "#x", "the root is not base64"},
      {"kitsune2://" + std::string(5000, 'h'), "too long"},
  };
  for (const auto& c : kCases) {
    auto link = Link::parse(c.text);
    ASSERT_FALSE(link) << c.text;
    EXPECT_EQ(link.error().code, Errc::invalid_argument) << c.text;
    EXPECT_NE(link.error().message.find(c.says), std::string::npos) << c.text << " -> " << link.error().message;
  }
}

TEST(Printable, LeavesTextAndEscapesControl) {
  EXPECT_EQ(printable("plain/Grüße 日本"), "plain/Grüße 日本");
  EXPECT_EQ(printable("a\nb\x1b[2J"), "a\\x0ab\\x1b[2J");
  EXPECT_EQ(printable("\xff\xfe"), "\\xff\\xfe");
  // Marks that change the direction of writing show "exe.jpg" as "gpj.exe": all of them are escaped, and no neighbours.
  for (const char* mark : {"\u061c", "\u200e", "\u200f", "\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066",
                           "\u2067", "\u2068", "\u2069"}) {
    const std::string shown = printable(std::string("a") + mark + "b");
    EXPECT_TRUE(shown.starts_with("a\\x") && shown.ends_with("b")) << shown;
    EXPECT_EQ(shown.find(mark), std::string::npos);
  }
  EXPECT_EQ(printable("\u061b\u061d\u200d\u2010\u2065\u206a"), "\u061b\u061d\u200d\u2010\u2065\u206a");
  EXPECT_EQ(printable("\xc2\x9b"
                      "1m"),
            "\\xc2\\x9b1m");  // U+009B also starts an escape sequence of a terminal
  EXPECT_EQ(printable(std::string_view("\0", 1)), "\\x00");
}

}  // namespace
}  // namespace kitsune2::files
