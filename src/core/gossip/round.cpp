// Rounds of gossip: the table of those under way and what each message does to it.
#include "core/gossip/round.hpp"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace kitsune2::gossip {

Round& Rounds::start(const Url& peer, Bytes session, OurSide ours, Initiated stage, Time now) {
  return ours_[peer] = Round{peer, std::move(session), std::move(ours), stage, now};
}

Round& Rounds::accept(const Url& peer, const InitiateSaid& m, OurSide ours, const SectorSet& theirs, Time now) {
  const SectorSet common = ours.sectors.common(theirs);
  return theirs_[peer] = Round{peer, m.session.compact(), std::move(ours), Accepting{common}, now};
}

Round* Rounds::accepted(const Url& peer, const Bytes& session, Timestamp asked_since) {
  Round* round = of_theirs(peer, session);
  const Accepting* stage = round == nullptr ? nullptr : round->in<Accepting>();
  if (stage == nullptr) return nullptr;
  round->stage = Accepted{stage->common, asked_since};
  return round;
}

// -------------------------------------------------------------------- messages

Action Rounds::on(const Url& peer, const InitiateSaid& m, std::size_t most_accepted, bool is_known) {
  if (m.session.size() > kMostSessionBytes) return Fault{"a session id of more than 64 bytes"};
  MayAccept out;
  if (const auto it = ours_.find(peer); it != ours_.end()) {
    const Initiated* stage = it->second.in<Initiated>();
    if (stage == nullptr) return Fault{"initiate during a round", true};
    if (stage->tie_breaker > m.tie_breaker) return Nothing{};
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

Action Rounds::on(const Url& peer, const AcceptSaid& m) {
  Round* round = of_ours(peer, m.session);
  const Initiated* stage = round == nullptr ? nullptr : round->in<Initiated>();
  if (stage == nullptr) return Fault{"unsolicited ACCEPT"};
  if (!declared(*round, m.missing_agents)) {
    ours_.erase(peer);
    return Fault{"asks for agents that we did not declare"};
  }
  AnswerAccept out{stage->asked_since, round->ours.sectors.common(m.sectors)};
  round->stage = Answering{out.common};
  return out;
}

Action Rounds::on(const Url& peer, const NoDiffSaid& m) {
  Round* round = of_theirs(peer, m.session);
  const Accepted* stage = round == nullptr ? nullptr : round->in<Accepted>();
  if (stage == nullptr) return Fault{"unsolicited NO_DIFF"};
  if (!declared(*round, m.missing_agents)) {
    theirs_.erase(peer);
    return Fault{"asks for agents that we did not declare"};
  }
  const Accepted was = *stage;
  Finish out{std::move(*round), was.asked_since, was.common};
  theirs_.erase(peer);
  return out;
}

Action Rounds::on(const Url& peer, const AgentsSaid& m) {
  Round* round = of_ours(peer, m.session);
  if (round == nullptr || round->in<Answering>() == nullptr) return Fault{"unsolicited AGENTS"};
  Completed out{std::move(*round)};
  ours_.erase(peer);
  return out;
}

Action Rounds::on(const Url& peer, const BusySaid& m) {
  Round* round = of_ours(peer, m.session);
  if (round == nullptr || round->in<Initiated>() == nullptr) return Fault{"unsolicited BUSY"};
  ours_.erase(peer);
  return WasBusy{};
}

Action Rounds::on(const Url& peer, const TerminateSaid& m) {
  if (Round* round = of_ours(peer, m.session)) {
    // At this stage it is the normal end of a round.
    const bool normal = round->in<Answering>() != nullptr;
    Round was = std::move(*round);
    ours_.erase(peer);
    if (normal) return Completed{std::move(was)};
    return Ended{{std::move(was)}, true, false};
  }
  if (Round* round = of_theirs(peer, m.session)) {
    Round was = std::move(*round);
    theirs_.erase(peer);
    return Ended{{std::move(was)}, true, false};
  }
  return Fault{"unsolicited TERMINATE"};
}

Action Rounds::on(const Url& peer, const CompareSaid& m) {
  Ended out{{}, false, true};
  if (Round* round = of_ours(peer, m.session)) {
    out.rounds.push_back(std::move(*round));
    ours_.erase(peer);
  }
  if (Round* round = of_theirs(peer, m.session)) {
    out.rounds.push_back(std::move(*round));
    theirs_.erase(peer);
  }
  if (out.rounds.empty()) return Fault{"a message of no round"};
  return out;
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

std::optional<Round> Rounds::end(const Url& peer, const Bytes& session) {
  Round* round = find(peer, session);
  if (round == nullptr) return std::nullopt;
  Round out = std::move(*round);
  (out.is_ours() ? ours_ : theirs_).erase(peer);
  return out;
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

bool Rounds::declared(const Round& round, const std::vector<Bytes>& agents) {
  const std::unordered_set<AgentId> ours(round.ours.agents.begin(), round.ours.agents.end());
  return std::all_of(agents.begin(), agents.end(), [&](const Bytes& id) { return ours.contains(AgentId(id)); });
}

}  // namespace kitsune2::gossip
