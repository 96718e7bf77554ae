// The sums for a DHT model that a durable op store keeps: they are always those of its ops, whether they come from the
// row in the file, the ops stored since, or from all ops. Rules: K of KeptSums.
#include <map>
#include <random>
#include <tuple>

#include "core/dht/time_layout.hpp"
#include "sqlite_store_fixture.hpp"
#include "store/sqlite/op_schema.hpp"
#include "store/sqlite/runs_check.hpp"

namespace kitsune2::testing {
namespace {

using SumsMap = std::map<std::tuple<std::int64_t, std::uint32_t, std::uint32_t>, std::pair<std::string, std::uint64_t>>;

/// Small enough that a few ops make a row, and that it takes several calls to read them.
constexpr sqlite::SumsRules kSmallSums{
    .every = 40, .at_rest = 10, .percent = 0, .percent_at_rest = 0, .most_cells = 1'000, .read_at_once = 8};

class SqliteSumsTest : public SqliteOpStoreTest {
 protected:
  SqliteSumsTest() { w_.set_now(now_); }

  sqlite::OpWriter open_writer() {
    if (!std::filesystem::exists(path_)) {
      EXPECT_TRUE(sqlite::create_file(path_));
    }
    auto out = sqlite::OpWriter::open(path_, {.max_database_bytes = most_bytes_,
                                              .policy = policy_.get(),
                                              .for_new = GetParam(),
                                              .merge_rules = kSmallRuns,
                                              .sums_rules = rules_});
    EXPECT_TRUE(out) << out.error().to_string();
    EXPECT_TRUE(out->bind_to(test_space(), policy_->name()));
    return std::move(*out);
  }
  Result<std::shared_ptr<OpStore>> open_store() {
    auto environment = sqlite::real_environment();
    environment.merge_rules = kSmallRuns;
    environment.sums_rules = rules_;
    SqliteOpStoreOptions options;
    options.index_in_runs = has_runs();
    return sqlite::open_op_store(environment, w_.runtime(), policy_, test_space(), path_, options);
  }
  /// With a time of the last month, or none.
  Bytes next() {
    std::string op;
    if (random_() % 5 != 0) {
      const auto created =
          static_cast<std::uint64_t>((now_ - std::chrono::seconds(random_() % (30U * 24 * 3'600))).micros);
      op = "k2op\x01";
      for (int shift = 56; shift >= 0; shift -= 8) op.push_back(static_cast<char>(created >> shift));
    }
    return Bytes(op + "op " + std::to_string(++number_));
  }
  std::vector<Bytes> some(std::size_t count) {
    std::vector<Bytes> out;
    for (std::size_t i = 0; i < count; ++i) out.push_back(next());
    return out;
  }
  void hold(const Bytes& op) {
    const auto described = policy_->describe(op).value();
    held_[described.op_id] = described.created_at;
  }
  void put(sqlite::OpWriter& writer, const Bytes& op) {
    ProcessedOps out;
    std::vector<OpRecord> records;
    ASSERT_TRUE(writer.store(policy_->describe(op).value(), op, now_, out, records));
  }
  void store(sqlite::OpWriter& writer, std::size_t count) {
    ASSERT_TRUE(writer.begin());
    for (const Bytes& op : some(count)) {
      put(writer, op);
      hold(op);
    }
    ASSERT_TRUE(writer.commit());
  }
  /// In as many calls as it takes.
  DhtSums ask(sqlite::OpWriter& writer) {
    calls_ = 0;
    for (;;) {
      ++calls_;
      auto out = writer.dht_sums(now_);
      EXPECT_TRUE(out) << out.error().to_string();
      if (!out) return {};
      if (*out) return std::move(**out);
    }
  }
  SumsMap naive() const {
    const std::int64_t boundary = dht::TimeLayout::at(now_).boundary_unit();
    SumsMap out;
    for (const auto& [id, created_at] : held_) {
      std::int64_t unit = dht::unit_of(created_at);
      const bool is_unit = unit >= boundary;
      if (!is_unit) unit -= unit % dht::kUnitsPerSlice;
      auto& [hash, count] = out[{unit, policy_->location(id.view()) >> 23U, is_unit ? 1U : 512U}];
      hash.resize(id.size());
      for (std::size_t i = 0; i < hash.size(); ++i) hash[i] = static_cast<char>(hash[i] ^ id.view()[i]);
      ++count;
    }
    return out;
  }
  static SumsMap map_of(const DhtSums& sums) {
    SumsMap out;
    for (std::size_t i = 0; i < sums.cells.size(); ++i) {
      const auto& cell = sums.cells[i];
      out[{cell.first_unit, cell.sector, cell.units}] = {std::string(as_text(sums.hash(i))), cell.ops};
    }
    EXPECT_EQ(out.size(), sums.cells.size());
    return out;
  }
  void expect_right(sqlite::OpWriter& writer) { EXPECT_EQ(map_of(ask(writer)), naive()); }
  /// How many calls it takes to read this many ops.
  static std::size_t pieces(std::size_t ops) { return ops / kSmallSums.read_at_once + 1; }
  std::optional<store::DhtSumsRow> row() {
    auto db = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only);
    auto get = db->prepare("SELECT value FROM meta WHERE key='sums_dht'");
    if (get->step() != SQLITE_ROW) return std::nullopt;
    return store::DhtSumsRow::decode(get->blob(0));
  }
  void put_row(const std::vector<std::uint8_t>& bytes) {
    auto db = sqlite::Connection::open(path_, sqlite::Connection::Mode::write);
    auto set = db->prepare("INSERT OR REPLACE INTO meta(key, value) VALUES('sums_dht', ?1)");
    ASSERT_EQ(set->bind(1, ByteView(bytes)).step(), SQLITE_DONE);
  }
  /// A file with `count` ops and a row of them.
  void fill(std::size_t count) {
    auto writer = open_writer();
    store(writer, count);
    ask(writer);
    ASSERT_TRUE(writer.write_sums(now_));
    ASSERT_TRUE(row());
  }
  SqliteCheckReport check() {
    auto report = sqlite::check_op_store(path_, *policy_, {}, kSmallRuns);
    EXPECT_TRUE(report) << report.error().to_string();
    return *report;
  }

  std::shared_ptr<const OpPolicy> policy_ = make_sha256_policy();
  Timestamp now_ = Timestamp::from_seconds(1'780'000'000);
  sqlite::SumsRules rules_ = kSmallSums;
  std::uint64_t most_bytes_ = 0;
  std::map<OpId, Timestamp> held_;
  std::size_t calls_ = 0;
  std::uint64_t number_ = 0;
  std::mt19937_64 random_{5};
};

INSTANTIATE_TEST_SUITE_P(Versions, SqliteSumsTest, ::testing::Values(&sqlite::kTablesFormat, &sqlite::kRunsFormat),
                         name_of_format);

TEST_P(SqliteSumsTest, AStartReadsTheRowAndWhatWasStoredSince) {
  {
    auto writer = open_writer();
    store(writer, 60);
    expect_right(writer);
    EXPECT_EQ(calls_, pieces(60)) << "there is no row";
    EXPECT_TRUE(writer.wants_sums_written(false));
    ASSERT_TRUE(writer.write_sums(now_));
    EXPECT_FALSE(writer.wants_sums_written(true));
    store(writer, 5);
    expect_right(writer);
    EXPECT_EQ(calls_, 1U);
  }
  EXPECT_EQ(row()->ops, 60U);
  {
    auto writer = open_writer();
    expect_right(writer);
    EXPECT_EQ(calls_, 1U);
    store(writer, 20);
    expect_right(writer);
    EXPECT_FALSE(writer.wants_sums_written(false));
    EXPECT_TRUE(writer.wants_sums_written(true));
  }
  // Nobody asks: nothing is read, and nothing written.
  {
    auto writer = open_writer();
    store(writer, 30);
    EXPECT_FALSE(writer.wants_sums_written(true));
  }
  auto writer = open_writer();
  expect_right(writer);
  EXPECT_EQ(calls_, pieces(55));
  ASSERT_TRUE(writer.write_sums(now_));
  EXPECT_EQ(row()->ops, 115U);
  expect_right(writer);
}

TEST_P(SqliteSumsTest, TheRowIsTheLastOfItsTableAndTheOldOneGoes) {
  fill(20);
  auto db = sqlite::Connection::open(path_, sqlite::Connection::Mode::write).value();
  ASSERT_TRUE(db.run("INSERT INTO meta(key, value) VALUES('dht_sums', x'00')"));
  const auto old_rows = [&] { return db.number("SELECT count(*) FROM meta WHERE key='dht_sums'").value(); };
  {
    auto writer = open_writer();
    expect_right(writer);
    EXPECT_EQ(calls_, 1U) << "the row is found beside all others that there are";
    EXPECT_EQ(old_rows(), 1);
    store(writer, 20);
    ASSERT_TRUE(writer.write_sums(now_));
  }
  EXPECT_EQ(old_rows(), 0);
  EXPECT_EQ(row()->ops, 40U);
  // Without it the last row is another one.
  ASSERT_TRUE(db.run("DELETE FROM meta WHERE key='sums_dht'"));
  auto writer = open_writer();
  expect_right(writer);
  EXPECT_EQ(calls_, pieces(40));
}

TEST_P(SqliteSumsTest, WhatIsStoredWhileItReadsCountsOnce) {
  auto writer = open_writer();
  store(writer, 70);
  for (int i = 0; i < 4; ++i) {
    EXPECT_FALSE(writer.dht_sums(now_)->has_value());
    store(writer, 3);
  }
  expect_right(writer);
  ASSERT_TRUE(writer.write_sums(now_));
  store(writer, 40);
  for (int i = 0; i < 2; ++i) {
    auto again = open_writer();
    EXPECT_FALSE(again.dht_sums(now_)->has_value());
    store(again, 3);
    expect_right(again);
  }
}

TEST_P(SqliteSumsTest, WhatIsRolledBackDoesNotCount) {
  auto writer = open_writer();
  store(writer, 20);
  ask(writer);
  ASSERT_TRUE(writer.begin());
  for (const Bytes& op : some(5)) put(writer, op);
  writer.roll_back();
  expect_right(writer);
  store(writer, 5);
  expect_right(writer);
  ASSERT_TRUE(writer.write_sums(now_));
  EXPECT_EQ(row()->ops, 25U);
}

/// K2.
TEST_P(SqliteSumsTest, ADroppedOpTakesTheRowWithIt) {
  fill(50);
  sql("UPDATE " + table_of_bytes(10) + " SET data=x'00' WHERE stored_at=(SELECT min(stored_at) FROM op)");
  auto writer = open_writer();
  ask(writer);
  auto db = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only);
  const std::int64_t stored_at = db->number("SELECT min(stored_at) FROM op").value();
  auto get = db->prepare("SELECT id FROM op WHERE stored_at=(SELECT min(stored_at) FROM op)");
  ASSERT_EQ(get->step(), SQLITE_ROW);
  const OpId lost(get->blob(0));
  get->reset();
  ASSERT_TRUE(writer.begin());
  const auto examined = writer.examine(std::vector<sqlite::Suspect>{{stored_at, lost}}, *policy_);
  ASSERT_TRUE(examined);
  ASSERT_EQ(examined->dropped.size(), 1U);
  EXPECT_TRUE(row()) << "not yet";
  ASSERT_TRUE(writer.commit());
  EXPECT_FALSE(row());
  held_.erase(lost);
  expect_right(writer);
  EXPECT_EQ(calls_, pieces(49));
  ASSERT_TRUE(writer.write_sums(now_));
  EXPECT_EQ(row()->ops, 49U);
}

/// K2. The number of ops stays.
TEST_P(SqliteSumsTest, ACorrectedEntryTakesTheRowWithIt) {
  {
    auto writer = open_writer();
    store(writer, 50);
  }
  const std::string which = " WHERE stored_at=(SELECT min(stored_at) FROM op)";
  // As it was when the sums were made.
  sql("UPDATE op SET created_at=created_at+1000000000000" + which);
  auto writer = open_writer();
  ask(writer);
  ASSERT_TRUE(writer.write_sums(now_));
  EXPECT_FALSE(check().is_intact());
  auto db = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only);
  const std::int64_t stored_at = db->number("SELECT min(stored_at) FROM op").value();
  ASSERT_TRUE(writer.begin());
  const auto examined = writer.examine(std::vector<sqlite::Suspect>{{stored_at, OpId()}}, *policy_);
  ASSERT_TRUE(examined);
  EXPECT_EQ(examined->mended, 1U);
  ASSERT_TRUE(writer.commit());
  EXPECT_FALSE(row());
  expect_right(writer);
  EXPECT_TRUE(check().is_intact());
}

/// K3. Each of these rows is whole, or nearly, and not to be believed.
TEST_P(SqliteSumsTest, ARowThatDoesNotFitIsNotTaken) {
  fill(50);
  const auto right = *row();
  struct Case {
    const char* what;
    std::size_t calls;
    std::function<std::vector<std::uint8_t>()> bytes;
  };
  const std::size_t all = pieces(50);
  const Case cases[] = {
      {"as it was", 1, [&] { return right.encode(); }},
      {"damaged", all,
       [&] {
         auto bytes = right.encode();
         bytes[bytes.size() / 2] ^= 1U;
         return bytes;
       }},
      {"another version", all,
       [&] {
         auto bytes = right.encode();
         bytes[8] = 2;
         return bytes;
       }},
      {"another function from ids to locations", all,
       [&] {
         auto row = right;
         ++row.places;
         return row.encode();
       }},
      {"one op fewer", 1 + all,
       [&] {
         auto row = right;
         row.ops -= row.sums.cells.back().ops;
         row.sums.cells.pop_back();
         row.sums.hashes.resize(row.sums.cells.size() * row.sums.id_bytes);
         return row.encode();
       }},
      {"of later ops, too", all,
       [&] {
         auto row = right;
         row.covered += 1'000'000;
         return row.encode();
       }},
      {"of a layout of the future", all,
       [&] {
         auto row = right;
         row.boundary_unit += dht::kUnitsPerSlice;
         row.sums = *store::DhtSumCells().with(row.sums, row.boundary_unit);
         return row.encode();
       }},
      {"another op is the last one", all,
       [&] {
         auto row = right;
         ++row.last;
         return row.encode();
       }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    put_row(c.bytes());
    auto writer = open_writer();
    expect_right(writer);
    EXPECT_EQ(calls_, c.calls);
  }
}

/// K3. An older program knows nothing of the row.
TEST_P(SqliteSumsTest, AnOlderProgramMayHaveDroppedOrStoredOps) {
  fill(50);
  auto db = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only);
  auto get = db->prepare("SELECT id FROM op WHERE stored_at=(SELECT max(stored_at) FROM op)");
  ASSERT_EQ(get->step(), SQLITE_ROW);
  const OpId lost(get->blob(0));
  get->reset();
  if (has_runs()) sql("INSERT INTO dropped(stored_at) SELECT max(stored_at) FROM op");
  sql("DELETE FROM op_data WHERE stored_at=(SELECT max(stored_at) FROM op);"
      "DELETE FROM op WHERE stored_at=(SELECT max(stored_at) FROM op);"
      "UPDATE totals SET ops=ops-1");
  held_.erase(lost);
  EXPECT_FALSE(check().sums_agree);
  {
    // It has stored one since, so that there are as many as before.
    auto writer = open_writer();
    store(writer, 1);
    expect_right(writer);
    EXPECT_EQ(calls_, pieces(50));
    ASSERT_TRUE(writer.write_sums(now_));
  }
  EXPECT_TRUE(check().sums_agree);
}

TEST_P(SqliteSumsTest, ASliceThatIsSetBackOverIsReadAnew) {
  auto writer = open_writer();
  store(writer, 50);
  ask(writer);
  ASSERT_TRUE(writer.write_sums(now_));
  now_ = now_ + std::chrono::hours(300);
  expect_right(writer);
  EXPECT_EQ(calls_, 1U) << "units become a slice";
  store(writer, 5);
  ASSERT_TRUE(writer.write_sums(now_));
  expect_right(writer);
  now_ = now_ - std::chrono::hours(300);
  expect_right(writer);
  EXPECT_EQ(calls_, pieces(55));
  ASSERT_TRUE(writer.write_sums(now_));
  now_ = now_ - std::chrono::hours(10);
  expect_right(writer);
}

TEST_P(SqliteSumsTest, TooManyCellsAreNotWrittenNorIsWhatTheTotalsDeny) {
  rules_.most_cells = 10;
  {
    auto writer = open_writer();
    store(writer, 50);
    expect_right(writer);
    ASSERT_TRUE(writer.write_sums(now_));
    EXPECT_FALSE(row());
    EXPECT_FALSE(writer.wants_sums_written(true)) << "nor is it tried again";
  }
  rules_ = kSmallSums;
  sql("UPDATE totals SET ops=49");
  auto writer = open_writer();
  expect_right(writer);
  EXPECT_FALSE(writer.wants_sums_written(true));
  EXPECT_TRUE(writer.write_sums(now_));
  EXPECT_FALSE(row());
}

TEST_P(SqliteSumsTest, IdsOfSeveralLengthsHaveNoSums) {
  auto writer = open_writer();
  store(writer, 5);
  ask(writer);
  ASSERT_TRUE(writer.begin());
  ProcessedOps out;
  std::vector<OpRecord> records;
  ASSERT_TRUE(writer.store({OpId(as_bytes("short")), {}}, as_bytes("x"), now_, out, records));
  ASSERT_TRUE(writer.commit());
  expect_error(writer.dht_sums(now_), Errc::unsupported, "several lengths");
  auto again = open_writer();
  expect_error(again.dht_sums(now_), Errc::unsupported, "several lengths");
  expect_error(again.dht_sums(now_), Errc::unsupported, "several lengths");
}

TEST_P(SqliteSumsTest, ACheckComparesThemAndARepairRemovesWrongOnes) {
  fill(50);
  {
    auto writer = open_writer();
    store(writer, 5);
  }
  auto report = check();
  EXPECT_TRUE(report.is_intact());
  EXPECT_TRUE(report.sums_were_compared);
  const auto right = row()->encode();
  auto wrong = *row();
  wrong.sums.hashes[3] ^= 1U;
  auto damaged = right;
  damaged[40] ^= 4U;
  for (const auto& bytes : {wrong.encode(), damaged}) {
    put_row(bytes);
    report = check();
    EXPECT_FALSE(report.is_intact());
    EXPECT_FALSE(report.sums_agree);
    EXPECT_EQ(report.wrong_entries, 1U);
    EXPECT_EQ(report.lost, 0U);
    ASSERT_EQ(report.faults.size(), 1U);
    EXPECT_TRUE(report.faults[0].is_of_sums());
    EXPECT_FALSE(report.faults[0].is_of_index());
    const auto repaired = repair_sqlite_op_store(path_, *policy_, report.faults);
    ASSERT_TRUE(repaired) << repaired.error().to_string();
    EXPECT_EQ(repaired->mended, 1U);
    EXPECT_EQ(repaired->dropped, 0U);
    report = check();
    EXPECT_TRUE(report.is_intact());
    EXPECT_FALSE(report.sums_were_compared) << "there are none";
  }
}

/// The owner goes on while the check reads.
TEST_P(SqliteSumsTest, ACheckBesideTheOwnerTakesWhatBecomesOfThemForNoFault) {
  fill(50);
  auto wrong = *row();
  wrong.sums.hashes[3] ^= 1U;
  for (const bool made_anew : {true, false}) {
    SCOPED_TRACE(made_anew);
    put_row(wrong.encode());
    SqliteCheckOptions options;
    bool changed = false;
    options.on_progress = [&](const SqliteCheckProgress&) {
      if (std::exchange(changed, true)) return true;
      // As after an op was dropped: other sums, made from all ops. Or the same, with some more ops.
      auto next = wrong;
      if (made_anew) ++next.salt;
      put_row(next.encode());
      return true;
    };
    options.bytes_per_second = 1U << 30U;
    const auto report = sqlite::check_op_store(path_, *policy_, options, kSmallRuns);
    ASSERT_TRUE(report);
    EXPECT_TRUE(changed);
    EXPECT_EQ(report->sums_agree, made_anew);
    EXPECT_EQ(report->sums_were_compared, !made_anew);
  }
}

TEST_P(SqliteSumsTest, TheStoreGivesThemAsOfOneMoment) {
  auto store = open_store().value();
  std::uint64_t told = 0;
  const auto token = store->subscribe({.ops_stored = [&](const std::vector<OpRecord>& ops) { told += ops.size(); }});
  std::size_t answers = 0;
  for (int i = 0; i < 60; ++i) {
    auto ops = some(1 + random_() % 9);
    for (const Bytes& op : ops) hold(op);
    store->process_incoming_ops(std::move(ops), [](const Result<ProcessedOps>& out) { EXPECT_TRUE(out); });
    if (random_() % 3 != 0) continue;
    EXPECT_TRUE(store->retrieve_dht_sums([&](const Result<DhtSums>& sums) {
      ++answers;
      ASSERT_TRUE(sums);
      std::uint64_t count = sums->apart;
      for (const auto& cell : sums->cells) count += cell.ops;
      EXPECT_EQ(count, told) << "those that listeners know";
    }));
    if (random_() % 4 == 0) w_.wait<OpStoreStats>([&](auto done) { store->stats(std::move(done)); });
  }
  // A write whose handler has run is in them.
  auto more = some(3);
  for (const Bytes& op : more) hold(op);
  ASSERT_TRUE(w_.process(*store, std::move(more)));
  const auto sums = w_.wait<DhtSums>([&](auto done) { EXPECT_TRUE(store->retrieve_dht_sums(std::move(done))); });
  ASSERT_TRUE(sums);
  EXPECT_EQ(map_of(*sums), naive());
  EXPECT_GT(answers, 5U);
  // A store that is closed keeps them.
  auto last = some(20);
  for (const Bytes& op : last) hold(op);
  ASSERT_TRUE(w_.process(*store, std::move(last)));
  store->close();
  EXPECT_EQ(row()->ops, held_.size());
  bool refused = false;
  EXPECT_TRUE(store->retrieve_dht_sums([&](const Result<DhtSums>& out) {
    refused = true;
    expect_error(out, Errc::cancelled, "closed");
  }));
  EXPECT_TRUE(w_.world().wait_for([&] { return refused; }));
}

TEST_P(SqliteSumsTest, WhereThereIsNoRoomForTheRowNothingElseFails) {
  std::uint64_t pages = 0;
  {
    auto writer = open_writer();
    store(writer, 700);
  }
  {
    auto db = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only);
    pages = static_cast<std::uint64_t>(
        db->number("SELECT page_count-freelist_count FROM pragma_page_count, pragma_freelist_count").value());
  }
  most_bytes_ = pages * 16'384;
  {
    auto writer = open_writer();
    expect_right(writer);
    EXPECT_TRUE(writer.wants_sums_written(true));
    expect_error(writer.write_sums(now_), Errc::disk_full, "full");
    EXPECT_FALSE(writer.wants_sums_written(true)) << "it is tried again when there is twice as much";
    expect_right(writer);
    EXPECT_FALSE(row());
  }
  most_bytes_ = 0;
  auto writer = open_writer();
  ask(writer);
  EXPECT_TRUE(writer.write_sums(now_));
  EXPECT_EQ(row()->ops, 700U);
}

}  // namespace
}  // namespace kitsune2::testing
