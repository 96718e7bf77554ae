// What the tests of sockets share: waiting without sleeping, raw sockets, certificates made on the spot.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::test {

/// No test waits longer than this for anything; it is a bound for broken code, not a timing assertion.
inline constexpr std::chrono::seconds kPatience{60};

/// A started runtime. Declare what its tasks touch before it, so that it goes first.
struct Loop : AsioRuntime {
  Loop() { start(); }
  ~Loop() override { stop(); }
};

/// A queue between the strand and the test.
template <class T>
class Inbox {
 public:
  void push(T value) {
    const std::lock_guard lock(mutex_);
    items_.push_back(std::move(value));
    changed_.notify_all();
  }
  /// nullopt: nothing came within kPatience.
  std::optional<T> next() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kPatience, [&] { return !items_.empty(); })) return std::nullopt;
    T out = std::move(items_.front());
    items_.pop_front();
    return out;
  }
  std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return items_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> items_;
};

/// A blocking TCP client that can misbehave.
class RawSocket {
 public:
  /// `local`: the address to connect from, e.g. "127.0.0.2".
  explicit RawSocket(const std::string& address, const std::string& local = {});
  ~RawSocket();
  RawSocket(const RawSocket&) = delete;
  RawSocket& operator=(const RawSocket&) = delete;
  RawSocket(RawSocket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

  bool connected() const { return fd_ >= 0; }
  bool send(std::string_view data) const;
  bool send(ByteView data) const { return send(as_text(data)); }
  /// Up to `size` bytes; "" at the end of the stream (or after kPatience).
  std::string receive(std::size_t size) const;
  /// Exactly `size` bytes, or what came before the end.
  std::string receive_exactly(std::size_t size) const;
  /// Until the other side closes.
  std::string receive_all() const;
  /// One HTTP answer with a Content-Length.
  std::string receive_answer() const;
  void shut_output() const;
  void set_receive_buffer(int bytes) const;
  void close();
  int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

/// A WebSocket client in plain blocking calls, written apart from src/net.
class RawWs {
 public:
  RawWs(const std::string& address, const std::string& path, const std::string& extra_headers = {},
        const std::string& local = {});
  /// 0 if there was no answer.
  int status() const { return status_; }
  bool send(ByteView message) { return send_frame(0x82, message); }
  bool send_frame(std::uint8_t first_byte, ByteView payload);
  /// The next data message; nullopt: a close frame or the end. Pongs are skipped.
  std::optional<Bytes> receive();
  /// Of the last close frame; 0: none came.
  std::uint16_t close_code() const { return close_code_; }
  const std::string& close_reason() const { return close_reason_; }
  RawSocket& socket() { return socket_; }

 private:
  RawSocket socket_;
  int status_ = 0;
  std::uint16_t close_code_ = 0;
  std::string close_reason_;
};

/// A folder that goes with the object.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }
  std::string write(const std::string& name, std::string_view content) const;

 private:
  std::string path_;
};

/// A CA and a server certificate signed by it.
struct Certificates {
  TempDir dir;
  std::string ca;    // PEM file
  std::string cert;  // PEM file, for `names`
  std::string key;   // PEM file
  std::string other_key;
  /// `names`: subjectAltName, e.g. "DNS:localhost,IP:127.0.0.1". `days`: of validity from now; negative: expired.
  explicit Certificates(const std::string& names = "DNS:localhost,IP:127.0.0.1", int days = 1);
};

/// "host" and "port" of "host:port".
std::string port_of(const std::string& address);

}  // namespace kitsune2::test
