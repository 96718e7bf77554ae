// The slots for reads of the op store: which reads wait, which are under way, and the rest after them.
#include "core/gossip/read_queue.hpp"

#include <algorithm>

namespace kitsune2::gossip {

ReadQueue::Id ReadQueue::add(For whom) {
  waiting_[static_cast<std::size_t>(whom)].push_back(++last_);
  return last_;
}

bool ReadQueue::is_free(For whom) const {
  return std::none_of(under_way_.begin(), under_way_.end(),
                      [whom](const auto& entry) { return entry.second.whom == whom; });
}

std::optional<ReadQueue::Id> ReadQueue::begin(Time now) {
  for (const For whom : {For::ours, For::theirs}) {
    auto& waiting = waiting_[static_cast<std::size_t>(whom)];
    if (waiting.empty() || !is_free(whom) || (whom == For::theirs && now < rest_until_)) continue;
    const Id out = waiting.front();
    waiting.pop_front();
    under_way_.emplace(out, Read{whom, now});
    return out;
  }
  return std::nullopt;
}

void ReadQueue::on_ended(Id id, Time now, bool serving) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end()) return;
  if (it->second.whom == For::theirs) {
    const int rest = serving ? kRestServing : kRest;
    rest_until_ = now + std::clamp(rest * Duration(now - it->second.begun), Duration(0), kLongestRest);
  }
  under_way_.erase(it);
}

bool ReadQueue::drop(Id id) {
  for (auto& waiting : waiting_) std::erase(waiting, id);
  return under_way_.contains(id);
}

std::optional<Time> ReadQueue::next(Time now) const {
  for (const For whom : {For::ours, For::theirs}) {
    if (waiting(whom) == 0 || !is_free(whom)) continue;
    return whom == For::ours ? now : std::max(now, rest_until_);
  }
  return std::nullopt;
}

}  // namespace kitsune2::gossip
