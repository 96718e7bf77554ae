// What a node that serves says of itself: where it can be reached, and how much it has served.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "node_setup.hpp"

namespace kitsune2::cli {

/// The state of the served spaces as others see it; prints changes.
class ServingDisplay {
 public:
  ServingDisplay(RunningNode& node, Output& out) : node_(node), out_(out), spaces_(node.spaces()) {}

  void look();

 private:
  using Clock = std::chrono::steady_clock;
  void say_where(const std::string& url, const std::optional<TransportFailure>& failure);
  void say_listed(const std::string& refused);

  RunningNode& node_;
  Output& out_;
  const std::vector<std::shared_ptr<Space>> spaces_;
  const Clock::time_point since_ = Clock::now();
  std::string url_, said_offline_, said_refused_;
  std::uint64_t served_ = 0;
};

}  // namespace kitsune2::cli
