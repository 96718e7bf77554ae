// The names of the error codes, their conditions, the texts of errors, and failed assertions.
#include "kitsune2/error.hpp"

#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace kitsune2 {

std::string_view to_string(Errc code) {
  switch (code) {
    case Errc::invalid_argument:
      return "invalid_argument";
    case Errc::invalid_config:
      return "invalid_config";
    case Errc::malformed:
      return "malformed";
    case Errc::too_large:
      return "too_large";
    case Errc::bad_signature:
      return "bad_signature";
    case Errc::expired:
      return "expired";
    case Errc::not_found:
      return "not_found";
    case Errc::already_exists:
      return "already_exists";
    case Errc::peer_unresponsive:
      return "peer_unresponsive";
    case Errc::peer_fault:
      return "peer_fault";
    case Errc::disconnected:
      return "disconnected";
    case Errc::timed_out:
      return "timed_out";
    case Errc::overloaded:
      return "overloaded";
    case Errc::blocked:
      return "blocked";
    case Errc::io:
      return "io";
    case Errc::disk_full:
      return "disk_full";
    case Errc::corrupt:
      return "corrupt";
    case Errc::unsupported:
      return "unsupported";
    case Errc::cancelled:
      return "cancelled";
    case Errc::internal:
      return "internal";
  }
  return "internal";
}

Condition condition_of(Errc code) {
  switch (code) {
    case Errc::malformed:
    case Errc::too_large:
    case Errc::bad_signature:
    case Errc::expired:
    case Errc::peer_fault:
    case Errc::blocked:
      return Condition::peer;
    case Errc::not_found:
    case Errc::peer_unresponsive:
    case Errc::disconnected:
    case Errc::timed_out:
    case Errc::overloaded:
      return Condition::transient;
    case Errc::invalid_argument:
    case Errc::invalid_config:
    case Errc::already_exists:
    case Errc::io:
    case Errc::disk_full:
    case Errc::corrupt:
    case Errc::unsupported:
    case Errc::cancelled:
    case Errc::internal:
      return Condition::local;
  }
  return Condition::local;
}

std::string Error::to_string() const {
  std::string out(kitsune2::to_string(code));
  out += ": ";
  out += message;
  return out;
}

Error Error::context(std::string_view what) const {
  std::string text(what);
  text += ": ";
  text += message;
  return {code, std::move(text)};
}

void throw_exception_from_error(const Error& error, const boost::source_location& where) {
  throw std::runtime_error(error.to_string() + " (at " + where.file_name() + ":" + std::to_string(where.line()) + ")");
}

void assertion_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "kitsune2: broken invariant: %s (%s:%d)\n", expression, file, line);
  std::fflush(stderr);
  std::abort();
}

}  // namespace kitsune2
