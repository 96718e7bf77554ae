// Kitsune2's frames on a QUIC stream: those of stock nodes, cut anywhere, and what ends a stream.
#include "transport/iroh/framing.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "unit/transport/hex.hpp"

namespace kitsune2::iroh {
namespace {

using nlohmann::json;
using tests::hex;

constexpr std::uint64_t kMax = 100U << 20;

const json& vectors() {
  static const json all = json::parse(std::ifstream(K2_SOURCE_DIR "/tests/vectors/frames-0.5.json"));
  return all;
}

/// What a stream of `bytes` in chunks of `size` gives, and at its end the error or "+<bytes that wait>".
std::vector<std::string> read(FrameReader& reader, const Bytes& bytes, std::size_t size) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < bytes.size(); at += size) {
    reader.feed(bytes.slice(at, size));
    while (true) {
      const Result<std::optional<Frame>> frame = reader.next();
      if (!frame) {
        out.push_back(frame.error().to_string());
        return out;
      }
      if (!*frame) break;
      out.push_back(std::to_string(static_cast<int>((*frame)->kind)) + to_hex((*frame)->body));
    }
  }
  if (reader.waiting() != 0) out.push_back("+" + std::to_string(reader.waiting()));
  return out;
}

TEST(IrohFraming, TheFramesOfStockNodesHoweverTheyAreCut) {
  std::string stream;
  std::vector<std::string> expected;
  for (const char* kind : {"PREFLIGHT", "NOTIFY", "Fetch/REQUEST", "Fetch/RESPONSE", "Publish/AGENT"}) {
    const std::string frame = vectors()[kind][0];
    stream += frame;
    expected.push_back(frame.substr(1, 1) + frame.substr(10));
  }
  const Bytes bytes = hex(stream);
  for (const std::size_t size : {1U, 2U, 3U, 4U, 5U, 6U, 7U, 100U, 115U, 116U, 1200U, 100'000U}) {
    FrameReader reader(true, kMax);
    EXPECT_EQ(read(reader, bytes, size), expected) << size;
    EXPECT_EQ(reader.waiting(), 0U);
  }
}

TEST(IrohFraming, APreflightHasTheUrl) {
  for (const auto& frame : vectors()["PREFLIGHT"]) {
    const Bytes whole = hex(frame.get<std::string>());
    const auto preflight = decode_preflight(whole.slice(kFrameHeaderBytes));
    ASSERT_TRUE(preflight);
    EXPECT_TRUE(preflight->url.text().starts_with("http://127.0.0.1:")) << preflight->url.text();
    EXPECT_EQ(preflight->url.size(), 93U);
    EXPECT_TRUE(to_hex(preflight->k2proto).starts_with("0801")) << "K2Proto of type PREFLIGHT";
    EXPECT_EQ(encode_preflight(preflight->url.text(), preflight->k2proto), whole);
  }
  const auto outcome = [](const char* body) {
    const auto out = decode_preflight(hex(body));
    return out ? out->url.str() + "|" + out->k2proto.str() : out.error().to_string();
  };
  EXPECT_EQ(outcome("0000000161"
                    "62"),
            "a|b");
  EXPECT_EQ(outcome("00000000"), "|");
  EXPECT_EQ(outcome("000000"), "malformed: preflight: no url");
  EXPECT_EQ(outcome("000000026a"), "malformed: preflight: the url is cut off");
  EXPECT_EQ(outcome("ffffffff61"), "malformed: preflight: the url is cut off");
  EXPECT_EQ(outcome("00000001ff"), "malformed: preflight: the url is not UTF-8");
}

TEST(IrohFraming, DataKeepsItsPieces) {
  ByteChain body;
  body.append(Bytes::copy_of("one"));
  body.append(Bytes::copy_of("two"));
  const ByteChain frame = encode_data(body);
  EXPECT_EQ(to_hex(frame.joined()), "01000000066f6e6574776f");
  ASSERT_EQ(frame.pieces().size(), 3U);
  EXPECT_EQ(frame.pieces()[1].data(), body.pieces()[0].data());
  EXPECT_EQ(to_hex(encode_data({}).joined()), "0100000000");
}

TEST(IrohFraming, AMessageInsideAChunkIsNotCopied) {
  FrameReader reader(false, kMax);
  const Bytes chunk =
      hex("01000000026869"
          "0100000000"
          "010000000478");
  reader.feed(chunk);
  const auto first = reader.next();
  ASSERT_TRUE(first && *first);
  EXPECT_EQ((*first)->body.data(), chunk.data() + 5);
  const auto second = reader.next();
  ASSERT_TRUE(second && *second);
  EXPECT_TRUE((*second)->body.empty());
  EXPECT_FALSE(reader.next()->has_value());
  EXPECT_EQ(reader.waiting(), 6U);
}

TEST(IrohFraming, EventsThatEndAStream) {
  const auto outcome = [](bool first, const char* bytes, std::uint64_t most = kMax) {
    FrameReader reader(first, most);
    std::vector<std::string> out = read(reader, hex(bytes), 4);
    reader.feed(hex("0100000000"));
    EXPECT_EQ(reader.next().has_error(), out.back().starts_with("malformed") || out.back().starts_with("too_large"))
        << "an error stays";
    return out;
  };
  using Out = std::vector<std::string>;
  EXPECT_EQ(outcome(true, "0100000000"), Out{"malformed: data before the preflight"});
  EXPECT_EQ(outcome(true,
                    "0000000000"
                    "0000000000"),
            (Out{"0", "malformed: a second preflight"}));
  EXPECT_EQ(outcome(false, "0000000000"), Out{"malformed: a second preflight"});
  EXPECT_EQ(outcome(false, "0200000000"), Out{"malformed: frame of unknown kind 2"});
  EXPECT_EQ(outcome(false,
                    "0100000004"
                    "61626364",
                    9),
            Out{"161626364"});
  EXPECT_EQ(outcome(false,
                    "0100000005"
                    "6162636465",
                    9),
            Out{"too_large: a frame of 5 bytes"});
  EXPECT_EQ(outcome(false, "01ffffffff"), Out{"too_large: a frame of 4294967295 bytes"});
}

TEST(IrohFraming, AnAnnouncedSizeTakesNoMemory) {
  FrameReader reader(false, kMax);
  reader.feed(
      hex("0106000000"
          "aa"));
  EXPECT_FALSE(reader.next()->has_value());
  EXPECT_EQ(reader.waiting(), 6U);
}

}  // namespace
}  // namespace kitsune2::iroh
