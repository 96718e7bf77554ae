// The durable op store: OpWriter and OpReader with a thread each, their queues, and group commit.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <mutex>

#include "core/callback.hpp"
#include "core/subscribers.hpp"
#include "kitsune2/sqlite_store.hpp"
#include "log/log.hpp"
#include "store/op_limit.hpp"
#include "store/slice_hash_rules.hpp"
#include "store/sqlite/environment.hpp"
#include "store/sqlite/op_db.hpp"
#include "store/sqlite/op_schema.hpp"

namespace kitsune2 {
namespace {

using sqlite::Examined;
using sqlite::OpReader;
using sqlite::OpWriter;
using sqlite::Suspect;
using sqlite::Worker;

/// After this time without a write, the WAL is emptied and the pending table compacted.
constexpr auto kIdle = std::chrono::milliseconds(500);
/// After this many failed repairs no more are tried until the store is opened again: a peer that asks for an op that
/// can neither be read nor dropped must not cause a transaction each time.
constexpr std::uint64_t kMostFailedRepairs = 64;
/// The longest wait before the WAL, if it could not be emptied, is tried again. Each attempt doubles the wait.
constexpr auto kMaxIdle = std::chrono::milliseconds(16'000);
/// The same for work on the index of ops.
constexpr auto kMaxIndexWait = std::chrono::milliseconds(1'024'000);
constexpr const char* kMakesIndex = "the index of its ops is made from the ops";
constexpr const char* kConverts = "it is converted to format 2 while it is used";

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
  std::vector<sqlite::Fingerprints::Entry> prints;
};

template <class Work>
class StoringCall final : public Call<OpWriter> {
 public:
  StoringCall(std::size_t ops, std::uint64_t bytes, Work work, Handler<ProcessedOps> done,
              const Subscribers<OpStoreEvents>& events, sqlite::Fingerprints& prints)
      : Call<OpWriter>(ops, bytes), work_(std::move(work)), done_(std::move(done)), events_(events), prints_(prints) {}

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

 private:
  Work work_;
  Handler<ProcessedOps> done_;
  const Subscribers<OpStoreEvents>& events_;
  sqlite::Fingerprints& prints_;
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
    bytes = 0;
    for (const auto& call : out) call->fail(error);
    return out;
  }
};

std::uint64_t id_bytes(const std::vector<OpId>& op_ids) {
  std::uint64_t bytes = 64;
  for (const OpId& op_id : op_ids) bytes += 40 + op_id.size();
  return bytes;
}

class SqliteOpStore final : public OpStore {
 public:
  SqliteOpStore(const sqlite::Environment& environment, Runtime& runtime, std::shared_ptr<const OpPolicy> policy,
                std::string path, SqliteOpStoreOptions options, std::optional<sqlite::FileLock> lock,
                std::optional<OpWriter> writer, OpReader reader)
      : runtime_(runtime),
        policy_(std::move(policy)),
        path_(std::move(path)),
        options_(options),
        lock_(std::move(lock)),
        writer_(std::move(writer)),
        reader_(std::move(reader)),
        logger_(log::current()),
        free_bytes_(environment.free_bytes),
        alive_(lifetime_.weak()),
        may_convert_(options.index_in_runs) {
    reader_->use(&prints_);
    if (writer_)
      write_worker_ = environment.make_worker(sqlite::Duty::write, [this](bool idle) { return write_turn(idle); });
    read_worker_ = environment.make_worker(sqlite::Duty::read, [this](bool) { return read_turn(); });
  }

  ~SqliteOpStore() override { end(); }

  void close() override {
    assert_on_strand(runtime_, "OpStore::close");
    end();
    tell<OpReader>(reads_.refuse_all(closed_error()));
    tell_sums(closed_error());
  }

  std::shared_ptr<void> subscribe(OpStoreEvents events) override {
    assert_on_strand(runtime_, "OpStore::subscribe");
    return events_.add(std::move(events));
  }

  void process_incoming_ops(std::vector<Bytes> ops, Handler<ProcessedOps> done) override {
    std::uint64_t bytes = 64;
    for (const Bytes& op : ops) bytes += 64 + op.size();
    const std::size_t count = ops.size();
    store(
        count, bytes,
        [this, ops = std::move(ops)](OpWriter& db) -> Result<Stored> {
          Stored result;
          auto& [out, records, prints] = result;
          out.stored.reserve(ops.size());
          out.newly_stored.reserve(ops.size());
          records.reserve(ops.size());
          const Timestamp now = runtime_.wall_now();
          if (db.is_behind()) {
            std::vector<OpId> ids;
            for (const Bytes& op : ops) {
              if (auto description = describe(op)) ids.push_back(std::move(description->op_id));
            }
            if (auto ok = db.expect(ids); !ok) return ok.error();
          }
          for (std::size_t i = 0; i < ops.size(); ++i) {
            auto description = describe(ops[i]);
            if (!description) {
              out.reject(i, description.error());
            } else if (auto ok = db.store(*description, ops[i], now, out, records, &prints); !ok) {
              return ok.error();
            }
          }
          return result;
        },
        std::move(done));
  }

  void store_described_ops(std::vector<std::pair<OpDescription, Bytes>> ops, Handler<ProcessedOps> done) override {
    std::uint64_t bytes = 64;
    for (const auto& [description, op] : ops) bytes += 64 + description.op_id.size() + op.size();
    const std::size_t count = ops.size();
    store(
        count, bytes,
        [this, ops = std::move(ops)](OpWriter& db) -> Result<Stored> {
          Stored result;
          auto& [out, records, prints] = result;
          out.stored.reserve(ops.size());
          out.newly_stored.reserve(ops.size());
          records.reserve(ops.size());
          const Timestamp now = runtime_.wall_now();
          if (db.is_behind()) {
            std::vector<OpId> ids;
            for (const auto& [description, op] : ops) ids.push_back(description.op_id);
            if (auto ok = db.expect(ids); !ok) return ok.error();
          }
          for (std::size_t i = 0; i < ops.size(); ++i) {
            const auto& [description, op] = ops[i];
            if (auto fits = store::check_op_size(op.size(), options_.max_op_bytes); !fits) {
              out.reject(i, fits.error());
            } else if (auto ok = db.store(description, op, now, out, records, &prints); !ok) {
              return ok.error();
            }
          }
          return result;
        },
        std::move(done));
  }

  void retrieve_ops(std::vector<OpId> op_ids, std::uint64_t max_bytes, Handler<std::vector<MetaOp>> done) override {
    const std::uint64_t bytes = id_bytes(op_ids);
    read<std::vector<MetaOp>>(
        bytes, [op_ids = std::move(op_ids), max_bytes](OpReader& db) { return db.retrieve_ops(op_ids, max_bytes); },
        std::move(done));
  }

  void filter_out_existing_ops(std::vector<OpId> op_ids, Handler<std::vector<OpId>> done) override {
    const std::uint64_t bytes = id_bytes(op_ids);
    read<std::vector<OpId>>(
        bytes,
        [op_ids = std::move(op_ids)](OpReader& db) mutable -> Result<std::vector<OpId>> {
          // What was found to be held before a failure stays so.
          if (auto ok = db.filter_out_existing_ops(op_ids); !ok) return ok.error();
          return std::move(op_ids);
        },
        std::move(done));
  }

  void filter_out_intact_ops(std::vector<OpId> op_ids, Handler<std::vector<OpId>> done) override {
    const std::uint64_t bytes = id_bytes(op_ids);
    read<std::vector<OpId>>(
        bytes, [op_ids = std::move(op_ids)](OpReader& db) { return db.filter_out_intact_ops(op_ids); },
        std::move(done));
  }

  void retrieve_op_hashes_in_time_slice(DhtArc arc, Timestamp start, Timestamp end,
                                        Handler<OpIdsInSlice> done) override {
    read<OpIdsInSlice>(
        64, [=](OpReader& db) { return db.op_hashes_in_time_slice(arc, start, end); }, std::move(done));
  }

  void list_ops(OpListQuery query, Handler<OpPage> done) override {
    read<OpPage>(
        64, [query = std::move(query)](OpReader& db) { return db.list_ops(query); }, std::move(done));
  }

  void sum_ops(OpSumsQuery query, Handler<OpSumsPage> done) override {
    const std::uint64_t bytes = 128 + query.ranges.size() * sizeof(TimeRange);
    read<OpSumsPage>(
        bytes, [query = std::move(query)](OpReader& db) { return db.sum_ops(query); }, std::move(done));
  }

  bool retrieve_dht_sums(Handler<DhtSums> done) override {
    if (options_.read_only) return false;
    if (!may_write(done)) return true;
    {
      const std::lock_guard lock(writes_.mutex);
      sums_wanted_.push_back(std::move(done));
    }
    write_worker_->wake();
    return true;
  }

  using OpStore::retrieve_op_ids_bounded;
  void retrieve_op_ids_bounded(OpIdsQuery query, Handler<OpIdsBounded> done) override {
    read<OpIdsBounded>(
        64, [query = std::move(query)](OpReader& db) { return db.op_ids_bounded(query); }, std::move(done));
  }

  void earliest_timestamp_in_arc(DhtArc arc, Handler<std::optional<Timestamp>> done) override {
    read<std::optional<Timestamp>>(
        64, [=](OpReader& db) { return db.earliest_timestamp_in_arc(arc); }, std::move(done));
  }

  void store_slice_hash(DhtArc arc, std::uint64_t slice_index, Bytes slice_hash, Handler<> done) override {
    if (auto ok = store::check_slice_hash(arc, slice_index, slice_hash); !ok) return refuse<void>(done, ok.error());
    const std::uint64_t bytes = 128 + slice_hash.size();
    write<void>(
        1, bytes,
        [arc, slice_index, hash = std::move(slice_hash)](OpWriter& db) {
          return db.store_slice_hash(arc, slice_index, hash);
        },
        std::move(done));
  }

  void slice_hash_count(DhtArc arc, Handler<std::uint64_t> done) override {
    read<std::uint64_t>(
        64, [=](OpReader& db) { return db.slice_hash_count(arc); }, std::move(done));
  }
  void retrieve_slice_hash(DhtArc arc, std::uint64_t slice_index, Handler<std::optional<Bytes>> done) override {
    read<std::optional<Bytes>>(
        64, [=](OpReader& db) { return db.slice_hash(arc, slice_index); }, std::move(done));
  }
  void retrieve_slice_hashes(DhtArc arc, Handler<std::vector<std::pair<std::uint64_t, Bytes>>> done) override {
    read<std::vector<std::pair<std::uint64_t, Bytes>>>(
        64, [=](OpReader& db) { return db.slice_hashes(arc); }, std::move(done));
  }

  void add_pending(std::vector<OpId> op_ids, Url source, Handler<> done) override {
    const std::uint64_t bytes = id_bytes(op_ids);
    // A thousand ids are one row, so they count little towards the size of a batch.
    const std::size_t ops = 1 + op_ids.size() / 64;
    if (!may_write(done)) return;
    push<OpWriter>(writes_, *write_worker_,
                   std::make_shared<PendingCall>(ops, bytes, std::move(op_ids), std::move(source), path_,
                                                 options_.max_kept_request_bytes, std::move(done)),
                   "the store's writer");
  }

  void remove_pending_source(Url source, Handler<> done) override {
    write<void>(
        1, 128, [source = std::move(source)](OpWriter& db) { return db.remove_pending_source(source); },
        std::move(done));
  }

  void remove_pending(std::vector<OpId> op_ids, Url source, Handler<> done) override {
    const std::uint64_t bytes = id_bytes(op_ids);
    write<void>(
        1, bytes,
        [op_ids = std::move(op_ids), source = std::move(source)](OpWriter& db) {
          return db.remove_pending(op_ids, source);
        },
        std::move(done));
  }

  void retrieve_pending(Handler<std::vector<std::pair<Url, std::vector<OpId>>>> done) override {
    read<std::vector<std::pair<Url, std::vector<OpId>>>>(
        64, [](OpReader& db) { return db.pending(); }, std::move(done));
  }

  void retrieve_pending_page(std::uint64_t after, std::size_t limit, Handler<PendingPage> done) override {
    read<PendingPage>(
        64, [=](OpReader& db) { return db.pending_page(after, limit); }, std::move(done));
  }

  void stats(Handler<OpStoreStats> done) override {
    read<OpStoreStats>(
        64,
        [this](OpReader& db) -> Result<OpStoreStats> {
          auto out = db.stats();
          if (!out) return out;
          out->damaged = damaged_;
          out->mended = mended_;
          return out;
        },
        std::move(done));
  }

  const OpPolicy& policy() const override { return *policy_; }

 private:
  Error closed_error() const { return make_error(Errc::cancelled, path_ + ": the store is closed"); }

  /// Ends the threads (the writer's when everything called for is written) and closes the files.
  void end() {
    // The reader first, because a read that finds damage calls the writer.
    reads_.stop();
    if (read_worker_) read_worker_->wake();
    read_worker_.reset();
    reads_.calls.insert(reads_.calls.end(), held_reads_.begin(), held_reads_.end());
    held_reads_.clear();
    writes_.stop();
    if (write_worker_) write_worker_->wake();
    write_worker_.reset();
    reader_.reset();
    writer_.reset();  // the last one to close copies the WAL: it knows whether that is allowed
    lock_.reset();
  }

  Result<OpDescription> describe(const Bytes& op) const {
    if (auto fits = store::check_op_size(op.size(), options_.max_op_bytes); !fits) return fits.error();
    return call_for_result("the op policy", [&] { return policy_->describe(op); });
  }

  template <class T>
  void refuse(Handler<T>& done, Error error) {
    runtime_.post([alive = alive_, done = std::move(done), error = std::move(error)] {
      if (const auto hold = alive.lock()) done(error);
    });
  }

  /// Returns false after it has reported to `done` why.
  template <class T>
  bool may_write(Handler<T>& done) {
    assert_on_strand(runtime_, "a member of OpStore");
    if (reader_ && writer_) return true;
    refuse<T>(done, reader_ ? make_error(Errc::unsupported, path_ + ": opened for reading only") : closed_error());
    return false;
  }

  template <class T, class Work>
  void write(std::size_t ops, std::uint64_t bytes, Work work, Handler<T> done) {
    if (!may_write(done)) return;
    enqueue<T>(writes_, *write_worker_, ops, bytes, std::move(work), std::move(done), "the store's writer");
  }
  template <class Work>
  void store(std::size_t ops, std::uint64_t bytes, Work work, Handler<ProcessedOps> done) {
    if (!may_write(done)) return;
    push<OpWriter>(writes_, *write_worker_,
                   std::make_shared<StoringCall<Work>>(ops, bytes, std::move(work), std::move(done), events_, prints_),
                   "the store's writer");
  }
  template <class T, class Work>
  void read(std::uint64_t bytes, Work work, Handler<T> done) {
    assert_on_strand(runtime_, "a member of OpStore");
    if (!reader_) return refuse<T>(done, closed_error());
    enqueue<T>(reads_, *read_worker_, 1, bytes, std::move(work), std::move(done), "the store's reader");
  }
  template <class T, class Db, class Work>
  void enqueue(Queue<Db>& queue, Worker& worker, std::size_t ops, std::uint64_t bytes, Work work, Handler<T> done,
               const char* who) {
    push<Db>(queue, worker, std::make_shared<CallOf<Db, T, Work>>(ops, bytes, std::move(work), std::move(done)), who);
  }
  template <class Db>
  void push(Queue<Db>& queue, Worker& worker, CallPtr<Db> call, const char* who) {
    if (queue.push(call, options_.max_pending_write_bytes)) return worker.wake();
    call->fail(make_error(Errc::overloaded, path_ + ": too much waits for " + who));
    tell<Db>({std::move(call)});
  }

  /// Has the handlers of `calls` run, in this order.
  template <class Db>
  void tell(std::vector<CallPtr<Db>> calls) {
    runtime_.post([alive = alive_, calls = std::move(calls)] {
      for (const auto& call : calls) {
        if (alive.expired()) return;  // checked each time: a listener or a handler may drop the store
        call->announce();
        if (alive.expired()) return;
        call_application("a handler given to the op store", [&] { call->finish(); });
      }
    });
  }

  // ------------------------------------------------------------ store threads

  Worker::Pause write_turn(bool idle) {
    const log::Scope scope(logger_);
    std::unique_lock lock(writes_.mutex);
    if (!writes_.calls.empty()) {
      auto batch = take_batch();
      lock.unlock();
      std::uint64_t bytes = 0;
      std::size_t ops = 0;
      for (const auto& call : batch) {
        bytes += call->bytes();
        ops += call->ops();
      }
      commit_group(batch);
      lock.lock();
      writes_.bytes -= bytes;
      lock.unlock();
      tell<OpWriter>(std::move(batch));
      writer_->tend_wal();
      if (may_work_on_index()) work_on_index(ops);
      tend_sums(ops);
      if (writer_->wants_sums_written(false)) write_sums();
      // A store that is never idle must make room all the same.
      if (writer_->wants_compaction() && writer_->pending_bytes() > options_.max_kept_request_bytes / 2) {
        static_cast<void>(writer_->compact_pending());
      }
      idle_work_ = true;
      tidying_ = false;
      idle_ = kIdle;
      return Worker::Wait::nothing;
    }
    const bool stopping = writes_.stopping;
    lock.unlock();
    if (stopping) {
      if (writer_->wants_sums_written(true)) write_sums();
      return Worker::Wait::end;
    }
    if (tend_sums(0)) {
      idle_work_ = true;
      return Worker::Wait::nothing;
    }
    if (std::exchange(waits_for_index_, false) && idle) index_work_failed_at_.reset();
    if (has_index_work() && may_work_on_index()) {
      work_on_index(0);
      return Worker::Wait::nothing;
    }
    if (!idle_work_) return when_idle();
    if (!idle && !tidying_) return {Worker::Wait::wake_or_idle, idle_};
    tidying_ = true;
    if (writer_->wants_compaction()) {
      static_cast<void>(writer_->compact_pending());
      return Worker::Wait::nothing;
    }
    if (writer_->wants_merging() && writer_->merge()) {
      writer_->tend_wal();
      return Worker::Wait::nothing;
    }
    if (writer_->wants_sums_written(true)) write_sums();
    tidying_ = false;
    idle_work_ = !writer_->truncate_wal();
    if (!idle_work_) return when_idle();
    idle_ = std::min(idle_ * 2, kMaxIdle);
    return {Worker::Wait::wake_or_idle, idle_};
  }

  /// For those who wait for the sums: reads a piece, or tells them. Between transactions, when all that is durable has
  /// been told. Returns false if nobody waits.
  bool tend_sums(std::size_t ops) {
    {
      const std::lock_guard lock(writes_.mutex);
      if (sums_wanted_.empty()) return false;
    }
    auto sums = writer_->dht_sums(runtime_.wall_now(), ops);
    examine(writer_->take_suspects(), {});
    if (!sums) {
      tell_sums(sums.error());
    } else if (*sums) {
      tell_sums(std::move(**sums));
    }
    return true;
  }
  void tell_sums(Result<DhtSums> sums) {
    std::vector<Handler<DhtSums>> wanted;
    {
      const std::lock_guard lock(writes_.mutex);
      wanted.swap(sums_wanted_);
    }
    if (wanted.empty()) return;
    runtime_.post([alive = alive_, wanted = std::move(wanted), sums = std::move(sums)]() mutable {
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        if (alive.expired()) return;
        // They may have megabytes, and mostly one waits for them.
        const bool is_last = i + 1 == wanted.size();
        call_application("a handler given to the op store",
                         [&] { is_last ? wanted[i](std::move(sums)) : wanted[i](sums); });
      }
    });
  }
  void write_sums() {
    if (auto ok = writer_->write_sums(runtime_.wall_now()); !ok) {
      log::debug("store", path_ + ": the sums of its ops are not kept: " + ok.error().message);
    }
    writer_->tend_wal();
  }

  /// With nothing to do but what has failed before.
  Worker::Pause when_idle() {
    waits_for_index_ = has_index_work();
    if (!waits_for_index_) return Worker::Wait::wake;
    return {Worker::Wait::wake_or_idle, index_pause_};
  }

  bool has_index_work() const {
    return writer_->is_behind() || writer_->is_converting() ||
           (may_convert_ && writer_->version() == sqlite::kTablesFormat.version);
  }

  /// A piece of what the index does not have yet, or of the way to version 2. What fails is tried again after a while,
  /// whether there are calls or not; they are answered meanwhile.
  void work_on_index(std::size_t ops) {
    if (!has_index_work()) return;
    const int version = writer_->version();
    const bool converts = !writer_->is_behind();
    if (converts && version == sqlite::kTablesFormat.version && !has_room()) return;
    if (!std::exchange(is_at_index_, true)) say_progress(converts ? kConverts : kMakesIndex, "begins");
    if (auto ok = converts ? writer_->convert(ops) : writer_->catch_up(ops); !ok) {
      index_work_failed_at_ = runtime_.wall_now();
      index_pause_ = index_wait_;
      log::warn("store", path_ + ": " + (converts ? kConverts : kMakesIndex) + ": this has failed, is tried again in " +
                             std::to_string(index_wait_.count() / 1'000) +
                             " s, and changes nothing until then: " + ok.error().message);
      index_wait_ = std::min(2 * index_wait_, kMaxIndexWait);
      return;
    }
    index_wait_ = kMaxIdle;
    writer_->tend_wal();
    if (converts && writer_->version() == sqlite::kConvertedFormat.version) {
      return say_progress(kConverts, "the new indexes are complete; the old ones are removed");
    }
    if (!has_index_work()) {
      is_at_index_ = false;
      idle_work_ = true;
      return say_progress(converts ? kConverts : kMakesIndex, "done");
    }
    if (writer_->progress().ops >= say_at_) say_progress(converts ? kConverts : kMakesIndex, "goes on");
  }
  bool may_work_on_index() {
    if (!index_work_failed_at_) return true;
    // A clock that was set back makes this a long time.
    const auto passed = static_cast<std::uint64_t>(runtime_.wall_now().micros) -
                        static_cast<std::uint64_t>(index_work_failed_at_->micros);
    const std::chrono::microseconds pause = index_pause_;
    if (passed >= static_cast<std::uint64_t>(pause.count())) index_work_failed_at_.reset();
    return !index_work_failed_at_;
  }
  /// At each tenth, and at least each million.
  void say_progress(const char* what, const char* how) {
    const auto [done, of] = writer_->progress();
    say_at_ = done + std::clamp<std::uint64_t>(of / 10, 1, 1'000'000);
    log::info("store",
              path_ + ": " + what + ": " + how + ", " + std::to_string(done) + " of " + std::to_string(of) + " ops");
  }
  /// Whether there is room for a conversion. If not, the store stays as it is until it is opened again.
  bool has_room() {
    const auto room = writer_->room_for_conversion();
    if (!room) return true;  // what is wrong shows then
    std::optional<std::uint64_t> free = free_bytes_ ? free_bytes_(path_) : std::nullopt;
    if (const std::uint64_t most = options_.max_database_bytes; most > 0) {
      free = std::min(free.value_or(UINT64_MAX), most - std::min(most, room->used));
    }
    if (!free || *free >= room->needed) return true;
    may_convert_ = false;
    log::warn("store", path_ + ": " + kConverts + ": it is not, since this may need " + std::to_string(room->needed) +
                           " bytes, and " + std::to_string(*free) +
                           " are free. The store is used as it is; make room and open it again");
    return false;
  }

  /// Takes everything that waits, up to the bounds of a batch; at least one call.
  std::vector<CallPtr<OpWriter>> take_batch() {
    std::vector<CallPtr<OpWriter>> out;
    std::size_t ops = 0;
    std::uint64_t bytes = 0;
    while (!writes_.calls.empty()) {
      const auto& next = writes_.calls.front();
      if (!out.empty() &&
          (ops + next->ops() > options_.max_batch_ops || bytes + next->bytes() > options_.max_batch_bytes)) {
        break;
      }
      ops += next->ops();
      bytes += next->bytes();
      out.push_back(std::move(writes_.calls.front()));
      writes_.calls.pop_front();
    }
    return out;
  }

  /// One transaction for all calls; if it fails, one for each, so that a bad call does not affect the others.
  void commit_group(const std::vector<CallPtr<OpWriter>>& batch) {
    if (commit(batch)) return;
    // The next transaction makes it anew, and the calls need not know.
    if (writer_->index_is_damaged() && commit(batch)) return;
    if (batch.size() == 1) return;
    for (const auto& call : batch) static_cast<void>(commit({&call, 1}));
  }

  bool commit(std::span<const CallPtr<OpWriter>> calls) {
    Result<void> ok = writer_->begin();
    for (const auto& call : calls) {
      if (ok) ok = call->run(*writer_);
    }
    if (ok) ok = writer_->commit();
    for (const auto& call : calls) {
      if (ok) call->committed();
    }
    if (ok) return true;
    writer_->roll_back();
    for (const auto& call : calls) call->fail(ok.error());
    return false;
  }

  Worker::Pause read_turn() {
    std::unique_lock lock(reads_.mutex);
    if (reads_.stopping) return Worker::Wait::end;
    if (reads_.calls.empty()) return Worker::Wait::wake;
    auto call = std::move(reads_.calls.front());
    reads_.calls.pop_front();
    lock.unlock();
    const auto ran = call->run(*reader_);
    const bool can_wait = !ran && reader_->index_is_damaged() && writer_ && !index_was_repaired_;
    auto suspects = reader_->take_suspects();
    if (can_wait) {
      // Before the repair is asked for, which may end before this thread goes on.
      lock.lock();
      held_reads_.push_back(std::move(call));
      lock.unlock();
      examine(std::move(suspects), [this] { resume_reads(); });
      return Worker::Wait::nothing;
    }
    examine(std::move(suspects), {});
    lock.lock();
    reads_.bytes -= call->bytes();
    lock.unlock();
    tell<OpReader>({std::move(call)});
    return Worker::Wait::nothing;
  }

  /// Runs before the handler of the call that met them: what is stored in there replaces them.
  void examine(std::vector<Suspect> suspects, std::function<void()> done) {
    const bool is_worth_it = !suspects.empty() && writer_ && failed_repairs_ < kMostFailedRepairs;
    if (!is_worth_it && !done) return;
    writes_.force(std::make_shared<ExamineCall>(std::move(suspects), *policy_, events_, damaged_, mended_,
                                                failed_repairs_, std::move(done)));
    write_worker_->wake();
  }

  /// Reads that met a damaged index are run again after its repair, once in the life of a store; later ones fail.
  void resume_reads() {
    {
      const std::lock_guard lock(reads_.mutex);
      index_was_repaired_ = true;
      reads_.calls.insert(reads_.calls.begin(), held_reads_.begin(), held_reads_.end());
      held_reads_.clear();
    }
    if (read_worker_) read_worker_->wake();
  }

  Runtime& runtime_;
  const std::shared_ptr<const OpPolicy> policy_;
  const std::string path_;
  const SqliteOpStoreOptions options_;
  std::optional<sqlite::FileLock> lock_;  ///< released last
  std::optional<OpWriter> writer_;
  std::optional<OpReader> reader_;  ///< until it is closed
  sqlite::Fingerprints prints_;
  Subscribers<OpStoreEvents> events_;
  Lifetime lifetime_;
  const std::shared_ptr<log::Logger> logger_;
  const std::function<std::optional<std::uint64_t>(const std::string&)> free_bytes_;
  const std::weak_ptr<void> alive_;
  Queue<OpWriter> writes_;
  Queue<OpReader> reads_;
  std::vector<Handler<DhtSums>> sums_wanted_;  ///< by the mutex of `writes_`
  std::vector<CallPtr<OpReader>> held_reads_;  ///< by the mutex of `reads_`; they wait for a repair of the index
  std::atomic<bool> index_was_repaired_ = false;
  std::atomic<std::uint64_t> damaged_ = 0, mended_ = 0;  ///< since it was opened
  std::atomic<std::uint64_t> failed_repairs_ = 0;
  // For the writer's turns:
  bool idle_work_ = true;  ///< there may be something to clean up when no calls come for a while
  bool tidying_ = false;
  bool may_convert_ = false;  ///< from version 1
  bool is_at_index_ = false, waits_for_index_ = false;
  std::optional<Timestamp> index_work_failed_at_;  ///< then it waits for `index_pause_`
  std::chrono::milliseconds index_pause_ = kMaxIdle;
  std::chrono::milliseconds index_wait_ = kMaxIdle;
  std::uint64_t say_at_ = 0;  ///< the next progress: how many ops the index has
  std::chrono::milliseconds idle_ = kIdle;
  std::unique_ptr<Worker> write_worker_;
  std::unique_ptr<Worker> read_worker_;
};

}  // namespace

namespace sqlite {

Result<std::shared_ptr<OpStore>> open_op_store(const Environment& environment, Runtime& runtime,
                                               std::shared_ptr<const OpPolicy> policy, const SpaceId& space,
                                               const std::string& path, const SqliteOpStoreOptions& options) {
  std::optional<FileLock> lock;
  std::optional<OpWriter> writer;
  auto shelf = std::make_shared<runs::RunShelf>();
  if (options.read_only) {
    const auto info = read_sqlite_op_store_info(path);
    if (!info) return info.error();
    if (info->space != space || info->policy != policy->name()) {
      return make_error(Errc::already_exists, path + ": this store is of space " + info->space.to_string() +
                                                  " and policy " + info->policy + ", not of " + space.to_string() +
                                                  " and " + std::string(policy->name()));
    }
  } else {
    if (environment.vfs == nullptr) {
      auto taken = FileLock::take(path);
      if (!taken) return taken.error();
      lock = std::move(*taken);
      const auto state = inspect_file(path);
      if (!state) return state.error();
      if (*state == FileState::missing) {
        if (auto ok = create_file(path); !ok) return ok.error();
      }
    }
    auto opened = OpWriter::open(path, {.max_database_bytes = options.max_database_bytes,
                                        .vfs = environment.vfs,
                                        .policy = policy.get(),
                                        .for_new = options.index_in_runs ? &kRunsFormat : &kTablesFormat,
                                        .merge_rules = environment.merge_rules,
                                        .blocks = environment.blocks,
                                        .shelf = shelf,
                                        .sums_rules = environment.sums_rules});
    if (!opened) return opened.error();
    if (auto ok = opened->bind_to(space, policy->name()); !ok) return ok.error();
    writer = std::move(*opened);
  }
  auto reader = OpReader::open(path, options.read_only, environment.vfs, policy.get(),
                               {environment.merge_rules, environment.blocks, std::move(shelf)});
  if (!reader) return reader.error();
  return std::make_shared<SqliteOpStore>(environment, runtime, std::move(policy), path, options, std::move(lock),
                                         std::move(writer), std::move(*reader));
}

}  // namespace sqlite

Result<std::shared_ptr<OpStore>> open_sqlite_op_store(Runtime& runtime, std::shared_ptr<const OpPolicy> policy,
                                                      const SpaceId& space, const std::string& path,
                                                      const SqliteOpStoreOptions& options) {
  return sqlite::open_op_store(sqlite::real_environment(), runtime, std::move(policy), space, path, options);
}

Result<SqliteOpStoreInfo> read_sqlite_op_store_info(const std::string& path) {
  const auto state = sqlite::inspect_file(path);
  if (!state) return state.error();
  if (*state != sqlite::FileState::present) return make_error(Errc::not_found, path + ": there is no op store");
  auto reader = OpReader::open(path, true, nullptr);
  if (!reader) return reader.error();
  return reader->info();
}

}  // namespace kitsune2
