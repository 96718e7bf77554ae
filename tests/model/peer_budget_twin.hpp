// The budget of peers, written naively: each account is computed from everything that ever happened to it, and each
// list is searched. Also the run that gives the same commands to the twin and to PeerBudgetCore.
#pragma once

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/budget/peer_budget_core.hpp"
#include "kitsune2/bytes.hpp"
#include "model/commands.hpp"

namespace kitsune2::model {

class PeerBudgetTwin {
 public:
  using Limits = PeerBudgetCore::Limits;
  using Group = PeerBudgetCore::Group;
  using Agents = std::vector<AgentId>;

  explicit PeerBudgetTwin(const Limits& limits) : limits_(limits) {}

  PeerStanding charge(const Url& url, const Group& group, PeerBudgetCore::Charge what, Time now) {
    Peer* peer = own(url, now);
    History& history = peer != nullptr ? peer->history : others_;
    const std::int64_t micros = what.work;
    PeerStanding out = charge(history, limits_.peer, peer != nullptr ? micros + what.penalty : micros, now);
    if (peer == nullptr) out = std::min(out, PeerStanding::waits);
    if (peer != nullptr && peer->is_known) {
      if (is_most_useful(*peer)) return out;
      return std::max(out, std::min(charge(known_, limits_.known, micros, now), PeerStanding::waits));
    }
    const Rate& rate = group ? limits_.group : limits_.newcomers;
    GroupAccount* shared = group ? group_of(*group, now) : nullptr;
    History& common = !group ? newcomers_ : (shared != nullptr ? shared->history : other_groups_);
    PeerStanding of_all = charge(common, rate, shared != nullptr ? micros + what.penalty : micros, now);
    if (shared == nullptr) of_all = std::min(of_all, PeerStanding::waits);
    return std::max(out, of_all);
  }

  void useful(const Url& url, const Group& group, std::int64_t micros, std::uint64_t value, Time now) {
    Peer* peer = own(url, now);
    const bool was_known = peer != nullptr && peer->is_known;
    (peer != nullptr ? peer->history : others_).push_back({now, micros});
    if (was_known && !is_most_useful(*peer)) known_.push_back({now, micros});
    if (peer != nullptr) add_value(*peer, value);
    if (was_known) return;
    GroupAccount* shared = group ? group_of(*group, now) : nullptr;
    (!group ? newcomers_ : (shared != nullptr ? shared->history : other_groups_)).push_back({now, micros});
  }

  bool waits(const Url& url, const Group& group, Time at) const {
    const auto peer = std::find_if(peers_.begin(), peers_.end(), [&](const Peer& p) { return p.url == url; });
    if (peer != peers_.end()) {
      if (level(peer->history, limits_.peer, at) < 0) return true;
      if (peer->is_known) return !is_most_useful(*peer) && level(known_, limits_.known, at) < 0;
    } else if (peers_.size() >= limits_.max_accounts && level(others_, limits_.peer, at) < 0) {
      return true;
    }
    if (!group) return level(newcomers_, limits_.newcomers, at) < 0;
    const auto shared = std::find_if(groups_.begin(), groups_.end(), [&](const auto& g) { return g.group == *group; });
    if (shared != groups_.end()) return level(shared->history, limits_.group, at) < 0;
    return groups_.size() >= limits_.max_accounts && level(other_groups_, limits_.group, at) < 0;
  }

  void put_aside(const Url& url, const Agents& agents, const Group& group, Time now) {
    std::erase_if(peers_, [&](const Peer& p) { return p.url == url; });
    add_aside("u" + url.to_string(), now);
    for (const AgentId& agent : agents) add_aside(name_of(agent), now);
    if (!group) return;
    const auto shared = std::find_if(groups_.begin(), groups_.end(), [&](const auto& g) { return g.group == *group; });
    if (shared == groups_.end()) return;
    if (level(shared->history, limits_.group, now) > -Wide{limits_.group.burst_micros} * kUnit) return;
    groups_.erase(shared);
    add_aside("g" + *group, now);
  }

  bool is_aside(const Url& url, const Agents& agents, const Group& group, Time now) const {
    if (is_held("u" + url.to_string(), now)) return true;
    std::size_t held = 0;
    for (const AgentId& agent : agents) held += is_held(name_of(agent), now) ? 1 : 0;
    if (held > 0 && held == agents.size()) return true;
    if (!group || !is_held("g" + *group, now) || is_known(url)) return false;
    return std::none_of(gone_.begin(), gone_.end(), [&](const auto& g) {
      return g.first == "u" + url.to_string() || (agents.size() == 1 && g.first == name_of(agents.front()));
    });
  }

  void on_connect(const Url& url, const Agents& agents, Time now) {
    std::vector<std::string> names;
    if (agents.size() == 1) names.push_back(name_of(agents.front()));
    names.push_back("u" + url.to_string());
    for (const std::string& name : names) {
      const auto gone = std::find_if(gone_.begin(), gone_.end(), [&](const auto& g) { return g.first == name; });
      if (gone == gone_.end()) continue;
      Peer* peer = own(url, now);
      if (peer == nullptr) return;
      const std::uint64_t value = gone->second;
      gone_.erase(gone);
      add_value(*peer, value);
    }
  }

  void on_disconnect(const Url& url, const Agents& agents) {
    const auto peer = std::find_if(peers_.begin(), peers_.end(), [&](const Peer& p) { return p.url == url; });
    if (peer == peers_.end() || !peer->is_known) return;
    peer->is_known = false;
    const std::string name = agents.size() == 1 ? name_of(agents.front()) : "u" + url.to_string();
    std::erase_if(gone_, [&](const auto& g) { return g.first == name; });
    gone_.emplace_back(name, std::exchange(peer->value, 0));
    if (gone_.size() > limits_.max_known) gone_.erase(gone_.begin());
  }

  bool is_known(const Url& url) const {
    return std::any_of(peers_.begin(), peers_.end(), [&](const Peer& p) { return p.url == url && p.is_known; });
  }
  std::size_t known() const {
    return static_cast<std::size_t>(std::count_if(peers_.begin(), peers_.end(), [](auto& p) { return p.is_known; }));
  }
  std::size_t accounts() const { return peers_.size() + groups_.size(); }
  std::size_t aside(Time now) const {
    return static_cast<std::size_t>(
        std::count_if(aside_.begin(), aside_.end(), [&](const auto& a) { return now < a.until; }));
  }

 private:
  using Rate = PeerBudgetCore::Rate;
  using Wide = __int128;
  static constexpr Wide kUnit = 1'000'000;
  struct Change {
    Time at;
    std::int64_t micros;
  };
  using History = std::vector<Change>;
  struct Peer {
    Url url;
    History history;
    std::uint64_t value = 0;
    bool is_known = false;
  };
  struct GroupAccount {
    AddressGroup group;
    History history;
  };
  struct Aside {
    std::string name;
    Time until;
    Duration length;
  };

  static std::string name_of(const AgentId& agent) { return "a" + std::string(as_text(agent.view())); }

  static Wide level(const History& history, const Rate& rate, Time now) {
    const Wide most = Wide{rate.burst_micros} * kUnit;
    Wide out = most;
    std::optional<Time> last;
    const auto pass = [&](Time until) {
      if (last) out = std::min(most, out + Wide{(until - *last).count()} * rate.micros_per_second);
      last = until;
    };
    for (const Change& change : history) {
      pass(change.at);
      out = std::clamp(out + Wide{change.micros} * kUnit, -Wide{rate.debt_micros} * kUnit, most);
    }
    pass(now);
    return out;
  }

  bool is_most_useful(const Peer& peer) const {
    const auto better = std::count_if(peers_.begin(), peers_.end(), [&](const Peer& other) {
      return other.is_known && std::pair(other.value, other.url) > std::pair(peer.value, peer.url);
    });
    return static_cast<std::size_t>(better) < limits_.most_useful;
  }

  static PeerStanding charge(History& history, const Rate& rate, std::int64_t micros, Time now) {
    const bool was_good = level(history, rate, now) >= 0;
    history.push_back({now, -micros});
    if (was_good) return PeerStanding::good;
    const bool is_spent = level(history, rate, now) <= -Wide{rate.debt_micros} * kUnit;
    return is_spent ? PeerStanding::over : PeerStanding::waits;
  }

  Peer* own(const Url& url, Time now) {
    for (int round = 0; round < 2; ++round) {
      for (Peer& peer : peers_) {
        if (peer.url == url) return &peer;
      }
      if (peers_.size() < limits_.max_accounts) return &peers_.emplace_back(Peer{url, {}, 0, false});
      sweep(now);
    }
    return nullptr;
  }

  GroupAccount* group_of(const AddressGroup& group, Time now) {
    for (int round = 0; round < 2; ++round) {
      for (GroupAccount& entry : groups_) {
        if (entry.group == group) return &entry;
      }
      if (groups_.size() < limits_.max_accounts) return &groups_.emplace_back(GroupAccount{group, {}});
      sweep(now);
    }
    return nullptr;
  }

  void sweep(Time now) {
    if (swept_ && now - *swept_ < PeerBudgetCore::kSweepEvery) return;
    swept_ = now;
    std::erase_if(peers_, [&](const Peer& p) {
      return !p.is_known && level(p.history, limits_.peer, now) == Wide{limits_.peer.burst_micros} * kUnit;
    });
    std::erase_if(groups_, [&](const GroupAccount& g) {
      return level(g.history, limits_.group, now) == Wide{limits_.group.burst_micros} * kUnit;
    });
  }

  void add_value(Peer& peer, std::uint64_t value) {
    peer.value += value;
    if (peer.value == 0 || peer.is_known) return;
    if (known() < limits_.max_known) {
      peer.is_known = true;
      return;
    }
    Peer* least = nullptr;
    for (Peer& other : peers_) {
      if (!other.is_known) continue;
      if (least == nullptr || std::pair(other.value, other.url) < std::pair(least->value, least->url)) least = &other;
    }
    if (least == nullptr || peer.value <= least->value) return;
    least->is_known = false;
    peer.is_known = true;
  }

  void add_aside(const std::string& name, Time now) {
    const auto it = std::find_if(aside_.begin(), aside_.end(), [&](const Aside& a) { return a.name == name; });
    Duration length = limits_.first_aside;
    if (it != aside_.end()) {
      if (now < it->until) return;
      if (now < it->until + limits_.longest_aside) length = std::min(it->length + it->length, limits_.longest_aside);
      aside_.erase(it);
    } else if (aside_.size() >= limits_.max_aside) {
      aside_.erase(std::min_element(aside_.begin(), aside_.end(), [](const Aside& a, const Aside& b) {
        return std::pair(a.until, a.name) < std::pair(b.until, b.name);
      }));
    }
    aside_.push_back({name, now + length, length});
  }

  bool is_held(const std::string& name, Time now) const {
    return std::any_of(aside_.begin(), aside_.end(), [&](const Aside& a) { return a.name == name && now < a.until; });
  }

  const Limits limits_;
  std::vector<Peer> peers_;
  std::vector<GroupAccount> groups_;
  History newcomers_, known_, others_, other_groups_;
  std::optional<Time> swept_;
  std::vector<std::pair<std::string, std::uint64_t>> gone_;
  std::vector<Aside> aside_;
};

/// How often the runs have reached each important case, so that a test can see that none was left out.
struct PeerBudgetCoverage {
  std::uint64_t commands = 0, good = 0, waits = 0, over = 0, known = 0, demoted = 0, returned = 0, aside = 0;
};

/// Reads commands from bytes and gives them to the core and to the twin. Throws std::logic_error when they differ.
class PeerBudgetTwinRun {
 public:
  explicit PeerBudgetTwinRun(ByteView commands, PeerBudgetCoverage* coverage = nullptr) : commands_(commands) {
    if (coverage != nullptr) coverage_ = coverage;
    for (int i = 0; i < 12; ++i) {
      urls_.push_back(Url::parse("ws://h:1/peer" + std::to_string(i)).value());
      agents_.emplace_back(as_bytes("agent" + std::to_string(i)));
    }
  }

  static PeerBudgetCore::Limits limits() {
    PeerBudgetCore::Limits out;
    out.peer = {100'000, 1'000'000};
    out.group = {150'000, 2'000'000};
    out.newcomers = {200'000, 3'000'000, 1'000'000};
    out.known = {50'000, 500'000, 200'000};
    out.most_useful = 1;
    out.first_aside = std::chrono::seconds(10);
    out.longest_aside = std::chrono::seconds(60);
    out.max_accounts = 8;
    out.max_known = 3;
    out.max_aside = 6;
    return out;
  }

  void run() {
    while (!commands_.is_empty()) {
      ++coverage_->commands;
      step();
      compare();
    }
  }

 private:
  std::uint8_t byte() { return commands_.byte(); }
  static void check(bool ok, const char* what) {
    if (!ok) throw std::logic_error(std::string("the budget and its twin differ: ") + what);
  }
  const Url& url() { return urls_[byte() % urls_.size()]; }
  PeerBudgetCore::Group group() {
    const std::uint8_t which = byte() % 24;
    return which < 10 ? PeerBudgetCore::Group("10.0.0." + std::to_string(which)) : std::nullopt;
  }
  std::vector<AgentId> some_agents() {
    std::vector<AgentId> out;
    for (int left = byte() % 4 % 3; left > 0; --left) out.push_back(agents_[byte() % agents_.size()]);
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
  }

  void step() {
    static constexpr std::int64_t kWork[] = {5, 50'000, 300'000, 900'000, 2'500'000, 0, 3'600'000'000, 20'000};
    static constexpr int kPassed[] = {1, 1000, 100'000, 999'999, 3'000'000, 20'000'000, 61'000'000, 7};
    switch (byte() % 16) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
        return charge();
      case 6:
      case 7: {
        const Url peer = url();
        const auto from = group();
        const std::int64_t micros = kWork[byte() % 6];
        const std::uint64_t value = byte() % 8;
        const bool was_known = core_.is_known(peer);
        const std::size_t known = core_.known();
        core_.useful(peer, from, micros, value, now_);
        twin_.useful(peer, from, micros, value, now_);
        if (!was_known && core_.is_known(peer)) ++(core_.known() == known ? coverage_->demoted : coverage_->known);
        return;
      }
      case 8:
      case 9: {
        const Url peer = url();
        const auto agents = some_agents();
        const bool was_known = core_.is_known(peer);
        core_.on_connect(peer, agents);
        twin_.on_connect(peer, agents, now_);
        coverage_->returned += !was_known && core_.is_known(peer) ? 1 : 0;
        return;
      }
      case 10: {
        const Url peer = url();
        const auto agents = some_agents();
        core_.on_disconnect(peer, agents);
        return twin_.on_disconnect(peer, agents);
      }
      case 11: {
        const Url peer = url();
        return put_aside(peer, group());
      }
      default:
        now_ += Duration(kPassed[byte() % 8]);
        // The core learns the time with the next call.
        core_.charge(urls_.front(), std::nullopt, 0, now_);
        twin_.charge(urls_.front(), std::nullopt, {}, now_);
    }
  }

  void charge() {
    static constexpr std::int64_t kWork[] = {5, 50'000, 300'000, 900'000, 2'500'000, 0, 3'600'000'000, 20'000};
    const Url peer = url();
    const auto from = group();
    const std::int64_t micros = kWork[byte() % 8];
    const PeerBudgetCore::Charge what =
        micros % 3 == 0 ? PeerBudgetCore::Charge{micros / 3, micros - micros / 3} : PeerBudgetCore::Charge{micros, 0};
    const PeerStanding standing = core_.charge(peer, from, what, now_);
    check(standing == twin_.charge(peer, from, what, now_), "charge");
    ++(standing == PeerStanding::good ? coverage_->good
                                      : (standing == PeerStanding::waits ? coverage_->waits : coverage_->over));
    if (standing == PeerStanding::over) put_aside(peer, from);
  }

  void put_aside(const Url& peer, const PeerBudgetCore::Group& from) {
    const auto agents = some_agents();
    core_.put_aside(peer, agents, from, now_);
    twin_.put_aside(peer, agents, from, now_);
    ++coverage_->aside;
  }

  void compare() {
    core_.check_invariants();
    check(core_.accounts() == twin_.accounts(), "accounts");
    check(core_.known() == twin_.known(), "known");
    check(core_.aside(now_) == twin_.aside(now_), "aside");
    const Url& peer = urls_[coverage_->commands % urls_.size()];
    const PeerBudgetCore::Group from = coverage_->commands % 2 == 0 ? std::nullopt : PeerBudgetCore::Group("10.0.0.1");
    check(core_.is_known(peer) == twin_.is_known(peer), "is_known");
    const std::vector<AgentId> agents{agents_[coverage_->commands % 5], agents_[coverage_->commands % 7]};
    check(core_.is_aside(peer, agents, from, now_) == twin_.is_aside(peer, agents, from, now_), "is_aside");
    const auto until = core_.waits_until(peer, from, now_);
    check(until.has_value() == twin_.waits(peer, from, now_), "waits");
    if (!until) return;
    check(twin_.waits(peer, from, *until - Duration(1)) && !twin_.waits(peer, from, *until), "waits_until");
  }

  Commands commands_;
  PeerBudgetCoverage own_coverage_;
  PeerBudgetCoverage* coverage_ = &own_coverage_;
  std::vector<Url> urls_;
  std::vector<AgentId> agents_;
  Time now_{};
  PeerBudgetCore core_{limits()};
  PeerBudgetTwin twin_{limits()};
};

}  // namespace kitsune2::model
