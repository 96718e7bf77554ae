// The network and disk below a real node, so that the simulator can assemble the same node on other ones.
#pragma once

#include <functional>
#include <memory>

#include "kitsune2/builder.hpp"
#include "kitsune2/http.hpp"
#include "store/sqlite/environment.hpp"
#include "transport/udp.hpp"
#include "transport/ws.hpp"

namespace kitsune2 {

/// Network and disk of one node.
struct Platform {
  std::function<std::shared_ptr<WsConnector>()> ws_connector;
  std::function<std::shared_ptr<HttpClient>(TlsOptions)> http_client;
  std::shared_ptr<UdpBinder> udp_binder = nullptr;  ///< null: no direct paths
  sqlite::Environment disk;
};

/// The default_builder for any platform.
Builder builder_on(const Platform& platform, const Config& config, const StoreOptions& stores);

}  // namespace kitsune2
