// What a hostile share, or somebody who can write in the output folder, may try: links in the way.
#include "files/out_writer.hpp"

#include <sys/resource.h>

#include <array>

#include "files/allowance.hpp"
#include "files_harness.hpp"

namespace kitsune2::files {
namespace {

namespace fs = std::filesystem;
using test::snapshot;
using test::TempDir;

/// A share with files of one chunk each, written into a folder.
struct Written {
  OutWriter::Counts counts;
  std::vector<std::string> issues;
};

Written write_out(const std::string& to, bool overwrite) {
  std::map<OpId, Bytes> ops;
  std::vector<std::uint8_t> manifest;
  const auto file = [&](const std::string& name, const std::string& text) {
    const Bytes op = Bytes::copy_of(text);
    ops.emplace(op_id_of(op), op);
    FileHead head;
    head.name = name;
    head.size = op.size();
    ManifestEncoder::file(manifest, head, {op_id_of(op)});
  };
  ManifestEncoder::begin(manifest);
  file("a", "text of a");
  ManifestEncoder::dir(manifest, "d");
  file("in d", "text in d");
  ManifestEncoder::dir_end(manifest);
  ManifestEncoder::dir_end(manifest);
  RootOp root;
  root.manifest_bytes = manifest.size();
  root.folder = FolderSummary{2, 1, 18, 2};
  bool given = false;
  ManifestReader reader(
      [&]() -> Result<Bytes> { return std::exchange(given, true) ? Bytes() : Bytes(std::move(manifest)); }, root);
  Written out;
  OutWriter::Options options;
  options.overwrite = overwrite;
  options.salt = "salt";
  options.issue = [&](const PathIssue& issue) { out.issues.push_back(issue.path + ": " + issue.reason); };
  options.skip = [](std::uint64_t) { return false; };
  options.settled = [](std::uint64_t) {};
  options.last_pass = [] { return true; };
  OutWriter writer(
      OutWriter::open_root(to).value(),
      [&](const std::vector<OpId>& ids) -> Result<std::vector<Bytes>> {
        std::vector<Bytes> bytes;
        for (const OpId& id : ids) bytes.push_back(ops.at(id));
        return bytes;
      },
      options);
  EXPECT_TRUE(writer.run(reader).has_value());
  out.counts = writer.counts();
  return out;
}

/// One file of many chunks that are all the same op, and its outcome.
class LongFile {
 public:
  static constexpr std::uint64_t kChunks = 2500;  // more than fit into one record of the list
  static constexpr std::uint64_t kSize = kChunks * 1024;

  Result<void> write(const std::string& to, bool overwrite, std::function<bool()> stopped) {
    std::vector<std::uint8_t> manifest;
    FileHead head;
    head.name = "long";
    head.size = kSize;
    ManifestEncoder::begin(manifest);
    ManifestEncoder::file(manifest, head, std::vector<OpId>(kChunks, op_id_of(chunk_)));
    ManifestEncoder::dir_end(manifest);
    RootOp root;
    root.chunk_log2 = 10;
    root.manifest_bytes = manifest.size();
    root.folder = FolderSummary{1, 0, kSize, kChunks};
    bool given = false;
    ManifestReader reader(
        [&]() -> Result<Bytes> { return std::exchange(given, true) ? Bytes() : Bytes(std::move(manifest)); }, root);
    OutWriter::Options options;
    options.overwrite = overwrite;
    options.chunk_bytes = root.chunk_bytes();
    options.salt = "salt";
    options.skip = [](std::uint64_t) { return false; };
    options.settled = [](std::uint64_t) {};
    options.last_pass = [] { return true; };
    options.issue = [this](const PathIssue& issue) { issues_.push_back(issue); };
    options.stopped = std::move(stopped);
    options.handled = [this](std::int64_t bytes) {
      handled_ += bytes;
      most_ = std::max(most_, handled_);
    };
    OutWriter writer(
        OutWriter::open_root(to).value(),
        [this](const std::vector<OpId>& ids) -> Result<std::vector<Bytes>> {
          return std::vector<Bytes>(ids.size(), chunk_);
        },
        options);
    return writer.run(reader);
  }

  std::int64_t handled_ = 0, most_ = 0;
  std::vector<PathIssue> issues_;
  const Bytes chunk_ = Bytes::copy_of(test::noise(1024, 1));
};

TEST(OutWriter, AStopInTheMiddleOfALongFileIsObeyedAndLeavesNothing) {
  const TempDir dir;
  LongFile file;
  const auto done = file.write(dir.str("out"), false, [&] { return file.handled_ > 0; });
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Errc::cancelled);
  EXPECT_LE(file.most_, 16 * 1024) << "nothing was written after the stop";
  EXPECT_TRUE(snapshot(dir.path() / "out").empty());
}

TEST(OutWriter, AStopIsObeyedWhileAFileThatIsThereIsCompared) {
  const TempDir dir;
  LongFile before;
  ASSERT_TRUE(before.write(dir.str("out"), false, {}));
  EXPECT_EQ(before.handled_, static_cast<std::int64_t>(LongFile::kSize));
  const auto there = snapshot(dir.path() / "out");
  LongFile file;
  const auto done = file.write(dir.str("out"), false, [&] { return file.handled_ > 0; });
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Errc::cancelled);
  EXPECT_LE(file.most_, 2 * 1024);
  EXPECT_EQ(snapshot(dir.path() / "out"), there);
}

TEST(OutWriter, BytesAreCountedOnceWhetherWrittenFoundOrReplaced) {
  const TempDir dir;
  for (int round = 0; round < 2; ++round) {  // written, then found in place
    LongFile file;
    ASSERT_TRUE(file.write(dir.str("out"), false, {}));
    EXPECT_EQ(file.handled_, static_cast<std::int64_t>(LongFile::kSize));
    EXPECT_EQ(file.most_, file.handled_);
  }
  // The same size, but other bytes in the middle: compared up to there, then written from the start.
  std::string other = snapshot(dir.path() / "out").at("long");
  other[LongFile::kSize / 2] ^= 1;
  dir.write("out/long", other);
  LongFile file;
  ASSERT_TRUE(file.write(dir.str("out"), true, {}));
  EXPECT_EQ(file.handled_, static_cast<std::int64_t>(LongFile::kSize));
  EXPECT_EQ(file.most_, file.handled_);
}

TEST(OutWriter, EqualContentOfAnotherFileIsTakenFromIt) {
  const TempDir dir;
  LongFile file;
  ASSERT_TRUE(file.write(dir.str("out"), false, {}));
  const std::string whole = snapshot(dir.path() / "out").at("long");
  for (const std::size_t at : {std::size_t{0}, std::size_t{1500 * 1024 + 7}, whole.size() - 1}) {
    std::string other = whole;
    other[at] ^= 1;
    dir.write("out/long", other);
    LongFile again;
    ASSERT_TRUE(again.write(dir.str("out"), true, {}));
    EXPECT_TRUE(again.issues_.empty());
    EXPECT_EQ(snapshot(dir.path() / "out"), (std::map<std::string, std::string>{{"long", whole}})) << at;
  }
}

TEST(OutWriter, AFileThatChangesWhileItIsComparedIsLeftAsItIs) {
  const TempDir dir;
  LongFile file;
  ASSERT_TRUE(file.write(dir.str("out"), false, {}));
  std::string other = snapshot(dir.path() / "out").at("long");
  other[2400 * 1024] ^= 1;
  dir.write("out/long", other);
  // Somebody writes to a part that was found to be the same, before the place of the difference is reached.
  other[100] ^= 1;
  LongFile again;
  bool written = false;
  ASSERT_TRUE(again.write(dir.str("out"), true, [&] {
    if (again.handled_ > 2000 * 1024 && !std::exchange(written, true)) dir.write("out/long", other);
    return false;
  }));
  ASSERT_EQ(again.issues_.size(), 1U);
  EXPECT_EQ(again.issues_[0].kind, PathIssue::Kind::changed) << again.issues_[0].reason;
  EXPECT_EQ(snapshot(dir.path() / "out"), (std::map<std::string, std::string>{{"long", other}}));
}

/// A file that repeats one chunk of 1 KiB `chunks` times, with a list that is made while it is read.
Result<OutWriter::Counts> write_repeated(const std::string& to, std::uint64_t chunks, OutWriter::Fetch fetch) {
  const OpId id = op_id_of(as_bytes("the op"));
  std::vector<std::uint8_t> head;
  FileHead file;
  file.name = "repeated";
  file.size = chunks * 1024;
  ManifestEncoder::begin(head);
  ManifestEncoder::file(head, file, {});
  std::vector<std::uint8_t> ids;
  for (int i = 0; i < 1024; ++i) ids.insert(ids.end(), id.view().begin(), id.view().end());
  RootOp root;
  root.chunk_log2 = 10;
  root.manifest_bytes = head.size() + chunks * 32 + 1;
  root.folder = FolderSummary{1, 0, file.size, chunks};
  std::uint64_t given = 0;
  ManifestReader reader(
      [&]() -> Result<Bytes> {
        if (given == 0) return ++given, Bytes::copy_of(head);
        if (given <= chunks / 1024) return ++given, Bytes::copy_of(ids);
        return given++ == chunks / 1024 + 1 ? Bytes::copy_of(std::string(1, '\0')) : Bytes();
      },
      root);
  OutWriter::Options options;
  options.chunk_bytes = 1024;
  options.skip = [](std::uint64_t) { return false; };
  options.settled = [](std::uint64_t) {};
  options.last_pass = [] { return false; };
  OutWriter writer(OutWriter::open_root(to).value(), std::move(fetch), options);
  if (auto done = writer.run(reader); !done) return done.error();
  return writer.counts();
}

std::uint64_t most_memory_kib() {
  rusage usage{};
  EXPECT_EQ(::getrusage(RUSAGE_SELF, &usage), 0);
  return static_cast<std::uint64_t>(usage.ru_maxrss);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#else
constexpr bool kSanitized = false;
#endif

TEST(ManifestHostile, ALongListTakesNoMemory) {
  const TempDir dir;
  const auto before = most_memory_kib();
  // 4 M ids, 128 MiB of list. The op is not available, so nothing is written, and the list is read to its end.
  const auto counts = write_repeated(
      dir.str("out"), 4U << 20,
      [](const std::vector<OpId>&) -> Result<std::vector<Bytes>> { return make_error(Errc::not_found, "the op"); });
  ASSERT_TRUE(counts) << counts.error().to_string();
  EXPECT_EQ(counts->postponed, 1U);
  // A sanitizer keeps freed memory for a while.
  if (!kSanitized) {
    EXPECT_LT(most_memory_kib() - before, 32U << 10);
  }
}

TEST(ManifestHostile, AFileThatTheDiskHasNoRoomForIsNotBegun) {
  const TempDir dir;
  const auto done = write_repeated(dir.str("out"), std::uint64_t{1} << 45, [](const std::vector<OpId>&) {
    ADD_FAILURE() << "an op was asked for";
    return std::vector<Bytes>();
  });
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Errc::disk_full);
  EXPECT_EQ(done.error().message.find("repeated: it has 32.0 PiB, and the disk has room for "), 0U)
      << done.error().message;
  EXPECT_TRUE(snapshot(dir.path() / "out").empty());
}

TEST(ManifestHostile, TheAllowedCostOfAShareFollowsFromTheHeldOps) {
  constexpr std::uint64_t kMiB = 1U << 20, kGiB = std::uint64_t{1} << 30;
  EXPECT_TRUE(kForFiles.covers(16 * kGiB, 0)) << "a file of zeros";
  EXPECT_FALSE(kForFiles.covers(16 * kGiB + 1, 0));
  EXPECT_TRUE(kForFiles.covers(1024 * kGiB, kGiB)) << "a sparse image of 1 TiB with 1 GiB in it";
  EXPECT_FALSE(kForFiles.covers(141 * 1024 * kGiB, kMiB)) << "141 TiB of one op";
  EXPECT_TRUE(kForList.covers(128 * kMiB, kGiB)) << "the list of that image";
  EXPECT_FALSE(kForList.covers(16 * kGiB, kMiB));
  EXPECT_TRUE(kForFiles.covers(UINT64_MAX, UINT64_MAX));
  for (const auto held : {std::uint64_t{0}, kMiB, kGiB}) {
    EXPECT_TRUE(kForFiles.covers(held, held) && kForList.covers(held, held))
        << "no share without repetition is refused";
  }
}

TEST(OutWriter, SymlinksInTheOutputFolderAreNotFollowed) {
  const TempDir dir;
  dir.write("outside/file", "text of a");
  fs::create_directory(dir.path() / "out");
  fs::create_symlink(dir.path() / "outside/file", dir.path() / "out/a");
  fs::create_directory_symlink(dir.path() / "outside", dir.path() / "out/d");
  const auto before = snapshot(dir.path());
  const auto kept = write_out(dir.str("out"), false);
  EXPECT_EQ(kept.counts.written, 0U);
  EXPECT_EQ(kept.counts.kept, 0U) << "a link to the same text is not the file";
  EXPECT_EQ(kept.counts.failed, 2U);
  EXPECT_EQ(kept.counts.dirs_failed, 1U);
  EXPECT_EQ(kept.issues.size(), 2U);
  EXPECT_EQ(snapshot(dir.path()), before);
  // With overwrite, a link in place of a file is replaced itself; one in place of a folder stays in the way.
  const auto over = write_out(dir.str("out"), true);
  EXPECT_EQ(over.counts.written, 1U);
  auto after = before;
  after["out/a"] = "text of a";
  EXPECT_EQ(snapshot(dir.path()), after);
  EXPECT_FALSE(fs::is_symlink(dir.path() / "out/a"));
}

TEST(OutWriter, APlantedLinkUnderATemporaryNameIsReplacedAndNotWrittenThrough) {
  const TempDir dir;
  dir.write("outside/file", "precious");
  fs::create_directory(dir.path() / "out");
  // Whoever knows the share can compute the names.
  for (const std::string path : {"a", "d/in d"}) {
    const OpId hash = op_id_of(as_bytes("salt/" + path));
    const std::string name = std::string(kTempPrefix) + to_hex(hash.view().subspan(0, 8));
    fs::create_symlink(dir.path() / "outside/file", dir.path() / "out" / name);
  }
  const auto done = write_out(dir.str("out"), false);
  EXPECT_EQ(done.counts.written, 2U);
  EXPECT_EQ(dir.read("outside/file"), "precious");
  EXPECT_EQ(dir.read("out/a"), "text of a");
  EXPECT_EQ(dir.read("out/d/in d"), "text in d");
}

/// Writes a share of version 2 without data ops: empty files, folders, links.
OutWriter::Counts write_out_2(const std::string& to, bool overwrite, FolderSummary folder,
                              const std::function<void(std::vector<std::uint8_t>&)>& body,
                              std::vector<std::string>* issues = nullptr) {
  std::vector<std::uint8_t> manifest;
  ManifestEncoder::begin(manifest, 2);
  body(manifest);
  ManifestEncoder::dir_end(manifest);
  RootOp root;
  root.version = 2;
  root.manifest_bytes = manifest.size();
  root.folder = folder;
  const Bytes bytes(std::move(manifest));
  const auto reader = [&] {
    return ManifestReader(
        [&bytes, given = false]() mutable -> Result<Bytes> { return std::exchange(given, true) ? Bytes() : bytes; },
        root);
  };
  OutWriter::Options options;
  options.overwrite = overwrite;
  options.modes = true;
  options.salt = "salt";
  options.issue = [&](const PathIssue& issue) {
    if (issues != nullptr) issues->push_back(issue.path + ": " + issue.reason);
  };
  options.skip = [](std::uint64_t) { return false; };
  options.settled = [](std::uint64_t) {};
  options.last_pass = [] { return true; };
  OutWriter writer(
      OutWriter::open_root(to).value(),
      [](const std::vector<OpId>&) -> Result<std::vector<Bytes>> { return std::vector<Bytes>(); }, options);
  auto first = reader();
  EXPECT_TRUE(writer.run(first).has_value());
  auto second = reader();
  EXPECT_TRUE(writer.finish(second).has_value());
  return writer.counts();
}

FolderSummary counts(std::uint64_t files, std::uint64_t dirs, std::uint64_t links) {
  FolderSummary out{files, dirs, 0, 0};
  out.links = links;
  return out;
}

void empty_file(std::vector<std::uint8_t>& out, const std::string& name, std::uint16_t mode = 0644) {
  FileHead head;
  head.name = name;
  head.mode = mode;
  ManifestEncoder::file(out, head, {}, 2);
}

mode_t mode_of(const std::string& path) {
  struct stat info {};
  EXPECT_EQ(::lstat(path.c_str(), &info), 0) << path;
  return info.st_mode & 07777;
}

TEST(OutWriter, NoChainOfLinksOfAShareLeadsOut) {
  // The worst that a reader lets through: links to folders nearer to the top, links through them, loops.
  const TempDir dir;
  dir.write("secret", "outside");
  const auto made = write_out_2(dir.str("out"), false, counts(1, 3, 8), [](auto& m) {
    ManifestEncoder::dir2(m, "a", 0755);
    ManifestEncoder::dir2(m, "b", 0755);
    ManifestEncoder::dir2(m, "c", 0755);
    ManifestEncoder::link(m, "back", "../b/c");
    ManifestEncoder::link(m, "top", "../../..");  // to the share itself, and no further
    ManifestEncoder::dir_end(m);
    ManifestEncoder::link(m, "deep", "c/top/a/b/c/top/secret");
    ManifestEncoder::dir_end(m);
    empty_file(m, "file");
    ManifestEncoder::dir_end(m);
    ManifestEncoder::link(m, "chain1", "chain2");
    ManifestEncoder::link(m, "chain2", "a/b/c/top/a/b/deep");
    ManifestEncoder::link(m, "good", "a/b/c/top/a/file");
    ManifestEncoder::link(m, "loop", "loop/x");
    ManifestEncoder::link(m, "secret2", "a/b/c/top/secret");
  });
  EXPECT_EQ(made.links_written, 8U);
  const auto out = fs::canonical(dir.path() / "out").string();
  std::size_t looked = 0;
  for (const auto& entry : fs::recursive_directory_iterator(out)) {
    if (!entry.is_symlink()) continue;
    ++looked;
    std::error_code error;
    const auto real = fs::canonical(entry.path(), error).string();
    if (error) continue;
    EXPECT_TRUE(real == out || real.starts_with(out + '/')) << entry.path() << " leads to " << real;
  }
  EXPECT_EQ(looked, 8U);
  EXPECT_EQ(fs::canonical(dir.path() / "out/good").string(), out + "/a/file");
  EXPECT_FALSE(fs::exists(dir.path() / "out/chain1"));  // there is a secret, but outside
  EXPECT_FALSE(fs::exists(dir.path() / "out/secret2"));
}

TEST(OutWriter, ALinkNeverReplacesWhatIsThereWithoutOverwrite) {
  const TempDir dir;
  dir.write("out/file", "mine");
  dir.write("out/folder/inside", "mine");
  fs::create_symlink("elsewhere", dir.path() / "out/link");
  fs::create_symlink("target", dir.path() / "out/same");
  const auto body = [](auto& m) {
    for (const char* name : {"file", "folder", "link", "same"}) ManifestEncoder::link(m, name, "target");
  };
  const auto before = snapshot(dir.path());
  std::vector<std::string> issues;
  const auto kept = write_out_2(dir.str("out"), false, counts(0, 0, 4), body, &issues);
  EXPECT_EQ((std::array{kept.links_written, kept.links_kept, kept.links_failed}),
            (std::array<std::uint64_t, 3>{0, 1, 3}));
  EXPECT_EQ(issues.size(), 3U);
  EXPECT_EQ(snapshot(dir.path()), before);
  const auto over = write_out_2(dir.str("out"), true, counts(0, 0, 4), body);
  EXPECT_EQ((std::array{over.links_written, over.links_kept, over.links_failed}),
            (std::array<std::uint64_t, 3>{2, 1, 1}));
  auto after = before;
  after["out/file"] = after["out/link"] = "-> target";
  EXPECT_EQ(snapshot(dir.path()), after);
}

TEST(OutWriter, ModesAreNeverWiderThanTheShareSays) {
  const TempDir dir;
  dir.write("out/kept private", "");
  dir.write("out/kept wide", "");
  fs::create_directories(dir.path() / "out/d");
  ASSERT_EQ(::chmod(dir.str("out/kept private").c_str(), 0600), 0);
  ASSERT_EQ(::chmod(dir.str("out/kept wide").c_str(), 0666), 0);
  ASSERT_EQ(::chmod(dir.str("out/d").c_str(), 0775), 0);
  const auto body = [](auto& m) {
    ManifestEncoder::dir2(m, "d", 0700);
    ManifestEncoder::dir_end(m);
    for (const char* name : {"kept private", "kept wide"}) empty_file(m, name, 0640);
    ManifestEncoder::dir2(m, "made", 0577);
    empty_file(m, "in it", 0600);
    ManifestEncoder::dir_end(m);
    empty_file(m, "new", 0666);
  };
  const mode_t before = ::umask(022);
  write_out_2(dir.str("out"), false, counts(4, 2, 0), body);
  EXPECT_EQ(mode_of(dir.str("out/made/in it")), 0600U);
  EXPECT_EQ(mode_of(dir.str("out/made")), 0555U) << "less the umask";
  EXPECT_EQ(mode_of(dir.str("out/new")), 0644U);
  EXPECT_EQ(mode_of(dir.str("out/d")), 0700U);
  EXPECT_EQ(mode_of(dir.str("out/kept private")), 0600U) << "what is there gets no more";
  EXPECT_EQ(mode_of(dir.str("out/kept wide")), 0640U);
  write_out_2(dir.str("out"), true, counts(4, 2, 0), body);
  ::umask(before);
  EXPECT_EQ(mode_of(dir.str("out/kept private")), 0640U) << "but with overwrite";
  ::chmod(dir.str("out/made").c_str(), 0700);
}

TEST(OutWriter, AnEmptyFolderThatCannotBeMadeCounts) {
  const TempDir dir;
  dir.write("out/d", "a file");
  const mode_t mode = mode_of(dir.str("out/d"));
  const auto done = write_out_2(dir.str("out"), true, counts(0, 2, 0), [](auto& m) {
    ManifestEncoder::dir2(m, "d", 0755);
    ManifestEncoder::dir2(m, "below", 0755);
    ManifestEncoder::dir_end(m);
    ManifestEncoder::dir_end(m);
  });
  EXPECT_EQ(std::pair(done.dirs_failed, done.failed), (std::pair<std::uint64_t, std::uint64_t>{1, 0}));
  EXPECT_EQ(mode_of(dir.str("out/d")), mode) << "what is in the way is left as it is";
}

/// An earlier version of the share said that its owner may not write there. Root may, so the final mode is checked.
TEST(OutWriter, AReadOnlyFolderIsUpdatedWithOverwrite) {
  const TempDir dir;
  dir.write("out/d/old", "");
  ASSERT_EQ(::chmod(dir.str("out/d").c_str(), 0555), 0);
  const mode_t before = ::umask(022);
  for (const auto mode : {std::uint16_t{0755}, std::uint16_t{0555}}) {
    const std::string name = "new " + std::to_string(mode);
    const auto done = write_out_2(dir.str("out"), true, counts(1, 1, 0), [&](auto& m) {
      ManifestEncoder::dir2(m, "d", mode);
      empty_file(m, name);
      ManifestEncoder::dir_end(m);
    });
    EXPECT_EQ(std::pair(done.written, done.dirs_failed), (std::pair<std::uint64_t, std::uint64_t>{1, 0}));
    EXPECT_EQ(mode_of(dir.str("out/d")), mode);
  }
  ::umask(before);
  ::chmod(dir.str("out/d").c_str(), 0755);
}

TEST(OutWriter, AFileOfVersionOneIsNoWiderThan644) {
  const TempDir dir;
  const mode_t before = ::umask(0);
  write_out(dir.str("out"), false);
  ::umask(before);
  EXPECT_EQ(mode_of(dir.str("out/a")), 0644U);
  EXPECT_EQ(mode_of(dir.str("out/d")), 0755U);
}

}  // namespace
}  // namespace kitsune2::files
