// Blocking calls of a store for code that runs on a thread of its own.
#include "files/store_access.hpp"

#include <algorithm>
#include <cstring>
#include <unordered_map>

namespace kitsune2::files {

struct BatchWriter::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t bytes_under_way = 0;
  std::size_t batches_under_way = 0;
  std::uint64_t new_ops = 0, new_bytes = 0;
  std::uint64_t twice_ops = 0, twice_bytes = 0;
  std::optional<Error> error;
};

namespace {

/// One batch that is under way. The writer learns of its end in any case, even if the store or the runtime drops the
/// handler.
struct Batch {
  std::shared_ptr<void> owner;
  std::function<void(Result<ProcessedOps>)> done;
  std::vector<std::pair<OpDescription, Bytes>> ops;
  bool answered = false;

  void answer(Result<ProcessedOps> result) {
    if (std::exchange(answered, true)) return;
    done(std::move(result));
  }
  ~Batch() { answer(make_error(Errc::cancelled, "the node was stopped")); }
};

void store_batch(Runtime& runtime, OpStore& store, const std::shared_ptr<Batch>& batch) {
  // The copy is cheap, because the bytes are shared. It is kept in case the store's queue has no room.
  store.store_described_ops(batch->ops, [&runtime, &store, batch](Result<ProcessedOps> result) {
    if (!result && result.error().code == Errc::overloaded) {
      runtime.schedule_after(std::chrono::milliseconds(20),
                             [&runtime, &store, batch] { store_batch(runtime, store, batch); });
      return;
    }
    batch->answer(std::move(result));
  });
}

using Sizes = std::shared_ptr<const std::unordered_map<OpId, std::uint64_t>>;

/// Calls `held` with the size of each of `ids` that one of `stores` (from number `at` on) holds; then `done`.
void count_elsewhere(const std::vector<std::shared_ptr<OpStore>>& stores, std::size_t at, std::vector<OpId> ids,
                     const Sizes& sizes, std::function<void(std::uint64_t)> held, std::function<void()> done) {
  if (at == stores.size() || ids.empty()) return done();
  auto asked = ids;
  stores[at]->filter_out_existing_ops(
      std::move(ids), [stores, at, asked = std::move(asked), sizes, held = std::move(held),
                       done = std::move(done)](Result<std::vector<OpId>> lacking) mutable {
        // An earlier store that cannot be read is skipped; that is no error of this share.
        if (!lacking) return count_elsewhere(stores, at + 1, std::move(asked), sizes, std::move(held), std::move(done));
        const std::unordered_set<OpId> not_held(lacking->begin(), lacking->end());
        for (const auto& id : asked) {
          if (not_held.count(id) == 0) held(sizes->at(id));
        }
        count_elsewhere(stores, at + 1, std::move(*lacking), sizes, std::move(held), std::move(done));
      });
}

}  // namespace

BatchWriter::BatchWriter(Runtime& runtime, OpStore& store, std::vector<std::shared_ptr<OpStore>> elsewhere)
    : runtime_(&runtime), store_(&store), elsewhere_(std::move(elsewhere)), shared_(std::make_shared<Shared>()) {}

BatchWriter::BatchWriter(std::shared_ptr<const OpPolicy> policy)
    : policy_(std::move(policy)), shared_(std::make_shared<Shared>()) {}

BatchWriter::~BatchWriter() {
  std::unique_lock lock(shared_->mutex);
  shared_->changed.wait(lock, [&] { return shared_->batches_under_way == 0; });
}

std::uint64_t BatchWriter::new_ops() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->new_ops;
}

std::uint64_t BatchWriter::new_bytes() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->new_bytes;
}

std::uint64_t BatchWriter::twice_ops() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->twice_ops;
}

std::uint64_t BatchWriter::twice_bytes() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->twice_bytes;
}

const std::vector<std::uint64_t>& BatchWriter::seen() {
  std::sort(seen_.begin(), seen_.end());
  seen_.erase(std::unique(seen_.begin(), seen_.end()), seen_.end());
  return seen_;
}

Result<OpId> BatchWriter::put(Bytes op) {
  const OpPolicy& policy = store_ != nullptr ? store_->policy() : *policy_;
  auto described = call_for_result("the op policy", [&] { return policy.describe(op); });
  if (!described) return described.error();
  OpId id = described->op_id;
  ++ops_;
  std::uint64_t start = 0;
  std::memcpy(&start, id.view().data(), std::min(sizeof start, id.view().size()));
  seen_.push_back(start);
  if (store_ == nullptr || (only_ && !std::binary_search(only_->begin(), only_->end(), start))) return id;
  if (!in_batch_.insert(id).second) return id;
  batch_bytes_ += op.size();
  batch_.emplace_back(std::move(*described), std::move(op));
  if (batch_bytes_ >= kBatchBytes || batch_.size() >= kBatchOps) {
    send();
    if (auto room = wait_below(kMaxUnderWay); !room) return room.error();
  }
  return id;
}

void BatchWriter::send() {
  if (batch_.empty() || store_ == nullptr) return;
  auto batch = std::make_shared<Batch>();
  batch->ops = std::move(batch_);
  batch->done = [shared = shared_, bytes = batch_bytes_](Result<ProcessedOps> result) {
    const std::lock_guard lock(shared->mutex);
    shared->bytes_under_way -= bytes;
    --shared->batches_under_way;
    if (!result) {
      if (!shared->error) shared->error = result.error();
    } else {
      shared->new_ops += result->newly_stored.size();
      shared->new_bytes += result->bytes_stored;
      if (!result->rejections.empty() && !shared->error) shared->error = result->rejections.front().reason;
    }
    shared->changed.notify_all();
  };
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->bytes_under_way += batch_bytes_;
    ++shared_->batches_under_way;
  }
  batch_.clear();
  in_batch_.clear();
  batch_bytes_ = 0;
  // Ops that are held and undamaged are not sent to the writer, so sharing a folder again costs reads only.
  runtime_->post([&runtime = *runtime_, &store = *store_, elsewhere = elsewhere_, shared = shared_, batch] {
    std::vector<OpId> ids;
    ids.reserve(batch->ops.size());
    for (const auto& [description, bytes] : batch->ops) ids.push_back(description.op_id);
    store.filter_out_intact_ops(
        std::move(ids), [&runtime, &store, elsewhere, shared, batch](Result<std::vector<OpId>> lacking) {
          if (!lacking) return batch->answer(lacking.error());
          const std::unordered_set<OpId> wanted(lacking->begin(), lacking->end());
          std::erase_if(batch->ops, [&](const auto& op) { return wanted.count(op.first.op_id) == 0; });
          if (batch->ops.empty()) return batch->answer(ProcessedOps{});
          if (elsewhere.empty()) return store_batch(runtime, store, batch);
          auto sizes = std::make_shared<std::unordered_map<OpId, std::uint64_t>>();
          for (const auto& [description, bytes] : batch->ops) sizes->emplace(description.op_id, bytes.size());
          const auto held = [shared](std::uint64_t size) {
            const std::lock_guard lock(shared->mutex);
            ++shared->twice_ops;
            shared->twice_bytes += size;
          };
          count_elsewhere(elsewhere, 0, std::move(*lacking), sizes, held,
                          [&runtime, &store, batch] { store_batch(runtime, store, batch); });
        });
  });
}

Result<void> BatchWriter::wait_below(std::uint64_t bytes) {
  std::unique_lock lock(shared_->mutex);
  shared_->changed.wait(lock, [&] { return shared_->error || shared_->bytes_under_way <= bytes; });
  if (shared_->error) return *shared_->error;
  return {};
}

Result<void> BatchWriter::flush() {
  send();
  std::unique_lock lock(shared_->mutex);
  shared_->changed.wait(lock, [&] { return shared_->batches_under_way == 0; });
  if (shared_->error) return *shared_->error;
  return {};
}

Result<std::vector<MetaOp>> retrieve_held(Runtime& runtime, OpStore& store, std::vector<OpId> ids) {
  constexpr std::uint64_t kAnswerBytes = 16U << 20;
  std::vector<MetaOp> out;
  while (!ids.empty()) {
    auto part = wait_on<std::vector<MetaOp>>(
        runtime, [&](auto done) { store.retrieve_ops(ids, kAnswerBytes, std::move(done)); });
    if (!part) return part.error();
    if (part->empty()) break;
    // In the order requested: what comes before the last one and is not in the answer is not held.
    const OpId last = part->back().op_id;
    const auto at = std::find(ids.begin(), ids.end(), last);
    K2_ASSERT(at != ids.end());
    ids.erase(ids.begin(), at + 1);
    for (auto& op : *part) out.push_back(std::move(op));
  }
  return out;
}

}  // namespace kitsune2::files
