// An application outside the source tree: two nodes, one relay, one op published and fetched.
#include <chrono>
#include <future>
#include <iostream>
#include <string>

#include <kitsune2/kitsune2.hpp>

using namespace kitsune2;

// kitsune2.hpp includes everything, with complete types.
static_assert(sizeof(AsioRuntime) > 0 && sizeof(MemoryNetwork) > 0 && sizeof(HttpRequest) > 0);

int main() {
  const auto headers = std::to_string(KITSUNE2_VERSION_MAJOR) + '.' + std::to_string(KITSUNE2_VERSION_MINOR) + '.' +
                       std::to_string(KITSUNE2_VERSION_PATCH);
  if (headers != version()) return std::cerr << "headers " << headers << ", library " << version() << '\n', 1;
  auto alice = Node::start({.dialect = Dialect::v0_2, .listen = "127.0.0.1:0"});
  if (!alice) return std::cerr << alice.error().to_string() << '\n', 1;
  auto bob = Node::start({.relay = (*alice)->relay_url()});
  if (!bob) return std::cerr << bob.error().to_string() << '\n', 1;
  const auto id = SpaceId::from_text("consumer");
  auto a = (*alice)->space(id).value();
  auto b = (*bob)->space(id).value();
  auto url = (*alice)->wait_online(std::chrono::seconds(20));
  if (!url || !(*bob)->wait_online(std::chrono::seconds(20))) return std::cerr << "not online\n", 1;

  auto stored = (*alice)->wait<ProcessedOps>(
      [&](auto done) { a->op_store().process_incoming_ops({Bytes::copy_of("an op from a consumer")}, done); });
  if (!stored || stored->stored.size() != 1) return std::cerr << "not stored\n", 1;
  auto pending = (*bob)->wait<void>([&](auto done) { b->fetch().request_ops({stored->stored[0].op_id}, *url, done); });
  if (!pending) return std::cerr << pending.error().to_string() << '\n', 1;
  std::promise<void> drained;
  (*bob)->run([&] { b->fetch().notify_on_drained([&] { drained.set_value(); }); });
  if (drained.get_future().wait_for(std::chrono::seconds(30)) != std::future_status::ready)
    return std::cerr << "not fetched\n", 1;
  std::cout << "fetched " << stored->stored[0].op_id.to_string() << '\n';
  return 0;
}
