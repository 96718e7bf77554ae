// The answer of a node's status socket: any bytes are an answer or none, and what is printed is safe for a terminal.
#include "status_text.hpp"

#include "fuzz/fuzz.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes input = fuzz::input(data, size);
  const auto status = cli::read_status(input.text());
  if (!status) return 0;
  const std::string text = cli::status_text(*status, "/data");
  K2_ASSERT(text.starts_with("/data: ") && text.ends_with('\n'));
  for (const char c : text) K2_ASSERT(c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f));
  const std::string json = status->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const auto again = cli::read_status(json);
  K2_ASSERT(again && cli::status_text(*again, "/data") == text);
  return 0;
}
