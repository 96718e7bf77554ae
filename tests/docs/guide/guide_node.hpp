// A node in virtual time, as the tests of docs/guide.md use it.
#pragma once

#include <gtest/gtest.h>

#include <kitsune2/kitsune2.hpp>
#include <kitsune2/testing/builders.hpp>
#include <kitsune2/testing/sim_runtime.hpp>
#include <kitsune2/testing/waiters.hpp>
#include <memory>
#include <string>
#include <utility>

namespace guide {

using namespace kitsune2;           // NOLINT(google-build-using-namespace)
using namespace kitsune2::testing;  // NOLINT(google-build-using-namespace)
using namespace std::chrono_literals;

// guide: node
/// Accepts every space and handles nothing itself.
struct AnySpace : KitsuneHandler {
  Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId&) override {
    return std::make_shared<SpaceHandler>();
  }
};

/// One node of a simulated network, with one space.
struct SimNode {
  SimNode(SimWorld& world, const Builder& builder,
          std::shared_ptr<KitsuneHandler> handler = std::make_shared<AnySpace>())
      : runtime(world.make_runtime()), kitsune(builder.build(*runtime).value()) {
    kitsune->register_handler(std::move(handler)).value();
    const SpaceId id = SpaceId::from_text("guide");
    space = await<std::shared_ptr<Space>>(world, [&](auto done) { kitsune->space(id, done); }).value();
  }

  std::unique_ptr<SimRuntime> runtime;
  std::shared_ptr<Kitsune> kitsune;
  std::shared_ptr<Space> space;
};

inline std::uint64_t ops_held(SimWorld& world, const SimNode& node) {
  return await<OpStoreStats>(world, [&](auto done) { node.space->op_store().stats(done); })->ops;
}
// guide: end

}  // namespace guide
