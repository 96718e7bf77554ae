// Whole nodes, assembled as in the program: Kitsune, space, publish, gossip, bootstrap,
// fetch, SQLite stores for ops and peers, tx5 or iroh; behind one relay and bootstrap server. Hosts
// create ops and publish them, or leave that to gossip. Days pass, some nodes join late, some
// are away meanwhile. In the end everybody holds what it should, and says so.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/dht/sector_set.hpp"
#include "kitsune2/dialect.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/waiters.hpp"
#include "node/builder/platform.hpp"
#include "node/builder/store_paths.hpp"
#include "node/fetch/core_fetch.hpp"
#include "sim/booked_fetch.hpp"
#include "sim/course.hpp"
#include "sim/relay_peers.hpp"
#include "sim/sim_disk.hpp"
#include "sim/sim_net.hpp"
#include "sim/sim_relay.hpp"
#include "sim/sim_transport.hpp"
#include "store/sqlite/db.hpp"

namespace kitsune2::sim {
namespace {

using namespace std::chrono_literals;
using testing::await;
using testing::ids_of;
using testing::SimRuntime;
using testing::SimWorld;

/// The application, which wants whatever peers offer.
struct App final : KitsuneHandler {
  Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId&) override {
    return std::make_shared<SpaceHandler>();
  }
};

class NodeHistory final : public Course {
 public:
  NodeHistory(std::uint64_t seed, bool large, Over over)
      : world_(seed),
        net_(world_),
        relay_(world_, net_),
        clock_(world_.make_runtime()),
        start_(clock_->wall_now()),
        large_(large),
        default_pace_(seed / 2 % 2 == 0),
        policy_(make_sha256_policy(kMostOpBytes)) {
    draw_config(over);
    ops_ = some_ops(0, large ? 10 + pick(50) : 3 + pick(10), pick(4) == 0 ? 32 + pick(20'000) : 32 + pick(800));
    relay_.start();
    for (auto nodes = 2 + pick(large ? 4 : 2); nodes > 0; --nodes) add_node(seed);
    for (const auto kind : {BadKind::silent, BadKind::slow, BadKind::liar, BadKind::endless, BadKind::flapping}) {
      if (pick(large ? 4 : 12) != 0) continue;
      bad_.push_back(std::make_unique<BadPeer>(world_, net_, paths_.get(), config_, kind, ops_));
    }
    for (std::size_t i = 0; i < places_.size(); ++i) {
      if (i > 0 && pick(4) == 0) {
        places_[i]->up_again = Time(std::chrono::milliseconds(pick(60'000)));  // joins late
      } else {
        start(*places_[i]);
      }
    }
    world_.on_step([this] { after_step(); });
  }
  ~NodeHistory() override {
    bad_.clear();
    world_.run_until([this] { return nobody_stops(); }, 5min);
    world_.on_step({});
    for (auto& place : places_) {
      if (place->live) crash(*place);
    }
  }

 private:
  /// An info that nobody takes, since its node's clock was set back and a loss of power took the record of the one
  /// before, is signed anew after 15 minutes; then come two rounds.
  static constexpr Duration kMostRecovery = 30min;
  /// If a loss of power took the record of a tombstone, and the clock was set back, what is signed then is older for
  /// the server. It drops that without a word until a newer one is signed after two minutes.
  static constexpr Duration kMostForgetting = 10min;
  static constexpr std::size_t kTroubles = 22;
  /// Includes the back-offs of bootstrap, relay and connection; gossip's turn would come after five minutes.
  static constexpr Duration kMostWait = 90s;
  static constexpr std::size_t kMostOpBytes = 100'000;
  static constexpr std::size_t kMostNodes = 8;

  /// What a crash destroys.
  struct Living {
    std::unique_ptr<SimRuntime> runtime;
    std::shared_ptr<Kitsune> kitsune;
    std::shared_ptr<Space> space;
    std::shared_ptr<WatchedTransport> transport;  ///< as fetch sees it
    std::weak_ptr<CoreFetch> fetch;
    bool stopping = false, stopped = false;
    Time end_at{};
  };
  struct Agent {
    std::uint64_t number;
    AgentId id;
    DhtArc arc;  ///< that it stores
  };
  struct Place : Ledger {
    using Ledger::Ledger;
    SimNet::Host host = 0;
    std::unique_ptr<SimDisk> disk;
    std::vector<Agent> agents;
    std::set<AgentId> away;  ///< agents that have left
    std::set<Url> blocked;   ///< at any time
    Duration clock_off{};
    std::unique_ptr<Living> live;  ///< null: down
    bool gone = false;             ///< for good
    Time up_again{};

    bool covers(const OpId& op) const {
      return std::any_of(agents.begin(), agents.end(), [&](const auto& a) { return a.arc.contains(op.loc()); });
    }
  };

  SimWorld& world() override { return world_; }
  Pace pace() override {
    return {.rounds = large_ ? 20 + pick(30) : 4 + pick(10),
            .longest_pause_ms = 20'000,
            .wants_one_in = 1,
            .drained_one_in = 6,
            .looks_one_in = 5,
            .most_recovery = kMostRecovery};
  }

  void draw_config(Over over) {
    config_.network.dialect = draw_dialect(world_, over);
    auto& fetch = config_.core_fetch;
    fetch.re_insert_outgoing_request_delay_ms = 1'000 + 250 * static_cast<std::uint32_t>(pick(8));
    fetch.first_back_off_interval_ms = 1'000;
    fetch.last_back_off_interval_ms = 4'000;
    fetch.num_back_off_intervals = 1 + static_cast<std::uint32_t>(pick(4));
    fetch.parallel_request_count = 1 + static_cast<std::uint32_t>(pick(4));
    fetch.max_ids_per_request = std::vector<std::uint32_t>{1, 3, 16, 512}[pick(4)];
    fetch.max_response_bytes = std::vector<std::uint32_t>{2'000, 60'000, 1U << 20}[pick(3)];
    config_.core_publish.max_ids_per_message = std::vector<std::uint32_t>{1, 2, 4096}[pick(3)];
    config_.core_bootstrap.server_url = "http://relay:1";
    config_.core_bootstrap.backoff_min_ms = 1'000;
    config_.core_bootstrap.backoff_max_ms = 30'000;
    auto& gossip = config_.k2_gossip;
    gossip.initiate_interval_ms = 10'000 + static_cast<std::uint32_t>(pick(30'000));
    gossip.initiate_jitter_ms = 2'000;
    gossip.min_initiate_interval_ms = gossip.initiate_interval_ms;
    // Sometimes a round announces only a few ops.
    if (pick(3) == 0) gossip.max_gossip_op_bytes = 40'000 + static_cast<std::uint32_t>(pick(60'000));
    if (pick(4) == 0) gossip.max_concurrent_accepted_rounds = 1;
    // Half of them at the default pace: what should happen within seconds must not wait for a turn.
    if (default_pace_) {
      const K2GossipConfig defaults;
      gossip.initiate_interval_ms = defaults.initiate_interval_ms;
      gossip.initiate_jitter_ms = defaults.initiate_jitter_ms;
      gossip.min_initiate_interval_ms = defaults.min_initiate_interval_ms;
    }
    set_transport(config_, {.timeout_s = 8 + static_cast<std::uint32_t>(pick(12)), .max_message_bytes = 2U << 20});
    paths_ = draw_paths(world_, net_, config_);
    relay_.options.limit_idle_millis = 5'000;
    if (pick(4) == 0) relay_.options.limit_ip_kbps = 400 + static_cast<std::uint32_t>(pick(8'000));
    net_.set_window(4'000 + pick(80'000));
  }

  /// From minutes to three years old, of the day after the beginning, or without a time.
  std::vector<MetaOp> some_ops(std::uint64_t first, std::size_t count, std::size_t bytes) {
    std::vector<MetaOp> out;
    for (auto number = first; number < first + count; ++number) {
      const Bytes plain = testing::make_op(number, bytes);
      const auto kind = pick(6);
      if (kind == 0) {
        out.push_back({policy_->describe(plain)->op_id, plain});
        continue;
      }
      const Duration age = kind == 1   ? std::chrono::hours(pick(3 * 365 * 24))
                           : kind == 2 ? Duration(std::chrono::hours(24)) * -1
                           : kind == 3 ? Duration(std::chrono::hours(pick(300)))
                                       : Duration(std::chrono::minutes(pick(600)));
      std::string data("k2op\1", 5);
      const auto created = static_cast<std::uint64_t>((start_ - age).micros);
      for (int shift = 56; shift >= 0; shift -= 8) data += static_cast<char>(created >> shift & 255U);
      data += plain.text();
      Bytes whole(std::move(data));
      auto id = policy_->describe(whole)->op_id;
      out.push_back({std::move(id), std::move(whole)});
    }
    return out;
  }

  // ------------------------------------------------------------ life and death

  void add_node(std::uint64_t seed) {
    auto& place = *places_.emplace_back(std::make_unique<Place>(world_));
    const auto number = places_.size() - 1;
    place.name = "n" + std::to_string(number);
    place.host = net_.add_host(place.name);
    place.disk = std::make_unique<SimDisk>(seed * kMostNodes + number);
    place.disk->make_file(op_store_path(".", kSimSpace));
    place.disk->make_file(peer_store_path(".", kSimSpace));
    place.clock_off = small_skew();
    // The first two store everything; some of the others store a part, in whole sectors as gossip describes arcs.
    for (auto agents = pick(5) == 0 ? 2U : 1U; agents > 0; --agents) {
      auto arc = DhtArc::full();
      if (number >= 2 && pick(2) == 0) {
        const auto sectors = [this] { return static_cast<std::uint32_t>(pick(512)) << 23U; };
        const auto from = sectors();
        arc = {from, from + sectors() + (1U << 23U) - 1};
      }
      const auto key = 1 + 2 * number + agents;
      place.agents.push_back({key, testing::make_agent(key)->agent(), arc});
    }
  }
  Duration small_skew() { return std::chrono::seconds(pick(120)) - 60s; }

  Builder builder_of(Place& place, Living& live) {
    const Platform platform{.ws_connector = [this, &place, &live]() -> std::shared_ptr<WsConnector> {
                              return net::make_ws_connector(*live.runtime, net_.dial(place.host));
                            },
                            .http_client = [this, &place, &live](TlsOptions tls) -> std::shared_ptr<HttpClient> {
                              return net::make_http_client(*live.runtime, net_.dial(place.host), std::move(tls));
                            },
                            .udp_binder = paths_ ? paths_->binder(*live.runtime, place.host) : nullptr,
                            .disk = sim_environment(*place.disk, *live.runtime)};
    auto builder = builder_on(platform, config_, {.data_dir = ".", .policy = policy_});
    builder.fetch = [&place, &live,
                     make = builder.fetch](const ModuleContext& context) -> Result<std::shared_ptr<Fetch>> {
      auto own = context;
      const auto delay = context.config->current().core_fetch.re_insert_outgoing_request_delay_ms;
      live.transport =
          std::make_shared<WatchedTransport>(*context.runtime, context.transport, std::chrono::milliseconds(delay));
      own.transport = live.transport;
      auto made = make(own);
      if (!made) return made;
      live.fetch = std::static_pointer_cast<CoreFetch>(*made);
      return std::make_shared<BookedFetch>(std::move(*made), live.transport, place);
    };
    return builder;
  }

  /// What a failed sync has lost may damage the database of peers, which a node then replaces by an empty one
  /// (`put_damaged_aside`).
  static bool replaces_damaged_peers(Place& place) {
    const std::string path = peer_store_path(".", kSimSpace);
    if (place.disk->counters().errors == 0) return false;
    {
      auto file = sqlite::Connection::open(path, sqlite::Connection::Mode::write, place.disk->vfs());
      auto check = file ? file->prepare("PRAGMA quick_check(1)") : file.error();
      if (check && check->step() == SQLITE_ROW && check->text(0) == "ok") return false;
    }
    place.disk->replace_file(path);
    return true;
  }

  void start(Place& place) {
    for (int attempt = 0; !place.live; ++attempt) {
      auto live = std::make_unique<Living>();
      live->runtime = world_.make_runtime();
      live->runtime->set_wall_skew(place.clock_off);
      net_.up(place.host, *live->runtime);
      auto kitsune = builder_of(place, *live).build(*live->runtime);
      ASSERT_TRUE(kitsune.has_value()) << kitsune.error().to_string();
      live->kitsune = std::move(*kitsune);
      ASSERT_TRUE(live->kitsune->register_handler(std::make_shared<App>()));
      const auto errors = place.disk->counters().errors;
      testing::Outcome<std::shared_ptr<Space>> outcome;
      live->kitsune->space(kSimSpace, outcome.handler());
      live->space = live->kitsune->space_if_exists(kSimSpace);
      place.live = std::move(live);
      if (place.live->space && place.disk->has_power()) break;
      ASSERT_LT(attempt, 3) << place.name << " does not start";
      const bool is_disk_good = place.disk->has_power() && place.disk->counters().errors == errors;
      crash(place);
      place.disk->faults = {};
      EXPECT_TRUE(!is_disk_good || replaces_damaged_peers(place))
          << place.name << " does not start though its disk is good";
    }
    place.restarted();
    if (pick(2) == 0) place.watch_drained(place.live->space->fetch());
    // What a crash left on disk, reported or not. The store answers in its own time, and so does fetch, which reads on.
    place.live->space->op_store().filter_out_existing_ops(ids_of(ops_),
                                                          [this, &place](const Result<std::vector<OpId>>& lacking) {
                                                            if (lacking) place.looked_up(ids_of(ops_), *lacking);
                                                          });
    for (const auto& agent : place.agents) {
      if (!place.away.contains(agent.id)) join(place, agent);
    }
  }

  static void join(Place& place, const Agent& who) {
    auto agent = testing::make_agent(who.number);
    agent->set_cur_storage_arc(DhtArc::none());
    agent->set_tgt_storage_arc(who.arc);
    place.live->space->local_agent_join(agent, [](const Result<void>& joined) {
      EXPECT_TRUE(joined || joined.error().code == Errc::cancelled) << joined.error().to_string();
    });
  }

  void crash(Place& place) {
    if (place.disk->has_power()) pick(2) == 0 ? place.disk->kill() : place.disk->cut_power();
    if (place.live->stopping && !place.live->stopped) {
      // A node that stops owns itself until it has stopped. So it goes on, but nothing of it gets out any more.
      return net_.block(place.host, true);
    }
    place.live->runtime->crash();
    net_.down(place.host, pick(2) == 0);
    place.live.reset();
    place.disk->power_on();
    place.up_again = world_.now() + std::chrono::milliseconds(pick(20'000));
  }

  /// Everything was said and written. The strand runs on for a moment, in which connections close.
  void end(Place& place) {
    if (place.live->kitsune) {
      place.live->transport.reset();
      place.live->space.reset();
      place.live->kitsune.reset();
      place.live->end_at = world_.now() + 100ms;
      return;
    }
    if (world_.now() < place.live->end_at) return;
    auto live = std::move(place.live);
    live->runtime->crash();
    net_.down(place.host, true);
    live.reset();
    if (place.disk->lost_writes()) place.disk->cut_power();
    place.disk->power_on();
    place.up_again = world_.now() + std::chrono::milliseconds(pick(20'000));
  }

  void after_step() {
    for (auto& place : places_) {
      if (!place->live) continue;
      if (place->live->stopped) {
        end(*place);
      } else if (!place->disk->has_power() && !place->live->stopping) {
        crash(*place);
      }
    }
    if (++steps_ % 61 == 0) check();
  }

  bool nobody_stops() const {
    return std::none_of(places_.begin(), places_.end(), [](const auto& p) { return p->live && p->live->stopping; });
  }
  bool is_up(const Place& place) const { return place.live && !place.live->stopping; }
  std::vector<Place*> up() const {
    std::vector<Place*> out;
    for (const auto& place : places_) {
      if (is_up(*place)) out.push_back(place.get());
    }
    return out;
  }
  Place* anyone() {
    const auto some = up();
    return some.empty() ? nullptr : some[pick(some.size())];
  }

  // ---------------------------------------------------------------------- wants

  /// The host of `place` creates an op and announces it as it should: to those that store it, or some of them, or
  /// nobody.
  void author(Place& place) {
    const auto op = ops_[pick(ops_.size())];
    place.live->space->op_store().process_incoming_ops(
        {op.op_data}, [this, &place, op](const Result<ProcessedOps>& stored) {
          world_.trace(stored ? 1 : 2);
          if (!stored || !is_up(place)) return;
          place.stored(std::vector<OpId>{op.op_id});
          if (pick(3) == 0) return;  // gossip's work
          for (const auto& info : place.live->space->peer_store().get_near_location(op.op_id.loc(), 1 + pick(4))) {
            if (!info->info().url || info->info().url == place.live->space->current_url()) continue;
            place.live->space->publish().publish_ops({op.op_id}, *info->info().url, [](const Result<void>&) {});
          }
        });
  }

  std::vector<OpId> some_ids() {
    std::vector<OpId> out;
    const auto one_in = 1 + pick(3);
    for (const auto& op : ops_) {
      if (pick(one_in) == 0) out.push_back(op.op_id);
    }
    return out;
  }

  void someone_wants_something() override {
    auto* place = anyone();
    if (place == nullptr) return;
    for (auto n = pick(3); n > 0; --n) author(*place);
    if (bad_.empty() || pick(3) != 0) return;
    // A bad peer becomes known by its agent's info, or by announcing ops.
    const auto which = pick(bad_.size());
    const auto url = bad_[which]->url();
    const auto own = place->live->space->current_url();
    if (!url || !own) return;
    if (pick(2) == 0) {
      testing::AgentInfoBuilder builder{.space = kSimSpace, .created_at = place->live->runtime->wall_now(), .url = url};
      place->live->space->peer_store().insert({builder.sign(*testing::make_agent(1'000 + which))});
    } else {
      bad_[which]->offer(*own, some_ids());
    }
  }

  void someone_watches_drained() override {
    if (auto* place = anyone()) place->watch_drained(place->live->space->fetch());
  }

  // -------------------------------------------------------------------- trouble

  void wake_up(bool all) {
    for (auto& each : places_) {
      if (!each->live && !each->gone && (all || world_.now() >= each->up_again)) start(*each);
    }
    if (all ? !relay_.up() : relay_.due()) relay_.start();
  }

  void mischief() override {
    wake_up(false);
    auto& place = *places_[pick(places_.size())];
    const auto host = pick(6) == 0 ? relay_.host() : place.host;
    const auto what = pick(kTroubles + (paths_ ? SimPaths::kTroubles : 0));
    if (what >= kTroubles) return paths_->make_trouble(what - kTroubles);
    switch (what) {
      case 20:
        return time_passes(std::chrono::hours(pick(24 * 12)));
      case 21:
        // Soon the next unit of the DHT model begins, perhaps during a round.
        return time_passes(15min - Duration((wall_now().micros + 2'000'000) % Duration(15min).count()));
      case 0:
        return net_.set_link(host, {std::chrono::milliseconds(pick(400)), pick(2) == 0 ? 0 : 4'000 + pick(200'000)});
      case 1:
        return net_.cut(host);
      case 2:
        return net_.block(host, true);
      case 3:
      case 4:
        for (SimNet::Host h = 0; h <= places_.size(); ++h) net_.block(h, false);
        return;
      case 5:
        return net_.silence(host);
      case 6:
      case 7:
        if (place.live && place.disk->has_power()) crash(place);
        return;
      case 8:
        if (is_up(place)) stop(place);
        return;
      case 9:
        return place.disk->cut_power_after(pick(60));
      case 10:
        if (!relay_.up() || pick(2) == 0) return;
        relay_.crash(pick(2) == 0);
        relay_.stay_down(std::chrono::milliseconds(pick(10'000)));
        return;
      case 11:
        place.disk->faults.write_error = 1 + static_cast<std::uint32_t>(pick(40));
        return;
      case 12:
        place.disk->faults.sync_error = 1 + static_cast<std::uint32_t>(pick(8));
        return;
      case 13:
        place.disk->faults.full = !place.disk->faults.full;
        return;
      case 14:
        place.disk->faults.latency = std::chrono::microseconds(pick(300'000));
        return;
      case 15:
        place.clock_off = pick(2) == 0 ? small_skew() : std::chrono::minutes(pick(600)) - 300min;
        if (place.live) place.live->runtime->set_wall_skew(place.clock_off);
        return;
      case 16:
        return agents_come_and_go(place);
      case 17:
        return block_someone(place);
      case 18:
        if (pick(3) == 0) go_for_good(place);
        return;
      case 19:
        return net_.deafen(host);
    }
  }

  /// For everybody's clocks: who is down was away for so long.
  void time_passes(Duration time) { world_.set_wall_now(wall_now() + time); }
  Timestamp wall_now() const { return clock_->wall_now(); }

  void stop(Place& place) {
    place.live->stopping = true;
    place.live->kitsune->stop([&live = *place.live] { live.stopped = true; });
  }

  void agents_come_and_go(Place& place) {
    if (!is_up(place)) return;
    const auto& agent = place.agents[pick(place.agents.size())];
    if (place.away.erase(agent.id) > 0) return join(place, agent);
    place.away.insert(agent.id);
    place.live->space->local_agent_leave(agent.id, [] {});
  }

  void block_someone(Place& place) {
    if (!is_up(place)) return;
    auto& blocks = place.live->kitsune->blocks();
    if (!place.blocked.empty() && pick(2) == 0) {
      for (const auto& url : std::exchange(place.blocked, {})) blocks.unblock_peer(url);
      return;
    }
    // Preferably a peer from which something is to be fetched.
    const auto pending = place.live->space->fetch().state_summary().pending_requests;
    const auto* other = anyone();
    auto url = other == &place ? std::nullopt : other->live->space->current_url();
    if (!pending.empty()) {
      const auto& sources = std::next(pending.begin(), static_cast<std::ptrdiff_t>(pick(pending.size())))->second;
      url = sources[pick(sources.size())];
    }
    if (!url) return;
    blocks.block_peer(*url, std::nullopt);
    place.blocked.insert(*url);
  }

  void go_for_good(Place& place) {
    const auto left = std::count_if(places_.begin(), places_.end(), [](const auto& p) { return !p->gone; });
    if (left <= 2 || place.gone) return;
    if (place.live && place.disk->has_power()) crash(place);
    place.gone = true;
  }

  void calm() override {
    if (paths_) paths_->calm();
    for (SimNet::Host h = 0; h <= places_.size(); ++h) {
      net_.block(h, false);
      net_.set_link(h, {20ms, 0});
    }
    for (auto& place : places_) {
      place->disk->keep_power();
      place->disk->faults = {};
      place->clock_off = small_skew();
      if (place->live) place->live->runtime->set_wall_skew(place->clock_off);
    }
    EXPECT_TRUE(world_.run_until([this] { return nobody_stops(); }, 5min)) << "somebody does not end";
    wake_up(true);
    for (auto* place : up()) {
      for (const auto& url : place->blocked) place->live->kitsune->blocks().unblock_peer(url);
      for (const auto& agent : place->agents) {
        if (place->away.erase(agent.id) > 0) join(*place, agent);
      }
    }
    world_.run_for(SimNet::kGiveUp);
    EXPECT_TRUE(world_.run_until(
        [this] {
          const auto all = up();
          return std::all_of(all.begin(), all.end(), [](auto* p) { return p->live->space->current_url().has_value(); });
        },
        1min))
        << "somebody does not come back to the relay";
  }

  void each_minute() override {}

  /// What one of the nodes that store an op holds, all of them hold; and all know where the others are.
  bool all_done() override {
    // This is asked after each step, and what it asks for takes seconds.
    if (world_.now() < look_at_) return false;
    look_at_ = world_.now() + 250ms;
    const auto all = up();
    const auto total = all.size() + ops_.size() + all.size() * all.size();
    for (std::size_t n = 0; n < total; ++n) {
      // What was not done the last time is looked at first.
      const auto part = (undone_ + n) % total;
      if (is_done(all, part)) continue;
      undone_ = part;
      return false;
    }
    return true;
  }
  bool is_done(const std::vector<Place*>& all, std::size_t part) {
    if (part < all.size()) return arcs_are_full(*all[part]);
    part -= all.size();
    if (part < ops_.size()) return is_everywhere(all, ops_[part].op_id);
    part -= ops_.size();
    return knows_where(*all[part / all.size()], *all[part % all.size()]);
  }
  static bool is_everywhere(const std::vector<Place*>& all, const OpId& op) {
    const auto has = [&](const Place* p) { return p->covers(op) && p->claimed().contains(op); };
    const auto lacks = [&](const Place* p) { return p->covers(op) && !p->claimed().contains(op); };
    return std::none_of(all.begin(), all.end(), has) || std::none_of(all.begin(), all.end(), lacks);
  }
  static bool knows_where(const Place& place, const Place& other) {
    return std::all_of(other.agents.begin(), other.agents.end(), [&](const auto& agent) {
      const auto info = place.live->space->peer_store().get(agent.id);
      return info && info->info().url == other.live->space->current_url();
    });
  }

  /// Every agent claims all that it wants to store, as far as there is somebody else who stores it too.
  bool arcs_are_full(Place& place) {
    SectorSet others;
    for (const auto* other : up()) {
      for (const auto& agent : other->agents) {
        if (other != &place) others.add(agent.arc);
      }
    }
    const auto agents = place.live->space->local_agent_store().get_all();
    return std::all_of(agents.begin(), agents.end(), [&](const auto& agent) {
      SectorSet target;
      target.add(agent->tgt_storage_arc());
      return !target.is_within(others) || agent->cur_storage_arc() == agent->tgt_storage_arc();
    });
  }

  // --------------------------------------------------------------------- checks

  void check() override {
    for (const auto& place : places_) {
      if (!place->live) continue;
      if (const auto fetch = place->live->fetch.lock()) fetch->check_invariants();
      if (is_up(*place)) check_claims(*place);
    }
    relay_.check_invariants();
  }

  static void check_claims(const Place& place) {
    for (const auto& agent : place.live->space->local_agent_store().get_all()) {
      SectorSet target, storage;
      target.add(agent->tgt_storage_arc());
      storage.add(agent->cur_storage_arc());
      EXPECT_TRUE(storage.is_within(target)) << place.name << " claims more than it wants";
    }
  }

  void check_nothing_forgotten() override {
    for (const auto& place : places_) {
      if (!is_up(*place) || !resumed(*place)) continue;
      place->check_nothing_forgotten(place->live->space->fetch().state_summary());
    }
  }
  /// Whether fetch has read what was pending: the store answers in order, so the answer to our call shows it.
  bool resumed(Place& place) {
    auto done = await<OpStoreStats>(
        world_, [&](auto handler) { place.live->space->op_store().stats(handler); }, 1min);
    return done.has_value() && is_up(place);
  }

  void check_end() override {
    if (ok()) check_no_wait();
    for (const auto* place : up()) {
      auto& store = place->live->space->op_store();
      const auto lacking =
          await<std::vector<OpId>>(world_, [&](auto done) { store.filter_out_existing_ops(ids_of(ops_), done); });
      const auto stats = await<OpStoreStats>(world_, [&](auto done) { store.stats(done); });
      ASSERT_TRUE(lacking && stats);
      EXPECT_EQ(stats->ops, place->claimed().size()) << place->name << " holds what nobody told of";
      for (const auto& id : *lacking) EXPECT_FALSE(place->claimed().contains(id)) << place->name << " lost an op";
    }
  }

  /// Whether the server lists everybody, as far as they have heard.
  bool is_everybody_listed() {
    const auto all = up();
    return std::all_of(all.begin(), all.end(), [](const Place* place) {
      const auto listed = place->live->space->bootstrap().status().listed;
      return listed && listed->has_own;
    });
  }

  /// When all is calm: a node that was away for a moment, or that a publish did not reach, gets what it missed within
  /// seconds.
  void check_no_wait() {
    if (!default_pace_ || !bad_.empty()) return;
    EXPECT_TRUE(world_.run_until([this] { return is_everybody_listed(); }, kMostForgetting)) << describe();
    std::vector<Place*> full;
    for (auto* place : up()) {
      if (std::any_of(place->agents.begin(), place->agents.end(), [](const auto& a) { return a.arc.is_full(); }))
        full.push_back(place);
    }
    if (full.size() < 2) return;
    auto &giver = *full[0], &taker = *full[1];
    // Where a round announces few ops, there are more of them than one round announces.
    const auto limit = config_.k2_gossip.max_gossip_op_bytes;
    const std::size_t op_bytes = limit < kMostOpBytes ? limit / 3 : 64;
    std::vector<OpId> ids;
    const auto arrives = [&] {
      return world_.run_until(
          [&] {
            return std::all_of(ids.begin(), ids.end(), [&](const auto& id) { return taker.claimed().contains(id); });
          },
          kMostWait);
    };
    const auto author = [&](std::uint64_t first, const std::optional<Url>& to) {
      const auto more = some_ops(first, 5, op_bytes);
      ids = ids_of(more);
      ops_.insert(ops_.end(), more.begin(), more.end());
      auto& space = *giver.live->space;
      auto stored = await<ProcessedOps>(
          world_, [&](auto done) { space.op_store().process_incoming_ops(testing::payloads_of(more), done); });
      ASSERT_TRUE(stored);
      giver.stored(ids_of(more));
      if (to) space.publish().publish_ops(ids_of(more), *to, [](const Result<void>&) {});
    };
    // Away, and back.
    crash(taker);
    author(100'000, {});
    world_.run_for(10s);
    start(taker);
    ASSERT_TRUE(taker.live);
    EXPECT_TRUE(arrives()) << "who was away waits for gossip's turn\n" << describe();
    // A publish to its previous url: it has caught up at its new one already, so nothing else makes up for it.
    const auto old_url = taker.live->space->current_url();
    auto rounds = taker.live->space->gossip().stats().completed;
    if (uses_iroh(config_.network.spoken())) {
      // There a node keeps its url when the relay is lost, but not when it starts anew.
      crash(taker);
      start(taker);
      ASSERT_TRUE(taker.live);
      rounds = 0;
    } else {
      net_.cut(taker.host);
    }
    ASSERT_TRUE(world_.run_until(
        [&] {
          const auto url = taker.live->space->current_url();
          return url && url != old_url && taker.live->space->gossip().stats().completed > rounds;
        },
        kMostWait))
        << describe();
    author(200'000, old_url);
    EXPECT_TRUE(arrives()) << "what a publish lost waits for gossip's turn\n" << describe();
  }

  std::string describe() override {
    std::string out = "at " + std::to_string(world_.now().time_since_epoch().count() / 1'000'000) + " s\n";
    for (auto* place : up()) {
      auto& space = *place->live->space;
      const auto url = space.current_url();
      const auto gossip = space.gossip().stats();
      out += (url ? url->to_string() : "offline") + "\n  " + place->describe(space.fetch()) + "  gossip initiated " +
             std::to_string(gossip.initiated) + " accepted " + std::to_string(gossip.accepted) + " completed " +
             std::to_string(gossip.completed) + " too soon " + std::to_string(gossip.too_soon) + " timeouts " +
             std::to_string(gossip.timeouts) + " peer errors " + std::to_string(gossip.peer_errors) + " local errors " +
             std::to_string(gossip.local_errors) + " named " + std::to_string(gossip.ops_named) + " learned " +
             std::to_string(gossip.ops_learned) + "\n  knows";
      for (const auto& info : space.peer_store().get_all()) {
        out += " " + info->info().agent.to_string().substr(0, 6) + "@" +
               (info->info().url ? info->info().url->to_string() : "-");
      }
      const auto coverage = space.gossip().coverage();
      out += "\n  claims " + std::to_string(coverage.storage_sectors) + " of " +
             std::to_string(coverage.target_sectors) + " sectors, in sync " + std::to_string(coverage.in_sync_sectors) +
             "\n  lacks";
      for (const auto& op : ops_) {
        if (place->covers(op.op_id) && !place->claimed().contains(op.op_id)) out += " " + op.op_id.to_string();
      }
      out += "\n";
    }
    return out;
  }

  SimWorld world_;
  SimNet net_;
  std::unique_ptr<SimPaths> paths_;  ///< null: no direct paths
  SimRelay relay_;
  const std::unique_ptr<SimRuntime> clock_;  ///< the right time
  const Timestamp start_;
  const bool large_;
  const bool default_pace_;
  const std::shared_ptr<const OpPolicy> policy_;
  Config config_;
  std::vector<MetaOp> ops_;
  std::vector<std::unique_ptr<Place>> places_;
  std::vector<std::unique_ptr<BadPeer>> bad_;
  std::uint64_t steps_ = 0;
  Time look_at_{};          ///< whether all is done
  std::size_t undone_ = 0;  ///< the part of all_done that was not, the last time
};

}  // namespace

Ran run_node_history(std::uint64_t seed, bool large, Over over) { return NodeHistory(seed, large, over).run(); }

}  // namespace kitsune2::sim
