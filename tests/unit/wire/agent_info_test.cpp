// Signed agent infos: the captured one, every way to be wrong, and lists.
#include <gtest/gtest.h>
#include <sodium.h>

#include <nlohmann/json.hpp>

#include "kitsune2/agent.hpp"
#include "support.hpp"
#include "unit/wire/outcome.hpp"
#include "vectors.hpp"

namespace kitsune2 {
namespace {

using wire::test::from_hex;
namespace vectors = wire::vectors;

std::shared_ptr<Ed25519LocalAgent> vector_agent() {
  return *Ed25519LocalAgent::from_seed(from_hex(vectors::kAgentSeed));
}

/// The outer JSON around `inner`, signed by `agent`.
std::string signed_json(Ed25519LocalAgent& agent, std::string_view inner) {
  const Bytes signature = *agent.sign({}, as_bytes(inner));
  nlohmann::json outer;
  outer["agentInfo"] = inner;
  outer["signature"] = to_base64url(signature);
  return outer.dump();
}

using wire::test::outcome;

class AgentInfoJson : public testing::Test {
 protected:
  /// The result for an inner JSON with a valid signature.
  std::string judge(std::string_view inner) { return outcome(AgentInfoSigned::decode(signed_json(*agent_, inner))); }
  /// An inner JSON of all members, `key` replaced (or left out, for an empty value).
  std::string inner(const std::string& key = "", const std::string& value = "") const {
    const std::vector<std::pair<std::string, std::string>> members{{"agent", '"' + agent_->agent().to_string() + '"'},
                                                                   {"space", "\"azItaW50ZXJvcC1zcGFjZQ\""},
                                                                   {"createdAt", "\"1\""},
                                                                   {"expiresAt", "\"2\""},
                                                                   {"isTombstone", "false"},
                                                                   {"url", "null"},
                                                                   {"storageArc", "null"}};
    std::string out = "{";
    for (const auto& [name, standard] : members) {
      const std::string& text = name == key ? value : standard;
      if (text.empty()) continue;
      out += (out.size() > 1 ? ",\"" : "\"") + name + "\":" + text;
    }
    return out + "}";
  }

  std::shared_ptr<Ed25519LocalAgent> agent_ = vector_agent();
};

TEST_F(AgentInfoJson, CapturedInfoDecodes) {
  const Result<AgentInfoPtr> info = AgentInfoSigned::decode(vectors::kSignedAgentInfo);
  ASSERT_TRUE(info) << info.error().to_string();
  const AgentInfo& content = (*info)->info();
  EXPECT_EQ(content.agent.to_string(), vectors::kAgentId);
  EXPECT_EQ(as_text(content.space.view()), "k2-interop-space");
  EXPECT_EQ(content.created_at.micros, 1795425619933318);
  EXPECT_EQ(content.expires_at.micros, 1795426819933318);
  EXPECT_FALSE(content.is_tombstone);
  ASSERT_TRUE(content.url);
  EXPECT_EQ(content.url->str(), "ws://127.0.0.1:33333/8Mn4N3V7aLTbvti6U_8_3qIeJ7IQ89OvZRR4ku0IUAA");
  EXPECT_TRUE(content.storage_arc.is_full());
  EXPECT_EQ((*info)->encode(), vectors::kSignedAgentInfo);
  EXPECT_EQ((*info)->signature().size(), 64U);
  EXPECT_FALSE((*info)->is_expired({1795426819933317}));
  EXPECT_TRUE((*info)->is_expired({1795426819933318}));
}

/// Ed25519 has one signature for a key and a message, so we write what the stock node wrote, byte for byte.
TEST_F(AgentInfoJson, SignsTheCapturedInfo) {
  EXPECT_EQ(agent_->agent().to_string(), vectors::kAgentId);
  const Result<AgentInfoPtr> captured = AgentInfoSigned::decode(vectors::kSignedAgentInfo);
  ASSERT_TRUE(captured);
  const Result<AgentInfoPtr> made = AgentInfoSigned::sign(*agent_, (*captured)->info());
  ASSERT_TRUE(made);
  EXPECT_EQ((*made)->encode(), vectors::kSignedAgentInfo);
  EXPECT_EQ((*made)->inner(), (*captured)->inner());
  EXPECT_EQ((*made)->signature(), (*captured)->signature());
}

TEST_F(AgentInfoJson, TombstoneInTheReferencesForm) {
  AgentInfo info;
  info.agent = agent_->agent();
  info.space = SpaceId::from_text("s");
  info.created_at = {-5};
  info.expires_at = Timestamp::max();
  info.is_tombstone = true;
  const Result<AgentInfoPtr> made = AgentInfoSigned::sign(*agent_, info);
  ASSERT_TRUE(made);
  EXPECT_EQ((*made)->inner(),
            "{\"agent\":\"" + std::string(vectors::kAgentId) +
                "\",\"space\":\"cw\",\"createdAt\":\"-5\",\"expiresAt\":\"9223372036854775807\",\"isTombstone\":true,"
                "\"url\":null,\"storageArc\":null}");
  const Result<AgentInfoPtr> read = AgentInfoSigned::decode((*made)->encode());
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ((*read)->info(), info);
}

/// The signature covers the inner string as it arrived: order, spaces and unknown keys are the sender's.
TEST_F(AgentInfoJson, InnerStringIsKept) {
  const std::string odd =
      " { \"storageArc\" : [ 4 , 3 ] , \"future\":{\"x\":[1,{}]}, \"isTombstone\":true,\"expiresAt\":\"+2\","
      "\"createdAt\":\"-01\",\"space\":\"cw\",\"agent\":\"" +
      std::string(vectors::kAgentId) + "\"} ";
  const std::string outer = "\n{\"extra\":null, \"signature\":\"" + to_base64url(*agent_->sign({}, as_bytes(odd))) +
                            "\", \"agentInfo\":" + nlohmann::json(odd).dump() + "}\n";
  const Result<AgentInfoPtr> info = AgentInfoSigned::decode(outer);
  ASSERT_TRUE(info) << info.error().to_string();
  EXPECT_EQ((*info)->inner(), odd);
  EXPECT_EQ((*info)->encode(), outer);
  EXPECT_EQ((*info)->info().storage_arc, DhtArc(4, 3));
  EXPECT_EQ((*info)->info().created_at.micros, -1);
  EXPECT_EQ((*info)->info().expires_at.micros, 2);
  EXPECT_FALSE((*info)->info().url.has_value());
}

TEST_F(AgentInfoJson, MembersThatMustBeThere) {
  EXPECT_EQ(judge(inner()), "ok");
  for (const char* key : {"agent", "space", "createdAt", "expiresAt", "isTombstone"}) {
    EXPECT_EQ(judge(inner(key)), "malformed: agentInfo." + std::string(key) + ": missing");
  }
  EXPECT_EQ(judge(inner("url")), "ok");
  EXPECT_EQ(judge(inner("storageArc")), "ok");
}

TEST_F(AgentInfoJson, WrongTypesAndValues) {
  const std::vector<std::pair<const char*, const char*>> wrong{
      {"agent", "1"},
      {"agent", "\"\""},
      {"agent", "\"QUI=\""},
      {"agent", "\"****\""},
      {"agent", "null"},
      {"space", "\"\""},
      {"space", "[]"},
      {"createdAt", "1"},
      {"createdAt", "\"\""},
      {"createdAt", "\"1.0\""},
      {"createdAt", "\" 1\""},
      {"createdAt", "\"1 \""},
      {"createdAt", "\"0x1\""},
      {"createdAt", "\"+-1\""},
      {"createdAt", "\"9223372036854775808\""},
      {"createdAt", "\"-9223372036854775809\""},
      {"expiresAt", "null"},
      {"expiresAt", "\"12\\u0033\""},
      {"isTombstone", "0"},
      {"isTombstone", "\"false\""},
      {"isTombstone", "null"},
      {"url", "1"},
      {"url", "\"\""},
      {"url", "\"http://a:1/b\""},
      {"url", "\"ws://a/b\""},
      {"storageArc", "[]"},
      {"storageArc", "[1]"},
      {"storageArc", "[1,2,3]"},
      {"storageArc", "[1,4294967296]"},
      {"storageArc", "[-1,2]"},
      {"storageArc", "[1.0,2]"},
      {"storageArc", "[1e1,2]"},
      {"storageArc", "[\"1\",\"2\"]"},
      {"storageArc", "{}"},
      {"storageArc", "false"},
  };
  for (const auto& [key, value] : wrong) {
    const std::string result = judge(inner(key, value));
    EXPECT_TRUE(result.starts_with("malformed: agentInfo." + std::string(key) + ": "))
        << key << ' ' << value << ": " << result;
  }
  EXPECT_EQ(judge(inner("url", "\"ws:\\/\\/a:1\\/b\"")), "ok") << "escapes in the url, as in the reference";
  EXPECT_EQ(judge(inner("storageArc", "[0,0]")), "ok");
}

/// Two readers must never see different values in what was signed.
TEST_F(AgentInfoJson, KeysTwice) {
  for (const char* key : {"agent", "space", "createdAt", "expiresAt", "isTombstone", "url", "storageArc"}) {
    const nlohmann::json parsed = nlohmann::json::parse(inner());
    std::string twice = inner();
    twice.insert(1, "\"" + std::string(key) + "\":" + parsed[key].dump() + ",");
    EXPECT_TRUE(judge(twice).starts_with("malformed: agentInfo." + std::string(key) + ": given twice")) << judge(twice);
  }
  std::string spelled = inner();
  spelled.insert(1, R"("\u0075rl":null,)");
  EXPECT_TRUE(judge(spelled).starts_with("malformed: agentInfo.url: given twice")) << "the same key in other letters";
  std::string outer = signed_json(*agent_, inner());
  outer.insert(1, R"("agentInfo":"{}",)");
  EXPECT_TRUE(
      outcome(AgentInfoSigned::decode(outer)).starts_with("malformed: signed agent info.agentInfo: given twice"));
}

TEST_F(AgentInfoJson, NotJson) {
  for (const std::string text : {"", "{", "[]", "null", "{}x", "\"\""}) {
    const Result<AgentInfoPtr> result = AgentInfoSigned::decode(text);
    ASSERT_FALSE(result) << text;
    EXPECT_EQ(result.error().code, Errc::malformed) << text;
    EXPECT_TRUE(judge(text).starts_with("malformed: agentInfo")) << text << judge(text);
  }
  EXPECT_EQ(outcome(AgentInfoSigned::decode("{}")), "malformed: signed agent info.agentInfo: missing");
  EXPECT_EQ(outcome(AgentInfoSigned::decode(R"({"agentInfo":""})")), "malformed: signed agent info.signature: missing");
  EXPECT_EQ(judge(inner() + "1"),
            "malformed: agentInfo.storageArc: bytes after the object (at byte " + std::to_string(inner().size()) + ")");
}

TEST_F(AgentInfoJson, Signatures) {
  const std::string good = signed_json(*agent_, inner());
  ASSERT_EQ(outcome(AgentInfoSigned::decode(good)), "ok");
  // another string, another key, a signature of another length
  nlohmann::json outer = nlohmann::json::parse(good);
  outer["agentInfo"] = inner() + " ";
  EXPECT_EQ(outcome(AgentInfoSigned::decode(outer.dump())),
            "bad_signature: agent info of " + std::string(vectors::kAgentId));
  EXPECT_TRUE(outcome(AgentInfoSigned::decode(signed_json(*Ed25519LocalAgent::generate(), inner())))
                  .starts_with("bad_signature"));
  outer["agentInfo"] = inner();
  outer["signature"] = "AAAA";
  EXPECT_EQ(outcome(AgentInfoSigned::decode(outer.dump())),
            "malformed: signed agent info.signature: 3 bytes, expected 64");
  outer["signature"] = to_base64url(std::vector<std::uint8_t>(64));
  EXPECT_TRUE(outcome(AgentInfoSigned::decode(outer.dump())).starts_with("bad_signature"));
  // an agent id that is no ed25519 key
  EXPECT_TRUE(judge(inner("agent", "\"QUJD\"")).starts_with("bad_signature")) << "3 bytes";
  // escapes in the signature: stock nodes drop a whole bootstrap answer for one
  std::string escaped = good;
  const std::size_t at = escaped.rfind("\"}") - 1;
  escaped.replace(at, 1, "\\u00" + to_hex(as_bytes(escaped.substr(at, 1))));
  EXPECT_TRUE(outcome(AgentInfoSigned::decode(escaped))
                  .starts_with("malformed: signed agent info.signature: escapes are not allowed here"))
      << outcome(AgentInfoSigned::decode(escaped));
}

TEST_F(AgentInfoJson, OneChangedByteAnywhereIsRefused) {
  const std::string good(vectors::kSignedAgentInfo);
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    EXPECT_FALSE(AgentInfoSigned::decode(bad)) << i;
    EXPECT_FALSE(AgentInfoSigned::decode(good.substr(0, i))) << i;
  }
}

TEST_F(AgentInfoJson, Sizes) {
  std::string big = inner();
  big.insert(1, "\"pad\":\"" + std::string(AgentInfoSigned::kMaxJsonBytes - 700, 'x') + "\",");
  EXPECT_EQ(judge(big), "ok");
  const std::string limit = signed_json(*agent_, big);
  const std::string padded = limit + std::string(AgentInfoSigned::kMaxJsonBytes - limit.size(), ' ');
  EXPECT_EQ(outcome(AgentInfoSigned::decode(padded)), "ok");
  EXPECT_EQ(outcome(AgentInfoSigned::decode(padded + " ")), "too_large: agent info: 16385 bytes, at most 16384");
  AgentInfo info;
  info.agent = agent_->agent();
  EXPECT_EQ(outcome(AgentInfoSigned::sign(*agent_, info)),
            "invalid_argument: agent info: agent and space must have 1 to 1024 bytes");
}

TEST_F(AgentInfoJson, RandomInfosRoundTrip) {
  wire::test::Random random(31);
  for (int i = 0; i < 200; ++i) {
    AgentInfo info;
    info.agent = agent_->agent();
    info.space = SpaceId(as_bytes(random.bytes(1 + random.below(80))));
    info.created_at = {static_cast<std::int64_t>(random.number())};
    info.expires_at = {static_cast<std::int64_t>(random.number())};
    info.is_tombstone = random.one_in(2);
    if (random.one_in(2)) {
      info.url = *Url::parse("wss://host:" + std::to_string(1 + random.below(65535)) + "/" +
                             to_base64url(as_bytes(random.bytes(32))));
    }
    if (random.one_in(2)) {
      info.storage_arc =
          DhtArc(static_cast<std::uint32_t>(random.number()), static_cast<std::uint32_t>(random.number()));
    }
    const Result<AgentInfoPtr> made = AgentInfoSigned::sign(*agent_, info);
    ASSERT_TRUE(made);
    const Result<AgentInfoPtr> read = AgentInfoSigned::decode((*made)->encode());
    ASSERT_TRUE(read) << read.error().to_string() << (*made)->encode();
    EXPECT_EQ((*read)->info(), info);
    const nlohmann::json twin = nlohmann::json::parse((*made)->inner());
    EXPECT_EQ(twin["createdAt"], std::to_string(info.created_at.micros));
    EXPECT_EQ(twin["url"].is_null(), !info.url.has_value());
  }
}

TEST_F(AgentInfoJson, ListKeepsEachEntryAndItsBytes) {
  const std::string other = " " + signed_json(*agent_, inner());
  const std::string list = "[" + std::string(vectors::kSignedAgentInfo) + "," + other + " ,{\"bad\":1}, 7]";
  const auto infos = AgentInfoSigned::decode_list(list);
  ASSERT_TRUE(infos) << infos.error().to_string();
  ASSERT_EQ(infos->size(), 4U);
  EXPECT_EQ((*(*infos)[0])->encode(), vectors::kSignedAgentInfo);
  EXPECT_EQ((*(*infos)[1])->encode(), other.substr(1));
  EXPECT_FALSE((*infos)[2]);
  EXPECT_FALSE((*infos)[3]);
  EXPECT_EQ(AgentInfoSigned::decode_list("[]")->size(), 0U);
  EXPECT_FALSE(AgentInfoSigned::decode_list(""));
  EXPECT_FALSE(AgentInfoSigned::decode_list("{}"));
  EXPECT_FALSE(AgentInfoSigned::decode_list("[1"));
  EXPECT_FALSE(AgentInfoSigned::decode_list("[]]"));
  EXPECT_TRUE(AgentInfoSigned::decode_list("[1,2]", 2));
  const auto many = AgentInfoSigned::decode_list("[1,2,3]", 2);
  ASSERT_FALSE(many);
  EXPECT_EQ(many.error().code, Errc::malformed);
}

/// A misbehaving signer is an error, not a broken info.
TEST_F(AgentInfoJson, SignerErrors) {
  struct Broken : Signer {
    Result<Bytes> sign(const AgentInfo&, ByteView) override { return result; }
    Result<Bytes> result = Bytes::copy_of("short");
  } broken;
  AgentInfo info;
  info.agent = agent_->agent();
  info.space = SpaceId::from_text("s");
  const Result<AgentInfoPtr> short_one = AgentInfoSigned::sign(broken, info);
  ASSERT_FALSE(short_one);
  EXPECT_EQ(short_one.error().code, Errc::invalid_argument);
  broken.result = make_error(Errc::io, "no token");
  EXPECT_EQ(outcome(AgentInfoSigned::sign(broken, info)), "io: signing the agent info: no token");
}

/// Another verifier may know other keys: the decoder does not bind agent ids to Ed25519.
TEST_F(AgentInfoJson, OtherVerifiers) {
  struct Any : Verifier {
    bool verify(const AgentInfo&, ByteView, ByteView) const override { return true; }
  } any;
  EXPECT_EQ(outcome(AgentInfoSigned::decode(signed_json(*agent_, inner("agent", "\"QUJD\"")), any)), "ok");
}

}  // namespace
}  // namespace kitsune2
