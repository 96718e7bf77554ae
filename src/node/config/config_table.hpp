// Every configuration key, once: parsing, checking, printing, the schema and the documentation are driven by this
// table.
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

/// Where a key's value is.
using Slot = std::variant<bool*, std::uint32_t*, std::uint64_t*, std::optional<std::uint32_t>*, std::string*, JsonText,
                          Dialect*>;

struct Key {
  std::string_view name;
  Slot (*slot)(Config&);
  std::string_view doc;
  /// Bounds of a number. Unused for other types.
  std::uint64_t min = 0;
  std::uint64_t max = 0;
  bool reference = true;     ///< exists in kitsune2 0.2.2
  bool at_run_time = false;  ///< may change while the node runs
  /// What is wrong with a text; empty: nothing.
  std::string (*check)(const std::string&) = nullptr;
  /// The path of the key that has taken this one's place: this one is still read, but not together with that one, and
  /// never printed. Empty: it is no old name.
  std::string_view now = {};
};

struct Section {
  std::string_view name;
  std::string_view doc;
  std::span<const Key> keys;
  /// What is wrong between keys that are right alone ("key: what"); empty: nothing.
  std::string (*check)(const Config&) = nullptr;
};

std::span<const Section> sections();

/// Checks one section, the others being right. Errc::invalid_config naming the key.
Result<void> validate(const CoreFetchConfig& config);

/// Whether a url of the configuration has not been set.
bool is_placeholder(std::string_view url);
/// The bootstrap server. Errc::invalid_config naming the key: it is not set, or no http(s) url.
Result<net::UrlParts> bootstrap_server(const CoreBootstrapConfig& config);

/// The name in `names` that is nearest to `name` by edits, and how many edits.
struct Nearest {
  std::string_view name;
  std::size_t edits = 0;
};
Nearest nearest(std::string_view name, std::span<const std::string_view> names);

}  // namespace kitsune2::config_table
