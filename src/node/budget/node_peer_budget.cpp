// The budget of one node.
#include "node/budget/node_peer_budget.hpp"

#include <utility>

namespace kitsune2 {
namespace {

class NoPeerBudget final : public PeerBudget {
 public:
  PeerStanding charge(const Url& /*peer*/, PeerWork /*work*/) override { return PeerStanding::good; }
  void useful(const Url& /*peer*/, std::uint64_t /*ops*/, std::uint64_t /*bytes*/, PeerWork /*work*/) override {}
  std::optional<Time> waits_until(const Url& /*peer*/) const override { return std::nullopt; }
  bool is_known(const Url& /*peer*/) const override { return false; }
  std::uint64_t usefulness(const Url& /*peer*/) const override { return 0; }
  std::optional<AddressGroup> address_group(const Url& /*peer*/) const override { return std::nullopt; }
  PeerBudgetStats stats() const override { return {}; }
};

}  // namespace

std::shared_ptr<PeerBudget> make_no_peer_budget() { return std::make_shared<NoPeerBudget>(); }

NodePeerBudget::NodePeerBudget(Runtime& runtime, const PeerBudgetConfig& config, Node node)
    : runtime_(runtime), node_(std::move(node)), core_(PeerBudgetCore::limits_of(config)) {}

PeerStanding NodePeerBudget::charge(const Url& peer, PeerWork work) {
  assert_on_strand(runtime_, "PeerBudget::charge");
  const Time now = runtime_.now();
  if (!admits(peer)) return PeerStanding::over;  // its connection is being closed
  const auto group = address_group(peer);
  const PeerStanding out = core_.charge(peer, group, {work.micros() - work.penalty(), work.penalty()}, now);
  if (out == PeerStanding::good) return out;
  ++stats_.waits;
  if (out == PeerStanding::waits) return out;
  ++stats_.put_aside;
  core_.put_aside(peer, node_.agents_at(peer), group, now);
  if (aside_gate_.open(now)) {
    log::info("budget", peer.to_string() +
                            " is put aside: it causes more work than its budget allows, and does not stop" +
                            aside_gate_.left_out());
  }
  node_.disconnect(peer, "over its budget of work");
  return out;
}

void NodePeerBudget::useful(const Url& peer, std::uint64_t ops, std::uint64_t bytes, PeerWork work) {
  assert_on_strand(runtime_, "PeerBudget::useful");
  if (!admits(peer)) return;
  core_.useful(peer, address_group(peer), work.micros(), ops + bytes / 1024, runtime_.now());
}

std::optional<Time> NodePeerBudget::waits_until(const Url& peer) const {
  assert_on_strand(runtime_, "PeerBudget::waits_until");
  return core_.waits_until(peer, address_group(peer), runtime_.now());
}

std::optional<AddressGroup> NodePeerBudget::address_group(const Url& peer) const {
  if (!node_.address_group) return std::nullopt;
  const auto connected = groups_.find(peer);
  if (connected == groups_.end()) return node_.address_group(peer);
  if (!connected->second) connected->second = node_.address_group(peer);
  return connected->second;
}

void NodePeerBudget::on_connect(const Url& peer) {
  groups_.try_emplace(peer);
  core_.on_connect(peer, node_.agents_at(peer));
}

void NodePeerBudget::on_disconnect(const Url& peer) {
  groups_.erase(peer);
  core_.on_disconnect(peer, node_.agents_at(peer));
}

PeerBudgetStats NodePeerBudget::stats() const {
  assert_on_strand(runtime_, "PeerBudget::stats");
  PeerBudgetStats out = stats_;
  out.accounts = core_.accounts();
  out.known = core_.known();
  out.aside = core_.aside(runtime_.now());
  return out;
}

bool NodePeerBudget::admits(const Url& peer) const {
  const Time now = runtime_.now();
  return !core_.has_aside(now) || !core_.is_aside(peer, {}, std::nullopt, now);
}

bool NodePeerBudget::admits_connection(const Url& peer) {
  const Time now = runtime_.now();
  if (!core_.has_aside(now) || !core_.is_aside(peer, node_.agents_at(peer), address_group(peer), now)) return true;
  ++stats_.refused;
  return false;
}

}  // namespace kitsune2
