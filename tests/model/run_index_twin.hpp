// The index of runs and its naive twin: a list of rows. The disk under the index loses what was not durable when the
// power goes.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "kitsune2/ids.hpp"
#include "model/commands.hpp"
#include "store/runs/run_index.hpp"

namespace kitsune2::model {

/// Slots in memory. What is written can be read at once; `sync` makes it durable. When the power is lost, each write
/// since the last `sync` is kept, lost or torn.
class SlotDisk final : public runs::BlockFile {
 public:
  Result<void> read(std::uint64_t slot, std::span<std::uint8_t> out) override {
    ++reads;
    const auto it = now_.find(slot);
    if (it == now_.end()) return make_error(Errc::corrupt, "there is no slot " + std::to_string(slot));
    std::copy(it->second.begin(), it->second.end(), out.begin());
    return {};
  }
  Result<void> write(std::uint64_t slot, ByteView block) override {
    ++writes;
    if (fails) return make_error(Errc::disk_full, "the disk is full");
    unsynced_.insert(slot);
    now_[slot].assign(block.begin(), block.end());
    return {};
  }
  void sync() {
    durable_ = now_;
    unsynced_.clear();
  }
  void lose_power(std::uint8_t how) {
    for (const std::uint64_t slot : unsynced_) {
      how = static_cast<std::uint8_t>(how * 5 + 3);
      const auto old = durable_.find(slot);
      const std::vector<std::uint8_t> before =
          old == durable_.end() ? std::vector<std::uint8_t>(runs::kBlockBytes) : old->second;
      if (how % 4 == 0) now_[slot] = before;
      if (how % 4 == 1) std::copy_n(before.begin(), 512 * (how / 8U), now_[slot].begin());
    }
    sync();
  }
  /// Undoes a transaction that was rolled back.
  void roll_back() {
    now_ = durable_;
    unsynced_.clear();
  }
  std::map<std::uint64_t, std::vector<std::uint8_t>>& slots() { return now_; }

  std::size_t reads = 0, writes = 0;
  bool fails = false;

 private:
  std::map<std::uint64_t, std::vector<std::uint8_t>> now_, durable_;
  std::set<std::uint64_t> unsynced_;
};

struct RunIndexCoverage {
  std::size_t added = 0, held_already = 0, manifests = 0, crashes = 0, failures = 0, rolled_back = 0, dropped = 0,
              replaced = 0, most_runs = 0, followed = 0;
};

/// Throws std::logic_error if the index and the twin differ.
class RunIndexUnderTest {
 public:
  /// `transactions`: a loss of power rolls everything back that was not committed. Otherwise it tears what was not
  /// synced.
  RunIndexUnderTest(const runs::MergeRules& rules, bool transactions)
      : rules_(rules), transactions_(transactions), reader_(disk_, rules, blocks_, shelf_) {
    manifest_.salt = 77;
    index_.emplace(disk_, rules_, blocks_, shelf_);
    start();
  }

  void run(ByteView bytes) {
    Commands commands(bytes);
    while (!commands.is_empty()) step(commands);
    compare_all();
  }

  RunIndexCoverage coverage = {};

 private:
  struct Row {
    std::uint32_t location, size;
    std::int64_t created_at, stored_at;
    std::string id;
    bool held = true;
    runs::Entry entry() const { return {location, size, created_at, stored_at, as_bytes(id)}; }
  };

  static void need(bool ok, const char* what) {
    if (!ok) throw std::logic_error(what);
  }

  void step(Commands& commands) {
    const std::uint8_t command = commands.byte();
    switch (command % 16) {
      case 0:
        return lose_power(commands.byte());
      case 1:
        return fail_to_commit(commands.byte());
      case 2:
        return forget(commands.byte());
      case 3:
        return drop(commands.byte());
      case 4:
        return compare_scan(runs::Order::by_place, commands.byte());
      case 5:
        return compare_scan(runs::Order::by_time, commands.byte());
      case 6:
        index_->begin();
        return commit(index_->step_idle(std::size_t{commands.byte()} * 64));
      case 7:
        return follow();
      default:
        index_->begin();
        add(commands.byte() + std::size_t{command} / 16 * 16, commands.byte());
        return commit(index_->step());
    }
  }

  /// An id out of a few, so that ids repeat, of several lengths.
  static std::string id_of(std::uint32_t n) {
    std::string out = "id" + std::to_string(n * 2654435761U % 4'000);
    if (n % 7 == 0) out.resize(32, 'x');
    if (n % 11 == 0) out += std::string("\0\xff", 2);
    return out;
  }
  static std::uint32_t location_of(const std::string& id) { return dht_location(as_bytes(id)) >> 20U; }

  const Row* held(const std::string& id) const {
    const auto it = held_.find(id);
    return it == held_.end() ? nullptr : &rows_[it->second];
  }
  void put(Row row) {
    held_[row.id] = rows_.size();
    rows_.push_back(std::move(row));
  }
  /// Forgets what was not committed.
  void cut_rows() {
    for (; rows_.size() > durable_rows_; rows_.pop_back()) held_.erase(rows_.back().id);
  }

  void add(std::size_t count, std::uint8_t seed) {
    for (std::size_t i = 0; i < count; ++i) {
      const std::string id = id_of(static_cast<std::uint32_t>(seed * 40 + i));
      const auto found = index_->find(location_of(id), as_bytes(id));
      need(found.has_value(), "find failed");
      const Row* known = held(id);
      need(found->has_value() == (known != nullptr), "whether it is held");
      if (known != nullptr) {
        ++coverage.held_already;
        need((*found)->stored_at == known->stored_at && (*found)->created_at == known->created_at &&
                 (*found)->size == known->size,
             "what is said of it");
        continue;
      }
      ++clock_;
      put({location_of(id), static_cast<std::uint32_t>(i), std::int64_t{seed} - 100, clock_, id});
      index_->add(rows_.back().entry());
      ++coverage.added;
    }
  }

  void commit(const Result<bool>& changed) {
    need(changed.has_value(), "a step failed");
    if (*changed) {
      ++coverage.manifests;
      disk_.sync();
      const auto bytes = index_->manifest().encode();
      const auto again = runs::Manifest::decode(bytes, disk_.slots().empty() ? 0 : disk_.slots().rbegin()->first + 1);
      need(again.has_value() && *again == index_->manifest(), "the manifest reads as it was written");
      manifest_ = *again;
    } else if (transactions_) {
      disk_.sync();
    }
    durable_rows_ = rows_.size();
    index_->committed();
    fill_shelf();
    coverage.most_runs = std::max(coverage.most_runs, index_->runs());
    check_manifest();
  }

  /// M2: both orders have the same ops, those of all rows up to `covered` (dropped ones may be among them).
  void check_manifest() {
    std::uint64_t by_place = 0, by_time = 0, held = 0, all = 0;
    for (const auto& run : manifest_.runs) (run.order == runs::Order::by_place ? by_place : by_time) += run.entries;
    for (const Row& row : rows_) {
      if (row.stored_at > manifest_.covered) continue;
      ++all;
      held += row.held ? 1 : 0;
    }
    need(by_place >= held && by_time >= held && by_place <= all && by_time <= all, "what the runs cover");
  }

  void forget(std::uint8_t seed) {
    index_->begin();
    add(seed % 20U, seed);
    drop_for_now(seed);
    cut_rows();
    index_->forget_added();
    ++coverage.rolled_back;
  }

  void fail_to_commit(std::uint8_t seed) {
    index_->begin();
    add(100 + seed % 50U, seed);
    drop_for_now(seed);
    disk_.fails = seed % 2 == 0;
    const auto changed = index_->step();
    disk_.fails = false;
    if (!changed) ++coverage.failures;
    cut_rows();
    if (transactions_) disk_.roll_back();
    start();
    ++coverage.rolled_back;
  }

  void lose_power(std::uint8_t how) {
    index_->begin();
    add(how % 32U, how);
    static_cast<void>(index_->step());
    cut_rows();
    if (transactions_) {
      disk_.roll_back();
    } else {
      disk_.lose_power(how);
    }
    shelf_->put({});
    index_.emplace(disk_, rules_, blocks_, shelf_);
    start();
    ++coverage.crashes;
    if (how % 4 == 0) compare_all();
  }

  /// Opens the index again after a failure or a crash, from what is durable.
  void start() {
    need(index_->load(manifest_).has_value(), "runs that a manifest names can be opened");
    for (const Row& row : rows_) {
      if (!row.held) {
        index_->drop(row.stored_at);
      } else if (row.stored_at > manifest_.covered) {
        index_->add(row.entry());
      }
    }
    index_->committed();
    fill_shelf();
  }

  /// With what is durable.
  void fill_shelf() {
    auto runs = index_->take_changed_runs();
    if (!runs) return;
    for (const auto& run : *runs) {
      const auto& named = manifest_.runs;
      need(std::find(named.begin(), named.end(), run->info()) != named.end(), "the manifest has all runs");
    }
    shelf_->put(std::move(*runs));
  }

  /// In a transaction that will be rolled back.
  void drop_for_now(std::uint8_t which) {
    if (durable_rows_ == 0) return;
    const Row& row = rows_[(which * durable_rows_) / 256];
    if (!row.held) return;
    index_->drop(row.stored_at);
    const auto found = index_->find(row.location, as_bytes(row.id));
    need(found.has_value() && !found->has_value(), "a dropped op is not found, for now");
  }

  void drop(std::uint8_t which) {
    if (durable_rows_ == 0) return;
    Row& gone = rows_[(which * durable_rows_) / 256];
    if (!gone.held) return;
    gone.held = false;
    const Row row = gone;
    held_.erase(row.id);
    index_->begin();
    index_->drop(row.stored_at);
    ++coverage.dropped;
    const auto found = index_->find(row.location, as_bytes(row.id));
    need(found.has_value() && !found->has_value(), "a dropped op is not found");
    put({row.location, 1, row.created_at, ++clock_, row.id});
    index_->add(rows_.back().entry());
    ++coverage.replaced;
    commit(index_->step());
  }

  void compare_scan(runs::Order order, std::uint8_t from) {
    compare_scan(*index_, order, {std::uint32_t{from} << 4U, 0, std::int64_t{from} - 120, 0, {}});
  }

  void compare_scan(runs::RunIndex& index, runs::Order order, const runs::Entry& from) {
    std::vector<const Row*> expected;
    for (const Row& row : rows_) {
      if (row.held && compare(order, row.entry(), from) >= 0) expected.push_back(&row);
    }
    std::sort(expected.begin(), expected.end(),
              [&](const Row* a, const Row* b) { return compare(order, a->entry(), b->entry()) < 0; });
    const auto cursor = index.scan(order, from);
    for (const Row* row : expected) {
      while (!cursor->at_end() && !index.is_held(cursor->entry().stored_at)) cursor->next();
      need(!cursor->at_end(), "a scan ends early");
      const runs::Entry& entry = cursor->entry();
      need(compare(order, entry, row->entry()) == 0 && entry.stored_at == row->stored_at && entry.size == row->size &&
               runs::compare(entry.id, as_bytes(row->id)) == 0,
           "a scan gives another entry");
      cursor->next();
    }
    while (!cursor->at_end() && !index.is_held(cursor->entry().stored_at)) cursor->next();
    need(cursor->at_end() && !cursor->error(), "a scan gives more");
  }

  /// A reader that sees what is durable, as another connection does.
  void follow() {
    need(reader_.follow(manifest_).has_value(), "a reader can follow");
    ++coverage.followed;
    for (const Row& row : rows_) {
      if (!row.held) {
        reader_.drop(row.stored_at);
      } else if (row.stored_at > std::max(manifest_.covered, reader_at_)) {
        reader_.add(row.entry());
      }
      reader_at_ = std::max(reader_at_, row.stored_at);
    }
    compare_scan(reader_, runs::Order::by_time, {0, 0, INT64_MIN, 0, {}});
    for (const Row& row : rows_) {
      const auto found = reader_.find(row.location, as_bytes(row.id));
      need(found.has_value() && found->has_value(), "a reader finds");
    }
  }

  void compare_all() {
    for (const auto order : {runs::Order::by_place, runs::Order::by_time}) {
      compare_scan(*index_, order, {0, 0, INT64_MIN, INT64_MIN, {}});
    }
    for (std::uint32_t n = 0; n < 300; ++n) {
      const std::string id = id_of(n * 13);
      const auto found = index_->find(location_of(id), as_bytes(id));
      const Row* known = held(id);
      need(found.has_value() && found->has_value() == (known != nullptr), "whether it is held");
      need(known == nullptr || (*found)->stored_at == known->stored_at, "which row");
    }
  }

  const runs::MergeRules rules_;
  const bool transactions_;
  SlotDisk disk_;
  /// Of both, so small that it forgets.
  const std::shared_ptr<runs::BlockCache> blocks_ = std::make_shared<runs::BlockCache>(6);
  const std::shared_ptr<runs::RunShelf> shelf_ = std::make_shared<runs::RunShelf>();
  std::optional<runs::RunIndex> index_;
  runs::RunIndex reader_;
  std::int64_t reader_at_ = INT64_MIN;
  std::vector<Row> rows_;
  std::map<std::string, std::size_t> held_;  ///< rows, by the id
  std::size_t durable_rows_ = 0;
  runs::Manifest manifest_;  ///< durable
  std::int64_t clock_ = 1'000;
};

}  // namespace kitsune2::model
