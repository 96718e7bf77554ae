// How many calls of the op store the writer of fetched ops has under way.
#include "node/fetch/core_fetch_writer.hpp"

#include "core_fetch_harness.hpp"

namespace kitsune2::fetch_test {
namespace {

/// Hands ten messages of `size` ops to a writer at once.
struct Writing {
  Writing(Bench& bench, const std::shared_ptr<OpStore>& store, std::size_t size)
      : writer(*bench.disk_runtime, store, [this](std::vector<FetchedRun> runs, const auto& result, Duration) {
          EXPECT_TRUE(result.has_value());
          std::size_t ops = 0;
          for (const FetchedRun& run : runs) ops += run.ops.size();
          written.push_back(ops);
        }) {
    const auto ops = bench.ops(0, 10 * size);
    for (std::size_t i = 0; i < ops.size(); ++i) {
      if (i % size == 0) writer.begin(MemoryNetwork::url_of("peer"), size);
      EXPECT_TRUE(writer.add(true, bench.policy->describe(ops[i].op_data).value(), ops[i].op_data));
      if (i % size == size - 1) writer.flush();
    }
    most_under_way = writer.writes_under_way();
    bench.world.run_for(1s);
    EXPECT_TRUE(writer.is_idle());
  }

  FetchWriter writer;
  std::size_t most_under_way = 0;
  std::vector<std::size_t> written;  ///< the number of ops of each call that has ended
};

TEST(FetchWriter, ADurableStoreGetsWhatArrivesDuringTwoCallsInOne) {
  Bench bench;
  const auto store = std::make_shared<FaultStore>(*bench.disk_runtime, bench.make_disk());
  ASSERT_TRUE(store->is_durable());
  const Writing writing(bench, store, FetchWriter::kQuickOps);
  EXPECT_EQ(writing.most_under_way, FetchWriter::kMaxWrites);
  EXPECT_EQ(writing.written,
            (std::vector<std::size_t>{FetchWriter::kQuickOps, FetchWriter::kQuickOps, 8 * FetchWriter::kQuickOps}));
}

TEST(FetchWriter, AStoreThatIsNotDurableGetsManyOpsAtOnce) {
  Bench bench;
  const auto store = bench.make_disk();
  ASSERT_FALSE(store->is_durable());
  const Writing writing(bench, store, FetchWriter::kQuickOps);
  EXPECT_EQ(writing.most_under_way, 10U);
  EXPECT_EQ(writing.written, std::vector<std::size_t>(10, FetchWriter::kQuickOps));
}

TEST(FetchWriter, FewOpsAreCollectedForAnyStore) {
  Bench bench;
  const Writing writing(bench, bench.make_disk(), 3);
  EXPECT_EQ(writing.most_under_way, FetchWriter::kMaxWrites);
  EXPECT_EQ(writing.written, (std::vector<std::size_t>{3, 3, 24}));
}

}  // namespace
}  // namespace kitsune2::fetch_test
