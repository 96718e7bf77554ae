// The right of this node to use a relay that asks for authentication.
#pragma once

#include <memory>
#include <string>

#include "kitsune2/http.hpp"
#include "kitsune2/transport_iroh.hpp"

namespace kitsune2 {

struct RelayAccessOptions {
  std::string server;    ///< the relay's, "http://host:port" or "https://…"
  std::string material;  ///< what its authentication asks for
  Duration interval{};   ///< between two times at which the endpoint's key is told
  /// Whether the server is known to have /relay/keepalive. That of kitsune2 0.4.1 has /relay/register in its place.
  bool has_keepalive = true;
};

/// What RelayLink asks before each connection, over `http`:
///
///  A1  The endpoint's key is told to the server, with a token: PUT /relay/keepalive or /relay/register. TokenClient
///      gets the token, and another one when it is no longer good.
///      In dialect 0.4 the server may be of either version: the other path is tried if one is answered with 404, and is
///      used from then on. *Rationale*: the server of 0.5.3, which has only the former, serves stock nodes of 0.4.1.
///  A2  Then the relay is presented that token. If the relay refuses it, it is given up, and the next try asks for
///      another. *Rationale* for dialect 0.4: the relay of 0.4.1 looks at the key only and ignores the token, but those
///      of 0.5.3 and ours let nobody in without one.
///  A3  As long as the node lives, the key is told again at each interval. *Rationale*: the server forgets a token
///      after five minutes without use, and a key with it.
/// Without the right, the reason is that of TokenClient (T4), or Errc::peer_unresponsive with the server's status.
/// Strand only. `runtime` must outlive what is returned.
RelayAccess make_relay_access(Runtime& runtime, std::shared_ptr<HttpClient> http, RelayAccessOptions options);

}  // namespace kitsune2
