// The client of an iroh relay: whatever comes, and however time passes, it never crashes, answers every ping, has one
// ping of its own under way, and names a deadline at which there is something to do.
#include "transport/iroh/relay_client.hpp"

#include <algorithm>

#include "fuzz/fuzz.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

const iroh::EndpointKey& key() {
  static const iroh::EndpointKey out(iroh::EndpointKey::Seed{});
  return out;
}

/// Goes on to the deadline. False: the connection is to be left.
bool at_deadline(iroh::RelayClient& client, Time& now, std::uint8_t payload) {
  now = std::max(now, client.next_deadline());
  if (client.overdue(now)) return false;
  iroh::PingPayload bytes{};
  bytes.fill(payload);
  K2_ASSERT(client.ping(bytes, now).has_value());
  K2_ASSERT(!client.ping(bytes, now + std::chrono::hours(1)));
  K2_ASSERT(client.next_deadline() > now);
  K2_ASSERT(client.next_deadline() <= now + iroh::RelayClient::kMostPongWait);
  return true;
}

bool on_message(iroh::RelayClient& client, const Bytes& message, Time now) {
  const bool was_ready = client.is_ready();
  const auto outcome = client.on_message(message, now);
  if (!outcome) {
    K2_ASSERT(outcome.error().code == Errc::peer_fault || outcome.error().code == Errc::blocked);
    return false;
  }
  K2_ASSERT(outcome->ready == (client.is_ready() && !was_ready));
  if (was_ready && !message.empty() && message[0] == 9) K2_ASSERT(outcome->send && outcome->send->size() == 9);
  if (outcome->datagrams) K2_ASSERT(was_ready && fuzz::inside(message, outcome->datagrams->content));
  return true;
}

}  // namespace

// The first byte: the version, and whether the handshake goes well. Then commands: 255 goes to the next deadline (one
// byte of payload follows), 254 lets time pass (one byte, in units of 100 ms); any other is the length of a message.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  ByteView rest(data, size);
  const auto byte = [&rest] {
    const std::uint8_t out = rest.empty() ? 0 : rest[0];
    rest = rest.subspan(std::min<std::size_t>(1, rest.size()));
    return out;
  };
  const std::uint8_t first = byte();
  Time now{std::chrono::seconds(1)};
  iroh::RelayClient client(key(), (first & 1) != 0 ? iroh::RelayVersion::v1 : iroh::RelayVersion::v2, now);
  if ((first & 2) != 0) {
    K2_ASSERT(on_message(client, iroh::encode_relay_frame(iroh::Sender::relay, iroh::ServerChallenge{}), now));
    K2_ASSERT(on_message(client, iroh::encode_relay_frame(iroh::Sender::relay, iroh::ServerConfirmsAuth{}), now));
  }
  while (!rest.empty()) {
    const std::uint8_t command = byte();
    if (command == 255) {
      if (!at_deadline(client, now, byte())) return 0;
    } else if (command == 254) {
      now += std::chrono::milliseconds(100) * byte();
    } else {
      const ByteView message = rest.first(std::min<std::size_t>(command, rest.size()));
      rest = rest.subspan(message.size());
      if (!on_message(client, fuzz::input(message.data(), message.size()), now)) return 0;
    }
  }
  return 0;
}
