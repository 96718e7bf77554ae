// Two nodes of different dialects in one process, and a host that carries the ops of a space from one network to the
// other. usage: bridge DIALECT RELAY_URL DIALECT RELAY_URL SPACE SECONDS
//   bridge 0.2 ws://127.0.0.1:4433 0.5 http://127.0.0.1:4434/relay my-space 60
#include "bridge.hpp"

#include <chrono>
#include <iostream>
#include <string>
#include <thread>

using namespace kitsune2;

int main(int argc, char** argv) {
  if (argc != 7) return std::cerr << "usage: bridge DIALECT RELAY_URL DIALECT RELAY_URL SPACE SECONDS\n", 2;
  std::vector<std::unique_ptr<Node>> nodes;
  std::vector<std::shared_ptr<Space>> spaces;
  for (int i : {1, 3}) {
    const auto dialect = dialect_of(argv[i]);
    if (!dialect) return std::cerr << argv[i] << ": no dialect; there are 0.2, 0.4 and 0.5\n", 2;
    auto node = Node::start({.dialect = dialect, .relay = argv[i + 1]});
    if (!node) return std::cerr << node.error().to_string() << '\n', 1;
    nodes.push_back(std::move(*node));
    // The agents are different ones: an agent's info has one url.
    spaces.push_back(nodes.back()->space(SpaceId::from_text(argv[5])).value());
    nodes.back()->join(spaces.back(), nodes.back()->agent().value()).value();
  }
  std::vector<std::shared_ptr<OneWay>> ways(2);
  for (int i : {0, 1}) {
    const OneWay::Side from{nodes[i]->runtime(), spaces[i]}, to{nodes[1 - i]->runtime(), spaces[1 - i]};
    nodes[i]->run([&] { ways[i] = OneWay::start(from, to); });
  }
  for (int second = 0; second < std::stoi(argv[6]); ++second) {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    for (int i : {0, 1}) {
      auto held = nodes[i]->wait<OpStoreStats>([&](auto done) { spaces[i]->op_store().stats(done); }).value();
      std::cout << argv[2 * i + 1] << ": " << held.ops << " ops" << (i == 0 ? "  " : "\n") << std::flush;
    }
  }
  // Each way ends on its strand, before either node does.
  for (int i : {0, 1}) nodes[i]->run([&] { ways[i].reset(); });
  // A batch may be on its way back, so both strands end before either runtime goes.
  for (auto& node : nodes) node->stop();
}
