// The peers of hostile.py. usage: hostile_peer victim DIR OPS SIZE | honest RELAY URL OPS SIZE | attack KIND RELAY URL
// OPS SIZE PEERS SECONDS. A victim is a whole node with a relay inside; an honest peer fetches all of its ops again and
// again; an attacker does one kind of harm, for so many seconds at most. Each line that is printed is a JSON object.
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <future>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/kitsune2.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/transport_tx5.hpp"
#include "net/ws_connector.hpp"
#include "support/whole_messages.hpp"
#include "transport/sbd/sbd_client.hpp"
#include "transport/tx5/e2e.hpp"
#include "transport/tx5/framing.hpp"
#include "wire/fetch_messages.hpp"
#include "wire/k2proto.hpp"
#include "wire/publish_messages.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)
using namespace std::chrono_literals;

namespace {

/// Where connections come from; 0: the system's choice.
in_addr_t own_address = 0;

const SpaceId kSpace = SpaceId::from_text("hostile");

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

[[noreturn]] void fail(const std::string& why) {
  std::cerr << "hostile_peer: " << why << '\n';
  std::_Exit(2);
}

template <class T>
T need(Result<T> result) {
  if (!result) fail(result.error().to_string());
  return std::move(*result);
}
void need(const Result<void>& result) {
  if (!result) fail(result.error().to_string());
}

std::vector<OpId> all_ids(std::size_t count, std::size_t size) {
  return testing::ids_of(testing::make_ops(*make_sha256_policy(), 0, count, size));
}

// ------------------------------------------------------------------------------------------------ victim and honest

NodeOptions quiet_options() {
  NodeOptions options;
  options.config.k2_gossip.initiate_interval_ms = options.config.k2_gossip.initial_initiate_interval_ms = 3'600'000;
  return options;
}

int victim(const std::string& dir, std::size_t ops, std::size_t size) {
  NodeOptions options = quiet_options();
  options.data_dir = dir;
  options.listen = "127.0.0.1:0";
  options.admin = "127.0.0.1:0";
  auto node = need(Node::start(options));
  auto space = need(node->space(kSpace));
  for (std::size_t done = 0; done < ops; done += 1000) {
    auto part = testing::payloads_of(
        testing::make_ops(*make_sha256_policy(), done, std::min<std::size_t>(1000, ops - done), size));
    need(node->wait<ProcessedOps>(
        [&](auto h) { space->op_store().process_incoming_ops(std::move(part), std::move(h)); }));
  }
  const Url url = need(node->wait_online(60s));
  std::cout << R"({"relay":")" << node->relay_url() << R"(","url":")" << url.to_string() << R"(","admin":")"
            << node->admin_addr() << "\"}" << std::endl;
  // "want": asks for ops that nobody has, from the url that follows, so that answers to it are not out of the blue.
  std::string word;
  while (std::cin >> word) {
    if (word != "want") continue;
    std::string from;
    std::cin >> from;
    const auto ids = testing::ids_of(testing::make_ops(*make_sha256_policy(), 50'000'000, 1000));
    const auto asked =
        node->wait<void>([&](auto h) { space->fetch().request_ops(ids, need(Url::parse(from)), std::move(h)); });
    std::cout << R"({"asked":)" << (asked ? "true" : "false") << '}' << std::endl;
  }
  space.reset();
  node->stop();
  return 0;
}

int honest(const std::string& relay, const std::string& from, std::size_t ops, std::size_t size) {
  const Url source = need(Url::parse(from));
  const auto ids = all_ids(ops, size);
  std::uint64_t before = 0;
  while (true) {  // until it is killed
    NodeOptions options = quiet_options();
    options.relay = relay;
    auto node = need(Node::start(options));
    auto space = need(node->space(kSpace));
    need(node->wait_online(60s));
    need(node->wait<void>([&](auto h) { space->fetch().request_ops(ids, source, std::move(h)); }));
    std::promise<void> drained;
    auto end = drained.get_future();
    node->run([&] { space->fetch().notify_on_drained([&] { drained.set_value(); }); });
    while (true) {
      const bool over = end.wait_for(100ms) == std::future_status::ready;
      const auto fetched = node->run([&] { return space->fetch().stats().ops_fetched; });
      std::cout << R"({"ops":)" << before + fetched << '}' << std::endl;
      if (!over) continue;
      before += fetched;
      break;
    }
    space.reset();
    node->stop();
  }
}

// ------------------------------------------------------------------------------------------------ attackers

/// What an attacker did. Strand only, but for the end.
struct Tally {
  std::uint64_t messages = 0, bytes = 0, failed = 0, closed = 0, received = 0, ids = 0;
};

/// A peer whose transport keeps the rules; what it says is the attack's choice.
class Sender final : public TransportEvents {
 public:
  Sender(AsioRuntime& runtime, std::shared_ptr<WsConnector> ws, const std::string& relay, Url victim, Tally& tally)
      : runtime_(runtime), victim_(std::move(victim)), tally_(tally) {
    Tx5TransportConfig config;
    config.server_url = relay;
    config.signal_allow_plain_text = true;
    backend_ = need(make_tx5_transport(runtime, std::move(ws), config));
    backend_->start(*this);
  }
  void new_listening_address(const Url&) override {
    if (!online_ && on_online) on_online();
    online_ = true;
  }
  void listening_address_lost() override {}
  Result<Bytes> peer_connect(const Url&) override { return wire::encode_preflight({}); }
  Result<void> recv_data(const Url&, Bytes message) override {
    tally_.received += message.size();
    if (on_message) on_message(message);
    return {};
  }
  void recv_progress(const Url&, std::size_t) override {}
  void peer_disconnect(const Url&, const std::optional<std::string>&) override { tally_.closed += 1; }

  /// `then` when the message has left, or failed.
  void send(Bytes message, std::function<void(bool)> then = {}) {
    const std::size_t size = message.size();
    backend_->send(victim_, std::move(message), [this, size, then = std::move(then)](const Result<void>& sent) {
      (sent ? tally_.messages : tally_.failed) += 1;
      if (sent) tally_.bytes += size;
      if (then) then(sent.has_value());
    });
  }
  /// Sends what `make` gives, one after the other.
  void repeat(std::function<Bytes()> make) {
    send(make(),
         [this, make](bool sent) { runtime_.schedule_after(sent ? 0ms : 200ms, [this, make] { repeat(make); }); });
  }
  std::optional<Url> url() const { return backend_->url(); }

  std::function<void()> on_online;
  std::function<void(const Bytes&)> on_message;

 private:
  AsioRuntime& runtime_;
  const Url victim_;
  Tally& tally_;
  bool online_ = false;
  std::unique_ptr<TransportBackend> backend_;
};

/// A peer with right crypto and handshake that does what it likes with frames. Connects again when it is thrown out.
class Raw {
 public:
  Raw(AsioRuntime& runtime, WsConnector& ws, std::string relay, const Url& victim, Tally& tally)
      : runtime_(runtime),
        ws_(ws),
        relay_(std::move(relay)),
        victim_(*sbd::node_id_from_path(*victim.peer_id())),
        tally_(tally) {
    tx5::crypto_ready();
    connect();
  }

  void frame(tx5::FrameType type, std::uint32_t value, ByteView payload = {}) {
    std::string text = "fmsg" + std::string(as_text(tx5::encode_frame_header(type, value)));
    text += as_text(payload);
    say(text);
  }
  /// A message of up to 16 KiB.
  void message(const Bytes& bytes) {
    frame(tx5::FrameType::message, static_cast<std::uint32_t>(bytes.size()), bytes);
    tally_.messages += 1;
    tally_.bytes += bytes.size();
  }

  /// Said once the connection is open.
  std::function<void(Raw&)> on_open;

 private:
  void connect() {
    tx5::NodeKey::Seed seed;
    key_.reset();
    while (!key_) {
      runtime_.random_bytes(seed);
      if (auto key = tx5::NodeKey::from_seed(seed)) key_.emplace(std::move(*key));
    }
    session_.reset();
    client_.reset();
    nonce_.clear();
    got_hres_ = gave_hres_ = open_ = false;
    WsOptions options;
    options.max_message_bytes = sbd::kMaxMessageBytes;
    WsHandlers handlers;
    handlers.on_open = [this] { client_.emplace(*key_, runtime_.now()); };
    handlers.on_message = [this](const Bytes& m) { on_relay(m); };
    handlers.on_close = [this](const Error&) {
      tally_.closed += 1;
      runtime_.schedule_after(200ms, [this] { connect(); });
    };
    socket_ = ws_.connect(relay_ + "/" + sbd::to_path(key_->id()), options, handlers);
    keep();
  }
  void keep() {
    runtime_.schedule_after(3s, [this, key = key_->id()] {
      if (key_->id() != key) return;
      if (client_ && client_->ready()) {
        socket_->send(sbd::encode_keepalive());
        if (open_) say("keep");
      }
      keep();
    });
  }
  void on_relay(const Bytes& m) {
    const auto action = client_->on_message(m, runtime_.now());
    if (!action) return socket_->close();
    switch (action->kind) {
      case tx5::SbdClient::Action::Kind::send:
        socket_->send(action->bytes);
        break;
      case tx5::SbdClient::Action::Kind::ready: {
        session_.emplace(victim_, std::move(*tx5::SessionKeys::derive(*key_, victim_)));
        tx5::StreamState::Header header;
        runtime_.random_bytes(header);
        socket_->send(session_->start_stream(header));
        nonce_.resize(32);
        runtime_.random_bytes(nonce_);
        say("hreq" + std::string(as_text(nonce_)));
        break;
      }
      case tx5::SbdClient::Action::Kind::forward:
        if (action->peer == victim_ && session_) on_body(action->body);
        break;
      case tx5::SbdClient::Action::Kind::none:
        break;
    }
  }
  void on_body(ByteView body) {
    const auto opened = session_->open(body);
    if (opened.event != tx5::E2eSession::Event::plaintext) return;
    tally_.received += opened.plaintext.size();
    const auto text = opened.plaintext.text();
    if (text.starts_with("fmsg") && text.size() == 8 && text.substr(4) == std::string_view("\0\0\0\0", 4)) {
      // The closing frame: begin anew, as another peer.
      tally_.closed += 1;
      return socket_->close();
    }
    if (open_) return;
    if (text.starts_with("hreq")) {
      say("hres" + std::string(text.substr(4)));
      gave_hres_ = true;
    } else if (text.starts_with("hres")) {
      got_hres_ = true;
    }
    if (!gave_hres_ || !got_hres_) return;
    open_ = true;
    say("fmsg" + std::string(as_text(tx5::version_frame())));
    const Bytes preflight = wire::encode_preflight({});
    frame(tx5::FrameType::message, static_cast<std::uint32_t>(preflight.size()), preflight);
    if (on_open) on_open(*this);
  }
  void say(const std::string& text) {
    if (session_ && session_->encrypting()) socket_->send(session_->seal(as_bytes(text), {}));
  }

  AsioRuntime& runtime_;
  WsConnector& ws_;
  const std::string relay_;
  const tx5::NodeId victim_;
  Tally& tally_;
  std::optional<tx5::NodeKey> key_;
  std::optional<tx5::SbdClient> client_;
  std::optional<tx5::E2eSession> session_;
  std::shared_ptr<WsConnection> socket_;
  std::vector<std::uint8_t> nonce_;
  bool gave_hres_ = false, got_hres_ = false, open_ = false;
};

/// Ids that nobody has.
class FreshIds {
 public:
  std::vector<OpId> take(std::size_t count) {
    std::vector<OpId> out;
    out.reserve(count);
    std::array<std::uint8_t, 32> id{};
    for (std::size_t i = 0; i < count; ++i) {
      ++next_;
      for (unsigned b = 0; b < 8; ++b) id[b] = static_cast<std::uint8_t>(next_ >> (8 * b));
      out.emplace_back(ByteView(id));
    }
    return out;
  }

 private:
  std::uint64_t next_ = 0;
};

/// A message of `module` whose only id has `size` bytes.
Bytes one_id(std::string_view module, std::size_t size) {
  const OpId id(as_bytes(std::string(size, 'i')));
  return wire::whole_module(kSpace, module,
                            module == kFetchModule ? wire::encode_fetch_request({&id, 1})
                                                   : wire::encode_publish_ops(Dialect::v0_2, {&id, 1}));
}

struct Plan {
  std::string kind, relay;
  Url victim;
  std::size_t ops, size, peers;
};

/// Owns the attackers; begins on the strand.
class Attack {
 public:
  Attack(AsioRuntime& runtime, Plan plan) : runtime_(runtime), plan_(std::move(plan)), ws_(make_ws_connector(runtime)) {
    ids_ = all_ids(plan_.ops, plan_.size);
  }
  void start() {
    if (plan_.kind == "permits" || plan_.kind == "no-permits") return raw_peer();
    sender();
  }
  std::string json(double seconds) const {
    return R"({"kind":")" + plan_.kind + R"(","seconds":)" + std::to_string(seconds) + R"(,"peers":)" +
           std::to_string(std::max(senders_.size(), raw_.size())) + R"(,"messages":)" +
           std::to_string(tally_.messages) + R"(,"bytes":)" + std::to_string(tally_.bytes) + R"(,"failed":)" +
           std::to_string(tally_.failed) + R"(,"closed":)" + std::to_string(tally_.closed) + R"(,"received":)" +
           std::to_string(tally_.received) + R"(,"ids":)" + std::to_string(tally_.ids) + "}";
  }

 private:
  /// One more peer, and the next one soon, so that a thousand do not come in one turn of the loop.
  void sender() {
    if (senders_.size() == plan_.peers) return;
    senders_.push_back(std::make_unique<Sender>(runtime_, ws_, plan_.relay, plan_.victim, tally_));
    Sender& s = *senders_.back();
    s.on_online = [this, &s] { begin(s); };
    runtime_.schedule_after(2ms, [this] { sender(); });
  }
  void raw_peer() {
    if (raw_.size() == plan_.peers) return;
    raw_.push_back(std::make_unique<Raw>(runtime_, *ws_, plan_.relay, plan_.victim, tally_));
    raw_.back()->on_open = [this](Raw& raw) {
      if (plan_.kind == "permits") {
        raw.frame(tx5::FrameType::permit_request, 64U << 20);
        tally_.messages += 1;
      } else {
        // As many ops as fit a request of one frame; the answers' permits never come.
        const std::size_t count = std::min<std::size_t>(ids_.size(), 400);
        raw.message(wire::whole_fetch_request(kSpace, std::span(ids_).first(count)));
      }
    };
    runtime_.schedule_after(2ms, [this] { raw_peer(); });
  }
  /// A million ids a message, without end. Counted are those that left.
  void publish(Sender& s) {
    constexpr std::size_t kIds = 1'000'000;
    s.send(wire::whole_publish_ops(kSpace, fresh_.take(kIds)), [this, &s](bool sent) {
      if (sent) tally_.ids += kIds;
      runtime_.schedule_after(sent ? 0ms : 200ms, [this, &s] { publish(s); });
    });
  }
  void begin(Sender& s) {
    const std::string& kind = plan_.kind;
    if (kind == "connections") {
      s.send(wire::encode_notify(kSpace, as_bytes("hello")));
    } else if (kind == "requests") {
      // Many at once, so that they wait in the victim.
      for (int i = 0; i < 16; ++i) {
        s.repeat([this] {
          const std::size_t first = next_++ % std::max<std::size_t>(ids_.size() - 1, 1);
          return wire::whole_fetch_request(kSpace, std::span(ids_).subspan(first, 1));
        });
      }
    } else if (kind == "amplify") {
      for (int i = 0; i < 64; ++i) s.repeat([this] { return wire::whole_fetch_request(kSpace, ids_); });
    } else if (kind == "bad-ids") {
      s.repeat([this] {
        const bool fetch = next_++ % 2 == 0;
        return one_id(fetch ? kFetchModule : kPublishModule, next_ / 2 % 2 == 0 ? 0 : 1U << 20);
      });
    } else if (kind == "publish") {
      publish(s);
    } else if (kind == "unsolicited") {
      s.repeat([this] {
        std::vector<Bytes> ops;
        for (int i = 0; i < 64; ++i) ops.push_back(testing::make_op(1'000'000'000 + next_++, 1024));
        return wire::whole_fetch_response(kSpace, std::span<const Bytes>(ops));
      });
    } else if (kind == "agents") {
      // Each from an agent of its own, rightly signed for another space: the signature is looked at before that.
      s.repeat([this] {
        auto agent = testing::make_agent(1'000'000 + next_++ % 64);
        testing::AgentInfoBuilder builder{.space = SpaceId::from_text("elsewhere"), .url = plan_.victim};
        builder.created_at = runtime_.wall_now();
        return wire::whole_publish_agent(kSpace, builder.sign(*agent)->encode());
      });
    } else if (kind == "padding") {
      // A small request in a large message.
      s.repeat([this] {
        Bytes message = wire::whole_fetch_request(kSpace, std::span(ids_).first(1));
        std::string text = message.str();
        const std::size_t size = 8U << 20;
        text += std::string("\x7a") + std::string("\x80\x80\x80\x04", 4) + std::string(size, 'p');  // field 15
        return Bytes::copy_of(text);
      });
    } else {
      fail("no attack " + kind);
    }
  }

  AsioRuntime& runtime_;
  const Plan plan_;
  std::shared_ptr<WsConnector> ws_;
  std::vector<OpId> ids_;
  FreshIds fresh_;
  std::uint64_t next_ = 0;
  Tally tally_;
  std::vector<std::unique_ptr<Sender>> senders_;
  std::vector<std::unique_ptr<Raw>> raw_;
};

int attack(Plan plan, double seconds) {
  const auto start = std::chrono::steady_clock::now();
  AsioRuntime runtime;
  auto attack = std::make_unique<Attack>(runtime, std::move(plan));
  runtime.start();
  runtime.post([&] { attack->start(); });
  std::cout << R"({"started":true})" << std::endl;
  while (seconds_since(start) < seconds) {
    std::this_thread::sleep_for(200ms);
    runtime.call([&] { std::cout << attack->json(seconds_since(start)) << std::endl; });
  }
  // The process's end closes all.
  std::_Exit(0);
}

}  // namespace

/// In place of the C library's, for this program: from `own_address`.
extern "C" int connect(int fd, const sockaddr* to, socklen_t size) {
  if (own_address != 0 && to->sa_family == AF_INET) {
    sockaddr_in from{};
    from.sin_family = AF_INET;
    from.sin_addr.s_addr = own_address;
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&from), sizeof from) != 0) return -1;
  }
  return static_cast<int>(::syscall(SYS_connect, fd, to, size));
}

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  const auto number = [&](std::size_t i) { return std::stoul(args.at(i)); };
  if (args.size() == 4 && args[0] == "victim") return victim(args[1], number(2), number(3));
  if (args.size() == 5 && args[0] == "honest") return honest(args[1], args[2], number(3), number(4));
  if (args.size() == 8 && args[0] == "attack") {
    // An address of their own: the relay divides what an address may send among its connections.
    own_address = ::inet_addr("127.0.0.2");
    return attack({args[1], args[2], need(Url::parse(args[3])), number(4), number(5), number(6)},
                  static_cast<double>(number(7)));
  }
  fail("usage: see hostile_peer.cpp");
}
