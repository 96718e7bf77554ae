// What `kitsune2 status` prints for the answer of a node's socket.
#include "status_text.hpp"

#include <gtest/gtest.h>

namespace kitsune2::cli {
namespace {

std::string shown(std::string_view answer) { return status_text(read_status(answer).value(), "/d"); }

TEST(StatusText, ShowsTheStatusOfANode) {
  EXPECT_EQ(shown(R"({"running":true,"role":"share","pid":7,"relay":"ws://r:1","spaces":[{"space":"ZmlsZXM","ops":3,
      "bytes":2048,"url":"ws://r:1/me","fetched":{"ops":1,"bytes":1},"served":{"ops":2,"bytes":0},
      "peers":[{"url":"ws://r:1/you","arc":"full","connected":false,"direct":false},
      {"url":"ws://r:1/him","arc":"full","connected":true,"direct":false},
      {"url":"ws://r:1/her","arc":"empty","connected":true,"direct":true}],"pending":[{"source":"ws://r:1/you","ops":9}],
      "back_off":[{"source":"ws://r:1/you","until":"later"}]}]})"),
            "/d: running (share, process 7), relay ws://r:1\n"
            "space \"files\"\n"
            "  holds     3 ops, 2.0 KiB\n"
            "  own url   ws://r:1/me\n"
            "  fetched   1 ops, 1 B\n"
            "  served    2 ops, 0 B\n"
            "  peer      ws://r:1/you arc full\n"
            "  peer      ws://r:1/him arc full, reached by the relay\n"
            "  peer      ws://r:1/her arc empty, reached directly\n"
            "  pending   9 ops from ws://r:1/you\n"
            "  back-off  ws://r:1/you until later\n");
  EXPECT_EQ(shown(R"({"running":false,"spaces":[{"space":"ZmlsZXM"}]})"),
            "/d: not running\nspace \"files\"\n  holds     0 ops, 0 B\n  pending   nothing\n");
}

TEST(StatusText, OtherTypesAreShownAsEmpty) {
  EXPECT_EQ(
      shown(R"({"running":true,"pid":1e300,"relay":[],"spaces":[7,{"space":{},"ops":-1,"peers":{},"pending":[0]}]})"),
      "/d: running (, process 0), relay \n"
      "space \"\"\n  holds     0 ops, 0 B\n  own url   not reachable\n  fetched   0 ops, 0 B\n"
      "  served    0 ops, 0 B\n  pending   nothing\n"
      "space \"\"\n  holds     0 ops, 0 B\n  own url   not reachable\n  fetched   0 ops, 0 B\n"
      "  served    0 ops, 0 B\n  pending   0 ops from \n");
  EXPECT_EQ(shown(R"({"running":1,"spaces":null})"), "/d: not running\n");
}

TEST(StatusText, NothingReachesTheTerminalUnescaped) {
  const std::string text =
      shown(R"({"running":true,"role":"\u001b[2J","relay":"\u009b1m","spaces":[{"space":"\u0007 "}]})");
  EXPECT_NE(text.find("(\\x1b[2J, process 0), relay \\xc2\\x9b1m\nspace \\x07 \n"), std::string::npos) << text;
}

TEST(StatusText, AnAnswerThatIsNoObjectIsAnError) {
  for (const char* answer : {"", "{", "[]", "7", "{} {}", "{\"a\":\"\xff\"}"})
    EXPECT_FALSE(read_status(answer)) << answer;
}

TEST(StatusText, NestingWithoutEndIsLeftOut) {
  std::string deep = R"({"running":true,"spaces":)";
  const std::size_t levels = 1'000'000;
  deep.append(levels, '[').append(levels, ']').append("}");
  const auto status = read_status(deep);
  ASSERT_TRUE(status);
  EXPECT_LT(status->dump().size(), 100U);
}

TEST(StatusText, SaysHowFarTheStorageArcsAreAndWithWhom) {
  EXPECT_EQ(shown(R"({"running":true,"spaces":[{"gossip":{"target_sectors":512,"storage_sectors":7,"in_sync_sectors":9,
      "rounds_completed":3,"peers":[{"peer":"ws://r:1/a","in_sync_at":"then","in_sync_sectors":9},
      {"peer":"ws://r:1/b"}]}},{"gossip":{"target_sectors":0}}]})"),
            "/d: running (, process 0), relay \n"
            "space \"\"\n  holds     0 ops, 0 B\n  own url   not reachable\n  fetched   0 ops, 0 B\n"
            "  served    0 ops, 0 B\n"
            "  gossip    claims 7 of 512 sectors, 9 found in sync, 3 rounds completed\n"
            "  in sync   9 sectors with ws://r:1/a at then\n"
            "  pending   nothing\n"
            "space \"\"\n  holds     0 ops, 0 B\n  own url   not reachable\n  fetched   0 ops, 0 B\n"
            "  served    0 ops, 0 B\n  pending   nothing\n");
}

}  // namespace
}  // namespace kitsune2::cli
