// Finds the shares in a data folder, and adds another one.
#include "files/shares.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "files/format.hpp"
#include "files/store_access.hpp"
#include "kitsune2/sqlite_store.hpp"
#include "node/builder/store_paths.hpp"

namespace kitsune2::files {

namespace {

namespace fs = std::filesystem;

/// The most roots that are looked at in one database, for each version.
constexpr std::size_t kMostRoots = 64;

void remove_store(const std::string& path) {
  for (const char* end : {"", "-wal", "-shm", "-data", "-lock"}) ::unlink((path + end).c_str());
}

Result<void> look_into(const std::string& path, Ed25519LocalAgent& node, HeldShares& out) {
  auto info = read_sqlite_op_store_info(path);
  if (!info) return info.error();
  const bool old = info->space == default_space(node.agent());
  for (const auto size : {kRootBytes, kRootBytes2}) {
    auto ops = read_sqlite_ops_of_size(path, size, kMostRoots);
    if (!ops) return ops.error();
    for (const auto& op : *ops) {
      const auto root = RootOp::decode(op.op_data);
      if (!root || op_id_of(op.op_data) != op.op_id) continue;
      bool own = false;
      if (!old) {
        auto space = own_space(node, op.op_id);
        if (!space) return space.error();
        own = *space == info->space;
      }
      if (old || own) out.shares.push_back(HeldShare{info->space, op.op_id, root->folder, op.stored_at, own});
    }
  }
  return {};
}

/// The file in which the ops of these paths are gathered.
std::string unfinished_path(const std::string& data_dir, const std::vector<std::string>& paths,
                            const ShareOptions& options) {
  std::vector<std::string> absolute;
  for (const auto& path : paths) {
    std::error_code error;
    const auto full = fs::absolute(path, error);
    absolute.push_back(error ? path : full.lexically_normal().string());
  }
  std::sort(absolute.begin(), absolute.end());
  std::string all = options.mtime ? "with times" : "";
  for (const auto& path : absolute) all.append(1, '\0').append(path);
  return data_dir + '/' + std::string(kUnfinished) + to_hex(op_id_of(as_bytes(all)).view().subspan(0, 8)) + ".db";
}

void remove_unfinished(const std::string& data_dir, const std::string& but) {
  std::error_code error;
  std::vector<std::string> found;
  for (fs::directory_iterator it(data_dir, error), end; !error && it != end; it.increment(error)) {
    const auto name = it->path().filename().string();
    const auto database = name.find(".db");
    if (!name.starts_with(kUnfinished) || database == std::string::npos) continue;
    auto path = data_dir + '/' + name.substr(0, database + 3);
    if (path != but) found.push_back(std::move(path));
  }
  for (const auto& path : found) remove_store(path);
}

/// A private op store, opened and closed on the strand.
class Gathered {
 public:
  Gathered(Runtime& runtime, std::string path) : runtime_(runtime), path_(std::move(path)) {}
  ~Gathered() { close(); }
  Gathered(const Gathered&) = delete;
  Gathered& operator=(const Gathered&) = delete;

  Result<void> open() {
    auto opened = try_open();
    if (!opened && opened.error().code != Errc::disk_full && opened.error().code != Errc::io &&
        opened.error().code != Errc::cancelled) {
      // It is damaged, or was left by a crash between its last two steps: everything in it is also in the source.
      remove_store(path_);
      opened = try_open();
    }
    if (!opened) return opened.error();
    store_ = std::move(*opened);
    return {};
  }
  OpStore& store() { return *store_; }
  /// After this, everything written is in the file.
  void close() {
    if (!store_) return;
    static_cast<void>(wait_on<void>(runtime_, [last = std::move(store_)](auto done) mutable {
      last.reset();
      done(Result<void>());
    }));
  }

 private:
  Result<std::shared_ptr<OpStore>> try_open() {
    return wait_on<std::shared_ptr<OpStore>>(runtime_, [this](auto done) {
      done(open_sqlite_op_store(runtime_, make_sha256_policy(), SpaceId::from_text("unfinished"), path_));
    });
  }

  Runtime& runtime_;
  const std::string path_;
  std::shared_ptr<OpStore> store_;
};

/// Whether the totals are equal, so that it may be the same share.
bool alike(const FolderSummary& held, const FolderSummary& seen) {
  return held.files == seen.files && held.dirs == seen.dirs && held.links == seen.links && held.bytes == seen.bytes;
}

/// Returns the share if it is one of `held`.
Result<std::optional<ShareReport>> held_already(const std::vector<HeldShare>& held,
                                                const std::vector<std::string>& paths, const ShareOptions& options,
                                                const std::stop_token& stop) {
  if (std::none_of(held.begin(), held.end(), [](const HeldShare& share) { return share.own; })) {
    return std::optional<ShareReport>();
  }
  auto seen = scan_paths(paths, options, stop);
  if (!seen) return seen.error();
  if (std::none_of(held.begin(), held.end(),
                   [&](const HeldShare& share) { return share.own && alike(share.folder, *seen); })) {
    return std::optional<ShareReport>();
  }
  std::vector<PathIssue> issues;
  ShareOptions reading = options;
  if (options.issue) reading.issue = [&](const PathIssue& issue) { issues.push_back(issue); };
  auto named = name_paths(paths, reading, stop);
  if (!named) return named.error();
  if (std::none_of(held.begin(), held.end(),
                   [&](const HeldShare& share) { return share.own && share.root == named->root; })) {
    return std::optional<ShareReport>();
  }
  for (const auto& issue : issues) options.issue(issue);
  return std::optional(std::move(*named));
}

}  // namespace

Result<HeldShares> find_shares(const std::string& data_dir, Ed25519LocalAgent& node) {
  HeldShares out;
  std::error_code error;
  std::vector<std::string> databases;
  for (fs::directory_iterator it(data_dir, error), end; !error && it != end; it.increment(error)) {
    const auto name = it->path().filename().string();
    if (!name.ends_with(".db") || name.ends_with(".peers.db") || name.starts_with(kUnfinished)) continue;
    databases.push_back(it->path().string());
  }
  if (error) return make_error(Errc::io, data_dir + ": " + error.message());
  for (const auto& path : databases) {
    auto looked = look_into(path, node, out);
    if (!looked && looked.error().code != Errc::not_found) out.unreadable.push_back(looked.error());
  }
  std::sort(out.shares.begin(), out.shares.end(),
            [](const HeldShare& a, const HeldShare& b) { return a.shared_at > b.shared_at; });
  return out;
}

Result<ShareAloneReport> share_alone(Runtime& runtime, const std::string& data_dir, Ed25519LocalAgent& node,
                                     const std::vector<HeldShare>& held, const std::vector<std::string>& paths,
                                     bool strict, const ShareOptions& options, const std::stop_token& stop) {
  assert_may_block(runtime, "share_alone");
  const auto path = unfinished_path(data_dir, paths, options);
  auto known = held_already(held, paths, options, stop);
  if (!known) return known.error();
  if (*known) {
    ShareAloneReport out{std::move(**known), {}, true};
    if (strict && out.report.failed > 0) return out;
    auto space = own_space(node, out.report.root);
    if (!space) return space.error();
    remove_unfinished(data_dir, path);
    remove_store(path);
    out.space = std::move(*space);
    return out;
  }
  for (int attempt = 0; attempt < 3; ++attempt) {
    Gathered gathered(runtime, path);
    if (auto opened = gathered.open(); !opened) return opened.error();
    auto report = share_paths(runtime, gathered.store(), paths, options, stop);
    if (!report) return report.error();
    auto stats = wait_on<OpStoreStats>(runtime, [&](auto done) { gathered.store().stats(std::move(done)); });
    gathered.close();
    if (!stats) return stats.error();
    ShareAloneReport out{std::move(*report), {}, false};
    if (strict && out.report.failed > 0) {
      remove_store(path);
      return out;
    }
    if (stats->ops != out.report.different_ops) {
      // An earlier run was stopped, and the paths have changed since: some of the ops it stored are not of this share.
      remove_store(path);
      continue;
    }
    auto space = own_space(node, out.report.root);
    if (!space) return space.error();
    auto moved = move_sqlite_op_store(path, op_store_path(data_dir, *space), *space);
    if (!moved && moved.error().code != Errc::already_exists) return moved.error();
    if (!moved) {
      // The share is held already, as its id shows: what was gathered is a copy.
      out.report.new_ops = out.report.new_bytes = out.report.twice_ops = out.report.twice_bytes = 0;
      out.held = true;
    }
    remove_unfinished(data_dir, path);
    remove_store(path);
    out.space = std::move(*space);
    return out;
  }
  return make_error(Errc::io, "the shared files keep changing while they are read");
}

Result<std::uint64_t> damaged_in(const std::string& data_dir, const SpaceId& space,
                                 const std::function<bool(const SqliteCheckProgress&)>& progress) {
  SqliteCheckOptions options;
  options.on_progress = progress;
  auto report = check_sqlite_op_store(op_store_path(data_dir, space), *make_sha256_policy(), options);
  if (!report) return report.error();
  return report->lost + report->wrong_entries;
}

}  // namespace kitsune2::files
