// Writes fetched ops into the op store, in few large calls.
#include "node/fetch/core_fetch_writer.hpp"

namespace kitsune2 {

bool FetchWriter::add(const Url& peer, bool asked, OpDescription description, Bytes op) {
  const auto size = op.size();
  if (bytes_ > 0 && bytes_ + size > kMostBytes) return false;
  if (waiting_.empty() || waiting_.back().ops.size() >= kMaxOps || waiting_.back().bytes + size > kMaxBytes) {
    waiting_.emplace_back();
  }
  auto& batch = waiting_.back();
  if (batch.runs.empty() || batch.runs.back().asked != asked || batch.runs.back().peer != peer) {
    batch.runs.push_back({peer, asked, {}, 0});
  }
  auto& run = batch.runs.back();
  run.ops.push_back({description.created_at, description.op_id});
  run.bytes += size;
  batch.bytes += size;
  bytes_ += size;
  batch.ops.emplace_back(std::move(description), std::move(op));
  return true;
}

void FetchWriter::flush() {
  while (under_way_ < kMaxWrites && !waiting_.empty()) {
    auto batch = std::move(waiting_.front());
    waiting_.pop_front();
    ++under_way_;
    // Through a shared pointer, because a Handler is copied and the runs should not be.
    auto runs = std::make_shared<std::vector<FetchedRun>>(std::move(batch.runs));
    store_->store_described_ops(
        std::move(batch.ops),
        lifetime_.guard([this, runs, bytes = batch.bytes, begun = runtime_.now()](const Result<ProcessedOps>& result) {
          --under_way_;
          bytes_ -= bytes;
          flush();
          done_(std::move(*runs), result, runtime_.now() - begun);
        }));
  }
}

}  // namespace kitsune2
