// WebSocket framing (RFC 6455) over bytes, without sockets and with as few copies as possible.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "net/byte_buffer.hpp"
#include "net/conn.hpp"

namespace kitsune2::net {

enum class WsRole { client, server };

/// dst[i] = src[i] XOR key[(phase + i) mod 4]; the key's first byte is its lowest. `dst` may be `src`.
void ws_mask(std::uint8_t* dst, const std::uint8_t* src, std::size_t size, std::uint32_t key, std::size_t phase = 0);

/// A whole message, perhaps still masked: it is unmasked while being copied to its destination, in one pass.
struct WsPayload {
  std::uint8_t* data = nullptr;
  std::size_t size = 0;
  std::uint32_t key = 0;
  /// Keeps `data` alive beyond the call. Null: copy whatever you keep.
  std::shared_ptr<std::uint8_t[]> owner;

  /// Copies the unmasked bytes [from, from + n). The range must be inside the message.
  void copy_to(std::uint8_t* dst, std::size_t from, std::size_t n) const;
  /// Unmasks it in place.
  void unmask();
  /// Returns the message as immutable bytes; unmasks in place. Shares the read buffer from 4 KiB on, otherwise copies.
  /// *Rationale*: a small slice that somebody keeps would keep a whole read buffer alive.
  Bytes take();
};

/// Decodes frames. Bounded: a message is never larger than the limit, and control frames have up to 125 bytes.
///
/// *Rules*.
///  R1  Frames of a client are masked, those of a server are not; otherwise fault 1002.
///  R2  Reserved bits, unknown opcodes, lengths not in their shortest form and fragmented control frames are fault
///      1002.
///  R3  A message over the limit is fault 1009, as soon as its length is known.
///  R4  Text messages are treated as bytes. After a fault nothing more is decoded.
class WsDecoder {
 public:
  enum class Next {
    go,
    last,  ///< it is taken, and what follows has to wait for the next call
    hold,  ///< not now: pass the same message again in the next call
    stop,  ///< the connection is over: this call delivers nothing more
  };
  class Sink {
   public:
    virtual ~Sink() = default;
    virtual Next on_ws_message(WsPayload& message) = 0;
    /// Called before each frame that is not a whole message: a control frame or a fragment. `size`: of its payload.
    /// False: the connection is over, as with `stop`.
    virtual bool on_ws_frame(std::size_t /*size*/) { return true; }
    /// `payload`: at most 125 bytes.
    virtual void on_ws_ping(ByteView payload) = 0;
    virtual void on_ws_pong(ByteView /*payload*/) {}
    /// `code` 1005: the peer gave none.
    virtual void on_ws_close(std::uint16_t code, std::string reason) = 0;
  };
  struct Fault {
    std::uint16_t code;
    const char* text;
  };
  struct Outcome {
    std::size_t used = 0;  ///< bytes of the input that need not be passed again
    bool held = false;     ///< the sink said `last` or `hold`
    std::optional<Fault> fault;
  };

  WsDecoder(WsRole own_role, std::size_t max_message_bytes) : role_(own_role), max_(max_message_bytes) {}

  Outcome decode(const Incoming& in, Sink& sink);
  /// Whether a message is complete that the sink did not take, and of which no bytes are left in the input: decode may
  /// be called without any.
  bool holds_message() const { return complete_; }
  /// The memory that an unfinished message takes here.
  std::size_t unfinished_bytes() const {
    return in_message_ || frame_left_ > 0 || complete_ ? gathered_.capacity() : 0;
  }

 private:
  struct Head;
  /// Frames up to this size are delivered from the read buffer; larger ones are gathered.
  static constexpr std::size_t kDirectBytes = 64U << 10;
  /// What stays between messages that are gathered.
  static constexpr std::size_t kSpareBytes = 4U << 10;

  enum class Read { more, fault, frame };
  /// Reads the header of the frame that begins at `at`; `have` bytes are available.
  Read read_head(const std::uint8_t* at, std::size_t have, Head& head, std::optional<Fault>& fault) const;
  /// Whether a data frame is allowed now.
  std::optional<Fault> misplaced(const Head& head) const;
  /// Takes the available bytes of a frame whose payload is being gathered. Returns their number.
  std::size_t gather(const std::uint8_t* at, std::size_t have);
  void begin_gathering(const Head& head);
  std::optional<Fault> control(std::uint8_t opcode, const std::uint8_t* data, std::size_t size, std::uint32_t key,
                               Sink& sink);
  Next deliver_gathered(Sink& sink);

  WsRole role_;
  std::size_t max_;
  std::vector<std::uint8_t> gathered_;  // of a fragmented or very large message, unmasked
  bool in_message_ = false;             // some fragments are in gathered_
  bool complete_ = false;               // gathered_ is a whole message that was not accepted yet
  bool stopped_ = false;
  // A data frame whose payload is being gathered:
  std::size_t frame_left_ = 0;
  std::uint32_t frame_key_ = 0;
  std::size_t frame_phase_ = 0;
  bool frame_final_ = false;
};

/// The length of the header of a frame with `size` payload bytes.
constexpr std::size_t ws_header_size(WsRole sender, std::size_t size) {
  return 2U + (size < 126 ? 0U : size <= 0xffff ? 2U : 8U) + (sender == WsRole::client ? 4U : 0U);
}

/// Appends the header of an unfragmented frame. Only clients use `key`.
void ws_append_header(ByteBuffer& out, WsRole sender, std::uint8_t opcode, std::size_t size, std::uint32_t key);
/// Appends a whole frame. The payload is copied once, and masked on the way for clients.
void ws_append_frame(ByteBuffer& out, WsRole sender, std::uint8_t opcode, ByteView payload, std::uint32_t key);
/// Appends a close frame, with as much of `reason` as fits.
void ws_append_close(ByteBuffer& out, WsRole sender, std::uint16_t code, std::string_view reason, std::uint32_t key);

inline constexpr std::uint8_t kWsContinuation = 0;
inline constexpr std::uint8_t kWsText = 1;
inline constexpr std::uint8_t kWsBinary = 2;
inline constexpr std::uint8_t kWsClose = 8;
inline constexpr std::uint8_t kWsPing = 9;
inline constexpr std::uint8_t kWsPong = 10;

/// The value of Sec-WebSocket-Accept for a Sec-WebSocket-Key.
std::string ws_accept_value(std::string_view key);
/// Whether a Sec-WebSocket-Key has the right form (base64 of 16 bytes).
bool ws_key_is_valid(std::string_view key);

}  // namespace kitsune2::net
