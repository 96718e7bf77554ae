// What the tests of the durable op store share.
#pragma once

#include <sys/stat.h>

#include "kitsune2/sqlite_store.hpp"
#include "store/sqlite/environment.hpp"
#include "store/sqlite/op_db.hpp"
#include "store_harness.hpp"

namespace kitsune2::testing {

/// Every test runs over the versions of the schema: 1, 2, and 5, in which all ops are large that are not in rows; in
/// the others none is. In versions 2 and 5 runs are so small that a few ops make several, and so is what is kept in
/// memory: where a call has more ops, the reader looks through the rows.
class SqliteOpStoreTest : public ::testing::TestWithParam<const sqlite::Format*> {
 protected:
  static constexpr runs::MergeRules kSmallRuns{
      .newest = 16, .fan_in = 4, .most_entries = 1U << 25U, .least_work = 1, .most_read = 64, .caught_up_at_once = 24};

  static bool has_runs() { return GetParam() != &sqlite::kTablesFormat; }
  static bool has_large() { return GetParam() == &sqlite::kLargeFormat; }
  static std::size_t least_large_bytes() { return has_large() ? sqlite::kMostBytesInRow + 1 : SIZE_MAX; }
  Result<std::shared_ptr<OpStore>> open(SqliteOpStoreOptions options = {}) {
    return open_as(make_prefix_policy(), options);
  }
  Result<std::shared_ptr<OpStore>> open_as(std::shared_ptr<const OpPolicy> policy, SqliteOpStoreOptions options = {}) {
    auto environment = sqlite::real_environment();
    environment.merge_rules = kSmallRuns;
    environment.least_large_bytes = least_large_bytes();
    options.index_in_runs = has_runs();
    return sqlite::open_op_store(environment, w_.runtime(), std::move(policy), test_space(), path_, options);
  }
  Result<sqlite::OpWriter> open_writer() {
    return sqlite::OpWriter::open(path_, {.for_new = has_runs() ? &sqlite::kRunsFormat : GetParam(),
                                          .merge_rules = kSmallRuns,
                                          .least_large_bytes = least_large_bytes()});
  }
  /// The table that has the bytes of ops of this size.
  static std::string table_of_bytes(std::size_t size) {
    if (has_runs() && size <= sqlite::kMostBytesInRow) return "op";
    return has_large() ? "op_place" : "op_data";
  }
  /// Sets the bytes of an op of this size in one of these ways, or what says where they are.
  enum class Spoil { zeros, one_byte, number, longer };
  void spoil(std::size_t size, Spoil how, const std::string& which) {
    const std::string table = table_of_bytes(size);
    const auto set = [&](const char* what) { sql("UPDATE " + table + " SET " + what + which); };
    if (table != "op_place") {
      return set(how == Spoil::zeros      ? "data=zeroblob(length(data))"
                 : how == Spoil::one_byte ? "data=x'00'"
                 : how == Spoil::number   ? "data=17"
                                          : "data=zeroblob(80000)");
    }
    if (how == Spoil::one_byte) return set("bytes=1");
    if (how == Spoil::number) return set("at=-17");
    if (how == Spoil::longer) return set("bytes=80000");
    auto db = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only);
    const auto at = db->number("SELECT at FROM op_place" + which).value();
    std::fstream file(path_ + "-data", std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(at);
    file << std::string(size, '\0');
  }
  /// Opens it and puts `count` ops into it, then closes it.
  void fill(std::uint64_t first, std::size_t count, std::size_t size = 64) {
    const auto store = open().value();
    const auto out = w_.process(*store, payloads_of(make_ops(store->policy(), first, count, size)));
    ASSERT_TRUE(out);
    ASSERT_EQ(out->newly_stored.size(), count);
  }
  void sql(const std::string& statement) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
    char* message = nullptr;
    EXPECT_EQ(sqlite3_exec(db, statement.c_str(), nullptr, nullptr, &message), SQLITE_OK) << message;
    sqlite3_free(message);
    sqlite3_close(db);
  }
  static std::string read_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static void write_file(const std::string& path, std::string_view text) {
    std::ofstream(path, std::ios::binary | std::ios::trunc)
        .write(text.data(), static_cast<std::streamsize>(text.size()));
  }
  static mode_t mode_of(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 0777;
  }
  template <class T>
  static void expect_error(const Result<T>& out, Errc code, std::string_view part) {
    ASSERT_FALSE(out);
    EXPECT_EQ(out.error().code, code) << out.error().to_string();
    EXPECT_NE(out.error().message.find(part), std::string::npos) << out.error().to_string();
  }

  StoreWorld w_;
  TempDir dir_;
  std::string path_ = dir_ / "space.db";
};

inline std::string name_of_format(const ::testing::TestParamInfo<const sqlite::Format*>& test) {
  return test.param == &sqlite::kLargeFormat ? "large" : test.param == &sqlite::kRunsFormat ? "runs" : "tables";
}

}  // namespace kitsune2::testing
