// An op store that is slow, fails or stops on demand.
#include "kitsune2/testing/fault_store.hpp"

#include <algorithm>
#include <utility>

#include "core/subscribers.hpp"

namespace kitsune2::testing {

FaultStore::FaultStore(Runtime& runtime, std::shared_ptr<OpStore> inner)
    : runtime_(runtime), inner_(std::move(inner)), events_(std::make_unique<Subscribers<OpStoreEvents>>()) {
  const auto pass_on = [this](auto which) {
    return lifetime_.guard([this, which](const std::vector<OpRecord>& ops) {
      runtime_.post(lifetime_.guard([this, which, ops] {
        events_->tell([&](const OpStoreEvents& events) {
          if (events.*which) (events.*which)(ops);
        });
      }));
    });
  };
  subscription_ = inner_->subscribe({pass_on(&OpStoreEvents::ops_stored), pass_on(&OpStoreEvents::ops_damaged)});
}
FaultStore::~FaultStore() = default;

std::shared_ptr<void> FaultStore::subscribe(OpStoreEvents events) { return events_->add(std::move(events)); }

void FaultStore::tell_damaged(const std::vector<OpRecord>& ops) {
  events_->tell([&](const OpStoreEvents& events) {
    if (events.ops_damaged) events.ops_damaged(ops);
  });
}

/// Takes an outcome of the inner store to this store's runtime.
template <class T>
Handler<T> FaultStore::back(Handler<T> done) {
  return lifetime_.guard([this, done = std::move(done)](Result<T> result) {
    runtime_.post(lifetime_.guard([done, result = std::move(result)] { done(result); }));
  });
}

template <class T, class F>
void FaultStore::write(Handler<T> done, F call) {
  ++writes_;
  std::optional<Error> error = write_error_;
  if (failing_writes_ > 0) {
    --failing_writes_;
    error = next_error_;
  }
  Task task = lifetime_.guard([this, error = std::move(error), done = std::move(done), call = std::move(call)] {
    last_write_ = std::max(last_write_, runtime_.now() + write_delay_);
    runtime_.schedule(last_write_, lifetime_.guard([this, error, done, call] {
      if (error) {
        done(*error);
      } else {
        call(back<T>(done));
      }
    }));
  });
  if (holding_) {
    held_.push_back(std::move(task));
  } else {
    task();
  }
}

template <class T, class F>
void FaultStore::read(Handler<T> done, F call) {
  ++reads_;
  runtime_.schedule_after(read_delay_,
                          lifetime_.guard([this, error = read_error_, done = std::move(done), call = std::move(call)] {
                            if (error) {
                              done(*error);
                            } else {
                              call(back<T>(done));
                            }
                          }));
}

void FaultStore::release() {
  holding_ = false;
  for (auto& task : std::exchange(held_, {})) task();
}

void FaultStore::process_incoming_ops(std::vector<Bytes> ops, Handler<ProcessedOps> done) {
  batches_.push_back(ops.size());
  write<ProcessedOps>(std::move(done), [this, ops = std::move(ops)](Handler<ProcessedOps> h) {
    inner_->process_incoming_ops(ops, std::move(h));
  });
}

void FaultStore::store_described_ops(std::vector<std::pair<OpDescription, Bytes>> ops, Handler<ProcessedOps> done) {
  batches_.push_back(ops.size());
  write<ProcessedOps>(std::move(done), [this, ops = std::move(ops)](Handler<ProcessedOps> h) {
    inner_->store_described_ops(ops, std::move(h));
  });
}

void FaultStore::store_incoming_ops(std::vector<IncomingOp> ops, Handler<ProcessedOps> done) {
  batches_.push_back(ops.size());
  for (const IncomingOp& op : ops) {
    if (!op.metadata.empty()) described_.push_back({op.description.op_id, op.metadata});
  }
  write<ProcessedOps>(std::move(done), [this, ops = std::move(ops)](Handler<ProcessedOps> h) {
    inner_->store_incoming_ops(ops, std::move(h));
  });
}

void FaultStore::retrieve_ops(std::vector<OpId> op_ids, std::uint64_t max_bytes, Handler<std::vector<MetaOp>> done) {
  ids_retrieved_ += op_ids.size();
  read<std::vector<MetaOp>>(std::move(done), [this, op_ids = std::move(op_ids), max_bytes](auto h) {
    inner_->retrieve_ops(op_ids, max_bytes, std::move(h));
  });
}

void FaultStore::filter_out_existing_ops(std::vector<OpId> op_ids, Handler<std::vector<OpId>> done) {
  read<std::vector<OpId>>(std::move(done), [this, op_ids = std::move(op_ids)](auto h) {
    inner_->filter_out_existing_ops(op_ids, std::move(h));
  });
}

void FaultStore::retrieve_op_hashes_in_time_slice(DhtArc arc, Timestamp start, Timestamp end,
                                                  Handler<OpIdsInSlice> done) {
  read<OpIdsInSlice>(std::move(done), [this, arc, start, end](auto h) {
    inner_->retrieve_op_hashes_in_time_slice(arc, start, end, std::move(h));
  });
}

void FaultStore::filter_out_intact_ops(std::vector<OpId> op_ids, Handler<std::vector<OpId>> done) {
  read<std::vector<OpId>>(std::move(done), [this, op_ids = std::move(op_ids)](auto h) {
    inner_->filter_out_intact_ops(op_ids, std::move(h));
  });
}

void FaultStore::list_ops(OpListQuery query, Handler<OpPage> done) {
  read<OpPage>(std::move(done), [this, query = std::move(query)](auto h) { inner_->list_ops(query, std::move(h)); });
}

void FaultStore::sum_ops(OpSumsQuery query, Handler<OpSumsPage> done) {
  read<OpSumsPage>(std::move(done), [this, query = std::move(query)](auto h) { inner_->sum_ops(query, std::move(h)); });
}

bool FaultStore::retrieve_dht_sums(Handler<DhtSums> done) {
  if (!read_error_) {
    const bool keeps = inner_->retrieve_dht_sums(back<DhtSums>(std::move(done)));
    reads_ += keeps ? 1 : 0;
    return keeps;
  }
  ++reads_;
  runtime_.post(lifetime_.guard([error = *read_error_, done = std::move(done)] { done(error); }));
  return true;
}

void FaultStore::retrieve_op_ids_bounded(OpIdsQuery query, Handler<OpIdsBounded> done) {
  read<OpIdsBounded>(std::move(done), [this, query = std::move(query)](auto h) {
    inner_->retrieve_op_ids_bounded(query, std::move(h));
  });
}

void FaultStore::earliest_timestamp_in_arc(DhtArc arc, Handler<std::optional<Timestamp>> done) {
  read<std::optional<Timestamp>>(std::move(done),
                                 [this, arc](auto h) { inner_->earliest_timestamp_in_arc(arc, std::move(h)); });
}

void FaultStore::store_slice_hash(DhtArc arc, std::uint64_t slice_index, Bytes slice_hash, Handler<> done) {
  write<void>(std::move(done), [this, arc, slice_index, slice_hash = std::move(slice_hash)](auto h) {
    inner_->store_slice_hash(arc, slice_index, slice_hash, std::move(h));
  });
}

void FaultStore::slice_hash_count(DhtArc arc, Handler<std::uint64_t> done) {
  read<std::uint64_t>(std::move(done), [this, arc](auto h) { inner_->slice_hash_count(arc, std::move(h)); });
}

void FaultStore::retrieve_slice_hash(DhtArc arc, std::uint64_t slice_index, Handler<std::optional<Bytes>> done) {
  read<std::optional<Bytes>>(std::move(done), [this, arc, slice_index](auto h) {
    inner_->retrieve_slice_hash(arc, slice_index, std::move(h));
  });
}

void FaultStore::retrieve_slice_hashes(DhtArc arc, Handler<std::vector<std::pair<std::uint64_t, Bytes>>> done) {
  read<std::vector<std::pair<std::uint64_t, Bytes>>>(
      std::move(done), [this, arc](auto h) { inner_->retrieve_slice_hashes(arc, std::move(h)); });
}

void FaultStore::add_pending(std::vector<OpId> op_ids, Url source, Handler<> done) {
  write<void>(std::move(done), [this, op_ids = std::move(op_ids), source = std::move(source)](auto h) {
    inner_->add_pending(op_ids, source, std::move(h));
  });
}

void FaultStore::remove_pending_source(Url source, Handler<> done) {
  write<void>(std::move(done),
              [this, source = std::move(source)](auto h) { inner_->remove_pending_source(source, std::move(h)); });
}

void FaultStore::remove_pending(std::vector<OpId> op_ids, Url source, Handler<> done) {
  write<void>(std::move(done), [this, op_ids = std::move(op_ids), source = std::move(source)](auto h) {
    inner_->remove_pending(op_ids, source, std::move(h));
  });
}

void FaultStore::retrieve_pending(Handler<std::vector<std::pair<Url, std::vector<OpId>>>> done) {
  read<std::vector<std::pair<Url, std::vector<OpId>>>>(std::move(done),
                                                       [this](auto h) { inner_->retrieve_pending(std::move(h)); });
}

void FaultStore::retrieve_pending_page(std::uint64_t after, std::size_t limit, Handler<PendingPage> done) {
  read<PendingPage>(std::move(done),
                    [this, after, limit](auto h) { inner_->retrieve_pending_page(after, limit, std::move(h)); });
}

void FaultStore::stats(Handler<OpStoreStats> done) {
  read<OpStoreStats>(std::move(done), [this](auto h) { inner_->stats(std::move(h)); });
}

}  // namespace kitsune2::testing
