// Clients of a relay of dialect 0.5 that do harm, beside an honest pair that goes on.
// usage: hostile_endpoint HOST:PORT ATTACK ADDRESSES CLIENTS ROUNDS
// ATTACK: deaf, pings, greedy, absent, unproven, slow, unfinished, or crowd, in which a quarter each is deaf, greedy,
// slow and unfinished. ADDRESSES, CLIENTS: how many the attackers have. Attacks until stdin says that the relay has
// seen the attack. Ends with 0 when the honest pair has then made ROUNDS more round trips while the attack went on.
#include <poll.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "support/endpoint_client.hpp"

namespace kitsune2 {
namespace {

using Client = test::EndpointClient;
using Loop = test::ClientLoop;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kComeAtOnce = 64;
constexpr std::size_t kLarge = 60'000;
constexpr std::size_t kNumber = 1'000'000;  // of the first attacker's key

std::vector<std::uint8_t> datagram(const iroh::EndpointId& to, std::size_t size, std::uint8_t fill) {
  std::vector<std::uint8_t> out(34 + size, fill);
  out[0] = 4;
  std::copy(to.begin(), to.end(), out.begin() + 1);
  out[33] = 0;
  return out;
}

/// Attacks until `stop`. Counts what it did in `acts`.
class Attack {
 public:
  Attack(const sockaddr_in& server, std::string kind, std::uint32_t addresses, std::size_t clients,
         const iroh::EndpointId& victim)
      : server_(server), kind_(std::move(kind)), addresses_(addresses), victim_(victim), clients_(clients) {}

  void run(const std::atomic<bool>& stop, std::atomic<std::size_t>& acts) {
    while (!stop) {
      // A turn takes the longer the more there are; a crowd must not come so slowly that those who came first have been
      // cut off when the last come.
      std::size_t coming = 0;
      const std::size_t most = std::max(kComeAtOnce, clients_.size() / 32);
      for (std::size_t i = 0; i < clients_.size(); ++i) {
        const bool is_gone = !clients_[i].client || !clients_[i].client->ended().empty();
        if (is_gone && coming < most) come(i), ++coming;
        if (clients_[i].client && act(i)) ++acts;
      }
      loop_.turn(1, [&](Client& client) {
        if (!is_deaf(client)) client.receive([](const std::uint8_t*, std::size_t) {});
      });
    }
  }

 private:
  struct Attacker {
    std::unique_ptr<Client> client;
    bool has_begun = false;  ///< `unfinished`: a message
  };

  /// What the attacker at place `i` does. Of `deaf`, those at even places send to the next.
  std::string_view kind_of(std::size_t i) const {
    if (kind_ != "crowd") return kind_;
    constexpr std::string_view kKinds[] = {"deaf",       "deaf",   "greedy", "slow",
                                           "unfinished", "greedy", "slow",   "unfinished"};
    return kKinds[i % 8];
  }

  /// Those at odd places of `deaf`, once they are in; all of `pings`.
  bool is_deaf(const Client& client) const {
    if (!client.ready()) return kind_ == "unproven";
    if (kind_ == "pings") return true;
    if (kind_ != "deaf" && kind_ != "crowd") return false;
    const std::size_t i = client.number() % clients_.size();
    return i % 2 != 0 && kind_of(i) == "deaf";
  }

  void come(std::size_t i) {
    // Its place follows from its number.
    const auto number = static_cast<std::uint32_t>((kNumber / clients_.size() + ++next_) * clients_.size() + i);
    const std::uint32_t from = 0x7f000002U + static_cast<std::uint32_t>(i) % addresses_;
    clients_[i] = {std::make_unique<Client>(number, server_, from, 4096)};
    loop_.add(*clients_[i].client);
  }

  bool act(std::size_t i) {
    Client& client = *clients_[i].client;
    const std::string_view kind = kind_of(i);
    client.flush();
    if (kind == "unproven") return true;  // it is there
    if (!client.ready() || client.queued() > 0) return false;
    if (kind == "slow") {
      client.drip();
      return true;
    }
    if (kind == "unfinished") {
      if (std::exchange(clients_[i].has_begun, true)) return false;
      client.begin(kLarge, kLarge - 1);
      return true;
    }
    if (kind == "deaf") {
      if (i % 2 != 0 || i + 1 >= clients_.size() || !clients_[i + 1].client) return false;
      return send(client, datagram(clients_[i + 1].client->id(), kLarge, 1));
    }
    if (kind == "pings") {
      const std::uint8_t ping[9] = {9, 1, 2, 3, 4, 5, 6, 7, 8};
      for (int k = 0; k < 32; ++k) client.send(ping, sizeof ping);
      return true;
    }
    if (kind == "greedy") return send(client, datagram(victim_, kLarge, 2));
    iroh::EndpointId nobody{};  // absent
    const std::uint64_t n = ++next_absent_;
    std::memcpy(nobody.data(), &n, sizeof n);
    return send(client, datagram(nobody, 1200, 3));
  }

  static bool send(Client& client, const std::vector<std::uint8_t>& frame) {
    client.send(frame.data(), frame.size());
    return true;
  }

  const sockaddr_in server_;
  const std::string kind_;
  const std::uint32_t addresses_;
  const iroh::EndpointId victim_;
  Loop loop_;
  std::vector<Attacker> clients_;
  std::size_t next_ = 0;
  std::uint64_t next_absent_ = 0;
};

/// Two clients that send each other one datagram in turn. One that does not come back is sent again, as QUIC would.
class HonestPair {
 public:
  explicit HonestPair(const sockaddr_in& server) : a_(1, server, 0x7f000001U), b_(2, server, 0x7f000001U) {
    loop_.add(a_);
    loop_.add(b_);
    while (!a_.ready() || !b_.ready()) turn();
  }
  const iroh::EndpointId& id() const { return b_.id(); }

  void round_trip() {
    const auto number = ++number_;
    auto there = datagram(b_.id(), 1200, 0);
    std::memcpy(there.data() + 34, &number, sizeof number);
    auto sent = Clock::time_point();
    while (back_ != number) {
      if (Clock::now() - sent >= std::chrono::milliseconds(300)) {
        a_.send(there.data(), there.size());
        sent = Clock::now();
      }
      turn();
    }
  }

 private:
  void turn() {
    loop_.turn(50, [&](Client& client) {
      client.receive([&](const std::uint8_t* content, std::size_t size) {
        if (size != 1200) return;  // an attacker's
        std::uint64_t number = 0;
        std::memcpy(&number, content, sizeof number);
        if (&client == &a_) {
          back_ = number;
          return;
        }
        auto answer = datagram(a_.id(), 1200, 0);
        std::memcpy(answer.data() + 34, &number, sizeof number);
        b_.send(answer.data(), answer.size());
      });
      if (!client.ended().empty()) test::fail("an honest client is closed: " + client.ended());
    });
  }

  Client a_, b_;
  Loop loop_;
  std::uint64_t number_ = 0, back_ = 0;
};

}  // namespace
}  // namespace kitsune2

int main(int argc, char** argv) {
  using namespace kitsune2;
  if (argc != 6) return 2;
  const sockaddr_in server = test::address_of(argv[1]);
  HonestPair pair(server);
  pair.round_trip();
  std::atomic<bool> stop{false};
  std::atomic<std::size_t> acts{0};
  Attack attack(server, argv[2], static_cast<std::uint32_t>(std::stoul(argv[3])), std::stoul(argv[4]), pair.id());
  std::thread attackers([&] { attack.run(stop, acts); });
  pollfd told{.fd = 0, .events = POLLIN, .revents = 0};
  while (::poll(&told, 1, 0) == 0) pair.round_trip();
  const std::size_t rounds = std::stoul(argv[5]);
  for (std::size_t i = 0; i < rounds; ++i) pair.round_trip();
  stop = true;
  attackers.join();
  std::printf("%s, %s clients: %zu round trips during %zu acts\n", argv[2], argv[4], rounds, acts.load());
  return 0;
}
