// Frames of Kitsune2 0.5 on a stream: never crashes; how the stream is cut makes no difference; what is accepted
// survives being written and read again; nothing is allocated for what is only announced.
#include "transport/iroh/framing.hpp"

#include <optional>
#include <string>
#include <vector>

#include "fuzz/fuzz.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

constexpr std::uint64_t kMax = 4096;

struct Seen {
  std::vector<std::pair<iroh::FrameKind, Bytes>> frames;
  std::optional<Error> error;
  std::size_t waiting = 0;
  bool operator==(const Seen&) const = default;
};

Seen read(bool first, const Bytes& stream, std::size_t chunk) {
  Seen out;
  iroh::FrameReader reader(first, kMax);
  for (std::size_t at = 0; at < stream.size() && !out.error; at += chunk) {
    reader.feed(stream.slice(at, chunk));
    while (true) {
      auto frame = reader.next();
      if (!frame) {
        out.error = frame.error();
        break;
      }
      if (!*frame) break;
      K2_ASSERT((*frame)->body.size() + iroh::kFrameHeaderBytes <= kMax);
      out.frames.emplace_back((*frame)->kind, (*frame)->body);
    }
    K2_ASSERT(reader.waiting() <= kMax);
  }
  out.waiting = reader.waiting();
  return out;
}

}  // namespace

// The first byte: whether the stream is its connection's first, and how it is cut; the rest is the stream.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const bool first = (data[0] & 1) != 0;
  const Bytes stream = fuzz::input(data + 1, size - 1);
  const Seen whole = read(first, stream, stream.size() + 1);
  K2_ASSERT(read(first, stream, std::size_t{1} + data[0] / 2U) == whole);
  std::string again;
  for (const auto& [kind, body] : whole.frames) {
    if (kind == iroh::FrameKind::data) {
      again += iroh::encode_data(body).joined().str();
      continue;
    }
    const auto preflight = iroh::decode_preflight(body);
    if (!preflight) return 0;
    again += iroh::encode_preflight(preflight->url.text(), preflight->k2proto).str();
  }
  K2_ASSERT(stream.text().starts_with(again));
  return 0;
}
