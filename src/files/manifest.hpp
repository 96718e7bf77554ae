// The manifest: the contents of a share as a stream of records. Byte tables: docs/file-format.md.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "files/format.hpp"

namespace kitsune2::files {

/// A modification time, as the file system has it.
struct FileTime {
  std::int64_t seconds = 0;
  std::uint32_t nanos = 0;  ///< < 10^9
  friend bool operator==(const FileTime&, const FileTime&) = default;
};

/// What a record says about a file; for a folder or link, name and mode.
struct FileHead {
  std::string name;
  std::uint64_t size = 0;
  std::uint16_t mode = kPlainMode;  ///< within kModeBits; in version 1 kPlainMode or kExecutableMode
  bool packed = false;              ///< its bytes are the next `size` bytes of the open pack
  std::optional<FileTime> mtime;
  friend bool operator==(const FileHead&, const FileHead&) = default;
};

/// Appends records to a byte vector. The caller must obey the grammar: ascending names in each folder, full packs, one
/// `version` throughout.
struct ManifestEncoder {
  static void begin(std::vector<std::uint8_t>& out, std::uint8_t version = 1);
  static void dir(std::vector<std::uint8_t>& out, std::string_view name);
  static void dir2(std::vector<std::uint8_t>& out, std::string_view name, std::uint16_t mode);
  static void dir_end(std::vector<std::uint8_t>& out);
  static void file(std::vector<std::uint8_t>& out, const FileHead& head, const std::vector<OpId>& ids,
                   std::uint8_t version = 1);
  /// Version 2 only.
  static void link(std::vector<std::uint8_t>& out, std::string_view name, std::string_view target);
  static void pack(std::vector<std::uint8_t>& out, const OpId& id, std::uint64_t size);
};

/// One step through a manifest.
struct ManifestRecord {
  enum class Kind {
    dir,       ///< `file.name` opens a folder of mode `file.mode`
    link,      ///< `file.name` is a symbolic link to `target`
    dir_end,   ///< the innermost folder ends; after the last one the manifest ends (the next call returns nullopt)
    file,      ///< `file`; its `ids` follow if it is neither empty nor packed
    ids,       ///< the next ops of the file, at most kIdsPerRecord
    file_end,  ///< after each file
    pack,      ///< a pack of `size` bytes in op ids[0] is open
  };
  Kind kind = Kind::dir;
  FileHead file;
  std::string target;
  std::vector<OpId> ids;
  std::uint64_t size = 0;
};

/// The source of the manifest's bytes: returns the next bytes, or an empty view at the end.
using ManifestSource = std::function<Result<Bytes>()>;

/// Reads a manifest step by step and rejects what the format forbids. The bytes may be hostile.
///
/// *Rules*, each of which gives Errc::malformed with the path.
///  M1  Names satisfy `name_fault`, and paths have at most kMaxPathBytes.
///  M2  Names ascend strictly in each folder, so nothing occurs twice and no path is both file and folder. Checking
///      this takes memory for one path.
///  M3  Every packed file lies in one pack, and packs have no rest.
///  M4  Counts, sizes and op references are those of the root op, and no byte follows.
///  M5  Links satisfy `target_fault`, and modes have no bits beyond kModeBits.
///
/// Memory: one path, one record. Not thread-safe.
class ManifestReader {
 public:
  static constexpr std::size_t kIdsPerRecord = 1024;

  ManifestReader(ManifestSource source, const RootOp& root);

  /// Returns the next record; nullopt after the last. After an error the reader is unusable.
  Result<std::optional<ManifestRecord>> next();
  /// The path of the last record: folders joined by '/', without the share itself. Empty at the top.
  std::string path() const;
  /// The totals of the records read so far.
  const FolderSummary& seen() const { return seen_; }

 private:
  struct Folder {
    std::string name;
    std::string last;  ///< the child that was read last
    bool any = false;
  };

  Error fault(std::string_view what) const;
  Result<bool> fill(std::size_t bytes);  ///< false: the stream ends earlier
  Result<std::uint8_t> byte();
  Result<std::uint64_t> varint();
  Result<std::string> child_name();
  Result<std::uint16_t> mode();
  Result<OpId> id();
  Result<void> begin();
  Result<std::optional<ManifestRecord>> read_ids();
  Result<std::optional<ManifestRecord>> read_dir();
  Result<std::optional<ManifestRecord>> end_dir();
  Result<std::optional<ManifestRecord>> read_file();
  Result<std::optional<ManifestRecord>> read_pack();
  Result<std::optional<ManifestRecord>> read_link();

  ManifestSource source_;
  RootOp root_;
  std::vector<std::uint8_t> buffer_;
  std::size_t at_ = 0;
  std::uint64_t consumed_ = 0;
  bool begun_ = false, done_ = false, in_file_ = false;
  std::uint64_t ids_left_ = 0;
  std::uint64_t pack_left_ = 0;
  std::string file_name_;
  std::vector<Folder> folders_;
  std::size_t path_bytes_ = 0;  ///< of the open folders, with a slash after each
  FolderSummary seen_;
};

}  // namespace kitsune2::files
