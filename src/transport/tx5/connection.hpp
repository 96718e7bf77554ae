// One peer over the relay: handshake, framing, keepalives, the queue of messages. See docs/protocol-tx5.md, 3 and 4.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/runtime.hpp"
#include "transport/tx5/credit.hpp"
#include "transport/tx5/e2e.hpp"
#include "transport/tx5/framing.hpp"

namespace kitsune2::tx5 {

/// Fills a span with random bytes.
using Entropy = std::function<void(std::span<std::uint8_t>)>;

struct ConnectionConfig {
  /// Limit of the opening, of silence, of a wait for a permit or a chunk; but see rule R10 of Connection. Twice the
  /// keepalive interval.
  Duration timeout = std::chrono::seconds(60);
  std::uint64_t message_size_max = 64U << 20;
  std::uint64_t max_queue_bytes = 64U << 20;
  CreditLimits credit;
};

/// The state machine of one tx5 connection that never leaves the relay.
///
///  R1  Handshake: each side sends `hreq` with a fresh nonce and answers the peer's with `hres`. It is over when our
///      `hres` is queued and the peer's has come. All else that comes before is thrown away, so nothing else is sent.
///  R2  Then, at once: the version frame and the preflight, as "fmsg". *Rationale*: a stock node gives up WebRTC for us
///      on the first fmsg; `offr`, `answ` and `icem` are ignored. Our queue waits until the peer's preflight has come.
///  R3  While nothing is heard from a peer that is being opened, the handshake is begun again on a fresh stream, after
///      kFirstRetry, twice that, and so on. From the second attempt on the closing frame goes first. *Rationale*: a
///      relay drops frames to a key that is not there yet without a word; and a stock node that still holds a dead
///      connection to us ignores `hreq`, and would for ever, each one renewing its idle timer. It obeys the closing
///      frame.
///      When the peer's `hreq` comes and the peer has begun two streams since ours began, ours is sent again, before
///      the `hres`. *Rationale*: a stock node that dials in the moment in which it is called drops both connections and
///      their keys, and begins a third; it waits for an `hreq` that it has thrown away.
///  R4  An `hreq` with a new nonce on a connection past its handshake: the peer has begun anew. The connection starts
///      over (`Outcome::restarted`); what was queued and not wholly sent stays queued. The same nonce again: while the
///      peer's preflight is not in, the same (the peer has thrown away what we sent); later, ignored. Ignored also for
///      twice as long after the handshake as it took. *Rationale*: an `hreq` of ours that was repeated because the
///      answer was slow is answered with one more of the peer's, which comes late. Starting over for those never ends
///      where many nodes connect over a busy relay: each start makes more of them.
///  R5  A message over one chunk asks for a permit, waits for it, and nothing of types 3, 4, 5 goes in between. Grants
///      for the other direction go at any time. Without a grant within `timeout` the connection is closed.
///  R6  `keep` every timeout/2, or as often as the peer sends it, if that is more often. *Rationale*: the interval is
///      half of the sender's own time limit, and that one drops us by its own.
///  R7  Closing sends one frame of the reserved type 0. *Rationale*: the protocol has no close, but every error in the
///      framing ends a connection, also in stock nodes; without it they would hold a dead connection (R3).
///  R8  Nothing but bytes that decrypt renews a timer or changes the state, except for NewStream and RequestNewStream.
///  R9  Whatever the peer sends, the control frames waiting to go out are bounded by a constant.
///  R10 No wait ends before an answer can have come, however short `timeout` is. An answer has two round trips to the
///      relay (its line and the peer's; the peer's is taken to be like ours) and a second, at least kLeastAnswerTime.
///      So long is the first wait of R3, the wait for the preflight, and, with a second more, any silence; the opening
///      has twice as long and two seconds. *Rationale*: a handshake that begins anew makes the answer to the one before
///      it worthless; on a line that is slower than the retries it would do so for ever.
///  R11 Past the handshake a new stream of the peer is for: a new handshake, closing, or a stream that was asked for
///      and begins between two messages. Any other is not heard, and the connection starts over as in R4, after a
///      closing frame. A stream that was taken is never taken again (E2eSession R5). *Rationale*: on the stock wire a
///      NewStream is not signed, so the relay can leave out what it likes before one; a message put together from two
///      streams would look whole. Whole messages that are left out before a stream that was asked for cannot be
///      noticed. A stock peer that still has its connection ignores a request, but not a closing frame.
///  R12 How much may be under way to the peer: SendCredit. A message that waits for credit for as long as a permit may
///      be waited for closes the connection.
///  R13 The round trip to the peer is the shortest wait for a permit; one that is older than kTripAge gives way to the
///      next. Before the first permit it is what the handshake took, if that was not begun again. *Rationale*: nothing
///      else of the protocol is answered at once. A peer that is short of room lets permits wait.
/// Complexity: every call O(1) in what is queued. Thread rule: confined to the owner's strand. Pure but for `entropy`.
class Connection {
 public:
  enum class Phase {
    silent,     ///< the peer began a stream; nothing of it has decrypted yet
    handshake,  ///< `hreq` queued or sent
    opening,    ///< handshake over; the peer's preflight has not come
    open,
  };
  enum class Origin { local, peer };

  static constexpr Duration kFirstRetry = std::chrono::seconds(5);
  /// R10. A peer's line may be far slower than ours: this serves round trips of 2 s between two nodes.
  static constexpr Duration kLeastAnswerTime = std::chrono::seconds(3);
  /// A longer round trip to the relay is not believed. *Rationale*: a relay that was busy when we came says little.
  static constexpr Duration kLongestRoundTrip = std::chrono::seconds(2);
  /// A stream that carries nothing readable is forgotten after this.
  static constexpr Duration kSilentLimit = std::chrono::seconds(10);
  static constexpr Duration kMinKeepalive = std::chrono::milliseconds(500);
  /// RequestNewStream goes out at most this often.
  static constexpr Duration kStreamRequestInterval = std::chrono::seconds(1);
  /// More `hreq` than this are not answered in one handshake.
  static constexpr unsigned kMaxHandshakeRequests = 64;
  static constexpr Duration kTripAge = std::chrono::seconds(10);  ///< R13
  /// What a queued message counts for beside its bytes, so that the queue's bound holds for empty messages too.
  static constexpr std::size_t kMessageOverhead = 128;

  /// What an input led to. Look at `error` first, then at the others in this order.
  struct Outcome {
    std::optional<Error> error;    ///< close the connection
    bool restarted = false;        ///< R4: the connection that was is gone, this one has begun
    bool handshake_done = false;   ///< call `open_with`, or close
    bool permit_wanted = false;    ///< call `grant` when `permit_bytes()` can be had
    bool permit_done = false;      ///< the permit is used up
    std::size_t progress = 0;      ///< bytes of a message that is not whole yet
    std::optional<Bytes> message;  ///< a whole message; the first is the peer's preflight
  };
  /// One sbd message to send.
  struct Pulled {
    Bytes frame;
    Handler<> done;  ///< set with the last frame of a message
  };
  struct Stats {
    std::uint64_t sent_messages = 0, sent_bytes = 0, received_messages = 0, received_bytes = 0;
  };

  /// Origin::local queues `hreq` at once. `config` and `entropy` must outlive this object. `relay_round_trip`: as
  /// measured; zero if unknown.
  Connection(const NodeId& peer, SessionKeys keys, const ConnectionConfig& config, const Entropy& entropy,
             Origin origin, Time now, Duration relay_round_trip = {},
             SendCredit::Source credit = SendCredit::Source::permits);

  /// What was taken of the peer's streams under the same keys; from an earlier connection, before any input.
  void remember_streams(E2eSession::Memory memory) { e2e_.remember(std::move(memory)); }
  const E2eSession::Memory& streams() const { return e2e_.memory(); }
  /// The relay inside this process says that the peer has taken `bytes`, or that they are lost (R12).
  void on_credit_returned(std::uint64_t bytes, Time now);
  const SendCredit& credit() const { return credit_; }

  /// The body of a forward from the peer.
  Outcome on_body(ByteView body, Time now);
  /// Does what is due: keepalives, retries, limits.
  Outcome on_time(Time now);
  Time next_deadline() const;

  /// After `handshake_done`: sends the version and this as the first message.
  /// Errc::too_large: over the limits of any message.
  Result<void> open_with(Bytes preflight, Time now);
  /// Queues the grant that the peer waits for; chunks are accepted once it has been pulled. No-op if it does not wait.
  void grant();
  /// Bytes the peer asks for, or was granted.
  std::uint32_t permit_bytes() const { return decoder_.permitted(); }
  /// Bytes of the permitted message that have come.
  std::uint32_t permit_received() const { return decoder_.received(); }
  /// When the last chunk of a permitted message came, or the grant was made.
  Time last_chunk() const { return last_chunk_; }

  /// Begins the handshake with a peer of which only a stream has come. No-op in any other phase.
  void dial(Time now);
  /// Queues a message. Errc::too_large, Errc::overloaded: `done` is left alone, nothing was queued.
  Result<void> enqueue(ByteChain message, Handler<>& done);
  /// Takes all messages that are not wholly sent off the queue.
  std::vector<Handler<>> take_handlers();

  /// Whether a message waits to be sent, for whatever reason.
  bool has_queued() const { return !queue_.empty(); }
  bool has_control() const { return !control_.empty(); }
  /// Looks for credit, too: call it again after `on_credit_returned`.
  bool has_data() const;
  /// Of a message, in the frame that `pull_data` would give. With `has_data`.
  std::size_t next_data_bytes() const;
  /// The next control frame (handshake, keepalive, grant …) or the next frame of the messages. Only if there is one.
  Pulled pull_control(Time now);
  Pulled pull_data(Time now);

  /// The frames to send before this connection is forgotten: `message` if it may go now, then the closing frame.
  /// Nothing while the handshake is not over.
  std::vector<Bytes> closing_frames(const Bytes& message);

  Phase phase() const { return phase_; }
  /// R13. nullopt: not known.
  std::optional<Duration> round_trip() const { return trip_; }
  const Stats& stats() const { return stats_; }

 private:
  using Nonce = std::array<std::uint8_t, 32>;
  struct Control {
    std::array<std::uint8_t, 36> bytes{};
    std::uint8_t size = 0;      ///< 0: RequestNewStream, which is not encrypted
    bool fresh_stream = false;  ///< begin a new stream with it
    bool grant = false;
  };
  struct Outgoing {
    ByteChain message;
    Handler<> done;
    std::size_t offset = 0;
    std::size_t piece = 0, piece_offset = 0;  ///< the same place in the chain
    enum class State { whole, ask, waiting, chunks } state = State::whole;
    bool preflight = false;
  };

  void queue_signal(std::string_view letters, ByteView rest, bool fresh_stream = false);
  void queue_request(bool fresh_stream);
  void begin_handshake(Time now);
  Bytes start_stream();
  Outcome restart(Time now);
  void on_plaintext(const Bytes& plaintext, Time now, Outcome& out);
  void on_handshake_request(ByteView nonce, Time now, Outcome& out);
  void on_handshake_response(ByteView nonce, Time now, Outcome& out);
  void on_frame(const Bytes& frame, Time now, Outcome& out);
  void on_decoded(FrameDecoder::Decoded decoded, Time now, Outcome& out);
  void on_keepalive(Time now);
  void note_permit_wait(Duration wait, Time now);
  void finish_handshake(Time now, Outcome& out);
  void prepare(Outgoing& outgoing);
  void on_undecryptable(Time now);
  bool may_begin(const Bytes& first) const;
  Outcome start_over(Time now, unsigned attempts = 0);
  void check_waits(Time now, Outcome& out) const;
  void wait_for_credit(Time now);
  Pulled handed(Bytes frame);
  Bytes seal(FrameType type, Outgoing& from, std::size_t size);
  Duration retry_interval() const;
  Duration opening_limit() const;
  Duration preflight_limit() const;
  Duration silence_limit() const;
  /// An own `hreq` younger than this is on its way to the peer, not lost.
  Duration in_flight() const;
  Duration answer_time() const;

  E2eSession e2e_;
  const ConnectionConfig& config_;
  const Entropy& entropy_;
  const Duration peer_round_trip_;  ///< as expected (R10)
  Phase phase_;
  FrameDecoder decoder_;

  std::deque<Control> control_;
  bool grant_queued_ = false;
  bool stream_request_queued_ = false;
  bool stream_asked_ = false;            ///< and not begun yet
  std::optional<Time> failing_since_{};  ///< nothing has decrypted since
  SendCredit credit_;
  std::optional<Time> credit_wait_;  ///< a message waits for credit since then, or since some last came
  std::deque<Outgoing> queue_;
  std::size_t queue_bytes_ = 0;

  Nonce nonce_{};
  std::optional<Nonce> peer_nonce_;
  bool answered_ = false;
  bool got_response_ = false;
  unsigned requests_seen_ = 0;
  unsigned peer_streams_ = 0;  ///< that began since our stream did
  unsigned attempts_ = 0;

  Time started_;
  Time attempt_at_;
  Time handshake_began_{};
  Time echoes_until_{};
  Time last_heard_;
  Time waiting_since_{};
  Time last_chunk_{};
  Time next_stream_request_{};
  Time next_keepalive_{};
  Time last_peer_keepalive_{};
  Duration keepalive_interval_;
  std::optional<Duration> trip_;  ///< R13
  std::optional<Time> trip_at_;   ///< of a permit
  Stats stats_;
};

}  // namespace kitsune2::tx5
