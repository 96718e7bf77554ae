// The relay and bootstrap server of a history, on a host that goes down and comes up again.
#pragma once

#include <memory>

#include "server/relay_service.hpp"
#include "sim/sim_net.hpp"

namespace kitsune2::sim {

class SimRelay {
 public:
  /// Down until `start`. `options` may be changed before that.
  SimRelay(testing::SimWorld& world, SimNet& net) : world_(world), net_(net), host_(net.add_host("relay")) {}
  ~SimRelay() {
    if (up()) crash(false);
  }
  SimRelay(const SimRelay&) = delete;
  SimRelay& operator=(const SimRelay&) = delete;

  SimNet::Host host() const { return host_; }
  bool up() const { return service_ != nullptr; }
  /// Whether it is down and its time of being down is over.
  bool due() const { return !up() && world_.now() >= up_again_; }

  void start() {
    runtime_ = world_.make_runtime();
    net_.up(host_, *runtime_);
    service_ = std::make_unique<server::RelayService>(*runtime_, options);
    net_.listen(host_, [this](const std::shared_ptr<net::Conn>& conn) { return service_->accept(conn); });
  }
  /// `reset`: its connections learn of it.
  void crash(bool reset) {
    runtime_->crash();
    net_.down(host_, reset);
    service_.reset();
    runtime_.reset();
  }
  void stay_down(Duration time) { up_again_ = world_.now() + time; }
  /// How often a sender was held back for a slow receiver, since `start`.
  std::uint64_t sender_waits() const { return service_ ? service_->relay_counters().sender_waits.get() : 0; }
  void check_invariants() const {
    if (service_) service_->check_invariants();
  }

  RelayServerOptions options;

 private:
  testing::SimWorld& world_;
  SimNet& net_;
  const SimNet::Host host_;
  std::unique_ptr<testing::SimRuntime> runtime_;
  std::unique_ptr<server::RelayService> service_;
  Time up_again_{};
};

}  // namespace kitsune2::sim
