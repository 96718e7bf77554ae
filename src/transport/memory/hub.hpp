// The hub of the memory network: it knows where each node is and how each link behaves, and carries frames.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "kitsune2/transport_memory.hpp"

namespace kitsune2 {

namespace memory {

class Endpoint;

/// What travels between two endpoints. Each connection has a number from the hub, which counts up. Both ends know the
/// connection by that number, and of two connections the one with the larger number is the newer.
struct Frame {
  enum class Kind : std::uint8_t {
    preflight,  ///< the first of a connection, in each direction
    message,
    close,  ///< the sender has closed the connection
    reset,  ///< the sender knows nothing of the connection to which a frame belonged
  };
  Kind kind = Kind::message;
  std::uint64_t connection = 0;
  Bytes data;
  std::string reason;    ///< of a close or reset
  Duration wire_time{};  ///< how long its bytes take at the link's bandwidth
  Duration delay{};      ///< from now until it has arrived, wire_time included
};

/// What became of a frame when it was sent. `delivered` only means that it is on its way; `Hub::passes` decides again
/// when it arrives.
enum class Fate {
  delivered,
  lost,    ///< a fault has swallowed it
  nobody,  ///< no node has that url
};

}  // namespace memory

/// What all endpoints of a network share. Thread-safe: the nodes may run on different threads. The only thing it calls
/// is `Runtime::post`, also while it holds its mutex.
class MemoryNetwork::Hub : public std::enable_shared_from_this<Hub> {
 public:
  explicit Hub(const MemoryNetworkOptions& options) : options_(options) {}

  const MemoryNetworkOptions options_;

  // --- names and urls
  /// A name that no node has: "node-1", "node-2" and so on.
  std::string free_name();
  /// Reserves the name of a node until `release`. It is a bug if another node has it.
  void claim(const std::string& name);
  void release(const std::string& name);
  /// A url that no node has, made of the one given: after "alice" comes "alice_2".
  Url renamed(const Url& url);
  /// From now on the node can be reached at `url`.
  void enter(const Url& url, const std::shared_ptr<memory::Endpoint>& endpoint, Runtime& runtime);
  /// From now on nobody is at `url`; its connections are forgotten.
  void leave(const Url& url);

  // --- connections and frames
  /// How the link of `from` to `to` behaves.
  MemoryLink link(const Url& from, const Url& to) const;
  /// The number of the connection between the two; a new number if they have none.
  std::uint64_t connection(const Url& a, const Url& b);
  /// No effect if another connection of the two has begun meanwhile.
  void end_connection(const Url& a, const Url& b, std::uint64_t connection);
  /// Sends a frame on its way.
  memory::Fate transmit(const Url& from, const Url& to, memory::Frame frame);
  /// Asked when a frame has arrived: whether it got through. If a fault came up meanwhile it did not, and its sender
  /// notices that after the loss timeout.
  bool passes(const Url& from, const Url& to, const memory::Frame& frame);
  /// Counts a frame that got through.
  void count(const Url& from, const Url& to, const memory::Frame& frame);

  // --- state, for MemoryNetwork, which changes it under the mutex
  mutable std::mutex mutex_;
  bool has_links_ = false;
  MemoryLink default_link_ = options_.link;
  std::map<std::pair<Url, Url>, MemoryLink> links_;
  std::map<Url, MemoryLink> links_to_;
  std::set<std::pair<Url, Url>> unreachable_;  ///< pairs as `pair_of` makes them
  std::set<std::uint64_t> cut_;                ///< connections over which nothing passes any more
  MemoryNetworkStats stats_;
  std::map<std::pair<Url, Url>, std::uint64_t> bytes_;

  struct Node {
    std::weak_ptr<memory::Endpoint> endpoint;
    Runtime* runtime = nullptr;
  };
  std::unordered_map<Url, Node> nodes_;
  std::map<std::pair<Url, Url>, std::uint64_t> connections_;  ///< pairs as `pair_of` makes them

  /// The two urls, the smaller one first.
  static std::pair<Url, Url> pair_of(const Url& a, const Url& b) { return a < b ? std::pair(a, b) : std::pair(b, a); }
  /// Runs `f(endpoint)` on the strand of the node at `url`, unless the node is gone by then. The caller holds the
  /// mutex.
  template <class F>
  void tell(const Url& url, F f) {
    const auto it = nodes_.find(url);
    if (it == nodes_.end()) return;
    it->second.runtime->post([weak = it->second.endpoint, f = std::move(f)]() mutable {
      if (auto endpoint = weak.lock()) f(*endpoint);
    });
  }

 private:
  bool broken(const Url& a, const Url& b, std::uint64_t connection) const;

  std::set<std::string> names_;
  std::uint64_t next_name_ = 1;
  std::uint64_t next_connection_ = 1;
};

}  // namespace kitsune2
