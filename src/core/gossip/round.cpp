// Rounds of gossip: the table of those under way and what each message does to it.
#include "core/gossip/round.hpp"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace kitsune2::gossip {
namespace {

/// Leaves out sectors that do not fit. R10.
void cut(dht::DiscSectorDetailsSnapshot& snapshot, std::uint32_t turn) {
  std::size_t hashes = 0;
  for (const auto& [sector, slices] : snapshot.sectors) hashes += slices.size();
  if (hashes <= Rounds::kMostHashes) return;
  auto all = std::exchange(snapshot.sectors, {});
  const auto first = all.lower_bound(turn % SectorSet::kCount);
  hashes = 0;
  const auto keep = [&](auto from, auto to) {
    for (auto it = from; it != to; ++it) {
      hashes += it->second.size();
      if (hashes > Rounds::kMostHashes && !snapshot.sectors.empty()) return;
      snapshot.sectors.emplace(it->first, std::move(it->second));
    }
  };
  keep(first, all.end());
  if (hashes <= Rounds::kMostHashes) keep(all.begin(), first);
}

/// The XOR of two sums. Lengths differ if the peer's ops have ids of another length, or if it lies: then its sum alone.
dht::CombinedHash difference_of(const dht::CombinedHash& ours, const dht::CombinedHash& theirs) {
  dht::CombinedHash out = theirs;
  if (ours.size() == theirs.size() || theirs.empty()) out.combine(ours);
  return out;
}

/// Where rings differ in no sector, both sides hold the same: the rest of the model was found equal before.
SectorSet all_but(const SectorSet& common, const std::vector<dht::SliceRef>& slices) {
  SectorSet::Words words = common.words();
  for (const dht::SliceRef& slice : slices) words[slice.sector / 32] &= ~(1U << (slice.sector % 32));
  return SectorSet(words);
}

constexpr Fault kUndeclared{"asks for agents that we did not declare"};
constexpr Fault kBadSnapshot{"a snapshot of what is not common, or not in the disc"};

}  // namespace

Round& Rounds::start(const Url& peer, Bytes session, OurSide ours, Initiated stage, Time now) {
  return ours_[peer] = Round{peer, std::move(session), std::move(ours), true, stage, now};
}

Round& Rounds::accept(const Url& peer, const InitiateSaid& m, OurSide ours, const SectorSet& theirs, Time now) {
  const SectorSet common = ours.sectors.common(theirs);
  return theirs_[peer] = Round{peer, m.session.compact(), std::move(ours), false, Accepting{}, now, common};
}

Round* Rounds::accepted(const Url& peer, const Bytes& session, Timestamp asked_since, bool has_snapshot) {
  Round* round = of_theirs(peer, session);
  if (round == nullptr || round->in<Accepting>() == nullptr) return nullptr;
  round->stage = Accepted{asked_since, has_snapshot};
  return round;
}

Round* Rounds::on_answer(const Url& peer, const Bytes& session, bool compares) {
  Round* round = of_ours(peer, session);
  if (round == nullptr) return nullptr;
  const auto* rings = round->in<ComparingRings>();
  if (compares) {
    if (rings != nullptr && rings->disc_differs) turns_.on_rings(peer);
  } else if (rings != nullptr || round->in<ComparingDisc>() != nullptr) {
    round->stage = Answering{};
  }
  return round;
}

// -------------------------------------------------------------------- messages

Action Rounds::on(const Url& peer, const InitiateSaid& m, std::size_t most_accepted, Time now, bool is_known) {
  if (m.session.size() > kMostSessionBytes) return Fault{"a session id of more than 64 bytes"};
  MayAccept out;
  if (const auto it = ours_.find(peer); it != ours_.end()) {
    const Initiated* stage = it->second.in<Initiated>();
    if (stage == nullptr) return Fault{"initiate during a round", true};
    const bool was_lost = !m.is_answered_always && now - it->second.begun >= kCrossing;
    if (stage->tie_breaker > m.tie_breaker && !was_lost) return Nothing{};
    ours_.erase(it);
    out.tie_lost = true;
  }
  if (const auto it = theirs_.find(peer); it != theirs_.end())
    return Fault{"initiate during a round", it->second.session != m.session};
  if (most_accepted != 0 && theirs_.size() >= most_accepted) {
    if (!is_known || oldest_of_newcomers() == theirs_.end()) return SayBusy{};
    out.needs_room = true;
  }
  return out;
}

Action Rounds::on(const Url& peer, const AcceptSaid& m, const dht::DhtModel* model) {
  Round* round = of_ours(peer, m.session);
  const Initiated* stage = round == nullptr ? nullptr : round->in<Initiated>();
  if (stage == nullptr) return Fault{"unsolicited ACCEPT"};
  if (!declared(*round, m.missing_agents)) {
    ours_.erase(peer);
    return kUndeclared;
  }
  round->common = round->ours.sectors.common(m.sectors);
  AnswerAccept out{stage->asked_since, round->common, AnswerAccept::NoDiff{m.snapshot.has_value()}};
  round->stage = Answering{};
  if (!m.snapshot || model == nullptr || round->common.empty()) return out;
  const auto next = model->handle(*m.snapshot, std::nullopt, round->common);
  if (!next || std::holds_alternative<dht::CannotCompare>(*next)) return out;
  if (std::holds_alternative<dht::Identical>(*next)) {
    turns_.on_same_disc(peer);
    out.answer = AnswerAccept::NoDiff{};
    out.in_sync = round->common;
    return out;
  }
  const auto* send = std::get_if<dht::SendSnapshot>(&*next);
  K2_ASSERT(send != nullptr);
  if (const auto* rings = std::get_if<dht::RingSectorDetailsSnapshot>(&send->snapshot)) {
    turns_.on_same_disc(peer);
    round->stage = ComparingRings{*rings};
    out.answer = *rings;
    return out;
  }
  const auto difference = difference_of(model->minimal(round->common).disc_top_hash, m.snapshot->disc_top_hash);
  std::optional<dht::RingSectorDetailsSnapshot> rings;
  if (turns_.is_turn_of_rings(peer, m.is_ours, difference)) rings = model->differing_rings(*m.snapshot, round->common);
  if (rings) {
    round->stage = ComparingRings{*rings, true};
    out.answer = std::move(*rings);
    out.disc_differs = true;
  } else {
    round->stage = ComparingDisc{difference};
    out.answer = std::get<dht::DiscSectorsSnapshot>(send->snapshot);
  }
  return out;
}

Action Rounds::on(const Url& peer, const NoDiffSaid& m) {
  const auto [round, fault] = answered(peer, m.session, m.missing_agents, "unsolicited NO_DIFF");
  if (round == nullptr) return fault;
  const Accepted stage = *round->in<Accepted>();
  const SectorSet in_sync = stage.has_snapshot && !m.cannot_compare ? round->common : SectorSet();
  return Finish{take(*round), stage.asked_since, false, in_sync, stage.has_snapshot && m.cannot_compare};
}

Action Rounds::on(const Url& peer, const DiscSectorsSaid& m, const dht::DhtModel* model, std::uint32_t turn) {
  const auto [round, fault] = answered(peer, m.session, m.missing_agents, "unsolicited DISC_SECTORS_DIFF");
  if (round == nullptr) return fault;
  const Timestamp asked = round->in<Accepted>()->asked_since;
  if (model == nullptr) return Finish{take(*round), asked, true};
  auto next = model->handle(m.snapshot, std::nullopt, round->common);
  if (!next) {
    theirs_.erase(peer);
    return kBadSnapshot;
  }
  auto* send = std::get_if<dht::SendSnapshot>(&*next);
  if (send == nullptr) return Finish{take(*round), asked, true};
  auto& details = std::get<dht::DiscSectorDetailsSnapshot>(send->snapshot);
  cut(details, turn);
  round->stage = ShownDisc{details};
  return ShowDisc{asked, std::move(details)};
}

Action Rounds::on(const Url& peer, const DiscDetailsSaid& m, const dht::DhtModel* model, std::uint32_t turn) {
  Round* round = of_ours(peer, m.session);
  const ComparingDisc* stage = round == nullptr ? nullptr : round->in<ComparingDisc>();
  if (stage == nullptr) return Fault{"unsolicited DISC_SECTOR_DETAILS_DIFF"};
  turns_.on_disc(peer);
  if (model == nullptr) return Completed{take(*round), true};
  auto next = model->handle(m.snapshot, std::nullopt, round->common);
  if (!next) {
    ours_.erase(peer);
    return kBadSnapshot;
  }
  auto* send = std::get_if<dht::SendSnapshotAndIds>(&*next);
  if (send == nullptr) return Completed{take(*round), true};
  round->stage = AwaitingHashes{stage->difference};
  auto& details = std::get<dht::DiscSectorDetailsSnapshot>(send->snapshot);
  cut(details, turn);
  return NameIds{std::move(details), std::move(send->slices)};
}

Action Rounds::on(const Url& peer, const DiscDetailsResponseSaid& m, const dht::DhtModel* model) {
  Round* round = of_theirs(peer, m.session);
  ShownDisc* stage = round == nullptr ? nullptr : std::get_if<ShownDisc>(&round->stage);
  if (stage == nullptr) return Fault{"unsolicited DISC_SECTOR_DETAILS_DIFF_RESPONSE"};
  if (model == nullptr) return Completed{take(*round), true};
  auto next = model->handle(m.snapshot, std::move(stage->shown), round->common);
  if (!next) {
    theirs_.erase(peer);
    return kBadSnapshot;
  }
  auto* send = std::get_if<dht::SendIds>(&*next);
  if (send == nullptr) return Completed{take(*round), true};
  round->stage = LastWord{};
  return NameIds{std::monostate(), std::move(send->slices)};
}

Action Rounds::on(const Url& peer, const RingDetailsSaid& m, const dht::DhtModel* model) {
  const auto [round, fault] = answered(peer, m.session, m.missing_agents, "unsolicited RING_SECTOR_DETAILS_DIFF");
  if (round == nullptr) return fault;
  const Timestamp asked = round->in<Accepted>()->asked_since;
  if (model == nullptr) return Finish{take(*round), asked, true};
  auto next = model->handle(m.snapshot, std::nullopt, round->common);
  if (!next) {
    theirs_.erase(peer);
    return kBadSnapshot;
  }
  auto* send = std::get_if<dht::SendSnapshotAndIds>(&*next);
  if (send == nullptr) return Finish{take(*round), asked, true};
  round->stage = AwaitingHashes{};
  const SectorSet in_sync = m.disc_differs ? SectorSet() : all_but(round->common, send->slices);
  return NameIds{std::get<dht::RingSectorDetailsSnapshot>(std::move(send->snapshot)), std::move(send->slices), asked,
                 in_sync};
}

Action Rounds::on(const Url& peer, const RingDetailsResponseSaid& m, const dht::DhtModel* model) {
  Round* round = of_ours(peer, m.session);
  ComparingRings* stage = round == nullptr ? nullptr : std::get_if<ComparingRings>(&round->stage);
  if (stage == nullptr) return Fault{"unsolicited RING_SECTOR_DETAILS_DIFF_RESPONSE"};
  if (model == nullptr) return Completed{take(*round), true};
  const bool disc_differs = stage->disc_differs;
  auto next = model->handle(m.snapshot, std::move(stage->shown), round->common);
  if (!next) {
    ours_.erase(peer);
    return kBadSnapshot;
  }
  auto* send = std::get_if<dht::SendIds>(&*next);
  if (send == nullptr) return Completed{take(*round), true};
  round->stage = LastWord{};
  const SectorSet in_sync = disc_differs ? SectorSet() : all_but(round->common, send->slices);
  return NameIds{std::monostate(), std::move(send->slices), std::nullopt, in_sync};
}

Action Rounds::on(const Url& peer, const HashesSaid& m) {
  for (Round* round : {of_ours(peer, m.session), of_theirs(peer, m.session)}) {
    const AwaitingHashes* stage = round == nullptr ? nullptr : round->in<AwaitingHashes>();
    if (stage == nullptr) continue;
    if (stage->difference) turns_.on_disc_named(peer, *stage->difference);
    return Completed{take(*round)};
  }
  return Fault{"unsolicited HASHES"};
}

Action Rounds::on(const Url& peer, const AgentsSaid& m) {
  Round* round = of_ours(peer, m.session);
  // A stock node says it also when it finds nothing to compare.
  const bool fits = round != nullptr && (round->in<Answering>() != nullptr || round->in<ComparingDisc>() != nullptr ||
                                         round->in<ComparingRings>() != nullptr);
  if (!fits) return Fault{"unsolicited AGENTS"};
  return Completed{take(*round)};
}

Action Rounds::on(const Url& peer, const BusySaid& m) {
  Round* round = of_ours(peer, m.session);
  if (round == nullptr || round->in<Initiated>() == nullptr) return Fault{"unsolicited BUSY"};
  ours_.erase(peer);
  return WasBusy{};
}

Action Rounds::on(const Url& peer, const TerminateSaid& m) {
  Round* round = find(peer, m.session);
  if (round == nullptr) return Fault{"unsolicited TERMINATE"};
  const bool early =
      round->in<Initiated>() != nullptr || round->in<Accepting>() != nullptr || round->in<Accepted>() != nullptr;
  if (early) return Ended{take(*round)};
  return Completed{take(*round)};
}

// -------------------------------------------------------------------- the table

Round* Rounds::of_ours(const Url& peer, const Bytes& session) {
  const auto it = ours_.find(peer);
  return it != ours_.end() && it->second.session == session ? &it->second : nullptr;
}

Round* Rounds::of_theirs(const Url& peer, const Bytes& session) {
  const auto it = theirs_.find(peer);
  return it != theirs_.end() && it->second.session == session ? &it->second : nullptr;
}

Round* Rounds::find(const Url& peer, const Bytes& session) {
  Round* ours = of_ours(peer, session);
  return ours != nullptr ? ours : of_theirs(peer, session);
}

Round Rounds::take(Round& round) {
  Round out = std::move(round);
  (out.is_ours ? ours_ : theirs_).erase(out.peer);
  return out;
}

std::optional<Round> Rounds::end(const Url& peer, const Bytes& session) {
  Round* round = find(peer, session);
  if (round == nullptr) return std::nullopt;
  return take(*round);
}

std::vector<Round> Rounds::end_all_with(const Url& peer) {
  std::vector<Round> out;
  for (Table* table : {&ours_, &theirs_}) {
    if (auto node = table->extract(peer)) out.push_back(std::move(node.mapped()));
  }
  return out;
}

std::vector<Round> Rounds::end_begun_before(Time limit) {
  std::vector<Round> out;
  for (Table* table : {&ours_, &theirs_}) {
    std::erase_if(*table, [&](auto& entry) {
      if (entry.second.begun > limit) return false;
      out.push_back(std::move(entry.second));
      return true;
    });
  }
  return out;
}

Rounds::Table::iterator Rounds::oldest_of_newcomers() {
  auto out = theirs_.end();
  for (auto it = theirs_.begin(); it != theirs_.end(); ++it) {
    if (it->second.is_known) continue;
    if (out == theirs_.end() || it->second.begun < out->second.begun) out = it;
  }
  return out;
}

std::optional<Round> Rounds::end_oldest_of_newcomers() {
  const auto it = oldest_of_newcomers();
  if (it == theirs_.end()) return std::nullopt;
  Round out = std::move(it->second);
  theirs_.erase(it);
  return out;
}

void Rounds::clear() {
  ours_.clear();
  theirs_.clear();
}

std::optional<Time> Rounds::latest_of_ours() const {
  std::optional<Time> out;
  for (const auto& [peer, round] : ours_) out = out ? std::max(*out, round.begun) : round.begun;
  return out;
}

std::optional<Time> Rounds::oldest() const {
  std::optional<Time> out;
  for (const Table* table : {&ours_, &theirs_}) {
    for (const auto& [peer, round] : *table) out = out ? std::min(*out, round.begun) : round.begun;
  }
  return out;
}

Rounds::Answered Rounds::answered(const Url& peer, const Bytes& session, const std::vector<Bytes>& missing_agents,
                                  const char* unsolicited) {
  Round* round = of_theirs(peer, session);
  if (round == nullptr || round->in<Accepted>() == nullptr) return {nullptr, Fault{unsolicited}};
  if (declared(*round, missing_agents)) return {round, Fault{nullptr}};
  theirs_.erase(peer);
  return {nullptr, kUndeclared};
}

bool Rounds::declared(const Round& round, const std::vector<Bytes>& agents) {
  const std::unordered_set<AgentId> ours(round.ours.agents.begin(), round.ours.agents.end());
  return std::all_of(agents.begin(), agents.end(), [&](const Bytes& id) { return ours.contains(AgentId(id)); });
}

}  // namespace kitsune2::gossip
