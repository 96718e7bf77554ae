// Frames of the iroh relay: never crashes; what is accepted is inside the message and survives being written and read.
#include "transport/iroh/relay_frames.hpp"

#include "fuzz/fuzz.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

// The first byte chooses version and sender; the rest is the message.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto version = (data[0] & 1) != 0 ? iroh::RelayVersion::v1 : iroh::RelayVersion::v2;
  const auto sender = (data[0] & 2) != 0 ? iroh::Sender::client : iroh::Sender::relay;
  const Bytes message = fuzz::input(data + 1, size - 1);
  const Result<iroh::RelayFrame> frame = iroh::decode_relay_frame(version, sender, message);
  if (!frame) {
    K2_ASSERT(!frame.error().message.empty());
    return 0;
  }
  if (const auto* datagrams = std::get_if<iroh::Datagrams>(&*frame); datagrams != nullptr) {
    std::size_t total = 0;
    for (const Bytes& one : datagrams->split()) {
      K2_ASSERT(!one.empty() && fuzz::inside(message, one));
      total += one.size();
    }
    K2_ASSERT(total == datagrams->content.size());
    // What stock relays take and cannot write.
    const std::size_t most = datagrams->segment_size == 0 ? iroh::kMaxDatagramBytes : iroh::kMaxBatchBytes;
    if (datagrams->content.empty() || datagrams->content.size() > most) return 0;
  }
  const Bytes again = iroh::encode_relay_frame(sender, *frame);
  K2_ASSERT(again.size() <= message.size());
  const Result<iroh::RelayFrame> second = iroh::decode_relay_frame(version, sender, again);
  K2_ASSERT(second.has_value() && *second == *frame);
  return 0;
}
