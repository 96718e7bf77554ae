// A chat over notify: what you type is sent to everybody in the space.
// usage: chat RELAY_URL ROOM NAME      e.g. chat http://127.0.0.1:33333/relay kitchen alice
// Works with any kitsune2 0.2 node: here a notify is plain UTF-8 text.
#include <iostream>
#include <kitsune2/kitsune2.hpp>
#include <string>

using namespace kitsune2;

struct Room : SpaceHandler {
  void recv_notify(const Url&, const SpaceId&, Bytes data) override { std::cout << data.text() << std::endl; }
};

struct Chat : KitsuneHandler {
  Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId&) override { return std::make_shared<Room>(); }
};

int main(int argc, char** argv) {
  if (argc != 4) return std::cerr << "usage: chat RELAY_URL ROOM NAME\n", 2;
  auto started = Node::start({.relay = argv[1], .handler = std::make_shared<Chat>()});
  if (!started) return std::cerr << started.error().to_string() << '\n', 1;
  Node& node = **started;
  auto room = node.space(SpaceId::from_text(argv[2])).value();
  auto me = Ed25519LocalAgent::generate();
  auto joined = node.wait<void>([&](auto done) { room->local_agent_join(me, done); });
  if (!joined) return std::cerr << joined.error().to_string() << '\n', 1;

  for (std::string line; std::getline(std::cin, line);) {
    const auto said = Bytes::copy_of(std::string(argv[3]) + ": " + line);
    node.run([&] {
      for (const auto& peer : room->peer_store().get_all()) {
        if (peer->info().agent == me->agent() || !peer->info().url) continue;
        room->send_notify(*peer->info().url, said, [](Result<void> sent) {
          if (!sent) std::cerr << "not delivered: " << sent.error().to_string() << std::endl;
        });
      }
    });
  }
  node.wait<void>([&](auto done) { room->local_agent_leave(me->agent(), [done] { done(Result<void>()); }); }).value();
}
