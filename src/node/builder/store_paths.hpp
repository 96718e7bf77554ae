// Where a node's files are. docs/operations.md lists them.
#pragma once

#include <memory>
#include <string>

#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"

namespace kitsune2 {

/// "<dir>/<space>": the space's id in base64url, or (over 100 characters) a hash of it. The stores add their endings.
std::string space_path(const std::string& dir, const SpaceId& space);
inline std::string op_store_path(const std::string& dir, const SpaceId& space) {
  return space_path(dir, space) + ".db";
}
inline std::string peer_store_path(const std::string& dir, const SpaceId& space) {
  return space_path(dir, space) + ".peers.db";
}
inline std::string agent_key_path(const std::string& dir) { return dir + "/agent.key"; }

/// Renames a damaged database to "<path>.damaged-1", its WAL beside it, and logs `why`. Of earlier ones two are kept,
/// as -2 and -3. Errc::io, Errc::disk_full.
Result<void> put_damaged_aside(const std::string& path, const Error& why);

/// A data directory that this process has for itself, until it is destroyed. "node.lock" holds its number, and
/// "stopping" once it ends.
class DataDir {
 public:
  /// Makes the directory (and its parents) if it is missing, 0700, and takes the lock in "node.lock".
  /// Errc::already_exists ("… in use by process N"), Errc::io naming the path. Waits for a holder that stops; and for
  /// half a second for one that does not, because it may have been told to and not have had its turn yet.
  static Result<std::unique_ptr<DataDir>> open(const std::string& path);
  ~DataDir();
  /// Tells those who wait for the directory that it will be free soon.
  void announce_end();
  DataDir(const DataDir&) = delete;
  DataDir& operator=(const DataDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  DataDir(std::string path, int fd) : path_(std::move(path)), lock_fd_(fd) {}
  std::string path_;
  int lock_fd_;
};

}  // namespace kitsune2
