// The key that identifies an iroh endpoint to its relay and to its peers.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "kitsune2/bytes.hpp"
#include "transport/iroh/relay_frames.hpp"

namespace kitsune2::iroh {

using Signature = std::array<std::uint8_t, 64>;

/// An Ed25519 key. It belongs to the endpoint, not to an agent. Wiped on destruction.
class EndpointKey {
 public:
  using Seed = std::array<std::uint8_t, 32>;
  explicit EndpointKey(const Seed& seed);
  ~EndpointKey();
  EndpointKey(const EndpointKey&) = delete;
  EndpointKey& operator=(const EndpointKey&) = delete;

  const EndpointId& id() const { return id_; }
  Signature sign(ByteView message) const;
  static bool verify(const EndpointId& id, ByteView message, const Signature& signature);

 private:
  EndpointId id_{};
  std::array<std::uint8_t, 64> secret_{};
};

/// BLAKE3's key derivation for a context and material of at most one block, 64 bytes, each (abort).
std::array<std::uint8_t, 32> blake3_derive_key(std::string_view context, ByteView material);

/// What a client signs to prove its key to a relay that sent this challenge.
std::array<std::uint8_t, 32> to_be_signed(const ServerChallenge& challenge);

}  // namespace kitsune2::iroh
