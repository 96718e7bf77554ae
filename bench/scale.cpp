// Many nodes over one relay: 200 whole nodes in this process, on ten threads, in 10 groups of 20. The nodes of a group
// hold the same 1,000 ops. Every node fetches those of the next group, and is told that all 20 of its nodes have them.
// Everything is at its defaults (encryption, verification by SHA-256, memory stores); the relay is inside the first
// node. Each node learns of its sources in a different order. First all connections are made and left idle, to measure
// their memory; then all nodes fetch at the same time.
//
// usage: scale [nodes=200] [ops=1000] [bytes an op=1024]     prints one JSON line
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <future>
#include <iostream>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/builder.hpp"
#include "kitsune2/kitsune2.hpp"
#include "process.hpp"

using namespace kitsune2;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::size_t kGroups = 10;
constexpr std::size_t kThreads = 10;
constexpr auto kPatience = std::chrono::seconds(100);

using bench::fail;
using bench::must;

std::uint64_t rss_bytes() {
  ::malloc_trim(0);
  std::uint64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

Bytes op_of(std::size_t group, std::size_t i, std::size_t size) {
  std::vector<std::uint8_t> out(std::max<std::size_t>(size, 16));
  const std::uint64_t words[2] = {group, i};
  std::memcpy(out.data(), words, sizeof words);
  return Bytes(std::move(out));
}

struct QuietHandler final : KitsuneHandler {
  Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId& /*space*/) override {
    return std::make_shared<SpaceHandler>();
  }
};

struct Member {
  AsioRuntime* runtime = nullptr;
  std::shared_ptr<Kitsune> kitsune;
  std::shared_ptr<Space> space;
  Url url;
};

/// Starts a call on the strand and waits for its outcome.
template <class T, class F>
Result<T> wait_for(AsioRuntime& runtime, F start) {
  std::promise<Result<T>> promise;
  runtime.post([&] { start(Handler<T>([&](Result<T> r) { promise.set_value(std::move(r)); })); });
  return promise.get_future().get();
}

Url wait_online(AsioRuntime& runtime, Kitsune& kitsune) {
  const auto until = Clock::now() + kPatience;
  for (;;) {
    std::optional<Url> url;
    runtime.call([&] { url = kitsune.transport().url(); });
    if (url) return *url;
    if (Clock::now() > until) fail("a node is not online");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

/// Counts down from any thread.
class Latch {
 public:
  explicit Latch(std::size_t count) : left_(count) {}
  void arrive() { left_.fetch_sub(1); }
  void wait(const char* what) const {
    const auto until = Clock::now() + kPatience;
    while (left_.load() > 0) {
      if (Clock::now() > until) fail(std::to_string(left_.load()) + " are left at: " + what);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

 private:
  std::atomic<std::size_t> left_;
};

}  // namespace

int main(int argc, char** argv) {
  const auto number = [&](int i, std::size_t otherwise) { return argc > i ? std::stoul(argv[i]) : otherwise; };
  const std::size_t nodes = number(1, 200), ops = number(2, 1000), size = number(3, 1024);
  if (nodes < kGroups || nodes % kGroups != 0) fail("the nodes make up ten groups");
  const auto policy = make_sha256_policy();

  NodeOptions host_options;
  host_options.dialect = Dialect::v0_2;
  host_options.listen = "127.0.0.1:0";
  const auto host = must(Node::start(std::move(host_options)));
  Config config;
  config.tx5_transport.server_url = host->relay_url();
  config.tx5_transport.signal_allow_plain_text = true;
  config.core_bootstrap.server_url = "http://" + host->listen_addr();

  std::vector<AsioRuntime> runtimes(kThreads);
  for (auto& runtime : runtimes) runtime.start();
  std::vector<Member> members(nodes);
  for (std::size_t i = 0; i < nodes; ++i) {
    auto& m = members[i];
    AsioRuntime& runtime = runtimes[i / kGroups % kThreads];
    m.runtime = &runtime;
    runtime.call([&] {
      m.kitsune = must(default_builder(runtime, config).build(runtime));
      if (auto ok = m.kitsune->register_handler(std::make_shared<QuietHandler>()); !ok) fail(ok.error().to_string());
    });
    m.space = must(wait_for<std::shared_ptr<Space>>(
        runtime, [&](auto done) { m.kitsune->space(SpaceId::from_text("scale"), done); }));
  }
  std::vector<std::vector<OpId>> ids(kGroups);
  for (std::size_t i = 0; i < nodes; ++i) {
    auto& m = members[i];
    m.url = wait_online(*m.runtime, *m.kitsune);
    const std::size_t group = i % kGroups;
    std::vector<Bytes> held;
    for (std::size_t k = 0; k < ops; ++k) held.push_back(op_of(group, k, size));
    if (ids[group].empty()) {
      for (const auto& op : held) ids[group].push_back(must(policy->describe(op)).op_id);
    }
    must(wait_for<ProcessedOps>(*m.runtime, [&](auto done) { m.space->op_store().process_incoming_ops(held, done); }));
  }

  // Connects every node to the nodes of the next group.
  const std::size_t per_group = nodes / kGroups, connections = nodes * per_group;
  const auto sources = [&](std::size_t i, auto f) {
    std::vector<std::size_t> order(per_group);
    std::iota(order.begin(), order.end(), 0U);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(i));
    for (const std::size_t k : order) f(members[(i + 1) % kGroups + k * kGroups].url);
  };
  const auto received = [&] {
    std::uint64_t out = 0;
    for (auto& m : members) {
      m.runtime->call([&] {
        for (const auto& c : m.kitsune->transport().stats().connections) out += c.recv_bytes;
      });
    }
    return out;
  };
  const std::uint64_t rss_alone = rss_bytes();
  Latch connected(connections);
  for (std::size_t i = 0; i < nodes; ++i) {
    sources(i, [&](const Url& url) {
      members[i].runtime->post([&, i, url] {
        members[i].space->send_notify(url, Bytes::copy_of("hello"), [&](const Result<void>& sent) {
          if (!sent) fail("connecting: " + sent.error().to_string());
          connected.arrive();
        });
      });
    });
  }
  connected.wait("connecting");
  std::this_thread::sleep_for(std::chrono::seconds(1));
  const std::uint64_t rss_connected = rss_bytes();

  const std::uint64_t received_before = received();
  const auto before = bench::usage();
  const auto begin = Clock::now();
  Latch fetched(nodes);
  for (std::size_t i = 0; i < nodes; ++i) {
    members[i].runtime->post([&, i] {
      auto& fetch = members[i].space->fetch();
      const auto added = std::make_shared<std::size_t>(per_group);
      sources(i, [&](const Url& url) {
        fetch.request_ops(ids[(i + 1) % kGroups], url, [&, added](const Result<void>& ok) {
          if (!ok) fail("asking: " + ok.error().to_string());
          if (--*added == 0) fetch.notify_on_drained([&] { fetched.arrive(); });
        });
      });
    });
  }
  fetched.wait("fetching");
  const double wall = std::chrono::duration<double>(Clock::now() - begin).count();
  const auto after = bench::usage();

  std::uint64_t got = 0, served_bytes = 0, overdue = 0, duplicates = 0;
  for (auto& m : members) {
    FetchStats stats;
    m.runtime->call([&] { stats = m.space->fetch().stats(); });
    const auto held = must(wait_for<OpStoreStats>(*m.runtime, [&](auto done) { m.space->op_store().stats(done); }));
    if (held.ops != 2 * ops) fail("a node holds " + std::to_string(held.ops) + " ops");
    got += stats.ops_fetched;
    served_bytes += stats.bytes_served;
    overdue += stats.requests_overdue;
    duplicates += stats.ops_duplicate;
  }
  const double minimum = static_cast<double>(nodes * ops) * static_cast<double>(std::max<std::size_t>(size, 16));
  const auto all = static_cast<double>(received() - received_before);
  std::cout << R"({"nodes":)" << nodes << R"(,"ops":)" << got << R"(,"wall_s":)" << wall << R"(,"ops_per_s":)"
            << static_cast<double>(got) / wall << R"(,"cpu_s":)" << after.cpu_s - before.cpu_s << R"(,"payload_ratio":)"
            << static_cast<double>(served_bytes) / minimum << R"(,"message_bytes_ratio":)" << all / minimum
            << R"(,"overdue":)" << overdue << R"(,"duplicates":)" << duplicates
            << R"(,"idle_bytes_per_connection_end":)"
            << static_cast<double>(rss_connected - rss_alone) / static_cast<double>(2 * connections)
            << R"(,"rss_bytes_per_node":)" << static_cast<double>(rss_alone) / static_cast<double>(nodes)
            << R"(,"peak_rss_bytes":)" << after.peak_rss_bytes << "}" << std::endl;
  for (auto& m : members) {
    must(wait_for<bool>(*m.runtime, [&](auto done) { m.kitsune->stop([done] { done(true); }); }));
    m.runtime->call([&] { m = {}; });
  }
  for (auto& runtime : runtimes) runtime.stop();
  return 0;
}
