// Writes fetched ops into the op store, in few large calls.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "kitsune2/op_store.hpp"
#include "kitsune2/runtime.hpp"

namespace kitsune2 {

/// Ops that one peer sent, in order.
struct FetchedRun {
  Url peer;
  bool asked = true;  ///< false: they were not requested
  std::vector<StoredOp> ops;
  std::uint64_t bytes = 0;
  std::vector<PublishOp> described;  ///< those of `ops` that came with metadata
};

/// Collects ops and hands them to the store. Strand only.
///
/// *Rules*.
///  W1  At most `kMaxWrites` calls are under way; ops that arrive meanwhile go into the next call. If the store is not
///      durable, a call with `kQuickOps` ops waits for no other. Rationale: a durable store pays per commit, not per
///      op. With another one, such calls store their ops while the processor still has them in its cache.
///  W2  A call has at most `kMaxOps` ops and `kMaxBytes` payload bytes (a larger op goes alone).
///  W3  `is_behind()` asks the owner to request nothing more; beyond `kMostBytes`, `add` refuses.
class FetchWriter {
 public:
  static constexpr std::size_t kMaxWrites = 2;
  static constexpr std::size_t kQuickOps = 128;
  static constexpr std::size_t kMaxOps = 8192;
  static constexpr std::uint64_t kMaxBytes = 32U << 20;
  static constexpr std::uint64_t kBehindBytes = 64U << 20;
  static constexpr std::uint64_t kMostBytes = 256U << 20;

  /// The outcome of one call: for all of `runs` or, on an error, for none of them. `took`: from the call of the store
  /// to its answer.
  using Done = std::function<void(std::vector<FetchedRun> runs, const Result<ProcessedOps>& result, Duration took)>;

  /// `done` is called on the strand, never from within a call.
  FetchWriter(Runtime& runtime, std::shared_ptr<OpStore> store, Done done)
      : runtime_(runtime), store_(std::move(store)), is_durable_(store_->is_durable()), done_(std::move(done)) {}

  /// The ops that are added next are of `peer`; there may be `ops` of them.
  void begin(const Url& peer, std::size_t ops);
  /// Returns false if there was no room; the op was not taken.
  bool add(bool asked, OpDescription description, Bytes op, Bytes metadata = {});
  /// Starts the calls that can be started. To be called after some `add`s.
  void flush();
  bool is_behind() const { return bytes_ >= kBehindBytes; }
  /// Payload bytes that were not written yet.
  std::uint64_t bytes() const { return bytes_; }
  /// What the metadata of these costs, as MetadataBook counts it.
  std::uint64_t metadata_cost() const { return metadata_cost_; }
  std::size_t writes_under_way() const { return under_way_; }
  bool is_idle() const { return under_way_ == 0 && waiting_.empty(); }

 private:
  struct Batch {
    std::vector<std::pair<OpDescription, Bytes>> ops;
    std::vector<std::pair<std::size_t, Bytes>> metadata;  ///< of some of them, by index
    std::vector<FetchedRun> runs;
    std::uint64_t bytes = 0;
    std::uint64_t metadata_cost = 0;
  };

  bool may_begin(const Batch& batch) const {
    return under_way_ < kMaxWrites || (!is_durable_ && batch.ops.size() >= kQuickOps);
  }

  Runtime& runtime_;
  const std::shared_ptr<OpStore> store_;
  const bool is_durable_;
  const Done done_;
  std::deque<Batch> waiting_;
  Url peer_;                  ///< whose ops are added
  std::size_t expected_ = 0;  ///< how many more of them may come
  bool needs_room_ = false;   ///< for those, in the batch that has begun
  bool may_join_ = false;     ///< the last run of the last batch is of the same peer
  std::uint64_t bytes_ = 0;
  std::uint64_t metadata_cost_ = 0;
  std::size_t under_way_ = 0;
  Lifetime lifetime_;
};

}  // namespace kitsune2
