#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli.hpp"
#include "files/store_access.hpp"
#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/files.hpp"
#include "kitsune2/op_store.hpp"
#include "status_socket.hpp"

namespace kitsune2::cli {

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

/// A stopped node's databases, opened for reading only.
Result<json> look_at(const std::string& data) {
  std::error_code error;
  if (!fs::is_directory(data, error)) return make_error(Errc::not_found, data + ": no such folder");
  json out = {{"running", false}, {"spaces", json::array()}};
  AsioRuntime runtime;
  runtime.start();
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(data, error)) {
    const auto name = entry.path().filename().string();
    if (name.ends_with(".db") && !name.ends_with(".peers.db")) files.push_back(entry.path());
  }
  if (error) return make_error(Errc::io, data + ": " + error.message());
  std::sort(files.begin(), files.end());
  for (const auto& file : files) {
    std::vector<std::uint8_t> raw;
    if (!from_base64url(file.stem().string(), raw)) continue;
    const SpaceId space{ByteView(raw)};
    SqliteOpStoreOptions options;
    options.read_only = true;
    auto store = open_sqlite_op_store(runtime, make_sha256_policy(), space, file.string(), options);
    if (!store) return store.error();
    auto stats = files::wait_on<OpStoreStats>(runtime, [&](auto done) { (*store)->stats(std::move(done)); });
    if (!stats) return stats.error();
    using Pending = std::vector<std::pair<Url, std::vector<OpId>>>;
    auto pending = files::wait_on<Pending>(runtime, [&](auto done) { (*store)->retrieve_pending(std::move(done)); });
    if (!pending) return pending.error();
    json item = {
        {"space", space.to_string()}, {"ops", stats->ops}, {"bytes", stats->bytes}, {"pending", json::array()}};
    std::uint64_t pairs = 0;
    for (const auto& [url, ids] : *pending) {
      item["pending"].push_back({{"source", url.to_string()}, {"ops", ids.size()}});
      pairs += ids.size();
    }
    item["pending_pairs"] = pairs;
    out["spaces"].push_back(std::move(item));
    runtime.call([&] { store->reset(); });
  }
  runtime.stop();
  return out;
}

std::string space_name(const std::string& id) {
  std::vector<std::uint8_t> raw;
  if (!from_base64url(id, raw)) return id;
  return '"' + files::printable(as_text(raw)) + '"';
}

std::string count_and_bytes(const json& item) {
  return std::to_string(item.value("ops", std::uint64_t{0})) + " ops, " +
         human_bytes(static_cast<double>(item.value("bytes", std::uint64_t{0})));
}

void print(const json& status, const std::string& data) {
  const bool running = status.value("running", false);
  if (running) {
    std::printf("%s: running (%s, process %s), relay %s\n", data.c_str(), status.value("role", "").c_str(),
                std::to_string(status.value("pid", 0)).c_str(), status.value("relay", "").c_str());
  } else {
    std::printf("%s: not running\n", data.c_str());
  }
  for (const auto& space : status.value("spaces", json::array())) {
    std::printf("space %s\n", space_name(space.value("space", "")).c_str());
    std::printf("  holds     %s\n", count_and_bytes(space).c_str());
    if (running) {
      const auto url =
          space.contains("url") && space["url"].is_string() ? space["url"].get<std::string>() : "not reachable";
      std::printf("  own url   %s\n", url.c_str());
      std::printf("  fetched   %s\n", count_and_bytes(space.value("fetched", json::object())).c_str());
      std::printf("  served    %s\n", count_and_bytes(space.value("served", json::object())).c_str());
      for (const auto& peer : space.value("peers", json::array())) {
        std::printf("  peer      %s arc %s\n", peer.value("url", "").c_str(), peer.value("arc", "").c_str());
      }
    }
    const auto pending = space.value("pending", json::array());
    if (pending.empty()) std::printf("  pending   nothing\n");
    for (const auto& source : pending) {
      std::printf("  pending   %s ops from %s\n", std::to_string(source.value("ops", std::uint64_t{0})).c_str(),
                  source.value("source", "").c_str());
    }
    for (const auto& peer : space.value("back_off", json::array())) {
      std::printf("  back-off  %s until %s\n", peer.value("source", "").c_str(), peer.value("until", "").c_str());
    }
  }
}

}  // namespace

int run_status(const Common& common, const StatusArgs& args) {
  Output out(common);
  json status;
  auto live = ask_status(args.data);
  if (live) {
    status = json::parse(*live, nullptr, false);
    if (!status.is_object()) return out.error(make_error(Errc::io, "the running node's answer is not understood"));
  } else {
    std::error_code error;
    if (!fs::is_directory(args.data, error)) {
      out.error(make_error(Errc::invalid_argument, args.data + ": no such folder"));
      return kUsage;
    }
    if (live.error().code != Errc::not_found) return out.error(live.error());
    auto looked = look_at(args.data);
    if (!looked) return out.error(looked.error());
    status = std::move(*looked);
  }
  if (common.json) {
    status["event"] = "status";
    std::printf("%s\n", status.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
  } else {
    print(status, args.data);
  }
  return kOk;
}

}  // namespace kitsune2::cli
