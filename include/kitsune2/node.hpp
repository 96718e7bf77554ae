// A whole node in one object, for applications: threads, stores, transport, spaces.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>

#include "kitsune2/config.hpp"
#include "kitsune2/space.hpp"

namespace kitsune2 {

/// How a node is set up. Defaults: memory only, no relay, SHA-256 ops.
struct NodeOptions {
  /// Module configuration (`coreFetch`, `coreBootstrap`, `tx5Transport`, …). Invalid keys fail `start` by name.
  Config config = Config::defaults();
  /// Where stores and keys are kept; made if missing (0700). Empty: everything in memory.
  std::string data_dir;
  /// How ops are named and judged. Null: SHA-256.
  std::shared_ptr<const OpPolicy> policy;
  /// The relay to use, "ws://host:port" or "wss://host:port"; the bootstrap server is looked for at the same address
  /// unless the config names one. Empty: the config's `tx5Transport.serverUrl`.
  std::string relay;
  /// Runs a relay and bootstrap server inside this node at "host:port" (port 0: any) and uses it.
  std::string listen;
  /// Certificate and key (PEM) for `listen`; empty: plain ws.
  std::string tls_cert_file, tls_key_file;
  /// Extra trust root (PEM) for wss relays.
  std::string tls_ca_file;
  /// Serves /healthz and /metrics at "host:port". Empty: off.
  std::string admin;
  /// The application's handler. Null: spaces are made on request of this side only, notifies are dropped.
  std::shared_ptr<KitsuneHandler> handler;
};

/// A running node. It owns one thread (the strand) and the stores' threads.
/// Thread rule: all members may be called from any thread but the strand itself. Module objects (Space, Fetch, …)
/// belong to the strand: reach them through `post` or `run`.
class Node {
 public:
  /// Errors name what was wrong: a config key, a path, a port in use.
  static Result<std::unique_ptr<Node>> start(NodeOptions options);
  /// Stops and joins.
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  Runtime& runtime();
  /// Strand only.
  Kitsune& kitsune();
  /// "ws://host:port" of the relay in use.
  std::string relay_url() const;
  /// The embedded server's bound address "host:port"; empty without one.
  std::string listen_addr() const;
  /// The admin server's bound address; empty without one.
  std::string admin_addr() const;

  /// The space, made on first use. Blocks until it is there.
  Result<std::shared_ptr<Space>> space(const SpaceId& space);
  /// Blocks until the node has a url or `timeout` passes (Errc::timed_out, with the last reason).
  Result<Url> wait_online(std::chrono::milliseconds timeout);

  /// Runs `f` on the strand and waits for what it returns.
  template <class F>
  auto run(F f) -> decltype(f()) {
    auto task = std::make_shared<std::packaged_task<decltype(f())()>>(std::move(f));
    auto result = task->get_future();
    runtime().post([task] { (*task)(); });
    return result.get();
  }

  /// Starts an asynchronous call on the strand and waits for its outcome: `node.wait<T>([&](auto done) { x.call(done);
  /// })`.
  template <class T, class F>
  Result<T> wait(F start) {
    auto promise = std::make_shared<std::promise<Result<T>>>();
    auto result = promise->get_future();
    runtime().post([promise, start = std::move(start)]() mutable {
      start(Handler<T>([promise](Result<T> r) { promise->set_value(std::move(r)); }));
    });
    return result.get();
  }

  /// Leaves all spaces, finishes writes, closes everything. Idempotent; the destructor calls it.
  void stop();

 private:
  struct Impl;
  explicit Node(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kitsune2
