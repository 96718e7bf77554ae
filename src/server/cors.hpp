// Which web pages may use the bootstrap server: headers for browsers (CORS).
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace kitsune2::server {

/// The headers of an answer for a request from `origin` (empty: it names none), each as "Name: value\r\n". `allowed`:
/// the origins of pages that may read answers; empty: all. The request is served in any case; a browser keeps the
/// answer from the page if its origin is not named. `tokens`: pages may send a token, which browsers allow only to
/// origins that are named. `is_preflight`: the answer to OPTIONS.
inline std::string cors_headers(const std::vector<std::string>& allowed, std::string_view origin, bool tokens,
                                bool is_preflight) {
  std::string out = "Vary: origin, access-control-request-method, access-control-request-headers\r\n";
  if (allowed.empty() && !tokens) {
    out += "Access-Control-Allow-Origin: *\r\n";
  } else if (!origin.empty() &&
             (allowed.empty() || std::find(allowed.begin(), allowed.end(), origin) != allowed.end())) {
    out.append("Access-Control-Allow-Origin: ").append(origin).append("\r\n");
  }
  if (tokens) out += "Access-Control-Allow-Credentials: true\r\n";
  if (is_preflight) {
    out +=
        "Access-Control-Allow-Methods: GET,PUT,OPTIONS\r\n"
        "Access-Control-Allow-Headers: authorization,content-type,content-length,accept\r\n";
  }
  return out;
}

}  // namespace kitsune2::server
