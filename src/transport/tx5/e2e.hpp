// End-to-end encryption between two nodes of a relay: the body of a forwarded message. See docs/protocol-tx5.md, 2.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"
#include "transport/sbd/sbd_frames.hpp"
#include "transport/tx5/stream_state.hpp"

namespace kitsune2::tx5 {

using sbd::NodeId;

/// Prepares libsodium. Call it before anything else here; more calls have no effect. False: the library is unusable.
bool crypto_ready();

/// The key pair of one sbd connection: Ed25519 for the relay, Curve25519 (the same key, converted) for the peers.
/// *Rule*: every connection has a fresh one. *Rationale*: a relay connection is identified by its key, and a peer that
/// still holds a dead connection to a key cannot be reached under it again. Secrets are wiped at the end. Not copyable.
class NodeKey {
 public:
  using Seed = std::array<std::uint8_t, 32>;

  /// nullopt: this seed gives a key that reads as a command (2^-224). The caller must wipe the seed.
  static std::optional<NodeKey> from_seed(const Seed& seed);

  NodeKey(NodeKey&& other) noexcept;
  NodeKey& operator=(NodeKey&&) = delete;
  ~NodeKey();

  const NodeId& id() const { return id_; }
  const std::array<std::uint8_t, 32>& curve_id() const { return curve_id_; }
  std::array<std::uint8_t, sbd::kSignatureBytes> sign(ByteView nonce) const { return sbd::sign_nonce(nonce, secret_); }

 private:
  friend class SessionKeys;
  NodeKey() = default;
  NodeId id_{};
  std::array<std::uint8_t, 64> secret_{};
  std::array<std::uint8_t, 32> curve_id_{};
  std::array<std::uint8_t, 32> curve_secret_{};
};

/// The keys of both directions between my node key and a peer's: libsodium kx, with the role chosen by the order of the
/// *curve* keys (not of the node keys, whose order differs). The same pair of node keys always gives the same session
/// keys.
class SessionKeys {
 public:
  /// nullopt: the peer's key is not a valid curve point (or is my own).
  static std::optional<SessionKeys> derive(const NodeKey& mine, const NodeId& peer);
  SessionKeys(SessionKeys&& other) noexcept;
  SessionKeys& operator=(SessionKeys&&) = delete;
  ~SessionKeys();

  const std::array<std::uint8_t, 32>& rx() const { return rx_; }
  const std::array<std::uint8_t, 32>& tx() const { return tx_; }

 private:
  SessionKeys() = default;
  std::array<std::uint8_t, 32> rx_{};
  std::array<std::uint8_t, 32> tx_{};
};

inline constexpr std::uint8_t kNewStream = 0x10;
inline constexpr std::uint8_t kMessage = 0x11;
inline constexpr std::uint8_t kRequestNewStream = 0x12;
/// The largest plaintext that fits into one sbd message.
inline constexpr std::size_t kMaxPlaintext = sbd::kMaxMessageBytes - sbd::kHeaderBytes - 1 - kSealBytes;
/// How much larger an sbd message is than its plaintext.
inline constexpr std::size_t kOverhead = sbd::kHeaderBytes + 1 + kSealBytes;

/// The encryption state towards one peer.
///
///  R1  The first thing sent, and the first after `drop_encrypt` or a RequestNewStream, is a NewStream.
///  R2  A NewStream takes effect with the first Message that decrypts under it; until then the previous stream goes on.
///      *Rationale*: it consists of 24 bytes that nobody has signed, and must not cost the real peer its stream.
///  R3  A Message without a decrypt state is silently ignored. *Rationale*: it belongs to an earlier connection.
///  R4  A Message that does not decrypt, an unknown type or a wrong length changes nothing here; the caller may request
///      a new stream. *Rationale*: on a stock relay the sender's key is not proven, so a stranger's forgery must not
///      cost the real peer its stream.
///  R5  A stream is accepted once: the NewStream of one that has carried a Message is ignored ever after, for the last
///      kRemembered of them. *Rationale*: the keys belong to the pair of nodes, so whoever carries a stream could
///      repeat it, or the beginning of one in the middle of another.
/// Thread rule: confined to the owner's strand.
class E2eSession {
 public:
  enum class Event {
    ignored,             ///< R3, R5
    plaintext,           ///< `plaintext` is set
    new_stream,          ///< the peer began a stream
    undecryptable,       ///< R4: ask for a new stream, at a limited rate
    new_stream_request,  ///< the peer wants a new stream from us; it starts at the next seal
  };
  struct Opened {
    Event event = Event::ignored;
    Bytes plaintext;
    std::size_t placed = 0;  ///< if not 0: the plaintext has this many bytes and is in `room`, not in `plaintext`
    bool first = false;      ///< this plaintext is the first of a new stream; it is in `plaintext`
  };
  /// What is remembered of each stream that was accepted.
  using Memory = std::deque<std::uint64_t>;
  static constexpr std::size_t kRemembered = 256;

  E2eSession(const NodeId& peer, SessionKeys keys) : peer_(peer), keys_(std::move(keys)) {}

  /// Opens the body of a forward from this peer, without the 32-byte header. A plaintext that fits is put into `room`,
  /// which is written only if it is genuine.
  Opened open(ByteView body, std::span<std::uint8_t> room = {});

  bool is_encrypting() const { return encrypt_.has_value(); }
  bool is_decrypting() const { return decrypt_ != nullptr; }
  /// A whole sbd message with NewStream. `header`: 24 random bytes.
  Bytes start_stream(const StreamState::Header& header);
  /// A whole sbd message with the parts in sequence, encrypted: one allocation, no copy. Together they must have at
  /// most kMaxPlaintext bytes; `is_encrypting()` must be true.
  Bytes seal(std::span<const ByteView> parts);
  Bytes seal(ByteView head, ByteView payload) { return seal(std::array{head, payload}); }
  /// A whole sbd message with RequestNewStream.
  Bytes request_stream() const;
  void drop_encrypt() { encrypt_.reset(); }

  /// The peer's streams that were accepted under the same keys, here or earlier.
  const Memory& memory() const { return memory_; }
  void remember(Memory memory) { memory_ = std::move(memory); }

 private:
  Opened open_message(ByteView sealed, std::span<std::uint8_t> room);
  /// nullopt: not of this stream.
  static std::optional<Bytes> opened_by(StreamState& stream, ByteView sealed);

  NodeId peer_;
  SessionKeys keys_;
  std::optional<StreamState> encrypt_;
  std::unique_ptr<StreamState> decrypt_;
  std::unique_ptr<StreamState> begun_;  ///< R2
  std::uint64_t begun_name_ = 0;
  Memory memory_;
};

}  // namespace kitsune2::tx5
