// sbd messages. The golden ones were captured at a stock relay (sbd-server 0.1.0), from a node whose key has the seed
// 32 x 0x01.
#include "transport/sbd/sbd_frames.hpp"

#include <gtest/gtest.h>

#include "transport/tx5/e2e.hpp"
#include "unit/transport/hex.hpp"

namespace kitsune2::sbd {
namespace {

using tests::hex;
using tests::hex_array;

constexpr const char* kNodeId = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
constexpr const char* kLbrt = "000000000000000000000000000000000000000000000000000000006c62727400001f40";
constexpr const char* kAreq =
    "00000000000000000000000000000000000000000000000000000000617265712ba62ba3831429c2cd27b3026b7c2578890cfe01567537c7c7"
    "cc"
    "075bbc5a7434";
constexpr const char* kAres =
    "00000000000000000000000000000000000000000000000000000000617265730364cdb79a3c86e5d6c833d3d1b34d874e0b85cbe83c845ae0"
    "19"
    "95589a173b2e4e9ab9210b8ac007a3986fcf7a5c2c05f9de09b60cb845c76dbbb7f353d97303";
constexpr const char* kLidl = "000000000000000000000000000000000000000000000000000000006c69646c00002710";
constexpr const char* kSrdy = "0000000000000000000000000000000000000000000000000000000073726479";
constexpr const char* kKeep = "000000000000000000000000000000000000000000000000000000006b656570";

TEST(SbdFrames, CapturedCommandsDecode) {
  const Bytes lbrt = hex(kLbrt), areq = hex(kAreq), ares = hex(kAres), lidl = hex(kLidl);
  EXPECT_EQ(parse_frame(lbrt)->kind, FrameKind::limit_byte_nanos);
  EXPECT_EQ(parse_frame(lbrt)->value, 8000);
  EXPECT_EQ(parse_frame(areq)->kind, FrameKind::auth_request);
  EXPECT_EQ(to_hex(parse_frame(areq)->body), "2ba62ba3831429c2cd27b3026b7c2578890cfe01567537c7c7cc075bbc5a7434");
  EXPECT_EQ(parse_frame(ares)->kind, FrameKind::auth_response);
  EXPECT_EQ(parse_frame(ares)->body.size(), kSignatureBytes);
  EXPECT_EQ(parse_frame(lidl)->kind, FrameKind::limit_idle);
  EXPECT_EQ(parse_frame(lidl)->value, 10'000);
  EXPECT_EQ(parse_frame(hex(kSrdy))->kind, FrameKind::ready);
  EXPECT_EQ(parse_frame(hex(kKeep))->kind, FrameKind::keepalive);
}

TEST(SbdFrames, CapturedCommandsEncode) {
  EXPECT_EQ(to_hex(encode_limit_byte_nanos(8000)), kLbrt);
  EXPECT_EQ(to_hex(encode_limit_idle(10'000)), kLidl);
  EXPECT_EQ(to_hex(encode_ready()), kSrdy);
  EXPECT_EQ(to_hex(encode_keepalive()), kKeep);
  EXPECT_EQ(
      to_hex(encode_auth_request(hex_array<32>("2ba62ba3831429c2cd27b3026b7c2578890cfe01567537c7c7cc075bbc5a7434"))),
      kAreq);
}

TEST(SbdFrames, CapturedSignatureIsOurs) {
  ASSERT_TRUE(tx5::crypto_ready());
  tx5::NodeKey::Seed seed;
  seed.fill(1);
  const auto key = tx5::NodeKey::from_seed(seed);
  ASSERT_TRUE(key);
  EXPECT_EQ(to_hex(key->id()), kNodeId);
  const Bytes areq = hex(kAreq), ares = hex(kAres);
  const ByteView nonce = parse_frame(areq)->body;
  EXPECT_EQ(to_hex(encode_auth_response(key->sign(nonce))), kAres);
  EXPECT_TRUE(verify_nonce(key->id(), nonce, parse_frame(ares)->body));
  auto forged = key->sign(nonce);
  forged[5] ^= 1;
  EXPECT_FALSE(verify_nonce(key->id(), nonce, forged));
  EXPECT_FALSE(verify_nonce(key->id(), nonce, ByteView(forged).first(63)));
}

TEST(SbdFrames, PathOfANodeId) {
  const auto id = hex_array<32>(kNodeId);
  EXPECT_EQ(to_path(id), "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w");
  EXPECT_EQ(node_id_from_path("iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w"), id);
  EXPECT_FALSE(node_id_from_path(""));
  EXPECT_FALSE(node_id_from_path("iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1"));
  EXPECT_FALSE(node_id_from_path("iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="));
  EXPECT_FALSE(node_id_from_path("iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb+w"));
}

TEST(SbdFrames, KeyThatLooksLikeACommandIsIllegal) {
  NodeId id{};
  id[28] = 'k';
  EXPECT_FALSE(is_legal_node_id(id));
  EXPECT_FALSE(node_id_from_path(to_path(id)));
  id[27] = 1;
  EXPECT_TRUE(is_legal_node_id(id));
}

TEST(SbdFrames, ForwardsRoundTrip) {
  const auto id = hex_array<32>(kNodeId);
  const Bytes body = Bytes::copy_of("body");
  const Bytes message = encode_forward(id, body);
  ASSERT_EQ(message.size(), 36U);
  const auto frame = parse_frame(message);
  ASSERT_TRUE(frame.has_value());
  EXPECT_EQ(frame->kind, FrameKind::forward);
  EXPECT_EQ(frame->peer, id);
  EXPECT_EQ(as_text(frame->body), "body");
  EXPECT_TRUE(parse_frame(encode_forward(id, {}))->body.empty());
}

TEST(SbdFrames, LengthsAreChecked) {
  for (std::size_t n = 0; n < kHeaderBytes; ++n) {
    EXPECT_EQ(parse_frame(std::vector<std::uint8_t>(n)).error().code, Errc::malformed) << n;
  }
  EXPECT_TRUE(parse_frame(std::vector<std::uint8_t>(kMaxMessageBytes, 1)).has_value());
  EXPECT_EQ(parse_frame(std::vector<std::uint8_t>(kMaxMessageBytes + 1, 1)).error().code, Errc::too_large);
  for (const char* command : {kLbrt, kAreq, kAres, kLidl}) {
    const Bytes whole = hex(command);
    EXPECT_EQ(parse_frame(whole.slice(0, whole.size() - 1)).error().code, Errc::malformed) << command;
    EXPECT_EQ(parse_frame(hex(std::string(command) + "00")).error().code, Errc::malformed) << command;
  }
}

TEST(SbdFrames, APeerThatHasLeftIsNamed) {
  NodeId id;
  id.fill(7);
  const auto frame = parse_frame(encode_peer_gone(id));
  EXPECT_EQ(frame->kind, FrameKind::peer_gone);
  EXPECT_EQ(frame->peer, id);
  EXPECT_EQ(parse_frame(encode_peer_gone(id).slice(0, 63))->kind, FrameKind::unknown);
}

TEST(SbdFrames, UnknownCommandsAreNotErrors) {
  EXPECT_EQ(parse_frame(hex("0000000000000000000000000000000000000000000000000000000078787878ff"))->kind,
            FrameKind::unknown);
  EXPECT_EQ(parse_frame(std::vector<std::uint8_t>(32))->kind, FrameKind::unknown);
}

}  // namespace
}  // namespace kitsune2::sbd
