// What the attackers of hostile.py have in common: hostile_attack.cpp (over tx5 and iroh), hostile_quic.cpp (QUIC),
// hostile_flood.cpp (bare sockets) and hostile_udp.cpp (datagrams).
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/agent.hpp"
#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/dialect.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/http.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::hostile {

[[noreturn]] inline void fail(const std::string& why) {
  std::cerr << "hostile_peer: " << why << '\n';
  std::_Exit(2);
}

template <class T>
T need(Result<T> result) {
  if (!result) fail(result.error().to_string());
  return std::move(*result);
}
inline void need(const Result<void>& result) {
  if (!result) fail(result.error().to_string());
}

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The ids of the ops of a victim that has so many.
std::vector<OpId> all_ids(std::size_t count, std::size_t size);

/// What the nodes speak that have this relay's url.
inline Dialect dialect_at(const std::string& relay) {
  return relay.starts_with("http") ? Dialect::v0_5 : Dialect::v0_2;
}

struct Plan {
  std::string kind, relay;
  Url victim;
  SpaceId space;
  std::size_t ops = 0, size = 0, peers = 0;
  /// How many addresses the connections come from, in turn: 127.0.`network`.2, .3 and so on.
  std::size_t addresses = 1, network = 0;

  /// What the victim speaks.
  Dialect dialect() const { return dialect_at(relay); }
  /// "host:port" of the relay, where the bootstrap server is, too.
  std::string place() const {
    const std::string rest = relay.substr(relay.find("//") + 2);
    return rest.substr(0, rest.find('/'));
  }
};

/// What an attacker has done so far.
struct Tally {
  std::uint64_t messages = 0, bytes = 0, failed = 0, closed = 0, received = 0, ids = 0;
};

/// Does one kind of harm until it is destroyed. All calls are made on the strand of its runtime.
class Attack {
 public:
  virtual ~Attack() = default;
  virtual void start() = 0;
  virtual Tally tally() const = 0;
  /// How many of `Plan::peers` are connected by now.
  virtual std::size_t peers() const = 0;
};

/// Attackers that keep the rules of the transport, tx5 or iroh, but for those kinds that say so. Ends the program if it
/// does not know `plan.kind`.
std::unique_ptr<Attack> make_peer_attack(AsioRuntime& runtime, Plan plan);
/// Endpoints that break the rules of QUIC's use. Null for kinds that it does not know.
std::unique_ptr<Attack> make_quic_attack(AsioRuntime& runtime, Plan plan);
/// Clients of the relay's port that need no key: HTTP requests and WebSocket frames. Null for kinds that it does not
/// know.
std::unique_ptr<Attack> make_flood(AsioRuntime& runtime, Plan plan);
/// Datagrams without end to the UDP port at `plan.place()`, from `plan.peers` ports. Null for kinds that it does not
/// know.
std::unique_ptr<Attack> make_udp_flood(const Plan& plan);
/// The same with names that the victim has told: of a connection that is over, or of one that lives, with which there
/// is a direct path. Null for kinds that it does not know.
std::unique_ptr<Attack> make_told_flood(AsioRuntime& runtime, const Plan& plan);

using Datagram = std::vector<std::uint8_t>;
/// Datagrams that are sent again and again; cut by the system at `segment_bytes` (0: not).
struct FloodPart {
  std::vector<Datagram> datagrams;
  std::size_t segment_bytes = 0;
};
/// From `plan.peers` ports to `place` ("1.2.3.4:5"), of each part in turn.
std::unique_ptr<Attack> make_datagram_flood(const Plan& plan, std::string place, std::vector<FloodPart> parts);

/// In dialects in which only known peers are heard, an attacker has itself listed by the bootstrap server, with an
/// agent of its own, again and again as long as it is alive: many attackers push each other out of the list.
class Listing : public std::enable_shared_from_this<Listing> {
 public:
  Listing(AsioRuntime& runtime, HttpClient& http, const Plan& plan, Url url);
  /// Calls `then` once, when the server has answered for the first time.
  void begin(std::function<void()> then);

 private:
  void put();
  AsioRuntime& runtime_;
  HttpClient& http_;
  const Plan& plan_;
  const Url url_;
  std::shared_ptr<LocalAgent> agent_;
  std::function<void()> then_;
};

/// From now on the connections of this program come from so many addresses, in turn: 127.0.`network`.2 and so on.
void come_from(std::size_t count, std::size_t network);
/// From now on this program reads nothing from its sockets, as the attackers of kind "deaf" want it.
void stop_reading();

}  // namespace kitsune2::hostile
