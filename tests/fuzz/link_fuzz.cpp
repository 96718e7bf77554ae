// Links of `kitsune2 share`: parsing never crashes; what is accepted prints as the same text.
#include "fuzz/fuzz.hpp"
#include "kitsune2/files.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes text = fuzz::input(data, size);
  const auto link = files::Link::parse(text.text());
  if (!link) {
    K2_ASSERT(link.error().code == Errc::invalid_argument && !link.error().message.empty());
    return 0;
  }
  K2_ASSERT(link->root.size() == 32 && link->port != 0 && !link->host.empty());
  const auto again = files::Link::parse(link->to_string());
  K2_ASSERT(again && *again == *link && again->to_string() == link->to_string());
  return 0;
}
