// Marks names, and finds the mark in datagrams.
#include "transport/datagram_filter.hpp"

#include <algorithm>
#include <utility>

#include "kitsune2/error.hpp"

namespace kitsune2 {
namespace {

std::uint32_t word_at(ByteView bytes, std::size_t at) {
  return std::uint32_t{bytes[at]} << 24U | std::uint32_t{bytes[at + 1]} << 16U | std::uint32_t{bytes[at + 2]} << 8U |
         bytes[at + 3];
}

}  // namespace

DatagramFilter::DatagramFilter(const Shapes& shapes, const std::function<void(std::span<std::uint8_t>)>& random)
    : shapes_(shapes) {
  for (const Shape& shape : shapes_)
    K2_ASSERT(shape.least >= 5 && std::size_t{shape.name_at} + kNameBytes <= shape.least);
  std::array<std::uint8_t, 16> seed{};
  random(seed);
  secret_ = {word_at(seed, 0), word_at(seed, 4) | 1U, word_at(seed, 8) | 1U, word_at(seed, 12)};
}

std::uint16_t DatagramFilter::mark_of(std::uint32_t first) const {
  std::uint32_t mixed = (first ^ secret_.before) * secret_.by;
  mixed = (mixed ^ mixed >> kFold) * secret_.again_by;
  return static_cast<std::uint16_t>(mixed ^ mixed >> kFoldAgain ^ secret_.after);
}

void DatagramFilter::mark(Name name) const {
  const std::uint16_t mark = mark_of(word_at(name, 0));
  name[6] = static_cast<std::uint8_t>(mark >> 8U);
  name[7] = static_cast<std::uint8_t>(mark);
}

bool DatagramFilter::lets_in(ByteView datagram) const {
  if (datagram.size() < 5) return false;
  const std::uint32_t first = word_at(datagram, 0);
  for (std::size_t i = 0; i < shapes_.size(); ++i) {
    const Shape& shape = shapes_.at(i);
    if ((first & shape.mask) != shape.first || datagram.size() < shape.least) continue;
    if (shape.fifth != kAny && datagram[4] != shape.fifth) continue;
    const ByteView name = datagram.subspan(shape.name_at, kNameBytes);
    if (mark_of(word_at(name, 0)) != (name[6] << 8U | name[7])) continue;
    if (!names_) return true;
    NameBytes bytes{};
    std::ranges::copy(name, bytes.begin());
    if (std::ranges::binary_search(names_->at(i), bytes)) return true;
  }
  return false;
}

DatagramFilter DatagramFilter::only(Names names) const {
  std::size_t left = kMostNames;
  for (auto& of_shape : names) {
    of_shape.resize(std::min(of_shape.size(), left));
    left -= of_shape.size();
    std::ranges::sort(of_shape);
  }
  DatagramFilter out = *this;
  out.names_ = std::move(names);
  return out;
}

DatagramFilter DatagramFilter::all() const {
  DatagramFilter out = *this;
  out.names_.reset();
  return out;
}

}  // namespace kitsune2
