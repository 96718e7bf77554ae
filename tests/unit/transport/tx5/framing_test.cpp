// tx5 framing. The golden frames were captured between stock nodes; the letters "fmsg" are left out.
#include "transport/tx5/framing.hpp"

#include <gtest/gtest.h>

#include <random>

#include "in_place.hpp"
#include "unit/transport/hex.hpp"

namespace kitsune2::tx5 {
namespace {

using tests::decode_in_place;
using tests::hex;
using Event = FrameDecoder::Event;

constexpr std::uint64_t kLimit = 1'000'000;

Bytes frame(FrameType type, std::uint32_t value, std::string_view payload = {}) {
  std::string out(as_text(encode_frame_header(type, value)));
  out += payload;
  return Bytes(std::move(out));
}
Bytes version() { return Bytes::copy_of(ByteView(version_frame())); }

Errc error_of(FrameDecoder& decoder, const Bytes& bytes) {
  const auto r = decoder.decode(bytes);
  return r.has_error() ? r.error().code : Errc::internal;
}

FrameDecoder ready() {
  FrameDecoder decoder(kLimit);
  EXPECT_TRUE(decoder.decode(version()).has_value());
  return decoder;
}

FrameDecoder permitted(std::uint32_t size) {
  FrameDecoder decoder = ready();
  EXPECT_TRUE(decoder.decode(frame(FrameType::permit_request, size)).has_value());
  decoder.on_granted();
  return decoder;
}

TEST(Framing, CapturedHeaders) {
  EXPECT_EQ(to_hex(version_frame()), "42747835");
  EXPECT_EQ(to_hex(encode_frame_header(FrameType::message, 2)), "60000002");
  EXPECT_EQ(to_hex(encode_frame_header(FrameType::permit_request, 20024)), "a0004e38");
  EXPECT_EQ(to_hex(encode_frame_header(FrameType::permit_grant, 20024)), "c0004e38");
  EXPECT_EQ(to_hex(encode_frame_header(FrameType::chunk, 16380)), "80003ffc");
  EXPECT_EQ(to_hex(encode_frame_header(FrameType::chunk, 3644)), "80000e3c");
  EXPECT_EQ(to_hex(encode_frame_header(FrameType::message, kMaxFrameValue)), "7fffffff");
}

TEST(Framing, CapturedSequenceDecodes) {
  FrameDecoder decoder(kLimit);
  EXPECT_EQ(decoder.decode(hex("42747835"))->event, Event::nothing);
  const auto preflight = decoder.decode(hex("600000020801"));
  ASSERT_EQ(preflight->event, Event::message);
  EXPECT_EQ(to_hex(preflight->message), "0801");
  EXPECT_FALSE(preflight->chunked);
  const auto request = decoder.decode(hex("a0004e38"));
  ASSERT_EQ(request->event, Event::permit_request);
  EXPECT_EQ(request->value, 20024U);
  EXPECT_TRUE(decoder.is_awaiting_permit());
  decoder.on_granted();
  EXPECT_TRUE(decoder.is_receiving_chunks());
  std::string text(20024, 'x');
  text.replace(0, 10, std::string("\x08\x02\x12\xa0\x9c\x01\x78\x78\x78\x78", 10));
  const auto first = decoder.decode(frame(FrameType::chunk, 16380, text.substr(0, 16380)));
  ASSERT_EQ(first->event, Event::progress);
  EXPECT_EQ(first->value, 16380U);
  const auto last = decoder.decode(frame(FrameType::chunk, 3644, text.substr(16380)));
  ASSERT_EQ(last->event, Event::message);
  EXPECT_TRUE(last->chunked);
  EXPECT_EQ(last->message.text(), text);
  EXPECT_FALSE(decoder.is_receiving_chunks());
}

TEST(Framing, VersionFirstAndOnce) {
  FrameDecoder early(kLimit);
  EXPECT_EQ(error_of(early, frame(FrameType::message, 1, "x")), Errc::peer_fault);
  FrameDecoder twice = ready();
  EXPECT_EQ(error_of(twice, version()), Errc::peer_fault);
  FrameDecoder grant(kLimit);
  EXPECT_EQ(error_of(grant, frame(FrameType::permit_grant, 5)), Errc::peer_fault);
  for (const char* wrong : {"41747835", "43747835", "42747836", "4274783500", "427478"}) {
    FrameDecoder decoder(kLimit);
    EXPECT_EQ(error_of(decoder, hex(wrong)), Errc::peer_fault) << wrong;
  }
}

TEST(Framing, ReservedTypesAreErrors) {
  for (const auto type : {FrameType::reserved0, FrameType::reserved1, FrameType::reserved7}) {
    FrameDecoder decoder = ready();
    EXPECT_EQ(error_of(decoder, frame(type, 7)), Errc::peer_fault);
  }
  FrameDecoder closed = ready();
  EXPECT_EQ(error_of(closed, hex("00000000")), Errc::disconnected);
  FrameDecoder body = ready();
  EXPECT_EQ(error_of(body, hex("0000000000")), Errc::peer_fault);
}

TEST(Framing, LengthsMustMatch) {
  for (const std::uint32_t claimed : {0U, 2U, 4U, 16380U}) {
    FrameDecoder decoder = ready();
    EXPECT_EQ(error_of(decoder, frame(FrameType::message, claimed, "abc")), Errc::peer_fault) << claimed;
    FrameDecoder chunks = permitted(100'000);
    EXPECT_EQ(error_of(chunks, frame(FrameType::chunk, claimed, "abc")), Errc::peer_fault) << claimed;
  }
  FrameDecoder empty_chunk = permitted(100);
  EXPECT_EQ(error_of(empty_chunk, frame(FrameType::chunk, 0)), Errc::peer_fault);
  FrameDecoder request = ready();
  EXPECT_EQ(error_of(request, frame(FrameType::permit_request, 20'000, "x")), Errc::peer_fault);
  FrameDecoder grant = ready();
  EXPECT_EQ(error_of(grant, frame(FrameType::permit_grant, 20'000, "x")), Errc::peer_fault);
}

TEST(Framing, TruncatedAndOversizedFrames) {
  for (std::size_t n = 0; n < 4; ++n) {
    FrameDecoder decoder = ready();
    EXPECT_EQ(error_of(decoder, Bytes(std::vector<std::uint8_t>(n, 0x60))), Errc::peer_fault) << n;
  }
  FrameDecoder largest = ready();
  EXPECT_EQ(largest.decode(frame(FrameType::message, 16380, std::string(16380, 'a')))->message.size(), 16380U);
  EXPECT_EQ(error_of(largest, frame(FrameType::message, 16381, std::string(16381, 'a'))), Errc::peer_fault);
}

TEST(Framing, EmptyMessageIsAMessage) {
  FrameDecoder decoder = ready();
  const auto r = decoder.decode(frame(FrameType::message, 0));
  ASSERT_EQ(r->event, Event::message);
  EXPECT_TRUE(r->message.empty());
}

TEST(Framing, WholeMessagesAreSlices) {
  FrameDecoder decoder = ready();
  const Bytes whole = frame(FrameType::message, 5, "abcde");
  EXPECT_EQ(decoder.decode(whole)->message.data(), whole.data() + 4);
}

TEST(Framing, PermitRequestLimits) {
  FrameDecoder at_limit = ready();
  EXPECT_EQ(at_limit.decode(frame(FrameType::permit_request, kLimit))->event, Event::permit_request);
  FrameDecoder over = ready();
  EXPECT_EQ(error_of(over, frame(FrameType::permit_request, kLimit + 1)), Errc::too_large);
  FrameDecoder huge = ready();
  EXPECT_EQ(error_of(huge, frame(FrameType::permit_request, kMaxFrameValue)), Errc::too_large);
  FrameDecoder zero = ready();
  EXPECT_EQ(error_of(zero, frame(FrameType::permit_request, 0)), Errc::peer_fault);
  FrameDecoder small = ready();  // odd, but a stock node takes it
  EXPECT_EQ(small.decode(frame(FrameType::permit_request, 1))->event, Event::permit_request);
  small.on_granted();
  EXPECT_EQ(small.decode(frame(FrameType::chunk, 1, "z"))->message.text(), "z");
}

TEST(Framing, NothingInBetweenOfTypes345) {
  for (const Bytes& other : {frame(FrameType::message, 1, "x"), frame(FrameType::permit_request, 20'000)}) {
    FrameDecoder waiting = ready();
    ASSERT_TRUE(waiting.decode(frame(FrameType::permit_request, 20'000)).has_value());
    EXPECT_EQ(error_of(waiting, other), Errc::peer_fault);
    FrameDecoder chunks = permitted(20'000);
    EXPECT_EQ(error_of(chunks, other), Errc::peer_fault);
  }
  FrameDecoder chunk_before_grant = ready();
  ASSERT_TRUE(chunk_before_grant.decode(frame(FrameType::permit_request, 20'000)).has_value());
  EXPECT_EQ(error_of(chunk_before_grant, frame(FrameType::chunk, 1, "x")), Errc::peer_fault);
  FrameDecoder chunk_unasked = ready();
  EXPECT_EQ(error_of(chunk_unasked, frame(FrameType::chunk, 1, "x")), Errc::peer_fault);
}

// Trap 8: grants for the other direction come at any time.
TEST(Framing, GrantsComeAtAnyTime) {
  FrameDecoder decoder = permitted(4);
  ASSERT_EQ(decoder.decode(frame(FrameType::chunk, 2, "ab"))->event, Event::progress);
  const auto grant = decoder.decode(frame(FrameType::permit_grant, 77'777));
  ASSERT_EQ(grant->event, Event::permit_grant);
  EXPECT_EQ(grant->value, 77'777U);
  EXPECT_EQ(decoder.decode(frame(FrameType::chunk, 2, "cd"))->message.text(), "abcd");
}

TEST(Framing, ChunksMayNotOverflowThePermit) {
  FrameDecoder decoder = permitted(20'000);
  ASSERT_EQ(decoder.decode(frame(FrameType::chunk, 16380, std::string(16380, 'a')))->event, Event::progress);
  EXPECT_EQ(error_of(decoder, frame(FrameType::chunk, 3621, std::string(3621, 'b'))), Errc::peer_fault);
}

TEST(Framing, TheFirstErrorIsTheLast) {
  FrameDecoder decoder = ready();
  EXPECT_EQ(error_of(decoder, hex("e0000000")), Errc::peer_fault);
  EXPECT_EQ(error_of(decoder, frame(FrameType::message, 1, "x")), Errc::peer_fault);
  decoder.on_granted();
  EXPECT_FALSE(decoder.is_receiving_chunks());
}

TEST(Framing, PermitAloneAllocatesNothing) {
  FrameDecoder decoder(kMaxFrameValue);
  ASSERT_TRUE(decoder.decode(version()).has_value());
  ASSERT_TRUE(decoder.decode(frame(FrameType::permit_request, kMaxFrameValue)).has_value());
  decoder.on_granted();
  EXPECT_EQ(decoder.received(), 0U);
  EXPECT_EQ(decoder.permitted(), kMaxFrameValue);
  ASSERT_EQ(decoder.decode(frame(FrameType::chunk, 1, "x"))->event, Event::progress);
  EXPECT_EQ(decoder.received(), 1U);
}

TEST(Framing, ChunksAreReadIntoTheirPlace) {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += static_cast<char>(i * 7 + i / 256);
  FrameDecoder decoder = permitted(static_cast<std::uint32_t>(text.size()));
  std::size_t kept = 0, at = 0;
  Result<FrameDecoder::Decoded> last = FrameDecoder::Decoded{};
  for (int i = 0; at < text.size(); ++i) {
    const auto part = text.substr(at, i == 0 ? 3 : i == 1 ? 5 : kMaxChunkBytes);
    at += part.size();
    last = decode_in_place(decoder, frame(FrameType::chunk, static_cast<std::uint32_t>(part.size()), part), kept);
    ASSERT_TRUE(last.has_value());
    if (i == 3) {  // in between, a grant for a message of this side
      const auto grant = decode_in_place(decoder, frame(FrameType::permit_grant, 5), kept);
      ASSERT_TRUE(grant.has_value());
      EXPECT_EQ(grant->event, Event::permit_grant);
    }
  }
  ASSERT_EQ(last->event, Event::message);
  EXPECT_TRUE(last->chunked);
  EXPECT_TRUE(last->message.text() == text);
  EXPECT_EQ(kept, 7U) << "all but the first two, in front of which there is no room for the header";
}

TEST(Framing, NothingIsLentWhereNoChunkIsExpected) {
  FrameDecoder fresh(kLimit);
  EXPECT_TRUE(fresh.lend(4).empty());
  FrameDecoder idle = ready();
  EXPECT_TRUE(idle.lend(4).empty());
  FrameDecoder granted = permitted(100'000);
  EXPECT_TRUE(granted.lend(4).empty()) << "memory only for what has come";
  ASSERT_TRUE(granted.decode(frame(FrameType::chunk, 7, "1234567")).has_value());
  EXPECT_TRUE(granted.lend(4).empty());
}

TEST(Framing, InPlaceAndNotIsTheSame) {
  std::mt19937 random(11);
  std::size_t kept = 0, messages = 0;
  for (int round = 0; round < 3000; ++round) {
    FrameDecoder one(50'000), other(50'000);
    for (auto* decoder : {&one, &other}) static_cast<void>(decoder->decode(version()));
    std::uint32_t left = 0;
    for (int i = 0; i < 40; ++i) {
      const bool chunks = one.is_receiving_chunks() && random() % 8 != 0;
      std::string payload(chunks ? 1 + random() % std::min(left, 300U) : random() % 20,
                          static_cast<char>('a' + i % 26));
      auto type = chunks ? FrameType::chunk : static_cast<FrameType>(3 + random() % 4);
      auto value = static_cast<std::uint32_t>(random() % 50 == 0 ? random() % 400 : payload.size());
      if (type == FrameType::permit_request) {
        payload.clear();
        value = left = 1 + random() % 2000;
      }
      const auto bytes = frame(type, value, payload);
      const auto a = one.decode(bytes);
      const auto b = decode_in_place(other, bytes, kept);
      ASSERT_EQ(a.has_value(), b.has_value());
      if (!a) break;
      ASSERT_EQ(a->event, b->event);
      ASSERT_EQ(a->value, b->value);
      ASSERT_EQ(a->chunked, b->chunked);
      ASSERT_EQ(a->message, b->message);
      ASSERT_EQ(one.received(), other.received());
      if (type == FrameType::chunk) left -= value;
      messages += a->chunked && a->event == Event::message ? 1U : 0U;
      if (a->event == Event::permit_request) {
        one.on_granted();
        other.on_granted();
      }
    }
  }
  EXPECT_GT(kept, 5000U);
  EXPECT_GT(messages, 200U);
}

TEST(Framing, RandomFramesNeverCrash) {
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    FrameDecoder decoder(50'000);
    if (round % 4 != 0) static_cast<void>(decoder.decode(version()));
    for (int i = 0; i < 12; ++i) {
      std::string payload(random() % 20, 'p');
      const auto type = static_cast<FrameType>(random() % 8);
      const std::uint32_t value =
          random() % 3 == 0 ? random() & kMaxFrameValue : static_cast<std::uint32_t>(payload.size());
      const auto r = decoder.decode(frame(type, value, payload));
      if (r.has_value() && r->event == Event::permit_request && random() % 2 == 0) decoder.on_granted();
      ASSERT_LE(decoder.received(), 12U * 20U);
    }
  }
}

}  // namespace
}  // namespace kitsune2::tx5
