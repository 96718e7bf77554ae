// Functions of libsodium for the simulator, in place of the library's: each answer is computed by the library, and then
// known. Many nodes of a history verify the same info, again and again; so did a quarter of its processor time.
#include <dlfcn.h>
#include <sodium.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <unordered_map>

namespace {

constexpr std::size_t kMostKnown = 8'192;

/// The library's own function of this name.
template <class Function>
Function* of_library(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

/// Answers by all that was asked.
template <class Answer>
class KnownSignatures {
 public:
  template <class Compute>
  const Answer& of(const std::string& question, const Compute& compute) {
    if (answers_.size() >= kMostKnown) answers_.clear();
    const auto [it, is_new] = answers_.try_emplace(question);
    if (is_new) it->second = compute();
    return it->second;
  }

 private:
  std::unordered_map<std::string, Answer> answers_;
};

std::string& append(std::string& to, const unsigned char* bytes, std::size_t size) {
  return to.append(reinterpret_cast<const char*>(bytes), size);
}

}  // namespace

extern "C" int crypto_sign_verify_detached(const unsigned char* signature, const unsigned char* message,
                                           unsigned long long size, const unsigned char* key) {
  static const auto verify = of_library<decltype(crypto_sign_verify_detached)>("crypto_sign_verify_detached");
  thread_local KnownSignatures<int> known;
  std::string question;
  append(append(append(question, signature, crypto_sign_BYTES), key, crypto_sign_PUBLICKEYBYTES), message, size);
  return known.of(question, [&] { return verify(signature, message, size, key); });
}

extern "C" int crypto_sign_ed25519_pk_to_curve25519(unsigned char* curve, const unsigned char* key) {
  static const auto convert =
      of_library<decltype(crypto_sign_ed25519_pk_to_curve25519)>("crypto_sign_ed25519_pk_to_curve25519");
  struct Answer {
    int code = 0;
    std::array<unsigned char, crypto_scalarmult_curve25519_BYTES> curve{};
  };
  thread_local KnownSignatures<Answer> known;
  std::string question;
  const Answer& answer = known.of(append(question, key, crypto_sign_PUBLICKEYBYTES), [&] {
    Answer out;
    out.code = convert(out.curve.data(), key);
    return out;
  });
  if (answer.code == 0) std::memcpy(curve, answer.curve.data(), answer.curve.size());
  return answer.code;
}

/// Of agents, whose seeds are numbers.
extern "C" int crypto_sign_seed_keypair(unsigned char* key, unsigned char* secret, const unsigned char* seed) {
  static const auto make = of_library<decltype(crypto_sign_seed_keypair)>("crypto_sign_seed_keypair");
  struct Answer {
    std::array<unsigned char, crypto_sign_PUBLICKEYBYTES> key{};
    std::array<unsigned char, crypto_sign_SECRETKEYBYTES> secret{};
  };
  thread_local KnownSignatures<Answer> known;
  std::string question;
  const Answer& answer = known.of(append(question, seed, crypto_sign_SEEDBYTES), [&] {
    Answer out;
    make(out.key.data(), out.secret.data(), seed);
    return out;
  });
  std::memcpy(key, answer.key.data(), answer.key.size());
  std::memcpy(secret, answer.secret.data(), answer.secret.size());
  return 0;
}
