// The frames in which Kitsune2 0.4 and 0.5 send their messages over a QUIC stream.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::iroh {

/// Each message is preceded by its kind and its length (four bytes, big-endian).
inline constexpr std::size_t kFrameHeaderBytes = 5;

enum class FrameKind : std::uint8_t {
  preflight = 0,  ///< the first frame of each side on a connection: the sender's url, then K2Proto
  data = 1,       ///< K2Proto
};

struct Frame {
  FrameKind kind = FrameKind::data;
  Bytes body;  ///< what follows the header
};

/// The body of a preflight. The url is a claim: check it against the connection's key.
struct Preflight {
  Bytes url;  ///< UTF-8
  Bytes k2proto;
};
/// Errc::malformed.
Result<Preflight> decode_preflight(const Bytes& body);

// Whole frames. The length must fit into four bytes (abort).
Bytes encode_preflight(std::string_view own_url, ByteView k2proto);
/// The pieces of `k2proto` stay where they are.
ByteChain encode_data(const ByteChain& k2proto);

/// Cuts the bytes of a stream into frames. Memory: at most four times the part of the incomplete frame that has
/// arrived, never what its header announces.
class FrameReader {
 public:
  /// `first`: the stream is the first of its connection, so that a preflight must come before anything else. Other
  /// streams have none. `max_frame_bytes` includes the header.
  FrameReader(bool first, std::uint64_t max_frame_bytes) : first_(first), max_frame_bytes_(max_frame_bytes) {}

  /// Adds the next bytes of the stream, which are kept as they are (a frame inside them is a slice). To be called when
  /// `next` has returned nullopt. No effect after an error.
  void feed(Bytes chunk);
  /// Returns the next whole frame; nullopt: more bytes are needed. Errors, after which the stream must be given up (the
  /// connection stays): Errc::malformed (an unknown kind, a preflight where none is allowed, or none where it is
  /// required), Errc::too_large.
  Result<std::optional<Frame>> next();
  /// The bytes of the incomplete frame.
  std::size_t waiting() const { return partial_.size() + chunk_.size(); }
  /// What the header of the incomplete frame announces, in bytes of its body; 0: its header is not known yet. To be
  /// asked when `next` has returned nullopt.
  std::size_t announced() const { return announced_; }

 private:
  struct Header {
    FrameKind kind = FrameKind::data;
    std::size_t body_bytes = 0;
  };
  Result<Header> check(ByteView bytes) const;
  /// Moves up to `count` bytes of the chunk to the end of the partial frame, until it has `count`. Returns whether it
  /// has.
  bool gather(std::size_t count);

  bool first_;
  const std::uint64_t max_frame_bytes_;
  Bytes chunk_;
  std::vector<std::uint8_t> partial_;
  std::size_t announced_ = 0;
  std::optional<Error> error_;
};

}  // namespace kitsune2::iroh
