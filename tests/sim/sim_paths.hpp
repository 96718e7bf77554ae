// The UDP network of a history, beside its streams: where each machine is, and what goes wrong on the way.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "sim/sim_net.hpp"
#include "support/sim_udp.hpp"

namespace kitsune2::sim {

/// Some machines are in one local network, some have addresses of their own, some are behind a NAT each, and some have
/// no UDP. The lines of some carry less than others. A machine that is blocked in the SimNet is blocked here, too. All
/// choices come from the world's seed.
class SimPaths {
 public:
  static constexpr std::size_t kTroubles = 9;

  SimPaths(testing::SimWorld& world, SimNet& net);

  /// For the process of `host`; null: the machine has no UDP.
  std::shared_ptr<UdpBinder> binder(testing::SimRuntime& runtime, SimNet::Host host);
  /// The `which`-th kind of trouble: loss, duplication, reordering, a small or large datagram, a network that is slower
  /// than the relay, walls, NATs that forget or are seen elsewhere, forged messages of the network, a line that
  /// carries less than before, or more.
  void make_trouble(std::size_t which);
  /// All trouble is over, but for a slow network, and lines that carry little.
  void calm();
  std::uint64_t datagrams() const { return datagrams_; }

 private:
  struct Machine {
    UdpAddress own;
    std::optional<UdpAddress> outside;
    bool has_udp = true;
    std::size_t largest = 0;  ///< datagram on its line
  };
  Machine& machine(SimNet::Host host);
  bool passes(const UdpAddress& from, const UdpAddress& to);
  std::size_t largest_between(const UdpAddress& from, const UdpAddress& to) const;
  std::size_t draw_largest();
  /// Whose address it is, whatever the port.
  std::optional<SimNet::Host> host_of(const UdpAddress& address) const;
  const UdpAddress* any_socket();

  testing::SimWorld& world_;
  SimNet& net_;
  std::shared_ptr<tests::SimUdp> udp_;
  std::map<SimNet::Host, Machine> machines_;
  std::map<std::array<std::uint8_t, 16>, SimNet::Host> hosts_;
  std::set<std::pair<SimNet::Host, SimNet::Host>> walls_;  ///< nothing passes in this direction
  bool cut_ = false;
  std::uint64_t datagrams_ = 0;
};

}  // namespace kitsune2::sim
