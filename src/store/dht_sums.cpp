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

std::optional<DhtSums> DhtSumCells::with(const DhtSums& kept, std::int64_t boundary_unit) const {
  if (id_bytes_ != 0 && kept.id_bytes != 0 && id_bytes_ != kept.id_bytes) return std::nullopt;
  struct Part {
    std::uint64_t key, ops;
    const std::uint8_t* hash;
  };
  std::vector<Part> parts;
  parts.reserve(kept.cells.size() + keys_.size());
  bool is_sorted = true;
  const auto put = [&](std::uint64_t key, std::uint64_t ops, const std::uint8_t* hash) {
    const std::uint64_t in = folded(key, boundary_unit);
    is_sorted = is_sorted && (parts.empty() || parts.back().key <= in);
    parts.push_back({in, ops, hash});
  };
  const auto less = [](const Part& a, const Part& b) { return a.key < b.key; };
  for (std::size_t i = 0; i < kept.cells.size(); ++i)
    put(key_of(kept.cells[i]), kept.cells[i].ops, kept.hash(i).data());
  if (!is_sorted) std::sort(parts.begin(), parts.end(), less);
  const auto middle = static_cast<std::ptrdiff_t>(parts.size());
  for (std::size_t i = 0; i < keys_.size(); ++i) put(keys_[i], counts_[i], hashes_.data() + i * id_bytes_);
  std::sort(parts.begin() + middle, parts.end(), less);
  std::inplace_merge(parts.begin(), parts.begin() + middle, parts.end(), less);

  DhtSums out;
  out.id_bytes = std::max(id_bytes_, kept.id_bytes);
  out.apart = apart_ + kept.apart;
  out.cells.reserve(parts.size());
  out.hashes.reserve(parts.size() * out.id_bytes);
  std::uint64_t last = kMostKey;
  for (const Part& part : parts) {
    if (part.key == last) {
      out.cells.back().ops += part.ops;
      combine(out.hashes.data() + out.hashes.size() - out.id_bytes, part.hash, out.id_bytes);
      continue;
    }
    last = part.key;
    out.cells.push_back(cell_of(part.key, part.ops));
    out.hashes.insert(out.hashes.end(), part.hash, part.hash + out.id_bytes);
  }
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
  out.sums.cells.reserve(cells);
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
