// TCP in virtual time: connections, their ends, and the machines and links between them.
#include "sim/sim_net.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace kitsune2::sim {

using net::ByteBuffer;
using net::Conn;
using net::ConnEvents;
using net::IpAddress;

/// One end of a connection.
class SimConn final : public Conn, public std::enable_shared_from_this<SimConn> {
 public:
  SimConn(SimNet& net, SimNet::Host host, std::uint64_t id, std::shared_ptr<ConnEvents> events)
      : net_(net), host_(host), id_(id), runtime_(*net.hosts_[host].runtime), events_(std::move(events)) {}

  // --- Conn
  ByteBuffer& out() override { return out_; }
  void flush() override {
    if (state_ != State::open && state_ != State::closing) return;
    if (std::exchange(flush_posted_, true)) return;
    post([this] {
      flush_posted_ = false;
      write_some();
    });
  }
  std::size_t queued() const override { return out_.size(); }
  void pause() override { paused_ = true; }
  void resume() override {
    if (!std::exchange(paused_, false)) return;
    post([this] { read(); });
  }
  void close(Error why, Duration linger) override {
    if (state_ == State::closed || state_ == State::closing) return;
    if (state_ != State::open) return abort(std::move(why));
    state_ = State::closing;
    why_ = std::move(why);
    in_.clear();
    linger_ = runtime_.schedule_after(linger, lifetime_.guard([this] { finish(why_, true); }));
    flush();
  }
  void abort(Error why) override {
    if (state_ == State::closed) return;
    shut(true);
    const auto self = shared_from_this();
    runtime_.post([self, why = std::move(why)] { self->report_closed(why); });
  }
  const IpAddress& remote_ip() const override { return remote_ip_; }
  const std::string& remote() const override { return remote_; }
  std::optional<Time> stalled_since() const override { return stalled_since_; }

 private:
  friend class SimNet;
  enum class State { connecting, open, closing, closed };
  enum class Mark { none, end, reset };
  struct Piece {
    Time at;
    std::vector<std::uint8_t> bytes;
    Mark mark = Mark::none;
  };

  template <class F>
  void post(F f) {
    if (state_ == State::closed) return;  // its runtime may not exist any more
    runtime_.post([self = shared_from_this(), f = std::move(f)]() mutable {
      if (self->state_ != State::closed) f();
    });
  }

  void opened() {
    if (state_ != State::connecting) return;
    state_ = State::open;
    const auto keep = events_;
    keep->on_connected();
    if (state_ == State::open) read();
  }

  // ------------------------------------------------------------------ output

  void write_some() {
    if (state_ != State::open && state_ != State::closing) return;
    bool progress = false;
    while (!out_.empty() && under_way_ < net_.window_) {
      // Like TCP: no tiny segments for a little free room, or in the end only tiny ones would be under way.
      const std::size_t room = net_.window_ - under_way_;
      if (room < std::min({out_.size(), net_.window_ / 4, std::size_t{1'448}})) break;
      // Mostly large pieces, sometimes a few bytes, so that no frame arrives as it was sent.
      const std::size_t most = net_.random(4) == 0 ? 1 + net_.random(40) : 1 + net_.random(4'000);
      const std::size_t n = std::min({out_.size(), most, room});
      transmit({out_.data(), out_.data() + n}, Mark::none);
      out_.consume(n);
      under_way_ += n;
      progress = true;
    }
    if (out_.empty()) {
      stalled_since_.reset();
    } else if (!stalled_since_ || progress) {
      stalled_since_ = runtime_.now();
    }
    if (state_ == State::closing && out_.empty() && !std::exchange(end_sent_, true)) {
      transmit({}, Mark::end);
      if (end_seen_) return finish(why_, false);
    }
    if (progress && state_ == State::open) {
      const auto keep = events_;
      keep->on_sent(out_.size());
    }
  }

  void transmit(std::vector<std::uint8_t> bytes, Mark mark) {
    const auto other = peer_.lock();
    if (!other && mark == Mark::reset) return;
    Time at = net_.arrival(host_, remote_host_, bytes.size());
    if (!pieces_.empty()) at = std::max(at, pieces_.back().at);
    at = std::max(at, last_at_);
    last_at_ = at;
    pieces_.push_back({at, std::move(bytes), mark});
    if (pieces_.size() == 1) pump_at(at);
  }

  void pump_at(Time at) {
    net_.runtime_->schedule(at, [self = shared_from_this()] { self->pump(); });
  }

  /// Runs on the net's strand: what has arrived at the other side.
  void pump() {
    const Time now = net_.world_.now();
    while (!pieces_.empty() && pieces_.front().at <= now) {
      if (silent_) {
        pieces_.clear();
        return give_up_later();
      }
      if (deaf_) {
        swallow(pieces_.front().bytes.size());
        pieces_.pop_front();
        continue;
      }
      if (!net_.can_pass(host_, remote_host_)) {
        give_up_later();
        return pump_at(now + SimNet::kRetry);
      }
      const auto other = peer_.lock();
      const bool met = other && other->state_ != State::closed;
      if (!met && net_.hosts_[remote_host_].runtime == nullptr) {
        give_up_later();  // nobody answers
        return pump_at(now + SimNet::kRetry);
      }
      waits_since_.reset();
      Piece piece = std::move(pieces_.front());
      pieces_.pop_front();
      if (!met) {
        if (piece.mark == Mark::reset) continue;
        pieces_.clear();
        return reset_by_peer();
      }
      ++net_.counters_.pieces;
      net_.counters_.bytes += piece.bytes.size();
      other->arrived(std::move(piece));
    }
    if (!pieces_.empty()) pump_at(pieces_.front().at);
  }

  /// N7: the other side's system accepts it, its process does not.
  void swallow(std::size_t bytes) {
    waits_since_.reset();
    const Duration back = net_.hosts_[host_].link.latency + net_.hosts_[remote_host_].link.latency;
    net_.runtime_->schedule_after(back, [self = shared_from_this(), bytes] {
      if (self->state_ == State::closed) return;
      self->under_way_ -= std::min(bytes, self->under_way_);
      self->post([self = self.get()] { self->write_some(); });
    });
  }

  /// N3: the wait for what is queued here has an end.
  void give_up_later() {
    if (waits_since_) return;
    waits_since_ = net_.world_.now();
    net_.runtime_->schedule_after(SimNet::kGiveUp, [self = shared_from_this(), since = *waits_since_] {
      if (self->waits_since_ != since || self->state_ == State::closed) return;
      ++self->net_.counters_.given_up;
      self->runtime_.post([self] { self->finish(make_error(Errc::io, "no answer from the other side"), false); });
    });
  }

  void reset_by_peer() {
    if (state_ == State::closed) return;
    ++net_.counters_.resets;
    runtime_.post([self = shared_from_this()] {
      self->finish(self->state_ == State::closing ? self->why_ : make_error(Errc::disconnected, "reset"), false);
    });
  }

  // ------------------------------------------------------------------- input

  void arrived(Piece piece) {
    if (piece.mark == Mark::reset) return reset_by_peer();
    // The system's buffer belongs to this side; the strand reads it when it can.
    system_.insert(system_.end(), piece.bytes.begin(), piece.bytes.end());
    end_arrived_ |= piece.mark == Mark::end;
    if (state_ == State::connecting) return;  // `opened` reads
    if (std::exchange(read_posted_, true)) return;
    post([this] {
      read_posted_ = false;
      read();
    });
  }

  void read() {
    if (state_ == State::closing) {
      took(system_.size());
      system_.clear();
      if (!end_arrived_) return;
      end_seen_ = true;
      if (end_sent_) finish(why_, false);
      return;
    }
    while (state_ == State::open && !paused_ && !(system_.empty() && in_.empty())) {
      const std::size_t fresh = system_.size();
      in_.insert(in_.end(), system_.begin(), system_.end());
      system_.clear();
      took(fresh);
      const std::shared_ptr<std::uint8_t[]> owner(new std::uint8_t[in_.size()]);
      std::memcpy(owner.get(), in_.data(), in_.size());
      const std::size_t size = in_.size();
      in_.clear();
      const auto keep = events_;
      const std::size_t used = keep->on_data({owner.get(), size, owner});
      K2_ASSERT(used <= size);
      if (state_ != State::open) return;
      in_.assign(owner.get() + used, owner.get() + size);
      if (used == 0) break;
    }
    if (state_ != State::open || paused_ || !end_arrived_ || end_seen_) return;
    end_seen_ = true;
    const auto why = make_error(Errc::disconnected, "closed by the other side");
    if (!out_.empty()) return close(why, std::chrono::seconds(2));
    finish(why, true);
  }

  /// Room for the other side.
  void took(std::size_t bytes) {
    if (bytes == 0) return;
    const auto other = peer_.lock();
    if (!other) return;
    const Duration back = net_.hosts_[host_].link.latency + net_.hosts_[remote_host_].link.latency;
    net_.runtime_->schedule_after(back, [other, bytes] {
      if (other->silent_ || other->state_ == State::closed) return;
      other->under_way_ -= std::min(bytes, other->under_way_);
      other->post([self = other.get()] { self->write_some(); });
    });
  }

  // ----------------------------------------------------------------- the end

  /// `tell`: the other side learns of it (it has not closed by itself).
  void shut(bool tell) {
    state_ = State::closed;
    runtime_.cancel(std::exchange(linger_, 0));
    if (tell) {
      pieces_.clear();
      transmit({}, Mark::reset);
    }
    out_.release();
    in_.clear();
    system_.clear();
    stalled_since_.reset();
    net_.conns_.erase(id_);
  }

  void finish(Error why, bool tell) {
    if (state_ == State::closed) return;
    const auto self = shared_from_this();
    shut(tell && !silent_);
    report_closed(why);
  }

  void report_closed(const Error& why) {
    if (const auto events = std::exchange(events_, nullptr)) events->on_closed(why);
  }

  SimNet& net_;
  const SimNet::Host host_;
  SimNet::Host remote_host_ = 0;
  const std::uint64_t id_;
  testing::SimRuntime& runtime_;
  std::shared_ptr<ConnEvents> events_;
  std::weak_ptr<SimConn> peer_;
  IpAddress remote_ip_;
  std::string remote_;
  State state_ = State::connecting;
  Error why_;

  ByteBuffer out_;
  bool flush_posted_ = false, end_sent_ = false, silent_ = false, deaf_ = false;
  std::size_t under_way_ = 0;
  std::deque<Piece> pieces_;  ///< under way from here
  Time last_at_{};
  std::optional<Time> waits_since_, stalled_since_;

  std::vector<std::uint8_t> system_, in_;
  bool paused_ = false, read_posted_ = false, end_arrived_ = false, end_seen_ = false;
  Runtime::TimerId linger_ = 0;
  Lifetime lifetime_;
};

// ------------------------------------------------------------------- SimNet

SimNet::SimNet(testing::SimWorld& world) : world_(world), runtime_(world.make_runtime()) {}

SimNet::~SimNet() {
  runtime_->crash();
  for (auto& [id, conn] : std::exchange(conns_, {})) {
    conn->state_ = SimConn::State::closed;
    conn->events_.reset();
  }
}

SimNet::Host SimNet::add_host(const std::string& name) {
  const auto host = static_cast<Host>(hosts_.size());
  auto& machine = hosts_.emplace_back();
  machine.name = name;
  machine.ip = IpAddress::parse("10.0.0." + std::to_string(1 + host)).value();
  return host;
}

void SimNet::up(Host host, testing::SimRuntime& runtime) { hosts_[host].runtime = &runtime; }

std::vector<std::shared_ptr<SimConn>> SimNet::conns_of(Host host) const {
  std::vector<std::shared_ptr<SimConn>> out;
  for (const auto& [id, conn] : conns_) {
    if (conn->host_ == host) out.push_back(conn);
  }
  return out;
}

void SimNet::down(Host host, bool reset) {
  for (const auto& conn : conns_of(host)) {
    // The process is gone, but its machine may send what it had accepted from it; then it resets.
    conn->state_ = SimConn::State::closed;
    conns_.erase(conn->id_);
    if (reset) {
      if (!conn->pieces_.empty()) conn->pieces_.resize(1 + random(conn->pieces_.size()));
      conn->transmit({}, SimConn::Mark::reset);
    } else {
      conn->pieces_.clear();
    }
    const auto events = std::exchange(conn->events_, nullptr);  // without a call
  }
  hosts_[host].runtime = nullptr;
  hosts_[host].accept = nullptr;
}

void SimNet::listen(Host host, Accept accept) { hosts_[host].accept = std::move(accept); }

Time SimNet::arrival(Host from, Host to, std::size_t size) {
  // A link without a limit has no queue: late data of a slow machine delays nobody else there.
  const auto pass = [size](const Link& link, Time& free, Time at) {
    if (link.bytes_per_second == 0) return at;
    free = std::max(free, at) + Duration(static_cast<std::int64_t>((size + 40) * 1'000'000 / link.bytes_per_second));
    return free;
  };
  auto& a = hosts_[from];
  auto& b = hosts_[to];
  const Time gone = pass(a.link, a.up_free, world_.now());
  return pass(b.link, b.down_free, gone) + a.link.latency + b.link.latency;
}

net::Dial SimNet::dial(Host host) {
  return [this, host](net::ConnectTarget target, Duration timeout, std::shared_ptr<ConnEvents> events) {
    auto conn = std::make_shared<SimConn>(*this, host, next_conn_++, std::move(events));
    conns_.emplace(conn->id_, conn);
    connect(conn, target.host, timeout);
    return std::static_pointer_cast<Conn>(conn);
  };
}

void SimNet::connect(const std::shared_ptr<SimConn>& conn, const std::string& to, Duration timeout) {
  conn->remote_ = to + ":1";
  const auto host = conn->host_;
  const auto it = std::find_if(hosts_.begin(), hosts_.end(), [&](const auto& m) { return m.name == to; });
  const auto fail_after = [conn](Duration after, Error why) {
    conn->runtime_.schedule_after(after, [conn, why = std::move(why)] {
      if (conn->state_ == SimConn::State::connecting) conn->finish(why, false);
    });
  };
  fail_after(std::min(timeout, net::kTcpConnectLimit), make_error(Errc::timed_out, "connect " + to + ": no answer"));
  if (it == hosts_.end()) return fail_after({}, make_error(Errc::peer_unresponsive, "resolve " + to));
  const auto remote = static_cast<Host>(it - hosts_.begin());
  conn->remote_host_ = remote;
  conn->remote_ip_ = hosts_[remote].ip;
  for (const auto after : {0, 1, 3, 7}) {
    runtime_->schedule_after(std::chrono::seconds(after), [this, conn, host, remote] {
      if (conn->state_ != SimConn::State::connecting || conn->peer_.lock()) return;
      runtime_->schedule(arrival(host, remote, 0), [this, conn, host, remote] { knock(conn, host, remote); });
    });
  }
}

/// A request to connect has arrived.
void SimNet::knock(const std::shared_ptr<SimConn>& conn, Host host, Host remote) {
  if (conn->state_ != SimConn::State::connecting || conn->peer_.lock() || !can_pass(host, remote)) return;
  auto& there = hosts_[remote];
  if (there.runtime == nullptr) return;
  const Duration back = hosts_[host].link.latency + there.link.latency;
  if (!there.accept) {
    conn->runtime_.schedule_after(back, [conn] {
      if (conn->state_ != SimConn::State::connecting) return;
      conn->finish(make_error(Errc::peer_unresponsive, "connect: refused"), false);
    });
    return;
  }
  const auto answer = std::make_shared<SimConn>(*this, remote, next_conn_++, nullptr);
  answer->remote_host_ = host;
  answer->remote_ip_ = hosts_[host].ip;
  answer->remote_ = hosts_[host].name + ":2";
  answer->peer_ = conn;
  conn->peer_ = answer;
  conns_.emplace(answer->id_, answer);
  ++counters_.connections;
  there.runtime->post([this, remote, answer] {
    if (answer->state_ != SimConn::State::connecting || !hosts_[remote].accept) return;
    answer->events_ = hosts_[remote].accept(answer);
    if (!answer->events_) return answer->shut(true);
    answer->opened();
  });
  runtime_->schedule_after(back, [conn] { conn->post([self = conn.get()] { self->opened(); }); });
}

void SimNet::cut(Host host) {
  for (const auto& conn : conns_of(host)) {
    const auto other = conn->peer_.lock();
    if (!other) continue;
    for (const auto& end : {conn, other}) {
      // Some pieces still arrive, and a part of another one.
      if (!end->pieces_.empty()) {
        end->pieces_.resize(1 + random(end->pieces_.size()));
        auto& last = end->pieces_.back();
        if (!last.bytes.empty()) {
          last.bytes.resize(random(last.bytes.size()));
          ++counters_.cut_in_flight;
        }
        last.mark = SimConn::Mark::none;
      }
      end->transmit({}, SimConn::Mark::reset);
    }
  }
}

void SimNet::deafen(Host host) {
  for (const auto& conn : conns_of(host)) {
    ++counters_.deafened;
    conn->deaf_ = true;
    if (const auto other = conn->peer_.lock()) other->deaf_ = true;
  }
}

void SimNet::silence(Host host) {
  for (const auto& conn : conns_of(host)) {
    ++counters_.silenced;
    conn->silent_ = true;
    if (const auto other = conn->peer_.lock()) other->silent_ = true;
  }
}

}  // namespace kitsune2::sim
