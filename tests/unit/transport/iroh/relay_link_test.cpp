// A link to a relay that asks for authentication, or for a proof of the key, in virtual time.
#include "transport/iroh/relay_link.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
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
  void on_relay_gone(const EndpointId& /*id*/) override {}
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

/// One end of a TLS session that exports `number`, and what follows from the label and the key.
KeyExporter session(std::uint8_t number) {
  return [number](std::string_view label, ByteView context, std::span<std::uint8_t> out) {
    out[0] = number;
    for (std::size_t i = 1; i < out.size(); ++i)
      out[i] = static_cast<std::uint8_t>(label[i % label.size()] ^ context[i]);
    return true;
  };
}

/// A session whose library exports nothing.
bool nothing(std::string_view /*label*/, ByteView /*context*/, std::span<std::uint8_t> /*out*/) { return false; }

struct RelayLinkProof : ::testing::Test {
  void start(KeyExporter at_client, KeyExporter at_relay) {
    relay.options.client_session = std::move(at_client);
    relay.options.relay_session = std::move(at_relay);
    RelayLinkOptions options;
    options.server = "wss://relay:443";
    link.emplace(*runtime, relay.connector(*runtime), key, options, owner);
    link->start();
    world.run_for(std::chrono::milliseconds(500));
  }

  testing::SimWorld world;
  FakeIrohRelay relay{world, "wss://relay:443"};
  std::unique_ptr<testing::SimRuntime> runtime = world.make_runtime();
  EndpointKey key{tests::seed_of(1)};
  NoOwner owner;
  std::optional<RelayLink> link;
};

TEST_F(RelayLinkProof, OfTheSameSessionSavesTheChallenge) {
  start(session(1), session(1));
  EXPECT_TRUE(link->up());
  EXPECT_EQ(relay.challenges, 0U);
  EXPECT_EQ(relay.handshakes, 1U);
  EXPECT_EQ(relay.violations, 0U);
}

// As behind a proxy that ends TLS: the client of the reference answers the challenge, too.
TEST_F(RelayLinkProof, OfAnotherSessionIsFollowedByTheChallenge) {
  start(session(1), session(2));
  EXPECT_TRUE(link->up());
  EXPECT_EQ(relay.challenges, 1U);
  EXPECT_EQ(relay.handshakes, 1U);
  ASSERT_EQ(relay.headers.size(), 1U);
  EXPECT_NE(relay.headers[0], "");
}

TEST_F(RelayLinkProof, IsLeftOutWhereNothingIsExported) {
  start(nothing, nothing);
  EXPECT_TRUE(link->up());
  EXPECT_EQ(relay.challenges, 1U);
  EXPECT_EQ(relay.headers, std::vector<std::string>{""});
}

TEST_F(RelayLinkProof, IsMadeAnewForEachConnection) {
  start(session(1), session(1));
  world.run_for(minutes(1));
  relay.options.client_session = relay.options.relay_session = session(2);
  relay.cut();
  world.run_for(seconds(2));
  EXPECT_TRUE(link->up());
  EXPECT_EQ(relay.challenges, 0U);
  ASSERT_EQ(relay.headers.size(), 2U);
  EXPECT_NE(relay.headers[0], relay.headers[1]);
}

// What the connection before proved is no proof: a relay that knows nothing of this node's key is not believed.
TEST_F(RelayLinkProof, OfAnEarlierConnectionJustifiesNoConfirmation) {
  start(session(1), session(1));
  world.run_for(minutes(1));
  relay.options.trusting = true;
  relay.options.client_session = nothing;
  relay.cut();
  world.run_for(seconds(2));
  EXPECT_FALSE(link->up());
  ASSERT_TRUE(link->failure().has_value());
  EXPECT_EQ(link->failure()->error.code, Errc::peer_fault);
  relay.options.client_session = {};
  world.run_for(seconds(20));
  EXPECT_FALSE(link->up()) << "without TLS";
}

TEST_F(RelayLinkProof, IsNotMadeForAConnectionThatIsGivenUp) {
  struct Kept final : WsConnector {
    std::shared_ptr<WsConnection> connect(const std::string&, const WsOptions& o, WsHandlers) override {
      options.push_back(o);
      struct Silent final : WsConnection {
        bool send(Bytes) override { return false; }
        std::size_t queued_bytes() const override { return 0; }
        void close() override {}
      };
      return std::make_shared<Silent>();
    }
    std::vector<WsOptions> options;
  };
  const auto connector = std::make_shared<Kept>();
  RelayLinkOptions options;
  options.server = "wss://relay:443";
  link.emplace(*runtime, connector, key, options, owner);
  link->start();
  ASSERT_EQ(connector->options.size(), 1U);
  const auto& headers = connector->options[0].tls_headers;
  EXPECT_NE(headers(session(1)), "");
  link->stop([] {});
  EXPECT_EQ(headers(session(1)), "");
  world.run_for(seconds(5));
  link.reset();
  EXPECT_EQ(headers(session(1)), "");
}

}  // namespace
}  // namespace kitsune2::iroh
