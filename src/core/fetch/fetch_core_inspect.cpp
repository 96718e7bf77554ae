// Inspection of the fetch core, and its check of its own invariants.
#include <algorithm>

#include "core/fetch/fetch_core.hpp"

namespace kitsune2 {

FetchCounts FetchCore::counts() const {
  FetchCounts out;
  out.ops = ops_.size();
  out.pairs = pairs_.size();
  out.asked_ops = asked_ops_;
  out.storing_ops = storing_ops_;
  out.requests = requests_.size();
  out.sources = sources_.size();
  out.sources_backing_off = back_offs_.size();
  sources_.for_each([&](std::uint32_t, const Source& source) { out.known_bytes += source.asked_ops * source.op_size; });
  return out;
}

void FetchCore::for_each_op(const std::function<void(const OpId&, const std::vector<Url>&)>& f) const {
  std::vector<Url> urls;
  ops_.for_each([&](std::uint32_t, const Op& op) {
    urls.clear();
    std::uint32_t pair = op.first_pair;
    for (std::uint32_t i = 0; i < op.sources; ++i, pair = pairs_[pair].op_next) {
      urls.push_back(sources_[pairs_[pair].source].url);
    }
    f(op.id, urls);
  });
}

std::vector<OpId> FetchCore::asked_by(std::uint64_t id) const {
  std::vector<OpId> out;
  const auto it = request_index_.find(id);
  if (it == request_index_.end()) return out;
  for (const std::uint32_t op : requests_[it->second].ops) {
    if (ops_.holds(op) && ops_[op].request == it->second) out.push_back(ops_[op].id);
  }
  return out;
}

std::vector<std::pair<Url, Time>> FetchCore::backing_off() const {
  std::vector<std::pair<Url, Time>> out;
  out.reserve(back_offs_.size());
  for (const BackOffEnd& end : back_offs_) out.emplace_back(sources_[end.source].url, end.until);
  return out;
}

void FetchCore::check_invariants() const {
  check_ops();
  check_sources();
  check_departed();
  check_requests();
}

void FetchCore::check_ops() const {
  std::uint64_t pairs = 0;
  std::uint64_t asked = 0;
  std::uint64_t storing = 0;
  std::uint64_t indexed = 0;
  std::uint64_t id_bytes = 0;
  ops_.for_each([&](std::uint32_t slot, const Op& op) {
    id_bytes += op.id.size();
    K2_ASSERT(op.hash == hash_of(op.id));
    K2_ASSERT(find(op.id) == slot);
    K2_ASSERT(op.sources > 0 || op.state == State::storing);
    K2_ASSERT((op.first_pair == kNoSlot) == (op.sources == 0));
    K2_ASSERT((op.request != kNoSlot) == (op.state == State::asked));
    K2_ASSERT(op.indexed || op.sources <= kChainSearch);
    pairs += op.sources;
    asked += op.state == State::asked ? 1 : 0;
    storing += op.state == State::storing ? 1 : 0;
    indexed += op.indexed ? op.sources : 0;
    std::vector<std::uint32_t> sources;
    std::uint32_t at = op.first_pair;
    for (std::uint32_t i = 0; i < op.sources; ++i) {
      const Pair& pair = pairs_[at];
      K2_ASSERT(pair.op == slot);
      K2_ASSERT(pairs_[pair.op_next].op_prev == at);
      K2_ASSERT(find_pair(slot, pair.source) == at);
      K2_ASSERT(pair.silences < kMostAsksOfAMute);
      if (op.state == State::queued) {
        K2_ASSERT(pair.place != kIdle);
      } else {
        K2_ASSERT(pair.place != kReady);
      }
      sources.push_back(pair.source);
      at = pair.op_next;
    }
    K2_ASSERT(at == op.first_pair);
    std::sort(sources.begin(), sources.end());
    K2_ASSERT(std::adjacent_find(sources.begin(), sources.end()) == sources.end());
    if (op.state == State::asked) {
      const Request& request = requests_[op.request];
      K2_ASSERT(requests_.holds(op.request));
      K2_ASSERT(std::count(request.ops.begin(), request.ops.end(), slot) == 1);
      const std::uint32_t pair = find_pair(slot, request.source);
      K2_ASSERT(pair != kNoSlot && pairs_[pair].place == kIdle);
    }
  });
  K2_ASSERT(pairs == pairs_.size());
  K2_ASSERT(asked == asked_ops_);
  K2_ASSERT(id_bytes == id_bytes_);
  K2_ASSERT(storing == storing_ops_);
  K2_ASSERT(indexed == pair_index_.size());
  K2_ASSERT(op_index_.size() == ops_.size());
  K2_ASSERT(pairs_.size() <= config_.max_pending);
}

void FetchCore::check_departed() const {
  K2_ASSERT(departed_order_.size() == departed_.size() && departed_.size() <= kSourcesRemembered);
  for (const auto& [number, url] : departed_order_) {
    const auto it = departed_.find(url);
    K2_ASSERT(it != departed_.end() && it->second.number == number && it->second.late > 0);
    K2_ASSERT(find_source(url) == kNoSlot);
  }
  K2_ASSERT(dropped_order_.size() == dropped_.size() && dropped_.size() <= kDroppedOps);
  for (const auto& [number, op_id] : dropped_order_) {
    const auto it = dropped_.find(op_id);
    K2_ASSERT(it != dropped_.end() && it->second == number);
    K2_ASSERT(find(op_id) == kNoSlot);
  }
  std::size_t hashes = 0;
  sources_.for_each([&](std::uint32_t, const Source& source) {
    hashes += source.late.size();
    std::uint64_t late = source.late_more;
    for (const auto& [hash, count] : source.late) late += count;
    K2_ASSERT(late == source.late_all);
  });
  K2_ASSERT(hashes == late_hashes_ && hashes <= kLateOps);
}

/// Counts the pairs of one of a source's lists, which must be whole and, if its pairs wait, in the order of their time.
std::uint64_t FetchCore::check_list(std::uint32_t slot, const List& list, std::uint32_t place) const {
  std::uint64_t count = 0;
  std::uint32_t before = kNoSlot;
  Time due = Time::min();
  for (std::uint32_t at = list.head; at != kNoSlot; at = pairs_[at].next, ++count) {
    const Pair& pair = pairs_[at];
    K2_ASSERT(pairs_.holds(at) && pair.source == slot && pair.place == place && pair.prev == before);
    if (place >= kWaiting) {
      K2_ASSERT(pair.due >= due);
      K2_ASSERT(pair.due <= now_ + delay_ * (std::int64_t{1} << (place - kWaiting)));
      due = pair.due;
    }
    before = at;
  }
  K2_ASSERT(list.tail == before);
  return count;
}

/// Returns in how many lists pairs of the source wait for another attempt.
std::size_t FetchCore::check_pairs_of(std::uint32_t slot, const Source& source) const {
  const std::uint64_t ready = check_list(slot, source.ready_list, kReady);
  std::uint64_t pairs = ready + check_list(slot, source.idle_list, kIdle);
  std::size_t waits = 0;
  for (std::uint32_t level = 0; level < kMissLevels; ++level) {
    const List& list = source.waiting_lists[level];
    pairs += check_list(slot, list, kWaiting + level);
    if (list.empty()) continue;
    ++waits;
    K2_ASSERT(waits_.contains({pairs_[list.head].due, level, source.age, slot}));
  }
  K2_ASSERT(ready == source.ready);
  K2_ASSERT(pairs == source.pairs);
  K2_ASSERT(pairs <= config_.max_pending_per_peer);
  return waits;
}

void FetchCore::check_requests_of(std::uint32_t slot, const Source& source) const {
  std::uint64_t open = 0;
  std::uint64_t asked = 0;
  std::uint64_t last_id = 0;
  for (std::uint32_t at = source.requests.head; at != kNoSlot; at = requests_[at].by_source.next, ++open) {
    K2_ASSERT(requests_.holds(at) && requests_[at].source == slot && requests_[at].id > last_id);
    last_id = requests_[at].id;
    asked += requests_[at].left;
  }
  const std::uint32_t most = config_.parallel_request_count;
  K2_ASSERT(source.most_ids >= 1 && source.most_ids <= config_.max_ids_per_request);
  K2_ASSERT(open == source.requests_open);
  K2_ASSERT(open <= (follows_ ? std::max(most, config_.max_parallel_request_count) : most));
  K2_ASSERT(asked == source.asked_ops);
}

/// The ring that the source is in is the one in which it belongs, and it is in no other.
void FetchCore::check_ring_of(std::uint32_t slot, const Source& source) const {
  const bool in_doubt = is_doubtful(source);
  const bool has_room = !source.backing_off && has_place(source);
  const bool can_be_asked = source.ready > 0 && has_room;
  const bool is_idle = source.ready == 0 && source.pairs > 0 && has_room;
  const Turn turn{source.turn, source.age, slot};
  const bool in_live = live_.contains(turn), in_doubtful = doubtful_.contains(turn), in_free = free_.contains(turn);
  K2_ASSERT(in_live == (can_be_asked && !in_doubt));
  K2_ASSERT(in_doubtful == (can_be_asked && in_doubt));
  K2_ASSERT(in_free == (is_idle && !in_doubt && source.op_size > 0 && source.window.rate() > 0));
  K2_ASSERT((source.ring == Ring::live) == in_live && (source.ring == Ring::doubtful) == in_doubtful);
  K2_ASSERT((source.ring == Ring::free) == in_free);
}

void FetchCore::check_sources() const {
  std::size_t spare = 0, backing_off = 0, waits = 0, in_rings = 0;
  sources_.for_each([&](std::uint32_t slot, const Source& source) {
    K2_ASSERT(find_source(source.url) == slot);
    waits += check_pairs_of(slot, source);
    check_requests_of(slot, source);
    check_ring_of(slot, source);
    in_rings += source.ring == Ring::none ? 0 : 1;

    K2_ASSERT(!source.backing_off || source.back_off.any());
    K2_ASSERT(!source.backing_off || back_offs_.contains({source.back_off.until(), source.age, slot}));
    backing_off += source.backing_off ? 1 : 0;
    K2_ASSERT(source.is_spare == (source.pairs == 0 && source.requests_open == 0 && !source.backing_off));
    spare += source.is_spare ? 1 : 0;
  });
  K2_ASSERT(source_index_.size() == sources_.size());
  K2_ASSERT(in_rings == live_.size() + doubtful_.size() + free_.size());
  K2_ASSERT(backing_off == back_offs_.size());
  K2_ASSERT(waits == waits_.size());
  std::size_t listed = 0;
  for (std::uint32_t at = spare_sources_.head; at != kNoSlot; at = sources_[at].spare.next, ++listed) {
    K2_ASSERT(sources_[at].is_spare);
  }
  K2_ASSERT(spare == spare_count_ && listed == spare && spare <= kSourcesRemembered);
}

void FetchCore::check_requests() const {
  std::uint64_t left = 0;
  std::size_t sent = 0;
  requests_.for_each([&](std::uint32_t slot, const Request& request) {
    const auto it = request_index_.find(request.id);
    K2_ASSERT(it != request_index_.end() && it->second == slot);
    std::uint32_t still = 0;
    for (const std::uint32_t op : request.ops) still += ops_.holds(op) && ops_[op].request == slot ? 1 : 0;
    K2_ASSERT(still == request.left);
    K2_ASSERT(request.left > 0 || !request.is_sent);
    K2_ASSERT(request.left + request.answered <= request.size);
    K2_ASSERT(request.deadline <= now_ + delay_);
    left += request.left;
    sent += request.is_sent ? 1 : 0;
  });
  K2_ASSERT(left == asked_ops_);
  K2_ASSERT(request_index_.size() == requests_.size());
  std::size_t armed = 0;
  Time last = Time::min();
  for (std::uint32_t at = deadlines_.head; at != kNoSlot; at = requests_[at].by_deadline.next, ++armed) {
    K2_ASSERT(requests_[at].deadline >= last);
    last = requests_[at].deadline;
  }
  K2_ASSERT(armed == requests_.size());
  std::size_t hostage = 0;
  last = Time::min();
  for (std::uint32_t at = hostage_deadlines_.head; at != kNoSlot; at = requests_[at].by_hostage.next, ++hostage) {
    K2_ASSERT(requests_[at].is_sent && requests_[at].hostage_deadline >= last);
    last = requests_[at].hostage_deadline;
  }
  K2_ASSERT(hostage == sent);
}

}  // namespace kitsune2
