// The lock that keeps a database to one process, without a descriptor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "kitsune2/error.hpp"

namespace kitsune2::sqlite {

/// An exclusive lock on a database, held while the object exists: `<path>-lock`, locked with flock (so it ends with the
/// process in any case), containing the owner's process id as text. The file is never removed, because another process
/// may be about to lock it.
///
/// *It takes no descriptor.* Such a lock belongs to what `open` made, and ends when nothing refers to that any more: no
/// descriptor, and no mapping either. So a page of the file is mapped, which nobody reads, and the descriptor is
/// closed. Whether the system keeps the lock for the mapping is asked each time, by an attempt to take it once more. If
/// it does not, this attempt has it, and its descriptor stays. A child that is forked has no part in the lock.
///
/// A lock may *rest* while the database is closed. Another process can take it then; for this process it is held all
/// the same.
///
/// For one thread at a time.
class FileLock {
 public:
  /// Errc::already_exists "… in use by process N"; Errc::io.
  static Result<FileLock> take(const std::string& database_path);
  FileLock(FileLock&& other) noexcept { *this = std::move(other); }
  FileLock& operator=(FileLock&& other) noexcept {
    std::swap(held_, other.held_);
    std::swap(resting_, other.resting_);
    return *this;
  }
  ~FileLock();

  /// No effect if it rests already.
  void rest();
  /// The end of a rest, with the errors of `take`; then it rests on. No effect if it does not rest.
  Result<void> take_again(const std::string& database_path);
  /// 0, except where a mapping does not keep the lock.
  std::size_t descriptors() const { return held_.fd >= 0 ? 1 : 0; }

 private:
  /// The process, and a file whatever its names are.
  using FileId = std::tuple<int, std::uint64_t, std::uint64_t>;
  /// What keeps the lock: a descriptor or a mapping.
  struct Held {
    int fd = -1;
    void* page = nullptr;
    FileId file{};
  };
  FileLock() = default;
  static Result<Held> lock_file(const std::string& database_path, bool is_own);
  static void give_descriptor_back(const std::string& lock_path, Held& held);
  void let_go();

  Held held_;
  std::optional<FileId> resting_;
};

}  // namespace kitsune2::sqlite
