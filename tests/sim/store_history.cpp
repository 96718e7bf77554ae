// The SQLite op store on a bad disk: what it reported as stored is stored, whatever happens to power, process and disk.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/dht/dht_model.hpp"
#include "kitsune2/sqlite_store.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/waiters.hpp"
#include "node/gossip/dht_keeper.hpp"
#include "sim/scenarios.hpp"
#include "sim/sim_disk.hpp"
#include "store/sqlite/db.hpp"

namespace kitsune2::sim {
namespace {

using testing::SimRuntime;
using testing::SimWorld;

const SpaceId kSpace = SpaceId::from_text("sim-space");
const std::string kPath = "space.db";
constexpr Duration kLong = std::chrono::minutes(5);
constexpr std::size_t kMostBytes = 21'000;
/// That of a new world.
constexpr Timestamp kBegin = Timestamp::from_seconds(1'767'225'600);

/// What is known about an op or a pending pair.
enum class Known { no, yes, maybe };

class StoreHistory {
 public:
  StoreHistory(std::uint64_t seed, bool large, bool in_runs)
      : world_(seed), disk_(seed ^ 0x6469736bU), large_(large), policy_(make_sha256_policy(kMostBytes)) {
    disk_.make_file(kPath);
    options_.index_in_runs = in_runs;
    // Some begin as a store of version 1, and are converted after a start.
    starts_in_tables_ = in_runs ? pick(2) * pick(4) : 0;
    if (in_runs) {
      // So small that a few ops make runs of several levels.
      merge_rules_ = {.newest = 1 + pick(12),
                      .fan_in = 2 + pick(2),
                      .most_entries = 20 + pick(200),
                      .least_work = 1 + pick(2) * pick(600),
                      .most_read = 1 + pick(60),
                      .caught_up_at_once = 1 + pick(12)};
    }
    large_bytes_ = pick(4) == 0 ? SIZE_MAX : 1 + pick(pick(2) == 0 ? 300 : 10'000);
    options_.max_batch_ops = 1 + pick(20);
    if (pick(8) == 0) options_.max_pending_write_bytes = 5'000;
    if (pick(8) == 0) options_.max_database_bytes = 120'000 + pick(100'000);
    ops_ = testing::make_ops(*policy_, 0, 4 + pick(large ? 120 : 16), 32 + pick(pick(4) == 0 ? 20'000 : 1'000));
    for (auto& op : ops_) give_time(op);
    for (std::size_t i = 0; i < ops_.size(); ++i) numbers_.emplace(ops_[i].op_id, i);
    sums_rules_ = {.every = 1 + pick(40),
                   .at_rest = 1 + pick(20),
                   .percent = pick(30),
                   .percent_at_rest = pick(10),
                   .most_cells = pick(8) == 0 ? pick(10) : 1'000,
                   .read_at_once = 1 + pick(30)};
    for (auto n = 1 + pick(3); n > 0; --n) {
      const auto from = static_cast<std::uint32_t>(world_.random(UINT32_MAX));
      const auto arc =
          pick(2) == 0 ? DhtArc::full() : DhtArc{from, from + static_cast<std::uint32_t>(pick(UINT32_MAX))};
      followers_.push_back(
          {.arc = arc, .limit = static_cast<std::uint32_t>(100 + pick(pick(2) == 0 ? 2'000 : 100'000))});
    }
    for (std::size_t i = 0; i < 1 + pick(4); ++i)
      sources_.push_back(Url::parse("ws://sim:1/s" + std::to_string(i)).value());
    // Some are closed again and again, some now and then.
    idle_ =
        pick(3) == 0 ? sqlite::kOpStoreIdle : std::chrono::microseconds(1 + pick(pick(2) == 0 ? 40'000 : 4'000'000));
    if (pick(3) == 0) disk_.cut_power_after(pick(60));  // the very first start may be cut short
    start();
  }
  ~StoreHistory() { crash(); }

  Ran run() {
    for (auto rounds = (large_ ? 30 : 4) + pick(large_ ? 60 : 12); rounds > 0 && ok(); --rounds) {
      for (auto n = 1 + pick(4); n > 0; --n) call();
      if (pick(3) == 0) mischief();
      // Sometimes long enough for idle work: compaction, and copying the WAL into the database.
      pass(std::chrono::microseconds(pick(pick(4) == 0 ? 2'000'000 : 20'000)));
      if (pick(4) == 0) compare();
    }
    disk_.faults = {};
    disk_.keep_power();
    for (int i = 0; i < 2 && ok(); ++i) {
      settle();
      compare();
      if (i == 0) end();
    }
    return {world_.trace_hash(), world_.tasks_run()};
  }

 private:
  /// A call that changes something, under way or failed.
  struct Change {
    std::vector<std::size_t> ops;                          ///< to be held
    std::vector<std::pair<std::size_t, std::size_t>> add;  ///< pairs (op, source)
    std::optional<std::size_t> remove;                     ///< source
  };
  /// A reader that asks for what was stored since its last call, as gossip does, over all lives of the store.
  struct Follower {
    DhtArc arc;
    std::uint32_t limit = 0;
    Timestamp next{0};  ///< its bookmark
    std::set<std::size_t> told{};
    bool asking = false;
  };
  using Pairs = std::map<std::pair<std::size_t, std::size_t>, Known>;

  std::size_t pick(std::size_t below) { return static_cast<std::size_t>(world_.random(below)); }
  static bool ok() { return !::testing::Test::HasFailure(); }

  /// Whether calls may fail even on a good disk.
  bool bounded() const { return options_.max_database_bytes > 0 || options_.max_pending_write_bytes < 1'000'000; }

  /// An envelope with a time of the last month, or of the hour to come; some stay as they are, of 1970.
  void give_time(MetaOp& op) {
    if (pick(4) == 0) return;
    const auto created = static_cast<std::uint64_t>(
        (kBegin + std::chrono::hours(1) - std::chrono::seconds(pick(30 * 24 * 3'600))).micros);
    std::string bytes = "k2op\x01";
    for (int shift = 56; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(created >> shift));
    bytes += as_text(op.op_data.view());
    op.op_data = Bytes(std::move(bytes));
    op.op_id = policy_->describe(op.op_data).value().op_id;
  }

  // ------------------------------------------------------------ life and death

  /// Opens the store; repeats what the machine died of until it lives.
  void start() {
    while (ok()) {
      runtime_ = world_.make_runtime();
      runtime_->set_wall_skew(clock_off_);
      const auto errors = disk_.counters().errors;
      auto environment = sim_environment(disk_, *runtime_);
      environment.merge_rules = merge_rules_;
      environment.least_large_bytes = large_bytes_;
      environment.blocks = blocks_;
      environment.sums_rules = sums_rules_;
      pool_ = sim_pool(*runtime_, idle_);
      environment.op_pool = pool_;
      auto options = options_;
      if (starts_in_tables_ > 0) {
        options.index_in_runs = false;
        --starts_in_tables_;
      }
      auto opened = sqlite::open_op_store(environment, *runtime_, policy_, kSpace, kPath, options);
      if (opened.has_value() && disk_.has_power()) {
        store_ = *opened;
        break;
      }
      ASSERT_TRUE(!disk_.has_power() || disk_.counters().errors > errors)
          << "does not open: " << opened.error().to_string();
      if (opened.has_error()) {
        EXPECT_NE(opened.error().code, Errc::corrupt) << opened.error().to_string();
      }
      runtime_->crash();
      if (opened.has_value()) opened->reset();
      runtime_.reset();
      if (disk_.lost_writes()) disk_.cut_power();
      disk_.power_on();
      disk_.faults = {};
    }
    check_integrity();
    world_.trace(disk_.content_hash());
    // Some hosts never ask for the sums, and then a row in the file is as old as it is.
    if (!ok() || pick(4) == 0) return;
    keeper_ = std::make_shared<DhtKeeper>(*runtime_, store_);
    keeper_->start();
  }

  /// The process is gone, with or without the machine.
  void crash() {
    onlooker_.reset();
    keeper_.reset();
    if (!store_) return;
    if (disk_.has_power()) {
      pick(2) == 0 ? disk_.kill() : disk_.cut_power();
    }
    runtime_->crash();
    store_.reset();
    runtime_.reset();
    disk_.power_on();
    // What was not answered may be there or not; so may what failed and was written all the same.
    for (const auto& [number, change] : under_way_) forget(change);
    no_more_answers();
  }

  /// No answers of the life that has ended arrive any more.
  void no_more_answers() {
    for (const auto& change : failed_) forget(change);
    under_way_.clear();
    failed_.clear();
    reads_ = 0;
    for (auto& follower : followers_) follower.asking = false;
    if (pick(3) == 0) clock_off_ = draw_clock();
  }

  /// An orderly end: everything that was called is done.
  void end() {
    onlooker_.reset();
    keeper_.reset();
    const auto errors = disk_.counters().errors;
    store_.reset();
    const bool all_done = disk_.has_power() && disk_.counters().errors == errors && !bounded();
    for (const auto& [number, change] : under_way_) all_done ? apply(change) : forget(change);
    if (disk_.lost_writes()) disk_.cut_power();
    no_more_answers();
    runtime_->crash();
    runtime_.reset();
    disk_.power_on();
    if (options_.index_in_runs && pick(4) == 0) damage_index();
    start();
  }

  /// A block of the index, or what says which blocks there are, has changed: the store makes it anew, and loses
  /// nothing, however often that is cut off.
  void damage_index() {
    if (!ok()) return;
    disk_.faults = {};
    disk_.keep_power();
    auto connection = sqlite::Connection::open(kPath, sqlite::Connection::Mode::write, disk_.vfs());
    ASSERT_TRUE(connection.has_value()) << connection.error().to_string();
    if (connection->number("PRAGMA user_version").value() == 1) return;
    const auto slots = connection->number("SELECT max(n)+1 FROM slot").value();
    const auto which = static_cast<std::int64_t>(pick(static_cast<std::size_t>(slots) + 1));
    const std::string sql = which < slots ? "UPDATE slot SET data=zeroblob(16344) WHERE n=" + std::to_string(which)
                                          : "DELETE FROM manifest";
    EXPECT_TRUE(connection->run(sql.c_str()).has_value());
    *connection = {};
    if (pick(2) == 0) disk_.cut_power_after(pick(80));
  }

  void pass(Duration time) {
    const auto until = world_.now() + time;
    while (ok() && world_.run_until([this] { return !disk_.has_power(); }, until - world_.now())) {
      crash();
      start();
    }
    if (world_.now() < until) world_.run_until(until);
  }

  void settle() {
    const bool done =
        world_.run_until([this] { return (under_way_.empty() && reads_ == 0) || !disk_.has_power(); }, kLong);
    EXPECT_TRUE(done) << "a call is not answered";
  }

  void check_integrity() {
    if (!ok()) return;
    if (disk_.faults.read_error > 0) return;
    auto connection = sqlite::Connection::open(kPath, sqlite::Connection::Mode::read, disk_.vfs());
    ASSERT_TRUE(connection.has_value()) << connection.error().to_string();
    auto statement = connection->prepare("PRAGMA integrity_check(3)");
    if (!statement || statement->step() != SQLITE_ROW) {
      FAIL() << "integrity_check does not run";
    }
    EXPECT_EQ(statement->text(0), "ok");
  }

  // ------------------------------------------------------------------ the model

  void apply(const Change& change) {
    for (const auto op : change.ops) held_[op] = Known::yes;
    for (const auto& pair : change.add) pairs_[pair] = Known::yes;
    if (change.remove) std::erase_if(pairs_, [&](const auto& p) { return p.first.second == *change.remove; });
  }
  void forget(const Change& change) {
    for (const auto op : change.ops) {
      if (held_[op] == Known::no) held_[op] = Known::maybe;
    }
    for (const auto& pair : change.add) pairs_.try_emplace(pair, Known::maybe);
    if (!change.remove) return;
    for (auto& [pair, known] : pairs_) {
      if (pair.second == *change.remove) known = Known::maybe;
    }
  }

  // --------------------------------------------------------------------- calls

  std::vector<std::size_t> some_ops(std::size_t most) {
    std::set<std::size_t> out;
    for (auto n = 1 + pick(most); n > 0; --n) out.insert(pick(ops_.size()));
    return {out.begin(), out.end()};
  }
  std::vector<OpId> ids(const std::vector<std::size_t>& ops) const {
    std::vector<OpId> out;
    for (const auto op : ops) out.push_back(ops_[op].op_id);
    return out;
  }

  template <class T>
  Handler<T> changing(Change change, std::function<void(const Result<T>&)> look = {}) {
    const auto number = ++last_call_;
    under_way_.emplace(number, std::move(change));
    return [this, number, errors = disk_.counters().errors, look = std::move(look)](const Result<T>& result) {
      const auto it = under_way_.find(number);
      ASSERT_NE(it, under_way_.end()) << "answered twice";
      if (result.has_error() && result.error().code == Errc::overloaded) {
        under_way_.erase(it);  // it was removed before its turn, without an attempt
        return;
      }
      EXPECT_EQ(it, under_way_.begin()) << "writes are answered in the order of their calls";
      world_.trace(number * 2 + (result ? 1 : 0));
      if (result) {
        // A later commit has overwritten what was left of them, if it had anything to write: what is pending already is
        // not written again.
        const bool wrote =
            std::ranges::any_of(it->second.add, [&](const auto& pair) { return !pairs_.contains(pair); });
        apply(it->second);
        if (wrote) failed_.clear();
        if (look) look(result);
      } else {
        expect_excuse(result.error(), errors);
        failed_.push_back(it->second);
      }
      under_way_.erase(it);
    };
  }

  void call() {
    if (!store_) return;
    switch (pick(9)) {
      case 0:
      case 1:
      case 2: {
        Change change{some_ops(pick(3) == 0 ? 12 : 3), {}, {}};
        const auto ops = change.ops;
        const auto look = [this, ops](const Result<ProcessedOps>& result) {
          ASSERT_EQ(result->stored.size(), ops.size());
          for (std::size_t i = 0; i < ops.size(); ++i) EXPECT_EQ(result->stored[i].op_id, ops_[ops[i]].op_id);
        };
        if (pick(2) == 0) {
          std::vector<Bytes> data;
          for (const auto op : ops) data.push_back(ops_[op].op_data);
          const std::size_t bad = pick(4) == 0 ? 1 : 0;
          if (bad > 0) data.push_back(testing::make_op(1'000'000, kMostBytes + 1));
          store_->process_incoming_ops(
              std::move(data),
              changing<ProcessedOps>(std::move(change), [look, bad](const Result<ProcessedOps>& result) {
                look(result);
                EXPECT_EQ(result->rejected, bad);
              }));
        } else {
          std::vector<std::pair<OpDescription, Bytes>> data;
          for (const auto op : ops) data.emplace_back(policy_->describe(ops_[op].op_data).value(), ops_[op].op_data);
          store_->store_described_ops(std::move(data), changing<ProcessedOps>(std::move(change), look));
        }
        return;
      }
      case 3:
      case 4: {
        const auto source = pick(sources_.size());
        Change change;
        const auto ops = some_ops(pick(3) == 0 ? ops_.size() : 4);
        for (const auto op : ops) change.add.emplace_back(op, source);
        store_->add_pending(ids(ops), sources_[source], changing<void>(std::move(change)));
        return;
      }
      case 5: {
        if (pick(2) == 0) return;
        const auto source = pick(sources_.size());
        store_->remove_pending_source(sources_[source], changing<void>({{}, {}, source}));
        return;
      }
      case 6: {
        const auto ops = some_ops(6);
        // Held when it was requested: returned completely, unless the disk cannot be read.
        std::set<std::size_t> sure;
        for (const auto op : ops) {
          if (held_[op] == Known::yes) sure.insert(op);
        }
        ++reads_;
        store_->retrieve_ops(
            ids(ops), 1U << 30U,
            [this, ops, sure, errors = disk_.counters().errors](const Result<std::vector<MetaOp>>& result) {
              --reads_;
              world_.trace(result ? result->size() : 1'000'000);
              if (!result) return expect_excuse(result.error(), errors);
              std::size_t found = 0;
              for (const auto& op : *result) {
                const auto it = std::find_if(ops.begin(), ops.end(), [&](auto i) { return ops_[i].op_id == op.op_id; });
                ASSERT_NE(it, ops.end());
                EXPECT_EQ(ops_[*it].op_data, op.op_data);
                found += sure.contains(*it) ? 1 : 0;
              }
              EXPECT_EQ(found, sure.size()) << "an op that was stored is not given";
            });
        return;
      }
      case 7:
        store_->store_slice_hash(DhtArc::full(), pick(5), Bytes::copy_of("hash"), changing<void>({}));
        return;
      case 8:
        return follow(followers_[pick(followers_.size())]);
    }
  }

  void follow(Follower& follower) {
    if (std::exchange(follower.asking, true)) return;
    ++reads_;
    store_->retrieve_op_ids_bounded(follower.arc, follower.next, follower.limit,
                                    [this, &follower, limit = follower.limit,
                                     errors = disk_.counters().errors](const Result<OpIdsBounded>& result) {
                                      --reads_;
                                      follower.asking = false;
                                      if (!result) return expect_excuse(result.error(), errors);
                                      told(follower, *result, limit);
                                    });
  }
  void told(Follower& follower, const OpIdsBounded& answer, std::uint32_t limit) {
    world_.trace(answer.op_ids.size());
    std::uint64_t bytes = 0;
    for (const auto& id : answer.op_ids) {
      const auto it = numbers_.find(id);
      ASSERT_NE(it, numbers_.end());
      EXPECT_TRUE(follower.told.insert(it->second).second) << "op " << it->second << " is named twice";
      EXPECT_TRUE(follower.arc.contains(id.loc()));
      bytes += ops_[it->second].op_data.size();
    }
    EXPECT_EQ(answer.bytes, bytes);
    EXPECT_LE(bytes, limit);
    EXPECT_GE(answer.next, follower.next) << "a bookmark goes back";
    follower.next = answer.next;
    if (answer.op_ids.empty())
      follower.limit = std::min<std::uint32_t>(4 * limit, 1'000'000);  // the limit may be in its way
  }
  Duration draw_clock() {
    // Over the end of a slice of 128 hours, now and then.
    if (pick(8) == 0) return std::chrono::hours(pick(600)) - std::chrono::hours(300);
    return pick(3) == 0 ? Duration{} : std::chrono::seconds(pick(20'000)) - std::chrono::seconds(10'000);
  }

  void expect_excuse(const Error& error, std::uint64_t errors_before) {
    const bool too_much = bounded() && (error.code == Errc::disk_full || error.code == Errc::overloaded);
    EXPECT_TRUE(too_much || disk_.counters().errors > errors_before) << "fails on a good disk: " << error.to_string();
    EXPECT_NE(error.code, Errc::corrupt) << error.to_string();
  }

  void mischief() {
    switch (pick(21)) {
      case 20:
        return commit_trouble();
      case 17:
      case 18:
      case 19:
        return close_for_a_while();
      case 16:
        return checkpoint_trouble();
      case 13:
      case 14:
        return look_on();
      case 15:
        return onlooker_.reset();
      case 0:
        disk_.faults.write_error = 1 + static_cast<std::uint32_t>(pick(40));
        return;
      case 1:
        disk_.faults.sync_error = 1 + static_cast<std::uint32_t>(pick(10));
        return;
      case 2:
        disk_.faults.read_error = 1 + static_cast<std::uint32_t>(pick(60));
        return;
      case 3:
        disk_.faults.full = true;
        return;
      case 4:
        disk_.faults = {};
        return;
      case 5:
        disk_.faults.latency = std::chrono::microseconds(pick(30'000));
        return;
      case 6:
      case 7:
      case 8:
        disk_.cut_power_after(pick(40));
        return;
      case 9:
      case 10:
        crash();
        if (pick(3) == 0) disk_.cut_power_after(pick(60));  // and again during the start
        start();
        return;
      case 11:
        disk_.keep_power();
        end();
        return;
      case 12:
        clock_off_ = draw_clock();
        if (runtime_) runtime_->set_wall_skew(clock_off_);
        return;
    }
  }

  /// Another connection starts reading, like a backup or `kitsune2 status`: what it sees must not be overwritten, so a
  /// checkpoint meanwhile copies only a part of the WAL.
  void look_on() {
    onlooker_.reset();
    if (!store_ || !disk_.has_power()) return;
    auto opened = sqlite::Connection::open(kPath, sqlite::Connection::Mode::read, disk_.vfs());
    if (!opened || !opened->run("BEGIN") || !opened->number("SELECT count(*) FROM op")) return;
    onlooker_.emplace(std::move(*opened));
  }

  /// A checkpoint is stopped halfway by an onlooker, the next ones meet a disk that cannot sync, and a later one a good
  /// disk again. The times between let the store become idle, which is when it copies its WAL.
  void checkpoint_trouble() {
    disk_.keep_power();
    disk_.faults = {};
    look_on();
    for (auto n = 1 + pick(4); n > 0; --n) call();
    pass(std::chrono::microseconds(pick(2'000'000)));
    if (pick(2) == 0) call();
    onlooker_.reset();
    disk_.faults.sync_error = 1 + static_cast<std::uint32_t>(pick(3));
    pass(std::chrono::microseconds(pick(3'000'000)));
    disk_.faults = {};
    if (pick(2) == 0) call();
    pass(std::chrono::microseconds(pick(6'000'000)));
    if (pick(2) == 0 && ok()) {
      crash();
      start();
    }
  }

  /// The disk fails in a commit, and the process ends before there is another one: the next start may find the commit
  /// all the same.
  void commit_trouble() {
    disk_.keep_power();
    disk_.faults = {};
    settle();
    if (!ok() || !store_) return;
    disk_.faults.sync_error = 2;
    Change change{some_ops(3), {}, {}};
    std::vector<Bytes> data;
    for (const auto op : change.ops) data.push_back(ops_[op].op_data);
    store_->process_incoming_ops(std::move(data), changing<ProcessedOps>(std::move(change)));
    pass(std::chrono::microseconds(pick(100'000)));
    if (!ok()) return;
    disk_.faults = {};
    crash();
    start();
  }

  /// Others want the room that the open files of the store take. Then somebody may call it, the disk may fail
  /// meanwhile, or somebody else may look at it.
  void close_for_a_while() {
    pool_->close_unused();
    if (pick(4) == 0) call();
    if (pick(4) == 0) disk_.faults.sync_error = 1 + static_cast<std::uint32_t>(pick(4));
    if (pick(2) == 0) pass(std::chrono::microseconds(pick(300'000)));
    if (pick(4) == 0) look_on();
    if (pick(8) == 0) disk_.cut_power_after(pick(20));
  }

  /// Asks the store for everything it holds, when it can be read and nothing is under way.
  void compare() {
    if (!ok()) return;
    disk_.faults = {};
    disk_.keep_power();
    settle();
    if (!ok()) return;
    std::vector<std::size_t> all(ops_.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
    const auto lacking = ask<std::vector<OpId>>([&](auto done) { store_->filter_out_existing_ops(ids(all), done); });
    const auto stats = ask<OpStoreStats>([&](auto done) { store_->stats(done); });
    const auto pending =
        ask<std::vector<std::pair<Url, std::vector<OpId>>>>([&](auto done) { store_->retrieve_pending(done); });
    if (!ok()) return;
    const std::set<OpId> lacks(lacking->begin(), lacking->end());
    std::uint64_t ops = 0, bytes = 0;
    for (std::size_t i = 0; i < ops_.size(); ++i) {
      const bool held = !lacks.contains(ops_[i].op_id);
      if (held_[i] == Known::yes) {
        EXPECT_TRUE(held) << "op " << i << " was stored and is lost";
      } else if (held_[i] == Known::no) {
        EXPECT_FALSE(held) << "op " << i << " is there, though no call that stores it succeeded";
      }
      held_[i] = held ? Known::yes : Known::no;
      ops += held ? 1 : 0;
      bytes += held ? ops_[i].op_data.size() : 0;
    }
    EXPECT_EQ(stats->ops, ops);
    EXPECT_EQ(stats->bytes, bytes);
    compare_bytes();
    Pairs found;
    for (const auto& [url, op_ids] : *pending) {
      const auto source = static_cast<std::size_t>(std::find(sources_.begin(), sources_.end(), url) - sources_.begin());
      ASSERT_LT(source, sources_.size());
      for (const auto& id : op_ids) {
        ASSERT_TRUE(numbers_.contains(id));
        EXPECT_TRUE(found.emplace(std::pair(numbers_[id], source), Known::yes).second) << "a pair is given twice";
      }
    }
    for (const auto& [pair, known] : pairs_) {
      if (known != Known::yes || held_[pair.first] == Known::yes) continue;
      EXPECT_TRUE(found.contains(pair)) << "op " << pair.first << " from source " << pair.second
                                        << " was pending and is forgotten";
    }
    for (const auto& [pair, yes] : found) {
      EXPECT_TRUE(pairs_.contains(pair)) << "op " << pair.first << " from source " << pair.second
                                         << " is pending, though nobody asked for it, or it was removed";
      EXPECT_NE(held_[pair.first], Known::yes) << "op " << pair.first << " is held and pending";
    }
    for (auto it = pairs_.begin(); it != pairs_.end();) {
      // A pair whose op is held is gone, or will be removed by the next clean-up.
      it->second = Known::yes;
      it = found.contains(it->first) ? std::next(it) : pairs_.erase(it);
    }
    for (auto& follower : followers_) compare(follower);
    compare_sums();
    if (ok() && keeper_) compare_model();
  }
  /// Each op that is held has its bytes. One whose bytes were lost is found only when it is read, and is dropped then.
  void compare_bytes() {
    std::vector<std::size_t> held;
    for (const auto& [number, known] : held_) {
      if (known == Known::yes) held.push_back(number);
    }
    const auto found = ask<std::vector<MetaOp>>([&](auto done) { store_->retrieve_ops(ids(held), 1U << 30U, done); });
    if (!ok()) return;
    std::set<OpId> given;
    for (const auto& op : *found) {
      EXPECT_EQ(ops_[numbers_.at(op.op_id)].op_data, op.op_data);
      given.insert(op.op_id);
    }
    for (const auto number : held) {
      EXPECT_TRUE(given.contains(ops_[number].op_id)) << "the bytes of op " << number << " are lost";
    }
  }
  /// By sector, first unit and length: the XOR of the ids, and their number.
  using Sums = std::map<std::tuple<std::uint32_t, std::int64_t, std::uint32_t>, std::pair<std::string, std::uint64_t>>;
  Sums naive_sums() const {
    const std::int64_t boundary = dht::TimeLayout::at(runtime_->wall_now()).boundary_unit();
    Sums out;
    for (const auto& [number, known] : held_) {
      if (known != Known::yes) continue;
      const auto described = policy_->describe(ops_[number].op_data).value();
      std::int64_t unit = dht::unit_of(described.created_at);
      const bool is_unit = unit >= boundary;
      if (!is_unit) unit -= unit % dht::kUnitsPerSlice;
      auto& [hash, ops] = out[{described.op_id.loc() >> 23U, unit, is_unit ? 1U : 512U}];
      hash.resize(described.op_id.size());
      for (std::size_t i = 0; i < hash.size(); ++i) hash[i] = static_cast<char>(hash[i] ^ described.op_id.view()[i]);
      ++ops;
    }
    return out;
  }
  /// The sums of the store, whether it has kept them or made them anew, are those of what it holds.
  void compare_sums() {
    const Sums before = naive_sums();
    const auto result = testing::await<DhtSums>(
        world_, [&](auto done) { EXPECT_TRUE(store_->retrieve_dht_sums(done)); }, kLong);
    if (!result) {
      EXPECT_TRUE(options_.index_in_runs && result.error().message.find("is being made") != std::string::npos)
          << result.error().to_string();
      return;
    }
    world_.trace(result->cells.size());
    EXPECT_EQ(result->apart, 0U);
    Sums sums;
    for (std::size_t i = 0; i < result->cells.size(); ++i) {
      const DhtSums::Cell& cell = result->cells[i];
      sums[{cell.sector, cell.first_unit, cell.units}] = {std::string(as_text(result->hash(i))), cell.ops};
    }
    EXPECT_EQ(sums.size(), result->cells.size());
    EXPECT_TRUE(sums == before || sums == naive_sums()) << "the sums are not those of the ops";
  }
  /// So is the model, which has learned of what was stored since it was made.
  void compare_model() {
    EXPECT_TRUE(world_.run_until([&] { return keeper_->model() != nullptr; }, kLong));
    if (!ok()) return;
    const auto* model = keeper_->model();
    dht::DhtModel naive(runtime_->wall_now());
    for (const auto& [number, known] : held_) {
      if (known != Known::yes) continue;
      const auto described = policy_->describe(ops_[number].op_data).value();
      EXPECT_TRUE(naive.add(described.op_id.loc(), described.created_at, described.op_id.view()));
    }
    EXPECT_EQ(model->op_count(), naive.op_count());
    if (naive.layout() != model->layout()) return;  // the clock was set back by minutes
    SectorSet full;
    full.add(DhtArc::full());
    EXPECT_EQ(model->minimal(full), naive.minimal(full));
  }
  /// A reader that continues from its bookmark until nothing is left has seen every op that is held.
  void compare(Follower& follower) {
    constexpr std::uint32_t kAll = 1U << 30U;
    const auto rest =
        ask<OpIdsBounded>([&](auto done) { store_->retrieve_op_ids_bounded(follower.arc, follower.next, kAll, done); });
    if (!ok()) return;
    told(follower, *rest, kAll);
    for (std::size_t i = 0; i < ops_.size(); ++i) {
      if (held_[i] != Known::yes || !follower.arc.contains(ops_[i].op_id.loc())) continue;
      EXPECT_TRUE(follower.told.contains(i)) << "op " << i << " was stored before a bookmark that had not named it";
    }
    follower.limit = 100 + static_cast<std::uint32_t>(pick(2'000));
  }
  template <class T, class F>
  Result<T> ask(F start) {
    auto result = testing::await<T>(world_, start, kLong);
    EXPECT_TRUE(result.has_value()) << result.error().to_string();
    return result;
  }

  SimWorld world_;
  SimDisk disk_;
  const bool large_;
  const std::shared_ptr<const OpPolicy> policy_;
  SqliteOpStoreOptions options_;
  std::size_t starts_in_tables_ = 0;
  std::size_t large_bytes_ = SIZE_MAX;
  runs::MergeRules merge_rules_;
  sqlite::SumsRules sums_rules_;
  /// Of all lives of the store, so small that it forgets.
  const std::shared_ptr<runs::BlockCache> blocks_ = std::make_shared<runs::BlockCache>(4);
  std::vector<MetaOp> ops_;
  std::vector<Url> sources_;
  std::map<OpId, std::size_t> numbers_;  ///< positions in ops_
  std::vector<Follower> followers_;
  Duration clock_off_{};
  std::unique_ptr<SimRuntime> runtime_;
  Duration idle_{};
  std::shared_ptr<sqlite::StorePool> pool_;  ///< of this life
  std::shared_ptr<OpStore> store_;
  std::shared_ptr<DhtKeeper> keeper_;
  std::optional<sqlite::Connection> onlooker_;

  std::map<std::size_t, Known> held_;
  Pairs pairs_;
  std::map<std::uint64_t, Change> under_way_;
  std::vector<Change> failed_;  ///< since the last commit that certainly wrote
  std::size_t reads_ = 0;       ///< under way
  std::uint64_t last_call_ = 0;
};

}  // namespace

Ran run_store_history(std::uint64_t seed, bool large, bool in_runs) { return StoreHistory(seed, large, in_runs).run(); }

}  // namespace kitsune2::sim
