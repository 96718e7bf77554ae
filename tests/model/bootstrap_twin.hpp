// The naive twin of BootstrapBook: lists that are searched for every question. Where the book draws at random, the twin
// only knows which spaces might have been dropped, and follows the book's choice.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/slots/slots.hpp"
#include "kitsune2/error.hpp"
#include "server/bootstrap_book.hpp"

namespace kitsune2::model {

/// Gives the same commands to the book and to its twin.
class BootstrapUnderTest {
 public:
  using Book = server::BootstrapBook;
  using Address = Book::Address;

  struct Coverage {
    std::size_t puts = 0, evicted = 0, crowded_out = 0, refused = 0, own_replaced = 0, stale = 0, buried = 0;
  };

  explicit BootstrapUnderTest(const server::BootstrapLimits& limits) : book_(limits) {}

  /// Takes one step. Any four numbers make a valid one.
  void step(std::uint8_t command, std::uint8_t where, std::uint8_t who, std::uint8_t more) {
    switch (command % 8) {
      case 0:
        now_ = now_ + std::chrono::seconds(more);
        break;
      case 1:
        prune();
        break;
      case 2:
        ask(where, address(more));
        break;
      default:
        put(where, who, address(command >> 3 & 3U), more);
        break;
    }
    compare();
  }
  const Coverage& coverage() const { return coverage_; }

 private:
  struct Entry {
    AgentId agent;
    Timestamp created_at, expires_at;
    std::size_t bytes = 0;
    Address from{};
  };
  struct Space {
    std::vector<Entry> entries;
    std::map<AgentId, Timestamp> tombstones;
    std::size_t number = 0;
    bool asked_for = false;
    std::optional<Address> maker;
  };

  static Address address(std::uint8_t number) {
    Address out{};
    out[15] = static_cast<std::uint8_t>(1 + number % 4);
    return out;
  }
  static SpaceId space_id(std::uint8_t number) { return SpaceId::from_text(std::to_string(number % 16)); }
  static AgentId agent_id(std::uint8_t number) { return AgentId::from_text("agent " + std::to_string(number % 12)); }

  std::optional<Address> owner(const Space& space) const {
    std::set<Address> from;
    for (const Entry& entry : space.entries) from.insert(entry.from);
    if (from.size() > 1) return std::nullopt;
    return from.empty() ? space.maker : *from.begin();
  }
  std::size_t owned(const Address& who) const {
    return static_cast<std::size_t>(
        std::ranges::count_if(spaces_, [&](const auto& space) { return owner(space.second) == who; }));
  }
  std::size_t bytes() const {
    std::size_t out = 0;
    for (const auto& [id, space] : spaces_) {
      for (const Entry& entry : space.entries) out += entry.bytes;
    }
    return out;
  }
  void settle(Space& space) const {
    // A space without entries keeps its last owner; see BootstrapBook::settle.
    if (!space.entries.empty()) space.maker = owner(space);
  }

  void prune_space(Space& space) const {
    std::erase_if(space.entries, [&](const Entry& entry) { return entry.expires_at <= now_; });
    std::erase_if(space.tombstones, [&](const auto& tombstone) { return tombstone.second + Book::kClockSkew < now_; });
    settle(space);
  }
  void prune() {
    book_.prune(now_);
    for (auto& [id, space] : spaces_) prune_space(space);
    std::erase_if(spaces_, [](const auto& s) { return s.second.entries.empty() && s.second.tombstones.empty(); });
  }
  void ask(std::uint8_t where, const Address& reader) {
    const SpaceId id = space_id(where);
    book_.list(id, now_, reader);
    const auto it = spaces_.find(id);
    if (it == spaces_.end()) return;
    if (const auto whose = owner(it->second); whose && *whose != reader) it->second.asked_for = true;
  }

  /// Whether `id` may be dropped for a newcomer from `from` in another space (B4, B5).
  bool may_go(const SpaceId& id, const SpaceId& spared, const Address& from) const {
    const Space& space = spaces_.at(id);
    if (id == spared) return false;
    const auto whose = owner(space);
    if (whose) return owned_may_go(id, *whose, spared, from);
    // If the spaces belong to several addresses and no other may be dropped: one of the address with the fewest, the
    // youngest first. There are never more than kDraws.
    const auto worth = [](const Space& s) {
      std::set<Address> addresses;
      for (const Entry& entry : s.entries) addresses.insert(entry.from);
      return std::pair(addresses.size(), ~s.number);
    };
    return std::ranges::none_of(spaces_, [&](const auto& other) {
      if (other.first == spared || other.first == id) return false;
      const auto o = owner(other.second);
      return o ? owned_may_go(other.first, *o, spared, from) : worth(other.second) < worth(space);
    });
  }
  bool owned_may_go(const SpaceId& id, const Address& its, const SpaceId& spared, const Address& from) const {
    const Space& space = spaces_.at(id);
    const std::optional<Address> whose = its;
    std::size_t most = 0;
    for (const auto& [other, s] : spaces_) {
      if (const auto o = owner(s)) most = std::max(most, owned(*o));
    }
    const std::size_t own = owned(from);
    const std::size_t theirs = owned(*whose);
    const bool newcomer_pays = own > 0 && (own >= most || own >= book_.limits().max_spaces / 2);
    if (newcomer_pays && *whose != from) {
      // Only if the newcomer has no other space.
      for (const auto& [other, s] : spaces_) {
        if (other != spared && owner(s) == from) return false;
      }
    }
    if (!(newcomer_pays && *whose == from)) {
      if (theirs != most) return false;
      if (most == 1 && space.asked_for) return false;
    }
    // Of all spaces of its address, the one that is worth least; no address has more than kDraws here.
    for (const auto& [other, s] : spaces_) {
      if (other == spared || other == id || owner(s) != whose) continue;
      if (most == 1 && !newcomer_pays && s.asked_for) continue;
      if (std::pair(!s.asked_for, s.number) > std::pair(!space.asked_for, space.number)) return false;
    }
    return true;
  }
  /// The space that the book has dropped and the twin still has.
  void drop_what_went(const SpaceId& spared, const Address& from) {
    // The book may have dropped several, in an order that cannot be seen. So any that may be dropped now was first.
    for (bool again = true; again;) {
      again = false;
      for (const auto& [id, space] : spaces_) {
        if (book_.has(id) || !may_go(id, spared, from)) continue;
        coverage_.own_replaced += owner(space) == from ? 1 : 0;
        coverage_.evicted += 1;
        spaces_.erase(id);
        again = true;
        break;
      }
    }
    for (const auto& [id, space] : spaces_) K2_ASSERT(book_.has(id));
  }

  void put(std::uint8_t where, std::uint8_t who, const Address& from, std::uint8_t more) {
    const SpaceId id = space_id(where);
    Book::Info info;
    info.agent = agent_id(who);
    info.created_at = now_ - std::chrono::seconds(more % 8);
    info.expires_at = info.created_at + std::chrono::seconds(60 + 4 * more);
    info.is_tombstone = more % 7 == 6;
    const std::string body(1 + more, 'x');
    info.body = body;
    info.from = from;
    const bool is_new = !spaces_.contains(id);
    const std::size_t before = spaces_.size();
    const std::size_t own = owned(from);
    const auto outcome = book_.put(id, info, now_, random_ = slots::drawn(random_, more));
    coverage_.puts += 1;
    if (is_new && info.is_tombstone) {
      K2_ASSERT(outcome == Book::Outcome::taken && !book_.has(id));
      return;
    }
    if (!is_new) {
      prune_space(spaces_.at(id));
      const Space& space = spaces_.at(id);
      const auto old = std::ranges::find_if(space.entries, [&](const Entry& e) { return e.agent == info.agent; });
      const bool kept = old != space.entries.end() && old->created_at >= info.created_at;
      const auto tombstone = space.tombstones.find(info.agent);
      if (kept || (tombstone != space.tombstones.end() && tombstone->second >= info.created_at)) {
        coverage_.stale += 1;
        K2_ASSERT(outcome == Book::Outcome::taken);
        return;
      }
    }
    drop_what_went(id, from);
    if (outcome != Book::Outcome::taken) {
      coverage_.refused += 1;
      for (const auto& [other, space] : spaces_) K2_ASSERT(!may_go(other, id, from));
      const bool full = is_new && (before >= book_.limits().max_spaces || own >= book_.limits().max_spaces / 2);
      K2_ASSERT(outcome != Book::Outcome::too_many_spaces || full);
      return;
    }
    take(id, info, body.size() + Book::kEntryOverhead);
  }
  void take(const SpaceId& id, const Book::Info& info, std::size_t cost) {
    Space& space = spaces_[id];
    if (space.number == 0) space.number = ++last_number_;
    const auto same = [&](const Entry& e) { return e.agent == info.agent; };
    const auto old = std::ranges::find_if(space.entries, same);
    const Entry entry{info.agent, info.created_at, info.expires_at, cost, info.from};
    if (info.is_tombstone) {
      coverage_.buried += old != space.entries.end() ? 1 : 0;
      settle(space);
      std::erase_if(space.entries, same);
      space.tombstones[info.agent] = info.created_at;
      if (space.entries.empty() && !space.maker) space.maker = info.from;
    } else if (old != space.entries.end()) {
      *old = entry;
    } else {
      crowd_out(space, info.from);
      space.entries.push_back(entry);
    }
    settle(space);
  }
  /// B3.
  void crowd_out(Space& space, const Address& newcomer) {
    if (space.entries.size() < book_.limits().max_entries_per_space) return;
    coverage_.crowded_out += 1;
    const auto weight = [&](const Entry& e) {
      const auto same = std::ranges::count_if(space.entries, [&](const Entry& o) { return o.from == e.from; });
      return same + (e.from == newcomer ? 1 : 0);
    };
    std::vector<std::size_t> heaviest;
    for (std::size_t i = 0; i < space.entries.size(); ++i) {
      const auto w = weight(space.entries[i]);
      if (!heaviest.empty() && weight(space.entries[heaviest.front()]) > w) continue;
      if (!heaviest.empty() && weight(space.entries[heaviest.front()]) < w) heaviest.clear();
      heaviest.push_back(i);
    }
    space.entries.erase(space.entries.begin() + static_cast<std::ptrdiff_t>(heaviest[heaviest.size() / 2]));
  }

  void compare() {
    book_.check_invariants();
    K2_ASSERT(book_.spaces() == spaces_.size() && book_.bytes() == bytes());
    for (const auto& [id, space] : spaces_) {
      const auto agents = book_.agents(id);
      K2_ASSERT(agents.size() == space.entries.size());
      for (std::size_t i = 0; i < agents.size(); ++i) K2_ASSERT(agents[i] == space.entries[i].agent);
    }
  }

  Book book_;
  std::map<SpaceId, Space> spaces_;
  std::size_t last_number_ = 0;
  std::uint64_t random_ = 7;
  Timestamp now_ = Timestamp::from_seconds(1'800'000'000);
  Coverage coverage_;
};

}  // namespace kitsune2::model
