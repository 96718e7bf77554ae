// A node's folder: names, modes, the lock, and damaged files.
#include "node/builder/store_paths.hpp"

#include <fcntl.h>
#include <sodium.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <thread>

#include "log/log.hpp"

namespace kitsune2 {
namespace {

constexpr std::size_t kMaxNameChars = 100;

std::string reason(int error) { return std::strerror(error); }

/// How long to wait for a node that is stopping: a little longer than its stop may take.
constexpr auto kPatienceWithEnd = std::chrono::seconds(40);
/// How long to wait for one that does not seem to stop.
constexpr auto kPatience = std::chrono::milliseconds(500);
constexpr auto kLockPoll = std::chrono::milliseconds(5);
constexpr std::string_view kStopping = "stopping";

/// What the holder of the lock has written into it.
struct Holder {
  std::string pid;  ///< digits, or empty
  bool stopping = false;
};

Holder holder_of(int fd) {
  std::array<char, 32> buffer{};
  const ssize_t size = ::pread(fd, buffer.data(), buffer.size(), 0);
  const std::string_view text(buffer.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  const auto digits = std::min(text.find_first_not_of("0123456789"), text.size());
  return {std::string(text.substr(0, digits)), text.find(kStopping) != std::string_view::npos};
}

/// Takes the lock. Returns 0 or errno.
int lock_patiently(int fd) {
  const auto start = std::chrono::steady_clock::now();
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return errno;
    const std::chrono::nanoseconds patience = holder_of(fd).stopping ? kPatienceWithEnd : kPatience;
    if (std::chrono::steady_clock::now() - start > patience) return EWOULDBLOCK;
    std::this_thread::sleep_for(kLockPoll);
  }
  return 0;
}

bool write_note(int fd, const std::string& text) {
  return ::ftruncate(fd, 0) == 0 && ::pwrite(fd, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
}

/// Creates `folder` and its missing parents, and makes each name durable: if the name of a folder is lost in a crash,
/// so is everything stored in it. Returns 0 or errno.
int make_folder(const std::filesystem::path& folder, mode_t mode) {
  struct stat info {};
  const auto parent = folder.parent_path();
  if (!parent.empty() && parent != folder && ::stat(parent.c_str(), &info) != 0) {
    if (const int why = make_folder(parent, 0777); why != 0) return why;
  }
  if (::mkdir(folder.c_str(), mode) != 0) return errno == EEXIST ? 0 : errno;
  const int fd = ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return errno == EACCES ? 0 : errno;  // it can be written but not read: there is no descriptor to sync it by
  const int why = ::fsync(fd) == 0 || errno == EINVAL ? 0 : errno;  // EINVAL: this file system cannot sync a folder
  ::close(fd);
  return why;
}

}  // namespace

std::string space_path(const std::string& dir, const SpaceId& space) {
  std::string name = space.to_string();
  if (name.size() > kMaxNameChars) {
    std::array<std::uint8_t, 32> hash{};
    const ByteView id = space.view();
    crypto_generichash(hash.data(), hash.size(), id.data(), id.size(), nullptr, 0);
    name = "h-" + to_hex(hash);
  }
  // None of our names begins with a dash (an id may).
  if (name.starts_with('-')) name.insert(name.begin(), '_');
  return dir + '/' + name;
}

namespace {

/// The note of a folder with data whose dialect is not chosen yet. To programs that do not know it, it is damaged.
constexpr std::string_view kOpen = "0";
/// Longer than any dialect's name.
constexpr std::size_t kMaxNote = 64;

std::string dialect_path(const std::string& dir) { return dir + "/dialect"; }

Error cannot(const std::string& path, int error) {
  return make_error(error == ENOSPC ? Errc::disk_full : Errc::io, path + ": " + reason(error));
}

/// Whether a node has kept anything here.
Result<bool> has_data(const std::string& dir) {
  std::error_code error;
  for (std::filesystem::directory_iterator at(dir, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name.ends_with(".db") || name == "agent.key" || name == "node.key") return true;
  }
  if (error && error != std::errc::no_such_file_or_directory) return make_error(Errc::io, dir + ": " + error.message());
  return false;
}

struct Note {
  enum class Kind { none, foreign, ours };
  Kind kind = Kind::none;
  std::string text = {};  ///< of ours
};

/// What has the note's name. Ours has digits, dots and line feeds only, also in dialects that are not known yet. A
/// directory, a link or any other text is somebody else's. What a crash or a disk has damaged has lost bytes or has
/// zeros, and is ours.
Result<Note> read_note(const std::string& path) {
  constexpr std::string_view kOurs("0123456789.\n\0", 13);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0 && errno == ENOENT) return Note{};
  if (fd < 0 && (errno == ELOOP || errno == ENXIO)) return Note{Note::Kind::foreign};
  if (fd < 0) return cannot(path, errno);
  struct stat info {};
  std::string text(kMaxNote, '\0');
  const bool looked = ::fstat(fd, &info) == 0;
  const bool small = looked && S_ISREG(info.st_mode) && info.st_size <= static_cast<off_t>(kMaxNote);
  const ssize_t size = small ? ::read(fd, text.data(), text.size()) : 0;
  const int why = !looked || size < 0 ? errno : 0;
  ::close(fd);
  if (why != 0) return cannot(path, why);
  if (!small) return Note{Note::Kind::foreign};
  text.resize(static_cast<std::size_t>(size));
  if (text.find_first_not_of(kOurs) != std::string::npos) return Note{Note::Kind::foreign};
  return Note{Note::Kind::ours, std::move(text)};
}

int sync_folder(const std::string& dir) {
  const int fd = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno == EACCES ? 0 : errno;
  const int why = ::fsync(fd) == 0 || errno == EINVAL ? 0 : errno;  // EINVAL: this file system cannot sync a folder
  ::close(fd);
  return why;
}

/// Removes one that a node of another dialect left before it had any data.
Result<void> remove_note(const std::string& dir) {
  const std::string path = dialect_path(dir);
  const auto found = read_note(path);
  if (!found) return found.error();
  if (found->kind != Note::Kind::ours) return {};
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return cannot(path, errno);
  if (const int why = sync_folder(dir); why != 0) return cannot(dir, why);
  return {};
}

Result<void> put_note(const std::string& dir, std::string_view says) {
  const std::string path = dialect_path(dir), fresh = path + ".new";
  for (const std::string& name : {path, fresh}) {
    const auto found = read_note(name);
    if (!found) return found.error();
    if (found->kind != Note::Kind::foreign) continue;
    return make_error(Errc::invalid_config,
                      name + ": is not a node's, but a node " +
                          (says == kOpen ? std::string("without a dialect") : "of dialect " + std::string(says)) +
                          " keeps its note there; move it, or choose another folder");
  }
  ::unlink(fresh.c_str());
  const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return cannot(fresh, errno);
  const bool written = write_note(fd, std::string(says) + '\n') && ::fsync(fd) == 0;
  int why = written ? 0 : errno;
  ::close(fd);
  if (why == 0 && ::rename(fresh.c_str(), path.c_str()) != 0) why = errno;
  if (why == 0) why = sync_folder(dir);
  if (why == 0) return {};
  ::unlink(fresh.c_str());
  return cannot(path, why);
}

}  // namespace

Result<std::optional<Dialect>> dialect_of_folder(const std::string& dir) {
  const auto any = has_data(dir);
  if (!any) return any.error();
  if (!*any) return std::optional<Dialect>();
  const auto note = read_note(dialect_path(dir));
  if (!note) return note.error();
  if (note->kind != Note::Kind::ours) return std::optional(Dialect::v0_2);
  const std::string& text = note->text;
  if (text == std::string(kOpen) + '\n') return std::optional<Dialect>();
  const auto dialect = text.ends_with('\n') ? dialect_of(text.substr(0, text.size() - 1)) : std::nullopt;
  if (!dialect) {
    return make_error(Errc::corrupt, dialect_path(dir) + ": names no dialect that this version knows: \"" +
                                         log::printable(text, kMaxNote) + '"');
  }
  return std::optional(*dialect);
}

Result<bool> DataDir::is_noted_for(Dialect dialect) const {
  const auto held = dialect_of_folder(path_);
  if (!held) return held.error();
  if (*held && **held != dialect) {
    return make_error(Errc::invalid_config, path_ + ": has data of dialect " + std::string(to_string(**held)) +
                                                ", but this node is to speak " + std::string(to_string(dialect)) +
                                                "; choose another folder, or the folder's dialect");
  }
  return held->has_value();
}

Result<void> DataDir::may_use_for(Dialect dialect) const {
  const auto noted = is_noted_for(dialect);
  return noted ? Result<void>() : noted.error();
}

Result<void> DataDir::use_for(Dialect dialect) {
  const auto noted = is_noted_for(dialect);
  if (!noted) return noted.error();
  if (*noted) return {};
  return dialect == Dialect::v0_2 ? remove_note(path_) : put_note(path_, to_string(dialect));
}

Result<void> DataDir::leave_open() {
  const auto held = dialect_of_folder(path_);
  if (!held) return held.error();
  return *held ? Result<void>() : put_note(path_, kOpen);
}

Result<void> put_damaged_aside(const std::string& path, const Error& why) {
  constexpr int kKept = 3;
  const auto name = [&](int number, const char* end) { return path + ".damaged-" + std::to_string(number) + end; };
  for (int number = kKept; number > 1; --number) {
    for (const char* end : {"", "-wal"}) {
      ::unlink(name(number, end).c_str());
      static_cast<void>(::rename(name(number - 1, end).c_str(), name(number, end).c_str()));
    }
  }
  // The WAL first: without it the database is as it was, but a WAL without its database would be taken for damage.
  for (const char* end : {"-wal", ""}) {
    if (::rename((path + end).c_str(), name(1, end).c_str()) == 0 || errno == ENOENT) continue;
    return make_error(errno == ENOSPC ? Errc::disk_full : Errc::io, path + end + ": " + reason(errno));
  }
  ::unlink((path + "-shm").c_str());
  log::warn("node", why.to_string() + "; it is renamed to " + name(1, "") +
                        " and replaced by an empty one; bootstrap will find the peers again");
  return {};
}

Result<std::unique_ptr<DataDir>> DataDir::open(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (error) return make_error(Errc::io, path + ": " + error.message());
  if (!std::filesystem::is_directory(absolute, error)) {
    if (const int why = make_folder(absolute, 0700); why != 0)
      return make_error(why == ENOSPC ? Errc::disk_full : Errc::io, path + ": cannot be created: " + reason(why));
    if (!std::filesystem::is_directory(absolute, error)) return make_error(Errc::io, path + ": is not a directory");
  } else {
    struct stat info {};
    if (::stat(absolute.c_str(), &info) == 0 && (info.st_mode & 0077) != 0)
      log::warn("node", path + ": others can read it (chmod 700)");
  }

  const std::string lock = (absolute / "node.lock").string();
  const int fd = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return make_error(errno == ENOSPC ? Errc::disk_full : Errc::io, lock + ": " + reason(errno));
  if (const int why = lock_patiently(fd); why != 0) {
    const Holder holder = holder_of(fd);
    ::close(fd);
    if (why != EWOULDBLOCK) return make_error(Errc::io, lock + ": " + reason(why));
    return make_error(Errc::already_exists,
                      path + ": in use by " + (holder.pid.empty() ? "another process" : "process " + holder.pid));
  }
  // Only for those that wait: a full disk must not keep a node from starting to read.
  if (!write_note(fd, std::to_string(::getpid()) + '\n')) log::warn("node", lock + ": " + reason(errno));
  return std::unique_ptr<DataDir>(new DataDir(path, fd));
}

void DataDir::announce_end() {
  // A process that waits and cannot read this (the disk is full) waits less long; nothing else depends on it.
  static_cast<void>(write_note(lock_fd_, std::to_string(::getpid()) + ' ' + std::string(kStopping) + '\n'));
}

DataDir::~DataDir() { ::close(lock_fd_); }

}  // namespace kitsune2
