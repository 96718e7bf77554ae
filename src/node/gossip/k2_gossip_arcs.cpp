// The gossip module's part in storage arcs, and what it says of its state.
#include <algorithm>
#include <utility>

#include "node/gossip/k2_gossip.hpp"

namespace kitsune2 {
namespace {

/// Peers of which it is kept what is in sync with them.
constexpr std::size_t kMostInSyncWith = 4'096;

SectorSet sectors_of(const DhtArc& arc) {
  SectorSet out;
  out.add(arc);
  return out;
}

}  // namespace

void K2Gossip::on_in_sync(const Url& peer, const SectorSet& sectors) {
  if (sectors.empty()) return;
  if (in_sync_with_.size() >= kMostInSyncWith && !in_sync_with_.contains(peer)) in_sync_with_.clear();
  in_sync_with_[peer] = {runtime().wall_now(), sectors.count()};
  growth_.in_sync(sectors);
  grow();
}

void K2Gossip::grow() {
  const auto locals = context_.local_agent_store->get_all();
  std::vector<gossip::ArcGrowth::Agent> agents;
  agents.reserve(locals.size());
  const SectorSet wanted = our_side().sectors;
  if (is_growing(wanted) && is_alone()) growth_.in_sync(wanted);
  for (const auto& agent : locals)
    agents.push_back({agent->agent(), agent->cur_storage_arc(), agent->tgt_storage_arc()});
  for (const auto& step : growth_.update(agents, runtime().now())) {
    const auto it = std::find_if(locals.begin(), locals.end(), [&](const auto& a) { return a->agent() == step.id; });
    // The space signs its info anew.
    (*it)->set_cur_storage_arc(step.arc);
  }
}

bool K2Gossip::is_alone() const {
  const auto listed = context_.bootstrap->status().listed;
  if (!listed || !listed->has_own || listed->others > 0) return false;
  const auto all = context_.peer_store->get_all();
  return std::all_of(all.begin(), all.end(),
                     [&](const auto& info) { return context_.local_agent_store->contains(info->info().agent); });
}

bool K2Gossip::is_growing(const SectorSet& common) const {
  const auto locals = context_.local_agent_store->get_all();
  return std::any_of(locals.begin(), locals.end(), [&](const auto& agent) {
    if (agent->cur_storage_arc() == agent->tgt_storage_arc()) return false;
    return !sectors_of(agent->tgt_storage_arc()).common(common).is_within(sectors_of(agent->cur_storage_arc()));
  });
}

// ---------------------------------------------------------------- what it says

GossipCoverage K2Gossip::coverage() const {
  assert_on_strand(runtime(), "Gossip::coverage");
  SectorSet target, storage;
  for (const auto& agent : context_.local_agent_store->get_all()) {
    target.add(agent->tgt_storage_arc());
    storage.add(agent->cur_storage_arc());
  }
  return {target.count(), storage.count(), growth_.held().common(target).count()};
}

GossipStateSummary K2Gossip::state_summary(const GossipStateSummaryRequest& request) {
  assert_on_strand(runtime(), "Gossip::state_summary");
  GossipStateSummary out;
  if (stopped_) return out;
  const Time now = runtime().now();
  rounds_.for_each([&](const gossip::Round& round) {
    (round.is_ours ? out.initiated_rounds : out.accepted_rounds).push_back({round.peer, now - round.begun});
  });
  out.coverage = coverage();
  const auto* model = dht_->model();
  if (model != nullptr) out.local_op_count = model->op_count();
  const auto locals = context_.local_agent_store->get_all();
  for (const auto& agent : locals) {
    const DhtArc arc = agent->tgt_storage_arc();
    const bool is_there = std::any_of(out.dht_summary.begin(), out.dht_summary.end(),
                                      [&](const auto& entry) { return entry.first == arc; });
    if (!request.include_dht_summary || model == nullptr || arc.empty() || is_there) continue;
    const auto sums = model->minimal(sectors_of(arc));
    DhtSegmentState segment{Bytes::copy_of(as_text(sums.disc_top_hash.view())), sums.disc_boundary, {}};
    for (const auto& hash : sums.ring_top_hashes)
      segment.ring_top_hashes.push_back(Bytes::copy_of(as_text(hash.view())));
    out.dht_summary.emplace_back(arc, std::move(segment));
  }
  for (const auto& info : context_.peer_store->get_all()) {
    const auto& url = info->info().url;
    if (!url || context_.local_agent_store->contains(info->info().agent)) continue;
    const auto [it, is_new] = out.peer_meta.try_emplace(*url);
    auto& peer = it->second;
    const DhtArc& arc = info->info().storage_arc;
    if (peer.storage_arc.empty() || (!arc.empty() && arc.span() > peer.storage_arc.span())) peer.storage_arc = arc;
    if (!is_new) continue;
    peer.last_gossip_timestamp = meta_.last_gossip(*url);
    peer.new_ops_bookmark = meta_.bookmark_time(*url);
    peer.peer_behavior_errors = meta_.counted(*url, GossipPeerMeta::kBehaviorErrors);
    peer.local_errors = meta_.counted(*url, GossipPeerMeta::kLocalErrors);
    peer.peer_busy = meta_.counted(*url, GossipPeerMeta::kBusy);
    peer.peer_terminated = meta_.counted(*url, GossipPeerMeta::kTerminated);
    peer.completed_rounds = meta_.counted(*url, GossipPeerMeta::kCompletedRounds);
    peer.peer_timeouts = meta_.counted(*url, GossipPeerMeta::kTimeouts);
    const auto found = in_sync_with_.find(*url);
    if (found == in_sync_with_.end()) continue;
    peer.in_sync_at = found->second.at;
    peer.in_sync_sectors = found->second.sectors;
  }
  return out;
}

}  // namespace kitsune2
