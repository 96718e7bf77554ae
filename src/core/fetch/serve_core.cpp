// The serving side of fetch; the rules are in the header.
#include "core/fetch/serve_core.hpp"

#include <algorithm>
#include <utility>

#include "kitsune2/error.hpp"

namespace kitsune2 {

ServeCore::Peer* ServeCore::find(const Url& peer, std::uint64_t serial) {
  const auto it = peers_.find(peer);
  return it != peers_.end() && it->second.serial == serial ? &it->second : nullptr;
}

std::optional<ServeCore::RequestId> ServeCore::on_request(const Url& peer, std::uint64_t cost, Time now, bool is_small,
                                                          std::size_t ids) {
  if (is_stopped_) return std::nullopt;
  advance(now);
  busy_until_ = now + kBusyFor;
  auto& entry = peers_[peer];
  if (entry.serial == 0) entry.serial = next_serial_++;
  const bool has_enough = entry.waiting >= limits_.max_requests_per_peer ||
                          (!entry.requests.empty() && entry.queued_bytes + cost > kMaxQueuedBytes);
  if (!has_enough) make_queue_room(entry, cost);
  if (has_enough || !has_queue_room(entry, cost)) {
    if (entry.is_idle()) peers_.erase(peer);
    serve();  // time has passed
    return std::nullopt;
  }
  note_arrival(known_[peer], entry.waiting, now);
  entry.queued_bytes += cost;
  queued_bytes_ += cost;
  ++entry.waiting;
  if (is_small && may_join(entry)) {
    Request& last = entry.requests.back();
    last.cost += cost;
    ++last.joined;
    last.ids += ids;
    const RequestId id = last.id;
    serve();  // what the answer may have has shrunk, so that there may be room for it
    return id;
  }
  const RequestId id = next_request_++;
  entry.requests.push_back({id, cost, false, is_small, 1, ids});
  take_turn(peer, entry);
  serve();
  return id;
}

/// S5. Whether all together leave room for one more of this peer.
bool ServeCore::has_queue_room(const Peer& entry, std::uint64_t cost) const {
  if (queued_bytes_ == 0) return true;
  const std::uint64_t free = kMaxAllQueuedBytes - std::min(kMaxAllQueuedBytes, queued_bytes_);
  const bool is_lone = entry.requests.empty() && cost <= kLoneRequestBytes;
  return entry.queued_bytes + cost <= (is_lone ? free : free / kQueueParts);
}

/// S15.
void ServeCore::make_queue_room(const Peer& entry, std::uint64_t cost) {
  for (const UnderWay& each : under_way_) {
    if (now_ - each.since < kStalled || has_queue_room(entry, cost)) return;
    Peer* other = find(each.peer, each.serial);
    if (other == &entry) return;
    if (other != nullptr) drop_requests(each.peer, *other);
  }
}

void ServeCore::drop_requests(const Url& peer, Peer& entry) {
  const std::size_t kept = entry.is_reading ? 1 : 0;
  Drop dropped{peer, 0, 0};
  while (entry.requests.size() > kept) {
    const Request& request = entry.requests.back();
    dropped.requests += request.joined;
    dropped.cost += request.cost;
    actions_.emplace_back(Forget{request.id});
    entry.requests.pop_back();
  }
  if (dropped.requests == 0) return;
  entry.waiting -= dropped.requests;
  entry.queued_bytes -= dropped.cost;
  queued_bytes_ -= dropped.cost;
  actions_.emplace_back(std::move(dropped));
  if (!entry.requests.empty()) return;
  entry.has_left_over = false;
  leave_turn(peer, entry);
}

/// S13. `waiting`: how many requests of the peer wait, without the one that has arrived.
void ServeCore::note_arrival(Known& known, std::size_t waiting, Time now) {
  known.had_many = known.had_many || waiting >= 2;
  if (known.had_many) return;
  const auto& answered = known.ended[waiting == 1 ? 0 : 1];
  if (answered) known.seen_trip = std::min(known.seen_trip, now - *answered);
}

/// S10.
bool ServeCore::may_join(const Peer& entry) {
  if (entry.requests.empty()) return false;
  const Request& last = entry.requests.back();
  return last.is_small && !last.has_begun && last.joined < kMostJoined;
}

/// S11. A request for few ops says nothing of what a larger one would find.
void ServeCore::note_yield(Known& known, const Request& request, bool has_ended) {
  const std::uint64_t few = kFewIds * request.joined;
  if (request.held > few) {
    known.got_few = false;
  } else if (has_ended && request.ids > few) {
    known.got_few = true;
  }
}

/// S11, S12.
ServeCore::Kind ServeCore::kind_of(const Url& peer, const Peer& entry) const {
  const Request& next = entry.requests.front();
  const auto it = known_.find(peer);
  const bool has_large_ops = it != known_.end() && it->second.has_large_ops;
  const bool asks_again = it != known_.end() && it->second.asks_again();
  const bool wants_few = next.ids <= kFewIds * next.joined || (it != known_.end() && it->second.got_few);
  return asks_again || (!has_large_ops && wants_few) ? minor : major;
}

ServeCore::Lane& ServeCore::lane_of(const Url& peer) {
  const auto it = known_.find(peer);
  return it != known_.end() && it->second.taken >= kProvenBytes ? proven_ : unproven_;
}

void ServeCore::note_round_trip(const Url& peer, Duration trip) {
  if (is_stopped_) return;
  Known& known = known_[peer];
  known.trip = std::clamp(trip, Duration(0), kLongestTrip);
  known.is_measured = known.took_large;
  serve();
}

void ServeCore::take_turn(const Url& peer, Peer& entry) {
  if (entry.is_reading || entry.ready || entry.is_in_turn || entry.requests.empty()) return;
  Lane& lane = lane_of(peer);
  if (entry.is_sending && (&lane == &unproven_ || entry.is_sending_much)) return;  // S6, S8: it takes this one first
  entry.is_in_turn = true;
  lane.turns[kind_of(peer, entry)].push_back(peer);
}

/// The most payload bytes of the next response.
std::uint64_t ServeCore::most_bytes(const Url& peer) const {
  const auto it = known_.find(peer);
  const Known known = it == known_.end() ? Known{} : it->second;
  const bool is_proven = known.taken >= kProvenBytes;
  std::uint64_t most = limits_.max_response_bytes;
  const auto entry = peers_.find(peer);
  if (entry != peers_.end() && !entry->second.requests.empty() && entry->second.requests.front().joined > 1) {
    return std::min(
        {most, kFrameBytes, is_proven ? most : std::max(kTrust * known.taken, kFirstResponseBytes)});  // S10
  }
  const std::uint64_t left = kMaxServingBytes - std::min(kMaxServingBytes, proven_.serving_bytes);
  if (!is_proven) {
    most = std::min(most, std::clamp(kTrust * known.taken, kFirstResponseBytes, kProvenBytes));
  } else if (left < kMaxServingBytes / 2) {
    most = std::min(most, std::max(left / kRoomParts, kFrameBytes));  // S14
  }
  if (known.asks_again() && is_contended()) return std::min(most, kAgainBytes);  // S11, also if it is far
  if (known.distance() < kFarTrip) return most;
  if (!known.has_large_ops) return std::min(most, kFrameBytes);
  if (!is_proven) return most;
  const std::uint64_t share = kMaxServingBytes / (2 * std::max<std::size_t>(1, peers_.size()));
  return std::max(most, std::min({known.far_bytes, share, left / 2}));
}

/// Whether there is room for the peer whose turn it is.
bool ServeCore::has_room(const Lane& lane, Kind kind) const {
  if (reads_.size() >= kMaxReads) return false;
  return lane.serving_bytes == 0 || lane.serving_bytes + most_bytes(lane.turns[kind].front()) <= kMaxServingBytes;
}

void ServeCore::serve() {
  while (give_turn(major)) {
  }
  while (may_read_minor() && give_turn(minor)) {
  }
}

bool ServeCore::give_turn(Kind kind) {
  // The room is taken for a whole response before its read, since its size is not known earlier.
  Lane* lane = next_lane_[kind];
  if (!may_give_turn(*lane, kind)) lane = other(lane);
  if (!may_give_turn(*lane, kind)) return false;
  next_lane_[kind] = other(lane);
  const Url peer = std::move(lane->turns[kind].front());
  lane->turns[kind].pop_front();
  Peer& entry = peers_.at(peer);
  entry.is_in_turn = false;
  begin_read(peer, entry, *lane, kind);
  return true;
}

/// S11. Whether others than those with minor requests are served.
bool ServeCore::is_contended() const {
  return are_majors_served() || !proven_.turns[major].empty() || !unproven_.turns[major].empty() ||
         now_ < others_until_;
}

std::int64_t ServeCore::allowance() const {
  const std::int64_t passed = (now_ - allowance_at_).count();
  const bool is_full = passed >= (kMinorBurst - allowance_) / kMinorRate + 1;
  return is_full ? kMinorBurst : std::min(kMinorBurst, allowance_ + passed * kMinorRate);
}

void ServeCore::change_allowance(std::int64_t bytes) {
  allowance_ =
      std::clamp(allowance() + std::clamp(bytes, -2 * kMinorBurst, 2 * kMinorBurst), -kMinorBurst, kMinorBurst);
  allowance_at_ = now_;
}

/// S11. Another age has begun.
void ServeCore::grow_old() {
  const std::int64_t age = now_.time_since_epoch() / kAge;
  fresh_majors_[1] = age == age_ + 1 ? fresh_majors_[0] : 0;
  fresh_majors_[0] = 0;
  age_ = age;
  next_age_at_ = Time((age + 1) * Duration(kAge));
}

/// False: a response of that age did not count any more.
bool ServeCore::uncount(Kind kind, std::int64_t age) {
  if (kind == minor || age_ - age >= kAges) return false;
  --fresh_majors_[static_cast<std::size_t>(age_ - age)];
  return true;
}

/// A response does not wait and is not sent any more.
void ServeCore::end(Kind kind, std::int64_t age, bool is_taken) {
  if (uncount(kind, age) || (kind == major && is_taken)) note_others();
}

void ServeCore::begin_read(const Url& peer, Peer& entry, Lane& lane, Kind kind) {
  entry.is_reading = true;
  Request& request = entry.requests.front();
  const bool left_over = std::exchange(entry.has_left_over, false);
  const std::uint64_t most = most_bytes(peer);
  if (kind == major) {
    ++major_reads_;
  } else {
    ++minor_reads_;
    if (!request.has_begun && is_contended())
      change_allowance(-static_cast<std::int64_t>(request.joined * kRequestCost));
  }
  request.has_begun = true;
  lane.serving_bytes += most;
  const ReadId id = next_read_++;
  reads_.emplace(id, Reading{peer, entry.serial, most, &lane, kind});
  const std::size_t most_ids = peers_.size() > 1 ? kSharedIdsPerRead : kMaxIdsPerRead;
  actions_.emplace_back(Read{id, request.id, peer, left_over, most_ids, most});
}

std::optional<ServeCore::Reading> ServeCore::take_read(ReadId read) {
  const auto it = reads_.find(read);
  K2_ASSERT(it != reads_.end());
  Reading out = std::move(it->second);
  reads_.erase(it);
  out.lane->serving_bytes -= out.max_bytes;
  --(out.kind == major ? major_reads_ : minor_reads_);
  if (out.kind == major) note_others();
  if (is_stopped_) return std::nullopt;
  return out;
}

bool ServeCore::on_read_failed(ReadId read) {
  const auto reading = take_read(read);
  if (!reading) return false;
  Peer* entry = find(reading->peer, reading->serial);
  if (entry != nullptr) {
    entry->is_reading = false;
    end_request(reading->peer, *entry);
    go_on(reading->peer, *entry);
  }
  serve();
  return entry != nullptr;
}

bool ServeCore::on_read_ended(ReadId read, const ReadOutcome& outcome, Time now) {
  advance(now);
  const auto reading = take_read(read);
  if (!reading) return false;
  Peer* entry = find(reading->peer, reading->serial);
  if (entry != nullptr) {
    entry->is_reading = false;
    entry->has_left_over = outcome.left_over;
    Request& request = entry->requests.front();
    request.held += outcome.ops;
    const bool has_ended = !outcome.left_over && outcome.is_exhausted;
    note_yield(known_[reading->peer], request, has_ended);
    if (has_ended) end_request(reading->peer, *entry);
    if (outcome.has_ops) {
      Known& known = known_[reading->peer];
      known.has_large_ops = outcome.bytes > outcome.ops * (kFrameBytes / 2);
      if (reading->kind == minor && is_contended()) {
        const std::uint64_t factor = known.asks_again() ? kAgainFactor : 1;
        change_allowance(-static_cast<std::int64_t>(factor * std::min<std::uint64_t>(outcome.bytes, 2 * kMinorBurst)));
      }
      reading->lane->serving_bytes += outcome.bytes;
      const Ready ready{read, outcome.bytes, reading->lane, reading->kind, age_};
      if (entry->is_sending) {
        count(reading->kind);
        entry->ready = ready;
      } else {
        begin_send(reading->peer, *entry, ready, now);
      }
    }
    go_on(reading->peer, *entry);
  }
  serve();
  return entry != nullptr;
}

void ServeCore::begin_send(const Url& peer, Peer& entry, const Ready& ready, Time now) {
  entry.is_sending = true;
  entry.is_sending_much = ready.bytes > limits_.max_response_bytes;
  auto watched = watched_.end();
  if (ready.lane == &unproven_) watched = watched_.insert(watched_.end(), Watched{peer, now});
  count(ready.kind);
  const auto under_way = under_way_.insert(under_way_.end(), UnderWay{peer, entry.serial, now});
  sends_.emplace(ready.read,
                 Sending{peer, entry.serial, ready.bytes, now, ready.lane, ready.kind, age_, watched, under_way});
  actions_.emplace_back(Send{ready.read, peer});
}

void ServeCore::on_sent(ReadId read, bool ok, Time now, std::uint64_t again_bytes) {
  const auto it = sends_.find(read);
  K2_ASSERT(it != sends_.end());
  advance(now);
  const Sending sending = std::move(it->second);
  sends_.erase(it);
  end(sending.kind, sending.age, ok);
  if (ok && sending.kind == major) change_allowance(static_cast<std::int64_t>(sending.bytes));
  sending.lane->serving_bytes -= sending.bytes;
  if (sending.watched != watched_.end()) watched_.erase(sending.watched);
  under_way_.erase(sending.under_way);
  if (is_stopped_) return;
  const Url& peer = sending.peer;
  if (Peer* entry = find(peer, sending.serial); entry != nullptr) {
    entry->is_sending = false;
    if (ok) {
      Known& known = known_[peer];
      known.taken = std::min(known.taken + sending.bytes, kProvenBytes);
      known.took_large = known.took_large || sending.bytes > kFrameBytes;
      known.sent += sending.bytes;
      known.sent_again += again_bytes;
      adapt(known, sending, now);
      if (entry->ready) {
        uncount(entry->ready->kind, entry->ready->age);
        begin_send(peer, *entry, *std::exchange(entry->ready, std::nullopt), now);
      }
    } else {
      // What was read meanwhile, or is being read, would arrive after a gap (S4).
      drop_ready(*entry);
      if (std::exchange(entry->is_reading, false)) entry->serial = next_serial_++;
      if (!entry->requests.empty() && entry->requests.front().has_begun) end_request(peer, *entry);
    }
    go_on(peer, *entry);
  }
  serve();
}

/// S8.
void ServeCore::adapt(Known& known, const Sending& sending, Time now) const {
  const Duration distance = known.distance();
  if (distance < kFarTrip || sending.bytes <= kFrameBytes) return;
  const auto trip = static_cast<std::uint64_t>(distance.count());
  const auto flow = static_cast<std::uint64_t>(std::max(now - sending.since - distance, Duration(1)).count());
  known.far_bytes =
      std::min({kFarTrips * trip * sending.bytes / flow, kFarGrowth * sending.bytes, limits_.max_far_response_bytes});
}

void ServeCore::drop_ready(Peer& entry) {
  if (!entry.ready) return;
  entry.ready->lane->serving_bytes -= entry.ready->bytes;
  end(entry.ready->kind, entry.ready->age, false);
  actions_.emplace_back(Discard{entry.ready->read});
  entry.ready.reset();
}

/// The first request has been read completely, or is not wanted any more.
void ServeCore::end_request(const Url& peer, Peer& entry) {
  const Request& request = entry.requests.front();
  if (const auto known = known_.find(peer); known != known_.end()) {
    auto& ended = known->second.ended;
    ended = {now_, request.joined > 1 ? now_ : ended[0]};
  }
  entry.queued_bytes -= request.cost;
  queued_bytes_ -= request.cost;
  entry.waiting -= request.joined;
  actions_.emplace_back(Forget{request.id});
  entry.requests.pop_front();
  entry.has_left_over = false;
}

void ServeCore::go_on(const Url& peer, Peer& entry) {
  if (entry.requests.empty()) leave_turn(peer, entry);
  if (entry.is_idle()) {
    peers_.erase(peer);
  } else {
    take_turn(peer, entry);
  }
}

void ServeCore::leave_turn(const Url& peer, Peer& entry) {
  if (!std::exchange(entry.is_in_turn, false)) return;
  for (Lane* lane : {&proven_, &unproven_}) {
    for (auto& turns : lane->turns) std::erase(turns, peer);
  }
}

void ServeCore::forget(const Url& peer) {
  known_.erase(peer);
  if (const auto it = peers_.find(peer); it != peers_.end()) {
    Peer& entry = it->second;
    while (!entry.requests.empty()) end_request(peer, entry);
    drop_ready(entry);
    leave_turn(peer, entry);
    peers_.erase(it);
  }
  serve();
}

void ServeCore::stop() {
  is_stopped_ = true;
  for (auto& [peer, entry] : peers_) drop_ready(entry);
  queued_bytes_ = 0;
  peers_.clear();
  known_.clear();
  proven_.turns = {};
  unproven_.turns = {};
  actions_.clear();
}

std::optional<Time> ServeCore::next_deadline() const {
  std::optional<Time> out;
  if (!watched_.empty() && unproven_.is_waited_for()) out = watched_.front().since + kPatience;
  const bool is_minor_waited_for = !proven_.turns[minor].empty() || !unproven_.turns[minor].empty();
  if (!is_minor_waited_for || minor_reads_ > 0 || may_read_minor()) return out;
  Time at = now_ + Duration(-allowance() / kMinorRate + 1);
  if (!are_majors_served() && proven_.turns[major].empty() && unproven_.turns[major].empty())
    at = std::min(at, others_until_);
  return out ? std::min(*out, at) : at;
}

void ServeCore::on_deadline(Time now) {
  advance(now);
  while (unproven_.is_waited_for() && !watched_.empty() && now - watched_.front().since >= kPatience) {
    // It leaves the list when its send has failed, which frees the room.
    watched_.front().since = now;
    actions_.emplace_back(Disconnect{watched_.front().peer});
    watched_.splice(watched_.end(), watched_, watched_.begin());
  }
  if (!is_stopped_) serve();
}

void ServeCore::check_invariants() const {
  std::uint64_t queued = 0;
  std::map<const Lane*, std::uint64_t> serving{{&proven_, 0}, {&unproven_, 0}};
  std::size_t major_reads = 0, minor_reads = 0;
  std::array<std::size_t, kAges> fresh{};
  const auto count_fresh = [&](Kind kind, std::int64_t age) {
    K2_ASSERT(age <= age_);
    if (kind == major && age_ - age < kAges) ++fresh[static_cast<std::size_t>(age_ - age)];
  };
  for (const auto& [id, reading] : reads_) {
    serving[reading.lane] += reading.max_bytes;
    ++(reading.kind == major ? major_reads : minor_reads);
  }
  K2_ASSERT(under_way_.size() == sends_.size());
  K2_ASSERT(std::ranges::is_sorted(under_way_, {}, &UnderWay::since));
  for (const auto& [id, sending] : sends_) {
    serving[sending.lane] += sending.bytes;
    count_fresh(sending.kind, sending.age);
  }
  for (const auto& [url, entry] : peers_) {
    std::uint64_t own = 0;
    std::size_t waiting = 0;
    for (const Request& request : entry.requests) {
      own += request.cost;
      waiting += request.joined;
    }
    K2_ASSERT(own == entry.queued_bytes);
    K2_ASSERT(waiting == entry.waiting);
    K2_ASSERT(!entry.is_idle());
    K2_ASSERT(!entry.has_left_over || !entry.requests.empty());
    queued += own;
    if (entry.ready) {
      serving[entry.ready->lane] += entry.ready->bytes;
      count_fresh(entry.ready->kind, entry.ready->age);
    }
    std::size_t turns = 0;
    for (const Lane* lane : {&proven_, &unproven_}) {
      for (const auto& queue : lane->turns)
        turns += static_cast<std::size_t>(std::count(queue.begin(), queue.end(), url));
    }
    K2_ASSERT(turns == (entry.is_in_turn ? 1 : 0));
  }
  K2_ASSERT(is_stopped_ || queued == queued_bytes_);
  for (const Lane* lane : {&proven_, &unproven_}) {
    K2_ASSERT(serving[lane] == lane->serving_bytes);
    // Nobody waits while there is room.
    K2_ASSERT(!may_give_turn(*lane, major));
    K2_ASSERT(!may_read_minor() || !may_give_turn(*lane, minor));
  }
  K2_ASSERT(major_reads == major_reads_ && minor_reads == minor_reads_ && fresh == fresh_majors_);
  K2_ASSERT(-kMinorBurst <= allowance_ && allowance_ <= kMinorBurst);
}

}  // namespace kitsune2
