// The JSON scanner: strings, structure, and agreement with nlohmann::json where it is not stricter on purpose.
#include "wire/json_scan.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support.hpp"
#include "vectors.hpp"

namespace kitsune2::wire {
namespace {

bool accepts(std::string_view text) {
  JsonScanner scanner(text);
  return scanner.skip_value() && scanner.at_end();
}

TEST(JsonScanner, Values) {
  for (const char* good :
       {"{}", "[]", " [ 1 , 2 ] ", R"({"a":{"b":[null,true,false]}})", "0", "-0", "10", "-1.5e+10", "0.0", "1E5",
        R"("")", "\"\xC3\xA9\"", R"("\u00e9\ud83d\ude00\"\\\/\b\f\n\r\t")", "\t\r\n 1"}) {
    EXPECT_TRUE(accepts(good)) << good;
  }
  for (const char* bad : {"",
                          " ",
                          "{",
                          "}",
                          "[1,]",
                          "[,1]",
                          R"({"a"})",
                          R"({"a":})",
                          R"({"a":1,})",
                          "{1:2}",
                          "01",
                          "1.",
                          ".5",
                          "-",
                          "+1",
                          "1e",
                          "0x1",
                          "tru",
                          "nul",
                          "[1 2]",
                          "\"",
                          "\"\n\"",
                          R"("\x")",
                          R"("\u12")",
                          R"("\ud800")",
                          R"("\udc00")",
                          R"("\ud800\u0041")",
                          R"("\ud800\ud800")",
                          "\"\xFF\"",
                          "\"\\",
                          "1 2",
                          "{}{}",
                          "\xEF\xBB\xBF{}",
                          "[1]]",
                          "NaN",
                          "'a'",
                          "[true false]"}) {
    EXPECT_FALSE(accepts(bad)) << bad;
  }
  EXPECT_FALSE(accepts(std::string_view("1\0", 2))) << "a NUL is no end";
}

TEST(JsonScanner, DepthIsBounded) {
  const auto nested = [](int n) {
    return std::string(static_cast<std::size_t>(n), '[') + std::string(static_cast<std::size_t>(n), ']');
  };
  EXPECT_TRUE(accepts(nested(JsonScanner::kMaxDepth)));
  EXPECT_FALSE(accepts(nested(JsonScanner::kMaxDepth + 1)));
  EXPECT_FALSE(accepts(std::string(1'000'000, '['))) << "and does not use the stack";
  std::string wide = "[";
  for (int i = 0; i < 1000; ++i) wide += "[],";
  EXPECT_TRUE(accepts(wide + "[]]")) << "width is not depth";
}

TEST(JsonScanner, Unescape) {
  JsonScanner scanner(R"("a\"\\\/\b\f\n\r\t\u0041\u00e9\u20AC\ud83d\ude00z")");
  JsonString text;
  ASSERT_TRUE(scanner.string(text));
  EXPECT_TRUE(text.escaped);
  EXPECT_EQ(text.unescaped(), "a\"\\/\b\f\n\r\tA\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z");
  JsonScanner plain(R"("plain")");
  ASSERT_TRUE(plain.string(text));
  EXPECT_FALSE(text.escaped);
  EXPECT_EQ(text.unescaped(), "plain");
}

TEST(JsonScanner, WrittenStringsReadBack) {
  std::string all;
  for (int c = 0; c < 128; ++c) all.push_back(static_cast<char>(c));
  all += "\xC3\xA9\xF0\x9F\x98\x80";
  std::string json;
  append_json_string(json, all);
  EXPECT_EQ(nlohmann::json::parse(json).get<std::string>(), all);
  JsonScanner scanner(json);
  JsonString text;
  ASSERT_TRUE(scanner.string(text));
  EXPECT_EQ(text.unescaped(), all);
  std::string controls;
  append_json_string(controls, std::string_view("\x01\x1f\x7f/", 4));
  EXPECT_EQ(controls, "\"\\u0001\\u001f\x7f/\"");
}

/// nlohmann::json as the twin. Intended differences: it accepts a byte order mark, a NUL as the end, and any depth; it
/// refuses numbers that no double can hold.
TEST(JsonScanner, AgreesWithNlohmann) {
  test::Random random(21);
  const std::string bases[] = {std::string(vectors::kSignedAgentInfo),
                               R"({"a":[1,-2.5e3,true,false,null,"x\u00e9\n"],"b":{"c":{}},"d":""} )",
                               R"(["\ud83d\ude00",0,[[[]]],{"k":"v","k":1}])"};
  int accepted = 0;
  constexpr int kRounds = 60'000;
  for (int i = 0; i < kRounds; ++i) {
    const std::string text = random.mutated(bases[static_cast<std::size_t>(i) % 3], bases[random.below(3)]);
    if (text.find('\0') != std::string::npos || text.starts_with("\xEF\xBB\xBF")) continue;
    const bool ours = accepts(text);
    const bool theirs = nlohmann::json::accept(text);
    accepted += ours ? 1 : 0;
    if (ours && !theirs) {
      // The only possible reason is a number too large for a double.
      EXPECT_NE(text.find_first_of("eE"), std::string::npos) << text;
    } else {
      EXPECT_EQ(ours, theirs) << text;
    }
  }
  EXPECT_GT(accepted, kRounds / 50);
}

}  // namespace
}  // namespace kitsune2::wire
