// The calls of an op store that are under way, and the queues in which they wait for its threads.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/callback.hpp"
#include "core/subscribers.hpp"
#include "kitsune2/sqlite_store.hpp"
#include "store/sqlite/op_db.hpp"

namespace kitsune2::sqlite {

/// A call that is under way: run on a store thread, reported to its handler on the strand. Also destroyed on the
/// strand, because handlers hold what belongs there.
template <class Db>
class Call {
 public:
  explicit Call(std::size_t ops, std::uint64_t bytes) : ops_(ops), bytes_(bytes) {}
  virtual ~Call() = default;
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  /// May be run again if the transaction failed.
  virtual Result<void> run(Db& db) = 0;
  virtual void fail(const Error& error) = 0;
  /// Called on the store's thread, once its work is durable.
  virtual void committed() {}
  /// Called before `finish`: what the store's listeners should learn of it.
  virtual void announce() {}
  virtual void finish() = 0;

  std::size_t ops() const { return ops_; }
  std::uint64_t bytes() const { return bytes_; }
  /// The bytes of the largest op that it stores.
  virtual std::size_t largest_op() const { return 0; }

 private:
  std::size_t ops_;
  std::uint64_t bytes_;
};

template <class Db, class T, class Work>
class CallOf final : public Call<Db> {
 public:
  CallOf(std::size_t ops, std::uint64_t bytes, Work work, Handler<T> done)
      : Call<Db>(ops, bytes), work_(std::move(work)), done_(std::move(done)) {}

  Result<void> run(Db& db) override {
    result_.emplace(work_(db));
    if (!*result_) return result_->error();
    return {};
  }
  void fail(const Error& error) override { result_.emplace(error); }
  void finish() override { done_(std::move(*result_)); }

 private:
  Work work_;
  Handler<T> done_;
  std::optional<Result<T>> result_;
};

/// Keeps requests. Only the caller learns that there is no room for them: nothing was written, so the calls that are
/// committed together with it need not be rolled back.
class PendingCall final : public Call<OpWriter> {
 public:
  PendingCall(std::size_t ops, std::uint64_t bytes, std::vector<OpId> op_ids, Url source, const std::string& path,
              std::uint64_t most_bytes, Handler<> done)
      : Call<OpWriter>(ops, bytes),
        op_ids_(std::move(op_ids)),
        source_(std::move(source)),
        path_(path),
        most_bytes_(most_bytes),
        done_(std::move(done)) {}

  Result<void> run(OpWriter& db) override {
    result_ = {};
    const auto has_room = db.has_room_for(op_ids_, source_, most_bytes_);
    if (!has_room) return result_ = has_room.error();
    if (*has_room) return result_ = db.add_pending(op_ids_, source_);
    result_ = make_error(Errc::overloaded, path_ + ": " + std::to_string(db.pending_bytes()) +
                                               " bytes of open requests are kept, the limit is " +
                                               std::to_string(most_bytes_));
    return {};
  }
  void fail(const Error& error) override { result_ = error; }
  void finish() override { done_(std::move(result_)); }

 private:
  const std::vector<OpId> op_ids_;
  const Url source_;
  const std::string& path_;
  const std::uint64_t most_bytes_;
  Handler<> done_;
  Result<void> result_;
};

/// The store's own call, which has suspicious ops checked again. They are counted before listeners learn of them.
class ExamineCall final : public Call<OpWriter> {
 public:
  ExamineCall(std::vector<Suspect> suspects, const OpPolicy& policy, const Subscribers<OpStoreEvents>& events,
              std::atomic<std::uint64_t>& damaged, std::atomic<std::uint64_t>& mended,
              std::atomic<std::uint64_t>& failures, std::function<void()> done)
      : Call<OpWriter>(suspects.size(), 0),
        suspects_(std::move(suspects)),
        policy_(policy),
        events_(events),
        damaged_(damaged),
        mended_(mended),
        failures_(failures),
        done_(std::move(done)) {}

  Result<void> run(OpWriter& db) override {
    found_ = {};
    auto found = db.examine(suspects_, policy_);
    if (!found) return found.error();
    found_ = std::move(*found);
    return {};
  }
  /// Readers leave out what is damaged as long as it is there, and find it again.
  void fail(const Error& /*error*/) override {
    found_ = {};
    ++failures_;
  }
  void committed() override {
    damaged_ += found_.dropped.size();
    mended_ += found_.mended;
  }
  void announce() override {
    if (found_.dropped.empty()) return;
    events_.tell([&](const OpStoreEvents& events) {
      if (!events.ops_damaged) return;
      call_application("OpStoreEvents::ops_damaged", [&] { events.ops_damaged(found_.dropped); });
    });
  }
  void finish() override {
    if (done_) done_();
  }

 private:
  const std::vector<Suspect> suspects_;
  const OpPolicy& policy_;
  const Subscribers<OpStoreEvents>& events_;
  std::atomic<std::uint64_t>& damaged_;
  std::atomic<std::uint64_t>& mended_;
  std::atomic<std::uint64_t>& failures_;
  const std::function<void()> done_;
  Examined found_;
};

/// A call that stores ops.
struct Stored {
  ProcessedOps outcome;
  std::vector<OpRecord> records;  ///< of what is new
  std::vector<Fingerprints::Entry> prints;
};

template <class Work>
class StoringCall final : public Call<OpWriter> {
 public:
  StoringCall(std::size_t ops, std::uint64_t bytes, std::size_t largest_op, Work work, Handler<ProcessedOps> done,
              const Subscribers<OpStoreEvents>& events, Fingerprints& prints)
      : Call<OpWriter>(ops, bytes),
        largest_op_(largest_op),
        work_(std::move(work)),
        done_(std::move(done)),
        events_(events),
        prints_(prints) {}

  Result<void> run(OpWriter& db) override {
    result_.emplace(work_(db));
    if (!*result_) return result_->error();
    return {};
  }
  void fail(const Error& error) override { result_.emplace(error); }
  void committed() override {
    if (*result_) prints_.put((*result_)->prints);
  }
  void announce() override {
    if (!*result_ || (*result_)->records.empty()) return;
    events_.tell([&](const OpStoreEvents& events) {
      if (!events.ops_stored) return;
      call_application("OpStoreEvents::ops_stored", [&] { events.ops_stored((*result_)->records); });
    });
  }
  void finish() override {
    if (*result_) return done_(std::move((*result_)->outcome));
    done_(result_->error());
  }
  std::size_t largest_op() const override { return largest_op_; }

 private:
  const std::size_t largest_op_;
  Work work_;
  Handler<ProcessedOps> done_;
  const Subscribers<OpStoreEvents>& events_;
  Fingerprints& prints_;
  std::optional<Result<Stored>> result_;
};

template <class Db>
using CallPtr = std::shared_ptr<Call<Db>>;

/// The calls that wait for a thread.
template <class Db>
struct Queue {
  std::mutex mutex;
  std::deque<CallPtr<Db>> calls;
  std::uint64_t bytes = 0;  ///< of calls that wait or are being run
  bool stopping = false;

  /// Returns false if too much is waiting. A single large call is accepted when nothing waits, or it could never run.
  bool push(CallPtr<Db> call, std::uint64_t max_bytes) {
    const std::lock_guard lock(mutex);
    if (bytes > 0 && (bytes >= max_bytes || call->bytes() > max_bytes - bytes)) return false;
    bytes += call->bytes();
    calls.push_back(std::move(call));
    return true;
  }
  /// For the store's own calls.
  void force(CallPtr<Db> call) {
    const std::lock_guard lock(mutex);
    if (!stopping) calls.push_back(std::move(call));
  }
  void stop() {
    const std::lock_guard lock(mutex);
    stopping = true;
  }
  /// Returns the calls that still wait, as failed.
  std::vector<CallPtr<Db>> refuse_all(const Error& error) {
    const std::lock_guard lock(mutex);
    std::vector<CallPtr<Db>> out(calls.begin(), calls.end());
    calls.clear();
    for (const auto& call : out) {
      bytes -= call->bytes();
      call->fail(error);
    }
    return out;
  }
};

inline std::uint64_t id_bytes(const std::vector<OpId>& op_ids) {
  std::uint64_t bytes = 64;
  for (const OpId& op_id : op_ids) bytes += 40 + op_id.size();
  return bytes;
}

}  // namespace kitsune2::sqlite
