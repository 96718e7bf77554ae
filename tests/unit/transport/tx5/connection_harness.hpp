// Two sides of a connection and the wire between them, without a network.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <random>

#include "fake_relay.hpp"
#include "transport/tx5/connection.hpp"
#include "unit/transport/hex.hpp"
#include "unit/transport/start.hpp"

namespace kitsune2::tx5 {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;
using tests::filled;
using tests::hex;

inline NodeKey key_of(std::uint8_t fill) {
  crypto_ready();
  NodeKey::Seed seed;
  seed.fill(fill);
  return std::move(*NodeKey::from_seed(seed));
}

using tests::kStart;

/// One side: the connection, and the other side's view of what it sends.
class Side {
 public:
  Side(std::uint8_t seed, std::uint8_t peer_seed, ConnectionConfig config, Connection::Origin origin, Time now = kStart)
      : config_(config),
        key_(key_of(seed)),
        peer_key_(key_of(peer_seed)),
        entropy_([this](std::span<std::uint8_t> out) {
          for (auto& b : out) b = static_cast<std::uint8_t>(random_());
        }),
        random_(seed),
        mirror_(key_.id(), std::move(*SessionKeys::derive(peer_key_, key_.id()))) {
    connection.emplace(peer_key_.id(), std::move(*SessionKeys::derive(key_, peer_key_.id())), config_, entropy_, origin,
                       now);
  }

  /// The next frame's plaintext, or the name of its type when it has none. Empty: nothing to send.
  std::string pull(Time now = kStart) {
    std::optional<Connection::Pulled> pulled;
    if (connection->has_control()) {
      pulled = connection->pull_control(now);
    } else if (connection->has_data()) {
      pulled = connection->pull_data(now);
    }
    if (!pulled) return {};
    if (pulled->done) pulled->done({});
    const ByteView body = pulled->frame.view().subspan(sbd::kHeaderBytes);
    bodies.emplace_back(body.begin(), body.end());
    const auto opened = mirror_.open(body);
    switch (opened.event) {
      case E2eSession::Event::plaintext:
        return opened.plaintext.str();
      case E2eSession::Event::new_stream:
        return "NewStream";
      case E2eSession::Event::new_stream_request:
        return "RequestNewStream";
      default:
        return "unreadable";
    }
  }
  std::vector<std::string> pull_all(Time now = kStart) {
    std::vector<std::string> out;
    for (std::string s = pull(now); !s.empty(); s = pull(now)) out.push_back(std::move(s));
    return out;
  }
  /// In pieces of all sizes.
  void send(const std::string& message) {
    Handler<> done = [this](Result<void> r) { sent.push_back(r.has_value()); };
    ByteChain chain;
    for (std::size_t at = 0; at < message.size();) {
      const auto piece = message.substr(at, cuts_() % 3 == 0 ? 1 + cuts_() % 30 : 1 + cuts_() % 40'000);
      chain.append(Bytes::copy_of(piece));
      at += piece.size();
    }
    auto r = connection->enqueue(std::move(chain), done);
    EXPECT_TRUE(r.has_value());
  }
  Errc try_send(std::size_t size) {
    Handler<> done = [](Result<void>) {};
    auto r = connection->enqueue(Bytes(std::vector<std::uint8_t>(size)), done);
    return r.has_error() ? r.error().code : Errc::internal;
  }

  ConnectionConfig config_;
  NodeKey key_, peer_key_;
  Entropy entropy_;
  std::mt19937 random_;
  std::mt19937 cuts_{3};
  E2eSession mirror_;
  std::optional<Connection> connection;
  std::vector<std::vector<std::uint8_t>> bodies;
  std::vector<bool> sent;
};

/// Two sides and the wire between them.
class Pair {
 public:
  explicit Pair(ConnectionConfig config = {}, bool both_dial = true)
      : a(1, 2, config, Connection::Origin::local),
        b(2, 1, config, both_dial ? Connection::Origin::local : Connection::Origin::peer) {}

  void apply(Side& side, Connection::Outcome outcome, std::vector<std::string>& got) {
    if (outcome.error) errors.push_back(*outcome.error);
    restarts += outcome.restarted ? 1 : 0;
    if (outcome.handshake_done) {
      ASSERT_TRUE(side.connection->open_with(Bytes::copy_of("\x08\x01"), now).has_value());
    }
    if (outcome.permit_wanted && grant) side.connection->grant();
    if (outcome.message) got.push_back(outcome.message->str());
  }
  /// Moves frames both ways until there are none.
  void run() {
    for (bool moved = true; moved;) {
      moved = move_one(a, b, got_b) || move_one(b, a, got_a);
    }
  }
  bool move_one(Side& from, Side& to, std::vector<std::string>& got) {
    if (from.pull(now).empty()) return false;
    const std::vector<std::uint8_t> body = from.bodies.back();
    apply(to, to.connection->on_body(body, now), got);
    return true;
  }
  void tick(Duration d) {
    now += d;
    apply(a, a.connection->on_time(now), got_a);
    apply(b, b.connection->on_time(now), got_b);
    run();
  }

  Time now = kStart;
  bool grant = true;
  Side a, b;
  std::vector<std::string> got_a, got_b;
  std::vector<Error> errors;
  int restarts = 0;
};

/// An open connection and the peer's voice, for what a peer may say on it.
class OpenConnection : public ::testing::Test {
 protected:
  void SetUp() override {
    pair_.run();
    ASSERT_EQ(pair_.a.connection->phase(), Connection::Phase::open);
    voice_.emplace(pair_.a.key_.id(), std::move(*SessionKeys::derive(pair_.b.key_, pair_.a.key_.id())));
    ask_for_stream();
    pair_.a.connection->on_body(voice_->start_stream({}).view().subspan(32), pair_.now);
    EXPECT_FALSE(say("zzzz").restarted);
  }
  /// So that a new stream of the voice is one that was asked for.
  void ask_for_stream() {
    if (voice_->is_encrypting()) pair_.now += Connection::kStreamRequestInterval;  // not the first time
    std::vector<std::uint8_t> forged(60, 1);
    forged[0] = kMessage;
    pair_.a.connection->on_body(forged, pair_.now);
    EXPECT_EQ(pair_.a.pull_all(pair_.now), std::vector<std::string>{"RequestNewStream"});
  }
  void new_stream(std::uint8_t header) {
    StreamState::Header h{};
    h.fill(header);
    pair_.a.connection->on_body(voice_->start_stream(h).view().subspan(32), pair_.now);
  }
  Connection::Outcome say(const std::string& text) {
    return pair_.a.connection->on_body(voice_->seal({}, as_bytes(text)).view().subspan(32), pair_.now);
  }
  static std::string frame(FrameType type, std::uint32_t value, const std::string& payload = {}) {
    return "fmsg" + std::string(as_text(encode_frame_header(type, value))) + payload;
  }

  Pair pair_;
  std::optional<E2eSession> voice_;
};

}  // namespace kitsune2::tx5
