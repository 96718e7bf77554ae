// How a secretstream begins, whichever library does the rest: stream_state_openssl.cpp or stream_state_libsodium.cpp.
#include "transport/tx5/stream_state.hpp"

#include <sodium.h>

#include <cstring>

namespace kitsune2::tx5 {

using SodiumState = crypto_secretstream_xchacha20poly1305_state;

// Both ends derive the same state from header and key, so init_pull serves the sender too. init_push would make a
// random header; here it comes from the caller, so that all randomness is the Runtime's and a simulation repeats.
StreamState::StreamState(const Header& header, const std::array<std::uint8_t, 32>& key) {
  static_assert(sizeof(SodiumState) == sizeof(state_));
  SodiumState state;
  crypto_secretstream_xchacha20poly1305_init_pull(&state, header.data(), key.data());
  std::memcpy(state_.data(), &state, sizeof state);
  sodium_memzero(&state, sizeof state);
}

}  // namespace kitsune2::tx5
