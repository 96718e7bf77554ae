// One connection to an sbd relay and the peers behind it, driven over Runtime and WsConnector.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/transport.hpp"
#include "transport/sbd/sbd_client.hpp"
#include "transport/tx5/connection.hpp"
#include "transport/ws.hpp"

namespace kitsune2::tx5 {

class RelayLink;

struct LinkLimits {
  std::size_t max_peers = 4096;
  /// Peers that connect to us and have not proven themselves: more push out the oldest.
  std::size_t max_strangers = 256;
  /// Sum of the permits of all incoming messages. A request beyond it waits. Peers that have never used one to its end
  /// have at most half of it; of that half permits over 1/4096 of the sum have three quarters, and those over 1/256 one
  /// half. *Rationale*: permits that are asked for and not used must not keep out those that are, and who hoards much
  /// must not keep out who needs little.
  std::uint64_t max_granted_bytes = 256U << 20;
  /// While another request waits: a permit is taken away (its connection closed) after this long without a chunk,
  Duration permit_stall = std::chrono::seconds(10);
  /// (after this long, for a peer that has never used one to its end)
  Duration first_permit_stall = std::chrono::seconds(5);
  /// or when less than this many bytes a second have come, on average over at least three times that long.
  std::uint64_t permit_min_rate = 1024;
  /// A peer whose messages are refused gets its next permit when it has paid for them at this rate,
  std::uint64_t waste_per_second = 1U << 20;
  /// or after this long. Less than the time in which a stock node gives up (60 s).
  Duration longest_waste_wait = std::chrono::seconds(10);
  /// Bytes in the WebSocket's queue: little, so that a message of another peer does not wait behind much.
  std::size_t max_socket_queue = 256 * 1024;
  /// Closing frames waiting to go out; more are not sent.
  std::size_t max_closing_frames = 4096;
  Duration first_backoff = std::chrono::milliseconds(250);
  Duration max_backoff = std::chrono::seconds(30);
  /// A relay connection that lasted this long starts the back-off anew.
  Duration stable_after = std::chrono::seconds(10);
  /// A connection to another relay is closed when it had no peer for this long.
  Duration foreign_idle = std::chrono::seconds(60);
  std::size_t max_foreign_relays = 8;
};

/// One peer behind a link.
struct Peer : std::enable_shared_from_this<Peer> {
  Peer(RelayLink& owner, const NodeId& node, Url where, SessionKeys keys, const ConnectionConfig& config,
       const Entropy& entropy, Connection::Origin origin, Time now)
      : link(owner), id(node), url(std::move(where)), connection(node, std::move(keys), config, entropy, origin, now) {}

  RelayLink& link;
  NodeId id;
  Url url;
  Connection connection;
  bool announced = false;  ///< peer_connect succeeded, peer_disconnect is owed
  bool gone = false;
  bool in_control = false, in_data = false;               ///< stands in the ring
  std::optional<std::list<Peer*>::iterator> permit_wait;  ///< stands in LinkShared::queue_of
  std::optional<std::list<Peer*>::iterator> permit;       ///< stands in LinkShared::permits
  std::uint32_t permit_bytes = 0;                         ///< reserved for it
  bool permit_used = false;                               ///< has used one to its end, on this connection
  Time granted_at{};
  Time owes_until = Time::min();    ///< for what it wasted
  Runtime::TimerId owing_wait = 0;  ///< its request waits for that
  std::optional<Time> armed;
  std::optional<std::list<NodeId>::iterator> stranger;
  Timestamp opened_at;
};

/// What the links of one transport have in common.
struct LinkShared {
  LinkShared(Runtime& rt, std::shared_ptr<WsConnector> ws) : runtime(rt), connector(std::move(ws)) {}

  Runtime& runtime;
  std::shared_ptr<WsConnector> connector;
  ConnectionConfig connection;
  LinkLimits limits;
  Entropy entropy;
  std::string tls_ca_file;
  TransportEvents* events = nullptr;
  std::size_t peer_count = 0;
  std::uint64_t granted_bytes = 0;
  /// The part of it of peers that have used none yet: all, those that are not small, the large ones.
  std::array<std::uint64_t, 3> first_granted_bytes{};
  // A peer that goes takes itself off these lists.
  std::list<Peer*> permit_queue;        ///< of peers that have used one, in the order of asking
  std::list<Peer*> first_permit_queue;  ///< of the others, the smallest first
  std::list<Peer*> permits;

  /// Runs `done` later, exactly once, even if everything here is gone by then.
  void complete(Handler<> done, Result<void> result);
  /// Once it has paid for what it wasted.
  void want_permit(Peer& peer);
  bool permits_waited_for() const { return !permit_queue.empty() || !first_permit_queue.empty(); }
  std::list<Peer*>& queue_of(const Peer& peer) { return peer.permit_used ? permit_queue : first_permit_queue; }
  /// Grants what fits, in the order of asking. *Rule*: a large request is not overtaken. *Rationale*: it would starve.
  /// Peers that have used a permit come first; among the others the smallest request does. *Rationale*: many that ask
  /// for as much as they may, and send nothing, cannot hold up one that sends.
  void grant_waiting();
  /// Of first_granted_bytes, how many counts a permit of this size is in.
  std::size_t first_counts(std::uint32_t bytes) const {
    return bytes > limits.max_granted_bytes / 256 ? 3 : bytes > limits.max_granted_bytes / 4096 ? 2 : 1;
  }
  /// Null: nobody waits, or there is no room.
  Peer* next_to_grant() const;
  void grant(Peer& peer);
  /// Closes connections that sit on a permit others wait for.
  void evict_stalled();
  /// Gives back what `peer` holds and forgets what it asked for. Call `grant_waiting` when it is safe to.
  void release_permit(Peer& peer);
};

/// Hears about a link's state. Never from inside a call to the link.
class LinkOwner {
 public:
  virtual ~LinkOwner() = default;
  virtual void link_up(RelayLink& link) = 0;
  virtual void link_down(RelayLink& link) = 0;
  /// A foreign link has ended and may be destroyed, but not inside this call.
  virtual void link_finished(RelayLink& link) = 0;
};

/// One sbd connection and its peers.
///
///  R1  Every connection to the relay has a fresh node key; the old one is wiped.
///  R2  Role::home reconnects for ever, with back-off. Role::foreign connects for what is sent, once, and ends when it
///      fails or was idle. It takes no peers that it did not call (as the reference).
///  R3  Frames go out in turns: control frames of all peers first (but not for ever), then one frame of each peer that
///      has a message. *Rationale*: a large transfer or a slow peer delays the others by one frame, not by a message.
///  R4  A frame is encrypted when its turn comes, into the socket's buffer; nothing is encrypted ahead.
///  R5  A frame is sent only when the pacing and the socket's queue allow it.
/// Every call to TransportEvents comes from a task of the link's own. Thread rule: strand.
class RelayLink {
 public:
  enum class Role { home, foreign };

  RelayLink(LinkShared& shared, Url relay, Role role, LinkOwner& owner);
  ~RelayLink();

  void start();
  const Url& relay() const { return relay_; }
  /// Own url on this relay; nullopt while not connected.
  std::optional<Url> url() const;
  /// What the tries to connect have met since there was a url; nullopt while there is one.
  const std::optional<TransportFailure>& failure() const { return failure_; }
  void send(const NodeId& peer, const Url& url, ByteChain message, Handler<> done);
  void disconnect(const NodeId& peer, const std::optional<std::string>& reason, const Bytes& farewell);
  void wasted(const NodeId& peer, std::uint64_t bytes);
  void append_stats(std::vector<TransportConnectionStats>& out) const;
  /// Closes all peers and the connection. `done` later. The link must not be used any more.
  void stop(std::function<void()> done);

  // For LinkShared.
  void touch(const std::shared_ptr<Peer>& peer);
  void schedule_pump();
  void schedule_grants();
  enum class Tell { now, later };
  void close_peer(const std::shared_ptr<Peer>& peer, const Error& why, const Bytes& farewell, Tell tell);

 private:
  enum class State { offline, connecting, authenticating, ready, stopped };
  struct Early {
    NodeId peer;
    Url url;
    ByteChain message;
    Handler<> done;
  };
  struct Unsent {
    Bytes frame;
    Handler<> done;
  };

  void connect();
  void on_open();
  void on_message(const Bytes& message);
  void on_forward(const NodeId& from, ByteView body);
  void on_ready();
  void lost(const Error& why);
  void end_early(const Error& why);
  std::shared_ptr<Peer> add_peer(const NodeId& id, const Url& url, Connection::Origin origin);
  bool make_room_for_stranger();
  void forget_stranger(Peer& peer);
  void process(const std::shared_ptr<Peer>& peer, Connection::Outcome outcome);
  bool open_peer(const std::shared_ptr<Peer>& peer);
  void pump();
  std::optional<Connection::Pulled> next_frame();
  bool hand_over(Bytes frame, Handler<> done);
  bool has_output() const { return !closing_.empty() || !control_ring_.empty() || !data_ring_.empty(); }
  void end_linger();
  void on_timer();
  void arm_timer();
  Url peer_url(const NodeId& id) const;

  LinkShared& shared_;
  const Url relay_;
  const Role role_;
  LinkOwner& owner_;
  State state_ = State::offline;

  std::optional<NodeKey> key_;
  std::optional<SbdClient> client_;
  std::shared_ptr<WsConnection> socket_;
  std::uint64_t generation_ = 0;
  Time ready_at_{};
  Duration backoff_;
  std::optional<TransportFailure> failure_;

  std::map<NodeId, std::shared_ptr<Peer>> peers_;
  std::list<NodeId> strangers_;
  std::set<std::pair<Time, NodeId>> deadlines_;
  std::deque<std::shared_ptr<Peer>> control_ring_;
  std::deque<std::shared_ptr<Peer>> data_ring_;
  std::deque<Bytes> closing_;
  std::optional<Unsent> unsent_;
  unsigned control_streak_ = 0;
  std::deque<Early> early_;
  std::size_t early_bytes_ = 0;
  Time idle_since_{};

  bool pump_posted_ = false;
  std::function<void()> stopped_;
  Time linger_until_{};
  Runtime::TimerId timer_ = 0;
  Time timer_at_{};
  Lifetime lifetime_;
};

}  // namespace kitsune2::tx5
