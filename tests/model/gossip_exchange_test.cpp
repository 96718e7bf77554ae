// Two nodes with arbitrary sets of ops gossip until they find nothing different; then both hold the union, as far as
// both store it. Rounds, model and order of listing are the real ones; the store is a sorted list.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <tuple>

#include "core/gossip/listing_places.hpp"
#include "core/gossip/round.hpp"

namespace kitsune2::model {
namespace {

using namespace gossip;
using namespace std::chrono_literals;

struct Op {
  ListingCursor at;
  std::uint32_t location = 0;
  std::uint32_t name = 0;
  /// Ids are long and random. With small numbers sums would agree by accident: the XOR of 1 and 2 is 3.
  Bytes id() const {
    std::mt19937_64 bits(name);
    std::string out;
    while (out.size() < 32) out += static_cast<char>(bits() & 255U);
    return Bytes(std::move(out));
  }
  bool operator<(const Op& other) const { return std::tie(at, name) < std::tie(other.at, other.name); }
};

struct Node {
  Node(const Url& own, Timestamp now, SectorSet arcs) : url(own), clock(now), sectors(arcs), model(now) {}

  Url url;
  Timestamp clock;
  SectorSet sectors;
  dht::DhtModel model;
  Rounds rounds;
  ListingPlaces disc_places, ring_places;
  std::set<Op> ops;
  std::set<std::uint32_t> names;
  std::int64_t stored = 0;

  void store(std::uint32_t name, std::uint32_t location, Timestamp created_at) {
    if (!names.insert(name).second) return;
    const Op op{{created_at, Timestamp{++stored}}, location, name};
    ops.insert(op);
    ASSERT_TRUE(model.add(location, created_at, op.id().view()));
  }
  /// At most `most` ops.
  std::vector<Op> list(const Url& peer, const std::vector<dht::SliceRef>& slices, std::size_t most,
                       std::uint32_t random) {
    std::vector<Op> out;
    std::set<std::uint32_t> listed;
    auto& places = !slices.empty() && slices.front().is_of_disc() ? disc_places : ring_places;
    for (const ListingPiece& piece : places.order(peer, slices, random)) {
      ListingCursor here = piece.after.value_or(ListingCursor{piece.start, Timestamp::min()});
      for (auto it = ops.upper_bound(Op{here, 0, UINT32_MAX}); it != ops.end() && it->at.created_at < piece.end; ++it) {
        if (piece.sectors.contains(it->location) && listed.insert(it->name).second) {
          if (out.size() == most) return places.on_cut(peer, here), out;
          out.push_back(*it);
        }
        here = it->at;
      }
    }
    places.on_finished(peer);
    return out;
  }
};

struct Exchange {
  explicit Exchange(std::uint64_t seed) : random(seed) {}
  std::mt19937_64 random;
  std::size_t most = 0;
  std::uint64_t ids = 0, hashes = 0;
  bool are_ours = true;                ///< both run this implementation
  bool loses = true;                   ///< fetch fails now and then
  std::optional<std::uint32_t> never;  ///< an op that is named and never given
  std::size_t of_rings = 0;            ///< rounds that compared the rings although the discs differed
  Bytes session = Bytes::copy_of("s");

  std::uint32_t draw(std::uint32_t below) { return static_cast<std::uint32_t>(random() % below); }

  void take(Node& node, const std::vector<Op>& named) {
    ids += named.size();
    // A fetch may fail: one in ten of the ops that were named is not stored.
    for (const Op& op : named) {
      if (op.name != never && (!loses || draw(10) != 0)) node.store(op.name, op.location, op.at.created_at);
    }
  }
  /// Makes one round. True: it found no difference.
  bool round(Node& from, Node& to) {
    from.model.update(from.clock);
    to.model.update(to.clock);
    from.rounds.start(to.url, session, {{}, from.sectors}, {1, {}}, Time{});
    const InitiateSaid said{session, 1};
    EXPECT_TRUE(std::holds_alternative<MayAccept>(to.rounds.on(from.url, said, 10, Time{})));
    const SectorSet common = to.rounds.accept(from.url, said, {{}, to.sectors}, from.sectors, Time{}).common;
    to.rounds.accepted(from.url, session, {}, true);
    const auto answer =
        from.rounds.on(to.url, AcceptSaid{session, to.sectors, {}, to.model.minimal(common), are_ours}, &from.model);
    const auto& go_on = std::get<AnswerAccept>(answer);
    EXPECT_NE(from.rounds.on_answer(to.url, session), nullptr);
    if (const auto* disc = std::get_if<dht::DiscSectorsSnapshot>(&go_on.answer)) {
      hashes += disc->sectors.size();
      auto show = to.rounds.on(from.url, DiscSectorsSaid{session, {}, *disc}, &to.model, draw(512));
      const auto& shown = std::get<ShowDisc>(show).snapshot;
      auto name = from.rounds.on(to.url, DiscDetailsSaid{session, shown}, &from.model);
      const auto& response = std::get<NameIds>(name);
      const auto first = from.list(to.url, response.slices, most, draw(1'000));
      auto last = to.rounds.on(
          from.url, DiscDetailsResponseSaid{session, std::get<dht::DiscSectorDetailsSnapshot>(response.snapshot)},
          &to.model);
      const auto second = to.list(from.url, std::get<NameIds>(last).slices, most, draw(1'000));
      to.rounds.end(from.url, session);
      EXPECT_TRUE(std::holds_alternative<Completed>(from.rounds.on(to.url, HashesSaid{session})));
      take(to, first);
      take(from, second);
    } else if (const auto* rings = std::get_if<dht::RingSectorDetailsSnapshot>(&go_on.answer)) {
      of_rings += go_on.disc_differs ? 1 : 0;
      auto name = to.rounds.on(from.url, RingDetailsSaid{session, {}, *rings, go_on.disc_differs}, &to.model);
      const auto& response = std::get<NameIds>(name);
      EXPECT_TRUE(!go_on.disc_differs || response.in_sync.empty());
      check_in_sync(from, to, response.in_sync);
      const auto first = to.list(from.url, response.slices, most, draw(1'000));
      auto last = from.rounds.on(
          to.url, RingDetailsResponseSaid{session, std::get<dht::RingSectorDetailsSnapshot>(response.snapshot)},
          &from.model);
      const auto second = from.list(to.url, std::get<NameIds>(last).slices, most, draw(1'000));
      from.rounds.end(to.url, session);
      EXPECT_TRUE(std::holds_alternative<Completed>(to.rounds.on(from.url, HashesSaid{session})));
      check_in_sync(from, to, std::get<NameIds>(last).in_sync);
      take(from, first);
      take(to, second);
    } else {
      EXPECT_FALSE(std::get<AnswerAccept::NoDiff>(go_on.answer).cannot_compare);
      const auto end = to.rounds.on(from.url, NoDiffSaid{session, {}});
      EXPECT_EQ(std::get<Finish>(end).in_sync, common);
      EXPECT_TRUE(std::holds_alternative<Completed>(from.rounds.on(to.url, TerminateSaid{session})));
      EXPECT_EQ(go_on.in_sync, common);
      check_in_sync(from, to, go_on.in_sync);
      return true;
    }
    EXPECT_FALSE(from.rounds.has_any_with(to.url));
    EXPECT_FALSE(to.rounds.has_any_with(from.url));
    return false;
  }
  /// Of what lies in some slice both hold the same there.
  static void check_in_sync(const Node& a, const Node& b, const SectorSet& sectors) {
    const Timestamp end = dht::unit_start(a.model.layout().end_unit());
    const auto held = [&](const Node& node) {
      std::set<std::uint32_t> out;
      for (const Op& op : node.ops) {
        if (sectors.contains(op.location) && op.at.created_at < end) out.insert(op.name);
      }
      return out;
    };
    EXPECT_EQ(held(a), held(b));
  }
};

TEST(GossipExchange, EndsWithTheUnionOnBothSides) {
  std::size_t in_parts = 0;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    Exchange run(seed);
    const Timestamp now = Timestamp::from_seconds(1'700'000'000 + run.draw(1'000'000));
    SectorSet arcs[2];
    for (SectorSet& arc : arcs) {
      const std::uint32_t start = run.draw(512) << SectorSet::kBits;
      arc.add(run.draw(2) == 0 ? DhtArc::full() : DhtArc(start, start + (300U << SectorSet::kBits) - 1));
    }
    // Clocks differ by some seconds, so the layout is the same except near the border of a unit.
    Node a(Url::parse("ws://r:1/a").value(), now, arcs[0]), b(Url::parse("ws://r:1/b").value(), now, arcs[1]);
    // From a few seconds to ten years old; some all at once; in a few sectors or in all.
    const std::uint32_t count = 1 + run.draw(400), spread = run.draw(2) == 0 ? 4 : 512;
    const std::uint32_t depth = 8 + run.draw(21);
    for (std::uint32_t name = 1; name <= count; ++name) {
      const auto age = std::chrono::seconds(run.draw(1U << depth) + 1'900);
      const Timestamp created = run.draw(4) == 0 ? Timestamp{0} : now - age;
      const std::uint32_t location = (run.draw(spread) << SectorSet::kBits) + run.draw(1U << SectorSet::kBits);
      const std::uint32_t who = run.draw(3);
      if (who != 1) a.store(name, location, created);
      if (who != 0) b.store(name, location, created);
    }
    const std::size_t longest = std::max(a.ops.size(), b.ops.size());
    run.most = run.draw(2) == 0 ? 1'000 : 1 + run.draw(50);
    run.are_ours = seed % 2 == 0;
    in_parts += run.most < longest ? 1 : 0;
    // What fetch loses is named again, up to three times; the disc and the rings need a round each besides.
    const std::size_t bound = 30 + 6 * (longest / run.most + 1);
    std::size_t rounds = 0;
    bool in_sync = false;
    for (; !in_sync && rounds < bound; ++rounds) in_sync = rounds % 2 == 0 ? run.round(a, b) : run.round(b, a);
    EXPECT_TRUE(in_sync) << "after " << rounds << " rounds of at most " << run.most << " ids";
    EXPECT_LE(run.ids, rounds * 2 * run.most);
    std::set<std::uint32_t> both;
    const SectorSet common = arcs[0].common(arcs[1]);
    for (const Node* node : {&a, &b}) {
      for (const Op& op : node->ops) {
        if (common.contains(op.location)) both.insert(op.name);
      }
    }
    for (const std::uint32_t name : both) EXPECT_TRUE(a.names.contains(name) && b.names.contains(name)) << name;
    a.model.check_invariants();
    b.model.check_invariants();
  }
  EXPECT_GT(in_parts, 100U);
}

/// R13, C2 and C3.
TEST(GossipExchange, AnOldOpThatIsNeverGivenDoesNotKeepRecentOnesFromArriving) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(seed);
    Exchange run(seed);
    run.most = 1'000;
    run.loses = false;
    run.never = 1;
    run.are_ours = seed % 2 == 0;
    const Timestamp now = Timestamp::from_seconds(1'700'000'000);
    SectorSet full;
    full.add(DhtArc::full());
    Node a(Url::parse("ws://r:1/a").value(), now, full), b(Url::parse("ws://r:1/b").value(), now, full);
    a.store(1, 0, now - 24h * 30);
    std::uint32_t name = 1;
    const auto store = [&](Duration age) { (run.draw(2) == 0 ? a : b).store(++name, run.draw(1U << 31U), now - age); };
    std::size_t rounds = 0;
    const auto arrive = [&](std::size_t bound) {
      // The op that is never given has the lowest name.
      const auto all = [&](const Node& node) { return node.names.contains(2) && *node.names.rbegin() == name; };
      for (std::size_t n = 0; n < bound; ++n, ++rounds) {
        if (a.names.size() == name && b.names.size() == name - 1 && all(a) && all(b)) return true;
        EXPECT_FALSE(rounds % 2 == 0 ? run.round(a, b) : run.round(b, a));
      }
      return a.names.size() == name && b.names.size() == name - 1;
    };
    // Each side begins every other round. Three of the disc, which bring nothing, and then one of the rings.
    for (int i = 0; i < 50; ++i) store(3h + std::chrono::minutes(run.draw(1'000)));
    EXPECT_TRUE(arrive(2 * ComparisonTurns::kDiscTurns + 1));
    EXPECT_GT(run.of_rings, 0U);
    // From then on the disc has one turn in four.
    for (int i = 0; i < 20; ++i) {
      store(3h);
      EXPECT_TRUE(arrive(3)) << "recent op " << i;
    }
    // Another old op is another difference, which comes first.
    store(24h * 40);
    EXPECT_TRUE(arrive(2 * ComparisonTurns::kDiscTurns));
  }
}

/// C2. A space in which the rings always differ.
TEST(GossipExchange, TheDiscKeepsItsTurnWhereTheRingsAlwaysDiffer) {
  Exchange run(7);
  run.most = 1'000;
  run.loses = false;
  run.never = 1;
  const Timestamp now = Timestamp::from_seconds(1'700'000'000);
  SectorSet full;
  full.add(DhtArc::full());
  Node a(Url::parse("ws://r:1/a").value(), now, full), b(Url::parse("ws://r:1/b").value(), now, full);
  a.store(1, 0, now - 24h * 30);
  for (std::uint32_t name = 2; name < 42; ++name) {
    a.store(name, name << 20U, now - 3h);
    EXPECT_FALSE(run.round(a, b));
  }
  EXPECT_GE(run.of_rings, 25U);
  EXPECT_LE(run.of_rings, 30U);
}

TEST(GossipExchange, OfOneOpThatIsLackingOnlyItsSectorAndSliceAreNamed) {
  Exchange run(1);
  run.most = 1'000'000;
  const Timestamp now = Timestamp::from_seconds(1'700'000'000);
  SectorSet full;
  full.add(DhtArc::full());
  Node a(Url::parse("ws://r:1/a").value(), now, full), b(Url::parse("ws://r:1/b").value(), now, full);
  for (std::uint32_t name = 1; name <= 20'000; ++name) {
    const Timestamp created = now - 24h * 20 - std::chrono::hours(name % 5'000);
    a.store(name, name * 2'654'435'761U, created);
    if (name != 777) b.store(name, name * 2'654'435'761U, created);
  }
  for (int i = 0; i < 20 && !run.round(a, b); ++i) {
  }
  EXPECT_EQ(b.names.size(), 20'000U);
  EXPECT_LT(run.ids, 100U);
}

}  // namespace
}  // namespace kitsune2::model
