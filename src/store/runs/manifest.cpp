// Manifests to bytes and back, and the slots that they leave free.
#include "store/runs/manifest.hpp"

#include <algorithm>
#include <string>

#include "store/byte_sum.hpp"

namespace kitsune2::runs {
namespace {

constexpr std::uint64_t kManifestSeed = 0x6b32'7275'6e73'0001U;  // "k2runs", version 1
constexpr std::uint64_t kMostNumbers = std::uint64_t{1} << 62U;
constexpr std::size_t kRunHead = 8 + 1 + 8 + 4 + 4;
constexpr std::size_t kHead = 8 + 8 + 8 + 8 + 4;

template <class T>
void put(std::vector<std::uint8_t>& out, T value) {
  out.resize(out.size() + sizeof(T));
  save(out.data() + out.size() - sizeof(T), value);
}

template <class T>
T get(ByteView& from) {
  const T out = load<T>(from.data());
  from = from.subspan(sizeof(T));
  return out;
}

Error damaged(const char* what) { return make_error(Errc::corrupt, std::string("the manifest of the index: ") + what); }

bool same_number(std::vector<RunInfo> runs) {
  const auto less = [](const RunInfo& a, const RunInfo& b) { return a.number < b.number; };
  std::sort(runs.begin(), runs.end(), less);
  return std::adjacent_find(runs.begin(), runs.end(),
                            [](const RunInfo& a, const RunInfo& b) { return a.number == b.number; }) != runs.end();
}

bool overlap(std::vector<Extent> all) {
  std::sort(all.begin(), all.end(), [](const Extent& a, const Extent& b) { return a.first < b.first; });
  for (std::size_t i = 1; i < all.size(); ++i) {
    if (all[i].first < all[i - 1].first + all[i - 1].count) return true;
  }
  return false;
}

}  // namespace

std::vector<std::uint8_t> Manifest::encode() const {
  std::vector<std::uint8_t> out(8);
  put(out, salt);
  put(out, next_number);
  put(out, static_cast<std::uint64_t>(covered));
  put(out, static_cast<std::uint32_t>(runs.size()));
  for (const RunInfo& run : runs) {
    put(out, run.number);
    put(out, static_cast<std::uint8_t>(run.order));
    put(out, run.entries);
    put(out, run.entry_blocks);
    put(out, static_cast<std::uint32_t>(run.slots.size()));
    for (const Extent& extent : run.slots) {
      put(out, extent.first);
      put(out, extent.count);
    }
  }
  save(out.data(), store::ByteSum(kManifestSeed).add(ByteView(out).subspan(8)).value());
  return out;
}

Result<Manifest> Manifest::decode(ByteView bytes, std::uint64_t slots) {
  if (bytes.size() < kHead) return damaged("too short");
  if (get<std::uint64_t>(bytes) != store::ByteSum(kManifestSeed).add(bytes).value()) return damaged("its sum is wrong");
  Manifest out;
  out.salt = get<std::uint64_t>(bytes);
  out.next_number = get<std::uint64_t>(bytes);
  out.covered = static_cast<std::int64_t>(get<std::uint64_t>(bytes));
  if (out.next_number == 0 || out.next_number > kMostNumbers) return damaged("an impossible number");
  const auto count = get<std::uint32_t>(bytes);
  if (count > bytes.size() / kRunHead) return damaged("too many runs");
  std::vector<Extent> all;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (bytes.size() < kRunHead) return damaged("cut off");
    RunInfo& run = out.runs.emplace_back();
    run.number = get<std::uint64_t>(bytes);
    const auto order = get<std::uint8_t>(bytes);
    if (order != 1 && order != 2) return damaged("a run of another order");
    run.order = Order{order};
    run.entries = get<std::uint64_t>(bytes);
    run.entry_blocks = get<std::uint32_t>(bytes);
    const auto extents = get<std::uint32_t>(bytes);
    if (extents > bytes.size() / 12) return damaged("too many extents");
    std::uint64_t blocks = 0;
    for (std::uint32_t e = 0; e < extents; ++e) {
      const auto first = get<std::uint64_t>(bytes);
      const Extent extent{first, get<std::uint32_t>(bytes)};
      blocks += extent.count;
      if (extent.count == 0 || first > slots || extent.count > slots - first || blocks > UINT32_MAX)
        return damaged("an impossible slot");
      run.slots.push_back(extent);
      all.push_back(extent);
    }
    if (run.number >= out.next_number || run.entry_blocks > blocks ||
        run.entries > std::uint64_t{run.entry_blocks} * (kBlockBody / EntryBlock::kEntryHead)) {
      return damaged("an impossible run");
    }
  }
  if (!bytes.empty()) return damaged("too long");
  if (overlap(std::move(all))) return damaged("a slot is named twice");
  if (same_number(out.runs)) return damaged("a run is named twice");
  return out;
}

// ------------------------------------------------------------------ SlotMap

SlotMap::SlotMap(const Manifest& manifest) {
  for (const RunInfo& run : manifest.runs) {
    for (const Extent& extent : run.slots) {
      if (taken_.size() < extent.first + extent.count) taken_.resize(extent.first + extent.count);
      std::fill_n(taken_.begin() + static_cast<std::ptrdiff_t>(extent.first), extent.count, true);
    }
  }
}

std::uint64_t SlotMap::take() {
  while (lowest_free_ < taken_.size() && taken_[lowest_free_]) ++lowest_free_;
  if (lowest_free_ == taken_.size()) {
    taken_.push_back(true);
  } else {
    taken_[lowest_free_] = true;
  }
  return lowest_free_++;
}

void SlotMap::give_back(const std::vector<Extent>& slots) {
  for (const Extent& extent : slots) {
    std::fill_n(taken_.begin() + static_cast<std::ptrdiff_t>(extent.first), extent.count, false);
    lowest_free_ = std::min(lowest_free_, extent.first);
  }
}

}  // namespace kitsune2::runs
