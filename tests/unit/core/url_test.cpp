#include "kitsune2/url.hpp"

#include <gtest/gtest.h>

#include <string>

#include "core/relay_url.hpp"

namespace kitsune2 {
namespace {

struct Accepted {
  const char* text;
  std::optional<std::string_view> peer_id;
  bool tls;
  const char* addr;
};

TEST(Url, AcceptsTheReferenceTable) {
  const Accepted table[] = {
      {"ws://a.b:80", std::nullopt, false, "a.b:80"},     {"ws://1.1.1.1:80", std::nullopt, false, "1.1.1.1:80"},
      {"ws://[::1]:80", std::nullopt, false, "[::1]:80"}, {"wss://a.b:443", std::nullopt, true, "a.b:443"},
      {"ws://a.b:999", std::nullopt, false, "a.b:999"},   {"ws://a.b:80/foo", "foo", false, "a.b:80"},
      {"wss://a.b:443/foo", "foo", true, "a.b:443"},      {"ws://a.b:999/foo", "foo", false, "a.b:999"},
  };
  for (const Accepted& c : table) {
    const auto url = Url::parse(c.text);
    ASSERT_TRUE(url.has_value()) << c.text;
    EXPECT_EQ(url->str(), c.text);
    EXPECT_EQ(url->peer_id(), c.peer_id);
    EXPECT_EQ(url->is_peer(), c.peer_id.has_value());
    EXPECT_EQ(url->uses_tls(), c.tls);
    EXPECT_EQ(url->addr(), c.addr);
  }
}

TEST(Url, RefusesTheReferenceTable) {
  for (const char* text : {"ws://a.b", "wss://a.b", "w://a.b:80", "ws://a.b:80/", "ws://a.b:80/foo/bar"}) {
    const auto url = Url::parse(text);
    ASSERT_TRUE(url.has_error()) << text;
    EXPECT_EQ(url.error().code, Errc::malformed);
  }
}

// The rows below were checked against the reference's url parser (crate url 2.5.8) on the day they were written.
TEST(Url, AcceptsWhatTheReferencesParserLeavesAsItIs) {
  for (const char* text : {
           "ws://localhost:0",
           "ws://a:65535/x",
           "ws://a..b:80",
           "ws://a.b.:80",
           "ws://-a_b~c:80",
           "ws://a!$&'()*+,;=\"`{}b:80",
           "ws://0.0.0.0:80",
           "ws://255.255.255.255:80",
           "ws://1.1.1.1a:80",
           "ws://1.a:80",
           "ws://08x:80",
           "ws://xn--bcher-kva:80",
           "ws://xn--bcher-kva.example:80/x",
           "ws://[::]:80",
           "ws://[1::]:80",
           "ws://[fe80::1:2]:80",
           "ws://[1:2:3:4:5:6:7:8]:80",
           "ws://[1:0:2:3:4:5:6:7]:80",
           "ws://[1:0:0:2::3]:80",
           "ws://[::ffff:102:304]:80",
           "ws://a:80/...",
           "ws://a:80/.a",
           "ws://a:80/%",
           "ws://a:80/%zz",
           "ws://a:80/%2E%2E%2E",
           "ws://a:80/%41",
           "ws://a:80/a:b@c|d^e~f!$&'()*+,;=[]",
           "wss://a:80/x",
           "wss://a:443/8Mn4N3V7aLTbvti6U_8_3qIeJ7IQ89OvZRR4ku0IUAA",
       }) {
    EXPECT_TRUE(Url::parse(text).has_value()) << text;
  }
}

TEST(Url, RefusesWhatTheReferencesParserRefusesOrRewrites) {
  for (const char* text : {
           "",
           "ws",
           "ws:",
           "ws://",
           "ws://:80",
           "ws:a:80",
           "ws:/a:80",
           "ws:///a:80",
           "WS://a:80",
           "Wss://a:443",
           "http://a:80",
           " ws://a:80",
           "ws://a:80 ",
           "ws://a:80\n",
           "ws://a:8\t0",
           "ws://A:80",
           "ws://a:",
           "ws://a:/x",
           "ws://a:080",
           "ws://a:65536",
           "ws://a:99999999999",
           "ws://a:-1",
           "ws://a:+1",
           "ws://a:8a",
           "ws://u@a:80",
           "ws://u:p@a:80",
           "ws://a:80?q",
           "ws://a:80#f",
           "ws://a:80/x?q",
           "ws://a:80/x#f",
           "ws://a:80/x/",
           "ws://a:80//x",
           "ws://a:80\\x",
           "ws://a:80/x\\y",
           "ws://a:80/.",
           "ws://a:80/..",
           "ws://a:80/%2e",
           "ws://a:80/.%2E",
           "ws://a:80/%2e%2e",
           "ws://a:80/a b",
           "ws://a:80/\"",
           "ws://a:80/<",
           "ws://a:80/`",
           "ws://a:80/{",
           "ws://a:80/\x7f",
           "ws://a:80/\xc3\xbc",
           "ws://b\xc3\xbc"
           "cher:80",
           "ws://a b:80",
           "ws://a%62:80",
           "ws://a%:80",
           "ws://a|b:80",
           "ws://a^b:80",
           "ws://a<b:80",
           "ws://1.1.1:80",
           "ws://1:80",
           "ws://1.1.1.1.:80",
           "ws://01.1.1.1:80",
           "ws://1.1.1.256:80",
           "ws://1.1.1.1.1:80",
           "ws://0x7f.0.0.1:80",
           "ws://a.1:80",
           "ws://a.0x:80",
           "ws://a.0xff:80",
           "ws://a.08:80",
           "ws://xn--a:80",
           "ws://xn--:80",
           "ws://xn--9999999999:80",
           "ws://[]:80",
           "ws://[::1:80",
           "ws://::1:80",
           "ws://[::1]",
           "ws://[::1]x:80",
           "ws://[0:0:0:0:0:0:0:1]:80",
           "ws://[::0001]:80",
           "ws://[::A]:80",
           "ws://[1:2:3:4:5:6:7::]:80",
           "ws://[1::2::3]:80",
           "ws://[1:2:3:4:5:6:7:8:9]:80",
           "ws://[1:2:3:4:5:6:7]:80",
           "ws://[::1.2.3.4]:80",
           "ws://[::1%25eth0]:80",
           "ws://[fe80::12345]:80",
           "ws://[1:0:0:2:0:0:0:3]:80",
       }) {
    EXPECT_TRUE(Url::parse(text).has_error()) << text;
  }
  EXPECT_TRUE(Url::parse(std::string_view("ws://a\0b:80", 11)).has_error());
}

TEST(Url, SaysWhatItExpected) {
  const std::pair<const char*, const char*> table[] = {
      {"ws://a.b", "expected ws://a.b:80"},
      {"wss://a.b", "expected wss://a.b:443"},
      {"WS://A.B:80/", "expected ws://a.b:80"},
      {"wss://[::1]/x?y", "expected wss://[::1]:443/x"},
  };
  for (const auto& [text, expected] : table) {
    const auto url = Url::parse(text);
    ASSERT_TRUE(url.has_error());
    EXPECT_TRUE(url.error().message.ends_with(expected)) << url.error().message;
  }
}

TEST(Url, HostileTextIsNotEchoedRawOrWhole) {
  const auto url = Url::parse("ws://\x1b[31m" + std::string(100'000, 'a'));
  ASSERT_TRUE(url.has_error());
  EXPECT_LT(url.error().message.size(), 300U);
  EXPECT_EQ(url.error().message.find('\x1b'), std::string::npos);
}

TEST(Url, Parts) {
  const Url url = Url::parse("wss://[fe80::1]:4443/abc").value();
  EXPECT_EQ(url.host(), "fe80::1");
  EXPECT_EQ(url.port(), 4443);
  EXPECT_EQ(url.peer_id(), "abc");
  EXPECT_EQ(url.relay().str(), "wss://[fe80::1]:4443");
  EXPECT_EQ(url.relay().relay(), url.relay());
  EXPECT_EQ(Url::parse("ws://a.b:0/x").value().port(), 0);
}

// Urls that kitsune2 0.5.3 has over iroh: http schemes, and a relay with a path.
TEST(Url, TheFormOfALaterDialect) {
  const UrlForm form = url_form(Dialect::v0_5);
  const std::string id = "787d4a62cdd6199d8359dfe3703d021e7c1835096f940840c700e1b0f77d62dd";
  struct Row {
    std::string relay;  // as Url::relay gives it
    std::string peer;
    bool tls;
  };
  const Row rows[] = {
      {"http://127.0.0.1:18787/relay/", "http://127.0.0.1:18787/relay/" + id, false},
      {"https://a.b:443/x/y/", "https://a.b:443/x/y/" + id, true},
      {"https://a.b:443", "https://a.b:443/" + id, true},
      {"wss://a.b:443/relay/", "wss://a.b:443/relay/" + id, true},
  };
  for (const Row& row : rows) {
    const auto url = Url::parse(row.peer, form);
    ASSERT_TRUE(url.has_value()) << row.peer;
    EXPECT_EQ(url->peer_id(), id);
    EXPECT_EQ(url->uses_tls(), row.tls) << row.peer;
    EXPECT_EQ(url->relay().str(), row.relay);
    EXPECT_FALSE(url->relay().is_peer()) << row.relay;
    EXPECT_EQ(url->relay().relay(), url->relay());
    EXPECT_EQ(canonical_relay_url(row.relay, form).value(), url->relay());
  }
  for (const char* text : {"http://a:80/", "http://a:80/x/", "http://a:80//x", "http://a:80/x//y", "http://a:80/../x",
                           "http://a/x", "ftp://a:80/x", "http://a:80/x?y", "HTTP://a:80/x"}) {
    EXPECT_TRUE(Url::parse(text, form).has_error()) << text;
  }
  EXPECT_EQ(Url::parse("https://A/relay/x/", form).error().message.find("; expected"), std::string::npos);
  EXPECT_TRUE(Url::parse("HTTPS://A/relay/x", form).error().message.ends_with("; expected https://a:443/relay/x"));
}

TEST(Url, ARelayAsPeopleWriteIt) {
  struct Row {
    const char* text;
    const char* in_0_2;  // empty: refused
    const char* in_0_5;
  };
  const Row rows[] = {
      {"wss://a.b", "wss://a.b:443", "wss://a.b:443"},
      {"ws://a.b//", "ws://a.b:80", "ws://a.b:80"},
      {"ws://[::1]", "ws://[::1]:80", "ws://[::1]:80"},
      {"ws://a.b:99/relay", "", "ws://a.b:99/relay/"},
      {"ws://a.b/relay", "", "ws://a.b:80/relay/"},
      {"https://a.b/relay/", "", "https://a.b:443/relay/"},
      {"http://[::1]/x/y", "", "http://[::1]:80/x/y/"},
      {"https://a.b", "", "https://a.b:443"},
      {"https://", "", ""},
      {"a.b:80", "", ""},
      {"https://a.b/relay?x", "", ""},
  };
  const auto shown = [](const Result<Url>& url) {
    if (url) return url->to_string();
    EXPECT_EQ(url.error().code, Errc::invalid_config);
    return std::string();
  };
  for (const Row& row : rows) {
    EXPECT_EQ(shown(canonical_relay_url(row.text)), row.in_0_2) << row.text;
    EXPECT_EQ(shown(canonical_relay_url(row.text, url_form(Dialect::v0_5))), row.in_0_5) << row.text;
  }
}

TEST(Url, TheEmptyUrlAddressesNothing) {
  const Url url;
  EXPECT_TRUE(url.empty());
  EXPECT_TRUE(url.addr().empty());
  EXPECT_TRUE(url.host().empty());
  EXPECT_EQ(url.port(), 0);
  EXPECT_FALSE(url.is_peer());
  EXPECT_FALSE(url.uses_tls());
  EXPECT_TRUE(url.relay().empty());
}

TEST(Url, ComparesAndHashesByText) {
  const Url a = Url::parse("ws://a:80/x").value();
  const Url b = Url::parse("ws://a:80/x").value();
  const Url c = Url::parse("ws://a:80/y").value();
  EXPECT_EQ(a, b);
  EXPECT_NE(a, c);
  EXPECT_LT(a, c);
  EXPECT_EQ(std::hash<Url>()(a), std::hash<Url>()(b));
}

}  // namespace
}  // namespace kitsune2
