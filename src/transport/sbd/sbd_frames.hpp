// The messages of an sbd relay, shared by our client and our relay server. See docs/protocol-tx5.md, 1.
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
/// The largest WebSocket message, including its header.
inline constexpr std::size_t kMaxMessageBytes = 20'000;
/// What a client assumes until `lbrt` and `lidl` arrive.
inline constexpr std::int32_t kDefaultByteNanos = 8'000;
inline constexpr std::int32_t kDefaultIdleMillis = 10'000;
/// The `lbrt` of a server without a rate limit.
inline constexpr std::int32_t kUnlimitedByteNanos = 1;
/// A server closes a connection whose backlog exceeds the time for this many bytes.
inline constexpr std::size_t kBurstBytes = 16 * 16 * 1024;

/// The Ed25519 public key of an sbd connection: the destination or the sender of a forward.
using NodeId = std::array<std::uint8_t, 32>;

/// Returns false for keys that would read as a command (first 28 bytes zero). Such a key must not be used or accepted.
bool is_legal_node_id(const NodeId& id);
/// The path segment of a peer url: URL-safe base64, 43 characters.
std::string to_path(const NodeId& id);
/// The reverse of `to_path`. nullopt: not base64url of exactly 32 bytes, or not a legal node id.
std::optional<NodeId> node_id_from_path(std::string_view path);

enum class FrameKind {
  forward,           ///< body for (client to server) or from (server to client) a peer
  limit_byte_nanos,  ///< lbrt: the nanoseconds per byte
  auth_request,      ///< areq: a nonce to sign
  auth_response,     ///< ares: the signature
  limit_idle,        ///< lidl: milliseconds of silence after which the server closes
  ready,             ///< srdy
  keepalive,         ///< keep
  peer_group,        ///< pgrp: the address of a peer; only inside a process
  credit,            ///< crdt: bytes that a peer has received; only inside a process
  peer_gone,         ///< gone: a peer has left the relay; only inside a process
  unknown,           ///< a command of a later version, which both sides ignore
};

/// One parsed message. Borrows from the bytes it was parsed from.
struct Frame {
  FrameKind kind = FrameKind::unknown;
  NodeId peer{};                         ///< forward, peer_group, credit, peer_gone
  std::int32_t value = 0;                ///< only in limit_byte_nanos and limit_idle, as sent: may be zero or negative
  std::array<std::uint8_t, 16> group{};  ///< only in peer_group
  std::uint32_t bytes = 0;               ///< only in credit
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
/// mean nothing on any other connection, where a client must not believe them.
Bytes encode_peer_group(const NodeId& peer, const std::array<std::uint8_t, 16>& group);
Bytes encode_credit(const NodeId& peer, std::uint32_t bytes);
Bytes encode_peer_gone(const NodeId& peer);
/// A forward with `peer` as its header (the destination on the way up, the sender on the way down). Copies `body`.
Bytes encode_forward(const NodeId& peer, ByteView body);

/// The Ed25519 signature over the nonce, which `ares` carries. `secret_key` is in libsodium's 64-byte form.
std::array<std::uint8_t, kSignatureBytes> sign_nonce(ByteView nonce, const std::array<std::uint8_t, 64>& secret_key);
/// Whether `signature` over `nonce` was made with the key of `id`.
bool verify_nonce(const NodeId& id, ByteView nonce, ByteView signature);

}  // namespace kitsune2::sbd

/// Keyed, so that peers that choose their keys cannot crowd one bucket.
template <>
struct std::hash<kitsune2::sbd::NodeId> {
  std::size_t operator()(const kitsune2::sbd::NodeId& id) const noexcept;
};
