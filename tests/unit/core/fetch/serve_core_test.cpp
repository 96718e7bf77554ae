// ServeCore: what its twin does not say by name.
#include "core/fetch/serve_core.hpp"

#include <gtest/gtest.h>

#include <string>

namespace kitsune2 {
namespace {

Url peer(int n) { return *Url::parse("ws://relay:1/" + std::to_string(n)); }

TEST(ServeCoreRules, AsManyProvenPeersAsThereAreReadsDoNotStarveANewcomer) {
  ServeCore core(ServeCore::Limits{});
  const Time now{std::chrono::seconds(1)};
  std::uint64_t newcomers_reads = 0, all_reads = 0;
  // Each of sixteen asks for one small op after the other and takes it at once; so does the newcomer.
  const auto work_off = [&](bool counts) {
    for (const auto& action : core.take_actions()) {
      if (const auto* read = std::get_if<ServeCore::Read>(&action)) {
        if (counts) {
          ++all_reads;
          newcomers_reads += read->peer == peer(99) ? 1 : 0;
        }
        core.read_ended(read->read, {.has_ops = true, .bytes = 1024, .ops = 1, .is_exhausted = true}, now);
      } else if (const auto* send = std::get_if<ServeCore::Send>(&action)) {
        core.sent(send->read, true, now);
      }
    }
  };
  for (int n = 0; n < 16; ++n) {
    for (int i = 0; i < 64; ++i) core.request(peer(n), 100, now);
  }
  for (int turn = 0; turn < 40'000; ++turn) {  // all sixteen have taken a megabyte by then
    work_off(false);
    core.request(peer(turn % 16), 100, now);
  }
  for (int turn = 0; turn < 320; ++turn) {
    core.request(peer(99), 100, now);
    work_off(true);
    core.request(peer(turn % 16), 100, now);
  }
  EXPECT_GT(newcomers_reads, 16U) << "of " << all_reads;
  core.check_invariants();
}

}  // namespace
}  // namespace kitsune2
