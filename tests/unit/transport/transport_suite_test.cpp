// The transport suite over the shipped transports.
#include "kitsune2/testing/transport_suite.hpp"

#include "kitsune2/transport_iroh.hpp"
#include "kitsune2/transport_memory.hpp"
#include "unit/transport/iroh/fake_iroh_relay.hpp"
#include "unit/transport/tx5/fake_relay.hpp"

namespace kitsune2::testing {
namespace {

class MemorySuite final : public TransportSuiteNetwork {
 public:
  std::unique_ptr<TransportBackend> make_backend(SimRuntime& runtime) override {
    return network_->make_backend(runtime);
  }
  Url nobody() override { return MemoryNetwork::url_of("nobody"); }
  std::uint64_t max_queue_bytes() override { return options().max_queue_bytes; }

 private:
  static MemoryNetworkOptions options() {
    MemoryNetworkOptions out;
    out.link.latency = std::chrono::milliseconds(5);
    out.link.bytes_per_second = 10'000'000;  // otherwise nothing would ever wait
    out.max_message_bytes = 2U << 20;
    out.max_queue_bytes = 4U << 20;
    return out;
  }
  std::shared_ptr<MemoryNetwork> network_ = MemoryNetwork::create(options());
};

class Tx5Suite final : public TransportSuiteNetwork {
 public:
  explicit Tx5Suite(SimWorld& world) : relay_(world, "ws://relay:80") {}

  std::unique_ptr<TransportBackend> make_backend(SimRuntime& runtime) override {
    Tx5TransportConfig config = tests::plain_config();
    config.server_url = relay_.url();
    config.message_size_max = 2U << 20;
    config.max_queue_bytes_per_peer = 4U << 20;
    auto connector = std::make_shared<tests::FakeConnector>(
        runtime, std::map<std::string, tests::FakeRelay*>{{relay_.url(), &relay_}});
    return make_tx5_transport(runtime, std::move(connector), config).value();
  }
  Url nobody() override { return Url::parse(relay_.url() + "/iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w").value(); }
  std::uint64_t max_queue_bytes() override { return 4U << 20; }

 private:
  tests::FakeRelay relay_;
};

#ifndef K2_WITHOUT_QUIC
class IrohSuite final : public TransportSuiteNetwork {
 public:
  IrohSuite(SimWorld& world, Dialect dialect) : relay_(world), dialect_(dialect) {
    if (!offers_relay_v2(dialect)) relay_.options.protocol = "iroh-relay-v1";
  }

  std::unique_ptr<TransportBackend> make_backend(SimRuntime& runtime) override {
    IrohTransportConfig config;
    config.relay_url = "http://relay:80/relay";
    config.relay_allow_plain_text = true;
    config.max_frame_bytes = 2U << 20;
    config.max_queue_bytes_per_peer = 4U << 20;
    std::array<std::uint8_t, 32> seed{};
    runtime.random_bytes(seed);
    NetworkConfig network;
    network.dialect = dialect_;
    return make_iroh_transport(runtime, relay_.connector(runtime), config, seed, network).value();
  }
  Url nobody() override {
    return Url::parse("http://relay:80/relay/8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
                      url_form(Dialect::v0_5))
        .value();
  }
  std::uint64_t max_queue_bytes() override { return 4U << 20; }
  bool carries_farewell() override { return false; }

 private:
  tests::FakeIrohRelay relay_;
  const Dialect dialect_;
};
INSTANTIATE_TEST_SUITE_P(
    Iroh, TransportSuite,
    ::testing::Values(
        TransportKind{.name = "iroh",
                      .make = [](SimWorld& world) { return std::make_unique<IrohSuite>(world, Dialect::v0_5); }},
        TransportKind{.name = "iroh_of_0_4",
                      .make = [](SimWorld& world) { return std::make_unique<IrohSuite>(world, Dialect::v0_4); }}),
    transport_kind_name);
#endif

INSTANTIATE_TEST_SUITE_P(
    All, TransportSuite,
    ::testing::Values(
        TransportKind{.name = "memory", .make = [](SimWorld&) { return std::make_unique<MemorySuite>(); }},
        TransportKind{.name = "tx5", .make = [](SimWorld& world) { return std::make_unique<Tx5Suite>(world); }}),
    transport_kind_name);

}  // namespace
}  // namespace kitsune2::testing
