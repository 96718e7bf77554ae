// The index of runs: adding, finding, merging in steps.
#include "store/runs/run_index.hpp"

#include <algorithm>
#include <utility>

namespace kitsune2::runs {

// ------------------------------------------------------------- MergedCursor

MergedCursor::MergedCursor(Order order, std::vector<std::unique_ptr<Cursor>> inputs)
    : order_(order), inputs_(std::move(inputs)) {
  choose();
}

void MergedCursor::choose() {
  best_ = nullptr;
  for (const auto& input : inputs_) {
    if (input->error()) {
      error_ = input->error();
      best_ = nullptr;
      return;
    }
    if (input->at_end()) continue;
    if (best_ == nullptr || compare(order_, input->entry(), best_->entry()) < 0) best_ = input.get();
  }
}

void MergedCursor::next() {
  best_->next();
  choose();
}

// ----------------------------------------------------------------- RunIndex

RunIndex::RunIndex(BlockFile& file, const MergeRules& rules, std::shared_ptr<BlockCache> cache,
                   std::shared_ptr<const RunShelf> shelf)
    : file_(file),
      rules_(rules),
      cache_(std::move(cache)),
      shelf_(std::move(shelf)),
      newest_(std::make_shared<Newest>()) {}

Result<void> RunIndex::load(const Manifest& manifest) {
  for (const std::int64_t stored_at : dropped_now_) dropped_.erase(stored_at);
  dropped_now_.clear();
  jobs_.clear();
  aside_.reset();
  newest_ = std::make_shared<Newest>();
  newest_before_ = 0;
  freed_.clear();
  credit_ = 0;
  dirty_ = false;
  if (auto ok = follow(manifest); !ok) return ok;
  slots_ = SlotMap(manifest);
  for (const Order order : {Order::by_place, Order::by_time}) start_merges(order);
  return {};
}

Result<void> RunIndex::follow(const Manifest& manifest) {
  std::vector<std::shared_ptr<const Run>> runs;
  for (const RunInfo& info : manifest.runs) {
    const auto known = std::find_if(runs_.begin(), runs_.end(), [&](const auto& run) { return run->info() == info; });
    if (known != runs_.end()) {
      runs.push_back(*known);
      continue;
    }
    if (auto open = shelf_ ? shelf_->find(info) : nullptr) {
      runs.push_back(std::move(open));
      continue;
    }
    auto run = Run::open(info, file_);
    if (!run) return run.error();
    runs.push_back(std::move(*run));
  }
  if (manifest.salt != manifest_.salt) {
    newest_ = std::make_shared<Newest>();
  } else if (manifest.covered != manifest_.covered) {
    const auto kept = std::make_shared<Newest>();
    for (std::size_t i = 0; i < newest_->size(); ++i) {
      const Entry entry = (*newest_)[i];
      if (entry.stored_at > manifest.covered) kept->add(entry, filter_hash(manifest.salt, entry.id));
    }
    newest_ = kept;
  }
  runs_ = std::move(runs);
  runs_changed_ = true;
  manifest_ = manifest;
  finders_.clear();
  return {};
}

void RunIndex::begin() {
  newest_before_ = newest_->size();
  dropped_now_.clear();
}

void RunIndex::add(const Entry& entry) {
  newest_->add(entry, hash_of(entry.id));
  credit_ += kWorkAnOp;
}

void RunIndex::drop(std::int64_t stored_at) {
  if (dropped_.insert(stored_at).second) dropped_now_.push_back(stored_at);
}

void RunIndex::forget_added() {
  newest_->cut(newest_before_);
  for (const std::int64_t stored_at : dropped_now_) dropped_.erase(stored_at);
  dropped_now_.clear();
}

void RunIndex::committed() {
  slots_.give_back(freed_);
  freed_.clear();
  newest_before_ = newest_->size();
  dropped_now_.clear();
}

RunIndex::Job RunIndex::make_job(Order order, std::vector<std::unique_ptr<Cursor>> inputs, std::uint64_t entries) {
  dirty_ = true;  // no later run may have the number, in whatever state this one is left
  Job job;
  job.order = order;
  job.entries = entries;
  auto builder = std::make_unique<RunBuilder>(manifest_.next_number++, order, entries, manifest_.salt, file_,
                                              [this] { return slots_.take(); });
  job.merge = std::make_unique<MergeJob>(std::move(inputs), std::move(builder),
                                         [this](std::int64_t stored_at) { return is_held(stored_at); });
  return job;
}

void RunIndex::put_aside() {
  aside_ = std::exchange(newest_, std::make_shared<Newest>());
  newest_before_ = 0;
  for (const Order order : {Order::by_place, Order::by_time}) {
    std::vector<std::unique_ptr<Cursor>> inputs;
    inputs.push_back(std::make_unique<NewestCursor>(aside_, order));
    jobs_.push_back(make_job(order, std::move(inputs), aside_->size()));
  }
}

void RunIndex::start_merges(Order order) {
  for (;;) {
    std::vector<std::uint64_t> sizes;
    std::vector<std::shared_ptr<const Run>> idle;
    for (const auto& run : runs_) {
      const std::uint64_t number = run->info().number;
      const bool busy = std::any_of(jobs_.begin(), jobs_.end(), [&](const Job& job) {
        return std::find(job.inputs.begin(), job.inputs.end(), number) != job.inputs.end();
      });
      if (busy || run->info().order != order) continue;
      sizes.push_back(run->info().entries);
      idle.push_back(run);
    }
    const auto chosen = choose_merge(sizes, rules_);
    if (chosen.empty()) return;
    std::vector<std::unique_ptr<Cursor>> inputs;
    std::vector<std::uint64_t> numbers;
    std::uint64_t entries = 0;
    for (const std::size_t i : chosen) {
      auto cursor = std::make_unique<RunCursor>(idle[i], file_);
      cursor->seek_to_first();
      inputs.push_back(std::move(cursor));
      numbers.push_back(idle[i]->info().number);
      entries += sizes[i];
    }
    jobs_.push_back(make_job(order, std::move(inputs), entries));
    jobs_.back().inputs = std::move(numbers);
  }
}

/// The smallest jobs first: the next run of their size comes soonest.
Result<void> RunIndex::work(std::size_t& budget) {
  while (budget >= MergeJob::kEntriesABlock) {
    Job* next = nullptr;
    for (Job& job : jobs_) {
      if (!job.complete && (next == nullptr || job.entries < next->entries)) next = &job;
    }
    if (next == nullptr) return {};
    const auto complete = next->merge->step(budget);
    if (!complete) return complete.error();
    next->complete = *complete;
    if (*complete) settle();
  }
  return {};
}

/// Puts complete runs into the manifest. Those of what was put aside come together: a run covers in both orders or not
/// at all.
void RunIndex::settle() {
  bool changed = false;
  const bool covers = aside_ && std::none_of(jobs_.begin(), jobs_.end(),
                                             [](const Job& job) { return job.inputs.empty() && !job.complete; });
  for (std::size_t i = 0; i < jobs_.size();) {
    if (!jobs_[i].complete || (jobs_[i].inputs.empty() && !covers)) {
      ++i;
      continue;
    }
    replace(jobs_[i]);
    jobs_.erase(jobs_.begin() + static_cast<std::ptrdiff_t>(i));
    changed = true;
  }
  if (covers) {
    manifest_.covered = (*aside_)[aside_->size() - 1].stored_at;
    aside_.reset();
  }
  if (!changed) return;
  dirty_ = true;
  finders_.clear();
  for (const Order order : {Order::by_place, Order::by_time}) start_merges(order);
}

void RunIndex::replace(Job& job) {
  const auto is_input = [&](const RunInfo& info) {
    return std::find(job.inputs.begin(), job.inputs.end(), info.number) != job.inputs.end();
  };
  for (const RunInfo& info : manifest_.runs) {
    if (is_input(info)) freed_.insert(freed_.end(), info.slots.begin(), info.slots.end());
  }
  std::erase_if(manifest_.runs, is_input);
  std::erase_if(runs_, [&](const auto& run) { return is_input(run->info()); });
  runs_changed_ = true;
  if (job.merge->builder().info().entries == 0) return;
  runs_.push_back(job.merge->builder().take_run());
  manifest_.runs.push_back(runs_.back()->info());
}

Result<bool> RunIndex::step() {
  if (newest_->size() >= rules_.newest) {
    // The work is measured so that this has been done long ago; what a failure put off is done now.
    while (aside_) {
      std::size_t all = rules_.newest + 64 * MergeJob::kEntriesABlock;
      if (auto ok = work(all); !ok) return ok.error();
    }
    put_aside();
  }
  if (jobs_.empty()) credit_ = 0;
  if (credit_ >= rules_.least_work) {
    if (auto ok = work(credit_); !ok) return ok.error();
  }
  return std::exchange(dirty_, false);
}

Result<bool> RunIndex::step_idle(std::size_t entries) {
  if (!aside_ && newest_->size() >= rules_.newest) put_aside();
  entries = std::max(entries, MergeJob::kEntriesABlock);
  if (auto ok = work(entries); !ok) return ok.error();
  return std::exchange(dirty_, false);
}

std::optional<std::vector<std::shared_ptr<const Run>>> RunIndex::take_changed_runs() {
  if (!std::exchange(runs_changed_, false)) return std::nullopt;
  return runs_;
}

std::uint64_t RunIndex::entries() const {
  std::uint64_t out = newest();
  for (const RunInfo& run : manifest_.runs) out += run.order == Order::by_place ? run.entries : 0;
  return out;
}

Result<std::optional<Entry>> RunIndex::find(std::uint32_t location, ByteView id, const Accept& accept) {
  const std::uint64_t hash = hash_of(id);
  const auto held = [&](std::int64_t stored_at) { return is_held(stored_at) && (!accept || accept(stored_at)); };
  if (auto found = newest_->find(id, hash, held)) return found;
  if (aside_) {
    if (auto found = aside_->find(id, hash, held)) return found;
  }
  if (finders_.empty()) {
    for (const auto& run : runs_) {
      if (run->info().order == Order::by_place)
        finders_.push_back(std::make_unique<RunCursor>(run, file_, cache_.get()));
    }
    std::stable_sort(finders_.begin(), finders_.end(),
                     [](const auto& a, const auto& b) { return a->run().info().entries > b->run().info().entries; });
  }
  // All at once: one after the other, most of the time would be waiting for memory.
  for (const auto& finder : finders_) finder->run().prefetch(hash);
  const Entry key{location, 0, 0, INT64_MIN, id};
  for (const auto& finder : finders_) {
    if (!finder->run().may_have(hash)) continue;
    finder->seek(key);
    for (; !finder->at_end(); finder->next()) {
      const Entry& entry = finder->entry();
      if (entry.location != location || compare(entry.id, id) != 0) break;
      if (held(entry.stored_at)) return std::optional(entry);
    }
    if (finder->error()) return *finder->error();
  }
  return std::optional<Entry>();
}

std::unique_ptr<Cursor> RunIndex::scan(Order order, const Entry& from) {
  std::vector<std::unique_ptr<Cursor>> inputs;
  for (const auto& run : runs_) {
    if (run->info().order != order) continue;
    auto cursor = std::make_unique<RunCursor>(run, file_, cache_.get());
    cursor->seek(from);
    inputs.push_back(std::move(cursor));
  }
  for (const auto& newest : {newest_, aside_}) {
    if (!newest) continue;
    auto cursor = std::make_unique<NewestCursor>(newest, order);
    cursor->seek(from);
    inputs.push_back(std::move(cursor));
  }
  return std::make_unique<MergedCursor>(order, std::move(inputs));
}

}  // namespace kitsune2::runs
