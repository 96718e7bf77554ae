// Urls: parsing never crashes; what is accepted is canonical and is made up of its parts.
#include "kitsune2/url.hpp"

#include "fuzz/fuzz.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes text = fuzz::input(data, size);
  const Result<Url> url = Url::parse(text.text());
  if (!url) {
    K2_ASSERT(!url.error().message.empty());
    return 0;
  }
  K2_ASSERT(url->str() == text.text());
  K2_ASSERT(!url->host().empty());
  std::string made(url->uses_tls() ? "wss://" : "ws://");
  made += url->addr();
  K2_ASSERT(url->addr().ends_with(":" + std::to_string(url->port())));
  const Result<Url> relay = Url::parse(made);
  K2_ASSERT(relay.has_value() && *relay == url->relay() && !relay->is_peer());
  if (const auto peer = url->peer_id()) {
    K2_ASSERT(!peer->empty() && peer->find('/') == std::string_view::npos);
    made += '/';
    made += *peer;
  }
  K2_ASSERT(made == url->str());
  return 0;
}
