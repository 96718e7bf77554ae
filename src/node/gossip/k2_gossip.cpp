// The gossip module: carries out what the cores of src/core/gossip decide.
#include "node/gossip/k2_gossip.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "core/milliseconds.hpp"
#include "node/gossip/snapshots.hpp"
#include "node/module_receiver.hpp"
#include "node/space/agent_rules.hpp"

namespace kitsune2 {
namespace {

constexpr std::size_t kSessionBytes = 12;
/// Agents of one message that are looked at, declared, asked for or given.
constexpr std::size_t kMaxAgents = 1024;
/// G2: with so much to be fetched, what else there is had better wait; and how often that is looked at.
constexpr std::uint64_t kEnoughPending = NewOpsReader::kMostIds / 2;
constexpr Duration kLookAtPending = std::chrono::milliseconds(500);
/// G4: as many pending ops keep fetch busy for a while; and how often that is looked at.
constexpr std::uint64_t kBusyFetching = 1'000;
/// Who holds so many ops compares instead of asking for all from the beginning; with fewer, nearly all is lacking. K4
constexpr std::uint64_t kManyOps = 1'000;
constexpr Duration kLookAtBusy = std::chrono::milliseconds(100);
constexpr std::size_t kMostWaitingForFetch = 64;
/// Rounds in a window that a stock peer may start, whatever the configuration says: the time of each is kept.
constexpr std::uint64_t kMostBurstRounds = 1'000;
/// Agent infos of one message that do not verify; the rest of it is not looked at. *Rationale*: honest nodes verify
/// what they keep, so theirs are good, but for clocks that differ.
constexpr std::size_t kMostBadInfos = 8;
/// What a read of the store is charged at most: it may have waited for others.
constexpr Duration kMostReadCharged = std::chrono::milliseconds(50);
/// Candidates for a round, those who are gone included, until they are looked through: twice what the peer store holds
/// at its default.
constexpr std::size_t kCandidates = 20'000;
/// G3: between two times that all is asked for again.
constexpr Duration kRenameEvery = std::chrono::hours(1);
/// Between two looks whether a round may begin, at least.
constexpr Duration kLeastWait = std::chrono::milliseconds(10);

std::vector<Bytes> as_bytes_list(const std::vector<AgentId>& agents) {
  std::vector<Bytes> out;
  out.reserve(agents.size());
  for (const AgentId& agent : agents) out.push_back(agent.bytes());
  return out;
}

std::vector<AgentId> as_agents(const std::vector<Bytes>& agents) {
  std::vector<AgentId> out;
  for (std::size_t i = 0; i < agents.size() && i < gossip::Newcomers::kMostAgents; ++i) {
    out.emplace_back(agents[i].compact());
  }
  return out;
}

bool is_ours(std::uint32_t abilities) { return (abilities & wire::kQuickRounds) != 0; }

}  // namespace

K2Gossip::K2Gossip(const ModuleContext& context)
    : context_(context),
      meta_(*context.runtime, context.peer_meta_store),
      reader_(std::make_shared<NewOpsReader>(*context.runtime, context.op_store,
                                             [fetch = context.fetch] { return fetch && fetch->load({}).serving; })),
      dht_(std::make_shared<DhtKeeper>(*context.runtime, context.op_store)) {}

K2Gossip::~K2Gossip() {
  runtime().cancel(timer_);
  runtime().cancel(rename_timer_);
}

Result<void> K2Gossip::start() {
  auto registered = context_.transport->register_module_handler(
      context_.space, kGossipModule, std::make_shared<ModuleReceiver<K2Gossip>>(weak_from_this()));
  if (!registered) return registered;
  // What peers named in an earlier life is held or pending, but for requests that are not kept.
  if (!context_.config->current().core_fetch.persist_pending || !context_.op_store->is_durable()) {
    meta_.forget_bookmarks();
  }
  publish_subscription_ = context_.publish->on_unconfirmed([weak = weak_from_this()](const Url& peer) {
    auto self = weak.lock();
    if (!self || self->stopped_) return;
    self->book_.on_publish_lost(peer, self->runtime().now());
    self->schedule();
  });
  peer_subscription_ = context_.peer_store->on_update([weak = weak_from_this()](const AgentInfoPtr& info) {
    if (auto self = weak.lock()) self->on_peer_seen(*info);
  });
  op_subscription_ = context_.op_store->subscribe({.ops_damaged = [weak = weak_from_this()](const auto&) {
    if (auto self = weak.lock()) self->name_all_again();
  }});
  dht_->start();
  // Calls at once, which starts the timer.
  config_subscription_ = context_.config->on_update("k2Gossip", [weak = weak_from_this()](const Config&) {
    if (auto self = weak.lock()) self->on_pace_changed();
  });
  if (context_.transport->url()) on_online();
  return {};
}

void K2Gossip::inform_requests_dropped(const Url& peer) {
  assert_on_strand(runtime(), "Gossip::inform_requests_dropped");
  if (stopped_) return;
  meta_.forget_bookmark(peer);
  uncompared_.erase(peer);
  for (const auto& [url, holds] : bookmarks_in_use_) {
    if (const auto flag = holds.lock(); flag && url == peer) *flag = false;
  }
}

void K2Gossip::name_all_again() {
  growth_.forget();
  if (stopped_ || rename_timer_ != 0) return;
  const Time now = runtime().now();
  if (renamed_at_ && now < *renamed_at_ + kRenameEvery) {
    rename_timer_ = runtime().schedule(*renamed_at_ + kRenameEvery, [weak = weak_from_this()] {
      auto self = weak.lock();
      if (!self) return;
      self->rename_timer_ = 0;
      self->name_all_again();
    });
    return;
  }
  renamed_at_ = now;
  meta_.drop_bookmarks();
  uncompared_.clear();
  for (const auto& [url, holds] : bookmarks_in_use_) {
    if (const auto flag = holds.lock()) *flag = false;
  }
}

void K2Gossip::stop() {
  assert_on_strand(runtime(), "Gossip::stop");
  stopped_ = true;
  op_subscription_.reset();
  runtime().cancel(rename_timer_);
  rename_timer_ = 0;
  config_subscription_.reset();
  publish_subscription_.reset();
  peer_subscription_.reset();
  runtime().cancel(timer_);
  timer_ = 0;
  rounds_.clear();
  reader_->stop();
  dht_->stop();
  meta_.flush();
}

Result<void> K2Gossip::on_message(const Url& peer, const Bytes& data) {
  if (stopped_) return {};
  const auto standing = charge(peer, PeerWork().messages(1).bytes(data.size()));
  if (standing == PeerStanding::over) return {};
  auto message = wire::decode_gossip(context_.transport->dialect(), data);
  if (!message) return message.error();
  it_waits_ = standing == PeerStanding::waits;
  message_bytes_ = data.size();
  is_at_its_end_with_ = false;
  std::visit([&](const auto& m) { on(peer, m); }, *message);
  schedule();
  if (is_at_its_end_with_) return make_error(Errc::peer_fault, "too many gossip messages that fit no round");
  return {};
}

void K2Gossip::on_online() {
  if (stopped_) return;
  if (const auto url = context_.transport->url()) book_.on_home(url->relay());
  book_.on_own_url(runtime().now());
  schedule();
}

void K2Gossip::peer_moved(const Url& old_url, const Url& new_url) {
  assert_on_strand(runtime(), "Gossip::peer_moved");
  if (stopped_) return;
  book_.on_moved(old_url, new_url, runtime().now());
  schedule();
}

void K2Gossip::on_connect(const Url& peer) {
  if (stopped_) return;
  book_.on_connected(peer, runtime().now());
  schedule();
}

void K2Gossip::on_knows_us(const Url& peer) {
  if (stopped_) return;
  book_.on_knows_us(peer, runtime().now());
  schedule();
}

void K2Gossip::on_disconnect(const Url& peer) {
  if (stopped_) return;
  info_rates_.forget(peer);
  for (const auto& round : rounds_.end_all_with(peer)) on_round_over(round, false);
  schedule();
}

// ---------------------------------------------------------------- rounds that others start

void K2Gossip::on(const Url& peer, const wire::GossipInitiate& m) {
  const Time now = runtime().now();
  const bool ours = is_ours(m.abilities);
  if (ours) book_.on_is_ours(peer, now);
  const gossip::InitiateSaid said{m.session_id, m.tie_breaker, ours};
  const bool is_known = context_.budget != nullptr && context_.budget->is_known(peer);
  const auto action = rounds_.on(peer, said, config().max_concurrent_accepted_rounds, now, is_known);
  if (const auto* fault = std::get_if<gossip::Fault>(&action)) {
    peer_error(peer, fault->what);
    if (fault->say_busy) say_busy(peer, m.session_id, ours);
    return;
  }
  if (std::holds_alternative<gossip::Nothing>(action)) return;
  using Verdict = gossip::RoundBook::Answer;
  const auto* verdict = std::get_if<gossip::MayAccept>(&action);
  const bool has_room = verdict != nullptr && !it_waits_ && !reader_->is_full() && !(ours && is_fetch_busy(now));
  // Who lost the tie was about to have a round with us anyway.
  auto answer = Verdict::accept;
  if (verdict == nullptr || !verdict->tie_lost) {
    // Of a stock node each one counts, also if it gets BUSY.
    answer = ours && !has_room ? Verdict::busy : book_.answer(peer, ours, now);
  }
  if (answer == Verdict::accept && !has_room) answer = Verdict::busy;
  // A stock node counts the time from its last attempt, whatever became of it.
  if (!ours && answer != Verdict::accept) book_.on_interval(peer, now);
  if (answer == Verdict::too_soon) {
    stats_.too_soon += 1;
    peer_error(peer, "initiate too soon");
  }
  if (answer != Verdict::accept) return say_busy(peer, m.session_id, ours);
  if (verdict->needs_room) {
    if (const auto gone = rounds_.end_oldest_of_newcomers())
      send(gone->peer, wire::GossipTerminate{gone->session, Bytes::copy_of("busy")});
  }
  note_gossip(peer);
  auto& round = rounds_.accept(peer, said, our_side(), SectorSet(m.arc_set.words), now);
  round.is_known = is_known;
  round.bookmark_holds = watch_bookmark(peer);
  round.their_agents = as_agents(m.participating_agents);
  stats_.accepted += 1;
  const auto wish = wish_of(round, m.new_since, m.max_op_data_bytes, ours);
  book_.on_met(peer, now);
  reader_->read(wish, is_still_there(round),
                [weak = weak_from_this(), peer, session = round.session,
                 missing = unknown_agents(m.participating_agents)](NewOps named) {
                  if (auto self = weak.lock()) self->accept(peer, session, std::move(named), missing);
                });
}

void K2Gossip::say_busy(const Url& peer, const Bytes& session, bool ours) {
  // Nothing more for who is closed.
  if (is_at_its_end_with_) return;
  stats_.busy_sent += 1;
  send(peer, wire::GossipBusy{session, ours ? wire::kQuickRounds : 0});
}

void K2Gossip::accept(const Url& peer, const Bytes& session, NewOps named, std::vector<Bytes> missing) {
  auto* round = stopped_ ? nullptr : rounds_.find(peer, session);
  if (round == nullptr || round->in<gossip::Accepting>() == nullptr) return;
  const Timestamp asked = asks_since(peer, bookmark_for(peer, round->common));
  const auto* model = round->common.empty() ? nullptr : dht_->model();
  const bool compare = model != nullptr && !is_put_off(peer, named) && may_compare(peer, false);
  round = rounds_.accepted(peer, session, asked, compare);
  wire::GossipAccept m;
  m.session_id = session;
  m.participating_agents = as_bytes_list(round->ours.agents);
  m.arc_set = {round->ours.sectors.words()};
  round->infos_asked = missing.size();
  m.missing_agents = std::move(missing);
  m.new_since = asked;
  m.max_op_data_bytes = config().max_gossip_op_bytes;
  m.abilities = wire::kQuickRounds;
  m.more_ops = named.more;
  on_told(*round, named);
  m.new_ops = std::move(named.ids);
  m.updated_new_since = named.next;
  if (compare) m.snapshot = to_wire(model->minimal(round->common));
  send(peer, std::move(m), [weak = weak_from_this(), peer, session](const Result<void>& sent) {
    auto self = weak.lock();
    if (!self || self->stopped_) return;
    if (!sent) return self->on_send_failed(peer, session);
    // It may have waited for a connection: the peer counts from when it comes.
    self->book_.on_interval(peer, self->runtime().now());
  });
}

void K2Gossip::on(const Url& peer, const wire::GossipNoDiff& m) {
  auto action = rounds_.on(peer, gossip::NoDiffSaid{m.session_id, m.accept_response.missing_agents, m.cannot_compare});
  if (const auto* fault = std::get_if<gossip::Fault>(&action)) return peer_error(peer, fault->what);
  finish(peer, std::get<gossip::Finish>(action), m.accept_response, m.more_ops);
}

void K2Gossip::finish(const Url& peer, gossip::Finish& finish, const wire::AcceptResponse& answer, bool more) {
  auto& round = finish.round;
  on_in_sync(peer, finish.in_sync);
  take_agents(peer, answer.provided_agents, round.infos_asked);
  const bool is_compared = !finish.in_sync.empty();
  if (is_compared) {
    on_compared(peer);
  } else if (finish.cannot_compare && !more) {
    on_not_comparable(peer);
  }
  take_ops(peer, answer.new_ops, {finish.asked_since, answer.updated_new_since, round.common, is_compared}, more,
           round.bookmark_holds);
  // The initiator waits for one of these two; without it its only slot stays blocked until the round times out.
  auto infos = finish.is_compared ? std::vector<Bytes>() : infos_of(answer.missing_agents);
  if (infos.empty()) {
    const char* why = finish.is_compared ? "Nothing to compare" : "No agents requested";
    send(peer, wire::GossipTerminate{round.session, Bytes::copy_of(why)});
  } else {
    stats_.agents_given += infos.size();
    send(peer, wire::GossipAgents{round.session, std::move(infos)});
  }
  on_ended_well(round);
}

// ---------------------------------------------------------------- rounds that we start

void K2Gossip::on_pace_changed() {
  if (stopped_) return;
  const K2GossipConfig& c = config();
  const std::uint64_t windows = c.initiate_burst_window_count, burst = windows * c.initiate_burst_factor;
  book_.set_pace({.initiate_interval = from_ms(c.initiate_interval_ms),
                  .initiate_jitter = from_ms(c.initiate_jitter_ms),
                  .min_initiate_interval = from_ms(c.min_initiate_interval_ms),
                  .initial_initiate_interval = initial_interval(),
                  .burst_rounds = std::min<std::uint64_t>(burst, kMostBurstRounds),
                  .burst_window = from_ms(windows * c.initiate_interval_ms),
                  .bursts_are_taken = stock_takes_bursts()},
                 runtime().now(), random_u32());
  schedule();
}

void K2Gossip::schedule() {
  runtime().cancel(timer_);
  timer_ = 0;
  if (stopped_) return;
  reader_->sweep();
  const Time now = runtime().now();
  if (rounds_.ours() == 0) book_.put_off(now);
  Time next = std::max(book_.next_try(now), look_again_);
  if (const auto oldest = rounds_.oldest()) next = std::min(next, *oldest + from_ms(config().round_timeout_ms));
  if (!waiting_for_fetch_.empty() || !named_ids_.empty()) {
    // Once it is set it stays: messages, each of which calls this, must not put it off.
    if (!look_at_pending_) look_at_pending_ = now + kLookAtPending;
    next = std::min(next, *look_at_pending_);
  }
  if (growth_.due()) next = std::min(next, *growth_.due());
  timer_ = runtime().schedule(next, [weak = weak_from_this()] {
    if (auto self = weak.lock()) {
      self->timer_ = 0;
      self->wake();
    }
  });
}

void K2Gossip::wake() {
  const Time now = runtime().now();
  if (look_at_pending_ && *look_at_pending_ <= now) look_at_pending_.reset();
  for (const auto& round : rounds_.end_begun_before(now - from_ms(config().round_timeout_ms))) {
    stats_.timeouts += 1;
    meta_.count(round.peer, GossipPeerMeta::kTimeouts);
    on_round_over(round, true);
  }
  if (!waiting_for_fetch_.empty() && context_.fetch->pending_ops() < kEnoughPending) {
    for (const Url& peer : std::exchange(waiting_for_fetch_, {})) book_.on_has_more(peer, now);
  }
  look_at_ids();
  grow();
  if (book_.next_try(now) <= now && look_again_ <= now) {
    const Duration patience = std::max(book_.patience(), kLeastWait);
    const auto latest = rounds_.latest_of_ours();
    if (rounds_.ours() >= gossip::RoundBook::kMostAtOnce) {
      book_.put_off(now + patience);
    } else if (latest && now < *latest + patience) {
      book_.put_off(*latest + patience);
    } else if (is_fetch_busy(now)) {
      look_again_ = now + kLookAtBusy;
    } else if (const auto peer = choose(now)) {
      initiate(*peer);
    }
  }
  schedule();
}

bool K2Gossip::is_fetch_busy(Time now) {
  if (context_.fetch->pending_ops() < kBusyFetching) {
    busy_since_.reset();
    return false;
  }
  if (!busy_since_) busy_since_ = now;
  return now < *busy_since_ + 5 * book_.patience();
}

std::optional<Url> K2Gossip::choose(Time now) {
  on_own_arcs_known();
  gossip::RoundBook::Look look;
  // Otherwise nobody can answer us.
  if (!context_.local_agent_store->get_all().empty() && context_.transport->url()) {
    look = [this](const Url& peer) { return look_at(peer); };
  }
  const std::uint32_t random = random_u32();
  return book_.choose(look, now, random, random_u32());
}

// ---------------------------------------------------------------- whom

K2Gossip::Seen K2Gossip::look_at(const Url& peer) const {
  const auto locals = context_.local_agent_store->get_all();
  Seen out{Seen::gone, false};
  for (const auto& info : context_.peer_store->get_by_url(peer)) {
    const auto is_it = [&](const auto& agent) { return agent->agent() == info->info().agent; };
    if (std::any_of(locals.begin(), locals.end(), is_it)) continue;
    out.is = Seen::usable;
    out.overlaps |= overlaps_ours(info->info());
  }
  const bool is_busy = rounds_.has_any_with(peer) || peer == context_.transport->url();
  if (out.is == Seen::usable && (is_busy || context_.blocks->is_peer_blocked(peer))) out.is = Seen::not_now;
  return out;
}

/// Those who store what we want to store come first.
bool K2Gossip::overlaps_ours(const AgentInfo& info) const {
  return std::any_of(own_arcs_.begin(), own_arcs_.end(),
                     [&](const DhtArc& arc) { return arc.overlaps(info.storage_arc); });
}

void K2Gossip::on_peer_seen(const AgentInfoSigned& info) {
  if (stopped_) return;
  if (book_.candidates() >= most_candidates_) return know_all_peers();
  know(info.info());
}

/// An agent is known at its url. What else is known there is looked at when its turn comes.
void K2Gossip::know(const AgentInfo& info) {
  if (!info.url || info.is_tombstone) return;
  const auto locals = context_.local_agent_store->get_all();
  if (std::any_of(locals.begin(), locals.end(), [&](const auto& agent) { return agent->agent() == info.agent; }))
    return;
  const auto last = book_.is_candidate(*info.url) ? std::nullopt : meta_.last_gossip(*info.url);
  book_.on_candidate(*info.url, overlaps_ours(info), last);
}

void K2Gossip::on_own_arcs_known() {
  std::vector<DhtArc> arcs;
  for (const auto& agent : context_.local_agent_store->get_all()) {
    const DhtArc arc = agent->tgt_storage_arc();
    if (!arc.empty() && std::find(arcs.begin(), arcs.end(), arc) == arcs.end()) arcs.push_back(arc);
  }
  if (knows_peers_ && arcs == own_arcs_) return;
  own_arcs_ = std::move(arcs);
  know_all_peers();
}

/// Begins anew with those who are in the peer store: it does not tell of whom it forgets.
void K2Gossip::know_all_peers() {
  knows_peers_ = true;
  book_.forget_candidates();
  for (const auto& info : context_.peer_store->get_all()) know(info->info());
  most_candidates_ = std::max(kCandidates, 2 * book_.candidates());
}

void K2Gossip::note_gossip(const Url& peer) {
  const Timestamp now = runtime().wall_now();
  meta_.set_last_gossip(peer, now);
  book_.on_gossip_noted(peer, now);
}

void K2Gossip::initiate(const Url& peer) {
  const Time now = runtime().now();
  std::vector<std::uint8_t> id(kSessionBytes);
  runtime().random_bytes(id);
  const Timestamp asked = asks_since(peer, meta_.bookmark(peer));
  auto& round =
      rounds_.start(peer, Bytes(std::move(id)), our_side(), {std::max<std::uint32_t>(random_u32(), 1), asked}, now);
  round.bookmark_holds = watch_bookmark(peer);
  // Also if it fails: the next choice is another peer.
  note_gossip(peer);
  book_.on_attempt(peer, now);
  stats_.initiated += 1;

  wire::GossipInitiate m;
  m.session_id = round.session;
  m.participating_agents = as_bytes_list(round.ours.agents);
  m.arc_set = {round.ours.sectors.words()};
  m.tie_breaker = round.in<gossip::Initiated>()->tie_breaker;
  m.new_since = asked;
  m.max_op_data_bytes = config().max_gossip_op_bytes;
  m.abilities = wire::kQuickRounds;
  send(peer, m, [weak = weak_from_this(), peer, session = round.session](const Result<void>& sent) {
    if (auto self = weak.lock(); self && !sent) self->on_send_failed(peer, session);
  });
}

void K2Gossip::on(const Url& peer, const wire::GossipAccept& m) {
  gossip::AcceptSaid said{m.session_id, SectorSet(m.arc_set.words), m.missing_agents, {}, is_ours(m.abilities)};
  if (m.snapshot) said.snapshot = from_wire(*m.snapshot);
  const auto* begun = rounds_.find(peer, m.session_id);
  const auto* stage = begun == nullptr ? nullptr : begun->in<gossip::Initiated>();
  const bool was_named_all = stage != nullptr && stage->asked_since == Timestamp{0} && !m.new_ops.empty();
  // With a snapshot it wants to compare, whatever it has left to name. O2, O3
  const bool compare = m.snapshot && stage != nullptr && may_compare(peer, was_named_all && !m.more_ops);
  const auto action = rounds_.on(peer, said, compare ? dht_->model() : nullptr);
  if (const auto* fault = std::get_if<gossip::Fault>(&action)) return peer_error(peer, fault->what);
  const auto& go_on = std::get<gossip::AnswerAccept>(action);
  const Time now = runtime().now();
  const bool ours = is_ours(m.abilities);
  if (ours) book_.on_is_ours(peer, now);
  auto& round = *rounds_.find(peer, m.session_id);
  round.their_agents = as_agents(m.participating_agents);
  const auto wish = wish_of(round, m.new_since, m.max_op_data_bytes, ours);
  book_.on_met(peer, now);
  on_in_sync(peer, go_on.in_sync);
  const auto* no_diff = std::get_if<gossip::AnswerAccept::NoDiff>(&go_on.answer);
  const bool is_compared = compare && (no_diff == nullptr || !no_diff->cannot_compare);
  if (is_compared) {
    on_compared(peer);
  } else if (!m.more_ops && (!m.snapshot || compare)) {
    on_not_comparable(peer);
  }
  take_ops(peer, m.new_ops, {go_on.asked_since, m.updated_new_since, go_on.common, is_compared}, m.more_ops,
           round.bookmark_holds);
  if ((ours || stock_takes_bursts()) && !compare && is_growing(go_on.common))
    wait_for_ids(peer, m.new_ops.size(), std::nullopt);
  mark(round, m.new_ops);

  wire::AcceptResponse response;
  response.missing_agents = unknown_agents(m.participating_agents);
  round.infos_asked = response.missing_agents.size();
  response.provided_agents = infos_of(m.missing_agents);
  reader_->read(wish, is_still_there(round),
                [weak = weak_from_this(), peer, session = round.session, response = std::move(response),
                 answer = go_on.answer, disc_differs = go_on.disc_differs](NewOps named) {
                  if (auto self = weak.lock())
                    self->answer_accept(peer, session, response, answer, disc_differs, std::move(named));
                });
}

void K2Gossip::answer_accept(const Url& peer, const Bytes& session, wire::AcceptResponse response, const Answer& answer,
                             bool disc_differs, NewOps named) {
  if (stopped_ || rounds_.find(peer, session) == nullptr) return;
  const bool puts_off = !std::holds_alternative<gossip::AnswerAccept::NoDiff>(answer) && is_put_off(peer, named);
  auto* round = rounds_.on_answer(peer, session, !puts_off);
  if (round == nullptr) return;
  on_told(*round, named);
  response.new_ops = std::move(named.ids);
  response.updated_new_since = named.next;
  stats_.agents_given += response.provided_agents.size();
  wire::GossipMessage message;
  if (puts_off) {
    message = wire::GossipNoDiff{session, std::move(response), true, true};
  } else if (const auto* disc = std::get_if<dht::DiscSectorsSnapshot>(&answer)) {
    stats_.discs_compared += 1;
    message = wire::GossipDiscSectorsDiff{session, std::move(response), to_wire(*disc)};
  } else if (const auto* rings = std::get_if<dht::RingSectorDetailsSnapshot>(&answer)) {
    stats_.rings_compared += 1;
    message = wire::GossipRingSectorDetailsDiff{session, std::move(response), to_wire(*rings), disc_differs};
  } else {
    const bool cannot_compare = std::get<gossip::AnswerAccept::NoDiff>(answer).cannot_compare;
    message = wire::GossipNoDiff{session, std::move(response), cannot_compare, named.more};
  }
  send(peer, message, [weak = weak_from_this(), peer, session](const Result<void>& sent) {
    if (auto self = weak.lock(); self && !sent) self->on_send_failed(peer, session);
  });
}

void K2Gossip::on(const Url& peer, const wire::GossipAgents& m) {
  const auto action = rounds_.on(peer, gossip::AgentsSaid{m.session_id});
  if (const auto* fault = std::get_if<gossip::Fault>(&action)) return peer_error(peer, fault->what);
  const auto& round = std::get<gossip::Completed>(action).round;
  take_agents(peer, m.provided_agents, round.infos_asked);
  on_ended_well(round);
}

void K2Gossip::on(const Url& peer, const wire::GossipBusy& m) {
  const auto action = rounds_.on(peer, gossip::BusySaid{m.session_id});
  if (const auto* fault = std::get_if<gossip::Fault>(&action)) return peer_error(peer, fault->what);
  stats_.busy_received += 1;
  meta_.count(peer, GossipPeerMeta::kBusy);
  note_gossip(peer);
  if (is_ours(m.abilities)) book_.on_is_ours(peer, runtime().now());
  book_.on_busy(peer, runtime().now());
}

void K2Gossip::on(const Url& peer, const wire::GossipTerminate& m) {
  const auto action = rounds_.on(peer, gossip::TerminateSaid{m.session_id});
  if (const auto* fault = std::get_if<gossip::Fault>(&action)) return peer_error(peer, fault->what);
  meta_.count(peer, GossipPeerMeta::kTerminated);
  if (const auto* completed = std::get_if<gossip::Completed>(&action)) on_ended_well(completed->round);
}

// ---------------------------------------------------------------- rounds

/// The round broke off.
void K2Gossip::on_round_over(const gossip::Round& round, bool waited) {
  const Time now = runtime().now();
  if (round.in<gossip::Initiated>() != nullptr) {
    book_.on_no_answer(round.peer, now, waited);
  } else {
    book_.on_broken(round.peer, now);
  }
}

void K2Gossip::on_send_failed(const Url& peer, const Bytes& session) {
  if (stopped_) return;
  if (const auto round = rounds_.end(peer, session)) on_round_over(*round, false);
  schedule();
}

void K2Gossip::on_told(gossip::Round& round, const NewOps& named) {
  if (named.failed) stats_.local_errors += 1;
  charge(round.peer, PeerWork().look_ups(named.ids.size()).time(std::min(named.took, kMostReadCharged)));
  stats_.ops_named += named.ids.size();
  round.bytes_left = round.most_bytes - std::min(round.most_bytes, named.bytes);
  round.ids_left = NewOpsReader::kMostIds - std::min(NewOpsReader::kMostIds, named.ids.size());
  mark(round, named.ids);
  round.named_to = named.history_to;
  book_.on_told(round.peer, named.next, runtime().now());
}

void K2Gossip::mark(gossip::Round& round, const std::vector<Bytes>& ids) {
  round.marks.reserve(std::min(NewOpsReader::kMostIds, round.marks.size() + ids.size()));
  for (const Bytes& id : ids) {
    if (round.marks.size() == NewOpsReader::kMostIds) return;
    round.marks.insert(NewOpsReader::mark_of(id));
  }
}

void K2Gossip::on_ended_well(const gossip::Round& round) {
  stats_.completed += 1;
  meta_.count(round.peer, GossipPeerMeta::kCompletedRounds);
  book_.on_completed(round.peer, round.begun);
  if (round.named_to) reader_->newcomers().on_named(round.their_agents, round.common, *round.named_to);
}

// ---------------------------------------------------------------- pieces

gossip::OurSide K2Gossip::our_side() const {
  gossip::OurSide out;
  for (const auto& agent : context_.local_agent_store->get_all()) {
    out.sectors.add(agent->tgt_storage_arc());
    if (out.agents.size() < kMaxAgents) out.agents.push_back(agent->agent());
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

/// K4. Until a comparison has followed, where to go on is kept in memory only: a bookmark says that all before is held.
Timestamp K2Gossip::asks_since(const Url& peer, const std::optional<gossip::Bookmark>& bookmark) {
  const bool can_compare = holds_many() && !is_incomparable(peer);
  const Timestamp out = gossip::since(bookmark, can_compare, runtime().wall_now());
  if (bookmark || !can_compare) return out;
  if (uncompared_.size() >= kMostCompared) uncompared_.clear();
  return uncompared_.try_emplace(peer, out).first->second;
}

void K2Gossip::on_compared(const Url& peer) {
  uncompared_.erase(peer);
  incomparable_.erase(peer);
}

/// A round in which nothing stood in the way ended without a comparison: the clocks differ, it never compares, or one
/// of the two was just reading its store. K4
void K2Gossip::on_not_comparable(const Url& peer) {
  if (incomparable_.size() >= kMostCompared) incomparable_.clear();
  ++incomparable_[peer];
  if (is_incomparable(peer)) uncompared_.erase(peer);
}

bool K2Gossip::is_incomparable(const Url& peer) const {
  const auto it = incomparable_.find(peer);
  return it != incomparable_.end() && it->second >= kTries;
}

std::optional<gossip::Bookmark> K2Gossip::bookmark_for(const Url& peer, const SectorSet& common) {
  auto bookmark = meta_.bookmark(peer);
  if (bookmark && !bookmark->holds_for(common)) {
    meta_.drop_bookmark(peer);
    bookmark.reset();
  }
  return bookmark;
}

bool K2Gossip::is_put_off(const Url& peer, const NewOps& named) {
  return put_offs_.on_list(peer, {named.ids.size(), named.more, named.is_by_allowance});
}

/// To be called before the book hears of this round.
NewOpsWish K2Gossip::wish_of(gossip::Round& round, Timestamp since, std::uint32_t most_bytes, bool ours) const {
  NewOpsWish out;
  out.common = round.common;
  out.since = since;
  out.most_bytes = config().max_request_gossip_op_bytes;
  out.limit = std::min(out.most_bytes, most_bytes);
  out.most_ids = NewOpsReader::kMostIds;
  round.most_bytes = round.bytes_left = out.limit;
  if (put_offs_.is_due(round.peer)) {
    out.limit = (out.limit + 1) / 2;
    out.most_ids /= 2;
  }
  out.agents = round.their_agents;
  out.we_started = round.is_ours;
  out.ours = ours;
  out.starts_over = ours && book_.starts_over(round.peer, since, runtime().now());
  return out;
}

/// Whether the round still waits for what is to be named in it.
std::function<bool()> K2Gossip::is_still_there(const gossip::Round& round) {
  return [weak = weak_from_this(), peer = round.peer, session = round.session, stage = round.stage.index()] {
    auto self = weak.lock();
    const auto* found = !self || self->stopped_ ? nullptr : self->rounds_.find(peer, session);
    return found != nullptr && found->stage.index() == stage;
  };
}

std::shared_ptr<bool> K2Gossip::watch_bookmark(const Url& peer) {
  std::erase_if(bookmarks_in_use_, [](const auto& entry) { return entry.second.expired(); });
  auto holds = std::make_shared<bool>(true);
  bookmarks_in_use_.emplace_back(peer, holds);
  return holds;
}

bool K2Gossip::holds_many() const {
  const auto* model = dht_->model();
  return model != nullptr && model->op_count() >= kManyOps;
}

void K2Gossip::move_bookmark(const Url& peer, gossip::Named named, bool named_something) {
  // A node that holds few ops leaves nothing to the comparison. K4
  named.is_compared = named.is_compared && holds_many();
  const auto next =
      gossip::moved(bookmark_for(peer, named.common), named, named_something, runtime().wall_now(), kMaxClockSkew);
  if (next) return meta_.set_bookmark(peer, *next);
  const auto it = uncompared_.find(peer);
  if (it != uncompared_.end() && named.since <= it->second) it->second = std::max(it->second, named.next);
}

void K2Gossip::take_ops(const Url& peer, const std::vector<Bytes>& ids, const gossip::Named& named, bool more,
                        const std::shared_ptr<bool>& holds) {
  if (ids.empty()) {
    if (*holds) move_bookmark(peer, named, false);
    // All that fitted was outside of the common sectors.
    if (more && named.next > named.since) on_has_more(peer);
    return;
  }
  stats_.ops_learned += ids.size();
  std::vector<OpId> op_ids;
  op_ids.reserve(ids.size());
  for (const Bytes& id : ids) op_ids.emplace_back(id);
  context_.fetch->request_offered_ops(std::move(op_ids), peer,
                                      [weak = weak_from_this(), peer, named, more, holds](const Result<void>& r) {
                                        auto self = weak.lock();
                                        if (!self || self->stopped_) return;
                                        if (r) {
                                          if (*holds) self->move_bookmark(peer, named, true);
                                          if (more) self->on_has_more(peer);
                                          return;
                                        }
                                        self->stats_.local_errors += 1;
                                        self->meta_.count(peer, GossipPeerMeta::kLocalErrors);
                                      });
}

void K2Gossip::on_has_more(const Url& peer) {
  if (context_.fetch->pending_ops() < kEnoughPending) {
    book_.on_has_more(peer, runtime().now());
  } else if (waiting_for_fetch_.size() < kMostWaitingForFetch &&
             std::find(waiting_for_fetch_.begin(), waiting_for_fetch_.end(), peer) == waiting_for_fetch_.end()) {
    waiting_for_fetch_.push_back(peer);
  }
  schedule();
}

void K2Gossip::take_agents(const Url& peer, const std::vector<Bytes>& infos, std::size_t asked) {
  std::vector<AgentInfoPtr> good;
  const std::size_t expected = std::min({infos.size(), asked, kMaxAgents});
  const bool is_known = context_.budget && context_.budget->is_known(peer);
  const std::size_t most = info_rates_.take(peer, is_known, expected, runtime().now());
  if (charge(peer, PeerWork().verifications(most)) != PeerStanding::good) {
    stats_.agents_refused += infos.size();
    return;
  }
  std::size_t bad = 0;
  const UrlForm form = url_form(context_.transport->dialect());
  for (std::size_t i = 0; i < most && bad < kMostBadInfos; ++i) {
    auto info = AgentInfoSigned::decode(infos[i].text(), *context_.verifier, form);
    if (info && judge_agent_info((*info)->info(), context_.space, runtime().wall_now())) {
      good.push_back(std::move(*info));
    } else {
      ++bad;
    }
  }
  stats_.agents_refused += infos.size() - good.size();
  stats_.agents_learned += good.size();
  // To be over the rate is no fault.
  if (good.size() + (expected - most) < infos.size())
    peer_error(peer, "agent infos that were not asked for or are not to be believed", 1 + static_cast<double>(bad));
  if (!good.empty()) {
    const std::string bringer = context_.budget ? bringer_of(*context_.budget, peer) : peer.to_string();
    context_.peer_store->insert_from(good, bringer);
  }
}

void K2Gossip::send(const Url& peer, const wire::GossipMessage& message,
                    std::function<void(const Result<void>&)> done) {
  context_.transport->send_module(peer, context_.space, kGossipModule, wire::encode_gossip(message),
                                  [done = std::move(done)](const Result<void>& sent) {
                                    if (done) done(sent);
                                  });
}

void K2Gossip::peer_error(const Url& peer, const char* what, double weight) {
  stats_.peer_errors += 1;
  // Not of everybody who comes by: notes are few, and addresses cost nothing.
  if (book_.knows(peer)) meta_.count(peer, GossipPeerMeta::kBehaviorErrors);
  context_.transport->wasted(peer, message_bytes_);
  charge(peer, PeerWork().nonsense(1));
  if (faults_.add(peer, weight, runtime().now())) is_at_its_end_with_ = true;
  if (log_gate_.open(runtime().now())) log::debug("gossip", peer.to_string() + ": " + what);
}

PeerStanding K2Gossip::charge(const Url& peer, PeerWork work) {
  return context_.budget ? context_.budget->charge(peer, work) : PeerStanding::good;
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
  void stop() override {}
};
}  // namespace

std::shared_ptr<Gossip> make_noop_gossip() { return std::make_shared<NoopGossip>(); }

}  // namespace kitsune2
