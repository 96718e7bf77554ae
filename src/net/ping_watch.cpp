// When the server of a WebSocket connection is pinged, and when it is given up. The rules are in the header.
#include "net/ping_watch.hpp"

#include <algorithm>
#include <vector>

namespace kitsune2::net {

void PingWatch::on_pong(ByteView payload) {
  if (!ping_ || !std::ranges::equal(payload, this->payload().view())) return;
  proven_ = ping_->position;
  ping_.reset();
}

bool PingWatch::on_sent(std::size_t bytes) {
  sent_ += bytes;
  return pings_.quiet > Duration::zero() && !ping_ && sent_ - last_ping_ >= kProofBytes;
}

void PingWatch::on_taken(std::size_t queued, Time now) {
  if (!ping_ || !ping_->in_queue) return;
  ping_->left_at = now;
  ping_->in_queue = sent_ - std::min<std::uint64_t>(queued, sent_) <= ping_->position;
}

PingWatch::Verdict PingWatch::on_time(Time now) {
  if (pings_.quiet <= Duration::zero()) return Verdict::wait;
  const bool too_much = !ping_ && sent_ - last_ping_ >= kProofBytes;
  if (!too_much && now < next_deadline()) return Verdict::wait;
  if (ping_ && now <= next_deadline() + kLate) return Verdict::deaf;
  const auto extra = std::chrono::seconds(std::min<std::uint64_t>((sent_ - proven_) / kSlowestRate, 3600));
  ping_ = Ping{.position = sent_, .left_at = now, .extra = std::min<Duration>(extra, kLongestExtra)};
  last_ping_ = sent_;
  count_ += 1;
  return Verdict::ping;
}

Time PingWatch::next_deadline() const {
  if (pings_.quiet <= Duration::zero()) return Time::max();
  if (!ping_) return last_received_ + pings_.quiet;
  return std::max(ping_->left_at, last_received_) + pings_.answer + ping_->extra;
}

Bytes PingWatch::payload() const {
  std::vector<std::uint8_t> out(8);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::uint8_t>(count_ >> (8 * (7 - i)));
  return Bytes(std::move(out));
}

}  // namespace kitsune2::net
