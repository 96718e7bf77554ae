// What a hostile share, or someone who can write in the output folder, may try: links in the way.
#include "files/out_writer.hpp"

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

/// One file of many chunks that are all the same op, and what became of it.
class LongFile {
 public:
  static constexpr std::uint64_t kChunks = 400;
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
  // The same size, and other bytes in the middle: compared up to there, then written from the start.
  std::string other = snapshot(dir.path() / "out").at("long");
  other[LongFile::kSize / 2] ^= 1;
  dir.write("out/long", other);
  LongFile file;
  ASSERT_TRUE(file.write(dir.str("out"), true, {}));
  EXPECT_EQ(file.handled_, static_cast<std::int64_t>(LongFile::kSize));
  EXPECT_EQ(file.most_, file.handled_);
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
  EXPECT_EQ(kept.issues.size(), 2U);
  EXPECT_EQ(snapshot(dir.path()), before);
  // With overwrite the link to a file is replaced, itself; the one in place of a folder stays in the way.
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
  // The names can be computed by who knows the share.
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

}  // namespace
}  // namespace kitsune2::files
