// The receiving side of publish written naively: every sum is recomputed, every list is searched. Also the run that
// feeds the same commands to it and to Offers.
#pragma once

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/publish/offers.hpp"
#include "kitsune2/bytes.hpp"
#include "model/commands.hpp"

namespace kitsune2::model {

class OffersTwin {
 public:
  std::optional<Offers::OfferId> offer(const Url& peer, std::uint64_t ids, std::uint64_t bytes, bool is_known) {
    see(peer);
    const std::uint64_t part = is_known ? 1 : 2;
    const auto fits = [](std::uint64_t waiting, std::uint64_t more, std::uint64_t bound) {
      return waiting == 0 || waiting + more <= bound;
    };
    if (!fits(waiting_ids(&peer), ids, Offers::kMaxWaitingIdsPerPeer)) return std::nullopt;
    if (!fits(waiting_ids(nullptr), ids, Offers::kMaxWaitingIds / part)) return std::nullopt;
    if (!fits(waiting_bytes(&peer), bytes, Offers::kMaxWaitingBytesPerPeer)) return std::nullopt;
    if (!fits(waiting_bytes(nullptr), bytes, Offers::kMaxWaitingBytes / part)) return std::nullopt;
    messages_.push_back({++last_, peer, ids, bytes});
    queue_up(peer);
    return last_;
  }

  std::optional<Url> next_peer(bool serving, Time now) {
    for (;;) {
      const auto first = std::min_element(held_.begin(), held_.end(), [](const Held& a, const Held& b) {
        return std::pair(a.until, a.peer) < std::pair(b.until, b.peer);
      });
      if (first == held_.end() || first->until > now) break;
      const Url peer = first->peer;
      held_.erase(first);
      queue_up(peer);
      forget(peer);
    }
    const bool rests = rest_ && now < *rest_;
    if (!rests) rest_.reset();
    if (turns_.empty() || rests) return std::nullopt;
    if (under_way_.size() >= (serving ? 1U : Offers::kMaxPieces)) return std::nullopt;
    return turns_.front();
  }

  Offers::Piece next_piece(Time now) {
    const Url peer = turns_.front();
    turns_.erase(turns_.begin());
    Message& message = *first_of(peer);
    Offers::Piece out{peer, message.id, std::min(message.left, Offers::kPieceIds), false, now};
    message.left -= out.ids;
    if (message.left == 0) {
      out.is_last = true;
      messages_.erase(first_of(peer));
    }
    under_way_.push_back(out);
    queue_up(peer);
    return out;
  }

  void hold(const Url& peer, Time until) {
    if (!is_seen(peer)) return;
    std::erase_if(held_, [&](const Held& h) { return h.peer == peer; });
    held_.push_back({peer, until});
    std::erase(turns_, peer);
  }

  Offers::Dropped on_piece_done(const Offers::Piece& piece, bool ok, bool serving, Time now) {
    under_way_.erase(std::find(under_way_.begin(), under_way_.end(), piece));
    Offers::Dropped out;
    if (!ok) {
      for (const Message& message : messages_) {
        if (message.peer != piece.peer) continue;
        out.offers.push_back(message.id);
        out.ids += message.left;
        out.bytes += message.bytes;
      }
      std::erase_if(messages_, [&](const Message& m) { return m.peer == piece.peer; });
      std::erase(turns_, piece.peer);
    }
    forget(piece.peer);
    if (!rest_ && serving && now > piece.begun)
      rest_ = std::min(now + (now - piece.begun) * 5, now + Offers::kLongestRest);
    return out;
  }

  bool may_send_agent(const Url& peer, bool is_known, Time now) {
    Taken& own = see(peer).agents;
    if (!has_one(own, InfoRates::kBurst, InfoRates::kPerSecond, now)) return false;
    if (!is_known) {
      if (!has_one(newcomers_, InfoRates::kNewcomersBurst, InfoRates::kNewcomersPerSecond, now)) return false;
      ++newcomers_.back().second;
    }
    ++own.back().second;
    return true;
  }

  void on_disconnect(const Url& peer) {
    for (Seen& seen : seen_) {
      if (seen.peer == peer) seen.is_connected = false;
    }
    forget(peer);
  }

  std::optional<Time> next_deadline() const {
    std::optional<Time> out;
    if (rest_ && !turns_.empty()) out = rest_;
    for (const Held& held : held_) out = out ? std::min(*out, held.until) : held.until;
    return out;
  }
  std::uint64_t waiting_ids(const Url* peer) const {
    std::uint64_t out = 0;
    for (const Message& message : messages_) out += peer == nullptr || message.peer == *peer ? message.left : 0;
    for (const auto& piece : under_way_) out += peer == nullptr || piece.peer == *peer ? piece.ids : 0;
    return out;
  }
  std::uint64_t waiting_bytes(const Url* peer) const {
    std::uint64_t out = 0;
    for (const Message& message : messages_) out += peer == nullptr || message.peer == *peer ? message.bytes : 0;
    return out;
  }
  std::size_t peers() const { return seen_.size(); }

 private:
  struct Message {
    Offers::OfferId id;
    Url peer;
    std::uint64_t left;
    std::uint64_t bytes;
  };
  struct Held {
    Url peer;
    Time until;
  };
  /// The times of the requests, and how many were granted at each.
  using Taken = std::vector<std::pair<Time, int>>;
  struct Seen {
    Url peer;
    bool is_connected = true;
    Taken agents;
  };
  /// Whether one is left, counting from the first one.
  static bool has_one(Taken& taken, std::int64_t burst, std::int64_t per_second, Time now) {
    if (taken.empty() || taken.back().first != now) taken.emplace_back(now, 0);
    std::int64_t left = burst * 1'000'000;
    Time last = taken.front().first;
    for (const auto& [at, count] : taken) {
      left = std::min(burst * 1'000'000, left + (at - last).count() * per_second) - count * 1'000'000;
      last = at;
    }
    return left >= 1'000'000;
  }

  bool is_seen(const Url& peer) const {
    return std::any_of(seen_.begin(), seen_.end(), [&](const Seen& s) { return s.peer == peer; });
  }
  Seen& see(const Url& peer) {
    for (Seen& seen : seen_) {
      if (seen.peer != peer) continue;
      seen.is_connected = true;
      return seen;
    }
    return seen_.emplace_back(Seen{peer, true, {}});
  }
  void forget(const Url& peer) {
    if (waiting_ids(&peer) > 0) return;
    const bool goes =
        std::any_of(seen_.begin(), seen_.end(), [&](auto& s) { return s.peer == peer && !s.is_connected; });
    if (!goes) return;
    std::erase_if(seen_, [&](const Seen& s) { return s.peer == peer; });
    std::erase_if(held_, [&](const Held& h) { return h.peer == peer; });
  }
  std::vector<Message>::iterator first_of(const Url& peer) {
    return std::find_if(messages_.begin(), messages_.end(), [&](const Message& m) { return m.peer == peer; });
  }
  void queue_up(const Url& peer) {
    if (first_of(peer) == messages_.end() || std::find(turns_.begin(), turns_.end(), peer) != turns_.end()) return;
    if (std::any_of(held_.begin(), held_.end(), [&](const Held& h) { return h.peer == peer; })) return;
    turns_.push_back(peer);
  }

  std::vector<Message> messages_;  ///< in the order of arrival
  std::vector<Offers::Piece> under_way_;
  std::vector<Url> turns_;
  std::vector<Held> held_;
  Taken newcomers_;
  std::vector<Seen> seen_;
  std::optional<Time> rest_;
  Offers::OfferId last_ = 0;
};

/// The cases that runs have met, so that a test can see that none is missing.
struct OffersCoverage {
  std::uint64_t commands = 0, offers = 0, refused = 0, pieces = 0, dropped = 0, held = 0, agents = 0, too_many = 0;
  std::uint64_t gone = 0, rests = 0;
};

/// Reads commands from bytes and gives them to the core and to the twin. Throws std::logic_error when they differ.
class OffersTwinRun {
 public:
  explicit OffersTwinRun(ByteView commands, OffersCoverage* coverage = nullptr) : commands_(commands) {
    if (coverage != nullptr) coverage_ = coverage;
    for (int i = 0; i < 10; ++i) urls_.push_back(Url::parse("ws://h:1/peer" + std::to_string(i)).value());
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
    if (!ok) throw std::logic_error(std::string("offers and their twin differ: ") + what);
  }
  const Url& url() { return urls_[byte() % urls_.size()]; }

  void step() {
    switch (byte() % 8) {
      case 0:
      case 1:
        return tell();
      case 2:
      case 3:
        return begin();
      case 4:
        return end();
      case 5: {
        const Url& peer = url();
        const std::uint8_t how = byte();
        const bool is_known = how / 8 % 4 == 0;
        for (int left = how % 8 == 0 ? 300 : 3; left > 0; --left) {
          const bool may = core_.may_send_agent(peer, is_known, now_);
          check(may == twin_.may_send_agent(peer, is_known, now_), "may_send_agent");
          ++(may ? coverage_->agents : coverage_->too_many);
        }
        return;
      }
      case 6: {
        static constexpr int kPassed[] = {1, 500, 62'500, 999'999, 2'000'000, 30'000'000};
        now_ += Duration(kPassed[byte() % 6]);
        return;
      }
      default: {
        const Url& peer = url();
        if (byte() % 3 == 0) {
          core_.on_disconnect(peer);
          twin_.on_disconnect(peer);
          ++coverage_->gone;
          return;
        }
        const Time until = now_ + Duration(1 + byte() * 20'000);
        core_.hold(peer, until);
        twin_.hold(peer, until);
        ++coverage_->held;
      }
    }
  }

  void tell() {
    static constexpr std::uint64_t kIds[] = {1, 4096, 10'000, 500'000, 1'200'000, 3'000'000};
    static constexpr std::uint64_t kBytes[] = {4097, 100'000, 30U << 20, 70U << 20};
    const Url& peer = url();
    const std::uint64_t ids = kIds[byte() % 6];
    const std::uint8_t how = byte();
    const std::uint64_t bytes = kBytes[how % 4];
    const bool is_known = how % 8 < 4;
    const auto id = core_.offer(peer, ids, bytes, is_known);
    check(id == twin_.offer(peer, ids, bytes, is_known), "offer");
    ++(id ? coverage_->offers : coverage_->refused);
  }

  void begin() {
    const bool serving = byte() % 2 == 0;
    for (;;) {
      const auto peer = core_.next_peer(serving, now_);
      check(peer == twin_.next_peer(serving, now_), "next_peer");
      if (!peer) return;
      const auto piece = core_.next_piece(now_);
      check(piece == twin_.next_piece(now_), "next_piece");
      under_way_.push_back(piece);
      ++coverage_->pieces;
    }
  }

  void end() {
    if (under_way_.empty()) return;
    const auto at = under_way_.begin() + byte() % static_cast<int>(under_way_.size());
    const Offers::Piece piece = *at;
    under_way_.erase(at);
    const std::uint8_t how = byte();
    const bool ok = how % 8 != 0, serving = how % 2 == 0;
    const auto dropped = core_.on_piece_done(piece, ok, serving, now_);
    check(dropped == twin_.on_piece_done(piece, ok, serving, now_), "piece_done");
    coverage_->dropped += dropped.offers.size();
    coverage_->rests += serving && now_ > piece.begun ? 1 : 0;
  }

  void compare() {
    core_.check_invariants();
    check(core_.waiting_ids() == twin_.waiting_ids(nullptr), "waiting_ids");
    check(core_.waiting_bytes() == twin_.waiting_bytes(nullptr), "waiting_bytes");
    check(core_.peers() == twin_.peers(), "peers");
    check(core_.next_deadline() == twin_.next_deadline(), "next_deadline");
  }

  Commands commands_;
  OffersCoverage own_coverage_;
  OffersCoverage* coverage_ = &own_coverage_;
  std::vector<Url> urls_;
  std::vector<Offers::Piece> under_way_;
  Time now_{};
  Offers core_;
  OffersTwin twin_;
};

}  // namespace kitsune2::model
