// TCP and TLS connections over Asio, and the listener.
#include "net/conn.hpp"

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <charconv>
#include <utility>
#include <vector>

#include "log/log.hpp"
#include "net/asio_runtime_impl.hpp"
#include "net/leftover.hpp"

namespace kitsune2::net {

namespace asio = boost::asio;
using boost::system::error_code;
using tcp = asio::ip::tcp;

namespace {

constexpr std::size_t kSmallAppetite = 16U << 10;
constexpr std::size_t kCipherTarget = 256U << 10;  // encrypt this much ahead of the socket
constexpr std::size_t kMostDiscarded = 64U << 10;  // of an accepted connection that is closing

IpAddress from_asio(const asio::ip::address& address) {
  IpAddress out;
  out.bytes = address.is_v4() ? asio::ip::make_address_v6(asio::ip::v4_mapped, address.to_v4()).to_bytes()
                              : address.to_v6().to_bytes();
  return out;
}

std::string endpoint_text(const tcp::endpoint& endpoint) {
  const std::string port = std::to_string(endpoint.port());
  const auto& address = endpoint.address();
  return address.is_v6() ? "[" + address.to_string() + "]:" + port : address.to_string() + ":" + port;
}

std::string join_host_port(const std::string& host, std::uint16_t port) {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

/// Asio's texts are good, except the one for the end of a stream.
std::string reason(const error_code& ec) {
  if (ec == asio::error::eof) return "closed by the other side";
  return ec.message();
}

class ConnImpl final : public Conn, public LoopItem, public std::enable_shared_from_this<ConnImpl> {
 public:
  ConnImpl(AsioRuntime& runtime, std::shared_ptr<ConnEvents> events)
      : runtime_(runtime), im_(runtime.impl()), socket_(im_.io), resolver_(im_.io), events_(std::move(events)) {
    im_.open.insert(this);
  }

  ConnImpl(AsioRuntime& runtime, tcp::socket socket, const tcp::endpoint& from)
      : runtime_(runtime), im_(runtime.impl()), socket_(std::move(socket)), resolver_(im_.io) {
    im_.open.insert(this);
    ip_ = from_asio(from.address());
    remote_ = endpoint_text(from);
    may_discard_ = kMostDiscarded;
    appetite_ = kSmallAppetite;  // it may be a client that never gets any further
  }
  ~ConnImpl() override { im_.open.erase(this); }

  // --- Conn
  ByteBuffer& out() override { return out_; }

  void flush() override {
    if (flush_queued_ || state_ == State::closed || state_ == State::connecting) return;
    flush_queued_ = true;
    im_.flush_later(shared_from_this());
  }

  void send_now() override {
    if (can_write_now()) write();
    flush();
  }

  void send_now(ByteView bytes) override {
    if (!tls_ && can_write_now()) bytes = write_with(bytes);
    out_.append(bytes);
    send_now();
  }

  std::size_t queued() const override { return out_.size() + (tls_ ? tls_->output().size() : 0); }

  bool export_key(std::string_view label, ByteView context, std::span<std::uint8_t> out) const override {
    return tls_ != nullptr && tls_->export_key(label, context, out);
  }

  void pause() override { paused_ = true; }

  void resume() override {
    if (!paused_) return;
    paused_ = false;
    if (resume_queued_ || state_ != State::open) return;
    resume_queued_ = true;
    asio::post(im_.io, [self = shared_from_this()] {
      self->resume_queued_ = false;
      if (self->state_ == State::open && !self->paused_) self->work_off_input();
    });
  }

  void close(Error why, Duration linger) override {
    if (state_ == State::closed || state_ == State::closing) return;
    if (state_ != State::open) return abort(std::move(why));
    state_ = State::closing;
    why_ = std::move(why);
    leftover_.clear();
    linger_timer_ = runtime_.schedule_after(linger, [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->finish(self->why_);
    });
    flush();
    wait_readable();  // to notice when the other side closes
  }

  void abort(Error why) override {
    if (state_ == State::closed) return;
    shut();
    asio::post(im_.io, [self = shared_from_this(), why = std::move(why)] { self->report_closed(why); });
  }

  const IpAddress& remote_ip() const override { return ip_; }
  const std::string& remote() const override { return remote_; }
  std::optional<Time> stalled_since() const override { return stalled_since_; }

  // --- LoopItem
  void flush_now() override {
    flush_queued_ = false;
    if (state_ == State::closed) return;
    write_waiting_ ? report_written() : do_write();
  }

  void drop() override {
    const auto self = shared_from_this();
    if (state_ != State::closed) shut();
    events_.reset();
  }

  // --- for connect() and the listener
  void start_connect(ConnectTarget target, Duration timeout) {
    remote_ = join_host_port(target.host, target.port);
    target_ = std::move(target);
    linger_timer_ = runtime_.schedule_after(timeout, [weak = weak_from_this(), timeout] {
      auto self = weak.lock();
      if (!self || self->state_ == State::closed) return;
      const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(timeout).count();
      self->finish(make_error(Errc::timed_out, (self->state_ == State::connecting ? "connect " : "TLS with ") +
                                                   self->remote_ + ": no answer in " + std::to_string(ms) + " ms"));
    });
    error_code not_ip;
    const auto address = asio::ip::make_address(target_.host, not_ip);
    if (!not_ip) {
      endpoints_ = {tcp::endpoint(address, target_.port)};
      asio::post(im_.io, [self = shared_from_this()] { self->try_next({}); });
      return;
    }
    resolver_.async_resolve(
        target_.host, std::to_string(target_.port),
        [self = shared_from_this()](const error_code& ec, const tcp::resolver::results_type& found) {
          if (self->state_ == State::closed) return;
          if (ec) {
            return self->finish(
                make_error(Errc::peer_unresponsive, "resolve " + self->target_.host + ": " + ec.message()));
          }
          for (const auto& entry : found) self->endpoints_.push_back(entry.endpoint());
          self->try_next({});
        });
  }

  void start_accepted(std::shared_ptr<ConnEvents> events, std::shared_ptr<TlsContext> tls) {
    events_ = std::move(events);
    if (tls) tls_ = std::make_unique<TlsEngine>(std::move(tls));
    asio::post(im_.io, [self = shared_from_this()] {
      if (self->state_ == State::connecting) self->established_tcp();
    });
  }

 private:
  enum class State { connecting, handshake, open, closing, closed };

  void try_next(const error_code& last) {
    if (state_ == State::closed) return;
    if (next_endpoint_ == endpoints_.size()) {
      next_endpoint_ += 1;  // pending work of the previous address has no effect any more
      return finish(make_error(Errc::peer_unresponsive,
                               "connect " + remote_ + ": " + (last ? last.message() : std::string("no address"))));
    }
    const tcp::endpoint to = endpoints_[next_endpoint_++];
    error_code ignored;
    socket_.close(ignored);
    runtime_.cancel(attempt_timer_);
    attempt_timer_ = runtime_.schedule_after(kTcpConnectLimit, [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->try_next(asio::error::timed_out);
    });
    socket_.async_connect(to, [self = shared_from_this(), to, attempt = next_endpoint_](const error_code& ec) {
      if (self->state_ == State::closed || attempt != self->next_endpoint_) return;
      self->runtime_.cancel(std::exchange(self->attempt_timer_, 0));
      if (ec) return self->try_next(ec);
      self->ip_ = from_asio(to.address());
      if (self->target_.tls) {
        self->tls_ = std::make_unique<TlsEngine>(self->target_.tls, self->target_.host, self->remote_);
      }
      self->established_tcp();
    });
  }

  void established_tcp() {
    error_code ec;
    socket_.set_option(tcp::no_delay(true), ec);
    socket_.non_blocking(true, ec);
    if (ec) return finish(make_error(Errc::io, remote_ + ": " + ec.message()));
    if (!tls_) return opened();
    state_ = State::handshake;
    go_on_with_handshake();
    wait_readable();
  }

  void opened() {
    state_ = State::open;
    runtime_.cancel(std::exchange(linger_timer_, 0));
    endpoints_.clear();
    const auto keep = events_;
    keep->on_connected();
    if (state_ == State::open && !paused_) work_off_input();
  }

  void go_on_with_handshake() {
    const auto result = tls_->handshake();
    do_write();  // also the alert after a failure
    if (state_ != State::handshake) return;
    if (!result) return finish(result.error());
    if (tls_->is_established()) opened();
  }

  // --- input
  /// What has arrived already is to be handled before more is read: its end would come before it.
  bool holds_input() const { return paused_ || resume_queued_; }

  void wait_readable() {
    if (reading_ || eof_ || state_ == State::closed || (holds_input() && state_ == State::open)) return;
    if (state_ == State::closing && may_discard_ == 0) return;
    reading_ = true;
    socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](const error_code& ec) {
      self->reading_ = false;
      if (self->state_ == State::closed) return;
      if (ec) return self->finish(make_error(Errc::io, ec.message()));
      self->on_readable();
      self->wait_readable();
    });
  }

  void on_readable() {
    if (state_ == State::closing) return discard_input();
    if (state_ == State::open && holds_input()) return;
    if (tls_) {
      const auto scratch = im_.cipher_scratch();
      const std::size_t n = receive(scratch.get(), AsioRuntime::Impl::kScratchBytes);
      if (n == 0) return;
      tls_->feed({scratch.get(), n});
      if (state_ == State::handshake) return go_on_with_handshake();
      return decrypt_and_deliver();
    }
    const auto scratch = im_.plain_scratch();
    const std::size_t kept = leftover_.size();
    const std::size_t n = receive(scratch.get() + kept, std::min(appetite_, AsioRuntime::Impl::kScratchBytes - kept));
    if (n == 0) return;
    leftover_.copy_to(scratch.get());
    deliver(scratch, kept + n);
  }

  /// Returns 0 if there is nothing now, or the connection has ended.
  std::size_t receive(std::uint8_t* into, std::size_t size) {
    error_code ec;
    const std::size_t n = socket_.read_some(asio::buffer(into, size), ec);
    if (!ec) return n;
    if (ec == asio::error::would_block || ec == asio::error::try_again || ec == asio::error::interrupted) return 0;
    input_ended(lost(ec), ec == asio::error::eof);
    return 0;
  }

  Error lost(const error_code& ec) const {
    if (state_ == State::open) return make_error(Errc::disconnected, reason(ec));
    const std::string hint = target_.tls ? "; does the server speak TLS there?" : "";
    return make_error(Errc::peer_unresponsive, "TLS with " + remote_ + ": " + reason(ec) + hint);
  }

  void input_ended(Error why, bool orderly) {
    eof_ = true;
    if (orderly && state_ == State::open && queued() > 0) return close(std::move(why), std::chrono::seconds(2));
    finish(why);
  }

  /// Handles what has arrived already, then waits for more.
  void work_off_input() {
    if (!leftover_.empty()) {
      const auto scratch = im_.plain_scratch();
      const std::size_t kept = leftover_.size();
      leftover_.copy_to(scratch.get());
      deliver(scratch, kept);
    }
    if (tls_ && state_ == State::open && !paused_) decrypt_and_deliver();
    wait_readable();
  }

  void decrypt_and_deliver() {
    while (state_ == State::open && !holds_input()) {
      const auto scratch = im_.plain_scratch();
      const std::size_t kept = leftover_.size();
      std::size_t have = kept;
      std::optional<Error> ended;
      while (have < AsioRuntime::Impl::kScratchBytes) {
        const auto n = tls_->read(scratch.get() + have, AsioRuntime::Impl::kScratchBytes - have);
        if (!n) {
          ended = n.error();
          break;
        }
        if (*n == 0) break;
        have += *n;
      }
      if (have > kept) {
        leftover_.copy_to(scratch.get());
        deliver(scratch, have);
      }
      if (ended && state_ == State::open && !holds_input())
        return input_ended(*ended, ended->message == "closed by the other side");
      if (have < AsioRuntime::Impl::kScratchBytes) return;
    }
  }

  void deliver(const AsioRuntime::Impl::Scratch& scratch, std::size_t size) {
    leftover_.clear();
    const auto keep = events_;
    const std::size_t used = keep->on_data({scratch.get(), size, scratch});
    if (state_ != State::open) return;
    leftover_.keep(scratch.get(), used, size);
    turn_used_ += used;
    if (holds_input()) {
      const std::size_t kept = std::min(leftover_.size(), turn_used_);
      appetite_ = std::clamp(turn_used_ - kept, kSmallAppetite, AsioRuntime::Impl::kScratchBytes);
      turn_used_ = 0;
    } else {
      appetite_ = std::min(2 * appetite_, AsioRuntime::Impl::kScratchBytes);
    }
    if (leftover_.size() < AsioRuntime::Impl::kScratchBytes || paused_) return;
    finish(make_error(Errc::too_large, "more input than fits the read buffer"));
  }

  void discard_input() {
    const auto scratch = im_.cipher_scratch();
    error_code ec;
    const std::size_t most = std::min(may_discard_, AsioRuntime::Impl::kScratchBytes);
    may_discard_ -= socket_.read_some(asio::buffer(scratch.get(), most), ec);
    if (!ec || ec == asio::error::would_block || ec == asio::error::try_again) return;
    eof_ = true;
    if (ec != asio::error::eof || queued() == 0) finish(why_);
  }

  // --- output
  void do_write() {
    if (!write_failure_) write();
    report_written();
  }

  bool can_write_now() const { return state_ == State::open && !write_waiting_ && !write_failure_; }

  /// Passes on what is queued, then `bytes`, as far as the socket takes them in one call. Returns the rest of `bytes`.
  /// A failure is left to `write`, which meets it again.
  ByteView write_with(ByteView bytes) {
    const std::array parts = {asio::buffer(out_.data(), out_.size()), asio::buffer(bytes.data(), bytes.size())};
    error_code ec;
    const std::size_t n = socket_.write_some(parts, ec);
    if (ec || n == 0) return bytes;
    const std::size_t queued_before = std::min(n, out_.size());
    out_.consume(queued_before);
    written_ = true;
    return bytes.subspan(n - queued_before);
  }

  /// Passes on what the socket takes, and calls nobody.
  void write() {
    bool progress = false;
    while (true) {
      if (tls_ && tls_->is_established()) {
        while (!out_.empty() && tls_->output().size() < kCipherTarget) {
          const std::size_t n = std::min<std::size_t>(out_.size(), 64U << 10);
          const auto result = tls_->write({out_.data(), n});
          if (!result) {
            write_failure_ = result.error();
            return;
          }
          out_.consume(n);
        }
      }
      ByteBuffer& source = tls_ ? tls_->output() : out_;
      if (source.empty()) break;
      error_code ec;
      const std::size_t n = socket_.write_some(asio::buffer(source.data(), source.size()), ec);
      if (ec == asio::error::would_block || ec == asio::error::try_again) {
        if (!stalled_since_ || progress) stalled_since_ = im_.now();
        wait_writable();
        break;
      }
      if (ec == asio::error::interrupted) continue;
      if (ec) {
        write_failure_ = lost(ec);
        return;
      }
      source.consume(n);
      progress = written_ = true;
    }
    if (queued() == 0) stalled_since_.reset();
  }

  void report_written() {
    if (write_failure_) return finish(state_ == State::closing ? why_ : *write_failure_);
    if (state_ == State::closing && queued() == 0) return shutdown_send();
    if (std::exchange(written_, false) && state_ == State::open) {
      const auto keep = events_;
      keep->on_sent(queued());
    }
  }

  void wait_writable() {
    write_waiting_ = true;
    socket_.async_wait(tcp::socket::wait_write, [self = shared_from_this()](const error_code& ec) {
      self->write_waiting_ = false;
      if (self->state_ == State::closed) return;
      if (ec) return self->finish(make_error(Errc::io, ec.message()));
      self->do_write();
    });
  }

  void shutdown_send() {
    if (std::exchange(send_shut_, true)) return;
    if (tls_) {
      tls_->close();
      do_write();  // a few bytes; if the socket is full now, closing it says the same
      if (state_ != State::closing) return;
    }
    error_code ec;
    socket_.shutdown(tcp::socket::shutdown_send, ec);
    if (eof_ || ec) return finish(why_);
  }

  // --- the end
  void shut() {
    state_ = State::closed;
    runtime_.cancel(std::exchange(linger_timer_, 0));
    runtime_.cancel(std::exchange(attempt_timer_, 0));
    resolver_.cancel();
    error_code ignored;
    socket_.close(ignored);
    out_.release();
    leftover_.release();
    stalled_since_.reset();
  }

  /// Takes a copy, because `why` may be why_, or part of what is destroyed here.
  void finish(Error why) {
    if (state_ == State::closed) return;
    const auto self = shared_from_this();
    shut();
    report_closed(why);
  }

  void report_closed(const Error& why) {
    if (const auto events = std::exchange(events_, nullptr)) events->on_closed(why);
  }

  AsioRuntime& runtime_;
  AsioRuntime::Impl& im_;
  tcp::socket socket_;
  tcp::resolver resolver_;
  std::shared_ptr<ConnEvents> events_;
  std::unique_ptr<TlsEngine> tls_;
  ConnectTarget target_;
  std::vector<tcp::endpoint> endpoints_;
  std::size_t next_endpoint_ = 0;
  IpAddress ip_;
  std::string remote_;
  Error why_;
  State state_ = State::connecting;
  bool paused_ = false;
  bool reading_ = false;
  bool resume_queued_ = false;
  bool flush_queued_ = false;
  bool write_waiting_ = false;
  bool written_ = false;                // the owner does not know yet that something was
  std::optional<Error> write_failure_;  // the same of a failure
  bool eof_ = false;
  bool send_shut_ = false;
  ByteBuffer out_;
  Leftover leftover_;
  /// What is read at once: from one whose owner takes little at a time about as much as it took, since the rest is
  /// copied each time.
  std::size_t appetite_ = AsioRuntime::Impl::kScratchBytes;
  std::size_t may_discard_ = SIZE_MAX;  // while it is closing
  std::size_t turn_used_ = 0;           // of the input since it was paused last
  std::optional<Time> stalled_since_;
  Runtime::TimerId linger_timer_ = 0;   // connecting: the time limit; closing: the linger
  Runtime::TimerId attempt_timer_ = 0;  // connecting: the limit of one address
};

class ListenerImpl final : public Listener, public std::enable_shared_from_this<ListenerImpl> {
 public:
  ListenerImpl(AsioRuntime& runtime, tcp::acceptor acceptor, std::shared_ptr<TlsContext> tls, Accept accept,
               std::string address)
      : runtime_(runtime),
        acceptor_(std::move(acceptor)),
        tls_(std::move(tls)),
        accept_(std::move(accept)),
        address_(std::move(address)) {}

  const std::string& address() const override { return address_; }
  void set_tls(std::shared_ptr<TlsContext> tls) override { tls_ = std::move(tls); }

  void start() override {
    acceptor_.async_accept([self = shared_from_this()](const error_code& ec, tcp::socket socket) {
      if (self->stopped_) return;
      if (ec) {
        self->refused(ec);
      } else {
        self->accepted(std::move(socket));
        if (!self->stopped_) self->start();
      }
    });
  }

  void stop() override {
    if (std::exchange(stopped_, true)) return;
    error_code ignored;
    acceptor_.close(ignored);
    runtime_.cancel(std::exchange(retry_, 0));
    accept_ = nullptr;
  }

 private:
  void accepted(tcp::socket socket) {
    error_code ec;
    const auto from = socket.remote_endpoint(ec);
    if (ec) return;  // it has closed already
    auto conn = std::make_shared<ConnImpl>(runtime_, std::move(socket), from);
    if (auto events = accept_(conn)) {
      conn->start_accepted(std::move(events), tls_);
    }
  }

  void refused(const error_code& ec) {
    const bool exhausted = ec == asio::error::no_descriptors ||
                           ec == boost::system::errc::too_many_files_open_in_system ||
                           ec == boost::system::errc::no_buffer_space || ec == boost::system::errc::not_enough_memory;
    if (!exhausted) return start();  // a connection was closed meanwhile
    const Time now = runtime_.now();
    if (now >= quiet_until_) {
      log::warn("net", "listen " + address_ + ": cannot accept (" + ec.message() + "); trying again every 100 ms");
      quiet_until_ = now + std::chrono::seconds(60);
    }
    retry_ = runtime_.schedule_after(std::chrono::milliseconds(100), [weak = weak_from_this()] {
      if (auto self = weak.lock(); self && !self->stopped_) self->start();
    });
  }

  AsioRuntime& runtime_;
  tcp::acceptor acceptor_;
  std::shared_ptr<TlsContext> tls_;
  Accept accept_;
  std::string address_;
  bool stopped_ = false;
  Time quiet_until_ = Time::min();
  Runtime::TimerId retry_ = 0;
};

}  // namespace

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  error_code ec;
  const auto address = asio::ip::make_address(std::string(text), ec);
  if (ec) return std::nullopt;
  return from_asio(address);
}

bool IpAddress::is_v4() const { return asio::ip::address_v6(bytes).is_v4_mapped(); }

std::string IpAddress::to_string() const {
  const asio::ip::address_v6 v6(bytes);
  if (v6.is_v4_mapped()) return asio::ip::make_address_v4(asio::ip::v4_mapped, v6).to_string();
  return v6.to_string();
}

IpAddress IpAddress::limit_key() const {
  IpAddress out = *this;
  if (!is_v4()) std::fill(out.bytes.begin() + 8, out.bytes.end(), std::uint8_t{0});
  return out == IpAddress{} ? *this : out;
}

std::shared_ptr<Conn> connect(AsioRuntime& runtime, ConnectTarget target, Duration timeout,
                              std::shared_ptr<ConnEvents> events) {
  auto conn = std::make_shared<ConnImpl>(runtime, std::move(events));
  conn->start_connect(std::move(target), timeout);
  return conn;
}

Result<std::pair<std::string, std::uint16_t>> split_host_port(std::string_view text) {
  const auto bad = [&] {
    return make_error(Errc::invalid_argument,
                      "\"" + std::string(text.substr(0, 200)) + "\" is not host:port (or [IPv6 address]:port)");
  };
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return bad();
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (host.front() == '[') {
    if (host.size() < 3 || host.back() != ']') return bad();
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad();
  }
  unsigned value = 0;
  const auto [end, ec] = std::from_chars(port.data(), port.data() + port.size(), value);
  if (ec != std::errc() || end != port.data() + port.size() || value > 65535) return bad();
  return std::pair{std::string(host), static_cast<std::uint16_t>(value)};
}

Result<std::shared_ptr<Listener>> Listener::listen(AsioRuntime& runtime, const std::string& address,
                                                   std::shared_ptr<TlsContext> tls, Accept accept) {
  const auto parts = split_host_port(address);
  if (!parts) return parts.error().context("listen");
  auto& io = runtime.impl().io;
  const auto failed = [&](const error_code& ec) {
    const bool taken = ec == asio::error::address_in_use;
    return make_error(taken ? Errc::already_exists : Errc::io, "listen " + address + ": " + ec.message());
  };
  error_code ec;
  tcp::endpoint endpoint;
  const auto ip = asio::ip::make_address(parts->first, ec);
  if (!ec) {
    endpoint = tcp::endpoint(ip, parts->second);
  } else {
    tcp::resolver resolver(io);
    ec = {};
    const auto found = resolver.resolve(parts->first, std::to_string(parts->second), tcp::resolver::passive, ec);
    if (ec || found.empty()) return failed(ec ? ec : error_code(asio::error::host_not_found));
    endpoint = found.begin()->endpoint();
  }
  tcp::acceptor acceptor(io);
  acceptor.open(endpoint.protocol(), ec);
  if (!ec) acceptor.set_option(asio::socket_base::reuse_address(true), ec);
  if (!ec) acceptor.bind(endpoint, ec);
  if (!ec) acceptor.listen(4096, ec);
  if (!ec) acceptor.non_blocking(true, ec);
  if (ec) return failed(ec);
  const auto bound = acceptor.local_endpoint(ec);
  if (ec) return failed(ec);
  return std::static_pointer_cast<Listener>(std::make_shared<ListenerImpl>(runtime, std::move(acceptor), std::move(tls),
                                                                           std::move(accept), endpoint_text(bound)));
}

}  // namespace kitsune2::net
