// The hub of the memory network, the class MemoryNetwork on top of it, and the backend that a node gets.
#include "transport/memory/hub.hpp"

#include "transport/memory/board.hpp"
#include "transport/memory/endpoint.hpp"

namespace kitsune2 {

using memory::Endpoint;
using memory::Fate;
using memory::Frame;

std::string MemoryNetwork::Hub::free_name() {
  const std::lock_guard lock(mutex_);
  std::string name;
  do {
    name = "node-" + std::to_string(next_name_++);
  } while (names_.contains(name));
  return name;
}

void MemoryNetwork::Hub::claim(const std::string& name) {
  const std::lock_guard lock(mutex_);
  K2_ASSERT(names_.insert(name).second);
}

void MemoryNetwork::Hub::release(const std::string& name) {
  const std::lock_guard lock(mutex_);
  names_.erase(name);
}

Url MemoryNetwork::Hub::renamed(const Url& url) {
  const std::lock_guard lock(mutex_);
  const std::string id(url.peer_id().value_or("node"));
  const std::string stem = id.substr(0, id.find('_'));
  for (;;) {
    auto next = url_of(stem + "_" + std::to_string(next_name_++));
    if (!nodes_.contains(next)) return next;
  }
}

void MemoryNetwork::Hub::enter(const Url& url, const std::shared_ptr<Endpoint>& endpoint, Runtime& runtime) {
  const std::lock_guard lock(mutex_);
  nodes_[url] = Node{endpoint, &runtime};
}

void MemoryNetwork::Hub::leave(const Url& url) {
  const std::lock_guard lock(mutex_);
  nodes_.erase(url);
  std::erase_if(connections_, [&](const auto& item) { return item.first.first == url || item.first.second == url; });
}

MemoryLink MemoryNetwork::Hub::link(const Url& from, const Url& to) const {
  const std::lock_guard lock(mutex_);
  if (!has_links_) return default_link_;
  if (const auto it = links_.find({from, to}); it != links_.end()) return it->second;
  if (const auto it = links_to_.find(to); it != links_to_.end()) return it->second;
  return default_link_;
}

std::uint64_t MemoryNetwork::Hub::connection(const Url& a, const Url& b) {
  const std::lock_guard lock(mutex_);
  auto& number = connections_[pair_of(a, b)];
  if (number == 0) number = next_connection_++;
  return number;
}

void MemoryNetwork::Hub::end_connection(const Url& a, const Url& b, std::uint64_t connection) {
  const std::lock_guard lock(mutex_);
  const auto it = connections_.find(pair_of(a, b));
  if (it != connections_.end() && it->second == connection) connections_.erase(it);
}

bool MemoryNetwork::Hub::broken(const Url& a, const Url& b, std::uint64_t connection) const {
  if (!cut_.empty() && cut_.contains(connection)) return true;
  return !unreachable_.empty() && unreachable_.contains(pair_of(a, b));
}

Fate MemoryNetwork::Hub::transmit(const Url& from, const Url& to, Frame frame) {
  const std::lock_guard lock(mutex_);
  if (broken(from, to, frame.connection)) {
    // A connection loses its end, never its middle: once a message is lost, nothing after it may arrive.
    cut_.insert(frame.connection);
    ++stats_.lost;
    return Fate::lost;
  }
  if (!nodes_.contains(to)) return Fate::nobody;
  tell(to, [from, frame = std::move(frame)](Endpoint& endpoint) mutable { endpoint.on_frame(from, std::move(frame)); });
  return Fate::delivered;
}

bool MemoryNetwork::Hub::passes(const Url& from, const Url& to, const Frame& frame) {
  const std::lock_guard lock(mutex_);
  if (!broken(from, to, frame.connection)) return true;
  cut_.insert(frame.connection);
  ++stats_.lost;
  tell(from, [to, id = frame.connection](Endpoint& endpoint) { endpoint.on_lost(to, id); });
  return false;
}

void MemoryNetwork::Hub::count(const Url& from, const Url& to, const Frame& frame) {
  const std::lock_guard lock(mutex_);
  ++stats_.messages;
  stats_.bytes += frame.data.size();
  if (frame.kind == Frame::Kind::message) bytes_[{from, to}] += frame.data.size();
}

// ---------------------------------------------------------------- MemoryNetwork

namespace {

/// What `MemoryNetwork::make_backend` returns: an endpoint, which callbacks may keep alive for longer than its node.
class MemoryBackend final : public TransportBackend {
 public:
  MemoryBackend(Runtime& runtime, std::shared_ptr<MemoryNetwork::Hub> hub, std::string name)
      : endpoint_(std::make_shared<Endpoint>(runtime, std::move(hub), std::move(name))) {}

  void start(TransportEvents& events) override { endpoint_->start(events); }
  std::optional<Url> url() const override { return endpoint_->url(); }
  void send(const Url& peer, ByteChain message, Handler<> done) override {
    endpoint_->send(peer, message.joined(), std::move(done));
  }
  void disconnect(const Url& peer, const CloseReason& reason, Bytes farewell) override {
    endpoint_->disconnect(peer, reason, std::move(farewell));
  }
  std::uint64_t max_message_bytes() const override { return endpoint_->max_message_bytes(); }
  TransportStats stats() const override { return endpoint_->stats(); }
  void stop(std::function<void()> done) override { endpoint_->stop(std::move(done)); }

 private:
  std::shared_ptr<Endpoint> endpoint_;
};

}  // namespace

MemoryNetwork::MemoryNetwork(const MemoryNetworkOptions& options)
    : hub_(std::make_shared<Hub>(options)), board_(std::make_shared<Board>()) {}
MemoryNetwork::~MemoryNetwork() = default;

std::shared_ptr<MemoryNetwork> MemoryNetwork::create(const MemoryNetworkOptions& options) {
  return std::shared_ptr<MemoryNetwork>(new MemoryNetwork(options));
}

Url MemoryNetwork::url_of(const std::string& name) {
  auto url = Url::parse("ws://memory:1/" + name);
  K2_ASSERT(url.has_value() && url->is_peer());
  return *url;
}

std::unique_ptr<TransportBackend> MemoryNetwork::make_backend(Runtime& runtime, const std::string& name) {
  return std::make_unique<MemoryBackend>(runtime, hub_, name.empty() ? hub_->free_name() : name);
}

void MemoryNetwork::set_default_link(const MemoryLink& link) {
  const std::lock_guard lock(hub_->mutex_);
  hub_->default_link_ = link;
}

void MemoryNetwork::set_link(const Url& from, const Url& to, const MemoryLink& link) {
  const std::lock_guard lock(hub_->mutex_);
  hub_->links_[{from, to}] = link;
  hub_->has_links_ = true;
}

void MemoryNetwork::set_links_to(const Url& to, const MemoryLink& link) {
  const std::lock_guard lock(hub_->mutex_);
  hub_->links_to_[to] = link;
  hub_->has_links_ = true;
}

void MemoryNetwork::clear_links() {
  const std::lock_guard lock(hub_->mutex_);
  hub_->links_.clear();
  hub_->links_to_.clear();
  hub_->has_links_ = false;
}

void MemoryNetwork::set_reachable(const Url& a, const Url& b, bool reachable) {
  const std::lock_guard lock(hub_->mutex_);
  if (reachable) {
    hub_->unreachable_.erase(Hub::pair_of(a, b));
  } else {
    hub_->unreachable_.insert(Hub::pair_of(a, b));
  }
}

void MemoryNetwork::partition(const std::vector<Url>& one, const std::vector<Url>& other) {
  const std::lock_guard lock(hub_->mutex_);
  for (const auto& a : one) {
    for (const auto& b : other) hub_->unreachable_.insert(Hub::pair_of(a, b));
  }
}

void MemoryNetwork::heal() {
  const std::lock_guard lock(hub_->mutex_);
  hub_->unreachable_.clear();
}

void MemoryNetwork::cut(const Url& a, const Url& b, bool notice) {
  const std::lock_guard lock(hub_->mutex_);
  const auto it = hub_->connections_.find(Hub::pair_of(a, b));
  if (it == hub_->connections_.end()) return;
  const auto connection = it->second;
  hub_->cut_.insert(connection);
  if (!notice) return;
  hub_->tell(a, [b, connection](Endpoint& endpoint) { endpoint.on_cut(b, connection); });
  hub_->tell(b, [a, connection](Endpoint& endpoint) { endpoint.on_cut(a, connection); });
}

Url MemoryNetwork::change_url(const Url& old, Duration gap) {
  auto next = hub_->renamed(old);
  const std::lock_guard lock(hub_->mutex_);
  if (!hub_->nodes_.contains(old)) return Url();
  hub_->tell(old, [next, gap](Endpoint& endpoint) { endpoint.change_url(next, gap); });
  return next;
}

void MemoryNetwork::go_offline(const Url& url, Duration gap) {
  const std::lock_guard lock(hub_->mutex_);
  hub_->tell(url, [url, gap](Endpoint& endpoint) { endpoint.change_url(url, gap); });
}

MemoryNetworkStats MemoryNetwork::stats() const {
  const std::lock_guard lock(hub_->mutex_);
  return hub_->stats_;
}

std::uint64_t MemoryNetwork::bytes_between(const Url& from, const Url& to) const {
  const std::lock_guard lock(hub_->mutex_);
  const auto it = hub_->bytes_.find({from, to});
  return it == hub_->bytes_.end() ? 0 : it->second;
}

}  // namespace kitsune2
