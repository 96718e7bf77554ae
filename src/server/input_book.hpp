// Input that a server keeps of its connections, and which of them goes when all together keep too much.
#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/slots/slots.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"

namespace kitsune2::server {

/// *Rules*.
///  I1  While all connections keep more than `most`, of slots::kSample that keep something, drawn at random, the one
///      goes whose address keeps the most, times how long its own input has waited (in ms, and one). *Rationale*:
///      decision 0058. Whoever goes on keeps little, and not for long; a crowd weighs as much as it keeps.
///  I2  What the node of this process keeps (slots::Address{}) does not count.
/// Memory: a few words for each connection that keeps something. Pure; calls are O(1), `choose` O(kSample).
class InputBook {
 public:
  using Id = std::uint64_t;
  using Address = slots::Address;

  /// `id`, of `address`, keeps `bytes`, which wait since `since`. 0 bytes: it keeps nothing.
  void set(Id id, const Address& address, std::size_t bytes, Time since);
  /// Who goes now; nullopt: nobody. After it, `set` it to nothing and ask again.
  std::optional<Id> choose(std::size_t most, std::uint64_t random, Time now) const;

  std::size_t bytes() const { return bytes_; }
  std::size_t bytes_of(Id id) const;
  std::size_t connections() const { return order_.size(); }
  /// O(n); tests.
  void check_invariants() const;

 private:
  struct Entry {
    Address address{};
    std::size_t bytes = 0;
    Time since{};
    std::size_t place = 0;  ///< in order_
  };
  struct Hash {
    std::size_t operator()(const Address& address) const noexcept { return keyed_hash(address); }
  };

  boost::unordered_flat_map<Id, Entry> entries_;
  std::vector<Id> order_;  ///< from which one is drawn
  boost::unordered_flat_map<Address, std::size_t, Hash> of_address_;
  std::size_t bytes_ = 0;
};

}  // namespace kitsune2::server
