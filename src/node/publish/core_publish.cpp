// The publish module: announces new ops and infos to peers, and handles their announcements.
#include <algorithm>
#include <utility>

#include "core/callback.hpp"
#include "kitsune2/builder.hpp"
#include "kitsune2/op_policy.hpp"
#include "log/log.hpp"
#include "node/module_receiver.hpp"
#include "node/publish/core_publish.hpp"
#include "node/space/agent_rules.hpp"
#include "wire/publish_messages.hpp"

namespace kitsune2 {
namespace {

/// The most ids that may wait to be sent, in all publishes together.
constexpr std::uint64_t kMaxQueuedIds = 8'000'000;
/// The same for the bytes of their metadata.
constexpr std::uint64_t kMaxQueuedMetadataBytes = 256U << 20;
/// Metadata in one message; the first id's always fits.
constexpr std::uint64_t kMessageMetadataBytes = 1U << 20;
/// The cost of each waiting message besides its ids.
constexpr std::uint64_t kMessageBytes = 4096;

/// Ids have arrived if their connection lasted this long afterwards: twice the time that a silent tx5 connection lives
/// by default.
constexpr Duration kConfirmedAfter = std::chrono::minutes(2);
constexpr std::size_t kMaxSentAt = 65'536;

/// Delivers an outcome later, as the contract of a handler requires.
void complete(Runtime& runtime, Handler<> done, Result<void> outcome) {
  if (!done) return;
  runtime.post([done = std::move(done), outcome = std::move(outcome)] {
    call_application("a handler given to Publish", [&] { done(outcome); });
  });
}

}  // namespace

/// A publish_ops call that is under way.
struct CorePublish::Job {
  std::vector<OpId> op_ids;
  std::vector<Bytes> metadata;  ///< of each; empty: of none
  std::uint64_t metadata_bytes = 0;
  std::size_t sent = 0;
  Url target;
  Handler<> done;
};

CorePublish::CorePublish(Runtime& runtime, const CorePublishConfig& config, const SpaceId& space,
                         std::shared_ptr<Fetch> fetch, std::shared_ptr<PeerStore> peers,
                         std::shared_ptr<Transport> transport, const Verifier& verifier,
                         std::shared_ptr<PeerBudget> budget)
    : runtime_(runtime),
      config_(config),
      space_(space),
      fetch_(std::move(fetch)),
      peers_(std::move(peers)),
      transport_(std::move(transport)),
      verifier_(verifier),
      budget_(budget ? std::move(budget) : make_no_peer_budget()) {}

Result<void> CorePublish::start() {
  return transport_->register_module_handler(space_, kPublishModule,
                                             std::make_shared<ModuleReceiver<CorePublish>>(weak_from_this()));
}

void CorePublish::publish_ops(std::vector<OpId> op_ids, const Url& target, Handler<> done) {
  assert_on_strand(runtime_, "Publish::publish_ops");
  auto job = std::make_shared<Job>();
  job->op_ids = std::move(op_ids);
  job->target = target;
  job->done = std::move(done);
  begin(std::move(job));
}

void CorePublish::publish_ops_with_metadata(std::vector<PublishOp> ops, const Url& target, Handler<> done) {
  assert_on_strand(runtime_, "Publish::publish_ops_with_metadata");
  auto job = std::make_shared<Job>();
  job->target = target;
  job->done = std::move(done);
  job->op_ids.reserve(ops.size());
  for (PublishOp& op : ops) {
    if (op.metadata.size() > config_.max_metadata_bytes) {
      return complete(runtime_, std::move(job->done),
                      make_error(Errc::invalid_argument, "the metadata of op " + op.op_id.to_string() + " has " +
                                                             std::to_string(op.metadata.size()) +
                                                             " bytes, more than corePublish.maxMetadataBytes (" +
                                                             std::to_string(config_.max_metadata_bytes) + ')'));
    }
    job->metadata_bytes += op.metadata.size();
    job->op_ids.push_back(std::move(op.op_id));
  }
  if (!publish_carries_metadata(transport_->dialect())) job->metadata_bytes = 0;
  if (job->metadata_bytes > 0) {
    job->metadata.reserve(ops.size());
    for (PublishOp& op : ops) job->metadata.push_back(std::move(op.metadata));
  }
  begin(std::move(job));
}

void CorePublish::begin(std::shared_ptr<Job> job) {
  const auto fail = [&](Errc code, const char* why) {
    complete(runtime_, std::move(job->done), make_error(code, why));
  };
  if (stopped_) return fail(Errc::cancelled, "publish is stopped");
  if (job->op_ids.empty()) return complete(runtime_, std::move(job->done), {});
  if (queued_ids_ > 0 && (queued_ids_ + job->op_ids.size() > kMaxQueuedIds ||
                          queued_metadata_bytes_ + job->metadata_bytes > kMaxQueuedMetadataBytes))
    return fail(Errc::overloaded, "too many op ids wait to be published");
  queued_ids_ += job->op_ids.size();
  queued_metadata_bytes_ += job->metadata_bytes;
  send_next(job);
}

void CorePublish::send_next(const std::shared_ptr<Job>& job) {
  std::size_t count = std::min<std::size_t>(config_.max_ids_per_message, job->op_ids.size() - job->sent);
  std::span<const Bytes> metadata;
  if (!job->metadata.empty()) metadata = std::span(job->metadata).subspan(job->sent, count);
  const Dialect dialect = transport_->dialect();
  const std::uint64_t most = largest_op_bytes(transport_->max_message_bytes());
  std::uint64_t bytes = 0, metadata_bytes = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const ByteView with = metadata.empty() ? ByteView() : metadata[i].view();
    bytes += wire::publish_entry_bytes(dialect, job->op_ids[job->sent + i], with);
    metadata_bytes += with.size();
    if (i > 0 && (bytes > most || metadata_bytes > kMessageMetadataBytes)) count = i;
  }
  if (!metadata.empty()) metadata = metadata.first(count);
  const std::span<const OpId> part(job->op_ids.data() + job->sent, count);
  // The job continues without this object if necessary: its handler is called in any case.
  auto message = wire::encode_publish_ops(dialect, part, metadata);
  transport_->send_module(job->target, space_, kPublishModule, std::move(message),
                          [weak = weak_from_this(), job, count](const Result<void>& sent) {
                            auto self = weak.lock();
                            const bool gone = !self || self->stopped_;
                            Result<void> outcome = sent;
                            if (sent && gone && job->sent + count < job->op_ids.size())
                              outcome = make_error(Errc::cancelled, "publish is stopped");
                            if (self) (sent ? self->stats_.ops_sent : self->stats_.send_failures) += sent ? count : 1;
                            if (self && sent) self->on_sent(job->target);
                            if (self && !sent && sent.error().code != Errc::blocked)
                              self->tell_unconfirmed(job->target);
                            job->sent += count;
                            if (outcome && job->sent < job->op_ids.size()) return self->send_next(job);
                            if (self) self->queued_ids_ -= job->op_ids.size();
                            if (self) self->queued_metadata_bytes_ -= job->metadata_bytes;
                            if (job->done) job->done(outcome);
                          });
}

void CorePublish::on_sent(const Url& target) {
  const Time now = runtime_.now();
  if (!transport_->is_known_to(space_, target)) {
    if (unheard_gate_.open(now)) {
      log::info("publish",
                "what is published to " + target.to_string() +
                    " may not be heard: that peer has not shown yet that it knows an agent of this node; gossip "
                    "brings it when it does" +
                    unheard_gate_.left_out());
    }
    tell_unconfirmed(target);
  }
  sent_at_[target] = now;
  if (sent_at_.size() <= kMaxSentAt) return;
  std::erase_if(sent_at_, [&](const auto& entry) { return now - entry.second > kConfirmedAfter; });
  // There are so many that gossip reaches those left out in its turn.
  if (sent_at_.size() > kMaxSentAt) sent_at_.clear();
}

void CorePublish::tell_unconfirmed(const Url& target) {
  if (stopped_) return;
  std::erase_if(on_unconfirmed_, [](const auto& entry) { return entry.expired(); });
  for (const auto& entry : std::vector(on_unconfirmed_)) {
    if (const auto callback = entry.lock()) (*callback)(target);
  }
}

std::shared_ptr<void> CorePublish::on_unconfirmed(std::function<void(const Url& peer)> callback) {
  assert_on_strand(runtime_, "Publish::on_unconfirmed");
  auto out = std::make_shared<Callback>(std::move(callback));
  on_unconfirmed_.push_back(out);
  return out;
}

void CorePublish::publish_agent(AgentInfoPtr info, const Url& target, Handler<> done) {
  assert_on_strand(runtime_, "Publish::publish_agent");
  if (stopped_) return complete(runtime_, std::move(done), make_error(Errc::cancelled, "publish is stopped"));
  if (!info || info->info().space != space_)
    return complete(runtime_, std::move(done), make_error(Errc::invalid_argument, "not an agent info of this space"));
  transport_->send_module(target, space_, kPublishModule, wire::encode_publish_agent(info->encode()),
                          [weak = weak_from_this(), done = std::move(done)](const Result<void>& sent) {
                            if (auto self = weak.lock())
                              (sent ? self->stats_.agents_sent : self->stats_.send_failures) += 1;
                            if (done) done(sent);
                          });
}

Result<void> CorePublish::on_message(const Url& peer, const Bytes& data) {
  if (stopped_) return {};
  auto message = wire::decode_publish(transport_->dialect(), data);
  if (!message) return message.error();
  if (message->type == wire::PublishMessageType::ops) {
    take_ops(peer, std::move(message->op_ids), std::move(message->metadata));
  } else {
    take_agent(peer, message->agent_info);
  }
  return {};
}

void CorePublish::take_ops(const Url& peer, wire::IdList ids, wire::DataList metadata) {
  const std::uint64_t count = ids.size();
  stats_.ops_received += count;
  // While it waits, the whole message is held, also what of it will be left out.
  const std::uint64_t entries = metadata.empty() ? 2 * count + ids.total_bytes() : ids.message_bytes();
  const std::uint64_t bytes = kMessageBytes + entries;
  const auto standing = budget_->charge(peer, PeerWork().messages(1).bytes(bytes));
  if (count == 0) return;
  const auto offer =
      standing == PeerStanding::over ? std::nullopt : core_.offer(peer, count, bytes, budget_->is_known(peer));
  if (!offer) {
    stats_.ops_refused += count;
    transport_->wasted(peer, bytes);
    if (log_gate_.open(runtime_.now()))
      log::debug("publish", "dropping op ids of " + peer.to_string() + ": too many are waiting");
    return;
  }
  if (metadata.total_bytes() == 0) metadata = {};
  const auto first = ids.begin();
  const auto first_metadata = metadata.begin();
  offers_.emplace(*offer, Offer{std::move(ids), first, std::move(metadata), first_metadata});
  next_pieces();
}

void CorePublish::next_pieces() {
  const Time now = runtime_.now();
  while (!stopped_) {
    const auto peer = core_.next_peer(fetch_->load({}).serving, now);
    if (!peer) break;
    if (const auto until = budget_->waits_until(*peer)) {
      core_.hold(*peer, *until);
      continue;
    }
    look_up(core_.next_piece(now));
  }
  arm();
}

void CorePublish::look_up(const Offers::Piece& piece) {
  const auto it = offers_.find(piece.offer);
  Offer& offer = it->second;
  // `asked`: of the piece's ids, those that fetch is asked for.
  const auto then = [&](std::size_t asked) {
    return [weak = weak_from_this(), piece, asked](const Result<void>& added) {
      if (auto self = weak.lock()) self->on_piece_done(piece, asked, added);
    };
  };
  if (offer.metadata.empty()) {
    std::vector<OpId> op_ids;
    op_ids.reserve(piece.ids);
    for (; op_ids.size() < piece.ids; ++offer.next) op_ids.emplace_back(*offer.next);
    if (piece.is_last) offers_.erase(it);
    return fetch_->request_offered_ops(std::move(op_ids), piece.peer, then(piece.ids));
  }
  std::vector<PublishOp> ops;
  ops.reserve(piece.ids);
  for (std::uint64_t i = 0; i < piece.ids; ++i, ++offer.next, ++offer.next_metadata) {
    const ByteView metadata = *offer.next_metadata;
    if (metadata.size() > config_.max_metadata_bytes) continue;
    ops.push_back({OpId(*offer.next), Bytes::copy_of(metadata)});
  }
  if (piece.is_last) offers_.erase(it);
  if (const std::uint64_t left_out = piece.ids - ops.size(); left_out > 0) {
    stats_.ops_refused += left_out;
    if (log_gate_.open(runtime_.now())) {
      log::debug("publish", "leaving out " + std::to_string(left_out) + " op ids of " + piece.peer.to_string() +
                                ": their metadata is longer than corePublish.maxMetadataBytes");
    }
  }
  auto done = then(ops.size());
  fetch_->request_published_ops(std::move(ops), piece.peer, std::move(done));
}

void CorePublish::arm() {
  const auto deadline = stopped_ ? std::nullopt : core_.next_deadline();
  if (timer_ != 0 && deadline && timer_at_ <= *deadline) return;
  runtime_.cancel(timer_);
  timer_ = 0;
  if (!deadline) return;
  timer_at_ = *deadline;
  timer_ = runtime_.schedule(timer_at_, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    self->timer_ = 0;
    self->next_pieces();
  });
}

void CorePublish::on_piece_done(const Offers::Piece& piece, std::uint64_t asked, const Result<void>& added) {
  const auto dropped = core_.on_piece_done(piece, added.has_value(), fetch_->load({}).serving, runtime_.now());
  for (const auto offer : dropped.offers) offers_.erase(offer);
  if (!added) {
    stats_.ops_refused += asked + dropped.ids;
    transport_->wasted(piece.peer, dropped.bytes);
    if (log_gate_.open(runtime_.now()))
      log::debug("publish", "dropping op ids of " + piece.peer.to_string() + ": " + added.error().to_string());
  }
  next_pieces();
}

void CorePublish::take_agent(const Url& peer, const Bytes& json) {
  stats_.agents_received += 1;
  const bool may = core_.may_send_agent(peer, budget_->is_known(peer), runtime_.now());
  auto work = PeerWork().messages(1).bytes(json.size());
  if (may) work.verifications(1);
  if (budget_->charge(peer, work) != PeerStanding::good || !may) {
    stats_.agents_rate_limited += 1;
    return;
  }
  const auto refuse = [&](std::uint64_t& counter, const Error& why) {
    counter += 1;
    if (log_gate_.open(runtime_.now()))
      log::debug("publish", "ignoring an agent info of " + peer.to_string() + ": " + log::printable(why.to_string()));
  };
  auto info = AgentInfoSigned::decode(json.text(), verifier_, url_form(transport_->dialect()));
  if (!info) {
    budget_->charge(peer, PeerWork().nonsense(1));
    return refuse(stats_.agents_invalid, info.error());
  }
  if (auto believed = judge_agent_info((*info)->info(), space_, runtime_.wall_now()); !believed)
    return refuse(stats_.agents_refused, believed.error());
  peers_->insert_from({*info}, bringer_of(*budget_, peer));
}

void CorePublish::on_disconnect(const Url& peer) {
  if (const auto sent = sent_at_.extract(peer); sent && runtime_.now() - sent.mapped() <= kConfirmedAfter) {
    tell_unconfirmed(peer);
  }
  core_.on_disconnect(peer);
}

void CorePublish::stop() {
  assert_on_strand(runtime_, "Publish::stop");
  stopped_ = true;
  runtime_.cancel(timer_);
  timer_ = 0;
}

std::shared_ptr<Publish> make_core_publish(Runtime& runtime, const CorePublishConfig& config, const SpaceId& space,
                                           std::shared_ptr<Fetch> fetch, std::shared_ptr<PeerStore> peers,
                                           std::shared_ptr<Transport> transport, const Verifier& verifier,
                                           std::shared_ptr<PeerBudget> budget) {
  auto publish = std::make_shared<CorePublish>(runtime, config, space, std::move(fetch), std::move(peers),
                                               std::move(transport), verifier, std::move(budget));
  // A second module for a space is a bug of the caller; its messages would go nowhere.
  const bool registered = publish->start().has_value();
  K2_ASSERT(registered);
  return publish;
}

}  // namespace kitsune2
