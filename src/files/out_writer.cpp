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

bool ends_everything(const Error& error) { return error.code == Errc::disk_full || error.code == Errc::cancelled; }

std::string temp_name(const std::string& salt, const std::string& path) {
  const OpId hash = op_id_of(as_bytes(salt + '/' + path));
  return std::string(kTempPrefix) + to_hex(hash.view().subspan(0, 8));
}

constexpr mode_t kAllBits = 07777;

/// Returns the process's umask without changing it, since other threads create files.
mode_t process_umask() {
  mode_t mask = 077;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Umask:")) mask = static_cast<mode_t>(std::strtoul(line.c_str() + 6, nullptr, 8));
  }
  return mask & 0777;
}

/// Executable by those who may read it.
mode_t with_exec(mode_t mode, bool executable) {
  mode &= kAllBits;
  if (!executable) return mode & ~mode_t{S_IXUSR | S_IXGRP | S_IXOTH};
  return mode | (mode & (S_IRUSR | S_IRGRP | S_IROTH)) >> 2;
}

/// A failure does not matter, because the contents are there (file systems without permissions, files of other users).
void change_mode(int fd, mode_t from, mode_t to) {
  if (to != (from & kAllBits)) static_cast<void>(::fchmod(fd, to));
}

/// Gives the owner of `name` the additional `bits`, if it is a `kind` (S_IFREG, S_IFDIR) that this process owns; never
/// through a link. Returns its mode before, if that was done.
std::optional<mode_t> grant(int dir, const std::string& name, mode_t kind, mode_t bits) {
  const Fd at(::openat(dir, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat info {};
  if (!at || ::fstat(at.get(), &info) != 0 || info.st_uid != ::geteuid()) return std::nullopt;
  if ((info.st_mode & S_IFMT) != kind) return std::nullopt;
  if ((info.st_mode & bits) == bits) return std::nullopt;
  const auto path =
      "/proc/self/fd/" + std::to_string(at.get());  // the mode of such a descriptor (O_PATH) cannot be changed directly
  if (::chmod(path.c_str(), (info.st_mode & kAllBits) | bits) != 0) return std::nullopt;
  return info.st_mode & kAllBits;
}

/// Renames without replacing an existing file. Returns 0 or an error number.
int rename_new(int dir, const std::string& from, const std::string& to) {
  if (::renameat2(dir, from.c_str(), dir, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  // A file system that cannot do it in one step: create a link, which never replaces anything either.
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

/// Makes the names in a folder durable. Returns 0 or an error number.
int sync_folder(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return errno == EACCES ? 0 : errno;  // it can be written but not read: there is no descriptor to sync it by
  return ::fsync(fd.get()) == 0 || errno == EINVAL ? 0 : errno;  // EINVAL: this file system cannot sync a folder
}

}  // namespace

Result<Fd> OutWriter::open_root(const std::string& path) {
  if (path.empty()) return make_error(Errc::invalid_argument, "the output folder is missing");
  // A part that could not be created may exist all the same; if it does not, the refusal was the reason.
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

void OutWriter::report_handled(std::uint64_t bytes) {
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
  std::size_t skipped = 0;           ///< > 0: inside a folder that does not exist, which has been reported
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
  // Step up first: from a folder that may not be searched there is no way up.
  const Fd folder(::fcntl(at_.fd(), F_DUPFD_CLOEXEC, 3));
  if (auto up = at_.up(); !up) return up;
  struct stat info {};
  if (!folder || ::fstat(folder.get(), &info) != 0) return {};
  // An existing folder only loses permissions; a new one has what the umask left, and more for its owner.
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
  if (S_ISDIR(info.st_mode)) return failed(PathIssue::Kind::exists, "there is a folder where a link should be");
  if (!options_.overwrite) {
    return failed(PathIssue::Kind::exists, "there is something else where a link should be; --overwrite replaces it");
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

/// A folder that its owner may not enter or change is opened for this fetch: an earlier fetch left it so, of this share
/// or (with `overwrite`) of another version. In the end `leave_folder` gives it the mode of the share.
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
  // Its owner gets all permissions until it is filled.
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
            S_ISLNK(info.st_mode) ? "there is a symbolic link where a folder should be; it is not followed"
                                  : "there is something else where a folder should be");
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

Result<std::vector<Bytes>> OutWriter::ops_of(const std::vector<OpId>& ids) {
  std::vector<OpId> wanted;  // each once, and not the previous one again: runs of the same op are common
  for (const auto& id : ids) {
    if (id != last_id_ && std::find(wanted.begin(), wanted.end(), id) == wanted.end()) wanted.push_back(id);
  }
  std::vector<Bytes> ops;
  if (!wanted.empty()) {
    auto fetched = fetch_(wanted);
    if (!fetched) return fetched;
    ops = std::move(*fetched);
  }
  std::vector<Bytes> out;
  out.reserve(ids.size());
  for (const auto& id : ids) {
    const auto at = std::find(wanted.begin(), wanted.end(), id);
    out.push_back(at == wanted.end() ? last_bytes_ : ops[static_cast<std::size_t>(at - wanted.begin())]);
  }
  last_id_ = ids.back();
  last_bytes_ = out.back();
  return out;
}

Result<Bytes> OutWriter::packed_bytes(std::uint64_t from, std::uint64_t size) {
  if (!pack_) return make_error(Errc::internal, "a packed file without a pack");
  if (pack_->missing) return *pack_->missing;
  if (!pack_->bytes) {
    auto ops = ops_of({pack_->id});
    if (!ops) {
      if (ops.error().code == Errc::not_found) pack_->missing = ops.error();
      return ops.error();
    }
    if (ops->front().size() != pack_->size) return make_error(Errc::malformed, "a pack has a wrong size");
    pack_->bytes = std::move(ops->front());
  }
  return pack_->bytes->slice(static_cast<std::size_t>(from), static_cast<std::size_t>(size));
}

/// An unfinished file. It is removed together with this object, unless it was handed on.
struct OutWriter::TempFile {
  std::shared_ptr<Fd> dir;
  std::string name;
  Fd fd;
  TempFile() = default;
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;
  ~TempFile() {
    if (!name.empty()) ::unlinkat(dir->get(), name.c_str(), 0);
  }
};

/// One file: compared with the existing one as long as they are the same, and written otherwise. Its ids are not kept:
/// a list may repeat one op many more times than fits into memory.
struct OutWriter::Job {
  enum class Stage { comparing, writing, over };
  FileHead head;
  std::string path;
  std::uint64_t number = 0;
  Bytes packed;
  Stage stage = Stage::over;
  std::uint64_t at = 0;  ///< bytes that are the same, or were written
  // comparing
  Fd there;
  struct stat info {};
  std::optional<mode_t> before;  ///< its mode, if it was changed in order to read it
  OpId compared;                 ///< over the ids of the chunks that are the same, in order
  // writing
  TempFile temp;

  std::size_t next_bytes(std::size_t chunk) const {
    return static_cast<std::size_t>(std::min<std::uint64_t>(head.size - at, chunk));
  }
};

namespace {
/// The hash of a sequence of ids, added one at a time.
OpId chained(const OpId& before, const OpId& id) {
  std::vector<std::uint8_t> both(before.view().begin(), before.view().end());
  both.insert(both.end(), id.view().begin(), id.view().end());
  return op_id_of(both);
}
}  // namespace

/// An op of the file is not available, now or for good.
Result<void> OutWriter::on_missing(Job& job, const Error& error) {
  if (options_.last_pass()) {
    fail(job, PathIssue::Kind::missing, error.message);
  } else {
    job.stage = Job::Stage::over;
    ++counts_.postponed;
    report_handled(0);
  }
  return {};
}

void OutWriter::fail(Job& job, PathIssue::Kind kind, std::string reason) {
  job.stage = Job::Stage::over;
  fail(job.number, kind, job.path, std::move(reason));
}

Result<void> OutWriter::file(ManifestRecord& record, ManifestReader& reader) {
  Job job;
  job.head = std::move(record.file);
  job.path = reader.path();
  job.number = number_++;
  const std::uint64_t postponed = counts_.postponed;
  handled_ = 0;
  const std::uint64_t pack_at = pack_ ? pack_->at : 0;
  if (job.head.packed && pack_) pack_->at += job.head.size;
  const bool skip = options_.skip(job.number);
  if (!skip && skip_depth_ == 0) {
    if (auto begun = begin(job, pack_at); !begun) return begun;
  }
  while (true) {
    auto next = reader.next();
    if (!next) return next.error();
    if (!*next || (*next)->kind == ManifestRecord::Kind::file_end) break;
    if (auto taken = take(job, (*next)->ids); !taken) return taken;
  }
  if (skip) return {};
  if (skip_depth_ > 0) {
    ++counts_.failed;
    options_.settled(job.number);
    report_handled(job.head.size);
    return {};
  }
  const std::uint64_t size = job.head.size;
  auto done = end(job);
  if (done && counts_.postponed == postponed) report_handled(size);  // written, kept, or failed for good
  return done;
}

/// Looks at what is in the file's place.
Result<void> OutWriter::begin(Job& job, std::uint64_t pack_at) {
  const auto& head = job.head;
  if (head.packed) {
    auto bytes = packed_bytes(pack_at, head.size);
    if (!bytes) {
      if (bytes.error().code == Errc::not_found) return on_missing(job, bytes.error());
      return bytes.error().context(printable(job.path));
    }
    job.packed = std::move(*bytes);
  }
  if (::fstatat(at_.fd(), head.name.c_str(), &job.info, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return begin_writing(job);
    fail(job, PathIssue::Kind::unwritable, errno_error(errno, "look up").message);
    return {};
  }
  if (S_ISDIR(job.info.st_mode)) {
    fail(job, PathIssue::Kind::exists, "there is a folder where a file should be");
    return {};
  }
  if (!S_ISREG(job.info.st_mode) || static_cast<std::uint64_t>(job.info.st_size) != head.size)
    return on_difference(job);
  constexpr int kFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  job.there = Fd(::openat(at_.fd(), head.name.c_str(), kFlags));
  if (!job.there && errno == EACCES && options_.modes && (head.mode & S_IRUSR) == 0) {
    // The share says that its owner may not read it: an earlier fetch left it so.
    job.before = grant(at_.fd(), head.name, S_IFREG, S_IRUSR);
    job.there = Fd(::openat(at_.fd(), head.name.c_str(), kFlags));
  }
  if (!job.there || ::fstat(job.there.get(), &job.info) != 0 || !S_ISREG(job.info.st_mode)) return on_difference(job);
  job.stage = Job::Stage::comparing;
  if (head.packed) return compare(job, nullptr);
  return {};
}

/// The next chunks of the file.
Result<void> OutWriter::take(Job& job, const std::vector<OpId>& ids) {
  for (std::size_t i = 0; i < ids.size() && job.stage != Job::Stage::over;) {
    if (is_stopped()) {
      put_back(job);
      return stopped();
    }
    if (job.stage == Job::Stage::comparing) {
      if (auto compared = compare(job, &ids[i]); !compared) return compared;
      if (job.stage == Job::Stage::comparing) ++i;
      continue;
    }
    const std::vector<OpId> part(ids.begin() + static_cast<std::ptrdiff_t>(i),
                                 ids.begin() + static_cast<std::ptrdiff_t>(std::min(ids.size(), i + kOpsAtOnce)));
    if (auto written = write_ops(job, part); !written) return written;
    i += part.size();
  }
  return {};
}

/// Compares the next chunk, or a packed file as a whole. If it differs, does what follows from that.
Result<void> OutWriter::compare(Job& job, const OpId* id) {
  std::vector<std::uint8_t>& buffer = buffer_;
  buffer.resize(job.next_bytes(options_.chunk_bytes));
  auto got = read_full(job.there.get(), buffer.data(), buffer.size());
  if (!got || *got != buffer.size()) return on_difference(job);
  const bool same = id == nullptr ? as_text(buffer) == job.packed.text() : op_id_of(buffer) == *id;
  if (!same) return on_difference(job);
  if (id != nullptr) job.compared = chained(job.compared, *id);
  job.at += buffer.size();
  report_handled(job.at);
  return {};
}

void OutWriter::put_back(Job& job) {
  if (job.before) change_mode(job.there.get(), job.info.st_mode, *std::exchange(job.before, std::nullopt));
}

/// Something else is in the file's place.
Result<void> OutWriter::on_difference(Job& job) {
  put_back(job);
  if (!options_.overwrite) {
    fail(job, PathIssue::Kind::exists, "another file is there; --overwrite replaces it");
    return {};
  }
  const std::uint64_t same = std::exchange(job.at, 0);
  report_handled(0);
  if (auto begun = begin_writing(job); !begun || job.stage == Job::Stage::over) return begun;
  return copy_same(job, same);
}

/// The first `bytes` are the same in the existing file. Their ids are gone already, so the bytes are copied from there
/// and checked again, because others may write to that file.
Result<void> OutWriter::copy_same(Job& job, std::uint64_t bytes) {
  if (bytes == 0) return {};
  if (::lseek(job.there.get(), 0, SEEK_SET) != 0) return on_refused(job, errno_error(errno, "seek"));
  OpId copied;
  while (job.at < bytes) {
    if (is_stopped()) return stopped();
    buffer_.resize(job.next_bytes(options_.chunk_bytes));
    auto got = read_full(job.there.get(), buffer_.data(), buffer_.size());
    if (!got) return on_refused(job, got.error());
    if (*got != buffer_.size()) break;
    copied = chained(copied, op_id_of(buffer_));
    if (auto written = write_full(job.temp.fd.get(), buffer_); !written) return on_refused(job, written.error());
    job.at += buffer_.size();
    report_handled(job.at);
  }
  if (copied == job.compared) return {};
  fail(job, PathIssue::Kind::changed, "it changed while it was compared; the next fetch will compare it again");
  return {};
}

/// The system refused something. That ends the fetch, or concerns this file alone.
Result<void> OutWriter::on_refused(Job& job, const Error& error) {
  if (ends_everything(error)) return error.context(printable(job.path));
  fail(job, PathIssue::Kind::unwritable, error.message);
  return {};
}

/// Checks that the disk has room for a file of this
/// size: other programs need some of the disk, too.
Result<void> OutWriter::has_room(std::uint64_t bytes) const {
  if (bytes < kLooksForRoom) return {};
  const auto room = free_bytes(sync_.get());
  if (!room || *room >= bytes) return {};
  return make_error(Errc::disk_full, "it has " + amount_of(bytes) + ", and the disk has room for " + amount_of(*room));
}

Result<void> OutWriter::begin_writing(Job& job) {
  const auto& head = job.head;
  if (auto room = has_room(head.size); !room) return room.error().context(printable(job.path));
  auto dir = shared_dir();
  if (!dir) return on_refused(job, errno_error(errno, "open"));
  const std::string name = temp_name(options_.salt, job.path);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  // The file gets its mode at once, less the umask: this descriptor can write to it even where the mode forbids it.
  Fd fd(::openat(dir->get(), name.c_str(), kFlags, mode_t{head.mode}));
  if (!fd && errno == EEXIST) {
    ::unlinkat(dir->get(), name.c_str(), 0);
    fd = Fd(::openat(dir->get(), name.c_str(), kFlags, mode_t{head.mode}));
  }
  if (!fd) return on_refused(job, errno_error(errno, "create"));
  job.temp.dir = std::move(dir);
  job.temp.name = name;
  job.temp.fd = std::move(fd);
  job.stage = Job::Stage::writing;
  if (!head.packed) return {};
  if (auto may = afford(head.size); !may) return may.error().context(printable(job.path));
  if (auto written = write_full(job.temp.fd.get(), job.packed); !written) return on_refused(job, written.error());
  job.at = head.size;
  return {};
}

Result<void> OutWriter::write_ops(Job& job, const std::vector<OpId>& ids) {
  const std::uint64_t bytes = std::min<std::uint64_t>(job.head.size - job.at, ids.size() * options_.chunk_bytes);
  if (auto may = afford(bytes); !may) return may.error().context(printable(job.path));
  auto ops = ops_of(ids);
  if (!ops) {
    if (ops.error().code == Errc::not_found) return on_missing(job, ops.error());
    return ops.error().context(printable(job.path));
  }
  for (const auto& op : *ops) {
    if (op.size() != job.next_bytes(options_.chunk_bytes)) {
      return make_error(Errc::malformed, printable(job.path) + ": a chunk has a wrong size");
    }
    if (auto written = write_full(job.temp.fd.get(), op); !written) return on_refused(job, written.error());
    job.at += op.size();
  }
  report_handled(job.at);
  return {};
}

Result<void> OutWriter::end(Job& job) {
  if (job.stage == Job::Stage::over) return {};
  const auto& head = job.head;
  if (job.stage == Job::Stage::comparing) {
    keep_file(job);
    return {};
  }
  if (head.mtime) {
    const timespec times[2] = {{0, UTIME_OMIT},
                               {static_cast<time_t>(head.mtime->seconds), static_cast<long>(head.mtime->nanos)}};
    static_cast<void>(::futimens(job.temp.fd.get(), times));
  }
  if (waiting_.empty()) waiting_since_ = std::chrono::steady_clock::now();
  waiting_bytes_ += head.size;
  waiting_.push_back(Waiting{std::move(job.temp.dir), std::exchange(job.temp.name, {}), std::move(job.head.name),
                             std::move(job.path), job.number});
  if (waiting_.size() >= kGroupFiles || waiting_dirs_ >= kGroupDirs || waiting_bytes_ >= kGroupBytes) {
    return finish_group();
  }
  return {};
}

/// The file exists already.
void OutWriter::keep_file(Job& job) {
  const auto& head = job.head;
  const bool executable = (head.mode & (S_IXUSR | S_IXGRP | S_IXOTH)) != 0;
  mode_t wanted = with_exec(job.before.value_or(job.info.st_mode), executable);
  if (options_.modes) {
    const mode_t special = wanted & (kAllBits & ~mode_t{kModeBits});
    wanted = special | (options_.overwrite ? head.mode & ~umask_ : wanted & mode_t{head.mode});
  }
  change_mode(job.there.get(), job.info.st_mode, wanted);
  ++counts_.kept;
  options_.settled(job.number);
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
