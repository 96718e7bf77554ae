// The three op policies that come with the library: sha256, memory-op, prefix.
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>

#include "kitsune2/op_store.hpp"

namespace kitsune2 {
namespace {

constexpr std::size_t kIdBytes = 32;
using IdBytes = std::array<std::uint8_t, kIdBytes>;

OpId id_from_prefix(ByteView bytes) {
  IdBytes id{};
  std::copy_n(bytes.begin(), std::min(bytes.size(), kIdBytes), id.begin());
  return OpId(id);
}

Result<void> check_size(ByteView op, std::size_t limit) {
  if (op.size() <= limit) return {};
  return make_error(Errc::too_large,
                    "an op of " + std::to_string(op.size()) + " bytes, the limit is " + std::to_string(limit));
}

// ------------------------------------------------------------------ sha256

/// "k2op", version 1, then the creation time: i64, big-endian, microseconds.
constexpr std::array<std::uint8_t, 5> kEnvelope = {'k', '2', 'o', 'p', 1};
constexpr std::size_t kEnvelopeBytes = kEnvelope.size() + 8;

Result<Timestamp> envelope_time(ByteView op) {
  if (op.size() < kEnvelopeBytes || !std::equal(kEnvelope.begin(), kEnvelope.end(), op.begin())) return Timestamp{0};
  std::uint64_t micros = 0;
  for (std::size_t i = kEnvelope.size(); i < kEnvelopeBytes; ++i) micros = (micros << 8U) | op[i];
  const auto time = static_cast<std::int64_t>(micros);
  // The DHT model counts its time slices from 1970.
  if (time < 0) return make_error(Errc::malformed, "op envelope: created_at is before 1970");
  return Timestamp{time};
}

struct Free {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  void operator()(EVP_MD* digest) const { EVP_MD_free(digest); }
};
using Context = std::unique_ptr<EVP_MD_CTX, Free>;

class Sha256Policy final : public OpPolicy {
 public:
  explicit Sha256Policy(std::size_t max_op_bytes)
      : max_op_bytes_(max_op_bytes), digest_(EVP_MD_fetch(nullptr, "SHA256", nullptr)), fresh_(EVP_MD_CTX_new()) {
    K2_ASSERT(digest_ != nullptr && fresh_ != nullptr);
    const int begun = EVP_DigestInit_ex2(fresh_.get(), digest_.get(), nullptr);
    K2_ASSERT(begun == 1);
  }

  Result<OpDescription> describe(ByteView op) const override {
    if (auto fits = check_size(op, max_op_bytes_); !fits) return fits.error();
    const auto created_at = envelope_time(op);
    if (!created_at) return created_at.error();
    // Finding the digest and making a context costs several times the hash of a small op, so both are kept. Copying a
    // context that has begun costs less than beginning again.
    thread_local const Context context(EVP_MD_CTX_new());
    IdBytes hash;
    unsigned size = 0;
    if (!context || EVP_MD_CTX_copy_ex(context.get(), fresh_.get()) != 1 ||
        EVP_DigestUpdate(context.get(), op.data(), op.size()) != 1 ||
        EVP_DigestFinal_ex(context.get(), hash.data(), &size) != 1 || size != hash.size()) {
      return make_error(Errc::internal, "SHA-256 failed");
    }
    return OpDescription{OpId(hash), *created_at};
  }
  std::string_view name() const override { return "sha256"; }

 private:
  std::size_t max_op_bytes_;
  std::unique_ptr<EVP_MD, Free> digest_;
  Context fresh_;  ///< has begun and has hashed nothing; only copied from, by any thread
};

// --------------------------------------------------------------- memory-op

/// Reads only the JSON of a memory op. A general parser would build a tree with a node for each payload byte.
class MemoryOpReader {
 public:
  explicit MemoryOpReader(ByteView text) : at_(text.data()), end_(text.data() + text.size()) {}

  bool read() {
    if (!take('{')) return false;
    bool has_time = false;
    bool has_data = false;
    do {
      if (take_word("\"created_at\"")) {
        if (has_time || !take(':') || !read_time()) return false;
        has_time = true;
      } else if (take_word("\"op_data\"")) {
        if (has_data || !take(':') || !read_array()) return false;
        has_data = true;
      } else {
        return false;
      }
    } while (take(','));
    if (!has_time || !has_data || !take('}')) return false;
    skip_space();
    return at_ == end_;
  }

  std::int64_t created_at() const { return created_at_; }
  const IdBytes& id() const { return id_; }

 private:
  static bool is_digit(std::uint8_t c) { return c >= '0' && c <= '9'; }
  void skip_space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) ++at_;
  }
  bool take(char c) {
    skip_space();
    if (at_ == end_ || *at_ != static_cast<std::uint8_t>(c)) return false;
    ++at_;
    return true;
  }
  bool take_word(std::string_view word) {
    skip_space();
    if (static_cast<std::size_t>(end_ - at_) < word.size() || as_text({at_, word.size()}) != word) return false;
    at_ += word.size();
    return true;
  }
  /// Digits without a leading zero, at most `limit`.
  bool read_number(std::uint64_t limit, std::uint64_t& out) {
    if (at_ == end_ || !is_digit(*at_)) return false;
    if (*at_ == '0' && at_ + 1 != end_ && is_digit(at_[1])) return false;
    out = 0;
    for (; at_ != end_ && is_digit(*at_); ++at_) {
      const std::uint64_t digit = *at_ - std::uint64_t{'0'};
      if (out > (limit - digit) / 10) return false;
      out = out * 10 + digit;
    }
    return true;
  }
  bool read_time() {
    const bool negative = take('-');
    if (!negative) skip_space();
    constexpr std::uint64_t kMax = std::numeric_limits<std::int64_t>::max();
    std::uint64_t micros = 0;
    if (!read_number(negative ? kMax + 1 : kMax, micros)) return false;
    created_at_ = static_cast<std::int64_t>(negative ? 0 - micros : micros);
    return true;
  }
  bool read_array() {
    if (!take('[')) return false;
    if (take(']')) return true;
    std::size_t count = 0;
    do {
      skip_space();
      std::uint64_t byte = 0;
      if (!read_number(255, byte)) return false;
      if (count < id_.size()) id_[count++] = static_cast<std::uint8_t>(byte);
    } while (take(','));
    return take(']');
  }

  const std::uint8_t* at_;
  const std::uint8_t* end_;
  std::int64_t created_at_ = 0;
  IdBytes id_{};
};

class MemoryOpPolicy final : public OpPolicy {
 public:
  Result<OpDescription> describe(ByteView op) const override {
    if (auto fits = check_size(op, kDefaultMaxOpBytes); !fits) return fits.error();
    MemoryOpReader reader(op);
    if (!reader.read()) return make_error(Errc::malformed, "not a memory op");
    return OpDescription{OpId(reader.id()), Timestamp{reader.created_at()}};
  }
  std::string_view name() const override { return "memory-op"; }
};

// ------------------------------------------------------------------ prefix

class PrefixPolicy final : public OpPolicy {
 public:
  Result<OpDescription> describe(ByteView op) const override { return OpDescription{id_from_prefix(op), Timestamp{0}}; }
  std::string_view name() const override { return "prefix"; }
};

}  // namespace

std::shared_ptr<const OpPolicy> make_sha256_policy(std::size_t max_op_bytes) {
  return std::make_shared<Sha256Policy>(max_op_bytes);
}
std::shared_ptr<const OpPolicy> make_memory_op_policy() { return std::make_shared<MemoryOpPolicy>(); }
std::shared_ptr<const OpPolicy> make_prefix_policy() { return std::make_shared<PrefixPolicy>(); }

}  // namespace kitsune2
