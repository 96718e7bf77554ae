// The durable op store: OpWriter and OpReader with a thread each, their queues, and group commit.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>

#include "core/callback.hpp"
#include "core/subscribers.hpp"
#include "kitsune2/sqlite_store.hpp"
#include "log/log.hpp"
#include "store/op_limit.hpp"
#include "store/slice_hash_rules.hpp"
#include "store/sqlite/environment.hpp"
#include "store/sqlite/op_calls.hpp"
#include "store/sqlite/op_files.hpp"
#include "store/sqlite/op_schema.hpp"
#include "store/sqlite/store_pool.hpp"

namespace kitsune2 {
namespace {

using sqlite::CallOf;
using sqlite::CallPtr;
using sqlite::ExamineCall;
using sqlite::id_bytes;
using sqlite::OpReader;
using sqlite::OpWriter;
using sqlite::PendingCall;
using sqlite::Queue;
using sqlite::Stored;
using sqlite::StorePool;
using sqlite::StoringCall;
using sqlite::Suspect;
using sqlite::Worker;

/// After this time without a write, the WAL is emptied, the pending table compacted, and memory given back; after this
/// time without a read, that of the reader.
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

/// So many reads in a row use the files without a look at whether other stores wait for room.
constexpr std::size_t kReadsInARow = 64;

/// Those who use the files of a store.
constexpr StorePool::User kWrites = 1, kReads = 2, kOpens = 4;

/// With a place in a pool, the files are open only when they are needed: who needs them (a turn of the writer or of the
/// reader) asks for room first, and opens them if they are closed. The writer closes them, in a turn, when the pool
/// says so or when nobody has called for a while.
class SqliteOpStore final : public OpStore, private StorePool::Member {
 public:
  /// `files` are open. `place`, which may be null, is used by kOpens.
  SqliteOpStore(const sqlite::Environment& environment, Runtime& runtime, std::shared_ptr<const OpPolicy> policy,
                std::string path, SqliteOpStoreOptions options, std::unique_ptr<sqlite::OpFiles> files,
                std::unique_ptr<StorePool::Place> place)
      : runtime_(runtime),
        policy_(std::move(policy)),
        path_(std::move(path)),
        options_(options),
        files_(std::move(files)),
        place_(std::move(place)),
        logger_(log::current()),
        free_bytes_(environment.free_bytes),
        alive_(lifetime_.weak()),
        sums_rules_(environment.sums_rules),
        may_convert_(options.index_in_runs) {
    files_->reader().use(&prints_);
    if (place_) place_->belongs_to(*this);
    if (!options_.read_only) {
      write_worker_ = environment.make_worker(sqlite::Duty::write, [this](bool idle) { return write_turn(idle); });
      write_thread_ = write_worker_.get();
    }
    read_worker_ = environment.make_worker(sqlite::Duty::read, [this](bool idle) { return read_turn(idle); });
    read_thread_ = read_worker_.get();
    if (place_) place_->release(kOpens);
  }

  ~SqliteOpStore() override { end(); }

  void close() override {
    assert_on_strand(runtime_, "OpStore::close");
    end();
    closed_ = true;
    tell<OpReader>(reads_.refuse_all(closed_error()));
    tell_sums(closed_error());
  }

  std::shared_ptr<void> subscribe(OpStoreEvents events) override {
    assert_on_strand(runtime_, "OpStore::subscribe");
    return events_.add(std::move(events));
  }

  void process_incoming_ops(std::vector<Bytes> ops, Handler<ProcessedOps> done) override {
    std::uint64_t bytes = 64;
    std::size_t largest = 0;
    for (const Bytes& op : ops) {
      bytes += 64 + op.size();
      largest = std::max(largest, op.size());
    }
    const std::size_t count = ops.size();
    store(
        count, bytes, largest,
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
    std::size_t largest = 0;
    for (const auto& [description, op] : ops) {
      bytes += 64 + description.op_id.size() + op.size();
      largest = std::max(largest, op.size());
    }
    const std::size_t count = ops.size();
    store(
        count, bytes, largest,
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
    files_->close();
    place_.reset();
  }

  // --------------------------------------------------------------------- files

  void has_room(StorePool::User user) override { (user == kReads ? read_thread_ : write_thread_)->wake(); }
  bool give_up() override {
    asked_to_close_ = true;
    write_thread_->wake();
    return false;
  }

  /// Whether the files may be used until `put_down`. If not, the turn that asks is repeated when they may.
  bool take_up(StorePool::User user, bool at_once = false) {
    if (!place_) return true;
    if (at_once) place_->use_now(user);
    return at_once || place_->use(user);
  }
  void put_down(StorePool::User user, bool was_called) {
    if (!place_) return;
    place_->release(user, was_called);
    if (is_open_) return;
    const std::lock_guard lock(files_mutex_);
    if (!is_open_) place_->closed();  // it could not be opened
  }
  /// For one who has taken them up.
  Result<void> open_files() {
    const log::Scope scope(logger_);
    const std::lock_guard lock(files_mutex_);
    if (is_open_) return {};
    auto ok = files_->open_again();
    if (!ok) {
      log::warn("store", path_ + ": it cannot be opened again: " + ok.error().message);
      return ok;
    }
    files_->reader().use(&prints_);
    is_open_ = true;
    opened_again_ = true;
    write_thread_->wake();  // who closes them again
    if (files_->was_changed_meanwhile()) tell_of_change();
    return ok;
  }
  /// For the writer's turn, in which nobody uses them.
  void close_files() {
    const std::lock_guard lock(files_mutex_);
    if (!place_->is_closing()) return;
    if (is_open_) {
      keep_sums();
      if (!files_->close_for_now()) return place_->stays_open();
      is_open_ = false;
    }
    place_->closed();
  }
  /// What another program has done to the ops is not known, so those who follow them begin anew.
  void tell_of_change() {
    log::warn("store", path_ + ": another program has changed it while it was closed");
    runtime_.post([this, alive = alive_] {
      if (alive.expired()) return;
      events_.tell([&](const OpStoreEvents& events) {
        if (!events.ops_damaged) return;
        call_application("OpStoreEvents::ops_damaged", [&] { events.ops_damaged({}); });
      });
    });
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
    if (!closed_ && !options_.read_only) return true;
    refuse<T>(done, closed_ ? closed_error() : make_error(Errc::unsupported, path_ + ": opened for reading only"));
    return false;
  }

  template <class T, class Work>
  void write(std::size_t ops, std::uint64_t bytes, Work work, Handler<T> done) {
    if (!may_write(done)) return;
    enqueue<T>(writes_, *write_worker_, ops, bytes, std::move(work), std::move(done), "the store's writer");
  }
  template <class Work>
  void store(std::size_t ops, std::uint64_t bytes, std::size_t largest, Work work, Handler<ProcessedOps> done) {
    if (!may_write(done)) return;
    push<OpWriter>(
        writes_, *write_worker_,
        std::make_shared<StoringCall<Work>>(ops, bytes, largest, std::move(work), std::move(done), events_, prints_),
        "the store's writer");
  }
  template <class T, class Work>
  void read(std::uint64_t bytes, Work work, Handler<T> done) {
    assert_on_strand(runtime_, "a member of OpStore");
    if (closed_) return refuse<T>(done, closed_error());
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
    if (place_ && (asked_to_close_.exchange(false) || (idle && is_open_ && place_->close_if_idle()))) close_files();
    bool is_called = false;
    bool stopping = false;
    {
      const std::lock_guard lock(writes_.mutex);
      stopping = writes_.stopping;
      is_called = !writes_.calls.empty() || (!stopping && !sums_wanted_.empty());
    }
    if (!is_called && !is_open_) {
      if (stopping) return end_writes();
      do_without_files();
      return Worker::Wait::wake;
    }
    if (!take_up(kWrites, stopping)) return Worker::Wait::wake;
    if (auto ok = open_files(); !ok) {
      refuse_writes(ok.error());
      put_down(kWrites, true);
      return Worker::Wait::nothing;
    }
    if (opened_again_.exchange(false)) {
      idle_work_ = true;
      tidying_ = false;
      idle_ = kIdle;
    }
    const bool was_cut_short = std::exchange(cut_short_, false);
    const auto pause = write_turn_with_files(idle && !was_cut_short);
    if (pause.wait == Worker::Wait::end) return end_writes();
    // The sums are read in pieces, which would be lost.
    if (!wants_sums()) put_down(kWrites, is_called);
    return place_ ? until_closing(pause) : pause;
  }
  /// Nobody tells this thread of room, or asks it to close the files, any more.
  Worker::Pause end_writes() {
    if (place_) place_->forget(kWrites);
    return Worker::Wait::end;
  }
  /// A turn that found the files being closed has asked for them, though there was no call, and may have got room.
  void do_without_files() {
    if (!place_) return;
    place_->forget(kWrites);
    const std::lock_guard lock(files_mutex_);
    if (!is_open_) place_->closed();
  }
  /// A pause that ends when the files may be closed.
  Worker::Pause until_closing(Worker::Pause pause) {
    if (pause.wait == Worker::Wait::nothing) return pause;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(place_->left());
    if (pause.wait == Worker::Wait::wake_or_idle && pause.idle <= left) return pause;
    cut_short_ = true;
    return {Worker::Wait::wake_or_idle, std::max(left, std::chrono::milliseconds(1))};
  }
  /// The files cannot be opened: whatever waits for them fails, and what is called later opens them again.
  void refuse_writes(const Error& error) {
    tell<OpWriter>(writes_.refuse_all(error));
    tell_sums(error);
  }

  Worker::Pause write_turn_with_files(bool idle) {
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
      writer().tend_wal();
      if (may_work_on_index()) work_on_index(ops);
      tend_sums(ops);
      if (writer().wants_sums_written(false)) write_sums();
      // A store that is never idle must make room all the same.
      if (writer().wants_compaction() && writer().pending_bytes() > options_.max_kept_request_bytes / 2) {
        static_cast<void>(writer().compact_pending());
      }
      idle_work_ = true;
      tidying_ = false;
      idle_ = kIdle;
      return Worker::Wait::nothing;
    }
    const bool stopping = writes_.stopping;
    lock.unlock();
    if (stopping) {
      keep_sums();
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
    if (writer().wants_compaction()) {
      static_cast<void>(writer().compact_pending());
      return Worker::Wait::nothing;
    }
    if (writer().wants_merging() && writer().merge()) {
      writer().tend_wal();
      return Worker::Wait::nothing;
    }
    if (writer().wants_sums_written(true)) write_sums();
    tidying_ = false;
    idle_work_ = !writer().truncate_wal();
    writer().rest();
    if (!idle_work_) return when_idle();
    idle_ = std::min(idle_ * 2, kMaxIdle);
    return {Worker::Wait::wake_or_idle, idle_};
  }

  OpWriter& writer() { return files_->writer(); }
  const OpWriter& writer() const { return files_->writer(); }
  OpReader& reader() { return files_->reader(); }

  /// For those who wait for the sums: reads a piece, or tells them. Between transactions, when all that is durable has
  /// been told. Returns false if nobody waits.
  bool tend_sums(std::size_t ops) {
    if (!wants_sums()) return false;
    auto sums = writer().dht_sums(runtime_.wall_now(), ops);
    examine(writer().take_suspects(), {});
    if (!sums) {
      tell_sums(sums.error());
    } else if (*sums) {
      keeps_sums_ = true;
      tell_sums(std::move(**sums));
    }
    return true;
  }
  bool wants_sums() {
    const std::lock_guard lock(writes_.mutex);
    return !sums_wanted_.empty();
  }
  /// Before the files are closed: once the sums have been asked for, their row is kept up to date, also by an opening
  /// that did not need them. *Rationale*: else the next start reads every op since then.
  void keep_sums() {
    if (writer().wants_sums_written(true)) write_sums();
    if (writer().knows_sums()) {
      ops_in_sums_row_ = writer().ops_in_sums_row();
      return;
    }
    const std::uint64_t ops = writer().progress().of;
    if (!keeps_sums_ || ops < ops_in_sums_row_ + sums_rules_.at_rest) return;
    static_cast<void>(writer().renew_sums(runtime_.wall_now()));
    ops_in_sums_row_ = ops;
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
    if (auto ok = writer().write_sums(runtime_.wall_now()); !ok) {
      log::debug("store", path_ + ": the sums of its ops are not kept: " + ok.error().message);
    }
    writer().tend_wal();
  }

  /// With nothing to do but what has failed before.
  Worker::Pause when_idle() {
    waits_for_index_ = has_index_work();
    if (!waits_for_index_) return Worker::Wait::wake;
    return {Worker::Wait::wake_or_idle, index_pause_};
  }

  bool has_index_work() const {
    return writer().is_behind() || writer().is_converting() ||
           (may_convert_ && writer().version() == sqlite::kTablesFormat.version);
  }

  /// A piece of what the index does not have yet, or of the way to version 2. What fails is tried again after a while,
  /// whether there are calls or not; they are answered meanwhile.
  void work_on_index(std::size_t ops) {
    if (!has_index_work()) return;
    const int version = writer().version();
    const bool converts = !writer().is_behind();
    if (converts && version == sqlite::kTablesFormat.version && !has_room()) return;
    if (!std::exchange(is_at_index_, true)) say_progress(converts ? kConverts : kMakesIndex, "begins");
    if (auto ok = converts ? writer().convert(ops) : writer().catch_up(ops); !ok) {
      index_work_failed_at_ = runtime_.wall_now();
      index_pause_ = index_wait_;
      log::warn("store", path_ + ": " + (converts ? kConverts : kMakesIndex) + ": this has failed, is tried again in " +
                             std::to_string(index_wait_.count() / 1'000) +
                             " s, and changes nothing until then: " + ok.error().message);
      index_wait_ = std::min(2 * index_wait_, kMaxIndexWait);
      return;
    }
    index_wait_ = kMaxIdle;
    writer().tend_wal();
    if (converts && writer().version() == sqlite::kConvertedFormat.version) {
      return say_progress(kConverts, "the new indexes are complete; the old ones are removed");
    }
    if (!has_index_work()) {
      is_at_index_ = false;
      idle_work_ = true;
      return say_progress(converts ? kConverts : kMakesIndex, "done");
    }
    if (writer().progress().ops >= say_at_) say_progress(converts ? kConverts : kMakesIndex, "goes on");
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
    const auto [done, of] = writer().progress();
    say_at_ = done + std::clamp<std::uint64_t>(of / 10, 1, 1'000'000);
    log::info("store",
              path_ + ": " + what + ": " + how + ", " + std::to_string(done) + " of " + std::to_string(of) + " ops");
  }
  /// Whether there is room for a conversion. If not, the store stays as it is until it is opened again.
  bool has_room() {
    const auto room = writer().room_for_conversion();
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
    if (writer().index_is_damaged() && commit(batch)) return;
    if (batch.size() == 1) return;
    for (const auto& call : batch) static_cast<void>(commit({&call, 1}));
  }

  bool commit(std::span<const CallPtr<OpWriter>> calls) {
    std::size_t largest = 0;
    for (const auto& call : calls) largest = std::max(largest, call->largest_op());
    writer().expect_large(largest);
    Result<void> ok = writer().begin();
    for (const auto& call : calls) {
      if (ok) ok = call->run(writer());
    }
    if (ok) ok = writer().commit();
    for (const auto& call : calls) {
      if (ok) call->committed();
    }
    if (ok) return true;
    writer().roll_back();
    for (const auto& call : calls) call->fail(ok.error());
    return false;
  }

  Worker::Pause read_turn(bool idle) {
    std::unique_lock lock(reads_.mutex);
    if (reads_.stopping) {
      lock.unlock();
      if (place_) place_->forget(kReads);
      return Worker::Wait::end;
    }
    if (reads_.calls.empty()) {
      lock.unlock();
      return rest_after_reads(idle);
    }
    lock.unlock();
    has_read_ = true;
    if (reads_in_a_row_ == 0) {
      if (!take_up(kReads)) return Worker::Wait::wake;
      if (auto ok = open_files(); !ok) {
        put_down(kReads, true);
        tell<OpReader>(reads_.refuse_all(ok.error()));
        return Worker::Wait::nothing;
      }
    }
    lock.lock();
    auto call = std::move(reads_.calls.front());
    reads_.calls.pop_front();
    lock.unlock();
    run_read(std::move(call));
    lock.lock();
    const bool goes_on = !reads_.calls.empty() && ++reads_in_a_row_ < kReadsInARow;
    lock.unlock();
    if (!goes_on) {
      reads_in_a_row_ = 0;
      put_down(kReads, true);
    }
    return Worker::Wait::nothing;
  }

  /// A while after the last read its memory is given back.
  Worker::Pause rest_after_reads(bool idle) {
    if (!has_read_) return Worker::Wait::wake;
    if (!idle) return {Worker::Wait::wake_or_idle, kIdle};
    has_read_ = false;
    const std::lock_guard lock(files_mutex_);  // nobody closes them meanwhile
    if (is_open_) reader().rest();
    return Worker::Wait::wake;
  }

  void run_read(CallPtr<OpReader> call) {
    const auto ran = call->run(reader());
    const bool can_wait = !ran && reader().index_is_damaged() && !options_.read_only && !index_was_repaired_;
    auto suspects = reader().take_suspects();
    if (can_wait) {
      // Before the repair is asked for, which may end before this thread goes on.
      {
        const std::lock_guard lock(reads_.mutex);
        held_reads_.push_back(std::move(call));
      }
      return examine(std::move(suspects), [this] { resume_reads(); });
    }
    examine(std::move(suspects), {});
    {
      const std::lock_guard lock(reads_.mutex);
      reads_.bytes -= call->bytes();
    }
    tell<OpReader>({std::move(call)});
  }

  /// Runs before the handler of the call that met them: what is stored in there replaces them.
  void examine(std::vector<Suspect> suspects, std::function<void()> done) {
    const bool is_worth_it = !suspects.empty() && !options_.read_only && failed_repairs_ < kMostFailedRepairs;
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
  const std::unique_ptr<sqlite::OpFiles> files_;
  std::unique_ptr<StorePool::Place> place_;  ///< null: the files stay open
  bool closed_ = false;                      ///< for the strand
  std::mutex files_mutex_;                   ///< of opening and closing
  std::atomic<bool> is_open_ = true;
  std::atomic<bool> asked_to_close_ = false, opened_again_ = false;
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
  // For the reader's turns:
  std::size_t reads_in_a_row_ = 0;  ///< for which the files have been taken up
  bool has_read_ = false;           ///< since it has rested
  // For the writer's turns:
  bool cut_short_ = false;              ///< the pause, so that the files can be closed
  const sqlite::SumsRules sums_rules_;  ///< when there is a row
  bool keeps_sums_ = false;             ///< they have been asked for
  std::uint64_t ops_in_sums_row_ = 0;   ///< or as many as there were when this could not be written
  bool idle_work_ = true;               ///< there may be something to clean up when no calls come for a while
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
  Worker* write_thread_ = nullptr;  ///< the same, for any thread: they are valid until `forget`
  Worker* read_thread_ = nullptr;
};

}  // namespace

namespace sqlite {

Result<std::shared_ptr<OpStore>> open_op_store(const Environment& environment, Runtime& runtime,
                                               std::shared_ptr<const OpPolicy> policy, const SpaceId& space,
                                               const std::string& path, const SqliteOpStoreOptions& options) {
  // One that only reads has no writer, who would close it, and is used for a moment.
  std::unique_ptr<StorePool::Place> place;
  if (environment.op_pool && !options.read_only) {
    place = std::make_unique<StorePool::Place>(environment.op_pool, kOpStoreDescriptors);
    place->use_after_waiting(kOpens);
  }
  auto files = std::make_unique<OpFiles>(environment, *policy, space, path, options);
  if (auto ok = files->open(); !ok) return ok.error();
  return std::make_shared<SqliteOpStore>(environment, runtime, std::move(policy), path, options, std::move(files),
                                         std::move(place));
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
