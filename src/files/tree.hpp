// The manifest's bytes as ops: chunks, list ops with their ids, up to a single id. Writing and reading.
#pragma once

#include <array>
#include <functional>
#include <vector>

#include "files/format.hpp"

namespace kitsune2::files {

/// Stores an op and returns its id.
using PutOp = std::function<Result<OpId>(Bytes)>;
/// Returns the bytes of an op, waiting for it if necessary. `hints`: the ids that will be needed next, nearest first.
using GetOp = std::function<Result<Bytes>(const OpId& id, const std::vector<OpId>& hints)>;

/// Writes a stream of any length. Memory: one chunk, and at most kFanout ids per level. A level passes up only the ids
/// of full list ops, so the shape depends on the length alone.
class TreeWriter {
 public:
  explicit TreeWriter(PutOp put, std::uint8_t chunk_log2 = kChunkLog2)
      : put_(std::move(put)), chunk_log2_(chunk_log2) {}
  Result<void> write(ByteView bytes);
  /// Returns the id of the only chunk or the top list op. Must be
  /// called once, after at least one byte was written.
  Result<OpId> finish();
  std::uint64_t bytes() const { return bytes_; }
  std::uint64_t ops() const { return ops_; }

 private:
  Result<OpId> put(Bytes op);
  Result<void> add(unsigned level, const OpId& id, std::uint64_t span);

  PutOp put_;
  std::uint8_t chunk_log2_;
  std::vector<std::uint8_t> chunk_;
  std::array<std::vector<OpId>, kMaxLevels + 1> levels_;     ///< [n]: children of the open list op of level n + 1
  std::array<std::uint64_t, kMaxLevels + 1> level_bytes_{};  ///< manifest bytes under them
  std::uint64_t bytes_ = 0;
  std::uint64_t ops_ = 0;
};

/// Reads the chunks in order. Every list op must be exactly the one for its place, and every chunk of the right size;
/// otherwise Errc::malformed. Memory: one list op per level.
class TreeReader {
 public:
  TreeReader(GetOp get, const RootOp& root);
  /// Returns the next chunk; empty at the end.
  Result<Bytes> next();

 private:
  struct Open {
    unsigned level = 0;
    std::uint64_t left = 0;  ///< manifest bytes under the children that were not read yet
    std::vector<OpId> children;
    std::size_t at = 0;
  };
  Result<Bytes> get(const OpId& id, std::uint64_t under, unsigned level);
  std::vector<OpId> hints() const;

  GetOp get_;
  RootOp root_;
  std::vector<Open> open_;
  bool begun_ = false;
};

}  // namespace kitsune2::files
