// Few large writes instead of many small ones: what SQLite stores stand on.
#pragma once

#include <sqlite3.h>

#include <cstddef>
#include <memory>
#include <string>

namespace kitsune2::sqlite {

/// A VFS that gathers what is written to a WAL in one stretch, and hands it on to another VFS in pieces of up to
/// `kGatherBytes`. For databases with synchronous=FULL.
///
/// *Rules*. G1: a sync, and whatever else could tell the difference (a read, the size, a truncation), has everything
/// written before. So order and durability are those of the VFS below. G2: a piece that cannot be written is the error
/// of the call that hands it on, at the latest of the sync; SQLite fails the commit for either. G3: only WALs, and only
/// on a disk where a write never harms bytes beside it. *Rationale*: with FULL, SQLite syncs a WAL before anybody may
/// look at what is new in it. Of the database itself it does not: a checkpoint that does not come to the end tells
/// readers of its pages without a sync, and looks at no error on the way. Where writes harm their neighbours it pads a
/// WAL behind the sync. G4: a process that is killed loses what it has not synced; without this it would lose it only
/// when the machine stops. SQLite relies on neither. *Rationale of all this*: SQLite writes a WAL as 24 bytes and a
/// page, in turn. With large ops most of a writer's time was the system's in these calls (docs/decisions/0014).
class GatherVfs {
 public:
  /// SQLite's own VFS for Unix writes nothing at all when asked for a multiple of 128 KiB: it never is.
  static constexpr std::size_t kGatherBytes = 120U << 10;

  /// `parent` is the name of the VFS below, null for the default one. That one stays longer.
  explicit GatherVfs(const char* parent);
  /// When no connection has it open any more.
  ~GatherVfs();
  GatherVfs(const GatherVfs&) = delete;
  GatherVfs& operator=(const GatherVfs&) = delete;

  /// For sqlite3_open_v2. There is no such VFS (opening with it fails) if there was no parent, or no memory.
  const char* name() const { return name_.c_str(); }

 private:
  const std::string name_;
  const std::unique_ptr<sqlite3_vfs> vfs_;
};

}  // namespace kitsune2::sqlite
