// An op store that is slow, fails or stops on demand.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "kitsune2/op_store.hpp"
#include "kitsune2/testing/sim_runtime.hpp"

namespace kitsune2 {
template <class Listener>
class Subscribers;
}

namespace kitsune2::testing {

/// Passes calls on to another store and adds faults.
///
/// Can also make a *disk* out of a memory store: let the memory store live on a runtime of its own, and give each start
/// of the node a new FaultStore over it. When the node crashes, what was written stays, and what was under way is lost.
///
/// *Rules*.
///  F1  Writes begin in the order of the calls, each after `write_delay`; a failing write changes nothing.
///  F2  Handlers run on this store's runtime, none after its end.
///  F3  Faults apply to calls made from now on; held calls begin at `release`.
///  F4  Events of the other store are delivered on this store's runtime, none from before its start, and each before
///      the handlers that run after it there.
///
/// The writes are process_incoming_ops, store_described_ops, store_incoming_ops, add_pending, remove_pending_source,
/// remove_pending and store_slice_hash; all others are reads. retrieve_dht_sums is never delayed. Strand only.
class FaultStore final : public OpStore {
 public:
  FaultStore(Runtime& runtime, std::shared_ptr<OpStore> inner);
  ~FaultStore() override;

  void fail_writes(std::optional<Error> error) { write_error_ = std::move(error); }  ///< nullopt: stops failing
  void fail_reads(std::optional<Error> error) { read_error_ = std::move(error); }
  /// Lets the next `count` writes fail, whatever `fail_writes` says.
  void fail_next_writes(std::size_t count, Error error) {
    failing_writes_ = count;
    next_error_ = std::move(error);
  }
  void delay_writes(Duration delay) { write_delay_ = delay; }
  void delay_reads(Duration delay) { read_delay_ = delay; }
  /// Makes writes wait until `release`.
  void hold_writes() { holding_ = true; }
  void release();
  /// Reports these ops as damaged at once. The other store keeps its contents.
  void tell_damaged(const std::vector<OpRecord>& ops);

  std::uint64_t writes() const { return writes_; }
  std::uint64_t reads() const { return reads_; }
  /// The ids that retrieve_ops was asked for, in all calls.
  std::uint64_t ids_retrieved() const { return ids_retrieved_; }
  /// The number of ops in each call of process_incoming_ops and store_described_ops so far.
  const std::vector<std::size_t>& batches() const { return batches_; }
  /// The ops that came with metadata so far, in the order of the calls, whether they were stored or not.
  const std::vector<PublishOp>& described() const { return described_; }

  void close() override { inner_->close(); }
  std::shared_ptr<void> subscribe(OpStoreEvents events) override;
  void process_incoming_ops(std::vector<Bytes> ops, Handler<ProcessedOps> done) override;
  void store_described_ops(std::vector<std::pair<OpDescription, Bytes>> ops, Handler<ProcessedOps> done) override;
  void store_incoming_ops(std::vector<IncomingOp> ops, Handler<ProcessedOps> done) override;
  void retrieve_ops(std::vector<OpId> op_ids, std::uint64_t max_bytes, Handler<std::vector<MetaOp>> done) override;
  void filter_out_existing_ops(std::vector<OpId> op_ids, Handler<std::vector<OpId>> done) override;
  void filter_out_intact_ops(std::vector<OpId> op_ids, Handler<std::vector<OpId>> done) override;
  void list_ops(OpListQuery query, Handler<OpPage> done) override;
  void sum_ops(OpSumsQuery query, Handler<OpSumsPage> done) override;
  bool retrieve_dht_sums(Handler<DhtSums> done) override;
  void retrieve_op_hashes_in_time_slice(DhtArc arc, Timestamp start, Timestamp end,
                                        Handler<OpIdsInSlice> done) override;
  using OpStore::retrieve_op_ids_bounded;
  void retrieve_op_ids_bounded(OpIdsQuery query, Handler<OpIdsBounded> done) override;
  void earliest_timestamp_in_arc(DhtArc arc, Handler<std::optional<Timestamp>> done) override;
  void store_slice_hash(DhtArc arc, std::uint64_t slice_index, Bytes slice_hash, Handler<> done) override;
  void slice_hash_count(DhtArc arc, Handler<std::uint64_t> done) override;
  void retrieve_slice_hash(DhtArc arc, std::uint64_t slice_index, Handler<std::optional<Bytes>> done) override;
  void retrieve_slice_hashes(DhtArc arc, Handler<std::vector<std::pair<std::uint64_t, Bytes>>> done) override;
  void add_pending(std::vector<OpId> op_ids, Url source, Handler<> done) override;
  void remove_pending_source(Url source, Handler<> done) override;
  void remove_pending(std::vector<OpId> op_ids, Url source, Handler<> done) override;
  void retrieve_pending(Handler<std::vector<std::pair<Url, std::vector<OpId>>>> done) override;
  void retrieve_pending_page(std::uint64_t after, std::size_t limit, Handler<PendingPage> done) override;
  void stats(Handler<OpStoreStats> done) override;
  const OpPolicy& policy() const override { return inner_->policy(); }

 private:
  template <class T, class F>
  void write(Handler<T> done, F call);
  template <class T, class F>
  void read(Handler<T> done, F call);
  template <class T>
  Handler<T> back(Handler<T> done);

  Runtime& runtime_;
  const std::shared_ptr<OpStore> inner_;
  const std::unique_ptr<Subscribers<OpStoreEvents>> events_;
  std::shared_ptr<void> subscription_;
  std::optional<Error> write_error_, read_error_;
  std::size_t failing_writes_ = 0;
  Error next_error_;
  Duration write_delay_{}, read_delay_{};
  Time last_write_{};
  bool holding_ = false;
  std::vector<Task> held_;
  std::uint64_t writes_ = 0, reads_ = 0, ids_retrieved_ = 0;
  std::vector<std::size_t> batches_;
  std::vector<PublishOp> described_;
  Lifetime lifetime_;
};

}  // namespace kitsune2::testing
