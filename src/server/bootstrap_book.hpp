// What a bootstrap server keeps, and who goes when it is full: no sockets, no clock, no randomness.
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

/// Agent infos by space, for a few minutes each. Whoever calls it has checked them.
///
/// *Rules*. B1: of one agent the newest created_at stays, in its place; a tombstone removes. An older one changes
/// nothing. B2: a tombstone is remembered for as long as an info older than it could still be put. *Rationale*: nobody
/// can bring an agent back by repeating what it once said. B3: `max_entries_per_space`. When a space is full, the
/// address that has most entries in it loses one, the newcomer counted to its own address; if several have as many, all
/// of them together do. It is the one in the middle of these. *Rationale*: the reference takes the one in the middle of
/// the space, and so do we when nobody has more than others, so that the oldest stay; but an address that puts key
/// after key only replaces its own. B4: a space whose entries all came from one address belongs to that address. At
/// `max_spaces` or `max_bytes` the address that has most such spaces loses one, whoever asks, and an address with half
/// of `max_spaces` loses its own. Of kDraws drawn at random that one goes that no other address has asked for yet, and
/// of those the youngest. *Rationale*: spaces are free to make, so one address could fill the server in a second and
/// keep newcomers out; the price is its own spaces. B5: the only space of an address stays if another address has
/// asked for it, and a space that infos of two addresses are in goes when no other may: of kDraws drawn at random the
/// one of fewest addresses, and of those the youngest. When nothing may go the newcomer is refused. *Rationale*: what
/// is in use stays; but two addresses must not fill the server with spaces that they share.
///
/// Memory: `max_bytes` and about 200 bytes a space. Calls: O(log addresses), but O(entries) in a full space and
/// O(spaces) for `prune` and `set_max_entries_per_space`. Thread rule: one thread.
class BootstrapBook {
 public:
  /// An address that limits are counted by (net::IpAddress::limit_key).
  using Address = std::array<std::uint8_t, 16>;
  static constexpr std::size_t kDraws = 8;
  static constexpr std::size_t kEntryOverhead = 256;  ///< what an entry costs besides its body, about
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
    kTaken,           ///< or changed nothing (B1)
    kTooManySpaces,   ///< B5
    kTooManyEntries,  ///< B5, for `max_bytes`
  };

  explicit BootstrapBook(const BootstrapLimits& limits) : limits_(limits) {}

  /// `random`: for what goes, if something has to.
  Outcome put(const SpaceId& space, const Info& info, Timestamp now, std::uint64_t random);
  /// The bodies as a JSON array, oldest first, without expired ones. `reader`: who asks.
  std::string list(const SpaceId& space, Timestamp now, const Address& reader);
  /// From now on. What is over it in a space goes by B3.
  void set_max_entries_per_space(std::size_t entries);
  /// Drops what has expired.
  void prune(Timestamp now);

  std::size_t spaces() const { return spaces_.size(); }
  std::size_t entries() const { return entries_; }
  std::size_t bytes() const { return bytes_; }
  /// Who is in a space, in order.
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
  struct Grave {
    AgentId agent;
    Timestamp created_at;
  };
  struct Space {
    std::vector<Entry> entries;
    std::vector<Grave> graves;
    std::uint64_t number = 0;      // in the order of coming
    bool asked_for = false;        // by another address than the one that it belongs to
    std::optional<Address> owner;  // B4
    bool is_shared = false;        // of several addresses: it is in shared_
    std::size_t place = 0;         // in owned_[*owner] or shared_
  };
  struct AddressHash {
    std::size_t operator()(const Address& address) const noexcept { return keyed_hash(address); }
  };
  /// Of an address: how many spaces it has, then a number that nobody can choose.
  using Rank = std::pair<std::size_t, std::uint64_t>;

  bool is_stale(const Space& space, const Info& info, Timestamp now) const;
  bool make_room(const SpaceId& spared, const Address& newcomer, std::uint64_t random);
  std::optional<SpaceId> victim(const std::vector<SpaceId>& of, const SpaceId& spared, bool only_unasked,
                                std::uint64_t random) const;
  std::optional<SpaceId> shared_victim(const SpaceId& spared, std::uint64_t random) const;
  void drop(const SpaceId& space);
  void drop_entry(Space& space, std::size_t at);
  void crowd_out(Space& space, std::size_t most, const Address* newcomer);
  void bury(Space& space, const Info& info);
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
  std::vector<SpaceId> shared_;               // of several addresses
  std::size_t bytes_ = 0;
  std::size_t entries_ = 0;
  std::uint64_t next_number_ = 1;
  std::uint64_t evicted_ = 0;
};

}  // namespace kitsune2::server
