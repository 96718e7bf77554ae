// The order in which a node's dialect is looked for.
#include "node/builder/dialect_choice.hpp"

#include "node/builder/store_paths.hpp"
#include "node/config/config_table.hpp"
#include "transport/iroh/built.hpp"

namespace kitsune2 {
namespace {

std::optional<Dialect> dialect_of_relay(std::string_view relay) {
  if (relay.starts_with("ws://") || relay.starts_with("wss://")) return Dialect::v0_2;
  if (relay.starts_with("http://") || relay.starts_with("https://")) return Dialect::v0_5;
  return std::nullopt;
}

/// A file may have the relays of both transports, and says nothing then.
std::optional<Dialect> dialect_of_relays(const Config& config) {
  const bool tx5 = !config_table::is_placeholder(config.tx5_transport.server_url);
  const bool iroh = config.iroh_transport.relay_url.has_value();
  if (tx5 == iroh) return std::nullopt;
  return tx5 ? Dialect::v0_2 : Dialect::v0_5;
}

}  // namespace

Dialect default_dialect() { return iroh::has_quic() ? Dialect::v0_5 : Dialect::v0_2; }

Result<Dialect> choose_dialect(std::optional<Dialect> named, const Config& config, std::string_view relay,
                               const std::string& data_dir) {
  if (named) return *named;
  if (config.network.dialect) return *config.network.dialect;
  if (!data_dir.empty()) {
    const auto held = dialect_of_folder(data_dir);
    if (!held) return held.error();
    if (*held) return **held;
  }
  return (relay.empty() ? dialect_of_relays(config) : dialect_of_relay(relay)).value_or(default_dialect());
}

std::string because_of_folder(Dialect dialect, const std::string& data_dir) {
  if (data_dir.empty()) return {};
  const auto held = dialect_of_folder(data_dir);
  if (!held || *held != dialect) return {};
  const std::string name(to_string(dialect));
  return "; the node speaks " + name + " because " + data_dir + " has data of dialect " + name;
}

}  // namespace kitsune2
