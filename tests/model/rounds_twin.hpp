// Rounds of gossip, written naively: one list of all that are under way. And the run that feeds the same commands to it
// and to Rounds.
#pragma once

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/gossip/round.hpp"
#include "kitsune2/bytes.hpp"
#include "model/commands.hpp"

namespace kitsune2::model {

/// What comes of a message, as a word.
inline std::string name_of(const gossip::Action& action) {
  struct Name {
    std::string operator()(const gossip::Fault& f) const { return f.say_busy ? "fault, busy" : "fault"; }
    std::string operator()(const gossip::Nothing&) const { return "nothing"; }
    std::string operator()(const gossip::SayBusy&) const { return "say busy"; }
    std::string operator()(const gossip::WasBusy&) const { return "was busy"; }
    std::string operator()(const gossip::MayAccept& a) const {
      return std::string("may accept") + (a.tie_lost ? ", tie" : "") + (a.needs_room ? ", instead" : "");
    }
    std::string operator()(const gossip::AnswerAccept& a) const {
      return "answer " + std::to_string(a.asked_since.micros);
    }
    std::string operator()(const gossip::Finish& a) const { return "finish " + std::to_string(a.asked_since.micros); }
    std::string operator()(const gossip::Completed&) const { return "completed"; }
    std::string operator()(const gossip::Ended& a) const {
      return "ended " + std::to_string(a.rounds.size()) + (a.by_peer ? " by it" : "") + (a.decline ? " decline" : "");
    }
  };
  return std::visit(Name(), action);
}

class RoundsTwin {
 public:
  enum Stage { initiated, answering, accepting, accepted };
  struct Round {
    Url peer;
    Bytes session;
    Stage stage;
    std::uint32_t tie = 0;
    Timestamp asked;
    Time begun;
    bool is_known = false;
    bool ours() const { return stage == initiated || stage == answering; }
  };

  void start(const Url& peer, const Bytes& session, std::uint32_t tie, Timestamp asked, Time now) {
    forget(peer, true);
    rounds_.push_back({peer, session, initiated, tie, asked, now});
  }
  void accept(const Url& peer, const Bytes& session, Time now, bool is_known) {
    forget(peer, false);
    rounds_.push_back({peer, session, accepting, 0, {}, now, is_known});
  }
  bool accepted_leaves(const Url& peer, const Bytes& session, Timestamp asked) {
    Round* round = find(peer, session, false);
    if (round == nullptr || round->stage != accepting) return false;
    round->stage = accepted;
    round->asked = asked;
    return true;
  }

  std::string on_initiate(const Url& peer, const Bytes& session, std::uint32_t tie, std::size_t most, bool is_known) {
    if (session.size() > 64) return "fault";
    bool tie_lost = false;
    if (const Round* ours = with(peer, true)) {
      if (ours->stage != initiated) return "fault, busy";
      if (ours->tie > tie) return "nothing";
      forget(peer, true);
      tie_lost = true;
    }
    if (const Round* theirs = with(peer, false)) return theirs->session == session ? "fault" : "fault, busy";
    const std::string accept = tie_lost ? "may accept, tie" : "may accept";
    if (most == 0 || count(false) < most) return accept;
    return is_known && oldest_of_newcomers() != nullptr ? accept + ", instead" : "say busy";
  }
  std::optional<Url> end_oldest_of_newcomers() {
    const Round* oldest = oldest_of_newcomers();
    if (oldest == nullptr) return std::nullopt;
    const Url gone = oldest->peer;
    forget(gone, false);
    return gone;
  }
  std::string on_accept(const Url& peer, const Bytes& session, bool declared) {
    Round* round = find(peer, session, true);
    if (round == nullptr || round->stage != initiated) return "fault";
    if (!declared) return forget(peer, true), "fault";
    round->stage = answering;
    return "answer " + std::to_string(round->asked.micros);
  }
  std::string on_no_diff(const Url& peer, const Bytes& session, bool declared) {
    const Round* round = find(peer, session, false);
    if (round == nullptr || round->stage != accepted) return "fault";
    const std::string asked = std::to_string(round->asked.micros);
    forget(peer, false);
    return declared ? "finish " + asked : "fault";
  }
  std::string on_agents(const Url& peer, const Bytes& session) {
    const Round* round = find(peer, session, true);
    if (round == nullptr || round->stage != answering) return "fault";
    return forget(peer, true), "completed";
  }
  std::string on_busy(const Url& peer, const Bytes& session) {
    const Round* round = find(peer, session, true);
    if (round == nullptr || round->stage != initiated) return "fault";
    return forget(peer, true), "was busy";
  }
  std::string on_terminate(const Url& peer, const Bytes& session) {
    if (const Round* round = find(peer, session, true)) {
      const bool normal = round->stage == answering;
      return forget(peer, true), normal ? "completed" : "ended 1 by it";
    }
    if (find(peer, session, false) == nullptr) return "fault";
    return forget(peer, false), "ended 1 by it";
  }
  std::string on_compare(const Url& peer, const Bytes& session) {
    std::size_t ended = 0;
    for (const bool ours : {true, false}) {
      if (find(peer, session, ours) == nullptr) continue;
      forget(peer, ours);
      ++ended;
    }
    return ended == 0 ? "fault" : "ended " + std::to_string(ended) + " decline";
  }

  bool end(const Url& peer, const Bytes& session) {
    for (const bool ours : {true, false}) {
      if (find(peer, session, ours) == nullptr) continue;
      forget(peer, ours);
      return true;
    }
    return false;
  }
  std::size_t end_all_with(const Url& peer) {
    return std::erase_if(rounds_, [&](const Round& r) { return r.peer == peer; });
  }
  std::size_t end_begun_before(Time limit) {
    return std::erase_if(rounds_, [&](const Round& r) { return r.begun <= limit; });
  }

  std::size_t count(bool ours) const {
    return static_cast<std::size_t>(
        std::count_if(rounds_.begin(), rounds_.end(), [&](const Round& r) { return r.ours() == ours; }));
  }
  std::optional<Time> oldest() const {
    std::optional<Time> out;
    for (const Round& r : rounds_) out = out ? std::min(*out, r.begun) : r.begun;
    return out;
  }
  std::optional<Time> latest_of_ours() const {
    std::optional<Time> out;
    for (const Round& r : rounds_) {
      if (r.ours()) out = out ? std::max(*out, r.begun) : r.begun;
    }
    return out;
  }

 private:
  Round* with(const Url& peer, bool ours) {
    const auto it = std::find_if(rounds_.begin(), rounds_.end(),
                                 [&](const Round& r) { return r.peer == peer && r.ours() == ours; });
    return it == rounds_.end() ? nullptr : &*it;
  }
  Round* find(const Url& peer, const Bytes& session, bool ours) {
    Round* round = with(peer, ours);
    return round != nullptr && round->session == session ? round : nullptr;
  }
  const Round* oldest_of_newcomers() const {
    const Round* out = nullptr;
    for (const Round& r : rounds_) {
      if (r.ours() || r.is_known) continue;
      if (out == nullptr || std::pair(r.begun, r.peer) < std::pair(out->begun, out->peer)) out = &r;
    }
    return out;
  }
  void forget(const Url& peer, bool ours) {
    std::erase_if(rounds_, [&](const Round& r) { return r.peer == peer && r.ours() == ours; });
  }

  std::vector<Round> rounds_;
};

/// Feeds commands made from bytes to the rounds and to the twin. Throws std::logic_error when they differ.
class RoundsTwinRun {
 public:
  /// `seen`: the words that came of messages, to see that nothing was left out.
  explicit RoundsTwinRun(ByteView commands, std::vector<std::string>* seen = nullptr)
      : commands_(commands), seen_(seen) {
    full_.add(DhtArc::full());
  }
  void run() {
    while (!commands_.is_empty()) {
      step();
      check(rounds_.ours() == twin_.count(true) && rounds_.theirs() == twin_.count(false), "the numbers");
      check(rounds_.oldest() == twin_.oldest(), "the oldest");
      check(rounds_.latest_of_ours() == twin_.latest_of_ours(), "the latest");
    }
  }

 private:
  std::uint8_t byte() { return commands_.byte(); }
  static void check(bool same, const char* what) {
    if (!same) throw std::logic_error(std::string("Rounds and their twin differ in ") + what);
  }
  void same(const gossip::Action& action, const std::string& expected) {
    const std::string name = name_of(action);
    if (seen_ != nullptr) seen_->push_back(name.substr(0, name.find_first_of("0123456789")));
    check(name == expected, (name + " instead of " + expected).c_str());
  }

  void step() {
    const std::uint8_t what = byte(), more = byte();
    const Url peer = Url::parse("ws://r:1/p" + std::to_string(more % 4)).value();
    const Bytes session =
        more >= 250 ? Bytes(std::string(65, 's')) : Bytes::copy_of("s" + std::to_string(more / 4 % 3));
    const std::uint32_t tie = more / 16 % 4;
    const bool declared = more / 64 != 3;
    const std::vector<Bytes> asked = {Bytes::copy_of(declared ? "me" : "other")};
    switch (what % 14) {
      case 0:
        rounds_.start(peer, session, us(), {tie, Timestamp{more}}, now_);
        return twin_.start(peer, session, tie, Timestamp{more}, now_);
      case 1:
      case 2: {
        const std::size_t most = what % 3;
        const gossip::InitiateSaid said{session, tie};
        const bool is_known = more % 4 == 0;
        const auto action = rounds_.on(peer, said, most, is_known);
        same(action, twin_.on_initiate(peer, session, tie, most, is_known));
        const auto* verdict = std::get_if<gossip::MayAccept>(&action);
        if (verdict == nullptr) return;
        if (verdict->needs_room) {
          const auto gone = rounds_.end_oldest_of_newcomers();
          check(gone && twin_.end_oldest_of_newcomers() == gone->peer, "who gives way");
        }
        rounds_.accept(peer, said, us(), full_, now_).is_known = is_known;
        return twin_.accept(peer, session, now_, is_known);
      }
      case 3:
        return check((rounds_.accepted(peer, session, Timestamp{more}) != nullptr) ==
                         twin_.accepted_leaves(peer, session, Timestamp{more}),
                     "accepted");
      case 4:
        return same(rounds_.on(peer, gossip::AcceptSaid{session, full_, asked}),
                    twin_.on_accept(peer, session, declared));
      case 5:
        return same(rounds_.on(peer, gossip::NoDiffSaid{session, asked}), twin_.on_no_diff(peer, session, declared));
      case 6:
        return same(rounds_.on(peer, gossip::AgentsSaid{session}), twin_.on_agents(peer, session));
      case 7:
        return same(rounds_.on(peer, gossip::BusySaid{session}), twin_.on_busy(peer, session));
      case 8:
        return same(rounds_.on(peer, gossip::TerminateSaid{session}), twin_.on_terminate(peer, session));
      case 9:
        return same(rounds_.on(peer, gossip::CompareSaid{session}), twin_.on_compare(peer, session));
      case 10:
        return check(rounds_.end(peer, session).has_value() == twin_.end(peer, session), "end");
      case 11:
        return check(rounds_.end_all_with(peer).size() == twin_.end_all_with(peer), "end_all_with");
      case 12: {
        const Time limit = now_ - std::chrono::seconds(more % 16);
        return check(rounds_.end_begun_before(limit).size() == twin_.end_begun_before(limit), "end_begun_before");
      }
      default:
        now_ += std::chrono::milliseconds(more * 8);
    }
  }
  gossip::OurSide us() const { return {{AgentId(Bytes::copy_of("me"))}, full_}; }

  Commands commands_;
  std::vector<std::string>* seen_;
  gossip::Rounds rounds_;
  RoundsTwin twin_;
  SectorSet full_;
  Time now_ = Time(std::chrono::hours(1));
};

}  // namespace kitsune2::model
