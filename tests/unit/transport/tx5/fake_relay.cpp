// An sbd relay and its sockets in virtual time.
#include "fake_relay.hpp"

#include <algorithm>
#include <cstring>

namespace kitsune2::tests {
namespace {

tx5::NodeKey key_from(std::uint8_t seed) {
  tx5::crypto_ready();
  tx5::NodeKey::Seed bytes;
  bytes.fill(seed);
  return std::move(*tx5::NodeKey::from_seed(bytes));
}

}  // namespace

// One client's socket: both ends of it.
class FakeSocket final : public WsConnection, public std::enable_shared_from_this<FakeSocket> {
 public:
  FakeSocket(FakeRelay& relay, testing::SimRuntime& client, WsOptions options, WsHandlers handlers, NodeId node)
      : relay_(relay), client_(client), options_(std::move(options)), handlers_(std::move(handlers)), id(node) {}

  bool send(Bytes message) override {
    if (!open || queued_ >= options_.max_queue_bytes) {
      refused_ = open;
      return false;
    }
    queued_ += message.size();
    const std::uint64_t rate = relay_.options.bytes_per_second;
    const Time now = client_.now();
    const Duration cost =
        rate == 0 ? Duration(0) : Duration(static_cast<std::int64_t>(message.size() * 1'000'000 / rate));
    free_at_ = std::max(free_at_, now) + cost;
    client_.schedule(free_at_, [self = shared_from_this(), message] { self->drained(message); });
    return true;
  }
  std::size_t queued_bytes() const override { return queued_; }
  void close() override {
    if (ended_) return;
    finish(make_error(Errc::cancelled, "closed"));
    cut_ = false;  // what is under way still arrives
  }

  // Server side.
  void deliver(Bytes message) {
    client_.schedule(client_.now() + latency_, [self = shared_from_this(), message = std::move(message)] {
      if (!self->ended_) self->handlers_.on_message(message);
    });
  }
  void opened() {
    client_.schedule(client_.now() + latency_, [self = shared_from_this()] {
      if (self->ended_) return;
      self->open = true;
      self->handlers_.on_open();
    });
  }
  void finish(Error why) {
    if (ended_) return;
    ended_ = cut_ = true;
    open = false;
    client_.post([self = shared_from_this(), why = std::move(why)] {
      WsHandlers handlers = std::move(self->handlers_);
      handlers.on_close(why);
    });
    std::erase(relay_.sockets_, shared_from_this());
  }
  bool ended() const { return ended_; }

 private:
  void drained(const Bytes& message) {
    queued_ -= message.size();
    if (refused_ && queued_ < options_.max_queue_bytes / 2) {
      refused_ = false;
      client_.post([self = shared_from_this()] {
        if (!self->ended_) self->handlers_.on_writable();
      });
    }
    if (ended_) return;
    relay_.runtime_->schedule(client_.now() + latency_, [self = shared_from_this(), message] {
      if (!self->cut_) self->relay_.on_client_message(self, message);
    });
  }

  FakeRelay& relay_;
  testing::SimRuntime& client_;
  WsOptions options_;
  WsHandlers handlers_;
  std::size_t queued_ = 0;
  const Duration latency_ = relay_.options.latency;
  bool refused_ = false;
  bool ended_ = false;
  bool cut_ = false;
  Time free_at_{};

 public:
  const NodeId id;
  bool open = false;
  bool ready = false;
  std::array<std::uint8_t, sbd::kNonceBytes> nonce{};
  Time last_heard{};
  double backlog_ns = 0;
};

// ---------------------------------------------------------------- relay

FakeRelay::FakeRelay(testing::SimWorld& world, std::string url)
    : world_(world), url_(std::move(url)), runtime_(world.make_runtime()) {}

FakeRelay::~FakeRelay() { runtime_->crash(); }

std::vector<NodeId> FakeRelay::node_ids() const {
  std::vector<NodeId> out;
  for (const auto& socket : sockets_) out.push_back(socket->id);
  return out;
}

void FakeRelay::cut() {
  const auto sockets = sockets_;
  for (const auto& socket : sockets) socket->finish(make_error(Errc::disconnected, "cut"));
}

void FakeRelay::to_all(const Bytes& message) {
  for (const auto& socket : sockets_) socket->deliver(message);
}

void FakeRelay::set_byte_nanos(std::int32_t nanos) {
  options.byte_nanos = nanos;
  to_all(sbd::encode_limit_byte_nanos(nanos));
}

void FakeRelay::attach(const NodeId& id, std::function<void(const NodeId&, ByteView)> receive) {
  attached_[id] = std::move(receive);
}

void FakeRelay::on_connect(const std::shared_ptr<FakeSocket>& socket) {
  sockets_.push_back(socket);
  seen_ids.insert(socket->id);
  connect_times.push_back(world_.now());
  runtime_->random_bytes(socket->nonce);
  socket->last_heard = world_.now();
  socket->opened();
  if (!options.answer) return;
  const Bytes rate = sbd::encode_limit_byte_nanos(options.byte_nanos);
  const Bytes request = sbd::encode_auth_request(socket->nonce);
  socket->deliver(options.areq_before_lbrt ? request : rate);
  socket->deliver(options.areq_before_lbrt ? rate : request);
  check_idle(socket);
}

void FakeRelay::check_idle(const std::shared_ptr<FakeSocket>& socket) {
  const Time due = socket->last_heard + milliseconds(options.idle_millis);
  if (world_.now() >= due) {
    drop(socket, make_error(Errc::timed_out, "idle"));
    return;
  }
  runtime_->schedule(due, [this, weak = std::weak_ptr<FakeSocket>(socket)] {
    if (auto s = weak.lock(); s && !s->ended()) check_idle(s);
  });
}

void FakeRelay::drop(const std::shared_ptr<FakeSocket>& socket, Error why) { socket->finish(std::move(why)); }

void FakeRelay::on_client_message(const std::shared_ptr<FakeSocket>& socket, const Bytes& message) {
  const Time now = world_.now();
  const double passed = static_cast<double>((now - socket->last_heard).count()) * 1000.0;
  socket->backlog_ns = std::max(0.0, socket->backlog_ns - passed);
  socket->last_heard = now;
  if (options.byte_nanos > 1) {
    socket->backlog_ns += static_cast<double>(message.size()) * options.byte_nanos;
    if (socket->backlog_ns > static_cast<double>(sbd::kBurstBytes) * options.byte_nanos) {
      rate_violations += 1;
      drop(socket, make_error(Errc::overloaded, "rate"));
      return;
    }
  }
  const Result<sbd::Frame> frame = sbd::parse_frame(message);
  if (frame.has_error()) {
    drop(socket, frame.error());
    return;
  }
  switch (frame->kind) {
    case sbd::FrameKind::auth_response:
      if (socket->ready || !sbd::verify_nonce(socket->id, socket->nonce, frame->body)) {
        drop(socket, make_error(Errc::bad_signature, "ares"));
        return;
      }
      socket->ready = true;
      handshakes += 1;
      socket->deliver(sbd::encode_limit_idle(options.idle_millis));
      socket->deliver(sbd::encode_ready());
      return;
    case sbd::FrameKind::forward:
      if (!socket->ready) {
        drop(socket, make_error(Errc::peer_fault, "early"));
        return;
      }
      forward(socket->id, frame->peer, frame->body);
      return;
    case sbd::FrameKind::keepalive:
      keepalives += 1;
      return;
    default:
      return;
  }
}

void FakeRelay::forward(const NodeId& from, const NodeId& to, ByteView body) {
  if (filter && !filter(from, to, body)) return;
  if (const auto found = attached_.find(to); found != attached_.end()) {
    runtime_->schedule(world_.now() + options.latency, [this, from, to, body = Bytes::copy_of(body)] {
      if (const auto peer = attached_.find(to); peer != attached_.end()) peer->second(from, body);
    });
    return;
  }
  for (auto it = sockets_.rbegin(); it != sockets_.rend(); ++it) {
    if ((*it)->id == to && (*it)->ready) {
      (*it)->deliver(sbd::encode_forward(from, body));
      return;
    }
  }
  dropped += 1;
}

std::shared_ptr<WsConnection> FakeConnector::connect(const std::string& url, const WsOptions& options,
                                                     WsHandlers handlers) {
  const std::size_t slash = url.rfind('/');
  const auto relay = relays_.find(url.substr(0, slash));
  const std::optional<NodeId> id = sbd::node_id_from_path(url.substr(slash + 1));
  K2_ASSERT(relay != relays_.end() && id);
  auto socket = std::make_shared<FakeSocket>(*relay->second, runtime_, options, std::move(handlers), *id);
  if (relay->second->options.accept) {
    relay->second->on_connect(socket);
  } else {
    relay->second->connect_times.push_back(runtime_.now());
    socket->finish(make_error(Errc::io, "connection refused"));
  }
  return socket;
}

// ---------------------------------------------------------------- recorder and node

Result<Bytes> Recorder::peer_connect(const Url& peer) {
  if (on_connect) {
    if (auto r = on_connect(peer); r.has_error()) return r.error();
  }
  if (live.contains(peer)) violations += 1;
  live.insert(peer);
  connects += 1;
  messages[peer].clear();
  return preflight;
}

Result<void> Recorder::recv_data(const Url& peer, Bytes message) {
  if (!live.contains(peer)) violations += 1;
  messages[peer].push_back(message);
  return on_data ? on_data(peer, message) : Result<void>();
}

void Recorder::recv_progress(const Url& peer, std::size_t bytes) { progress[peer] += bytes; }

void Recorder::peer_disconnect(const Url& peer, const std::optional<std::string>& reason) {
  const auto found = live.find(peer);
  if (found == live.end()) {
    violations += 1;
  } else {
    live.erase(found);
  }
  disconnects.emplace_back(peer, reason);
  if (on_disconnect) on_disconnect(peer);
}

std::vector<std::string> Recorder::messages_from(const Url& peer) const {
  std::vector<std::string> out;
  const auto found = messages.find(peer);
  if (found == messages.end()) return out;
  for (std::size_t i = 1; i < found->second.size(); ++i) out.push_back(found->second[i].str());
  return out;
}

TestNode::TestNode(testing::SimWorld& world, std::vector<FakeRelay*> relays, Tx5TransportConfig config,
                   tx5::LinkLimits limits)
    : runtime(world.make_runtime()) {
  config.server_url = relays.front()->url();
  config.signal_allow_plain_text = true;
  std::map<std::string, FakeRelay*> by_url;
  for (FakeRelay* relay : relays) by_url[relay->url()] = relay;
  auto made = tx5::Tx5Transport::create(*runtime, std::make_shared<FakeConnector>(*runtime, by_url), config, limits);
  K2_ASSERT(made.has_value());
  transport = std::move(*made);
  transport->start(events);
}

TestNode::~TestNode() {
  transport.reset();
  runtime->crash();
}

Url TestNode::url() const {
  const std::optional<Url> url = transport->url();
  K2_ASSERT(url.has_value());
  return *url;
}

void TestNode::send(const Url& to, Bytes message) {
  auto inside = std::make_shared<bool>(true);
  transport->send(to, std::move(message), [this, inside](Result<void> result) {
    if (*inside) events.violations += 1;  // a handler is never called from inside the call
    results.push_back(std::move(result));
  });
  *inside = false;
}

// ---------------------------------------------------------------- hand-played peer

HandPeer::HandPeer(testing::SimWorld& /*world*/, FakeRelay& relay, std::uint8_t seed)
    : relay_(relay), key_(key_from(seed)) {
  relay_.attach(id(), [this](const NodeId& from, ByteView body) { receive(from, body); });
}

HandPeer::~HandPeer() { relay_.detach(id()); }

Url HandPeer::url() const { return *Url::parse(relay_.url() + "/" + sbd::to_path(id())); }

tx5::E2eSession& HandPeer::session(const NodeId& peer) {
  auto found = sessions_.find(peer);
  if (found == sessions_.end()) {
    found = sessions_.try_emplace(peer, peer, std::move(*tx5::SessionKeys::derive(key_, peer))).first;
  }
  return found->second;
}

void HandPeer::new_stream(const NodeId& to) {
  tx5::StreamState::Header header;
  header.fill(salt_++);
  const Bytes frame = session(to).start_stream(header);
  relay_.forward(id(), to, frame.view().subspan(sbd::kHeaderBytes));
}

void HandPeer::say(const NodeId& to, const Bytes& plaintext) {
  if (!session(to).is_encrypting()) new_stream(to);
  const Bytes frame = session(to).seal(plaintext, {});
  relay_.forward(id(), to, frame.view().subspan(sbd::kHeaderBytes));
}

void HandPeer::say(const NodeId& to, std::string_view letters, ByteView rest) {
  std::string text(letters);
  text += as_text(rest);
  say(to, Bytes::copy_of(text));
}

void HandPeer::say_frame(const NodeId& to, tx5::FrameType type, std::uint32_t value, ByteView rest) {
  const tx5::FrameHeader header = tx5::encode_frame_header(type, value);
  std::string body(as_text(header));
  body += as_text(rest);
  say(to, "fmsg", as_bytes(body));
}

void HandPeer::say_hreq(const NodeId& to) {
  std::array<std::uint8_t, 32> nonce;
  nonce.fill(salt_++);
  nonces_[to] = nonce;
  done_[to] = {false, false};
  say(to, "hreq", nonce);
}

void HandPeer::open(const NodeId& to) {
  say(to, "fmsg", tx5::version_frame());
  if (preflight_) say_frame(to, tx5::FrameType::message, 2, as_bytes("\x08\x01"));
}

void HandPeer::receive(const NodeId& from, ByteView body) {
  if (!body.empty() && body[0] == tx5::kNewStream) new_streams += 1;
  if (!body.empty() && body[0] == tx5::kRequestNewStream) stream_requests += 1;
  tx5::E2eSession::Opened opened = session(from).open(body);
  if (opened.event == tx5::E2eSession::Event::plaintext) on_plaintext(from, opened.plaintext);
}

void HandPeer::on_plaintext(const NodeId& from, const Bytes& plaintext) {
  heard.push_back(plaintext.str());
  if (hear && hear(from, plaintext)) return;
  const std::string_view letters = plaintext.text().substr(0, 4);
  const Bytes rest = plaintext.slice(4);
  if (letters == "fmsg" && rest.size() >= 4) {
    const std::uint32_t word = std::uint32_t{rest[0]} << 24 | std::uint32_t{rest[1]} << 16 |
                               std::uint32_t{rest[2]} << 8 | std::uint32_t{rest[3]};
    const std::uint32_t type = word >> 29;
    if (type == 0) closed = true;
    if (type == 3) messages.push_back(rest.slice(4).str());
    if (type == 4) partial_ += rest.slice(4).str();
  }
  if (!obey_) return;
  if (letters == "hreq") {
    if (!nonces_.contains(from)) say_hreq(from);
    say(from, "hres", rest);
    done_[from].first = true;
  } else if (letters == "hres" && nonces_.contains(from) && rest == Bytes::copy_of(ByteView(nonces_[from]))) {
    done_[from].second = true;
  } else {
    return;
  }
  if (done_[from] == std::pair(true, true)) open(from);
}

std::vector<std::string> HandPeer::letters_heard() const {
  std::vector<std::string> out;
  for (const std::string& text : heard) out.push_back(text.substr(0, 4));
  return out;
}

std::size_t HandPeer::count(std::string_view letters) const {
  return static_cast<std::size_t>(
      std::count_if(heard.begin(), heard.end(), [&](const std::string& t) { return t.starts_with(letters); }));
}

NodeId node_id_of(const Url& url) { return *sbd::node_id_from_path(*url.peer_id()); }

Tx5TransportConfig plain_config() {
  Tx5TransportConfig config;
  config.signal_allow_plain_text = true;
  return config;
}

std::string filled(std::size_t size, char with) {
  std::string out(size, with);
  // Different at every place, so that a shifted or swapped chunk shows.
  for (std::size_t i = 0; i < size; i += 97) out[i] = static_cast<char>('a' + (i / 97) % 26);
  return out;
}

}  // namespace kitsune2::tests
