// TLS as a filter over bytes, without sockets. OpenSSL is used only in tls.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "kitsune2/error.hpp"
#include "kitsune2/http.hpp"
#include "net/byte_buffer.hpp"

namespace kitsune2::net {

/// Certificates, keys and trust of one side. Immutable, and shared by connections. TLS 1.2 or later, no compression, no
/// renegotiation.
class TlsContext {
 public:
  /// Errc::io names the CA file.
  static Result<std::shared_ptr<TlsContext>> client(const TlsOptions& options);
  /// Errc::io names the file that cannot be used, and the reason.
  static Result<std::shared_ptr<TlsContext>> server(const std::string& cert_file, const std::string& key_file);
  ~TlsContext();

 private:
  friend class TlsEngine;
  TlsContext() = default;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Client contexts, made once for each set of options. Checks the CA file for each connection: a file that has changed
/// (by inode, size and time) is read again; if it cannot be read, the old context stays in use and a line is logged.
/// Strand only.
class ClientTls {
 public:
  /// Errors: those of TlsContext::client.
  Result<std::shared_ptr<TlsContext>> get(const TlsOptions& options);

 private:
  using Stamp = std::array<std::int64_t, 4>;
  struct Entry {
    std::shared_ptr<TlsContext> context;
    Stamp stamp{};
  };
  static Stamp stamp_of(const std::string& file);
  std::map<std::pair<std::string, bool>, Entry> entries_;
};

/// One TLS connection: ciphertext and plaintext in both directions. Not thread-safe.
class TlsEngine {
 public:
  /// A client, which expects a certificate for `host` (a name, or an IP literal without brackets) if the context
  /// verifies. `at`: "host:port" for error messages.
  TlsEngine(std::shared_ptr<TlsContext> context, const std::string& host, std::string at);
  /// A server.
  explicit TlsEngine(std::shared_ptr<TlsContext> context);
  ~TlsEngine();
  TlsEngine(const TlsEngine&) = delete;
  TlsEngine& operator=(const TlsEngine&) = delete;

  /// Passes ciphertext from the socket. Copies it.
  void feed(ByteView ciphertext);
  /// Ciphertext for the socket; the caller consumes it.
  ByteBuffer& output();

  bool is_established() const;
  /// Fills `out` with keying material of this session (RFC 5705). False: it is not established, or of a version of TLS
  /// in which the material is not bound to the session (1.2 without the extended master secret).
  bool export_key(std::string_view label, ByteView context, std::span<std::uint8_t> out) const;
  /// Continues the handshake. Call it first, and again after each `feed` until established. An error is final; its
  /// message says what is wrong with the certificate, if that is the reason. Alerts for the peer are then in
  /// `output()`.
  Result<void> handshake();
  /// Decrypts up to `size` bytes. Returns 0 if more ciphertext is needed. Errc::disconnected: the peer closed its side.
  /// Errc::peer_fault: it changed its keys more often than 16 times plus once for each MiB that it sent. *Rationale*: a
  /// change costs the peer 27 bytes, but costs work here and may ask for one in return.
  Result<std::size_t> read(std::uint8_t* out, std::size_t size);
  /// Encrypts all of `plain` into `output()`.
  Result<void> write(ByteView plain);
  /// Puts the closing alert into `output()`. No effect before the handshake is complete.
  void close();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kitsune2::net
