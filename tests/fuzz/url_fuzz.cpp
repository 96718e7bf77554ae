// Urls: parsing never crashes; what is accepted is canonical and is made up of its parts.
#include "kitsune2/url.hpp"

#include "fuzz/fuzz.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

/// A url with a path before the peer's id, or of another scheme: only the later dialects have them.
void check_other_form(const Bytes& text, bool also_of_0_2) {
  const Result<Url> url = Url::parse(text.text(), kAnyUrlForm);
  K2_ASSERT(url || !also_of_0_2);
  if (!url) return;
  K2_ASSERT(url->str() == text.text() && !url->host().empty());
  const Url relay = url->relay();
  K2_ASSERT(!relay.is_peer() && relay.addr() == url->addr() && relay.scheme() == url->scheme());
  if (!url->is_peer()) return;
  std::string made = relay.to_string();
  if (!made.ends_with('/')) made += '/';
  K2_ASSERT(made + std::string(*url->peer_id()) == url->str());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes text = fuzz::input(data, size);
  const Result<Url> url = Url::parse(text.text());
  check_other_form(text, url.has_value());
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
