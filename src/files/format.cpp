// Reads and writes the root, list and chunk ops of a share.
#include "files/format.hpp"

#include <openssl/sha.h>

#include <algorithm>
#include <cstring>

namespace kitsune2::files {

namespace {
constexpr std::uint8_t kListVersion = 1;
constexpr std::uint8_t kNewestRoot = 2;
constexpr std::array<std::uint8_t, 4> kRootMagic{'K', '2', 'F', 'R'};
constexpr std::array<std::uint8_t, 4> kListMagic{'K', '2', 'F', 'L'};

std::uint64_t div_up(std::uint64_t a, std::uint64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

Error malformed(std::string what) { return make_error(Errc::malformed, std::move(what)); }
}  // namespace

void put_u64(std::vector<std::uint8_t>& out, std::uint64_t value) {
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

std::uint64_t get_u64(const std::uint8_t* at) {
  std::uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value |= std::uint64_t{at[i]} << (8 * i);
  return value;
}

void put_varint(std::vector<std::uint8_t>& out, std::uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<std::uint8_t>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<std::uint8_t>(value));
}

OpId op_id_of(ByteView bytes) {
  std::array<std::uint8_t, SHA256_DIGEST_LENGTH> digest{};
  SHA256(bytes.data(), bytes.size(), digest.data());
  return OpId(ByteView(digest));
}

std::uint64_t child_span(unsigned level, std::uint8_t chunk_log2) {
  std::uint64_t span = std::uint64_t{1} << chunk_log2;
  for (unsigned i = 1; i < level; ++i) span *= kFanout;  // at most 2^22 * 2^36
  return span;
}

std::optional<unsigned> tree_levels(std::uint64_t bytes, std::uint8_t chunk_log2) {
  if (bytes <= std::uint64_t{1} << chunk_log2) return 0;
  for (unsigned level = 1; level <= kMaxLevels; ++level) {
    if (div_up(bytes, child_span(level, chunk_log2)) <= kFanout) return level;
  }
  return std::nullopt;
}

Bytes RootOp::encode() const {
  std::vector<std::uint8_t> out(kRootMagic.begin(), kRootMagic.end());
  out.push_back(version);
  out.push_back(chunk_log2);
  out.push_back(0);
  out.push_back(0);
  put_u64(out, manifest_bytes);
  put_u64(out, folder.files);
  put_u64(out, folder.dirs);
  put_u64(out, folder.bytes);
  put_u64(out, folder.ops);
  if (version >= 2) put_u64(out, folder.links);
  out.insert(out.end(), top.view().begin(), top.view().end());
  K2_ASSERT(out.size() == (version >= 2 ? kRootBytes2 : kRootBytes));
  return Bytes(std::move(out));
}

Result<RootOp> RootOp::decode(ByteView bytes) {
  if (bytes.size() < 5 || std::memcmp(bytes.data(), kRootMagic.data(), 4) != 0) {
    return malformed("the link's op is not the root of a share");
  }
  RootOp root;
  root.version = bytes[4];
  if (root.version == 0 || root.version > kNewestRoot) {
    return make_error(Errc::unsupported, "the share has format version " + std::to_string(root.version) +
                                             "; this program knows 1 and 2: it is too old for it");
  }
  const std::size_t top_at = root.version >= 2 ? 56 : 48;
  if (bytes.size() != top_at + kIdBytes) return malformed("root op: wrong size");
  root.chunk_log2 = bytes[5];
  if (root.chunk_log2 < kMinChunkLog2 || root.chunk_log2 > kMaxChunkLog2) {
    return malformed("root op: chunk size out of range");
  }
  if (bytes[6] != 0 || bytes[7] != 0) return malformed("root op: reserved bytes are not zero");
  root.manifest_bytes = get_u64(bytes.data() + 8);
  root.folder.files = get_u64(bytes.data() + 16);
  root.folder.dirs = get_u64(bytes.data() + 24);
  root.folder.bytes = get_u64(bytes.data() + 32);
  root.folder.ops = get_u64(bytes.data() + 40);
  if (root.version >= 2) root.folder.links = get_u64(bytes.data() + 48);
  root.top = OpId(bytes.subspan(top_at, kIdBytes));
  if (root.manifest_bytes == 0 || !tree_levels(root.manifest_bytes, root.chunk_log2)) {
    return malformed("root op: manifest size out of range");
  }
  // A record of the manifest has at least 3 bytes for a file, folder or link, and 32 for an op.
  if (root.folder.files > root.manifest_bytes || root.folder.dirs > root.manifest_bytes ||
      root.folder.links > root.manifest_bytes || root.folder.ops > root.manifest_bytes / kIdBytes ||
      root.folder.bytes > kMaxFileBytes || div_up(root.folder.bytes, root.chunk_bytes()) > root.folder.ops) {
    return malformed("root op: counts do not fit the manifest");
  }
  return root;
}

Bytes encode_list(unsigned level, std::uint8_t chunk_log2, std::uint64_t total, const std::vector<OpId>& children) {
  K2_ASSERT(children.size() == div_up(total, child_span(level, chunk_log2)) && children.size() <= kFanout);
  std::vector<std::uint8_t> out(kListMagic.begin(), kListMagic.end());
  out.reserve(kListHeaderBytes + children.size() * kIdBytes);
  out.push_back(kListVersion);
  out.push_back(static_cast<std::uint8_t>(level));
  out.push_back(chunk_log2);
  out.push_back(0);
  put_u64(out, total);
  for (const auto& id : children) out.insert(out.end(), id.view().begin(), id.view().end());
  return Bytes(std::move(out));
}

Result<std::vector<OpId>> decode_list(ByteView bytes, unsigned level, std::uint8_t chunk_log2, std::uint64_t total) {
  if (bytes.size() < kListHeaderBytes || std::memcmp(bytes.data(), kListMagic.data(), 4) != 0) {
    return malformed("list op: it is not a list");
  }
  if (bytes[4] != kListVersion || bytes[5] != level || bytes[6] != chunk_log2 || bytes[7] != 0 ||
      get_u64(bytes.data() + 8) != total) {
    return malformed("list op: not the one that belongs here");
  }
  const std::uint64_t count = div_up(total, child_span(level, chunk_log2));
  if (count == 0 || count > kFanout || bytes.size() != kListHeaderBytes + count * kIdBytes) {
    return malformed("list op: wrong number of entries");
  }
  std::vector<OpId> out;
  out.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) out.emplace_back(bytes.subspan(kListHeaderBytes + i * kIdBytes, kIdBytes));
  return out;
}

bool is_utf8(std::string_view text) {
  std::size_t i = 0;
  const auto byte = [&](std::size_t at) { return static_cast<std::uint8_t>(text[at]); };
  while (i < text.size()) {
    const std::uint8_t lead = byte(i);
    std::size_t more = 0;
    std::uint32_t code = 0, least = 0;
    if (lead < 0x80) {
      ++i;
      continue;
    }
    if ((lead & 0xe0) == 0xc0) {
      more = 1, code = lead & 0x1f, least = 0x80;
    } else if ((lead & 0xf0) == 0xe0) {
      more = 2, code = lead & 0x0f, least = 0x800;
    } else if ((lead & 0xf8) == 0xf0) {
      more = 3, code = lead & 0x07, least = 0x10000;
    } else {
      return false;
    }
    if (text.size() - i <= more) return false;
    for (std::size_t k = 1; k <= more; ++k) {
      if ((byte(i + k) & 0xc0) != 0x80) return false;
      code = code << 6 | (byte(i + k) & 0x3f);
    }
    if (code < least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return false;
    i += more + 1;
  }
  return true;
}

std::string_view name_fault(std::string_view name) {
  if (name.empty()) return "an empty name";
  if (name.size() > kMaxNameBytes) return "a name of more than 255 bytes";
  if (name == "." || name == "..") return "the name . or ..";
  if (name.find('/') != std::string_view::npos) return "a name with a slash";
  if (name.find('\0') != std::string_view::npos) return "a name with a zero byte";
  if (!is_utf8(name)) return "a name that is not UTF-8";
  if (name.starts_with(kTempPrefix)) return "a name kept for unfinished files of a fetch";
  return {};
}

std::string_view target_fault(std::string_view target, std::size_t depth) {
  if (target.empty()) return "a link without a target";
  if (target.size() > kMaxTargetBytes) return "a link with a target of more than 4,095 bytes";
  if (target.find('\0') != std::string_view::npos) return "a link whose target has a zero byte";
  if (!is_utf8(target)) return "a link whose target is not UTF-8";
  if (target.front() == '/') return "a link to an absolute path";
  std::size_t ups = 0;
  bool named = false;
  while (!target.empty()) {
    const auto slash = std::min(target.find('/'), target.size());
    const auto part = target.substr(0, slash);
    target.remove_prefix(std::min(slash + 1, target.size()));
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      named = true;
    } else if (named) {
      return "a link with .. after a name";
    } else if (++ups > depth) {
      return "a link that leads out of the folder";
    }
  }
  return {};
}

}  // namespace kitsune2::files
