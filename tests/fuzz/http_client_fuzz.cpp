// Answers to the HTTP client, in pieces and in virtual time: never crashes, is told exactly once, and no more is kept
// than was allowed. Input: commands of one byte (0: the far end closes; 255: time passes; else so many bytes follow).
#include "fuzz/fuzz.hpp"
#include "kitsune2/testing/sim_runtime.hpp"
#include "net/dial.hpp"
#include "support/fake_conn.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  testing::SimWorld world(1);
  const auto runtime = world.make_runtime();
  std::shared_ptr<test::FakeConn> conn;
  const auto client = net::make_http_client(*runtime, [&](net::ConnectTarget target, Duration, auto events) {
    K2_ASSERT(target.host == "boot" && target.port == 80 && !target.tls);
    conn = std::make_shared<test::FakeConn>(*runtime, "10.0.0.1");
    conn->events = std::move(events);
    runtime->post([conn] { conn->events->on_connected(); });
    return conn;
  });
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
  world.run_ready();
  K2_ASSERT(conn && conn->sent.ends_with("\r\n\r\n"));
  for (std::size_t at = 1; at < size && !conn->closed;) {
    const std::size_t command = data[at++];
    if (command == 0) {
      conn->hang_up();
    } else if (command == 255) {
      world.run_for(std::chrono::seconds(7));
    } else {
      const std::size_t n = std::min(command, size - at);
      conn->receive(as_text(ByteView(data + at, n)));
      at += n;
    }
    world.run_ready();
    K2_ASSERT(conn->pending.size() <= 32U << 10);
  }
  world.run_for(std::chrono::seconds(31));
  K2_ASSERT(told == 1);
  return 0;
}
