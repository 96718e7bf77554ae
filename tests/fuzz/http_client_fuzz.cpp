// Answers to the HTTP client, in pieces and in virtual time: it never crashes, reports exactly once, and keeps no more
// than allowed. Input: bit 0 of the first byte: GET or PUT; then the commands of Dialled::play.
#include "fuzz/dialled.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  fuzz::Dialled far;
  const auto client = net::make_http_client(*far.runtime, far.dial());
  int told = 0;
  HttpRequest request;
  request.method = data[0] % 2 == 0 ? HttpMethod::kGet : HttpMethod::kPut;
  request.url = "http://boot/bootstrap/x";
  request.max_response_bytes = 1000;
  client->request(request, [&](const Result<HttpResponse>& answer) {
    ++told;
    if (answer) {
      K2_ASSERT(answer->body.size() <= 1000 && answer->status >= 0 && answer->status <= 999);
    } else {
      K2_ASSERT(!answer.error().message.empty());
    }
  });
  far.world.run_ready();
  K2_ASSERT(far.conn && far.target.host == "boot" && far.target.port == 80 && !far.target.tls);
  K2_ASSERT(far.conn->sent.ends_with("\r\n\r\n"));
  far.play(
      ByteView(data + 1, size - 1), [](std::uint8_t) { return false; },
      [&] { K2_ASSERT(far.conn->pending.size() <= 32U << 10); });
  far.world.run_for(std::chrono::seconds(31));
  K2_ASSERT(told == 1);
  return 0;
}
