// `kitsune2 demo`: shares and fetches generated files with a relay, a sharer and a fetcher as three processes of this
// program, and compares the result byte by byte.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>

#include "cli.hpp"
#include "node/builder/dialect_choice.hpp"

namespace kitsune2::cli {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using nlohmann::json;

/// A child process of this program whose JSON lines are read.
class Child {
 public:
  Child(std::string name, const std::vector<std::string>& args) : name_(std::move(name)) {
    std::vector<std::string> words = {"kitsune2"};
    words.insert(words.end(), args.begin(), args.end());
    words.emplace_back("--json");
    std::vector<char*> argv;
    argv.reserve(words.size() + 1);
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    int pipes[2];
    if (::pipe2(pipes, O_CLOEXEC) != 0) return;
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // the child must never be left behind
      if (::getppid() != parent) ::_exit(127);
      ::dup2(pipes[1], 1);
      sigset_t none;
      sigemptyset(&none);
      sigprocmask(SIG_SETMASK, &none, nullptr);
      ::execv("/proc/self/exe", argv.data());
      ::_exit(127);
    }
    ::close(pipes[1]);
    out_ = pipes[0];
  }
  ~Child() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    if (out_ >= 0) ::close(out_);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  const std::string& name() const { return name_; }
  pid_t pid() const { return pid_; }

  /// Returns the next event; nullopt if there is none within `limit`. At the end of the output `ended` is true.
  std::optional<json> next(std::chrono::milliseconds limit) {
    while (true) {
      if (const auto line = buffer_.find('\n'); line != std::string::npos) {
        auto event = json::parse(buffer_.substr(0, line), nullptr, false);
        buffer_.erase(0, line + 1);
        if (event.is_object()) return event;
        continue;
      }
      if (ended_) return std::nullopt;
      pollfd wait{out_, POLLIN, 0};
      if (::poll(&wait, 1, static_cast<int>(limit.count())) <= 0) return std::nullopt;
      char bytes[8192];
      const auto n = ::read(out_, bytes, sizeof bytes);
      if (n > 0) buffer_.append(bytes, static_cast<std::size_t>(n));
      if (n == 0 || (n < 0 && errno != EINTR)) ended_ = true;
    }
  }
  bool ended() const { return ended_; }

  /// Asks the child to end, and returns its exit code.
  int stop(int signal_number) {
    if (pid_ <= 0) return -1;
    if (signal_number != 0) ::kill(pid_, signal_number);
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  std::string name_;
  pid_t pid_ = -1;
  int out_ = -1;
  bool ended_ = false;
  std::string buffer_;
};

/// Many small files, some large ones, nested folders, names in several scripts, an empty file and an empty folder,
/// links, private and executable files.
std::uint64_t generate(const fs::path& root, const DemoArgs& args, const std::stop_token& stop) {
  std::mt19937_64 random(20260722);  // the same files every time
  const char* words[] = {"alpha",     "brücke",  "Гора",  "日本", "emoji-🦊",
                         "two words", "déjà vu", "omega", "data", "σίγμα"};
  std::vector<fs::path> folders = {root};
  fs::create_directories(root);
  for (std::uint32_t i = 0; i < std::max(4U, args.files / 12); ++i) {
    const auto& parent = folders[random() % folders.size()];
    fs::path folder = parent / (std::string(words[random() % std::size(words)]) + '-' + std::to_string(i));
    fs::create_directory(folder);
    folders.push_back(std::move(folder));
  }
  fs::path deep = root / "deep";
  for (int i = 0; i < 40; ++i) deep /= "level " + std::to_string(i);
  fs::create_directories(deep);
  folders.push_back(deep);
  fs::create_directory(root / "an empty folder");
  std::ofstream(root / "an empty file").close();

  // A few files have most of the bytes, as in real folders.
  const double total = args.mib * 1048576.0;
  std::vector<double> shares(args.files);
  double sum = 0;
  for (auto& share : shares) {
    const double u = static_cast<double>(random() % 1'000'000 + 1) / 1'000'001.0;
    share = std::pow(1 / u, 0.9);
    sum += share;
  }
  std::uint64_t bytes = 0;
  std::vector<std::uint64_t> block(8192);
  for (std::uint32_t i = 0; i < args.files && !stop.stop_requested(); ++i) {
    auto size = static_cast<std::uint64_t>(shares[i] / sum * total);
    const auto path = folders[random() % folders.size()] /
                      (std::string(words[random() % std::size(words)]) + '.' + std::to_string(i));
    std::ofstream file(path, std::ios::binary);
    bytes += size;
    while (size > 0 && !stop.stop_requested()) {
      for (auto& word : block) word = random();
      const auto part = std::min<std::uint64_t>(size, block.size() * 8);
      file.write(reinterpret_cast<const char*>(block.data()), static_cast<std::streamsize>(part));
      size -= part;
    }
    if (!file.flush()) throw fs::filesystem_error("write", path, std::make_error_code(std::errc::io_error));
    if (i % 10 == 0) fs::permissions(path, fs::perms::owner_exec, fs::perm_options::add);
    if (i % 10 == 1) fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
  }
  fs::create_symlink("an empty file", root / "a link");
  fs::create_directory_symlink("../deep", root / "deep" / "a link to where it is");
  return bytes;
}

struct Compared {
  std::uint64_t files = 0, bytes = 0, differences = 0;
};

bool same_bytes(const fs::path& a, const fs::path& b, std::uint64_t& bytes, const std::stop_token& stop) {
  std::ifstream left(a, std::ios::binary), right(b, std::ios::binary);
  std::vector<char> one(1 << 16), two(1 << 16);
  while (left && right) {
    if (stop.stop_requested()) return false;
    left.read(one.data(), static_cast<std::streamsize>(one.size()));
    right.read(two.data(), static_cast<std::streamsize>(two.size()));
    if (left.gcount() != right.gcount() ||
        std::memcmp(one.data(), two.data(), static_cast<std::size_t>(left.gcount())) != 0) {
      return false;
    }
    bytes += static_cast<std::uint64_t>(left.gcount());
  }
  return left.eof() && right.eof();
}

Compared compare(const fs::path& from, const fs::path& to, Output& out, const std::stop_token& stop) {
  Compared result;
  const auto differs = [&](const fs::path& path, const char* how) {
    ++result.differences;
    out.warn("differs: " + path.string() + ": " + how);
  };
  for (const auto& entry : fs::recursive_directory_iterator(from)) {
    if (stop.stop_requested()) return result;
    const auto relative = entry.path().lexically_relative(from);
    const auto other = to / relative;
    const auto there = fs::symlink_status(other);
    if (entry.is_symlink()) {
      if (!fs::is_symlink(there) || fs::read_symlink(other) != fs::read_symlink(entry.path())) {
        differs(relative, "the link is missing or has another target");
      }
      continue;
    }
    if (entry.is_directory()) {
      if (!fs::is_directory(there)) differs(relative, "folder is not there");
    } else {
      ++result.files;
      if (!fs::is_regular_file(there)) {
        differs(relative, "file is not there");
      } else if (!same_bytes(entry.path(), other, result.bytes, stop)) {
        if (stop.stop_requested()) return result;
        differs(relative, "different bytes");
      }
    }
    if (fs::exists(there) && there.permissions() != entry.symlink_status().permissions()) {
      differs(relative, "different permissions");  // both were created with the same umask
    }
  }
  for (const auto& entry : fs::recursive_directory_iterator(to)) {
    const auto relative = entry.path().lexically_relative(to);
    if (!fs::exists(fs::symlink_status(from / relative))) differs(relative, "was not shared");
  }
  return result;
}

class Demo {
 public:
  Demo(const Common& common, const DemoArgs& args, Signals& signals) : out_(common), args_(args), signals_(signals) {}

  int run() {
    const auto network = choose_dialect(dialect_of(args_.network), Config::defaults(), args_.relay, "");
    if (!network) return out_.error(network.error());
    network_ = *network;
    std::error_code error;
    auto pattern = (fs::temp_directory_path(error) / "kitsune2-demo-XXXXXX").string();
    if (error || ::mkdtemp(pattern.data()) == nullptr) {
      return out_.error(make_error(Errc::io, "no temporary folder: " + pattern));
    }
    const fs::path dir = pattern;
    int code = kFailed;
    try {
      code = run_in(dir);
    } catch (const std::exception& fault) {
      out_.error(make_error(Errc::io, fault.what()));
    }
    if (args_.keep) {
      out_.note("kept: " + dir.string());
    } else {
      fs::remove_all(dir, error);
    }
    return code;
  }

 private:
  /// Waits for the event `name`; shows errors and warnings on the way. nullopt: the child ended, or a signal came.
  std::optional<json> wait_for(Child& child, const std::string& name,
                               const std::function<void(const json&)>& other = {}) {
    while (!signals_.token().stop_requested()) {
      auto event = child.next(std::chrono::milliseconds(200));
      if (!event) {
        if (child.ended()) break;
        continue;
      }
      const std::string kind = event->value("event", "");
      if (kind == name) return event;
      if (kind == "error") out_.warn(child.name() + ": " + event->value("message", ""));
      if (other) other(*event);
    }
    return std::nullopt;
  }

  int fail(const std::string& what) {
    if (signals_.came()) return interrupted();
    return out_.error(make_error(Errc::internal, what));
  }
  int interrupted() { return out_.error(make_error(Errc::cancelled, "interrupted")); }

  /// `shown`: the quarter that was told last, where the output is no terminal.
  void show_progress(const json& event, int& shown) {
    if (event.value("event", "") != "progress") return;
    const double all = std::max(1.0, event.value("bytes", 0.0));
    const double part = event.value("bytes", 0.0) == 0 ? 0 : event.value("bytes_held", 0.0) / all;
    std::string line = "         " + bar(part, 40) + ' ' + std::to_string(static_cast<int>(part * 100)) + "%  " +
                       std::to_string(event.value("ops_held", std::uint64_t{0})) + '/' +
                       std::to_string(event.value("ops", std::uint64_t{0})) + " ops";
    // Not known in the first second.
    if (const double rate = event.value("bytes_per_second", 0.0); rate >= 1) line += "  " + human_bytes(rate) + "/s";
    if (out_.terminal()) {
      out_.status(line);
    } else if (static_cast<int>(part * 4) != shown) {
      shown = static_cast<int>(part * 4);
      out_.note(line);
    }
  }

  /// `bytes`: of what was shared.
  void show_result(const json& done, const Compared& compared, std::uint64_t bytes, bool right) {
    const double seconds = std::max(0.001, done.value("seconds", 0.0));
    const auto ops = done.value("fetched_ops", std::uint64_t{0});
    char rates[96];
    std::snprintf(rates, sizeof rates, "%.1f s, %.0f ops/s, %.1f MiB/s", seconds, static_cast<double>(ops) / seconds,
                  static_cast<double>(bytes) / 1048576.0 / seconds);
    out_.note("compare: every byte, in " + lap());
    out_.result(std::string(right ? "identical: " : "NOT identical: ") + std::to_string(compared.files) + " files, " +
                std::to_string(ops) + " ops, " + human_bytes(static_cast<double>(compared.bytes)) + ", " + rates);
    out_.event(JsonLine("demo")
                   .add_bool("identical", right)
                   .add("files", compared.files)
                   .add("ops", ops)
                   .add("bytes", compared.bytes)
                   .add("differences", compared.differences)
                   .add("seconds", seconds)
                   .add("ops_per_second", static_cast<double>(ops) / seconds));
  }

  /// The time since the last call.
  std::string lap() {
    const double seconds = std::chrono::duration<double>(Clock::now() - mark_).count();
    mark_ = Clock::now();
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%.1f s", seconds);
    return buffer;
  }

  int run_in(const fs::path& dir) {
    const auto text = [](const fs::path& path) { return path.string(); };
    static_cast<void>(lap());
    const std::uint64_t bytes = generate(dir / "from", args_, signals_.token());
    if (signals_.came()) return interrupted();
    out_.note("files:   " + std::to_string(args_.files + 1) + " generated, " + human_bytes(static_cast<double>(bytes)) +
              ", in " + lap());

    std::optional<Child> relay;
    std::string relay_url = args_.relay;
    if (relay_url.empty()) {
      relay.emplace("relay", std::vector<std::string>{"relay", "--listen", "127.0.0.1:0", "--log-level", "error"});
      auto listening = wait_for(*relay, "listening");
      if (!listening) return fail("the relay did not start");
      relay_url = listening->value(uses_iroh(network_) ? "iroh_relay" : "relay", "");
      out_.note("relay:   process " + std::to_string(relay->pid()) + " at " + relay_url);
    } else {
      out_.note("relay:   " + relay_url);
    }

    Child sharer("share", {"share", "--data", text(dir / "sharer"), "--network", std::string(to_string(network_)),
                           "--relay", relay_url, "--log-level", "error", text(dir / "from")});
    auto shared = wait_for(sharer, "shared");
    if (!shared) return fail("the sharer did not start");
    const std::string link = shared->value("link", "");
    out_.note("sharer:  process " + std::to_string(sharer.pid()) + " stored " +
              std::to_string(shared->value("ops", std::uint64_t{0})) + " ops in " + lap());
    out_.note("link:    " + link);

    Child fetcher("fetch", {"fetch", link, "--data", text(dir / "fetcher"), "--out", text(dir / "to"), "--timeout",
                            "50", "--log-level", "error"});
    out_.note("fetcher: process " + std::to_string(fetcher.pid()));
    int shown = -1;
    auto done = wait_for(fetcher, "done", [&](const json& event) { show_progress(event, shown); });
    out_.clear_status();
    const int fetch_code = fetcher.stop(done ? 0 : SIGTERM);
    if (!done || fetch_code != 0) return fail("the fetch failed, exit code " + std::to_string(fetch_code));
    static_cast<void>(lap());
    const int share_code = sharer.stop(SIGTERM), relay_code = relay ? relay->stop(SIGTERM) : kOk;

    const Compared compared = compare(dir / "from", dir / "to", out_, signals_.token());
    if (signals_.came()) return interrupted();
    const bool right = compared.differences == 0 && compared.files == args_.files + 1 && compared.bytes == bytes &&
                       share_code == 0 && relay_code == 0;
    show_result(*done, compared, bytes, right);
    if (share_code != 0 || relay_code != 0) {
      out_.warn("a process did not end well: sharer " + std::to_string(share_code) + ", relay " +
                std::to_string(relay_code));
    }
    return right ? kOk : kFailed;
  }

  Output out_;
  const DemoArgs& args_;
  Dialect network_ = Dialect::v0_5;
  Signals& signals_;
  Clock::time_point mark_ = Clock::now();
};

}  // namespace

int run_demo(const Common& common, const DemoArgs& args, Signals& signals) { return Demo(common, args, signals).run(); }

}  // namespace kitsune2::cli
