// The client of an iroh relay: the captured handshake, pings and their deadlines, what the relay tells.
#include "transport/iroh/relay_client.hpp"

#include <gtest/gtest.h>
#include <sodium.h>

#include "unit/transport/hex.hpp"

namespace kitsune2::iroh {
namespace {

using namespace std::chrono_literals;
using tests::hex;

EndpointKey::Seed seed(std::uint8_t byte) {
  EndpointKey::Seed out{};
  out.fill(byte);
  return out;
}

std::string text_of(ByteView bytes) { return to_hex(bytes); }

// Test vectors of BLAKE3's authors, the first 32 bytes: the material is 0, 1, 2, …
TEST(IrohEndpointKey, Blake3DerivesTheKeysOfItsTestVectors) {
  constexpr std::string_view kContext = "BLAKE3 2019-12-27 16:29:52 test vectors context";
  EXPECT_EQ(text_of(blake3_derive_key(kContext, {})),
            "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d");
  EXPECT_EQ(text_of(blake3_derive_key(kContext, hex("00"))),
            "b3e2e340a117a499c6cf2398a19ee0d29cca2bb7404c73063382693bf66cb06c");
}

TEST(IrohEndpointKey, SignsAndVerifies) {
  const EndpointKey key(seed(1)), other(seed(2));
  const Signature signature = key.sign(as_bytes("message"));
  EXPECT_TRUE(EndpointKey::verify(key.id(), as_bytes("message"), signature));
  EXPECT_FALSE(EndpointKey::verify(key.id(), as_bytes("massage"), signature));
  EXPECT_FALSE(EndpointKey::verify(other.id(), as_bytes("message"), signature));
}

EndpointId seedless(std::uint8_t byte) {
  EndpointId out;
  out.fill(byte);
  return out;
}

class IrohRelayClient : public ::testing::Test {
 protected:
  Bytes from_relay(const RelayFrame& frame) { return encode_relay_frame(Sender::relay, frame); }
  void finish_handshake() {
    ASSERT_TRUE(client_.on_message(from_relay(ServerChallenge{}), now_));
    const auto confirmed = client_.on_message(from_relay(ServerConfirmsAuth{}), now_);
    ASSERT_TRUE(confirmed && confirmed->ready);
  }
  /// A ping goes, if one is due, and is answered after `round_trip`.
  bool ping(std::uint8_t byte, Duration round_trip) {
    PingPayload payload{};
    payload.fill(byte);
    if (!client_.ping(payload, now_)) return false;
    now_ += round_trip;
    EXPECT_TRUE(client_.on_message(from_relay(Pong{payload}), now_));
    return true;
  }

  Time now_{1s};
  const EndpointKey key_{seed(0xa6)};
  RelayClient client_{key_, RelayVersion::v2, now_};
};

// A real relay (kitsune2-bootstrap-srv 0.5.3) sent this challenge and took this answer.
TEST_F(IrohRelayClient, TheCapturedHandshake) {
  EXPECT_FALSE(client_.is_ready());
  const auto answer = client_.on_message(hex("00a61cb8a866696314808b52523acbd580"), now_);
  ASSERT_TRUE(answer && answer->send);
  EXPECT_EQ(
      to_hex(*answer->send),
      "0138aa2fe43ae0b78882f9a103fcacbf7be885effae1109ce46a2b477b774ee248401ca2432dcb0e08e59aa936122cc7b12f22d28ebc"
      "fbeb973b1b8a389b03afde1fd8f661003e683516def6b775b4e1f13105804a147ea8b23182adb505d6c3780f");
  const auto verdict = client_.on_message(hex("02"), now_);
  ASSERT_TRUE(verdict);
  EXPECT_TRUE(verdict->ready && client_.is_ready());
  EXPECT_FALSE(client_.is_established());
}

TEST_F(IrohRelayClient, ARelayMayRefuse) {
  ASSERT_TRUE(client_.on_message(from_relay(ServerChallenge{}), now_));
  const auto verdict = client_.on_message(from_relay(ServerDeniesAuth{"not authorized"}), now_);
  ASSERT_FALSE(verdict);
  EXPECT_EQ(verdict.error().to_string(), "blocked: the relay refuses this endpoint: not authorized");
}

TEST_F(IrohRelayClient, TheHandshakeHasAnOrderAndATime) {
  const auto code = [&](const RelayFrame& frame) { return client_.on_message(from_relay(frame), now_).error().code; };
  EXPECT_EQ(code(ServerConfirmsAuth{}), Errc::peer_fault) << "no challenge before";
  EXPECT_EQ(code(Ping{}), Errc::peer_fault);
  EXPECT_EQ(client_.on_message(hex("ff"), now_).error().code, Errc::peer_fault);
  EXPECT_EQ(client_.next_deadline(), now_ + 10s);
  EXPECT_FALSE(client_.overdue(now_ + 10s - 1us));
  EXPECT_EQ(client_.overdue(now_ + 10s)->code, Errc::timed_out);
  ASSERT_TRUE(client_.on_message(from_relay(ServerChallenge{}), now_));
  EXPECT_EQ(code(ServerChallenge{}), Errc::peer_fault) << "a second one";
  EXPECT_FALSE(client_.ping({}, now_)) << "not yet";
  ASSERT_TRUE(client_.on_message(from_relay(ServerConfirmsAuth{}), now_));
  EXPECT_FALSE(client_.overdue(now_ + 1h)) << "no ping is under way";
  EXPECT_EQ(code(ServerConfirmsAuth{}), Errc::peer_fault) << "again";
}

TEST_F(IrohRelayClient, AKeyProvenToTlsNeedsNoChallengeButMayGetOne) {
  RelayClient proven(key_, RelayVersion::v2, now_, {.has_proof = true});
  const auto verdict = proven.on_message(from_relay(ServerConfirmsAuth{}), now_);
  EXPECT_TRUE(verdict && verdict->ready);
  RelayClient denied(key_, RelayVersion::v2, now_, {.has_proof = true});
  EXPECT_EQ(denied.on_message(from_relay(ServerDeniesAuth{"not authorized"}), now_).error().code, Errc::blocked);
  RelayClient asked(key_, RelayVersion::v2, now_, {.has_proof = true});
  const auto challenged = asked.on_message(from_relay(ServerChallenge{}), now_);
  EXPECT_TRUE(challenged && challenged->send);
  EXPECT_EQ(asked.on_message(from_relay(ServerChallenge{}), now_).error().code, Errc::peer_fault) << "a second one";
  RelayClient other(key_, RelayVersion::v2, now_, {.has_proof = true});
  EXPECT_EQ(other.on_message(from_relay(Ping{}), now_).error().code, Errc::peer_fault);
}

TEST_F(IrohRelayClient, OnlyARelayInThisProcessIsBelievedWherePeersAre) {
  const PeerAddress said{seedless(7), {0, 1, 2}};
  finish_handshake();
  EXPECT_EQ(client_.on_message(from_relay(said), now_).error().code, Errc::peer_fault);
  RelayClient inside(key_, RelayVersion::v2, now_, {.in_process = true});
  EXPECT_FALSE(inside.on_message(from_relay(said), now_)) << "not before the handshake";
  ASSERT_TRUE(inside.on_message(from_relay(ServerChallenge{}), now_));
  ASSERT_TRUE(inside.on_message(from_relay(ServerConfirmsAuth{}), now_));
  const auto heard = inside.on_message(from_relay(said), now_);
  ASSERT_TRUE(heard);
  EXPECT_EQ(heard->address, said);
}

TEST_F(IrohRelayClient, PingsOfTheRelayAreAnswered) {
  finish_handshake();
  const auto out = client_.on_message(hex("090102030405060708"), now_);
  ASSERT_TRUE(out && out->send);
  EXPECT_EQ(to_hex(*out->send), "0a0102030405060708");
}

TEST_F(IrohRelayClient, OurPingsComeAtOnceAndAfterSilence) {
  finish_handshake();
  EXPECT_EQ(client_.next_deadline(), now_);
  EXPECT_TRUE(ping(1, 30ms));
  EXPECT_TRUE(client_.is_established());
  EXPECT_EQ(client_.round_trip(), 30ms);
  EXPECT_EQ(client_.next_deadline(), now_ + 15s);
  now_ += 10s;
  ASSERT_TRUE(client_.on_message(from_relay(Datagrams{{}, 0, 0, Bytes::copy_of("x")}), now_));
  EXPECT_EQ(client_.next_deadline(), now_ + 15s) << "whatever comes is a sign of life";
  now_ += 15s - 1us;
  EXPECT_FALSE(ping(2, 0s));
  now_ += 1us;
  EXPECT_TRUE(ping(2, 40ms));
  EXPECT_EQ(client_.round_trip(), 40ms);
}

TEST_F(IrohRelayClient, APongHasItsTime) {
  finish_handshake();
  PingPayload payload{};
  const auto wait_with = [&](std::uint8_t byte) {
    payload.fill(byte);
    now_ = std::max(now_, client_.next_deadline());
    EXPECT_TRUE(client_.ping(payload, now_));
    EXPECT_FALSE(client_.ping(payload, now_ + 1h)) << "one at a time";
    return client_.next_deadline() - now_;
  };
  EXPECT_EQ(wait_with(1), 5s) << "no round trip is known";
  ASSERT_TRUE(client_.on_message(from_relay(Pong{}), now_)) << "of another ping: no effect";
  EXPECT_FALSE(client_.is_established());
  EXPECT_FALSE(client_.overdue(now_ + 5s - 1us));
  EXPECT_EQ(client_.overdue(now_ + 5s)->code, Errc::timed_out);
  const auto pong = [&](Duration round_trip) {
    now_ += round_trip;
    ASSERT_TRUE(client_.on_message(from_relay(Pong{payload}), now_));
  };
  pong(10ms);
  EXPECT_EQ(wait_with(2), 500ms) << "the least";
  pong(400ms);
  EXPECT_EQ(wait_with(3), 1200ms) << "three round trips";
  pong(1100ms);
  EXPECT_EQ(wait_with(4), 3300ms);
  pong(3s);
  EXPECT_EQ(wait_with(5), 5s) << "the most";
  EXPECT_TRUE(client_.overdue(now_ + 5s));
}

TEST_F(IrohRelayClient, StatusMessagesOfTheRelayAreReported) {
  finish_handshake();
  const auto hear = [&](const RelayFrame& frame) { return client_.on_message(from_relay(frame), now_).value(); };
  EXPECT_EQ(hear(Datagrams{key_.id(), 0, 2, Bytes::copy_of("abc")}).datagrams->split().size(), 2U);
  EXPECT_EQ(hear(EndpointGone{key_.id()}).gone, key_.id());
  EXPECT_EQ(hear(Restarting{1, 2}).restarting, (Restarting{1, 2}));
  EXPECT_FALSE(hear(Status{Status::kSameIdElsewhere}).notice.empty());
  EXPECT_FALSE(hear(Status{Status::kRateLimited}).notice.empty());
  EXPECT_FALSE(hear(Status{Status::kHealthy}).notice.empty());
  EXPECT_TRUE(hear(Status{77}).notice.empty()) << "unknown";
  EXPECT_EQ(client_.on_message(hex("0b6869"), now_).error().code, Errc::peer_fault) << "Health is of version 1";
  RelayClient old(key_, RelayVersion::v1, now_);
  ASSERT_TRUE(old.on_message(from_relay(ServerChallenge{}), now_));
  ASSERT_TRUE(old.on_message(from_relay(ServerConfirmsAuth{}), now_));
  EXPECT_EQ(old.on_message(hex("0b6869"), now_)->notice, "hi");
  EXPECT_FALSE(old.on_message(hex("0b"), now_)->notice.empty());
}

}  // namespace
}  // namespace kitsune2::iroh
