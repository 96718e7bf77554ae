// Local agents: keys from seeds and files, and the callback on a new arc.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "kitsune2/agent.hpp"
#include "support.hpp"
#include "vectors.hpp"
#include "wire/key_file.hpp"

namespace kitsune2 {
namespace {

namespace fs = std::filesystem;
using wire::test::from_hex;

std::string code_of(const Result<std::shared_ptr<Ed25519LocalAgent>>& result) {
  return result ? "ok" : std::string(to_string(result.error().code));
}

TEST(LocalAgent, FromSeed) {
  const auto agent = Ed25519LocalAgent::from_seed(from_hex(wire::vectors::kAgentSeed));
  ASSERT_TRUE(agent);
  EXPECT_EQ((*agent)->agent().to_string(), wire::vectors::kAgentId);
  EXPECT_EQ(code_of(Ed25519LocalAgent::from_seed(from_hex("00"))), "invalid_argument");
  EXPECT_EQ(code_of(Ed25519LocalAgent::from_seed({})), "invalid_argument");
  EXPECT_EQ(code_of(Ed25519LocalAgent::from_seed(std::vector<std::uint8_t>(33))), "invalid_argument");
}

TEST(LocalAgent, GeneratedKeysDifferAndVerify) {
  const auto a = Ed25519LocalAgent::generate();
  const auto b = Ed25519LocalAgent::generate();
  EXPECT_NE(a->agent(), b->agent());
  EXPECT_EQ(a->agent().size(), 32U);
  AgentInfo info;
  info.agent = a->agent();
  const Bytes signature = *a->sign(info, as_bytes("message"));
  EXPECT_TRUE(ed25519_verifier().verify(info, as_bytes("message"), signature));
  EXPECT_FALSE(ed25519_verifier().verify(info, as_bytes("massage"), signature));
  EXPECT_FALSE(ed25519_verifier().verify(info, as_bytes("message"), signature.slice(0, 63)));
  info.agent = b->agent();
  EXPECT_FALSE(ed25519_verifier().verify(info, as_bytes("message"), signature));
  info.agent = AgentId();
  EXPECT_FALSE(ed25519_verifier().verify(info, as_bytes("message"), signature));
}

TEST(LocalAgent, TellsOfANewCurrentArcOnly) {
  const auto agent = Ed25519LocalAgent::generate();
  agent->set_cur_storage_arc(DhtArc::full());  // nobody listens, which is allowed
  int first = 0;
  int second = 0;
  agent->on_changed([&] { ++first; });
  agent->set_cur_storage_arc(DhtArc::full());
  agent->set_tgt_storage_arc(DhtArc(1, 2));
  EXPECT_EQ(first, 0);
  agent->set_cur_storage_arc(DhtArc(1, 2));
  EXPECT_EQ(first, 1);
  agent->on_changed([&] { ++second; });
  agent->set_cur_storage_arc(DhtArc::none());
  EXPECT_EQ(first, 1);
  EXPECT_EQ(second, 1);
  EXPECT_EQ(agent->cur_storage_arc(), DhtArc::none());
  EXPECT_EQ(agent->tgt_storage_arc(), DhtArc(1, 2));
}

class KeyFile : public testing::Test {
 protected:
  KeyFile() {
    std::string pattern = (fs::temp_directory_path() / "k2-key-XXXXXX").string();
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    path_ = (folder_ / "agent.key").string();
  }
  ~KeyFile() override { fs::remove_all(folder_); }

  std::string content() const {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write(const std::string& text, mode_t mode = 0600) const {
    fs::remove(path_);
    std::ofstream(path_, std::ios::binary) << text;
    ::chmod(path_.c_str(), mode);
  }

  fs::path folder_;
  std::string path_;
};

TEST_F(KeyFile, IsMadeOnceAndReadAgain) {
  const auto made = Ed25519LocalAgent::load_or_create(path_);
  ASSERT_TRUE(made) << made.error().to_string();
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0600U);
  EXPECT_EQ(status.st_nlink, 1U);
  EXPECT_TRUE(content().starts_with("k2-ed25519-v1 "));
  EXPECT_TRUE(content().ends_with((*made)->agent().to_string() + "\n"));
  const std::string before = content();
  const auto seed = load_or_create_seed(path_);
  ASSERT_TRUE(seed);
  EXPECT_EQ(Ed25519LocalAgent::from_seed(ByteView(*seed)).value()->agent(), (*made)->agent());
  const auto read = Ed25519LocalAgent::load_or_create(path_);
  ASSERT_TRUE(read);
  EXPECT_EQ((*read)->agent(), (*made)->agent());
  EXPECT_EQ(*(*read)->sign({}, as_bytes("x")), *(*made)->sign({}, as_bytes("x")));
  EXPECT_EQ(content(), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator{}), 1) << "no temporary file is left";
}

/// The mode does not depend on the umask.
TEST_F(KeyFile, Umask) {
  const mode_t old = ::umask(0777);
  const auto made = Ed25519LocalAgent::load_or_create(path_);
  ::umask(old);
  ASSERT_TRUE(made) << made.error().to_string();
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0600U);
}

TEST_F(KeyFile, MustBePrivate) {
  ASSERT_TRUE(Ed25519LocalAgent::load_or_create(path_));
  for (const mode_t mode : {0640U, 0604U, 0620U, 0602U, 0610U, 0644U, 0777U}) {
    ::chmod(path_.c_str(), mode);
    const auto result = Ed25519LocalAgent::load_or_create(path_);
    EXPECT_EQ(code_of(result), "invalid_argument") << mode;
    EXPECT_NE(result.error().message.find(path_), std::string::npos);
  }
  ::chmod(path_.c_str(), 0400);
  EXPECT_EQ(code_of(Ed25519LocalAgent::load_or_create(path_)), "ok");
}

TEST_F(KeyFile, DamageIsSeenAndTheFileIsLeftAlone) {
  ASSERT_TRUE(Ed25519LocalAgent::load_or_create(path_));
  const std::string good = content();
  std::vector<std::string> bad{"",
                               "\n",
                               good.substr(0, good.size() - 1),
                               good + "\n",
                               good + good,
                               std::string(102, 'x'),
                               std::string(100'000, 'x')};
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string changed = good;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    bad.push_back(changed);
  }
  for (const std::string& text : bad) {
    write(text);
    EXPECT_EQ(code_of(Ed25519LocalAgent::load_or_create(path_)), "corrupt") << text;
    EXPECT_EQ(content(), text);
  }
}

TEST_F(KeyFile, PathsThatAreNoFile) {
  EXPECT_EQ(code_of(Ed25519LocalAgent::load_or_create(folder_.string())), "io");
  EXPECT_EQ(code_of(Ed25519LocalAgent::load_or_create((folder_ / "none" / "key").string())), "io");
  fs::create_symlink(folder_ / "elsewhere", path_);
  EXPECT_EQ(code_of(Ed25519LocalAgent::load_or_create(path_)), "io") << "a symbolic link is not followed";
  EXPECT_FALSE(fs::exists(folder_ / "elsewhere"));
  ASSERT_TRUE(Ed25519LocalAgent::load_or_create((folder_ / "elsewhere").string()));
  EXPECT_EQ(code_of(Ed25519LocalAgent::load_or_create(path_)), "io") << "not even to a good key";
  fs::remove(path_);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(code_of(Ed25519LocalAgent::load_or_create(path_)), "io") << "and a pipe does not block";
}

/// Programs that start together end up with one key.
TEST_F(KeyFile, ManyStartAtOnce) {
  for (int round = 0; round < 20; ++round) {
    fs::remove(path_);
    std::vector<std::string> ids(8);
    std::vector<std::thread> threads;
    for (std::string& id : ids) {
      threads.emplace_back([this, &id] {
        const auto agent = Ed25519LocalAgent::load_or_create(path_);
        id = agent ? (*agent)->agent().to_string() : agent.error().to_string();
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 1U) << ids[0];
    EXPECT_EQ(ids[0].size(), 43U) << ids[0];
  }
}

}  // namespace
}  // namespace kitsune2
