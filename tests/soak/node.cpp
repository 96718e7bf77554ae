// A node for the soak: one space on disk, full arc. Lines on stdin are its orders; it answers each with a JSON line.
// usage: soak_node DATA_DIR WS_RELAY_URL SPACE [CONFIG_FILE]
//     publish COUNT SEED   stores COUNT ops (100 B to 4 KiB, from SEED), prints their ids once they are durable, and
//                          tells all known peers; gossip finds what they miss
//     stats                what it holds, what it waits for, and how much memory it uses
// At the end of input, or on SIGTERM, it leaves the space and stops.
#include <malloc.h>
#include <poll.h>
#include <sqlite3.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <csignal>
#include <iostream>
#include <kitsune2/kitsune2.hpp>
#include <random>
#include <sstream>
#include <string>

using namespace kitsune2;

namespace {

class SoakNode {
 public:
  Result<void> start(NodeOptions options, const std::string& space) {
    auto node = Node::start(std::move(options));
    if (!node) return node.error();
    node_ = std::move(*node);
    auto made = node_->space(SpaceId::from_text(space));
    if (!made) return made.error();
    space_ = *made;
    auto agent = node_->agent();
    if (!agent) return agent.error();
    agent_ = *agent;
    node_->run([this] { agent_->set_tgt_storage_arc(DhtArc::full()); });
    return node_->wait<void>([this](auto done) { space_->local_agent_join(agent_, done); });
  }

  void stop() {
    static_cast<void>(node_->wait<void>(
        [this](auto done) { space_->local_agent_leave(agent_->agent(), [done] { done(Result<void>()); }); }));
    space_.reset();
    node_->stop();
  }

  std::string publish(std::size_t count, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<Bytes> ops;
    for (std::size_t i = 0; i < count; ++i) ops.push_back(make_op(random));
    auto stored = node_->wait<ProcessedOps>(
        [&](auto done) { space_->op_store().process_incoming_ops(std::move(ops), std::move(done)); });
    if (!stored) return R"({"event":"failed","message":")" + stored.error().to_string() + "\"}";
    std::vector<OpId> ids;
    std::string out = R"({"event":"published","ids":[)";
    for (const auto& op : stored->stored) {
      out += (ids.empty() ? "\"" : ",\"") + to_hex(op.op_id) + '"';
      ids.push_back(op.op_id);
    }
    node_->run([&] {
      for (const auto& peer : space_->peer_store().get_all()) {
        if (peer->info().agent == agent_->agent() || !peer->info().url) continue;
        space_->publish().publish_ops(ids, *peer->info().url, [](Result<void>) {});
      }
    });
    return out + "]}";
  }

  std::string stats() {
    const auto held = node_->wait<OpStoreStats>([this](auto done) { space_->op_store().stats(std::move(done)); });
    std::ostringstream out;
    node_->run([&] {
      const auto fetch = space_->fetch().stats();
      const auto gossip = space_->gossip().stats();
      out << R"({"event":"stats","ops":)" << (held ? held->ops : 0) << ",\"bytes\":" << (held ? held->bytes : 0)
          << ",\"pending\":" << space_->fetch().pending_ops() << ",\"fetched\":" << fetch.ops_fetched
          << ",\"served\":" << fetch.ops_served << ",\"duplicate\":" << fetch.ops_duplicate
          << ",\"overdue\":" << fetch.requests_overdue << ",\"store_failures\":" << fetch.store_failures
          << ",\"given_up\":" << fetch.pairs_dropped_unresponsive << ",\"rounds\":" << gossip.completed
          << ",\"round_timeouts\":" << gossip.timeouts << ",\"peers\":" << space_->peer_store().get_all().size()
          << ",\"online\":" << (space_->current_url() ? "true" : "false");
    });
    // What is in use shows a leak to the byte; what malloc keeps free is separate, and so are SQLite's (bounded) page
    // caches.
    const struct mallinfo2 heap = mallinfo2();
    out << ",\"heap\":" << heap.uordblks + heap.hblkhd << ",\"free\":" << heap.fordblks
        << ",\"sqlite\":" << sqlite3_memory_used() << '}';
    return out.str();
  }

 private:
  /// The envelope of the SHA-256 policy (docs/store-format.md) with the current time, then random bytes.
  Bytes make_op(std::mt19937_64& random) {
    std::uniform_real_distribution<double> exponent(0, 1);
    const auto size = static_cast<std::size_t>(100 * std::pow(40.96, exponent(random)));
    std::vector<std::uint8_t> op = {0x6b, 0x32, 0x6f, 0x70, 1};
    const auto now = static_cast<std::uint64_t>(node_->runtime().wall_now().micros);
    for (int shift = 56; shift >= 0; shift -= 8) op.push_back(static_cast<std::uint8_t>(now >> shift));
    while (op.size() < size) op.push_back(static_cast<std::uint8_t>(random()));
    return Bytes(std::move(op));
  }

  std::unique_ptr<Node> node_;
  std::shared_ptr<Space> space_;
  std::shared_ptr<Ed25519LocalAgent> agent_;
};

/// Handles whole lines of stdin until it ends or a signal comes.
void serve(SoakNode& node, int signals) {
  std::string buffer;
  for (;;) {
    pollfd waits[2] = {{STDIN_FILENO, POLLIN, 0}, {signals, POLLIN, 0}};
    if (::poll(waits, 2, -1) < 0 && errno != EINTR) return;
    if (waits[1].revents != 0) return;
    char part[4096];
    const auto n = ::read(STDIN_FILENO, part, sizeof part);
    if (n <= 0) return;
    buffer.append(part, static_cast<std::size_t>(n));
    for (std::size_t end = 0; (end = buffer.find('\n')) != std::string::npos; buffer.erase(0, end + 1)) {
      std::istringstream line(buffer.substr(0, end));
      std::string command;
      std::size_t count = 0;
      std::uint64_t seed = 0;
      line >> command;
      if (command == "publish" && line >> count >> seed) {
        std::cout << node.publish(count, seed) << std::endl;
      } else if (command == "stats") {
        std::cout << node.stats() << std::endl;
      } else {
        std::cout << R"({"event":"failed","message":"no such command"})" << std::endl;
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    std::cerr << "usage: soak_node DATA_DIR WS_RELAY_URL SPACE [CONFIG_FILE]\n";
    return 2;
  }
  // Before there is a second thread, so that all threads inherit it.
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  sigprocmask(SIG_BLOCK, &stop, nullptr);
  const int signals = ::signalfd(-1, &stop, SFD_CLOEXEC);

  NodeOptions options;
  options.data_dir = argv[1];
  options.relay = argv[2];
  if (argc == 5) {
    auto config = Config::load_file(argv[4]);
    if (!config) return std::cerr << config.error().to_string() << '\n', 2;
    options.config = *config;
  }
  SoakNode node;
  if (auto started = node.start(std::move(options), argv[3]); !started) {
    std::cerr << started.error().to_string() << '\n';
    return 1;
  }
  std::cout << R"({"event":"ready"})" << std::endl;
  serve(node, signals);
  node.stop();
  return 0;
}
