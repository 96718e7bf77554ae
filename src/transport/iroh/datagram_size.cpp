// The search for the largest datagram that a path carries.
#include "transport/iroh/datagram_size.hpp"

#include <algorithm>

namespace kitsune2::iroh {

void DatagramSize::begin(std::size_t bytes, Time now) {
  bytes_ = bytes;
  failed_ = tried_ = 0;
  tries_ = rounds_ = 0;
  found_ = false;
  due_ = next() ? now : Time::max();
}

void DatagramSize::stop() {
  tried_ = 0;
  tries_ = 0;
  due_ = Time::max();
}

/// S2.
std::optional<std::size_t> DatagramSize::next() const {
  if (bytes_ >= full_) return std::nullopt;
  if (failed_ == 0) return full_;
  const std::size_t between = failed_ > bytes_ ? (failed_ - bytes_ - 1) / kStep : 0;
  if (between == 0) return std::nullopt;
  return failed_ - kStep * ((between + 1) / 2);
}

std::optional<std::size_t> DatagramSize::on_due(Time now, Duration wait) {
  if (now < due_) return std::nullopt;
  if (tried_ != 0 && tries_ >= kTries) {  // S3
    failed_ = tried_;
    tried_ = 0;
  }
  if (tried_ == 0) {
    const std::optional<std::size_t> size = next();
    if (!size) {
      rest(now);
      return std::nullopt;
    }
    tried_ = *size;
    tries_ = 0;
  }
  due_ = now + std::min(wait * (1U << tries_), kMostWait);
  ++tries_;
  return tried_;
}

void DatagramSize::on_answer(Time now) {
  if (tried_ == 0) return;
  bytes_ = tried_;
  tried_ = 0;
  found_ = true;
  due_ = now;
  if (!next()) rest(now);
}

/// S4. With the full size there is nothing to search for.
void DatagramSize::rest(Time now) {
  rounds_ = found_ ? 1 : rounds_ + 1;
  found_ = false;
  failed_ = 0;
  if (bytes_ >= full_) {
    due_ = Time::max();
    return;
  }
  Duration time = kFirstRest;
  for (unsigned i = 1; i < rounds_ && time < kMostRest; ++i) time *= 2;
  due_ = now + std::min(time, kMostRest);
}

}  // namespace kitsune2::iroh
