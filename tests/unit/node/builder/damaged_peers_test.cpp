// A node with a damaged file of peers: the file is renamed and replaced; an op store never is.
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "kitsune2/node.hpp"
#include "kitsune2/testing/builders.hpp"
#include "node/builder/store_paths.hpp"

namespace kitsune2 {
namespace {

namespace fs = std::filesystem;

const SpaceId kDamagedSpace = SpaceId::from_text("damaged-peers");

class DamagedPeers : public ::testing::Test {
 protected:
  DamagedPeers() {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    dir_ = fs::temp_directory_path() / ("k2-peers-" + std::to_string(::getpid()) + '-' + info->name());
    fs::remove_all(dir_);
    fs::create_directories(dir_);
    // Enough notes on peers and infos for some pages.
    with_space([](Node& node, Space& space) {
      auto agent = testing::make_agent(1);
      ASSERT_TRUE(node.wait<void>([&](auto done) { space.local_agent_join(agent, done); }));
    });
    with_file([](sqlite3* db) {
      const char* fill =
          "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000)"
          " INSERT INTO note SELECT 'gossip:k', 'ws://127.0.0.1:1/' || hex(randomblob(32)), randomblob(40), NULL FROM "
          "n";
      ASSERT_EQ(sqlite3_exec(db, fill, nullptr, nullptr, nullptr), SQLITE_OK);
    });
    EXPECT_GT(fs::file_size(peers()), 100'000U);
  }
  ~DamagedPeers() override { fs::remove_all(dir_); }

  std::string peers() const { return peer_store_path(dir_.string(), kDamagedSpace); }
  Result<void> with_space(const std::function<void(Node&, Space&)>& use) {
    auto node = Node::start({.data_dir = dir_.string()});
    if (!node) return node.error();
    auto space = (*node)->space(kDamagedSpace);
    if (!space) return space.error();
    use(**node, **space);
    return {};
  }
  void with_file(const std::function<void(sqlite3*)>& use) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(peers().c_str(), &db), SQLITE_OK);
    use(db);
    sqlite3_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", nullptr, nullptr, nullptr);
    sqlite3_close(db);
  }
  /// Overwrites the pages of a table or index.
  void damage(const std::string& object) {
    std::vector<std::uint64_t> pages;
    std::uint64_t page_bytes = 0;
    with_file([&](sqlite3* db) {
      const auto number = [&](const std::string& sql) {
        sqlite3_stmt* s = nullptr;
        EXPECT_EQ(sqlite3_prepare_v2(db, sql.c_str(), -1, &s, nullptr), SQLITE_OK) << sql;
        EXPECT_EQ(sqlite3_step(s), SQLITE_ROW) << sql;
        const auto value = static_cast<std::uint64_t>(sqlite3_column_int64(s, 0));
        sqlite3_finalize(s);
        return value;
      };
      page_bytes = number("PRAGMA page_size");
      pages.push_back(number("SELECT rootpage FROM sqlite_schema WHERE name='" + object + "'"));
    });
    std::fstream file(peers(), std::ios::in | std::ios::out | std::ios::binary);
    for (const auto page : pages) {
      file.seekp(static_cast<std::streamoff>((page - 1) * page_bytes));
      file << std::string(page_bytes, '\x5a');
    }
  }
  std::size_t put_aside() const {
    std::size_t count = 0;
    for (const auto& entry : fs::directory_iterator(dir_)) {
      const auto name = entry.path().filename().string();
      count += name.find(".damaged-") != std::string::npos && !name.ends_with("-wal") ? 1 : 0;
    }
    return count;
  }

  fs::path dir_;
};

TEST_F(DamagedPeers, AnIntactFileIsKept) {
  EXPECT_TRUE(with_space([](Node&, Space&) {}));
  EXPECT_EQ(put_aside(), 0U);
}

TEST_F(DamagedPeers, AFileThatIsNoDatabaseIsRenamedAndCreatedAgain) {
  std::ofstream(peers()) << std::string(10'000, 'j');
  const auto started = with_space([](Node&, Space& space) { EXPECT_NE(&space, nullptr); });
  EXPECT_TRUE(started) << started.error().to_string();
  EXPECT_EQ(put_aside(), 1U);
  EXPECT_EQ(fs::file_size(peers() + ".damaged-1"), 10'000U) << "it can be looked into";
  EXPECT_TRUE(with_space([](Node&, Space&) {}));
  EXPECT_EQ(put_aside(), 1U);
}

TEST_F(DamagedPeers, SoIsOneWithADamagedTableOfInfos) {
  damage("agent");
  const auto started = with_space([](Node&, Space&) {});
  EXPECT_TRUE(started) << started.error().to_string();
  EXPECT_EQ(put_aside(), 1U);
}

TEST_F(DamagedPeers, SoIsOneWithDamagedNotes) {
  damage("note");
  const auto started = with_space([](Node&, Space&) {});
  EXPECT_TRUE(started) << started.error().to_string();
  EXPECT_EQ(put_aside(), 1U);
}

TEST_F(DamagedPeers, SoIsOneWhoseDamageIsOnlyMetInWriting) {
  damage("sqlite_autoindex_note_1");
  const auto started = with_space([](Node&, Space&) {});
  EXPECT_TRUE(started) << started.error().to_string();
  EXPECT_EQ(put_aside(), 1U);
}

TEST_F(DamagedPeers, NoMoreThanThreeAreKept) {
  for (int i = 0; i < 5; ++i) {
    std::ofstream(peers()) << std::string(10'000 + static_cast<std::size_t>(i), 'j');
    EXPECT_TRUE(with_space([](Node&, Space&) {}));
  }
  EXPECT_EQ(put_aside(), 3U);
  EXPECT_EQ(fs::file_size(peers() + ".damaged-1"), 10'004U) << "the latest";
  EXPECT_EQ(fs::file_size(peers() + ".damaged-3"), 10'002U);
}

TEST_F(DamagedPeers, ADamagedOpStoreIsLeftAlone) {
  const auto ops = op_store_path(dir_.string(), kDamagedSpace);
  std::ofstream(ops) << std::string(10'000, 'j');
  const auto started = with_space([](Node&, Space&) {});
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, Errc::corrupt);
  EXPECT_EQ(fs::file_size(ops), 10'000U);
  EXPECT_EQ(put_aside(), 0U);
}

}  // namespace
}  // namespace kitsune2
