// What is left of a connection's input.
#include "net/leftover.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace kitsune2::net {
namespace {

TEST(Leftover, IsPassedAgain) {
  const std::vector<std::uint8_t> input{1, 2, 3, 4, 5};
  Leftover leftover;
  leftover.keep(input.data(), 2, input.size());
  ASSERT_EQ(leftover.size(), 3U);
  std::vector<std::uint8_t> buffer(3);
  leftover.copy_to(buffer.data());
  EXPECT_EQ(buffer, (std::vector<std::uint8_t>{3, 4, 5}));
  leftover.clear();
  leftover.keep(input.data(), 5, input.size());
  EXPECT_TRUE(leftover.empty());
}

TEST(Leftover, TakesLittleMoreMemoryThanItHolds) {
  const std::vector<std::uint8_t> input(200'000);
  Leftover leftover;
  for (const std::size_t rest : {200'000, 60'000, 1000, 150'000, 0, 60'000, 10, 3, 0}) {
    leftover.clear();
    leftover.keep(input.data(), input.size() - rest, input.size());
    EXPECT_EQ(leftover.size(), rest);
    EXPECT_LE(leftover.memory(), 2 * rest + 4096) << rest;
  }
}

}  // namespace
}  // namespace kitsune2::net
