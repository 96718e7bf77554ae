// The tests of OpStore's contract, for any implementation of it. Needs GoogleTest.
//
// Include it in one source file of a test program that links kitsune2::testing, and say there which store to test:
//
//     #include <kitsune2/testing/op_store_suite.hpp>
//     namespace kitsune2::testing {
//     INSTANTIATE_TEST_SUITE_P(Mine, OpStoreSuite, ::testing::Values(OpStoreKind{
//         .name = "mine",
//         .durable = true,
//         .open = [](Runtime& runtime, std::shared_ptr<const OpPolicy> policy, const std::string& folder) {
//           return std::make_shared<MyStore>(runtime, std::move(policy), folder);
//         }}), op_store_kind_name);
//     }
//
// The library's own stores pass the same tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <ostream>
#include <random>
#include <set>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/op_store.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/store_world.hpp"

namespace kitsune2::testing {

/// An implementation to be tested.
struct OpStoreKind {
  std::string name;             ///< letters, digits, '_': a part of the tests' names
  bool durable = false;         ///< what `is_durable` must return; a durable store is reopened and must hold its ops
  bool removes_pending = true;  ///< false: `remove_pending` has its default, which has no effect
  /// Opens the store in `folder`, which exists, is empty the first time, and is removed after the test. A store that
  /// needs no folder is new each time. Runs on the test's thread, which is also the strand of `runtime`; the store may
  /// have threads of its own.
  std::function<std::shared_ptr<OpStore>(Runtime& runtime, std::shared_ptr<const OpPolicy> policy,
                                         const std::string& folder)>
      open;

  friend std::ostream& operator<<(std::ostream& out, const OpStoreKind& kind) { return out << kind.name; }
};

/// The name of a kind in the names of tests.
inline std::string op_store_kind_name(const ::testing::TestParamInfo<OpStoreKind>& info) { return info.param.name; }

class OpStoreSuite : public ::testing::TestWithParam<OpStoreKind> {
 protected:
  using OpIds = std::vector<OpId>;

  OpStoreSuite() { open(make_memory_op_policy()); }

  /// A new, empty store.
  void open(std::shared_ptr<const OpPolicy> policy) {
    folder_ = dir_ / ("store" + std::to_string(opened_++));
    std::filesystem::create_directory(folder_);
    open_again(std::move(policy));
  }
  void open_again(std::shared_ptr<const OpPolicy> policy) {
    store_.reset();
    store_ = GetParam().open(w_.runtime(), std::move(policy), folder_);
  }
  OpStore& s() { return *store_; }
  ProcessedOps put(std::vector<Bytes> ops) { return w_.process(s(), std::move(ops)).value(); }

  StoreWorld w_;
  TempDir dir_;
  int opened_ = 0;
  std::string folder_;
  std::shared_ptr<OpStore> store_;
};

// -------------------------------------------------------------- store, retrieve

TEST_P(OpStoreSuite, StoresAndGivesBack) {
  const Bytes a = op_at(10, 100);
  const Bytes b = op_at(20, 50);
  const auto out = put({a, b});
  EXPECT_EQ(out.stored, (std::vector<StoredOp>{{Timestamp{100}, id_at(10)}, {Timestamp{50}, id_at(20)}}));
  EXPECT_EQ(out.newly_stored, (OpIds{id_at(10), id_at(20)}));
  EXPECT_EQ(out.bytes_stored, a.size() + b.size());
  EXPECT_EQ(out.rejected, 0U);
  EXPECT_EQ(w_.retrieve(s(), {id_at(20), id_at(10)}).value(), (std::vector<MetaOp>{{id_at(20), b}, {id_at(10), a}}));
}

TEST_P(OpStoreSuite, KnowsItsPolicyAndDurability) {
  EXPECT_EQ(s().policy().name(), "memory-op");
  EXPECT_EQ(s().is_durable(), GetParam().durable);
}

TEST_P(OpStoreSuite, EmptyCallsAreAnswered) {
  EXPECT_TRUE(put({}).stored.empty());
  EXPECT_TRUE(w_.store_described(s(), {})->stored.empty());
  EXPECT_TRUE(w_.retrieve(s(), {})->empty());
  EXPECT_TRUE(w_.filter(s(), {})->empty());
  EXPECT_TRUE(w_.add_pending(s(), {}, peer_url(1)));
  EXPECT_TRUE(w_.pending(s()).empty());
  EXPECT_EQ(w_.stats(s())->ops, 0U);
}

TEST_P(OpStoreSuite, OpsThatFailThePolicyAreCountedAndTheOthersStored) {
  const auto out = put({Bytes::copy_of("no op"), op_at(1, 1), Bytes(), op_at(2, 2)});
  EXPECT_EQ(out.rejected, 2U);
  EXPECT_EQ(out.newly_stored, (OpIds{id_at(1), id_at(2)}));
  EXPECT_EQ(w_.stats(s())->ops, 2U);
}

TEST_P(OpStoreSuite, ARejectedOpHasItsIndexAndTheReasonOfThePolicy) {
  std::vector<Bytes> ops{op_at(1, 1)};
  for (int i = 0; i < 20; ++i) ops.push_back(Bytes::copy_of("no op"));
  const auto out = put(ops);
  EXPECT_EQ(out.rejected, 20U);
  ASSERT_EQ(out.rejections.size(), ProcessedOps::kMostRejections) << "the first of them";
  const Error why = s().policy().describe(Bytes::copy_of("no op")).error();
  for (std::size_t i = 0; i < out.rejections.size(); ++i) {
    EXPECT_EQ(out.rejections[i].index, i + 1);
    EXPECT_EQ(out.rejections[i].reason.to_string(), why.to_string());
  }
  EXPECT_TRUE(put({op_at(2, 2)}).rejections.empty());
}

TEST_P(OpStoreSuite, AnOpThatIsHeldIsReportedAsStoredButNotAsNew) {
  const Bytes a = op_at(1, 7);
  put({a});
  const auto again = put({a, op_at(2, 8), a});
  EXPECT_EQ(again.stored,
            (std::vector<StoredOp>{{Timestamp{7}, id_at(1)}, {Timestamp{8}, id_at(2)}, {Timestamp{7}, id_at(1)}}));
  EXPECT_EQ(again.newly_stored, (OpIds{id_at(2)}));
  EXPECT_EQ(w_.stats(s())->ops, 2U);
  EXPECT_EQ(w_.stats(s())->bytes, a.size() + op_at(2, 8).size());
}

TEST_P(OpStoreSuite, TwiceInOneCallIsStoredOnce) {
  const Bytes a = op_at(1, 7);
  const auto out = put({a, a});
  EXPECT_EQ(out.stored.size(), 2U);
  EXPECT_EQ(out.newly_stored.size(), 1U);
  EXPECT_EQ(out.bytes_stored, a.size());
}

TEST_P(OpStoreSuite, TheFirstBytesOfAnIdStay) {
  const Bytes first = op_at(1, 7, 0, 3);
  put({first});
  const auto out = put({op_at(1, 9, 0, 5)});  // same id by this policy, other bytes and time
  EXPECT_EQ(out.stored, (std::vector<StoredOp>{{Timestamp{7}, id_at(1)}}));
  EXPECT_EQ(w_.retrieve(s(), {id_at(1)})->at(0).op_data, first);
}

TEST_P(OpStoreSuite, DescribedOpsAreStoredAsDescribed) {
  /// Identifies known ops; ids may have any length, and may be empty.
  class Known final : public OpPolicy {
   public:
    Result<OpDescription> describe(ByteView op) const override {
      for (const auto& [description, bytes] : ops) {
        if (as_text(bytes.view()) == as_text(op)) return description;
      }
      return make_error(Errc::malformed, "not known");
    }
    std::string_view name() const override { return "known"; }

    std::vector<std::pair<OpDescription, Bytes>> ops;
  };
  const OpId long_id = OpId::from_text(std::string(300, 'x'));
  const auto policy = std::make_shared<Known>();
  policy->ops = {{{OpId::from_text("any id"), Timestamp{-3}}, Bytes::copy_of("any bytes")},
                 {{OpId(), Timestamp{4}}, Bytes()},
                 {{long_id, Timestamp{5}}, Bytes::copy_of("z")}};
  open(policy);
  const auto out = w_.store_described(s(), policy->ops).value();
  EXPECT_EQ(out.newly_stored.size(), 3U);
  EXPECT_EQ(out.bytes_stored, 10U);
  EXPECT_EQ(out.rejected, 0U);
  const auto back = w_.retrieve(s(), {OpId(), long_id, OpId::from_text("any id")}).value();
  ASSERT_EQ(back.size(), 3U);
  EXPECT_EQ(back[0], (MetaOp{OpId(), Bytes()}));
  EXPECT_EQ(back[1], (MetaOp{long_id, Bytes::copy_of("z")}));
  EXPECT_EQ(back[2].op_data, Bytes::copy_of("any bytes"));
  EXPECT_EQ(w_.earliest(s(), DhtArc::full()).value(), Timestamp{-3});
}

TEST_P(OpStoreSuite, LargeOpsComeBackWhole) {
  open(make_sha256_policy());
  std::vector<Bytes> ops;
  for (const std::size_t size : {65'535U, 65'536U, 65'537U, 1'048'576U, 5'000'000U}) ops.push_back(make_op(size, size));
  const auto out = put(ops);
  ASSERT_EQ(out.newly_stored.size(), ops.size());
  const auto back = w_.retrieve(s(), out.newly_stored).value();
  ASSERT_EQ(back.size(), ops.size());
  for (std::size_t i = 0; i < ops.size(); ++i) EXPECT_EQ(back[i].op_data, ops[i]);
}

TEST_P(OpStoreSuite, OpsDoNotDependOnTheBufferTheyCameIn) {
  open(make_prefix_policy());
  std::vector<std::uint8_t> message(300'000, 7);
  for (std::size_t i = 0; i < 3; ++i) message[i * 100'000] = static_cast<std::uint8_t>(i);
  auto owner = std::make_shared<std::vector<std::uint8_t>>(message);
  const Bytes buffer = Bytes::share(owner, *owner);
  const auto out = put({buffer.slice(0, 64), buffer.slice(100'000, 100'000), buffer.slice(200'000, 1'000)});
  // Shared bytes are immutable; with copied bytes the store does not even look at them again.
  const auto back = w_.retrieve(s(), out.newly_stored).value();
  EXPECT_EQ(back[0].op_data, buffer.slice(0, 64));
  EXPECT_EQ(back[1].op_data, buffer.slice(100'000, 100'000));
  EXPECT_EQ(back[2].op_data, buffer.slice(200'000, 1'000));
  EXPECT_NE(back[0].op_data.data(), buffer.data());
}

TEST_P(OpStoreSuite, RetrieveLeavesOutWhatIsNotHeldAndGivesEachOnce) {
  put({op_at(1, 1), op_at(2, 2)});
  const auto out = w_.retrieve(s(), {id_at(9), id_at(2), id_at(2), id_at(8), id_at(1), id_at(2)}).value();
  ASSERT_EQ(out.size(), 2U);
  EXPECT_EQ(out[0].op_id, id_at(2));
  EXPECT_EQ(out[1].op_id, id_at(1));
}

TEST_P(OpStoreSuite, OpsStoredTogetherAreGivenInAnyOrder) {
  open(make_sha256_policy());
  std::mt19937 random(4);
  std::vector<MetaOp> held;  // in the order of storing
  for (int call = 0; call < 3; ++call) {
    std::vector<Bytes> ops;
    for (int i = 0; i < 60; ++i) ops.push_back(make_op(1000 * call + i, i % 9 == 4 ? 70'000 : 32 + random() % 300));
    const auto out = put(ops);
    ASSERT_EQ(out.newly_stored.size(), ops.size());
    for (std::size_t i = 0; i < ops.size(); ++i) held.push_back({out.newly_stored[i], ops[i]});
  }
  for (int round = 0; round < 200; ++round) {
    std::vector<OpId> asked;
    std::vector<MetaOp> expected;
    std::set<std::size_t> given;
    for (int run = 0; run < 6; ++run) {
      std::size_t at = random() % held.size();
      for (auto n = random() % 12; n > 0; --n) {
        if (random() % 10 == 0) asked.push_back(id_at(random()));  // not held
        asked.push_back(held[at].op_id);
        if (given.insert(at).second) expected.push_back(held[at]);
        at = (at + (random() % 8 == 0 ? random() % held.size() : 1)) % held.size();
      }
    }
    ASSERT_EQ(w_.retrieve(s(), asked).value(), expected) << round;
  }
}

TEST_P(OpStoreSuite, RetrieveStopsBeforeMaxBytesIsPassed) {
  open(make_prefix_policy());
  const auto ops = make_ops(s().policy(), 1, 5, 100);
  put(payloads_of(ops));
  const OpIds ids = ids_of(ops);
  EXPECT_EQ(w_.retrieve(s(), ids, 0)->size(), 1U);
  EXPECT_EQ(w_.retrieve(s(), ids, 99)->size(), 1U);
  EXPECT_EQ(w_.retrieve(s(), ids, 100)->size(), 1U);
  EXPECT_EQ(w_.retrieve(s(), ids, 199)->size(), 1U);
  EXPECT_EQ(w_.retrieve(s(), ids, 200)->size(), 2U);
  EXPECT_EQ(w_.retrieve(s(), ids, 500)->size(), 5U);
  EXPECT_EQ(w_.retrieve(s(), ids, UINT64_MAX)->size(), 5U);
}

TEST_P(OpStoreSuite, FilterKeepsOrderAndRepeats) {
  put({op_at(1, 1), op_at(2, 2)});
  EXPECT_EQ(w_.filter(s(), {id_at(5), id_at(1), id_at(4), id_at(5), id_at(2)}).value(),
            (OpIds{id_at(5), id_at(4), id_at(5)}));
  EXPECT_TRUE(w_.filter(s(), {id_at(1), id_at(2)})->empty());
}

TEST_P(OpStoreSuite, IdsAtTheSameLocationAreToldApart) {
  put({op_at(77, 1, 1), op_at(77, 2, 2)});
  ASSERT_EQ(id_at(77, 1).loc(), id_at(77, 2).loc());
  EXPECT_EQ(w_.filter(s(), {id_at(77, 1), id_at(77, 2), id_at(77, 3)}).value(), (OpIds{id_at(77, 3)}));
}

// ------------------------------------------------------------------ time slices

TEST_P(OpStoreSuite, TimeSliceIsHalfOpenAndInOrder) {
  put({op_at(3, 30), op_at(1, 10), op_at(2, 20), op_at(9, 20, 1), op_at(4, 40)});
  const auto full = DhtArc::full();
  OpIds at_20{id_at(2), id_at(9, 1)};
  std::sort(at_20.begin(), at_20.end());
  EXPECT_EQ(w_.slice(s(), full, Timestamp{20}, Timestamp{40})->op_ids, (OpIds{at_20[0], at_20[1], id_at(3)}));
  EXPECT_EQ(w_.slice(s(), full, Timestamp{10}, Timestamp{11})->op_ids, (OpIds{id_at(1)}));
  EXPECT_TRUE(w_.slice(s(), full, Timestamp{10}, Timestamp{10})->op_ids.empty());
  EXPECT_TRUE(w_.slice(s(), full, Timestamp{30}, Timestamp{10})->op_ids.empty());
  EXPECT_EQ(w_.slice(s(), full, Timestamp::min(), Timestamp::max())->op_ids.size(), 5U);
}

TEST_P(OpStoreSuite, TimeSliceCountsTheBytesOfWhatItGives) {
  const Bytes a = op_at(1, 10);
  const Bytes b = op_at(2, 20, 0, 50);
  put({a, b, op_at(1000, 15)});
  const auto out = w_.slice(s(), DhtArc(0, 10), Timestamp{0}, Timestamp{100}).value();
  EXPECT_EQ(out.op_ids, (OpIds{id_at(1), id_at(2)}));
  EXPECT_EQ(out.bytes, a.size() + b.size());
}

TEST_P(OpStoreSuite, ArcsAreInclusiveAndWrap) {
  put({op_at(0, 1), op_at(5, 2), op_at(10, 3), op_at(UINT32_MAX, 4)});
  const auto in = [&](DhtArc arc) { return w_.slice(s(), arc, Timestamp{0}, Timestamp{100})->op_ids; };
  EXPECT_EQ(in(DhtArc(5, 10)), (OpIds{id_at(5), id_at(10)}));
  EXPECT_EQ(in(DhtArc(6, 9)), OpIds{});
  EXPECT_EQ(in(DhtArc(5, 5)), (OpIds{id_at(5)}));
  EXPECT_EQ(in(DhtArc(10, 0)), (OpIds{id_at(0), id_at(10), id_at(UINT32_MAX)}));
  EXPECT_EQ(in(DhtArc(11, 4)), (OpIds{id_at(0), id_at(UINT32_MAX)}));
  EXPECT_EQ(in(DhtArc(6, 5)).size(), 4U);  // all the way round
  EXPECT_EQ(in(DhtArc::full()).size(), 4U);
  EXPECT_EQ(in(DhtArc::none()), OpIds{});
}

TEST_P(OpStoreSuite, NarrowArcsAndShortSlicesAmongManyOps) {
  std::vector<Bytes> ops;
  for (std::uint32_t i = 0; i < 2'000; ++i) ops.push_back(op_at(i * 2'147'483U, 1'000 + i % 50, i));
  put(ops);
  // By location: few in the arc, many in the time.
  const DhtArc narrow(10 * 2'147'483U, 12 * 2'147'483U);
  EXPECT_EQ(w_.slice(s(), narrow, Timestamp{0}, Timestamp{5'000})->op_ids,
            (OpIds{id_at(10 * 2'147'483U, 10), id_at(11 * 2'147'483U, 11), id_at(12 * 2'147'483U, 12)}));
  // By time: few in the time, many in the arc.
  const auto out = w_.slice(s(), DhtArc(0, 3'000'000'000U), Timestamp{1'049}, Timestamp{2'000}).value();
  EXPECT_EQ(out.op_ids.size(), 27U);
  // After more ops have come, old and new ones together.
  put({op_at(11 * 2'147'483U, 900, 5'000)});
  EXPECT_EQ(w_.slice(s(), narrow, Timestamp{0}, Timestamp{5'000})->op_ids.front(), id_at(11 * 2'147'483U, 5'000));
}

TEST_P(OpStoreSuite, EarliestInArc) {
  EXPECT_EQ(w_.earliest(s(), DhtArc::full()).value(), std::nullopt);
  put({op_at(10, 300), op_at(20, 200), op_at(4'000'000'000U, 100)});
  EXPECT_EQ(w_.earliest(s(), DhtArc::full()).value(), Timestamp{100});
  EXPECT_EQ(w_.earliest(s(), DhtArc(0, 2'000'000'000U)).value(), Timestamp{200});
  EXPECT_EQ(w_.earliest(s(), DhtArc(10, 10)).value(), Timestamp{300});
  EXPECT_EQ(w_.earliest(s(), DhtArc(3'000'000'000U, 10)).value(), Timestamp{100});
  EXPECT_EQ(w_.earliest(s(), DhtArc(11, 19)).value(), std::nullopt);
  EXPECT_EQ(w_.earliest(s(), DhtArc::none()).value(), std::nullopt);
}

TEST_P(OpStoreSuite, TimesBefore1970Work) {
  put({op_at(1, -100), op_at(2, 0)});
  EXPECT_EQ(w_.earliest(s(), DhtArc::full()).value(), Timestamp{-100});
  EXPECT_EQ(w_.slice(s(), DhtArc::full(), Timestamp{-100}, Timestamp{0})->op_ids, (OpIds{id_at(1)}));
}

// ---------------------------------------------------------------------- bounded

TEST_P(OpStoreSuite, BoundedGivesWhatWasStoredSince) {
  put({op_at(1, 500)});
  const auto first = w_.bounded(s(), DhtArc::full(), Timestamp{0}).value();
  EXPECT_EQ(first.op_ids, (OpIds{id_at(1)}));
  EXPECT_EQ(first.bytes, op_at(1, 500).size());
  EXPECT_TRUE(w_.bounded(s(), DhtArc::full(), first.next)->op_ids.empty());
  put({op_at(3, 1), op_at(2, 2)});  // older by creation, newer by storing; in the order of storing
  const auto second = w_.bounded(s(), DhtArc::full(), first.next).value();
  EXPECT_EQ(second.op_ids, (OpIds{id_at(3), id_at(2)}));
  EXPECT_GT(second.next, first.next);
}

TEST_P(OpStoreSuite, BoundedStoredAtFollowsTheWallClock) {
  w_.set_now(Timestamp::from_seconds(1'000'000));
  put({op_at(1, 1)});
  w_.set_now(Timestamp::from_seconds(2'000'000));
  put({op_at(2, 2)});
  EXPECT_EQ(w_.bounded(s(), DhtArc::full(), Timestamp::from_seconds(1'500'000))->op_ids, (OpIds{id_at(2)}));
  EXPECT_EQ(w_.bounded(s(), DhtArc::full(), Timestamp::from_seconds(1'000'000))->op_ids, (OpIds{id_at(1), id_at(2)}));
}

TEST_P(OpStoreSuite, BoundedBookmarkSkipsNothingWhenTheClockGoesBack) {
  w_.set_now(Timestamp::from_seconds(2'000'000));
  put({op_at(1, 1)});
  const auto first = w_.bounded(s(), DhtArc::full(), Timestamp{0}).value();
  w_.set_now(Timestamp::from_seconds(1'000'000));
  put({op_at(2, 2)});
  const auto second = w_.bounded(s(), DhtArc::full(), first.next).value();
  EXPECT_EQ(second.op_ids, (OpIds{id_at(2)}));
  put({op_at(3, 3)});
  EXPECT_EQ(w_.bounded(s(), DhtArc::full(), second.next)->op_ids, (OpIds{id_at(3)}));
}

TEST_P(OpStoreSuite, BoundedBookmarkSkipsNothingWhenTheClockStandsStill) {
  Timestamp next{0};
  for (std::uint32_t i = 0; i < 50; ++i) {
    put({op_at(i, 1), op_at(i + 1'000, 1)});
    const auto out = w_.bounded(s(), DhtArc::full(), next).value();
    EXPECT_EQ(out.op_ids, (OpIds{id_at(i), id_at(i + 1'000)}));
    next = out.next;
  }
}

TEST_P(OpStoreSuite, BoundedSurvivesAnAbsurdClock) {
  w_.set_now(Timestamp::max());
  put({op_at(1, 1), op_at(2, 1)});
  const auto first = w_.bounded(s(), DhtArc::full(), Timestamp{0}).value();
  EXPECT_EQ(first.op_ids.size(), 2U);
  w_.set_now(Timestamp::min());
  put({op_at(3, 1)});
  EXPECT_EQ(w_.bounded(s(), DhtArc::full(), first.next)->op_ids, (OpIds{id_at(3)}));
}

TEST_P(OpStoreSuite, BoundedOfAnEmptyStoreOrArcGivesAUsableBookmark) {
  const auto empty = w_.bounded(s(), DhtArc::full(), Timestamp{0}).value();
  EXPECT_TRUE(empty.op_ids.empty());
  EXPECT_GT(empty.next.micros, 0);
  put({op_at(1, 1)});
  const auto none = w_.bounded(s(), DhtArc::none(), Timestamp{0}).value();
  EXPECT_TRUE(none.op_ids.empty());
  EXPECT_EQ(none.bytes, 0U);
  EXPECT_GT(none.next.micros, 0);
  EXPECT_EQ(w_.bounded(s(), DhtArc::full(), empty.next)->op_ids, (OpIds{id_at(1)}));
}

TEST_P(OpStoreSuite, BoundedLimitCutsAndTheBookmarkGoesOnThere) {
  open(make_prefix_policy());
  const auto ops = make_ops(s().policy(), 1, 5, 100);
  put(payloads_of(ops));
  const OpIds ids = ids_of(ops);
  auto out = w_.bounded(s(), DhtArc::full(), Timestamp{0}, 250).value();
  EXPECT_EQ(out.op_ids, (OpIds{ids[0], ids[1]}));
  EXPECT_EQ(out.bytes, 200U);
  EXPECT_TRUE(out.cut);
  out = w_.bounded(s(), DhtArc::full(), out.next, 200).value();
  EXPECT_EQ(out.op_ids, (OpIds{ids[2], ids[3]}));
  out = w_.bounded(s(), DhtArc::full(), out.next, 200).value();
  EXPECT_EQ(out.op_ids, (OpIds{ids[4]}));
  EXPECT_FALSE(out.cut) << "that was the last one";
  EXPECT_TRUE(w_.bounded(s(), DhtArc::full(), out.next, 200)->op_ids.empty());
  const auto too_small = w_.bounded(s(), DhtArc::full(), Timestamp{0}, 99).value();
  EXPECT_TRUE(too_small.op_ids.empty());
  EXPECT_TRUE(too_small.cut);
  EXPECT_EQ(w_.bounded(s(), DhtArc::full(), too_small.next, 100)->op_ids, (OpIds{ids[0]}));
}

TEST_P(OpStoreSuite, BoundedInANarrowArcAmongMany) {
  std::vector<Bytes> ops;
  for (std::uint32_t i = 0; i < 2'000; ++i) ops.push_back(op_at((1'999 - i) * 2'147'483U, 1, i));
  put(ops);
  const auto at = [](std::uint32_t i) { return id_at((1'999 - i) * 2'147'483U, i); };
  const DhtArc narrow(5 * 2'147'483U, 7 * 2'147'483U);
  const auto all = w_.bounded(s(), narrow, Timestamp{0}).value();
  EXPECT_EQ(all.op_ids, (OpIds{at(1'992), at(1'993), at(1'994)}));  // by storing, not by place
  const auto cut = w_.bounded(s(), narrow, Timestamp{0}, static_cast<std::uint32_t>(all.bytes - 1)).value();
  EXPECT_EQ(cut.op_ids, (OpIds{at(1'992), at(1'993)}));
  EXPECT_TRUE(cut.cut && !all.cut);
  EXPECT_EQ(w_.bounded(s(), narrow, cut.next)->op_ids, (OpIds{at(1'994)}));
  EXPECT_EQ(w_.bounded(s(), DhtArc(7 * 2'147'483U, 5 * 2'147'483U), Timestamp{0})->op_ids.size(), 1'999U);
}

TEST_P(OpStoreSuite, BoundedLimitOfIdsCutsAsThatOfBytes) {
  put({op_at(1, 1), op_at(2, 2), op_at(3, 3)});
  OpIdsQuery query{.start = Timestamp{0}, .limit_ids = 2};
  auto out = w_.bounded(s(), query).value();
  EXPECT_EQ(out.op_ids, (OpIds{id_at(1), id_at(2)}));
  EXPECT_TRUE(out.cut);
  query.start = out.next;
  out = w_.bounded(s(), query).value();
  EXPECT_EQ(out.op_ids, (OpIds{id_at(3)}));
  EXPECT_FALSE(out.cut);
}

TEST_P(OpStoreSuite, QueriesThatAreStoppedAreCancelled) {
  put({op_at(1, 1)});
  std::stop_source source;
  source.request_stop();
  const auto stop = source.get_token();
  OpSumsQuery sums{.ranges = {{Timestamp{0}, Timestamp{10}}}, .stop = stop};
  sums.sectors.set();
  const auto bounded = w_.bounded(s(), OpIdsQuery{.start = Timestamp{0}, .stop = stop});
  const auto list = w_.list(s(), OpListQuery{.stop = stop});
  const auto summed = w_.sums(s(), sums);
  for (const Errc code : {bounded.has_error() ? bounded.error().code : Errc::internal,
                          list.has_error() ? list.error().code : Errc::internal,
                          summed.has_error() ? summed.error().code : Errc::internal}) {
    EXPECT_EQ(code, Errc::cancelled);
  }
}

// ----------------------------------------------------------------- lists, sums

TEST_P(OpStoreSuite, ListedByCreationThenByStoringInPages) {
  put({op_at(3, 20), op_at(1, 10)});
  put({op_at(9, 20), op_at(2, 20), op_at(4, 5)});
  const std::vector<OpRecord> all{{id_at(4), Timestamp{5}, id_at(4).loc(), op_at(4, 5).size()},
                                  {id_at(1), Timestamp{10}, id_at(1).loc(), op_at(1, 10).size()},
                                  {id_at(3), Timestamp{20}, id_at(3).loc(), op_at(3, 20).size()},
                                  {id_at(9), Timestamp{20}, id_at(9).loc(), op_at(9, 20).size()},
                                  {id_at(2), Timestamp{20}, id_at(2).loc(), op_at(2, 20).size()}};
  for (const std::size_t limit : {1U, 2U, 3U, 4U, 5U, 6U, 1000U}) {
    EXPECT_EQ(w_.list_all(s(), {.limit = limit}), all) << limit;
  }
  EXPECT_EQ(w_.list_all(s(), {.start = Timestamp{10}, .end = Timestamp{20}}), (std::vector<OpRecord>{all[1]}));
  EXPECT_EQ(w_.list_all(s(), {.arc = DhtArc(2, 3), .limit = 1}), (std::vector<OpRecord>{all[2], all[4]}));
  EXPECT_TRUE(w_.list_all(s(), {.arc = DhtArc::none()}).empty());
  EXPECT_TRUE(w_.list_all(s(), {.start = Timestamp{20}, .end = Timestamp{20}}).empty());
  EXPECT_EQ(w_.list(s(), {.limit = 0}).error().code, Errc::invalid_argument);
}

TEST_P(OpStoreSuite, AListGoesOnAtItsCursorWhateverIsStoredMeanwhile) {
  put({op_at(1, 10), op_at(2, 20)});
  auto page = w_.list(s(), {.limit = 1}).value();
  ASSERT_TRUE(page.next);
  put({op_at(3, 5), op_at(4, 10), op_at(5, 30)});  // before, just after, and behind the cursor
  const auto rest = w_.list_all(s(), {.after = page.next, .limit = 2});
  OpIds ids;
  for (const OpRecord& op : rest) ids.push_back(op.op_id);
  EXPECT_EQ(ids, (OpIds{id_at(4), id_at(2), id_at(5)}));
}

TEST_P(OpStoreSuite, SumsAreTheXorOfIdsBySectorAndRange) {
  constexpr std::uint32_t kSector = 1U << 23U;
  put({op_at(1, 10), op_at(2, 15), op_at(kSector, 10), op_at(5 * kSector, 12), op_at(3, 20), op_at(7, -5)});
  OpSumsQuery query{.ranges = {{Timestamp{0}, Timestamp{15}}, {Timestamp{15}, Timestamp{30}}}};
  query.sectors.set(0).set(1);
  const auto xor_of = [](const OpId& a, const OpId& b) {
    std::vector<std::uint8_t> out(a.view().begin(), a.view().end());
    for (std::size_t i = 0; i < out.size(); ++i) out[i] ^= b.view()[i];
    return Bytes(std::move(out));
  };
  const auto page = w_.sums(s(), query).value();
  EXPECT_EQ(page.sums, (std::vector<OpSum>{{0, 0, id_at(1).bytes(), 1},
                                           {1, 0, id_at(kSector).bytes(), 1},
                                           {0, 1, xor_of(id_at(2), id_at(3)), 2}}));
  EXPECT_EQ(page.next, std::nullopt);
  query.sectors.set();
  EXPECT_EQ(w_.sums(s(), query)->sums.size(), 4U);
  query.ranges = {{Timestamp{-10}, Timestamp{0}}};
  EXPECT_EQ(w_.sums(s(), query)->sums, (std::vector<OpSum>{{0, 0, id_at(7).bytes(), 1}}));
  query.ranges = {};
  EXPECT_TRUE(w_.sums(s(), query)->sums.empty());
}

TEST_P(OpStoreSuite, SumsRefuseRangesThatOverlapOrAreOutOfOrder) {
  using Ranges = std::vector<TimeRange>;
  for (const Ranges& ranges :
       {Ranges{{Timestamp{0}, Timestamp{10}}, {Timestamp{9}, Timestamp{20}}},
        Ranges{{Timestamp{10}, Timestamp{20}}, {Timestamp{0}, Timestamp{5}}}, Ranges{{Timestamp{10}, Timestamp{9}}}}) {
    const auto out = w_.sums(s(), {.ranges = ranges});
    ASSERT_FALSE(out);
    EXPECT_EQ(out.error().code, Errc::invalid_argument);
  }
}

TEST_P(OpStoreSuite, SumsOfManyOpsAndRangesComeInPagesThatAddUp) {
  constexpr std::size_t kOps = OpStore::kMostLookedAt + 5'000;
  open(make_prefix_policy());
  std::vector<std::pair<OpDescription, Bytes>> ops;
  std::map<std::uint32_t, std::uint64_t> expected;
  for (std::uint32_t i = 0; i < kOps; ++i) {
    const OpId id = id_at(i * 61'000U, i);
    ops.push_back({{id, Timestamp{i / 1000}}, id.bytes()});
    if (i / 1000 != 3) ++expected[id.loc() >> 23U];
  }
  ASSERT_TRUE(w_.store_described(s(), std::move(ops)));
  OpSumsQuery query{.ranges = {{Timestamp{0}, Timestamp{3}}, {Timestamp{4}, Timestamp{1000}}}};
  for (std::int64_t empty = 1000; empty < 1100; ++empty)
    query.ranges.push_back({Timestamp{empty}, Timestamp{empty + 1}});
  query.sectors.set();
  std::map<std::uint32_t, std::uint64_t> found;
  int pages = 0;
  for (;; ++pages) {
    const auto page = w_.sums(s(), query).value();
    for (const OpSum& sum : page.sums) found[sum.sector] += sum.ops;
    if (!page.next) break;
    query.after = page.next;
  }
  EXPECT_EQ(pages, 1) << "one page is what a call looks at, then comes the rest";
  EXPECT_EQ(found, expected);
  EXPECT_EQ(w_.stats(s())->ops, kOps);
}

// ---------------------------------------------------------------------- events

TEST_P(OpStoreSuite, StoredOpsAreReportedOnceInOrderBeforeTheHandler) {
  std::vector<OpRecord> told;
  const auto token = s().subscribe(
      {.ops_stored = [&](const std::vector<OpRecord>& ops) { told.insert(told.end(), ops.begin(), ops.end()); }});
  put({op_at(3, 30), op_at(1, 10), Bytes::copy_of("no op"), op_at(3, 30)});
  const std::vector<OpRecord> expected{{id_at(3), Timestamp{30}, id_at(3).loc(), op_at(3, 30).size()},
                                       {id_at(1), Timestamp{10}, id_at(1).loc(), op_at(1, 10).size()}};
  EXPECT_EQ(told, expected);
  put({op_at(1, 10)});
  EXPECT_EQ(told, expected) << "it was held";
  EXPECT_TRUE(w_.store_described(s(), {{{id_at(8), Timestamp{7}}, op_at(8, 7)}}));
  ASSERT_EQ(told.size(), 3U);
  EXPECT_EQ(told.back().op_id, id_at(8));
  // Many calls at once: in the order of the calls.
  told.clear();
  std::size_t answered = 0;
  for (std::uint32_t i = 100; i < 150; ++i) {
    s().process_incoming_ops({op_at(i, 1), op_at(i + 1000, 1)}, [&](const auto& out) {
      EXPECT_TRUE(out);
      ++answered;
      EXPECT_EQ(told.size(), 2 * answered);
    });
  }
  ASSERT_TRUE(w_.world().wait_for([&] { return answered == 50; }));
  for (std::uint32_t i = 0; i < 50; ++i) {
    EXPECT_EQ(told[2 * i].op_id, id_at(i + 100));
    EXPECT_EQ(told[2 * i + 1].op_id, id_at(i + 1100));
  }
}

TEST_P(OpStoreSuite, ListenersComeAndGo) {
  int first = 0, second = 0;
  auto a = s().subscribe({.ops_stored = [&](const auto&) { ++first; }});
  const auto b = s().subscribe({.ops_stored = [&](const auto&) {
    ++second;
    a.reset();
  }});
  const auto none = s().subscribe({});
  put({op_at(1, 1)});
  EXPECT_EQ(first + second, 2);
  put({op_at(2, 1)});
  EXPECT_EQ(first, 1) << "its token is gone";
  EXPECT_EQ(second, 2);
}

TEST_P(OpStoreSuite, AListenerMayDropTheStore) {
  bool answered = false;
  const auto token = s().subscribe({.ops_stored = [&](const auto&) { store_.reset(); }});
  s().process_incoming_ops({op_at(1, 1)}, [&](const auto&) { answered = true; });
  ASSERT_TRUE(w_.world().wait_for([&] { return store_ == nullptr; }));
  w_.world().run_ready();
  EXPECT_FALSE(answered) << "pending handlers of a store that is destroyed are dropped";
}

TEST_P(OpStoreSuite, IntactOpsAreToldFromThoseThatAreNotThere) {
  put({op_at(1, 1), op_at(2, 2)});
  EXPECT_EQ(w_.filter_intact(s(), {id_at(5), id_at(1), id_at(5), id_at(2)}).value(), (OpIds{id_at(5), id_at(5)}));
}

TEST_P(OpStoreSuite, PlacesAreThoseOfThePolicy) {
  class Elsewhere final : public OpPolicy {
   public:
    Result<OpDescription> describe(ByteView op) const override { return inner_->describe(op); }
    std::uint32_t location(ByteView op_id) const noexcept override { return ~dht_location(op_id); }
    std::string_view name() const override { return "elsewhere"; }

   private:
    std::shared_ptr<const OpPolicy> inner_ = make_memory_op_policy();
  };
  open(std::make_shared<Elsewhere>());
  std::vector<OpRecord> told;
  const auto token = s().subscribe({.ops_stored = [&](const auto& ops) { told = ops; }});
  put({op_at(5, 1)});
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].location, ~5U);
  EXPECT_TRUE(w_.slice(s(), DhtArc(5, 5), Timestamp{0}, Timestamp{9})->op_ids.empty());
  EXPECT_EQ(w_.slice(s(), DhtArc(~5U, ~5U), Timestamp{0}, Timestamp{9})->op_ids, (OpIds{id_at(5)}));
  EXPECT_EQ(w_.bounded(s(), DhtArc(~6U, ~4U), Timestamp{0})->op_ids, (OpIds{id_at(5)}));
  EXPECT_EQ(w_.list_all(s(), {.arc = DhtArc(~5U, ~5U)}), told);
  EXPECT_EQ(w_.retrieve(s(), {id_at(5)})->size(), 1U);
  OpSumsQuery query{.ranges = {{Timestamp{0}, Timestamp{9}}}};
  query.sectors.set(~5U >> 23U);
  EXPECT_EQ(w_.sums(s(), query)->sums.size(), 1U);
}

// ----------------------------------------------------------------- slice hashes

TEST_P(OpStoreSuite, SliceHashesAreKeptByArc) {
  const DhtArc a(0, 100);
  const DhtArc b(0, 200);  // overlaps, but is another arc
  EXPECT_EQ(w_.slice_count(s(), a).value(), 0U);
  EXPECT_EQ(w_.slice_hash(s(), a, 3).value(), std::nullopt);
  EXPECT_TRUE(w_.put_slice_hash(s(), a, 3, "three"));
  EXPECT_TRUE(w_.put_slice_hash(s(), a, 1, "one"));
  EXPECT_TRUE(w_.put_slice_hash(s(), b, 7, "seven"));
  EXPECT_EQ(w_.slice_count(s(), a).value(), 4U);
  EXPECT_EQ(w_.slice_count(s(), b).value(), 8U);
  EXPECT_EQ(w_.slice_hash(s(), a, 3).value(), Bytes::copy_of("three"));
  EXPECT_EQ(w_.slice_hash(s(), a, 7).value(), std::nullopt);
  EXPECT_EQ(w_.slice_hashes(s(), a).value(),
            (std::vector<std::pair<std::uint64_t, Bytes>>{{1, Bytes::copy_of("one")}, {3, Bytes::copy_of("three")}}));
  EXPECT_TRUE(w_.put_slice_hash(s(), a, 3, "THREE"));
  EXPECT_EQ(w_.slice_hash(s(), a, 3).value(), Bytes::copy_of("THREE"));
  EXPECT_EQ(w_.slice_hashes(s(), a)->size(), 2U);
}

TEST_P(OpStoreSuite, SliceHashRefusals) {
  for (const auto& out : {w_.put_slice_hash(s(), DhtArc::none(), 1, "x"), w_.put_slice_hash(s(), DhtArc::full(), 1, ""),
                          w_.put_slice_hash(s(), DhtArc::full(), 1ULL << 63U, "x")}) {
    ASSERT_FALSE(out);
    EXPECT_EQ(out.error().code, Errc::invalid_argument);
  }
  EXPECT_EQ(w_.slice_count(s(), DhtArc::none()).value(), 0U);
  EXPECT_EQ(w_.slice_hash(s(), DhtArc::none(), 1).value(), std::nullopt);
  EXPECT_TRUE(w_.slice_hashes(s(), DhtArc::none())->empty());
  EXPECT_EQ(w_.slice_hash(s(), DhtArc::full(), UINT64_MAX).value(), std::nullopt);
}

TEST_P(OpStoreSuite, TheLargestSliceIndexWorks) {
  const std::uint64_t last = INT64_MAX;
  EXPECT_TRUE(w_.put_slice_hash(s(), DhtArc::full(), last, "x"));
  EXPECT_EQ(w_.slice_count(s(), DhtArc::full()).value(), last + 1);
  EXPECT_EQ(w_.slice_hash(s(), DhtArc::full(), last).value(), Bytes::copy_of("x"));
}

// ---------------------------------------------------------------------- pending

TEST_P(OpStoreSuite, PendingBySource) {
  OpIds ids{id_at(1), id_at(2), id_at(3)};
  std::sort(ids.begin(), ids.end());
  EXPECT_TRUE(w_.add_pending(s(), {ids[2], ids[0]}, peer_url(1)));
  EXPECT_TRUE(w_.add_pending(s(), {ids[1]}, peer_url(2)));
  EXPECT_TRUE(w_.add_pending(s(), {ids[0]}, peer_url(2)));
  EXPECT_EQ(w_.pending(s()), (StoreWorld::Pending{{peer_url(1), {ids[0], ids[2]}}, {peer_url(2), {ids[0], ids[1]}}}));
}

TEST_P(OpStoreSuite, APairIsPendingOnce) {
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(w_.add_pending(s(), {id_at(1), id_at(1)}, peer_url(1)));
  EXPECT_EQ(w_.pending(s()), (StoreWorld::Pending{{peer_url(1), {id_at(1)}}}));
}

TEST_P(OpStoreSuite, StoringAnOpEndsItsPendingPairs) {
  EXPECT_TRUE(w_.add_pending(s(), {id_at(1), id_at(2)}, peer_url(1)));
  EXPECT_TRUE(w_.add_pending(s(), {id_at(1)}, peer_url(2)));
  put({op_at(1, 1)});
  EXPECT_EQ(w_.pending(s()), (StoreWorld::Pending{{peer_url(1), {id_at(2)}}}));
  put({op_at(2, 1)});
  EXPECT_TRUE(w_.pending(s()).empty());
}

TEST_P(OpStoreSuite, AHeldOpDoesNotBecomePending) {
  put({op_at(1, 1)});
  EXPECT_TRUE(w_.add_pending(s(), {id_at(1)}, peer_url(1)));
  EXPECT_TRUE(w_.pending(s()).empty());
}

TEST_P(OpStoreSuite, RemovingASourceKeepsTheOthers) {
  EXPECT_TRUE(w_.add_pending(s(), {id_at(1), id_at(2)}, peer_url(1)));
  EXPECT_TRUE(w_.add_pending(s(), {id_at(1), id_at(3)}, peer_url(2)));
  EXPECT_TRUE(w_.add_pending(s(), {id_at(1)}, peer_url(3)));
  EXPECT_TRUE(w_.remove_source(s(), peer_url(1)));
  OpIds left{id_at(1), id_at(3)};
  std::sort(left.begin(), left.end());
  EXPECT_EQ(w_.pending(s()), (StoreWorld::Pending{{peer_url(2), left}, {peer_url(3), {id_at(1)}}}));
  EXPECT_TRUE(w_.remove_source(s(), peer_url(9)));  // not there: no effect
  EXPECT_TRUE(w_.remove_source(s(), peer_url(2)));
  EXPECT_TRUE(w_.remove_source(s(), peer_url(3)));
  EXPECT_TRUE(w_.pending(s()).empty());
  EXPECT_TRUE(w_.add_pending(s(), {id_at(2)}, peer_url(1)));  // may come back
  EXPECT_EQ(w_.pending(s()), (StoreWorld::Pending{{peer_url(1), {id_at(2)}}}));
}

TEST_P(OpStoreSuite, RemovingPairsKeepsTheOthers) {
  if (!GetParam().removes_pending) GTEST_SKIP() << "remove_pending has no effect here";
  OpIds ids;
  for (std::uint32_t i = 0; i < 3'000; ++i) ids.push_back(id_at(i));
  EXPECT_TRUE(w_.add_pending(s(), ids, peer_url(1)));
  EXPECT_TRUE(w_.add_pending(s(), {id_at(5), id_at(6)}, peer_url(2)));
  EXPECT_TRUE(w_.add_pending(s(), {id_at(5)}, peer_url(3)));
  const OpIds gone{id_at(5), id_at(2'000), id_at(9'999)};
  EXPECT_TRUE(w_.remove_pending(s(), gone, peer_url(1)));
  EXPECT_TRUE(w_.remove_pending(s(), {}, peer_url(1)));
  EXPECT_TRUE(w_.remove_pending(s(), gone, peer_url(9)));  // not there: no effect
  std::erase(ids, id_at(5));
  std::erase(ids, id_at(2'000));
  std::sort(ids.begin(), ids.end());
  OpIds two{id_at(5), id_at(6)};
  std::sort(two.begin(), two.end());
  EXPECT_EQ(w_.pending(s()), (StoreWorld::Pending{{peer_url(1), ids}, {peer_url(2), two}, {peer_url(3), {id_at(5)}}}));
  EXPECT_TRUE(w_.remove_pending(s(), {id_at(5)}, peer_url(3)));
  EXPECT_TRUE(w_.remove_pending(s(), two, peer_url(2)));
  EXPECT_EQ(w_.pending(s()), (StoreWorld::Pending{{peer_url(1), ids}}));
  EXPECT_TRUE(w_.remove_pending(s(), ids, peer_url(1)));
  EXPECT_TRUE(w_.pending(s()).empty());
  EXPECT_TRUE(w_.add_pending(s(), {id_at(5)}, peer_url(1)));  // may come back
  EXPECT_EQ(w_.pending(s()), (StoreWorld::Pending{{peer_url(1), {id_at(5)}}}));
}

TEST_P(OpStoreSuite, ManyPendingIdsAndLongOnes) {
  OpIds ids;
  for (std::uint32_t i = 0; i < 5'000; ++i) ids.push_back(id_at(i, i));
  for (const std::size_t size : {0U, 1U, 39U, 40U, 254U, 255U, 256U, 70'000U}) {
    ids.push_back(OpId::from_text(std::string(size, 'i')));
  }
  EXPECT_TRUE(w_.add_pending(s(), ids, peer_url(1)));
  EXPECT_TRUE(w_.add_pending(s(), {id_at(7)}, peer_url(2)));
  std::sort(ids.begin(), ids.end());
  const StoreWorld::Pending all{{peer_url(1), ids}, {peer_url(2), {id_at(7)}}};
  EXPECT_EQ(w_.pending(s()), all);
  for (const std::size_t limit : {0U, 1U, 1'500U, 100'000U}) EXPECT_EQ(w_.pending_in_pages(s(), limit), all) << limit;
}

// ------------------------------------------------------------------------ order

TEST_P(OpStoreSuite, WritesCompleteInTheOrderOfTheCalls) {
  std::vector<int> order;
  for (int i = 0; i < 300; ++i) {
    switch (i % 4) {
      case 0:
        s().process_incoming_ops({op_at(static_cast<std::uint32_t>(i), 1)}, [&, i](auto) { order.push_back(i); });
        break;
      case 1:
        s().add_pending({id_at(static_cast<std::uint32_t>(i))}, peer_url(i), [&, i](auto) { order.push_back(i); });
        break;
      case 2:
        s().store_slice_hash(DhtArc::full(), static_cast<std::uint64_t>(i), Bytes::copy_of("h"),
                             [&, i](auto) { order.push_back(i); });
        break;
      default:
        s().remove_pending_source(peer_url(i - 2), [&, i](auto) { order.push_back(i); });
    }
  }
  ASSERT_TRUE(w_.world().wait_for([&] { return order.size() == 300; }));
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  EXPECT_TRUE(w_.pending(s()).empty());
  EXPECT_EQ(w_.stats(s())->ops, 75U);
}

TEST_P(OpStoreSuite, AReadInTheHandlerOfAWriteSeesIt) {
  int checked = 0;
  for (std::uint32_t i = 0; i < 200; ++i) {
    s().process_incoming_ops({op_at(i, 1)}, [&, i](Result<ProcessedOps> out) {
      ASSERT_TRUE(out);
      s().filter_out_existing_ops({id_at(i)}, [&](Result<std::vector<OpId>> missing) {
        ASSERT_TRUE(missing);
        EXPECT_TRUE(missing->empty());
        ++checked;
      });
    });
  }
  EXPECT_TRUE(w_.world().wait_for([&] { return checked == 200; }));
}

TEST_P(OpStoreSuite, NoHandlerRunsAfterTheStoreIsGone) {
  int ran = 0;
  for (std::uint32_t i = 0; i < 50; ++i) {
    s().process_incoming_ops({op_at(i, 1)}, [&](auto) { ++ran; });
    s().stats([&](auto) { ++ran; });
  }
  store_.reset();
  w_.world().run_ready();
  EXPECT_EQ(ran, 0);
}

TEST_P(OpStoreSuite, AHandlerMayDropTheStore) {
  int ran = 0;
  for (std::uint32_t i = 0; i < 20; ++i) {
    s().process_incoming_ops({op_at(i, 1)}, [&](auto) {
      if (++ran == 5) store_.reset();
    });
  }
  ASSERT_TRUE(w_.world().wait_for([&] { return store_ == nullptr; }));
  w_.world().run_ready();
  EXPECT_EQ(ran, 5);
}

TEST_P(OpStoreSuite, ADurableStoreHoldsItsOpsAndRequestsWhenItIsOpenedAgain) {
  if (!GetParam().durable) GTEST_SKIP() << "this store ends with its object";
  put({op_at(1, 7), op_at(2, 8)});
  EXPECT_TRUE(w_.add_pending(s(), {id_at(3)}, peer_url(1)));
  const auto before = w_.bounded(s(), DhtArc::full(), Timestamp{0}).value();
  open_again(make_memory_op_policy());
  EXPECT_EQ(w_.retrieve(s(), {id_at(1), id_at(2)})->size(), 2U);
  EXPECT_EQ(w_.pending(s()), (StoreWorld::Pending{{peer_url(1), {id_at(3)}}}));
  EXPECT_EQ(w_.bounded(s(), DhtArc::full(), Timestamp{0})->op_ids, before.op_ids);
  put({op_at(4, 9)});
  EXPECT_EQ(w_.bounded(s(), DhtArc::full(), before.next)->op_ids, (OpIds{id_at(4)}));
}

}  // namespace kitsune2::testing
