// The shares in a data folder: finding them, and adding one without mixing it with others.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "kitsune2/files.hpp"
#include "kitsune2/sqlite_store.hpp"

namespace kitsune2::files {

/// The prefix of the name of a database in which a share is gathered.
inline constexpr std::string_view kUnfinished = "unfinished.";

/// A share in a data folder, as its database describes it.
struct HeldShare {
  SpaceId space;
  OpId root;
  FolderSummary folder;
  Timestamp shared_at;  ///< when its last op was stored
  bool own = false;     ///< in a space of its own; false: in the one space of earlier versions, with others
};

struct HeldShares {
  std::vector<HeldShare> shares;  ///< the latest one first
  std::vector<Error> unreadable;  ///< databases that may hold a share
};

/// Returns the shares of `node` in `data_dir`: those in spaces of their own, and those in the space that earlier
/// versions used for all shares of a node. Omits spaces that the user named and spaces that were fetched: nothing in
/// the file tells whether the user wants them served. Reads the databases without opening them, also while a node uses
/// them. Errc::io: the folder cannot be read.
Result<HeldShares> find_shares(const std::string& data_dir, Ed25519LocalAgent& node);

struct ShareAloneReport {
  ShareReport report;
  SpaceId space;  ///< empty if `strict` prevented the share
  /// Its database existed already. Its contents have not been checked: see `damaged_in`.
  bool held = false;
};

/// Stores `paths` as a share in a space of its own, in the file that `Node::space` opens for that space.
///
/// *Rules*.
///  A1  The database of the new space holds the ops of this share and no others, neither of an earlier version nor of a
///      run that was killed.
///  A2  A share that is held already is not stored again: if one of `held` has the same number of files, folders, links
///      and bytes, everything is read once to compare it.
///  A3  A run that was stopped or killed is continued when the same paths are shared again; what it left for other
///      paths is removed when a share succeeds.
/// Ops are gathered in "unfinished.<hash of the paths>.db". The file gets its name when the root is known, and with it
/// the space. With `strict`, nothing is made if something could not be read. Blocks; must not be called on the strand.
/// One call at a time for each folder. Errors: those of share_paths.
Result<ShareAloneReport> share_alone(Runtime& runtime, const std::string& data_dir, Ed25519LocalAgent& node,
                                     const std::vector<HeldShare>& held, const std::vector<std::string>& paths,
                                     bool strict, const ShareOptions& options, const std::stop_token& stop = {});

/// Returns how many ops in the database of `space` in `data_dir` are damaged or have a wrong entry. Reads all of it,
/// also while a node uses it. `progress`: as SqliteCheckOptions::on_progress. Errors: as check_sqlite_op_store.
Result<std::uint64_t> damaged_in(const std::string& data_dir, const SpaceId& space,
                                 const std::function<bool(const SqliteCheckProgress&)>& progress);

}  // namespace kitsune2::files
