// What the tests of a server's routes share: a server on loopback, and a request to it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "kitsune2/relay_server.hpp"
#include "support/sockets.hpp"

namespace kitsune2::test {

/// A started server; null, and the test has failed, if it cannot be started.
inline std::unique_ptr<RelayServer> serve(const RelayServerOptions& options = {}) {
  auto server = RelayServer::start(options);
  EXPECT_TRUE(server.has_value()) << server.error().to_string();
  return server.has_value() ? std::move(*server) : nullptr;
}

/// The answer to a request, which is given whole.
inline std::string http(const std::string& address, const std::string& request) {
  const RawSocket s(address);
  s.send(request);
  return s.receive_answer();
}

}  // namespace kitsune2::test
