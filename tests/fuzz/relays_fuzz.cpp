// Both relays, the bootstrap server and the authentication in one service, in virtual time. Six clients of three
// addresses do what the input says: they ask for any route with good, ended and wrong tokens, prove their keys to
// either relay, send frames of every kind, whole, in fragments or broken, read nothing, and leave. Two honest pairs at
// an address of their own, one at each relay, must stay connected and get through to each other at the end. Bounds
// hold.
#include <array>
#include <deque>
#include <memory>
#include <string>

#include "fuzz/fuzz.hpp"
#include "kitsune2/testing/sim_runtime.hpp"
#include "model/commands.hpp"
#include "net/ws_codec.hpp"
#include "server/relay_service.hpp"
#include "support/fake_conn.hpp"
#include "transport/iroh/endpoint_key.hpp"
#include "transport/iroh/relay_frames.hpp"
#include "transport/sbd/sbd_frames.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

using iroh::EndpointKey;
using iroh::RelayVersion;
using iroh::Sender;

constexpr std::size_t kMostQueued = 640'000;  // limit_all_queue_bytes

/// A hook server: "honest" gets a token at once; others are answered when the input says so.
struct Hook final : HttpClient {
  explicit Hook(std::deque<Handler<HttpResponse>>& to) : calls(to) {}
  std::deque<Handler<HttpResponse>>& calls;
  void request(HttpRequest request, Handler<HttpResponse> done) override {
    if (request.body == "honest") return done(HttpResponse{200, R"({"authToken":"honest"})"});
    calls.push_back(std::move(done));
  }
};

std::unique_ptr<EndpointKey> key_of(std::size_t number) {
  EndpointKey::Seed seed{};
  seed[0] = static_cast<std::uint8_t>(number + 1);
  return std::make_unique<EndpointKey>(seed);
}

std::string frame_of(ByteView message, std::uint8_t opcode = net::kWsBinary) {
  net::ByteBuffer out;
  net::ws_append_frame(out, net::WsRole::client, opcode, message, 0x5a17c3e9);
  return std::string(as_text({out.data(), out.size()}));
}

/// A frame of datagrams, of any size: the library writes none that a relay would not pass on.
Bytes datagrams(const iroh::EndpointId& to, std::uint16_t segment, ByteView content) {
  std::vector<std::uint8_t> out{static_cast<std::uint8_t>(segment == 0 ? 4 : 5)};
  out.insert(out.end(), to.begin(), to.end());
  out.push_back(0);
  if (segment != 0)
    out.insert(out.end(), {static_cast<std::uint8_t>(segment >> 8), static_cast<std::uint8_t>(segment)});
  out.insert(out.end(), content.begin(), content.end());
  return Bytes(std::move(out));
}

/// One connection, with a key. It answers what the relays ask of honest clients, unless it is told not to.
struct Client {
  std::unique_ptr<EndpointKey> key;
  std::string address;
  std::shared_ptr<test::FakeConn> conn = {};
  bool for_sbd = false, answers = true, upgraded = false;
  RelayVersion version = RelayVersion::v2;
  std::string in = {};
  Bytes asked = {};        // what it has to sign
  std::string heard = {};  // contents of the last message from a peer

  bool is_open() const { return conn && !conn->closed && conn->events; }

  void upgrade(const std::string& path, const std::string& headers) {
    upgraded = false;
    in.clear();
    conn->receive("GET " + path +
                  " HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: "
                  "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" +
                  headers + "\r\n");
  }
  void ask_for_relay(bool sbd, RelayVersion with, const std::string& token) {
    for_sbd = sbd;
    version = with;
    upgrade(sbd ? "/" + sbd::to_path(key->id()) : "/relay",
            (sbd ? std::string() : "Sec-WebSocket-Protocol: " + std::string(iroh::to_string(with)) + "\r\n") + token);
  }
  void send(ByteView message) { conn->receive(frame_of(message)); }
  void prove() {
    if (asked.size() == 32) {
      send(sbd::encode_auth_response(key->sign(asked)));
    } else if (asked.size() == 16) {
      iroh::ServerChallenge challenge{};
      std::copy(asked.begin(), asked.end(), challenge.challenge.begin());
      send(encode_relay_frame(Sender::client, iroh::ClientAuth{key->id(), key->sign(to_be_signed(challenge))}));
    }
  }
  /// Reads what the service has sent.
  void read() {
    if (!conn) return;
    in += conn->sent;
    conn->sent.clear();
    if (!upgraded) {
      const auto end = in.find("\r\n\r\n");
      if (end == std::string::npos) return;
      upgraded = in.starts_with("HTTP/1.1 101 ");
      if (!upgraded) return in.clear();
      in.erase(0, end + 4);
    }
    while (in.size() >= 2) {
      const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(in[i]); };
      std::size_t size = byte(1), head = 2;
      if (size == 127) return in.clear();  // no relay sends so much
      if (size == 126) size = in.size() < 4 ? SIZE_MAX / 2 : byte(2) * 256U + byte(3), head = 4;
      if (in.size() < head + size) return;
      if ((byte(0) & 0x0fU) == net::kWsBinary) take(Bytes::copy_of(as_bytes(in).subspan(head, size)));
      in.erase(0, head + size);
    }
  }
  void take(const Bytes& message) {
    if (for_sbd) {
      const auto frame = sbd::parse_frame(message);
      K2_ASSERT(frame.has_value());
      if (frame->kind == sbd::FrameKind::auth_request) asked = Bytes::copy_of(frame->body);
      if (frame->kind == sbd::FrameKind::forward) heard = as_text(frame->body);
    } else {
      const auto frame = decode_relay_frame(version, Sender::relay, message);
      K2_ASSERT(frame.has_value());
      if (const auto* challenge = std::get_if<iroh::ServerChallenge>(&*frame)) {
        asked = Bytes::copy_of(challenge->challenge);
      } else if (const auto* datagrams = std::get_if<iroh::Datagrams>(&*frame)) {
        heard = as_text(datagrams->content);
      } else if (const auto* ping = std::get_if<iroh::Ping>(&*frame); ping != nullptr && answers) {
        send(encode_relay_frame(Sender::client, iroh::Pong{ping->payload}));
      }
    }
  }
};

struct Play {
  testing::SimWorld world{1};
  std::unique_ptr<testing::SimRuntime> runtime = world.make_runtime();
  std::deque<Handler<HttpResponse>> calls;
  std::unique_ptr<server::RelayService> service;
  std::vector<Client> crowd, honest;  // of the honest: two of sbd, two of dialect 0.5
  int given = 0;
  bool is_beginning = true;

  explicit Play(bool with_hook) {
    RelayServerOptions options;
    options.limit_send_queue_bytes = 40'000;
    options.limit_all_queue_bytes = kMostQueued;
    options.relay_client_rx_bytes_per_second = 200'000;
    if (with_hook) options.authentication_hook_server = "http://hook.example";
    service = std::make_unique<server::RelayService>(*runtime, options);
    service->set_hook_client(std::make_unique<Hook>(calls));
    for (std::size_t i = 0; i < 6; ++i) crowd.push_back({key_of(i), "10.0.0." + std::to_string(i % 3)});
    for (std::size_t i = 0; i < 4; ++i) {
      Client& one = honest.emplace_back(Client{key_of(100 + i), "10.9.0.1"});
      connect(one);
      if (with_hook) {
        one.conn->receive("PUT /authenticate HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nhonest");
        settle();
        one.in.clear();
      }
      one.ask_for_relay(i < 2, i == 2 ? RelayVersion::v1 : RelayVersion::v2,
                        with_hook ? "Authorization: Bearer honest\r\n" : "");
      settle();
      one.prove();
      settle();
    }
    is_beginning = false;
    settle();
  }

  void connect(Client& client) {
    client.conn = std::make_shared<test::FakeConn>(*runtime, client.address);
    client.conn->events = service->accept(client.conn);
    client.upgraded = false;
    client.in.clear();
    client.asked = {};
    if (client.conn->events) client.conn->events->on_connected();
  }

  void settle() {
    world.run_ready();
    for (auto* all : {&crowd, &honest}) {
      for (Client& client : *all) client.read();
    }
    world.run_ready();
    service->check_invariants();
    K2_ASSERT(service->relay_counters().queued_bytes.get() <= kMostQueued + sbd::kMaxMessageBytes);
    K2_ASSERT(service->iroh_counters().queued_bytes.get() <= kMostQueued + (64U << 10) + crowd.size() * 300);
    for (Client& one : honest) K2_ASSERT(one.is_open() && (one.upgraded || is_beginning));
  }

  void pass(Duration by) {
    for (Duration gone{}; gone < by; gone += std::chrono::milliseconds(500)) {
      world.run_for(std::min<Duration>(std::chrono::milliseconds(500), by - gone));
      settle();
      for (std::size_t i = 0; i < 2; ++i) honest[i].send(sbd::encode_keepalive());
    }
  }

  const EndpointKey& somebody(std::uint8_t which) const {
    return which % 10 < 6 ? *crowd[which % 10].key : *honest[which % 10 - 6].key;
  }

  std::string token(std::uint8_t which) const {
    constexpr const char* kTokens[] = {"",       "Bearer token-0", "Bearer token-1", "bearer token-1", "Bearer wrong",
                                       "Basic x"};
    const std::string text = kTokens[which % 6];
    return text.empty() ? text : "Authorization: " + text + "\r\n";
  }

  void ask(Client& client, std::uint8_t what, std::uint8_t with, ByteView content) {
    constexpr const char* kRequests[] = {"GET /bootstrap/AAAA", "PUT /bootstrap/AAAA/AAAA",
                                         "PUT /authenticate",   "PUT /relay/keepalive",
                                         "PUT /relay/register", "GET /relay",
                                         "GET /ping",           "GET /generate_204",
                                         "GET /health",         "OPTIONS /authenticate",
                                         "PUT /relay/keepalive"};
    std::string body(as_text(content.first(std::min<std::size_t>(content.size(), 1100))));
    const auto& id = client.key->id();
    if (what % 11 == 10) body.assign(id.begin(), id.end());
    client.conn->receive(std::string(kRequests[what % 11]) + " HTTP/1.1\r\nHost: x\r\n" + token(with) +
                         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  }

  void answer_hook(std::uint8_t how, ByteView content) {
    if (calls.empty()) return;
    const auto done = std::move(calls.front());
    calls.pop_front();
    const std::string text(as_text(content));
    switch (how % 6) {
      case 0:
      case 1:
        return done(HttpResponse{200, R"({"authToken":"token-)" + std::to_string(given++ % 2) + R"("})"});
      case 2:
        return done(HttpResponse{202, text});
      case 3:
        return done(HttpResponse{401, text});
      case 4:
        return done(HttpResponse{200, text});
      default:
        return done(make_error(Errc::timed_out, "no answer"));
    }
  }

  /// Takes one step. Any bytes make a valid one.
  void step(model::Commands& in) {
    const std::uint8_t command = in.byte(), what = in.byte();
    Client& client = crowd[command % 6];
    if (!client.is_open()) {
      connect(client);
      if (!client.is_open()) return pass(std::chrono::milliseconds(500));
    }
    const auto content = [&](std::size_t scale) {
      std::vector<std::uint8_t> out(in.byte() * scale, what);
      return Bytes(std::move(out));
    };
    const auto raw = [&] {
      std::vector<std::uint8_t> out(in.byte() % 64U);
      for (std::uint8_t& byte : out) byte = in.byte();
      return Bytes(std::move(out));
    };
    switch (command / 6 % 16) {
      case 0:
        client.conn->receive(as_text(raw()));
        break;
      case 1:
        client.send(raw());
        break;
      case 2:
        client.ask_for_relay(what % 2 == 0, what % 4 < 2 ? RelayVersion::v1 : RelayVersion::v2, token(what / 4));
        break;
      case 3:
        client.ask_for_relay(what % 2 == 0, what % 4 < 2 ? RelayVersion::v1 : RelayVersion::v2, token(what / 4));
        settle();
        if (client.is_open()) client.prove();
        break;
      case 4:
        client.prove();
        break;
      case 5:
      case 6:
        client.send(datagrams(somebody(what).id(), static_cast<std::uint16_t>(what / 10 * 100), content(257)));
        break;
      case 7:
      case 8:
        client.send(sbd::encode_forward(somebody(what).id(), content(78)));
        break;
      case 9:
        client.answers = what % 2 == 0;
        client.conn->takes_output = false;
        break;
      case 10:
        client.answers = true;
        client.conn->take_output();
        break;
      case 11:
        what % 4 == 0 ? client.conn->hang_up() : ask(client, what, in.byte(), raw());
        break;
      case 12:
        ask(client, what, in.byte(), raw());
        break;
      case 13:
        answer_hook(what, raw());
        break;
      case 14: {
        std::string frame = frame_of(content(200), what % 3 == 0   ? net::kWsPing
                                                   : what % 3 == 1 ? net::kWsBinary
                                                                   : net::kWsContinuation);
        if (what % 2 == 0) frame[0] &= 0x7f;  // a fragment
        client.conn->receive(what % 5 == 0 ? frame.substr(0, frame.size() / 2) : frame);
        break;
      }
      default:
        pass(std::chrono::milliseconds(20 * what));
        break;
    }
    settle();
  }

  /// Whoever is honest has lost nothing.
  void end() {
    pass(std::chrono::milliseconds(500));
    for (Client& one : honest) one.heard.clear();
    honest[0].send(sbd::encode_forward(honest[1].key->id(), as_bytes("good morning")));
    honest[2].send(
        encode_relay_frame(Sender::client, iroh::Datagrams{honest[3].key->id(), 0, 0, Bytes::copy_of("good evening")}));
    settle();
    K2_ASSERT(honest[1].heard == "good morning" && honest[3].heard == "good evening");
    for (auto* all : {&crowd, &honest}) {
      for (Client& client : *all) {
        if (client.is_open()) client.conn->hang_up();
      }
    }
    world.run_for(std::chrono::seconds(60));
    service->check_invariants();
    K2_ASSERT(service->http_counters().connections.get() == 0);
    K2_ASSERT(service->iroh_counters().queued_bytes.get() == 0 && service->relay_counters().queued_bytes.get() == 0);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1 || size > 4000) return 0;
  Play play((data[0] & 1U) != 0);
  model::Commands in{ByteView(data, size).subspan(1)};
  while (!in.is_empty()) play.step(in);
  play.end();
  return 0;
}
