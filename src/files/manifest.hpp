// The manifest: what is in a share, as one stream of records. Byte tables: docs/file-format.md.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "files/format.hpp"

namespace kitsune2::files {

/// Modification time, as the file system has it.
struct FileTime {
  std::int64_t seconds = 0;
  std::uint32_t nanos = 0;  ///< < 10^9
  friend bool operator==(const FileTime&, const FileTime&) = default;
};

/// What a record says of a file; of a folder or link, name and mode.
struct FileHead {
  std::string name;
  std::uint64_t size = 0;
  std::uint16_t mode = kPlainMode;  ///< within kModeBits. Of version 1: kPlainMode or kExecutableMode
  bool packed = false;              ///< its bytes are the next `size` ones of the open pack
  std::optional<FileTime> mtime;
  friend bool operator==(const FileHead&, const FileHead&) = default;
};

/// Appends records to a byte vector. The caller keeps to the grammar: names ascending in each folder, packs filled, one
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
    dir_end,   ///< the innermost folder is done; of the last one: the manifest is done (the next call gives nullopt)
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

/// Where manifest bytes come from: gives the next bytes, an empty view at the end.
using ManifestSource = std::function<Result<Bytes>()>;

/// Reads a manifest step by step and refuses what the format forbids. Bytes are hostile.
///
/// *Rules* (each Errc::malformed, with the path): M1 names are as `name_fault` wants them, and paths have at most
/// kMaxPathBytes. M2 names ascend strictly in each folder: so nothing is there twice, and no path is both file and
/// folder; found with memory for one path only. M3 every packed file lies in one pack and packs have no rest. M4
/// counts, sizes and op references are those of the root op, and no byte follows. M5 links keep `target_fault`'s rule,
/// modes have no other bits than kModeBits. Memory: one path, one record. Not thread-safe.
class ManifestReader {
 public:
  static constexpr std::size_t kIdsPerRecord = 1024;

  ManifestReader(ManifestSource source, const RootOp& root);

  /// The next record; nullopt after the last. After an error the reader is unusable.
  Result<std::optional<ManifestRecord>> next();
  /// Of the record last read: folders joined by '/', without the share itself. Empty at the top.
  std::string path() const;
  /// What was read so far.
  const FolderSummary& seen() const { return seen_; }

 private:
  struct Folder {
    std::string name;
    std::string last;  ///< the child read last
    bool any = false;
  };

  Error fault(std::string_view what) const;
  Result<bool> fill(std::size_t bytes);  ///< false: the stream ends before
  Result<std::uint8_t> byte();
  Result<std::uint64_t> varint();
  Result<std::string> child_name();
  Result<std::uint16_t> mode();
  Result<OpId> id();
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
  std::size_t path_bytes_ = 0;  ///< of the open folders, a slash behind each
  FolderSummary seen_;
};

}  // namespace kitsune2::files
