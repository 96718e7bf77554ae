// A share's root, list and manifest from hostile bytes: never crashes, never runs on without end, and what is accepted
// obeys the rules of docs/file-format.md. Input: a root op of 80 bytes, or of 88 for version 2 (it is also read with
// counts and sizes made to fit), then the manifest.
#include <string>

#include "files/manifest.hpp"
#include "fuzz/fuzz.hpp"

using namespace kitsune2;         // NOLINT(google-build-using-namespace)
using namespace kitsune2::files;  // NOLINT(google-build-using-namespace)

namespace {

/// A link that stays inside: checked independently of the rule in src/files, as a walk along a path.
void check_target(const std::string& target, std::size_t depth) {
  K2_ASSERT(!target.empty() && target.size() <= kMaxTargetBytes && target[0] != '/');
  bool named = false;
  std::string part;
  for (std::size_t i = 0; i <= target.size(); ++i) {
    if (i < target.size() && target[i] != '/') {
      K2_ASSERT(target[i] != '\0');
      part += target[i];
      continue;
    }
    if (part == "..") {
      K2_ASSERT(!named && depth > 0);
      --depth;
    } else if (!part.empty() && part != ".") {
      named = true;
    }
    part.clear();
  }
}

void read_manifest(const RootOp& root, const Bytes& manifest) {
  std::size_t at = 0;
  ManifestReader reader(
      [&]() -> Result<Bytes> {
        const Bytes part = manifest.slice(at, 57);
        at += part.size();
        return part;
      },
      root);
  std::size_t steps = 0;
  std::size_t depth = 1;
  std::uint64_t bytes = 0, files = 0, dirs = 0, ops = 0, links = 0;
  while (true) {
    const auto record = reader.next();
    // A record takes at least one byte of input, and a file one more step.
    K2_ASSERT(++steps <= 3 * manifest.size() + 10);
    if (!record) return;
    if (!*record) {
      K2_ASSERT(depth == 0);
      K2_ASSERT((FolderSummary{files, dirs, bytes, ops, links}) == root.folder);
      return;
    }
    const ManifestRecord& r = **record;
    const std::string path = reader.path();
    K2_ASSERT(path.size() <= kMaxPathBytes);
    K2_ASSERT(!path.starts_with('/') && path.find("//") == std::string::npos);
    K2_ASSERT(path != ".." && !path.starts_with("../") && !path.ends_with("/..") &&
              path.find("/../") == std::string::npos);
    switch (r.kind) {
      case ManifestRecord::Kind::dir:
        K2_ASSERT(name_fault(r.file.name).empty());
        K2_ASSERT((r.file.mode & ~kModeBits) == 0 && (root.version > 1 || r.file.mode == kExecutableMode));
        ++depth, ++dirs;
        break;
      case ManifestRecord::Kind::link:
        K2_ASSERT(root.version > 1 && name_fault(r.file.name).empty());
        check_target(r.target, depth - 1);
        ++links;
        break;
      case ManifestRecord::Kind::dir_end:
        K2_ASSERT(depth > 0);
        --depth;
        break;
      case ManifestRecord::Kind::file:
        K2_ASSERT(name_fault(r.file.name).empty());
        K2_ASSERT((r.file.mode & ~kModeBits) == 0);
        bytes += r.file.size;
        ++files;
        break;
      case ManifestRecord::Kind::ids:
        K2_ASSERT(!r.ids.empty() && r.ids.size() <= ManifestReader::kIdsPerRecord);
        ops += r.ids.size();
        break;
      case ManifestRecord::Kind::pack:
        K2_ASSERT(r.ids.size() == 1 && r.size > 0 && r.size <= root.chunk_bytes());
        ++ops;
        break;
      case ManifestRecord::Kind::file_end:
        break;
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes input = fuzz::input(data, size);
  const std::size_t root_bytes = input.size() > 4 && input.data()[4] == 2 ? kRootBytes2 : kRootBytes;
  const Bytes head = input.slice(0, root_bytes);
  const Bytes manifest = input.slice(std::min(root_bytes, input.size()));
  if (const auto root = RootOp::decode(head)) {
    K2_ASSERT(root->encode() == head);
    read_manifest(*root, manifest);
    for (unsigned level = 1; level <= kMaxLevels; ++level) {
      const auto list = decode_list(manifest, level, root->chunk_log2, root->manifest_bytes);
      if (list) K2_ASSERT(encode_list(level, root->chunk_log2, root->manifest_bytes, *list) == manifest);
    }
  }
  if (head.size() < root_bytes) return 0;
  // The same bytes with a root that fits, so that the manifest is reached.
  RootOp fitting;
  fitting.version = root_bytes == kRootBytes2 ? 2 : 1;
  fitting.chunk_log2 = static_cast<std::uint8_t>(kMinChunkLog2 + head[0] % (kMaxChunkLog2 - kMinChunkLog2 + 1));
  fitting.manifest_bytes = manifest.size();
  fitting.folder = FolderSummary{head[1], head[2], get_u64(head.data() + 8) >> (head[3] % 64),
                                 root_bytes == kRootBytes2 ? head[6] : head[4], 0};
  if (fitting.version == 2) fitting.folder.links = head[7];
  read_manifest(fitting, manifest);
  return 0;
}
