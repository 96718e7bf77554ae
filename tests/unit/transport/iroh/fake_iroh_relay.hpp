// An iroh relay and its sockets in virtual time.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kitsune2/testing/sim_runtime.hpp"
#include "transport/iroh/endpoint_key.hpp"
#include "transport/iroh/relay_frames.hpp"
#include "transport/ws.hpp"

namespace kitsune2::tests {

class FakeIrohSocket;

/// Challenge, proof for TLS, forwards, pongs and EndpointGone, as a stock relay does them. What is for nobody is
/// dropped.
class FakeIrohRelay {
 public:
  struct Options {
    Duration latency = std::chrono::milliseconds(5);  ///< one way
    bool accept = true;                               ///< false: connections are refused
    bool answer = true;                               ///< false: no challenge, no pongs
    std::string protocol = "iroh-relay-v2";           ///< its choice; empty: no echo
    std::string token;                                ///< that it wants; empty: none
    std::uint64_t bytes_per_second = 0;               ///< of each client's socket; 0: no limit
    KeyExporter client_session;                       ///< of TLS, at the client's end; empty: without TLS
    KeyExporter relay_session;                        ///< the same at the relay's end
    bool trusting = false;                            ///< confirms every client at once, unasked
  };

  explicit FakeIrohRelay(testing::SimWorld& world, std::string server = "ws://relay:80");
  ~FakeIrohRelay();

  Options options;
  /// Sees every forward; false drops it.
  std::function<bool(const iroh::EndpointId& from, const iroh::Datagrams& datagrams)> filter;

  /// The beginning of the urls of its clients.
  const std::string& server() const { return server_; }
  std::shared_ptr<WsConnector> connector(testing::SimRuntime& client);
  std::size_t connections() const { return sockets_.size(); }
  /// Closes all connections, as when the relay dies.
  void cut();
  /// Sends a frame to every client.
  void to_all(const iroh::RelayFrame& frame);
  // A client without a socket.
  void attach(const iroh::EndpointId& id, std::function<void(const iroh::Datagrams& datagrams)> receive);
  void detach(const iroh::EndpointId& id) { attached_.erase(id); }
  /// As if the client `from` had sent it.
  void forward(const iroh::EndpointId& from, const iroh::Datagrams& datagrams);

  std::uint64_t handshakes = 0;
  std::uint64_t challenges = 0;  ///< sent
  std::uint64_t pings = 0;
  std::uint64_t pongs = 0;
  std::uint64_t violations = 0;  ///< of the protocol, by clients
  std::vector<Time> connect_times;
  std::vector<std::string> urls;     ///< that clients asked for
  std::vector<std::string> offered;  ///< subprotocols
  std::vector<std::string> tokens;   ///< that were presented
  std::vector<std::string> headers;  ///< that clients added for their TLS session

 private:
  friend class FakeIrohSocket;
  friend class FakeIrohConnector;
  iroh::RelayVersion version() const;
  void on_connect(const std::shared_ptr<FakeIrohSocket>& socket);
  void on_tls_headers(const std::shared_ptr<FakeIrohSocket>& socket, const std::string& headers);
  void greet(const std::shared_ptr<FakeIrohSocket>& socket);
  void on_client_message(const std::shared_ptr<FakeIrohSocket>& socket, const Bytes& message);

  testing::SimWorld& world_;
  const std::string server_;
  std::unique_ptr<testing::SimRuntime> runtime_;
  std::vector<std::shared_ptr<FakeIrohSocket>> sockets_;
  std::map<iroh::EndpointId, std::function<void(const iroh::Datagrams&)>> attached_;
};

}  // namespace kitsune2::tests
