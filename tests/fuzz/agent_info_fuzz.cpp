// Agent infos: decoding never crashes; an accepted info can be signed, encoded and read again with the same meaning.
#include "fuzz/fuzz.hpp"
#include "kitsune2/agent.hpp"
#include "wire/json_scan.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

/// The fuzzer cannot guess signatures, so every signature is accepted: the target is the parsers.
struct AnyVerifier : Verifier {
  bool verify(const AgentInfo& /*info*/, ByteView /*message*/, ByteView signature) const override {
    return signature.size() == 64;
  }
};
struct ZeroSigner : Signer {
  Result<Bytes> sign(const AgentInfo& /*info*/, ByteView /*message*/) override {
    return Bytes(std::vector<std::uint8_t>(64));
  }
};

void check(std::string_view json) {
  static const AnyVerifier verifier;
  const Result<AgentInfoPtr> decoded = AgentInfoSigned::decode(json, verifier);
  if (!decoded) {
    K2_ASSERT(!decoded.error().message.empty());
    return;
  }
  K2_ASSERT((*decoded)->encode() == json);
  ZeroSigner signer;
  const Result<AgentInfoPtr> made = AgentInfoSigned::sign(signer, (*decoded)->info());
  K2_ASSERT(made.has_value());
  const Result<AgentInfoPtr> second = AgentInfoSigned::decode((*made)->encode(), verifier);
  K2_ASSERT(second.has_value() && (*second)->info() == (*decoded)->info());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes message = fuzz::input(data, size);
  check(message.text());

  // The same text as the inner JSON, so that both parsers are reached without escapes in the corpus.
  std::string outer = R"({"agentInfo":)";
  wire::append_json_string(outer, message.text());
  outer += R"(,"signature":")" + to_base64url(std::vector<std::uint8_t>(64)) + R"("})";
  check(outer);

  static const AnyVerifier verifier;
  const auto list = AgentInfoSigned::decode_list(message.text(), 16, verifier);
  if (list) K2_ASSERT(list->size() <= 16);

  // An unescaped string, when written again, is read as the same string.
  wire::JsonScanner scanner(message.text());
  wire::JsonString text;
  if (scanner.string(text)) {
    const std::string plain = text.unescaped();
    std::string written;
    wire::append_json_string(written, plain);
    wire::JsonScanner second(written);
    wire::JsonString again;
    K2_ASSERT(second.string(again) && second.at_end() && again.unescaped() == plain);
  }
  return 0;
}
