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
  /// How long the opening, silence, and a wait for a permit or a chunk may last (but see rule R10 of Connection). Half
  /// of it is the interval of keepalives.
  Duration timeout = std::chrono::seconds(60);
  std::uint64_t message_size_max = 64U << 20;
  std::uint64_t max_queue_bytes = 64U << 20;
  CreditLimits credit;
};

/// One tx5 connection that stays on the relay, as a state machine.
///
///  R1  Handshake: each side sends `hreq` with a fresh nonce, and answers the other's with `hres`. For us it is over
///      when our `hres` is queued and the peer's has arrived. Each side discards everything else that arrives before
///      the end of its handshake, so nothing else is sent before that.
///  R2  The handshake is followed at once by the version frame and the preflight, as "fmsg". Other messages wait until
///      the peer's preflight has arrived. Rationale: the first fmsg makes a stock node give up WebRTC for this
///      connection; its `offr`, `answ` and `icem` are ignored.
///  R3  While nothing is heard from a peer that is being opened, the handshake is begun again on a fresh stream: after
///      kFirstRetry, after twice that, and so on. From the second attempt on, the closing frame is sent first.
///      Rationale: a relay silently drops frames to a key that is not connected yet. And a stock node that still holds
///      a dead connection to us ignores `hreq`, for ever, because each one renews its idle timer; but it obeys the
///      closing frame. If an `hreq` arrives after the peer has begun two streams since ours began, our own `hreq` is
///      sent again before the `hres`. Rationale: a stock node that dials us while we dial it drops both connections
///      with their keys and begins a third; it then waits for an `hreq` that it has discarded.
///  R4  An `hreq` with a new nonce after the handshake means that the peer has begun anew. So the connection starts
///      over (`Outcome::restarted`), and messages that were not wholly sent stay queued. The same nonce again means
///      that until the peer's preflight has arrived, because the peer has discarded what we sent; after that it is
///      ignored. For twice as long as the handshake took, every `hreq` is ignored. Rationale: if an answer was slow,
///      our `hreq` was repeated, and the peer answers the second one with one more of its own, which arrives late.
///      Where many nodes connect through a busy relay, starting over for those would never end, because each start
///      makes more of them.
///  R5  A message larger than one chunk needs a permit: the sender asks, waits for the grant, and sends no frame of
///      types 3, 4 and 5 in between. Grants for the other direction may be sent at any time. If no grant arrives within
///      `timeout`, the connection is closed.
///  R6  `keep` is sent every timeout/2, or as often as the peer sends it if that is more often. Rationale: a node's
///      interval is half of its own time limit, and by that limit it would drop us.
///  R7  A connection is closed by one frame of the reserved type 0. Rationale: the protocol has no message for it, but
///      any error in the framing ends a connection, in stock nodes too. Without it they would hold a dead connection
///      (R3).
///  R8  Only bytes that decrypt renew a timer or change the state, except for NewStream and RequestNewStream.
///  R9  Whatever the peer sends, a constant bounds the control frames that wait to be sent.
///  R10 No wait ends before an answer can have arrived, however short `timeout` is. An answer is allowed two round
///      trips to the relay and a second, at least kLeastAnswerTime; two, because the peer's way to the relay is taken
///      to be as long as ours. This is the first wait of R3 and the wait for the preflight. Silence is allowed a second
///      more, and the whole opening twice as long and two seconds more. Rationale: a handshake that begins anew makes
///      the answer to the one before it worthless. On a line slower than the retries, that would never end.
///  R11 After the handshake, a new stream of the peer serves one of three purposes: a new handshake, the closing frame,
///      or the stream that we asked for, which begins between two messages. Any other is not read; the closing frame is
///      sent and the connection starts over as in R4. No stream is accepted twice (E2eSession R5). Rationale: in 0.2 a
///      NewStream is not signed, so a relay can leave out what it likes before one, and a message assembled from two
///      streams would look whole. That whole messages are missing before a stream that we asked for cannot be noticed.
///      The closing frame is needed because a stock peer that still has its connection ignores a request for a new one.
///  R12 SendCredit bounds how much may be on the way to the peer. A message that waits for credit for as long as it
///      might wait for a permit closes the connection.
///      A message in one frame that needs a permit only for credit waits for kAskAfter from the time when the peer last
///      showed what it has read (`on_read`), and goes without one if enough is shown meanwhile. Rationale: the grant
///      waits behind all that the peer has queued for us, and nothing else can be sent until then.
///  R13 The round trip to the peer is the shortest wait for a permit. A value older than kTripAge is replaced by the
///      next one. Before the first permit it is what the handshake took, unless that was begun again. Rationale:
///      nothing else in the protocol is answered at once, and a peer that is short of room lets permits wait.
/// Complexity: every call is O(1) in what is queued. Thread rule: confined to the owner's strand. Pure, but for
/// `entropy`.
class Connection {
 public:
  enum class Phase {
    silent,     ///< the peer began a stream; nothing of it has decrypted yet
    handshake,  ///< `hreq` queued or sent
    opening,    ///< the handshake is over; the peer's preflight has not arrived
    open,
  };
  enum class Origin { local, peer };

  static constexpr Duration kFirstRetry = std::chrono::seconds(5);
  /// R10. The peer's line may be far slower than ours. This value suffices for a round trip of 2 s between two nodes.
  static constexpr Duration kLeastAnswerTime = std::chrono::seconds(3);
  /// A longer round trip to the relay counts as this. *Rationale*: it was measured when we connected, and says little
  /// if the relay was busy then.
  static constexpr Duration kLongestRoundTrip = std::chrono::seconds(2);
  /// A connection whose peer has begun a stream of which nothing decrypts is forgotten after this time.
  static constexpr Duration kSilentLimit = std::chrono::seconds(10);
  static constexpr Duration kMinKeepalive = std::chrono::milliseconds(500);
  /// RequestNewStream is sent at most once in this time.
  static constexpr Duration kStreamRequestInterval = std::chrono::seconds(1);
  /// At most this many `hreq` are answered in one handshake.
  static constexpr unsigned kMaxHandshakeRequests = 64;
  static constexpr Duration kTripAge = std::chrono::seconds(10);         ///< R13
  static constexpr Duration kAskAfter = std::chrono::milliseconds(250);  ///< R12
  /// Added to the bytes of each queued message when they are counted, so that empty messages are bounded as well.
  static constexpr std::size_t kMessageOverhead = 128;

  /// What is to be done after an input. Look at `error` first, and at the others in this order.
  struct Outcome {
    std::optional<Error> error;    ///< close the connection
    bool restarted = false;        ///< R4: the old connection has ended and a new one has begun
    bool handshake_done = false;   ///< call `open_with`, or close the connection
    bool permit_wanted = false;    ///< call `grant` when there is room for `permit_bytes()`
    bool permit_done = false;      ///< the permitted message is complete
    std::size_t progress = 0;      ///< how many bytes arrived of a message that is not complete yet
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

  /// With Origin::local, `hreq` is queued at once. `config` and `entropy` must outlive this object. `relay_round_trip`
  /// is the measured one, or zero if it is unknown.
  Connection(const NodeId& peer, SessionKeys keys, const ConnectionConfig& config, const Entropy& entropy,
             Origin origin, Time now, Duration relay_round_trip = {},
             SendCredit::Source credit = SendCredit::Source::permits);

  /// Takes over what an earlier connection under the same keys knows about the peer's streams. Call it before any
  /// input.
  void remember_streams(E2eSession::Memory memory) { e2e_.remember(std::move(memory)); }
  const E2eSession::Memory& streams() const { return e2e_.memory(); }
  /// The relay inside this process says that the peer has taken `bytes`, or that they are lost (R12).
  void on_credit_returned(std::uint64_t bytes, Time now);
  /// How many bytes will have been sent, at least, before the message that is queued next. 0: `on_read` has no effect.
  std::uint64_t next_position() const;
  /// The peer has sent what only a reader of the first `bytes` that were sent to it can have sent (R12).
  void on_read(std::uint64_t bytes, Time now);
  const SendCredit& credit() const { return credit_; }

  /// A forwarded message from the peer has arrived, with this body.
  Outcome on_body(ByteView body, Time now);
  /// Does what is due by now: keepalives, retries, time limits.
  Outcome on_time(Time now);
  Time next_deadline() const;

  /// To be called after `handshake_done`: sends the version and, as the first message, the preflight. Errc::too_large
  /// if it is larger than any message may be.
  Result<void> open_with(Bytes preflight, Time now);
  /// Queues the grant for which the peer waits; chunks are accepted once the grant has been pulled. No effect if the
  /// peer waits for none.
  void grant();
  /// How many bytes the peer asks for, or was granted.
  std::uint32_t permit_bytes() const { return decoder_.permitted(); }
  /// How many bytes of the permitted message have arrived.
  std::uint32_t permit_received() const { return decoder_.received(); }
  /// When the last chunk of a permitted message arrived; before the first one, when the grant was made.
  Time last_chunk() const { return last_chunk_; }

  /// Begins the handshake with a peer that has begun a stream and nothing else. No effect in any other phase.
  void dial(Time now);
  /// Queues a message. After Errc::too_large or Errc::overloaded nothing was queued and `done` was not moved from.
  Result<void> enqueue(ByteChain message, Handler<>& done);
  /// Empties the queue, and returns the handlers of all messages that were not wholly sent.
  std::vector<Handler<>> take_handlers();

  /// Whether a message waits, even if it cannot be sent now.
  bool has_queued() const { return !queue_.empty(); }
  bool has_control() const { return !control_.empty(); }
  /// Whether a frame of a message can be sent now. The answer depends on credit, so ask again after
  /// `on_credit_returned`.
  bool has_data() const;
  /// The size of the frame that `pull_data` would return. Only while `has_data`.
  std::size_t next_data_bytes() const;
  /// The next control frame (handshake, keepalive, grant …), or the next frame of a message. Only if there is one.
  Pulled pull_control(Time now);
  Pulled pull_data(Time now);

  /// The frames to send before this connection is dropped: `message`, if it can be sent now, and the closing frame.
  /// None before the end of the handshake.
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
    bool fresh_stream = false;  ///< a new stream is begun before it
    bool grant = false;
  };
  struct Outgoing {
    ByteChain message;
    Handler<> done;
    std::size_t offset = 0;
    std::size_t piece = 0, piece_offset = 0;  ///< the same position, in the chain
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
  bool must_ask_for_credit() const;
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
  /// An `hreq` of ours that is younger than this may still be on its way.
  Duration in_flight() const;
  Duration answer_time() const;

  E2eSession e2e_;
  const ConnectionConfig& config_;
  const Entropy& entropy_;
  const Duration peer_round_trip_;  ///< as assumed before anything was measured (R10)
  Phase phase_;
  FrameDecoder decoder_;

  std::deque<Control> control_;
  bool grant_queued_ = false;
  bool stream_request_queued_ = false;
  bool stream_asked_ = false;            ///< we have asked for a new stream, and it has not begun
  std::optional<Time> failing_since_{};  ///< since when nothing has decrypted
  SendCredit credit_;
  std::optional<Time> credit_wait_;  ///< since when a message waits for credit, or when some last came back
  std::optional<Time> ask_after_;    ///< R12
  std::deque<Outgoing> queue_;
  std::size_t queue_bytes_ = 0;

  Nonce nonce_{};
  std::optional<Nonce> peer_nonce_;
  bool answered_ = false;
  bool got_response_ = false;
  unsigned requests_seen_ = 0;
  unsigned peer_streams_ = 0;  ///< how many streams the peer has begun since ours began (R3)
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
  std::optional<Time> trip_at_;   ///< when a permit last gave it
  Stats stats_;
};

}  // namespace kitsune2::tx5
