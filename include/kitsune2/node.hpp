// A whole node in one object, for applications: threads, stores, transport, spaces.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "kitsune2/config.hpp"
#include "kitsune2/kitsune.hpp"

namespace kitsune2 {

namespace detail {
/// Where one thread waits for what another one finds. Not std::future: an application without exceptions includes this.
template <class T>
class Outcome {
 public:
  void set(Result<T> result) {
    const std::lock_guard lock(mutex_);
    K2_ASSERT(!result_ && "the handler of Node::wait is called once");
    result_ = std::move(result);
    there_.notify_all();
  }
  /// Nothing will be set any more.
  void set_dropped() {
    const std::lock_guard lock(mutex_);
    if (!result_) result_ = make_error(Errc::cancelled, "the node is stopped");
    there_.notify_all();
  }
  Result<T> get() {
    std::unique_lock lock(mutex_);
    there_.wait(lock, [this] { return result_.has_value(); });
    return std::move(*result_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable there_;
  std::optional<Result<T>> result_;
};
}  // namespace detail

/// How a node is set up. Defaults: memory only, no relay, SHA-256 ops. All members have initialisers, so that
/// `Node::start({.relay = "…"})` compiles without warnings.
struct NodeOptions {
  /// Module configuration (`coreFetch`, `coreBootstrap`, `tx5Transport`, …). Invalid keys fail `start` by name.
  Config config = Config::defaults();
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
};

/// A running node. It owns one thread (the strand), the stores' threads and that of an embedded relay.
/// Thread rule: all members may be called from any thread but the strand itself. Module objects (Space, Fetch, …)
/// belong to the strand: reach them through `run`, `wait` or `runtime().post`.
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

  /// The space, made on first use. Blocks until it is there. The pointer may outlive the node; after `stop` its
  /// modules answer with Errc::cancelled or not at all.
  Result<std::shared_ptr<Space>> space(const SpaceId& space);
  /// The agent whose key is in the data directory (made on first use, 0600); a random one without a directory.
  Result<std::shared_ptr<Ed25519LocalAgent>> agent();
  /// Blocks until the node has a url. Errc::timed_out, naming the relay, when `timeout` passes; Errc::disconnected for
  /// an offline node; Errc::cancelled when the node is stopped meanwhile.
  Result<Url> wait_online(std::chrono::milliseconds timeout);

  /// Runs `f` on the strand and waits for what it returns. Throws std::future_error after `stop`: there is nothing to
  /// return.
  template <class F>
  auto run(F f) -> decltype(f()) {
    auto task = std::make_shared<std::packaged_task<decltype(f())()>>(std::move(f));
    auto result = task->get_future();
    runtime().post([task] { (*task)(); });
    return result.get();
  }

  /// Starts an asynchronous call on the strand and waits for its outcome: `node.wait<T>([&](auto done) { x.call(done);
  /// })`. Errc::cancelled when the node is stopped before it is there.
  template <class T, class F>
  Result<T> wait(F start) {
    auto outcome = std::make_shared<detail::Outcome<T>>();
    // The handler's own: when its last copy is dropped with the strand, nothing will come any more.
    std::shared_ptr<detail::Outcome<T>> told(outcome.get(), [outcome](detail::Outcome<T>* o) { o->set_dropped(); });
    runtime().post([told, start = std::move(start)]() mutable {
      start(Handler<T>([told = std::move(told)](Result<T> r) { told->set(std::move(r)); }));
    });
    told.reset();
    return outcome->get();
  }

  /// Leaves all spaces (tombstones, so that peers do not wait for us), finishes writes, closes everything, joins the
  /// threads. Takes up to a few seconds when the relay does not answer. Idempotent; the destructor calls it.
  void stop();

 private:
  struct Impl;
  explicit Node(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kitsune2
