// A share's root, list and manifest from hostile bytes: never crashes, never runs away, and what is accepted keeps the
// rules of docs/file-format.md. The input: 80 bytes of root op (its magic, version and sizes are made to fit half of
// the time), then the manifest.
#include <string>

#include "files/manifest.hpp"
#include "fuzz/fuzz.hpp"

using namespace kitsune2;         // NOLINT(google-build-using-namespace)
using namespace kitsune2::files;  // NOLINT(google-build-using-namespace)

namespace {

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
  std::uint64_t bytes = 0, files = 0, dirs = 0, ops = 0;
  while (true) {
    const auto record = reader.next();
    // A record takes at least one byte of input, and a file one step more.
    K2_ASSERT(++steps <= 3 * manifest.size() + 10);
    if (!record) return;
    if (!*record) {
      K2_ASSERT(depth == 0);
      K2_ASSERT((FolderSummary{files, dirs, bytes, ops}) == root.folder);
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
        ++depth, ++dirs;
        break;
      case ManifestRecord::Kind::dir_end:
        K2_ASSERT(depth > 0);
        --depth;
        break;
      case ManifestRecord::Kind::file:
        K2_ASSERT(name_fault(r.file.name).empty());
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
  const Bytes head = input.slice(0, kRootBytes);
  const Bytes manifest = input.slice(std::min(kRootBytes, input.size()));
  if (const auto root = RootOp::decode(head)) {
    K2_ASSERT(root->encode() == head);
    read_manifest(*root, manifest);
    for (unsigned level = 1; level <= kMaxLevels; ++level) {
      const auto list = decode_list(manifest, level, root->chunk_log2, root->manifest_bytes);
      if (list) K2_ASSERT(encode_list(level, root->chunk_log2, root->manifest_bytes, *list) == manifest);
    }
  }
  if (head.size() < kRootBytes) return 0;
  // The same bytes with a root that fits, so that the manifest is reached.
  RootOp fitting;
  fitting.chunk_log2 = static_cast<std::uint8_t>(kMinChunkLog2 + head[0] % (kMaxChunkLog2 - kMinChunkLog2 + 1));
  fitting.manifest_bytes = manifest.size();
  fitting.folder = FolderSummary{head[1], head[2], get_u64(head.data() + 8) >> (head[3] % 64), head[4]};
  read_manifest(fitting, manifest);
  return 0;
}
