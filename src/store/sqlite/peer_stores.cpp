// The peer store and the peer meta store over one small SQLite file: read from memory, written through.
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "kitsune2/peer_store.hpp"
#include "store/memory/peer_table.hpp"
#include "store/sqlite/db.hpp"
#include "store/sqlite/environment.hpp"
#include "store/sqlite/file_lock.hpp"
#include "store/sqlite/store_pool.hpp"

namespace kitsune2 {
namespace {

using sqlite::Connection;
using sqlite::Statement;
using sqlite::Use;

constexpr sqlite::Format kPeerFormat{
    0x6b327072,  // "k2pr"
    1, "peer store",
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE agent(agent BLOB PRIMARY KEY, expires_at INTEGER NOT NULL, json TEXT NOT NULL);"
    "CREATE TABLE note(key TEXT, url TEXT, value BLOB NOT NULL, expires_at INTEGER, PRIMARY KEY(key, url));"};

/// The file both stores write to. Strand only, but the pool may close it, under its mutex, while nobody uses it.
///
/// It is closed without a checkpoint. *Rationale*: the strand would wait for the disk; what is in the WAL is as durable
/// there, and no more than kMostWalPages are read when it is opened again.
class PeerDb final : public std::enable_shared_from_this<PeerDb>, private sqlite::StorePool::Member {
 public:
  static Result<std::shared_ptr<PeerDb>> open(const sqlite::Environment& environment, Runtime& runtime,
                                              const SpaceId& space, const std::string& path) {
    const std::shared_ptr<PeerDb> out(new PeerDb(environment, runtime, path));
    const Using use(*out, false);
    if (environment.vfs == nullptr) {
      auto taken = sqlite::FileLock::take(path);
      if (!taken) return taken.error();
      out->lock_ = std::move(*taken);
      const auto state = sqlite::inspect_file(path);
      if (!state) return state.error();
      if (*state == sqlite::FileState::missing) {
        if (auto ok = sqlite::create_file(path); !ok) return ok.error();
      }
    }
    if (auto ok = out->connect(true); !ok) return ok.error();
    if (auto ok = out->bind_to(space); !ok) return ok.error();
    return out;
  }
  ~PeerDb() override {
    runtime_.cancel(timer_);
    place_.reset();  // from now on the pool does not close it
  }

  /// While it exists, the file is open, or `ok` says why not.
  class Using {
   public:
    explicit Using(PeerDb& db, bool opens = true) : db_(db) {
      if (db_.place_) db_.place_->use_now(kUses);
      if (opens) ok = db_.open_again();
    }
    ~Using() {
      if (!db_.place_) return;
      const bool is_open = db_.statements_.has_value();
      db_.place_->release(kUses);
      if (is_open) {
        db_.close_later();
      } else {
        db_.place_->closed();
      }
    }
    Using(const Using&) = delete;
    Using& operator=(const Using&) = delete;
    Result<void> ok;

   private:
    PeerDb& db_;
  };

  /// The file is small, and damage that is only met when a row is written would be met by a running node.
  static Result<void> check_pages(Connection& connection) {
    auto check = connection.prepare("PRAGMA quick_check(1)");
    if (!check) return check.error();
    const int rc = check->step();
    if (rc != SQLITE_ROW) return connection.error(rc);
    if (check->text(0) == "ok") return {};
    return make_error(Errc::corrupt, connection.path() + ": " + std::string(check->text(0)));
  }

  /// Runs `work` in one transaction.
  template <class Work>
  Result<void> transaction(Work work) {
    const Using use(*this);
    if (!use.ok) return use.ok;
    if (auto ok = connection_.run("BEGIN IMMEDIATE"); !ok) return ok;
    Result<void> ok = work();
    if (ok) ok = connection_.run("COMMIT");
    if (!ok) connection_.roll_back();
    return ok;
  }

  Result<void> put_agent(const AgentInfoSigned& info) {
    statements_->put_agent.bind(1, info.info().agent.view())
        .bind(2, info.info().expires_at.micros)
        .bind_text(3, info.encode());
    return finish(statements_->put_agent);
  }
  Result<void> remove_agent(const AgentId& agent) {
    statements_->remove_agent.bind(1, agent.view());
    return finish(statements_->remove_agent);
  }
  Result<void> clear_agents() { return connection_.run("DELETE FROM agent"); }
  Result<void> remove_expired(Timestamp now) {
    for (Statement* statement : {&statements_->expire_agents, &statements_->expire_notes}) {
      statement->bind(1, now.micros);
      if (auto ok = finish(*statement); !ok) return ok;
    }
    return {};
  }
  /// For one who uses it, as the two before.
  Result<void> put_note(const Url& peer, const std::string& key, const store::PeerNotes::Note& note) {
    statements_->put_note.bind_text(1, key).bind_text(2, peer.str()).bind(3, note.value);
    if (note.expiry) {
      statements_->put_note.bind(4, note.expiry->micros);
    } else {
      statements_->put_note.bind_null(4);
    }
    return finish(statements_->put_note);
  }
  Result<void> remove_note_undurably(const Url& peer, const std::string& key) {
    statements_->remove_note.bind_text(1, key).bind_text(2, peer.str());
    return finish(statements_->remove_note);
  }
  /// Durable at once, as all that was written before.
  Result<void> remove_note(const Url& peer, const std::string& key) {
    auto ok = connection_.run("PRAGMA synchronous=FULL");
    if (ok) ok = remove_note_undurably(peer, key);
    if (auto back = connection_.run("PRAGMA synchronous=NORMAL"); !back && ok) ok = back;
    // SQLite makes the name of a WAL durable only as long as the WAL is open that it made.
    if (ok && opened_again_) {
      const int rc = sqlite3_wal_checkpoint_v2(connection_.handle(), nullptr, SQLITE_CHECKPOINT_FULL, nullptr, nullptr);
      if (rc != SQLITE_OK) ok = connection_.error(rc);
    }
    return ok;
  }

  template <class Row>
  Result<void> each(const char* sql, Row row) {
    auto statement = connection_.prepare(sql);
    if (!statement) return statement.error();
    int rc = 0;
    while ((rc = statement->step()) == SQLITE_ROW) row(*statement);
    if (rc != SQLITE_DONE) return connection_.error(rc);
    return {};
  }

 private:
  static constexpr sqlite::StorePool::User kUses = 1;
  static constexpr int kMostWalPages = 256;

  PeerDb(const sqlite::Environment& environment, Runtime& runtime, std::string path)
      : runtime_(runtime), vfs_(environment.vfs), path_(std::move(path)) {
    if (!environment.peer_pool) return;
    place_ = std::make_unique<sqlite::StorePool::Place>(environment.peer_pool, sqlite::kPeerStoreDescriptors);
    place_->belongs_to(*this);
  }

  Result<void> connect(bool for_the_first_time) {
    auto connection = Connection::open(path_, Connection::Mode::write, vfs_);
    if (!connection) return connection.error();
    connection_ = std::move(*connection);
    if (auto ok = sqlite::open_format(connection_, kPeerFormat, for_the_first_time); !ok) return ok;
    if (for_the_first_time) {
      if (auto ok = check_pages(connection_); !ok) return ok;
    }
    // NORMAL: no sync with each commit. What a power failure takes, bootstrap and gossip bring again; and the strand
    // does not wait for the disk.
    static const std::string pragmas =
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
        "PRAGMA journal_size_limit=4194304; PRAGMA temp_store=MEMORY; PRAGMA wal_autocheckpoint=" +
        std::to_string(kMostWalPages);
    if (auto ok = connection_.run(pragmas.c_str()); !ok) return ok;
    connection_.let_pages_go();
    prepare(statements_.emplace());
    return {};
  }

  /// In use.
  Result<void> open_again() {
    if (statements_) return {};
    const auto open_it = [&]() -> Result<void> {
      if (!lock_) return connect(false);
      if (auto ok = lock_->take_again(path_); !ok) return ok;
      const auto state = sqlite::inspect_file(path_);
      if (!state) return state.error();
      if (*state == sqlite::FileState::present) return connect(false);
      return make_error(Errc::not_found,
                        path_ + ": the store is not there any more; it was moved or removed meanwhile");
    };
    auto ok = open_it();
    opened_again_ = true;
    if (!ok) disconnect();
    return ok;
  }
  /// Not at the end of the store, which copies the WAL.
  void disconnect() {
    statements_.reset();
    if (connection_.handle() != nullptr) {
      sqlite3_db_config(connection_.handle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    }
    connection_ = {};
    if (lock_) lock_->rest();
  }
  void has_room(sqlite::StorePool::User /*user*/) override {}
  bool give_up() override {
    disconnect();
    return true;
  }
  void close_later() {
    if (timer_ != 0) return;
    timer_ = runtime_.schedule_after(place_->left(), [weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self) return;
      self->timer_ = 0;
      if (self->place_->close_if_idle()) {
        self->disconnect();
        self->place_->closed();
      } else if (self->place_->is_open()) {
        self->close_later();
      }
    });
  }

  struct Statements {
    Statement put_agent, remove_agent, expire_agents, expire_notes, put_note, remove_note;
  };
  void prepare(Statements& statements) const {
    const std::pair<Statement*, const char*> all[] = {
        {&statements.put_agent, "INSERT OR REPLACE INTO agent(agent, expires_at, json) VALUES(?1,?2,?3)"},
        {&statements.remove_agent, "DELETE FROM agent WHERE agent=?1"},
        {&statements.expire_agents, "DELETE FROM agent WHERE expires_at<=?1"},
        {&statements.expire_notes, "DELETE FROM note WHERE expires_at<=?1"},
        {&statements.put_note, "INSERT OR REPLACE INTO note(key, url, value, expires_at) VALUES(?1,?2,?3,?4)"},
        {&statements.remove_note, "DELETE FROM note WHERE key=?1 AND url=?2"},
    };
    for (const auto& [statement, sql] : all) *statement = connection_.later(sql);
  }

  Result<void> bind_to(const SpaceId& space) {
    auto get = connection_.prepare("SELECT value FROM meta WHERE key='space'");
    if (!get) return get.error();
    const int rc = get->step();
    if (rc == SQLITE_ROW) {
      const ByteView held = get->blob(0);
      if (as_text(held) == as_text(space.view())) return {};
      return make_error(Errc::already_exists, connection_.path() + ": this store is of space " + to_base64url(held) +
                                                  ", not of " + space.to_string());
    }
    if (rc != SQLITE_DONE) return connection_.error(rc);
    auto put = connection_.prepare("INSERT INTO meta(key, value) VALUES('space',?1)");
    if (!put) return put.error();
    put->bind(1, space.view());
    return finish(*put);
  }

  Result<void> finish(Statement& statement) {
    const Use use(statement);
    const int rc = use->step();
    if (rc != SQLITE_DONE) return connection_.error(rc);
    return {};
  }

  Runtime& runtime_;
  const char* const vfs_;
  const std::string path_;
  std::optional<sqlite::FileLock> lock_;  ///< released last
  Connection connection_;
  std::optional<Statements> statements_;  ///< while it is open
  std::unique_ptr<sqlite::StorePool::Place> place_;
  Runtime::TimerId timer_ = 0;
  bool opened_again_ = false;
};

/// Infos that others brought are written so long after the first of them, in one transaction.
constexpr Duration kInfosWait = std::chrono::seconds(1);
/// With so many that wait they are written at once.
constexpr std::size_t kMostWaitingInfos = 4096;

class SqlitePeerStore final : public PeerStore, public std::enable_shared_from_this<SqlitePeerStore> {
 public:
  SqlitePeerStore(Runtime& runtime, const SpaceId& space, std::shared_ptr<PeerDb> db, std::size_t max_agents)
      : runtime_(runtime), db_(std::move(db)), table_(space, max_agents, store::random_of(runtime)) {}
  ~SqlitePeerStore() override { runtime_.cancel(timer_); }

  Result<void> load(const Verifier& verifier) {
    std::vector<AgentInfoPtr> infos;
    auto ok = db_->each("SELECT json FROM agent", [&](const Statement& row) {
      // A row that was changed behind our back does not verify: it is left out, and goes when it is replaced or
      // expires.
      if (auto info = AgentInfoSigned::decode(row.text(0), verifier, kAnyUrlForm)) infos.push_back(std::move(*info));
    });
    if (ok) table_.insert(infos, {}, runtime_.wall_now());
    return ok;
  }

  void insert(const std::vector<AgentInfoPtr>& infos) override { insert_from(infos, {}); }
  void set_use(std::function<PeerUse(const AgentInfo&)> use) override { table_.set_use(std::move(use)); }
  void insert_from(const std::vector<AgentInfoPtr>& infos, const std::string& bringer) override {
    const auto changes = table_.insert(infos, bringer, now());
    if (db_ && (!changes.kept.empty() || !changes.gone.empty())) {
      for (const AgentInfoPtr& info : changes.kept) waiting_.insert(info->info().agent);
      waiting_.insert(changes.gone.begin(), changes.gone.end());
      if (bringer.empty() || waiting_.size() >= kMostWaitingInfos) {
        write_waiting();
      } else if (timer_ == 0) {
        timer_ = runtime_.schedule_after(kInfosWait, [weak = weak_from_this()] {
          if (auto self = weak.lock()) self->write_waiting();
        });
      }
    }
    updates_.tell(changes.kept);
  }
  void remove(const AgentId& agent) override {
    assert_on_strand(runtime_, "PeerStore::remove");
    if (!table_.remove(agent) || !db_) return;
    waiting_.insert(agent);
    write_waiting();
  }
  AgentInfoPtr get(const AgentId& agent) override { return table_.get(agent, now()); }
  std::vector<AgentInfoPtr> get_all() override { return table_.get_all(now()); }
  std::vector<AgentInfoPtr> get_by_overlapping_storage_arc(const DhtArc& arc) override {
    return table_.get_by_overlapping_storage_arc(arc, now());
  }
  std::vector<AgentInfoPtr> get_near_location(std::uint32_t loc, std::size_t limit) override {
    return table_.get_near_location(loc, limit, now());
  }
  std::vector<AgentInfoPtr> get_by_url(const Url& url) override { return table_.get_by_url(url, now()); }
  bool is_at_url(const Url& url) override { return table_.is_at_url(url, now()); }
  std::shared_ptr<void> on_update(std::function<void(const AgentInfoPtr&)> callback) override {
    assert_on_strand(runtime_, "PeerStore::on_update");
    return updates_.subscribe(std::move(callback));
  }
  void close() override {
    assert_on_strand(runtime_, "PeerStore::close");
    if (!waiting_.empty()) write_waiting();
    db_.reset();
  }

 private:
  Timestamp now() const { return store::wall_now_on_strand(runtime_, "a member of PeerStore"); }

  /// The table in memory is what counts: the file gets what it says of the agents that wait. If the file could not
  /// follow (a full disk), the next write brings all of it.
  void write_waiting() {
    runtime_.cancel(timer_);
    timer_ = 0;
    if (!db_) return;
    const auto ok = db_->transaction([&]() -> Result<void> {
      if (behind_) {
        if (auto cleared = db_->clear_agents(); !cleared) return cleared;
        for (const AgentInfoPtr& info : table_.everything()) {
          if (auto put = db_->put_agent(*info); !put) return put;
        }
        return {};
      }
      for (const AgentId& agent : waiting_) {
        const auto* info = table_.find(agent);
        if (auto written = info != nullptr ? db_->put_agent(**info) : db_->remove_agent(agent); !written)
          return written;
      }
      return db_->remove_expired(now());
    });
    behind_ = !ok;
    waiting_.clear();
  }

  Runtime& runtime_;
  std::shared_ptr<PeerDb> db_;
  store::PeerTable table_;
  store::PeerUpdates updates_;
  std::set<AgentId> waiting_;  ///< whom the file does not have as the table does
  Runtime::TimerId timer_ = 0;
  bool behind_ = false;
};

/// Notes that may wait are written a minute after the first of them came, in one transaction.
constexpr Duration kNotesWait = std::chrono::minutes(1);

class SqlitePeerMetaStore final : public PeerMetaStore, public std::enable_shared_from_this<SqlitePeerMetaStore> {
 public:
  SqlitePeerMetaStore(Runtime& runtime, std::shared_ptr<PeerDb> db, std::size_t max_entries)
      : runtime_(runtime), db_(std::move(db)), notes_(max_entries) {}
  ~SqlitePeerMetaStore() override { runtime_.cancel(timer_); }

  Result<void> load() {
    return db_->each("SELECT key, url, value, expires_at FROM note", [&](const Statement& row) {
      const auto url = Url::parse(row.text(1), kAnyUrlForm);
      const std::string key(row.text(0));
      const Bytes value = Bytes::copy_of(row.blob(2));
      if (!url || !notes_.check_put(*url, key, value, runtime_.wall_now())) return;
      std::optional<Timestamp> expiry;
      if (!row.is_null(3)) expiry = Timestamp{row.int64(3)};
      notes_.put(*url, key, {value, expiry});
    });
  }

  Result<void> put(const Url& peer, const std::string& key, Bytes value, std::optional<Timestamp> expiry) override {
    if (auto ok = notes_.check_put(peer, key, value, now()); !ok) return ok;
    if (!db_) return make_error(Errc::cancelled, "the peer store is closed");
    store::PeerNotes::Note note{value.compact(), expiry};
    {
      const PeerDb::Using use(*db_);
      if (!use.ok) return use.ok;
      if (auto ok = db_->put_note(peer, key, note); !ok) return ok;
    }
    notes_.put(peer, key, std::move(note));
    waiting_.erase({key, peer});
    return {};
  }
  Result<void> put_soon(const Url& peer, const std::string& key, Bytes value,
                        std::optional<Timestamp> expiry) override {
    if (auto ok = notes_.check_put(peer, key, value, now()); !ok) return ok;
    if (!db_) return make_error(Errc::cancelled, "the peer store is closed");
    notes_.put(peer, key, {value.compact(), expiry});
    wait_to_write(peer, key);
    return {};
  }
  void remove_soon(const Url& peer, const std::string& key) override {
    assert_on_strand(runtime_, "PeerMetaStore::remove_soon");
    if (notes_.remove(peer, key) && db_) wait_to_write(peer, key);
  }
  void flush() override {
    assert_on_strand(runtime_, "PeerMetaStore::flush");
    runtime_.cancel(timer_);
    timer_ = 0;
    if (!db_ || waiting_.empty()) return;
    const auto written = db_->transaction([&]() -> Result<void> {
      for (const auto& [key, peer] : waiting_) {
        const auto* note = notes_.find(peer, key);
        if (auto ok = note != nullptr ? db_->put_note(peer, key, *note) : db_->remove_note_undurably(peer, key); !ok)
          return ok;
      }
      return {};
    });
    if (written) return waiting_.clear();
    write_later();
  }
  std::optional<Bytes> get(const Url& peer, const std::string& key) override { return notes_.get(peer, key, now()); }
  void remove(const Url& peer, const std::string& key) override {
    assert_on_strand(runtime_, "PeerMetaStore::remove");
    // A note that the file keeps all the same (a full disk) is back after a restart: as if it had not been removed yet.
    const bool waited = waiting_.erase({key, peer}) > 0;
    if ((!notes_.remove(peer, key) && !waited) || !db_) return;
    const PeerDb::Using use(*db_);
    if (use.ok) static_cast<void>(db_->remove_note(peer, key));
  }
  std::vector<std::pair<Url, Bytes>> get_all_by_key(const std::string& key) override {
    return notes_.get_all_by_key(key, now());
  }
  void close() override {
    flush();
    db_.reset();
  }

 private:
  Timestamp now() const { return store::wall_now_on_strand(runtime_, "a member of PeerMetaStore"); }

  void wait_to_write(const Url& peer, const std::string& key) {
    waiting_.emplace(key, peer);
    if (timer_ == 0) write_later();
  }
  void write_later() {
    timer_ = runtime_.schedule_after(kNotesWait, [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->flush();
    });
  }

  Runtime& runtime_;
  std::shared_ptr<PeerDb> db_;
  store::PeerNotes notes_;
  /// Key and peer of the notes that the file does not have as they are. No more than notes there were in a minute, and
  /// they are bounded.
  std::set<std::pair<std::string, Url>> waiting_;
  Runtime::TimerId timer_ = 0;
};

}  // namespace

Result<SqlitePeerStores> sqlite::open_peer_stores(const Environment& environment, Runtime& runtime,
                                                  const SpaceId& space, const std::string& path,
                                                  const Verifier& verifier, std::size_t max_agents,
                                                  std::size_t max_entries) {
  auto db = PeerDb::open(environment, runtime, space, path);
  if (!db) return db.error();
  const PeerDb::Using use(**db);
  if (!use.ok) return use.ok.error();
  if (auto ok = (*db)->remove_expired(runtime.wall_now()); !ok) return ok.error();
  auto peers = std::make_shared<SqlitePeerStore>(runtime, space, *db, max_agents);
  if (auto ok = peers->load(verifier); !ok) return ok.error();
  auto meta = std::make_shared<SqlitePeerMetaStore>(runtime, *db, max_entries);
  if (auto ok = meta->load(); !ok) return ok.error();
  return SqlitePeerStores{std::move(peers), std::move(meta)};
}

Result<SqlitePeerStores> open_sqlite_peer_stores(Runtime& runtime, const SpaceId& space, const std::string& path,
                                                 const Verifier& verifier, std::size_t max_agents,
                                                 std::size_t max_entries) {
  return sqlite::open_peer_stores(sqlite::real_environment(), runtime, space, path, verifier, max_agents, max_entries);
}

}  // namespace kitsune2
