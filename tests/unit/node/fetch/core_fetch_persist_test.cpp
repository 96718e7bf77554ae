// What the fetch module writes to a durable store.
#include "core_fetch_harness.hpp"

namespace kitsune2::fetch_test {
namespace {

TEST(CoreFetchPersist, PendingOpsAreWrittenOnceHoweverOftenTheyAreRequested) {
  Bench bench;
  FetchNode bob(bench, "bob");
  const auto peer = MemoryNetwork::url_of("peer");
  make_silent(bench, peer);
  const auto ids = ids_of(bench.ops(0, 100));
  bench.world.run_ready();
  bob.store->hold_writes();
  const auto before = bob.store->writes();
  for (int i = 0; i < 50; ++i) {
    bob.want(ids, peer);
    bench.world.run_ready();
  }
  EXPECT_TRUE(bob.outcomes.empty()) << "nothing is durable yet";
  bob.store->release();
  bench.world.run_ready();
  EXPECT_EQ(bob.store->writes() - before, 1U);
  ASSERT_EQ(bob.outcomes.size(), 50U);
  for (const auto& outcome : bob.outcomes) EXPECT_TRUE(outcome);
  EXPECT_EQ(bob.ops_pending_on_disk(), 100U);
  bob.check();
}

TEST(CoreFetchPersist, OfAListThatIsKnownInPartOnlyTheNewIsWritten) {
  Bench bench;
  FetchNode bob(bench, "bob");
  const auto peer = MemoryNetwork::url_of("peer");
  make_silent(bench, peer);
  bench.world.run_ready();
  bob.store->hold_writes();
  bob.want(ids_of(bench.ops(0, 10)), peer);
  bench.world.run_ready();
  bob.want(ids_of(bench.ops(5, 10)), peer);
  bench.world.run_ready();
  bob.store->release();
  bench.world.run_ready();
  ASSERT_EQ(bob.outcomes.size(), 2U);
  EXPECT_TRUE(bob.outcomes[0] && bob.outcomes[1]);
  EXPECT_EQ(bob.ops_pending_on_disk(), 15U);
}

TEST(CoreFetchPersist, AFailedWriteIsRepeatedWithTheNextRequest) {
  Bench bench;
  FetchNode bob(bench, "bob");
  const auto peer = MemoryNetwork::url_of("peer");
  make_silent(bench, peer);
  const auto ids = ids_of(bench.ops(0, 10));
  bob.store->fail_next_writes(1, make_error(Errc::disk_full, "no space"));
  EXPECT_FALSE(bob.request(ids, peer));
  EXPECT_EQ(bob.ops_pending_on_disk(), 0U);
  EXPECT_TRUE(bob.request(ids, peer));
  EXPECT_EQ(bob.ops_pending_on_disk(), 10U);
  const auto before = bob.store->writes();
  EXPECT_TRUE(bob.request(ids, peer));
  EXPECT_EQ(bob.store->writes(), before);
}

TEST(CoreFetchPersist, CallersThatWaitForAWriteLearnThatItFailed) {
  Bench bench;
  FetchNode bob(bench, "bob");
  const auto peer = MemoryNetwork::url_of("peer");
  make_silent(bench, peer);
  const auto ids = ids_of(bench.ops(0, 10));
  bench.world.run_ready();
  bob.store->fail_next_writes(1, make_error(Errc::disk_full, "no space"));
  bob.store->delay_writes(1s);
  bob.want(ids, peer);
  bench.world.run_for(1ms);
  bob.want(ids, peer);
  bench.world.run_for(1min);
  ASSERT_EQ(bob.outcomes.size(), 2U);
  EXPECT_FALSE(bob.outcomes[0]);
  EXPECT_FALSE(bob.outcomes[1]);
}

TEST(CoreFetchPersist, ACallerLearnsThatAWriteOfItsOpsFailedMeanwhile) {
  // Found by the simulator: its own write was complete, but what it had found pending was lost in a restart.
  Bench bench;
  FetchNode bob(bench, "bob");
  const auto peer = MemoryNetwork::url_of("peer");
  make_silent(bench, peer);
  bench.world.run_ready();
  bob.store->fail_next_writes(1, make_error(Errc::disk_full, "no space"));
  bob.store->delay_writes(1s);
  bob.want(ids_of(bench.ops(0, 10)), peer);
  bench.world.run_for(1ms);
  bob.want(ids_of(bench.ops(0, 15)), peer);
  bench.world.run_for(1min);
  ASSERT_EQ(bob.outcomes.size(), 2U);
  EXPECT_FALSE(bob.outcomes[0]);
  EXPECT_FALSE(bob.outcomes[1]) << "ten of them are not durable";
  EXPECT_TRUE(bob.request(ids_of(bench.ops(0, 15)), peer));
  EXPECT_EQ(bob.ops_pending_on_disk(), 15U);
}

}  // namespace
}  // namespace kitsune2::fetch_test
