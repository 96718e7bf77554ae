// docs/guide.md, "A host policy".
#include <set>

#include "guide_node.hpp"

namespace guide {

// guide: policy
/// Notes: the time of writing (µs since 1970, 8 bytes, big-endian), then at most 4 KiB of text.
class NotePolicy final : public OpPolicy {
 public:
  Result<OpDescription> describe(ByteView op) const override {
    if (op.size() < 8) return make_error(Errc::malformed, "a note begins with its time, 8 bytes");
    if (op.size() > 8 + 4096) return make_error(Errc::too_large, "a note has at most 4096 bytes of text");
    std::uint64_t micros = 0;
    for (const std::uint8_t byte : op.first(8)) micros = micros << 8U | byte;
    if (micros > INT64_MAX) return make_error(Errc::malformed, "a note's time is out of range");
    auto described = sha256_->describe(op);  // the id: SHA-256 of all bytes
    if (described) described->created_at = Timestamp{static_cast<std::int64_t>(micros)};
    return described;
  }
  std::string_view name() const override { return "guide-note"; }

 private:
  const std::shared_ptr<const OpPolicy> sha256_ = make_sha256_policy();
};

Bytes make_note(std::int64_t micros, std::string_view text) {
  std::string out;
  for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(micros >> shift & 0xff);
  return Bytes(out.append(text));
}
// guide: end

TEST(Guide, APolicyDescribesAndRefuses) {
  const NotePolicy policy;
  const Bytes note = make_note(1'700'000'000'000'000, "hello");
  const auto described = policy.describe(note);
  ASSERT_TRUE(described);
  EXPECT_EQ(described->created_at, Timestamp{1'700'000'000'000'000});
  EXPECT_EQ(described->op_id, make_sha256_policy()->describe(note)->op_id);
  EXPECT_EQ(policy.describe(Bytes::copy_of("short")).error().code, Errc::malformed);
  EXPECT_EQ(policy.describe(make_note(-1, "before 1970")).error().code, Errc::malformed);
  EXPECT_EQ(policy.describe(make_note(0, std::string(4097, 'x'))).error().code, Errc::too_large);
}

// guide: policy in a node
TEST(Guide, AnOpThatThePolicyRefusesIsNotStoredByAPeer) {
  SimWorld world(1);
  auto network = MemoryNetwork::create();
  // Mallory's node accepts any bytes as an op; Bob's requires notes.
  SimNode mallory(world, default_test_builder(network, "mallory"));
  SimNode bob(world, default_test_builder(network, "bob", std::make_shared<NotePolicy>()));
  std::string why;
  const auto token = bob.space->fetch().subscribe(
      {.ops_invalid = [&](const Url&, std::uint64_t, const Error& first) { why = first.message; }});

  const std::vector<Bytes> ops{make_note(0, "a note"), Bytes::copy_of("spam")};
  const auto stored =
      await<ProcessedOps>(world, [&](auto done) { mallory.space->op_store().process_incoming_ops(ops, done); });
  await<void>(world, [&](auto done) {
    mallory.space->publish().publish_ops(stored->newly_stored, MemoryNetwork::url_of("bob"), done);
  }).value();
  world.run_for(1min);
  EXPECT_EQ(ops_held(world, bob), 1U);
  EXPECT_EQ(why, "a note begins with its time, 8 bytes");
}
// guide: end

// guide: access
/// Listens to members only, and accepts only ops that the editor offers.
struct Club : KitsuneHandler, std::enable_shared_from_this<Club> {
  struct Room : SpaceHandler {
    explicit Room(Url of_editor) : editor(std::move(of_editor)) {}
    bool accept_offered_ops(const Url& peer, const SpaceId&) override { return peer == editor; }
    const Url editor;
  };
  Club(std::set<Url> of_members, Url of_editor) : members(std::move(of_members)), editor(std::move(of_editor)) {}
  Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId&) override { return std::make_shared<Room>(editor); }
  bool allow(const Url& peer, const SpaceId*, Direction) override { return members.contains(peer); }

  const std::set<Url> members;
  const Url editor;
};
// guide: end

TEST(Guide, ANodeHearsWhomItsHandlerAllows) {
  SimWorld world(1);
  auto network = MemoryNetwork::create();
  const auto url = [](const char* name) { return MemoryNetwork::url_of(name); };
  SimNode editor(world, default_test_builder(network, "editor"));
  SimNode member(world, default_test_builder(network, "member"));
  SimNode stranger(world, default_test_builder(network, "stranger"));
  SimNode bob(world, default_test_builder(network, "bob"),
              std::make_shared<Club>(std::set<Url>{url("editor"), url("member")}, url("editor")));
  std::uint64_t number = 0;
  for (SimNode* node : {&editor, &member, &stranger}) {
    const auto stored = await<ProcessedOps>(
        world, [&](auto done) { node->space->op_store().process_incoming_ops({make_op(++number)}, done); });
    Outcome<void> published;  // the stranger's fails: its connection is refused
    node->space->publish().publish_ops(stored->newly_stored, url("bob"), published.handler());
    world.run_for(1min);
  }
  EXPECT_EQ(ops_held(world, bob), 1U) << "the editor's";
  EXPECT_EQ(bob.space->publish().stats().ops_received, 2U) << "the stranger's message was not even read";
}

}  // namespace guide
