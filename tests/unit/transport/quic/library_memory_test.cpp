// The memory of ngtcp2: counted and bounded; what the library forgets is freed with the connection (seen by ASan too).
#include "transport/quic/library_memory.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

namespace kitsune2::quic {
namespace {

TEST(LibraryMemory, CountsWhatIsInUse) {
  LibraryMemory memory(1000);
  void* first = memory.allocate(100);
  void* second = memory.allocate(200);
  void* third = memory.allocate(50);
  ASSERT_TRUE(first != nullptr && second != nullptr && third != nullptr);
  EXPECT_EQ(memory.used(), 350U);
  memory.release(second);
  EXPECT_EQ(memory.used(), 150U);
  memory.release(nullptr);
  memory.release(third);
  memory.release(first);
  EXPECT_EQ(memory.used(), 0U);
}

TEST(LibraryMemory, ABlockIsAlignedForAnything) {
  LibraryMemory memory(1000);
  for (const std::size_t size : {1, 3, 8, 17}) {
    const auto at = reinterpret_cast<std::uintptr_t>(memory.allocate(size));
    EXPECT_EQ(at % alignof(std::max_align_t), 0U) << size;
  }
}

TEST(LibraryMemory, RefusesWhatIsBeyondTheBound) {
  LibraryMemory memory(100);
  void* half = memory.allocate(50);
  ASSERT_NE(half, nullptr);
  EXPECT_EQ(memory.allocate(51), nullptr);
  EXPECT_EQ(memory.allocate(std::numeric_limits<std::size_t>::max()), nullptr);
  EXPECT_EQ(memory.allocate_zeros(std::numeric_limits<std::size_t>::max() / 2, 3), nullptr);
  EXPECT_EQ(memory.used(), 50U);
  EXPECT_NE(memory.allocate(50), nullptr);
  memory.release(half);
  EXPECT_NE(memory.allocate(50), nullptr);
}

TEST(LibraryMemory, ABlockThatGrowsKeepsItsBytes) {
  LibraryMemory memory(1000);
  auto* block = static_cast<std::uint8_t*>(memory.reallocate(nullptr, 4));
  ASSERT_NE(block, nullptr);
  std::iota(block, block + 4, std::uint8_t{1});
  auto* larger = static_cast<std::uint8_t*>(memory.reallocate(block, 300));
  ASSERT_NE(larger, nullptr);
  EXPECT_EQ(std::vector<std::uint8_t>(larger, larger + 4), (std::vector<std::uint8_t>{1, 2, 3, 4}));
  EXPECT_EQ(memory.used(), 300U);
  EXPECT_EQ(memory.reallocate(larger, 900), nullptr) << "old and new at once are beyond the bound";
  EXPECT_EQ(std::vector<std::uint8_t>(larger, larger + 4), (std::vector<std::uint8_t>{1, 2, 3, 4}))
      << "a block that could not grow stays";
  auto* smaller = static_cast<std::uint8_t*>(memory.reallocate(larger, 2));
  ASSERT_NE(smaller, nullptr);
  EXPECT_EQ(std::vector<std::uint8_t>(smaller, smaller + 2), (std::vector<std::uint8_t>{1, 2}));
  EXPECT_EQ(memory.used(), 2U);
}

TEST(LibraryMemory, ZerosAreZeros) {
  LibraryMemory memory(1000);
  const auto* block = static_cast<const std::uint8_t*>(memory.allocate_zeros(10, 30));
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(std::vector<std::uint8_t>(block, block + 300), std::vector<std::uint8_t>(300));
}

// Under AddressSanitizer this fails if a block is left.
TEST(LibraryMemory, WhatIsNotReleasedIsFreedWithTheOwner) {
  LibraryMemory memory(1000);
  void* first = memory.allocate(10);
  void* second = memory.allocate(20);
  EXPECT_NE(memory.allocate(30), nullptr);
  memory.release(second);
  EXPECT_NE(first, nullptr);
  EXPECT_EQ(memory.used(), 40U);
}

}  // namespace
}  // namespace kitsune2::quic
