// Damage on the disk: what the durable store leaves out, drops and mends, what a check finds; what is kept of requests.
#include <atomic>
#include <new>
#include <set>

#include "sqlite_store_fixture.hpp"
#include "store/sqlite/runs_check.hpp"

namespace kitsune2::testing {
namespace {

namespace fs = std::filesystem;

// ------------------------------------------------------------------- damaged ops

class SqliteDamageTest : public SqliteOpStoreTest {
 protected:
  void stop() {
    token_.reset();
    store_.reset();
  }
  /// In version 2: until all runs that there can be are there.
  void finish_runs() {
    auto writer = open_writer().value();
    while (writer.wants_merging()) ASSERT_TRUE(writer.merge());
  }
  /// Opens it; what is damaged is noted.
  void start() {
    stop();
    damaged_.clear();
    store_ = open_as(make_sha256_policy()).value();
    token_ = store_->subscribe({.ops_damaged = [this](const std::vector<OpRecord>& ops) {
      for (const OpRecord& op : ops) damaged_.push_back(op.op_id);
    }});
  }
  std::vector<MetaOp> fill_with(std::size_t count, std::size_t size) {
    start();
    auto ops = make_ops(store_->policy(), 1, count, size);
    EXPECT_EQ(w_.process(*store_, payloads_of(ops))->newly_stored, ids_of(ops));
    stop();
    finish_runs();
    return ops;
  }
  /// The clause for one of the ops.
  static std::string of(const MetaOp& op) {
    return " WHERE stored_at=(SELECT stored_at FROM op WHERE id=x'" + to_hex(op.op_id.view()) + "')";
  }
  /// What the store has said when it has nothing more to do.
  const std::vector<OpId>& told() {
    EXPECT_TRUE(w_.put_slice_hash(*store_, DhtArc::full(), 1, "writes are done in order"));
    return damaged_;
  }
  OpStoreStats counts() { return w_.stats(*store_).value(); }
  SqliteCheckReport check() { return check_sqlite_op_store(path_, *make_sha256_policy()).value(); }

  /// Where in the file `whole` the id of an op is: in its row and in two indexes.
  std::vector<std::size_t> places_of(const MetaOp& op, const std::string& whole) const {
    // The root of the slots' tree has remains of when it was the only page.
    auto db = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only);
    const auto root = db->number("SELECT rootpage FROM sqlite_schema WHERE name='slot'").value();
    const std::string id(as_text(op.op_id.view()));
    std::vector<std::size_t> out;
    for (auto at = whole.find(id); at != std::string::npos; at = whole.find(id, at + 1)) {
      if (static_cast<std::int64_t>(at / 16'384) + 1 != root) out.push_back(at);
    }
    EXPECT_EQ(out.size(), 3U);
    return out;
  }

  std::shared_ptr<OpStore> store_;
  std::shared_ptr<void> token_;
  std::vector<OpId> damaged_;
};

INSTANTIATE_TEST_SUITE_P(Versions, SqliteDamageTest,
                         ::testing::Values(&sqlite::kTablesFormat, &sqlite::kRunsFormat, &sqlite::kLargeFormat),
                         name_of_format);

TEST_P(SqliteDamageTest, BytesThatAreNotTheIdsAreLeftOutDroppedAndToldOf) {
  for (const std::size_t size : {100U, 70'000U}) {
    for (const auto damage : {Spoil::zeros, Spoil::one_byte, Spoil::number, Spoil::longer}) {
      SCOPED_TRACE(std::to_string(static_cast<int>(damage)) + " " + std::to_string(size));
      stop();
      fs::remove(path_);
      const auto ops = fill_with(5, size);
      spoil(size, damage, of(ops[2]));
      start();
      EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), (std::vector<MetaOp>{ops[0], ops[1], ops[3], ops[4]}));
      EXPECT_EQ(told(), (std::vector<OpId>{ops[2].op_id}));
      EXPECT_EQ(w_.filter(*store_, ids_of(ops)).value(), (std::vector<OpId>{ops[2].op_id}));
      EXPECT_EQ(counts().ops, 4U);
      EXPECT_EQ(counts().bytes, 4 * size);
      EXPECT_EQ(counts().damaged, 1U);
      // It is taken like a new one.
      EXPECT_EQ(w_.process(*store_, {ops[2].op_data})->newly_stored, (std::vector<OpId>{ops[2].op_id}));
      EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), ops);
      EXPECT_EQ(told().size(), 1U);
      EXPECT_TRUE(check().is_intact());
    }
  }
}

TEST_P(SqliteDamageTest, AnOpWithoutDataAndDataWithoutAnOp) {
  const auto ops = fill_with(3, 64);
  sql((has_runs() ? "UPDATE op SET data=NULL" : "DELETE FROM op_data") + of(ops[1]));
  sql("INSERT INTO op_data VALUES(77, x'00')");
  const auto report = check();
  EXPECT_EQ(report.lost, 1U);
  EXPECT_EQ(report.wrong_entries, 1U);
  start();
  EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), (std::vector<MetaOp>{ops[0], ops[2]}));
  EXPECT_EQ(told(), (std::vector<OpId>{ops[1].op_id}));
}

TEST_P(SqliteDamageTest, ARequestForDamagedOpsOnlyGoesOnToTheNextOnes) {
  const auto ops = fill_with(4, 1'000);
  sql("UPDATE " + table_of_bytes(100) + " SET data=x'00'" + of(ops[0]));
  sql("UPDATE op SET size=900000" + of(ops[1]));
  sql("UPDATE " + table_of_bytes(100) + " SET data=x'00'" + of(ops[1]));
  start();
  EXPECT_EQ(w_.retrieve(*store_, ids_of(ops), 1'000).value(), (std::vector<MetaOp>{ops[2]}))
      << "nothing at all would mean that nothing is held";
  EXPECT_EQ(told().size(), 2U);
}

TEST_P(SqliteDamageTest, AnEntryWithAWrongNumberFailsNothingAndIsMended) {
  for (const char* damage : {"size=-1", "size=1<<31", "size=65", "size=70000", "created_at=7", "loc=loc+1", "loc=5"}) {
    SCOPED_TRACE(damage);
    stop();
    fs::remove(path_);
    const auto ops = fill_with(5, 64);
    sql("UPDATE op SET " + std::string(damage) + of(ops[2]));
    EXPECT_EQ(check().wrong_entries, 1U);
    EXPECT_EQ(check().lost, 0U);
    start();
    // What is asked by place, time or time of storing leaves it out at most.
    for (const DhtArc& arc : {DhtArc::full(), DhtArc(0, 1U << 31), DhtArc(5, 5)}) {
      EXPECT_TRUE(w_.slice(*store_, arc, Timestamp{0}, Timestamp::max()));
      EXPECT_TRUE(w_.bounded(*store_, arc, Timestamp{0}));
      EXPECT_TRUE(w_.list(*store_, {.arc = arc}));
    }
    OpSumsQuery sums{.ranges = {{Timestamp{0}, Timestamp{10}}}};
    sums.sectors.set();
    EXPECT_TRUE(w_.sums(*store_, sums));
    const auto out = w_.retrieve(*store_, ids_of(ops)).value();
    told();
    EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), ops) << "the bytes are right";
    EXPECT_GE(out.size(), 4U);
    EXPECT_TRUE(told().empty());
    EXPECT_EQ(counts().mended, 1U);
    EXPECT_EQ(counts().ops, 5U);
    EXPECT_TRUE(check().is_intact());
    EXPECT_EQ(w_.slice(*store_, DhtArc::full(), Timestamp{0}, Timestamp{1})->op_ids.size(), 5U);
  }
}

TEST_P(SqliteDamageTest, AnotherIdInAnEntryIsFoundByItsPlace) {
  const auto ops = fill_with(3, 64);
  sql("UPDATE op SET id=x'" + std::string(64, 'a') + "'" + of(ops[1]));
  EXPECT_EQ(check().lost, 1U);
  start();
  EXPECT_EQ(w_.bounded(*store_, DhtArc::full(), Timestamp{0})->op_ids, (std::vector<OpId>{ops[0].op_id, ops[2].op_id}));
  EXPECT_EQ(told().size(), 1U);
  EXPECT_EQ(counts().ops, 2U);
  EXPECT_EQ(w_.process(*store_, payloads_of(ops))->newly_stored, (std::vector<OpId>{ops[1].op_id}));
}

/// Bits of the file itself, where index and table do not agree any more.
TEST_P(SqliteDamageTest, ABitInAnIndexIsMendedByMakingItAnew) {
  const auto ops = fill_with(40, 64);
  const std::string whole = read_file(path_);
  for (const std::size_t at : places_of(ops[20], whole)) {
    SCOPED_TRACE(at);
    std::string file = whole;
    file[at + 8] = static_cast<char>(file[at + 8] ^ 4);
    stop();
    write_file(path_, file);
    EXPECT_FALSE(check().is_intact());
    start();
    // Whatever of it is met first.
    EXPECT_TRUE(w_.slice(*store_, DhtArc::full(), Timestamp{0}, Timestamp{1}));
    EXPECT_TRUE(w_.bounded(*store_, DhtArc::full(), Timestamp{0}));
    EXPECT_TRUE(w_.slice(*store_, DhtArc(ops[20].op_id.loc(), ops[20].op_id.loc()), Timestamp{0}, Timestamp{1}));
    told();
    EXPECT_TRUE(w_.process(*store_, payloads_of(ops)));
    EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), ops);
    told();
    const auto report = check();
    EXPECT_TRUE(report.is_intact()) << report.lost << " " << report.wrong_entries << " " << report.totals_agree
                                    << (report.faults.empty() ? "" : report.faults[0].what);
  }
}

TEST_P(SqliteDamageTest, IndexesAreMadeAnewAgainWhenThatWasRolledBack) {
  const auto ops = fill_with(40, 64);
  const std::string whole = read_file(path_);
  const auto stored_at = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only)
                             ->number(("SELECT stored_at FROM op" + of(ops[20])).c_str())
                             .value();
  for (const std::size_t at : places_of(ops[20], whole)) {
    SCOPED_TRACE(at);
    std::string file = whole;
    file[at + 8] = static_cast<char>(file[at + 8] ^ 4);
    stop();
    write_file(path_, file);
    auto writer = open_writer().value();
    for (const bool is_kept : {false, true}) {
      ASSERT_TRUE(writer.begin());
      const auto looked = writer.examine({{stored_at, ops[20].op_id}}, *make_sha256_policy());
      ASSERT_TRUE(looked) << looked.error().to_string();
      EXPECT_GE(looked->dropped.size() + looked->mended, 1U);
      if (is_kept) {
        ASSERT_TRUE(writer.commit());
      } else {
        writer.roll_back();
      }
    }
    EXPECT_TRUE(check().is_intact());
  }
}

/// Otherwise it would count as dropped as soon as the store is opened again.
TEST_P(SqliteDamageTest, NoOpGetsTheTimeOfOneThatWasDropped) {
  w_.set_now(Timestamp::from_seconds(2'000'000'000));
  const auto ops = fill_with(3, 64);
  sql("UPDATE " + table_of_bytes(64) + " SET data=x'00'" + of(ops[2]));
  start();
  EXPECT_EQ(w_.retrieve(*store_, ids_of(ops))->size(), 2U);
  EXPECT_EQ(told().size(), 1U);
  w_.set_now(Timestamp::from_seconds(1'000'000'000));
  start();
  EXPECT_EQ(w_.process(*store_, {ops[2].op_data})->newly_stored, (std::vector<OpId>{ops[2].op_id}));
  start();
  EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), ops);
  stop();
  EXPECT_TRUE(check().is_intact());
}

TEST_P(SqliteDamageTest, RunsThatCannotBeReadAreMadeAnewFromTheRows) {
  if (!has_runs()) GTEST_SKIP() << "there are none";
  const auto ops = fill_with(40, 64);
  const std::string whole = read_file(path_);
  for (const char* damage :
       {"UPDATE slot SET data=zeroblob(16344)", "UPDATE slot SET data=zeroblob(16344) WHERE n=0",
        "UPDATE slot SET data=zeroblob(16344) WHERE n=(SELECT max(n) FROM slot)", "UPDATE slot SET data=x'00'",
        "DELETE FROM slot", "DELETE FROM manifest", "UPDATE manifest SET data=x'00'"}) {
    SCOPED_TRACE(damage);
    stop();
    write_file(path_, whole);
    sql(damage);
    EXPECT_FALSE(check().is_intact());
    start();
    EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), ops);
    EXPECT_EQ(w_.slice(*store_, DhtArc::full(), Timestamp{0}, Timestamp{1})->op_ids.size(), 40U);
    EXPECT_TRUE(w_.process(*store_, payloads_of(ops))->newly_stored.empty());
    EXPECT_TRUE(told().empty());
    stop();
    finish_runs();
    EXPECT_TRUE(check().is_intact());
    start();
    EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), ops);
  }
}

TEST_P(SqliteDamageTest, EveryBitOfAnOpIsLookedAt) {
  const auto ops = fill_with(3, 96);
  const std::string whole = read_file(path_);
  const auto at = whole.find(std::string(as_text(ops[1].op_data.view())));
  ASSERT_NE(at, std::string::npos);
  for (std::size_t bit = 0; bit < 96 * 8; bit += 61) {
    std::string file = whole;
    file[at + bit / 8] = static_cast<char>(file[at + bit / 8] ^ (1 << bit % 8));
    stop();
    write_file(path_, file);
    EXPECT_EQ(check().lost, 1U);
    start();
    EXPECT_EQ(w_.filter_intact(*store_, ids_of(ops)).value(), (std::vector<OpId>{ops[1].op_id}));
    // In the order of the calls: it is dropped before it is stored.
    EXPECT_EQ(w_.process(*store_, payloads_of(ops))->newly_stored, (std::vector<OpId>{ops[1].op_id}));
    EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), ops);
    stop();
    EXPECT_TRUE(check().is_intact());
  }
}

/// The ops are known to be intact from storing, or from the first read: what happens later is found all the same.
TEST_P(SqliteDamageTest, DamageThatComesWhileTheStoreIsOpenIsFound) {
  for (const std::size_t size : {100U, 600U, 300'000U}) {
    SCOPED_TRACE(size);
    stop();
    fs::remove(path_);
    start();
    const auto ops = make_ops(store_->policy(), 1, 3, size);
    ASSERT_TRUE(w_.process(*store_, payloads_of(ops)));
    for (int i = 0; i < 2; ++i) EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), ops);
    spoil(size, Spoil::zeros, of(ops[1]));
    EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), (std::vector<MetaOp>{ops[0], ops[2]}));
    EXPECT_EQ(told(), (std::vector<OpId>{ops[1].op_id}));
  }
}

TEST(Fingerprint, EveryBitCounts) {
  const OpId id = id_at(5);
  for (const std::size_t size : {0U, 1U, 7U, 8U, 9U, 63U, 64U, 65U, 127U, 600U}) {
    std::vector<std::uint8_t> bytes(size, 0);
    const auto print = [&] { return sqlite::fingerprint(id.view(), Timestamp{7}, bytes); };
    std::set<std::uint64_t> seen{print()};
    for (std::size_t bit = 0; bit < 8 * size; ++bit) {
      bytes[bit / 8] = static_cast<std::uint8_t>(bytes[bit / 8] ^ (1U << bit % 8));
      EXPECT_TRUE(seen.insert(print()).second) << size << " " << bit;
      bytes[bit / 8] = 0;
    }
    EXPECT_TRUE(seen.insert(sqlite::fingerprint(id.view(), Timestamp{8}, bytes)).second);
    EXPECT_TRUE(seen.insert(sqlite::fingerprint(id_at(6).view(), Timestamp{7}, bytes)).second);
    bytes.push_back(0);
    EXPECT_TRUE(seen.insert(print()).second) << "a length";
  }
}

TEST_P(SqliteDamageTest, AStoreThatIsOnlyReadLeavesDamagedOpsOutAndTheFileAsItIs) {
  const auto ops = fill_with(3, 64);
  sql("UPDATE " + table_of_bytes(100) + " SET data=x'00'" + of(ops[1]));
  const std::string before = read_file(path_);
  SqliteOpStoreOptions options;
  options.read_only = true;
  const auto store = open_as(make_sha256_policy(), options).value();
  EXPECT_EQ(w_.retrieve(*store, ids_of(ops))->size(), 2U);
  EXPECT_EQ(w_.stats(*store)->ops, 3U);
  EXPECT_EQ(read_file(path_), before);
}

TEST_P(SqliteDamageTest, ADroppedOpThatWasReportedStoredCanBeRequestedAgain) {
  const auto ops = fill_with(3, 64);
  sql("UPDATE " + table_of_bytes(100) + " SET data=x'00'" + of(ops[1]));
  start();
  EXPECT_TRUE(w_.add_pending(*store_, ids_of(ops), peer_url(1)));
  EXPECT_TRUE(w_.pending(*store_).empty()) << "held";
  EXPECT_EQ(w_.retrieve(*store_, ids_of(ops))->size(), 2U);
  told();
  EXPECT_EQ(w_.pending(*store_), (StoreWorld::Pending{{peer_url(1), {ops[1].op_id}}}));
}

TEST_P(SqliteDamageTest, AStoreIsClosedWhileAReadFindsDamage) {
  const auto ops = fill_with(20, 64);
  for (int round = 0; round < 20; ++round) {
    sql("UPDATE " + table_of_bytes(100) + " SET data=x'00'" + of(ops[19]));
    start();
    for (const MetaOp& op : ops) store_->retrieve_ops({op.op_id, ops[19].op_id}, 1 << 20, [](const auto&) {});
    store_->close();
    start();
    told();
    EXPECT_TRUE(w_.process(*store_, payloads_of(ops)));
    stop();
  }
}

/// Of SHA-256, but it throws when it is told to.
class ThrowingPolicy final : public OpPolicy {
 public:
  std::string_view name() const override { return sha256_->name(); }
  Result<OpDescription> describe(ByteView op) const override {
    if (throws) throw std::bad_alloc();
    return sha256_->describe(op);
  }
  std::uint32_t location(ByteView op_id) const noexcept override { return sha256_->location(op_id); }

  std::atomic<bool> throws = false;

 private:
  const std::shared_ptr<const OpPolicy> sha256_ = make_sha256_policy();
};

TEST_P(SqliteDamageTest, AnOpThatThePolicyCannotJudgeStays) {
  const auto ops = fill_with(3, 100);
  const auto throwing = std::make_shared<ThrowingPolicy>();
  throwing->throws = true;
  for (const std::shared_ptr<const OpPolicy>& policy :
       {std::shared_ptr<const OpPolicy>(throwing), make_sha256_policy(50)}) {
    {
      const auto store = open_as(policy).value();
      EXPECT_TRUE(w_.retrieve(*store, ids_of(ops))->empty());
      EXPECT_TRUE(w_.put_slice_hash(*store, DhtArc::full(), 1, "writes are done in order"));
      EXPECT_EQ(w_.stats(*store)->ops, 3U);
      EXPECT_EQ(w_.stats(*store)->damaged, 0U);
    }
    auto writer = open_writer().value();
    ASSERT_TRUE(writer.begin());
    std::vector<sqlite::Suspect> suspects;
    auto db = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only);
    for (const MetaOp& op : ops) {
      suspects.push_back({db->number(("SELECT stored_at FROM op" + of(op)).c_str()).value(), op.op_id});
    }
    const auto looked = writer.examine(suspects, *policy);
    ASSERT_TRUE(looked);
    EXPECT_TRUE(looked->dropped.empty());
    ASSERT_TRUE(writer.commit());
  }
  expect_error(check_sqlite_op_store(path_, *throwing), Errc::internal, "threw");
  EXPECT_TRUE(check_sqlite_op_store(path_, *make_sha256_policy(50))->is_intact());
  start();
  EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), ops);
}

// --------------------------------------------------------------------- the check

TEST_P(SqliteDamageTest, CheckOfAnIntactStoreBesideItsNode) {
  const auto ops = fill_with(5'000, 100);
  start();
  std::vector<SqliteCheckProgress> heard;
  const auto report = check_sqlite_op_store(path_, *make_sha256_policy(),
                                            {.on_progress =
                                                 [&](const auto& progress) {
                                                   heard.push_back(progress);
                                                   return true;
                                                 }})
                          .value();
  EXPECT_TRUE(report.is_intact());
  EXPECT_EQ(report.ops, 5'000U);
  EXPECT_EQ(report.bytes, 500'000U);
  ASSERT_FALSE(heard.empty());
  EXPECT_EQ(heard.back().ops, 5'000U);
  EXPECT_EQ(heard.back().total_ops, 5'000U);
  EXPECT_EQ(heard.back().total_bytes, 500'000U);
  EXPECT_TRUE(w_.process(*store_, {make_op(99'999)})) << "nobody was locked out";
}

TEST_P(SqliteDamageTest, CheckNamesWhatIsWrongAndCanBeStopped) {
  const auto ops = fill_with(3'000, 100);
  sql("UPDATE " + table_of_bytes(100) + " SET data=zeroblob(100)" + of(ops[7]));
  sql("UPDATE totals SET ops=ops+1");
  const auto report = check();
  EXPECT_EQ(report.lost, 1U);
  EXPECT_FALSE(report.totals_agree);
  ASSERT_EQ(report.faults.size(), 1U);
  EXPECT_EQ(report.faults[0].op_id, ops[7].op_id);
  EXPECT_TRUE(report.faults[0].is_lost);
  EXPECT_NE(report.faults[0].what.find("another id"), std::string::npos);
  expect_error(check_sqlite_op_store(path_, *make_sha256_policy(), {.on_progress = [](const auto&) { return false; }}),
               Errc::cancelled, "stopped");
  expect_error(check_sqlite_op_store(path_, *make_prefix_policy()), Errc::already_exists, "sha256");
  expect_error(check_sqlite_op_store(path_ + "x", *make_sha256_policy()), Errc::not_found, path_);
}

TEST_P(SqliteDamageTest, CheckSaysHowFarItCameWhenAPageIsDamaged) {
  fill_with(2'000, 1'000);
  std::string file = read_file(path_);
  for (std::size_t i = 40 * 16'384; i < file.size(); ++i) file[i] = static_cast<char>(i * 31);
  write_file(path_, file);
  const auto out = check_sqlite_op_store(path_, *make_sha256_policy());
  ASSERT_FALSE(out);
  EXPECT_EQ(out.error().code, Errc::corrupt) << out.error().to_string();
  EXPECT_NE(out.error().message.find("operations.md"), std::string::npos) << out.error().to_string();
}

TEST_P(SqliteDamageTest, EveryFindingOfACheckIsRepaired) {
  const auto ops = fill_with(40, 100);
  std::string whole = read_file(path_);
  std::vector<std::string> files;
  for (const std::size_t at : places_of(ops[20], whole)) {
    files.push_back(whole);
    files.back()[at + 8] = static_cast<char>(files.back()[at + 8] ^ 4);
  }
  stop();
  fs::remove(path_);
  fill_with(3'000, 100);
  whole = read_file(path_);
  const std::string damaged_bytes = "UPDATE " + table_of_bytes(100) + " SET data=x'00' WHERE stored_at%2=0";
  for (const char* damage : {damaged_bytes.c_str(), "UPDATE op SET size=size+1", "UPDATE op SET loc=5",
                             "INSERT INTO op_data VALUES(77, x'00')", "UPDATE totals SET ops=ops+1, bytes=7"}) {
    stop();
    write_file(path_, whole);
    sql(damage);
    files.push_back(read_file(path_));
  }
  for (const std::string& file : files) {
    write_file(path_, file);
    const auto found = check();
    EXPECT_FALSE(found.is_intact());
    const auto repaired = repair_sqlite_op_store(path_, *make_sha256_policy(), found.faults);
    ASSERT_TRUE(repaired) << repaired.error().to_string();
    const auto left = check();
    EXPECT_TRUE(left.is_intact()) << left.lost << " " << left.wrong_entries << " " << left.totals_agree
                                  << (left.faults.empty() ? "" : left.faults[0].what);
    const auto put_back = std::count_if(found.faults.begin(), found.faults.end(),
                                        [](const auto& f) { return f.op_id.empty() && !f.is_of_index(); });
    EXPECT_EQ(left.ops, found.ops - repaired->dropped + static_cast<std::uint64_t>(put_back));
  }
  start();
  expect_error(repair_sqlite_op_store(path_, *make_sha256_policy(), {}), Errc::already_exists, path_);
  expect_error(repair_sqlite_op_store(path_, *make_prefix_policy(), {}), Errc::already_exists, "sha256");
}

TEST_P(SqliteDamageTest, DataThatHasLostItsEntryGetsItBack) {
  const auto ops = fill_with(5, 70'000);
  sql("DELETE FROM op" + of(ops[2]));
  sql(has_large() ? "INSERT INTO op_place SELECT 77, at, bytes FROM op_place" + of(ops[3])
                  : "INSERT INTO op_data SELECT 77, data FROM op_data" + of(ops[3]));
  const auto found = check();
  EXPECT_GE(found.wrong_entries, 2U);
  EXPECT_EQ(found.lost, 0U);
  const auto repaired = repair_sqlite_op_store(path_, *make_sha256_policy(), found.faults);
  ASSERT_TRUE(repaired) << repaired.error().to_string();
  EXPECT_EQ(repaired->dropped, 0U);
  EXPECT_GE(repaired->mended, 1U);
  const auto left = check();
  EXPECT_TRUE(left.is_intact()) << (left.faults.empty() ? "" : left.faults[0].what);
  EXPECT_EQ(left.ops, 5U);
  start();
  EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), ops);
  EXPECT_EQ(counts().bytes, 350'000U);
  EXPECT_EQ(counts().damaged, 0U);
  EXPECT_TRUE(w_.process(*store_, payloads_of(ops))->newly_stored.empty());
}

TEST_P(SqliteDamageTest, BytesOfAnOpAreNotRemovedBecauseAnIndexHasAnotherIdForThem) {
  const auto ops = fill_with(5, 70'000);
  const auto stored_at = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only)
                             ->number(("SELECT stored_at FROM op" + of(ops[2])).c_str())
                             .value();
  sql("DELETE FROM op" + of(ops[2]));
  for (const bool again : {false, true}) {
    auto writer = open_writer().value();
    ASSERT_TRUE(writer.begin());
    const auto looked = writer.examine({{stored_at, id_at(77)}}, *make_sha256_policy());
    ASSERT_TRUE(looked) << looked.error().to_string();
    EXPECT_EQ(looked->mended, again ? 0U : 1U);
    ASSERT_TRUE(writer.commit());
  }
  EXPECT_TRUE(check().is_intact());
  start();
  EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), ops);
}

/// Of SHA-256, but the ids are as long as no index has them whole.
class LongIdPolicy final : public OpPolicy {
 public:
  std::string_view name() const override { return "long"; }
  Result<OpDescription> describe(ByteView op) const override {
    auto out = sha256_->describe(op);
    std::string id(300, 'x');
    if (out) id.replace(0, 32, as_text(out->op_id.view()));
    if (out) out->op_id = OpId::from_text(id);
    return out;
  }

 private:
  const std::shared_ptr<const OpPolicy> sha256_ = make_sha256_policy();
};

TEST_P(SqliteDamageTest, AnOpWithALongIdThatHasLostItsEntryGetsItBack) {
  const auto policy = std::make_shared<LongIdPolicy>();
  const auto ops = make_ops(*policy, 1, 40, 70'000);
  ASSERT_TRUE(w_.process(*open_as(policy).value(), payloads_of(ops)));
  finish_runs();
  sql("DELETE FROM op" + of(ops[1]));
  auto store = open_as(policy).value();
  EXPECT_TRUE(w_.slice(*store, DhtArc::full(), Timestamp{0}, Timestamp::max())) << "here it is met";
  EXPECT_TRUE(w_.put_slice_hash(*store, DhtArc::full(), 1, "writes are done in order"));
  store.reset();
  const auto found = check_sqlite_op_store(path_, *policy).value();
  ASSERT_TRUE(repair_sqlite_op_store(path_, *policy, found.faults));
  EXPECT_TRUE(check_sqlite_op_store(path_, *policy)->is_intact());
  EXPECT_EQ(w_.retrieve(*open_as(policy).value(), ids_of(ops)).value(), ops);
}

TEST_P(SqliteDamageTest, TheIntactOneOfTwoCopiesStays) {
  for (const bool is_intact : {false, true}) {
    SCOPED_TRACE(is_intact);
    stop();
    fs::remove(path_);
    const auto ops = fill_with(5, 70'000);
    sql("DELETE FROM op" + of(ops[2]));
    if (has_runs()) sql("DELETE FROM manifest");  // so that the index does not have it any more either
    start();
    EXPECT_EQ(w_.process(*store_, payloads_of(ops))->newly_stored, (std::vector<OpId>{ops[2].op_id}));
    stop();
    finish_runs();
    if (!is_intact) spoil(70'000, Spoil::zeros, of(ops[2]));
    auto found = check();
    EXPECT_EQ(found.lost, is_intact ? 0U : 1U);
    ASSERT_EQ(found.faults.size(), is_intact ? 1U : 2U);
    // What has no entry is looked at first, as in a large store.
    std::sort(found.faults.begin(), found.faults.end(),
              [](const auto& one, const auto& other) { return one.stored_at < other.stored_at; });
    EXPECT_TRUE(found.faults[0].op_id.empty());
    const auto repaired = repair_sqlite_op_store(path_, *make_sha256_policy(), found.faults);
    ASSERT_TRUE(repaired) << repaired.error().to_string();
    EXPECT_EQ(repaired->dropped, 0U);
    const auto left = check();
    EXPECT_TRUE(left.is_intact()) << (left.faults.empty() ? "" : left.faults[0].what);
    EXPECT_EQ(left.ops, 5U);
    EXPECT_EQ(left.bytes, 350'000U);
    start();
    EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), ops);
    EXPECT_TRUE(told().empty());
  }
}

/// Of SHA-256, but 60 bytes are no op.
class RefusingPolicy final : public OpPolicy {
 public:
  std::string_view name() const override { return "sha256"; }
  Result<OpDescription> describe(ByteView op) const override {
    if (op.size() == 60) return make_error(Errc::invalid_argument, "no op");
    return sha256_->describe(op);
  }

 private:
  const std::shared_ptr<const OpPolicy> sha256_ = make_sha256_policy();
};

TEST_P(SqliteDamageTest, DataWithoutAnEntryThatIsNoOpIsRemoved) {
  fill_with(3, 100);
  sql("INSERT INTO op_data VALUES(77, zeroblob(60))");
  const auto found = check();
  EXPECT_EQ(found.wrong_entries, 1U);
  ASSERT_TRUE(repair_sqlite_op_store(path_, *make_sha256_policy(50), found.faults));
  EXPECT_FALSE(check().is_intact()) << "a policy with a lower limit cannot judge it";
  ASSERT_TRUE(repair_sqlite_op_store(path_, RefusingPolicy(), found.faults));
  EXPECT_TRUE(check().is_intact());
  EXPECT_EQ(check().ops, 3U);
}

/// What a check of runs finds in both directions, and that a repair leaves every op that is there.
TEST_P(SqliteDamageTest, RowsAndRunsThatDifferAreFoundNamedAndRepaired) {
  if (!has_runs()) GTEST_SKIP();
  const auto ops = fill_with(300, 100);
  const std::string whole = read_file(path_);
  struct Case {
    std::string damage;
    std::string said;     ///< of the op 7
    std::size_t ops;      ///< that are there
    std::uint64_t wrong;  ///< besides the index as a whole
  };
  const Case cases[] = {
      {"DELETE FROM op" + of(ops[7]), "the index by place has it, but it is not there", 299, 1},
      {"DELETE FROM op WHERE stored_at%2=(SELECT stored_at%2 FROM op WHERE id=x'" + to_hex(ops[7].op_id.view()) + "')",
       "the index by place has it, but it is not there", 150, 150},
      {"UPDATE op SET stored_at=(SELECT min(stored_at) FROM op)-1" + of(ops[7]), "the index by place does not have it",
       300, 2},
      {"UPDATE op SET stored_at=stored_at-1000000", "the index by place does not have it", 300, 600},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.damage);
    write_file(path_, whole);
    sql(c.damage);
    const auto found = check();
    EXPECT_EQ(found.ops, c.ops);
    EXPECT_EQ(found.lost, 0U);
    EXPECT_EQ(found.wrong_entries, c.wrong + 1);
    ASSERT_GE(found.faults.size(), 2U);
    EXPECT_TRUE(found.faults[0].is_of_index());
    EXPECT_EQ(std::count_if(found.faults.begin(), found.faults.end(),
                            [&](const auto& f) { return f.op_id == ops[7].op_id && f.what == c.said; }),
              1);
    const auto repaired = repair_sqlite_op_store(path_, *make_sha256_policy(), found.faults);
    ASSERT_TRUE(repaired) << repaired.error().to_string();
    EXPECT_EQ(repaired->dropped, 0U);
    const auto left = check();
    EXPECT_TRUE(left.is_intact()) << left.wrong_entries << (left.faults.empty() ? "" : left.faults[0].what);
    EXPECT_EQ(left.ops, c.ops);
    start();
    EXPECT_EQ(w_.retrieve(*store_, ids_of(ops))->size(), c.ops);
    EXPECT_EQ(w_.filter(*store_, ids_of(ops))->size(), 300 - c.ops);
    stop();
  }
}

TEST_P(SqliteDamageTest, OfAnOpThatIsThereTwiceOneIsRemoved) {
  if (!has_runs()) GTEST_SKIP() << "an index of tables has no id twice";
  const auto ops = fill_with(300, 100);
  const std::string whole = read_file(path_);
  const std::string last = "(SELECT max(stored_at) FROM op)";
  const std::string twice =
      "INSERT INTO op SELECT " + last + "+1, loc, id, created_at, size, data FROM op" + of(ops[7]) + ";";
  const std::string first =
      " WHERE stored_at=(SELECT min(stored_at) FROM op WHERE id=x'" + to_hex(ops[7].op_id.view()) + "')";
  const std::string damage = "UPDATE op SET data=zeroblob(100)";
  for (const std::string& more : {std::string(), damage + first, damage + " WHERE stored_at=" + last}) {
    SCOPED_TRACE(more);
    write_file(path_, whole);
    sql(twice + more);
    const auto found = check();
    ASSERT_EQ(found.faults.size(), 1U);
    EXPECT_EQ(found.faults[0].op_id, ops[7].op_id);
    EXPECT_EQ(found.faults[0].what == "it is there twice", more.empty());
    const auto repaired = repair_sqlite_op_store(path_, *make_sha256_policy(), found.faults);
    ASSERT_TRUE(repaired) << repaired.error().to_string();
    EXPECT_EQ(repaired->mended + repaired->dropped, 1U);
    const auto left = check();
    EXPECT_TRUE(left.is_intact()) << (left.faults.empty() ? "" : left.faults[0].what);
    EXPECT_EQ(left.ops, 300U);
    start();
    EXPECT_EQ(w_.retrieve(*store_, ids_of(ops)).value(), ops);
    EXPECT_TRUE(told().empty());
    stop();
  }
}

/// An index of which much is wrong is told to be so, with a bound on what is looked at op by op.
TEST_P(SqliteDamageTest, CheckOfRunsGoesOnFromPieceToPiece) {
  if (!has_runs()) GTEST_SKIP();
  const auto ops = fill_with(70'000, 20);
  EXPECT_TRUE(check().is_intact());
  const std::string whole = read_file(path_);
  sql("DELETE FROM op WHERE stored_at=(SELECT max(stored_at) FROM op)-1");
  EXPECT_EQ(check().wrong_entries, 2U);
  write_file(path_, whole);
  sql("UPDATE op SET stored_at=stored_at-1000000000");
  const auto found = check();
  EXPECT_EQ(found.ops, 70'000U);
  EXPECT_EQ(found.wrong_entries, sqlite::RunsCheck::kMostTold + 1);
  ASSERT_TRUE(found.faults[0].is_of_index());
  EXPECT_NE(found.faults[0].what.find("in many places"), std::string::npos);
  ASSERT_TRUE(repair_sqlite_op_store(path_, *make_sha256_policy(), {found.faults[0]}));
  EXPECT_TRUE(check().is_intact());
}

TEST_P(SqliteOpStoreTest, NumbersOfRowsThatCannotBeAreCorrupt) {
  fill(1, 3);
  const std::string before = read_file(path_);
  for (const DhtArc& arc : {DhtArc::full(), DhtArc(0, 100)}) {
    write_file(path_, before);
    sql("INSERT INTO slice_hash SELECT 0, 4294967295, -1, 'x' UNION SELECT 0, 100, -1, 'x'");
    const auto store = open().value();
    expect_error(w_.slice_count(*store, arc), Errc::corrupt, "table slice_hash");
  }
  for (const char* totals : {"UPDATE totals SET ops=-1", "UPDATE totals SET bytes=-1"}) {
    write_file(path_, before);
    sql(totals);
    expect_error(open(), Errc::corrupt, "table totals");
  }
}

TEST_P(SqliteOpStoreTest, OfADamagedPendingRowIsGivenWhatCanBeRead) {
  {
    const auto store = open().value();
    ASSERT_TRUE(w_.add_pending(*store, {OpId::from_text("x")}, peer_url(1)));
    ASSERT_TRUE(w_.add_pending(*store, {OpId::from_text("y")}, peer_url(2)));
  }
  const StoreWorld::Pending other{{peer_url(2), {OpId::from_text("y")}}};
  const StoreWorld::Pending both{{peer_url(1), {OpId::from_text("z")}}, {peer_url(2), {OpId::from_text("y")}}};
  for (const auto& [ids, left] : {std::pair("x'05'", other), std::pair("x'ff'", other),
                                  std::pair("x'ff00000100'", other), std::pair("x'017a05'", both)}) {
    sql(std::string("UPDATE pending SET ids=") + ids + " WHERE seq=1");
    const auto store = open().value();
    EXPECT_EQ(w_.pending(*store), left);
    EXPECT_EQ(w_.pending_in_pages(*store, 1), left);
    EXPECT_TRUE(w_.process(*store, {make_op(1)}));
  }
}

// -------------------------------------------------------------- what is asked for

TEST_P(SqliteOpStoreTest, RepeatedRequestsTakeNoMoreRoom) {
  const auto store = open().value();
  std::vector<OpId> ids;
  for (std::uint32_t i = 0; i < 3'000; ++i) ids.push_back(id_at(i));
  EXPECT_TRUE(w_.add_pending(*store, ids, peer_url(1)));
  const auto rows = [&] {
    auto db = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only);
    return db->number("SELECT sum(length(ids)) FROM pending").value();
  };
  const auto once = rows();
  EXPECT_EQ(once, 3'000 * 33);
  for (int i = 0; i < 5; ++i) {
    ids.push_back(id_at(10'000 + static_cast<std::uint32_t>(i)));
    EXPECT_TRUE(w_.add_pending(*store, ids, peer_url(1)));
  }
  EXPECT_EQ(rows(), once + 5 * 33);
  EXPECT_TRUE(w_.remove_pending(*store, {ids[0]}, peer_url(1)));
  EXPECT_TRUE(w_.add_pending(*store, {ids[0]}, peer_url(1)));  // kept anew
  EXPECT_TRUE(w_.remove_source(*store, peer_url(1)));
  EXPECT_TRUE(w_.add_pending(*store, {ids[1]}, peer_url(1)));
  EXPECT_EQ(w_.pending(*store), (StoreWorld::Pending{{peer_url(1), {ids[1]}}}));
}

TEST_P(SqliteOpStoreTest, DurableRequestsAreBoundedAndTheOldOnesStay) {
  SqliteOpStoreOptions options;
  options.max_kept_request_bytes = 100 * 33;
  auto store = open(options).value();
  std::vector<OpId> ids;
  for (std::uint32_t i = 0; i < 100; ++i) ids.push_back(id_at(i));
  EXPECT_TRUE(w_.add_pending(*store, ids, peer_url(1)));
  expect_error(w_.add_pending(*store, {id_at(500)}, peer_url(2)), Errc::overloaded, "open requests");
  EXPECT_TRUE(w_.add_pending(*store, ids, peer_url(1))) << "they are there";
  EXPECT_EQ(w_.pending(*store), (StoreWorld::Pending{{peer_url(1), ids}}));
  store.reset();
  store = open(options).value();  // it counts what was kept before
  expect_error(w_.add_pending(*store, {id_at(500)}, peer_url(2)), Errc::overloaded, "open requests");
  EXPECT_TRUE(w_.remove_source(*store, peer_url(1)));
  EXPECT_TRUE(w_.add_pending(*store, {id_at(500)}, peer_url(2)));
  EXPECT_TRUE(w_.process(*store, {make_op(1)}));
  // All of a call or nothing; what is kept already counts once.
  ids.push_back(id_at(100));
  expect_error(w_.add_pending(*store, ids, peer_url(1)), Errc::overloaded, "open requests");
  EXPECT_EQ(w_.pending(*store), (StoreWorld::Pending{{peer_url(2), {id_at(500)}}}));
  ids.resize(99);
  EXPECT_TRUE(w_.add_pending(*store, ids, peer_url(1)));
  EXPECT_TRUE(w_.add_pending(*store, ids, peer_url(1)));
}

TEST_P(SqliteOpStoreTest, ARefusalForWantOfRoomFailsNoOtherCall) {
  SqliteOpStoreOptions options;
  options.max_kept_request_bytes = 33;
  const auto store = open(options).value();
  std::vector<std::string> heard;
  for (std::uint32_t i = 0; i < 5; ++i) {
    store->add_pending({id_at(i)}, peer_url(1), [&](const auto& out) { heard.push_back(out ? "kept" : "refused"); });
  }
  EXPECT_TRUE(w_.process(*store, {make_op(1)}));
  EXPECT_EQ(heard, (std::vector<std::string>{"kept", "refused", "refused", "refused", "refused"}));
  EXPECT_EQ(w_.pending(*store), (StoreWorld::Pending{{peer_url(1), {id_at(0)}}}));
}

}  // namespace
}  // namespace kitsune2::testing
