// Reads and writes Kitsune2's frames on a QUIC stream.
#include "transport/iroh/framing.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "wire/protobuf.hpp"

namespace kitsune2::iroh {
namespace {

constexpr std::size_t kLengthBytes = 4;
/// A frame gets memory for all that its header announces when so much of it has come: a part of 1 / kMaxGrowth.
constexpr std::size_t kMaxGrowth = 4;

std::uint32_t read_length(ByteView bytes) {
  std::uint32_t out = 0;
  for (const std::uint8_t b : bytes.first(kLengthBytes)) out = out << 8 | b;
  return out;
}

void put_length(std::vector<std::uint8_t>& out, std::size_t length) {
  K2_ASSERT(length <= UINT32_MAX);
  for (unsigned shift = 32; shift > 0;) {
    shift -= 8;
    out.push_back(static_cast<std::uint8_t>(length >> shift));
  }
}

std::vector<std::uint8_t> header(FrameKind kind, std::size_t length) {
  std::vector<std::uint8_t> out{static_cast<std::uint8_t>(kind)};
  put_length(out, length);
  return out;
}

}  // namespace

Result<Preflight> decode_preflight(const Bytes& body) {
  if (body.size() < kLengthBytes) return make_error(Errc::malformed, "preflight: no url");
  const std::size_t length = read_length(body);
  if (length > body.size() - kLengthBytes) return make_error(Errc::malformed, "preflight: the url is cut off");
  Preflight out{body.slice(kLengthBytes, length), body.slice(kLengthBytes + length)};
  if (!wire::is_utf8(out.url.text())) return make_error(Errc::malformed, "preflight: the url is not UTF-8");
  return out;
}

Bytes encode_preflight(std::string_view own_url, ByteView k2proto) {
  std::vector<std::uint8_t> out = header(FrameKind::preflight, kLengthBytes + own_url.size() + k2proto.size());
  put_length(out, own_url.size());
  const ByteView url = as_bytes(own_url);
  out.insert(out.end(), url.begin(), url.end());
  out.insert(out.end(), k2proto.begin(), k2proto.end());
  return Bytes(std::move(out));
}

ByteChain encode_data(const ByteChain& k2proto) {
  ByteChain out{Bytes(header(FrameKind::data, k2proto.size()))};
  for (const Bytes& piece : k2proto.pieces()) out.append(piece);
  return out;
}

void FrameReader::feed(Bytes chunk) {
  K2_ASSERT(error_ || chunk_.empty());
  if (!error_) chunk_ = std::move(chunk);
}

Result<FrameReader::Header> FrameReader::check(ByteView bytes) const {
  const std::uint8_t kind = bytes[0];
  if (kind > static_cast<std::uint8_t>(FrameKind::data))
    return make_error(Errc::malformed, "frame of unknown kind " + std::to_string(kind));
  Header out{static_cast<FrameKind>(kind), read_length(bytes.subspan(1))};
  if (first_ && out.kind != FrameKind::preflight) return make_error(Errc::malformed, "data before the preflight");
  if (!first_ && out.kind == FrameKind::preflight) return make_error(Errc::malformed, "a second preflight");
  if (out.body_bytes + std::uint64_t{kFrameHeaderBytes} > max_frame_bytes_)
    return make_error(Errc::too_large, "a frame of " + std::to_string(out.body_bytes) + " bytes");
  return out;
}

bool FrameReader::gather(std::size_t count) {
  if (partial_.size() < count) {
    const Bytes more = chunk_.slice(0, count - partial_.size());
    if (count <= kMaxGrowth * (partial_.size() + more.size())) partial_.reserve(count);
    partial_.insert(partial_.end(), more.begin(), more.end());
    chunk_ = chunk_.slice(more.size());
  }
  return partial_.size() >= count;
}

Result<std::optional<Frame>> FrameReader::next() {
  if (error_) return *error_;
  announced_ = 0;
  // A header that is cut is put together; if it is whole, what follows it stays in the chunk.
  const bool in_chunk = partial_.empty() && chunk_.size() >= kFrameHeaderBytes;
  if (!in_chunk && !gather(kFrameHeaderBytes)) return std::optional<Frame>();
  const Result<Header> header = check(in_chunk ? chunk_.view() : ByteView(partial_));
  if (!header) {
    error_ = header.error();
    chunk_ = {};
    partial_ = {};
    return *error_;
  }
  const std::size_t whole = kFrameHeaderBytes + header->body_bytes;
  Frame out{header->kind, {}};
  if (in_chunk && chunk_.size() >= whole) {
    out.body = chunk_.slice(kFrameHeaderBytes, header->body_bytes);
    chunk_ = chunk_.slice(whole);
  } else {
    if (!gather(whole)) {
      announced_ = header->body_bytes;
      return std::optional<Frame>();
    }
    out.body = Bytes(std::exchange(partial_, {})).slice(kFrameHeaderBytes);
  }
  first_ = false;
  return std::optional(std::move(out));
}

}  // namespace kitsune2::iroh
