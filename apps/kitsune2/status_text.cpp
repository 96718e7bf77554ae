// The output of `kitsune2 status` for people.
#include "status_text.hpp"

#include <cstdint>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/files.hpp"
#include "text.hpp"

namespace kitsune2::cli {

namespace {

using nlohmann::json;

constexpr int kMaxDepth = 8;

const json& field(const json& of, const char* key) {
  static const json none;
  if (!of.is_object()) return none;
  const auto it = of.find(key);
  return it != of.end() ? *it : none;
}

std::string text(const json& of, const char* key, const char* otherwise = "") {
  const json& value = field(of, key);
  return value.is_string() ? files::printable(value.get_ref<const std::string&>()) : otherwise;
}

std::uint64_t number(const json& of, const char* key) {
  const json& value = field(of, key);
  return value.is_number_unsigned() ? value.get<std::uint64_t>() : 0;
}

const json& list(const json& of, const char* key) {
  static const json none = json::array();
  const json& value = field(of, key);
  return value.is_array() ? value : none;
}

std::string space_name(const std::string& id) {
  std::vector<std::uint8_t> raw;
  if (!from_base64url(id, raw)) return id;
  return '"' + files::printable(as_text(raw)) + '"';
}

std::string count_and_bytes(const json& item) {
  return std::to_string(number(item, "ops")) + " ops, " + human_bytes(static_cast<double>(number(item, "bytes")));
}

std::string gossip_text(const json& gossip) {
  return "claims " + std::to_string(number(gossip, "storage_sectors")) + " of " +
         std::to_string(number(gossip, "target_sectors")) + " sectors, " +
         std::to_string(number(gossip, "in_sync_sectors")) + " found in sync, " +
         std::to_string(number(gossip, "rounds_completed")) + " rounds completed";
}

}  // namespace

std::optional<json> read_status(std::string_view text) {
  json out = json::parse(
      text, [](int depth, json::parse_event_t, const json&) { return depth <= kMaxDepth; }, false);
  if (!out.is_object()) return std::nullopt;
  return out;
}

std::string status_text(const json& status, const std::string& data) {
  const bool running = field(status, "running") == json(true);
  std::string out = data;
  // 0.2 is not shown.
  std::string network = text(status, "network", "0.2");
  network = network == "0.2" ? "" : ", network " + network;
  if (running) {
    out += ": running (" + text(status, "role") + ", process " + std::to_string(number(status, "pid")) + "), relay " +
           text(status, "relay") + network + '\n';
    if (const auto why = text(status, "relay_failure"); !why.empty()) out += "relay cannot be reached: " + why + '\n';
  } else {
    out += ": not running" + network + '\n';
  }
  const auto line = [&out](const char* what, const std::string& value) { out.append(what).append(value).append("\n"); };
  for (const json& space : list(status, "spaces")) {
    line("space ", space_name(text(space, "space")));
    line("  holds     ", count_and_bytes(space));
    if (running) {
      line("  own url   ", text(space, "url", "not reachable"));
      line("  fetched   ", count_and_bytes(field(space, "fetched")));
      line("  served    ", count_and_bytes(field(space, "served")));
      if (const auto damaged = number(space, "damaged_ops"); damaged > 0) {
        line("  damaged   ", std::to_string(damaged) + " ops, found on the disk since the start and dropped");
      }
      if (const json& gossip = field(space, "gossip"); number(gossip, "target_sectors") > 0) {
        line("  gossip    ", gossip_text(gossip));
        for (const json& peer : list(gossip, "peers")) {
          if (text(peer, "in_sync_at").empty()) continue;
          line("  in sync   ", std::to_string(number(peer, "in_sync_sectors")) + " sectors with " + text(peer, "peer") +
                                   " at " + text(peer, "in_sync_at"));
        }
      }
      for (const json& peer : list(space, "peers")) {
        const auto is = [&peer](const char* name) { return field(peer, name) == json(true); };
        const char* way = is("direct") ? ", reached directly" : is("connected") ? ", reached by the relay" : "";
        line("  peer      ", text(peer, "url") + " arc " + text(peer, "arc") + way);
      }
    }
    const json& pending = list(space, "pending");
    if (pending.empty()) line("  pending   ", "nothing");
    for (const json& source : pending) {
      line("  pending   ", std::to_string(number(source, "ops")) + " ops from " + text(source, "source"));
    }
    for (const json& peer : list(space, "back_off")) {
      line("  back-off  ", text(peer, "source") + " until " + text(peer, "until"));
    }
  }
  return out;
}

}  // namespace kitsune2::cli
