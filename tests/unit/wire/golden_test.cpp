// Captured bytes of stock nodes: what they decode to, and that we write the same.
#include <gtest/gtest.h>

#include "support.hpp"
#include "support/whole_messages.hpp"
#include "vectors.hpp"
#include "wire/fetch_messages.hpp"
#include "wire/gossip_messages.hpp"
#include "wire/k2proto.hpp"
#include "wire/publish_messages.hpp"

namespace kitsune2::wire {
namespace {

using test::from_b64;
using test::from_hex;

const SpaceId kSpace = SpaceId::from_text("k2-interop-space");
constexpr const char* kOtherOpId = "1b28b8afc6e9ad182ec1e59690e5a8107884cd17a15a6fa929b8088cccb1b4eb";

K2ProtoView outer(std::string_view hex) {
  Result<K2ProtoView> out = decode_k2proto(from_hex(hex));
  EXPECT_TRUE(out) << hex;
  return out ? *out : K2ProtoView{};
}

TEST(Golden, Ids) {
  EXPECT_EQ(to_hex(kSpace), vectors::kSpaceId);
  const AgentId agent(from_b64(vectors::kAgentId));
  EXPECT_EQ(agent.size(), 32U);
  EXPECT_EQ(agent.loc(), vectors::kAgentLoc);
  const OpId op(from_b64(vectors::kOpId));
  EXPECT_EQ(op.loc(), vectors::kOpLoc);
  EXPECT_EQ(op.loc() >> 23, 28U);
}

TEST(Golden, Preflight) {
  const K2ProtoView view = outer(vectors::kPreflight);
  EXPECT_EQ(view.type, K2WireType::preflight);
  EXPECT_TRUE(view.data.empty());
  EXPECT_FALSE(view.space.has_value());
  EXPECT_FALSE(view.module.has_value());
  EXPECT_EQ(to_hex(encode_preflight({})), vectors::kPreflight);
}

TEST(Golden, Notify) {
  const K2ProtoView view = outer(vectors::kNotify);
  EXPECT_EQ(view.type, K2WireType::notify);
  EXPECT_EQ(view.data.text(), "hello from c++");
  ASSERT_TRUE(view.space);
  EXPECT_EQ(SpaceId(*view.space), kSpace);
  EXPECT_FALSE(view.module.has_value());
  EXPECT_EQ(to_hex(encode_notify(kSpace, as_bytes("hello from c++"))), vectors::kNotify);
}

TEST(Golden, Disconnect) {
  const Bytes message = encode_disconnect("bye");
  EXPECT_EQ(to_hex(message), "080f1203627965");
  const Result<K2ProtoView> view = decode_k2proto(message);
  ASSERT_TRUE(view);
  EXPECT_EQ(view->type, K2WireType::disconnect);
  EXPECT_EQ(view->data.text(), "bye");
}

TEST(Golden, PublishOps) {
  const K2ProtoView view = outer(vectors::kPublishOps);
  EXPECT_EQ(view.type, K2WireType::module);
  ASSERT_TRUE(view.module);
  EXPECT_EQ(view.module->text(), "Publish");
  const Result<PublishMessage> message = decode_publish(Dialect::v0_2, view.data);
  ASSERT_TRUE(message);
  EXPECT_EQ(message->type, PublishMessageType::ops);
  const std::vector<OpId> ids = message->op_ids.ids<OpId>();
  ASSERT_EQ(ids.size(), 2U);
  EXPECT_EQ(ids[0].to_string(), vectors::kOpId);
  EXPECT_EQ(to_hex(ids[1]), kOtherOpId);
  EXPECT_EQ(to_hex(whole_publish_ops(kSpace, ids)), vectors::kPublishOps);
  EXPECT_EQ(encode_publish_ops(Dialect::v0_2, ids), view.data);
  EXPECT_EQ(to_hex(whole_module(kSpace, "Publish", view.data)), vectors::kPublishOps);
}

TEST(Golden, PublishAgent) {
  const K2ProtoView view = outer(vectors::kPublishAgent);
  const Result<PublishMessage> message = decode_publish(Dialect::v0_2, view.data);
  ASSERT_TRUE(message);
  EXPECT_EQ(message->type, PublishMessageType::agent);
  EXPECT_EQ(message->agent_info.text(), vectors::kSignedAgentInfo);
  EXPECT_EQ(to_hex(whole_publish_agent(kSpace, vectors::kSignedAgentInfo)), vectors::kPublishAgent);
  EXPECT_EQ(encode_publish_agent(vectors::kSignedAgentInfo), view.data);
}

TEST(Golden, FetchRequest) {
  const K2ProtoView view = outer(vectors::kFetchRequest);
  ASSERT_TRUE(view.module);
  EXPECT_EQ(view.module->text(), "Fetch");
  const Result<FetchMessage> message = decode_fetch(Dialect::v0_2, view.data);
  ASSERT_TRUE(message);
  EXPECT_EQ(message->type, FetchMessageType::request);
  const std::vector<OpId> ids = message->op_ids.ids<OpId>();
  ASSERT_EQ(ids.size(), 1U);
  EXPECT_EQ(ids[0].to_string(), vectors::kOpId);
  EXPECT_EQ(to_hex(whole_fetch_request(kSpace, ids)), vectors::kFetchRequest);
  EXPECT_EQ(encode_fetch_request(ids), view.data);
}

TEST(Golden, FetchResponse) {
  const K2ProtoView view = outer(vectors::kFetchResponse);
  const Result<FetchMessage> message = decode_fetch(Dialect::v0_2, view.data);
  ASSERT_TRUE(message);
  EXPECT_EQ(message->type, FetchMessageType::response);
  const std::vector<Bytes> ops = message->ops.slices();
  ASSERT_EQ(ops.size(), 1U);
  EXPECT_TRUE(ops[0].text().starts_with(R"({"created_at":1795425613721081,"op_data":[199,194,249,)")) << ops[0].text();
  EXPECT_EQ(to_hex(whole_fetch_response(kSpace, std::span<const Bytes>(ops))), vectors::kFetchResponse);
  const std::vector<MetaOp> meta{{OpId::from_text("not sent"), ops[0]}};
  EXPECT_EQ(to_hex(whole_fetch_response(kSpace, std::span<const MetaOp>(meta))), vectors::kFetchResponse);
  EXPECT_EQ(fetch_response_body(std::span<const Bytes>(ops)), view.data);
  EXPECT_EQ(fetch_response_body(std::span<const MetaOp>(meta)), view.data);
}

TEST(Golden, AResponseInPiecesIsTheSame) {
  std::vector<MetaOp> ops;
  for (const std::size_t size : {0U, 5U, 65'535U, 65'536U, 100U, 200'000U, 65'536U, 1U}) {
    const auto byte = static_cast<std::uint8_t>('a' + ops.size());
    ops.push_back({OpId::from_text("not sent"), Bytes(std::vector<std::uint8_t>(size, byte))});
  }
  for (std::size_t n = 0; n <= ops.size(); ++n) {
    const std::span<const MetaOp> some(ops.data(), n);
    const ByteChain chain = encode_module(kSpace, kFetchModule, encode_fetch_response(Dialect::v0_2, some));
    EXPECT_TRUE(chain.joined() == whole_fetch_response(kSpace, some)) << n;
    std::size_t shared = 0;
    for (const Bytes& piece : chain.pieces()) {
      for (const MetaOp& op : some) shared += !piece.empty() && piece.data() == op.op_data.data() ? 1U : 0U;
    }
    const auto large = [](const MetaOp& op) { return op.op_data.size() >= 65'536; };
    EXPECT_EQ(shared, static_cast<std::size_t>(std::count_if(some.begin(), some.end(), large))) << n;
  }
}

template <class Message>
Message gossip(std::string_view hex, GossipMessageType type) {
  const Result<GossipMessage> out = decode_gossip(Dialect::v0_2, from_hex(hex));
  EXPECT_TRUE(out) << (out ? "" : out.error().to_string());
  if (!out) return {};
  EXPECT_EQ(type_of(*out), type);
  EXPECT_EQ(std::visit([](const auto& m) { return m.session_id.size(); }, *out), 12U);
  EXPECT_EQ(to_hex(encode_gossip(*out)), hex) << "stock nodes write fields in the order of their numbers";
  const Result<K2ProtoView> whole = decode_k2proto(whole_module(kSpace, kGossipModule, encode_gossip(*out)));
  EXPECT_TRUE(whole && to_hex(whole->data) == hex && whole->module->text() == "k2gossip");
  const Message* const message = std::get_if<Message>(&*out);
  EXPECT_NE(message, nullptr);
  return message != nullptr ? *message : Message{};
}

/// Lists that belong together have been checked for equal length by the decoder; here: their values.
TEST(Golden, GossipInitiate) {
  const auto m = gossip<GossipInitiate>(vectors::kGossipInitiate, GossipMessageType::initiate);
  EXPECT_EQ(to_hex(m.session_id), "58cb23bb2887c009641fb967");
  ASSERT_EQ(m.participating_agents.size(), 1U);
  EXPECT_EQ(to_base64url(m.participating_agents[0]), vectors::kAgentId);
  for (std::uint32_t sector = 0; sector < 512; ++sector) EXPECT_TRUE(m.arc_set.test(sector));
  EXPECT_FALSE(m.arc_set.test(512));
  EXPECT_EQ(m.tie_breaker, 1229688929U);
  EXPECT_EQ(m.new_since.micros, 1795423818828695);
  EXPECT_EQ(m.max_op_data_bytes, 104857600U);
}

TEST(Golden, GossipAccept) {
  const auto m = gossip<GossipAccept>(vectors::kGossipAccept, GossipMessageType::accept);
  EXPECT_EQ(m.participating_agents.size(), 1U);
  EXPECT_TRUE(m.missing_agents.empty());
  EXPECT_EQ(m.new_since.micros, 1795423818880255);
  EXPECT_EQ(m.max_op_data_bytes, 104857600U);
  ASSERT_EQ(m.new_ops.size(), 6U);
  EXPECT_EQ(to_base64url(m.new_ops[0]), vectors::kOpId);
  EXPECT_EQ(to_hex(m.new_ops[1]), kOtherOpId);
  EXPECT_GT(m.updated_new_since.micros, m.new_since.micros);
  ASSERT_TRUE(m.snapshot);
  EXPECT_EQ(m.snapshot->disc_boundary.micros, 1794816000000000);
  EXPECT_EQ(m.snapshot->disc_top_hash.size(), 32U);
  ASSERT_EQ(m.snapshot->ring_top_hashes.size(), 13U);
  EXPECT_TRUE(m.snapshot->ring_top_hashes[0].empty());
  EXPECT_EQ(m.snapshot->ring_top_hashes[7].size(), 32U);
}

TEST(Golden, GossipNoDiff) {
  const auto m = gossip<GossipNoDiff>(vectors::kGossipNoDiff, GossipMessageType::no_diff);
  EXPECT_EQ(m.accept_response.new_ops.size(), 6U);
  EXPECT_TRUE(m.accept_response.missing_agents.empty());
  EXPECT_TRUE(m.accept_response.provided_agents.empty());
  EXPECT_EQ(m.accept_response.updated_new_since.micros, 1795425619928557);
  EXPECT_FALSE(m.cannot_compare);
}

TEST(Golden, GossipDiscSectorsDiff) {
  const auto m = gossip<GossipDiscSectorsDiff>(vectors::kGossipDiscSectorsDiff, GossipMessageType::disc_sectors_diff);
  EXPECT_EQ(m.accept_response.new_ops.size(), 6U);
  EXPECT_EQ(m.snapshot.disc_boundary.micros, 1794816000000000);
  EXPECT_EQ(m.snapshot.disc_sectors, (std::vector<std::uint32_t>{165, 255}));
  ASSERT_EQ(m.snapshot.disc_sector_hashes.size(), 2U);
  EXPECT_EQ(m.snapshot.disc_sector_hashes[0].size(), 32U);
}

TEST(Golden, GossipDiscSectorDetailsDiff) {
  const auto m = gossip<GossipDiscSectorDetailsDiff>(vectors::kGossipDiscSectorDetailsDiff,
                                                     GossipMessageType::disc_sector_details_diff);
  EXPECT_TRUE(m.provided_agents.empty());
  EXPECT_EQ(m.snapshot.sector_indices, (std::vector<std::uint32_t>{197, 414, 255, 165}));
  ASSERT_EQ(m.snapshot.disc_slice_hashes.size(), 4U);
  EXPECT_EQ(m.snapshot.disc_slice_hashes[0].slice_indices, (std::vector<std::uint64_t>{3821}));
  EXPECT_TRUE(m.snapshot.disc_slice_hashes[2].hashes.empty()) << "a sector that is not held";
}

TEST(Golden, GossipDiscSectorDetailsDiffResponse) {
  const auto m = gossip<GossipDiscSectorDetailsDiffResponse>(vectors::kGossipDiscSectorDetailsDiffResponse,
                                                             GossipMessageType::disc_sector_details_diff_response);
  EXPECT_EQ(m.missing_ids.size(), 2U);
  EXPECT_EQ(m.snapshot.sector_indices, (std::vector<std::uint32_t>{255, 197, 414, 165}));
  for (const DiscSliceHashes& hashes : m.snapshot.disc_slice_hashes) EXPECT_EQ(hashes.hashes.size(), 1U);
}

TEST(Golden, GossipRingSectorDetailsDiff) {
  const auto m = gossip<GossipRingSectorDetailsDiff>(vectors::kGossipRingSectorDetailsDiff,
                                                     GossipMessageType::ring_sector_details_diff);
  EXPECT_EQ(m.accept_response.new_ops.size(), 2U);
  EXPECT_EQ(m.snapshot.ring_indices, (std::vector<std::uint32_t>{7}));
  ASSERT_EQ(m.snapshot.ring_sector_hashes.size(), 1U);
  EXPECT_EQ(m.snapshot.ring_sector_hashes[0].sector_indices, (std::vector<std::uint32_t>{117, 160}));
}

TEST(Golden, GossipRingSectorDetailsDiffResponse) {
  const auto m = gossip<GossipRingSectorDetailsDiffResponse>(vectors::kGossipRingSectorDetailsDiffResponse,
                                                             GossipMessageType::ring_sector_details_diff_response);
  EXPECT_EQ(m.missing_ids.size(), 2U);
  ASSERT_EQ(m.snapshot.ring_sector_hashes.size(), 1U);
  EXPECT_EQ(m.snapshot.ring_sector_hashes[0].sector_indices, (std::vector<std::uint32_t>{183, 469}));
}

TEST(Golden, GossipHashesAgentsTerminate) {
  EXPECT_EQ(gossip<GossipHashes>(vectors::kGossipHashes, GossipMessageType::hashes).missing_ids.size(), 2U);
  const auto agents = gossip<GossipAgents>(vectors::kGossipAgents, GossipMessageType::agents);
  ASSERT_EQ(agents.provided_agents.size(), 1U);
  EXPECT_TRUE(agents.provided_agents[0].text().starts_with(R"({"agentInfo":)"));
  const auto end = gossip<GossipTerminate>(vectors::kGossipTerminate, GossipMessageType::terminate);
  EXPECT_EQ(end.reason.text(), "No agents requested");
}

/// Never seen on the wire, so from the description: type 11 with nothing but the session.
TEST(Golden, GossipBusy) {
  const GossipMessage busy = GossipBusy{Bytes::copy_of("twelve bytes")};
  EXPECT_EQ(to_hex(encode_gossip(busy)), "080b120e0a0c7477656c7665206279746573");
  EXPECT_EQ(gossip<GossipBusy>("080b120e0a0c7477656c7665206279746573", GossipMessageType::busy).session_id.text(),
            "twelve bytes");
}

}  // namespace
}  // namespace kitsune2::wire
