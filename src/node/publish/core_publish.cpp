// The publish module: tells peers of new ops and infos, and looks into what they tell.
#include <algorithm>
#include <unordered_map>
#include <utility>

#include "core/callback.hpp"
#include "kitsune2/builder.hpp"
#include "log/log.hpp"
#include "node/module_receiver.hpp"
#include "node/publish/core_publish.hpp"
#include "node/space/agent_rules.hpp"
#include "wire/publish_messages.hpp"

namespace kitsune2 {
namespace {

constexpr std::string_view kArea = "publish";

/// Ids that may wait to be sent, in all publishes together.
constexpr std::uint64_t kMaxQueuedIds = 8'000'000;
/// Ids told by one peer (and by all) that may wait for the store's answer, and bytes of the messages that hold them. A
/// single message always fits.
constexpr std::uint64_t kMaxWaitingIdsPerPeer = 1U << 20;
constexpr std::uint64_t kMaxWaitingIds = 8U << 20;
constexpr std::uint64_t kMaxWaitingBytesPerPeer = 64U << 20;
constexpr std::uint64_t kMaxWaitingBytes = 256U << 20;
/// The store is asked about this many ids at once, and this many times at once; peers take turns. *Rationale*: a read
/// for another peer waits behind one such look-up, not behind that of a million ids, and so does the strand.
constexpr std::size_t kPieceIds = 4096;
/// While peers are served it is one at a time, with a rest after each for as long as it took. *Rationale*: ids cost a
/// peer nothing, and what is looked up and noted for them takes the same threads; who fetches keeps most of them.
constexpr std::size_t kMaxPieces = 4;
constexpr Duration kLongestRest = std::chrono::seconds(1);
/// Counted for each message that waits, besides its ids.
constexpr std::uint64_t kMessageBytes = 4096;
/// Agent infos of one peer: this many at once, then this many a second. Verifying one takes about 0.1 ms of the strand.
constexpr double kAgentBurst = 256;
constexpr double kAgentsPerSecond = 16;

/// Ids whose connection lived on for so long have arrived: twice what a tx5 connection that nothing comes from lives by
/// default.
constexpr Duration kConfirmedAfter = std::chrono::minutes(2);
constexpr std::size_t kMaxSentAt = 65'536;

/// Delivers an outcome later, as a handler's contract wants it.
void complete(Runtime& runtime, Handler<> done, Result<void> outcome) {
  if (!done) return;
  runtime.post([done = std::move(done), outcome = std::move(outcome)] {
    call_application("a handler given to Publish", [&] { done(outcome); });
  });
}

}  // namespace

/// One publish_ops call on its way.
struct CorePublish::Job {
  std::vector<OpId> op_ids;
  std::size_t sent = 0;
  Url target;
  Handler<> done;
};

CorePublish::CorePublish(Runtime& runtime, const CorePublishConfig& config, const SpaceId& space,
                         std::shared_ptr<Fetch> fetch, std::shared_ptr<PeerStore> peers,
                         std::shared_ptr<Transport> transport, const Verifier& verifier)
    : runtime_(runtime),
      config_(config),
      space_(space),
      fetch_(std::move(fetch)),
      peers_(std::move(peers)),
      transport_(std::move(transport)),
      verifier_(verifier) {}

Result<void> CorePublish::start() {
  return transport_->register_module_handler(space_, kPublishModule,
                                             std::make_shared<ModuleReceiver<CorePublish>>(weak_from_this()));
}

void CorePublish::publish_ops(std::vector<OpId> op_ids, const Url& target, Handler<> done) {
  assert_on_strand(runtime_, "Publish::publish_ops");
  if (stopped_) return complete(runtime_, std::move(done), make_error(Errc::cancelled, "publish is stopped"));
  if (op_ids.empty()) return complete(runtime_, std::move(done), {});
  if (queued_ids_ > 0 && queued_ids_ + op_ids.size() > kMaxQueuedIds)
    return complete(runtime_, std::move(done), make_error(Errc::overloaded, "too many op ids wait to be published"));
  queued_ids_ += op_ids.size();
  auto job = std::make_shared<Job>();
  job->op_ids = std::move(op_ids);
  job->target = target;
  job->done = std::move(done);
  send_next(job);
}

void CorePublish::send_next(const std::shared_ptr<Job>& job) {
  const std::size_t count = std::min<std::size_t>(config_.max_ids_per_message, job->op_ids.size() - job->sent);
  const std::span<const OpId> part(job->op_ids.data() + job->sent, count);
  // The job goes on without this object if need be: its handler is called in any case.
  auto message = wire::encode_publish_ops(transport_->dialect(), part);
  transport_->send_module(job->target, space_, kPublishModule, std::move(message),
                          [weak = weak_from_this(), job, count](const Result<void>& sent) {
                            auto self = weak.lock();
                            const bool gone = !self || self->stopped_;
                            Result<void> outcome = sent;
                            if (sent && gone && job->sent + count < job->op_ids.size())
                              outcome = make_error(Errc::cancelled, "publish is stopped");
                            if (self) (sent ? self->stats_.ops_sent : self->stats_.send_failures) += sent ? count : 1;
                            if (self && sent) self->sent_to(job->target);
                            if (self && !sent && sent.error().code != Errc::blocked)
                              self->tell_unconfirmed(job->target);
                            job->sent += count;
                            if (outcome && job->sent < job->op_ids.size()) return self->send_next(job);
                            if (self) self->queued_ids_ -= job->op_ids.size();
                            if (job->done) job->done(outcome);
                          });
}

void CorePublish::sent_to(const Url& target) {
  const Time now = runtime_.now();
  sent_at_[target] = now;
  if (sent_at_.size() <= kMaxSentAt) return;
  std::erase_if(sent_at_, [&](const auto& entry) { return now - entry.second > kConfirmedAfter; });
  // So many at once: whoever is left out is told by gossip in its turn.
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
    return complete(runtime_, std::move(done), make_error(Errc::invalid_argument, "no agent info of this space"));
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
    take_ops(peer, std::move(message->op_ids));
  } else {
    take_agent(peer, message->agent_info);
  }
  return {};
}

void CorePublish::take_ops(const Url& peer, wire::IdList ids) {
  const std::uint64_t count = ids.size();
  stats_.ops_received += count;
  if (count == 0) return;
  const std::uint64_t bytes = kMessageBytes + 2 * count + ids.total_bytes();
  Sender& sender = senders_[peer];
  const auto over = [](std::uint64_t waiting, std::uint64_t more, std::uint64_t bound) {
    return waiting > 0 && waiting + more > bound;
  };
  if (over(sender.waiting_ids, count, kMaxWaitingIdsPerPeer) || over(waiting_ids_, count, kMaxWaitingIds) ||
      over(sender.waiting_bytes, bytes, kMaxWaitingBytesPerPeer) || over(waiting_bytes_, bytes, kMaxWaitingBytes)) {
    stats_.ops_refused += count;
    transport_->wasted(peer, bytes);
    if (log_gate_.open(runtime_.now()))
      log::debug(kArea, "dropping op ids of " + peer.to_string() + ": too many are waiting");
    return;
  }
  sender.waiting_ids += count;
  sender.waiting_bytes += bytes;
  waiting_ids_ += count;
  waiting_bytes_ += bytes;
  const auto first = ids.begin();
  sender.offers.push_back({std::move(ids), first, count, bytes});
  if (!std::exchange(sender.in_turn, true)) turns_.push_back(peer);
  next_pieces();
}

bool CorePublish::may_look_up() {
  if (stopped_ || turns_.empty() || rest_ != 0) return false;
  return pieces_ < (fetch_->load(turns_.front()).serving ? 1 : kMaxPieces);
}

void CorePublish::next_pieces() {
  while (may_look_up()) {
    const Url peer = std::move(turns_.front());
    turns_.pop_front();
    Sender& sender = senders_.at(peer);
    sender.in_turn = false;
    Offer& offer = sender.offers.front();
    std::vector<OpId> op_ids;
    op_ids.reserve(std::min<std::uint64_t>(offer.left, kPieceIds));
    for (; offer.left > 0 && op_ids.size() < kPieceIds; ++offer.next, --offer.left) op_ids.emplace_back(*offer.next);
    if (offer.left == 0) end_offer(sender);
    if (!sender.offers.empty()) {
      sender.in_turn = true;
      turns_.push_back(peer);
    }
    ++pieces_;
    const std::uint64_t count = op_ids.size();
    fetch_->request_offered_ops(
        std::move(op_ids), peer,
        [weak = weak_from_this(), peer, count, begun = runtime_.now()](const Result<void>& added) {
          if (auto self = weak.lock()) self->piece_done(peer, count, begun, added);
        });
  }
}

/// The first offer's message is not needed any more.
void CorePublish::end_offer(Sender& sender) {
  const std::uint64_t bytes = sender.offers.front().bytes;
  sender.waiting_bytes -= bytes;
  waiting_bytes_ -= bytes;
  sender.offers.pop_front();
}

void CorePublish::rest_after(Time begun) {
  const Time now = runtime_.now();
  if (rest_ != 0 || stopped_ || now == begun || !fetch_->load({}).serving) return;
  rest_ = runtime_.schedule(now + std::min(now - begun, kLongestRest), [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    self->rest_ = 0;
    self->next_pieces();
  });
}

void CorePublish::piece_done(const Url& peer, std::uint64_t count, Time begun, const Result<void>& added) {
  --pieces_;
  waiting_ids_ -= count;
  const auto it = senders_.find(peer);
  it->second.waiting_ids -= count;
  if (!added) {
    stats_.ops_refused += count;
    // No room for these: none for the rest of what this peer has told either.
    Sender& sender = it->second;
    transport_->wasted(peer, sender.waiting_bytes);
    for (; !sender.offers.empty(); end_offer(sender)) {
      const std::uint64_t left = sender.offers.front().left;
      stats_.ops_refused += left;
      sender.waiting_ids -= left;
      waiting_ids_ -= left;
    }
    if (std::exchange(sender.in_turn, false)) std::erase(turns_, peer);
    if (log_gate_.open(runtime_.now()))
      log::debug(kArea, "dropping op ids of " + peer.to_string() + ": " + added.error().to_string());
  }
  drop_if_idle(it);
  rest_after(begun);
  next_pieces();
}

void CorePublish::take_agent(const Url& peer, const Bytes& json) {
  stats_.agents_received += 1;
  if (!may_send_agent(peer)) {
    stats_.agents_rate_limited += 1;
    return;
  }
  const auto refuse = [&](std::uint64_t& counter, const Error& why) {
    counter += 1;
    if (log_gate_.open(runtime_.now()))
      log::debug(kArea, "ignoring an agent info of " + peer.to_string() + ": " + log::printable(why.to_string()));
  };
  auto info = AgentInfoSigned::decode(json.text(), verifier_);
  if (!info) return refuse(stats_.agents_invalid, info.error());
  if (auto believed = judge_agent_info((*info)->info(), space_, runtime_.wall_now()); !believed)
    return refuse(stats_.agents_refused, believed.error());
  peers_->insert({*info});
}

bool CorePublish::may_send_agent(const Url& peer) {
  const Time now = runtime_.now();
  auto [it, fresh] = senders_.try_emplace(peer);
  Sender& sender = it->second;
  if (fresh || sender.bucket_at == Time::min()) {
    sender.bucket = kAgentBurst;
  } else {
    const double seconds = std::chrono::duration<double>(now - sender.bucket_at).count();
    sender.bucket = std::min(kAgentBurst, sender.bucket + seconds * kAgentsPerSecond);
  }
  sender.bucket_at = now;
  if (sender.bucket < 1) return false;
  sender.bucket -= 1;
  return true;
}

void CorePublish::on_disconnect(const Url& peer) {
  if (const auto sent = sent_at_.extract(peer); sent && runtime_.now() - sent.mapped() <= kConfirmedAfter) {
    tell_unconfirmed(peer);
  }
  const auto it = senders_.find(peer);
  if (it == senders_.end()) return;
  it->second.connected = false;
  drop_if_idle(it);
}

void CorePublish::drop_if_idle(std::unordered_map<Url, Sender>::iterator it) {
  if (!it->second.connected && it->second.waiting_ids == 0) senders_.erase(it);
}

void CorePublish::stop() {
  assert_on_strand(runtime_, "Publish::stop");
  stopped_ = true;
}

std::shared_ptr<Publish> make_core_publish(Runtime& runtime, const CorePublishConfig& config, const SpaceId& space,
                                           std::shared_ptr<Fetch> fetch, std::shared_ptr<PeerStore> peers,
                                           std::shared_ptr<Transport> transport, const Verifier& verifier) {
  auto publish = std::make_shared<CorePublish>(runtime, config, space, std::move(fetch), std::move(peers),
                                               std::move(transport), verifier);
  // A second module for one space is a mistake of the caller's code; its messages would go nowhere.
  const bool registered = publish->start().has_value();
  K2_ASSERT(registered);
  return publish;
}

}  // namespace kitsune2
