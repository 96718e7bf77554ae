// The cost of the fetch core per op and per pair, by how much is pending.
#include <benchmark/benchmark.h>
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ctime>
#include <fstream>
#include <string>
#include <vector>

#include "core/fetch/fetch_core.hpp"

namespace kitsune2 {
namespace {

constexpr Time kStart{Duration(1'000'000'000)};

Url source(std::size_t i) { return Url::parse("ws://relay.example:443/source" + std::to_string(i)).value(); }

/// Ids that look like hashes: 32 bytes without a pattern.
std::vector<OpId> make_ids(std::uint64_t first, std::size_t count) {
  std::vector<OpId> out;
  out.reserve(count);
  std::array<std::uint64_t, 4> words{};
  for (std::uint64_t i = first; i < first + count; ++i) {
    std::uint64_t x = i;
    for (std::uint64_t& word : words) {
      x += 0x9e37'79b9'7f4a'7c15U;
      word = (x ^ (x >> 31U)) * 0xbf58'476d'1ce4'e5b9U;
    }
    out.emplace_back(ByteView{reinterpret_cast<const std::uint8_t*>(words.data()), sizeof words});
  }
  return out;
}

/// Adds `pairs` pairs that nobody answers, spread over `sources` sources.
void fill(FetchCore& core, std::size_t pairs, std::size_t sources) {
  constexpr std::size_t kBatch = 1000;
  for (std::size_t i = 0; i < pairs; i += kBatch) {
    core.add(make_ids(std::uint64_t{1} << 40U | i, std::min(kBatch, pairs - i)), source(1000 + i / kBatch % sources),
             kStart);
  }
}

/// The life cycle of 1,000 ops of a source that answers, while `range(0)` pairs of silent sources are pending.
void BM_FetchThousandOps(benchmark::State& state) {
  FetchCore core{CoreFetchConfig{}};
  fill(core, static_cast<std::size_t>(state.range(0)), 100);
  // The silent sources have their requests under way, as in a running node.
  while (auto request = core.next_request(kStart)) core.on_sent(request->id, kStart);
  const Url good = source(1);
  const auto ids = make_ids(0, 1000);
  for (auto _ : state) {
    core.add(ids, good, kStart);
    while (auto request = core.next_request(kStart)) {
      core.on_sent(request->id, kStart);
      benchmark::DoNotOptimize(core.on_response(good, request->op_ids, 64 * request->op_ids.size(), kStart));
      core.on_stored(request->op_ids, kStart);
    }
    if (core.pending_pairs() != static_cast<std::uint64_t>(state.range(0))) state.SkipWithError("ops are left");
  }
  state.counters["per_op"] = benchmark::Counter(static_cast<double>(state.iterations()) * 1000,
                                                benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_FetchThousandOps)->Arg(0)->RangeMultiplier(10)->Range(1000, 1'000'000)->Unit(benchmark::kMicrosecond);

double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

/// The same work at once: `range(0)` ops of one source, all pending together. CPU times of the four steps per op.
void BM_FetchAll(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0));
  const auto ids = make_ids(0, count);
  const Url good = source(1);
  std::array<double, 4> seconds{};
  for (auto _ : state) {
    FetchCore core{CoreFetchConfig{}};
    double at = cpu_seconds();
    const auto lap = [&at, &seconds](std::size_t i) {
      const double now = cpu_seconds();
      seconds[i] += now - at;
      at = now;
    };
    core.add(ids, good, kStart);
    lap(0);
    while (auto request = core.next_request(kStart)) {
      core.on_sent(request->id, kStart);
      lap(1);
      benchmark::DoNotOptimize(core.on_response(good, request->op_ids, 64 * request->op_ids.size(), kStart));
      lap(2);
      core.on_stored(request->op_ids, kStart);
      lap(3);
    }
    if (core.pending_ops() != 0) state.SkipWithError("ops are left");
  }
  const double ops = static_cast<double>(state.iterations()) * static_cast<double>(count);
  state.counters["add_ns"] = seconds[0] / ops * 1e9;
  state.counters["next_ns"] = seconds[1] / ops * 1e9;
  state.counters["response_ns"] = seconds[2] / ops * 1e9;
  state.counters["stored_ns"] = seconds[3] / ops * 1e9;
}
BENCHMARK(BM_FetchAll)->RangeMultiplier(10)->Range(1000, 1'000'000)->Unit(benchmark::kMillisecond);

/// The same ops offered by `range(1)` sources: the cost per op, all of whose pairs are touched.
void BM_ManySources(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0));
  const auto sources = static_cast<std::size_t>(state.range(1));
  const auto ids = make_ids(0, count);
  for (auto _ : state) {
    FetchCore core{CoreFetchConfig{}};
    for (std::size_t i = 0; i < sources; ++i) core.add(ids, source(i), kStart);
    while (auto request = core.next_request(kStart)) {
      core.on_sent(request->id, kStart);
      benchmark::DoNotOptimize(core.on_response(request->source, request->op_ids, 64 * request->op_ids.size(), kStart));
      core.on_stored(request->op_ids, kStart);
    }
    if (core.pending_ops() != 0) state.SkipWithError("ops are left");
  }
  state.counters["per_pair"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * static_cast<double>(count * sources),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_ManySources)->ArgsProduct({{1000, 10'000}, {1, 8, 100}})->Unit(benchmark::kMillisecond);

/// Silent sources, repeatedly: every request is overdue and every op is queued again.
void BM_Overdue(benchmark::State& state) {
  FetchCore core{CoreFetchConfig{}};
  fill(core, static_cast<std::size_t>(state.range(0)), 100);
  Time now = kStart;
  std::uint64_t requests = 0;
  for (auto _ : state) {
    core.poll(now);
    while (auto request = core.next_request(now)) {
      core.on_sent(request->id, now);
      ++requests;
    }
    now = core.next_deadline().value();
  }
  state.counters["per_request"] =
      benchmark::Counter(static_cast<double>(requests), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_Overdue)->Arg(10'000)->Arg(1'000'000)->Unit(benchmark::kMicrosecond);

/// Removes a source with `range(0)` pairs.
void BM_RemoveSource(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0));
  const auto ids = make_ids(0, count);
  FetchCore core{CoreFetchConfig{}};
  fill(core, 1'000'000, 100);
  for (auto _ : state) {
    state.PauseTiming();
    core.add(ids, source(1), kStart);
    state.ResumeTiming();
    benchmark::DoNotOptimize(core.remove_source(source(1), kStart));
  }
  state.counters["per_pair"] = benchmark::Counter(static_cast<double>(state.iterations()) * static_cast<double>(count),
                                                  benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_RemoveSource)->Arg(1000)->Arg(100'000)->Unit(benchmark::kMicrosecond);

std::uint64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t size = 0;
  std::uint64_t resident = 0;
  file >> size >> resident;
  return resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

/// RSS growth per pair in a fresh process: `range(0)` pairs; each op has `range(2)` of the `range(1)` sources.
void BM_MemoryPerPair(benchmark::State& state) {
  const auto pairs = static_cast<std::size_t>(state.range(0));
  const auto sources = static_cast<std::size_t>(state.range(1));
  const auto each = static_cast<std::size_t>(state.range(2));
  std::array<double, 2> measured{};
  for (auto _ : state) {
    std::array<int, 2> pipe_ends{};
    if (pipe(pipe_ends.data()) != 0) return state.SkipWithError("no pipe");
    const pid_t child = fork();
    if (child == 0) {
      malloc_trim(0);  // leftovers of earlier benchmarks would hide a part
      const std::uint64_t before = resident_bytes();
      FetchCore core{CoreFetchConfig{}};
      constexpr std::size_t kBatch = 1000;
      for (std::size_t i = 0; i * each < pairs; i += kBatch) {
        const auto ids = make_ids(i, kBatch);
        for (std::size_t s = 0; s < each; ++s) core.add(ids, source((i / kBatch + s) % sources), kStart);
      }
      const double grown = static_cast<double>(resident_bytes() - before) / static_cast<double>(core.pending_pairs());
      // What is left after everything was fetched.
      for (std::size_t i = 0; i * each < pairs; i += kBatch) core.on_stored(make_ids(i, kBatch), kStart);
      const double kept = static_cast<double>(resident_bytes() - before) / static_cast<double>(pairs);
      const std::array<double, 2> out{grown, core.pending_ops() == 0 ? kept : -1};
      const bool written = write(pipe_ends[1], out.data(), sizeof out) == sizeof out;
      _exit(written ? 0 : 1);
    }
    close(pipe_ends[1]);
    const bool ok = read(pipe_ends[0], measured.data(), sizeof measured) == sizeof measured;
    close(pipe_ends[0]);
    waitpid(child, nullptr, 0);
    if (!ok) return state.SkipWithError("the child failed");
  }
  state.counters["bytes_per_pair"] = measured[0];
  state.counters["kept_after"] = measured[1];
}
BENCHMARK(BM_MemoryPerPair)
    ->Args({1'000'000, 1, 1})
    ->Args({1'000'000, 100, 1})
    ->Args({1'000'000, 100, 8})
    ->Args({1'000'000, 100, 100})
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace kitsune2

BENCHMARK_MAIN();
