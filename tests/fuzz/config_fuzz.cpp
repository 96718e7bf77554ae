// Configuration text: parsing never crashes; what is accepted is valid (of the transports, the one in use) and reads
// the same after printing; a change at run time is all or nothing.
#include "kitsune2/config.hpp"

#include "fuzz/fuzz.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes text = fuzz::input(data, size);
  const auto config = Config::parse(text.text());
  if (!config) {
    K2_ASSERT(config.error().code == Errc::invalid_config && !config.error().message.empty());
    // Safe for a terminal, whatever the text contained.
    for (const char c : config.error().message) K2_ASSERT(static_cast<unsigned char>(c) >= 0x20);
    K2_ASSERT(config.error().message.size() < 2000);
  } else {
    // Without a dialect, the values of both transports are judged only here (rule C3).
    if (const auto valid = config->validate(); !valid) {
      K2_ASSERT(!config->network.dialect);
      K2_ASSERT(valid.error().message.starts_with("tx5Transport.") ||
                valid.error().message.starts_with("irohTransport."));
    }
    const std::string printed = config->to_json();
    const auto again = Config::parse(printed);
    K2_ASSERT(again.has_value() && again->to_json() == printed);
  }
  RuntimeConfig running;
  const std::string before = running.current().to_json();
  int calls = 0;
  const auto held = running.on_update("k2Gossip", [&calls](const Config&) { ++calls; });
  K2_ASSERT(calls == 1);
  if (running.update(text.text())) {
    K2_ASSERT(config.has_value() && running.current().to_json() == config->to_json());
  } else {
    K2_ASSERT(calls == 1 && running.current().to_json() == before);
  }
  return 0;
}
