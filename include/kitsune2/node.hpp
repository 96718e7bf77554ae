// A whole node in one object, for applications: threads, stores, transport, spaces.
#pragma once

#include <boost/assert/source_location.hpp>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include "kitsune2/config.hpp"
#include "kitsune2/kitsune.hpp"
#include "kitsune2/log.hpp"

namespace kitsune2 {

/// How a node is set up. Defaults: memory only, no relay, SHA-256 ops. All members have initialisers, so that
/// `Node::start({.relay = "…"})` compiles without warnings.
struct NodeOptions {
  /// Module configuration (`coreFetch`, `coreBootstrap`, `tx5Transport`, …). Invalid keys fail `start` by name.
  Config config = Config::defaults();
  /// What the node speaks. Not set: the config's `network.dialect`.
  std::optional<Dialect> dialect = {};
  /// Where stores and keys are kept; made if missing (0700). Empty: everything in memory. One node at a time uses it.
  std::string data_dir = {};
  /// How ops are named and judged. Null: SHA-256.
  std::shared_ptr<const OpPolicy> policy = {};
  /// The relay to use, "ws://host:port" or "wss://host:port" (plain ws is allowed when it is written here); the
  /// bootstrap server is looked for at the same address unless the config names one. Empty: the config's
  /// `tx5Transport.serverUrl`; neither that nor `listen`: the node is offline and reaches nobody.
  std::string relay = {};
  /// Runs a relay and bootstrap server inside this node at "host:port" (port 0: any) and uses it, under the address in
  /// `relay` if that is given too: the one by which others reach it.
  std::string listen = {};
  /// Certificate and key (PEM) for `listen`; empty: plain ws.
  std::string tls_cert_file = {}, tls_key_file = {};
  /// Extra trust root (PEM) for wss relays.
  std::string tls_ca_file = {};
  /// Serves /healthz and /metrics at "host:port". Empty: off.
  std::string admin = {};
  /// The application's handler. Null: spaces are made on request of this side only, notifies are dropped.
  std::shared_ptr<KitsuneHandler> handler = {};
  /// Who gets this node's log lines, its embedded relay's included, and from which level on: `.log = {my_callback,
  /// LogLevel::warn}`. Default: nobody, unless the process has a log (`set_process_log`). Rules of the callback: see
  /// LogCallback. It is destroyed by `stop` and never called after that.
  LogOptions log = {};
};

namespace detail {

/// What a thread that waits for a call on the strand shares with the strand. Any thread.
class Wait {
 public:
  /// `where`: the place that waits, for messages.
  explicit Wait(const boost::source_location& where) : where_(where) {}
  /// Runs `start` and keeps what it throws for `wait`.
  void call(const std::function<void()>& start);
  /// To be called before the outcome is written, and `finish` after it. False: nobody waits any more, write nothing.
  /// The second outcome of a call ends the program with a message that names the place that waited for the first.
  bool begin();
  void finish();
  /// The call will have no outcome, unless it has one.
  void drop();
  /// True: the outcome is there. False: it was dropped. Throws what `start` has thrown.
  bool wait();
  /// The same, and throws std::future_error when it was dropped.
  void need();

 private:
  enum class State { waiting, writing, finished, dropped, threw };
  const boost::source_location where_;
  std::mutex mutex_;
  std::condition_variable changed_;
  State state_ = State::waiting;
  std::exception_ptr thrown_;
};

/// Goes with the last copy of what could bring the outcome.
template <class Outcome>
struct Ticket {
  explicit Ticket(std::shared_ptr<Outcome> o) : outcome(std::move(o)) {}
  Ticket(const Ticket&) = delete;
  Ticket& operator=(const Ticket&) = delete;
  ~Ticket() { outcome->drop(); }
  std::shared_ptr<Outcome> outcome;
};

}  // namespace detail

/// A running node. It owns one thread (the strand), the stores' threads and that of an embedded relay.
/// Thread rule: all members may be called from any thread but the strand itself. `space`, `agent`, `join`,
/// `wait_online`, `run`, `wait` and `stop` block; on the strand, that is in a handler, a callback or a task, they would
/// wait for themselves for ever, so that there they end the program with a message. Module objects (Space, Fetch, …)
/// belong to the strand: reach them through `run`, `wait` or `runtime().post`. See Runtime's thread rule.
///
/// What is in `data_dir`: `node.lock` (one process at a time), `<space>.db` (ops), `<space>.peers.db` (agent infos),
/// `agent.key` (made by `agent()`); `<space>` is the space's id in base64url.
class Node {
 public:
  /// Returns at once, not only when the relay answers: see `wait_online`.
  /// Errors name what was wrong: Errc::invalid_config (the key, or "relay"), Errc::already_exists (a port in use, a
  /// data directory in use by another process), Errc::io (a path, a certificate file, an address), Errc::disk_full.
  static Result<std::unique_ptr<Node>> start(NodeOptions options);
  /// Stops and joins.
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  Runtime& runtime();
  /// Strand only.
  Kitsune& kitsune();
  /// "ws://host:port" of the relay in use; empty for a node that is offline.
  std::string relay_url() const;
  /// The embedded server's bound address "host:port"; empty without one.
  std::string listen_addr() const;
  /// The admin server's bound address; empty without one.
  std::string admin_addr() const;

  /// The space, made on first use. Blocks until it is there. The pointer may outlive the node; after `stop` its stores
  /// are closed and its modules answer with Errc::cancelled or not at all.
  Result<std::shared_ptr<Space>> space(const SpaceId& space);
  /// The agent whose key is in the data directory (made on first use, 0600); a random one without a directory. Its
  /// target arc is full.
  Result<std::shared_ptr<Ed25519LocalAgent>> agent();
  /// `agent` joins `space` and is to hold `arc`: full, every op of the space comes here by gossip; none, only what is
  /// asked for. Blocks until it has joined. Errors: those of Space::local_agent_join.
  Result<void> join(const std::shared_ptr<Space>& space, const std::shared_ptr<LocalAgent>& agent,
                    DhtArc arc = DhtArc::full());
  /// Blocks until the node has a url. Errc::timed_out, naming the relay, when `timeout` passes; Errc::disconnected for
  /// an offline node; Errc::cancelled when the node is stopped meanwhile.
  Result<Url> wait_online(std::chrono::milliseconds timeout);

  /// Runs `f` on the strand and waits for what it returns or throws. Throws std::future_error when the node is stopped
  /// before `f` had its turn: there is nothing to return.
  template <class F>
  auto run(F f, const boost::source_location& where = BOOST_CURRENT_LOCATION) -> decltype(f()) {
    about_to_block("Node::run", &where);
    using R = decltype(f());
    using Kept = std::conditional_t<std::is_reference_v<R>, std::reference_wrapper<std::remove_reference_t<R>>,
                                    std::conditional_t<std::is_void_v<R>, std::monostate, R>>;
    struct Outcome : detail::Wait {
      using detail::Wait::Wait;
      std::optional<Kept> value;
    };
    const auto outcome = std::make_shared<Outcome>(where);
    runtime().post(
        [ticket = std::make_shared<detail::Ticket<Outcome>>(outcome), f = std::make_shared<F>(std::move(f))] {
          ticket->outcome->call([&] {
            std::optional<Kept> value;
            if constexpr (std::is_void_v<R>) {
              (*f)();
              value.emplace();
            } else {
              value.emplace((*f)());
            }
            if (!ticket->outcome->begin()) return;
            ticket->outcome->value = std::move(value);
            ticket->outcome->finish();
          });
        });
    outcome->need();
    if constexpr (!std::is_void_v<R>) return static_cast<R>(std::move(*outcome->value));
  }

  /// Starts an asynchronous call on the strand and waits for its outcome: `node.wait<T>([&](auto done) { x.call(done);
  /// })`. Throws what the starter throws. Errc::cancelled when the node is stopped before the outcome is there, or
  /// when all copies of the handler are gone. A handler that is called twice is a bug of its caller and ends the
  /// program with a message that names `where`.
  template <class T, class F>
  Result<T> wait(F start, const boost::source_location& where = BOOST_CURRENT_LOCATION) {
    about_to_block("Node::wait", &where);
    struct Outcome : detail::Wait {
      using detail::Wait::Wait;
      std::optional<Result<T>> value;
    };
    const auto outcome = std::make_shared<Outcome>(where);
    runtime().post([ticket = std::make_shared<detail::Ticket<Outcome>>(outcome), start = std::move(start)]() mutable {
      ticket->outcome->call([&] {
        start(Handler<T>([ticket](Result<T> value) {
          if (!ticket->outcome->begin()) return;
          ticket->outcome->value.emplace(std::move(value));
          ticket->outcome->finish();
        }));
      });
    });
    if (outcome->wait()) return std::move(*outcome->value);
    return dropped();
  }

  /// Reads `tls_cert_file` and `tls_key_file` again, for connections to the embedded relay from now on. Nothing to do
  /// without them; `tls_ca_file` is looked at for each connection anyway. Errc::io naming the file: the old certificate
  /// stays.
  Result<void> reload_certificates();

  /// Leaves all spaces (tombstones, so that peers do not wait for us), finishes writes, closes everything, joins the
  /// threads. Takes up to a few seconds when the relay or a peer does not answer. Idempotent; the destructor calls it.
  /// Closed are the stores, too, of spaces that the application still holds: when `stop` has returned, a node on the
  /// same data directory can be started at once. One that is started while this one stops waits for it.
  void stop();

 private:
  struct Impl;
  explicit Node(std::unique_ptr<Impl> impl);
  /// Ends the program with a message if the caller is on the strand.
  void about_to_block(const char* member, const boost::source_location* where = nullptr) const;
  /// Why a call has no outcome.
  Error dropped() const;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kitsune2
