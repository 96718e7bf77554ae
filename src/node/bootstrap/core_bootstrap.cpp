// The bootstrap module: sends own infos to the server and requests those of others, again and again.
#include <algorithm>
#include <deque>
#include <map>
#include <utility>

#include "core/milliseconds.hpp"
#include "kitsune2/builder.hpp"
#include "kitsune2/http.hpp"
#include "log/log.hpp"
#include "node/bootstrap/token_client.hpp"
#include "node/config/config_table.hpp"
#include "node/space/agent_rules.hpp"

namespace kitsune2 {
namespace {

constexpr std::size_t kMaxWaitingInfos = 1024;
/// The most infos that are used of one answer. Stock servers send 32.
constexpr std::size_t kMaxInfosInAnswer = 1024;
constexpr Duration kRequestTimeout = std::chrono::seconds(30);
/// So many answers in a row in which this node is missing are followed by the shortest pause.
constexpr int kMissedSoon = 8;
/// Servers take an info whose created_at is within 3 minutes of their clock.
constexpr Duration kFresh = std::chrono::minutes(2);
/// An agent is asked for a newer info no more often. *Rationale*: it goes to all known peers, too, and a server may
/// refuse an info for another reason than its age.
constexpr Duration kAskEvery = std::chrono::minutes(5);

/// A server lists few agents of a space (stock ones 32), so others displace an info that it has taken. If an answer to
/// a request that was made after that lists no agent of this node, one of them is put again, and the next request comes
/// soon, `kMissedSoon` times in a row. *Rationale*: where only known peers are heard, a node that nobody has met yet is
/// heard by nobody until it is listed, and it would sign its next info after many minutes only. In a space with more
/// agents than the server lists this makes as many PUTs as there are GETs. An info that has become too old for the
/// server, or that it refuses and is so old, is signed anew instead (`on_outdated`): a server that was restarted has
/// lost all infos.
class CoreBootstrap final : public Bootstrap, public std::enable_shared_from_this<CoreBootstrap> {
 public:
  CoreBootstrap(const ModuleContext& context, std::shared_ptr<HttpClient> http, std::string server)
      : runtime_(*context.runtime),
        config_(context.config),
        verifier_(*context.verifier),
        space_(context.space),
        peers_(context.peer_store),
        transport_(context.transport),
        url_form_(context.transport ? url_form(context.transport->dialect()) : UrlForm{}),
        http_(std::move(http)),
        server_(std::move(server)),
        space_url_(server_ + "/bootstrap/" + space_.to_string()) {}

  void start() {
    // New bounds shorten pauses that are under way.
    subscription_ = config_->on_update("coreBootstrap", [weak = weak_from_this()](const Config&) {
      if (auto self = weak.lock()) self->bounds_changed();
    });
    poll_soon();
  }

  ~CoreBootstrap() override {
    runtime_.cancel(put_timer_);
    runtime_.cancel(poll_timer_);
    runtime_.cancel(stop_timer_);
  }

  void put(AgentInfoPtr info) override {
    assert_on_strand(runtime_, "Bootstrap::put");
    if (stopped_ || !info) return;
    if (info->info().space != space_) {
      log::error("bootstrap", "an agent info of another space is not sent to the server");
      return;
    }
    const AgentId& agent = info->info().agent;
    if (info->info().is_tombstone) {
      own_.erase(agent);
    } else if (own_.contains(agent) || own_.size() < kMaxWaitingInfos) {
      Own& own = own_[agent];
      own.info = info;
      own.taken_after.reset();
    }
    const bool fresh = waiting_.insert_or_assign(agent, info).second;
    if (fresh && waiting_.size() > kMaxWaitingInfos) {
      log::warn("bootstrap", "too many agent infos of this node wait for the server; dropping one");
      waiting_.erase(agent);
      return;
    }
    // It was not tried yet, so it waits neither for the back-off of others nor for that of the info it replaces.
    std::erase(queue_, agent);
    std::erase(retry_, agent);
    queue_.push_front(agent);
    put_wait_ = Duration::zero();
    retry_now();
  }

  void on_outdated(std::function<void(const AgentId& agent)> sign_again) override {
    assert_on_strand(runtime_, "Bootstrap::on_outdated");
    sign_again_ = std::move(sign_again);
  }

  void poll_now() override {
    assert_on_strand(runtime_, "Bootstrap::poll_now");
    if (stopped_) return;
    poll_wait_ = Duration::zero();
    if (polling_) {
      poll_again_ = true;
    } else {
      poll_soon();
    }
  }

  BootstrapStatus status() const override { return status_; }

  void stop(std::function<void()> done) override {
    assert_on_strand(runtime_, "Bootstrap::stop");
    on_stopped_.push_back(std::move(done));
    if (!stopped_) {
      stopped_ = true;
      subscription_.reset();
      runtime_.cancel(poll_timer_);
      poll_timer_ = 0;
      // Waits only for first attempts; those that failed before have little chance.
      for (const AgentId& agent : retry_) waiting_.erase(agent);
      if (unreachable_) waiting_.clear();
      unreachable_ = false;
      retry_.clear();
      runtime_.cancel(put_timer_);
      put_timer_ = 0;
      stop_timer_ = runtime_.schedule_after(from_ms(config().stop_patience_ms), [weak = weak_from_this()] {
        if (auto self = weak.lock()) self->waiting_.clear(), self->putting_.reset(), self->check_stopped();
      });
    }
    runtime_.post([self = shared_from_this()] { self->check_stopped(); });
  }

 private:
  const CoreBootstrapConfig& config() const { return config_->current().core_bootstrap; }

  /// The pause after `last`: the shortest one first, then doubling up to the longest one.
  Duration grown(Duration last) const {
    if (last == Duration::zero()) return from_ms(config().backoff_min_ms);
    return std::min(last * 2, from_ms(config().backoff_max_ms));
  }

  void bounds_changed() {
    if (poll_timer_ != 0 && poll_wait_ > from_ms(config().backoff_max_ms)) poll_soon();
    if (put_timer_ != 0 && put_wait_ > from_ms(config().backoff_max_ms)) retry_now();
  }

  // ---------------------------------------------------------------- put

  /// Ends the back-off.
  void retry_now() {
    runtime_.cancel(put_timer_);
    put_timer_ = 0;
    unreachable_ = false;
    queue_.insert(queue_.end(), retry_.begin(), retry_.end());
    retry_.clear();
    put_next();
  }

  void put_next() {
    if (putting_ || unreachable_) return;
    while (!queue_.empty()) {
      const AgentId agent = queue_.front();
      queue_.pop_front();
      const auto it = waiting_.find(agent);
      if (it == waiting_.end()) continue;
      if (it->second->is_expired(runtime_.wall_now())) {
        waiting_.erase(it);
        continue;
      }
      putting_ = it->second;
      break;
    }
    if (!putting_) return;
    HttpRequest request;
    request.method = HttpMethod::kPut;
    request.url = space_url_ + '/' + putting_->info().agent.to_string();
    request.body = putting_->encode();
    request.headers = {{"Content-Type", "application/json"}};
    request.timeout = kRequestTimeout;
    http_->request(std::move(request), [weak = weak_from_this(), info = putting_](const Result<HttpResponse>& answer) {
      if (auto self = weak.lock()) self->put_done(info, answer);
    });
  }

  /// Whatever the answer says, it shows that the network works.
  void tell_transport(const Result<HttpResponse>& answer) {
    if (!answer) return;
    if (const auto transport = transport_.lock()) transport->on_server_answered();
  }

  void put_done(const AgentInfoPtr& info, const Result<HttpResponse>& answer) {
    tell_transport(answer);
    if (putting_ != info) return;
    putting_.reset();
    const auto it = waiting_.find(info->info().agent);
    const bool current = it != waiting_.end() && it->second == info;
    const bool taken = answer && answer->status == 200;
    if (taken) {
      put_wait_ = Duration::zero();
      status_.put_failure.reset();
      if (const auto own = own_.find(info->info().agent); own != own_.end() && own->second.info == info) {
        own->second.taken_after = polls_;
      }
    } else {
      note_put_failure(answer);
    }
    if (current && (taken || stopped_)) {
      waiting_.erase(it);
    } else if (current && !(answer && ask_for_newer(info->info().agent))) {
      // An answer concerns this info alone; without one the others need not try either.
      if (!answer) unreachable_ = true;
      retry_.push_back(info->info().agent);
      retry_later();
    }
    put_next();
    if (stopped_) check_stopped();
  }

  /// False: the info is not too old for the server, or a newer one was asked for a short time ago.
  bool ask_for_newer(const AgentId& agent) {
    const auto own = own_.find(agent);
    if (stopped_ || !sign_again_ || own == own_.end()) return false;
    const Duration age = runtime_.wall_now() - own->second.info->info().created_at;
    if ((age <= kFresh && age >= -kFresh) || runtime_.now() < own->second.ask_from) return false;
    own->second.ask_from = runtime_.now() + kAskEvery;
    waiting_.erase(agent);
    sign_again_(agent);
    return true;
  }

  void note_put_failure(const Result<HttpResponse>& answer) {
    const std::string why = answer
                                ? "status " + std::to_string(answer->status) + ' ' + log::printable(answer->body, 120)
                                : answer.error().to_string();
    status_.put_failure = answer ? make_error(Errc::overloaded, server_ + " refuses it with " + why) : answer.error();
    if (put_log_.open(runtime_.now())) log::info("bootstrap", "the server did not accept an agent info: " + why);
  }

  void retry_later() {
    if (put_timer_ != 0) return;
    put_wait_ = grown(put_wait_);
    put_timer_ = runtime_.schedule_after(put_wait_, [weak = weak_from_this()] {
      if (auto self = weak.lock()) {
        self->put_timer_ = 0;
        self->retry_now();
      }
    });
  }

  // ---------------------------------------------------------------- poll

  void poll_soon() {
    runtime_.cancel(poll_timer_);
    schedule_poll(Duration::zero());
  }

  void schedule_poll(Duration wait) {
    poll_timer_ = runtime_.schedule_after(wait, [weak = weak_from_this()] {
      if (auto self = weak.lock()) {
        self->poll_timer_ = 0;
        self->poll();
      }
    });
  }

  void poll() {
    polling_ = true;
    ++polls_;
    HttpRequest request;
    request.url = space_url_;
    request.timeout = kRequestTimeout;
    request.max_response_bytes = config().max_response_bytes;
    http_->request(std::move(request), [weak = weak_from_this()](const Result<HttpResponse>& answer) {
      if (auto self = weak.lock()) self->polled(answer);
    });
  }

  void polled(const Result<HttpResponse>& answer) {
    polling_ = false;
    if (stopped_) return;
    tell_transport(answer);
    if (!answer) {
      poll_failed(answer.error());
    } else if (answer->status != 200) {
      poll_failed(bad_status(answer->status));
    } else {
      take(answer->body);
    }
    if (std::exchange(poll_again_, false)) return poll_soon();
    const bool is_missing = status_.listed && !status_.listed->has_own && put_again();
    missed_ = is_missing ? missed_ + 1 : 0;
    poll_wait_ = grown(is_missing && missed_ <= kMissedSoon ? Duration::zero() : poll_wait_);
    schedule_poll(poll_wait_);
  }

  /// Nobody of this node is listed. False: no info of it had to be.
  bool put_again() {
    for (auto& [agent, own] : own_) {
      if (!own.taken_after || *own.taken_after >= polls_ || own.info->is_expired(runtime_.wall_now())) continue;
      own.taken_after.reset();
      if (ask_for_newer(agent)) return true;
      waiting_[agent] = own.info;
      queue_.push_back(agent);
      put_next();
      return true;
    }
    return false;
  }

  Error bad_status(int status) const {
    if (status == kUnauthorized && config().auth_material_base64)
      return make_error(Errc::blocked, server_ + " refuses the token that it has given");
    if (status == kUnauthorized) {
      return make_error(Errc::blocked, server_ + " asks for authentication (coreBootstrap.authMaterialBase64)");
    }
    return make_error(Errc::peer_unresponsive,
                      server_ + " answered with status " + std::to_string(status) + "; is it a bootstrap server?");
  }

  void poll_failed(const Error& why) {
    status_.failure = why;
    status_.listed.reset();
    if (poll_log_.open(runtime_.now()))
      log::info("bootstrap", "no agent infos from the server: " + log::printable(why.to_string()));
  }

  void take(const std::string& body) {
    auto list = AgentInfoSigned::decode_list(body, kMaxInfosInAnswer, verifier_, url_form_);
    if (!list) return poll_failed(list.error().context(server_));
    status_.has_answered = true;
    status_.failure.reset();
    BootstrapStatus::Listed listed;
    std::vector<AgentInfoPtr> good;
    for (const auto& entry : *list) {
      const auto own = entry ? own_.find((*entry)->info().agent) : own_.end();
      if (own == own_.end()) ++listed.others;
      if (own != own_.end() && (*entry)->info().created_at == own->second.info->info().created_at)
        listed.has_own = true;
      const auto believed =
          entry ? judge_agent_info((*entry)->info(), space_, runtime_.wall_now()) : Result<void>(entry.error());
      if (believed) {
        good.push_back(*entry);
      } else if (log::enabled(log::Level::debug)) {
        log::debug("bootstrap",
                   "ignoring an agent info of the server: " + log::printable(believed.error().to_string()));
      }
    }
    status_.listed = listed;
    if (!good.empty()) peers_->insert_from(good, server_);
  }

  void check_stopped() {
    if (!stopped_ || on_stopped_.empty()) return;
    if (putting_ || !waiting_.empty()) {
      put_next();
      if (putting_) return;
    }
    runtime_.cancel(stop_timer_);
    stop_timer_ = 0;
    for (const auto& callback : std::exchange(on_stopped_, {})) callback();
  }

  Runtime& runtime_;
  std::shared_ptr<RuntimeConfig> config_;
  const Verifier& verifier_;
  const SpaceId space_;
  std::shared_ptr<PeerStore> peers_;
  const std::weak_ptr<Transport> transport_;
  const UrlForm url_form_;
  std::shared_ptr<HttpClient> http_;
  const std::string server_;
  const std::string space_url_;
  std::shared_ptr<void> subscription_;

  std::map<AgentId, AgentInfoPtr> waiting_;  ///< the newest info of each agent that the server does not have yet
  std::deque<AgentId> queue_;                ///< those of them to be tried, in this order
  std::deque<AgentId> retry_;                ///< the others, to be tried again after the back-off
  bool unreachable_ = false;                 ///< nothing is tried until the back-off is over
  AgentInfoPtr putting_;
  struct Own {
    AgentInfoPtr info;                         ///< the newest one
    std::optional<std::uint64_t> taken_after;  ///< as many polls had been made when the server took it
    Time ask_from = Time::min();               ///< from when on a newer one may be asked for
  };
  std::map<AgentId, Own> own_;  ///< agents of this node
  std::function<void(const AgentId&)> sign_again_;
  Duration put_wait_{};
  Runtime::TimerId put_timer_ = 0;

  BootstrapStatus status_;
  bool polling_ = false;
  std::uint64_t polls_ = 0;
  int missed_ = 0;  ///< answers in a row in which this node was missing
  bool poll_again_ = false;
  Duration poll_wait_{};
  Runtime::TimerId poll_timer_ = 0;

  bool stopped_ = false;
  Runtime::TimerId stop_timer_ = 0;
  std::vector<std::function<void()>> on_stopped_;
  log::Gate put_log_{std::chrono::minutes(1)}, poll_log_{std::chrono::minutes(1)};
};

}  // namespace

Result<std::shared_ptr<Bootstrap>> make_core_bootstrap(const ModuleContext& context, std::shared_ptr<HttpClient> http) {
  const auto server = config_table::bootstrap_server(context.config->current().core_bootstrap);
  if (!server) return server.error();
  // As in the reference, the path of the url is not used.
  const std::string root = (server->tls ? "https://" : "http://") + server->authority;
  if (const auto& material = context.config->current().core_bootstrap.auth_material_base64) {
    // The configuration was checked.
    http = make_token_client(*context.runtime, std::move(http), root, auth_material(*material).value());
  }
  auto bootstrap = std::make_shared<CoreBootstrap>(context, std::move(http), root);
  bootstrap->start();
  return std::shared_ptr<Bootstrap>(std::move(bootstrap));
}

}  // namespace kitsune2
