// The UDP network of a history: addresses, walls and NATs.
#include "sim/sim_paths.hpp"

#include <iterator>

namespace kitsune2::sim {

SimPaths::SimPaths(testing::SimWorld& world, SimNet& net)
    : world_(world), net_(net), udp_(std::make_shared<tests::SimUdp>(world)) {
  udp_->passes = [this](const UdpAddress& from, const UdpAddress& to) { return passes(from, to); };
}

SimPaths::Machine& SimPaths::machine(SimNet::Host host) {
  const auto [it, is_new] = machines_.try_emplace(host);
  Machine& machine = it->second;
  if (!is_new) return machine;
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
  }
}

/// A network that is slow stays slow: what goes through the relay is faster then.
void SimPaths::calm() {
  const Duration latency = udp_->options.latency;
  udp_->options = {};
  udp_->options.latency = latency;
  walls_.clear();
  cut_ = false;
}

}  // namespace kitsune2::sim
