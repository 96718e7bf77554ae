// The shell of the relay of dialect 0.5, with clients that are fakes.
#include "server/iroh/relay_driver.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "kitsune2/testing/sim_runtime.hpp"
#include "transport/iroh/endpoint_key.hpp"
#include "transport/iroh/tls_proof.hpp"

namespace kitsune2::server {
namespace {

using iroh::Datagrams;
using iroh::EndpointKey;
using iroh::RelayFrame;
using iroh::RelayVersion;
using iroh::Sender;
using std::chrono::milliseconds;
using std::chrono::seconds;

struct Request final : HttpServerRequest {
  explicit Request(const net::IpAddress& address) : HttpServerRequest("GET", "/relay", {}, address) {}
  std::string_view header(std::string_view name) const override {
    return name == iroh::kTlsProofHeader ? std::string_view(proof) : std::string_view();
  }
  std::vector<std::string> headers(std::string_view /*name*/) const override { return {"iroh-relay-v2"}; }
  bool export_key(std::string_view /*label*/, ByteView /*context*/, std::span<std::uint8_t> out) const override {
    std::fill(out.begin(), out.end(), session);
    return true;
  }
  std::string proof;
  std::uint8_t session = 1;  ///< what its TLS exports
};

/// A client whose socket takes nothing until `take`.
struct FakePeer final : WsPeer {
  std::uint64_t number = 0;
  std::string address = "10.0.0.1:1";
  std::shared_ptr<WsPeerEvents> events;
  std::vector<std::vector<std::uint8_t>> sent;
  std::size_t bytes = 0;
  std::string ended;
  bool blamed = false;     ///< before its end
  bool takes_now = false;  ///< what is sent at once

  std::uint64_t id() const override { return number; }
  const std::string& remote() const override { return address; }
  void send(ByteView message) override { std::copy(message.begin(), message.end(), send_space(message.size())); }
  std::uint8_t* send_space(std::size_t size) override {
    bytes += size;
    return sent.emplace_back(size).data();
  }
  void send_now() override {
    if (takes_now) bytes = 0;
  }
  void forward_now(ByteView head, net::WsPayload& message, std::size_t skip) override {
    message.unmask();
    std::uint8_t* rest = std::copy(head.begin(), head.end(), send_space(head.size() + message.size - skip));
    std::copy(message.data + skip, message.data + message.size, rest);
    send_now();
  }
  std::size_t queued() const override { return bytes; }
  void resume() override {}
  void close(std::uint16_t /*code*/, std::string_view reason) override { ended = reason; }
  void abort(std::string_view reason) override { ended = reason; }
  void blame() override { blamed = ended.empty(); }

  void take() {
    bytes = 0;
    events->on_ws_sent(0);
  }
  void say(const RelayFrame& frame) {
    const Bytes message = encode_relay_frame(Sender::client, frame);
    std::vector<std::uint8_t> copy(message.begin(), message.end());
    net::WsPayload payload;
    payload.data = copy.data();
    payload.size = copy.size();
    payload.key = 0x01020304;
    net::ws_mask(copy.data(), copy.data(), copy.size(), payload.key);
    static_cast<void>(events->on_ws_message(payload));
  }
};

TEST(IrohRelayDriver, AReceiverThatTakesNothingIsClosedEvenIfNothingElseHappens) {
  testing::SimWorld world;
  const auto made = world.make_runtime();
  testing::SimRuntime& runtime = *made;
  RelayServerOptions options;
  options.slow_receiver_millis = 2'000;
  RelayLog log(runtime);
  IrohRelay relay(runtime, options, log, [](const IrohRelay::Id&, IrohRelay::Right) { return true; });
  const auto ip = net::IpAddress::parse("10.0.0.1");
  ASSERT_TRUE(ip.has_value());
  const Request request(*ip);
  FakePeer a, deaf;
  std::uint64_t number = 0;
  std::vector<std::unique_ptr<EndpointKey>> keys;
  for (FakePeer* peer : {&a, &deaf}) {
    peer->number = ++number;
    EndpointKey::Seed seed{};
    seed[0] = static_cast<std::uint8_t>(number);
    keys.push_back(std::make_unique<EndpointKey>(seed));
    HttpReply refusal;
    peer->events = relay.open(request, *peer, *ip, IrohRelay::Right::granted, refusal);
    ASSERT_NE(peer->events, nullptr);
    const auto challenge = decode_relay_frame(RelayVersion::v2, Sender::relay, Bytes(peer->sent.at(0)));
    ASSERT_TRUE(challenge.has_value());
    const auto to_sign = iroh::to_be_signed(std::get<iroh::ServerChallenge>(*challenge));
    peer->say(iroh::ClientAuth{keys.back()->id(), keys.back()->sign(to_sign)});
    peer->take();
  }
  // The checks that the handshakes began find empty sockets, and end.
  world.run_for(seconds(4));
  const std::size_t before = deaf.sent.size();
  a.say(Datagrams{keys[1]->id(), 0, 0, Bytes(std::vector<std::uint8_t>(1000, 7))});
  ASSERT_EQ(deaf.sent.size(), before + 1);
  world.run_for(milliseconds(1'900));
  EXPECT_EQ(deaf.ended, "");
  world.run_for(milliseconds(200));
  EXPECT_EQ(deaf.ended, "slow_receiver");
  EXPECT_TRUE(deaf.blamed);
  EXPECT_EQ(a.ended, "");
  EXPECT_FALSE(a.blamed);
  relay.forget_all();
}

TEST(IrohRelayDriver, LargeFramesOfOneReadAreSentAtOnceAndNotKept) {
  testing::SimWorld world;
  const auto runtime = world.make_runtime();
  const RelayServerOptions options;
  RelayLog log(*runtime);
  IrohRelay relay(*runtime, options, log, [](const IrohRelay::Id&, IrohRelay::Right) { return true; });
  const auto ip = net::IpAddress::parse("10.0.0.1");
  FakePeer from, to;
  std::vector<std::unique_ptr<EndpointKey>> keys;
  for (FakePeer* peer : {&from, &to}) {
    peer->number = keys.size() + 1;
    EndpointKey::Seed seed{};
    seed[0] = static_cast<std::uint8_t>(peer->number);
    keys.push_back(std::make_unique<EndpointKey>(seed));
    Request request(*ip);
    request.proof = iroh::make_tls_proof(*keys.back(), [&](auto label, auto context, auto out) {
                      return request.export_key(label, context, out);
                    }).value();
    HttpReply refusal;
    peer->events = relay.open(request, *peer, *ip, IrohRelay::Right::granted, refusal);
    ASSERT_NE(peer->events, nullptr);
    peer->take();
  }
  const auto send_many = [&] {
    to.sent.clear();
    for (int i = 0; i < 10; ++i)
      from.say(Datagrams{keys[1]->id(), 0, 1200, Bytes(std::vector<std::uint8_t>(65'500, 7))});
    relay.check_invariants();
    return to.sent.size();
  };
  to.takes_now = true;
  EXPECT_EQ(send_many(), 10U);
  EXPECT_EQ(relay.counters().queued_bytes.get(), 0U);
  const auto arrived = decode_relay_frame(RelayVersion::v2, Sender::relay, Bytes(to.sent.back()));
  ASSERT_TRUE(arrived);
  const auto* datagrams = std::get_if<Datagrams>(&*arrived);
  ASSERT_NE(datagrams, nullptr);
  EXPECT_EQ(datagrams->peer, keys[0]->id());
  EXPECT_EQ(datagrams->content, Bytes(std::vector<std::uint8_t>(65'500, 7)));
  to.takes_now = false;
  EXPECT_EQ(send_many(), 1U) << "what its socket does not take is kept";
  EXPECT_GT(relay.counters().queued_bytes.get(), 650'000U);
  relay.forget_all();
}

TEST(IrohRelayDriver, AProofForTlsSavesTheChallenge) {
  testing::SimWorld world;
  const auto runtime = world.make_runtime();
  const RelayServerOptions options;
  RelayLog log(*runtime);
  IrohRelay relay(*runtime, options, log, [](const IrohRelay::Id&, IrohRelay::Right) { return false; });
  const auto ip = net::IpAddress::parse("10.0.0.1");
  const EndpointKey key(EndpointKey::Seed{});
  Request request(*ip);
  request.proof = iroh::make_tls_proof(key, [&](auto label, auto context, auto out) {
                    return request.export_key(label, context, out);
                  }).value();
  std::uint64_t number = 0;
  const auto first_frames = [&](IrohRelay::Right right, std::string* ended = nullptr) {
    FakePeer peer;
    peer.number = ++number;
    HttpReply refusal;
    peer.events = relay.open(request, peer, *ip, right, refusal);
    std::string out;
    for (const auto& frame : peer.sent) out += to_hex(frame).substr(0, 2);
    if (ended != nullptr) *ended = peer.ended;
    if (peer.events) peer.events->on_ws_closed("the test ends it");
    relay.check_invariants();
    return out;
  };
  EXPECT_EQ(first_frames(IrohRelay::Right::granted), "02");
  EXPECT_EQ(relay.counters().accepts.get(), 1U);
  std::string ended;
  EXPECT_EQ(first_frames(IrohRelay::Right::none, &ended), "03");
  EXPECT_EQ(ended, "not_authorized");
  EXPECT_EQ(first_frames(IrohRelay::Right::if_listed), "03");
  EXPECT_EQ(first_frames(IrohRelay::Right::if_registered), "03");
  // As behind a proxy that ends TLS.
  request.session = 2;
  EXPECT_EQ(first_frames(IrohRelay::Right::granted), "00");
  EXPECT_EQ(relay.counters().accepts.get(), 1U);
}

}  // namespace
}  // namespace kitsune2::server
