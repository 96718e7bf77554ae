// tx5 framing: whole messages inside "fmsg" bodies, large ones in permitted chunks. See protocol-tx5.md, 4.
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
/// The largest message in one frame, and the size of a chunk.
inline constexpr std::size_t kMaxChunkBytes = kMaxFrameBytes - kFrameHeaderBytes;
/// The largest message that the header can express (29 bits).
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

/// `value` must be at most kMaxFrameValue.
FrameHeader encode_frame_header(FrameType type, std::uint32_t value);
/// The version frame: "\x42tx5". The first frame in each direction, exactly once.
FrameHeader version_frame();

/// Decodes the frames of one connection, in order.
///
///  R1  The version frame is first and comes once.  R2  A permit request comes only between messages.
///  R3  Chunks come only after the grant, and add up to exactly the permitted length.
///  R4  The buffer grows as chunks come. *Rationale*: a request alone must not make us allocate.
///  R5  The first error is the last: the connection is dead.
/// Memory: at most twice what has arrived, and never more than was permitted.
class FrameDecoder {
 public:
  enum class Event {
    nothing,         ///< the version frame
    message,         ///< `message` is whole
    progress,        ///< `value` bytes of an incomplete message
    permit_request,  ///< the peer asks for `value` bytes: grant by `granted` when there is room
    permit_grant,    ///< the peer grants us `value` bytes: the caller judges whether that was asked for
  };
  struct Decoded {
    Event event = Event::nothing;
    Bytes message;
    std::uint32_t value = 0;
    bool chunked = false;  ///< `message` arrived in chunks, so its permit is used up
  };

  explicit FrameDecoder(std::uint64_t message_size_max) : message_size_max_(message_size_max) {}

  /// `frame` is the body of an fmsg. A whole message is returned as a slice of it. Errc::peer_fault: against the rules.
  /// Errc::too_large: a message over the limit. Errc::disconnected: the closing frame (type 0, alone).
  Result<Decoded> decode(const Bytes& frame);
  /// Room to read a frame into, after `ahead` other bytes, so that the payload of a chunk is placed where it belongs
  /// and need not be copied. Empty: no chunk is expected now, or there is no room for a chunk of any size. The loan
  /// ends with `keep` or `take_back`, before any other call; until then the caller may write the room.
  std::span<std::uint8_t> lend(std::size_t ahead);
  /// A frame of `size` bytes is in the lent room. If it is an allowed chunk, returns what `decode` would return.
  /// nullopt: it is anything else, and the loan continues; copy the frame, then call `take_back`, then `decode`.
  std::optional<Decoded> keep(std::size_t size);
  void take_back();
  /// The grant for the pending request is being sent. No-op without a pending request.
  void on_granted();

  bool is_awaiting_permit() const { return state_ == State::awaiting_permit; }
  bool is_receiving_chunks() const { return state_ == State::chunks; }
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
  /// For a loan: the bytes of `incoming_` at the place of the bytes before the payload.
  std::array<std::uint8_t, 16> saved_{};
  std::size_t lent_ahead_ = 0;  ///< before the payload; 0: nothing is lent
};

}  // namespace kitsune2::tx5
