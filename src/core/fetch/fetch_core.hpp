// The state machine of the fetch module: which op is requested from which source, when, and when again.
#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "core/fetch/back_off.hpp"
#include "core/fetch/slab.hpp"
#include "core/fetch/window.hpp"
#include "kitsune2/config.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// One request message to be sent.
struct FetchRequest {
  std::uint64_t id = 0;  ///< 1, 2, 3, … in the order of requests; never reused
  Url source;
  std::vector<OpId> op_ids;
};

/// A source answered without these ops.
struct FetchMissing {
  Url source;
  std::vector<OpId> op_ids;
};

/// A source was given up; its pairs are dropped.
struct FetchGivenUp {
  Url source;
  std::vector<OpId> orphaned;  ///< ops that had no other source; no longer pending
  std::uint64_t pairs = 0;     ///< how many pairs were dropped
};

/// A source that can be reached never sent these ops, however often it was asked. Their pairs are dropped. R16.
struct FetchUnserved {
  Url source;
  std::vector<OpId> op_ids;
  std::vector<OpId> orphaned;  ///< those of them that had no other source; no longer pending
};

/// The verdict on one op of a response.
enum class FetchVerdict : std::uint8_t {
  wanted,       ///< pending: hand it to the store, then call on_stored() or on_store_failed()
  duplicate,    ///< pending, and a copy of it is on its way to the store
  not_pending,  ///< its source was asked for it, but it is no longer needed: the answer is late, or a repetition
  unasked,      ///< not pending, and its source was not asked for it (or has answered already)
};

struct FetchAdded {
  std::uint64_t added = 0;    ///< new pairs
  std::uint64_t known = 0;    ///< pairs that existed already, or occur twice in the list
  std::uint64_t refused = 0;  ///< new pairs for which there was no room; then `added` is 0
};

struct FetchAnswer {
  std::vector<FetchVerdict> verdicts;  ///< one for each op of the response, in the same order
  std::vector<FetchMissing> missing;
  std::vector<FetchUnserved> unserved;
  std::uint64_t read_mark = 0;           ///< R19: of a request that its source has read; 0: of none
  bool put_aside = false;                ///< R15: its connection is to be closed
  std::optional<FetchGivenUp> given_up;  ///< R15: for the last time
};

struct FetchReplaced {
  std::vector<OpId> moved;    ///< ops whose pair is at the new source now and was not before
  std::uint64_t refused = 0;  ///< pairs for which the new source had no room; then nothing has changed
  bool known = false;         ///< the old source was known
};

struct FetchLost {
  std::uint64_t ended = 0;  ///< requests that ended with the connection
  std::vector<FetchUnserved> unserved;
};

struct FetchDue {
  std::vector<FetchMissing> missing;
  std::vector<FetchUnserved> unserved;
  std::uint64_t overdue = 0;  ///< requests that were given up
};

struct FetchCounts {
  std::uint64_t ops = 0;          ///< pending in any state
  std::uint64_t pairs = 0;        ///< (op, source)
  std::uint64_t asked_ops = 0;    ///< in a request that is under way
  std::uint64_t storing_ops = 0;  ///< received, not yet stored
  std::uint64_t requests = 0;     ///< under way
  std::uint64_t known_bytes = 0;  ///< of asked ops, by the average op size seen from their source
  std::uint64_t sources = 0;      ///< known sources, with or without pairs
  std::uint64_t sources_backing_off = 0;
  friend bool operator==(const FetchCounts&, const FetchCounts&) = default;
};

/// Knows which ops are to be fetched from which sources, and decides what to request next. Pure: no I/O and no clock;
/// the same calls give the same answers.
///
/// Words. A *pair* is (op, source url). An op is *queued* (may be requested), *asked* (in one request under way) or
/// *storing* (received, not yet durable). A pair is *ready* in its source's queue, *waiting* until a time, or *idle*
/// (its op is not queued). A source is *backing off* while an interval of its back-off runs, and *doubtful* if its
/// latest event was a failure to send or a request that got no answer.
///
/// Rules
///  R1  A pair is kept once. `add` beyond max_pending or max_pending_per_peer adds nothing and says so.
///      Rationale: a bound that the caller sees; an op is never dropped silently.
///  R2  An op is in at most one request at a time, whatever the number of its sources; a request takes what became
///      ready first. Rationale: eight sources must not mean eight downloads.
///  R3  Of the sources that have something ready, a free place among their parallel_request_count requests (R17: or
///      more) and no back-off, the one that was asked longest ago is next (a new one first, then by age). Doubtful ones
///      only if there is no other. Rationale: a slow peer costs only itself, and sources share the work by what each
///      can take.
///  R4  A source is asked for 32 ids at first. The number grows fourfold with each request that it answers; with each
///      that stays without any answer it falls to 16, 8, … 1, and from then on it only doubles. It is bounded by
///      max_ids_per_request, by kRequestBytes of ids (438 of 32 bytes) and by target_request_bytes, going by the
///      average op size seen from that source; and what is ready is spread over the free places of the sources that
///      hold it, down to 16 ids. A doubtful source gets one request at a time, of at most 16 ids. Rationale: messages
///      are the cost; a peer that cannot send large answers is found out; a dead one holds few ops; a request that fits
///      one frame of the transport needs no permit, so it never waits behind those who hoard permits.
///  R5  A request is overdue when re_insert_outgoing_request_delay has passed since it was sent and since the last sign
///      of life from its source. Then its place is free and its ops are queued again: at the other sources at once, at
///      this one after the delay; at once if it is the only one. Without any answer the source becomes doubtful.
///      Rationale: the reference puts an op back after this delay as well; another source is asked only then.
///  R6  Every 15 delays the ops of a request that have another source leave it, signs of life or not, and if it has no
///      op answered the source is doubtful.
///      Rationale: a trickling peer must not hold an op hostage.
///  R7  A request that waits to be sent is looked at every delay: its ops that have another source leave it and the
///      source is doubtful. The place stays taken until on_sent() or on_send_failed(). Rationale: connecting can take a
///      minute.
///  R8  Ops that a request leaves unanswered are missing at the source when the request was answered in part and is
///      overdue, or when a later request was answered completely or a message held ops of one later request only.
///      They are queued at other sources at once, and here after delay, 2, 4, … 64 delays, growing with each silence
///      (R16).
///      Rationale: peers answer in order, and stock nodes say nothing of what they lack.
///  R9  on_send_failed(): back-off as in BackOff; the ops are queued again, at this source when its back-off ends. A
///      failure after the last interval drops the source with all its pairs. on_sent() clears the back-off, and so does
///      an answer.
///  R10 An op leaves only by on_stored(), or when its last source is given up or removed; not while it is storing.
///      on_store_failed() makes all its pairs wait for the delay. Rationale: persisted first, then forgotten.
///      on_refused() drops the pair of the source that has sent what may not be stored; the op is queued at its other
///      sources at once, and leaves with its last pair. Rationale: the source would send the same again, but another
///      one may have said something else about the op.
///  R11 Time does not go back: a `now` before the latest one counts as that one.
///  R12 A source without pairs and requests, not backing off, is remembered (size, doubt, failures) until 1,024 later
///      ones are in that state. Rationale: bounded, and small batches do not start from nothing.
///  R13 on_disconnect() ends the requests that were sent. Their ops are queued at other sources at once; here at once
///      if the source has answered something since the request was sent, else after the delay and it is doubtful.
///      Rationale: no answer can come any more; a peer that hangs up on each request is not asked in a tight loop.
///  R14 replace_source(): the pairs of a url that is out of use go to another at once, those that waited too, in the
///      order ready, idle, waiting, and what was asked of the old one is queued again. A new source that was not known
///      starts with the old one's op size and at least its number of ids, without its doubt and back-off. No more than
///      max_pending_per_peer come together there, else nothing changes.
///      Rationale: what holds for the peer moves, what holds for its address stays behind; a peer that comes back under
///      another url is not waited for under the old one.
///  R15 A *bad* op fails the host's policy, or it is not wanted (R10) and its source was not asked for it as many times
///      as it sends it (unless accept_unsolicited). Each costs the source one point, up to kBadOps; kForgiveOps wanted
///      ops take one back. With the one that makes kBadOps, and each further one, the source is put aside: its
///      connection is to be closed, its requests end, and if it has pairs it backs off as in R9, up to being given up;
///      that back-off is not cleared by on_sent(), only by an answer with a wanted op and no bad one. What was asked
///      and left unanswered is remembered for this, by a 32-bit hash and for kLateOps ops at once, beyond that as a
///      mere number, and across a removal or replacement of the source as a number for the last kSourcesRemembered of
///      them. Rationale: an answer that comes late, or twice because it was asked for twice, is no fault; a peer that
///      sends nothing but rubbish costs at most kBadOps ops and one message an interval.
///  R16 A source is *silent* about an op when a request for it was sent and ended without it: as missing (R8), or as
///      overdue or lost with its connection (R5, R13) while no part of a message came in, since 15 delays before it was
///      sent. From the fifth time on the pair waits after R5 and R13 too: 1, 2, 4, … 64 delays, growing with each time.
///      The pair is dropped with the 12th silence if the source has answered anything within the last 128 delays, and
///      with the 32nd in any case; the op goes with its last pair. Such ops are remembered, the last kDroppedOps of
///      them: one that comes after all, from a source that still owes it (R15), is wanted. When the store fails, the
///      silences of an op's sources are forgotten.
///      Rationale: a peer may name what it cannot send, and 0.2.2 has no word for no; an op that is larger than what a
///      connection carries would be asked for until the end of days. At the defaults the 12th comes after 5 to 13
///      minutes, the 32nd after 48: a peer that answers others but not this says something about the op, a mute one
///      does not, and may yet come back under another url (R14). A slow line loses nothing: what arrives in parts is no
///      silence, and a late answer is taken.
///  R17 A source whose round trip is long (FetchWindow W6) has further places, up to max_parallel_request_count in all,
///      while its requests ask for less than its window; unless parallel_request_count is not at its default. Such a
///      source is asked for ops that are below kFrameBytes on average in requests whose answers have at most
///      kFrameBytes, and for larger ones in requests of kLargeWindows windows (at most kLargeRequestBytes), if that is
///      more than target_request_bytes, and that is at its default. Ops that others hold too are asked for in requests
///      of at most what the source delivers in kShareTime (large ones: in kLargeShareTime or kShareTrips round trips,
///      whichever is longer, and in whole multiples of target_request_bytes); nothing is spread over its free places
///      otherwise. A request that stays without any answer (R5, R8)
///      narrows the window. Rationale: an answer of one frame needs no permit, which would cost a round trip each; a
///      large one earns it. What a slow source was asked for last is what all others wait for in the end.
///  R18 When nothing is ready anywhere, a source takes over ops that another one, which holds them too, has not sent
///      yet, if that one is *behind*: the first of its open requests was sent kHurryTime ago, a sign of life came
///      since, and all of them take it kHurryTime longer than twice the time until the first of the ops would come from
///      here. The time is by the rates that both have shown; of a source that has sent no op, each op takes as long as
///      that request. Only a source with a free place takes over, that will have all it was asked for in kHurryTime and
///      two round trips, and owes nothing (R15). The one that is furthest behind gives first, from the last op that was
///      asked of it on; so many that both would end at the same time, within the bounds of one request. The last
///      kHurryScan ops of a source are looked at, kHurryLooks ops at once; when none is found, nothing is looked at for
///      kHurryRest for each op and source that was; and an op is taken over once until it is queued again. What its
///      first source sends after all is late (R15). Rationale: what a slow source was asked for before its rate or the
///      size of its ops was known is not to hold up the end. It comes twice, since nothing takes a request back; so
///      this is not done to save little time. A source without a sign of life is left to R5: without its requests
///      nothing would ever tell that it is gone.
///  R19 When a marked request is first answered, and with the op that its list began with, its source has shown
///      log2(ids) bits, rounded down, that it has read the list. If with another one, it has shown nothing, nor have
///      its answers before. With kReadBits the request's mark is returned, and it begins anew; also after its
///      connection is lost. Rationale: peers answer in order, and which id comes first is chosen at random, so who has
///      not read a request cannot know it. A peer that answers in another order shows nothing and loses nothing.
///
/// Everything that R5-R9 and R16 let wait happens in poll(); next_deadline() says when. The driver calls poll(now),
/// then next_request(now) until nullopt, after every event and at every deadline.
///
/// Complexity, n = pairs: add, stored, response, is_wanted, has: O(1) expected per op and per pair touched;
/// next_request O(ids * sources of each + log sources); source removal O(its pairs); next_deadline O(1); nothing scans,
/// but for R18 (sources and their requests, and kHurryLooks ops).
/// Memory: about 100 bytes for an op (ids up to 39 bytes in place) with one source, 32 for each further source; it goes
/// back to the allocator chunk by chunk as work drains.
/// Thread rule: one thread at a time (the owner's strand). Nothing is called back.
class FetchCore {
 public:
  static constexpr std::uint32_t kFirstRequestIds = 32;           ///< R4
  static constexpr std::uint32_t kDoubtfulIds = 16;               ///< R4
  static constexpr std::uint32_t kLeastShare = 16;                ///< R4
  static constexpr std::uint32_t kRequestBytes = 15'360;          ///< R4; one id always fits
  static constexpr std::uint32_t kIdFrameBytes = 3;               ///< R4: counted for each id, besides its own bytes
  static constexpr std::uint64_t kFrameBytes = 15'360;            ///< R17: of ops in a message that needs no permit
  static constexpr std::uint64_t kOpFrameBytes = 8;               ///< R17: counted for each op, besides its own bytes
  static constexpr std::uint64_t kLargeRequestBytes = 32U << 20;  ///< R17
  static constexpr std::uint64_t kLargeWindows = 8;               ///< R17
  static constexpr Duration kShareTime = std::chrono::milliseconds(250);       ///< R17
  static constexpr Duration kLargeShareTime = std::chrono::milliseconds(500);  ///< R17
  static constexpr int kShareTrips = 8;                                        ///< R17
  static constexpr Duration kHurryTime = std::chrono::milliseconds(500);       ///< R18
  static constexpr std::size_t kHurryScan = 512;                               ///< R18
  static constexpr std::size_t kHurryLooks = 4096;                             ///< R18
  static constexpr Duration kHurryRest = std::chrono::microseconds(4);         ///< R18
  static constexpr std::uint32_t kReadBits = 16;                               ///< R19
  static constexpr std::uint32_t kHostageDelays = 15;                          ///< R6
  static constexpr std::uint32_t kMissLevels = 7;                              ///< R8: 1, 2, 4, … 64 delays
  static constexpr std::size_t kSourcesRemembered = 1024;                      ///< R12, R15
  static constexpr std::uint32_t kBadOps = 32;                                 ///< R15
  static constexpr std::uint32_t kForgiveOps = 16;                             ///< R15
  static constexpr std::size_t kLateOps = 65'536;                              ///< R15
  static constexpr std::uint32_t kQuickAsks = 4;         ///< R16: silences that R5 and R13 treat as ever
  static constexpr std::uint32_t kMostAsks = 12;         ///< R16: of a source that answers others
  static constexpr std::uint32_t kMostAsksOfAMute = 32;  ///< R16
  static constexpr std::size_t kDroppedOps = 4096;       ///< R16

  /// `config` must be valid.
  explicit FetchCore(const CoreFetchConfig& config);
  FetchCore(const FetchCore&) = delete;
  FetchCore& operator=(const FetchCore&) = delete;

  /// Adds (op, source) pairs. R1. `fresh` receives the positions in `op_ids` of the new ones.
  FetchAdded add(std::span<const OpId> op_ids, const Url& source, Time now,
                 std::vector<std::uint32_t>* fresh = nullptr);

  /// The next message to send, or nullopt if there is none now. It is under way until on_sent() or on_send_failed().
  std::optional<FetchRequest> next_request(Time now);

  /// Notes `mark`, which is not 0, for a request that is not sent yet, and puts its id number `first` (modulo their
  /// number) in front. R19.
  void mark(FetchRequest& request, std::uint64_t mark, std::uint64_t first);
  /// The transport has accepted the message. No effect on a request that was sent or is gone.
  void on_sent(std::uint64_t request, Time now);
  /// The message was not delivered, or its connection was lost. No effect on a request that is gone. R9.
  std::optional<FetchGivenUp> on_send_failed(std::uint64_t request, Time now);

  /// The connection to `source` is closed. No effect for an unknown source. R13, R16.
  FetchLost on_disconnect(const Url& source, Time now);

  /// `bytes` of an incomplete message of `source` have arrived: a sign of life. No effect for 0 bytes or an unknown
  /// source.
  void on_progress(const Url& source, std::uint64_t bytes, Time now);
  /// A message with the ops `op_ids`, of `bytes` in total, has arrived from `source` (requested or not), with `invalid`
  /// more ops that failed the policy. R5, R8, R15.
  FetchAnswer on_response(const Url& source, std::span<const OpId> op_ids, std::uint64_t bytes, Time now,
                          std::uint64_t invalid = 0);
  /// Whether `source` may still send ops that are not pending without being at fault. R15.
  bool owes(const Url& source) const;

  /// The ops are durable, from whatever source. Returns how many of them were pending. R10.
  std::uint64_t on_stored(std::span<const OpId> op_ids, Time now);
  /// The store failed. Ops that are not storing stay as they are. Returns those that have no source any more and are no
  /// longer pending. R10.
  std::vector<OpId> on_store_failed(std::span<const OpId> op_ids, Time now);
  /// The host does not take these ops from `source`, which has sent them. No effect on ops that are not storing. R10.
  void on_refused(std::span<const OpId> op_ids, const Url& source, Time now);

  /// Forgets a source with its pairs, requests and back-off. Returns nullopt if it is not known.
  std::optional<FetchGivenUp> remove_source(const Url& source, Time now);
  /// The peer at `old_source` is at `new_source` now. No effect if
  /// they are equal or the old one is not known. R14.
  FetchReplaced replace_source(const Url& old_source, const Url& new_source, Time now);
  /// Forgets everything.
  void clear();

  /// Does everything that is due at `now`.
  FetchDue poll(Time now);
  /// The time at which poll() has work to do: after poll(now), later than now. nullopt: nothing waits for time.
  std::optional<Time> next_deadline() const;

  /// Whether the op is pending, in any state.
  bool is_pending(const OpId& op_id) const { return find(op_id) != kNoSlot; }
  /// Whether the op is pending and no copy of it is on its way to the store.
  bool is_wanted(const OpId& op_id) const;
  bool has(const OpId& op_id, const Url& source) const;
  /// Takes out of `op_ids` those that are pending at `source`. Returns how many.
  std::size_t take_known(std::vector<OpId>& op_ids, const Url& source) const;
  /// The ops that request `id` still waits for: not answered, and not handed to another source meanwhile (R7).
  std::vector<OpId> asked_by(std::uint64_t id) const;
  std::uint64_t pending_ops() const { return ops_.size(); }
  std::uint64_t pending_pairs() const { return pairs_.size(); }
  std::uint64_t pending_pairs(const Url& source) const;
  /// Calls `call(url, pairs)` for each source that has pairs pending.
  template <class F>
  void for_each_source(F call) const {
    sources_.for_each([&](std::uint32_t, const Source& source) {
      if (source.pairs > 0) call(source.url, std::uint64_t{source.pairs});
    });
  }
  std::uint64_t storing_ops() const { return storing_ops_; }
  /// The bytes of the ids of all pending ops.
  std::uint64_t id_bytes() const { return id_bytes_; }
  /// O(sources).
  FetchCounts counts() const;

  /// Calls `f` for each pending op with its sources, in no particular order. `f` must not call this object.
  void for_each_op(const std::function<void(const OpId&, const std::vector<Url>&)>& f) const;
  /// The sources that are backing off, and until when.
  std::vector<std::pair<Url, Time>> backing_off() const;

  /// Asserts everything that must hold between calls. O(n log n); for tests and simulations.
  void check_invariants() const;

 private:
  static constexpr unsigned kSourceBits = 22;
  enum class State : std::uint32_t { queued, asked, storing };
  /// The place of a pair. From kWaiting on: waiting in the list of that level.
  static constexpr std::uint32_t kIdle = 0;
  static constexpr std::uint32_t kReady = 1;
  static constexpr std::uint32_t kWaiting = 2;
  static constexpr std::uint32_t kChainSearch = 8;  ///< an op with more sources has its pairs in pair_index_

  struct Op {
    OpId id;
    std::uint32_t first_pair = kNoSlot;  ///< of a ring, in the order of adding
    std::uint32_t request = kNoSlot;     ///< slot, if asked
    std::uint32_t hash = 0;
    State state : 2 = State::queued;
    std::uint32_t indexed : 1 = 0;  ///< its pairs are in pair_index_
    std::uint32_t hurried : 1 = 0;  ///< R18: taken over since it was queued
    std::uint32_t sources : 28 = 0;
  };
  static_assert(sizeof(Op) == 56);

  struct Pair {
    std::uint32_t op;
    std::uint32_t source : kSourceBits;
    std::uint32_t place : 4 = kIdle;
    std::uint32_t silences : 6 = 0;  ///< R16, below kMostAsksOfAMute
    std::uint32_t op_next = kNoSlot, op_prev = kNoSlot;
    std::uint32_t next = kNoSlot, prev = kNoSlot;  ///< in the list of its place
    Time due{};                                    ///< if it is waiting
  };
  static_assert(sizeof(Pair) == 32);

  /// A list through the records of a slab.
  struct List {
    std::uint32_t head = kNoSlot, tail = kNoSlot;
    bool empty() const { return head == kNoSlot; }
  };
  struct Links {
    std::uint32_t next = kNoSlot, prev = kNoSlot;
  };

  struct Request {
    std::uint64_t id = 0;
    std::uint32_t source = kNoSlot;
    std::uint32_t size = 0;      ///< ids that were requested
    std::uint32_t left = 0;      ///< ops that still belong to this request
    std::uint32_t answered = 0;  ///< ops that arrived from its source
    bool is_sent = false;
    Time begun{};
    Time sent_at{};
    Time deadline = Time::min();    ///< R5, R7; in the list of deadlines once set
    Time hostage_deadline{};        ///< R6; in the list of hostage deadlines once sent
    FetchWindow::Mark mark;         ///< R17; once sent
    std::uint64_t read_mark = 0;    ///< R19
    std::uint32_t first = kNoSlot;  ///< R19: the op that comes first
    Links by_deadline, by_hostage, by_source;
    std::vector<std::uint32_t> ops;  ///< slots in the order of the request; an op that names another request has left
  };

  enum class Ring : std::uint8_t { none, live, doubtful, free };
  struct Source {
    Url url;
    std::uint64_t age = 0;   ///< serial number
    std::uint64_t turn = 0;  ///< id of its latest request
    std::uint64_t pairs = 0;
    std::uint64_t ready = 0;
    std::uint64_t asked_ops = 0;
    std::uint64_t op_size = 0;   ///< average; 0: not known
    std::uint64_t last_ops = 1;  ///< in its last message (R18)
    List ready_list, idle_list;
    std::array<List, kMissLevels> waiting_lists;
    List requests;  ///< in the order of requests
    std::uint32_t requests_open = 0;
    std::uint32_t most_ids = 0;   ///< R4, before the other bounds
    std::uint32_t read_bits = 0;  ///< R19
    bool has_shrunk = false;      ///< most_ids has fallen, so it only doubles
    FetchWindow window;           ///< R17
    bool unanswered = false;      ///< its latest overdue request got no answer at all
    Time last_answer = Time::min();
    Time last_part = Time::min();  ///< when a part of an incomplete message last arrived
    BackOff back_off;
    bool backing_off = false;                                      ///< it is in back_offs_
    bool put_aside = false;                                        ///< it backs off for bad ops
    std::uint32_t bad_score = 0;                                   ///< R15, in 1/kForgiveOps points
    boost::unordered_flat_map<std::uint32_t, std::uint32_t> late;  ///< requested and unanswered: hash -> how often
    std::uint64_t late_more = 0;                                   ///< the same for what exceeds kLateOps
    std::uint64_t late_all = 0;                                    ///< both
    bool is_spare = false;                                         ///< it is in spare_sources_
    Ring ring = Ring::none;
    Links spare;
  };

  // Keys of ordered sets.
  /// What a source that is gone had left unanswered.
  struct Departed {
    std::uint64_t late;
    std::uint64_t number;  ///< in the order of removal
  };
  struct Turn {
    std::uint64_t turn, age;
    std::uint32_t source;
    auto operator<=>(const Turn&) const = default;
  };
  struct BackOffEnd {
    Time until;
    std::uint64_t age;
    std::uint32_t source;
    auto operator<=>(const BackOffEnd&) const = default;
  };
  struct WaitEnd {
    Time due;
    std::uint32_t level;
    std::uint64_t age;
    std::uint32_t source;
    auto operator<=>(const WaitEnd&) const = default;
  };

  // The index of ops holds only slots; ids are compared in the records.
  struct OpKey {
    ByteView id;
    std::uint32_t hash;
  };
  struct OpHash {
    using is_transparent = void;
    const Slab<Op>* ops;
    std::size_t operator()(std::uint32_t slot) const { return (*ops)[slot].hash; }
    std::size_t operator()(const OpKey& key) const { return key.hash; }
  };
  struct OpEqual {
    using is_transparent = void;
    const Slab<Op>* ops;
    bool operator()(std::uint32_t a, std::uint32_t b) const { return a == b; }
    bool operator()(const OpKey& key, std::uint32_t slot) const {
      const Op& op = (*ops)[slot];
      return op.hash == key.hash && as_text(op.id.view()) == as_text(key.id);
    }
    bool operator()(std::uint32_t slot, const OpKey& key) const { return (*this)(key, slot); }
  };
  // The index of pairs, for ops with many sources.
  struct PairKey {
    std::uint32_t op, source;
  };
  struct PairHash {
    using is_transparent = void;
    const Slab<Pair>* pairs;
    static std::size_t mix(std::uint32_t op, std::uint32_t source) {
      return ((static_cast<std::uint64_t>(op) << 24U) ^ source) * 0x9e37'79b9'7f4a'7c15U;
    }
    std::size_t operator()(std::uint32_t slot) const { return mix((*pairs)[slot].op, (*pairs)[slot].source); }
    std::size_t operator()(const PairKey& key) const { return mix(key.op, key.source); }
  };
  struct PairEqual {
    using is_transparent = void;
    const Slab<Pair>* pairs;
    bool operator()(std::uint32_t a, std::uint32_t b) const { return a == b; }
    bool operator()(const PairKey& key, std::uint32_t slot) const {
      return (*pairs)[slot].op == key.op && (*pairs)[slot].source == key.source;
    }
    bool operator()(std::uint32_t slot, const PairKey& key) const { return (*this)(key, slot); }
  };

  // --- lookup
  static std::uint32_t hash_of(const OpId& op_id) { return static_cast<std::uint32_t>(keyed_hash(op_id.view())); }
  std::uint32_t find(const OpId& op_id) const { return find({op_id.view(), hash_of(op_id)}); }
  std::uint32_t find(const OpKey& key) const;
  /// The op behind this one in the list of its only source. *Rationale*: ops come, are stored and are named again
  /// mostly in the order in which they were asked of a source, which is the order of these lists. So this one is looked
  /// at before the index: nothing is hashed then, and no place of the index is read.
  std::uint32_t op_after(std::uint32_t op) const;
  bool is_op(std::uint32_t op, const OpId& op_id) const {
    return op != kNoSlot && as_text(ops_[op].id.view()) == as_text(op_id.view());
  }
  std::uint32_t find_source(const Url& url) const;
  static constexpr std::size_t most_sources() { return (std::size_t{1} << kSourceBits) - 4096; }
  std::uint32_t find_pair(std::uint32_t op, std::uint32_t source) const;
  template <class F>
  void for_each_pair_of(const Op& op, F&& f);

  // --- ops and pairs
  std::uint32_t new_op(const OpId& op_id, std::uint32_t hash);
  void fit_op_index();
  void fit_pair_index();
  void fit_indexes();
  void new_pair(std::uint32_t op, std::uint32_t source);
  void erase_op(std::uint32_t op);  ///< together with its pairs
  void erase_pair(std::uint32_t pair);
  void leave_list(std::uint32_t pair);
  void enter_list(std::uint32_t pair, List& list, std::uint32_t place);
  void put_idle(std::uint32_t pair);
  void put_ready(std::uint32_t pair);
  void put_waiting(std::uint32_t pair, std::uint32_t level);
  void queue_op(std::uint32_t op);                 ///< from asked or storing to queued; idle pairs become ready
  void unqueue_op(std::uint32_t op, State state);  ///< ready pairs become idle

  // --- requests
  void leave_request(std::uint32_t op);  ///< for an op that is asked
  void end_request(std::uint32_t request);
  void end_if_done(std::uint32_t request);
  void arm(std::uint32_t request);
  std::uint32_t open_request(std::uint32_t source);
  void put_in(std::uint32_t request, std::uint32_t op, FetchRequest& out);
  std::uint64_t size_limit(const Source& source) const;
  std::uint64_t time_limit(const Source& source) const;
  std::uint64_t request_limit(const Source& source) const;
  /// R17: the source has places beyond parallel_request_count.
  bool is_far(const Source& source) const { return follows_ && source.window.is_long(); }
  std::uint64_t asked_cost(const Source& source, std::uint64_t ops) const;
  bool has_place(const Source& source) const;
  void narrow(Source& source) { source.window.on_lost(config_.max_window_bytes, now_); }
  void grow(std::uint32_t request);
  std::vector<std::uint32_t> take_ops(std::uint32_t request);
  void release_all(std::uint32_t request);
  void release_shared(std::uint32_t request);
  void give_up_waiting(std::uint32_t request, FetchDue& out);
  void close_as_missing(std::uint32_t request, std::vector<FetchMissing>& out, std::vector<FetchUnserved>& unserved);
  bool is_doubtful(const Source& source) const { return source.unanswered || source.back_off.any(); }

  // --- answers
  /// What the ops of a message from one source have shown so far.
  struct Arrival {
    std::uint32_t next_op = kNoSlot;  ///< which one is likely to be the next of the message
    bool any_pending = false;
    std::uint64_t wanted = 0;
    std::uint64_t unasked = 0;
    std::uint64_t answered = 0;             ///< ops that were asked of this source
    std::uint64_t touched = 0;              ///< a request of this source that got an op of this message
    bool touched_several = false;           ///< more than one did
    std::optional<FetchWindow::Mark> mark;  ///< of the touched request
    std::uint64_t completed = 0;            ///< the latest one that is answered completely
    std::uint64_t read_mark = 0;            ///< R19
  };
  FetchVerdict take_op(std::uint32_t source, const OpId& op_id, Arrival& arrival);
  FetchVerdict take_unexpected(std::uint32_t source, const OpId& op_id, std::uint32_t hash, bool is_storing,
                               Arrival& arrival);
  void answer_request(std::uint32_t request, std::uint32_t op, Arrival& arrival);
  void note_order(const Request& request, std::uint32_t op, Arrival& arrival);
  void note_answer(Source& source, Arrival& arrival, std::uint64_t size);
  void close_before(std::uint32_t source, std::uint64_t request_id, FetchAnswer& out);

  // --- sources
  std::uint32_t new_source(const Url& url);
  void refresh(std::uint32_t source);  ///< updates its place among those that can be asked
  void refresh_all();
  void rest(std::uint32_t source);  ///< R12; called when it may have nothing left
  void erase_source(std::uint32_t source);
  void clear_back_off(std::uint32_t source);
  void sign_of_life(std::uint32_t source);
  FetchGivenUp drop_source(std::uint32_t source);
  void leave_ring(Source& source, std::uint32_t slot);
  void move_pair(std::uint32_t pair, std::uint32_t to, FetchReplaced& out);

  // --- sources that are behind (R18)
  std::optional<FetchRequest> take_over();
  /// In microseconds. 0: nothing says that the source is behind.
  struct Backlog {
    std::uint64_t all = 0, an_op = 0;
  };
  Backlog backlog(const Source& source) const;
  std::vector<std::uint32_t> last_asked(const Source& source, std::uint32_t also_at, std::uint64_t most,
                                        std::size_t& looks) const;
  std::set<Turn>& ring_of(Ring ring) { return ring == Ring::live ? live_ : ring == Ring::free ? free_ : doubtful_; }

  // --- silence (R16)
  bool is_silent(std::uint32_t request) const;
  /// Notes a silence about an op that is no longer in a request. Returns true if the pair is dropped.
  bool note_silence(std::uint32_t pair, std::vector<FetchUnserved>& out);
  void wait_after_silence(std::uint32_t pair, std::uint32_t quick);
  void remember_dropped(const OpId& op_id);
  bool forget_dropped(const OpId& op_id);

  // --- conduct (R15)
  void add_late(std::uint32_t source, std::uint32_t hash);
  bool take_late(std::uint32_t source, std::uint32_t hash);
  void forget_late(Source& source);
  /// Judges a message with this many wanted and bad ops.
  void judge(std::uint32_t source, std::uint64_t wanted, std::uint64_t bad, FetchAnswer& out);

  void check_ops() const;
  void check_sources() const;
  std::uint64_t check_list(std::uint32_t slot, const List& list, std::uint32_t place) const;
  std::size_t check_pairs_of(std::uint32_t slot, const Source& source) const;
  void check_requests_of(std::uint32_t slot, const Source& source) const;
  void check_ring_of(std::uint32_t slot, const Source& source) const;
  void check_departed() const;
  void check_requests() const;

  void advance(Time now) { now_ = now > now_ ? now : now_; }

  template <class Record, unsigned kBits>
  static void push(Slab<Record, kBits>& records, List& list, std::uint32_t slot, Links Record::*links);
  template <class Record, unsigned kBits>
  static void unlink(Slab<Record, kBits>& records, List& list, std::uint32_t slot, Links Record::*links);

  const CoreFetchConfig config_;
  const Duration delay_;
  const bool follows_;  ///< R17: parallel_request_count is at its default
  const BackOffPolicy back_off_policy_;
  Time now_ = Time::min();

  Slab<Op> ops_;
  Slab<Pair> pairs_;
  Slab<Request, 6> requests_;
  Slab<Source, 6> sources_;
  boost::unordered_flat_set<std::uint32_t, OpHash, OpEqual> op_index_;
  boost::unordered_flat_set<std::uint32_t, PairHash, PairEqual> pair_index_;
  boost::unordered_flat_map<std::uint64_t, std::uint32_t> request_index_;
  boost::unordered_flat_map<Url, std::uint32_t, std::hash<Url>> source_index_;

  std::set<Turn> live_, doubtful_;  ///< sources that can be asked now
  std::set<Turn> free_;             ///< that could be, if something were ready (R18)
  Time hurry_again_ = Time::min();  ///< R18: nothing is looked at before
  std::set<BackOffEnd> back_offs_;
  std::set<WaitEnd> waits_;  ///< the first pair of each waiting list
  List deadlines_;           ///< requests by deadline
  List hostage_deadlines_;   ///< sent requests by hostage_deadline
  List spare_sources_;       ///< R12, oldest first
  std::size_t spare_count_ = 0;
  std::size_t late_hashes_ = 0;  ///< in all sources
  boost::unordered_flat_map<Url, Departed, std::hash<Url>> departed_;
  std::map<std::uint64_t, Url> departed_order_;  ///< by Departed::number
  std::uint64_t last_departed_ = 0;
  boost::unordered_flat_map<OpId, std::uint64_t, std::hash<OpId>> dropped_;  ///< R16, with the order of dropping
  std::map<std::uint64_t, OpId> dropped_order_;
  std::uint64_t last_dropped_ = 0;
  std::uint64_t id_bytes_ = 0;
  std::uint64_t storing_ops_ = 0;
  std::uint64_t asked_ops_ = 0;
  std::uint64_t last_request_ = 0;
  std::uint64_t last_age_ = 0;
};

}  // namespace kitsune2
