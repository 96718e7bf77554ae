#include "node/fetch/core_fetch_server.hpp"

#include <algorithm>
#include <utility>

namespace kitsune2 {

FetchServer::FetchServer(Runtime& runtime, const CoreFetchConfig& config, const SpaceId& space,
                         std::shared_ptr<OpStore> store, std::shared_ptr<Transport> transport, FetchStats& stats,
                         Served served)
    : runtime_(runtime),
      config_(config),
      space_(space),
      store_(std::move(store)),
      transport_(std::move(transport)),
      stats_(stats),
      served_(std::move(served)) {}

FetchServer::Peer* FetchServer::find(const Url& peer, std::uint64_t serial) {
  const auto it = peers_.find(peer);
  return it != peers_.end() && it->second.serial == serial ? &it->second : nullptr;
}

void FetchServer::request(const Url& peer, wire::IdList op_ids) {
  if (stopped_) return;
  ++stats_.requests_received;
  if (op_ids.empty()) return;
  busy_until_ = runtime_.now() + kBusyFor;
  auto& entry = peers_[peer];
  if (entry.serial == 0) entry.serial = next_serial_++;
  const auto bytes = kRequestBytes + op_ids.total_bytes() + 2 * op_ids.size();
  if (entry.requests.size() >= config_.max_incoming_requests_per_peer ||
      (!entry.requests.empty() && entry.queued_bytes + bytes > kMaxQueuedBytes) ||
      (queued_bytes_ > 0 && queued_bytes_ + bytes > kMaxAllQueuedBytes)) {
    ++stats_.requests_refused;
    if (entry.idle()) peers_.erase(peer);
    transport_->wasted(peer, bytes);
    if (refused_gate_.open(runtime_.now())) {
      log::debug("fetch", peer.to_string() + ": more requests than may wait (" +
                              std::to_string(refused_gate_.suppressed()) + " like this before)");
    }
    return;
  }
  entry.queued_bytes += bytes;
  queued_bytes_ += bytes;
  auto first = op_ids.begin();
  entry.requests.push_back({std::move(op_ids), first, false});
  take_turn(peer, entry);
  serve();
}

FetchServer::Lane& FetchServer::lane_of(const Url& peer) {
  const auto it = taken_.find(peer);
  return it != taken_.end() && it->second >= kProvenBytes ? proven_ : unproven_;
}

void FetchServer::took(const Url& peer, std::uint64_t bytes) {
  auto& taken = taken_[peer];
  taken = std::min(taken + bytes, kProvenBytes);
}

void FetchServer::take_turn(const Url& peer, Peer& entry) {
  if (entry.reading || entry.ready || entry.in_turn || entry.requests.empty()) return;
  Lane& lane = lane_of(peer);
  if (entry.sending && &lane == &unproven_) return;  // S6: it has to take this one first
  entry.in_turn = true;
  lane.turns.push_back(peer);
}

/// Of payload in the next response.
std::uint64_t FetchServer::most_bytes(const Url& peer) const {
  const auto it = taken_.find(peer);
  const std::uint64_t taken = it == taken_.end() ? 0 : it->second;
  if (taken >= kProvenBytes) return config_.max_response_bytes;
  return std::min<std::uint64_t>(config_.max_response_bytes,
                                 std::clamp(kTrust * taken, kFirstResponseBytes, kProvenBytes));
}

/// For the peer whose turn it is.
bool FetchServer::has_room(const Lane& lane) const {
  if (reads_ >= kMaxReads) return false;
  return lane.serving_bytes == 0 || lane.serving_bytes + most_bytes(lane.turns.front()) <= kMaxServingBytes;
}

void FetchServer::serve() {
  // The budget is taken for a whole response before its read: its size is not known earlier.
  for (Lane* lane : {&proven_, &unproven_}) {
    while (!lane->turns.empty() && has_room(*lane)) {
      const Url peer = std::move(lane->turns.front());
      lane->turns.pop_front();
      const auto it = peers_.find(peer);
      if (it == peers_.end() || !it->second.in_turn) continue;  // forgotten meanwhile
      it->second.in_turn = false;
      read(peer, it->second, *lane);
    }
  }
  watch();
}

void FetchServer::watch() {
  if (timer_ != 0 || watched_.empty() || unproven_.turns.empty()) return;
  timer_ = runtime_.schedule(watched_.front().since + kPatience, lifetime_.guard([this] {
    timer_ = 0;
    send_away_silent();
    watch();
  }));
}

void FetchServer::send_away_silent() {
  if (unproven_.turns.empty() || has_room(unproven_)) return;
  const Time now = runtime_.now();
  std::vector<Url> gone;
  while (!watched_.empty() && now - watched_.front().since >= kPatience) {
    // It leaves the list when its send has failed, which makes the room.
    watched_.front().since = now;
    gone.push_back(watched_.front().peer);
    watched_.splice(watched_.end(), watched_, watched_.begin());
  }
  for (const Url& peer : gone) {
    ++stats_.requests_refused;
    transport_->disconnect(peer, "a response that was asked for is not taken");
  }
}

void FetchServer::read(const Url& peer, Peer& entry, Lane& lane) {
  entry.reading = true;
  auto ids = std::exchange(entry.rest, {});
  if (ids.empty()) {
    auto& request = entry.requests.front();
    request.begun = true;
    const std::size_t most_ids = peers_.size() > 1 ? kSharedIdsPerRead : kMaxIdsPerRead;
    ids.reserve(std::min(request.ids.size(), most_ids));
    for (; request.next != std::default_sentinel && ids.size() < most_ids; ++request.next) {
      ids.emplace_back(*request.next);
    }
  }
  const std::uint64_t most = most_bytes(peer);
  lane.serving_bytes += most;
  ++reads_;
  auto asked = std::make_shared<std::vector<OpId>>(ids);
  store_->retrieve_ops(
      std::move(ids), most,
      lifetime_.guard([this, peer, &lane, most, serial = entry.serial, asked](Result<std::vector<MetaOp>> result) {
        --reads_;
        lane.serving_bytes -= most;
        got(peer, serial, lane, std::move(*asked), std::move(result));
        serve();
        if (reads_ == 0 && idle_) idle_();
      }));
}

void FetchServer::got(const Url& peer, std::uint64_t serial, Lane& lane, std::vector<OpId> asked,
                      Result<std::vector<MetaOp>> result) {
  auto* entry = find(peer, serial);
  if (entry == nullptr || stopped_) return;
  entry->reading = false;
  if (!result) {
    if (failed_gate_.open(runtime_.now())) {
      log::warn("fetch", "reading ops for " + peer.to_string() + ": " + result.error().to_string());
    }
    end_request(*entry);
    return go_on(peer, *entry);
  }
  const auto& ops = *result;
  if (ops.empty()) {
    note_missing(peer, asked, ops, asked.size());
    end_if_read(*entry);
    return go_on(peer, *entry);
  }
  // What stands behind the last op that came was cut off by the byte limit or is not held: ask again to know.
  auto after = asked.begin();
  for (auto it = asked.end(); it != asked.begin(); --it) {
    if (*std::prev(it) == ops.back().op_id) {
      after = it;
      break;
    }
  }
  note_missing(peer, asked, ops, static_cast<std::size_t>(after - asked.begin()));
  std::uint64_t bytes = 0;
  for (const auto& op : ops) bytes += op.op_data.size();
  if (after != asked.begin()) {
    entry->rest.assign(std::make_move_iterator(after), std::make_move_iterator(asked.end()));
  }
  end_if_read(*entry);
  lane.serving_bytes += bytes;
  Answer answer{wire::encode_fetch_response_chain(space_, ops), ops.size(), bytes, &lane};
  if (entry->sending) {
    entry->ready = std::move(answer);
  } else {
    send(peer, *entry, std::move(answer));
    go_on(peer, *entry);
  }
}

void FetchServer::send(const Url& peer, Peer& entry, Answer answer) {
  entry.sending = true;
  auto watched = watched_.end();
  if (answer.lane == &unproven_) watched = watched_.insert(watched_.end(), {peer, entry.serial, runtime_.now()});
  transport_->send_encoded(peer, space_, std::move(answer.message),
                           lifetime_.guard([this, peer, serial = entry.serial, lane = answer.lane, watched,
                                            ops = answer.ops, bytes = answer.bytes](const Result<void>& r) {
                             lane->serving_bytes -= bytes;
                             if (watched != watched_.end()) watched_.erase(watched);
                             sent(peer, serial, ops, bytes, r);
                             serve();
                           }));
}

void FetchServer::sent(const Url& peer, std::uint64_t serial, std::uint64_t ops, std::uint64_t bytes,
                       const Result<void>& result) {
  if (result) {
    stats_.ops_served += ops;
    stats_.bytes_served += bytes;
    if (find(peer, serial) != nullptr) took(peer, bytes);
    if (served_ && !stopped_) served_(peer, ops, bytes);
  }
  auto* entry = find(peer, serial);
  if (entry == nullptr || stopped_) return;
  entry->sending = false;
  if (!result) {
    if (failed_gate_.open(runtime_.now())) {
      log::debug("fetch", "answering " + peer.to_string() + ": " + result.error().to_string());
    }
    // What was read meanwhile, or is being read, would come after a gap.
    drop_ready(*entry);
    if (std::exchange(entry->reading, false)) entry->serial = next_serial_++;
    if (!entry->requests.empty() && entry->requests.front().begun) end_request(*entry);
  } else if (entry->ready) {
    send(peer, *entry, std::move(*std::exchange(entry->ready, std::nullopt)));
  }
  go_on(peer, *entry);
}

void FetchServer::drop_ready(Peer& entry) {
  if (!entry.ready) return;
  entry.ready->lane->serving_bytes -= entry.ready->bytes;
  entry.ready.reset();
}

void FetchServer::end_if_read(Peer& entry) {
  if (entry.rest.empty() && entry.requests.front().next == std::default_sentinel) end_request(entry);
}

void FetchServer::end_request(Peer& entry) {
  const auto& ids = entry.requests.front().ids;
  const auto bytes = kRequestBytes + ids.total_bytes() + 2 * ids.size();
  entry.queued_bytes -= bytes;
  queued_bytes_ -= bytes;
  entry.requests.pop_front();
  entry.rest.clear();
}

void FetchServer::go_on(const Url& peer, Peer& entry) {
  if (entry.idle()) {
    peers_.erase(peer);
  } else {
    take_turn(peer, entry);
  }
}

void FetchServer::note_missing(const Url& peer, const std::vector<OpId>& asked, const std::vector<MetaOp>& held,
                               std::size_t looked_at) {
  // Held ops come in the order asked, each once: what does not line up is not held (or was asked for twice).
  std::size_t next = 0;
  const OpId* first = nullptr;
  for (std::size_t i = 0; i < looked_at; ++i) {
    if (next < held.size() && held[next].op_id == asked[i]) {
      ++next;
    } else if (first == nullptr) {
      first = &asked[i];
    }
  }
  if (first == nullptr) return;
  const auto missing = looked_at - next;
  stats_.ops_not_held += missing;
  if (log::enabled(log::Level::debug) && missing_gate_.open(runtime_.now())) {
    log::debug("fetch", peer.to_string() + " asked for " + std::to_string(missing) +
                            " ops that are not held, the first is " + first->to_string() + " (" +
                            std::to_string(missing_gate_.suppressed()) + " such requests before)");
  }
}

void FetchServer::forget(const Url& peer) {
  taken_.erase(peer);
  if (const auto it = peers_.find(peer); it != peers_.end()) {
    queued_bytes_ -= it->second.queued_bytes;
    drop_ready(it->second);
    peers_.erase(it);
  }
  serve();
}

void FetchServer::stop() {
  stopped_ = true;
  queued_bytes_ = 0;
  peers_.clear();
  taken_.clear();
  proven_.turns.clear();
  unproven_.turns.clear();
}

}  // namespace kitsune2
