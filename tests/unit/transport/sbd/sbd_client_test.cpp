// The client of an sbd relay: handshake, pacing, keepalives.
#include "transport/sbd/sbd_client.hpp"

#include <gtest/gtest.h>

#include "unit/transport/hex.hpp"
#include "unit/transport/start.hpp"

namespace kitsune2::tx5 {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Kind = SbdClient::Action::Kind;

using tests::kStart;

class SbdClientTest : public ::testing::Test {
 protected:
  SbdClientTest() {
    crypto_ready();
    NodeKey::Seed seed;
    seed.fill(1);
    key_.emplace(std::move(*NodeKey::from_seed(seed)));
    client_.emplace(*key_, kStart);
  }

  Bytes areq() { return sbd::encode_auth_request(nonce_); }
  void shake(std::int32_t byte_nanos = 8000, std::int32_t idle = 10'000) {
    ASSERT_TRUE(client_->on_message(sbd::encode_limit_byte_nanos(byte_nanos), kStart).has_value());
    ASSERT_EQ(client_->on_message(areq(), kStart)->kind, Kind::send);
    ASSERT_TRUE(client_->on_message(sbd::encode_limit_idle(idle), kStart).has_value());
    ASSERT_EQ(client_->on_message(sbd::encode_ready(), kStart)->kind, Kind::ready);
  }
  Errc refused(const Bytes& message) {
    const auto r = client_->on_message(message, kStart);
    return r.has_error() ? r.error().code : Errc::internal;
  }

  std::array<std::uint8_t, 32> nonce_{1, 2, 3};
  std::optional<NodeKey> key_;
  std::optional<SbdClient> client_;
};

TEST_F(SbdClientTest, HandshakeInTheUsualOrder) {
  EXPECT_FALSE(client_->is_ready());
  EXPECT_FALSE(client_->may_send(kStart));
  ASSERT_EQ(client_->on_message(sbd::encode_limit_byte_nanos(8000), kStart)->kind, Kind::none);
  const auto answer = client_->on_message(areq(), kStart);
  ASSERT_TRUE(answer.has_value());
  ASSERT_EQ(answer->kind, Kind::send);
  EXPECT_TRUE(sbd::verify_nonce(key_->id(), nonce_, sbd::parse_frame(answer->bytes)->body));
  EXPECT_FALSE(client_->is_ready());
  ASSERT_EQ(client_->on_message(sbd::encode_limit_idle(10'000), kStart)->kind, Kind::none);
  ASSERT_EQ(client_->on_message(sbd::encode_ready(), kStart)->kind, Kind::ready);
  EXPECT_TRUE(client_->may_send(kStart));
}

TEST_F(SbdClientTest, AreqMayComeBeforeLbrt) {
  ASSERT_EQ(client_->on_message(areq(), kStart)->kind, Kind::send);
  ASSERT_EQ(client_->on_message(sbd::encode_limit_byte_nanos(500), kStart)->kind, Kind::none);
  ASSERT_EQ(client_->on_message(sbd::encode_ready(), kStart)->kind, Kind::ready);
  EXPECT_EQ(client_->byte_nanos(), 500);
}

TEST_F(SbdClientTest, AreqOrLidlAfterSrdyCloses) {
  shake();
  EXPECT_EQ(refused(areq()), Errc::peer_fault);
  EXPECT_EQ(refused(sbd::encode_limit_idle(5)), Errc::peer_fault);
}

TEST_F(SbdClientTest, SecondAreqAndSrdyWithoutAreqClose) {
  EXPECT_EQ(refused(sbd::encode_ready()), Errc::peer_fault);
  ASSERT_TRUE(client_->on_message(areq(), kStart).has_value());
  EXPECT_EQ(refused(areq()), Errc::peer_fault);
}

TEST_F(SbdClientTest, UnknownCommandsAndASecondSrdyAreIgnored) {
  shake();
  const Bytes unknown = tests::hex("000000000000000000000000000000000000000000000000000000007a7a7a7a0102");
  EXPECT_EQ(client_->on_message(unknown, kStart)->kind, Kind::none);
  EXPECT_EQ(client_->on_message(sbd::encode_ready(), kStart)->kind, Kind::none);
  EXPECT_EQ(client_->on_message(sbd::encode_keepalive(), kStart)->kind, Kind::none);
}

TEST_F(SbdClientTest, MalformedMessagesClose) {
  EXPECT_EQ(refused(Bytes::copy_of("short")), Errc::peer_fault);
  EXPECT_EQ(refused(Bytes(std::vector<std::uint8_t>(20'001, 1))), Errc::peer_fault);
}

TEST_F(SbdClientTest, ForwardsCarryTheSender) {
  NodeId from{};
  from.fill(7);
  const Bytes message = sbd::encode_forward(from, as_bytes("hi"));
  EXPECT_EQ(client_->on_message(message, kStart)->kind, Kind::none) << "before srdy";
  shake();
  const auto action = client_->on_message(message, kStart);
  ASSERT_EQ(action->kind, Kind::forward);
  EXPECT_EQ(action->peer, from);
  EXPECT_EQ(as_text(action->body), "hi");
}

TEST_F(SbdClientTest, KeepaliveAtHalfOfTheIdleLimit) {
  shake(8000, 10'000);
  EXPECT_EQ(client_->next_deadline(), kStart + seconds(5));
  EXPECT_FALSE(client_->keepalive(kStart + seconds(5) - microseconds(1)));
  ASSERT_TRUE(client_->keepalive(kStart + seconds(5)));
  EXPECT_EQ(to_hex(*client_->keepalive(kStart + seconds(5))),
            "000000000000000000000000000000000000000000000000000000006b656570");
  client_->on_sent(32, kStart + seconds(3));
  EXPECT_FALSE(client_->keepalive(kStart + seconds(8) - microseconds(1)));
  EXPECT_TRUE(client_->keepalive(kStart + seconds(8)));
}

TEST_F(SbdClientTest, SillyIdleLimitsDoNotSpin) {
  shake(8000, -5);
  EXPECT_EQ(client_->next_deadline(), kStart + SbdClient::kMinKeepalive);
}

TEST_F(SbdClientTest, PacingIsLengthTimesLbrtTimes1Point1) {
  shake(8000);
  client_->on_sent(10'000, kStart);
  const Time due = kStart + milliseconds(88);
  EXPECT_EQ(client_->next_send(), due);
  EXPECT_FALSE(client_->may_send(due - SbdClient::kPacingSlack - microseconds(1)));
  EXPECT_TRUE(client_->may_send(due - SbdClient::kPacingSlack));
  EXPECT_TRUE(client_->may_send(due));
}

TEST_F(SbdClientTest, IdleTimeIsNotSavedUp) {
  shake(8000);
  client_->on_sent(1'000, kStart);
  client_->on_sent(1'000, kStart + seconds(50));
  EXPECT_EQ(client_->next_send(), kStart + seconds(50) + microseconds(8'800));
}

TEST_F(SbdClientTest, RateMayChangeAtAnyTime) {
  shake(8000);
  ASSERT_TRUE(client_->on_message(sbd::encode_limit_byte_nanos(16'000), kStart).has_value());
  client_->on_sent(1'000, kStart);
  EXPECT_EQ(client_->next_send(), kStart + microseconds(17'600));
  ASSERT_TRUE(client_->on_message(sbd::encode_limit_byte_nanos(1), kStart).has_value());
  EXPECT_TRUE(client_->may_send(kStart)) << "1 is: no limit";
}

TEST_F(SbdClientTest, NonsenseRatesAreHarmless) {
  for (const std::int32_t rate : {0, -1, INT32_MIN}) {
    ASSERT_TRUE(client_->on_message(sbd::encode_limit_byte_nanos(rate), kStart).has_value());
    EXPECT_EQ(client_->byte_nanos(), 1);
  }
  shake(INT32_MAX);
  for (int i = 0; i < 1000; ++i) client_->on_sent(20'000, kStart);
  EXPECT_EQ(client_->next_send(), kStart + SbdClient::kMaxPacingLead);
}

TEST_F(SbdClientTest, HandshakeHasALimit) {
  EXPECT_EQ(client_->next_deadline(), kStart + SbdClient::kHandshakeLimit);
  EXPECT_FALSE(client_->is_handshake_overdue(kStart + SbdClient::kHandshakeLimit - microseconds(1)));
  EXPECT_TRUE(client_->is_handshake_overdue(kStart + SbdClient::kHandshakeLimit));
  shake();
  EXPECT_FALSE(client_->is_handshake_overdue(kStart + seconds(1000)));
}

}  // namespace
}  // namespace kitsune2::tx5
