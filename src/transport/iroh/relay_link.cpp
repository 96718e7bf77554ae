// The connection to an iroh relay: opening it, pings, losing it and coming back.
#include "transport/iroh/relay_link.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "transport/iroh/tls_proof.hpp"

namespace kitsune2::iroh {
namespace {

/// A stop waits this long for the last datagrams to leave, asking this often.
constexpr Duration kLingerLimit = std::chrono::seconds(1);
constexpr Duration kLingerStep = std::chrono::milliseconds(10);
constexpr std::size_t kMaxNotice = 200;

}  // namespace

RelayLink::RelayLink(Runtime& runtime, std::shared_ptr<WsConnector> connector, const EndpointKey& key,
                     RelayLinkOptions options, RelayLinkOwner& owner)
    : runtime_(runtime),
      connector_(std::move(connector)),
      key_(key),
      options_(std::move(options)),
      owner_(owner),
      reconnect_(options_.reconnect) {}

RelayLink::~RelayLink() {
  runtime_.cancel(timer_);
  if (socket_) socket_->close();
}

void RelayLink::start() { connect(); }

void RelayLink::connect() {
  if (state_ != State::offline) return;
  if (!options_.access) return open({});
  state_ = State::asking;
  const std::uint64_t generation = ++generation_;
  options_.access(key_.id(), std::exchange(refused_, false),
                  lifetime_.guard([this, generation](Result<std::string> token) {
                    if (generation != generation_) return;
                    token ? open(std::move(*token)) : lost(token.error());
                  }));
}

void RelayLink::open(std::string token) {
  state_ = State::connecting;
  const std::uint64_t generation = ++generation_;
  WsOptions options;
  options.bearer_token = std::move(token);
  options.max_message_bytes = 1 + kMaxRelayBody;
  options.max_queue_bytes = options_.max_socket_queue;
  options.protocols = options_.versions;
  options.tls_ca_file = options_.tls_ca_file;
  has_proof_ = false;
  options.tls_headers = [this, alive = lifetime_.weak(), generation](const KeyExporter& exporter) {
    if (alive.expired() || generation != generation_) return std::string();
    const auto proof = make_tls_proof(key_, exporter);
    has_proof_ = proof.has_value();
    return proof ? std::string(kTlsProofHeader) + ": " + *proof + "\r\n" : std::string();
  };
  options.pings.quiet = Duration::zero();  // the relay's own pings say the same
  WsHandlers handlers;
  const auto current = [this, generation] { return generation == generation_; };
  handlers.on_open = lifetime_.guard([this, current] {
    if (current()) on_open();
  });
  handlers.on_message = lifetime_.guard([this, current](Bytes message) {
    if (current()) on_message(message);
  });
  handlers.on_close = lifetime_.guard([this, current](Error why) {
    if (current()) lost(why);
  });
  handlers.on_writable = lifetime_.guard([this, current] {
    if (current()) on_writable();
  });
  socket_ = connector_->connect(options_.server + "/relay", options, handlers);
}

void RelayLink::on_open() {
  if (state_ != State::connecting) return;
  state_ = State::greeting;
  const bool second = socket_->protocol() == to_string(RelayVersion::v2);
  client_.emplace(key_, second ? RelayVersion::v2 : RelayVersion::v1, runtime_.now(),
                  RelayClient::Opened{has_proof_, socket_->is_in_process()});
  arm_timer();
}

void RelayLink::on_message(const Bytes& message) {
  if (state_ != State::greeting && state_ != State::up) return;
  Result<RelayClient::Outcome> outcome = client_->on_message(message, runtime_.now());
  if (!outcome) {
    lost(outcome.error());
    return;
  }
  if (outcome->send && !socket_->send(*outcome->send)) answer_ = std::move(outcome->send);
  if (!outcome->notice.empty() && notice_log_.open(runtime_.now())) {
    log::info("iroh",
              "relay " + options_.server + ": " + log::printable(outcome->notice, kMaxNotice) + notice_log_.left_out());
  }
  if (outcome->ready) {
    state_ = State::up;
    up_since_ = runtime_.now();
    reconnect_.on_connected(up_since_);
    failure_.reset();
    log::debug("iroh", "connected to relay " + options_.server);
    on_timer();  // the first ping
    owner_.on_relay_up();
  } else if (outcome->datagrams) {
    owner_.on_relay_datagrams(*outcome->datagrams);
  } else if (outcome->address) {
    owner_.on_relay_address(*outcome->address);
  } else if (outcome->gone && is_in_process()) {
    owner_.on_relay_gone(*outcome->gone);
  }
  if (client_) arm_timer();
}

void RelayLink::lost(const Error& why) {
  if (state_ == State::offline || state_ == State::stopped) return;
  const bool was_up = state_ == State::up;
  const Time now = runtime_.now();
  // R5, but not for ever: a relay that keeps nobody for long is not asked in a loop.
  const bool at_once = client_ && client_->is_established() && now >= up_since_ + options_.reconnect.stable_after;
  log::debug("iroh", "relay " + options_.server + " lost: " + why.to_string());
  state_ = State::offline;
  generation_ += 1;
  refused_ = why.code == Errc::blocked && client_.has_value();
  if (socket_) socket_->close();
  socket_.reset();
  client_.reset();
  answer_.reset();
  if (!failure_) failure_.emplace().since = runtime_.wall_now();
  failure_->error = why;
  failure_->attempts += 1;
  const Time next = reconnect_.on_lost(now, random());
  connect_at(at_once ? now : next);
  if (was_up) owner_.on_relay_down();
}

std::uint32_t RelayLink::random() {
  std::array<std::uint8_t, sizeof(std::uint32_t)> bytes{};
  runtime_.random_bytes(bytes);
  return std::bit_cast<std::uint32_t>(bytes);
}

void RelayLink::connect_at(Time when) {
  runtime_.cancel(timer_);
  timer_at_ = when;
  timer_ = runtime_.schedule(when, lifetime_.guard([this] {
    timer_ = 0;
    connect();
  }));
}

void RelayLink::on_server_answered() {
  if (state_ != State::offline || timer_ == 0) return;
  if (const auto soon = reconnect_.on_sign_of_life(runtime_.now(), random())) connect_at(*soon);
}

bool RelayLink::send_answer() {
  if (answer_ && socket_->send(*answer_)) answer_.reset();
  return !answer_;
}

void RelayLink::on_writable() {
  if (state_ == State::up && send_answer()) owner_.on_relay_writable();
}

bool RelayLink::send(const Datagrams& datagrams) {
  return state_ == State::up && send_answer() && socket_->send(encode_relay_frame(Sender::client, datagrams));
}

void RelayLink::on_timer() {
  if (!client_ || state_ == State::stopped) return;
  const Time now = runtime_.now();
  if (const auto why = client_->overdue(now)) {
    lost(*why);
    return;
  }
  PingPayload payload{};
  runtime_.random_bytes(payload);
  // A socket that is full refuses it: the pong is missed then, and with it the connection, if it stays full.
  if (std::optional<Bytes> ping = client_->ping(payload, now)) static_cast<void>(socket_->send(std::move(*ping)));
  arm_timer();
}

void RelayLink::arm_timer() {
  const Time next = client_->next_deadline();
  if (timer_ != 0 && timer_at_ <= next) return;
  runtime_.cancel(timer_);
  timer_at_ = next;
  timer_ = runtime_.schedule(next, lifetime_.guard([this] {
    timer_ = 0;
    on_timer();
  }));
}

void RelayLink::stop(std::function<void()> done) {
  const bool linger = state_ == State::up;
  state_ = State::stopped;
  generation_ += 1;
  client_.reset();
  runtime_.cancel(std::exchange(timer_, 0));
  stopped_ = std::move(done);
  linger_until_ = runtime_.now() + (linger ? kLingerLimit : Duration(0));
  runtime_.post(lifetime_.guard([this] { end_linger(); }));
}

void RelayLink::end_linger() {
  if (socket_ && socket_->queued_bytes() > 0 && runtime_.now() < linger_until_) {
    runtime_.schedule_after(kLingerStep, lifetime_.guard([this] { end_linger(); }));
    return;
  }
  if (socket_) socket_->close();
  socket_.reset();
  if (auto stopped = std::exchange(stopped_, nullptr)) stopped();
}

}  // namespace kitsune2::iroh
