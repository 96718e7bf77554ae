// Reads and writes the messages of an sbd relay, and signs and checks its nonce.
#include "transport/sbd/sbd_frames.hpp"

#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kitsune2/ids.hpp"

namespace kitsune2::sbd {
namespace {

constexpr std::size_t kZeroPrefix = 28;
constexpr std::size_t kNameBytes = 4;
constexpr std::string_view kLimitByteNanos = "lbrt";
constexpr std::string_view kAuthRequest = "areq";
constexpr std::string_view kAuthResponse = "ares";
constexpr std::string_view kLimitIdle = "lidl";
constexpr std::string_view kReady = "srdy";
constexpr std::string_view kKeepalive = "keep";
constexpr std::string_view kPeerGroup = "pgrp";
constexpr std::string_view kCredit = "crdt";
constexpr std::string_view kPeerGone = "gone";
constexpr std::size_t kGroupBytes = 16;

bool all_zero(ByteView bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t b) { return b == 0; });
}

std::int32_t read_i32(ByteView b) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(b[0]) << 24 | static_cast<std::uint32_t>(b[1]) << 16 |
                                   static_cast<std::uint32_t>(b[2]) << 8 | static_cast<std::uint32_t>(b[3]));
}

Bytes command(std::string_view name, ByteView body) {
  std::vector<std::uint8_t> out(kHeaderBytes + body.size());
  std::memcpy(out.data() + kZeroPrefix, name.data(), kNameBytes);
  if (!body.empty()) std::memcpy(out.data() + kHeaderBytes, body.data(), body.size());
  return Bytes(std::move(out));
}

Bytes command(std::string_view name, std::int32_t value) {
  const auto v = static_cast<std::uint32_t>(value);
  const std::array<std::uint8_t, 4> body{static_cast<std::uint8_t>(v >> 24), static_cast<std::uint8_t>(v >> 16),
                                         static_cast<std::uint8_t>(v >> 8), static_cast<std::uint8_t>(v)};
  return command(name, body);
}

Error wrong_length(std::string_view name, std::size_t length) {
  return make_error(Errc::malformed,
                    "sbd " + std::string(name) + " with a body of " + std::to_string(length) + " bytes");
}

}  // namespace

bool is_legal_node_id(const NodeId& id) { return !all_zero(ByteView(id).first(kZeroPrefix)); }

std::string to_path(const NodeId& id) { return to_base64url(id); }

std::optional<NodeId> node_id_from_path(std::string_view path) {
  if (path.size() != 43) return std::nullopt;
  std::vector<std::uint8_t> raw;
  if (!from_base64url(path, raw) || raw.size() != kHeaderBytes) return std::nullopt;
  NodeId id;
  std::copy(raw.begin(), raw.end(), id.begin());
  if (!is_legal_node_id(id)) return std::nullopt;
  return id;
}

Result<Frame> parse_frame(ByteView message) {
  if (message.size() < kHeaderBytes) {
    return make_error(Errc::malformed,
                      "sbd message of " + std::to_string(message.size()) + " bytes, at least 32 needed");
  }
  if (message.size() > kMaxMessageBytes) {
    return make_error(Errc::too_large,
                      "sbd message of " + std::to_string(message.size()) + " bytes, at most 20000 allowed");
  }
  Frame frame;
  const ByteView header = message.first(kHeaderBytes);
  frame.body = message.subspan(kHeaderBytes);
  if (!all_zero(header.first(kZeroPrefix))) {
    frame.kind = FrameKind::forward;
    std::copy(header.begin(), header.end(), frame.peer.begin());
    return frame;
  }
  const std::string_view name = as_text(header.subspan(kZeroPrefix));
  if (name == kLimitByteNanos || name == kLimitIdle) {
    if (frame.body.size() != 4) return wrong_length(name, frame.body.size());
    frame.kind = name == kLimitByteNanos ? FrameKind::limit_byte_nanos : FrameKind::limit_idle;
    frame.value = read_i32(frame.body);
  } else if (name == kAuthRequest) {
    if (frame.body.size() != kNonceBytes) return wrong_length(name, frame.body.size());
    frame.kind = FrameKind::auth_request;
  } else if (name == kAuthResponse) {
    if (frame.body.size() != kSignatureBytes) return wrong_length(name, frame.body.size());
    frame.kind = FrameKind::auth_response;
  } else if (name == kReady) {
    frame.kind = FrameKind::ready;
  } else if (name == kKeepalive) {
    frame.kind = FrameKind::keepalive;
  } else if (name == kPeerGroup && frame.body.size() == kHeaderBytes + kGroupBytes) {
    frame.kind = FrameKind::peer_group;
    std::copy_n(frame.body.begin(), kHeaderBytes, frame.peer.begin());
    std::copy_n(frame.body.begin() + kHeaderBytes, kGroupBytes, frame.group.begin());
  } else if (name == kCredit && frame.body.size() == kHeaderBytes + 4) {
    frame.kind = FrameKind::credit;
    std::copy_n(frame.body.begin(), kHeaderBytes, frame.peer.begin());
    frame.bytes = static_cast<std::uint32_t>(read_i32(frame.body.subspan(kHeaderBytes)));
  } else if (name == kPeerGone && frame.body.size() == kHeaderBytes) {
    frame.kind = FrameKind::peer_gone;
    std::copy_n(frame.body.begin(), kHeaderBytes, frame.peer.begin());
  } else {
    frame.kind = FrameKind::unknown;
  }
  return frame;
}

Bytes encode_limit_byte_nanos(std::int32_t nanos_per_byte) { return command(kLimitByteNanos, nanos_per_byte); }
Bytes encode_limit_idle(std::int32_t millis) { return command(kLimitIdle, millis); }
Bytes encode_auth_request(const std::array<std::uint8_t, kNonceBytes>& nonce) {
  return command(kAuthRequest, ByteView(nonce));
}
Bytes encode_auth_response(const std::array<std::uint8_t, kSignatureBytes>& signature) {
  return command(kAuthResponse, ByteView(signature));
}
Bytes encode_ready() { return command(kReady, ByteView{}); }
Bytes encode_keepalive() { return command(kKeepalive, ByteView{}); }

Bytes encode_peer_group(const NodeId& peer, const std::array<std::uint8_t, 16>& group) {
  std::array<std::uint8_t, kHeaderBytes + kGroupBytes> body{};
  std::copy(peer.begin(), peer.end(), body.begin());
  std::copy(group.begin(), group.end(), body.begin() + kHeaderBytes);
  return command(kPeerGroup, body);
}

Bytes encode_credit(const NodeId& peer, std::uint32_t bytes) {
  std::array<std::uint8_t, kHeaderBytes + 4> body{};
  std::copy(peer.begin(), peer.end(), body.begin());
  for (std::size_t i = 0; i < 4; ++i) body[kHeaderBytes + i] = static_cast<std::uint8_t>(bytes >> (24 - 8 * i));
  return command(kCredit, body);
}

Bytes encode_peer_gone(const NodeId& peer) { return command(kPeerGone, peer); }

Bytes encode_forward(const NodeId& peer, ByteView body) {
  std::vector<std::uint8_t> out(kHeaderBytes + body.size());
  std::copy(peer.begin(), peer.end(), out.begin());
  if (!body.empty()) std::memcpy(out.data() + kHeaderBytes, body.data(), body.size());
  return Bytes(std::move(out));
}

std::array<std::uint8_t, kSignatureBytes> sign_nonce(ByteView nonce, const std::array<std::uint8_t, 64>& secret_key) {
  std::array<std::uint8_t, kSignatureBytes> signature{};
  crypto_sign_detached(signature.data(), nullptr, nonce.data(), nonce.size(), secret_key.data());
  return signature;
}

bool verify_nonce(const NodeId& id, ByteView nonce, ByteView signature) {
  return signature.size() == kSignatureBytes &&
         crypto_sign_verify_detached(signature.data(), nonce.data(), nonce.size(), id.data()) == 0;
}

}  // namespace kitsune2::sbd

std::size_t std::hash<kitsune2::sbd::NodeId>::operator()(const kitsune2::sbd::NodeId& id) const noexcept {
  return static_cast<std::size_t>(kitsune2::keyed_hash(id));
}
