// The three op kinds of a share besides data: root, list, manifest chunk. Byte tables: docs/file-format.md.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/files.hpp"
#include "kitsune2/ids.hpp"

namespace kitsune2::files {

/// The size of a data chunk and of a manifest chunk: 2^18 bytes = 256 KiB. Chosen by measurement (docs/file-format.md).
/// Readers use the value in the root op.
inline constexpr std::uint8_t kChunkLog2 = 18;
inline constexpr std::size_t kChunkBytes = std::size_t{1} << kChunkLog2;
inline constexpr std::uint8_t kMinChunkLog2 = 10;
inline constexpr std::uint8_t kMaxChunkLog2 = 22;
/// Files up to this size are packed, many to an op. An op costs a database row, an id on the wire and a look-up, so
/// 20,000 small files as 20,000 ops would be several times slower than as some hundred.
inline constexpr std::uint64_t kPackFileBytes = 64 * 1024;
/// Children of one list op.
inline constexpr std::uint64_t kFanout = 4096;
inline constexpr unsigned kMaxLevels = 3;
inline constexpr std::size_t kIdBytes = 32;
inline constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 60;
/// The longest path inside a share, slashes included: 16 times what Linux accepts in one call, so that it has room for
/// folders of any depth that tools can make. *Rationale*: bounds work and memory for each record of a hostile manifest.
inline constexpr std::size_t kMaxPathBytes = 65'535;
inline constexpr std::size_t kMaxNameBytes = 255;
/// The prefix of a fetch's temporary files; no shared name may begin with it.
inline constexpr std::string_view kTempPrefix = ".k2part-";

/// Permission bits that a share may hold: never setuid, setgid, sticky.
inline constexpr std::uint16_t kModeBits = 0777;
/// The modes of files and folders in version 1, which has only the executable bit.
inline constexpr std::uint16_t kPlainMode = 0644;
inline constexpr std::uint16_t kExecutableMode = 0755;
/// The longest target of a symbolic link that Linux accepts.
inline constexpr std::size_t kMaxTargetBytes = 4095;

/// The size in version 1; version 2 also has the number of links.
inline constexpr std::size_t kRootBytes = 80;
inline constexpr std::size_t kRootBytes2 = 88;
inline constexpr std::size_t kListHeaderBytes = 16;

/// The root op.
struct RootOp {
  /// 1: no links, and only the executable bit. 2: both. Version 1 is written wherever it can express everything.
  std::uint8_t version = 1;
  std::uint8_t chunk_log2 = kChunkLog2;
  std::uint64_t manifest_bytes = 0;
  FolderSummary folder;
  OpId top;  ///< the manifest's only chunk, or the top list op

  std::size_t chunk_bytes() const { return std::size_t{1} << chunk_log2; }
  Bytes encode() const;
  /// Errc::malformed; Errc::unsupported (a later version).
  static Result<RootOp> decode(ByteView bytes);
};

/// The number of list levels above the chunks of a manifest of `bytes`; 0: the chunk alone. nullopt: more than
/// kMaxLevels.
std::optional<unsigned> tree_levels(std::uint64_t bytes, std::uint8_t chunk_log2);
/// The manifest bytes under one child of a full list op at `level` (1: a chunk).
std::uint64_t child_span(unsigned level, std::uint8_t chunk_log2);

/// A list op: the ids of the parts of `total` manifest bytes, in order. `level` 1 lists chunks, n lists level n-1.
Bytes encode_list(unsigned level, std::uint8_t chunk_log2, std::uint64_t total, const std::vector<OpId>& children);
/// Returns the children if the op is exactly the list op for this place. Errc::malformed.
Result<std::vector<OpId>> decode_list(ByteView bytes, unsigned level, std::uint8_t chunk_log2, std::uint64_t total);

/// The SHA-256 of `bytes`, like the ids of the store's policy.
OpId op_id_of(ByteView bytes);

// Little-endian numbers and LEB128, for the formats of this folder.
void put_u64(std::vector<std::uint8_t>& out, std::uint64_t value);
std::uint64_t get_u64(const std::uint8_t* at);
void put_varint(std::vector<std::uint8_t>& out, std::uint64_t value);

/// Whether `text` is well-formed UTF-8 (no overlong forms, no surrogates).
bool is_utf8(std::string_view text);
/// Why `name` is not allowed in a share; empty if it is allowed.
std::string_view name_fault(std::string_view name);
/// Why `target` is not allowed for a symbolic link in a folder that is `depth` folders below the
/// top; empty if it is allowed. *Rule*: a target is relative, all its ".." precede the first name,
/// and there are at most `depth` of them. *Rationale*: the ".." are then taken from the folder that
/// holds the link, which is a real one below the top; the names after them lead down, or through
/// links that obey this rule too. So no chain of links leads out. After a name, ".." would not be
/// safe: the name may be a link to a place nearer to the top.
std::string_view target_fault(std::string_view target, std::size_t depth);

}  // namespace kitsune2::files
