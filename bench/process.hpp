// What a benchmark tells of its own process, and how it ends when something does not work.
#pragma once

#include <sys/resource.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <string_view>
#include <utility>

#include "kitsune2/error.hpp"

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

/// A figure of /proc/self/status by its name, such as "Threads:" or "RssAnon:" (KiB); 0 if there is none.
inline std::uint64_t status_figure(std::string_view name) {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    std::uint64_t value = 0;
    if (word == name && status >> value) return value;
    status.clear();
  }
  return 0;
}
inline std::uint64_t anonymous_bytes() { return status_figure("RssAnon:") * 1024; }

[[noreturn]] inline void fail(const std::string& what) {
  std::cerr << program_invocation_short_name << ": " << what << '\n';
  std::exit(1);
}

template <class T>
T must(Result<T> result) {
  if (!result) fail(result.error().to_string());
  return std::move(*result);
}
inline void must(const Result<void>& result) {
  if (!result) fail(result.error().to_string());
}

}  // namespace kitsune2::bench
