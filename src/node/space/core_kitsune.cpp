// The spaces of one node over one transport.
#include <algorithm>
#include <map>
#include <utility>

#include "core/callback.hpp"
#include "kitsune2/builder.hpp"
#include "log/log.hpp"
#include "node/budget/node_peer_budget.hpp"
#include "node/space/core_space.hpp"

namespace kitsune2 {
namespace {

constexpr std::size_t kMaxSpaceIdBytes = 1024;

class CoreKitsune final : public Kitsune, public std::enable_shared_from_this<CoreKitsune> {
 public:
  CoreKitsune(Runtime& runtime, const Builder& builder)
      : runtime_(runtime),
        builder_(builder),
        config_(std::make_shared<RuntimeConfig>(builder.config)),
        report_(builder.report()),
        blocks_(builder.block_list(runtime)) {}

  /// Makes a block take effect at once.
  void start() {
    NodePeerBudget::Node node;
    node.agents_at = [weak = weak_from_this()](const Url& peer) {
      const auto self = weak.lock();
      return self ? self->agents_at(peer) : std::vector<AgentId>();
    };
    node.disconnect = [weak = weak_from_this()](const Url& peer, const std::string& why) {
      if (auto self = weak.lock()) self->send_away(peer, why);
    };
    node.address_group = builder_.address_group;
    budget_ = std::make_shared<NodePeerBudget>(runtime_, builder_.config.peer_budget, std::move(node));
    BlockEvents events;
    events.peer_blocked = [weak = weak_from_this()](const Url& peer) {
      if (auto self = weak.lock()) self->drop_peer(peer);
    };
    events.agent_blocked = [weak = weak_from_this()](const AgentId& agent) {
      if (auto self = weak.lock()) self->drop_agent(agent);
    };
    block_subscription_ = blocks_->on_block(std::move(events));
  }

  Result<void> register_handler(std::shared_ptr<KitsuneHandler> handler) override {
    assert_on_strand(runtime_, "Kitsune::register_handler");
    if (stopping_) return make_error(Errc::cancelled, "the node is stopped");
    if (!handler) return make_error(Errc::invalid_argument, "no handler");
    if (transport_) return make_error(Errc::already_exists, "the node has a handler");
    auto backend = call_for_result("the builder's factory for transport",
                                   [&] { return builder_.transport(runtime_, builder_.config); });
    if (!backend) return backend.error();
    handler_ = std::move(handler);
    transport_ = make_transport(runtime_, std::move(*backend), std::make_shared<Translator>(weak_from_this()),
                                builder_.config.network.spoken());
    return {};
  }

  std::vector<SpaceId> list_spaces() const override {
    assert_on_strand(runtime_, "Kitsune::list_spaces");
    std::vector<SpaceId> out;
    for (const auto& [id, space] : spaces_) out.push_back(id);
    return out;
  }

  void space(const SpaceId& id, Handler<std::shared_ptr<Space>> done) override {
    assert_on_strand(runtime_, "Kitsune::space");
    auto made = get_or_make(id);
    runtime_.post([done = std::move(done), made = std::move(made)] { done(made); });
  }

  std::shared_ptr<Space> space_if_exists(const SpaceId& id) const override {
    assert_on_strand(runtime_, "Kitsune::space_if_exists");
    const auto it = spaces_.find(id);
    return it == spaces_.end() ? nullptr : it->second;
  }

  Transport& transport() override {
    K2_ASSERT(transport_ != nullptr);
    return *transport_;
  }
  BlockList& blocks() override { return *blocks_; }
  PeerBudget& budget() override { return *budget_; }
  Report& report() override { return *report_; }
  RuntimeConfig& config() override { return *config_; }

  void stop(std::function<void()> done) override {
    assert_on_strand(runtime_, "Kitsune::stop");
    on_stopped_.push_back(std::move(done));
    if (stopped_) return runtime_.post([self = shared_from_this()] { self->close(); });
    if (stopping_) return;
    stopping_ = true;
    open_ = spaces_.size() + 1;
    auto self = shared_from_this();
    // A copy, because spaces leave the map as they end.
    for (const auto& [id, space] : std::map(spaces_)) {
      space->stop([self, id = id] {
        self->spaces_.erase(id);
        self->space_stopped();
      });
    }
    runtime_.post([self] { self->space_stopped(); });
  }

 private:
  /// The handler that the transport refers to.
  class Translator final : public TransportHandler {
   public:
    explicit Translator(std::weak_ptr<CoreKitsune> owner) : owner_(std::move(owner)) {}
    void new_listening_address(const Url& own_url) override {
      auto owner = owner_.lock();
      if (!owner) return;
      call_application("KitsuneHandler::new_listening_address",
                       [&] { owner->handler_->new_listening_address(own_url); });
    }
    void peer_connect(const Url& peer) override {
      auto owner = owner_.lock();
      if (!owner) return;
      if (!owner->stopping_) owner->budget_->on_connect(peer);
      call_application("KitsuneHandler::peer_connect", [&] { owner->handler_->peer_connect(peer); });
    }
    void peer_disconnect(const Url& peer, const std::optional<std::string>& reason) override {
      auto owner = owner_.lock();
      if (!owner) return;
      if (!owner->stopping_) owner->budget_->on_disconnect(peer);
      call_application("KitsuneHandler::peer_disconnect", [&] { owner->handler_->peer_disconnect(peer, reason); });
    }
    Result<Bytes> preflight_gather_outgoing(const Url& peer) override {
      auto owner = owner_.lock();
      if (!owner) return Bytes{};
      return call_application("KitsuneHandler::preflight_gather_outgoing",
                              [&] { return owner->handler_->preflight_gather_outgoing(peer); });
    }
    Result<void> preflight_validate_incoming(const Url& peer, Bytes data) override {
      auto owner = owner_.lock();
      if (!owner) return {};
      return call_application("KitsuneHandler::preflight_validate_incoming",
                              [&] { return owner->handler_->preflight_validate_incoming(peer, std::move(data)); });
    }
    bool allow(const Url& peer, const SpaceId* space, Direction direction) override {
      auto owner = owner_.lock();
      return owner != nullptr && owner->allow(peer, space, direction);
    }
    bool is_known(const Url& peer, const SpaceId& space) override {
      const auto owner = owner_.lock();
      const CoreSpace* const found = owner ? owner->find(space) : nullptr;
      return found != nullptr && found->is_known(peer);
    }
    void on_stranger(const Url& peer, const SpaceId& space) override {
      const auto owner = owner_.lock();
      if (CoreSpace* const found = owner && !owner->stopping_ ? owner->find(space) : nullptr) found->on_stranger(peer);
    }

   private:
    std::weak_ptr<CoreKitsune> owner_;
  };

  Result<std::shared_ptr<Space>> get_or_make(const SpaceId& id) {
    if (stopping_) return make_error(Errc::cancelled, "the node is stopped");
    if (!transport_) return make_error(Errc::invalid_argument, "the node has no handler yet");
    if (id.empty() || id.size() > kMaxSpaceIdBytes)
      return make_error(Errc::invalid_argument, "a space id has 1 to 1024 bytes");
    if (const auto it = spaces_.find(id); it != spaces_.end()) return std::shared_ptr<Space>(it->second);
    auto handler = call_for_result("KitsuneHandler::create_space", [&] { return handler_->create_space(id); });
    if (!handler) return handler.error();
    ModuleContext context;
    context.runtime = &runtime_;
    context.config = config_;
    context.verifier = builder_.verifier;
    context.report = report_;
    context.blocks = blocks_;
    context.budget = budget_;
    context.transport = transport_;
    context.space = id;
    auto made = CoreSpace::create(builder_, std::move(context), *handler);
    if (!made) return made.error().context("space " + id.to_string());
    spaces_[id] = *made;
    if (*handler) call_application("SpaceHandler::on_space_created", [&] { (*handler)->on_space_created(**made); });
    return std::shared_ptr<Space>(*made);
  }

  // ---------------------------------------------------------------- access

  CoreSpace* find(const SpaceId& id) const {
    const auto found = spaces_.find(id);
    return found == spaces_.end() ? nullptr : found->second.get();
  }

  bool allow(const Url& peer, const SpaceId* space, Direction direction) {
    if (blocks_->is_peer_blocked(peer)) return false;
    if (agents_blocked_ && all_agents_blocked(peer, space)) return false;
    if (!(space != nullptr ? budget_->admits(peer) : budget_->admits_connection(peer))) return false;
    return call_application("KitsuneHandler::allow", [&] { return handler_->allow(peer, space, direction); });
  }

  /// Whether agents are known at `peer`, in `space` or in any space, and all of them are blocked.
  bool all_agents_blocked(const Url& peer, const SpaceId* space) {
    bool known = false;
    for (const auto& [id, s] : spaces_) {
      if (space != nullptr && id != *space) continue;
      for (const auto& info : s->peer_store().get_by_url(peer)) {
        if (!blocks_->is_agent_blocked(info->info().agent)) return false;
        known = true;
      }
    }
    return known;
  }

  std::vector<AgentId> agents_at(const Url& peer) const {
    std::vector<AgentId> out;
    for (const auto& [id, space] : spaces_) {
      for (const auto& info : space->peer_store().get_by_url(peer)) out.push_back(info->info().agent);
    }
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
  }

  /// Closes the connection of a peer that is over its budget.
  void send_away(const Url& peer, const std::string& why) {
    if (!stopping_ && transport_) transport_->disconnect(peer, {CloseCode::failure, why});
  }

  void drop_peer(const Url& peer) {
    if (stopping_ || !transport_) return;
    for (const auto& [id, space] : spaces_) space->on_source_blocked(peer);
    transport_->disconnect(peer, {});
  }

  void drop_agent(const AgentId& agent) {
    agents_blocked_ = true;
    if (stopping_ || !transport_) return;
    for (const auto& [id, space] : spaces_) {
      const auto info = space->peer_store().get(agent);
      if (!info || !info->info().url) continue;
      const Url url = *info->info().url;
      if (all_agents_blocked(url, &id)) space->on_source_blocked(url);
      if (all_agents_blocked(url, nullptr)) transport_->disconnect(url, {});
    }
  }

  // ---------------------------------------------------------------- end

  void space_stopped() {
    if (--open_ > 0) return;
    auto self = shared_from_this();
    const auto last = [self] {
      self->stopped_ = true;
      self->close();
    };
    if (transport_) {
      transport_->stop(last);
    } else {
      last();
    }
  }

  void close() {
    for (const auto& callback : std::exchange(on_stopped_, {})) {
      if (callback) callback();
    }
  }

  Runtime& runtime_;
  const Builder builder_;
  std::shared_ptr<RuntimeConfig> config_;
  std::shared_ptr<Report> report_;
  std::shared_ptr<BlockList> blocks_;
  std::shared_ptr<NodePeerBudget> budget_;
  std::shared_ptr<void> block_subscription_;
  std::shared_ptr<KitsuneHandler> handler_;
  std::shared_ptr<Transport> transport_;
  std::map<SpaceId, std::shared_ptr<CoreSpace>> spaces_;
  /// No agent was ever blocked, so messages need not be looked up.
  bool agents_blocked_ = false;
  bool stopping_ = false;
  bool stopped_ = false;
  std::size_t open_ = 0;
  std::vector<std::function<void()>> on_stopped_;
};

}  // namespace

Result<std::shared_ptr<Kitsune>> Builder::build(Runtime& runtime) const {
  if (auto valid = validate(); !valid) return valid.error();
  auto kitsune = std::make_shared<CoreKitsune>(runtime, *this);
  kitsune->start();
  return std::shared_ptr<Kitsune>(std::move(kitsune));
}

}  // namespace kitsune2
