// The codec below all messages: what it reads, what it refuses, and what it allocates.
#include "wire/protobuf.hpp"

#include <gtest/gtest.h>

#include "allocations.hpp"
#include "support.hpp"
#include "support/whole_messages.hpp"
#include "wire/fetch_messages.hpp"
#include "wire/k2proto.hpp"
#include "wire/publish_messages.hpp"

namespace kitsune2::wire {
namespace {

using test::allocations;
using test::from_hex;

/// Walks all fields; the error, or "" if there is none.
std::string walk(std::string_view hex) {
  const Bytes message = from_hex(hex);
  ProtoReader reader(message.view());
  while (reader.next()) {
  }
  return reader.ok() ? "" : reader.what();
}

TEST(ProtoReader, ReadsEachWireType) {
  const Bytes message = from_hex(
      "08ac02"
      "12026869"
      "1901020304050607ff"
      "25aabbccdd"
      "2800");
  ProtoReader reader(message.view());
  ASSERT_TRUE(reader.next());
  EXPECT_EQ(reader.field(), 1U);
  EXPECT_EQ(reader.varint(), 300U);
  ASSERT_TRUE(reader.next());
  EXPECT_EQ(reader.field(), 2U);
  EXPECT_EQ(reader.text(), "hi");
  EXPECT_EQ(reader.bytes().data(), message.data() + 5) << "a view into the message, not a copy";
  ASSERT_TRUE(reader.next());
  EXPECT_EQ(reader.type(), WireType::fixed64);
  ASSERT_TRUE(reader.next());
  EXPECT_EQ(reader.type(), WireType::fixed32);
  ASSERT_TRUE(reader.next());
  EXPECT_EQ(reader.field(), 5U);
  EXPECT_FALSE(reader.boolean());
  EXPECT_FALSE(reader.next());
  EXPECT_TRUE(reader.ok());
}

TEST(ProtoReader, TheLargestNumbers) {
  const Bytes message = from_hex("08ffffffffffffffffff01");
  ProtoReader reader(message.view());
  ASSERT_TRUE(reader.next());
  EXPECT_EQ(reader.varint(), UINT64_MAX);
  EXPECT_EQ(reader.int64(), -1);
  EXPECT_EQ(reader.uint32(), UINT32_MAX) << "32-bit fields take the low half";
  EXPECT_EQ(reader.int32(), -1);
  EXPECT_TRUE(reader.boolean());
  EXPECT_FALSE(reader.next());
  EXPECT_TRUE(reader.ok());
}

TEST(ProtoReader, RefusesWhatIsBroken) {
  EXPECT_EQ(walk(""), "");
  EXPECT_EQ(walk("08"), "truncated") << "no value";
  EXPECT_EQ(walk("0880"), "truncated") << "varint without end";
  EXPECT_EQ(walk("1203aabb"), "truncated") << "fewer bytes than announced";
  EXPECT_EQ(walk("12"), "truncated") << "no length";
  EXPECT_EQ(walk("1901020304050607"), "truncated");
  EXPECT_EQ(walk("25010203"), "truncated");
  EXPECT_EQ(walk("12ffffffff0f"), "truncated") << "4 GiB announced";
  EXPECT_EQ(walk("12ffffffff1f"), "a length or tag over 32 bits");
  EXPECT_EQ(walk("128080808080808080808000"), "a length or tag over 32 bits");
  EXPECT_EQ(walk("ffffffff1f00"), "a length or tag over 32 bits");
  EXPECT_EQ(walk("08ffffffffffffffffff02"), "a number over 64 bits");
  EXPECT_EQ(walk("08ffffffffffffffffffff01"), "a number over 64 bits");
  EXPECT_EQ(walk("0001"), "field number 0");
  EXPECT_EQ(walk("0200"), "field number 0");
  EXPECT_EQ(walk("0b0c"), "unsupported wire type") << "groups";
  EXPECT_EQ(walk("0c"), "unsupported wire type");
  EXPECT_EQ(walk("0e00"), "unsupported wire type") << "wire type 6";
  EXPECT_EQ(walk("0f00"), "unsupported wire type") << "wire type 7";
}

TEST(ProtoReader, RefusesAnotherWireTypeThanAskedFor) {
  const Bytes message = from_hex("0801");
  ProtoReader reader(message.view());
  ASSERT_TRUE(reader.next());
  EXPECT_TRUE(reader.bytes().empty());
  EXPECT_FALSE(reader.ok());
  EXPECT_FALSE(reader.next()) << "nothing is read after an error";
  EXPECT_EQ(reader.error("Name").to_string(), "malformed: Name: field 1: wrong wire type");

  const Bytes text = from_hex("0a0141");
  ProtoReader second(text.view());
  ASSERT_TRUE(second.next());
  EXPECT_EQ(second.varint(), 0U);
  EXPECT_FALSE(second.ok());
}

TEST(ProtoReader, NumbersPackedAndNot) {
  const auto read = [](std::string_view hex, bool& ok) {
    const Bytes message = from_hex(hex);
    ProtoReader reader(message.view());
    std::vector<std::uint64_t> out;
    while (reader.next()) {
      reader.numbers([&](std::uint64_t n) {
        out.push_back(n);
        return true;
      });
    }
    ok = reader.ok();
    return out;
  };
  bool ok = false;
  EXPECT_EQ(read("0a0401ac0203"
                 "0807"
                 "0a00",
                 ok),
            (std::vector<std::uint64_t>{1, 300, 3, 7}));
  EXPECT_TRUE(ok);
  read("0a0201ac", ok);
  EXPECT_FALSE(ok) << "a varint that leaves the packed field";
  read("0d00000000", ok);
  EXPECT_FALSE(ok) << "fixed32";
}

TEST(ProtoReader, Utf8) {
  for (const char* good : {"", "a", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
                           "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "caf\xC3\xA9"}) {
    EXPECT_TRUE(is_utf8(good)) << good;
  }
  for (const char* bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2\x41", "\xE0\x9F\xBF", "\xE1\x80", "\xED\xA0\x80",
        "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xF1\x80\x80", "a\xE2\x82"}) {
    EXPECT_FALSE(is_utf8(bad)) << to_hex(as_bytes(bad));
  }
}

TEST(ProtoWriter, SizesOfVarints) {
  for (unsigned bits = 0; bits <= 64; ++bits) {
    const std::uint64_t value = bits == 0 ? 0 : UINT64_MAX >> (64 - bits);
    std::uint8_t out[10];
    ByteSink sink(out);
    sink.varint(value);
    EXPECT_EQ(static_cast<std::size_t>(sink.position() - out), varint_size(value)) << bits;
  }
}

TEST(ProtoWriter, DefaultsAreLeftOutAndItemsAreNot) {
  EXPECT_TRUE(build([](auto& s) {
                put_number(s, 1, 0);
                put_bytes(s, 2, {});
                put_packed(s, 3, std::vector<std::uint32_t>{});
              }).empty());
  EXPECT_EQ(to_hex(build([](auto& s) { put_item(s, 2, {}); })), "1200");
  EXPECT_EQ(to_hex(build([](auto& s) { put_message(s, 2, [](auto&) {}); })), "1200");
  EXPECT_EQ(to_hex(build([](auto& s) { put_int64(s, 16, -1); })), "8001ffffffffffffffffff01");
}

/// For the fetch module: one allocation per message, whatever is in it, and none to look at it.
TEST(ProtoWriter, OneAllocationPerMessage) {
  const SpaceId space = SpaceId::from_text("space");
  std::vector<OpId> ids;
  std::vector<Bytes> ops;
  std::vector<MetaOp> meta;
  for (int i = 0; i < 500; ++i) {
    const std::string text = "op number " + std::to_string(i) + std::string(20, 'x');
    ids.push_back(OpId::from_text(text));
    ops.push_back(Bytes::copy_of(text + text));
    meta.push_back({ids.back(), ops.back()});
  }
  const auto counted = [](auto encode) {
    const std::size_t before = allocations();
    const Bytes out = encode();
    const std::size_t n = allocations() - before;
    EXPECT_FALSE(out.empty());
    return n;
  };
  EXPECT_EQ(counted([&] { return encode_fetch_request(ids); }), 1U);
  EXPECT_EQ(counted([&] { return encode_fetch_response(Dialect::v0_2, meta).joined(); }), 2U)
      << "one is the list of its pieces";
  EXPECT_EQ(counted([&] { return encode_publish_ops(Dialect::v0_2, ids); }), 1U);
  EXPECT_EQ(counted([&] { return encode_notify(space, ops[0]); }), 1U);
  EXPECT_EQ(counted([&] { return encode_preflight(ops[0]); }), 1U);

  const Bytes message = whole_fetch_response(space, std::span<const Bytes>(ops));
  std::size_t before = allocations();
  const Result<K2ProtoView> outer = decode_k2proto(message);
  ASSERT_TRUE(outer);
  const Result<FetchMessage> inner = decode_fetch(Dialect::v0_2, outer->data);
  ASSERT_TRUE(inner);
  std::size_t bytes = 0;
  for (const ByteView op : inner->ops) bytes += op.size();
  EXPECT_EQ(allocations() - before, 0U) << "decoding and walking";
  EXPECT_EQ(bytes, inner->ops.total_bytes());
  before = allocations();
  const std::vector<Bytes> slices = inner->ops.slices();
  EXPECT_EQ(allocations() - before, 1U) << "the vector itself";
  ASSERT_EQ(slices.size(), ops.size());
  EXPECT_EQ(slices.front(), ops.front());
  EXPECT_EQ(slices.back(), ops.back());
  EXPECT_GE(slices.back().data(), message.data());
  EXPECT_LE(slices.back().end(), message.end()) << "a slice of the message";
}

}  // namespace
}  // namespace kitsune2::wire
