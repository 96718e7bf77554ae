// The whole tx5 transport behind a relay that may lie, with three peers whose crypto is right and whose words are the
// input, in virtual time: never crashes, tells its owner by the rules, keeps its bounds, completes every send. Input:
// commands of one byte; those that say something take one of length and so many bytes.
#include <algorithm>
#include <string>

#include "fuzz/fuzz.hpp"
#include "unit/transport/tx5/fake_relay.hpp"

using namespace kitsune2;         // NOLINT(google-build-using-namespace)
using namespace kitsune2::tests;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  set_hash_seed(1);
  const Bytes input = fuzz::input(data, size);
  testing::SimWorld world(1);
  FakeRelay relay(world, "ws://relay:1");
  FakeRelay other(world, "ws://other:1");
  Tx5TransportConfig config;
  config.message_size_max = 50'000;
  config.max_queue_bytes_per_peer = 50'000;
  config.max_peers = 3;
  tx5::LinkLimits limits;
  limits.max_strangers = 2;
  limits.permits.max_granted_bytes = 80'000;
  limits.max_closing_frames = 4;
  TestNode node(world, {&relay, &other}, config, limits);
  std::vector<std::unique_ptr<HandPeer>> peers;
  for (std::uint8_t seed = 1; seed <= 4; ++seed) peers.push_back(std::make_unique<HandPeer>(world, relay, seed));
  world.run_for(std::chrono::seconds(1));
  K2_ASSERT(node.transport->url().has_value());

  std::size_t sends = 0, steps = 0;
  for (std::size_t at = 0; at < input.size() && ++steps < 300;) {
    const std::uint8_t command = input[at++];
    const auto byte = [&] { return at < input.size() ? input[at++] : std::uint8_t{0}; };
    const auto bytes = [&] {
      const Bytes out = input.slice(at + 1, byte());
      at += out.size();
      return out;
    };
    HandPeer& peer = *peers[command % peers.size()];
    const auto url = node.transport->url();
    if (!url) {
      world.run_for(std::chrono::seconds(1));
      continue;
    }
    const NodeId me = node_id_of(*url);
    switch (command / peers.size() % 16) {
      case 0:
        relay.to_all(bytes());
        break;
      case 1:
        peer.say_raw(me, bytes());
        break;
      case 2:
        peer.say(me, bytes());
        break;
      case 3:
        peer.say(me, "fmsg", bytes());
        break;
      case 4:
        peer.open(me);
        break;
      case 5:
        peer.obey();
        peer.say_hreq(me);
        break;
      case 6: {
        const std::string payload(std::size_t{byte()} * 60, 'm');
        peer.say_frame(me, tx5::FrameType::message, static_cast<std::uint32_t>(payload.size()), as_bytes(payload));
        break;
      }
      case 7:
        peer.say_frame(me, tx5::FrameType::permit_request, std::uint32_t{byte()} << 8U);
        break;
      case 8: {
        const std::string payload(1 + std::size_t{byte()} * 60, 'c');
        peer.say_frame(me, tx5::FrameType::chunk, static_cast<std::uint32_t>(payload.size()), as_bytes(payload));
        break;
      }
      case 9:
        peer.say_frame(me, tx5::FrameType::permit_grant, std::uint32_t{byte()} << 8U);
        break;
      case 10:
        peer.forget(me);
        peer.new_stream(me);
        break;
      case 11:
        node.send(peer.url(), Bytes(std::vector<std::uint8_t>(std::size_t{byte()} << 8U)));
        ++sends;
        break;
      case 12: {
        Url far = *Url::parse(other.url() + "/" + sbd::to_path(peer.id()));
        node.send(far, bytes());
        ++sends;
        break;
      }
      case 13:
        node.transport->disconnect(peer.url(), {.text = "bye"}, Bytes::copy_of("\x08\x04"));
        break;
      case 14:
        if (command >= 240) {
          relay.cut();
        } else {
          relay.set_byte_nanos(static_cast<std::int32_t>(byte()) * 100);
        }
        break;
      default:
        world.run_for(std::chrono::milliseconds(1) * (1 << (byte() % 16)));
        break;
    }
    world.run_ready();
    K2_ASSERT(node.events.violations == 0 && node.events.live.size() <= config.max_peers);
    for (const auto& [from, messages] : node.events.messages) {
      for (const Bytes& message : messages) K2_ASSERT(message.size() <= config.message_size_max);
    }
  }
  bool stopped = false;
  node.transport->stop([&] { stopped = true; });
  world.run_for(std::chrono::seconds(200));
  K2_ASSERT(stopped && node.results.size() == sends && node.events.live.empty() && node.events.violations == 0);
  return 0;
}
