// The sbd relay's decisions: no sockets, no clock, no randomness.
#pragma once

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
  illegal_key,        ///< the node key would read as a command
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

/// Who is connected, who may speak, and where a message goes. See docs/protocol-relay.md,
/// "sbd"; the counterpart in Rust is the crate sbd-server 0.1.0.
///
/// *Rules*. R1: a client is routed to, and may forward, only after it has signed the nonce; a bad signature closes.
/// *Rationale*: the reference leaves such a connection open and lets it speak with a key that is not its own. R2: a
/// second client that proves the same key takes over; the first is closed. *Rationale*: only proof moves a route; the
/// reference moves it at once, so that anyone could cut off anyone. R3: one leaky bucket for each address; a message
/// that goes over the burst closes its connection. There is none for `kThisProcess`, the node that runs this relay:
/// it would only throttle itself. R4: no message is lost on the way to a receiver, because the
/// stream cipher inside cannot lose any: while a receiver's queue is full, senders to it are held (their message is
/// not taken). A receiver that keeps senders held and takes less than `slow_receiver_bytes` in
/// `slow_receiver_millis` is closed; so no sender is held by one receiver for longer than that at a time. R5: an
/// unknown destination drops the message in silence. R6: see `set_limits`. R7: all queues together hold at most
/// `all_queue_bytes` (and one message). A queue is full when it holds `send_queue_bytes`, or an eighth of what all
/// queues leave free; an empty one takes a message all the same. When nothing is left free, the client that has taken
/// nothing for longest is closed. *Rationale*: one address may have thousands of clients that read nothing, and memory
/// is not theirs; with a share of what is free there is always some for the others. R8: the node that runs this relay
/// is never held: a receiver that has two queues full of what the node sent is closed instead. *Rationale*: all its
/// peers stand behind that one connection. It keeps to what R9 tells it, so a queue gets so full only by who ignores
/// all else; what others sent to a slow receiver is not its fault. R9: it is
/// told (`sbd::encode_peer_group`, `sbd::encode_credit`) which address a peer has, before that peer's first message,
/// and how many bytes that it sent to a peer have been taken, or are lost. *Rationale*: only the relay knows, and no
/// peer can feign it. These commands never leave the process. R10: when `clients` are connected, a newcomer gets the
/// place of another one by the rules of slots::choose; useful are bytes forwarded for or to a client. R11: in the
/// process of a node, small frames of clients have kFramesPercent of the time together and kAddressFramesPercent for
/// each address, in turns (RequestTurns); until its turn a client is not read from. A frame of kLargeFrame costs
/// nothing, and a smaller one what it lacks; large ones, and what the node sends to a client, earn it frames,
/// kMostEarned at most. *Rationale*: a frame costs the node more than its bytes say, so a flood of requests for one op
/// each would have the node's time before any module can judge it; whoever exchanges much by few frames is not held up
/// by it. There are no turns in a relay alone: there a frame costs what its bytes cost, and many clients are its
/// purpose. Everything is bounded by the number of clients.
///
/// The shell calls `on_…` and then carries out `take_actions`. Thread rule: one thread. Calls: O(log clients), except
/// for `on_open`/`on_close`, whose new rate is told to all clients of the address at most every 100 ms, and for new
/// limits.
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
  /// The node is told of so many bytes at once, at least (R9). *Rationale*: its credit is eight times that, so what it
  /// is not told of never stops it; and a small message does not cost it another one.
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
    Bytes message;                           ///< kSend
    RelayReject reason = RelayReject::idle;  ///< kClose: the core has forgotten the connection already
  };

  enum class Verdict {
    taken,    ///< nothing to do (a command, or dropped)
    forward,  ///< send it to `to`, with `from_key` in place of the header
    hold,     ///< not now; `resume` follows (unless the connection is closed)
    closed,   ///< the connection is closed or unknown
  };
  struct Routed {
    Verdict verdict = Verdict::taken;
    ConnId to = 0;
    const sbd::NodeId* from_key = nullptr;  ///< valid until the next call
    bool joined = false;                    ///< with this message the client has proved its key
    bool first = false;                     ///< take the actions before the message is sent
  };

  explicit RelayCore(const RelayLimits& limits);
  ~RelayCore();
  RelayCore(const RelayCore&) = delete;
  RelayCore& operator=(const RelayCore&) = delete;

  /// A TCP connection costs one byte. False: refuse it.
  bool on_connect(const Ip& ip, Time now);
  /// A WebSocket was asked for. `nonce`: fresh randomness, and `random` (R10). A reason: refuse it (nothing is
  /// remembered).
  std::optional<RelayReject> on_open(ConnId conn, const Ip& ip, const sbd::NodeId& key, const Nonce& nonce, Time now,
                                     std::uint64_t random = 0);
  /// A message of `size` bytes that begins with `head`.
  Routed on_message(ConnId conn, ByteView head, std::size_t size, Time now);
  /// A frame of `size` bytes that is no message (a WebSocket ping or pong, a fragment): it costs kFrameCost more than
  /// its bytes, but it is no sign of life. A client has kFreeFrames of them, and one more for each second and for each
  /// kBytesForAFrame that it sent; one too many closes it. *Rationale*: an empty one is as much work as a small
  /// message, and a loop that reads thousands of them for each of many clients has no time for messages. Our client
  /// sends a ping for each 256 KiB, or each 10 s.
  void on_other_bytes(ConnId conn, std::size_t size, Time now);
  /// The send queue of `conn` holds `queued` bytes now, after some were sent.
  void on_queue(ConnId conn, std::size_t queued, Time now);
  /// No effect on an unknown connection.
  void on_close(ConnId conn, Time now);
  void poll(Time now);
  std::optional<Time> next_deadline() const;
  /// Limits that change while it runs. R6: nobody is closed because a limit fell. A new rate is told to all clients
  /// within 100 ms, and every bucket begins anew, because its backlog was measured by the old rate. A rate or a burst
  /// that fell, or a limit on the rate that there was not, is charged from 10 s on, and then every bucket begins anew
  /// once more; until then the old one is. *Rationale*: what an honest client sent by the old rate is still under way,
  /// and what it sends until the new one reaches it; and who ignores the new rate has no more than before in that time.
  /// `idle_millis` is for clients that come from now on, because each knows only the one it was told; the others hold
  /// at once.
  void set_limits(const RelayLimits& limits, Time now);
  /// Moves the actions to the end of `out`.
  void take_actions(std::vector<Action>& out);

  const RelayCounters& counters() const { return counters_; }
  std::size_t client_count() const { return clients_.size(); }
  std::size_t address_count() const { return addresses_.size(); }
  /// O(n); tests.
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
    bool slow_check;  // else: silence. At most one entry of each kind for a client.
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
  bool hold(Client& client, Client& to, Time now);
  bool waits_for_turn(Client& client, std::size_t size, Time now);
  static void earn(Client& client, std::uint64_t bytes);
  void give_turns(Time now);
  bool close_longest_stalled(const Client& spared, Time now);
  void set_queued(Client& client, std::size_t queued);
  void tell_group(Client& from, const Client& to);
  void note_fed(Client& to, Client& from, std::size_t size);
  void give_credit(Client& client, bool gone);
  void wake_at(Time at, ConnId conn, bool slow_check);
  void check_slow(Client& client, Time now);
  void check_silence(Client& client, Time now);

  RelayLimits limits_;
  Price price_;                           // as it is told
  Price charged_;                         // not stricter than price_
  std::optional<Time> price_holds_from_;  // while the two may differ
  Duration idle_{};
  boost::unordered_flat_map<ConnId, std::unique_ptr<Client>> clients_;
  std::vector<Client*> order_;  // of clients_, for drawing from
  std::size_t queued_ = 0;      // of all clients
  boost::unordered_flat_map<sbd::NodeId, Client*, std::hash<sbd::NodeId>> routes_;
  boost::unordered_flat_map<Ip, std::unique_ptr<Address>, IpHash> addresses_;
  std::vector<Due> heap_;                          // min-heap; entries that mean nothing any more are skipped
  std::deque<std::pair<Time, Ip>> rates_to_tell_;  // in order of time
  std::optional<Time> prune_at_;
  RequestTurns turns_{{.all_percent = kFramesPercent, .address_percent = kAddressFramesPercent}};
  std::size_t own_clients_ = 0;  // of this process
  std::vector<Action> actions_;
  RelayCounters counters_;
};

}  // namespace kitsune2::server
