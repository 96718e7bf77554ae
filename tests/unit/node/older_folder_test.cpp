// A data folder that an earlier build made is opened as it is. tests/vectors/older-folder.tar.gz was made by the
// library of commit 2a90e15: a key, a space of five ops, three ops to be fetched from a source, a slice hash, a note on
// a peer.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "kitsune2/node.hpp"
#include "kitsune2/sqlite_store.hpp"
#include "store/sqlite/op_db.hpp"

namespace kitsune2 {
namespace {

namespace fs = std::filesystem;

const SpaceId kOlderSpace = SpaceId::from_text("older");
const Url kSource = Url::parse("ws://127.0.0.1:9/7Y3LhBcLxGZnfYDKYxBq4YaPHcVCOCw4xMQYYKMSmTk").value();

struct OlderFolder : ::testing::Test {
  void SetUp() override {
    fs::remove_all(path);
    fs::copy(K2_OLDER_FOLDER, path, fs::copy_options::recursive);
    for (const auto& entry : fs::directory_iterator(path)) {
      fs::permissions(entry.path(), fs::perms::owner_read | fs::perms::owner_write);
    }
  }
  void TearDown() override { fs::remove_all(path); }

  static OpId id_of(const std::string& text) {
    return make_sha256_policy()->describe(Bytes::copy_of(text).view()).value().op_id;
  }

  sqlite::OpWriter open_ops() const {
    static const auto policy = make_sha256_policy();
    return sqlite::OpWriter::open((path / (kOlderSpace.to_string() + ".db")).string(), {.policy = policy.get()})
        .value();
  }

  const fs::path path = fs::temp_directory_path() / ("k2-older-" + std::to_string(::getpid()) + '-' +
                                                     ::testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(OlderFolder, OpensWithAllThatIsInIt) {
  EXPECT_EQ(open_ops().version(), 1);
  // What the first node leaves must do for the second, and what a conversion leaves for the last.
  for (int i = 0; i < 3; ++i) {
    if (i == 2) {
      auto ops = open_ops();
      while (ops.version() != 2) ASSERT_TRUE(ops.convert());
    }
    auto node = Node::start({.data_dir = path.string()});
    ASSERT_TRUE(node) << node.error().to_string();
    EXPECT_EQ((*node)->agent().value()->agent().to_string(), "SYG_TRp-NRXjzjmJ7-aZ_IUOgDiB_7SA7D939ppBQ_w");
    const auto space = (*node)->space(kOlderSpace);
    ASSERT_TRUE(space) << space.error().to_string();
    OpStore& store = (*space)->op_store();

    const auto stats = (*node)->wait<OpStoreStats>([&](auto done) { store.stats(std::move(done)); });
    ASSERT_TRUE(stats);
    EXPECT_EQ(stats->ops, 5U);
    EXPECT_EQ(stats->bytes, 3'020U);
    const std::string large = "op 4" + std::string(3'000, 'x');
    const std::vector<OpId> ids = {id_of("op 0"), id_of(large), id_of("open 0")};
    const auto ops =
        (*node)->wait<std::vector<MetaOp>>([&](auto done) { store.retrieve_ops(ids, 1U << 20, std::move(done)); });
    ASSERT_TRUE(ops);
    ASSERT_EQ(ops->size(), 2U) << "one is to be fetched";
    EXPECT_EQ((*ops)[0].op_data, Bytes::copy_of("op 0"));
    EXPECT_EQ((*ops)[1].op_data, Bytes::copy_of(large));

    const auto pending = (*node)->wait<std::vector<std::pair<Url, std::vector<OpId>>>>(
        [&](auto done) { store.retrieve_pending(std::move(done)); });
    ASSERT_TRUE(pending);
    ASSERT_EQ(pending->size(), 1U);
    EXPECT_EQ(pending->front().first, kSource);
    EXPECT_EQ(pending->front().second.size(), 3U);
    const auto to_fetch = [&] { return (*node)->run([&] { return (*space)->fetch().pending_ops(); }); };
    while (to_fetch() < 3) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // it reads them by and by

    const auto hash = (*node)->wait<std::optional<Bytes>>(
        [&](auto done) { store.retrieve_slice_hash(DhtArc::full(), 7, std::move(done)); });
    ASSERT_TRUE(hash);
    EXPECT_EQ(*hash, Bytes::copy_of("hash"));
    EXPECT_EQ((*node)->run([&] { return (*space)->peer_meta_store().get(kSource, "note"); }), Bytes::copy_of("kept"));

    (*node)->stop();
  }
}

TEST_F(OlderFolder, TakesMoreAndIsWhole) {
  {
    auto node = Node::start({.data_dir = path.string()});
    ASSERT_TRUE(node) << node.error().to_string();
    const auto space = (*node)->space(kOlderSpace);
    ASSERT_TRUE(space) << space.error().to_string();
    const std::vector<Bytes> more = {Bytes::copy_of("op 0"), Bytes::copy_of("open 0")};
    const auto stored = (*node)->wait<ProcessedOps>(
        [&](auto done) { (*space)->op_store().process_incoming_ops(more, std::move(done)); });
    ASSERT_TRUE(stored);
    EXPECT_EQ(stored->newly_stored, std::vector<OpId>{id_of("open 0")});
    (*node)->stop();
  }
  const auto report = check_sqlite_op_store((path / (kOlderSpace.to_string() + ".db")).string(), *make_sha256_policy());
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_EQ(report->ops, 6U);
  EXPECT_TRUE(report->is_intact());
  EXPECT_TRUE(report->faults.empty());
}

}  // namespace
}  // namespace kitsune2
