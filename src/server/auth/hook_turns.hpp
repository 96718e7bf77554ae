// Which client's question the hook server is asked next. Pure: it is told the time.
#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"

namespace kitsune2::server {

/// Bounds the calls to a hook server that may be slow, or answer nothing at all.
///
/// *Rules*.
///  H1  At most `calls` are under way, and `address_calls` of one address. *Rationale*: a client may ask as often as it
///      likes; others find a free place all the same.
///  H2  Beyond that a question waits. Addresses take turns, one question each; those of one address are in order.
///  H3  At most `waiting` questions wait, and `address_waiting` of one address. When all places are taken, the newest
///      question of the address with the most gives its place to an address that has at least two less. Whoever has no
///      place is told so at once.
///  H4  A question that has waited for `patience` is given up. *Rationale*: its client does not wait for ever, and a
///      hook server that comes back is not asked what nobody wants to know any more.
/// Memory is bounded by `calls` and `waiting`. Calls are O(addresses that wait). Thread rule: one thread.
class HookTurns {
 public:
  using Address = std::array<std::uint8_t, 16>;
  using Question = std::uint64_t;

  struct Limits {
    std::size_t calls = 32;
    std::size_t address_calls = 8;
    std::size_t waiting = 1024;
    std::size_t address_waiting = 64;
    Duration patience = std::chrono::seconds(10);
  };

  explicit HookTurns(const Limits& limits) : limits_(limits) {}
  HookTurns() : HookTurns(Limits()) {}

  /// `question` comes from `address`; it must be a new one. What follows from it is returned by `next` and `given_up`.
  void ask(Question question, const Address& address, Time now);
  /// The question to call the hook server for; it is under way from now on.
  std::optional<Question> next();
  /// The questions that are not answered, because they waited too long, lost their place or found none.
  std::vector<Question> given_up(Time now);
  /// A call for a question of `address` has ended.
  void ended(const Address& address);
  /// When the next question has waited too long.
  std::optional<Time> next_deadline() const;

  std::size_t calls() const { return calls_; }
  std::size_t waiting() const { return waiting_; }
  /// O(n), for tests.
  void check_invariants() const;

 private:
  struct Hash {
    std::size_t operator()(const Address& address) const noexcept { return keyed_hash(address); }
  };
  struct Waiting {
    Question question;
    Time since;
  };
  struct Account {
    std::size_t calls = 0;
    std::deque<Waiting> waiting;
  };

  void drop_if_idle(const Address& address);

  const Limits limits_;
  boost::unordered_flat_map<Address, Account, Hash> accounts_;
  std::deque<Address> ring_;  // those with questions that wait, each once
  std::vector<Question> lost_;
  std::size_t calls_ = 0;
  std::size_t waiting_ = 0;
};

}  // namespace kitsune2::server
