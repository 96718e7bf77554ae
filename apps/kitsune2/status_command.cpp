// `kitsune2 status`: shows the state of a running node, or what is in its data folder.
#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "cli.hpp"
#include "databases.hpp"
#include "files/store_access.hpp"
#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/files.hpp"
#include "kitsune2/sqlite_store.hpp"
#include "node/builder/store_paths.hpp"
#include "status_socket.hpp"
#include "status_text.hpp"

namespace kitsune2::cli {

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

/// How many ops are asked for of each source. Read in pages, in which a pair may occur more than once: what is kept of
/// each is a hash, so that many requests take 8 bytes each and not an id with its place on the heap.
Result<std::map<std::string, std::size_t>> count_pending(AsioRuntime& runtime, OpStore& store) {
  constexpr std::size_t kIdsAPage = 65536;
  std::map<std::string, std::vector<std::size_t>> seen;
  for (std::optional<std::uint64_t> at = 0; at;) {
    auto page = files::wait_on<PendingPage>(
        runtime, [&](auto done) { store.retrieve_pending_page(*at, kIdsAPage, std::move(done)); });
    if (!page) return page.error();
    for (const auto& [source, ids] : page->requests) {
      auto& of_source = seen[source.to_string()];
      for (const auto& id : ids) of_source.push_back(std::hash<OpId>{}(id));
    }
    at = page->next;
  }
  std::map<std::string, std::size_t> out;
  for (auto& [source, hashes] : seen) {
    std::sort(hashes.begin(), hashes.end());
    out[source] = static_cast<std::size_t>(std::unique(hashes.begin(), hashes.end()) - hashes.begin());
  }
  return out;
}

/// Reads a stopped node's databases, opened for reading only.
Result<json> look_at(const std::string& data) {
  std::error_code error;
  if (!fs::is_directory(data, error)) return make_error(Errc::not_found, data + ": no such folder");
  json out = {{"running", false}, {"spaces", json::array()}};
  const auto network = dialect_of_folder(data);
  if (!network) return network.error();
  if (*network) out["network"] = std::string(to_string(**network));
  AsioRuntime runtime;
  runtime.start();
  auto databases = databases_of(data);
  if (!databases) return databases.error();
  for (const auto& file : *databases) {
    // Not by the file's name, which is a hash of a long id, and has a prefix for an id that begins with a dash.
    auto info = read_sqlite_op_store_info(file);
    if (!info && info.error().code == Errc::not_found) continue;  // removed meanwhile, or not created yet
    if (!info) return info.error();
    const SpaceId space = info->space;
    SqliteOpStoreOptions options;
    options.read_only = true;
    auto store = open_sqlite_op_store(runtime, make_sha256_policy(), space, file, options);
    if (!store) return store.error();
    auto stats = files::wait_on<OpStoreStats>(runtime, [&](auto done) { (*store)->stats(std::move(done)); });
    if (!stats) return stats.error();
    auto pending = count_pending(runtime, **store);
    if (!pending) return pending.error();
    json item = {
        {"space", space.to_string()}, {"ops", stats->ops}, {"bytes", stats->bytes}, {"pending", json::array()}};
    std::uint64_t pairs = 0;
    for (const auto& [source, ops] : *pending) {
      item["pending"].push_back({{"source", source}, {"ops", ops}});
      pairs += ops;
    }
    item["pending_pairs"] = pairs;
    out["spaces"].push_back(std::move(item));
    runtime.call([&] { store->reset(); });
  }
  runtime.stop();
  return out;
}

}  // namespace

int run_status(const Common& common, const StatusArgs& args) {
  Output out(common);
  json status;
  auto live = ask_status(args.data);
  if (live) {
    auto answer = read_status(*live);
    if (!answer) return out.error(make_error(Errc::io, "the running node's answer is not understood"));
    status = std::move(*answer);
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
    std::fputs(status_text(status, args.data).c_str(), stdout);
  }
  return kOk;
}

}  // namespace kitsune2::cli
