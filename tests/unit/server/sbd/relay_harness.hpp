// A relay core in virtual time, and clients with keys.
#pragma once

#include <gtest/gtest.h>
#include <sodium.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "server/sbd/relay_core.hpp"

namespace kitsune2::server {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Action = RelayCore::Action;
using Verdict = RelayCore::Verdict;

struct KeyPair {
  sbd::NodeId id{};
  std::array<std::uint8_t, 64> secret{};

  /// From a seed of 32 equal bytes, as in the wire page's vector.
  static KeyPair seeded(std::uint8_t byte) {
    KeyPair out;
    const std::vector<std::uint8_t> seed(32, byte);
    crypto_sign_seed_keypair(out.id.data(), out.secret.data(), seed.data());
    return out;
  }
};

inline Bytes unhex(std::string_view text) {
  std::vector<std::uint8_t> out(text.size() / 2);
  sodium_hex2bin(out.data(), out.size(), text.data(), text.size(), nullptr, nullptr, nullptr);
  return Bytes(std::move(out));
}

inline RelayCore::Ip ip(std::uint8_t last) {
  RelayCore::Ip out{};
  out[10] = out[11] = 0xff;
  out[12] = 10;
  out[15] = last;
  return out;
}

/// A relay in virtual time, and what it told whom.
struct World {
  explicit World(const RelayLimits& limits = {}) : core(limits) {}

  Time now{seconds(1000)};
  RelayCore core;
  std::map<RelayCore::ConnId, std::vector<Bytes>> sent;
  std::map<RelayCore::ConnId, RelayReject> closed;
  std::vector<RelayCore::ConnId> resumed;
  RelayCore::ConnId next = 1;

  void take() {
    std::vector<Action> actions;
    core.take_actions(actions);
    for (auto& action : actions) {
      EXPECT_FALSE(closed.contains(action.conn)) << "an action after the close";
      switch (action.kind) {
        case Action::Kind::send:
          sent[action.conn].push_back(action.message);
          break;
        case Action::Kind::close:
          closed[action.conn] = action.reason;
          break;
        case Action::Kind::resume:
          resumed.push_back(action.conn);
          break;
      }
    }
    core.check_invariants();
  }

  RelayCore::Nonce nonce() const {
    RelayCore::Nonce out;
    out.fill(static_cast<std::uint8_t>(next));
    return out;
  }

  RelayCore::ConnId open(const KeyPair& key, std::uint8_t address = 1) {
    const auto id = next++;
    EXPECT_EQ(core.on_open(id, ip(address), key.id, nonce(), now), std::nullopt);
    take();
    return id;
  }

  RelayCore::Routed message(RelayCore::ConnId from, ByteView bytes) {
    const auto head = bytes.subspan(0, std::min(bytes.size(), RelayCore::kHeadBytes));
    const auto out = core.on_message(from, head, bytes.size(), now);
    take();
    return out;
  }

  /// Signs the nonce of the last `areq`.
  RelayCore::Routed answer(RelayCore::ConnId conn, const KeyPair& key) {
    for (const Bytes& m : sent[conn]) {
      const auto frame = sbd::parse_frame(m);
      if (frame->kind == sbd::FrameKind::auth_request) {
        return message(conn, sbd::encode_auth_response(sbd::sign_nonce(frame->body, key.secret)));
      }
    }
    ADD_FAILURE() << "no areq";
    return {};
  }

  RelayCore::ConnId ready(const KeyPair& key, std::uint8_t address = 1) {
    const auto id = open(key, address);
    EXPECT_EQ(answer(id, key).verdict, Verdict::taken);
    return id;
  }

  RelayCore::Routed forward(RelayCore::ConnId from, const KeyPair& to, std::size_t body = 10) {
    return message(from, sbd::encode_forward(to.id, std::vector<std::uint8_t>(body, 7)));
  }

  void poll_at(Time at) {
    now = at;
    core.poll(now);
    take();
  }
  void pass(Duration d) { poll_at(now + d); }

  std::vector<std::int32_t> rates(RelayCore::ConnId conn) {
    std::vector<std::int32_t> out;
    for (const Bytes& m : sent[conn]) {
      const auto frame = sbd::parse_frame(m);
      if (frame->kind == sbd::FrameKind::limit_byte_nanos) out.push_back(frame->value);
    }
    return out;
  }
};

inline const KeyPair kA = KeyPair::seeded(1);
inline const KeyPair kB = KeyPair::seeded(2);
inline const KeyPair kC = KeyPair::seeded(3);

inline RelayLimits reference_limits() {
  RelayLimits out;
  out.ip_kbps = 1000;
  out.ip_byte_burst = sbd::kBurstBytes;
  return out;
}

}  // namespace kitsune2::server
