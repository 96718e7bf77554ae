// Gossip messages: never crashes; what is accepted is the same after being written and read again.
#include "wire/gossip_messages.hpp"

#include "fuzz/fuzz.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes message = fuzz::input(data, size);
  wire::WireLimits limits;
  limits.max_items = 1000;
  const Result<wire::GossipMessage> decoded = wire::decode_gossip(message, limits);
  if (!decoded) return 0;
  K2_ASSERT(!wire::session_of(*decoded).empty());
  K2_ASSERT(fuzz::inside(message, wire::session_of(*decoded)));
  const Bytes again = wire::encode_gossip_data(*decoded);
  const Result<wire::GossipMessage> second = wire::decode_gossip(again, limits);
  K2_ASSERT(second.has_value() && *second == *decoded);
  K2_ASSERT(wire::encode_gossip_data(*second) == again);
  return 0;
}
