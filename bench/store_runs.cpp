// Ways to keep an index of ops on disk, beside a raw append: what each costs while it grows (docs/decisions/0038).
//
// usage: store_runs raw|tables|runs|slots|file OPS [BATCH [random|rising [one|two]]]
//   raw     bytes appended to a file, fdatasync
//   tables  the shipped store, through its interface, with version 1 of its schema
//   runs    the same with version 2, whose indexes are runs
//   slots   a probe: rows appended to SQLite tables; runs of src/store/runs in a table of the same database
//   file    a probe: the same rows; runs in a file beside it
// K2_BENCH_DIR: where (a real disk). One line at 0.1, 0.3, 1, 3, 10 … million ops. At the end the shipped store is left
// as a crash leaves it, and opened again, and then once more.
// K2_BENCH_TRACE_MS: each call that took longer is written to stderr with the time at which it ended, for comparison
// with `strace -f -ttt -T`.
//
// "its CPU" is the most processor time, in ms, of one call, which other programs disturb less than its time.
// CPU is that of the whole process without what makes the ops and appends them to the bare file, so what a store does
// between two calls counts.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "bench_runtime.hpp"
#include "kitsune2/sqlite_store.hpp"
#include "process.hpp"
#include "store/runs/run_index.hpp"
#include "store/sqlite/db.hpp"
#include "store/sqlite/gather_vfs.hpp"

namespace {

using namespace kitsune2;
using sqlite::Connection;
using sqlite::Statement;
using sqlite::Use;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kOpBytes = 150;

void need(bool ok, const std::string& what) {
  if (ok) return;
  std::fprintf(stderr, "store_runs: %s\n", what.c_str());
  std::exit(1);
}
template <class T>
T need(Result<T> result) {
  if (!result) need(false, result.error().to_string());
  return std::move(result.value());
}
void need(const Result<void>& result) {
  if (!result) need(false, result.error().to_string());
}

std::string path_of(const char* name) {
  const char* dir = std::getenv("K2_BENCH_DIR");
  return std::string(dir != nullptr ? dir : ".") + "/" + name;
}

std::uint64_t written_bytes() {
  std::ifstream io("/proc/self/io");
  std::string word;
  std::uint64_t value = 0;
  while (io >> word >> value) {
    if (word == "write_bytes:") return value;
  }
  return 0;
}
/// Op `number`, always the same bytes: an envelope with its time, then pseudo-random bytes.
Bytes op_of(std::uint64_t number, bool rising) {
  std::vector<std::uint8_t> bytes(kOpBytes);
  std::mt19937_64 random(number * 0x9e37'79b9'7f4a'7c15U + 1);
  const std::uint8_t head[] = {0x6b, 0x32, 0x6f, 0x70, 0x01};
  std::memcpy(bytes.data(), head, sizeof(head));
  constexpr std::uint64_t kThreeYears = std::uint64_t{3 * 365} * 86'400'000'000U;
  const std::uint64_t time = 1'700'000'000'000'000U + (rising ? number * 9'000'000U : random() % kThreeYears);
  for (std::size_t i = 0; i < 8; ++i) bytes[5 + i] = static_cast<std::uint8_t>(time >> (56 - 8 * i));
  for (std::size_t i = 13; i + 8 <= kOpBytes; i += 8) {
    const std::uint64_t word = random();
    std::memcpy(bytes.data() + i, &word, 8);
  }
  return Bytes(std::move(bytes));
}

/// What is measured.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual void store(const std::vector<Bytes>& ops) = 0;  ///< durable when it returns
  virtual std::size_t read(const std::vector<OpId>& ids) = 0;
  virtual std::size_t slice(Timestamp start, Timestamp end) = 0;
  virtual std::string about() { return {}; }
};

class Raw final : public Engine {
 public:
  explicit Raw(const char* name = "store_runs.bare")
      : fd_(::open(path_of(name).c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600)) {
    need(fd_ >= 0, "cannot open the raw file");
  }
  ~Raw() override { ::close(fd_); }
  void store(const std::vector<Bytes>& ops) override {
    std::vector<std::uint8_t> all;
    for (const Bytes& op : ops) all.insert(all.end(), op.begin(), op.end());
    need(::write(fd_, all.data(), all.size()) == static_cast<ssize_t>(all.size()) && ::fdatasync(fd_) == 0, "raw");
  }
  std::size_t read(const std::vector<OpId>& /*ids*/) override { return 0; }
  std::size_t slice(Timestamp /*start*/, Timestamp /*end*/) override { return 0; }

 private:
  const int fd_;
};

class Shipped final : public Engine {
 public:
  explicit Shipped(bool index_in_runs) {
    SqliteOpStoreOptions options;
    options.index_in_runs = index_in_runs;
    const auto began = Clock::now();
    store_ = need(open_sqlite_op_store(runtime_, make_sha256_policy(), SpaceId::from_text("bench"),
                                       path_of("store_runs.db"), options));
    open_ms_ = std::chrono::duration<double, std::milli>(Clock::now() - began).count();
  }
  void store(const std::vector<Bytes>& ops) override {
    bool done = false;
    store_->process_incoming_ops(ops, [&](Result<ProcessedOps> out) {
      need(out.value().newly_stored.size() == ops.size(), "not all ops are new");
      done = true;
    });
    runtime_.run_until(done);
  }
  std::size_t read(const std::vector<OpId>& ids) override {
    bool done = false;
    std::size_t count = 0;
    store_->retrieve_ops(ids, UINT64_MAX, [&](Result<std::vector<MetaOp>> out) {
      count = out.value().size();
      done = true;
    });
    runtime_.run_until(done);
    return count;
  }
  std::size_t slice(Timestamp start, Timestamp end) override {
    bool done = false;
    std::size_t count = 0;
    store_->retrieve_op_hashes_in_time_slice(DhtArc::full(), start, end, [&](Result<OpIdsInSlice> out) {
      count = out.value().op_ids.size();
      done = true;
    });
    runtime_.run_until(done);
    return count;
  }
  std::string about() override {
    char text[100];
    struct stat wal {};
    const bool is_there = ::stat(path_of("store_runs.db-wal").c_str(), &wal) == 0;
    std::snprintf(text, sizeof(text), "WAL %.0f MiB, opened in %.1f ms",
                  is_there ? static_cast<double>(wal.st_size) / 1048576 : 0.0, open_ms_);
    return text;
  }

 private:
  double open_ms_ = 0;
  bench::BenchRuntime runtime_;
  std::shared_ptr<OpStore> store_;
};

/// Slots as rows of a table.
class TableSlots final : public runs::BlockFile {
 public:
  void prepare(Connection& c) {
    read_ = need(c.prepare("SELECT data FROM slot WHERE n=?1"));
    put_ = need(c.prepare("INSERT INTO slot(n, data) VALUES(?1,?2) ON CONFLICT(n) DO UPDATE SET data=excluded.data"));
  }
  Result<void> read(std::uint64_t slot, std::span<std::uint8_t> out) override {
    const Use use(read_);
    if (use->bind(1, static_cast<std::int64_t>(slot)).step() != SQLITE_ROW) return make_error(Errc::corrupt, "slot");
    const ByteView data = use->blob(0);
    if (data.size() != out.size()) return make_error(Errc::corrupt, "slot size");
    std::memcpy(out.data(), data.data(), out.size());
    return {};
  }
  Result<void> write(std::uint64_t slot, ByteView block) override {
    const Use use(put_);
    const int rc = use->bind(1, static_cast<std::int64_t>(slot)).bind(2, block).step();
    return rc == SQLITE_DONE ? Result<void>() : make_error(Errc::io, "slot " + std::to_string(rc));
  }

 private:
  Statement read_, put_;
};

class FileSlots final : public runs::BlockFile {
 public:
  FileSlots() : fd_(::open(path_of("store_runs.runs").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)) {
    need(fd_ >= 0, "cannot open the file of runs");
  }
  ~FileSlots() override { ::close(fd_); }
  Result<void> read(std::uint64_t slot, std::span<std::uint8_t> out) override {
    const auto got = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(slot * kPlace));
    return got == static_cast<ssize_t>(out.size()) ? Result<void>() : make_error(Errc::corrupt, "slot");
  }
  Result<void> write(std::uint64_t slot, ByteView block) override {
    const auto put = ::pwrite(fd_, block.data(), block.size(), static_cast<off_t>(slot * kPlace));
    return put == static_cast<ssize_t>(block.size()) ? Result<void>() : make_error(Errc::io, "slot");
  }
  void sync() const { need(::fdatasync(fd_) == 0, "fdatasync"); }

 private:
  static constexpr std::uint64_t kPlace = 16'384;
  const int fd_;
};

class Runs final : public Engine {
 public:
  Runs(bool in_table, bool two_tables) : two_tables_(two_tables), vfs_(nullptr) {
    const std::string path = path_of("store_runs.db");
    const int fd = ::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    ::close(fd);
    const auto began = Clock::now();
    connection_ = need(Connection::open(path, Connection::Mode::write, vfs_.name()));
    Connection& c = connection_;
    need(
        c.run("PRAGMA page_size=16384; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-16384;"
              "PRAGMA wal_autocheckpoint=0; PRAGMA secure_delete=OFF; PRAGMA temp_store=MEMORY;"
              "CREATE TABLE IF NOT EXISTS op(stored_at INTEGER PRIMARY KEY, loc INTEGER NOT NULL, id BLOB NOT NULL,"
              " created_at INTEGER NOT NULL, size INTEGER NOT NULL, data BLOB);"
              "CREATE TABLE IF NOT EXISTS op_data(stored_at INTEGER PRIMARY KEY, data BLOB NOT NULL);"
              "CREATE TABLE IF NOT EXISTS slot(n INTEGER PRIMARY KEY, data BLOB NOT NULL);"
              "CREATE TABLE IF NOT EXISTS manifest(one INTEGER PRIMARY KEY CHECK(one=1), data BLOB NOT NULL);"));
    begin_ = need(c.prepare("BEGIN IMMEDIATE"));
    commit_ = need(c.prepare("COMMIT"));
    insert_ = need(c.prepare("INSERT INTO op(stored_at, loc, id, created_at, size, data) VALUES(?1,?2,?3,?4,?5,?6)"));
    insert_data_ = need(c.prepare("INSERT INTO op_data(stored_at, data) VALUES(?1,?2)"));
    put_manifest_ = need(c.prepare("INSERT OR REPLACE INTO manifest(one, data) VALUES(1,?1)"));
    data_ = need(c.prepare(two_tables ? "SELECT data FROM op_data WHERE stored_at=?1"
                                      : "SELECT data FROM op WHERE stored_at=?1"));
    if (in_table) {
      table_.prepare(c);
      index_ = std::make_unique<runs::RunIndex>(table_);
    } else {
      file_.emplace();
      index_ = std::make_unique<runs::RunIndex>(*file_);
    }
    auto manifest = need(c.prepare("SELECT data FROM manifest"));
    runs::Manifest held;
    held.salt = 0x5a17;
    if (manifest.step() == SQLITE_ROW) held = need(runs::Manifest::decode(manifest.blob(0), UINT64_MAX));
    manifest.reset();
    need(index_->load(held));
    auto rows =
        need(c.prepare("SELECT stored_at, loc, id, created_at, size FROM op WHERE stored_at>?1 ORDER BY stored_at"));
    rows.bind(1, held.covered);
    while (rows.step() == SQLITE_ROW) {
      clock_ = rows.int64(0);
      index_->add({static_cast<std::uint32_t>(rows.int64(1)), static_cast<std::uint32_t>(rows.int64(4)), rows.int64(3),
                   clock_, rows.blob(2)});
    }
    open_ms_ = std::chrono::duration<double, std::milli>(Clock::now() - began).count();
  }

  void store(const std::vector<Bytes>& ops) override {
    need(begin_.step() == SQLITE_DONE, "begin");
    begin_.reset();
    index_->begin();
    for (const Bytes& op : ops) {
      const auto what = need(policy_->describe(op));
      const ByteView id = what.op_id.view();
      const std::uint32_t location = what.op_id.loc();
      need(!need(index_->find(location, id)).has_value(), "an op is there already");
      ++clock_;
      insert_.bind(1, clock_).bind(2, std::int64_t{location}).bind(3, id).bind(4, what.created_at.micros);
      insert_.bind(5, static_cast<std::int64_t>(op.size()));
      if (two_tables_) {
        insert_.bind_null(6);
      } else {
        insert_.bind(6, op.view());
      }
      need(insert_.step() == SQLITE_DONE, "insert");
      insert_.reset();
      if (two_tables_) {
        insert_data_.bind(1, clock_).bind(2, op.view());
        need(insert_data_.step() == SQLITE_DONE, "insert data");
        insert_data_.reset();
      }
      index_->add({location, static_cast<std::uint32_t>(op.size()), what.created_at.micros, clock_, id});
    }
    if (need(index_->step())) {
      if (file_) file_->sync();
      const auto bytes = index_->manifest().encode();
      put_manifest_.bind(1, ByteView(bytes));
      need(put_manifest_.step() == SQLITE_DONE, "manifest");
      put_manifest_.reset();
    }
    need(commit_.step() == SQLITE_DONE, "commit");
    commit_.reset();
    index_->committed();
    since_checkpoint_ += ops.size();
    struct stat wal {};
    if (::stat(path_of("store_runs.db-wal").c_str(), &wal) == 0 && wal.st_size > (std::int64_t{16} << 20U) &&
        since_checkpoint_ >= 16'384) {
      since_checkpoint_ = 0;
      need(sqlite3_wal_checkpoint_v2(connection_.handle(), nullptr, SQLITE_CHECKPOINT_RESTART, nullptr, nullptr) ==
               SQLITE_OK,
           "checkpoint");
    }
  }

  std::size_t read(const std::vector<OpId>& ids) override {
    std::size_t count = 0;
    for (const OpId& id : ids) {
      const auto found = need(index_->find(id.loc(), id.view()));
      if (!found) continue;
      const Use use(data_);
      if (use->bind(1, found->stored_at).step() != SQLITE_ROW) continue;
      if (need(policy_->describe(use->blob(0))).op_id == id) ++count;
    }
    return count;
  }

  std::size_t slice(Timestamp start, Timestamp end) override {
    std::vector<OpId> found;
    const auto cursor = index_->scan(runs::Order::by_time, {0, 0, start.micros, INT64_MIN, {}});
    for (; !cursor->at_end() && cursor->entry().created_at < end.micros; cursor->next()) {
      found.emplace_back(cursor->entry().id);
    }
    return found.size();
  }

  std::string about() override {
    std::size_t extents = 0;
    for (const auto& run : index_->manifest().runs) extents += run.slots.size();
    char text[100];
    std::snprintf(text, sizeof(text), "%zu runs, %zu extents, opened in %.1f ms", index_->runs(), extents, open_ms_);
    return text;
  }

 private:
  const bool two_tables_;
  sqlite::GatherVfs vfs_;
  Connection connection_;
  Statement begin_, commit_, insert_, insert_data_, put_manifest_, data_;
  TableSlots table_;
  std::optional<FileSlots> file_;
  std::unique_ptr<runs::RunIndex> index_;
  const std::shared_ptr<const OpPolicy> policy_ = make_sha256_policy();
  std::int64_t clock_ = 1'800'000'000'000'000;
  std::size_t since_checkpoint_ = 0;
  double open_ms_ = 0;
};

std::unique_ptr<Engine> make_engine(const std::string& kind, bool two_tables) {
  if (kind == "raw") return std::make_unique<Raw>("store_runs.raw");
  if (kind == "tables") return std::make_unique<Shipped>(false);
  if (kind == "runs") return std::make_unique<Shipped>(true);
  if (kind == "slots") return std::make_unique<Runs>(true, two_tables);
  if (kind == "file") return std::make_unique<Runs>(false, two_tables);
  need(false, "unknown engine " + kind);
  return nullptr;
}

double ms_since(Clock::time_point began) {
  return std::chrono::duration<double, std::milli>(Clock::now() - began).count();
}

/// CPU seconds of this thread, which makes the ops and is not the store's.
double own_cpu_s() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

bool is_shipped(const std::string& kind) { return kind == "tables" || kind == "runs"; }

/// Opens what is there twice: as the process before has left it, and as this one does.
int open_again(const std::string& kind) {
  for (const char* after : {"a crash", "a clean stop"}) {
    const double cpu = bench::usage().cpu_s;
    const auto engine = make_engine(kind, false);
    std::printf("again, after %s: %s, %.0f ms CPU, anon %.0f MiB\n", after, engine->about().c_str(),
                (bench::usage().cpu_s - cpu) * 1000, static_cast<double>(bench::anonymous_bytes()) / 1048576);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[2]) == "again") return open_again(argv[1]);
  need(argc >= 3, "usage: store_runs raw|tables|runs|slots|file OPS [BATCH [random|rising [one|two]]]");
  const std::string kind = argv[1];
  const std::uint64_t total = std::strtoull(argv[2], nullptr, 10);
  const std::uint64_t batch = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 4096;
  const bool rising = argc > 4 && std::string(argv[4]) == "rising";
  const bool two_tables = argc > 5 && std::string(argv[5]) == "two";
  for (const char* name : {"store_runs.db", "store_runs.db-wal", "store_runs.db-shm", "store_runs.db-lock",
                           "store_runs.runs", "store_runs.raw", "store_runs.bare"}) {
    std::filesystem::remove(path_of(name));
  }
  auto engine = make_engine(kind, two_tables);
  const auto policy = make_sha256_policy();
  std::printf("%s %llu a call%s%s\n", kind.c_str(), static_cast<unsigned long long>(batch),
              rising ? ", created_at rising" : ", created_at random", two_tables ? ", two tables" : "");
  std::printf("%10s %9s %8s %10s %10s %11s %7s %9s %9s %9s %8s\n", "ops", "ops/s", "of bare", "CPU us/op", "x payload",
              "longest ms", "its CPU", "bare ms", "p99 ms", "256 ids", "slice");
  std::uint64_t stored = 0;
  double cpu = 0, wall_ms = 0;
  std::vector<double> commits;
  // The same bytes appended and flushed beside it, as often: what the disk takes for a commit at that time.
  Raw bare;
  double longest_bare = 0, bare_ms = 0, longest_cpu = 0;
  const char* const trace = std::getenv("K2_BENCH_TRACE_MS");
  const double trace_ms = trace != nullptr ? std::strtod(trace, nullptr) : 1e9;
  std::uint64_t written = written_bytes(), ops_before = 0, next_report = 100'000;
  bool third = true;
  double cpu_before = bench::usage().cpu_s;
  while (stored < total) {
    double own = own_cpu_s();
    std::vector<Bytes> ops;
    for (std::uint64_t i = 0; i < batch && stored + i < total; ++i) ops.push_back(op_of(stored + i, rising));
    cpu -= own_cpu_s() - own;
    const auto began = Clock::now();
    const double call_cpu = bench::usage().cpu_s - own_cpu_s();
    engine->store(ops);
    commits.push_back(ms_since(began));
    longest_cpu = std::max(longest_cpu, bench::usage().cpu_s - own_cpu_s() - call_cpu);
    if (commits.back() > trace_ms) {
      const auto at = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
      std::fprintf(stderr, "%.6f a call at %llu ops took %.1f ms\n", at, static_cast<unsigned long long>(stored),
                   commits.back());
    }
    wall_ms += commits.back();
    stored += ops.size();
    own = own_cpu_s();
    const auto bare_began = Clock::now();
    bare.store(ops);
    longest_bare = std::max(longest_bare, ms_since(bare_began));
    bare_ms += ms_since(bare_began);
    cpu -= own_cpu_s() - own;
    if (stored < next_report && stored < total) continue;
    cpu += bench::usage().cpu_s - cpu_before;
    // Of the stretch since the last line.
    const auto now_written = written_bytes() - (stored - ops_before) * kOpBytes;
    const auto n = static_cast<double>(stored - ops_before);
    std::sort(commits.begin(), commits.end());
    std::mt19937_64 random(stored);
    double best_read = 1e9, best_slice = 1e9;
    if (kind != "raw") {
      for (int round = 0; round < 5; ++round) {
        std::vector<OpId> ids;
        for (int i = 0; i < 256; ++i) ids.push_back(need(policy->describe(op_of(random() % stored, rising))).op_id);
        auto at = Clock::now();
        std::size_t got = engine->read(ids);
        // Twice: the second time it is warm.
        at = Clock::now();
        got = engine->read(ids);
        best_read = std::min(best_read, ms_since(at));
        need(got > 250, "ops are missing");
        const auto first = need(policy->describe(op_of(rising ? stored / 2 : 7, rising))).created_at;
        const double share = 10'000.0 / static_cast<double>(stored);
        const auto width = static_cast<std::int64_t>(rising ? 10'000 * 9e6 : share * 3 * 365 * 86'400e6);
        at = Clock::now();
        engine->slice(first, Timestamp{first.micros + width});
        best_slice = std::min(best_slice, ms_since(at));
      }
    }
    std::printf("%10llu %9.0f %8.2f %10.2f %10.2f %11.1f %7.1f %9.1f %9.1f %9.2f %8.2f  anon %.0f MiB  %s\n",
                static_cast<unsigned long long>(stored), n / wall_ms * 1000, bare_ms / wall_ms, cpu / n * 1e6,
                static_cast<double>(now_written - written) / (n * kOpBytes), commits.back(), longest_cpu * 1000,
                longest_bare, commits[commits.size() * 99 / 100], best_read, best_slice,
                static_cast<double>(bench::anonymous_bytes()) / 1048576, engine->about().c_str());
    std::fflush(stdout);
    cpu = wall_ms = longest_bare = bare_ms = longest_cpu = 0;
    commits.clear();
    written = written_bytes();
    ops_before = stored;
    next_report = third ? next_report * 3 : next_report / 3 * 10;
    third = !third;
    cpu_before = bench::usage().cpu_s;
  }
  if (is_shipped(kind)) {
    std::fflush(stdout);
    ::execl("/proc/self/exe", argv[0], kind.c_str(), "again", static_cast<char*>(nullptr));
    need(false, "cannot start again");
  }
  if (kind == "slots" || kind == "file") {
    engine.reset();
    engine = make_engine(kind, two_tables);
    std::printf("again: %s\n", engine->about().c_str());
  }
  return 0;
}
