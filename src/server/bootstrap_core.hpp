// The bootstrap server's checks and answers, without sockets and clock.
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
  Counter evicted;  // spaces dropped to make room for others
};

/// An answer, always of type application/json.
struct BootstrapAnswer {
  int status = 200;
  std::string body;
};

/// Agent infos by space, for a few minutes each. See docs/protocol-relay.md,
/// "Bootstrap"; the counterpart in Rust is the crate kitsune2_bootstrap_srv 0.2.2.
///
/// *Rules*.
///  R1  An info is kept only if agent and space are those of the path, created_at is within 3 minutes of now, it has
///      not expired, it is valid for at most 30 minutes, and its signature is right (checked last, because it costs
///      most). The url is not checked. Rationale: agents of later dialects have urls with other schemes and paths,
///      which the reference's server accepts; the reader of the list judges them.
///  R2  BootstrapBook decides what is kept, and what is dropped when it is full.
/// Thread rule: one thread.
class BootstrapCore {
 public:
  static constexpr std::size_t kMaxBodyBytes = 1024;

  explicit BootstrapCore(const BootstrapLimits& limits, const Verifier& verifier = ed25519_verifier())
      : book_(limits), verifier_(verifier) {}

  /// `space`, `agent`: path segments in base64url. `from`: the sender's address. `random`: for choosing what to drop.
  /// 200 "{}"; 400: not base64url; 413: the body is too long; 500 {"error":"…"}: a check failed; 503 {"error":"…"}:
  /// full of what others use, naming the limit.
  BootstrapAnswer put(std::string_view space, std::string_view agent, std::string_view body, Timestamp now,
                      const BootstrapBook::Address& from = {}, std::uint64_t random = 0);
  /// 200: a JSON array of the bodies as they were put, oldest first, without expired ones; 400. `reader`: who asks.
  BootstrapAnswer get(std::string_view space, Timestamp now, const BootstrapBook::Address& reader = {});
  /// Applies from now on. A space with more drops entries as when a newcomer finds it full.
  void set_max_entries_per_space(std::size_t entries);
  /// Drops expired infos.
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
