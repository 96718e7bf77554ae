// The router above a transport's backend: preflights, blocked peers, and which module receives a message.
#include "kitsune2/transport.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "core/access/known_urls.hpp"
#include "core/access/stranger_book.hpp"
#include "core/access/unsent_book.hpp"
#include "log/log.hpp"
#include "wire/k2proto.hpp"

namespace kitsune2 {
namespace {

/// A peer's reason for leaving is cut to this length.
constexpr std::size_t kMaxReasonBytes = 1024;
constexpr const char* kStopped = "the transport is stopped";
/// As long as messages of strangers wait, or to them, the handler is asked this often who they are.
constexpr Duration kAskAgain = std::chrono::seconds(1);

class DefaultTransport final : public Transport,
                               public TransportEvents,
                               public std::enable_shared_from_this<DefaultTransport> {
 public:
  DefaultTransport(Runtime& runtime, std::unique_ptr<TransportBackend> backend,
                   std::shared_ptr<TransportHandler> handler, Dialect dialect)
      : runtime_(runtime), dialect_(dialect), handler_(std::move(handler)), backend_(std::move(backend)) {}

  ~DefaultTransport() override { fail(unsent_.take_all(), make_error(Errc::cancelled, kStopped)); }

  void start() { backend_->start(*this); }

  // ---- Transport
  Dialect dialect() const override { return dialect_; }

  std::optional<Url> url() const override {
    assert_on_strand(runtime_, "Transport::url");
    return stopped_ ? std::nullopt : backend_->url();
  }

  std::optional<TransportFailure> failure() const override { return stopped_ ? std::nullopt : backend_->failure(); }

  Result<void> register_space_handler(const SpaceId& space, std::shared_ptr<SpaceMessageHandler> handler) override {
    assert_on_strand(runtime_, "Transport::register_space_handler");
    Space& entry = spaces_[space];
    if (entry.handler) return make_error(Errc::already_exists, "the space has a handler: " + space.to_string());
    entry.handler = std::move(handler);
    return {};
  }

  Result<void> register_module_handler(const SpaceId& space, const std::string& module,
                                       std::shared_ptr<ModuleMessageHandler> handler) override {
    assert_on_strand(runtime_, "Transport::register_module_handler");
    if (!spaces_[space].modules.emplace(module, std::move(handler)).second) {
      return make_error(Errc::already_exists, "the module has a handler: " + space.to_string() + " " + module);
    }
    return {};
  }

  void unregister_space(const SpaceId& space) override {
    assert_on_strand(runtime_, "Transport::unregister_space");
    spaces_.erase(space);
    blocked_ += strangers_.forget(space);
    fail(unsent_.take(space), make_error(Errc::cancelled, "the space has ended"));
  }

  void send_space_notify(const Url& peer, const SpaceId& space, Bytes data, Handler<> done) override {
    assert_on_strand(runtime_, "Transport::send_space_notify");
    if (refused(peer, space, done)) return;
    if (!is_known_to(space, peer) && unheard_log_.open(runtime_.now())) {
      log::info("transport", "a notify to " + peer.to_string() +
                                 " may not be heard: that peer has not shown yet that it knows an agent of this node" +
                                 unheard_log_.left_out());
    }
    send(peer, space, wire::encode_notify(space, data), std::move(done));
  }

  void send_module(const Url& peer, const SpaceId& space, const std::string& module, ByteChain body,
                   Handler<> done) override {
    assert_on_strand(runtime_, "Transport::send_module");
    if (refused(peer, space, done)) return;
    send(peer, space, wire::encode_module(space, module, body), std::move(done));
  }

  void disconnect(const Url& peer, const CloseReason& reason) override {
    assert_on_strand(runtime_, "Transport::disconnect");
    if (stopped_) return;
    if (closed_log_.open(runtime_.now())) {
      log::debug("transport",
                 "closing the connection to " + peer.to_string() + ": " +
                     (reason.text.empty() ? "no reason given" : log::printable(reason.text, kMaxReasonBytes)) +
                     closed_log_.left_out());
    }
    const bool needs_message = !reason.text.empty() && !close_has_text(dialect_);
    backend_->disconnect(peer, reason, needs_message ? wire::encode_disconnect(reason.text) : Bytes());
  }

  std::uint64_t max_message_bytes() const override { return backend_->max_message_bytes(); }

  std::optional<Duration> round_trip(const Url& peer) const override {
    assert_on_strand(runtime_, "Transport::round_trip");
    return stopped_ ? std::nullopt : backend_->round_trip(peer);
  }

  void wasted(const Url& peer, std::uint64_t bytes) override {
    assert_on_strand(runtime_, "Transport::wasted");
    if (!stopped_) backend_->wasted(peer, bytes);
  }

  std::uint64_t sent_mark(const Url& peer) const override {
    assert_on_strand(runtime_, "Transport::sent_mark");
    return stopped_ ? 0 : backend_->sent_mark(peer);
  }

  void was_read(const Url& peer, std::uint64_t mark) override {
    assert_on_strand(runtime_, "Transport::was_read");
    if (!stopped_) backend_->was_read(peer, mark);
  }

  void on_server_answered() override {
    if (!stopped_) backend_->on_server_answered();
  }

  void on_peer_known(const SpaceId& space, const Url& peer) override {
    assert_on_strand(runtime_, "Transport::on_peer_known");
    if (stopped_ || !somebody_waits()) return;
    // Later, because who has found it out is in the middle of something.
    runtime_.post([weak = weak_from_this(), space, peer] {
      const auto self = weak.lock();
      if (!self || self->stopped_) return;
      self->handle_what_waits(peer, space);
    });
  }

  bool is_known_to(const SpaceId& space, const Url& peer) const override {
    if (!known_peers_only(dialect_)) return true;
    const auto found = spaces_.find(space);
    return found != spaces_.end() && found->second.heard.is_known(peer, runtime_.now());
  }

  TransportStats stats() const override {
    assert_on_strand(runtime_, "Transport::stats");
    TransportStats stats = backend_->stats();
    stats.blocked_message_count = blocked_;
    stats.waiting_message_count = strangers_.size() + unsent_.size();
    return stats;
  }

  void stop(std::function<void()> done) override {
    assert_on_strand(runtime_, "Transport::stop");
    if (stopped_) {
      runtime_.post(std::move(done));
      return;
    }
    stopped_ = true;
    runtime_.cancel(std::exchange(strangers_timer_, 0));
    fail(unsent_.take_all(), make_error(Errc::cancelled, kStopped));
    backend_->stop([self = shared_from_this(), done = std::move(done)] {
      // Spaces hold this transport, and this object held them.
      self->spaces_.clear();
      done();
    });
  }

  // ---- TransportEvents
  void new_listening_address(const Url& own_url) override {
    if (handler_) handler_->new_listening_address(own_url);
    for (const auto& space : space_handlers()) space->new_listening_address(own_url);
    for (const auto& module : module_handlers()) module->new_listening_address(own_url);
  }

  void listening_address_lost() override {}

  Result<Bytes> peer_connect(const Url& peer) override {
    if (!allowed(peer, nullptr, Direction::outgoing)) return make_error(Errc::blocked, "the peer is blocked");
    Bytes preflight;
    if (handler_) {
      Result<Bytes> gathered = handler_->preflight_gather_outgoing(peer);
      if (!gathered) return gathered.error();
      preflight = std::move(*gathered);
    }
    for (const auto& module : module_handlers()) module->peer_connect(peer);
    for (const auto& space : space_handlers()) space->peer_connect(peer);
    if (handler_) handler_->peer_connect(peer);
    return wire::encode_preflight(preflight);
  }

  Result<void> recv_data(const Url& peer, Bytes message) override {
    Result<wire::K2ProtoView> decoded = wire::decode_k2proto(message);
    if (decoded && decoded->type == wire::K2WireType::preflight) {
      if (!allowed(peer, nullptr, Direction::incoming)) return make_error(Errc::blocked, "the peer is blocked");
      return handler_ ? handler_->preflight_validate_incoming(peer, std::move(decoded->data)) : Result<void>();
    }
    if (decoded && waits(peer, *decoded, message)) return {};
    Result<void> taken = decoded ? take(peer, *decoded) : Result<void>(decoded.error());
    if (taken || refused_message_closes(dialect_)) return taken;
    // The connection stays, so nothing else keeps it from sending such messages without end.
    backend_->wasted(peer, message.size());
    if (refused_log_.open(runtime_.now())) {
      log::debug("transport", "a message of " + peer.to_string() + " is dropped: " + taken.error().to_string() +
                                  refused_log_.left_out());
    }
    return {};
  }

  void recv_progress(const Url& peer, std::size_t bytes) override {
    for (const auto& module : module_handlers()) module->recv_progress(peer, bytes);
  }

  void peer_disconnect(const Url& peer, const std::optional<std::string>& reason) override {
    // What waits of it waits on: it was sent before, and a connection may end because another one takes its place.
    for (const auto& module : module_handlers()) module->peer_disconnect(peer, reason);
    for (const auto& space : space_handlers()) space->peer_disconnect(peer, reason);
    if (handler_) handler_->peer_disconnect(peer, reason);
  }

  /// `heard` has only those of whom an agent of the space was known, and who were not blocked. They may be now.
  bool shares_space(const Url& peer) override {
    if (!known_peers_only(dialect_)) return false;
    return std::ranges::any_of(spaces_, [&](const auto& entry) {
      return entry.second.heard.is_known(peer, runtime_.now()) && !is_stranger(peer, entry.first) &&
             (!handler_ || handler_->allow(peer, &entry.first, Direction::outgoing));
    });
  }

 private:
  struct Space {
    std::shared_ptr<SpaceMessageHandler> handler;
    std::map<std::string, std::shared_ptr<ModuleMessageHandler>, std::less<>> modules;
    KnownUrls heard;  ///< peers that have sent a message, where the dialect has known_peers_only
  };

  bool allowed(const Url& peer, const SpaceId* space, Direction direction) {
    if (!handler_ || handler_->allow(peer, space, direction)) return true;
    blocked_ += 1;
    return false;
  }

  bool is_stranger(const Url& peer, const SpaceId& space) {
    return known_peers_only(dialect_) && handler_ && !handler_->is_known(peer, space);
  }

  /// Whether it is a stranger's message, which is handled later if at all.
  bool waits(const Url& peer, const wire::K2ProtoView& decoded, const Bytes& message) {
    const bool speaks = decoded.type == wire::K2WireType::notify || decoded.type == wire::K2WireType::module;
    if (!speaks || !decoded.space) return false;
    const SpaceId space(*decoded.space);
    if (!spaces_.contains(space)) return false;
    if (!is_stranger(peer, space)) {
      // Perhaps it has just become known. What it sent before must not be overtaken.
      if (strangers_.size() > 0) handle_what_waits(peer, space);
      return false;
    }
    if (!strangers_.hold(peer, space, message, runtime_.now(), blocked_)) {
      blocked_ += 1;
      backend_->wasted(peer, message.size());
      return true;
    }
    if (stranger_log_.open(runtime_.now())) {
      log::info("transport", "messages of " + peer.to_string() +
                                 " wait, because no agent of the space is known there; asking who it is" +
                                 stranger_log_.left_out());
    }
    handler_->on_stranger(peer, space);
    watch_strangers();
    return true;
  }

  void handle_what_waits(const Url& peer, const SpaceId& space) {
    send_what_waits(peer, space);
    for (const Bytes& message : strangers_.take(peer, space)) static_cast<void>(recv_data(peer, message));
  }

  void send_what_waits(const Url& peer, const SpaceId& space) {
    for (UnsentBook::Message& message : unsent_.take(peer, space)) {
      if (!refused(peer, space, message.done))
        backend_->send(peer, std::move(message.content), std::move(message.done));
    }
  }

  bool somebody_waits() const { return strangers_.size() + unsent_.size() > 0; }

  /// Not refused.
  void send(const Url& peer, const SpaceId& space, ByteChain message, Handler<> done) {
    if (is_stranger(peer, space)) {
      hold(UnsentBook::Message{peer, space, std::move(message), std::move(done)});
      return;
    }
    // Perhaps it has just become known. What was to be sent before must not be overtaken.
    if (unsent_.size() > 0) send_what_waits(peer, space);
    backend_->send(peer, std::move(message), std::move(done));
  }

  void hold(UnsentBook::Message message) {
    const Url peer = message.peer;
    const SpaceId space = message.space;
    if (!unsent_.hold(message, runtime_.now())) {
      fail_unknown(std::move(message));
      return;
    }
    handler_->on_stranger(peer, space);
    watch_strangers();
  }

  void fail_unknown(UnsentBook::Message message) {
    blocked_ += 1;
    complete(std::move(message.done),
             make_error(Errc::blocked, "no agent of the space is known at " + message.peer.to_string()));
  }
  void fail(std::vector<UnsentBook::Message> messages, const Error& why) {
    for (UnsentBook::Message& message : messages) complete(std::move(message.done), why);
  }
  void complete(Handler<> done, Error why) {
    if (!done) return;
    runtime_.post([done = std::move(done), why = std::move(why)]() mutable { done(std::move(why)); });
  }

  void watch_strangers() {
    if (strangers_timer_ != 0 || !somebody_waits() || stopped_) return;
    strangers_timer_ = runtime_.schedule_after(kAskAgain, [weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self) return;
      self->strangers_timer_ = 0;
      self->blocked_ += self->strangers_.expire(self->runtime_.now());
      for (auto& message : self->unsent_.take_expired(self->runtime_.now())) self->fail_unknown(std::move(message));
      std::map<SpaceId, Url> waiting = self->strangers_.waiting();
      waiting.merge(self->unsent_.waiting());
      for (const auto& [space, peer] : waiting) {
        if (self->handler_) self->handler_->on_stranger(peer, space);
      }
      self->watch_strangers();
    });
  }

  /// Completes `done` with an error if the message must not be sent.
  bool refused(const Url& peer, const SpaceId& space, Handler<>& done) {
    Error why;
    if (stopped_) {
      why = make_error(Errc::cancelled, kStopped);
    } else if (!allowed(peer, &space, Direction::outgoing)) {
      why = make_error(Errc::blocked, "the peer is blocked");
    } else {
      return false;
    }
    complete(std::move(done), std::move(why));
    return true;
  }

  /// Handles all messages except the preflight.
  Result<void> take(const Url& peer, wire::K2ProtoView& message) {
    switch (message.type) {
      case wire::K2WireType::unspecified:
      case wire::K2WireType::preflight:
        return {};
      case wire::K2WireType::notify:
      case wire::K2WireType::module:
        return route(peer, message);
      case wire::K2WireType::disconnect:
        return make_error(Errc::disconnected,
                          "the peer left: " + log::printable(as_text(message.data), kMaxReasonBytes));
    }
    return {};
  }

  Result<void> route(const Url& peer, wire::K2ProtoView& message) {
    if (!message.space) return {};
    const SpaceId space(*message.space);
    if (!allowed(peer, &space, Direction::incoming)) {
      // Where the connection of a peer that is put aside stays, it must not go on at the speed of the line.
      backend_->wasted(peer, message.data.size());
      return {};
    }
    auto found = spaces_.find(space);
    if (found == spaces_.end()) return {};
    if (known_peers_only(dialect_) && found->second.heard.on_info(peer, runtime_.now())) {
      const auto modules = found->second.modules;
      for (const auto& [name, module] : modules) module->peer_knows_us(peer);
      found = spaces_.find(space);
      if (found == spaces_.end()) return {};
    }
    // The handler may unregister itself, so keep it alive.
    if (message.type == wire::K2WireType::notify) {
      const std::shared_ptr<SpaceMessageHandler> handler = found->second.handler;
      return handler ? handler->recv_space_notify(peer, space, std::move(message.data)) : Result<void>();
    }
    if (!message.module) return {};
    const auto module = found->second.modules.find(message.module->text());
    if (module == found->second.modules.end()) return {};
    const std::shared_ptr<ModuleMessageHandler> handler = module->second;
    Result<void> taken = handler->recv_module_msg(peer, space, std::move(message.data));
    if (!taken && refused_message_closes(dialect_) && refused_log_.open(runtime_.now())) {
      log::debug("transport", std::string(message.module->text()) + " refused a message of " + peer.to_string() +
                                  "; closing the connection: " + taken.error().to_string() + refused_log_.left_out());
    }
    return taken;
  }

  // Copies, because a handler may register or unregister during the call.
  std::vector<std::shared_ptr<SpaceMessageHandler>> space_handlers() const {
    std::vector<std::shared_ptr<SpaceMessageHandler>> out;
    for (const auto& [id, space] : spaces_) {
      if (space.handler) out.push_back(space.handler);
    }
    return out;
  }
  std::vector<std::shared_ptr<ModuleMessageHandler>> module_handlers() const {
    std::vector<std::shared_ptr<ModuleMessageHandler>> out;
    for (const auto& [id, space] : spaces_) {
      for (const auto& [name, module] : space.modules) out.push_back(module);
    }
    return out;
  }

  Runtime& runtime_;
  const Dialect dialect_;
  std::shared_ptr<TransportHandler> handler_;
  std::map<SpaceId, Space> spaces_;
  std::uint64_t blocked_ = 0;
  StrangerBook strangers_;
  UnsentBook unsent_;
  Runtime::TimerId strangers_timer_ = 0;
  log::Gate stranger_log_;
  log::Gate unheard_log_;
  log::Gate refused_log_;
  log::Gate closed_log_;
  bool stopped_ = false;
  std::unique_ptr<TransportBackend> backend_;  // last, so that it is destroyed first
};

}  // namespace

std::shared_ptr<Transport> make_transport(Runtime& runtime, std::unique_ptr<TransportBackend> backend,
                                          std::shared_ptr<TransportHandler> handler, Dialect dialect) {
  auto transport = std::make_shared<DefaultTransport>(runtime, std::move(backend), std::move(handler), dialect);
  transport->start();
  return transport;
}

}  // namespace kitsune2
