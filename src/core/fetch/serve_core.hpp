// The state machine of the serving side of fetch: which peer's request is answered next, and with how much.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// Shares a node's answers among the peers that request ops. It knows only the number, size and progress of requests:
/// the caller keeps the ids and the ops, reads the store, and sends.
///
/// *Rules*.
///  S1  The requests of one peer are answered in the order in which they came, with one read and one send at a time;
///      peers take turns, message by message.
///  S2  What is held is sent; nothing is sent if nothing is held.
///  S3  A response has at most `max_response_bytes` of payload (a larger op goes alone). The next one is read while the
///      transport takes the last one, and no further. Rationale: a durable store reads about as fast as a message
///      leaves. A read covers at most kMaxIdsPerRead ids, and kSharedIdsPerRead while other peers are served too.
///      Rationale: nobody waits behind a long read for a peer that asks for much at once; our own nodes ask for fewer
///      ids than that.
///  S4  A response that cannot be sent ends its request, and the next one if a part of that was read meanwhile. Asking
///      again is up to the requester.
///  S5  `max_requests_per_peer` requests and kMaxQueuedBytes of them wait for one peer, and kMaxAllQueuedBytes for all;
///      further ones are refused. While a request of a peer waits, all of that peer's have at most 1/kQueueParts of
///      what is left of the room of all, so that something is always left for a peer that asks for the first time; so
///      has its only one, if that is over kLoneRequestBytes and others wait. All reads and responses under way together
///      are held to kMaxServingBytes for peers that have shown that they listen, and to as much for the others.
///      Rationale: a request is small and its answer is large, so a peer that asks and does not listen must cost
///      little.
///  S6  A peer has shown that it listens when it took kProvenBytes on this connection. Until then a response has at
///      most kTrust times what it took so far (the first one kFirstResponseBytes, none over kProvenBytes), and a peer
///      that has not taken one within kPatience while others wait for room is disconnected. Rationale: a response that
///      needs the receiver's permit stays in memory until the permit comes; peers that ask for much and never permit it
///      would otherwise take all the room. The first response needs no permit, so a newcomer never waits behind them.
///  S8  A peer is *far* while its round trip is kFarTrip or more, as far as that is known. While its ops are small (at
///      most half of kFrameBytes on average, in the last response), a response to it has at most kFrameBytes. For
///      larger ones, once it has shown that it listens, it has at most what takes sixteen round trips at the rate of
///      the last response, if that is more than `max_response_bytes`; but not over kFarGrowth times that response,
///      `max_far_response_bytes`, or half of kMaxServingBytes divided by the peers that are served; and none is read
///      ahead while one over `max_response_bytes` is sent. Rationale: a message over one frame waits a round trip for
///      its permit, one at a time. Small ops need not; large ones must, and are to wait for a small part of the time.
///  S13 Until a response over kFrameBytes has been taken on this connection, the round trip is not longer than the
///      shortest time that a peer, which has no more than two requests waiting, let pass from the end of its request
///      before last to a new one. Rationale: before the first permit the transport knows only how long the handshake
///      took, which is as much the time of busy processors as that of the line. A peer that does not know the distance
///      either keeps two requests under way, and sends the next one when one is answered. If a request came so soon by
///      chance, the next response needs a permit, and that shows the distance.
///  S14 Once half of the room of the peers that have shown that they listen is taken, a response to one of them
///      has at most 1/kRoomParts of what is left, or half of that under S8, but kFrameBytes in any case.
///      Rationale: a peer that is gone, and that the transport has not given up yet, keeps what it was sent, and
///      one that does not read keeps it for as long as it likes. Eight of them would have all the room, and
///      whoever proves himself then would get nothing until one of them has ended. With this, forty of them leave
///      enough for the next one.
///  S15 For a request that S5 has no room for, room is made: requests are dropped of the peers that have not taken a
///      response for kStalled or more, and for longer than the one that asks has; of the one that has not for the
///      longest at first, and all of them but one that is being read for. Rationale: a peer that asks for much and
///      reads nothing keeps its requests in the queue for as long as it likes, and one that is gone until its
///      connection is given up. Seventy of them filled the queue, and everybody else was refused.
///  S9  While peers that have shown that they listen and others wait, reads go to the two kinds in turn. Rationale: as
///      many peers as there are reads would have all of them otherwise, and no newcomer could ever show that it
///      listens.
///  S10 A small request joins the peer's last one, if that is small too, has not begun, and fewer than kMostJoined have
///      joined it: they are answered together, as one, with at most kFrameBytes at a time. Rationale: stock nodes
///      request each op by a message of its own, and so does a flood. What an answer costs besides its ops (a read, a
///      message, its encryption and its way) is many times a small op, and no response says which request it answers.
///      So whoever sends requests faster than they are answered gets fewer and larger answers, and takes less from
///      others. A lone request is answered at once, as ever. The bound is that of S8, and leaves whoever asks for much
///      in one request more than a flood of small ones.
///  S11 A request is *minor* if it asks for at most kFewIds ops, or so many on average if several have joined, unless
///      the peer's ops are large (S8); or if no more than that were held of its peer's last request for more, so that
///      ids which are not held do not make it a larger one; or if its peer asks again (S12). While others are served,
///      or were within kBusyFor, minor requests are read for one at a time, and only while they have an allowance. That
///      is kMinorBurst at most, and gains what the others take, and kMinorRate. Each minor request costs kRequestCost,
///      and its answer its bytes, kAgainFactor times as many under S12, where a response has at most kAgainBytes.
///      Rationale: a message costs a node more than its bytes say, when it comes in and when it is answered. Many peers
///      that request one op at a time, or the same ops without end, would leave little to one that requests much;
///      through somebody else's relay nothing holds them before they get here. A peer that is alone, or only among
///      others like it, notices nothing. Where the others are slow, kMinorRate is enough for almost 4,000 lone requests
///      a second. A response of kAgainBytes needs a permit, so nothing is sent to a peer that is gone.
///      A response that is read, or being sent, counts as others being served for one to two kAge after that began.
///      Rationale: one that its peer does not take, because it is deaf or has gone away unnoticed, needs nothing that
///      is shared out here, and would hold the minor requests of all others back until its connection ends.
///  S12 A peer *asks again* if more than half of what it took on this connection, and at least kProvenBytes, was sent
///      to it before. Only what the transport has accepted counts. Rationale: an honest peer keeps what it gets; one
///      whose answer was late may ask once more, and one whose answer could not be sent has to.
///
/// Pure: the same calls give the same actions. Every call may add actions; take them with `take_actions` after it, and
/// carry them out in that order. Calls are O(log peers), but O(peers) where a peer leaves its turn. Memory is
/// O(requests), which S5 bounds.
class ServeCore {
 public:
  static constexpr std::uint64_t kMaxServingBytes = 64U << 20;
  static constexpr std::uint64_t kFirstResponseBytes = 12U << 10;
  static constexpr std::uint64_t kTrust = 4;
  static constexpr std::uint64_t kProvenBytes = 1U << 20;
  static constexpr Duration kPatience = std::chrono::seconds(10);
  static constexpr std::uint64_t kFrameBytes = 15U << 10;
  static constexpr std::uint64_t kRoomParts = 16;  ///< S14
  static constexpr Duration kFarTrip = std::chrono::milliseconds(3);
  static constexpr Duration kLongestTrip = std::chrono::seconds(2);  ///< a longer round trip counts as this one
  static constexpr std::uint64_t kFarTrips = 16, kFarGrowth = 16;
  static constexpr std::uint64_t kMaxQueuedBytes = 8U << 20;
  static constexpr std::uint64_t kMaxAllQueuedBytes = 64U << 20;
  static constexpr std::uint64_t kQueueParts = 6;
  static constexpr std::uint64_t kLoneRequestBytes = 64U << 10;
  static constexpr Duration kStalled = std::chrono::seconds(2);  ///< S15
  static constexpr std::size_t kMostJoined = 64;
  static constexpr std::size_t kFewIds = 3;                 ///< S11
  static constexpr std::uint64_t kRequestCost = 16U << 10;  ///< S11, in bytes
  static constexpr std::uint64_t kAgainFactor = 8, kAgainBytes = 64U << 10;
  static constexpr std::int64_t kMinorBurst = 16 << 20;
  static constexpr std::int64_t kMinorRate = 64;  ///< bytes a microsecond
  /// S11. Ages are counted in whole kAge since the beginning of time, so that no list of responses is needed.
  static constexpr Duration kAge = std::chrono::seconds(1);
  static constexpr std::int64_t kAges = 2;
  static constexpr std::size_t kMaxIdsPerRead = 4096;
  static constexpr std::size_t kSharedIdsPerRead = 512;
  /// The most reads under way at a time. Each may return one op that is larger than what was reserved for it.
  static constexpr std::size_t kMaxReads = 16;
  /// See `is_busy`.
  static constexpr Duration kBusyFor = std::chrono::milliseconds(100);

  struct Limits {
    std::size_t max_requests_per_peer = 64;
    std::uint64_t max_response_bytes = 4U << 20;
    std::uint64_t max_far_response_bytes = 32U << 20;  ///< no effect if it is smaller
  };

  using RequestId = std::uint64_t;  ///< 1, 2, 3, … in the order of arrival
  using ReadId = std::uint64_t;     ///< 1, 2, 3, … in the order of starting; also names the response that it produces

  /// Look up ids of `request` in the store, and report by `on_read_ended` or `on_read_failed`. They are the ids that
  /// the last read of this request left over, or else the next ones of the request, `max_ids` at most.
  struct Read {
    ReadId read = 0;
    RequestId request = 0;
    Url peer;
    bool left_over = false;
    std::size_t max_ids = 0;
    std::uint64_t max_bytes = 0;
    friend bool operator==(const Read&, const Read&) = default;
  };
  /// Send what `read` returned, and report by `sent`.
  struct Send {
    ReadId read = 0;
    Url peer;
    friend bool operator==(const Send&, const Send&) = default;
  };
  /// What `read` returned is no longer wanted.
  struct Discard {
    ReadId read = 0;
    friend bool operator==(const Discard&, const Discard&) = default;
  };
  /// The request is answered or dropped. No later `Read` names it.
  struct Forget {
    RequestId request = 0;
    friend bool operator==(const Forget&, const Forget&) = default;
  };
  /// Close the connection of a peer that does not take what it requested (S6).
  struct Disconnect {
    Url peer;
    friend bool operator==(const Disconnect&, const Disconnect&) = default;
  };
  /// Requests of `peer` are dropped, each by a `Forget` before this (S15). `cost`: as told by `on_request`.
  struct Drop {
    Url peer;
    std::size_t requests = 0;  ///< those that have joined count each
    std::uint64_t cost = 0;
    friend bool operator==(const Drop&, const Drop&) = default;
  };
  using Action = std::variant<Read, Send, Discard, Forget, Disconnect, Drop>;

  /// The result of a read.
  struct ReadOutcome {
    bool has_ops = false;     ///< whether at least one op is held
    std::uint64_t bytes = 0;  ///< of their payload
    std::uint64_t ops = 0;
    bool left_over = false;     ///< `max_bytes` was reached before all ids of this read were looked up
    bool is_exhausted = false;  ///< no id of the request remains except those left over
  };

  explicit ServeCore(const Limits& limits) : limits_(limits) {}

  /// A peer requests ops. `cost` is the memory of the request while it waits, in bytes. nullopt: refused (S5). The id
  /// is that of an earlier request if this one has joined it: then its ids follow those of that request (S10). `ids`:
  /// how many it has.
  std::optional<RequestId> on_request(const Url& peer, std::uint64_t cost, Time now, bool is_small = false,
                                      std::size_t ids = 1000);
  /// How far `peer` is, as measured on its connection (S8). Must be called before each of its requests.
  void note_round_trip(const Url& peer, Duration trip);
  /// The store has answered. Each read ends exactly once, in any order, even if nobody waits for it any more: then the
  /// result is false, and what the read returned can be dropped.
  bool on_read_ended(ReadId read, const ReadOutcome& outcome, Time now);
  /// The store has failed, so the request ends. Otherwise as on_read_ended.
  bool on_read_failed(ReadId read);
  /// The transport has accepted the response (`ok`), or could not send it. Each `Send` ends exactly once. About
  /// `again_bytes` of an accepted one were sent to the peer before (S12).
  void on_sent(ReadId read, bool ok, Time now, std::uint64_t again_bytes = 0);
  /// The connection of `peer` is closed: its requests are dropped, and it must show again that it listens.
  void forget(const Url& peer);
  /// Drops everything, without actions. Reads and sends under way may still be reported afterwards.
  void stop();

  std::vector<Action> take_actions() { return std::exchange(actions_, {}); }
  /// When `on_deadline` must be called; nullopt: no time limit is running.
  std::optional<Time> next_deadline() const;
  /// Disconnects the peers for which kPatience has passed (S6), and reads for minor requests again (S11). No-op before
  /// the deadline.
  void on_deadline(Time now);

  std::size_t reads_under_way() const { return reads_.size(); }
  /// Whether peers wait for answers, or did within the last kBusyFor.
  bool is_busy(Time now) const { return !peers_.empty() || now < busy_until_; }

  /// For tests: recomputes every sum, and aborts if one is wrong. O(n).
  void check_invariants() const;

 private:
  struct Request {
    RequestId id = 0;
    std::uint64_t cost = 0;
    bool has_begun = false;
    bool is_small = false;
    std::size_t joined = 1;  ///< S10: how many it is
    std::size_t ids = 0;     ///< S11
    std::uint64_t held = 0;  ///< how many of them were found so far
  };
  enum Kind : std::uint8_t { major, minor };  ///< S11
  /// Peers that have shown that they listen, and the others (S6).
  struct Lane {
    std::array<std::deque<Url>, 2> turns;  ///< by kind
    std::uint64_t serving_bytes = 0;
    bool is_waited_for() const { return !turns[major].empty() || !turns[minor].empty(); }
  };
  struct Ready {
    ReadId read = 0;
    std::uint64_t bytes = 0;
    Lane* lane = nullptr;
    Kind kind = major;
    std::int64_t age = 0;  ///< S11: the one in which it was read
  };
  /// What a peer has shown on its connection.
  struct Known {
    std::uint64_t taken = 0;                   ///< bytes, up to kProvenBytes
    Duration trip{0};                          ///< as the transport says
    Duration seen_trip{kLongestTrip};          ///< S13
    bool took_large = false;                   ///< a response over kFrameBytes
    bool is_measured = false;                  ///< S13: `trip` is later than that response
    bool had_many = false;                     ///< S13: more than two requests waited
    std::array<std::optional<Time>, 2> ended;  ///< S13: the last request, and the one before
    bool has_large_ops = false;                ///< in its last response
    bool got_few = false;                      ///< S11: by its last request for more than that
    std::uint64_t far_bytes = 0;               ///< S8: for large ops; 0: not known
    std::uint64_t sent = 0, sent_again = 0;    ///< S12
    Duration distance() const { return is_measured ? trip : std::min(trip, seen_trip); }
    bool asks_again() const { return sent_again >= kProvenBytes && sent_again > sent / 2; }
  };
  struct Peer {
    std::deque<Request> requests;
    std::size_t waiting = 0;  ///< how many requests these are, before they joined
    std::uint64_t queued_bytes = 0;
    std::uint64_t serial = 0;  ///< distinguishes this entry from an earlier one of the same url
    bool is_reading = false;
    bool is_sending = false;
    bool is_sending_much = false;  ///< more than max_response_bytes
    bool is_in_turn = false;       ///< it is in its lane's turns
    bool has_left_over = false;    ///< the last read was cut short
    std::optional<Ready> ready;    ///< read, and waiting for the send before it

    bool is_idle() const { return requests.empty() && !is_reading && !is_sending && !ready; }
  };
  struct Reading {
    Url peer;
    std::uint64_t serial = 0;
    std::uint64_t max_bytes = 0;
    Lane* lane = nullptr;
    Kind kind = major;
  };
  /// A response of the unproven lane that is under way.
  struct Watched {
    Url peer;
    Time since;
  };
  /// A response that is under way.
  struct UnderWay {
    Url peer;
    std::uint64_t serial = 0;
    Time since;
  };
  struct Sending {
    Url peer;
    std::uint64_t serial = 0;
    std::uint64_t bytes = 0;
    Time since;
    Lane* lane = nullptr;
    Kind kind = major;
    std::int64_t age = 0;  ///< S11: the one in which the send began
    std::list<Watched>::iterator watched;
    std::list<UnderWay>::iterator under_way;
  };
  using PeerMap = std::map<Url, Peer>;

  Peer* find(const Url& peer, std::uint64_t serial);
  bool has_queue_room(const Peer& entry, std::uint64_t cost) const;
  void make_queue_room(const Peer& entry, std::uint64_t cost);
  void drop_requests(const Url& peer, Peer& entry);
  static bool may_join(const Peer& entry);
  static void note_arrival(Known& known, std::size_t waiting, Time now);
  Lane& lane_of(const Url& peer);
  Lane* other(const Lane* lane) { return lane == &proven_ ? &unproven_ : &proven_; }
  static void note_yield(Known& known, const Request& request, bool has_ended);
  Kind kind_of(const Url& peer, const Peer& entry) const;
  std::uint64_t most_bytes(const Url& peer) const;
  bool has_room(const Lane& lane, Kind kind) const;
  bool may_give_turn(const Lane& lane, Kind kind) const { return !lane.turns[kind].empty() && has_room(lane, kind); }
  bool give_turn(Kind kind);
  bool is_contended() const;
  std::int64_t allowance() const;
  void change_allowance(std::int64_t bytes);
  bool may_read_minor() const { return !is_contended() || (minor_reads_ == 0 && allowance() > 0); }
  void advance(Time now) {
    now_ = std::max(now_, now);
    if (now_ >= next_age_at_) grow_old();
  }
  void grow_old();
  void count(Kind kind) { fresh_majors_[0] += kind == major ? 1 : 0; }
  bool uncount(Kind kind, std::int64_t age);
  void end(Kind kind, std::int64_t age, bool is_taken);
  void note_others() { others_until_ = now_ + kBusyFor; }
  bool are_majors_served() const { return major_reads_ + fresh_majors_[0] + fresh_majors_[1] > 0; }
  void take_turn(const Url& peer, Peer& entry);
  void leave_turn(const Url& peer, Peer& entry);
  void serve();
  void begin_read(const Url& peer, Peer& entry, Lane& lane, Kind kind);
  void adapt(Known& known, const Sending& sending, Time now) const;
  void begin_send(const Url& peer, Peer& entry, const Ready& ready, Time now);
  void end_request(const Url& peer, Peer& entry);
  void drop_ready(Peer& entry);
  void go_on(const Url& peer, Peer& entry);
  std::optional<Reading> take_read(ReadId read);

  const Limits limits_;
  PeerMap peers_;
  Lane proven_, unproven_;
  std::array<Lane*, 2> next_lane_{&proven_, &proven_};  ///< S9, by kind
  std::size_t major_reads_ = 0, minor_reads_ = 0;
  /// S11: read, or being sent, and that in this age, or in the one before.
  std::array<std::size_t, kAges> fresh_majors_{};
  std::int64_t age_ = 0;
  Time next_age_at_{kAge};
  Time others_until_{};  ///< S11: until when those of `major` count that were served
  std::int64_t allowance_ = kMinorBurst;
  Time allowance_at_{};
  Time now_{};  ///< the latest time that was told
  std::map<Url, Known> known_;
  std::unordered_map<ReadId, Reading> reads_;
  std::unordered_map<ReadId, Sending> sends_;
  std::list<Watched> watched_;     ///< in the order of sending
  std::list<UnderWay> under_way_;  ///< of all of `sends_`, in the order of sending
  std::vector<Action> actions_;
  std::uint64_t queued_bytes_ = 0;
  std::uint64_t next_serial_ = 1;
  RequestId next_request_ = 1;
  ReadId next_read_ = 1;
  Time busy_until_ = Time::min();
  bool is_stopped_ = false;
};

}  // namespace kitsune2
