// Storage for the bytes of messages: sizes, reuse, alignment.
#include "core/buffer.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>
#include <vector>

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

TEST(Buffer, ReleasedBuffersAreUsedAgain) {
  const std::uint8_t* at = make_buffer(1'000'000).get();
  if (idle_buffer_bytes() == 0) GTEST_SKIP() << "nothing is kept under a sanitizer";
  EXPECT_EQ(make_buffer(1'000'200).get(), at) << "a block is rounded up, so one a little larger is the same";
  EXPECT_NE(make_buffer(kPooledFrom).get(), at) << "a small message does not hold a large block";
}

TEST(Buffer, LittleIsKept) {
  std::vector<std::shared_ptr<std::uint8_t[]>> held;
  for (std::size_t size : {kPooledFrom, std::size_t{700'000}, std::size_t{5} << 20U}) {
    for (std::size_t bytes = 0; bytes < 3 * kMostIdle; bytes += size) held.push_back(make_buffer(size));
    held.clear();
    EXPECT_LE(idle_buffer_bytes(), kMostIdle);
  }
  make_buffer(kMostIdle + 1);  // more than is ever kept
  EXPECT_LE(idle_buffer_bytes(), kMostIdle);
}

TEST(Buffer, AnyThreadLetsGo) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([i] {
      std::vector<std::shared_ptr<std::uint8_t[]>> held(8);
      for (std::size_t k = 0; k < 2000; ++k) {
        auto buffer = make_buffer(kPooledFrom + (k * 7919 % 64) * 4096);
        buffer[0] = buffer[kPooledFrom - 1] = static_cast<std::uint8_t>(i);
        auto& place = held[k % held.size()];
        if (place) {
          EXPECT_EQ(place[0], i);
          EXPECT_EQ(place[kPooledFrom - 1], i);
        }
        place = std::move(buffer);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace kitsune2
