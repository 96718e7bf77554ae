// UDP sockets in virtual time: loss, reordering, duplication, a largest datagram, NATs that forget, walls.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/testing/sim_runtime.hpp"
#include "transport/udp.hpp"

namespace kitsune2::tests {

/// The network: which socket has which address, and what happens on the way.
class SimUdp : public std::enable_shared_from_this<SimUdp> {
 public:
  struct Options {
    Duration latency = std::chrono::milliseconds(2);
    std::size_t largest = 1500;
    unsigned loss = 0, duplication = 0, reorder = 0;  ///< in 100
  };
  struct Count {
    std::uint64_t packets = 0, bytes = 0, longest = 0;
  };

  explicit SimUdp(testing::SimWorld& world) : world_(world) {}

  Options options;
  /// False: the datagram is lost on its way. `from` as the receiver would see it.
  std::function<bool(const UdpAddress& from, const UdpAddress& to)> passes;
  /// The largest datagram on the line between two, beside that of the options; without it any.
  std::function<std::size_t(const UdpAddress& from, const UdpAddress& to)> largest_between;
  std::map<UdpAddress, Count> sent_to;
  /// What a socket sends; not what is injected.
  std::function<void(const UdpAddress& from, const UdpAddress& to, const Bytes& datagram)> on_sent;
  /// Of each socket, what it lets in, and how many datagrams it did not.
  std::map<UdpAddress, DatagramFilter> filters;
  std::map<UdpAddress, std::size_t> kept_out;

  /// Sockets at `own` if asked for a free port. With `outside`, behind a NAT that is seen there: whom nothing was sent
  /// to from inside is kept out.
  std::shared_ptr<UdpBinder> binder(testing::SimRuntime& runtime, const UdpAddress& own,
                                    std::optional<UdpAddress> outside = {});
  /// All NATs forget what was sent through them, and are seen at another port from now on.
  void forget_nats() {
    for (auto& [own, nat] : nats_) {
      nat.sent.clear();
      ++nat.outside.port;
    }
  }
  /// The NAT before the socket at `own` forgets what was sent through it, and is seen at `outside` from now on.
  void move_nat(const UdpAddress& own, const UdpAddress& outside) { nats_[own] = {outside, {}}; }
  /// What a socket is told about an address.
  void tell_unreachable(const UdpAddress& socket, const UdpAddress& to);
  /// As if somebody at `from` had sent it.
  void inject(const UdpAddress& from, const UdpAddress& to, const Bytes& datagram) { carry(from, to, datagram); }

 private:
  class Socket;
  class Binder;
  struct Nat {
    UdpAddress outside;
    std::vector<UdpAddress> sent;
  };

  bool chance(unsigned percent) { return percent > 0 && world_.random(100) < percent; }
  void send(const UdpAddress& own, const UdpAddress& to, const Bytes& datagram);
  void carry(const UdpAddress& from, const UdpAddress& to, const Bytes& datagram);

  testing::SimWorld& world_;
  std::map<UdpAddress, Socket*> sockets_;
  std::map<UdpAddress, Nat> nats_;  ///< by the address inside
};

class SimUdp::Socket final : public UdpSocket {
 public:
  Socket(std::shared_ptr<SimUdp> net, testing::SimRuntime& runtime, const UdpAddress& own, UdpHandlers handlers)
      : runtime_(runtime), handlers_(std::move(handlers)), own_(own), net_(std::move(net)) {
    net_->sockets_[own_] = this;
  }
  ~Socket() override { Socket::close(); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  bool send(const UdpAddress& to, ByteView content, std::size_t segment_bytes) override {
    for (std::size_t at = 0; at < content.size(); at += segment_bytes)
      net_->send(own_, to, Bytes::copy_of(content.subspan(at, std::min(segment_bytes, content.size() - at))));
    return true;
  }
  std::vector<UdpAddress> addresses() const override { return {own_}; }
  void let_in_only(const DatagramFilter& filter) override { net_->filters.insert_or_assign(own_, filter); }
  void close() override {
    const auto found = net_->sockets_.find(own_);
    if (found != net_->sockets_.end() && found->second == this) net_->sockets_.erase(found);
  }

  testing::SimRuntime& runtime_;
  UdpHandlers handlers_;

 private:
  const UdpAddress own_;
  const std::shared_ptr<SimUdp> net_;
};

class SimUdp::Binder final : public UdpBinder {
 public:
  Binder(std::shared_ptr<SimUdp> net, testing::SimRuntime& runtime, const UdpAddress& own)
      : net_(std::move(net)), runtime_(runtime), own_(own) {}
  Result<std::shared_ptr<UdpSocket>> bind(const UdpAddress& address, UdpHandlers handlers) override {
    const UdpAddress where = address.port == 0 ? own_ : address;
    if (net_->sockets_.contains(where)) return make_error(Errc::already_exists, "the port is taken");
    return std::shared_ptr<UdpSocket>(std::make_shared<Socket>(net_, runtime_, where, std::move(handlers)));
  }

 private:
  const std::shared_ptr<SimUdp> net_;
  testing::SimRuntime& runtime_;
  const UdpAddress own_;
};

inline std::shared_ptr<UdpBinder> SimUdp::binder(testing::SimRuntime& runtime, const UdpAddress& own,
                                                 std::optional<UdpAddress> outside) {
  if (outside) nats_[own] = {*outside, {}};
  return std::make_shared<Binder>(shared_from_this(), runtime, own);
}

inline void SimUdp::tell_unreachable(const UdpAddress& socket, const UdpAddress& to) {
  const auto found = sockets_.find(socket);
  if (found != sockets_.end()) found->second->handlers_.on_unreachable(to);
}

inline void SimUdp::send(const UdpAddress& own, const UdpAddress& to, const Bytes& datagram) {
  Count& count = sent_to[to];
  count.packets += 1;
  count.bytes += datagram.size();
  count.longest = std::max<std::uint64_t>(count.longest, datagram.size());
  if (on_sent) on_sent(own, to, datagram);
  const auto nat = nats_.find(own);
  if (nat == nats_.end()) {
    carry(own, to, datagram);
    return;
  }
  auto& sent = nat->second.sent;
  if (std::ranges::find(sent, to) == sent.end()) sent.push_back(to);
  carry(nat->second.outside, to, datagram);
}

inline void SimUdp::carry(const UdpAddress& from, const UdpAddress& to, const Bytes& datagram) {
  if (datagram.size() > options.largest || chance(options.loss) || (passes && !passes(from, to))) return;
  if (largest_between && datagram.size() > largest_between(from, to)) return;
  UdpAddress inside = to;
  for (const auto& [own, nat] : nats_) {
    // From outside, nobody reaches an address behind a NAT, nor its mapping unless it was sent to.
    if (own == to) return;
    if (nat.outside != to) continue;
    if (std::ranges::find(nat.sent, from) == nat.sent.end()) return;
    inside = own;
  }
  const auto found = sockets_.find(inside);
  if (found == sockets_.end()) return;
  const int copies = chance(options.duplication) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    const Duration late = chance(options.reorder) ? options.latency * 3 : Duration::zero();
    found->second->runtime_.schedule(world_.now() + options.latency + late,
                                     [net = shared_from_this(), inside, from, datagram] {
                                       const auto there = net->sockets_.find(inside);
                                       if (there == net->sockets_.end()) return;
                                       const auto filter = net->filters.find(inside);
                                       if (filter != net->filters.end() && !filter->second.lets_in(datagram)) {
                                         ++net->kept_out[inside];
                                         return;
                                       }
                                       there->second->handlers_.on_datagrams(from, datagram, datagram.size());
                                     });
  }
}

}  // namespace kitsune2::tests
