// Gossip's book of rounds, its rounds, its turns of disc and rings, what it puts off, its queue of reads and its
// storage arcs against their naive twins; the bytes are the commands.
#include <algorithm>

#include "fuzz/fuzz.hpp"
#include "model/arc_growth_twin.hpp"
#include "model/comparison_turns_twin.hpp"
#include "model/put_offs_twin.hpp"
#include "model/read_queue_twin.hpp"
#include "model/round_book_twin.hpp"
#include "model/rounds_twin.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView commands(data, std::min<std::size_t>(size, 4096));
  // A difference throws: a crash here.
  model::RoundBookTwinRun(commands).run();
  model::RoundsTwinRun(commands).run();
  model::ReadQueueTwinRun(commands).run();
  // The twin reads its whole history at each command.
  model::ComparisonTurnsTwinRun(commands.first(std::min<std::size_t>(commands.size(), 1024))).run();
  model::PutOffsTwinRun(commands.first(std::min<std::size_t>(commands.size(), 1024))).run();
  model::ArcGrowthTwinRun(commands.first(std::min<std::size_t>(commands.size(), 512))).run();
  return 0;
}
