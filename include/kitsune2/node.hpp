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

/// The set-up of a node. By default it is in memory only, has no relay, and has SHA-256 ops. All members have
/// initialisers, so that `Node::start({.relay = "…"})` compiles without warnings.
struct NodeOptions {
  /// The configuration of the modules (`coreFetch`, `coreBootstrap`, …). `start` fails on an invalid key and names it.
  Config config = Config::defaults();
  /// The dialect that the node speaks. Not set: the config's `network.dialect`; else that of the data in `data_dir`;
  /// else, if a relay is named, the one whose relays have such urls (ws and wss: 0.2, http and https: 0.5); else
  /// 0.5, or 0.2 if the library was built without QUIC.
  std::optional<Dialect> dialect = {};
  /// Where stores and keys are kept; created (0700) if missing. Empty: in memory. Only one node at a time may use it.
  /// It remembers its dialect once there is data in it, and `start` fails for another one (Errc::invalid_config). What
  /// offline nodes have kept to which nobody named a dialect is of none yet: the first node with a relay, or with a
  /// dialect that is named, chooses it.
  std::string data_dir = {};
  /// The rules for ops. Null: SHA-256.
  std::shared_ptr<const OpPolicy> policy = {};
  /// The relay to use: in dialects 0.4 and 0.5 "https://host:port/path", exactly as all peers write it, in 0.2
  /// "wss://host:port"; plain http and ws are allowed if they are written here. The bootstrap server is expected at the
  /// same address, unless the config names one. Empty: the config's `irohTransport.relayUrl` (0.2:
  /// `tx5Transport.serverUrl`). With neither that nor `listen` the node is offline and reaches no peer; but if
  /// `dialect` or the config asks for 0.4 or 0.5, `start` fails and names the key.
  std::string relay = {};
  /// Runs a relay and bootstrap server inside this node at "host:port" (port 0: any) and uses it. It serves nodes of
  /// every dialect. Its address for other nodes is `relay`, if that is given too.
  std::string listen = {};
  /// The UDP address ("host:port") at which that relay refuses QUIC address discovery at once, so that a stock node of
  /// 0.5 does not wait 3 s for it; empty: nowhere. One that is taken is logged as a warning and is no error. Not set:
  /// port 7842 of the host of `listen` in dialects 0.4 and 0.5, unless that is loopback.
  std::optional<std::string> quic_listen = {};
  /// Certificate and key (PEM) for `listen`; empty: no TLS.
  std::string tls_cert_file = {}, tls_key_file = {};
  /// Extra trust root (PEM) for relays with TLS (wss, https).
  std::string tls_ca_file = {};
  /// Serves /healthz and /metrics at "host:port". Empty: off.
  std::string admin = {};
  /// The application's handler. Null: only this side makes spaces, and notifies are dropped.
  std::shared_ptr<KitsuneHandler> handler = {};
  /// Receives this node's log lines, including its embedded relay's, from the given level on: `.log = {my_callback,
  /// LogLevel::warn}`. Default: none, unless the process has a log (`set_process_log`). LogCallback has the rules for
  /// the callback. `stop` destroys it; it is never called after that.
  LogOptions log = {};
};

namespace detail {

/// What a thread that waits for a call on the strand shares with the strand. Any thread.
class Wait {
 public:
  /// `where`: the place in the source that waits, for messages.
  explicit Wait(const boost::source_location& where) : where_(where) {}
  /// Runs `start` and keeps an exception that it throws for `wait`.
  void call(const std::function<void()>& start);
  /// Must be called before the outcome is written, and `finish` after it. False: nobody waits any more; do not write. A
  /// second outcome of a call ends the program with a message that names the place that waited for the first.
  bool begin();
  void finish();
  /// The call will have no outcome, unless it has one already.
  void drop();
  /// Returns true when the outcome has arrived, false if it was dropped. Throws what `start` has thrown.
  bool wait();
  /// The same, but throws std::future_error if the outcome was dropped.
  void need();

 private:
  enum class State { waiting, writing, finished, dropped, threw };
  const boost::source_location where_;
  std::mutex mutex_;
  std::condition_variable changed_;
  State state_ = State::waiting;
  std::exception_ptr thrown_;
};

/// Drops the outcome when the last copy of the call's handler is destroyed.
template <class Outcome>
struct Ticket {
  explicit Ticket(std::shared_ptr<Outcome> o) : outcome(std::move(o)) {}
  Ticket(const Ticket&) = delete;
  Ticket& operator=(const Ticket&) = delete;
  ~Ticket() { outcome->drop(); }
  std::shared_ptr<Outcome> outcome;
};

}  // namespace detail

/// A running node. It owns the strand's thread, the stores' threads and the thread of an embedded relay. Thread rule:
/// all members may be called from any thread except the strand itself. `space`, `agent`, `join`, `wait_online`, `run`,
/// `wait` and `stop` block. On the strand (in a handler, a callback or a task) they would wait for themselves for ever,
/// so they end the program with a message there. Module objects (Space, Fetch, …) belong to the strand: reach them
/// through `run`, `wait` or `runtime().post`. See Runtime's thread rule.
///
/// `data_dir` contains `node.lock` (one process at a time), `<space>.db` (ops), `<space>.peers.db` (agent infos) and
/// `agent.key` (created by `agent()`); `<space>` is the space's id in base64url.
class Node {
 public:
  /// Returns at once, without waiting for the relay: see `wait_online`. Errors: Errc::invalid_config (names the key, or
  /// "relay"), Errc::already_exists (a port or a data directory is in use), Errc::io (names the path, certificate file
  /// or address), Errc::disk_full.
  static Result<std::unique_ptr<Node>> start(NodeOptions options);
  /// Calls `stop`.
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  Runtime& runtime();
  /// Strand only.
  Kitsune& kitsune();
  /// The relay in use, "ws://host:port", or "http://host:port/relay/" in the dialects that use iroh; with TLS wss and
  /// https. Empty for an offline node.
  std::string relay_url() const;
  /// The address, "host:port", that the embedded server is bound to. Empty without one.
  std::string listen_addr() const;
  /// The address that the admin server is bound to. Empty without one.
  std::string admin_addr() const;

  /// Returns the space, which is made on first use. Blocks until it exists. The pointer may outlive the node; after
  /// `stop` its stores are closed, and its modules answer with Errc::cancelled or not at all.
  Result<std::shared_ptr<Space>> space(const SpaceId& space);
  /// Returns the agent whose key is in the data directory (created on first use, 0600), or a random one without a
  /// directory. Its target arc is full.
  Result<std::shared_ptr<Ed25519LocalAgent>> agent();
  /// Lets `agent` join `space` with the target arc `arc`: full, gossip brings every op of the space; empty, only what
  /// is requested arrives. Blocks until it has joined. What it then claims to hold, and errors:
  /// Space::local_agent_join.
  Result<void> join(const std::shared_ptr<Space>& space, const std::shared_ptr<LocalAgent>& agent,
                    DhtArc arc = DhtArc::full());
  /// Blocks until the node has a url. Errors: Errc::timed_out, naming the relay, after `timeout`; Errc::disconnected
  /// for an offline node; Errc::cancelled if the node is stopped meanwhile.
  Result<Url> wait_online(std::chrono::milliseconds timeout);

  /// Runs `f` on the strand, waits for it, and returns or throws what it does. Throws std::future_error if the node is
  /// stopped before `f` had its turn, because there is nothing to return.
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
  /// })`. Throws what the starter throws. Errc::cancelled if the node is stopped before the outcome arrives, or if all
  /// copies of the handler are destroyed. Calling the handler twice is a bug of the caller and ends the program with a
  /// message that names `where`.
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

  /// Reads `tls_cert_file` and `tls_key_file` again, for new connections to the embedded relay. No effect without
  /// them. `tls_ca_file` is read for each connection anyway. Errc::io names the file, and the old certificate stays in
  /// use.
  Result<void> reload_certificates();

  /// Leaves all spaces (with tombstones, so that peers do not wait for this node), finishes writes, closes everything
  /// and joins the threads. Takes up to a few seconds if the relay or a peer does not answer. Idempotent; the
  /// destructor calls it. Also closes the stores of spaces that the application still holds: once `stop` has returned,
  /// a node can be started on the same data directory. A node that is started while this one stops waits for it.
  void stop();

 private:
  struct Impl;
  explicit Node(std::unique_ptr<Impl> impl);
  /// Ends the program with a message if the caller is on the strand.
  void about_to_block(const char* member, const boost::source_location* where = nullptr) const;
  /// The reason why a call has no outcome.
  Error dropped() const;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kitsune2
