// The sums for a DHT model, as the writer of an op store reads, adds up and keeps them. Rules: K of KeptSums.
#include <algorithm>
#include <array>

#include "core/dht/time_layout.hpp"
#include "store/byte_sum.hpp"
#include "store/sqlite/op_db.hpp"

namespace kitsune2::sqlite {
namespace {

std::uint64_t sum_of(ByteView id) { return store::ByteSum(id.size()).add(id).value(); }

std::int64_t boundary_at(Timestamp now) { return dht::TimeLayout::at(now).boundary_unit(); }

}  // namespace

Result<std::optional<DhtSums>> OpWriter::dht_sums(Timestamp now, std::size_t ops) {
  if (sums_.are_unfit()) return make_error(Errc::unsupported, connection_.path() + ": op ids of several lengths");
  const std::int64_t boundary = boundary_at(now);
  // What lies in a slice cannot be put back into units.
  if (boundary < sums_.boundary_unit()) sums_.forget();
  Result<void> ok;
  if (sums_.state() == KeptSums::State::unread) ok = begin_sums(boundary, true);
  if (ok && sums_.state() != KeptSums::State::known) ok = read_for_sums(ops);
  if (!ok) {
    sums_.forget();
    return ok.error();
  }
  if (sums_.state() != KeptSums::State::known) return std::optional<DhtSums>();
  return sums_with_row(boundary);
}

/// nullopt: there is none, or none that can be read.
Result<std::optional<store::DhtSumsRow>> OpWriter::read_sums_row() {
  const Use use(get_sums_);
  const int rc = use->step();
  if (rc == SQLITE_ROW && use->text(0) == kSumsKey) return store::DhtSumsRow::decode(use->blob(1));
  if (rc == SQLITE_ROW) return std::optional<store::DhtSumsRow>();
  if (rc == SQLITE_DONE || (rc & 0xff) == SQLITE_CORRUPT) return std::optional<store::DhtSumsRow>();
  return connection_.error(rc);
}

Result<void> OpWriter::begin_sums(std::int64_t boundary_unit, bool with_row) {
  std::optional<store::DhtSumsRow> row;
  if (with_row) {
    auto kept = read_sums_row();
    if (!kept) return kept.error();
    row = std::move(*kept);
  }
  const std::int64_t last = now_.clock.bookmark().micros - 1;
  if (row) {  // K3
    bool fits = row->boundary_unit <= boundary_unit && row->covered <= last && row->ops <= now_.totals.ops &&
                row->places == places(row->sums.id_bytes);
    // Reading most of them in the order of storing is not worth it.
    fits = fits && row->ops >= now_.totals.ops / 2;
    const Use use(op_at_);
    fits = fits && use->bind(1, row->covered).step() == SQLITE_ROW && row->last == sum_of(use->blob(1));
    if (!fits) row.reset();
  }
  sums_.begin(boundary_unit, last, std::move(row));
  return {};
}

/// Reads a piece, in a transaction of its own.
Result<void> OpWriter::read_for_sums(std::size_t ops) {
  const bool since_row = sums_.state() == KeptSums::State::since_row;
  const std::size_t most = std::max(sums_.rules().read_at_once, 2 * ops);
  const auto is_being_made = [&] { return !since_row && (is_behind() || index_is_damaged()); };
  const auto being_made = make_error(Errc::io, connection_.path() + ": the index of its ops is being made");
  if (is_being_made()) return being_made;
  auto ok = begin();
  bool done = false;
  if (ok) {
    const auto read = since_row ? read_since_row(most) : read_all_ops(most);
    if (read) {
      done = *read;
    } else {
      ok = read.error();
    }
  }
  if (ok = end_own(std::move(ok)); !ok) {
    // What this was the first to meet, the next transaction makes anew.
    if (is_being_made()) return being_made;
    return ok;
  }
  if (sums_.are_unfit()) return make_error(Errc::unsupported, connection_.path() + ": op ids of several lengths");
  if (!done) return {};
  const bool agree = sums_.ops() == now_.totals.ops;
  if (since_row && !agree) return begin_sums(sums_.boundary_unit(), false);  // K3
  sums_.all_read(agree);
  return {};
}

/// As a query does, which leaves out what has a place that is not that of its id.
void OpWriter::take_for_sums(const IndexedOp& op) {
  if (index_->is_plausible(op)) {
    sums_.take(op.location, Timestamp{op.created_at}, op.id);
    return;
  }
  if (suspects_.size() < kMostSuspects) suspects_.push_back({op.stored_at, OpId(op.id)});
  sums_.take_apart();
}

/// A damaged table or index, which could be read for ever.
Error OpWriter::out_of_order() const {
  return make_error(Errc::corrupt, connection_.path() + ": ops are not in order");
}

/// True: there are no more.
Result<bool> OpWriter::read_since_row(std::size_t most) {
  const Use use(ops_between_);
  use->bind(1, sums_.reached()).bind(2, sums_.end());
  int rc = SQLITE_ROW;
  for (; most > 0 && (rc = use->step()) == SQLITE_ROW; --most) {
    if (use->int64(0) <= sums_.reached()) return out_of_order();
    sums_.reached() = use->int64(0);
    take_for_sums(
        {static_cast<std::uint32_t>(use->int64(1)), use->int64(4), use->int64(3), use->int64(0), use->blob(2)});
    if (sums_.are_unfit()) return true;
  }
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) return connection_.error(rc);
  return rc == SQLITE_DONE;
}

Result<bool> OpWriter::read_all_ops(std::size_t most) {
  std::size_t seen = 0;
  bool in_order = true;
  auto ok = index_->by_time(Timestamp::min(), Timestamp::max(), sums_.after(), most, [&](const IndexedOp& op) {
    ++seen;
    const OpCursor at{Timestamp{op.created_at}, Timestamp{op.stored_at}};
    in_order = !sums_.after() || *sums_.after() < at;
    sums_.after() = at;
    if (op.stored_at <= sums_.end()) take_for_sums(op);
    return in_order && !sums_.are_unfit();
  });
  if (!ok) return ok.error();
  if (!in_order) return out_of_order();
  return seen < most;
}

/// nullopt: the row is not there any more, and reading begins anew.
Result<std::optional<DhtSums>> OpWriter::sums_with_row(std::int64_t boundary_unit) {
  DhtSums kept = {};
  if (const auto& base = sums_.base()) {
    auto row = sums_.take_row();
    if (!row) {
      auto read = read_sums_row();
      if (!read) return read.error();
      row = std::move(*read);
    }
    if (!row || row->covered != base->covered || row->ops != base->ops || row->salt != base->salt) {
      sums_.forget();
      return std::optional<DhtSums>();
    }
    kept = std::move(row->sums);
  }
  auto out = sums_.since().with(std::move(kept), boundary_unit);
  if (!out) return make_error(Errc::unsupported, connection_.path() + ": op ids of several lengths");
  return out;
}

Result<void> OpWriter::write_sums(Timestamp now) {
  if (sums_.state() != KeptSums::State::known) return {};
  const std::int64_t boundary = boundary_at(now);
  if (boundary < sums_.boundary_unit()) {
    sums_.forget();
    return {};
  }
  auto sums = sums_with_row(boundary);
  if (!sums) return sums.error();
  if (!*sums) return {};
  if (sums_.ops() != now_.totals.ops || (*sums)->cells.size() > sums_.rules().most_cells) {
    sums_.never_write();
    return {};
  }
  store::DhtSumsRow row;
  {
    const Use use(last_op_);
    const int rc = use->step();
    if (rc == SQLITE_DONE) return {};
    if (rc != SQLITE_ROW) return connection_.error(rc);
    row.covered = use->int64(0);
    row.last = sum_of(use->blob(1));
  }
  row.ops = sums_.ops();
  row.boundary_unit = boundary;
  row.places = places((*sums)->id_bytes);
  row.sums = std::move(**sums);
  if (sums_.base()) {
    row.salt = sums_.base()->salt;
  } else {
    const auto salt = connection_.number("SELECT random()");
    if (!salt) return salt.error();
    row.salt = static_cast<std::uint64_t>(*salt);
  }
  const auto bytes = row.encode();
  auto ok = begin();
  if (ok) {
    put_sums_.bind(1, ByteView(bytes));
    ok = finish(put_sums_);
    if (ok) ok = finish(remove_old_sums_);
  }
  if (ok = end_own(std::move(ok)); !ok) {
    sums_.write_failed();
    return ok;
  }
  sums_.written(row);
  return {};
}

Result<void> OpWriter::renew_sums(Timestamp now) {
  Result<void> ok;
  if (sums_.state() == KeptSums::State::unread && !sums_.are_unfit()) ok = begin_sums(boundary_at(now), true);
  const auto may_read = [&] {
    return sums_.state() == KeptSums::State::since_row ||
           (sums_.state() == KeptSums::State::all && now_.totals.ops <= sums_.rules().every);
  };
  while (ok && may_read()) ok = read_for_sums(0);
  if (ok && sums_.state() == KeptSums::State::known) return write_sums(now);
  sums_.forget();
  return ok;
}

/// Where some ids lie: another function gives other locations, most likely.
std::uint64_t OpWriter::places(std::size_t id_bytes) const {
  std::vector<std::uint8_t> id(id_bytes);
  std::array<std::uint8_t, 32> out{};
  for (std::size_t i = 0; i < out.size(); i += 4) {
    for (std::size_t at = 0; at < id.size(); ++at) id[at] = static_cast<std::uint8_t>(37 * at + 101 * i + at * i + 11);
    const std::uint32_t location = index_->location(id);
    for (std::size_t byte = 0; byte < 4; ++byte) out[i + byte] = static_cast<std::uint8_t>(location >> (8 * byte));
  }
  return store::ByteSum(0).add(out).value();
}

}  // namespace kitsune2::sqlite
