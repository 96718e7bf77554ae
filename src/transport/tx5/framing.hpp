// tx5 framing: whole messages inside "fmsg" bodies, large ones in permitted chunks. Source: wire 0.2.2 (c).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::tx5 {

inline constexpr std::size_t kFrameHeaderBytes = 4;
inline constexpr std::size_t kMaxFrameBytes = 16'384;
/// Largest message in one frame, and the size of a chunk.
inline constexpr std::size_t kMaxChunkBytes = kMaxFrameBytes - kFrameHeaderBytes;
/// Largest message the header can name (29 bits).
inline constexpr std::uint32_t kMaxFrameValue = 0x1fff'ffff;

enum class FrameType : std::uint8_t {
  reserved0 = 0,  ///< an error to every receiver, and so the way to close (see Connection)
  reserved1 = 1,
  version = 2,
  message = 3,
  chunk = 4,
  permit_request = 5,
  permit_grant = 6,
  reserved7 = 7,
};

using FrameHeader = std::array<std::uint8_t, kFrameHeaderBytes>;

/// `value` at most kMaxFrameValue.
FrameHeader encode_frame_header(FrameType type, std::uint32_t value);
/// The version frame: "\x42tx5". First each way, exactly once.
FrameHeader version_frame();

/// Decodes the frames of one connection, in order.
///
///  R1  The version frame is first and comes once.  R2  A permit request comes only between messages.
///  R3  Chunks come only after the grant, and add up to exactly the permitted length.
///  R4  The buffer grows as chunks come. *Rationale*: a request alone must not make us allocate.
///  R5  The first error is the last: the connection is dead.
/// Memory: at most twice what has come in, and never over what was permitted.
class FrameDecoder {
 public:
  enum class Event {
    nothing,         ///< the version frame
    message,         ///< `message` is whole
    progress,        ///< `value` bytes of a message that is not whole yet
    permit_request,  ///< the peer asks for `value` bytes: grant with `granted` when there is room
    permit_grant,    ///< the peer grants `value` bytes to us: whether that was asked for is the caller's to judge
  };
  struct Decoded {
    Event event = Event::nothing;
    Bytes message;
    std::uint32_t value = 0;
    bool chunked = false;  ///< `message` came in chunks: its permit is used up
  };

  explicit FrameDecoder(std::uint64_t message_size_max) : message_size_max_(message_size_max) {}

  /// `frame` is an fmsg body. A whole message is handed up as a slice of it. Errc::peer_fault: against the rules.
  /// Errc::too_large: a message over the limit. Errc::disconnected: the closing frame (type 0, alone).
  Result<Decoded> decode(const Bytes& frame);
  /// Room for what a frame is read into, with `ahead` other bytes before it, so that the payload of a chunk comes to
  /// lie where it belongs and need not be copied. Empty: none is expected now, or there is no room for a chunk of any
  /// size. Ends with `keep` or `take_back`, before any other call; the room is written by the caller until then.
  std::span<std::uint8_t> lend(std::size_t ahead);
  /// A frame of `size` bytes lies in the room that was lent. If it is a chunk that may come, that is what `decode`
  /// would say of it. nullopt: anything else, and the loan goes on; copy the frame, then `take_back`, then `decode`.
  std::optional<Decoded> keep(std::size_t size);
  void take_back();
  /// The grant for the pending request is being sent. No-op without a pending request.
  void granted();

  bool awaiting_permit() const { return state_ == State::awaiting_permit; }
  bool receiving_chunks() const { return state_ == State::chunks; }
  std::uint32_t permitted() const { return want_; }
  std::uint32_t received() const { return received_; }

 private:
  enum class State { need_version, idle, awaiting_permit, chunks, dead };
  Result<Decoded> decode_alive(const Bytes& frame);
  Result<Decoded> decode_chunk(ByteView payload);
  /// `size` more bytes are in `incoming_`.
  Decoded advance(std::uint32_t size);

  std::uint64_t message_size_max_;
  State state_ = State::need_version;
  std::uint32_t want_ = 0;
  std::uint32_t received_ = 0;
  std::shared_ptr<std::uint8_t[]> incoming_;  ///< room_ bytes, the first received_ of them written
  std::uint32_t room_ = 0;
  /// Of a loan: what lies in `incoming_` where the bytes before the payload go.
  std::array<std::uint8_t, 16> saved_{};
  std::size_t lent_ahead_ = 0;  ///< of the payload; 0: nothing is lent
};

}  // namespace kitsune2::tx5
