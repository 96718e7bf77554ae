// A WebSocket client against a server that says the input: never crashes, closes once, keeps no more than a message.
// Input: bit 0 of the first byte: whether the upgrade is answered rightly first; then commands of one byte (0: the far
// end closes; 255: time passes; 254: we send; else so many bytes come).
#include "fuzz/fuzz.hpp"
#include "kitsune2/testing/sim_runtime.hpp"
#include "net/dial.hpp"
#include "net/ws_codec.hpp"
#include "support/fake_conn.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  testing::SimWorld world(1);
  const auto runtime = world.make_runtime();
  std::shared_ptr<test::FakeConn> conn;
  const auto connector = net::make_ws_connector(*runtime, [&](net::ConnectTarget, Duration, auto events) {
    conn = std::make_shared<test::FakeConn>(*runtime, "10.0.0.1");
    conn->events = std::move(events);
    runtime->post([conn] { conn->events->on_connected(); });
    return conn;
  });
  int opened = 0, closed = 0;
  WsOptions options;
  options.max_message_bytes = 500;
  options.max_queue_bytes = 2000;
  WsHandlers handlers;
  handlers.on_open = [&] { K2_ASSERT(++opened == 1 && closed == 0); };
  handlers.on_message = [&](const Bytes& message) { K2_ASSERT(opened == 1 && closed == 0 && message.size() <= 500); };
  handlers.on_close = [&](const Error& why) { K2_ASSERT(++closed == 1 && !why.message.empty()); };
  auto socket = connector->connect("ws://relay:80/key", options, handlers);
  world.run_ready();
  K2_ASSERT(conn != nullptr);
  if ((data[0] & 1) != 0) {
    const std::string field = "Sec-WebSocket-Key: ";
    const std::string key = conn->sent.substr(conn->sent.find(field) + field.size(), 24);
    conn->receive(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
        net::ws_accept_value(key) + "\r\n\r\n");
    world.run_ready();
    K2_ASSERT(opened == 1 && closed == 0);
  }
  for (std::size_t at = 1; at < size && !conn->closed;) {
    const std::size_t command = data[at++];
    if (command == 0) {
      conn->hang_up();
    } else if (command == 255) {
      world.run_for(std::chrono::seconds(7));
    } else if (command == 254) {
      K2_ASSERT(!socket->send(Bytes::copy_of("hello")) || (opened == 1 && closed == 0));
    } else {
      const std::size_t n = std::min(command, size - at);
      conn->receive(as_text(ByteView(data + at, n)));
      at += n;
    }
    world.run_ready();
    K2_ASSERT(conn->pending.size() <= 10'000 && conn->queued() <= 4000);
  }
  socket.reset();
  world.run_for(std::chrono::seconds(60));
  if (!conn->closed) conn->hang_up();
  world.run_for(std::chrono::seconds(60));
  K2_ASSERT(closed == 1);
  return 0;
}
