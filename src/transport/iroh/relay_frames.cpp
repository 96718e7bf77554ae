// Reads and writes frames of the iroh relay protocol.
#include "transport/iroh/relay_frames.hpp"

#include <algorithm>

#include "wire/protobuf.hpp"

namespace kitsune2::iroh {
namespace {

constexpr std::uint8_t kServerChallenge = 0;
constexpr std::uint8_t kClientAuth = 1;
constexpr std::uint8_t kServerConfirmsAuth = 2;
constexpr std::uint8_t kServerDeniesAuth = 3;
constexpr std::uint8_t kDatagramToRelay = 4;
constexpr std::uint8_t kBatchToRelay = 5;
constexpr std::uint8_t kDatagramFromRelay = 6;
constexpr std::uint8_t kBatchFromRelay = 7;
constexpr std::uint8_t kEndpointGone = 8;
constexpr std::uint8_t kPing = 9;
constexpr std::uint8_t kPong = 10;
constexpr std::uint8_t kHealth = 11;
constexpr std::uint8_t kRestarting = 12;
constexpr std::uint8_t kStatus = 13;
constexpr std::uint8_t kPeerAddress = 60;  // ours; far from those of the reference

constexpr std::uint8_t kEcnBits = 3;

struct VersionName {
  std::string_view name;
  RelayVersion version;
};
/// The newest first.
constexpr VersionName kVersions[] = {{"iroh-relay-v2", RelayVersion::v2}, {"iroh-relay-v1", RelayVersion::v1}};

Error malformed(const std::string& what) { return make_error(Errc::malformed, "relay frame: " + what); }

/// The body of a frame, read from the front. A read beyond the end takes nothing and is remembered.
class Body {
 public:
  explicit Body(ByteView bytes) : rest_(bytes) {}

  std::uint8_t byte() { return static_cast<std::uint8_t>(number(1)); }
  std::uint16_t u16() { return static_cast<std::uint16_t>(number(2)); }
  std::uint32_t u32() { return static_cast<std::uint32_t>(number(4)); }
  template <std::size_t N>
  std::array<std::uint8_t, N> array() {
    std::array<std::uint8_t, N> out{};
    const ByteView bytes = take(N);
    std::copy(bytes.begin(), bytes.end(), out.begin());
    return out;
  }
  /// A length in the form of postcard: seven bits per byte, the low ones first.
  std::size_t length() {
    std::size_t out = 0;
    for (unsigned shift = 0; shift < 28; shift += 7) {
      const std::uint8_t next = byte();
      out |= static_cast<std::size_t>(next & 0x7fU) << shift;
      if ((next & 0x80U) == 0) return out;
    }
    ok_ = false;
    return 0;
  }
  std::string text(std::size_t length) {
    const ByteView bytes = take(length);
    if (!wire::is_utf8(as_text(bytes))) ok_ = false;
    return std::string(as_text(bytes));
  }
  ByteView take(std::size_t count) {
    if (count > rest_.size()) {
      ok_ = false;
      return {};
    }
    const ByteView out = rest_.first(count);
    rest_ = rest_.subspan(count);
    return out;
  }
  ByteView take_rest() { return take(rest_.size()); }
  /// Whether all reads were inside, and nothing is left over.
  bool ended_well() const { return ok_ && rest_.empty(); }

 private:
  std::uint64_t number(std::size_t bytes) {
    std::uint64_t out = 0;
    for (const std::uint8_t b : take(bytes)) out = out << 8 | b;
    return out;
  }
  ByteView rest_;
  bool ok_ = true;
};

ClientAuth read_auth(Body& body) {
  ClientAuth out;
  out.key = body.array<32>();
  // A byte vector in postcard. Any other length has bytes left over, or too few.
  if (body.length() != out.signature.size()) body.take(SIZE_MAX);
  out.signature = body.array<64>();
  return out;
}

Datagrams read_datagrams(Body& body, const Bytes& message, bool batch) {
  Datagrams out;
  out.peer = body.array<32>();
  out.ecn = body.byte() & kEcnBits;
  if (batch) out.segment_size = body.u16();
  const ByteView content = body.take_rest();
  out.content = message.slice(static_cast<std::size_t>(content.data() - message.data()), content.size());
  return out;
}

/// A QUIC varint: the two high bits of the first byte tell the number of bytes.
std::uint64_t read_type(Body& body) {
  const std::uint8_t first = body.byte();
  std::uint64_t out = first & 0x3fU;
  for (unsigned more = (1U << (first >> 6U)) - 1; more > 0; --more) out = out << 8 | body.byte();
  return out;
}

std::optional<RelayFrame> read_client_frame(std::uint64_t type, Body& body, const Bytes& message) {
  switch (type) {
    case kClientAuth:
      return read_auth(body);
    case kDatagramToRelay:
    case kBatchToRelay:
      return read_datagrams(body, message, type == kBatchToRelay);
    default:
      return std::nullopt;
  }
}

std::optional<RelayFrame> read_relay_frame(RelayVersion version, std::uint64_t type, Body& body, const Bytes& message) {
  switch (type) {
    case kServerChallenge:
      return ServerChallenge{body.array<16>()};
    case kServerConfirmsAuth:
      return ServerConfirmsAuth{};
    case kServerDeniesAuth:
      return ServerDeniesAuth{body.text(body.length())};
    case kDatagramFromRelay:
    case kBatchFromRelay:
      return read_datagrams(body, message, type == kBatchFromRelay);
    case kEndpointGone:
      return EndpointGone{body.array<32>()};
    case kHealth:
      if (version != RelayVersion::v1) return std::nullopt;
      return Health{std::string(as_text(body.take_rest()))};
    case kRestarting: {
      Restarting out;
      out.reconnect_in_ms = body.u32();
      out.try_for_ms = body.u32();
      return out;
    }
    case kStatus: {
      if (version != RelayVersion::v2) return std::nullopt;
      const Status out{body.byte()};
      body.take_rest();  // later versions may add more
      return out;
    }
    case kPeerAddress: {
      PeerAddress out;
      out.id = body.array<32>();
      out.address = body.array<16>();
      return out;
    }
    default:
      return std::nullopt;
  }
}

class Writer {
 public:
  Writer& byte(std::uint8_t value) {
    out_.push_back(value);
    return *this;
  }
  Writer& number(std::uint64_t value, unsigned bytes) {
    while (bytes-- > 0) byte(static_cast<std::uint8_t>(value >> (8 * bytes)));
    return *this;
  }
  Writer& raw(ByteView bytes) {
    out_.insert(out_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Writer& length(std::size_t value) {
    for (; value >= 0x80; value >>= 7) byte(static_cast<std::uint8_t>(value | 0x80U));
    return byte(static_cast<std::uint8_t>(value));
  }
  Bytes finish() { return Bytes(std::move(out_)); }

 private:
  std::vector<std::uint8_t> out_;
};

struct Encoder {
  Sender sender;
  Writer out;

  void operator()(const ServerChallenge& f) { out.byte(kServerChallenge).raw(f.challenge); }
  void operator()(const ClientAuth& f) { out.byte(kClientAuth).raw(f.key).length(f.signature.size()).raw(f.signature); }
  void operator()(const ServerConfirmsAuth& /*f*/) { out.byte(kServerConfirmsAuth); }
  void operator()(const ServerDeniesAuth& f) {
    out.byte(kServerDeniesAuth).length(f.reason.size()).raw(as_bytes(f.reason));
  }
  void operator()(const Datagrams& f) {
    const bool batch = f.segment_size != 0;
    K2_ASSERT(!f.content.empty() && f.content.size() <= (batch ? kMaxBatchBytes : kMaxDatagramBytes));
    const std::uint8_t first = sender == Sender::client ? kDatagramToRelay : kDatagramFromRelay;
    out.byte(static_cast<std::uint8_t>(first + (batch ? 1 : 0))).raw(f.peer).byte(f.ecn & kEcnBits);
    if (batch) out.number(f.segment_size, 2);
    out.raw(f.content);
  }
  void operator()(const EndpointGone& f) { out.byte(kEndpointGone).raw(f.id); }
  void operator()(const Ping& f) { out.byte(kPing).raw(f.payload); }
  void operator()(const Pong& f) { out.byte(kPong).raw(f.payload); }
  void operator()(const Health& f) { out.byte(kHealth).raw(as_bytes(f.problem)); }
  void operator()(const Restarting& f) { out.byte(kRestarting).number(f.reconnect_in_ms, 4).number(f.try_for_ms, 4); }
  void operator()(const Status& f) { out.byte(kStatus).byte(f.code); }
  void operator()(const PeerAddress& f) { out.byte(kPeerAddress).raw(f.id).raw(f.address); }
};

}  // namespace

std::string_view to_string(RelayVersion version) {
  for (const VersionName& entry : kVersions) {
    if (entry.version == version) return entry.name;
  }
  return {};
}

std::optional<RelayVersion> newest_version(const std::vector<std::string>& offered) {
  for (const VersionName& entry : kVersions) {
    for (std::string_view value : offered) {
      while (!value.empty()) {
        std::string_view item = value.substr(0, value.find(','));
        value.remove_prefix(std::min(item.size() + 1, value.size()));
        const std::size_t start = item.find_first_not_of(" \t");
        if (start == std::string_view::npos) continue;
        item = item.substr(start, item.find_last_not_of(" \t") - start + 1);
        if (item == entry.name) return entry.version;
      }
    }
  }
  return std::nullopt;
}

std::vector<Bytes> Datagrams::split() const {
  std::vector<Bytes> out;
  if (content.empty()) return out;
  const std::size_t size = segment_size == 0 ? content.size() : segment_size;
  out.reserve((content.size() + size - 1) / size);
  for (std::size_t at = 0; at < content.size(); at += size) out.push_back(content.slice(at, size));
  return out;
}

Result<RelayFrame> decode_relay_frame(RelayVersion version, Sender sender, const Bytes& message) {
  if (message.empty()) return malformed("empty");
  Body body(message);
  const std::uint64_t type = read_type(body);
  if (message.size() > kMaxRelayBody + 1) return make_error(Errc::too_large, "relay frame: over 65,536 bytes");
  std::optional<RelayFrame> out;
  if (type == kPing) {
    out = Ping{body.array<8>()};
  } else if (type == kPong) {
    out = Pong{body.array<8>()};
  } else {
    out = sender == Sender::client ? read_client_frame(type, body, message)
                                   : read_relay_frame(version, type, body, message);
  }
  if (!out) return malformed("unexpected type " + std::to_string(type));
  if (!body.ended_well()) return malformed("wrong size for type " + std::to_string(type));
  if (const auto* health = std::get_if<Health>(&*out); health != nullptr && !wire::is_utf8(health->problem))
    return malformed("a text that is not UTF-8");
  return std::move(*out);
}

Bytes encode_relay_frame(Sender sender, const RelayFrame& frame) {
  Encoder encoder{sender, {}};
  std::visit(encoder, frame);
  return encoder.out.finish();
}

}  // namespace kitsune2::iroh
