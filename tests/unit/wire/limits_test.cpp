// What decoders refuse although it is well-formed protobuf: limits, empty ids, missing parts.
#include <gtest/gtest.h>

#include "support.hpp"
#include "support/whole_messages.hpp"
#include "unit/wire/outcome.hpp"
#include "vectors.hpp"
#include "wire/fetch_messages.hpp"
#include "wire/gossip_messages.hpp"
#include "wire/k2proto.hpp"
#include "wire/publish_messages.hpp"

namespace kitsune2::wire {
namespace {

using test::from_hex;

std::vector<OpId> some_ids(std::size_t count, std::size_t size) {
  std::vector<OpId> out;
  for (std::size_t i = 0; i < count; ++i)
    out.emplace_back(as_bytes(std::string(size, static_cast<char>('a' + i % 26))));
  return out;
}

using wire::test::outcome;

TEST(WireLimits, NumberOfIds) {
  WireLimits limits;
  limits.max_items = 10;
  EXPECT_EQ(outcome(decode_fetch(Dialect::v0_2, encode_fetch_request(some_ids(10, 32)), limits)), "ok");
  EXPECT_EQ(outcome(decode_fetch(Dialect::v0_2, encode_fetch_request(some_ids(11, 32)), limits)),
            "too_large: FetchRequest: field 1: too many ids");
  EXPECT_EQ(outcome(decode_publish(Dialect::v0_2, encode_publish_ops(Dialect::v0_2, some_ids(10, 32)), limits)), "ok");
  EXPECT_EQ(outcome(decode_publish(Dialect::v0_2, encode_publish_ops(Dialect::v0_2, some_ids(11, 32)), limits)),
            "too_large: PublishOps: field 1: too many ids");
}

TEST(WireLimits, SizeOfIds) {
  EXPECT_EQ(outcome(decode_fetch(Dialect::v0_2, encode_fetch_request(some_ids(1, 1024)))), "ok");
  EXPECT_EQ(outcome(decode_fetch(Dialect::v0_2, encode_fetch_request(some_ids(1, 1025)))),
            "too_large: FetchRequest: field 1: an id over the limit");
  EXPECT_EQ(outcome(decode_fetch(Dialect::v0_2, from_hex("080112020a00"))),
            "malformed: FetchRequest: field 1: an id of 0 bytes");
  EXPECT_EQ(outcome(decode_publish(Dialect::v0_2, from_hex("080112020a00"))),
            "malformed: PublishOps: field 1: an id of 0 bytes");
}

/// Field 15, which no message has, with `size` bytes.
Bytes with_padding(const Bytes& message, std::size_t size) {
  return build([&](auto& sink) {
    sink.raw(message);
    put_bytes(sink, 15, as_bytes(std::string(size, 'x')));
  });
}

// Found by reading: bounds count ids and ops, but keeping a part of a message keeps all of it.
TEST(WireLimits, PaddingBesideTheContentIsRefused) {
  const SpaceId space = SpaceId::from_text("space");
  const std::vector<Bytes> ops{Bytes::copy_of("op")};
  const auto inner = [](const Bytes& data, std::size_t size) {  // beside the ids, inside of `data` of a typed message
    const Result<TypedMessage> message = decode_typed(data, "test");
    return build([&](auto& sink) {
      put_number(sink, 1, static_cast<std::uint64_t>(message->type));
      put_bytes(sink, 2, with_padding(message->data, size));
    });
  };
  const Bytes request = encode_fetch_request(some_ids(3, 32));
  const Bytes publish = encode_publish_ops(Dialect::v0_2, some_ids(3, 32));
  const Bytes response = fetch_response_body(std::span<const Bytes>(ops));
  const Bytes module = whole_module(space, "Fetch", request);
  for (const std::size_t size : {100U, 4000U}) {
    EXPECT_EQ(outcome(decode_fetch(Dialect::v0_2, with_padding(request, size))), "ok");
    EXPECT_EQ(outcome(decode_fetch(Dialect::v0_2, inner(request, size))), "ok");
    EXPECT_EQ(outcome(decode_fetch(Dialect::v0_2, inner(response, size))), "ok");
    EXPECT_EQ(outcome(decode_publish(Dialect::v0_2, inner(publish, size))), "ok");
    EXPECT_EQ(outcome(decode_k2proto(with_padding(module, size))), "ok");
  }
  for (const std::size_t size : {5000U, 1U << 20}) {
    const std::string why = ": more beside the content than it may have";
    EXPECT_EQ(outcome(decode_fetch(Dialect::v0_2, with_padding(request, size))), "too_large: K2FetchMessage" + why);
    EXPECT_EQ(outcome(decode_fetch(Dialect::v0_2, inner(request, size))), "too_large: FetchRequest" + why);
    EXPECT_EQ(outcome(decode_fetch(Dialect::v0_2, inner(response, size))), "too_large: FetchResponse" + why);
    EXPECT_EQ(outcome(decode_publish(Dialect::v0_2, inner(publish, size))), "too_large: PublishOps" + why);
    EXPECT_EQ(outcome(decode_k2proto(with_padding(module, size))), "too_large: K2Proto" + why);
  }
}

TEST(WireLimits, NumberOfOps) {
  WireLimits limits;
  limits.max_items = 3;
  const std::vector<Bytes> ops(4);  // empty ones: the cheapest for a hostile sender, two bytes each
  EXPECT_EQ(outcome(decode_fetch(Dialect::v0_2, fetch_response_body(std::span(ops).first(3)), limits)), "ok");
  EXPECT_EQ(outcome(decode_fetch(Dialect::v0_2, fetch_response_body(std::span(ops)), limits)),
            "too_large: FetchResponse: field 1: too many ops");
}

TEST(WireLimits, EmptyOpsAndEmptyMessagesAreWellFormed) {
  const std::vector<Bytes> ops(2);
  const Result<FetchMessage> message = decode_fetch(Dialect::v0_2, fetch_response_body(std::span(ops)));
  ASSERT_TRUE(message);
  EXPECT_EQ(message->ops.size(), 2U);
  EXPECT_EQ(message->ops.total_bytes(), 0U);
  EXPECT_EQ(message->ops.slices(), ops);
  const Result<FetchMessage> request = decode_fetch(Dialect::v0_2, encode_fetch_request({}));
  ASSERT_TRUE(request);
  EXPECT_TRUE(request->op_ids.empty());
  EXPECT_EQ(request->op_ids.begin(), request->op_ids.end());
}

TEST(WireLimits, UnknownTypesAreErrors) {
  EXPECT_EQ(outcome(decode_fetch(Dialect::v0_2, Bytes{})), "malformed: K2FetchMessage: unknown type 0");
  EXPECT_EQ(outcome(decode_fetch(Dialect::v0_2, from_hex("0803"))), "malformed: K2FetchMessage: unknown type 3");
  EXPECT_EQ(outcome(decode_publish(Dialect::v0_2, from_hex("0803"))), "malformed: K2PublishMessage: unknown type 3");
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, Bytes{})), "malformed: K2GossipMessage: unknown type 0");
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, from_hex("080d"))), "malformed: K2GossipMessage: unknown type 13");
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, from_hex("08ffffffffffffffffff01"))),
            "malformed: K2GossipMessage: unknown type -1");
}

TEST(WireLimits, UnknownK2ProtoTypesReadAsUnspecified) {
  const Result<K2ProtoView> view = decode_k2proto(from_hex("080e"));
  ASSERT_TRUE(view);
  EXPECT_EQ(view->type, K2WireType::unspecified);
}

TEST(WireLimits, SpaceAndModule) {
  EXPECT_EQ(outcome(decode_k2proto(encode_notify(SpaceId(as_bytes(std::string(1024, 's'))), {}))), "ok");
  EXPECT_EQ(outcome(decode_k2proto(encode_notify(SpaceId(as_bytes(std::string(1025, 's'))), {}))),
            "too_large: K2Proto: field 3: a space id over the limit");
  const SpaceId space = SpaceId::from_text("s");
  EXPECT_EQ(outcome(decode_k2proto(whole_module(space, std::string(257, 'm'), {}))),
            "too_large: K2Proto: field 4: a module name over the limit");
  EXPECT_EQ(outcome(decode_k2proto(whole_module(space, "\xFF", {}))),
            "malformed: K2Proto: field 4: a string that is not UTF-8");
  const Result<K2ProtoView> empty = decode_k2proto(from_hex("08021a00"));
  ASSERT_TRUE(empty);
  ASSERT_TRUE(empty->space.has_value()) << "present and empty is not absent";
  EXPECT_TRUE(empty->space->empty());
}

TEST(WireLimits, AgentInfoText) {
  WireLimits limits;
  limits.max_text_bytes = 4;
  EXPECT_EQ(outcome(decode_publish(Dialect::v0_2, encode_publish_agent("1234"), limits)), "ok");
  EXPECT_EQ(outcome(decode_publish(Dialect::v0_2, encode_publish_agent("12345"), limits)),
            "too_large: PublishAgent: field 1: an agent info over the limit");
  EXPECT_EQ(outcome(decode_publish(Dialect::v0_2, encode_publish_agent("\xC3"))),
            "malformed: PublishAgent: field 1: a string that is not UTF-8");
}

/// Fields that occur twice: the last one counts, for numbers and byte strings; unknown ones are skipped.
TEST(WireLimits, LastOneWinsAndUnknownIsSkipped) {
  const Result<K2ProtoView> view =
      decode_k2proto(from_hex("0801"
                              "120161"
                              "0802"
                              "120162"
                              "7a026869"
                              "a0068001"));
  ASSERT_TRUE(view);
  EXPECT_EQ(view->type, K2WireType::notify);
  EXPECT_EQ(view->data.text(), "b");
  const Result<FetchMessage> ops = decode_fetch(Dialect::v0_2, from_hex("08021208"
                                                                        "0a06"
                                                                        "0a0141"
                                                                        "0a0142"));
  ASSERT_TRUE(ops);
  ASSERT_EQ(ops->ops.size(), 1U);
  EXPECT_EQ(as_text(*ops->ops.begin()), "B");
  EXPECT_EQ(ops->ops.total_bytes(), 1U);
}

TEST(WireLimits, SizesForFillingMessages) {
  const SpaceId space = SpaceId::from_text(std::string(32, 's'));
  for (const std::size_t size : {0U, 1U, 125U, 126U, 127U, 128U, 16380U, 70000U}) {
    const std::vector<Bytes> one{Bytes(std::string(size, 'x'))};
    const std::vector<Bytes> two{one[0], one[0]};
    const std::size_t payload =
        check_op_lists(decode_typed(fetch_response_body(std::span(one)), "")->data, OpForm::data, {}, "")
            ->data.total_bytes();
    EXPECT_EQ(payload, size);
    const std::size_t message = whole_fetch_response(space, std::span(two)).size();
    EXPECT_LE(message, 2 * fetch_op_wire_size(Dialect::v0_2, 32, size) + kFetchFrameBytes + space.size());
    EXPECT_GE(message, 2 * fetch_op_wire_size(Dialect::v0_2, 32, size));
  }
}

TEST(GossipLimits, OneBudgetForAllLists) {
  WireLimits limits;
  const Bytes accept = from_hex(vectors::kGossipAccept);
  // 1 agent, 16 words of the arc set, 6 new ops, 13 ring hashes
  limits.max_items = 36;
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, accept, limits)), "ok");
  limits.max_items = 35;
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, accept, limits)),
            "too_large: SnapshotMinimalMessage: field 3: too many elements");
  const Bytes details = from_hex(vectors::kGossipDiscSectorDetailsDiff);
  // 4 sectors, 4 inner messages, two of them with a slice and a hash
  limits.max_items = 12;
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, details, limits)), "ok");
  for (std::size_t n = 0; n < 12; ++n) {
    limits.max_items = n;
    const Result<GossipMessage> result = decode_gossip(Dialect::v0_2, details, limits);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, Errc::too_large) << n;
  }
}

TEST(GossipLimits, PartsThatMustBeThere) {
  // {1: session} alone, by type
  const auto bare = [](int type) {
    return from_hex("08" + to_hex(std::vector<std::uint8_t>{static_cast<std::uint8_t>(type)}) + "12030a0141");
  };
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, bare(1))), "malformed: gossip: no arc_set");
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, bare(2))), "malformed: gossip: no arc_set");
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, bare(3))), "malformed: gossip: no accept_response");
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, bare(4))), "malformed: gossip: no accept_response");
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, bare(5))), "malformed: gossip: no snapshot");
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, bare(6))), "malformed: gossip: no snapshot");
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, bare(7))), "malformed: gossip: no accept_response");
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, bare(8))), "malformed: gossip: no snapshot");
  for (int type = 9; type <= 12; ++type) EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, bare(type))), "ok") << type;
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, from_hex("080b"))), "malformed: gossip: no session_id");
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, from_hex("0801"
                                                          "12070a01415a020801"))),
            "malformed: gossip: an arc_set of 1 words, expected 16");
}

TEST(GossipLimits, ParallelListsHaveOneLength) {
  GossipDiscSectorsDiff message;
  message.session_id = Bytes::copy_of("s");
  message.snapshot.disc_sectors = {1, 2};
  message.snapshot.disc_sector_hashes = {Bytes::copy_of("h")};
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, encode_gossip(message))),
            "malformed: SnapshotDiscSectorsMessage: 2 indices but 1 hashes");
  GossipRingSectorDetailsDiff ring;
  ring.session_id = Bytes::copy_of("s");
  ring.snapshot.ring_indices = {1};
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, encode_gossip(ring))),
            "malformed: SnapshotRingSectorDetailsMessage: 1 indices but 0 hashes");
  ring.snapshot.ring_sector_hashes = {{{5}, {}}};
  EXPECT_EQ(outcome(decode_gossip(Dialect::v0_2, encode_gossip(ring))),
            "malformed: RingSectorHashes: 1 indices but 0 hashes");
}

}  // namespace
}  // namespace kitsune2::wire
