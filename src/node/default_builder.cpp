// The builder of a real node.
#include <map>
#include <utility>

#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/builder.hpp"
#include "kitsune2/http.hpp"
#include "kitsune2/transport_tx5.hpp"
#include "net/ws_connector.hpp"
#include "node/config_table.hpp"
#include "node/store_paths.hpp"

namespace kitsune2 {
namespace {

/// The two peer stores share a file: the first factory opens it, the second one takes its part.
class PeerFiles {
 public:
  explicit PeerFiles(std::string dir) : dir_(std::move(dir)) {}

  Result<std::shared_ptr<PeerStore>> peers(const ModuleContext& c) {
    meta_.erase(c.space);
    auto opened = open_sqlite_peer_stores(*c.runtime, c.space, peer_store_path(dir_, c.space), *c.verifier);
    if (!opened) return opened.error();
    meta_[c.space] = std::move(opened->meta);
    return std::move(opened->peers);
  }
  Result<std::shared_ptr<PeerMetaStore>> meta(const ModuleContext& c) {
    const auto it = meta_.find(c.space);
    if (it == meta_.end()) return make_error(Errc::internal, "the peer store has not been opened");
    auto out = std::move(it->second);
    meta_.erase(it);
    return out;
  }

 private:
  std::string dir_;
  std::map<SpaceId, std::shared_ptr<PeerMetaStore>> meta_;
};

Result<void> check_relay(const Config& config) {
  const auto& tx5 = config.tx5_transport;
  if (config_table::is_placeholder(tx5.server_url))
    return make_error(Errc::invalid_config, "tx5Transport.serverUrl: is not set");
  if (tx5.server_url.starts_with("ws:") && !tx5.signal_allow_plain_text)
    return make_error(
        Errc::invalid_config,
        "tx5Transport.serverUrl: is not encrypted (ws://); use wss:// or set signalAllowPlainText to true");
  return {};
}

Result<void> check_bootstrap(const Config& config) {
  if (config_table::is_placeholder(config.core_bootstrap.server_url))
    return make_error(Errc::invalid_config, "coreBootstrap.serverUrl: is not set");
  return {};
}

}  // namespace

Builder default_builder(AsioRuntime& runtime, const Config& config, const StoreOptions& stores) {
  const auto policy = stores.policy ? stores.policy : make_sha256_policy();
  Builder b = default_test_builder(nullptr, {}, policy);
  b.config = config;
  b.checks = {check_relay, check_bootstrap};
  b.transport = [&runtime](Runtime& strand, const Config& c) {
    return make_tx5_transport(strand, std::shared_ptr<WsConnector>(make_ws_connector(runtime)), c.tx5_transport);
  };
  // One client for all spaces, gone with the last of them.
  b.bootstrap = [&runtime, client = std::make_shared<std::weak_ptr<HttpClient>>()](const ModuleContext& c) {
    auto http = client->lock();
    if (!http) {
      TlsOptions tls;
      tls.ca_file = c.config->current().tx5_transport.tls_ca_file;
      http = make_http_client(runtime, std::move(tls));
      *client = http;
    }
    return make_core_bootstrap(c, std::move(http));
  };
  b.gossip = make_k2_gossip;
  if (!stores.data_dir.empty()) {
    const auto files = std::make_shared<PeerFiles>(stores.data_dir);
    b.peer_store = [files](const ModuleContext& c) { return files->peers(c); };
    b.peer_meta_store = [files](const ModuleContext& c) { return files->meta(c); };
    b.op_store = [policy, dir = stores.data_dir](const ModuleContext& c) {
      return open_sqlite_op_store(*c.runtime, policy, c.space, op_store_path(dir, c.space));
    };
  }
  return b;
}

}  // namespace kitsune2
