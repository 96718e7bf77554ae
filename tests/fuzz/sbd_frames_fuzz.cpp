// sbd messages: parsing never crashes; what is accepted is inside the message and the same after being written and read
// again. The client's state machine receives the same bytes, cut into messages.
#include "transport/sbd/sbd_frames.hpp"

#include <algorithm>
#include <optional>

#include "fuzz/fuzz.hpp"
#include "transport/sbd/sbd_client.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

void check_frame(const Bytes& message) {
  const Result<sbd::Frame> frame = sbd::parse_frame(message);
  if (!frame) {
    K2_ASSERT(!frame.error().message.empty());
    return;
  }
  K2_ASSERT(fuzz::inside(message, frame->body));
  switch (frame->kind) {
    case sbd::FrameKind::forward:
      K2_ASSERT(sbd::encode_forward(frame->peer, frame->body) == message);
      K2_ASSERT(sbd::node_id_from_path(sbd::to_path(frame->peer)) == frame->peer);
      break;
    case sbd::FrameKind::limit_byte_nanos:
      K2_ASSERT(sbd::encode_limit_byte_nanos(frame->value) == message);
      break;
    case sbd::FrameKind::limit_idle:
      K2_ASSERT(sbd::encode_limit_idle(frame->value) == message);
      break;
    case sbd::FrameKind::auth_request: {
      std::array<std::uint8_t, sbd::kNonceBytes> nonce{};
      std::copy(frame->body.begin(), frame->body.end(), nonce.begin());
      K2_ASSERT(sbd::encode_auth_request(nonce) == message);
      break;
    }
    case sbd::FrameKind::auth_response:
      K2_ASSERT(frame->body.size() == sbd::kSignatureBytes);
      break;
    case sbd::FrameKind::peer_group:
      K2_ASSERT(sbd::encode_peer_group(frame->peer, frame->group) == message);
      break;
    case sbd::FrameKind::credit:
      K2_ASSERT(sbd::encode_credit(frame->peer, frame->bytes) == message);
      break;
    case sbd::FrameKind::peer_gone:
      K2_ASSERT(sbd::encode_peer_gone(frame->peer) == message);
      break;
    case sbd::FrameKind::ready:
    case sbd::FrameKind::keepalive:
    case sbd::FrameKind::unknown:
      break;
  }
}

void check_client(const Bytes& script) {
  static const tx5::NodeKey key = [] {
    tx5::crypto_ready();
    tx5::NodeKey::Seed seed;
    seed.fill(1);
    return std::move(*tx5::NodeKey::from_seed(seed));
  }();
  Time now{};
  tx5::SbdClient client(key, now);
  // Each message: one byte of length (for a command, the rest of the 32 are zeros in front), one of time.
  for (std::size_t at = 0; at + 2 <= script.size();) {
    const std::size_t length = script[at];
    now += std::chrono::milliseconds(script[at + 1]);
    const Bytes rest = script.slice(at + 2, length);
    at += 2 + length;
    std::vector<std::uint8_t> message(28, 0);
    message.insert(message.end(), rest.begin(), rest.end());
    const bool was_ready = client.is_ready();
    const auto action = client.on_message(message, now);
    if (!action) return;
    K2_ASSERT(client.is_ready() || !was_ready);
    if (action->kind == tx5::SbdClient::Action::Kind::send) client.on_sent(action->bytes.size(), now);
    if (client.may_send(now)) client.on_sent(length, now);
    K2_ASSERT(client.next_send() <= now + tx5::SbdClient::kMaxPacingLead);
    if (client.keepalive(now)) client.on_sent(32, now);
    K2_ASSERT(!client.is_ready() || client.next_deadline() > now);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes input = fuzz::input(data, size);
  check_frame(input);
  check_client(input);
  static_cast<void>(sbd::node_id_from_path(input.text()));
  return 0;
}
