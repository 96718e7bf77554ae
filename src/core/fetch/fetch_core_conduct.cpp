// What the fetch core knows about a peer's conduct: that it has moved, that it stays silent about ops, that it sends
// bad ones, or some that the host does not take.
#include <algorithm>

#include "core/fetch/fetch_core.hpp"

namespace kitsune2 {

// --- a peer under another url (R14)

FetchReplaced FetchCore::replace_source(const Url& old_url, const Url& new_url, Time now) {
  advance(now);
  FetchReplaced out;
  const std::uint32_t from = find_source(old_url);
  if (from == kNoSlot || old_url == new_url) return out;
  out.known = true;
  std::uint32_t to = find_source(new_url);
  const std::uint64_t held = to == kNoSlot ? 0 : sources_[to].pairs;
  if (held + sources_[from].pairs > config_.max_pending_per_peer) {
    out.refused = sources_[from].pairs;
    return out;
  }
  while (!sources_[from].requests.empty()) release_all(sources_[from].requests.head);
  to = find_source(new_url);  // R12 may have dropped it meanwhile
  if (sources_[from].pairs > 0) {
    if (to == kNoSlot) {
      to = new_source(new_url);
      sources_[to].op_size = sources_[from].op_size;
      sources_[to].most_ids = std::max(sources_[to].most_ids, sources_[from].most_ids);
    }
    // Only the peer knows from which url a late answer will come.
    sources_[to].late_more += sources_[from].late_all;
    sources_[to].late_all += sources_[from].late_all;
    sources_[to].bad_score = std::max(sources_[to].bad_score, sources_[from].bad_score);
    out.moved.reserve(sources_[from].pairs);
    const auto move_list = [&](List& list) {
      while (!list.empty()) move_pair(list.head, to, out);
    };
    move_list(sources_[from].ready_list);
    move_list(sources_[from].idle_list);
    for (List& list : sources_[from].waiting_lists) move_list(list);
    rest(to);
  }
  erase_source(from);
  return out;
}

void FetchCore::move_pair(std::uint32_t slot, std::uint32_t to, FetchReplaced& out) {
  Pair& pair = pairs_[slot];
  const Op& op = ops_[pair.op];
  if (find_pair(pair.op, to) != kNoSlot) return erase_pair(slot);
  if (op.indexed) pair_index_.erase(slot);
  leave_list(slot);
  --sources_[pair.source].pairs;
  pair.source = to;
  pair.silences = 0;
  ++sources_[to].pairs;
  if (op.indexed) pair_index_.insert(slot);
  if (op.state == State::queued) {
    put_ready(slot);
  } else {
    put_idle(slot);
    refresh(to);
  }
  out.moved.push_back(op.id);
}

std::uint64_t FetchCore::pending_pairs(const Url& url) const {
  const std::uint32_t from = find_source(url);
  return from == kNoSlot ? 0 : sources_[from].pairs;
}

// --- what the host does not take (R10)

void FetchCore::on_refused(std::span<const OpId> op_ids, const Url& url, Time now) {
  advance(now);
  const std::uint32_t from = find_source(url);
  for (const OpId& op_id : op_ids) {
    const std::uint32_t op = find(op_id);
    if (op == kNoSlot || ops_[op].state != State::storing) continue;
    if (const std::uint32_t pair = from == kNoSlot ? kNoSlot : find_pair(op, from); pair != kNoSlot) erase_pair(pair);
    if (ops_[op].sources == 0) {
      erase_op(op);
      continue;
    }
    --storing_ops_;
    queue_op(op);
  }
  if (from != kNoSlot) rest(from);
  fit_indexes();
}

// --- silence (R16)

bool FetchCore::is_silent(std::uint32_t slot) const {
  const Request& request = requests_[slot];
  return request.answered == 0 &&
         sources_[request.source].last_part < request.sent_at - delay_ * std::int64_t{kHostageDelays};
}

bool FetchCore::note_silence(std::uint32_t slot, std::vector<FetchUnserved>& out) {
  Pair& pair = pairs_[slot];
  const bool mute = sources_[pair.source].last_answer < now_ - delay_ * (std::int64_t{1} << kMissLevels);
  if (pair.silences + 1U < (mute ? kMostAsksOfAMute : kMostAsks)) {
    ++pair.silences;
    return false;
  }
  const std::uint32_t op = pair.op;
  const Url& url = sources_[pair.source].url;
  if (out.empty() || out.back().source != url) out.push_back({url, {}, {}});
  out.back().op_ids.push_back(ops_[op].id);
  erase_pair(slot);
  if (ops_[op].sources > 0) {
    queue_op(op);
    return true;
  }
  out.back().orphaned.push_back(ops_[op].id);
  remember_dropped(ops_[op].id);
  erase_op(op);
  return true;
}

void FetchCore::wait_after_silence(std::uint32_t slot, std::uint32_t quick) {
  const std::uint32_t level = std::min<std::uint32_t>(pairs_[slot].silences - quick, kMissLevels) - 1;
  leave_list(slot);
  put_waiting(slot, level);
}

void FetchCore::remember_dropped(const OpId& op_id) {
  dropped_[op_id] = ++last_dropped_;
  dropped_order_.emplace(last_dropped_, op_id);
  if (dropped_order_.size() <= kDroppedOps) return;
  dropped_.erase(dropped_order_.begin()->second);
  dropped_order_.erase(dropped_order_.begin());
}

bool FetchCore::forget_dropped(const OpId& op_id) {
  if (dropped_.empty()) return false;
  const auto it = dropped_.find(op_id);
  if (it == dropped_.end()) return false;
  dropped_order_.erase(it->second);
  dropped_.erase(it);
  return true;
}

// --- bad ops (R15)

bool FetchCore::owes(const Url& url) const {
  const std::uint32_t from = find_source(url);
  return from == kNoSlot ? departed_.contains(url) : sources_[from].late_all > 0;
}

void FetchCore::add_late(std::uint32_t from, std::uint32_t hash) {
  Source& source = sources_[from];
  ++source.late_all;
  if (const auto it = source.late.find(hash); it != source.late.end()) {
    ++it->second;
  } else if (late_hashes_ < kLateOps) {
    source.late.emplace(hash, 1);
    ++late_hashes_;
  } else {
    ++source.late_more;
  }
}

bool FetchCore::take_late(std::uint32_t from, std::uint32_t hash) {
  // A source that R12 dropped while its answer was read is not known well enough to be blamed.
  if (from == kNoSlot || !sources_.holds(from)) return from != kNoSlot;
  Source& source = sources_[from];
  if (source.late_all == 0) return false;
  if (const auto it = source.late.find(hash); it != source.late.end()) {
    if (--it->second == 0) {
      source.late.erase(it);
      --late_hashes_;
    }
  } else if (source.late_more > 0) {
    --source.late_more;
  } else {
    return false;
  }
  --source.late_all;
  return true;
}

void FetchCore::forget_late(Source& source) {
  late_hashes_ -= source.late.size();
  if (source.late_all == 0) return;
  departed_[source.url] = {source.late_all, ++last_departed_};
  departed_order_.emplace(last_departed_, source.url);
  if (departed_order_.size() <= kSourcesRemembered) return;
  departed_.erase(departed_order_.begin()->second);
  departed_order_.erase(departed_order_.begin());
}

void FetchCore::judge(std::uint32_t from, std::uint64_t wanted, std::uint64_t bad, FetchAnswer& out) {
  constexpr std::uint32_t kFull = kBadOps * kForgiveOps;
  Source& source = sources_[from];
  const std::uint64_t forgiven = std::min<std::uint64_t>(source.bad_score, wanted);
  const std::uint64_t score = source.bad_score - forgiven + std::min<std::uint64_t>(bad, kBadOps) * kForgiveOps;
  source.bad_score = static_cast<std::uint32_t>(std::min<std::uint64_t>(score, kFull));
  if (bad == 0 || source.bad_score < kFull) return;
  out.put_aside = true;
  if (source.pairs == 0 && source.requests_open == 0) return;  // it has nothing to wait with
  if (!source.back_off.is_running(now_)) {
    if (source.backing_off) back_offs_.erase({source.back_off.until(), source.age, from});
    source.backing_off = false;
    if (source.back_off.on_failed(back_off_policy_, now_, now_) == BackOff::Verdict::give_up) {
      out.given_up = drop_source(from);
      return;
    }
    source.backing_off = true;
    back_offs_.insert({source.back_off.until(), source.age, from});
  }
  source.put_aside = true;
  refresh(from);
  while (!source.requests.empty()) release_all(source.requests.head);
}

}  // namespace kitsune2
