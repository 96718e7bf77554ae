// The shipped fetch module in a bad world: crashes, cuts, partitions, slow and full disks, liars, silence.
#include <set>

#include "sim/course.hpp"
#include "unit/node/fetch/core_fetch_harness.hpp"

namespace kitsune2::sim {
namespace {

using namespace fetch_test;

/// One history.
class History final : public Course {
 public:
  History(std::uint64_t seed, bool large)
      : bench_(seed, options(), dialect_of_seed(seed)), world_(bench_.world), large_(large) {
    bench_.policy = make_sha256_policy();
    config_.re_insert_outgoing_request_delay_ms = 500 + 100 * static_cast<std::uint32_t>(pick(16));
    config_.first_back_off_interval_ms = 1'000;
    config_.last_back_off_interval_ms = 4'000;
    config_.num_back_off_intervals = 2 + static_cast<std::uint32_t>(pick(3));
    config_.parallel_request_count = 1 + static_cast<std::uint32_t>(pick(4));
    config_.max_parallel_request_count = 3 + static_cast<std::uint32_t>(pick(8));
    config_.max_ids_per_request = std::vector<std::uint32_t>{1, 3, 16, 512}[pick(4)];
    config_.max_response_bytes = std::vector<std::uint32_t>{200, 2'000, 1U << 20}[pick(3)];
    config_.max_incoming_requests_per_peer = 1 + static_cast<std::uint32_t>(pick(8));

    ops_ = make_ops(*bench_.policy, 0, large ? 20 + pick(150) : 1 + pick(12), 32 + pick(200));
    config_.max_pending_per_peer = kMostPairs;
    const auto nodes = 2 + pick(large ? 4 : 2);
    for (std::size_t i = 0; i < nodes; ++i) {
      auto& place = places_.emplace_back(std::make_unique<Place>(world_));
      place->name = "n" + std::to_string(i);
      place->disk = bench_.make_disk();
    }
    for (std::size_t i = 0; i < ops_.size(); ++i) {
      for (auto n = 1 + pick(3); n > 0; --n) places_[pick(places_.size())]->first_ops.insert(i);
    }
    for (auto& place : places_) {
      std::vector<Bytes> data;
      for (const auto i : place->first_ops) data.push_back(ops_[i].op_data);
      EXPECT_TRUE(await<ProcessedOps>(world_, [&](auto done) { place->disk->process_incoming_ops(data, done); }));
      start(*place);
    }
    make_bad_peers();
    world_.on_step([this] {
      if (++steps_ % 37 == 0) check();
    });
  }
  ~History() override { world_.on_step({}); }

 private:
  static constexpr std::size_t kMostPairs = 200;  ///< more than there are ops
  /// Silence: 64 delays of at most 2 s. Back-off: less. Both several times.
  static constexpr Duration kMostRecovery = std::chrono::minutes(10);

  struct Place : Ledger {
    using Ledger::Ledger;
    std::shared_ptr<OpStore> disk;
    std::set<std::size_t> first_ops;
    std::unique_ptr<FetchNode> node;  ///< null: down
    std::shared_ptr<void> booking;
    Time up_again{};
    std::uint64_t asked_before_crash = 0;  ///< ops in requests of crashed nodes, at most
  };

  static MemoryNetworkOptions options() {
    MemoryNetworkOptions out;
    out.loss_timeout = std::chrono::seconds(3);
    out.max_queue_bytes = 2'000;  // so that sends are sometimes refused
    return out;
  }
  SimWorld& world() override { return world_; }
  Pace pace() override {
    return {.rounds = large_ ? 20 + pick(60) : 3 + pick(9),
            .longest_pause_ms = 1'500,
            .wants_one_in = 3,
            .drained_one_in = 5,
            .looks_one_in = 8,
            .most_recovery = kMostRecovery};
  }

  void make_bad_peers() {
    const std::vector<std::string> kinds{"silent", "failing", "nobody", "liar", "lazy"};
    for (const auto& kind : kinds) {
      if (pick(large_ ? 2 : 4) != 0) continue;
      const auto url = MemoryNetwork::url_of(kind);
      bad_.push_back(url);
      if (kind == "nobody") continue;
      auto& probe = probes_.emplace_back(std::make_unique<Probe>(bench_, kind));
      if (kind == "liar") {
        // Wrong bytes, ops that nobody requested, and closing the connection.
        probe->on_request = [this, &peer = *probe](const Probe::Request& request) {
          if (pick(10) == 0) return peer.disconnect(request.from);
          std::vector<MetaOp> lies;
          for (std::size_t i = 0; i < request.ids.size(); ++i) {
            // Where an op carries its id, half of them under a requested one.
            const Bytes lie = testing::make_op(1'000'000 + pick(1000), 40);
            lies.push_back({i % 2 == 0 ? request.ids[i] : bench_.policy->describe(lie)->op_id, lie});
          }
          if (pick(20) == 0) return peer.send_raw(request.from, Bytes::copy_of("nonsense"));
          peer.answer(request.from, lies);
        };
      } else if (kind == "lazy") {
        // Holds everything and answers sometimes, in part, late.
        probe->on_request = [this, &peer = *probe](const Probe::Request& request) {
          std::vector<MetaOp> some;
          for (const auto& id : request.ids) {
            for (const auto& op : ops_) {
              if (op.op_id == id && pick(4) == 0) some.push_back(op);
            }
          }
          if (!some.empty()) peer.answer(request.from, some);
        };
      }
    }
    set_bad_links();
  }
  void set_bad_links() {
    make_silent(bench_, MemoryNetwork::url_of("silent"));
    make_failing(bench_, MemoryNetwork::url_of("failing"), std::chrono::milliseconds(pick(3000)));
  }

  void start(Place& place) {
    place.node = std::make_unique<FetchNode>(bench_, place.name, config_, place.disk);
    place.booking = place.node->fetch->subscribe(
        {.ops_stored = [&place](const Url&, const std::vector<StoredOp>& ops, std::uint64_t) { place.stored(ops); },
         .peer_given_up = [&place](const Url& peer, const std::vector<OpId>&) { place.gave_up(peer); },
         .ops_unserved = [&place](const Url& peer, const std::vector<OpId>& ops,
                                  const std::vector<OpId>&) { place.unserved(peer, ops); }});
    place.restarted();
    if (pick(2) == 0) place.watch_drained(*place.node->fetch);
    // What a crash left on disk, reported or not.
    const auto lacking =
        await<std::vector<OpId>>(world_, [&](auto done) { place.disk->filter_out_existing_ops(ids_of(ops_), done); });
    place.looked_up(ids_of(ops_), *lacking);
    world_.run_ready();  // what is pending on disk is read again
  }

  void crash(Place& place) {
    place.asked_before_crash += place.node->fetch->stats().requests_sent * config_.max_ids_per_request;
    place.node.reset();
    place.up_again = world_.now() + std::chrono::milliseconds(pick(5'000));
  }

  void someone_watches_drained() override {
    auto& place = *places_[pick(places_.size())];
    if (place.node) place.watch_drained(*place.node->fetch);
  }

  std::vector<Url> urls() const {
    std::vector<Url> out;
    for (const auto& place : places_) out.push_back(MemoryNetwork::url_of(place->name));
    return out;
  }

  void ask(Place& place, const std::vector<OpId>& ids, const Url& source) {
    if (ids.empty() || source == MemoryNetwork::url_of(place.name)) return;
    place.node->fetch->request_ops(ids, source, [this, &place, ids, source](const Result<void>& result) {
      world_.trace(result ? 1 : 2);
      if (!result) return;
      place.asked(place.node->fetch->state_summary(), ids, source);
    });
  }

  /// One and a half times what may be pending from one peer.
  void flood(Place& place) {
    const auto url = MemoryNetwork::url_of("flood");
    const auto ids = [](std::uint64_t first) {
      return ids_of(make_ops(*make_prefix_policy(), first, kMostPairs * 3 / 4, 32));
    };
    auto& fetch = *place.node->fetch;
    fetch.request_ops(ids(9'000'000), url, [ids, &fetch, url](const Result<void>& first) {
      fetch.request_ops(ids(9'100'000), url, [ids, &fetch, url, first](const Result<void>& second) {
        const auto pending = fetch.state_summary().pending_requests;
        EXPECT_TRUE(!first || !second || !pending.contains(ids(9'000'000).front()))
            << "more is pending from one peer than may be";
        fetch.remove_source(url);
      });
    });
  }

  void someone_wants_something() override {
    auto& place = *places_[pick(places_.size())];
    if (!place.node) return;
    auto sources = urls();
    sources.insert(sources.end(), bad_.begin(), bad_.end());
    const auto& source = sources[pick(sources.size())];
    if (pick(12) == 0) return flood(place);
    std::vector<OpId> ids;
    const auto one_in = 1 + pick(4);
    for (const auto& op : ops_) {
      if (pick(one_in) == 0) ids.push_back(op.op_id);
    }
    ask(place, ids, source);
  }

  void mischief() override {
    auto& place = *places_[pick(places_.size())];
    const auto all = urls();
    const auto& a = all[pick(all.size())];
    const auto& b = all[pick(all.size())];
    for (auto& each : places_) {
      if (!each->node && world_.now() >= each->up_again) start(*each);
    }
    switch (pick(13)) {
      case 0:
        bench_.network->set_default_link({.latency = std::chrono::milliseconds(pick(400)),
                                          .bytes_per_second = pick(2) == 0 ? 0 : 2'000 + pick(100'000)});
        return;
      case 1:
        if (a != b) bench_.network->set_link(a, b, {.latency = std::chrono::milliseconds(pick(5'000))});
        return;
      case 2:
        if (a != b) bench_.network->set_link(a, b, {.fail_sends = true, .fail_after = Duration(pick(2'000'000))});
        return;
      case 3:
        if (a != b) bench_.network->set_link(a, b, {.swallow = true});
        return;
      case 4:
        bench_.network->clear_links();
        set_bad_links();
        return;
      case 5:
      case 6:
        if (a != b) bench_.network->cut(a, b, pick(2) == 0);
        return;
      case 7:
        if (a != b) bench_.network->set_reachable(a, b, false);
        return;
      case 8:
        bench_.network->heal();
        return;
      case 9:
        if (place.node) crash(place);
        return;
      case 10:
        if (place.node) {
          place.node->store->fail_writes(pick(2) == 0 ? std::optional(make_error(Errc::disk_full, "no space"))
                                                      : std::nullopt);
        }
        return;
      case 12:
        bench_.network->go_offline(a, std::chrono::milliseconds(pick(8'000)));
        return;
      case 11:
        if (place.node) {
          place.node->store->delay_writes(std::chrono::milliseconds(pick(1'000)));
          place.node->store->delay_reads(std::chrono::milliseconds(pick(200)));
        }
        return;
    }
  }

  void calm() override {
    bench_.network->heal();
    bench_.network->clear_links();
    bench_.network->set_default_link({.latency = std::chrono::milliseconds(20)});
    set_bad_links();
    for (auto& place : places_) {
      if (!place->node) start(*place);
      place->node->store->fail_writes(std::nullopt);
      place->node->store->delay_writes({});
      place->node->store->delay_reads({});
    }
    world_.run_for(std::chrono::seconds(10));  // all are online again
  }

  /// Like gossip: each place is told, for each op, who had it from the beginning.
  void each_minute() override {
    for (auto& place : places_) {
      for (const auto& other : places_) {
        std::vector<OpId> ids;
        for (const auto i : other->first_ops) ids.push_back(ops_[i].op_id);
        if (place != other) ask(*place, ids, MemoryNetwork::url_of(other->name));
      }
      place->watch_drained(*place->node->fetch);
    }
  }

  bool all_done() override {
    for (const auto& place : places_) {
      if (place->claimed().size() < ops_.size() || !place->is_drained()) return false;
    }
    return true;
  }

  void check() override {
    for (const auto& place : places_) {
      if (!place->node) continue;
      place->node->check();
    }
  }

  void check_nothing_forgotten() override {
    for (const auto& place : places_) {
      if (place->node) place->check_nothing_forgotten(place->node->fetch->state_summary());
    }
  }

  void check_end() override {
    for (const auto& place : places_) {
      EXPECT_EQ(place->node->held(ids_of(ops_)), ops_.size()) << place->name;
      const std::vector<OpId> claimed(place->claimed().begin(), place->claimed().end());
      EXPECT_EQ(place->node->held(claimed), claimed.size()) << place->name << " claims what its disk does not hold";
      const auto stats = await<OpStoreStats>(world_, [&](auto done) { place->disk->stats(done); });
      EXPECT_EQ(stats->ops, ops_.size()) << place->name << " holds what nobody wanted";
      EXPECT_EQ(place->node->fetch->pending_ops(), 0U) << place->name;
      const auto pending = await<std::vector<std::pair<Url, std::vector<OpId>>>>(
          world_, [&](auto done) { place->disk->retrieve_pending(done); });
      for (const auto& [source, ids] : *pending) {
        // What the disk refused to forget is forgotten by the next start.
        EXPECT_EQ(source, MemoryNetwork::url_of("flood")) << place->name << " has stored ops pending";
      }
      if (std::find(bad_.begin(), bad_.end(), MemoryNetwork::url_of("liar")) == bad_.end()) {
        // A node under the url of a crashed one may receive answers meant for that one, late, when they are no longer
        // pending: at most what had been requested. (In tx5 a start has a new url.)
        EXPECT_LE(place->node->fetch->stats().ops_unsolicited, place->asked_before_crash)
            << place->name << " blames honest peers";
      }
    }
  }

  std::string describe() override {
    std::string out;
    for (const auto& place : places_) out += place->describe(*place->node->fetch);
    return out;
  }

  Bench bench_;
  SimWorld& world_;
  const bool large_;
  CoreFetchConfig config_;
  std::vector<MetaOp> ops_;
  std::vector<std::unique_ptr<Place>> places_;
  std::vector<std::unique_ptr<Probe>> probes_;
  std::vector<Url> bad_;
  std::uint64_t steps_ = 0;
};

}  // namespace

Ran run_fetch_history(std::uint64_t seed, bool large) { return History(seed, large).run(); }

}  // namespace kitsune2::sim
