// The hub of the memory network: where each node is, and which links are bad.
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

/// What travels between two endpoints. The hub numbers the connections, counting up: both ends know a connection by the
/// same number, and of two numbers the larger one is the newer connection.
struct Frame {
  enum class Kind : std::uint8_t { preflight, message, close, reset };
  Kind kind = Kind::message;
  std::uint64_t connection = 0;
  Bytes data;
  std::string reason;
  Duration wire_time{};  ///< how long the transfer of its bytes takes
  Duration delay{};      ///< from now to its arrival, including wire_time
};

enum class Fate { delivered, lost, nobody };

}  // namespace memory

/// Shared by all endpoints. Thread-safe; calls nothing but `Runtime::post`.
class MemoryNetwork::Hub : public std::enable_shared_from_this<Hub> {
 public:
  explicit Hub(const MemoryNetworkOptions& options) : options_(options) {}

  const MemoryNetworkOptions options_;

  std::string free_name();
  void claim(const std::string& name);
  void release(const std::string& name);
  /// Returns a name like that of `url` that is not in use.
  Url renamed(const Url& url);

  void enter(const Url& url, const std::shared_ptr<memory::Endpoint>& endpoint, Runtime& runtime);
  /// Forgets the url and its connections.
  void leave(const Url& url);

  MemoryLink link(const Url& from, const Url& to) const;
  /// The number of the connection between the two; a new one if there is none.
  std::uint64_t connection(const Url& a, const Url& b);
  void end_connection(const Url& a, const Url& b, std::uint64_t connection);

  memory::Fate transmit(const Url& from, const Url& to, memory::Frame frame);
  /// Whether a frame that arrives now gets through; if not, its sender finds out later.
  bool passes(const Url& from, const Url& to, const memory::Frame& frame);
  void count(const Url& from, const Url& to, const memory::Frame& frame);

  // --- faults
  mutable std::mutex mutex_;
  bool has_links_ = false;
  MemoryLink default_link_ = options_.link;
  std::map<std::pair<Url, Url>, MemoryLink> links_;
  std::map<Url, MemoryLink> links_to_;
  std::set<std::pair<Url, Url>> unreachable_;  ///< smaller url first
  std::set<std::uint64_t> cut_;
  MemoryNetworkStats stats_;
  std::map<std::pair<Url, Url>, std::uint64_t> bytes_;

  struct Node {
    std::weak_ptr<memory::Endpoint> endpoint;
    Runtime* runtime = nullptr;
  };
  std::unordered_map<Url, Node> nodes_;
  std::map<std::pair<Url, Url>, std::uint64_t> connections_;  ///< smaller url first

  static std::pair<Url, Url> pair_of(const Url& a, const Url& b) { return a < b ? std::pair(a, b) : std::pair(b, a); }
  /// Runs `f(endpoint)` on the node's strand. The caller holds the mutex.
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
