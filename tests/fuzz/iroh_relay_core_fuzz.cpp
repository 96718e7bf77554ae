// The core of dialect 0.5's relay under random commands and frames, compared with its twin after each one.
#include "fuzz/fuzz.hpp"
#include "model/iroh_relay_twin.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1 || size > 4000) return 0;
  server::IrohRelayLimits limits;
  limits.clients = 6;
  limits.queue_frames = 4;
  limits.queue_bytes = 150'000;
  limits.all_queue_bytes = (data[0] & 1U) != 0 ? 700'000 : 4'000'000;
  if ((data[0] & 2U) != 0) limits.client_bytes_per_second = 200'000;
  limits.client_burst_bytes = 20'000;
  if ((data[0] & 4U) != 0) limits.ip_bytes_per_second = 400'000;
  limits.ip_burst_bytes = 100'000;
  model::IrohRelayUnderTest both(limits);
  model::Commands in{ByteView(data, size).subspan(1)};
  while (!in.is_empty()) both.step(in);
  both.end();
  return 0;
}
