// A client of a relay of sbd over a real socket.
#pragma once

#include <sodium.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "support/sockets.hpp"
#include "transport/sbd/sbd_frames.hpp"

namespace kitsune2::test {

/// An sbd client in blocking calls.
struct Sbd {
  std::array<std::uint8_t, 32> id{};
  std::array<std::uint8_t, 64> secret{};
  std::optional<RawWs> ws;
  std::vector<std::int32_t> rates;
  std::int32_t idle_millis = 0;
  Bytes nonce;

  Sbd() { crypto_sign_keypair(id.data(), secret.data()); }

  /// Up to `areq`.
  bool open(const std::string& address, const std::string& headers = {}, const std::string& local = {}) {
    ws.emplace(address, "/" + sbd::to_path(id), headers, local);
    if (ws->status() != 101) return false;
    while (auto m = ws->receive()) {
      const auto frame = sbd::parse_frame(*m);
      if (frame->kind == sbd::FrameKind::limit_byte_nanos) rates.push_back(frame->value);
      if (frame->kind == sbd::FrameKind::auth_request) {
        nonce = Bytes::copy_of(frame->body);
        return true;
      }
    }
    return false;
  }
  /// Up to `srdy`.
  bool handshake(const std::string& address, const std::string& headers = {}, const std::string& local = {}) {
    if (!open(address, headers, local)) return false;
    ws->send(sbd::encode_auth_response(sbd::sign_nonce(nonce, secret)));
    while (auto m = ws->receive()) {
      const auto frame = sbd::parse_frame(*m);
      if (frame->kind == sbd::FrameKind::limit_idle) idle_millis = frame->value;
      if (frame->kind == sbd::FrameKind::ready) return true;
    }
    return false;
  }
  bool send(const Sbd& to, ByteView body) { return ws->send(sbd::encode_forward(to.id, body)); }
  /// The next forward; commands are skipped.
  std::optional<std::pair<sbd::NodeId, Bytes>> receive() {
    while (auto m = ws->receive()) {
      const auto frame = sbd::parse_frame(*m);
      if (frame.has_value() && frame->kind == sbd::FrameKind::forward) {
        return std::pair{frame->peer, Bytes::copy_of(frame->body)};
      }
    }
    return std::nullopt;
  }
};

}  // namespace kitsune2::test
