// The WebSocket decoder: the same messages however the input is cut, never more than the limit, and no crash.
#include <string>
#include <vector>

#include "fuzz/fuzz.hpp"
#include "net/ws_codec.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

constexpr std::size_t kLimit = 70'000;

struct Log final : net::WsDecoder::Sink {
  std::vector<std::string> seen;
  int hold_every = 0;  // 0: never
  int asked = 0;

  net::WsDecoder::Next on_ws_message(net::WsPayload& message) override {
    K2_ASSERT(message.size <= kLimit);
    if (hold_every > 0 && ++asked % hold_every != 0) return net::WsDecoder::Next::hold;
    std::string text(message.size, '\0');
    message.copy_to(reinterpret_cast<std::uint8_t*>(text.data()), 0, message.size);
    seen.push_back("m" + text);
    return net::WsDecoder::Next::go;
  }
  void on_ws_ping(ByteView payload) override {
    K2_ASSERT(payload.size() <= 125);
    seen.push_back("p" + std::string(as_text(payload)));
  }
  void on_ws_close(std::uint16_t code, std::string reason) override {
    seen.push_back("c" + std::to_string(code) + reason);
  }
};

Log run(net::WsRole role, ByteView input, std::size_t step, int hold_every) {
  Log log;
  log.hold_every = hold_every;
  net::WsDecoder decoder(role, kLimit);
  const std::shared_ptr<std::uint8_t[]> none;
  std::string pending;
  for (std::size_t at = 0; at < input.size(); at += step) {
    pending += as_text(input.subspan(at, std::min(step, input.size() - at)));
    while (true) {
      std::string chunk = pending;
      const auto out = decoder.decode({reinterpret_cast<std::uint8_t*>(chunk.data()), chunk.size(), none}, log);
      K2_ASSERT(out.used <= chunk.size());
      pending.erase(0, out.used);
      if (out.fault) {
        log.seen.push_back("f" + std::to_string(out.fault->code));
        return log;
      }
      if (!out.held) break;
    }
    K2_ASSERT(pending.size() <= kLimit + 14 + step);
  }
  return log;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto role = data[0] % 2 == 0 ? net::WsRole::server : net::WsRole::client;
  const ByteView input(data + 1, size - 1);
  const Log whole = run(role, input, std::max<std::size_t>(input.size(), 1), 0);
  K2_ASSERT(run(role, input, 1 + data[0] / 8, 0).seen == whole.seen);
  K2_ASSERT(run(role, input, 7, 3).seen == whole.seen);
  return 0;
}
