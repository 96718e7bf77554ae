// A link to a relay that asks for authentication, in virtual time.
#include "transport/iroh/relay_link.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "unit/transport/iroh/iroh_peers.hpp"

namespace kitsune2::iroh {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using tests::FakeIrohRelay;

struct NoOwner final : RelayLinkOwner {
  void on_relay_up() override {}
  void on_relay_down() override {}
  void on_relay_datagrams(const Datagrams& /*datagrams*/) override {}
  void on_relay_address(const PeerAddress& /*address*/) override {}
  void on_relay_writable() override {}
};

struct RelayLinkAccess : ::testing::Test {
  void start() {
    RelayLinkOptions options;
    options.server = "ws://relay:80";
    options.access = [this](const EndpointId& endpoint, bool refused, Handler<std::string> done) {
      EXPECT_EQ(endpoint, key.id());
      asked.push_back(refused);
      runtime->post([this, done = std::move(done)] {
        token ? done(*token) : done(make_error(Errc::blocked, "the server refuses the authentication material"));
      });
    };
    link.emplace(*runtime, relay.connector(*runtime), key, options, owner);
    link->start();
  }

  testing::SimWorld world;
  FakeIrohRelay relay{world};
  std::unique_ptr<testing::SimRuntime> runtime = world.make_runtime();
  EndpointKey key{tests::seed_of(1)};
  NoOwner owner;
  std::optional<std::string> token = "first";
  std::vector<bool> asked;
  std::optional<RelayLink> link;
};

TEST_F(RelayLinkAccess, TheTokenIsAskedForAndPresented) {
  relay.options.token = "first";
  start();
  world.run_for(seconds(1));
  EXPECT_TRUE(link->up());
  EXPECT_EQ(relay.tokens, std::vector<std::string>{"first"});
  EXPECT_EQ(asked, std::vector<bool>{false});
}

TEST_F(RelayLinkAccess, ATokenThatTheRelayRefusesIsGivenUpForAnother) {
  relay.options.token = "second";
  start();
  world.run_for(std::chrono::milliseconds(100));
  EXPECT_FALSE(link->up());
  ASSERT_TRUE(link->failure().has_value());
  EXPECT_EQ(link->failure()->error.code, Errc::blocked);
  token = "second";
  world.run_for(seconds(2));
  EXPECT_TRUE(link->up());
  EXPECT_EQ(asked, (std::vector<bool>{false, true}));
  relay.cut();
  world.run_for(seconds(2));
  EXPECT_TRUE(link->up());
  EXPECT_FALSE(asked.back()) << "a lost connection is no refusal";
}

TEST_F(RelayLinkAccess, WithoutTheRightTheRelayIsNotAskedAndTheReasonIsKept) {
  token.reset();
  start();
  world.run_for(minutes(1));
  EXPECT_TRUE(relay.tokens.empty());
  EXPECT_GT(asked.size(), 3U);
  EXPECT_LT(asked.size(), 30U) << "with pauses";
  EXPECT_EQ(link->failure()->error.message, "the server refuses the authentication material");
  token = "late";
  world.run_for(seconds(10));
  EXPECT_TRUE(link->up());
}

TEST_F(RelayLinkAccess, AnAnswerAfterTheEndOfTheLinkDoesNothing) {
  start();
  bool stopped = false;
  link->stop([&] { stopped = true; });
  world.run_for(seconds(5));
  EXPECT_TRUE(stopped);
  EXPECT_TRUE(relay.tokens.empty());
}

}  // namespace
}  // namespace kitsune2::iroh
