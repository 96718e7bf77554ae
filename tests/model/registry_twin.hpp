// Which of a peer's QUIC connections counts, written naively: one list, in the order of age. Also the run that gives
// the same commands to the twin and to iroh::Registry.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "model/commands.hpp"
#include "transport/iroh/registry.hpp"

namespace kitsune2::model {

/// The rules N1 to N6 of iroh::Registry. Ids must grow.
class RegistryTwin {
 public:
  using Registry = iroh::Registry;
  using Id = Registry::Id;
  using Outcome = Registry::Outcome;

  RegistryTwin(const iroh::EndpointId& own, bool keeps_spares) : own_(own), keeps_spares_(keeps_spares) {}

  Outcome on_opened(Id id, const iroh::EndpointId& peer, bool dialled, Time now) {
    Outcome out;
    all_.push_back({id, peer, dialled, false, false, now + Registry::kPreflightLimit});
    if (dialled && takes_slot(id, out)) out.send_preflight = id;
    return out;
  }
  Outcome on_preflight(Id id, Time now) {
    Outcome out;
    if (find(id) == nullptr || find(id)->greeted) return out;
    if (now >= find(id)->until) {
      close(id, 0, kLate, out);
    } else if (find(id)->dialled || takes_slot(id, out)) {
      if (!find(id)->dialled) out.send_preflight = id;
      find(id)->greeted = true;
      out.active = id;
    }
    return out;
  }
  bool on_ended(Id id) {
    const bool held = find(id) != nullptr && find(id)->holds;
    remove(id);
    return held;
  }
  Outcome on_deadline(Time now) {
    Outcome out;
    while (next_deadline() <= now) {
      // Of those that are late to the same time, the oldest comes first.
      const Time first = next_deadline();
      const auto it =
          std::find_if(all_.begin(), all_.end(), [&](const auto& c) { return !c.greeted && c.until == first; });
      close(it->id, 0, kLate, out);
    }
    return out;
  }
  Time next_deadline() const {
    Time out = Time::max();
    for (const Connection& c : all_) out = c.greeted ? out : std::min(out, c.until);
    return out;
  }
  std::optional<Id> holder(const iroh::EndpointId& peer) const {
    for (const Connection& c : all_) {
      if (c.peer == peer && c.holds) return c.id;
    }
    return std::nullopt;
  }
  bool is_active(Id id) const {
    return std::any_of(all_.begin(), all_.end(), [&](const Connection& c) { return c.id == id && c.greeted; });
  }
  std::size_t size() const { return all_.size(); }

 private:
  static constexpr std::string_view kSuperseded = "superseded by preferred connection";
  static constexpr std::string_view kMany = "too many connections";
  static constexpr std::string_view kLate = "timed out waiting for preflight (src: deadline has elapsed)";
  struct Connection {
    Id id;
    iroh::EndpointId peer;
    bool dialled, greeted, holds;
    Time until;
  };

  Connection* find(Id id) {
    const auto it = std::find_if(all_.begin(), all_.end(), [&](const Connection& c) { return c.id == id; });
    return it == all_.end() ? nullptr : &*it;
  }
  /// The side with the larger id dialled it.
  bool counts_more(const Connection& c) const { return own_ > c.peer ? c.dialled : !c.dialled; }
  void remove(Id id) {
    if (find(id) == nullptr) return;
    const Connection gone = *find(id);
    std::erase_if(all_, [&](const Connection& c) { return c.id == id; });
    if (!gone.holds || !keeps_spares_) return;
    Connection* next = nullptr;
    for (Connection& c : all_) {
      if (c.peer == gone.peer && c.greeted) next = &c;
    }
    if (next != nullptr) next->holds = true;
  }
  void close(Id id, std::uint64_t code, std::string_view reason, Outcome& out) {
    remove(id);
    out.close.push_back({id, code, reason});
  }
  bool takes_slot(Id id, Outcome& out) {
    const iroh::EndpointId peer = find(id)->peer;
    const auto before = holder(peer);
    if (before && !keeps_spares_) {
      const bool loses = counts_more(*find(*before)) && !counts_more(*find(id));
      close(loses ? id : *before, 2, kSuperseded, out);
      if (loses) return false;
    }
    if (before && keeps_spares_) find(*before)->holds = false;
    find(id)->holds = true;
    for (;;) {
      if (!keeps_spares_) return true;
      std::vector<Id> spares;
      for (const Connection& c : all_) {
        if (c.peer == peer && c.id != id) spares.push_back(c.id);
      }
      if (spares.size() <= Registry::kMostSpares) return true;
      close(spares.front(), 0, kMany, out);
    }
  }

  const iroh::EndpointId own_;
  const bool keeps_spares_;
  std::vector<Connection> all_;  ///< the oldest first
};

/// How often the runs have reached each important case.
struct RegistryCoverage {
  std::uint64_t commands = 0, superseded = 0, refused = 0, too_many = 0, late = 0, active = 0;
};

/// Reads commands from bytes and gives them to the registry and to the twin. Throws std::logic_error when they differ.
class RegistryTwinRun {
 public:
  static constexpr std::size_t kMostCommands = 80;  ///< the rest is not read, so that no input is slow
  static constexpr std::size_t kMostOpen = 12;

  explicit RegistryTwinRun(ByteView commands, RegistryCoverage* coverage = nullptr)
      : commands_(commands),
        coverage_(coverage != nullptr ? coverage : &own_coverage_),
        keeps_spares_(commands_.byte() % 2 == 1),
        registry_(peer(3), keeps_spares_ ? iroh::Registry::Spares::kept : iroh::Registry::Spares::closed),
        twin_(peer(3), keeps_spares_) {}

  void run() {
    for (std::size_t i = 0; i < kMostCommands && !commands_.is_empty(); ++i) {
      ++coverage_->commands;
      step();
      compare();
    }
    // Whoever has not greeted is gone after the limit, and nobody else.
    now_ += iroh::Registry::kPreflightLimit;
    same(registry_.on_deadline(now_), twin_.on_deadline(now_), "on_deadline at the end");
    compare();
    check(registry_.next_deadline() == Time::max(), "one waits that need not");
  }

 private:
  using Id = iroh::Registry::Id;
  using Outcome = iroh::Registry::Outcome;

  /// The own id is 3. Those of peers 0 and 1 are smaller, the others larger.
  static iroh::EndpointId peer(std::uint8_t number) {
    iroh::EndpointId out{};
    out[number % 2 == 0 ? 0 : 31] = number;
    return out;
  }
  iroh::EndpointId some_peer(std::uint8_t more) const {
    return peer(std::array<std::uint8_t, 5>{0, 1, 2, 4, 5}[more % 5]);
  }
  void check(bool same, const char* what) const {
    if (!same)
      throw std::logic_error(std::string("Registry: ") + what + ", after command " +
                             std::to_string(coverage_->commands));
  }
  void same(const Outcome& ours, const Outcome& twins, const char* what) {
    check(ours.send_preflight == twins.send_preflight && ours.active == twins.active && ours.close == twins.close,
          what);
    coverage_->active += ours.active ? 1 : 0;
    for (const auto& close : ours.close) {
      coverage_->superseded += close.code == iroh::close_code::kSuperseded && close.id != last_ ? 1 : 0;
      coverage_->refused += close.code == iroh::close_code::kSuperseded && close.id == last_ ? 1 : 0;
      coverage_->too_many += close.reason.starts_with("too many") ? 1 : 0;
      coverage_->late += close.reason.starts_with("timed out") ? 1 : 0;
    }
  }

  void step() {
    const std::uint8_t what = commands_.byte(), more = commands_.byte();
    // One of the youngest, or one that is over or never was.
    last_ = next_ - std::min<Id>(next_, more % (kMostOpen + 2));
    switch (what % 8) {
      case 0:
      case 1:
      case 2:
        if (registry_.size() >= kMostOpen) break;
        last_ = next_++;
        return same(registry_.on_opened(last_, some_peer(more), what % 2 == 0, now_),
                    twin_.on_opened(last_, some_peer(more), what % 2 == 0, now_), "on_opened");
      case 3:
      case 4:
        return same(registry_.on_preflight(last_, now_), twin_.on_preflight(last_, now_), "on_preflight");
      case 5: {
        const bool held = registry_.on_ended(last_);
        return check(held == twin_.on_ended(last_), "on_ended");
      }
      case 6:
        now_ += std::chrono::milliseconds(more * 20);
        break;
      default:
        if (more % 2 == 0) now_ = std::max(now_, std::min(registry_.next_deadline(), now_ + std::chrono::seconds(20)));
        return same(registry_.on_deadline(now_), twin_.on_deadline(now_), "on_deadline");
    }
  }

  void compare() {
    check(registry_.size() == twin_.size(), "size");
    check(registry_.next_deadline() == twin_.next_deadline(), "next_deadline");
    check(registry_.is_active(last_) == twin_.is_active(last_), "is_active");
    for (std::uint8_t number = 0; number < 6; ++number) {
      const auto holder = registry_.holder(peer(number));
      check(holder == twin_.holder(peer(number)), "holder");
      check(!holder || registry_.is_active(*holder) == twin_.is_active(*holder), "whether the holder is active");
    }
  }

  Commands commands_;
  RegistryCoverage own_coverage_;
  RegistryCoverage* coverage_;
  const bool keeps_spares_;
  iroh::Registry registry_;
  RegistryTwin twin_;
  Time now_ = Time(std::chrono::hours(1));
  Id next_ = 0, last_ = 0;
};

}  // namespace kitsune2::model
