// File descriptors, and folders below a root that cannot lead out of it.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::files {

/// Owns a file descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset();

 private:
  int fd_ = -1;
};

/// Returns Errc::disk_full for ENOSPC and EDQUOT, Errc::not_found for ENOENT, Errc::already_exists for EEXIST,
/// otherwise Errc::io, with the message "<what>: <system's text>".
Error errno_error(int number, std::string_view what);
/// The system's text for an error number.
std::string errno_text(int number);

/// The bytes that this process may still write on the disk of a folder; nullopt if the disk does not say.
std::optional<std::uint64_t> free_bytes(int fd);
/// For messages: "1.2 GiB".
std::string amount_of(std::uint64_t bytes);

/// Reads until `size` bytes have arrived or the file ends, and returns the number of bytes read. Errc::io.
Result<std::size_t> read_full(int fd, std::uint8_t* out, std::size_t size);
Result<void> write_full(int fd, ByteView bytes);

/// A position in a directory tree. Steps down by one name at a time, never through a symbolic link, and back up to
/// exactly where it came from. Holds one descriptor whatever the depth, so no limit of open files or path lengths
/// applies: a step up is "..", accepted only if it is the folder that was left, by device and inode.
class DirCursor {
 public:
  explicit DirCursor(Fd root) : dir_(std::move(root)) {}
  int fd() const { return dir_.get(); }
  std::size_t depth() const { return above_.size(); }
  /// Errc::io or Errc::not_found; the position is unchanged then.
  Result<void> down(const std::string& name);
  /// Like `down`, for a folder that the caller has opened.
  Result<void> enter(Fd child);
  /// Errc::io if the tree was changed so that the way back is another one. The cursor is unusable then.
  Result<void> up();

 private:
  struct Place {
    dev_t device;
    ino_t inode;
  };
  Fd dir_;
  std::vector<Place> above_;
};

}  // namespace kitsune2::files
