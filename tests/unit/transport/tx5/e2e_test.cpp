// The encryption between two nodes. The golden messages were captured from a stock node; our node's key has the seed
// 32 x 0x01.
#include "transport/tx5/e2e.hpp"

#include <gtest/gtest.h>
#include <sodium.h>

#include <cstring>
#include <random>

#include "unit/transport/hex.hpp"

namespace kitsune2::tx5 {
namespace {

using tests::hex;
using tests::hex_array;
using Event = E2eSession::Event;

constexpr const char* kRustId = "586abcedbcef0343a65534eb34e3a689ae2f9fd8fb6dd3990eb509aabf5cf3a5";
constexpr const char* kOutHeader = "ba04e4c96454c88118268b5bc5d59194a968738a22794917";
constexpr const char* kOutPlain = "6872657159452c8f0ebc78ba5b7cfa14b4d791bfa7254d7439e36b6db892872acdabadcb";
constexpr const char* kOutMessage =
    "119a489d767954d871daad6f9022af03249f9140f52fb71975f00d3f7dfd83bd277ee109d15361660a62992d3703484c646ebaeb422f";
constexpr const char* kInNewStream = "10b33bba65dafaa1a57a2bb4bec4ca12dc5266a739c7a15f70";
constexpr const char* kIn1 =
    "1100799df93bb3bd345d70a35b496e353a72067f7d8de0eba5f64dec724f9e031e7df997c08889c3bd65516733034bce7a5dd3560780";
constexpr const char* kIn1Plain = "68726571a141af7738b0f6ec46a48dfd9845ce06e89c3b06e46b69fcc780a082e5e62dce";
constexpr const char* kIn2 =
    "11cdaf06687794075a54d7f743c6d253fa6311acb826d12871b946605c9a6006c93b0bd29d5bce848dc5e1669c5bbb5d92a1915a7160";
constexpr const char* kIn2Plain = "6872657359452c8f0ebc78ba5b7cfa14b4d791bfa7254d7439e36b6db892872acdabadcb";

NodeKey key_of(std::uint8_t fill) {
  crypto_ready();
  NodeKey::Seed seed;
  seed.fill(fill);
  return std::move(*NodeKey::from_seed(seed));
}

E2eSession session(const NodeKey& mine, const NodeId& peer) {
  return E2eSession(peer, std::move(*SessionKeys::derive(mine, peer)));
}

StreamState::Header header(std::uint8_t fill) {
  StreamState::Header out;
  out.fill(fill);
  return out;
}

ByteView body(const Bytes& message) { return message.view().subspan(sbd::kHeaderBytes); }

TEST(E2e, CapturedKeys) {
  const NodeKey mine = key_of(1);
  EXPECT_EQ(to_hex(mine.curve_id()), "1b1b58dd50ea14b60da17b790cd02754d970c9bab864ebb3c0f3016fe51d3f57");
  const auto keys = SessionKeys::derive(mine, hex_array<32>(kRustId));
  ASSERT_TRUE(keys);
  EXPECT_EQ(to_hex(keys->rx()), "a32d416cf806b369add8577fbdd24b720c14b9aa4aa35ad4131855a41859b58b");
  EXPECT_EQ(to_hex(keys->tx()), "040f3ba49db1ebaefb5e39d49dde7ab4d1d3b137357f65a48a15e6462121aceb");
}

TEST(E2e, CapturedOutgoingFrames) {
  const NodeKey mine = key_of(1);
  E2eSession e2e = session(mine, hex_array<32>(kRustId));
  EXPECT_EQ(to_hex(e2e.start_stream(hex_array<24>(kOutHeader))), std::string(kRustId) + "10" + kOutHeader);
  const Bytes plain = hex(kOutPlain);
  EXPECT_EQ(to_hex(e2e.seal(plain.view().first(4), plain.view().subspan(4))), std::string(kRustId) + kOutMessage);
}

TEST(E2e, CapturedIncomingFrames) {
  const NodeKey mine = key_of(1);
  E2eSession e2e = session(mine, hex_array<32>(kRustId));
  EXPECT_EQ(e2e.open(hex(kInNewStream)).event, Event::new_stream);
  auto first = e2e.open(hex(kIn1));
  ASSERT_EQ(first.event, Event::plaintext);
  EXPECT_EQ(to_hex(first.plaintext), kIn1Plain);
  auto second = e2e.open(hex(kIn2));
  ASSERT_EQ(second.event, Event::plaintext);
  EXPECT_EQ(to_hex(second.plaintext), kIn2Plain);
}

// Trap 2: the kx role follows the curve keys; their order often differs from that of the node keys.
TEST(E2e, KxRoleFollowsTheCurveKeys) {
  int orders_differ = 0;
  const NodeKey mine = key_of(1);
  for (std::uint8_t i = 2; i < 40; ++i) {
    const NodeKey other = key_of(i);
    orders_differ += (mine.id() < other.id()) != (mine.curve_id() < other.curve_id()) ? 1 : 0;
    const auto a = SessionKeys::derive(mine, other.id());
    const auto b = SessionKeys::derive(other, mine.id());
    ASSERT_TRUE(a && b);
    EXPECT_EQ(a->tx(), b->rx());
    EXPECT_EQ(a->rx(), b->tx());
    EXPECT_NE(a->tx(), a->rx());
  }
  EXPECT_GT(orders_differ, 0) << "the test would not see the difference";
}

TEST(E2e, BadPeerKeysGiveNoSession) {
  const NodeKey mine = key_of(1);
  EXPECT_FALSE(SessionKeys::derive(mine, mine.id()));
  NodeId small{};  // the neutral element and other points of small order
  small[0] = 1;
  EXPECT_FALSE(SessionKeys::derive(mine, small));
  NodeId off_curve;
  off_curve.fill(0xff);
  EXPECT_FALSE(SessionKeys::derive(mine, off_curve));
}

TEST(E2e, StreamsAreIndependentByDirection) {
  const NodeKey ka = key_of(1), kb = key_of(2);
  E2eSession a = session(ka, kb.id()), b = session(kb, ka.id());
  EXPECT_EQ(b.open(body(a.start_stream(header(9)))).event, Event::new_stream);
  EXPECT_EQ(a.open(body(b.start_stream(header(9)))).event, Event::new_stream);
  for (int i = 0; i < 5; ++i) {
    const auto to_b = b.open(body(a.seal(as_bytes("ping"), as_bytes("!"))));
    ASSERT_EQ(to_b.event, Event::plaintext);
    EXPECT_EQ(to_b.plaintext.text(), "ping!");
    EXPECT_EQ(a.open(body(b.seal({}, as_bytes("pong")))).plaintext.text(), "pong");
  }
}

TEST(E2e, AStreamCountsFromItsFirstMessageAndIsTakenOnce) {
  const NodeKey ka = key_of(1), kb = key_of(2);
  E2eSession a = session(ka, kb.id()), other = session(ka, kb.id()), b = session(kb, ka.id());
  const Bytes begin = a.start_stream(header(1)), hello = a.seal({}, as_bytes("hello"));
  EXPECT_EQ(b.open(body(begin)).event, Event::new_stream);
  EXPECT_TRUE(b.open(body(hello)).first);
  // Another one is begun: the first goes on until a message of the other comes.
  EXPECT_EQ(b.open(body(other.start_stream(header(2)))).event, Event::new_stream);
  const auto more = b.open(body(a.seal({}, as_bytes("more"))));
  EXPECT_EQ(more.plaintext.text(), "more");
  EXPECT_FALSE(more.first);
  EXPECT_TRUE(b.open(body(other.seal({}, as_bytes("new")))).first);
  EXPECT_EQ(b.open(body(a.seal({}, as_bytes("late")))).event, Event::undecryptable);
  // Both are known now.
  EXPECT_EQ(b.open(body(begin)).event, Event::ignored);
  EXPECT_EQ(b.open(body(hello)).event, Event::undecryptable);
  E2eSession later = session(kb, ka.id());
  later.remember(b.memory());
  EXPECT_EQ(later.open(body(begin)).event, Event::ignored);
  for (std::size_t i = 0; i < 1000; ++i) {
    StreamState::Header h{};
    std::memcpy(h.data() + 4, &i, sizeof(i));
    E2eSession again = session(ka, kb.id());
    later.open(body(again.start_stream(h)));
    later.open(body(again.seal({}, as_bytes("x"))));
  }
  EXPECT_EQ(later.memory().size(), E2eSession::kRemembered);
}

TEST(E2e, AGenuineFrameIsDecryptedIntoTheGivenRoom) {
  const NodeKey ka = key_of(1), kb = key_of(2);
  E2eSession a = session(ka, kb.id()), b = session(kb, ka.id());
  b.open(body(a.start_stream(header(1))));
  std::vector<std::uint8_t> room(6, 'r');
  std::vector<std::uint8_t> forged(body(a.seal(as_bytes("for"), as_bytes("ged"))).size(), 0x11);
  EXPECT_EQ(b.open(forged, room).event, Event::undecryptable);
  EXPECT_EQ(as_text(room), "rrrrrr");
  E2eSession c = session(ka, kb.id());
  b.open(body(c.start_stream(header(2))));
  const auto first = b.open(body(c.seal({}, as_bytes("first"))), room);
  EXPECT_TRUE(first.first);
  EXPECT_EQ(first.plaintext.text(), "first") << "not there: it may be of no stream that is wanted";
  const auto placed = b.open(body(c.seal(as_bytes("p"), as_bytes("lace"))), room);
  EXPECT_EQ(placed.event, Event::plaintext);
  EXPECT_EQ(placed.placed, 5U);
  EXPECT_TRUE(placed.plaintext.empty());
  EXPECT_EQ(as_text(room), "placer");
  const auto too_large = b.open(body(c.seal({}, as_bytes("longer!"))), room);
  EXPECT_EQ(too_large.placed, 0U);
  EXPECT_EQ(too_large.plaintext.text(), "longer!");
  EXPECT_EQ(as_text(room), "placer");
  const auto empty = b.open(body(c.seal({}, {})), room);
  EXPECT_EQ(empty.event, Event::plaintext);
  EXPECT_EQ(empty.placed, 0U);
}

TEST(E2e, EmptyAndLargestPlaintext) {
  const NodeKey ka = key_of(1), kb = key_of(2);
  E2eSession a = session(ka, kb.id()), b = session(kb, ka.id());
  b.open(body(a.start_stream(header(1))));
  auto empty = b.open(body(a.seal({}, {})));
  EXPECT_EQ(empty.event, Event::plaintext);
  EXPECT_TRUE(empty.plaintext.empty());
  const Bytes large(std::vector<std::uint8_t>(kMaxPlaintext, 3));
  const Bytes message = a.seal({}, large);
  EXPECT_EQ(message.size(), sbd::kMaxMessageBytes);
  EXPECT_EQ(b.open(body(message)).plaintext, large);
}

// Trap 6: what was encrypted on a stream of the past is ignored without a word.
TEST(E2e, MessageWithoutDecryptStateIsIgnored) {
  const NodeKey ka = key_of(1), kb = key_of(2);
  E2eSession a = session(ka, kb.id()), b = session(kb, ka.id());
  a.start_stream(header(1));
  const Bytes old = a.seal({}, as_bytes("old"));
  EXPECT_EQ(b.open(body(old)).event, Event::ignored);
  EXPECT_FALSE(b.is_decrypting());
  EXPECT_EQ(b.open(body(a.start_stream(header(2)))).event, Event::new_stream);
  EXPECT_EQ(b.open(body(old)).event, Event::undecryptable);
  EXPECT_EQ(b.open(body(a.seal({}, as_bytes("new")))).plaintext.text(), "new");
}

TEST(E2e, RequestNewStreamDropsTheEncryptState) {
  const NodeKey ka = key_of(1), kb = key_of(2);
  E2eSession a = session(ka, kb.id()), b = session(kb, ka.id());
  a.start_stream(header(1));
  const Bytes request = b.request_stream();
  EXPECT_EQ(to_hex(request), to_hex(ka.id()) + "12");
  EXPECT_EQ(a.open(body(request)).event, Event::new_stream_request);
  EXPECT_FALSE(a.is_encrypting());
}

// The stock decoder computes length - 17 unchecked and aborts; ours must not.
TEST(E2e, ShortMessagesAreUndecryptable) {
  const NodeKey ka = key_of(1), kb = key_of(2);
  E2eSession a = session(ka, kb.id()), b = session(kb, ka.id());
  b.open(body(a.start_stream(header(1))));
  for (std::size_t n = 0; n < kSealBytes; ++n) {
    std::vector<std::uint8_t> message(1 + n, 0x61);
    message[0] = kMessage;
    EXPECT_EQ(b.open(message).event, Event::undecryptable) << n;
  }
  EXPECT_EQ(b.open(body(a.seal({}, as_bytes("fine")))).plaintext.text(), "fine");
}

TEST(E2e, WrongLengthsAndTypesChangeNothing) {
  const NodeKey ka = key_of(1), kb = key_of(2);
  E2eSession a = session(ka, kb.id()), b = session(kb, ka.id());
  b.open(body(a.start_stream(header(1))));
  b.start_stream(header(2));
  EXPECT_EQ(b.open({}).event, Event::undecryptable);
  for (const std::size_t n : {0U, 1U, 23U, 25U, 300U}) {
    std::vector<std::uint8_t> message(1 + n, 5);
    message[0] = kNewStream;
    EXPECT_EQ(b.open(message).event, Event::undecryptable) << n;
  }
  EXPECT_EQ(b.open(hex("1200")).event, Event::undecryptable);
  EXPECT_TRUE(b.is_encrypting());
  for (const char* type : {"00", "0f", "13", "ff"}) EXPECT_EQ(b.open(hex(type)).event, Event::undecryptable);
  EXPECT_EQ(b.open(body(a.seal({}, as_bytes("fine")))).plaintext.text(), "fine");
}

TEST(E2e, EveryForgedByteIsFound) {
  const NodeKey ka = key_of(1), kb = key_of(2);
  E2eSession a = session(ka, kb.id()), b = session(kb, ka.id());
  b.open(body(a.start_stream(header(1))));
  const Bytes message = a.seal({}, as_bytes("some text"));
  for (std::size_t i = 1; i < body(message).size(); ++i) {
    std::vector<std::uint8_t> forged(body(message).begin(), body(message).end());
    forged[i] ^= 0x40;
    ASSERT_EQ(b.open(forged).event, Event::undecryptable) << i;
  }
  EXPECT_EQ(b.open(body(message)).plaintext.text(), "some text");
  EXPECT_EQ(b.open(body(message)).event, Event::undecryptable) << "a repeated message";
}

TEST(E2e, StreamsAreThoseOfLibsodiumBothWays) {
  ASSERT_TRUE(crypto_ready());
  std::mt19937 random(5);
  std::array<std::uint8_t, 32> key{};
  key.fill(9);
  crypto_secretstream_xchacha20poly1305_state theirs;
  StreamState::Header out_header;
  crypto_secretstream_xchacha20poly1305_init_push(&theirs, out_header.data(), key.data());
  StreamState opens(out_header, key);
  StreamState seals(header(3), key);
  crypto_secretstream_xchacha20poly1305_state reads;
  crypto_secretstream_xchacha20poly1305_init_pull(&reads, header(3).data(), key.data());
  for (std::size_t i = 0; i < 400; ++i) {
    const std::size_t size = i < 150 ? i : random() % kMaxPlaintext;
    std::vector<std::uint8_t> plain(size);
    for (auto& byte : plain) byte = static_cast<std::uint8_t>(random());
    // From libsodium; the tags 2 and 3 make both ends take a new key.
    std::vector<std::uint8_t> sealed(size + kSealBytes), got(size);
    crypto_secretstream_xchacha20poly1305_push(&theirs, sealed.data(), nullptr, plain.data(), size, nullptr, 0,
                                               static_cast<std::uint8_t>(i % 4));
    sealed[size / 2] ^= 1;
    ASSERT_FALSE(opens.open(sealed, got.data()));
    sealed[size / 2] ^= 1;
    ASSERT_TRUE(opens.open(sealed, got.data())) << i;
    ASSERT_EQ(got, plain);
    // To libsodium.
    const std::size_t first = random() % (size + 1), second = random() % (size - first + 1);
    const ByteView whole(plain);
    seals.seal(std::array{whole.first(first), whole.subspan(first, second), whole.subspan(first + second)},
               sealed.data());
    unsigned char tag = 1;
    ASSERT_EQ(crypto_secretstream_xchacha20poly1305_pull(&reads, got.data(), nullptr, &tag, sealed.data(),
                                                         sealed.size(), nullptr, 0),
              0)
        << i;
    ASSERT_EQ(tag, 0);
    ASSERT_EQ(got, plain);
  }
}

TEST(E2e, RandomBytesNeverDecrypt) {
  const NodeKey ka = key_of(1), kb = key_of(2);
  E2eSession a = session(ka, kb.id()), b = session(kb, ka.id());
  b.open(body(a.start_stream(header(1))));
  std::mt19937 random(4);
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::uint8_t> junk(random() % 200);
    for (auto& byte : junk) byte = static_cast<std::uint8_t>(random());
    if (!junk.empty() && junk[0] == kNewStream) junk[0] = 0;
    EXPECT_NE(b.open(junk).event, Event::plaintext);
  }
  EXPECT_EQ(b.open(body(a.seal({}, as_bytes("fine")))).plaintext.text(), "fine");
}

}  // namespace
}  // namespace kitsune2::tx5
