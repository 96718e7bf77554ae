// Our codec against libprotobuf: the same messages, the same bytes, the same verdict on broken ones.
#include "twin.hpp"

#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "support/whole_messages.hpp"
#include "vectors.hpp"
#include "wire/fetch_messages.hpp"
#include "wire/k2proto.hpp"
#include "wire/publish_messages.hpp"

namespace kitsune2::wire {
namespace {

using google::protobuf::util::MessageDifferencer;
using test::Random;

/// libprotobuf reports each broken string on stderr; here they are intended.
const auto kSilence = google::protobuf::SetLogHandler(nullptr);

constexpr int kRandomMessages = 2000;
constexpr int kMutations = 150'000;

/// A message as it is passed to our decoders.
Bytes ours(const std::string& bytes) { return Bytes::copy_of(bytes); }

template <class Twin>
bool twin_parses(Twin& out, const std::string& bytes) {
  return test::strictly_formed(bytes, *Twin::descriptor()) && out.ParseFromString(bytes);
}

// ---- each checker compares verdict and content for one message; it returns whether both accepted

bool check_k2proto(const std::string& bytes) {
  kitsune2::wire::K2Proto twin;
  const bool expected = twin_parses(twin, bytes) && twin.space().size() <= 1024 && twin.module().size() <= 256;
  const Result<K2ProtoView> view = decode_k2proto(ours(bytes));
  EXPECT_EQ(view.has_value(), expected) << to_hex(as_bytes(bytes)) << (view ? "" : view.error().to_string());
  if (!view || !expected) return false;
  EXPECT_EQ(static_cast<int>(view->type), K2Proto::K2WireType_IsValid(twin.ty()) ? twin.ty() : 0);
  EXPECT_EQ(view->data.text(), twin.data());
  EXPECT_EQ(view->space.has_value(), twin.has_space());
  EXPECT_EQ(view->space.value_or(Bytes{}).text(), twin.space());
  EXPECT_EQ(view->module.has_value(), twin.has_module());
  EXPECT_EQ(view->module.value_or(Bytes{}).text(), twin.module());
  return true;
}

template <class List, class Repeated>
void expect_same_ids(const List& list, const Repeated& twin) {
  ASSERT_EQ(list.size(), static_cast<std::size_t>(twin.size()));
  int i = 0;
  std::size_t total = 0;
  for (const ByteView id : list) {
    EXPECT_EQ(as_text(id), twin[i++]);
    total += id.size();
  }
  EXPECT_EQ(total, list.total_bytes());
}

bool check_fetch(const std::string& bytes) {
  kitsune2::fetch::K2FetchMessage twin;
  kitsune2::fetch::FetchRequest request;
  kitsune2::fetch::FetchResponse response;
  bool expected = twin_parses(twin, bytes);
  if (expected && twin.fetch_message_type() == kitsune2::fetch::K2FetchMessage::REQUEST) {
    expected = twin_parses(request, twin.data()) && test::has_valid_content(request);
  } else if (expected && twin.fetch_message_type() == kitsune2::fetch::K2FetchMessage::RESPONSE) {
    expected = twin_parses(response, twin.data());
  } else {
    expected = false;
  }
  const Result<FetchMessage> message = decode_fetch(Dialect::v0_2, ours(bytes));
  EXPECT_EQ(message.has_value(), expected) << to_hex(as_bytes(bytes)) << (message ? "" : message.error().to_string());
  if (!message || !expected) return false;
  EXPECT_EQ(static_cast<int>(message->type), twin.fetch_message_type());
  expect_same_ids(message->op_ids, request.op_ids());
  const std::vector<Bytes> ops = message->ops.slices();
  EXPECT_EQ(ops.size(), static_cast<std::size_t>(response.ops_size()));
  for (std::size_t i = 0; i < ops.size(); ++i) EXPECT_EQ(ops[i].text(), response.ops(static_cast<int>(i)).data());
  return true;
}

bool check_publish(const std::string& bytes) {
  kitsune2::publish::K2PublishMessage twin;
  kitsune2::publish::PublishOps ops;
  kitsune2::publish::PublishAgent agent;
  bool expected = twin_parses(twin, bytes);
  if (expected && twin.publish_message_type() == kitsune2::publish::K2PublishMessage::OPS) {
    expected = twin_parses(ops, twin.data()) && test::has_valid_content(ops);
  } else if (expected && twin.publish_message_type() == kitsune2::publish::K2PublishMessage::AGENT) {
    expected = twin_parses(agent, twin.data());
  } else {
    expected = false;
  }
  const Result<PublishMessage> message = decode_publish(Dialect::v0_2, ours(bytes));
  EXPECT_EQ(message.has_value(), expected) << to_hex(as_bytes(bytes)) << (message ? "" : message.error().to_string());
  if (!message || !expected) return false;
  EXPECT_EQ(static_cast<int>(message->type), twin.publish_message_type());
  expect_same_ids(message->op_ids, ops.op_ids());
  EXPECT_EQ(message->agent_info.text(), agent.agent_info());
  return true;
}

bool check_gossip(const std::string& bytes) {
  kitsune2::gossip::K2GossipMessage twin;
  std::unique_ptr<google::protobuf::Message> inner;
  bool expected = twin_parses(twin, bytes);
  if (expected) inner = test::new_gossip(twin.msg_type());
  expected = expected && inner != nullptr && test::strictly_formed(twin.data(), *inner->GetDescriptor()) &&
             inner->ParseFromString(twin.data()) && test::has_valid_content(*inner);
  const Result<GossipMessage> message = decode_gossip(Dialect::v0_2, ours(bytes));
  EXPECT_EQ(message.has_value(), expected) << to_hex(as_bytes(bytes)) << (message ? "" : message.error().to_string());
  if (!message || !expected) return false;
  EXPECT_EQ(static_cast<int>(type_of(*message)), twin.msg_type());
  inner->DiscardUnknownFields();
  const auto converted = test::to_twin(*message);
  EXPECT_TRUE(MessageDifferencer::Equals(*converted, *inner)) << to_hex(as_bytes(bytes));
  // What we write is what libprotobuf writes.
  twin.DiscardUnknownFields();
  twin.set_data(inner->SerializeAsString());
  EXPECT_EQ(encode_gossip(*message).text(), twin.SerializeAsString());
  return true;
}

// ---- sources of messages

std::string random_fetch(Random& random) {
  kitsune2::fetch::K2FetchMessage twin;
  if (random.one_in(2)) {
    kitsune2::fetch::FetchRequest request;
    test::fill(request, random);
    twin.set_fetch_message_type(kitsune2::fetch::K2FetchMessage::REQUEST);
    twin.set_data(request.SerializeAsString());
  } else {
    kitsune2::fetch::FetchResponse response;
    test::fill(response, random);
    twin.set_fetch_message_type(kitsune2::fetch::K2FetchMessage::RESPONSE);
    twin.set_data(response.SerializeAsString());
  }
  return twin.SerializeAsString();
}

std::string random_publish(Random& random) {
  kitsune2::publish::K2PublishMessage twin;
  if (random.one_in(2)) {
    kitsune2::publish::PublishOps ops;
    test::fill(ops, random);
    twin.set_publish_message_type(kitsune2::publish::K2PublishMessage::OPS);
    twin.set_data(ops.SerializeAsString());
  } else {
    kitsune2::publish::PublishAgent agent;
    test::fill(agent, random);
    twin.set_publish_message_type(kitsune2::publish::K2PublishMessage::AGENT);
    twin.set_data(agent.SerializeAsString());
  }
  return twin.SerializeAsString();
}

std::string random_k2proto(Random& random) {
  kitsune2::wire::K2Proto twin;
  test::fill(twin, random);
  return twin.SerializeAsString();
}

std::string random_gossip(Random& random) {
  const int type = static_cast<int>(1 + random.below(12));
  const auto inner = test::new_gossip(type);
  test::fill(*inner, random);
  kitsune2::gossip::K2GossipMessage twin;
  twin.set_msg_type(static_cast<kitsune2::gossip::K2GossipMessage::GossipMessageType>(type));
  twin.set_data(inner->SerializeAsString());
  return twin.SerializeAsString();
}

struct Kind {
  const char* name;
  std::string (*make)(Random&);
  bool (*check)(const std::string&);
};

class Twin : public testing::TestWithParam<Kind> {};

TEST_P(Twin, RandomMessagesMeanTheSame) {
  Random random(11);
  for (int i = 0; i < kRandomMessages && !HasFailure(); ++i) {
    EXPECT_TRUE(GetParam().check(GetParam().make(random))) << i;
  }
}

/// Most of the mutated messages are broken, and many are not: both verdicts are compared, and both must occur.
TEST_P(Twin, MutatedMessagesGetTheSameVerdict) {
  Random random(12);
  int accepted = 0;
  std::string base;
  std::string other;
  for (int i = 0; i < kMutations && !HasFailure(); ++i) {
    if (i % 50 == 0) {
      other = base;
      do base = GetParam().make(random);
      while (base.size() > 2000);
    }
    accepted += GetParam().check(random.mutated(base, other)) ? 1 : 0;
  }
  EXPECT_GT(accepted, kMutations / 100);
  EXPECT_LT(accepted, kMutations * 99 / 100);
}

TEST_P(Twin, TruncatedAnywhere) {
  Random random(13);
  for (int i = 0; i < 40; ++i) {
    const std::string message = GetParam().make(random);
    if (message.size() > 3000) continue;
    for (std::size_t size = 0; size < message.size() && !HasFailure(); ++size)
      GetParam().check(message.substr(0, size));
  }
}

INSTANTIATE_TEST_SUITE_P(Wire, Twin,
                         testing::Values(Kind{"K2Proto", random_k2proto, check_k2proto},
                                         Kind{"Fetch", random_fetch, check_fetch},
                                         Kind{"Publish", random_publish, check_publish},
                                         Kind{"Gossip", random_gossip, check_gossip}),
                         [](const auto& each) { return each.param.name; });

TEST(TwinVectors, AgreeOnTheCapturedBytesAndOnAllTheirPrefixes) {
  for (const std::string_view hex : {vectors::kNotify, vectors::kPublishOps, vectors::kPublishAgent,
                                     vectors::kFetchRequest, vectors::kFetchResponse}) {
    const std::string whole = test::from_hex(hex).str();
    EXPECT_TRUE(check_k2proto(whole));
    const std::string data = decode_k2proto(ours(whole))->data.str();
    for (std::size_t n = 0; n < whole.size(); ++n) check_k2proto(whole.substr(0, n));
    for (std::size_t n = 0; n <= data.size(); ++n) {
      check_fetch(data.substr(0, n));
      check_publish(data.substr(0, n));
    }
  }
  for (const std::string_view hex :
       {vectors::kGossipInitiate, vectors::kGossipAccept, vectors::kGossipNoDiff, vectors::kGossipDiscSectorsDiff,
        vectors::kGossipDiscSectorDetailsDiff, vectors::kGossipDiscSectorDetailsDiffResponse,
        vectors::kGossipRingSectorDetailsDiff, vectors::kGossipRingSectorDetailsDiffResponse, vectors::kGossipHashes,
        vectors::kGossipAgents, vectors::kGossipTerminate}) {
    const std::string whole = test::from_hex(hex).str();
    EXPECT_TRUE(check_gossip(whole));
    for (std::size_t n = 0; n < whole.size(); ++n) check_gossip(whole.substr(0, n));
    // The inner message cut short, so that the outer one is whole.
    kitsune2::gossip::K2GossipMessage outer;
    ASSERT_TRUE(outer.ParseFromString(whole));
    const std::string inner = outer.data();
    for (std::size_t n = 0; n < inner.size(); ++n) {
      outer.set_data(inner.substr(0, n));
      check_gossip(outer.SerializeAsString());
    }
  }
}

/// A message field that occurs twice is the merge of both: lists are concatenated; of numbers the later one counts.
TEST(TwinMerge, MessageFieldsThatComeTwice) {
  Random random(15);
  const auto typed = [](int type, const std::string& inner) {
    kitsune2::gossip::K2GossipMessage outer;
    outer.set_msg_type(static_cast<kitsune2::gossip::K2GossipMessage::GossipMessageType>(type));
    outer.set_data(inner);
    return outer.SerializeAsString();
  };
  for (int type = 1; type <= 12; ++type) {
    for (int round = 0; round < 20; ++round) {
      // Two messages one after the other are one message in which every field comes twice.
      const auto first = test::new_gossip(type);
      const auto second = test::new_gossip(type);
      test::fill(*first, random);
      test::fill(*second, random);
      const bool accepted = check_gossip(typed(type, first->SerializeAsString() + second->SerializeAsString()));
      EXPECT_EQ(accepted, type > 2) << type << ": 32 words are no arc set, everything else merges";
    }
  }
  // An arc set in two halves is complete.
  kitsune2::gossip::K2GossipInitiateMessage head;
  kitsune2::gossip::K2GossipInitiateMessage tail;
  head.set_session_id("s");
  for (std::uint32_t i = 0; i < 8; ++i) {
    head.mutable_arc_set()->add_value(i);
    tail.mutable_arc_set()->add_value(100 + i);
  }
  const std::string whole = typed(1, head.SerializeAsString() + tail.SerializeAsString());
  EXPECT_TRUE(check_gossip(whole));
  const Result<GossipMessage> message = decode_gossip(Dialect::v0_2, ours(whole));
  ASSERT_TRUE(message);
  EXPECT_EQ(std::get<GossipInitiate>(*message).arc_set.words[15], 107U);
}

/// Both write the same bytes for whole K2Proto messages, made from our types.
TEST(TwinEncoders, WholeMessages) {
  Random random(14);
  for (int round = 0; round < 500; ++round) {
    const std::string space = random.bytes(1 + random.below(60));
    std::vector<OpId> ids;
    std::vector<Bytes> ops;
    std::vector<MetaOp> meta;
    kitsune2::fetch::FetchRequest request;
    kitsune2::fetch::FetchResponse response;
    kitsune2::publish::PublishOps publish;
    for (std::uint64_t n = random.below(40); n > 0; --n) {
      const std::string id = random.bytes(1 + random.below(60));
      ids.emplace_back(as_bytes(id));
      request.add_op_ids(id);
      publish.add_op_ids(id);
      const std::string op = random.bytes(random.one_in(20) ? random.below(40000) : random.below(300));
      ops.push_back(Bytes::copy_of(op));
      meta.push_back({ids.back(), ops.back()});
      response.add_ops()->set_data(op);
    }
    const auto whole = [&](const std::string& data, const char* module) {
      kitsune2::wire::K2Proto outer;
      outer.set_ty(K2Proto::MODULE);
      outer.set_data(data);
      outer.set_space(space);
      outer.set_module(module);
      return outer.SerializeAsString();
    };
    const SpaceId id{as_bytes(space)};
    kitsune2::fetch::K2FetchMessage fetch;
    fetch.set_fetch_message_type(kitsune2::fetch::K2FetchMessage::REQUEST);
    fetch.set_data(request.SerializeAsString());
    EXPECT_EQ(encode_fetch_request(ids).text(), fetch.SerializeAsString());
    EXPECT_EQ(whole_fetch_request(id, ids).text(), whole(fetch.SerializeAsString(), "Fetch"));
    fetch.set_fetch_message_type(kitsune2::fetch::K2FetchMessage::RESPONSE);
    fetch.set_data(response.SerializeAsString());
    const std::string expected = whole(fetch.SerializeAsString(), "Fetch");
    EXPECT_EQ(whole_fetch_response(id, std::span<const Bytes>(ops)).text(), expected);
    EXPECT_EQ(whole_fetch_response(id, std::span<const MetaOp>(meta)).text(), expected);
    EXPECT_EQ(fetch_response_body(std::span<const MetaOp>(meta)).text(), fetch.SerializeAsString());
    kitsune2::publish::K2PublishMessage outer;
    outer.set_publish_message_type(kitsune2::publish::K2PublishMessage::OPS);
    outer.set_data(publish.SerializeAsString());
    EXPECT_EQ(whole_publish_ops(id, ids).text(), whole(outer.SerializeAsString(), "Publish"));
    const std::string data = random.bytes(random.below(300));
    EXPECT_EQ(whole_module(id, "k2gossip", as_bytes(data)).text(), whole(data, "k2gossip"));
    EXPECT_TRUE(check_k2proto(encode_notify(id, as_bytes(data)).str()));
    EXPECT_TRUE(check_k2proto(encode_disconnect("reason").str()));
  }
}

}  // namespace
}  // namespace kitsune2::wire
