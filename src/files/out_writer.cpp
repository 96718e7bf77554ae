// Writes a share's files below one folder and nowhere else.
#include "files/out_writer.hpp"

#include <fcntl.h>
#include <openssl/sha.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace kitsune2::files {

namespace {

constexpr std::size_t kOpsAtOnce = 16;

Error stopped() { return make_error(Errc::cancelled, "stopped"); }

bool ends_everything(const Error& error) { return error.code == Errc::disk_full || error.code == Errc::cancelled; }

std::string temp_name(const std::string& salt, const std::string& path) {
  const OpId hash = op_id_of(as_bytes(salt + '/' + path));
  return std::string(kTempPrefix) + to_hex(hash.view().subspan(0, 8));
}

constexpr mode_t kAllBits = 07777;

/// The process's umask, without changing it: other threads make files.
mode_t process_umask() {
  mode_t mask = 077;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Umask:")) mask = static_cast<mode_t>(std::strtoul(line.c_str() + 6, nullptr, 8));
  }
  return mask & 0777;
}

/// Executable for whom it is readable.
mode_t with_exec(mode_t mode, bool executable) {
  mode &= kAllBits;
  if (!executable) return mode & ~mode_t{S_IXUSR | S_IXGRP | S_IXOTH};
  return mode | (mode & (S_IRUSR | S_IRGRP | S_IROTH)) >> 2;
}

/// Of no weight if refused: the contents are there (file systems without permissions, files of someone else).
void change_mode(int fd, mode_t from, mode_t to) {
  if (to != (from & kAllBits)) static_cast<void>(::fchmod(fd, to));
}

/// Gives the owner `bits` more at `name`, if it is a `kind` (S_IFREG, S_IFDIR) of this process's own; never through a
/// link. Its mode before, if that was done.
std::optional<mode_t> grant(int dir, const std::string& name, mode_t kind, mode_t bits) {
  const Fd at(::openat(dir, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat info {};
  if (!at || ::fstat(at.get(), &info) != 0 || info.st_uid != ::geteuid()) return std::nullopt;
  if ((info.st_mode & S_IFMT) != kind) return std::nullopt;
  if ((info.st_mode & bits) == bits) return std::nullopt;
  const auto path = "/proc/self/fd/" + std::to_string(at.get());  // a descriptor of this kind cannot be changed itself
  if (::chmod(path.c_str(), (info.st_mode & kAllBits) | bits) != 0) return std::nullopt;
  return info.st_mode & kAllBits;
}

/// Without replacing what is there. 0 or an error number.
int rename_new(int dir, const std::string& from, const std::string& to) {
  if (::renameat2(dir, from.c_str(), dir, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  // A file system that cannot do it in one step: as a link, which never replaces either.
  if (::linkat(dir, from.c_str(), dir, to.c_str(), 0) == 0) return ::unlinkat(dir, from.c_str(), 0) == 0 ? 0 : errno;
  if (errno == EEXIST) return EEXIST;
  struct stat info {};
  if (::fstatat(dir, to.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) return EEXIST;
  return ::renameat(dir, from.c_str(), dir, to.c_str()) == 0 ? 0 : errno;
}

/// The folder that holds `path`.
std::string folder_of(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const auto slash = path.rfind('/');
  if (slash == std::string_view::npos) return ".";
  return std::string(path.substr(0, std::max<std::size_t>(slash, 1)));
}

/// Makes the names in a folder durable. 0, or an error number.
int sync_folder(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return errno == EACCES ? 0 : errno;  // it may be written in, not read: there is nothing to sync it by
  return ::fsync(fd.get()) == 0 || errno == EINVAL ? 0 : errno;  // EINVAL: no such thing on this file system
}

/// An unfinished file: gone with this object unless kept.
struct TempFile {
  int dir;
  std::string name;
  Fd fd;
  ~TempFile() {
    if (!name.empty()) ::unlinkat(dir, name.c_str(), 0);
  }
};

}  // namespace

Result<Fd> OutWriter::open_root(const std::string& path) {
  if (path.empty()) return make_error(Errc::invalid_argument, "the output folder is missing");
  // A part that may not be made can be there all the same; if it is not, that is what was wrong.
  std::optional<Error> refused;
  for (std::size_t at = 1; at <= path.size(); ++at) {
    if (at != path.size() && path[at] != '/') continue;
    const auto part = path.substr(0, at);
    if (::mkdir(part.c_str(), 0777) == 0) {
      if (const int fault = sync_folder(folder_of(part)); fault != 0) return errno_error(fault, printable(part));
      continue;
    }
    if (errno == EEXIST) continue;
    const int fault = errno;
    if (fault == ENOENT && refused) return *refused;
    if (fault != EACCES && fault != EROFS) return errno_error(fault, printable(part));
    if (!refused) refused = errno_error(fault, printable(part));
  }
  Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd && errno == ENOENT && refused) return *refused;
  if (!fd) return errno_error(errno, printable(path));
  return fd;
}

OutWriter::OutWriter(Fd root, Fetch fetch, Options options)
    : at_(Fd(::openat(root.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC))),
      sync_(std::move(root)),
      fetch_(std::move(fetch)),
      options_(std::move(options)),
      umask_(process_umask()) {}

OutWriter::~OutWriter() {
  for (const auto& file : waiting_) ::unlinkat(file.dir->get(), file.temp.c_str(), 0);
}

void OutWriter::issue(PathIssue::Kind kind, const std::string& path, std::string reason) {
  if (options_.issue) options_.issue(PathIssue{kind, path, std::move(reason)});
}

void OutWriter::handled(std::uint64_t bytes) {
  const auto change = static_cast<std::int64_t>(bytes) - static_cast<std::int64_t>(handled_);
  handled_ = bytes;
  if (change != 0 && options_.handled) options_.handled(change);
}

void OutWriter::fail(std::uint64_t number, PathIssue::Kind kind, const std::string& path, std::string reason) {
  ++counts_.failed;
  options_.settled(number);
  issue(kind, path, std::move(reason));
}

Result<void> OutWriter::run(ManifestReader& reader) {
  while (true) {
    if (is_stopped()) return stopped();
    auto record = reader.next();
    if (!record) return record.error();
    if (!*record) return finish_group();
    switch ((*record)->kind) {
      case ManifestRecord::Kind::dir:
        if (auto done = dir(**record, reader); !done) return done;
        break;
      case ManifestRecord::Kind::dir_end:
        if (auto done = dir_end(); !done) return done;
        break;
      case ManifestRecord::Kind::pack:
        pack_ = Pack{(*record)->ids[0], (*record)->size, 0, std::nullopt, std::nullopt};
        break;
      case ManifestRecord::Kind::file:
        if (auto done = file(**record, reader); !done) return done;
        break;
      case ManifestRecord::Kind::link:
        break;  // later, in `finish`
      case ManifestRecord::Kind::ids:
      case ManifestRecord::Kind::file_end:
        return make_error(Errc::internal, "a manifest record out of place");
    }
  }
}

Result<void> OutWriter::finish(ManifestReader& reader) {
  std::vector<std::uint16_t> modes;  ///< of the open folders
  std::size_t skipped = 0;           ///< > 0: inside a folder that is not there; that has been reported
  while (true) {
    if (is_stopped()) return stopped();
    auto record = reader.next();
    if (!record) return record.error();
    if (!*record) break;
    const auto& item = **record;
    if (item.kind == ManifestRecord::Kind::dir) {
      if (skipped > 0 || !step_down(item.file.name, item.file.mode)) {
        ++skipped;
      } else {
        modes.push_back(item.file.mode);
      }
    } else if (item.kind == ManifestRecord::Kind::dir_end) {
      if (skipped > 0) {
        --skipped;
      } else if (!modes.empty()) {
        if (auto left = leave_folder(modes.back()); !left) return left;
        modes.pop_back();
      }
    } else if (item.kind == ManifestRecord::Kind::link) {
      if (skipped > 0) {
        ++counts_.links_failed;
      } else if (auto made = link(item, reader.path()); !made) {
        return made;
      }
    }
  }
  return sync();
}

Result<void> OutWriter::sync() {
  if (::syncfs(sync_.get()) != 0) return errno_error(errno, "sync of the output folder");
  return {};
}

Result<void> OutWriter::leave_folder(std::uint16_t mode) {
  // Up first: from a folder that may not be searched there is no way up.
  const Fd folder(::fcntl(at_.fd(), F_DUPFD_CLOEXEC, 3));
  if (auto up = at_.up(); !up) return up;
  struct stat info {};
  if (!folder || ::fstat(folder.get(), &info) != 0) return {};
  // What was there before only loses permissions; what was made here had what the umask left, and more for its owner.
  const mode_t special = info.st_mode & (kAllBits & ~mode_t{kModeBits});
  change_mode(folder.get(), info.st_mode,
              special | (options_.overwrite ? mode & ~umask_ : info.st_mode & mode_t{mode}));
  return {};
}

Result<void> OutWriter::link(const ManifestRecord& record, const std::string& path) {
  const auto& name = record.file.name;
  const auto failed = [&](PathIssue::Kind kind, std::string reason) -> Result<void> {
    ++counts_.links_failed;
    issue(kind, path, std::move(reason));
    return {};
  };
  const auto refused = [&](int fault) -> Result<void> {
    const auto error = errno_error(fault, "make a link");
    if (ends_everything(error)) return error.context(printable(path));
    return failed(PathIssue::Kind::unwritable, error.message);
  };
  if (::symlinkat(record.target.c_str(), at_.fd(), name.c_str()) == 0) {
    ++counts_.links_written;
    return {};
  }
  if (errno != EEXIST) return refused(errno);
  struct stat info {};
  if (::fstatat(at_.fd(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return refused(errno);
  if (S_ISLNK(info.st_mode)) {
    std::string there(record.target.size() + 1, '\0');
    const auto size = ::readlinkat(at_.fd(), name.c_str(), there.data(), there.size());
    if (size >= 0 && std::string_view(there).substr(0, static_cast<std::size_t>(size)) == record.target) {
      ++counts_.links_kept;
      return {};
    }
  }
  if (S_ISDIR(info.st_mode)) return failed(PathIssue::Kind::exists, "a folder is in the place of a link");
  if (!options_.overwrite) {
    return failed(PathIssue::Kind::exists, "something else is in the place of a link; --overwrite replaces it");
  }
  const auto temp = temp_name(options_.salt, path);
  ::unlinkat(at_.fd(), temp.c_str(), 0);
  if (::symlinkat(record.target.c_str(), at_.fd(), temp.c_str()) != 0) return refused(errno);
  if (::renameat(at_.fd(), temp.c_str(), at_.fd(), name.c_str()) != 0) {
    const int fault = errno;
    ::unlinkat(at_.fd(), temp.c_str(), 0);
    return refused(fault);
  }
  ++counts_.links_written;
  return {};
}

/// A folder that its owner may not enter or change is opened for this fetch: an earlier one left it so, of this share
/// or, with `overwrite`, of another version of it. In the end `leave_folder` gives it the mode that the share says.
Result<void> OutWriter::step_down(const std::string& name, std::uint16_t mode) {
  if (options_.overwrite || (options_.modes && (mode & S_IRWXU) != S_IRWXU)) {
    static_cast<void>(grant(at_.fd(), name, S_IFDIR, S_IRWXU));
  }
  return at_.down(name);
}

Result<void> OutWriter::dir(ManifestRecord& record, ManifestReader& reader) {
  if (skip_depth_ > 0) {
    ++skip_depth_;
    return {};
  }
  const auto& name = record.file.name;
  // Its owner may do everything in it until it is full.
  const bool made = ::mkdirat(at_.fd(), name.c_str(), mode_t{record.file.mode} | S_IRWXU) == 0;
  if (!made && errno != EEXIST) {
    if (errno == ENOSPC || errno == EDQUOT) return errno_error(errno, printable(reader.path()));
    issue(PathIssue::Kind::unwritable, reader.path(), errno_text(errno));
    skip_depth_ = 1;
    ++counts_.dirs_failed;
    return {};
  }
  if (auto down = step_down(name, record.file.mode); !down) {
    struct stat info {};
    const bool other = ::fstatat(at_.fd(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(info.st_mode);
    if (other) {
      issue(PathIssue::Kind::exists, reader.path(),
            S_ISLNK(info.st_mode) ? "a symbolic link is in the place of a folder; not followed"
                                  : "something else is in the place of a folder");
    } else {
      issue(PathIssue::Kind::unwritable, reader.path(), down.error().message);
    }
    skip_depth_ = 1;
    ++counts_.dirs_failed;
    return {};
  }
  dir_.reset();
  return {};
}

Result<void> OutWriter::dir_end() {
  if (skip_depth_ > 0) {
    --skip_depth_;
    return {};
  }
  dir_.reset();
  if (at_.depth() == 0) return {};
  return at_.up();
}

std::shared_ptr<Fd> OutWriter::shared_dir() {
  if (!dir_) {
    Fd copy(::fcntl(at_.fd(), F_DUPFD_CLOEXEC, 3));
    if (!copy) return nullptr;
    dir_ = std::make_shared<Fd>(std::move(copy));
    ++waiting_dirs_;
  }
  return dir_;
}

Result<std::vector<Bytes>> OutWriter::checked(const std::vector<OpId>& ids) {
  auto ops = fetch_(ids);
  if (!ops) return ops;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (op_id_of((*ops)[i]) != ids[i]) {
      return make_error(Errc::corrupt, "op " + ids[i].to_string() + " is damaged in the store");
    }
  }
  return ops;
}

Result<Bytes> OutWriter::packed_bytes(std::uint64_t from, std::uint64_t size) {
  if (!pack_) return make_error(Errc::internal, "a packed file without a pack");
  if (pack_->missing) return *pack_->missing;
  if (!pack_->bytes) {
    auto ops = checked({pack_->id});
    if (!ops) {
      if (ops.error().code == Errc::not_found) pack_->missing = ops.error();
      return ops.error();
    }
    if (ops->front().size() != pack_->size) return make_error(Errc::malformed, "a pack has a wrong size");
    pack_->bytes = std::move(ops->front());
  }
  return pack_->bytes->slice(static_cast<std::size_t>(from), static_cast<std::size_t>(size));
}

Result<OutWriter::Found> OutWriter::existing(const FileHead& head, const std::vector<OpId>& ids, const Bytes& packed) {
  struct stat info {};
  if (::fstatat(at_.fd(), head.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return Found::nothing;
    return errno_error(errno, "look up");
  }
  if (S_ISDIR(info.st_mode)) return Found::bad;
  if (!S_ISREG(info.st_mode) || static_cast<std::uint64_t>(info.st_size) != head.size) return Found::other;
  constexpr int kFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  Fd fd(::openat(at_.fd(), head.name.c_str(), kFlags));
  std::optional<mode_t> before;
  if (!fd && errno == EACCES && options_.modes && (head.mode & S_IRUSR) == 0) {
    // The share says that its owner may not read it: an earlier fetch left it so.
    before = grant(at_.fd(), head.name, S_IFREG, S_IRUSR);
    fd = Fd(::openat(at_.fd(), head.name.c_str(), kFlags));
  }
  if (!fd || ::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) return Found::other;
  const auto put_back = [&] {
    if (before) change_mode(fd.get(), info.st_mode, *before);
    return Found::other;
  };
  std::vector<std::uint8_t> buffer(options_.chunk_bytes);
  std::uint64_t left = head.size;
  for (std::size_t i = 0; left > 0; ++i) {
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(left, buffer.size()));
    auto got = read_full(fd.get(), buffer.data(), want);
    if (!got || *got != want) return put_back();
    if (is_stopped()) {
      static_cast<void>(put_back());
      return stopped();
    }
    const ByteView bytes(buffer.data(), want);
    const bool same = head.packed ? as_text(bytes) == packed.text() : op_id_of(bytes) == ids[i];
    if (!same) return put_back();
    left -= want;
    handled(head.size - left);
  }
  const bool executable = (head.mode & (S_IXUSR | S_IXGRP | S_IXOTH)) != 0;
  mode_t wanted = with_exec(before.value_or(info.st_mode), executable);
  if (options_.modes) {
    const mode_t special = wanted & (kAllBits & ~mode_t{kModeBits});
    wanted = special | (options_.overwrite ? head.mode & ~umask_ : wanted & mode_t{head.mode});
  }
  change_mode(fd.get(), info.st_mode, wanted);
  return Found::same;
}

Result<void> OutWriter::missing(std::uint64_t number, const std::string& path, const Error& error) {
  if (options_.last_pass()) {
    fail(number, PathIssue::Kind::missing, path, error.message);
  } else {
    ++counts_.postponed;
    handled(0);
  }
  return {};
}

Result<void> OutWriter::file(ManifestRecord& record, ManifestReader& reader) {
  const FileHead head = std::move(record.file);
  const std::string path = reader.path();
  const std::uint64_t number = number_++;
  const std::uint64_t postponed = counts_.postponed;
  handled_ = 0;
  const std::uint64_t pack_at = pack_ ? pack_->at : 0;
  if (head.packed && pack_) pack_->at += head.size;
  std::vector<OpId> ids;
  const bool skip = options_.skip(number);
  while (true) {
    auto next = reader.next();
    if (!next) return next.error();
    if (!*next || (*next)->kind == ManifestRecord::Kind::file_end) break;
    if (!skip && skip_depth_ == 0) ids.insert(ids.end(), (*next)->ids.begin(), (*next)->ids.end());
  }
  if (skip) return {};
  if (skip_depth_ > 0) {
    ++counts_.failed;
    options_.settled(number);
    handled(head.size);
    return {};
  }
  auto done = file_here(head, ids, pack_at, number, path);
  if (done && counts_.postponed == postponed) handled(head.size);  // written, kept, or failed for good
  return done;
}

Result<void> OutWriter::file_here(const FileHead& head, const std::vector<OpId>& ids, std::uint64_t pack_at,
                                  std::uint64_t number, const std::string& path) {
  Bytes packed;
  if (head.packed) {
    auto bytes = packed_bytes(pack_at, head.size);
    if (!bytes) {
      if (bytes.error().code == Errc::not_found) return missing(number, path, bytes.error());
      return bytes.error().context(printable(path));
    }
    packed = std::move(*bytes);
  }
  auto found = existing(head, ids, packed);
  if (!found) {
    if (found.error().code == Errc::cancelled) return found.error();
    fail(number, PathIssue::Kind::unwritable, path, found.error().message);
    return {};
  }
  if (*found == Found::same) {
    ++counts_.kept;
    options_.settled(number);
    return {};
  }
  if (*found == Found::bad || (*found == Found::other && !options_.overwrite)) {
    fail(
        number, PathIssue::Kind::exists, path,
        *found == Found::bad ? "a folder is in the place of a file" : "another file is there; --overwrite replaces it");
    return {};
  }
  handled(0);
  return write_file(head, ids, packed, number, path);
}

Result<void> OutWriter::write_file(const FileHead& head, const std::vector<OpId>& ids, const Bytes& packed,
                                   std::uint64_t number, const std::string& path) {
  const auto refused = [&](const Error& error) -> Result<void> {
    if (ends_everything(error)) return error.context(printable(path));
    fail(number, PathIssue::Kind::unwritable, path, error.message);
    return {};
  };
  auto dir = shared_dir();
  if (!dir) return refused(errno_error(errno, "open"));
  TempFile temp{dir->get(), temp_name(options_.salt, path), Fd()};
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  // Its mode from the start, less the umask: writing goes on by this descriptor also where the mode forbids it.
  temp.fd = Fd(::openat(temp.dir, temp.name.c_str(), kFlags, mode_t{head.mode}));
  if (!temp.fd && errno == EEXIST) {
    ::unlinkat(temp.dir, temp.name.c_str(), 0);
    temp.fd = Fd(::openat(temp.dir, temp.name.c_str(), kFlags, mode_t{head.mode}));
  }
  if (!temp.fd) {
    const auto error = errno_error(errno, "create");
    temp.name.clear();
    return refused(error);
  }
  if (head.packed) {
    if (auto written = write_full(temp.fd.get(), packed); !written) return refused(written.error());
  }
  std::uint64_t left = head.packed ? 0 : head.size;
  for (std::size_t i = 0; i < ids.size(); i += kOpsAtOnce) {
    const std::vector<OpId> part(ids.begin() + static_cast<std::ptrdiff_t>(i),
                                 ids.begin() + static_cast<std::ptrdiff_t>(std::min(ids.size(), i + kOpsAtOnce)));
    if (is_stopped()) return stopped();
    auto ops = checked(part);
    if (!ops) {
      if (ops.error().code == Errc::not_found) return missing(number, path, ops.error());
      return ops.error().context(printable(path));
    }
    for (const auto& op : *ops) {
      if (op.size() != std::min<std::uint64_t>(left, options_.chunk_bytes)) {
        return make_error(Errc::malformed, printable(path) + ": a chunk has a wrong size");
      }
      if (auto written = write_full(temp.fd.get(), op); !written) return refused(written.error());
      left -= op.size();
    }
    handled(head.size - left);
  }
  if (head.mtime) {
    const timespec times[2] = {{0, UTIME_OMIT},
                               {static_cast<time_t>(head.mtime->seconds), static_cast<long>(head.mtime->nanos)}};
    static_cast<void>(::futimens(temp.fd.get(), times));
  }
  if (waiting_.empty()) waiting_since_ = std::chrono::steady_clock::now();
  waiting_.push_back(Waiting{std::move(dir), std::exchange(temp.name, {}), head.name, path, number});
  waiting_bytes_ += head.size;
  if (waiting_.size() >= kGroupFiles || waiting_dirs_ >= kGroupDirs || waiting_bytes_ >= kGroupBytes) {
    return finish_group();
  }
  return {};
}

Result<void> OutWriter::finish_group_if_old() {
  if (waiting_.empty() || std::chrono::steady_clock::now() - waiting_since_ < std::chrono::seconds(1)) return {};
  return finish_group();
}

Result<void> OutWriter::finish_group() {
  if (waiting_.empty()) return {};
  auto group = std::move(waiting_);
  waiting_.clear();
  waiting_dirs_ = 0;
  waiting_bytes_ = 0;
  dir_.reset();
  if (auto synced = sync(); !synced) {
    for (const auto& file : group) ::unlinkat(file.dir->get(), file.temp.c_str(), 0);
    return synced;
  }
  for (const auto& file : group) {
    const int fault =
        options_.overwrite
            ? (::renameat(file.dir->get(), file.temp.c_str(), file.dir->get(), file.name.c_str()) == 0 ? 0 : errno)
            : rename_new(file.dir->get(), file.temp, file.name);
    if (fault == 0) {
      ++counts_.written;
      options_.settled(file.number);
      continue;
    }
    ::unlinkat(file.dir->get(), file.temp.c_str(), 0);
    fail(file.number, fault == EEXIST ? PathIssue::Kind::exists : PathIssue::Kind::unwritable, file.path,
         errno_text(fault));
  }
  return {};
}

}  // namespace kitsune2::files
