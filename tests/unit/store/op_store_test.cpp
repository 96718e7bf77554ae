// The op store suite over the shipped stores, and what is promised of these only.
#include "kitsune2/testing/op_store_suite.hpp"

#include "kitsune2/sqlite_store.hpp"
#include "store/sqlite/environment.hpp"
#include "store_harness.hpp"

namespace kitsune2::testing {
namespace {

std::shared_ptr<OpStore> open_sqlite(Runtime& runtime, std::shared_ptr<const OpPolicy> policy,
                                     const std::string& folder, const SqliteOpStoreOptions& options = {}) {
  return open_sqlite_op_store(runtime, std::move(policy), test_space(), folder + "/store.db", options).value();
}

INSTANTIATE_TEST_SUITE_P(
    All, OpStoreSuite,
    ::testing::Values(
        OpStoreKind{.name = "memory",
                    .open = [](Runtime& runtime, std::shared_ptr<const OpPolicy> policy,
                               const std::string&) { return make_memory_op_store(runtime, std::move(policy)); }},
        OpStoreKind{.name = "sqlite",
                    .durable = true,
                    .open = [](Runtime& runtime, std::shared_ptr<const OpPolicy> policy,
                               const std::string& folder) { return open_sqlite(runtime, std::move(policy), folder); }},
        OpStoreKind{.name = "runs",
                    .durable = true,
                    .open =
                        [](Runtime& runtime, std::shared_ptr<const OpPolicy> policy, const std::string& folder) {
                          return open_sqlite(runtime, std::move(policy), folder, {.index_in_runs = true});
                        }},
        // So small that a few ops make several.
        OpStoreKind{.name = "small_runs",
                    .durable = true,
                    .open =
                        [](Runtime& runtime, std::shared_ptr<const OpPolicy> policy, const std::string& folder) {
                          auto environment = sqlite::real_environment();
                          environment.merge_rules = {.newest = 8, .fan_in = 2, .most_entries = 1'000, .least_work = 1};
                          return sqlite::open_op_store(environment, runtime, std::move(policy), test_space(),
                                                       folder + "/store.db", {.index_in_runs = true})
                              .value();
                        }}),
    op_store_kind_name);

TEST(MemoryOpStore, ManySmallOpsComeBackWhole) {
  // More than the first block of payloads, and than the second.
  StoreWorld w;
  const auto store = make_memory_op_store(w.runtime(), make_prefix_policy());
  const auto ops = make_ops(*make_prefix_policy(), 1, 4'000, 1'001);
  ASSERT_EQ(w.process(*store, payloads_of(ops))->newly_stored.size(), ops.size());
  EXPECT_EQ(w.retrieve(*store, ids_of(ops)).value(), ops);
}

TEST(MemoryOpStore, LongListsOfHeldLackingRepeatedAndTooLargeOpsAreToldApart) {
  StoreWorld w;
  const auto policy = make_prefix_policy();
  const auto store = make_memory_op_store(w.runtime(), policy, 100);
  const auto ops = make_ops(*policy, 1, 300, 64);
  std::vector<std::pair<OpDescription, Bytes>> given;
  std::vector<OpId> stored;
  std::vector<OpId> lacking;
  for (std::size_t i = 0; i < ops.size(); ++i) {
    const OpDescription description = policy->describe(ops[i].op_data).value();
    if (i % 3 == 0) {
      lacking.push_back(description.op_id);
      given.emplace_back(description, Bytes(std::string(101, 'x')));  // refused
      continue;
    }
    stored.push_back(description.op_id);
    given.emplace_back(description, ops[i].op_data);
    if (i % 7 == 0) given.push_back(given.back());
  }
  const auto outcome = w.store_described(*store, given);
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->rejected, lacking.size());
  EXPECT_EQ(outcome->newly_stored, stored);
  EXPECT_EQ(outcome->stored.size(), given.size() - lacking.size());
  EXPECT_EQ(w.filter(*store, ids_of(ops)).value(), lacking);
}

// ------------------------------------------------------------- the largest op

class OpStoreLimit : public ::testing::TestWithParam<bool> {
 protected:
  std::shared_ptr<OpStore> open(std::uint64_t max_op_bytes) {
    if (!GetParam()) return make_memory_op_store(w_.runtime(), make_prefix_policy(), max_op_bytes);
    SqliteOpStoreOptions options;
    options.max_op_bytes = max_op_bytes;
    return open_sqlite(w_.runtime(), make_prefix_policy(), dir_.str(), options);
  }
  StoreWorld w_;
  TempDir dir_;
};

INSTANTIATE_TEST_SUITE_P(All, OpStoreLimit, ::testing::Bool(),
                         [](const auto& test) { return std::string(test.param ? "sqlite" : "memory"); });

TEST_P(OpStoreLimit, AnOpThatNoMessageCarriesIsRefusedAndTheLimitNamed) {
  const auto store = open(1000);
  const Bytes fits = make_op(1, 1000);
  const Bytes large = make_op(2, 1001);
  const auto description = [](const Bytes& op) { return make_prefix_policy()->describe(op).value(); };
  for (const bool described : {false, true}) {
    const auto out = described ? w_.store_described(*store, {{description(large), large}, {description(fits), fits}})
                               : w_.process(*store, {large, fits});
    ASSERT_TRUE(out);
    EXPECT_EQ(out->stored.size(), 1U);
    EXPECT_EQ(out->rejected, 1U);
    ASSERT_EQ(out->rejections.size(), 1U);
    EXPECT_EQ(out->rejections[0].index, 0U);
    EXPECT_EQ(out->rejections[0].reason.code, Errc::too_large);
    EXPECT_EQ(out->rejections[0].reason.message,
              "an op of 1001 bytes is larger than one message carries; the limit is 1000 bytes");
  }
  EXPECT_EQ(w_.stats(*store)->ops, 1U);
}

TEST_P(OpStoreLimit, AStoreThatHoldsALargerOpAlreadyOpensAndGivesIt) {
  if (!GetParam()) GTEST_SKIP() << "in memory there is no store from before";
  const auto ops = make_ops(*make_prefix_policy(), 1, 2, 5000);
  ASSERT_EQ(w_.process(*open(5000), payloads_of(ops))->stored.size(), 2U);
  const auto store = open(1000);
  EXPECT_EQ(w_.retrieve(*store, ids_of(ops)).value(), ops);
  // It is held: that it comes again is no reason to refuse it, but it is too large all the same.
  EXPECT_EQ(w_.process(*store, payloads_of(ops))->rejected, 2U);
}

TEST(OpStoreLimitDefault, IsWhatAMessageOfTheDefaultSizeCarries) {
  EXPECT_EQ(kDefaultMaxOpBytes, (64U << 20) - 2048U);
  const auto policy = make_sha256_policy();
  const Bytes large(std::vector<std::uint8_t>(kDefaultMaxOpBytes + 1));
  EXPECT_EQ(policy->describe(large).error().code, Errc::too_large);
  EXPECT_NE(policy->describe(large).error().message.find("67106816"), std::string::npos) << "the limit is named";
  EXPECT_TRUE(policy->describe(large.slice(0, kDefaultMaxOpBytes)));
  EXPECT_EQ(make_memory_op_policy()->describe(large).error().code, Errc::too_large);
}

}  // namespace
}  // namespace kitsune2::testing
