#include "core/buffer.hpp"

#include <gtest/gtest.h>

#include <cstring>

namespace kitsune2 {
namespace {

TEST(Buffer, EveryByteIsThere) {
  for (const std::size_t size : {std::size_t{1}, std::size_t{4096}, kHugePage - 1, kHugePage, 2 * kHugePage + 1}) {
    const auto buffer = make_buffer(size);
    std::memset(buffer.get(), 7, size);
    EXPECT_EQ(buffer[0], 7);
    EXPECT_EQ(buffer[size - 1], 7);
  }
}

TEST(Buffer, ALargeOneBeginsAtAHugePage) {
  for (int i = 0; i < 8; ++i) {
    const auto buffer = make_buffer(kHugePage + 100 * static_cast<std::size_t>(i));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.get()) % kHugePage, 0U);
  }
}

}  // namespace
}  // namespace kitsune2
