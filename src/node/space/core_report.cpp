// Counts by space and peer what was fetched, what was served and what failed.
#include <list>
#include <unordered_map>
#include <utility>

#include "kitsune2/builder.hpp"

namespace kitsune2 {
namespace {

class CoreReport final : public Report {
 public:
  explicit CoreReport(std::size_t max_peers) : max_peers_(max_peers) {}

  void fetched(const SpaceId& space, const Url& peer, std::uint64_t ops, std::uint64_t bytes) override {
    count(space, peer, [&](PeerReport& r) { r.ops_fetched += ops, r.bytes_fetched += bytes; });
  }
  void served(const SpaceId& space, const Url& peer, std::uint64_t ops, std::uint64_t bytes) override {
    count(space, peer, [&](PeerReport& r) { r.ops_served += ops, r.bytes_served += bytes; });
  }
  void failed(const SpaceId& space, const Url& peer) override {
    count(space, peer, [](PeerReport& r) { r.failures += 1; });
  }

  std::vector<std::pair<SpaceId, SpaceReport>> snapshot() const override {
    std::vector<std::pair<SpaceId, SpaceReport>> out;
    for (const auto& [id, space] : spaces_) {
      auto& [space_id, report] = out.emplace_back(id, SpaceReport{});
      report.total = space.total;
      for (const auto& [url, figures] : space.peers) report.peers.emplace(url, figures);
    }
    return out;
  }

 private:
  using Peers = std::list<std::pair<Url, PeerReport>>;
  struct Space {
    PeerReport total;
    Peers peers;  ///< the most recently active first
    std::unordered_map<Url, Peers::iterator> index;
  };

  template <class F>
  void count(const SpaceId& id, const Url& peer, F add) {
    Space& space = spaces_[id];
    add(space.total);
    const auto known = space.index.find(peer);
    if (known != space.index.end()) {
      space.peers.splice(space.peers.begin(), space.peers, known->second);
    } else {
      if (max_peers_ == 0) return;
      if (space.peers.size() >= max_peers_) {
        space.index.erase(space.peers.back().first);
        space.peers.pop_back();
      }
      space.peers.emplace_front(peer, PeerReport{});
      space.index.emplace(peer, space.peers.begin());
    }
    add(space.peers.front().second);
  }

  const std::size_t max_peers_;
  std::map<SpaceId, Space> spaces_;
};

}  // namespace

std::shared_ptr<Report> make_core_report(std::size_t max_peers) { return std::make_shared<CoreReport>(max_peers); }

}  // namespace kitsune2
