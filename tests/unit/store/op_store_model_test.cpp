// Both op stores against a naive model: random calls, every answer compared.
#include <map>
#include <random>
#include <set>

#include "kitsune2/sqlite_store.hpp"
#include "store/sqlite/environment.hpp"
#include "store_harness.hpp"

namespace kitsune2::testing {
namespace {

/// The store as one would write it without a thought for speed.
struct Model {
  struct Op {
    OpId id;
    Timestamp created_at;
    Bytes data;
  };
  std::vector<Op> ops;  // in the order of storing
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::map<std::uint64_t, Bytes>> slices;
  std::map<Url, std::set<OpId>> pending;

  const Op* find(const OpId& id) const {
    for (const Op& op : ops) {
      if (op.id == id) return &op;
    }
    return nullptr;
  }
  void put(const OpId& id, Timestamp created_at, const Bytes& data) {
    if (find(id) == nullptr) ops.push_back({id, created_at, data});
    for (auto it = pending.begin(); it != pending.end();) {
      it->second.erase(id);
      it = it->second.empty() ? pending.erase(it) : std::next(it);
    }
  }
};

enum class Kind { memory, tables, runs };

class OpStoreModel : public ::testing::TestWithParam<std::pair<Kind, unsigned>> {};

std::string name_of(const ::testing::TestParamInfo<std::pair<Kind, unsigned>>& test) {
  constexpr const char* kNames[] = {"memory", "tables", "runs"};
  return kNames[static_cast<std::size_t>(test.param.first)] + std::to_string(test.param.second);
}

INSTANTIATE_TEST_SUITE_P(Seeds, OpStoreModel,
                         ::testing::Values(std::pair{Kind::memory, 1U}, std::pair{Kind::memory, 2U},
                                           std::pair{Kind::memory, 3U}, std::pair{Kind::memory, 4U},
                                           std::pair{Kind::tables, 1U}, std::pair{Kind::tables, 2U},
                                           std::pair{Kind::tables, 3U}, std::pair{Kind::runs, 1U},
                                           std::pair{Kind::runs, 2U}, std::pair{Kind::runs, 3U},
                                           std::pair{Kind::runs, 4U}),
                         name_of);

/// One history of a store and of the model beside it. Each command is called with random arguments and compares the
/// store's answer with the model's.
class History {
 public:
  History(Kind kind, unsigned seed) : kind_(kind), random_(seed) { open(); }

  bool is_durable() const { return kind_ != Kind::memory; }

  void step(int number) {
    step_ = number;
    using Command = void (History::*)();
    static constexpr Command kCommands[] = {
        &History::store_ops,
        &History::store_ops,
        &History::retrieve_ops,
        &History::filter_new,
        &History::list_slice,
        &History::walk_by_storing,
        &History::ask_earliest,
        &History::put_slice_hash,
        &History::read_slice_hashes,
        &History::request_ops,
        &History::read_requests_and_totals,
        &History::drop_source_or_reopen,
        &History::list_by_creation,
        &History::sum_hashes,
    };
    (this->*kCommands[below(std::size(kCommands))])();
    ASSERT_EQ(reported_.size(), model_.ops.size());
    EXPECT_TRUE(reported_.empty() || reported_.back().op_id == model_.ops.back().id);
  }

 private:
  std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(random_() % n); }
  /// A small world, so that ids meet again: 400 ids, half of them crowded into a sixteenth of the ring.
  OpId some_id() {
    const std::uint32_t n = below(400);
    return n % 2 == 0 ? id_at(n * 10'737'418U, n) : id_at(n * 500'000U, n);
  }
  Timestamp some_time() { return Timestamp{static_cast<std::int64_t>(below(60)) - 5}; }
  DhtArc some_arc() {
    switch (below(6)) {
      case 0:
        return DhtArc::full();
      case 1:
        return DhtArc::none();
      case 2:
        return DhtArc(static_cast<std::uint32_t>(random_()), static_cast<std::uint32_t>(random_()));
      case 3: {
        const auto start = static_cast<std::uint32_t>(random_());
        return DhtArc(start, start - 1);  // full, spelled otherwise
      }
      case 4: {
        const auto start = static_cast<std::uint32_t>(random_());
        return DhtArc(start, start + below(50'000'000));
      }
      default: {
        const std::uint32_t loc = some_id().loc();
        return DhtArc(loc, loc + below(2));
      }
    }
  }

  /// Opens the store, for the first time or again. Every op is reported once, in the order of storing, by whatever
  /// instance of the store.
  void open() {
    store_.reset();
    if (is_durable()) {
      auto environment = sqlite::real_environment();
      environment.merge_rules = {.newest = 8, .fan_in = 2, .most_entries = 300, .least_work = 1};
      store_ = sqlite::open_op_store(environment, world_.runtime(), make_memory_op_policy(), test_space(),
                                     dir_ / "model.db", {.index_in_runs = kind_ == Kind::runs})
                   .value();
    } else {
      store_ = make_memory_op_store(world_.runtime(), make_memory_op_policy());
    }
    token_ = store_->subscribe(
        {.ops_stored = [&](const auto& ops) { reported_.insert(reported_.end(), ops.begin(), ops.end()); }});
  }

  /// Stores ops, some of them held already, repeated or not valid.
  void store_ops() {
    std::vector<Bytes> ops;
    ProcessedOps expected;
    for (std::uint32_t n = below(6); n > 0; --n) {
      if (below(8) == 0) {
        ops.push_back(Bytes::copy_of("junk"));
        ++expected.rejected;
        continue;
      }
      const OpId id = some_id();
      const Timestamp created_at = some_time();
      ops.push_back(timed_op(id, created_at.micros, below(40)));
      const auto* held = model_.find(id);
      expected.stored.push_back({held != nullptr ? held->created_at : created_at, id});
      if (held == nullptr) {
        expected.newly_stored.push_back(id);
        expected.bytes_stored += ops.back().size();
      }
      model_.put(id, created_at, ops.back());
    }
    const auto out = world_.process(*store_, ops).value();
    EXPECT_EQ(out.stored, expected.stored);
    EXPECT_EQ(out.newly_stored, expected.newly_stored);
    EXPECT_EQ(out.bytes_stored, expected.bytes_stored);
    EXPECT_EQ(out.rejected, expected.rejected);
  }

  void retrieve_ops() {
    std::vector<OpId> ids;
    for (std::uint32_t n = below(8); n > 0; --n) ids.push_back(some_id());
    const std::uint64_t max_bytes = below(2'000);
    std::vector<MetaOp> expected;
    std::set<OpId> given;
    std::uint64_t bytes = 0;
    for (const OpId& id : ids) {
      const auto* op = model_.find(id);
      if (op == nullptr || !given.insert(id).second) continue;
      if (!expected.empty() && bytes + op->data.size() > max_bytes) break;
      bytes += op->data.size();
      expected.push_back({id, op->data});
    }
    EXPECT_EQ(world_.retrieve(*store_, ids, max_bytes).value(), expected);
  }

  void filter_new() {
    std::vector<OpId> ids;
    for (std::uint32_t n = below(20); n > 0; --n) ids.push_back(some_id());
    std::vector<OpId> expected;
    for (const OpId& id : ids) {
      if (model_.find(id) == nullptr) expected.push_back(id);
    }
    EXPECT_EQ(world_.filter(*store_, ids).value(), expected);
  }

  void list_slice() {
    const DhtArc arc = some_arc();
    const Timestamp start = some_time();
    const Timestamp end = below(4) == 0 ? Timestamp::max() : some_time();
    std::vector<StoredOp> found;
    std::uint64_t bytes = 0;
    for (const auto& op : model_.ops) {
      if (!arc.contains(op.id.loc()) || op.created_at < start || op.created_at >= end) continue;
      found.push_back({op.created_at, op.id});
      bytes += op.data.size();
    }
    std::sort(found.begin(), found.end());
    std::vector<OpId> expected;
    for (const auto& op : found) expected.push_back(op.op_id);
    const auto out = world_.slice(*store_, arc, start, end).value();
    EXPECT_EQ(out.op_ids, expected);
    EXPECT_EQ(out.bytes, bytes);
  }

  /// Walks all pages; the wall clock jumps about meanwhile.
  void walk_by_storing() {
    const DhtArc arc = some_arc();
    const std::uint32_t limit = 300 + below(5'000);
    std::vector<OpId> expected;
    for (const auto& op : model_.ops) {
      if (arc.contains(op.id.loc())) expected.push_back(op.id);
    }
    std::vector<OpId> got;
    Timestamp next{0};
    for (;;) {
      const auto out = world_.bounded(*store_, arc, next, limit).value();
      EXPECT_LE(out.bytes, limit);
      if (out.op_ids.empty()) break;
      got.insert(got.end(), out.op_ids.begin(), out.op_ids.end());
      next = out.next;
    }
    EXPECT_EQ(got, expected);
    world_.set_now(Timestamp::from_seconds(1'700'000'000 + below(1'000)));
  }

  void ask_earliest() {
    const DhtArc arc = some_arc();
    std::optional<Timestamp> expected;
    for (const auto& op : model_.ops) {
      if (arc.contains(op.id.loc()) && (!expected || op.created_at < *expected)) expected = op.created_at;
    }
    EXPECT_EQ(world_.earliest(*store_, arc).value(), expected);
  }

  void put_slice_hash() {
    const DhtArc arc(below(3), 100 + below(3));
    const std::uint64_t index = below(10);
    const std::string hash = "hash" + std::to_string(step_);
    EXPECT_TRUE(world_.put_slice_hash(*store_, arc, index, hash));
    model_.slices[{arc.start(), arc.end()}][index] = Bytes::copy_of(hash);
  }

  void read_slice_hashes() {
    const DhtArc arc(below(3), 100 + below(3));
    const auto it = model_.slices.find({arc.start(), arc.end()});
    std::vector<std::pair<std::uint64_t, Bytes>> expected;
    if (it != model_.slices.end()) expected.assign(it->second.begin(), it->second.end());
    EXPECT_EQ(world_.slice_hashes(*store_, arc).value(), expected);
    EXPECT_EQ(world_.slice_count(*store_, arc).value(), expected.empty() ? 0 : expected.back().first + 1);
    const std::uint64_t index = below(10);
    const auto one = std::find_if(expected.begin(), expected.end(), [&](auto& e) { return e.first == index; });
    EXPECT_EQ(world_.slice_hash(*store_, arc, index).value(),
              one == expected.end() ? std::nullopt : std::optional(one->second));
  }

  void request_ops() {
    std::vector<OpId> ids;
    const Url source = peer_url(static_cast<int>(below(4)));
    for (std::uint32_t n = below(10); n > 0; --n) {
      ids.push_back(some_id());
      if (model_.find(ids.back()) == nullptr) model_.pending[source].insert(ids.back());
    }
    EXPECT_TRUE(world_.add_pending(*store_, ids, source));
  }

  void read_requests_and_totals() {
    StoreWorld::Pending expected;
    for (const auto& [url, ids] : model_.pending) expected.emplace_back(url, std::vector<OpId>(ids.begin(), ids.end()));
    EXPECT_EQ(world_.pending(*store_), expected);
    EXPECT_EQ(world_.pending_in_pages(*store_, below(20)), expected);
    const auto stats = world_.stats(*store_).value();
    std::uint64_t bytes = 0;
    for (const auto& op : model_.ops) bytes += op.data.size();
    EXPECT_EQ(stats.ops, model_.ops.size());
    EXPECT_EQ(stats.bytes, bytes);
  }

  void list_by_creation() {
    OpListQuery query{some_arc(), some_time(), below(3) == 0 ? Timestamp::max() : some_time(), {}, 1 + below(30), {}};
    std::vector<OpRecord> expected;
    for (const auto& op : model_.ops) {
      if (!query.arc.contains(op.id.loc()) || op.created_at < query.start || op.created_at >= query.end) continue;
      expected.push_back({op.id, op.created_at, op.id.loc(), op.data.size()});
    }
    std::stable_sort(expected.begin(), expected.end(),
                     [](const auto& a, const auto& b) { return a.created_at < b.created_at; });
    EXPECT_EQ(world_.list_all(*store_, query), expected);
  }

  void sum_hashes() {
    OpSumsQuery query;
    for (std::int64_t at = below(4) - 5; at < 60;) {
      const std::int64_t start = at + below(10);
      at = start + below(20);
      query.ranges.push_back({Timestamp{start}, Timestamp{at}});
    }
    for (std::uint32_t n = below(4) * 200; n > 0; --n) query.sectors.set(below(512));
    std::map<std::pair<std::uint32_t, std::uint32_t>, std::pair<std::vector<std::uint8_t>, std::uint64_t>> expected;
    for (const auto& op : model_.ops) {
      for (std::uint32_t range = 0; range < query.ranges.size(); ++range) {
        const auto& [start, end] = query.ranges[range];
        if (op.created_at < start || op.created_at >= end || !query.sectors.test(op.id.loc() >> 23U)) continue;
        auto& [hash, ops] = expected[{range, op.id.loc() >> 23U}];
        hash.resize(32);
        for (std::size_t i = 0; i < 32; ++i) hash[i] ^= op.id.view()[i];
        ++ops;
      }
    }
    const auto page = world_.sums(*store_, query).value();
    EXPECT_FALSE(page.next);
    ASSERT_EQ(page.sums.size(), expected.size());
    auto it = expected.begin();
    for (const OpSum& sum : page.sums) {
      EXPECT_EQ(std::pair(sum.range, sum.sector), it->first);
      EXPECT_EQ(sum.hash, Bytes(it->second.first));
      EXPECT_EQ(sum.ops, it->second.second);
      ++it;
    }
  }

  void drop_source_or_reopen() {
    if (below(3) == 0) {
      const Url source = peer_url(static_cast<int>(below(4)));
      EXPECT_TRUE(world_.remove_source(*store_, source));
      model_.pending.erase(source);
    } else if (is_durable() && below(10) == 0) {
      open();
    }
  }

  const Kind kind_;
  std::mt19937 random_;
  int step_ = 0;
  StoreWorld world_;
  TempDir dir_;
  std::shared_ptr<OpStore> store_;
  Model model_;
  std::vector<OpRecord> reported_;
  std::shared_ptr<void> token_;
};

TEST_P(OpStoreModel, GivesTheAnswersOfTheModel) {
  const auto [kind, seed] = GetParam();
  History history(kind, seed);
  const int steps = history.is_durable() ? 1'500 : 6'000;
  for (int step = 0; step < steps; ++step) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", step " + std::to_string(step));
    history.step(step);
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace kitsune2::testing
