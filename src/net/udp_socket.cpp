// A UDP socket for many peers: several datagrams in a call, and what the network says about those that do not arrive.
#include "net/udp_socket.hpp"

#include <ifaddrs.h>
#include <linux/errqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "net/asio_runtime_impl.hpp"
#include "net/udp_filter.hpp"

namespace kitsune2::net {
namespace {

namespace asio = boost::asio;
using asio::ip::udp;
using boost::system::error_code;

constexpr int kReadsInTurn = 16;
constexpr int kErrorsInTurn = 64;
constexpr std::size_t kReadBytes = 64U << 10;
constexpr int kBufferBytes = 4 << 20;  ///< what the system is asked for; it may give less
constexpr std::size_t kControlBytes = 512;

/// An address in the form of the system.
class SocketAddress {
 public:
  SocketAddress() = default;
  SocketAddress(const UdpAddress& address, bool v6) {
    if (v6) {
      auto* out = reinterpret_cast<sockaddr_in6*>(&storage_);
      out->sin6_family = AF_INET6;
      out->sin6_port = htons(address.port);
      std::memcpy(&out->sin6_addr, address.ip.data(), address.ip.size());
      size_ = sizeof *out;
    } else {
      auto* out = reinterpret_cast<sockaddr_in*>(&storage_);
      out->sin_family = AF_INET;
      out->sin_port = htons(address.port);
      std::memcpy(&out->sin_addr, address.ip.data() + 12, 4);
      size_ = sizeof *out;
    }
  }
  sockaddr* data() { return reinterpret_cast<sockaddr*>(&storage_); }
  socklen_t size() const { return size_; }
  static constexpr socklen_t capacity() { return sizeof(sockaddr_storage); }

  static std::optional<UdpAddress> read(const sockaddr* from) {
    if (from->sa_family == AF_INET6) {
      const auto* in = reinterpret_cast<const sockaddr_in6*>(from);
      UdpAddress out;
      std::memcpy(out.ip.data(), &in->sin6_addr, out.ip.size());
      out.port = ntohs(in->sin6_port);
      return out;
    }
    if (from->sa_family != AF_INET) return std::nullopt;
    const auto* in = reinterpret_cast<const sockaddr_in*>(from);
    std::array<std::uint8_t, 4> ip{};
    std::memcpy(ip.data(), &in->sin_addr, ip.size());
    return UdpAddress::v4(ip[0], ip[1], ip[2], ip[3], ntohs(in->sin_port));
  }

 private:
  sockaddr_storage storage_{};
  socklen_t size_ = 0;
};

/// Where recvmsg puts a datagram, or an error of one, and what the system says beside it.
struct ReceiveCall {
  explicit ReceiveCall(std::span<std::uint8_t> buffer) : data{buffer.data(), buffer.size()} {
    message.msg_name = address.data();
    message.msg_namelen = SocketAddress::capacity();
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
  }
  ReceiveCall(const ReceiveCall&) = delete;
  ReceiveCall& operator=(const ReceiveCall&) = delete;

  SocketAddress address;
  iovec data;
  alignas(cmsghdr) std::array<std::uint8_t, kControlBytes> control{};
  msghdr message{};
};

bool is_unspecified(const UdpAddress& address) {
  return std::all_of(address.ip.begin(), address.ip.begin() + 10, [](std::uint8_t byte) { return byte == 0; }) &&
         std::all_of(address.ip.begin() + 12, address.ip.end(), [](std::uint8_t byte) { return byte == 0; });
}

class Socket final : public UdpSocket, public std::enable_shared_from_this<Socket> {
 public:
  Socket(udp::socket socket, const UdpAddress& bound, bool v6, UdpHandlers handlers)
      : socket_(std::move(socket)), bound_(bound), v6_(v6), handlers_(std::move(handlers)) {
    const int fd = socket_.native_handle();
    set(fd, SOL_SOCKET, SO_RCVBUF, kBufferBytes);
    set(fd, SOL_SOCKET, SO_SNDBUF, kBufferBytes);
    set(fd, SOL_UDP, UDP_GRO, 1);
    // No fragments. The system's idea of how large a datagram may be, which anybody can forge, does not count.
    set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
    set(fd, IPPROTO_IP, IP_RECVERR, 1);
    if (v6_) {
      set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
      set(fd, IPPROTO_IPV6, IPV6_RECVERR, 1);
    }
  }
  void start() { wait(); }

  bool send(const UdpAddress& to, ByteView content, std::size_t segment_bytes) override {
    if (!socket_.is_open() || (!v6_ && !to.is_v4())) return true;
    if (gso_ && content.size() > segment_bytes) {
      const Sent sent = write(to, content, segment_bytes);
      if (sent != Sent::unsupported) return sent == Sent::yes;
    }
    for (std::size_t at = 0; at < content.size(); at += segment_bytes) {
      const std::size_t size = std::min(segment_bytes, content.size() - at);
      if (write(to, content.subspan(at, size), size) == Sent::no_room) return false;
    }
    return true;
  }

  std::vector<UdpAddress> addresses() const override {
    if (!is_unspecified(bound_)) return {bound_};
    std::vector<UdpAddress> out;
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) != 0) return out;
    for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
      if (one->ifa_addr == nullptr || (one->ifa_flags & IFF_UP) == 0) continue;
      std::optional<UdpAddress> address = SocketAddress::read(one->ifa_addr);
      if (!address || (!v6_ && !address->is_v4())) continue;
      address->port = bound_.port;
      if (std::ranges::find(out, *address) == out.end()) out.push_back(*address);
    }
    freeifaddrs(list);
    return out;
  }

  void let_in_only(const DatagramFilter& filter) override {
    std::vector<sock_filter> program = program_of(filter);
    sock_fprog whole{};
    whole.len = static_cast<unsigned short>(program.size());
    whole.filter = program.data();
    setsockopt(socket_.native_handle(), SOL_SOCKET, SO_ATTACH_FILTER, &whole, sizeof whole);
  }

  void close() override {
    error_code ec;
    socket_.close(ec);
    handlers_ = {};
  }

 private:
  enum class Sent { yes, no_room, unsupported };

  static void set(int fd, int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof value); }

  /// One datagram, or several of `segment_bytes`. What the system refuses is lost, as on the network.
  Sent write(const UdpAddress& to, ByteView content, std::size_t segment_bytes) {
    SocketAddress address(to, v6_);
    iovec data{const_cast<std::uint8_t*>(content.data()),
               content.size()};  // NOLINT(cppcoreguidelines-pro-type-const-cast)
    alignas(cmsghdr) std::array<std::uint8_t, CMSG_SPACE(sizeof(std::uint16_t))> control{};
    msghdr message{};
    message.msg_name = address.data();
    message.msg_namelen = address.size();
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    const bool several = content.size() > segment_bytes;
    if (several) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_UDP;
      header->cmsg_type = UDP_SEGMENT;
      header->cmsg_len = CMSG_LEN(sizeof(std::uint16_t));
      const auto size = static_cast<std::uint16_t>(segment_bytes);
      std::memcpy(CMSG_DATA(header), &size, sizeof size);
    }
    // The first call may report what became of an earlier datagram instead, such as a ping that was too large.
    for (int i = 0; i < 2; ++i) {
      if (sendmsg(socket_.native_handle(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return Sent::yes;
      if (errno == EAGAIN || errno == EWOULDBLOCK) {
        wait_for_room();
        return Sent::no_room;
      }
      if (several && (errno == EIO || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOPROTOOPT)) {
        // EINVAL may be due to the way to this address, and says nothing about others.
        gso_ = gso_ && errno == EINVAL;
        return Sent::unsupported;
      }
      if (i == 0) continue;
      if (errno == ENETUNREACH || errno == EHOSTUNREACH || errno == EPERM || errno == EMSGSIZE || errno == EACCES) {
        tell_unreachable_later(to);
        return Sent::yes;
      }
    }
    return Sent::yes;
  }

  void tell_unreachable_later(const UdpAddress& to) {
    if (std::ranges::find(unreachable_, to) != unreachable_.end() || unreachable_.size() >= kErrorsInTurn) return;
    unreachable_.push_back(to);
    if (unreachable_.size() > 1) return;
    asio::post(socket_.get_executor(), [self = shared_from_this()] { self->tell_unreachable(); });
  }
  void tell_unreachable() {
    for (const UdpAddress& to : std::exchange(unreachable_, {})) {
      // A copy: the handler may close the socket.
      if (const auto handler = handlers_.on_unreachable) handler(to);
    }
  }

  void wait_for_room() {
    if (std::exchange(waiting_for_room_, true)) return;
    socket_.async_wait(udp::socket::wait_write, [self = shared_from_this()](const error_code& ec) {
      self->waiting_for_room_ = false;
      if (ec) return;
      // A copy: the handler may close the socket.
      if (const auto handler = self->handlers_.on_writable) handler();
    });
  }

  void wait() {
    socket_.async_wait(udp::socket::wait_read, [self = shared_from_this()](const error_code& ec) {
      if (ec || !self->socket_.is_open()) return;
      self->read_errors();
      self->read();
      if (self->socket_.is_open()) self->wait();
    });
  }

  void read() {
    // A copy: the handler may close the socket.
    const auto handler = handlers_.on_datagrams;
    for (int i = 0; i < kReadsInTurn && socket_.is_open(); ++i) {
      ReceiveCall in(buffer_);
      msghdr& message = in.message;
      const ssize_t size = recvmsg(socket_.native_handle(), &message, MSG_DONTWAIT);
      if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
      // Else an error of an earlier datagram that was sent, which read_errors has told.
      if (size <= 0 || (message.msg_flags & MSG_TRUNC) != 0) continue;
      auto segment = static_cast<std::size_t>(size);
      for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_UDP || header->cmsg_type != UDP_GRO) continue;
        int told = 0;
        std::memcpy(&told, CMSG_DATA(header), sizeof told);
        if (told > 0) segment = static_cast<std::size_t>(told);
      }
      const std::optional<UdpAddress> sender = SocketAddress::read(in.address.data());
      if (sender && handler) handler(*sender, ByteView(buffer_.data(), static_cast<std::size_t>(size)), segment);
    }
  }

  void read_errors() {
    for (int i = 0; i < kErrorsInTurn && socket_.is_open(); ++i) {
      std::array<std::uint8_t, 64> start{};
      ReceiveCall in(start);
      if (recvmsg(socket_.native_handle(), &in.message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) break;
      if (const auto address = SocketAddress::read(in.address.data())) {
        if (std::ranges::find(unreachable_, *address) == unreachable_.end()) unreachable_.push_back(*address);
      }
    }
    tell_unreachable();
  }

  udp::socket socket_;
  const UdpAddress bound_;
  const bool v6_;
  UdpHandlers handlers_;
  bool gso_ = true;
  bool waiting_for_room_ = false;
  std::vector<UdpAddress> unreachable_;
  std::array<std::uint8_t, kReadBytes> buffer_{};
};

class Binder final : public UdpBinder {
 public:
  explicit Binder(AsioRuntime& runtime) : runtime_(runtime) {}

  Result<std::shared_ptr<UdpSocket>> bind(const UdpAddress& address, UdpHandlers handlers) override {
    const bool any = is_unspecified(address) && !address.is_v4();
    error_code ec;
    if (!address.is_v4()) {
      if (auto made = try_bind(address, true, handlers, ec)) return std::shared_ptr<UdpSocket>(std::move(made));
      if (any && ec != asio::error::address_in_use) {
        const UdpAddress v4 = UdpAddress::v4(0, 0, 0, 0, address.port);
        if (auto made = try_bind(v4, false, handlers, ec)) return std::shared_ptr<UdpSocket>(std::move(made));
      }
    } else if (auto made = try_bind(address, false, handlers, ec)) {
      return std::shared_ptr<UdpSocket>(std::move(made));
    }
    const bool taken = ec == asio::error::address_in_use;
    return make_error(taken ? Errc::already_exists : Errc::io, "udp " + address.to_string() + ": " + ec.message());
  }

 private:
  std::shared_ptr<Socket> try_bind(UdpAddress address, bool v6, const UdpHandlers& handlers, error_code& ec) {
    udp::socket socket(runtime_.impl().io);
    socket.open(v6 ? udp::v6() : udp::v4(), ec);
    if (!ec && v6) socket.set_option(asio::ip::v6_only(!is_unspecified(address)), ec);
    if (ec) return nullptr;
    SocketAddress where(address, v6);
    if (::bind(socket.native_handle(), where.data(), where.size()) != 0) {
      ec = error_code(errno, boost::system::system_category());
      return nullptr;
    }
    socket.non_blocking(true, ec);
    const udp::endpoint bound = ec ? udp::endpoint() : socket.local_endpoint(ec);
    if (ec) return nullptr;
    address.port = bound.port();
    auto made = std::make_shared<Socket>(std::move(socket), address, v6, handlers);
    made->start();
    return made;
  }

  AsioRuntime& runtime_;
};

}  // namespace
}  // namespace kitsune2::net

namespace kitsune2 {

std::shared_ptr<UdpBinder> make_udp_binder(AsioRuntime& runtime) { return std::make_shared<net::Binder>(runtime); }

}  // namespace kitsune2
