// tx5 frames: never crashes, never holds more than was permitted, and every message that comes out is as long as its
// frames said. A second decoder reads each frame into its place where it can: the same comes out. Input: the first
// byte's bit 0 says whether the version comes for us; then frames of two bytes of length (its top bit: grant what is
// asked for, after it) and so many bytes.
#include "transport/tx5/framing.hpp"

#include "fuzz/fuzz.hpp"
#include "unit/transport/tx5/in_place.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)
using tx5::FrameDecoder;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::uint64_t kLimit = 100'000;
  if (size == 0) return 0;
  const Bytes input = fuzz::input(data, size);
  FrameDecoder decoder(kLimit), in_place(kLimit);
  if ((input[0] & 1) != 0) {
    const Bytes version = Bytes::copy_of(ByteView(tx5::version_frame()));
    K2_ASSERT(decoder.decode(version).has_value() && in_place.decode(version).has_value());
  }
  bool dead = false;
  std::uint64_t fed = 0;
  std::size_t kept = 0;
  for (std::size_t at = 1; at + 2 <= input.size();) {
    const std::size_t word = static_cast<std::size_t>(input[at]) << 8 | input[at + 1];
    const Bytes frame = input.slice(at + 2, word & 0x7fff).compact();
    at += 2 + (word & 0x7fff);
    const std::uint32_t permitted = decoder.permitted();
    const auto decoded = decoder.decode(frame);
    const auto same = tests::decode_in_place(in_place, frame, kept);
    K2_ASSERT(same.has_value() == decoded.has_value());
    if (decoded) {
      K2_ASSERT(same->event == decoded->event && same->value == decoded->value && same->chunked == decoded->chunked &&
                same->message == decoded->message);
    } else {
      K2_ASSERT(same.error().code == decoded.error().code);
    }
    K2_ASSERT(!dead || decoded.has_error());
    dead = decoded.has_error();
    fed += frame.size();
    K2_ASSERT(decoder.received() <= fed && decoder.received() <= kLimit);
    if (dead) {
      K2_ASSERT(decoder.received() == 0);
      continue;
    }
    if (decoded->event == FrameDecoder::Event::message) {
      K2_ASSERT(decoded->message.size() == (decoded->chunked ? permitted : frame.size() - tx5::kFrameHeaderBytes));
    }
    if (decoded->event == FrameDecoder::Event::permit_request)
      K2_ASSERT(decoded->value > 0 && decoded->value <= kLimit);
    if ((word & 0x8000) == 0) continue;
    decoder.on_granted();
    in_place.on_granted();
  }
  return 0;
}
