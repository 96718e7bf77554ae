// The attackers of hostile.py over tx5 and iroh: their cryptography and handshakes are right, their messages do harm.
#include "hostile_attack.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <optional>
#include <span>
#include <string>

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kitsune2/kitsune2.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/transport_iroh.hpp"
#include "kitsune2/transport_tx5.hpp"
#include "net/ws_connector.hpp"
#include "support/raw_endpoint.hpp"
#include "support/whole_messages.hpp"
#include "transport/iroh/endpoint_url.hpp"
#include "transport/sbd/sbd_client.hpp"
#include "transport/tx5/e2e.hpp"
#include "transport/tx5/framing.hpp"
#include "wire/fetch_messages.hpp"
#include "wire/gossip_messages.hpp"
#include "wire/k2proto.hpp"
#include "wire/publish_messages.hpp"

using namespace std::chrono_literals;

namespace kitsune2::hostile {
namespace {

// ------------------------------------------------------------------------------------------------ attackers

/// A peer that keeps the rules of the transport. The attack chooses its messages.
class Sender final : public TransportEvents {
 public:
  Sender(AsioRuntime& runtime, std::shared_ptr<WsConnector> ws, const Plan& plan, Tally& tally)
      : runtime_(runtime), victim_(plan.victim), tally_(tally) {
    if (uses_iroh(plan.dialect())) {
      IrohTransportConfig config;
      config.relay_url = plan.relay;
      config.relay_allow_plain_text = true;
      std::array<std::uint8_t, 32> seed{};
      runtime.random_bytes(seed);
      backend_ = need(make_iroh_transport(runtime, std::move(ws), config, seed));
    } else {
      Tx5TransportConfig config;
      config.server_url = plan.relay;
      config.signal_allow_plain_text = true;
      backend_ = need(make_tx5_transport(runtime, std::move(ws), config));
    }
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

  /// Calls `then` when the message has left, or could not be sent.
  void send(Bytes message, std::function<void(bool)> then = {}) {
    const std::size_t size = message.size();
    backend_->send(victim_, std::move(message), [this, size, then = std::move(then)](const Result<void>& sent) {
      (sent ? tally_.messages : tally_.failed) += 1;
      if (sent) tally_.bytes += size;
      if (then) then(sent.has_value());
    });
  }
  /// Sends the messages that `make` returns, one after the other, for ever.
  void repeat(std::function<Bytes()> make) {
    send(make(),
         [this, make](bool sent) { runtime_.schedule_after(sent ? 0ms : 200ms, [this, make] { repeat(make); }); });
  }
  std::optional<Url> url() const { return backend_->url(); }

  std::function<void()> on_online;
  std::function<void(const Bytes&)> on_message;
  std::shared_ptr<Listing> listing;
  bool begun = false;
  /// Whether it has done its harm, so that another one may take its place.
  bool spent = false;
  std::uint64_t turn = 0;  ///< of its rounds
  const std::uint64_t number = ++last_number;

 private:
  static inline std::uint64_t last_number = 0;
  AsioRuntime& runtime_;
  const Url victim_;
  Tally& tally_;
  bool online_ = false;
  std::unique_ptr<TransportBackend> backend_;
};

/// A peer whose cryptography and handshake are right, but which breaks the rules of framing. It reconnects when it is
/// disconnected.
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
  /// Sends a message of at most 16 KiB.
  void message(const Bytes& bytes) {
    frame(tx5::FrameType::message, static_cast<std::uint32_t>(bytes.size()), bytes);
    tally_.messages += 1;
    tally_.bytes += bytes.size();
  }

  /// Begins the handshake again on the open connection.
  void begin_again() {
    runtime_.random_bytes(nonce_);
    say("hreq" + std::string(as_text(nonce_)));
    tally_.messages += 1;
  }
  /// Sends `body` to another client of the relay. False: nothing more leaves now.
  bool pass(const tx5::NodeId& to, ByteView body) {
    if (!client_ || !client_->is_ready() || !socket_->send(sbd::encode_forward(to, body))) return false;
    tally_.messages += 1;
    tally_.bytes += body.size();
    return true;
  }
  /// Its key at the relay.
  tx5::NodeId id() const { return key_->id(); }

  /// What to send once the connection is open.
  std::function<void(Raw&)> on_open;
  bool is_open() const { return open_; }

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
      if (client_ && client_->is_ready()) {
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
      default:  // commands of a relay to the node of its own process
        break;
    }
  }
  void on_body(ByteView body) {
    const auto opened = session_->open(body);
    if (opened.event != tx5::E2eSession::Event::plaintext) return;
    tally_.received += opened.plaintext.size();
    const auto text = opened.plaintext.text();
    if (text.starts_with("fmsg") && text.size() == 8 && text.substr(4) == std::string_view("\0\0\0\0", 4)) {
      // The closing frame: begin again, as another peer.
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
    if (session_ && session_->is_encrypting()) socket_->send(session_->seal(as_bytes(text), {}));
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

/// Ids of ops that nobody has.
class FreshIds {
 public:
  explicit FreshIds(std::uint64_t after = 0) : next_(after) {}
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
  std::uint64_t next_;
};

/// A message of `module` whose only id has `size` bytes.
Bytes one_id(const Plan& plan, std::string_view module, std::size_t size) {
  const OpId id(as_bytes(std::string(size, 'i')));
  return wire::whole_module(plan.space, module,
                            module == kFetchModule ? wire::encode_fetch_request({&id, 1})
                                                   : wire::encode_publish_ops(plan.dialect(), {&id, 1}));
}
Bytes publish_of(const Plan& plan, std::span<const OpId> ids) {
  return wire::whole_module(plan.space, kPublishModule, wire::encode_publish_ops(plan.dialect(), ids));
}

Bytes gossip_message(const SpaceId& space, const wire::GossipMessage& message) {
  return wire::whole_module(space, kGossipModule, wire::encode_gossip(message));
}

/// Owns the attackers. It begins on the strand.
class PeerAttack final : public Attack {
 public:
  PeerAttack(AsioRuntime& runtime, Plan plan)
      : runtime_(runtime),
        plan_(std::move(plan)),
        ws_(make_ws_connector(runtime)),
        http_(make_http_client(runtime)),
        ids_(all_ids(plan_.ops, plan_.size)),
        session_(Bytes::copy_of("session of nobody")) {}
  void start() override {
    for (const char* kind : {"permits", "no-permits", "deaf", "begin-again", "relay-queues"}) {
      if (plan_.kind == kind) return raw_peer();
    }
    sender();
    for (const char* kind : {"initiate", "bad-infos", "differ", "outside"}) {
      if (plan_.kind == kind) renew();
    }
  }
  Tally tally() const override { return tally_; }
  std::size_t peers() const override {
    return is_listed() ? std::min(begun_, senders_.size()) : std::max(senders_.size(), raw_.size());
  }

 private:
  /// Whether its peers have to be known before they are heard.
  bool is_listed() const {
    return known_peers_only(plan_.dialect()) && plan_.kind != "connections" && plan_.kind != "strangers";
  }
  /// Adds one peer, and the next one soon after, so that a thousand are not added in one turn of the loop.
  void sender() {
    if (senders_.size() == plan_.peers) return;
    senders_.push_back(new_sender());
    runtime_.schedule_after(2ms, [this] { sender(); });
  }
  std::unique_ptr<Sender> new_sender() {
    auto made = std::make_unique<Sender>(runtime_, ws_, plan_, tally_);
    Sender& s = *made;
    s.on_online = [this, &s] {
      if (!is_listed()) return begin(s);
      s.listing = std::make_shared<Listing>(runtime_, *http_, plan_, *s.url());
      s.on_message = [this, &s](const Bytes&) {
        // The victim answers, so it hears this peer. Later, because `begin` may replace this function.
        if (s.begun) return;
        runtime_.schedule_after(0ms, [this, seen = s.number] {
          for (const auto& each : senders_) {
            if (each->number != seen || std::exchange(each->begun, true)) continue;
            ++begun_;
            begin(*each);
          }
        });
      };
      s.listing->begin([this, &s] { ask(s); });
    };
    return made;
  }
  /// Asks for something until it is answered. An op would make it a known peer, who may do more; but a round of gossip
  /// cannot be followed by another one soon.
  void ask(Sender& s) {
    if (s.begun) return;
    if (plan_.kind == "initiate" || plan_.kind == "bad-infos" || plan_.kind == "differ" || plan_.kind == "outside") {
      s.send(wire::whole_fetch_request(plan_.space, std::span(ids_).first(1)));
    } else {
      const auto first = initiate();
      s.send(gossip_message(plan_.space, first));
      s.send(gossip_message(plan_.space, wire::GossipTerminate{first.session_id, Bytes::copy_of("because")}));
    }
    runtime_.schedule_after(2s, [this, seen = s.number] {
      for (const auto& each : senders_)
        if (each->number == seen) ask(*each);
    });
  }
  /// Replaces a peer that has done its harm by a new one; a new url costs nothing.
  void renew() {
    runtime_.schedule_after(20ms, [this] {
      std::size_t made = 0;
      for (auto& each : senders_) {
        if (!each->spent) continue;
        each = new_sender();
        if (++made == 16) break;
      }
      renew();
    });
  }
  void raw_peer() {
    if (raw_.size() == plan_.peers) {
      if (plan_.kind == "deaf") ask_deaf();
      if (plan_.kind == "begin-again") begin_again();
      if (plan_.kind == "relay-queues") fill_queues();
      return;
    }
    raw_.push_back(std::make_unique<Raw>(runtime_, *ws_, plan_.relay, plan_.victim, tally_));
    raw_.back()->on_open = [this](Raw& raw) {
      opened_ += 1;
      if (plan_.kind == "permits") {
        raw.frame(tx5::FrameType::permit_request, 64U << 20);
        tally_.messages += 1;
      } else if (plan_.kind == "no-permits") {
        // Requests as many ops as one frame can name, and never grants the permits for the answers.
        const std::size_t count = std::min<std::size_t>(ids_.size(), 400);
        raw.message(wire::whole_fetch_request(plan_.space, std::span(ids_).first(count)));
      }
    };
    runtime_.schedule_after(2ms, [this] { raw_peer(); });
  }
  /// Once all are connected, none of them reads any more, and all request ops whose answers need no permit.
  void ask_deaf() {
    if (opened_ < raw_.size() && waited_++ < 500) {
      runtime_.schedule_after(20ms, [this] { ask_deaf(); });
      return;
    }
    stop_reading();
    for (const auto& raw : raw_) {
      if (!raw->is_open()) continue;
      for (int i = 0; i < 4; ++i) {
        const std::size_t first = next_++ * 11 % (ids_.size() - 11);
        raw->message(wire::whole_fetch_request(plan_.space, std::span(ids_).subspan(first, 11)));
      }
    }
    runtime_.schedule_after(20ms, [this] { ask_deaf(); });
  }

  void begin_again() {
    for (const auto& raw : raw_) {
      for (int i = 0; i < 8 && raw->is_open(); ++i) raw->begin_again();
    }
    runtime_.schedule_after(2ms, [this] { begin_again(); });
  }
  /// Once all are connected, none of them reads any more, and each sends to the next one as much as the relay takes.
  void fill_queues() {
    if (opened_ < raw_.size() && waited_++ < 500) {
      runtime_.schedule_after(20ms, [this] { fill_queues(); });
      return;
    }
    stop_reading();
    const std::string body(19'000, 'q');
    for (std::size_t i = 0; i < raw_.size(); ++i) {
      const auto to = raw_[(i + 1) % raw_.size()]->id();
      while (raw_[i]->pass(to, as_bytes(body))) {
      }
    }
    runtime_.schedule_after(20ms, [this] { fill_queues(); });
  }

  /// Publishes a million ids in each message, for ever. Those that have left are counted. A message that could not be
  /// sent is sent again, because making one takes long on a machine that does other things too.
  void publish(Sender& s, Bytes message = {}) {
    constexpr std::size_t kIds = 1'000'000;
    if (message.empty()) message = publish_of(plan_, fresh_.take(kIds));
    s.send(message, [this, &s, message](bool sent) {
      if (sent) tally_.ids += kIds;
      const Bytes next = sent ? Bytes() : message;
      runtime_.schedule_after(sent ? 1ms : 200ms, [this, &s, next] { publish(s, next); });
    });
  }
  wire::GossipInitiate initiate() {
    wire::GossipInitiate out;
    out.session_id = Bytes::copy_of("session " + std::to_string(++next_));
    for (std::uint32_t sector = 0; sector < 512; ++sector) out.arc_set.set(sector);
    out.tie_breaker = static_cast<std::uint32_t>(next_);
    out.max_op_data_bytes = 100U << 20;
    return out;
  }
  /// Makes an agent in the victim's space, at a url that need not exist.
  std::string info(std::chrono::seconds lifetime, bool right) {
    const std::uint64_t n = ++next_;
    std::shared_ptr<LocalAgent> agent = Ed25519LocalAgent::generate();
    testing::AgentInfoBuilder builder;
    builder.space = plan_.space;
    builder.created_at = runtime_.wall_now();
    builder.lifetime = lifetime;
    sbd_name_[n % sbd_name_.size()] = kAlphabet[n / 7 % kAlphabet.size()];
    if (uses_iroh(plan_.dialect())) {
      std::array<std::uint8_t, 32> id{};
      runtime_.random_bytes(id);
      builder.url = iroh::endpoint_url(relay_, id);
    } else {
      builder.url = need(Url::parse(plan_.relay + "/" + sbd_name_));
    }
    std::string text = builder.sign(*agent)->encode();
    if (!right) {
      // A character in the middle, because the last one of the signature holds only padding.
      const std::size_t at = text.find("signature") + 40;
      text[at] = text[at] == 'A' ? 'B' : 'A';
    }
    return text;
  }
  /// Begins a round of gossip, and sends a thousand infos with wrong signatures in it.
  void bad_infos(Sender& s) {
    s.on_message = [this, &s](const Bytes& message) {
      const auto outer = wire::decode_k2proto(message);
      if (!outer || !outer->module || outer->module->text() != kGossipModule) return;
      const auto inner = wire::decode_gossip(plan_.dialect(), outer->data);
      const auto* accept = inner ? std::get_if<wire::GossipAccept>(&*inner) : nullptr;
      if (accept == nullptr) return;
      wire::GossipNoDiff out;
      out.session_id = accept->session_id;
      if (wrong_.empty())
        for (int i = 0; i < 1024; ++i) wrong_.push_back(Bytes::copy_of(info(20min, false)));
      out.accept_response.provided_agents = wrong_;
      s.send(gossip_message(plan_.space, out), [&s](bool) { s.spent = true; });
    };
    s.send(gossip_message(plan_.space, initiate()));
    // The round was not accepted: try another one.
    runtime_.schedule_after(uses_iroh(plan_.dialect()) ? 10s : 2s, [this, seen = s.number] {
      for (const auto& each : senders_)
        if (each->number == seen) each->spent = true;
    });
  }

  enum class Differs {
    all,        ///< the victim lists as much as it ever does; and ids that nobody has are named to it
    outside,    ///< sectors that are not common
    one_slice,  ///< the first slice of each sector, in round after round with the same peers
  };
  /// A comparison in which something differs, whatever the victim holds, from a peer whose budget is as large as can
  /// be.
  void compare(Sender& s, Differs what) {
    s.on_message = [this, &s, what](const Bytes& message) {
      const auto outer = wire::decode_k2proto(message);
      if (!outer || !outer->module || outer->module->text() != kGossipModule) return;
      const auto inner = wire::decode_gossip(plan_.dialect(), outer->data);
      if (!inner) return;
      const Bytes hash = Bytes::copy_of(std::string(32, 'h'));
      const bool again = what == Differs::one_slice, outside = what == Differs::outside;
      if (const auto* accept = std::get_if<wire::GossipAccept>(&*inner)) {
        if (!accept->snapshot) {
          if (!again) return;
          wire::GossipNoDiff none;
          none.session_id = accept->session_id;
          s.send(gossip_message(plan_.space, none));
          return next_round(s, 200ms);
        }
        wire::GossipDiscSectorsDiff out;
        out.session_id = accept->session_id;
        out.snapshot.disc_boundary = accept->snapshot->disc_boundary;
        for (std::uint32_t sector = 0; sector < 512; ++sector) {
          out.snapshot.disc_sectors.push_back(outside ? sector + 1'000'000 : sector);
          out.snapshot.disc_sector_hashes.push_back(hash);
        }
        s.send(gossip_message(plan_.space, out), [&s, outside](bool) { s.spent = outside; });
      } else if (const auto* shown = std::get_if<wire::GossipDiscSectorDetailsDiff>(&*inner)) {
        wire::GossipDiscSectorDetailsDiffResponse out;
        out.session_id = shown->session_id;
        if (again) {
          out.snapshot = shown->snapshot;
          for (auto& sector : out.snapshot.disc_slice_hashes) {
            if (!sector.hashes.empty()) sector.hashes.front() = hash;
          }
          return s.send(gossip_message(plan_.space, out));
        }
        out.snapshot.disc_boundary = shown->snapshot.disc_boundary;
        for (const std::uint32_t sector : shown->snapshot.sector_indices) {
          out.snapshot.sector_indices.push_back(sector);
          out.snapshot.disc_slice_hashes.emplace_back();
        }
        for (const OpId& id : fresh_.take(10'000)) out.missing_ids.push_back(id.bytes());
        tally_.ids += out.missing_ids.size();
        s.send(gossip_message(plan_.space, out));
      } else if (const auto* hashes = std::get_if<wire::GossipHashes>(&*inner)) {
        s.spent = !again;
        if (!again) return;
        tally_.ids += hashes->missing_ids.size();
        next_round(s, 0ms);
      } else if (again && std::holds_alternative<wire::GossipBusy>(*inner)) {
        next_round(s, 200ms);
      }
    };
    if (what == Differs::one_slice) return next_round(s, 0ms);
    auto first = initiate();
    first.new_since = runtime_.wall_now();
    first.max_op_data_bytes = UINT32_MAX;
    s.send(gossip_message(plan_.space, first));
    runtime_.schedule_after(uses_iroh(plan_.dialect()) ? 10s : 5s, [this, seen = s.number] {
      for (const auto& each : senders_)
        if (each->number == seen) each->spent = true;
    });
  }

  /// The next round of `one_slice`, as if a node of ours began it. Another one follows when it ends, or nothing comes.
  void next_round(Sender& s, Duration wait) {
    runtime_.schedule_after(wait, [this, &s, turn = ++s.turn] {
      if (turn != s.turn) return;
      auto first = initiate();
      first.abilities = wire::kQuickRounds;
      first.new_since = runtime_.wall_now();
      first.max_op_data_bytes = UINT32_MAX;
      s.send(gossip_message(plan_.space, first));
      next_round(s, 5s);
    });
  }

  void begin(Sender& s) {
    const std::string& kind = plan_.kind;
    if (kind == "strangers") {
      // What a stranger sends waits at the victim, which asks who it is.
      s.repeat([this] { return wire::encode_notify(plan_.space, as_bytes(std::string(4000, 's'))); });
    } else if (kind == "connections") {
      s.send(wire::encode_notify(plan_.space, as_bytes("hello")));
    } else if (kind == "requests") {
      // Many at once, so that they have to wait at the victim.
      for (int i = 0; i < 16; ++i) {
        s.repeat([this] {
          const std::size_t first = next_++ % std::max<std::size_t>(ids_.size() - 1, 1);
          return wire::whole_fetch_request(plan_.space, std::span(ids_).subspan(first, 1));
        });
      }
    } else if (kind == "notify") {
      for (int i = 0; i < 16; ++i) s.repeat([this] { return wire::encode_notify(plan_.space, as_bytes("hello")); });
    } else if (kind == "amplify") {
      for (int i = 0; i < 64; ++i) s.repeat([this] { return wire::whole_fetch_request(plan_.space, ids_); });
    } else if (kind == "bad-ids") {
      s.repeat([this] {
        const bool fetch = next_++ % 2 == 0;
        return one_id(plan_, fetch ? kFetchModule : kPublishModule, next_ / 2 % 2 == 0 ? 0 : 1U << 20);
      });
    } else if (kind == "publish") {
      publish(s);
    } else if (kind == "repeat") {
      // The same ids again and again, with one new id each time.
      s.repeat([this] {
        auto ids = fresh_.take(1);
        if (repeated_.empty()) repeated_ = FreshIds(1ULL << 40).take(4094);
        ids.insert(ids.end(), repeated_.begin(), repeated_.end());
        return publish_of(plan_, ids);
      });
    } else if (kind == "unsolicited") {
      s.repeat([this] {
        std::vector<MetaOp> ops;
        for (int i = 0; i < 64; ++i) {
          ops.push_back({op_carries_id(plan_.dialect()) ? fresh_.take(1).front() : OpId(),
                         testing::make_op(1'000'000'000 + next_++, 1024)});
        }
        return wire::whole_module(plan_.space, kFetchModule,
                                  wire::encode_fetch_response(plan_.dialect(), ops).joined());
      });
    } else if (kind == "agents") {
      // Each from another agent, with a right signature but for another space: the signature is checked before that.
      s.repeat([this] {
        auto agent = testing::make_agent(1'000'000 + next_++ % 64);
        testing::AgentInfoBuilder builder{.space = SpaceId::from_text("elsewhere"), .url = plan_.victim};
        builder.created_at = runtime_.wall_now();
        return wire::whole_publish_agent(plan_.space, builder.sign(*agent)->encode());
      });
    } else if (kind == "infos") {
      // Believable infos, valid for as long as is allowed.
      s.repeat([this] { return wire::whole_publish_agent(plan_.space, info(29min, true)); });
    } else if (kind == "padding") {
      // A small request, padded to a large message.
      s.repeat([this] {
        Bytes message = wire::whole_fetch_request(plan_.space, std::span(ids_).first(1));
        std::string text = message.str();
        const std::size_t size = 8U << 20;
        text += std::string("\x7a") + std::string("\x80\x80\x80\x04", 4) + std::string(size, 'p');  // field 15
        return Bytes::copy_of(text);
      });
    } else if (kind == "terminate") {
      for (int i = 0; i < 16; ++i)
        s.repeat([this] {
          return gossip_message(plan_.space, wire::GossipTerminate{session_, Bytes::copy_of("because")});
        });
    } else if (kind == "initiate") {
      const auto first = initiate();
      s.send(gossip_message(plan_.space, first));
      s.send(gossip_message(plan_.space, wire::GossipTerminate{first.session_id, Bytes::copy_of("because")}),
             [&s](bool) { s.spent = true; });
    } else if (kind == "bad-infos") {
      bad_infos(s);
    } else if (kind == "differ" || kind == "outside" || kind == "same-slice") {
      compare(s, kind == "differ" ? Differs::all : kind == "outside" ? Differs::outside : Differs::one_slice);
    } else {
      fail("no attack " + kind);
    }
  }

  static constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

  AsioRuntime& runtime_;
  const Plan plan_;
  /// As infos of 0.5 name it.
  const Url relay_ = uses_iroh(plan_.dialect()) ? test::relay_at(plan_.relay) : plan_.victim;
  std::shared_ptr<WsConnector> ws_;
  std::unique_ptr<HttpClient> http_;
  std::vector<OpId> ids_;
  std::vector<OpId> repeated_;
  std::vector<Bytes> wrong_;
  const Bytes session_;
  std::string sbd_name_ = "7Y3LhBcLxGZnfYDKYxBq4YaPHcVCOCw4xMQYYKMSmTk";
  FreshIds fresh_;
  std::uint64_t next_ = 0;
  std::size_t opened_ = 0, waited_ = 0, begun_ = 0;
  Tally tally_;
  std::vector<std::unique_ptr<Sender>> senders_;
  std::vector<std::unique_ptr<Raw>> raw_;
};

}  // namespace

Listing::Listing(AsioRuntime& runtime, HttpClient& http, const Plan& plan, Url url)
    : runtime_(runtime), http_(http), plan_(plan), url_(std::move(url)), agent_(Ed25519LocalAgent::generate()) {}

void Listing::begin(std::function<void()> then) {
  then_ = std::move(then);
  put();
}

void Listing::put() {
  testing::AgentInfoBuilder builder;
  builder.space = plan_.space;
  builder.created_at = runtime_.wall_now();
  builder.url = url_;
  const auto info = builder.sign(*agent_);
  HttpRequest request;
  request.method = HttpMethod::kPut;
  request.url = "http://" + plan_.place() + "/bootstrap/" + plan_.space.to_string() + "/" + agent_->agent().to_string();
  request.body = std::string(info->encode());
  http_.request(std::move(request), [weak = weak_from_this()](const Result<HttpResponse>&) {
    const auto self = weak.lock();
    if (!self) return;
    if (const auto then = std::exchange(self->then_, nullptr)) then();
    self->runtime_.schedule_after(3s, [weak] {
      if (const auto again = weak.lock()) again->put();
    });
  });
}

std::vector<OpId> all_ids(std::size_t count, std::size_t size) {
  return testing::ids_of(testing::make_ops(*make_sha256_policy(), 0, count, size));
}

std::unique_ptr<Attack> make_peer_attack(AsioRuntime& runtime, Plan plan) {
  return std::make_unique<PeerAttack>(runtime, std::move(plan));
}

}  // namespace kitsune2::hostile
