// The gossip module's part in comparing what two nodes hold: snapshots in, snapshots and ids out.
#include <algorithm>
#include <utility>

#include "core/milliseconds.hpp"
#include "node/gossip/k2_gossip.hpp"
#include "node/gossip/snapshots.hpp"

namespace kitsune2 {
namespace {

/// G6: with so much to be fetched, a comparison would name most of it once more.
constexpr std::uint64_t kMuchPending = 1'000;
/// G5: peers whose ids are waited for, and how long.
constexpr std::size_t kMostWaitedFor = 64;
constexpr Duration kWaitedForIds = std::chrono::minutes(2);
/// What a listing is charged at most: it may have waited for others.
constexpr Duration kMostListingCharged = std::chrono::milliseconds(50);
/// Hashes of a snapshot that are compared in a microsecond.
constexpr std::size_t kHashesInALookUp = 4;
/// What a hash takes in a message.
constexpr std::size_t kBytesOfAHash = 40;

std::size_t count_hashes(const dht::DiscSectorDetailsSnapshot& snapshot) {
  std::size_t out = 0;
  for (const auto& [sector, slices] : snapshot.sectors) out += slices.size();
  return out;
}

}  // namespace

template <class Snapshot>
bool K2Gossip::take_snapshot(const Url& peer, const Result<Snapshot>& snapshot, std::size_t hashes) {
  charge(peer, PeerWork().look_ups(hashes / kHashesInALookUp));
  if (!snapshot) peer_error(peer, "a snapshot that is none");
  return snapshot.has_value();
}

void K2Gossip::charge_shown(const Url& peer, std::size_t hashes) {
  charge(peer, PeerWork().look_ups(hashes / kHashesInALookUp).bytes(hashes * kBytesOfAHash));
}

bool K2Gossip::may_compare(const Url& peer, bool was_named_all) {
  const Time now = runtime().now();
  const Duration interval = std::chrono::milliseconds(config().min_initiate_interval_ms);
  if (compared_at_.size() >= kMostCompared) {
    std::erase_if(compared_at_, [&](const auto& entry) { return now >= entry.second + interval; });
    if (compared_at_.size() >= kMostCompared) compared_at_.clear();
  }
  const auto it = compared_at_.find(peer);
  const bool lately = it != compared_at_.end() && now < it->second + interval;
  if (!was_named_all && lately && context_.fetch->pending_ops() > kMuchPending) return false;
  compared_at_[peer] = now;
  return !was_named_all;
}

// ---------------------------------------------------------------- as acceptor

void K2Gossip::on(const Url& peer, const wire::GossipDiscSectorsDiff& m) {
  auto snapshot = from_wire(m.snapshot);
  if (!take_snapshot(peer, snapshot, m.snapshot.disc_sectors.size())) return;
  const auto& answer = m.accept_response;
  auto action = rounds_.on(peer, gossip::DiscSectorsSaid{m.session_id, answer.missing_agents, std::move(*snapshot)},
                           dht_->model(), random_u32());
  auto* show = std::get_if<gossip::ShowDisc>(&action);
  if (show == nullptr) {
    if (auto* end = std::get_if<gossip::Finish>(&action)) return finish(peer, *end, answer, false);
    return peer_error(peer, std::get<gossip::Fault>(action).what);
  }
  stats_.discs_compared += 1;
  auto& round = *rounds_.find(peer, m.session_id);
  take_agents(peer, answer.provided_agents, round.infos_asked);
  on_compared(peer);
  take_ops(peer, answer.new_ops, {show->asked_since, answer.updated_new_since, round.common, true}, false,
           round.bookmark_holds);
  mark(round, answer.new_ops);
  auto infos = infos_of(answer.missing_agents);
  stats_.agents_given += infos.size();
  charge_shown(peer, count_hashes(show->snapshot));
  send(peer, wire::GossipDiscSectorDetailsDiff{m.session_id, std::move(infos), to_wire(show->snapshot)},
       [weak = weak_from_this(), peer, session = m.session_id.compact()](const Result<void>& sent) {
         if (auto self = weak.lock(); self && !sent) self->on_send_failed(peer, session);
       });
}

void K2Gossip::on(const Url& peer, const wire::GossipRingSectorDetailsDiff& m) {
  std::size_t hashes = 0;
  for (const auto& ring : m.snapshot.ring_sector_hashes) hashes += ring.hashes.size();
  auto snapshot = from_wire(m.snapshot);
  if (!take_snapshot(peer, snapshot, hashes)) return;
  const auto& answer = m.accept_response;
  auto action = rounds_.on(
      peer, gossip::RingDetailsSaid{m.session_id, answer.missing_agents, std::move(*snapshot), m.disc_differs},
      dht_->model());
  auto* name = std::get_if<gossip::NameIds>(&action);
  if (name == nullptr) {
    if (auto* end = std::get_if<gossip::Finish>(&action)) return finish(peer, *end, answer, false);
    return peer_error(peer, std::get<gossip::Fault>(action).what);
  }
  stats_.rings_compared += 1;
  on_in_sync(peer, name->in_sync);
  auto& round = *rounds_.find(peer, m.session_id);
  take_agents(peer, answer.provided_agents, round.infos_asked);
  on_compared(peer);
  take_ops(peer, answer.new_ops, {*name->asked_since, answer.updated_new_since, round.common, true}, false,
           round.bookmark_holds);
  mark(round, answer.new_ops);
  name_ids(peer, round, std::move(*name));
}

void K2Gossip::on(const Url& peer, const wire::GossipDiscSectorDetailsDiffResponse& m) {
  std::size_t hashes = 0;
  for (const auto& sector : m.snapshot.disc_slice_hashes) hashes += sector.hashes.size();
  auto snapshot = from_wire(m.snapshot);
  if (!take_snapshot(peer, snapshot, hashes)) return;
  auto action = rounds_.on(peer, gossip::DiscDetailsResponseSaid{m.session_id, std::move(*snapshot)}, dht_->model());
  go_on(peer, m.session_id, action, &m.missing_ids);
}

// ---------------------------------------------------------------- as initiator

void K2Gossip::on(const Url& peer, const wire::GossipDiscSectorDetailsDiff& m) {
  std::size_t hashes = 0;
  for (const auto& sector : m.snapshot.disc_slice_hashes) hashes += sector.hashes.size();
  auto snapshot = from_wire(m.snapshot);
  if (!take_snapshot(peer, snapshot, hashes)) return;
  const auto* round = rounds_.find(peer, m.session_id);
  const std::size_t asked = round == nullptr ? 0 : round->infos_asked;
  auto action =
      rounds_.on(peer, gossip::DiscDetailsSaid{m.session_id, std::move(*snapshot)}, dht_->model(), random_u32());
  if (!std::holds_alternative<gossip::Fault>(action)) take_agents(peer, m.provided_agents, asked);
  go_on(peer, m.session_id, action, nullptr);
}

void K2Gossip::on(const Url& peer, const wire::GossipRingSectorDetailsDiffResponse& m) {
  std::size_t hashes = 0;
  for (const auto& ring : m.snapshot.ring_sector_hashes) hashes += ring.hashes.size();
  auto snapshot = from_wire(m.snapshot);
  if (!take_snapshot(peer, snapshot, hashes)) return;
  auto action = rounds_.on(peer, gossip::RingDetailsResponseSaid{m.session_id, std::move(*snapshot)}, dht_->model());
  go_on(peer, m.session_id, action, &m.missing_ids);
}

// ---------------------------------------------------------------- as both

void K2Gossip::go_on(const Url& peer, const Bytes& session, gossip::Action& action, const std::vector<Bytes>* ids) {
  if (const auto* fault = std::get_if<gossip::Fault>(&action)) return peer_error(peer, fault->what);
  if (auto* completed = std::get_if<gossip::Completed>(&action)) {
    if (ids != nullptr) take_ids(peer, completed->round, *ids);
    if (completed->decline) send(peer, wire::GossipTerminate{session, Bytes::copy_of("Nothing to compare")});
    return on_ended_well(completed->round);
  }
  auto& round = *rounds_.find(peer, session);
  if (ids != nullptr) take_ids(peer, round, *ids);
  auto& name = std::get<gossip::NameIds>(action);
  on_in_sync(peer, name.in_sync);
  name_ids(peer, round, std::move(name));
}

void K2Gossip::on(const Url& peer, const wire::GossipHashes& m) {
  auto action = rounds_.on(peer, gossip::HashesSaid{m.session_id});
  go_on(peer, m.session_id, action, &m.missing_ids);
}

/// Of a comparison. No bookmark is moved by them.
void K2Gossip::take_ids(const Url& peer, gossip::Round& round, const std::vector<Bytes>& ids) {
  if (ids.empty()) return;
  mark(round, ids);
  stats_.ops_learned += ids.size();
  std::vector<OpId> op_ids;
  op_ids.reserve(ids.size());
  for (const Bytes& id : ids) op_ids.emplace_back(id);
  const auto* model = dht_->model();
  const std::uint64_t count = ids.size(), ops = model == nullptr ? 0 : model->op_count();
  context_.fetch->request_offered_ops(std::move(op_ids), peer,
                                      [weak = weak_from_this(), peer, count, ops](const Result<void>& r) {
                                        auto self = weak.lock();
                                        if (!self || self->stopped_) return;
                                        if (r) {
                                          self->wait_for_ids(peer, count, ops);
                                          return self->schedule();
                                        }
                                        self->stats_.local_errors += 1;
                                        self->meta_.count(peer, GossipPeerMeta::kLocalErrors);
                                      });
}

void K2Gossip::name_ids(const Url& peer, gossip::Round& round, gossip::NameIds what) {
  SliceWish wish{peer,        std::move(what.slices), round.bytes_left, round.ids_left, round.most_bytes,
                 round.marks, round.is_ours};
  reader_->list(
      std::move(wish), random_u32(), is_still_there(round),
      [weak = weak_from_this(), peer, session = round.session, snapshot = std::move(what.snapshot)](NewOps named) {
        if (auto self = weak.lock()) self->on_ids_read(peer, session, snapshot, std::move(named));
      });
}

void K2Gossip::on_ids_read(const Url& peer, const Bytes& session, const decltype(gossip::NameIds::snapshot)& snapshot,
                           NewOps named) {
  auto* round = stopped_ ? nullptr : rounds_.find(peer, session);
  if (round == nullptr) return;
  if (named.failed) stats_.local_errors += 1;
  charge(peer, PeerWork().look_ups(named.ids.size()).time(std::min(named.took, kMostListingCharged)));
  stats_.ops_named += named.ids.size();
  mark(*round, named.ids);
  wire::GossipMessage message;
  if (const auto* disc = std::get_if<dht::DiscSectorDetailsSnapshot>(&snapshot)) {
    charge_shown(peer, count_hashes(*disc));
    message = wire::GossipDiscSectorDetailsDiffResponse{session, std::move(named.ids), to_wire(*disc)};
  } else if (const auto* rings = std::get_if<dht::RingSectorDetailsSnapshot>(&snapshot)) {
    message = wire::GossipRingSectorDetailsDiffResponse{session, std::move(named.ids), to_wire(*rings)};
  } else {
    send(peer, wire::GossipHashes{session, std::move(named.ids)});
    if (const auto ended = rounds_.end(peer, session)) on_ended_well(*ended);
    return schedule();
  }
  send(peer, message, [weak = weak_from_this(), peer, session](const Result<void>& sent) {
    if (auto self = weak.lock(); self && !sent) self->on_send_failed(peer, session);
  });
}

void K2Gossip::wait_for_ids(const Url& peer, std::uint64_t ids, std::optional<std::uint64_t> ops_before) {
  const std::uint64_t pending = std::max(context_.fetch->pending_ops(), ids);
  const NamedIds entry{peer, pending, ops_before, runtime().now()};
  const auto it = std::find_if(named_ids_.begin(), named_ids_.end(), [&](const NamedIds& e) { return e.peer == peer; });
  if (it != named_ids_.end()) {
    *it = entry;
  } else if (named_ids_.size() < kMostWaitedFor) {
    named_ids_.push_back(entry);
  }
}

void K2Gossip::look_at_ids() {
  if (named_ids_.empty()) return;
  const Time now = runtime().now();
  const auto* model = dht_->model();
  const std::uint64_t ops = model == nullptr ? 0 : model->op_count(), pending = context_.fetch->pending_ops();
  std::erase_if(named_ids_, [&](const NamedIds& e) {
    const bool has_moved = e.ops ? ops > *e.ops : now >= e.since + initial_interval();
    if (has_moved && pending <= e.pending / 8) {
      book_.on_has_more(e.peer, now);
      return true;
    }
    return now >= e.since + kWaitedForIds;
  });
}

}  // namespace kitsune2
