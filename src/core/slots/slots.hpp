// Who gives up its place when all places are taken. Pure: told the time and a random number.
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
/// What one operator is likely to have many of: the /16 of an IPv4 address, the /32 of an IPv6 one.
Address group_of(const Address& address);

/// Who has a place.
struct Slot {
  std::optional<Address> address;  ///< nullopt: not known (behind another relay)
  Time since{};                    ///< when it came
  std::uint64_t useful_bytes = 0;  ///< what it brought or took that was of use
  bool keep = false;               ///< our own, or one that we called
};

/// Places are drawn from a sample, so that the choice costs the same however many there are.
inline constexpr std::size_t kSample = 64;

/// Chooses whose place a newcomer gets, as Bitcoin Core does for its inbound connections: whoever is hard to imitate
/// stays, and of the rest somebody goes at random.
///
///  E1  One with `keep` never goes.
///  E2  Of the others an eighth stays for the most useful bytes, and as many for the longest stay; of one address at
///      most a quarter of each, but one. *Rationale*: an attacker has to serve us well, and for long, from many
///      addresses, to have those places.
///  E3  Of the rest, those go whose group has most places, and of these those whose address has most. Unknown
///      addresses count one each. *Rationale*: addresses cost more than keys, and networks more than addresses. Who
///      comes alone from somewhere does not go while others come in crowds.
///  E4  A newcomer whose own address would have to give up a place is refused. *Rationale*: a crowd that replaces
///      itself costs work and changes nothing.
/// `sample`: some of those who have a place, drawn at random (all, if they are few). The result is an index into it;
/// nullopt: the newcomer is refused. Complexity: O(n²) in the sample.
std::optional<std::size_t> choose(std::span<const Slot> sample, const std::optional<Address>& newcomer,
                                  std::uint64_t random);

/// The `i`th of the numbers that `random` stands for: for drawing the sample.
std::uint64_t drawn(std::uint64_t random, std::size_t i);

/// Draws the sample of `places` and chooses one of them. `slot_of(place)`: its Slot; nullopt: it cannot be chosen.
/// Null: the newcomer is refused.
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
