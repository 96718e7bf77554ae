// The client's side of WebSocket connections: handshake, messages, pings.
#include "net/ws_connector.hpp"

#include <algorithm>
#include <array>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <utility>

#include "net/dial.hpp"
#include "net/ping_watch.hpp"
#include "net/url_parts.hpp"
#include "net/ws_codec.hpp"

namespace kitsune2 {

namespace {

namespace http = boost::beast::http;
using namespace kitsune2::net;

constexpr std::uint32_t kMaxResponseHead = 8192;

/// Mask keys that a peer cannot predict, made in hundreds.
class MaskKeys {
 public:
  explicit MaskKeys(Runtime& runtime) : runtime_(runtime) {}
  std::uint32_t next() {
    if (next_ == keys_.size()) {
      runtime_.random_bytes({reinterpret_cast<std::uint8_t*>(keys_.data()), sizeof(keys_)});
      next_ = 0;
    }
    return keys_[next_++];
  }

 private:
  Runtime& runtime_;
  std::array<std::uint32_t, 256> keys_{};
  std::size_t next_ = 256;
};

std::string base64_key(Runtime& runtime) {
  // 16 random bytes; the alphabets differ in two characters only, and the padding is fixed.
  std::array<std::uint8_t, 16> raw{};
  runtime.random_bytes(raw);
  std::string out = to_base64url(raw);
  std::replace(out.begin(), out.end(), '-', '+');
  std::replace(out.begin(), out.end(), '_', '/');
  return out + "==";
}

class WsClient final : public WsConnection,
                       public ConnEvents,
                       public WsDecoder::Sink,
                       public std::enable_shared_from_this<WsClient> {
 public:
  /// `keys` null: nothing is masked (the key is 0), for a connection inside the process.
  WsClient(Runtime& runtime, std::shared_ptr<MaskKeys> keys, const WsOptions& options, WsHandlers handlers)
      : runtime_(runtime),
        keys_(std::move(keys)),
        options_(options),
        handlers_(std::move(handlers)),
        decoder_(WsRole::client, options.max_message_bytes) {
    parser_.header_limit(kMaxResponseHead);
    parser_.skip(true);
  }

  void start(const Dial& dial, UrlParts url, std::shared_ptr<TlsContext> tls) {
    prepare(std::move(url));
    conn_ = dial({url_.host, url_.port, std::move(tls)}, options_.handshake_timeout, shared_from_this());
  }

  void fail_later(Error why) {
    runtime_.post([self = shared_from_this(), why = std::move(why)] { self->on_closed(why); });
  }

  // --- WsConnection
  bool send(Bytes message) override {
    if (!open_) return false;
    if (conn_->queued() >= options_.max_queue_bytes) {
      refused_ = true;
      return false;
    }
    append(kWsBinary, message);
    if (watch_ask_) look();
    return true;
  }

  std::size_t queued_bytes() const override { return conn_ ? conn_->queued() : 0; }

  std::string_view protocol() const override { return protocol_; }

  bool is_in_process() const override { return keys_ == nullptr; }

  void close() override {
    if (!conn_ || closing_) return;
    closing_ = true;
    if (!open_) return conn_->abort(make_error(Errc::cancelled, "closed by this side"));
    end(1000, {}, make_error(Errc::cancelled, "closed by this side"));
  }

  // --- ConnEvents
  void on_connected() override {
    key_ = base64_key(runtime_);
    std::string head = "GET " + url_.target + " HTTP/1.1\r\nHost: " + url_.authority +
                       "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " + key_ +
                       "\r\nSec-WebSocket-Version: 13\r\n";
    if (!options_.protocols.empty()) head += "Sec-WebSocket-Protocol: " + options_.protocols + "\r\n";
    if (!options_.bearer_token.empty()) head += "Authorization: Bearer " + options_.bearer_token + "\r\n";
    if (options_.tls_headers && url_.tls) {
      head += options_.tls_headers([this](std::string_view label, ByteView context, std::span<std::uint8_t> out) {
        return conn_->export_key(label, context, out);
      });
    }
    head += "\r\n";
    conn_->out().append(as_bytes(head));
    conn_->flush();
  }

  std::size_t on_data(const Incoming& in) override {
    std::size_t used = 0;
    if (!open_) {
      boost::system::error_code ec;
      used = parser_.put(boost::asio::buffer(in.data, in.size), ec);
      if (ec == http::error::need_more) return used;
      if (ec) {
        refuse("the answer is not HTTP (" + ec.message() + ")");
        return in.size;
      }
      if (!upgraded()) return in.size;
    }
    if (closing_) return in.size;
    watch_->on_received(runtime_.now());
    const auto outcome = decoder_.decode({in.data + used, in.size - used, in.owner}, *this);
    if (outcome.fault && !closing_) {
      const Errc code = outcome.fault->code == 1009 ? Errc::too_large : Errc::peer_fault;
      end(outcome.fault->code, outcome.fault->text, make_error(code, conn_->remote() + " sent " + outcome.fault->text));
    }
    return used + outcome.used;
  }

  void on_sent(std::size_t queued) override {
    if (watch_) watch_->on_taken(queued, runtime_.now());
    if (!refused_ || !open_ || queued >= options_.max_queue_bytes / 2) return;
    refused_ = false;
    if (handlers_.on_writable) handlers_.on_writable();
  }

  void on_closed(const Error& why) override {
    open_ = false;
    closing_ = true;
    runtime_.cancel(std::exchange(timer_, 0));
    runtime_.cancel(std::exchange(watch_timer_, 0));
    const WsHandlers handlers = std::exchange(handlers_, {});
    if (handlers.on_close) handlers.on_close(explained(why));
    conn_.reset();
  }

  // --- WsDecoder::Sink
  WsDecoder::Next on_ws_message(WsPayload& message) override {
    if (handlers_.on_message) handlers_.on_message(message.take());
    return closing_ ? WsDecoder::Next::stop : WsDecoder::Next::go;
  }

  void on_ws_ping(ByteView payload) override {
    // The answers to a flood of pings are sent no faster than the socket takes them.
    if (closing_ || conn_->queued() >= options_.max_queue_bytes) return;
    append(kWsPong, payload);
  }

  void on_ws_pong(ByteView payload) override {
    watch_->on_pong(payload);
    watch_later();
  }

  void on_ws_close(std::uint16_t code, std::string reason) override {
    if (closing_) return;
    std::string text = conn_->remote() + ": closed by the server";
    if (code != 1005) text += " (" + std::to_string(code) + (reason.empty() ? "" : " " + reason) + ")";
    end(code, {}, make_error(Errc::disconnected, text));
  }

 private:
  Error explained(Error why) const {
    if (why.code == Errc::disconnected && !why.message.starts_with(url_.host)) why = why.context(url_.authority);
    // A server that expects TLS takes the request for nonsense and closes the connection.
    if (why.code == Errc::disconnected && !was_open_ && !url_.tls) {
      why.message += " before it answered; does it expect TLS there?";
    }
    return why;
  }

  std::uint32_t mask_key() { return keys_ ? keys_->next() : 0; }

  void append(std::uint8_t opcode, ByteView payload) {
    const std::size_t before = conn_->queued();
    ws_append_frame(conn_->out(), WsRole::client, opcode, payload, mask_key());
    watch_ask_ = watch_->on_sent(conn_->queued() - before);
    conn_->flush();
  }

  /// Checks whether the server is still there.
  void look() {
    if (!open_ || closing_) return;
    switch (watch_->on_time(runtime_.now())) {
      case PingWatch::Verdict::wait:
        break;
      case PingWatch::Verdict::ping:
        append(kWsPing, watch_->payload());
        break;
      case PingWatch::Verdict::deaf: {
        open_ = false;
        closing_ = true;
        const auto patience = std::chrono::duration_cast<std::chrono::seconds>(options_.pings.answer).count();
        conn_->abort(make_error(Errc::timed_out, url_.authority + ": the connection is up, but the server has not " +
                                                     "answered a ping for " + std::to_string(patience) + " s"));
        return;
      }
    }
    watch_later();
  }

  void watch_later() {
    const Time next = watch_->next_deadline();
    if (next == Time::max() || (watch_timer_ != 0 && watch_at_ <= next)) return;
    runtime_.cancel(watch_timer_);
    watch_at_ = next;
    watch_timer_ = runtime_.schedule(next, [weak = weak_from_this()] {
      auto self = weak.lock();
      if (!self) return;
      self->watch_timer_ = 0;
      self->look();
    });
  }

  void prepare(UrlParts url) {
    url_ = std::move(url);
    timer_ = runtime_.schedule_after(options_.handshake_timeout, [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->handshake_timed_out();
    });
  }

  /// Sends a close frame, then closes.
  void end(std::uint16_t code, std::string_view reason, Error why) {
    closing_ = true;
    open_ = false;
    ws_append_close(conn_->out(), WsRole::client, code, reason, mask_key());
    conn_->close(std::move(why));
  }

  void refuse(const std::string& why) {
    closing_ = true;
    conn_->abort(make_error(Errc::peer_unresponsive, "WebSocket with " + url_.authority + ": " + why));
  }

  bool upgraded() {
    const auto& head = parser_.get();
    if (head.result() != http::status::switching_protocols) {
      const auto status = std::to_string(head.result_int());
      refuse(head.result() == http::status::service_unavailable || head.result() == http::status::too_many_requests
                 ? "the server takes no more clients (it answered " + status + ")"
                 : "the server answered " + status + "; is it a relay?");
      return false;
    }
    if (!http::token_list(head[http::field::upgrade]).exists("websocket") ||
        !http::token_list(head[http::field::connection]).exists("upgrade") ||
        head[http::field::sec_websocket_accept] != ws_accept_value(key_)) {
      refuse("the server's answer to the upgrade is not valid");
      return false;
    }
    protocol_ = std::string(head[http::field::sec_websocket_protocol]);
    if (!protocol_.empty() && !http::token_list(options_.protocols).exists(protocol_)) {
      refuse("the server chose a subprotocol that was not offered");
      return false;
    }
    runtime_.cancel(std::exchange(timer_, 0));
    open_ = was_open_ = true;
    watch_.emplace(options_.pings, runtime_.now());
    watch_later();
    if (handlers_.on_open) handlers_.on_open();
    return true;
  }

  void handshake_timed_out() {
    timer_ = 0;
    if (open_ || closing_ || !conn_) return;
    closing_ = true;
    conn_->abort(make_error(Errc::timed_out, "WebSocket with " + url_.authority + ": no answer to the upgrade"));
  }

  Runtime& runtime_;
  std::shared_ptr<MaskKeys> keys_;
  WsOptions options_;
  WsHandlers handlers_;
  WsDecoder decoder_;
  http::response_parser<http::empty_body> parser_;
  UrlParts url_;
  std::string key_;
  std::string protocol_;
  std::shared_ptr<Conn> conn_;
  Runtime::TimerId timer_ = 0;
  std::optional<PingWatch> watch_;  ///< once the connection is open
  bool watch_ask_ = false;          ///< a ping is due
  Runtime::TimerId watch_timer_ = 0;
  Time watch_at_{};
  bool open_ = false;
  bool was_open_ = false;
  bool closing_ = false;
  bool refused_ = false;
};

class Connector final : public WsConnector {
 public:
  /// Urls that begin with `origin` are connected by `local`, if there is one.
  Connector(Runtime& runtime, Dial dial, std::string origin = {}, Dial local = {})
      : runtime_(runtime),
        keys_(std::make_shared<MaskKeys>(runtime)),
        dial_(std::move(dial)),
        local_(std::move(origin) + '/'),
        dial_local_(std::move(local)) {}

  std::shared_ptr<WsConnection> connect(const std::string& url, const WsOptions& options,
                                        WsHandlers handlers) override {
    const bool is_local = dial_local_ && url.starts_with(local_);
    auto client = std::make_shared<WsClient>(runtime_, is_local ? nullptr : keys_, options, std::move(handlers));
    const auto parts = parse_url(url, "ws", "wss");
    if (!parts) {
      client->fail_later(parts.error());
      return client;
    }
    if (is_local) {
      client->start(dial_local_, *parts, nullptr);
      return handle(std::move(client));
    }
    std::shared_ptr<TlsContext> tls;
    if (parts->tls) {
      const auto made = client_tls_.get({options.tls_ca_file, options.tls_verify});
      if (!made) {
        client->fail_later(made.error());
        return client;
      }
      tls = *made;
    }
    client->start(dial_, *parts, std::move(tls));
    return handle(std::move(client));
  }

 private:
  static std::shared_ptr<WsConnection> handle(std::shared_ptr<WsClient> client) {
    // The socket keeps the client alive while it is open; it closes when the user releases it.
    auto* raw = client.get();
    return {raw, [held = std::move(client)](WsConnection*) mutable {
              held->close();
              held.reset();
            }};
  }

  Runtime& runtime_;
  std::shared_ptr<MaskKeys> keys_;
  const Dial dial_;
  const std::string local_;
  const Dial dial_local_;
  ClientTls client_tls_;
};

}  // namespace

std::unique_ptr<WsConnector> make_ws_connector(AsioRuntime& runtime) {
  return net::make_ws_connector(runtime, dial_with(runtime));
}

std::unique_ptr<WsConnector> make_ws_connector(AsioRuntime& runtime, std::string origin,
                                               std::shared_ptr<LocalDoor> door) {
  Dial local;
  if (door) {
    local = [&runtime, door = std::move(door)](ConnectTarget, Duration, std::shared_ptr<ConnEvents> events) {
      return net::connect(runtime, door, std::move(events));
    };
  }
  return std::make_unique<Connector>(runtime, dial_with(runtime), std::move(origin), std::move(local));
}

std::unique_ptr<WsConnector> net::make_ws_connector(Runtime& runtime, Dial dial) {
  return std::make_unique<Connector>(runtime, std::move(dial));
}

}  // namespace kitsune2
