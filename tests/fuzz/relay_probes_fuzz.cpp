// What strangers send to a relay of dialect 0.5 beside frames: datagrams to the port of address discovery, proofs of a
// key for TLS, offers of versions; and the url of a hook server. The first byte chooses.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "fuzz/fuzz.hpp"
#include "server/auth/authenticator.hpp"
#include "server/iroh/quic_refusal.hpp"
#include "transport/iroh/tls_proof.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

/// The rest follows the input, so that a first packet need not be found byte by byte.
void ask_for_address(const Bytes& in) {
  K2_ASSERT(in.size() >= 1200 || !server::refuse_quic(in));
  std::vector<std::uint8_t> packet(in.begin(), in.end());
  packet.resize(std::max<std::size_t>(packet.size(), 1200), 7);
  const Bytes asked(std::move(packet));
  const auto answer = server::refuse_quic(asked);
  if (!answer) return;
  K2_ASSERT((asked[0] & 0x80U) != 0 && ((*answer)[0] & 0x80U) != 0);
  K2_ASSERT(answer->size() <= 51);
  K2_ASSERT(!server::refuse_quic(*answer));
  for (std::size_t i = 1; i < 5; ++i) K2_ASSERT((*answer)[i] == 0);  // the version of a Version Negotiation packet
  const std::size_t to = asked[5], from = asked[6 + to];
  K2_ASSERT(answer->size() == 7 + to + from + 4 && (*answer)[5] == from && (*answer)[6 + from] == to);
  const ByteView offered = answer->view().subspan(7 + to + from);
  K2_ASSERT(!std::equal(offered.begin(), offered.end(), asked.begin() + 1));
}

/// The input changes a good proof. Without a change it is good, and with one it is not, or it means the same.
void prove(const Bytes& in) {
  const iroh::EndpointKey key(iroh::EndpointKey::Seed{1});
  const KeyExporter exporter = [](std::string_view, ByteView context, std::span<std::uint8_t> out) {
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = static_cast<std::uint8_t>(i + (context.empty() ? 0U : context[i % context.size()]));
    }
    return true;
  };
  std::string proof = iroh::make_tls_proof(key, exporter).value();
  K2_ASSERT(iroh::check_tls_proof(proof, exporter) == key.id());
  for (std::size_t at = 0; at + 2 <= in.size(); at += 2) {
    if (in[at] == 0xff) proof.resize(in[at + 1]);
    if (in[at] < proof.size()) proof[in[at]] = static_cast<char>(in[at + 1]);
  }
  const auto proven = iroh::check_tls_proof(proof, exporter);
  K2_ASSERT(!proven || *proven == key.id());
  K2_ASSERT(!iroh::check_tls_proof(proof, [](std::string_view, ByteView, std::span<std::uint8_t>) { return false; }));
  static_cast<void>(iroh::check_tls_proof(as_text(in), exporter));
}

void offer(const Bytes& in) {
  std::vector<std::string> offers;
  std::string_view rest = as_text(in);
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    offers.emplace_back(line);
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
  }
  const auto version = iroh::newest_version(offers);
  if (!version) return;
  const std::string name(iroh::to_string(*version));
  K2_ASSERT(iroh::newest_version({name}) == *version);
  K2_ASSERT(as_text(in).find(name) != std::string_view::npos);
}

void hook(const Bytes& in) {
  const auto url = server::hook_url(as_text(in));
  if (!url) return;
  K2_ASSERT(url->ends_with("/authenticate") && server::hook_url(*url) == *url);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1 || size > 4000) return 0;
  const Bytes in = fuzz::input(data + 1, size - 1);
  constexpr std::array kTargets{ask_for_address, prove, offer, hook};
  kTargets[data[0] % kTargets.size()](in);
  return 0;
}
