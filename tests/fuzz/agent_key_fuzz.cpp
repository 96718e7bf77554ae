// Key files: reading never crashes, and only a file as the key would write it is accepted.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "fuzz/fuzz.hpp"
#include "fuzz/scratch.hpp"
#include "kitsune2/agent.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::Scratch scratch;
  const std::string path = scratch.path("agent.key");
  fuzz::write_file(path, ByteView(data, size));
  const auto agent = Ed25519LocalAgent::load_or_create(path);
  if (!agent) {
    // Always the same words: the contents of a key file never appear in a message.
    K2_ASSERT(agent.error().code == Errc::corrupt && agent.error().message == path + ": not a key file of kitsune2");
    return 0;
  }
  K2_ASSERT(as_text(ByteView(data, size)).find((*agent)->agent().to_string()) != std::string_view::npos);
  return 0;
}
