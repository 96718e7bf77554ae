// A transport between nodes of one process, with faults on demand.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kitsune2/transport.hpp"

namespace kitsune2 {

/// How one direction of a link treats the messages that are sent over it. The default is a perfect link.
struct MemoryLink {
  /// The time between a message's last byte leaving and the message arriving.
  Duration latency{};
  /// The bandwidth. Messages are sent one after the other, so each waits for those before it. 0: unlimited.
  std::uint64_t bytes_per_second = 0;
  /// The far end looks healthy but never answers: the preflight arrives, every later message vanishes, and each send
  /// still reports success.
  bool swallow = false;
  /// Nothing is transmitted. Sends, and the attempt to connect, fail with Errc::peer_unresponsive after `fail_after`.
  bool fail_sends = false;
  Duration fail_after{};
};

struct MemoryNetworkOptions {
  MemoryLink link;  ///< of all links, until `set_default_link`, `set_link` or `set_links_to` says otherwise
  /// How many bytes may wait to be sent to one peer. A message beyond that is refused with Errc::overloaded.
  std::uint64_t max_queue_bytes = 64U << 20;
  /// A larger message is refused with Errc::too_large.
  std::uint64_t max_message_bytes = 128U << 20;
  /// How long it takes a sender to notice that a message was lost. It then drops the connection, or gives up
  /// connecting.
  Duration loss_timeout = std::chrono::seconds(5);
  /// How long connecting may take. After that, messages that wait for it fail with Errc::peer_unresponsive.
  Duration connect_timeout = std::chrono::seconds(30);
};

struct MemoryNetworkStats {
  std::uint64_t messages = 0, bytes = 0;  ///< delivered, including preflights
  std::uint64_t lost = 0;                 ///< messages that faults have swallowed
};

/// A network inside the process, for tests and simulations: nodes connect to it as they would to a relay, and a test
/// can make its links slow, lossy or dead. Rust: `MemTransport`, which has no faults.
///
/// It serves nodes on real runtimes, each with a thread of its own, as well as nodes of a SimWorld in virtual time.
/// Messages are handed over as `Bytes`, without a copy. The url of a node is `ws://memory:1/<name>`.
///
/// It keeps the rules of TransportBackend, and these:
///  M1  A message to a url where no node is fails after one round trip, with Errc::peer_unresponsive.
///  M2  A node that is destroyed without `stop` has crashed. Its peers are not told. The next message that one of them
///      sends is answered with a reset, which closes the connection.
///  M3  While no fault is set, no message is lost.
/// Thread rule: any thread, but not from inside the destructor of a runtime.
class MemoryNetwork {
 public:
  static std::shared_ptr<MemoryNetwork> create(const MemoryNetworkOptions& options = {});
  ~MemoryNetwork();
  MemoryNetwork(const MemoryNetwork&) = delete;
  MemoryNetwork& operator=(const MemoryNetwork&) = delete;

  /// The url of the node named `name`, which consists of letters, digits, '-' and '_'.
  static Url url_of(const std::string& name);

  /// Makes the transport backend of one node. `runtime` must outlive it. An empty name is replaced by "node-1",
  /// "node-2" and so on. It is a bug to give a name that is in use; the program ends.
  std::unique_ptr<TransportBackend> make_backend(Runtime& runtime, const std::string& name = {});

  // --- links, for messages that are sent from now on
  /// For every link that has none of its own.
  void set_default_link(const MemoryLink& link);
  /// For the messages of `from` to `to`.
  void set_link(const Url& from, const Url& to, const MemoryLink& link);
  /// For the messages to `to`, except from those for which `set_link` was called.
  void set_links_to(const Url& to, const MemoryLink& link);
  /// Undoes all calls of `set_link` and `set_links_to`.
  void clear_links();

  // --- faults
  /// While two nodes cannot reach each other, nothing passes between them in either direction. Messages that are on
  /// their way are lost as well. Neither node is told.
  void set_reachable(const Url& a, const Url& b, bool reachable);
  /// No member of `one` and no member of `other` reach each other.
  void partition(const std::vector<Url>& one, const std::vector<Url>& other);
  /// Every node reaches every other again.
  void heal();
  /// Ends the connection between `a` and `b`; messages on their way are lost. With `notice`, both learn of it at once.
  /// Otherwise each notices `loss_timeout` after its next send. No effect if they are not connected.
  void cut(const Url& a, const Url& b, bool notice);
  /// Takes the url and all connections from the node at `old`, and gives it a new url after `gap`, as when a relay
  /// restarts. Returns the new url, or the empty url if there is no node at `old`.
  Url change_url(const Url& old, Duration gap = {});
  /// As `change_url`, but the node comes back under the same url. No effect if there is no such node.
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
