// Fixes the process's hash key, so that a seed gives the same run in every process. And has memory kept that was freed:
// histories allocate and free the same large pieces, and the kernel would clear them each time.
#include <gtest/gtest.h>
#include <malloc.h>

#include "kitsune2/ids.hpp"

namespace {

class FixedHash : public ::testing::Environment {
 public:
  void SetUp() override {
    kitsune2::set_hash_seed(42);
    ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
    ::mallopt(M_TRIM_THRESHOLD, 256 << 20);
  }
};

[[maybe_unused]] const auto* const kFixedHash = ::testing::AddGlobalTestEnvironment(new FixedHash);

}  // namespace
