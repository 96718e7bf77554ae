// The attackers of hostile.py that need nothing but a node's address: they send datagrams to its UDP port as fast as
// they can, from one port or from many, and read nothing.
#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <random>
#include <string_view>
#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hostile_attack.hpp"

using namespace std::chrono_literals;

namespace kitsune2::hostile {
namespace {

constexpr std::size_t kTogether = 64;    ///< sent in one call
constexpr std::size_t kDifferent = 512;  ///< sent again and again

/// What is sent, by the kind of the attack.
enum class Junk : std::uint8_t { random, probes, initials, handshakes, short_headers, large, empty, segments };
struct Named {
  std::string_view kind;
  Junk junk;
};
constexpr Named kKinds[] = {{"udp-random", Junk::random},       {"udp-probes", Junk::probes},
                            {"udp-initials", Junk::initials},   {"udp-handshakes", Junk::handshakes},
                            {"udp-short", Junk::short_headers}, {"udp-large", Junk::large},
                            {"udp-empty", Junk::empty},         {"udp-segments", Junk::segments}};
constexpr std::string_view kMixed = "udp-mixed";

/// One that the victim has to look at: of the size that those of its peers have, or of one of our pings.
Datagram make(Junk junk, std::mt19937_64& random) {
  const std::size_t size = junk == Junk::probes     ? 37
                           : junk == Junk::large    ? 65'507
                           : junk == Junk::segments ? 64 * 37
                           : junk == Junk::empty    ? 0
                           : random() % 2 == 0      ? 1200
                                                    : 40;
  Datagram out(junk == Junk::initials ? 1200 : size);
  for (std::uint8_t& byte : out) byte = static_cast<std::uint8_t>(random());
  const auto begin_with = [&](std::size_t at, std::initializer_list<std::uint8_t> head) {
    std::copy(head.begin(), head.end(), out.begin() + static_cast<std::ptrdiff_t>(at));
  };
  switch (junk) {
    case Junk::probes:
      // A ping or a pong of a direct path, of the right size, for an offer that nobody has made; some are STUN's.
      if (random() % 8 == 0) {
        begin_with(0, {0, 1, 0, 17, 0x21, 0x12, 0xa4, 0x42});
      } else {
        begin_with(0, {0x1b, 'k', '2', 'd', static_cast<std::uint8_t>(random() % 6)});
      }
      break;
    case Junk::initials:
      // Version 1, ids of 8 bytes, no token, the length of what follows.
      begin_with(0, {0xc3, 0, 0, 0, 1, 8});
      begin_with(14, {8});
      begin_with(23, {0, 0x44, static_cast<std::uint8_t>((1200 - 26) & 0xff)});
      break;
    case Junk::handshakes:
      begin_with(0, {0xe3, 0, 0, 0, 1, 16});
      break;
    case Junk::short_headers:
      out[0] = static_cast<std::uint8_t>(0x40 | (out[0] & 0x3f));
      break;
    case Junk::segments:
      for (std::size_t at = 0; at < out.size(); at += 37)
        begin_with(at, {at % 2 == 0 ? std::uint8_t{0x1b} : std::uint8_t{0x4b}, 'k', '2', 'd', 1});
      break;
    default:
      break;
  }
  return out;
}

class UdpFlood final : public Attack {
 public:
  UdpFlood(const Plan& plan, std::string place, std::vector<FloodPart> parts)
      : plan_(plan), place_(std::move(place)), parts_(std::move(parts)) {}
  ~UdpFlood() override {
    over_ = true;
    if (thread_.joinable()) thread_.join();
  }
  void start() override {
    const std::size_t colon = place_.rfind(':');
    to_.sin_family = AF_INET;
    to_.sin_addr.s_addr = ::inet_addr(place_.substr(0, colon).c_str());
    to_.sin_port = htons(static_cast<std::uint16_t>(std::stoul(place_.substr(colon + 1))));
    for (std::size_t i = 0; i < plan_.peers; ++i) sockets_.push_back(open(i));
    thread_ = std::thread([this] { run(); });
  }
  Tally tally() const override {
    const std::lock_guard lock(mutex_);
    return tally_;
  }
  std::size_t peers() const override { return sockets_.size(); }

 private:
  int open(std::size_t number) const {
    const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_in from{};
    from.sin_family = AF_INET;
    from.sin_addr.s_addr = htonl(0x7f000002U + (static_cast<std::uint32_t>(plan_.network) << 8) +
                                 static_cast<std::uint32_t>(number % plan_.addresses));
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): how the C library takes addresses
    if (fd < 0 || ::bind(fd, reinterpret_cast<const sockaddr*>(&from), sizeof from) != 0) fail("no UDP socket");
    // What the victim's system answers is not read.
    const int least = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof least);
    return fd;
  }
  void run() {
    std::array<mmsghdr, kTogether> messages{};
    std::array<iovec, kTogether> parts{};
    alignas(cmsghdr) std::array<std::uint8_t, CMSG_SPACE(sizeof(std::uint16_t))> control{};
    for (std::size_t turn = 0; !over_; ++turn) {
      const FloodPart& kind = parts_[turn % parts_.size()];
      const auto& these = kind.datagrams;
      const std::size_t first = turn / parts_.size() * kTogether;
      Tally done;
      for (std::size_t i = 0; i < kTogether; ++i) {
        const Datagram& one = these[(first + i) % these.size()];
        parts[i] = {const_cast<std::uint8_t*>(one.data()),
                    one.size()};  // NOLINT(cppcoreguidelines-pro-type-const-cast)
        msghdr& message = messages[i].msg_hdr;
        message = {};
        message.msg_name = &to_;
        message.msg_namelen = sizeof to_;
        message.msg_iov = &parts[i];
        message.msg_iovlen = 1;
        if (kind.segment_bytes > 0) {
          // Many datagrams that the victim's system hands over as one.
          message.msg_control = control.data();
          message.msg_controllen = control.size();
          cmsghdr* header = CMSG_FIRSTHDR(&message);
          header->cmsg_level = SOL_UDP;
          header->cmsg_type = UDP_SEGMENT;
          header->cmsg_len = CMSG_LEN(sizeof(std::uint16_t));
          const auto size = static_cast<std::uint16_t>(kind.segment_bytes);
          std::copy_n(reinterpret_cast<const std::uint8_t*>(&size), sizeof size, CMSG_DATA(header));
        }
      }
      const int sent = ::sendmmsg(sockets_[turn % sockets_.size()], messages.data(), kTogether, 0);
      if (sent <= 0) {
        done.failed += 1;
        std::this_thread::sleep_for(100us);
      }
      for (int i = 0; i < sent; ++i) {
        done.messages += 1;
        done.bytes += parts[static_cast<std::size_t>(i)].iov_len;
      }
      const std::lock_guard lock(mutex_);
      tally_.messages += done.messages;
      tally_.bytes += done.bytes;
      tally_.failed += done.failed;
    }
    for (const int fd : sockets_) ::close(fd);
  }

  const Plan plan_;
  const std::string place_;
  const std::vector<FloodPart> parts_;
  sockaddr_in to_{};
  std::vector<int> sockets_;
  std::thread thread_;
  std::atomic<bool> over_ = false;
  mutable std::mutex mutex_;
  Tally tally_;
};

}  // namespace

std::unique_ptr<Attack> make_datagram_flood(const Plan& plan, std::string place, std::vector<FloodPart> parts) {
  return std::make_unique<UdpFlood>(plan, std::move(place), std::move(parts));
}

std::unique_ptr<Attack> make_udp_flood(const Plan& plan) {
  std::mt19937_64 random(1);
  std::vector<FloodPart> parts;
  for (const Named& one : kKinds) {
    if (plan.kind != one.kind && plan.kind != kMixed) continue;
    FloodPart& part = parts.emplace_back();
    if (one.junk == Junk::segments) part.segment_bytes = 37;
    // Large ones are few, so that they fit into the cache of the processor as the others do.
    const std::size_t count = one.junk == Junk::large ? 8 : kDifferent;
    for (std::size_t i = 0; i < count; ++i) part.datagrams.push_back(make(one.junk, random));
  }
  return parts.empty() ? nullptr : make_datagram_flood(plan, plan.place(), std::move(parts));
}

}  // namespace kitsune2::hostile
