// A damaged database of an op store: opening it and every query on it end with an answer or an error, never a crash,
// and answers keep their bounds. Input: see SmallDb::damage; rows have three numbers of 8 bytes (times and a size),
// then bytes for ids, texts and payloads. In version 2 of the schema the first byte of such rows chooses: a block of a
// run, the manifest (two bytes choose the block, the rest are edits, and the sum fits), or rows as above.
#pragma once

#include <string>

#include "fuzz/fuzz.hpp"
#include "fuzz/small_db.hpp"
#include "kitsune2/sqlite_store.hpp"
#include "store/byte_sum.hpp"
#include "store/sqlite/op_db.hpp"
#include "store/sqlite/op_schema.hpp"

namespace kitsune2::fuzz {

using sqlite::OpReader;
using sqlite::OpWriter;

inline const SpaceId kSpace = SpaceId::from_text("space");
inline const auto kPolicy = make_sha256_policy();

inline constexpr Timestamp kNow{1'800'000'000'000'000};

inline Bytes op_of(int number) { return Bytes::copy_of("op " + std::to_string(number)); }

struct Base {
  SmallDb db{"ops.db"};
  Url source = *Url::parse("ws://relay:1/peer");
  std::vector<OpId> held, lacking;
  const bool has_runs;

  /// With runs so small that there are several.
  sqlite::OpFileOptions options() const {
    return {.policy = kPolicy.get(),
            .for_new = has_runs ? &sqlite::kRunsFormat : &sqlite::kTablesFormat,
            .merge_rules = {.newest = 2, .fan_in = 2, .most_entries = 100, .least_work = 1},
            .sums_rules = {.every = 1, .at_rest = 1, .percent = 0, .percent_at_rest = 0, .read_at_once = 2}};
  }

  explicit Base(bool runs) : has_runs(runs) {
    K2_ASSERT(sqlite::create_file(db.path()).has_value());
    {
      auto opened = OpWriter::open(db.path(), options());
      K2_ASSERT(opened.has_value());
      OpWriter& writer = *opened;
      K2_ASSERT(writer.bind_to(kSpace, "sha256").has_value());
      K2_ASSERT(writer.begin().has_value());
      ProcessedOps out;
      std::vector<OpRecord> records;
      for (int i = 0; i < 7; ++i) {
        if (i == 6 && !runs) break;
        if (runs && i > 0) {
          // Each is a call of its own, since what comes together becomes one run. The last one is in none.
          K2_ASSERT(writer.commit().has_value() && writer.begin().has_value());
        }
        const Bytes op = op_of(i);
        auto what = *kPolicy->describe(op);
        what.created_at = Timestamp{1'700'000'000'000'000 + i};
        K2_ASSERT(writer.store(what, op, kNow, out, records).has_value());
        held.push_back(what.op_id);
        lacking.push_back(kPolicy->describe(op_of(100 + i))->op_id);
      }
      K2_ASSERT(writer.add_pending(lacking, source).has_value());
      K2_ASSERT(writer.store_slice_hash(DhtArc::full(), 3, as_bytes("hash")).has_value());
      K2_ASSERT(writer.commit().has_value());
      for (int step = 0; step < 100; ++step) {
        const auto sums = writer.dht_sums(kNow);
        K2_ASSERT(sums.has_value());
        if (*sums) break;
      }
      K2_ASSERT(writer.write_sums(kNow).has_value());
      for (int step = 0; step < 100 && writer.wants_merging(); ++step) K2_ASSERT(writer.merge().has_value());
      writer.truncate_wal();
    }
    db.keep(has_runs ? std::size_t{1} << 20U : 65'536);
  }
};

inline std::int64_t number(ByteView bytes, std::size_t at) {
  std::uint64_t out = 0;
  for (std::size_t i = at; i < at + 8; ++i) out = out << 8U | (i < bytes.size() ? bytes[i] : 0U);
  return static_cast<std::int64_t>(out);
}

/// A valid file in which a part of the index comes from the input, with the sum that it should have.
inline void put_runs(sqlite::Connection& c, std::size_t chosen, bool the_manifest, ByteView edits) {
  auto manifest = c.prepare("SELECT data FROM manifest");
  const auto slots = c.number("SELECT max(n)+1 FROM slot");
  K2_ASSERT(manifest && slots && manifest->step() == SQLITE_ROW);
  std::vector<std::uint8_t> bytes(manifest->blob(0).begin(), manifest->blob(0).end());
  manifest->reset();
  const auto known = runs::Manifest::decode(bytes, static_cast<std::uint64_t>(*slots));
  K2_ASSERT(known.has_value());
  if (the_manifest) {
    bytes = damaged(std::move(bytes), edits);
    if (bytes.size() >= 8) {
      runs::save(bytes.data(), store::ByteSum(0x6b32'7275'6e73'0001U).add(ByteView(bytes).subspan(8)).value());
    }
    auto put = c.prepare("UPDATE manifest SET data=?1");
    K2_ASSERT(put && put->bind(1, ByteView(bytes)).step() == SQLITE_DONE);
    return;
  }
  const auto n = static_cast<std::int64_t>(chosen % static_cast<std::size_t>(*slots));
  auto get = c.prepare("SELECT data FROM slot WHERE n=?1");
  K2_ASSERT(get.has_value());
  if (get->bind(1, n).step() != SQLITE_ROW) return;
  std::vector<std::uint8_t> block = damaged({get->blob(0).begin(), get->blob(0).end()}, edits);
  get->reset();
  block.resize(runs::kBlockBytes);
  for (const runs::RunInfo& run : known->runs) {
    std::uint32_t index = 0;
    for (const runs::Extent& extent : run.slots) {
      const auto slot = static_cast<std::uint64_t>(n);
      if (slot >= extent.first && slot < extent.first + extent.count) {
        const std::uint32_t at = index + static_cast<std::uint32_t>(slot - extent.first);
        runs::seal_block(block, {run.number, at}, runs::BlockType{block[8]},
                         runs::load<std::uint16_t>(block.data() + 10));
      }
      index += extent.count;
    }
  }
  auto put = c.prepare("UPDATE slot SET data=?2 WHERE n=?1");
  K2_ASSERT(put && put->bind(1, n).bind(2, ByteView(block)).step() == SQLITE_DONE);
}

/// A valid file whose rows come from the input.
inline void put_rows(sqlite::Connection& c, ByteView input) {
  const ByteView rest = input.subspan(std::min<std::size_t>(24, input.size()));
  const auto put = [&](const char* sql, auto bind) {
    auto statement = c.prepare(sql);
    if (!statement) return;
    bind(*statement);
    statement->step();
  };
  put("UPDATE pending SET ids=?1", [&](auto& s) { s.bind(1, rest); });
  put("UPDATE source SET url=?1", [&](auto& s) { s.bind_text(1, as_text(rest)); });
  put("UPDATE totals SET ops=?1, bytes=?2", [&](auto& s) { s.bind(1, number(input, 0)).bind(2, number(input, 8)); });
  put("UPDATE op SET size=?1, created_at=?2 WHERE rowid IN (SELECT rowid FROM op LIMIT 2)",
      [&](auto& s) { s.bind(1, number(input, 16)).bind(2, number(input, 0)); });
  put("UPDATE op SET stored_at=?1 WHERE rowid IN (SELECT rowid FROM op LIMIT 1 OFFSET 3)",
      [&](auto& s) { s.bind(1, number(input, 8)); });
  put("UPDATE op_data SET data=?1 WHERE rowid IN (SELECT rowid FROM op_data LIMIT 1 OFFSET 1)",
      [&](auto& s) { s.bind(1, rest); });
  put("UPDATE op SET data=?1 WHERE rowid IN (SELECT rowid FROM op LIMIT 1 OFFSET 2)",
      [&](auto& s) { s.bind(1, rest); });
  put("INSERT INTO dropped(stored_at) VALUES(?1)", [&](auto& s) { s.bind(1, number(input, 16)); });
  put("UPDATE op SET id=?1 WHERE rowid IN (SELECT rowid FROM op LIMIT 1 OFFSET 4)", [&](auto& s) { s.bind(1, rest); });
  put("UPDATE meta SET value=?1 WHERE key='sums_dht'", [&](auto& s) { s.bind(1, rest); });
  put("UPDATE slice_hash SET slice=?1, hash=?2", [&](auto& s) { s.bind(1, number(input, 16)).bind(2, rest); });
}

template <class T>
const Result<T>& told(const Result<T>& result) {
  if (!result) K2_ASSERT(!result.error().message.empty());
  return result;
}

inline void read_all(const Base& base, OpReader& reader) {
  told(reader.info());
  std::vector<OpId> asked = base.held;
  asked.insert(asked.end(), base.lacking.begin(), base.lacking.end());
  const auto ops = reader.retrieve_ops(asked, 100);
  if (told(ops)) {
    std::size_t bytes = 0;
    for (const MetaOp& op : *ops) bytes += op.op_data.size();
    K2_ASSERT(ops->size() <= asked.size() && (ops->size() <= 1 || bytes <= 100));
  }
  const auto damaged = reader.filter_out_intact_ops(asked);
  if (told(damaged)) K2_ASSERT(damaged->size() <= asked.size());
  auto lacks = asked;
  told(reader.filter_out_existing_ops(lacks));
  K2_ASSERT(lacks.size() <= asked.size());
  const Timestamp last{INT64_MAX};
  for (const DhtArc& arc : {DhtArc::full(), DhtArc(10, 1U << 31), DhtArc(3U << 30, 1U << 30), DhtArc()}) {
    const auto slice = reader.op_hashes_in_time_slice(arc, Timestamp{0}, last);
    if (told(slice)) K2_ASSERT(slice->op_ids.size() <= 1000);
    told(reader.op_ids_bounded(OpIdsQuery{.arc = arc, .start = Timestamp{0}, .limit_bytes = 1000}));
    const auto page = reader.list_ops({.arc = arc, .start = Timestamp{0}, .limit = 10});
    if (told(page)) K2_ASSERT(page->ops.size() <= 10);
    OpSumsQuery sums{.ranges = {{Timestamp{0}, Timestamp{2}}, {Timestamp{2}, last}}};
    sums.sectors.set();
    told(reader.sum_ops(sums));
    told(reader.earliest_timestamp_in_arc(arc));
    told(reader.slice_hash_count(arc));
    told(reader.slice_hash(arc, 3));
    told(reader.slice_hashes(arc));
  }
  told(reader.pending());
  for (std::uint64_t after = 0, pages = 0; pages < 100; ++pages) {
    const auto page = reader.pending_page(after, 1);
    if (!told(page) || !page->next) break;
    K2_ASSERT(*page->next > after);
    after = *page->next;
  }
  told(reader.stats());
}

inline void write_all(const Base& base, const std::vector<sqlite::Suspect>& suspects) {
  auto writer = OpWriter::open(base.db.path(), base.options());
  if (!told(writer) || !told(writer->bind_to(kSpace, "sha256"))) return;
  const auto change = [&](auto work) {
    Result<void> ok = writer->begin();
    if (told(ok)) ok = work();
    if (told(ok)) ok = writer->commit();
    if (!told(ok)) writer->roll_back();
    return ok.has_value();
  };
  change([&]() -> Result<void> {
    const auto examined = writer->examine(suspects, *kPolicy);
    if (!told(examined)) return examined.error();
    K2_ASSERT(examined->dropped.size() <= suspects.size());
    return {};
  });
  const Bytes fresh = op_of(7);
  ProcessedOps out;
  std::vector<OpRecord> records;
  const auto what = *kPolicy->describe(fresh);
  const bool stored = change([&] { return writer->store(what, fresh, kNow, out, records); });
  if (stored) K2_ASSERT(out.stored.size() == 1);
  change([&] { return writer->store(*kPolicy->describe(op_of(101)), op_of(101), Timestamp{}, out, records); });
  change([&] { return writer->add_pending(base.lacking, base.source); });
  change([&] { return writer->store_slice_hash(DhtArc::full(), 4, as_bytes("h")); });
  for (int steps = 0;; ++steps) {
    K2_ASSERT(steps < 1'000);
    const auto sums = writer->dht_sums(kNow);
    if (!told(sums)) break;
    if (!*sums) continue;
    std::uint64_t ops = (*sums)->apart;
    for (const DhtSums::Cell& cell : (*sums)->cells) ops += cell.ops;
    K2_ASSERT(ops <= 1'000);
    told(writer->write_sums(kNow));
    break;
  }
  for (int steps = 0; steps < 3 && writer->wants_compaction(); ++steps) told(writer->compact_pending());
  change([&] { return writer->remove_pending_source(base.source); });
  for (int steps = 0; steps < 20 && writer->wants_merging(); ++steps) told(writer->merge());
  writer->tend_wal();
  writer->truncate_wal();
}

inline int run_op_db(const std::uint8_t* data, std::size_t size, const Base& base) {
  if (size == 0) return 0;
  base.db.damage(input(data, size), [&](sqlite::Connection& c, ByteView rows) {
    if (!base.has_runs || rows.size() < 3 || rows[0] % 3 == 2) return put_rows(c, rows);
    put_runs(c, rows[1] | std::size_t{rows[2]} << 8U, rows[0] % 3 == 1, rows.subspan(3));
  });
  const auto state = sqlite::inspect_file(base.db.path());
  if (!told(state) || *state != sqlite::FileState::present) return 0;
  // Opening takes most of the time, and the reader below opens the same file in the same way.
  if (size % 4 == 0) told(check_sqlite_op_store(base.db.path(), *kPolicy));
  auto reader =
      OpReader::open(base.db.path(), false, nullptr, kPolicy.get(), {{}, std::make_shared<runs::BlockCache>(2)});
  std::vector<sqlite::Suspect> suspects;
  if (told(reader)) {
    read_all(base, *reader);
    suspects = reader->take_suspects();
  }
  write_all(base, suspects);
  if (reader) read_all(base, *reader);
  return 0;
}

/// One thread, so SQLite needs no mutexes and no memory statistics, which take a tenth of the time.
inline bool make_sqlite_quick() {
  return sqlite3_config(SQLITE_CONFIG_SINGLETHREAD) == SQLITE_OK &&
         sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0) == SQLITE_OK;
}

}  // namespace kitsune2::fuzz
