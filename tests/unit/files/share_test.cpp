#include <sys/socket.h>
#include <sys/un.h>

#include <random>

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
  // One file changes: its pack and few behind it are new, not all.
  dir.write("d0/f500", noise(2000, 77'777));
  auto again = share(store, {dir.str()});
  EXPECT_LE(again.report->new_ops, 8U);
  EXPECT_GE(again.report->new_ops, 3U);  // root, manifest, pack
}

TEST(Share, WhatIsNotAFileIsNamedAndLeftOut) {
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
  EXPECT_EQ(why["link"], "a symbolic link; links are not followed");
  EXPECT_EQ(why["rootlink"], "a symbolic link; links are not followed");
  EXPECT_EQ(why["pipe"], "a named pipe");
  EXPECT_EQ(why["bad\xff"], "a name that is not UTF-8");
  EXPECT_NE(why[".k2part-0000"], "");
}

TEST(Share, FileThatIsNotWhatItSaysIsReported) {
  // Files of /proc claim to be empty and are not: the same as a file that grows while it is read.
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
  // Opening another process's memory map through a dead thread fails for root too.
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
