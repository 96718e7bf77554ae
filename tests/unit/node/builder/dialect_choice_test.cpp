// What says which dialect a node speaks, and what comes first.
#include "node/builder/dialect_choice.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "kitsune2/node.hpp"
#include "node/builder/store_paths.hpp"

namespace kitsune2 {
namespace {

namespace fs = std::filesystem;

struct DialectChoice : ::testing::Test {
  void SetUp() override { fs::create_directories(dir); }
  void TearDown() override { fs::remove_all(dir); }

  /// A folder with data of a dialect.
  std::string folder(const std::string& name, Dialect dialect) const {
    const std::string path = dir + '/' + name;
    fs::create_directories(path);
    if (dialect != Dialect::v0_2) std::ofstream(path + "/dialect") << to_string(dialect) << '\n';
    std::ofstream(path + "/agent.key") << "x";
    return path;
  }
  static Dialect chosen(std::optional<Dialect> named, const Config& config, std::string_view relay,
                        const std::string& data_dir) {
    return choose_dialect(named, config, relay, data_dir).value();
  }

  Config config;
  const std::string dir =
      (fs::temp_directory_path() / ("k2-choice-" + std::to_string(::getpid()) + '-' +
                                    ::testing::UnitTest::GetInstance()->current_test_info()->name()))
          .string();
};

TEST_F(DialectChoice, ANameComesBeforeTheFolderAndTheFolderBeforeTheRelay) {
  const std::string old = folder("old", Dialect::v0_2), late = folder("late", Dialect::v0_4);
  EXPECT_EQ(chosen({}, config, "", ""), default_dialect());
  EXPECT_EQ(chosen({}, config, "", dir + "/new"), default_dialect());
  EXPECT_EQ(chosen({}, config, "", old), Dialect::v0_2);
  EXPECT_EQ(chosen({}, config, "http://x:1/relay", old), Dialect::v0_2);
  EXPECT_EQ(chosen({}, config, "ws://x:1", late), Dialect::v0_4);
  config.network.dialect = Dialect::v0_5;
  EXPECT_EQ(chosen({}, config, "ws://x:1", late), Dialect::v0_5);
  EXPECT_EQ(chosen(Dialect::v0_2, config, "http://x:1/relay", late), Dialect::v0_2);
}

TEST_F(DialectChoice, TheUrlOfARelaySaysIt) {
  for (const char* url : {"ws://x:1", "wss://x:1"}) EXPECT_EQ(chosen({}, config, url, ""), Dialect::v0_2) << url;
  for (const char* url : {"http://x:1/relay", "https://x:1/relay"})
    EXPECT_EQ(chosen({}, config, url, ""), Dialect::v0_5) << url;
  EXPECT_EQ(chosen({}, config, "x:1", ""), default_dialect());

  config.tx5_transport.server_url = "wss://x:1";
  EXPECT_EQ(chosen({}, config, "", ""), Dialect::v0_2);
  EXPECT_EQ(chosen({}, config, "https://x:1/relay", ""), Dialect::v0_5) << "the one that is used";
  config.iroh_transport.relay_url = "https://x:1/relay";
  EXPECT_EQ(chosen({}, config, "", ""), default_dialect()) << "a file for nodes of both";
  config.tx5_transport = {};
  EXPECT_EQ(chosen({}, config, "", ""), Dialect::v0_5);
}

TEST_F(DialectChoice, ANoteThatSaysNothingIsAnError) {
  std::ofstream(folder("bad", Dialect::v0_5) + "/dialect") << "0.9\n";
  EXPECT_EQ(choose_dialect({}, config, "", dir + "/bad").error().code, Errc::corrupt);
}

TEST_F(DialectChoice, ANewFolderIsOfTheDefaultAndStaysSo) {
  const std::string path = dir + "/new";
  for (int run = 0; run < 2; ++run) {
    const auto node = Node::start({.data_dir = path, .listen = "127.0.0.1:0"});
    ASSERT_TRUE(node) << node.error().to_string();
    ASSERT_TRUE((*node)->agent());
    EXPECT_EQ((*node)->relay_url().starts_with("http://"), uses_iroh(default_dialect()));
  }
  EXPECT_EQ(dialect_of_folder(path).value(), default_dialect());
  const auto other = Node::start({.data_dir = path, .relay = "ws://127.0.0.1:1"});
  EXPECT_EQ(other.has_error(), uses_iroh(default_dialect())) << "a relay of dialect 0.2";
}

TEST_F(DialectChoice, AnOlderFolderStaysOfDialect02) {
  const std::string path = dir + "/old";
  fs::create_directories(path);
  std::ofstream(path + "/c3BhY2U.db");
  const auto node = Node::start({.data_dir = path, .listen = "127.0.0.1:0"});
  ASSERT_TRUE(node) << node.error().to_string();
  EXPECT_TRUE((*node)->relay_url().starts_with("ws://")) << (*node)->relay_url();
  EXPECT_FALSE(fs::exists(path + "/dialect"));
}

TEST_F(DialectChoice, AnErrorAboutTheRelaySaysThatTheFolderHasChosen) {
  const std::string old = folder("old", Dialect::v0_2), late = folder("late", Dialect::v0_5);
  EXPECT_EQ(Node::start({.data_dir = old, .relay = "https://x:1/relay"}).error().message,
            "relay: in dialect 0.2 it must be like ws://host:port or wss://host:port, got \"https://x:1/relay\"; the "
            "node speaks 0.2 because " +
                old + " has data of dialect 0.2");
  const std::string found = Node::start({.data_dir = late, .relay = "ws://x:1"}).error().message;
  EXPECT_TRUE(found.ends_with("; the node speaks 0.5 because " + late + " has data of dialect 0.5")) << found;
  // Nothing but the name, or the url itself, has chosen.
  const auto named = Node::start({.dialect = Dialect::v0_2, .data_dir = old, .relay = "https://x:1/relay"});
  EXPECT_TRUE(named.error().message.ends_with("got \"https://x:1/relay\"")) << named.error().message;
  EXPECT_EQ(because_of_folder(Dialect::v0_2, dir + "/new"), "");
  EXPECT_EQ(because_of_folder(Dialect::v0_2, ""), "");
}

// Offline it reaches nobody, whatever it speaks.
TEST_F(DialectChoice, ANodeWithoutARelayIsOfflineUnlessADialectIsNamedThatNeedsOne) {
  EXPECT_TRUE(Node::start({}));
  EXPECT_TRUE(Node::start({.data_dir = dir + "/offline"}));
  EXPECT_TRUE(Node::start({.dialect = Dialect::v0_2}));
  config.network.dialect = Dialect::v0_5;
  EXPECT_EQ(Node::start({.config = config}).error().message.substr(0, 23), "irohTransport.relayUrl:");
}

TEST_F(DialectChoice, AnOfflineStartLeavesItToTheFirstRelay) {
  const auto offline = [](const std::string& path) {
    const auto node = Node::start({.data_dir = path});
    ASSERT_TRUE(node) << node.error().to_string();
    ASSERT_TRUE((*node)->agent());
    EXPECT_EQ(dialect_of_folder(path).value(), std::nullopt);
  };
  const std::string sbd = dir + "/sbd", iroh = dir + "/iroh", named = dir + "/named";
  offline(sbd);
  EXPECT_FALSE(Node::start({.data_dir = sbd, .relay = "ws://x:1/a/b"}));
  EXPECT_EQ(dialect_of_folder(sbd).value(), std::nullopt) << "a start that failed chooses nothing";
  offline(sbd);
  {
    const auto node = Node::start({.data_dir = sbd, .relay = "ws://127.0.0.1:1"});
    ASSERT_TRUE(node) << node.error().to_string();
  }
  EXPECT_EQ(dialect_of_folder(sbd).value(), Dialect::v0_2);
  EXPECT_TRUE(Node::start({.data_dir = sbd})) << "offline again";
  EXPECT_EQ(dialect_of_folder(sbd).value(), Dialect::v0_2);

  offline(named);
  EXPECT_TRUE(Node::start({.dialect = Dialect::v0_2, .data_dir = named}));
  EXPECT_EQ(dialect_of_folder(named).value(), Dialect::v0_2);

  if (!uses_iroh(default_dialect())) return;  // built without QUIC
  offline(iroh);
  EXPECT_TRUE(Node::start({.data_dir = iroh, .relay = "http://127.0.0.1:1/relay"}));
  EXPECT_EQ(dialect_of_folder(iroh).value(), Dialect::v0_5);
  EXPECT_TRUE(Node::start({.data_dir = iroh})) << "offline again";
  EXPECT_EQ(dialect_of_folder(iroh).value(), Dialect::v0_5);
}

}  // namespace
}  // namespace kitsune2
