// Which place is given away when all are taken. Pure: it is told the time and a random number.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kitsune2/time.hpp"

namespace kitsune2::slots {

/// An IPv4 address (mapped into IPv6) or the /64 of an IPv6 one: net::IpAddress::limit_key.
using Address = std::array<std::uint8_t, 16>;

bool is_v4(const Address& address);
/// What one operator is likely to have many of: the /16 of an IPv4 address, the /32 of an IPv6 address.
Address group_of(const Address& address);

/// The holder of a place.
struct Slot {
  std::optional<Address> address;  ///< nullopt: unknown (behind another relay)
  Time since{};                    ///< when it arrived
  std::uint64_t useful_bytes = 0;  ///< the useful bytes that it sent or received
  bool keep = false;               ///< it is our own, or one that we called
};

/// The size of the sample, so that the choice costs the same however many places there are.
inline constexpr std::size_t kSample = 64;

/// Chooses whose place a newcomer gets, as Bitcoin Core does for its inbound connections: holders that are hard to
/// imitate stay, and one of the rest is chosen at random.
///
///  E1  A holder with `keep` is never chosen.
///  E2  Of the others, an eighth is protected for the most useful bytes, and as many for the longest stay; of one
///      address at most a quarter of each, but at least one. *Rationale*: to have those places, an attacker must serve
///      us well, for a long time, from many addresses.
///  E3  Of the rest, those are chosen whose group has the most places, and among these those whose address has the
///      most. Unknown addresses count as one each. The more useful half of those stays too. *Rationale*: addresses cost
///      more than keys, and networks more than addresses. A lone peer is not chosen while others come in crowds. Where
///      addresses tell nothing, because all are behind one (NAT) or none is known, usefulness still does.
///  E4  A newcomer whose own address would have to give up a place is refused. *Rationale*: a crowd that replaces
///      itself costs work and changes nothing.
/// `sample`: some of the holders, drawn at random (or all, if they are few). Returns an index into it; nullopt: the
/// newcomer is refused. Complexity: O(n²) in the sample.
std::optional<std::size_t> choose(std::span<const Slot> sample, const std::optional<Address>& newcomer,
                                  std::uint64_t random);

/// Number `i` of the sequence that `random` stands for; for drawing the sample.
std::uint64_t drawn(std::uint64_t random, std::size_t i);

/// Draws a sample of `places` and chooses one of them. `slot_of(place)` returns its Slot; nullopt: it cannot be chosen.
/// Returns null if the newcomer is refused.
template <class Place, class SlotOf>
Place* choose_from(const std::vector<Place*>& places, const std::optional<Address>& newcomer, std::uint64_t random,
                   SlotOf slot_of) {
  std::vector<Slot> sample;
  std::vector<Place*> who;
  const bool all = places.size() <= kSample;
  for (std::size_t i = 0; i < std::min(places.size(), kSample); ++i) {
    Place* place = places[all ? i : drawn(random, i) % places.size()];
    if (std::find(who.begin(), who.end(), place) != who.end()) continue;
    const std::optional<Slot> slot = slot_of(*place);
    if (!slot) continue;
    who.push_back(place);
    sample.push_back(*slot);
  }
  const auto chosen = choose(sample, newcomer, drawn(random, kSample));
  return chosen ? who[*chosen] : nullptr;
}

}  // namespace kitsune2::slots
