#include "node/core_fetch_server.hpp"

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
  auto& entry = peers_[peer];
  if (entry.serial == 0) entry.serial = next_serial_++;
  const auto bytes = op_ids.total_bytes() + 2 * op_ids.size();
  if (entry.requests.size() >= config_.max_incoming_requests_per_peer ||
      (!entry.requests.empty() && entry.queued_bytes + bytes > kMaxQueuedBytes) ||
      (queued_bytes_ > 0 && queued_bytes_ + bytes > kMaxAllQueuedBytes)) {
    ++stats_.requests_refused;
    if (entry.requests.empty()) peers_.erase(peer);
    if (refused_gate_.open(runtime_.now())) {
      log::debug("fetch", peer.to_string() + ": more requests than may wait (" +
                              std::to_string(refused_gate_.suppressed()) + " like this before)");
    }
    return;
  }
  entry.queued_bytes += bytes;
  queued_bytes_ += bytes;
  auto first = op_ids.begin();
  entry.requests.push_back({std::move(op_ids), first});
  take_turn(peer, entry);
  serve();
}

void FetchServer::take_turn(const Url& peer, Peer& entry) {
  if (entry.active || entry.in_turn || entry.requests.empty()) return;
  entry.in_turn = true;
  turns_.push_back(peer);
}

void FetchServer::serve() {
  // The budget is taken for a whole response before its read: its size is not known earlier.
  while (!turns_.empty() && (serving_bytes_ == 0 || serving_bytes_ + config_.max_response_bytes <= kMaxServingBytes)) {
    const Url peer = std::move(turns_.front());
    turns_.pop_front();
    const auto it = peers_.find(peer);
    if (it == peers_.end() || !it->second.in_turn) continue;  // forgotten meanwhile
    it->second.in_turn = false;
    read(peer, it->second);
  }
}

void FetchServer::read(const Url& peer, Peer& entry) {
  entry.active = true;
  auto ids = std::exchange(entry.rest, {});
  if (ids.empty()) {
    auto& request = entry.requests.front();
    ids.reserve(std::min(request.ids.size(), kMaxIdsPerRead));
    for (; request.next != std::default_sentinel && ids.size() < kMaxIdsPerRead; ++request.next) {
      ids.emplace_back(*request.next);
    }
  }
  serving_bytes_ += config_.max_response_bytes;
  ++reads_;
  auto asked = std::make_shared<std::vector<OpId>>(ids);
  store_->retrieve_ops(std::move(ids), config_.max_response_bytes,
                       lifetime_.guard([this, peer, serial = entry.serial, asked](Result<std::vector<MetaOp>> result) {
                         --reads_;
                         serving_bytes_ -= config_.max_response_bytes;
                         got(peer, serial, std::move(*asked), std::move(result));
                         serve();
                         if (reads_ == 0 && idle_) idle_();
                       }));
}

void FetchServer::got(const Url& peer, std::uint64_t serial, std::vector<OpId> asked,
                      Result<std::vector<MetaOp>> result) {
  auto* entry = find(peer, serial);
  if (entry == nullptr || stopped_) return;
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
  serving_bytes_ += bytes;
  transport_->send_encoded(peer, space_, wire::encode_fetch_response(space_, ops),
                           lifetime_.guard([this, peer, serial, count = ops.size(), bytes](const Result<void>& r) {
                             serving_bytes_ -= bytes;
                             sent(peer, serial, count, bytes, r);
                             serve();
                           }));
}

void FetchServer::sent(const Url& peer, std::uint64_t serial, std::uint64_t ops, std::uint64_t bytes,
                       const Result<void>& result) {
  if (result) {
    stats_.ops_served += ops;
    stats_.bytes_served += bytes;
    if (served_ && !stopped_) served_(peer, ops, bytes);
  }
  auto* entry = find(peer, serial);
  if (entry == nullptr || stopped_) return;
  if (!result) {
    if (failed_gate_.open(runtime_.now())) {
      log::debug("fetch", "answering " + peer.to_string() + ": " + result.error().to_string());
    }
    end_request(*entry);
  }
  go_on(peer, *entry);
}

void FetchServer::end_request(Peer& entry) {
  const auto& ids = entry.requests.front().ids;
  const auto bytes = ids.total_bytes() + 2 * ids.size();
  entry.queued_bytes -= bytes;
  queued_bytes_ -= bytes;
  entry.requests.pop_front();
  entry.rest.clear();
}

void FetchServer::go_on(const Url& peer, Peer& entry) {
  entry.active = false;
  if (!entry.requests.empty() && entry.rest.empty() && entry.requests.front().next == std::default_sentinel) {
    end_request(entry);
  }
  if (entry.requests.empty()) {
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
  if (const auto it = peers_.find(peer); it != peers_.end()) {
    queued_bytes_ -= it->second.queued_bytes;
    peers_.erase(it);
  }
  serve();
}

void FetchServer::stop() {
  stopped_ = true;
  queued_bytes_ = 0;
  peers_.clear();
  turns_.clear();
}

}  // namespace kitsune2
