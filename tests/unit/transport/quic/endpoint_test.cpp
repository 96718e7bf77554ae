// The connections of QUIC endpoints behind one relay: names, turns, bounds.
#include "transport/quic/endpoint.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "unit/transport/quic/sim_network.hpp"

namespace kitsune2::quic {
namespace {

using namespace std::chrono_literals;
using tests::identity;
using tests::pattern;
using tests::random_of;

std::vector<Bytes> split(const Batch& batch) {
  std::vector<Bytes> out;
  for (std::size_t at = 0; at < batch.content.size(); at += batch.segment_bytes)
    out.push_back(batch.content.slice(at, std::min(batch.segment_bytes, batch.content.size() - at)));
  return out;
}

/// Endpoints that reach each other by key, 5 ms apart.
class Relay {
 public:
  Endpoint& add(std::uint8_t number, const EndpointLimits& limits = {}, const Config& config = {}) {
    auto made = std::make_unique<Endpoint>(identity(number), config, random_of(number), limits);
    Endpoint& out = *made;
    endpoints_.emplace(out.key(), std::move(made));
    return out;
  }
  template <class Done>
  bool run(Duration limit, Done done) {
    const Time until = now + limit;
    while (true) {
      for (auto& [key, endpoint] : endpoints_) {
        while (auto out = endpoint->produce(now)) {
          for (const Bytes& datagram : split(out->batch)) {
            if (!loses || !loses(key)) under_way_.emplace(now + 5ms, Sent{key, out->to, datagram});
          }
        }
      }
      if (done()) return true;
      Time next = until;
      if (!under_way_.empty()) next = std::min(next, under_way_.begin()->first);
      for (auto& [key, endpoint] : endpoints_) next = std::min(next, std::max(now, endpoint->next_deadline()));
      if (next >= until) {
        now = until;
        return done();
      }
      now = next;
      while (!under_way_.empty() && under_way_.begin()->first <= now) {
        const Sent one = under_way_.begin()->second;
        under_way_.erase(under_way_.begin());
        if (const auto to = endpoints_.find(one.to); to != endpoints_.end())
          to->second->receive(one.from, one.datagram, now);
      }
      for (auto& [key, endpoint] : endpoints_) {
        if (endpoint->next_deadline() <= now) endpoint->on_deadline(now);
      }
    }
  }
  void run(Duration limit) {
    run(limit, [] { return false; });
  }

  struct Sent {
    Key from, to;
    Bytes datagram;
  };
  std::function<bool(const Key& from)> loses;  ///< whether a datagram does not arrive
  std::multimap<Time, Sent> under_way_;
  std::map<Key, std::unique_ptr<Endpoint>> endpoints_;
  Time now{1s};
};

/// The ids that are new or changed.
std::vector<Endpoint::Id> changed(Endpoint& endpoint) {
  std::vector<Endpoint::Id> out;
  while (const auto id = endpoint.next_changed()) out.push_back(*id);
  return out;
}

TEST(QuicEndpoint, DialsAndIsDialled) {
  Relay relay;
  Endpoint& a = relay.add(1);
  Endpoint& b = relay.add(2);
  const auto at_a = a.dial(b.key(), relay.now).value();
  ASSERT_TRUE(a.find(at_a)->send(Bytes::copy_of("hello")));
  a.touched(at_a);
  ASSERT_TRUE(relay.run(5s, [&] { return b.size() == 1 && b.find(1)->is_open(); }));
  EXPECT_EQ(changed(b), std::vector<Endpoint::Id>{1});
  EXPECT_EQ(b.peer_of(1), a.key());
  EXPECT_EQ(b.find(1)->peer(), a.key());
  relay.run(1s);
  const auto part = b.find(1)->read();
  ASSERT_TRUE(part);
  EXPECT_EQ(as_text(part->data), "hello");
}

TEST(QuicEndpoint, ADatagramOfAnotherPeerIsDropped) {
  Relay relay;
  Endpoint& a = relay.add(1);
  Endpoint& b = relay.add(2);
  const auto id = a.dial(b.key(), relay.now).value();
  auto first = a.produce(relay.now);
  ASSERT_TRUE(first);
  // Who brings somebody else's first datagram gets a connection on which that one cannot prove its key.
  b.receive(identity(3)->key(), first->batch.content, relay.now);
  EXPECT_EQ(b.size(), 1U);
  b.receive(a.key(), first->batch.content, relay.now);
  EXPECT_EQ(b.size(), 1U) << "the name is taken";
  relay.run(70s);
  EXPECT_TRUE(a.find(id)->closed());
  EXPECT_FALSE(a.find(id)->is_open());
}

TEST(QuicEndpoint, ADiallerMustHaveTheKeyThatTheRelayKnows) {
  Relay relay;
  Endpoint& b = relay.add(2);
  Endpoint other(identity(4), {}, random_of(4));
  const auto id = other.dial(b.key(), relay.now).value();
  const Key claimed = identity(3)->key();
  for (int i = 0; i < 1000; ++i) {
    while (auto out = other.produce(relay.now)) {
      for (const Bytes& datagram : split(out->batch)) b.receive(claimed, datagram, relay.now);
    }
    while (auto out = b.produce(relay.now)) {
      EXPECT_EQ(out->to, claimed);
      for (const Bytes& datagram : split(out->batch)) other.receive(b.key(), datagram, relay.now);
    }
    relay.now += 1ms;
    other.on_deadline(relay.now);
    b.on_deadline(relay.now);
  }
  ASSERT_TRUE(b.find(1) != nullptr && b.find(1)->closed());
  EXPECT_FALSE(b.find(1)->is_open());
  EXPECT_TRUE(other.find(id)->closed());
}

TEST(QuicEndpoint, ADatagramFromAnywhereIsForAConnectionThatListensThere) {
  Relay relay;
  Endpoint& a = relay.add(1);
  Endpoint& b = relay.add(2);
  const auto id = a.dial(b.key(), relay.now).value();
  const auto first = a.produce(relay.now);
  EXPECT_FALSE(b.receive_from_anywhere(first->batch.content, relay.now)) << "it opens none";
  EXPECT_EQ(b.size(), 0U);
  b.receive(a.key(), first->batch.content, relay.now);
  ASSERT_TRUE(relay.run(5s, [&] { return a.find(id)->is_open() && b.find(1)->is_open(); }));
  relay.run(1s);
  while (a.produce(relay.now)) {
  }
  ASSERT_TRUE(a.find(id)->send(ByteChain(Bytes::copy_of("hello"))));
  a.touched(id);
  const auto message = a.produce(relay.now);
  ASSERT_TRUE(message);
  EXPECT_FALSE(b.receive_from_anywhere(message->batch.content, relay.now)) << "it was not asked for";
  EXPECT_FALSE(b.find(1)->read());
  b.listen_anywhere(1);
  EXPECT_EQ(b.receive_from_anywhere(message->batch.content, relay.now), 1U);
  const auto part = b.find(1)->read();
  ASSERT_TRUE(part);
  EXPECT_EQ(part->data.str(), "hello");
  b.release(1, relay.now);
  EXPECT_FALSE(b.receive_from_anywhere(message->batch.content, relay.now));
}

/// `a` has dialled `b`, where the connection is number 1.
struct Dialled {
  /// Afterwards nothing is under way, and nothing is new at `b`.
  bool open() {
    if (!relay.run(5s, [&] { return a.find(id)->is_open() && b.size() == 1 && b.find(1)->is_open(); })) return false;
    relay.run(1s);
    changed(b);
    return true;
  }

  Relay relay;
  Endpoint& a = relay.add(1);
  Endpoint& b = relay.add(2);
  const Endpoint::Id id = a.dial(b.key(), relay.now).value();
};

TEST(QuicEndpoint, DatagramsThatComeTogetherAreReadAsOne) {
  Dialled dialled;
  auto& [relay, a, b, id] = dialled;
  ASSERT_TRUE(dialled.open());
  const Bytes message = pattern(9'000);
  ASSERT_TRUE(a.find(id)->send(message));
  a.touched(id);
  const auto out = a.produce(relay.now);
  ASSERT_TRUE(out);
  ASSERT_GT(out->batch.content.size(), 5 * out->batch.segment_bytes);
  b.receive(a.key(), out->batch.content, out->batch.segment_bytes, relay.now);
  EXPECT_EQ(changed(b), std::vector<Endpoint::Id>{1});
  const auto part = b.find(1)->read();
  ASSERT_TRUE(part);
  EXPECT_EQ(part->data, message);
  EXPECT_FALSE(b.find(1)->read());
}

TEST(QuicEndpoint, WhatCameBeforeTheEndIsReadAfterIt) {
  Dialled dialled;
  auto& [relay, a, b, id] = dialled;
  ASSERT_TRUE(dialled.open());
  ASSERT_TRUE(a.find(id)->send(pattern(200)));
  a.touched(id);
  const auto message = a.produce(relay.now);
  ASSERT_TRUE(message);
  a.find(id)->close(1, "", relay.now);
  a.touched(id);
  const auto end = a.produce(relay.now);
  ASSERT_TRUE(end);
  ASSERT_LE(end->batch.content.size(), message->batch.content.size());
  std::vector<std::uint8_t> both(message->batch.content.begin(), message->batch.content.end());
  both.insert(both.end(), end->batch.content.begin(), end->batch.content.end());
  b.receive(a.key(), both, message->batch.content.size(), relay.now);
  EXPECT_EQ(changed(b), std::vector<Endpoint::Id>{1});
  ASSERT_TRUE(b.find(1)->closed());
  const auto part = b.find(1)->read();
  ASSERT_TRUE(part);
  EXPECT_EQ(part->data, pattern(200));
  EXPECT_FALSE(b.find(1)->read());
}

TEST(QuicEndpoint, LanesDoNotWaitForEachOther) {
  Relay relay;
  Endpoint& a = relay.add(1);
  Endpoint& b = relay.add(2);
  Endpoint& c = relay.add(3);
  const auto to_b = a.dial(b.key(), relay.now).value();
  const auto to_c = a.dial(c.key(), relay.now).value();
  ASSERT_TRUE(relay.run(5s, [&] { return a.find(to_b)->is_open() && a.find(to_c)->is_open(); }));
  relay.run(1s);
  while (a.produce(relay.now)) {
  }
  a.set_lane(to_c, Lane::direct);
  EXPECT_FALSE(a.produce(relay.now, Lane::direct));
  for (const auto id : {to_b, to_c}) {
    ASSERT_TRUE(a.find(id)->send(ByteChain(Bytes::copy_of("hello"))));
    a.touched(id);
  }
  EXPECT_EQ(a.produce(relay.now, Lane::direct)->id, to_c);
  EXPECT_FALSE(a.produce(relay.now, Lane::direct));
  EXPECT_LT(a.next_deadline(Lane::direct), Time::max());
  EXPECT_EQ(a.produce(relay.now)->id, to_b);
  a.set_lane(to_b, Lane::direct);
  EXPECT_EQ(a.next_deadline(Lane::relay), Time::max());
  a.set_lane(to_b, Lane::relay);
  a.set_lane(to_c, Lane::relay);
  EXPECT_EQ(a.next_deadline(Lane::direct), Time::max());
}

TEST(QuicEndpoint, ALaneHasASizeOfDatagramsAndTheOtherOneItsOwn) {
  Relay relay;
  Endpoint& a = relay.add(1);
  Endpoint& b = relay.add(2);
  const auto to_b = a.dial(b.key(), relay.now).value();
  ASSERT_TRUE(relay.run(5s, [&] { return a.find(to_b)->is_open(); }));
  relay.run(1s);
  // Little enough for a first window; nothing is acknowledged.
  const auto size_of_next = [&](Lane lane) {
    EXPECT_TRUE(a.find(to_b)->send(ByteChain(pattern(3000))));
    a.touched(to_b);
    const auto out = a.produce(relay.now, lane);
    while (a.produce(relay.now, lane)) {
    }
    relay.now += 20ms;
    return out ? out->batch.segment_bytes : 0;
  };
  a.set_lane(to_b, Lane::direct, 1252);
  EXPECT_EQ(size_of_next(Lane::direct), 1252U);
  a.set_lane(to_b, Lane::direct, 1392);
  EXPECT_EQ(size_of_next(Lane::direct), 1392U);
  a.set_lane(to_b, Lane::relay);
  EXPECT_EQ(size_of_next(Lane::relay), 1452U);
}

TEST(QuicEndpoint, ALateRepetitionOfTheFirstDatagramOpensNothing) {
  Relay relay;
  Endpoint& a = relay.add(1);
  Endpoint& b = relay.add(2);
  const auto id = a.dial(b.key(), relay.now).value();
  const auto first = a.produce(relay.now);
  b.receive(a.key(), first->batch.content, relay.now);
  ASSERT_TRUE(relay.run(5s, [&] { return a.find(id)->is_open() && b.find(1)->is_open(); }));
  b.release(1, relay.now);
  b.receive(a.key(), first->batch.content, relay.now);
  EXPECT_EQ(b.size(), 1U);
  relay.run(10s);
  EXPECT_EQ(b.size(), 0U) << "released and finished";
  EXPECT_EQ(b.find(1), nullptr);
  ASSERT_TRUE(a.find(id)->closed());
  EXPECT_EQ(a.find(id)->closed()->code, 0U);
}

TEST(QuicEndpoint, HandshakesThatGoNowhereAreBounded) {
  Relay relay;
  EndpointLimits limits;
  limits.max_handshakes = 10;
  limits.max_handshakes_per_peer = 2;
  Endpoint& b = relay.add(2, limits);
  for (std::uint8_t i = 10; i < 40; ++i) {
    Endpoint stranger(identity(i), {}, random_of(i));
    for (int k = 0; k < 3; ++k) ASSERT_TRUE(stranger.dial(b.key(), relay.now));
    while (auto out = stranger.produce(relay.now)) b.receive(stranger.key(), out->batch.content, relay.now);
  }
  std::size_t open = 0;
  for (const auto id : changed(b)) {
    if (!b.find(id)->closed()) ++open;
  }
  EXPECT_EQ(open, 10U);
  EXPECT_EQ(b.size(), 60U) << "two of each; those that were ended are finished soon";
  Endpoint& a = relay.add(1);
  const auto id = a.dial(b.key(), relay.now).value();
  EXPECT_TRUE(relay.run(5s, [&] { return a.find(id)->is_open(); })) << "an honest newcomer gets in";
  for (Endpoint::Id each = 1; each <= 60; ++each) b.release(each, relay.now);
  relay.run(70s);
  EXPECT_EQ(b.size(), 1U);
}

// P8. What only looks like the first datagram of a handshake costs as much as one.
TEST(QuicEndpoint, WhoBeginsAgainAndAgainIsHeardSeldom) {
  Relay relay;
  EndpointLimits limits;
  limits.opening_burst = 5;
  limits.opening_every = 100ms;
  Endpoint& b = relay.add(2, limits);
  const auto rubbish = [&](std::uint8_t number) {
    Endpoint stranger(identity(number), {}, random_of(number), limits);
    for (int i = 0; i < 20; ++i) {
      EXPECT_TRUE(stranger.dial(b.key(), relay.now));
      std::string first = stranger.produce(relay.now)->batch.content.str();
      first.back() = static_cast<char>(first.back() + 1);
      b.receive(stranger.key(), Bytes::copy_of(first), relay.now);
    }
    std::size_t looked_at = 0;
    for (const auto id : changed(b)) {
      EXPECT_TRUE(b.find(id)->closed());
      b.release(id, relay.now);
      ++looked_at;
    }
    return looked_at;
  };
  EXPECT_EQ(rubbish(10), 5U);
  EXPECT_EQ(rubbish(10), 0U);
  relay.now += 200ms;
  EXPECT_EQ(rubbish(10), 2U);
  relay.now += 10s;
  EXPECT_EQ(rubbish(10), 5U) << "not more than that after a long time";
  EXPECT_EQ(rubbish(11), 5U) << "each peer by itself";
  Endpoint& a = relay.add(1);
  const auto id = a.dial(b.key(), relay.now).value();
  EXPECT_TRUE(relay.run(5s, [&] { return a.find(id)->is_open(); }));
}

// P9. Each with a key of its own.
TEST(QuicEndpoint, PeersOfOneAddressTogetherAreHeardSeldomAndOthersAreNotHeldUp) {
  Relay relay;
  EndpointLimits limits;
  limits.group_opening_burst = 5;
  limits.group_opening_every = 100ms;
  Endpoint& b = relay.add(2, limits);
  // Keys from 20 on come from one address, those below from nobody knows where.
  const Key low = identity(10)->key();
  b.group_by([low](const Key& peer) { return peer == low ? std::nullopt : std::optional(Endpoint::Group{7}); });
  const auto is_heard = [&](std::uint8_t number) {
    Endpoint stranger(identity(number), {}, random_of(number));
    EXPECT_TRUE(stranger.dial(b.key(), relay.now));
    const std::size_t before = b.size();
    b.receive(stranger.key(), stranger.produce(relay.now)->batch.content, relay.now);
    return b.size() > before;
  };
  for (std::uint8_t number = 20; number < 25; ++number) EXPECT_TRUE(is_heard(number));
  EXPECT_FALSE(is_heard(25));
  EXPECT_TRUE(is_heard(10)) << "not of that address";
  relay.now += 100ms;
  EXPECT_TRUE(is_heard(25)) << "what was refused did not count";
  EXPECT_FALSE(is_heard(26));
  relay.now += 10s;
  for (std::uint8_t number = 30; number < 35; ++number) EXPECT_TRUE(is_heard(number));
  EXPECT_FALSE(is_heard(35)) << "not more than that after a long time";
}

// P7. Four peers whose datagrams are lost in part, beside one that is sent much and acknowledges it late.
TEST(QuicEndpoint, TheLibrariesOfAllAreBoundedAndWhoNeedsMostEnds) {
  constexpr std::size_t kMost = 600'000;
  Relay relay;
  EndpointLimits limits;
  limits.max_library_bytes = kMost;
  Endpoint& b = relay.add(2, limits);
  Endpoint& honest = relay.add(1);
  const auto id = honest.dial(b.key(), relay.now).value();
  ASSERT_TRUE(relay.run(5s, [&] { return honest.find(id)->is_open() && b.find(1)->is_open(); }));
  std::map<Key, Endpoint::Id> others;
  for (std::uint8_t i = 10; i < 14; ++i) {
    Endpoint& one = relay.add(i);
    others[one.key()] = one.dial(b.key(), relay.now).value();
  }
  const auto all_open = [&] {
    return std::ranges::all_of(
        others, [&](const auto& one) { return relay.endpoints_[one.first]->find(one.second)->is_open(); });
  };
  ASSERT_TRUE(relay.run(5s, all_open));
  for (const auto& [key, one] : others) {
    ASSERT_TRUE(relay.endpoints_[key]->find(one)->send(pattern(2'000'000)));
    relay.endpoints_[key]->touched(one);
  }
  ASSERT_TRUE(b.find(1)->send(pattern(2'000'000)));
  b.touched(1);
  std::size_t count = 0, most = 0;
  relay.loses = [&](const Key& from) { return others.contains(from) && ++count % 3 == 0; };
  const auto ended = [&] {
    most = std::max(most, b.library_bytes());
    for (Connection* reader = honest.find(id); reader->read();) honest.touched(id);
    return std::ranges::count_if(others, [&](const auto& one) {
             return relay.endpoints_[one.first]->find(one.second)->closed().has_value();
           }) >= 1;
  };
  ASSERT_TRUE(relay.run(120s, ended)) << most;
  EXPECT_GT(most, kMost * 9 / 10);
  relay.run(2s, [&] {
    ended();
    return false;
  });
  EXPECT_LE(most, kMost + 50'000) << "what is sent counts with the next datagram that comes";
  EXPECT_FALSE(b.find(1)->closed()) << "it needs memory for what was sent to it";
  for (Endpoint::Id each = 1; each <= 5; ++each) b.release(each, relay.now);
  EXPECT_EQ(b.library_bytes(), 0U) << "after the end nothing is kept";
}

TEST(QuicEndpoint, AFullEndpointTakesAndDialsNobody) {
  Relay relay;
  EndpointLimits limits;
  limits.max_connections = 1;
  Endpoint& a = relay.add(1);
  Endpoint& b = relay.add(2, limits);
  Endpoint& c = relay.add(3);
  ASSERT_TRUE(a.dial(b.key(), relay.now));
  relay.run(1s);
  ASSERT_TRUE(c.dial(b.key(), relay.now));
  relay.run(1s);
  EXPECT_EQ(b.size(), 1U);
  EXPECT_EQ(b.dial(c.key(), relay.now).error().code, Errc::overloaded);
}

TEST(QuicEndpoint, APeerThatDoesNotReadHoldsUpNobody) {
  Relay relay;
  Endpoint& a = relay.add(1);
  Endpoint& slow = relay.add(2);
  Endpoint& quick = relay.add(3);
  const auto to_slow = a.dial(slow.key(), relay.now).value();
  const auto to_quick = a.dial(quick.key(), relay.now).value();
  const Bytes large = pattern(20'000'000);
  ASSERT_TRUE(a.find(to_slow)->send(large));
  ASSERT_TRUE(a.find(to_quick)->send(large));
  a.touched(to_slow);
  a.touched(to_quick);
  std::size_t got = 0;
  ASSERT_TRUE(relay.run(60s, [&] {
    for (const auto id : changed(quick)) {
      while (const auto part = quick.find(id)->read()) {
        EXPECT_TRUE(std::equal(part->data.begin(), part->data.end(), large.begin() + static_cast<std::ptrdiff_t>(got)));
        got += part->data.size();
      }
      quick.touched(id);
    }
    return got == large.size();
  })) << got;
  EXPECT_LT(relay.now, Time(20s));
  EXPECT_GE(a.find(to_slow)->queued_bytes(), large.size() - (5U << 20));
}

/// Endpoint `a` may send to two others.
struct QuicEndpointTurns : ::testing::Test {
  void SetUp() override {
    ASSERT_TRUE(relay.run(5s, [&] { return a.find(to_b)->is_open() && a.find(to_c)->is_open(); }));
    relay.run(1s);
  }
  void send_much(Endpoint::Id id) {
    ASSERT_TRUE(a.find(id)->send(pattern(100'000)));
    a.touched(id);
  }
  /// Whose turn it is, batch by batch, until nothing more can be sent.
  std::vector<Endpoint::Id> turns() {
    std::vector<Endpoint::Id> out;
    while (auto sent = a.produce(relay.now)) {
      EXPECT_EQ(sent->to, sent->id == to_b ? b.key() : c.key());
      if (sent->batch.content.size() > 1000) out.push_back(sent->id);
    }
    return out;
  }

  Relay relay;
  Endpoint &a = relay.add(1), &b = relay.add(2), &c = relay.add(3);
  const Endpoint::Id to_b = a.dial(b.key(), relay.now).value(), to_c = a.dial(c.key(), relay.now).value();
};

TEST_F(QuicEndpointTurns, TwoThatSendMuchTakeTurns) {
  send_much(to_b);
  send_much(to_c);
  const auto order = turns();
  ASSERT_GE(order.size(), 2U);
  EXPECT_NE(order[0], order[1]);
}

TEST_F(QuicEndpointTurns, WhoChangesItsLaneOftenGetsNoMoreOfThem) {
  send_much(to_b);
  for (int i = 0; i < 100; ++i) a.set_lane(to_b, i % 2 == 0 ? Lane::direct : Lane::relay);
  send_much(to_c);
  const auto order = turns();
  ASSERT_GE(order.size(), 2U);
  EXPECT_NE(order[0], order[1]);
  EXPECT_FALSE(a.produce(relay.now, Lane::direct));
  // What it has left is sent in the lane that it goes to.
  a.find(to_b)->send(pattern(100)).value();
  a.touched(to_b);
  a.set_lane(to_b, Lane::direct);
  EXPECT_FALSE(a.produce(relay.now));
  ASSERT_TRUE(relay.run(5s, [&] {
    while (auto out = a.produce(relay.now, Lane::direct)) {
      for (const Bytes& datagram : split(out->batch)) b.receive(a.key(), datagram, relay.now);
    }
    return a.find(to_b)->queued_bytes() == 0;
  }));
}

}  // namespace
}  // namespace kitsune2::quic
