// The throughput of the op stores: durable ops per second by size and batch, queries, policies. K2_BENCH_INDEX=runs (or
// tables) says where new databases have their indexes.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>
#include <thread>

#include "bench_runtime.hpp"
#include "kitsune2/sqlite_store.hpp"

namespace {

using namespace kitsune2;

using bench::BenchRuntime;

std::string fresh_path() {
  const char* dir = std::getenv("K2_BENCH_DIR");  // a real disk, not a tmpfs
  const std::string path = std::string(dir != nullptr ? dir : ".") + "/store_bench.db";
  for (const char* suffix : {"", "-wal", "-shm", "-data", "-lock"}) std::filesystem::remove(path + suffix);
  return path;
}

std::shared_ptr<OpStore> make_store(BenchRuntime& runtime, bool durable) {
  if (!durable) return make_memory_op_store(runtime, make_prefix_policy());
  SqliteOpStoreOptions options;
  if (const char* index = std::getenv("K2_BENCH_INDEX")) options.index_in_runs = std::string_view(index) == "runs";
  return open_sqlite_op_store(runtime, make_prefix_policy(), SpaceId::from_text("bench"), fresh_path(), options)
      .value();
}

/// Until the store is at rest: what it tidies up is no part of a read. Its WAL is empty then.
void wait_for_rest() {
  const char* dir = std::getenv("K2_BENCH_DIR");
  const std::string wal = std::string(dir != nullptr ? dir : ".") + "/store_bench.db-wal";
  std::error_code ec;
  for (int i = 0; i < 1'000 && std::filesystem::exists(wal, ec) && std::filesystem::file_size(wal, ec) > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

/// Ops as they arrive from the network: slices of one buffer, with evenly distributed ids (the first 32 bytes).
std::vector<Bytes> make_batch(std::mt19937_64& random, std::size_t count, std::size_t size) {
  std::vector<std::uint8_t> buffer(count * size, 0x5a);
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t k = 0; k < 32; k += 8) {
      const std::uint64_t word = random();
      std::memcpy(buffer.data() + i * size + k, &word, 8);
    }
  }
  const Bytes whole(std::move(buffer));
  std::vector<Bytes> out;
  out.reserve(count);
  for (std::size_t i = 0; i < count; ++i) out.push_back(whole.slice(i * size, size));
  return out;
}

/// Durable ops/s: `batch` ops per call, `waiting` calls under way, into a growing store.
void store_ops(benchmark::State& state, bool durable) {
  const auto size = static_cast<std::size_t>(state.range(0));
  const auto batch = static_cast<std::size_t>(state.range(1));
  const auto calls_waiting = static_cast<std::size_t>(state.range(2));
  BenchRuntime runtime;
  const auto store = make_store(runtime, durable);
  std::mt19937_64 random(1);
  std::size_t waiting = 0;
  std::uint64_t stored = 0;
  for (auto _ : state) {
    state.PauseTiming();
    auto ops = make_batch(random, batch, size);
    state.ResumeTiming();
    ++waiting;
    store->process_incoming_ops(std::move(ops), [&](Result<ProcessedOps> out) {
      --waiting;
      stored += out.value().newly_stored.size();
    });
    while (waiting >= calls_waiting) runtime.run_one();
  }
  while (waiting > 0) runtime.run_one();
  state.SetItemsProcessed(static_cast<std::int64_t>(stored));
  state.SetBytesProcessed(static_cast<std::int64_t>(stored * size));
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"size", "batch", "waiting"})->UseRealTime()->MeasureProcessCPUTime()->Unit(benchmark::kMicrosecond);
}

void memory_store(benchmark::State& state) { store_ops(state, false); }
BENCHMARK(memory_store)
    ->Apply(sizes)
    ->Args({64, 1, 1})
    ->Args({64, 256, 1})
    ->Args({1024, 256, 1})
    ->Args({65536, 16, 1})
    ->MinTime(0.3);

void sqlite_store(benchmark::State& state) { store_ops(state, true); }
BENCHMARK(sqlite_store)
    ->Apply(sizes)
    ->ArgsProduct({{80, 1024}, {1, 16, 256, 1024, 4096}, {2}})
    ->ArgsProduct({{65536}, {1, 16, 64, 256}, {2}})
    ->Args({1048576, 16, 2})
    ->Args({80, 1, 256})  // single ops, as publish brings them, which the group commit batches
    ->Args({1024, 1, 256})
    ->MinTime(2.0);

/// Ids/s in look-ups whether they are held, in a store of `range(0)` ops; half of them are.
void filter(benchmark::State& state, bool durable) {
  BenchRuntime runtime;
  const auto store = make_store(runtime, durable);
  std::mt19937_64 random(1);
  std::vector<OpId> ids;
  for (std::int64_t left = state.range(0); left > 0; left -= 4096) {
    auto ops = make_batch(random, 4096, 80);
    for (const Bytes& op : ops) ids.push_back(OpId(op.view().first(32)));
    bool done = false;
    store->process_incoming_ops(std::move(ops), [&](auto) { done = true; });
    while (!done) runtime.run_one();
  }
  for (const Bytes& op : make_batch(random, ids.size(), 32)) ids.push_back(OpId(op.view()));
  std::shuffle(ids.begin(), ids.end(), random);
  if (durable) wait_for_rest();
  std::size_t at = 0;
  for (auto _ : state) {
    const std::size_t count = std::min<std::size_t>(1'000, ids.size() - at);
    bool done = false;
    store->filter_out_existing_ops(
        {ids.begin() + static_cast<std::ptrdiff_t>(at), ids.begin() + static_cast<std::ptrdiff_t>(at + count)},
        [&](auto) { done = true; });
    while (!done) runtime.run_one();
    state.SetItemsProcessed(state.items_processed() + static_cast<std::int64_t>(count));
    at = (at + count) % ids.size();
  }
}
void memory_filter(benchmark::State& state) { filter(state, false); }
void sqlite_filter(benchmark::State& state) { filter(state, true); }
BENCHMARK(memory_filter)->Arg(100'000)->UseRealTime()->MeasureProcessCPUTime();
BENCHMARK(sqlite_filter)->Arg(100'000)->UseRealTime()->MeasureProcessCPUTime();

/// Ops/s read from a store of 100,000, 256 at a time.
void retrieve(benchmark::State& state, bool durable) {
  const auto size = static_cast<std::size_t>(state.range(0));
  const std::size_t count = std::max<std::size_t>(256, std::min<std::size_t>(100'000, (256U << 20) / size));
  BenchRuntime runtime;
  const auto store = make_store(runtime, durable);
  std::mt19937_64 random(1);
  std::vector<OpId> ids;
  while (ids.size() < count) {
    auto ops = make_batch(random, 256, size);
    for (const Bytes& op : ops) ids.push_back(OpId(op.view().first(32)));
    bool done = false;
    store->process_incoming_ops(std::move(ops), [&](auto) { done = true; });
    while (!done) runtime.run_one();
  }
  if (state.range(1) == 0) std::shuffle(ids.begin(), ids.end(), random);
  if (durable) wait_for_rest();
  std::size_t at = 0;
  std::int64_t items = 0;
  for (auto _ : state) {
    bool done = false;
    store->retrieve_ops(
        {ids.begin() + static_cast<std::ptrdiff_t>(at), ids.begin() + static_cast<std::ptrdiff_t>(at + 256)},
        UINT64_MAX, [&](Result<std::vector<MetaOp>> out) {
          items += static_cast<std::int64_t>(out.value().size());
          done = true;
        });
    while (!done) runtime.run_one();
    at = (at + 256) % (ids.size() - 255);
  }
  state.SetItemsProcessed(items);
  state.SetBytesProcessed(items * state.range(0));
}
void memory_retrieve(benchmark::State& state) { retrieve(state, false); }
void sqlite_retrieve(benchmark::State& state) { retrieve(state, true); }
void retrievals(benchmark::internal::Benchmark* b) {
  b->ArgNames({"size", "as_stored"})->UseRealTime()->MeasureProcessCPUTime();
}
BENCHMARK(memory_retrieve)->Apply(retrievals)->ArgsProduct({{80, 1024}, {0}});
BENCHMARK(sqlite_retrieve)->Apply(retrievals)->ArgsProduct({{80, 1024, 65536, 1048576}, {0, 1}});

/// Pending ids/s made durable, 10,000 per call.
void sqlite_add_pending(benchmark::State& state) {
  BenchRuntime runtime;
  const auto store = make_store(runtime, true);
  std::mt19937_64 random(1);
  const Url source = Url::parse("ws://127.0.0.1:1/p").value();
  for (auto _ : state) {
    state.PauseTiming();
    std::vector<OpId> ids;
    for (const Bytes& op : make_batch(random, 10'000, 32)) ids.push_back(OpId(op.view()));
    state.ResumeTiming();
    bool done = false;
    store->add_pending(std::move(ids), source, [&](auto) { done = true; });
    while (!done) runtime.run_one();
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()) * 10'000);
}
BENCHMARK(sqlite_add_pending)->UseRealTime()->MeasureProcessCPUTime();

void describe(benchmark::State& state, const std::shared_ptr<const OpPolicy>& policy, const Bytes& op) {
  for (auto _ : state) benchmark::DoNotOptimize(policy->describe(op));
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * op.size()));
}
void sha256_policy(benchmark::State& state) {
  std::mt19937_64 random(1);
  describe(state, make_sha256_policy(), make_batch(random, 1, static_cast<std::size_t>(state.range(0)))[0]);
}
BENCHMARK(sha256_policy)->Arg(64)->Arg(1024)->Arg(65536);
void memory_op_policy(benchmark::State& state) {
  std::string json = "{\"created_at\":1795425619933318,\"op_data\":[";
  for (std::int64_t i = 0; i < state.range(0); ++i) json += std::to_string((i * 37) % 256) + ",";
  json.back() = ']';
  describe(state, make_memory_op_policy(), Bytes(json + "}"));
}
BENCHMARK(memory_op_policy)->Arg(64)->Arg(1024)->Arg(65536);

}  // namespace

BENCHMARK_MAIN();
