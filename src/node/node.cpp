// A whole node in one object: starts its parts, stops them in order, and waits for its strand.
#include "kitsune2/node.hpp"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "core/callback.hpp"
#include "core/relay_url.hpp"
#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/builder.hpp"
#include "kitsune2/relay_server.hpp"
#include "log/log.hpp"
#include "net/tls.hpp"
#include "net/udp_socket.hpp"
#include "net/ws_connector.hpp"
#include "node/builder/dialect_choice.hpp"
#include "node/builder/relay_transport.hpp"
#include "node/builder/store_paths.hpp"
#include "node/config/config_table.hpp"
#include "node/metrics.hpp"
#include "server/iroh/quic_refusal.hpp"

namespace kitsune2 {
namespace {

/// Modules bound their own stops; this is for a store whose disk hangs.
constexpr auto kStopPatience = std::chrono::seconds(30);

/// For clients of the embedded relay that do not answer its close: together with the rest of a stop, less than a
/// second.
constexpr auto kRelayPatience = std::chrono::milliseconds(400);

/// The rate for each client address: the highest that the relay can tell its clients (1 ns per byte). *Rationale*: an
/// embedded relay serves this node's peers, often on the same machine or network, where 1 Gbit/s would be their limit;
/// a public relay keeps its default.
constexpr std::uint32_t kEmbeddedRelayKbps = 8'000'000;
/// As much time at this rate as a public relay's burst at its own: 134 ms, for a machine that pauses.
constexpr std::uint32_t kEmbeddedHttpPercent = 20;  // most of its time is for the node's peers
constexpr std::uint32_t kEmbeddedRelayBurst = 128U << 20;

/// The application's handler, and a bell for threads that wait for the url.
class NodeHandler final : public KitsuneHandler {
 public:
  explicit NodeHandler(std::shared_ptr<KitsuneHandler> application) : application_(std::move(application)) {}

  void new_listening_address(const Url& own_url) override {
    ring();
    if (application_) application_->new_listening_address(own_url);
  }
  void peer_connect(const Url& peer) override {
    if (application_) application_->peer_connect(peer);
  }
  void peer_disconnect(const Url& peer, const std::optional<std::string>& reason) override {
    if (application_) application_->peer_disconnect(peer, reason);
  }
  Result<Bytes> preflight_gather_outgoing(const Url& peer) override {
    return application_ ? application_->preflight_gather_outgoing(peer) : Result<Bytes>(Bytes{});
  }
  Result<void> preflight_validate_incoming(const Url& peer, Bytes data) override {
    return application_ ? application_->preflight_validate_incoming(peer, std::move(data)) : Result<void>();
  }
  bool allow(const Url& peer, const SpaceId* space, Direction direction) override {
    return application_ == nullptr || application_->allow(peer, space, direction);
  }
  Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId& space) override {
    if (application_) return application_->create_space(space);
    return std::make_shared<SpaceHandler>();
  }

  // --- any thread
  /// Wakes the threads that wait.
  void ring() {
    const std::lock_guard lock(mutex_);
    ++rings_;
    changed_.notify_all();
  }
  std::uint64_t rings() {
    const std::lock_guard lock(mutex_);
    return rings_;
  }
  /// Returns false if `until` has passed without a ring since `seen`.
  bool wait(std::uint64_t seen, std::chrono::steady_clock::time_point until) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, until, [&] { return rings_ != seen; });
  }

 private:
  std::shared_ptr<KitsuneHandler> application_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t rings_ = 0;
};

/// Keeps the strand's objects valid for an application that holds a space longer than its node.
struct SpaceHolder {
  std::shared_ptr<AsioRuntime> runtime;
  std::shared_ptr<Space> space;
  ~SpaceHolder() {
    // The last owner destroys them: on the strand, or here if the strand has ended.
    AsioRuntime& strand = *runtime;
    strand.post([last = std::move(space)] {});
  }
};

std::string http_of(const Url& relay) {
  return (relay.uses_tls() ? "https://" : "http://") + std::string(relay.addr());
}

/// The server of the relay's url, as transports write it for a WebSocket.
std::string websocket_origin(const Url& relay) {
  return (relay.uses_tls() ? "wss://" : "ws://") + std::string(relay.addr());
}

/// Puts the relay's urls into the configuration, which has the dialect. Returns the relay's canonical url, or an empty
/// one for an offline node. `named`: somebody asks for this dialect.
Result<Url> settle_urls(const NodeOptions& options, const RelayServer* server, bool named, Config& config) {
  const Dialect dialect = config.network.spoken();
  std::string relay = options.relay;
  if (relay.empty() && server != nullptr) {
    relay = uses_iroh(dialect) ? server->iroh_relay_url() : server->relay_url();
    if (config_table::is_placeholder(config.core_bootstrap.server_url))
      config.core_bootstrap.server_url = server->bootstrap_url();
  }
  const bool chosen_here = !relay.empty();
  if (!chosen_here && !names_relay(config)) {
    if (named && uses_iroh(dialect)) return relay_of(config).error();
    return Url();
  }
  auto url = chosen_here ? canonical_relay_url(relay, url_form(dialect)) : relay_of(config);
  const bool other_kind = chosen_here && url && uses_iroh(dialect) && !url->scheme().starts_with("http");
  if (!url || other_kind) {
    if (!chosen_here) return url.error();
    const char* const like =
        uses_iroh(dialect) ? "https://host:port/path or http://host:port/path" : "ws://host:port or wss://host:port";
    return make_error(Errc::invalid_config, "relay: in dialect " + std::string(to_string(dialect)) +
                                                " it must be like " + like + ", got \"" + relay + '"' +
                                                (named ? std::string() : because_of_folder(dialect, options.data_dir)));
  }
  set_relay(config, *url, chosen_here);
  if (config_table::is_placeholder(config.core_bootstrap.server_url)) config.core_bootstrap.server_url = http_of(*url);
  return url;
}

/// Checks the configuration for the dialect that the node will speak, before anything is made.
Result<void> validate_for_dialect(const NodeOptions& options, const Config& config) {
  Config judged = config;
  const auto dialect = choose_dialect({}, config, options.relay, options.data_dir);
  if (!dialect) return dialect.error();
  judged.network.dialect = *dialect;
  return judged.validate();
}

/// A node that is offline although a relay is configured, for the other transport.
void warn_of_other_relay(const Config& config, const std::string& data_dir) {
  const Dialect dialect = config.network.spoken();
  const bool iroh = uses_iroh(dialect);
  const bool has_other = iroh ? !config_table::is_placeholder(config.tx5_transport.server_url)
                              : config.iroh_transport.relay_url.has_value();
  if (!has_other) return;
  const std::string tx5_key = "tx5Transport.serverUrl", iroh_key = "irohTransport.relayUrl";
  log::warn("node", "the node is offline: " + (iroh ? tx5_key : iroh_key) + " is for " +
                        (iroh ? "dialect 0.2" : "dialects 0.5 and 0.4") + ", and " + (iroh ? iroh_key : tx5_key) +
                        ", which dialect " + std::string(to_string(dialect)) + " needs, is not set" +
                        because_of_folder(dialect, data_dir));
}

}  // namespace

struct Node::Impl {
  /// The node's own log; null: the process's. Its runtimes take it over from the thread that makes them.
  std::shared_ptr<log::Logger> logger;
  std::shared_ptr<AsioRuntime> runtime;
  std::unique_ptr<DataDir> data_dir;
  std::unique_ptr<RelayServer> server;
  RelayServerOptions relay_options;
  std::unique_ptr<AdminServer> admin;
  std::shared_ptr<NodeHandler> handler;
  // These belong to the strand.
  std::shared_ptr<Kitsune> kitsune;
  std::shared_ptr<NodeMetrics> metrics;

  Url relay;
  std::mutex stopping;
  std::atomic<bool> stopped{false};

  ~Impl() { stop(); }

  Result<void> start(NodeOptions options) {
    if (options.log.callback) logger = std::make_shared<log::Logger>(std::move(options.log));
    const log::Scope scope(logger);
    runtime = std::make_shared<AsioRuntime>();
    Config config = std::move(options.config);
    if (options.dialect) config.network.dialect = *options.dialect;
    const bool named = config.network.dialect.has_value();
    if (!options.tls_ca_file.empty()) config.network.tls_ca_file = options.tls_ca_file;
    if (auto valid = validate_for_dialect(options, config); !valid) return valid;
    if (!config.network.tls_ca_file.empty()) {
      // Otherwise a wrong path would only show as a relay that never answers.
      auto trust = net::TlsContext::client({config.network.tls_ca_file, true});
      if (!trust) return trust.error();
    }
    if (!options.data_dir.empty()) {
      auto dir = DataDir::open(options.data_dir);
      if (!dir) return dir.error();
      data_dir = std::move(*dir);
    }
    const auto dialect = choose_dialect({}, config, options.relay, options.data_dir);
    if (!dialect) return dialect.error();
    config.network.dialect = *dialect;
    if (data_dir) {
      if (auto may = data_dir->may_use_for(*dialect); !may) return may;
    }
    if (!options.listen.empty()) {
      relay_options.listen = {options.listen};
      if (options.quic_listen) {
        if (!options.quic_listen->empty()) relay_options.quic_listen = {*options.quic_listen};
      } else if (uses_iroh(*dialect)) {
        relay_options.quic_listen = server::discovery_addresses(relay_options.listen);
      }
      relay_options.limit_ip_kbps = kEmbeddedRelayKbps;
      relay_options.limit_ip_byte_burst = kEmbeddedRelayBurst;
      relay_options.limit_http_percent = kEmbeddedHttpPercent;
      relay_options.tls_cert = options.tls_cert_file;
      relay_options.tls_key = options.tls_key_file;
      auto started = RelayServer::start(relay_options);
      if (!started) return started.error();
      server = std::move(*started);
    }
    auto url = settle_urls(options, server.get(), named, config);
    if (!url) return url.error();
    relay = *url;
    if (data_dir) {
      // Only now, so that a start that failed has chosen nothing.
      const auto noted = relay.empty() && !named ? data_dir->leave_open() : data_dir->use_for(*dialect);
      if (!noted) return noted.error();
    }

    Builder builder = default_builder(*runtime, config, {options.data_dir, std::move(options.policy)});
    // The embedded relay knows where its peers come from, and a full node keeps the peers that were useful.
    use_relay_transport(
        builder,
        [this, origin = websocket_origin(relay), door = server ? server->local_door() : nullptr] {
          return make_ws_connector(*runtime, origin, door);
        },
        [this](TlsOptions tls) { return make_http_client(*runtime, std::move(tls)); }, options.data_dir,
        make_udp_binder(*runtime),
        [this](const Url& peer) { return kitsune ? kitsune->budget().usefulness(peer) : std::uint64_t{0}; });
    if (relay.empty()) {
      warn_of_other_relay(config, options.data_dir);
      builder.checks.clear();
      // It reaches nobody. Where only known peers are spoken to, that would be the error, and not that it is offline.
      builder.config.network.dialect.reset();
      // Not judged, and without a dialect it would be.
      if (uses_iroh(*dialect)) {
        builder.config.tx5_transport = {};
      } else {
        builder.config.iroh_transport = {};
      }
      builder.transport = [](Runtime& r, const Config&) {
        return Result<std::unique_ptr<TransportBackend>>(make_offline_transport(r));
      };
      builder.bootstrap = [](const ModuleContext& c) { return make_noop_bootstrap(*c.runtime); };
    }
    handler = std::make_shared<NodeHandler>(std::move(options.handler));
    runtime->start();
    Result<void> outcome;
    runtime->call([&] { outcome = build(builder); });
    if (!outcome) return outcome;
    if (!options.admin.empty()) return start_admin(options.admin);
    return {};
  }

  Result<void> build(const Builder& builder) {
    auto built = builder.build(*runtime);
    if (!built) return built.error();
    kitsune = std::move(*built);
    return kitsune->register_handler(handler);
  }

  Result<void> start_admin(const std::string& listen) {
    runtime->call([&] {
      std::function<std::string()> more;
      if (server) more = [relay_server = server.get()] { return relay_server->metrics(); };
      metrics = std::make_shared<NodeMetrics>(*runtime, kitsune, relay.to_string(), std::move(more));
      metrics->start();
    });
    const auto health = [this] {
      const auto problem = metrics->problem();
      return problem ? AdminServer::Health{false, *problem + '\n'} : AdminServer::Health{};
    };
    auto started = AdminServer::start(
        *runtime, listen, [this] { return metrics->render(); }, health);
    if (!started) return started.error();
    admin = std::move(*started);
    return {};
  }

  void stop() {
    const std::lock_guard lock(stopping);
    if (stopped.exchange(true) || !runtime) return;
    const log::Scope scope(logger);
    if (data_dir) data_dir->announce_end();
    if (handler) handler->ring();
    if (admin) admin->stop();
    std::vector<std::shared_ptr<Space>> spaces;
    if (kitsune) {
      runtime->call([&] {
        for (const SpaceId& id : kitsune->list_spaces()) spaces.push_back(kitsune->space_if_exists(id));
      });
      const auto ended = std::make_shared<std::promise<void>>();
      auto end = ended->get_future();
      runtime->call([&] { kitsune->stop([ended] { ended->set_value(); }); });
      if (end.wait_for(kStopPatience) != std::future_status::ready) log::error("node", "a module did not stop in time");
    }
    // On the strand, where they were used.
    runtime->call([&] {
      // The application may hold its spaces longer; the next node on this directory must not wait for that.
      for (const auto& space : std::exchange(spaces, {})) {
        space->op_store().close();
        space->peer_store().close();
        space->peer_meta_store().close();
      }
      metrics.reset();
      kitsune.reset();
    });
    admin.reset();
    runtime->stop();
    // After the node, so that its tombstones could be put.
    if (server) server->stop(kRelayPatience);
    data_dir.reset();
    if (logger) logger->close();
  }
};

// ---------------------------------------------------------------- waiting for the strand

void detail::Wait::call(const std::function<void()>& start) {
  std::exception_ptr thrown;
  try {
    start();
  } catch (...) {
    thrown = std::current_exception();
  }
  if (!thrown) return;
  // Rethrown outside the catch, so that the strand keeps no reference: the exception ends on the thread that catches
  // it, and never while that thread still reads it.
  const std::lock_guard lock(mutex_);
  if (state_ != State::waiting) {
    try {
      std::rethrow_exception(thrown);
    } catch (...) {
      callback_threw(("the call that Node::wait started at " + to_string(where_)).c_str());
    }
  }
  thrown_ = std::move(thrown);
  state_ = State::threw;
  changed_.notify_all();
}

bool detail::Wait::begin() {
  const std::lock_guard lock(mutex_);
  if (state_ == State::threw) return false;
  if (state_ != State::waiting)
    misuse("the handler that Node::wait gave out at " + to_string(where_) +
           " was called twice: an asynchronous call has one outcome");
  state_ = State::writing;
  return true;
}

void detail::Wait::finish() {
  const std::lock_guard lock(mutex_);
  state_ = State::finished;
  changed_.notify_all();
}

void detail::Wait::drop() {
  const std::lock_guard lock(mutex_);
  if (state_ != State::waiting) return;
  state_ = State::dropped;
  changed_.notify_all();
}

bool detail::Wait::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return state_ != State::waiting && state_ != State::writing; });
  if (thrown_) std::rethrow_exception(std::exchange(thrown_, nullptr));
  return state_ == State::finished;
}

void detail::Wait::need() {
  if (!wait()) throw std::future_error(std::future_errc::broken_promise);
}

void Node::about_to_block(const char* member, const boost::source_location* where) const {
  assert_may_block(*impl_->runtime, member, where);
}

Error Node::dropped() const {
  return make_error(Errc::cancelled, impl_->stopped ? "the node is stopped"
                                                    : "the call's handler was dropped without having been called");
}

// ---------------------------------------------------------------- Node

Node::Node(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Node::~Node() {
  about_to_block("Node::~Node");
  impl_->stop();
}

Result<std::unique_ptr<Node>> Node::start(NodeOptions options) {
  auto impl = std::make_unique<Impl>();
  if (auto started = impl->start(std::move(options)); !started) return started.error();
  return std::unique_ptr<Node>(new Node(std::move(impl)));
}

Runtime& Node::runtime() { return *impl_->runtime; }

Kitsune& Node::kitsune() {
  K2_ASSERT(impl_->kitsune != nullptr);
  return *impl_->kitsune;
}

std::string Node::relay_url() const { return impl_->relay.to_string(); }
std::string Node::listen_addr() const { return impl_->server ? impl_->server->address() : std::string(); }
std::string Node::admin_addr() const { return impl_->admin ? impl_->admin->address() : std::string(); }

Result<std::shared_ptr<Space>> Node::space(const SpaceId& id) {
  about_to_block("Node::space");
  auto made = wait<std::shared_ptr<Space>>([this, id](auto done) {
    if (!impl_->kitsune) return done(make_error(Errc::cancelled, "the node is stopped"));
    impl_->kitsune->space(id, [this, id, done = std::move(done)](Result<std::shared_ptr<Space>> r) {
      if (r && impl_->metrics) impl_->metrics->ask_store(id);
      done(std::move(r));
    });
  });
  if (!made) return made.error();
  auto holder = std::make_shared<SpaceHolder>();
  holder->runtime = impl_->runtime;
  holder->space = std::move(*made);
  Space* space = holder->space.get();
  return std::shared_ptr<Space>(std::move(holder), space);
}

Result<std::shared_ptr<Ed25519LocalAgent>> Node::agent() {
  about_to_block("Node::agent");
  if (!impl_->data_dir) return Ed25519LocalAgent::generate();
  return Ed25519LocalAgent::load_or_create(agent_key_path(impl_->data_dir->path()));
}

Result<void> Node::join(const std::shared_ptr<Space>& space, const std::shared_ptr<LocalAgent>& agent, DhtArc arc) {
  about_to_block("Node::join");
  if (!space || !agent) return make_error(Errc::invalid_argument, space ? "no agent" : "no space");
  return wait<void>([&](auto done) { space->local_agent_join_with_arc(agent, arc, std::move(done)); });
}

Result<Url> Node::wait_online(std::chrono::milliseconds timeout) {
  about_to_block("Node::wait_online");
  if (impl_->relay.empty()) return make_error(Errc::disconnected, "no relay is configured");
  const auto until = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    const std::uint64_t seen = impl_->handler->rings();
    std::optional<Url> url;
    const bool ran = impl_->runtime->call([&] {
      if (impl_->kitsune) url = impl_->kitsune->transport().url();
    });
    if (!ran || impl_->stopped) return make_error(Errc::cancelled, "the node is stopped");
    if (url) return *url;
    if (!impl_->handler->wait(seen, until))
      return make_error(Errc::timed_out, "no connection to the relay " + relay_url() + " within " +
                                             std::to_string(timeout.count()) + " ms");
  }
}

Result<void> Node::reload_certificates() {
  const std::lock_guard lock(impl_->stopping);
  const log::Scope scope(impl_->logger);
  if (!impl_->server || impl_->relay_options.tls_cert.empty()) return {};
  const auto read = impl_->server->reload(impl_->relay_options);
  if (!read) return read.error();
  return {};
}

void Node::stop() {
  about_to_block("Node::stop");
  impl_->stop();
}

}  // namespace kitsune2
