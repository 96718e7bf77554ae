// A data folder remembers the dialect of what is in it.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <regex>
#include <string>
#include <vector>

#include "kitsune2/node.hpp"
#include "node/builder/dialect_choice.hpp"
#include "node/builder/store_paths.hpp"

namespace kitsune2 {
namespace {

namespace fs = std::filesystem;

struct FolderDialect : ::testing::Test {
  void SetUp() override { fs::create_directories(dir); }
  void TearDown() override { fs::remove_all(dir); }

  Result<void> use_for(Dialect dialect) { return DataDir::open(dir).value()->use_for(dialect); }
  void put(const std::string& name, const std::string& text) const { std::ofstream(dir + '/' + name) << text; }
  std::string note() const {
    std::ifstream file(dir + "/dialect");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  const std::string dir =
      (fs::temp_directory_path() / ("k2-dialect-" + std::to_string(::getpid()) + '-' +
                                    ::testing::UnitTest::GetInstance()->current_test_info()->name()))
          .string();
};

TEST_F(FolderDialect, OneWithoutDataTakesAny) {
  EXPECT_EQ(dialect_of_folder(dir).value(), std::nullopt);
  EXPECT_EQ(dialect_of_folder(dir + "/absent").value(), std::nullopt);
  ASSERT_TRUE(use_for(Dialect::v0_5));
  EXPECT_EQ(note(), "0.5\n");
  EXPECT_EQ(dialect_of_folder(dir).value(), std::nullopt) << "a start that failed binds to nothing";
  ASSERT_TRUE(use_for(Dialect::v0_2));
  EXPECT_FALSE(fs::exists(dir + "/dialect"));
  put("c3BhY2U.db", "");
  EXPECT_EQ(dialect_of_folder(dir).value(), Dialect::v0_2);
}

TEST_F(FolderDialect, OneWithDataKeepsItsOwn) {
  ASSERT_TRUE(use_for(Dialect::v0_5));
  put("agent.key", "");
  EXPECT_EQ(dialect_of_folder(dir).value(), Dialect::v0_5);
  EXPECT_TRUE(use_for(Dialect::v0_5));
  const auto other = use_for(Dialect::v0_2);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, Errc::invalid_config);
  EXPECT_EQ(other.error().message, dir +
                                       ": has data of dialect 0.5, but this node is to speak 0.2; choose another "
                                       "folder, or the folder's dialect");
  EXPECT_EQ(note(), "0.5\n");
}

// The folders of earlier versions have no note.
TEST_F(FolderDialect, AnOlderFolderIsOfDialect02) {
  put("c3BhY2U.db", "");
  EXPECT_EQ(dialect_of_folder(dir).value(), Dialect::v0_2);
  EXPECT_TRUE(use_for(Dialect::v0_2));
  EXPECT_FALSE(fs::exists(dir + "/dialect"));
  const auto node = Node::start({.dialect = Dialect::v0_5, .data_dir = dir, .relay = "http://127.0.0.1:1/relay"});
  ASSERT_FALSE(node);
  EXPECT_NE(node.error().message.find("has data of dialect 0.2, but this node is to speak 0.5"), std::string::npos)
      << node.error().message;
}

// One file for nodes of several dialects, which does not name one.
TEST_F(FolderDialect, OnlyTheSectionOfItsTransportIsJudged) {
  put("c3BhY2U.db", "");
  const auto file = [](const std::string& text) { return Config::parse(text).value(); };
  const Config with_bad_iroh = file(R"({"irohTransport":{"maxPeers":0}})");
  const auto older = Node::start({.config = with_bad_iroh, .data_dir = dir});
  EXPECT_TRUE(older) << older.error().to_string();
  if (older) (*older)->stop();
  const auto refused = Node::start({.config = file(R"({"tx5Transport":{"timeoutS":0}})"), .data_dir = dir});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "tx5Transport.timeoutS: must be a whole number in 1..86400, got 0");
  const std::string fresh = dir + "/fresh";
  EXPECT_EQ(Node::start({.config = with_bad_iroh, .data_dir = fresh}).has_value(), default_dialect() == Dialect::v0_2)
      << "a new folder is of 0.5";
  EXPECT_EQ(fs::exists(fresh), default_dialect() == Dialect::v0_2) << "nothing is made for what is refused";
}

TEST_F(FolderDialect, ANodeThatIsOfflineBecauseTheFileNamesTheOtherRelaySaysSo) {
  std::vector<std::string> lines;
  const auto start = [&](const char* config) {
    std::mutex mutex;
    lines.clear();
    NodeOptions options{.config = Config::parse(config).value(), .data_dir = dir};
    options.log = {[&](const LogLine& line) {
                     const std::lock_guard lock(mutex);
                     if (line.text.find("offline") != std::string::npos) lines.emplace_back(line.text);
                   },
                   LogLevel::warn};
    const auto node = Node::start(std::move(options));
    ASSERT_TRUE(node) << node.error().to_string();
    (*node)->stop();
  };
  ASSERT_TRUE(use_for(Dialect::v0_5));
  put("c3BhY2U.db", "");
  start(R"({"tx5Transport":{"serverUrl":"wss://relay.example:443"}})");
  EXPECT_EQ(lines, std::vector<std::string>{
                       "the node is offline: tx5Transport.serverUrl is for dialect 0.2, and irohTransport.relayUrl, "
                       "which dialect 0.5 needs, is not set; the node speaks 0.5 because " +
                       dir + " has data of dialect 0.5"});
  start("{}");
  EXPECT_TRUE(lines.empty()) << "nobody has asked for a relay";
  fs::remove(dir + "/dialect");
  start(R"({"irohTransport":{"relayUrl":"https://relay.example:443/relay"}})");
  EXPECT_EQ(lines, std::vector<std::string>{
                       "the node is offline: irohTransport.relayUrl is for dialects 0.5 and 0.4, and "
                       "tx5Transport.serverUrl, which dialect 0.2 needs, is not set; the node speaks 0.2 because " +
                       dir + " has data of dialect 0.2"});
}

TEST_F(FolderDialect, ANoteThatIsNoneIsSaidAndKept) {
  put("agent.key", "");
  for (const std::string& text :
       {std::string(), std::string("0.5"), std::string("0.9\n"), std::string("0.5\n0.5\n"), std::string(4, '\0')}) {
    put("dialect", text);
    const auto named = dialect_of_folder(dir);
    ASSERT_FALSE(named) << text;
    EXPECT_EQ(named.error().code, Errc::corrupt) << text;
    EXPECT_NE(named.error().message.find(dir + "/dialect: "), std::string::npos);
    EXPECT_FALSE(use_for(Dialect::v0_5)) << text;
    EXPECT_EQ(note(), text);
  }
}

TEST_F(FolderDialect, DataOfNoDialectYetTakesAny) {
  for (const Dialect dialect : {Dialect::v0_2, Dialect::v0_4, Dialect::v0_5}) {
    ASSERT_TRUE(DataDir::open(dir).value()->leave_open());
    put("agent.key", "");
    EXPECT_EQ(note(), "0\n");
    EXPECT_EQ(dialect_of_folder(dir).value(), std::nullopt);
    EXPECT_TRUE(DataDir::open(dir).value()->may_use_for(dialect));
    EXPECT_EQ(dialect_of_folder(dir).value(), std::nullopt) << "to ask chooses nothing";
    ASSERT_TRUE(use_for(dialect));
    EXPECT_EQ(dialect_of_folder(dir).value(), dialect);
    ASSERT_TRUE(DataDir::open(dir).value()->leave_open());
    EXPECT_EQ(dialect_of_folder(dir).value(), dialect) << "what is chosen remains";
    EXPECT_EQ(fs::exists(dir + "/dialect"), dialect != Dialect::v0_2);
    fs::remove(dir + "/agent.key");
  }
  put("agent.key", "");
  put("dialect", "0");
  EXPECT_EQ(dialect_of_folder(dir).error().code, Errc::corrupt) << "it has lost a byte";
}

// Somebody has a file of that name in the folder.
TEST_F(FolderDialect, WhatIsNotANodesIsLeftAlone) {
  for (const std::string name : {"dialect", "dialect.new"}) {
    for (const std::string& text : {std::string("british\n"), std::string(1000, '1')}) {
      put(name, text);
      const auto refused = use_for(Dialect::v0_5);
      ASSERT_FALSE(refused) << name;
      EXPECT_EQ(refused.error().code, Errc::invalid_config);
      EXPECT_TRUE(refused.error().message.starts_with(dir + '/' + name + ": is not a node's"));
      EXPECT_TRUE(use_for(Dialect::v0_2));
      std::ifstream file(dir + '/' + name);
      EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), text);
      fs::remove(dir + '/' + name);
    }
  }
}

TEST_F(FolderDialect, ANodeOfDialect02StartsBesideAForeignFileOrFolder) {
  for (const bool is_folder : {false, true}) {
    if (is_folder) fs::create_directory(dir + "/dialect");
    if (!is_folder) put("dialect", "british\n");
    EXPECT_TRUE(use_for(Dialect::v0_2));
    put("agent.key", "");
    EXPECT_TRUE(use_for(Dialect::v0_2)) << "also when there is data";
    EXPECT_FALSE(use_for(Dialect::v0_5));
    EXPECT_TRUE(fs::exists(dir + "/dialect"));
    fs::remove(dir + "/agent.key");
    fs::remove(dir + "/dialect");
  }
}

TEST_F(FolderDialect, ALinkOrAPipeIsForeign) {
  put("elsewhere", "0.5\n");
  fs::create_symlink(dir + "/elsewhere", dir + "/dialect");
  EXPECT_FALSE(use_for(Dialect::v0_5));
  EXPECT_TRUE(use_for(Dialect::v0_2));
  EXPECT_TRUE(fs::is_symlink(dir + "/dialect"));
  fs::remove(dir + "/dialect");
  ASSERT_EQ(::mkfifo((dir + "/dialect").c_str(), 0600), 0);
  EXPECT_FALSE(use_for(Dialect::v0_5));
  EXPECT_TRUE(use_for(Dialect::v0_2));
  EXPECT_TRUE(fs::exists(dir + "/dialect"));
}

// The lines of docs/operations.md, as they are there.
TEST_F(FolderDialect, ABackupByTheManualKeepsIt) {
  std::ifstream file(std::filesystem::path(K2_SOURCE_DIR) / "docs" / "operations.md");
  const std::string manual{std::istreambuf_iterator<char>(file), {}};
  const auto begin = manual.find("umask 077\n");
  ASSERT_NE(begin, std::string::npos);
  const std::string recipe = manual.substr(begin, manual.find("```", begin) - begin);
  EXPECT_NE(recipe.find("sqlite3 DIR/"), std::string::npos);
  for (const Dialect dialect : {Dialect::v0_5, Dialect::v0_4, Dialect::v0_2}) {
    const std::string from = dir + "/of-" + std::string(to_string(dialect)), to = from + "-backup";
    fs::create_directories(from);
    fs::create_directories(to);
    ASSERT_TRUE(DataDir::open(from).value()->use_for(dialect));
    std::ofstream(from + "/agent.key") << "x";
    // The databases take a program that may not be here, and do not name the dialect.
    const std::string script = "set -e\nDIR='" + from + "'\nBACKUP='" + to + "'\nsqlite3() { :; }\n" +
                               std::regex_replace(std::regex_replace(recipe, std::regex("<space>"), "space"),
                                                  std::regex("\\b(DIR|BACKUP)/"), "$$$1/");
    std::ofstream(from + ".sh") << script;
    ASSERT_EQ(std::system(("sh " + from + ".sh").c_str()), 0) << script;
    EXPECT_EQ(dialect_of_folder(to).value(), dialect) << script;
  }
}

TEST_F(FolderDialect, ForeignKeysAreNoData) {
  put("server.key", "");
  EXPECT_EQ(dialect_of_folder(dir).value(), std::nullopt);
  EXPECT_TRUE(use_for(Dialect::v0_5));
}

}  // namespace
}  // namespace kitsune2
