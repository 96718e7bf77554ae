// How long a thread has waited for a processor, as Linux tells it.
#include "net/loop_wait.hpp"

#include <array>
#include <charconv>
#include <string_view>

#include <fcntl.h>
#include <unistd.h>

namespace kitsune2::net {

LoopWait::~LoopWait() {
  if (fd_ >= 0) ::close(fd_);
}

Duration LoopWait::total() {
  if (!is_open_) {
    is_open_ = true;
    fd_ = ::open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
  }
  std::array<char, 96> room{};
  const ssize_t got = fd_ < 0 ? -1 : ::pread(fd_, room.data(), room.size(), 0);
  if (got <= 0) return Duration(0);
  // "RAN WAITED SLICES", in nanoseconds.
  const std::string_view text(room.data(), static_cast<std::size_t>(got));
  const auto begin = text.find(' ');
  if (begin == std::string_view::npos) return Duration(0);
  std::int64_t nanos = 0;
  const auto word = text.substr(begin + 1);
  const auto parsed = std::from_chars(word.data(), word.data() + word.size(), nanos);
  if (parsed.ec != std::errc() || nanos < 0) return Duration(0);
  return std::chrono::duration_cast<Duration>(std::chrono::nanoseconds(nanos));
}

}  // namespace kitsune2::net
