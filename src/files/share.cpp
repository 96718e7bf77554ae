// Walks folders and cuts them into ops.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "files/fd.hpp"
#include "files/manifest.hpp"
#include "files/places.hpp"
#include "files/store_access.hpp"
#include "files/tree.hpp"

namespace kitsune2::files {

namespace {

constexpr int kReadFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
/// A pack ends early at a name whose hash has these bits zero, once it has kMinPackBytes. So soon after a changed file
/// the packs are the same as before, and sharing again stores little.
constexpr std::uint64_t kMinPackBytes = kChunkBytes / 2;
constexpr std::uint64_t kPackCutMask = 15;
/// Records wait in memory until their pack is full; beyond this number the pack ends early.
constexpr std::size_t kMaxWaitingRecords = 1U << 20;

std::uint64_t name_hash(std::string_view name) {
  std::uint64_t hash = 14695981039346656037ULL;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<std::uint8_t>(c)) * 1099511628211ULL;
  return hash ^ hash >> 32;
}

struct SameFile {
  dev_t device;
  ino_t inode;
  friend bool operator==(const SameFile&, const SameFile&) = default;
};

std::string why_special(mode_t mode) {
  if (S_ISFIFO(mode)) return "a named pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "neither a file nor a folder";
}

/// The error for a path that the user named, from errno.
Error path_error(const std::string& path) {
  Error error = errno_error(errno, printable(path));
  if (error.code == Errc::not_found) error.code = Errc::invalid_argument;
  return error;
}

bool same_moment(const struct stat& a, const struct stat& b) {
  return a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec &&
         a.st_ctim.tv_sec == b.st_ctim.tv_sec && a.st_ctim.tv_nsec == b.st_ctim.tv_nsec;
}

std::uint16_t mode_of(const struct stat& info) { return static_cast<std::uint16_t>(info.st_mode & kModeBits); }

/// One walk through the paths that are shared.
class Sharer {
 public:
  /// `ops`: null to look at the names only. `version`: that of the list of files; with 1 the walk ends with
  /// `needs_version_2` if that version cannot express everything.
  Sharer(BatchWriter* ops, std::uint8_t version, const ShareOptions& options, const std::stop_token& stop)
      : options_(options), stop_(stop), ops_(ops), version_(version), tree_([this](Bytes op) {
          return ops_->put(std::move(op));
        }) {}

  Result<ShareReport> run(const std::vector<std::string>& paths);
  /// Whether the walk met something that a list of version 1 cannot express.
  bool needs_version_2() const { return needs_version_2_; }
  void expect(const FolderSummary& all) { all_ = all; }

 private:
  struct Child {
    std::string name;
    std::string path;  ///< only at the top, where the children are not in one folder
  };
  struct Frame {
    std::vector<Child> children;
    std::size_t at = 0;
    std::size_t path_size = 0;    ///< length of the part of path_ for this folder
    std::size_t inside_size = 0;  ///< length of its path in the share, with a trailing slash
  };

  Result<void> top_level(const std::vector<std::string>& paths, Frame& frame, std::optional<DirCursor>& dir);
  Result<void> walk(Frame top, std::optional<DirCursor>& dir);
  Result<bool> step(std::vector<Frame>& frames, std::optional<DirCursor>& dir);
  void count(const struct stat& info);
  Result<void> enter(std::vector<Frame>& frames, std::optional<DirCursor>& dir, Fd fd, const struct stat& info);
  Result<bool> list(int fd, Frame& frame);
  Result<void> leave(std::vector<Frame>& frames, std::optional<DirCursor>& dir);
  Result<void> file(const Child& child, Fd fd, const struct stat& before);
  Result<bool> link(const Child& child, const DirCursor& dir, std::size_t depth);
  /// What was read of a file: the bytes of a packed file in `small`, the ids of the chunks of others.
  struct Contents {
    std::vector<OpId> ids;
    std::vector<std::uint8_t> small;
    std::string fault;   ///< an error of reading
    bool whole = false;  ///< false: it changed
  };
  Result<Contents> read(int fd, std::uint64_t size);
  /// Returns false if the file changed. An Errc::io of reading is reported inside `fault`.
  Result<bool> read_chunks(int fd, std::uint64_t size, std::vector<OpId>& ids, std::string& fault);
  Result<void> pack_file(FileHead head, ByteView bytes);
  Result<void> end_pack();
  Result<void> record(const std::vector<std::uint8_t>& bytes);
  /// Returns false if the list would have to be of version 2 and is not.
  bool can_say(bool plain) {
    needs_version_2_ = needs_version_2_ || !plain;
    return plain || version_ >= 2 || scanning();
  }
  bool scanning() const { return ops_ == nullptr; }
  void issue(PathIssue::Kind kind, std::string reason, bool link = false);
  void progress(bool now);

  const ShareOptions& options_;
  const std::stop_token& stop_;
  BatchWriter* const ops_;
  const std::uint8_t version_;
  bool needs_version_2_ = false;
  bool several_ = false;  ///< several paths; none may have links to the others
  TreeWriter tree_;
  ShareReport report_;
  FolderSummary all_;
  std::uint64_t file_bytes_ = 0;  ///< bytes read of the current file
  std::vector<SameFile> excluded_;
  std::string path_;
  std::vector<std::uint8_t> pack_;
  std::vector<std::uint8_t> waiting_;  ///< records that follow the record of the open pack
  std::chrono::steady_clock::time_point last_progress_{};
};

/// The error of a walk that must be repeated with version 2.
Error too_plain() { return make_error(Errc::unsupported, "this takes a list of files of version 2"); }

void Sharer::issue(PathIssue::Kind kind, std::string reason, bool link) {
  ++(kind == PathIssue::Kind::skipped ? report_.skipped : report_.failed);
  if (link) ++report_.links_left_out;
  if (options_.issue && !scanning()) options_.issue(PathIssue{kind, path_, std::move(reason), link});
}

void Sharer::progress(bool now) {
  if (!options_.progress || scanning()) return;
  const auto time = std::chrono::steady_clock::now();
  if (!now && time - last_progress_ < std::chrono::milliseconds(100)) return;
  last_progress_ = time;
  const std::uint64_t bytes = report_.folder.bytes + file_bytes_;
  options_.progress(ShareProgress{report_.folder.files, report_.folder.dirs, bytes,
                                  std::max(all_.files, report_.folder.files), std::max(all_.bytes, bytes)});
}

Result<void> Sharer::record(const std::vector<std::uint8_t>& bytes) {
  if (scanning()) return {};
  if (pack_.empty()) return tree_.write(bytes);
  waiting_.insert(waiting_.end(), bytes.begin(), bytes.end());
  if (waiting_.size() > kMaxWaitingRecords) return end_pack();
  return {};
}

Result<void> Sharer::end_pack() {
  if (pack_.empty()) return {};
  const auto size = pack_.size();
  auto id = ops_->put(Bytes(std::move(pack_)));
  if (!id) return id.error();
  pack_ = {};
  ++report_.folder.ops;
  std::vector<std::uint8_t> head;
  ManifestEncoder::pack(head, *id, size);
  if (auto written = tree_.write(head); !written) return written;
  auto written = tree_.write(waiting_);
  waiting_.clear();
  return written;
}

Result<void> Sharer::pack_file(FileHead head, ByteView bytes) {
  if (pack_.size() + bytes.size() > kChunkBytes) {
    if (auto ended = end_pack(); !ended) return ended;
  }
  head.packed = true;
  pack_.insert(pack_.end(), bytes.begin(), bytes.end());
  std::vector<std::uint8_t> out;
  ManifestEncoder::file(out, head, {}, version_);
  if (auto recorded = record(out); !recorded) return recorded;
  if (pack_.size() == kChunkBytes || (pack_.size() >= kMinPackBytes && (name_hash(head.name) & kPackCutMask) == 0)) {
    return end_pack();
  }
  return {};
}

Result<bool> Sharer::read_chunks(int fd, std::uint64_t size, std::vector<OpId>& ids, std::string& fault) {
  std::uint64_t done = 0;
  while (done < size) {
    if (stop_.stop_requested()) return make_error(Errc::cancelled, "stopped");
    std::vector<std::uint8_t> chunk(static_cast<std::size_t>(std::min<std::uint64_t>(kChunkBytes, size - done)));
    auto got = read_full(fd, chunk.data(), chunk.size());
    if (!got) {
      fault = got.error().message;
      return false;
    }
    if (*got != chunk.size()) return false;  // shorter than before
    done += chunk.size();
    file_bytes_ = done;
    auto id = ops_->put(Bytes(std::move(chunk)));
    if (!id) return id.error();
    ids.push_back(std::move(*id));
    progress(false);
  }
  return true;
}

Result<Sharer::Contents> Sharer::read(int fd, std::uint64_t size) {
  Contents out;
  if (size > kPackFileBytes) {
    auto whole = read_chunks(fd, size, out.ids, out.fault);
    file_bytes_ = 0;
    if (!whole) return whole.error();
    out.whole = *whole;
    return out;
  }
  out.small.resize(static_cast<std::size_t>(size) + 1);  // one more byte, to notice a file that grew
  auto got = read_full(fd, out.small.data(), out.small.size());
  if (!got) {
    out.fault = got.error().message;
    return out;
  }
  out.whole = *got == size;
  out.small.resize(*got);
  return out;
}

Result<void> Sharer::file(const Child& child, Fd fd, const struct stat& first) {
  struct stat before = first;
  ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  for (int attempt = 0; attempt < 3; ++attempt) {
    FileHead head;
    head.name = child.name;
    head.size = static_cast<std::uint64_t>(before.st_size);
    head.mode = mode_of(before);
    if (!can_say(head.mode == kPlainMode || head.mode == kExecutableMode)) return too_plain();
    if (options_.mtime) {
      head.mtime = FileTime{before.st_mtim.tv_sec, static_cast<std::uint32_t>(before.st_mtim.tv_nsec)};
    }
    auto contents = read(fd.get(), head.size);
    if (!contents) return contents.error();
    if (!contents->fault.empty()) {
      issue(PathIssue::Kind::unreadable, contents->fault);
      return {};
    }
    struct stat after {};
    if (::fstat(fd.get(), &after) != 0) {
      issue(PathIssue::Kind::unreadable, errno_text(errno));
      return {};
    }
    if (!contents->whole || !same_moment(before, after)) {
      before = after;
      if (::lseek(fd.get(), 0, SEEK_SET) != 0) break;
      continue;
    }
    report_.folder.bytes += head.size;
    ++report_.folder.files;
    report_.folder.ops += contents->ids.size();
    progress(false);
    if (head.size > 0 && contents->ids.empty()) return pack_file(std::move(head), contents->small);
    std::vector<std::uint8_t> out;
    ManifestEncoder::file(out, head, contents->ids, version_);
    return record(out);
  }
  issue(PathIssue::Kind::changed, "changed while it was read, three times; left out");
  return {};
}

/// Keeps a link that leads only to places inside the share.
Result<bool> Sharer::link(const Child& child, const DirCursor& dir, std::size_t depth) {
  std::string target(kMaxTargetBytes + 1, '\0');
  const auto size = ::readlinkat(dir.fd(), child.name.c_str(), target.data(), target.size());
  if (size < 0) {
    issue(errno == EINVAL ? PathIssue::Kind::changed : PathIssue::Kind::unreadable, errno_text(errno));
    return true;
  }
  target.resize(static_cast<std::size_t>(size));
  if (const auto fault = target_fault(target, depth); !fault.empty()) {
    issue(PathIssue::Kind::skipped, std::string(fault), true);
    return true;
  }
  if (!can_say(false)) return too_plain();
  std::vector<std::uint8_t> out;
  ManifestEncoder::link(out, child.name, target);
  if (auto written = record(out); !written) return written.error();
  ++report_.folder.links;
  return true;
}

Result<bool> Sharer::list(int fd, Frame& frame) {
  const int copy = ::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* stream = copy < 0 ? nullptr : ::fdopendir(copy);
  if (stream == nullptr) {
    issue(PathIssue::Kind::unreadable, errno_text(errno));
    if (copy >= 0) ::close(copy);
    return false;
  }
  errno = 0;
  while (const dirent* entry = ::readdir(stream)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") frame.children.push_back(Child{std::string(name), {}});
    errno = 0;
  }
  const int fault = errno;
  ::closedir(stream);
  if (fault != 0) {
    issue(PathIssue::Kind::unreadable, errno_text(fault));
    return false;
  }
  std::sort(frame.children.begin(), frame.children.end(),
            [](const Child& a, const Child& b) { return a.name < b.name; });
  return true;
}

Result<void> Sharer::top_level(const std::vector<std::string>& paths, Frame& frame, std::optional<DirCursor>& dir) {
  if (paths.empty()) return make_error(Errc::invalid_argument, "nothing to share");
  for (const auto& path : paths) {
    const bool own = std::any_of(options_.exclude.begin(), options_.exclude.end(),
                                 [&](const std::string& folder) { return is_inside(path, folder); });
    if (own)
      return make_error(Errc::invalid_argument, printable(path) + ": is the node's own data directory, or in it");
  }
  if (paths.size() == 1) {
    Fd fd(::open(paths[0].c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd) {
      path_ = paths[0];
      while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
      frame.path_size = path_.size();
      auto listed = list(fd.get(), frame);
      if (!listed) return listed.error();
      if (!*listed) return make_error(Errc::io, printable(paths[0]) + ": cannot be read");
      dir.emplace(std::move(fd));
      return {};
    }
    if (errno != ENOTDIR) return path_error(paths[0]);
  }
  several_ = true;
  for (const auto& path : paths) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return path_error(path);
    if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
      return make_error(Errc::invalid_argument, printable(path) + ": " + why_special(info.st_mode));
    }
    std::string_view name = path;
    while (name.size() > 1 && name.ends_with('/')) name.remove_suffix(1);
    name = name.substr(name.rfind('/') + 1);
    std::string own(name);
    if (own.empty() || own == "." || own == "..") {
      // "." among several paths: use the folder's real name.
      char* real = ::realpath(path.c_str(), nullptr);
      if (real == nullptr) return path_error(path);
      own = std::string(std::string_view(real).substr(std::string_view(real).rfind('/') + 1));
      ::free(real);
    }
    if (const auto fault = name_fault(own); !fault.empty()) {
      return make_error(Errc::invalid_argument, printable(path) + ": " + std::string(fault));
    }
    frame.children.push_back(Child{std::move(own), path});
  }
  std::sort(frame.children.begin(), frame.children.end(),
            [](const Child& a, const Child& b) { return a.name < b.name; });
  for (std::size_t i = 1; i < frame.children.size(); ++i) {
    if (frame.children[i].name == frame.children[i - 1].name) {
      return make_error(Errc::invalid_argument,
                        "two paths have the same name: " + printable(frame.children[i - 1].path) + " and " +
                            printable(frame.children[i].path));
    }
  }
  return {};
}

Result<void> Sharer::leave(std::vector<Frame>& frames, std::optional<DirCursor>& dir) {
  frames.pop_back();
  std::vector<std::uint8_t> out;
  ManifestEncoder::dir_end(out);
  if (auto written = record(out); !written) return written;
  if (frames.empty() || !dir) return {};
  if (dir->depth() == 0) {
    dir.reset();  // one of several top folders
    return {};
  }
  if (auto up = dir->up(); !up) return up.error().context(printable(path_));
  return {};
}

/// Handles one child of the innermost folder, or leaves the folder. Returns false when the walk is over.
Result<bool> Sharer::step(std::vector<Frame>& frames, std::optional<DirCursor>& dir) {
  Frame& frame = frames.back();
  path_.resize(frame.path_size);
  if (frame.at == frame.children.size()) {
    if (auto left = leave(frames, dir); !left) return left.error();
    return !frames.empty();
  }
  const Child& child = frame.children[frame.at++];
  const bool at_top = !child.path.empty();
  if (at_top) {
    path_ = child.path;
  } else {
    if (!path_.ends_with('/')) path_ += '/';
    path_ += child.name;
  }
  if (const auto fault = name_fault(child.name); !fault.empty()) {
    issue(PathIssue::Kind::skipped, std::string(fault));
    return true;
  }
  if (frame.inside_size + child.name.size() > kMaxPathBytes) {
    issue(PathIssue::Kind::skipped, "a path of more than 65,535 bytes");
    return true;
  }
  struct stat info {};
  const int looked =
      at_top ? ::stat(child.path.c_str(), &info) : ::fstatat(dir->fd(), child.name.c_str(), &info, AT_SYMLINK_NOFOLLOW);
  if (looked != 0) {
    issue(PathIssue::Kind::unreadable, errno_text(errno));
    return true;
  }
  if (S_ISLNK(info.st_mode)) return link(child, *dir, frames.size() - (several_ ? 2 : 1));
  if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
    issue(PathIssue::Kind::skipped, why_special(info.st_mode));
    return true;
  }
  if (scanning() && S_ISREG(info.st_mode)) {
    const int at = at_top ? AT_FDCWD : dir->fd();
    if (::faccessat(at, at_top ? child.path.c_str() : child.name.c_str(), R_OK, 0) == 0) count(info);
    return true;
  }
  Fd fd(at_top ? ::open(child.path.c_str(), kReadFlags & ~O_NOFOLLOW)
               : ::openat(dir->fd(), child.name.c_str(), kReadFlags));
  if (!fd || ::fstat(fd.get(), &info) != 0) {
    issue(PathIssue::Kind::unreadable, errno_text(errno));
    return true;
  }
  if (S_ISREG(info.st_mode)) {
    if (auto done = file(child, std::move(fd), info); !done) return done.error();
    return true;
  }
  if (!S_ISDIR(info.st_mode)) {
    issue(PathIssue::Kind::changed, "became " + why_special(info.st_mode));
    return true;
  }
  if (auto entered = enter(frames, dir, std::move(fd), info); !entered) return entered.error();
  return true;
}

/// A file that can be read, on the walk that only counts.
void Sharer::count(const struct stat& info) {
  static_cast<void>(can_say(mode_of(info) == kPlainMode || mode_of(info) == kExecutableMode));
  ++report_.folder.files;
  report_.folder.bytes += static_cast<std::uint64_t>(info.st_size);
}

/// Goes into the folder `fd`, the child that was looked at last.
Result<void> Sharer::enter(std::vector<Frame>& frames, std::optional<DirCursor>& dir, Fd fd, const struct stat& info) {
  if (std::find(excluded_.begin(), excluded_.end(), SameFile{info.st_dev, info.st_ino}) != excluded_.end()) {
    issue(PathIssue::Kind::skipped, "the node's own data directory");
    return {};
  }
  const Child& child = frames.back().children[frames.back().at - 1];
  Frame next;
  next.path_size = path_.size();
  next.inside_size = frames.back().inside_size + child.name.size() + 1;
  auto listed = list(fd.get(), next);
  if (!listed) return listed.error();
  if (!*listed) return {};
  if (!can_say(mode_of(info) == kExecutableMode)) return too_plain();
  std::vector<std::uint8_t> out;
  if (version_ >= 2) {
    ManifestEncoder::dir2(out, child.name, mode_of(info));
  } else {
    ManifestEncoder::dir(out, child.name);
  }
  if (auto written = record(out); !written) return written;
  ++report_.folder.dirs;
  if (dir) {
    if (auto entered = dir->enter(std::move(fd)); !entered) return entered;
  } else {
    dir.emplace(std::move(fd));
  }
  frames.push_back(std::move(next));
  return {};
}

Result<void> Sharer::walk(Frame top, std::optional<DirCursor>& dir) {
  std::vector<Frame> frames;
  frames.push_back(std::move(top));
  while (true) {
    if (stop_.stop_requested()) return make_error(Errc::cancelled, "stopped");
    auto more = step(frames, dir);
    if (!more) return more.error();
    if (!*more) return {};
    progress(false);
  }
}

Result<ShareReport> Sharer::run(const std::vector<std::string>& paths) {
  for (const auto& path : options_.exclude) {
    struct stat info {};
    if (::stat(path.c_str(), &info) == 0) excluded_.push_back(SameFile{info.st_dev, info.st_ino});
  }
  Frame top;
  std::optional<DirCursor> dir;
  if (auto found = top_level(paths, top, dir); !found) return found.error();
  std::vector<std::uint8_t> begin;
  ManifestEncoder::begin(begin, version_);
  if (auto written = record(begin); !written) return written.error();
  if (auto walked = walk(std::move(top), dir); !walked) return walked.error();
  if (scanning()) return report_;
  if (auto ended = end_pack(); !ended) return ended.error();
  RootOp root;
  root.version = version_;
  root.folder = report_.folder;
  auto tree = tree_.finish();
  if (!tree) return tree.error();
  root.manifest_bytes = tree_.bytes();
  root.top = *tree;
  // This is the last op of a share: a store that holds it holds all of them.
  if (auto flushed = ops_->flush(); !flushed) return flushed.error();
  auto id = ops_->put(root.encode());
  if (!id) return id.error();
  if (auto flushed = ops_->flush(); !flushed) return flushed.error();
  report_.root = *id;
  report_.ops = ops_->ops();
  report_.different_ops = ops_->different_ops();
  report_.new_ops = ops_->new_ops();
  report_.new_bytes = ops_->new_bytes();
  report_.twice_ops = ops_->twice_ops();
  report_.twice_bytes = ops_->twice_bytes();
  progress(true);
  return report_;
}

/// A look at all names, then the walk, in the oldest version that can express what was seen.
template <class MakeWriter>
Result<ShareReport> cut(const std::vector<std::string>& paths, const ShareOptions& options, const std::stop_token& stop,
                        MakeWriter make_writer) {
  Sharer look(nullptr, 1, options, stop);
  auto all = look.run(paths);
  if (!all) return all;
  for (std::uint8_t version = look.needs_version_2() ? 2 : 1;; ++version) {
    const auto& writer = make_writer();
    Sharer sharer(&*writer, version, options, stop);
    sharer.expect(all->folder);
    auto report = sharer.run(paths);
    // Something changed after the look.
    if (!report && version == 1 && sharer.needs_version_2() && report.error().code == Errc::unsupported) continue;
    return report;
  }
}

/// The number of ops found damaged since the store was opened.
Result<std::uint64_t> damaged_ops(Runtime& runtime, OpStore& store) {
  auto stats = wait_on<OpStoreStats>(runtime, [&](auto done) { store.stats(std::move(done)); });
  if (!stats) return stats.error();
  return stats->damaged;
}

}  // namespace

Result<ShareReport> share_paths(Runtime& runtime, OpStore& store, const std::vector<std::string>& paths,
                                const ShareOptions& options, const std::stop_token& stop) {
  assert_may_block(runtime, "share_paths");
  if (store.policy().name() != "sha256") {
    return make_error(Errc::unsupported, "sharing files needs a store with the sha256 policy");
  }
  std::unique_ptr<BatchWriter> writer;
  const auto damaged = damaged_ops(runtime, store);
  if (!damaged) return damaged.error();
  auto report = cut(
      paths, options,
      stop, [&]() -> const auto& { return writer = std::make_unique<BatchWriter>(runtime, store, options.elsewhere); });
  if (!report) return report;
  const auto now = damaged_ops(runtime, store);
  if (!now) return now.error();
  report->repaired_ops = *now - *damaged;
  return report;
}

Result<std::uint64_t> repair_paths(Runtime& runtime, OpStore& store, const OpId& root,
                                   const std::vector<std::string>& paths, const ShareOptions& options,
                                   const std::stop_token& stop) {
  assert_may_block(runtime, "repair_paths");
  ShareOptions quiet;
  quiet.mtime = options.mtime;
  quiet.exclude = options.exclude;
  std::unique_ptr<BatchWriter> writer;
  auto named = cut(
      paths, quiet,
      stop, [&]() -> const auto& { return writer = std::make_unique<BatchWriter>(make_sha256_policy()); });
  if (!named) return named.error();
  if (named->root != root) return make_error(Errc::not_found, "what was shared has changed");
  const auto ids = writer->seen();
  auto repaired = cut(
      paths, quiet, stop, [&]() -> const auto& {
        writer = std::make_unique<BatchWriter>(runtime, store);
        writer->store_only(ids);
        return writer;
      });
  if (!repaired) return repaired.error();
  return repaired->new_ops;
}

Result<ShareReport> name_paths(const std::vector<std::string>& paths, const ShareOptions& options,
                               const std::stop_token& stop) {
  std::unique_ptr<BatchWriter> writer;
  return cut(
      paths, options,
      stop, [&]() -> const auto& { return writer = std::make_unique<BatchWriter>(make_sha256_policy()); });
}

Result<FolderSummary> scan_paths(const std::vector<std::string>& paths, const ShareOptions& options,
                                 const std::stop_token& stop) {
  auto report = Sharer(nullptr, 1, options, stop).run(paths);
  if (!report) return report.error();
  return report->folder;
}

}  // namespace kitsune2::files
