// The form of the program's log lines, as text and as JSON.
#include "log_format.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace kitsune2::cli {
namespace {

TEST(LogFormat, ATextLineHasATimeWithZone) {
  const LogLine line{LogLevel::info, "relay", "client x came", Timestamp{1'795'830'333'713'307}};
  EXPECT_EQ(log_text(line, LogFormat::text), "2026-11-28T01:45:33.713307Z info relay: client x came\n");
}

TEST(LogFormat, AJsonLineIsOneObjectWhateverItsText) {
  for (const std::string text : {"plain", "quotes \" and \\x1b backslash", "a\nb\x01", "\xff\xfe", "caf\xc3\xa9"}) {
    const LogLine line{LogLevel::warn, "fetch", text, Timestamp{0}};
    const std::string out = log_text(line, LogFormat::json);
    ASSERT_EQ(out.find('\n'), out.size() - 1) << out;
    const auto json = nlohmann::json::parse(out);
    EXPECT_EQ(json.size(), 4U);
    EXPECT_EQ(json["time"], "1970-01-01T00:00:00.000000Z");
    EXPECT_EQ(json["level"], "warn");
    EXPECT_EQ(json["area"], "fetch");
    if (text != "\xff\xfe") {
      EXPECT_EQ(json["message"], text);
    }
  }
}

}  // namespace
}  // namespace kitsune2::cli
