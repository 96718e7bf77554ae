// What a slow source was asked for is taken over by one that has nothing else to do.
#include <set>

#include "unit/core/fetch/fetch_core_fixture.hpp"

namespace kitsune2 {
namespace {

using namespace fetch_core_test;

/// Two sources of the same ops: the first answers each request 10 ms after it was asked, with ops of 1 MiB; the second
/// was asked for as much and sends one op in a second.
class BehindTest : public CoreFixture {
 protected:
  static constexpr std::uint64_t kMib = 1U << 20;

  BehindTest() {
    core().add(ops(0, 48), source(0), now_);
    core().add(ops(0, 48), source(1), now_);
    for (const auto& request : ask_all()) (request.source == source(0) ? quick_ : slow_).push_back(request);
  }
  /// Everything that the quick source has been asked for comes.
  void quick_answers() {
    now_ += std::chrono::milliseconds(10);
    for (const auto& request : quick_) answer(request, kMib);
    quick_.clear();
  }
  std::size_t taken_over() {
    std::size_t count = 0;
    for (const auto& request : ask_all()) {
      EXPECT_EQ(request.source, source(0));
      count += request.op_ids.size();
      quick_.push_back(request);
    }
    return count;
  }
  std::size_t slow_ops() const {
    std::size_t count = 0;
    for (const auto& request : slow_) count += request.op_ids.size();
    return count;
  }

  std::vector<FetchRequest> quick_, slow_;
};

TEST_F(BehindTest, AFreeSourceTakesOverTheLastOps) {
  ASSERT_GE(slow_ops(), 16U);
  quick_answers();
  for (std::size_t left = core().pending_ops() - slow_ops(); left > 0;) {
    const std::size_t more = taken_over();
    ASSERT_GT(more, 0U);
    left -= more;
    quick_answers();
  }
  EXPECT_EQ(taken_over(), 0U) << "nothing says yet that the other is behind";
  now_ += std::chrono::seconds(1);
  core().on_response(source(1), {slow_[0].op_ids.data(), 1}, kMib, now_);
  core().on_stored({slow_[0].op_ids.data(), 1}, now_);
  ASSERT_GT(taken_over(), 0U);
  EXPECT_EQ(quick_[0].op_ids[0], slow_.back().op_ids.back()) << "from the last one on";
  // The slow source sends it after all: that is no fault, and no op twice.
  const OpId& last = slow_.back().op_ids.back();
  const FetchAnswer late = respond(source(1), {last});
  EXPECT_EQ(late.verdicts, std::vector<FetchVerdict>{FetchVerdict::wanted});
  const FetchAnswer twice = respond(source(0), {last});
  EXPECT_EQ(twice.verdicts, std::vector<FetchVerdict>{FetchVerdict::duplicate});
  EXPECT_FALSE(late.put_aside || twice.put_aside);
}

TEST_F(BehindTest, ASourceThatHasSentNoOpIsBehindAfterAWhile) {
  quick_answers();
  while (taken_over() > 0) quick_answers();
  EXPECT_GT(core().pending_ops(), 0U);
  core().on_progress(source(1), 1, now_);
  now_ += FetchCore::kHurryTime;
  while (taken_over() > 0) quick_answers();
  EXPECT_EQ(core().pending_ops(), 0U);
}

TEST_F(BehindTest, ASourceWithoutASignOfLifeIsFoundOut) {
  quick_answers();
  while (taken_over() > 0) quick_answers();
  now_ += FetchCore::kHurryTime;
  EXPECT_EQ(taken_over(), 0U) << "or nothing would tell that the other is gone";
  now_ = kStart + kDelay;
  while (taken_over() > 0) quick_answers();
  EXPECT_EQ(core().pending_ops(), 0U);
  // What comes next is asked only of the one that answers, and at once.
  for (std::size_t i = 1; i <= 4; ++i) {
    core().add(ops(100 * i, 16), source(0), now_);
    core().add(ops(100 * i, 16), source(1), now_);
    EXPECT_EQ(taken_over(), 16U);
    quick_answers();
    EXPECT_EQ(core().pending_ops(), 0U);
  }
}

TEST_F(BehindTest, ASourceThatHasAnsweredAndIsGoneIsFoundOut) {
  quick_answers();
  while (taken_over() > 0) quick_answers();
  for (const auto& request : slow_) answer(request, kMib);
  ASSERT_EQ(core().pending_ops(), 0U);
  now_ += std::chrono::seconds(1);
  core().add(ops(100, 48), source(0), now_);
  core().add(ops(100, 48), source(1), now_);
  const auto asked = ask_all();
  for (const auto& request : asked) {
    if (request.source == source(0)) quick_.push_back(request);
  }
  ASSERT_GT(asked.size(), quick_.size());
  quick_answers();
  while (taken_over() > 0) quick_answers();
  now_ += kDelay;
  while (taken_over() > 0) quick_answers();
  EXPECT_EQ(core().pending_ops(), 0U);
  core().add(ops(200, 16), source(0), now_);
  core().add(ops(200, 16), source(1), now_);
  EXPECT_EQ(taken_over(), 16U);
}

TEST_F(BehindTest, NothingIsTakenOverTwice) {
  // What comes of both takes ten seconds; then the first is done, and the second has not finished an op.
  now_ += std::chrono::milliseconds(10);
  for (int second = 0; second < 10; ++second) {
    core().on_progress(source(0), 1, now_);
    core().on_progress(source(1), 1, now_);
    EXPECT_TRUE(ask_all().empty());
    now_ += std::chrono::seconds(1);
  }
  for (const auto& request : quick_) answer(request, kMib);
  std::set<OpId> taken;
  for (const auto& request : ask_all()) {
    EXPECT_EQ(request.source, source(0));
    taken.insert(request.op_ids.begin(), request.op_ids.end());
  }
  ASSERT_FALSE(taken.empty());
  // A third one would be ten times as fast as either.
  std::vector<OpId> all = ops(100, 1);
  for (const OpId& id : ops(0, 48)) {
    if (core().is_pending(id)) all.push_back(id);
  }
  core().add(all, source(2), now_);
  now_ += std::chrono::milliseconds(10);
  core().on_progress(source(0), 1, now_);
  core().on_progress(source(1), 1, now_);
  now_ += FetchCore::kHurryTime;
  for (auto requests = ask_all(); !requests.empty(); requests = ask_all()) {
    now_ += std::chrono::milliseconds(10);
    for (const auto& request : requests) {
      EXPECT_EQ(request.source, source(2));
      for (const OpId& id : request.op_ids) EXPECT_FALSE(taken.contains(id)) << id.to_string();
      answer(request, kMib);
    }
  }
  EXPECT_EQ(core().pending_ops(), taken.size());
}

}  // namespace
}  // namespace kitsune2
