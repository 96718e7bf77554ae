// Writes fetched ops into the op store, in few large calls.
#include "node/fetch/core_fetch_writer.hpp"

#include <algorithm>
#include <utility>

#include "core/fetch/metadata_book.hpp"

namespace kitsune2 {
namespace {

/// Makes room for so many more, at once or as if they were added one by one.
template <class T>
void make_room(std::vector<T>& list, std::size_t more) {
  const std::size_t size = list.size() + more;
  if (size > list.capacity()) list.reserve(std::max(size, 2 * list.capacity()));
}

}  // namespace

void FetchWriter::begin(const Url& peer, std::size_t ops) {
  peer_ = peer;
  expected_ = ops;
  needs_room_ = true;
  may_join_ = !waiting_.empty() && !waiting_.back().runs.empty() && waiting_.back().runs.back().peer == peer;
}

bool FetchWriter::add(bool asked, OpDescription description, Bytes op, Bytes metadata) {
  const auto size = op.size();
  if (bytes_ > 0 && bytes_ + size > kMostBytes) return false;
  if (waiting_.empty() || waiting_.back().ops.size() >= kMaxOps || waiting_.back().bytes + size > kMaxBytes) {
    waiting_.emplace_back();
    may_join_ = false;
    needs_room_ = true;
  }
  auto& batch = waiting_.back();
  if (!may_join_ || batch.runs.back().asked != asked) {
    batch.runs.push_back({peer_, asked, {}, 0, {}});
    may_join_ = true;
  }
  auto& run = batch.runs.back();
  if (asked && std::exchange(needs_room_, false)) {
    const std::size_t here = std::min(expected_, kMaxOps - batch.ops.size());
    make_room(run.ops, here);
    make_room(batch.ops, here);
  }
  expected_ -= expected_ > 0 ? 1 : 0;
  run.ops.push_back({description.created_at, description.op_id});
  run.bytes += size;
  if (!metadata.empty()) {
    batch.metadata_cost += MetadataBook::cost_of(metadata);
    metadata_cost_ += MetadataBook::cost_of(metadata);
    run.described.push_back({description.op_id, metadata});
    batch.metadata.emplace_back(batch.ops.size(), std::move(metadata));
  }
  batch.bytes += size;
  bytes_ += size;
  batch.ops.emplace_back(std::move(description), std::move(op));
  return true;
}

void FetchWriter::flush() {
  while (!waiting_.empty() && may_begin(waiting_.front())) {
    auto batch = std::move(waiting_.front());
    waiting_.pop_front();
    ++under_way_;
    // Through a shared pointer, because a Handler is copied and the runs should not be.
    auto runs = std::make_shared<std::vector<FetchedRun>>(std::move(batch.runs));
    auto done = lifetime_.guard([this, runs, bytes = batch.bytes, metadata_cost = batch.metadata_cost,
                                 begun = runtime_.now()](const Result<ProcessedOps>& result) {
      --under_way_;
      bytes_ -= bytes;
      metadata_cost_ -= metadata_cost;
      flush();
      done_(std::move(*runs), result, runtime_.now() - begun);
    });
    if (batch.metadata.empty()) {
      store_->store_described_ops(std::move(batch.ops), std::move(done));
      continue;
    }
    std::vector<IncomingOp> ops;
    ops.reserve(batch.ops.size());
    for (auto& [description, op] : batch.ops) ops.push_back({std::move(description), std::move(op), {}});
    for (auto& [index, metadata] : batch.metadata) ops[index].metadata = std::move(metadata);
    store_->store_incoming_ops(std::move(ops), std::move(done));
  }
}

}  // namespace kitsune2
