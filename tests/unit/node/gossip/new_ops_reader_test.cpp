// How much of a node's time the reads for rounds of gossip may take: rules Q2 and Q4 of gossip::ReadQueue.
#include "node/gossip/new_ops_reader.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/store_world.hpp"

namespace kitsune2 {
namespace {

using namespace std::chrono_literals;

/// A runtime on which work takes time: its clock is ahead of the world's by all that was worked.
class BusyRuntime final : public Runtime {
 public:
  explicit BusyRuntime(Runtime& inner) : inner_(inner) {}
  void work(Duration time) { worked_ += time; }

  Time now() const override { return inner_.now() + worked_; }
  Timestamp wall_now() const override { return inner_.wall_now(); }
  void post(Task task) override { inner_.post(std::move(task)); }
  TimerId schedule(Time at, Task task) override { return inner_.schedule(at - worked_, std::move(task)); }
  void cancel(TimerId timer) override { inner_.cancel(timer); }
  void random_bytes(std::span<std::uint8_t> out) override { inner_.random_bytes(out); }
  bool allows_caller() const override { return inner_.allows_caller(); }

 private:
  Runtime& inner_;
  Duration worked_{};
};

TEST(NewOpsReader, WhatIsDoneWithTheIdsCountsAsAPartOfTheRead) {
  testing::StoreWorld world;
  BusyRuntime runtime(world.runtime());
  const auto store = make_memory_op_store(world.runtime(), make_memory_op_policy());
  const auto reader = std::make_shared<NewOpsReader>(runtime, store);
  NewOpsWish wish;
  wish.common.add(DhtArc::full());
  wish.limit = 1'000;
  wish.most_ids = 1'000;
  wish.ours = true;
  std::vector<Time> done;
  for (int i = 0; i < 3; ++i) {
    reader->read(
        wish, [] { return true; },
        [&](const NewOps&) {
          done.push_back(runtime.now());
          runtime.work(100ms);  // the message is encoded and sent
        });
  }
  world.world().run_for(10s);
  ASSERT_EQ(done.size(), 3U);
  for (std::size_t i = 1; i < done.size(); ++i) {
    EXPECT_GE(done[i] - done[i - 1], 100ms + gossip::ReadQueue::kRest * 100ms);
  }
  reader->stop();
}

}  // namespace
}  // namespace kitsune2
