// A transport between nodes of one process, with faults on demand.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kitsune2/transport.hpp"

namespace kitsune2 {

/// What one direction of a link does to messages.
struct MemoryLink {
  Duration latency{};                  ///< from the last byte sent to the arrival of the message
  std::uint64_t bytes_per_second = 0;  ///< 0: no limit; otherwise messages wait for those before them
  /// The far end accepts messages and never answers: all except the preflight vanish, and sends succeed.
  bool swallow = false;
  /// Sends complete with Errc::peer_unresponsive after `fail_after`; nothing is transmitted.
  bool fail_sends = false;
  Duration fail_after{};
};

struct MemoryNetworkOptions {
  MemoryLink link;                               ///< for all links that were not set
  std::uint64_t max_queue_bytes = 64U << 20;     ///< per peer, waiting to be sent; beyond that Errc::overloaded
  std::uint64_t max_message_bytes = 128U << 20;  ///< a larger one gets Errc::too_large
  /// How long after the loss of a message its sender notices and drops the connection (or gives up connecting).
  Duration loss_timeout = std::chrono::seconds(5);
  /// How long connecting may take. After that, waiting messages fail with Errc::peer_unresponsive.
  Duration connect_timeout = std::chrono::seconds(30);
};

struct MemoryNetworkStats {
  std::uint64_t messages = 0, bytes = 0;  ///< delivered, including preflights
  std::uint64_t lost = 0;                 ///< messages that vanished
};

/// The memory transport: a hub to which nodes of one process connect. Rust: `MemTransport`, without the faults.
///
/// Works over real runtimes (one thread each) and over a SimWorld in virtual time. A message is passed on as `Bytes`,
/// without a copy. The nodes' urls are `ws://memory:1/<name>`.
///
/// *Rules*: those of TransportBackend, and M1: a message to a url without a node fails after one round trip
/// (peer_unresponsive). M2: a node destroyed without stop() has crashed: its peers hear nothing, and their next message
/// is answered by a reset, which closes the connection. M3: with no faults set, messages are never lost. Thread rule:
/// any thread, but not from inside the destructor of a runtime.
class MemoryNetwork {
 public:
  static std::shared_ptr<MemoryNetwork> create(const MemoryNetworkOptions& options = {});
  ~MemoryNetwork();
  MemoryNetwork(const MemoryNetwork&) = delete;
  MemoryNetwork& operator=(const MemoryNetwork&) = delete;

  /// The url of the node named `name`: letters, digits, '-' and '_'.
  static Url url_of(const std::string& name);

  /// Makes a node's backend. `runtime` must outlive it. An empty name is replaced by a number. A name in use is a bug
  /// (abort).
  std::unique_ptr<TransportBackend> make_backend(Runtime& runtime, const std::string& name = {});

  // --- faults, which apply to messages sent from now on
  void set_default_link(const MemoryLink& link);
  void set_link(const Url& from, const Url& to, const MemoryLink& link);  ///< in one direction
  void set_links_to(const Url& to, const MemoryLink& link);  ///< from every node whose link to it was not set
  void clear_links();                                        ///< all links are as the default again
  /// If not reachable, nothing passes between the two in either direction, including messages on their way. Silent.
  void set_reachable(const Url& a, const Url& b, bool reachable);
  /// No member of `one` reaches a member of `other`.
  void partition(const std::vector<Url>& one, const std::vector<Url>& other);
  void heal();  ///< every node reaches every other
  /// Ends the connection of a and b, with the messages on their way. `notice`: both learn of it now; otherwise each
  /// notices `loss_timeout` after its next send. No effect without a connection.
  void cut(const Url& a, const Url& b, bool notice);
  /// The node at `old` loses its url and connections and gets a new url after `gap`, as when a relay restarts. Returns
  /// the new url, or the empty one if there is no such node.
  Url change_url(const Url& old, Duration gap = {});

  /// The same with the old url: the node is offline for a while. No effect if there is no such node.
  void go_offline(const Url& url, Duration gap);

  MemoryNetworkStats stats() const;
  /// Payload bytes delivered from one node to the other, without preflights.
  std::uint64_t bytes_between(const Url& from, const Url& to) const;

  class Hub;
  class Board;
  /// For make_mem_bootstrap: the infos that the nodes of this network have put.
  const std::shared_ptr<Board>& board() const { return board_; }

 private:
  explicit MemoryNetwork(const MemoryNetworkOptions& options);
  std::shared_ptr<Hub> hub_;
  std::shared_ptr<Board> board_;
};

}  // namespace kitsune2
