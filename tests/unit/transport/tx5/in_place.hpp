// A frame read into its place, as the connection does it.
#pragma once

#include <algorithm>
#include <utility>

#include "transport/tx5/framing.hpp"

namespace kitsune2::tests {

/// The frame comes after four letters, in the decoder's room if there is one for it. `kept` counts the chunks that
/// stayed there.
inline Result<tx5::FrameDecoder::Decoded> decode_in_place(tx5::FrameDecoder& decoder, const Bytes& frame,
                                                          std::size_t& kept) {
  const auto room = decoder.lend(4);
  if (room.empty()) return decoder.decode(frame);
  if (frame.size() + 4 <= room.size()) {
    std::fill_n(room.begin(), 4, 'l');
    std::copy(frame.begin(), frame.end(), room.begin() + 4);
    if (auto chunk = decoder.keep(frame.size())) {
      ++kept;
      return std::move(*chunk);
    }
  }
  decoder.take_back();
  return decoder.decode(frame);
}

}  // namespace kitsune2::tests
