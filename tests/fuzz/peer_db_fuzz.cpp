// A damaged database of the peer stores: opening it ends with stores or an error, what is loaded obeys the rules, and
// the stores keep working. Input: see SmallDb::damage; rows have one byte that says where the rest is cut into a note's
// url, its key, its value and an agent's JSON.
#include <array>
#include <string>

#include "fuzz/fuzz.hpp"
#include "fuzz/small_db.hpp"
#include "kitsune2/peer_store.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/sim_runtime.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

const SpaceId kSpace = SpaceId::from_text("test-space");

struct Anyone final : Verifier {
  bool verify(const AgentInfo& /*info*/, ByteView /*message*/, ByteView /*signature*/) const override { return true; }
};
const Anyone kAnyone;

struct Base {
  fuzz::SmallDb db{"peers.db"};
  Url url = *Url::parse("ws://relay:1/peer");
  AgentInfoPtr later;

  Base() {
    {
      testing::SimWorld world(1);
      const auto runtime = world.make_runtime();
      auto stores = *open_sqlite_peer_stores(*runtime, kSpace, db.path(), kAnyone);
      for (std::uint64_t i = 0; i < 3; ++i) {
        stores.peers->insert({testing::AgentInfoBuilder{.space = kSpace, .url = url}.sign(*testing::make_agent(i))});
        K2_ASSERT(stores.meta->put(url, "key" + std::to_string(i), Bytes::copy_of("value"), std::nullopt).has_value());
      }
      later = testing::AgentInfoBuilder{.space = kSpace, .url = url}.sign(*testing::make_agent(9));
    }
    db.keep();
  }
};

void put_rows(sqlite::Connection& c, const Bytes& input) {
  const std::size_t part = input.empty() ? 0 : input[0];
  std::array<std::string_view, 4> texts;
  std::string_view rest = input.text().substr(std::min<std::size_t>(1, input.size()));
  for (std::size_t i = 0; i < texts.size(); ++i) {
    texts[i] = i + 1 < texts.size() ? rest.substr(0, part) : rest;
    rest.remove_prefix(texts[i].size());
  }
  auto note = c.prepare("UPDATE note SET url=?1, key=?2, value=?3, expires_at=?4 WHERE key='key1'");
  K2_ASSERT(note.has_value());
  note->bind_text(1, texts[0]).bind_text(2, texts[1]).bind(3, as_bytes(texts[2]));
  note->bind(4, static_cast<std::int64_t>(part) << 56U);
  note->step();
  auto agent = c.prepare("UPDATE agent SET json=?1, expires_at=4000000000000000");
  K2_ASSERT(agent.has_value());
  agent->bind_text(1, texts[3]);
  agent->step();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Base base;
  if (size == 0) return 0;
  base.db.damage(fuzz::input(data, size), put_rows);
  testing::SimWorld world(1);
  const auto runtime = world.make_runtime();
  auto stores = open_sqlite_peer_stores(*runtime, kSpace, base.db.path(), kAnyone, 4, 8);
  if (!stores) {
    K2_ASSERT(!stores.error().message.empty());
    return 0;
  }
  const auto everyone = stores->peers->get_all();
  K2_ASSERT(everyone.size() <= 4);
  for (const AgentInfoPtr& info : everyone) {
    K2_ASSERT(info->info().space == kSpace && !info->is_expired(runtime->wall_now()) && !info->info().is_tombstone);
  }
  for (const auto& [url, value] : stores->meta->get_all_by_key("key2")) K2_ASSERT(value.size() <= 1U << 20);
  stores->peers->insert({base.later});
  K2_ASSERT(stores->peers->get(base.later->info().agent) == base.later);
  if (stores->meta->put(base.url, "fresh", Bytes::copy_of("x"), std::nullopt)) {
    K2_ASSERT(stores->meta->get(base.url, "fresh") == Bytes::copy_of("x"));
  }
  stores->meta->remove(base.url, "key0");
  stores->peers->remove(base.later->info().agent);
  K2_ASSERT(!stores->peers->get(base.later->info().agent));
  return 0;
}
