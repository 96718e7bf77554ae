// Bytes, errors, timestamps, ids and arcs.
#include <gtest/gtest.h>

#include <set>
#include <stdexcept>
#include <unordered_set>

#include "kitsune2/arc.hpp"
#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"

namespace kitsune2 {
namespace {

TEST(ByteChain, IsItsPiecesOneAfterTheOther) {
  ByteChain chain;
  EXPECT_TRUE(chain.empty());
  EXPECT_TRUE(chain.joined().empty());
  const Bytes first = Bytes::copy_of("first");
  chain.append(first);
  chain.append({});
  EXPECT_EQ(chain.joined().data(), first.data()) << "one piece is not copied";
  chain.append(Bytes::copy_of(" second"));
  EXPECT_EQ(chain.size(), 12U);
  ASSERT_EQ(chain.pieces().size(), 2U);
  EXPECT_EQ(chain.pieces()[0].data(), first.data());
  EXPECT_EQ(chain.joined().text(), "first second");
  EXPECT_EQ(ByteChain(first).joined(), first);
}

TEST(Bytes, TakesOverStorageWithoutACopy) {
  std::vector<std::uint8_t> storage{1, 2, 3};
  const std::uint8_t* where = storage.data();
  const Bytes bytes(std::move(storage));
  EXPECT_EQ(bytes.data(), where);
  EXPECT_EQ(bytes.size(), 3U);
  const Bytes copy = bytes;
  EXPECT_EQ(copy.data(), where);
}

TEST(Bytes, SliceSharesAndIsCutToWhatIsThere) {
  const Bytes whole(std::string("hello world"));
  EXPECT_EQ(whole.slice(6).text(), "world");
  EXPECT_EQ(whole.slice(6).data(), whole.data() + 6);
  EXPECT_EQ(whole.slice(0, 5).text(), "hello");
  EXPECT_EQ(whole.slice(6, 100).text(), "world");
  EXPECT_TRUE(whole.slice(11).empty());
  EXPECT_TRUE(whole.slice(SIZE_MAX, SIZE_MAX).empty());
  EXPECT_TRUE(Bytes().slice(1, 1).empty());
}

TEST(Bytes, ASliceOutlivesTheWhole) {
  Bytes part;
  {
    const Bytes whole = Bytes::copy_of(std::string(1000, 'x') + "end");
    part = whole.slice(1000);
  }
  EXPECT_EQ(part.text(), "end");
}

TEST(Bytes, CompactHoldsItsOwnCopy) {
  const Bytes whole(std::string("hello world"));
  const Bytes compact = whole.slice(6).compact();
  EXPECT_EQ(compact.text(), "world");
  EXPECT_NE(compact.data(), whole.data() + 6);
}

TEST(Bytes, ComparesByContent) {
  EXPECT_EQ(Bytes::copy_of("ab"), Bytes(std::string("ab")));
  EXPECT_NE(Bytes::copy_of("ab"), Bytes::copy_of("abc"));
  EXPECT_LT(Bytes::copy_of("ab"), Bytes::copy_of("b"));
  EXPECT_EQ(Bytes(), Bytes(std::vector<std::uint8_t>()));
}

TEST(Hex, LowerCase) {
  const std::vector<std::uint8_t> bytes{0x00, 0xab, 0xff};
  EXPECT_EQ(to_hex(bytes), "00abff");
  EXPECT_EQ(to_hex({}), "");
}

TEST(Base64Url, Rfc4648Vectors) {
  const std::pair<const char*, const char*> table[] = {
      {"", ""},           {"f", "Zg"},          {"fo", "Zm8"},          {"foo", "Zm9v"},
      {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"},
  };
  for (const auto& [plain, coded] : table) {
    EXPECT_EQ(to_base64url(as_bytes(plain)), coded);
    std::vector<std::uint8_t> back;
    EXPECT_TRUE(from_base64url(coded, back));
    EXPECT_EQ(as_text(back), plain);
  }
  const std::vector<std::uint8_t> high{0xfb, 0xff, 0xfe};
  EXPECT_EQ(to_base64url(high), "-__-");
}

TEST(Base64Url, EveryByteRoundTripsAtEveryLength) {
  std::vector<std::uint8_t> bytes;
  for (int i = 0; i < 300; ++i) {
    std::vector<std::uint8_t> back;
    ASSERT_TRUE(from_base64url(to_base64url(bytes), back));
    ASSERT_EQ(back, bytes);
    bytes.push_back(static_cast<std::uint8_t>(i * 37));
  }
}

TEST(Base64Url, RefusesWhatIsNotCanonical) {
  std::vector<std::uint8_t> out;
  for (const char* text : {"Z", "Zg==", "Zg=", "Zm9vY", "Zm+v", "Zm/v", "Zm v", "Zm9v\n", "Zh", "Zm9", "Zm9\x80"}) {
    EXPECT_FALSE(from_base64url(text, out)) << text;
  }
  EXPECT_FALSE(from_base64url(std::string_view("Zm\0v", 4), out));
}

TEST(Error, EveryCodeHasItsOwnNameAndACondition) {
  std::set<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(Errc::internal); ++i) names.insert(to_string(static_cast<Errc>(i)));
  EXPECT_EQ(names.size(), static_cast<std::size_t>(Errc::internal) + 1);
  EXPECT_EQ(to_string(Errc::peer_unresponsive), "peer_unresponsive");
  EXPECT_EQ(condition_of(Errc::bad_signature), Condition::peer);
  EXPECT_EQ(condition_of(Errc::timed_out), Condition::transient);
  EXPECT_EQ(condition_of(Errc::disk_full), Condition::local);
}

TEST(Error, TextAndContext) {
  const Error error(Errc::io, "no such file");
  EXPECT_EQ(error.to_string(), "io: no such file");
  EXPECT_EQ(error.context("op.db").to_string(), "io: op.db: no such file");
}

TEST(Error, ValueOfAnErrorThrowsItsText) {
  const Result<int> result = make_error(Errc::io, "no such file");
  try {
    static_cast<void>(result.value());
    FAIL() << "did not throw";
  } catch (const std::runtime_error& e) {
    EXPECT_TRUE(std::string_view(e.what()).starts_with("io: no such file"));
  }
}

TEST(ErrorDeathTest, AssertionNamesThePlace) {
  EXPECT_DEATH(K2_ASSERT(1 + 1 == 3), "broken invariant: 1 \\+ 1 == 3 \\(.*values_test.cpp");
}

TEST(Timestamp, Text) {
  EXPECT_EQ(Timestamp{0}.to_string(), "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(Timestamp{-1}.to_string(), "1969-12-31T23:59:59.999999Z");
  EXPECT_EQ(Timestamp::from_seconds(951'782'400).to_string(), "2000-02-29T00:00:00.000000Z");
  EXPECT_EQ(Timestamp::from_seconds(951'868'800).to_string(), "2000-03-01T00:00:00.000000Z");
  EXPECT_EQ(Timestamp{1'795'484'840'000'001}.to_string(), "2026-11-24T01:47:20.000001Z");
  EXPECT_EQ(Timestamp::from_seconds(4'107'542'400).to_string(), "2100-03-01T00:00:00.000000Z");
  EXPECT_EQ(Timestamp::max().to_string(), "294247-01-10T04:00:54.775807Z");
  EXPECT_EQ(Timestamp::min().to_string(), "-290308-12-21T19:59:05.224192Z");
}

TEST(Timestamp, ArithmeticSaturates) {
  EXPECT_EQ(Timestamp::max() + Duration(1), Timestamp::max());
  EXPECT_EQ(Timestamp::min() - Duration(1), Timestamp::min());
  EXPECT_EQ(Timestamp::max() - Timestamp::min(), Duration::max());
  EXPECT_EQ(Timestamp::min() - Timestamp::max(), Duration::min());
  EXPECT_EQ(Timestamp{5} - Timestamp{7}, Duration(-2));
}

TEST(DhtLocation, ReferenceFixtures) {
  EXPECT_EQ(dht_location(as_bytes("hello")), 1'819'043'079U);
  const std::vector<std::uint8_t> a{1, 2, 3, 230, 44, 77, 99, 82};
  EXPECT_EQ(dht_location(a), 3'026'210'605U);
  const std::vector<std::uint8_t> b{42, 0, 0, 0, 99, 0, 0, 0};
  EXPECT_EQ(dht_location(b), 73U);
  EXPECT_EQ(dht_location({}), 0U);
}

TEST(DhtLocation, CapturedVectors) {
  std::vector<std::uint8_t> id;
  ASSERT_TRUE(from_base64url("QIjJdrTdYYOoxQTmqFYHIfS-g-QrskPABGxtrCDmiMc", id));
  EXPECT_EQ(AgentId(id).loc(), 2'106'474'511U);
  ASSERT_TRUE(from_base64url("x8L5Pc5iUFDlGyvo5guPuS6KSQ9tBAV8BVZb2KDdKJk", id));
  EXPECT_EQ(OpId(id).loc(), 238'204'396U);
  EXPECT_EQ(OpId(id).to_string(), "x8L5Pc5iUFDlGyvo5guPuS6KSQ9tBAV8BVZb2KDdKJk");
}

TEST(Id, EveryLengthInPlaceAndOnTheHeap) {
  EXPECT_EQ(sizeof(OpId), 40U);
  for (const std::size_t length : {0U, 1U, 32U, 38U, 39U, 40U, 41U, 255U, 256U, 100'000U}) {
    const std::string text(length, 'k');
    const OpId id = OpId::from_text(text);
    EXPECT_EQ(as_text(id.view()), text);
    OpId copy = id;
    EXPECT_EQ(copy, id);
    const OpId moved = std::move(copy);
    EXPECT_EQ(moved, id);
    OpId assigned = OpId::from_text(std::string(77, 'x'));
    assigned = moved;
    EXPECT_EQ(assigned, id);
    const OpId& same = assigned;
    assigned = same;
    EXPECT_EQ(assigned, id);
    assigned = OpId();
    EXPECT_TRUE(assigned.empty());
    EXPECT_EQ(as_text(moved.view()), text);
  }
}

TEST(Id, OrdersAsBytes) {
  EXPECT_LT(OpId::from_text("a"), OpId::from_text("aa"));
  EXPECT_LT(OpId::from_text("aa"), OpId::from_text("b"));
  EXPECT_LT(OpId::from_text("\x7f"), OpId::from_text("\x80"));
  EXPECT_NE(OpId::from_text("a"), OpId::from_text("b"));
}

TEST(KeyedHash, DependsOnEveryByteOnTheLengthAndOnTheKey) {
  set_hash_seed(1);
  std::unordered_set<std::uint64_t> seen;
  std::size_t inputs = 0;
  for (std::size_t length = 0; length <= 70; ++length) {
    std::string text(length, '\0');
    seen.insert(keyed_hash(as_bytes(text)));
    ++inputs;
    for (std::size_t i = 0; i < length; ++i) {
      text[i] = 1;
      seen.insert(keyed_hash(as_bytes(text)));
      text[i] = 0;
      ++inputs;
    }
  }
  EXPECT_EQ(seen.size(), inputs);
  const std::uint64_t before = keyed_hash(as_bytes("hello"));
  EXPECT_EQ(keyed_hash(as_bytes("hello")), before);
  set_hash_seed(2);
  EXPECT_NE(keyed_hash(as_bytes("hello")), before);
  set_hash_seed(1);
  EXPECT_EQ(keyed_hash(as_bytes("hello")), before);
}

TEST(KeyedHash, SpreadsCounters) {
  // Low and high bits alike, for ids that differ in a few bits: no bucket of 1,024 has more than 8 times its share.
  set_hash_seed(3);
  std::vector<int> low(1024);
  std::vector<int> high(1024);
  for (std::uint64_t i = 0; i < 16'384; ++i) {
    std::array<std::uint8_t, 32> id{};
    std::memcpy(id.data(), &i, sizeof i);
    const std::uint64_t hash = keyed_hash(id);
    ++low[hash & 1023U];
    ++high[hash >> 54U];
  }
  for (std::size_t i = 0; i < 1024; ++i) {
    EXPECT_LT(low[i], 128);
    EXPECT_LT(high[i], 128);
  }
}

TEST(DhtArc, SpanFixtures) {
  constexpr std::uint32_t kMax = UINT32_MAX;
  EXPECT_EQ(DhtArc().span(), 0U);
  EXPECT_EQ(DhtArc(0, 0).span(), 0U);
  EXPECT_EQ(DhtArc(0, 1).span(), 1U);
  EXPECT_EQ(DhtArc(kMax, 0).span(), 1U);
  EXPECT_EQ(DhtArc(42, 44).span(), 2U);
  EXPECT_EQ(DhtArc(42, 41).span(), kMax);
  EXPECT_EQ(DhtArc(0, kMax).span(), kMax);
  EXPECT_EQ(DhtArc(kMax, kMax - 1).span(), kMax);
}

TEST(DhtArc, ContainsFixtures) {
  constexpr std::uint32_t kMax = UINT32_MAX;
  for (const std::uint32_t loc : {0U, kMax / 2, kMax}) {
    EXPECT_TRUE(DhtArc::full().contains(loc));
    EXPECT_FALSE(DhtArc::none().contains(loc));
  }
  const DhtArc plain(32, 64);
  EXPECT_FALSE(plain.contains(31));
  EXPECT_TRUE(plain.contains(32));
  EXPECT_TRUE(plain.contains(64));
  EXPECT_FALSE(plain.contains(65));
  const DhtArc wrapping(kMax - 32, 32);
  for (const std::uint32_t loc : {kMax - 32, kMax - 1, kMax, 0U, 20U, 32U}) EXPECT_TRUE(wrapping.contains(loc));
  EXPECT_FALSE(wrapping.contains(kMax - 33));
  EXPECT_FALSE(wrapping.contains(33));
}

TEST(DhtArc, DistanceFixtures) {
  constexpr std::uint32_t kMax = UINT32_MAX;
  struct Case {
    std::uint32_t dist, loc;
    DhtArc arc;
  };
  const Case table[] = {
      {kMax, 0, {}},
      {kMax, kMax / 2, {}},
      {kMax, kMax, {}},
      {1, 0, {kMax, kMax}},
      {kMax / 2 + 1, kMax / 2, {kMax, kMax}},
      {1, kMax, {0, 0}},
      {kMax / 2, kMax / 2, {0, 0}},
      {0, 0, {0, 1}},
      {0, kMax - 1, {kMax - 1, kMax}},
      {1, 0, {1, 2}},
      {1, kMax, {0, 1}},
      {1, 0, {kMax - 1, kMax}},
      {0, 0, {kMax, 0}},
      {1, 1, {kMax, 0}},
      {1, kMax - 1, {kMax, 0}},
      {1, kMax - 1, {kMax, 1}},
      {0, 0, {kMax, 1}},
  };
  for (const Case& c : table) EXPECT_EQ(c.arc.dist(c.loc), c.dist) << c.loc << " " << c.arc.to_string();
}

TEST(DhtArc, OverlapFixtures) {
  constexpr std::uint32_t kMax = UINT32_MAX;
  struct Case {
    bool overlap;
    DhtArc a, b;
  };
  const Case table[] = {
      {false, {0, 0}, {1, 1}},
      {false, {0, 0}, {kMax, kMax}},
      {true, {0, 0}, {0, 0}},
      {true, {kMax, kMax}, {kMax, kMax}},
      {true, {kMax, 0}, {0, 0}},
      {true, {kMax, 0}, {kMax, kMax}},
      {true, {0, 3}, {1, 2}},
      {true, {1, 3}, {2, 4}},
      {true, {kMax - 1, 1}, {kMax, 0}},
      {true, {kMax - 1, 0}, {kMax, 1}},
      {false, {}, {}},
      {false, {}, {0, kMax}},
  };
  for (const Case& c : table) {
    EXPECT_EQ(c.a.overlaps(c.b), c.overlap) << c.a.to_string() << " " << c.b.to_string();
    EXPECT_EQ(c.b.overlaps(c.a), c.overlap) << c.b.to_string() << " " << c.a.to_string();
  }
}

TEST(DhtArc, TextAndEquality) {
  EXPECT_EQ(DhtArc().to_string(), "empty");
  EXPECT_EQ(DhtArc(7, 3).to_string(), "[7, 3]");
  EXPECT_EQ(DhtArc::full(), DhtArc(0, UINT32_MAX));
  EXPECT_TRUE(DhtArc::full().is_full());
  EXPECT_NE(DhtArc(0, 0), DhtArc());
}

}  // namespace
}  // namespace kitsune2
