// The rules of the fetch core as short stories. Each has sources and ops of its own; many run on one core at the same
// time, started at random times, so that any influence of one on another shows.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "core/fetch/fetch_core.hpp"
#include "unit/core/fetch/fetch_core_fixture.hpp"

namespace kitsune2 {
namespace {

using fetch_core_test::kTick;
constexpr Duration kDelay{2'000'000};
constexpr Duration kFirstBackOff{20'000'000};

/// One core, its time, and its output by source.
class World {
 public:
  FetchCore core{CoreFetchConfig{}};
  Time now{};
  std::map<Url, std::vector<FetchRequest>> requests;  ///< not checked yet
  std::map<Url, std::vector<OpId>> missing;

  void note(const std::vector<FetchMissing>& said) {
    for (const FetchMissing& each : said) {
      auto& list = missing[each.source];
      list.insert(list.end(), each.op_ids.begin(), each.op_ids.end());
    }
  }
  void pump() {
    note(core.poll(now).missing);
    while (auto request = core.next_request(now)) requests[request->source].push_back(std::move(*request));
  }
};

class Scenario {
 public:
  Scenario(World& world, int number, Time start) : world_(world), number_(number), start_(start) {}
  virtual ~Scenario() = default;

  const std::multimap<Time, std::function<void()>>& steps() const { return steps_; }
  virtual void write() = 0;

 protected:
  FetchCore& core() { return world_.core; }
  Time now() const { return world_.now; }
  Url source(int i) const {
    return Url::parse("ws://s" + std::to_string(number_) + ":80/" + std::to_string(i)).value();
  }
  OpId op(int i) const { return OpId::from_text("op " + std::to_string(i) + " of story " + std::to_string(number_)); }
  std::vector<OpId> ops(int count) const {
    std::vector<OpId> out;
    for (int i = 0; i < count; ++i) out.push_back(op(i));
    return out;
  }
  /// `what` happens `when` after the start; at equal times in the order of writing.
  void at(Duration when, std::function<void()> what) { steps_.emplace(start_ + when, std::move(what)); }

  /// The only request to `from` since the last check.
  FetchRequest asked(const Url& from) {
    auto list = std::exchange(world_.requests[from], {});
    EXPECT_EQ(list.size(), 1U) << "story " << number_;
    return list.empty() ? FetchRequest{} : list[0];
  }
  std::uint64_t asked_for(const Url& from, const std::vector<OpId>& expected) {
    const FetchRequest request = asked(from);
    EXPECT_EQ(request.op_ids, expected) << "story " << number_;
    return request.id;
  }
  void not_asked(const Url& from) { EXPECT_TRUE(world_.requests[from].empty()) << "story " << number_; }
  void answer(const Url& from, const std::vector<OpId>& ids) {
    world_.note(core().on_response(from, ids, 100 * ids.size(), now()).missing);
  }
  void missing_are(const Url& from, const std::vector<OpId>& expected) {
    EXPECT_EQ(std::exchange(world_.missing[from], {}), expected) << "story " << number_;
  }
  void add(const std::vector<OpId>& ids, const Url& from) {
    EXPECT_EQ(core().add(ids, from, now()).added, ids.size()) << "story " << number_;
  }
  void store(const std::vector<OpId>& ids) {
    EXPECT_EQ(core().on_stored(ids, now()), ids.size()) << "story " << number_;
  }

 private:
  World& world_;
  int number_;
  Time start_;
  std::multimap<Time, std::function<void()>> steps_;
};

/// Requested and not answered: requested again after the delay, as long as it is wanted.
class ReInserted : public Scenario {
  using Scenario::Scenario;
  void write() override {
    at(Duration(0), [this] { add(ops(1), source(0)); });
    at(Duration(0), [this] { core().on_sent(asked_for(source(0), ops(1)), now()); });
    at(kDelay - kTick, [this] { not_asked(source(0)); });
    at(kDelay, [this] { core().on_sent(asked_for(source(0), ops(1)), now()); });
    at(2 * kDelay - kTick, [this] { not_asked(source(0)); });
    at(2 * kDelay - kTick, [this] { answer(source(0), ops(1)); });
    at(2 * kDelay, [this] { EXPECT_TRUE(core().is_pending(op(0)) && !core().is_wanted(op(0))); });
    at(2 * kDelay, [this] { store(ops(1)); });
    at(20 * kDelay, [this] { not_asked(source(0)); });
  }
};

/// Received before it was requested: nothing is sent.
class NoLongerWanted : public Scenario {
  using Scenario::Scenario;
  void write() override {
    at(Duration(0), [this] {
      add(ops(3), source(0));
      answer(source(1), {op(1)});
      store({op(1)});
    });
    at(Duration(0), [this] { asked_for(source(0), {op(0), op(2)}); });
  }
};

/// One source is asked; the next only when the first is overdue, and the first again only a delay after that.
class NextSource : public Scenario {
  using Scenario::Scenario;
  void write() override {
    at(Duration(0), [this] {
      add(ops(5), source(0));
      add(ops(5), source(1));
    });
    at(Duration(0), [this] {
      core().on_sent(asked_for(source(0), ops(5)), now());
      not_asked(source(1));
    });
    at(kDelay - kTick, [this] { not_asked(source(1)); });
    at(kDelay, [this] { core().on_sent(asked_for(source(1), ops(5)), now()); });
    at(2 * kDelay - kTick, [this] { not_asked(source(0)); });
    at(2 * kDelay, [this] { core().on_sent(asked_for(source(0), ops(5)), now()); });
    at(2 * kDelay, [this] { answer(source(1), ops(5)); });
    at(2 * kDelay, [this] { store(ops(5)); });
    at(10 * kDelay, [this] {
      not_asked(source(0));
      not_asked(source(1));
    });
  }
};

/// The next source cannot be reached: the first one has its full delay all the same.
class NextSourceFails : public Scenario {
  using Scenario::Scenario;
  void write() override {
    at(Duration(0), [this] {
      add(ops(1), source(0));
      add(ops(1), source(1));
    });
    at(Duration(0), [this] { core().on_sent(asked_for(source(0), ops(1)), now()); });
    at(kDelay, [this] { core().on_send_failed(asked_for(source(1), ops(1)), now()); });
    at(2 * kDelay - kTick, [this] { not_asked(source(0)); });
    at(2 * kDelay, [this] { asked_for(source(0), ops(1)); });
  }
};

/// Received from one source: the request to the other is no longer needed, and its place is free.
class OtherRequestsCancelled : public Scenario {
  using Scenario::Scenario;
  void write() override {
    at(Duration(0), [this] { add(ops(2), source(0)); });
    at(Duration(0), [this] { core().on_sent(asked_for(source(0), ops(2)), now()); });
    at(kTick, [this] {
      answer(source(1), ops(2));
      EXPECT_FALSE(core().is_wanted(op(0)));
    });
    at(2 * kTick, [this] { store(ops(2)); });
    at(5 * kDelay, [this] { not_asked(source(0)); });
  }
};

/// Unresponsive: on the back-off list nothing is sent, then it is tried again; other sources are not delayed.
class BackingOff : public Scenario {
  using Scenario::Scenario;
  void write() override {
    at(Duration(0), [this] { add(ops(4), source(0)); });
    at(Duration(0), [this] {
      EXPECT_FALSE(core().on_send_failed(asked_for(source(0), ops(4)), now()));
      add({op(0)}, source(1));
    });
    at(Duration(0), [this] {
      asked_for(source(1), {op(0)});
      answer(source(1), {op(0)});
      store({op(0)});
    });
    at(kFirstBackOff - kTick, [this] { not_asked(source(0)); });
    at(kFirstBackOff, [this] { core().on_sent(asked_for(source(0), {op(1), op(2), op(3)}), now()); });
    at(kFirstBackOff, [this] { answer(source(0), {op(1), op(2), op(3)}); });
    at(kFirstBackOff, [this] { store({op(1), op(2), op(3)}); });
    // The success cleared the list: the next failure starts with the first interval.
    at(2 * kFirstBackOff, [this] { add({op(9)}, source(0)); });
    at(2 * kFirstBackOff, [this] { core().on_send_failed(asked_for(source(0), {op(9)}), now()); });
    at(3 * kFirstBackOff - kTick, [this] { not_asked(source(0)); });
    at(3 * kFirstBackOff, [this] { asked_for(source(0), {op(9)}); });
  }
};

/// It fails again after the last interval: this and all other requests to that peer are dropped.
class GivenUp : public Scenario {
  using Scenario::Scenario;
  void write() override {
    at(Duration(0), [this] {
      add(ops(6), source(0));
      add({op(5)}, source(1));
    });
    Duration when{0};
    for (int i = 0; i < 4; ++i) {
      at(when, [this] { EXPECT_FALSE(core().on_send_failed(asked(source(0)).id, now())); });
      when += kFirstBackOff * (1 << i);
      at(when - kTick, [this] { not_asked(source(0)); });
    }
    at(when, [this] {
      const auto given_up = core().on_send_failed(asked(source(0)).id, now());
      ASSERT_TRUE(given_up);
      EXPECT_EQ(given_up->source, source(0));
      EXPECT_EQ(given_up->pairs, 6U);
      EXPECT_EQ(given_up->orphaned, ops(5));
      EXPECT_FALSE(core().is_pending(op(0)));
      EXPECT_TRUE(core().is_pending(op(5)));
    });
    at(when + kFirstBackOff, [this] { not_asked(source(0)); });
  }
};

/// Storing fails: the op is not removed, and is requested again after the delay.
class PersistingFails : public Scenario {
  using Scenario::Scenario;
  void write() override {
    at(Duration(0), [this] { add(ops(2), source(0)); });
    at(Duration(0), [this] { core().on_sent(asked_for(source(0), ops(2)), now()); });
    at(kTick, [this] { answer(source(0), ops(2)); });
    at(kDelay, [this] {
      EXPECT_TRUE(core().on_store_failed({{op(0)}}, now()).empty());
      store({op(1)});
      EXPECT_TRUE(core().is_wanted(op(0)));
    });
    at(2 * kDelay - kTick, [this] { not_asked(source(0)); });
    at(2 * kDelay, [this] { asked_for(source(0), {op(0)}); });
  }
};

/// A part of an answer: the rest is missing there, and is requested there again after 1, 2, 4, … delays.
class Lacking : public Scenario {
  using Scenario::Scenario;
  void write() override {
    at(Duration(0), [this] { add(ops(4), source(0)); });
    at(Duration(0), [this] { core().on_sent(asked_for(source(0), ops(4)), now()); });
    at(kTick, [this] {
      answer(source(0), {op(1), op(3)});
      store({op(1), op(3)});
    });
    at(kDelay, [this] { missing_are(source(0), {}); });
    at(kDelay + kTick, [this] { missing_are(source(0), {op(0), op(2)}); });
    at(2 * kDelay, [this] { not_asked(source(0)); });
    at(2 * kDelay + kTick, [this] {
      core().on_sent(asked_for(source(0), {op(0), op(2)}), now());
      answer(source(0), {op(2)});
      store({op(2)});
    });
    at(3 * kDelay + kTick, [this] { missing_are(source(0), {op(0)}); });
    at(5 * kDelay, [this] { not_asked(source(0)); });
    at(5 * kDelay, [this] { add({op(0)}, source(1)); });
    at(5 * kDelay, [this] { core().on_sent(asked_for(source(1), {op(0)}), now()); });
    at(5 * kDelay, [this] { answer(source(1), {op(0)}); });
    at(5 * kDelay, [this] { store({op(0)}); });
    at(20 * kDelay, [this] { not_asked(source(0)); });
  }
};

/// Peers answer in order: an answer to a later request means that the earlier one has got all that it will get.
class AnsweredInOrder : public Scenario {
  using Scenario::Scenario;
  void write() override {
    at(Duration(0), [this] { add({op(0), op(1)}, source(0)); });
    at(Duration(0), [this] { core().on_sent(asked_for(source(0), {op(0), op(1)}), now()); });
    at(kTick, [this] { add({op(2), op(3)}, source(0)); });
    at(kTick, [this] { core().on_sent(asked_for(source(0), {op(2), op(3)}), now()); });
    at(2 * kTick, [this] {
      answer(source(0), {op(2)});
      missing_are(source(0), {op(0), op(1)});
      store({op(2)});
    });
    at(2 * kTick + kDelay - kTick, [this] { not_asked(source(0)); });
    at(2 * kTick + kDelay, [this] {
      missing_are(source(0), {op(3)});
      core().on_sent(asked_for(source(0), {op(0), op(1)}), now());
    });
  }
};

/// A source that repeatedly lacks the same op is dropped, with the waiting pair.
class LackingAndGone : public Scenario {
  using Scenario::Scenario;
  void write() override {
    at(Duration(0), [this] { add({op(0), op(1), op(2), op(3), op(4)}, source(0)); });
    Duration when{0};
    for (int i = 1; i <= 4; ++i) {
      // The wait doubles: it is asked again after 1, 2 and 4 delays; one op is answered each time.
      at(when - kTick, [this] { not_asked(source(0)); });
      at(when, [this, i] {
        const FetchRequest request = asked(source(0));
        EXPECT_EQ(request.op_ids.size(), static_cast<std::size_t>(6 - i));
        core().on_sent(request.id, now());
        answer(source(0), {op(i)});
        store({op(i)});
      });
      at(when + kDelay - kTick, [this] { missing_are(source(0), {}); });
      at(when + kDelay, [this, i] {
        std::vector<OpId> rest{op(0)};
        for (int k = i + 1; k < 5; ++k) rest.push_back(op(k));
        missing_are(source(0), rest);
      });
      when += kDelay + kDelay * (1 << (i - 1));
    }
    at(when - kTick, [this] {
      const auto gone = core().remove_source(source(0), now());
      ASSERT_TRUE(gone);
      EXPECT_EQ(gone->orphaned, std::vector<OpId>{op(0)});
    });
    at(when, [this] { not_asked(source(0)); });
  }
};

/// Signs of life keep a request from being overdue.
class SlowButAlive : public Scenario {
  using Scenario::Scenario;
  void write() override {
    at(Duration(0), [this] { add(ops(1), source(0)); });
    at(Duration(0), [this] { core().on_sent(asked_for(source(0), ops(1)), now()); });
    for (int i = 1; i <= 40; ++i) {
      at(i * (kDelay - kTick), [this] {
        not_asked(source(0));
        core().on_progress(source(0), 1, now());
      });
    }
    at(40 * (kDelay - kTick) + kDelay - kTick, [this] { not_asked(source(0)); });
    at(40 * (kDelay - kTick) + kDelay, [this] { asked_for(source(0), ops(1)); });
  }
};

/// But not for ever if there is another source.
class Hostage : public Scenario {
  using Scenario::Scenario;
  void write() override {
    at(Duration(0), [this] {
      add(ops(1), source(0));
      add(ops(1), source(1));
    });
    at(Duration(0), [this] { core().on_sent(asked_for(source(0), ops(1)), now()); });
    for (int i = 1; i <= 30; ++i) at(i * (kDelay / 2), [this] { core().on_progress(source(0), 1, now()); });
    at(15 * kDelay - kTick, [this] { not_asked(source(1)); });
    at(15 * kDelay, [this] {
      asked_for(source(1), ops(1));
      not_asked(source(0));
    });
  }
};

/// A message that waits for its connection does not hold ops that other sources have.
class StillConnecting : public Scenario {
  using Scenario::Scenario;
  void write() override {
    at(Duration(0), [this] {
      add({op(0), op(1)}, source(0));
      add({op(0)}, source(1));
    });
    at(Duration(0), [this] {
      id_ = asked_for(source(0), {op(0), op(1)});
      not_asked(source(1));
    });
    at(kDelay - kTick, [this] { not_asked(source(1)); });
    at(kDelay, [this] {
      core().on_sent(asked_for(source(1), {op(0)}), now());
      answer(source(1), {op(0)});
      store({op(0)});
    });
    at(29 * kDelay, [this] {
      not_asked(source(0));
      core().on_sent(id_, now());
    });
    at(30 * kDelay - kTick, [this] { not_asked(source(0)); });
    at(30 * kDelay, [this] { asked_for(source(0), {op(1)}); });
  }
  std::uint64_t id_ = 0;
};

/// A removed source takes its requests along; what others have is requested from them at once.
class SourceRemoved : public Scenario {
  using Scenario::Scenario;
  void write() override {
    at(Duration(0), [this] {
      add({op(0), op(1), op(2)}, source(0));
      add({op(1)}, source(1));
    });
    at(Duration(0), [this] { core().on_sent(asked_for(source(0), {op(0), op(1), op(2)}), now()); });
    at(kTick, [this] {
      answer(source(0), {op(2)});
      const auto gone = core().remove_source(source(0), now());
      ASSERT_TRUE(gone);
      EXPECT_EQ(gone->pairs, 3U);
      EXPECT_EQ(gone->orphaned, ops(1));
      EXPECT_TRUE(core().is_pending(op(2))) << "it is on its way to the store";
    });
    at(kTick, [this] { asked_for(source(1), {op(1)}); });
    at(2 * kTick, [this] {
      EXPECT_EQ(core().on_store_failed({{op(2)}}, now()), std::vector<OpId>{op(2)});
      EXPECT_FALSE(core().is_pending(op(2)));
    });
  }
};

template <class... Kinds>
void make(std::vector<std::unique_ptr<Scenario>>& out, World& world, std::mt19937_64& random, Duration spread) {
  (out.push_back(std::make_unique<Kinds>(
       world, static_cast<int>(out.size()),
       Time(Duration(1'000'000'000)) +
           (spread.count() == 0 ? Duration(0) : Duration(static_cast<std::int64_t>(random() % spread.count()))))),
   ...);
}

/// Runs `copies` of each story on one core, started within `spread` of each other.
void run(int copies, Duration spread, std::uint64_t seed) {
  World world;
  std::mt19937_64 random(seed);
  std::vector<std::unique_ptr<Scenario>> stories;
  for (int i = 0; i < copies; ++i) {
    make<ReInserted, NoLongerWanted, NextSource, NextSourceFails, OtherRequestsCancelled, BackingOff, GivenUp,
         PersistingFails, Lacking, LackingAndGone, AnsweredInOrder, SlowButAlive, Hostage, StillConnecting,
         SourceRemoved>(stories, world, random, spread);
  }
  // All steps by time; stories at the same time in random order, the steps of each in its own order.
  std::map<Time, std::map<std::pair<std::uint64_t, std::size_t>, std::vector<std::function<void()>>>> steps;
  for (std::size_t i = 0; i < stories.size(); ++i) {
    stories[i]->write();
    const std::uint64_t rank = random();
    for (const auto& [when, what] : stories[i]->steps()) steps[when][{rank, i}].push_back(what);
  }
  for (auto& [when, by_story] : steps) {
    while (const auto deadline = world.core.next_deadline()) {
      if (*deadline >= when) break;
      ASSERT_GT(*deadline, world.now) << "poll() left something that was due";
      world.now = *deadline;
      world.pump();
      world.core.check_invariants();
    }
    world.now = when;
    world.pump();
    for (auto& [story, list] : by_story) {
      for (auto& what : list) {
        what();
        world.pump();
        world.core.check_invariants();
        if (::testing::Test::HasFailure()) FAIL() << "seed " << seed << ", at " << when.time_since_epoch().count();
      }
    }
  }
}

TEST(FetchCoreScenarios, EachOfThem) { run(1, Duration(0), 1); }

TEST(FetchCoreScenarios, ManyAtOnceDoNotTouchEachOther) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    set_hash_seed(seed);
    run(1 + static_cast<int>(seed % 4), seed % 3 == 0 ? Duration(3) : Duration(60'000'000), seed);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace kitsune2
