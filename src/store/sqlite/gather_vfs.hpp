// Few large writes instead of many small ones, and removals that last, below SQLite stores.
#pragma once

#include <sqlite3.h>

#include <cstddef>
#include <memory>
#include <string>

namespace kitsune2::sqlite {

/// A VFS that collects what is written to a WAL without a gap, and passes it to another VFS in pieces of up to
/// `kGatherBytes`. For databases with synchronous=FULL.
///
/// *Rules*.
///  G1  A sync, and whatever else could tell the difference (a read, the size, a truncation), first writes everything.
///      So order and durability are those of the VFS below.
///  G2  If a piece cannot be written, the call that passes it on fails, at the latest the sync; SQLite fails the commit
///      in both cases.
///  G3  Only WALs, and only on a disk where a write never harms bytes beside it. *Rationale*: with FULL, SQLite syncs a
///      WAL before anybody may read what is new in it. With the database itself it does not: an incomplete checkpoint
///      announces its pages to readers without a sync, and ignores errors before that. Where writes harm their
///      neighbours, SQLite pads a WAL after the sync.
///  G4  A process that is killed loses what it has not synced; without this VFS it would lose it only when the machine
///      stops. SQLite relies on neither.
///  G5  The removal of a rollback journal is durable: its folder is synced with it. *Rationale*: a file is created, and
///      one whose creation was cut off is mended, with such a journal, before its WAL is used. With FULL, SQLite does
///      not sync the folder when it removes a journal; only a setting that is read too late (synchronous=EXTRA) makes
///      it. If the power failed before the file system had done so by itself, the journal would be back, and the next
///      start would roll the file back to what it was long ago, under all that has been stored since.
///  G6  What a WAL has when it is opened is synced before it is read; if that fails, it is not opened. *Rationale*: a
///      process that was killed between a write and its sync leaves a commit that SQLite takes for complete, though
///      it may not be on the disk yet. Whoever stores the same op again would be told that it is stored, without
///      another write, and the power could still fail.
///
/// *Rationale for all of this*: SQLite writes a WAL as 24 bytes and a page, in turn. With large ops these calls took
/// most of a writer's time (docs/decisions/0014).
class GatherVfs {
 public:
  /// SQLite's own VFS for Unix writes nothing at all when asked for a multiple of 128 KiB, so this is not one.
  static constexpr std::size_t kGatherBytes = 120U << 10;

  /// `parent` is the name of the VFS below, null for the default one, which must outlive this object.
  explicit GatherVfs(const char* parent);
  /// Must not be called before all connections have closed it.
  ~GatherVfs();
  GatherVfs(const GatherVfs&) = delete;
  GatherVfs& operator=(const GatherVfs&) = delete;

  /// For sqlite3_open_v2. No such VFS exists (opening with it fails) if there was no parent or no memory.
  const char* name() const { return name_.c_str(); }

 private:
  const std::string name_;
  const std::unique_ptr<sqlite3_vfs> vfs_;
};

}  // namespace kitsune2::sqlite
