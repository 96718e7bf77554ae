// The configuration: parsing, checking, printing, and changes at run time.
#include "kitsune2/config.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "node/config/config_table.hpp"

namespace kitsune2 {
namespace {

using Json = nlohmann::json;

std::string error_of(std::string_view json) {
  const auto config = Config::parse(json);
  if (config) return "no error";
  EXPECT_EQ(config.error().code, Errc::invalid_config) << config.error().to_string();
  return config.error().message;
}

/// The root folder of the project.
std::filesystem::path source_dir() { return K2_SOURCE_DIR; }

bool starts(const std::string& text, std::string_view with) { return text.starts_with(with); }

TEST(Config, DefaultsAreThoseOfTheReference) {
  const Json printed = Json::parse(Config::defaults().to_json());
  const Json expected = Json::parse(R"({
    "coreFetch": {"parallelRequestCount": 2, "reInsertOutgoingRequestDelayMs": 2000, "firstBackOffIntervalMs": 20000,
                  "lastBackOffIntervalMs": 600000, "numBackOffIntervals": 4},
    "corePublish": {},
    "peerBudget": {},
    "coreBootstrap": {"serverUrl": "<https://your.bootstrap.url>", "backoffMinMs": 5000, "backoffMaxMs": 300000},
    "coreSpace": {"reSignFreqMs": 60000, "reSignExpireTimeMs": 300000},
    "memBootstrap": {"pollFreqMs": 5000},
    "network": {},
    "tx5Transport": {"signalAllowPlainText": false, "serverUrl": "<wss://your.sbd.url>", "timeoutS": 60,
                     "webrtcConfig": {"iceServers": [], "iceTransportPolicy": "All"}, "tracingEnabled": false,
                     "ephemeralUdpPortMin": null, "ephemeralUdpPortMax": null},
    "irohTransport": {"relayUrl": null, "relayAllowPlainText": false, "maxFrameBytes": 104857600,
                      "connectTimeoutS": 60, "authMaterialRelayBase64": null, "relayKeepaliveIntervalS": 120},
    "k2Gossip": {"maxGossipOpBytes": 104857600, "maxRequestGossipOpBytes": 104857600,
                 "initialInitiateIntervalMs": null, "initiateIntervalMs": 120000, "initiateJitterMs": 10000,
                 "minInitiateIntervalMs": 300000, "initiateBurstFactor": 3, "initiateBurstWindowCount": 5,
                 "roundTimeoutMs": 15000, "maxConcurrentAcceptedRounds": 10}})");
  EXPECT_EQ(printed.size(), expected.size());
  for (const auto& [section, keys] : expected.items()) {
    for (const auto& [key, value] : keys.items()) {
      ASSERT_TRUE(printed.contains(section) && printed[section].contains(key)) << section << '.' << key;
      EXPECT_EQ(printed[section][key], value) << section << '.' << key;
    }
  }
  EXPECT_TRUE(Config::defaults().validate());
}

TEST(Config, ReadsWhatItPrints) {
  auto config = Config::parse(R"({"coreFetch":{"parallelRequestCount":7,"persistPending":false},
      "tx5Transport":{"serverUrl":"ws://relay.example:80","ephemeralUdpPortMin":4000,
                      "webrtcConfig":{"iceServers":[{"urls":["stun:x"]}]}},
      "k2Gossip":{"maxGossipOpBytes":4294967295},
      "holochain":{"deep":[1,{"x":null}]}})");
  ASSERT_TRUE(config) << config.error().to_string();
  EXPECT_EQ(config->core_fetch.parallel_request_count, 7U);
  EXPECT_FALSE(config->core_fetch.persist_pending);
  EXPECT_EQ(config->k2_gossip.max_gossip_op_bytes, UINT32_MAX);
  EXPECT_EQ(config->tx5_transport.ephemeral_udp_port_min, 4000U);
  const auto again = Config::parse(config->to_json());
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(again->to_json(), config->to_json());
  EXPECT_EQ(Json::parse(again->to_json())["holochain"], Json::parse(R"({"deep":[1,{"x":null}]})"));
}

TEST(Config, ErrorsNameTheKey) {
  EXPECT_EQ(error_of(R"({"coreFetch":{"parallelRequestCount":0}})"),
            "coreFetch.parallelRequestCount: must be a whole number in 1..255, got 0");
  EXPECT_EQ(error_of(R"({"coreFetch":{"parallelRequestCount":256}})"),
            "coreFetch.parallelRequestCount: must be a whole number in 1..255, got 256");
  EXPECT_EQ(error_of(R"({"coreFetch":{"parallelRequestCount":-1}})"),
            "coreFetch.parallelRequestCount: must be a whole number in 1..255, got -1");
  EXPECT_EQ(error_of(R"({"coreFetch":{"parallelRequestCount":2.5}})"),
            "coreFetch.parallelRequestCount: must be a whole number in 1..255, got 2.5");
  EXPECT_EQ(error_of(R"({"coreFetch":{"parallelRequestCount":"2"}})"),
            "coreFetch.parallelRequestCount: must be a whole number in 1..255, got a string");
  EXPECT_EQ(error_of(R"({"coreFetch":{"maxPending":18446744073709551616}})").substr(0, 21), "coreFetch.maxPending:");
  EXPECT_EQ(error_of(R"({"tx5Transport":{"signalAllowPlainText":1}})"),
            "tx5Transport.signalAllowPlainText: must be true or false, got a number");
  EXPECT_EQ(error_of(R"({"memBootstrap":{"testId":null}})"), "memBootstrap.testId: must be a string, got a null");
  EXPECT_EQ(error_of(R"({"tx5Transport":{"webrtcConfig":[]}})"),
            "tx5Transport.webrtcConfig: must be an object, got a array");
  EXPECT_EQ(error_of(R"({"coreSpace":7})"), "coreSpace: must be an object, got a number");
  EXPECT_EQ(error_of(R"({"coreFetch":{"firstBackOffIntervalMs":5,"lastBackOffIntervalMs":4}})"),
            "coreFetch.lastBackOffIntervalMs: must not be below firstBackOffIntervalMs");
  EXPECT_EQ(error_of(R"({"coreBootstrap":{"backoffMinMs":5,"backoffMaxMs":4}})"),
            "coreBootstrap.backoffMaxMs: must not be below backoffMinMs");
}

TEST(Config, BadUrlsAreNamed) {
  EXPECT_EQ(error_of(R"({"coreBootstrap":{"serverUrl":"<bad-url>"}})"),
            "coreBootstrap.serverUrl: must be like https://host:port, got \"<bad-url>\"");
  EXPECT_TRUE(starts(error_of(R"({"coreBootstrap":{"serverUrl":"ftp://a"}})"), "coreBootstrap.serverUrl: "));
  EXPECT_TRUE(starts(error_of(R"({"network":{"dialect":"0.2"},"tx5Transport":{"serverUrl":"https://a"}})"),
                     "tx5Transport.serverUrl: "));
  EXPECT_TRUE(Config::parse(R"({"coreBootstrap":{"serverUrl":"http://127.0.0.1:1"}})"));
  EXPECT_TRUE(Config::parse(R"({"tx5Transport":{"serverUrl":"wss://sbd.kitsu.ne"}})"));
}

TEST(Config, UnknownKeysNameTheNearest) {
  EXPECT_EQ(error_of(R"({"coreFetch":{"parallelRequestsCount":3}})"),
            "coreFetch.parallelRequestsCount: is not a key; did you mean \"parallelRequestCount\"?");
  EXPECT_EQ(error_of(R"({"corefetch":{}})"), "corefetch: is not a section; did you mean \"coreFetch\"?");
  EXPECT_TRUE(starts(error_of(R"({"k2Gossip":{"":1}})"), "k2Gossip.: is not a key"));
  EXPECT_TRUE(Config::parse(R"({"myApp":{"anything":1}})"));
}

TEST(Config, AnOldNameOfAKeyIsReadAndNeverPrinted) {
  const auto config = Config::parse(R"({"tx5Transport":{"tlsCaFile":"/old.pem"}})");
  ASSERT_TRUE(config) << config.error().to_string();
  EXPECT_EQ(config->network.tls_ca_file, "/old.pem");
  const Json printed = Json::parse(config->to_json());
  EXPECT_EQ(printed["network"]["tlsCaFile"], "/old.pem");
  EXPECT_FALSE(printed["tx5Transport"].contains("tlsCaFile"));
  EXPECT_EQ(Config::parse(R"({"network":{"tlsCaFile":"/new.pem"}})")->network.tls_ca_file, "/new.pem");
}

TEST(Config, AnOldNameOfAKeyBesideTheNewOneIsAnError) {
  const std::string both =
      "network.tlsCaFile: is given twice, here and by its old name tx5Transport.tlsCaFile; leave the "
      "old one out";
  EXPECT_EQ(error_of(R"({"network":{"tlsCaFile":"/a"},"tx5Transport":{"tlsCaFile":"/b"}})"), both);
  EXPECT_EQ(error_of(R"({"tx5Transport":{"tlsCaFile":"/a"},"network":{"tlsCaFile":"/a"}})"), both) << "the same value";
  // One after the other is no contradiction: the last one counts.
  const auto first = Config::parse(R"({"network":{"tlsCaFile":"/a"}})");
  EXPECT_EQ(first->overlaid(R"({"tx5Transport":{"tlsCaFile":"/b"}})")->network.tls_ca_file, "/b");
}

TEST(Config, TheNameOfTheNetworkSectionTakesNoNearNameFromApplications) {
  for (const char* own : {"net", "networking", "net2", "app", "peers"}) {
    EXPECT_TRUE(Config::parse(std::string("{\"") + own + "\":{}}")) << own;
  }
}

TEST(Config, BrokenTextIsRefused) {
  EXPECT_NE(error_of("{\"coreFetch\":{\n \"parallelRequestCount\" 2}}").find("line 2"), std::string::npos);
  EXPECT_EQ(error_of("[]"), "the configuration must be a JSON object");
  EXPECT_NE(error_of(""), "no error");
  EXPECT_NE(error_of("{} x"), "no error");
  EXPECT_NE(error_of("{\"a\":\"\xff\"}"), "no error");
  EXPECT_EQ(error_of(R"({"coreSpace":{"reSignFreqMs":1,"reSignFreqMs":2}})"), "coreSpace.reSignFreqMs: is given twice");
  EXPECT_EQ(error_of(R"({"a":1,"a":2})"), "a: is given twice");
  EXPECT_NE(error_of("{\"a\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}").find("nested deeper"),
            std::string::npos);
  EXPECT_NE(error_of('"' + std::string(Config::kMaxJsonBytes, 'a') + '"').find("longer than"), std::string::npos);
}

TEST(Config, EveryKeyRoundTripsAtItsBounds) {
  for (const auto& section : config_table::sections()) {
    for (const auto& key : section.keys) {
      const std::string path = std::string(section.name) + '.' + std::string(key.name);
      Config probe;
      const auto slot = key.slot(probe);
      const auto with = [&](const std::string& value) {
        // Both of a pair of bounds, so that the check between keys does not hide that of the range.
        Json json;
        json[std::string(section.name)][std::string(key.name)] = Json::parse(value);
        // A dialect that uses the section, so that its values are judged.
        if (section.name == "irohTransport") json["network"]["dialect"] = "0.5";
        if (section.name == "tx5Transport") json["network"]["dialect"] = "0.2";
        if (key.name.starts_with("firstBackOff")) json["coreFetch"]["lastBackOffIntervalMs"] = 86'400'000;
        if (key.name == "lastBackOffIntervalMs") json["coreFetch"]["firstBackOffIntervalMs"] = 1;
        if (key.name == "backoffMinMs") json["coreBootstrap"]["backoffMaxMs"] = 86'400'000;
        if (key.name == "backoffMaxMs") json["coreBootstrap"]["backoffMinMs"] = 1;
        if (key.name == "firstAsideMs") json["peerBudget"]["longestAsideMs"] = 86'400'000;
        if (key.name == "longestAsideMs") json["peerBudget"]["firstAsideMs"] = 1;
        if (key.name == "maxPending") json["coreFetch"]["maxPendingPerPeer"] = 1;
        if (key.name == "maxPendingPerPeer") json["coreFetch"]["maxPending"] = UINT32_MAX;
        return Config::parse(json.dump());
      };
      const bool number = std::holds_alternative<std::uint32_t*>(slot) ||
                          std::holds_alternative<std::uint64_t*>(slot) ||
                          std::holds_alternative<std::optional<std::uint32_t>*>(slot);
      if (number) {
        const auto low = with(std::to_string(key.min));
        EXPECT_TRUE(low) << path << low.error().to_string();
        const auto high = with(std::to_string(key.max));
        EXPECT_TRUE(high) << path << high.error().to_string();
        const auto above = with(std::to_string(key.max + 1));
        ASSERT_FALSE(above) << path;
        EXPECT_TRUE(starts(above.error().message, path + ':')) << above.error().message;
        if (key.min > 0) {
          EXPECT_FALSE(with(std::to_string(key.min - 1))) << path;
        }
      } else {
        const auto wrong = with("[]");
        ASSERT_FALSE(wrong) << path;
        EXPECT_TRUE(starts(wrong.error().message, path + ':')) << wrong.error().message;
      }
    }
  }
}

TEST(Config, SchemaCoversEveryKeyAndMatchesTheDefaults) {
  const Json schema = Json::parse(Config::json_schema());
  const Json defaults = Json::parse(Config::defaults().to_json());
  EXPECT_EQ(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
  for (const auto& [section, keys] : defaults.items()) {
    const Json& entry = schema["properties"][section];
    EXPECT_EQ(entry["additionalProperties"], false);
    const auto old_names = std::count_if(entry["properties"].begin(), entry["properties"].end(),
                                         [](const Json& key) { return key.contains("deprecated"); });
    EXPECT_EQ(entry["properties"].size() - static_cast<std::size_t>(old_names), keys.size()) << section;
    for (const auto& [key, value] : keys.items()) EXPECT_EQ(entry["properties"][key]["default"], value) << key;
  }
  EXPECT_EQ(schema["properties"]["coreFetch"]["properties"]["parallelRequestCount"]["maximum"], 255);
  EXPECT_EQ(schema["properties"]["tx5Transport"]["properties"]["tlsCaFile"]["deprecated"], true);
}

TEST(Config, TheDialectIsOneThatIsKnown) {
  EXPECT_EQ(Config::defaults().network.dialect, std::nullopt);
  EXPECT_EQ(Json::parse(Config::defaults().to_json())["network"]["dialect"], nullptr);
  EXPECT_EQ(Config::parse(R"({"network":{"dialect":"0.2"}})")->overlaid("{}")->network.dialect, Dialect::v0_2);
  EXPECT_EQ(
      Config::parse(R"({"network":{"dialect":"0.2"}})")->overlaid(R"({"network":{"dialect":null}})")->network.dialect,
      std::nullopt);
  EXPECT_EQ(Config::parse(R"({"network":{"dialect":"0.2"}})")->network.dialect, Dialect::v0_2);
  EXPECT_EQ(Config::parse(R"({"network":{"dialect":"0.5"}})")->network.dialect, Dialect::v0_5);
  EXPECT_EQ(Config::parse(R"({"network":{"dialect":"0.4"}})")->network.dialect, Dialect::v0_4);
  EXPECT_EQ(error_of(R"({"network":{"dialect":"0.3"}})"),
            R"(network.dialect: must be "0.2" or "0.4" or "0.5", got "0.3")");
  EXPECT_EQ(error_of(R"({"network":{"dialect":0.2}})"), "network.dialect: must be a string or null, got a number");
  const Json schema = Json::parse(Config::json_schema());
  EXPECT_EQ(schema["properties"]["network"]["properties"]["dialect"]["enum"],
            Json::array({"0.2", "0.4", "0.5", nullptr}));
}

// A text or null, as in the reference.
TEST(Config, TheIrohRelayIsATextOrNull) {
  EXPECT_EQ(Config::defaults().iroh_transport.relay_url, std::nullopt);
  EXPECT_EQ(Json::parse(Config::defaults().to_json())["irohTransport"]["relayUrl"], nullptr);
  const auto set = Config::parse(R"({"irohTransport":{"relayUrl":"https://relay.example/relay"}})");
  ASSERT_TRUE(set);
  EXPECT_EQ(set->iroh_transport.relay_url, "https://relay.example/relay");
  EXPECT_EQ(Config::parse(set->to_json())->iroh_transport.relay_url, set->iroh_transport.relay_url);
  EXPECT_EQ(set->overlaid(R"({"irohTransport":{"relayUrl":null}})")->iroh_transport.relay_url, std::nullopt);
  EXPECT_EQ(error_of(R"({"irohTransport":{"relayUrl":7}})"),
            "irohTransport.relayUrl: must be a string or null, got a number");
  EXPECT_EQ(error_of(R"({"irohTransport":{"relayUrl":"nonsense"},"network":{"dialect":"0.5"}})"),
            R"(irohTransport.relayUrl: must be like https://host:port/path, got "nonsense")");
  EXPECT_EQ(error_of(R"({"network":{"dialect":"0.5"},"irohTransport":{"authMaterialRelayBase64":"AAAA"}})"),
            "no error");
  EXPECT_EQ(
      error_of(R"({"network":{"dialect":"0.5"},"irohTransport":{"authMaterialRelayBase64":"A"}})"),
      "irohTransport.authMaterialRelayBase64: must be base64 (standard alphabet, with padding) of 1 to 65536 bytes");
}

// With all keys that 0.5.3 has, at its defaults.
TEST(Config, AFileOf053IsTaken) {
  const auto config = Config::parse(R"({
    "coreBootstrap": {"serverUrl": "https://b.example", "authMaterialBase64": null, "backoffMinMs": 5000,
                      "backoffMaxMs": 300000},
    "coreFetch": {"parallelRequestCount": 2}, "corePublish": {"maxMetadataBytes": 1024},
    "coreSpace": {"reSignFreqMs": 60000, "reSignExpireTimeMs": 300000},
    "irohTransport": {"relayUrl": "https://r.example", "relayAllowPlainText": false, "maxFrameBytes": 104857600,
                      "connectTimeoutS": 60, "authMaterialRelayBase64": null, "relayKeepaliveIntervalS": 120},
    "k2Gossip": {"maxGossipOpBytes": 104857600, "maxRequestGossipOpBytes": 104857600,
                 "initialInitiateIntervalMs": 1000, "initiateIntervalMs": 120000, "initiateJitterMs": 10000,
                 "minInitiateIntervalMs": 300000, "initiateBurstFactor": 4, "initiateBurstWindowCount": 6,
                 "roundTimeoutMs": 15000, "maxConcurrentAcceptedRounds": 10},
    "memPeerStore": {"pruneIntervalS": 10}})");
  ASSERT_TRUE(config) << config.error().to_string();
  EXPECT_EQ(config->k2_gossip.initiate_burst_factor, 4U);
  EXPECT_EQ(config->k2_gossip.initiate_burst_window_count, 6U);
  EXPECT_EQ(config->k2_gossip.initial_initiate_interval_ms, 1'000U);
}

// C3: one file may serve nodes of several dialects.
TEST(Config, ValuesOfATransportThatTheDialectDoesNotUseAreNotJudged) {
  const std::string iroh =
      R"("irohTransport":{"relayUrl":"nonsense","authMaterialRelayBase64":"AAAA","maxPeers":0,"maxFrameBytes":1})";
  const std::string tx5 = R"("tx5Transport":{"serverUrl":"nonsense","timeoutS":0,"messageSizeMax":1})";
  auto config = Config::parse('{' + iroh + R"(,"network":{"dialect":"0.2"}})");
  ASSERT_TRUE(config) << config.error().to_string();
  EXPECT_EQ(config->iroh_transport.max_peers, 0U);
  EXPECT_TRUE(config->overlaid("{}"));
  config->network.dialect = Dialect::v0_5;
  EXPECT_FALSE(config->validate()) << "it uses the section";
  EXPECT_TRUE(Config::parse('{' + tx5 + R"(,"network":{"dialect":"0.5"}})"));
  EXPECT_FALSE(Config::parse('{' + tx5 + R"(,"network":{"dialect":"0.2"}})"));
  // Without a dialect the folder may decide, so the node judges when it starts.
  for (const std::string& section : {iroh, tx5}) {
    config = Config::parse('{' + section + '}');
    ASSERT_TRUE(config) << config.error().to_string();
    EXPECT_FALSE(config->validate()) << "it may use the section";
  }
  // What has the wrong type, or no meaning in any dialect, is refused as before.
  EXPECT_EQ(error_of(R"({"irohTransport":{"maxPeers":4294967296}})"),
            "irohTransport.maxPeers: must be a whole number in 1..1048576, got 4294967296");
  EXPECT_EQ(error_of(R"({"irohTransport":{"maxPeer":1}})"),
            R"(irohTransport.maxPeer: is not a key; did you mean "maxPeers"?)");
}

TEST(Config, LoadFileNamesThePath) {
  const auto missing = Config::load_file("/nonexistent/config.json");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Errc::io);
  const auto path = std::filesystem::temp_directory_path() / ("k2-config-" + std::to_string(::getpid()) + ".json");
  std::ofstream(path) << R"({"coreSpace":{"reSignFreqMs":"x"}})";
  const auto bad = Config::load_file(path.string());
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().message,
            path.string() + ": coreSpace.reSignFreqMs: must be a whole number in 1..86400000, got a string");
  std::ofstream(path) << R"({"coreSpace":{"reSignFreqMs":5}})";
  const auto good = Config::load_file(path.string());
  ASSERT_TRUE(good);
  EXPECT_EQ(good->core_space.re_sign_freq_ms, 5U);
  std::filesystem::remove(path);
}

// K2_UPDATE_DOCS=1 writes the tables into the page instead.
TEST(Config, DocumentationIsTheTable) {
  const auto path = source_dir() / "docs" / "configuration.md";
  std::stringstream read;
  read << std::ifstream(path).rdbuf();
  std::string text = read.str();
  const std::string begin = "<!-- keys: begin -->\n", end = "<!-- keys: end -->";
  const auto from = text.find(begin), to = text.find(end);
  ASSERT_TRUE(from != std::string::npos && to != std::string::npos) << path;
  const std::string tables = text.substr(from + begin.size(), to - from - begin.size());
  if (std::getenv("K2_UPDATE_DOCS") != nullptr) {
    text.replace(from + begin.size(), tables.size(), Config::reference_markdown());
    std::ofstream(path) << text;
    return;
  }
  EXPECT_EQ(tables, Config::reference_markdown()) << "run unit_node with K2_UPDATE_DOCS=1";
}

// Reference: config::test::config_usage_example, warns_no_runtime_cb.
TEST(RuntimeConfig, UpdateCallsBackForChangedKeys) {
  RuntimeConfig config;
  std::vector<std::uint32_t> seen;
  int section = 0;
  auto one = config.on_update("k2Gossip.initiateIntervalMs",
                              [&](const Config& c) { seen.push_back(c.k2_gossip.initiate_interval_ms); });
  auto all = config.on_update("k2Gossip", [&](const Config&) { ++section; });
  ASSERT_TRUE(one && all);
  EXPECT_EQ(seen, (std::vector<std::uint32_t>{120'000}));
  EXPECT_TRUE(config.update(R"({"k2Gossip":{"initiateIntervalMs":99}})"));
  EXPECT_TRUE(config.update(R"({"k2Gossip":{"initiateIntervalMs":99}})"));  // no change, no call
  EXPECT_TRUE(config.update(R"({"k2Gossip":{"initiateJitterMs":1}})"));
  EXPECT_EQ(seen, (std::vector<std::uint32_t>{120'000, 99}));
  EXPECT_EQ(section, 3);
  one.reset();
  EXPECT_TRUE(config.update(R"({"k2Gossip":{"initiateIntervalMs":100}})"));
  EXPECT_EQ(seen.size(), 2U);
  EXPECT_EQ(config.current().k2_gossip.initiate_interval_ms, 100U);
}

TEST(RuntimeConfig, AFixedKeyIsRefusedAndNothingIsApplied) {
  RuntimeConfig config;
  const auto refused = config.update(R"({"k2Gossip":{"initiateIntervalMs":99},"tx5Transport":{"timeoutS":5}})");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "tx5Transport.timeoutS: cannot change while the node runs");
  EXPECT_EQ(config.current().k2_gossip.initiate_interval_ms, 120'000U);
  // The same value is not a change.
  EXPECT_TRUE(config.update(R"({"tx5Transport":{"timeoutS":60}})"));
  EXPECT_FALSE(config.update(R"({"k2Gossip":{"roundTimeoutMs":0}})"));
  EXPECT_EQ(config.on_update("tx5Transport.timeoutS", [](const Config&) {}), nullptr);
  EXPECT_EQ(config.on_update("nonsense", [](const Config&) {}), nullptr);
}

TEST(RuntimeConfig, ASubscriptionMayOutliveItAndMayBeDroppedInACallback) {
  std::shared_ptr<void> kept;
  int calls = 0;
  {
    RuntimeConfig config;
    kept = config.on_update("coreSpace", [&](const Config&) {
      ++calls;
      kept.reset();
    });
    EXPECT_TRUE(config.update(R"({"coreSpace":{"reSignFreqMs":1}})"));
    EXPECT_TRUE(config.update(R"({"coreSpace":{"reSignFreqMs":2}})"));
    EXPECT_EQ(calls, 2);  // the first inside on_update
    kept = config.on_update("coreSpace", [](const Config&) {});
  }
  kept.reset();
}

}  // namespace
}  // namespace kitsune2
