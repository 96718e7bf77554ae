// Ops and agents for tests are the same in every run and are what they claim to be.
#include "kitsune2/testing/builders.hpp"

#include <gtest/gtest.h>

#include <set>

namespace kitsune2 {
namespace {

using namespace testing;

TEST(Builders, OpsAreNumberedAndDistinct) {
  std::set<Bytes> all;
  for (std::uint64_t i = 0; i < 1000; ++i) all.insert(make_op(i, 40));
  EXPECT_EQ(all.size(), 1000U);
  EXPECT_EQ(make_op(7, 100), make_op(7, 100));
  EXPECT_EQ(make_op(7, 100).size(), 100U);
  EXPECT_EQ(make_op(7, 1).size(), 32U) << "room for an id";
}

TEST(Builders, IdsAreThoseOfThePolicy) {
  for (const auto& policy : {make_sha256_policy(), make_memory_op_policy(), make_prefix_policy()}) {
    const auto ops = make_ops(*policy, 5, 3, 50);
    ASSERT_EQ(ops.size(), 3U);
    for (const auto& op : ops) EXPECT_EQ(policy->describe(op.op_data)->op_id, op.op_id);
    EXPECT_EQ(ids_of(ops)[2], ops[2].op_id);
    EXPECT_EQ(payloads_of(ops)[1], ops[1].op_data);
  }
}

TEST(Builders, AMemoryOpHasItsTime) {
  const auto op = make_memory_op(3, 40, Timestamp{1234});
  EXPECT_EQ(make_memory_op_policy()->describe(op)->created_at, Timestamp{1234});
}

TEST(Builders, AgentsAreNumberedAndTheirInfosVerify) {
  EXPECT_EQ(make_agent(1)->agent(), make_agent(1)->agent());
  EXPECT_NE(make_agent(1)->agent(), make_agent(2)->agent());
  AgentInfoBuilder builder;
  builder.url = Url::parse("ws://memory:1/a").value();
  const auto info = builder.sign(*make_agent(1));
  const auto again = AgentInfoSigned::decode(info->encode());
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ((*again)->info(), info->info());
  EXPECT_EQ(info->info().url, builder.url);
  EXPECT_FALSE(info->is_expired(builder.created_at));
  EXPECT_TRUE(info->is_expired(builder.created_at + builder.lifetime));
}

}  // namespace
}  // namespace kitsune2
