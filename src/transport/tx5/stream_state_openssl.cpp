// The secretstream of libsodium on OpenSSL's ChaCha20 and Poly1305, which are a third faster than libsodium 1.0.18's.
// The default; see docs/decisions/0011-secretstream-on-openssl.md. State and bytes are libsodium's, and the tests
// compare the two. Where OpenSSL lacks these ciphers (FIPS), libsodium does the work.
#include "transport/tx5/stream_state.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "kitsune2/error.hpp"

namespace kitsune2::tx5 {
namespace {

using SodiumState = crypto_secretstream_xchacha20poly1305_state;

constexpr std::size_t kBlock = 64;
constexpr std::size_t kTag = 16;
constexpr std::size_t kCounter = 4;  // of the nonce: a counter of 4 bytes, then 8 that each tag is mixed into

class Ciphers;
/// The thread's, while it lives. A stream of a static object may end after its thread's objects.
constinit thread_local Ciphers* living = nullptr;

/// OpenSSL's contexts cost more to make than to use: one set a thread.
class Ciphers {
 public:
  Ciphers() {
    EVP_MAC* poly1305 = EVP_MAC_fetch(nullptr, "POLY1305", nullptr);
    EVP_CIPHER* chacha20 = EVP_CIPHER_fetch(nullptr, "ChaCha20", nullptr);
    cipher_ = EVP_CIPHER_CTX_new();
    if (poly1305 != nullptr) mac_ = EVP_MAC_CTX_new(poly1305);
    usable_ = cipher_ != nullptr && mac_ != nullptr && chacha20 != nullptr &&
              EVP_EncryptInit_ex2(cipher_, chacha20, nullptr, nullptr, nullptr) == 1;
    EVP_CIPHER_free(chacha20);
    EVP_MAC_free(poly1305);
    living = this;
  }
  ~Ciphers() {
    living = nullptr;
    EVP_CIPHER_CTX_free(cipher_);
    EVP_MAC_CTX_free(mac_);
  }
  Ciphers(const Ciphers&) = delete;
  Ciphers& operator=(const Ciphers&) = delete;

  static Ciphers& here() {
    thread_local Ciphers ciphers;
    return ciphers;
  }

  bool usable() const { return usable_; }

  /// Begins a message: keys the authenticator from the stream's first block, gives the second, which hides the tag.
  void begin(const std::uint8_t* key, const std::uint8_t* nonce, std::uint8_t (&block)[kBlock]) {
    std::uint8_t iv[16] = {};
    std::memcpy(iv + 4, nonce, 12);
    std::uint8_t blocks[2 * kBlock] = {};
    must(EVP_EncryptInit_ex2(cipher_, nullptr, key, iv, nullptr));
    crypt(blocks, blocks, sizeof blocks);
    must(EVP_MAC_init(mac_, blocks, 32, nullptr));
    std::memcpy(block, blocks + kBlock, kBlock);
    OPENSSL_cleanse(blocks, sizeof blocks);
  }
  /// The next bytes of the key stream over `in`; `out` may be `in`.
  void crypt(std::uint8_t* out, const std::uint8_t* in, std::size_t size) {
    int written = 0;
    if (size == 0) return;
    must(EVP_EncryptUpdate(cipher_, out, &written, in, static_cast<int>(size)));
  }
  /// The authenticator of the block and `size` bytes of ciphertext.
  void authenticate(const std::uint8_t (&block)[kBlock], const std::uint8_t* cipher, std::size_t size,
                    std::uint8_t (&tag)[kTag]) {
    must(EVP_MAC_update(mac_, block, kBlock));
    if (size > 0) must(EVP_MAC_update(mac_, cipher, size));
    // The padding is size mod 16 bytes and not what is missing to 16: a slip in libsodium that has become the format.
    std::uint8_t tail[kTag + 16] = {};
    const std::size_t pad = size % 16;
    const std::uint64_t length = kBlock + size;
    for (std::size_t i = 0; i < 8; ++i) tail[pad + 8 + i] = static_cast<std::uint8_t>(length >> (8 * i));
    must(EVP_MAC_update(mac_, tail, pad + 16));
    std::size_t written = 0;
    must(EVP_MAC_final(mac_, tag, &written, kTag));
  }
  /// Overwrites the key of the last message.
  void forget() {
    const std::uint8_t zeros[32] = {};
    if (!usable_) return;
    must(EVP_EncryptInit_ex2(cipher_, nullptr, zeros, zeros, nullptr));
    must(EVP_MAC_init(mac_, zeros, sizeof zeros, nullptr));
  }

 private:
  /// With fixed sizes and a cipher that was fetched these calls have nothing to fail at.
  static void must(int ok) { K2_ASSERT(ok == 1); }

  EVP_CIPHER_CTX* cipher_ = nullptr;
  EVP_MAC_CTX* mac_ = nullptr;
  bool usable_ = false;
};

void advance(SodiumState& state, const std::uint8_t* tag, std::uint8_t message_tag) {
  for (std::size_t i = 0; i < 8; ++i) state.nonce[kCounter + i] ^= tag[i];
  sodium_increment(state.nonce, kCounter);
  if ((message_tag & crypto_secretstream_xchacha20poly1305_TAG_REKEY) != 0 ||
      sodium_is_zero(state.nonce, kCounter) != 0)
    crypto_secretstream_xchacha20poly1305_rekey(&state);
}

}  // namespace

StreamState::~StreamState() {
  sodium_memzero(state_.data(), state_.size());
  if (living != nullptr) living->forget();
}

void StreamState::seal(std::span<const ByteView> parts, std::uint8_t* out) {
  auto* state = std::launder(reinterpret_cast<SodiumState*>(state_.data()));
  auto& ciphers = Ciphers::here();
  std::uint8_t* at = out + 1;
  if (!ciphers.usable()) {
    for (const ByteView part : parts) at = std::copy(part.begin(), part.end(), at);
    const auto length = static_cast<std::size_t>(at - out - 1);
    crypto_secretstream_xchacha20poly1305_push(state, out, nullptr, out + 1, length, nullptr, 0, 0);
    return;
  }
  std::uint8_t block[kBlock];  // of the tag 0, so nothing but key stream
  std::uint8_t tag[kTag];
  ciphers.begin(state->k, state->nonce, block);
  out[0] = block[0];
  for (const ByteView part : parts) {
    ciphers.crypt(at, part.data(), part.size());
    at += part.size();
  }
  ciphers.authenticate(block, out + 1, static_cast<std::size_t>(at - out - 1), tag);
  std::memcpy(at, tag, kTag);
  advance(*state, tag, 0);
}

bool StreamState::open(ByteView ciphertext, std::uint8_t* out) {
  if (ciphertext.size() < kSealBytes) return false;
  auto* state = std::launder(reinterpret_cast<SodiumState*>(state_.data()));
  auto& ciphers = Ciphers::here();
  if (!ciphers.usable()) {
    unsigned char ignored = 0;
    return crypto_secretstream_xchacha20poly1305_pull(state, out, nullptr, &ignored, ciphertext.data(),
                                                      ciphertext.size(), nullptr, 0) == 0;
  }
  const std::size_t length = ciphertext.size() - kSealBytes;
  std::uint8_t block[kBlock];
  std::uint8_t tag[kTag];
  ciphers.begin(state->k, state->nonce, block);
  const auto message_tag = static_cast<std::uint8_t>(block[0] ^ ciphertext[0]);
  block[0] = ciphertext[0];
  ciphers.authenticate(block, ciphertext.data() + 1, length, tag);
  if (sodium_memcmp(tag, ciphertext.data() + 1 + length, kTag) != 0) return false;
  ciphers.crypt(out, ciphertext.data() + 1, length);
  advance(*state, tag, message_tag);
  return true;
}

}  // namespace kitsune2::tx5
