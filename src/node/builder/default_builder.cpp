// The builder of a real node.
#include <map>
#include <utility>

#include "kitsune2/asio_runtime.hpp"
#include "net/udp_socket.hpp"
#include "net/ws_connector.hpp"
#include "node/builder/base_builder.hpp"
#include "node/builder/platform.hpp"
#include "node/builder/relay_transport.hpp"
#include "node/builder/store_paths.hpp"
#include "node/config/config_table.hpp"

namespace kitsune2 {
namespace {

/// The two peer stores share a file: the first factory opens it, the second one takes the other store.
class PeerFiles {
 public:
  PeerFiles(const sqlite::Environment& disk, std::string dir) : disk_(disk), dir_(std::move(dir)) {}

  Result<std::shared_ptr<PeerStore>> peers(const ModuleContext& c) {
    meta_.erase(c.space);
    const auto path = peer_store_path(dir_, c.space);
    auto opened = sqlite::open_peer_stores(disk_, *c.runtime, c.space, path, *c.verifier);
    if (!opened && opened.error().code == Errc::corrupt && disk_.vfs == nullptr) {
      // Nothing in it is lost for good: bootstrap and gossip find the peers again. An op store is never treated like
      // this.
      if (auto aside = put_damaged_aside(path, opened.error()); !aside) return aside.error();
      opened = sqlite::open_peer_stores(disk_, *c.runtime, c.space, path, *c.verifier);
    }
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
  const sqlite::Environment disk_;
  const std::string dir_;
  std::map<SpaceId, std::shared_ptr<PeerMetaStore>> meta_;
};

Result<void> check_bootstrap(const Config& config) {
  const auto server = config_table::bootstrap_server(config.core_bootstrap);
  return server ? Result<void>() : server.error();
}

}  // namespace

Builder builder_on(const Platform& platform, const Config& config, const StoreOptions& stores) {
  const auto policy = stores.policy ? stores.policy : make_sha256_policy();
  Builder b = base_builder();
  b.config = config;
  b.checks = {check_relay, check_bootstrap};
  use_relay_transport(b, platform.ws_connector, platform.http_client, stores.data_dir, platform.udp_binder);
  // One client for all spaces, destroyed with the last of them.
  b.bootstrap = [make_client = platform.http_client,
                 client = std::make_shared<std::weak_ptr<HttpClient>>()](const ModuleContext& c) {
    auto http = client->lock();
    if (!http) {
      TlsOptions tls;
      tls.ca_file = c.config->current().network.tls_ca_file;
      http = make_client(std::move(tls));
      *client = http;
    }
    return make_core_bootstrap(c, std::move(http));
  };
  b.gossip = make_k2_gossip;
  if (stores.data_dir.empty()) {
    use_memory_stores(b, policy);
  } else {
    const auto files = std::make_shared<PeerFiles>(platform.disk, stores.data_dir);
    b.peer_store = [files](const ModuleContext& c) { return files->peers(c); };
    b.peer_meta_store = [files](const ModuleContext& c) { return files->meta(c); };
    b.op_store = [policy, disk = platform.disk, dir = stores.data_dir](const ModuleContext& c) {
      SqliteOpStoreOptions options;
      options.max_op_bytes = largest_op_bytes(c.transport->max_message_bytes());
      return sqlite::open_op_store(disk, *c.runtime, policy, c.space, op_store_path(dir, c.space), options);
    };
  }
  return complete(std::move(b));
}

Builder default_builder(AsioRuntime& runtime, const Config& config, const StoreOptions& stores) {
  return builder_on({.ws_connector = [&runtime] { return make_ws_connector(runtime); },
                     .http_client = [&runtime](TlsOptions tls) { return make_http_client(runtime, std::move(tls)); },
                     .udp_binder = make_udp_binder(runtime),
                     .disk = sqlite::real_environment()},
                    config, stores);
}

}  // namespace kitsune2
