// The forms of messages in dialects 0.4 and 0.5: frames that stock nodes wrote (tests/vectors/frames-0.5.json), what
// they decode to, and that we write the same.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "support.hpp"
#include "support/whole_messages.hpp"

namespace kitsune2::wire {
namespace {

using nlohmann::json;
using test::from_hex;

const json& vectors() {
  static const json all = json::parse(std::ifstream(K2_SOURCE_DIR "/tests/vectors/frames-0.5.json"));
  return all;
}

/// A frame of the iroh transport: one byte of type, four of length, and K2Proto. (A preflight has a url before that.)
K2ProtoView content(const std::string& frame) {
  const Result<K2ProtoView> out = decode_k2proto(from_hex(frame).slice(5));
  EXPECT_TRUE(out) << frame;
  return out ? *out : K2ProtoView{};
}

/// The body of a module's message, encoded again from its decoded form.
Bytes again(Dialect dialect, const K2ProtoView& message) {
  const std::string_view module = message.module->text();
  if (module == kFetchModule) {
    const Result<FetchMessage> m = decode_fetch(dialect, message.data);
    EXPECT_TRUE(m) << (m ? "" : m.error().to_string());
    if (!m) return {};
    if (m->type == FetchMessageType::request) return encode_fetch_request(m->op_ids.ids<OpId>());
    std::vector<MetaOp> ops;
    const std::vector<OpId> ids = m->op_ids.ids<OpId>();
    for (const Bytes& data : m->ops.slices()) ops.push_back({ids.empty() ? OpId() : ids[ops.size()], data});
    EXPECT_EQ(ids.size(), op_carries_id(dialect) ? ops.size() : 0U);
    return encode_fetch_response(dialect, ops).joined();
  }
  if (module == kPublishModule) {
    const Result<PublishMessage> m = decode_publish(dialect, message.data);
    EXPECT_TRUE(m) << (m ? "" : m.error().to_string());
    if (!m) return {};
    if (m->type == PublishMessageType::agent) return encode_publish_agent(m->agent_info.text());
    return encode_publish_ops(dialect, m->op_ids.ids<OpId>());
  }
  const Result<GossipMessage> m = decode_gossip(dialect, message.data);
  EXPECT_TRUE(m) << (m ? "" : m.error().to_string());
  return m ? encode_gossip(*m) : Bytes();
}

/// `kind`: "<module>/<type>". Counts what was checked.
void check_frame(Dialect dialect, const std::string& kind, const std::string& frame, std::map<std::string, int>& seen) {
  if (kind.find('/') == std::string::npos || kind == "Publish/OPS") return;  // the latter is checked below
  const K2ProtoView message = content(frame);
  ASSERT_EQ(message.type, K2WireType::module);
  ASSERT_TRUE(message.space && message.module);
  EXPECT_EQ(kind.substr(0, kind.find('/')), message.module->text());
  const Bytes body = again(dialect, message);
  EXPECT_EQ(to_hex(body), to_hex(message.data)) << kind;
  EXPECT_EQ(to_hex(whole_module(SpaceId(*message.space), message.module->text(), body)), frame.substr(10)) << kind;
  ++seen[kind];
}

TEST(Dialects, EveryFrameOf05IsReadAndWrittenTheSame) {
  std::map<std::string, int> seen;
  for (const auto& [kind, frames] : vectors().items()) {
    if (!frames.is_array() || kind == "close_frames") continue;
    for (const auto& frame : frames) check_frame(Dialect::v0_5, kind, frame, seen);
  }
  for (const auto& [run, what] : vectors()["runs"].items()) {
    for (const auto& m : what["messages"]) check_frame(Dialect::v0_5, m[2], m[3], seen);
  }
  EXPECT_EQ(seen.size(), 15U) << "two of fetch, one of publish, twelve of gossip";
}

TEST(Dialects, EveryFrameOf04IsReadAndWrittenTheSame) {
  std::map<std::string, int> seen;
  for (const auto& m : vectors()["runs_0.4.1"]["v041"]["messages"]) check_frame(Dialect::v0_4, m[2], m[3], seen);
  EXPECT_TRUE(seen.contains("Fetch/RESPONSE") && seen.contains("k2gossip/ACCEPT")) << seen.size();
}

TEST(Dialects, AnOpOf05HasItsId) {
  const K2ProtoView message = content(vectors()["Fetch/RESPONSE"][0]);
  const Result<FetchMessage> now = decode_fetch(Dialect::v0_5, message.data);
  ASSERT_TRUE(now);
  ASSERT_EQ(now->ops.size(), 1U);
  EXPECT_EQ(as_text(*now->op_ids.begin()), "op created by rust node A, 01234");
  EXPECT_TRUE(as_text(*now->ops.begin()).starts_with(R"({"created_at":)"));
  // The older dialect takes the id for the op: nothing in the message tells them apart.
  const Result<FetchMessage> before = decode_fetch(Dialect::v0_2, message.data);
  ASSERT_TRUE(before);
  EXPECT_EQ(as_text(*before->ops.begin()), "op created by rust node A, 01234");
  EXPECT_TRUE(before->op_ids.empty());
}

TEST(Dialects, PublishedIdsOf05HaveMetadata) {
  const K2ProtoView message = content(vectors()["Publish/OPS"][0]);
  const Result<PublishMessage> now = decode_publish(Dialect::v0_5, message.data);
  ASSERT_TRUE(now);
  ASSERT_EQ(now->op_ids.size(), 1U);
  ASSERT_EQ(now->metadata.size(), 1U);
  const std::vector<OpId> ids = now->op_ids.ids<OpId>();
  EXPECT_EQ(to_hex(ids[0]), "7075626c69736865642062792041000000000000000000000000000000000000");
  EXPECT_EQ(to_hex(*now->metadata.begin()), "010203ff");
  const Bytes without = encode_publish_ops(Dialect::v0_5, ids);
  const Result<PublishMessage> second = decode_publish(Dialect::v0_5, without);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->op_ids.ids<OpId>(), ids);
  EXPECT_TRUE((*second->metadata.begin()).empty());
  const std::vector<Bytes> metadata = now->metadata.slices();
  EXPECT_EQ(encode_publish_ops(Dialect::v0_5, ids, metadata), message.data) << "the stock node's bytes";
}

TEST(Dialects, SomeOfThePublishedIdsHaveMetadata) {
  std::vector<OpId> ids;
  std::vector<Bytes> metadata;
  for (const std::size_t size : {0U, 1U, 0U, 127U, 128U, 16'384U, 0U}) {
    ids.push_back(OpId::from_text("an op with " + std::to_string(size)));
    metadata.emplace_back(std::string(size, 'm'));
  }
  const Result<PublishMessage> read = decode_publish(Dialect::v0_5, encode_publish_ops(Dialect::v0_5, ids, metadata));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->op_ids.ids<OpId>(), ids);
  EXPECT_EQ(read->metadata.slices(), metadata);
  EXPECT_EQ(encode_publish_ops(Dialect::v0_4, ids, metadata), encode_publish_ops(Dialect::v0_4, ids))
      << "an older dialect has no place for it";
}

TEST(Dialects, GossipTellsTheOpCountWhereTheDialectHasIt) {
  const K2ProtoView initiate = content(vectors()["k2gossip/INITIATE"][0]);
  const K2ProtoView accept = content(vectors()["k2gossip/ACCEPT"][0]);
  for (const Dialect dialect : {Dialect::v0_4, Dialect::v0_5}) {
    const Result<GossipMessage> i = decode_gossip(dialect, initiate.data);
    const Result<GossipMessage> a = decode_gossip(dialect, accept.data);
    ASSERT_TRUE(i && a);
    EXPECT_TRUE(std::get<GossipInitiate>(*i).dht_op_count.has_value());
    EXPECT_TRUE(std::get<GossipAccept>(*a).dht_op_count.has_value());
  }
  const Result<GossipMessage> i = decode_gossip(Dialect::v0_2, initiate.data);
  ASSERT_TRUE(i);
  EXPECT_FALSE(std::get<GossipInitiate>(*i).dht_op_count.has_value());
  GossipInitiate none = std::get<GossipInitiate>(*i);
  none.dht_op_count = 0;
  const Result<GossipMessage> read = decode_gossip(Dialect::v0_5, encode_gossip(none));
  ASSERT_TRUE(read);
  EXPECT_EQ(std::get<GossipInitiate>(*read).dht_op_count, 0U) << "0 and not told are different things";
}

TEST(Dialects, IdsOf05KeepTheLimits) {
  WireLimits limits;
  limits.max_id_bytes = 8;
  limits.max_items = 2;
  const auto fetch = [&](const std::vector<MetaOp>& ops) {
    const auto out = decode_fetch(Dialect::v0_5, encode_fetch_response(Dialect::v0_5, ops).joined(), limits);
    return out ? std::string("ok") : out.error().to_string();
  };
  const MetaOp op{OpId::from_text("eight ch"), Bytes::copy_of("data")};
  EXPECT_EQ(fetch({op, op}), "ok");
  EXPECT_EQ(fetch({{OpId::from_text("nine char"), op.op_data}}),
            "too_large: FetchResponse: Op: field 2: an id over the limit");
  EXPECT_EQ(fetch({{OpId(), op.op_data}}), "malformed: FetchResponse: Op: field 2: an id of 0 bytes");
  EXPECT_EQ(fetch({op, op, op}), "too_large: FetchResponse: field 1: too many ops");
  const std::vector<OpId> none{OpId()};
  EXPECT_FALSE(decode_publish(Dialect::v0_5, encode_publish_ops(Dialect::v0_5, none), limits));
}

TEST(Dialects, SizesForFillingMessages) {
  for (const std::size_t size : {0U, 1U, 90U, 91U, 127U, 16380U, 70000U}) {
    const std::vector<MetaOp> two(2, {OpId::from_text(std::string(32, 'i')), Bytes(std::string(size, 'x'))});
    const std::size_t body = encode_fetch_response(Dialect::v0_5, two).size();
    EXPECT_LE(body, 2 * fetch_op_wire_size(Dialect::v0_5, 32, size) + kFetchFrameBytes);
    EXPECT_GE(body, 2 * fetch_op_wire_size(Dialect::v0_5, 32, size));
  }
}

}  // namespace
}  // namespace kitsune2::wire
