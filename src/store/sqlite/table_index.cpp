// The indexes of version 1 of the op store's schema: op_by_loc and op_by_time.
#include <algorithm>

#include "store/sqlite/op_index.hpp"

namespace kitsune2::sqlite {
namespace {

class TableIndex final : public OpIndex {
 public:
  TableIndex(const Connection& connection, const OpPolicy* policy) : OpIndex(connection, policy) {
    const std::pair<Statement*, const char*> all[] = {
        {&find_, "SELECT stored_at, created_at, size FROM op INDEXED BY op_by_loc WHERE loc=?1 AND id=?2"},
        {&by_time_,
         "SELECT created_at, stored_at, loc, id, size FROM op INDEXED BY op_by_time"
         " WHERE (created_at, stored_at)>(?1,?2) AND created_at<?3 ORDER BY created_at, stored_at LIMIT ?4"},
        {&count_in_time_,
         "SELECT count(*) FROM"
         " (SELECT 1 FROM op INDEXED BY op_by_time WHERE created_at>=?1 AND created_at<?2 LIMIT ?3)"},
        {&by_place_,
         "SELECT created_at, stored_at, loc, id, size FROM op INDEXED BY op_by_loc"
         " WHERE loc BETWEEN ?1 AND ?2 AND created_at BETWEEN ?3 AND ?4 AND stored_at>=?5"},
        {&in_time_,
         "SELECT loc=?3 AND id=?4 AND size=?5 FROM op INDEXED BY op_by_time WHERE created_at=?1 AND stored_at=?2"},
    };
    for (const auto& [statement, sql] : all) *statement = connection.later(sql);
  }

  void let_go() override {
    for (Statement* statement : {&find_, &by_time_, &count_in_time_, &by_place_, &in_time_}) statement->let_go();
  }
  Result<void> refresh() override { return {}; }

  Result<std::optional<Found>> find(ByteView op_id) override {
    const Use use(find_);
    const int rc = use->bind(1, std::int64_t{location(op_id)}).bind(2, op_id).step();
    if (rc == SQLITE_ROW) {
      return std::optional<Found>(
          Found{use->int64(0), Timestamp{use->int64(1)}, static_cast<std::uint64_t>(use->int64(2))});
    }
    if (rc != SQLITE_DONE) return error(rc);
    return std::optional<Found>();
  }

  Result<void> by_time(Timestamp start, Timestamp end, const std::optional<OpCursor>& after, std::size_t most,
                       const Row& row) override {
    // Times of storing are greater than this.
    OpCursor from{start, Timestamp::min()};
    if (after) from = std::max(from, *after);
    const Use use(by_time_);
    use->bind(1, from.created_at.micros).bind(2, from.stored_at.micros).bind(3, end.micros);
    return each(use->bind(4, static_cast<std::int64_t>(std::min<std::size_t>(most, INT64_MAX))), row);
  }

  Result<std::uint64_t> count_in_time(Timestamp start, Timestamp end, std::uint64_t most) override {
    const Use use(count_in_time_);
    use->bind(1, start.micros).bind(2, end.micros);
    const int rc = use->bind(3, static_cast<std::int64_t>(std::min<std::uint64_t>(most, INT64_MAX))).step();
    if (rc != SQLITE_ROW) return error(rc);
    return static_cast<std::uint64_t>(use->int64(0));
  }

  Result<void> by_place(const PlaceQuery& query, const Row& row) override {
    const Use use(by_place_);
    use->bind(1, std::int64_t{query.first}).bind(2, std::int64_t{query.last}).bind(3, query.first_created);
    return each(use->bind(4, query.last_created).bind(5, query.first_stored), row);
  }

  Result<bool> has_in_time(const IndexedOp& op) override {
    const Use use(in_time_);
    use->bind(1, op.created_at).bind(2, op.stored_at).bind(3, std::int64_t{op.location}).bind(4, op.id);
    const int rc = use->bind(5, op.size).step();
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) return error(rc);
    return rc == SQLITE_ROW && use->int64(0) == 1;
  }

 private:
  Result<void> each(Statement& rows, const Row& row) const {
    int rc = 0;
    while ((rc = rows.step()) == SQLITE_ROW) {
      const IndexedOp op{static_cast<std::uint32_t>(rows.int64(2)), rows.int64(4), rows.int64(0), rows.int64(1),
                         rows.blob(3)};
      if (!row(op)) return {};
    }
    if (rc != SQLITE_DONE) return error(rc);
    return {};
  }

  Statement find_, by_time_, count_in_time_, by_place_, in_time_;
};

}  // namespace

std::unique_ptr<OpIndex> make_table_index(const Connection& connection, const OpPolicy* policy) {
  return std::make_unique<TableIndex>(connection, policy);
}

}  // namespace kitsune2::sqlite
