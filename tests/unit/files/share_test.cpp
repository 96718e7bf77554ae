// Sharing folders: packs, links, odd files, and sharing again.
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <random>
#include <thread>

#include "unit/files/files_harness.hpp"

namespace kitsune2::files {
namespace {

namespace fs = std::filesystem;
using test::noise;
using test::RunningStore;
using test::TempDir;

struct Shared {
  Result<ShareReport> report;
  std::vector<PathIssue> issues;
};

Shared share(RunningStore& store, const std::vector<std::string>& paths, ShareOptions options = {}) {
  Shared out{make_error(Errc::internal, ""), {}};
  options.issue = [&](const PathIssue& issue) { out.issues.push_back(issue); };
  out.report = share_paths(store.runtime, *store.store, paths, options);
  return out;
}

void fill(const TempDir& dir) {
  dir.write("empty", "");
  dir.write("small", "hello");
  dir.write("sub/exact chunk", noise(kChunkBytes, 1));
  dir.write("sub/one more", noise(kChunkBytes + 1, 2));
  dir.write("sub/Grüße/日本/🦊", noise(70'000, 3));
  fs::create_directories(dir.path() / "empty folder" / "inner");
  for (int i = 0; i < 50; ++i)
    dir.write("many/" + std::to_string(i), noise(static_cast<std::size_t>(i) * 100, 100 + i));
  fs::permissions(dir.path() / "small", fs::perms::owner_exec, fs::perm_options::add);
}

/// The lines of a share's manifest, read back from the store.
std::vector<std::string> names_in(RunningStore& store, const OpId& root_id) {
  const auto get = [&](const OpId& id) {
    return retrieve_held(store.runtime, *store.store, {id}).value().at(0).op_data;
  };
  const RootOp root = RootOp::decode(get(root_id)).value();
  TreeReader tree([&](const OpId& id, const std::vector<OpId>&) -> Result<Bytes> { return get(id); }, root);
  ManifestReader reader([&] { return tree.next(); }, root);
  std::vector<std::string> out;
  while (true) {
    auto record = reader.next();
    if (!record) return {record.error().to_string()};
    if (!*record) return out;
    if ((*record)->kind == ManifestRecord::Kind::dir) out.push_back(reader.path() + '/');
    if ((*record)->kind == ManifestRecord::Kind::file) out.push_back(reader.path());
    if ((*record)->kind == ManifestRecord::Kind::link) out.push_back(reader.path() + " -> " + (*record)->target);
  }
}

TEST(Share, SameContentsSameRootWhateverTheWayThere) {
  TempDir one, two;
  fill(one);
  fill(two);
  fs::last_write_time(two.path() / "small", fs::file_time_type::clock::now() - std::chrono::hours(1000));
  RunningStore store, other;
  auto a = share(store, {one.str()});
  auto b = share(other, {two.str() + "/"});
  ASSERT_TRUE(a.report) << a.report.error().to_string();
  ASSERT_TRUE(b.report);
  EXPECT_EQ(a.report->root, b.report->root);
  EXPECT_EQ(a.report->folder, (FolderSummary{55, 6, a.report->folder.bytes, a.report->folder.ops}));
  EXPECT_EQ(a.report->failed + a.report->skipped, 0U);
  EXPECT_EQ(a.report->new_ops, store.stats().ops);
  EXPECT_EQ(a.report->new_bytes, store.stats().bytes);
}

TEST(Share, AgainStoresNothing) {
  TempDir dir;
  fill(dir);
  RunningStore store;
  auto first = share(store, {dir.str()});
  const auto held = store.stats();
  auto second = share(store, {dir.str()});
  ASSERT_TRUE(second.report);
  EXPECT_EQ(second.report->root, first.report->root);
  EXPECT_GT(first.report->new_ops, 0U);
  EXPECT_EQ(second.report->new_ops, 0U);
  EXPECT_EQ(second.report->new_bytes, 0U);
  EXPECT_EQ(store.stats().ops, held.ops);
}

TEST(Share, EveryDifferenceChangesTheRoot) {
  TempDir dir;
  fill(dir);
  RunningStore store;
  std::vector<OpId> roots = {share(store, {dir.str()}).report->root};
  const auto changed = [&] {
    roots.push_back(share(store, {dir.str()}).report->root);
    for (std::size_t i = 0; i + 1 < roots.size(); ++i) EXPECT_NE(roots[i], roots.back()) << roots.size();
  };
  dir.write("small", "hellp");
  changed();
  fs::permissions(dir.path() / "empty", fs::perms::owner_exec, fs::perm_options::add);
  changed();
  fs::rename(dir.path() / "empty", dir.path() / "empty2");
  changed();
  fs::create_directory(dir.path() / "another");
  changed();
  fs::remove(dir.path() / "many/7");
  changed();
}

TEST(Share, SmallFilesShareOps) {
  TempDir dir;
  for (int i = 0; i < 1000; ++i) dir.write("d" + std::to_string(i % 10) + "/f" + std::to_string(i), noise(2000, i));
  RunningStore store;
  auto shared = share(store, {dir.str()});
  ASSERT_TRUE(shared.report);
  // 2 MB in packs of 128 KiB to 256 KiB.
  EXPECT_LE(shared.report->folder.ops, 16U);
  EXPECT_GE(shared.report->folder.ops, 8U);
  // One file changes: its pack and a few after it are new, but not all.
  dir.write("d0/f500", noise(2000, 77'777));
  auto again = share(store, {dir.str()});
  EXPECT_LE(again.report->new_ops, 8U);
  EXPECT_GE(again.report->new_ops, 3U);  // root, manifest, pack
}

TEST(Share, SpecialFilesAreNamedAndLeftOut) {
  TempDir dir;
  dir.write("file", "x");
  fs::create_symlink("/etc/passwd", dir.path() / "link");
  fs::create_directory_symlink("/", dir.path() / "rootlink");
  ASSERT_EQ(::mkfifo(dir.str("pipe").c_str(), 0600), 0);
  dir.write(".k2part-0000", "left over");
  std::ofstream(dir.path() / "bad\xff").close();
  RunningStore store;
  auto shared = share(store, {dir.str()});
  ASSERT_TRUE(shared.report);
  EXPECT_EQ(names_in(store, shared.report->root), std::vector<std::string>{"file"});
  EXPECT_EQ(shared.report->skipped, 5U);
  EXPECT_EQ(shared.report->failed, 0U);
  std::map<std::string, std::string> why;
  for (const auto& issue : shared.issues) {
    EXPECT_EQ(issue.kind, PathIssue::Kind::skipped);
    why[fs::path(issue.path).filename().string()] = issue.reason;
  }
  EXPECT_EQ(why["link"], "a link to an absolute path");
  EXPECT_EQ(why["rootlink"], "a link to an absolute path");
  EXPECT_EQ(shared.report->links_left_out, 2U);
  EXPECT_EQ(why["pipe"], "a named pipe");
  EXPECT_EQ(why["bad\xff"], "a name that is not UTF-8");
  EXPECT_NE(why[".k2part-0000"], "");
}

TEST(Share, LinksThatStayInsideAreKept) {
  TempDir dir;
  dir.write("outside", "not shared");
  dir.write("from/d/e/file", "x");
  fs::create_symlink("../../d/e", dir.path() / "from/d/e/around");
  fs::create_symlink("d", dir.path() / "from/to folder");
  fs::create_symlink("to folder/e/file", dir.path() / "from/through a link");
  fs::create_symlink("nothing here", dir.path() / "from/dangling");
  fs::create_symlink("loop", dir.path() / "from/loop");
  fs::create_symlink("../outside", dir.path() / "from/out");
  fs::create_symlink("../../../outside", dir.path() / "from/d/e/out");
  fs::create_symlink("to folder/../../outside", dir.path() / "from/winding");
  RunningStore store;
  auto shared = share(store, {dir.str("from")});
  ASSERT_TRUE(shared.report) << shared.report.error().to_string();
  EXPECT_EQ(names_in(store, shared.report->root),
            (std::vector<std::string>{"d/", "d/e/", "d/e/around -> ../../d/e", "d/e/file", "dangling -> nothing here",
                                      "loop -> loop", "through a link -> to folder/e/file", "to folder -> d"}));
  EXPECT_EQ(shared.report->folder.links, 5U);
  EXPECT_EQ((std::pair{shared.report->links_left_out, shared.report->skipped}),
            (std::pair<std::uint64_t, std::uint64_t>{3, 3}));
  for (const auto& issue : shared.issues) EXPECT_TRUE(issue.link) << issue.path;
  // Of several paths, each is separate: what is beside one need not be beside the other.
  dir.write("other/file", "y");
  fs::create_symlink("../from/d", dir.path() / "other/neighbour");
  auto both = share(store, {dir.str("from/d"), dir.str("other")});
  ASSERT_TRUE(both.report);
  EXPECT_EQ(names_in(store, both.report->root),
            (std::vector<std::string>{"d/", "d/e/", "d/e/file", "other/", "other/file"}));
  EXPECT_EQ(both.report->links_left_out, 3U);
}

TEST(Share, ModesAreKeptAndOnlyTheNineBits) {
  TempDir dir;
  dir.write("d/private", "x");
  const auto mode_kept = [&](mode_t mode) {
    EXPECT_EQ(::chmod(dir.str("d/private").c_str(), mode), 0);
    RunningStore store;
    auto shared = share(store, {dir.str()});
    EXPECT_TRUE(shared.report);
    const auto get = [&](const OpId& id) {
      return retrieve_held(store.runtime, *store.store, {id}).value().at(0).op_data;
    };
    const RootOp root = RootOp::decode(get(shared.report->root)).value();
    TreeReader tree([&](const OpId& id, const std::vector<OpId>&) -> Result<Bytes> { return get(id); }, root);
    ManifestReader reader([&] { return tree.next(); }, root);
    while (true) {
      const auto record = reader.next().value();
      if (record->kind == ManifestRecord::Kind::file) return std::pair(root.version, record->file.mode);
    }
  };
  using Got = std::pair<std::uint8_t, std::uint16_t>;
  EXPECT_EQ(mode_kept(0600), (Got{2, 0600}));
  EXPECT_EQ(mode_kept(0444), (Got{2, 0444}));
  EXPECT_EQ(mode_kept(04755), (Got{1, 0755}));
  EXPECT_EQ(mode_kept(02750), (Got{2, 0750}));
  EXPECT_EQ(mode_kept(0644), (Got{1, 0644}));
  EXPECT_EQ(mode_kept(0755), (Got{1, 0755}));
}

TEST(Share, WithoutLinksAndOddModesALinkOfTheFirstVersionIsTheSameStill) {
  TempDir dir;
  dir.write("empty", "");
  dir.write("small", "hello");
  dir.write("sub/large", std::string(300'000, 'z'));
  fs::create_directory(dir.path() / "empty folder");
  for (const auto& [name, mode] :
       {std::pair("empty", 0644), {"small", 0755}, {"sub/large", 0644}, {"sub", 0755}, {"empty folder", 0755}}) {
    ASSERT_EQ(::chmod(dir.str(name).c_str(), static_cast<mode_t>(mode)), 0);
  }
  RunningStore store;
  // As printed by the program of commit 2a90e15.
  EXPECT_EQ(share(store, {dir.str()}).report->root.to_string(), "ICar7d3iAirDs0PjSxHDFS1vbT57Z7cUIMta0aw05c4");
}

TEST(Share, ProgressCountsInsideAFileAndKnowsHowMuchThereIs) {
  TempDir dir;
  dir.write("large", std::string(4U << 20, 'x'));
  dir.write("small", "s");
  RunningStore store;
  ShareOptions options;
  std::vector<ShareProgress> seen;
  options.progress = [&](const ShareProgress& p) {
    seen.push_back(p);
    std::this_thread::sleep_for(std::chrono::milliseconds(101));  // so that the next chunk is reported too
  };
  std::stop_source stop;
  auto report = share_paths(store.runtime, *store.store, {dir.str()}, options, stop.get_token());
  ASSERT_TRUE(report);
  ASSERT_FALSE(seen.empty());
  for (const auto& p : seen) {
    EXPECT_EQ((std::pair{p.files_in_all, p.bytes_in_all}),
              (std::pair<std::uint64_t, std::uint64_t>{2, (4U << 20) + 1}));
  }
  EXPECT_EQ(std::count_if(seen.begin(), seen.end(), [](const auto& p) { return p.files == 0 && p.bytes > 0; }), 16);
  EXPECT_EQ(seen.back().bytes, seen.back().bytes_in_all);
}

TEST(Share, FileThatIsNotWhatItSaysIsReported) {
  // Files of /proc claim to be empty and are not, like a file that grows while it is read.
  RunningStore store;
  TempDir dir;
  dir.write("good", "x");
  auto shared = share(store, {"/proc/self/status", dir.str("good")});
  ASSERT_TRUE(shared.report) << shared.report.error().to_string();
  EXPECT_EQ(shared.report->failed, 1U);
  ASSERT_EQ(shared.issues.size(), 1U);
  EXPECT_EQ(shared.issues[0].kind, PathIssue::Kind::changed);
  EXPECT_EQ(shared.issues[0].path, "/proc/self/status");
  EXPECT_EQ(names_in(store, shared.report->root), std::vector<std::string>{"good"});
}

TEST(Share, UnreadableIsReportedWithTheSystemsReason) {
  // Opening another process's memory map through a dead thread fails even for root.
  RunningStore store;
  TempDir dir;
  dir.write("good", "x");
  auto shared = share(store, {"/proc/self/mem", dir.str("good")});
  ASSERT_TRUE(shared.report);
  EXPECT_EQ(shared.report->failed, 1U);
  ASSERT_EQ(shared.issues.size(), 1U);
  EXPECT_EQ(shared.issues[0].kind, PathIssue::Kind::unreadable);
  EXPECT_EQ(shared.issues[0].reason, "read: Input/output error");
}

TEST(Share, SeveralPathsKeepTheirNames) {
  TempDir dir;
  dir.write("b/inner/x", "1");
  dir.write("a", "2");
  dir.write("c/y", "3");
  RunningStore store;
  auto shared = share(store, {dir.str("c/"), dir.str("a"), dir.str("b")});
  ASSERT_TRUE(shared.report) << shared.report.error().to_string();
  EXPECT_EQ(names_in(store, shared.report->root),
            (std::vector<std::string>{"a", "b/", "b/inner/", "b/inner/x", "c/", "c/y"}));
  auto other_order = share(store, {dir.str("b"), dir.str("c"), dir.str("a")});
  EXPECT_EQ(other_order.report->root, shared.report->root);
  auto one_file = share(store, {dir.str("a")});
  EXPECT_EQ(names_in(store, one_file.report->root), std::vector<std::string>{"a"});
}

TEST(Share, WrongPathsAreErrors) {
  TempDir dir;
  dir.write("a/x", "1");
  dir.write("b/a/x", "2");
  ASSERT_EQ(::mkfifo(dir.str("pipe").c_str(), 0600), 0);
  RunningStore store;
  EXPECT_EQ(share(store, {dir.str("nothing")}).report.error().code, Errc::invalid_argument);
  EXPECT_NE(share(store, {dir.str("nothing")}).report.error().message.find("nothing"), std::string::npos);
  EXPECT_EQ(share(store, {}).report.error().code, Errc::invalid_argument);
  EXPECT_NE(share(store, {dir.str("a"), dir.str("b/a")}).report.error().message.find("same name"), std::string::npos);
  EXPECT_NE(share(store, {dir.str("pipe"), dir.str("a")}).report.error().message.find("a named pipe"),
            std::string::npos);
  EXPECT_EQ(store.stats().ops, 0U);
}

TEST(Share, TheNodesOwnDataIsNeverShared) {
  TempDir dir;
  dir.write("file", "x");
  dir.write("deep/data/agent.key", "secret");
  RunningStore store;
  ShareOptions options;
  options.exclude = {dir.str("deep/data")};
  auto shared = share(store, {dir.str()}, options);
  EXPECT_EQ(names_in(store, shared.report->root), (std::vector<std::string>{"deep/", "file"}));
  EXPECT_EQ(shared.report->skipped, 1U);
  EXPECT_EQ(share(store, {dir.str("deep/data")}, options).report.error().code, Errc::invalid_argument);
}

TEST(Share, FoldersDeeperThanAnyPathCanBe) {
  TempDir dir;
  // The path has 7,500 bytes, nearly twice what one system call takes.
  int at = ::open(dir.str().c_str(), O_RDONLY | O_DIRECTORY);
  for (int i = 0; i < 1500; ++i) {
    ASSERT_EQ(::mkdirat(at, "deep", 0700), 0);
    const int next = ::openat(at, "deep", O_RDONLY | O_DIRECTORY);
    ::close(at);
    at = next;
    ASSERT_GE(at, 0);
  }
  const int file = ::openat(at, "bottom", O_WRONLY | O_CREAT, 0600);
  ASSERT_EQ(::write(file, "x", 1), 1);
  ::close(file);
  ::close(at);
  RunningStore store;
  auto shared = share(store, {dir.str()});
  ASSERT_TRUE(shared.report) << shared.report.error().to_string();
  EXPECT_EQ(shared.report->folder, (FolderSummary{1, 1500, 1, 1}));
  EXPECT_TRUE(shared.issues.empty());
}

TEST(Share, StopsWhenAsked) {
  TempDir dir;
  fill(dir);
  RunningStore store;
  std::stop_source stop;
  stop.request_stop();
  auto report = share_paths(store.runtime, *store.store, {dir.str()}, {}, stop.get_token());
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Errc::cancelled);
}

TEST(Share, ModificationTimesOnRequest) {
  TempDir dir;
  dir.write("a", "x");
  RunningStore store;
  ShareOptions options;
  options.mtime = true;
  const auto before = share(store, {dir.str()}, options).report->root;
  fs::last_write_time(dir.path() / "a", fs::file_time_type::clock::now() - std::chrono::hours(5));
  EXPECT_NE(share(store, {dir.str()}, options).report->root, before);
}

}  // namespace
}  // namespace kitsune2::files
