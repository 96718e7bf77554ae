// Gossip and its DHT model, measured in the same way as bench/peers/rust-gossip measures kitsune2_gossip and
// kitsune2_dht: the same rows, ops and JSON keys. One row a process, one JSON line on stdout.
//
// usage: gossip_bench start N            reading N ops of a memory store into a model
//        gossip_bench stored N           what a stored op costs the model, at N ops
//        gossip_bench round N MISSING    one comparison of two nodes with N ops, of which one lacks MISSING
//        gossip_bench catchup N SIZE     an empty node gets N ops of SIZE bytes from another one
//        gossip_bench contact N          two nodes that hold the same N ops meet for the first time
//        gossip_bench lacking N MISSING BUDGET    the same, but one lacks MISSING of them, and a round names ops of at
//                                        most BUDGET bytes; until it has all, or a day of virtual time has passed
//        gossip_bench insert N [runs]    storing N ops, 4,096 a call, in a file in K2_BENCH_DIR (default: here), beside
//                                        their model; runs: with the index in runs
//        gossip_bench reopen N [runs]    opening what `insert` has left, until there is a model
// With K2_GOSSIP_TIMELESS set all ops are of 1970, as ops without a time are.
#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <type_traits>
#include <variant>
#include <vector>

#include "bench_runtime.hpp"
#include "core/gossip/listing_places.hpp"
#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/kitsune2.hpp"
#include "kitsune2/sqlite_store.hpp"
#include "kitsune2/testing/sim_runtime.hpp"
#include "kitsune2/testing/waiters.hpp"
#include "kitsune2/transport_memory.hpp"
#include "node/gossip/dht_keeper.hpp"
#include "process.hpp"

using namespace kitsune2;
using namespace kitsune2::bench;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

Timestamp wall_now() {
  return {std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
              .count()};
}

/// splitmix64, as in the counterpart, so that both have the same ops.
std::uint64_t mix(std::uint64_t z) {
  z += 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

/// Half an hour to 30 days.
Duration age_of(std::uint64_t number) {
  return std::chrono::microseconds(1'800'000'000U + mix(number ^ 0xa9e) % (std::uint64_t{30} * 24 * 3'600'000'000U));
}

/// Whether all ops are of 1970.
bool is_timeless() {
  static const bool is = std::getenv("K2_GOSSIP_TIMELESS") != nullptr;
  return is;
}

/// Op `number` in the form of the stock test ops: JSON with an array of numbers.
Bytes op_of(std::uint64_t number, Timestamp now, std::size_t size) {
  const Timestamp created_at = is_timeless() ? Timestamp{0} : now - age_of(number);
  std::string json = "{\"created_at\":" + std::to_string(created_at.micros) + ",\"op_data\":[";
  for (std::size_t i = 0; i < std::max<std::size_t>(size, 32); ++i) {
    const std::uint64_t byte = i < 32 ? mix(4 * number + i / 8) >> (i % 8 * 8) & 255U : '.';
    if (i != 0) json += ',';
    json += std::to_string(byte);
  }
  return Bytes(json + "]}");
}

class Line {
 public:
  explicit Line(const std::string& row) { out_ << "{\"row\":\"" << row << '"'; }
  template <class T>
  Line& number(const char* key, T value) {
    out_ << ",\"" << key << "\":" << value;
    return *this;
  }
  ~Line() { std::cout << out_.str() << "}" << std::endl; }

 private:
  std::ostringstream out_;
};

// ---------------------------------------------------------------- a store and its model

struct Held {
  explicit Held(Timestamp at) : now(at), store(make_memory_op_store(runtime, make_memory_op_policy())) {}
  /// A durable one.
  Held(Timestamp at, const std::string& path, bool in_runs) : now(at) {
    SqliteOpStoreOptions options;
    options.index_in_runs = in_runs;
    store = must(open_sqlite_op_store(runtime, make_memory_op_policy(), SpaceId::from_text("bench"), path, options));
  }
  void put(std::uint64_t first, std::uint64_t end) {
    for (; first < end; first += 4'096) {
      std::vector<Bytes> ops;
      for (std::uint64_t i = first; i < std::min(end, first + 4'096); ++i) ops.push_back(op_of(i, now, 32));
      bool done = false;
      store->process_incoming_ops(std::move(ops), [&](const Result<ProcessedOps>& r) {
        if (!r) fail(r.error().to_string());
        done = true;
      });
      runtime.run_until(done);
    }
  }
  /// Ops of 80 bytes with the ids and times that `op_of` gives, described as fetch does.
  void put_described(std::uint64_t first, std::uint64_t end) {
    const Bytes data = Bytes::copy_of(std::string(80, '.'));
    for (; first < end; first += 4'096) {
      std::vector<std::pair<OpDescription, Bytes>> ops;
      for (std::uint64_t i = first; i < std::min(end, first + 4'096); ++i) {
        std::uint8_t id[32];
        for (std::size_t k = 0; k < 32; ++k) id[k] = static_cast<std::uint8_t>(mix(4 * i + k / 8) >> (k % 8 * 8));
        ops.emplace_back(OpDescription{OpId(ByteView(id)), now - age_of(i)}, data);
      }
      bool done = false;
      store->store_described_ops(std::move(ops), [&](const Result<ProcessedOps>& r) {
        if (!r) fail(r.error().to_string());
        done = true;
      });
      runtime.run_until(done);
    }
  }
  void read() {
    keeper = std::make_shared<DhtKeeper>(runtime, store);
    keeper->start();
    while (keeper->model() == nullptr) runtime.run_one();
  }
  OpPage page(OpListQuery query) {
    bool done = false;
    OpPage out;
    store->list_ops(std::move(query), [&](Result<OpPage> r) {
      out = must(std::move(r));
      done = true;
    });
    runtime.run_until(done);
    return out;
  }
  /// Reads the ids of the slices, as gossip does.
  std::size_t list(const std::vector<dht::SliceRef>& slices) {
    std::size_t out = 0;
    gossip::ListingPlaces places;
    for (const auto& piece : places.order(Url::parse("ws://r:1/p").value(), slices, 0)) {
      OpListQuery query;
      query.arc = piece.sectors.hull();
      query.start = piece.start;
      query.end = piece.end;
      query.limit = 4'096;
      do {
        const OpPage found = page(query);
        for (const OpRecord& op : found.ops) out += piece.sectors.contains(op.location) ? 1 : 0;
        query.after = found.next;
      } while (query.after);
    }
    return out;
  }

  Timestamp now;
  BenchRuntime runtime;
  std::shared_ptr<OpStore> store;
  std::shared_ptr<DhtKeeper> keeper;
};

std::size_t count_all(const auto& maps) {
  std::size_t out = 0;
  for (const auto& [key, inner] : maps) out += inner.size();
  return out;
}
struct CountHashes {
  std::size_t operator()(const dht::MinimalSnapshot& s) const { return 1 + s.ring_top_hashes.size(); }
  std::size_t operator()(const dht::DiscSectorsSnapshot& s) const { return s.sectors.size(); }
  std::size_t operator()(const dht::DiscSectorDetailsSnapshot& s) const { return count_all(s.sectors); }
  std::size_t operator()(const dht::RingSectorDetailsSnapshot& s) const { return count_all(s.rings); }
};
/// What a snapshot takes in messages, about: 34 bytes for a hash, 3 for an index.
std::size_t size_of(const dht::Snapshot& snapshot) { return 37 * std::visit(CountHashes(), snapshot); }

struct Compared {
  std::size_t bytes = 0, ids = 0;
};

/// One comparison from ACCEPT to the last word.
Compared compare(Held& a, Held& b) {
  SectorSet all;
  all.add(DhtArc::full());
  dht::Snapshot theirs = b.keeper->model()->minimal(all);
  Compared out{size_of(theirs), 0};
  std::optional<dht::Snapshot> mine[2];
  for (int turn = 0;; ++turn) {
    Held& held = turn % 2 == 0 ? a : b;
    auto next = must(held.keeper->model()->handle(theirs, mine[turn % 2], all));
    std::optional<dht::Snapshot> snapshot;
    std::vector<dht::SliceRef> slices;
    if (auto* send = std::get_if<dht::SendSnapshot>(&next)) {
      snapshot = std::move(send->snapshot);
    } else if (auto* both = std::get_if<dht::SendSnapshotAndIds>(&next)) {
      snapshot = std::move(both->snapshot);
      slices = std::move(both->slices);
    } else if (auto* ids = std::get_if<dht::SendIds>(&next)) {
      slices = std::move(ids->slices);
    }
    const std::size_t named = held.list(slices);
    out.ids += named;
    out.bytes += 34 * named + (snapshot ? size_of(*snapshot) : 0);
    if (!snapshot) return out;
    mine[turn % 2] = theirs = std::move(*snapshot);
  }
}

// ---------------------------------------------------------------- whole nodes

std::atomic<std::uint64_t> g_sent{0};

class CountingBackend final : public TransportBackend {
 public:
  explicit CountingBackend(std::unique_ptr<TransportBackend> inner) : inner_(std::move(inner)) {}
  void start(TransportEvents& events) override { inner_->start(events); }
  std::optional<Url> url() const override { return inner_->url(); }
  void send(const Url& peer, ByteChain message, Handler<> done) override {
    g_sent += message.size();
    inner_->send(peer, std::move(message), std::move(done));
  }
  void disconnect(const Url& peer, const CloseReason& reason, Bytes message) override {
    inner_->disconnect(peer, reason, std::move(message));
  }
  TransportStats stats() const override { return inner_->stats(); }
  void stop(std::function<void()> done) override { inner_->stop(std::move(done)); }

 private:
  const std::unique_ptr<TransportBackend> inner_;
};

struct App final : KitsuneHandler {
  Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId&) override {
    return std::make_shared<SpaceHandler>();
  }
};

Builder builder_of(const std::shared_ptr<MemoryNetwork>& network, const std::string& name) {
  auto builder = default_test_builder(network, name, make_memory_op_policy());
  builder.gossip = make_k2_gossip;
  builder.transport = [make = builder.transport](Runtime& runtime,
                                                 const Config& config) -> Result<std::unique_ptr<TransportBackend>> {
    auto made = make(runtime, config);
    if (!made) return made;
    return std::make_unique<CountingBackend>(std::move(*made));
  };
  return builder;
}

class Node {
 public:
  Node(const std::shared_ptr<MemoryNetwork>& network, const std::string& name) {
    runtime_.start();
    on([&] {
      kitsune_ = must(builder_of(network, name).build(runtime_));
      must(kitsune_->register_handler(std::make_shared<App>()));
    });
    space_ = wait<std::shared_ptr<Space>>(
        [&](auto done) { kitsune_->space(SpaceId::from_text("bench-gossip"), std::move(done)); });
  }
  ~Node() {
    wait<void>([&](auto done) { kitsune_->stop([done] { done(Result<void>()); }); });
    on([&] {
      space_.reset();
      kitsune_.reset();
    });
    runtime_.stop();
  }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  template <class F>
  void on(F f) {
    if (!runtime_.call(f)) fail("the runtime has ended");
  }
  /// Runs `start(done)` on the strand and waits for its result.
  template <class T, class F>
  T wait(F start) {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<Result<T>> result;
    on([&] {
      start([&](Result<T> r) {
        const std::lock_guard lock(mutex);
        result = std::move(r);
        changed.notify_all();
      });
    });
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return result.has_value(); });
    if constexpr (std::is_void_v<T>) {
      must(*result);
    } else {
      return must(std::move(*result));
    }
  }
  void put(std::uint64_t count, std::size_t size) {
    const Timestamp now = wall_now();
    for (std::uint64_t first = 0; first < count; first += 4'096) {
      std::vector<Bytes> ops;
      for (std::uint64_t i = first; i < std::min(count, first + 4'096); ++i) ops.push_back(op_of(i, now, size));
      wait<ProcessedOps>([&](auto done) { space_->op_store().process_incoming_ops(std::move(ops), std::move(done)); });
    }
  }
  void join() {
    wait<void>([&](auto done) { space_->local_agent_join(Ed25519LocalAgent::generate(), std::move(done)); });
  }
  /// At once, whenever the bootstrap would have told of it.
  void knows(Node& other) {
    std::vector<AgentInfoPtr> infos;
    while (infos.empty()) other.on([&] { infos = other.space_->peer_store().get_all(); });
    on([&] { space_->peer_store().insert(infos); });
  }
  std::uint64_t held() {
    return wait<OpStoreStats>([&](auto done) { space_->op_store().stats(std::move(done)); }).ops;
  }

 private:
  AsioRuntime runtime_;
  std::shared_ptr<Kitsune> kitsune_;
  std::shared_ptr<Space> space_;
};

void catch_up(std::uint64_t n, std::size_t size) {
  const auto network = MemoryNetwork::create();
  Node a(network, "a"), b(network, "b");
  a.put(n, size);
  a.join();
  g_sent = 0;
  const auto start = Clock::now();
  const double before = usage().cpu_s;
  b.join();
  a.knows(b);
  b.knows(a);
  std::uint64_t held = 0;
  while (held < n && seconds_since(start) < 300) {
    std::this_thread::sleep_for(2ms);
    held = b.held();
  }
  Line("catchup")
      .number("n", n)
      .number("size", size)
      .number("s", seconds_since(start))
      .number("cpu_s", usage().cpu_s - before)
      .number("bytes", g_sent.load())
      .number("held", held);
}

/// Two nodes in virtual time, of which the second one lacks `missing` of N ops, at even distances in the order in which
/// the first one has stored them. They were stored an hour
/// before the two meet: otherwise both ask for all of them as new.
class Meeting {
 public:
  Meeting(std::uint64_t n, std::uint64_t missing, std::uint32_t budget) {
    for (const bool is_first : {true, false}) {
      Side& side = sides_[is_first ? 0 : 1];
      side.runtime = world_.make_runtime();
      auto builder = builder_of(network_, is_first ? "a" : "b");
      if (budget != 0) builder.config.k2_gossip.max_request_gossip_op_bytes = budget;
      side.kitsune = must(builder.build(*side.runtime));
      must(side.kitsune->register_handler(std::make_shared<App>()));
      world_.run_ready();
      side.space = must(testing::await<std::shared_ptr<Space>>(
          world_, [&](auto done) { side.kitsune->space(SpaceId::from_text("bench-gossip"), std::move(done)); }));
      const Timestamp now = side.runtime->wall_now();
      for (std::uint64_t first = 0; first < n; first += 4'096) {
        std::vector<Bytes> ops;
        for (std::uint64_t i = first; i < std::min(n, first + 4'096); ++i) {
          const bool is_lacked = !is_first && missing > 0 && (i + 1) % (n / missing) == 0;
          if (!is_lacked) ops.push_back(op_of(i, now, 32));
        }
        must(testing::await<ProcessedOps>(
            world_, [&](auto done) { side.space->op_store().process_incoming_ops(std::move(ops), std::move(done)); }));
      }
    }
    world_.run_for(1h);
    g_sent = 0;
    before_ = usage().cpu_s;
    for (Side& side : sides_) {
      must(testing::await<void>(
          world_, [&](auto done) { side.space->local_agent_join(Ed25519LocalAgent::generate(), std::move(done)); }));
    }
    start_ = world_.now();
  }
  std::uint64_t of_both(std::uint64_t GossipStats::*what) {
    return sides_[0].space->gossip().stats().*what + sides_[1].space->gossip().stats().*what;
  }
  std::uint64_t held() {
    return must(testing::await<OpStoreStats>(world_,
                                             [&](auto done) { sides_[1].space->op_store().stats(std::move(done)); }))
        .ops;
  }
  template <class F>
  void run_until(F done, Duration limit) {
    world_.run_until(done, limit);
  }
  void print(Line& line) {
    line.number("virtual_s", std::chrono::duration<double>(world_.now() - start_).count())
        .number("cpu_s", usage().cpu_s - before_)
        .number("bytes", g_sent.load())
        .number("rounds", of_both(&GossipStats::completed) / 2)
        .number("named", of_both(&GossipStats::ops_named));
  }

 private:
  testing::SimWorld world_{1};
  std::shared_ptr<MemoryNetwork> network_ = MemoryNetwork::create();
  struct Side {
    std::unique_ptr<testing::SimRuntime> runtime;
    std::shared_ptr<Kitsune> kitsune;
    std::shared_ptr<Space> space;
  };
  std::array<Side, 2> sides_;
  double before_ = 0;
  Time start_;
};

void contact(std::uint64_t n) {
  Meeting both(n, 0, 0);
  both.run_until([&] { return both.of_both(&GossipStats::completed) >= 2; }, 10min);
  Line line("contact");
  line.number("n", n);
  both.print(line);
}

void lacking(std::uint64_t n, std::uint64_t missing, std::uint32_t budget) {
  Meeting both(n, missing, budget);
  for (int minute = 0; minute < 24 * 60 && both.held() < n; ++minute) both.run_until([] { return false; }, 1min);
  Line line("lacking");
  line.number("n", n).number("missing", missing).number("budget", budget).number("held", both.held());
  both.print(line);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.size() < 2) fail("usage: gossip_bench start|stored|round|catchup|contact|lacking|insert|reopen N …");
  const std::string& row = args[0];
  const std::uint64_t n = std::stoull(args[1]), more = args.size() > 2 && args[2] != "runs" ? std::stoull(args[2]) : 0;
  const Timestamp now = wall_now();
  if (row == "start") {
    Held held(now);
    held.put(0, n);
    const std::uint64_t memory = anonymous_bytes();
    const auto start = Clock::now();
    const double before = usage().cpu_s;
    held.read();
    Line("start")
        .number("n", n)
        .number("s", seconds_since(start))
        .number("cpu_s", usage().cpu_s - before)
        .number("model_bytes", anonymous_bytes() - memory);
  } else if (row == "stored") {
    // The last ops are added to a model of the others, as the keeper does when the store tells of them.
    const std::uint64_t count = std::clamp<std::uint64_t>(n / 10, 1, 100'000);
    Held held(now);
    held.put(0, n + count);
    std::vector<OpRecord> ops;
    OpListQuery query;
    query.limit = 4'096;
    do {
      OpPage page = held.page(query);
      ops.insert(ops.end(), page.ops.begin(), page.ops.end());
      query.after = page.next;
    } while (query.after);
    std::sort(ops.begin(), ops.end(), [](const OpRecord& a, const OpRecord& b) { return a.op_id < b.op_id; });
    dht::DhtModel model(now);
    double before = 0;
    for (std::size_t i = 0; i < ops.size(); ++i) {
      if (i == n) before = usage().cpu_s;
      must(model.add(ops[i].location, ops[i].created_at, ops[i].op_id.view()));
    }
    const double cost = usage().cpu_s - before;
    Line("stored").number("n", n).number("cpu_us_an_op", 1e6 * cost / static_cast<double>(count));
  } else if (row == "round") {
    Held a(now), b(now);
    a.put(0, n);
    b.put(more, n);
    a.read();
    b.read();
    const int reps = more == 0 ? 10'000 : 30;
    Compared out;
    const double before = usage().cpu_s;
    for (int i = 0; i < reps; ++i) out = compare(a, b);
    Line("round")
        .number("n", n)
        .number("missing", more)
        .number("cpu_s", (usage().cpu_s - before) / reps)
        .number("bytes", out.bytes)
        .number("ids", out.ids);
  } else if (row == "insert" || row == "reopen") {
    const bool in_runs = args.size() > 2 && args[2] == "runs";
    const char* folder = std::getenv("K2_BENCH_DIR");
    const std::string path = std::string(folder != nullptr ? folder : ".") + "/gossip_bench.db";
    if (row == "insert") {
      for (const char* suffix : {"", "-wal", "-shm", "-data", "-lock"}) std::filesystem::remove(path + suffix);
      Held held(now, path, in_runs);
      held.read();
      const double before = usage().cpu_s;
      held.put_described(0, n);
      Line("insert").number("n", n).number("cpu_us_an_op", 1e6 * (usage().cpu_s - before) / static_cast<double>(n));
    } else {
      const std::uint64_t memory = anonymous_bytes();
      const auto start = Clock::now();
      const double before = usage().cpu_s;
      Held held(now, path, in_runs);
      const double opened = seconds_since(start);
      held.read();
      if (held.keeper->model()->op_count() != n) fail("another number of ops");
      Line("reopen")
          .number("n", n)
          .number("open_s", opened)
          .number("s", seconds_since(start))
          .number("cpu_s", usage().cpu_s - before)
          .number("bytes", anonymous_bytes() - memory);
    }
  } else if (row == "catchup") {
    catch_up(n, more == 0 ? 1'024 : more);
  } else if (row == "contact") {
    contact(n);
  } else if (row == "lacking") {
    lacking(n, more, args.size() > 3 ? static_cast<std::uint32_t>(std::stoul(args[3])) : 0);
  } else {
    fail("no row " + row);
  }
  return 0;
}
