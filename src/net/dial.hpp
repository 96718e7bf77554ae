// The clients of src/net over any kind of connection: real sockets, or those of a test or a fuzzer.
#pragma once

#include <functional>
#include <memory>

#include "kitsune2/http.hpp"
#include "net/conn.hpp"
#include "transport/ws.hpp"

namespace kitsune2::net {

/// Makes a connection, as `connect` does.
using Dial =
    std::function<std::shared_ptr<Conn>(ConnectTarget target, Duration timeout, std::shared_ptr<ConnEvents> events)>;

/// Like the functions of the same name in kitsune2/http.hpp and net/ws_connector.hpp.
std::unique_ptr<HttpClient> make_http_client(Runtime& runtime, Dial dial, TlsOptions tls = {});
std::unique_ptr<WsConnector> make_ws_connector(Runtime& runtime, Dial dial);

inline Dial dial_with(AsioRuntime& runtime) {
  return [&runtime](ConnectTarget target, Duration timeout, std::shared_ptr<ConnEvents> events) {
    return connect(runtime, std::move(target), timeout, std::move(events));
  };
}

}  // namespace kitsune2::net
