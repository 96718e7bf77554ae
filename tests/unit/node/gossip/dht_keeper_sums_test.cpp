// The DHT model of a space whose store keeps sums: rule H5 of DhtKeeper.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "kitsune2/sqlite_store.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/fault_store.hpp"
#include "kitsune2/testing/store_world.hpp"
#include "node/gossip/dht_keeper.hpp"

namespace kitsune2::node_test {
namespace {

using namespace std::chrono_literals;

class DhtKeeperSums : public ::testing::Test {
 protected:
  void open() {
    keeper_.reset();
    store_.reset();
    store_ = std::make_shared<testing::FaultStore>(
        w_.runtime(), open_sqlite_op_store(w_.runtime(), policy_, SpaceId::from_text("space"), path_).value());
    keeper_ = std::make_shared<DhtKeeper>(w_.runtime(), store_);
  }
  void put(std::size_t count) {
    std::vector<Bytes> ops;
    for (std::size_t i = 0; i < count; ++i) {
      // Of up to 40 days, and of now.
      const Timestamp at = w_.now() - (stored_ % 7 == 0 ? 0 : stored_ * 7'919 % (40 * 24 * 3'600)) * 1s;
      ops.push_back(testing::make_memory_op(++stored_, 64, at));
      auto described = policy_->describe(ops.back()).value();
      held_[described.op_id] = described.created_at;
    }
    ++under_way_;
    store_->process_incoming_ops(std::move(ops), [this](const Result<ProcessedOps>& out) {
      EXPECT_TRUE(out);
      --under_way_;
    });
  }
  void expect_right(std::uint64_t refused = 0) {
    ASSERT_TRUE(w_.world().wait_for([&] { return under_way_ == 0 && keeper_->model() != nullptr; }));
    const auto* model = keeper_->model();
    ASSERT_NE(model, nullptr);
    model->check_invariants();
    dht::DhtModel naive(w_.now());
    for (const auto& [id, created_at] : held_) EXPECT_TRUE(naive.add(id.loc(), created_at, id.view()));
    SectorSet full;
    full.add(DhtArc::full());
    EXPECT_EQ(model->op_count(), held_.size());
    EXPECT_EQ(model->minimal(full), naive.minimal(full));
    EXPECT_EQ(keeper_->refused(), refused);
  }

  testing::StoreWorld w_;
  testing::TempDir dir_;
  const std::string path_ = dir_ / "ops.db";
  const std::shared_ptr<const OpPolicy> policy_ = make_memory_op_policy();
  std::shared_ptr<testing::FaultStore> store_;
  std::shared_ptr<DhtKeeper> keeper_;
  std::map<OpId, Timestamp> held_;
  std::uint64_t stored_ = 0;
  std::size_t under_way_ = 0;
};

TEST_F(DhtKeeperSums, TheModelIsTheSumsAndWhatIsStoredAfterThem) {
  open();
  put(5'000);
  for (int round = 0; round < 3; ++round) {
    put(300);
    keeper_->start();
    EXPECT_EQ(keeper_->model(), nullptr);
    for (int i = 0; i < 20; ++i) put(7);
    expect_right();
    EXPECT_EQ(store_->reads(), 1U) << "of the sums; no op was listed";
    put(70);
    w_.world().run_for(20min);
    expect_right();
    open();
  }
}

TEST_F(DhtKeeperSums, AClockThatIsSetBackOverASliceFindsThemAgain) {
  open();
  put(5'000);
  keeper_->start();
  expect_right();
  const Timestamp begin = w_.now();
  for (const auto off : {300h, 0h, 30h}) {
    w_.set_now(begin + off);
    static_cast<void>(keeper_->model());
    w_.world().run_for(DhtKeeper::kReadAgainAfter + 1s);
    expect_right();
    put(10);
    expect_right();
  }
}

TEST_F(DhtKeeperSums, IfTheStoreCannotGiveThemAllOpsAreRead) {
  open();
  put(5'000);
  store_->fail_reads(make_error(Errc::io, "not now"));
  keeper_->start();
  w_.world().run_for(1s);
  EXPECT_EQ(keeper_->model(), nullptr);
  store_->fail_reads(std::nullopt);
  w_.world().run_for(DhtKeeper::kReadAgainAfter + 1s);
  expect_right();
}

TEST_F(DhtKeeperSums, WhereIdsHaveSeveralLengthsThereAreNoneAndAllOpsAreRead) {
  open();
  put(100);
  keeper_->start();
  expect_right();
  const OpId odd(as_bytes("an id of another length than the other ones"));
  ASSERT_TRUE(w_.store_described(*store_, {{OpDescription{odd, w_.now()}, Bytes::copy_of("op")}}));
  expect_right(1);
  open();
  keeper_->start();
  expect_right(1);
  EXPECT_GT(store_->reads(), 1U);
}

}  // namespace
}  // namespace kitsune2::node_test
