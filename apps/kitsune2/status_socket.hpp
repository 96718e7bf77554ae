// How a running node answers `kitsune2 status`: by a Unix socket in its data directory, with one JSON text per request.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "kitsune2/error.hpp"

namespace kitsune2::cli {

inline constexpr const char* kSocketName = "node.sock";

/// Listens at DIR/node.sock (0600), so only the node's own user can ask. A client receives the text and is closed;
/// nothing is read from it. A leftover of a dead process is replaced; that of a living one is Errc::already_exists.
class StatusSocket {
 public:
  /// `text` is called on the socket's thread.
  static Result<std::unique_ptr<StatusSocket>> start(const std::string& dir, std::function<std::string()> text);
  ~StatusSocket();
  StatusSocket(const StatusSocket&) = delete;
  StatusSocket& operator=(const StatusSocket&) = delete;

 private:
  StatusSocket() = default;
  void serve();

  std::string dir_;
  int dir_fd_ = -1, listen_fd_ = -1, wake_[2] = {-1, -1};
  std::function<std::string()> text_;
  std::thread thread_;
};

/// Asks the node that runs on DIR. Errors: Errc::not_found (none does), Errc::timed_out, Errc::io.
Result<std::string> ask_status(const std::string& dir);

}  // namespace kitsune2::cli
