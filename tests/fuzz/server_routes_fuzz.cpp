// The routes of a server with an authentication hook server, over three connections, in virtual time. The input says
// which request comes next, with which token or key, what the hook server answers, and what a client of the relay says
// after its upgrade. Never crashes; and nobody gets what needs a token or a named key without one that was given.
#include <algorithm>
#include <array>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <tuple>

#include "fuzz/fuzz.hpp"
#include "kitsune2/testing/sim_runtime.hpp"
#include "net/ws_codec.hpp"
#include "server/relay_service.hpp"
#include "support/fake_conn.hpp"
#include "transport/iroh/endpoint_key.hpp"
#include "transport/iroh/relay_frames.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

constexpr std::size_t kConns = 3, kKeys = 4, kChallengeFrame = 2 + 17;

struct Hook final : HttpClient {
  explicit Hook(std::deque<Handler<HttpResponse>>& waiting) : calls(waiting) {}
  void request(HttpRequest /*request*/, Handler<HttpResponse> done) override { calls.push_back(std::move(done)); }
  std::deque<Handler<HttpResponse>>& calls;
};

struct Client {
  std::shared_ptr<test::FakeConn> conn;
  bool asked = false;  // for the upgrade: once, since its answer may have to wait
  bool upgraded = false;
  std::uint8_t how = 0;  // what it presented
  std::size_t key = 0;   // that it is going to prove
};

class Play {
 public:
  Play() {
    options_.authentication_hook_server = "http://hook";
    options_.disable_rate_limiting = true;
    service_ = std::make_unique<server::RelayService>(*runtime_, options_);
    service_->set_hook_client(std::make_unique<Hook>(calls_));
    for (std::size_t i = 0; i < kKeys; ++i) {
      EndpointSeed seed{};
      seed.fill(static_cast<std::uint8_t>(i + 1));
      keys_.push_back(std::make_unique<iroh::EndpointKey>(seed));
    }
  }
  ~Play() { world_.run_for(std::chrono::seconds(60)); }

  void step(std::uint8_t command, std::uint8_t how, ByteView raw) {
    Client& client = clients_[command % kConns];
    if (!client.conn || client.conn->closed) connect(client, command % kConns);
    switch (command / kConns % 8) {
      case 0:
        request(client, "PUT", "/authenticate", raw, how);
        break;
      case 1: {
        const bool guarded_get = (how & 0x10U) != 0;
        guarded_get ? judged(client, "GET", "/bootstrap/AAAA", {}, how)
                    : judged(client, "PUT", "/bootstrap/AAAA/AAAA", raw, how);
        break;
      }
      case 2:
        name_key(client, how);
        break;
      case 3:
        upgrade(client, how);
        break;
      case 4:
        say(client, how, raw);
        break;
      case 5:
        answer(how);
        break;
      case 6:
        (how & 1U) != 0 ? client.conn->hang_up() : world_.run_for(std::chrono::seconds(how));
        break;
      default: {
        constexpr std::array<const char*, 8> kPaths{"/health",       "/ping",  "/generate_204",    "/relay",
                                                    "/relay/nobody", "/other", "/relay/keepalive", "/relay/register"};
        constexpr std::array<const char*, 4> kMethods{"GET", "HEAD", "OPTIONS", "POST"};
        request(client, kMethods[how / 8 % 4], kPaths[how % 8], raw, how);
        break;
      }
    }
    world_.run_ready();
    look(client);
    service_->check_invariants();
  }

 private:
  using EndpointSeed = iroh::EndpointKey::Seed;

  void connect(Client& client, std::size_t place) {
    client = Client{std::make_shared<test::FakeConn>(*runtime_, "10.0.0." + std::to_string(place))};
    client.conn->events = service_->accept(client.conn);
    if (client.conn->events) client.conn->events->on_connected();
  }

  /// The token that a request presents: of those that were given, or none of them.
  std::string token(std::uint8_t how) const { return "token-" + std::to_string(how % 8); }
  bool presents(std::uint8_t how) const { return how % 8 != 7; }
  bool was_given(std::uint8_t how) const { return presents(how) && given_.contains(token(how)); }
  std::string header(std::uint8_t how) const {
    return presents(how) ? "Authorization: Bearer " + token(how) + "\r\n" : std::string();
  }

  void request(Client& client, const std::string& method, const std::string& path, ByteView body, std::uint8_t how) {
    client.conn->receive(method + " " + path + " HTTP/1.1\r\nHost: x\r\nOrigin: https://a\r\nX-Iroh-Challenge: " +
                         std::to_string(how) + "\r\n" + header(how) + "Content-Length: " + std::to_string(body.size()) +
                         "\r\n\r\n" + std::string(as_text(body)));
  }
  /// One that needs a token. Its answer is judged if it comes alone.
  bool judged(Client& client, const std::string& method, const std::string& path, ByteView body, std::uint8_t how) {
    world_.run_ready();
    client.conn->sent.clear();
    const bool alone = !client.upgraded && client.conn->pending.empty() && asking_ == 0;
    request(client, method, path, body, how);
    world_.run_ready();
    const bool done = client.conn->sent.starts_with("HTTP/1.1 200 ");
    K2_ASSERT(!alone || was_given(how) || !done);
    return alone && done;
  }
  void name_key(Client& client, std::uint8_t how) {
    const std::size_t key = how / 8 % kKeys;
    const bool registers = (how & 0x20U) != 0;
    const auto& id = keys_[key]->id();
    judged(client, "PUT", registers ? "/relay/register" : "/relay/keepalive", {id.data(), id.size()}, how);
    // It may be read later, after an answer that this connection waits for.
    if (presents(how)) named_.insert({key, registers, token(how)});
  }
  /// Whether the holder of a token has named `key`, or has registered it.
  bool is_named(std::size_t key, bool registered) const {
    return std::any_of(named_.begin(), named_.end(), [&](const auto& one) {
      return std::get<0>(one) == key && (std::get<1>(one) || !registered) && given_.contains(std::get<2>(one));
    });
  }
  void upgrade(Client& client, std::uint8_t how) {
    if (std::exchange(client.asked, true)) return;
    client.conn->sent.clear();
    client.key = how / 8 % kKeys;
    client.how = how;
    client.conn->receive(
        "GET /relay HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: "
        "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: iroh-relay-v1\r\n" +
        header(how) + "\r\n");
    world_.run_ready();
    client.upgraded = client.conn->sent.starts_with("HTTP/1.1 101 ");
  }
  /// A frame: the proof of its key, if the challenge was just sent, or whatever the input has.
  void say(Client& client, std::uint8_t how, ByteView raw) {
    const std::string& sent = client.conn->sent;
    const auto at = sent.find("\r\n\r\n");
    Bytes message = Bytes::copy_of(raw);
    if ((how & 1U) != 0 && client.upgraded && at != std::string::npos && sent.size() == at + 4 + kChallengeFrame) {
      iroh::ServerChallenge challenge{};
      std::copy_n(sent.end() - 16, 16, reinterpret_cast<char*>(challenge.challenge.data()));
      const auto& key = *keys_[client.key];
      message =
          encode_relay_frame(iroh::Sender::client, iroh::ClientAuth{key.id(), key.sign(iroh::to_be_signed(challenge))});
      client.conn->sent.clear();
    }
    net::ByteBuffer frame;
    net::ws_append_frame(frame, net::WsRole::client, net::kWsBinary, message.view(), 0x5a17c3e9);
    client.conn->receive(as_text({frame.data(), frame.size()}));
  }
  void answer(std::uint8_t how) {
    if (calls_.empty()) return;
    const auto done = std::move(calls_.front());
    calls_.pop_front();
    switch (how / 8 % 6) {
      case 0:
      case 1:
        given_.insert(token(how));
        return done(HttpResponse{200, R"({"authToken":")" + token(how) + R"("})"});
      case 2:
        return done(HttpResponse{202, ""});
      case 3:
        return done(HttpResponse{401, ""});
      case 4:
        return done(HttpResponse{200, R"({"authToken":7})"});
      default:
        return done(make_error(Errc::disconnected, "gone"));
    }
  }
  /// Nobody is let into the relay by anything else than a token or a named key.
  void look(Client& client) {
    asking_ = service_->auth_counters().calls.get() + service_->auth_counters().waiting.get();
    const bool named = is_named(client.key, !presents(client.how));
    if (!client.upgraded || named || was_given(client.how)) return;
    const std::string& sent = client.conn->sent;
    const bool confirmed = sent.size() >= 3 && sent[0] == '\x82' && sent[2] == '\x02';
    K2_ASSERT(!confirmed);
  }

  RelayServerOptions options_;
  testing::SimWorld world_{1};
  std::unique_ptr<testing::SimRuntime> runtime_ = world_.make_runtime();
  std::deque<Handler<HttpResponse>> calls_;
  std::vector<std::unique_ptr<iroh::EndpointKey>> keys_;
  std::unique_ptr<server::RelayService> service_;
  std::array<Client, kConns> clients_;
  std::set<std::string> given_;
  std::set<std::tuple<std::size_t, bool, std::string>> named_;  // key, whether it was registered, token
  std::uint64_t asking_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Play play;
  int steps = 0;
  for (std::size_t at = 0; at + 3 <= size && ++steps < 1000;) {
    const std::uint8_t command = data[at], how = data[at + 1];
    const std::size_t n = std::min<std::size_t>(data[at + 2], size - at - 3);
    play.step(command, how, {data + at + 3, n});
    at += 3 + n;
  }
  return 0;
}
