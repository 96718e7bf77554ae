// Op stores for code with a thread of its own: blocking calls, batches, back-pressure.
#pragma once

#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/callback.hpp"
#include "kitsune2/op_store.hpp"
#include "kitsune2/runtime.hpp"

namespace kitsune2::files {

/// Starts an asynchronous call on the strand and waits for its outcome. Errc::cancelled if the runtime or the callee
/// ended without an answer.
template <class T, class F>
Result<T> wait_on(Runtime& runtime, F start) {
  auto promise = std::make_shared<std::promise<Result<T>>>();
  auto future = promise->get_future();
  runtime.post([promise, start = std::move(start)]() mutable {
    start(Handler<T>([promise](Result<T> r) { promise->set_value(std::move(r)); }));
  });
  promise.reset();
  try {
    return future.get();
  } catch (const std::future_error&) {
    return make_error(Errc::cancelled, "the node was stopped");
  }
}

/// Stores ops in large batches. Blocks while too much is under way. For one thread.
class BatchWriter {
 public:
  static constexpr std::uint64_t kBatchBytes = 16U << 20;
  static constexpr std::size_t kBatchOps = 1024;
  static constexpr std::uint64_t kMaxUnderWay = 64U << 20;

  /// `elsewhere`: stores to compare with; new ops that they hold too are counted. All must outlive the writer.
  BatchWriter(Runtime& runtime, OpStore& store, std::vector<std::shared_ptr<OpStore>> elsewhere = {});
  /// Computes ids and counts; stores nothing.
  explicit BatchWriter(std::shared_ptr<const OpPolicy> policy);
  /// Waits for everything under way.
  ~BatchWriter();

  /// Computes the id of `op` and stores it, now or later. Returns the error of an earlier batch, if there was one.
  Result<OpId> put(Bytes op);
  /// Waits until everything is durable.
  Result<void> flush();

  std::uint64_t ops() const { return ops_; }
  /// Like `ops`, but an op that was put repeatedly counts once. Distinguishes ids by their first 8 bytes: of ids that
  /// agree in them only one is counted.
  std::uint64_t different_ops() { return seen().size(); }
  /// The ids that were put: the first 8 bytes of each, sorted.
  const std::vector<std::uint64_t>& seen();
  /// From now on stores ops only if the first 8 bytes of their ids are among `ids`, which must be sorted.
  void store_only(std::vector<std::uint64_t> ids) { only_ = std::move(ids); }
  std::uint64_t new_ops() const;
  std::uint64_t new_bytes() const;
  std::uint64_t twice_ops() const;
  std::uint64_t twice_bytes() const;

 private:
  struct Shared;
  void send();
  Result<void> wait_below(std::uint64_t bytes);

  Runtime* const runtime_ = nullptr;
  OpStore* const store_ = nullptr;
  const std::shared_ptr<const OpPolicy> policy_;  ///< without a store
  const std::vector<std::shared_ptr<OpStore>> elsewhere_;
  std::shared_ptr<Shared> shared_;
  std::vector<std::uint64_t> seen_;  ///< the first 8 bytes of each id
  std::optional<std::vector<std::uint64_t>> only_;
  std::vector<std::pair<OpDescription, Bytes>> batch_;
  std::unordered_set<OpId> in_batch_;
  std::uint64_t batch_bytes_ = 0;
  std::uint64_t ops_ = 0;
};

/// Returns the held ones among `ids`, with their ids. Asks again until all have arrived, in answers of bounded size.
Result<std::vector<MetaOp>> retrieve_held(Runtime& runtime, OpStore& store, std::vector<OpId> ids);

}  // namespace kitsune2::files
