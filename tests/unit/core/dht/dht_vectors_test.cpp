// The DHT model against the results of the real kitsune2_dht for the same ops (tests/vectors/dht.json).
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/dht/dht_model.hpp"
#include "kitsune2/ids.hpp"

namespace kitsune2::dht {
namespace {

using nlohmann::json;

struct TestOp {
  Bytes id;
  Timestamp created_at;
  std::uint64_t bytes = 0;
  std::string holders;
  std::uint32_t location = 0;
};

const json& vectors() {
  static const json all = json::parse(std::ifstream(K2_SOURCE_DIR "/tests/vectors/dht.json"));
  return all;
}

Bytes from_hex(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2)
    out += static_cast<char>(std::stoul(text.substr(i, 2), nullptr, 16));
  return Bytes::copy_of(out);
}

std::string to_hex(const CombinedHash& hash) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const std::uint8_t byte : hash.view()) {
    out += kDigits[byte >> 4U];
    out += kDigits[byte & 15U];
  }
  return out;
}

template <class Map>
json to_json(const Map& map) {
  json out = json::object();
  for (const auto& [key, value] : map) {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, CombinedHash>) {
      out[std::to_string(key)] = to_hex(value);
    } else {
      out[std::to_string(key)] = to_json(value);
    }
  }
  return out;
}

json to_json(const Snapshot& snapshot) {
  struct {
    json operator()(const MinimalSnapshot& s) const {
      json rings = json::array();
      for (const auto& hash : s.ring_top_hashes) rings.push_back(to_hex(hash));
      return {{"type", "minimal"},
              {"disc_boundary", s.disc_boundary.micros},
              {"disc_top_hash", to_hex(s.disc_top_hash)},
              {"ring_top_hashes", rings}};
    }
    json operator()(const DiscSectorsSnapshot& s) const {
      return {{"type", "disc_sectors"}, {"disc_boundary", s.disc_boundary.micros}, {"sectors", to_json(s.sectors)}};
    }
    json operator()(const DiscSectorDetailsSnapshot& s) const {
      return {
          {"type", "disc_sector_details"}, {"disc_boundary", s.disc_boundary.micros}, {"sectors", to_json(s.sectors)}};
    }
    json operator()(const RingSectorDetailsSnapshot& s) const {
      return {{"type", "ring_sector_details"}, {"disc_boundary", s.disc_boundary.micros}, {"rings", to_json(s.rings)}};
    }
  } visitor;
  return std::visit(visitor, snapshot);
}

json to_json(const TimeLayout& layout) {
  json rings = json::array();
  for (const Ring& ring : layout.rings()) rings.push_back({unit_start(ring.first_unit).micros, ring.log2_units});
  return {{"disc_boundary", layout.disc_boundary().micros},
          {"rings", rings},
          {"next_update_at", layout.next_update().micros}};
}

void expect_layout(const json& expected) {
  json found = to_json(TimeLayout::at({expected["now"].get<std::int64_t>()}));
  found["now"] = expected["now"];
  EXPECT_EQ(found, expected);
}

/// One side of a case: a model and the ops that it holds.
struct Side {
  DhtModel model;
  std::vector<TestOp> ops;
  std::uint64_t budget = 0;

  Side(const std::vector<TestOp>& all, std::string_view holder, Timestamp now, std::uint64_t most)
      : model(now), budget(most) {
    for (const TestOp& op : all) {
      if (op.holders == "ab" || op.holders == holder) add(op);
    }
  }
  void add(const TestOp& op) {
    ops.push_back(op);
    ASSERT_TRUE(model.add(op.location, op.created_at, op.id));
  }
  /// The ids that the reference sends for these slices within its budget.
  json list(const std::vector<SliceRef>& slices) const {
    json ids = json::array();
    std::uint64_t used = 0;
    for (const SliceRef& slice : slices) {
      std::vector<const TestOp*> found;
      std::uint64_t bytes = 0;
      for (const TestOp& op : ops) {
        if (SectorSet::sector_of(op.location) != slice.sector || op.created_at < slice.start ||
            op.created_at >= slice.end)
          continue;
        found.push_back(&op);
        bytes += op.bytes;
      }
      if (used >= budget || used + bytes > budget) continue;
      used += bytes;
      std::sort(found.begin(), found.end(), [](auto* a, auto* b) { return a->created_at < b->created_at; });
      for (const TestOp* op : found) ids.push_back(to_hex(CombinedHash(op->id)));
    }
    return {{"ids", ids}, {"used_bytes", used}};
  }
};

/// Everything that the model shows over the full circle, in the form of the vectors.
json whole(const DhtModel& model) {
  SectorSet all;
  all.add(DhtArc::full());
  json out;
  const MinimalSnapshot minimal = model.minimal(all);
  out["minimal"] = to_json(Snapshot(minimal));
  out["next_update_at"] = model.next_update().micros;
  out["op_count"] = model.op_count();
  const auto ask = [&](const Snapshot& snapshot) {
    return std::get<SendSnapshot>(model.handle(snapshot, std::nullopt, all).value()).snapshot;
  };
  MinimalSnapshot other = minimal;
  const CombinedHash odd(as_bytes("a hash that nobody has"));
  other.disc_top_hash = odd;
  const auto sectors = std::get<DiscSectorsSnapshot>(ask(other));
  out["disc_sectors"] = to_json(sectors.sectors);
  out["disc_slices"] = json::object();
  if (!sectors.sectors.empty()) {
    DiscSectorsSnapshot different = sectors;
    for (auto& [sector, hash] : different.sectors) hash = odd;
    out["disc_slices"] = to_json(std::get<DiscSectorDetailsSnapshot>(ask(different)).sectors);
  }
  other = minimal;
  for (auto& hash : other.ring_top_hashes) hash = odd;
  auto rings = std::get<RingSectorDetailsSnapshot>(ask(other)).rings;
  std::erase_if(rings, [](const auto& entry) { return entry.second.empty(); });
  out["ring_sectors"] = to_json(rings);
  return out;
}

SectorSet sectors_from(const json& words) {
  SectorSet::Words out{};
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = words[i];
  return SectorSet(out);
}

void expect_round(const json& test, Side& a, Side& b) {
  const SectorSet common = sectors_from(test["arc_set_a"]).common(sectors_from(test["arc_set_b"]));
  EXPECT_EQ(common.count(), test["common_sectors"]);
  if (common.empty()) {
    EXPECT_TRUE(test["round"].empty());
    return;
  }
  Snapshot theirs = b.model.minimal(common);
  EXPECT_EQ(to_json(theirs), test["round"][0]["snapshot"]);
  std::optional<Snapshot> shown[2];
  for (std::size_t step = 1; step < test["round"].size(); ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    const json& expected = test["round"][step];
    Side& side = step % 2 == 1 ? a : b;
    const NextAction next = side.model.handle(theirs, shown[step % 2], common).value();
    json found = {{"by", expected["by"]}, {"message", expected["message"]}};
    if (std::holds_alternative<Identical>(next)) found["next"] = "identical";
    if (std::holds_alternative<CannotCompare>(next)) found["next"] = "cannot_compare";
    if (const auto* send = std::get_if<SendSnapshot>(&next)) {
      found["next"] = "snapshot";
      found["snapshot"] = to_json(send->snapshot);
      theirs = send->snapshot;
    } else if (const auto* both = std::get_if<SendSnapshotAndIds>(&next)) {
      found["next"] = "snapshot_and_ids";
      found["snapshot"] = to_json(both->snapshot);
      found.update(side.list(both->slices));
      theirs = both->snapshot;
    } else if (const auto* ids = std::get_if<SendIds>(&next)) {
      found["next"] = "ids";
      found.update(side.list(ids->slices));
    }
    shown[step % 2] = theirs;
    EXPECT_EQ(found, expected);
  }
}

TEST(DhtVectors, LayoutsAreThoseOfTheReference) {
  ASSERT_GE(vectors()["layouts"].size(), 20U);
  for (const json& layout : vectors()["layouts"]) expect_layout(layout);
}

TEST(DhtVectors, ModelsAndRoundsAreThoseOfTheReference) {
  ASSERT_GE(vectors()["cases"].size(), 18U);
  for (const json& test : vectors()["cases"]) {
    SCOPED_TRACE(test["name"]);
    std::vector<TestOp> ops;
    for (const json& op : test["ops"]) {
      ops.push_back({from_hex(op[0]), {op[1].get<std::int64_t>()}, op[2], op[3], op[4]});
      if (test["loc"] == "default") {
        EXPECT_EQ(dht_location(ops.back().id), ops.back().location);
      }
    }
    expect_layout(test["layout_a"]);
    Side a(ops, "a", {test["now_a"].get<std::int64_t>()}, test["budget_a"]);
    Side b(ops, "b", {test["now_b"].get<std::int64_t>()}, test["budget_b"]);
    EXPECT_EQ(whole(a.model), test["a"]);
    EXPECT_EQ(whole(b.model), test["b"]);
    a.model.check_invariants();
    expect_round(test, a, b);
    if (!test.contains("now2")) continue;
    for (const TestOp& op : ops) {
      if (op.holders == "late_a") a.add(op);
    }
    EXPECT_EQ(whole(a.model), test["a_after_late"]);
    a.model.update({test["now2"].get<std::int64_t>()});
    EXPECT_EQ(whole(a.model), test["a_after_update"]);
    a.model.check_invariants();
  }
}

}  // namespace
}  // namespace kitsune2::dht
