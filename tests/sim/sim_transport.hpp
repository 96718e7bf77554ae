// The transport of a history's dialect, over simulated sockets.
#pragma once

#include <cstdint>
#include <memory>

#include "kitsune2/config.hpp"
#include "sim/scenarios.hpp"
#include "sim/sim_net.hpp"
#include "sim/sim_paths.hpp"
#include "transport/tx5/tx5_transport.hpp"

namespace kitsune2::sim {

/// What the transports of a history have in common, whichever they are.
struct TransportDraw {
  std::uint32_t timeout_s = 0;
  std::uint64_t max_message_bytes = 0;
  std::uint64_t max_queue_bytes = 0;  ///< 0: as by default
};

/// Sockets of a machine.
struct Sockets {
  SimNet& net;
  SimPaths* paths = nullptr;  ///< null: no UDP
  SimNet::Host host = 0;
};

/// 0.2, or over iroh one of those that use it.
Dialect draw_dialect(testing::SimWorld& world, Over over);
/// Sets the relay and the limits in the section of the transport of `config`'s dialect.
void set_transport(Config& config, const TransportDraw& draw);
/// For a dialect over iroh, half the time: the network of its direct paths. Otherwise null: there is no UDP.
std::unique_ptr<SimPaths> draw_paths(testing::SimWorld& world, SimNet& net, const Config& config);
/// The transport of `config`'s dialect. `limits`: of tx5.
Result<std::unique_ptr<TransportBackend>> make_backend(testing::SimRuntime& runtime, const Sockets& sockets,
                                                       const Config& config, const tx5::LinkLimits& limits = {});

}  // namespace kitsune2::sim
