// PUT bodies and paths of the bootstrap server, with all signatures accepted: checks and bounds hold.
#include <string>

#include "fuzz/fuzz.hpp"
#include "server/bootstrap_core.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

struct Anyone final : Verifier {
  bool verify(const AgentInfo& info, ByteView, ByteView) const override {
    last = info;
    return true;
  }
  mutable AgentInfo last;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes input = fuzz::input(data, size);
  const Anyone anyone;
  // First the values in the body, so that the path can be right; then puts around the time in it.
  const auto parsed = AgentInfoSigned::decode(input.text(), anyone);
  const std::string space =
      parsed.has_value() ? anyone.last.space.to_string() : std::string(input.text().substr(0, 40));
  const std::string agent =
      parsed.has_value() ? anyone.last.agent.to_string() : std::string(input.text().substr(0, 43));
  const Timestamp base = parsed.has_value() ? anyone.last.created_at : Timestamp{};
  server::BootstrapCore core({.max_entries_per_space = 2, .max_spaces = 2, .max_bytes = 4000}, anyone);
  for (const int minutes : {0, -4, 4, 2, 31}) {
    const Timestamp now = base + std::chrono::minutes(minutes);
    const auto answer = core.put(space, agent, input.text(), now);
    core.check_invariants();
    K2_ASSERT(answer.status == 200 || answer.status == 400 || answer.status == 413 || answer.status == 500 ||
              answer.status == 503);
    K2_ASSERT(answer.status != 200 || input.size() <= server::BootstrapCore::kMaxBodyBytes);
    const auto list = core.get(space, now);
    K2_ASSERT(list.status == 200 || list.status == 400);
    if (list.status == 200 && list.body != "[]") K2_ASSERT(list.body == "[" + input.str() + "]");
    core.prune(now);
    core.check_invariants();
  }
  return 0;
}
