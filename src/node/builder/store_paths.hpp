// Where a node's files are. docs/operations.md lists them.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "kitsune2/dialect.hpp"
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
/// Of the endpoint, in dialects that use iroh.
inline std::string node_key_path(const std::string& dir) { return dir + "/node.key"; }

/// Renames a damaged database, with its WAL, to "<path>.damaged-1", and logs `why`. Keeps two earlier ones as -2 and
/// -3. Errc::io, Errc::disk_full.
Result<void> put_damaged_aside(const std::string& path, const Error& why);

/// The dialect of the data in the directory `dir`: what its file "dialect" says, or 0.2 if there is none, as in the
/// directories of earlier versions, or if what has that name is not a node's. nullopt: there is no data yet (agent.key,
/// node.key, *.db), or only offline nodes that nobody told a dialect have kept some (`DataDir::leave_open`), so that a
/// node of any dialect may use it.
/// *Rationale*: the ops of a space belong to one network, and the urls that the stores keep to one transport.
/// Errc::corrupt: the file says something else; Errc::io.
Result<std::optional<Dialect>> dialect_of_folder(const std::string& dir);

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
  /// Notes, durably and before there is any data, that the directory is for nodes of `dialect`. 0.2 needs no note. What
  /// has the note's name and is not a node's is left alone; Errc::invalid_config names it if a note is needed.
  /// Errc::invalid_config names both dialects if there is data of another one; Errc::corrupt, Errc::io,
  /// Errc::disk_full.
  Result<void> use_for(Dialect dialect);
  /// The errors of `use_for` about data of another dialect, without noting anything.
  Result<void> may_use_for(Dialect dialect) const;
  /// Notes, durably and before there is any data, that no dialect is chosen yet, unless one is: a later node chooses
  /// it. *Rationale*: an offline node sends nothing and has no url, so that nothing of what it keeps belongs to a
  /// network; but data without a note is of 0.2. The errors of `use_for` about notes.
  Result<void> leave_open();

 private:
  DataDir(std::string path, int fd) : path_(std::move(path)), lock_fd_(fd) {}
  /// False: no dialect is chosen yet. The errors of `may_use_for`.
  Result<bool> is_noted_for(Dialect dialect) const;
  std::string path_;
  int lock_fd_;
};

}  // namespace kitsune2
