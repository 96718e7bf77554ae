// Which peers are reached by UDP, at which of their addresses, and what is sent to find that out.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/time.hpp"
#include "transport/iroh/datagram_size.hpp"
#include "transport/iroh/direct_packets.hpp"
#include "transport/udp.hpp"

namespace kitsune2::iroh {

/// Packets that are allowed: `most` at once, and one more each `each`.
class PacketBudget {
 public:
  PacketBudget(unsigned most, Duration each) : most_(most), each_(each), left_(most) {}
  bool has(Time now);
  bool take(Time now);
  /// Takes `count` of them, or what is left. False: it was not enough.
  bool take(Time now, std::size_t count);

 private:
  const unsigned most_;
  const Duration each_;
  unsigned left_;
  Time since_{};  ///< up to when what has come back is counted
};

/// The last few round trips of one way.
class RoundTrips {
 public:
  static constexpr std::size_t kCount = 4;
  void add(Duration one) { last_.at(count_++ % kCount) = one; }
  void clear() { count_ = 0; }
  bool is_full() const { return count_ >= kCount; }
  /// It is full.
  Duration least() const { return *std::ranges::min_element(last_); }

 private:
  std::array<Duration, kCount> last_{};
  std::size_t count_ = 0;
};

/// Direct paths to peers, beside the relay. Each side decides for what it sends; what comes is taken from both ways.
/// QUIC knows nothing of it: it repairs what a path loses and drops what comes twice.
///
///  D1  Nothing is sent to any address of a peer before both offers are known: ours is told to it, and it has told its
///      own. (The owner makes ours only for a peer of a common space.) Of a connection the first offer of the peer
///      counts. *Rationale*: the addresses of another one would be tried at once, and what is known of them forgotten.
///  D2  An address that makes no sense is never used: port below 1024, multicast, broadcast, link-local, unspecified,
///      examples. Where the relay is on loopback, all but loopback; otherwise loopback, and private ones if this node
///      has told no private one itself. *Rationale*: who tells addresses chooses what a node knocks at.
///  D3  An address of which nothing has come back gets pings of 37 bytes: three in 3.5 s, and then again after 30 s,
///      doubling to 10 min, or sooner if the peer pings from there. For one peer 24 in all and one more each 5 s, for
///      all peers 64 and 16 a second; when these are spent, it waits, and a ping that waits for the others takes
///      nothing of its peer's. A peer's are remembered by its key until they would be whole again, for 4,096 peers
///      without a connection. *Rationale*: a hostile peer may name anybody's address, and connect again as often as it
///      likes.
///  D4  One that has answered gets a ping as large as the largest datagram. When that is answered, too, the
///      address is a path. No answer to two: a ping of DatagramSize::kBase. When that is answered, the address is a
///      path for datagrams of that size, and larger ones are searched for while it is used (D13). No answer to three of
///      these: as if nothing had come back. *Rationale*: on most lines the first size passes; on the others the relay
///      carries everything for a second or two more.
///  D5  A pong counts if it answers the last ping to this address, comes from it, and is authentic: the
///      owner of the offer has made it for a ping of this node. *Rationale*: a peer may tell the offer of
///      another node as its own, and everything for the peer would be sent there.
///  D6  An authentic ping is answered by one of 37 bytes: 32 of a peer, and 16 a second. Its sender becomes
///      an address to be tried; of those that were not told, two are remembered, and of those that were,
///      eight. One that comes before the peer's offer is answered when that comes, the last one of each
///      of the first eight senders. *Rationale*: behind a NAT a peer does not know its own; and what goes
///      directly overtakes the offer, which goes through the relay.
///  D7  The first path is used at once; another one that was being tried takes its place if its round trip
///      is less than three quarters. While a path is used no other ones are tried.
///  D8  The path in use is pinged each second, or each 5 s if nothing was sent. A ping without an answer in
///      four round trips (0.3 to 2 s, doubling) is repeated. After the second one the peer is sent to
///      through the relay, and pings go on; with a pong the path is used again. After the sixth the path is
///      given up, and all addresses are tried. A ping is as large as the datagrams that may be sent, but while the
///      peer is sent to through the relay for this, it has DatagramSize::kBase, and so have the datagrams with its
///      pong. *Rationale*: a path that has got smaller and one that was gone look alike; on the latter the full size is
///      back after one more round trip.
///  D9  "Unreachable" of the network makes the next ping due at once, or 0.3 s after the last one, and
///      nothing more: the missing answers decide. *Rationale*: anybody can forge it.
///  D10 A path that was left three times within a minute is given up, for 60 s at least. *Rationale*: what
///      is sent when the way changes is partly sent again.
///  D11 With a ping of the path in use, one of 37 bytes goes through the relay, and its answer comes back there: each
///      second until four were answered since the way changed last, then each 5 s, or each minute if nothing was sent
///      on the path. The peer counts it as in D6. *Rationale*: QUIC's own measure is of the way that is in use.
///  D12 When four of both were answered since the way changed, those through the relay in a row, and the least round
///      trip of the path's last four is more than one and a half times that of the relay's, and 20 ms more, the peer is
///      sent to through the relay. Pings go on. When the path's least is no more than the relay's, the path is used
///      again. After it was left, neither happens within 30 s, doubling to 10 min each time that it is left (from 30 s
///      again once it was used for 20 min). It is used again at once when two pings through the relay in a row were not
///      answered in 5 s each, or when the relay is lost. *Rationale*: what this node sends itself delays pings, but
///      seldom all of four; what goes directly costs the relay nothing; and two ways that are slow in turn must not
///      have much sent again.
///  D13 Of a path in use DatagramSize says how large datagrams may be, and which pings look for a larger size, beside
///      those of D8, and not while those are not answered (D8). To one of them D5 applies; its round trip does not
///      count. Another size is another way for D11 and D12. *Rationale*: each side finds the size of its own direction.
///      A peer that answers none of these pings has smaller datagrams sent to it, and few pings; it cannot answer one
///      that it has not got, because it does not know the eight random bytes.
/// Pure. Thread rule: confined to the owner's strand.
class DirectPaths {
 public:
  using Id = std::uint64_t;  ///< of a peer's connection
  using Random = std::function<void(std::span<std::uint8_t>)>;
  using Mark = std::function<void(DatagramFilter::Name)>;
  struct Packet {
    std::optional<UdpAddress> to;  ///< nullopt: through the relay
    EndpointId who{};              ///< the peer
    Bytes content;
  };

  static constexpr unsigned kTries = 3;
  static constexpr std::size_t kMaxObserved = 2;
  static constexpr unsigned kPeerBudget = 24, kTotalBudget = 64, kPongBudget = 32;
  static constexpr Duration kPeerEach = std::chrono::seconds(5);
  static constexpr Duration kTotalEach = std::chrono::microseconds(62'500);
  static constexpr Duration kPongEach = std::chrono::microseconds(62'500);
  static constexpr Duration kRemember = kPeerEach * kPeerBudget;
  static constexpr std::size_t kMaxRemembered = 4096;

  /// `own`: this node. `loopback`: the relay is on loopback (D2). `full_bytes`: the largest datagram of QUIC. `mark`
  /// may change the random name of an offer and the random nonce of a ping; null: no.
  DirectPaths(Random random, const EndpointId& own, bool loopback, std::size_t full_bytes, Mark mark = nullptr)
      : random_(std::move(random)), mark_(std::move(mark)), own_(own), loopback_(loopback), full_bytes_(full_bytes) {}

  /// The offer to be told to the peer, with those of our addresses that make sense; the same for the same peer again.
  DirectOffer offer_to(Id peer, const EndpointId& who, const std::vector<UdpAddress>& own, Time now);
  void on_offer(Id peer, const EndpointId& who, const DirectOffer& offer, Time now);
  /// The connection is over.
  void forget(Id peer, Time now);

  /// A datagram for which `is_probe` is true. False: nobody with whom there are paths has made it, and nothing has
  /// changed.
  bool on_probe(const UdpAddress& from, ByteView datagram, Time now);
  /// The same, through the relay, which knows from whom.
  void on_relay_probe(const EndpointId& from, ByteView datagram, Time now);
  /// D12: this node is not connected to it any more.
  void on_relay_lost(Time now);
  void on_unreachable(const UdpAddress& to, Time now);
  /// A datagram of QUIC was sent on the peer's path.
  void on_sent(Id peer, Time now);
  Time next_deadline() const { return deadlines_.empty() ? Time::max() : deadlines_.begin()->first; }
  void on_deadline(Time now);

  /// Where to send to; nullopt: through the relay.
  std::optional<UdpAddress> route(Id peer) const;
  /// The largest datagram of QUIC that may be sent on the peer's path; without one, DatagramSize::kBase.
  std::size_t datagram_bytes(Id peer) const;
  /// Next one to be sent; nullopt: none.
  std::optional<Packet> next_packet();
  /// A peer whose route, or the size of datagrams on it, may have changed; nullopt: none.
  std::optional<Id> next_changed();
  std::size_t size() const { return peers_.size(); }
  /// Of a datagram for which `is_probe` is true: the peer that was told the name in it, if that is in use. Who has made
  /// it is another question.
  std::optional<Id> told_to(ByteView datagram) const;
  using Name = std::array<std::uint8_t, 8>;
  /// The names that may come in pings and in pongs, and to which peer each was told.
  const std::map<Name, Id>& offer_names() const { return names_; }
  const std::map<Name, Id>& ping_names() const { return nonces_; }
  /// Grows with each name that is added.
  std::uint64_t names_version() const { return names_version_; }

 private:
  using Nonce = std::array<std::uint8_t, 8>;
  enum class State { resting, asking, measuring, used };
  struct Candidate {
    UdpAddress address;
    bool observed = false;
    State state = State::resting;
    unsigned tries = 0;   ///< pings of this round without an answer
    unsigned rounds = 0;  ///< without success, in a row
    std::optional<Nonce> nonce;
    std::size_t bytes = 0;  ///< D4: of the pings that make it a path, or of that which has
    Time sent{};
    Time due{};               ///< the next ping, or the end of waiting for the last one
    Time held = Time::min();  ///< not tried before (D10)
    Duration round_trip{};
  };
  /// Of all connections of a peer.
  struct Budget {
    PacketBudget pings{kPeerBudget, kPeerEach};
    PacketBudget pongs{kPongBudget, kPongEach};
    std::size_t connections = 0;
    Time until{};  ///< without a connection, when it is forgotten
  };
  struct Peer {
    explicit Peer(std::size_t full_bytes) : size(full_bytes) {}

    EndpointId who{};
    Budget* budget = nullptr;  ///< in budgets_
    std::optional<DirectOffer> ours, theirs;
    std::map<UdpAddress, Nonce> early;  ///< D6: pings before its offer
    std::vector<Candidate> candidates;
    bool has_path = false;  ///< one of the candidates is used
    bool suspended = false;
    bool yielded = false;  ///< D12: the relay is faster
    bool busy = false;     ///< something was sent since the last ping
    unsigned missed = 0;
    unsigned strikes = 0;
    Time strike{}, used_since{};
    RoundTrips by_path, by_relay;  ///< since the way changed
    DatagramSize size;             ///< D13: of the path in use
    std::optional<Nonce> size_nonce;
    std::optional<Nonce> relay_nonce;
    Time relay_sent = Time::min();
    unsigned relay_missed = 0;
    unsigned yields = 0;  ///< in a row
    Time way_since{};     ///< D12: when it was yielded, or used again
    Time deadline = Time::max();
  };

  Peer& meet(Id id, const EndpointId& who, Time now);
  void forget_budgets(Time now);
  bool makes_sense(const Peer& peer, const UdpAddress& address) const;
  /// Once, when both offers are known.
  void begin(Peer& peer, Time now);
  Candidate* find(Peer& peer, const UdpAddress& address) const;
  static Candidate* used(Peer& peer);
  bool on_ping(const UdpAddress& from, ByteView datagram, const DirectProbe& probe, Time now);
  void answer(Id id, Peer& peer, const UdpAddress& from, const Nonce& nonce, Time now);
  bool on_pong(const UdpAddress& from, ByteView datagram, const DirectProbe& probe, Time now);
  void on_pong_of_path(Id id, Peer& peer, Candidate& path, Time now);
  void on_pong_of_size(Id id, Peer& peer, Time now);
  void use(Id id, Peer& peer, Candidate& candidate, Time now);
  void on_due(Id id, Peer& peer, Candidate& candidate, Time now);
  /// Whether the candidate is pinged.
  bool on_no_answer(Id id, Peer& peer, Candidate& candidate, Time now);
  void ping(Id id, Peer& peer, Candidate& candidate, Time now);
  void suspend(Id id, Peer& peer, Candidate& path, Time now);
  void give_up(Id id, Peer& peer, Candidate& path, Time now);
  static void rest(Candidate& candidate, Time now);
  void forget_nonce(std::optional<Nonce>& nonce);
  /// A ping to the peer, which is not sent yet, with a nonce that is remembered.
  DirectProbe make_ping(Id id, const Peer& peer, DirectProbe::Kind kind);
  void send_ping(const Peer& peer, const DirectProbe& probe, const std::optional<UdpAddress>& to, std::size_t bytes);
  /// D13.
  void ping_size(Id id, Peer& peer, Time now);
  void stop_size(Peer& peer);
  /// How long an answer on the path may take at first.
  static Duration wait_of(const Candidate& path);
  /// The way of the peer's datagrams is another one, or is about to be.
  void change_way(Id id, Peer& peer);
  /// D11.
  void ping_relay(Id id, Peer& peer, Time now);
  /// D12.
  void compare(Id id, Peer& peer, Time now);
  void yield(Id id, Peer& peer, Time now);
  void take_back(Id id, Peer& peer, Time now);
  void schedule(Id id, Peer& peer);

  std::array<std::uint8_t, DatagramFilter::kNameBytes> make_name() const;

  const Random random_;
  const Mark mark_;
  const EndpointId own_;
  const bool loopback_;
  const std::size_t full_bytes_;
  PacketBudget total_{kTotalBudget, kTotalEach};
  std::map<EndpointId, Budget> budgets_;
  std::set<std::pair<Time, EndpointId>> remembered_;  ///< those without a connection, by when they are forgotten
  std::map<Id, Peer> peers_;
  std::map<Name, Id> names_;
  std::map<Nonce, Id> nonces_;
  std::uint64_t names_version_ = 0;
  std::multimap<UdpAddress, Id> paths_;  ///< in use, also if suspended or yielded
  std::set<std::pair<Time, Id>> deadlines_;
  std::deque<Packet> packets_;
  std::deque<Id> changed_;
};

}  // namespace kitsune2::iroh
