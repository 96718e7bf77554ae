// Makes and checks the proof by which a client of an iroh relay saves the challenge.
#include "transport/iroh/tls_proof.hpp"

#include <algorithm>
#include <array>
#include <vector>

namespace kitsune2::iroh {
namespace {

constexpr std::string_view kLabel = "iroh-relay handshake v1";
constexpr std::size_t kHalf = 16;
using Material = std::array<std::uint8_t, 2 * kHalf>;

// Key, the signature's length, signature, second half.
constexpr std::size_t kLengthAt = std::tuple_size_v<EndpointId>;
constexpr std::size_t kSignatureAt = kLengthAt + 1;
constexpr std::size_t kSuffixAt = kSignatureAt + std::tuple_size_v<Signature>;
constexpr std::size_t kProofBytes = kSuffixAt + kHalf;
constexpr std::size_t kProofText = (kProofBytes * 4 + 2) / 3;

std::optional<Material> material_for(const EndpointId& key, const KeyExporter& exporter) {
  Material out{};
  if (!exporter || !exporter(kLabel, key, out)) return std::nullopt;
  return out;
}

}  // namespace

std::optional<std::string> make_tls_proof(const EndpointKey& key, const KeyExporter& exporter) {
  const auto material = material_for(key.id(), exporter);
  if (!material) return std::nullopt;
  const Signature signature = key.sign(ByteView(*material).first(kHalf));
  std::array<std::uint8_t, kProofBytes> out{};
  std::copy(key.id().begin(), key.id().end(), out.begin());
  out[kLengthAt] = static_cast<std::uint8_t>(signature.size());
  std::copy(signature.begin(), signature.end(), out.begin() + kSignatureAt);
  std::copy(material->begin() + kHalf, material->end(), out.begin() + kSuffixAt);
  return to_base64url(out);
}

std::optional<EndpointId> check_tls_proof(std::string_view proof, const KeyExporter& exporter) {
  std::vector<std::uint8_t> bytes;
  if (proof.size() != kProofText || !from_base64url(proof, bytes) || bytes.size() != kProofBytes ||
      bytes[kLengthAt] != std::tuple_size_v<Signature>) {
    return std::nullopt;
  }
  EndpointId key{};
  std::copy_n(bytes.begin(), key.size(), key.begin());
  const auto material = material_for(key, exporter);
  if (!material || !std::equal(material->begin() + kHalf, material->end(), bytes.begin() + kSuffixAt)) {
    return std::nullopt;
  }
  Signature signature{};
  std::copy_n(bytes.begin() + kSignatureAt, signature.size(), signature.begin());
  if (!EndpointKey::verify(key, ByteView(*material).first(kHalf), signature)) return std::nullopt;
  return key;
}

}  // namespace kitsune2::iroh
