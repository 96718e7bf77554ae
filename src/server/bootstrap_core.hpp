// The bootstrap server's store and checks: no sockets, no clock.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kitsune2/agent.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"
#include "server/bootstrap_book.hpp"
#include "server/counter.hpp"

namespace kitsune2::server {

struct BootstrapCounters {
  Counter puts;     // accepted
  Counter gets;     // answered
  Counter refused;  // answered with an error
  Counter spaces;   // gauge
  Counter entries;  // gauge
  Counter evicted;  // spaces that made room for others
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
/// server takes them; whoever reads the list judges them. R2: what is kept, and who goes when it is full:
/// BootstrapBook. Thread rule: one thread.
class BootstrapCore {
 public:
  static constexpr std::size_t kMaxBodyBytes = 1024;

  explicit BootstrapCore(const BootstrapLimits& limits, const Verifier& verifier = ed25519_verifier())
      : book_(limits), verifier_(verifier) {}

  /// `space`, `agent`: path segments, base64url. `from`: who puts it. `random`: for what goes when it is full.
  /// 200 "{}"; 400: they are no base64url; 413: the body is too long; 500 {"error":"…"}: a check failed;
  /// 503 {"error":"…"}: full of what others use, and which limit it is.
  BootstrapAnswer put(std::string_view space, std::string_view agent, std::string_view body, Timestamp now,
                      const BootstrapBook::Address& from = {}, std::uint64_t random = 0);
  /// 200: a JSON array of the bodies as they were put, oldest first, without expired ones; 400. `reader`: who asks.
  BootstrapAnswer get(std::string_view space, Timestamp now, const BootstrapBook::Address& reader = {});
  /// From now on. What is over it in a space goes as when a newcomer finds the space full.
  void set_max_entries_per_space(std::size_t entries);
  /// Drops what has expired.
  void prune(Timestamp now);

  const BootstrapCounters& counters() const { return counters_; }
  std::size_t held_bytes() const { return book_.bytes(); }
  /// O(n); tests.
  void check_invariants() const { book_.check_invariants(); }

 private:
  BootstrapAnswer refuse(int status, std::string_view error);
  void count();

  BootstrapBook book_;
  const Verifier& verifier_;
  BootstrapCounters counters_;
};

}  // namespace kitsune2::server
