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

std::optional<ServeCore::RequestId> ServeCore::on_request(const Url& peer, std::uint64_t cost, Time now,
                                                          bool is_small) {
  if (is_stopped_) return std::nullopt;
  busy_until_ = now + kBusyFor;
  auto& entry = peers_[peer];
  if (entry.serial == 0) entry.serial = next_serial_++;
  if (entry.waiting >= limits_.max_requests_per_peer ||
      (!entry.requests.empty() && entry.queued_bytes + cost > kMaxQueuedBytes) ||
      (queued_bytes_ > 0 && queued_bytes_ + cost > kMaxAllQueuedBytes)) {
    if (entry.is_idle()) peers_.erase(peer);
    return std::nullopt;
  }
  entry.queued_bytes += cost;
  queued_bytes_ += cost;
  ++entry.waiting;
  if (is_small && may_join(entry)) {
    Request& last = entry.requests.back();
    last.cost += cost;
    ++last.joined;
    const RequestId id = last.id;
    serve();  // what the answer may have has shrunk, so that there may be room for it
    return id;
  }
  const RequestId id = next_request_++;
  entry.requests.push_back({id, cost, false, is_small, 1});
  take_turn(peer, entry);
  serve();
  return id;
}

/// S10.
bool ServeCore::may_join(const Peer& entry) {
  if (entry.requests.empty()) return false;
  const Request& last = entry.requests.back();
  return last.is_small && !last.has_begun && last.joined < kMostJoined;
}

ServeCore::Lane& ServeCore::lane_of(const Url& peer) {
  const auto it = known_.find(peer);
  return it != known_.end() && it->second.taken >= kProvenBytes ? proven_ : unproven_;
}

void ServeCore::note_round_trip(const Url& peer, Duration trip) {
  if (is_stopped_) return;
  known_[peer].trip = std::clamp(trip, Duration(0), kLongestTrip);
  serve();
}

void ServeCore::take_turn(const Url& peer, Peer& entry) {
  if (entry.is_reading || entry.ready || entry.is_in_turn || entry.requests.empty()) return;
  Lane& lane = lane_of(peer);
  if (entry.is_sending && (&lane == &unproven_ || entry.is_sending_much)) return;  // S6, S8: it takes this one first
  entry.is_in_turn = true;
  lane.turns.push_back(peer);
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
  if (!is_proven) most = std::min(most, std::clamp(kTrust * known.taken, kFirstResponseBytes, kProvenBytes));
  if (known.trip < kFarTrip) return most;
  if (!known.has_large_ops) return std::min(most, kFrameBytes);
  if (!is_proven) return most;
  return std::max(most, std::min(known.far_bytes, kMaxServingBytes / (2 * std::max<std::size_t>(1, peers_.size()))));
}

/// Whether there is room for the peer whose turn it is.
bool ServeCore::has_room(const Lane& lane) const {
  if (reads_.size() >= kMaxReads) return false;
  return lane.serving_bytes == 0 || lane.serving_bytes + most_bytes(lane.turns.front()) <= kMaxServingBytes;
}

void ServeCore::serve() {
  // The room is taken for a whole response before its read, since its size is not known earlier.
  const auto may = [this](const Lane& lane) { return !lane.turns.empty() && has_room(lane); };
  while (may(*next_lane_) || may(other_lane())) {
    Lane& lane = may(*next_lane_) ? *next_lane_ : other_lane();
    next_lane_ = &lane == &proven_ ? &unproven_ : &proven_;
    const Url peer = std::move(lane.turns.front());
    lane.turns.pop_front();
    Peer& entry = peers_.at(peer);
    entry.is_in_turn = false;
    begin_read(peer, entry, lane);
  }
}

void ServeCore::begin_read(const Url& peer, Peer& entry, Lane& lane) {
  entry.is_reading = true;
  Request& request = entry.requests.front();
  const bool left_over = std::exchange(entry.has_left_over, false);
  request.has_begun = true;
  const std::uint64_t most = most_bytes(peer);
  lane.serving_bytes += most;
  const ReadId id = next_read_++;
  reads_.emplace(id, Reading{peer, entry.serial, most, &lane});
  const std::size_t most_ids = peers_.size() > 1 ? kSharedIdsPerRead : kMaxIdsPerRead;
  actions_.emplace_back(Read{id, request.id, peer, left_over, most_ids, most});
}

std::optional<ServeCore::Reading> ServeCore::take_read(ReadId read) {
  const auto it = reads_.find(read);
  K2_ASSERT(it != reads_.end());
  Reading out = std::move(it->second);
  reads_.erase(it);
  out.lane->serving_bytes -= out.max_bytes;
  if (is_stopped_) return std::nullopt;
  return out;
}

bool ServeCore::on_read_failed(ReadId read) {
  const auto reading = take_read(read);
  if (!reading) return false;
  Peer* entry = find(reading->peer, reading->serial);
  if (entry != nullptr) {
    entry->is_reading = false;
    end_request(*entry);
    go_on(reading->peer, *entry);
  }
  serve();
  return entry != nullptr;
}

bool ServeCore::on_read_ended(ReadId read, const ReadOutcome& outcome, Time now) {
  const auto reading = take_read(read);
  if (!reading) return false;
  Peer* entry = find(reading->peer, reading->serial);
  if (entry != nullptr) {
    entry->is_reading = false;
    entry->has_left_over = outcome.left_over;
    if (!outcome.left_over && outcome.is_exhausted) end_request(*entry);
    if (outcome.has_ops) {
      known_[reading->peer].has_large_ops = outcome.bytes > outcome.ops * (kFrameBytes / 2);
      reading->lane->serving_bytes += outcome.bytes;
      const Ready ready{read, outcome.bytes, reading->lane};
      if (entry->is_sending) {
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
  sends_.emplace(ready.read, Sending{peer, entry.serial, ready.bytes, now, ready.lane, watched});
  actions_.emplace_back(Send{ready.read, peer});
}

void ServeCore::on_sent(ReadId read, bool ok, Time now) {
  const auto it = sends_.find(read);
  K2_ASSERT(it != sends_.end());
  const Sending sending = std::move(it->second);
  sends_.erase(it);
  sending.lane->serving_bytes -= sending.bytes;
  if (sending.watched != watched_.end()) watched_.erase(sending.watched);
  if (is_stopped_) return;
  const Url& peer = sending.peer;
  if (Peer* entry = find(peer, sending.serial); entry != nullptr) {
    entry->is_sending = false;
    if (ok) {
      Known& known = known_[peer];
      known.taken = std::min(known.taken + sending.bytes, kProvenBytes);
      adapt(known, sending, now);
      if (entry->ready) begin_send(peer, *entry, *std::exchange(entry->ready, std::nullopt), now);
    } else {
      // What was read meanwhile, or is being read, would arrive after a gap (S4).
      drop_ready(*entry);
      if (std::exchange(entry->is_reading, false)) entry->serial = next_serial_++;
      if (!entry->requests.empty() && entry->requests.front().has_begun) end_request(*entry);
    }
    go_on(peer, *entry);
  }
  serve();
}

/// S8.
void ServeCore::adapt(Known& known, const Sending& sending, Time now) const {
  if (known.trip < kFarTrip || sending.bytes <= kFrameBytes) return;
  const auto trip = static_cast<std::uint64_t>(known.trip.count());
  const auto flow = static_cast<std::uint64_t>(std::max(now - sending.since - known.trip, Duration(1)).count());
  known.far_bytes =
      std::min({kFarTrips * trip * sending.bytes / flow, kFarGrowth * sending.bytes, limits_.max_far_response_bytes});
}

void ServeCore::drop_ready(Peer& entry) {
  if (!entry.ready) return;
  entry.ready->lane->serving_bytes -= entry.ready->bytes;
  actions_.emplace_back(Discard{entry.ready->read});
  entry.ready.reset();
}

/// The first request has been read completely, or is not wanted any more.
void ServeCore::end_request(Peer& entry) {
  const Request& request = entry.requests.front();
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
  for (Lane* lane : {&proven_, &unproven_}) std::erase(lane->turns, peer);
}

void ServeCore::forget(const Url& peer) {
  known_.erase(peer);
  if (const auto it = peers_.find(peer); it != peers_.end()) {
    Peer& entry = it->second;
    while (!entry.requests.empty()) end_request(entry);
    drop_ready(entry);
    leave_turn(peer, entry);
    peers_.erase(it);
  }
  serve();
}

void ServeCore::stop() {
  is_stopped_ = true;
  for (auto& [peer, entry] : peers_) {
    if (entry.ready) entry.ready->lane->serving_bytes -= entry.ready->bytes;
  }
  queued_bytes_ = 0;
  peers_.clear();
  known_.clear();
  proven_.turns.clear();
  unproven_.turns.clear();
  actions_.clear();
}

std::optional<Time> ServeCore::next_deadline() const {
  if (watched_.empty() || unproven_.turns.empty()) return std::nullopt;
  return watched_.front().since + kPatience;
}

void ServeCore::on_deadline(Time now) {
  if (unproven_.turns.empty()) return;
  while (!watched_.empty() && now - watched_.front().since >= kPatience) {
    // It leaves the list when its send has failed, which frees the room.
    watched_.front().since = now;
    actions_.emplace_back(Disconnect{watched_.front().peer});
    watched_.splice(watched_.end(), watched_, watched_.begin());
  }
}

void ServeCore::check_invariants() const {
  std::uint64_t queued = 0;
  std::map<const Lane*, std::uint64_t> serving{{&proven_, 0}, {&unproven_, 0}};
  for (const auto& [id, reading] : reads_) serving[reading.lane] += reading.max_bytes;
  for (const auto& [id, sending] : sends_) serving[sending.lane] += sending.bytes;
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
    if (entry.ready) serving[entry.ready->lane] += entry.ready->bytes;
    std::size_t turns = 0;
    for (const Lane* lane : {&proven_, &unproven_})
      turns += static_cast<std::size_t>(std::count(lane->turns.begin(), lane->turns.end(), url));
    K2_ASSERT(turns == (entry.is_in_turn ? 1 : 0));
  }
  K2_ASSERT(is_stopped_ || queued == queued_bytes_);
  for (const Lane* lane : {&proven_, &unproven_}) {
    K2_ASSERT(serving[lane] == lane->serving_bytes);
    K2_ASSERT(lane->turns.empty() || !has_room(*lane));  // nobody waits while there is room
  }
}

}  // namespace kitsune2
