// WebSocket frames: vectors of the RFC, every way to cut them, and faults.
#include "net/ws_codec.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace kitsune2::net {
namespace {

using Next = WsDecoder::Next;

/// Records the output of a decoder.
struct Log final : WsDecoder::Sink {
  std::vector<std::string> messages;
  std::vector<std::string> pings;
  std::optional<std::pair<std::uint16_t, std::string>> closed;
  Next answer = Next::go;

  Next on_ws_message(WsPayload& message) override {
    if (answer == Next::hold) return answer;
    std::string text(message.size, '\0');
    message.copy_to(reinterpret_cast<std::uint8_t*>(text.data()), 0, message.size);
    messages.push_back(std::move(text));
    return answer;
  }
  void on_ws_ping(ByteView payload) override { pings.emplace_back(as_text(payload)); }
  void on_ws_close(std::uint16_t code, std::string reason) override { closed = {code, std::move(reason)}; }
};

WsDecoder::Outcome feed(WsDecoder& decoder, std::string bytes, Log& log) {
  const std::shared_ptr<std::uint8_t[]> none;
  return decoder.decode({reinterpret_cast<std::uint8_t*>(bytes.data()), bytes.size(), none}, log);
}

std::string frame(WsRole sender, std::uint8_t opcode, std::string_view payload, std::uint32_t key = 0x1234abcd) {
  ByteBuffer out;
  ws_append_frame(out, sender, opcode, as_bytes(payload), key);
  return std::string(as_text({out.data(), out.size()}));
}

/// A client's frame with any first byte.
std::string raw(std::uint8_t first, std::string_view payload) {
  std::string out = frame(WsRole::client, kWsBinary, payload);
  out[0] = static_cast<char>(first);
  return out;
}

TEST(WsMask, IsTheRfcsForAllSizesAlignmentsAndPhases) {
  std::mt19937 random(1);
  std::vector<std::uint8_t> source(400);
  for (auto& b : source) b = static_cast<std::uint8_t>(random());
  for (std::size_t size = 0; size < 200; ++size) {
    for (const std::size_t offset : {0U, 1U, 3U, 7U}) {
      for (std::size_t phase = 0; phase < 5; ++phase) {
        const std::uint32_t key = static_cast<std::uint32_t>(random());
        std::vector<std::uint8_t> out(size + 1, 0xee);
        ws_mask(out.data(), source.data() + offset, size, key, phase);
        for (std::size_t i = 0; i < size; ++i) {
          const auto k = static_cast<std::uint8_t>(key >> (8 * ((phase + i) % 4)));
          ASSERT_EQ(out[i], source[offset + i] ^ k);
        }
        ASSERT_EQ(out[size], 0xee);
      }
    }
  }
}

TEST(WsMask, WorksInPlaceAndKeyZeroCopies) {
  std::string text(1000, 'a');
  auto* data = reinterpret_cast<std::uint8_t*>(text.data());
  ws_mask(data, data, text.size(), 0x01020304);
  EXPECT_NE(text, std::string(1000, 'a'));
  ws_mask(data, data, text.size(), 0x01020304);
  EXPECT_EQ(text, std::string(1000, 'a'));
  std::string copy(1000, 'x');
  ws_mask(reinterpret_cast<std::uint8_t*>(copy.data()), data, text.size(), 0);
  EXPECT_EQ(copy, text);
}

TEST(WsCodec, RfcExamples) {
  // RFC 6455, 5.7: "Hello" unmasked and masked, and a ping.
  EXPECT_EQ(frame(WsRole::server, kWsText, "Hello"), std::string("\x81\x05Hello"));
  EXPECT_EQ(frame(WsRole::client, kWsText, "Hello", 0x3d21fa37),
            std::string("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"));
  EXPECT_EQ(ws_accept_value("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

TEST(WsCodec, KeysOfTheRightFormOnly) {
  EXPECT_TRUE(ws_key_is_valid("dGhlIHNhbXBsZSBub25jZQ=="));
  EXPECT_FALSE(ws_key_is_valid(""));
  EXPECT_FALSE(ws_key_is_valid("dGhlIHNhbXBsZSBub25jZQ="));
  EXPECT_FALSE(ws_key_is_valid("dGhlIHNhbXBsZSBub25jZ\n=="));
}

TEST(WsDecoder, AllLengthFormsBothWays) {
  for (const WsRole sender : {WsRole::client, WsRole::server}) {
    for (const std::size_t size : {0U, 1U, 125U, 126U, 127U, 19'999U, 65'535U, 65'536U, 300'000U}) {
      WsDecoder decoder(sender == WsRole::client ? WsRole::server : WsRole::client, 1U << 20);
      Log log;
      const std::string payload(size, 'p');
      const auto bytes = frame(sender, kWsBinary, payload);
      EXPECT_EQ(bytes.size(), size + ws_header_size(sender, size));
      const auto outcome = feed(decoder, bytes, log);
      EXPECT_EQ(outcome.used, bytes.size());
      ASSERT_EQ(log.messages.size(), 1U) << size;
      EXPECT_EQ(log.messages[0], payload);
    }
  }
}

TEST(WsDecoder, CutAnywhereGivesTheSameMessages) {
  const std::string all =
      frame(WsRole::client, kWsBinary, "one") + raw(0x01, "tw") + frame(WsRole::client, kWsPing, "p") + raw(0x80, "o") +
      frame(WsRole::client, kWsText, std::string(70'000, 'x')) + frame(WsRole::client, kWsBinary, "") +
      frame(WsRole::client, kWsClose,
            "\x03\xe8"
            "bye");
  for (const std::size_t step : {1U, 2U, 3U, 5U, 7U, 64U, 1000U, 65'536U}) {
    WsDecoder decoder(WsRole::server, 100'000);
    Log log;
    std::string pending;
    for (std::size_t at = 0; at < all.size(); at += step) {
      pending += all.substr(at, step);
      const auto outcome = feed(decoder, pending, log);
      ASSERT_FALSE(outcome.fault);
      pending.erase(0, outcome.used);
    }
    ASSERT_EQ(log.messages.size(), 4U) << step;
    EXPECT_EQ(log.messages[0], "one");
    EXPECT_EQ(log.messages[1], "two");
    EXPECT_EQ(log.messages[2], std::string(70'000, 'x'));
    EXPECT_EQ(log.messages[3], "");
    EXPECT_EQ(log.pings, std::vector<std::string>{"p"});
    ASSERT_TRUE(log.closed);
    EXPECT_EQ(log.closed->first, 1000);
    EXPECT_EQ(log.closed->second, "bye");
  }
}

TEST(WsDecoder, AHeldMessageComesAgain) {
  for (const auto& bytes : {frame(WsRole::client, kWsBinary, "direct"), raw(0x02, "di") + raw(0x80, "rect"),
                            frame(WsRole::client, kWsBinary, std::string(70'000, 'd'))}) {
    WsDecoder decoder(WsRole::server, 100'000);
    Log log;
    log.answer = Next::hold;
    std::string pending = bytes + frame(WsRole::client, kWsBinary, "after");
    for (int i = 0; i < 3; ++i) {
      const auto outcome = feed(decoder, pending, log);
      EXPECT_TRUE(outcome.held);
      pending.erase(0, outcome.used);
      EXPECT_TRUE(log.messages.empty());
    }
    log.answer = Next::go;
    const auto outcome = feed(decoder, pending, log);
    EXPECT_FALSE(outcome.held);
    EXPECT_EQ(outcome.used, pending.size());
    ASSERT_EQ(log.messages.size(), 2U);
    EXPECT_EQ(log.messages[0][0], 'd');
    EXPECT_EQ(log.messages[1], "after");
  }
}

TEST(WsDecoder, AfterTheLastMessageTheRestWaitsForTheNextCall) {
  const std::string large = frame(WsRole::client, kWsBinary, std::string(70'000, 'd'));
  for (const auto& bytes : {frame(WsRole::client, kWsBinary, "direct"), large}) {
    WsDecoder decoder(WsRole::server, 100'000);
    Log log;
    log.answer = Next::last;
    std::string pending = bytes + frame(WsRole::client, kWsBinary, "after");
    const auto first = feed(decoder, pending, log);
    EXPECT_TRUE(first.held);
    EXPECT_EQ(first.used, bytes.size());
    EXPECT_FALSE(decoder.holds_message());
    ASSERT_EQ(log.messages.size(), 1U);
    EXPECT_EQ(log.messages[0][0], 'd');
    pending.erase(0, first.used);
    EXPECT_EQ(feed(decoder, pending, log).used, pending.size());
    ASSERT_EQ(log.messages.size(), 2U);
    EXPECT_EQ(log.messages[1], "after");
  }
}

TEST(WsDecoder, StopDeliversNothingMore) {
  WsDecoder decoder(WsRole::server, 1000);
  Log log;
  log.answer = Next::stop;
  const std::string bytes = frame(WsRole::client, kWsBinary, "a") + frame(WsRole::client, kWsBinary, "b");
  EXPECT_EQ(feed(decoder, bytes, log).used, bytes.size());
  EXPECT_EQ(feed(decoder, bytes, log).used, bytes.size());
  EXPECT_EQ(log.messages.size(), 1U);
}

struct Bad {
  const char* name;
  std::string bytes;
  std::uint16_t code;
};

TEST(WsDecoder, BrokenFramesAreFaults) {
  std::string unmasked = frame(WsRole::server, kWsBinary, "x");
  const std::vector<Bad> all = {
      {"unmasked from a client", unmasked, 1002},
      {"reserved bit", raw(0xc2, "x"), 1002},
      {"unknown data opcode", raw(0x83, "x"), 1002},
      {"unknown control opcode", raw(0x8b, "x"), 1002},
      {"fragmented control", raw(0x09, "x"), 1002},
      {"long control", raw(0x89, std::string(126, 'x')), 1002},
      {"continuation without a beginning", raw(0x80, "x"), 1002},
      {"new message inside another", raw(0x02, "x") + raw(0x82, "x"), 1002},
      {"16-bit length that fits 7", std::string("\x82\xfe\x00\x7d\x01\x02\x03\x04", 8), 1002},
      {"64-bit length that fits 16", std::string("\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff\x01\x02\x03\x04", 14), 1002},
      {"huge length", std::string("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04", 14), 1009},
      {"over the limit", std::string("\x82\xfe\x03\xe9\x01\x02\x03\x04", 8), 1009},
      {"fragments over the limit", raw(0x02, std::string(600, 'x')) + raw(0x80, std::string(401, 'x')), 1009},
      {"close of one byte", raw(0x88, "x"), 1002},
  };
  for (const auto& bad : all) {
    WsDecoder decoder(WsRole::server, 1000);
    Log log;
    const auto outcome = feed(decoder, bad.bytes, log);
    ASSERT_TRUE(outcome.fault) << bad.name;
    EXPECT_EQ(outcome.fault->code, bad.code) << bad.name;
    EXPECT_TRUE(log.messages.empty()) << bad.name;
    feed(decoder, frame(WsRole::client, kWsBinary, "later"), log);
    EXPECT_TRUE(log.messages.empty()) << "nothing is decoded after a fault: " << bad.name;
  }
  WsDecoder client(WsRole::client, 1000);
  Log log;
  EXPECT_TRUE(feed(client, frame(WsRole::client, kWsBinary, "x"), log).fault) << "masked from a server";
}

TEST(WsDecoder, ExactlyTheLimitPasses) {
  WsDecoder decoder(WsRole::server, 1000);
  Log log;
  feed(decoder, frame(WsRole::client, kWsBinary, std::string(1000, 'x')), log);
  feed(decoder, raw(0x02, std::string(600, 'x')) + raw(0x80, std::string(400, 'x')), log);
  EXPECT_EQ(log.messages.size(), 2U);
}

TEST(WsDecoder, CloseReasonsAreMadePrintable) {
  WsDecoder decoder(WsRole::server, 1000);
  Log log;
  feed(decoder,
       frame(WsRole::client, kWsClose,
             std::string("\x03\xf0"
                         "a\nb\x1b",
                         6)),
       log);
  ASSERT_TRUE(log.closed);
  EXPECT_EQ(log.closed->second, "a?b?");
}

TEST(WsPayload, TakeSharesLargeAndCopiesSmall) {
  const std::shared_ptr<std::uint8_t[]> buffer(new std::uint8_t[8192]);
  std::memset(buffer.get(), 0x55, 8192);
  WsPayload small{buffer.get(), 100, 0, buffer};
  const Bytes copy = small.take();
  EXPECT_NE(copy.data(), buffer.get());
  WsPayload large{buffer.get(), 8192, 0x55555555, buffer};
  const Bytes shared = large.take();
  EXPECT_EQ(shared.data(), buffer.get());
  EXPECT_EQ(shared, Bytes(std::vector<std::uint8_t>(8192, 0)));
}

}  // namespace
}  // namespace kitsune2::net
