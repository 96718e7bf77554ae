// Answers other peers' fetch requests: the shell around ServeCore.
#include "node/fetch/core_fetch_server.hpp"

#include <algorithm>
#include <boost/unordered/unordered_flat_set.hpp>
#include <string>
#include <string_view>
#include <utility>

namespace kitsune2 {
namespace {

/// Of what a request has left over, at most kGrowth ids for each op of the last answer are read at a time, but no fewer
/// than kLeastAtATime; twice as many as the last time, if nothing was held. *Rationale*: a far peer's small requests
/// join, and an answer of one frame takes a few of their many ids; to hand all of them to the store each time cost more
/// than the answer. An answer may be four times as large as the last one.
constexpr std::size_t kGrowth = 5;
constexpr std::size_t kLeastAtATime = 40;

/// Leaves each id once, where it is first: the ids of requests that have joined (S10) repeat each other.
void drop_repetitions(std::vector<OpId>& ids) {
  if (ids.size() < 2) return;
  boost::unordered_flat_set<OpId, std::hash<OpId>> seen;
  seen.reserve(ids.size());
  std::erase_if(ids, [&](const OpId& id) { return !seen.insert(id).second; });
}

}  // namespace

FetchServer::FetchServer(Runtime& runtime, const CoreFetchConfig& config, const SpaceId& space,
                         std::shared_ptr<OpStore> store, std::shared_ptr<Transport> transport,
                         std::shared_ptr<PeerBudget> budget, FetchStats& stats, Served served)
    : runtime_(runtime),
      space_(space),
      store_(std::move(store)),
      transport_(std::move(transport)),
      budget_(std::move(budget)),
      stats_(stats),
      served_(std::move(served)),
      max_message_bytes_(transport_->max_message_bytes()),
      core_({config.max_incoming_requests_per_peer,
             std::min<std::uint64_t>(config.max_response_bytes, max_message_bytes_),
             config.max_response_bytes == CoreFetchConfig{}.max_response_bytes
                 ? std::min<std::uint64_t>(config.max_far_response_bytes, max_message_bytes_)
                 : 0}) {}

void FetchServer::on_request(const Url& peer, wire::IdList op_ids) {
  if (stopped_) return;
  ++stats_.requests_received;
  if (op_ids.empty()) {
    budget_->charge(peer, PeerWork().messages(1));
    return;
  }
  const bool is_small = op_ids.message_bytes() <= kSmallMessageBytes;
  const std::uint64_t cost =
      is_small ? kSmallRequestBytes + op_ids.message_bytes() : kRequestBytes + op_ids.total_bytes() + 2 * op_ids.size();
  if (const auto trip = transport_->round_trip(peer)) core_.note_round_trip(peer, *trip);
  const PeerWork work = PeerWork().messages(1).bytes(op_ids.message_bytes());
  const bool may = budget_->charge(peer, work) == PeerStanding::good;
  const auto id = may ? core_.on_request(peer, cost, runtime_.now(), is_small, op_ids.size()) : std::nullopt;
  if (!id) {
    ++stats_.requests_refused;
    transport_->wasted(peer, cost);
    perform();
    if (refused_gate_.open(runtime_.now())) {
      const std::string_view why = may ? " has too many requests waiting" : " is over its budget";
      log::debug("fetch", peer.to_string() + std::string(why) + "; dropping one" + refused_gate_.left_out());
    }
    return;
  }
  if (is_small) op_ids = op_ids.copied();
  Request& request = requests_[*id];
  const auto first = op_ids.begin();
  request.ids.push_back({std::move(op_ids), first});
  request.charged.time(Duration(work.micros()));
  perform();
}

void FetchServer::perform() {
  if (std::exchange(performing_, true)) return;  // called by an action: what it added follows the others
  for (auto actions = core_.take_actions(); !actions.empty(); actions = core_.take_actions()) {
    for (const auto& action : actions) std::visit([this](const auto& a) { on(a); }, action);
  }
  performing_ = false;
  if (const auto deadline = core_.next_deadline(); deadline && (timer_ == 0 || *deadline < timer_at_)) {
    runtime_.cancel(timer_);
    timer_at_ = *deadline;
    timer_ = runtime_.schedule(*deadline, lifetime_.guard([this] {
      timer_ = 0;
      core_.on_deadline(runtime_.now());
      perform();
    }));
  }
}

void FetchServer::on(const ServeCore::Disconnect& disconnect) {
  ++stats_.requests_refused;
  transport_->disconnect(disconnect.peer, {CloseCode::failure, "a response that was asked for is not taken"});
}

void FetchServer::on(const ServeCore::Drop& drop) {
  stats_.requests_refused += drop.requests;
  transport_->wasted(drop.peer, drop.cost);
  if (dropped_gate_.open(runtime_.now())) {
    log::debug("fetch", drop.peer.to_string() + " does not take its responses; dropping " +
                            std::to_string(drop.requests) + " of its requests" + dropped_gate_.left_out());
  }
}

void FetchServer::on(const ServeCore::Read& read) {
  Request& request = requests_.at(read.request);
  std::vector<OpId> ids;
  if (read.left_over) {
    const auto first = request.left_over.begin() + static_cast<std::ptrdiff_t>(request.left_from);
    const std::size_t count = std::min(request.at_a_time, request.left_over.size() - request.left_from);
    ids.assign(first, first + static_cast<std::ptrdiff_t>(count));
  } else {
    request.left_over = std::vector<OpId>();  // and not {}, which would keep the memory
    while (!request.ids.empty() && ids.size() < read.max_ids) {
      auto& [list, next] = request.ids.front();
      ids.reserve(std::min(ids.size() + list.size(), read.max_ids));
      for (; next != std::default_sentinel && ids.size() < read.max_ids; ++next) ids.emplace_back(*next);
      if (next == std::default_sentinel) request.ids.pop_front();
    }
  }
  auto asked = std::make_shared<std::vector<OpId>>(ids);
  store_->retrieve_ops(std::move(ids), read.max_bytes,
                       lifetime_.guard([this, read, asked](Result<std::vector<MetaOp>> result) {
                         on_read_ended(read, std::move(*asked), std::move(result));
                         perform();
                         if (core_.reads_under_way() == 0 && idle_) idle_();
                       }));
}

void FetchServer::on_read_ended(const ServeCore::Read& read, std::vector<OpId> asked,
                                Result<std::vector<MetaOp>> result) {
  if (!result) {
    if (core_.on_read_failed(read.read) && failed_gate_.open(runtime_.now())) {
      log::warn("fetch", "cannot read ops for " + read.peer.to_string() + ": " + result.error().to_string());
    }
    return;
  }
  auto& ops = *result;
  std::size_t fit = read.max_bytes <= ServeCore::kFrameBytes ? fitting(ops, kFrameMessageBytes) : 0;
  if (fit == 0)
    fit = std::min(fitting(ops, max_message_bytes_), read.max_bytes <= ServeCore::kFrameBytes ? 1 : SIZE_MAX);
  const bool is_too_large = !ops.empty() && fit == 0;
  if (fit < ops.size()) ops.erase(ops.begin() + static_cast<std::ptrdiff_t>(std::max<std::size_t>(1, fit)), ops.end());
  // The store returns each op once, in the order asked. If as many came as were asked for, no id repeats, and there is
  // no need to hash them all. Of what an earlier read left over none does.
  const std::size_t looked_up = asked.size();
  if (!read.left_over && ops.size() != asked.size()) drop_repetitions(asked);
  const std::size_t repeated = looked_up - asked.size();
  ServeCore::ReadOutcome outcome;
  outcome.has_ops = fit > 0;
  outcome.ops = fit;
  for (std::size_t i = 0; i < fit; ++i) outcome.bytes += ops[i].op_data.size();
  const auto request = requests_.find(read.request);
  // Ids after the last op that arrived were cut off by the byte limit or are not held: ask again to find out.
  auto after = asked.end();
  if (!ops.empty()) {
    const auto last = std::find(asked.begin(), asked.end(), ops.back().op_id);
    after = last == asked.end() ? asked.begin() : last + 1;
  }
  const auto looked_at = static_cast<std::size_t>(after - asked.begin());
  const bool has_more = read.left_over && request != requests_.end() &&
                        request->second.left_from + asked.size() < request->second.left_over.size();
  outcome.left_over = looked_at > 0 && (after != asked.end() || has_more);
  outcome.is_exhausted = request != requests_.end() && request->second.ids.empty();
  if (!core_.on_read_ended(read.read, outcome, runtime_.now())) return;
  // The store has looked for each of them.
  if (repeated > 0) budget_->charge(read.peer, PeerWork().look_ups(repeated));
  note_missing(read.peer, asked, ops, looked_at);
  PeerWork charged;
  if (outcome.has_ops && request != requests_.end()) charged = std::exchange(request->second.charged, {});
  if (is_too_large) on_too_large(read.peer, ops.front());
  if (outcome.left_over) {
    Request& open = request->second;
    open.at_a_time = fit == 0 ? std::min(2 * std::max(kLeastAtATime, open.at_a_time), ServeCore::kSharedIdsPerRead)
                              : std::max(kLeastAtATime, fit * kGrowth);
    if (read.left_over) {
      open.left_from += looked_at;
    } else {
      open.left_over.assign(std::make_move_iterator(after), std::make_move_iterator(asked.end()));
      open.left_from = 0;
    }
  }
  if (outcome.has_ops) {
    Answer answer{wire::encode_fetch_response(transport_->dialect(), ops), ops.size(), outcome.bytes, charged, {}, {}};
    auto& sample = served_before_[read.peer];
    if (!sample) sample = std::make_shared<ServedSample>();
    answer.sample = sample;
    for (const MetaOp& op : ops) {
      const std::uint64_t hash = std::hash<OpId>()(op.op_id);
      if (sample->covers(hash)) answer.covered.push_back({hash, op.op_data.size()});
    }
    answers_.emplace(read.read, std::move(answer));
  }
}

std::size_t FetchServer::fitting(const std::vector<MetaOp>& ops, std::uint64_t most) const {
  std::uint64_t bytes = wire::kFetchFrameBytes + space_.size();
  std::size_t count = 0;
  for (; count < ops.size(); ++count) {
    bytes += wire::fetch_op_wire_size(transport_->dialect(), ops[count].op_id.size(), ops[count].op_data.size());
    if (bytes > most) break;
  }
  return count;
}

void FetchServer::on_too_large(const Url& peer, const MetaOp& op) {
  ++stats_.ops_too_large;
  if (!too_large_gate_.open(runtime_.now())) return;
  log::warn("fetch", peer.to_string() + " asked for op " + op.op_id.to_string() + " of " +
                         std::to_string(op.op_data.size()) +
                         " bytes, which is too large to send: a message has at most " +
                         std::to_string(max_message_bytes_) + " bytes" + too_large_gate_.left_out());
}

void FetchServer::on(const ServeCore::Send& send) {
  const auto it = answers_.find(send.read);
  Answer answer = std::move(it->second);
  answers_.erase(it);
  auto message = std::move(answer.message);
  answer.message = {};
  transport_->send_module(send.peer, space_, kFetchModule, std::move(message),
                          lifetime_.guard([this, peer = send.peer, read = send.read, answer = std::move(answer)](
                                              const Result<void>& result) { on_sent(peer, read, answer, result); }));
}

void FetchServer::on_sent(const Url& peer, ServeCore::ReadId read, const Answer& answer, const Result<void>& result) {
  ServedSample::Again again;
  if (result) again = answer.sample->took(answer.ops, answer.bytes, answer.covered);
  core_.on_sent(read, result.has_value(), runtime_.now(), again.bytes);
  if (result) {
    stats_.ops_served += answer.ops;
    stats_.bytes_served += answer.bytes;
    budget_->useful(peer, answer.ops - std::min(answer.ops, again.ops),
                    answer.bytes - std::min(answer.bytes, again.bytes), answer.charged);
    if (served_ && !stopped_) served_(peer, answer.ops, answer.bytes);
  } else if (!stopped_ && failed_gate_.open(runtime_.now())) {
    log::debug("fetch", "cannot answer " + peer.to_string() + ": " + result.error().to_string());
  }
  perform();
}

void FetchServer::note_missing(const Url& peer, const std::vector<OpId>& asked, const std::vector<MetaOp>& held,
                               std::size_t looked_at) {
  // Held ops arrive in the order requested, and no id is asked for twice: one that does not line up is not held.
  std::size_t next = 0;
  const OpId* first = nullptr;
  for (std::size_t i = 0; i < looked_at; ++i) {
    if (next < held.size() && held[next].op_id == asked[i]) {
      ++next;
    } else if (first == nullptr) {
      first = &asked[i];
    }
  }
  if (first == nullptr) return;
  const auto missing = looked_at - next;
  budget_->charge(peer, PeerWork().look_ups(missing));
  stats_.ops_not_held += missing;
  if (log::enabled(log::Level::debug) && missing_gate_.open(runtime_.now())) {
    log::debug("fetch", peer.to_string() + " asked for " + std::to_string(missing) +
                            " ops that are not held; the first is " + first->to_string() + missing_gate_.left_out());
  }
}

void FetchServer::forget(const Url& peer) {
  served_before_.erase(peer);
  core_.forget(peer);
  perform();
}

void FetchServer::stop() {
  stopped_ = true;
  core_.stop();
  requests_.clear();
  answers_.clear();
  served_before_.clear();
}

}  // namespace kitsune2
