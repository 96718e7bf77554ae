#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "cli.hpp"
#include "kitsune2/files.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::cli {

int exit_code(Errc code) {
  switch (code) {
    case Errc::invalid_argument:
    case Errc::invalid_config:
      return kUsage;
    case Errc::timed_out:
      return kTimedOut;
    case Errc::not_found:
      return kIncomplete;
    case Errc::disk_full:
      return kDiskFull;
    case Errc::corrupt:
    case Errc::malformed:
    case Errc::unsupported:
      return kCorrupt;
    case Errc::already_exists:
      return kInUse;
    case Errc::cancelled:
      return kInterrupted;
    default:
      return kFailed;
  }
}

Signals::Signals(First first) {
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  // Lives as long as the process: there is nothing to join it for.
  std::thread([this, set, first] {
    int number = 0;
    if (sigwait(&set, &number) != 0) return;
    if (first == First::ends_here) ::_exit(kInterrupted);
    {
      const std::lock_guard lock(mutex_);
      source_.request_stop();
    }
    changed_.notify_all();
    const timespec patience{kPatience.count(), 0};
    while (true) {
      if (::sigtimedwait(&set, nullptr, &patience) > 0) ::_exit(kInterrupted);
      if (errno != EAGAIN || late_code_ < 0) continue;
      constexpr std::string_view kLate = "kitsune2: could not end in time; what is stored is safe\n";
      static_cast<void>(::write(2, kLate.data(), kLate.size()) > 0);
      ::_exit(late_code_);
    }
  }).detach();
}

bool Signals::wait(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, limit, [&] { return source_.stop_requested(); });
}

std::string json_string(std::string_view text) {
  // Bytes that are no UTF-8 become U+FFFD: the line is JSON in any case.
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

JsonLine::JsonLine(std::string_view event) : text_("{\"event\":" + json_string(event)) {}

JsonLine& JsonLine::add_raw(std::string_view key, std::string_view json) {
  text_ += ',' + json_string(key) + ':';
  text_ += json;
  return *this;
}
JsonLine& JsonLine::add(std::string_view key, std::string_view value) { return add_raw(key, json_string(value)); }
JsonLine& JsonLine::add(std::string_view key, std::uint64_t value) { return add_raw(key, std::to_string(value)); }
JsonLine& JsonLine::add(std::string_view key, double value) {
  char buffer[40];
  std::snprintf(buffer, sizeof buffer, "%.3f", std::isfinite(value) ? value : 0.0);
  return add_raw(key, buffer);
}
JsonLine& JsonLine::add_bool(std::string_view key, bool value) { return add_raw(key, value ? "true" : "false"); }

bool stdout_lost() {
  static std::atomic<bool> lost{false};
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return lost;
  const int why = errno;
  if (!lost.exchange(true)) {
    std::fprintf(stderr, "kitsune2: standard output cannot be written: %s\n",
                 why != 0 ? std::strerror(why) : "an earlier write failed");
  }
  return true;
}

Output::Output(const Common& common)
    : json_(common.json), quiet_(common.quiet), terminal_(!common.json && !common.quiet && ::isatty(2) == 1) {}

Output::~Output() { clear_status(); }

void Output::erase_status() {
  if (status_.empty()) return;
  std::fputs("\r\x1b[K", stderr);
  status_.clear();
}

void Output::result(std::string_view line) {
  if (json_) return;
  const std::lock_guard lock(mutex_);
  erase_status();
  std::fprintf(stdout, "%.*s\n", static_cast<int>(line.size()), line.data());
  static_cast<void>(stdout_lost());
}

void Output::event(const JsonLine& line) {
  if (!json_) return;
  const std::lock_guard lock(mutex_);
  std::fprintf(stdout, "%s\n", line.str().c_str());
  static_cast<void>(stdout_lost());
}

void Output::note(std::string_view line) {
  if (json_ || quiet_) return;
  warn(line);
}

void Output::warn(std::string_view line) {
  if (json_) return;
  const std::lock_guard lock(mutex_);
  erase_status();
  std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
}

int Output::error(const Error& error) {
  const int code = exit_code(error.code);
  if (json_) {
    event(JsonLine("error")
              .add("code", to_string(error.code))
              .add("message", error.message)
              .add("exit", static_cast<std::uint64_t>(code)));
  }
  const std::lock_guard lock(mutex_);
  erase_status();
  std::fprintf(stderr, "kitsune2: %s\n", files::printable(error.message).c_str());
  return code;
}

void Output::status(const std::vector<std::string>& lines) {
  if (!terminal_) return;
  const std::lock_guard lock(mutex_);
  std::size_t width = 80;
  winsize size{};
  if (::ioctl(2, TIOCGWINSZ, &size) == 0 && size.ws_col > 10) width = size.ws_col;
  status_ = fitting(lines, width - 1);
  std::fprintf(stderr, "\r%s\x1b[K", status_.c_str());
  std::fflush(stderr);
}

void Output::clear_status() {
  const std::lock_guard lock(mutex_);
  erase_status();
  std::fflush(stderr);
}

Result<Config> load_config(const Common& common) {
  if (common.config_file.empty()) return Config::defaults();
  return Config::load_file(common.config_file);
}

Result<std::string> relay_url(const std::string& text) {
  const std::string full = text.find("://") == std::string::npos ? "ws://" + text : text;
  auto url = Url::parse(full);
  if (!url) return make_error(Errc::invalid_argument, "--relay: " + url.error().message);
  if (url->is_peer())
    return make_error(Errc::invalid_argument, "--relay: a relay has no path: " + files::printable(full));
  return full;
}

}  // namespace kitsune2::cli
