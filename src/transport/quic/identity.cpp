// An Ed25519 key as the credentials of a GnuTLS session: a raw public key instead of a certificate.
#include "transport/quic/identity.hpp"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <sodium.h>

#include <string>
#include <string_view>

namespace kitsune2::quic {
namespace {

Error unsupported(int code) {
  return make_error(Errc::unsupported, std::string("GnuTLS takes no Ed25519 key: ") + gnutls_strerror(code));
}

/// The public half of `own`, as the one entry of a certificate list. What `out` holds is the caller's.
int make_entry(gnutls_privkey_t own, gnutls_pcert_st& out) {
  gnutls_pubkey_t public_half = nullptr;
  if (const int code = gnutls_pubkey_init(&public_half); code != 0) return code;
  int code = gnutls_pubkey_import_privkey(public_half, own, 0, 0);
  if (code == 0) code = gnutls_pcert_import_rawpk(&out, public_half, 0);
  if (code != 0) gnutls_pubkey_deinit(public_half);
  return code;
}

}  // namespace

std::string server_name_of(const Key& key) {
  constexpr std::string_view kDigits = "0123456789abcdefghijklmnopqrstuv";
  std::string out;
  unsigned bits = 0, held = 0;
  for (const std::uint8_t byte : key) {
    held = (held << 8U) | byte;
    for (bits += 8; bits >= 5; bits -= 5) out += kDigits[(held >> (bits - 5)) & 31U];
    held &= 31U;
  }
  if (bits > 0) out += kDigits[(held << (5 - bits)) & 31U];
  return out + ".iroh.invalid";
}

Result<std::shared_ptr<const Identity>> Identity::create(const Seed& seed) {
  const std::shared_ptr<Identity> out(new Identity);
  std::array<std::uint8_t, crypto_sign_SECRETKEYBYTES> secret{};
  crypto_sign_seed_keypair(out->key_.data(), secret.data(), seed.data());
  sodium_memzero(secret.data(), secret.size());

  gnutls_privkey_t own = nullptr;
  if (const int code = gnutls_privkey_init(&own); code != 0) return unsupported(code);
  Seed copy = seed;
  const gnutls_datum_t x{out->key_.data(), static_cast<unsigned>(out->key_.size())};
  const gnutls_datum_t k{copy.data(), static_cast<unsigned>(copy.size())};
  int code = gnutls_privkey_import_ecc_raw(own, GNUTLS_ECC_CURVE_ED25519, &x, nullptr, &k);
  sodium_memzero(copy.data(), copy.size());
  gnutls_pcert_st entry{};
  if (code == 0) code = make_entry(own, entry);
  if (code != 0) {
    gnutls_privkey_deinit(own);
    return unsupported(code);
  }
  code = gnutls_certificate_allocate_credentials(&out->credentials_);
  // Success hands the key and the entry over to the credentials.
  if (code == 0) code = gnutls_certificate_set_key(out->credentials_, nullptr, 0, &entry, 1, own);
  if (code != 0) {
    gnutls_pcert_deinit(&entry);
    gnutls_privkey_deinit(own);
    return unsupported(code);
  }
  return std::shared_ptr<const Identity>(out);
}

Identity::~Identity() {
  if (credentials_ != nullptr) gnutls_certificate_free_credentials(credentials_);
}

}  // namespace kitsune2::quic
