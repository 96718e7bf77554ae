// The client side of an sbd connection: handshake, keepalives, and the pace that the relay demands.
#include "transport/sbd/sbd_client.hpp"

#include <algorithm>

namespace kitsune2::tx5 {
namespace {

std::int64_t nanos(Time t) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(t.time_since_epoch()).count();
}

}  // namespace

Result<SbdClient::Action> SbdClient::on_message(ByteView message, Time now) {
  const Result<sbd::Frame> frame = sbd::parse_frame(message);
  if (!frame) return make_error(Errc::peer_fault, "relay: " + frame.error().message);
  Action action;
  switch (frame->kind) {
    case sbd::FrameKind::forward:
      // A relay that forwards before it has accepted us is odd, but harmless: nothing can be answered yet.
      if (!ready_) return action;
      action.kind = Action::Kind::forward;
      action.peer = frame->peer;
      action.body = frame->body;
      return action;
    case sbd::FrameKind::limit_byte_nanos:
      byte_nanos_ = std::max(frame->value, sbd::kUnlimitedByteNanos);
      return action;
    case sbd::FrameKind::auth_request:
      if (ready_) return make_error(Errc::peer_fault, "relay: areq after srdy");
      if (authenticated_) return make_error(Errc::peer_fault, "relay: a second areq");
      authenticated_ = true;
      authenticated_at_ = now;
      action.kind = Action::Kind::send;
      action.bytes = sbd::encode_auth_response(key_.sign(frame->body));
      return action;
    case sbd::FrameKind::limit_idle:
      if (ready_) return make_error(Errc::peer_fault, "relay: lidl after srdy");
      idle_millis_ = frame->value;
      return action;
    case sbd::FrameKind::ready:
      if (ready_) return action;
      if (!authenticated_) return make_error(Errc::peer_fault, "relay: srdy without areq");
      ready_ = true;
      round_trip_ = now - authenticated_at_;
      next_send_ns_ = std::max(next_send_ns_, nanos(now));
      action.kind = Action::Kind::ready;
      return action;
    case sbd::FrameKind::peer_group:
      if (!ready_) return action;
      action.kind = Action::Kind::group;
      action.peer = frame->peer;
      action.group = frame->group;
      return action;
    case sbd::FrameKind::credit:
      if (!ready_) return action;
      action.kind = Action::Kind::credit;
      action.peer = frame->peer;
      action.credited = frame->bytes;
      return action;
    case sbd::FrameKind::peer_gone:
      if (!ready_) return action;
      action.kind = Action::Kind::gone;
      action.peer = frame->peer;
      return action;
    case sbd::FrameKind::auth_response:
    case sbd::FrameKind::keepalive:
    case sbd::FrameKind::unknown:
      return action;
  }
  return action;
}

void SbdClient::on_sent(std::size_t bytes, Time now) {
  last_sent_ = now;
  next_send_ns_ = std::max(next_send_ns_, nanos(now));
  if (!is_limited()) return;
  // At most 20,000 B x 2^31 ns x 1.1 = 4.8e13 ns per message. The cap keeps a server's nonsense from adding up.
  const std::int64_t cost = static_cast<std::int64_t>(bytes) * byte_nanos_;
  next_send_ns_ = std::min(next_send_ns_ + cost + cost / 10, nanos(now + kMaxPacingLead));
}

Time SbdClient::next_send() const { return Time(std::chrono::ceil<Duration>(std::chrono::nanoseconds(next_send_ns_))); }

Duration SbdClient::keepalive_interval() const {
  return std::max<Duration>(kMinKeepalive, std::chrono::milliseconds(idle_millis_) / 2);
}

std::optional<Bytes> SbdClient::keepalive(Time now) const {
  if (!ready_ || now < last_sent_ + keepalive_interval()) return std::nullopt;
  return sbd::encode_keepalive();
}

Time SbdClient::next_deadline() const { return ready_ ? last_sent_ + keepalive_interval() : opened_ + kHandshakeLimit; }

}  // namespace kitsune2::tx5
