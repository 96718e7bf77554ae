// Storage of ids, their location on the ring, and the keyed hash.
#include "kitsune2/ids.hpp"

#include <atomic>
#include <new>

namespace kitsune2 {

std::uint32_t dht_location(ByteView id) {
  std::uint32_t out = 0;
  const std::uint8_t* p = id.data();
  std::size_t left = id.size();
  // The words are little-endian, whatever the machine is; compilers make one load of this.
  const auto word = [](const std::uint8_t* b) {
    return b[0] | std::uint32_t{b[1]} << 8U | std::uint32_t{b[2]} << 16U | std::uint32_t{b[3]} << 24U;
  };
  for (; left >= 4; left -= 4, p += 4) out ^= word(p);
  for (std::size_t i = 0; i < left; ++i) out ^= std::uint32_t{p[i]} << (8 * i);
  return out;
}

namespace detail {

namespace {
/// What the in-place bytes of a long id contain.
struct HeapId {
  std::uint8_t* data;
  std::size_t size;
};
}  // namespace

void IdStorage::allocate(ByteView bytes) {
  const HeapId heap{static_cast<std::uint8_t*>(::operator new(bytes.size())), bytes.size()};
  std::memcpy(heap.data, bytes.data(), bytes.size());
  std::memcpy(raw_.data(), &heap, sizeof heap);
  raw_[kInline] = kHeap;
}

ByteView IdStorage::heap_view() const noexcept {
  HeapId heap{};
  std::memcpy(&heap, raw_.data(), sizeof heap);
  return {heap.data, heap.size};
}

void IdStorage::release() noexcept {
  HeapId heap{};
  std::memcpy(&heap, raw_.data(), sizeof heap);
  ::operator delete(heap.data);
  raw_[kInline] = 0;
}

}  // namespace detail

namespace {

/// The bits of a counter, spread (an invertible mix: distinct inputs give distinct outputs).
constexpr std::uint64_t spread(std::uint64_t x) {
  x += 0x9e37'79b9'7f4a'7c15U;
  x = (x ^ (x >> 30U)) * 0xbf58'476d'1ce4'e5b9U;
  x = (x ^ (x >> 27U)) * 0x94d0'49bb'1331'11ebU;
  return x ^ (x >> 31U);
}

/// All constants of the hash come from the key: with public constants an attacker could choose bytes that make a factor
/// of a product zero, whatever the seed.
struct HashKey {
  std::atomic<std::uint64_t> word[4];

  explicit HashKey(std::uint64_t seed) { set(seed); }
  void set(std::uint64_t seed) {
    for (auto& w : word) {
      seed = spread(seed);
      w.store(seed | 1U, std::memory_order_relaxed);
    }
  }
  std::uint64_t get(int i) const { return word[i].load(std::memory_order_relaxed); }
};

// Inlined where ids are hashed: a call costs a quarter of the hash.
[[gnu::always_inline]] inline HashKey& hash_key() {
  static const int anchor = 0;
  // Until the shell sets a random seed, the key comes from the addresses that the loader and the kernel have chosen.
  static HashKey key(spread(reinterpret_cast<std::uintptr_t>(&anchor)) ^
                     reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)));
  return key;
}

std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64U);
}

std::uint64_t read64(const std::uint8_t* p) {
  std::uint64_t out = 0;
  std::memcpy(&out, p, 8);
  return out;
}

std::uint64_t read_short(const std::uint8_t* p, std::size_t n) {
  std::uint64_t out = 0;
  std::memcpy(&out, p, n);
  return out;
}

}  // namespace

void set_hash_seed(std::uint64_t seed) noexcept { hash_key().set(seed); }

std::uint64_t keyed_hash(ByteView bytes) noexcept {
  const HashKey& key = hash_key();
  const std::uint64_t k0 = key.get(0);
  const std::uint64_t k1 = key.get(1);
  const std::uint64_t k2 = key.get(2);
  const std::uint64_t k3 = key.get(3);
  const std::uint8_t* p = bytes.data();
  std::size_t left = bytes.size();
  std::uint64_t state = k0 ^ fold(bytes.size() ^ k1, k2);
  for (; left > 16; left -= 16, p += 16) state = fold(read64(p) ^ k1, read64(p + 8) ^ state ^ k3);
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  if (left >= 8) {
    low = read64(p);
    high = read64(p + left - 8);  // may overlap: the length, which is hashed too, says by how much
  } else if (left > 0) {
    low = read_short(p, left);
  }
  state = fold(low ^ k2, high ^ state ^ k1);
  return fold(state ^ k3, k0);
}

}  // namespace kitsune2
