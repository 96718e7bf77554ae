// The HTTP client against a server of fixed answers, and with TLS.
#include "kitsune2/http.hpp"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "kitsune2/relay_server.hpp"
#include "net/url_parts.hpp"
#include "support/sockets.hpp"
#include "transport/ws.hpp"

namespace kitsune2 {
namespace {

using test::Inbox;
using test::Loop;

/// Accepts connections one after another, and answers each with fixed bytes once its request head has arrived.
class CannedServer {
 public:
  explicit CannedServer(std::string answer, bool close_after = true)
      : answer_(std::move(answer)), close_after_(close_after) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(fd_, reinterpret_cast<sockaddr*>(&at), sizeof(at));
    ::listen(fd_, 8);
    socklen_t size = sizeof(at);
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&at), &size);
    port_ = ntohs(at.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~CannedServer() {
    ::shutdown(fd_, SHUT_RDWR);
    thread_.join();
    ::close(fd_);
    for (const int fd : kept_) ::close(fd);
  }
  std::string url(const std::string& path = "/") const { return "http://127.0.0.1:" + std::to_string(port_) + path; }
  Inbox<std::string> requests;

 private:
  void serve() {
    while (true) {
      const int fd = ::accept(fd_, nullptr, nullptr);
      if (fd < 0) return;
      std::string got;
      char buffer[4096];
      std::size_t body = 0;
      while (true) {
        const auto end = got.find("\r\n\r\n");
        if (end != std::string::npos) {
          const auto field = got.find("Content-Length: ");
          body = field == std::string::npos ? 0 : std::stoul(got.substr(field + 16));
          if (got.size() >= end + 4 + body) break;
        }
        const ssize_t n = ::recv(fd, buffer, sizeof(buffer), 0);
        if (n <= 0) break;
        got.append(buffer, static_cast<std::size_t>(n));
      }
      requests.push(got);
      std::string_view rest = answer_;
      while (!rest.empty()) {
        const ssize_t n = ::send(fd, rest.data(), rest.size(), MSG_NOSIGNAL);
        if (n <= 0) break;
        rest.remove_prefix(static_cast<std::size_t>(n));
      }
      if (close_after_) {
        ::close(fd);
      } else {
        kept_.push_back(fd);
      }
    }
  }
  std::string answer_;
  bool close_after_;
  int fd_ = -1;
  int port_ = 0;
  std::vector<int> kept_;
  std::thread thread_;
};

struct Asked {
  Inbox<Result<HttpResponse>> answers;
  Loop loop;
  std::unique_ptr<HttpClient> client;

  explicit Asked(TlsOptions tls = {}) {
    loop.call([&] { client = make_http_client(loop, tls); });
  }
  ~Asked() {
    loop.call([&] { client.reset(); });
  }
  Result<HttpResponse> ask(HttpRequest request) {
    loop.call(
        [&] { client->request(std::move(request), [&](Result<HttpResponse> r) { answers.push(std::move(r)); }); });
    auto out = answers.next();
    return out ? *out : Result<HttpResponse>(make_error(Errc::internal, "no answer at all"));
  }
  Result<HttpResponse> get(const std::string& url) {
    HttpRequest request;
    request.url = url;
    return ask(std::move(request));
  }
};

TEST(HttpClient, GetAndPutSendWhatTheyShouldAndGiveStatusAndBody) {
  CannedServer server("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello");
  Asked a;
  const auto got = a.get(server.url("/a/b?c=d"));
  ASSERT_TRUE(got.has_value()) << got.error().to_string();
  EXPECT_EQ(got->status, 404);
  EXPECT_EQ(got->body, "hello");
  const auto seen = server.requests.next();
  ASSERT_TRUE(seen);
  EXPECT_TRUE(seen->starts_with("GET /a/b?c=d HTTP/1.1\r\n")) << *seen;
  EXPECT_NE(seen->find("\r\nHost: 127.0.0.1:"), std::string::npos);

  HttpRequest put;
  put.method = HttpMethod::kPut;
  put.url = server.url("/x");
  put.body = "{\"a\":1}";
  put.headers = {{"X-Test", "yes"}};
  ASSERT_TRUE(a.ask(put).has_value());
  const auto second = server.requests.next();
  ASSERT_TRUE(second);
  EXPECT_TRUE(second->starts_with("PUT /x HTTP/1.1\r\n"));
  EXPECT_NE(second->find("\r\nX-Test: yes\r\n"), std::string::npos);
  EXPECT_NE(second->find("\r\nContent-Length: 7\r\n"), std::string::npos);
  EXPECT_TRUE(second->ends_with("\r\n\r\n{\"a\":1}"));
}

TEST(HttpClient, BodiesWithChunksAndUntilTheEnd) {
  CannedServer chunked("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  Asked a;
  EXPECT_EQ(a.get(chunked.url())->body, "abcde");
  CannedServer open("HTTP/1.1 200 OK\r\n\r\nuntil the end");
  EXPECT_EQ(a.get(open.url())->body, "until the end");
  CannedServer empty("HTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_EQ(a.get(empty.url())->status, 204);
}

TEST(HttpClient, AnAnswerOverTheCapIsTooLarge) {
  CannedServer server("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n" + std::string(101, 'x'));
  CannedServer open("HTTP/1.1 200 OK\r\n\r\n" + std::string(101, 'x'));
  Asked a;
  for (const auto& url : {server.url(), open.url()}) {
    HttpRequest request;
    request.url = url;
    request.max_response_bytes = 100;
    EXPECT_EQ(a.ask(request).error().code, Errc::too_large);
    request.max_response_bytes = 101;
    EXPECT_EQ(a.ask(request)->body.size(), 101U);
  }
}

TEST(HttpClient, GarbageIsMalformedAndACutAnswerIsUnresponsive) {
  Asked a;
  CannedServer garbage("SMTP ready\r\n\r\n");
  EXPECT_EQ(a.get(garbage.url()).error().code, Errc::malformed);
  CannedServer cut("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_EQ(a.get(cut.url()).error().code, Errc::peer_unresponsive);
  CannedServer nothing("");
  EXPECT_EQ(a.get(nothing.url()).error().code, Errc::peer_unresponsive);
}

TEST(HttpClient, ASilentServerTimesOut) {
  CannedServer server("", false);
  Asked a;
  HttpRequest request;
  request.url = server.url();
  request.timeout = std::chrono::milliseconds(50);
  EXPECT_EQ(a.ask(request).error().code, Errc::timed_out);
}

TEST(HttpClient, ARefusedConnectionSaysWhere) {
  Asked a;
  const auto refused = a.get("http://127.0.0.1:9/");
  EXPECT_EQ(refused.error().code, Errc::peer_unresponsive);
  EXPECT_EQ(refused.error().message, "connect 127.0.0.1:9: Connection refused");
}

TEST(HttpClient, BadUrlsAndHeadersAreRefused) {
  Asked a;
  for (const char* url : {"", "ftp://a/", "http://", "http://a b/", "http://u@a/", "http://a:0/", "http://a:99999/",
                          "http://a/#f", "http://a\r\nX: y/", "ws://a/"}) {
    EXPECT_EQ(a.get(url).error().code, Errc::invalid_argument) << url;
  }
  HttpRequest request;
  request.url = "http://127.0.0.1:9/";
  request.headers = {{"X", "a\r\nY: b"}};
  EXPECT_EQ(a.ask(request).error().code, Errc::invalid_argument);
}

TEST(HttpClient, DestroyingItCancelsWhatIsUnderWay) {
  CannedServer server("", false);
  Asked a;
  a.loop.call([&] {
    HttpRequest request;
    request.url = server.url();
    a.client->request(request, [&](Result<HttpResponse> r) { a.answers.push(std::move(r)); });
  });
  ASSERT_TRUE(server.requests.next());
  a.loop.call([&] { a.client.reset(); });
  const auto end = a.answers.next();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->error().code, Errc::cancelled);
}

TEST(Tls, VerificationIsOnByDefault) {
  EXPECT_TRUE(TlsOptions{}.verify);
  EXPECT_TRUE(WsOptions{}.tls_verify);
  // A certificate that is not trusted: refused without any option.
  const test::Certificates unknown;
  RelayServerOptions options;
  options.tls_cert = unknown.cert;
  options.tls_key = unknown.key;
  const auto server = RelayServer::start(options);
  ASSERT_TRUE(server.has_value()) << server.error().to_string();
  Asked a;
  const auto got = a.get((*server)->bootstrap_url() + "/health");
  ASSERT_TRUE(got.has_error());
  EXPECT_EQ(got.error().code, Errc::peer_unresponsive);
}

TEST(HttpClient, TlsWithTheRightCaAndRefusalsThatSayWhy) {
  const test::Certificates good;
  RelayServerOptions options;
  options.tls_cert = good.cert;
  options.tls_key = good.key;
  const auto server = RelayServer::start(options);
  ASSERT_TRUE(server.has_value()) << server.error().to_string();
  const std::string url = (*server)->bootstrap_url() + "/health";
  EXPECT_TRUE(url.starts_with("https://127.0.0.1:"));
  {
    Asked a({good.ca, true});
    const auto got = a.get(url);
    ASSERT_TRUE(got.has_value()) << got.error().to_string();
    EXPECT_EQ(got->body, "{}");
  }
  {
    Asked a;
    const auto got = a.get(url);
    ASSERT_TRUE(got.has_error());
    EXPECT_EQ(got.error().code, Errc::peer_unresponsive);
    EXPECT_NE(got.error().message.find("is refused: "), std::string::npos) << got.error().message;
    EXPECT_NE(got.error().message.find("certificate"), std::string::npos) << got.error().message;
  }
  {
    Asked a({{}, false});
    EXPECT_TRUE(a.get(url).has_value());
  }
  {
    Asked a({"/nowhere/ca.pem", true});
    const auto got = a.get(url);
    EXPECT_EQ(got.error().code, Errc::io);
    EXPECT_NE(got.error().message.find("/nowhere/ca.pem"), std::string::npos);
  }
}

TEST(HttpClient, TlsForAnotherNameOrOutOfDateIsRefused) {
  const auto refusal = [](const test::Certificates& certs) {
    RelayServerOptions options;
    options.tls_cert = certs.cert;
    options.tls_key = certs.key;
    const auto server = RelayServer::start(options);
    Asked a({certs.ca, true});
    const auto got = a.get((*server)->bootstrap_url() + "/health");
    return got.has_error() ? got.error().message : std::string("accepted");
  };
  EXPECT_NE(refusal(test::Certificates("DNS:elsewhere.example")).find("IP address mismatch"), std::string::npos);
  EXPECT_NE(refusal(test::Certificates("DNS:localhost,IP:127.0.0.1", -1)).find("expired"), std::string::npos);
}

TEST(UrlParts, PortsHostsAndTargets) {
  const auto a = net::parse_url("http://example.org", "http", "https");
  ASSERT_TRUE(a.has_value());
  EXPECT_EQ(a->port, 80);
  EXPECT_EQ(a->target, "/");
  EXPECT_FALSE(a->tls);
  const auto b = net::parse_url("https://[::1]/x?y", "http", "https");
  ASSERT_TRUE(b.has_value());
  EXPECT_EQ(b->host, "::1");
  EXPECT_EQ(b->port, 443);
  EXPECT_EQ(b->target, "/x?y");
  const auto c = net::parse_url("wss://h:1?q", "ws", "wss");
  ASSERT_TRUE(c.has_value());
  EXPECT_EQ(c->target, "/?q");
  EXPECT_TRUE(c->tls);
}

}  // namespace
}  // namespace kitsune2
