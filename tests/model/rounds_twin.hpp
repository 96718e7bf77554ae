// Rounds of gossip, written naively: one list of all rounds under way. Also the run that gives the same commands to the
// twin and to Rounds.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/gossip/round.hpp"
#include "kitsune2/bytes.hpp"
#include "model/commands.hpp"
#include "model/comparison_turns_twin.hpp"

namespace kitsune2::model {

/// The result of a message, as a word.
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
      const char* what = std::holds_alternative<dht::DiscSectorsSnapshot>(a.answer)          ? "disc "
                         : !std::holds_alternative<dht::RingSectorDetailsSnapshot>(a.answer) ? ""
                         : a.disc_differs                                                    ? "rings first "
                                                                                             : "rings ";
      return std::string("answer ") + what + std::to_string(a.asked_since.micros);
    }
    std::string operator()(const gossip::Finish& a) const {
      return (a.is_compared        ? "compared "
              : !a.in_sync.empty() ? "in sync "
              : a.cannot_compare   ? "incomparable "
                                   : "finish ") +
             std::to_string(a.asked_since.micros);
    }
    std::string operator()(const gossip::ShowDisc& a) const { return "show " + std::to_string(a.asked_since.micros); }
    std::string operator()(const gossip::NameIds& a) const {
      return std::string(std::holds_alternative<std::monostate>(a.snapshot) ? "name, last" : "name") +
             (a.in_sync.empty() ? "" : ", in sync");
    }
    std::string operator()(const gossip::Completed& a) const { return a.decline ? "completed, decline" : "completed"; }
    std::string operator()(const gossip::Ended&) const { return "ended by it"; }
  };
  return std::visit(Name(), action);
}

class RoundsTwin {
 public:
  enum Stage { initiated, answering, disc, rings, accepting, accepted, shown, awaiting, last };
  /// What a snapshot leads to: something differs, or nothing, or the times differ, or it is refused.
  enum Snapshot { differs, nothing, bad };
  struct Round {
    Url peer;
    Bytes session;
    Stage stage;
    std::uint32_t tie = 0;
    Timestamp asked;
    Time begun;
    bool is_known = false;
    bool is_ours = false;
    bool has_snapshot = false;
    std::string difference = {};  // of the discs
    bool disc_differs = false;    // though the rings are compared
    bool ours() const { return is_ours; }
  };

  void start(const Url& peer, const Bytes& session, std::uint32_t tie, Timestamp asked, Time now) {
    forget(peer, true);
    rounds_.push_back({peer, session, initiated, tie, asked, now, false, true});
  }
  void accept(const Url& peer, const Bytes& session, Time now, bool is_known) {
    forget(peer, false);
    rounds_.push_back({peer, session, accepting, 0, {}, now, is_known});
  }
  bool accepted_leaves(const Url& peer, const Bytes& session, Timestamp asked, bool has_snapshot) {
    Round* round = find(peer, session, false);
    if (round == nullptr || round->stage != accepting) return false;
    round->stage = accepted;
    round->asked = asked;
    round->has_snapshot = has_snapshot;
    return true;
  }

  /// `lost_by`: at this time what was sent a second ago or more is known to be lost.
  std::string on_initiate(const Url& peer, const Bytes& session, std::uint32_t tie, std::size_t most, bool is_known,
                          std::optional<Time> lost_by) {
    if (session.size() > 64) return "fault";
    bool tie_lost = false;
    if (const Round* ours = with(peer, true)) {
      if (ours->stage != initiated) return "fault, busy";
      const bool lost = lost_by && ours->begun + std::chrono::seconds(1) <= *lost_by;
      if (!lost && ours->tie > tie) return "nothing";
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
  /// `difference`: of the discs. `rings`: whether they differ too.
  std::string on_accept(const Url& peer, const Bytes& session, bool declared, bool compares,
                        const std::string& difference, bool rings_differ, bool is_ours) {
    Round* round = find(peer, session, true);
    if (round == nullptr || round->stage != initiated) return "fault";
    if (!declared) return forget(peer, true), "fault";
    const std::string asked = std::to_string(round->asked.micros);
    round->stage = answering;
    if (!compares) return "answer " + asked;
    if (difference.empty()) {
      turns_.on_same_disc(peer);
      if (!rings_differ) return "answer " + asked;
      round->stage = rings;
      return "answer rings " + asked;
    }
    if (rings_differ && turns_.is_turn_of_rings(peer, is_ours, difference)) {
      round->stage = rings;
      round->disc_differs = true;
      return "answer rings first " + asked;
    }
    round->stage = disc;
    round->difference = difference;
    return "answer disc " + asked;
  }
  bool on_answer(const Url& peer, const Bytes& session, bool compares) {
    Round* round = find(peer, session, true);
    if (round == nullptr) return false;
    if (round->stage != rings && round->stage != disc) return true;
    if (!compares) {
      round->stage = answering;
    } else if (round->disc_differs) {
      turns_.on_rings(peer);
    }
    return true;
  }
  std::string on_no_diff(const Url& peer, const Bytes& session, bool declared, bool cannot_compare) {
    const Round* round = find(peer, session, false);
    if (round == nullptr || round->stage != accepted) return "fault";
    const std::string asked = std::to_string(round->asked.micros);
    const char* end = !round->has_snapshot ? "finish " : cannot_compare ? "incomparable " : "in sync ";
    forget(peer, false);
    return declared ? end + asked : "fault";
  }
  std::string on_agents(const Url& peer, const Bytes& session) {
    const Round* round = find(peer, session, true);
    const bool fits = round != nullptr && (round->stage == answering || round->stage == disc || round->stage == rings);
    if (!fits) return "fault";
    return forget(peer, true), "completed";
  }
  /// DISC_SECTORS_DIFF or RING_SECTOR_DETAILS_DIFF.
  std::string on_first_snapshot(const Url& peer, const Bytes& session, bool declared, Snapshot said, bool of_disc,
                                bool disc_differs = false) {
    Round* round = find(peer, session, false);
    if (round == nullptr || round->stage != accepted) return "fault";
    const std::string asked = std::to_string(round->asked.micros);
    if (!declared || said == bad) return forget(peer, false), "fault";
    if (said == nothing) return forget(peer, false), "compared " + asked;
    round->stage = of_disc ? shown : awaiting;
    return of_disc ? "show " + asked : disc_differs ? "name" : "name, in sync";
  }
  /// The message that answers a snapshot of ours, in a round of that side and at that stage.
  std::string on_snapshot(const Url& peer, const Bytes& session, bool ours, Stage at, Snapshot said) {
    Round* round = find(peer, session, ours);
    if (round == nullptr || round->stage != at) return "fault";
    if (at == disc) turns_.on_disc(peer);
    const bool disc_differs = round->disc_differs;
    if (said == bad) return forget(peer, ours), "fault";
    if (said == nothing) return forget(peer, ours), "completed, decline";
    round->stage = at == disc ? awaiting : last;
    return at == disc ? "name" : at == rings && !disc_differs ? "name, last, in sync" : "name, last";
  }
  std::string on_hashes(const Url& peer, const Bytes& session) {
    for (const bool ours : {true, false}) {
      const Round* round = find(peer, session, ours);
      if (round == nullptr || round->stage != awaiting) continue;
      if (ours) turns_.on_disc_named(peer, round->difference);
      return forget(peer, ours), "completed";
    }
    return "fault";
  }
  std::string on_busy(const Url& peer, const Bytes& session) {
    const Round* round = find(peer, session, true);
    if (round == nullptr || round->stage != initiated) return "fault";
    return forget(peer, true), "was busy";
  }
  std::string on_terminate(const Url& peer, const Bytes& session) {
    for (const bool ours : {true, false}) {
      const Round* round = find(peer, session, ours);
      if (round == nullptr) continue;
      const bool early = round->stage == initiated || round->stage == accepting || round->stage == accepted;
      return forget(peer, ours), early ? "ended by it" : "completed";
    }
    return "fault";
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
  ComparisonTurnsTwin turns_;
};

/// Reads commands from bytes and gives them to the rounds and to the twin. Throws std::logic_error when they differ.
class RoundsTwinRun {
 public:
  /// `seen`: the results that occurred, so that a test can see that none was left out.
  explicit RoundsTwinRun(ByteView commands, std::vector<std::string>* seen = nullptr)
      : commands_(commands), seen_(seen) {
    // All but the last sector, which is never common.
    full_.add(DhtArc(0, UINT32_MAX - (1U << SectorSet::kBits)));
    for (const Timestamp at : {old(), recent()}) {
      const std::array<std::uint8_t, 4> id{1, 2, 3, 4};
      if (!model_.add(0, at, ByteView(id))) throw std::logic_error("the model takes no op");
    }
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
    switch (what % 21) {
      case 0:
        rounds_.start(peer, session, us(), {tie, Timestamp{more}}, now_);
        return twin_.start(peer, session, tie, Timestamp{more}, now_);
      case 1:
      case 2: {
        const std::size_t most = what % 3;
        const bool is_ours = what / 21 % 2 == 0;
        const gossip::InitiateSaid said{session, tie, is_ours};
        const bool is_known = more % 4 == 0;
        const auto action = rounds_.on(peer, said, most, now_, is_known);
        same(action,
             twin_.on_initiate(peer, session, tie, most, is_known, is_ours ? std::nullopt : std::optional(now_)));
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
        return check((rounds_.accepted(peer, session, Timestamp{more}, more % 2 == 0) != nullptr) ==
                         twin_.accepted_leaves(peer, session, Timestamp{more}, more % 2 == 0),
                     "accepted");
      case 4:
        return accept_came(peer, session, asked, declared, more / 8 % 8);
      case 5:
        return same(rounds_.on(peer, gossip::NoDiffSaid{session, asked, more / 8 % 2 == 0}),
                    twin_.on_no_diff(peer, session, declared, more / 8 % 2 == 0));
      case 6:
        return same(rounds_.on(peer, gossip::AgentsSaid{session}), twin_.on_agents(peer, session));
      case 7:
        return same(rounds_.on(peer, gossip::BusySaid{session}), twin_.on_busy(peer, session));
      case 8:
        return same(rounds_.on(peer, gossip::TerminateSaid{session}), twin_.on_terminate(peer, session));
      case 9:
        return same(rounds_.on(peer, gossip::HashesSaid{session}), twin_.on_hashes(peer, session));
      case 10:
        return check(rounds_.end(peer, session).has_value() == twin_.end(peer, session), "end");
      case 11:
        return check(rounds_.end_all_with(peer).size() == twin_.end_all_with(peer), "end_all_with");
      case 12: {
        const Time limit = now_ - std::chrono::seconds(more % 16);
        return check(rounds_.end_begun_before(limit).size() == twin_.end_begun_before(limit), "end_begun_before");
      }
      case 13:
        return same(rounds_.on(peer, gossip::DiscSectorsSaid{session, asked, disc_sectors(more)}, model(more), more),
                    twin_.on_first_snapshot(peer, session, declared, kind(more), true));
      case 14:
        return same(rounds_.on(peer, gossip::RingDetailsSaid{session, asked, rings(more), more % 2 == 0}, model(more)),
                    twin_.on_first_snapshot(peer, session, declared, kind(more), false, more % 2 == 0));
      case 15:
        return same(rounds_.on(peer, gossip::DiscDetailsSaid{session, disc_details(more)}, model(more)),
                    twin_.on_snapshot(peer, session, true, RoundsTwin::disc, kind(more)));
      case 16:
        return same(rounds_.on(peer, gossip::DiscDetailsResponseSaid{session, disc_details(more)}, model(more)),
                    twin_.on_snapshot(peer, session, false, RoundsTwin::shown, kind(more)));
      case 17:
        return same(rounds_.on(peer, gossip::RingDetailsResponseSaid{session, rings(more)}, model(more)),
                    twin_.on_snapshot(peer, session, true, RoundsTwin::rings, kind(more)));
      case 18:
        // A round of ours as far as the slices of the disc, or to its end: turns need several of these in a row.
        rounds_.start(peer, session, us(), {tie, Timestamp{more}}, now_);
        twin_.start(peer, session, tie, Timestamp{more}, now_);
        accept_came(peer, session, asked, declared, more / 8 % 8);
        answer_leaves(peer, session, what / 21 % 4 != 0);
        same(rounds_.on(peer, gossip::DiscDetailsSaid{session, disc_details(more)}, model(more)),
             twin_.on_snapshot(peer, session, true, RoundsTwin::disc, kind(more)));
        if (what / 21 % 3 == 0) return;
        return same(rounds_.on(peer, gossip::HashesSaid{session}), twin_.on_hashes(peer, session));
      case 19:
        return answer_leaves(peer, session, more / 16 % 4 != 0);
      default:
        now_ += std::chrono::milliseconds(more * 8);
    }
  }

  void answer_leaves(const Url& peer, const Bytes& session, bool compares) {
    check((rounds_.on_answer(peer, session, compares) != nullptr) == twin_.on_answer(peer, session, compares),
          "the answer");
  }

  void accept_came(const Url& peer, const Bytes& session, const std::vector<Bytes>& asked, bool declared, int which) {
    gossip::AcceptSaid said{session, full_, asked, {}, peer.to_string().back() % 2 == 0};
    if (which > 0) said.snapshot = model_.minimal(full_);
    // What the peer has of the disc: the same, nothing, or the sum of something else, perhaps of ids of another length.
    const std::string ours{1, 2, 3, 4};
    std::string theirs = ours;
    if (which == 1 || which >= 5) theirs = which == 1 || which == 5 ? "" : which == 6 ? "of long ids" : "else";
    std::string difference = theirs == ours ? "" : theirs;
    if (difference.empty() && theirs != ours) difference = ours;
    if (theirs.size() == ours.size()) {
      for (std::size_t i = 0; i < difference.size(); ++i) difference[i] = static_cast<char>(theirs[i] ^ ours[i]);
    }
    const bool rings_differ = which == 2 || which >= 4;
    if (said.snapshot) said.snapshot->disc_top_hash = dht::CombinedHash(as_bytes(theirs));
    if (rings_differ) {
      for (auto& hash : said.snapshot->ring_top_hashes) hash = {};
    }
    const auto action = rounds_.on(peer, said, &model_);
    if (const auto* answer = std::get_if<gossip::AnswerAccept>(&action))
      check(answer->in_sync == (which == 3 ? full_ : SectorSet()), "what is in sync");
    same(action, twin_.on_accept(peer, session, declared, which > 0, difference, rings_differ, said.is_ours));
  }

  // A snapshot is made of one byte. Its two lowest bits choose the peer, so the next ones say what it contains.
  static RoundsTwin::Snapshot kind(std::uint8_t more) {
    const int which = more / 4 % 5;
    return which < 3 ? RoundsTwin::differs : which == 3 ? RoundsTwin::nothing : RoundsTwin::bad;
  }
  const dht::DhtModel* model(std::uint8_t more) const {
    // Without a model nothing is compared, so nothing is refused.
    return kind(more) == RoundsTwin::nothing && more % 2 == 0 ? nullptr : &model_;
  }
  Timestamp boundary(std::uint8_t more) const {
    const bool apart = kind(more) == RoundsTwin::nothing;
    return model_.layout().disc_boundary() + (apart ? dht::kUnit : Duration{0});
  }
  std::uint32_t sector(std::uint8_t more) const { return kind(more) == RoundsTwin::bad ? 511 : 0; }
  dht::CombinedHash hash() const { return dht::CombinedHash(Bytes::copy_of("hash").view()); }
  dht::DiscSectorsSnapshot disc_sectors(std::uint8_t more) const { return {boundary(more), {{sector(more), hash()}}}; }
  dht::DiscSectorDetailsSnapshot disc_details(std::uint8_t more) const {
    return {boundary(more), {{sector(more), {{1, hash()}}}}};
  }
  dht::RingSectorDetailsSnapshot rings(std::uint8_t more) const {
    // All sectors, as after ACCEPT with nothing in any ring.
    dht::RingSectorDetailsSnapshot out{boundary(more), {}};
    const auto top = model_.minimal(full_).ring_top_hashes;
    for (std::uint32_t i = 0; i < top.size(); ++i) {
      if (!top[i].empty()) out.rings[i] = {{sector(more), hash()}};
    }
    return out;
  }
  Timestamp old() const { return Timestamp::from_seconds(1'600'000'000); }
  Timestamp recent() const { return Timestamp::from_seconds(1'700'000'000) - std::chrono::hours(3); }
  gossip::OurSide us() const { return {{AgentId(Bytes::copy_of("me"))}, full_}; }

  Commands commands_;
  std::vector<std::string>* seen_;
  gossip::Rounds rounds_;
  RoundsTwin twin_;
  dht::DhtModel model_{Timestamp::from_seconds(1'700'000'000)};
  SectorSet full_;
  Time now_ = Time(std::chrono::hours(1));
};

}  // namespace kitsune2::model
