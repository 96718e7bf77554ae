// Ids: opaque bytes, with a type for each kind, so that an op id cannot be mistaken for an agent id.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#include "kitsune2/bytes.hpp"

namespace kitsune2 {

/// The location of an id on the DHT's ring of 2^32 points: the XOR of its groups of four bytes, each read as
/// little-endian; the last group may be shorter. "hello" gives 1819043079. See docs/protocol-wire.md, "Locations".
std::uint32_t dht_location(ByteView id);

namespace detail {
/// Storage of an id: up to 39 bytes in place (Holochain's longest hash), longer ones on the heap with deep copies. 40
/// bytes in total, because the fetch core keeps millions of them.
class IdStorage {
 public:
  static constexpr std::size_t kInline = 39;

  IdStorage() noexcept { raw_[kInline] = 0; }
  explicit IdStorage(ByteView bytes) {
    raw_[kInline] = static_cast<std::uint8_t>(bytes.size());
    if (bytes.size() == 32) {
      std::memcpy(raw_.data(), bytes.data(), 32);  // the usual size, copied without a call
    } else if (bytes.size() > kInline) {
      allocate(bytes);
    } else if (!bytes.empty()) {
      std::memcpy(raw_.data(), bytes.data(), bytes.size());
    }
  }
  IdStorage(const IdStorage& other) : raw_(other.raw_) {
    if (raw_[kInline] == kHeap) allocate(other.heap_view());
  }
  IdStorage(IdStorage&& other) noexcept : raw_(other.raw_) { other.raw_[kInline] = 0; }
  IdStorage& operator=(IdStorage other) noexcept {
    std::swap(raw_, other.raw_);
    return *this;
  }
  ~IdStorage() {
    if (raw_[kInline] == kHeap) release();
  }

  ByteView view() const noexcept {
    if (raw_[kInline] != kHeap) return {raw_.data(), raw_[kInline]};
    return heap_view();
  }

 private:
  static constexpr std::uint8_t kHeap = 255;
  void allocate(ByteView bytes);
  ByteView heap_view() const noexcept;
  void release() noexcept;
  alignas(8) std::array<std::uint8_t, 40> raw_;
};
}  // namespace detail

/// An id: any number of bytes, whose meaning the application or the protocol defines. Compares as bytes.
/// Rust counterpart: `Id` and its newtypes `OpId`, `SpaceId`, `AgentId`.
template <class Tag>
class Id {
 public:
  Id() = default;
  explicit Id(ByteView bytes) : storage_(bytes) {}
  static Id from_text(std::string_view text) { return Id(as_bytes(text)); }

  ByteView view() const noexcept { return storage_.view(); }
  operator ByteView() const noexcept { return view(); }  // NOLINT(google-explicit-constructor)
  std::size_t size() const noexcept { return view().size(); }
  bool empty() const noexcept { return size() == 0; }
  Bytes bytes() const { return Bytes::copy_of(view()); }

  /// The location of this id on the DHT ring.
  std::uint32_t loc() const { return dht_location(view()); }
  /// URL-safe base64 without padding, as used in logs, URLs and JSON.
  std::string to_string() const { return to_base64url(view()); }

  friend bool operator==(const Id& a, const Id& b) noexcept { return as_text(a.view()) == as_text(b.view()); }
  friend std::strong_ordering operator<=>(const Id& a, const Id& b) noexcept {
    return as_text(a.view()) <=> as_text(b.view());
  }

 private:
  detail::IdStorage storage_;
};

/// Identifies an op: a hash of its bytes by the host's policy. All op ids of a space have the same length.
using OpId = Id<struct OpIdTag>;
/// Identifies a space (a network of its own inside kitsune2). Raw bytes on the wire.
using SpaceId = Id<struct SpaceIdTag>;
/// Identifies an agent: its Ed25519 public key, 32 bytes.
using AgentId = Id<struct AgentIdTag>;

/// A 64-bit hash that an attacker cannot steer without knowing the process's key (protects from hash flooding).
std::uint64_t keyed_hash(ByteView bytes) noexcept;

/// Sets the key of `keyed_hash` for the whole process. Call it once, with a random number, at the start of the program,
/// before there is a hashed container or a second thread: a later call would make ids in such containers impossible to
/// find. Otherwise the key comes from the (randomised) address space: enough against accidents, weak against attackers.
/// *Rationale*: the core takes no entropy itself, and a simulation sets a fixed seed to repeat a run exactly.
void set_hash_seed(std::uint64_t seed) noexcept;

/// The names of the modules on the wire; case matters.
inline constexpr const char* kFetchModule = "Fetch";
inline constexpr const char* kPublishModule = "Publish";
inline constexpr const char* kGossipModule = "k2gossip";

}  // namespace kitsune2

template <class Tag>
struct std::hash<kitsune2::Id<Tag>> {
  std::size_t operator()(const kitsune2::Id<Tag>& id) const noexcept { return kitsune2::keyed_hash(id.view()); }
};
