// Cuts a manifest's bytes into ops below one id, and reads them back.
#include "files/tree.hpp"

#include <algorithm>

namespace kitsune2::files {

namespace {
constexpr std::size_t kMaxHints = 64;
}

Result<OpId> TreeWriter::put(Bytes op) {
  ++ops_;
  return put_(std::move(op));
}

Result<void> TreeWriter::add(unsigned level, const OpId& id, std::uint64_t span) {
  if (level > kMaxLevels) return make_error(Errc::too_large, "the list of files is too long for one share");
  auto& children = levels_[level];
  if (children.size() == kFanout) {
    auto list = put(encode_list(level + 1, chunk_log2_, level_bytes_[level], children));
    if (!list) return list.error();
    const auto under = level_bytes_[level];
    children.clear();
    level_bytes_[level] = 0;
    if (auto up = add(level + 1, *list, under); !up) return up;
  }
  children.push_back(id);
  level_bytes_[level] += span;
  return {};
}

Result<void> TreeWriter::write(ByteView bytes) {
  const std::size_t chunk_bytes = std::size_t{1} << chunk_log2_;
  bytes_ += bytes.size();
  while (!bytes.empty()) {
    if (chunk_.size() == chunk_bytes) {
      auto id = put(Bytes(std::move(chunk_)));
      if (!id) return id.error();
      chunk_ = {};
      if (auto added = add(0, *id, chunk_bytes); !added) return added;
    }
    const std::size_t take = std::min(bytes.size(), chunk_bytes - chunk_.size());
    chunk_.insert(chunk_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(take));
    bytes = bytes.subspan(take);
  }
  return {};
}

Result<OpId> TreeWriter::finish() {
  K2_ASSERT(!chunk_.empty());
  const std::size_t last = chunk_.size();
  auto id = put(Bytes(std::move(chunk_)));
  if (!id) return id;
  const auto levels = tree_levels(bytes_, chunk_log2_);
  if (!levels) return make_error(Errc::too_large, "the list of files is too long for one share");
  if (*levels == 0) return id;
  if (auto added = add(0, *id, last); !added) return added.error();
  for (unsigned level = 0;; ++level) {
    auto list = put(encode_list(level + 1, chunk_log2_, level_bytes_[level], levels_[level]));
    if (!list || level + 1 == *levels) return list;
    if (auto up = add(level + 1, *list, level_bytes_[level]); !up) return up.error();
  }
}

TreeReader::TreeReader(GetOp get, const RootOp& root) : get_(std::move(get)), root_(root) {}

std::vector<OpId> TreeReader::hints() const {
  std::vector<OpId> out;
  if (open_.empty()) return out;
  const Open& inner = open_.back();
  for (std::size_t i = inner.at; i < inner.children.size() && out.size() < kMaxHints; ++i) {
    out.push_back(inner.children[i]);
  }
  return out;
}

Result<Bytes> TreeReader::get(const OpId& id, std::uint64_t under, unsigned level) {
  auto op = get_(id, hints());
  if (!op) return op;
  if (level == 0 && op->size() != under)
    return make_error(Errc::malformed, "a part of the list of files has a wrong size");
  return op;
}

Result<Bytes> TreeReader::next() {
  if (!begun_) {
    begun_ = true;
    const unsigned levels = tree_levels(root_.manifest_bytes, root_.chunk_log2).value_or(0);
    if (levels == 0) return get(root_.top, root_.manifest_bytes, 0);
    auto op = get(root_.top, root_.manifest_bytes, levels);
    if (!op) return op;
    auto children = decode_list(*op, levels, root_.chunk_log2, root_.manifest_bytes);
    if (!children) return children.error();
    open_.push_back(Open{levels, root_.manifest_bytes, std::move(*children), 0});
  }
  while (!open_.empty()) {
    Open& inner = open_.back();
    if (inner.at == inner.children.size()) {
      open_.pop_back();
      continue;
    }
    const OpId id = inner.children[inner.at++];
    const std::uint64_t under = std::min(inner.left, child_span(inner.level, root_.chunk_log2));
    inner.left -= under;
    const unsigned level = inner.level - 1;
    auto op = get(id, under, level);
    if (!op || level == 0) return op;
    auto children = decode_list(*op, level, root_.chunk_log2, under);
    if (!children) return children.error();
    open_.push_back(Open{level, under, std::move(*children), 0});
  }
  return Bytes();
}

}  // namespace kitsune2::files
