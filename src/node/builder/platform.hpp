// What a real node stands on, so that the simulator puts together the same node on something else.
#pragma once

#include <functional>
#include <memory>

#include "kitsune2/builder.hpp"
#include "kitsune2/http.hpp"
#include "store/sqlite/environment.hpp"
#include "transport/ws.hpp"

namespace kitsune2 {

/// Network and disk of one node.
struct Platform {
  std::function<std::shared_ptr<WsConnector>()> ws_connector;
  std::function<std::shared_ptr<HttpClient>(TlsOptions)> http_client;
  sqlite::Environment disk;
};

/// default_builder on any platform.
Builder builder_on(const Platform& platform, const Config& config, const StoreOptions& stores);

}  // namespace kitsune2
