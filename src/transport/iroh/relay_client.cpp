// The client side of a connection to an iroh relay: handshake, pings, and the relay's reports.
#include "transport/iroh/relay_client.hpp"

#include <algorithm>
#include <utility>

namespace kitsune2::iroh {
namespace {

Error fault(const std::string& what) { return make_error(Errc::peer_fault, "relay: " + what); }

std::string notice_of(const Status& status) {
  switch (status.code) {
    case Status::kHealthy:
      return "the connection is healthy again";
    case Status::kSameIdElsewhere:
      return "another endpoint with the same id is connected; it hears what comes for this one";
    case Status::kRateLimited:
      return "this endpoint sends more than it may";
    default:
      return {};
  }
}

}  // namespace

Result<RelayClient::Outcome> RelayClient::on_message(const Bytes& message, Time now) {
  const Result<RelayFrame> frame = decode_relay_frame(version_, Sender::relay, message);
  if (!frame) return fault(frame.error().message);
  if (state_ != State::ready) return on_handshake(*frame, now);
  last_heard_ = now;
  Outcome out;
  if (const auto* datagrams = std::get_if<Datagrams>(&*frame)) {
    out.datagrams = *datagrams;
  } else if (const auto* ping = std::get_if<Ping>(&*frame)) {
    out.send = encode_relay_frame(Sender::client, Pong{ping->payload});
  } else if (const auto* pong = std::get_if<Pong>(&*frame)) {
    if (under_way_ && under_way_->payload == pong->payload) {
      round_trip_ = now - under_way_->at;
      under_way_.reset();
    }
  } else if (const auto* gone = std::get_if<EndpointGone>(&*frame)) {
    out.gone = gone->id;
  } else if (const auto* health = std::get_if<Health>(&*frame)) {
    out.notice = health->problem.empty() ? "the connection is healthy again" : health->problem;
  } else if (const auto* status = std::get_if<Status>(&*frame)) {
    out.notice = notice_of(*status);
  } else if (const auto* restarting = std::get_if<Restarting>(&*frame)) {
    out.restarting = *restarting;
  } else if (const auto* address = std::get_if<PeerAddress>(&*frame); address != nullptr && how_.in_process) {
    out.address = *address;
  } else if (address != nullptr) {
    return fault("a frame that only a relay in this process may send");
  } else {
    return fault("a frame of the handshake after its end");
  }
  return out;
}

Result<RelayClient::Outcome> RelayClient::on_handshake(const RelayFrame& frame, Time now) {
  Outcome out;
  const auto* challenge = std::get_if<ServerChallenge>(&frame);
  if (state_ == State::opened && (challenge != nullptr || !how_.has_proof)) {
    if (challenge == nullptr) return fault("no challenge");
    out.send = encode_relay_frame(Sender::client, ClientAuth{key_.id(), key_.sign(to_be_signed(*challenge))});
    state_ = State::answered;
    return out;
  }
  if (const auto* denied = std::get_if<ServerDeniesAuth>(&frame))
    return make_error(Errc::blocked, "the relay refuses this endpoint: " + denied->reason);
  if (!std::holds_alternative<ServerConfirmsAuth>(frame)) return fault("no verdict on the answer to its challenge");
  state_ = State::ready;
  last_heard_ = now;
  out.ready = true;
  return out;
}

std::optional<Bytes> RelayClient::ping(const PingPayload& payload, Time now) {
  if (state_ != State::ready || under_way_ || now < ping_due()) return std::nullopt;
  pinged_ = true;
  under_way_ = Sent{payload, now};
  return encode_relay_frame(Sender::client, Ping{payload});
}

Duration RelayClient::pong_wait() const {
  return round_trip_ ? std::clamp(*round_trip_ * 3, kLeastPongWait, kMostPongWait) : kMostPongWait;
}

std::optional<Error> RelayClient::overdue(Time now) const {
  if (state_ != State::ready) {
    if (now < opened_ + kHandshakeLimit) return std::nullopt;
    return make_error(Errc::timed_out, "the relay did not end its handshake in time");
  }
  if (!under_way_ || now < under_way_->at + pong_wait()) return std::nullopt;
  return make_error(Errc::timed_out, "the relay does not answer a ping");
}

Time RelayClient::next_deadline() const {
  if (state_ != State::ready) return opened_ + kHandshakeLimit;
  return under_way_ ? under_way_->at + pong_wait() : ping_due();
}

}  // namespace kitsune2::iroh
