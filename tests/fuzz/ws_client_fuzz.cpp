// A WebSocket client against a server whose bytes are the input: it never crashes, closes once, and keeps no more than
// one message. Input: bit 0 of the first byte: whether the upgrade is first answered correctly; then the commands of
// Dialled::play, and 254: the client sends.
#include "fuzz/dialled.hpp"
#include "net/ws_codec.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  fuzz::Dialled far;
  const auto connector = net::make_ws_connector(*far.runtime, far.dial());
  int opened = 0, closed = 0;
  WsOptions options;
  options.max_message_bytes = 500;
  options.max_queue_bytes = 2000;
  WsHandlers handlers;
  handlers.on_open = [&] { K2_ASSERT(++opened == 1 && closed == 0); };
  handlers.on_message = [&](const Bytes& message) { K2_ASSERT(opened == 1 && closed == 0 && message.size() <= 500); };
  handlers.on_close = [&](const Error& why) { K2_ASSERT(++closed == 1 && !why.message.empty()); };
  auto socket = connector->connect("ws://relay:80/key", options, handlers);
  far.world.run_ready();
  K2_ASSERT(far.conn != nullptr);
  test::FakeConn& conn = *far.conn;
  if ((data[0] & 1) != 0) {
    const std::string field = "Sec-WebSocket-Key: ";
    const std::string key = conn.sent.substr(conn.sent.find(field) + field.size(), 24);
    conn.receive(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
        net::ws_accept_value(key) + "\r\n\r\n");
    far.world.run_ready();
    K2_ASSERT(opened == 1 && closed == 0);
  }
  far.play(
      ByteView(data + 1, size - 1),
      [&](std::uint8_t command) {
        if (command != 254) return false;
        K2_ASSERT(!socket->send(Bytes::copy_of("hello")) || (opened == 1 && closed == 0));
        return true;
      },
      [&] { K2_ASSERT(conn.pending.size() <= 10'000 && conn.queued() <= 4000); });
  socket.reset();
  far.world.run_for(std::chrono::seconds(60));
  if (!conn.closed) conn.hang_up();
  far.world.run_for(std::chrono::seconds(60));
  K2_ASSERT(closed == 1);
  return 0;
}
