// Answers of a bootstrap server, as the module handles them: never crashes, and nothing that is not credible reaches
// the peer store. All signatures are accepted, or nothing would be reached.
#include "fuzz/fuzz.hpp"
#include "kitsune2/builder.hpp"
#include "kitsune2/http.hpp"
#include "kitsune2/testing/sim_runtime.hpp"
#include "node/space/agent_rules.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

const SpaceId kSpace = SpaceId::from_text("test-space");

struct Anyone final : Verifier {
  bool verify(const AgentInfo& info, ByteView /*message*/, ByteView /*signature*/) const override {
    last = info;
    return true;
  }
  mutable AgentInfo last;
};

struct Server final : HttpClient {
  Server(Runtime& r, std::string b, int s) : runtime(r), body(std::move(b)), status(s) {}
  void request(HttpRequest request, Handler<HttpResponse> done) override {
    K2_ASSERT(request.max_response_bytes <= 1U << 20);
    runtime.post([this, done = std::move(done)] { done(HttpResponse{status, body}); });
  }
  Runtime& runtime;
  std::string body;
  int status;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Bytes input = fuzz::input(data + 1, size - 1);
  static const Anyone anyone;
  testing::SimWorld world(1);
  const auto runtime = world.make_runtime();
  // Around the time in the answer, so that its infos can be accepted; odd: 2026, unchanged.
  anyone.last = {};
  static_cast<void>(AgentInfoSigned::decode_list(input.text(), 1024, anyone));
  const Timestamp now = runtime->wall_now();
  if (data[0] % 2 == 0 && anyone.last.created_at > Timestamp{} &&
      anyone.last.created_at < now + std::chrono::hours(1)) {
    runtime->set_wall_skew(anyone.last.created_at - now + std::chrono::minutes(data[0] % 64) -
                           std::chrono::minutes(20));
  }
  const SpaceId space = data[0] % 4 < 2 && !anyone.last.space.empty() ? anyone.last.space : kSpace;
  ModuleContext context;
  Config config;
  config.core_bootstrap.server_url = "http://boot:80";
  context.runtime = runtime.get();
  context.config = std::make_shared<RuntimeConfig>(config);
  context.verifier = &anyone;
  context.space = space;
  context.peer_store = make_memory_peer_store(*runtime, space, 4);
  const auto updates = context.peer_store->on_update([&](const AgentInfoPtr& info) {
    K2_ASSERT(judge_agent_info(info->info(), space, runtime->wall_now()).has_value());
  });
  const auto boot =
      make_core_bootstrap(context, std::make_shared<Server>(*runtime, input.str(), (data[0] & 0x80) != 0 ? 500 : 200))
          .value();
  world.run_for(std::chrono::seconds(20));
  K2_ASSERT(context.peer_store->get_all().size() <= 4);
  bool stopped = false;
  boot->stop([&] { stopped = true; });
  world.run_for(std::chrono::seconds(3));
  K2_ASSERT(stopped);
  return 0;
}
