// The common part of the program's commands: options, exit codes, output, signals.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "kitsune2/config.hpp"
#include "kitsune2/error.hpp"
#include "log_format.hpp"
#include "text.hpp"

namespace kitsune2::cli {

/// Documented in docs/cli.md and the man page: never change one.
enum Exit : int {
  kOk = 0,
  kFailed = 1,       ///< anything without a code of its own
  kUsage = 2,        ///< command line, link, configuration file
  kTimedOut = 3,     ///< no source, or no data for as long as --timeout says
  kIncomplete = 4,   ///< no source has some of the ops, so files are missing
  kPathTrouble = 5,  ///< some files could not be read or written
  kDiskFull = 6,
  kCorrupt = 7,  ///< a damaged database, an invalid share
  kInUse = 8,    ///< a port or a data directory that another process uses
  kInterrupted = 130,
};
int exit_code(Errc code);

/// The options that every command has.
struct Common {
  std::string log_level = "warn";
  std::string log_format = "text";
  std::string config_file;
  bool json = false;
  bool quiet = false;
};

/// Options of `relay`, which --config may set too; see read_relay_config.
struct RelayArgs {
  std::vector<std::string> listen;
  std::string tls_cert, tls_key, admin;
  bool production = false;
  std::optional<std::uint32_t> worker_threads, request_listen_ms;  ///< accepted, without effect
  std::optional<std::uint32_t> max_entries_per_space, prune_interval_ms, limit_clients;
  bool no_sbd = false, no_iroh = false, disable_rate_limiting = false;
  std::vector<std::string> allowed_origins;
  std::optional<std::string> quic_bind_addr;
  std::optional<std::uint32_t> relay_client_rx_bytes_per_second, relay_client_rx_burst_bytes, auth_token_idle_millis;
  std::string trusted_ip_header, authentication_hook_server;
  std::string otlp_endpoint;  ///< accepted, without effect but a warning
  std::optional<std::uint32_t> limit_ip_kbps, limit_ip_byte_burst, limit_idle_millis;
  std::optional<std::uint32_t> limit_ip_connections, limit_connections;
};

/// The options that `share`, `fetch` and `mirror` have in common.
struct NodeArgs {
  std::string data;
  std::string relay, tls_ca, admin;
  std::string network;  ///< a dialect's name; empty: not given
};

struct ShareArgs {
  NodeArgs node;
  std::string space;
  std::string listen, tls_cert, tls_key, public_address;
  bool mtime = false, strict = false;
  std::vector<std::string> paths;
};

struct FetchArgs {
  NodeArgs node;
  std::string link, out;
  bool overwrite = false;
  double timeout_s = 0;  ///< 0: never
  double missing_after_s = 10;
};

struct MirrorArgs {
  NodeArgs node;
  std::string link;
  std::uint64_t limit_mib = 0;  ///< 0: none
};

struct StatusArgs {
  std::string data;
};

struct CheckArgs {
  std::string data;
  double rate_mib = 0;  ///< per second; 0: no limit
  bool repair = false;
};

struct ConfigArgs {
  bool schema = false;
  std::string check;
};

struct DemoArgs {
  std::uint32_t files = 400;
  std::uint32_t mib = 64;
  bool keep = false;
  std::string network;  ///< empty: not given
  std::string relay;    ///< empty: one of its own
};

/// Ends the command cleanly on the first SIGINT or SIGTERM, at once on the second. SIGHUP reloads; if its terminal is
/// gone it ends like SIGTERM, unless the program was started with SIGHUP ignored (nohup). Made first in `main`, so that
/// all threads inherit the blocked signals.
class Signals {
 public:
  /// For a clean end that is delayed by something that cannot be interrupted: a disk that hangs, resolving a name.
  static constexpr std::chrono::seconds kPatience{2};

  enum class First {
    stops,      ///< the command watches `token` and ends by itself
    ends_here,  ///< the process ends with exit code kInterrupted, for commands that have nothing to clean up
  };
  explicit Signals(First first);
  std::stop_token token() const { return source_.get_token(); }
  bool came() const { return source_.stop_requested(); }
  /// If the command has not ended kPatience after the signal, the process ends with this exit code. *Rationale*:
  /// everything stored survives even SIGKILL. If this is not called, the command may take any time.
  void end_late_with(int code) { late_code_ = code; }
  /// Waits for a signal, at most `limit`. Returns true if one came.
  bool wait(std::chrono::milliseconds limit);
  /// Sets what SIGHUP does from now on; null: only writes a log line. Called on the signals' thread, once for each
  /// signal. When it returns, the previous one is not running.
  void on_hangup(std::function<void()> reload);

 private:
  void call_reload();

  std::stop_source source_;
  std::atomic<int> late_code_{-1};
  std::mutex reload_mutex_;
  std::function<void()> reload_;  // guarded by it
  std::mutex mutex_;
  std::condition_variable_any changed_;
};

/// A JSON object that is built field by field and printed as one line.
class JsonLine {
 public:
  explicit JsonLine(std::string_view event);
  JsonLine& add(std::string_view key, std::string_view value);
  JsonLine& add(std::string_view key, const char* value) { return add(key, std::string_view(value)); }
  JsonLine& add(std::string_view key, std::uint64_t value);
  JsonLine& add(std::string_view key, double value);
  JsonLine& add_bool(std::string_view key, bool value);
  /// Adds `json` unchanged.
  JsonLine& add_raw(std::string_view key, std::string_view json);
  std::string str() const { return text_ + '}'; }

 private:
  std::string text_;
};

/// From now on the library's log goes to stderr, as --log-level and --log-format say.
void start_log(const Common& common);

/// All output of the program. stdout: results (plain, or JSON lines). stderr: everything else, which with --log-format
/// json consists of log lines too. Any thread.
class Output {
 public:
  explicit Output(const Common& common);
  ~Output();
  bool json() const { return json_; }
  bool quiet() const { return quiet_; }
  bool terminal() const { return terminal_; }

  /// A result: to stdout, in plain mode only.
  void result(std::string_view line);
  /// An event: to stdout, in JSON mode only.
  void event(const JsonLine& line);
  /// A note for the user: to stderr, not in JSON or quiet mode.
  void note(std::string_view line);
  /// A warning: to stderr, in plain mode, even if quiet.
  void warn(std::string_view line);
  /// Prints "kitsune2: <message>" to stderr, and in JSON mode also an error event, which has the code. Returns the exit
  /// code: `code`, or that of the kind of error.
  int error(const Error& error, std::optional<int> code = {});
  /// Replaces the status line of a terminal. No effect without one, or in JSON or quiet mode. `lines` say the same in
  /// fewer and fewer words; the first that fits is shown.
  void status(const std::vector<std::string>& lines);
  void status(std::string line) { status(std::vector<std::string>{std::move(line)}); }
  void clear_status();

 private:
  void say(LogLevel level, std::string_view line);
  bool json_, quiet_, json_log_, terminal_;
};

/// Whether something printed to stdout was lost: a full disk, a closed pipe. The first time it is found, stderr says
/// so. A command with nothing else to do ends then; `main` turns exit code 0 into 1 in any case.
bool stdout_lost();

/// Loads the configuration file of --config, or returns the defaults.
Result<Config> load_config(const Common& common);
/// Turns "host:port" or the url of a relay of `dialect` into such a url. `why`: what an error about it ends with.
Result<std::string> relay_url(const std::string& text, Dialect dialect, const std::string& why = {});
/// The names that --network takes.
std::vector<std::string> network_names();

/// `again`: evaluates the command line and the file of --config again.
int run_relay(const Common& common, const RelayArgs& args, const std::function<Result<RelayArgs>()>& again,
              Signals& signals);
int run_share(const Common& common, const ShareArgs& args, Signals& signals);
int run_fetch(const Common& common, const FetchArgs& args, Signals& signals);
int run_mirror(const Common& common, const MirrorArgs& args, Signals& signals);
int run_status(const Common& common, const StatusArgs& args);
int run_check(const Common& common, const CheckArgs& args);
int run_config(const Common& common, const ConfigArgs& args);
int run_demo(const Common& common, const DemoArgs& args, Signals& signals);

}  // namespace kitsune2::cli
