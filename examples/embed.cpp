// A node in 30 lines: joins a space, stores an op for each TEXT, tells every peer, prints what it holds.
// usage: embed RELAY_URL SPACE SECONDS TEXT...
#include <chrono>
#include <iostream>
#include <kitsune2/kitsune2.hpp>
#include <string>
#include <thread>

using namespace kitsune2;

int main(int argc, char** argv) {
  if (argc < 4) return std::cerr << "usage: embed RELAY_URL SPACE SECONDS TEXT...\n", 2;
  auto started = Node::start({.relay = argv[1]});
  if (!started) return std::cerr << started.error().to_string() << '\n', 1;
  Node& node = **started;
  auto space = node.space(SpaceId::from_text(argv[2])).value();
  auto agent = node.agent().value();
  node.join(space, agent).value();

  std::vector<Bytes> texts;
  for (int i = 4; i < argc; ++i) texts.push_back(Bytes::copy_of(std::string_view(argv[i])));
  auto mine = node.wait<ProcessedOps>([&](auto done) { space->op_store().process_incoming_ops(texts, done); }).value();
  std::vector<OpId> ids;
  for (const auto& op : mine.stored) ids.push_back(op.op_id);

  for (int second = 0; second < std::stoi(argv[3]); ++second) {
    node.run([&] {
      for (const auto& peer : space->peer_store().get_all()) {
        if (peer->info().agent == agent->agent() || !peer->info().url || ids.empty()) continue;
        space->publish().publish_ops(ids, *peer->info().url, [](Result<void>) {});
      }
    });
    std::this_thread::sleep_for(std::chrono::seconds(1));
    auto held = node.wait<OpStoreStats>([&](auto done) { space->op_store().stats(done); }).value();
    std::cout << "holding " << held.ops << " ops, " << held.bytes << " bytes" << std::endl;
  }
}
