// The table of all configuration keys. It drives parsing, checking, printing, the schema and the documentation, so that
// each key is written once.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "kitsune2/config.hpp"
#include "net/url_parts.hpp"

namespace kitsune2::config_table {

/// A string that holds a JSON object.
struct JsonText {
  std::string* text;
};

/// Where the value of a key is.
using Slot = std::variant<bool*, std::uint32_t*, std::uint64_t*, std::optional<std::uint32_t>*, std::string*,
                          std::optional<std::string>*, JsonText, std::optional<Dialect>*>;

struct Key {
  std::string_view name;
  Slot (*slot)(Config&);
  std::string_view doc;
  /// The bounds of a number. Unused for other types.
  std::uint64_t min = 0;
  std::uint64_t max = 0;
  bool reference = true;     ///< exists in the section's version of kitsune2
  bool at_run_time = false;  ///< whether it may change while the node runs
  /// Says what is wrong with a text; empty if nothing is.
  std::string (*check)(const std::string&) = nullptr;
  /// The path of the key that has replaced this one: the old name is still read, but not together with the new one, and
  /// never printed. Empty: this is not an old name.
  std::string_view now = {};
  /// The version of kitsune2 in which the key exists, if it is another one than its section's.
  std::string_view since = {};
};

struct Section {
  std::string_view name;
  std::string_view doc;
  std::span<const Key> keys;
  /// Says what is wrong between keys that are valid individually ("key: what"); empty if nothing is.
  std::string (*check)(const Config&) = nullptr;
  std::string_view version = "0.2.2";  ///< of kitsune2, in which the section exists
  /// Whether a node of that dialect uses the section; null: every node does.
  bool (*used_in)(Dialect) = nullptr;

  /// Without a dialect, every section may be used.
  bool is_used(const Config& config) const { return is_used_for_sure(config) || !config.network.dialect; }
  /// Without a dialect, that is not known of the sections of transports: what the node speaks may depend on its folder.
  bool is_used_for_sure(const Config& config) const {
    return used_in == nullptr || (config.network.dialect && used_in(*config.network.dialect));
  }
};

std::span<const Section> sections();

/// Checks one section, with defaults in all others. Errc::invalid_config names the key.
Result<void> validate(const CoreFetchConfig& config);

/// Whether a url of the configuration is still the placeholder.
bool is_placeholder(std::string_view url);
/// The bootstrap server. Errc::invalid_config, naming the key: it is not set, or is not an http(s) url.
Result<net::UrlParts> bootstrap_server(const CoreBootstrapConfig& config);

/// The name in `names` that is nearest to `name` by edits, and the number of edits.
struct Nearest {
  std::string_view name;
  std::size_t edits = 0;
};
Nearest nearest(std::string_view name, std::span<const std::string_view> names);

}  // namespace kitsune2::config_table
