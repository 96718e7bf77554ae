// Reads and writes the records of a manifest.
#include "files/manifest.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace kitsune2::files {

namespace {
constexpr std::array<std::uint8_t, 4> kMagic{'K', '2', 'F', 'M'};
constexpr std::uint8_t kDirEnd = 0, kDir = 1, kFile = 2, kPack = 3, kLink = 4;
constexpr std::uint8_t kExecutable = 1, kHasMtime = 2, kPacked = 4;

void put_name(std::vector<std::uint8_t>& out, std::string_view name) {
  K2_ASSERT(name_fault(name).empty());
  out.push_back(static_cast<std::uint8_t>(name.size()));
  out.insert(out.end(), name.begin(), name.end());
}

void put_mode(std::vector<std::uint8_t>& out, std::uint16_t mode) {
  K2_ASSERT((mode & ~kModeBits) == 0);
  out.push_back(static_cast<std::uint8_t>(mode));
  out.push_back(static_cast<std::uint8_t>(mode >> 8));
}
}  // namespace

void ManifestEncoder::begin(std::vector<std::uint8_t>& out, std::uint8_t version) {
  out.insert(out.end(), kMagic.begin(), kMagic.end());
  out.push_back(version);
}

void ManifestEncoder::dir(std::vector<std::uint8_t>& out, std::string_view name) {
  out.push_back(kDir);
  put_name(out, name);
}

void ManifestEncoder::dir2(std::vector<std::uint8_t>& out, std::string_view name, std::uint16_t mode) {
  dir(out, name);
  put_mode(out, mode);
}

void ManifestEncoder::link(std::vector<std::uint8_t>& out, std::string_view name, std::string_view target) {
  out.push_back(kLink);
  put_name(out, name);
  put_varint(out, target.size());
  out.insert(out.end(), target.begin(), target.end());
}

void ManifestEncoder::dir_end(std::vector<std::uint8_t>& out) { out.push_back(kDirEnd); }

void ManifestEncoder::file(std::vector<std::uint8_t>& out, const FileHead& head, const std::vector<OpId>& ids,
                           std::uint8_t version) {
  out.push_back(kFile);
  put_name(out, head.name);
  const bool executable = version == 1 && head.mode == kExecutableMode;
  out.push_back(static_cast<std::uint8_t>((executable ? kExecutable : 0) | (head.mtime ? kHasMtime : 0) |
                                          (head.packed ? kPacked : 0)));
  if (version >= 2) put_mode(out, head.mode);
  put_varint(out, head.size);
  if (head.mtime) {
    put_u64(out, static_cast<std::uint64_t>(head.mtime->seconds));
    for (int i = 0; i < 4; ++i) out.push_back(static_cast<std::uint8_t>(head.mtime->nanos >> (8 * i)));
  }
  for (const auto& id : ids) out.insert(out.end(), id.view().begin(), id.view().end());
}

void ManifestEncoder::pack(std::vector<std::uint8_t>& out, const OpId& id, std::uint64_t size) {
  out.push_back(kPack);
  put_varint(out, size);
  out.insert(out.end(), id.view().begin(), id.view().end());
}

ManifestReader::ManifestReader(ManifestSource source, const RootOp& root) : source_(std::move(source)), root_(root) {}

std::string ManifestReader::path() const {
  std::string out;
  for (const auto& folder : folders_) {
    if (folder.name.empty()) continue;
    if (!out.empty()) out += '/';
    out += folder.name;
  }
  if (!file_name_.empty()) {
    if (!out.empty()) out += '/';
    out += file_name_;
  }
  return out;
}

Error ManifestReader::fault(std::string_view what) const {
  return make_error(Errc::malformed, "list of files, at byte " + std::to_string(consumed_) + ", in \"" +
                                         printable(path().substr(0, 1000)) + "\": " + std::string(what));
}

Result<bool> ManifestReader::fill(std::size_t bytes) {
  while (buffer_.size() - at_ < bytes) {
    auto more = source_();
    if (!more) return more.error();
    if (more->empty()) return false;
    if (at_ > 0) {
      buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(at_));
      at_ = 0;
    }
    buffer_.insert(buffer_.end(), more->begin(), more->end());
  }
  return true;
}

Result<std::uint8_t> ManifestReader::byte() {
  auto there = fill(1);
  if (!there) return there.error();
  if (!*there) return fault("ends too early");
  ++consumed_;
  return buffer_[at_++];
}

Result<std::uint64_t> ManifestReader::varint() {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    auto b = byte();
    if (!b) return b.error();
    const std::uint64_t part = *b & 0x7f;
    if (shift == 63 && part > 1) return fault("a number over 64 bits");
    value |= part << shift;
    if ((*b & 0x80) == 0) {
      if (*b == 0 && shift > 0) return fault("a number with superfluous bytes");
      return value;
    }
  }
  return fault("a number over 64 bits");
}

Result<std::string> ManifestReader::child_name() {
  auto length = byte();
  if (!length) return length.error();
  auto there = fill(*length);
  if (!there) return there.error();
  if (!*there) return fault("ends too early");
  std::string name(reinterpret_cast<const char*>(buffer_.data() + at_), *length);
  at_ += *length;
  consumed_ += *length;
  if (const auto bad = name_fault(name); !bad.empty()) return fault(bad);
  if (path_bytes_ + name.size() > kMaxPathBytes) return fault("a path that is too long");
  Folder& folder = folders_.back();
  if (folder.any && name <= folder.last) return fault("names not in order, or one twice: \"" + printable(name) + '"');
  folder.any = true;
  folder.last = name;
  return name;
}

Result<std::uint16_t> ManifestReader::mode() {
  auto low = byte();
  if (!low) return low.error();
  auto high = byte();
  if (!high) return high.error();
  const auto value = static_cast<std::uint16_t>(*low | *high << 8);
  if ((value & ~kModeBits) != 0) return fault("permission bits that no share may set");
  return value;
}

Result<std::optional<ManifestRecord>> ManifestReader::read_link() {
  auto name = child_name();
  if (!name) return name.error();
  file_name_ = *name;
  if (++seen_.links > root_.folder.links) return fault("more links than the root op says");
  auto size = varint();
  if (!size) return size.error();
  if (*size > kMaxTargetBytes) return fault("a link with a target of more than 4,095 bytes");
  auto there = fill(static_cast<std::size_t>(*size));
  if (!there) return there.error();
  if (!*there) return fault("ends too early");
  ManifestRecord record;
  record.kind = ManifestRecord::Kind::link;
  record.file.name = std::move(*name);
  record.target.assign(reinterpret_cast<const char*>(buffer_.data() + at_), static_cast<std::size_t>(*size));
  at_ += record.target.size();
  consumed_ += record.target.size();
  if (const auto bad = target_fault(record.target, folders_.size() - 1); !bad.empty()) return fault(bad);
  return std::optional(std::move(record));
}

Result<OpId> ManifestReader::id() {
  auto there = fill(kIdBytes);
  if (!there) return there.error();
  if (!*there) return fault("ends too early");
  OpId out(ByteView(buffer_.data() + at_, kIdBytes));
  at_ += kIdBytes;
  consumed_ += kIdBytes;
  if (++seen_.ops > root_.folder.ops) return fault("more ops than the root op says");
  return out;
}

Result<std::optional<ManifestRecord>> ManifestReader::read_file() {
  auto name = child_name();
  if (!name) return name.error();
  auto flags = byte();
  if (!flags) return flags.error();
  const std::uint8_t known = root_.version == 1 ? kExecutable | kHasMtime | kPacked : kHasMtime | kPacked;
  if ((*flags & ~known) != 0) return fault("unknown flags");
  ManifestRecord record;
  record.kind = ManifestRecord::Kind::file;
  record.file.mode = (*flags & kExecutable) != 0 ? kExecutableMode : kPlainMode;
  if (root_.version >= 2) {
    auto bits = mode();
    if (!bits) return bits.error();
    record.file.mode = *bits;
  }
  auto size = varint();
  if (!size) return size.error();
  record.file.name = *name;
  record.file.size = *size;
  record.file.packed = (*flags & kPacked) != 0;
  if ((*flags & kHasMtime) != 0) {
    std::array<std::uint8_t, 12> raw{};
    for (auto& b : raw) {
      auto next = byte();
      if (!next) return next.error();
      b = *next;
    }
    FileTime time;
    time.seconds = static_cast<std::int64_t>(get_u64(raw.data()));
    for (int i = 3; i >= 0; --i) time.nanos = time.nanos << 8 | raw[8U + static_cast<std::size_t>(i)];
    if (time.nanos >= 1'000'000'000) return fault("a time with too many nanoseconds");
    record.file.mtime = time;
  }
  file_name_ = *name;
  if (*size > root_.folder.bytes - seen_.bytes) return fault("more bytes than the root op says");
  seen_.bytes += *size;
  if (++seen_.files > root_.folder.files) return fault("more files than the root op says");
  ids_left_ = 0;
  if (record.file.packed) {
    if (*size == 0) return fault("an empty file in a pack");
    if (*size > pack_left_) return fault("a file over the end of its pack");
    pack_left_ -= *size;
  } else {
    ids_left_ = *size / root_.chunk_bytes() + (*size % root_.chunk_bytes() != 0 ? 1 : 0);
  }
  in_file_ = true;
  return std::optional(std::move(record));
}

Result<std::optional<ManifestRecord>> ManifestReader::read_pack() {
  if (pack_left_ != 0) return fault("a pack before the last one is used up");
  auto size = varint();
  if (!size) return size.error();
  if (*size == 0 || *size > root_.chunk_bytes()) return fault("a pack of a size out of range");
  auto op = id();
  if (!op) return op.error();
  pack_left_ = *size;
  ManifestRecord record;
  record.kind = ManifestRecord::Kind::pack;
  record.size = *size;
  record.ids.push_back(*op);
  return std::optional(std::move(record));
}

/// What comes before the first record.
Result<void> ManifestReader::begin() {
  for (const auto expected : kMagic) {
    auto b = byte();
    if (!b) return b.error();
    if (*b != expected) return fault("this is not a list of files");
  }
  auto version = byte();
  if (!version) return version.error();
  if (*version != root_.version) return fault("the list is not of version " + std::to_string(root_.version));
  begun_ = true;
  folders_.emplace_back();
  return {};
}

/// The next ids of the file that is open, or its end.
Result<std::optional<ManifestRecord>> ManifestReader::read_ids() {
  ManifestRecord record;
  if (ids_left_ == 0) {
    in_file_ = false;
    record.kind = ManifestRecord::Kind::file_end;
    return std::optional(std::move(record));
  }
  record.kind = ManifestRecord::Kind::ids;
  const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(ids_left_, kIdsPerRecord));
  for (std::size_t i = 0; i < count; ++i) {
    auto op = id();
    if (!op) return op.error();
    record.ids.push_back(*op);
  }
  ids_left_ -= count;
  return std::optional(std::move(record));
}

Result<std::optional<ManifestRecord>> ManifestReader::read_dir() {
  auto name = child_name();
  if (!name) return name.error();
  if (++seen_.dirs > root_.folder.dirs) return fault("more folders than the root op says");
  ManifestRecord record;
  record.kind = ManifestRecord::Kind::dir;
  record.file.name = *name;
  record.file.mode = kExecutableMode;
  if (root_.version >= 2) {
    auto bits = mode();
    if (!bits) return bits.error();
    record.file.mode = *bits;
  }
  path_bytes_ += name->size() + 1;
  folders_.push_back(Folder{std::move(*name), {}, false});
  return std::optional(std::move(record));
}

/// The end of a folder. That of the share itself is the end of the list.
Result<std::optional<ManifestRecord>> ManifestReader::end_dir() {
  if (!folders_.back().name.empty()) path_bytes_ -= folders_.back().name.size() + 1;
  folders_.pop_back();
  if (folders_.empty()) {
    done_ = true;
    if (pack_left_ != 0) return fault("the last pack is not used up");
    if (seen_ != root_.folder) return fault("fewer files, folders, links, bytes or ops than the root op says");
    auto more = fill(1);
    if (!more) return more.error();
    if (*more) return fault("bytes after the end");
  }
  ManifestRecord record;
  record.kind = ManifestRecord::Kind::dir_end;
  return std::optional(std::move(record));
}

Result<std::optional<ManifestRecord>> ManifestReader::next() {
  if (!begun_) {
    if (auto begun = begin(); !begun) return begun.error();
  }
  if (done_) return std::optional<ManifestRecord>();
  if (in_file_) return read_ids();
  file_name_.clear();
  auto kind = byte();
  if (!kind) return kind.error();
  switch (*kind) {
    case kDirEnd:
      return end_dir();
    case kDir:
      return read_dir();
    case kFile:
      return read_file();
    case kPack:
      return read_pack();
    case kLink:
      if (root_.version == 1) return fault("a record of unknown kind");
      return read_link();
    default:
      return fault("a record of unknown kind");
  }
}

}  // namespace kitsune2::files
