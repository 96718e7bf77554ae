// An application's own op store against OpStore's contract, with the installed suite.
#include <kitsune2/kitsune2.hpp>
#include <kitsune2/testing/op_store_suite.hpp>

namespace kitsune2::testing {
INSTANTIATE_TEST_SUITE_P(Mine, OpStoreSuite,
                         ::testing::Values(OpStoreKind{
                             .name = "mine",
                             .open =
                                 [](Runtime& runtime, std::shared_ptr<const OpPolicy> policy, const std::string&) {
                                   return make_memory_op_store(runtime, std::move(policy));
                                 }}),
                         op_store_kind_name);
}  // namespace kitsune2::testing
