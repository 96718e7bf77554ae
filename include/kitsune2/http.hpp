// A one-shot HTTP client, behind an interface so that its users can be tested without sockets.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/runtime.hpp"

namespace kitsune2 {

class AsioRuntime;

enum class HttpMethod { kGet, kPut };

struct HttpRequest {
  HttpMethod method = HttpMethod::kGet;
  /// "http://host[:port]/path" or "https://…", with an IPv6 host in brackets.
  std::string url;
  /// Sent with PUT only.
  std::string body;
  /// In addition to Host, User-Agent, Connection and Content-Length, which the client sets itself.
  std::vector<std::pair<std::string, std::string>> headers;
  /// The time from the call to the last byte of the answer.
  Duration timeout = std::chrono::seconds(30);
  /// A longer answer gives Errc::too_large.
  std::size_t max_response_bytes = 1U << 20;
};

struct HttpResponse {
  int status = 0;  ///< any status; only transport failures are errors
  std::string body;
};

/// Sends single requests. Strand only.
class HttpClient {
 public:
  virtual ~HttpClient() = default;
  /// Errors: Errc::invalid_argument (the url; a header with a line break), Errc::peer_unresponsive (no connection, with
  /// the reason), Errc::timed_out, Errc::too_large, Errc::malformed (not an HTTP answer), Errc::cancelled (the client
  /// was destroyed first). Redirects are not followed; they are returned with their status.
  virtual void request(HttpRequest request, Handler<HttpResponse> done) = 0;
};

/// Which servers are trusted on TLS connections. TLS 1.2 or later. `verify` always includes the host's name.
struct TlsOptions {
  std::string ca_file;  ///< PEM, trusted in addition to the system's roots; empty: only those
  bool verify = true;   ///< only an explicit user option may turn this off
};

/// The real client, with one connection per request. `runtime` must outlive it.
std::unique_ptr<HttpClient> make_http_client(AsioRuntime& runtime, TlsOptions tls = {});

}  // namespace kitsune2
