// While the index of a durable op store is made from the rows, piece by piece, because it was damaged or because the
// store is converted from version 1: it answers as if it were complete.
#include <algorithm>
#include <atomic>
#include <random>
#include <set>

#include "log/log.hpp"
#include "sqlite_store_fixture.hpp"
#include "store/sqlite/op_schema.hpp"
#include "store/sqlite/runs_check.hpp"

namespace kitsune2::testing {
namespace {

namespace fs = std::filesystem;

struct Held {
  OpId op_id;
  Timestamp created_at;
  Bytes data;
};

/// What this thread, and the stores that it opens, log while it exists.
class LogLines {
 public:
  /// How many lines have this part.
  std::size_t count(std::string_view part) const {
    return static_cast<std::size_t>(std::count_if(
        lines_.begin(), lines_.end(), [&](const std::string& line) { return line.find(part) != std::string::npos; }));
  }
  bool has(std::string_view part) const { return count(part) > 0; }
  /// To be called before the others, where other threads log, too.
  void close() { logger_->close(); }

 private:
  std::vector<std::string> lines_;
  const std::shared_ptr<log::Logger> logger_ = std::make_shared<log::Logger>(
      LogOptions{.callback = [this](const LogLine& line) { lines_.emplace_back(line.text); }, .level = LogLevel::info});
  const log::Scope scope_{logger_};
};

class SqliteAnewTest : public SqliteOpStoreTest {
 protected:
  /// With an envelope, so that it has a time.
  Held next() {
    std::string op = "k2op\x01";
    const auto created = static_cast<std::uint64_t>(random_() % 1'000);
    for (int shift = 56; shift >= 0; shift -= 8) op.push_back(static_cast<char>(created >> shift));
    op += std::to_string(++number_) + std::string(1 + random_() % 60, 'x');
    if (random_() % 20 == 0) op.resize(sqlite::kMostBytesInRow + 1 + random_() % 2'000, 'y');
    auto described = policy_->describe(as_bytes(op)).value();
    return {std::move(described.op_id), described.created_at, Bytes::copy_of(op)};
  }
  /// In one transaction. Those that are held already are not stored again.
  void store(sqlite::OpWriter& writer, const std::vector<Held>& ops) {
    ASSERT_TRUE(writer.begin());
    std::vector<OpId> ids;
    for (const Held& op : ops) ids.push_back(op.op_id);
    if (random_() % 2 == 0) {
      ASSERT_TRUE(writer.expect(ids));
    }
    for (const Held& op : ops) {
      const bool is_new =
          std::none_of(held_.begin(), held_.end(), [&](const Held& held) { return held.op_id == op.op_id; });
      ProcessedOps out;
      std::vector<OpRecord> records;
      ASSERT_TRUE(writer.store({op.op_id, op.created_at}, op.data, w_.runtime().wall_now(), out, records));
      EXPECT_EQ(out.newly_stored.size(), is_new ? 1U : 0U);
      if (is_new) held_.push_back(op);
    }
    ASSERT_TRUE(writer.commit());
  }
  void store_some(sqlite::OpWriter& writer, std::size_t count) {
    std::vector<Held> ops;
    for (std::size_t i = 0; i < count; ++i) ops.push_back(next());
    if (!held_.empty()) ops.push_back(held_[random_() % held_.size()]);
    ops.push_back(ops.front());
    store(writer, ops);
  }
  /// Every kind of query, against what is held.
  void compare(const std::string& path) {
    auto reader = open_reader(path);
    compare(reader);
  }
  sqlite::OpReader open_reader(const std::string& path) {
    return sqlite::OpReader::open(path, true, nullptr, policy_.get(), {kSmallRuns}).value();
  }
  void compare(sqlite::OpReader& reader) {
    std::vector<OpId> ids;
    for (const Held& op : held_) ids.push_back(op.op_id);
    const OpId unknown = next().op_id;
    ids.push_back(unknown);
    std::vector<OpId> lacking = ids;
    ASSERT_TRUE(reader.filter_out_existing_ops(lacking));
    EXPECT_EQ(lacking, (std::vector<OpId>{unknown}));
    EXPECT_EQ(reader.filter_out_intact_ops(ids).value(), (std::vector<OpId>{unknown}));
    const auto given = reader.retrieve_ops(ids, UINT64_MAX).value();
    ASSERT_EQ(given.size(), held_.size());
    for (std::size_t i = 0; i < held_.size(); ++i) EXPECT_EQ(given[i], (MetaOp{held_[i].op_id, held_[i].data}));
    EXPECT_TRUE(reader.take_suspects().empty());
    const auto from = static_cast<std::uint32_t>(random_());
    for (const DhtArc& arc : {DhtArc::full(), DhtArc(from, from + (1U << 28U)), DhtArc(from, from + (3U << 30U))}) {
      const Timestamp start{static_cast<std::int64_t>(random_() % 500)};
      const Timestamp end{start.micros + static_cast<std::int64_t>(random_() % 700)};
      std::vector<StoredOp> in_slice;
      std::optional<Timestamp> earliest;
      std::vector<OpId> in_arc;
      for (const Held& op : held_) {
        if (!arc.contains(op.op_id.loc())) continue;
        in_arc.push_back(op.op_id);
        earliest = std::min(earliest.value_or(op.created_at), op.created_at);
        if (op.created_at >= start && op.created_at < end) in_slice.push_back({op.created_at, op.op_id});
      }
      std::sort(in_slice.begin(), in_slice.end());
      std::vector<OpId> slice, listed;
      for (const StoredOp& op : in_slice) slice.push_back(op.op_id);
      EXPECT_EQ(reader.op_hashes_in_time_slice(arc, start, end)->op_ids, slice);
      EXPECT_EQ(reader.earliest_timestamp_in_arc(arc).value(), earliest);
      EXPECT_EQ(reader.op_ids_bounded({.arc = arc, .start = Timestamp{0}, .limit_bytes = UINT32_MAX})->op_ids, in_arc);
      OpListQuery query{.arc = arc, .start = start, .end = end, .limit = 1 + random_() % 9};
      do {
        const auto page = reader.list_ops(query).value();
        for (const auto& op : page.ops) listed.push_back(op.op_id);
        query.after = page.next;
      } while (query.after);
      std::sort(listed.begin(), listed.end());
      std::sort(slice.begin(), slice.end());
      EXPECT_EQ(listed, slice);
    }
    EXPECT_EQ(reader.stats()->ops, held_.size());
  }
  /// Until all runs that there can be are there.
  void finish_runs() {
    auto writer = open_writer().value();
    while (writer.wants_merging()) ASSERT_TRUE(writer.merge());
  }
  std::int64_t number(const std::string& query) {
    auto db = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only);
    return db->number(query.c_str()).value();
  }
  /// As it is in the file.
  runs::Manifest manifest() {
    auto db = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only).value();
    auto select = db.prepare("SELECT data FROM manifest").value();
    const sqlite::Use use(select);
    EXPECT_EQ(use->step(), SQLITE_ROW);
    return runs::Manifest::decode(use->blob(0), 1U << 20U).value();
  }
  /// Of each run by time the first block, which neither opening nor a look-up of an id reads.
  void damage_runs_by_time() {
    std::string slots;
    for (const runs::RunInfo& run : manifest().runs) {
      if (run.order == runs::Order::by_time) slots += "," + std::to_string(run.slots.at(0).first);
    }
    ASSERT_FALSE(slots.empty());
    sql("UPDATE slot SET data=zeroblob(16344) WHERE n IN (" + slots.substr(1) + ")");
  }
  /// The page of the table of ops in which this one is. It must not be the first one, of which the root has remains.
  void damage_row_page(const MetaOp& op) {
    std::string file = read_file(path_);
    const std::string bytes(as_text(op.op_data.view()));
    const auto at = file.find(bytes);
    ASSERT_NE(at, std::string::npos);
    ASSERT_EQ(file.find(bytes, at + 1), std::string::npos);
    file[at / 16'384 * 16'384] = '\xff';
    write_file(path_, file);
  }
  /// An index that has some of 1,000 ops, when a page of the other ones goes bad.
  void break_off_at_a_bad_page() {
    fill(1, 1'000);
    sql("DELETE FROM manifest");
    {
      auto writer = open_writer().value();
      for (int i = 0; i < 10; ++i) ASSERT_TRUE(writer.catch_up());
      ASSERT_GT(writer.progress().ops, 200U);
      ASSERT_TRUE(writer.is_behind());
    }
    damage_row_page(make_ops(*make_prefix_policy(), 1, 1'000).at(900));
  }
  /// What a process leaves that is killed now.
  std::string image() {
    const std::string path = dir_ / "killed.db";
    for (const char* part : {"", "-wal", "-shm"}) {
      fs::remove(path + part);
      if (part != std::string("-shm") && fs::exists(path_ + part)) fs::copy_file(path_ + part, path + part);
    }
    return path;
  }

  void expect_intact(const std::string& path) {
    const auto report = check_sqlite_op_store(path, *policy_);
    ASSERT_TRUE(report) << report.error().to_string();
    EXPECT_TRUE(report->is_intact()) << (report->faults.empty() ? "" : report->faults[0].what);
    EXPECT_EQ(report->ops, held_.size());
  }
  /// In version 1, for version 2.
  Result<sqlite::OpWriter> open_old() {
    return sqlite::OpWriter::open(
        path_, {.policy = policy_.get(), .for_new = &sqlite::kTablesFormat, .merge_rules = kSmallRuns});
  }
  void bind(sqlite::OpWriter& writer) { ASSERT_TRUE(writer.bind_to(test_space(), policy_->name())); }
  /// The bytes of one are damaged, a repair drops it, and it is stored again.
  void drop_one(sqlite::OpWriter& writer) {
    const std::size_t which = random_() % held_.size();
    const Held op = held_[which];
    const std::string at = "(SELECT stored_at FROM op WHERE id=x'" + to_hex(op.op_id.view()) + "')";
    const auto stored_at =
        sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only)->number("SELECT * FROM " + at).value();
    sql("UPDATE op_data SET data=x'00' WHERE stored_at=" + at);
    if (sqlite::has_runs(writer.version())) sql("UPDATE op SET data=x'00' WHERE data NOT NULL AND stored_at=" + at);
    ASSERT_TRUE(writer.begin());
    const auto found = writer.examine({{stored_at, op.op_id}}, *policy_);
    ASSERT_TRUE(found) << found.error().to_string();
    EXPECT_EQ(found->dropped.size(), 1U);
    ASSERT_TRUE(writer.commit());
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(which));
    if (random_() % 2 == 0) store(writer, {op});
  }
  /// Whether a program that knows version 1 only opens it.
  void expect_refused_by_old_program(int version) {
    auto connection = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only).value();
    expect_error(sqlite::open_format(connection, sqlite::kTablesFormat, false), Errc::unsupported,
                 "version " + std::to_string(version) + ", this program knows up to 1");
  }

  const std::shared_ptr<const OpPolicy> policy_ = make_sha256_policy();
  std::uint64_t number_ = 0;
  std::mt19937_64 random_{7};
  std::vector<Held> held_;  ///< in the order of storing
};

INSTANTIATE_TEST_SUITE_P(Versions, SqliteAnewTest, ::testing::Values(&sqlite::kRunsFormat), name_of_format);

TEST_P(SqliteAnewTest, ItAnswersAfterEachPieceAndAfterAKillThere) {
  ASSERT_TRUE(sqlite::create_file(path_));
  {
    auto writer = open_writer().value();
    for (int i = 0; i < 10; ++i) store_some(writer, 30);
  }
  sql("UPDATE slot SET data=zeroblob(16344) WHERE n=1");
  auto writer = open_writer().value();
  // A damaged block may be met only when it is merged or looked into.
  if (!writer.is_behind()) sql("DELETE FROM manifest");
  writer = open_writer().value();
  ASSERT_TRUE(writer.is_behind());
  std::size_t pieces = 0;
  for (; writer.is_behind(); ++pieces) {
    compare(path_);
    const auto before = writer.progress();
    EXPECT_LT(before.ops, before.of);
    if (pieces % 3 == 0) store_some(writer, 1 + random_() % 5);
    const std::string killed = image();
    auto other = sqlite::OpWriter::open(killed, {.merge_rules = kSmallRuns}).value();
    while (other.is_behind()) ASSERT_TRUE(other.catch_up());
    while (other.wants_merging()) ASSERT_TRUE(other.merge());
    compare(killed);
    ASSERT_TRUE(writer.catch_up());
    EXPECT_GE(writer.progress().ops, before.ops);
  }
  EXPECT_GT(pieces, 8U);
  EXPECT_EQ(writer.progress().ops, held_.size());
  store_some(writer, 20);
  compare(path_);
}

/// Without it the next start would read all rows, or would follow an old manifest into blocks that are written over.
TEST_P(SqliteAnewTest, AManifestIsWrittenWithTheTransactionThatChangesIt) {
  ASSERT_TRUE(sqlite::create_file(path_));
  auto writer = open_writer().value();
  for (int i = 0; i < 20; ++i) {
    store_some(writer, 30);
    const auto covered = std::to_string(manifest().covered);
    EXPECT_LE(number("SELECT count(*) FROM op WHERE stored_at>" + covered), 60) << i;
  }
  EXPECT_FALSE(manifest().runs.empty());
}

TEST_P(SqliteAnewTest, APieceThatIsRolledBackIsTakenAgain) {
  ASSERT_TRUE(sqlite::create_file(path_));
  {
    auto writer = open_writer().value();
    for (int i = 0; i < 5; ++i) store_some(writer, 30);
  }
  sql("DELETE FROM manifest");
  auto writer = open_writer().value();
  for (int i = 0; writer.is_behind(); ++i) {
    ASSERT_LT(i, 1'000);
    ASSERT_TRUE(writer.begin());
    ProcessedOps out;
    std::vector<OpRecord> records;
    const Held lost = next();
    ASSERT_TRUE(writer.store({lost.op_id, lost.created_at}, lost.data, Timestamp{1}, out, records));
    writer.roll_back();
    compare(path_);
    ASSERT_TRUE(writer.catch_up());
  }
  compare(path_);
}

/// Through the store: the calls go on, and its log says what is done.
TEST_P(SqliteAnewTest, CallsGoOnAndTheLogHasItsProgress) {
  LogLines log;
  fill(1, 500);
  sql("UPDATE slot SET data=zeroblob(16344)");
  const auto store = open().value();
  const auto ops = make_ops(store->policy(), 1, 600, 64);
  EXPECT_EQ(w_.process(*store, payloads_of(ops))->newly_stored.size(), 100U);
  EXPECT_EQ(w_.retrieve(*store, ids_of(ops)).value(), ops);
  store->close();
  log.close();
  EXPECT_TRUE(log.has("the index of its ops is made from the ops: begins, 0 of "));
  const auto again = open().value();
  EXPECT_EQ(w_.retrieve(*again, ids_of(ops)).value(), ops);
}

// ------------------------------------------------------------------- conversion

TEST_P(SqliteAnewTest, AnOldStoreIsConvertedAndAnswersAfterEachPieceAndAfterAKillThere) {
  ASSERT_TRUE(sqlite::create_file(path_));
  auto writer = open_old().value();
  bind(writer);
  for (int i = 0; i < 10; ++i) store_some(writer, 30);
  auto live = open_reader(path_);
  std::set<int> versions;
  for (int piece = 0; writer.version() != 2; ++piece) {
    SCOPED_TRACE(piece);
    versions.insert(writer.version());
    compare(path_);
    compare(live);
    if (piece % 3 == 0) store_some(writer, 1 + random_() % 5);
    if (piece % 3 == 1) drop_one(writer);
    expect_intact(path_);
    if (writer.version() > 1) expect_refused_by_old_program(writer.version());
    const std::string killed = image();
    {
      auto other = sqlite::OpWriter::open(killed, {.policy = policy_.get(), .merge_rules = kSmallRuns}).value();
      while (other.version() != 2) ASSERT_TRUE(other.convert());
      compare(killed);
      expect_intact(killed);
      while (other.wants_merging()) ASSERT_TRUE(other.merge());
    }
    expect_intact(killed);
    const auto converted = writer.convert();
    ASSERT_TRUE(converted) << converted.error().to_string();
  }
  EXPECT_EQ(versions, (std::set<int>{1, 3, 4}));
  expect_refused_by_old_program(2);
  compare(path_);
  compare(live);
  store_some(writer, 40);
  drop_one(writer);
  compare(path_);
  compare(live);
  expect_intact(path_);
}

TEST_P(SqliteAnewTest, APieceOfAConversionThatIsRolledBackIsTakenAgain) {
  ASSERT_TRUE(sqlite::create_file(path_));
  auto writer = open_old().value();
  bind(writer);
  for (int i = 0; i < 5; ++i) store_some(writer, 30);
  for (int piece = 0; writer.version() != 2; ++piece) {
    ASSERT_TRUE(writer.begin());
    ProcessedOps out;
    std::vector<OpRecord> records;
    const Held lost = next();
    ASSERT_TRUE(writer.store({lost.op_id, lost.created_at}, lost.data, Timestamp{1}, out, records));
    writer.roll_back();
    compare(path_);
    // An entry that is wrong is corrected, as in version 2: what runs have of it counts no more.
    const Held& op = held_[random_() % held_.size()];
    sql("UPDATE op SET created_at=created_at+1 WHERE id=x'" + to_hex(op.op_id.view()) + "'");
    const auto stored_at = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only)
                               ->number("SELECT stored_at FROM op WHERE id=x'" + to_hex(op.op_id.view()) + "'")
                               .value();
    ASSERT_TRUE(writer.begin());
    const auto found = writer.examine({{stored_at, op.op_id}}, *policy_);
    ASSERT_TRUE(found) << found.error().to_string();
    EXPECT_EQ(found->mended, 1U);
    ASSERT_TRUE(writer.commit());
    if (writer.version() != 1) {
      const auto at = std::find_if(held_.begin(), held_.end(), [&](const Held& one) { return one.op_id == op.op_id; });
      std::rotate(at, at + 1, held_.end());
    }
    expect_intact(path_);
    ASSERT_TRUE(writer.convert());
  }
  compare(path_);
  expect_intact(path_);
}

/// Through the store, as an application has it.
TEST_P(SqliteAnewTest, AnOldStoreIsConvertedWhileItIsUsedOnceThereIsRoom) {
  LogLines log;
  auto environment = sqlite::real_environment();
  environment.merge_rules = kSmallRuns;
  std::atomic<std::uint64_t> free = 1'000;
  environment.free_bytes = [&](const std::string&) { return std::optional<std::uint64_t>(free); };
  const auto open_as_version = [&](bool in_runs) {
    SqliteOpStoreOptions options;
    options.index_in_runs = in_runs;
    return sqlite::open_op_store(environment, w_.runtime(), policy_, test_space(), path_, options).value();
  };
  const auto version = [&] {
    return sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only)->number("PRAGMA user_version").value();
  };
  const auto store_and_ask = [&](OpStore& store, std::uint64_t count) {
    const auto ops = make_ops(*policy_, 1, count, 64);
    EXPECT_TRUE(w_.process(store, payloads_of(ops)));
    EXPECT_EQ(w_.retrieve(store, ids_of(ops)).value(), ops);
    EXPECT_TRUE(w_.filter(store, ids_of(ops))->empty());
  };
  auto store = open_as_version(false);
  store_and_ask(*store, 400);
  store->close();
  EXPECT_EQ(version(), 1);
  store = open_as_version(true);
  store_and_ask(*store, 500);
  store->close();
  log.close();
  EXPECT_EQ(version(), 1);
  EXPECT_TRUE(log.has("it is converted to format 2 while it is used: it is not, since this may need"));
  free = 1U << 30U;
  store = open_as_version(true);
  for (std::uint64_t count = 600; version() != 2; count += 10) {
    store_and_ask(*store, count);
    if (count > 100'000) FAIL() << "it does not end";
  }
  store_and_ask(*store, 700);
  EXPECT_TRUE(check_sqlite_op_store(path_, *policy_)->is_intact());
  store->close();
  EXPECT_TRUE(check_sqlite_op_store(path_, *policy_)->is_intact());
}

/// An index is made anew from the rows only: one that has a bad block is better than none.
TEST_P(SqliteAnewTest, WhereRowsCannotBeReadTheDamagedIndexStays) {
  fill(1, 1'000);
  finish_runs();
  const auto policy = make_prefix_policy();
  const auto ops = make_ops(*policy, 1, 1'000);
  damage_row_page(ops[300]);
  damage_runs_by_time();
  for (std::uint64_t first : {2'001, 3'001}) {
    const auto store = open().value();
    expect_error(w_.slice(*store, DhtArc::full(), Timestamp{0}, Timestamp{1}), Errc::corrupt, "its sum is wrong");
    const auto more = make_ops(*policy, first, 10);
    EXPECT_EQ(w_.process(*store, payloads_of(more))->newly_stored, ids_of(more));
    EXPECT_EQ(w_.retrieve(*store, ids_of(more)).value(), more);
    EXPECT_EQ(w_.retrieve(*store, {ops[900].op_id}).value(), (std::vector<MetaOp>{ops[900]}));
    EXPECT_TRUE(w_.filter(*store, ids_of(ops))->empty());
    EXPECT_TRUE(w_.process(*store, payloads_of(ops))->newly_stored.empty());
  }
}

/// The same where it is the writer that meets the block.
TEST_P(SqliteAnewTest, WhereRowsCannotBeReadAWriterGoesOnWithTheDamagedIndex) {
  fill(1, 1'000);
  finish_runs();
  const auto ops = make_ops(*make_prefix_policy(), 1, 1'000);
  damage_row_page(ops[300]);
  sql("UPDATE slot SET data=zeroblob(16344) WHERE instr(data, x'" + to_hex(ops[500].op_id.view()) + "')>0");
  const auto manifest = number("SELECT length(data) FROM manifest");
  auto writer = open_writer().value();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(writer.begin());
    ProcessedOps out;
    std::vector<OpRecord> records;
    EXPECT_FALSE(writer.store({ops[500].op_id, Timestamp{0}}, ops[500].op_data, Timestamp{1}, out, records));
    writer.roll_back();
    ASSERT_TRUE(writer.begin());
    ASSERT_TRUE(writer.store_slice_hash(DhtArc::full(), 1, as_bytes("another write")));
    ASSERT_TRUE(writer.commit());
    EXPECT_FALSE(writer.is_behind());
  }
  EXPECT_EQ(number("SELECT length(data) FROM manifest"), manifest);
}

TEST_P(SqliteAnewTest, WhatTheIndexHasStaysWhenTheNextRowsCannotBeRead) {
  break_off_at_a_bad_page();
  auto writer = open_writer().value();
  const auto slots = number("SELECT count(*) FROM slot");
  Result<void> ok;
  for (int i = 0; ok && i < 1'000; ++i) {
    const auto before = writer.progress().ops;
    ok = writer.catch_up();
    EXPECT_GE(writer.progress().ops, before);
  }
  expect_error(ok, Errc::corrupt, path_);
  EXPECT_FALSE(writer.catch_up());
  EXPECT_GT(writer.progress().ops, 200U);
  EXPECT_GE(number("SELECT count(*) FROM slot"), slots);
}

/// Turns come on the strand, so that a test decides when. The store is never idle.
class BusyWorker final : public sqlite::Worker {
 public:
  BusyWorker(Runtime& runtime, Turn turn) : runtime_(runtime), turn_(std::move(turn)) { wake(); }
  ~BusyWorker() override {
    while (!ended_) take_turn();
  }
  void wake() override {
    runtime_.post(lifetime_.guard([this] {
      if (!ended_) take_turn();
    }));
  }

 private:
  void take_turn() {
    const Pause pause = turn_(false);
    ended_ = pause.wait == Wait::end;
    if (pause.wait == Wait::nothing) wake();
  }
  Runtime& runtime_;
  const Turn turn_;
  bool ended_ = false;
  Lifetime lifetime_;
};

TEST_P(SqliteAnewTest, AFailedPieceIsTriedAgainInAStoreThatIsNeverIdle) {
  break_off_at_a_bad_page();
  const LogLines log;
  const auto failures = [&] { return log.count("is tried again"); };
  const sqlite::Environment environment{.make_worker =
                                            [&](sqlite::Duty /*duty*/, sqlite::Worker::Turn turn) {
                                              return std::make_unique<BusyWorker>(w_.runtime(), std::move(turn));
                                            },
                                        .merge_rules = kSmallRuns};
  const auto store =
      sqlite::open_op_store(environment, w_.runtime(), make_prefix_policy(), test_space(), path_, {}).value();
  const auto write = [&](std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) {
      ASSERT_TRUE(w_.put_slice_hash(*store, DhtArc::full(), i, "another write"));
    }
  };
  while (failures() == 0) write(1);
  write(100);
  EXPECT_EQ(failures(), 1U);
  w_.set_now(Timestamp{w_.now().micros + 20'000'000});
  write(100);
  EXPECT_EQ(failures(), 2U);
  w_.set_now(Timestamp{w_.now().micros - 40'000'000});
  write(100);
  EXPECT_EQ(failures(), 3U);
}

/// Blocks that only merges read: no call fails, and the index is made anew.
TEST_P(SqliteAnewTest, DamageThatAMergeMeetsIsMended) {
  for (std::uint64_t i = 0; i < 10; ++i) fill(1 + 20 * i, 20);
  finish_runs();
  damage_runs_by_time();
  const auto policy = make_prefix_policy();
  {
    const auto store = open().value();
    for (std::uint64_t i = 0; i < 30; ++i) {
      const auto more = make_ops(*policy, 1'001 + 20 * i, 20);
      const auto out = w_.process(*store, payloads_of(more));
      ASSERT_TRUE(out) << out.error().to_string();
      EXPECT_EQ(out->newly_stored, ids_of(more));
    }
  }
  auto writer = open_writer().value();
  while (writer.is_behind()) ASSERT_TRUE(writer.catch_up());
  while (writer.wants_merging()) ASSERT_TRUE(writer.merge());
  const auto report = check_sqlite_op_store(path_, *policy).value();
  EXPECT_TRUE(report.is_intact());
  EXPECT_TRUE(report.index_was_compared);
  EXPECT_EQ(report.ops, 800U);
}

/// Each open request would be looked for in all rows.
TEST_P(SqliteAnewTest, RequestsAreTidiedOnlyWhenTheIndexIsComplete) {
  fill(1, 200);
  const auto policy = make_prefix_policy();
  const Url source = Url::parse("wss://relay.example:443/peer").value();
  {
    auto writer = open_writer().value();
    ASSERT_TRUE(writer.begin());
    ASSERT_TRUE(writer.add_pending(ids_of(make_ops(*policy, 1, 300)), source));
    ASSERT_TRUE(writer.commit());
  }
  sql("DELETE FROM manifest");
  auto writer = open_writer().value();
  while (writer.is_behind()) {
    EXPECT_FALSE(writer.wants_compaction());
    ASSERT_TRUE(writer.catch_up());
  }
  const auto bytes = writer.pending_bytes();
  for (int i = 0; writer.wants_compaction() && i < 100; ++i) ASSERT_TRUE(writer.compact_pending());
  EXPECT_LT(writer.pending_bytes(), bytes / 2);
}

/// Of many suspects each is looked for more than once.
TEST_P(SqliteAnewTest, SuspectsAreLookedForTogether) {
  fill(1, 200);
  sql("DELETE FROM manifest");
  auto reader_ids = ids_of(make_ops(*make_prefix_policy(), 1, 200));
  auto writer = open_writer().value();
  std::vector<sqlite::Suspect> suspects;
  for (const OpId& op_id : reader_ids) {
    suspects.push_back({number("SELECT stored_at FROM op WHERE id=x'" + to_hex(op_id.view()) + "'"), op_id});
  }
  ASSERT_TRUE(writer.is_behind());
  const auto passes = writer.row_passes();
  ASSERT_TRUE(writer.begin());
  const auto looked = writer.examine(suspects, *make_prefix_policy());
  ASSERT_TRUE(looked) << looked.error().to_string();
  ASSERT_TRUE(writer.commit());
  EXPECT_EQ(looked->dropped.size() + looked->mended, 0U);
  EXPECT_EQ(writer.row_passes(), passes + 1);
}

/// A row that is there twice, one of them with damaged bytes, and entries that are wrong.
TEST_P(SqliteAnewTest, SuspectsAreMendedWhileTheIndexIsBehind) {
  fill(1, 200);
  const auto policy = make_prefix_policy();
  const auto ops = make_ops(*policy, 1, 200);
  const auto id_of = [&](std::size_t i) { return "x'" + to_hex(ops[i].op_id.view()) + "'"; };
  const std::string copy = "INSERT INTO op SELECT (SELECT max(stored_at) FROM op)+1, loc, id, created_at, size, ";
  sql(copy + "x'00' FROM op WHERE id=" + id_of(10));
  sql(copy + "data FROM op WHERE id=" + id_of(20));
  sql("UPDATE op SET size=size+1 WHERE id=" + id_of(30));
  sql("UPDATE op SET loc=loc+1 WHERE id=" + id_of(40));
  sql("DELETE FROM manifest");
  const auto found = check_sqlite_op_store(path_, *policy).value();
  auto writer = open_writer().value();
  ASSERT_TRUE(writer.is_behind());
  std::vector<sqlite::Suspect> suspects;
  for (const std::size_t i : {10, 20, 30, 40}) {
    suspects.push_back({number("SELECT max(stored_at) FROM op WHERE id=" + id_of(i)), ops[i].op_id});
  }
  ASSERT_TRUE(writer.begin());
  const auto looked = writer.examine(suspects, *policy);
  ASSERT_TRUE(looked) << looked.error().to_string();
  ASSERT_TRUE(writer.commit());
  EXPECT_EQ(looked->dropped.size(), 1U);  // the copy with damaged bytes
  EXPECT_EQ(looked->mended, 3U);
  while (writer.is_behind()) ASSERT_TRUE(writer.catch_up());
  while (writer.wants_merging()) ASSERT_TRUE(writer.merge());
  const auto report = check_sqlite_op_store(path_, *policy).value();
  EXPECT_TRUE(report.is_intact()) << report.faults[0].what;
  EXPECT_EQ(report.ops, 200U);
}

/// In the middle of a check the owner may meet damage.
TEST_P(SqliteAnewTest, ACheckBesideAnIndexThatIsStartedAnewFindsNoFault) {
  fill(1, 500);
  finish_runs();
  std::optional<sqlite::OpWriter> owner;
  const auto policy = make_prefix_policy();
  const SqliteCheckOptions options{.on_progress = [&](const SqliteCheckProgress& /*so_far*/) {
    if (owner) return true;
    sql("DELETE FROM manifest");
    owner = open_writer().value();
    EXPECT_TRUE(owner->is_behind());
    return true;
  }};
  // The first progress comes after the first piece of the rows, which are all of them here.
  const auto report = sqlite::check_op_store(path_, *policy, options, kSmallRuns);
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_EQ(report->ops, 500U);
  EXPECT_TRUE(report->is_intact());
  EXPECT_FALSE(report->index_was_compared);
  while (owner->is_behind()) ASSERT_TRUE(owner->catch_up());
  EXPECT_TRUE(check_sqlite_op_store(path_, *policy)->index_was_compared);
}

}  // namespace
}  // namespace kitsune2::testing
