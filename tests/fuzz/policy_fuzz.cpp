// Op policies: any bytes are an op or an error; the same bytes give the same id.
#include "fuzz/fuzz.hpp"
#include "kitsune2/op_store.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto small = make_sha256_policy(4096);
  static const std::array policies{small, make_memory_op_policy(), make_prefix_policy()};
  const Bytes op = fuzz::input(data, size);
  for (const auto& policy : policies) {
    const auto described = policy->describe(op);
    if (!described) {
      K2_ASSERT(described.error().code == Errc::malformed || described.error().code == Errc::too_large);
      K2_ASSERT(!described.error().message.empty());
      continue;
    }
    K2_ASSERT(described->op_id.size() == 32);
    if (policy == small) K2_ASSERT(op.size() <= 4096 && described->created_at >= Timestamp{});
    const auto again = policy->describe(op);
    K2_ASSERT(again && again->op_id == described->op_id && again->created_at == described->created_at);
  }
  return 0;
}
