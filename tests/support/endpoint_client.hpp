// Clients of a relay of dialect 0.5 in plain sockets, thousands in one thread, written apart from src/net. For the
// benchmarks and the attacks; not for unit tests.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "transport/iroh/endpoint_key.hpp"
#include "transport/iroh/relay_frames.hpp"

namespace kitsune2::test {

[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "%s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

inline sockaddr_in address_of(const std::string& host_and_port) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  const auto colon = host_and_port.rfind(':');
  ::inet_pton(AF_INET, host_and_port.substr(0, colon).c_str(), &out.sin_addr);
  out.sin_port = htons(static_cast<std::uint16_t>(std::stoi(host_and_port.substr(colon + 1))));
  return out;
}

/// A client whose socket never blocks the loop. Pings are answered.
class EndpointClient {
 public:
  /// `from`: its address, in host order. `receive_buffer`: of its socket; 0: the system's.
  EndpointClient(std::uint32_t number, const sockaddr_in& server, std::uint32_t from_address, int receive_buffer = 0)
      : number_(number), key_(seed(number)) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd_ < 0) fail("socket");
    sockaddr_in from{};
    from.sin_family = AF_INET;
    from.sin_addr.s_addr = htonl(from_address);
    if (::bind(fd_, reinterpret_cast<sockaddr*>(&from), sizeof from) != 0) fail("bind");
    if (receive_buffer > 0) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&server), sizeof server) != 0) fail("connect");
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::fcntl(fd_, F_SETFL, O_NONBLOCK);
    out_ =
        "GET /relay HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: "
        "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: iroh-relay-v2\r\n\r\n";
    flush();
  }
  ~EndpointClient() { ::close(fd_); }
  EndpointClient(const EndpointClient&) = delete;
  EndpointClient& operator=(const EndpointClient&) = delete;

  int fd() const { return fd_; }
  std::uint32_t number() const { return number_; }
  bool ready() const { return ready_; }
  /// Why the relay has ended the connection; empty: it has not.
  const std::string& ended() const { return ended_; }
  const iroh::EndpointId& id() const { return key_.id(); }
  std::size_t queued() const { return out_.size(); }

  void send(const std::uint8_t* data, std::size_t size) {
    if (!ended_.empty()) return;
    char head[14] = {static_cast<char>(0x82)};
    std::size_t n = 2;
    if (size < 126) {
      head[1] = static_cast<char>(0x80 | size);
    } else if (size < 65'536) {
      head[1] = static_cast<char>(0x80 | 126), head[2] = static_cast<char>(size >> 8),
      head[3] = static_cast<char>(size);
      n = 4;
    } else {
      head[1] = static_cast<char>(0x80 | 127);
      for (std::size_t i = 0; i < 8; ++i) head[2 + i] = static_cast<char>(size >> (56 - 8 * i));
      n = 10;
    }
    out_.append(head, n + 4);  // the mask is zero
    out_.append(reinterpret_cast<const char*>(data), size);
    flush();
  }

  /// Sends the beginning of a long message, and a byte of it at a time.
  void drip() {
    if (!std::exchange(dripping_, true)) return begin(60'000, 0);
    out_ += '\0';
    flush();
  }

  /// Sends the beginning of a message of `size` bytes (126 to 65,535): `n` bytes of it.
  void begin(std::size_t size, std::size_t n) {
    const char head[] = {static_cast<char>(0x82),
                         static_cast<char>(0x80 | 126),
                         static_cast<char>(size >> 8),
                         static_cast<char>(size),
                         0,
                         0,
                         0,
                         0};
    out_.append(head, sizeof head);
    out_.append(n, '\0');
    flush();
  }

  /// Calls `use(content, size)` for each frame with datagrams.
  template <class Use>
  void receive(Use use) {
    char part[65'536];
    while (ended_.empty()) {
      const ssize_t n = ::recv(fd_, part, sizeof part, 0);
      if (n < 0 && errno == EAGAIN) break;
      if (n <= 0) return end("the connection is closed");
      in_.append(part, static_cast<std::size_t>(n));
      std::size_t at = 0;
      if (!upgraded_) {
        const auto head_end = in_.find("\r\n\r\n");
        if (head_end == std::string::npos) continue;
        if (!in_.starts_with("HTTP/1.1 101 ")) return end("no upgrade: " + in_.substr(0, 60));
        upgraded_ = true;
        at = head_end + 4;
      }
      while (ended_.empty() && in_.size() - at >= 2) {
        const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(in_[at + i]); };
        std::size_t head = 2, size = byte(1) & 0x7fU;
        const std::size_t more = size == 126 ? 2 : size == 127 ? 8 : 0;
        if (in_.size() - at < head + more) break;
        if (more > 0) size = 0;
        for (std::size_t i = 0; i < more; ++i) size = size << 8 | byte(2 + i);
        head += more;
        if (in_.size() - at < head + size) break;
        if ((byte(0) & 0x0fU) == 8)
          return end("the relay says good-bye: " + in_.substr(at + head + std::min<std::size_t>(size, 2), size));
        take(reinterpret_cast<const std::uint8_t*>(in_.data()) + at + head, size, use);
        at += head + size;
      }
      if (!ended_.empty()) return;
      in_.erase(0, at);
      if (static_cast<std::size_t>(n) < sizeof part) break;
    }
    if (in_.empty() && in_.capacity() > 4096) in_ = std::string();
    flush();
  }

  void flush() {
    while (!out_.empty() && ended_.empty()) {
      const ssize_t n = ::send(fd_, out_.data(), out_.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EAGAIN) return;
      if (n < 0) return end("the connection is lost");
      out_.erase(0, static_cast<std::size_t>(n));
    }
  }

 private:
  void end(const std::string& why) {
    if (ended_.empty()) ended_ = why;
    out_.clear();
    in_.clear();
  }

  static iroh::EndpointKey::Seed seed(std::uint32_t number) {
    iroh::EndpointKey::Seed out{};
    out[0] = 7;
    std::memcpy(out.data() + 1, &number, sizeof number);
    return out;
  }

  template <class Use>
  void take(const std::uint8_t* data, std::size_t size, Use use) {
    if (size == 0) return;
    const auto answer = [&](const iroh::RelayFrame& frame) {
      const Bytes bytes = encode_relay_frame(iroh::Sender::client, frame);
      send(bytes.data(), bytes.size());
    };
    if (data[0] == 6 || data[0] == 7) {
      const std::size_t head = data[0] == 6 ? 34 : 36;
      if (size > head) use(data + head, size - head);
      return;
    }
    const auto frame = decode_relay_frame(iroh::RelayVersion::v2, iroh::Sender::relay, Bytes::copy_of({data, size}));
    if (!frame) return end("a frame that is none");
    if (const auto* challenge = std::get_if<iroh::ServerChallenge>(&*frame)) {
      answer(iroh::ClientAuth{key_.id(), key_.sign(to_be_signed(*challenge))});
    } else if (std::holds_alternative<iroh::ServerConfirmsAuth>(*frame)) {
      ready_ = true;
    } else if (const auto* denied = std::get_if<iroh::ServerDeniesAuth>(&*frame)) {
      end(denied->reason);
    } else if (const auto* ping = std::get_if<iroh::Ping>(&*frame)) {
      answer(iroh::Pong{ping->payload});
    }
  }

  const std::uint32_t number_;
  iroh::EndpointKey key_;
  int fd_ = -1;
  bool upgraded_ = false, ready_ = false, dripping_ = false;
  std::string in_, out_, ended_;
};

class ClientLoop {
 public:
  ClientLoop() : fd_(::epoll_create1(EPOLL_CLOEXEC)) {}
  ~ClientLoop() { ::close(fd_); }
  ClientLoop(const ClientLoop&) = delete;
  ClientLoop& operator=(const ClientLoop&) = delete;
  void add(EndpointClient& client) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.ptr = &client;
    if (::epoll_ctl(fd_, EPOLL_CTL_ADD, client.fd(), &event) != 0) fail("epoll");
  }
  /// Calls `use(client)` for each client that has something, after at most `ms`.
  template <class Use>
  void turn(int ms, Use use) {
    epoll_event events[256];
    const int n = ::epoll_wait(fd_, events, 256, ms);
    for (int i = 0; i < n; ++i) use(*static_cast<EndpointClient*>(events[i].data.ptr));
  }

 private:
  int fd_;
};

}  // namespace kitsune2::test
