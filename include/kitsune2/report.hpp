// Report of activity: counters per space and peer, for the application and for Prometheus.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kitsune2/ids.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

struct PeerReport {
  std::uint64_t ops_fetched = 0, bytes_fetched = 0;
  std::uint64_t ops_served = 0, bytes_served = 0;
  std::uint64_t failures = 0;
};

struct SpaceReport {
  PeerReport total;
  std::map<Url, PeerReport> peers;  ///< bounded: the least recently active are dropped; `total` keeps their figures
};

/// Receives the figures of the modules. Strand only. Rust: `Report`.
class Report {
 public:
  virtual ~Report() = default;
  virtual void fetched(const SpaceId& space, const Url& peer, std::uint64_t ops, std::uint64_t bytes) = 0;
  virtual void served(const SpaceId& space, const Url& peer, std::uint64_t ops, std::uint64_t bytes) = 0;
  virtual void failed(const SpaceId& space, const Url& peer) = 0;
  virtual std::vector<std::pair<SpaceId, SpaceReport>> snapshot() const = 0;
};

}  // namespace kitsune2
