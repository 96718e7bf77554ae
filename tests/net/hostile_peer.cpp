// The processes of hostile.py. Each line that they print is a JSON object. usage: hostile_peer …
//   victim DIR OPS SIZE SMALL RELAY  a whole node with OPS ops of SIZE bytes and SMALL ops of 80; RELAY "-": its own
//                                    relay
//   honest RELAY URL OPS SIZE        fetches the OPS ops from the victim at URL, again and again
//   neighbour RELAY                  joins and stays
//   info RELAY SPACE                 prints the info of a new agent
//   attack KIND RELAY URL OPS SIZE PEERS SECONDS ADDRESSES NETWORK [SPACE]
//                                    does one kind of harm for at most SECONDS, from ADDRESSES addresses
//                                    of kind udp-…: at RELAY is the victim's UDP port ("udp://127.0.0.1:1")
// With K2_HOSTILE_UDP=ADDRESS:PORT, victims and honest peers use direct paths, and have their UDP socket there.
// The dialect is 0.5 if the relay's url begins with "http", and for a relay of its own what K2_HOSTILE_NETWORK says.
#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <future>
#include <iostream>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include <unistd.h>

#include "hostile_attack.hpp"
#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/kitsune2.hpp"
#include "kitsune2/testing/builders.hpp"

using namespace kitsune2;           // NOLINT(google-build-using-namespace)
using namespace kitsune2::hostile;  // NOLINT(google-build-using-namespace)
using namespace std::chrono_literals;

namespace {

const SpaceId kSpace = SpaceId::from_text("hostile");

// A relay divides what an address may send among its clients, so each party has an address of its own. Attackers have
// networks from 1 on.
constexpr std::size_t kHonestNetwork = 200, kNeighbourNetwork = 201;

// ------------------------------------------------------------------------------------------------ victim and honest

/// Decodes base64url.
std::vector<std::uint8_t> bytes_of(const std::string& text) {
  std::vector<std::uint8_t> bytes;
  if (!from_base64url(text, bytes)) fail("no base64url: " + text);
  return bytes;
}

/// A url of any dialect.
Url url_of(const std::string& text) { return need(Url::parse(text, kAnyUrlForm)); }

/// With K2_HOSTILE_LOG=FILE, victims and honest peers append what they log, with their process ids.
LogOptions to_file() {
  LogOptions out;
  const char* path = std::getenv("K2_HOSTILE_LOG");
  if (path == nullptr) return out;
  auto file = std::make_shared<std::ofstream>(path, std::ios::app);
  out.level = LogLevel::debug;
  out.callback = [file](const LogLine& line) {
    *file << line.time.micros / 1000 << " ms " << ::getpid() << ' ' << to_string(line.level) << ' ' << line.area << ": "
          << line.text << std::endl;
  };
  return out;
}

/// `relay`: its url, or "-".
NodeOptions quiet_options(const std::string& relay) {
  NodeOptions options;
  const char* network = std::getenv("K2_HOSTILE_NETWORK");
  options.dialect = relay == "-" ? dialect_of(network != nullptr ? network : "0.2") : dialect_at(relay);
  if (!options.dialect) fail("K2_HOSTILE_NETWORK is no dialect");
  options.log = to_file();
  options.config.k2_gossip.initial_initiate_interval_ms = options.config.k2_gossip.initiate_interval_ms = 3'600'000;
  // What an attack takes of the relay is judged: the honest peer must not have another way, unless that is what is
  // judged.
  const char* udp = std::getenv("K2_HOSTILE_UDP");
  options.config.iroh_transport.direct_paths = udp != nullptr;
  if (udp != nullptr) options.config.iroh_transport.direct_bind_address = udp;
  return options;
}

int victim(const std::string& dir, std::size_t ops, std::size_t size, std::size_t small, const std::string& relay) {
  NodeOptions options = quiet_options(relay);
  // A node is kept from gossip by what it fetches for as long as this at most. The attacks are to meet one that is not.
  options.config.k2_gossip.initial_initiate_interval_ms = K2GossipConfig().initial_initiate_interval_ms;
  options.data_dir = dir;
  if (relay == "-") {
    options.listen = "127.0.0.1:0";
  } else {
    options.relay = relay;
  }
  options.admin = "127.0.0.1:0";
  if (const char* most = std::getenv("K2_HOSTILE_MAX_PEERS"); most != nullptr)
    options.config.tx5_transport.max_peers = options.config.iroh_transport.max_peers =
        static_cast<std::uint32_t>(std::stoul(most));
  auto node = need(Node::start(options));
  auto space = need(node->space(kSpace));
  const auto store = [&](std::size_t first, std::size_t count, std::size_t bytes) {
    for (std::size_t done = 0; done < count; done += 1000) {
      auto part = testing::payloads_of(
          testing::make_ops(*make_sha256_policy(), first + done, std::min<std::size_t>(1000, count - done), bytes));
      need(node->wait<ProcessedOps>(
          [&](auto h) { space->op_store().process_incoming_ops(std::move(part), std::move(h)); }));
    }
  };
  store(0, ops, size);
  // The small ops, which gossip would have to name.
  store(10'000'000, small, 80);
  const Url url = need(node->wait_online(60s));
  // Where only known peers are spoken to, it has to be one; and without an agent it compares nothing.
  need(node->join(space, need(node->agent())));
  std::cout << R"({"relay":")" << (relay == "-" ? node->relay_url() : relay) << R"(","url":")" << url.to_string()
            << R"(","admin":")" << node->admin_addr() << "\"}" << std::endl;
  // "want URL": requests ops that nobody has from the peer at URL, so that what it sends may be an answer. They are too
  // few to keep the node from gossip while it fetches.
  std::string word;
  while (std::cin >> word) {
    if (word == "knows") {
      std::string agent;
      std::cin >> agent;
      const auto [known, all] = node->run([&] {
        auto& infos = space->peer_store();
        return std::pair(infos.get(AgentId(bytes_of(agent))) != nullptr, infos.get_all().size());
      });
      std::cout << R"({"knows":)" << (known ? "true" : "false") << R"(,"infos":)" << all << '}' << std::endl;
      continue;
    }
    if (word != "want") continue;
    std::string from;
    std::cin >> from;
    const auto ids = testing::ids_of(testing::make_ops(*make_sha256_policy(), 50'000'000, 900));
    const auto asked = node->wait<void>([&](auto h) { space->fetch().request_ops(ids, url_of(from), std::move(h)); });
    std::cout << R"({"asked":)" << (asked ? "true" : "false") << '}' << std::endl;
  }
  space.reset();
  node->stop();
  return 0;
}

/// A node with an agent that joins and stays. During an attack the victim must not forget it.
int neighbour(const std::string& relay) {
  come_from(1, kNeighbourNetwork);
  NodeOptions options = quiet_options(relay);
  options.relay = relay;
  auto node = need(Node::start(options));
  auto space = need(node->space(kSpace));
  need(node->wait_online(60s));
  const auto agent = need(node->agent());
  need(node->join(space, agent));
  std::cout << R"({"agent":")" << agent->agent().to_string() << "\"}" << std::endl;
  while (true) std::this_thread::sleep_for(1s);  // until it is killed
}

/// Prints the info of a new agent in `space`, in the form in which it is put to a bootstrap server.
int info(const std::string& relay, const std::string& space) {
  const auto agent = Ed25519LocalAgent::generate();
  testing::AgentInfoBuilder builder;
  builder.space = SpaceId::from_text(space);
  builder.created_at = AsioRuntime().wall_now();
  builder.url = url_of(uses_iroh(dialect_at(relay)) ? relay + std::string(64, 'a')
                                                    : relay + "/7Y3LhBcLxGZnfYDKYxBq4YaPHcVCOCw4xMQYYKMSmTk");
  std::cout << "/bootstrap/" << builder.space.to_string() << '/' << agent->agent().to_string() << '\n'
            << builder.sign(*agent)->encode() << std::endl;
  return 0;
}

/// A node with which the honest peer fetches everything once, as somebody whom the victim has served nothing yet.
struct Newcomer {
  std::unique_ptr<Node> node;
  std::shared_ptr<Space> space;
};

Newcomer come(const std::string& relay) {
  NodeOptions options = quiet_options(relay);
  options.relay = relay;
  Newcomer out;
  out.node = need(Node::start(options));
  out.space = need(out.node->space(kSpace));
  need(out.node->wait_online(60s));
  return out;
}

/// Where only known peers are heard, newcomers are made known beforehand: they join, and one op is fetched. A flood of
/// strangers makes that take seconds, and what is measured is what the victim does for those whom it knows.
class Newcomers {
 public:
  /// `first`: the op.
  Newcomers(std::string relay, Url source, OpId first)
      : relay_(std::move(relay)), source_(std::move(source)), first_(std::move(first)) {
    if (!known_peers_only(dialect_at(relay_))) return;
    for (int i = 0; i < kAtOnce; ++i) std::thread([this] { prepare(); }).detach();
  }
  Newcomer take() {
    if (!known_peers_only(dialect_at(relay_))) return come(relay_);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ready_.empty(); });
    Newcomer out = std::move(ready_.front());
    ready_.pop_front();
    changed_.notify_all();
    return out;
  }
  /// The longest time that one has taken to become known, in seconds, since this was asked last.
  double slowest() {
    const std::lock_guard lock(mutex_);
    return std::exchange(slowest_, 0);
  }

 private:
  static constexpr std::size_t kReady = 6;
  static constexpr int kAtOnce = 3;  ///< one that has to wait until it is listed does not hold up the next
  void prepare() {
    while (true) {  // until it is killed
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return ready_.size() < kReady; });
      }
      const auto start = std::chrono::steady_clock::now();
      Newcomer made = come(relay_);
      need(made.node->join(made.space, need(made.node->agent()), DhtArc::none()));
      need(made.node->wait<void>([&](auto h) { made.space->fetch().request_ops({first_}, source_, std::move(h)); }));
      while (made.node->run([&] { return made.space->fetch().stats().ops_fetched; }) == 0) {
        std::this_thread::sleep_for(10ms);
      }
      const std::lock_guard lock(mutex_);
      ready_.push_back(std::move(made));
      slowest_ = std::max(slowest_, seconds_since(start));
      changed_.notify_all();
    }
  }

  const std::string relay_;
  const Url source_;
  const OpId first_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Newcomer> ready_;
  double slowest_ = 0;
};

int honest(const std::string& relay, const std::string& from, std::size_t ops, std::size_t size) {
  // Where newcomers are listed before they are heard, each comes from an address of its own, as in reality: of the
  // address with the most entries a bootstrap server keeps the fewest.
  come_from(known_peers_only(dialect_at(relay)) ? 64 : 1, kHonestNetwork);
  const Url source = url_of(from);
  const auto ids = all_ids(ops, size);
  Newcomers newcomers(relay, source, ids.front());
  std::uint64_t before = 0;
  std::uint64_t direct = 0, by_relay = 0;  // how often it was seen to be reached so
  while (true) {                           // until it is killed
    Newcomer one = newcomers.take();
    const std::unique_ptr<Node>& node = one.node;
    const std::shared_ptr<Space>& space = one.space;
    const auto start = node->run([&] { return space->fetch().stats().ops_fetched; });
    need(node->wait<void>([&](auto h) { space->fetch().request_ops(ids, source, std::move(h)); }));
    std::promise<void> drained;
    auto end = drained.get_future();
    node->run([&] { space->fetch().notify_on_drained([&] { drained.set_value(); }); });
    while (true) {
      const bool over = end.wait_for(100ms) == std::future_status::ready;
      const auto fetched = node->run([&] { return space->fetch().stats().ops_fetched; }) - start;
      const auto stats = node->run([&] { return node->kitsune().transport().stats(); });
      const bool is_direct = std::ranges::any_of(
          stats.connections, [&](const auto& connection) { return connection.peer == source && connection.is_direct; });
      (is_direct ? direct : by_relay) += 1;
      std::cout << R"({"ops":)" << before + fetched << R"(,"known_after":)" << newcomers.slowest() << R"(,"direct":)"
                << direct << R"(,"by_relay":)" << by_relay << '}' << std::endl;
      if (!over) continue;
      before += fetched;
      break;
    }
    // Its farewell to everybody that it knows is not waited for: attackers that are gone make it take two seconds.
    std::thread([gone = std::make_shared<Newcomer>(std::move(one))] {
      gone->space.reset();
      gone->node->stop();
    }).detach();
  }
}

std::string json(const Attack& attack, const std::string& kind, double seconds) {
  const Tally t = attack.tally();
  const auto number = [](const char* name, std::uint64_t value) {
    return ",\"" + std::string(name) + "\":" + std::to_string(value);
  };
  return R"({"kind":")" + kind + R"(","seconds":)" + std::to_string(seconds) + number("peers", attack.peers()) +
         number("messages", t.messages) + number("bytes", t.bytes) + number("failed", t.failed) +
         number("closed", t.closed) + number("received", t.received) + number("ids", t.ids) + "}";
}

int attack(const Plan& plan, double seconds) {
  const auto start = std::chrono::steady_clock::now();
  come_from(plan.addresses, plan.network);
  AsioRuntime runtime;
  auto attack = make_flood(runtime, plan);
#ifdef K2_HOSTILE_QUIC
  if (!attack) attack = make_quic_attack(runtime, plan);
  if (!attack) attack = make_told_flood(runtime, plan);
#endif
  if (!attack) attack = make_udp_flood(plan);
  if (!attack) attack = make_peer_attack(runtime, plan);
  runtime.start();
  runtime.post([&] { attack->start(); });
  std::cout << R"({"started":true})" << std::endl;
  while (seconds_since(start) < seconds) {
    std::this_thread::sleep_for(200ms);
    runtime.call([&] { std::cout << json(*attack, plan.kind, seconds_since(start)) << std::endl; });
  }
  // The end of the process closes the connections.
  std::_Exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  const auto number = [&](std::size_t i) { return std::stoul(args.at(i)); };
  if (args.size() == 6 && args[0] == "victim") return victim(args[1], number(2), number(3), number(4), args[5]);
  if (args.size() == 2 && args[0] == "neighbour") return neighbour(args[1]);
  if (args.size() == 3 && args[0] == "info") return info(args[1], args[2]);
  if (args.size() == 5 && args[0] == "honest") return honest(args[1], args[2], number(3), number(4));
  if ((args.size() == 10 || args.size() == 11) && args[0] == "attack") {
    // From several addresses, because the relay divides what one address may send among its connections.
    return attack({.kind = args[1],
                   .relay = args[2],
                   .victim = url_of(args[3]),
                   .space = args.size() == 11 ? SpaceId(bytes_of(args[10])) : kSpace,
                   .ops = number(4),
                   .size = number(5),
                   .peers = number(6),
                   .addresses = number(8),
                   .network = number(9)},
                  static_cast<double>(number(7)));
  }
  fail("usage: see hostile_peer.cpp");
}
