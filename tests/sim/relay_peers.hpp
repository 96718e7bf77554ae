// Peers behind the relay that speak the protocol and misbehave.
#pragma once

#include <memory>
#include <vector>

#include "kitsune2/config.hpp"
#include "kitsune2/op_store.hpp"
#include "kitsune2/transport.hpp"
#include "sim/sim_net.hpp"
#include "sim/sim_paths.hpp"

namespace kitsune2::sim {

inline const SpaceId kSimSpace = SpaceId::from_text("sim-space");

enum class BadKind {
  silent,     ///< accepts requests and never answers
  slow,       ///< holds everything, answers late and in part
  liar,       ///< wrong bytes, ops that nobody requested, nonsense, closed connections
  endless,    ///< an answer without end, of ops that nobody wants
  oversized,  ///< ops and messages over every limit
  flapping,   ///< honest, but its connections are cut repeatedly
};

class BadPeer {
 public:
  BadPeer(testing::SimWorld& world, SimNet& net, SimPaths* paths, const Config& config, BadKind kind,
          const std::vector<MetaOp>& ops);
  ~BadPeer();
  std::optional<Url> url() const { return transport_->url(); }
  /// Publishes ids, whether it holds them or not.
  void offer(const Url& to, const std::vector<OpId>& ids);

 private:
  class Handler;
  void requested(const Url& from, const std::vector<OpId>& ids);
  void answer(const Url& to, const std::vector<MetaOp>& ops);
  void go_on(const Url& to, int left);
  void flap();
  std::vector<MetaOp> held(const std::vector<OpId>& ids, std::size_t one_in);
  std::size_t pick(std::size_t below) { return static_cast<std::size_t>(world_.random(below)); }

  testing::SimWorld& world_;
  SimNet& net_;
  const Dialect dialect_;
  const BadKind kind_;
  const std::vector<MetaOp>& ops_;
  SimNet::Host host_;
  std::unique_ptr<testing::SimRuntime> runtime_;
  std::shared_ptr<Transport> transport_;
};

}  // namespace kitsune2::sim
