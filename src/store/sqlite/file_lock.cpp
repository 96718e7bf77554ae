// Takes the lock of a database, and keeps it by a mapping of its file.
#include "store/sqlite/file_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <mutex>
#include <set>

#include "store/sqlite/db.hpp"

namespace kitsune2::sqlite {
namespace {

/// Of the mapping; nothing is read there, so it may go beyond the end of the file.
constexpr std::size_t kMappedBytes = 1;

/// The lock files whose locks rest, with the process of each: a child that was forked has none of its parent's stores.
struct Resting {
  std::mutex mutex;
  std::set<std::tuple<int, std::uint64_t, std::uint64_t>> files;
};
Resting& resting() {
  static auto* const all = new Resting;  // never destroyed: locks may live longer than static objects
  return *all;
}

/// The descriptor, or -1 and errno.
int open_lock_file(const std::string& path) { return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600); }

}  // namespace

/// After this the lock is kept by a mapping, unless that cannot be.
void FileLock::give_descriptor_back(const std::string& lock_path, Held& held) {
  void* const page = ::mmap(nullptr, kMappedBytes, PROT_NONE, MAP_SHARED, held.fd, 0);
  if (page == MAP_FAILED) return;
  // Else a child that goes on after its parent has the lock of stores that it does not have.
  if (::madvise(page, kMappedBytes, MADV_DONTFORK) != 0) {
    ::munmap(page, kMappedBytes);
    return;
  }
  const int again = open_lock_file(lock_path);
  struct stat info {};
  const bool is_same = again >= 0 && ::fstat(again, &info) == 0 && info.st_dev == std::get<1>(held.file) &&
                       info.st_ino == std::get<2>(held.file);
  if (!is_same) {  // no descriptor is left, or somebody has removed the file: it cannot be asked
    if (again >= 0) ::close(again);
    ::munmap(page, kMappedBytes);
    return;
  }
  ::close(std::exchange(held.fd, -1));
  if (::flock(again, LOCK_EX | LOCK_NB) == 0) {
    held.fd = again;
    ::munmap(page, kMappedBytes);
    return;
  }
  ::close(again);
  held.page = page;
}

void FileLock::let_go() {
  if (held_.fd >= 0) ::close(held_.fd);
  // What a child that was forked has there is not this mapping.
  if (held_.page != nullptr && std::get<0>(held_.file) == ::getpid()) ::munmap(held_.page, kMappedBytes);
  held_ = {};
}

/// `is_own`: the lock rests, and its owner takes it again.
Result<FileLock::Held> FileLock::lock_file(const std::string& database_path, bool is_own) {
  const std::string path = database_path + "-lock";
  FileLock lock;
  Held& held = lock.held_;
  held.fd = open_lock_file(path);
  if (held.fd < 0) return io_error(path, errno);
  const auto in_use_by = [&](const std::string& owner) {
    return make_error(Errc::already_exists, database_path + ": in use by process " + owner);
  };
  std::array<char, 32> text{};
  if (::flock(held.fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return io_error(path, errno);
    const ssize_t n = ::pread(held.fd, text.data(), text.size() - 1, 0);
    std::string owner(text.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
    while (!owner.empty() && (owner.back() < '0' || owner.back() > '9')) owner.pop_back();
    return in_use_by(owner.empty() ? std::string("(unknown)") : owner);
  }
  struct stat info {};
  if (::fstat(held.fd, &info) != 0) return io_error(path, errno);
  held.file = {::getpid(), info.st_dev, info.st_ino};
  if (!is_own) {
    const std::lock_guard guard(resting().mutex);
    if (resting().files.contains(held.file)) return in_use_by(std::to_string(::getpid()));
  }
  const std::string pid = std::to_string(::getpid()) + "\n";
  // For people only: a lock without the number (the disk is full) is a lock all the same.
  if (::ftruncate(held.fd, 0) == 0) static_cast<void>(!::pwrite(held.fd, pid.data(), pid.size(), 0));
  give_descriptor_back(path, held);
  return std::exchange(held, {});
}

Result<FileLock> FileLock::take(const std::string& database_path) {
  const auto held = lock_file(database_path, false);
  if (!held) return held.error();
  FileLock out;
  out.held_ = *held;
  return out;
}

void FileLock::rest() {
  if (held_.fd < 0 && held_.page == nullptr) return;
  {
    const std::lock_guard guard(resting().mutex);
    resting().files.insert(held_.file);
  }
  resting_ = held_.file;
  let_go();
}

Result<void> FileLock::take_again(const std::string& database_path) {
  if (!resting_) return {};
  const auto held = lock_file(database_path, true);
  if (!held) return held.error();
  held_ = *held;
  const std::lock_guard guard(resting().mutex);
  resting().files.erase(*std::exchange(resting_, std::nullopt));
  return {};
}

FileLock::~FileLock() {
  let_go();
  if (!resting_) return;
  const std::lock_guard guard(resting().mutex);
  resting().files.erase(*resting_);
}

}  // namespace kitsune2::sqlite
