// The sbd relay's messages, shared by our client and our relay server. Source: wire 0.2.2 (a).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::sbd {

inline constexpr std::size_t kHeaderBytes = 32;
inline constexpr std::size_t kNonceBytes = 32;
inline constexpr std::size_t kSignatureBytes = 64;
/// Largest WebSocket message, header included.
inline constexpr std::size_t kMaxMessageBytes = 20'000;
/// What a client assumes until `lbrt` and `lidl` have come.
inline constexpr std::int32_t kDefaultByteNanos = 8'000;
inline constexpr std::int32_t kDefaultIdleMillis = 10'000;
/// `lbrt` of a server without rate limiting.
inline constexpr std::int32_t kUnlimitedByteNanos = 1;
/// A server closes a connection whose backlog is over this many bytes' worth of time.
inline constexpr std::size_t kBurstBytes = 16 * 16 * 1024;

/// The ed25519 public key of one sbd connection: who a forward is for, or from.
using NodeId = std::array<std::uint8_t, 32>;

/// False for keys that would read as a command (first 28 bytes zero). Such a key must not be used or accepted.
bool is_legal_node_id(const NodeId& id);
/// The path segment of a peer url: URL-safe base64, 43 characters.
std::string to_path(const NodeId& id);
/// The reverse. nullopt: not base64url of exactly 32 bytes, or not a legal node id.
std::optional<NodeId> node_id_from_path(std::string_view path);

enum class FrameKind {
  forward,           ///< body for (client to server) or from (server to client) a peer
  limit_byte_nanos,  ///< lbrt: nanoseconds a byte costs
  auth_request,      ///< areq: a nonce to sign
  auth_response,     ///< ares: the signature
  limit_idle,        ///< lidl: milliseconds of silence after which the server closes
  ready,             ///< srdy
  keepalive,         ///< keep
  peer_group,        ///< pgrp: the address of a peer; inside a process only
  credit,            ///< crdt: bytes that a peer has taken; inside a process only
  unknown,           ///< a command of some later version: ignored by both sides
};

/// One parsed message. Borrows from the bytes it was parsed from.
struct Frame {
  FrameKind kind = FrameKind::unknown;
  NodeId peer{};                         ///< forward, peer_group, credit
  std::int32_t value = 0;                ///< limit_byte_nanos and limit_idle only, as sent: may be zero or negative
  std::array<std::uint8_t, 16> group{};  ///< peer_group only
  std::uint32_t bytes = 0;               ///< credit only
  ByteView body;                         ///< forward: what to carry; auth_request: 32 bytes; auth_response: 64 bytes
};

/// Parses one WebSocket message. Errc::malformed: fewer than 32 bytes, or a known command whose body has the wrong
/// length (`srdy` and `keep` may carry anything). Errc::too_large: more than kMaxMessageBytes.
Result<Frame> parse_frame(ByteView message);

Bytes encode_limit_byte_nanos(std::int32_t nanos_per_byte);
Bytes encode_limit_idle(std::int32_t millis);
Bytes encode_auth_request(const std::array<std::uint8_t, kNonceBytes>& nonce);
Bytes encode_auth_response(const std::array<std::uint8_t, kSignatureBytes>& signature);
Bytes encode_ready();
Bytes encode_keepalive();
/// Commands of ours, from a relay to the node that runs it, over the connection inside the process (RelayCore R9). They
/// mean nothing on any other connection: a client must not believe them there.
Bytes encode_peer_group(const NodeId& peer, const std::array<std::uint8_t, 16>& group);
Bytes encode_credit(const NodeId& peer, std::uint32_t bytes);
/// A forward with `peer` as its header (the destination on the way up, the sender on the way down). Copies `body`.
Bytes encode_forward(const NodeId& peer, ByteView body);

/// ed25519 over the nonce: what `ares` carries. `secret_key` is libsodium's 64-byte form.
std::array<std::uint8_t, kSignatureBytes> sign_nonce(ByteView nonce, const std::array<std::uint8_t, 64>& secret_key);
/// True if `signature` over `nonce` was made with the key of `id`.
bool verify_nonce(const NodeId& id, ByteView nonce, ByteView signature);

}  // namespace kitsune2::sbd

/// Keyed, so that peers who choose their keys cannot crowd one bucket.
template <>
struct std::hash<kitsune2::sbd::NodeId> {
  std::size_t operator()(const kitsune2::sbd::NodeId& id) const noexcept;
};
