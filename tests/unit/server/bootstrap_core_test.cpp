#include "server/bootstrap_core.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

namespace kitsune2::server {
namespace {

using std::chrono::microseconds;
using std::chrono::minutes;
using std::chrono::seconds;

const Timestamp kNow = Timestamp::from_seconds(1'800'000'000);
const SpaceId kSpace = SpaceId::from_text("a space");

std::shared_ptr<Ed25519LocalAgent> agent(std::uint32_t number) {
  std::vector<std::uint8_t> seed(32);
  std::memcpy(seed.data(), &number, sizeof(number));
  return *Ed25519LocalAgent::from_seed(seed);
}

struct Put {
  std::uint32_t who = 1;
  SpaceId space = kSpace;
  Timestamp created = kNow;
  Duration life = minutes(20);
  bool tombstone = false;
  std::optional<std::string> space_path;
  std::optional<std::string> agent_path;

  std::string body() const {
    const auto signer = agent(who);
    AgentInfo info;
    info.agent = signer->agent();
    info.space = space;
    info.created_at = created;
    info.expires_at = created + life;
    info.is_tombstone = tombstone;
    if (!tombstone) info.url = *Url::parse("ws://relay.example:443/8Mn4N3V7aLTbvti6U_8_3qIeJ7IQ89OvZRR4ku0IUAA");
    return (*AgentInfoSigned::sign(*signer, info))->encode();
  }
  BootstrapAnswer into(BootstrapCore& core, Timestamp now = kNow) const {
    const auto out = core.put(space_path.value_or(space.to_string()),
                              agent_path.value_or(agent(who)->agent().to_string()), body(), now);
    core.check_invariants();
    return out;
  }
};

std::vector<std::string> agents(BootstrapCore& core, Timestamp now = kNow, const SpaceId& space = kSpace) {
  const auto answer = core.get(space.to_string(), now);
  EXPECT_EQ(answer.status, 200);
  std::vector<std::string> out;
  for (const auto& entry : nlohmann::json::parse(answer.body)) {
    out.push_back(nlohmann::json::parse(entry["agentInfo"].get<std::string>())["agent"]);
  }
  return out;
}

std::string error_of(const BootstrapAnswer& answer) { return nlohmann::json::parse(answer.body)["error"]; }

TEST(BootstrapCore, AnInfoIsReturnedByteForByte) {
  BootstrapCore core({});
  const Put put;
  const auto answer = put.into(core);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, "{}");
  EXPECT_EQ(core.get(kSpace.to_string(), kNow).body, "[" + put.body() + "]");
}

TEST(BootstrapCore, AnUnknownSpaceIsAnEmptyArray) {
  BootstrapCore core({});
  const auto answer = core.get("AAAA", kNow);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, "[]");
}

TEST(BootstrapCore, PathsMustBeBase64Url) {
  BootstrapCore core({});
  EXPECT_EQ(core.get("", kNow).status, 400);
  EXPECT_EQ(core.get("a*b", kNow).status, 400);
  EXPECT_EQ(core.get("QQ==", kNow).status, 400);
  Put put;
  put.space_path = "+/+/";
  EXPECT_EQ(put.into(core).status, 400);
  put.space_path.reset();
  put.agent_path = "%41";
  EXPECT_EQ(put.into(core).status, 400);
}

TEST(BootstrapCore, ABodyOver1024BytesIs413) {
  BootstrapCore core({});
  EXPECT_EQ(core.put("AAAA", "AAAA", std::string(1025, ' '), kNow).status, 413);
  EXPECT_EQ(core.put("AAAA", "AAAA", std::string(1024, ' '), kNow).status, 500) << "not JSON, but short enough";
}

TEST(BootstrapCore, ThePathMustNameTheAgentAndTheSpace) {
  BootstrapCore core({});
  Put put;
  put.agent_path = agent(2)->agent().to_string();
  auto answer = put.into(core);
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(error_of(answer), "InvalidAgent");
  put.agent_path.reset();
  put.space_path = SpaceId::from_text("another").to_string();
  EXPECT_EQ(error_of(put.into(core)), "InvalidSpace");
  EXPECT_TRUE(agents(core).empty());
}

TEST(BootstrapCore, CreatedAtMustBeWithinThreeMinutes) {
  BootstrapCore core({});
  Put put;
  put.created = kNow - minutes(3) - microseconds(1);
  EXPECT_EQ(error_of(put.into(core)), "InvalidCreatedAt");
  put.created = kNow - minutes(3);
  EXPECT_EQ(put.into(core).status, 200);
  put.who = 2;
  put.created = kNow + minutes(3) + microseconds(1);
  EXPECT_EQ(error_of(put.into(core)), "InvalidCreatedAt");
  put.created = kNow + minutes(3);
  EXPECT_EQ(put.into(core).status, 200);
  put.created = Timestamp::max();
  EXPECT_EQ(error_of(put.into(core)), "InvalidCreatedAt");
  put.created = Timestamp::min();
  EXPECT_EQ(error_of(put.into(core)), "InvalidCreatedAt");
}

TEST(BootstrapCore, ExpiresAtMustBeInTheFutureAndWithin30Minutes) {
  BootstrapCore core({});
  Put put;
  put.life = Duration(0);
  EXPECT_EQ(error_of(put.into(core)), "InvalidExpiresAt");
  put.life = seconds(-1);
  EXPECT_EQ(error_of(put.into(core)), "InvalidExpiresAt");
  put.created = kNow - seconds(60);
  put.life = seconds(59);
  EXPECT_EQ(error_of(put.into(core)), "InvalidExpiresAt");
  put.created = kNow;
  put.life = minutes(30) + microseconds(1);
  EXPECT_EQ(error_of(put.into(core)), "InvalidExpiresAt");
  put.life = minutes(30);
  EXPECT_EQ(put.into(core).status, 200);
}

/// Agent infos that stock kitsune2 0.5.3 nodes put to stock server 0.5.3, byte for byte.
const char* const kOf053[] = {
    R"v({"agentInfo":"{\"agent\":\"gTl3Dqh9F19Wo1Rmw0x-zMuNipG07jeiXfYPW4_Js5Q\",\"space\":\"aXJva)v"
    R"v(C1zcGlrZS1zcGFjZS0wMTIzNDU2Nzg5YWJjZGU\",\"createdAt\":\"1795425568327302\",\"expiresAt\":)v"
    R"v(\"1795426768327302\",\"isTombstone\":false,\"url\":\"http://127.0.0.1:18787/relay/787d4a62)v"
    R"v(cdd6199d8359dfe3703d021e7c1835096f940840c700e1b0f77d62dd\",\"storageArc\":[0,4294967295]}")v"
    R"v(,"signature":"7Ie9rmzwHCIt9aYL8VD-D8jl7pwPhNCetoi_AEDAFw6LeqQdQYQZvjLlzonf1MvK5hzPaW4k9BwG)v"
    R"v(izWX4efvDw"})v",
    R"v({"agentInfo":"{\"agent\":\"iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w\",\"space\":\"aXJva)v"
    R"v(C1zcGlrZS1zcGFjZS0wMTIzNDU2Nzg5YWJjZGU\",\"createdAt\":\"1795425569305404\",\"expiresAt\":)v"
    R"v(\"1795426769305404\",\"isTombstone\":false,\"url\":\"http://127.0.0.1:18787/relay/7f59f4d8)v"
    R"v(aa822772702fa4a5d8611064dc6fa84aa335118d7443ec5d4d31e894\",\"storageArc\":[0,4294967295]}")v"
    R"v(,"signature":"A5vv7cc62vdUAXpuoWJbiD3vCxHTdLfLfSBNk-jakQUkJn0qARhksZT932o6XX10aMQVtxO5oo6i)v"
    R"v(98EnJzQmCQ"})v",
};

TEST(BootstrapCore, AnInfoOfAKitsune053NodeIsTakenThoughItsUrlIsNotOurs) {
  BootstrapCore core({});
  const SpaceId space = SpaceId::from_text("iroh-spike-space-0123456789abcde");
  const Timestamp now{1'795'425'569'500'000};
  for (const std::string_view body : kOf053) {
    const auto agent = nlohmann::json::parse(nlohmann::json::parse(body)["agentInfo"].get<std::string>())["agent"];
    const auto answer = core.put(space.to_string(), agent.get<std::string>(), body, now);
    EXPECT_EQ(answer.status, 200) << answer.body;
    // The other checks stay.
    EXPECT_EQ(error_of(core.put(kSpace.to_string(), agent.get<std::string>(), body, now)), "InvalidSpace");
    EXPECT_EQ(error_of(core.put(space.to_string(), agent.get<std::string>(), body, now + minutes(4))),
              "InvalidCreatedAt");
    std::string forged(body);
    forged.replace(forged.find(":18787"), 6, ":18788");
    EXPECT_EQ(error_of(core.put(space.to_string(), agent.get<std::string>(), forged, now)), "InvalidSignature");
  }
  const auto list = core.get(space.to_string(), now);
  EXPECT_EQ(list.body, '[' + std::string(kOf053[0]) + ',' + kOf053[1] + ']') << "byte for byte";
  // What our own client makes of it: each entry for itself.
  const auto read = AgentInfoSigned::decode_list(list.body);
  ASSERT_TRUE(read);
  ASSERT_EQ(read->size(), 2U);
  for (const auto& entry : *read) EXPECT_FALSE(entry);
}

TEST(BootstrapCore, AUrlMayBeAnyStringOrNullAndNothingElse) {
  const auto signer = agent(1);
  const auto put = [&](const std::string& url) {
    BootstrapCore core({});
    const std::string inner = R"({"agent":")" + signer->agent().to_string() + R"(","space":")" + kSpace.to_string() +
                              R"(","createdAt":")" + std::to_string(kNow.micros) + R"(","expiresAt":")" +
                              std::to_string((kNow + minutes(20)).micros) + R"(","isTombstone":false)" + url + '}';
    AgentInfo info;
    info.agent = signer->agent();
    const auto signature = signer->sign(info, as_bytes(inner)).value();
    const nlohmann::json body = {{"agentInfo", inner}, {"signature", to_base64url(signature)}};
    return core.put(kSpace.to_string(), signer->agent().to_string(), body.dump(), kNow).status;
  };
  for (const char* url : {R"(,"url":"http://127.0.0.1:18787/relay/00ff")", R"(,"url":"iroh:abc")", R"(,"url":"")",
                          R"(,"url":"not a \"url\" \u00e9")", R"(,"url":null)", ""}) {
    EXPECT_EQ(put(url), 200) << url;
  }
  for (const char* url : {R"(,"url":1)", R"(,"url":["ws://x:1/A"])", R"(,"url":{})", R"(,"url":"a","url":"b")"}) {
    EXPECT_EQ(put(url), 500) << url;
  }
}

TEST(BootstrapCore, TheSignatureMustBeRightAndIsCheckedLast) {
  struct Counting final : Verifier {
    bool verify(const AgentInfo&, ByteView, ByteView) const override {
      ++calls;
      return false;
    }
    mutable int calls = 0;
  } verifier;
  BootstrapCore core({}, verifier);
  Put put;
  put.created = kNow - minutes(10);
  put.into(core);
  EXPECT_EQ(verifier.calls, 0);
  put.created = kNow;
  EXPECT_EQ(error_of(put.into(core)), "InvalidSignature");
  EXPECT_EQ(verifier.calls, 1);

  BootstrapCore real({});
  std::string body = put.body();
  const auto at = body.find("\"signature\":\"") + 13;
  body[at] = body[at] == 'A' ? 'B' : 'A';
  const auto answer = real.put(kSpace.to_string(), agent(1)->agent().to_string(), body, kNow);
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(error_of(answer), "InvalidSignature");
}

TEST(BootstrapCore, GarbageIsAnErrorInJson) {
  BootstrapCore core({});
  for (const std::string body :
       {"", "{", "[]", "null", "{\"agentInfo\":1}", "{\"agentInfo\":\"{}\",\"signature\":\"\"}", "\xff\xfe"}) {
    const auto answer = core.put("AAAA", "AAAA", body, kNow);
    EXPECT_EQ(answer.status, 500) << body;
    EXPECT_FALSE(error_of(answer).empty());
  }
}

TEST(BootstrapCore, NewerReplacesInPlaceAndOlderIsNoError) {
  BootstrapCore core({});
  Put first;
  Put second;
  second.who = 2;
  first.into(core);
  second.into(core);
  Put newer;
  newer.created = kNow + seconds(1);
  EXPECT_EQ(newer.into(core).status, 200);
  EXPECT_EQ(core.get(kSpace.to_string(), kNow).body, "[" + newer.body() + "," + second.body() + "]");
  EXPECT_EQ(first.into(core).status, 200);
  EXPECT_EQ(newer.into(core).status, 200);
  EXPECT_EQ(core.get(kSpace.to_string(), kNow).body, "[" + newer.body() + "," + second.body() + "]");
}

TEST(BootstrapCore, ATombstoneRemovesAndAReplayDoesNotBringBack) {
  BootstrapCore core({});
  Put alive;
  alive.into(core);
  Put dead;
  dead.tombstone = true;
  dead.created = kNow - seconds(1);
  dead.into(core);
  EXPECT_EQ(agents(core).size(), 1U) << "older than the info";
  dead.created = kNow + seconds(1);
  EXPECT_EQ(dead.into(core).status, 200);
  EXPECT_TRUE(agents(core).empty());
  EXPECT_EQ(alive.into(core).status, 200);
  EXPECT_TRUE(agents(core).empty()) << "a replay";
  core.prune(kNow + minutes(3));
  alive.into(core, kNow + minutes(3));
  EXPECT_TRUE(agents(core, kNow + minutes(3)).empty());
  Put again;
  again.created = kNow + seconds(2);
  again.into(core);
  EXPECT_EQ(agents(core).size(), 1U) << "newer than the tombstone";
}

TEST(BootstrapCore, InfosFromBeforeTheClockWasSetBackKeepNothingOut) {
  BootstrapCore core({});
  const Timestamp wrong = kNow + std::chrono::hours(24);
  Put early, grave;
  early.created = grave.created = wrong;
  grave.who = 2;
  grave.tombstone = true;
  Put fresh, other;
  other.who = 2;
  early.into(core, wrong);
  grave.into(core, wrong);
  EXPECT_EQ(fresh.into(core).status, 200);
  EXPECT_EQ(other.into(core).status, 200);
  EXPECT_EQ(core.get(kSpace.to_string(), kNow).body, "[" + fresh.body() + "," + other.body() + "]");
  // An info that is ahead within the bound is newer all the same.
  Put ahead;
  ahead.created = kNow + minutes(3);
  ahead.into(core);
  fresh.created = kNow + seconds(1);
  fresh.into(core);
  EXPECT_EQ(core.get(kSpace.to_string(), kNow).body, "[" + ahead.body() + "," + other.body() + "]");
}

TEST(BootstrapCore, ATombstoneOfAnUnknownAgentMakesNoSpace) {
  BootstrapCore core({});
  Put dead;
  dead.tombstone = true;
  EXPECT_EQ(dead.into(core).status, 200);
  EXPECT_EQ(core.counters().spaces.get(), 0U);
}

TEST(BootstrapCore, WhenFullTheMiddleOneIsDropped) {
  BootstrapCore core({});
  std::vector<std::string> expected;
  for (std::uint32_t i = 1; i <= 32; ++i) {
    Put put;
    put.who = i;
    put.into(core);
    expected.push_back(agent(i)->agent().to_string());
  }
  EXPECT_EQ(agents(core), expected);
  for (std::uint32_t i = 33; i <= 64; ++i) {
    Put put;
    put.who = i;
    put.into(core);
  }
  // The first 16 stay; then the last 16 of those that came later.
  expected.resize(16);
  for (std::uint32_t i = 49; i <= 64; ++i) expected.push_back(agent(i)->agent().to_string());
  EXPECT_EQ(agents(core), expected);
  EXPECT_EQ(core.counters().entries.get(), 32U);
}

TEST(BootstrapCore, OneEntryPerSpaceWorks) {
  BootstrapCore core({.max_entries_per_space = 1});
  for (std::uint32_t i = 1; i <= 3; ++i) {
    Put put;
    put.who = i;
    put.into(core);
    EXPECT_EQ(agents(core), std::vector<std::string>{agent(i)->agent().to_string()});
  }
}

TEST(BootstrapCore, ExpiredEntriesAreNotGivenAndThenPruned) {
  BootstrapCore core({});
  Put brief;
  brief.life = seconds(10);
  brief.into(core);
  Put lasting;
  lasting.who = 2;
  lasting.into(core);
  EXPECT_EQ(agents(core, kNow + seconds(10) - microseconds(1)).size(), 2U);
  EXPECT_EQ(agents(core, kNow + seconds(10)).size(), 1U);
  core.prune(kNow + seconds(10));
  core.check_invariants();
  EXPECT_EQ(core.counters().entries.get(), 1U);
  core.prune(kNow + minutes(20));
  EXPECT_EQ(core.counters().entries.get(), 0U);
  EXPECT_EQ(core.counters().spaces.get(), 0U);
  EXPECT_EQ(core.held_bytes(), 0U);
}

TEST(BootstrapCore, AFullServerRefusesNewSpacesAndSaysWhy) {
  BootstrapCore core({.max_spaces = 2});
  const auto from = [&](std::uint8_t last, const Put& put, Timestamp now = kNow) {
    BootstrapBook::Address address{};
    address[15] = last;
    return core.put(put.space.to_string(), agent(put.who)->agent().to_string(), put.body(), now, address);
  };
  BootstrapBook::Address reader{};
  reader[15] = 9;
  std::uint8_t last = 0;
  for (const char* name : {"one", "two"}) {
    Put put;
    put.space = SpaceId::from_text(name);
    EXPECT_EQ(from(++last, put).status, 200);
    core.get(put.space.to_string(), kNow, reader);
  }
  Put third;
  third.space = SpaceId::from_text("three");
  const auto refused = from(3, third);
  EXPECT_EQ(refused.status, 503);
  EXPECT_NE(error_of(refused).find("too many spaces: this server holds 2"), std::string::npos) << refused.body;
  Put more;
  more.who = 3;
  more.space = SpaceId::from_text("one");
  EXPECT_EQ(from(3, more).status, 200);
  core.prune(kNow + minutes(21));
  third.created = kNow + minutes(21);
  EXPECT_EQ(from(3, third, kNow + minutes(21)).status, 200);
}

TEST(BootstrapCore, ItsMemoryIsBounded) {
  const std::size_t one = Put().body().size() + 256;
  BootstrapCore core({.max_bytes = 3 * one});
  for (std::uint32_t i = 1; i <= 3; ++i) {
    Put put;
    put.who = i;
    EXPECT_EQ(put.into(core).status, 200);
  }
  Put fourth;
  fourth.who = 4;
  EXPECT_EQ(fourth.into(core).status, 503);
  Put renewed;
  renewed.created = kNow + seconds(1);
  EXPECT_EQ(renewed.into(core).status, 200) << "who is here may renew";
  EXPECT_LE(core.held_bytes(), 3 * one);
}

TEST(BootstrapCore, RandomPlayKeepsTheInvariants) {
  for (std::uint32_t seed = 1; seed <= 10; ++seed) {
    BootstrapCore core({.max_entries_per_space = 4, .max_spaces = 3, .max_bytes = 8'000});
    std::mt19937 random(seed);
    Timestamp now = kNow;
    for (int i = 0; i < 150; ++i) {
      Put put;
      put.who = 1 + random() % 6;
      put.space = SpaceId::from_text(std::string(1, static_cast<char>('a' + random() % 4)));
      put.created = now + seconds(static_cast<int>(random() % 400) - 200);
      put.life = seconds(random() % 2000);
      put.tombstone = random() % 4 == 0;
      put.into(core, now);
      if (random() % 5 == 0) now = now + seconds(random() % 300);
      if (random() % 7 == 0) core.prune(now);
      core.check_invariants();
    }
  }
}

TEST(BootstrapCore, FewerEntriesASpaceLeaveTheOldestAndTheNewest) {
  BootstrapCore core({});
  for (std::uint32_t i = 0; i < 9; ++i) {
    Put put;
    put.who = i;
    EXPECT_EQ(put.into(core).status, 200);
  }
  const auto before = agents(core);
  core.set_max_entries_per_space(4);
  core.check_invariants();
  EXPECT_EQ(agents(core), (std::vector<std::string>{before[0], before[1], before[7], before[8]}));
  EXPECT_EQ(core.counters().entries.get(), 4U);
  Put put;
  put.who = 20;
  EXPECT_EQ(put.into(core).status, 200);
  EXPECT_EQ(agents(core).size(), 4U);
}

}  // namespace
}  // namespace kitsune2::server
