// What a benchmark tells of its own process.
#pragma once

#include <sys/resource.h>

#include <cstdint>

namespace kitsune2::bench {

struct Usage {
  double cpu_s = 0;
  std::uint64_t peak_rss_bytes = 0;
};

inline Usage usage() {
  rusage raw{};
  getrusage(RUSAGE_SELF, &raw);
  const auto seconds = [](timeval t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
  return {seconds(raw.ru_utime) + seconds(raw.ru_stime), static_cast<std::uint64_t>(raw.ru_maxrss) * 1024};
}

}  // namespace kitsune2::bench
