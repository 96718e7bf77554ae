// Carries out what the core of dialect 0.5's relay decides.
#include "server/iroh/relay_driver.hpp"

#include <algorithm>
#include <utility>

#include "core/buffer.hpp"
#include "core/random.hpp"
#include "log/log.hpp"
#include "transport/iroh/tls_proof.hpp"

namespace kitsune2::server {

using kitsune2::iroh::RelayVersion;

namespace {

/// With so much for a client, it is sent in the middle of the loop's turn. *Rationale*: what is sent of one read may be
/// more than IrohRelayCore::kSocketBytes. Large frames would be kept, which costs as much as forwarding them.
constexpr std::size_t kSendNowFrom = 64U << 10;
/// A frame of this size is sent at once from the buffer in which it has arrived. *Rationale*: to copy it costs more
/// than the system call that it shares with others otherwise.
constexpr std::size_t kForwardNowFrom = 48U << 10;

/// What a client does itself, and stock ones seldom do.
bool breaks_a_rule(IrohReject reason) {
  return reason == IrohReject::bad_signature || reason == IrohReject::handshake_timeout ||
         reason == IrohReject::malformed || reason == IrohReject::slow_receiver || reason == IrohReject::rate_limited;
}

/// Whether `text` may be repeated in a header to a client that looks for captive portals.
bool is_challenge(std::string_view text) {
  constexpr std::size_t kMost = 63;
  return !text.empty() && text.size() <= kMost && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_';
  });
}

}  // namespace

IrohRelayLimits iroh_limits(const RelayServerOptions& o) {
  IrohRelayLimits out;
  out.clients = o.limit_clients;
  out.client_bytes_per_second = o.relay_client_rx_bytes_per_second;
  out.client_burst_bytes = o.relay_client_rx_burst_bytes;
  out.ip_bytes_per_second = o.disable_rate_limiting ? 0 : std::uint64_t{o.limit_ip_kbps} * 125;
  out.ip_burst_bytes = o.limit_ip_byte_burst;
  out.all_queue_bytes = o.limit_all_queue_bytes == 0 ? SIZE_MAX : static_cast<std::size_t>(o.limit_all_queue_bytes);
  out.slow_receiver_millis = o.slow_receiver_millis;
  return out;
}

/// The messages of one client.
class IrohRelay::Peer final : public WsPeerEvents {
 public:
  Peer(IrohRelay& relay, std::uint64_t id) : relay_(relay), id_(id) {}
  Next on_ws_message(net::WsPayload& message) override { return relay_.on_message(id_, message); }
  void on_ws_frame(std::size_t /*size*/) override { relay_.on_frame(id_); }
  bool on_ws_ping(std::size_t size) override { return relay_.on_ping(id_, size); }
  void on_ws_sent(std::size_t queued) override { relay_.on_sent(id_, queued); }
  void on_ws_closed(std::string_view why) override { relay_.on_closed(id_, why); }
  std::size_t max_message_bytes() const override { return kitsune2::iroh::kMaxRelayBody + 1; }

 private:
  IrohRelay& relay_;
  std::uint64_t id_;
};

IrohRelay::IrohRelay(Runtime& runtime, const RelayServerOptions& options, RelayLog& log,
                     IrohRelayCore::IsListed is_listed)
    : runtime_(runtime), options_(options), log_(log), core_(iroh_limits(options), std::move(is_listed)) {}

IrohRelay::~IrohRelay() { runtime_.cancel(timer_); }

void IrohRelay::reload() {
  core_.set_limits(iroh_limits(options_), runtime_.now());
  carry_out();
}

void IrohRelay::forget_all() {
  const Time now = runtime_.now();
  for (const auto& [id, client] : std::exchange(clients_, {})) core_.on_close(id, now);
  carry_out();
}

void IrohRelay::check_invariants() const {
  core_.check_invariants();
  K2_ASSERT(clients_.size() == core_.client_count());
}

std::string_view IrohRelay::subprotocol(const HttpServerRequest& request) {
  const auto version = kitsune2::iroh::newest_version(request.headers("sec-websocket-protocol"));
  return version ? kitsune2::iroh::to_string(*version) : std::string_view();
}

std::optional<HttpReply> IrohRelay::on_request(const HttpServerRequest& request) {
  const bool ping = request.path == "/ping", portal = request.path == "/generate_204";
  if (!ping && !portal && request.path != "/relay") return std::nullopt;
  HttpReply out;
  out.content_type = "text/plain; charset=utf-8";
  if (request.method != "GET" && request.method != "HEAD") {
    out.status = 405;
    out.allow = "GET,HEAD";
  } else if (ping) {
    out.headers = "Access-Control-Allow-Origin: *\r\n";
  } else if (portal) {
    out.status = 204;
    const std::string_view challenge = request.header("x-iroh-challenge");
    if (is_challenge(challenge)) out.headers = "X-Iroh-Response: response " + std::string(challenge) + "\r\n";
  } else {
    out.status = 400;
    out.body = "Connection header did not include 'upgrade'";
  }
  return out;
}

std::shared_ptr<WsPeerEvents> IrohRelay::open(const HttpServerRequest& request, WsPeer& peer, const net::IpAddress& ip,
                                              Right right, HttpReply& refusal, std::function<void()> on_gone) {
  IrohRelayCore::Opening opening;
  opening.ip = ip.limit_key().bytes;
  opening.version =
      kitsune2::iroh::newest_version(request.headers("sec-websocket-protocol")).value_or(RelayVersion::v1);
  opening.right = right;
  opening.random = random_u64(runtime_);
  runtime_.random_bytes(opening.challenge);
  if (const auto proof = request.header(kitsune2::iroh::kTlsProofHeader); !proof.empty()) {
    opening.proven = kitsune2::iroh::check_tls_proof(
        proof, [&](std::string_view label, ByteView context, std::span<std::uint8_t> out) {
          return request.export_key(label, context, out);
        });
  }
  Client client{&peer, ip == request.ip ? peer.remote() : ip.to_string(), runtime_.now(), {}, std::move(on_gone)};
  if (const auto refused = core_.on_open(peer.id(), opening, runtime_.now())) {
    log_.say(log::Level::info, to_string(*refused), [&] { return name(client) + " is refused: " + explain(*refused); });
    log_.urge("limit_clients", [&] {
      return "limit_clients " + std::to_string(options_.limit_clients) + " is reached: new clients are refused";
    });
    refusal.status = 503;
    refusal.body = R"({"error":"limit_clients"})";
    return nullptr;
  }
  clients_[peer.id()] = std::move(client);
  if (core_.key_of(peer.id())) on_joined(peer.id());
  carry_out();
  return std::make_shared<Peer>(*this, peer.id());
}

WsPeerEvents::Next IrohRelay::on_message(std::uint64_t from, net::WsPayload& message) {
  using Verdict = IrohRelayCore::Verdict;
  std::array<std::uint8_t, IrohRelayCore::kHeadBytes> head;
  const std::size_t n = std::min(message.size, head.size());
  message.copy_to(head.data(), 0, n);
  const auto routed = core_.on_message(from, {head.data(), n}, message.size, runtime_.now());
  // The only copy, if there is any: it unmasks, and replaces the receiver's key by the sender's.
  const auto fill = [&](std::uint8_t* out) {
    std::copy_n(routed.head.begin(), routed.head_size, out);
    message.copy_to(out + routed.head_size, routed.replaces, message.size - routed.replaces);
  };
  auto next = routed.last ? WsPeerEvents::Next::last : WsPeerEvents::Next::go;
  switch (routed.verdict) {
    case Verdict::forward: {
      const auto it = clients_.find(routed.to);
      K2_ASSERT(it != clients_.end());
      WsPeer& to = *it->second.peer;
      const std::size_t size = routed.head_size + message.size - routed.replaces;
      if (size >= kForwardNowFrom) {
        to.forward_now({routed.head.data(), routed.head_size}, message, routed.replaces);
      } else {
        fill(to.send_space(size));
        if (to.queued() < kSendNowFrom) break;
        to.send_now();
      }
      core_.on_queue(routed.to, to.queued(), runtime_.now());
      break;
    }
    case Verdict::keep: {
      const std::size_t size = routed.head_size + message.size - routed.replaces;
      const auto frame = make_buffer(size);
      fill(frame.get());
      core_.keep(from, routed.to, Bytes::share(frame, {frame.get(), size}));
      break;
    }
    case Verdict::hold:
      next = WsPeerEvents::Next::hold;
      break;
    case Verdict::closed:
      next = WsPeerEvents::Next::stop;
      break;
    case Verdict::taken:
      break;
  }
  if (routed.joined) on_joined(from);
  carry_out();
  return next;
}

void IrohRelay::on_joined(std::uint64_t id) {
  Client& client = clients_.at(id);
  client.key = core_.key_of(id);
  log_.say(log::Level::info, "endpoints that connected", [&] { return name(client) + " connected"; });
}

void IrohRelay::on_frame(std::uint64_t from) {
  core_.on_other_frame(from, runtime_.now());
  carry_out();
}

bool IrohRelay::on_ping(std::uint64_t from, std::size_t size) {
  const bool answer = core_.on_ws_ping(from, size, runtime_.now());
  carry_out();
  return answer;
}

void IrohRelay::on_sent(std::uint64_t id, std::size_t queued) {
  core_.on_queue(id, queued, runtime_.now());
  carry_out();
}

void IrohRelay::on_closed(std::uint64_t id, std::string_view why) {
  if (const auto it = clients_.find(id); it != clients_.end()) {
    const Client& client = it->second;
    log_.say(log::Level::info, "endpoints that disconnected", [&] {
      return name(client) + (client.key ? " disconnected" : " disconnected before it had proved its key") +
             lived(client) + log::printable(why);
    });
    erase(id);
  }
  core_.on_close(id, runtime_.now());
  carry_out();
}

void IrohRelay::erase(std::uint64_t id) {
  const auto it = clients_.find(id);
  const auto on_gone = std::move(it->second.on_gone);
  clients_.erase(it);
  if (on_gone) on_gone();
}

std::string IrohRelay::name(const Client& client) const {
  return (client.key ? "endpoint " + to_hex(*client.key) : std::string("an endpoint")) + " of " + client.remote;
}

std::string IrohRelay::lived(const Client& client) const {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(runtime_.now() - client.since).count();
  return " after " + std::to_string(ms / 1000) + '.' + std::to_string(ms % 1000 / 100) + " s: ";
}

/// The reason by the name in the metrics, then its meaning and the limit.
std::string IrohRelay::explain(IrohReject reason) const {
  std::string what;
  switch (reason) {
    case IrohReject::limit_clients:
      what = std::to_string(core_.client_count()) + " are connected";
      break;
    case IrohReject::bad_signature:
      what = "it does not have the key that it gave";
      break;
    case IrohReject::not_authorized:
      what = "it has no valid token";
      break;
    case IrohReject::handshake_timeout:
      what = "it did not prove its key in time";
      break;
    case IrohReject::malformed:
      what = "a frame that is broken or not a client's";
      break;
    case IrohReject::no_pong:
      what = "it did not answer a ping";
      break;
    case IrohReject::slow_receiver:
      what = "it took nothing for slow_receiver_millis " + std::to_string(options_.slow_receiver_millis);
      break;
    case IrohReject::duplicates:
      what = "too many connections of its key came later";
      break;
    case IrohReject::evicted:
      what = "its place was given to a newcomer, since limit_clients " + std::to_string(options_.limit_clients) +
             " is reached";
      break;
    case IrohReject::rate_limited:
      what = "too many pings or fragments";
      break;
  }
  return std::string(to_string(reason)) + ": " + what;
}

/// Carries out the core's actions, and sets the alarm for its next deadline.
void IrohRelay::carry_out() {
  using Kind = IrohRelayCore::Action::Kind;
  actions_.clear();
  core_.take_actions(actions_);
  for (const auto& action : actions_) {
    const auto it = clients_.find(action.conn);
    if (it == clients_.end()) continue;
    WsPeer& peer = *it->second.peer;
    if (action.kind == Kind::send) {
      peer.send(action.message);
    } else if (action.kind == Kind::resume) {
      peer.resume();
    } else {
      log_.say(log::Level::info, to_string(action.reason),
               [&] { return name(it->second) + " is closed" + lived(it->second) + explain(action.reason); });
      erase(action.conn);
      const auto reason = to_string(action.reason);
      if (breaks_a_rule(action.reason)) peer.blame();
      action.reason == IrohReject::slow_receiver ? peer.abort(reason) : peer.close(1008, reason);
    }
  }
  const auto next = core_.next_deadline();
  if (!next || *next >= alarm_) return;
  runtime_.cancel(timer_);
  alarm_ = *next;
  timer_ = runtime_.schedule(*next, [this] {
    alarm_ = Time::max();
    timer_ = 0;
    core_.poll(runtime_.now());
    carry_out();
  });
}

}  // namespace kitsune2::server
