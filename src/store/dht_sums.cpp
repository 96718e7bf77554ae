// Sums of ops for a DHT model: adding them up, and their bytes in a store.
#include "store/dht_sums.hpp"

#include <algorithm>
#include <cstring>

#include "core/dht/sector_set.hpp"
#include "core/dht/time_layout.hpp"
#include "store/byte_sum.hpp"
#include "store/runs/block.hpp"

namespace kitsune2::store {
namespace {

using runs::load;
using runs::save;

/// A cell as a number, so that the order of numbers is that of cells: the first unit, the sector, and whether it is a
/// unit. No time has a unit of more than 34 bits.
constexpr std::uint64_t key_of(std::int64_t first_unit, std::uint32_t sector, bool is_unit) {
  return static_cast<std::uint64_t>(first_unit) << 10U | sector << 1U | (is_unit ? 1U : 0U);
}
constexpr std::int64_t unit_of_key(std::uint64_t key) { return static_cast<std::int64_t>(key >> 10U); }
constexpr std::uint64_t kMostKey = std::uint64_t{1} << 60U;

std::int64_t slice_start(std::int64_t unit) { return unit - unit % dht::kUnitsPerSlice; }

/// The cell that takes it in when the disc has grown.
std::uint64_t folded(std::uint64_t key, std::int64_t boundary_unit) {
  const std::int64_t unit = unit_of_key(key);
  if ((key & 1U) == 0 || unit >= boundary_unit) return key;
  return key_of(slice_start(unit), static_cast<std::uint32_t>(key >> 1U & 511U), false);
}

std::uint64_t key_of(const DhtSums::Cell& cell) { return key_of(cell.first_unit, cell.sector, cell.units == 1); }
DhtSums::Cell cell_of(std::uint64_t key, std::uint64_t ops) {
  return {unit_of_key(key), (key & 1U) != 0 ? 1U : static_cast<std::uint32_t>(dht::kUnitsPerSlice),
          static_cast<std::uint32_t>(key >> 1U & 511U), ops};
}

void combine(std::uint8_t* hash, const std::uint8_t* id, std::size_t size) {
  for (; size >= 8; size -= 8, hash += 8, id += 8) {
    std::uint64_t a = 0, b = 0;
    std::memcpy(&a, hash, 8);
    std::memcpy(&b, id, 8);
    a ^= b;
    std::memcpy(hash, &a, 8);
  }
  for (; size > 0; --size) *hash++ ^= *id++;
}

// ---------------------------------------------------------------- adding up

struct Part {
  std::uint64_t key, ops;
  const std::uint8_t* hash;
};

/// Takes the cells of units before `boundary_unit` out of `from`, as parts of slices. Returns their hashes.
std::vector<std::uint8_t> take_folded(DhtSums& from, std::int64_t boundary_unit, std::vector<Part>& parts) {
  const auto is_slice = [](const DhtSums::Cell& cell) { return cell.units != 1; };
  const auto first = std::find_if_not(from.cells.begin(), from.cells.end(), is_slice);
  const auto end =
      std::find_if(first, from.cells.end(), [&](const auto& cell) { return cell.first_unit >= boundary_unit; });
  const std::size_t at = static_cast<std::size_t>(first - from.cells.begin()) * from.id_bytes;
  const std::size_t bytes = static_cast<std::size_t>(end - first) * from.id_bytes;
  const auto hashes = from.hashes.begin() + static_cast<std::ptrdiff_t>(at);
  std::vector<std::uint8_t> out(hashes, hashes + static_cast<std::ptrdiff_t>(bytes));
  for (auto cell = first; cell != end; ++cell) {
    const auto i = static_cast<std::size_t>(cell - first);
    parts.push_back({folded(key_of(*cell), boundary_unit), cell->ops, out.data() + i * from.id_bytes});
  }
  from.hashes.erase(hashes, hashes + static_cast<std::ptrdiff_t>(bytes));
  from.cells.erase(first, end);
  return out;
}

void append(DhtSums& to, const Part& part) {
  to.cells.push_back(cell_of(part.key, part.ops));
  to.hashes.insert(to.hashes.end(), part.hash, part.hash + to.id_bytes);
}
void combine(DhtSums& to, std::size_t cell, const Part& part) {
  to.cells[cell].ops += part.ops;
  combine(to.hashes.data() + cell * to.id_bytes, part.hash, to.id_bytes);
}

/// Adds parts that are in order. What is there is changed in place: a start has megabytes of it, and few parts.
void put_in(DhtSums& to, const std::vector<Part>& parts) {
  DhtSums fresh;
  fresh.id_bytes = to.id_bytes;
  std::size_t at = 0;
  for (const Part& part : parts) {
    while (at < to.cells.size() && key_of(to.cells[at]) < part.key) ++at;
    if (at < to.cells.size() && key_of(to.cells[at]) == part.key) {
      combine(to, at, part);
    } else if (!fresh.cells.empty() && key_of(fresh.cells.back()) == part.key) {
      combine(fresh, fresh.cells.size() - 1, part);
    } else {
      append(fresh, part);
    }
  }
  // From the end, so that each moves once.
  std::size_t left = to.cells.size(), added = fresh.cells.size(), place = left + added;
  to.cells.resize(place);
  to.hashes.resize(place * to.id_bytes);
  while (added > 0) {
    const bool is_old = left > 0 && key_of(to.cells[left - 1]) > key_of(fresh.cells[added - 1]);
    const DhtSums& from = is_old ? to : fresh;
    const std::size_t cell = is_old ? --left : --added;
    --place;
    to.cells[place] = from.cells[cell];
    std::memmove(to.hashes.data() + place * to.id_bytes, from.hashes.data() + cell * to.id_bytes, to.id_bytes);
  }
}

// ---------------------------------------------------------------- bytes of a row

constexpr std::uint64_t kSeed = 0x6b32'6473'756d'0000U;  // "k2dsum"
constexpr std::uint8_t kVersion = 1;
// Sum, version, covered, last, ops, boundary, salt, places, apart, length of ids, number of cells.
constexpr std::size_t kHead = 8 + 1 + 7 * 8 + 4 + 8;

void put_varint(std::vector<std::uint8_t>& out, std::uint64_t value) {
  for (; value >= 128; value >>= 7U) out.push_back(static_cast<std::uint8_t>(value | 128U));
  out.push_back(static_cast<std::uint8_t>(value));
}
bool get_varint(ByteView& from, std::uint64_t& value) {
  value = 0;
  for (unsigned shift = 0; shift < 63 && !from.empty(); shift += 7) {
    const std::uint8_t byte = from[0];
    from = from.subspan(1);
    value |= std::uint64_t{byte & 127U} << shift;
    if (byte < 128) return byte != 0 || shift == 0;  // one form for each number
  }
  return false;
}

}  // namespace

void DhtSumCells::clear(std::int64_t boundary_unit) {
  *this = {};
  boundary_unit_ = boundary_unit;
}

bool DhtSumCells::add(std::uint32_t location, Timestamp created_at, ByteView id) {
  if (id.empty() || id.size() > kMostIdBytes || (id_bytes_ != 0 && id.size() != id_bytes_)) return false;
  id_bytes_ = id.size();
  const std::int64_t unit = dht::unit_of(created_at);
  if (unit < 0) {
    add_apart();
    return true;
  }
  const bool is_unit = unit >= boundary_unit_;
  const std::uint64_t key = key_of(is_unit ? unit : slice_start(unit), SectorSet::sector_of(location), is_unit);
  const auto [it, is_new] = places_.try_emplace(key, static_cast<std::uint32_t>(counts_.size()));
  ++ops_;
  if (is_new) {
    keys_.push_back(key);
    counts_.push_back(1);
    hashes_.insert(hashes_.end(), id.begin(), id.end());
    return true;
  }
  ++counts_[it->second];
  combine(hashes_.data() + std::size_t{it->second} * id_bytes_, id.data(), id_bytes_);
  return true;
}

std::optional<DhtSums> DhtSumCells::with(DhtSums kept, std::int64_t boundary_unit) const {
  if (id_bytes_ != 0 && kept.id_bytes != 0 && id_bytes_ != kept.id_bytes) return std::nullopt;
  DhtSums out = std::move(kept);
  out.id_bytes = std::max(id_bytes_, out.id_bytes);
  out.apart += apart_;
  std::vector<Part> parts;
  // Units that now lie in full slices: the first ones after the slices.
  const std::vector<std::uint8_t> folded_hashes = take_folded(out, boundary_unit, parts);
  parts.reserve(parts.size() + keys_.size());
  for (std::size_t i = 0; i < keys_.size(); ++i)
    parts.push_back({folded(keys_[i], boundary_unit), counts_[i], hashes_.data() + i * id_bytes_});
  std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.key < b.key; });
  put_in(out, parts);
  return out;
}

std::vector<std::uint8_t> DhtSumsRow::encode() const {
  std::vector<std::uint8_t> out;
  out.reserve(kHead + sums.cells.size() * (sums.id_bytes + 6));
  out.resize(kHead);
  out[8] = kVersion;
  std::uint8_t* at = out.data() + 9;
  for (const std::uint64_t number : {static_cast<std::uint64_t>(covered), last, ops,
                                     static_cast<std::uint64_t>(boundary_unit), salt, places, sums.apart}) {
    save(at, number);
    at += 8;
  }
  save(at, static_cast<std::uint32_t>(sums.id_bytes));
  save(at + 4, static_cast<std::uint64_t>(sums.cells.size()));
  std::uint64_t before = 0;
  for (const DhtSums::Cell& cell : sums.cells) {
    const std::uint64_t key = key_of(cell);
    put_varint(out, key - before);
    put_varint(out, cell.ops);
    before = key;
  }
  out.insert(out.end(), sums.hashes.begin(), sums.hashes.end());
  save(out.data(), ByteSum(kSeed).add(ByteView(out).subspan(8)).value());
  return out;
}

std::optional<DhtSumsRow> DhtSumsRow::decode(ByteView bytes) {
  if (bytes.size() < kHead || bytes[8] != kVersion) return std::nullopt;
  if (load<std::uint64_t>(bytes.data()) != ByteSum(kSeed).add(bytes.subspan(8)).value()) return std::nullopt;
  DhtSumsRow out;
  const std::uint8_t* at = bytes.data() + 9;
  const auto next = [&] {
    const auto number = load<std::uint64_t>(at);
    at += 8;
    return number;
  };
  out.covered = static_cast<std::int64_t>(next());
  out.last = next();
  out.ops = next();
  out.boundary_unit = static_cast<std::int64_t>(next());
  out.salt = next();
  out.places = next();
  out.sums.apart = next();
  out.sums.id_bytes = load<std::uint32_t>(at);
  const auto cells = load<std::uint64_t>(at + 4);
  // Each cell has at least two bytes and a hash.
  ByteView rest = bytes.subspan(kHead);
  if (out.sums.id_bytes > DhtSumCells::kMostIdBytes || cells > rest.size() / (2 + out.sums.id_bytes))
    return std::nullopt;
  if ((cells > 0 && out.sums.id_bytes == 0) || out.boundary_unit < 0 || out.boundary_unit % dht::kUnitsPerSlice != 0)
    return std::nullopt;
  // And some that have come since, so that they need not move.
  const std::size_t room = cells + cells / 16;
  out.sums.cells.reserve(room);
  out.sums.hashes.reserve(room * out.sums.id_bytes);
  std::uint64_t key = 0, ops = out.sums.apart;
  for (std::uint64_t i = 0; i < cells; ++i) {
    std::uint64_t further = 0, count = 0;
    if (!get_varint(rest, further) || !get_varint(rest, count)) return std::nullopt;
    if (further >= kMostKey || key + further >= kMostKey || (further == 0 && i > 0) || count == 0) return std::nullopt;
    key += further;
    if (__builtin_add_overflow(ops, count, &ops)) return std::nullopt;
    const DhtSums::Cell cell = cell_of(key, count);
    const bool is_slice = cell.units != 1;
    if (is_slice != (cell.first_unit < out.boundary_unit)) return std::nullopt;
    if (is_slice && cell.first_unit % dht::kUnitsPerSlice != 0) return std::nullopt;
    out.sums.cells.push_back(cell);
  }
  if (ops != out.ops || rest.size() != cells * out.sums.id_bytes) return std::nullopt;
  out.sums.hashes.assign(rest.begin(), rest.end());
  return out;
}

}  // namespace kitsune2::store
