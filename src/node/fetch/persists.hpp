// The requests that are being written to the op store, and the callers that wait for them.
#pragma once

#include <cstdint>
#include <deque>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "kitsune2/ids.hpp"
#include "kitsune2/runtime.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// Each pair of an op and a source is written once, when it becomes pending. A call for a pair that is pending already
/// waits for the writes under way; a pair that could not be written is written at the next call for it.
class Persists {
 public:
  using Serial = std::uint64_t;

  /// A list is being written to the store: pairs that are looked up in it are pending, but not durable before `end`.
  Serial begin() {
    open_.insert(++last_);
    return last_;
  }
  struct Waiting {
    Serial last = 0;  ///< the last write that it waits for
    Handler<> done;
    bool has_failed = false;  ///< one of those writes has failed
  };
  /// Returns the callers that need not wait any more.
  std::vector<Waiting> end(Serial serial, bool ok) {
    open_.erase(serial);
    std::vector<Waiting> out;
    if (!ok) {
      ++failures_;
      for (Waiting& one : waiting_) one.has_failed = true;
    }
    while (!waiting_.empty() && (open_.empty() || waiting_.front().last < *open_.begin())) {
      out.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
    return out;
  }
  bool is_open() const { return !open_.empty(); }
  /// The number of failures so far. A call that found a pair pending when this number was smaller does not know whether
  /// that pair was written.
  std::uint64_t failures() const { return failures_; }
  /// `done` is returned by `end` once all writes that are open now have ended.
  void wait(Handler<> done) { waiting_.push_back({last_, std::move(done), false}); }

  void failed(const Url& source, const std::vector<OpId>& op_ids) {
    unwritten_[source].insert(op_ids.begin(), op_ids.end());
  }
  /// Whether a pair of `source` could not be written.
  bool has_unwritten(const Url& source) const { return unwritten_.contains(source); }
  /// Whether `op_id` is one of them, which this ends.
  bool take_unwritten(const OpId& op_id, const Url& source) {
    const auto it = unwritten_.find(source);
    if (it == unwritten_.end() || it->second.erase(op_id) == 0) return false;
    if (it->second.empty()) unwritten_.erase(it);
    return true;
  }
  void forget(const Url& source) { unwritten_.erase(source); }
  void clear() { unwritten_.clear(); }

 private:
  std::set<Serial> open_;
  Serial last_ = 0;
  std::uint64_t failures_ = 0;
  std::deque<Waiting> waiting_;
  std::unordered_map<Url, std::unordered_set<OpId>> unwritten_;
};

}  // namespace kitsune2
