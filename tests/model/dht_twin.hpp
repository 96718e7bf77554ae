// The DHT model written naively: a list of ops, from which everything is computed anew. Also the run that feeds the
// same commands to two pairs of models and twins, and compares the two sides with each other.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/dht/dht_model.hpp"
#include "kitsune2/bytes.hpp"
#include "model/commands.hpp"

namespace kitsune2::model {

class DhtTwin {
 public:
  struct Op {
    std::uint32_t location;
    Timestamp created_at;
    std::vector<std::uint8_t> id;
    friend bool operator==(const Op&, const Op&) = default;
  };

  explicit DhtTwin(Timestamp now) : layout_(dht::TimeLayout::at(now)) {}

  void update(Timestamp now) {
    if (now >= layout_.next_update()) layout_ = dht::TimeLayout::at(now);
  }
  std::vector<Op>& ops() { return ops_; }
  const dht::TimeLayout& layout() const { return layout_; }

  dht::CombinedHash hash(std::uint32_t sector, Timestamp start, Timestamp end) const {
    dht::CombinedHash out;
    for (const Op& op : ops_) {
      if (op.location >> 23U == sector && op.created_at >= start && op.created_at < end) out.combine(ByteView(op.id));
    }
    return out;
  }
  dht::CombinedHash hash(const SectorSet& sectors, Timestamp start, Timestamp end) const {
    dht::CombinedHash out;
    for (std::uint32_t s = 0; s < SectorSet::kCount; ++s) {
      if (sectors.test(s)) out.combine(hash(s, start, end));
    }
    return out;
  }
  dht::MinimalSnapshot minimal(const SectorSet& common) const {
    dht::MinimalSnapshot out{layout_.disc_boundary(), hash(common, {}, layout_.disc_boundary()), {}};
    for (const dht::Ring& ring : layout_.rings())
      out.ring_top_hashes.push_back(hash(common, dht::unit_start(ring.first_unit), dht::unit_start(ring.end_unit())));
    return out;
  }

 private:
  dht::TimeLayout layout_;
  std::vector<Op> ops_;
};

struct DhtCoverage {
  std::uint64_t commands = 0, adds = 0, removes = 0, updates = 0, identical = 0, cannot_compare = 0, disc = 0, ring = 0;
  std::uint64_t refused = 0;
};

/// Throws std::logic_error when a model and its twin differ, or when two models, at the end of a comparison, leave out
/// an op that only one of them holds.
class DhtTwinRun {
 public:
  explicit DhtTwinRun(ByteView commands, DhtCoverage* coverage = nullptr) : commands_(commands) {
    if (coverage != nullptr) coverage_ = coverage;
  }

  void run() {
    while (!commands_.is_empty()) {
      ++coverage_->commands;
      step();
    }
    look();
  }

 private:
  std::uint8_t byte() { return commands_.byte(); }

  void step() {
    const std::uint8_t what = byte() % 16;
    if (what < 9) return add();
    if (what == 9) return remove();
    if (what == 10) return pass_time();
    if (what == 11) return refuse();
    if (what == 12) return look();
    compare();
  }

  void add() {
    static constexpr std::uint32_t kSectors[] = {0, 1, 255, 511};
    DhtTwin::Op op;
    op.location = (kSectors[byte() % 4] << 23U) + (byte() % 2) * ((1U << 23U) - 1);
    // Around the borders of slices, units and the present, and elsewhere in between.
    const std::int64_t unit = dht::unit_of(now_);
    const std::uint8_t how = byte();
    std::int64_t at = 0;
    switch (how % 6) {
      case 0:
        at = unit - byte();
        break;
      case 1:
        at = unit / 512 * 512 - 512 * (byte() % 4);
        break;
      case 2:
        at = unit + byte() % 3;
        break;
      case 3:
        at = unit - 4 * byte();
        break;
      case 4:
        at = byte();
        break;
      default:
        at = -1 - byte();
        break;
    }
    op.created_at = dht::unit_start(at) + Duration(how % 3 - 1);
    for (int i = 0; i < 32; ++i) op.id.push_back(static_cast<std::uint8_t>(next_id_ >> (8 * (i % 8))));
    next_id_ = next_id_ * 6364136223846793005U + 1442695040888963407U;
    const std::uint8_t holders = byte() % 4;
    for (int side = 0; side < 2; ++side) {
      if (holders < 2 && holders != side) continue;
      check(models_[side].add(op.location, op.created_at, op.id).has_value(), "add");
      twins_[side].ops().push_back(op);
    }
    ++coverage_->adds;
  }

  void remove() {
    const int side = byte() % 2;
    auto& ops = twins_[side].ops();
    if (ops.empty()) return;
    const std::size_t at = byte() % ops.size();
    const DhtTwin::Op op = ops[at];
    check(models_[side].remove(op.location, op.created_at, op.id).has_value(), "remove");
    ops.erase(ops.begin() + static_cast<std::ptrdiff_t>(at));
    ++coverage_->removes;
  }

  void pass_time() {
    const std::uint8_t how = byte();
    now_ = now_ + (how % 4 == 0 ? 128 * dht::kUnit : how % 4 == 1 ? dht::kUnit : Duration(std::int64_t{how} << 20U));
    if (how % 16 == 15) now_ = now_ - 40 * dht::kUnit;
    for (int side = 0; side < 2; ++side) {
      if (side == 1 && (how & 8U) != 0) continue;  // the other one is late
      models_[side].update(now_);
      twins_[side].update(now_);
    }
    ++coverage_->updates;
  }

  void refuse() {
    if (models_[0].op_count() == 0) return;
    check(!models_[0].add(1, now_, as_bytes("of another length")), "an id of another length was taken");
    check(!models_[0].remove(77U << 23U, now_, std::vector<std::uint8_t>(32, 1)), "an op of no cell was removed");
    ++coverage_->refused;
  }

  SectorSet some_sectors() {
    SectorSet out;
    const std::uint8_t which = byte();
    if (which % 4 == 0) out.add(DhtArc::full());
    for (const std::uint32_t s : {0U, 1U, 2U, 255U, 511U}) {
      if ((which >> 3U & (s % 31U)) != 0) out.set(s);
    }
    return out;
  }

  void look() {
    const SectorSet common = some_sectors();
    for (int side = 0; side < 2; ++side) {
      models_[side].check_invariants();
      check(models_[side].layout() == twins_[side].layout(), "layout");
      check(models_[side].minimal(common) == twins_[side].minimal(common), "minimal");
      check(models_[side].op_count() == twins_[side].ops().size(), "op_count");
    }
  }

  void compare() {
    const SectorSet common = some_sectors();
    dht::Snapshot theirs = models_[1].minimal(common);
    std::optional<dht::Snapshot> shown[2];
    std::vector<dht::SliceRef> listed[2];
    bool is_disc = false;
    for (int turn = 0;; ++turn) {
      check(turn < 6, "a comparison does not end");
      const int side = turn % 2;
      const auto next = models_[side].handle(theirs, shown[side], common).value();
      if (std::holds_alternative<dht::Identical>(next) || std::holds_alternative<dht::CannotCompare>(next)) {
        const bool same = std::holds_alternative<dht::Identical>(next);
        ++(same ? coverage_->identical : coverage_->cannot_compare);
        if (turn == 0) check(same == (twins_[0].minimal(common) == twins_[1].minimal(common)), "identical");
        return;
      }
      if (const auto* send = std::get_if<dht::SendSnapshot>(&next)) {
        theirs = send->snapshot;
        is_disc = is_disc || std::holds_alternative<dht::DiscSectorsSnapshot>(theirs);
      } else if (const auto* both = std::get_if<dht::SendSnapshotAndIds>(&next)) {
        theirs = both->snapshot;
        listed[side] = both->slices;
      } else {
        listed[side] = std::get<dht::SendIds>(next).slices;
        break;
      }
      shown[side] = theirs;
    }
    ++(is_disc ? coverage_->disc : coverage_->ring);
    if (models_[0].layout() != models_[1].layout()) return;
    // Each side lists every op that the other one lacks within what was compared.
    for (int side = 0; side < 2; ++side) {
      for (const auto& op : twins_[side].ops()) {
        const auto& others = twins_[1 - side].ops();
        if (std::find(others.begin(), others.end(), op) != others.end()) continue;
        const bool in_disc = op.created_at < models_[0].layout().disc_boundary() && op.created_at >= Timestamp{};
        const bool in_ring = models_[0].layout().ring_of(dht::unit_of(op.created_at)).has_value();
        if (!common.contains(op.location) || !(is_disc ? in_disc : in_ring)) continue;
        check(std::any_of(listed[side].begin(), listed[side].end(),
                          [&](const dht::SliceRef& slice) {
                            return slice.sector == op.location >> 23U && slice.start <= op.created_at &&
                                   op.created_at < slice.end;
                          }),
              "an op that the other side lacks is not listed");
      }
    }
  }

  void check(bool holds, const char* what) const {
    if (!holds) throw std::logic_error(std::string(what) + ", after command " + std::to_string(coverage_->commands));
  }

  Commands commands_;
  DhtCoverage own_coverage_;
  DhtCoverage* coverage_ = &own_coverage_;
  Timestamp now_ = dht::unit_start(1'995'000) + Duration(1);
  dht::DhtModel models_[2] = {dht::DhtModel(now_), dht::DhtModel(now_)};
  DhtTwin twins_[2] = {DhtTwin(now_), DhtTwin(now_)};
  std::uint64_t next_id_ = 1;
};

}  // namespace kitsune2::model
