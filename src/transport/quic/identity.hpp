// The key by which a QUIC endpoint is known, as GnuTLS wants it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "kitsune2/error.hpp"

struct gnutls_certificate_credentials_st;

namespace kitsune2::quic {

/// Ed25519 public key: who an endpoint is. It is proven in the handshake, by both sides.
using Key = std::array<std::uint8_t, 32>;

/// The name by which iroh dials an endpoint: its key in base32 (RFC 4648's extended hex alphabet, lower case, no
/// padding), and a domain that cannot exist.
std::string server_name_of(const Key& key);

/// An endpoint's own key: a raw public key (RFC 7250) and what signs for it. Shared by all connections of an endpoint,
/// read only.
class Identity {
 public:
  using Seed = std::array<std::uint8_t, 32>;
  /// `seed`: the private key. Errc::unsupported: GnuTLS has no Ed25519 here (FIPS).
  static Result<std::shared_ptr<const Identity>> create(const Seed& seed);
  ~Identity();
  Identity(const Identity&) = delete;
  Identity& operator=(const Identity&) = delete;

  const Key& key() const { return key_; }
  gnutls_certificate_credentials_st* credentials() const { return credentials_; }

 private:
  Identity() = default;

  Key key_{};
  gnutls_certificate_credentials_st* credentials_ = nullptr;
};

}  // namespace kitsune2::quic
