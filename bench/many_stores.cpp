// What the stores of many spaces take in one process: threads, descriptors, memory, and time to open.
//
// usage: many_stores SPACES [OPS] [WAIT]: opens the stores of so many spaces, puts OPS ops of 100 bytes into each
// (100), uses all of them once more in another order, rests for two seconds, waits for WAIT seconds (0), and says each
// time what the process has; then it opens all of them again. Fails if an op is lost. K2_BENCH_DIR: where. With `ulimit
// -n 1024` before it, it shows that any number of spaces can be used.
#include <malloc.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "bench_runtime.hpp"
#include "kitsune2/peer_store.hpp"
#include "kitsune2/sqlite_store.hpp"
#include "process.hpp"

namespace {

using namespace kitsune2;
using Clock = std::chrono::steady_clock;

struct Space {
  SqlitePeerStores peers;
  std::shared_ptr<OpStore> ops;
};

std::size_t descriptors() {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator()));
}

/// What was allocated and is not freed; the process has more, since the allocator keeps what is freed.
std::uint64_t allocated_bytes() {
  const auto info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}
const std::uint64_t allocated_before = allocated_bytes();

void report(const char* when, std::size_t spaces, double ms, std::uint64_t anonymous_before) {
  const auto n = static_cast<double>(spaces);
  std::printf(
      "%-8s %5zu spaces: %4llu threads, %5zu descriptors (%.1f a space), %6.0f KiB a space (%.0f allocated), "
      "%.2f ms a space\n",
      when, spaces, static_cast<unsigned long long>(bench::status_figure("Threads:")), descriptors(),
      static_cast<double>(descriptors()) / n,
      static_cast<double>(bench::anonymous_bytes() - anonymous_before) / 1024 / n,
      static_cast<double>(allocated_bytes() - allocated_before) / 1024 / n, ms / n);
}

double cpu_ms() {
  struct rusage used {};
  ::getrusage(RUSAGE_SELF, &used);
  const auto ms = [](const timeval& t) {
    return 1e3 * static_cast<double>(t.tv_sec) + 1e-3 * static_cast<double>(t.tv_usec);
  };
  return ms(used.ru_utime) + ms(used.ru_stime);
}

void run_for(bench::BenchRuntime& runtime, std::chrono::seconds time) {
  bool over = false;
  runtime.schedule_after(time, [&] { over = true; });
  while (!over) runtime.run_one();
}

double ms_since(Clock::time_point began) {
  return std::chrono::duration<double, std::milli>(Clock::now() - began).count();
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t count = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100;
  const std::size_t ops = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 100;
  const auto wait = argc > 3 ? std::strtol(argv[3], nullptr, 10) : 0;
  const char* dir = std::getenv("K2_BENCH_DIR");
  const std::string folder = std::string(dir != nullptr ? dir : ".") + "/many_stores";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  bench::BenchRuntime runtime;
  std::vector<Space> spaces;
  const auto open_all = [&] {
    for (std::size_t i = 0; i < count; ++i) {
      const SpaceId id = SpaceId::from_text("space" + std::to_string(i));
      const std::string path = folder + "/" + std::to_string(i);
      auto peers = open_sqlite_peer_stores(runtime, id, path + ".peers.db");
      auto store = open_sqlite_op_store(runtime, make_sha256_policy(), id, path + ".db");
      if (!peers || !store) {
        std::printf("space %zu: %s\n", i, (peers ? store.error() : peers.error()).to_string().c_str());
        return false;
      }
      spaces.push_back({std::move(*peers), std::move(*store)});
    }
    return !spaces.empty();
  };
  const auto before = bench::anonymous_bytes();
  auto began = Clock::now();
  double cpu = cpu_ms();
  if (!open_all()) return 1;
  double opening_ms = ms_since(began);
  cpu = cpu_ms() - cpu;
  run_for(runtime, std::chrono::seconds(1));  // peer stores close their files
  report("opened", spaces.size(), opening_ms, before);
  std::printf("         %.2f ms of processor a space\n", cpu / static_cast<double>(count));
  began = Clock::now();
  std::size_t waiting = spaces.size();
  for (const Space& space : spaces) {
    std::vector<Bytes> some;
    for (std::size_t i = 0; i < ops; ++i) some.push_back(Bytes(std::string(100, 'x') + std::to_string(i)));
    space.ops->process_incoming_ops(std::move(some), [&](const Result<ProcessedOps>& out) {
      if (!out) std::printf("%s\n", out.error().to_string().c_str());
      --waiting;
    });
  }
  while (waiting > 0) runtime.run_one();
  report("written", spaces.size(), ms_since(began), before);
  began = Clock::now();
  std::size_t failures = 0;
  for (std::size_t i = 0; i < spaces.size(); ++i) {
    // One after the other, as far from each other as possible: 7,919 is a prime.
    const Space& space = spaces[i * 7'919 % spaces.size()];
    const Url peer = Url::parse("ws://relay:1/peer").value();
    if (!space.peers.meta->put(peer, "note", Bytes(std::string("x")), std::nullopt)) ++failures;
    waiting = 2;
    space.ops->process_incoming_ops({Bytes(std::string("another"))}, [&](const Result<ProcessedOps>& out) {
      if (!out) ++failures;
      --waiting;
    });
    space.ops->stats([&](const Result<OpStoreStats>&) { --waiting; });
    while (waiting > 0) runtime.run_one();
    waiting = 1;
    space.ops->stats([&](const Result<OpStoreStats>& out) {
      if (!out || out->ops != ops + 1) ++failures;
      --waiting;
    });
    while (waiting > 0) runtime.run_one();
  }
  report("again", spaces.size(), ms_since(began), before);
  run_for(runtime, std::chrono::seconds(2));
  report("rested", spaces.size(), 0, before);
  if (wait > 0) {
    run_for(runtime, std::chrono::seconds(wait));
    report("idle", spaces.size(), 0, before);
  }
  if (failures > 0) std::printf("%zu calls failed, or an op was lost\n", failures);
  spaces.clear();
  began = Clock::now();
  cpu = cpu_ms();
  if (!open_all()) return 1;
  opening_ms = ms_since(began);
  cpu = cpu_ms() - cpu;
  run_for(runtime, std::chrono::seconds(1));
  report("reopened", spaces.size(), opening_ms, before);
  std::printf("         %.2f ms of processor a space\n", cpu / static_cast<double>(count));
  spaces.clear();
  std::filesystem::remove_all(folder);
  return failures > 0 ? 1 : 0;
}
