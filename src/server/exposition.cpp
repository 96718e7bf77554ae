// Writes Prometheus' text format, and the figures of the process from /proc.
#include "server/exposition.hpp"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <optional>
#include <sstream>

#include "kitsune2/version.hpp"

namespace kitsune2::server {
namespace {

/// The fields of /proc/self/stat from the third on. The second is a name in parentheses that may contain anything.
std::vector<std::string> stat_fields() {
  std::ifstream file("/proc/self/stat");
  std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto name_end = text.rfind(')');
  std::vector<std::string> out;
  if (name_end == std::string::npos) return out;
  std::istringstream rest(text.substr(name_end + 1));
  for (std::string field; rest >> field;) out.push_back(field);
  return out;
}

/// When the machine started, in seconds since 1970.
std::optional<double> boot_time() {
  std::ifstream file("/proc/stat");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("btime ")) return std::strtod(line.c_str() + 6, nullptr);
  }
  return std::nullopt;
}

std::optional<std::uint64_t> open_descriptors() {
  DIR* dir = ::opendir("/proc/self/fd");
  if (dir == nullptr) return std::nullopt;
  std::uint64_t out = 0;
  while (const dirent* entry = ::readdir(dir)) {
    if (entry->d_name[0] != '.') ++out;
  }
  ::closedir(dir);
  return out > 0 ? out - 1 : 0;  // one is for the folder itself
}

double cpu_seconds(const rusage& usage) {
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

void Exposition::sample(const char* name, const char* type, const char* help, const std::string& labels,
                        const std::string& value) {
  auto it = index_.find(name);
  if (it == index_.end()) {
    it = index_.emplace(name, families_.size()).first;
    families_.push_back(std::string("# HELP ") + name + ' ' + help + "\n# TYPE " + name + ' ' + type + '\n');
  }
  families_[it->second] += name + (labels.empty() ? std::string() : '{' + labels + '}') + ' ' + value + '\n';
}

void Exposition::add(const char* name, const char* type, const char* help, const std::string& labels,
                     std::uint64_t value) {
  sample(name, type, help, labels, std::to_string(value));
}

void Exposition::add_real(const char* name, const char* type, const char* help, const std::string& labels,
                          double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.15g", value);
  sample(name, type, help, labels, std::isnan(value) ? "NaN" : text);
}

void Exposition::add_histogram(const char* name, const char* help, const std::string& labels,
                               std::span<const double> bounds, std::span<const std::uint64_t> counts, double sum) {
  // Each range includes the shorter ones. All lines belong to the family of the plain name.
  const auto line = [&](const char* suffix, const std::string& label, const std::string& value) {
    const std::string both = labels.empty() || label.empty() ? labels + label : labels + ',' + label;
    families_[index_.at(name)] +=
        std::string(name) + suffix + (both.empty() ? "" : '{' + both + '}') + ' ' + value + '\n';
  };
  if (index_.emplace(name, families_.size()).second) {
    families_.push_back(std::string("# HELP ") + name + ' ' + help + "\n# TYPE " + name + " histogram\n");
  }
  std::uint64_t count = 0;
  char text[40];
  for (std::size_t i = 0; i < counts.size(); ++i) {
    count += counts[i];
    if (i < bounds.size()) std::snprintf(text, sizeof text, "le=\"%g\"", bounds[i]);
    line("_bucket", i < bounds.size() ? text : "le=\"+Inf\"", std::to_string(count));
  }
  std::snprintf(text, sizeof text, "%.15g", sum);
  line("_sum", "", text);
  line("_count", "", std::to_string(count));
}

std::string Exposition::str() const {
  std::string out;
  for (const auto& family : families_) out += family;
  return out;
}

std::string quoted_label(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
      continue;
    }
    if (c == '\\' || c == '"') out += '\\';
    out += c;
  }
  return out + '"';
}

std::string process_metrics() {
  Exposition out;
  out.add("kitsune2_build_info", "gauge", "Always 1; the labels say which build this is.",
          std::string("version=\"") + version() + "\",wire=\"0.2\"", std::uint64_t{1});
  rusage usage{};
  if (::getrusage(RUSAGE_SELF, &usage) == 0) {
    out.add_real("process_cpu_seconds_total", "counter", "CPU time of the process, user and system.", "",
                 cpu_seconds(usage));
  }
  const auto fields = stat_fields();
  const auto number = [&](std::size_t at) { return std::strtoull(fields[at].c_str(), nullptr, 10); };
  if (fields.size() > 21) {
    // Numbers 20, 22, 23 and 24 of proc(5).
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    out.add("process_resident_memory_bytes", "gauge", "Memory in RAM.", "", number(21) * page);
    out.add("process_virtual_memory_bytes", "gauge", "Address space.", "", std::uint64_t{number(20)});
    out.add("process_threads", "gauge", "Threads.", "", std::uint64_t{number(17)});
    if (const auto boot = boot_time()) {
      const double since_boot = static_cast<double>(number(19)) / static_cast<double>(::sysconf(_SC_CLK_TCK));
      out.add_real("process_start_time_seconds", "gauge", "When the process started, in seconds since 1970.", "",
                   *boot + since_boot);
    }
  }
  if (const auto open = open_descriptors()) {
    out.add("process_open_fds", "gauge", "Open file descriptors.", "", *open);
  }
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    out.add("process_max_fds", "gauge", "The limit of open file descriptors.", "",
            static_cast<std::uint64_t>(limit.rlim_cur));
  }
  return out.str();
}

}  // namespace kitsune2::server
