// Waiting for events, in virtual time and in real time.
#include "kitsune2/testing/waiters.hpp"

#include <thread>

namespace kitsune2::testing {

bool poll_until(const std::function<bool()>& done, std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!done()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace kitsune2::testing
