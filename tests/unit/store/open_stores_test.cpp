// Which stores are open: the rules one by one, and random courses beside a naive twin.
#include "store/sqlite/open_stores.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <set>

namespace kitsune2::sqlite {
namespace {

using Id = OpenStores::Id;
using Who = std::pair<Id, OpenStores::User>;
constexpr OpenStores::User kOne = 1, kTwo = 2;
constexpr Duration kIdleTime = std::chrono::minutes(1);

Time at(std::int64_t seconds) { return Time(std::chrono::seconds(seconds)); }

TEST(OpenStores, AStoreIsUsedAtOnceWhileThereIsRoom) {
  OpenStores all(12, kIdleTime);
  const Id a = all.add(6), b = all.add(6);
  EXPECT_TRUE(all.use(a, kOne));
  EXPECT_TRUE(all.use(b, kOne));
  EXPECT_EQ(all.taken(), 12U);
  EXPECT_TRUE(all.take_to_close().empty());
}

TEST(OpenStores, TheOneThatWasUsedLongestAgoIsClosedForANewOne) {
  OpenStores all(12, kIdleTime);
  const Id a = all.add(6), b = all.add(6), c = all.add(6);
  ASSERT_TRUE(all.use(a, kOne) && all.use(b, kOne));
  all.release(b, kOne, at(1));
  all.release(a, kOne, at(2));
  EXPECT_FALSE(all.use(c, kOne));
  EXPECT_EQ(all.take_to_close(), std::vector{b});
  EXPECT_TRUE(all.take_granted().empty()) << "before the other one is closed";
  all.closed(b);
  EXPECT_EQ(all.take_granted(), (std::vector{Who(c, kOne)}));
  EXPECT_TRUE(all.use(c, kOne)) << "it uses it already";
}

TEST(OpenStores, AStoresOwnWorkIsNoUse) {
  OpenStores all(12, kIdleTime);
  const Id a = all.add(6), b = all.add(6), c = all.add(6);
  ASSERT_TRUE(all.use(a, kOne) && all.use(b, kOne));
  all.release(a, kOne, at(1));
  all.release(b, kOne, at(2));
  ASSERT_TRUE(all.use(a, kOne));
  all.release(a, kOne, at(3), false);
  EXPECT_FALSE(all.use(c, kOne));
  EXPECT_EQ(all.take_to_close(), std::vector{a});
}

TEST(OpenStores, NoneThatIsUsedIsClosedAndWhoWaitsGetsTheFirstThatIsPutDown) {
  OpenStores all(12, kIdleTime);
  const Id a = all.add(6), b = all.add(6), c = all.add(6);
  ASSERT_TRUE(all.use(a, kOne) && all.use(a, kTwo) && all.use(b, kOne));
  EXPECT_FALSE(all.use(c, kOne));
  all.release(a, kOne, at(1));
  EXPECT_TRUE(all.take_to_close().empty());
  all.release(a, kTwo, at(2));
  EXPECT_EQ(all.take_to_close(), std::vector{a});
  EXPECT_FALSE(all.use(a, kOne)) << "it comes behind those who waited";
  all.closed(a);
  EXPECT_EQ(all.take_granted(), (std::vector{Who(c, kOne)}));
  all.release(b, kOne, at(3));
  EXPECT_EQ(all.take_to_close(), std::vector{b});
  all.closed(b);
  EXPECT_EQ(all.take_granted(), (std::vector{Who(a, kOne)}));
}

TEST(OpenStores, ALargeOneWaitsUntilEnoughIsClosedAndNobodyOvertakesIt) {
  OpenStores all(12, kIdleTime);
  const Id a = all.add(4), b = all.add(4), c = all.add(4), large = all.add(8), small = all.add(2);
  for (const Id id : {a, b, c}) ASSERT_TRUE(all.use(id, kOne));
  EXPECT_FALSE(all.use(large, kOne));
  EXPECT_FALSE(all.use(small, kOne));
  all.release(a, kOne, at(1));
  all.closed(all.take_to_close().at(0));
  EXPECT_TRUE(all.take_granted().empty()) << "there would be room for the small one";
  all.release(b, kOne, at(2));
  all.closed(all.take_to_close().at(0));
  EXPECT_EQ(all.take_granted(), (std::vector{Who(large, kOne)}));
}

TEST(OpenStores, OneThatIsLargerThanAllTheRoomIsOpenedAlone) {
  OpenStores all(3, kIdleTime);
  const Id a = all.add(6), b = all.add(6);
  EXPECT_TRUE(all.use(a, kOne));
  EXPECT_FALSE(all.use(b, kOne));
  all.release(a, kOne, at(1));
  all.closed(all.take_to_close().at(0));
  EXPECT_EQ(all.take_granted(), (std::vector{Who(b, kOne)}));
}

TEST(OpenStores, AnIdleStoreIsClosedAfterTheTime) {
  OpenStores all(12, kIdleTime);
  const Id a = all.add(6);
  ASSERT_TRUE(all.use(a, kOne));
  EXPECT_FALSE(all.close_if_idle(a, at(1'000)));
  all.release(a, kOne, at(1'000));
  EXPECT_EQ(all.left(a, at(1'010)), std::chrono::seconds(50));
  EXPECT_FALSE(all.close_if_idle(a, at(1'059)));
  EXPECT_TRUE(all.close_if_idle(a, at(1'060)));
  EXPECT_TRUE(all.is_closing(a));
  all.closed(a);
  EXPECT_EQ(all.taken(), 0U);
}

TEST(OpenStores, OneThatCannotBeClosedCountsAsUsed) {
  OpenStores all(12, kIdleTime);
  const Id a = all.add(6), b = all.add(6), c = all.add(6);
  ASSERT_TRUE(all.use(a, kOne) && all.use(b, kOne));
  all.release(a, kOne, at(1));
  all.release(b, kOne, at(2));
  EXPECT_FALSE(all.use(c, kOne));
  ASSERT_EQ(all.take_to_close(), std::vector{a});
  all.stays_open(a, at(3));
  EXPECT_EQ(all.take_to_close(), std::vector{b});
  EXPECT_EQ(all.left(a, at(3)), kIdleTime);
}

TEST(OpenStores, OneThatCannotBeClosedIsNotAskedAgainAtOnce) {
  OpenStores all(6, kIdleTime);
  const Id a = all.add(6), b = all.add(6);
  ASSERT_TRUE(all.use(a, kOne));
  all.release(a, kOne, at(1));
  EXPECT_FALSE(all.use(b, kOne));
  ASSERT_EQ(all.take_to_close(), std::vector{a});
  all.stays_open(a, at(1));
  EXPECT_TRUE(all.take_to_close().empty()) << "though somebody waits, and it is the only one";
  ASSERT_TRUE(all.use(a, kOne));
  all.release(a, kOne, at(2), false);
  EXPECT_EQ(all.take_to_close(), std::vector{a});
}

TEST(OpenStores, WhoCannotWaitIsNotRefusedAndOthersAreClosedForIt) {
  OpenStores all(12, kIdleTime);
  const Id a = all.add(6), b = all.add(6), c = all.add(6);
  ASSERT_TRUE(all.use(a, kOne) && all.use(b, kOne));
  all.use_now(c, kOne);
  EXPECT_EQ(all.taken(), 18U);
  all.release(a, kOne, at(1));
  ASSERT_EQ(all.take_to_close(), std::vector{a});
  all.use_now(a, kTwo);
  EXPECT_FALSE(all.is_closing(a)) << "its closing is called off";
}

TEST(OpenStores, ALowerLimitCountsFromTheNextUse) {
  OpenStores all(18, kIdleTime);
  const Id a = all.add(6), b = all.add(6), c = all.add(6);
  for (const Id id : {a, b, c}) ASSERT_TRUE(all.use(id, kOne));
  all.set_most(6);
  all.release(a, kOne, at(1));
  EXPECT_EQ(all.take_to_close(), std::vector{a});
}

/// The rules again, without regard to what they cost: everything is found by looking at all there is.
class NaiveStores {
 public:
  struct Store {
    std::size_t descriptors = 0;
    char phase = 'c';  ///< closed, open, going
    std::set<OpenStores::User> users;
    Time used_at{}, rests_until{};
  };

  std::size_t taken(bool with_going = true) const {
    std::size_t sum = 0;
    for (const auto& [id, store] : stores) {
      if (store.phase == 'o' || (with_going && store.phase == 'g')) sum += store.descriptors;
    }
    return sum;
  }
  void grant_open() {
    for (const Who& who : std::vector(queue)) {
      if (stores.at(who.first).phase != 'o') continue;
      stores.at(who.first).users.insert(who.second);
      granted.push_back(who);
      std::erase(queue, who);
    }
  }
  void settle() {
    grant_open();
    while (!queue.empty()) {
      Store& first = stores.at(queue.front().first);
      if (first.phase != 'c' || (taken() > 0 && taken() + first.descriptors > most)) break;
      first.phase = 'o';
      grant_open();
    }
    std::size_t wanted = 0;
    if (!queue.empty() && stores.at(queue.front().first).phase == 'c') {
      wanted = stores.at(queue.front().first).descriptors;
    }
    while (taken(false) > 0 && taken(false) + wanted > most) {
      std::optional<Id> oldest;
      for (const auto& [id, store] : stores) {
        if (store.phase != 'o' || !store.users.empty() || store.rests_until > now) continue;
        if (!oldest || store.used_at < stores.at(*oldest).used_at) oldest = id;
      }
      if (!oldest) break;
      stores.at(*oldest).phase = 'g';
      to_close.push_back(*oldest);
    }
  }

  std::size_t most = 0;
  Time now{};
  std::map<Id, Store> stores;
  std::vector<Who> queue, granted;
  std::vector<Id> to_close;
};

TEST(OpenStores, AgreeWithANaiveTwin) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto pick = [&](std::size_t below) { return static_cast<std::size_t>(random() % below); };
    NaiveStores naive;
    naive.most = 1 + pick(30);
    OpenStores all(naive.most, kIdleTime);
    std::int64_t now = 1;
    for (int step = 0; step < 400 && !::testing::Test::HasFailure(); ++step) {
      now += static_cast<std::int64_t>(pick(10));
      const auto user = static_cast<OpenStores::User>(1 + pick(2));
      if (naive.stores.empty() || (naive.stores.size() < 12 && pick(12) == 0)) {
        const std::size_t descriptors = 1 + pick(8);
        naive.stores[all.add(descriptors)].descriptors = descriptors;
        continue;
      }
      const auto entry = std::next(naive.stores.begin(), static_cast<std::ptrdiff_t>(pick(naive.stores.size())));
      const Id id = entry->first;
      NaiveStores::Store& store = entry->second;
      switch (pick(12)) {
        case 0:
        case 1:
        case 2:
        case 3: {
          if (store.phase == 'o') {
            store.users.insert(user);
          } else {
            if (std::ranges::find(naive.queue, Who(id, user)) == naive.queue.end()) naive.queue.emplace_back(id, user);
            naive.settle();
          }
          EXPECT_EQ(all.use(id, user), store.users.contains(user));
          std::erase(naive.granted, Who(id, user));
          break;
        }
        case 4:
          if (pick(3) > 0) break;
          store.phase = 'o';
          store.users.insert(user);
          std::erase(naive.queue, Who(id, user));
          std::erase(naive.to_close, id);
          all.use_now(id, user);
          naive.settle();
          std::erase(naive.granted, Who(id, user));
          break;
        case 5:
        case 6:
        case 7: {
          const bool was_called = pick(3) > 0;
          all.release(id, user, at(now), was_called);
          if (store.users.erase(user) == 0) break;
          if (was_called) store.used_at = at(now);
          naive.now = at(now);
          std::erase(naive.granted, Who(id, user));
          naive.settle();
          break;
        }
        case 8: {
          const bool may = store.phase == 'o' && store.users.empty() && at(now) - store.used_at >= kIdleTime;
          if (may) store.phase = 'g';
          EXPECT_EQ(all.close_if_idle(id, at(now)), may);
          break;
        }
        case 9:
          if (store.phase != 'g') break;
          if (pick(3) > 0) {
            store.phase = 'c';
            all.closed(id);
          } else {
            store.phase = 'o';
            store.used_at = at(now);
            store.rests_until = at(now + 1);
            naive.now = at(now);
            all.stays_open(id, at(now));
          }
          std::erase(naive.to_close, id);
          naive.settle();
          break;
        case 10:
          if (pick(4) > 0) break;
          std::erase_if(naive.queue, [&](const Who& who) { return who.first == id; });
          std::erase_if(naive.granted, [&](const Who& who) { return who.first == id; });
          std::erase(naive.to_close, id);
          naive.stores.erase(id);
          all.remove(id);
          naive.settle();
          break;
        case 11:
          if (pick(4) > 0) break;
          naive.most = 1 + pick(30);
          all.set_most(naive.most);
          break;
      }
      EXPECT_EQ(all.taken(), naive.taken());
      if (pick(2) == 0) {
        EXPECT_EQ(all.take_granted(), std::exchange(naive.granted, {}));
        EXPECT_EQ(all.take_to_close(), std::exchange(naive.to_close, {}));
      }
    }
  }
}

/// Everybody uses a store for a while, again and again, and each has its turn.
TEST(OpenStores, EverybodyWhoWaitsGetsRoomInTheEnd) {
  for (unsigned seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    OpenStores all(12, kIdleTime);
    std::map<Id, int> turns;
    std::set<Id> in_use;
    for (int i = 0; i < 40; ++i) turns[all.add(6)] = 0;
    std::int64_t now = 0;
    const auto is_done = [&] { return std::ranges::all_of(turns, [](const auto& t) { return t.second >= 5; }); };
    for (int step = 0; step < 100'000 && !is_done(); ++step) {
      ++now;
      const Id id = 1 + random() % 40;
      if (in_use.contains(id)) {
        in_use.erase(id);
        all.release(id, kOne, at(now));
      } else if (all.use(id, kOne)) {
        in_use.insert(id);
        ++turns[id];
      }
      for (const Id other : all.take_to_close()) {
        EXPECT_FALSE(in_use.contains(other));
        random() % 8 == 0 ? all.stays_open(other, at(now)) : all.closed(other);
      }
      for (const auto& [other, user] : all.take_granted()) {
        in_use.insert(other);
        ++turns[other];
      }
      EXPECT_LE(all.taken(), 12U);
    }
    EXPECT_TRUE(is_done());
  }
}

}  // namespace
}  // namespace kitsune2::sqlite
