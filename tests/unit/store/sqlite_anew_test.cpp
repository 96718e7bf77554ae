// While the index of a durable op store is made from the rows, piece by piece: it answers as if it were complete.
#include <algorithm>
#include <random>

#include "log/log.hpp"
#include "sqlite_store_fixture.hpp"

namespace kitsune2::testing {
namespace {

namespace fs = std::filesystem;

struct Held {
  OpId op_id;
  Timestamp created_at;
  Bytes data;
};

class SqliteAnewTest : public SqliteOpStoreTest {
 protected:
  Held next() {
    std::array<std::uint8_t, 32> id{};
    for (std::uint8_t& byte : id) byte = static_cast<std::uint8_t>(random_());
    const auto created = static_cast<std::int64_t>(random_() % 1'000);
    return {OpId(ByteView(id)), Timestamp{created}, Bytes::copy_of(std::string(1 + random_() % 60, 'x'))};
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
    auto reader = sqlite::OpReader::open(path, true, nullptr, nullptr, kSmallRuns).value();
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
  /// What a process leaves that is killed now.
  std::string image() {
    const std::string path = dir_ / "killed.db";
    for (const char* part : {"", "-wal", "-shm"}) {
      fs::remove(path + part);
      if (part != std::string("-shm") && fs::exists(path_ + part)) fs::copy_file(path_ + part, path + part);
    }
    return path;
  }

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
  std::vector<std::string> lines;
  const auto logger = std::make_shared<log::Logger>(
      LogOptions{.callback = [&](const LogLine& line) { lines.emplace_back(line.text); }, .level = LogLevel::info});
  const log::Scope scope(logger);
  fill(1, 500);
  sql("UPDATE slot SET data=zeroblob(16344)");
  const auto store = open().value();
  const auto ops = make_ops(store->policy(), 1, 600, 64);
  EXPECT_EQ(w_.process(*store, payloads_of(ops))->newly_stored.size(), 100U);
  EXPECT_EQ(w_.retrieve(*store, ids_of(ops)).value(), ops);
  store->close();
  logger->close();
  const auto has = [&](std::string_view part) {
    return std::any_of(lines.begin(), lines.end(),
                       [&](const std::string& line) { return line.find(part) != std::string::npos; });
  };
  EXPECT_TRUE(has("the index of its ops is made from the ops, 0 of "));
  const auto again = open().value();
  EXPECT_EQ(w_.retrieve(*again, ids_of(ops)).value(), ops);
}

}  // namespace
}  // namespace kitsune2::testing
