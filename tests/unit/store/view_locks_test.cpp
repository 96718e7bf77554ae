// The locks of connections that share a file: the rules one by one, and random courses beside a naive twin.
#include "store/sqlite/view_locks.hpp"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace kitsune2::sqlite {
namespace {

using Answer = ViewLocks::Answer;

TEST(ViewLocks, BelowIsAskedOnceForWhatSeveralRead) {
  ViewLocks locks;
  const auto a = locks.add(), b = locks.add();
  EXPECT_EQ(locks.lock(a, ViewLocks::shared), Answer::below);
  locks.given(a, ViewLocks::shared);
  EXPECT_EQ(locks.lock(b, ViewLocks::shared), Answer::yes);
  EXPECT_EQ(locks.unlock(a, ViewLocks::none), std::nullopt) << "the other one still reads";
  EXPECT_EQ(locks.unlock(b, ViewLocks::none), ViewLocks::none);
  EXPECT_EQ(locks.lock_shared(a, 3), Answer::below);
  locks.give_shared(a, 3);
  EXPECT_EQ(locks.lock_shared(b, 3), Answer::yes);
  EXPECT_FALSE(locks.unlock_shared(b, 3));
  EXPECT_TRUE(locks.unlock_shared(a, 3));
}

TEST(ViewLocks, WhatBelowRefusesNobodyHas) {
  ViewLocks locks;
  const auto a = locks.add(), b = locks.add();
  EXPECT_EQ(locks.lock(a, ViewLocks::shared), Answer::below);
  locks.refused(a, ViewLocks::shared);
  EXPECT_EQ(locks.level(a), ViewLocks::none);
  EXPECT_EQ(locks.lock(b, ViewLocks::shared), Answer::below);
  EXPECT_EQ(locks.lock_exclusive(a, 0, 2), Answer::below);
  EXPECT_EQ(locks.exclusive_slots(a), 0);
  EXPECT_EQ(locks.lock_exclusive(b, 1, 1), Answer::below);
}

TEST(ViewLocks, WhoWaitsForReadersKeepsNewOnesOut) {
  ViewLocks locks;
  const auto writer = locks.add(), reader = locks.add(), late = locks.add();
  for (const auto view : {writer, reader}) {
    if (locks.lock(view, ViewLocks::shared) == Answer::below) locks.given(view, ViewLocks::shared);
  }
  EXPECT_EQ(locks.lock(writer, ViewLocks::exclusive), Answer::busy);
  EXPECT_EQ(locks.lock(late, ViewLocks::shared), Answer::busy);
  EXPECT_EQ(locks.unlock(reader, ViewLocks::none), std::nullopt);
  EXPECT_EQ(locks.lock(writer, ViewLocks::exclusive), Answer::below);
  locks.refused(writer, ViewLocks::exclusive);
  EXPECT_EQ(locks.lock(late, ViewLocks::shared), Answer::busy) << "below there may be a lock that is pending";
  EXPECT_EQ(locks.unlock(writer, ViewLocks::shared), ViewLocks::shared) << "and it goes with that of the view";
}

/// Each view by itself, as if its file were its own; below, what SQLite would see of all of them.
struct Twin {
  struct View {
    int level = 0;
    unsigned shared = 0, exclusive = 0;
  };
  std::vector<View> views = std::vector<View>(3);

  bool may_lock(std::size_t who, int wanted) const {
    for (std::size_t i = 0; i < views.size(); ++i) {
      if (i == who) continue;
      const int other = views[i].level;
      if (wanted == ViewLocks::shared && other >= ViewLocks::pending) return false;
      if (wanted == ViewLocks::reserved && other >= ViewLocks::reserved) return false;
      if (wanted == ViewLocks::exclusive && other >= ViewLocks::shared) return false;
    }
    return true;
  }
  bool another_writes(std::size_t who) const {
    for (std::size_t i = 0; i < views.size(); ++i) {
      if (i != who && views[i].level >= ViewLocks::reserved) return true;
    }
    return false;
  }
  int level() const {
    int out = 0;
    for (const View& v : views) out = std::max(out, v.level);
    return out;
  }
  unsigned shared() const {
    unsigned out = 0;
    for (const View& v : views) out |= v.shared;
    return out;
  }
  bool may_lock_slots(std::size_t who, unsigned slots, bool is_shared) const {
    for (std::size_t i = 0; i < views.size(); ++i) {
      if (i != who && ((views[i].exclusive & slots) != 0 || (!is_shared && (views[i].shared & slots) != 0)))
        return false;
    }
    return true;
  }
};

TEST(ViewLocks, AgreeWithANaiveTwinWhateverIsAsked) {
  std::mt19937 random(11);
  const auto up_to = [&](std::size_t n) { return static_cast<std::size_t>(random() % (n + 1)); };
  ViewLocks locks;
  Twin twin;
  std::vector<ViewLocks::View> views;
  for (std::size_t i = 0; i < twin.views.size(); ++i) views.push_back(locks.add());
  int below = 0;              // the level that the file below has
  unsigned below_shared = 0;  // and its slots
  unsigned below_exclusive = 0;
  for (int step = 0; step < 100'000; ++step) {
    const std::size_t who = up_to(2);
    Twin::View& own = twin.views[who];
    const auto view = views[who];
    const bool is_refused_below = up_to(9) == 0;
    switch (up_to(5)) {
      case 0:
      case 1: {
        static constexpr int kWanted[] = {ViewLocks::shared, ViewLocks::reserved, ViewLocks::exclusive};
        const int wanted = own.level == 0 ? kWanted[0] : kWanted[up_to(2)];
        const bool may = own.level >= wanted || twin.may_lock(who, wanted);
        const auto answer = locks.lock(view, static_cast<ViewLocks::Level>(wanted));
        ASSERT_EQ(answer == Answer::busy, !may);
        if (!may) {
          if (wanted == ViewLocks::exclusive && !twin.another_writes(who)) own.level = ViewLocks::pending;
          below = std::max(below, std::min<int>(own.level, ViewLocks::shared));
        } else if (answer == Answer::below && is_refused_below) {
          locks.refused(view, static_cast<ViewLocks::Level>(wanted));
          if (wanted == ViewLocks::exclusive) below = own.level = ViewLocks::pending;
        } else {
          if (answer == Answer::below) {
            locks.given(view, static_cast<ViewLocks::Level>(wanted));
            below = std::max(below, wanted);
          }
          own.level = std::max(own.level, wanted);
          ASSERT_GE(below, std::min<int>(own.level, wanted));
        }
        break;
      }
      case 2: {
        const int left = static_cast<int>(up_to(1));
        own.level = std::min(own.level, left);
        if (const auto to = locks.unlock(view, static_cast<ViewLocks::Level>(left))) below = std::min<int>(below, *to);
        ASSERT_LE(below, std::max<int>(twin.level(), ViewLocks::none));
        ASSERT_TRUE(twin.level() == 0 || below >= ViewLocks::shared);
        break;
      }
      case 3:
      case 4: {
        const bool is_shared = up_to(1) == 0;
        const std::size_t first = up_to(7), n = is_shared ? 1 : 1 + up_to(7 - first);
        const unsigned slots = ((1U << n) - 1U) << first;
        if (((own.shared | own.exclusive) & slots) != 0) break;  // SQLite never asks twice
        const auto answer = is_shared ? locks.lock_shared(view, first) : locks.lock_exclusive(view, first, n);
        ASSERT_EQ(answer != Answer::busy, twin.may_lock_slots(who, slots, is_shared));
        if (answer == Answer::busy) break;
        if (answer == Answer::below) {
          ASSERT_EQ((below_shared | below_exclusive) & slots, 0U);
          if (is_refused_below) break;
          is_shared ? locks.give_shared(view, first) : locks.give_exclusive(view, first, n);
          (is_shared ? below_shared : below_exclusive) |= slots;
        }
        (is_shared ? own.shared : own.exclusive) |= slots;
        break;
      }
      default: {
        const std::size_t slot = up_to(7);
        if (locks.unlock_shared(view, slot)) below_shared &= ~(1U << slot);
        if (locks.unlock_exclusive(view, slot, 1)) below_exclusive &= ~(1U << slot);
        own.shared &= ~(1U << slot);
        own.exclusive &= ~(1U << slot);
      }
    }
    unsigned exclusive = 0;
    for (std::size_t i = 0; i < views.size(); ++i) {
      ASSERT_EQ(locks.level(views[i]), twin.views[i].level);
      exclusive |= twin.views[i].exclusive;
    }
    ASSERT_EQ(below_shared, twin.shared());
    ASSERT_EQ(below_exclusive, exclusive);
  }
}

}  // namespace
}  // namespace kitsune2::sqlite
