// The relay service over three connections, in virtual time. The input says which connection gets which bytes (as they
// are, or as a masked WebSocket frame), when output is read, and when time passes. Never crashes; bounds hold.
#include <array>
#include <memory>

#include "fuzz/fuzz.hpp"
#include "kitsune2/testing/sim_runtime.hpp"
#include "net/ws_codec.hpp"
#include "server/relay_service.hpp"
#include "support/fake_conn.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  testing::SimWorld world(1);
  const auto runtime = world.make_runtime();
  RelayServerOptions options;
  options.limit_ip_connections = 8;
  options.limit_send_queue_bytes = 40'000;
  server::RelayService service(*runtime, options);
  std::array<std::shared_ptr<test::FakeConn>, 3> conns;
  std::size_t at = 0;
  int steps = 0;
  while (at < size && ++steps < 2000) {
    const std::uint8_t command = data[at++];
    auto& conn = conns[command % conns.size()];
    if (!conn || conn->closed) {
      conn = std::make_shared<test::FakeConn>(*runtime, "10.0.0." + std::to_string(command % conns.size()));
      conn->events = service.accept(conn);
      if (!conn->events) continue;
      conn->events->on_connected();
    }
    const std::size_t n = at < size ? std::min<std::size_t>(data[at] * (command & 0x40U ? 16U : 1U), size - at - 1) : 0;
    const ByteView bytes(data + std::min(at + 1, size), n);
    switch (command / conns.size() % 8) {
      case 0:
      case 1:
      case 2:
        at += 1 + n;
        conn->receive(as_text(bytes));
        break;
      case 3: {
        at += 1 + n;
        net::ByteBuffer frame;
        net::ws_append_frame(frame, net::WsRole::client, net::kWsBinary, bytes, 0x5a17c3e9);
        conn->receive(as_text({frame.data(), frame.size()}));
        break;
      }
      case 4:
        conn->receive(
            "GET /iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w HTTP/1.1\r\nUpgrade: websocket\r\nConnection: "
            "Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
        break;
      case 5:
        if (conn->takes_output) {
          conn->takes_output = false;
        } else {
          conn->take_output();
        }
        break;
      case 6:
        conn->hang_up();
        break;
      default:
        world.run_for(std::chrono::milliseconds(100 * (command % 16)));
        break;
    }
    world.run_ready();
    service.check_invariants();
    K2_ASSERT(conn->pending.size() <= 64U << 10 || conn->paused);
    K2_ASSERT(conn->queued() <= 1U << 20);
    conn->sent.clear();
  }
  world.run_for(std::chrono::seconds(60));
  K2_ASSERT(service.http_counters().connections.get() == 0);
  return 0;
}
