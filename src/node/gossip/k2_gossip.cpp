#include "node/gossip/k2_gossip.hpp"

#include <algorithm>
#include <limits>
#include <unordered_set>
#include <utility>

#include "node/space/agent_rules.hpp"

namespace kitsune2 {
namespace {

constexpr std::string_view kArea = "gossip";
constexpr std::size_t kSessionBytes = 12;
/// Agents of one message that are looked at, declared, asked for or given.
constexpr std::size_t kMaxAgents = 1024;
/// Ids in one message: 8 MiB of 32-byte ids.
constexpr std::size_t kMaxNewOps = 250'000;
constexpr Duration kRushStart = std::chrono::milliseconds(10);
/// After a round that could not be started: soon another peer, but not in a tight loop.
constexpr Duration kAfterFailure = std::chrono::milliseconds(100);

Duration ms(std::uint32_t count) { return std::chrono::milliseconds(count); }

std::vector<Bytes> as_ids(const std::vector<AgentId>& agents) {
  std::vector<Bytes> out;
  out.reserve(agents.size());
  for (const AgentId& agent : agents) out.push_back(agent.bytes());
  return out;
}

}  // namespace

/// What the transport holds.
class K2Gossip::Receiver final : public ModuleMessageHandler {
 public:
  explicit Receiver(std::weak_ptr<K2Gossip> owner) : owner_(std::move(owner)) {}
  Result<void> recv_module_msg(const Url& peer, const SpaceId&, Bytes data) override {
    auto owner = owner_.lock();
    return owner ? owner->received(peer, data) : Result<void>();
  }
  void peer_disconnect(const Url& peer, const std::optional<std::string>&) override {
    if (auto owner = owner_.lock()) owner->disconnected(peer);
  }

 private:
  std::weak_ptr<K2Gossip> owner_;
};

K2Gossip::K2Gossip(const ModuleContext& context)
    : context_(context), meta_(*context.runtime, context.peer_meta_store) {}

K2Gossip::~K2Gossip() {
  runtime().cancel(initiate_timer_);
  if (initiated_) runtime().cancel(initiated_->timeout);
  for (const auto& [peer, round] : accepted_) runtime().cancel(round.timeout);
}

Result<void> K2Gossip::start() {
  auto registered = context_.transport->register_module_handler(context_.space, kGossipModule,
                                                                std::make_shared<Receiver>(weak_from_this()));
  if (!registered) return registered;
  // What peers named in an earlier life is held or pending, but for requests that are not kept.
  if (!context_.config->current().core_fetch.persist_pending || !context_.op_store->is_durable()) {
    meta_.forget_bookmarks();
  }
  // Calls at once, which starts the timer.
  subscription_ = context_.config->on_update("k2Gossip", [weak = weak_from_this()](const Config&) {
    if (auto self = weak.lock()) self->schedule_initiate();
  });
  return {};
}

void K2Gossip::inform_ops_stored(std::vector<StoredOp> ops) {
  assert_on_strand(runtime(), "Gossip::inform_ops_stored");
  // Nothing to keep: new ops are read from the store, by the time they were stored.
  static_cast<void>(ops);
}

void K2Gossip::inform_requests_dropped(const Url& peer) {
  assert_on_strand(runtime(), "Gossip::inform_requests_dropped");
  if (stopped_) return;
  meta_.forget_bookmark(peer);
  for (const auto& [url, holds] : bookmarks_in_use_) {
    if (const auto flag = holds.lock(); flag && url == peer) *flag = false;
  }
}

void K2Gossip::stop() {
  assert_on_strand(runtime(), "Gossip::stop");
  stopped_ = true;
  subscription_.reset();
  runtime().cancel(initiate_timer_);
  initiate_timer_ = 0;
  if (initiated_) end_initiated();
  while (!accepted_.empty()) end_accepted(Url(accepted_.begin()->first));
}

Result<void> K2Gossip::received(const Url& peer, const Bytes& data) {
  if (stopped_) return {};
  auto message = wire::decode_gossip(data);
  if (!message) return message.error();
  std::visit([&](const auto& m) { on(peer, m); }, *message);
  return {};
}

void K2Gossip::disconnected(const Url& peer) {
  if (stopped_) return;
  end_accepted(peer);
  if (initiated_ && initiated_->peer == peer) {
    end_initiated();
    schedule_initiate(kAfterFailure);
  }
}

// ---------------------------------------------------------------- rounds that others start

void K2Gossip::on(const Url& peer, const wire::GossipInitiate& m) {
  if (m.session_id.size() > 64) return peer_error(peer, "a session id of more than 64 bytes");
  bool tie_lost = false;
  if (initiated_ && initiated_->peer == peer) {
    // Both started at once: the larger number wins, its owner's message counts.
    if (initiated_->stage != Stage::initiated) return peer_error(peer, "initiate during a round");
    if (initiated_->tie_breaker > m.tie_breaker) return;
    end_initiated();
    schedule_initiate();
    tie_lost = true;
  }
  const Timestamp now = runtime().wall_now();
  if (!tie_lost) {
    const auto last = meta_.last_round(peer);
    if (last && now - *last < ms(config().min_initiate_interval_ms)) {
      stats_.too_soon += 1;
      return peer_error(peer, "initiate too soon");
    }
  }
  if (accepted_.contains(peer)) return peer_error(peer, "initiate during a round");
  if (config().max_concurrent_accepted_rounds != 0 && accepted_.size() >= config().max_concurrent_accepted_rounds) {
    stats_.busy_sent += 1;
    return send(peer, wire::GossipBusy{m.session_id});
  }
  meta_.set_last_gossip(peer, now);
  meta_.set_last_round(peer, now);

  Round& round = accepted_[peer];
  round.stage = Stage::accepting;
  round.peer = peer;
  round.session = m.session_id.compact();
  round.our_agents = local_agents(round.our_sectors);
  round.bookmark_holds = watch_bookmark(round.peer);
  arm_timeout(round);
  stats_.accepted += 1;

  round.common = round.our_sectors.common(ArcSectors(m.arc_set));
  const std::uint32_t limit = std::min(config().max_request_gossip_op_bytes, m.max_op_data_bytes);
  new_ops(round.common, m.new_since, limit,
          [weak = weak_from_this(), peer, session = round.session,
           missing = unknown_agents(m.participating_agents)](const NewOps& ours) {
            if (auto self = weak.lock()) self->accept(peer, session, ours, missing);
          });
}

void K2Gossip::accept(const Url& peer, const Bytes& session, const NewOps& ours, std::vector<Bytes> missing) {
  Round* round = accepted_from(peer, session);
  if (stopped_ || round == nullptr || round->stage != Stage::accepting) return;
  round->stage = Stage::accepted;
  wire::GossipAccept m;
  m.session_id = session;
  m.participating_agents = as_ids(round->our_agents);
  m.arc_set = round->our_sectors.words();
  m.missing_agents = std::move(missing);
  m.new_since = round->asked_since = since(bookmark_for(peer, round->common));
  m.max_op_data_bytes = config().max_gossip_op_bytes;
  m.new_ops = ours.ids;
  m.updated_new_since = ours.next;
  stats_.ops_named += ours.ids.size();
  send(peer, m, [weak = weak_from_this(), peer, session](const Result<void>& sent) {
    auto self = weak.lock();
    if (self && !sent && self->accepted_from(peer, session) != nullptr) self->end_accepted(peer);
  });
}

void K2Gossip::on(const Url& peer, const wire::GossipNoDiff& m) {
  Round* round = accepted_from(peer, m.session_id);
  if (round == nullptr || round->stage != Stage::accepted) return peer_error(peer, "unsolicited NO_DIFF");
  if (!declared(*round, m.accept_response.missing_agents)) {
    end_accepted(peer);
    return peer_error(peer, "asks for agents that we did not declare");
  }
  const Bytes session = round->session;
  const Named named{round->asked_since, m.accept_response.updated_new_since, round->common};
  auto holds = std::move(round->bookmark_holds);
  end_accepted(peer);
  take_agents(peer, m.accept_response.provided_agents);
  take_ops(peer, m.accept_response.new_ops, named, std::move(holds));
  // The initiator waits for one of these two; without it its only slot stays blocked until the round times out.
  auto infos = infos_of(m.accept_response.missing_agents);
  if (infos.empty()) {
    send(peer, wire::GossipTerminate{session, Bytes::copy_of("No agents requested")});
  } else {
    stats_.agents_given += infos.size();
    send(peer, wire::GossipAgents{session, std::move(infos)});
  }
  completed(peer);
}

void K2Gossip::cannot_compare(const Url& peer, const Bytes& session) {
  const bool ours = initiated_with(peer, session) != nullptr;
  const bool theirs = accepted_from(peer, session) != nullptr;
  if (!ours && !theirs) return peer_error(peer, "a message of no round");
  if (ours) {
    end_initiated();
    schedule_initiate();
  }
  if (theirs) end_accepted(peer);
  send(peer, wire::GossipTerminate{session, Bytes::copy_of("DHT comparison is not supported")});
}

// ---------------------------------------------------------------- rounds that we start

void K2Gossip::schedule_initiate(std::optional<Duration> wait) {
  runtime().cancel(initiate_timer_);
  initiate_timer_ = 0;
  if (stopped_) return;
  if (!wait) {
    if (rush_) {
      rush_wait_ = rush_wait_ == Duration::zero() ? kRushStart : rush_wait_ * 6 / 5;
      rush_wait_ = std::min(rush_wait_, ms(config().initial_initiate_interval_ms));
      wait = rush_wait_;
    } else {
      const std::uint32_t jitter = config().initiate_jitter_ms;
      wait = ms(config().initiate_interval_ms) + ms(jitter == 0 ? 0 : random_u32() % jitter);
    }
  }
  initiate_timer_ = runtime().schedule_after(*wait, [weak = weak_from_this()] {
    if (auto self = weak.lock()) {
      self->initiate_timer_ = 0;
      self->initiate();
    }
  });
}

void K2Gossip::initiate() {
  if (initiated_) return schedule_initiate();
  const auto target = select_target();
  if (!target) return schedule_initiate();

  Round& round = initiated_.emplace();
  round.peer = *target;
  std::vector<std::uint8_t> session(kSessionBytes);
  runtime().random_bytes(session);
  round.session = Bytes(std::move(session));
  round.tie_breaker = std::max<std::uint32_t>(random_u32(), 1);
  round.our_agents = local_agents(round.our_sectors);
  round.bookmark_holds = watch_bookmark(round.peer);
  arm_timeout(round);
  // Also if it fails: the next choice is another peer.
  meta_.set_last_gossip(*target, runtime().wall_now());
  rush_ = false;
  stats_.initiated += 1;

  wire::GossipInitiate m;
  m.session_id = round.session;
  m.participating_agents = as_ids(round.our_agents);
  m.arc_set = round.our_sectors.words();
  m.tie_breaker = round.tie_breaker;
  m.new_since = round.asked_since = since(meta_.bookmark(*target));
  m.max_op_data_bytes = config().max_gossip_op_bytes;
  schedule_initiate();
  send(*target, m, [weak = weak_from_this(), peer = *target, id = round.session](const Result<void>& sent) {
    auto self = weak.lock();
    if (!self || sent || self->stopped_ || self->initiated_with(peer, id) == nullptr) return;
    self->end_initiated();
    self->schedule_initiate(kAfterFailure);
  });
}

std::optional<Url> K2Gossip::select_target() {
  const auto locals = context_.local_agent_store->get_all();
  if (locals.empty()) return std::nullopt;
  std::unordered_set<AgentId> local_ids;
  for (const auto& agent : locals) local_ids.insert(agent->agent());
  const auto own_url = context_.transport->url();
  const Timestamp now = runtime().wall_now();

  // Who may be asked now: peers never gossiped with, and the one that has waited longest.
  struct Choice {
    std::vector<Url> fresh;
    std::optional<std::pair<Timestamp, Url>> oldest;
    std::optional<Url> pick(std::uint32_t random) const {
      if (!fresh.empty()) return fresh[random % fresh.size()];
      if (oldest) return oldest->second;
      return std::nullopt;
    }
  };
  const auto choose = [&](const std::vector<AgentInfoPtr>& infos) {
    Choice out;
    std::unordered_set<Url> seen;
    for (const auto& info : infos) {
      const auto& url = info->info().url;
      if (local_ids.contains(info->info().agent) || !url || url == own_url || !seen.insert(*url).second) continue;
      if (accepted_.contains(*url) || context_.blocks->is_peer_blocked(*url)) continue;
      const auto last = meta_.last_gossip(*url);
      if (!last) {
        out.fresh.push_back(*url);
      } else if (now - *last >= ms(config().min_initiate_interval_ms) && (!out.oldest || *last < out.oldest->first)) {
        out.oldest.emplace(*last, *url);
      }
    }
    return out;
  };

  // Those who store what we want to store come first.
  std::vector<AgentInfoPtr> overlapping;
  std::vector<DhtArc> asked;
  for (const auto& agent : locals) {
    const DhtArc arc = agent->tgt_storage_arc();
    if (arc.empty() || std::find(asked.begin(), asked.end(), arc) != asked.end()) continue;
    asked.push_back(arc);
    const auto found = context_.peer_store->get_by_overlapping_storage_arc(arc);
    overlapping.insert(overlapping.end(), found.begin(), found.end());
  }
  if (auto url = choose(overlapping).pick(random_u32())) return url;
  return choose(context_.peer_store->get_all()).pick(random_u32());
}

void K2Gossip::on(const Url& peer, const wire::GossipAccept& m) {
  Round* round = initiated_with(peer, m.session_id);
  if (round == nullptr || round->stage != Stage::initiated) return peer_error(peer, "unsolicited ACCEPT");
  if (!declared(*round, m.missing_agents)) {
    end_initiated();
    return peer_error(peer, "asks for agents that we did not declare");
  }
  round->stage = Stage::no_diff;
  meta_.set_last_round(peer, runtime().wall_now());
  round->common = round->our_sectors.common(ArcSectors(m.arc_set));
  take_ops(peer, m.new_ops, {round->asked_since, m.updated_new_since, round->common}, round->bookmark_holds);

  wire::GossipNoDiff answer;
  answer.session_id = round->session;
  answer.accept_response.missing_agents = unknown_agents(m.participating_agents);
  answer.accept_response.provided_agents = infos_of(m.missing_agents);
  // With a snapshot the peer wanted to compare, and we have nothing to compare with.
  answer.cannot_compare = m.snapshot.has_value();
  const std::uint32_t limit = std::min(config().max_request_gossip_op_bytes, m.max_op_data_bytes);
  new_ops(round->common, m.new_since, limit,
          [weak = weak_from_this(), peer, session = round->session, answer = std::move(answer)](NewOps ours) mutable {
            auto self = weak.lock();
            if (!self) return;
            answer.accept_response.new_ops = std::move(ours.ids);
            answer.accept_response.updated_new_since = ours.next;
            self->answer_accept(peer, session, std::move(answer));
          });
}

void K2Gossip::answer_accept(const Url& peer, const Bytes& session, wire::GossipNoDiff answer) {
  if (stopped_ || initiated_with(peer, session) == nullptr) return;
  stats_.ops_named += answer.accept_response.new_ops.size();
  stats_.agents_given += answer.accept_response.provided_agents.size();
  send(peer, answer, [weak = weak_from_this(), peer, session](const Result<void>& sent) {
    auto self = weak.lock();
    if (!self || sent || self->stopped_ || self->initiated_with(peer, session) == nullptr) return;
    self->end_initiated();
  });
}

void K2Gossip::on(const Url& peer, const wire::GossipAgents& m) {
  const Round* round = initiated_with(peer, m.session_id);
  if (round == nullptr || round->stage != Stage::no_diff) return peer_error(peer, "unsolicited AGENTS");
  end_initiated();
  take_agents(peer, m.provided_agents);
  completed(peer);
}

void K2Gossip::on(const Url& peer, const wire::GossipBusy& m) {
  const Round* round = initiated_with(peer, m.session_id);
  if (round == nullptr || round->stage != Stage::initiated) return peer_error(peer, "unsolicited BUSY");
  end_initiated();
  stats_.busy_received += 1;
  meta_.count(peer, GossipPeerMeta::kBusy);
  meta_.set_last_gossip(peer, runtime().wall_now());
}

void K2Gossip::on(const Url& peer, const wire::GossipTerminate& m) {
  if (const Round* round = initiated_with(peer, m.session_id)) {
    // At this stage it is the normal end of a round.
    const bool normal = round->stage == Stage::no_diff;
    end_initiated();
    meta_.count(peer, GossipPeerMeta::kTerminated);
    if (normal) completed(peer);
    return;
  }
  if (accepted_from(peer, m.session_id) != nullptr) {
    end_accepted(peer);
    meta_.count(peer, GossipPeerMeta::kTerminated);
    return;
  }
  peer_error(peer, "unsolicited TERMINATE");
}

// ---------------------------------------------------------------- rounds

K2Gossip::Round* K2Gossip::initiated_with(const Url& peer, const Bytes& session) {
  return initiated_ && initiated_->peer == peer && initiated_->session == session ? &*initiated_ : nullptr;
}

K2Gossip::Round* K2Gossip::accepted_from(const Url& peer, const Bytes& session) {
  const auto it = accepted_.find(peer);
  return it != accepted_.end() && it->second.session == session ? &it->second : nullptr;
}

void K2Gossip::arm_timeout(Round& round) {
  round.timeout = runtime().schedule_after(ms(config().round_timeout_ms),
                                           [weak = weak_from_this(), peer = round.peer, session = round.session] {
                                             if (auto self = weak.lock()) self->timed_out(peer, session);
                                           });
}

void K2Gossip::timed_out(const Url& peer, const Bytes& session) {
  if (const Round* round = initiated_with(peer, session)) {
    const bool unanswered = round->stage == Stage::initiated;
    end_initiated();
    stats_.timeouts += 1;
    meta_.count(peer, GossipPeerMeta::kTimeouts);
    // A peer that is gone must not cost a whole interval.
    if (unanswered) schedule_initiate(Duration::zero());
  } else if (accepted_from(peer, session) != nullptr) {
    end_accepted(peer);
    stats_.timeouts += 1;
    meta_.count(peer, GossipPeerMeta::kTimeouts);
  }
}

void K2Gossip::end_initiated() {
  runtime().cancel(initiated_->timeout);
  initiated_.reset();
}

void K2Gossip::end_accepted(const Url& peer) {
  const auto it = accepted_.find(peer);
  if (it == accepted_.end()) return;
  runtime().cancel(it->second.timeout);
  accepted_.erase(it);
}

void K2Gossip::completed(const Url& peer) {
  stats_.completed += 1;
  meta_.count(peer, GossipPeerMeta::kCompletedRounds);
}

// ---------------------------------------------------------------- pieces

std::vector<AgentId> K2Gossip::local_agents(ArcSectors& sectors) const {
  std::vector<AgentId> out;
  for (const auto& agent : context_.local_agent_store->get_all()) {
    sectors.add(agent->tgt_storage_arc());
    if (out.size() < kMaxAgents) out.push_back(agent->agent());
  }
  return out;
}

std::vector<Bytes> K2Gossip::unknown_agents(const std::vector<Bytes>& agents) const {
  std::vector<Bytes> out;
  for (std::size_t i = 0; i < agents.size() && i < kMaxAgents; ++i) {
    if (!context_.peer_store->get(AgentId(agents[i]))) out.push_back(agents[i]);
  }
  return out;
}

std::vector<Bytes> K2Gossip::infos_of(const std::vector<Bytes>& agents) const {
  std::vector<Bytes> out;
  for (std::size_t i = 0; i < agents.size() && i < kMaxAgents; ++i) {
    if (const auto info = context_.peer_store->get(AgentId(agents[i]))) out.push_back(Bytes::copy_of(info->encode()));
  }
  return out;
}

bool K2Gossip::declared(const Round& round, const std::vector<Bytes>& agents) const {
  const std::unordered_set<AgentId> ours(round.our_agents.begin(), round.our_agents.end());
  return std::all_of(agents.begin(), agents.end(), [&](const Bytes& id) { return ours.contains(AgentId(id)); });
}

std::optional<K2Gossip::Bookmark> K2Gossip::bookmark_for(const Url& peer, const ArcSectors& common) {
  auto bookmark = meta_.bookmark(peer);
  if (bookmark && !common.is_within(bookmark->sectors)) {
    meta_.forget_bookmark(peer);
    bookmark.reset();
  }
  return bookmark;
}

Timestamp K2Gossip::since(const std::optional<Bookmark>& bookmark) {
  // Without a bookmark: everything. A stock node asks for the last 30 minutes and finds the rest by comparing.
  return bookmark ? bookmark->at : Timestamp{0};
}

void K2Gossip::new_ops(ArcSectors sectors, Timestamp since, std::uint32_t limit, std::function<void(NewOps)> done) {
  if (limit == 0 || sectors.empty()) {
    // Nothing is named, so the bookmark stays: else what was not named now would never be.
    NewOps none;
    none.next = since;
    runtime().post([done = std::move(done), none] { done(none); });
    return;
  }
  query(sectors, since, limit, 0, std::move(done));
}

void K2Gossip::query(ArcSectors sectors, Timestamp since, std::uint32_t limit, int tries,
                     std::function<void(NewOps)> done) {
  // A hostile set of sectors could mean 256 queries: one over the hull, and the rest is left out here.
  context_.op_store->retrieve_op_ids_bounded(
      sectors.hull(), since, limit,
      [weak = weak_from_this(), sectors, since, limit, tries,
       done = std::move(done)](const Result<OpIdsBounded>& found) mutable {
        auto self = weak.lock();
        if (!self || self->stopped_) return;
        NewOps out;
        out.next = since;
        if (!found) {
          self->stats_.local_errors += 1;
          log::warn(kArea, "reading new ops: " + found.error().to_string());
          return done(std::move(out));
        }
        if (found->op_ids.size() > kMaxNewOps) {
          // Many small ops: fewer bytes, so that they fit into a message. Ops without bytes cannot be cut off so.
          const auto scaled = static_cast<std::uint64_t>(limit) * kMaxNewOps / found->op_ids.size() / 2;
          if (tries >= 20 || scaled == 0) return done(std::move(out));
          return self->query(sectors, since,
                             static_cast<std::uint32_t>(std::min<std::uint64_t>(scaled, found->bytes / 2)), tries + 1,
                             std::move(done));
        }
        for (const OpId& id : found->op_ids) {
          if (sectors.contains(id.loc())) out.ids.push_back(id.bytes());
        }
        out.next = found->next;
        done(std::move(out));
      });
}

std::shared_ptr<bool> K2Gossip::watch_bookmark(const Url& peer) {
  std::erase_if(bookmarks_in_use_, [](const auto& entry) { return entry.second.expired(); });
  auto holds = std::make_shared<bool>(true);
  bookmarks_in_use_.emplace_back(peer, holds);
  return holds;
}

/// A bookmark does not go back, but for one of the future: a peer whose clock was ahead may have stored ops then, which
/// are to be named to the last one. It may also have set its clock back, and a bookmark of the future would hide what
/// it stores until then. So such a bookmark is followed as long as it leads to ops, and then it begins at the present
/// again.
void K2Gossip::move_bookmark(const Url& peer, const Named& named, bool named_something) {
  const Timestamp now = runtime().wall_now();
  const auto of_the_future = [&](Timestamp at) { return at > now + kMaxClockSkew; };
  const auto known = bookmark_for(peer, named.common);
  // What was stored between the bookmark and where the asking began was not named.
  if (named.since > since(known)) return;
  const auto set = [&](Timestamp at) {
    meta_.set_bookmark(peer, {at, known && at <= known->at ? known->sectors : named.common});
  };
  const bool was_of_the_future = known && of_the_future(known->at);
  if (!named_something && (was_of_the_future || of_the_future(named.next))) {
    return set(std::min(named.next, now - kMaxClockSkew));
  }
  if (known && known->at > named.next && !was_of_the_future) return;
  set(named.next);
}

void K2Gossip::take_ops(const Url& peer, const std::vector<Bytes>& ids, const Named& named,
                        std::shared_ptr<bool> holds) {
  if (ids.empty()) {
    if (*holds) move_bookmark(peer, named, false);
    return;
  }
  stats_.ops_learned += ids.size();
  std::vector<OpId> op_ids;
  op_ids.reserve(ids.size());
  for (const Bytes& id : ids) op_ids.emplace_back(id);
  context_.fetch->request_offered_ops(std::move(op_ids), peer,
                                      [weak = weak_from_this(), peer, named, holds](const Result<void>& r) {
                                        auto self = weak.lock();
                                        if (!self || self->stopped_) return;
                                        if (r) {
                                          if (*holds) self->move_bookmark(peer, named, true);
                                          return;
                                        }
                                        self->stats_.local_errors += 1;
                                        self->meta_.count(peer, GossipPeerMeta::kLocalErrors);
                                      });
}

void K2Gossip::take_agents(const Url& peer, const std::vector<Bytes>& infos) {
  std::vector<AgentInfoPtr> good;
  for (std::size_t i = 0; i < infos.size(); ++i) {
    if (i >= kMaxAgents) {
      stats_.agents_refused += infos.size() - i;
      break;
    }
    auto info = AgentInfoSigned::decode(infos[i].text(), *context_.verifier);
    if (!info || !judge_agent_info((*info)->info(), context_.space, runtime().wall_now())) {
      stats_.agents_refused += 1;
      continue;
    }
    good.push_back(std::move(*info));
  }
  if (good.size() < infos.size()) peer_error(peer, "agent infos that are not to be believed");
  stats_.agents_learned += good.size();
  if (!good.empty()) context_.peer_store->insert(good);
}

void K2Gossip::send(const Url& peer, const wire::GossipMessage& message,
                    std::function<void(const Result<void>&)> done) {
  context_.transport->send_encoded(peer, context_.space, wire::encode_gossip(context_.space, message),
                                   [done = std::move(done)](const Result<void>& sent) {
                                     if (done) done(sent);
                                   });
}

void K2Gossip::peer_error(const Url& peer, const char* what) {
  stats_.peer_errors += 1;
  meta_.count(peer, GossipPeerMeta::kBehaviorErrors);
  if (log_gate_.open(runtime().now())) log::debug(kArea, peer.to_string() + ": " + what);
}

std::uint32_t K2Gossip::random_u32() {
  std::array<std::uint8_t, 4> bytes{};
  runtime().random_bytes(bytes);
  std::uint32_t out = 0;
  for (const std::uint8_t byte : bytes) out = out << 8 | byte;
  return out;
}

Result<std::shared_ptr<Gossip>> make_k2_gossip(const ModuleContext& context) {
  auto gossip = std::make_shared<K2Gossip>(context);
  if (auto started = gossip->start(); !started) return started.error();
  return std::shared_ptr<Gossip>(std::move(gossip));
}

namespace {
class NoopGossip final : public Gossip {
 public:
  void inform_ops_stored(std::vector<StoredOp>) override {}
  void stop() override {}
};
}  // namespace

std::shared_ptr<Gossip> make_noop_gossip() { return std::make_shared<NoopGossip>(); }

}  // namespace kitsune2
