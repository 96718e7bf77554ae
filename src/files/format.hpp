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

/// Bytes of a data chunk and of a manifest chunk: 2^18 = 256 KiB. Chosen by measurement (docs/file-format.md). Readers
/// take what the root op says.
inline constexpr std::uint8_t kChunkLog2 = 18;
inline constexpr std::size_t kChunkBytes = std::size_t{1} << kChunkLog2;
inline constexpr std::uint8_t kMinChunkLog2 = 10;
inline constexpr std::uint8_t kMaxChunkLog2 = 22;
/// Files up to this size are packed, many to one op: an op costs a database row, an id on the wire and a look-up, so
/// 20,000 small files as 20,000 ops are several times slower than as some hundred.
inline constexpr std::uint64_t kPackFileBytes = 64 * 1024;
/// Children of one list op.
inline constexpr std::uint64_t kFanout = 4096;
inline constexpr unsigned kMaxLevels = 3;
inline constexpr std::size_t kIdBytes = 32;
inline constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 60;
/// A path inside a share, slashes included: 16 times what Linux takes in one call, so folders of any depth that tools
/// can make. *Rationale*: work and memory for each record of a hostile manifest stay bounded.
inline constexpr std::size_t kMaxPathBytes = 65'535;
inline constexpr std::size_t kMaxNameBytes = 255;
/// Temporary files of a fetch begin so; no shared name may.
inline constexpr std::string_view kTempPrefix = ".k2part-";

/// Permission bits that a share may hold: never setuid, setgid, sticky.
inline constexpr std::uint16_t kModeBits = 0777;
/// Of files and folders of version 1, where the executable bit is all that is said.
inline constexpr std::uint16_t kPlainMode = 0644;
inline constexpr std::uint16_t kExecutableMode = 0755;
/// What Linux takes as the target of a symbolic link.
inline constexpr std::size_t kMaxTargetBytes = 4095;

/// Of version 1; version 2 has the number of links too.
inline constexpr std::size_t kRootBytes = 80;
inline constexpr std::size_t kRootBytes2 = 88;
inline constexpr std::size_t kListHeaderBytes = 16;

/// The root op.
struct RootOp {
  /// 1: no links, no permission bits but the executable one. 2: both. Version 1 is written where it says all.
  std::uint8_t version = 1;
  std::uint8_t chunk_log2 = kChunkLog2;
  std::uint64_t manifest_bytes = 0;
  FolderSummary folder;
  OpId top;  ///< the manifest's only chunk, or the top list op

  std::size_t chunk_bytes() const { return std::size_t{1} << chunk_log2; }
  Bytes encode() const;
  /// Errc::malformed, Errc::unsupported (a later version).
  static Result<RootOp> decode(ByteView bytes);
};

/// How many list levels stand above the chunks of a manifest of `bytes`; 0: the chunk itself. nullopt: more than
/// kMaxLevels.
std::optional<unsigned> tree_levels(std::uint64_t bytes, std::uint8_t chunk_log2);
/// Manifest bytes under one child of a full list op at `level` (1: a chunk).
std::uint64_t child_span(unsigned level, std::uint8_t chunk_log2);

/// A list op: the ids of the parts of `total` manifest bytes, in order. `level` 1 lists chunks, n lists level n-1.
Bytes encode_list(unsigned level, std::uint8_t chunk_log2, std::uint64_t total, const std::vector<OpId>& children);
/// The children, where the op is exactly the list op of this place. Errc::malformed.
Result<std::vector<OpId>> decode_list(ByteView bytes, unsigned level, std::uint8_t chunk_log2, std::uint64_t total);

/// SHA-256 of `bytes`, as the store's policy names ops.
OpId op_id_of(ByteView bytes);

// Little-endian numbers and LEB128, for the formats of this folder.
void put_u64(std::vector<std::uint8_t>& out, std::uint64_t value);
std::uint64_t get_u64(const std::uint8_t* at);
void put_varint(std::vector<std::uint8_t>& out, std::uint64_t value);

/// Whether `text` is well-formed UTF-8 (no overlong forms, no surrogates).
bool is_utf8(std::string_view text);
/// Why `name` may not be a name in a share; empty: it may.
std::string_view name_fault(std::string_view name);
/// Why `target` may not be that of a symbolic link in a folder that is `depth` folders below the top; empty: it may.
/// *Rule*: a target is relative, its ".." all stand before the first name, and they are at most `depth`. *Rationale*:
/// the
/// ".." are then taken from the folder that holds the link, which is a real one below the top; the names after them
/// lead down, or through links that keep this rule themselves. So no chain of links leads out. With ".." behind a name
/// that would not follow: the name may be a link to a place nearer to the top.
std::string_view target_fault(std::string_view target, std::size_t depth);

}  // namespace kitsune2::files
