// What the relay of dialect 0.5 (iroh's) decides, as a state machine without sockets, clock and randomness.
#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"
#include "server/counter.hpp"
#include "server/iroh/fair_queue.hpp"
#include "transport/iroh/relay_frames.hpp"

namespace kitsune2::server {

/// Why a client of the relay was refused or closed. The names are those of the metrics.
enum class IrohReject : std::uint8_t {
  limit_clients,      ///< too many clients in all
  bad_signature,      ///< it did not prove the key that it named
  not_authorized,     ///< no valid token, and not on the list of those that had one
  handshake_timeout,  ///< no proof within kHandshakeLimit
  malformed,          ///< a frame that is broken, or is not a client's
  no_pong,            ///< it did not answer a ping in time
  slow_receiver,      ///< it took nothing for slow_receiver_millis while something waited for it
  duplicates,         ///< too many connections of one endpoint
  evicted,            ///< its place was given to a newcomer
  rate_limited,       ///< too many WebSocket pings or fragments
};
inline constexpr std::size_t kIrohRejectCount = 10;
std::string_view to_string(IrohReject reason);

struct IrohRelayLimits {
  std::uint32_t clients = 32'768;
  std::uint32_t client_bytes_per_second = 0;  ///< 0: no limit
  std::uint32_t client_burst_bytes = 0;       ///< 0: a tenth of the rate
  std::uint64_t ip_bytes_per_second = 0;      ///< of all clients of an address; 0: no limit
  std::uint64_t ip_burst_bytes = 16U << 20;
  std::size_t queue_frames = 512;           ///< that wait for one client, of all senders together
  std::size_t queue_bytes = 4U << 20;       ///< the same in bytes
  std::size_t all_queue_bytes = 64U << 20;  ///< of all clients together
  std::uint32_t slow_receiver_millis = 2'000;
};

struct IrohRelayCounters {
  Counter clients;       // gauge
  Counter queued_bytes;  // gauge: of all clients
  Counter accepts;       // handshakes finished
  Counter disconnects;   // of those
  Counter frames_recv;   // of datagrams
  Counter bytes_recv;    // their contents
  Counter frames_sent;
  Counter bytes_sent;
  Counter dropped_absent;      // for nobody
  Counter dropped_full;        // the receiver's queue is full
  Counter dropped_unwritable;  // R5
  Counter got_ping;
  Counter sent_pong;
  Counter gone_sent;   // EndpointGone frames
  Counter waits;       // times that a client was not read from because of a rate
  Counter waited;      // clients that had to wait at least once
  Counter wait_bytes;  // bytes that had to wait
  std::array<Counter, kIrohRejectCount> rejects;
};

/// Knows the clients of the relay, and decides where each frame goes. See docs/protocol-iroh.md, "The relay's side";
/// the counterpart in Rust is the crate iroh-relay 1.4.1 in kitsune2_bootstrap_srv 0.5.3.
///
/// *Rules*.
///  R1  A client is sent a challenge and must answer with its key and a signature within kHandshakeLimit. Until then
///      it has no place in the routes, and nothing that it sends goes anywhere. A client that proved its key to TLS
///      (`Opening::proven`) has no challenge.
///  R2  Whoever has no right to be here is told so after its proof, and closed. A right is `granted` by a token, or by
///      the list of keys whose owner had one (`if_listed`; TokenBook K4), or by the keys on it that were registered
///      (`if_registered`; TokenBook K6). It is asked for once: nobody is closed later on.
///  R3  The newest connection of an endpoint is active: it gets what is sent to the endpoint. An older one is told
///      (Status 1, in version 1 a Health with a sentence), may send, and hears nothing. When the active one ends, the
///      newest of the others becomes active and is told (Status 0, empty Health). At most kDuplicates connections of
///      an endpoint stay; the oldest is closed.
///  R4  What is for an active client goes to its socket while that holds less than kSocketBytes; beyond that it waits
///      in the client's queue, in turns of its senders (FairQueue). When `queue_frames` or `queue_bytes` wait, or the
///      sender's part of them (F4), or the bound of R6 is reached, what comes is dropped without a word. *Rationale*:
///      QUIC repairs and slows down. A sender that does not slow down must only lose frames of its own.
///  R5  A frame without content, and one of the largest size, is dropped, too. *Rationale*: the reference takes both
///      and cannot write them, so that anyone can cut any receiver off its relay.
///  R6  All queues hold at most `all_queue_bytes` and one frame, but for what R8 sends in any case. The clients of one
///  address hold at most a quarter of
///      what it and nobody has. *Rationale*: one address may have thousands of clients that read nothing; something is
///      always left for the others. The node that runs this relay is exempt: all its peers are behind that address.
///  R7  A client that takes nothing for `slow_receiver_millis` while its socket holds something is closed.
///  R8  Frames of a client are its datagrams, pings and pongs. Anything else closes it. Pings are answered at once.
///      Frames of the relay's own go past the queue. The challenge, what follows the proof and a ping (R9) are sent in
///      any case. A pong, also one of the WebSocket, and what R3 and R11 tell are sent if the client's socket is empty,
///      or holds at most kSocketBytes with them and R6 allows it; otherwise they are left out. *Rationale*: who reads
///      gets its pongs, however full the relay is; clients that send pings and read nothing cannot fill it. What is
///      sent in any case is less than 300 bytes of a client's socket.
///  R9  A client that has been silent for kPingInterval and up to kPingJitter more is sent a ping, which must be
///      answered within kMostPongWait while no round trip is known, then within three of the last one, at least
///      kLeastPongWait. While a client is held (R10) nothing is asked of it.
///  R10 Bytes over a rate (of the client, or of its address) are not lost: the client is not read from until they are
///      paid for. Clients of one address take turns. In a turn one may send a message, or several that together have at
///      most kTurnBytes and cost at most kTurnTime at its rates. Turns begin at multiples of kTurnGap, and a
///      burst is worth at least as much. A newcomer waits for what its address owes. *Rationale*: each new connection
///      could add a message to the debt, and nobody behind that address would be heard for hours. To wake up and to
///      read from a client again costs more than to forward a small message. A change of a rate cancels all debts,
///      because they were measured by the old one.
///  R11 When an endpoint's last connection ends, EndpointGone goes to everyone to whom it sent something that was
///      taken. The core remembers kMostTold receivers of each client and kAllTold in all. *Rationale*: clients only
///      log it.
///  R12 When `clients` are connected, a newcomer gets the place of another client, by slots::choose. The bytes
///      forwarded from or to a client count as its use. A newcomer without a right gets no place.
///  R13 A check of time that comes kLateCheck late judges nobody. *Rationale*: it was the relay that stood still.
///  R14 WebSocket pings and fragments are as much work as messages and are no sign of life. A client may send
///      kFreeFrames of them, and one more for each second and for each kBytesForAFrame that it sent; one too many
///      closes it. The node in this process may send any number.
///  R15 The node that runs this relay is told from where a client is connected, with the first datagrams that it sends
///      to that node's connection. *Rationale*: the peers of one address share a budget.
/// Memory is bounded by the number of clients, `all_queue_bytes` and kAllTold. Calls are O(log clients), and O(senders
/// that wait) where a frame is kept; `on_open` is O(n²) in the sample of slots::choose when all places are taken.
///
/// The shell calls `on_…` and then carries out `take_actions`. Thread rule: one thread.
class IrohRelayCore {
 public:
  using ConnId = std::uint64_t;
  using Ip = std::array<std::uint8_t, 16>;
  using Id = kitsune2::iroh::EndpointId;
  /// The address of net::LocalDoor's connections. No socket has it.
  static constexpr Ip kThisProcess{};

  static constexpr Duration kHandshakeLimit = std::chrono::seconds(10);
  static constexpr Duration kPingInterval = std::chrono::seconds(16);
  static constexpr Duration kPingJitter = std::chrono::seconds(4);
  static constexpr Duration kLeastPongWait = std::chrono::milliseconds(500);
  static constexpr Duration kMostPongWait = std::chrono::seconds(5);
  static constexpr Duration kLateCheck = std::chrono::seconds(1);
  static constexpr std::size_t kSocketBytes = 128U << 10;
  static constexpr std::size_t kDuplicates = 8;
  static constexpr std::size_t kMostTold = 256;
  static constexpr std::size_t kAllTold = 256U << 10;
  static constexpr std::size_t kTurnBytes = 16U << 10;
  static constexpr Duration kTurnTime = std::chrono::milliseconds(2);
  static constexpr Duration kTurnGap = std::chrono::milliseconds(1);
  static constexpr std::uint64_t kFreeFrames = 64;
  static constexpr std::uint64_t kBytesForAFrame = 64U << 10;
  static constexpr std::string_view kSecondConnection =
      "another connection has the same endpoint id; it gets what is sent to this endpoint";

  /// `on_message` needs this much of a message's beginning, or the whole if it is shorter.
  static constexpr std::size_t kHeadBytes = 1 + 32 + 1 + 64;
  /// The longest beginning of a frame of datagrams.
  static constexpr std::size_t kFrameHeadBytes = 1 + 32 + 1 + 2;

  enum class Right { granted, if_listed, if_registered, none };
  struct Opening {
    Ip ip{};
    kitsune2::iroh::RelayVersion version = kitsune2::iroh::RelayVersion::v1;
    Right right = Right::granted;
    std::array<std::uint8_t, 16> challenge{};  ///< fresh random bytes
    std::uint64_t random = 0;                  ///< the same, for payloads of pings and for R12
    std::optional<Id> proven;                  ///< the key that it proved by TLS
  };

  struct Action {
    enum class Kind { send, close, resume } kind;
    ConnId conn;
    Bytes message;                              ///< of `send`: a frame
    IrohReject reason = IrohReject::malformed;  ///< of `close`; the core has forgotten the connection already
  };

  enum class Verdict {
    taken,    ///< there is nothing to do
    forward,  ///< send it to `to` now
    keep,     ///< pass it to `keep`, from `conn` for `to`
    hold,     ///< keep the message; the action `resume` follows, unless the connection is closed first
    closed,   ///< the connection is closed or unknown
  };
  /// What is sent on: `head` in place of the message's first `replaces` bytes.
  struct Routed {
    Verdict verdict = Verdict::taken;
    ConnId to = 0;
    std::array<std::uint8_t, kFrameHeadBytes> head{};
    std::size_t head_size = 0;
    std::size_t replaces = 0;
    bool joined = false;  ///< by this message the client has become one
    bool last = false;    ///< of its turn: do not read from it; the action `resume` follows, as after Verdict::hold
  };

  /// R2: whether `key` is on the list that `right` names, if_listed or if_registered.
  using IsListed = std::function<bool(const Id& key, Right right)>;

  /// `is_listed` is asked when a client has proved its key.
  IrohRelayCore(const IrohRelayLimits& limits, IsListed is_listed);
  ~IrohRelayCore();
  IrohRelayCore(const IrohRelayCore&) = delete;
  IrohRelayCore& operator=(const IrohRelayCore&) = delete;

  /// A client asks for a WebSocket. If a reason is returned, refuse it; nothing is remembered of it.
  std::optional<IrohReject> on_open(ConnId conn, const Opening& opening, Time now);
  /// A message of `size` bytes that begins with `head`.
  Routed on_message(ConnId conn, ByteView head, std::size_t size, Time now);
  /// After Verdict::keep, at once: the frame as it is to be sent. No effect if one of the two is unknown.
  void keep(ConnId from, ConnId to, Bytes frame);
  /// A frame of the WebSocket that is no message (R14).
  void on_other_frame(ConnId conn, Time now);
  /// A ping of the WebSocket with `size` bytes of content, after `on_other_frame`. True: answer it now (R8).
  bool on_ws_ping(ConnId conn, std::size_t size, Time now);
  /// The socket of `conn` holds `queued` bytes now, after some were sent.
  void on_queue(ConnId conn, std::size_t queued, Time now);
  /// No effect on an unknown connection.
  void on_close(ConnId conn, Time now);
  void poll(Time now);
  std::optional<Time> next_deadline() const;
  /// Changes the limits while the relay runs. No client is closed because a limit became lower. O(n) if a rate changes.
  void set_limits(const IrohRelayLimits& limits, Time now);
  /// Moves the actions to the end of `out`.
  void take_actions(std::vector<Action>& out);

  const IrohRelayCounters& counters() const { return counters_; }
  std::size_t client_count() const { return clients_.size(); }
  std::size_t address_count() const { return addresses_.size(); }
  /// The proven key; nullopt: unknown, or not proven.
  std::optional<Id> key_of(ConnId conn) const;
  /// The connection that gets what is sent to `id`.
  std::optional<ConnId> active(const Id& id) const;
  /// Calls `use` with the proven key of each client. O(n).
  void for_each_key(const std::function<void(ConnId, const Id&)>& use) const;
  /// O(n), for tests.
  void check_invariants() const;

 private:
  struct Address;
  struct Client;
  struct Hash {
    template <std::size_t N>
    std::size_t operator()(const std::array<std::uint8_t, N>& bytes) const noexcept {
      return keyed_hash(bytes);
    }
  };
  enum class Check : std::uint8_t { silence, stall, rate };  // a client has at most one entry of each in the heap
  struct Due {
    Time at;
    ConnId conn;
    Check check;
    bool operator>(const Due& other) const { return at > other.at; }
  };

  Client* find(ConnId conn) const;
  Routed on_proof(Client& client, ByteView head, std::size_t size, Time now);
  void join(Client& client, Time now);
  void leave_routes(Client& client, Time now);
  Routed on_datagrams(Client& client, ByteView head, std::size_t size, Time now);
  Routed on_control(Client& client, ByteView head, std::size_t size, Time now);
  Verdict place(const Client& from, const Client& to, std::size_t size) const;
  void add_told(Client& from, const Id& to);
  Routed on_paid(Client& client, ByteView head, std::size_t size, Time now);
  std::size_t turn_bytes() const;
  void hold(Client& client, std::size_t size);
  bool has_to_wait(Client& client, std::size_t size, Time now);
  void pay(Client& client, std::size_t size, Time now);
  void tell_status(Client& client, bool is_active, Time now);
  bool may_hold(const Client& to, std::size_t bytes) const;
  bool has_room(const Client& to, std::size_t size) const;
  bool send_if_room(Client& client, Bytes frame, Time now);
  void send(Client& client, Bytes frame, Time now);
  void add_to_socket(Client& client, std::size_t bytes, Time now);
  void set_queued(Client& client, std::size_t socket, std::size_t kept);
  void reject(Client& client, IrohReject reason, Time now);
  void forget(Client& client, Time now);
  bool make_place(const Ip& newcomer, std::uint64_t random, Time now);
  void wake_at(Time at, ConnId conn, Check check);
  void wake_for_turn(const Client& client);
  void check_rate(Client& client, Time now);
  void check_stall(Client& client, bool late, Time now);
  void check_silence(Client& client, bool late, Time now);

  IrohRelayLimits limits_;
  IsListed is_listed_;
  boost::unordered_flat_map<ConnId, std::unique_ptr<Client>> clients_;
  std::vector<Client*> order_;                           // all clients, so that one can be drawn at random
  boost::unordered_flat_map<Id, Client*, Hash> routes_;  // the active one of each endpoint
  boost::unordered_flat_map<Ip, std::unique_ptr<Address>, Hash> addresses_;
  std::vector<Due> heap_;                   // a min-heap; entries that have become meaningless are skipped
  std::deque<std::pair<Time, Ip>> fading_;  // addresses without clients, in order of time; each has one entry at most
  std::size_t queued_ = 0;
  std::size_t told_ = 0;  // the sizes of all clients' `told`
  std::vector<Action> actions_;
  IrohRelayCounters counters_;
};

}  // namespace kitsune2::server
