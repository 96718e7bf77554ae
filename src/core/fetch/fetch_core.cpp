// Decides which op is requested from which source, and when. The rules are in the header.
#include "core/fetch/fetch_core.hpp"

#include <algorithm>

#include "core/milliseconds.hpp"

namespace kitsune2 {

namespace {

/// Builds an index of records anew with room for `count`. *Rationale*: the table's own rehash would visit the records
/// in the table's order, a cache miss each; this goes through them as they lie, and frees the old table first.
template <class Table, class Records, class Wanted>
void rebuild(Table& table, std::size_t count, const Records& records, Wanted wanted) {
  table = Table(count, table.hash_function(), table.key_eq());
  records.for_each([&](std::uint32_t slot, const auto& record) {
    if (wanted(record)) table.insert(slot);
  });
}

/// Whether a table is mostly empty, so that its memory should be freed.
template <class Table>
bool too_large(const Table& table) {
  return table.bucket_count() > 4096 && table.size() < table.bucket_count() / 16;
}

}  // namespace

FetchCore::FetchCore(const CoreFetchConfig& config)
    : config_(config),
      delay_(from_ms(config.re_insert_outgoing_request_delay_ms)),
      follows_(config.parallel_request_count == CoreFetchConfig{}.parallel_request_count),
      back_off_policy_{from_ms(config.first_back_off_interval_ms), from_ms(config.last_back_off_interval_ms),
                       config.num_back_off_intervals},
      op_index_(0, OpHash{&ops_}, OpEqual{&ops_}),
      pair_index_(0, PairHash{&pairs_}, PairEqual{&pairs_}) {}

// --- lists

template <class Record, unsigned kBits>
void FetchCore::push(Slab<Record, kBits>& slab, List& list, std::uint32_t slot, Links Record::*links) {
  (slab[slot].*links) = {kNoSlot, list.tail};
  (list.tail == kNoSlot ? list.head : (slab[list.tail].*links).next) = slot;
  list.tail = slot;
}

template <class Record, unsigned kBits>
void FetchCore::unlink(Slab<Record, kBits>& slab, List& list, std::uint32_t slot, Links Record::*links) {
  const Links at = slab[slot].*links;
  (at.prev == kNoSlot ? list.head : (slab[at.prev].*links).next) = at.next;
  (at.next == kNoSlot ? list.tail : (slab[at.next].*links).prev) = at.prev;
  (slab[slot].*links) = {};
}

// --- lookup

std::uint32_t FetchCore::find(const OpKey& key) const {
  const auto it = op_index_.find(key);
  return it == op_index_.end() ? kNoSlot : *it;
}

std::uint32_t FetchCore::find_source(const Url& url) const {
  const auto it = source_index_.find(url);
  return it == source_index_.end() ? kNoSlot : it->second;
}

std::uint32_t FetchCore::find_pair(std::uint32_t op_slot, std::uint32_t source) const {
  const Op& op = ops_[op_slot];
  if (op.indexed) {
    const auto it = pair_index_.find(PairKey{op_slot, source});
    return it == pair_index_.end() ? kNoSlot : *it;
  }
  std::uint32_t slot = op.first_pair;
  for (std::uint32_t i = 0; i < op.sources; ++i, slot = pairs_[slot].op_next) {
    if (pairs_[slot].source == source) return slot;
  }
  return kNoSlot;
}

template <class F>
void FetchCore::for_each_pair_of(const Op& op, F&& f) {
  std::uint32_t slot = op.first_pair;
  for (std::uint32_t i = op.sources; i > 0; --i) {
    const std::uint32_t next = pairs_[slot].op_next;
    f(slot);
    slot = next;
  }
}

std::uint32_t FetchCore::op_after(std::uint32_t op) const {
  if (ops_[op].sources != 1) return kNoSlot;
  const std::uint32_t next = pairs_[ops_[op].first_pair].next;
  return next == kNoSlot ? kNoSlot : pairs_[next].op;
}

bool FetchCore::is_wanted(const OpId& op_id) const {
  const std::uint32_t op = find(op_id);
  return op != kNoSlot && ops_[op].state != State::storing;
}

bool FetchCore::has(const OpId& op_id, const Url& source) const {
  const std::uint32_t op = find(op_id);
  const std::uint32_t from = find_source(source);
  return op != kNoSlot && from != kNoSlot && find_pair(op, from) != kNoSlot;
}

std::size_t FetchCore::take_known(std::vector<OpId>& op_ids, const Url& source) const {
  const std::uint32_t from = find_source(source);
  if (from == kNoSlot) return 0;
  std::uint32_t next = kNoSlot;
  return std::erase_if(op_ids, [&](const OpId& op_id) {
    const std::uint32_t op = is_op(next, op_id) ? next : find(op_id);
    if (op == kNoSlot || find_pair(op, from) == kNoSlot) return false;
    next = op_after(op);
    return true;
  });
}

// --- ops and pairs

std::uint32_t FetchCore::new_op(const OpId& op_id, std::uint32_t hash) {
  const std::uint32_t slot = ops_.emplace(op_id);
  id_bytes_ += op_id.size();
  ops_[slot].hash = hash;
  if (op_index_.size() < op_index_.max_load()) {
    op_index_.insert(slot);
  } else {
    fit_op_index();
  }
  return slot;
}

void FetchCore::fit_op_index() {
  rebuild(op_index_, 2 * ops_.size(), ops_, [](const Op&) { return true; });
}

void FetchCore::fit_pair_index() {
  rebuild(pair_index_, 2 * pair_index_.size(), pairs_, [this](const Pair& pair) { return ops_[pair.op].indexed != 0; });
}

void FetchCore::fit_indexes() {
  if (too_large(op_index_)) fit_op_index();
  if (too_large(pair_index_)) fit_pair_index();
}

void FetchCore::new_pair(std::uint32_t op_slot, std::uint32_t source) {
  Op& op = ops_[op_slot];
  const std::uint32_t slot = pairs_.emplace(op_slot, source);
  Pair& pair = pairs_[slot];
  if (op.first_pair == kNoSlot) {
    op.first_pair = pair.op_next = pair.op_prev = slot;
  } else {
    Pair& first = pairs_[op.first_pair];
    pair.op_next = op.first_pair;
    pair.op_prev = first.op_prev;
    pairs_[first.op_prev].op_next = slot;
    first.op_prev = slot;
  }
  ++op.sources;
  if (op.indexed) {
    if (pair_index_.size() < pair_index_.max_load()) {
      pair_index_.insert(slot);
    } else {
      fit_pair_index();
    }
  } else if (op.sources > kChainSearch) {
    op.indexed = 1;
    for_each_pair_of(op, [this](std::uint32_t each) { pair_index_.insert(each); });
  }
  ++sources_[source].pairs;
  if (op.state == State::queued) {
    put_ready(slot);
  } else {
    put_idle(slot);
    refresh(source);
  }
}

void FetchCore::erase_pair(std::uint32_t slot) {
  Pair& pair = pairs_[slot];
  Op& op = ops_[pair.op];
  if (op.indexed) pair_index_.erase(slot);
  if (op.sources == 1) {
    op.first_pair = kNoSlot;
  } else {
    pairs_[pair.op_prev].op_next = pair.op_next;
    pairs_[pair.op_next].op_prev = pair.op_prev;
    if (op.first_pair == slot) op.first_pair = pair.op_next;
  }
  --op.sources;
  leave_list(slot);
  const std::uint32_t source = pair.source;
  pairs_.erase(slot);
  if (--sources_[source].pairs == 0) refresh(source);
}

void FetchCore::erase_op(std::uint32_t slot) {
  Op& op = ops_[slot];
  if (op.state == State::storing) --storing_ops_;
  if (op.request != kNoSlot) {
    add_late(requests_[op.request].source, op.hash);
    leave_request(slot);
  }
  for_each_pair_of(op, [this](std::uint32_t pair) {
    const std::uint32_t source = pairs_[pair].source;
    erase_pair(pair);
    rest(source);
  });
  op_index_.erase(slot);
  id_bytes_ -= op.id.size();
  ops_.erase(slot);
}

void FetchCore::leave_list(std::uint32_t slot) {
  Pair& pair = pairs_[slot];
  Source& source = sources_[pair.source];
  List* list = &source.idle_list;
  bool was_last_ready = false;
  if (pair.place == kReady) {
    list = &source.ready_list;
    was_last_ready = --source.ready == 0;
  } else if (pair.place >= kWaiting) {
    const std::uint32_t level = pair.place - kWaiting;
    list = &source.waiting_lists[level];
    if (list->head == slot) {
      waits_.erase({pair.due, level, source.age, pair.source});
      if (pair.next != kNoSlot) waits_.insert({pairs_[pair.next].due, level, source.age, pair.source});
    }
  }
  (pair.prev == kNoSlot ? list->head : pairs_[pair.prev].next) = pair.next;
  (pair.next == kNoSlot ? list->tail : pairs_[pair.next].prev) = pair.prev;
  if (was_last_ready) refresh(pair.source);
}

void FetchCore::enter_list(std::uint32_t slot, List& list, std::uint32_t place) {
  Pair& pair = pairs_[slot];
  pair.place = place;
  pair.next = kNoSlot;
  pair.prev = list.tail;
  (list.tail == kNoSlot ? list.head : pairs_[list.tail].next) = slot;
  list.tail = slot;
}

void FetchCore::put_idle(std::uint32_t slot) { enter_list(slot, sources_[pairs_[slot].source].idle_list, kIdle); }

void FetchCore::put_ready(std::uint32_t slot) {
  const std::uint32_t from = pairs_[slot].source;
  Source& source = sources_[from];
  enter_list(slot, source.ready_list, kReady);
  if (++source.ready == 1) refresh(from);
}

void FetchCore::put_waiting(std::uint32_t slot, std::uint32_t level) {
  Pair& pair = pairs_[slot];
  Source& source = sources_[pair.source];
  List& list = source.waiting_lists[level];
  pair.due = now_ + delay_ * (std::int64_t{1} << level);
  if (list.empty()) waits_.insert({pair.due, level, source.age, pair.source});
  enter_list(slot, list, kWaiting + level);
}

void FetchCore::queue_op(std::uint32_t slot) {
  Op& op = ops_[slot];
  op.state = State::queued;
  op.hurried = 0;
  for_each_pair_of(op, [this](std::uint32_t pair) {
    if (pairs_[pair].place != kIdle) return;
    leave_list(pair);
    put_ready(pair);
  });
}

void FetchCore::unqueue_op(std::uint32_t slot, State state) {
  Op& op = ops_[slot];
  op.state = state;
  for_each_pair_of(op, [this](std::uint32_t pair) {
    if (pairs_[pair].place != kReady) return;
    leave_list(pair);
    put_idle(pair);
  });
}

// --- requests

void FetchCore::arm(std::uint32_t slot) {
  Request& request = requests_[slot];
  if (request.deadline != Time::min()) unlink(requests_, deadlines_, slot, &Request::by_deadline);
  request.deadline = now_ + delay_;
  push(requests_, deadlines_, slot, &Request::by_deadline);
}

void FetchCore::leave_request(std::uint32_t op) {
  const std::uint32_t slot = ops_[op].request;
  Request& request = requests_[slot];
  ops_[op].request = kNoSlot;
  --request.left;
  --asked_ops_;
  Source& source = sources_[request.source];
  --source.asked_ops;
  if (source.ring == Ring::none && is_far(source)) refresh(request.source);  // it may have a place again
  end_if_done(slot);
}

void FetchCore::end_if_done(std::uint32_t slot) {
  if (requests_[slot].left == 0 && requests_[slot].is_sent) end_request(slot);
}

void FetchCore::end_request(std::uint32_t slot) {
  Request& request = requests_[slot];
  K2_ASSERT(request.left == 0);
  const std::uint32_t from = request.source;
  Source& source = sources_[from];
  unlink(requests_, deadlines_, slot, &Request::by_deadline);
  if (request.is_sent) unlink(requests_, hostage_deadlines_, slot, &Request::by_hostage);
  unlink(requests_, source.requests, slot, &Request::by_source);
  --source.requests_open;
  request_index_.erase(request.id);
  requests_.erase(slot);
  refresh(from);
  rest(from);
}

/// R4, R17: by the number of ids and the size of the answer.
std::uint64_t FetchCore::size_limit(const Source& source) const {
  std::uint64_t limit = source.most_ids;
  const bool far = is_far(source);
  if (far && source.op_size > 0 && source.op_size <= kFrameBytes) {
    limit = std::min(limit, std::max<std::uint64_t>(1, kFrameBytes / (source.op_size + kOpFrameBytes)));
  } else if (source.op_size > 0) {
    std::uint64_t target = config_.target_request_bytes;
    if (far && target == CoreFetchConfig{}.target_request_bytes) {
      target =
          std::max(target, std::min(source.window.bytes(config_.max_window_bytes) * kLargeWindows, kLargeRequestBytes));
    }
    limit = std::min(limit, std::max<std::uint64_t>(1, target / source.op_size));
  }
  return limit;
}

/// R17: by what a source with known ops delivers in the time for which ops that others hold too are asked of it.
std::uint64_t FetchCore::time_limit(const Source& source) const {
  const std::uint64_t rate = source.window.rate();
  if (rate == 0) return UINT64_MAX;
  Duration time = kShareTime;
  const bool large = source.op_size > kFrameBytes;
  if (large) time = std::max(kLargeShareTime, kShareTrips * source.window.round_trip().value());
  std::uint64_t bytes = rate * static_cast<std::uint64_t>(time.count()) / 1'000'000;
  // A rest that is a message of its own costs a permit.
  if (large && bytes > config_.target_request_bytes) bytes -= bytes % config_.target_request_bytes;
  return bytes == 0 ? UINT64_MAX : std::max<std::uint64_t>(1, bytes / asked_cost(source, 1));
}

std::uint64_t FetchCore::request_limit(const Source& source) const {
  const std::uint64_t limit = size_limit(source);
  if (is_doubtful(source)) return std::min<std::uint64_t>(limit, kDoubtfulIds);
  if (is_far(source) && source.op_size > 0) {
    const bool shared = ops_[pairs_[source.ready_list.head].op].sources > 1;
    return shared ? std::min(limit, time_limit(source)) : limit;
  }
  // The free places that could take a part of this queue: those of this source and, judging by the first op, of others.
  const std::uint64_t holders = ops_[pairs_[source.ready_list.head].op].sources;
  const std::uint64_t own = config_.parallel_request_count;
  const std::uint64_t places = (own - std::min<std::uint64_t>(own - 1, source.requests_open)) *
                               std::min<std::uint64_t>(holders, std::max<std::size_t>(1, live_.size()));
  const std::uint64_t share = (source.ready + places - 1) / places;
  return std::min(limit, std::max<std::uint64_t>(share, kLeastShare));
}

std::uint64_t FetchCore::asked_cost(const Source& source, std::uint64_t ops) const {
  return ops * (source.op_size + FetchWindow::kOpCost);
}

bool FetchCore::has_place(const Source& source) const {
  if (is_doubtful(source)) return source.requests_open == 0;
  if (source.requests_open < config_.parallel_request_count) return true;
  if (!is_far(source) || source.op_size == 0 || source.requests_open >= config_.max_parallel_request_count)
    return false;
  return asked_cost(source, source.asked_ops) < source.window.bytes(config_.max_window_bytes, sources_.size() == 1);
}

std::optional<FetchRequest> FetchCore::next_request(Time now) {
  advance(now);
  const std::set<Turn>& ring = live_.empty() ? doubtful_ : live_;
  if (ring.empty()) return take_over();
  const std::uint32_t from = ring.begin()->source;
  Source& source = sources_[from];
  const std::uint64_t limit = std::min(request_limit(source), source.ready);

  const std::uint32_t slot = open_request(from);
  FetchRequest out{requests_[slot].id, source.url, {}};
  out.op_ids.reserve(limit);
  requests_[slot].ops.reserve(limit);
  for (std::uint64_t bytes = 0; out.op_ids.size() < limit;) {
    const std::uint32_t op = pairs_[source.ready_list.head].op;
    bytes += ops_[op].id.size() + kIdFrameBytes;
    if (bytes > kRequestBytes && !out.op_ids.empty()) break;
    unqueue_op(op, State::asked);
    put_in(slot, op, out);
  }
  leave_ring(source, from);
  source.turn = out.id;
  refresh(from);
  return out;
}

std::uint32_t FetchCore::open_request(std::uint32_t from) {
  const std::uint32_t slot = requests_.emplace();
  Request& request = requests_[slot];
  request.id = ++last_request_;
  request.source = from;
  request.begun = now_;
  request_index_.emplace(request.id, slot);
  push(requests_, sources_[from].requests, slot, &Request::by_source);
  ++sources_[from].requests_open;
  arm(slot);
  return slot;
}

/// Of an op that is in state asked and in no request.
void FetchCore::put_in(std::uint32_t slot, std::uint32_t op, FetchRequest& out) {
  Request& request = requests_[slot];
  ops_[op].request = slot;
  request.ops.push_back(op);
  ++request.size;
  ++request.left;
  ++asked_ops_;
  ++sources_[request.source].asked_ops;
  out.op_ids.push_back(ops_[op].id);
}

void FetchCore::mark(FetchRequest& message, std::uint64_t mark, std::uint64_t first) {
  K2_ASSERT(mark != 0);
  const auto it = request_index_.find(message.id);
  if (it == request_index_.end() || message.op_ids.empty()) return;
  Request& request = requests_[it->second];
  // Nothing has left it yet.
  K2_ASSERT(!request.is_sent && request.ops.size() == message.op_ids.size());
  const std::size_t at = first % message.op_ids.size();
  std::swap(message.op_ids[0], message.op_ids[at]);
  std::swap(request.ops[0], request.ops[at]);
  request.read_mark = mark;
  request.first = request.ops[0];
}

void FetchCore::on_sent(std::uint64_t id, Time now) {
  advance(now);
  const auto it = request_index_.find(id);
  if (it == request_index_.end()) return;
  const std::uint32_t slot = it->second;
  Request& request = requests_[slot];
  if (request.is_sent) return;
  request.is_sent = true;
  request.sent_at = now_;
  request.hostage_deadline = now_ + delay_ * kHostageDelays;
  push(requests_, hostage_deadlines_, slot, &Request::by_hostage);
  arm(slot);
  Source& source = sources_[request.source];
  bool alone = true;
  for (std::uint32_t at = source.requests.head; alone && at != kNoSlot; at = requests_[at].by_source.next) {
    alone = at == slot || !requests_[at].is_sent;
  }
  request.mark = source.window.on_sent(alone, asked_cost(source, source.asked_ops), config_.max_window_bytes, now_);
  refresh(request.source);
  if (!sources_[request.source].put_aside) clear_back_off(request.source);
  end_if_done(slot);
}

std::optional<FetchGivenUp> FetchCore::on_send_failed(std::uint64_t id, Time now) {
  advance(now);
  const auto it = request_index_.find(id);
  if (it == request_index_.end()) return std::nullopt;
  const std::uint32_t slot = it->second;
  const Time begun = requests_[slot].begun;
  const std::uint32_t from = requests_[slot].source;
  Source& source = sources_[from];
  const BackOff::Verdict verdict = source.back_off.on_failed(back_off_policy_, begun, now_);
  if (verdict == BackOff::Verdict::give_up) return drop_source(from);
  if (verdict == BackOff::Verdict::backed_off) {
    source.backing_off = true;
    back_offs_.insert({source.back_off.until(), source.age, from});
  }
  refresh(from);
  release_all(slot);
  return std::nullopt;
}

/// Queues the ops of a request again at all their sources and ends it.
void FetchCore::release_all(std::uint32_t slot) {
  for (const std::uint32_t op : take_ops(slot)) queue_op(op);
  end_request(slot);
}

/// Removes and returns the remaining ops of a request. The request itself stays, empty.
std::vector<std::uint32_t> FetchCore::take_ops(std::uint32_t slot) {
  Request& request = requests_[slot];
  std::vector<std::uint32_t> ops;
  ops.swap(request.ops);
  // A slot that was freed and reused cannot name this request, because requests take ops only when they are made.
  std::erase_if(ops, [&](std::uint32_t op) { return !ops_.holds(op) || ops_[op].request != slot; });
  K2_ASSERT(ops.size() == request.left);
  for (const std::uint32_t op : ops) {
    ops_[op].request = kNoSlot;
    add_late(request.source, ops_[op].hash);
  }
  asked_ops_ -= request.left;
  sources_[request.source].asked_ops -= request.left;
  request.left = 0;
  return ops;
}

/// R6, R7.
void FetchCore::release_shared(std::uint32_t slot) {
  Request& request = requests_[slot];
  std::erase_if(request.ops, [&](std::uint32_t op) { return !ops_.holds(op) || ops_[op].request != slot; });
  std::erase_if(request.ops, [&](std::uint32_t op) {
    if (ops_[op].sources < 2) return false;
    ops_[op].request = kNoSlot;
    add_late(request.source, ops_[op].hash);
    --request.left;
    --asked_ops_;
    --sources_[request.source].asked_ops;
    const std::uint32_t pair = find_pair(op, request.source);
    leave_list(pair);
    put_waiting(pair, 0);
    queue_op(op);
    return true;
  });
}

/// R8.
void FetchCore::close_as_missing(std::uint32_t slot, std::vector<FetchMissing>& out,
                                 std::vector<FetchUnserved>& unserved) {
  const std::uint32_t from = requests_[slot].source;
  FetchMissing missing{sources_[from].url, {}};
  const std::vector<std::uint32_t> ops = take_ops(slot);
  missing.op_ids.reserve(ops.size());
  for (const std::uint32_t op : ops) {
    missing.op_ids.push_back(ops_[op].id);
    const std::uint32_t pair = find_pair(op, from);
    if (note_silence(pair, unserved)) continue;
    wait_after_silence(pair, 0);
    queue_op(op);
  }
  if (!missing.op_ids.empty()) out.push_back(std::move(missing));
  end_request(slot);
}

// --- the store's answers

std::uint64_t FetchCore::on_stored(std::span<const OpId> op_ids, Time now) {
  advance(now);
  std::uint64_t count = 0;
  std::uint32_t next = kNoSlot;
  for (const OpId& op_id : op_ids) {
    const std::uint32_t op = is_op(next, op_id) ? next : find(op_id);
    if (op == kNoSlot) {
      forget_dropped(op_id);
      continue;
    }
    next = op_after(op);
    erase_op(op);
    ++count;
  }
  fit_indexes();
  return count;
}

std::vector<OpId> FetchCore::on_store_failed(std::span<const OpId> op_ids, Time now) {
  advance(now);
  std::vector<OpId> orphaned;
  for (const OpId& op_id : op_ids) {
    const std::uint32_t slot = find(op_id);
    if (slot == kNoSlot || ops_[slot].state != State::storing) continue;
    if (ops_[slot].sources == 0) {
      orphaned.push_back(op_id);
      erase_op(slot);
      continue;
    }
    --storing_ops_;
    ops_[slot].state = State::queued;
    ops_[slot].hurried = 0;
    for_each_pair_of(ops_[slot], [this](std::uint32_t pair) {
      pairs_[pair].silences = 0;
      if (pairs_[pair].place != kIdle) return;
      leave_list(pair);
      put_waiting(pair, 0);
    });
  }
  return orphaned;
}

// --- sources

FetchAdded FetchCore::add(std::span<const OpId> op_ids, const Url& url, Time now, std::vector<std::uint32_t>* fresh) {
  advance(now);
  FetchAdded out;
  if (op_ids.empty()) return out;
  std::uint32_t from = find_source(url);
  const std::uint64_t held = from == kNoSlot ? 0 : sources_[from].pairs;
  const std::uint64_t room = std::min(config_.max_pending - std::min<std::uint64_t>(config_.max_pending, pairs_.size()),
                                      config_.max_pending_per_peer - std::min(config_.max_pending_per_peer, held));
  const bool source_refused = from == kNoSlot && sources_.size() >= most_sources();
  if (op_ids.size() > room || source_refused) {
    // Near the bound: first count what is new.
    boost::unordered_flat_set<OpId, std::hash<OpId>> lacking;
    for (const OpId& op_id : op_ids) {
      const std::uint32_t op = find(op_id);
      if (op == kNoSlot || from == kNoSlot || find_pair(op, from) == kNoSlot) lacking.insert(op_id);
    }
    if (lacking.size() > room || source_refused) {
      out.known = op_ids.size() - lacking.size();
      out.refused = lacking.size();
      return out;
    }
  }
  if (from == kNoSlot) from = new_source(url);
  for (std::size_t i = 0; i < op_ids.size(); ++i) {
    const OpId& op_id = op_ids[i];
    const std::uint32_t hash = hash_of(op_id);
    std::uint32_t op = find({op_id.view(), hash});
    if (op == kNoSlot) {
      op = new_op(op_id, hash);
      forget_dropped(op_id);
    } else if (find_pair(op, from) != kNoSlot) {
      ++out.known;
      continue;
    }
    new_pair(op, from);
    ++out.added;
    if (fresh != nullptr) fresh->push_back(static_cast<std::uint32_t>(i));
  }
  rest(from);
  return out;
}

std::uint32_t FetchCore::new_source(const Url& url) {
  const std::uint32_t slot = sources_.emplace();
  Source& source = sources_[slot];
  source.url = url;
  source.age = ++last_age_;
  source.most_ids = std::min(kFirstRequestIds, config_.max_ids_per_request);
  source_index_.emplace(url, slot);
  if (const auto it = departed_.find(url); it != departed_.end()) {
    source.late_more = source.late_all = it->second.late;
    departed_order_.erase(it->second.number);
    departed_.erase(it);
  }
  if (sources_.size() == 2) refresh_all();  // W7
  return slot;
}

void FetchCore::leave_ring(Source& source, std::uint32_t slot) {
  if (source.ring == Ring::none) return;
  ring_of(source.ring).erase({source.turn, source.age, slot});
  source.ring = Ring::none;
}

void FetchCore::refresh(std::uint32_t slot) {
  Source& source = sources_[slot];
  const bool in_doubt = is_doubtful(source);
  Ring ring = Ring::none;
  if (source.pairs > 0 && !source.backing_off && has_place(source)) {
    if (source.ready > 0) {
      ring = in_doubt ? Ring::doubtful : Ring::live;
    } else if (!in_doubt && source.op_size > 0 && source.window.rate() > 0) {
      ring = Ring::free;
    }
  }
  if (ring == source.ring) return;
  leave_ring(source, slot);
  source.ring = ring;
  if (ring != Ring::none) ring_of(ring).insert({source.turn, source.age, slot});
}

void FetchCore::rest(std::uint32_t slot) {
  Source& source = sources_[slot];
  const bool spare = source.pairs == 0 && source.requests_open == 0 && !source.backing_off;
  if (spare == source.is_spare) return;
  source.is_spare = spare;
  if (!spare) {
    unlink(sources_, spare_sources_, slot, &Source::spare);
    --spare_count_;
    return;
  }
  push(sources_, spare_sources_, slot, &Source::spare);
  if (++spare_count_ > kSourcesRemembered) erase_source(spare_sources_.head);
}

void FetchCore::erase_source(std::uint32_t slot) {
  Source& source = sources_[slot];
  K2_ASSERT(source.pairs == 0 && source.requests_open == 0);
  if (source.backing_off) back_offs_.erase({source.back_off.until(), source.age, slot});
  if (source.is_spare) {
    unlink(sources_, spare_sources_, slot, &Source::spare);
    --spare_count_;
  }
  leave_ring(source, slot);
  forget_late(source);
  source_index_.erase(source.url);
  sources_.erase(slot);
  if (sources_.size() == 1) refresh_all();  // W7
}

void FetchCore::refresh_all() {
  sources_.for_each([this](std::uint32_t slot, const Source&) { refresh(slot); });
}

void FetchCore::clear_back_off(std::uint32_t slot) {
  Source& source = sources_[slot];
  if (source.backing_off) {
    back_offs_.erase({source.back_off.until(), source.age, slot});
    source.backing_off = false;
  }
  source.back_off.clear();
  source.put_aside = false;
  refresh(slot);
  rest(slot);
}

FetchGivenUp FetchCore::drop_source(std::uint32_t slot) {
  Source& source = sources_[slot];
  FetchGivenUp out{source.url, {}, source.pairs};
  while (!source.requests.empty()) release_all(source.requests.head);
  const auto drop_list = [&](List& list) {
    while (!list.empty()) {
      const std::uint32_t op = pairs_[list.head].op;
      erase_pair(list.head);
      if (ops_[op].sources > 0 || ops_[op].state == State::storing) continue;
      out.orphaned.push_back(ops_[op].id);
      erase_op(op);
    }
  };
  drop_list(source.ready_list);
  drop_list(source.idle_list);
  for (List& list : source.waiting_lists) drop_list(list);
  erase_source(slot);
  fit_indexes();
  return out;
}

std::optional<FetchGivenUp> FetchCore::remove_source(const Url& url, Time now) {
  advance(now);
  const std::uint32_t slot = find_source(url);
  if (slot == kNoSlot) return std::nullopt;
  return drop_source(slot);
}

void FetchCore::clear() {
  id_bytes_ = 0;
  op_index_.clear();
  op_index_.rehash(0);
  pair_index_.clear();
  pair_index_.rehash(0);
  request_index_ = {};
  source_index_ = {};
  ops_.clear();
  pairs_.clear();
  requests_.clear();
  sources_.clear();
  live_.clear();
  doubtful_.clear();
  free_.clear();
  back_offs_.clear();
  waits_.clear();
  deadlines_ = hostage_deadlines_ = spare_sources_ = {};
  spare_count_ = 0;
  late_hashes_ = 0;
  departed_.clear();
  departed_order_.clear();
  dropped_.clear();
  dropped_order_.clear();
  storing_ops_ = asked_ops_ = 0;
  hurry_again_ = Time::min();
}

// --- time

/// R5: a sent request is overdue.
void FetchCore::give_up_waiting(std::uint32_t slot, FetchDue& out) {
  Request& request = requests_[slot];
  const std::uint32_t from = request.source;
  Source& source = sources_[from];
  ++out.overdue;
  if (request.answered > 0) return close_as_missing(slot, out.missing, out.unserved);
  narrow(source);
  if (source.last_answer < request.sent_at) {
    source.unanswered = true;
    source.most_ids = std::max<std::uint32_t>(1, std::min(source.most_ids, 2 * kDoubtfulIds) / 2);
    source.has_shrunk = true;
  }
  const bool silent = is_silent(slot);
  for (const std::uint32_t op : take_ops(slot)) {
    const std::uint32_t pair = find_pair(op, from);
    if (silent && note_silence(pair, out.unserved)) continue;
    if (silent && pairs_[pair].silences > kQuickAsks) {
      wait_after_silence(pair, kQuickAsks);
    } else if (ops_[op].sources > 1) {
      leave_list(pair);
      put_waiting(pair, 0);
    }
    queue_op(op);
  }
  end_request(slot);
}

FetchLost FetchCore::on_disconnect(const Url& url, Time now) {
  advance(now);
  FetchLost out;
  const std::uint32_t from = find_source(url);
  if (from == kNoSlot) return out;
  Source& source = sources_[from];
  source.read_bits = 0;
  for (std::uint32_t slot = source.requests.head; slot != kNoSlot;) {
    const std::uint32_t next = requests_[slot].by_source.next;
    if (requests_[slot].is_sent) {
      const bool heard = source.last_answer >= requests_[slot].sent_at;
      if (!heard) source.unanswered = true;
      const bool silent = is_silent(slot);
      for (const std::uint32_t op : take_ops(slot)) {
        const std::uint32_t pair = find_pair(op, from);
        if (silent && note_silence(pair, out.unserved)) continue;
        if (silent && pairs_[pair].silences > kQuickAsks) {
          wait_after_silence(pair, kQuickAsks);
        } else if (!heard) {
          leave_list(pair);
          put_waiting(pair, 0);
        }
        queue_op(op);
      }
      end_request(slot);
      ++out.ended;
    }
    slot = next;
  }
  if (!out.unserved.empty()) fit_indexes();
  return out;
}

FetchDue FetchCore::poll(Time now) {
  advance(now);
  FetchDue out;
  while (!back_offs_.empty() && back_offs_.begin()->until <= now_) {
    const std::uint32_t source = back_offs_.begin()->source;
    back_offs_.erase(back_offs_.begin());
    sources_[source].backing_off = false;
    refresh(source);
    rest(source);
  }
  while (!deadlines_.empty() && requests_[deadlines_.head].deadline <= now_) {
    const std::uint32_t slot = deadlines_.head;
    if (requests_[slot].is_sent) {
      give_up_waiting(slot, out);
      continue;
    }
    sources_[requests_[slot].source].unanswered = true;
    release_shared(slot);
    arm(slot);
    refresh(requests_[slot].source);
  }
  while (!hostage_deadlines_.empty() && requests_[hostage_deadlines_.head].hostage_deadline <= now_) {
    const std::uint32_t slot = hostage_deadlines_.head;
    Request& request = requests_[slot];
    unlink(requests_, hostage_deadlines_, slot, &Request::by_hostage);
    request.hostage_deadline = now_ + delay_ * kHostageDelays;
    push(requests_, hostage_deadlines_, slot, &Request::by_hostage);
    if (request.answered == 0) sources_[request.source].unanswered = true;
    release_shared(slot);
    refresh(request.source);
    end_if_done(slot);
  }
  while (!waits_.empty() && waits_.begin()->due <= now_) {
    const WaitEnd first = *waits_.begin();
    const std::uint32_t pair = sources_[first.source].waiting_lists[first.level].head;
    leave_list(pair);
    if (ops_[pairs_[pair].op].state == State::queued) {
      put_ready(pair);
    } else {
      put_idle(pair);
    }
  }
  if (!out.unserved.empty()) fit_indexes();
  return out;
}

std::optional<Time> FetchCore::next_deadline() const {
  std::optional<Time> out;
  const auto consider = [&out](Time at) { out = out ? std::min(*out, at) : at; };
  if (!back_offs_.empty()) consider(back_offs_.begin()->until);
  if (!deadlines_.empty()) consider(requests_[deadlines_.head].deadline);
  if (!hostage_deadlines_.empty()) consider(requests_[hostage_deadlines_.head].hostage_deadline);
  if (!waits_.empty()) consider(waits_.begin()->due);
  return out;
}

}  // namespace kitsune2
