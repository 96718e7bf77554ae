// Fixes the process's hash key, so that a seed gives the same run in every process.
#include <gtest/gtest.h>

#include "kitsune2/ids.hpp"

namespace {

class FixedHash : public ::testing::Environment {
 public:
  void SetUp() override { kitsune2::set_hash_seed(42); }
};

[[maybe_unused]] const auto* const kFixedHash = ::testing::AddGlobalTestEnvironment(new FixedHash);

}  // namespace
