// File descriptors: whole reads and writes, and steps down into folders and up again.
#include "files/fd.hpp"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>

namespace kitsune2::files {

void Fd::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

std::string errno_text(int number) {
  char buffer[128] = {};
  return strerror_r(number, buffer, sizeof buffer);  // GNU's variant, which returns the text
}

Error errno_error(int number, std::string_view what) {
  Errc code = Errc::io;
  if (number == ENOSPC || number == EDQUOT) code = Errc::disk_full;
  if (number == ENOENT) code = Errc::not_found;
  if (number == EEXIST) code = Errc::already_exists;
  return make_error(code, std::string(what) + ": " + errno_text(number));
}

std::optional<std::uint64_t> free_bytes(int fd) {
  struct statvfs info {};
  if (::fstatvfs(fd, &info) != 0 || info.f_blocks == 0) return std::nullopt;
  return static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
}

std::string amount_of(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto amount = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; amount >= 1024 && unit + 1 < std::size(kUnits); ++unit) amount /= 1024;
  char buffer[40];
  std::snprintf(buffer, sizeof buffer, unit == 0 ? "%.0f %s" : "%.1f %s", amount, kUnits[unit]);
  return buffer;
}

Result<std::size_t> read_full(int fd, std::uint8_t* out, std::size_t size) {
  std::size_t done = 0;
  while (done < size) {
    const auto n = ::read(fd, out + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error(errno, "read");
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

Result<void> write_full(int fd, ByteView bytes) {
  while (!bytes.empty()) {
    const auto n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error(errno, "write");
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Result<void> DirCursor::down(const std::string& name) {
  Fd child(::openat(dir_.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!child) return errno_error(errno, "open");
  return enter(std::move(child));
}

Result<void> DirCursor::enter(Fd child) {
  struct stat here {};
  if (::fstat(dir_.get(), &here) != 0) return errno_error(errno, "stat");
  above_.push_back(Place{here.st_dev, here.st_ino});
  dir_ = std::move(child);
  return {};
}

Result<void> DirCursor::up() {
  K2_ASSERT(!above_.empty());
  Fd parent(::openat(dir_.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent) return errno_error(errno, "open ..");
  struct stat there {};
  if (::fstat(parent.get(), &there) != 0) return errno_error(errno, "stat ..");
  if (there.st_dev != above_.back().device || there.st_ino != above_.back().inode) {
    return make_error(Errc::io, "a folder was moved while it was in use");
  }
  above_.pop_back();
  dir_ = std::move(parent);
  return {};
}

}  // namespace kitsune2::files
