// The ops of a share: root and list ops, names and targets of links.
#include "files/format.hpp"

#include "unit/files/files_harness.hpp"

namespace kitsune2::files {
namespace {

using test::noise;
using test::OpMap;

RootOp sample_root() {
  RootOp root;
  root.chunk_log2 = 12;
  root.manifest_bytes = 5000;
  root.folder = FolderSummary{3, 2, 9000, 4};
  root.top = op_id_of(as_bytes("top"));
  return root;
}

TEST(RootOp, RoundTripAndTable) {
  const RootOp root = sample_root();
  const Bytes bytes = root.encode();
  ASSERT_EQ(bytes.size(), kRootBytes);
  EXPECT_EQ(to_hex(bytes.slice(0, 48)),
            "4b324652"  // K2FR
            "010c0000"
            "8813000000000000"
            "0300000000000000"
            "0200000000000000"
            "2823000000000000"
            "0400000000000000");
  auto back = RootOp::decode(bytes);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->chunk_log2, 12);
  EXPECT_EQ(back->manifest_bytes, 5000U);
  EXPECT_EQ(back->folder, root.folder);
  EXPECT_EQ(back->top, root.top);
}

TEST(RootOp, VersionTwoHasTheNumberOfLinks) {
  RootOp root = sample_root();
  root.version = 2;
  root.folder.links = 7;
  const Bytes bytes = root.encode();
  ASSERT_EQ(bytes.size(), kRootBytes2);
  EXPECT_EQ(to_hex(bytes.slice(0, 56)),
            "4b324652"  // K2FR
            "020c0000"
            "8813000000000000"
            "0300000000000000"
            "0200000000000000"
            "2823000000000000"
            "0400000000000000"
            "0700000000000000");
  auto back = RootOp::decode(bytes);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->version, 2);
  EXPECT_EQ(back->folder, root.folder);
  EXPECT_EQ(back->top, root.top);
  for (std::size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(RootOp::decode(bytes.slice(0, size))) << size;
  std::vector<std::uint8_t> many(bytes.begin(), bytes.end());
  many[54] = 1;  // more links than the manifest has bytes
  EXPECT_EQ(RootOp::decode(ByteView(many)).error().code, Errc::malformed);
}

TEST(LinkTarget, OnlyOnesThatStayInside) {
  for (const auto* good : {"a", "a/b", "./a", "a//b/", ".hidden", "..a", "a..", "...", "."}) {
    EXPECT_EQ(target_fault(good, 0), "") << good;
  }
  EXPECT_EQ(target_fault("..", 1), "");
  EXPECT_EQ(target_fault("../../a/b", 2), "");
  EXPECT_EQ(target_fault("./..//./../a", 2), "");
  EXPECT_EQ(target_fault(std::string(kMaxTargetBytes, 'a'), 0), "");
  EXPECT_EQ(target_fault("", 5), "a link without a target");
  EXPECT_EQ(target_fault("/etc/passwd", 5), "a link to an absolute path");
  EXPECT_EQ(target_fault("/", 5), "a link to an absolute path");
  EXPECT_EQ(target_fault("..", 0), "a link that leads out of the folder");
  EXPECT_EQ(target_fault("../../a", 1), "a link that leads out of the folder");
  EXPECT_EQ(target_fault("./..", 0), "a link that leads out of the folder");
  // By the text alone "a" and ".." cancel out; where "a" is a link they do not.
  EXPECT_EQ(target_fault("a/..", 5), "a link with .. after a name");
  EXPECT_EQ(target_fault("../a/../b", 5), "a link with .. after a name");
  EXPECT_EQ(target_fault(std::string_view("a\0b", 3), 0), "a link whose target has a zero byte");
  EXPECT_EQ(target_fault("\xff", 0), "a link whose target is not UTF-8");
  EXPECT_EQ(target_fault(std::string(kMaxTargetBytes + 1, 'a'), 0), "a link with a target of more than 4,095 bytes");
}

TEST(RootOp, RefusesWhatIsNotARoot) {
  const Bytes good = sample_root().encode();
  const auto with = [&](std::size_t at, std::uint8_t value) {
    std::vector<std::uint8_t> bytes(good.begin(), good.end());
    bytes[at] = value;
    return RootOp::decode(ByteView(bytes));
  };
  EXPECT_EQ(RootOp::decode(Bytes()).error().code, Errc::malformed);
  for (std::size_t size = 0; size < good.size(); ++size) EXPECT_FALSE(RootOp::decode(good.slice(0, size))) << size;
  std::vector<std::uint8_t> longer(good.begin(), good.end());
  longer.push_back(0);
  EXPECT_FALSE(RootOp::decode(ByteView(longer)));
  EXPECT_EQ(with(0, 'X').error().code, Errc::malformed);
  EXPECT_EQ(with(4, 0).error().code, Errc::unsupported);
  EXPECT_EQ(with(4, 3).error().code, Errc::unsupported);
  EXPECT_NE(with(4, 3).error().message.find("too old"), std::string::npos);
  EXPECT_EQ(with(4, 2).error().code, Errc::malformed);  // version 2, but too short
  EXPECT_FALSE(with(5, kMinChunkLog2 - 1));
  EXPECT_FALSE(with(5, kMaxChunkLog2 + 1));
  EXPECT_FALSE(with(5, 255));
  EXPECT_FALSE(with(6, 1));
  EXPECT_FALSE(with(7, 1));
  EXPECT_FALSE(with(15, 0xff));  // manifest of 2^63 bytes
  EXPECT_FALSE(with(23, 1));     // files
  EXPECT_FALSE(with(31, 1));     // folders
  EXPECT_FALSE(with(39, 0xff));  // bytes
  EXPECT_FALSE(with(47, 0xff));  // ops
  EXPECT_FALSE(with(40, 2));     // 9,000 bytes in 2 ops of 4 KiB
  EXPECT_TRUE(with(40, 3));
}

TEST(Tree, LevelsFollowFromTheLength) {
  const std::uint64_t chunk = 1024;
  EXPECT_EQ(tree_levels(1, 10), 0U);
  EXPECT_EQ(tree_levels(chunk, 10), 0U);
  EXPECT_EQ(tree_levels(chunk + 1, 10), 1U);
  EXPECT_EQ(tree_levels(chunk * kFanout, 10), 1U);
  EXPECT_EQ(tree_levels(chunk * kFanout + 1, 10), 2U);
  EXPECT_EQ(tree_levels(chunk * kFanout * kFanout * kFanout, 10), 3U);
  EXPECT_EQ(tree_levels(chunk * kFanout * kFanout * kFanout + 1, 10), std::nullopt);
  EXPECT_EQ(tree_levels(UINT64_MAX, 10), std::nullopt);
  EXPECT_EQ(tree_levels(UINT64_MAX, kMaxChunkLog2), std::nullopt);
}

class TreeOfSize : public ::testing::TestWithParam<std::uint64_t> {};

TEST_P(TreeOfSize, ReadsBackWhatWasWritten) {
  const std::uint64_t size = GetParam();
  const std::string text = noise(static_cast<std::size_t>(size), size);
  OpMap ops;
  TreeWriter writer(ops.put(), 10);
  // In pieces that do not match the chunks.
  for (std::size_t at = 0; at < text.size(); at += 3000) {
    ASSERT_TRUE(writer.write(as_bytes(std::string_view(text).substr(at, 3000))));
  }
  auto top = writer.finish();
  ASSERT_TRUE(top) << top.error().to_string();
  EXPECT_EQ(writer.bytes(), size);
  RootOp root;
  root.chunk_log2 = 10;
  root.manifest_bytes = size;
  root.top = *top;
  TreeReader reader(ops.get(), root);
  std::string back;
  while (true) {
    auto chunk = reader.next();
    ASSERT_TRUE(chunk) << chunk.error().to_string();
    if (chunk->empty()) break;
    back += chunk->text();
  }
  EXPECT_EQ(back.size(), text.size());
  EXPECT_TRUE(back == text);

  // A length other than the root's is noticed in every case.
  for (const std::uint64_t wrong : {size + 1, size - 1, size * 4096}) {
    if (wrong == 0) continue;
    root.manifest_bytes = wrong;
    TreeReader liar(ops.get(), root);
    bool refused = false;
    for (int i = 0; i < 20'000 && !refused; ++i) {
      auto chunk = liar.next();
      refused = !chunk;
      if (chunk && chunk->empty()) break;
    }
    EXPECT_TRUE(refused) << wrong;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, TreeOfSize,
                         ::testing::Values(1, 2, 1023, 1024, 1025, 2048, 5000, 1024 * kFanout - 1, 1024 * kFanout,
                                           1024 * kFanout + 1, 1024 * kFanout * 2 + 7));

TEST(Tree, MissingPartsAreNamed) {
  OpMap ops;
  TreeWriter writer(ops.put(), 10);
  ASSERT_TRUE(writer.write(as_bytes(noise(10'000, 1))));
  RootOp root;
  root.chunk_log2 = 10;
  root.manifest_bytes = 10'000;
  root.top = writer.finish().value();
  for (const auto& [id, bytes] : OpMap(ops).ops) {
    OpMap less = ops;
    less.ops.erase(id);
    TreeReader reader(less.get(), root);
    Error error;
    for (int i = 0; i < 20; ++i) {
      auto chunk = reader.next();
      if (!chunk) {
        error = chunk.error();
        break;
      }
    }
    EXPECT_EQ(error.code, Errc::not_found);
    EXPECT_NE(error.message.find(id.to_string()), std::string::npos);
  }
}

TEST(ListOp, OnlyTheOneOfItsPlace) {
  std::vector<OpId> children;
  for (int i = 0; i < 3; ++i) children.push_back(op_id_of(as_bytes(std::to_string(i))));
  const Bytes list = encode_list(1, 10, 2500, children);
  ASSERT_TRUE(decode_list(list, 1, 10, 2500));
  EXPECT_EQ(decode_list(list, 1, 10, 2500).value(), children);
  EXPECT_FALSE(decode_list(list, 2, 10, 2500));
  EXPECT_FALSE(decode_list(list, 1, 11, 2500));
  EXPECT_FALSE(decode_list(list, 1, 10, 2501));
  EXPECT_FALSE(decode_list(list.slice(0, list.size() - 1), 1, 10, 2500));
  EXPECT_FALSE(decode_list(list.slice(0, kListHeaderBytes), 1, 10, 2500));
  EXPECT_FALSE(decode_list(Bytes(), 1, 10, 2500));
  EXPECT_FALSE(decode_list(as_bytes("a file that a peer gave in place of a list"), 1, 10, 2500));
}

TEST(Names, AllowedAndForbiddenNames) {
  for (const std::string good : {"a", "..a", "...", " ", "-rf", "a\nb", "日本", "\xf0\x9f\xa6\x8a", ".k2part"}) {
    EXPECT_EQ(name_fault(good), "") << good;
  }
  EXPECT_EQ(name_fault(std::string(255, 'x')), "");
  for (const std::string& bad :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("/"),
        std::string("a\0b", 3), std::string("\xff"), std::string("\xc0\xaf"), std::string("\xed\xa0\x80"),
        std::string("\xf4\x90\x80\x80"), std::string("\xe2\x82"), std::string(256, 'x'), std::string(".k2part-0123")}) {
    EXPECT_NE(name_fault(bad), "") << printable(bad);
  }
}

}  // namespace
}  // namespace kitsune2::files
