// HTTP requests of a node, each over its own connection.
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <unordered_set>
#include <utility>

#include "kitsune2/http.hpp"
#include "net/dial.hpp"
#include "net/url_parts.hpp"

namespace kitsune2 {

namespace {

namespace http = boost::beast::http;
using namespace kitsune2::net;

bool has_line_break(std::string_view text) { return text.find_first_of("\r\n") != std::string_view::npos; }

/// A request that is under way.
class Exchange final : public ConnEvents, public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(Runtime& runtime, HttpRequest request, Handler<HttpResponse> done)
      : runtime_(runtime), request_(std::move(request)), done_(std::move(done)) {
    parser_.body_limit(request_.max_response_bytes);
    parser_.header_limit(16U << 10);
    parser_.eager(true);
  }

  std::function<void(Exchange*)> on_end;

  void start(const Dial& dial, const UrlParts& url, std::shared_ptr<TlsContext> tls) {
    const bool put = request_.method == HttpMethod::kPut;
    head_ = (put ? "PUT " : "GET ") + url.target + " HTTP/1.1\r\nHost: " + url.authority +
            "\r\nUser-Agent: kitsune2-cpp\r\nConnection: close\r\n";
    for (const auto& [name, value] : request_.headers) head_.append(name).append(": ").append(value).append("\r\n");
    if (put) head_ += "Content-Length: " + std::to_string(request_.body.size()) + "\r\n";
    head_ += "\r\n";
    where_ = url.authority;
    timer_ = runtime_.schedule_after(request_.timeout, [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->timed_out();
    });
    conn_ = dial({url.host, url.port, std::move(tls)}, request_.timeout, shared_from_this());
  }

  void cancel() {
    if (conn_) conn_->abort(make_error(Errc::cancelled, "the client was closed"));
  }

  void on_connected() override {
    conn_->out().append(as_bytes(head_));
    if (request_.method == HttpMethod::kPut) conn_->out().append(as_bytes(request_.body));
    conn_->flush();
  }

  std::size_t on_data(const Incoming& in) override {
    std::size_t used = 0;
    boost::system::error_code ec;
    while (used < in.size && !parser_.is_done()) {
      used += parser_.put(boost::asio::buffer(in.data + used, in.size - used), ec);
      if (ec) break;
    }
    if (ec == http::error::need_more) return used;
    if (ec == http::error::body_limit) {
      conn_->abort(make_error(
          Errc::too_large, where_ + ": the answer is over " + std::to_string(request_.max_response_bytes) + " bytes"));
    } else if (ec) {
      conn_->abort(make_error(Errc::malformed, where_ + ": not an HTTP answer (" + ec.message() + ")"));
    } else if (parser_.is_done()) {
      if (parser_.get().result_int() / 100 == 1) {
        conn_->abort(make_error(Errc::malformed, where_ + ": an answer without a request"));
      } else {
        conn_->abort(make_error(Errc::disconnected, "done"));
      }
    }
    return in.size;
  }

  void on_closed(const Error& why) override {
    runtime_.cancel(std::exchange(timer_, 0));
    conn_.reset();
    if (parser_.got_some() && !parser_.is_done() && why.code == Errc::disconnected) {
      // An answer without a length ends with the connection.
      boost::system::error_code ec;
      parser_.put_eof(ec);
    }
    const auto done = std::exchange(done_, nullptr);
    if (on_end) std::exchange(on_end, nullptr)(this);
    if (!done) return;
    if (why.code == Errc::disconnected && parser_.is_done()) {
      auto answer = parser_.release();
      return done(HttpResponse{static_cast<int>(answer.result_int()), std::move(answer.body())});
    }
    if (why.code == Errc::disconnected) {
      return done(make_error(Errc::peer_unresponsive, where_ + ": " + why.message + " before the answer was whole"));
    }
    done(why);
  }

 private:
  void timed_out() {
    timer_ = 0;
    if (conn_) conn_->abort(make_error(Errc::timed_out, where_ + ": no answer in time"));
  }

  Runtime& runtime_;
  HttpRequest request_;
  Handler<HttpResponse> done_;
  http::response_parser<http::string_body> parser_;
  std::string head_;
  std::string where_;
  std::shared_ptr<Conn> conn_;
  Runtime::TimerId timer_ = 0;
};

class Client final : public HttpClient {
 public:
  Client(Runtime& runtime, Dial dial, TlsOptions tls)
      : runtime_(runtime), dial_(std::move(dial)), tls_options_(std::move(tls)) {}
  ~Client() override {
    for (const auto& exchange : std::exchange(*active_, {})) {
      exchange->on_end = nullptr;
      exchange->cancel();
    }
  }

  void request(HttpRequest request, Handler<HttpResponse> done) override {
    const auto refuse = [&](Error why) {
      runtime_.post([done = std::move(done), why = std::move(why)] { done(why); });
    };
    const auto url = parse_url(request.url, "http", "https");
    if (!url) return refuse(url.error());
    for (const auto& [name, value] : request.headers) {
      if (name.empty() || has_line_break(name) || has_line_break(value)) {
        return refuse(make_error(Errc::invalid_argument, "an HTTP header with a line break or without a name"));
      }
    }
    std::shared_ptr<TlsContext> tls;
    if (url->tls) {
      const auto made = client_tls_.get(tls_options_);
      if (!made) return refuse(made.error());
      tls = *made;
    }
    auto exchange = std::make_shared<Exchange>(runtime_, std::move(request), std::move(done));
    active_->insert(exchange);
    exchange->on_end = [weak = std::weak_ptr(active_)](Exchange* ended) {
      if (const auto active = weak.lock()) active->erase(ended->shared_from_this());
    };
    exchange->start(dial_, *url, std::move(tls));
  }

 private:
  Runtime& runtime_;
  Dial dial_;
  TlsOptions tls_options_;
  ClientTls client_tls_;
  std::shared_ptr<std::unordered_set<std::shared_ptr<Exchange>>> active_ =
      std::make_shared<std::unordered_set<std::shared_ptr<Exchange>>>();
};

}  // namespace

std::unique_ptr<HttpClient> make_http_client(AsioRuntime& runtime, TlsOptions tls) {
  return net::make_http_client(runtime, dial_with(runtime), std::move(tls));
}

std::unique_ptr<HttpClient> net::make_http_client(Runtime& runtime, Dial dial, TlsOptions tls) {
  return std::make_unique<Client>(runtime, std::move(dial), std::move(tls));
}

}  // namespace kitsune2
