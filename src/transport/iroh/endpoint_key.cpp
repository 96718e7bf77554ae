// Ed25519 by libsodium, and the single use of BLAKE3 in the relay protocol.
#include "transport/iroh/endpoint_key.hpp"

#include <sodium.h>

#include <bit>
#include <cstring>
#include <utility>

#include "kitsune2/error.hpp"

namespace kitsune2::iroh {
namespace {

using Words = std::array<std::uint32_t, 8>;
using Block = std::array<std::uint32_t, 16>;

constexpr std::size_t kBlockBytes = 64;
constexpr Words kStart = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
constexpr std::array<std::size_t, 16> kPermutation = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};

// A message of one block is the first and the last block of its only chunk, and the root.
constexpr std::uint32_t kWhole = 1U | 2U | 8U;
constexpr std::uint32_t kDeriveKeyContext = 32;
constexpr std::uint32_t kDeriveKeyMaterial = 64;

void mix(Block& v, std::size_t a, std::size_t b, std::size_t c, std::size_t d, std::uint32_t x, std::uint32_t y) {
  v[a] += v[b] + x;
  v[d] = std::rotr(v[d] ^ v[a], 16);
  v[c] += v[d];
  v[b] = std::rotr(v[b] ^ v[c], 12);
  v[a] += v[b] + y;
  v[d] = std::rotr(v[d] ^ v[a], 8);
  v[c] += v[d];
  v[b] = std::rotr(v[b] ^ v[c], 7);
}

/// BLAKE3 of a message of one block under `key`.
Words hash_block(const Words& key, ByteView message, std::uint32_t mode) {
  K2_ASSERT(message.size() <= kBlockBytes);
  Block m{};
  for (std::size_t i = 0; i < message.size(); ++i) m[i / 4] |= std::uint32_t{message[i]} << (8 * (i % 4));
  Block v{};
  for (std::size_t i = 0; i < 8; ++i) v[i] = key[i];
  for (std::size_t i = 0; i < 4; ++i) v[8 + i] = kStart[i];
  v[14] = static_cast<std::uint32_t>(message.size());  // words 12 and 13, the number of the block, are 0
  v[15] = kWhole | mode;
  for (int round = 0; round < 7; ++round) {
    for (std::size_t i = 0; i < 4; ++i) mix(v, i, 4 + i, 8 + i, 12 + i, m[2 * i], m[2 * i + 1]);
    for (std::size_t i = 0; i < 4; ++i) {
      mix(v, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[8 + 2 * i], m[9 + 2 * i]);
    }
    Block next{};
    for (std::size_t i = 0; i < 16; ++i) next[i] = m[kPermutation[i]];
    m = next;
  }
  Words out{};
  for (std::size_t i = 0; i < 8; ++i) out[i] = v[i] ^ v[8 + i];
  return out;
}

}  // namespace

std::array<std::uint8_t, 32> blake3_derive_key(std::string_view context, ByteView material) {
  const Words key = hash_block(kStart, as_bytes(context), kDeriveKeyContext);
  const Words words = hash_block(key, material, kDeriveKeyMaterial);
  std::array<std::uint8_t, 32> out{};
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::uint8_t>(words[i / 4] >> (8 * (i % 4)));
  return out;
}

std::array<std::uint8_t, 32> to_be_signed(const ServerChallenge& challenge) {
  return blake3_derive_key("iroh-relay handshake v1 challenge signature", challenge.challenge);
}

EndpointKey::EndpointKey(const Seed& seed) { crypto_sign_seed_keypair(id_.data(), secret_.data(), seed.data()); }

EndpointKey::~EndpointKey() { sodium_memzero(secret_.data(), secret_.size()); }

Signature EndpointKey::sign(ByteView message) const {
  Signature out{};
  crypto_sign_detached(out.data(), nullptr, message.data(), message.size(), secret_.data());
  return out;
}

bool EndpointKey::verify(const EndpointId& id, ByteView message, const Signature& signature) {
  return crypto_sign_verify_detached(signature.data(), message.data(), message.size(), id.data()) == 0;
}

}  // namespace kitsune2::iroh
