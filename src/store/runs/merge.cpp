// Merging runs: the choice, and the steps.
#include "store/runs/merge.hpp"

#include <map>
#include <utility>

namespace kitsune2::runs {

std::size_t level_of(std::uint64_t entries, const MergeRules& rules) {
  std::size_t level = 0;
  for (std::uint64_t most = rules.newest; entries > most; ++level) {
    if (most > UINT64_MAX / rules.fan_in) return level + 1;
    most *= rules.fan_in;
  }
  return level;
}

std::vector<std::size_t> choose_merge(std::span<const std::uint64_t> entries, const MergeRules& rules) {
  std::map<std::size_t, std::vector<std::size_t>> levels;
  for (std::size_t i = 0; i < entries.size(); ++i) levels[level_of(entries[i], rules)].push_back(i);
  for (auto& [level, runs] : levels) {
    if (runs.size() < rules.fan_in) continue;
    runs.resize(rules.fan_in);
    std::uint64_t together = 0;
    for (const std::size_t i : runs) together += entries[i];
    if (together <= rules.most_entries) return runs;
  }
  return {};
}

MergeJob::MergeJob(std::vector<std::unique_ptr<Cursor>> inputs, std::unique_ptr<RunBuilder> builder, IsHeld is_held)
    : inputs_(std::move(inputs)),
      builder_(std::move(builder)),
      is_held_(std::move(is_held)),
      order_(builder_->info().order) {
  for (const auto& input : inputs_) fences_.push_back(input->at_end() ? Fence() : fence_of(order_, input->entry()));
}

std::size_t MergeJob::smallest() const {
  std::size_t out = 0;
  for (std::size_t i = 1; i < inputs_.size(); ++i) {
    if (fences_[i] > fences_[out]) continue;
    if (fences_[i] == fences_[out] && compare(order_, inputs_[i]->entry(), inputs_[out]->entry()) >= 0) continue;
    out = i;
  }
  return out;
}

Result<bool> MergeJob::step(std::size_t& budget) {
  for (std::size_t i = 0; i < inputs_.size();) {
    if (inputs_[i]->error()) return *inputs_[i]->error();
    if (!inputs_[i]->at_end()) {
      ++i;
      continue;
    }
    inputs_.erase(inputs_.begin() + static_cast<std::ptrdiff_t>(i));
    fences_.erase(fences_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  while (!inputs_.empty() && budget > 0) {
    --budget;
    const std::size_t i = smallest();
    Cursor& input = *inputs_[i];
    if (is_held_(input.entry().stored_at)) {
      if (auto ok = builder_->add(input.entry()); !ok) return ok.error();
    }
    input.next();
    if (input.error()) return *input.error();
    if (!input.at_end()) {
      fences_[i] = fence_of(order_, input.entry());
      continue;
    }
    inputs_.erase(inputs_.begin() + static_cast<std::ptrdiff_t>(i));
    fences_.erase(fences_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  if (!inputs_.empty()) return false;
  if (builder_->info().entries == 0) return true;
  std::size_t blocks = budget / kEntriesABlock;
  budget %= kEntriesABlock;
  auto complete = builder_->finish(blocks);
  budget += blocks * kEntriesABlock;
  return complete;
}

}  // namespace kitsune2::runs
