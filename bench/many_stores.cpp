// What the stores of many spaces take in one process: threads, descriptors, memory, and time to open.
//
// usage: many_stores SPACES [OPS]: opens the stores of so many spaces, puts OPS ops of 100 bytes into each (100), and
// says what the process has. K2_BENCH_DIR: where.
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

void report(const char* when, std::size_t spaces, double ms, std::uint64_t anonymous_before) {
  const auto n = static_cast<double>(spaces);
  std::printf("%-8s %5zu spaces: %4llu threads, %5zu descriptors (%.1f a space), %6.0f KiB a space, %.2f ms a space\n",
              when, spaces, static_cast<unsigned long long>(bench::status_figure("Threads:")), descriptors(),
              static_cast<double>(descriptors()) / n,
              static_cast<double>(bench::anonymous_bytes() - anonymous_before) / 1024 / n, ms / n);
}

double ms_since(Clock::time_point began) {
  return std::chrono::duration<double, std::milli>(Clock::now() - began).count();
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t count = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100;
  const std::size_t ops = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 100;
  const char* dir = std::getenv("K2_BENCH_DIR");
  const std::string folder = std::string(dir != nullptr ? dir : ".") + "/many_stores";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  bench::BenchRuntime runtime;
  std::vector<Space> spaces;
  const auto before = bench::anonymous_bytes();
  auto began = Clock::now();
  for (std::size_t i = 0; i < count; ++i) {
    const SpaceId id = SpaceId::from_text("space" + std::to_string(i));
    const std::string path = folder + "/" + std::to_string(i);
    auto peers = open_sqlite_peer_stores(runtime, id, path + ".peers.db");
    auto store = open_sqlite_op_store(runtime, make_sha256_policy(), id, path + ".db");
    if (!peers || !store) {
      std::printf("space %zu: %s\n", i, (peers ? store.error() : peers.error()).to_string().c_str());
      break;
    }
    spaces.push_back({std::move(*peers), std::move(*store)});
  }
  if (spaces.empty()) return 1;
  report("opened", spaces.size(), ms_since(began), before);
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
  spaces.clear();
  std::filesystem::remove_all(folder);
  return 0;
}
