// The manifest: what is written is read, and what the format forbids is refused.
#include "files/manifest.hpp"

#include <random>

#include "unit/files/files_harness.hpp"

namespace kitsune2::files {
namespace {

using Encoder = ManifestEncoder;
using Raw = std::vector<std::uint8_t>;

OpId id(int number) { return op_id_of(as_bytes("op " + std::to_string(number))); }

FileHead head(std::string name, std::uint64_t size, bool packed = false) {
  FileHead out;
  out.name = std::move(name);
  out.size = size;
  out.packed = packed;
  return out;
}

/// Reads a manifest to its end, one line per record. An error is the last line.
std::vector<std::string> read(const Raw& raw, const RootOp& root, std::size_t piece = 7) {
  std::size_t at = 0;
  ManifestReader reader(
      [&]() -> Result<Bytes> {
        const std::size_t take = std::min(piece, raw.size() - at);
        at += take;
        return Bytes::copy_of(ByteView(raw).subspan(at - take, take));
      },
      root);
  std::vector<std::string> out;
  while (true) {
    auto record = reader.next();
    if (!record) {
      out.push_back("error " + std::string(to_string(record.error().code)) + ": " + record.error().message);
      return out;
    }
    if (!*record) return out;
    const auto& r = **record;
    switch (r.kind) {
      case ManifestRecord::Kind::dir:
        out.push_back("dir " + reader.path());
        break;
      case ManifestRecord::Kind::link:
        out.push_back("link " + reader.path() + " -> " + r.target);
        break;
      case ManifestRecord::Kind::dir_end:
        out.push_back("end");
        break;
      case ManifestRecord::Kind::file:
        out.push_back("file " + reader.path() + ' ' + std::to_string(r.file.size) +
                      (r.file.mode == kExecutableMode ? " x" : "") + (r.file.packed ? " packed" : "") +
                      (r.file.mtime
                           ? " @" + std::to_string(r.file.mtime->seconds) + '.' + std::to_string(r.file.mtime->nanos)
                           : ""));
        break;
      case ManifestRecord::Kind::ids:
        out.push_back("ids " + std::to_string(r.ids.size()));
        break;
      case ManifestRecord::Kind::file_end:
        out.push_back("file end");
        break;
      case ManifestRecord::Kind::pack:
        out.push_back("pack " + std::to_string(r.size));
        break;
    }
  }
}

RootOp root_for(const Raw& raw, FolderSummary folder) {
  RootOp root;
  root.chunk_log2 = 10;
  root.manifest_bytes = raw.size();
  root.folder = folder;
  return root;
}

Raw sample(FolderSummary& folder) {
  Raw raw;
  Encoder::begin(raw);
  Encoder::dir(raw, "a");
  Encoder::file(raw, head("empty", 0), {});
  auto script = head("script", 1500);
  script.mode = kExecutableMode;
  script.mtime = FileTime{-5, 999'999'999};
  Encoder::file(raw, script, {id(1), id(2)});
  Encoder::dir_end(raw);
  Encoder::pack(raw, id(3), 30);
  Encoder::file(raw, head("p1", 10, true), {});
  Encoder::dir(raw, "p2");
  Encoder::file(raw, head("p1", 20, true), {});
  Encoder::dir_end(raw);
  Encoder::dir_end(raw);
  folder = FolderSummary{4, 2, 1530, 3};
  return raw;
}

TEST(Manifest, EveryRecordInPiecesOfAnySize) {
  FolderSummary folder;
  const Raw raw = sample(folder);
  const std::vector<std::string> expected = {"dir a",
                                             "file a/empty 0",
                                             "file end",
                                             "file a/script 1500 x @-5.999999999",
                                             "ids 2",
                                             "file end",
                                             "end",
                                             "pack 30",
                                             "file p1 10 packed",
                                             "file end",
                                             "dir p2",
                                             "file p2/p1 20 packed",
                                             "file end",
                                             "end",
                                             "end"};
  for (const std::size_t piece : {1U, 2U, 31U, 32U, 33U, 1000U})
    EXPECT_EQ(read(raw, root_for(raw, folder), piece), expected);
}

TEST(Manifest, EveryCutIsAnError) {
  FolderSummary folder;
  const Raw raw = sample(folder);
  for (std::size_t size = 0; size < raw.size(); ++size) {
    const auto lines = read(Raw(raw.begin(), raw.begin() + static_cast<std::ptrdiff_t>(size)), root_for(raw, folder));
    ASSERT_FALSE(lines.empty());
    EXPECT_TRUE(lines.back().starts_with("error malformed")) << size << lines.back();
  }
}

TEST(Manifest, CountsMustBeThoseOfTheRoot) {
  FolderSummary folder;
  const Raw raw = sample(folder);
  for (auto* field : {&folder.files, &folder.dirs, &folder.bytes, &folder.ops}) {
    for (const int step : {-1, 1}) {
      *field += static_cast<std::uint64_t>(step);
      const auto lines = read(raw, root_for(raw, folder));
      EXPECT_TRUE(lines.back().starts_with("error malformed")) << lines.back();
      *field -= static_cast<std::uint64_t>(step);
    }
  }
}

TEST(Manifest, MoreIdsThanOneRecordHolds) {
  Raw raw;
  Encoder::begin(raw);
  Encoder::file(raw, head("big", 2500 * 1024), std::vector<OpId>(2500, id(1)));
  Encoder::dir_end(raw);
  const auto lines = read(raw, root_for(raw, FolderSummary{1, 0, 2500 * 1024, 2500}), 5000);
  EXPECT_EQ(lines,
            (std::vector<std::string>{"file big 2560000", "ids 1024", "ids 1024", "ids 452", "file end", "end"}));
}

/// A manifest made of `body`, with names that break the rules.
std::string fault_of(const std::function<void(Raw&)>& body, FolderSummary folder = {9, 9, 9000, 9}) {
  Raw raw;
  Encoder::begin(raw);
  body(raw);
  Encoder::dir_end(raw);
  const auto lines = read(raw, root_for(raw, folder));
  return lines.back();
}

void raw_name(Raw& raw, std::uint8_t kind, std::string_view name) {
  raw.push_back(kind);
  raw.push_back(static_cast<std::uint8_t>(name.size()));
  raw.insert(raw.end(), name.begin(), name.end());
  if (kind == 2) {
    raw.push_back(0);  // flags
    raw.push_back(0);  // size
  }
}

TEST(ManifestHostile, NamesThatLeaveTheFolder) {
  for (const std::string& name :
       {std::string(".."), std::string("."), std::string("/etc/passwd"), std::string("a/../../b"), std::string(""),
        std::string("a\0b", 3), std::string("\xff\xff"), std::string(".k2part-1")}) {
    for (const std::uint8_t kind : {1, 2}) {
      const auto fault = fault_of([&](Raw& raw) { raw_name(raw, kind, name); });
      EXPECT_TRUE(fault.starts_with("error malformed")) << printable(name);
      EXPECT_NE(fault.find("name"), std::string::npos) << fault;
    }
  }
}

TEST(ManifestHostile, NamesTwiceAndOutOfOrder) {
  for (const std::uint8_t one : {1, 2}) {
    for (const std::uint8_t two : {1, 2}) {
      for (const char* second : {"b", "a"}) {
        const auto fault = fault_of([&](Raw& raw) {
          raw_name(raw, one, "b");
          if (one == 1) Encoder::dir_end(raw);
          raw_name(raw, two, second);
        });
        EXPECT_NE(fault.find("names not in order"), std::string::npos) << fault;
      }
    }
  }
}

TEST(ManifestHostile, Packs) {
  EXPECT_NE(fault_of([](Raw& raw) { Encoder::file(raw, head("a", 5, true), {}); }).find("over the end of its pack"),
            std::string::npos);
  EXPECT_NE(fault_of([](Raw& raw) {
              Encoder::pack(raw, id(1), 10);
              Encoder::pack(raw, id(2), 10);
            }).find("before the last one is used up"),
            std::string::npos);
  EXPECT_NE(fault_of([](Raw& raw) {
              Encoder::pack(raw, id(1), 10);
              Encoder::file(raw, head("a", 9, true), {});
            }).find("not used up"),
            std::string::npos);
  EXPECT_NE(fault_of([](Raw& raw) { Encoder::pack(raw, id(1), 0); }).find("size out of range"), std::string::npos);
  EXPECT_NE(fault_of([](Raw& raw) { Encoder::pack(raw, id(1), 1025); }).find("size out of range"), std::string::npos);
  EXPECT_NE(fault_of([](Raw& raw) {
              Encoder::pack(raw, id(1), 10);
              Encoder::file(raw, head("a", 0, true), {});
            }).find("empty file in a pack"),
            std::string::npos);
}

TEST(ManifestHostile, NumbersThatOverflow) {
  const auto file_of_size = [](std::initializer_list<std::uint8_t> size) {
    return [bytes = std::vector<std::uint8_t>(size)](Raw& raw) {
      raw.insert(raw.end(), {2, 1, 'a', 0});
      raw.insert(raw.end(), bytes.begin(), bytes.end());
    };
  };
  const FolderSummary folder{9, 9, UINT64_MAX, 9};
  EXPECT_NE(
      fault_of(file_of_size({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}), folder).find("over 64 bits"),
      std::string::npos);
  EXPECT_NE(fault_of(file_of_size({0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1}), folder)
                .find("over 64 bits"),
            std::string::npos);
  EXPECT_NE(fault_of(file_of_size({0x80, 0x00}), folder).find("superfluous bytes"), std::string::npos);
  // 2^64 - 1 bytes: the ids end before they would be held.
  EXPECT_TRUE(fault_of(file_of_size({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}), folder)
                  .starts_with("error malformed"));
}

TEST(ManifestHostile, UnknownKindsFlagsAndRests) {
  EXPECT_NE(fault_of([](Raw& raw) { raw.push_back(9); }).find("unknown kind"), std::string::npos);
  EXPECT_NE(fault_of([](Raw& raw) {
              raw.insert(raw.end(), {2, 1, 'a', 8, 0});
            }).find("unknown flags"),
            std::string::npos);
  EXPECT_NE(fault_of([](Raw& raw) { Encoder::dir_end(raw); }, {}).find("bytes after the end"), std::string::npos);
  Raw other = {'K', '2', 'F', 'M', 2, 0};
  EXPECT_NE(read(other, root_for(other, {})).back().find("not of version 1"), std::string::npos);
}

/// The same in version 2: with the modes of folders and files.
std::string fault_of_2(const std::function<void(Raw&)>& body) {
  Raw raw;
  Encoder::begin(raw, 2);
  body(raw);
  Encoder::dir_end(raw);
  FolderSummary folder{9, 9, 9000, 9};
  folder.links = 2;
  RootOp root = root_for(raw, folder);
  root.version = 2;
  return read(raw, root).back();
}

TEST(Manifest, VersionTwoHasModesAndLinks) {
  Raw raw;
  Encoder::begin(raw, 2);
  Encoder::dir2(raw, "a", 0500);
  auto file = head("f", 3);
  file.mode = 0604;
  file.mtime = FileTime{1, 2};
  Encoder::file(raw, file, {id(1)}, 2);
  Encoder::link(raw, "up", "../b");
  Encoder::dir_end(raw);
  Encoder::link(raw, "b", "a/f");
  Encoder::dir_end(raw);
  EXPECT_EQ(to_hex(ByteView(raw).subspan(0, 26)),
            "4b32464d02"  // K2FM, 2
            "010161"
            "4001"  // folder "a", 0500
            "020166"
            "02"
            "8401"
            "03"  // file "f": mtime; 0604; 3 bytes
            "0100000000000000"
            "02");
  FolderSummary folder{1, 1, 3, 1};
  folder.links = 2;
  RootOp root = root_for(raw, folder);
  root.version = 2;
  const std::vector<std::string> expected = {"dir a", "file a/f 3 @1.2", "ids 1", "file end", "link a/up -> ../b",
                                             "end",   "link b -> a/f",   "end"};
  for (const std::size_t piece : {1U, 3U, 1000U}) EXPECT_EQ(read(raw, root, piece), expected);
  for (std::size_t size = 0; size < raw.size(); ++size) {
    const auto lines = read(Raw(raw.begin(), raw.begin() + static_cast<std::ptrdiff_t>(size)), root);
    EXPECT_TRUE(lines.back().starts_with("error malformed")) << size << lines.back();
  }
  root.folder.links = 1;
  EXPECT_NE(read(raw, root).back().find("more links"), std::string::npos);
  root.folder.links = 3;
  EXPECT_NE(read(raw, root).back().find("fewer files, folders, links"), std::string::npos);
  root.version = 1;  // a root and a list of different versions
  EXPECT_NE(read(raw, root).back().find("not of version 1"), std::string::npos);
}

TEST(ManifestHostile, LinksThatLeadOut) {
  const auto in_folder = [](std::string_view target) {
    return fault_of_2([&](Raw& raw) {
      Encoder::dir2(raw, "d", 0755);
      Encoder::link(raw, "l", target);
      Encoder::dir_end(raw);
    });
  };
  EXPECT_NE(in_folder("../x").find("fewer files"), std::string::npos) << "in itself such a link is allowed";
  EXPECT_NE(in_folder("/etc/passwd").find("absolute"), std::string::npos);
  EXPECT_NE(in_folder("../../x").find("leads out"), std::string::npos);
  EXPECT_NE(in_folder("x/../../..").find("with .. after a name"), std::string::npos);
  EXPECT_NE(in_folder("").find("without a target"), std::string::npos);
  EXPECT_NE(in_folder(std::string_view("x\0y", 3)).find("zero byte"), std::string::npos);
  EXPECT_NE(in_folder(std::string(4096, 'x')).find("4,095"), std::string::npos);
  EXPECT_NE(fault_of_2([](Raw& raw) { Encoder::link(raw, "l", ".."); }).find("leads out"), std::string::npos);
  // A length that would take all memory.
  EXPECT_NE(fault_of_2([](Raw& raw) {
              raw.insert(raw.end(), {4, 1, 'l', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1});
            }).find("4,095"),
            std::string::npos);
}

TEST(ManifestHostile, ALinkAndSomethingBehindIt) {
  // No name occurs twice, so nothing can be written through a link of the same share.
  EXPECT_NE(fault_of_2([](Raw& raw) {
              Encoder::link(raw, "x", "y");
              Encoder::dir2(raw, "x", 0755);
              Encoder::dir_end(raw);
            }).find("names not in order"),
            std::string::npos);
  EXPECT_NE(fault_of_2([](Raw& raw) {
              Encoder::link(raw, "x", "y");
              Encoder::file(raw, head("x", 0), {}, 2);
            }).find("names not in order"),
            std::string::npos);
}

TEST(ManifestHostile, ModesBeyondTheNineBits) {
  for (const std::uint8_t high : {0x02, 0x04, 0x08, 0x10, 0x80}) {  // sticky, setgid, setuid, and undefined ones
    EXPECT_NE(fault_of_2([&](Raw& raw) {
                raw.insert(raw.end(), {2, 1, 'a', 0, 0xed, high, 0});
              }).find("permission"),
              std::string::npos);
    EXPECT_NE(fault_of_2([&](Raw& raw) {
                raw.insert(raw.end(), {1, 1, 'a', 0xed, high, 0});
              }).find("permission"),
              std::string::npos);
  }
  // The executable flag exists only in version 1, links only in version 2.
  EXPECT_NE(fault_of_2([](Raw& raw) {
              raw.insert(raw.end(), {2, 1, 'a', 1, 0xed, 1, 0});
            }).find("unknown flags"),
            std::string::npos);
  EXPECT_NE(fault_of([](Raw& raw) { Encoder::link(raw, "l", "a"); }).find("unknown kind"), std::string::npos);
}

TEST(ManifestHostile, PathsAreBounded) {
  for (const std::size_t depth : {kMaxPathBytes / 256 - 1, kMaxPathBytes / 256 + 2}) {
    Raw raw;
    Encoder::begin(raw);
    for (std::size_t i = 0; i < depth; ++i) Encoder::dir(raw, std::string(255, 'd'));
    for (std::size_t i = 0; i <= depth; ++i) Encoder::dir_end(raw);
    const auto last = read(raw, root_for(raw, FolderSummary{0, depth, 0, 0}), 100'000).back();
    if (depth * 256 < kMaxPathBytes) {
      EXPECT_EQ(last, "end");
    } else {
      EXPECT_NE(last.find("too long"), std::string::npos) << last.substr(0, 200);
    }
  }
}

TEST(ManifestHostile, MutatedBytesNeverBreakTheReader) {
  FolderSummary folder;
  const Raw raw = sample(folder);
  std::mt19937_64 random(7);
  std::size_t refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    Raw bad = raw;
    for (int change = 0; change < 1 + round % 3; ++change)
      bad[random() % bad.size()] = static_cast<std::uint8_t>(random());
    const auto lines = read(bad, root_for(bad, folder), 64);
    refused += !lines.empty() && lines.back().starts_with("error") ? 1 : 0;
  }
  EXPECT_GT(refused, 5'000U);
  EXPECT_LT(refused, 20'000U);  // any bytes can be op ids
}

}  // namespace
}  // namespace kitsune2::files
