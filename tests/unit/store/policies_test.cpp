// The op policies: ids and times as documented, refusals, speed-critical paths on edges.
#include <gtest/gtest.h>

#include <thread>

#include "kitsune2/op_store.hpp"
#include "kitsune2/testing/builders.hpp"

namespace kitsune2 {
namespace {

Bytes envelope(std::int64_t created_at, std::string_view payload) {
  std::string text = "k2op\x01";
  for (int shift = 56; shift >= 0; shift -= 8) {
    text += static_cast<char>(static_cast<std::uint64_t>(created_at) >> static_cast<unsigned>(shift));
  }
  return Bytes(text + std::string(payload));
}

TEST(Sha256Policy, IdIsTheSha256OfTheBytes) {
  const auto policy = make_sha256_policy();
  EXPECT_EQ(policy->name(), "sha256");
  // FIPS 180-2, appendix B.1; and the well-known hash of nothing.
  EXPECT_EQ(to_hex(policy->describe(as_bytes("abc"))->op_id),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(policy->describe({})->op_id), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(policy->describe(as_bytes("abc"))->created_at, Timestamp{0});
}

TEST(Sha256Policy, EnvelopeGivesTheCreationTime) {
  const auto policy = make_sha256_policy();
  EXPECT_EQ(policy->describe(envelope(1'795'425'619'933'318, "payload"))->created_at.micros, 1'795'425'619'933'318);
  EXPECT_EQ(policy->describe(envelope(0, ""))->created_at.micros, 0);
  EXPECT_EQ(policy->describe(envelope(INT64_MAX, ""))->created_at, Timestamp::max());
  // The envelope is part of what is hashed.
  EXPECT_NE(policy->describe(envelope(1, "x"))->op_id, policy->describe(envelope(2, "x"))->op_id);
}

TEST(Sha256Policy, AlmostAnEnvelopeIsPayload) {
  const auto policy = make_sha256_policy();
  const Bytes whole = envelope(5, "");
  EXPECT_EQ(policy->describe(whole.slice(0, whole.size() - 1))->created_at.micros, 0);
  EXPECT_EQ(policy->describe(as_bytes("k2op\x02 12345678"))->created_at.micros, 0);
  EXPECT_EQ(policy->describe(as_bytes("K2op\x01 12345678"))->created_at.micros, 0);
}

TEST(Sha256Policy, TimeBefore1970IsRefused) {
  const auto out = make_sha256_policy()->describe(envelope(-1, "x"));
  ASSERT_FALSE(out);
  EXPECT_EQ(out.error().code, Errc::malformed);
}

TEST(Sha256Policy, SizeLimitIsInclusive) {
  const auto policy = make_sha256_policy(10);
  EXPECT_TRUE(policy->describe(as_bytes("0123456789")));
  const auto out = policy->describe(as_bytes("0123456789a"));
  ASSERT_FALSE(out);
  EXPECT_EQ(out.error().code, Errc::too_large);
}

TEST(Sha256Policy, MayBeUsedFromManyThreads) {
  const auto policy = make_sha256_policy();
  std::vector<OpId> expected;
  for (std::uint64_t i = 0; i < 200; ++i) expected.push_back(policy->describe(testing::make_op(i))->op_id);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (std::uint64_t i = 0; i < 200; ++i) {
        if (policy->describe(testing::make_op(i))->op_id != expected[i]) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(MemoryOpPolicy, ReadsWhatTheStockStoreWrites) {
  const auto policy = make_memory_op_policy();
  EXPECT_EQ(policy->name(), "memory-op");
  const auto op = policy->describe(as_bytes(R"({"created_at":1795425619933318,"op_data":[1,2,255]})"));
  ASSERT_TRUE(op);
  EXPECT_EQ(op->created_at.micros, 1'795'425'619'933'318);
  EXPECT_EQ(to_hex(op->op_id), "0102ff" + std::string(58, '0'));
  const auto built = policy->describe(testing::make_memory_op(7, 100, Timestamp{42}));
  ASSERT_TRUE(built);
  EXPECT_EQ(built->created_at.micros, 42);
  EXPECT_EQ(built->op_id.size(), 32U);
}

TEST(MemoryOpPolicy, OnlyTheFirst32BytesCount) {
  std::string json = R"({"created_at":0,"op_data":[)";
  std::string hex;
  for (int i = 0; i < 40; ++i) json += (i > 0 ? "," : "") + std::to_string(i);
  for (int i = 0; i < 32; ++i) hex += to_hex(std::array{static_cast<std::uint8_t>(i)});
  EXPECT_EQ(to_hex(make_memory_op_policy()->describe(as_bytes(json + "]}"))->op_id), hex);
}

TEST(MemoryOpPolicy, AcceptsJsonInAnotherShape) {
  const auto policy = make_memory_op_policy();
  for (const char* text :
       {R"( { "op_data" : [ 1 , 2 ] , "created_at" : -5 } )", "{\"created_at\":-5,\n\t\"op_data\":[1,2]}\r\n"}) {
    const auto op = policy->describe(as_bytes(text));
    ASSERT_TRUE(op) << text;
    EXPECT_EQ(op->created_at.micros, -5);
    EXPECT_EQ(to_hex(op->op_id).substr(0, 6), "010200");
  }
  EXPECT_TRUE(policy->describe(as_bytes(R"({"created_at":0,"op_data":[]})")));
  EXPECT_EQ(policy->describe(as_bytes(R"({"created_at":-9223372036854775808,"op_data":[]})"))->created_at,
            Timestamp::min());
  EXPECT_EQ(policy->describe(as_bytes(R"({"created_at":9223372036854775807,"op_data":[]})"))->created_at,
            Timestamp::max());
}

TEST(MemoryOpPolicy, RefusesEverythingElse) {
  const auto policy = make_memory_op_policy();
  for (const char* text : {
           "",
           " ",
           "{",
           "{}",
           "[]",
           "null",
           "hello",
           R"({"created_at":1})",
           R"({"op_data":[1]})",
           R"({"created_at":1,"op_data":[1]}x)",
           R"({"created_at":1,"op_data":[1]},)",
           R"({"created_at":1,"op_data":[1],})",
           R"({"created_at":1,"op_data":[1,]})",
           R"({"created_at":1,"op_data":[,1]})",
           R"({"created_at":1,"op_data":[256]})",
           R"({"created_at":1,"op_data":[-1]})",
           R"({"created_at":1,"op_data":[01]})",
           R"({"created_at":1,"op_data":[1.0]})",
           R"({"created_at":1,"op_data":["1"]})",
           R"({"created_at":1,"op_data":[1 2]})",
           R"({"created_at":1,"op_data":[1})",
           R"({"created_at":1,"op_data":1})",
           R"({"created_at":"1","op_data":[1]})",
           R"({"created_at":1e3,"op_data":[1]})",
           R"({"created_at":9223372036854775808,"op_data":[1]})",
           R"({"created_at":-9223372036854775809,"op_data":[1]})",
           R"({"created_at":99999999999999999999999,"op_data":[1]})",
           R"({"created_at":- 1,"op_data":[1]})",
           R"({"created_at":1,"created_at":1,"op_data":[1]})",
           R"({"created_at":1,"op_data":[1],"op_data":[1]})",
           R"({"created_at":1,"op_data":[1],"x":1})",
           R"({"created_at":,"op_data":[1]})",
       }) {
    const auto out = policy->describe(as_bytes(text));
    ASSERT_FALSE(out) << text;
    EXPECT_EQ(out.error().code, Errc::malformed) << text;
  }
}

TEST(MemoryOpPolicy, AnyCutOfAnOpIsRefused) {
  const auto policy = make_memory_op_policy();
  const Bytes op = testing::make_memory_op(3, 40, Timestamp{123'456});
  ASSERT_TRUE(policy->describe(op));
  for (std::size_t n = 0; n < op.size(); ++n) EXPECT_FALSE(policy->describe(op.slice(0, n))) << n;
}

TEST(PrefixPolicy, IdIsTheFirstBytes) {
  const auto policy = make_prefix_policy();
  EXPECT_EQ(policy->name(), "prefix");
  EXPECT_EQ(policy->describe(as_bytes("0123456789abcdef0123456789abcdefREST"))->op_id,
            OpId::from_text("0123456789abcdef0123456789abcdef"));
  EXPECT_EQ(to_hex(policy->describe(as_bytes("A"))->op_id), "41" + std::string(62, '0'));
}

}  // namespace
}  // namespace kitsune2
