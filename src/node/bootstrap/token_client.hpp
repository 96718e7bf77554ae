// Requests to a server that wants a token: gets one, sends it along, and gets another one when it is no longer good.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "kitsune2/bytes.hpp"
#include "kitsune2/http.hpp"
#include "kitsune2/runtime.hpp"

namespace kitsune2 {

inline constexpr int kUnauthorized = 401;  ///< the status of an answer to a request without a good token

/// The bytes of authentication material in a configuration: base64 with padding of 1 to 65,536 bytes. nullopt: it is
/// something else.
std::optional<std::string> auth_material(std::string_view base64);

/// An HttpClient that authenticates itself. Strand only.
class TokenClient : public HttpClient {
 public:
  /// The token that is sent along; empty: none yet.
  virtual const std::string& token() const = 0;
  /// It is no longer good: the next request gets another one.
  virtual void forget_token() = 0;
};

/// A client for the requests to `server` ("http://host:port"), over `http`.
///
///  T1  The first request waits for a token: PUT /authenticate with the material, answered by 200 and
///      `{"authToken":"…"}`. Requests that come meanwhile wait for the same one.
///  T2  Each request carries `Authorization: Bearer <token>`.
///  T3  A request that is answered with 401 is repeated once, with a new token. The next 401 is its answer.
///      *Rationale*: a server forgets a token after five minutes without use, and all tokens in a restart.
///  T4  Without a token the request fails: Errc::blocked if the server refuses the material, Errc::peer_unresponsive if
///      its decision is pending (202) or it cannot tell, Errc::malformed if its answer has no token; or the error of
///      the connection. Its owner tries again, with its own pauses.
/// Strand only.
std::shared_ptr<TokenClient> make_token_client(Runtime& runtime, std::shared_ptr<HttpClient> http, std::string server,
                                               std::string material);

}  // namespace kitsune2
