// Figures in the form that Prometheus reads: text exposition format, version 0.0.4.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace kitsune2::server {

/// Collects samples so that the lines of each metric are together, as the format requires.
class Exposition {
 public:
  /// `type`: "counter", "gauge". `labels`: `space="…",peer="…"` or empty.
  void add(const char* name, const char* type, const char* help, const std::string& labels, std::uint64_t value);
  /// For seconds, and for values that are not known (NaN).
  void add_real(const char* name, const char* type, const char* help, const std::string& labels, double value);
  /// A histogram of durations: `counts` of the ranges up to each of `bounds` and of the one above them, and their sum
  /// in seconds.
  void add_histogram(const char* name, const char* help, const std::string& labels, std::span<const double> bounds,
                     std::span<const std::uint64_t> counts, double sum);
  std::string str() const;

 private:
  void sample(const char* name, const char* type, const char* help, const std::string& labels,
              const std::string& value);

  std::map<std::string, std::size_t> index_;
  std::vector<std::string> families_;
};

/// The value of a label in quotes. Urls contain whatever peers say.
std::string quoted_label(const std::string& text);

/// `kitsune2_build_info` and `process_…` (CPU, memory, descriptors, start), with the names of Prometheus' own client
/// libraries. Leaves out what the system does not tell. Any thread.
std::string process_metrics();

}  // namespace kitsune2::server
