// HttpServer over a connection that the test plays, in virtual time.
#include "server/http_server.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kitsune2/testing/sim_runtime.hpp"
#include "support/fake_conn.hpp"

namespace kitsune2::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

using test::FakeConn;

/// Echoes requests as text, and WebSocket messages.
struct Echo final : HttpHandler {
  struct Peer final : WsPeerEvents {
    Echo& owner;
    WsPeer* peer;
    Peer(Echo& o, WsPeer& p) : owner(o), peer(&p) {}
    Next on_ws_message(net::WsPayload& message) override {
      if (owner.hold) return Next::hold;
      const Bytes m = message.take();
      if (m == Bytes::copy_of("close me")) {
        peer->close(1008, "as you wish");
        return Next::stop;
      }
      peer->send(m);
      return Next::go;
    }
    void on_ws_frame(std::size_t size) override {
      owner.ping_bytes += size;
      owner.frames += 1;
      if (owner.frames == owner.frames_allowed) peer->close(1008, "too many frames");
    }
    void on_ws_sent(std::size_t) override {}
    void on_ws_closed(std::string_view) override {
      ++owner.ws_closed;
      peer = nullptr;
    }
  };

  std::vector<std::string> seen;
  bool let_in = true;
  bool hold = false;
  std::size_t ping_bytes = 0;
  std::size_t frames = 0, frames_allowed = 0;
  Duration request_cost{};
  int ws_closed = 0;
  WsPeer* last_peer = nullptr;
  std::vector<std::string> faults;

  void on_fault(const std::string&, HttpFault fault, std::string_view what) override {
    faults.push_back(std::string(to_string(fault)) + ": " + std::string(what));
  }

  bool admit(const net::IpAddress&) override { return let_in; }
  Cost cost(const HttpServerRequest& r) override { return {r.ip.limit_key().bytes, request_cost}; }
  HttpReply on_request(const HttpServerRequest& r) override {
    seen.push_back(std::string(r.method) + " " + std::string(r.path) + " " + std::string(r.body));
    HttpReply out;
    out.body = "you said " + seen.back() + " x=" + std::string(r.header("x-test"));
    if (r.path == "/big") out.body.assign(100'000, 'b');
    return out;
  }
  std::shared_ptr<WsPeerEvents> on_upgrade(const HttpServerRequest& r, WsPeer& peer, HttpReply& refusal) override {
    if (r.path == "/no") {
      refusal.status = 403;
      refusal.body = "no";
      return nullptr;
    }
    last_peer = &peer;
    peer.send(as_bytes("hello"));
    return std::make_shared<Peer>(*this, peer);
  }
};

struct World {
  testing::SimWorld world{1};
  std::unique_ptr<testing::SimRuntime> runtime = world.make_runtime();
  Echo echo;
  std::unique_ptr<HttpServer> server;

  explicit World(const HttpLimits& limits = {}) : server(std::make_unique<HttpServer>(*runtime, limits, echo)) {}

  std::shared_ptr<FakeConn> connect(const std::string& ip = "10.0.0.1") {
    auto conn = std::make_shared<FakeConn>(*runtime, ip);
    conn->events = server->accept(conn);
    if (conn->events) conn->events->on_connected();
    return conn;
  }
  void say(const std::shared_ptr<FakeConn>& conn, std::string_view data) {
    conn->receive(data);
    world.run_ready();
  }
};

const std::string kUpgrade =
    "Host: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

std::string client_frame(std::uint8_t opcode, std::string_view payload) {
  net::ByteBuffer out;
  net::ws_append_frame(out, net::WsRole::client, opcode, as_bytes(payload), 0x01020304);
  return std::string(as_text({out.data(), out.size()}));
}

std::string server_frame(std::uint8_t opcode, std::string_view payload) {
  net::ByteBuffer out;
  net::ws_append_frame(out, net::WsRole::server, opcode, as_bytes(payload), 0);
  return std::string(as_text({out.data(), out.size()}));
}

int status_of(const std::string& answer) { return answer.size() > 12 ? std::stoi(answer.substr(9, 3)) : 0; }

TEST(HttpServer, AnswersARequestAndKeepsTheConnection) {
  World w;
  auto c = w.connect();
  w.say(c, "GET /a?b=c HTTP/1.1\r\nHost: x\r\nX-Test: 7\r\n\r\n");
  EXPECT_EQ(c->sent,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\nyou said GET /a  x=7");
  EXPECT_FALSE(c->closed);
  c->sent.clear();
  w.say(c, "PUT /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
  EXPECT_TRUE(c->sent.ends_with("you said PUT /b abc x="));
}

TEST(HttpServer, ConnectionCloseAndHttp10CloseAfterTheAnswer) {
  for (const char* request : {"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"}) {
    World w;
    auto c = w.connect();
    w.say(c, request);
    EXPECT_EQ(status_of(c->sent), 200);
    EXPECT_NE(c->sent.find("\r\nConnection: close\r\n"), std::string::npos);
    EXPECT_TRUE(c->closed);
    EXPECT_EQ(w.server->counters().connections.get(), 0U);
  }
}

TEST(HttpServer, HeadHasALengthAndNoBody) {
  World w;
  auto c = w.connect();
  w.say(c, "HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(c->sent.ends_with("\r\n\r\n"));
  EXPECT_NE(c->sent.find("Content-Length: 20\r\n"), std::string::npos);
}

TEST(HttpServer, OneByteAtATimeIsTheSame) {
  World w;
  auto c = w.connect();
  for (const char byte :
       std::string("PUT /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /c HTTP/1.1\r\n\r\n")) {
    w.say(c, std::string(1, byte));
  }
  EXPECT_EQ(w.echo.seen, (std::vector<std::string>{"PUT /b abc", "GET /c "}));
}

TEST(HttpServer, PipelinedRequestsAreAnsweredInOrder) {
  World w;
  auto c = w.connect();
  std::string all;
  for (int i = 0; i < 50; ++i) all += "GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\n\r\n";
  w.say(c, all);
  ASSERT_EQ(w.echo.seen.size(), 50U);
  std::size_t at = 0;
  for (int i = 0; i < 50; ++i) {
    at = c->sent.find("you said GET /" + std::to_string(i) + " ", at);
    ASSERT_NE(at, std::string::npos) << i;
  }
}

TEST(HttpServer, APipelinerThatDoesNotReadIsNotReadFrom) {
  World w;
  auto c = w.connect();
  c->takes_output = false;
  std::string all;
  for (int i = 0; i < 50; ++i) all += "GET /big HTTP/1.1\r\nHost: x\r\n\r\n";
  w.say(c, all);
  EXPECT_TRUE(c->paused);
  EXPECT_LE(c->queued(), 500'000U);
  EXPECT_LT(w.echo.seen.size(), 10U);
  c->take_output();
  w.world.run_ready();
  EXPECT_EQ(w.echo.seen.size(), 50U);
  EXPECT_FALSE(c->paused);
}

TEST(HttpServer, GarbageIs400AndCloses) {
  for (const char* junk :
       {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "hello world\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /\r\n\r\n",
        "GET / HTTP/1.1\r\nbad header\r\n\r\n", "PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}) {
    World w;
    auto c = w.connect();
    w.say(c, junk);
    EXPECT_EQ(status_of(c->sent), 400) << junk;
    EXPECT_TRUE(c->closed) << junk;
    EXPECT_TRUE(w.echo.seen.empty());
    EXPECT_EQ(w.server->counters().bad_request.get(), 1U);
  }
}

TEST(HttpServer, AHeadThatIsTooLargeIs431) {
  World w;
  auto one_line = w.connect();
  w.say(one_line, "GET /" + std::string(9000, 'a') + " HTTP/1.1\r\n\r\n");
  EXPECT_EQ(status_of(one_line->sent), 431);
  auto endless = w.connect();
  w.say(endless, "GET / HTTP/1.1\r\n");
  for (int i = 0; i < 1000 && !endless->closed; ++i) w.say(endless, "X-Header-" + std::to_string(i) + ": value\r\n");
  EXPECT_EQ(status_of(endless->sent), 431);
  EXPECT_TRUE(endless->closed);
  EXPECT_LT(endless->pending.size(), 9000U);
}

TEST(HttpServer, ABodyThatIsTooLongIs413BeforeItArrives) {
  World w;
  auto exact = w.connect();
  w.say(exact, "PUT /a HTTP/1.1\r\nContent-Length: 1024\r\n\r\n" + std::string(1024, 'x'));
  EXPECT_EQ(status_of(exact->sent), 200);
  auto declared = w.connect();
  w.say(declared, "PUT /a HTTP/1.1\r\nContent-Length: 1025\r\n\r\n");
  EXPECT_EQ(status_of(declared->sent), 413);
  EXPECT_NE(declared->sent.find("length limit exceeded"), std::string::npos);
  auto chunked = w.connect();
  w.say(chunked,
        "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + std::string(1024, 'x') + "\r\n1\r\nx\r\n");
  EXPECT_EQ(status_of(chunked->sent), 413);
}

TEST(HttpServer, ExpectContinueIsAnswered) {
  World w;
  auto c = w.connect();
  w.say(c, "PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
  EXPECT_EQ(c->sent, "HTTP/1.1 100 Continue\r\n\r\n");
  w.say(c, "abc");
  EXPECT_EQ(w.echo.seen, std::vector<std::string>{"PUT /a abc"});
}

TEST(HttpServer, ASlowHeadIsCutOffHoweverItDrips) {
  World w;
  auto silent = w.connect();
  auto drip = w.connect();
  const std::string head = "GET / HTTP/1.1\r\nHost: x\r\n";
  for (std::size_t i = 0; i < 30; ++i) {
    w.say(drip, i < head.size() ? std::string(1, head[i]) : "x");
    w.world.run_for(milliseconds(500));
  }
  EXPECT_TRUE(silent->closed);
  EXPECT_TRUE(silent->sent.empty());
  EXPECT_TRUE(drip->closed);
  EXPECT_EQ(status_of(drip->sent), 408);
  EXPECT_EQ(w.server->counters().timed_out.get(), 1U);
  EXPECT_EQ(w.server->counters().connections.get(), 0U);
}

TEST(HttpServer, ASlowBodyIsCutOff) {
  World w;
  auto c = w.connect();
  w.say(c, "PUT / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n");
  for (int i = 0; i < 30; ++i) {
    w.say(c, "x");
    w.world.run_for(milliseconds(500));
  }
  EXPECT_EQ(status_of(c->sent), 408);
  EXPECT_TRUE(c->closed);
}

TEST(HttpServer, EmptyLinesForEverAreCutOff) {
  World w;
  auto c = w.connect();
  for (int i = 0; i < 30 && !c->closed; ++i) {
    w.say(c, "\r\n");
    w.world.run_for(milliseconds(500));
  }
  EXPECT_TRUE(c->closed);
}

TEST(HttpServer, AnIdleKeptConnectionIsClosedQuietly) {
  World w;
  auto c = w.connect();
  w.say(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  c->sent.clear();
  w.world.run_for(seconds(29));
  EXPECT_FALSE(c->closed);
  w.world.run_for(seconds(2));
  EXPECT_TRUE(c->closed);
  EXPECT_TRUE(c->sent.empty());
}

TEST(HttpServer, AClientThatTakesNoOutputIsClosed) {
  World w;
  auto c = w.connect();
  c->takes_output = false;
  w.say(c, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
  w.world.run_for(seconds(32));
  EXPECT_TRUE(c->closed);
  EXPECT_EQ(w.server->counters().stalled.get(), 1U);
}

TEST(HttpServer, ConnectionsAreLimitedInAllAndByAddress) {
  HttpLimits limits;
  limits.connections = 5;
  limits.connections_per_ip = 2;
  World w(limits);
  std::vector<std::shared_ptr<FakeConn>> open;
  const auto accepted = [&](const std::string& ip) {
    auto c = w.connect(ip);
    const bool ok = c->events != nullptr;
    if (ok) open.push_back(std::move(c));
    return ok;
  };
  EXPECT_TRUE(accepted("10.0.0.1"));
  EXPECT_TRUE(accepted("10.0.0.1"));
  EXPECT_FALSE(accepted("10.0.0.1"));
  EXPECT_TRUE(accepted("2001:db8:0:1::1"));
  EXPECT_TRUE(accepted("2001:db8:0:1::2"));
  EXPECT_FALSE(accepted("2001:db8:0:1:ffff::3")) << "one /64";
  EXPECT_TRUE(accepted("2001:db8:0:2::1"));
  EXPECT_TRUE(accepted("10.0.0.9")) << "five in all: one of the larger crowd goes";
  w.world.run_ready();
  EXPECT_EQ(w.server->counters().connections.get(), 5U);
  EXPECT_EQ(w.server->counters().evicted.get(), 1U);
  EXPECT_EQ(w.server->counters().limit_ip.get(), 2U);
  open[0]->hang_up();
  w.world.run_ready();
  EXPECT_TRUE(accepted("10.0.0.1"));
  w.echo.let_in = false;
  open[0]->hang_up();
  open[1]->hang_up();
  w.world.run_ready();
  EXPECT_FALSE(accepted("10.0.0.7"));
  EXPECT_EQ(w.server->counters().not_admitted.get(), 1U);
}

TEST(HttpServer, UpgradesAndEchoes) {
  World w;
  auto c = w.connect();
  w.say(c, "GET /ws HTTP/1.1\r\n" + kUpgrade + client_frame(net::kWsBinary, "with the upgrade"));
  const std::string expect =
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n" +
      server_frame(net::kWsBinary, "hello") + server_frame(net::kWsBinary, "with the upgrade");
  EXPECT_EQ(c->sent, expect);
  c->sent.clear();
  w.say(c, client_frame(net::kWsText, "text") + client_frame(net::kWsPing, "ping"));
  EXPECT_EQ(c->sent, server_frame(net::kWsBinary, "text") + server_frame(net::kWsPong, "ping"));
  EXPECT_GT(w.echo.ping_bytes, 4U);
  w.world.run_for(seconds(120));
  EXPECT_FALSE(c->closed) << "the handler decides on idle WebSockets";
  c->sent.clear();
  w.say(c, client_frame(net::kWsClose, "\x03\xe8"));
  EXPECT_EQ(c->sent, server_frame(net::kWsClose, "\x03\xe8"));
  EXPECT_TRUE(c->closed);
  EXPECT_EQ(w.echo.ws_closed, 1);
  EXPECT_EQ(w.server->counters().connections.get(), 0U);
}

TEST(HttpServer, ARefusedUpgradeIsAnOrdinaryAnswer) {
  World w;
  auto c = w.connect();
  w.say(c, "GET /no HTTP/1.1\r\n" + kUpgrade);
  EXPECT_EQ(status_of(c->sent), 403);
  EXPECT_TRUE(c->sent.ends_with("\r\n\r\nno"));
  EXPECT_TRUE(c->closed);
}

TEST(HttpServer, BadUpgradesAreRefused) {
  const auto with = [](std::string_view from, std::string_view to) {
    std::string out = "GET /ws HTTP/1.1\r\n" + kUpgrade;
    out.replace(out.find(from), from.size(), to);
    return out;
  };
  for (const auto& [request, status] :
       std::vector<std::pair<std::string, int>>{{with("GET", "POST"), 400},
                                                {with("HTTP/1.1", "HTTP/1.0"), 400},
                                                {with("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400},
                                                {with("Version: 13", "Version: 8"), 426},
                                                {with("Host: x", "Content-Length: 5"), 400},
                                                {with("Host: x", "Transfer-Encoding: chunked"), 400}}) {
    World w;
    auto c = w.connect();
    w.say(c, request);
    EXPECT_EQ(status_of(c->sent), status) << request;
    EXPECT_TRUE(c->closed);
  }
}

TEST(HttpServer, WhoseClientHasBrokenARuleDoesNotStandBeforeOthers) {
  HttpLimits limits;
  limits.shares = {.all_percent = 20, .address_percent = 20};
  World w(limits);
  const auto first = w.connect("10.0.0.2");
  w.say(first, "GET /x HTTP/1.1\r\n" + kUpgrade + std::string("\x83\x00", 2));
  EXPECT_EQ(w.server->counters().ws_fault.get(), 1U);
  EXPECT_EQ(w.server->counters().blamed.get(), 1U);
  w.echo.request_cost = milliseconds(300);
  w.say(w.connect("10.0.0.9"), "GET /busy HTTP/1.1\r\nHost: x\r\n\r\n");
  w.echo.request_cost = milliseconds(1);
  w.say(w.connect("10.0.0.2"), "GET /bad HTTP/1.1\r\nHost: x\r\n\r\n");
  w.say(w.connect("10.0.0.3"), "GET /good HTTP/1.1\r\nHost: x\r\n\r\n");
  w.world.run_for(seconds(2));
  EXPECT_EQ(w.echo.seen, (std::vector<std::string>{"GET /busy ", "GET /good ", "GET /bad "}));
}

TEST(HttpServer, BrokenFramesCloseWithTheCode) {
  HttpLimits limits;
  limits.ws_message_bytes = 100;
  World w(limits);
  auto c = w.connect();
  w.say(c, "GET /ws HTTP/1.1\r\n" + kUpgrade);
  c->sent.clear();
  w.say(c, client_frame(net::kWsBinary, std::string(101, 'x')));
  EXPECT_TRUE(c->sent.starts_with(std::string("\x88")));
  EXPECT_NE(c->sent.find("\x03\xf1"), std::string::npos) << "1009";
  EXPECT_TRUE(c->closed);
  EXPECT_EQ(w.server->counters().ws_fault.get(), 1U);
}

TEST(HttpServer, AHeldMessageStopsReadingUntilResume) {
  World w;
  auto c = w.connect();
  w.say(c, "GET /ws HTTP/1.1\r\n" + kUpgrade);
  c->sent.clear();
  w.echo.hold = true;
  w.say(c, client_frame(net::kWsBinary, "one") + client_frame(net::kWsBinary, "two"));
  EXPECT_TRUE(c->paused);
  EXPECT_TRUE(c->sent.empty());
  w.echo.hold = false;
  w.echo.last_peer->resume();
  w.world.run_ready();
  EXPECT_EQ(c->sent, server_frame(net::kWsBinary, "one") + server_frame(net::kWsBinary, "two"));
}

/// Nothing of a fragmented message is left in the input: it once waited for more input after its sender's turn had
/// come.
TEST(HttpServer, AHeldMessageOfFragmentsComesWithResumeAndNotWithTheNextInput) {
  World w;
  auto c = w.connect();
  w.say(c, "GET /ws HTTP/1.1\r\n" + kUpgrade);
  c->sent.clear();
  w.echo.hold = true;
  std::string first = client_frame(net::kWsBinary, "one, ");
  first[0] &= 0x7f;  // not the last fragment
  w.say(c, first + client_frame(net::kWsContinuation, "in two"));
  EXPECT_TRUE(c->paused);
  w.echo.last_peer->resume();
  w.world.run_ready();
  EXPECT_TRUE(c->sent.empty()) << "held again";
  w.echo.hold = false;
  w.echo.last_peer->resume();
  w.world.run_ready();
  EXPECT_EQ(c->sent, server_frame(net::kWsBinary, "one, in two"));
  w.say(c, client_frame(net::kWsBinary, "next"));
  EXPECT_EQ(c->sent, server_frame(net::kWsBinary, "one, in two") + server_frame(net::kWsBinary, "next"));
}

TEST(HttpServer, TheHandlerMayCloseInsideAMessage) {
  World w;
  auto c = w.connect();
  w.say(c, "GET /ws HTTP/1.1\r\n" + kUpgrade);
  c->sent.clear();
  w.say(c, client_frame(net::kWsBinary, "close me") + client_frame(net::kWsBinary, "more"));
  EXPECT_EQ(c->sent, server_frame(net::kWsClose,
                                  "\x03\xf0"
                                  "as you wish"));
  EXPECT_EQ(w.echo.ws_closed, 1);
}

TEST(HttpServer, DestroyingItClosesAllAndCallsEachHandlerOnce) {
  World w;
  auto plain = w.connect();
  auto ws = w.connect();
  w.say(ws, "GET /ws HTTP/1.1\r\n" + kUpgrade);
  w.server.reset();
  EXPECT_EQ(w.echo.ws_closed, 1);
  EXPECT_TRUE(plain->closed);
  EXPECT_TRUE(ws->closed);
  w.world.run_ready();
  EXPECT_EQ(w.echo.ws_closed, 1);
}

TEST(HttpServer, AStopSaysGoodByeToEachInItsOwnWay) {
  World w;
  auto idle = w.connect();
  auto asking = w.connect();
  auto ws = w.connect();
  auto deaf = w.connect();
  w.say(idle, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  w.say(asking, "PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
  w.say(ws, "GET /ws HTTP/1.1\r\n" + kUpgrade);
  w.say(deaf, "GET /ws HTTP/1.1\r\n" + kUpgrade);
  for (const auto& c : {idle, asking, ws}) c->sent.clear();
  int done = 0;
  w.server->drain([&] { ++done; });
  EXPECT_EQ(done, 0);
  EXPECT_EQ(w.connect()->events, nullptr) << "newcomers are refused";
  w.world.run_ready();
  EXPECT_EQ(idle->sent, "");
  EXPECT_EQ(status_of(asking->sent), 503);
  EXPECT_EQ(ws->sent, server_frame(0x8, "\x03\xe9the server stops"));
  EXPECT_EQ(w.echo.ws_closed, 2);
  EXPECT_EQ(done, 1);
  EXPECT_EQ(w.server->counters().connections.get(), 0U);
  w.server->drain([&] { ++done; });
  EXPECT_EQ(done, 2) << "there is nobody";
}

TEST(HttpServer, ABrokenRequestIsReportedWithItsReason) {
  World w;
  auto c = w.connect();
  w.say(c, "nonsense\r\n\r\n");
  ASSERT_EQ(w.echo.faults.size(), 1U);
  EXPECT_TRUE(w.echo.faults[0].starts_with("bad_request: ")) << w.echo.faults[0];
  auto long_body = w.connect();
  w.say(long_body, "PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
  EXPECT_EQ(w.echo.faults.back(), "bad_request: the body is too long");
  auto slow = w.connect();
  w.say(slow, "GET /a HTTP/1.1\r\nHos");
  w.world.run_for(std::chrono::seconds(20));
  EXPECT_EQ(w.echo.faults.back(), "request_timeout: the request head takes too long");
}

TEST(HttpServer, EmptyFragmentsAndPongsAreCountedAndCanEndAConnection) {
  World w;
  w.echo.frames_allowed = 100;
  auto c = w.connect();
  w.say(c, "GET /x HTTP/1.1\r\n" + kUpgrade);
  std::string flood = client_frame(net::kWsPing, "");
  net::ByteBuffer fragment;
  net::ws_append_frame(fragment, net::WsRole::client, net::kWsBinary, {}, 0);
  std::string first(as_text({fragment.data(), fragment.size()}));
  first[0] &= 0x7f;  // not the last one
  std::string next = first;
  next[0] = 0;
  for (int i = 0; i < 10; ++i) flood += client_frame(net::kWsPong, "");
  flood += first;
  for (int i = 0; i < 1000; ++i) flood += next;
  w.say(c, flood);
  EXPECT_EQ(w.echo.frames, 100U) << "nothing is looked at after the close";
  EXPECT_TRUE(c->closed);
}

TEST(HttpServer, AClientWithManySmallMessagesLetsOthersHaveTheirTurn) {
  World w;
  auto c = w.connect();
  w.say(c, "GET /x HTTP/1.1\r\n" + kUpgrade);
  std::string flood;
  for (int i = 0; i < 3000; ++i) flood += client_frame(net::kWsBinary, "small");
  const std::size_t used = c->events->on_data({reinterpret_cast<std::uint8_t*>(flood.data()), flood.size(), nullptr});
  EXPECT_EQ(used, 32 * flood.size() / 3000);
  EXPECT_FALSE(c->paused) << "the rest comes with the loop's next turn";
}

HttpLimits shared() {
  HttpLimits out;
  out.shares = {.all_percent = 20, .address_percent = 10};
  return out;
}

TEST(HttpServer, AMessageOfFragmentsAfterManySmallOnesComesInTheNextTurn) {
  World w;
  auto c = w.connect();
  w.say(c, "GET /x HTTP/1.1\r\n" + kUpgrade);
  c->sent.clear();
  std::string input;
  for (int i = 0; i < 32; ++i) input += client_frame(net::kWsBinary, "small");
  std::string first = client_frame(net::kWsBinary, "one, ");
  first[0] &= 0x7f;  // not the last fragment
  w.say(c, input + first + client_frame(net::kWsContinuation, "in two"));
  w.world.run_ready();
  EXPECT_TRUE(c->sent.ends_with(server_frame(net::kWsBinary, "one, in two")));
}

TEST(HttpServer, AFloodOfRequestsWaitsForItselfAndOthersAreAnswered) {
  World w(shared());
  w.echo.request_cost = milliseconds(1);
  std::string flood;
  for (int i = 0; i < 2000; ++i) flood += "GET /flood HTTP/1.1\r\nHost: x\r\n\r\n";
  auto c = w.connect("10.0.0.2");
  w.say(c, flood);
  const std::size_t at_once = w.echo.seen.size();
  EXPECT_LE(at_once, 251U) << "the burst of all";
  EXPECT_TRUE(c->paused);
  auto honest = w.connect("10.0.0.1");
  w.say(honest, "GET /me HTTP/1.1\r\nHost: x\r\n\r\n");
  w.world.run_until(w.world.now() + milliseconds(20));
  EXPECT_EQ(status_of(honest->sent), 200);
  w.world.run_until(w.world.now() + seconds(10) - milliseconds(20));
  // 10 s of a tenth of the time, and the burst.
  EXPECT_LE(w.echo.seen.size(), 1504U);
  EXPECT_GE(w.echo.seen.size(), 1450U);
  w.world.run_until(w.world.now() + seconds(10));
  EXPECT_EQ(w.echo.seen.size(), 2001U) << "all are answered in the end";
  EXPECT_FALSE(c->closed);
}

// R9: of a machine that is busy with other things, too, a flood gets its share only of what the loop gets.
TEST(HttpServer, TimeThatTheLoopDoesNotGetIsNotShared) {
  World w(shared());
  const Time begin = w.world.now();
  w.server->leave_out([&] { return (w.world.now() - begin) * 85 / 100; });
  w.echo.request_cost = milliseconds(1);
  std::string flood;
  for (int i = 0; i < 2000; ++i) flood += "GET /flood HTTP/1.1\r\nHost: x\r\n\r\n";
  auto c = w.connect("10.0.0.2");
  w.say(c, flood);
  w.world.run_until(begin + seconds(20));
  EXPECT_NEAR(static_cast<double>(w.echo.seen.size()), 500 + 300, 10) << "the burst, and a tenth of 3 s";
  // Nor does a request wait for ever where the loop gets nothing for a while.
  auto honest = w.connect("10.0.0.1");
  w.say(honest, "GET /me HTTP/1.1\r\nHost: x\r\n\r\n");
  w.world.run_until(w.world.now() + milliseconds(200));
  EXPECT_EQ(status_of(honest->sent), 200);
}

TEST(HttpServer, AHundredFloodingConnectionsDoNotDelayAnotherAddress) {
  HttpLimits limits = shared();
  limits.connection_cost = std::chrono::microseconds(20);
  World w(limits);
  w.echo.request_cost = std::chrono::microseconds(50);
  std::string flood;
  for (int i = 0; i < 200; ++i) flood += "GET /flood HTTP/1.1\r\nHost: x\r\n\r\n";
  std::vector<std::shared_ptr<FakeConn>> crowd;
  for (int i = 0; i < 100; ++i) w.say(crowd.emplace_back(w.connect("10.0.0.2")), flood);
  // For longer than the flood's burst lasts.
  for (int second = 0; second < 8; ++second) {
    auto honest = w.connect("10.0.0.1"), upgrading = w.connect("10.0.0.1");
    w.say(honest, "GET /me HTTP/1.1\r\nHost: x\r\n\r\n");
    w.say(upgrading, "GET /x HTTP/1.1\r\n" + kUpgrade);
    w.world.run_until(w.world.now() + milliseconds(5));
    EXPECT_EQ(status_of(honest->sent), 200) << second;
    EXPECT_EQ(status_of(upgrading->sent), 101) << second;
    honest->hang_up();
    upgrading->hang_up();
    w.world.run_until(w.world.now() + milliseconds(995));
  }
}

TEST(HttpServer, AnUpgradeThatWaitsIsMadeWhenItsTurnComes) {
  World w(shared());
  w.echo.request_cost = milliseconds(600);
  auto c = w.connect();
  w.say(c, "GET /first HTTP/1.1\r\nHost: x\r\n\r\n");
  c->sent.clear();
  w.say(c, "GET /x HTTP/1.1\r\n" + kUpgrade + client_frame(net::kWsBinary, "early"));
  EXPECT_EQ(c->sent, "");
  w.world.run_until(w.world.now() + seconds(10));
  EXPECT_EQ(status_of(c->sent), 101);
  EXPECT_TRUE(c->sent.ends_with(server_frame(net::kWsBinary, "early")));
  // One that goes while it waits is forgotten.
  auto d = w.connect("10.0.0.3");
  w.say(d, "GET /first HTTP/1.1\r\nHost: x\r\n\r\n");
  w.say(d, "GET /x HTTP/1.1\r\n" + kUpgrade);
  d->hang_up();
  w.world.run_until(w.world.now() + seconds(60));
  EXPECT_EQ(w.server->counters().connections.get(), 1U);
}

TEST(HttpServer, ANewcomerGetsThePlaceOfOneOfTheCrowd) {
  HttpLimits limits;
  limits.connections = 100;
  World w(limits);
  auto early = w.connect("10.0.0.1");
  std::vector<std::shared_ptr<FakeConn>> crowd;
  for (int i = 0; i < 99; ++i) crowd.push_back(w.connect("10.9.0.2"));
  std::vector<std::shared_ptr<FakeConn>> newcomers;
  for (int i = 0; i < 30; ++i) {
    newcomers.push_back(w.connect("10." + std::to_string(20 + i) + ".0.1"));
    EXPECT_TRUE(newcomers.back()->events);
    w.world.run_ready();
  }
  EXPECT_FALSE(w.connect("10.9.0.2")->events) << "the crowd does not replace itself";
  EXPECT_FALSE(early->closed);
  for (const auto& c : newcomers) EXPECT_FALSE(c->closed);
  EXPECT_EQ(w.server->counters().evicted.get(), 30U);
  EXPECT_EQ(w.server->counters().connections.get(), 100U);
}

/// A WebSocket whose client has sent the beginning of a message.
struct Unfinished {
  std::shared_ptr<FakeConn> conn;
  std::string rest;

  Unfinished(World& w, const std::string& ip, std::size_t size, std::size_t n, bool in_fragments = false)
      : conn(w.connect(ip)) {
    w.say(conn, "GET /ws HTTP/1.1\r\n" + kUpgrade);
    conn->sent.clear();
    std::string message = client_frame(net::kWsBinary, std::string(size, 'm'));
    if (in_fragments) {
      message = client_frame(net::kWsBinary, std::string(n, 'm'));
      message[0] &= 0x7f;
      w.say(conn, message);
      rest = client_frame(net::kWsContinuation, std::string(size - n, 'm'));
    } else {
      w.say(conn, message.substr(0, n));
      rest = message.substr(n);
    }
  }
  bool is_heard(World& w) {
    w.say(conn, rest);
    return conn->sent.size() > 1000;
  }
};

HttpLimits unfinished_limits() {
  HttpLimits limits;
  limits.unfinished_bytes = 100'000;
  return limits;
}

TEST(HttpServer, UnfinishedMessagesHaveABoundAndOthersAreHeard) {
  for (const bool in_fragments : {false, true}) {
    World w(unfinished_limits());
    std::vector<Unfinished> crowd;
    for (int i = 0; i < 200; ++i) {
      crowd.emplace_back(w, "10.0.0." + std::to_string(i % 4), 16'000, 8000, in_fragments);
      w.world.run_for(milliseconds(20));
      EXPECT_LE(w.server->unfinished_bytes(), 100'000U);
    }
    Unfinished honest(w, "10.0.1.1", 16'000, 8000, in_fragments);
    for (int i = 0; i < 50; ++i) crowd.emplace_back(w, "10.0.0." + std::to_string(i % 4), 16'000, 8000, in_fragments);
    EXPECT_TRUE(honest.is_heard(w)) << "it holds little, and not for long";
    EXPECT_FALSE(honest.conn->closed);
    EXPECT_GE(w.server->counters().limit_input.get(), 230U);
    EXPECT_TRUE(w.echo.faults.front().starts_with("limit_input: 8")) << w.echo.faults.front();
    for (Unfinished& one : crowd) one.conn->hang_up();
    w.world.run_ready();
    EXPECT_EQ(w.server->unfinished_bytes(), 0U);
  }
}

TEST(HttpServer, OfUnfinishedMessagesOneThatWaitsForLongGoesBeforeANewOne) {
  World w(unfinished_limits());
  Unfinished old(w, "10.0.0.1", 16'000, 15'000);
  w.world.run_for(seconds(5));
  std::vector<Unfinished> fresh;
  for (int i = 0; i < 6; ++i) fresh.emplace_back(w, "10.0.1." + std::to_string(i), 16'000, 15'000);
  EXPECT_TRUE(old.conn->closed);
  for (Unfinished& one : fresh) EXPECT_TRUE(one.is_heard(w));
  EXPECT_EQ(w.server->counters().limit_input.get(), 1U);
}

TEST(HttpServer, AClientThatFinishesItsMessagesIsNotTakenForASlowOne) {
  World w(unfinished_limits());
  Unfinished busy(w, "10.0.0.1", 16'000, 8000);
  for (int i = 0; i < 100; ++i) {  // the end of one message, and the beginning of the next
    w.say(busy.conn, busy.rest + client_frame(net::kWsBinary, std::string(16'000, 'm')).substr(0, 8000));
    w.world.run_for(milliseconds(100));
  }
  std::vector<Unfinished> crowd;
  for (int i = 0; i < 10; ++i) crowd.emplace_back(w, "10.0.1." + std::to_string(i), 16'000, 8000);
  w.world.run_for(seconds(1));
  w.say(busy.conn, busy.rest + client_frame(net::kWsBinary, std::string(16'000, 'm')).substr(0, 8000));
  for (int i = 0; i < 11; ++i) crowd.emplace_back(w, "10.0.2." + std::to_string(i), 16'000, 8000);
  EXPECT_EQ(w.server->counters().limit_input.get(), 10U);
  EXPECT_FALSE(busy.conn->closed);
  busy.conn->sent.clear();
  EXPECT_TRUE(busy.is_heard(w));
}

TEST(HttpServer, MessagesThatTheHandlerHoldsAreNotUnfinished) {
  World w(unfinished_limits());
  w.echo.hold = true;
  std::vector<Unfinished> held;
  for (int i = 0; i < 20; ++i) {
    held.emplace_back(w, "10.0.0." + std::to_string(i), 16'000, 8000);
    w.say(held.back().conn, held.back().rest);
  }
  EXPECT_EQ(w.server->unfinished_bytes(), 0U);
  EXPECT_GT(w.server->counters().limit_input.get(), 0U) << "they have a bound of their own";
}

TEST(HttpServer, WhatIsKeptOfClientsThatAreHeldHasABoundAndAClientOfAnotherAddressStays) {
  World w(unfinished_limits());
  w.echo.hold = true;
  std::vector<Unfinished> crowd;
  const auto add = [&] {
    crowd.emplace_back(w, "10.0.0." + std::to_string(crowd.size() % 4), 16'000, 8000);
    w.say(crowd.back().conn, crowd.back().rest);
    EXPECT_LE(w.server->held_bytes(), 100'000U);
  };
  for (int i = 0; i < 50; ++i) {
    add();
    w.world.run_for(milliseconds(20));
  }
  Unfinished honest(w, "10.0.1.1", 16'000, 8000);
  w.say(honest.conn, honest.rest);
  for (int i = 0; i < 50; ++i) add();
  EXPECT_FALSE(honest.conn->closed) << "its address keeps little";
  EXPECT_GE(w.server->counters().limit_input.get(), 90U);
  EXPECT_NE(w.echo.faults.front().find("bytes that it may not send yet"), std::string::npos) << w.echo.faults.front();
  for (Unfinished& one : crowd) one.conn->hang_up();
  honest.conn->hang_up();
  w.world.run_ready();
  EXPECT_EQ(w.server->held_bytes(), 0U);
}

TEST(HttpServer, NoSocketHasTheAddressOfThisProcess) {
  const auto key = [](const char* text) { return net::IpAddress::parse(text)->limit_key(); };
  EXPECT_NE(key("::1"), net::IpAddress{});
  EXPECT_NE(key("127.0.0.1"), net::IpAddress{});
  EXPECT_EQ(key("2001:db8::1"), key("2001:db8::2"));
  EXPECT_NE(key("2001:db8::1"), key("2001:db8:0:1::1"));
}

TEST(HttpServer, ConnectionsOfOneAddressCostItsShare) {
  HttpLimits limits = shared();
  limits.connection_cost = milliseconds(1);
  World w(limits);
  int taken = 0;
  for (int i = 0; i < 2000; ++i) taken += w.connect("10.0.0.2")->events ? 1 : 0;
  EXPECT_LE(taken, 502);
  EXPECT_TRUE(w.connect("10.0.0.1")->events);
  EXPECT_GT(w.server->counters().limit_rate.get(), 1000U);
}

}  // namespace
}  // namespace kitsune2::server
