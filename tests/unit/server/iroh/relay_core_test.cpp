// The rules of the relay of dialect 0.5, one by one, and against the twin.
#include "server/iroh/relay_core.hpp"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <vector>

#include "model/iroh_relay_twin.hpp"
#include "transport/iroh/endpoint_key.hpp"

namespace kitsune2::server {
namespace {

using iroh::Datagrams;
using iroh::EndpointGone;
using iroh::EndpointKey;
using iroh::Health;
using iroh::Ping;
using iroh::Pong;
using iroh::RelayFrame;
using iroh::RelayVersion;
using iroh::Sender;
using iroh::ServerChallenge;
using iroh::ServerConfirmsAuth;
using iroh::ServerDeniesAuth;
using iroh::Status;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Core = IrohRelayCore;
using Verdict = Core::Verdict;
using Right = Core::Right;

EndpointKey::Seed seed_of(std::uint8_t byte) {
  EndpointKey::Seed out;
  out.fill(byte);
  return out;
}

const EndpointKey kA(seed_of(1)), kB(seed_of(2)), kC(seed_of(3));

Core::Ip address(std::uint8_t last) {
  Core::Ip out{};
  out[10] = out[11] = 0xff;
  out[12] = 10;
  out[15] = last;
  return out;
}

/// A relay in virtual time, what it said to whom, and sockets that take everything unless they are told not to.
struct World {
  explicit World(const IrohRelayLimits& limits = {}, Core::IsListed listed = {})
      : core(
            limits, listed ? std::move(listed) : [](const Core::Id&, Right) { return false; }) {}

  Time now{seconds(1000)};
  Core core;
  std::map<Core::ConnId, RelayVersion> versions;
  std::map<Core::ConnId, std::vector<RelayFrame>> said;
  std::map<Core::ConnId, IrohReject> closed;
  std::vector<Core::ConnId> resumed;
  Core::ConnId next = 1;

  void take() {
    std::vector<Core::Action> actions;
    core.take_actions(actions);
    for (const auto& action : actions) {
      EXPECT_FALSE(closed.contains(action.conn)) << "an action after the close";
      if (action.kind == Core::Action::Kind::send) {
        const auto frame = decode_relay_frame(versions[action.conn], Sender::relay, action.message);
        ASSERT_TRUE(frame.has_value()) << frame.error().to_string();
        said[action.conn].push_back(*frame);
      } else if (action.kind == Core::Action::Kind::close) {
        closed[action.conn] = action.reason;
      } else {
        resumed.push_back(action.conn);
      }
    }
    core.check_invariants();
  }

  Core::ConnId open(std::uint8_t from = 1, RelayVersion version = RelayVersion::v2, Right right = Right::granted) {
    const auto id = next++;
    versions[id] = version;
    Core::Opening opening;
    opening.ip = from == 0 ? Core::kThisProcess : address(from);
    opening.version = version;
    opening.right = right;
    opening.challenge.fill(static_cast<std::uint8_t>(id));
    opening.random = id;
    EXPECT_EQ(core.on_open(id, opening, now), std::nullopt);
    take();
    return id;
  }
  Core::Routed message(Core::ConnId from, const Bytes& bytes) {
    const auto out =
        core.on_message(from, bytes.view().first(std::min(bytes.size(), Core::kHeadBytes)), bytes.size(), now);
    take();
    return out;
  }
  Core::Routed message(Core::ConnId from, const RelayFrame& frame) {
    return message(from, encode_relay_frame(Sender::client, frame));
  }
  Core::Routed prove(Core::ConnId conn, const EndpointKey& key) {
    const auto* challenge = std::get_if<ServerChallenge>(&said[conn].front());
    EXPECT_NE(challenge, nullptr);
    return message(conn, iroh::ClientAuth{key.id(), key.sign(iroh::to_be_signed(*challenge))});
  }
  /// Connected, and its socket is empty.
  Core::ConnId join(const EndpointKey& key, std::uint8_t from = 1, RelayVersion version = RelayVersion::v2) {
    const auto id = open(from, version);
    EXPECT_TRUE(prove(id, key).joined);
    empty(id);
    said[id].clear();
    return id;
  }
  void empty(Core::ConnId conn, std::size_t left = 0) {
    core.on_queue(conn, left, now);
    take();
  }
  void empty_all() {
    for (Core::ConnId id = 1; id < next; ++id) empty(id);
  }
  Core::Routed send(Core::ConnId from, const EndpointKey& to, std::size_t size = 1000, std::uint16_t segment = 0) {
    return message(from, Datagrams{to.id(), 0, segment, Bytes(std::vector<std::uint8_t>(size, 7))});
  }
  /// Until `end`, sockets take what they are sent at once.
  void pass(Duration duration) {
    const Time end = now + duration;
    empty_all();
    while (core.next_deadline() && *core.next_deadline() <= end) {
      now = std::max(now, *core.next_deadline());
      core.poll(now);
      take();
      empty_all();
    }
    now = end;
  }
  template <class Frame>
  std::size_t count(Core::ConnId conn) {
    std::size_t out = 0;
    for (const RelayFrame& frame : said[conn]) out += std::holds_alternative<Frame>(frame) ? 1U : 0U;
    return out;
  }
};

TEST(IrohRelayCore, AChallengeIsAnsweredByASignatureAndNothingPassesBefore) {
  World w;
  const auto a = w.join(kA);
  const auto b = w.open();
  EXPECT_EQ(w.send(a, kB).verdict, Verdict::taken);
  EXPECT_EQ(w.core.counters().dropped_absent.get(), 1U);
  EXPECT_TRUE(w.prove(b, kB).joined);
  EXPECT_EQ(w.count<ServerConfirmsAuth>(b), 1U);
  const auto routed = w.send(a, kB);
  EXPECT_EQ(routed.verdict, Verdict::forward);
  EXPECT_EQ(routed.to, b);
  // 6, the sender's key, ECN; the content follows.
  EXPECT_EQ(routed.head[0], 6);
  EXPECT_TRUE(std::equal(kA.id().begin(), kA.id().end(), routed.head.begin() + 1));
  EXPECT_EQ(routed.head_size, 34U);
  EXPECT_EQ(routed.replaces, 34U);
}

TEST(IrohRelayCore, AWrongSignatureIsToldAndClosed) {
  World w;
  const auto a = w.open();
  const auto before = w.said[a];
  EXPECT_EQ(w.message(a, iroh::ClientAuth{kA.id(), kA.sign(as_bytes("something else"))}).verdict, Verdict::closed);
  EXPECT_EQ(w.said[a].back(), RelayFrame(ServerDeniesAuth{"signature invalid"}));
  EXPECT_EQ(w.closed[a], IrohReject::bad_signature);
  EXPECT_EQ(w.core.active(kA.id()), std::nullopt);
}

TEST(IrohRelayCore, AFrameOtherThanTheProofClosesWithoutAWord) {
  World w;
  for (const RelayFrame& frame : {RelayFrame(Ping{}), RelayFrame(Datagrams{kA.id(), 0, 0, Bytes::copy_of("x")})}) {
    const auto a = w.open();
    EXPECT_EQ(w.message(a, frame).verdict, Verdict::closed);
    EXPECT_EQ(w.said[a].size(), 1U);
    EXPECT_EQ(w.closed[a], IrohReject::malformed);
  }
}

TEST(IrohRelayCore, AClientWithoutAProofInTimeIsClosed) {
  World w;
  const auto a = w.open();
  w.pass(Core::kHandshakeLimit - milliseconds(1));
  EXPECT_FALSE(w.closed.contains(a));
  w.pass(milliseconds(1));
  EXPECT_EQ(w.closed[a], IrohReject::handshake_timeout);
}

// R15.
TEST(IrohRelayCore, OnlyTheNodeOfThisProcessIsToldWherePeersAre) {
  World w;
  const auto node = w.join(kA, 0), peer = w.join(kB, 7), other = w.join(kC, 8);
  w.send(peer, kA);
  w.send(peer, kA);
  w.send(peer, kC);
  ASSERT_EQ(w.said[node].size(), 1U) << "once";
  EXPECT_EQ(std::get<iroh::PeerAddress>(w.said[node].front()), (iroh::PeerAddress{kB.id(), address(7)}));
  EXPECT_TRUE(w.said[other].empty());
  w.send(node, kA);
  EXPECT_EQ(w.said[node].size(), 1U) << "the node itself has no address";
  // Its next connection does not know it yet.
  const auto again = w.join(kA, 0);
  w.send(peer, kA);
  ASSERT_EQ(w.said[again].size(), 1U);
}

TEST(IrohRelayCore, AKeyProvenByTlsNeedsNoChallenge) {
  World w;
  Core::Opening opening;
  opening.ip = address(1);
  opening.proven = kA.id();
  w.versions[9] = opening.version;
  ASSERT_EQ(w.core.on_open(9, opening, w.now), std::nullopt);
  w.take();
  EXPECT_EQ(w.said[9].size(), 1U);
  EXPECT_EQ(w.count<ServerConfirmsAuth>(9), 1U);
  EXPECT_EQ(w.core.active(kA.id()), 9U);
}

TEST(IrohRelayCore, WithoutARightAClientIsDeniedAfterItsProof) {
  World w({}, [](const Core::Id& id, Right by) { return id == (by == Right::if_listed ? kB : kC).id(); });
  const auto none = w.open(1, RelayVersion::v2, Right::none);
  EXPECT_EQ(w.prove(none, kB).verdict, Verdict::closed);
  EXPECT_EQ(w.said[none].back(), RelayFrame(ServerDeniesAuth{"not authorized"}));
  EXPECT_EQ(w.closed[none], IrohReject::not_authorized);
  const auto unlisted = w.open(1, RelayVersion::v2, Right::if_listed);
  EXPECT_EQ(w.prove(unlisted, kA).verdict, Verdict::closed);
  const auto listed = w.open(1, RelayVersion::v2, Right::if_listed);
  EXPECT_TRUE(w.prove(listed, kB).joined);
  const auto unregistered = w.open(1, RelayVersion::v1, Right::if_registered);
  EXPECT_EQ(w.prove(unregistered, kB).verdict, Verdict::closed);
  const auto registered = w.open(1, RelayVersion::v1, Right::if_registered);
  EXPECT_TRUE(w.prove(registered, kC).joined);
}

TEST(IrohRelayCore, TheNewestConnectionOfAnEndpointIsActiveAndTheOlderOneIsTold) {
  World w;
  const auto first = w.join(kA);
  const auto second = w.join(kA, 2, RelayVersion::v1);
  const auto b = w.join(kB);
  EXPECT_EQ(w.said[first].back(), RelayFrame(Status{Status::kSameIdElsewhere}));
  EXPECT_EQ(w.send(b, kA).to, second);
  EXPECT_EQ(w.send(first, kB).verdict, Verdict::forward) << "the older one may send";
  const auto third = w.join(kA, 3);
  EXPECT_EQ(w.said[second].back(), RelayFrame(Health{std::string(Core::kSecondConnection)}));
  w.core.on_close(third, w.now);
  w.take();
  EXPECT_EQ(w.said[second].back(), RelayFrame(Health{""}));
  EXPECT_EQ(w.send(b, kA).to, second);
  w.core.on_close(second, w.now);
  w.take();
  EXPECT_EQ(w.said[first].back(), RelayFrame(Status{Status::kHealthy}));
  EXPECT_EQ(w.send(b, kA).to, first);
}

TEST(IrohRelayCore, TooManyConnectionsOfAnEndpointCloseTheOldest) {
  World w;
  std::vector<Core::ConnId> all;
  for (std::size_t i = 0; i <= Core::kDuplicates; ++i) all.push_back(w.join(kA));
  EXPECT_EQ(w.closed.size(), 1U);
  EXPECT_EQ(w.closed[all.front()], IrohReject::duplicates);
  EXPECT_EQ(w.core.active(kA.id()), all.back());
}

TEST(IrohRelayCore, BatchesKeepTheirSegmentSizeAndEcnIsCut) {
  World w;
  const auto a = w.join(kA);
  w.join(kB);
  const auto batch = w.message(a, Datagrams{kB.id(), 2, 1200, Bytes(std::vector<std::uint8_t>(5000, 1))});
  EXPECT_EQ(batch.head[0], 7);
  EXPECT_EQ(batch.head[33], 2);
  EXPECT_EQ(batch.head[34] << 8 | batch.head[35], 1200);
  EXPECT_EQ(batch.head_size, 36U);
  // A batch whose segments have no size is one datagram.
  std::vector<std::uint8_t> odd{5};
  odd.insert(odd.end(), kB.id().begin(), kB.id().end());
  odd.insert(odd.end(), {0xfe, 0, 0, 'x'});
  const auto one = w.message(a, Bytes(std::move(odd)));
  EXPECT_EQ(one.head[0], 6);
  EXPECT_EQ(one.head[33], 2);
  EXPECT_EQ(one.head_size, 34U);
  EXPECT_EQ(one.replaces, 36U);
}

TEST(IrohRelayCore, EmptyAndLargestFramesNeverReachTheReceiver) {
  World w;
  const auto a = w.join(kA);
  w.join(kB);
  const auto raw = [&](std::uint8_t type, std::size_t body) {
    std::vector<std::uint8_t> bytes{type};
    bytes.insert(bytes.end(), kB.id().begin(), kB.id().end());
    bytes.resize(1 + body, 1);
    return w.message(a, Bytes(std::move(bytes))).verdict;
  };
  EXPECT_EQ(raw(4, 33), Verdict::taken);
  EXPECT_EQ(raw(5, 35), Verdict::taken);
  EXPECT_EQ(raw(4, 65'536), Verdict::taken);
  EXPECT_EQ(raw(5, 65'536), Verdict::taken);
  EXPECT_EQ(w.core.counters().dropped_unwritable.get(), 4U);
  EXPECT_EQ(raw(4, 65'535), Verdict::forward);
  EXPECT_EQ(raw(4, 65'537), Verdict::closed);
  EXPECT_EQ(w.closed[a], IrohReject::malformed);
  const auto again = w.join(kA);
  std::vector<std::uint8_t> cut{4};
  cut.resize(33);
  EXPECT_EQ(w.message(again, Bytes(std::move(cut))).verdict, Verdict::closed);
}

TEST(IrohRelayCore, AFullQueueDropsWhatComesAndKeepsTheOrderOfTheRest) {
  IrohRelayLimits limits;
  limits.queue_frames = 3;
  World w(limits);
  const auto a = w.join(kA);
  const auto b = w.join(kB);
  std::size_t forwarded = 0;
  while (w.send(a, kB, 60'000).verdict == Verdict::forward) ++forwarded;
  EXPECT_EQ(forwarded, Core::kSocketBytes / 60'038);
  for (std::uint8_t i = 0; i < 3; ++i) {
    if (i > 0) {
      EXPECT_EQ(w.send(a, kB, 60'000).verdict, Verdict::keep);
    }
    w.core.keep(
        a, b, encode_relay_frame(Sender::relay, Datagrams{kA.id(), 0, 0, Bytes(std::vector<std::uint8_t>(60'000, i))}));
  }
  EXPECT_EQ(w.send(a, kB, 60'000).verdict, Verdict::taken);
  EXPECT_EQ(w.send(a, kB, 10).verdict, Verdict::taken);
  EXPECT_EQ(w.core.counters().dropped_full.get(), 2U);
  w.empty(b);
  w.empty(b);
  ASSERT_EQ(w.count<Datagrams>(b), 3U);
  for (std::uint8_t i = 0; i < 3; ++i) EXPECT_EQ(std::get<Datagrams>(w.said[b][i]).content[0], i);
  w.empty(b);
  EXPECT_EQ(w.core.counters().queued_bytes.get(), 0U);
  EXPECT_EQ(w.send(a, kB).verdict, Verdict::forward);
}

/// A frame of a datagram as the relay sends it, `size` bytes long.
Bytes frame_from(const EndpointKey& key, std::size_t size, std::uint8_t mark) {
  const std::size_t head = 34;
  return encode_relay_frame(Sender::relay,
                            Datagrams{key.id(), 0, 0, Bytes(std::vector<std::uint8_t>(size - head, mark))});
}

TEST(FairQueue, AFloodDoesNotDelayTheFrameOfAnotherSender) {
  FairQueue queue;
  const FairQueue::Ip here{1}, there{2};
  for (std::uint8_t i = 0; i < 200; ++i) queue.add(here, kA.id(), frame_from(kA, 1000, i));
  queue.add(there, kB.id(), frame_from(kB, 1000, 1));
  queue.add(here, kC.id(), frame_from(kC, 1000, 1));
  std::map<std::uint8_t, std::size_t> place;
  std::size_t next_of_a = 0;
  for (std::size_t i = 1; !queue.empty(); ++i) {
    queue.check_invariants();
    const Bytes frame = queue.take();
    if (frame[1] == kA.id()[0]) {
      EXPECT_EQ(frame[34], next_of_a++) << "in order";
    } else {
      place[frame[1]] = i;
    }
  }
  // A turn has 16 KiB, that is ten of these frames with what a datagram costs.
  EXPECT_LE(place[kB.id()[0]], 12U);
  EXPECT_LE(place[kC.id()[0]], 24U);
  EXPECT_EQ(queue.bytes(), 0U);
}

TEST(FairQueue, SmallDatagramsAreNoCheaperThanTheyAre) {
  const auto batch = [](std::uint16_t segment) {
    return encode_relay_frame(Sender::relay,
                              Datagrams{kA.id(), 0, segment, Bytes(std::vector<std::uint8_t>(14'520, 1))});
  };
  EXPECT_EQ(FairQueue::cost_of(batch(1452)), 36 + 14'520 + 10 * FairQueue::kDatagramCost);
  EXPECT_EQ(FairQueue::cost_of(batch(1451)), 36 + 14'520 + 11 * FairQueue::kDatagramCost);
  EXPECT_EQ(FairQueue::cost_of(batch(1)), FairQueue::kMostCost);
  EXPECT_EQ(FairQueue::cost_of(frame_from(kA, 1000, 1)), 1000 + FairQueue::kDatagramCost);
}

TEST(FairQueue, HoweverManySendSomethingIsLeftForOthers) {
  constexpr std::size_t kFrames = 512, kBytes = 4U << 20;
  FairQueue queue;
  const auto fill = [&](const FairQueue::Ip& address, std::uint8_t key) {
    FairQueue::Id id{};
    id[0] = key;
    std::size_t count = 0;
    for (; queue.may_add(address, id, 104, kFrames, kBytes); ++count) queue.add(address, id, frame_from(kA, 100, 1));
    return count;
  };
  EXPECT_EQ(fill({1}, 1), 288U) << "three quarters of three quarters";
  for (std::uint8_t key = 2; key < 200; ++key) fill({1}, key);
  EXPECT_EQ(queue.frames(), 384U) << "one address has three quarters, with however many keys";
  for (std::uint8_t address = 2; address < 40; ++address) fill({address}, 1);
  EXPECT_LE(queue.frames(), kFrames);
  queue.check_invariants();
}

TEST(IrohRelayCore, AFloodOfSendersCostsOnlyThemselvesFrames) {
  World w;
  const auto to = w.join(kB);
  const auto honest = w.join(kA, 7);
  const auto greedy = w.join(kC, 8);
  const auto frame =
      encode_relay_frame(Sender::relay, Datagrams{kC.id(), 0, 0, Bytes(std::vector<std::uint8_t>(1000, 1))});
  const auto send = [&](Core::ConnId from) {
    const auto verdict = w.send(from, kB, 1000).verdict;
    if (verdict == Verdict::keep) w.core.keep(from, to, frame);
    return verdict;
  };
  while (send(greedy) != Verdict::taken) continue;
  EXPECT_GT(w.core.counters().dropped_full.get(), 0U);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(send(honest), Verdict::keep) << i;
  w.core.check_invariants();
}

TEST(IrohRelayCore, PongsGoPastWhatWaits) {
  World w;
  const auto a = w.join(kA);
  const auto b = w.join(kB);
  while (w.send(a, kB, 60'000).verdict == Verdict::forward) {
  }
  w.message(b, Ping{{1, 2, 3}});
  EXPECT_EQ(w.said[b].back(), RelayFrame(Pong{{1, 2, 3}}));
}

TEST(IrohRelayCore, PongsForClientsThatReadNothingLeaveRoomForOthers) {
  IrohRelayLimits limits;
  limits.all_queue_bytes = 128U << 10;
  World w(limits);
  const auto a = w.join(kA, 9);
  for (const EndpointKey* key : {&kB, &kC}) {
    const auto deaf = w.join(*key, 1);
    for (int i = 0; i < 8'000; ++i) w.message(deaf, Ping{{1, 2, 3}});
    EXPECT_FALSE(w.core.on_ws_ping(deaf, 125, w.now)) << "the pongs of the WebSocket are no way round it";
  }
  EXPECT_TRUE(w.closed.empty());
  EXPECT_EQ(w.core.counters().got_ping.get(), 16'000U);
  EXPECT_GT(w.core.counters().sent_pong.get(), 2'000U);
  EXPECT_LE(w.core.counters().queued_bytes.get(), limits.all_queue_bytes / 4 + 100);
  const EndpointKey honest(seed_of(4)), neighbour(seed_of(5));
  const auto b = w.join(honest, 2);
  EXPECT_EQ(w.send(a, honest, 20'000).verdict, Verdict::forward);
  w.empty(b);
  // At the address that has its quarter, too, who reads is let in and gets its pongs.
  const auto c = w.join(neighbour, 1);
  for (int i = 0; i < 3; ++i) {
    w.message(c, Ping{{4}});
    w.empty(c);
  }
  EXPECT_EQ(w.count<Pong>(c), 3U);
  EXPECT_TRUE(w.core.on_ws_ping(c, 125, w.now));
}

TEST(IrohRelayCore, NoticesForAClientThatReadsNothingHaveTheSameBound) {
  IrohRelayLimits limits;
  limits.all_queue_bytes = 16U << 10;
  World w(limits);
  const auto deaf = w.join(kA, 1, RelayVersion::v1);
  for (int i = 0; i < 400; ++i) {
    const auto other = w.join(kA, 2);
    w.core.on_close(other, w.now);
    const auto c = w.join(kC, 3);
    w.send(c, kA, 1);
    w.core.on_close(c, w.now);
    w.take();
  }
  EXPECT_FALSE(w.closed.contains(deaf));
  EXPECT_GT(w.count<Health>(deaf), 10U);
  EXPECT_LT(w.count<EndpointGone>(deaf), 400U);
  EXPECT_LE(w.core.counters().queued_bytes.get(), limits.all_queue_bytes / 4);
}

TEST(IrohRelayCore, ClientsOfOneAddressHoldAQuarterAndSomethingIsLeftForOthers) {
  IrohRelayLimits limits;
  limits.all_queue_bytes = 4U << 20;
  World w(limits);
  const auto sender = w.join(kC, 9);
  std::vector<std::unique_ptr<EndpointKey>> deaf;
  const Bytes frame(std::vector<std::uint8_t>(60'034, 1));
  for (std::uint8_t i = 0; i < 40; ++i) {
    deaf.push_back(std::make_unique<EndpointKey>(seed_of(static_cast<std::uint8_t>(100 + i))));
    const auto id = w.join(*deaf.back(), 1);
    for (int k = 0; k < 4; ++k) {
      if (w.send(sender, *deaf.back(), 60'000).verdict == Verdict::keep) w.core.keep(sender, id, frame);
    }
  }
  EXPECT_LE(w.core.counters().queued_bytes.get(), limits.all_queue_bytes / 4);
  EXPECT_GE(w.core.counters().queued_bytes.get(), limits.all_queue_bytes / 4 - 65'536);
  w.join(kB, 2);
  EXPECT_EQ(w.send(sender, kB, 60'000).verdict, Verdict::forward);
}

TEST(IrohRelayCore, TheNodeOfThisProcessMayHoldMore) {
  IrohRelayLimits limits;
  limits.all_queue_bytes = 512U << 10;
  World w(limits);
  const auto a = w.join(kA);
  const auto node = w.join(kB, 0);
  EXPECT_EQ(w.send(a, kB, 60'000).verdict, Verdict::forward);
  EXPECT_EQ(w.send(a, kB, 60'000).verdict, Verdict::forward);
  const Bytes frame(std::vector<std::uint8_t>(60'034, 1));
  for (int i = 0; i < 20 && w.send(a, kB, 60'000).verdict == Verdict::keep; ++i) w.core.keep(a, node, frame);
  EXPECT_GT(w.core.counters().queued_bytes.get(), limits.all_queue_bytes - 65'536);
  EXPECT_LE(w.core.counters().queued_bytes.get(), limits.all_queue_bytes) << "but not more than there is for all";
}

TEST(IrohRelayCore, AReceiverThatTakesNothingIsClosedAndOneThatTakesALittleIsNot) {
  World w;
  const auto a = w.join(kA);
  const auto deaf = w.join(kB);
  const auto slow = w.join(kC);
  w.send(a, kB, 60'000);
  w.send(a, kC, 60'000);
  for (int i = 1; i <= 10; ++i) {
    w.now += milliseconds(500);
    w.core.poll(w.now);
    w.take();
    w.empty(slow, static_cast<std::size_t>(60'000 - 1000 * i));
    EXPECT_EQ(w.closed.contains(deaf), i >= 4) << i;
  }
  EXPECT_EQ(w.closed[deaf], IrohReject::slow_receiver);
  EXPECT_EQ(w.closed.size(), 1U);
}

TEST(IrohRelayCore, ASilentClientIsPingedAndMustAnswer) {
  World w;
  const auto a = w.join(kA);
  w.pass(Core::kPingInterval - milliseconds(1));
  EXPECT_EQ(w.count<Ping>(a), 0U);
  const Time first = w.now + Core::kPingJitter + milliseconds(1);
  while (w.count<Ping>(a) == 0 && w.now < first) w.pass(milliseconds(1));
  ASSERT_EQ(w.count<Ping>(a), 1U);
  const auto ping = std::get<Ping>(w.said[a].back());
  w.now += milliseconds(10);
  w.message(a, Pong{ping.payload});
  w.said[a].clear();
  while (w.count<Ping>(a) == 0) w.pass(milliseconds(1));
  EXPECT_NE(std::get<Ping>(w.said[a].back()).payload, ping.payload);
  // A round trip is known now, so it has half a second.
  w.pass(Core::kLeastPongWait - milliseconds(2));
  EXPECT_FALSE(w.closed.contains(a));
  w.pass(milliseconds(2));
  EXPECT_EQ(w.closed[a], IrohReject::no_pong);
}

TEST(IrohRelayCore, TheFirstPongMayTakeFiveSecondsAndAWrongOneCountsNothing) {
  World w;
  const auto a = w.join(kA);
  while (w.count<Ping>(a) == 0) w.pass(milliseconds(100));
  w.message(a, Pong{{9, 9, 9}});
  w.pass(Core::kMostPongWait - milliseconds(200));
  EXPECT_FALSE(w.closed.contains(a));
  w.pass(milliseconds(300));
  EXPECT_EQ(w.closed[a], IrohReject::no_pong);
}

TEST(IrohRelayCore, ARelayThatStoodStillJudgesNobody) {
  World w;
  const auto a = w.join(kA);
  const auto silent = w.open();
  w.empty(silent);
  const auto b = w.join(kB);
  w.send(a, kB, 60'000);
  w.now += seconds(60);  // asleep
  w.core.poll(w.now);
  w.take();
  EXPECT_TRUE(w.closed.empty());
  w.empty(a);
  w.now += seconds(2);
  w.core.poll(w.now);
  w.take();
  EXPECT_EQ(w.closed.size(), 1U);
  EXPECT_EQ(w.closed[b], IrohReject::slow_receiver);
  w.pass(seconds(10));
  EXPECT_EQ(w.closed[silent], IrohReject::handshake_timeout);
}

TEST(IrohRelayCore, AClientOverItsRateIsReadLaterAndLosesNothing) {
  IrohRelayLimits limits;
  limits.client_bytes_per_second = 10'000;
  World w(limits);
  const auto a = w.join(kA);
  const auto b = w.join(kB);
  w.pass(seconds(1));
  std::size_t passed = 0;
  const Time start = w.now;
  while (w.now - start < seconds(10)) {
    if (w.send(a, kB, 966).verdict == Verdict::hold) {
      w.resumed.clear();
      while (w.resumed.empty()) w.pass(milliseconds(1));
      EXPECT_EQ(w.resumed.front(), a);
    } else {
      ++passed;
      w.empty(b);
    }
  }
  EXPECT_GE(passed, 100U);  // 10 s of frames of 1,000 bytes
  EXPECT_LE(passed, 102U);
  EXPECT_GE(w.core.counters().waits.get(), 95U);
  EXPECT_EQ(w.core.counters().waited.get(), 1U);
  EXPECT_TRUE(w.closed.empty());
}

/// The reference refuses rates below 10 bytes a second, whose share of its window of 100 ms is nothing.
TEST(IrohRelayCore, ClientsOfVeryLowRatesAreReadInTheEnd) {
  for (const std::uint32_t rate : {1U, 9U, 10U, 100U}) {
    IrohRelayLimits limits;
    limits.client_bytes_per_second = rate;
    World w(limits);
    const auto a = w.join(kA);
    std::size_t passed = 0;
    const Time start = w.now;
    while (w.now - start < seconds(1000)) {
      w.resumed.clear();
      if (w.send(a, kB, 66).verdict != Verdict::hold) {
        ++passed;
        continue;
      }
      while (w.resumed.empty()) w.pass(milliseconds(100));
    }
    EXPECT_GE(passed, rate * 900 / 100) << rate;  // messages of 100 bytes, after the handshake
    EXPECT_LE(passed, rate * 1000 / 100 + 1) << rate;
    EXPECT_TRUE(w.closed.empty()) << "a client that is not read from is not taken for silent";
  }
}

TEST(IrohRelayCore, TheClientsOfAnAddressShareItsRateInTurns) {
  IrohRelayLimits limits;
  limits.ip_bytes_per_second = 100'000;
  limits.ip_burst_bytes = 1000;
  World w(limits);
  std::vector<Core::ConnId> clients;
  std::map<Core::ConnId, std::size_t> passed;
  std::vector<std::unique_ptr<EndpointKey>> keys;
  for (std::uint8_t i = 0; i < 5; ++i) {
    keys.push_back(std::make_unique<EndpointKey>(seed_of(static_cast<std::uint8_t>(50 + i))));
    clients.push_back(w.join(*keys.back(), 1));
  }
  const auto far = w.join(kB, 2);
  w.pass(seconds(1));
  for (int i = 0; i < 1000; ++i) {
    for (const auto client : clients) {
      if (w.send(client, kC, 966).verdict != Verdict::hold) ++passed[client];
    }
    EXPECT_NE(w.send(far, kC, 90).verdict, Verdict::hold) << "another address pays for itself";
    w.pass(milliseconds(10));
  }
  for (const auto client : clients) {
    EXPECT_GE(passed[client], 190U);
    EXPECT_LE(passed[client], 210U);
  }
}

TEST(IrohRelayCore, ATurnIsWorthAWakeUpAndIsNoLongerThanThat) {
  IrohRelayLimits limits;
  limits.ip_bytes_per_second = 10'000'000;
  limits.ip_burst_bytes = 1000;
  World w(limits);
  const auto a = w.join(kA, 1);
  const auto b = w.join(kB, 2);
  w.pass(seconds(1));
  const Time start = w.now;
  std::size_t passed = 0, turns = 0, in_turn = 0, most = 0;
  while (w.now - start < seconds(1)) {
    const auto routed = w.send(a, kB, 966);  // 1,000 bytes
    w.empty(b);
    if (routed.verdict != Verdict::hold) {
      ++passed;
      ++in_turn;
      ASSERT_FALSE(routed.last) << "there is something left of its turn";
      continue;
    }
    most = std::max(most, std::exchange(in_turn, 0));
    ++turns;
    w.resumed.clear();
    while (w.resumed.empty()) w.pass(std::chrono::microseconds(100));
    EXPECT_EQ(w.now.time_since_epoch() % Core::kTurnGap, Duration(0)) << "turns begin together";
  }
  EXPECT_NEAR(static_cast<double>(passed), 10'000, 100) << "what its rate is";
  EXPECT_LE(turns, 700U);
  EXPECT_LE(most, 32U) << "16 in the turn, and what was paid for meanwhile";
}

TEST(IrohRelayCore, AClientIsNotReadFromAfterAMessageThatEndsItsTurn) {
  IrohRelayLimits limits;
  limits.client_bytes_per_second = 1'000'000;
  limits.client_burst_bytes = 100'000;
  World w(limits);
  const auto a = w.join(kA);
  w.join(kB);
  EXPECT_FALSE(w.send(a, kB, 60'000).last);
  EXPECT_TRUE(w.send(a, kB, 60'000).last) << "it owes 20 ms";
  EXPECT_EQ(w.core.counters().waits.get(), 1U);
  EXPECT_EQ(w.send(a, kB, 10).verdict, Verdict::hold);
  EXPECT_EQ(w.core.counters().waits.get(), 1U) << "it waits already";
  w.pass(milliseconds(19));
  EXPECT_TRUE(w.resumed.empty());
  w.pass(milliseconds(4));
  EXPECT_EQ(w.resumed, std::vector<Core::ConnId>{a});
}

TEST(IrohRelayCore, ManyShortConnectionsDoNotAddUpToADebtOfHours) {
  IrohRelayLimits limits;
  limits.ip_bytes_per_second = 100'000;
  limits.ip_burst_bytes = 1000;
  World w(limits);
  const Bytes big(std::vector<std::uint8_t>(60'000, 1));
  std::size_t taken = 0;
  for (int i = 0; i < 1'000; ++i) {
    const auto id = w.open(1);
    taken += w.message(id, big).verdict == Verdict::closed ? 1U : 0U;
    w.core.on_close(id, w.now);
    w.take();
  }
  EXPECT_EQ(taken, 1U) << "the others wait until it is paid for";
  const auto honest = w.open(1);
  EXPECT_EQ(w.prove(honest, kA).verdict, Verdict::hold);
  w.pass(seconds(1));
  EXPECT_EQ(w.resumed, std::vector<Core::ConnId>{honest});
  EXPECT_TRUE(w.prove(honest, kA).joined);
  w.core.on_close(honest, w.now);
  w.take();
  w.pass(seconds(30));
  EXPECT_EQ(w.core.address_count(), 0U);
}

TEST(IrohRelayCore, AChangedRateCancelsDebtsAndLetsHeldClientsGoOn) {
  IrohRelayLimits limits;
  limits.ip_bytes_per_second = 1'000;
  World w(limits);
  limits.ip_burst_bytes = 0;
  w.core.set_limits(limits, w.now);
  const auto a = w.join(kA);
  w.pass(seconds(1));
  w.resumed.clear();
  EXPECT_EQ(w.send(a, kB, 60'000).verdict, Verdict::taken);
  EXPECT_EQ(w.send(a, kB).verdict, Verdict::hold);
  limits.clients = 99;
  w.core.set_limits(limits, w.now);
  w.take();
  EXPECT_TRUE(w.resumed.empty()) << "no rate has changed";
  limits.ip_bytes_per_second = 10'000;
  w.core.set_limits(limits, w.now);
  w.take();
  EXPECT_EQ(w.resumed, std::vector<Core::ConnId>{a});
  EXPECT_EQ(w.send(a, kB, 60'000).verdict, Verdict::taken);
  EXPECT_EQ(w.send(a, kB).verdict, Verdict::hold);
  w.pass(seconds(7));
  EXPECT_EQ(w.resumed.size(), 2U) << "and nothing of the old debt wakes it twice";
  limits.ip_bytes_per_second = 0;
  EXPECT_EQ(w.send(a, kB, 60'000).verdict, Verdict::taken);
  w.core.set_limits(limits, w.now);
  EXPECT_NE(w.send(a, kB).verdict, Verdict::hold);
}

TEST(IrohRelayCore, AReceiverLearnsThatTheEndpointIsGone) {
  World w;
  const auto a = w.join(kA);
  const auto a2 = w.join(kA);
  const auto b = w.join(kB);
  const auto c = w.join(kC);
  w.send(a, kB);
  w.core.on_close(a, w.now);
  w.take();
  EXPECT_EQ(w.count<EndpointGone>(b), 0U) << "another connection of it is left";
  w.core.on_close(a2, w.now);
  w.take();
  EXPECT_EQ(w.count<EndpointGone>(b), 1U) << "the other one took over whom it had to tell";
  EXPECT_EQ(w.count<EndpointGone>(c), 0U);
}

TEST(IrohRelayCore, FramesThatAreNotMessagesHaveAQuota) {
  World w;
  const auto a = w.join(kA);
  for (std::uint64_t i = 0; i < Core::kFreeFrames; ++i) w.core.on_other_frame(a, w.now);
  w.take();
  EXPECT_TRUE(w.closed.empty());
  w.core.on_other_frame(a, w.now);
  w.take();
  EXPECT_EQ(w.closed[a], IrohReject::rate_limited);
}

TEST(IrohRelayCore, ANewcomerGetsThePlaceOfACrowd) {
  IrohRelayLimits limits;
  limits.clients = 20;
  World w(limits);
  const auto a = w.join(kA, 2);
  for (std::uint8_t i = 0; i < 19; ++i) {
    const EndpointKey key(seed_of(static_cast<std::uint8_t>(30 + i)));
    w.join(key, 1);
  }
  const auto b = w.join(kB, 3);
  ASSERT_EQ(w.closed.size(), 1U);
  EXPECT_EQ(w.closed.begin()->second, IrohReject::evicted);
  EXPECT_FALSE(w.closed.contains(a) || w.closed.contains(b));
  Core::Opening crowd;
  crowd.ip = address(1);
  EXPECT_EQ(w.core.on_open(1000, crowd, w.now), IrohReject::limit_clients);
}

TEST(IrohRelayCore, AnAddressIsForgottenWhenItsBytesArePaid) {
  World w;
  const auto a = w.join(kA);
  w.core.on_close(a, w.now);
  w.take();
  EXPECT_EQ(w.core.address_count(), 1U);
  w.pass(seconds(30));
  EXPECT_EQ(w.core.address_count(), 0U);
  EXPECT_FALSE(w.core.next_deadline().has_value());
}

TEST(IrohRelayCore, AgreesWithItsTwinAfterEveryCommand) {
  std::size_t kept = 0, dropped = 0, held = 0, ended = 0, notices = 0, unanswered = 0;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    IrohRelayLimits limits;
    limits.clients = seed % 3 == 0 ? 6 : 14;
    limits.queue_frames = 4;
    limits.queue_bytes = 150'000;
    limits.all_queue_bytes = seed % 2 == 0 ? 700'000 : 4'000'000;
    if (seed % 4 == 0) limits.client_bytes_per_second = 200'000;
    limits.client_burst_bytes = 20'000;
    if (seed % 5 == 0) limits.ip_bytes_per_second = 400'000;
    limits.ip_burst_bytes = 100'000;
    if (seed % 10 == 0) {  // a turn of many messages
      limits.ip_bytes_per_second = 20'000'000;
      limits.ip_burst_bytes = 10'000;
    }
    model::IrohRelayUnderTest both(limits);
    const auto bytes = model::random_commands(seed, 4000);
    model::Commands in{ByteView(bytes)};
    while (!in.is_empty()) both.step(in);
    both.end();
    kept += both.kept_frames();
    dropped += both.dropped_frames();
    held += both.held_messages();
    ended += both.ended_turns();
    notices += both.notices();
    unanswered += both.unanswered_pings();
  }
  EXPECT_GT(kept, 500U);
  EXPECT_GT(dropped, 200U);
  EXPECT_GT(held, 500U);
  EXPECT_GT(ended, 500U);
  EXPECT_GT(notices, 100U);
  EXPECT_GT(unanswered, 2U);
}

}  // namespace
}  // namespace kitsune2::server
