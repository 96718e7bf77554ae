// One node's end of the memory network.
#include "transport/memory/endpoint.hpp"

#include <algorithm>
#include <utility>

namespace kitsune2::memory {
namespace {

/// The progress of a message that is arriving is reported in steps of this many bytes, but at most sixteen times.
constexpr std::size_t kProgressStep = 64U << 10;

std::size_t progress_step(std::size_t size) { return std::max(kProgressStep, size / 16); }

Error unresponsive(const Url& peer, const std::string& why) {
  return make_error(Errc::peer_unresponsive, peer.to_string() + ": " + why);
}

}  // namespace

Endpoint::Endpoint(Runtime& runtime, std::shared_ptr<MemoryNetwork::Hub> hub, std::string name)
    : runtime_(runtime), hub_(std::move(hub)), name_(std::move(name)), own_(MemoryNetwork::url_of(name_)) {
  hub_->claim(name_);
}

Endpoint::~Endpoint() {
  if (online_) hub_->leave(own_);
  hub_->release(name_);
}

void Endpoint::start(TransportEvents& events) {
  events_ = &events;
  online_ = true;
  hub_->enter(own_, shared_from_this(), runtime_);
  runtime_.post(guarded([](Endpoint& self) {
    if (self.online_ && !self.stopped_) self.events_->new_listening_address(self.own_);
  }));
}

std::optional<Url> Endpoint::url() const { return online_ ? std::optional(own_) : std::nullopt; }

void Endpoint::fail(Handler<> done, Errc code, const std::string& message) {
  runtime_.post([done = std::move(done), error = make_error(code, message)] { done(error); });
}

Endpoint::Connection* Endpoint::find(const Url& peer, std::uint64_t connection) {
  const auto it = connections_.find(peer);
  return it != connections_.end() && it->second.id == connection ? &it->second : nullptr;
}

// ---------------------------------------------------------------- sending

void Endpoint::send(const Url& peer, Bytes message, Handler<> done) {
  if (stopped_) return fail(std::move(done), Errc::cancelled, "the transport is stopped");
  if (!online_) return fail(std::move(done), Errc::disconnected, "this node is offline");
  if (peer == own_) return fail(std::move(done), Errc::invalid_argument, "a node does not send to itself");
  if (message.size() > hub_->options_.max_message_bytes) {
    return fail(std::move(done), Errc::too_large, "a message of " + std::to_string(message.size()) + " bytes");
  }
  auto [it, fresh] = connections_.try_emplace(peer);
  auto& connection = it->second;
  if (connection.queued_bytes > 0 && connection.queued_bytes + message.size() > hub_->options_.max_queue_bytes) {
    return fail(std::move(done), Errc::overloaded, peer.to_string() + ": the send queue is full");
  }
  if (connection.open) return transmit(peer, connection, std::move(message), std::move(done));
  connection.queued_bytes += message.size();
  connection.waiting.push_back({std::move(message), std::move(done)});
  if (fresh) runtime_.post(guarded([peer](Endpoint& self) { self.open(peer); }));
}

void Endpoint::open(const Url& peer) {
  give_notices();
  auto* connection = find(peer, 0);
  if (connection == nullptr || stopped_) return;  // the peer was faster, or the connection was closed
  connection->stats.peer = peer;
  connection->stats.opened_at = runtime_.wall_now();
  connection->id = hub_->connection(own_, peer);
  const auto id = connection->id;
  auto preflight = events_->peer_connect(peer);
  connection = find(peer, id);
  if (connection == nullptr) return;
  if (!preflight) return close(peer, std::nullopt, preflight.error(), false);
  connection->announced = true;
  const auto link = hub_->link(own_, peer);
  if (link.fail_sends) return close_later(peer, id, link.fail_after, "could not be reached");
  put_on_wire(peer, *connection, Frame::Kind::preflight, std::move(*preflight), link.latency, {});
  connection->timer = runtime_.schedule_after(hub_->options_.connect_timeout, guarded([peer, id](Endpoint& self) {
                                                auto* late = self.find(peer, id);
                                                if (late == nullptr || late->open) return;
                                                late->timer = 0;
                                                self.close(peer, "connecting took too long",
                                                           unresponsive(peer, "connecting took too long"), true);
                                              }));
}

Fate Endpoint::put_on_wire(const Url& peer, Connection& connection, Frame::Kind kind, Bytes data, Duration delay,
                           Duration wire_time) {
  connection.stats.send_message_count += 1;
  connection.stats.send_bytes += data.size();
  const auto fate =
      hub_->transmit(own_, peer, Frame{kind, connection.id, std::move(data), {}, wire_time, delay + wire_time});
  if (fate == Fate::lost) close_later(peer, connection.id, hub_->options_.loss_timeout, "the connection was lost");
  if (fate == Fate::nobody) close_later(peer, connection.id, 2 * delay, "nobody is there");
  return fate;
}

void Endpoint::transmit(const Url& peer, Connection& connection, Bytes message, Handler<> done) {
  const auto link = hub_->link(own_, peer);
  const auto size = message.size();
  if (link.fail_sends) {
    connection.queued_bytes += size;
    connection.waiting.push_back({std::move(message), std::move(done)});
    return close_later(peer, connection.id, link.fail_after, "could not be reached");
  }
  Duration queueing{}, wire_time{};
  if (link.bytes_per_second != 0) {
    const auto now = runtime_.now();
    queueing = std::max(connection.busy_until, now) - now;
    wire_time = Duration(
        static_cast<std::int64_t>(static_cast<double>(size) * 1e6 / static_cast<double>(link.bytes_per_second)));
    connection.busy_until = now + queueing + wire_time;
    connection.queued_bytes += size;
    connection.sending.push_back({connection.busy_until, size, std::move(done)});
    if (connection.timer == 0) on_sent_some(peer, connection.id);
  } else {
    runtime_.post([done = std::move(done)] { done(Result<void>()); });
  }
  if (link.swallow) return;
  put_on_wire(peer, connection, Frame::Kind::message, std::move(message), link.latency + queueing, wire_time);
}

void Endpoint::on_sent_some(const Url& peer, std::uint64_t id) {
  auto* connection = find(peer, id);
  if (connection == nullptr) return;
  connection->timer = 0;
  while (!connection->sending.empty() && connection->sending.front().until <= runtime_.now()) {
    auto& front = connection->sending.front();
    connection->queued_bytes -= front.bytes;
    runtime_.post([done = std::move(front.done)] { done(Result<void>()); });
    connection->sending.pop_front();
  }
  if (connection->sending.empty()) return;
  connection->timer = runtime_.schedule(connection->sending.front().until,
                                        guarded([peer, id](Endpoint& self) { self.on_sent_some(peer, id); }));
}

// ---------------------------------------------------------------- closing

void Endpoint::close_later(const Url& peer, std::uint64_t id, Duration delay, const std::string& reason) {
  runtime_.schedule_after(delay, guarded([peer, id, reason](Endpoint& self) {
                            if (self.find(peer, id) != nullptr)
                              self.close(peer, reason, unresponsive(peer, reason), false);
                          }));
}

void Endpoint::close(const Url& peer, const std::optional<std::string>& reason, const Error& for_waiting,
                     bool tell_peer) {
  const auto it = connections_.find(peer);
  if (it == connections_.end()) return;
  auto connection = std::move(it->second);
  connections_.erase(it);
  runtime_.cancel(connection.timer);
  if (connection.id != 0) {
    hub_->end_connection(own_, peer, connection.id);
    if (tell_peer) {
      const auto now = runtime_.now();
      const auto delay = hub_->link(own_, peer).latency + (std::max(connection.busy_until, now) - now);
      hub_->transmit(own_, peer, Frame{Frame::Kind::close, connection.id, {}, reason.value_or("closed"), {}, delay});
    }
  }
  if (connection.announced) notices_.push_back({peer, reason});
  runtime_.post(guarded([](Endpoint& self) { self.give_notices(); }));
  for (auto& item : connection.waiting) {
    runtime_.post([done = std::move(item.done), for_waiting] { done(for_waiting); });
  }
  for (auto& item : connection.sending) {
    runtime_.post([done = std::move(item.done), for_waiting] { done(for_waiting); });
  }
}

void Endpoint::give_notices() {
  while (!notices_.empty()) {
    const auto notice = std::move(notices_.front());
    notices_.pop_front();
    events_->peer_disconnect(notice.peer, notice.reason);
  }
}

void Endpoint::disconnect(const Url& peer, const CloseReason& reason, Bytes farewell) {
  const auto it = connections_.find(peer);
  if (it == connections_.end()) return;
  auto& connection = it->second;
  if (connection.open && !farewell.empty()) {
    transmit(peer, connection, std::move(farewell), [](const Result<void>&) {});
  }
  close(peer, reason.text.empty() ? std::nullopt : std::optional(reason.text),
        unresponsive(peer, "disconnected by this side"), true);
}

void Endpoint::stop(std::function<void()> done) {
  if (!stopped_) {
    stopped_ = true;
    while (!connections_.empty()) {
      const Url peer = connections_.begin()->first;
      close(peer, "the transport is stopped", make_error(Errc::cancelled, "the transport is stopped"), true);
    }
    for (auto& [peer, inbox] : inboxes_) runtime_.cancel(inbox.timer);
    inboxes_.clear();
    if (online_) hub_->leave(own_);
    online_ = false;
  }
  runtime_.post(guarded([done = std::move(done)](Endpoint& self) {
    self.give_notices();
    done();
  }));
}

TransportStats Endpoint::stats() const {
  TransportStats out;
  out.backend = "memory";
  if (online_) out.peer_urls.push_back(own_);
  for (const auto& [peer, connection] : connections_) {
    if (!connection.open) continue;
    out.connections.push_back(connection.stats);
    out.connections.back().is_direct = true;
  }
  return out;
}

void Endpoint::on_lost(const Url& peer, std::uint64_t id) {
  if (find(peer, id) != nullptr) close_later(peer, id, hub_->options_.loss_timeout, "the connection was lost");
}

void Endpoint::on_cut(const Url& peer, std::uint64_t id) {
  if (find(peer, id) != nullptr) close(peer, "the connection was cut", unresponsive(peer, "cut"), false);
}

void Endpoint::change_url(const Url& next, Duration gap) {
  if (stopped_ || !online_) return;
  online_ = false;
  while (!connections_.empty()) {
    const Url peer = connections_.begin()->first;
    close(peer, "this node went offline", make_error(Errc::disconnected, "this node went offline"), false);
  }
  for (auto& [peer, inbox] : inboxes_) runtime_.cancel(inbox.timer);
  inboxes_.clear();
  hub_->leave(own_);
  own_ = next;
  give_notices();
  events_->listening_address_lost();
  runtime_.schedule_after(gap, guarded([](Endpoint& self) {
                            if (self.stopped_ || self.online_) return;
                            self.online_ = true;
                            self.hub_->enter(self.own_, self.shared_from_this(), self.runtime_);
                            self.events_->new_listening_address(self.own_);
                          }));
}

// ---------------------------------------------------------------- receiving

void Endpoint::on_frame(const Url& from, Frame frame) {
  if (stopped_ || !online_) return;
  const auto it = inboxes_.find(from);
  if (it == inboxes_.end() && frame.delay == Duration::zero()) return handle(from, frame);
  auto& inbox = it == inboxes_.end() ? inboxes_[from] : it->second;
  auto at = runtime_.now() + frame.delay;
  if (!inbox.arrivals.empty()) at = std::max(at, inbox.arrivals.back().at);
  inbox.arrivals.push_back({at - frame.wire_time, at, std::move(frame)});
  if (inbox.timer == 0) wait_for_inbox(from, inbox);
}

std::optional<Time> Endpoint::next_progress(const Arrival& head) {
  const auto size = head.frame.data.size();
  const auto reported = head.reported + progress_step(size);
  if (head.frame.wire_time <= Duration::zero() || reported >= size) return std::nullopt;
  const auto share = static_cast<double>(reported) / static_cast<double>(size);
  return head.begins + Duration(static_cast<std::int64_t>(static_cast<double>(head.frame.wire_time.count()) * share));
}

void Endpoint::wait_for_inbox(const Url& from, Inbox& inbox) {
  const auto& head = inbox.arrivals.front();
  const auto at = std::min(head.at, next_progress(head).value_or(head.at));
  inbox.timer = runtime_.schedule(at, guarded([from](Endpoint& self) { self.read_inbox(from); }));
}

void Endpoint::read_inbox(const Url& from) {
  for (;;) {
    const auto it = inboxes_.find(from);  // looked up each time, because the callbacks below may stop this object
    if (it == inboxes_.end()) return;
    auto& inbox = it->second;
    inbox.timer = 0;
    if (inbox.arrivals.empty()) {
      inboxes_.erase(it);
      return;
    }
    auto& head = inbox.arrivals.front();
    if (head.at <= runtime_.now()) {
      auto frame = std::move(head.frame);
      inbox.arrivals.pop_front();
      handle(from, frame);
      continue;
    }
    const auto progress = next_progress(head);
    const bool report = progress && *progress <= runtime_.now();
    const auto step = progress_step(head.frame.data.size());
    if (report) head.reported += step;
    const auto connection = head.frame.connection;
    wait_for_inbox(from, inbox);
    if (report && find(from, connection) != nullptr) events_->recv_progress(from, step);
    return;
  }
}

void Endpoint::handle(const Url& from, Frame& frame) {
  give_notices();
  if (stopped_ || !online_) return;
  if (!hub_->passes(from, own_, frame)) return;
  auto* connection = find(from, frame.connection);
  switch (frame.kind) {
    case Frame::Kind::preflight:
      hub_->count(from, own_, frame);
      return on_preflight(from, frame);
    case Frame::Kind::message: {
      if (connection == nullptr || !connection->open) {
        hub_->transmit(own_, from, Frame{Frame::Kind::reset, frame.connection, {}, "reset by the peer", {}, {}});
        return;
      }
      hub_->count(from, own_, frame);
      connection->stats.recv_message_count += 1;
      connection->stats.recv_bytes += frame.data.size();
      const auto id = connection->id;
      if (auto taken = events_->recv_data(from, std::move(frame.data)); !taken && find(from, id) != nullptr) {
        close(from, taken.error().to_string(), unresponsive(from, "closed by this side"), true);
      }
      return;
    }
    case Frame::Kind::close:
    case Frame::Kind::reset:
      if (connection != nullptr) close(from, frame.reason, unresponsive(from, frame.reason), false);
      return;
  }
}

void Endpoint::on_preflight(const Url& from, Frame& frame) {
  const auto it = connections_.find(from);
  if (it != connections_.end() && it->second.id > frame.connection)
    return;  // it belongs to a connection that has ended
  if (it != connections_.end() && it->second.id == frame.connection && it->second.open) return;
  if (it != connections_.end() && it->second.id != 0 && it->second.id < frame.connection) {
    close(from, "the peer opened a new connection", unresponsive(from, "replaced by a new connection"), false);
    give_notices();
  }
  accept(from, frame);
}

void Endpoint::accept(const Url& from, Frame& frame) {
  auto& connection = connections_[from];
  const auto id = frame.connection;
  const bool incoming = connection.id == 0;  // otherwise this side has sent its preflight
  if (incoming) {
    connection.id = id;
    connection.stats.peer = from;
    connection.stats.opened_at = runtime_.wall_now();
    auto preflight = events_->peer_connect(from);
    auto* now = find(from, id);
    if (now == nullptr) return;
    if (!preflight) return close(from, preflight.error().to_string(), preflight.error(), true);
    now->announced = true;
    const auto link = hub_->link(own_, from);
    if (link.fail_sends) {
      close_later(from, id, link.fail_after, "could not be reached");
    } else {
      put_on_wire(from, *now, Frame::Kind::preflight, std::move(*preflight), link.latency, {});
    }
  }
  auto* mine = find(from, id);
  mine->stats.recv_message_count += 1;
  mine->stats.recv_bytes += frame.data.size();
  auto taken = events_->recv_data(from, std::move(frame.data));
  mine = find(from, id);
  if (mine == nullptr) return;
  if (!taken) return close(from, taken.error().to_string(), taken.error(), true);
  mine->open = true;
  runtime_.cancel(std::exchange(mine->timer, 0));
  auto waiting = std::exchange(mine->waiting, {});
  mine->queued_bytes = 0;
  while (!waiting.empty()) {
    auto item = std::move(waiting.front());
    waiting.pop_front();
    transmit(from, *mine, std::move(item.message), std::move(item.done));
  }
}

}  // namespace kitsune2::memory
