// The socket by which a running node answers `kitsune2 status`.
#include "status_socket.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

namespace kitsune2::cli {

namespace {

constexpr int kPatienceMs = 5000;

Error system_error(const std::string& what) {
  return make_error(errno == ENOENT ? Errc::not_found : Errc::io, what + ": " + std::generic_category().message(errno));
}

/// A socket address has room for 108 bytes; a path through the open folder always fits.
sockaddr_un address_in(int dir_fd) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", dir_fd, kSocketName);
  return address;
}

/// Returns a connected socket, or -1 and errno.
int connect_in(int dir_fd) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  const auto address = address_in(dir_fd);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  const int fault = errno;
  ::close(fd);
  errno = fault;
  return -1;
}

}  // namespace

Result<std::unique_ptr<StatusSocket>> StatusSocket::start(const std::string& dir, std::function<std::string()> text) {
  std::unique_ptr<StatusSocket> out(new StatusSocket());
  out->dir_ = dir;
  out->text_ = std::move(text);
  out->dir_fd_ = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (out->dir_fd_ < 0) return system_error(dir);
  if (const int other = connect_in(out->dir_fd_); other >= 0) {
    ::close(other);
    return make_error(Errc::already_exists, dir + ": another kitsune2 process runs on this data directory");
  }
  ::unlinkat(out->dir_fd_, kSocketName, 0);
  out->listen_fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto address = address_in(out->dir_fd_);
  const mode_t before = ::umask(0177);
  const bool bound =
      out->listen_fd_ >= 0 && ::bind(out->listen_fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  const int fault = errno;
  ::umask(before);
  errno = fault;
  if (!bound || ::listen(out->listen_fd_, 8) != 0 || ::pipe2(out->wake_, O_CLOEXEC) != 0) {
    return system_error(dir + '/' + kSocketName);
  }
  out->thread_ = std::thread([self = out.get()] { self->serve(); });
  return out;
}

StatusSocket::~StatusSocket() {
  if (thread_.joinable()) {
    static_cast<void>(::write(wake_[1], "x", 1) == 1);
    thread_.join();
    ::unlinkat(dir_fd_, kSocketName, 0);
  }
  for (const int fd : {dir_fd_, listen_fd_, wake_[0], wake_[1]}) {
    if (fd >= 0) ::close(fd);
  }
}

void StatusSocket::serve() {
  while (true) {
    pollfd waits[2] = {{listen_fd_, POLLIN, 0}, {wake_[0], POLLIN, 0}};
    if (::poll(waits, 2, -1) < 0 && errno != EINTR) return;
    if (waits[1].revents != 0) return;
    if ((waits[0].revents & POLLIN) == 0) continue;
    const int fd = ::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) continue;
    timeval patience{kPatienceMs / 1000, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    const std::string text = text_();
    std::size_t done = 0;
    while (done < text.size()) {
      const auto n = ::send(fd, text.data() + done, text.size() - done, MSG_NOSIGNAL);
      if (n <= 0) break;
      done += static_cast<std::size_t>(n);
    }
    ::close(fd);
  }
}

Result<std::string> ask_status(const std::string& dir) {
  const int dir_fd = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir_fd < 0) return system_error(dir);
  const int fd = connect_in(dir_fd);
  const int fault = errno;
  ::close(dir_fd);
  if (fd < 0) {
    if (fault == ENOENT || fault == ECONNREFUSED) return make_error(Errc::not_found, "no node runs on " + dir);
    errno = fault;
    return system_error(dir + '/' + kSocketName);
  }
  std::string text;
  char buffer[16384];
  while (true) {
    pollfd wait{fd, POLLIN, 0};
    if (::poll(&wait, 1, kPatienceMs) <= 0) {
      ::close(fd);
      return make_error(Errc::timed_out, "the node that runs on " + dir + " does not answer");
    }
    const auto n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    text.append(buffer, static_cast<std::size_t>(n));
    if (text.size() > (64U << 20)) break;
  }
  ::close(fd);
  if (text.empty()) return make_error(Errc::io, "the node that runs on " + dir + " gave no answer");
  return text;
}

}  // namespace kitsune2::cli
