// One descriptor for each file, few large writes, and removals that last, below SQLite stores.
#pragma once

#include <cstddef>
#include <memory>

namespace kitsune2::sqlite {

/// A VFS for the connections of one store. It collects what is written to a WAL without a gap, and passes it to another
/// VFS in pieces of up to `kGatherBytes`. For databases with synchronous=FULL.
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
///  G7  The connections that open the same database, or WAL, with the same flags share one open file (SharedFile), with
///      locks of their own. What they gather is their own, too. *Rationale*: a store has a connection that writes and
///      one that reads, and its descriptors are what limits how many are in use (docs/decisions/0070).
///
/// *Rationale for gathering*: SQLite writes a WAL as 24 bytes and a page, in turn. With large ops these calls took
/// most of a writer's time (docs/decisions/0014).
class GatherVfs {
 public:
  /// SQLite's own VFS for Unix writes nothing at all when asked for a multiple of 128 KiB, so this is not one.
  static constexpr std::size_t kGatherBytes = 120U << 10;

  /// `parent` is the name of the VFS below, null for the default one, which must outlive this object.
  explicit GatherVfs(const char* parent);
  /// Connections that have it open go on; nobody opens it from now on.
  ~GatherVfs();
  GatherVfs(const GatherVfs&) = delete;
  GatherVfs& operator=(const GatherVfs&) = delete;

  /// For sqlite3_open_v2. No such VFS exists (opening with it fails) if there was no parent or no memory.
  const char* name() const;
  /// What the constructor of the one with this name got; of a VFS that is none, its name.
  static const char* below(const char* vfs);

 private:
  class Files;
  const std::shared_ptr<Files> files_;
};

}  // namespace kitsune2::sqlite
