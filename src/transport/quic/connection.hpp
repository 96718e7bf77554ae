// One QUIC connection as a state machine: datagrams and time in, datagrams and messages out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/time.hpp"
#include "transport/quic/identity.hpp"

namespace kitsune2::quic {

/// What every way must carry (RFC 9000, 14.1).
inline constexpr std::size_t kLeastDatagram = 1200;

/// Of datagrams: no bound, or not cut into several.
inline constexpr std::size_t kAnySize = std::numeric_limits<std::size_t>::max();

/// Fills the bytes with random ones. Connection ids, reset tokens and what the QUIC library draws come from here; the
/// keys of TLS do not, because GnuTLS takes its own. So two runs with the same numbers send datagrams of the same sizes
/// at the same times, with other ciphertext.
using Random = std::function<void(std::span<std::uint8_t>)>;

/// By what a datagram names the connection that it is for: 0 to 20 bytes.
class ConnectionName {
 public:
  static constexpr std::size_t kMaxBytes = 20;
  ConnectionName() = default;
  /// The first kMaxBytes of `bytes`.
  explicit ConnectionName(ByteView bytes);
  ByteView view() const { return ByteView(bytes_).first(size_); }
  auto operator<=>(const ConnectionName&) const = default;

 private:
  std::array<std::uint8_t, kMaxBytes> bytes_{};
  std::uint8_t size_ = 0;
};

/// The length of the names that connections have here.
inline constexpr std::size_t kOwnNameBytes = 8;

struct Config {
  std::string alpn = "kitsune2/0";
  bool server_name = false;  ///< who dials names the peer (server_name_of)
  Duration handshake_timeout = std::chrono::seconds(60);
  Duration idle_timeout = std::chrono::seconds(60);  ///< the smaller one of the two sides holds
  Duration keep_alive = std::chrono::seconds(5);     ///< zero: none
  /// The largest datagram that is sent once the handshake is over; before, and if the peer takes no more,
  /// kLeastDatagram. At least that. QUIC does not search for a larger one, because a relay loses nothing for its size.
  /// Where a way carries less, the owner knows, and tells `produce`.
  std::size_t datagram_bytes = 1452;
  /// What a peer may send ahead of what has been read, on one stream and on all of them.
  std::uint64_t stream_window = 4U << 20;
  std::uint64_t connection_window = 6U << 20;
  std::uint32_t max_streams = 100;  ///< of the peer, open at a time
  /// What `send` holds: a message that comes on top of as much is refused. A single one is always taken.
  std::size_t max_queue_bytes = 64U << 20;
  /// What the QUIC library may allocate for this connection. Beyond it the connection ends. *Rationale*: a peer that
  /// sends every second byte makes the library keep a note for each gap, many times larger than the byte.
  std::size_t max_library_bytes = 16U << 20;
  /// May change the random name by which a peer is to call a connection (kOwnNameBytes); null: no.
  std::function<void(std::span<std::uint8_t, kOwnNameBytes>)> mark_name = nullptr;
};

/// How a connection ended.
struct Closed {
  enum class By { us, peer, nobody };  ///< nobody: a timeout
  By by = By::nobody;
  /// Whether `code` is the application's (a kitsune2 close code). If not, it is QUIC's own, or there is none.
  bool application = false;
  std::uint64_t code = 0;
  std::string reason;  ///< as the peer wrote it (at most 1,024 bytes), or ours
  Error error;         ///< the same for a log
};

/// Several datagrams to one peer: `content` cut at `segment_bytes`, of which the last one may be shorter.
struct Batch {
  Bytes content;
  std::size_t segment_bytes = 0;
};

/// One connection to one peer. Pure: it knows no socket, and is told the time.
///
///  Q1  Both sides prove an Ed25519 key (RFC 7250, TLS 1.3). The connection ends in the handshake if it is not the
///      expected one. No tickets are given out, so that no connection goes without this proof; nothing is sent earlier.
///  Q2  The application protocols must be the same on both sides, or the handshake fails.
///  Q3  Messages go out in order, each whole on one stream of our own, which stays open. If the peer asks us to stop
///      sending on it, the message of which a part has gone out fails, and the others go on a new stream.
///  Q4  The peer's streams are read one at a time, in the order in which it opened them. A window is extended by what
///      is read and by nothing else: who does not read makes the peer wait, and holds what `connection_window` says.
///  Q5  A message stays in memory, where it lies, until the peer has acknowledged it.
///  Q6  When nothing has come for the idle timeout the connection is over, without a word. Keep-alives keep it.
///  Q7  After the end, what still comes is answered with the close again, ever more seldom, for three times the time
///      that the library waits for an answer; then `finished`. Nothing but the close is kept meanwhile, and what had
///      come before the end, until `forget_unread`. *Rationale*: who ends and begins again and again must not make us
///      keep much; but datagrams come several at a time, and the last of them may end the connection.
/// Calls may come in any order, with a time that does not go back. After the end all but `read` are without effect.
/// Thread rule: confined to the owner's strand.
class Connection {
 public:
  /// The most datagrams that `produce` gives at once unless the caller says otherwise.
  static constexpr std::size_t kMaxSegments = 10;

  /// Dials. Error: the library refuses (no memory).
  static Result<std::unique_ptr<Connection>> dial(std::shared_ptr<const Identity> own, const Config& config,
                                                  Random random, const Key& peer, Time now);
  /// Takes a connection whose first datagram this is. `peer`: whose key it must be; nullopt: any. To be followed by
  /// `receive` with the same datagram. Errc::malformed: it opens none.
  static Result<std::unique_ptr<Connection>> accept(std::shared_ptr<const Identity> own, const Config& config,
                                                    Random random, const std::optional<Key>& peer, ByteView datagram,
                                                    Time now);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // --- network
  /// A datagram of the peer. Nonsense in it is dropped without a word.
  void receive(ByteView datagram, Time now);
  /// What is to be sent now, in at most `most` datagrams, none of which is larger than `largest` (at least
  /// kLeastDatagram) or than the configured size. nullopt: nothing until something else happens. To be called again
  /// until then. `largest` may be another one each time: what was lost is sent again in datagrams of the new size.
  std::optional<Batch> produce(Time now, std::size_t most = kMaxSegments, std::size_t largest = kAnySize);
  /// When to call `on_deadline`, and `produce` after it; Time::max(): never.
  Time next_deadline() const;
  void on_deadline(Time now);

  // --- state
  bool is_open() const;  ///< the handshake is over, with the right key
  bool is_dialled() const;
  /// The peer's key, once it is proven.
  const std::optional<Key>& peer() const;
  const std::optional<Closed>& closed() const;
  /// Bytes of streams that the peer has brought in order or has acknowledged.
  std::uint64_t progress() const;
  /// The end has been told to the peer for long enough: the connection may go.
  bool is_finished(Time now) const;
  std::optional<Duration> round_trip() const;
  /// What the library has allocated; 0 after the end (Q7).
  std::size_t library_bytes() const;
  /// Of these, those that the peer's datagrams have caused, and not what was sent to it.
  std::size_t received_library_bytes() const;

  // --- messages
  using Ticket = std::uint64_t;
  /// Queues a message (not an empty one, abort), before the handshake is over, too. Errc::overloaded,
  /// Errc::disconnected.
  Result<Ticket> send(ByteChain message);
  struct Sent {
    Ticket ticket = 0;
    bool whole = false;  ///< false: it was not handed to the network as a whole and will not be
  };
  /// What has become of messages since the last call: each ticket comes once.
  std::vector<Sent> take_sent();
  bool has_sent() const;             ///< `take_sent` gives something
  std::size_t queued_bytes() const;  ///< not handed to the network yet
  std::size_t unacknowledged_bytes() const;

  /// Next part of a stream of the peer.
  struct Part {
    std::uint64_t stream = 0;  ///< 0 for its first stream, 1 for the second, …
    Bytes data;
    bool end = false;  ///< the stream ended or was given up by the peer; the next one follows
  };
  /// nullopt: nothing has come. What is read may be sent again. What came before the end can be read after it.
  std::optional<Part> read();
  /// After the end: nobody will read any more.
  void forget_unread();
  /// Gives the stream up that is being read: the peer is asked to stop, and what it sends of it is dropped. The next
  /// stream follows.
  void stop_reading();

  /// Ends the connection with an application's code. At most 1,024 bytes of `reason` are sent.
  void close(std::uint64_t code, const std::string& reason, Time now);

  /// A name that datagrams for this connection have had since, or will not have any more.
  struct NameChange {
    ConnectionName name;
    bool added = false;
  };
  std::vector<NameChange> take_name_changes();

 private:
  struct Impl;
  explicit Connection(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Which connection a datagram is for, and whether it may open one. nullopt: nothing that can be used.
struct Addressed {
  ConnectionName name;
  bool opening = false;  ///< the first packet of a handshake, in the version that is spoken
};
std::optional<Addressed> addressed_to(ByteView datagram);

}  // namespace kitsune2::quic
