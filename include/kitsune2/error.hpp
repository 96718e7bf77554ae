// Expected failures: one enum of codes, one error type, one result type.
#pragma once

#include <boost/system/result.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "kitsune2/abi.hpp"

namespace kitsune2 {

/// What went wrong. The names are stable: they appear in logs, in `--json` output and in metrics.
enum class Errc {
  invalid_argument,   ///< a caller or a user gave a value that has no meaning here
  invalid_config,     ///< a configuration key is unknown, of the wrong type or out of range
  malformed,          ///< bytes from a peer or a file do not parse
  too_large,          ///< over a documented limit
  bad_signature,      ///< a signature does not verify
  expired,            ///< a signed info has expired
  not_found,          ///< the thing requested is not here
  already_exists,     ///< something exclusive is taken (a file, a lock, a handler)
  peer_unresponsive,  ///< a peer could not be reached or did not answer in time
  peer_fault,         ///< a peer broke the protocol
  disconnected,       ///< the connection or the relay went away
  timed_out,          ///< a deadline passed
  overloaded,         ///< a bound has been reached; try again later
  blocked,            ///< access is refused by the block list or the access hook
  io,                 ///< the operating system refused (file, socket); the message has its reason
  disk_full,          ///< no space left for a durable write
  corrupt,            ///< stored data fails its check
  unsupported,        ///< valid, but this version does not support it
  cancelled,          ///< stopped on request
  internal,           ///< none of the above; a bug report is welcome
};

/// The stable name of a code, e.g. "peer_unresponsive".
std::string_view to_string(Errc code);

/// Who is at fault. A caller decides on it whether to ban, retry or stop, without a list of codes.
enum class Condition {
  peer,       ///< the other side: do not trust it, perhaps block it
  transient,  ///< may pass with time: retry
  local,      ///< this machine or this program's configuration: stop and tell the user
};
Condition condition_of(Errc code);

/// An error with a message that tells a user what was wrong and where ("coreFetch.parallelRequestCount: must be 1..255,
/// got 0").
struct Error {
  Errc code = Errc::internal;
  std::string message;

  Error() = default;
  Error(Errc c, std::string m) : code(c), message(std::move(m)) {}

  /// "<code name>: <message>"
  std::string to_string() const;
  /// The same error with `what + ": "` put before its message.
  Error context(std::string_view what) const;

  friend bool operator==(const Error&, const Error&) = default;
};

/// Called by `Result::value()` on an error. Throws std::runtime_error; only start-up code and tests rely on that.
[[noreturn]] void throw_exception_from_error(const Error& error, const boost::source_location& where);

template <class T = void>
using Result = boost::system::result<T, Error>;

inline Error make_error(Errc code, std::string message) { return Error{code, std::move(message)}; }

/// Reports a broken invariant of this library: prints it and aborts, in every build. Never for peer or user input.
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);
#define K2_ASSERT(expr) ((expr) ? static_cast<void>(0) : ::kitsune2::assertion_failed(#expr, __FILE__, __LINE__))

}  // namespace kitsune2
