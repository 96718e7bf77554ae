// The tests of TransportBackend's contract, for any implementation of it. Needs GoogleTest.
//
// Include it in one source file of a test program that links kitsune2::testing, derive a TransportSuiteNetwork that
// makes nodes of your transport, and say there which transport to test:
//
//     #include <kitsune2/testing/transport_suite.hpp>
//     namespace kitsune2::testing {
//     INSTANTIATE_TEST_SUITE_P(Mine, TransportSuite, ::testing::Values(TransportKind{
//         .name = "mine", .make = [](SimWorld&) { return std::make_unique<MyNetwork>(); }}), transport_kind_name);
//     }
//
// The library's own transports pass the same tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/testing/sim_runtime.hpp"
#include "kitsune2/transport.hpp"

namespace kitsune2::testing {

/// The network in which the nodes of one test meet.
class TransportSuiteNetwork {
 public:
  virtual ~TransportSuiteNetwork() = default;
  /// Makes a node that can reach the others and is not started yet. `runtime` outlives it. Its `max_message_bytes`
  /// should be at most a few MiB, because the suite sends a message of that size.
  virtual std::unique_ptr<TransportBackend> make_backend(SimRuntime& runtime) = 0;
  /// The url of a peer that does not exist.
  virtual Url nobody() = 0;
  /// B4: how many bytes may wait for one peer.
  virtual std::uint64_t max_queue_bytes() = 0;
  /// Whether `disconnect` delivers its farewell. False for a transport whose own close carries the reason: it is never
  /// given one.
  virtual bool carries_farewell() { return true; }
  /// Runs the world until `done`. Default: in virtual time. A backend with threads or sockets of its own uses
  /// `world.wait_for(done)`.
  virtual bool run_until(SimWorld& world, const std::function<bool()>& done) {
    return world.run_until(done, std::chrono::minutes(10));
  }
  /// Runs what is under way without anybody waiting for it. Default: a minute of virtual time.
  virtual void settle(SimWorld& world) { world.run_for(std::chrono::minutes(1)); }
};

/// An implementation to be tested.
struct TransportKind {
  std::string name;  ///< letters, digits, '_': a part of the tests' names
  std::function<std::unique_ptr<TransportSuiteNetwork>(SimWorld& world)> make;

  friend std::ostream& operator<<(std::ostream& out, const TransportKind& kind) { return out << kind.name; }
};

/// The name of a kind in the names of tests.
inline std::string transport_kind_name(const ::testing::TestParamInfo<TransportKind>& info) { return info.param.name; }

/// A node that records what its backend reports, and fails the test if
/// that violates the contract of TransportEvents.
class TransportSuiteNode final : public TransportEvents {
 public:
  TransportSuiteNode(SimWorld& world, TransportSuiteNetwork& network)
      : runtime(world.make_runtime()), backend(network.make_backend(*runtime)) {
    const Call call(*this);
    backend->start(*this);
  }
  ~TransportSuiteNode() override { runtime->crash(); }
  TransportSuiteNode(const TransportSuiteNode&) = delete;
  TransportSuiteNode& operator=(const TransportSuiteNode&) = delete;

  void new_listening_address(const Url& own_url) override {
    check();
    addresses.push_back(own_url);
  }
  void listening_address_lost() override { check(); }
  Result<Bytes> peer_connect(const Url& peer) override {
    check();
    if (refuse_connections) return make_error(Errc::blocked, "refused by the test");
    EXPECT_TRUE(live.insert(peer).second) << "a second connection to a peer before the first was said to be gone";
    connects += 1;
    from[peer].clear();
    return Bytes::copy_of("preflight of " + std::to_string(runtime->index()));
  }
  Result<void> recv_data(const Url& peer, Bytes message) override {
    check();
    EXPECT_TRUE(live.contains(peer)) << "a message of a peer that is not connected";
    from[peer].push_back(message.str());
    if (refuse_messages) return make_error(Errc::peer_fault, "refused by the test");
    return {};
  }
  void recv_progress(const Url& peer, std::size_t bytes) override {
    check();
    EXPECT_TRUE(live.contains(peer)) << "progress of a peer that is not connected";
    EXPECT_GT(bytes, 0U);
  }
  void peer_disconnect(const Url& peer, const std::optional<std::string>& /*reason*/) override {
    check();
    EXPECT_EQ(live.erase(peer), 1U) << "peer_disconnect without a peer_connect that succeeded";
    disconnects += 1;
  }

  Url url() const { return backend->url().value(); }
  void send(const Url& to, std::string text) { send(to, ByteChain(Bytes(std::move(text)))); }
  void send(const Url& to, ByteChain message) {
    const Call call(*this);
    results.emplace_back();
    backend->send(to, std::move(message), [this, at = results.size() - 1](Result<void> result) {
      check();
      EXPECT_FALSE(results[at].has_value()) << "a handler was called twice";
      results[at].emplace(std::move(result));
      completed += 1;
    });
  }
  void disconnect(const Url& peer, std::string_view farewell) {
    const Call call(*this);
    backend->disconnect(peer, {CloseCode::on_purpose, "the test is done with it"}, Bytes::copy_of(farewell));
  }
  void stop() {
    const Call call(*this);
    backend->stop([this] {
      check();
      stopped = true;
    });
  }
  /// Bytes of the current connection, or of the last one, without the preflight.
  std::vector<std::string> messages_from(const Url& peer) const {
    const auto it = from.find(peer);
    if (it == from.end() || it->second.empty()) return {};
    return {it->second.begin() + 1, it->second.end()};
  }
  bool all_completed() const { return completed == results.size(); }

  const std::unique_ptr<SimRuntime> runtime;
  const std::unique_ptr<TransportBackend> backend;
  bool refuse_connections = false, refuse_messages = false;
  std::vector<Url> addresses;
  std::set<Url> live;
  std::map<Url, std::vector<std::string>> from;
  std::vector<std::optional<Result<void>>> results;  ///< of each send
  std::size_t completed = 0;
  int connects = 0, disconnects = 0;
  bool stopped = false;

 private:
  /// Whether the backend is being called.
  struct Call {
    explicit Call(TransportSuiteNode& called) : node(called) { node.in_call_ = true; }
    ~Call() { node.in_call_ = false; }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    TransportSuiteNode& node;
  };
  void check() const {
    EXPECT_FALSE(in_call_) << "the backend calls back from inside of a call";
    EXPECT_FALSE(stopped) << "the backend calls after it has stopped";
  }
  bool in_call_ = false;
};

class TransportSuite : public ::testing::TestWithParam<TransportKind> {
 protected:
  TransportSuite() : network_(GetParam().make(world_)) {}

  std::unique_ptr<TransportSuiteNode> node() {
    auto made = std::make_unique<TransportSuiteNode>(world_, *network_);
    EXPECT_TRUE(run_until([&] { return made->backend->url().has_value(); })) << "the node never gets a url";
    return made;
  }
  bool run_until(const std::function<bool()>& done) { return network_->run_until(world_, done); }
  bool arrived(const TransportSuiteNode& at, const TransportSuiteNode& sender, std::size_t count) {
    return run_until([&, url = sender.url()] { return at.messages_from(url).size() >= count; });
  }
  void settle() { network_->settle(world_); }

  SimWorld world_{1};
  std::unique_ptr<TransportSuiteNetwork> network_;
};

TEST_P(TransportSuite, TheOwnUrlIsToldAndIsThatOfAPeer) {
  const auto a = node(), b = node();
  ASSERT_TRUE(run_until([&] { return !a->addresses.empty() && !b->addresses.empty(); }));
  EXPECT_EQ(a->addresses, (std::vector<Url>{a->url()}));
  EXPECT_TRUE(a->url().is_peer());
  EXPECT_NE(a->url(), b->url());
  EXPECT_EQ(a->backend->stats().peer_urls, (std::vector<Url>{a->url()}));
}

TEST_P(TransportSuite, ThePreflightIsFirstEachWayAndTheOrderIsKept) {
  const auto a = node(), b = node();
  a->send(b->url(), "one");
  a->send(b->url(), "two");
  ASSERT_TRUE(arrived(*b, *a, 2));
  b->send(a->url(), "three");
  ASSERT_TRUE(arrived(*a, *b, 1));
  const auto preflight_of = [](const TransportSuiteNode& n) {
    return "preflight of " + std::to_string(n.runtime->index());
  };
  EXPECT_EQ(b->from[a->url()], (std::vector<std::string>{preflight_of(*a), "one", "two"}));
  EXPECT_EQ(a->from[b->url()], (std::vector<std::string>{preflight_of(*b), "three"}));
  EXPECT_EQ(a->connects, 1);
  EXPECT_EQ(b->connects, 1);
  ASSERT_TRUE(run_until([&] { return a->all_completed() && b->all_completed(); }));
  for (const auto& result : a->results) EXPECT_TRUE(result->has_value());
}

TEST_P(TransportSuite, BothMayConnectAtOnce) {
  const auto a = node(), b = node();
  a->send(b->url(), "from a");
  b->send(a->url(), "from b");
  ASSERT_TRUE(arrived(*b, *a, 1));
  ASSERT_TRUE(arrived(*a, *b, 1));
  EXPECT_EQ(a->live.size(), 1U);
  EXPECT_EQ(b->live.size(), 1U);
}

TEST_P(TransportSuite, MessagesOfEverySizeArriveWholeAndInOrder) {
  const auto a = node(), b = node();
  const std::uint64_t most = a->backend->max_message_bytes();
  std::vector<std::string> sent;
  char with = 'a';
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{16'380}, std::uint64_t{16'381},
                                   std::uint64_t{2}, most, std::uint64_t{40'000}}) {
    if (size > most) continue;
    sent.emplace_back(size, with++);
    a->send(b->url(), sent.back());
    ASSERT_TRUE(run_until([&] { return a->all_completed(); }));
    ASSERT_TRUE(a->results.back()->has_value()) << size << ": " << a->results.back()->error().to_string();
  }
  ASSERT_TRUE(arrived(*b, *a, sent.size()));
  EXPECT_TRUE(b->messages_from(a->url()) == sent);
}

TEST_P(TransportSuite, AMessageInPiecesArrivesAsOne) {
  const auto a = node(), b = node();
  ByteChain message;
  std::string whole;
  for (const std::size_t size : {std::size_t{3}, std::size_t{70'000}, std::size_t{1}, std::size_t{16'384}}) {
    const std::string piece(size, static_cast<char>('a' + message.pieces().size()));
    message.append(Bytes::copy_of(piece));
    whole += piece;
  }
  ASSERT_LE(whole.size(), a->backend->max_message_bytes());
  a->send(b->url(), message);
  a->send(b->url(), "the next");
  ASSERT_TRUE(arrived(*b, *a, 2));
  EXPECT_TRUE(b->messages_from(a->url()) == (std::vector<std::string>{whole, "the next"}));
}

TEST_P(TransportSuite, AMessageOverTheLimitIsRefusedAndTheNextOneGoes) {
  const auto a = node(), b = node();
  a->send(b->url(), std::string(a->backend->max_message_bytes() + 1, 'x'));
  a->send(b->url(), "small");
  ASSERT_TRUE(arrived(*b, *a, 1));
  ASSERT_TRUE(run_until([&] { return a->all_completed(); }));
  ASSERT_TRUE(a->results[0]->has_error());
  EXPECT_EQ(a->results[0]->error().code, Errc::too_large);
  EXPECT_TRUE(a->results[1]->has_value());
  EXPECT_EQ(b->messages_from(a->url()), (std::vector<std::string>{"small"}));
}

TEST_P(TransportSuite, TheQueueOfAPeerIsBoundedAndAcceptedMessagesArrive) {
  const auto a = node(), b = node();
  const std::size_t size = std::min(network_->max_queue_bytes() / 4, a->backend->max_message_bytes());
  const std::size_t more = network_->max_queue_bytes() / size + 2;
  for (std::size_t i = 0; i < more; ++i) a->send(b->url(), std::string(size, static_cast<char>('a' + i % 26)));
  ASSERT_TRUE(run_until([&] { return a->all_completed(); }));
  std::vector<std::string> taken;
  for (std::size_t i = 0; i < more; ++i) {
    if (a->results[i]->has_value()) {
      taken.emplace_back(size, static_cast<char>('a' + i % 26));
    } else {
      EXPECT_EQ(a->results[i]->error().code, Errc::overloaded);
    }
  }
  EXPECT_GE(taken.size(), 1U);
  EXPECT_LE(taken.size() * size, network_->max_queue_bytes());
  ASSERT_TRUE(arrived(*b, *a, taken.size()));
  EXPECT_TRUE(b->messages_from(a->url()) == taken);
}

TEST_P(TransportSuite, NobodyIsThereAndOthersDoNotWaitForThat) {
  const auto a = node(), b = node();
  a->send(network_->nobody(), "hello?");
  a->send(b->url(), "hello");
  ASSERT_TRUE(arrived(*b, *a, 1));
  ASSERT_TRUE(run_until([&] { return a->all_completed(); }));
  ASSERT_TRUE(a->results[0]->has_error());
  EXPECT_EQ(a->results[0]->error().code, Errc::peer_unresponsive);
  EXPECT_TRUE(a->results[1]->has_value());
  EXPECT_EQ(a->live, (std::set<Url>{b->url()}));
}

TEST_P(TransportSuite, AConnectionThatIsRefusedCarriesNothing) {
  const auto a = node(), b = node();
  b->refuse_connections = true;
  a->send(b->url(), "hello");
  ASSERT_TRUE(run_until([&] { return a->all_completed(); }));
  EXPECT_TRUE(a->results[0]->has_error());
  settle();
  EXPECT_TRUE(b->from.empty());
  EXPECT_EQ(b->disconnects, 0) << "it was never connected";
  EXPECT_TRUE(a->live.empty());
  a->refuse_connections = true;
  b->refuse_connections = false;
  a->send(b->url(), "hello");
  ASSERT_TRUE(run_until([&] { return a->all_completed(); }));
  EXPECT_TRUE(a->results[1]->has_error()) << "the own side's refusal counts as much";
}

TEST_P(TransportSuite, AnErrorOnAMessageClosesTheConnectionAndTheNextMessageOpensAnother) {
  const auto a = node(), b = node();
  a->send(b->url(), "fine");
  ASSERT_TRUE(arrived(*b, *a, 1));
  b->refuse_messages = true;
  a->send(b->url(), "bad");
  ASSERT_TRUE(run_until([&] { return a->live.empty() && b->live.empty(); }));
  EXPECT_EQ(a->disconnects, 1);
  EXPECT_EQ(b->disconnects, 1);
  b->refuse_messages = false;
  a->send(b->url(), "again");
  ASSERT_TRUE(run_until(
      [&, url = a->url()] { return b->connects == 2 && b->messages_from(url) == std::vector<std::string>{"again"}; }));
  EXPECT_EQ(a->connects, 2);
}

TEST_P(TransportSuite, DisconnectingSaysFarewellAndBothHearOfItOnce) {
  const auto a = node(), b = node();
  a->disconnect(b->url(), "");  // no effect: not connected yet
  a->send(b->url(), "hello");
  ASSERT_TRUE(arrived(*b, *a, 1));
  const bool carried = network_->carries_farewell();
  a->disconnect(b->url(), carried ? "farewell" : "");
  ASSERT_TRUE(run_until([&] { return a->live.empty() && b->live.empty(); }));
  std::vector<std::string> heard{"hello"};
  if (carried) heard.emplace_back("farewell");
  EXPECT_EQ(b->messages_from(a->url()), heard);
  settle();
  EXPECT_EQ(a->disconnects, 1);
  EXPECT_EQ(b->disconnects, 1);
  EXPECT_TRUE(a->backend->stats().connections.empty());
}

TEST_P(TransportSuite, ACloseWithoutAFarewellSaysNothing) {
  const auto a = node(), b = node();
  a->send(b->url(), "hello");
  ASSERT_TRUE(arrived(*b, *a, 1));
  a->disconnect(b->url(), "");
  ASSERT_TRUE(run_until([&] { return a->live.empty() && b->live.empty(); }));
  EXPECT_EQ(b->messages_from(a->url()), (std::vector<std::string>{"hello"}));
}

TEST_P(TransportSuite, TheFiguresOfAConnectionAreItsOwn) {
  const auto a = node(), b = node(), c = node();
  a->send(b->url(), std::string(1000, 'x'));
  a->send(c->url(), "y");
  ASSERT_TRUE(arrived(*b, *a, 1));
  ASSERT_TRUE(arrived(*c, *a, 1));
  const auto stats = a->backend->stats();
  ASSERT_EQ(stats.connections.size(), 2U);
  for (const auto& connection : stats.connections) {
    EXPECT_TRUE(connection.peer == b->url() || connection.peer == c->url());
    EXPECT_GE(connection.send_message_count, 2U) << "the preflight counts";
    EXPECT_EQ(connection.send_bytes >= 1000, connection.peer == b->url());
  }
  EXPECT_FALSE(stats.backend.empty());
}

TEST_P(TransportSuite, StopEndsEverythingAndIsTheLastCallback) {
  const auto a = node(), b = node();
  a->send(b->url(), "hello");
  ASSERT_TRUE(arrived(*b, *a, 1));
  a->send(network_->nobody(), "still connecting");
  a->stop();
  ASSERT_TRUE(run_until([&] { return a->stopped; }));
  EXPECT_TRUE(a->live.empty()) << "each connection was said to be gone";
  EXPECT_TRUE(a->all_completed()) << "what waited was answered";
  EXPECT_TRUE(a->results.back()->has_error());
  ASSERT_TRUE(run_until([&] { return b->live.empty(); })) << "the peer hears of it";
  settle();  // nothing is called any more
}

}  // namespace kitsune2::testing
