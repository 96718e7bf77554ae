// Where a node's files are. docs/operations.md lists them.
#pragma once

#include <memory>
#include <string>

#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"

namespace kitsune2 {

/// "<dir>/<space>": the space's id in base64url, or a hash of
/// one over 100 characters. The stores add suffixes.
std::string space_path(const std::string& dir, const SpaceId& space);
inline std::string op_store_path(const std::string& dir, const SpaceId& space) {
  return space_path(dir, space) + ".db";
}
inline std::string peer_store_path(const std::string& dir, const SpaceId& space) {
  return space_path(dir, space) + ".peers.db";
}
inline std::string agent_key_path(const std::string& dir) { return dir + "/agent.key"; }

/// Renames a damaged database, with its WAL, to "<path>.damaged-1", and logs `why`. Keeps two earlier ones as -2 and
/// -3. Errc::io, Errc::disk_full.
Result<void> put_damaged_aside(const std::string& path, const Error& why);

/// A data directory that this process uses exclusively, until the object is destroyed. "node.lock" contains its process
/// id, and "stopping" once it ends.
class DataDir {
 public:
  /// Creates the directory (0700) and its parents if necessary, and takes the lock in "node.lock". Waits for a holder
  /// that is stopping, and half a second for one that is not, because it may have been told to stop without having had
  /// its turn yet. Errc::already_exists ("… in use by process N"); Errc::io names the path.
  static Result<std::unique_ptr<DataDir>> open(const std::string& path);
  ~DataDir();
  /// Tells processes that wait for the directory that it will be free soon.
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
