// A counter that one thread writes and others read.
#pragma once

#include <atomic>
#include <cstdint>

namespace kitsune2::server {

/// Written by one thread only (so no locked instruction), read by any.
class Counter {
 public:
  void operator+=(std::uint64_t n) { store(get() + n); }
  void operator-=(std::uint64_t n) { store(get() - n); }
  void operator++() { *this += 1; }
  void store(std::uint64_t n) { value_.store(n, std::memory_order_relaxed); }
  std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

}  // namespace kitsune2::server
