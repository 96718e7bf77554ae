// Puts whole messages into frames and back, large ones in chunks.
#include "transport/tx5/framing.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "core/buffer.hpp"

namespace kitsune2::tx5 {
namespace {

/// The first allocation for a chunked message, if it is to be so large; it doubles from there. *Rationale*: what a peer
/// only promises to send costs no more than this. A response of 4 MiB of ops, the most that a node sends by default, is
/// a little larger and fits.
constexpr std::uint32_t kFirstBuffer = (4U << 20) + (64U << 10);

std::uint32_t header_word(const std::uint8_t* p) {
  return static_cast<std::uint32_t>(p[0]) << 24 | static_cast<std::uint32_t>(p[1]) << 16 |
         static_cast<std::uint32_t>(p[2]) << 8 | static_cast<std::uint32_t>(p[3]);
}

Error framing_fault(std::string what) { return make_error(Errc::peer_fault, "tx5 framing: " + std::move(what)); }

}  // namespace

FrameHeader encode_frame_header(FrameType type, std::uint32_t value) {
  K2_ASSERT(value <= kMaxFrameValue);
  const std::uint32_t word = static_cast<std::uint32_t>(type) << 29 | value;
  return {static_cast<std::uint8_t>(word >> 24), static_cast<std::uint8_t>(word >> 16),
          static_cast<std::uint8_t>(word >> 8), static_cast<std::uint8_t>(word)};
}

FrameHeader version_frame() { return {0x42, 't', 'x', '5'}; }

Result<FrameDecoder::Decoded> FrameDecoder::decode(const Bytes& frame) {
  if (state_ == State::dead) return framing_fault("a frame after an error");
  Result<Decoded> decoded = decode_alive(frame);
  if (!decoded) {
    state_ = State::dead;
    incoming_ = nullptr;
    received_ = room_ = 0;
  }
  return decoded;
}

Result<FrameDecoder::Decoded> FrameDecoder::decode_alive(const Bytes& frame) {
  if (frame.size() < kFrameHeaderBytes) return framing_fault("a frame of " + std::to_string(frame.size()) + " bytes");
  if (frame.size() > kMaxFrameBytes) return framing_fault("a frame of " + std::to_string(frame.size()) + " bytes");
  const std::uint32_t word = header_word(frame.data());
  const auto type = static_cast<FrameType>(word >> 29);
  const std::uint32_t value = word & kMaxFrameValue;
  const std::size_t payload = frame.size() - kFrameHeaderBytes;
  Decoded out;
  switch (type) {
    case FrameType::version:
      if (state_ != State::need_version) return framing_fault("a second version frame");
      if (!std::ranges::equal(frame, version_frame())) return framing_fault("not version 2 of tx5");
      state_ = State::idle;
      return out;
    case FrameType::message:
      if (state_ != State::idle) return framing_fault("a message at the wrong time");
      if (value != payload) return framing_fault("a message of the wrong length");
      if (value > message_size_max_) return make_error(Errc::too_large, "tx5 framing: a message over the limit");
      out.event = Event::message;
      out.message = frame.slice(kFrameHeaderBytes);
      return out;
    case FrameType::chunk:
      if (state_ != State::chunks) return framing_fault("a chunk that was not permitted");
      if (value != payload || value == 0) return framing_fault("a chunk of the wrong length");
      return decode_chunk(frame.view().subspan(kFrameHeaderBytes));
    case FrameType::permit_request:
      if (state_ != State::idle) return framing_fault("a permit request at the wrong time");
      if (payload != 0) return framing_fault("a permit request with a body");
      // No chunk may be empty, so nothing could ever complete an empty message.
      if (value == 0) return framing_fault("a permit request for nothing");
      if (value > message_size_max_) {
        return make_error(Errc::too_large, "tx5 framing: a message of " + std::to_string(value) + " bytes, at most " +
                                               std::to_string(message_size_max_) + " allowed");
      }
      state_ = State::awaiting_permit;
      want_ = value;
      out.event = Event::permit_request;
      out.value = value;
      return out;
    case FrameType::permit_grant:
      if (state_ == State::need_version) return framing_fault("a grant before the version");
      if (payload != 0) return framing_fault("a grant with a body");
      out.event = Event::permit_grant;
      out.value = value;
      return out;
    case FrameType::reserved0:
      if (value == 0 && payload == 0) return make_error(Errc::disconnected, "closed by the peer");
      [[fallthrough]];
    case FrameType::reserved1:
    case FrameType::reserved7:
      return framing_fault("a frame of a reserved type");
  }
  return framing_fault("a frame of a reserved type");
}

Result<FrameDecoder::Decoded> FrameDecoder::decode_chunk(ByteView payload) {
  if (payload.size() > want_ - received_) return framing_fault("more bytes than were permitted");
  const auto size = static_cast<std::uint32_t>(payload.size());
  if (size > room_ - received_) {
    room_ = std::min(want_, std::max({received_ + size, room_ > want_ / 2 ? want_ : 2 * room_, kFirstBuffer}));
    auto larger = make_buffer(room_);
    if (received_ > 0) std::memcpy(larger.get(), incoming_.get(), received_);
    incoming_ = std::move(larger);
  }
  std::memcpy(incoming_.get() + received_, payload.data(), size);
  return advance(size);
}

std::span<std::uint8_t> FrameDecoder::lend(std::size_t ahead) {
  K2_ASSERT(lent_ahead_ == 0 && ahead + kFrameHeaderBytes <= saved_.size());
  const std::size_t room = room_ - received_;
  if (state_ != State::chunks || received_ < ahead + kFrameHeaderBytes) return {};
  if (room < std::min<std::size_t>(want_ - received_, kMaxChunkBytes)) return {};
  lent_ahead_ = ahead + kFrameHeaderBytes;
  std::uint8_t* const begin = incoming_.get() + received_ - lent_ahead_;
  std::memcpy(saved_.data(), begin, lent_ahead_);
  return {begin, lent_ahead_ + room};
}

std::optional<FrameDecoder::Decoded> FrameDecoder::keep(std::size_t size) {
  K2_ASSERT(lent_ahead_ > 0);
  if (size <= kFrameHeaderBytes || size > kMaxFrameBytes) return std::nullopt;
  const std::size_t payload = size - kFrameHeaderBytes;
  const std::uint32_t word = header_word(incoming_.get() + received_ - kFrameHeaderBytes);
  const bool is_chunk = word >> 29 == static_cast<std::uint32_t>(FrameType::chunk);
  if (!is_chunk || (word & kMaxFrameValue) != payload || payload > want_ - received_) return std::nullopt;
  take_back();
  return advance(static_cast<std::uint32_t>(payload));
}

void FrameDecoder::take_back() {
  std::memcpy(incoming_.get() + received_ - lent_ahead_, saved_.data(), lent_ahead_);
  lent_ahead_ = 0;
}

FrameDecoder::Decoded FrameDecoder::advance(std::uint32_t size) {
  received_ += size;
  Decoded out;
  out.chunked = true;
  if (received_ < want_) {
    out.event = Event::progress;
    out.value = size;
    return out;
  }
  state_ = State::idle;
  out.event = Event::message;
  const ByteView whole{incoming_.get(), received_};
  out.message = Bytes::share(std::exchange(incoming_, nullptr), whole);
  want_ = received_ = room_ = 0;
  return out;
}

void FrameDecoder::on_granted() {
  if (state_ == State::awaiting_permit) state_ = State::chunks;
}

}  // namespace kitsune2::tx5
