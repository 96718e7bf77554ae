// docs/guide.md, "A transport".
#include <kitsune2/testing/transport_suite.hpp>
#include <map>
#include <vector>

#include "guide_node.hpp"

namespace guide {

// guide: transport
class Courier;
/// Where the nodes of one process meet: which node is at which url. All run on one thread, as in a SimWorld.
struct Exchange {
  std::map<Url, Courier*> nodes;
  int count = 0;
};

/// Carries messages within one process. A connection begins with a hello each way, which carries the preflight.
class Courier final : public TransportBackend {
 public:
  static constexpr std::uint64_t kMaxMessageBytes = 1U << 20;
  static constexpr std::uint64_t kMaxQueueBytes = 4U << 20;

  Courier(Runtime& runtime, std::shared_ptr<Exchange> exchange) : runtime_(runtime), exchange_(std::move(exchange)) {
    own_ = Url::parse("ws://guide:1/node" + std::to_string(++exchange_->count)).value();
  }
  ~Courier() override { exchange_->nodes.erase(own_); }

  void start(TransportEvents& events) override {
    events_ = &events;
    exchange_->nodes[own_] = this;
    later([this] { events_->new_listening_address(own_); });
  }
  std::optional<Url> url() const override { return own_; }
  std::uint64_t max_message_bytes() const override { return kMaxMessageBytes; }
  TransportStats stats() const override {
    TransportStats out;
    out.backend = "courier";
    out.peer_urls = {own_};
    for (const auto& [peer, link] : links_) out.connections.push_back(link.stats);
    return out;
  }

  // Everything happens later: no event and no handler may run inside a call to the backend.
  void send(const Url& peer, ByteChain message, Handler<> done) override {
    later([this, peer, item = Item{message.joined(), std::move(done)}]() mutable {
      if (stopped_) return item.done(make_error(Errc::cancelled, "the transport is stopped"));
      if (item.data.size() > kMaxMessageBytes) return item.done(make_error(Errc::too_large, "over 1 MiB"));
      if (!links_.contains(peer)) {
        if (auto opened = open(peer); !opened) return item.done(opened.error());
      }
      Link& link = links_[peer];
      if (link.queued + item.data.size() > kMaxQueueBytes)  // B4
        return item.done(make_error(Errc::overloaded, "too much waits for this peer"));
      link.queued += item.data.size();
      link.waiting.push_back(std::move(item));
      if (link.is_open) return flush(peer, link);
      if (!exchange_->nodes.contains(peer)) close(peer, make_error(Errc::peer_unresponsive, "nobody is there"));
    });
  }
  void disconnect(const Url& peer, const CloseReason& reason, Bytes farewell) override {
    later([this, peer, text = reason.text, farewell = std::move(farewell)] {
      if (!links_.contains(peer)) return;
      if (!farewell.empty()) tell(peer, [own = own_, farewell](Courier& it) { it.on_data(own, farewell); });
      close(peer, make_error(Errc::peer_unresponsive, text));
    });
  }
  void stop(std::function<void()> done) override {
    later([this, done = std::move(done)] {
      while (!links_.empty()) close(links_.begin()->first, make_error(Errc::cancelled, "the transport is stopped"));
      exchange_->nodes.erase(own_);
      stopped_ = true;
      done();
    });
  }

 private:
  struct Item {
    Bytes data;
    Handler<> done;
  };
  struct Link {
    bool is_open = false;  ///< the peer's preflight has arrived
    std::vector<Item> waiting = {};
    std::uint64_t queued = 0;
    TransportConnectionStats stats = {};
  };

  template <class F>
  void later(F task) {
    runtime_.post(lifetime_.guard(std::move(task)));
  }
  /// Runs `task` at the peer, on its strand, if it exists.
  template <class F>
  void tell(const Url& peer, F task) {
    const auto it = exchange_->nodes.find(peer);
    if (it != exchange_->nodes.end()) it->second->later([node = it->second, task = std::move(task)] { task(*node); });
  }

  /// Gets our preflight and sends it. From here on the connection exists.
  Result<void> open(const Url& peer) {
    auto preflight = events_->peer_connect(peer);
    if (!preflight) return preflight.error();
    Link& link = links_[peer];
    link.stats.peer = peer;
    link.stats.opened_at = runtime_.wall_now();
    count(link, preflight->size());
    tell(peer, [own = own_, data = *preflight](Courier& it) { it.on_hello(own, data); });
    return {};
  }
  void on_hello(const Url& peer, const Bytes& preflight) {
    if (stopped_) return;
    auto it = links_.find(peer);
    if (it != links_.end() && it->second.is_open) {
      close(peer, make_error(Errc::peer_unresponsive, "the peer started over"));
      it = links_.end();
    }
    if (it == links_.end()) {
      if (!open(peer)) return tell(peer, [own = own_](Courier& node) { node.on_bye(own); });
      it = links_.find(peer);
    }
    it->second.is_open = true;
    on_data(peer, preflight);  // B2: the peer's preflight is the first message that is delivered
    if (links_.contains(peer)) flush(peer, links_[peer]);
  }
  void on_data(const Url& peer, const Bytes& data) {
    const auto it = links_.find(peer);
    if (it == links_.end() || !it->second.is_open) return;
    ++it->second.stats.recv_message_count;
    it->second.stats.recv_bytes += data.size();
    if (auto taken = events_->recv_data(peer, data); !taken) close(peer, taken.error());
  }
  void on_bye(const Url& peer) {
    if (links_.contains(peer)) close(peer, make_error(Errc::peer_unresponsive, "the peer has closed"), false);
  }

  void flush(const Url& peer, Link& link) {
    for (Item& item : std::exchange(link.waiting, {})) {
      count(link, item.data.size());
      tell(peer, [own = own_, data = item.data](Courier& it) { it.on_data(own, data); });
      later([this, peer, size = item.data.size(), done = std::move(item.done)] {
        if (const auto it = links_.find(peer); it != links_.end())
          it->second.queued -= std::min(it->second.queued, size);
        done({});
      });
    }
  }
  /// Tells the owner, once, and completes the sends that wait.
  void close(const Url& of, const Error& why, bool say_bye = true) {
    const Url peer = of;  // it may be a key of links_
    auto link = links_.extract(peer);
    if (say_bye) tell(peer, [own = own_](Courier& it) { it.on_bye(own); });
    events_->peer_disconnect(peer, why.message);
    for (Item& item : link.mapped().waiting) item.done(why);
  }
  static void count(Link& link, std::uint64_t bytes) {
    ++link.stats.send_message_count;
    link.stats.send_bytes += bytes;
  }

  Runtime& runtime_;
  const std::shared_ptr<Exchange> exchange_;
  Url own_;
  TransportEvents* events_ = nullptr;
  std::map<Url, Link> links_;
  bool stopped_ = false;
  Lifetime lifetime_;
};
// guide: end

// guide: transport suite
class CourierNetwork final : public TransportSuiteNetwork {
 public:
  std::unique_ptr<TransportBackend> make_backend(SimRuntime& runtime) override {
    return std::make_unique<Courier>(runtime, exchange_);
  }
  Url nobody() override { return Url::parse("ws://guide:1/nobody").value(); }
  std::uint64_t max_queue_bytes() override { return Courier::kMaxQueueBytes; }

 private:
  const std::shared_ptr<Exchange> exchange_ = std::make_shared<Exchange>();
};
// guide: end

// guide: transport in a node
TEST(Guide, NodesMeetOverACourier) {
  SimWorld world(1);
  const auto exchange = std::make_shared<Exchange>();
  Builder builder = default_test_builder(MemoryNetwork::create());
  builder.transport = [&](Runtime& runtime, const Config&) -> Result<std::unique_ptr<TransportBackend>> {
    return std::make_unique<Courier>(runtime, exchange);
  };
  SimNode alice(world, builder), bob(world, builder);
  const auto stored =
      await<ProcessedOps>(world, [&](auto done) { alice.space->op_store().process_incoming_ops({make_op(1)}, done); });
  const Url to_bob = bob.kitsune->transport().url().value();
  await<void>(world, [&](auto done) {
    alice.space->publish().publish_ops(stored->newly_stored, to_bob, done);
  }).value();
  world.run_for(1s);
  EXPECT_EQ(ops_held(world, bob), 1U);
}
// guide: end

}  // namespace guide

namespace kitsune2::testing {
INSTANTIATE_TEST_SUITE_P(Courier, TransportSuite,
                         ::testing::Values(TransportKind{
                             .name = "courier",
                             .make = [](SimWorld&) { return std::make_unique<guide::CourierNetwork>(); }}),
                         transport_kind_name);
}  // namespace kitsune2::testing
