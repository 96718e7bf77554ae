// The example of README.md, compiled by the tests. Keep both the same: tests/docs checks it.
#include <kitsune2/kitsune2.hpp>
using namespace kitsune2;

int main() {
  auto node = Node::start({.data_dir = "my-node", .listen = "127.0.0.1:0"}).value();  // relay inside
  auto space = node->space(SpaceId::from_text("my-app")).value();
  auto me = Ed25519LocalAgent::load_or_create("my-node/agent.key").value();
  node->wait<void>([&](auto done) { space->local_agent_join(me, done); }).value();  // be found
  node->wait<ProcessedOps>([&](auto done) {                                         // keep an op
        space->op_store().process_incoming_ops({Bytes::copy_of("hello, kitsune")}, done);
      })
      .value();
}
