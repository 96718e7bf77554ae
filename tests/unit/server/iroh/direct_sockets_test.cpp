// Two nodes on loopback with real sockets and a real relay: their transfer leaves the relay, and comes back to it.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/relay_server.hpp"
#include "kitsune2/transport_iroh.hpp"
#include "net/udp_socket.hpp"
#include "net/ws_connector.hpp"
#include "transport/iroh/direct_packets.hpp"

namespace kitsune2 {
namespace {

using namespace std::chrono_literals;

/// Real sockets behind a wall that a test raises, and that a test closes.
class WalledBinder final : public UdpBinder {
 public:
  explicit WalledBinder(std::shared_ptr<UdpBinder> real) : real_(std::move(real)) {}

  Result<std::shared_ptr<UdpSocket>> bind(const UdpAddress& address, UdpHandlers handlers) override {
    auto on_datagrams = std::move(handlers.on_datagrams);
    handlers.on_datagrams = [this, on_datagrams](const UdpAddress& from, ByteView content, std::size_t bytes) {
      if (!wall && bytes <= largest) on_datagrams(from, content, bytes);
    };
    auto on_unreachable = std::move(handlers.on_unreachable);
    handlers.on_unreachable = [this, on_unreachable](const UdpAddress& to) {
      ++unreachable;
      on_unreachable(to);
    };
    auto socket = real_->bind(address, std::move(handlers));
    if (!socket) return socket.error();
    socket_ = *socket;
    return std::shared_ptr<UdpSocket>(std::make_shared<Walled>(*this));
  }
  void close_real() { std::exchange(socket_, nullptr)->close(); }

  std::atomic<bool> wall = false;
  std::atomic<std::size_t> largest = 65'535;  ///< datagram that comes through
  std::atomic<int> unreachable = 0;

 private:
  class Walled final : public UdpSocket {
   public:
    explicit Walled(WalledBinder& owner) : owner_(owner) {}
    bool send(const UdpAddress& to, ByteView content, std::size_t segment_bytes) override {
      return owner_.wall || !owner_.socket_ || owner_.socket_->send(to, content, segment_bytes);
    }
    std::vector<UdpAddress> addresses() const override {
      return owner_.socket_ ? owner_.socket_->addresses() : std::vector<UdpAddress>{};
    }
    void let_in_only(const DatagramFilter& filter) override { owner_.socket_->let_in_only(filter); }
    void close() override {
      if (owner_.socket_) owner_.close_real();
    }

   private:
    WalledBinder& owner_;
  };

  const std::shared_ptr<UdpBinder> real_;
  std::shared_ptr<UdpSocket> socket_;
};

/// A transport on a thread of its own. Messages are numbers with padding.
class RealNode final : public TransportEvents {
 public:
  RealNode(const std::string& relay, std::uint8_t number) {
    runtime_.start();
    runtime_.call([&] {
      binder = std::make_shared<WalledBinder>(make_udp_binder(runtime_));
      IrohTransportConfig config;
      config.relay_url = relay + "/relay";
      config.relay_allow_plain_text = true;
      std::array<std::uint8_t, 32> seed{};
      seed.fill(number);
      NetworkConfig network;
      network.dialect = Dialect::v0_5;
      transport_ =
          make_iroh_transport(runtime_, make_ws_connector(runtime_), config, seed, network, nullptr, binder).value();
      transport_->start(*this);
    });
  }
  ~RealNode() override {
    std::atomic<bool> stopped = false;
    runtime_.call([&] { transport_->stop([&] { stopped = true; }); });
    EXPECT_TRUE(until([&] { return stopped.load(); }));
    runtime_.call([&] { transport_.reset(); });
    runtime_.stop();
  }
  RealNode(const RealNode&) = delete;
  RealNode& operator=(const RealNode&) = delete;

  // --- events, on the strand
  void new_listening_address(const Url& /*own_url*/) override {}
  void listening_address_lost() override {}
  Result<Bytes> peer_connect(const Url& /*peer*/) override { return Bytes::copy_of("\x08\x01"); }
  Result<void> recv_data(const Url& /*peer*/, Bytes message) override {
    if (message.view()[0] != 8) {  // not a preflight
      const std::lock_guard lock(mutex_);
      heard_.push_back(message.str());
    }
    return {};
  }
  void recv_progress(const Url& /*peer*/, std::size_t /*bytes*/) override {}
  void peer_disconnect(const Url& /*peer*/, const std::optional<std::string>& /*reason*/) override { ++disconnects; }
  bool shares_space(const Url& /*peer*/) override { return true; }

  // --- for the test
  static bool until(const std::function<bool()>& done, std::chrono::seconds most = 120s) {
    const auto limit = std::chrono::steady_clock::now() + most;
    while (!done()) {
      if (std::chrono::steady_clock::now() > limit) return false;
      std::this_thread::sleep_for(5ms);
    }
    return true;
  }
  std::optional<Url> url() {
    std::optional<Url> out;
    runtime_.call([&] { out = transport_->url(); });
    return out;
  }
  bool is_direct() {
    bool out = false;
    runtime_.call([&] {
      for (const auto& connection : transport_->stats().connections) out = out || connection.is_direct;
    });
    return out;
  }
  void send(const Url& to, const std::string& text) {
    runtime_.post([this, to, text] {
      transport_->send(to, ByteChain(Bytes::copy_of(text)), [this](Result<void> sent) { failures += sent ? 0 : 1; });
    });
  }
  void close_socket() {
    runtime_.call([&] { binder->close_real(); });
  }
  std::vector<std::string> heard() {
    const std::lock_guard lock(mutex_);
    return heard_;
  }
  std::size_t heard_count() {
    const std::lock_guard lock(mutex_);
    return heard_.size();
  }

  std::shared_ptr<WalledBinder> binder;
  std::atomic<int> disconnects = 0, failures = 0;

 private:
  std::mutex mutex_;
  std::vector<std::string> heard_;
  AsioRuntime runtime_;
  std::unique_ptr<TransportBackend> transport_;
};

/// Two nodes of a relay, and what one has sent to the other.
class DirectSockets : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(RealNode::until([&] { return a.url() && b.url(); }));
    to_a_ = a.url();
    to_b_ = b.url();
  }
  /// So many messages arrive.
  bool transfer(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      sent.push_back(std::to_string(sent.size()) + std::string(200'000, 'x'));
      a.send(*to_b_, sent.back());
    }
    return RealNode::until([&] { return b.heard_count() == sent.size(); });
  }
  std::uint64_t relayed() const { return server->stats().iroh.bytes_received; }
  /// Each has heard of the other one's address.
  bool meet() {
    if (!transfer(1)) return false;
    b.send(*to_a_, "hello");
    return RealNode::until([&] { return a.is_direct() && b.is_direct(); });
  }
  /// 2 MB go another way. A busy machine may answer late, and then the relay helps out.
  bool leaves_the_relay() {
    return RealNode::until([&] {
      const std::uint64_t before = relayed();
      return transfer(10) && relayed() - before < 100'000U;
    });
  }
  void expect_that_all_went_well() {
    EXPECT_TRUE(b.heard() == sent) << "each once, and in order";
    EXPECT_EQ(a.disconnects + b.disconnects + a.failures + b.failures, 0);
  }

  const std::unique_ptr<RelayServer> server = RelayServer::start({}).value();
  RealNode a{"http://" + server->address(), 1}, b{"http://" + server->address(), 2};
  std::optional<Url> to_a_, to_b_;
  std::vector<std::string> sent;
};

TEST_F(DirectSockets, ATransferLeavesTheRelayAndComesBackWhenTheSocketDoes) {
  ASSERT_TRUE(meet());
  EXPECT_TRUE(leaves_the_relay());

  // Nothing passes any more, and nobody says so. The longer this lasts, the longer the addresses rest: little is sent.
  a.binder->wall = true;
  const std::uint64_t before = relayed();
  ASSERT_TRUE(transfer(10));
  EXPECT_GT(relayed() - before, 1'800'000U);
  EXPECT_TRUE(RealNode::until([&] { return !a.is_direct() && !b.is_direct(); }));

  a.binder->wall = false;
  // They may rest by now, for up to 10 min.
  ASSERT_TRUE(RealNode::until([&] { return a.is_direct() && b.is_direct(); }, 15min));
  EXPECT_TRUE(leaves_the_relay());

  // The system says that nobody listens there.
  b.close_socket();
  ASSERT_TRUE(transfer(10));
  ASSERT_TRUE(RealNode::until([&] { return !a.is_direct(); }));
  EXPECT_TRUE(RealNode::until([&] { return a.binder->unreachable > 0; }));
  expect_that_all_went_well();
}

TEST_F(DirectSockets, ALineThatCarriesNoLargeDatagramsIsUsedAndOneThatGetsSmallerToo) {
  a.binder->largest = b.binder->largest = 1392;
  ASSERT_TRUE(meet());
  EXPECT_TRUE(leaves_the_relay());
  a.binder->largest = b.binder->largest = 1252;
  EXPECT_TRUE(leaves_the_relay());
  expect_that_all_went_well();
}

TEST(UdpSocket, SeveralDatagramsGoInOneCallAndArriveAsTheyWere) {
  AsioRuntime runtime;
  runtime.start();
  std::mutex mutex;
  std::vector<std::string> got;
  std::shared_ptr<UdpSocket> from, to;
  UdpAddress target;
  runtime.call([&] {
    const auto binder = make_udp_binder(runtime);
    to = binder
             ->bind(UdpAddress::v4(127, 0, 0, 1, 0),
                    {.on_datagrams =
                         [&](const UdpAddress&, ByteView content, std::size_t segment) {
                           const std::lock_guard lock(mutex);
                           for (std::size_t at = 0; at < content.size(); at += segment)
                             got.push_back(
                                 Bytes::copy_of(content.subspan(at, std::min(segment, content.size() - at))).str());
                         },
                     .on_unreachable = nullptr,
                     .on_writable = nullptr})
             .value();
    from = binder->bind(UdpAddress{}, {}).value();
    ASSERT_EQ(to->addresses().size(), 1U);
    target = to->addresses()[0];
    EXPECT_FALSE(from->addresses().empty()) << "all of this machine";
    EXPECT_EQ(binder->bind(target, {}).error().code, Errc::already_exists);
  });
  ASSERT_NE(target.port, 0);
  std::string content;
  for (int i = 0; i < 10; ++i) content += std::string(1452, static_cast<char>('a' + i));
  content.resize(content.size() - 52);
  runtime.call([&] { EXPECT_TRUE(from->send(target, as_bytes(content), 1452)); });
  EXPECT_TRUE(RealNode::until([&] {
    const std::lock_guard lock(mutex);
    return got.size() == 10;
  }));
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_EQ(got[i], std::string(i == 9 ? 1400 : 1452, static_cast<char>('a' + i)));
  runtime.call([&] {
    from->close();
    to->close();
    from.reset();
    to.reset();
  });
  runtime.stop();
}

/// A handler may close its socket, and then still has what it was made with.
TEST(UdpSocket, MayBeClosedByTheHandlerThatHearsThatNobodyListens) {
  AsioRuntime runtime;
  runtime.start();
  std::shared_ptr<UdpSocket> from;
  std::weak_ptr<int> kept;
  UdpAddress target;
  std::atomic<bool> was_told = false, was_kept = false;
  runtime.call([&] {
    const auto binder = make_udp_binder(runtime);
    const auto to = binder->bind(UdpAddress::v4(127, 0, 0, 1, 0), {}).value();
    target = to->addresses().at(0);
    to->close();
    auto held = std::make_shared<int>(1);
    kept = held;
    UdpHandlers handlers;
    handlers.on_unreachable = [&from, &kept, &was_told, &was_kept, held](const UdpAddress&) {
      from->close();
      was_kept = !kept.expired();
      was_told = true;
    };
    held.reset();
    from = binder->bind(UdpAddress::v4(127, 0, 0, 1, 0), std::move(handlers)).value();
  });
  EXPECT_TRUE(RealNode::until([&] {
    runtime.call([&] {
      if (!was_told) from->send(target, as_bytes("x"), 1);
    });
    return was_told.load();
  }));
  EXPECT_TRUE(was_kept);
  runtime.call([&] { from.reset(); });
  runtime.stop();
}

/// The system drops what the filter does not let in, and gives room to the rest.
void expect_that_the_system_filters(const UdpAddress& where) {
  constexpr std::uint32_t kWanted = 80;
  AsioRuntime runtime;
  runtime.start();
  std::atomic<std::uint32_t> got = 0, junk = 0;
  std::shared_ptr<UdpSocket> from, to;
  std::optional<DatagramFilter> filter;
  runtime.call([&] {
    filter.emplace(iroh::direct_shapes(), [&](std::span<std::uint8_t> out) { runtime.random_bytes(out); });
    const auto binder = make_udp_binder(runtime);
    UdpHandlers handlers;
    handlers.on_datagrams = [&](const UdpAddress&, ByteView content, std::size_t segment) {
      for (std::size_t at = 0; at < content.size(); at += segment)
        (filter->lets_in(content.subspan(at, std::min(segment, content.size() - at))) ? got : junk) += 1;
    };
    auto bound = binder->bind(where, std::move(handlers));
    if (!bound) return;  // no IPv6 here
    to = *bound;
    to->let_in_only(*filter);
    from = binder->bind(where, {}).value();
    // The socket is read only when all is sent: there is no room for so much junk.
    std::vector<std::uint8_t> datagram(1400);
    const UdpAddress target = to->addresses().at(0);
    for (std::uint32_t i = 0; i < kWanted * 250; ++i) {
      runtime.random_bytes(std::span(datagram).first(40));
      EXPECT_TRUE(from->send(target, datagram, datagram.size()));
      if (i % 250 != 0) continue;
      datagram[0] &= 0x7fU;
      filter->mark(std::span(datagram).subspan<1, DatagramFilter::kNameBytes>());
      EXPECT_TRUE(from->send(target, datagram, datagram.size()));
    }
  });
  if (to) {
    EXPECT_TRUE(RealNode::until([&] { return got >= kWanted; }));
    EXPECT_LT(junk, 20U);  // one in 65,536
    runtime.call([&] {
      from->close();
      to->close();
      from.reset();
      to.reset();
    });
  }
  runtime.stop();
}

TEST(UdpSocket, WhatTheFilterDoesNotLetInTakesNoRoomAndTheRestArrives) {
  expect_that_the_system_filters(UdpAddress::v4(127, 0, 0, 1, 0));
  expect_that_the_system_filters(*UdpAddress::parse("[::1]:0"));
}

/// What the system does not take in one call goes in several.
TEST(UdpSocket, MoreDatagramsThanTheSystemTakesInOneCallArriveToo) {
  AsioRuntime runtime;
  runtime.start();
  std::atomic<std::size_t> got = 0;
  std::shared_ptr<UdpSocket> from, to;
  runtime.call([&] {
    const auto binder = make_udp_binder(runtime);
    UdpHandlers handlers;
    handlers.on_datagrams = [&](const UdpAddress&, ByteView content, std::size_t) { got += content.size(); };
    to = binder->bind(UdpAddress::v4(127, 0, 0, 1, 0), std::move(handlers)).value();
    from = binder->bind(UdpAddress::v4(127, 0, 0, 1, 0), {}).value();
    EXPECT_TRUE(from->send(to->addresses().at(0), as_bytes(std::string(200, 'x')), 1));
    EXPECT_TRUE(from->send(to->addresses().at(0), as_bytes(std::string(10, 'x')), 1));
  });
  EXPECT_TRUE(RealNode::until([&] { return got == 210; }));
  runtime.call([&] {
    from->close();
    to->close();
    from.reset();
    to.reset();
  });
  runtime.stop();
}

}  // namespace
}  // namespace kitsune2
