// docs/guide.md, "A store".
#include <kitsune2/testing/op_store_suite.hpp>
#include <utility>
#include <vector>

#include "guide_node.hpp"

namespace guide {

// guide: store
/// Wraps another store and limits its bytes. A call without room fails as it would on a full disk.
class QuotaStore final : public OpStore {
 public:
  QuotaStore(Runtime& runtime, std::shared_ptr<OpStore> inner, std::uint64_t room)
      : runtime_(runtime), inner_(std::move(inner)), room_(room) {}

  void process_incoming_ops(std::vector<Bytes> ops, Handler<ProcessedOps> done) override {
    std::uint64_t bytes = 0;
    for (const Bytes& op : ops) bytes += op.size();
    if (!take(bytes, done)) return;
    inner_->process_incoming_ops(std::move(ops), settle(bytes, std::move(done)));
  }
  void store_described_ops(std::vector<std::pair<OpDescription, Bytes>> ops, Handler<ProcessedOps> done) override {
    std::uint64_t bytes = 0;
    for (const auto& op : ops) bytes += op.second.size();
    if (!take(bytes, done)) return;
    inner_->store_described_ops(std::move(ops), settle(bytes, std::move(done)));
  }

  // The rest is passed to the other store.
  void close() override { inner_->close(); }
  bool is_durable() const override { return inner_->is_durable(); }
  const OpPolicy& policy() const override { return inner_->policy(); }
  std::shared_ptr<void> subscribe(OpStoreEvents events) override { return inner_->subscribe(std::move(events)); }
  void retrieve_ops(std::vector<OpId> ids, std::uint64_t max_bytes, Handler<std::vector<MetaOp>> done) override {
    inner_->retrieve_ops(std::move(ids), max_bytes, std::move(done));
  }
  void filter_out_existing_ops(std::vector<OpId> ids, Handler<std::vector<OpId>> done) override {
    inner_->filter_out_existing_ops(std::move(ids), std::move(done));
  }
  void filter_out_intact_ops(std::vector<OpId> ids, Handler<std::vector<OpId>> done) override {
    inner_->filter_out_intact_ops(std::move(ids), std::move(done));
  }
  void list_ops(OpListQuery query, Handler<OpPage> done) override {
    inner_->list_ops(std::move(query), std::move(done));
  }
  void sum_ops(OpSumsQuery query, Handler<OpSumsPage> done) override {
    inner_->sum_ops(std::move(query), std::move(done));
  }
  void retrieve_op_hashes_in_time_slice(DhtArc arc, Timestamp start, Timestamp end,
                                        Handler<OpIdsInSlice> done) override {
    inner_->retrieve_op_hashes_in_time_slice(arc, start, end, std::move(done));
  }
  using OpStore::retrieve_op_ids_bounded;
  void retrieve_op_ids_bounded(OpIdsQuery query, Handler<OpIdsBounded> done) override {
    inner_->retrieve_op_ids_bounded(std::move(query), std::move(done));
  }
  void earliest_timestamp_in_arc(DhtArc arc, Handler<std::optional<Timestamp>> done) override {
    inner_->earliest_timestamp_in_arc(arc, std::move(done));
  }
  void store_slice_hash(DhtArc arc, std::uint64_t slice, Bytes hash, Handler<> done) override {
    inner_->store_slice_hash(arc, slice, std::move(hash), std::move(done));
  }
  void slice_hash_count(DhtArc arc, Handler<std::uint64_t> done) override {
    inner_->slice_hash_count(arc, std::move(done));
  }
  void retrieve_slice_hash(DhtArc arc, std::uint64_t slice, Handler<std::optional<Bytes>> done) override {
    inner_->retrieve_slice_hash(arc, slice, std::move(done));
  }
  void retrieve_slice_hashes(DhtArc arc, Handler<std::vector<std::pair<std::uint64_t, Bytes>>> done) override {
    inner_->retrieve_slice_hashes(arc, std::move(done));
  }
  void add_pending(std::vector<OpId> ids, Url source, Handler<> done) override {
    inner_->add_pending(std::move(ids), std::move(source), std::move(done));
  }
  void remove_pending_source(Url source, Handler<> done) override {
    inner_->remove_pending_source(std::move(source), std::move(done));
  }
  void remove_pending(std::vector<OpId> ids, Url source, Handler<> done) override {
    inner_->remove_pending(std::move(ids), std::move(source), std::move(done));
  }
  void retrieve_pending(Handler<std::vector<std::pair<Url, std::vector<OpId>>>> done) override {
    inner_->retrieve_pending(std::move(done));
  }
  void stats(Handler<OpStoreStats> done) override { inner_->stats(std::move(done)); }

 private:
  /// Returns false if there is no room. Then `done` is told so, later, because a handler never runs inside the call.
  bool take(std::uint64_t bytes, const Handler<ProcessedOps>& done) {
    if (bytes > room_) {
      runtime_.post([done] { done(make_error(Errc::disk_full, "the quota is used up")); });
      return false;
    }
    room_ -= bytes;
    return true;
  }
  /// Gives back the bytes that the ops did not use: they were held, or rejected, or the store failed.
  Handler<ProcessedOps> settle(std::uint64_t bytes, Handler<ProcessedOps> done) {
    return lifetime_.guard([this, bytes, done = std::move(done)](Result<ProcessedOps> result) {
      room_ += bytes - (result ? result->bytes_stored : 0);
      done(std::move(result));
    });
  }

  Runtime& runtime_;
  const std::shared_ptr<OpStore> inner_;
  std::uint64_t room_;
  Lifetime lifetime_;
};
// guide: end

// guide: store in a node
TEST(Guide, AnOpThatFindsNoRoomStaysRequested) {
  SimWorld world(1);
  auto network = MemoryNetwork::create();
  Builder builder = default_test_builder(network, "bob");
  builder.op_store = [make = builder.op_store](const ModuleContext& c) -> Result<std::shared_ptr<OpStore>> {
    auto inner = make(c);
    if (!inner) return inner.error();
    return std::make_shared<QuotaStore>(*c.runtime, std::move(*inner), 150);
  };
  SimNode alice(world, default_test_builder(network, "alice"));
  SimNode bob(world, builder);
  std::vector<Bytes> ops;
  for (std::uint64_t number = 1; number <= 3; ++number) ops.push_back(make_op(number, 100));
  const auto stored =
      await<ProcessedOps>(world, [&](auto done) { alice.space->op_store().process_incoming_ops(ops, done); });
  // One at a time: a call of three ops, which find no room together, would fail as a whole.
  for (const OpId& id : stored->newly_stored) {
    await<void>(world, [&](auto done) {
      bob.space->fetch().request_ops({id}, MemoryNetwork::url_of("alice"), done);
    }).value();
    world.run_for(1s);
  }
  EXPECT_EQ(ops_held(world, bob), 1U);
  EXPECT_EQ(bob.space->fetch().pending_ops(), 2U) << "they come when there is room";
}
// guide: end

}  // namespace guide

// guide: store suite
namespace kitsune2::testing {
INSTANTIATE_TEST_SUITE_P(Quota, OpStoreSuite,
                         ::testing::Values(OpStoreKind{
                             .name = "quota",
                             .open =
                                 [](Runtime& runtime, std::shared_ptr<const OpPolicy> policy, const std::string&) {
                                   auto inner = make_memory_op_store(runtime, std::move(policy));
                                   return std::make_shared<guide::QuotaStore>(runtime, std::move(inner), 1U << 30);
                                 }}),
                         op_store_kind_name);
}  // namespace kitsune2::testing
// guide: end
