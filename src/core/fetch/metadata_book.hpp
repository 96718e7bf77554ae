// What publishers have said about ops besides their ids, for as long as these are to be fetched from them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// Keeps the metadata of pending pairs, in bounded memory.
///
/// *Rules*
///  M1  Metadata belongs to a pair of an op and a source. What was kept first for a pair stays, as in the reference.
///  M2  An entry costs its size and kEntryBytes. All entries together cost at most kMostBytes, those of newcomers a
///      kNewcomersPart of that, and those of one source a quarter of what the others leave of its part. What would
///      exceed that is not kept, and its op is fetched without it. What the caller holds besides (`set_outside`) counts
///      with all entries.
///      Reason: metadata costs a peer nothing, and urls are free. An op without metadata is what gossip brings; a
///      lost op would be worse.
///  M3  When a source has another url, its metadata moves there, but not to pairs that have some.
///
/// The caller forgets what is not pending, and will not be. Pure. Calls are O(1), but O(entries of the source) for a
/// whole source, and O(sources that have described it) for an op.
class MetadataBook {
 public:
  static constexpr std::uint64_t kMostBytes = 64U << 20;
  static constexpr std::uint64_t kNewcomersPart = 5;
  static constexpr std::uint64_t kEntryBytes = 256;

  static std::uint64_t cost_of(const Bytes& metadata) { return kEntryBytes + metadata.size(); }

  MetadataBook() = default;
  MetadataBook(const MetadataBook&) = delete;
  MetadataBook& operator=(const MetadataBook&) = delete;

  /// M1, M2. Returns false if there is no room. Empty metadata is none: nothing is kept.
  bool keep(const OpId& op_id, const Url& source, const Bytes& metadata, bool is_newcomer);
  /// Empty: there is none.
  Bytes find(const OpId& op_id, const Url& source) const;
  /// The caller holds metadata at this cost, by its own count, on its way to the store. It may be entries too.
  /// *Rationale*: an entry may be forgotten before its op is stored.
  void set_outside(std::uint64_t bytes) { outside_bytes_ = bytes; }
  /// The op is no longer pending, at whatever source.
  void forget(const OpId& op_id);
  void forget(const OpId& op_id, const Url& source);
  /// The same for each of them. Costs nothing if there are no entries.
  void forget(std::span<const OpId> op_ids);
  void forget(std::span<const OpId> op_ids, const Url& source);
  void forget_source(const Url& source);
  /// M3.
  void move_source(const Url& old_url, const Url& new_url);

  bool empty() const { return sources_.empty(); }
  std::size_t entries() const;
  std::uint64_t bytes() const { return known_bytes_ + newcomers_bytes_; }
  /// Calls `call(op_id, source)` for each entry.
  template <class F>
  void for_each(F call) const {
    for (const auto& [url, source] : sources_) {
      for (const auto& [op_id, entry] : source.entries) call(op_id, url);
    }
  }
  /// For tests: recomputes every sum, and aborts if one is wrong. O(n).
  void check_invariants() const;

 private:
  struct Entry {
    Bytes metadata;
    bool is_newcomer = false;
    const Url* source = nullptr;  ///< the key in sources_
    std::size_t at = 0;           ///< its place in holders_
  };
  using Entries = std::unordered_map<OpId, Entry>;
  struct Source {
    Entries entries;
    std::uint64_t bytes = 0;
  };
  using Sources = std::unordered_map<Url, Source>;

  void insert(const OpId& op_id, Sources::iterator source, Bytes metadata, bool is_newcomer);
  void erase(Sources::iterator source, Entries::iterator entry);

  Sources sources_;  ///< those with entries
  /// The entries of each op. Nodes of these maps do not move, so pointers to them stay good.
  std::unordered_map<OpId, std::vector<Entry*>> holders_;
  std::uint64_t known_bytes_ = 0, newcomers_bytes_ = 0;
  std::uint64_t outside_bytes_ = 0;
};

}  // namespace kitsune2
