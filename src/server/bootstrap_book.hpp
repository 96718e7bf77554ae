// What a bootstrap server keeps, and what it drops when it is full. No sockets, no clock, no randomness.
#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"

namespace kitsune2::server {

struct BootstrapLimits {
  std::size_t max_entries_per_space = 32;
  std::size_t max_spaces = 10'000;
  std::size_t max_bytes = 64U << 20;
};

/// Agent infos by space, for a few minutes each. The caller must have checked them.
///
/// *Rules*.
///  B1  Of one agent the newest created_at is kept, in its place; a tombstone removes it. An older info changes
///      nothing.
///  B2  A tombstone is remembered as long as an older info could still be put. Rationale: nobody can bring an agent
///      back by repeating what it once said.
///  B3  A space has at most `max_entries_per_space`. When it is full, the address with the most entries loses one; the
///      newcomer counts as an entry of its own address. If several addresses have the most, they lose one together: the
///      one in the middle of their entries. Rationale: the reference drops the middle one of the space, and so do we if
///      no address has more than others, so that the oldest stay. But an address that puts one key after the other only
///      replaces its own.
///  B4  A space whose entries all came from one address belongs to that address. At `max_spaces` or `max_bytes`, the
///      address with the most such spaces loses one, whoever asks, and an address with half of `max_spaces` loses its
///      own. Of kDraws spaces drawn at random, one that no other address has asked for is dropped, the youngest of
///      these. Rationale: spaces are free to make, so one address could fill the server in a second and keep newcomers
///      out; the price is its own spaces.
///  B5  The only space of an address stays if another address has asked for it, and a space with infos of two addresses
///      is dropped when no other may be: of kDraws drawn at random the one with the fewest addresses, and of those the
///      youngest. When nothing may be dropped, the newcomer is refused. Rationale: what is in use stays; but two
///      addresses must not fill the server with spaces that they share.
///
/// Memory: `max_bytes` and about 200 bytes per space. Calls: O(log addresses), but O(entries) in a full space and
/// O(spaces) for `prune` and `set_max_entries_per_space`. Thread rule: one thread.
class BootstrapBook {
 public:
  /// The key by which limits count an address (net::IpAddress::limit_key).
  using Address = std::array<std::uint8_t, 16>;
  static constexpr std::size_t kDraws = 8;
  static constexpr std::size_t kEntryOverhead = 256;  ///< the approximate cost of an entry besides its body
  static constexpr Duration kClockSkew = std::chrono::minutes(3);

  struct Info {
    AgentId agent;
    Timestamp created_at;
    Timestamp expires_at;
    bool is_tombstone = false;
    std::string_view body;
    Address from{};
  };
  enum class Outcome {
    taken,             ///< or nothing changed (B1)
    too_many_spaces,   ///< B5
    too_many_entries,  ///< B5, for `max_bytes`
  };

  explicit BootstrapBook(const BootstrapLimits& limits) : limits_(limits) {}

  /// `random`: for choosing what to drop, if necessary.
  Outcome put(const SpaceId& space, const Info& info, Timestamp now, std::uint64_t random);
  /// The bodies as a JSON array, oldest first, without expired ones. `reader`: the address that asks.
  std::string list(const SpaceId& space, Timestamp now, const Address& reader);
  /// Applies from now on. A space with more drops entries by B3.
  void set_max_entries_per_space(std::size_t entries);
  /// Drops expired infos.
  void prune(Timestamp now);

  std::size_t spaces() const { return spaces_.size(); }
  std::size_t entries() const { return entries_; }
  std::size_t bytes() const { return bytes_; }
  /// The agents in a space, in order.
  std::vector<AgentId> agents(const SpaceId& space) const;
  bool has(const SpaceId& space) const { return spaces_.contains(space); }
  std::uint64_t evicted_spaces() const { return evicted_; }
  const BootstrapLimits& limits() const { return limits_; }
  /// O(n); tests.
  void check_invariants() const;

 private:
  struct Entry {
    AgentId agent;
    Timestamp created_at;
    Timestamp expires_at;
    std::string body;
    Address from{};
  };
  struct Tombstone {
    AgentId agent;
    Timestamp created_at;
  };
  struct Space {
    std::vector<Entry> entries;
    std::vector<Tombstone> tombstones;
    std::uint64_t number = 0;      // in the order of arrival
    bool asked_for = false;        // by an address other than its owner
    std::optional<Address> owner;  // B4
    bool is_shared = false;        // it belongs to several addresses, and is in shared_
    std::size_t place = 0;         // in owned_[*owner] or shared_
  };
  struct AddressHash {
    std::size_t operator()(const Address& address) const noexcept { return keyed_hash(address); }
  };
  /// The rank of an address: the number of its spaces, then a number that nobody can choose.
  using Rank = std::pair<std::size_t, std::uint64_t>;

  bool is_stale(const Space& space, const Info& info, Timestamp now) const;
  bool make_room(const SpaceId& spared, const Address& newcomer, std::uint64_t random);
  std::optional<SpaceId> victim(const std::vector<SpaceId>& of, const SpaceId& spared, bool only_unasked,
                                std::uint64_t random) const;
  std::optional<SpaceId> shared_victim(const SpaceId& spared, std::uint64_t random) const;
  void drop(const SpaceId& space);
  void drop_entry(Space& space, std::size_t at);
  void crowd_out(Space& space, std::size_t most, const Address* newcomer);
  void add_tombstone(Space& space, const Info& info);
  void prune_space(Space& space, Timestamp now);
  void settle(const SpaceId& id, Space& space, const std::optional<Address>& maker = std::nullopt);
  void disown(Space& space);
  void own(const SpaceId& id, Space& space, const Address& owner);
  void take_out(std::vector<SpaceId>& list, std::size_t place);
  std::size_t owned_by(const Address& address) const;

  BootstrapLimits limits_;
  boost::unordered_flat_map<SpaceId, Space, std::hash<SpaceId>> spaces_;
  boost::unordered_flat_map<Address, std::vector<SpaceId>, AddressHash> owned_;
  std::set<std::pair<Rank, Address>> ranks_;  // of owned_
  std::vector<SpaceId> shared_;               // spaces that belong to several addresses
  std::size_t bytes_ = 0;
  std::size_t entries_ = 0;
  std::uint64_t next_number_ = 1;
  std::uint64_t evicted_ = 0;
};

}  // namespace kitsune2::server
