// The UDP network of a history: addresses, walls and NATs.
#include "sim/sim_paths.hpp"

#include <algorithm>
#include <iterator>

namespace kitsune2::sim {

SimPaths::SimPaths(testing::SimWorld& world, SimNet& net)
    : world_(world), net_(net), udp_(std::make_shared<tests::SimUdp>(world)) {
  udp_->passes = [this](const UdpAddress& from, const UdpAddress& to) { return passes(from, to); };
  udp_->largest_between = [this](const UdpAddress& from, const UdpAddress& to) { return largest_between(from, to); };
}

/// Of Ethernet, of tunnels and VPNs over IPv4 and IPv6, and any other; seldom less than QUIC needs.
std::size_t SimPaths::draw_largest() {
  constexpr std::size_t kSizes[] = {1'472, 1'472, 1'472, 1'452, 1'392, 1'372, 1'252, 1'232, 1'200, 1'199};
  return world_.random(4) == 0 ? 1'200 + world_.random(300) : kSizes[world_.random(std::size(kSizes))];
}

std::size_t SimPaths::largest_between(const UdpAddress& from, const UdpAddress& to) const {
  const auto of = [this](const UdpAddress& address) {
    const auto host = host_of(address);
    return host ? machines_.at(*host).largest : 0;
  };
  return std::min(of(from), of(to));
}

SimPaths::Machine& SimPaths::machine(SimNet::Host host) {
  const auto [it, is_new] = machines_.try_emplace(host);
  Machine& machine = it->second;
  if (!is_new) return machine;
  machine.largest = draw_largest();
  const auto number = static_cast<std::uint8_t>(host + 1);
  switch (world_.random(5)) {
    case 0:
      machine.has_udp = false;
      return machine;
    case 1:
    case 2:
      machine.own = UdpAddress::v4(192, 168, 1, number, 5000);
      break;
    case 3:
      machine.own = UdpAddress::v4(8, 0, 0, number, 5000);
      break;
    case 4:
      machine.own = UdpAddress::v4(10, 0, number, 2, 5000);
      machine.outside = UdpAddress::v4(8, 0, 1, number, 6000);
      hosts_[machine.outside->ip] = host;
      break;
  }
  hosts_[machine.own.ip] = host;
  return machine;
}

std::shared_ptr<UdpBinder> SimPaths::binder(testing::SimRuntime& runtime, SimNet::Host host) {
  const Machine& where = machine(host);
  return where.has_udp ? udp_->binder(runtime, where.own, where.outside) : nullptr;
}

std::optional<SimNet::Host> SimPaths::host_of(const UdpAddress& address) const {
  const auto found = hosts_.find(address.ip);
  return found == hosts_.end() ? std::nullopt : std::optional(found->second);
}

bool SimPaths::passes(const UdpAddress& from, const UdpAddress& to) {
  const auto a = host_of(from), b = host_of(to);
  if (cut_ || !a || !b || net_.is_blocked(*a) || net_.is_blocked(*b) || walls_.contains({*a, *b})) return false;
  datagrams_ += 1;
  return true;
}

const UdpAddress* SimPaths::any_socket() {
  if (machines_.empty()) return nullptr;
  const Machine& one =
      std::next(machines_.begin(), static_cast<std::ptrdiff_t>(world_.random(machines_.size())))->second;
  return one.has_udp ? &one.own : nullptr;
}

void SimPaths::make_trouble(std::size_t which) {
  auto& options = udp_->options;
  const auto percent = [this](std::uint64_t below) { return static_cast<unsigned>(world_.random(below)); };
  switch (which) {
    case 0:
      options.loss = world_.random(3) == 0 ? percent(60) : percent(10);
      return;
    case 1:
      options.duplication = percent(30);
      options.reorder = percent(50);
      return;
    case 2:
      options.largest = std::vector<std::size_t>{1'500, 1'400, 1'250, 600, 9'000}[world_.random(5)];
      return;
    case 3:
      options.latency = std::chrono::milliseconds(world_.random(world_.random(2) == 0 ? 20 : 400));
      return;
    case 4:
      cut_ = !cut_;
      return;
    case 5: {
      if (machines_.size() < 2) return;
      const auto any = [this] {
        return std::next(machines_.begin(), static_cast<std::ptrdiff_t>(world_.random(machines_.size())))->first;
      };
      const auto from = any(), to = any();
      walls_.emplace(from, to);
      return;
    }
    case 6:
      for (auto& [host, machine] : machines_) {
        if (!machine.outside || world_.random(2) == 0) continue;
        // At another port of the same address, or where the provider has put it now.
        auto& outside = *machine.outside;
        if (world_.random(2) == 0) {
          outside.port += 1;
        } else {
          outside = UdpAddress::v4(8, 1, static_cast<std::uint8_t>(world_.random(250)),
                                   static_cast<std::uint8_t>(host + 1), 6000);
          hosts_[outside.ip] = host;
        }
        udp_->move_nat(machine.own, outside);
      }
      return;
    case 7: {
      const auto *socket = any_socket(), *to = any_socket();
      if (socket != nullptr && to != nullptr) udp_->tell_unreachable(*socket, *to);
      return;
    }
    case 8:
      if (machines_.empty()) return;
      std::next(machines_.begin(), static_cast<std::ptrdiff_t>(world_.random(machines_.size())))->second.largest =
          draw_largest();
      return;
  }
}

/// A network that is slow stays slow: what goes through the relay is faster then. So do lines that carry little.
void SimPaths::calm() {
  const Duration latency = udp_->options.latency;
  udp_->options = {};
  udp_->options.latency = latency;
  walls_.clear();
  cut_ = false;
}

}  // namespace kitsune2::sim
