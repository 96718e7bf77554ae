// Load for a relay of dialect 0.5, ours or the stock one, which runs in another process: clients that idle, and pairs
// of which one sends batches of datagrams and the other takes them. Prints the CPU time and the memory of that process.
// usage: iroh_relay_load idle HOST:PORT PID CLIENTS SECONDS
//        iroh_relay_load forward HOST:PORT PID BATCH_BYTES SECONDS [BATCHES_PER_SECOND]
// Without a rate, 256 KiB of each pair are under way at all times. `idle` needs as many descriptors as clients.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "support/endpoint_client.hpp"

namespace kitsune2 {
namespace {

using Clock = std::chrono::steady_clock;
using test::fail;
using Client = test::EndpointClient;
using Loop = test::ClientLoop;

constexpr std::size_t kSegment = 1200, kPairs = 4, kUnderWay = 256U << 10;

double cpu_seconds(int pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text{std::istreambuf_iterator<char>(file), {}};
  std::istringstream rest(text.substr(text.rfind(')') + 2));
  std::vector<std::string> fields;
  for (std::string field; rest >> field;) fields.push_back(field);
  if (fields.size() < 13) fail("no process " + std::to_string(pid));
  return (std::stod(fields[11]) + std::stod(fields[12])) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double resident_mib(int pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/statm");
  double all = 0, resident = 0;
  file >> all >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

void connect(Loop& loop, std::vector<std::unique_ptr<Client>>& clients, std::size_t count, const sockaddr_in& server) {
  const auto nothing = [](const std::uint8_t*, std::size_t) {};
  std::size_t ready = 0;
  while (ready < count) {
    while (clients.size() < count && clients.size() < ready + 64) {
      const auto number = static_cast<std::uint32_t>(clients.size());
      // A thousand clients of each address, so that no limit on an address counts.
      clients.push_back(std::make_unique<Client>(number, server, 0x7f000001U + number / 1000));
      loop.add(*clients.back());
    }
    loop.turn(100, [&](Client& client) {
      const bool before = client.ready();
      client.receive(nothing);
      if (!client.ended().empty()) fail(client.ended());
      ready += client.ready() && !before ? 1U : 0U;
    });
  }
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

int idle(const sockaddr_in& server, int pid, std::size_t count, double seconds) {
  const double memory = resident_mib(pid), cpu = cpu_seconds(pid);
  const auto start = Clock::now();
  Loop loop;
  std::vector<std::unique_ptr<Client>> clients;
  connect(loop, clients, count, server);
  const double connected = seconds_since(start), cpu_connected = cpu_seconds(pid);
  const auto then = Clock::now();
  while (seconds_since(then) < seconds) {
    loop.turn(100, [](Client& client) { client.receive([](const std::uint8_t*, std::size_t) {}); });
  }
  const double now = resident_mib(pid);
  std::printf(
      "%zu clients connected in %.1f s, %.2f CPU s; resident %.1f -> %.1f MiB, %.2f KiB a client; idle: %.2f %% CPU\n",
      count, connected, cpu_connected - cpu, memory, now, (now - memory) * 1024 / static_cast<double>(count),
      (cpu_seconds(pid) - cpu_connected) / seconds * 100);
  return 0;
}

int forward(const sockaddr_in& server, int pid, std::size_t bytes, double seconds, double rate) {
  Loop loop;
  std::vector<std::unique_ptr<Client>> clients;
  connect(loop, clients, 2 * kPairs, server);
  std::vector<std::vector<std::uint8_t>> frames;  // one for each pair: 5, key, ECN, segment size, contents
  for (std::size_t i = 0; i < kPairs; ++i) {
    std::vector<std::uint8_t> frame(36 + bytes, static_cast<std::uint8_t>(i));
    frame[0] = 5;
    std::copy(clients[2 * i + 1]->id().begin(), clients[2 * i + 1]->id().end(), frame.begin() + 1);
    frame[33] = 0;
    frame[34] = kSegment >> 8;
    frame[35] = kSegment & 0xffU;
    frames.push_back(std::move(frame));
  }
  std::size_t sent[kPairs] = {}, got[kPairs] = {};
  std::vector<double> delays;
  const auto start = Clock::now();
  const double cpu = cpu_seconds(pid);
  const auto nanos = [&] { return static_cast<std::int64_t>((Clock::now() - start).count()); };
  const auto look = [&](Client& client) {
    client.receive([&](const std::uint8_t* content, std::size_t size) {
      if (size != bytes) return;
      std::int64_t at = 0;
      std::memcpy(&at, content, sizeof at);
      delays.push_back(static_cast<double>(nanos() - at) / 1e3);
      ++got[content[8] % kPairs];
    });
  };
  const auto send = [&](std::size_t pair) {
    const std::int64_t now = nanos();
    std::memcpy(frames[pair].data() + 36, &now, sizeof now);
    frames[pair][36 + 8] = static_cast<std::uint8_t>(pair);
    clients[2 * pair]->send(frames[pair].data(), frames[pair].size());
    ++sent[pair];
  };
  while (seconds_since(start) < seconds) {
    for (std::size_t pair = 0; pair < kPairs; ++pair) {
      if (rate > 0) {
        const auto due = static_cast<std::size_t>(seconds_since(start) * rate / kPairs);
        while (sent[pair] < due) send(pair);
      } else {
        while ((sent[pair] - got[pair]) * bytes < kUnderWay && clients[2 * pair]->queued() == 0) send(pair);
      }
    }
    loop.turn(rate > 0 ? 1 : 0, look);
  }
  const double spent = cpu_seconds(pid) - cpu, took = seconds_since(start);
  std::size_t all_sent = 0, all_got = 0;
  const auto last = Clock::now();
  for (std::size_t i = 0; i < kPairs; ++i) all_sent += sent[i];
  while (seconds_since(last) < 1) loop.turn(10, look);
  for (std::size_t i = 0; i < kPairs; ++i) all_got += got[i];
  std::sort(delays.begin(), delays.end());
  const auto at = [&](double part) {
    return delays.empty() ? 0 : delays[static_cast<std::size_t>(part * static_cast<double>(delays.size() - 1))] / 1000;
  };
  const double datagrams = static_cast<double>(all_got) * static_cast<double>((bytes + kSegment - 1) / kSegment);
  std::printf(
      "batches of %zu B: %.0f/s, %.0f MB/s, %.0f datagrams a CPU second; delay p50 %.3f ms, p99 %.3f ms; lost %zu of "
      "%zu\n",
      bytes, static_cast<double>(all_got) / took, static_cast<double>(all_got * bytes) / took / 1e6,
      datagrams / std::max(spent, 0.01), at(0.5), at(0.99), all_sent - all_got, all_sent);
  return 0;
}

}  // namespace
}  // namespace kitsune2

int main(int argc, char** argv) {
  using namespace kitsune2;
  if (argc < 6) {
    std::fprintf(stderr, "usage: see the first lines of bench/iroh_relay_load.cpp\n");
    return 2;
  }
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  const std::string mode = argv[1], address = argv[2];
  const sockaddr_in server = test::address_of(address);
  const int pid = std::stoi(argv[3]);
  const std::size_t size = std::stoul(argv[4]);
  const double seconds = std::stod(argv[5]);
  if (mode == "idle") return idle(server, pid, size, seconds);
  return forward(server, pid, size, seconds, argc > 6 ? std::stod(argv[6]) : 0);
}
