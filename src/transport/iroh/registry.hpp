// Which connection to a peer is the one that counts, while both sides may dial at once. By rules alone.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kitsune2/time.hpp"
#include "transport/iroh/relay_frames.hpp"

namespace kitsune2::iroh {

/// Codes with which kitsune2 0.4 and 0.5 close a QUIC connection. Any other counts as `failure`.
namespace close_code {
inline constexpr std::uint64_t kFailure = 0;     ///< the peer does not count on this node for a while
inline constexpr std::uint64_t kOnPurpose = 1;   ///< no failure
inline constexpr std::uint64_t kSuperseded = 2;  ///< another connection to the same peer counts
}  // namespace close_code

/// The connections of one endpoint whose handshakes are over, from there to the end, and one slot for each peer.
///
///  N1  The slot of a peer holds the connection that counts. Of two it is the one that the endpoint with the larger id
///      dialled, so that both sides choose the same one: a newcomer takes the slot, unless its holder is of that kind
///      and the newcomer is not. Of two of one kind the newer one counts: its dialler has given the older one up.
///  N2  Who loses is closed with code 2.
///  N3  The dialler's connection asks for the slot when the handshake is over, and sends its preflight then. The
///      acceptor's asks when the dialler's preflight has come and was found good, and is answered then. Nobody else
///      sends a preflight.
///  N4  A connection is active, and messages may pass, when the peer's preflight has come and it has the slot.
///      *Rationale*: a dialler of 0.4 sends messages before; they are read after its preflight, which came first.
///  N5  The peer's preflight must come within kPreflightLimit of the handshake's end; otherwise the connection is
///      closed with code 0.
///  N6  Where spares are kept, nothing of N1 and N2 is done: the newest connection takes the slot, and those before it
///      stay, to be read. When the holder ends, the newest active one of them takes the slot. More than kMostSpares of
///      one peer are too many, and the oldest is closed with code 0. *Rationale*: a node of 0.4 does the same, and does
///      not count for a while on a peer that closes a connection, whatever the code.
///      A dialled one that becomes active when the slot is empty does not take it, and is only read: the next message
///      dials.
/// An id of a connection is the owner's; one that is not known is without effect, because closing takes time.
/// Pure. Thread rule: confined to the owner's strand.
class Registry {
 public:
  using Id = std::uint64_t;
  static constexpr Duration kPreflightLimit = std::chrono::seconds(10);

  static constexpr std::size_t kMostSpares = 4;
  enum class Spares { closed, kept };

  explicit Registry(const EndpointId& own, Spares spares = Spares::closed) : own_(own), spares_(spares) {}

  struct Close {
    Id id = 0;
    std::uint64_t code = close_code::kFailure;
    std::string_view reason;
    friend bool operator==(const Close&, const Close&) = default;
  };
  /// What is to be done. What is to be closed is forgotten already.
  struct Outcome {
    std::optional<Id> send_preflight;
    std::optional<Id> active;  ///< messages may pass on it now
    std::vector<Close> close;
  };

  /// A handshake is over. The id must be new (abort).
  Outcome on_opened(Id id, const EndpointId& peer, bool dialled, Time now);
  /// The peer's preflight was found good. A second one is without effect (its stream is given up elsewhere).
  Outcome on_preflight(Id id, Time now);
  /// The connection has ended, whoever ended it. Whether it held the slot of its peer: whether the peer is gone.
  bool on_ended(Id id);
  /// Closes what has waited for too long.
  Outcome on_deadline(Time now);
  /// Time::max(): never.
  Time next_deadline() const { return waiting_.empty() ? Time::max() : waiting_.begin()->first; }

  /// The connection that counts, active or not.
  std::optional<Id> holder(const EndpointId& peer) const;
  bool is_active(Id id) const;
  std::size_t size() const { return connections_.size(); }

 private:
  struct Connection {
    EndpointId peer{};
    bool dialled = false;
    bool greeted = false;  ///< the peer's preflight has come
    Time until{};          ///< it must come
  };

  bool is_preferred(const Connection& connection) const { return connection.dialled == (own_ > connection.peer); }
  /// N1. False: it did not get the slot, and is closed.
  bool claim(Id id, Connection& connection, Outcome& out);
  void close(Id id, std::uint64_t code, std::string_view reason, Outcome& out);
  void forget(Id id);
  /// N6.
  std::vector<Id> others_of(const EndpointId& peer, Id but) const;

  const EndpointId own_;
  const Spares spares_;
  std::map<Id, Connection> connections_;
  std::map<EndpointId, Id> slots_;
  std::set<std::pair<Time, Id>> waiting_;  ///< for a preflight
};

}  // namespace kitsune2::iroh
