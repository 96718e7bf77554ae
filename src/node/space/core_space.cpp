// One space: its modules, its local agents and the infos that make them known.
#include "node/space/core_space.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <unordered_set>
#include <utility>

#include "core/callback.hpp"
#include "core/dht/sector_set.hpp"
#include "core/milliseconds.hpp"
#include "node/space/agent_rules.hpp"

namespace kitsune2 {
namespace {

constexpr Duration kLeavePatience = std::chrono::milliseconds(1500);
constexpr Duration kStoreFailureIsRecent = std::chrono::minutes(1);
constexpr Duration kNameAgainAfter = std::chrono::hours(1);
constexpr std::size_t kMostUnservedBy = 1024;    ///< peers that wait for it; others are asked again after a restart
constexpr std::size_t kUrlsRemembered = 20'000;  ///< twice what the peer store holds at its default

/// How often in a run newer infos are signed because others know newer ones of this node's agents.
constexpr unsigned kMostOvertaken = 16;
/// How much newer than an info of an earlier run those of a run are whose clock has not come so far: in each hour from
/// 1 µs to 1 s. *Rationale*: of two runs in a row that know the same info, because a loss of power took what the first
/// one signed, the later signs the newer infos.
Duration offset_of_run(Timestamp now) {
  constexpr std::int64_t kHour = 3'600'000'000;
  const std::int64_t in_hour = ((now.micros % kHour) + kHour) % kHour;
  return Duration(1 + in_hour / 3600);
}

/// A stock node does not gossip at all in a space in which it knows of another arc.
Result<void> check_arc(const DhtArc& arc, const std::string& which) {
  if (arc.is_of_whole_sectors()) return {};
  return make_error(Errc::invalid_argument, "the " + which + " arc " + arc.to_string() +
                                                " does not begin and end where sectors do (multiples of 2^23): use "
                                                "DhtArc::of_sectors");
}

Result<void> check_arcs(const LocalAgent& agent) {
  if (auto ok = check_arc(agent.tgt_storage_arc(), "target"); !ok) return ok;
  return check_arc(agent.cur_storage_arc(), "storage");
}

/// An agent that joins holds what its host says, as far as it wants to hold it.
void keep_within_target(LocalAgent& agent) {
  SectorSet target, current;
  target.add(agent.tgt_storage_arc());
  current.add(agent.cur_storage_arc());
  if (current.is_within(target)) return;
  agent.set_cur_storage_arc(target.is_within(current) ? agent.tgt_storage_arc() : DhtArc::none());
}

}  // namespace

/// The handler that the transport refers to for this space.
class CoreSpace::MessageHandler final : public SpaceMessageHandler {
 public:
  explicit MessageHandler(std::weak_ptr<CoreSpace> space) : space_(std::move(space)) {}
  void new_listening_address(const Url&) override {
    if (auto space = space_.lock()) space->on_new_url();
  }
  Result<void> recv_space_notify(const Url& peer, const SpaceId& id, Bytes data) override {
    auto space = space_.lock();
    if (space && !space->stopping_ && space->handler_) {
      call_application("SpaceHandler::recv_notify", [&] { space->handler_->recv_notify(peer, id, std::move(data)); });
    }
    return {};
  }

 private:
  std::weak_ptr<CoreSpace> space_;
};

/// A latch: runs `done` once, when as many have ended as have begun, or when the time is up.
class CoreSpace::Counter : public std::enable_shared_from_this<CoreSpace::Counter> {
 public:
  Counter(Runtime& runtime, std::function<void()> done) : runtime_(runtime), done_(std::move(done)) {}
  void begin() { ++open_; }
  void end() {
    if (--open_ == 0) finish();
  }
  void limit(Duration patience) {
    timer_ = runtime_.schedule_after(patience, [self = shared_from_this()] {
      self->timer_ = 0;
      self->finish();
    });
  }

 private:
  void finish() {
    runtime_.cancel(timer_);
    timer_ = 0;
    if (auto done = std::exchange(done_, nullptr)) done();
  }
  Runtime& runtime_;
  std::function<void()> done_;
  std::size_t open_ = 0;
  Runtime::TimerId timer_ = 0;
};

CoreSpace::CoreSpace(ModuleContext context, std::shared_ptr<SpaceHandler> handler)
    : context_(std::move(context)), handler_(std::move(handler)) {}

CoreSpace::~CoreSpace() {
  runtime().cancel(check_timer_);
  if (!context_.local_agent_store) return;
  for (const auto& agent : context_.local_agent_store->get_all()) agent->on_changed({});
}

Result<std::shared_ptr<CoreSpace>> CoreSpace::create(const Builder& builder, ModuleContext context,
                                                     std::shared_ptr<SpaceHandler> handler) {
  std::shared_ptr<CoreSpace> space(new CoreSpace(std::move(context), std::move(handler)));
  auto made = space->make_modules(builder);
  if (!made) {
    // A module that has registered itself must not stay registered.
    space->context_.transport->unregister_space(space->id());
    return made.error();
  }
  space->start();
  return space;
}

Result<void> CoreSpace::make_modules(const Builder& builder) {
  const auto make = [this](const char* name, auto& slot, const auto& factory) -> Result<void> {
    const std::string where = "the builder's factory for " + std::string(name);
    auto made = call_for_result(where.c_str(), [&] { return factory(context_); });
    if (!made) return made.error();
    slot = std::move(*made);
    if (!slot) return make_error(Errc::internal, where + " returned nothing");
    return {};
  };
  Result<void> r;
  if (!(r = make("peer_store", context_.peer_store, builder.peer_store))) return r;
  if (!(r = make("bootstrap", context_.bootstrap, builder.bootstrap))) return r;
  context_.bootstrap->on_outdated([weak = weak_from_this()](const AgentId& agent) {
    if (auto self = weak.lock()) self->sign_soon(agent);
  });
  if (!(r = make("local_agent_store", context_.local_agent_store, builder.local_agent_store))) return r;
  if (!(r = make("op_store", context_.op_store, builder.op_store))) return r;
  if (!(r = make("fetch", context_.fetch, builder.fetch))) return r;
  listen_to_fetch();
  tell_use_of_peers();
  if (!(r = make("publish", context_.publish, builder.publish))) return r;
  if (!(r = make("peer_meta_store", context_.peer_meta_store, builder.peer_meta_store))) return r;
  if (!(r = make("gossip", gossip_, builder.gossip))) return r;
  return context_.transport->register_space_handler(id(), std::make_shared<MessageHandler>(weak_from_this()));
}

/// Says whom the peer store keeps when it is full.
void CoreSpace::tell_use_of_peers() {
  context_.peer_store->set_use([locals = context_.local_agent_store, fetch = std::weak_ptr(context_.fetch),
                                budget = context_.budget](const AgentInfo& info) {
    PeerUse out;
    out.is_own = locals->contains(info.agent);
    if (!info.url) return out;
    if (budget) {
      out.usefulness = budget->usefulness(*info.url);
      out.address_group = budget->address_group(*info.url);
    }
    if (const auto module = fetch.lock()) {
      // A peer that announces ops may be a source; one that has sent something is a source.
      const FetchLoad load = module->load(*info.url);
      out.in_use = load.source_pairs > 0 && load.source_received_bytes > 0;
    }
    return out;
  });
}

void CoreSpace::listen_to_fetch() {
  context_.fetch->set_offer_filter([handler = handler_, space = id()](const Url& peer) {
    return !handler || call_application("SpaceHandler::accept_offered_ops",
                                        [&] { return handler->accept_offered_ops(peer, space); });
  });
  FetchEvents own;
  own.ops_stored = [report = context_.report, space = id()](const Url& peer, const std::vector<StoredOp>& ops,
                                                            std::uint64_t bytes) {
    report->fetched(space, peer, ops.size(), bytes);
  };
  own.peer_given_up = [report = context_.report, weak = weak_from_this(), space = id()](const Url& peer,
                                                                                        const std::vector<OpId>&) {
    report->failed(space, peer);
    if (auto self = weak.lock(); self && self->gossip_) self->gossip_->inform_requests_dropped(peer);
  };
  own.ops_unserved = [weak = weak_from_this()](const Url& peer, const std::vector<OpId>&,
                                               const std::vector<OpId>& orphaned) {
    if (auto self = weak.lock(); self && !orphaned.empty()) self->name_again_later(peer);
  };
  own.ops_served = [report = context_.report, space = id()](const Url& peer, std::uint64_t ops, std::uint64_t bytes) {
    report->served(space, peer, ops, bytes);
  };
  own.store_failed = [weak = weak_from_this()](const Error& error) {
    if (auto self = weak.lock()) self->store_failure_.emplace(self->runtime().now(), error);
  };
  fetch_subscription_ = context_.fetch->subscribe(std::move(own));
}

/// Fetch has given up an op that `peer` announced and nobody else is known to hold: gossip asks it to announce its ops
/// again. Not at once, since it may never be able to send that op, and announces all of them.
void CoreSpace::name_again_later(const Url& peer) {
  if (unserved_by_.size() >= kMostUnservedBy || !unserved_by_.insert(peer).second) return;
  runtime().schedule_after(kNameAgainAfter, [weak = weak_from_this(), peer] {
    auto self = weak.lock();
    if (!self || self->stopping_) return;
    self->unserved_by_.erase(peer);
    self->gossip_->inform_requests_dropped(peer);
  });
}

void CoreSpace::start() {
  // Calls back at once, which starts the timer.
  subscription_ = context_.config->on_update("coreSpace", [weak = weak_from_this()](const Config&) {
    if (auto self = weak.lock()) self->schedule_check();
  });
  follow_peers();
}

void CoreSpace::follow_peers() {
  prune_urls_at_ = kUrlsRemembered;
  for (const auto& info : context_.peer_store->get_all()) on_peer_seen(info);
  peer_subscription_ = context_.peer_store->on_update([weak = weak_from_this()](const AgentInfoPtr& info) {
    if (auto self = weak.lock()) self->on_peer_seen(info);
  });
}

/// A peer whose url has changed is asked at the new one, once nobody is known at the old one any more: a node may have
/// several agents, and their infos arrive one by one. But not if another agent is known there that has not moved too:
/// an info does not prove that its url is the agent's.
void CoreSpace::on_peer_seen(const AgentInfoPtr& info) {
  const AgentInfo& agent = info->info();
  if (stopping_ || !agent.url) return;
  sign_again_if_overtaken(agent);
  if (known_urls_.on_info(*agent.url, runtime().now())) {
    stranger_polls_.on_known(*agent.url);
    context_.transport->on_peer_known(id(), *agent.url);
  }
  const auto [it, is_new] = last_urls_.try_emplace(agent.agent, Whereabouts{*agent.url, {}});
  if (is_new) {
    if (last_urls_.size() < prune_urls_at_) return;
    std::erase_if(last_urls_, [this](const auto& entry) { return !context_.peer_store->get(entry.first); });
    prune_urls_at_ = std::max(kUrlsRemembered, 2 * last_urls_.size());
    return;
  }
  if (it->second.now == *agent.url) return;
  const Url old_url = std::exchange(it->second.now, *agent.url);
  it->second.before = old_url;
  // An info does not prove its url. An agent that claims another's url and then a third one takes nothing along; and by
  // claiming another's url it does not make that node be asked for what it has offered itself.
  if (context_.peer_store->is_at_url(old_url)) return;
  for (const auto& other : context_.peer_store->get_by_url(*agent.url)) {
    const auto found = last_urls_.find(other->info().agent);
    if (found == last_urls_.end() || found->second.before != old_url) return;
  }
  context_.fetch->replace_source(old_url, *agent.url);
  gossip_->peer_moved(old_url, *agent.url);
}

bool CoreSpace::is_known(const Url& url) const {
  // Asked for each message, therefore the dearer question comes second.
  return known_urls_.is_known(url, runtime().now()) || context_.peer_store->is_at_url(url);
}

void CoreSpace::on_stranger(const Url& peer) {
  if (!stopping_ && stranger_polls_.ask_for(peer, runtime().now())) context_.bootstrap->poll_now();
}

std::optional<Url> CoreSpace::current_url() const {
  assert_on_strand(runtime(), "Space::current_url");
  return context_.transport->url();
}

std::optional<TransportFailure> CoreSpace::transport_failure() const { return context_.transport->failure(); }

// ---------------------------------------------------------------- local agents

void CoreSpace::local_agent_join_with_arc(std::shared_ptr<LocalAgent> agent, DhtArc arc, Handler<> done) {
  assert_on_strand(runtime(), "Space::local_agent_join_with_arc");
  if (agent) agent->set_tgt_storage_arc(arc);
  join(std::move(agent), std::move(done));
}

void CoreSpace::local_agent_join(std::shared_ptr<LocalAgent> agent, Handler<> done) {
  assert_on_strand(runtime(), "Space::local_agent_join");
  if (agent && !warned_of_empty_arc_ && agent->tgt_storage_arc().empty()) {
    warned_of_empty_arc_ = true;
    // Anyone who knows a space's id can join it, and logs are passed around, so they show only the beginning of the id.
    log::warn("space",
              "agent " + agent->agent().to_string() + " joins space " + id().to_string().substr(0, 8) + "…" +
                  " with an empty target arc: gossip will bring it no ops; call "
                  "set_tgt_storage_arc(DhtArc::full()) before it joins, or local_agent_join_with_arc if this is "
                  "intended");
  }
  join(std::move(agent), std::move(done));
}

void CoreSpace::join(std::shared_ptr<LocalAgent> agent, Handler<> done) {
  Result<void> outcome;
  if (stopping_) {
    outcome = make_error(Errc::cancelled, "the space is stopped");
  } else if (!agent) {
    outcome = make_error(Errc::invalid_argument, "no agent");
  } else {
    outcome = check_arcs(*agent);
  }
  if (outcome) {
    const AgentId agent_id = agent->agent();
    agent->on_changed({});
    keep_within_target(*agent);
    context_.local_agent_store->add(agent);
    outcome = sign_and_spread(agent);
    if (outcome) {
      agent->on_changed([weak = weak_from_this(), agent_id] {
        if (auto self = weak.lock()) self->sign_soon(agent_id);
      });
    } else {
      context_.local_agent_store->remove(agent_id);
    }
  }
  if (!done) return;
  runtime().post([done = std::move(done), outcome = std::move(outcome)] { done(outcome); });
}

void CoreSpace::local_agent_leave(const AgentId& agent_id, std::function<void()> done) {
  assert_on_strand(runtime(), "Space::local_agent_leave");
  if (!done) done = [] {};
  const auto agent = context_.local_agent_store->remove(agent_id);
  if (!agent) return runtime().post(std::move(done));
  agent->on_changed({});
  // It may come back, and will have missed something then.
  agent->set_cur_storage_arc(DhtArc::none());
  auto info = sign(*agent, true);
  if (!info) {
    log::warn("space", "cannot sign a tombstone: " + info.error().to_string());
    return runtime().post(std::move(done));
  }
  context_.peer_store->insert({*info});
  context_.bootstrap->put(*info);
  broadcast(*info, std::move(done));
}

void CoreSpace::sign_soon(const AgentId& agent_id) {
  // Several changes at once make one info.
  if (stopping_ || !to_sign_.emplace(agent_id, true).second) return;
  runtime().post([weak = weak_from_this(), agent_id] {
    auto self = weak.lock();
    if (!self) return;
    self->to_sign_.erase(agent_id);
    if (self->stopping_) return;
    for (const auto& agent : self->context_.local_agent_store->get_all()) {
      if (agent->agent() != agent_id) continue;
      if (auto spread = self->sign_and_spread(agent); !spread)
        log::warn("space", "cannot sign an agent info: " + spread.error().to_string());
    }
  });
}

Result<AgentInfoPtr> CoreSpace::sign(LocalAgent& agent, bool tombstone) {
  AgentInfo info;
  info.agent = agent.agent();
  info.space = id();
  info.created_at = runtime().wall_now();
  // The newest created_at wins everywhere: two infos of one instant, or a clock set back a little, must not make the
  // later info lose. A clock set back by more is believed. The store knows what an earlier run signed.
  std::optional<Timestamp> last;
  if (const auto it = signed_at_.find(info.agent); it != signed_at_.end()) last = it->second + Duration(1);
  if (const auto held = context_.peer_store->get(info.agent);
      held && held->info().created_at >= last.value_or(Timestamp::min()))
    last = held->info().created_at + offset_of_run(info.created_at);
  if (last && *last > info.created_at && *last <= info.created_at + kMaxClockSkew) info.created_at = *last;
  info.expires_at = info.created_at + kInfoLifetime;
  info.is_tombstone = tombstone;
  if (!tombstone) {
    info.url = current_url();
    info.storage_arc = agent.cur_storage_arc();
    if (auto ok = check_arc(info.storage_arc, "storage"); !ok) return ok.error();
  }
  auto out = call_for_result("LocalAgent::sign", [&] { return AgentInfoSigned::sign(agent, info); });
  if (out) signed_at_[info.agent] = info.created_at;
  return out;
}

/// Somebody knows a newer info of an agent of this node than it has signed itself: its clock was set back, and its
/// record of what it signed is lost. Nobody would take its infos until its clock has come so far. Another node with the
/// same key does that, too, again and again: the two must not take turns for ever.
void CoreSpace::sign_again_if_overtaken(const AgentInfo& info) {
  const auto own = signed_at_.find(info.agent);
  if (own == signed_at_.end() || info.created_at <= own->second || overtaken_ >= kMostOvertaken) return;
  ++overtaken_;
  log::info("space", "another info of agent " + info.agent.to_string() +
                         " is newer than that of this node; signing a newer one");
  sign_soon(info.agent);
}

Result<void> CoreSpace::sign_and_spread(const std::shared_ptr<LocalAgent>& agent) {
  if (!current_url()) {
    log::debug("space", "no url yet; the agent info will be sent when there is one");
    return {};
  }
  auto info = sign(*agent, false);
  if (!info) return info.error();
  context_.peer_store->insert({*info});
  context_.bootstrap->put(*info);
  broadcast(*info, {});
  return {};
}

void CoreSpace::broadcast(const AgentInfoPtr& info, std::function<void()> done) {
  std::unordered_set<AgentId> locals;
  for (const auto& agent : context_.local_agent_store->get_all()) locals.insert(agent->agent());
  const auto own_url = current_url();
  std::set<Url> targets;
  for (const auto& peer : context_.peer_store->get_all()) {
    const auto& url = peer->info().url;
    if (url && url != own_url && !locals.contains(peer->info().agent)) targets.insert(*url);
  }
  if (!done) {
    for (const Url& url : targets) context_.publish->publish_agent(info, url, {});
    return;
  }
  const auto counter = std::make_shared<Counter>(runtime(), std::move(done));
  counter->begin();
  for (const Url& url : targets) {
    counter->begin();
    context_.publish->publish_agent(info, url, [counter](const Result<void>&) { counter->end(); });
  }
  counter->limit(kLeavePatience);
  runtime().post([counter] { counter->end(); });
}

void CoreSpace::on_new_url() {
  if (stopping_) return;
  for (const auto& agent : context_.local_agent_store->get_all()) sign_soon(agent->agent());
  // The relay was lost or is new: others may have moved too.
  context_.bootstrap->poll_now();
}

void CoreSpace::schedule_check() {
  runtime().cancel(check_timer_);
  if (stopping_) return;
  check_timer_ = runtime().schedule_after(from_ms(config().re_sign_freq_ms), [weak = weak_from_this()] {
    if (auto self = weak.lock()) {
      self->check_infos();
      self->schedule_check();
    }
  });
}

void CoreSpace::check_infos() {
  const Timestamp now = runtime().wall_now();
  const Timestamp cutoff = now + from_ms(config().re_sign_expire_time_ms);
  for (const auto& agent : context_.local_agent_store->get_all()) {
    const auto info = context_.peer_store->get(agent->agent());
    // From the future: the clock was set back. Nobody accepts that info, however long it is valid.
    if (!info || info->info().expires_at <= cutoff || info->info().created_at > now + kMaxClockSkew)
      sign_soon(agent->agent());
  }
}

// ---------------------------------------------------------------- the rest

void CoreSpace::send_notify(const Url& to, Bytes data, Handler<> done) {
  assert_on_strand(runtime(), "Space::send_notify");
  if (!done) done = [](const Result<void>&) {};
  if (stopping_) {
    return runtime().post([done = std::move(done)] { done(make_error(Errc::cancelled, "the space is stopped")); });
  }
  context_.transport->send_space_notify(to, id(), std::move(data), std::move(done));
}

std::optional<Error> CoreSpace::recent_store_failure() const {
  assert_on_strand(runtime(), "Space::recent_store_failure");
  if (!store_failure_ || runtime().now() - store_failure_->first > kStoreFailureIsRecent) return std::nullopt;
  return store_failure_->second;
}

void CoreSpace::on_source_blocked(const Url& url) {
  if (stopping_) return;
  gossip_->inform_requests_dropped(url);
  context_.fetch->remove_source(url);
}

void CoreSpace::stop(std::function<void()> done) {
  assert_on_strand(runtime(), "Space::stop");
  on_stopped_.push_back(std::move(done));
  if (stopped_) return runtime().post([self = shared_from_this()] { self->close(); });
  if (stopping_) return;
  stopping_ = true;
  runtime().cancel(check_timer_);
  check_timer_ = 0;
  subscription_.reset();
  peer_subscription_.reset();
  gossip_->stop();

  // Each step begins when the one before has ended; this object lives until the last.
  auto self = shared_from_this();
  const auto left = std::make_shared<Counter>(runtime(), [self] {
    self->context_.publish->stop();
    self->context_.bootstrap->stop([self] {
      self->context_.fetch->stop([self] {
        self->context_.transport->unregister_space(self->id());
        self->stopped_ = true;
        self->close();
      });
    });
  });
  left->begin();
  for (const auto& agent : context_.local_agent_store->get_all()) {
    left->begin();
    local_agent_leave(agent->agent(), [left] { left->end(); });
  }
  runtime().post([left] { left->end(); });
}

void CoreSpace::close() {
  for (const auto& callback : std::exchange(on_stopped_, {})) {
    if (callback) callback();
  }
}

}  // namespace kitsune2
