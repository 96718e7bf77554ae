// Our side of the comparison with other programs: two processes, with everything on and at its defaults (encryption,
// the relay inside the serving node, ids computed and verified by SHA-256). bench/peers/README.md describes input and
// output. With DIR the stores are durable, in DIR; otherwise in memory.
//
// usage: transfer serve DATA SIZE [DIR]
//        transfer get ADDR DATA SIZE [DIR]
//        transfer store BATCH DATA SIZE DIR     the durable store alone, handed BATCH ops a call
//        transfer store-named BATCH DATA SIZE DIR     the same, handed ops whose ids are known
// At the end:
//   at=NS              get and store begin at this time of the steady clock
//   warm=1             get fetches one small op first, and then starts the clock, so that the connection exists
//   relay=URL          serve and get are of dialect 0.5 and use this relay, which is another process
//   path=relay|direct  with it: whether there are direct paths. After the first op, get waits for one
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "kitsune2/kitsune2.hpp"
#include "process.hpp"

using namespace kitsune2;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::size_t kCallBytes = 8U << 20;
constexpr std::size_t kCallsUnderWay = 3;

using bench::fail;
using bench::must;

constexpr auto kPathWait = std::chrono::seconds(10);
constexpr auto kSettle = std::chrono::milliseconds(1000);  ///< so that the other side has the path, too

std::optional<Clock::time_point> begin_at;
bool is_warm = false;
std::string relay;  ///< not empty: dialect 0.5
bool is_direct = false;

/// The op that is fetched before the clock starts.
Bytes warm_op() { return Bytes::copy_of(std::string_view("an op that is not among the items")); }

/// Now, or the requested time.
Clock::time_point begin_time() {
  if (!begin_at) return Clock::now();
  if (Clock::now() >= *begin_at) fail("not ready in time to begin with the others");
  std::this_thread::sleep_until(*begin_at);
  return *begin_at;
}

double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

/// Calls `f` with each item of the file in turn.
template <class F>
std::size_t each_item(const std::string& path, std::size_t size, F f) {
  std::ifstream in(path, std::ios::binary);
  std::vector<std::uint8_t> item(size);
  std::size_t count = 0;
  while (in.read(reinterpret_cast<char*>(item.data()), static_cast<std::streamsize>(size))) {
    f(item);
    ++count;
  }
  if (count == 0) fail("no items in " + path);
  return count;
}

std::size_t process(Node& node, Space& space, std::vector<Bytes> ops) {
  return must(node.wait<ProcessedOps>([&](auto done) { space.op_store().process_incoming_ops(std::move(ops), done); }))
      .stored.size();
}

/// Without an agent there is no gossip, which would bring the items under the server's own url, bypassing the line
/// between the two.
std::shared_ptr<Space> open_space(Node& node, std::string_view name, bool with_agent = true) {
  auto space = must(node.space(SpaceId::from_text(name)));
  if (!with_agent) return space;
  const auto me = must(node.agent());
  must(node.wait<void>([&](auto done) { space->local_agent_join(me, done); }));
  return space;
}

/// A node of dialect 0.5 hears known peers only, so the getting one has an agent there. Its arc is empty: gossip brings
/// it nothing.
std::shared_ptr<Space> join_to_get(Node& node, std::string_view name) {
  auto space = open_space(node, name, false);
  must(node.join(space, must(node.agent()), DhtArc::none()));
  return space;
}

void use_relay(NodeOptions& options) {
  options.dialect = Dialect::v0_5;
  options.relay = relay;
  options.config.iroh_transport.direct_paths = is_direct;
}

/// Until an agent at `peer` is known, which the bootstrap server tells: before that a node of dialect 0.5 asks nobody.
void wait_until_known(Node& node, Space& space, const Url& peer) {
  const auto is_known = [&] { return node.run([&] { return space.peer_store().is_at_url(peer); }); };
  for (const auto end = Clock::now() + kPathWait; !is_known();) {
    if (Clock::now() > end) fail("the bootstrap server does not tell who is at " + peer.to_string());
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

/// The way on which this node sends to its only peer.
std::string_view path_of(Node& node) {
  const auto connections = node.run([&] { return node.kitsune().transport().stats().connections; });
  if (connections.empty()) return "";
  return connections.front().is_direct ? "direct" : "relay";
}

void wait_for_path(Node& node, std::string_view wanted) {
  for (const auto end = Clock::now() + kPathWait; path_of(node) != wanted;) {
    if (Clock::now() > end) fail("the path does not become " + std::string(wanted));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void fetch(Node& node, Space& space, const std::vector<OpId>& ids, const Url& from) {
  must(node.wait<void>([&](auto done) { space.fetch().request_ops(ids, from, done); }));
  must(node.wait<void>([&](auto done) { space.fetch().notify_on_drained([done] { done(Result<void>()); }); }));
}

/// Waits until a durable op store has copied its WAL, which is part of writing and not of serving.
void settle(const std::string& dir) {
  const auto any_wal = [&] {
    const auto files = std::filesystem::recursive_directory_iterator(dir);
    return std::any_of(begin(files), end(files), [](const auto& file) {
      const std::string name = file.path().filename().string();
      return name.ends_with(".db-wal") && !name.ends_with(".peers.db-wal") && file.file_size() > 0;
    });
  };
  if (dir.empty()) return;
  for (const auto end = Clock::now() + std::chrono::seconds(60); any_wal();) {
    if (Clock::now() > end) fail("the store in " + dir + " does not copy its WAL");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

int serve(const std::string& data, std::size_t size, const std::string& dir) {
  NodeOptions options;
  options.data_dir = dir;
  if (relay.empty()) {
    options.dialect = Dialect::v0_2;
    options.listen = "127.0.0.1:0";
  } else {
    use_relay(options);
  }
  const auto node = must(Node::start(std::move(options)));
  const auto space = open_space(*node, "bench");
  process(*node, relay.empty() ? *open_space(*node, "warm") : *space, {warm_op()});
  std::vector<Bytes> ops;
  std::size_t bytes = 0;
  each_item(data, size, [&](const auto& item) {
    ops.push_back(Bytes::copy_of(ByteView(item)));
    if ((bytes += size) < kCallBytes) return;
    bytes = 0;
    process(*node, *space, std::exchange(ops, {}));
  });
  process(*node, *space, std::move(ops));
  settle(dir);
  const Url own = must(node->wait_online(std::chrono::seconds(30)));
  const auto before = bench::usage();
  std::cout << R"({"addr":")" << own.to_string() << "\"}" << std::endl;
  while (std::cin.get() != std::istream::traits_type::eof()) {
  }
  const auto after = bench::usage();
  std::cout << R"({"cpu_s":)" << after.cpu_s - before.cpu_s << R"(,"peak_rss_bytes":)" << after.peak_rss_bytes << "}"
            << std::endl;
  return 0;
}

void verify(Node& node, Space& space, const std::vector<OpId>& ids, const std::string& data, std::size_t size) {
  std::vector<MetaOp> held;
  std::size_t next = 0, at = 0;
  each_item(data, size, [&](const auto& item) {
    if (at == held.size()) {
      const std::vector<OpId> asked(ids.begin() + static_cast<std::ptrdiff_t>(next),
                                    ids.begin() + static_cast<std::ptrdiff_t>(std::min(next + 1024, ids.size())));
      held = must(
          node.wait<std::vector<MetaOp>>([&](auto done) { space.op_store().retrieve_ops(asked, kCallBytes, done); }));
      at = 0;
    }
    if (at == held.size() || held[at].op_id != ids[next] ||
        !std::ranges::equal(held[at].op_data.view(), ByteView(item))) {
      fail("item " + std::to_string(next) + " differs");
    }
    ++at, ++next;
  });
}

int get(const std::string& addr, const std::string& data, std::size_t size, const std::string& dir) {
  const Url from = must(Url::parse(addr, url_form(relay.empty() ? Dialect::v0_2 : Dialect::v0_5)));
  const auto policy = make_sha256_policy();
  std::vector<OpId> ids;
  each_item(data, size, [&](const auto& item) { ids.push_back(must(policy->describe(ByteView(item))).op_id); });
  NodeOptions options;
  options.data_dir = dir;
  if (relay.empty()) {
    options.relay = addr.substr(0, addr.rfind('/'));
  } else {
    use_relay(options);
  }
  options.policy = policy;
  const auto node = must(Node::start(std::move(options)));
  std::shared_ptr<Space> space;
  if (!relay.empty()) space = join_to_get(*node, "bench");
  must(node->wait_online(std::chrono::seconds(30)));
  if (!relay.empty()) wait_until_known(*node, *space, from);
  double first_s = 0, path_s = 0;
  bool is_cold = false;
  if (is_warm) {
    is_cold = path_of(*node).empty();  // if not, gossip has made the connection meanwhile
    const auto first = Clock::now();
    fetch(*node, space ? *space : *open_space(*node, "warm", false), {must(policy->describe(warm_op())).op_id}, from);
    first_s = seconds_since(first);
    if (!relay.empty()) {
      wait_for_path(*node, is_direct ? "direct" : "relay");
      path_s = seconds_since(first);
      std::this_thread::sleep_for(kSettle);
    }
  }
  if (!space) space = open_space(*node, "bench", !is_warm);
  const auto path_at_start = path_of(*node);
  const auto fetched_before = node->run([&] { return space->fetch().stats().ops_fetched; });

  const auto begin = begin_time();
  const auto before = bench::usage();
  fetch(*node, *space, ids, from);
  const double wall = seconds_since(begin);
  const auto after = bench::usage();

  const auto stats = node->run([&] { return space->fetch().stats(); });
  if (stats.ops_fetched - fetched_before != ids.size())
    fail(std::to_string(stats.ops_fetched - fetched_before) + " of all items came");
  const auto path_at_end = path_of(*node);
  verify(*node, *space, ids, data, size);
  std::cout << R"({"items":)" << ids.size() << R"(,"bytes":)" << ids.size() * size << R"(,"wall_s":)" << wall
            << R"(,"cpu_s":)" << after.cpu_s - before.cpu_s << R"(,"peak_rss_bytes":)" << after.peak_rss_bytes
            << R"(,"requests":)" << stats.requests_sent << R"(,"overdue":)" << stats.requests_overdue << R"(,"path":[")"
            << path_at_start << R"(",")" << path_at_end << R"("])";
  if (is_cold) std::cout << R"(,"first_s":)" << first_s << R"(,"path_s":)" << path_s;
  std::cout << "}" << std::endl;
  return 0;
}

/// Several calls are under way, so that the writer never waits for the caller; not all, which is more than it allows.
int store(std::size_t batch, const std::string& data, std::size_t size, const std::string& dir, bool named) {
  const auto policy = make_sha256_policy();
  std::vector<std::vector<Bytes>> calls;
  std::vector<std::vector<std::pair<OpDescription, Bytes>>> named_calls;
  const auto put = [batch](auto& all, auto op) {
    if (all.empty() || all.back().size() == batch) all.emplace_back().reserve(batch);
    all.back().push_back(std::move(op));
  };
  const std::size_t items = each_item(data, size, [&](const auto& item) {
    Bytes op = Bytes::copy_of(ByteView(item));
    if (named) {
      auto description = must(policy->describe(op));
      put(named_calls, std::pair{std::move(description), std::move(op)});
    } else {
      put(calls, std::move(op));
    }
  });
  NodeOptions options;
  options.data_dir = dir;
  options.policy = policy;
  auto node = must(Node::start(std::move(options)));
  auto space = must(node->space(SpaceId::from_text("bench")));

  const auto begin = begin_time();
  const auto before = bench::usage();
  const std::size_t count = calls.size() + named_calls.size();
  std::size_t next = 0, left = count;
  std::function<void(const Handler<>&)> call = [&](const Handler<>& done) {
    if (next == count) return;
    const auto i = next++;
    const auto stored = [&, done](Result<ProcessedOps> result) {
      must(std::move(result));
      if (--left == 0) return done(Result<void>());
      call(done);
    };
    if (named) return space->op_store().store_described_ops(std::move(named_calls[i]), stored);
    space->op_store().process_incoming_ops(std::move(calls[i]), stored);
  };
  must(node->wait<void>([&](auto done) {
    for (std::size_t i = 0; i < kCallsUnderWay; ++i) call(done);
  }));
  const double wall = seconds_since(begin);
  const auto after = bench::usage();
  std::cout << R"({"items":)" << items << R"(,"bytes":)" << items * size << R"(,"batch":)" << batch << R"(,"wall_s":)"
            << wall << R"(,"cpu_s":)" << after.cpu_s - before.cpu_s << R"(,"peak_rss_bytes":)" << after.peak_rss_bytes
            << "}" << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> args(argv + 1, argv + argc);
  for (; !args.empty(); args.pop_back()) {
    if (args.back().starts_with("at=")) {
      begin_at = Clock::time_point(std::chrono::nanoseconds(std::stoll(args.back().substr(3))));
    } else if (args.back() == "warm=1") {
      is_warm = true;
    } else if (args.back().starts_with("relay=")) {
      relay = args.back().substr(6);
    } else if (args.back() == "path=direct" || args.back() == "path=relay") {
      is_direct = args.back() == "path=direct";
    } else {
      break;
    }
  }
  const auto n = args.size();
  const auto size = [&](std::size_t i) { return static_cast<std::size_t>(std::stoul(args[i])); };
  if ((n == 3 || n == 4) && args[0] == "serve") return serve(args[1], size(2), n == 4 ? args[3] : "");
  if ((n == 4 || n == 5) && args[0] == "get") return get(args[1], args[2], size(3), n == 5 ? args[4] : "");
  if (n == 5 && (args[0] == "store" || args[0] == "store-named"))
    return store(size(1), args[2], size(3), args[4], args[0] == "store-named");
  fail(
      "usage: serve DATA SIZE [DIR] | get ADDR DATA SIZE [DIR] | store[-named] BATCH DATA SIZE DIR; then at=NS, "
      "warm=1, relay=URL, path=relay|direct");
}
