// Ops that a slow source was asked for are asked of a faster one, when nothing else is left to ask for: R18.
#include <algorithm>

#include "core/fetch/fetch_core.hpp"

namespace kitsune2 {

std::optional<FetchRequest> FetchCore::take_over() {
  if (asked_ops_ == 0 || free_.empty() || sources_.size() < 2 || now_ < hurry_again_) return std::nullopt;
  std::size_t looks = kHurryLooks;
  const auto nothing_found = [&] {
    hurry_again_ = now_ + kHurryRest * static_cast<std::int64_t>(sources_.size() + kHurryLooks - looks);
    return std::nullopt;
  };
  constexpr auto kHurry = static_cast<std::uint64_t>(kHurryTime.count());
  struct Behind {
    Backlog backlog;
    std::uint64_t age;
    std::uint32_t source;
  };
  std::vector<Behind> behind;
  sources_.for_each([&](std::uint32_t slot, const Source& source) {
    const Backlog time = backlog(source);
    if (time.all > kHurry) behind.push_back({time, source.age, slot});
  });
  if (behind.empty()) return nothing_found();
  std::sort(behind.begin(), behind.end(), [](const Behind& a, const Behind& b) {
    return a.backlog.all != b.backlog.all ? a.backlog.all > b.backlog.all : a.age < b.age;
  });
  for (const Turn& turn : free_) {
    const Source& to = sources_[turn.source];
    if (to.late_all > 0) continue;
    const std::uint64_t rate = to.window.rate();
    const std::uint64_t an_op = std::max<std::uint64_t>(1, asked_cost(to, 1) * 1'000'000 / rate);
    const auto trip = static_cast<std::uint64_t>(to.window.round_trip().value_or(Duration(0)).count());
    const std::uint64_t until = trip + asked_cost(to, to.asked_ops) * 1'000'000 / rate;
    if (until > kHurry + 2 * trip) continue;
    for (const Behind& each : behind) {
      if (each.source == turn.source) continue;
      if (each.backlog.all < kHurry + 2 * (until + an_op)) break;
      const std::uint64_t even = (each.backlog.all - until) / (each.backlog.an_op + an_op);
      const std::uint64_t most = std::min({even, size_limit(to), time_limit(to)});
      const auto ops = last_asked(sources_[each.source], turn.source, std::max<std::uint64_t>(1, most), looks);
      if (ops.empty()) continue;

      const std::uint32_t taker = turn.source;
      const std::uint32_t slot = open_request(taker);
      FetchRequest out{requests_[slot].id, sources_[taker].url, {}};
      for (const std::uint32_t op : ops) {
        add_late(each.source, ops_[op].hash);
        leave_request(op);
        ops_[op].hurried = 1;
        put_in(slot, op, out);
      }
      leave_ring(sources_[taker], taker);
      sources_[taker].turn = out.id;
      refresh(taker);
      return out;
    }
  }
  return nothing_found();
}

/// How long the source will take for all of what it was asked for in the requests that it has not lost.
FetchCore::Backlog FetchCore::backlog(const Source& source) const {
  if (source.asked_ops == 0) return {};
  std::uint64_t ops = 0;
  std::optional<Time> sent_at;  // of the first
  for (std::uint32_t slot = source.requests.head; slot != kNoSlot; slot = requests_[slot].by_source.next) {
    const Request& request = requests_[slot];
    if (!request.is_sent) continue;
    // Of a source that has gone quiet the deadline is to tell (R5).
    if (!sent_at && std::max(source.last_answer, source.last_part) <= request.sent_at) return {};
    if (!sent_at) sent_at = request.sent_at;
    ops += request.size - request.answered;
  }
  if (!sent_at || now_ - *sent_at < kHurryTime) return {};
  if (source.op_size > 0 && source.window.rate() > 0) {
    const std::uint64_t an_op = asked_cost(source, 1) * 1'000'000 / source.window.rate();
    // The whole message comes before an op of it does, and may hold some that were taken over.
    return {std::min(ops, source.asked_ops + source.last_ops - 1) * an_op, an_op};
  }
  const auto an_op = static_cast<std::uint64_t>((now_ - *sent_at).count());
  return {ops * an_op, an_op};
}

/// What was asked of `source` last and can be asked of `also_at`, the last first. `looks`: how many may be looked at.
std::vector<std::uint32_t> FetchCore::last_asked(const Source& source, std::uint32_t also_at, std::uint64_t most,
                                                 std::size_t& looks) const {
  std::vector<std::uint32_t> out;
  std::size_t looked_at = 0;
  std::uint64_t bytes = 0;
  for (std::uint32_t slot = source.requests.tail; slot != kNoSlot; slot = requests_[slot].by_source.prev) {
    const Request& request = requests_[slot];
    if (!request.is_sent) continue;
    for (auto op = request.ops.rbegin(); op != request.ops.rend(); ++op) {
      if (!ops_.holds(*op) || ops_[*op].request != slot) continue;
      if (looks == 0 || ++looked_at > kHurryScan || out.size() == most) return out;
      --looks;
      if (ops_[*op].hurried != 0) continue;
      const std::uint32_t pair = find_pair(*op, also_at);
      if (pair == kNoSlot || pairs_[pair].place != kIdle) continue;
      bytes += ops_[*op].id.size() + kIdFrameBytes;
      if (bytes > kRequestBytes && !out.empty()) return out;
      out.push_back(*op);
    }
  }
  return out;
}

}  // namespace kitsune2
