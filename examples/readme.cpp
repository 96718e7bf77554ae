// The example of README.md, compiled and run by the tests. Keep both the same: tests/docs checks it.
#include <iostream>
#include <kitsune2/kitsune2.hpp>
#include <thread>
using namespace kitsune2;

int main(int argc, char** argv) {
  // The first node has a relay inside. Start a second one with what the first one prints: ./app http://127.0.0.1:…
  NodeOptions options{.data_dir = argc > 1 ? "node-b" : "node-a"};
  (argc > 1 ? options.relay : options.listen) = argc > 1 ? argv[1] : "127.0.0.1:0";
  auto node = Node::start(options).value();
  auto space = node->space(SpaceId::from_text("my-app")).value();
  auto op = Bytes::copy_of("hello from " + options.data_dir);
  node->wait<ProcessedOps>([&](auto done) { space->op_store().process_incoming_ops({op}, done); }).value();
  node->join(space, node->agent().value()).value();  // be found; what others hold comes here, what is here goes there

  std::cout << "relay: " << node->relay_url() << std::endl;
  for (;; std::this_thread::sleep_for(std::chrono::seconds(1))) {
    auto held = node->wait<OpStoreStats>([&](auto done) { space->op_store().stats(done); }).value();
    std::cout << "holding " << held.ops << " ops" << std::endl;  // 2, as soon as the other node is there
  }
}
