// The TransportBackend over QUIC through an iroh relay.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/config.hpp"
#include "kitsune2/transport.hpp"
#include "kitsune2/transport_iroh.hpp"
#include "transport/iroh/direct_paths.hpp"
#include "transport/iroh/endpoint_key.hpp"
#include "transport/iroh/endpoint_url.hpp"
#include "transport/iroh/flood_guard.hpp"
#include "transport/iroh/framing.hpp"
#include "transport/iroh/registry.hpp"
#include "transport/iroh/relay_link.hpp"
#include "transport/quic/endpoint.hpp"
#include "transport/tx5/peer_addresses.hpp"
#include "transport/tx5/permits.hpp"
#include "transport/udp.hpp"
#include "transport/ws.hpp"

namespace kitsune2::iroh {

/// See make_iroh_transport. The numbers of `config` are in their ranges (abort): a node has checked its whole
/// configuration, make_iroh_transport checks this section.
///
///  T1  The url is the relay's and the endpoint's id. It stays the same when the relay was lost; connections go on if
///      the relay is back before they are idle for too long.
///  T2  A message to a peer without an active connection waits for one, and makes the endpoint dial if nobody does.
///      What has waited for the connect timeout fails. Registry has the rules for who dials at once.
///  T3  A preflight must claim the url that belongs to the connection's key, on our relay. The reference looks at the
///      relay only; so there a peer can have others' answers sent to itself.
///  T4  Of a connection that another one has superseded, what was not handed to the network as a whole goes on the
///      other one.
///  T5  When a connection of the peer becomes active, our own dial to it that is still in its handshake is given up.
///      *Rationale*: it would take the slot, and messages that are under way on the other one would be lost with it.
///  T6  Datagrams are made when the relay's socket takes them, so a slow relay holds them up in QUIC, where they are
///      bounded. While the relay is away they are made and dropped: QUIC repairs that, and its clocks go on.
///  T7  A frame over kSmallFrame is read on only with a permit of tx5::PermitBank, whose rules say whose turn it is and
///      whom a stalled one is taken from. Until then its bytes stay in QUIC's windows and the sender waits.
///      *Rationale*: this bounds the memory that peers can make us use for messages that are not complete.
///  T8  When there are as many connections as there may be, a newcomer gets the place of another one by slots::choose,
///      and so does a peer that we dial. Who takes what we have for it keeps its place, and so does who was dialled and
///      brought something. A connection of others has a place once its handshake is over: before, it takes nobody's,
///      and the endpoint bounds how many there are.
///  T9  In dialect 0.4 several connections to a peer may live (N6): the last one made is the one of which the owner
///      hears that it connects and disconnects; if it ends, another one takes its place without a word. Closes have no
///      code but 0.
///  T10 With `direct_paths` a preflight says that this node knows direct paths. A peer whose preflight says so, too,
///      and that has been heard in a space of ours, is told our addresses in a message that stock nodes skip; of other
///      peers no message is taken for such a one. DirectPaths has the rules for what follows. What comes by UDP is
///      for such a connection or is dropped; nearly all that strangers send, at a glance (DatagramFilter). FloodGuard
///      has the rules for floods with names that this node has told.
///  T11 Of a peer that wasted bytes nothing more is read until it has paid for them (P5 of tx5::PermitBank), but for a
///      message for which it has a permit. *Rationale*: QUIC's windows then make it wait. Without that, strangers and
///      peers that are put aside could send small messages as fast as the line takes them, each of which is decrypted,
///      put together and dropped.
///  T12 A stop takes no more messages, and ends when the peers have acknowledged what was sent, or after half a second.
///      *Rationale*: the last message is the one that says that the node leaves. A connection that is closed sends
///      nothing again, and its close may overtake, through the relay, what is under way on a direct path.
/// Thread rule: strand.
class IrohTransport final : public TransportBackend, private RelayLinkOwner {
 public:
  /// A frame with a body of no more needs no permit.
  static constexpr std::size_t kSmallFrame = 64 * 1024;
  /// T11, at most: a stock node waits for a window for as long as the connection lives.
  static constexpr Duration kLongestWasteWait = std::chrono::seconds(30);

  static Result<std::unique_ptr<IrohTransport>> create(Runtime& runtime, std::shared_ptr<WsConnector> connector,
                                                       const IrohTransportConfig& config, const NetworkConfig& network,
                                                       const EndpointKey::Seed& seed, RelayAccess access = nullptr,
                                                       std::shared_ptr<UdpBinder> binder = nullptr);
  ~IrohTransport() override;

  /// Before `start`: how much use a peer was, for choosing whom to keep (T8).
  void judge_by(std::function<std::uint64_t(const Url&)> usefulness) { usefulness_ = std::move(usefulness); }

  /// Before `start`: what a relay in this process says about where its peers are is told to `addresses`, and used for
  /// T8, too.
  void note_addresses(std::shared_ptr<tx5::PeerAddresses> addresses) { addresses_ = std::move(addresses); }

  void start(TransportEvents& events) override;
  std::optional<Url> url() const override;
  std::optional<TransportFailure> failure() const override { return relay_link_.failure(); }
  void send(const Url& peer, ByteChain message, Handler<> done) override;
  void disconnect(const Url& peer, const CloseReason& reason, Bytes farewell) override;
  std::uint64_t max_message_bytes() const override { return config_.max_frame_bytes - kFrameHeaderBytes; }
  std::optional<Duration> round_trip(const Url& peer) const override;
  void wasted(const Url& peer, std::uint64_t bytes) override;
  void on_server_answered() override { relay_link_.on_server_answered(); }
  TransportStats stats() const override;
  void stop(std::function<void()> done) override;

 private:
  using Id = quic::Endpoint::Id;
  struct Message {
    ByteChain frame;
    Handler<> done;
    bool of_connection = false;  ///< of no use on another one: a preflight, an offer
    unsigned moves = 0;          ///< to another connection, because the one before was superseded (T4)
  };
  /// One connection.
  struct Link {
    Link(Id number, const EndpointId& peer, Url where) : id(number), key(peer), url(std::move(where)) {}

    const Id id;
    const EndpointId key;
    const Url url;
    bool opened = false;     ///< the registry knows it
    bool announced = false;  ///< peer_connect succeeded, peer_disconnect is owed
    bool greeted = false;    ///< the peer's preflight was found good
    bool dialled = false;    ///< by us
    bool gone = false;
    bool knows_direct = false;          ///< the peer's preflight says so
    Bytes offer;                        ///< of our addresses, once they were looked up
    bool offered = false;               ///< it was told; not if too much was waiting
    FloodGuard::Peer from_anywhere;     ///< what came to the UDP socket under its names
    std::optional<FrameReader> reader;  ///< of the stream that is being read
    enum class Permit { none, asked, granted } permit = Permit::none;
    std::optional<Time> owes_until;  ///< T11: it is in `owing_` with this
    Time since{};                    ///< when it was made
    Time last_part{};                ///< when a part of a message came last, or its permit was granted
    std::map<quic::Connection::Ticket, Message> sent;
    std::uint64_t sent_messages = 0, sent_bytes = 0, received_messages = 0, received_bytes = 0;
    Timestamp opened_at;
  };
  /// What waits for a connection to a peer.
  struct Waiting {
    std::deque<Message> messages;
    std::size_t bytes = 0;
    Time until{};
  };
  enum class Tell { now, later };
  /// How a connection has ended, for those who wait for it.
  struct End {
    bool superseded = false;
    Error error;         ///< of the messages that it did not send
    std::string reason;  ///< for peer_disconnect; empty: none
  };

  IrohTransport(Runtime& runtime, std::shared_ptr<WsConnector> connector, const IrohTransportConfig& config,
                Dialect dialect, RelayLinkOptions relay_options, Url relay, const EndpointKey::Seed& seed,
                std::shared_ptr<const quic::Identity> identity, std::shared_ptr<UdpBinder> binder);

  void on_relay_up() override;
  void on_relay_down() override;
  void on_relay_datagrams(const Datagrams& datagrams) override;
  void on_relay_address(const PeerAddress& address) override;
  void on_relay_gone(const EndpointId& id) override;
  void on_relay_writable() override;

  std::optional<EndpointId> peer_on_our_relay(const Url& peer) const;
  Link* active_link(const EndpointId& key) const;
  /// T9. `but`: left out. nullptr: there is none.
  std::shared_ptr<Link> announced_link(const EndpointId& key, const Link& but) const;
  void complete(Handler<> done, Result<void> result);
  /// Whether it was taken; otherwise its end is told.
  bool hand_over(Link& link, Message message);
  bool is_keeping_its_place(const Link& link);
  void wait_for_connection(const EndpointId& key, Message message);
  void dial(const EndpointId& key);
  void flush(const std::shared_ptr<Link>& link);
  void fail_waiting(const EndpointId& key, const Error& why);
  Error unreachable(const std::string& why) const;

  bool service();
  void service(const std::shared_ptr<Link>& link);
  void read(const std::shared_ptr<Link>& link);
  void on_part(const std::shared_ptr<Link>& link, quic::Connection::Part part);
  void on_frame(const std::shared_ptr<Link>& link, Frame frame);
  void on_preflight(const std::shared_ptr<Link>& link, const Bytes& body);
  /// Asks the owner for our preflight and sends it. False: the connection is closed.
  bool greet(const std::shared_ptr<Link>& link);
  void note_sent(Link& link, quic::Connection& connection);
  /// T7.
  void ask_for_permit(const std::shared_ptr<Link>& link);
  void give_permit_back(const std::shared_ptr<Link>& link, bool used);
  void grant_permits();
  void close_stalled();
  /// T11. Whether nothing is read of it now.
  bool is_owing(Link& link);
  void stop_owing(Link& link);
  void read_those_who_have_paid();
  /// T8.
  static bool has_place(const Link& link) { return link.dialled || link.opened; }
  /// T8. False: all keep their places.
  bool make_room();
  std::shared_ptr<Link> add(Id id, const EndpointId& key, bool dialled);
  void apply(const Registry::Outcome& outcome);
  void close(const std::shared_ptr<Link>& link, std::uint64_t code, const std::string& reason, End end, Tell tell);
  void fail(const std::shared_ptr<Link>& link, const Error& why);
  void end(const std::shared_ptr<Link>& link, const End& how, Tell tell);

  /// Handles what is new and sends what is to be sent.
  void turn();
  void schedule_turn();
  /// T12. Whether it has sent what the peer has not acknowledged, and the peer can be reached.
  bool is_delivering(const Link& link);
  void stop_if_delivered();
  void close_for_stop(const std::shared_ptr<Link>& link, Tell tell);
  void pump();

  // --- direct paths (iroh_direct.cpp)
  void open_socket();
  void close_socket();
  std::vector<UdpAddress> own_addresses() const;
  /// T10.
  void offer_addresses(const std::shared_ptr<Link>& link);
  void on_direct_offer(const std::shared_ptr<Link>& link, const Bytes& message);
  void on_udp(const UdpAddress& from, ByteView content, std::size_t segment_bytes);
  /// FloodGuard. Returns whether peers have lost their paths.
  bool judge(const quic::Endpoint::Useless& useless, Time now);
  void renew_filter(Time now, bool is_stale = false);
  DatagramFilter::Names names_in_use() const;
  void apply_routes();
  void pump_direct();
  void forget_paths(const Link& link);

  void on_timer();
  void arm_timer();

  Runtime& runtime_;
  const IrohTransportConfig config_;
  const Dialect dialect_;
  const Url relay_;
  const EndpointKey key_;
  const Url own_url_;
  TransportEvents* events_ = nullptr;
  quic::Endpoint endpoint_;
  Registry registry_;
  RelayLink relay_link_;
  std::map<Id, std::shared_ptr<Link>> links_;
  std::size_t places_ = 0;          ///< links that have one (T8)
  std::map<EndpointId, Id> dials_;  ///< whose handshake is not over
  std::map<EndpointId, Waiting> waiting_;
  std::set<std::pair<Time, EndpointId>> waiting_until_;
  tx5::PermitLimits permit_limits_;
  tx5::PermitBank permits_{permit_limits_};
  std::set<std::pair<Time, Id>> owing_;  ///< T11: those of which there may be something to read when they have paid
  std::function<std::uint64_t(const Url&)> usefulness_;
  std::shared_ptr<tx5::PeerAddresses> addresses_ = std::make_shared<tx5::PeerAddresses>();
  std::optional<Datagrams> unsent_;  ///< the relay's socket did not take it
  const std::shared_ptr<UdpBinder> binder_;
  std::shared_ptr<UdpSocket> udp_;  ///< null: no direct paths
  FloodGuard guard_;
  std::uint64_t filtered_version_ = 0;    ///< of the names that a strict filter has
  std::optional<DatagramFilter> filter_;  ///< exactly with the socket, like
  std::optional<DirectPaths> direct_;
  struct Direct {
    UdpAddress to;
    quic::Batch batch;
  };
  std::optional<Direct> unsent_direct_;  ///< the socket did not take it
  std::deque<Datagrams> relay_probes_;   ///< to be sent before other datagrams; empty while the relay is away
  std::optional<Time> stop_by_;          ///< T12: since `stop`
  std::function<void()> on_stopped_;
  bool stopped_ = false;
  bool turn_posted_ = false;
  Runtime::TimerId timer_ = 0;
  Time timer_at_{};
  Lifetime lifetime_;
};

}  // namespace kitsune2::iroh
