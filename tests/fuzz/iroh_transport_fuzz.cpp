// The whole iroh transport behind a relay that may lie, with peers whose QUIC is right and whose words are the input,
// in virtual time: never crashes, tells its owner by the rules, keeps its bounds, completes every send. Input: commands
// of one byte; those that say something take one of length and so many bytes.
#include <algorithm>
#include <string>

#include "fuzz/fuzz.hpp"
#include "unit/transport/iroh/iroh_peers.hpp"

using namespace kitsune2;         // NOLINT(google-build-using-namespace)
using namespace kitsune2::tests;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  set_hash_seed(1);
  const Bytes input = fuzz::input(data, size);
  testing::SimWorld world(1);
  FakeIrohRelay relay(world);
  IrohTransportConfig config = plain_iroh_config();
  config.max_frame_bytes = 200'000;
  config.max_queue_bytes_per_peer = 50'000;
  config.max_peers = 3;
  constexpr std::uint8_t kOwn = 3;  // some ids are larger, some smaller
  IrohTestNode node(world, relay, kOwn, config);
  std::vector<std::unique_ptr<IrohHandPeer>> peers;
  for (std::uint8_t key = 4; key <= 7; ++key) peers.push_back(std::make_unique<IrohHandPeer>(world, relay, key));
  world.run_for(std::chrono::seconds(1));
  K2_ASSERT(node.transport->url().has_value());

  std::size_t sends = 0, steps = 0;
  for (std::size_t at = 0; at < input.size() && ++steps < 200;) {
    const std::uint8_t command = input[at++];
    const auto byte = [&] { return at < input.size() ? input[at++] : std::uint8_t{0}; };
    const auto bytes = [&] {
      const Bytes out = input.slice(at + 1, byte());
      at += out.size();
      return out;
    };
    const std::size_t number = command % peers.size();
    const auto key = static_cast<std::uint8_t>(4 + number);
    IrohHandPeer& peer = *peers[number];
    const auto chosen = [&] { return peer.ids.empty() ? quic::Endpoint::Id{0} : peer.ids[byte() % peer.ids.size()]; };
    switch (command / peers.size() % 16) {
      case 0:
        peer.dial(kOwn);
        break;
      case 1:
      case 2:
        peer.send_preflight(chosen(), url_of(key));
        break;
      case 3:
        peer.send_preflight(chosen(), url_of(static_cast<std::uint8_t>(3 + byte() % 5)));
        break;
      case 4:
      case 5:
        peer.send_data(chosen(), bytes().text());
        break;
      case 6: {
        const std::string large(std::size_t{byte()} * 1000, 'x');
        peer.send_data(chosen(), large);
        break;
      }
      case 7: {
        const auto id = chosen();
        if (const Bytes raw = bytes(); !raw.empty()) peer.send(id, ByteChain(raw));
        break;
      }
      case 8:
        peer.close(chosen(), byte() % 4);
        break;
      case 9:
        peer.answers = !peer.answers;
        break;
      case 10:
      case 11:
        node.send(url_of(key), std::string(std::size_t{byte()} << 8U, 'm'));
        ++sends;
        break;
      case 12:
        node.transport->disconnect(url_of(key), {.text = "bye"}, {});
        break;
      case 13:
        if (const Bytes raw = bytes(); !raw.empty()) relay.forward(id_of(key), {id_of(kOwn), 0, byte(), raw});
        break;
      case 14:
        if (command >= 240) {
          relay.cut();
        } else {
          relay.options.accept = !relay.options.accept;
        }
        break;
      default:
        world.run_for(std::chrono::milliseconds(1) * (1 << (byte() % 16)));
        break;
    }
    world.run_ready();
    K2_ASSERT(node.events.violations == 0 && node.events.live.size() <= config.max_peers);
    for (const auto& [from, messages] : node.events.messages) {
      for (const Bytes& message : messages) K2_ASSERT(message.size() <= config.max_frame_bytes);
    }
  }
  bool stopped = false;
  node.transport->stop([&] { stopped = true; });
  world.run_for(std::chrono::seconds(200));
  K2_ASSERT(stopped && node.results.size() == sends && node.events.live.empty() && node.events.violations == 0);
  return 0;
}
