// An iroh relay and its sockets in virtual time.
#include "unit/transport/iroh/fake_iroh_relay.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "transport/iroh/tls_proof.hpp"

namespace kitsune2::tests {

using iroh::RelayFrame;
using iroh::Sender;

// One client's socket: both ends of it.
class FakeIrohSocket final : public WsConnection, public std::enable_shared_from_this<FakeIrohSocket> {
 public:
  FakeIrohSocket(FakeIrohRelay& relay, testing::SimRuntime& client, WsOptions options, WsHandlers handlers)
      : relay_(relay), client_(client), options_(std::move(options)), handlers_(std::move(handlers)) {}

  // --- client side
  bool send(Bytes message) override {
    if (!open_ || queued_ >= options_.max_queue_bytes) {
      refused_ = open_;
      return false;
    }
    queued_ += message.size();
    const std::uint64_t rate = relay_.options.bytes_per_second;
    const Duration cost =
        rate == 0 ? Duration(0) : Duration(static_cast<std::int64_t>(message.size() * 1'000'000 / rate));
    free_at_ = std::max(free_at_, client_.now()) + cost;
    client_.schedule(free_at_, [self = shared_from_this(), message] { self->drained(message); });
    return true;
  }
  std::size_t queued_bytes() const override { return queued_; }
  std::string_view protocol() const override { return protocol_; }
  void close() override {
    if (ended_) return;
    finish(make_error(Errc::cancelled, "closed"));
    cut_ = false;  // what is under way still arrives
  }

  // --- server side
  void opened() {
    protocol_ = relay_.options.protocol;
    client_.schedule(client_.now() + latency_, [self = shared_from_this()] {
      if (self->ended_) return;
      self->open_ = true;
      if (const auto& session = self->relay_.options.client_session)
        self->relay_.on_tls_headers(self, self->options_.tls_headers(session));
      self->handlers_.on_open();
    });
  }
  void deliver(const RelayFrame& frame) {
    client_.schedule(client_.now() + latency_,
                     [self = shared_from_this(), message = encode_relay_frame(Sender::relay, frame)] {
                       if (!self->ended_) self->handlers_.on_message(message);
                     });
  }
  void finish(Error why) {
    if (ended_) return;
    ended_ = cut_ = true;
    open_ = false;
    client_.post([self = shared_from_this(), why = std::move(why)] {
      const WsHandlers handlers = std::exchange(self->handlers_, {});
      handlers.on_close(why);
    });
    std::erase(relay_.sockets_, shared_from_this());
  }

  const std::string& token() const { return options_.bearer_token; }

  iroh::ServerChallenge challenge;
  std::optional<iroh::EndpointId> id;  ///< once it is proven

 private:
  void drained(const Bytes& message) {
    queued_ -= message.size();
    if (refused_ && queued_ < options_.max_queue_bytes / 2) {
      refused_ = false;
      client_.post([self = shared_from_this()] {
        if (!self->ended_) self->handlers_.on_writable();
      });
    }
    relay_.runtime_->schedule(client_.now() + latency_, [self = shared_from_this(), message] {
      if (!self->cut_) self->relay_.on_client_message(self, message);
    });
  }

  FakeIrohRelay& relay_;
  testing::SimRuntime& client_;
  const WsOptions options_;
  WsHandlers handlers_;
  const Duration latency_ = relay_.options.latency;
  std::string protocol_;
  std::size_t queued_ = 0;
  bool open_ = false, refused_ = false, ended_ = false, cut_ = false;
  Time free_at_{};
};

class FakeIrohConnector final : public WsConnector {
 public:
  FakeIrohConnector(FakeIrohRelay& relay, testing::SimRuntime& client) : relay_(relay), client_(client) {}
  std::shared_ptr<WsConnection> connect(const std::string& url, const WsOptions& options,
                                        WsHandlers handlers) override {
    relay_.urls.push_back(url);
    relay_.offered.push_back(options.protocols);
    relay_.tokens.push_back(options.bearer_token);
    relay_.connect_times.push_back(client_.now());
    auto socket = std::make_shared<FakeIrohSocket>(relay_, client_, options, std::move(handlers));
    if (!relay_.options.accept || !url.starts_with(relay_.server())) {
      socket->finish(make_error(Errc::peer_unresponsive, "refused"));
    } else {
      relay_.on_connect(socket);
    }
    return socket;
  }

 private:
  FakeIrohRelay& relay_;
  testing::SimRuntime& client_;
};

FakeIrohRelay::FakeIrohRelay(testing::SimWorld& world, std::string server)
    : world_(world), server_(std::move(server)), runtime_(world.make_runtime()) {}

FakeIrohRelay::~FakeIrohRelay() { runtime_->crash(); }

std::shared_ptr<WsConnector> FakeIrohRelay::connector(testing::SimRuntime& client) {
  return std::make_shared<FakeIrohConnector>(*this, client);
}

iroh::RelayVersion FakeIrohRelay::version() const {
  return options.protocol == "iroh-relay-v2" ? iroh::RelayVersion::v2 : iroh::RelayVersion::v1;
}

void FakeIrohRelay::cut() {
  const auto sockets = sockets_;
  for (const auto& socket : sockets) socket->finish(make_error(Errc::disconnected, "cut"));
}

void FakeIrohRelay::to_all(const RelayFrame& frame) {
  for (const auto& socket : sockets_) socket->deliver(frame);
}

void FakeIrohRelay::on_connect(const std::shared_ptr<FakeIrohSocket>& socket) {
  sockets_.push_back(socket);
  socket->opened();
  runtime_->random_bytes(socket->challenge.challenge);
  if (!options.client_session) greet(socket);
}

void FakeIrohRelay::on_tls_headers(const std::shared_ptr<FakeIrohSocket>& socket, const std::string& said) {
  headers.push_back(said);
  const std::string name = std::string(iroh::kTlsProofHeader) + ": ";
  if (said.starts_with(name) && said.ends_with("\r\n")) {
    const std::string proof = said.substr(name.size(), said.size() - name.size() - 2);
    socket->id = iroh::check_tls_proof(proof, options.relay_session);
  }
  greet(socket);
}

void FakeIrohRelay::greet(const std::shared_ptr<FakeIrohSocket>& socket) {
  if (!options.answer) return;
  if (socket->id || options.trusting) {
    handshakes += 1;
    socket->deliver(iroh::ServerConfirmsAuth{});
  } else {
    challenges += 1;
    socket->deliver(socket->challenge);
  }
}

void FakeIrohRelay::on_client_message(const std::shared_ptr<FakeIrohSocket>& socket, const Bytes& message) {
  const auto violated = [&](const std::string& what) {
    violations += 1;
    socket->finish(make_error(Errc::disconnected, what));
  };
  const auto frame = decode_relay_frame(version(), Sender::client, message);
  if (!frame) {
    violated(frame.error().message);
    return;
  }
  if (const auto* auth = std::get_if<iroh::ClientAuth>(&*frame)) {
    if (!iroh::EndpointKey::verify(auth->key, to_be_signed(socket->challenge), auth->signature)) {
      socket->deliver(iroh::ServerDeniesAuth{"signature invalid"});
      return;
    }
    if (!options.token.empty() && socket->token() != options.token) {
      socket->deliver(iroh::ServerDeniesAuth{"not authorized"});
      return;
    }
    socket->id = auth->key;
    handshakes += 1;
    socket->deliver(iroh::ServerConfirmsAuth{});
  } else if (!socket->id) {
    violated("not the answer to the challenge");
  } else if (const auto* datagrams = std::get_if<iroh::Datagrams>(&*frame)) {
    forward(*socket->id, *datagrams);
  } else if (const auto* ping = std::get_if<iroh::Ping>(&*frame)) {
    pings += 1;
    if (options.answer) socket->deliver(iroh::Pong{ping->payload});
  } else if (std::holds_alternative<iroh::Pong>(*frame)) {
    pongs += 1;
  }
}

void FakeIrohRelay::attach(const iroh::EndpointId& id, std::function<void(const iroh::Datagrams&)> receive) {
  attached_[id] = std::move(receive);
}

void FakeIrohRelay::forward(const iroh::EndpointId& from, const iroh::Datagrams& datagrams) {
  if (filter && !filter(from, datagrams)) return;
  if (attached_.contains(datagrams.peer)) {
    iroh::Datagrams out = datagrams;
    out.peer = from;
    runtime_->schedule(world_.now() + options.latency, [this, to = datagrams.peer, out = std::move(out)] {
      if (const auto found = attached_.find(to); found != attached_.end()) found->second(out);
    });
    return;
  }
  for (auto it = sockets_.rbegin(); it != sockets_.rend(); ++it) {
    if ((*it)->id != datagrams.peer) continue;
    iroh::Datagrams out = datagrams;
    out.peer = from;
    (*it)->deliver(out);
    return;
  }
}

}  // namespace kitsune2::tests
