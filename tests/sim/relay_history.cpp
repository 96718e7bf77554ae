// Nodes with SQLite stores behind a relay, all of it the shipped code: HTTP upgrade, WebSocket frames, sbd and tx5 or
// QUIC and iroh's relay protocol, fetch.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/fetch.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/waiters.hpp"
#include "node/fetch/core_fetch.hpp"
#include "sim/course.hpp"
#include "sim/relay_peers.hpp"
#include "sim/scenarios.hpp"
#include "sim/sim_disk.hpp"
#include "sim/sim_net.hpp"
#include "sim/sim_relay.hpp"
#include "sim/sim_transport.hpp"
#include "sim/watched_transport.hpp"

namespace kitsune2::sim {
namespace {

using namespace std::chrono_literals;
using testing::await;
using testing::ids_of;
using testing::SimRuntime;
using testing::SimWorld;

class RelayHistory final : public Course {
 public:
  RelayHistory(std::uint64_t seed, bool large, Over over)
      : world_(seed), net_(world_), relay_(world_, net_), large_(large), policy_(make_sha256_policy(kMostOpBytes)) {
    config_.re_insert_outgoing_request_delay_ms = 1'000 + 250 * static_cast<std::uint32_t>(pick(8));
    config_.first_back_off_interval_ms = 1'000;
    config_.last_back_off_interval_ms = 4'000;
    config_.num_back_off_intervals = 2 + static_cast<std::uint32_t>(pick(3));
    config_.parallel_request_count = 1 + static_cast<std::uint32_t>(pick(4));
    config_.max_ids_per_request = std::vector<std::uint32_t>{1, 3, 16, 512}[pick(4)];
    config_.max_response_bytes = std::vector<std::uint32_t>{2'000, 60'000, 1U << 20}[pick(3)];
    config_.max_incoming_requests_per_peer = 1 + static_cast<std::uint32_t>(pick(8));
    transport_config_.network.dialect = draw_dialect(world_, over);
    TransportDraw transport;
    transport.timeout_s = 8 + static_cast<std::uint32_t>(pick(12));
    transport.max_message_bytes = 2U << 20;
    if (pick(3) == 0) transport.max_queue_bytes = 30'000 + pick(100'000);
    set_transport(transport_config_, transport);
    paths_ = draw_paths(world_, net_, transport_config_);
    // So little room for large messages that some must wait for others. One can always be granted.
    limits_.permits.max_granted_bytes = transport.max_message_bytes;
    relay_.options.limit_idle_millis = 5'000;
    if (pick(4) == 0) relay_.options.limit_send_queue_bytes = 60'000;
    if (pick(4) == 0) relay_.options.limit_ip_kbps = 400 + static_cast<std::uint32_t>(pick(8'000));
    net_.set_window(4'000 + pick(80'000));

    const auto size = pick(4) == 0 ? 32 + pick(large ? 60'000 : 30'000) : 32 + pick(800);
    ops_ = testing::make_ops(*policy_, 0, large ? 10 + pick(60) : 2 + pick(10), size);
    relay_.start();
    const auto nodes = 2 + pick(large ? 3 : 2);
    for (std::size_t i = 0; i < nodes; ++i) {
      auto& place = places_.emplace_back(std::make_unique<Place>(world_));
      place->name = "n" + std::to_string(i);
      place->host = net_.add_host(place->name);
      place->disk = std::make_unique<SimDisk>(seed * 8 + i);
      place->disk->make_file(kPath);
    }
    for (std::size_t i = 0; i < ops_.size(); ++i) {
      for (auto n = 1 + pick(2); n > 0; --n) places_[pick(places_.size())]->first_ops.insert(i);
    }
    for (auto& place : places_) {
      start(*place);
      std::vector<Bytes> data;
      for (const auto i : place->first_ops) {
        data.push_back(ops_[i].op_data);
        place->stored(std::vector<OpId>{ops_[i].op_id});
      }
      EXPECT_TRUE(
          await<ProcessedOps>(world_, [&](auto done) { place->live->store->process_incoming_ops(data, done); }));
    }
    for (const auto kind :
         {BadKind::silent, BadKind::slow, BadKind::liar, BadKind::endless, BadKind::oversized, BadKind::flapping}) {
      if (pick(large ? 3 : 10) != 0) continue;
      bad_.push_back(std::make_unique<BadPeer>(world_, net_, paths_.get(), transport_config_, kind, ops_));
    }
    world_.on_step([this] { after_step(); });
  }
  ~RelayHistory() override {
    world_.on_step({});
    bad_.clear();
    for (auto& place : places_) {
      if (place->live) crash(*place);
    }
  }

 private:
  static constexpr Duration kMostRecovery = 15min;
  static constexpr std::size_t kTroubles = 15;
  static constexpr std::size_t kMostOpBytes = 100'000;
  inline static const std::string kPath = "space.db";

  /// What a crash destroys.
  struct Living {
    std::unique_ptr<SimRuntime> runtime;
    std::shared_ptr<OpStore> store;
    std::shared_ptr<WatchedTransport> transport;
    std::shared_ptr<Fetch> fetch;
    std::shared_ptr<void> booking;
  };
  struct Place : Ledger {
    using Ledger::Ledger;
    SimNet::Host host = 0;
    std::unique_ptr<SimDisk> disk;
    std::set<std::size_t> first_ops;
    std::unique_ptr<Living> live;  ///< null: down
    Time up_again{};
    std::string store_error;  ///< the last one
  };

  SimWorld& world() override { return world_; }
  Pace pace() override {
    return {.rounds = large_ ? 20 + pick(30) : 3 + pick(8),
            .longest_pause_ms = 3'000,
            .wants_one_in = 2,
            .drained_one_in = 5,
            .looks_one_in = 6,
            .most_recovery = kMostRecovery};
  }

  // ------------------------------------------------------------ life and death

  void start(Place& place) {
    for (int attempt = 0; !place.live; ++attempt) {
      auto live = std::make_unique<Living>();
      live->runtime = world_.make_runtime();
      auto opened = sqlite::open_op_store(sim_environment(*place.disk, *live->runtime), *live->runtime, policy_,
                                          kSimSpace, kPath, {});
      if (opened.has_value() && place.disk->has_power()) {
        live->store = *opened;
        place.live = std::move(live);
        break;
      }
      ASSERT_LT(attempt, 3) << place.name << " does not start: " << (opened ? "" : opened.error().to_string());
      live->runtime->crash();
      if (opened.has_value()) opened->reset();
      if (place.disk->lost_writes()) place.disk->cut_power();
      place.disk->power_on();
      place.disk->faults = {};
    }
    auto& live = *place.live;
    net_.up(place.host, *live.runtime);
    auto backend = make_backend(*live.runtime, {net_, paths_.get(), place.host}, transport_config_, limits_);
    ASSERT_TRUE(backend.has_value()) << backend.error().to_string();
    live.transport = std::make_shared<WatchedTransport>(
        *live.runtime, make_transport(*live.runtime, std::move(*backend), nullptr, transport_config_.network.spoken()),
        std::chrono::milliseconds(config_.re_insert_outgoing_request_delay_ms));
    auto fetch = make_core_fetch(*live.runtime, config_, kSimSpace, live.store, live.transport);
    ASSERT_TRUE(fetch.has_value()) << fetch.error().to_string();
    live.fetch = *fetch;
    live.booking = live.fetch->subscribe(
        {.ops_stored = [&place](const Url&, const std::vector<StoredOp>& ops, std::uint64_t) { place.stored(ops); },
         .peer_given_up =
             [&place](const Url& peer, const std::vector<OpId>&) {
               place.gave_up(peer);
               place.live->transport->forget(peer);
             },
         .store_failed = [&place](const Error& why) { place.store_error = why.to_string(); },
         .ops_unserved = [&place](const Url& peer, const std::vector<OpId>& ops,
                                  const std::vector<OpId>&) { place.unserved(peer, ops); }});
    place.restarted();
    if (pick(2) == 0) place.watch_drained(*live.fetch);
    // What a crash left on disk, reported or not. The store answers in its own time, and so does fetch, which reads on.
    live.store->filter_out_existing_ops(ids_of(ops_), [this, &place](const Result<std::vector<OpId>>& lacking) {
      if (lacking) place.looked_up(ids_of(ops_), *lacking);
    });
  }

  void crash(Place& place) {
    if (place.disk->has_power()) pick(2) == 0 ? place.disk->kill() : place.disk->cut_power();
    place.live->runtime->crash();
    net_.down(place.host, pick(2) == 0);
    place.live.reset();
    place.disk->power_on();
    place.up_again = world_.now() + std::chrono::milliseconds(pick(8'000));
  }

  void after_step() {
    for (auto& place : places_) {
      if (place->live && !place->disk->has_power()) crash(*place);
    }
    if (++steps_ % 61 == 0) check();
  }

  // ---------------------------------------------------------------------- wants

  std::vector<Url> urls() const {
    std::vector<Url> out;
    for (const auto& place : places_) {
      if (!place->live) continue;
      if (const auto url = place->live->transport->url()) out.push_back(*url);
    }
    for (const auto& peer : bad_) {
      if (const auto url = peer->url()) out.push_back(*url);
    }
    return out;
  }

  void ask(Place& place, const std::vector<OpId>& ids, const Url& source) {
    if (ids.empty() || source == place.live->transport->url()) return;
    place.live->fetch->request_ops(ids, source, [this, &place, ids, source](const Result<void>& result) {
      world_.trace(result ? 1 : 2);
      if (!result) return;
      place.asked(place.live->fetch->state_summary(), ids, source);
    });
  }

  void someone_wants_something() override {
    auto& place = *places_[pick(places_.size())];
    const auto sources = urls();
    if (!place.live || sources.empty()) return;
    const auto& source = sources[pick(sources.size())];
    std::vector<OpId> ids;
    const auto one_in = 1 + pick(3);
    for (const auto& op : ops_) {
      if (pick(one_in) == 0) ids.push_back(op.op_id);
    }
    ask(place, ids, source);
  }

  void someone_watches_drained() override {
    auto& place = *places_[pick(places_.size())];
    if (place.live) place.watch_drained(*place.live->fetch);
  }

  // -------------------------------------------------------------------- trouble

  void mischief() override {
    for (auto& each : places_) {
      if (!each->live && world_.now() >= each->up_again) start(*each);
    }
    if (relay_.due()) relay_.start();
    auto& place = *places_[pick(places_.size())];
    const auto host = pick(6) == 0 ? relay_.host() : place.host;
    const auto what = pick(kTroubles + (paths_ ? SimPaths::kTroubles : 0));
    if (what >= kTroubles) return paths_->make_trouble(what - kTroubles);
    switch (what) {
      case 0:
        return net_.set_link(host, {std::chrono::milliseconds(pick(400)), pick(2) == 0 ? 0 : 4'000 + pick(200'000)});
      case 1:
      case 2:
        return net_.cut(host);
      case 3:
        return net_.block(host, true);
      case 4:
      case 5:
        for (SimNet::Host h = 0; h <= places_.size(); ++h) net_.block(h, false);
        return;
      case 6:
        return net_.silence(host);
      case 7:
        if (place.live) crash(place);
        return;
      case 8:
        place.disk->cut_power_after(pick(30));
        return;
      case 9:
        if (relay_.up() && pick(2) == 0) {
          relay_.crash(pick(2) == 0);
          relay_.stay_down(std::chrono::milliseconds(pick(6'000)));
        }
        return;
      case 10:
        place.disk->faults.write_error = 1 + static_cast<std::uint32_t>(pick(40));
        return;
      case 11:
        place.disk->faults.sync_error = 1 + static_cast<std::uint32_t>(pick(8));
        return;
      case 12:
        place.disk->faults.full = !place.disk->faults.full;
        return;
      case 13:
        place.disk->faults.latency = std::chrono::microseconds(pick(300'000));
        return;
      case 14:
        return net_.deafen(host);
    }
  }

  void calm() override {
    for (SimNet::Host h = 0; h <= places_.size(); ++h) {
      net_.block(h, false);
      net_.set_link(h, {20ms, 0});
    }
    if (paths_) paths_->calm();
    if (!relay_.up()) relay_.start();
    for (auto& place : places_) {
      place->disk->keep_power();
      place->disk->faults = {};
      if (!place->live) start(*place);
    }
    // All are at the relay again: a dead connection is given up, and
    // the relay is tried again after at most 8 s.
    const auto online = [this] {
      return std::all_of(places_.begin(), places_.end(),
                         [](const auto& place) { return place->live && place->live->transport->url().has_value(); });
    };
    world_.run_for(SimNet::kGiveUp);
    EXPECT_TRUE(world_.run_until(online, 1min)) << "somebody does not come back to the relay";
  }

  /// Like gossip: each place is told, for each op, who had it from the beginning, and where that node is now.
  void each_minute() override {
    for (auto& place : places_) {
      for (const auto& other : places_) {
        const auto url = other->live->transport->url();
        if (place == other || !url) continue;
        std::vector<OpId> ids;
        for (const auto i : other->first_ops) ids.push_back(ops_[i].op_id);
        ask(*place, ids, *url);
      }
      place->watch_drained(*place->live->fetch);
    }
  }

  bool all_done() override {
    return std::all_of(places_.begin(), places_.end(), [this](const auto& place) {
      return place->claimed().size() == ops_.size() && place->is_drained();
    });
  }

  // --------------------------------------------------------------------- checks

  void check() override {
    for (const auto& place : places_) {
      if (place->live && place->live->fetch) static_cast<const CoreFetch&>(*place->live->fetch).check_invariants();
    }
    relay_.check_invariants();
  }

  void check_nothing_forgotten() override {
    for (const auto& place : places_) {
      if (place->live && resumed(*place)) place->check_nothing_forgotten(place->live->fetch->state_summary());
    }
  }
  /// Whether fetch has read what was pending: the store answers in order, so the answer to our call shows it.
  bool resumed(Place& place) {
    auto done = await<OpStoreStats>(
        world_, [&](auto handler) { place.live->store->stats(handler); }, 1min);
    return done.has_value() && place.live;
  }

  void check_end() override {
    for (const auto& place : places_) {
      ASSERT_TRUE(place->live);
      const auto lacking = await<std::vector<OpId>>(
          world_, [&](auto done) { place->live->store->filter_out_existing_ops(ids_of(ops_), done); });
      EXPECT_TRUE(lacking && lacking->empty()) << place->name << " claims what its disk does not hold";
      const auto stats = await<OpStoreStats>(world_, [&](auto done) { place->live->store->stats(done); });
      EXPECT_EQ(stats->ops, ops_.size()) << place->name << " holds what nobody wanted";
      EXPECT_EQ(place->live->fetch->pending_ops(), 0U) << place->name;
    }
  }

  std::string describe() override {
    std::string out = "at " + std::to_string(world_.now().time_since_epoch().count() / 1'000'000) + " s\n";
    for (const auto& place : places_) {
      const auto url = place->live->transport->url();
      out += (url ? url->to_string() : "offline") + " " + place->store_error + "\n  " +
             place->describe(*place->live->fetch);
    }
    return out;
  }

  SimWorld world_;
  SimNet net_;
  std::unique_ptr<SimPaths> paths_;  ///< null: no direct paths
  SimRelay relay_;
  const bool large_;
  const std::shared_ptr<const OpPolicy> policy_;
  CoreFetchConfig config_;
  Config transport_config_;  ///< the transport's part of it
  tx5::LinkLimits limits_;
  std::vector<MetaOp> ops_;
  std::vector<std::unique_ptr<Place>> places_;
  std::vector<std::unique_ptr<BadPeer>> bad_;
  std::uint64_t steps_ = 0;
};

}  // namespace

Ran run_relay_history(std::uint64_t seed, bool large, Over over) { return RelayHistory(seed, large, over).run(); }

}  // namespace kitsune2::sim
