// The common part of the program's commands: signals, output, the log, the configuration file.
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <utility>

#include "cli.hpp"
#include "core/relay_url.hpp"
#include "kitsune2/files.hpp"
#include "kitsune2/url.hpp"
#include "log/log.hpp"

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

namespace {

/// Whether this process has a terminal that still exists.
bool has_terminal() {
  const int fd = ::open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) return false;
  ::close(fd);
  return true;
}

/// Whether a SIGHUP means that the terminal is gone: from the kernel, or from the shell that was started in it. From
/// any other process it is an order to reload, whatever became of the terminal.
bool terminal_is_gone(const siginfo_t& info, bool had_terminal) {
  return had_terminal && !has_terminal() && (info.si_code == SI_KERNEL || info.si_pid == ::getsid(0));
}

std::atomic<bool> g_json_log{false};

std::string json_log_line(LogLevel level, std::string_view text) {
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  const Timestamp now{std::chrono::duration_cast<std::chrono::microseconds>(since).count()};
  return log_text({level, "kitsune2", text, now}, LogFormat::json);
}

/// Bypasses the screen's lock: its holder may be what delays the end.
void write_late() {
  constexpr std::string_view kLate = "could not shut down in time; exiting. Stored data is safe";
  const std::string line = g_json_log ? json_log_line(LogLevel::warn, kLate) : "kitsune2: " + std::string(kLate) + '\n';
  static_cast<void>(::write(2, line.data(), line.size()) > 0);
}

}  // namespace

Signals::Signals(First first) {
  ::signal(SIGPIPE, SIG_IGN);
  // nohup: no terminal ends the process. A blocked signal reaches sigwaitinfo all the same, as an order to reload.
  struct sigaction before {};
  const bool nohup = ::sigaction(SIGHUP, nullptr, &before) == 0 && before.sa_handler == SIG_IGN;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  if (first == First::stops) sigaddset(&set, SIGHUP);  // the other signals end the process at once
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  // Lives as long as the process, so nobody joins it.
  std::thread([this, set, first, had_terminal = !nohup && has_terminal()] {
    siginfo_t info{};
    // Waits for the first signal that ends the process, handling SIGHUP before that.
    while (true) {
      const int number = ::sigwaitinfo(&set, &info);
      if (number == SIGHUP && !terminal_is_gone(info, had_terminal)) {
        call_reload();
      } else if (number > 0) {
        break;
      }
    }
    if (first == First::ends_here) ::_exit(kInterrupted);
    {
      const std::lock_guard lock(mutex_);
      source_.request_stop();
    }
    changed_.notify_all();
    const timespec patience{kPatience.count(), 0};
    while (true) {
      const int number = ::sigtimedwait(&set, nullptr, &patience);
      if (number == SIGHUP) continue;  // the terminal is closing: the shell and the kernel both send one
      if (number > 0) ::_exit(kInterrupted);
      if (errno != EAGAIN || late_code_ < 0) continue;
      write_late();
      ::_exit(late_code_);
    }
  }).detach();
}

void Signals::call_reload() {
  const std::lock_guard lock(reload_mutex_);
  if (reload_) return reload_();
  log::info("kitsune2", "SIGHUP: there is nothing to reload");
}

void Signals::on_hangup(std::function<void()> reload) {
  const std::lock_guard lock(reload_mutex_);
  reload_ = std::move(reload);
}

bool Signals::wait(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, limit, [&] { return source_.stop_requested(); });
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

namespace {

/// The bottom of the terminal, shared by all that write there: the commands, the log, a library's threads.
struct Screen {
  std::mutex mutex;
  std::string status;  // guarded

  /// Prints a whole line in one write. The status line is removed for it; the next status brings it back.
  void line(std::string_view text) {
    const std::lock_guard lock(mutex);
    erase();
    std::fwrite(text.data(), 1, text.size(), stderr);
  }
  void erase() {
    if (status.empty()) return;
    std::fputs("\r\x1b[K", stderr);
    status.clear();
  }
};

Screen& screen() {
  static Screen& one = *new Screen();  // never destroyed, because the log may write until the process ends
  return one;
}

}  // namespace

void start_log(const Common& common) {
  const LogFormat format = common.log_format == "json" ? LogFormat::json : LogFormat::text;
  g_json_log = format == LogFormat::json;
  const LogLevel level = log_level_from(common.log_level).value_or(LogLevel::warn);
  set_process_log({[format](const LogLine& line) { screen().line(log_text(line, format)); }, level});
}

bool stdout_lost() {
  static std::atomic<bool> lost{false};
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return lost;
  const int why = errno;
  if (!lost.exchange(true)) {
    // Bypasses the screen, whose lock is held by whoever writes to stdout.
    const std::string what = std::string("standard output cannot be written: ") +
                             (why != 0 ? std::strerror(why) : "an earlier write failed");
    std::fputs((g_json_log ? json_log_line(LogLevel::error, what) : "kitsune2: " + what + '\n').c_str(), stderr);
  }
  return true;
}

Output::Output(const Common& common)
    : json_(common.json),
      quiet_(common.quiet),
      json_log_(common.log_format == "json"),
      terminal_(!common.json && !common.quiet && !json_log_ && ::isatty(2) == 1) {}

Output::~Output() { clear_status(); }

void Output::result(std::string_view line) {
  if (json_) return;
  const std::lock_guard lock(screen().mutex);
  screen().erase();
  std::fprintf(stdout, "%.*s\n", static_cast<int>(line.size()), line.data());
  static_cast<void>(stdout_lost());
}

void Output::event(const JsonLine& line) {
  if (!json_) return;
  const std::lock_guard lock(screen().mutex);
  std::fprintf(stdout, "%s\n", line.str().c_str());
  static_cast<void>(stdout_lost());
}

void Output::say(LogLevel level, std::string_view line) {
  if (!json_log_) return screen().line(std::string(line) + '\n');
  constexpr std::string_view kName = "kitsune2: ";
  if (line.starts_with(kName)) line.remove_prefix(kName.size());
  screen().line(json_log_line(level, line));
}

void Output::note(std::string_view line) {
  if (!json_ && !quiet_) say(LogLevel::info, line);
}

void Output::warn(std::string_view line) {
  if (!json_) say(LogLevel::warn, line);
}

int Output::error(const Error& error, std::optional<int> as) {
  const int code = as.value_or(exit_code(error.code));
  if (json_) {
    event(JsonLine("error")
              .add("code", to_string(error.code))
              .add("message", error.message)
              .add("exit", static_cast<std::uint64_t>(code)));
  }
  say(LogLevel::error, "kitsune2: " + files::printable(error.message));
  return code;
}

void Output::status(const std::vector<std::string>& lines) {
  if (!terminal_) return;
  std::size_t width = 80;
  winsize size{};
  if (::ioctl(2, TIOCGWINSZ, &size) == 0 && size.ws_col > 10) width = size.ws_col;
  const std::lock_guard lock(screen().mutex);
  screen().status = fitting(lines, width - 1);
  std::fprintf(stderr, "\r%s\x1b[K", screen().status.c_str());
  std::fflush(stderr);
}

void Output::clear_status() {
  const std::lock_guard lock(screen().mutex);
  screen().erase();
  std::fflush(stderr);
}

Result<Config> load_config(const Common& common) {
  if (common.config_file.empty()) return Config::defaults();
  return Config::load_file(common.config_file);
}

std::vector<std::string> network_names() {
  std::vector<std::string> out;
  for (const Dialect dialect : {Dialect::v0_5, Dialect::v0_4, Dialect::v0_2}) {
    out.emplace_back(to_string(dialect));
  }
  return out;
}

Result<std::string> relay_url(const std::string& text, Dialect dialect, const std::string& why) {
  const std::string in = "--relay: in dialect " + std::string(to_string(dialect));
  if (uses_iroh(dialect)) {
    const std::string path = text.find('/') == std::string::npos ? '/' + std::string(files::Link::kRelayPath) : "";
    const std::string full = text.find("://") == std::string::npos ? "http://" + text + path : text;
    if (full.starts_with("http://") || full.starts_with("https://")) {
      auto url = canonical_relay_url(full, url_form(dialect));
      if (url) return full;
    }
    return make_error(Errc::invalid_argument,
                      in + " it must be like https://HOST:PORT/relay, http://HOST:PORT/relay or HOST:PORT, got " +
                          files::printable(text) + why);
  }
  const std::string full = text.find("://") == std::string::npos ? "ws://" + text : text;
  auto url = Url::parse(full);
  if (full.starts_with("http://") || full.starts_with("https://")) {
    return make_error(
        Errc::invalid_argument,
        in + " it must be like wss://HOST:PORT, ws://HOST:PORT or HOST:PORT, got " + files::printable(text) + why);
  }
  if (!url) return make_error(Errc::invalid_argument, in + ": " + url.error().message + why);
  if (url->is_peer()) {
    return make_error(Errc::invalid_argument, in + " a relay has no path, got " + files::printable(full) + why);
  }
  return full;
}

}  // namespace kitsune2::cli
