// Nodes of one process connected to each other, with faults on demand.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kitsune2/transport.hpp"

namespace kitsune2 {

/// What one direction of a link does to messages.
struct MemoryLink {
  Duration latency{};                  ///< from the last byte sent to the message's arrival
  std::uint64_t bytes_per_second = 0;  ///< 0: no limit. Messages queue up behind each other.
  /// The far end takes messages and never answers: all but the preflight vanish, sends succeed.
  bool swallow = false;
  /// Sends complete with Errc::peer_unresponsive after `fail_after`; nothing is transmitted.
  bool fail_sends = false;
  Duration fail_after{};
};

struct MemoryNetworkOptions {
  MemoryLink link;                               ///< of all links without one of their own
  std::uint64_t max_queue_bytes = 64U << 20;     ///< per peer, waiting to be sent; beyond: Errc::overloaded
  std::uint64_t max_message_bytes = 128U << 20;  ///< beyond: Errc::too_large
  /// How long after a message was lost its sender notices and drops the connection (or gives up connecting).
  Duration loss_timeout = std::chrono::seconds(5);
  /// How long connecting may take: beyond it what waits fails with Errc::peer_unresponsive.
  Duration connect_timeout = std::chrono::seconds(30);
};

struct MemoryNetworkStats {
  std::uint64_t messages = 0, bytes = 0;  ///< delivered, preflights included
  std::uint64_t lost = 0;                 ///< messages that vanished
};

/// The memory transport: a hub that nodes of one process plug into. Rust: `MemTransport`, plus faults.
///
/// Works over real runtimes (one thread each) and over a SimWorld in virtual time; a message is handed over as `Bytes`,
/// not copied. Own urls are `ws://memory:1/<name>`.
///
/// *Rules*: those of TransportBackend. Besides: M1, a message to a url without a node fails after one round trip
/// (peer_unresponsive). M2, a node that is destroyed without stop() has crashed: its peers hear nothing; their next
/// message is answered by a reset, which closes the connection. M3, with no faults set, messages are never lost.
/// Thread rule: all members from any thread. It must not be called from inside a runtime's destructor.
class MemoryNetwork {
 public:
  static std::shared_ptr<MemoryNetwork> create(const MemoryNetworkOptions& options = {});
  ~MemoryNetwork();
  MemoryNetwork(const MemoryNetwork&) = delete;
  MemoryNetwork& operator=(const MemoryNetwork&) = delete;

  /// The url that a node of this name has. `name`: letters, digits, '-', '_'.
  static Url url_of(const std::string& name);

  /// A node's backend. `runtime` must outlive it. An empty name is replaced by a number; a name in use is a bug
  /// (abort).
  std::unique_ptr<TransportBackend> make_backend(Runtime& runtime, const std::string& name = {});

  // --- faults; they hold for messages sent from now on
  void set_default_link(const MemoryLink& link);
  void set_link(const Url& from, const Url& to, const MemoryLink& link);  ///< one direction
  void set_links_to(const Url& to, const MemoryLink& link);               ///< from everyone without a link of its own
  void clear_links();                                                     ///< all links are as the default again
  /// Nothing passes between the two, in either direction, also what is on its way. Nobody is told.
  void set_reachable(const Url& a, const Url& b, bool reachable);
  /// No member of `one` reaches a member of `other`.
  void partition(const std::vector<Url>& one, const std::vector<Url>& other);
  void heal();  ///< everyone reaches everyone
  /// Ends the connection of a and b and what is on its way in it. `notice`: both are told now, else each finds out
  /// `loss_timeout` after it next sends. No effect without a connection.
  void cut(const Url& a, const Url& b, bool notice);
  /// The node at `old` loses its url and connections and gets another one after `gap`, as after a relay's restart.
  /// Returns the new url; the empty one if there is no node.
  Url change_url(const Url& old, Duration gap = {});

  /// The same without a new url: the node is offline for a while. No effect if there is no node.
  void go_offline(const Url& url, Duration gap);

  MemoryNetworkStats stats() const;
  /// Payload bytes delivered from one node to another, without preflights.
  std::uint64_t bytes_between(const Url& from, const Url& to) const;

  class Hub;
  class Board;
  /// For make_mem_bootstrap: what the nodes of this network have put.
  const std::shared_ptr<Board>& board() const { return board_; }

 private:
  explicit MemoryNetwork(const MemoryNetworkOptions& options);
  std::shared_ptr<Hub> hub_;
  std::shared_ptr<Board> board_;
};

}  // namespace kitsune2
