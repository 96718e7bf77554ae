// The fetch module: carries out what the fetch core decides, over the transport and the op store.
#include "node/fetch/core_fetch.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <unordered_set>
#include <utility>

#include "core/callback.hpp"
#include "kitsune2/config.hpp"
#include "node/config/config_table.hpp"
#include "node/module_receiver.hpp"

namespace kitsune2 {
namespace {

/// Whether a failure says nothing about the peer.
bool is_our_failure(Errc code) {
  return code == Errc::disconnected || code == Errc::overloaded || code == Errc::cancelled;
}

std::vector<OpId> ids_of(const std::vector<FetchedRun>& runs) {
  std::size_t count = 0;
  for (const auto& run : runs) count += run.ops.size();
  std::vector<OpId> out;
  out.reserve(count);
  for (const auto& run : runs) {
    for (const auto& op : run.ops) out.push_back(op.op_id);
  }
  return out;
}

}  // namespace

CoreFetch::CoreFetch(Runtime& runtime, const CoreFetchConfig& config, const SpaceId& space,
                     std::shared_ptr<OpStore> op_store, std::shared_ptr<Transport> transport,
                     std::shared_ptr<PeerBudget> budget)
    : runtime_(runtime),
      config_(config),
      space_(space),
      store_(std::move(op_store)),
      transport_(std::move(transport)),
      budget_(budget ? std::move(budget) : make_no_peer_budget()),
      keep_pending_(config.persist_pending && store_->is_durable()),
      core_(config),
      writer_(runtime, store_,
              [this](std::vector<FetchedRun> runs, const Result<ProcessedOps>& result, Duration took) {
                stats_.store_writes.add(took);
                on_written(std::move(runs), result);
              }),
      server_(runtime, config, space, store_, transport_, budget_, stats_,
              [this](const Url& peer, std::uint64_t ops, std::uint64_t bytes) {
                tell(&FetchEvents::ops_served, peer, ops, bytes);
              }) {
  server_.on_idle([this] { check_stopped(); });
}

CoreFetch::~CoreFetch() { runtime_.cancel(timer_); }

Result<void> CoreFetch::start() {
  auto registered = transport_->register_module_handler(space_, kFetchModule,
                                                        std::make_shared<ModuleReceiver<CoreFetch>>(weak_from_this()));
  if (!registered) return registered;
  if (keep_pending_) resume(0);
  return {};
}

// ---------------------------------------------------------------- asking

void CoreFetch::pump() {
  if (stopped_) return;
  const auto now = runtime_.now();
  auto due = core_.poll(now);
  stats_.requests_overdue += due.overdue;
  while (!writer_.is_behind()) {
    auto request = core_.next_request(now);
    if (!request) break;
    if (const std::uint64_t mark = transport_->sent_mark(request->source); mark != 0) {
      std::array<std::uint8_t, 8> drawn{};
      runtime_.random_bytes(drawn);
      core_.mark(*request, mark, std::bit_cast<std::uint64_t>(drawn));
    }
    send(std::move(*request));
  }
  arm();
  tell_missing(std::move(due.missing));
  on_unserved(std::move(due.unserved));
}

void CoreFetch::pump_soon() {
  if (std::exchange(pump_posted_, true)) return;
  runtime_.post(lifetime_.guard([this] {
    pump_posted_ = false;
    pump();
  }));
}

void CoreFetch::send(FetchRequest request) {
  auto message = wire::encode_fetch_request(request.op_ids);
  const Url source = request.source;
  transport_->send_module(
      source, space_, kFetchModule, std::move(message),
      lifetime_.guard([this, item = Unsent{request.id, source, std::move(request.op_ids)}](
                          const Result<void>& result) mutable { on_sent(std::move(item), result); }));
}

void CoreFetch::on_sent(Unsent request, const Result<void>& result) {
  if (stopped_) return;
  const auto now = runtime_.now();
  if (result) {
    ++stats_.requests_sent;
    asked_at_.try_emplace(request.source, now);
    core_.on_sent(request.request, now);
    return pump();
  }
  if (is_our_failure(result.error().code)) {
    if (unsent_.empty()) {
      send_again_at_ = now + std::chrono::milliseconds(config_.re_insert_outgoing_request_delay_ms);
    }
    unsent_.push_back(std::move(request));
    return pump();
  }
  ++stats_.requests_failed;
  if (send_gate_.open(now))
    log::debug("fetch", "cannot ask " + request.source.to_string() + ": " + result.error().message);
  const auto gone = core_.on_send_failed(request.request, now);
  pump();
  if (gone) on_given_up(*gone, "cannot be reached");
}

void CoreFetch::on_given_up(const FetchGivenUp& gone, std::string_view why) {
  stats_.pairs_dropped_unresponsive += gone.pairs;
  metadata_.forget_source(gone.source);
  log::info("fetch", gone.source.to_string() + " " + std::string(why) + "; dropping " + std::to_string(gone.pairs) +
                         " requests to it; " + std::to_string(gone.orphaned.size()) +
                         " of these ops have no other source");
  // Listeners first: one may have to write it down before the store forgets.
  tell(&FetchEvents::peer_given_up, gone.source, gone.orphaned);
  if (gone.pairs > 0) forget_pending(gone.source);
  check_drained();
}

/// Handles ops that a source can be asked for but never sends.
void CoreFetch::on_unserved(std::vector<FetchUnserved> dropped) {
  for (const FetchUnserved& item : dropped) {
    stats_.pairs_dropped_unserved += item.op_ids.size();
    metadata_.forget(item.op_ids, item.source);
    if (unserved_gate_.open(runtime_.now())) {
      log::info("fetch", item.source.to_string() + " was asked repeatedly for " + std::to_string(item.op_ids.size()) +
                             " ops and never sent them; the first is " + item.op_ids.front().to_string() +
                             ". It will not be asked for them again" + unserved_gate_.left_out());
    }
    forget_later(item.source, item.op_ids);
    tell(&FetchEvents::ops_unserved, item.source, item.op_ids, item.orphaned);
  }
  if (dropped.empty()) return;
  arm();
  check_drained();
}

/// These are no longer pending, and were not stored.
void CoreFetch::forget_later(const Url& source, const std::vector<OpId>& op_ids) {
  if (!keep_pending_) return;
  if (to_forget_.empty()) forget_at_ = runtime_.now() + kForgetAfter;
  auto& ids = to_forget_[source];
  ids.insert(ids.end(), op_ids.begin(), op_ids.end());
}

void CoreFetch::forget_now() {
  for (auto& entry : std::exchange(to_forget_, {})) {
    const Url& source = entry.first;
    auto& op_ids = entry.second;
    std::erase_if(op_ids, [&](const OpId& id) { return core_.has(id, source); });  // requested again
    if (op_ids.empty()) continue;
    ++store_calls_;
    store_->remove_pending(std::move(op_ids), source, lifetime_.guard([this, url = source](const Result<void>& result) {
      if (!result)
        log::warn("fetch", "cannot remove the requests to " + url.to_string() + ": " + result.error().to_string());
      on_store_call_done();
    }));
  }
}

void CoreFetch::send_again() {
  auto items = std::exchange(unsent_, {});
  for (auto& item : items) {
    // Ops that have left the request meanwhile may be requested from another source, or from this one by a later
    // request.
    item.op_ids = core_.asked_by(item.request);
    if (item.op_ids.empty()) {
      core_.on_sent(item.request, runtime_.now());  // nothing is left of it
    } else {
      send({item.request, item.source, std::move(item.op_ids)});
    }
  }
}

void CoreFetch::arm() {
  auto next = core_.next_deadline();
  const auto consider = [&next](Time at) { next = next ? std::min(*next, at) : at; };
  if (!unsent_.empty()) consider(send_again_at_);
  if (!to_forget_.empty()) consider(forget_at_);
  if (timer_ != 0) {
    // A timer that fires too early only looks and is set again; most events move deadlines away.
    if (next && timer_at_ <= *next) return;
    runtime_.cancel(timer_);
    timer_ = 0;
  }
  if (!next) return;
  timer_at_ = *next;
  timer_ = runtime_.schedule(*next, lifetime_.guard([this] { wake(); }));
}

void CoreFetch::wake() {
  timer_ = 0;
  if (stopped_) return;
  if (!unsent_.empty() && send_again_at_ <= runtime_.now()) send_again();
  if (!to_forget_.empty() && forget_at_ <= runtime_.now()) forget_now();
  pump();
}

void CoreFetch::on_progress(const Url& peer, std::size_t bytes) {
  if (stopped_) return;
  core_.on_progress(peer, bytes, runtime_.now());
  if (!is_source(peer)) return;
  Incoming& incoming = incoming_[peer];
  incoming.partial += bytes;
  partial_bytes_ += bytes;
  count_received(incoming, bytes);
}

void CoreFetch::count_received(Incoming& incoming, std::uint64_t bytes) {
  incoming.received += bytes;
  stats_.bytes_received += bytes;
}

void CoreFetch::refuse_ops(const Url& peer, std::uint64_t count) {
  if (!incoming_.contains(peer)) return;  // not one of our sources
  if (refused_ops_.size() < kMostBlamed || refused_ops_.contains(peer)) refused_ops_[peer] += count;
}

void CoreFetch::on_online() {
  if (stopped_ || unsent_.empty()) return;
  send_again();
  pump();
}

void CoreFetch::on_disconnect(const Url& peer) {
  if (stopped_) return;
  name_all_of(peer);
  if (const auto it = incoming_.find(peer); it != incoming_.end()) {
    partial_bytes_ -= it->second.partial;
    incoming_.erase(it);
  }
  asked_at_.erase(peer);
  server_.forget(peer);
  auto lost = core_.on_disconnect(peer, runtime_.now());
  if (lost.ended > 0) pump();
  on_unserved(std::move(lost.unserved));
}

// ---------------------------------------------------------------- receiving

Result<void> CoreFetch::on_message(const Url& peer, const Bytes& data) {
  if (stopped_) return {};
  auto message = wire::decode_fetch(transport_->dialect(), data);
  if (!message) return message.error();
  const auto entry = is_source(peer) ? incoming_.try_emplace(peer).first : incoming_.find(peer);
  if (entry != incoming_.end()) {
    const std::uint64_t partial = std::exchange(entry->second.partial, 0);
    partial_bytes_ -= partial;
    const std::uint64_t payload = message->type == wire::FetchMessageType::response ? message->ops.total_bytes() : 0;
    count_received(entry->second, payload - std::min(payload, partial));
  }
  if (message->type == wire::FetchMessageType::response) {
    on_response(peer, message->ops);
  } else {
    server_.on_request(peer, std::move(message->op_ids));
  }
  return {};
}

void CoreFetch::on_response(const Url& peer, const wire::DataList& ops) {
  if (ops.empty()) {
    budget_->charge(peer, PeerWork().messages(1));
    return;
  }
  const auto now = runtime_.now();
  if (const auto asked = asked_at_.extract(peer)) stats_.answers.add(now - asked.mapped());
  if (resuming_ && !config_.accept_unsolicited && !core_.owes(peer)) {
    // Not all requests of an earlier run have been read yet: nobody is to blame, and the ops are requested again.
    stats_.ops_duplicate += ops.size();
    return;
  }
  if (core_.pending_ops() == 0 && !config_.accept_unsolicited && !core_.owes(peer)) {
    stats_.ops_unsolicited += ops.size();  // nobody waits for anything, so they are not worth hashing
    refuse_ops(peer, ops.size());
    return on_judged(peer, core_.on_response(peer, {}, ops.total_bytes(), now, ops.size()));
  }
  const std::uint64_t weight = ops.total_bytes() + ops.size() * kNamingBytes;
  Arrived message;
  message.peer = peer;
  message.slices = ops.slices();
  message.bytes = ops.total_bytes();
  message.weight = weight;
  message.descriptions = std::move(descriptions_);
  message.ids = std::move(ids_);
  message.descriptions.clear();
  message.ids.clear();
  if (weight <= kNamedAtOnce && !is_naming(peer)) {
    name_ops(message, UINT64_MAX);
    return on_answered(message);
  }
  arrived_weight_ += weight;
  arrived_.push_back(std::move(message));
  while (arrived_weight_ > kMostArrived) name_first(UINT64_MAX);
  name_soon();
}

void CoreFetch::name_ops(Arrived& message, std::uint64_t most) {
  const auto& policy = store_->policy();
  std::uint64_t weight = 0;
  std::uint64_t invalid = 0;
  std::optional<Error> first;
  for (; message.next < message.slices.size() && weight < most; ++message.next) {
    auto& slice = message.slices[message.next];
    weight += kNamingBytes + slice.size();
    auto description = call_for_result("the op policy", [&] { return policy.describe(slice); });
    if (!description) {
      refuse_ops(message.peer, 1);
      ++invalid;
      if (!first) first = description.error();
      continue;
    }
    message.ids.push_back(description->op_id);
    message.descriptions.push_back(std::move(*description));
    message.judged.push_back(Judged::not_yet);
    if (message.valid != message.next) message.slices[message.valid] = std::move(slice);
    ++message.valid;
    // Judging may take as long as naming. Where all is named at once, it waits for the core's verdicts.
    if (most < UINT64_MAX && core_.is_wanted(message.ids.back())) may_be_stored(message, message.valid - 1);
  }
  if (!first) return;
  message.invalid += invalid;
  if (!message.first_invalid) message.first_invalid = std::move(first);
}

/// Asks the policy about an op that has come, unless it was asked before.
bool CoreFetch::may_be_stored(Arrived& message, std::size_t index) {
  Judged& judged = message.judged[index];
  if (judged == Judged::not_yet) {
    Bytes metadata = metadata_.empty() ? Bytes() : metadata_.find(message.ids[index], message.peer);
    const Result<void> may = call_for_result("the op policy", [&] {
      return store_->policy().judge_incoming(message.descriptions[index], message.slices[index], metadata);
    });
    judged = may ? Judged::may_be_stored : Judged::refused;
    if (!may && !message.first_refused) message.first_refused = may.error();
    if (may && !metadata.empty()) {
      judged_metadata_ += MetadataBook::cost_of(metadata);
      message.metadata_cost += MetadataBook::cost_of(metadata);
      message.metadata.emplace(index, std::move(metadata));
    }
  }
  return judged == Judged::may_be_stored;
}

/// Records ops of `peer` that are invalid.
void CoreFetch::on_invalid(const Url& peer, std::uint64_t count, const Error& first) {
  stats_.ops_invalid += count;
  if (invalid_gate_.open(runtime_.now())) {
    log::debug("fetch", peer.to_string() + " sent " + std::to_string(count) +
                            " invalid ops; the first: " + log::printable(first.to_string()) + invalid_gate_.left_out());
  }
  tell(&FetchEvents::ops_invalid, peer, count, first);
}

/// Computes ids for a part of the first message's ops; when that message is done, continues with it.
void CoreFetch::name_first(std::uint64_t most) {
  name_ops(arrived_.front(), most);
  if (arrived_.front().next < arrived_.front().slices.size()) return;
  auto message = std::move(arrived_.front());
  arrived_.pop_front();
  arrived_weight_ -= message.weight;
  on_answered(message);
}

void CoreFetch::name_soon() {
  if (arrived_.empty() || std::exchange(naming_posted_, true)) return;
  runtime_.post(lifetime_.guard([this] {
    naming_posted_ = false;
    if (!arrived_.empty()) name_first(kNamedAtOnce);
    name_soon();
  }));
}

bool CoreFetch::is_naming(const Url& peer) const {
  return std::any_of(arrived_.begin(), arrived_.end(), [&](const Arrived& m) { return m.peer == peer; });
}

/// What a peer has sent is handled before what happens to the peer next.
void CoreFetch::name_all_of(const Url& peer) {
  while (is_naming(peer)) name_first(UINT64_MAX);
}

void CoreFetch::on_answered(Arrived& message) {
  const auto now = runtime_.now();
  const Url& peer = message.peer;
  auto& slices = message.slices;
  const bool owes = core_.owes(peer);
  auto answer = core_.on_response(peer, message.ids, message.bytes, now, slices.size() - message.valid);
  if (answer.read_mark != 0) transport_->was_read(peer, answer.read_mark);
  // An op keeps its whole message in memory until it is stored, which is not worth it for a few wanted ones among many.
  std::uint64_t wanted_bytes = 0;
  std::size_t wanted = 0;
  std::vector<OpId> refused;
  std::uint64_t unsolicited_refused = 0;
  for (std::size_t i = 0; i < message.valid; ++i) {
    if (answer.verdicts[i] != FetchVerdict::wanted) continue;
    if (!may_be_stored(message, i)) {
      refused.push_back(message.ids[i]);
      continue;
    }
    wanted_bytes += slices[i].size();
    ++wanted;
  }
  const bool is_sparse = wanted_bytes < message.bytes / 2;
  writer_.begin(peer, wanted);
  const auto add = [&](bool asked, std::size_t i) {
    const auto about = message.metadata.find(i);
    return writer_.add(asked, std::move(message.descriptions[i]), std::move(slices[i]),
                       about == message.metadata.end() ? Bytes() : std::move(about->second));
  };
  for (std::size_t i = 0; i < message.valid; ++i) {
    switch (answer.verdicts[i]) {
      case FetchVerdict::wanted:
        if (message.judged[i] == Judged::refused) break;
        if (is_sparse) slices[i] = slices[i].compact();
        if (!add(true, i)) {
          core_.on_store_failed({&message.ids[i], 1}, now);  // no room: it will be requested again
        }
        break;
      case FetchVerdict::duplicate:
        ++stats_.ops_duplicate;
        break;
      case FetchVerdict::not_pending:
      case FetchVerdict::unasked:
        ++(answer.verdicts[i] == FetchVerdict::unasked ? stats_.ops_unsolicited : stats_.ops_duplicate);
        if (answer.verdicts[i] == FetchVerdict::unasked) refuse_ops(peer, 1);
        if (config_.accept_unsolicited && !may_be_stored(message, i)) {
          unsolicited_refused += answer.verdicts[i] == FetchVerdict::unasked ? 1 : 0;
        } else if (config_.accept_unsolicited) {
          slices[i] = slices[i].compact();
          add(false, i);
        } else if (answer.verdicts[i] == FetchVerdict::unasked && unsolicited_gate_.open(now)) {
          log::debug("fetch", peer.to_string() + " sent an op that was not asked for: " + message.ids[i].to_string());
        }
        break;
    }
  }
  judged_metadata_ -= message.metadata_cost;  // it is the writer's now
  descriptions_ = std::move(message.descriptions);
  ids_ = std::move(message.ids);
  writer_.flush();
  const std::uint64_t pushed = drop_refused(peer, refused);
  pump();
  tell_missing(std::move(answer.missing));
  on_unserved(std::move(answer.unserved));
  if (message.first_invalid) on_invalid(peer, message.invalid, *message.first_invalid);
  if (const auto count = refused.size() + unsolicited_refused; count > 0) {
    on_invalid(peer, count, *message.first_refused);
  }
  on_judged(peer, answer);
  if (pushed > 0 && !owes && !config_.accept_unsolicited) on_judged(peer, core_.on_response(peer, {}, 0, now, pushed));
  if (!refused.empty()) check_drained();
}

/// The policy does not take these ops from `peer`, and would refuse them the next time too. Another source may have
/// published other metadata with them. Returns how many of them were to come from other sources only: who was not asked
/// could otherwise have them requested there again and again.
std::uint64_t CoreFetch::drop_refused(const Url& peer, const std::vector<OpId>& op_ids) {
  if (op_ids.empty()) return 0;
  std::uint64_t pushed = 0;
  for (const OpId& id : op_ids) pushed += core_.has(id, peer) ? 0 : 1;
  core_.on_refused(op_ids, peer, runtime_.now());
  metadata_.forget(op_ids, peer);
  if (persists_.has_unwritten(peer)) {
    for (const OpId& id : op_ids) persists_.take_unwritten(id, peer);
  }
  forget_later(peer, op_ids);
  return pushed;
}

void CoreFetch::on_judged(const Url& peer, const FetchAnswer& answer) {
  if (!answer.put_aside) return;
  ++stats_.peers_put_aside;
  if (aside_gate_.open(runtime_.now())) {
    log::info("fetch", peer.to_string() + " is put aside: it sent ops that are invalid or were not asked for");
  }
  // Not by an error: in this way the peer is told why.
  transport_->disconnect(peer, {CloseCode::failure, "too many ops that are invalid or were not asked for"});
  if (answer.given_up) on_given_up(*answer.given_up, "sends bad ops");
}

/// The store has its own opinion: only what it names is stored. What it refused leaves `runs`.
std::vector<CoreFetch::Refused> CoreFetch::take_refused(std::vector<FetchedRun>& runs, const ProcessedOps& result) {
  std::vector<Refused> out;
  if (result.rejected == 0) return out;
  std::unordered_set<OpId> held;
  for (const auto& op : result.stored) held.insert(op.op_id);
  for (auto& run : runs) {
    std::vector<OpId> refused;
    std::erase_if(run.ops, [&](const StoredOp& op) {
      if (held.contains(op.op_id)) return false;
      refused.push_back(op.op_id);
      return true;
    });
    if (refused.empty()) continue;
    std::erase_if(run.described, [&](const PublishOp& op) { return !held.contains(op.op_id); });
    core_.on_stored(refused, runtime_.now());  // it would refuse them the next time too
    metadata_.forget(refused);
    forget_later(run.peer, refused);
    out.emplace_back(run.peer, refused.size());
  }
  return out;
}

void CoreFetch::on_written(std::vector<FetchedRun> runs, const Result<ProcessedOps>& result) {
  if (result) {
    on_stored(std::move(runs), *result);
  } else {
    on_store_failed(runs, result.error());
  }
  check_drained();
  check_stopped();
}

void CoreFetch::on_store_failed(const std::vector<FetchedRun>& runs, const Error& why) {
  const std::vector<OpId> op_ids = ids_of(runs);
  ++stats_.store_failures;
  if (store_gate_.open(runtime_.now())) {
    log::warn("fetch", "cannot store " + std::to_string(op_ids.size()) + " ops: " + why.to_string() +
                           "; they will be fetched again");
  }
  const auto orphaned = core_.on_store_failed(op_ids, runtime_.now());
  if (!orphaned.empty()) {
    log::warn("fetch", std::to_string(orphaned.size()) + " ops that could not be stored have no source left");
  }
  metadata_.forget(orphaned);
  pump();
  if (!stopped_) tell(&FetchEvents::store_failed, why);
}

void CoreFetch::on_stored(std::vector<FetchedRun> runs, const ProcessedOps& result) {
  const std::vector<Refused> refused = take_refused(runs, result);
  const std::vector<OpId> op_ids = ids_of(runs);
  core_.on_stored(op_ids, runtime_.now());
  metadata_.forget(op_ids);
  if (filters_ > 0 || resuming_) stored_meanwhile_.insert(op_ids.begin(), op_ids.end());
  for (const auto& run : runs) {
    if (persists_.has_unwritten(run.peer)) {
      for (const auto& op : run.ops) persists_.take_unwritten(op.op_id, run.peer);
    }
    if (!run.asked) continue;
    stats_.ops_fetched += run.ops.size();
    stats_.bytes_fetched += run.bytes;
    budget_->useful(run.peer, run.ops.size(), run.bytes, cost_of_offer(run.ops.size()));
  }
  pump();
  for (const auto& run : runs) {
    if (!stopped_ && !run.described.empty()) tell(&FetchEvents::metadata_stored, run.peer, run.described);
    if (!stopped_ && !run.ops.empty()) tell(&FetchEvents::ops_stored, run.peer, run.ops, run.bytes);
  }
  const Error why = result.rejections.empty() ? make_error(Errc::invalid_argument, "the store refused the op")
                                              : result.rejections.front().reason;
  for (const auto& [peer, count] : refused) on_invalid(peer, count, why);
}

void CoreFetch::tell_missing(std::vector<FetchMissing> missing) {
  for (const auto& item : missing) tell(&FetchEvents::ops_missing, item.source, item.op_ids);
}

// ---------------------------------------------------------------- state

FetchStateSummary CoreFetch::state_summary() const {
  assert_on_strand(runtime_, "Fetch::state_summary");
  FetchStateSummary out;
  core_.for_each_op(
      [&](const OpId& op_id, const std::vector<Url>& sources) { out.pending_requests.emplace(op_id, sources); });
  const auto now = runtime_.now();
  const auto wall = runtime_.wall_now();
  for (const auto& [source, until] : core_.backing_off()) {
    out.peers_on_backoff.emplace(source, wall + (until - now));
  }
  const auto counts = core_.counts();
  out.pending_ops = counts.ops;
  out.pending_pairs = counts.pairs;
  out.outstanding_requests = counts.requests;
  out.known_outstanding_bytes = counts.known_bytes;
  return out;
}

FetchLoad CoreFetch::load(const Url& source) const {
  assert_on_strand(runtime_, "Fetch::load");
  FetchLoad out;
  out.pairs = core_.pending_pairs() + adding_;
  out.source_pairs = core_.pending_pairs(source);
  const std::uint64_t usual_id_bytes = 32 * core_.pending_ops();
  out.bytes = out.pairs * FetchLoad::kPairBytes + core_.id_bytes() - std::min(core_.id_bytes(), usual_id_bytes);
  out.serving = server_.is_busy();
  out.arriving_bytes = partial_bytes_ + writer_.bytes();
  for (const auto& message : arrived_) out.arriving_bytes += message.bytes;
  if (const auto it = incoming_.find(source); it != incoming_.end()) {
    out.source_received_bytes = it->second.received;
  }
  if (const auto it = refused_ops_.find(source); it != refused_ops_.end()) out.source_refused_ops = it->second;
  return out;
}

void CoreFetch::notify_on_drained(std::function<void()> callback) {
  assert_on_strand(runtime_, "Fetch::notify_on_drained");
  if (stopped_) return;
  on_drained_.push_back(std::move(callback));
  if (is_drained()) post_drained_check();
}

void CoreFetch::post_drained_check() {
  drained_check_posted_ = true;
  runtime_.post(lifetime_.guard([this] {
    drained_check_posted_ = false;
    check_drained();
  }));
}

void CoreFetch::check_drained() {
  if (core_.pending_ops() == 0) persists_.clear();
  if (stopped_ || on_drained_.empty() || !is_drained()) return;
  for (const auto& callback : std::exchange(on_drained_, {})) callback();
}

void CoreFetch::stop(std::function<void()> done) {
  assert_on_strand(runtime_, "Fetch::stop");
  forget_now();
  stopped_ = true;
  runtime_.cancel(timer_);
  timer_ = 0;
  unsent_.clear();
  arrived_.clear();
  arrived_weight_ = judged_metadata_ = 0;
  on_drained_.clear();
  server_.stop();
  on_stopped_.push_back(std::move(done));
  runtime_.post(lifetime_.guard([this] { check_stopped(); }));
}

void CoreFetch::check_stopped() {
  // Sends need not be waited for, because their handlers have no effect any more. Writes must be, to keep what has
  // arrived.
  if (!stopped_ || on_stopped_.empty()) return;
  if (store_calls_ > 0 || !writer_.is_idle() || server_.reads_under_way() > 0) return;
  for (const auto& callback : std::exchange(on_stopped_, {})) callback();
}

void CoreFetch::check_invariants() const {
  core_.check_invariants();
  metadata_.check_invariants();
  metadata_.for_each(
      [&](const OpId& op_id, const Url& source) { K2_ASSERT(filters_ > 0 || core_.has(op_id, source)); });
  const auto counts = core_.counts();
  // Everything that is pending waits for something: for
  // time, an answer, the store, or room in the writer.
  if (counts.ops > 0 && !stopped_) {
    K2_ASSERT(counts.requests > 0 || counts.storing_ops > 0 || core_.next_deadline() || writer_.is_behind() ||
              pump_posted_);
    K2_ASSERT(pump_posted_ || !core_.next_deadline() || (timer_ != 0 && timer_at_ <= *core_.next_deadline()));
    K2_ASSERT(unsent_.empty() || (timer_ != 0 && timer_at_ <= send_again_at_));
  }
  K2_ASSERT(to_forget_.empty() || stopped_ || (timer_ != 0 && timer_at_ <= forget_at_));
  K2_ASSERT(counts.storing_ops == 0 || !writer_.is_idle());
  K2_ASSERT(writer_.is_idle() || writer_.writes_under_way() > 0);
  K2_ASSERT(on_drained_.empty() || !is_drained() || drained_check_posted_ || stopped_);
}

Result<std::shared_ptr<Fetch>> make_core_fetch(Runtime& runtime, const CoreFetchConfig& config, const SpaceId& space,
                                               std::shared_ptr<OpStore> op_store, std::shared_ptr<Transport> transport,
                                               std::shared_ptr<PeerBudget> budget) {
  if (auto valid = config_table::validate(config); !valid) return valid.error();
  auto fetch =
      std::make_shared<CoreFetch>(runtime, config, space, std::move(op_store), std::move(transport), std::move(budget));
  if (auto started = fetch->start(); !started) return started.error();
  return std::shared_ptr<Fetch>(std::move(fetch));
}

}  // namespace kitsune2
