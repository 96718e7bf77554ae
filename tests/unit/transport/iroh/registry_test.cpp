// Which connection to a peer counts: both sides of simultaneous opens choose the same one, preflights, deadlines.
#include "transport/iroh/registry.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>

#include "model/registry_twin.hpp"
#include "unit/transport/start.hpp"

namespace kitsune2::iroh {
namespace {

using namespace std::chrono_literals;

EndpointId numbered(std::uint8_t byte) {
  EndpointId out{};
  out[31] = byte;
  return out;
}

constexpr std::string_view kSuperseded = "superseded by preferred connection";
constexpr std::string_view kLate = "timed out waiting for preflight (src: deadline has elapsed)";
using tests::kStart;

TEST(IrohRegistry, TheDiallerGreetsFirstAndIsActiveWhenItIsAnswered) {
  Registry registry(numbered(1));
  const auto opened = registry.on_opened(7, numbered(2), true, kStart);
  EXPECT_EQ(opened.send_preflight, 7U);
  EXPECT_FALSE(opened.active);
  EXPECT_FALSE(registry.is_active(7));
  EXPECT_EQ(registry.holder(numbered(2)), 7U);
  const auto answered = registry.on_preflight(7, kStart + 1s);
  EXPECT_FALSE(answered.send_preflight);
  EXPECT_EQ(answered.active, 7U);
  EXPECT_TRUE(registry.is_active(7));
  EXPECT_EQ(registry.next_deadline(), Time::max());
}

TEST(IrohRegistry, TheAcceptorAnswersAPreflightAndHasNoSlotBefore) {
  Registry registry(numbered(1));
  EXPECT_FALSE(registry.on_opened(7, numbered(2), false, kStart).send_preflight);
  EXPECT_FALSE(registry.holder(numbered(2)));
  const auto greeted = registry.on_preflight(7, kStart + 1s);
  EXPECT_EQ(greeted.send_preflight, 7U);
  EXPECT_EQ(greeted.active, 7U);
  EXPECT_EQ(registry.holder(numbered(2)), 7U);
  const auto again = registry.on_preflight(7, kStart + 2s);
  EXPECT_FALSE(again.send_preflight || again.active);
}

TEST(IrohRegistry, AConnectionOfTheLargerIdIsNotDisplacedByOneOfTheSmaller) {
  Registry registry(numbered(9));
  registry.on_opened(1, numbered(2), true, kStart);
  EXPECT_TRUE(registry.on_opened(2, numbered(2), false, kStart).close.empty()) << "it has not asked for the slot yet";
  const auto refused = registry.on_preflight(2, kStart);
  EXPECT_EQ(refused.close, (std::vector<Registry::Close>{{2, 2, kSuperseded}}));
  EXPECT_FALSE(refused.send_preflight || refused.active);
  EXPECT_EQ(registry.holder(numbered(2)), 1U);
}

// N6: a node of 0.4 does not count for a while on who closes a connection.
TEST(IrohRegistry, WhereSparesAreKeptTheNewestCountsAndNoneIsClosed) {
  for (const std::uint8_t own : {1, 9}) {
    Registry registry(numbered(own), Registry::Spares::kept);
    registry.on_opened(1, numbered(2), true, kStart);
    registry.on_opened(2, numbered(2), false, kStart);
    const auto taken = registry.on_preflight(2, kStart);
    EXPECT_TRUE(taken.close.empty());
    EXPECT_EQ(taken.send_preflight, 2U);
    EXPECT_EQ(registry.holder(numbered(2)), 2U);
    const auto answered = registry.on_preflight(1, kStart);
    EXPECT_EQ(answered.active, 1U) << "it is read, too";
    EXPECT_EQ(registry.holder(numbered(2)), 2U);
    EXPECT_TRUE(registry.on_ended(2));
    EXPECT_EQ(registry.holder(numbered(2)), 1U);
    EXPECT_TRUE(registry.on_ended(1));
    EXPECT_FALSE(registry.holder(numbered(2)));
  }
}

TEST(IrohRegistry, SparesOfOnePeerAreBounded) {
  Registry registry(numbered(1), Registry::Spares::kept);
  std::vector<Registry::Close> closed;
  for (Registry::Id id = 1; id <= 10; ++id) {
    registry.on_opened(id, numbered(2), false, kStart);
    const auto taken = registry.on_preflight(id, kStart);
    closed.insert(closed.end(), taken.close.begin(), taken.close.end());
  }
  EXPECT_EQ(registry.size(), 1 + Registry::kMostSpares);
  ASSERT_EQ(closed.size(), 9 - Registry::kMostSpares);
  EXPECT_EQ(closed[0], (Registry::Close{1, 0, "too many connections"}));
  EXPECT_EQ(registry.holder(numbered(2)), 10U);
}

TEST(IrohRegistry, AConnectionOfTheSmallerIdIsDisplaced) {
  Registry registry(numbered(1));
  registry.on_opened(1, numbered(2), true, kStart);
  registry.on_opened(2, numbered(2), false, kStart);
  const auto taken = registry.on_preflight(2, kStart);
  EXPECT_EQ(taken.close, (std::vector<Registry::Close>{{1, 2, kSuperseded}}));
  EXPECT_EQ(taken.active, 2U);
  EXPECT_FALSE(registry.on_ended(1)) << "it did not hold the slot any more: the peer is not gone";
  EXPECT_TRUE(registry.on_ended(2));
}

TEST(IrohRegistry, OfTwoInOneDirectionTheNewerCounts) {
  for (const std::uint8_t own : {1, 9}) {
    Registry registry(numbered(own));
    registry.on_opened(1, numbered(2), false, kStart);
    registry.on_preflight(1, kStart);
    registry.on_opened(2, numbered(2), false, kStart);
    EXPECT_EQ(registry.on_preflight(2, kStart).close, (std::vector<Registry::Close>{{1, 2, kSuperseded}}));
    EXPECT_EQ(registry.holder(numbered(2)), 2U);
  }
}

TEST(IrohRegistry, ALatePreflightEndsTheConnection) {
  Registry registry(numbered(1));
  registry.on_opened(1, numbered(2), true, kStart);
  registry.on_opened(2, numbered(3), false, kStart + 1s);
  EXPECT_EQ(registry.next_deadline(), kStart + 10s);
  EXPECT_TRUE(registry.on_deadline(kStart + 10s - 1us).close.empty());
  EXPECT_EQ(registry.on_deadline(kStart + 10s).close, (std::vector<Registry::Close>{{1, 0, kLate}}));
  EXPECT_FALSE(registry.holder(numbered(2)));
  EXPECT_EQ(registry.on_preflight(2, kStart + 11s).close, (std::vector<Registry::Close>{{2, 0, kLate}}));
  EXPECT_EQ(registry.size(), 0U);
}

TEST(IrohRegistry, EventsOfUnknownConnectionsHaveNoEffect) {
  Registry registry(numbered(1));
  EXPECT_FALSE(registry.on_ended(5));
  EXPECT_FALSE(registry.on_preflight(5, kStart).active);
  EXPECT_FALSE(registry.is_active(5));
}

/// Two registries that dial each other as chance has it, over connections on which what one side does reaches the other
/// in order and later.
class TwoSides {
 public:
  explicit TwoSides(std::uint64_t seed) : engine_(seed) {}

  /// Each dials `dials` times at most.
  void run(int dials) {
    int left[2] = {dials, dials};
    while (left[0] + left[1] > 0 || has_news()) {
      const int side = static_cast<int>(engine_() % 2);
      if (left[side] > 0 && engine_() % 3 == 0) {
        --left[side];
        const Registry::Id id = ++last_;
        dialled_by_[id] = side;
        carry_out(side, sides_[side].on_opened(id, numbered(ids_[1 - side]), true, kStart), id);
        continue;
      }
      step(side);
    }
  }
  /// Both have one connection, the same one, active on both sides.
  void expect_agreement() {
    const auto first = sides_[0].holder(numbered(ids_[1])), second = sides_[1].holder(numbered(ids_[0]));
    ASSERT_TRUE(first);
    EXPECT_EQ(first, second);
    EXPECT_TRUE(sides_[0].is_active(*first) && sides_[1].is_active(*first));
    EXPECT_EQ(sides_[0].size(), 1U);
    EXPECT_EQ(sides_[1].size(), 1U);
  }

 private:
  enum class News { open, preflight, closed };

  bool has_news() const {
    return std::ranges::any_of(news_, [](const auto& one) { return !one.second.empty(); });
  }
  /// One piece of news, of a connection drawn by chance, reaches `side`.
  void step(int side) {
    std::vector<std::pair<int, Registry::Id>> ready;
    for (const auto& [where, queue] : news_) {
      if (where.first == side && !queue.empty()) ready.push_back(where);
    }
    if (ready.empty()) return;
    const auto where = ready[engine_() % ready.size()];
    const News what = news_[where].front();
    news_[where].pop_front();
    const Registry::Id id = where.second;
    if (gone_.contains(where)) return;
    if (what == News::open) {
      carry_out(side, sides_[side].on_opened(id, numbered(ids_[1 - side]), false, kStart), 0);
    } else if (what == News::preflight) {
      carry_out(side, sides_[side].on_preflight(id, kStart), 0);
    } else {
      sides_[side].on_ended(id);
      gone_.insert(where);
    }
  }
  void carry_out(int side, const Registry::Outcome& outcome, Registry::Id dialled) {
    if (dialled != 0) news_[{1 - side, dialled}].push_back(News::open);
    if (outcome.send_preflight) news_[{1 - side, *outcome.send_preflight}].push_back(News::preflight);
    for (const Registry::Close& close : outcome.close) {
      EXPECT_EQ(close.code, 2U);
      gone_.insert({side, close.id});
      news_[{1 - side, close.id}].push_back(News::closed);
    }
  }

  std::mt19937_64 engine_;
  const std::uint8_t ids_[2] = {4, 5};
  Registry sides_[2] = {Registry(numbered(4)), Registry(numbered(5))};
  std::map<std::pair<int, Registry::Id>, std::deque<News>> news_;
  std::map<Registry::Id, int> dialled_by_;
  std::set<std::pair<int, Registry::Id>> gone_;
  Registry::Id last_ = 0;
};

TEST(IrohRegistry, BothSidesKeepTheSameConnectionWhenBothDialAtOnce) {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    SCOPED_TRACE(seed);
    TwoSides world(seed);
    world.run(1);
    world.expect_agreement();
    if (HasFailure()) return;
  }
}

TEST(IrohRegistry, AgreesWithItsTwinAfterEveryCommand) {
  model::RegistryCoverage coverage;
  for (std::uint64_t seed = 1; seed <= 2'000; ++seed) {
    const auto commands = model::random_commands(seed, 161);
    ASSERT_NO_THROW(model::RegistryTwinRun(commands, &coverage).run()) << "seed " << seed;
  }
  EXPECT_GT(coverage.superseded, 1'000U);
  EXPECT_GT(coverage.refused, 1'000U);
  EXPECT_GT(coverage.too_many, 100U);
  EXPECT_GT(coverage.late, 1'000U);
  EXPECT_GT(coverage.active, 10'000U);
}

}  // namespace
}  // namespace kitsune2::iroh
