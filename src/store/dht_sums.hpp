// The sums of ops that a DHT model needs: how they are added up, and the form in which a store keeps them.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "kitsune2/op_store.hpp"

namespace kitsune2::store {

/// Sums of ops, by sector and by full slice before `boundary_unit`, by sector and unit after it: what `DhtModel` keeps
/// (its rule M3). About 60 bytes for each that holds an op.
class DhtSumCells {
 public:
  /// Longer ids are not summed up.
  static constexpr std::size_t kMostIdBytes = 1'024;

  /// Starts anew, without ops.
  void clear(std::int64_t boundary_unit);
  std::int64_t boundary_unit() const { return boundary_unit_; }
  /// Takes in an op. Returns false, without effect, if its id is empty, too long, or of another length than the first.
  [[nodiscard]] bool add(std::uint32_t location, Timestamp created_at, ByteView id);
  /// Counts an op that is in no cell.
  void add_apart() {
    ++apart_;
    ++ops_;
  }
  /// Of all ops, also those in no cell.
  std::uint64_t ops() const { return ops_; }
  std::size_t cells() const { return counts_.size(); }

  /// These sums and `kept` together; `boundary_unit` is none of an earlier time than theirs. nullopt: the lengths of
  /// their ids differ.
  std::optional<DhtSums> with(DhtSums kept, std::int64_t boundary_unit) const;

 private:
  std::int64_t boundary_unit_ = 0;
  std::size_t id_bytes_ = 0;
  std::uint64_t ops_ = 0, apart_ = 0;
  boost::unordered_flat_map<std::uint64_t, std::uint32_t> places_;  ///< by key, in the vectors
  std::vector<std::uint64_t> keys_, counts_;
  std::vector<std::uint8_t> hashes_;
};

/// The sums of all ops that were stored up to a moment, as a store keeps them: a number of version, what they are for,
/// and the sums, packed, all under a sum of its bytes.
struct DhtSumsRow {
  std::int64_t covered = 0;        ///< the time of storing of the last op in them
  std::uint64_t last = 0;          ///< a sum of its id
  std::uint64_t ops = 0;           ///< how many are in them
  std::int64_t boundary_unit = 0;  ///< before it there are full slices, after it units
  std::uint64_t salt = 0;          ///< drawn when they were made from all ops; kept while ops are only added
  std::uint64_t places = 0;        ///< tells one function from ids to locations from another
  DhtSums sums = {};

  std::vector<std::uint8_t> encode() const;
  /// nullopt: it is damaged, or of another version. Else it is what `encode` can give, whatever the bytes are.
  static std::optional<DhtSumsRow> decode(ByteView bytes);
  friend bool operator==(const DhtSumsRow&, const DhtSumsRow&) = default;
};

}  // namespace kitsune2::store
