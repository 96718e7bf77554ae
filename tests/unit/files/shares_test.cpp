// Each share in a space of its own: the contents of its database, what is stored again, what is found at a start.
#include "files/shares.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>

#include "kitsune2/sqlite_store.hpp"
#include "node/builder/store_paths.hpp"
#include "unit/files/files_harness.hpp"

namespace kitsune2::files {
namespace {

namespace fs = std::filesystem;
using test::noise;
using test::TempDir;

class Shares : public ::testing::Test {
 protected:
  Shares() {
    fs::create_directory(data_.path() / "d");
    runtime_.start();
  }
  ~Shares() override { runtime_.stop(); }

  std::string data() const { return data_.str("d"); }
  HeldShares held() { return find_shares(data(), *node_).value(); }
  Result<ShareAloneReport> share(const std::vector<std::string>& paths, const ShareOptions& options = {},
                                 const std::stop_token& stop = {}, bool strict = false) {
    return share_alone(runtime_, data(), *node_, held().shares, paths, strict, options, stop);
  }
  ShareAloneReport shared(const std::vector<std::string>& paths) {
    auto report = share(paths);
    EXPECT_TRUE(report) << report.error().to_string();
    return std::move(*report);
  }
  std::shared_ptr<OpStore> open(const SpaceId& space) {
    std::shared_ptr<OpStore> out;
    runtime_.call([&] {
      out = open_sqlite_op_store(runtime_, make_sha256_policy(), space, op_store_path(data(), space)).value();
    });
    return out;
  }
  void close(std::shared_ptr<OpStore>& store) {
    runtime_.call([&] { store.reset(); });
  }
  std::set<OpId> ops_of(const SpaceId& space) {
    auto store = open(space);
    auto ids = wait_on<OpIdsInSlice>(runtime_, [&](auto done) {
      store->retrieve_op_hashes_in_time_slice(DhtArc::full(), Timestamp::min(), Timestamp::max(), std::move(done));
    });
    close(store);
    return {ids->op_ids.begin(), ids->op_ids.end()};
  }
  /// More than one batch for the store, followed by something that is reported.
  void make_many() {
    for (int i = 0; i < 100; ++i) from_.write(std::to_string(i), noise(kChunkBytes, i));
    ASSERT_EQ(::mkfifo(from_.str("95 is behind most").c_str(), 0600), 0);
  }
  std::size_t databases() const {
    std::size_t count = 0;
    for (const auto& entry : fs::directory_iterator(data())) {
      const auto name = entry.path().filename().string();
      count += name.ends_with(".db") ? 1 : 0;
      EXPECT_FALSE(name.starts_with("unfinished.")) << name;
    }
    return count;
  }

  TempDir data_, from_;
  AsioRuntime runtime_;
  std::shared_ptr<Ed25519LocalAgent> node_ = Ed25519LocalAgent::generate();
};

TEST_F(Shares, ALinkGivesNothingOfOtherShares) {
  from_.write("a/one", noise(kPackFileBytes + 1, 1));
  from_.write("a/both", noise(kPackFileBytes + 1, 2));
  from_.write("b/two", noise(kPackFileBytes + 1, 3));
  from_.write("b/both", noise(kPackFileBytes + 1, 2));
  const auto a = shared({from_.str("a")}), b = shared({from_.str("b")});
  EXPECT_NE(a.space, b.space);
  const auto in_a = ops_of(a.space), in_b = ops_of(b.space);
  EXPECT_EQ(in_a.size(), a.report.different_ops);
  EXPECT_EQ(in_b.size(), b.report.different_ops);
  std::vector<OpId> common;
  std::set_intersection(in_a.begin(), in_a.end(), in_b.begin(), in_b.end(), std::back_inserter(common));
  EXPECT_EQ(common, std::vector<OpId>{op_id_of(as_bytes(noise(kPackFileBytes + 1, 2)))});
}

TEST_F(Shares, ANewVersionIsAShareOfItsOwn) {
  from_.write("x", noise(kPackFileBytes + 1, 1));
  const auto first = shared({from_.str()});
  from_.write("x", noise(kPackFileBytes + 1, 2));
  const auto second = shared({from_.str()});
  EXPECT_NE(first.space, second.space);
  EXPECT_EQ(ops_of(second.space).count(op_id_of(as_bytes(noise(kPackFileBytes + 1, 1)))), 0U);
  EXPECT_EQ(ops_of(first.space).count(op_id_of(as_bytes(noise(kPackFileBytes + 1, 1)))), 1U) << "the old link works";
  from_.write("x", noise(kPackFileBytes + 1, 1));
  EXPECT_EQ(shared({from_.str()}).space, first.space);
}

TEST_F(Shares, TheSameContentIsTheSameLinkAndNoSecondCopy) {
  from_.write("one/file", noise(300'000, 1));
  from_.write("two/file", noise(300'000, 1));
  const auto first = shared({from_.str("one")});
  EXPECT_GT(first.report.new_ops, 0U);
  for (const char* again : {"one", "two"}) {
    const auto second = shared({from_.str(again)});
    EXPECT_EQ(second.report.root, first.report.root);
    EXPECT_EQ(second.space, first.space);
    EXPECT_EQ(std::pair(second.report.new_ops, second.report.new_bytes),
              (std::pair<std::uint64_t, std::uint64_t>{0, 0}));
    EXPECT_EQ(databases(), 1U);
  }
  // Another node has another space for it.
  node_ = Ed25519LocalAgent::generate();
  EXPECT_NE(shared({from_.str("one")}).space, first.space);
}

TEST_F(Shares, HeldOpsAreNotWrittenAgain) {
  from_.write("file", noise(300'000, 1));
  shared({from_.str()});
  // An unfinished database would be made in the data folder, which cannot be written to now.
  ASSERT_EQ(::geteuid() == 0 || ::chmod(data().c_str(), 0500) == 0, true);
  std::set<std::string> before, after;
  for (const auto& entry : fs::directory_iterator(data())) before.insert(entry.path().filename().string());
  ShareOptions options;
  std::set<std::string> during;
  options.progress = [&](const ShareProgress&) {
    for (const auto& entry : fs::directory_iterator(data())) during.insert(entry.path().filename().string());
  };
  EXPECT_TRUE(share({from_.str()}, options));
  EXPECT_FALSE(during.empty());
  for (const auto& name : during) EXPECT_FALSE(name.starts_with("unfinished.")) << name;
  ::chmod(data().c_str(), 0700);
}

TEST_F(Shares, AStoppedRunIsContinued) {
  make_many();
  std::stop_source stop;
  ShareOptions options;
  options.issue = [&](const PathIssue&) { stop.request_stop(); };
  auto stopped = share({from_.str()}, options, stop.get_token());
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, Errc::cancelled);
  EXPECT_TRUE(held().shares.empty());
  const auto done = shared({from_.str()});
  EXPECT_LT(done.report.new_ops, done.report.different_ops) << "what the stopped run stored is not stored again";
  EXPECT_EQ(ops_of(done.space).size(), done.report.different_ops);
  EXPECT_EQ(databases(), 1U);
}

TEST_F(Shares, AContinuedRunSharesNothingOfAnOlderVersion) {
  make_many();
  std::stop_source stop;
  ShareOptions options;
  options.issue = [&](const PathIssue&) { stop.request_stop(); };
  ASSERT_FALSE(share({from_.str()}, options, stop.get_token()));
  const OpId gone = op_id_of(as_bytes(noise(kChunkBytes, 0)));
  fs::remove(from_.path() / "0");
  const auto done = shared({from_.str()});
  const auto ops = ops_of(done.space);
  EXPECT_EQ(ops.count(gone), 0U);
  EXPECT_EQ(ops.size(), done.report.different_ops);
}

TEST_F(Shares, ALeftoverOfOtherPathsIsRemoved) {
  std::ofstream(data() + "/unfinished.0123456789abcdef.db") << "left over";
  std::ofstream(data() + "/unfinished.0123456789abcdef.db-wal") << "left over";
  from_.write("x", "y");
  shared({from_.str()});
  EXPECT_EQ(databases(), 1U);
}

TEST_F(Shares, AMistypedPathThrowsNoProgressAway) {
  const std::string stopped = data() + "/unfinished.0123456789abcdef.db";
  std::ofstream(stopped) << "left over";
  EXPECT_FALSE(share({from_.str("no such path")}));
  EXPECT_TRUE(fs::exists(stopped));
}

TEST_F(Shares, ADamagedLeftoverIsNoObstacle) {
  from_.write("x", "y");
  std::stop_source stop;
  stop.request_stop();
  ASSERT_FALSE(share({from_.str()}, {}, stop.get_token()));
  std::size_t damaged = 0;
  for (const auto& entry : fs::directory_iterator(data())) {
    if (!entry.path().filename().string().ends_with(".db")) continue;
    std::ofstream(entry.path()) << std::string(5000, 'j');
    ++damaged;
  }
  EXPECT_EQ(damaged, 1U);
  EXPECT_EQ(shared({from_.str()}).report.folder.files, 1U);
}

TEST_F(Shares, StrictMakesNothing) {
  from_.write("good", "x");
  auto report = share({"/proc/self/mem", from_.str("good")}, {}, {}, true);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->report.failed, 1U);
  EXPECT_TRUE(report->space.empty());
  EXPECT_EQ(databases(), 0U);
}

TEST_F(Shares, OpsThatAreStoredTwiceAreCounted) {
  from_.write("a/same", noise(300'000, 1));
  from_.write("b/same", noise(300'000, 1));
  from_.write("b/more", noise(300'000, 2));
  const auto a = shared({from_.str("a")});
  EXPECT_EQ(a.report.twice_ops, 0U);
  auto store = open(a.space);
  ShareOptions options;
  options.elsewhere = {store};
  auto b = share({from_.str("b")}, options);
  options.elsewhere.clear();
  close(store);
  ASSERT_TRUE(b) << b.error().to_string();
  EXPECT_EQ(std::pair(b->report.twice_ops, b->report.twice_bytes),
            (std::pair<std::uint64_t, std::uint64_t>{2, 300'000}));
}

TEST_F(Shares, AreFoundWithWhenAndWhat) {
  from_.write("a", "first");
  from_.write("sub/b", "second");
  const auto one = shared({from_.str("a")});
  const auto two = shared({from_.str()});
  // Fetched from others, or named by the user: nobody asked to serve them.
  OpId root;
  {
    auto other = open(SpaceId::from_text("by name"));
    root = share_paths(runtime_, *other, {from_.str()}, {}).value().root;
    close(other);
  }
  EXPECT_EQ(root, two.report.root);
  std::ofstream(data() + "/bm90IGE.db") << std::string(5000, 'j');
  const auto found = held();
  ASSERT_EQ(found.shares.size(), 2U);
  EXPECT_EQ(found.shares[0].root, two.report.root) << "the latest first";
  EXPECT_EQ(found.shares[0].space, two.space);
  EXPECT_EQ(found.shares[0].folder, two.report.folder);
  EXPECT_TRUE(found.shares[0].own);
  EXPECT_EQ(found.shares[1].root, one.report.root);
  EXPECT_GT(found.shares[0].shared_at, found.shares[1].shared_at);
  ASSERT_EQ(found.unreadable.size(), 1U);
  EXPECT_EQ(found.unreadable[0].code, Errc::corrupt);
}

TEST_F(Shares, OfTheOneSpaceOfOldAreFound) {
  from_.write("a", "first");
  from_.write("b", "second");
  auto old = open(default_space(node_->agent()));
  const auto one = share_paths(runtime_, *old, {from_.str("a")}, {}).value();
  const auto two = share_paths(runtime_, *old, {from_.str("b")}, {}).value();
  close(old);
  const auto found = held();
  ASSERT_EQ(found.shares.size(), 2U);
  EXPECT_EQ(found.shares[0].root, two.root);
  EXPECT_EQ(found.shares[1].root, one.root);
  for (const auto& share : found.shares) {
    EXPECT_FALSE(share.own);
    EXPECT_EQ(share.space, default_space(node_->agent()));
  }
  // When shared again, they move to spaces of their own.
  const auto again = shared({from_.str("a")});
  EXPECT_EQ(again.report.root, one.root);
  EXPECT_NE(again.space, default_space(node_->agent()));
  EXPECT_EQ(ops_of(again.space).size(), again.report.different_ops);
}

TEST_F(Shares, MovingAStoreNeverReplacesAnother) {
  const auto path = data() + "/from.db";
  {
    std::shared_ptr<OpStore> store;
    runtime_.call(
        [&] { store = open_sqlite_op_store(runtime_, make_sha256_policy(), SpaceId::from_text("s"), path).value(); });
    ASSERT_TRUE(wait_on<ProcessedOps>(
        runtime_, [&](auto done) { store->process_incoming_ops({Bytes::copy_of("an op")}, std::move(done)); }));
    EXPECT_EQ(move_sqlite_op_store(path, data() + "/to.db", SpaceId::from_text("t")).error().code, Errc::already_exists)
        << "while it is open";
    close(store);
  }
  std::ofstream(data() + "/there.db") << "something";
  EXPECT_EQ(move_sqlite_op_store(path, data() + "/there.db", SpaceId::from_text("t")).error().code,
            Errc::already_exists);
  const auto to = op_store_path(data(), SpaceId::from_text("t"));
  const auto moved = move_sqlite_op_store(path, to, SpaceId::from_text("t"));
  ASSERT_TRUE(moved) << moved.error().to_string();
  EXPECT_FALSE(fs::exists(path));
  EXPECT_EQ(read_sqlite_op_store_info(to)->space, SpaceId::from_text("t"));
  EXPECT_EQ(ops_of(SpaceId::from_text("t")), std::set<OpId>{op_id_of(as_bytes("an op"))});
  EXPECT_EQ(move_sqlite_op_store(path, data() + "/new.db", SpaceId::from_text("t")).has_error(), true);
}

TEST(OwnSpace, IsDerivedFromKeyAndRoot) {
  const std::vector<std::uint8_t> seed(32, 7);
  auto node = Ed25519LocalAgent::from_seed(ByteView(seed)).value();
  const auto again = Ed25519LocalAgent::from_seed(ByteView(seed)).value();
  const OpId root = op_id_of(as_bytes("root"));
  const auto space = own_space(*node, root).value();
  EXPECT_EQ(own_space(*again, root).value(), space);
  EXPECT_EQ(as_text(space.view()).substr(0, 6), "share-");
  EXPECT_EQ(space.view().size(), 28U);
  EXPECT_NE(own_space(*node, op_id_of(as_bytes("root 2"))).value(), space);
  EXPECT_NE(own_space(*Ed25519LocalAgent::generate(), root).value(), space);
}

TEST(OwnSpace, AgentsDoNotRevealThatTwoSpacesBelongToOneNode) {
  const std::vector<std::uint8_t> seed(32, 7);
  const auto node = Ed25519LocalAgent::from_seed(ByteView(seed)).value();
  const auto again = Ed25519LocalAgent::from_seed(ByteView(seed)).value();
  const auto one = SpaceId::from_text("one"), two = SpaceId::from_text("two");
  const AgentId in_one = agent_for(node, one).value()->agent(), in_two = agent_for(node, two).value()->agent();
  EXPECT_EQ(agent_for(again, one).value()->agent(), in_one);
  EXPECT_NE(in_one, in_two);
  // The old space follows from this id, so it is shown nowhere else.
  EXPECT_NE(in_one, node->agent());
  EXPECT_EQ(agent_for(node, default_space(node->agent())).value()->agent(), node->agent());
  EXPECT_NE(agent_for(Ed25519LocalAgent::generate(), one).value()->agent(), in_one);
}

/// Flips one bit in the database of a space, or in the file of its large ops, inside these bytes.
void flip(const std::string& database, std::string_view bytes) {
  std::fstream file(database, std::ios::in | std::ios::out | std::ios::binary);
  const std::string all{std::istreambuf_iterator<char>(file), {}};
  const auto at = all.find(bytes);
  if (at == std::string::npos && !database.ends_with("-data")) return flip(database + "-data", bytes);
  ASSERT_NE(at, std::string::npos);
  file.clear();
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(all[at] ^ 1));
}

TEST_F(Shares, DamagedOpsAreRepairedFromTheFolder) {
  for (int i = 0; i < 5; ++i) from_.write(std::to_string(i), noise(kPackFileBytes + 100, i));
  const auto first = shared({from_.str()});
  EXPECT_FALSE(first.held);
  const std::string database = op_store_path(data(), first.space);
  const auto ops = ops_of(first.space);
  EXPECT_EQ(damaged_in(data(), first.space, {}).value(), 0U);
  flip(database, std::string_view(from_.read("1")).substr(500, 64));
  flip(database, std::string_view(from_.read("3")).substr(500, 64));
  EXPECT_EQ(damaged_in(data(), first.space, {}).value(), 2U);

  const auto again = shared({from_.str()});
  EXPECT_TRUE(again.held);
  EXPECT_EQ(again.report.root, first.report.root);
  auto store = open(first.space);
  EXPECT_EQ(repair_paths(runtime_, *store, first.report.root, {from_.str()}, {}).value(), 2U);
  close(store);
  EXPECT_EQ(damaged_in(data(), first.space, {}).value(), 0U);
  EXPECT_EQ(ops_of(first.space), ops);
}

TEST_F(Shares, ADamagedRootIsRepairedToo) {
  from_.write("one", noise(kPackFileBytes + 100, 1));
  const auto first = shared({from_.str()});
  flip(op_store_path(data(), first.space), "K2FR");
  const auto again = shared({from_.str()});
  EXPECT_TRUE(again.held) << "the share was not known, but its database was there";
  EXPECT_EQ(again.space, first.space);
  auto store = open(first.space);
  EXPECT_EQ(repair_paths(runtime_, *store, first.report.root, {from_.str()}, {}).value(), 1U);
  close(store);
  EXPECT_EQ(damaged_in(data(), first.space, {}).value(), 0U);
}

TEST_F(Shares, ARepairSharesNothingOfAChangedFolder) {
  from_.write("one", noise(kPackFileBytes + 100, 1));
  const auto first = shared({from_.str()});
  const auto ops = ops_of(first.space);
  from_.write("two", noise(kPackFileBytes + 100, 2));
  auto store = open(first.space);
  const auto repaired = repair_paths(runtime_, *store, first.report.root, {from_.str()}, {});
  close(store);
  ASSERT_FALSE(repaired);
  EXPECT_EQ(repaired.error().code, Errc::not_found);
  EXPECT_EQ(ops_of(first.space), ops);
}

TEST_F(Shares, SharingIntoANamedSpaceAgainRepairsIt) {
  for (int i = 0; i < 3; ++i) from_.write(std::to_string(i), noise(kPackFileBytes + 100, i));
  const SpaceId space = SpaceId::from_text("common");
  for (int round = 0; round < 2; ++round) {
    auto store = open(space);
    const auto report = share_paths(runtime_, *store, {from_.str()}, {});
    close(store);
    ASSERT_TRUE(report) << report.error().to_string();
    EXPECT_EQ(report->repaired_ops, round == 0 ? 0U : 1U);
    if (round == 0) flip(op_store_path(data(), space), std::string_view(from_.read("2")).substr(500, 64));
  }
  EXPECT_EQ(damaged_in(data(), space, {}).value(), 0U);
}

}  // namespace
}  // namespace kitsune2::files
