// The secretstream as libsodium does it: K2_SECRETSTREAM=libsodium. Slower than stream_state_openssl.cpp, and without
// any knowledge of how libsodium lays out its state.
#include <sodium.h>

#include <algorithm>
#include <new>

#include "transport/tx5/stream_state.hpp"

namespace kitsune2::tx5 {
namespace {

using SodiumState = crypto_secretstream_xchacha20poly1305_state;

SodiumState* as_sodium(std::array<std::uint8_t, 52>& state) {
  return std::launder(reinterpret_cast<SodiumState*>(state.data()));
}

}  // namespace

StreamState::~StreamState() { sodium_memzero(state_.data(), state_.size()); }

void StreamState::seal(std::span<const ByteView> parts, std::uint8_t* out) {
  std::uint8_t* at = out + 1;
  for (const ByteView part : parts) at = std::copy(part.begin(), part.end(), at);
  crypto_secretstream_xchacha20poly1305_push(as_sodium(state_), out, nullptr, out + 1,
                                             static_cast<std::size_t>(at - out - 1), nullptr, 0, 0);
}

bool StreamState::open(ByteView ciphertext, std::uint8_t* out) {
  if (ciphertext.size() < kSealBytes) return false;
  unsigned char ignored_tag = 0;
  return crypto_secretstream_xchacha20poly1305_pull(as_sodium(state_), out, nullptr, &ignored_tag, ciphertext.data(),
                                                    ciphertext.size(), nullptr, 0) == 0;
}

}  // namespace kitsune2::tx5
