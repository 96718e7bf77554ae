// One session for each accepted connection: HTTP requests, then WebSocket messages, with their time limits.
#include "server/http_server.hpp"

#include <algorithm>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/beast/http/string_body.hpp>
#include <utility>
#include <vector>

#include "core/random.hpp"
#include "core/slots/slots.hpp"
#include "kitsune2/ids.hpp"

namespace kitsune2::server {

namespace http = boost::beast::http;
using net::Conn;
using net::ConnEvents;
using net::Incoming;
using net::WsDecoder;
using net::WsPayload;
using net::WsRole;

namespace {

/// How many messages of one client are handled in one turn of the loop. A read buffer may hold thousands of small ones,
/// and other clients wait meanwhile.
constexpr std::size_t kMessagesInTurn = 32;

using Parser = http::request_parser<http::string_body>;

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

class ParsedRequest final : public HttpServerRequest {
 public:
  ParsedRequest(const Parser::value_type& message, const net::IpAddress& from, std::uint64_t connection_id,
                const Conn& conn)
      : HttpServerRequest(view(message.method_string()), view(message.target()), message.body(), from),
        message_(message),
        conn_(conn) {
    connection = connection_id;
  }

  std::string_view header(std::string_view name) const override {
    return view(message_[boost::beast::string_view(name.data(), name.size())]);
  }

  std::vector<std::string> headers(std::string_view name) const override {
    std::vector<std::string> out;
    const auto range = message_.equal_range(boost::beast::string_view(name.data(), name.size()));
    for (auto it = range.first; it != range.second; ++it) out.emplace_back(view(it->value()));
    return out;
  }

  bool export_key(std::string_view label, ByteView context, std::span<std::uint8_t> out) const override {
    return conn_.export_key(label, context, out);
  }

 private:
  const Parser::value_type& message_;
  const Conn& conn_;
};

HttpReply plain_line(int status, std::string_view text) {
  HttpReply out;
  out.status = status;
  out.content_type = "text/plain";
  out.body = std::string(text) + "\n";
  return out;
}

}  // namespace

std::string http_response_head(int status, std::string_view content_type, std::size_t length, bool keep_alive,
                               std::string_view allow, std::string_view more) {
  const auto reason = http::obsolete_reason(static_cast<http::status>(status));
  std::string out = "HTTP/1.1 " + std::to_string(status) + " " + std::string(view(reason)) + "\r\n";
  if (status != 204) {  // it has no body, so nothing is said of one
    if (!content_type.empty()) out += "Content-Type: " + std::string(content_type) + "\r\n";
    out += "Content-Length: " + std::to_string(length) + "\r\n";
  }
  if (!allow.empty()) out += "Allow: " + std::string(allow) + "\r\n";
  if (!keep_alive) out += "Connection: close\r\n";
  return out.append(more).append("\r\n");
}

std::string_view to_string(HttpFault fault) {
  switch (fault) {
    case HttpFault::limit_connections:
      return "limit_connections";
    case HttpFault::limit_ip:
      return "limit_ip";
    case HttpFault::tls:
      return "tls_failed";
    case HttpFault::bad_request:
      return "bad_request";
    case HttpFault::timed_out:
      return "request_timeout";
    case HttpFault::stalled:
      return "write_stall";
    case HttpFault::ws_fault:
      return "websocket_fault";
    case HttpFault::evicted:
      return "evicted_connection";
    case HttpFault::limit_rate:
      return "limit_rate";
    case HttpFault::limit_input:
      return "limit_input";
  }
  return "unknown";
}

/// One connection: requests until it is upgraded, messages from then on.
class HttpServer::Session final : public ConnEvents,
                                  public WsDecoder::Sink,
                                  public WsPeer,
                                  public std::enable_shared_from_this<Session> {
 public:
  Session(HttpServer& server, std::uint64_t id, std::shared_ptr<Conn> conn)
      : server_(&server), id_(id), ip_(conn->remote_ip()), remote_(conn->remote()), conn_(std::move(conn)) {
    since_ = now();
    deadline_ = since_ + server.limits_.header_time;
  }

  const net::IpAddress& ip() const { return ip_; }
  slots::Slot slot() const {
    const auto key = ip_.limit_key().bytes;
    return {key, since_, useful_bytes_, key == slots::Address{}};  // the node of this process keeps its place
  }

  /// Closes it, because its place is given to a newcomer.
  void evict() {
    fault(HttpFault::evicted, "its place is given to a newcomer");
    evicted_ = true;
    closing_ = true;
    conn_->abort(make_error(Errc::overloaded, "its place is given to a newcomer"));
  }

  /// R7, R8.
  void close_for_input(std::size_t bytes, std::string_view what) {
    fault(HttpFault::limit_input, std::to_string(bytes) + " bytes that " + std::string(what));
    server_->note_input(*this, 0, 0, {});
    farewell_ = "what " + std::string(what) + " takes too much room";
    abort(farewell_);
  }

  /// Answers the request that waits: its turn has come.
  void turn() {
    if (!conn_ || closing_ || !std::exchange(waits_for_turn_, false)) return;
    const auto keep = shared_from_this();
    deadline_ = now() + server_->limits_.body_time;
    upgrade_waits_ ? upgrade() : serve();
    if (server_ != nullptr && conn_ && !closing_) conn_->resume();
  }

  /// The handler has made up its mind.
  void answer_later(const HttpReply& reply) {
    if (!conn_ || closing_ || !std::exchange(waits_for_handler_, false)) return;
    const auto keep = shared_from_this();
    answer(reply, keep_alive_, head_only_);
    if (server_ != nullptr && conn_ && !closing_) conn_->resume();
  }

  /// The server is being destroyed.
  void detach() {
    server_ = nullptr;
    if (conn_) conn_->abort(make_error(Errc::cancelled, "the server stops"));
    if (const auto events = std::exchange(events_, nullptr)) events->on_ws_closed("the server stops");
  }

  void bid_farewell() {
    if (!conn_ || closing_) return;
    if (decoder_) return close(1001, "the server stops");
    if (parser_) return answer(plain_line(503, "the server stops"), false, false);
    end("the server stops");
  }

  void check_time(Time at) {
    if (!conn_ || closing_) return;
    const auto stalled = conn_->stalled_since();
    if (stalled && at - *stalled >= server_->limits_.stall_time) {
      fault(HttpFault::stalled, "it read none of the " + std::to_string(conn_->queued()) + " bytes queued for it");
      return conn_->abort(make_error(Errc::timed_out, "takes no output"));
    }
    if (!deadline_ || at < *deadline_) return;
    if (!connected_) {
      fault(HttpFault::timed_out, "the TLS handshake takes too long");
      return end("no TLS handshake");
    }
    if (!parser_) return end("idle");
    if (std::exchange(waits_for_handler_, false)) return answer(plain_line(503, "no answer in time"), false, false);
    fault(HttpFault::timed_out, head_done_ ? "the body takes too long" : "the request head takes too long");
    answer(plain_line(408, "the request took too long"), false, false);
  }

  // --- ConnEvents
  void on_connected() override { connected_ = true; }

  std::size_t on_data(const Incoming& in) override {
    if (server_ == nullptr || closing_) return in.size;
    connected_ = true;  // not every kind of connection calls on_connected
    const auto keep = shared_from_this();
    held_ = false;
    messages_in_turn_ = 0;
    has_gone_on_ = false;
    const std::size_t used = take(in);
    if (server_ == nullptr || closing_) return in.size;
    note_what_is_kept(in.size - used + (decoder_ ? decoder_->unfinished_bytes() : 0));
    return closing_ ? in.size : used;
  }

  /// R7, R8.
  void note_what_is_kept(std::size_t bytes) {
    if (has_gone_on_ || kept_ == 0) kept_since_ = now();
    if (bytes == 0 && kept_ == 0) return;
    kept_ = bytes;
    server_->note_input(*this, held_ ? 0 : bytes, held_ ? bytes : 0, kept_since_);
    server_->bound_input(server_->unfinished_, "it has not finished");
    server_->bound_input(server_->held_, "it may not send yet");
  }

  /// Returns how many bytes need not be passed again.
  std::size_t take(const Incoming& in) {
    std::size_t used = 0;
    while (!decoder_ && !closing_ && !waits() && used < in.size) {
      if (conn_->queued() > server_->limits_.queued_answer_bytes) {
        waits_for_output_ = true;
        conn_->pause();
        return used;
      }
      const std::size_t n = take_http(in.data + used, in.size - used);
      used += n;
      if (n == 0) return used;
      if (server_ == nullptr) return in.size;
    }
    if (closing_) return in.size;
    if (waits()) conn_->pause();
    if (!decoder_ || (used == in.size && !decoder_->holds_message())) return used;
    const auto outcome = decoder_->decode({in.data + used, in.size - used, in.owner}, *this);
    if (server_ == nullptr || closing_) return in.size;
    if (outcome.fault) {
      fault(HttpFault::ws_fault, outcome.fault->text);
      blame();
      close(outcome.fault->code, outcome.fault->text);
      return in.size;
    }
    held_ = outcome.held;
    if (held_) conn_->pause();
    if (messages_in_turn_ > kMessagesInTurn) resume();  // in the loop's next turn
    return used + outcome.used;
  }

  void on_sent(std::size_t queued) override {
    if (waits_for_output_ && server_ != nullptr && queued <= server_->limits_.queued_answer_bytes / 2) {
      waits_for_output_ = false;
      conn_->resume();
    }
    if (events_) events_->on_ws_sent(queued);
  }

  void on_closed(const Error& why) override {
    closing_ = true;
    const auto keep = shared_from_this();
    if (!connected_ && server_ != nullptr && why.code == Errc::peer_unresponsive) fault(HttpFault::tls, why.message);
    if (const auto events = std::exchange(events_, nullptr)) {
      events->on_ws_closed(farewell_.empty() ? why.message : farewell_);
    }
    conn_.reset();
    if (server_ != nullptr) std::exchange(server_, nullptr)->on_ended(*this);
  }

  // --- WsDecoder::Sink
  WsDecoder::Next on_ws_message(WsPayload& message) override {
    if (++messages_in_turn_ > kMessagesInTurn) return WsDecoder::Next::hold;
    useful_bytes_ += message.size;
    const auto next = events_ ? events_->on_ws_message(message) : WsDecoder::Next::stop;
    has_gone_on_ = has_gone_on_ || next != WsDecoder::Next::hold;
    return closing_ ? WsDecoder::Next::stop : next;
  }

  bool on_ws_frame(std::size_t size) override {
    if (events_) events_->on_ws_frame(size + net::ws_header_size(WsRole::client, size));
    return !closing_;
  }

  void on_ws_ping(ByteView payload) override {
    // Pings are answered only as fast as the client takes the answers.
    if (closing_ || conn_->queued() > server_->limits_.queued_answer_bytes) return;
    if (events_ && !events_->on_ws_ping(payload.size())) return;
    if (closing_) return;
    net::ws_append_frame(conn_->out(), WsRole::server, net::kWsPong, payload, 0);
    conn_->flush();
  }

  void on_ws_close(std::uint16_t code, std::string reason) override {
    static_cast<void>(reason);
    if (!closing_) farewell_ = "it closed the connection (" + std::to_string(code) + ")";
    close(code, {});
  }

  // --- WsPeer
  std::uint64_t id() const override { return id_; }
  const std::string& remote() const override { return remote_; }

  void send(ByteView message) override {
    std::uint8_t* space = send_space(message.size());
    if (!message.empty()) std::copy(message.begin(), message.end(), space);
  }

  std::uint8_t* send_space(std::size_t size) override {
    net::ws_append_header(conn_->out(), WsRole::server, net::kWsBinary, size, 0);
    std::uint8_t* out = conn_->out().extend(size);
    conn_->flush();
    return out;
  }

  void forward_now(ByteView head, net::WsPayload& message, std::size_t skip) override {
    net::ws_append_header(conn_->out(), WsRole::server, net::kWsBinary, head.size() + message.size - skip, 0);
    conn_->out().append(head);
    message.unmask();
    conn_->send_now({message.data + skip, message.size - skip});
  }

  void send_now() override {
    if (conn_ && !closing_) conn_->send_now();
  }

  std::size_t queued() const override { return conn_ ? conn_->queued() : 0; }

  void resume() override {
    if (!conn_ || closing_ || server_ == nullptr) return;
    conn_->resume();
    if (!decoder_ || !decoder_->holds_message() || std::exchange(held_message_posted_, true)) return;
    // The connection does not know of it: it passes on what is left of the input, and this message has left it.
    server_->runtime_.post([weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self) return;
      self->held_message_posted_ = false;
      const std::shared_ptr<std::uint8_t[]> none;
      static_cast<void>(self->on_data({nullptr, 0, none}));
    });
  }

  void close(std::uint16_t code, std::string_view reason) override {
    if (closing_ || !conn_) return;
    net::ws_append_close(conn_->out(), WsRole::server, code, reason, 0);
    end(reason);
  }

  void abort(std::string_view reason) override {
    if (!conn_ || std::exchange(closing_, true)) return;
    conn_->abort(make_error(Errc::cancelled, std::string(reason)));
  }

  void blame() override {
    if (server_ == nullptr || !pays_) return;
    ++server_->counters_.blamed;
    server_->turns_.blame(*pays_, server_->turn_time());
  }

 private:
  friend class HttpServer;

  Time now() const { return server_->runtime_.now(); }
  bool waits() const { return waits_for_turn_ || waits_for_handler_; }
  void fault(HttpFault fault, std::string_view what) { server_->count(fault, remote_, what); }

  void end(std::string_view why) {
    closing_ = true;
    server_->note_input(*this, 0, 0, {});  // it is not read from any more
    deadline_.reset();
    parser_.reset();
    if (std::exchange(waits_for_turn_, false)) server_->turns_.forget(id_);
    conn_->close(make_error(Errc::cancelled, std::string(why)));
  }

  /// Reads at most one request, and returns how many bytes it used. 0: more input is needed.
  std::size_t take_http(const std::uint8_t* data, std::size_t size) {
    if (!parser_) {
      // Some clients send one empty line too many after a body.
      std::size_t skip = 0;
      while (skip < size && (data[skip] == '\r' || data[skip] == '\n')) ++skip;
      if (skip > 0) return skip;
      parser_ = std::make_unique<Parser>();
      parser_->header_limit(server_->limits_.header_bytes);
      parser_->body_limit(server_->limits_.body_bytes);
      parser_->eager(true);
      head_done_ = false;
      deadline_ = now() + server_->limits_.header_time;
    }
    boost::system::error_code ec;
    std::size_t used = parser_->put(boost::asio::buffer(data, size), ec);
    if (ec && ec != http::error::need_more) {
      bad_request(ec);
      return size;
    }
    if (parser_->is_header_done() && !std::exchange(head_done_, true)) on_head();
    if (!parser_ || closing_ || waits()) return used;
    if (parser_->is_done()) on_request();
    return used;
  }

  void bad_request(const boost::system::error_code& ec) {
    fault(HttpFault::bad_request, ec == http::error::body_limit     ? "the body is too long"
                                  : ec == http::error::header_limit ? "the request head is too large"
                                                                    : ec.message());
    if (ec == http::error::body_limit) return answer(plain_line(413, "length limit exceeded"), false, false);
    if (ec == http::error::header_limit) return answer(plain_line(431, "the request head is too large"), false, false);
    answer(plain_line(400, "the request is not valid HTTP: " + ec.message()), false, false);
  }

  void on_head() {
    deadline_ = now() + server_->limits_.body_time;
    const auto& message = parser_->get();
    if (http::token_list(message[http::field::upgrade]).exists("websocket") &&
        http::token_list(message[http::field::connection]).exists("upgrade")) {
      return on_upgrade();
    }
    if (!parser_->is_done() && boost::beast::iequals(message[http::field::expect], "100-continue")) {
      conn_->out().append(as_bytes("HTTP/1.1 100 Continue\r\n\r\n"));
      conn_->flush();
    }
  }

  /// Whether the request may be answered now. If not, `turn` is called when it may.
  bool has_turn(bool is_upgrade) {
    ++server_->counters_.requests;
    const auto cost = server_->handler_.cost(ParsedRequest(parser_->get(), ip_, id_, *conn_));
    pays_ = cost.address;
    const bool is_first = ++requests_ <= RequestTurns::kFirst;
    if (server_->turns_.take(id_, cost.address, cost.time, is_first, server_->turn_time())) return true;
    ++server_->counters_.request_waits;
    waits_for_turn_ = true;
    upgrade_waits_ = is_upgrade;
    deadline_.reset();
    server_->arm_turns();
    return false;
  }

  void on_upgrade() {
    if (has_turn(true)) upgrade();
  }

  void upgrade() {
    const auto& message = parser_->get();
    const std::string_view key = view(message[http::field::sec_websocket_key]);
    if (message.method() != http::verb::get || message.version() != 11 || !net::ws_key_is_valid(key) ||
        parser_->content_length().value_or(0) != 0 || parser_->chunked()) {
      fault(HttpFault::bad_request, "not a valid WebSocket upgrade");
      return answer(plain_line(400, "not a valid WebSocket upgrade"), false, false);
    }
    if (message[http::field::sec_websocket_version] != "13") {
      return answer(plain_line(426, "WebSocket version 13 is needed"), false, false);
    }
    const ParsedRequest request(message, ip_, id_, *conn_);
    std::string head =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
        net::ws_accept_value(key) + "\r\n";
    const std::string_view chosen = server_->handler_.subprotocol(request);
    if (!chosen.empty()) head.append("Sec-WebSocket-Protocol: ").append(chosen).append("\r\n");
    head += "\r\n";
    // The answer must be sent before anything that the handler sends at once.
    net::ByteBuffer& out = conn_->out();
    out.append(as_bytes(head));
    const std::size_t before = out.size();
    HttpReply refusal = plain_line(404, "no WebSocket here");
    auto events = server_->handler_.on_upgrade(request, *this, refusal);
    if (!events) {
      out.retract(out.size() - before + head.size());
      return answer(refusal, false, false);
    }
    const std::size_t most = events->max_message_bytes();
    decoder_ = std::make_unique<WsDecoder>(WsRole::server, most != 0 ? most : server_->limits_.ws_message_bytes);
    events_ = std::move(events);
    deadline_.reset();
    parser_.reset();
    conn_->flush();
  }

  void on_request() {
    if (has_turn(false)) serve();
  }

  void serve() {
    const auto& message = parser_->get();
    const bool keep_alive = message.keep_alive();
    const bool head_only = message.method() == http::verb::head;
    const HttpReply reply = server_->handler_.on_request(ParsedRequest(message, ip_, id_, *conn_));
    if (!reply.later) return answer(reply, keep_alive, head_only);
    waits_for_handler_ = true;
    keep_alive_ = keep_alive;
    head_only_ = head_only;
    deadline_ = now() + server_->limits_.answer_time;
  }

  void answer(const HttpReply& reply, bool keep_alive, bool head_only) {
    conn_->out().append(as_bytes(http_response_head(reply.status, reply.content_type, reply.body.size(), keep_alive,
                                                    reply.allow, reply.headers)));
    if (!head_only) conn_->out().append(as_bytes(reply.body));
    conn_->flush();
    parser_.reset();
    deadline_ = now() + server_->limits_.idle_time;
    if (!keep_alive) end("answered");
  }

  HttpServer* server_;
  std::uint64_t id_;
  net::IpAddress ip_;
  std::string remote_;
  std::shared_ptr<Conn> conn_;
  std::unique_ptr<Parser> parser_;  // while a request is under way
  bool connected_ = false;
  std::string farewell_;  // the client's own, for the log
  bool head_done_ = false;
  bool closing_ = false;
  bool waits_for_output_ = false;
  bool held_message_posted_ = false;
  std::uint32_t requests_ = 0;                 ///< that it has made
  std::optional<RequestTurns::Address> pays_;  ///< for them
  bool waits_for_turn_ = false;
  bool waits_for_handler_ = false;
  bool keep_alive_ = false, head_only_ = false;  // of the request that waits for the handler
  bool upgrade_waits_ = false;
  bool evicted_ = false;
  std::uint64_t useful_bytes_ = 0;
  std::size_t messages_in_turn_ = 0;
  bool has_gone_on_ = false;  // the handler has taken a message of this input
  bool held_ = false;         // the handler takes nothing more for now
  std::size_t kept_ = 0;      // R7, R8: of its input
  Time kept_since_{};
  Time since_{};
  std::size_t place_ = 0;  // in the server's order_
  std::optional<Time> deadline_;
  std::unique_ptr<WsDecoder> decoder_;  // once upgraded
  std::shared_ptr<WsPeerEvents> events_;
};

std::size_t HttpServer::IpHash::operator()(const std::array<std::uint8_t, 16>& ip) const noexcept {
  return keyed_hash(ip);
}

HttpServer::HttpServer(Runtime& runtime, const HttpLimits& limits, HttpHandler& handler)
    : runtime_(runtime), limits_(limits), handler_(handler), turns_(limits.shares) {
  set_limits(limits);
  timer_ = runtime_.schedule_after(tick_, [this] { sweep(); });
}

HttpServer::~HttpServer() {
  runtime_.cancel(timer_);
  runtime_.cancel(turns_timer_);
  for (auto& [id, session] : std::exchange(sessions_, {})) session->detach();
}

std::shared_ptr<ConnEvents> HttpServer::accept(const std::shared_ptr<Conn>& conn) {
  if (draining_) return nullptr;
  ++counters_.accepted;
  const auto key = conn->remote_ip().limit_key().bytes;
  if (limits_.connections_per_ip > 0) {
    const auto it = per_ip_.find(key);
    if (it != per_ip_.end() && it->second >= limits_.connections_per_ip) {
      count(HttpFault::limit_ip, conn->remote(), std::to_string(it->second) + " of its address are open");
      return nullptr;
    }
  }
  const bool is_own = key == slots::Address{};  // the node of this process
  if (!is_own && limits_.connections_per_ip > 0 && !turns_.charge(key, limits_.connection_cost, turn_time())) {
    count(HttpFault::limit_rate, conn->remote(), "its address opens connections too fast");
    return nullptr;
  }
  if (!handler_.admit(conn->remote_ip())) {
    ++counters_.not_admitted;
    return nullptr;
  }
  if (!is_own && sessions_.size() >= limits_.connections + evicting_ && !make_place(conn->remote_ip())) {
    count(HttpFault::limit_connections, conn->remote(), std::to_string(sessions_.size()) + " are open");
    return nullptr;
  }
  ++per_ip_[key];
  const std::uint64_t id = next_id_++;
  auto session = std::make_shared<Session>(*this, id, conn);
  sessions_.emplace(id, session);
  session->place_ = order_.size();
  order_.push_back(session.get());
  counters_.connections.store(sessions_.size());
  return session;
}

/// R6. It makes no room for a limit that has become lower. The session whose place is given away closes soon, and is
/// not counted from now on.
bool HttpServer::make_place(const net::IpAddress& newcomer) {
  if (sessions_.size() > limits_.connections + evicting_) return false;
  Session* chosen = slots::choose_from(
      order_, newcomer.limit_key().bytes, random_u64(runtime_),
      [](const Session& session) { return session.closing_ ? std::nullopt : std::optional(session.slot()); });
  if (chosen == nullptr) return false;
  ++evicting_;
  chosen->evict();
  return true;
}

/// R7, R8.
void HttpServer::note_input(const Session& session, std::size_t unfinished, std::size_t held, Time since) {
  const auto key = session.ip().limit_key().bytes;
  unfinished_.set(session.id(), key, unfinished, since);
  held_.set(session.id(), key, held, since);
}

/// R7, R8. The session that goes may be the one whose input has just been noted.
void HttpServer::bound_input(const InputBook& book, std::string_view what) {
  while (book.bytes() > limits_.unfinished_bytes) {
    const auto id = book.choose(limits_.unfinished_bytes, random_u64(runtime_), runtime_.now());
    if (!id) return;
    const auto session = sessions_.at(*id);
    session->close_for_input(book.bytes_of(*id), what);
  }
}

/// R9.
Time HttpServer::turn_time() {
  if (loop_wait_) waited_ = std::max(waited_, loop_wait_());
  turn_time_ = std::max(turn_time_, runtime_.now() - waited_);
  return turn_time_;
}

/// Answers the requests whose turn it is, and sets the timer for the others.
void HttpServer::serve_waiting() {
  turns_timer_ = 0;
  turns_at_ = Time::max();
  while (const auto id = turns_.next(turn_time())) {
    const auto it = sessions_.find(*id);
    K2_ASSERT(it != sessions_.end());
    const auto session = it->second;
    session->turn();
  }
  arm_turns();
}

void HttpServer::arm_turns() {
  const auto next = turns_.next_deadline();
  if (!next || *next >= turns_at_) return;
  runtime_.cancel(turns_timer_);
  turns_at_ = *next;
  turns_timer_ = runtime_.schedule(std::max(*next + waited_, runtime_.now()), [this] { serve_waiting(); });
}

void HttpServer::on_ended(Session& session) {
  turns_.forget(session.id());
  evicting_ -= session.evicted_ ? 1U : 0U;
  order_[session.place_] = order_.back();
  order_[session.place_]->place_ = session.place_;
  order_.pop_back();
  const auto it = per_ip_.find(session.ip().limit_key().bytes);
  K2_ASSERT(it != per_ip_.end());
  note_input(session, 0, 0, {});
  if (--it->second == 0) per_ip_.erase(it);
  sessions_.erase(session.id());
  counters_.connections.store(sessions_.size());
  if (draining_) on_drained();
}

void HttpServer::count(HttpFault fault, const std::string& remote, std::string_view what) {
  Counter* const counters[] = {&counters_.limit_connections, &counters_.limit_ip,  &counters_.tls_failed,
                               &counters_.bad_request,       &counters_.timed_out, &counters_.stalled,
                               &counters_.ws_fault,          &counters_.evicted,   &counters_.limit_rate,
                               &counters_.limit_input};
  ++*counters[static_cast<std::size_t>(fault)];
  handler_.on_fault(remote, fault, what);
}

void HttpServer::set_limits(const HttpLimits& limits) {
  limits_ = limits;
  turns_.set_shares(limits.shares);
  const Duration shortest = std::min({limits.header_time, limits.body_time, limits.idle_time, limits.stall_time});
  tick_ = std::clamp<Duration>(shortest / 4, std::chrono::milliseconds(5), std::chrono::seconds(1));
}

void HttpServer::answer(std::uint64_t connection, const HttpReply& reply) {
  if (const auto it = sessions_.find(connection); it != sessions_.end()) it->second->answer_later(reply);
}

void HttpServer::drain(std::function<void()> done) {
  draining_ = true;
  drained_ = std::move(done);
  for (auto& [id, session] : sessions_) session->bid_farewell();  // ends come later: the map does not change here
  on_drained();
}

void HttpServer::on_drained() {
  if (!sessions_.empty()) return;
  if (const auto done = std::exchange(drained_, nullptr)) done();
}

void HttpServer::sweep() {
  const Time now = runtime_.now();
  for (auto& [id, session] : sessions_) session->check_time(now);  // ends come later: the map does not change here
  timer_ = runtime_.schedule_after(tick_, [this] { sweep(); });
}

}  // namespace kitsune2::server
