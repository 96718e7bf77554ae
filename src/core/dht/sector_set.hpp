// The 512 sectors of the DHT: arcs as sets of sectors, as gossip compares them.
#pragma once

#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kitsune2/arc.hpp"

namespace kitsune2 {

/// A set of sectors of 2^23 locations each. Rust: `ArcSet` of kitsune2_dht.
class SectorSet {
 public:
  static constexpr std::uint32_t kCount = 512;
  /// Sector s is bit s%32 of word s/32, as on the wire.
  using Words = std::array<std::uint32_t, kCount / 32>;
  static constexpr std::uint32_t kBits = 23;
  static constexpr std::uint32_t sector_of(std::uint32_t loc) { return loc >> kBits; }

  SectorSet() = default;
  explicit SectorSet(const Words& words) : words_(words) {}

  /// Adds the sectors that lie completely inside `arc`. *Rationale*: a node that claims a sector answers for all of it;
  /// stock nodes refuse arcs that do not end at a sector's border, so theirs are the same either way.
  void add(const DhtArc& arc) {
    if (arc.empty()) return;
    for (std::uint32_t s = 0; s < kCount; ++s) {
      // Counted from the arc's start: a sector that the start cuts has its first location behind its last.
      const std::uint32_t first = (s << kBits) - arc.start(), last = (s << kBits) + ((1U << kBits) - 1) - arc.start();
      if (first <= last && last <= arc.span()) set(s);
    }
  }

  SectorSet common(const SectorSet& other) const {
    SectorSet out;
    for (std::size_t i = 0; i < words_.size(); ++i) out.words_[i] = words_[i] & other.words_[i];
    return out;
  }

  SectorSet with(const SectorSet& other) const {
    SectorSet out;
    for (std::size_t i = 0; i < words_.size(); ++i) out.words_[i] = words_[i] | other.words_[i];
    return out;
  }

  bool is_within(const SectorSet& other) const { return common(other) == *this; }

  /// The set as arcs, as few as possible: runs of sectors, also across zero. In order of their first sectors; the one
  /// across zero is the last.
  std::vector<DhtArc> runs() const {
    if (empty()) return {};
    if (count() == kCount) return {DhtArc::full()};
    std::vector<DhtArc> out;
    for (std::uint32_t first = 0; first < kCount; ++first) {
      if (!test(first) || test((first + kCount - 1) % kCount)) continue;
      std::uint32_t size = 1;
      while (test((first + size) % kCount)) ++size;
      out.push_back(DhtArc::of_sectors(first, size));
    }
    return out;
  }

  /// Hexadecimal, eight digits per word.
  std::string to_string() const {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string out;
    for (const std::uint32_t word : words_) {
      for (unsigned shift = 32; shift > 0;) out += kDigits[word >> (shift -= 4) & 15U];
    }
    return out;
  }
  /// Parses what to_string returns; nullopt for anything else.
  static std::optional<SectorSet> parse(std::string_view text) {
    SectorSet out;
    if (text.size() != 8 * out.words_.size()) return std::nullopt;
    for (std::uint32_t& word : out.words_) {
      const auto [end, error] = std::from_chars(text.data(), text.data() + 8, word, 16);
      if (error != std::errc() || end != text.data() + 8) return std::nullopt;
      text.remove_prefix(8);
    }
    return out;
  }

  /// Returns false for a sector that does not exist.
  bool test(std::uint32_t sector) const {
    return sector < kCount && ((words_[sector / 32] >> (sector % 32)) & 1U) != 0;
  }
  void set(std::uint32_t sector) { words_[sector / 32] |= 1U << (sector % 32); }
  bool contains(std::uint32_t loc) const { return test(sector_of(loc)); }
  std::uint32_t count() const {
    std::uint32_t out = 0;
    for (const std::uint32_t word : words_) out += static_cast<std::uint32_t>(__builtin_popcount(word));
    return out;
  }
  bool empty() const { return count() == 0; }
  const Words& words() const { return words_; }
  friend bool operator==(const SectorSet&, const SectorSet&) = default;

  /// One arc that covers the set: the set itself if it is one run of sectors (also across zero), else the full arc.
  DhtArc hull() const {
    const auto all = runs();
    if (all.empty()) return DhtArc::none();
    return all.size() == 1 ? all[0] : DhtArc::full();
  }

 private:
  Words words_{};
};

}  // namespace kitsune2
