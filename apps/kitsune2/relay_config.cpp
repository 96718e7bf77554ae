// Reads the file of `relay --config`.
#include "relay_config.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

namespace kitsune2::cli {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxBytes = 1U << 20;
constexpr std::array<std::string_view, 6> kNotForAFile{"config", "json", "quiet", "help", "log-level", "log-format"};

Result<std::string> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string out(kMaxBytes + 1, '\0');
  if (!file.read(out.data(), static_cast<std::streamsize>(out.size())) && !file.eof()) {
    return make_error(Errc::invalid_config, path + ": " + std::strerror(errno));
  }
  out.resize(static_cast<std::size_t>(file.gcount()));
  if (out.size() > kMaxBytes) return make_error(Errc::invalid_config, path + ": over 1 MiB");
  return out;
}

/// The value as it would be written on a command line.
Result<std::vector<std::string>> words(const json& value) {
  std::vector<std::string> out;
  bool good = true;
  const auto add = [&](const json& one) {
    if (one.is_string()) {
      out.push_back(one.get<std::string>());
    } else if (one.is_boolean() || one.is_number_integer()) {
      out.push_back(one.dump());
    } else {
      good = false;
    }
  };
  if (value.is_array()) {
    std::for_each(value.begin(), value.end(), add);
  } else {
    add(value);
  }
  if (good) return out;
  return make_error(Errc::invalid_config, "must be a string, an integer, a boolean or an array of these");
}

}  // namespace

Result<void> read_relay_config(CLI::App& relay, const std::string& path) {
  auto text = read(path);
  if (!text) return text.error();
  const auto bad = [&](const std::string& what) { return make_error(Errc::invalid_config, path + ": " + what); };
  std::vector<std::string> seen;
  std::string twice;
  const auto on_event = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::key && depth == 1) {
      const auto key = parsed.get<std::string>();
      if (std::find(seen.begin(), seen.end(), key) != seen.end()) twice = key;
      seen.push_back(key);
    }
    return depth <= 3;
  };
  const json config = json::parse(*text, on_event, false);
  if (!config.is_object()) return bad("not a JSON object");
  if (!twice.empty()) return bad(twice + ": given twice");
  for (const auto& [key, value] : config.items()) {
    const bool other = std::find(kNotForAFile.begin(), kNotForAFile.end(), key) != kNotForAFile.end();
    CLI::Option* option = other ? nullptr : relay.get_option_no_throw("--" + key);
    if (option == nullptr) return bad(key + (other ? ": cannot be set in a file" : ": is not an option of relay"));
    auto list = words(value);
    if (!list) return bad(key + ": " + list.error().message);
    if (option->count() > 0) continue;  // the command line takes precedence
    try {
      for (const std::string& word : *list) option->add_result(word);
      option->run_callback();
    } catch (const CLI::ParseError& error) {
      std::string why = error.what();
      std::replace(why.begin(), why.end(), '\n', ' ');
      return bad(std::string(key).append(": ").append(why));
    }
  }
  return {};
}

}  // namespace kitsune2::cli
