// One direction's encryption between two nodes. See docs/protocol-tx5.md, 2.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kitsune2/bytes.hpp"

namespace kitsune2::tx5 {

inline constexpr std::size_t kStreamHeaderBytes = 24;
/// What encryption adds to a plaintext.
inline constexpr std::size_t kSealBytes = 17;

/// One direction's secretstream state (XChaCha20-Poly1305, no associated data, tag 0, no rekey). Wiped at the end.
class StreamState {
 public:
  using Header = std::array<std::uint8_t, kStreamHeaderBytes>;
  StreamState(const Header& header, const std::array<std::uint8_t, 32>& key);
  StreamState(const StreamState&) = delete;
  StreamState& operator=(const StreamState&) = delete;
  ~StreamState();

  /// Encrypts `parts`, one after the other, into `out`, which has room for 17 bytes more and overlaps none of them.
  void seal(std::span<const ByteView> parts, std::uint8_t* out);
  /// Decrypts into `out`, which has room for `ciphertext.size() - 17`. False (state unchanged): too short or forged.
  bool open(ByteView ciphertext, std::uint8_t* out);

 private:
  // crypto_secretstream_xchacha20poly1305_state, kept opaque so that this header does not need libsodium.
  alignas(8) std::array<std::uint8_t, 52> state_{};
};

}  // namespace kitsune2::tx5
