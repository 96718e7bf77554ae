// What the sbd relay decides, as a state machine without sockets, clock and randomness.
#pragma once

#include <algorithm>
#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"
#include "server/counter.hpp"
#include "server/request_turns.hpp"
#include "transport/sbd/sbd_frames.hpp"

namespace kitsune2::server {

/// Why a connection was refused or closed by the relay. The names are those of the metrics.
enum class RelayReject : std::uint8_t {
  illegal_key,        ///< the node key looks like the header of a command
  limit_clients,      ///< too many relay clients in all
  rate_limited,       ///< over the address's burst
  bad_signature,      ///< the key in the url is not the client's
  handshake_timeout,  ///< no `ares` in limit_idle_millis
  early_forward,      ///< a forward before the handshake was finished
  late_response,      ///< `ares` after the handshake
  malformed,          ///< fewer than 32 bytes, or an `ares` of the wrong length
  too_large,          ///< over 20000 bytes
  idle,               ///< nothing came for limit_idle_millis
  slow_receiver,      ///< kept senders waiting and took too little
  taken_over,         ///< another connection proved the same key
  evicted,            ///< its place was given to a newcomer
  queues_full,        ///< all queues together were full, and it had taken nothing for longest
};
inline constexpr std::size_t kRelayRejectCount = 14;
std::string_view to_string(RelayReject reason);

struct RelayLimits {
  std::uint32_t clients = 32'768;
  bool rate_limiting = true;
  std::uint32_t ip_kbps = 1'000'000;  ///< 1..8'000'000
  std::uint64_t ip_byte_burst = 16U << 20;
  std::uint32_t idle_millis = 10'000;
  std::size_t send_queue_bytes = 1U << 20;
  std::size_t all_queue_bytes = 128U << 20;  ///< of all clients together
  std::uint32_t slow_receiver_millis = 2'000;
  std::size_t slow_receiver_bytes = 64U << 10;  ///< at most half of send_queue_bytes
};

struct RelayCounters {
  Counter clients;       // gauge
  Counter queued_bytes;  // gauge: of all clients
  Counter handshakes;
  Counter forwards;
  Counter forward_bytes;
  Counter dropped_unknown;
  Counter sender_waits;
  std::array<Counter, kRelayRejectCount> rejects;
};

/// Knows the clients of the relay, and decides who may send and where each message goes. See docs/protocol-relay.md,
/// "sbd"; the counterpart in Rust is the crate sbd-server 0.1.0.
///
/// *Rules*.
///  R1  A client receives messages, and may forward them, only after it has signed the nonce. A bad signature closes
///      its connection. Rationale: the reference leaves such a connection open, and it may send under a key that is not
///      its own.
///  R2  A second client that proves the same key takes over, and the first is closed. Rationale: only a proof moves a
///      route. The reference moves it before the proof, so that anyone could cut anyone off.
///  R3  Each address has a leaky bucket. A message that exceeds the burst closes its connection. `kThisProcess`, the
///      node that runs this relay, has none, because it would only throttle itself.
///  R4  No message to a connected client is lost, because the stream cipher inside does not survive a loss. While a
///      receiver's queue is full, those who send to it are held: their message is not taken, and they are not read
///      from. A receiver that keeps senders held and takes less than `slow_receiver_bytes` in `slow_receiver_millis` is
///      closed, so that no receiver holds a sender for longer than that at a time.
///  R5  A message to an unknown key is dropped without a word.
///  R6  See `set_limits`.
///  R7  All queues together hold at most `all_queue_bytes` and one message. A queue is full when it holds
///      `send_queue_bytes`, or an eighth of what all queues leave free; an empty queue takes one message in any case.
///      When nothing is left free, the client is closed that has taken nothing for the longest time. Rationale: one
///      address may have thousands of clients that read nothing. Since a queue gets a share of what is free, something
///      is always left for the others.
///  R8  The node that runs this relay is never held. A receiver that has two queues full of what the node sent to it is
///      closed instead. Rationale: all peers of the node stand behind its one connection. The node keeps to the credit
///      of R9, so only a receiver that ignores everything gets that full; and what others have sent to a slow receiver
///      is not the node's fault.
///  R9  That node is told which address a peer has, before that peer's first message (`sbd::encode_peer_group`), and
///      how many of the bytes that it sent to a peer have been taken, or are lost (`sbd::encode_credit`). Rationale:
///      only the relay knows this, and no peer can fake it. These commands never leave the process. It is also told
///      when a peer that it has heard of or sent to has left (`sbd::encode_peer_gone`). Rationale: a url at this relay
///      is good for one connection. Without that, the node would go on answering what thousands of waiting requests of
///      that peer had asked for.
///  R10 When `clients` are connected, a newcomer gets the place of another client, by slots::choose. The bytes
///      forwarded from or to a client count as its use.
///  R11 In the process of a node, all small frames of clients together get kFramesPercent of the time, and those of one
///      address kAddressFramesPercent, in turns (RequestTurns). A client is not read from until its turn comes. A frame
///      of kLargeFrame bytes costs nothing, and a smaller one what it lacks of that. Large frames, and what the node
///      sends to a client, earn the client further frames, at most kMostEarned; a client that waits for its turn goes
///      on as soon as it has earned as many frames as a turn has. Rationale: a frame costs the node more than its bytes
///      say. So a flood of requests for one op each would take the node's time before any module can judge it; clients
///      that exchange much in few frames are not delayed. A relay without a node has no turns: there a frame costs what
///      its bytes cost, and many clients are what it is for.
///  R12 Time in which the loop waited for a processor (`on_waited`) is no time of R11. Rationale: a node on a busy
///      machine gets a small part of a core. Shares of the whole would be more than it has, and a flood would get all
///      of it. The loop also waits while other threads of the node work, so it gives fewer turns when they are busy.
/// Memory and time are bounded by the number of clients.
///
/// The shell calls `on_…` and then carries out `take_actions`. Thread rule: one thread. Calls are O(log clients),
/// except for `set_limits`, and for `on_open` and `on_close`: the new rate is told to all clients of the address, at
/// most every 100 ms.
class RelayCore {
 public:
  using ConnId = std::uint64_t;
  using Ip = std::array<std::uint8_t, 16>;
  using Nonce = std::array<std::uint8_t, sbd::kNonceBytes>;
  /// The address of net::LocalDoor's connections. No socket has it.
  static constexpr Ip kThisProcess{};

  static constexpr std::size_t kFrameCost = 4096;
  static constexpr std::uint64_t kFreeFrames = 64;
  static constexpr std::uint64_t kBytesForAFrame = 64U << 10;
  /// The node is told of at least so many bytes at once (R9). *Rationale*: its credit is eight times as much, so the
  /// rest never stops it; and a small message does not cost a second one.
  static constexpr std::size_t kCreditStep = 128U << 10;

  /// R11.
  static constexpr std::uint32_t kFramesPercent = 40, kAddressFramesPercent = 25;
  static constexpr Duration kFrameTime = std::chrono::microseconds(30);  ///< of a small one, until it is answered
  static constexpr std::size_t kTurnFrames = 8;                          ///< so that a turn is worth its wake-up
  static constexpr std::size_t kLargeFrame = 16U << 10;
  static constexpr std::uint64_t kMostEarned = 256 * kLargeFrame;

  /// `on_message` needs this much of a message's beginning, or the whole if it is shorter.
  static constexpr std::size_t kHeadBytes = sbd::kHeaderBytes + sbd::kSignatureBytes;

  struct Action {
    enum class Kind { send, close, resume } kind;
    ConnId conn;
    Bytes message;                           ///< of `send`
    RelayReject reason = RelayReject::idle;  ///< of `close`; the core has forgotten the connection already
  };

  enum class Verdict {
    taken,    ///< there is nothing to do: it was a command, or is dropped
    forward,  ///< send it to `to`, with `from_key` in place of the header
    hold,     ///< keep it; the action `resume` follows, unless the connection is closed first
    closed,   ///< the connection is closed or unknown
  };
  struct Routed {
    Verdict verdict = Verdict::taken;
    ConnId to = 0;
    const sbd::NodeId* from_key = nullptr;  ///< valid until the next call
    bool joined = false;                    ///< by this message the client has proved its key
    bool first = false;                     ///< carry out the actions before the message is sent
  };

  explicit RelayCore(const RelayLimits& limits);
  ~RelayCore();
  RelayCore(const RelayCore&) = delete;
  RelayCore& operator=(const RelayCore&) = delete;

  /// A TCP connection was opened; it costs one byte of the bucket. False: refuse it.
  bool on_connect(const Ip& ip, Time now);
  /// A client asks for a WebSocket. `nonce` and `random` (R10) are fresh random bytes. If a reason is returned, refuse
  /// the client; nothing is remembered of it.
  std::optional<RelayReject> on_open(ConnId conn, const Ip& ip, const sbd::NodeId& key, const Nonce& nonce, Time now,
                                     std::uint64_t random = 0);
  /// A message of `size` bytes that begins with `head`.
  Routed on_message(ConnId conn, ByteView head, std::size_t size, Time now);
  /// A frame of `size` bytes that is no message: a WebSocket ping or pong, or a fragment. It costs kFrameCost more than
  /// its bytes, and is no sign of life. A client may send kFreeFrames of them, and one more for each second and for
  /// each kBytesForAFrame that it has sent; one too many closes it. *Rationale*: an empty frame is as much work as a
  /// small message, and a loop that reads thousands of them for each of many clients has no time for messages. Our own
  /// client sends a ping for each 256 KiB, or every 10 s.
  void on_other_bytes(ConnId conn, std::size_t size, Time now);
  /// The send queue of `conn` holds `queued` bytes now, after some were sent.
  void on_queue(ConnId conn, std::size_t queued, Time now);
  /// No effect on an unknown connection.
  void on_close(ConnId conn, Time now);
  /// The loop has waited for a processor for so long in all, since the relay began (R12). It never becomes less; a
  /// smaller figure has no effect.
  void on_waited(Duration all) { waited_ = std::max(waited_, all); }
  void poll(Time now);
  std::optional<Time> next_deadline() const;
  /// Changes the limits while the relay runs. R6: no client is closed because a limit became lower. A new rate is told
  /// to all clients within 100 ms, and every bucket is emptied, because its backlog was measured by the old rate. If
  /// the rate or the burst became lower, or the rate was not limited before, the new one is charged only 10 s later,
  /// when every bucket is emptied once more. *Rationale*: what an honest client has sent at the old rate is still on
  /// its way, and so is what it sends until it learns of the new one. A client that ignores the new rate gains nothing
  /// but those 10 s. A new `idle_millis` applies to clients that connect from now on, because a client knows only the
  /// one that it was told. All other limits apply at once.
  void set_limits(const RelayLimits& limits, Time now);
  /// Moves the actions to the end of `out`.
  void take_actions(std::vector<Action>& out);

  const RelayCounters& counters() const { return counters_; }
  std::size_t client_count() const { return clients_.size(); }
  std::size_t address_count() const { return addresses_.size(); }
  /// O(n), for tests.
  void check_invariants() const;

 private:
  struct Address;
  struct Client;
  struct IpHash {
    std::size_t operator()(const Ip& ip) const noexcept { return keyed_hash(ip); }
  };
  struct Due {
    Time at;
    ConnId conn;
    bool slow_check;  // otherwise a check of silence; a client has at most one entry of each kind
    bool operator>(const Due& other) const { return at > other.at; }
  };

  /// What an address may send.
  struct Price {
    bool limited = true;
    std::uint64_t byte_nanos = 1;
    std::uint64_t burst = 0;  // bytes
    bool operator==(const Price&) const = default;
  };

  void adopt(const RelayLimits& limits);
  static Price laxer(const Price& a, const Price& b);
  Address& address(const Ip& ip, Time now);
  bool charge(Address& address, std::size_t bytes, Time now);
  std::int32_t byte_nanos(const Address& address) const;
  void on_rate_changed(Address& address, Time now);
  void tell_rates(Time now);
  void authenticate(Client& client, ByteView signature, Time now);
  void send(ConnId conn, Bytes message);
  void reject(Client& client, RelayReject reason, Time now);
  void forget(Client& client, Time now);
  void release_waiting(Client& client, Time now);
  bool make_place(const Ip& newcomer, Time now, std::uint64_t random);
  std::size_t queue_limit() const;
  Routed on_command(Client& client, ByteView head, std::size_t size, Time now);
  Routed forward(Client& client, Client& to, std::size_t size, Time now);
  bool hold(Client& client, Client& to, Time now);
  bool waits_for_turn(Client& client, std::size_t size, Time now);
  void earn(Client& client, std::uint64_t bytes, Time now);
  void go_on(Client& client, Time now);
  Time turn_time(Time now);
  void give_turns(Time now);
  bool close_longest_stalled(const Client& spared, Time now);
  void set_queued(Client& client, std::size_t queued);
  void tell_group(Client& from, const Client& to);
  void note_fed(Client& to, Client& from, std::size_t size);
  void give_credit(Client& client, bool gone);
  void tell_gone(const Client& client);
  void wake_at(Time at, ConnId conn, bool slow_check);
  void check_slow(Client& client, Time now);
  void check_silence(Client& client, Time now);

  RelayLimits limits_;
  Price price_;                           // what clients are told
  Price charged_;                         // not stricter than price_
  std::optional<Time> price_holds_from_;  // set while the two may differ
  Duration idle_{};
  boost::unordered_flat_map<ConnId, std::unique_ptr<Client>> clients_;
  std::vector<Client*> order_;  // the clients, in an order from which one can be drawn at random
  std::size_t queued_ = 0;      // of all clients
  boost::unordered_flat_map<sbd::NodeId, Client*, std::hash<sbd::NodeId>> routes_;
  boost::unordered_flat_map<Ip, std::unique_ptr<Address>, IpHash> addresses_;
  std::vector<Due> heap_;                          // a min-heap; entries that have become meaningless are skipped
  std::deque<std::pair<Time, Ip>> rates_to_tell_;  // in order of time
  std::optional<Time> prune_at_;
  RequestTurns turns_{{.all_percent = kFramesPercent, .address_percent = kAddressFramesPercent}};
  Duration waited_{};            // R12
  Time turn_time_{};             // of turns_: never goes back
  std::size_t own_clients_ = 0;  // those of kThisProcess
  std::vector<Action> actions_;
  RelayCounters counters_;
};

}  // namespace kitsune2::server
