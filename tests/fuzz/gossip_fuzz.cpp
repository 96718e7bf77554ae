// Gossip messages: decoding never crashes; what is accepted is the same after being written and read again.
#include "wire/gossip_messages.hpp"

#include "fuzz/fuzz.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

void try_gossip(Dialect dialect, const Bytes& message) {
  wire::WireLimits limits;
  limits.max_items = 1000;
  const Result<wire::GossipMessage> decoded = wire::decode_gossip(dialect, message, limits);
  if (!decoded) return;
  const Bytes session = std::visit([](const auto& m) { return m.session_id; }, *decoded);
  K2_ASSERT(!session.empty());
  K2_ASSERT(fuzz::inside(message, session));
  const Bytes again = wire::encode_gossip(*decoded);
  const Result<wire::GossipMessage> second = wire::decode_gossip(dialect, again, limits);
  K2_ASSERT(second.has_value() && *second == *decoded);
  K2_ASSERT(wire::encode_gossip(*second) == again);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes message = fuzz::input(data, size);
  try_gossip(Dialect::v0_2, message);
  try_gossip(Dialect::v0_5, message);
  return 0;
}
