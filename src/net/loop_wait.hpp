// How long a thread has waited for a processor.
#pragma once

#include "kitsune2/time.hpp"

namespace kitsune2::net {

/// Tells for how long the calling thread was ready to run while others had the processor: other programs, or other
/// threads of this one. From the kernel (/proc/thread-self/schedstat); where it keeps no such figure, always 0.
///
/// Thread rule: the thread of the first call makes all calls; the figure is that thread's.
class LoopWait {
 public:
  LoopWait() = default;
  ~LoopWait();
  LoopWait(const LoopWait&) = delete;
  LoopWait& operator=(const LoopWait&) = delete;

  /// Since the thread began. Costs a system call.
  Duration total();

 private:
  int fd_ = -1;
  bool is_open_ = false;  ///< or was tried
};

}  // namespace kitsune2::net
