// A source that never sends what is requested from it (R16).
#include <algorithm>

#include "unit/core/fetch/fetch_core_fixture.hpp"

namespace kitsune2 {
namespace {

using namespace fetch_core_test;

class FetchCoreSilence : public CoreFixture {
 protected:
  /// Requests everything possible whenever something is due, until a pair is dropped or a day has passed.
  /// `after_asking` is what the sources do.
  std::optional<FetchUnserved> until_dropped(const std::function<void(const FetchRequest&)>& after_asking = {}) {
    const Time end = now_ + std::chrono::hours(24);
    while (now_ < end) {
      for (auto& item : core().poll(now_).unserved) dropped_.push_back(std::move(item));
      if (!dropped_.empty()) return take();
      const auto requests = ask_all();
      for (const auto& request : requests) {
        if (std::ranges::find(request.op_ids, op(0)) != request.op_ids.end()) {
          asked_.push_back(std::chrono::duration_cast<std::chrono::seconds>(now_ - kStart).count());
        }
        if (after_asking) after_asking(request);
        if (!dropped_.empty()) return take();
      }
      if (!requests.empty()) continue;  // an answer may have made room for more
      const auto next = core().next_deadline();
      if (!next) break;
      now_ = std::max(now_, *next);
      for (auto& item : core().poll(now_).unserved) dropped_.push_back(std::move(item));
      core().check_invariants();
      if (!dropped_.empty()) return take();
    }
    return std::nullopt;
  }
  std::optional<FetchUnserved> take() {
    EXPECT_EQ(dropped_.size(), 1U);
    auto out = std::move(dropped_.front());
    dropped_.clear();
    return out;
  }

  std::vector<std::int64_t> asked_;  ///< when op 0 was requested, in seconds
  std::vector<FetchUnserved> dropped_;
};

TEST_F(FetchCoreSilence, AnOpThatNeverComesIsAskedForEverMoreSeldomAndThenNoMore) {
  core().add({{op(0)}}, source(1), now_);
  const auto dropped = until_dropped();
  ASSERT_TRUE(dropped);
  EXPECT_EQ(dropped->source, source(1));
  EXPECT_EQ(dropped->op_ids, ops(0, 1));
  EXPECT_EQ(dropped->orphaned, ops(0, 1));
  std::vector<std::int64_t> expected{0, 2, 4, 6, 8, 12, 18, 28, 46, 80, 146};
  while (expected.size() < 32) expected.push_back(expected.back() + 130);
  EXPECT_EQ(asked_, expected);
  EXPECT_EQ(now_ - kStart, std::chrono::seconds(expected.back() + 2));
  EXPECT_EQ(core().pending_ops(), 0U);
  EXPECT_FALSE(core().next_deadline()) << "and nothing waits";
}

TEST_F(FetchCoreSilence, ASingleByteThatArrivesIsNoSilence) {
  core().add({{op(0)}}, source(1), now_);
  EXPECT_FALSE(until_dropped([&](const FetchRequest& request) {
    now_ += std::chrono::seconds(1);
    core().on_progress(request.source, 1, now_);
  }));
  EXPECT_TRUE(core().is_wanted(op(0)));
  EXPECT_GT(asked_.size(), 10'000U) << "every three seconds";
}

TEST_F(FetchCoreSilence, AnAnswerThatComesAfterAllIsTaken) {
  core().add({{op(0)}}, source(1), now_);
  ASSERT_TRUE(until_dropped());
  now_ += std::chrono::minutes(10);
  EXPECT_TRUE(core().owes(source(1)));
  EXPECT_EQ(respond(source(2), ops(0, 1)).verdicts.front(), FetchVerdict::unasked) << "not from anybody";
  EXPECT_EQ(respond(source(1), ops(0, 1)).verdicts.front(), FetchVerdict::wanted);
  EXPECT_EQ(respond(source(1), ops(0, 1)).verdicts.front(), FetchVerdict::duplicate) << "on its way to the store";
  EXPECT_EQ(core().on_stored(ops(0, 1), now_), 1U);
  EXPECT_EQ(respond(source(1), ops(0, 1)).verdicts.front(), FetchVerdict::not_pending) << "once";
  EXPECT_EQ(core().pending_ops(), 0U);
}

TEST_F(FetchCoreSilence, AStoreThatRefusesALateAnswerLeavesNothingPending) {
  core().add({{op(0)}}, source(1), now_);
  ASSERT_TRUE(until_dropped());
  respond(source(1), ops(0, 1));
  EXPECT_EQ(core().on_store_failed(ops(0, 1), now_), ops(0, 1));
  EXPECT_EQ(core().pending_ops(), 0U);
}

TEST_F(FetchCoreSilence, RequestedAgainItIsAskedForAgain) {
  core().add({{op(0)}}, source(1), now_);
  ASSERT_TRUE(until_dropped());
  asked_.clear();
  core().add({{op(0)}}, source(1), now_);
  EXPECT_TRUE(core().has(op(0), source(1)));
  ASSERT_TRUE(until_dropped());
  EXPECT_EQ(asked_.size(), 32U);
}

TEST_F(FetchCoreSilence, WithAnotherSourceOnlyThePairGoes) {
  core().add({{op(0)}}, source(1), now_);
  core().add({{op(0)}}, source(2), now_);
  // Source 2 shows signs of life, and nothing else.
  const auto dropped = until_dropped([&](const FetchRequest& request) {
    if (request.source == source(1)) return;
    now_ += std::chrono::seconds(1);
    core().on_progress(source(2), 1, now_);
  });
  ASSERT_TRUE(dropped);
  EXPECT_EQ(dropped->source, source(1));
  EXPECT_TRUE(dropped->orphaned.empty());
  EXPECT_TRUE(core().has(op(0), source(2)));
  EXPECT_FALSE(core().has(op(0), source(1)));
}

TEST_F(FetchCoreSilence, AnOpThatAPeerLeavesOutOfItsAnswersIsDroppedToo) {
  core().add({{op(0)}}, source(1), now_);
  std::size_t next = 1;
  const auto dropped = until_dropped([&](const FetchRequest& request) {
    // It serves everything else, and there is always something else.
    std::vector<OpId> others;
    for (const OpId& id : request.op_ids) {
      if (id != op(0)) others.push_back(id);
    }
    if (others.empty()) {
      core().add({{op(next)}}, source(1), now_);
      ++next;
      return;
    }
    for (auto& item : core().on_response(source(1), others, 100, now_).unserved) dropped_.push_back(std::move(item));
    core().on_stored(others, now_);
  });
  ASSERT_TRUE(dropped);
  EXPECT_EQ(dropped->op_ids, ops(0, 1));
  EXPECT_LE(asked_.size(), 12U) << "twelve times are enough of a source that answers others";
  EXPECT_LE(now_ - kStart, std::chrono::minutes(15));
}

TEST_F(FetchCoreSilence, APeerThatHangsUpOnEachRequestIsNotAskedForEver) {
  core().add({{op(0)}}, source(1), now_);
  const auto dropped = until_dropped([&](const FetchRequest& request) {
    now_ += std::chrono::milliseconds(10);
    FetchLost lost = core().on_disconnect(request.source, now_);
    EXPECT_EQ(lost.ended, 1U);
    for (auto& item : lost.unserved) dropped_.push_back(std::move(item));
  });
  ASSERT_TRUE(dropped);
  EXPECT_EQ(asked_.size(), 32U);
  EXPECT_GE(now_ - kStart, std::chrono::seconds(254));
}

TEST_F(FetchCoreSilence, AnOpThatTheStoreRefusedBeginsAnew) {
  core().add({{op(0)}}, source(1), now_);
  std::size_t asked = 0;
  const auto dropped = until_dropped([&](const FetchRequest& request) {
    if (++asked != 31) return;
    core().on_response(request.source, request.op_ids, 100, now_);
    core().on_store_failed(request.op_ids, now_);
  });
  ASSERT_TRUE(dropped);
  EXPECT_GE(asked, 31U + 32U);
}

}  // namespace
}  // namespace kitsune2
