// The writer's large ops: their bytes in a file beside the database, and the order in which both become durable.
#include <algorithm>

#include "log/log.hpp"
#include "store/sqlite/op_db.hpp"
#include "store/sqlite/op_schema.hpp"

namespace kitsune2::sqlite {

/// Finds out what rows name, and cuts off the rest.
Result<void> OpWriter::open_large(const OpFileOptions& options) {
  least_large_bytes_ = options.least_large_bytes;
  large_ = std::make_unique<SegmentFile>(connection_.path(), GatherVfs::below(vfs_->name()));
  if (auto ok = add_large_function(connection_, *large_); !ok) return ok;
  if (!has_large(version_)) return {};
  // The last one by place, and also the last one by time: the index may be damaged, and what is cut off is lost.
  std::uint64_t named = 0;
  for (const char* last : {"SELECT at+bytes FROM op_place ORDER BY at DESC LIMIT 1",
                           "SELECT at+bytes FROM op_place ORDER BY stored_at DESC LIMIT 1"}) {
    const auto end = connection_.number(last);
    if (!end) return end.error();
    named = std::max(named, static_cast<std::uint64_t>(std::max<std::int64_t>(*end, 0)));
  }
  const auto there = large_->is_there();
  if (!there) return there.error();
  if (!*there && named > 0 && !options.large_may_be_missing) {
    return make_error(Errc::corrupt, large_->path() +
                                         ": it has the bytes of large ops, and is not there; put it back, or have "
                                         "`kitsune2 check --repair` drop these ops, so that they are fetched again");
  }
  if (!*there) {
    if (auto ok = large_->make(); !ok) return ok;
  }
  const auto size = large_->size();
  if (!size) return size.error();
  large_space_ = SegmentSpace(*size, named);
  if (named > *size) {
    log::warn("store", large_->path() + ": it has " + std::to_string(*size) + " bytes, and rows name " +
                           std::to_string(named) +
                           "; ops that are not there are fetched again when they are asked for");
  }
  Result<void> ok;
  if (const auto cut = large_space_.cut_at_opening()) ok = large_->truncate(*cut);
  large_->close();
  return ok;
}

void OpWriter::expect_large(std::size_t bytes) {
  if (version_ != kRunsFormat.version || bytes < least_large_bytes_) return;
  auto ok = large_->make();
  large_->close();
  if (ok) ok = begin();
  if (ok) ok = end_own(connection_.run(kStartLarge));
  if (ok) {
    large_space_ = {};
    ok = take_version(kLargeFormat.version);
  }
  if (!ok) log::debug("store", connection_.path() + ": large ops are stored in it for now: " + ok.error().message);
}

/// SQLite limits the database only.
Result<void> OpWriter::limit_database() {
  if (most_bytes_ == 0) return {};
  const std::uint64_t left = most_bytes_ - std::min(most_bytes_, large_space_.end());
  const auto pages = std::clamp<std::uint64_t>(left / page_bytes_, 1, 0xfffffffeU);
  return connection_.run(("PRAGMA max_page_count=" + std::to_string(pages)).c_str());
}

Result<void> OpWriter::check_room_for(std::uint64_t bytes) {
  if (most_bytes_ == 0) return {};
  const Use use(page_count_);
  if (const int rc = use->step(); rc != SQLITE_ROW) return connection_.error(rc);
  const std::uint64_t used = static_cast<std::uint64_t>(use->int64(0)) * page_bytes_ + large_space_.end();
  if (used < most_bytes_ && bytes + SegmentSpace::kBlock <= most_bytes_ - used) return {};
  return make_error(Errc::disk_full, connection_.path() + ": it has reached its largest size, " +
                                         std::to_string(most_bytes_) + " bytes");
}

Result<void> OpWriter::store_large(std::int64_t stored_at, ByteView op) {
  if (auto ok = check_room_for(op.size()); !ok) return ok;
  const std::uint64_t at = large_space_.take(op.size());
  if (auto ok = large_->write(at, op); !ok) return ok;
  insert_place_.bind(1, stored_at).bind(2, static_cast<std::int64_t>(at)).bind(3, static_cast<std::int64_t>(op.size()));
  return finish(insert_place_);
}

/// Before the commit.
Result<void> OpWriter::sync_large() {
  if (!large_space_.is_in_use()) return {};
  large_space_.on_sync();
  if (auto ok = large_->sync(); !ok) return ok;
  large_space_.on_commit();
  return {};
}

void OpWriter::end_large(bool is_committed) {
  if (!large_space_.is_in_use()) return large_->close();
  if (is_committed) {
    large_space_.on_committed();
    static_cast<void>(limit_database());  // else it is checked for each large op, and later ones try again
  } else {
    // Only for the room: what stays is never read.
    static_cast<void>(large_->truncate(large_space_.on_roll_back()));
  }
  large_->close();
}

Result<void> OpWriter::remove_data(std::int64_t stored_at) {
  auto ok = finish(remove_data_.bind(1, stored_at));
  if (ok && has_large(version_)) ok = finish(remove_place_.bind(1, stored_at));
  return ok;
}

Result<void> OpWriter::move_data(std::int64_t stored_at, std::int64_t to) {
  auto ok = finish(move_data_.bind(1, stored_at).bind(2, to));
  if (ok && has_large(version_)) ok = finish(move_place_.bind(1, stored_at).bind(2, to));
  return ok;
}

}  // namespace kitsune2::sqlite
