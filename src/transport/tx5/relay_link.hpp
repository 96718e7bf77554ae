// One connection to an sbd relay and the peers behind it, driven over Runtime and WsConnector.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/slots/slots.hpp"
#include "kitsune2/transport.hpp"
#include "log/log.hpp"
#include "transport/sbd/reconnect.hpp"
#include "transport/sbd/sbd_client.hpp"
#include "transport/tx5/connection.hpp"
#include "transport/tx5/peer_addresses.hpp"
#include "transport/tx5/permits.hpp"
#include "transport/ws.hpp"

namespace kitsune2::tx5 {

class RelayLink;

struct LinkLimits {
  std::size_t max_peers = 4096;
  /// How many peers that connected to us may be unproven. One more pushes out the oldest.
  std::size_t max_strangers = 256;
  /// The bounds for incoming large messages, of all peers of the transport.
  PermitLimits permits;
  /// How many bytes may be in the WebSocket's queue. Few, so that a message of another peer does not wait behind much.
  std::size_t max_socket_queue = 256 * 1024;
  /// How many closing frames may wait to be sent; the others are dropped.
  std::size_t max_closing_frames = 4096;
  /// Of how many connections that have ended the streams are remembered (E2eSession R5), while the node key is the
  /// same.
  std::size_t max_stream_memories = 4096;
  /// When a relay that was lost is tried again.
  sbd::ReconnectLimits reconnect;
  /// How a relay that hangs is noticed.
  WsPings pings;
  /// A connection to another relay is closed after this time without a peer.
  Duration foreign_idle = std::chrono::seconds(60);
  std::size_t max_foreign_relays = 8;
};

/// One peer behind a link.
struct Peer : std::enable_shared_from_this<Peer> {
  Peer(RelayLink& owner, const NodeId& node, Url where, SessionKeys keys, const ConnectionConfig& config,
       const Entropy& entropy, Connection::Origin origin, Time now, Duration relay_round_trip,
       SendCredit::Source credit)
      : link(owner),
        id(node),
        url(std::move(where)),
        connection(node, std::move(keys), config, entropy, origin, now, relay_round_trip, credit),
        since(now),
        dialled(origin == Connection::Origin::local) {}

  RelayLink& link;
  NodeId id;
  Url url;
  Connection connection;
  bool announced = false;  ///< `peer_connect` has succeeded, so `peer_disconnect` must follow
  bool gone = false;
  bool in_control = false, in_data = false;  ///< waits in that ring for its turn
  PermitBank::Holder holder = 0;             ///< its number in the bank; 0: it has none
  std::optional<Time> armed;
  std::optional<std::list<NodeId>::iterator> stranger;
  Timestamp opened_at;
  Time since;                             ///< when this object was made
  bool dialled;                           ///< by us, at least once
  std::uint64_t wasted_bytes = 0;         ///< bytes that it sent and that were refused
  std::optional<slots::Address> address;  ///< known if the relay is inside this process
  std::size_t rank = 0;                   ///< its index in RelayLink::order_
  std::uint64_t serial = 0;               ///< distinguishes its marks from those of other connections

  /// How many bytes it has sent that were not refused.
  std::uint64_t useful_bytes() const {
    const std::uint64_t received = connection.stats().received_bytes + connection.permit_received();
    return received - std::min(received, wasted_bytes);
  }
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
  std::uint64_t last_serial = 0;  ///< of a peer
  /// The addresses of the peers at a relay inside this process.
  std::shared_ptr<PeerAddresses> addresses = std::make_shared<PeerAddresses>();
  /// How useful a peer was, by which R6 of RelayLink decides who keeps its place. Empty: only its bytes count.
  std::function<std::uint64_t(const Url&)> usefulness;

  /// Runs `done` later, exactly once, even if everything here is gone by then.
  void complete(Handler<> done, Result<void> result);

  // Permits, for the peers of all links. PermitBank decides; these members carry it out.
  bool permits_waited_for() const { return permits.is_waited_for(); }
  /// `peer` has sent a request for a permit.
  void want_permit(Peer& peer);
  /// The message for which `peer` had its permit is complete.
  void on_permit_used(Peer& peer);
  void wasted(Peer& peer, std::uint64_t bytes);
  /// Grants the permits that may be granted now.
  void grant_waiting();
  /// Closes connections that hold a permit without using it while others wait.
  void evict_stalled();
  /// Gives back what `peer` holds and forgets what it asked for. Call `grant_waiting` when it is safe to.
  void release_permit(Peer& peer);
  /// The same for a connection that has ended: nothing of `peer` is remembered.
  void forget_permits(Peer& peer);

 private:
  PermitBank::Holder holder_of(Peer& peer);
  void arm_permits();

  PermitBank permits{limits.permits};
  std::map<PermitBank::Holder, Peer*> holders;
  PermitBank::Holder last_holder = 0;
  Runtime::TimerId permit_timer = 0;
  Time permit_alarm{};
  Lifetime lifetime;
};

/// Hears about a link's state. Never from inside a call to the link.
class LinkOwner {
 public:
  virtual ~LinkOwner() = default;
  virtual void on_link_up(RelayLink& link) = 0;
  virtual void on_link_down(RelayLink& link) = 0;
  /// A foreign link has ended and may be destroyed, but not inside this call.
  virtual void on_link_finished(RelayLink& link) = 0;
  /// Asked inside `RelayLink::send`: gives the place of one peer away, of `asking` or else of another link. False: all
  /// keep theirs.
  virtual bool make_room(RelayLink& asking) = 0;
};

/// One connection to a relay, and the connections to the peers behind it.
///
///  R1  Each connection to the relay has a fresh node key; the old one is wiped.
///  R2  Role::home reconnects for ever, when sbd::Reconnect says so. Role::foreign connects once, in order to send
///      something, and ends when that fails or when it was idle. It accepts no peers that it did not dial, as in the
///      reference.
///  R3  Frames are sent in turns: first the control frames of all peers (but not for ever), then one frame of each peer
///      that has a message. While large and small frames wait, small ones get kSmallBytes for each large one.
///      Rationale: a large transfer or a slow peer delays the others by one frame and not by a message. And many peers
///      that request one small op at a time get a share of a limited line, and leave the rest to those that transfer
///      much in few messages.
///  R4  A frame is encrypted when its turn comes, into the socket's buffer; nothing is encrypted ahead.
///  R5  A frame is sent only if the pacing, the socket's queue and the credit of its peer (SendCredit) allow it.
///  R6  When there are `max_peers`, a newcomer gets the place of another peer, by slots::choose. A peer keeps its place
///      if it accepts what we have for it, or if we dialled it and it has sent something of use. A sixteenth of the
///      places is for strangers, so that a newcomer has time to prove itself. Rationale: peers that come first and say
///      nothing must not keep all others out.
///  R7  When the relay inside this process says that a peer has left it, that peer's connection ends at once, and what
///      was queued for it is dropped. Rationale: its url was good for that connection to the relay only, so nobody can
///      get what would be sent; and the modules go on working for a peer until they hear that it is gone.
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
  /// How the attempts to connect have failed since there was a url; nullopt while there is one.
  const std::optional<TransportFailure>& failure() const { return failure_; }
  void send(const NodeId& peer, const Url& url, ByteChain message, Handler<> done);
  void disconnect(const NodeId& peer, const std::string& reason, const Bytes& farewell);
  std::optional<Duration> round_trip(const NodeId& peer) const;
  /// See Transport.
  std::uint64_t sent_mark(const NodeId& peer) const;
  void was_read(const NodeId& peer, std::uint64_t mark);
  void wasted(const NodeId& peer, std::uint64_t bytes);
  /// Another server of this node has answered. If the home relay is lost, it is tried again soon.
  void on_server_answered();
  /// Gives up one of its peers to make room; the owner hears of it later. False: every peer keeps its place.
  bool give_a_place() { return evict(std::nullopt, Tell::later); }
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
  void connect_at(Time when);
  std::uint32_t random();
  void on_open();
  void on_message(const Bytes& message);
  void on_forward(const NodeId& from, ByteView body);
  void on_ready();
  void on_lost(const Error& why);
  void end_early(const Error& why);
  std::shared_ptr<Peer> add_peer(const NodeId& id, const Url& url, Connection::Origin origin);
  bool make_room_for_stranger(const NodeId& id);
  std::shared_ptr<Peer> stranger_to_go(const std::optional<slots::Address>& newcomer);
  bool evict(const std::optional<slots::Address>& newcomer, Tell tell);
  static bool keeps_its_place(const Peer& peer);
  void forget_stranger(Peer& peer);
  void leave_order(Peer& peer);
  std::optional<slots::Address> address_of(const NodeId& peer) const;
  void learn_address(const NodeId& id, const slots::Address& address);
  void remember_streams(const Peer& peer);
  void on_credit(const NodeId& id, std::uint32_t bytes);
  void on_gone(const NodeId& id);
  void process(const std::shared_ptr<Peer>& peer, Connection::Outcome outcome);
  bool open_peer(const std::shared_ptr<Peer>& peer);
  void pump();
  std::optional<Connection::Pulled> next_frame();
  bool hand_over(Bytes frame, Handler<> done);
  bool has_data() const { return !large_ring_.empty() || !small_ring_.empty(); }
  bool has_output() const { return !closing_.empty() || !control_ring_.empty() || has_data(); }
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
  sbd::Reconnect reconnect_;
  std::optional<TransportFailure> failure_;

  std::map<NodeId, std::shared_ptr<Peer>> peers_;
  std::vector<Peer*> order_;  ///< the peers in an order from which one can be drawn at random
  std::map<NodeId, E2eSession::Memory> streams_;
  std::deque<NodeId> streams_in_order_;
  std::list<NodeId> strangers_;
  std::set<std::pair<Time, NodeId>> deadlines_;
  std::deque<std::shared_ptr<Peer>> control_ring_;
  std::deque<std::shared_ptr<Peer>> large_ring_, small_ring_;
  std::deque<Bytes> closing_;
  std::optional<Unsent> unsent_;
  unsigned control_streak_ = 0;
  std::size_t small_bytes_ = 0;  ///< bytes of small frames sent since the last large one
  std::deque<Early> early_;
  std::size_t early_bytes_ = 0;
  Time idle_since_{};
  log::Gate peer_log_;

  bool pump_posted_ = false;
  std::function<void()> stopped_;
  Time linger_until_{};
  Runtime::TimerId timer_ = 0;
  Time timer_at_{};
  Lifetime lifetime_;
};

}  // namespace kitsune2::tx5
