// The relay inside a node refuses QUIC address discovery, as the one that runs alone does.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <mutex>
#include <string>
#include <vector>

#include "kitsune2/node.hpp"
#include "server/iroh/quic_refusal.hpp"

namespace kitsune2 {
namespace {

/// The port at which stock nodes ask, of a loopback address that only this process uses.
std::string own_address() {
  const auto pid = static_cast<unsigned>(::getpid());
  return "127." + std::to_string(100 + (pid >> 16) % 100) + '.' + std::to_string((pid >> 8) & 255) + '.' +
         std::to_string(1 + (pid & 255) % 254) + ":7842";
}

/// The answer to the first packet of a stock node's connection; empty: none came.
std::vector<std::uint8_t> ask(const std::string& address) {
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const timeval patience{60, 0};  // of broken code
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(7842);
  ::inet_pton(AF_INET, address.substr(0, address.rfind(':')).c_str(), &to.sin_addr);
  std::vector<std::uint8_t> first(1200, 0);
  first[0] = 0xc3;
  first[4] = 1;  // the version; ids have no bytes
  std::vector<std::uint8_t> answer(100);
  ssize_t size = -1;
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0 &&
      ::send(fd, first.data(), first.size(), 0) == static_cast<ssize_t>(first.size())) {
    size = ::recv(fd, answer.data(), answer.size(), 0);
  }
  ::close(fd);
  answer.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
  return answer;
}

/// Keeps the warnings of a node.
struct Warnings {
  LogOptions options() {
    return {[this](const LogLine& line) {
              const std::lock_guard lock(mutex);
              lines.emplace_back(line.text);
            },
            LogLevel::warn};
  }
  std::vector<std::string> all() {
    const std::lock_guard lock(mutex);
    return lines;
  }
  std::mutex mutex;
  std::vector<std::string> lines;
};

TEST(AddressDiscovery, TheRelayInsideANodeRefusesAtOnce) {
  const std::string address = own_address();
  Warnings warnings;
  auto node = Node::start({.listen = "127.0.0.1:0", .quic_listen = address, .log = warnings.options()});
  ASSERT_TRUE(node) << node.error().to_string();
  const auto answer = ask(address);
  ASSERT_EQ(answer.size(), 11U) << "a Version Negotiation packet";
  EXPECT_EQ(std::vector(answer.begin() + 1, answer.begin() + 5), std::vector<std::uint8_t>(4, 0));
  EXPECT_TRUE(warnings.all().empty());
  // A second one beside it starts all the same, and says what that costs.
  auto second = Node::start({.listen = "127.0.0.1:0", .quic_listen = address, .log = warnings.options()});
  ASSERT_TRUE(second) << second.error().to_string();
  const auto lines = warnings.all();
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_NE(lines[0].find(address), std::string::npos) << lines[0];
  EXPECT_NE(lines[0].find("start 3 s later"), std::string::npos) << lines[0];
  // When the first one has gone, so has its socket.
  (*node)->stop();
  (*second)->stop();
  auto third = Node::start({.listen = "127.0.0.1:0", .quic_listen = address, .log = warnings.options()});
  ASSERT_TRUE(third) << third.error().to_string();
  EXPECT_EQ(warnings.all().size(), 1U);
  (*third)->stop();
}

TEST(AddressDiscovery, AWrongAddressIsAnErrorThatNamesTheOption) {
  const auto node = Node::start({.listen = "127.0.0.1:0", .quic_listen = "nowhere"});
  ASSERT_FALSE(node);
  EXPECT_EQ(node.error().code, Errc::invalid_argument);
  EXPECT_TRUE(node.error().message.starts_with("quic_listen: ")) << node.error().message;
}

TEST(AddressDiscovery, ItIsAskedAtTheAddressesThatOthersReach) {
  using server::discovery_addresses;
  using List = std::vector<std::string>;
  EXPECT_EQ(discovery_addresses({"127.0.0.1:0", "[::1]:443", "example.org:443"}), List{});
  EXPECT_EQ(discovery_addresses({"192.168.1.5:4433", "192.168.1.5:80", "[2001:db8::1]:443"}),
            (List{"192.168.1.5:7842", "[2001:db8::1]:7842"}));
  EXPECT_EQ(discovery_addresses({"0.0.0.0:443", "[::]:443"}), (List{"0.0.0.0:7842", "[::]:7842"}));
}

}  // namespace
}  // namespace kitsune2
