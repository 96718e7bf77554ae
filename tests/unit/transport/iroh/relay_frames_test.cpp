// Frames of the iroh relay protocol: a captured handshake, every type there and back, what each side may not say.
#include "transport/iroh/relay_frames.hpp"

#include <gtest/gtest.h>

#include "unit/transport/hex.hpp"

namespace kitsune2::iroh {
namespace {

using tests::hex;

template <class T>
T array_of(std::uint8_t byte) {
  T out{};
  out.fill(byte);
  return out;
}

std::string outcome(RelayVersion version, Sender sender, const Bytes& message) {
  const Result<RelayFrame> out = decode_relay_frame(version, sender, message);
  return out ? "type " + std::to_string(out->index()) : out.error().to_string();
}

// A real relay (kitsune2-bootstrap-srv 0.5.3) took these bytes.
TEST(IrohRelayFrames, TheCapturedHandshake) {
  const auto challenge = decode_relay_frame(RelayVersion::v2, Sender::relay, hex("00a61cb8a866696314808b52523acbd580"));
  ASSERT_TRUE(challenge);
  EXPECT_EQ(to_hex(std::get<ServerChallenge>(*challenge).challenge), "a61cb8a866696314808b52523acbd580");
  const std::string answer =
      "0138aa2fe43ae0b78882f9a103fcacbf7be885effae1109ce46a2b477b774ee248401ca2432dcb0e08e59aa936122cc7b12f22d28ebcfbeb"
      "973b1b8a389b03afde1fd8f661003e683516def6b775b4e1f13105804a147ea8b23182adb505d6c3780f";
  const auto auth = decode_relay_frame(RelayVersion::v2, Sender::client, hex(answer));
  ASSERT_TRUE(auth);
  EXPECT_EQ(to_hex(std::get<ClientAuth>(*auth).key),
            "38aa2fe43ae0b78882f9a103fcacbf7be885effae1109ce46a2b477b774ee248");
  EXPECT_TRUE(to_hex(std::get<ClientAuth>(*auth).signature).starts_with("1ca2432dcb0e08e5"));
  EXPECT_EQ(to_hex(encode_relay_frame(Sender::client, *auth)), answer);
  const auto verdict = decode_relay_frame(RelayVersion::v2, Sender::relay, hex("02"));
  ASSERT_TRUE(verdict);
  EXPECT_TRUE(std::holds_alternative<ServerConfirmsAuth>(*verdict));
}

struct Case {
  Sender sender;
  RelayFrame frame;
  std::string bytes;
};

const std::vector<Case>& cases() {
  const auto id = array_of<EndpointId>(0xab);
  const std::string id_hex = to_hex(id);
  static const std::vector<Case> all{
      {Sender::relay, ServerChallenge{array_of<std::array<std::uint8_t, 16>>(1)},
       "00" + std::string("01010101010101010101010101010101")},
      {Sender::relay, ServerConfirmsAuth{}, "02"},
      {Sender::relay, ServerDeniesAuth{"not authorized"}, "030e6e6f7420617574686f72697a6564"},
      {Sender::client, Datagrams{id, 2, 0, Bytes::copy_of("packet")}, "04" + id_hex + "027061636b6574"},
      {Sender::client, Datagrams{id, 0, 0x1234, Bytes::copy_of("packets")}, "05" + id_hex + "0012347061636b657473"},
      {Sender::relay, Datagrams{id, 3, 0, Bytes::copy_of("packet")}, "06" + id_hex + "037061636b6574"},
      {Sender::relay, Datagrams{id, 1, 1200, Bytes::copy_of("packets")}, "07" + id_hex + "0104b07061636b657473"},
      {Sender::relay, EndpointGone{id}, "08" + id_hex},
      {Sender::client, Ping{array_of<PingPayload>(7)}, "090707070707070707"},
      {Sender::relay, Ping{array_of<PingPayload>(7)}, "090707070707070707"},
      {Sender::client, Pong{array_of<PingPayload>(8)}, "0a0808080808080808"},
      {Sender::relay, Pong{array_of<PingPayload>(8)}, "0a0808080808080808"},
      {Sender::relay, Restarting{1000, 0x01020304}, "0c000003e801020304"},
  };
  return all;
}

TEST(IrohRelayFrames, EveryTypeIsWrittenAndReadBack) {
  for (const Case& c : cases()) {
    const Bytes bytes = encode_relay_frame(c.sender, c.frame);
    EXPECT_EQ(to_hex(bytes), c.bytes);
    for (const RelayVersion version : {RelayVersion::v1, RelayVersion::v2}) {
      const auto read = decode_relay_frame(version, c.sender, bytes);
      ASSERT_TRUE(read) << c.bytes << ": " << read.error().to_string();
      EXPECT_TRUE(*read == c.frame) << c.bytes;
    }
  }
}

TEST(IrohRelayFrames, EachVersionHasItsWayToTellOfTrouble) {
  const Bytes health = encode_relay_frame(Sender::relay, Health{"why"});
  EXPECT_EQ(to_hex(health), "0b776879");
  EXPECT_EQ(std::get<Health>(*decode_relay_frame(RelayVersion::v1, Sender::relay, health)).problem, "why");
  EXPECT_EQ(std::get<Health>(*decode_relay_frame(RelayVersion::v1, Sender::relay, hex("0b"))).problem, "");
  EXPECT_EQ(outcome(RelayVersion::v2, Sender::relay, health), "malformed: relay frame: unexpected type 11");
  EXPECT_EQ(outcome(RelayVersion::v1, Sender::relay, hex("0bff")), "malformed: relay frame: a text that is not UTF-8");
  const Bytes status = encode_relay_frame(Sender::relay, Status{Status::kSameIdElsewhere});
  EXPECT_EQ(to_hex(status), "0d01");
  EXPECT_EQ(std::get<Status>(*decode_relay_frame(RelayVersion::v2, Sender::relay, status)).code, 1);
  EXPECT_EQ(outcome(RelayVersion::v1, Sender::relay, status), "malformed: relay frame: unexpected type 13");
  EXPECT_EQ(std::get<Status>(*decode_relay_frame(RelayVersion::v2, Sender::relay, hex("0d63aabbcc"))).code, 0x63)
      << "a longer body and an unknown code are allowed";
}

TEST(IrohRelayFrames, ABodyHasItsSize) {
  for (const Case& c : cases()) {
    const Bytes whole = hex(c.bytes);
    const bool open_ended = std::holds_alternative<Datagrams>(c.frame);
    const std::size_t fixed = open_ended ? whole.size() - std::get<Datagrams>(c.frame).content.size() : whole.size();
    for (std::size_t size = 1; size < fixed; ++size) {
      EXPECT_FALSE(decode_relay_frame(RelayVersion::v2, c.sender, whole.slice(0, size))) << c.bytes << ' ' << size;
    }
    const bool longer_is_fine = decode_relay_frame(RelayVersion::v2, c.sender, hex(c.bytes + "00")).has_value();
    EXPECT_EQ(longer_is_fine, open_ended) << c.bytes;
  }
  EXPECT_EQ(outcome(RelayVersion::v2, Sender::client, {}), "malformed: relay frame: empty");
  EXPECT_EQ(outcome(RelayVersion::v2, Sender::client, hex("09")), "malformed: relay frame: wrong size for type 9");
  // A signature of another length, and a length that does not end.
  const std::string key(64, 'a');
  EXPECT_FALSE(decode_relay_frame(RelayVersion::v2, Sender::client, hex("01" + key + "3f" + std::string(126, '0'))));
  EXPECT_FALSE(decode_relay_frame(RelayVersion::v2, Sender::client, hex("01" + key + "41" + std::string(130, '0'))));
  EXPECT_FALSE(decode_relay_frame(RelayVersion::v2, Sender::relay, hex("03ffffffffffffff")));
  EXPECT_FALSE(decode_relay_frame(RelayVersion::v2, Sender::relay, hex("0302ff41"))) << "UTF-8";
}

TEST(IrohRelayFrames, NobodySaysWhatIsTheOthersToSay) {
  for (const Case& c : cases()) {
    if (std::holds_alternative<Ping>(c.frame) || std::holds_alternative<Pong>(c.frame)) continue;
    const Sender other = c.sender == Sender::client ? Sender::relay : Sender::client;
    EXPECT_FALSE(decode_relay_frame(RelayVersion::v2, other, hex(c.bytes))) << c.bytes;
  }
  for (const int type : {14, 15, 63}) {
    const Bytes message(std::vector<std::uint8_t>{static_cast<std::uint8_t>(type), 0});
    EXPECT_EQ(outcome(RelayVersion::v2, Sender::relay, message),
              "malformed: relay frame: unexpected type " + std::to_string(type));
  }
}

TEST(IrohRelayFrames, TheTypeIsAQuicNumber) {
  EXPECT_EQ(outcome(RelayVersion::v2, Sender::relay, hex("4002")), "type 2") << "two bytes";
  EXPECT_EQ(outcome(RelayVersion::v2, Sender::relay, hex("80000002")), "type 2") << "four";
  EXPECT_EQ(outcome(RelayVersion::v2, Sender::relay, hex("c000000000000002")), "type 2") << "eight";
  EXPECT_FALSE(decode_relay_frame(RelayVersion::v2, Sender::relay, hex("40")));
  EXPECT_EQ(outcome(RelayVersion::v2, Sender::relay, hex("7fff00")), "malformed: relay frame: unexpected type 16383");
}

TEST(IrohRelayFrames, BatchesAreCutAtTheirSegmentSize) {
  const auto split = [](std::uint16_t size, const char* content) {
    std::vector<std::string> out;
    for (const Bytes& one : Datagrams{{}, 0, size, Bytes::copy_of(content)}.split()) out.push_back(one.str());
    return out;
  };
  using Parts = std::vector<std::string>;
  EXPECT_EQ(split(0, "abcdef"), Parts{"abcdef"});
  EXPECT_EQ(split(2, "abcdef"), (Parts{"ab", "cd", "ef"}));
  EXPECT_EQ(split(4, "abcdef"), (Parts{"abcd", "ef"}));
  EXPECT_EQ(split(100, "abcdef"), Parts{"abcdef"});
  EXPECT_EQ(split(3, ""), Parts{});
  // Slices of the message: nothing is copied.
  const Bytes message = encode_relay_frame(Sender::relay, Datagrams{{}, 0, 2, Bytes::copy_of("abc")});
  const auto read = decode_relay_frame(RelayVersion::v2, Sender::relay, message);
  EXPECT_EQ(std::get<Datagrams>(*read).split()[1].data(), message.data() + message.size() - 1);
}

TEST(IrohRelayFrames, SizesThatARelayTakesAndPassesOn) {
  // Stock relays take these two and cannot write them; they are read here, and never written.
  const std::string id(32, 'i');
  const auto empty = decode_relay_frame(RelayVersion::v2, Sender::client, Bytes("\x04" + id + std::string(1, '\0')));
  ASSERT_TRUE(empty);
  EXPECT_TRUE(std::get<Datagrams>(*empty).content.empty());
  const auto largest =
      decode_relay_frame(RelayVersion::v2, Sender::client, Bytes("\x04" + id + std::string(65'504, 'x')));
  ASSERT_TRUE(largest);
  EXPECT_GT(std::get<Datagrams>(*largest).content.size(), kMaxDatagramBytes);
  EXPECT_EQ(outcome(RelayVersion::v2, Sender::client, Bytes("\x04" + id + std::string(65'505, 'x'))),
            "too_large: relay frame: over 65,536 bytes");
  for (const auto& [segment, most] :
       {std::pair<std::uint16_t, std::size_t>{0, kMaxDatagramBytes}, {1200, kMaxBatchBytes}}) {
    const Bytes written = encode_relay_frame(Sender::client, Datagrams{{}, 0, segment, Bytes(std::string(most, 'x'))});
    EXPECT_EQ(written.size(), kMaxRelayBody);
    EXPECT_TRUE(decode_relay_frame(RelayVersion::v2, Sender::client, written));
  }
  EXPECT_EQ(kMaxDatagramBytes, 65'502U);
  EXPECT_EQ(kMaxBatchBytes, 65'500U);
}

TEST(IrohRelayFrames, TheNewestVersionIsChosen) {
  EXPECT_EQ(newest_version({"iroh-relay-v2, iroh-relay-v1"}), RelayVersion::v2);
  EXPECT_EQ(newest_version({"iroh-relay-v1,iroh-relay-v2"}), RelayVersion::v2);
  EXPECT_EQ(newest_version({"iroh-relay-v1", "  iroh-relay-v2\t"}), RelayVersion::v2) << "two headers";
  EXPECT_EQ(newest_version({"other, iroh-relay-v1"}), RelayVersion::v1);
  EXPECT_EQ(newest_version({"iroh-relay-v3", "", " , ,"}), std::nullopt);
  EXPECT_EQ(newest_version({}), std::nullopt);
  EXPECT_EQ(newest_version({std::string(kOfferedVersions)}), RelayVersion::v2);
  EXPECT_EQ(to_string(RelayVersion::v1), "iroh-relay-v1");
  EXPECT_EQ(to_string(RelayVersion::v2), "iroh-relay-v2");
}

}  // namespace
}  // namespace kitsune2::iroh
