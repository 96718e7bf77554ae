// The op store's database file: its schema and all statements on it, without threads. docs/store-format.md.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/sqlite_store.hpp"
#include "store/sqlite/db.hpp"
#include "store/sqlite/fingerprints.hpp"
#include "store/sqlite/gather_vfs.hpp"
#include "store/sqlite/kept_sums.hpp"
#include "store/sqlite/op_schema.hpp"
#include "store/sqlite/runs_index.hpp"
#include "store/sqlite/segment_file.hpp"
#include "store/sqlite/segment_space.hpp"
#include "store/stored_clock.hpp"

namespace kitsune2::sqlite {

/// How a file is opened for writing.
struct OpFileOptions {
  std::uint64_t max_database_bytes = 0;  ///< 0: no limit
  std::shared_ptr<GatherVfs> vfs = {};   ///< null: one over the system's files
  /// Tells the location of ids; null: as in the reference. It must outlive what is opened.
  const OpPolicy* policy = nullptr;
  const Format* for_new = &kTablesFormat;  ///< the schema of a new file
  runs::MergeRules merge_rules = {};
  std::shared_ptr<runs::BlockCache> blocks = nullptr;  ///< of the indexes; null: none are kept
  std::shared_ptr<runs::RunShelf> shelf = nullptr;     ///< of the store, for its readers
  SumsRules sums_rules = {};
  std::size_t least_large_bytes = kLeastLargeBytes;
  bool large_may_be_missing = false;  ///< the file of large ops: then an empty one is made
};

/// A connection that has been used more often than this since it was opened or has rested, has the usual cache.
/// *Rationale*: what uses a store now and then gains nothing from a cache, and there are many of these; what uses it
/// all the time has it soon.
inline constexpr int kFewUses = 8;

/// An entry, or what an index says about one, that is wrong.
struct Suspect {
  std::int64_t stored_at;  ///< or kWholeIndex, or kSums
  OpId op_id;              ///< as it was found; empty for data without an entry
};
/// So many suspects one call, or one reading, remembers. The next ones find the rest.
inline constexpr std::size_t kMostSuspects = 4'096;
/// Whether a policy's error says that the bytes are not an op. One that threw, or whose limit is lower than it was,
/// says nothing about them.
inline bool is_damage(const Error& error) { return error.code != Errc::internal && error.code != Errc::too_large; }
/// The outcome for entries that a reader found suspicious.
struct Examined {
  std::vector<OpRecord> dropped;
  std::size_t mended = 0;  ///< entries
  bool sizes_were_wrong = false;
};

/// The connection that writes, for one thread. Every change is between `begin` and `commit`; `roll_back` undoes all of
/// it, in the file and in this object.
class OpWriter {
 public:
  static Result<OpWriter> open(const std::string& path, const OpFileOptions& options = {});

  /// Records what the store is for, or checks it. Errc::already_exists names both if it is for something else.
  Result<void> bind_to(const SpaceId& space, std::string_view policy);

  /// Before the transaction in which an op of so many bytes is to be stored, if it is the largest one. The first large
  /// op has the file changed to version 5; if that fails, the ops are stored as in version 2.
  void expect_large(std::size_t bytes);
  Result<void> begin();
  Result<void> commit();
  void roll_back();

  /// Adds the outcome for the op to `out`, and if it is new also to `records` and, from Fingerprints::kLeastBytes on,
  /// to `prints`, which may be null.
  Result<void> store(const OpDescription& description, ByteView op, Timestamp wall_now, ProcessedOps& out,
                     std::vector<OpRecord>& records, std::vector<Fingerprints::Entry>* prints = nullptr);
  /// Checks ops again, while nothing else changes. An op whose bytes do not have its id by `policy` is dropped (one
  /// that the policy cannot judge stays, see `is_damage`); an entry that differs from the bytes is corrected; if only
  /// an index is wrong, the indexes are rebuilt (once in the life of this object; in version 2: see `is_behind`). Data
  /// without an entry gets one back if it is an op by `policy`, whatever the suspect's id, and is removed if it is none
  /// or the op is intact elsewhere; a damaged one elsewhere is removed instead. No effect for what does not exist. In
  /// version 2 an op whose entry or whose place in an index is wrong is stored again, at another time of storing; one
  /// that is there twice is removed once; the indexes are rebuilt if a part of them cannot be read.
  Result<Examined> examine(const std::vector<Suspect>& suspects, const OpPolicy& policy);
  /// Sets the totals to what is there. Reads the whole index by time.
  Result<void> recount();
  Result<void> store_slice_hash(const DhtArc& arc, std::uint64_t slice_index, ByteView hash);
  Result<void> add_pending(const std::vector<OpId>& op_ids, const Url& source);
  /// Whether an `add_pending` of these would keep at most `most_bytes`, over all sources. Changes nothing.
  Result<bool> has_room_for(const std::vector<OpId>& op_ids, const Url& source, std::uint64_t most_bytes);
  /// The bytes of the open requests that are kept.
  std::uint64_t pending_bytes() const { return now_.pending_bytes; }
  Result<void> remove_pending_source(const Url& source);
  /// Goes through all rows of `source`.
  Result<void> remove_pending(const std::vector<OpId>& op_ids, const Url& source);

  /// Gives back the memory that only speeds up what comes next: pages and statements. Between transactions.
  void rest();
  /// To be called after a commit: copies the WAL into the database when it has become long. Never fails: what could not
  /// be copied stays in the WAL, where it is just as durable.
  void tend_wal();
  /// Copies all of the WAL and truncates its file. No effect if it is empty. Returns false if a reader, or the disk,
  /// prevented it.
  bool truncate_wal();
  bool wal_is_empty() const { return *wal_frames_ == 0; }
  /// The same, but certainly: not even the frames of a transaction that failed are left, which SQLite does not count.
  bool clear_wal();

  /// Whether a part of the index was found that cannot be read. The next transaction makes it anew, if that was not
  /// done before.
  bool index_is_damaged() const { return index_->is_damaged(); }
  /// Whether there are runs to be merged.
  bool wants_merging() const { return runs_ != nullptr && runs_->has_work(); }
  /// Whether the index does not have all ops yet, and is to be caught up. Until then a look-up goes through rows.
  bool is_behind() const { return answers_from_runs(version_) && runs_->is_behind(); }
  /// How often rows were gone through for that reason.
  std::uint64_t row_passes() const { return runs_ != nullptr ? runs_->passes() : 0; }
  /// Takes the next ops into the index, in a transaction of its own. `ops` have been stored since the last time: it
  /// takes more than that.
  Result<void> catch_up(std::size_t ops = 0);
  struct Progress {
    std::uint64_t ops, of;
  };
  /// How many ops the runs have.
  Progress progress() const {
    const std::uint64_t ops = runs_ != nullptr ? runs_->entries() : 0;
    return {std::min(ops, now_.totals.ops), now_.totals.ops};
  }
  /// The version of the schema.
  int version() const { return version_; }
  /// Whether the file is on its way from version 1 to 2.
  bool is_converting() const { return has_runs(version_) && version_ != kRunsFormat.version && !has_large(version_); }
  /// The next piece of that way, in a transaction of its own; `ops` as above. In version 1 it starts. The old indexes
  /// answer until the runs have all ops; then they are removed, one a piece. After a failure nothing has changed.
  Result<void> convert(std::size_t ops = 0);
  /// The bytes that the database grows by, at most, while it is converted, and those that it has.
  struct Room {
    std::uint64_t needed, used;
  };
  Result<Room> room_for_conversion();
  /// These are going to be stored: while the index is behind they are looked for together.
  Result<void> expect(const std::vector<OpId>& op_ids) { return index_->expect(op_ids); }
  /// Merges a piece, in a transaction of its own.
  Result<void> merge();

  /// The sums of all ops. nullopt: more is to be read first, by the next call, between transactions; each reads a
  /// piece, of more than `ops` ops. After an error they are asked for anew. Errc::unsupported: ids have several
  /// lengths.
  Result<std::optional<DhtSums>> dht_sums(Timestamp now, std::size_t ops = 0);
  /// Whether the sums are to be written. `at_rest`: nothing else is to be done.
  bool wants_sums_written(bool at_rest) const { return sums_.wants_writing(at_rest); }
  /// Writes them, in a transaction of its own.
  Result<void> write_sums(Timestamp now);
  /// The same in a file that was opened again, where the sums have not been asked for: from the row that is there and
  /// what was stored since. No effect if there is no row that fits and too many ops to read all of them.
  Result<void> renew_sums(Timestamp now);
  /// How many of the ops the row has, as far as this object knows.
  std::uint64_t ops_in_sums_row() const { return sums_.base() ? sums_.base()->ops : 0; }
  bool knows_sums() const { return sums_.state() == KeptSums::State::known; }
  /// What reading has found suspicious since the last time, for `examine`.
  std::vector<Suspect> take_suspects() { return std::exchange(suspects_, {}); }

  /// Whether the pending table has many entries that are stored by now. Not while the index is behind, when each of
  /// them would be looked for in all rows.
  bool wants_compaction() const { return compacting_after_ >= 0 && !is_behind(); }
  /// Goes through a part of the pending table (in a transaction of its own) and removes what is stored by now.
  Result<void> compact_pending();

 private:
  /// What a rolled back transaction must not leave behind.
  struct State {
    store::StoredClock clock;
    OpStoreStats totals;
    bool totals_changed = false;  ///< though their number of ops may be the same
    std::uint64_t stored_since_compaction = 0;
    std::uint64_t pending_ids = 0;
    std::uint64_t pending_bytes = 0;  ///< of all rows
    std::int64_t last_pending_row = 0;
    bool indexes_made_anew = false;
    bool rows_changed = false;  ///< ops were removed, moved or corrected
  };

  OpWriter();
  void prepare();
  Result<void> prepare_index();
  Result<void> load_index();
  Result<void> take_version(int version);
  Result<void> open_large(const OpFileOptions& options);
  Result<void> store_large(std::int64_t stored_at, ByteView op);
  Result<void> sync_large();
  void end_large(bool is_committed);
  Result<void> check_room_for(std::uint64_t bytes);
  Result<void> limit_database();
  /// Whether the indexes are SQLite's.
  bool has_tables() const { return !answers_from_runs(version_); }
  /// A row of the pending table, without the ids that are dropped from it.
  struct PendingRow {
    std::int64_t seq;
    std::vector<std::uint8_t> left;
    std::size_t dropped;
    std::size_t bytes;  ///< before the drop
  };
  /// The row of a request, by a hash of its op id; for one source. A request that is not in here may be in a row all
  /// the same.
  using RequestRows = boost::unordered_flat_map<std::uint64_t, std::int64_t>;
  Result<std::int64_t> find_source(const Url& source);
  Result<std::int64_t> source_number(const Url& source);
  Result<void> put_back(const std::vector<PendingRow>& rows);
  /// Runs a statement that returns no row, and resets it.
  Result<void> finish(Statement& statement);
  /// Ends a transaction that stores nothing for a caller: commits what went well, rolls back what did not.
  Result<void> end_own(Result<void> ok);
  Result<bool> drop_or_mend(const Suspect& suspect, const OpPolicy& policy, Examined& out);
  Result<bool> look_for_row(const Suspect& suspect, const OpPolicy& policy, Examined& out);
  /// What is at a time of storing.
  struct Looked {
    bool has_row = false;  ///< perhaps without bytes
    std::size_t bytes = 0;
    std::optional<OpDescription> op;  ///< if the bytes are one
    bool is_unclear = false;          ///< the policy cannot judge them

    bool is(const OpId& op_id) const { return op && op->op_id == op_id; }
  };
  /// Of an op that is held more than once. `of_index_only`: an index says so, and its row is not there.
  enum class Copy { none, intact, unclear, of_index_only };
  Result<Looked> look_at(Statement& data, std::int64_t stored_at, const OpPolicy& policy);
  Result<Copy> other_copy(std::int64_t stored_at, const OpId& op_id, const OpPolicy& policy, Examined& out);
  Result<bool> put_row_back(std::int64_t stored_at, const OpDescription& op, std::size_t bytes, Examined& out);
  Result<bool> mend(std::int64_t stored_at, const OpRecord& entry, bool is_right, const OpPolicy& policy,
                    Examined& out);
  Result<void> remove(std::int64_t stored_at);
  Result<void> remove_data(std::int64_t stored_at);
  Result<void> move_data(std::int64_t stored_at, std::int64_t to);
  Result<void> start_runs_anew();
  /// SQLite writes nothing more in a transaction that has met a damaged page.
  Result<void> begin_again() {
    connection_.roll_back();
    return connection_.run("BEGIN IMMEDIATE");
  }
  /// Each of them is looked for more than once.
  Result<void> expect_all(std::span<const Suspect> suspects) {
    std::vector<OpId> op_ids;
    for (const Suspect& suspect : suspects) {
      if (!suspect.op_id.empty()) op_ids.push_back(suspect.op_id);
    }
    return index_->expect(op_ids);
  }
  bool may_make_indexes_anew() const { return !indexes_stay_ && !now_.indexes_made_anew; }
  Result<void> make_indexes_anew();
  Result<bool> indexes_agree(std::int64_t stored_at, const OpRecord& entry);
  void forget_requests();
  bool is_in_another_row(std::int64_t source, std::uint64_t hash, std::int64_t row) const;
  void forget_request(std::int64_t source, std::uint64_t hash);
  void remember_request(std::int64_t source, std::uint64_t hash, std::int64_t row);
  Result<std::optional<store::DhtSumsRow>> read_sums_row();
  Result<void> begin_sums(std::int64_t boundary_unit, bool with_row);
  Result<void> read_for_sums(std::size_t ops);
  Result<bool> read_since_row(std::size_t most);
  Result<bool> read_all_ops(std::size_t most);
  void take_for_sums(const IndexedOp& op);
  Error out_of_order() const;
  Result<std::optional<DhtSums>> sums_with_row(std::int64_t boundary_unit);
  std::uint64_t places(std::size_t id_bytes) const;
  bool distrust();
  bool declare_nothing_copied();
  void fit_cache();
  void note_compaction();
  bool checkpoint(int mode);

  std::unique_ptr<int> wal_frames_;  ///< in the WAL after the last commit; written by SQLite's hook
  int most_frames_ = 0;              ///< the WAL is copied into the database when it has this many
  int least_frames_ = 0;             ///< or, if commits are small, this many
  int short_frames_ = 0;             ///< where runs answer
  int frames_seen_ = 0;              ///< by `tend_wal` last
  int tended_at_ = 0;                ///< how many it had when it was copied last
  int largest_commit_ = 0;           ///< since then, in frames
  Connection::Cache cache_ = Connection::Cache::small;
  int uses_ = 0;                        ///< since it was opened or has rested, up to kFewUses
  std::shared_ptr<GatherVfs> vfs_;      ///< destroyed after the connection
  std::unique_ptr<SegmentFile> large_;  ///< likewise
  SegmentSpace large_space_;
  std::size_t least_large_bytes_ = 0;
  std::uint64_t most_bytes_ = 0;  ///< of the database and the file of large ops together; 0: no limit
  std::uint64_t page_bytes_ = 0;
  Connection connection_;
  int version_ = 0;  ///< of the schema
  const OpPolicy* policy_ = nullptr;
  RunsShared shared_;
  std::unique_ptr<OpIndex> tables_;  ///< until the runs answer
  std::unique_ptr<RunsIndex> runs_;  ///< except in version 1
  OpIndex* index_ = nullptr;         ///< the one that answers
  bool is_stale_ = false;            ///< the file has another version than statements and indexes: `take_version`
  Statement insert_op_, insert_data_, set_totals_, put_slice_hash_;
  Statement find_source_, insert_source_, bytes_of_source_, remove_source_, remove_unused_sources_;
  Statement insert_pending_, remove_pending_, list_pending_, list_pending_of_, update_pending_, remove_pending_row_;
  Statement op_at_, data_at_, stray_data_, remove_op_, remove_data_, set_entry_, move_entry_, move_data_;
  Statement get_sums_, put_sums_, remove_sums_, remove_old_sums_, last_op_, ops_between_;
  Statement begin_, commit_;
  Statement insert_place_, remove_place_, move_place_, page_count_;       ///< of version 5
  boost::unordered_flat_map<Url, std::int64_t, std::hash<Url>> sources_;  ///< those used lately
  boost::unordered_flat_map<std::int64_t, RequestRows> requests_;         ///< by source
  std::size_t requests_known_ = 0;                                        ///< in all of them
  std::vector<std::pair<std::int64_t, std::uint64_t>> remembered_;        ///< in this transaction
  bool indexes_stay_ = false;                                             ///< rebuilding them has failed
  bool slots_removed_ = false;                                            ///< since they could not be written over
  /// A checkpoint has failed, and what earlier ones wrote could not be declared void (see `distrust`): the database
  /// must not be written until it can be.
  bool distrusted_ = false;
  State now_;
  State before_;
  KeptSums sums_;
  std::vector<Suspect> suspects_;
  std::int64_t compacting_after_ = -1;  ///< the pending row that compaction has reached; -1: nothing to do
};

/// Where the bytes of an op are, how many there are, and when it was created, according to an index.
struct Place {
  std::int64_t stored_at;
  std::uint64_t size;
  Timestamp created_at;
};

/// A connection that reads, for one thread. Sees every commit made before the call.
class OpReader {
 public:
  /// `read_only`: beside the process that owns the store.
  static Result<OpReader> open(const std::string& path, bool read_only, const char* vfs = nullptr,
                               const OpPolicy* policy = nullptr, const RunsShared& runs = {});

  /// As OpWriter::rest.
  void rest();

  /// Space and policy as recorded. Errc::corrupt if they are not.
  Result<SqliteOpStoreInfo> info();

  /// Ops that calls have met since the last time and whose entries or bytes are wrong: they were left out, or only
  /// their bytes are right. For OpWriter::examine.
  std::vector<Suspect> take_suspects();
  /// Whether calls fail because a part of the index cannot be read.
  bool index_is_damaged() const { return index_->is_damaged(); }

  /// Ops that `prints` knows are not hashed again; hashed ones are added to it. It must outlive this object; null: all
  /// are hashed.
  void use(Fingerprints* prints) { prints_ = prints; }

  /// With a policy, bytes that do not have their id are left out.
  Result<std::vector<MetaOp>> retrieve_ops(const std::vector<OpId>& op_ids, std::uint64_t max_bytes);
  Result<std::vector<OpId>> filter_out_intact_ops(const std::vector<OpId>& op_ids);
  /// Removes those that are held from `op_ids`; after a failure, some of them.
  Result<void> filter_out_existing_ops(std::vector<OpId>& op_ids);
  Result<OpIdsInSlice> op_hashes_in_time_slice(const DhtArc& arc, Timestamp start, Timestamp end);
  Result<OpPage> list_ops(const OpListQuery& query);
  Result<OpSumsPage> sum_ops(const OpSumsQuery& query);
  Result<OpIdsBounded> op_ids_bounded(const OpIdsQuery& query);
  Result<std::optional<Timestamp>> earliest_timestamp_in_arc(const DhtArc& arc);
  Result<std::uint64_t> slice_hash_count(const DhtArc& arc);
  Result<std::optional<Bytes>> slice_hash(const DhtArc& arc, std::uint64_t slice_index);
  Result<std::vector<std::pair<std::uint64_t, Bytes>>> slice_hashes(const DhtArc& arc);
  Result<std::vector<std::pair<Url, std::vector<OpId>>>> pending();
  Result<PendingPage> pending_page(std::uint64_t after, std::size_t limit);
  Result<OpStoreStats> stats();

 private:
  OpReader() = default;
  void prepare();
  Result<void> follow_version();
  /// Several statements on one state of the database. Nothing else may be begun while it exists.
  class Snapshot;
  /// Reads the bytes of `out`, which are at `places`, and removes damaged ops from it.
  Result<void> read_data(std::span<const Place> places, std::uint64_t max_bytes, std::vector<MetaOp>& out);
  Result<bool> read_alone(const Place& place, MetaOp& op);
  Result<std::optional<Bytes>> read_large(const Place& place, BlobReader& blobs);
  bool is_intact(const Place& place, const MetaOp& op, ByteView bytes);
  Result<void> compare_entry(const Place& place, ByteView op_id);
  bool is_plausible(const IndexedOp& op);
  void suspect(std::int64_t stored_at, ByteView op_id);
  Error damaged(const char* table) const;
  /// The estimated number of ops in `arc`, if ids are evenly spread.
  Result<std::uint64_t> ops_in(const DhtArc& arc);

  std::unique_ptr<SegmentFile> large_;  ///< destroyed after the connection
  Connection connection_;
  const OpPolicy* policy_ = nullptr;
  RunsShared shared_;
  std::vector<Suspect> suspects_;
  Fingerprints* prints_ = nullptr;
  int uses_ = 0;     ///< as in OpWriter
  int version_ = 0;  ///< of the schema
  std::unique_ptr<OpIndex> index_;
  Statement data_, data_from_, totals_, last_;
  Statement by_stored_, count_since_;
  Statement slice_count_, slice_, slices_;
  Statement pending_from_, meta_, user_version_;
  Statement place_;  ///< in version 5
};

}  // namespace kitsune2::sqlite
