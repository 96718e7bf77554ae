// The whole node over real sockets on loopback.
#include "kitsune2/node.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/builder.hpp"
#include "kitsune2/http.hpp"
#include "kitsune2/relay_server.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/waiters.hpp"
#include "log/log.hpp"
#include "node/builder/store_paths.hpp"

namespace kitsune2 {
namespace {

using namespace std::chrono_literals;
using testing::make_op;
using testing::poll_until;

const SpaceId kNodeSpace = SpaceId::from_text("node-test");

/// A name of a test with a parameter has a slash.
std::string name_of(std::string test) {
  std::replace(test.begin(), test.end(), '/', '-');
  return test;
}

/// A folder for each test, removed with the object.
class NodeTest : public ::testing::Test {
 protected:
  NodeTest() {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    dir_ = std::filesystem::temp_directory_path() /
           ("k2-node-" + std::to_string(::getpid()) + '-' + name_of(info->name()));
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
  }
  ~NodeTest() override { std::filesystem::remove_all(dir_); }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }

  std::filesystem::path dir_;
};

/// Polls quickly, so that the test need not wait for the default intervals.
Config quick() {
  Config config;
  config.core_bootstrap.backoff_min_ms = 50;
  config.core_bootstrap.backoff_max_ms = 200;
  return config;
}

std::unique_ptr<Node> start(NodeOptions options) {
  auto node = Node::start(std::move(options));
  EXPECT_TRUE(node) << node.error().to_string();
  return node ? std::move(*node) : nullptr;
}

std::shared_ptr<Space> join(Node& node, const std::shared_ptr<LocalAgent>& agent) {
  auto space = node.space(kNodeSpace);
  EXPECT_TRUE(space) << space.error().to_string();
  agent->set_tgt_storage_arc(DhtArc::full());
  auto joined = node.wait<void>([&](auto done) { (*space)->local_agent_join(agent, done); });
  EXPECT_TRUE(joined) << joined.error().to_string();
  return *space;
}

std::uint64_t ops_held(Node& node, Space& space) {
  const auto stats = node.wait<OpStoreStats>([&](auto done) { space.op_store().stats(done); });
  return stats ? stats->ops : 0;
}

bool knows(Node& node, Space& space, const AgentId& agent) {
  return node.run([&] { return space.peer_store().get(agent) != nullptr; });
}

std::string http_get(const std::string& url, int& status) {
  AsioRuntime runtime;
  runtime.start();
  auto client = make_http_client(runtime);
  std::promise<Result<HttpResponse>> answer;
  runtime.call([&] {
    HttpRequest request;
    request.url = url;
    client->request(request, [&](Result<HttpResponse> r) { answer.set_value(std::move(r)); });
  });
  auto result = answer.get_future().get();
  runtime.call([&] { client.reset(); });
  runtime.stop();
  status = result ? result->status : -1;
  return result ? result->body : result.error().to_string();
}

/// Over the relay inside the first node, in each dialect that this library was built with.
class EmbeddedRelay : public NodeTest, public ::testing::WithParamInterface<Dialect> {};

TEST_P(EmbeddedRelay, TwoNodesPublishAndFetch) {
  const Dialect dialect = GetParam();
  auto left = start({.config = quick(), .dialect = dialect, .data_dir = path("left"), .listen = "127.0.0.1:0"});
  ASSERT_TRUE(left);
  EXPECT_EQ(left->relay_url(),
            uses_iroh(dialect) ? "http://" + left->listen_addr() + "/relay/" : "ws://" + left->listen_addr());
  auto right = start({.config = quick(), .dialect = dialect, .relay = left->relay_url(), .admin = "127.0.0.1:0"});
  ASSERT_TRUE(right);
  ASSERT_TRUE(left->wait_online(20s));
  ASSERT_TRUE(right->wait_online(20s));

  auto left_agent = left->agent().value();
  auto right_agent = right->agent().value();
  auto left_space = join(*left, left_agent);
  auto right_space = join(*right, right_agent);
  ASSERT_TRUE(poll_until([&] { return knows(*left, *left_space, right_agent->agent()); }));
  ASSERT_TRUE(poll_until([&] { return knows(*right, *right_space, left_agent->agent()); }));

  std::vector<Bytes> ops;
  for (std::uint64_t i = 0; i < 100; ++i) ops.push_back(make_op(i, 64 + i * 100));
  auto mine = left->wait<ProcessedOps>([&](auto done) { left_space->op_store().process_incoming_ops(ops, done); });
  ASSERT_TRUE(mine) << mine.error().to_string();
  std::vector<OpId> ids;
  for (const auto& op : mine->stored) ids.push_back(op.op_id);
  ASSERT_EQ(ids.size(), 100U);
  const Url to = left->run([&] { return *left_space->peer_store().get(right_agent->agent())->info().url; });
  auto told = left->wait<void>([&](auto done) { left_space->publish().publish_ops(ids, to, done); });
  ASSERT_TRUE(told) << told.error().to_string();
  EXPECT_TRUE(poll_until([&] { return ops_held(*right, *right_space) == 100; }));

  const auto report = right->run([&] { return right->kitsune().report().snapshot(); });
  ASSERT_EQ(report.size(), 1U);
  EXPECT_EQ(report[0].second.total.ops_fetched, 100U);
  // The same, per space and per peer, for Prometheus.
  int status = 0;
  const std::string metrics = http_get("http://" + right->admin_addr() + "/metrics", status);
  const std::string label = "{space=\"" + kNodeSpace.to_string() + '"';
  const Url from = left->run([&] { return *left_space->current_url(); });
  const std::string both = label + ",peer=\"" + from.to_string() + "\"} ";
  const std::string bytes = std::to_string(100 * 64 + 100 * 99 / 2 * 100) + '\n';
  for (const std::string& line :
       {"kitsune2_report_ops_fetched_total" + label + "} 100\n",
        "kitsune2_report_fetched_bytes_total" + label + "} " + bytes,
        "kitsune2_peer_ops_fetched_total" + both + "100\n", "kitsune2_peer_fetched_bytes_total" + both + bytes,
        "kitsune2_peer_ops_served_total" + both + "0\n", "kitsune2_peer_failures_total" + both + "0\n"}) {
    EXPECT_NE(metrics.find('\n' + line), std::string::npos) << line << metrics;
  }
  // The embedded relay has told its node where the peer comes from.
  const auto group = left->run([&] { return left->kitsune().budget().address_group(to); });
  EXPECT_EQ(group, std::optional<std::string>("7f000001"));
  EXPECT_EQ(right->run([&] { return right->kitsune().budget().address_group(from); }), std::nullopt);
  right->stop();
  // The tombstone has reached the peer that stays.
  EXPECT_TRUE(poll_until([&] { return !knows(*left, *left_space, right_agent->agent()); }));
}

/// An application has the url of a peer from elsewhere, and the server has not answered its node yet.
TEST_P(EmbeddedRelay, OpsAreAskedForAtAUrlOfWhichNoAgentIsKnownYet) {
  auto left = start({.config = quick(), .dialect = GetParam(), .data_dir = path("left"), .listen = "127.0.0.1:0"});
  ASSERT_TRUE(left);
  auto right = start({.config = quick(), .dialect = GetParam(), .relay = left->relay_url()});
  ASSERT_TRUE(right);
  ASSERT_TRUE(left->wait_online(20s));
  ASSERT_TRUE(right->wait_online(20s));
  auto left_space = join(*left, left->agent().value());
  auto mine =
      left->wait<ProcessedOps>([&](auto done) { left_space->op_store().process_incoming_ops({make_op(1)}, done); });
  ASSERT_TRUE(mine) << mine.error().to_string();
  const Url from = left->run([&] { return *left_space->current_url(); });
  const auto right_agent = right->agent().value();
  std::shared_ptr<Space> right_space;
  auto asked = right->wait<void>([&](auto done) {
    right->kitsune().space(kNodeSpace, [&, done](Result<std::shared_ptr<Space>> made) {
      right_space = made.value();
      right_space->local_agent_join_with_arc(right_agent, DhtArc::full(), {});
      right_space->fetch().request_ops({mine->stored[0].op_id}, from, done);
    });
  });
  ASSERT_TRUE(asked) << asked.error().to_string();
  EXPECT_TRUE(poll_until([&] { return ops_held(*right, *right_space) == 1; }));
  EXPECT_EQ(right->run([&] { return right_space->fetch().stats().requests_failed; }), 0U);
}

#ifdef K2_WITHOUT_QUIC
INSTANTIATE_TEST_SUITE_P(Dialects, EmbeddedRelay, ::testing::Values(Dialect::v0_2));
#else
INSTANTIATE_TEST_SUITE_P(Dialects, EmbeddedRelay, ::testing::Values(Dialect::v0_2, Dialect::v0_4, Dialect::v0_5));
#endif

TEST_F(NodeTest, ARestartKeepsOpsAndTheAgent) {
  AgentId first;
  {
    auto node = start({.data_dir = path("data")});
    ASSERT_TRUE(node);
    auto agent = node->agent().value();
    first = agent->agent();
    auto space = join(*node, agent);
    auto stored = node->wait<ProcessedOps>([&](auto done) {
      space->op_store().process_incoming_ops({make_op(1), make_op(2)}, done);
    });
    ASSERT_TRUE(stored) << stored.error().to_string();
    // Here the space is dropped after its node.
    node->stop();
  }
  struct stat info {};
  ASSERT_EQ(::stat(path("data").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700U);
  ASSERT_EQ(::stat(agent_key_path(path("data")).c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_TRUE(std::filesystem::exists(op_store_path(path("data"), kNodeSpace)));

  auto node = start({.data_dir = path("data")});
  ASSERT_TRUE(node);
  EXPECT_EQ(node->agent().value()->agent(), first);
  EXPECT_EQ(ops_held(*node, *node->space(kNodeSpace).value()), 2U);
}

TEST_F(NodeTest, AnOfflineNodeSaysSo) {
  auto node = start({});
  ASSERT_TRUE(node);
  EXPECT_EQ(node->relay_url(), "");
  EXPECT_EQ(node->listen_addr(), "");
  EXPECT_EQ(node->wait_online(1s).error().code, Errc::disconnected);
  auto space = node->space(kNodeSpace).value();
  const auto sent = node->wait<void>(
      [&](auto done) { space->send_notify(Url::parse("ws://127.0.0.1:1/abc").value(), Bytes::copy_of("x"), done); });
  EXPECT_EQ(sent.error().code, Errc::disconnected);
}

TEST_F(NodeTest, ErrorsSayWhatWasWrong) {
  const auto error = [](NodeOptions options) {
    auto node = Node::start(std::move(options));
    return node ? Error(Errc::internal, "started") : node.error();
  };
  Config bad;
  bad.core_fetch.parallel_request_count = 0;
  EXPECT_EQ(error({.config = bad}).message, "coreFetch.parallelRequestCount: must be a whole number in 1..255, got 0");
  EXPECT_EQ(error({.dialect = Dialect::v0_4}).message.substr(0, 37), "irohTransport.relayUrl: is not set; n");
  EXPECT_EQ(error({.dialect = Dialect::v0_5}).message.substr(0, 37), "irohTransport.relayUrl: is not set; n");
  EXPECT_EQ(error({.dialect = Dialect::v0_5, .relay = "http://x:1/a//b"}).message.substr(0, 51),
            "relay: in dialect 0.5 it must be like https://host:");
  EXPECT_EQ(error({.dialect = Dialect::v0_5, .relay = "ws://x:1"}).message.substr(0, 51),
            "relay: in dialect 0.5 it must be like https://host:");
  EXPECT_EQ(error({.dialect = Dialect::v0_2, .relay = "http://x"}).code, Errc::invalid_config);
  EXPECT_EQ(error({.dialect = Dialect::v0_2, .relay = "http://x"}).message.substr(0, 7), "relay: ");
  Config plain;
  plain.tx5_transport.server_url = "ws://127.0.0.1:1";
  EXPECT_EQ(error({.config = plain}).message.substr(0, 24), "tx5Transport.serverUrl: ");

  std::ofstream(path("file")) << "x";
  EXPECT_EQ(error({.data_dir = path("file")}).code, Errc::io);
  EXPECT_NE(error({.data_dir = path("file")}).message.find(path("file")), std::string::npos);
  EXPECT_NE(error({.data_dir = path("file") + "/below"}).message.find(path("file")), std::string::npos);

  auto first = start({.data_dir = path("data"), .listen = "127.0.0.1:0"});
  ASSERT_TRUE(first);
  const Error in_use = error({.data_dir = path("data")});
  EXPECT_EQ(in_use.code, Errc::already_exists);
  EXPECT_NE(in_use.message.find("in use by process " + std::to_string(::getpid())), std::string::npos)
      << in_use.message;
  const Error port = error({.listen = first->listen_addr()});
  EXPECT_EQ(port.code, Errc::already_exists);
  EXPECT_NE(port.message.find(first->listen_addr()), std::string::npos) << port.message;
  EXPECT_EQ(error({.admin = first->listen_addr()}).code, Errc::already_exists);
  const Error cert = error({.listen = "127.0.0.1:0", .tls_cert_file = path("none"), .tls_key_file = path("none")});
  EXPECT_NE(cert.message.find(path("none")), std::string::npos) << cert.message;
  const Error trust = error({.tls_ca_file = path("none")});
  EXPECT_EQ(trust.code, Errc::io);
  EXPECT_NE(trust.message.find(path("none")), std::string::npos) << trust.message;
}

TEST_F(NodeTest, WaitOnlineTimesOutAndNamesTheRelay) {
  // A port that was free a moment ago.
  std::string gone;
  {
    auto node = start({.listen = "127.0.0.1:0"});
    ASSERT_TRUE(node);
    gone = node->relay_url();
  }
  auto node = start({.relay = gone});
  ASSERT_TRUE(node);
  const auto url = node->wait_online(50ms);
  ASSERT_FALSE(url);
  EXPECT_EQ(url.error().code, Errc::timed_out);
  EXPECT_NE(url.error().message.find(gone), std::string::npos);
}

TEST_F(NodeTest, StopWorksFromAnyStateAndTwice) {
  start({});  // destroyed at once
  auto node = start({.config = quick(), .data_dir = path("data"), .listen = "127.0.0.1:0", .admin = "127.0.0.1:0"});
  ASSERT_TRUE(node);
  auto space = join(*node, node->agent().value());
  // A thread waits for what never arrives.
  std::thread waiter([&] {
    const auto never = node->wait<void>([&](auto) {});
    EXPECT_EQ(never.error().code, Errc::cancelled);
  });
  node->stop();
  waiter.join();
  node->stop();
  EXPECT_EQ(node->space(kNodeSpace).error().code, Errc::cancelled);
  EXPECT_EQ(node->wait_online(1s).error().code, Errc::cancelled);
  // The directory is free again.
  EXPECT_TRUE(start({.data_dir = path("data")}));
  // And the space is dropped after its node.
  node.reset();
}

TEST_F(NodeTest, AdminServesMetricsAndHealth) {
  auto node = start({.config = quick(), .listen = "127.0.0.1:0", .admin = "127.0.0.1:0"});
  ASSERT_TRUE(node);
  ASSERT_TRUE(node->wait_online(20s));
  auto space = join(*node, node->agent().value());
  int status = 0;
  EXPECT_EQ(http_get("http://" + node->admin_addr() + "/healthz", status), "ok\n");
  EXPECT_EQ(status, 200);
  const std::string metrics = http_get("http://" + node->admin_addr() + "/metrics", status);
  EXPECT_EQ(status, 200);
  const std::string label = "{space=\"" + kNodeSpace.to_string() + "\"} ";
  EXPECT_NE(metrics.find("\nkitsune2_fetch_pending_ops" + label + "0\n"), std::string::npos) << metrics;
  EXPECT_NE(metrics.find("\nkitsune2_local_agents" + label + "1\n"), std::string::npos);
  EXPECT_NE(metrics.find("kitsune2_up 1\n"), std::string::npos);
  EXPECT_NE(metrics.find("kitsune2_relay_"), std::string::npos);
}

TEST_F(NodeTest, HealthSaysThatTheRelayIsGone) {
  std::string gone;
  {
    auto other = start({.listen = "127.0.0.1:0"});
    ASSERT_TRUE(other);
    gone = other->relay_url();
  }
  auto node = start({.relay = gone, .admin = "127.0.0.1:0"});
  ASSERT_TRUE(node);
  int status = 0;
  EXPECT_EQ(http_get("http://" + node->admin_addr() + "/healthz", status), "no connection to the relay " + gone + '\n');
  EXPECT_EQ(status, 503);
}

TEST_F(NodeTest, AStoresFiguresAreThereFromTheFirstScrapeOn) {
  auto node = start({.config = quick(), .data_dir = path("node"), .admin = "127.0.0.1:0"});
  ASSERT_TRUE(node);
  const auto scrape = [&] {
    int status = 0;
    return http_get("http://" + node->admin_addr() + "/metrics", status);
  };
  auto space = node->space(kNodeSpace);
  ASSERT_TRUE(space);
  const std::string label = "{space=\"" + kNodeSpace.to_string() + "\"} ";
  const std::string first = scrape();
  EXPECT_NE(first.find("\nkitsune2_store_ops" + label), std::string::npos) << first;
  EXPECT_NE(first.find("\nkitsune2_store_bytes" + label), std::string::npos) << first;
  for (const char* name : {"kitsune2_fetch_answer_seconds", "kitsune2_fetch_store_write_seconds"})
    EXPECT_NE(first.find('\n' + std::string(name) + "_count" + label + "0\n"), std::string::npos) << first;
  EXPECT_TRUE(poll_until([&] { return scrape().find("\nkitsune2_store_ops" + label + "0\n") != std::string::npos; }));
}

/// All forms in which a program may print bytes.
void expect_absent(const std::string& text, ByteView secret, const char* what) {
  std::string numbers;
  for (const std::uint8_t byte : secret.first(8)) numbers += std::to_string(byte) + ", ";
  for (const std::string& form :
       {to_hex(secret), to_base64url(secret), std::string(as_text(secret)), to_hex(secret).substr(0, 16), numbers}) {
    EXPECT_EQ(text.find(form), std::string::npos) << what << " was printed as " << form;
  }
}

/// The lines of one log, from any thread.
struct KeptLog {
  std::mutex mutex;
  std::string lines;
  /// Shared by everything it makes, so that a test sees when the callback is destroyed.
  std::shared_ptr<int> alive = std::make_shared<int>();

  LogOptions options() {
    return {[this, held = alive](const LogLine& line) {
              const std::lock_guard lock(mutex);
              lines += std::string(line.area) + ": " + std::string(line.text) + '\n';
            },
            LogLevel::trace};
  }
  bool has(const std::string& text) {
    const std::lock_guard lock(mutex);
    return lines.find(text) != std::string::npos;
  }
};

/// "ws://127.0.0.1:port" at which nobody listens.
std::string dead_relay() {
  auto server = RelayServer::start(RelayServerOptions{});
  EXPECT_TRUE(server);
  return (*server)->relay_url();
}

TEST_F(NodeTest, TheHostsStdoutAndStderrStayEmpty) {
  KeptLog log;
  const std::string relay = dead_relay();
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  {
    auto silent = start({.config = quick(), .relay = relay});
    auto heard = start({.config = quick(), .relay = relay, .log = log.options()});
    join(*silent, silent->agent().value());
    join(*heard, heard->agent().value());
    EXPECT_TRUE(poll_until([&] { return log.has("bootstrap: "); })) << "there is something to say";
  }
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST_F(NodeTest, EachNodeHasALogOfItsOwnThatEndsWithIt) {
  KeptLog left_log, right_log;
  const std::string left_relay = dead_relay(), right_relay = dead_relay();
  auto left = start({.config = quick(), .relay = left_relay, .log = left_log.options()});
  auto right = start({.config = quick(), .relay = right_relay, .log = right_log.options()});
  auto left_space = join(*left, left->agent().value());
  join(*right, right->agent().value());
  EXPECT_TRUE(poll_until([&] { return left_log.has("bootstrap: ") && right_log.has("bootstrap: "); }));
  EXPECT_EQ(left_log.alive.use_count(), 2);
  left->stop();
  EXPECT_EQ(left_log.alive.use_count(), 1) << "the callback is gone, though a space outlives the node";
  left_space.reset();
  left.reset();
  right->stop();
  const std::string left_port = left_relay.substr(left_relay.rfind(':'));
  const std::string right_port = right_relay.substr(right_relay.rfind(':'));
  EXPECT_TRUE(left_log.has(left_port) && right_log.has(right_port));
  EXPECT_FALSE(left_log.has(right_port) || right_log.has(left_port));
}

TEST_F(NodeTest, SecretsAreNeverLogged) {
  std::mutex mutex;
  std::string logged;
  const auto keep = [&](const LogLine& line) {
    const std::lock_guard lock(mutex);
    logged += std::string(line.area) + ": " + std::string(line.text) + '\n';
  };
  set_process_log({keep, LogLevel::trace});
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  std::vector<std::uint8_t> seed;
  std::string said;
  {
    auto left = start({.config = quick(), .data_dir = path("left"), .listen = "127.0.0.1:0", .admin = "127.0.0.1:0"});
    ASSERT_TRUE(left);
    auto right = start({.config = quick(), .relay = left->relay_url()});
    ASSERT_TRUE(right);
    ASSERT_TRUE(right->wait_online(20s));
    auto agent = left->agent().value();
    auto left_space = join(*left, agent);
    auto right_space = join(*right, right->agent().value());
    ASSERT_TRUE(poll_until([&] { return knows(*right, *right_space, agent->agent()); }));
    int status = 0;
    said += http_get("http://" + left->admin_addr() + "/metrics", status);
    said += left->run([&] { return left->kitsune().config().current().to_json(); });
    // A damaged key file: the error says what is wrong, not what is in the file.
    std::ifstream in(path("left") + "/agent.key");
    const std::string line{std::istreambuf_iterator<char>(in), {}};
    ASSERT_TRUE(from_base64url(line.substr(line.find(' ') + 1, 43), seed));
    const auto broken_path = path("broken.key");
    std::ofstream(broken_path) << line.substr(0, line.size() - 5) << "xxxx\n";
    std::filesystem::permissions(broken_path, std::filesystem::perms(0600));
    const auto broken = Ed25519LocalAgent::load_or_create(broken_path);
    ASSERT_FALSE(broken);
    said += broken.error().to_string();
    log::write(log::Level::trace, "test", "the capture works");
    left->stop();
    right->stop();
  }
  said += ::testing::internal::GetCapturedStdout() + ::testing::internal::GetCapturedStderr();
  set_process_log({});
  said += logged;
  EXPECT_NE(said.find("the capture works"), std::string::npos);
  ASSERT_EQ(seed.size(), 32U);
  expect_absent(said, ByteView(seed), "the agent's seed");
}

// Without a relay the node has no url yet, but it has its key.
TEST_F(NodeTest, TheEndpointKeyIsKeptIfThatIsAskedFor) {
  const auto key = [&] {
    std::ifstream in(path("data") + "/node.key");
    return std::string{std::istreambuf_iterator<char>(in), {}};
  };
  NodeOptions options{.dialect = Dialect::v0_5, .data_dir = path("data"), .relay = "http://127.0.0.1:1/relay"};
  const auto run = [&] {
    auto node = start(options);
    if (node) node->stop();
    return node != nullptr;
  };
  if (const auto tried = Node::start(options); !tried && tried.error().code == Errc::unsupported)
    GTEST_SKIP() << tried.error().to_string();
  ASSERT_TRUE(run());
  EXPECT_FALSE(std::filesystem::exists(path("data") + "/node.key")) << "a fresh key for each start";
  options.config.iroh_transport.keep_endpoint_key = true;
  ASSERT_TRUE(run());
  const std::string first = key();
  EXPECT_EQ(first.substr(0, 14), "k2-ed25519-v1 ");
  struct stat info {};
  ASSERT_EQ(::stat((path("data") + "/node.key").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  ASSERT_TRUE(run());
  EXPECT_EQ(key(), first);
  std::ofstream(path("data") + "/node.key") << "damaged";
  const auto damaged = Node::start(options);
  ASSERT_FALSE(damaged);
  EXPECT_EQ(damaged.error().code, Errc::corrupt);
}

TEST_F(NodeTest, TheAdminPortIsOffByDefaultAndOnLoopbackWithoutAHost) {
  auto quiet = start({.listen = "127.0.0.1:0"});
  ASSERT_TRUE(quiet);
  EXPECT_EQ(quiet->admin_addr(), "");
  for (const std::string listen : {"0", ":0"}) {
    auto node = start({.admin = listen});
    ASSERT_TRUE(node);
    EXPECT_TRUE(node->admin_addr().starts_with("127.0.0.1:")) << node->admin_addr();
  }
}

TEST(StorePaths, LongAndOddSpaceIdsGiveFileNames) {
  EXPECT_EQ(space_path("/d", SpaceId::from_text("hello")), "/d/aGVsbG8");
  const SpaceId long_id(Bytes(std::vector<std::uint8_t>(500, 7)));
  EXPECT_EQ(space_path("/d", long_id).size(), std::string("/d/h-").size() + 64);
  const std::uint8_t dash[] = {0xf8, 0, 0};  // base64url "-AAA"
  EXPECT_EQ(space_path("/d", SpaceId(ByteView(dash))), "/d/_-AAA");
}

}  // namespace
}  // namespace kitsune2
