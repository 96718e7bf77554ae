// The bootstrap server's store and checks: no sockets, no clock.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kitsune2/agent.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"
#include "server/counter.hpp"

namespace kitsune2::server {

struct BootstrapLimits {
  std::size_t max_entries_per_space = 32;
  std::size_t max_spaces = 10'000;
  std::size_t max_bytes = 64U << 20;
};

struct BootstrapCounters {
  Counter puts;     // accepted
  Counter gets;     // answered
  Counter refused;  // answered with an error
  Counter spaces;   // gauge
  Counter entries;  // gauge
};

/// An answer, always of type application/json.
struct BootstrapAnswer {
  int status = 200;
  std::string body;
};

/// Agent infos by space, for a few minutes each. Source: wire 0.2.2 (f); docs/protocol-relay.md.
///
/// *Rules*. R1: an info is kept only if agent and space are those of the path, created_at is within 3 minutes of now,
/// it has not expired, it lives at most 30 minutes, and its signature is right (checked last: it costs most). The url
/// is not looked at. *Rationale*: agents of later dialects have urls of other schemes and paths, as the reference's
/// server takes them; whoever reads the list judges them. R2: of
/// one agent the newest created_at stays; a tombstone removes. An older one is no error. R3: at most
/// `max_entries_per_space`; when full, the one in the middle goes and the new one comes last. *Rationale*: the oldest
/// half stays, so that a flood cannot push everyone out. R4: a tombstone is remembered for as long as an info older
/// than it could still be put. *Rationale*: nobody can bring an agent back by repeating what it once said. R5: at
/// `max_spaces` or `max_bytes` new spaces (new entries) are refused with 503: whoever is here stays.
/// Thread rule: one thread.
class BootstrapCore {
 public:
  static constexpr std::size_t kMaxBodyBytes = 1024;

  explicit BootstrapCore(const BootstrapLimits& limits, const Verifier& verifier = ed25519_verifier())
      : limits_(limits), verifier_(verifier) {}

  /// `space`, `agent`: path segments, base64url. 200 "{}"; 400: they are no base64url; 413: the body is too long;
  /// 500 {"error":"…"}: a check failed; 503: full.
  BootstrapAnswer put(std::string_view space, std::string_view agent, std::string_view body, Timestamp now);
  /// 200: a JSON array of the bodies as they were put, oldest first, without expired ones; 400.
  BootstrapAnswer get(std::string_view space, Timestamp now);
  /// From now on. What is over it in a space goes from the middle, as when a newcomer finds the space full.
  void set_max_entries_per_space(std::size_t entries);
  /// Drops what has expired.
  void prune(Timestamp now);

  const BootstrapCounters& counters() const { return counters_; }
  std::size_t held_bytes() const { return bytes_; }
  /// O(n); tests.
  void check_invariants() const;

 private:
  struct Entry {
    AgentId agent;
    Timestamp created_at;
    Timestamp expires_at;
    std::string body;
  };
  struct Grave {
    AgentId agent;
    Timestamp created_at;
  };
  struct Space {
    std::vector<Entry> entries;
    std::vector<Grave> graves;
  };
  using Spaces = boost::unordered_flat_map<SpaceId, Space, std::hash<SpaceId>>;

  BootstrapAnswer store(const SpaceId& space, const AgentInfo& info, std::string_view body, Timestamp now);
  BootstrapAnswer refuse(int status, std::string_view error);
  void bury(Space& space, const AgentInfo& info);
  void prune_space(Space& space, Timestamp now);
  void make_room(Space& space, std::size_t entries);
  void count();

  BootstrapLimits limits_;
  const Verifier& verifier_;
  Spaces spaces_;
  std::size_t bytes_ = 0;
  std::size_t entries_ = 0;
  BootstrapCounters counters_;
};

}  // namespace kitsune2::server
