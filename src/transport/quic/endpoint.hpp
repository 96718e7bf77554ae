// The QUIC connections of one endpoint: which datagram is for which, and whose turn it is to send.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "transport/quic/connection.hpp"

namespace kitsune2::quic {

struct EndpointLimits {
  std::size_t max_connections = 4096;  ///< all, those that end included
  /// Incoming ones whose handshake is not over. One more ends the oldest of them.
  std::size_t max_handshakes = 256;
  /// Incoming ones of one peer whose handshake is not over. One more is not taken.
  std::size_t max_handshakes_per_peer = 4;
  /// How many handshakes a peer may begin at once, and when it may begin one more (P8).
  std::size_t opening_burst = 16;
  Duration opening_every = std::chrono::milliseconds(250);
  /// The same for all peers of an address together (P9).
  std::size_t group_opening_burst = 256;
  Duration group_opening_every = std::chrono::microseconds(31'250);
  /// What the QUIC library may allocate for all connections together (P7).
  std::size_t max_library_bytes = 512U << 20;
};

/// A way out that several connections share, such as a socket.
enum class Lane : std::uint8_t { relay, direct };

/// All connections of one endpoint, to peers whose datagrams come from a relay that says whose they are, or from a
/// socket that does not.
///
///  P1  A datagram belongs to the connection that it names, if that is one with the peer from whom it comes. One that
///      opens a handshake makes a connection. Any other is dropped.
///  P2  Who dials must prove the key under which the relay knows it.
///  P3  Connections of a lane send in turns, a batch each: one that has much to send, or whose peer is slow, holds up
///      nobody. Lanes do not wait for each other. Nor does one that changes its lane often get more turns.
///  P4  A connection that has ended stays until `release` was called and it is finished: a late repetition of its first
///      datagram must not open another one.
///  P5  When there are max_connections, nobody gets in and nobody is dialled (Errc::overloaded).
///  P6  A datagram of which nobody says whose it is makes no connection, and belongs to one only if that is open and
///      the owner has called `listen_anywhere` for it. QUIC proves whose it is.
///  P7  When a datagram has made the libraries of all connections allocate more than max_library_bytes, connections end
///      until they have no more: first the one whose peer's datagrams have caused most. *Rationale*: what comes out of
///      order is kept in pieces of 8 KiB, with a note for each gap. A peer that sends every second byte of its window
///      costs many times what it sends; thousands of them must not fill the memory. Notes of what is sent to a peer do
///      not count, so that it is not the one who takes much.
///  P8  A peer may begin opening_burst handshakes, and one more each opening_every; what goes beyond that is dropped.
///      Those that come to nothing count. *Rationale*: the first datagram of a handshake is free to make, and need not
///      even be one; to look at it takes a session of TLS, the keys of a connection and an answer. Of kMostOpenings
///      peers this is remembered; when there are more, all is forgiven.
///  P9  So may all peers of one address together, where the owner knows addresses (`group_by`): group_opening_burst at
///      once, and one more each group_opening_every. *Rationale*: keys cost nothing. An honest one that is dropped
///      tries again after a second.
/// Pure. Thread rule: confined to the owner's strand.
class Endpoint {
 public:
  using Id = std::uint64_t;  ///< of a connection; never used twice, never 0
  using Group = std::array<std::uint8_t, 16>;
  static constexpr std::size_t kMostOpenings = 8192;

  Endpoint(std::shared_ptr<const Identity> own, Config config, Random random, const EndpointLimits& limits = {})
      : own_(std::move(own)), config_(std::move(config)), random_(std::move(random)), limits_(limits) {}

  const Key& key() const { return own_->key(); }
  /// P9: from where a peer comes; nullopt: nobody knows.
  void group_by(std::function<std::optional<Group>(const Key& peer)> group_of) { group_of_ = std::move(group_of); }

  Result<Id> dial(const Key& peer, Time now);
  /// Datagrams of one peer: `content` cut at `segment_bytes` (not 0). Nonsense is dropped without a word.
  void receive(const Key& from, ByteView content, std::size_t segment_bytes, Time now);
  void receive(const Key& from, ByteView datagram, Time now) { receive(from, datagram, kAnySize, now); }
  /// P6. The same of a sender that nobody knows. The connection that the last one was for; nullopt: all were dropped.
  std::optional<Id> receive_from_anywhere(ByteView content, std::size_t segment_bytes, Time now);
  std::optional<Id> receive_from_anywhere(ByteView datagram, Time now) {
    return receive_from_anywhere(datagram, kAnySize, now);
  }
  /// `on`: from now on, or no more.
  void listen_anywhere(Id id, bool on = true);
  /// What came for a connection from senders that nobody knows.
  struct Came {
    std::size_t useless = 0;    ///< datagrams after which Connection::progress was as before
    std::uint64_t brought = 0;  ///< by how much it has grown with the others
  };
  struct Useless {
    std::size_t for_nobody = 0;         ///< datagrams
    std::map<Id, Came> of_connections;  ///< those of which useless ones came
  };
  /// Since the last call; what was brought, since the last one that told of this connection.
  Useless take_useless();
  /// The names under which it can be reached from anywhere.
  std::vector<ConnectionName> names_from_anywhere(Id id) const;
  /// Grows with each change of those of any connection.
  std::uint64_t names_version() const { return names_version_; }
  /// Which way the connection sends from now on, and how large its datagrams may be there (at least kLeastDatagram; a
  /// larger one than the configured does not count). At first by the relay, in any size. No-op without it.
  void set_lane(Id id, Lane lane, std::size_t datagram_bytes = kAnySize);

  struct Output {
    Id id = 0;
    Key to{};
    Batch batch;
  };
  /// What is to be sent next in the lane; nullopt: nothing now. To be called again until then.
  std::optional<Output> produce(Time now, Lane lane = Lane::relay);
  /// Of the connections of the lane.
  Time next_deadline(Lane lane = Lane::relay) const;
  void on_deadline(Time now);

  /// A connection of which the owner has to look at what is new: `opened`, `read`, `take_sent`, `closed`. A new one may
  /// be an incoming one. nullopt: none.
  std::optional<Id> next_changed();
  /// nullptr: there is none (any more). After what is done with it call `touched`.
  Connection* find(Id id);
  /// The peer of the connection: whom it is to reach, or from whom it came. The connection exists (abort).
  const Key& peer_of(Id id) const;
  /// The owner has sent, read or closed: there may be something to produce.
  void touched(Id id);
  /// The owner has no more use for it. It is closed if it is not (code 0).
  void release(Id id, Time now);

  std::size_t size() const { return entries_.size(); }
  /// P7.
  std::size_t library_bytes() const { return library_bytes_; }

 private:
  static constexpr std::size_t kLanes = 2;
  static constexpr std::size_t index(Lane lane) { return static_cast<std::size_t>(lane); }
  struct Entry {
    std::unique_ptr<Connection> connection;
    Key peer{};
    bool released = false;
    std::array<bool, kLanes> in_turn{};  ///< in a lane that it has left, too: its turn there is passed over
    bool changed = false;
    bool shaking = false;  ///< incoming, in the handshake
    bool anywhere = false;
    Lane lane = Lane::relay;
    std::size_t datagram_bytes = kAnySize;
    Time deadline = Time::max();
    std::vector<ConnectionName> names;
    Came came;                      ///< not told yet
    std::size_t library_bytes = 0;  ///< as counted in that of the endpoint
  };

  Id add(std::unique_ptr<Connection> connection, const Key& peer, bool incoming);
  void accept(const Key& from, ByteView datagram, Time now);
  /// P8, P9. If so, it counts.
  bool may_open(const Key& from, Time now);
  struct Receiver {
    Id id = 0;
    Entry* entry = nullptr;
  };
  Receiver receiver(const Key& from, ByteView datagram, Time now);
  Receiver receiver_from_anywhere(ByteView datagram);
  static bool hears_anywhere(const Entry& entry);
  template <typename Choose, typename OnReceived>
  std::optional<Id> receive_each(ByteView content, std::size_t segment_bytes, Time now, Choose&& choose,
                                 OnReceived&& on_received);
  void count(const Receiver& receiver, std::uint64_t progress);
  void update_names(Id id, Entry& entry);
  /// Takes in what a call to the connection has changed.
  void update(Id id, Entry& entry, bool changed);
  void take_turn(Id id, Entry& entry);
  void set_deadline(Id id, Entry& entry, Time at);
  void end_handshake(Id id, Entry& entry);
  void count_library(Entry& entry, std::size_t bytes);
  /// P7.
  void bound_libraries(Time now);
  void erase(Id id);

  const std::shared_ptr<const Identity> own_;
  const Config config_;
  const Random random_;
  const EndpointLimits limits_;
  Id last_ = 0;
  std::map<Id, Entry> entries_;
  std::map<ConnectionName, Id> names_;
  std::array<std::deque<Id>, kLanes> turns_;
  std::deque<Id> changed_;
  std::array<std::set<std::pair<Time, Id>>, kLanes> deadlines_;
  std::set<Id> handshakes_;  ///< the oldest first
  std::map<Key, std::size_t> handshakes_of_;
  std::map<Key, Time> openings_;             ///< P8: when the peer has its whole burst again
  std::map<Group, Time> openings_of_group_;  ///< P9: the same
  std::function<std::optional<Group>(const Key& peer)> group_of_;
  std::size_t library_bytes_ = 0;
  std::size_t for_nobody_ = 0;
  std::vector<Id> with_useless_;
  std::uint64_t names_version_ = 0;
};

}  // namespace kitsune2::quic
