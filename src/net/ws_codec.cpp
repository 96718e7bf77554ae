// Reads and writes WebSocket frames.
#include "net/ws_codec.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <cstring>

namespace kitsune2::net {

namespace {

using Block = std::uint64_t __attribute__((vector_size(32)));

std::uint64_t load_be(const std::uint8_t* p, std::size_t n) {
  std::uint64_t out = 0;
  for (std::size_t i = 0; i < n; ++i) out = out << 8 | p[i];
  return out;
}

std::string base64(ByteView bytes) {
  std::string out(4 * ((bytes.size() + 2) / 3), '\0');
  EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes.data(), static_cast<int>(bytes.size()));
  return out;
}

}  // namespace

void ws_mask(std::uint8_t* dst, const std::uint8_t* src, std::size_t size, std::uint32_t key, std::size_t phase) {
  if (key == 0) {
    if (dst != src && size > 0) std::memmove(dst, src, size);
    return;
  }
  const unsigned shift = 8U * (phase & 3U);
  const std::uint32_t turned = shift == 0 ? key : key >> shift | key << (32U - shift);
  const std::uint64_t wide = std::uint64_t{turned} << 32 | turned;
  const Block blocks = {wide, wide, wide, wide};
  std::size_t i = 0;
  for (; i + 64 <= size; i += 64) {
    Block a;
    Block b;
    std::memcpy(&a, src + i, 32);
    std::memcpy(&b, src + i + 32, 32);
    a ^= blocks;
    b ^= blocks;
    std::memcpy(dst + i, &a, 32);
    std::memcpy(dst + i + 32, &b, 32);
  }
  for (; i + 8 <= size; i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, src + i, 8);
    word ^= wide;
    std::memcpy(dst + i, &word, 8);
  }
  for (; i < size; ++i) dst[i] = static_cast<std::uint8_t>(src[i] ^ (turned >> (8U * (i & 3U))));
}

void WsPayload::copy_to(std::uint8_t* dst, std::size_t from, std::size_t n) const {
  ws_mask(dst, data + from, n, key, from);
}

void WsPayload::unmask() {
  ws_mask(data, data, size, key);
  key = 0;
}

Bytes WsPayload::take() {
  constexpr std::size_t kShareFrom = 4096;
  if (!owner || size < kShareFrom) {
    std::vector<std::uint8_t> copy(size);
    copy_to(copy.data(), 0, size);
    return Bytes(std::move(copy));
  }
  unmask();
  return Bytes::share(owner, {data, size});
}

/// The header of a frame.
struct WsDecoder::Head {
  bool final = false;
  std::uint8_t opcode = 0;
  std::uint32_t key = 0;
  std::uint64_t length = 0;
  std::size_t size = 0;  // size of the header itself

  bool is_control() const { return opcode >= 8; }
};

std::optional<WsDecoder::Fault> WsDecoder::control(std::uint8_t opcode, const std::uint8_t* data, std::size_t size,
                                                   std::uint32_t key, Sink& sink) {
  std::array<std::uint8_t, 125> plain{};
  ws_mask(plain.data(), data, size, key);
  if (opcode == kWsPing) {
    sink.on_ws_ping({plain.data(), size});
  } else if (opcode == kWsPong) {
    sink.on_ws_pong({plain.data(), size});
  } else if (opcode == kWsClose) {
    stopped_ = true;
    if (size == 1) return Fault{1002, "a close frame of one byte"};
    const auto code = size == 0 ? std::uint16_t{1005} : static_cast<std::uint16_t>(load_be(plain.data(), 2));
    std::string reason = size > 2 ? std::string(as_text({plain.data() + 2, size - 2})) : std::string();
    for (char& c : reason) {
      if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = '?';
    }
    sink.on_ws_close(code, std::move(reason));
  }
  return std::nullopt;
}

WsDecoder::Next WsDecoder::deliver_gathered(Sink& sink) {
  WsPayload message;
  message.data = gathered_.data();
  message.size = gathered_.size();
  const Next next = sink.on_ws_message(message);
  if (next == Next::hold) return next;
  complete_ = false;
  gathered_.clear();
  if (gathered_.capacity() > kSpareBytes) std::vector<std::uint8_t>().swap(gathered_);
  return next;
}

WsDecoder::Read WsDecoder::read_head(const std::uint8_t* at, std::size_t have, Head& head,
                                     std::optional<Fault>& fault) const {
  const auto broken = [&](const char* text) {
    fault = Fault{1002, text};
    return Read::fault;
  };
  if (have < 2) return Read::more;
  head.final = (at[0] & 0x80U) != 0;
  head.opcode = at[0] & 0x0fU;
  const bool masked = (at[1] & 0x80U) != 0;
  const std::uint8_t first = at[1] & 0x7fU;
  if ((at[0] & 0x70U) != 0) return broken("reserved bits in a frame");
  if (masked != (role_ == WsRole::server)) {
    return broken(masked ? "a masked frame from a server" : "an unmasked frame from a client");
  }
  if (head.is_control() && (!head.final || first > 125)) return broken("a control frame that is too long");
  if (head.opcode > kWsPong || (head.opcode > kWsBinary && !head.is_control())) {
    return broken("an unknown kind of frame");
  }
  const std::size_t extra = first < 126 ? 0U : first == 126 ? 2U : 8U;
  head.size = 2 + extra + (masked ? 4U : 0U);
  if (have < head.size) return Read::more;
  head.length = extra == 0 ? first : load_be(at + 2, extra);
  if ((extra == 2 && head.length < 126) || (extra == 8 && head.length <= 0xffff)) {
    return broken("a frame length that is not in its shortest form");
  }
  if (masked) std::memcpy(&head.key, at + 2 + extra, 4);
  return Read::frame;
}

std::optional<WsDecoder::Fault> WsDecoder::misplaced(const Head& head) const {
  if ((head.opcode == kWsContinuation) != in_message_) {
    return Fault{1002, in_message_ ? "a new message inside a fragmented one" : "a fragment without a beginning"};
  }
  if (head.length > max_ || gathered_.size() > max_ - head.length) return Fault{1009, "a message that is too large"};
  return std::nullopt;
}

std::size_t WsDecoder::gather(const std::uint8_t* at, std::size_t have) {
  const std::size_t n = std::min(frame_left_, have);
  if (n == 0) return 0;
  const std::size_t old = gathered_.size();
  gathered_.resize(old + n);
  ws_mask(gathered_.data() + old, at, n, frame_key_, frame_phase_);
  frame_phase_ += n;
  frame_left_ -= n;
  if (frame_left_ == 0 && frame_final_) complete_ = true;
  return n;
}

void WsDecoder::begin_gathering(const Head& head) {
  in_message_ = !head.final;
  frame_left_ = head.length;
  frame_key_ = head.key;
  frame_phase_ = 0;
  frame_final_ = head.final;
  if (frame_left_ == 0 && frame_final_) complete_ = true;
}

WsDecoder::Outcome WsDecoder::decode(const Incoming& in, Sink& sink) {
  Outcome out;
  const auto fail = [&](const Fault& fault) {
    stopped_ = true;
    out.fault = fault;
    return out;
  };
  while (true) {
    if (stopped_) {
      out.used = in.size;
      return out;
    }
    if (complete_) {
      const Next next = deliver_gathered(sink);
      out.held = next == Next::hold || next == Next::last;
      if (out.held) return out;
      stopped_ = next == Next::stop;
      if (stopped_) continue;
    }
    std::uint8_t* at = in.data + out.used;
    const std::size_t have = in.size - out.used;
    if (frame_left_ > 0) {
      const std::size_t n = gather(at, have);
      if (n == 0) return out;
      out.used += n;
      continue;
    }
    Head head;
    const Read read = read_head(at, have, head, out.fault);
    if (read == Read::more) return out;
    if (read == Read::fault) return fail(*out.fault);
    const std::size_t size = head.size + head.length;
    if (head.is_control()) {
      if (have < size) return out;
      stopped_ = !sink.on_ws_frame(head.length);
      if (stopped_) continue;
      if (const auto fault = control(head.opcode, at + head.size, head.length, head.key, sink)) return fail(*fault);
      out.used += size;
      continue;
    }
    if (const auto fault = misplaced(head)) return fail(*fault);
    if (head.final && !in_message_ && head.length <= kDirectBytes) {
      if (have < size) return out;
      WsPayload message{at + head.size, head.length, head.key, in.owner};
      const Next next = sink.on_ws_message(message);
      out.held = next == Next::hold || next == Next::last;
      if (next != Next::hold) out.used += size;
      if (out.held) return out;
      stopped_ = next == Next::stop;
      continue;
    }
    if (in_message_ || !head.final) stopped_ = !sink.on_ws_frame(head.length);
    if (stopped_) continue;
    out.used += head.size;
    begin_gathering(head);
  }
}

void ws_append_header(ByteBuffer& out, WsRole sender, std::uint8_t opcode, std::size_t size, std::uint32_t key) {
  std::uint8_t* p = out.extend(ws_header_size(sender, size));
  const std::uint8_t mask_bit = sender == WsRole::client ? 0x80 : 0;
  *p++ = static_cast<std::uint8_t>(0x80U | opcode);
  if (size < 126) {
    *p++ = static_cast<std::uint8_t>(mask_bit | size);
  } else {
    const unsigned bytes = size <= 0xffff ? 2 : 8;
    *p++ = static_cast<std::uint8_t>(mask_bit | (bytes == 2 ? 126U : 127U));
    for (unsigned i = bytes; i-- > 0;) *p++ = static_cast<std::uint8_t>(std::uint64_t{size} >> (8U * i));
  }
  if (sender == WsRole::client) std::memcpy(p, &key, 4);
}

void ws_append_frame(ByteBuffer& out, WsRole sender, std::uint8_t opcode, ByteView payload, std::uint32_t key) {
  ws_append_header(out, sender, opcode, payload.size(), key);
  if (payload.empty()) return;
  ws_mask(out.extend(payload.size()), payload.data(), payload.size(), sender == WsRole::client ? key : 0);
}

void ws_append_close(ByteBuffer& out, WsRole sender, std::uint16_t code, std::string_view reason, std::uint32_t key) {
  if (code == 1005) return ws_append_frame(out, sender, kWsClose, {}, key);
  std::string payload = {static_cast<char>(code >> 8), static_cast<char>(code & 0xff)};
  payload += reason.substr(0, 123);
  ws_append_frame(out, sender, kWsClose, as_bytes(payload), key);
}

std::string ws_accept_value(std::string_view key) {
  const std::string text = std::string(key) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";  // RFC 6455, 1.3
  std::array<std::uint8_t, 20> digest{};
  EVP_Digest(text.data(), text.size(), digest.data(), nullptr, EVP_sha1(), nullptr);
  return base64(digest);
}

bool ws_key_is_valid(std::string_view key) {
  if (key.size() != 24 || !key.ends_with("==")) return false;
  return std::all_of(key.begin(), key.end() - 2, [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/';
  });
}

}  // namespace kitsune2::net
