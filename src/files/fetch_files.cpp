// The engine of a fetch: one thread feeds ids to the fetch module, one writes files behind it.
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <mutex>
#include <new>
#include <thread>
#include <unordered_map>
#include <unordered_set>

#include "files/allowance.hpp"
#include "files/manifest.hpp"
#include "files/out_writer.hpp"
#include "files/places.hpp"
#include "files/store_access.hpp"
#include "files/tree.hpp"
#include "files/wants.hpp"

namespace kitsune2::files {

namespace {

using std::chrono::milliseconds;
constexpr std::size_t kFeedBatch = 1024;
constexpr milliseconds kLook{200};  ///< longest sleep before looking around again
/// How often ops are looked for once more that should be held and are not.
constexpr unsigned kMostLooks = 1000;

/// A thread has no other way to say that there is no memory.
template <class F>
Result<void> with_memory(F work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return make_error(Errc::overloaded, "not enough memory");
  }
}

class Engine {
 public:
  Engine(Runtime& runtime, const std::shared_ptr<Space>& space, const std::shared_ptr<FilesHandler>& handler,
         const AgentId& self, const OpId& root, const FetchOptions& options, const std::stop_token& stop)
      : runtime_(runtime), space_(space), root_id_(root), options_(options), stop_(stop) {
    Wants::Options wants;
    wants.missing_after = options.missing_after;
    wants.tick = options.tick;
    wants.notice = [this](const std::string& text) {
      if (!options_.notice) return;
      const std::lock_guard lock(user_);
      options_.notice(text);
    };
    wants.bad_source = [this](const Url& source) {
      if (!options_.bad_source) return;
      const std::lock_guard lock(user_);
      options_.bad_source(source);
    };
    wants_ = std::make_shared<Wants>(runtime, space, handler, self, wants);
  }

  Result<FetchReport> run();

 private:
  Result<void> feed();
  Result<void> feed_manifest();
  Result<void> feed_batch(std::vector<Want>& batch);
  Result<void> drain();
  Result<Bytes> share_op(const OpId& id, const std::vector<OpId>& hints);
  Result<void> check(const WantsView& view);
  Result<void> look_at_room();
  Result<void> look_at_held();
  Result<void> afford_list(std::uint64_t bytes);
  Result<void> afford_files(std::uint64_t bytes);
  ManifestSource list_for_writer(TreeReader& tree);

  void write();
  Result<void> write_passes();
  Result<bool> write_pass();
  OutWriter::Options pass_options(bool last);
  Result<void> finish();
  OutWriter::Options writer_options();
  Result<std::vector<Bytes>> ops_for_files(OutWriter& writer, const std::vector<OpId>& ids);
  Result<Bytes> held_share_op(const OpId& id);
  Result<bool> is_given_up(const std::vector<OpId>& absent, bool last_look);
  bool gave_up() const { return fed_.load() || stop_.stop_requested() || failed_.load(); }

  void say(const PathIssue& issue) {
    if (!options_.issue) return;
    const std::lock_guard lock(user_);
    options_.issue(issue);
  }
  void progress(const WantsView& view);
  void tell_missing();

  Runtime& runtime_;
  const std::shared_ptr<Space> space_;
  const OpId root_id_;
  const FetchOptions& options_;
  const std::stop_token& stop_;
  std::shared_ptr<Wants> wants_;
  std::mutex user_;  ///< one user callback at a time

  RootOp root_;
  bool have_root_ = false;
  std::atomic<bool> fed_{false};     ///< all ops are here or given up
  std::atomic<bool> failed_{false};  ///< the feeder ended with an error
  std::atomic<bool> writer_failed_{false}, writer_done_{false};
  std::atomic<std::uint64_t> files_done_{0};
  std::atomic<std::int64_t> bytes_written_{0};
  std::atomic<std::uint64_t> held_bytes_{0};  ///< of the space, at the last look
  std::uint64_t list_bytes_ = 0;              ///< read by the feeder
  std::uint64_t file_bytes_ = 0;              ///< written in this pass
  std::vector<bool> settled_;                 ///< by the number of the file: written, kept or failed
  unsigned looked_again_ = 0;
  std::optional<Error> writer_error_;
  FetchReport report_;
  std::chrono::steady_clock::time_point last_progress_{};
};

void Engine::progress(const WantsView& view) {
  if (!options_.progress) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_progress_ < options_.tick) return;
  last_progress_ = now;
  FetchProgress out;
  out.phase = !have_root_
                  ? FetchProgress::Phase::finding
                  : (fed_ && view.pending == 0 ? FetchProgress::Phase::writing : FetchProgress::Phase::fetching);
  out.folder = root_.folder;
  out.ops_held = view.ops_held;
  out.bytes_held = view.bytes_held;
  out.bytes_arriving = view.bytes_arriving;
  out.files_done = files_done_;
  out.bytes_written = static_cast<std::uint64_t>(std::max<std::int64_t>(0, bytes_written_));
  out.fetched_ops = view.fetched_ops;
  out.fetched_bytes = view.fetched_bytes;
  out.received_bytes = view.received_bytes;
  out.pending = view.pending;
  out.missing = view.missing;
  out.sources = view.sources;
  out.live_sources = view.live_sources;
  out.wait = view.wait;
  out.wait_reason = view.wait_reason;
  const std::lock_guard lock(user_);
  options_.progress(out);
}

/// Whether to go on at all; called at every turn of every wait.
Result<void> Engine::check(const WantsView& view) {
  progress(view);
  if (stop_.stop_requested()) return stopped();
  if (writer_failed_) return make_error(Errc::cancelled, "the writer ended");
  if (view.store_error && view.store_error->code != Errc::overloaded) return view.store_error->context("the op store");
  if (options_.timeout && view.quiet >= *options_.timeout) {
    if (view.live_sources > 0)
      return make_error(Errc::timed_out, "sources answer, but no data has arrived for too long");
    const std::string what = view.sources == 0 ? "no source was found" : "no source answers";
    return make_error(Errc::timed_out, view.wait_hint.empty() ? what : what + ": " + view.wait_hint);
  }
  return {};
}

/// An op of the share itself: waits until it is here or nobody has it.
Result<Bytes> Engine::share_op(const OpId& id, const std::vector<OpId>& hints) {
  std::vector<Want> wants{Want{id, 0, false}};
  for (const auto& hint : hints) wants.push_back(Want{hint, 0, false});
  auto added = wait_on<void>(runtime_, [&](auto done) { wants_->add(wants, std::move(done)); });
  if (!added) return added.error();
  unsigned looks = 0;
  while (true) {
    if (stop_.stop_requested()) return stopped();
    const auto view = wants_->view();
    auto held = retrieve_held(runtime_, space_->op_store(), {id});
    if (!held) return held.error();
    if (!held->empty()) {
      if (op_id_of(held->front().op_data) != id) {
        return make_error(Errc::corrupt, "op " + id.to_string() + " is damaged in the store");
      }
      return held->front().op_data;
    }
    if (view.settled) return make_error(Errc::not_found, "op " + id.to_string());
    // Neither asked for nor missing: the store has an entry of it that it can neither give out nor drop.
    if (view.pending == 0 && view.missing == 0 && ++looks > kMostLooks) {
      return make_error(Errc::corrupt, "op " + id.to_string() + " is damaged in the store, and cannot be replaced");
    }
    if (auto go_on = check(view); !go_on) return go_on.error();
    wants_->wait(view.epoch, kLook);
  }
}

Result<void> Engine::feed_batch(std::vector<Want>& batch) {
  if (batch.empty()) return {};
  const std::size_t room = std::max<std::size_t>(options_.window_ops, batch.size());
  while (true) {
    const auto view = wants_->view();
    if (auto go_on = check(view); !go_on) return go_on;
    if (view.pending + batch.size() <= room) break;
    wants_->wait(view.epoch, kLook);
  }
  auto added = wait_on<void>(runtime_, [&](auto done) { wants_->add(std::move(batch), std::move(done)); });
  batch.clear();
  return added;
}

/// What the share says of its size, and whether the disk has room for it with all that is in the folder already.
Result<void> Engine::look_at_room() {
  auto folder = OutWriter::open_root(options_.out_dir);
  if (!folder) return folder.error().context("output folder");
  const auto room = free_bytes(folder->get());
  if (options_.found) {
    const std::lock_guard lock(user_);
    options_.found(root_.folder, room);
  }
  if (!room || root_.folder.bytes <= *room) return {};
  std::uint64_t there = 0;
  std::error_code error;
  namespace fs = std::filesystem;
  constexpr auto kOptions = fs::directory_options::skip_permission_denied;
  for (fs::recursive_directory_iterator it(options_.out_dir, kOptions, error), end; !error && it != end;
       it.increment(error)) {
    if (stop_.stop_requested()) return stopped();
    struct stat info {};
    if (::lstat(it->path().c_str(), &info) == 0 && S_ISREG(info.st_mode)) {
      // A file system that compresses, or keeps small files elsewhere, has fewer blocks than the file has bytes.
      there += std::max(static_cast<std::uint64_t>(info.st_size), static_cast<std::uint64_t>(info.st_blocks) * 512);
    }
  }
  if (root_.folder.bytes <= *room + there) return {};
  return make_error(Errc::disk_full, "the share has " + amount_of(root_.folder.bytes) +
                                         ", and the output folder's disk has room for " + amount_of(*room));
}

Result<void> Engine::look_at_held() {
  auto stats = wait_on<OpStoreStats>(runtime_, [&](auto done) { space_->op_store().stats(std::move(done)); });
  if (!stats) return stats.error();
  held_bytes_ = stats->bytes;
  return {};
}

Result<void> Engine::afford_list(std::uint64_t bytes) {
  list_bytes_ += bytes;
  while (!kForList.covers(list_bytes_, held_bytes_)) {
    const auto view = wants_->view();
    if (auto looked = look_at_held(); !looked) return looked;
    if (kForList.covers(list_bytes_, held_bytes_)) break;
    if (view.pending == 0) {
      return make_error(Errc::malformed, "the list of files repeats its parts: it has " +
                                             amount_of(root_.manifest_bytes) + ", made of " + amount_of(held_bytes_));
    }
    if (auto go_on = check(view); !go_on) return go_on;
    wants_->wait(view.epoch, kLook);
  }
  return {};
}

/// The writer's thread.
Result<void> Engine::afford_files(std::uint64_t bytes) {
  file_bytes_ += bytes;
  while (!kForFiles.covers(file_bytes_, held_bytes_)) {
    if (stop_.stop_requested()) return stopped();
    const bool last_look = gave_up();
    const auto epoch = wants_->view().epoch;
    if (auto looked = look_at_held(); !looked) return looked;
    if (kForFiles.covers(file_bytes_, held_bytes_)) break;
    if (failed_) return stopped();
    if (last_look) {
      return make_error(Errc::malformed, "the share repeats its ops too often: " + amount_of(root_.folder.bytes) +
                                             " of files, made of " + amount_of(held_bytes_));
    }
    wants_->wait(epoch, kLook);
  }
  return {};
}

/// The list as the writer reads it: where it is long for what is held, behind the feeder, which judges it.
ManifestSource Engine::list_for_writer(TreeReader& tree) {
  return [this, &tree, read = std::uint64_t{0}]() mutable -> Result<Bytes> {
    auto chunk = tree.next();
    if (!chunk) return chunk;
    read += chunk->size();
    while (!kForList.covers(read, held_bytes_) && !fed_) {
      if (stop_.stop_requested() || failed_) return stopped();
      wants_->wait(wants_->view().epoch, kLook);
    }
    if (failed_) return stopped();
    return chunk;
  };
}

Result<void> Engine::feed_manifest() {
  TreeReader tree([this](const OpId& id, const std::vector<OpId>& hints) { return share_op(id, hints); }, root_);
  const auto next_chunk = [&]() -> Result<Bytes> {
    auto chunk = tree.next();
    if (!chunk) return chunk;
    if (auto may = afford_list(chunk->size()); !may) return may.error();
    return chunk;
  };
  ManifestReader reader(next_chunk, root_);
  std::vector<Want> batch;
  std::uint64_t left = 0;
  const std::size_t most = std::min(kFeedBatch, std::max<std::size_t>(1, options_.window_ops));
  while (true) {
    auto record = reader.next();
    if (!record) {
      if (auto rest = feed_batch(batch); !rest) return rest;
      return record.error();
    }
    if (!*record) return feed_batch(batch);
    const auto& item = **record;
    if (item.kind == ManifestRecord::Kind::file) left = item.file.size;
    if (item.kind == ManifestRecord::Kind::pack) batch.push_back(Want{item.ids[0], item.size, true});
    if (item.kind == ManifestRecord::Kind::ids) {
      for (const auto& id : item.ids) {
        const auto size = std::min<std::uint64_t>(left, root_.chunk_bytes());
        left -= size;
        batch.push_back(Want{id, size, true});
        if (batch.size() < most) continue;
        if (auto fed = feed_batch(batch); !fed) return fed;
      }
    }
    if (batch.size() >= most) {
      if (auto fed = feed_batch(batch); !fed) return fed;
    }
  }
}

Result<void> Engine::drain() {
  while (true) {
    const auto view = wants_->view();
    if (view.pending == 0 && (view.missing == 0 || view.settled)) return {};
    if (auto go_on = check(view); !go_on) return go_on;
    wants_->wait(view.epoch, kLook);
  }
}

Result<void> Engine::feed() {
  auto bytes = share_op(root_id_, {});
  if (!bytes) {
    if (bytes.error().code != Errc::not_found) return bytes.error();
    return make_error(Errc::not_found, "no source has the root of this share; is the link right?");
  }
  auto root = RootOp::decode(*bytes);
  if (!root) return root.error();
  root_ = *root;
  have_root_ = true;
  report_.folder = root_.folder;
  if (auto room = look_at_room(); !room) return room;
  std::thread writer([this] { write(); });
  auto fed = with_memory([this] { return feed_manifest(); });
  // A list of files that is not whole still names what it has: go on with that.
  if (!fed && fed.error().code == Errc::not_found) fed = Result<void>();
  if (fed) fed = drain();
  if (!fed) failed_ = true;
  fed_ = true;
  wants_->poke();
  while (!writer_done_) {
    const auto view = wants_->view();
    progress(view);
    // Ops that turn out to be damaged are waited for as the others were.
    if (fed && view.pending > 0) fed = check(view);
    if (!fed && !failed_.exchange(true)) wants_->poke();
    wants_->wait(view.epoch, options_.tick);
  }
  writer.join();
  if (writer_error_) return *writer_error_;
  if (stop_.stop_requested() && !fed) return stopped();
  return fed;
}

// --- the writer's thread

/// Whether ops that are not held will not come. At the last look they were all here or given up: one that is neither
/// was damaged, and is fetched again.
Result<bool> Engine::is_given_up(const std::vector<OpId>& absent, bool last_look) {
  struct Look {
    bool missing = false, pending = false;
  };
  auto look = wait_on<Look>(runtime_, [&](auto done) {
    done(Look{!wants_->missing_of(absent).empty(), wants_->is_pending(absent)});
  });
  if (!look) return look.error();
  if (look->missing || look->pending || !last_look) return look->missing;
  if (++looked_again_ > kMostLooks) return true;
  std::vector<Want> wants;
  wants.reserve(absent.size());
  for (const auto& id : absent) wants.push_back(Want{id, 0, false});
  auto added = wait_on<void>(runtime_, [&](auto done) { wants_->add(wants, std::move(done)); });
  if (!added) return added.error();
  return false;
}

Result<Bytes> Engine::held_share_op(const OpId& id) {
  while (true) {
    if (stop_.stop_requested()) return stopped();
    const bool last_look = gave_up();
    const auto epoch = wants_->view().epoch;
    auto held = retrieve_held(runtime_, space_->op_store(), {id});
    if (!held) return held.error();
    if (!held->empty()) return held->front().op_data;
    if (failed_) return stopped();
    if (last_look) {
      auto given_up = is_given_up({id}, true);
      if (!given_up) return given_up.error();
      if (*given_up) return make_error(Errc::not_found, "op " + id.to_string());
    }
    wants_->wait(epoch, kLook);
  }
}

Result<std::vector<Bytes>> Engine::ops_for_files(OutWriter& writer, const std::vector<OpId>& ids) {
  std::unordered_map<OpId, Bytes> have;
  while (true) {
    if (stop_.stop_requested()) return stopped();
    const bool last_look = gave_up();
    const auto epoch = wants_->view().epoch;
    std::vector<OpId> lacking;
    std::unordered_set<OpId> asked;
    for (const auto& id : ids) {
      if (have.count(id) == 0 && asked.insert(id).second) lacking.push_back(id);
    }
    auto held = retrieve_held(runtime_, space_->op_store(), std::move(lacking));
    if (!held) return held.error();
    for (auto& op : *held) have.insert_or_assign(op.op_id, std::move(op.op_data));
    std::vector<OpId> absent;
    for (const auto& id : ids) {
      if (have.count(id) == 0) absent.push_back(id);
    }
    if (absent.empty()) break;
    if (stop_.stop_requested() || failed_) return stopped();
    auto given_up = is_given_up(absent, last_look);
    if (!given_up) return given_up.error();
    if (*given_up) {
      return make_error(Errc::not_found, "op " + absent.front().to_string() + " is not held by any source");
    }
    if (auto old = writer.finish_group_if_old(); !old) return old.error();
    wants_->wait(epoch, kLook);
  }
  std::vector<Bytes> out;
  out.reserve(ids.size());
  for (const auto& id : ids) out.push_back(have[id]);
  return out;
}

OutWriter::Options Engine::writer_options() {
  OutWriter::Options out;
  out.overwrite = options_.overwrite;
  out.modes = root_.version >= 2;
  out.chunk_bytes = root_.chunk_bytes();
  out.salt = root_id_.to_string();
  out.issue = [this](const PathIssue& issue) { say(issue); };
  out.stopped = [this] { return stop_.stop_requested(); };
  return out;
}

OutWriter::Options Engine::pass_options(bool last) {
  OutWriter::Options out = writer_options();
  out.skip = [this](std::uint64_t file) { return file < settled_.size() && settled_[file]; };
  out.settled = [this](std::uint64_t file) {
    if (file >= settled_.size()) settled_.resize(static_cast<std::size_t>(file) + 1);
    settled_[file] = true;
    ++files_done_;
  };
  out.last_pass = [last] { return last; };
  out.afford = [this](std::uint64_t bytes) { return afford_files(bytes); };
  out.handled = [this](std::int64_t bytes) { bytes_written_ += bytes; };
  return out;
}

/// Goes through the list of files once. True: nothing is left for another pass.
Result<bool> Engine::write_pass() {
  const bool last = fed_;  // decided once for the pass: what is missing then is missing
  auto root = OutWriter::open_root(options_.out_dir);
  if (!root) return root.error().context("--out");
  file_bytes_ = 0;
  std::optional<OutWriter> writer;
  writer.emplace(
      std::move(*root), [&](const std::vector<OpId>& ids) { return ops_for_files(*writer, ids); }, pass_options(last));
  TreeReader tree([this](const OpId& id, const std::vector<OpId>&) { return held_share_op(id); }, root_);
  ManifestReader reader(list_for_writer(tree), root_);
  auto done = writer->run(reader);
  const bool cut = !done && done.error().code == Errc::not_found;
  if (!done && done.error().code != Errc::disk_full && !stop_.stop_requested()) {
    // What is whole gets its name.
    if (auto group = writer->finish_group(); !group && cut) done = group;
  }
  report_.files_written += writer->counts().written;
  report_.files_kept += writer->counts().kept;
  report_.files_failed += writer->counts().failed;
  report_.dirs_failed = writer->counts().dirs_failed;  // each pass finds them again
  if (!done && !cut) return done.error();
  report_.files_unknown = root_.folder.files - reader.seen().files;
  return last || (writer->counts().postponed == 0 && !cut);
}

Result<void> Engine::write_passes() {
  while (true) {
    const auto complete = write_pass();
    if (!complete) return complete.error();
    if (*complete) return finish();
    while (true) {
      const auto epoch = wants_->view().epoch;
      if (gave_up()) break;
      wants_->wait(epoch, kLook);
    }
    if (stop_.stop_requested() || failed_) return stopped();
  }
}

/// Links, and the modes of folders: when no file is to be written any more. Names are durable behind it.
Result<void> Engine::finish() {
  auto root = OutWriter::open_root(options_.out_dir);
  if (!root) return root.error().context("--out");
  OutWriter writer(std::move(*root), {}, writer_options());
  if (root_.version < 2) return writer.sync();
  TreeReader tree([this](const OpId& id, const std::vector<OpId>&) { return held_share_op(id); }, root_);
  ManifestReader reader([&] { return tree.next(); }, root_);
  auto done = writer.finish(reader);
  if (!done && done.error().code == Errc::not_found) {
    done = Result<void>();  // the list is not whole, which is told by what is not known
    report_.links_failed += root_.folder.links - reader.seen().links;
  }
  report_.links_written = writer.counts().links_written;
  report_.links_kept = writer.counts().links_kept;
  report_.links_failed += writer.counts().links_failed;
  return done;
}

void Engine::write() {
  auto done = with_memory([this] { return write_passes(); });
  if (!done && !(done.error().code == Errc::cancelled && failed_)) {
    writer_error_ = done.error();
    writer_failed_ = true;
  }
  writer_done_ = true;
  wants_->poke();
}

// --- the whole

void Engine::tell_missing() {
  auto missing =
      wait_on<std::vector<OpId>>(runtime_, [&](auto done) { done(Result<std::vector<OpId>>(wants_->all_missing())); });
  if (!missing) return;
  report_.missing_ops = missing->size();
  std::sort(missing->begin(), missing->end());
  if (!options_.missing_op) return;
  const std::lock_guard lock(user_);
  for (const auto& id : *missing) options_.missing_op(id);
}

Result<FetchReport> Engine::run() {
  // Before anything is fetched: an output folder that cannot be used is an error now, not after a day.
  if (auto root = OutWriter::open_root(options_.out_dir); !root) return root.error().context("output folder");
  runtime_.post([wants = wants_] { wants->start(); });
  const std::stop_callback wake(stop_, [this] { wants_->poke(); });
  auto done = feed();
  const auto view = wants_->view();
  report_.fetched_ops = view.fetched_ops;
  report_.fetched_bytes = view.fetched_bytes;
  report_.held_before_ops = view.held_before;
  report_.damaged_ops = view.damaged;
  if (done) tell_missing();
  static_cast<void>(wait_on<void>(runtime_, [wants = wants_](auto stopped) {
    wants->stop();
    stopped(Result<void>());
  }));
  if (!done) return done.error();
  return report_;
}

}  // namespace

Result<FetchReport> fetch_files(Runtime& runtime, const std::shared_ptr<Space>& space,
                                const std::shared_ptr<FilesHandler>& handler, const AgentId& self, const OpId& root,
                                const FetchOptions& options, const std::stop_token& stop) {
  assert_may_block(runtime, "fetch_files");
  if (options.window_ops == 0) return make_error(Errc::invalid_argument, "the window must not be 0");
  for (const auto& folder : options.exclude) {
    if (overlap(options.out_dir, folder)) {
      return make_error(Errc::invalid_argument, "the output folder " + printable(options.out_dir) +
                                                    " and the data folder " + printable(folder) + " overlap");
    }
  }
  return Engine(runtime, space, handler, self, root, options, stop).run();
}

}  // namespace kitsune2::files
