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

TEST_P(OpStoreModel, GivesTheAnswersOfTheModel) {
  const Kind kind = std::get<0>(GetParam());  // clang 14 does not capture structured bindings
  const bool durable = kind != Kind::memory;
  const auto seed = std::get<1>(GetParam());
  std::mt19937 random(seed);
  const auto below = [&](std::uint32_t n) { return static_cast<std::uint32_t>(random() % n); };
  StoreWorld w;
  TempDir dir;
  std::shared_ptr<OpStore> store;
  const auto open = [&] {
    store.reset();
    if (durable) {
      auto environment = sqlite::real_environment();
      environment.merge_rules = {.newest = 8, .fan_in = 2, .most_entries = 300, .least_work = 1};
      store = sqlite::open_op_store(environment, w.runtime(), make_memory_op_policy(), test_space(), dir / "model.db",
                                    {.index_in_runs = kind == Kind::runs})
                  .value();
    } else {
      store = make_memory_op_store(w.runtime(), make_memory_op_policy());
    }
  };
  open();
  Model model;
  // Every op is told of once, in the order of storing, by whatever life of the store.
  std::vector<OpRecord> told;
  std::shared_ptr<void> token;
  const auto listen = [&] {
    token = store->subscribe({.ops_stored = [&](const auto& ops) { told.insert(told.end(), ops.begin(), ops.end()); }});
  };
  listen();

  // A small world, so that ids meet again: 400 ids, half of them crowded into a sixteenth of the ring.
  const auto some_id = [&] {
    const std::uint32_t n = below(400);
    return n % 2 == 0 ? id_at(n * 10'737'418U, n) : id_at(n * 500'000U, n);
  };
  const auto some_time = [&] { return Timestamp{static_cast<std::int64_t>(below(60)) - 5}; };
  const auto some_arc = [&] {
    switch (below(6)) {
      case 0:
        return DhtArc::full();
      case 1:
        return DhtArc::none();
      case 2:
        return DhtArc(static_cast<std::uint32_t>(random()), static_cast<std::uint32_t>(random()));
      case 3: {
        const auto start = static_cast<std::uint32_t>(random());
        return DhtArc(start, start - 1);  // full, spelled otherwise
      }
      case 4: {
        const auto start = static_cast<std::uint32_t>(random());
        return DhtArc(start, start + below(50'000'000));
      }
      default: {
        const std::uint32_t loc = some_id().loc();
        return DhtArc(loc, loc + below(2));
      }
    }
  };

  const int steps = durable ? 1'500 : 6'000;
  for (int step = 0; step < steps; ++step) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", step " + std::to_string(step));
    switch (below(14)) {
      case 12: {
        OpListQuery query{some_arc(), some_time(),   below(3) == 0 ? Timestamp::max() : some_time(),
                          {},         1 + below(30), {}};
        std::vector<OpRecord> expected;
        for (const auto& op : model.ops) {
          if (!query.arc.contains(op.id.loc()) || op.created_at < query.start || op.created_at >= query.end) continue;
          expected.push_back({op.id, op.created_at, op.id.loc(), op.data.size()});
        }
        std::stable_sort(expected.begin(), expected.end(),
                         [](const auto& a, const auto& b) { return a.created_at < b.created_at; });
        EXPECT_EQ(w.list_all(*store, query), expected);
        break;
      }
      case 13: {
        OpSumsQuery query;
        for (std::int64_t at = below(4) - 5; at < 60;) {
          const std::int64_t start = at + below(10);
          at = start + below(20);
          query.ranges.push_back({Timestamp{start}, Timestamp{at}});
        }
        for (std::uint32_t n = below(4) * 200; n > 0; --n) query.sectors.set(below(512));
        std::map<std::pair<std::uint32_t, std::uint32_t>, std::pair<std::vector<std::uint8_t>, std::uint64_t>> expected;
        for (const auto& op : model.ops) {
          for (std::uint32_t range = 0; range < query.ranges.size(); ++range) {
            const auto& [start, end] = query.ranges[range];
            if (op.created_at < start || op.created_at >= end || !query.sectors.test(op.id.loc() >> 23U)) continue;
            auto& [hash, ops] = expected[{range, op.id.loc() >> 23U}];
            hash.resize(32);
            for (std::size_t i = 0; i < 32; ++i) hash[i] ^= op.id.view()[i];
            ++ops;
          }
        }
        const auto page = w.sums(*store, query).value();
        EXPECT_FALSE(page.next);
        ASSERT_EQ(page.sums.size(), expected.size());
        auto it = expected.begin();
        for (const OpSum& sum : page.sums) {
          EXPECT_EQ(std::pair(sum.range, sum.sector), it->first);
          EXPECT_EQ(sum.hash, Bytes(it->second.first));
          EXPECT_EQ(sum.ops, it->second.second);
          ++it;
        }
        break;
      }
      case 0:
      case 1: {
        std::vector<Bytes> ops;
        ProcessedOps expected;
        std::vector<std::pair<OpId, std::pair<Timestamp, Bytes>>> batch;
        for (std::uint32_t n = below(6); n > 0; --n) {
          if (below(8) == 0) {
            ops.push_back(Bytes::copy_of("junk"));
            ++expected.rejected;
            continue;
          }
          const OpId id = some_id();
          const Timestamp created_at = some_time();
          ops.push_back(timed_op(id, created_at.micros, below(40)));
          const auto* held = model.find(id);
          expected.stored.push_back({held != nullptr ? held->created_at : created_at, id});
          if (held == nullptr) {
            expected.newly_stored.push_back(id);
            expected.bytes_stored += ops.back().size();
          }
          model.put(id, created_at, ops.back());
        }
        const auto out = w.process(*store, ops).value();
        EXPECT_EQ(out.stored, expected.stored);
        EXPECT_EQ(out.newly_stored, expected.newly_stored);
        EXPECT_EQ(out.bytes_stored, expected.bytes_stored);
        EXPECT_EQ(out.rejected, expected.rejected);
        break;
      }
      case 2: {
        std::vector<OpId> ids;
        for (std::uint32_t n = below(8); n > 0; --n) ids.push_back(some_id());
        const std::uint64_t max_bytes = below(2'000);
        std::vector<MetaOp> expected;
        std::set<OpId> given;
        std::uint64_t bytes = 0;
        for (const OpId& id : ids) {
          const auto* op = model.find(id);
          if (op == nullptr || !given.insert(id).second) continue;
          if (!expected.empty() && bytes + op->data.size() > max_bytes) break;
          bytes += op->data.size();
          expected.push_back({id, op->data});
        }
        EXPECT_EQ(w.retrieve(*store, ids, max_bytes).value(), expected);
        break;
      }
      case 3: {
        std::vector<OpId> ids;
        for (std::uint32_t n = below(20); n > 0; --n) ids.push_back(some_id());
        std::vector<OpId> expected;
        for (const OpId& id : ids) {
          if (model.find(id) == nullptr) expected.push_back(id);
        }
        EXPECT_EQ(w.filter(*store, ids).value(), expected);
        break;
      }
      case 4: {
        const DhtArc arc = some_arc();
        const Timestamp start = some_time();
        const Timestamp end = below(4) == 0 ? Timestamp::max() : some_time();
        std::vector<StoredOp> found;
        std::uint64_t bytes = 0;
        for (const auto& op : model.ops) {
          if (!arc.contains(op.id.loc()) || op.created_at < start || op.created_at >= end) continue;
          found.push_back({op.created_at, op.id});
          bytes += op.data.size();
        }
        std::sort(found.begin(), found.end());
        std::vector<OpId> expected;
        for (const auto& op : found) expected.push_back(op.op_id);
        const auto out = w.slice(*store, arc, start, end).value();
        EXPECT_EQ(out.op_ids, expected);
        EXPECT_EQ(out.bytes, bytes);
        break;
      }
      case 5: {
        // Walks all pages; the wall clock jumps about meanwhile.
        const DhtArc arc = some_arc();
        const std::uint32_t limit = 300 + below(5'000);
        std::vector<OpId> expected;
        for (const auto& op : model.ops) {
          if (arc.contains(op.id.loc())) expected.push_back(op.id);
        }
        std::vector<OpId> got;
        Timestamp next{0};
        for (;;) {
          const auto out = w.bounded(*store, arc, next, limit).value();
          EXPECT_LE(out.bytes, limit);
          if (out.op_ids.empty()) break;
          got.insert(got.end(), out.op_ids.begin(), out.op_ids.end());
          next = out.next;
        }
        EXPECT_EQ(got, expected);
        w.set_now(Timestamp::from_seconds(1'700'000'000 + below(1'000)));
        break;
      }
      case 6: {
        const DhtArc arc = some_arc();
        std::optional<Timestamp> expected;
        for (const auto& op : model.ops) {
          if (arc.contains(op.id.loc()) && (!expected || op.created_at < *expected)) expected = op.created_at;
        }
        EXPECT_EQ(w.earliest(*store, arc).value(), expected);
        break;
      }
      case 7: {
        const DhtArc arc(below(3), 100 + below(3));
        const std::uint64_t index = below(10);
        const std::string hash = "hash" + std::to_string(step);
        EXPECT_TRUE(w.put_slice_hash(*store, arc, index, hash));
        model.slices[{arc.start(), arc.end()}][index] = Bytes::copy_of(hash);
        break;
      }
      case 8: {
        const DhtArc arc(below(3), 100 + below(3));
        const auto it = model.slices.find({arc.start(), arc.end()});
        std::vector<std::pair<std::uint64_t, Bytes>> expected;
        if (it != model.slices.end()) expected.assign(it->second.begin(), it->second.end());
        EXPECT_EQ(w.slice_hashes(*store, arc).value(), expected);
        EXPECT_EQ(w.slice_count(*store, arc).value(), expected.empty() ? 0 : expected.back().first + 1);
        const std::uint64_t index = below(10);
        const auto one = std::find_if(expected.begin(), expected.end(), [&](auto& e) { return e.first == index; });
        EXPECT_EQ(w.slice_hash(*store, arc, index).value(),
                  one == expected.end() ? std::nullopt : std::optional(one->second));
        break;
      }
      case 9: {
        std::vector<OpId> ids;
        const Url source = peer_url(static_cast<int>(below(4)));
        for (std::uint32_t n = below(10); n > 0; --n) {
          ids.push_back(some_id());
          if (model.find(ids.back()) == nullptr) model.pending[source].insert(ids.back());
        }
        EXPECT_TRUE(w.add_pending(*store, ids, source));
        break;
      }
      case 10: {
        StoreWorld::Pending expected;
        for (const auto& [url, ids] : model.pending)
          expected.emplace_back(url, std::vector<OpId>(ids.begin(), ids.end()));
        EXPECT_EQ(w.pending(*store), expected);
        EXPECT_EQ(w.pending_in_pages(*store, below(20)), expected);
        const auto stats = w.stats(*store).value();
        std::uint64_t bytes = 0;
        for (const auto& op : model.ops) bytes += op.data.size();
        EXPECT_EQ(stats.ops, model.ops.size());
        EXPECT_EQ(stats.bytes, bytes);
        break;
      }
      default:
        if (below(3) == 0) {
          const Url source = peer_url(static_cast<int>(below(4)));
          EXPECT_TRUE(w.remove_source(*store, source));
          model.pending.erase(source);
        } else if (durable && below(10) == 0) {
          open();
          listen();
        }
    }
    ASSERT_EQ(told.size(), model.ops.size());
    EXPECT_TRUE(told.empty() || told.back().op_id == model.ops.back().id);
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace kitsune2::testing
