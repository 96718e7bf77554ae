// HTTP/1.1 and WebSockets on connections that a listener has accepted, with a bound on everything.
#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kitsune2/runtime.hpp"
#include "net/conn.hpp"
#include "net/ws_codec.hpp"
#include "server/counter.hpp"
#include "server/input_book.hpp"
#include "server/request_turns.hpp"

namespace kitsune2::server {

struct HttpLimits {
  std::size_t connections = 34'000;
  std::size_t connections_per_ip = 4096;  ///< 0: no limit, for a relay behind a proxy, where all come from one address
  std::uint32_t header_bytes = 8192;
  std::size_t body_bytes = 1024;
  std::size_t ws_message_bytes = 20'000;
  std::size_t queued_answer_bytes = 256U << 10;  ///< with more unread answers, a client that pipelines is not read from
  std::size_t unfinished_bytes = 128U << 20;     ///< of all connections together (R7), and as much again (R8)
  Duration header_time = std::chrono::seconds(10);  ///< for the TLS handshake, and for the head of a request
  Duration body_time = std::chrono::seconds(10);
  Duration idle_time = std::chrono::seconds(30);    ///< between requests
  Duration stall_time = std::chrono::seconds(30);   ///< while the client takes no output at all
  Duration answer_time = std::chrono::seconds(30);  ///< for the handler, if it answers later
  RequestShares shares;        ///< by default there are no limits and every request is answered at once
  Duration connection_cost{};  ///< the cost of a connection, charged to the shares
};

struct HttpCounters {
  Counter connections;  // gauge
  Counter accepted;
  Counter requests;
  Counter limit_connections;
  Counter limit_ip;
  Counter not_admitted;
  Counter bad_request;  // did not parse, or broke a limit
  Counter timed_out;    // header, body
  Counter stalled;
  Counter ws_fault;  // broken frames, or a message over the limit
  Counter tls_failed;
  Counter evicted;        // gave its place to a newcomer
  Counter limit_rate;     // connections from an address that was over its share
  Counter limit_input;    // held too much of what was not finished
  Counter request_waits;  // requests that waited for their turn
  Counter blamed;         // clients that broke a rule (T5 of RequestTurns)
};

/// The reason why a connection was refused or closed here. The names are those of the metrics.
enum class HttpFault : std::uint8_t {
  limit_connections,  ///< too many connections in total
  limit_ip,           ///< too many from one address
  tls,                ///< the TLS handshake failed
  bad_request,        ///< it did not parse, or broke a limit
  timed_out,          ///< TLS, head or body took too long
  stalled,            ///< the client takes no output
  ws_fault,           ///< broken WebSocket frames, or a message over the limit
  evicted,            ///< its place was given to a newcomer
  limit_rate,         ///< its address opens connections too quickly
  limit_input,        ///< what it has not finished takes too much room (R7)
};
std::string_view to_string(HttpFault fault);

/// A whole request. Borrowed for the call.
struct HttpServerRequest {
  std::string_view method;
  std::string_view path;  ///< without the query
  std::string_view body;
  const net::IpAddress& ip;
  std::string_view query;        ///< what follows the path's question mark
  std::uint64_t connection = 0;  ///< for HttpServer::answer
  /// The value of a header; empty if there is none. Ignores case.
  virtual std::string_view header(std::string_view name) const = 0;
  /// The values of all headers of this name, in order.
  virtual std::vector<std::string> headers(std::string_view name) const = 0;
  /// See net::Conn.
  virtual bool export_key(std::string_view /*label*/, ByteView /*context*/, std::span<std::uint8_t> /*out*/) const {
    return false;
  }

 protected:
  /// `target`: the path and the query.
  HttpServerRequest(std::string_view m, std::string_view target, std::string_view b, const net::IpAddress& i)
      : method(m), path(target.substr(0, target.find('?'))), body(b), ip(i), query(target.substr(path.size())) {
    if (!query.empty()) query.remove_prefix(1);
  }
  ~HttpServerRequest() = default;
};

struct HttpReply {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";  ///< empty: not said
  std::string allow;                              ///< with 405
  std::string headers;                            ///< further ones, each as "Name: value\r\n"
  bool later = false;                             ///< this is not the answer: HttpServer::answer follows
};

/// A WebSocket connection as seen by the handler of its messages. Strand only; destroyed after on_ws_closed.
class WsPeer {
 public:
  virtual ~WsPeer() = default;
  virtual std::uint64_t id() const = 0;
  /// The "host:port" at the other end of the socket, which may be a proxy's.
  virtual const std::string& remote() const = 0;
  /// Queues a binary message.
  virtual void send(ByteView message) = 0;
  /// Queues a binary message of `size` bytes. The caller must fill the returned space before it does anything else.
  virtual std::uint8_t* send_space(std::size_t size) = 0;
  /// Passes what is queued to the operating system now, as far as it takes it, and not at the end of the loop's turn.
  /// `on_ws_sent` follows.
  virtual void send_now() = 0;
  /// Queues a binary message that consists of `head` and what follows the first `skip` bytes of another client's
  /// `message`, then as `send_now`. The message is unmasked in place, and what is sent at once is not copied before.
  virtual void forward_now(ByteView head, net::WsPayload& message, std::size_t skip) = 0;
  virtual std::size_t queued() const = 0;
  /// Offers the message again that `on_ws_message` held, but not inside this call.
  virtual void resume() = 0;
  /// Sends a close frame. `on_ws_closed` follows.
  virtual void close(std::uint16_t code, std::string_view reason) = 0;
  /// Closes at once, whatever is queued. `on_ws_closed` follows.
  virtual void abort(std::string_view reason) = 0;
  /// It has broken a rule: RequestTurns T5. Before `close` or `abort`.
  virtual void blame() = 0;
};

class WsPeerEvents {
 public:
  using Next = net::WsDecoder::Next;
  virtual ~WsPeerEvents() = default;
  virtual Next on_ws_message(net::WsPayload& message) = 0;
  /// A frame of `size` bytes has arrived that is no message: a control frame or a fragment.
  virtual void on_ws_frame(std::size_t size) = 0;
  /// Whether a ping with `size` bytes of content is answered. After `on_ws_frame`.
  virtual bool on_ws_ping(std::size_t /*size*/) { return true; }
  virtual void on_ws_sent(std::size_t queued) = 0;
  /// `why`: for the log.
  virtual void on_ws_closed(std::string_view why) = 0;
  /// The longest message that is accepted; 0: HttpLimits::ws_message_bytes. Asked once, after the upgrade.
  virtual std::size_t max_message_bytes() const { return 0; }
};

/// The handler of requests. Strand only.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  /// Whether a TCP connection from `ip` may stay.
  virtual bool admit(const net::IpAddress& ip) = 0;
  /// The cost of a request, charged to the shares (HttpLimits::shares), and who pays.
  struct Cost {
    RequestTurns::Address address{};
    Duration time{};
  };
  virtual Cost cost(const HttpServerRequest& request) { return {request.ip.limit_key().bytes, {}}; }
  virtual HttpReply on_request(const HttpServerRequest& request) = 0;
  /// The Sec-WebSocket-Protocol that is chosen for a request for a WebSocket; empty: none.
  virtual std::string_view subprotocol(const HttpServerRequest& /*request*/) { return {}; }
  /// Answers a valid request for a WebSocket: with the receiver of its messages, which is called once the upgrade was
  /// answered, or with null and a refusal.
  virtual std::shared_ptr<WsPeerEvents> on_upgrade(const HttpServerRequest& request, WsPeer& peer,
                                                   HttpReply& refusal) = 0;
  /// A connection was refused or closed; for the log. `remote`: "host:port". `what`: the exact reason.
  virtual void on_fault(const std::string& remote, HttpFault fault, std::string_view what) {
    static_cast<void>(remote), static_cast<void>(fault), static_cast<void>(what);
  }
};

/// The sessions of a server; connections may come from several listeners.
///
/// *Rules*.
///  R1  Every wait has a limit: for the head, for the body, for the next request, and for the client to take output.
///  R2  A request that does not parse is answered with 400, 413 or 431, and the connection is closed.
///  R3  Pipelined requests are answered in order.
///  R4  An idle connection has no buffers.
///  R5  A request that exceeds its share waits for its turn (RequestTurns). Meanwhile its connection is not read.
///     The same while the handler makes up its mind; if that takes longer than `answer_time`, the answer is 503.
///  R6  When all places are taken, a newcomer gets the place of another connection, by slots::choose.
///  R7  Input that the server cannot use yet, because the rest of a message has not come or the client does not read
///      its answers, takes at most `unfinished_bytes` in all. Beyond that InputBook says whose connection is closed.
///      *Rationale*: ten thousand clients that begin long messages would take hundreds of MB. Whoever finishes its
///      messages holds little, and not for long. Messages that the handler holds do not count, because their clients
///      cannot help it.
///  R8  What is kept of clients whose message the handler holds takes at most as much again, in the same way. Until it
///      is taken such a client is not read from, so it keeps one message and what came with it. *Rationale*: a client
///      that is over its rate may keep a whole read buffer; thousands of them, which nobody had to let in at once,
///      would take GB. Clients do not come near this bound by going over their rates, but by being thousands.
///  R9  Time in which the loop waited for a processor (`leave_out`) is no time of the shares. *Rationale*: on a busy
///      machine the loop gets a small part of a core; a share of the whole would be more than it has.
/// Strand only. `handler` and `runtime` must outlive it.
class HttpServer {
 public:
  HttpServer(Runtime& runtime, const HttpLimits& limits, HttpHandler& handler);
  /// Closes all connections. Their last callbacks run after the server is destroyed, and do nothing.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  /// R9: `waited` tells for how long the loop has waited since it was asked for the first time. Without it: never.
  void leave_out(std::function<Duration()> waited) { loop_wait_ = std::move(waited); }
  /// The answer to a request of `connection` that was to be answered later. No effect if it does not wait any more.
  void answer(std::uint64_t connection, const HttpReply& reply);
  /// Called by a Listener for a connection that it has accepted. Null refuses it.
  std::shared_ptr<net::ConnEvents> accept(const std::shared_ptr<net::Conn>& conn);
  /// The limits for connections from now on. A limit that becomes lower closes no connection.
  void set_limits(const HttpLimits& limits);
  /// Closes all connections cleanly and accepts no more: WebSockets are closed with 1001, a request under way is
  /// answered with 503, idle connections end. Calls `done` once, when the last one is closed. A client that does not
  /// answer the close is dropped after the connection's linger of 2 s, or by the destructor.
  void drain(std::function<void()> done);
  const HttpCounters& counters() const { return counters_; }
  /// R7.
  std::size_t unfinished_bytes() const { return unfinished_.bytes(); }
  /// R8.
  std::size_t held_bytes() const { return held_.bytes(); }

 private:
  class Session;
  struct IpHash {
    std::size_t operator()(const std::array<std::uint8_t, 16>& ip) const noexcept;
  };

  void sweep();
  Time turn_time();
  void serve_waiting();
  void arm_turns();
  bool make_place(const net::IpAddress& newcomer);
  void note_input(const Session& session, std::size_t unfinished, std::size_t held, Time since);
  void bound_input(const InputBook& book, std::string_view what);
  void on_ended(Session& session);
  void on_drained();
  void count(HttpFault fault, const std::string& remote, std::string_view what);

  Runtime& runtime_;
  HttpLimits limits_;
  HttpHandler& handler_;
  HttpCounters counters_;
  std::uint64_t next_id_ = 1;
  boost::unordered_flat_map<std::uint64_t, std::shared_ptr<Session>> sessions_;
  boost::unordered_flat_map<std::array<std::uint8_t, 16>, std::size_t, IpHash> per_ip_;  ///< connections
  std::vector<Session*> order_;  ///< the sessions, in an order from which one can be drawn at random
  InputBook unfinished_;         ///< R7
  InputBook held_;               ///< R8
  std::size_t evicting_ = 0;     ///< how many sessions are closing because their place was given away
  RequestTurns turns_;
  Runtime::TimerId turns_timer_ = 0;
  Time turns_at_ = Time::max();
  std::function<Duration()> loop_wait_;
  Duration waited_{};  ///< R9
  Time turn_time_{};   ///< of turns_: never goes back
  Duration tick_;
  Runtime::TimerId timer_ = 0;
  bool draining_ = false;
  std::function<void()> drained_;
};

/// "HTTP/1.1 <status> <reason>…" and all headers, up to the empty line. `more`: as HttpReply::headers.
std::string http_response_head(int status, std::string_view content_type, std::size_t length, bool keep_alive,
                               std::string_view allow, std::string_view more = {});

}  // namespace kitsune2::server
