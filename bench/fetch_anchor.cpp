// The fetch module, measured in the same way as bench/peers/rust-fetch measures kitsune2_core's: the same scenarios,
// arguments and JSON keys. One process, one run, one line. Both nodes are complete (router, fetch driver, store), over
// a direct transport and with the prefix policy; everything is at its defaults.
//
// usage: fetch_anchor bench=a|b|c|d|e|f n=1000 s=64 [m=… peers=… mode=fail|silent_ok latency_ms=… limit=… prc=…
// runtimes=1|2]
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "core/buffer.hpp"
#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/fetch.hpp"
#include "kitsune2/op_store.hpp"
#include "kitsune2/transport.hpp"

using namespace kitsune2;
using Clock = std::chrono::steady_clock;

namespace {

// ---------------------------------------------------------------- the process
double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](timeval t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::uint64_t status_kib(const std::string& key) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(key)) return std::stoull(line.substr(key.size()));
  }
  return 0;
}

double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

// ---------------------------------------------------------------- data, as the Rust side makes it
std::uint64_t mix(std::uint64_t z) {
  z += 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

std::array<std::uint8_t, 32> id_bytes(std::uint64_t i) {
  std::array<std::uint8_t, 32> out;
  std::memcpy(out.data(), &i, 8);
  for (std::uint64_t k = 1; k < 4; ++k) {
    const auto z = mix(i * 4 + k);
    std::memcpy(out.data() + 8 * k, &z, 8);
  }
  return out;
}

Bytes payload(std::uint64_t i, std::size_t size) {
  std::vector<std::uint8_t> out(std::max<std::size_t>(size, 32));
  const auto id = id_bytes(i);
  std::copy(id.begin(), id.end(), out.begin());
  std::uint64_t z = i ^ 0xabcdef;
  for (std::size_t at = 32; at < out.size(); at += 8) {
    z = mix(z);
    std::memcpy(out.data() + at, &z, std::min<std::size_t>(8, out.size() - at));
  }
  return Bytes(std::move(out));
}

std::vector<OpId> ids(std::uint64_t base, std::size_t n) {
  std::vector<OpId> out;
  out.reserve(n);
  for (std::uint64_t i = base; i < base + n; ++i) out.emplace_back(ByteView(id_bytes(i)));
  return out;
}

Url url_of(std::uint64_t n) { return Url::parse("ws://bench.invalid:80/n" + std::to_string(n)).value(); }

// ---------------------------------------------------------------- a transport that only passes messages on
struct Bad {
  bool fails = false;  ///< otherwise it accepts requests and never answers
  std::chrono::milliseconds fail_after{1000};
};

class DirectBackend;
std::mutex g_mutex;
std::unordered_map<Url, DirectBackend*> g_nodes;

class DirectBackend : public TransportBackend {
 public:
  DirectBackend(Runtime& runtime, Url own, std::unordered_map<Url, Bad> bad, std::chrono::milliseconds latency)
      : runtime_(runtime), own_(std::move(own)), bad_(std::move(bad)), latency_(latency) {}

  void start(TransportEvents& events) override {
    events_ = &events;
    const std::lock_guard lock(g_mutex);
    g_nodes[own_] = this;
  }
  std::optional<Url> url() const override { return own_; }

  void send(const Url& peer, ByteChain message, Handler<> done) override {
    if (auto it = bad_.find(peer); it != bad_.end()) {
      if (!it->second.fails) return runtime_.post([done] { done(Result<void>()); });
      runtime_.schedule_after(it->second.fail_after,
                              [done] { done(make_error(Errc::peer_unresponsive, "bench: fails")); });
      return;
    }
    const std::lock_guard lock(g_mutex);
    const auto node = g_nodes.find(peer);
    if (node == g_nodes.end()) {
      return runtime_.post([done] { done(make_error(Errc::peer_unresponsive, "bench: nobody")); });
    }
    bytes_ += message.size();
    ++messages_;
    auto* target = node->second;
    auto deliver = [target, from = own_, message = message.joined()] {
      if (auto r = target->events_->recv_data(from, message); !r) std::cerr << r.error().to_string() << '\n';
    };
    if (latency_.count() == 0) {
      target->runtime_.post(std::move(deliver));
    } else {
      target->runtime_.post(
          [target, d = latency_, deliver = std::move(deliver)] { target->runtime_.schedule_after(d, deliver); });
    }
    runtime_.post([done = std::move(done)] { done(Result<void>()); });
  }
  void disconnect(const Url&, const CloseReason&, Bytes) override {}
  TransportStats stats() const override { return {}; }
  void stop(std::function<void()> done) override { runtime_.post(std::move(done)); }

  std::uint64_t bytes_ = 0, messages_ = 0;

 private:
  Runtime& runtime_;
  Url own_;
  std::unordered_map<Url, Bad> bad_;
  std::chrono::milliseconds latency_;
  TransportEvents* events_ = nullptr;
};

// ---------------------------------------------------------------- options and nodes
struct Options {
  std::map<std::string, std::string> kv;
  std::uint64_t num(const std::string& key, std::uint64_t fallback) const {
    const auto it = kv.find(key);
    return it == kv.end() ? fallback : std::stoull(it->second);
  }
  std::string text(const std::string& key, const std::string& fallback) const {
    const auto it = kv.find(key);
    return it == kv.end() ? fallback : it->second;
  }
};

/// Modules must be used on the strand; this waits for a call there.
template <class F>
void on(AsioRuntime& runtime, F f) {
  if (!runtime.call(f)) std::abort();
}

struct BenchNode {
  AsioRuntime& runtime;
  Url url;
  DirectBackend* backend = nullptr;
  std::shared_ptr<OpStore> store;
  std::shared_ptr<Transport> transport;
  std::shared_ptr<Fetch> fetch;

  BenchNode(AsioRuntime& rt, const Options& o, std::uint64_t number, std::unordered_map<Url, Bad> bad)
      : runtime(rt), url(url_of(number)) {
    on(runtime, [&] {
      auto direct = std::make_unique<DirectBackend>(runtime, url, std::move(bad),
                                                    std::chrono::milliseconds(o.num("latency_ms", 0)));
      backend = direct.get();
      store = make_memory_op_store(runtime, make_prefix_policy());
      transport = make_transport(runtime, std::move(direct), nullptr);
      CoreFetchConfig config;
      config.parallel_request_count = o.num("prc", config.parallel_request_count);
      fetch = make_core_fetch(runtime, config, SpaceId::from_text("benchfetch-space"), store, transport).value();
    });
  }

  void preload(std::uint64_t base, std::size_t n, std::size_t size) {
    for (std::size_t at = 0; at < n; at += 10'000) {
      std::vector<Bytes> ops;
      for (std::size_t i = at; i < std::min(n, at + 10'000); ++i) ops.push_back(payload(base + i, size));
      wait_for([&](auto done) {
        store->process_incoming_ops(std::move(ops), [done](Result<ProcessedOps> r) {
          if (!r) std::abort();
          done();
        });
      });
    }
  }

  /// Runs `start(done)` on the strand and blocks until `done` was called.
  template <class F>
  void wait_for(F start) {
    std::mutex mutex;
    std::condition_variable changed;
    bool over = false;
    on(runtime, [&] {
      start([&] {
        const std::lock_guard lock(mutex);
        over = true;
        changed.notify_all();
      });
    });
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return over; });
  }

  void request(std::vector<OpId> want, const Url& from) {
    wait_for([&](auto done) {
      fetch->request_ops(std::move(want), from, [done](Result<void> r) {
        if (!r) std::cerr << r.error().to_string() << '\n';
        done();
      });
    });
  }
};

/// Reports when `n` ops have been stored: counted on the strand, in the fetch module's own event.
struct Arrivals {
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t base = 0, target = 0, seen = 0;
  std::atomic<bool> done{false};
  Clock::time_point at;
  double cpu = 0;
  std::shared_ptr<void> subscription;

  void watch(BenchNode& node, std::uint64_t first, std::uint64_t n) {
    base = first;
    target = n;
    on(node.runtime, [&] {
      FetchEvents events;
      events.ops_stored = [this](const Url&, const std::vector<StoredOp>& ops, std::uint64_t) {
        for (const auto& op : ops) {
          std::uint64_t index = 0;
          std::memcpy(&index, op.op_id.view().data(), 8);
          if (index >= base && index < base + target) ++seen;
        }
        if (seen == target && !done) {
          at = Clock::now();
          cpu = cpu_seconds();
          const std::lock_guard lock(mutex);
          done = true;
          changed.notify_all();
        }
      };
      subscription = node.fetch->subscribe(std::move(events));
    });
  }
  bool wait(double limit) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::duration<double>(limit), [&] { return done.load(); });
  }
};

// ---------------------------------------------------------------- the line
class Line {
 public:
  explicit Line(const Options& o) {
    text("impl", "kitsune2-cpp");
    text("bench", o.text("bench", "a"));
    number("rep", o.num("rep", 1));
  }
  void text(const std::string& key, const std::string& value) { put(key, '"' + value + '"'); }
  template <class T>
  void number(const std::string& key, T value) {
    std::ostringstream out;
    out.precision(9);
    out << value;
    put(key, out.str());
  }
  void print() const { std::cout << '{' << out_ << "}" << std::endl; }

 private:
  void put(const std::string& key, const std::string& value) {
    if (!out_.empty()) out_ += ',';
    out_ += '"' + key + "\":" + value;
  }
  std::string out_;
};

struct Measured {
  Clock::time_point t0 = Clock::now();
  double cpu0 = cpu_seconds();
  std::uint64_t rss0 = status_kib("VmRSS:");

  void finish(Line& line, Arrivals& arrivals, std::uint64_t n, double limit) {
    const bool complete = arrivals.wait(limit);
    const double wall = complete ? std::chrono::duration<double>(arrivals.at - t0).count() : seconds_since(t0);
    const double cpu = (complete ? arrivals.cpu : cpu_seconds()) - cpu0;
    line.number("complete", complete ? 1 : 0);
    line.number("stored", arrivals.seen);
    line.number("wall_s", wall);
    line.number("cpu_s", cpu);
    line.number("ops_per_s", static_cast<double>(arrivals.seen) / wall);
    line.number("cpu_us_per_op", cpu * 1e6 / static_cast<double>(n));
    line.number("rss_start_kib", rss0);
    line.number("rss_peak_kib", status_kib("VmHWM:"));
  }
};

/// A thread for each side, or (runtimes=1) one for both.
struct World {
  AsioRuntime ra, other;
  AsioRuntime& rb;
  explicit World(const Options& o) : rb(o.num("runtimes", 2) == 1 ? ra : other) {
    ra.start();
    other.start();
  }
};

/// a: n ops of s bytes from one peer.
void bench_a(const Options& o, World& w, Line& line) {
  const auto n = o.num("n", 1000), s = o.num("s", 64);
  line.number("n", n);
  line.number("s", s);
  BenchNode b(w.rb, o, 900'001, {}), a(w.ra, o, 900'002, {});
  b.preload(0, n, s);
  auto want = ids(0, n);
  Arrivals arrivals;
  arrivals.watch(a, 0, n);
  Measured m;
  a.request(std::move(want), b.url);
  m.finish(line, arrivals, n, o.num("limit", 120));
}

/// b: m pending pairs to a peer that accepts requests and never answers, then n ops from a good peer.
void bench_b(const Options& o, World& w, Line& line) {
  const auto n = o.num("n", 500), s = o.num("s", 64), pending = o.num("m", 10'000);
  line.number("n", n);
  line.number("s", s);
  line.number("pending", pending);
  const auto silent = url_of(800'000);
  BenchNode b(w.rb, o, 900'001, {}), a(w.ra, o, 900'002, {{silent, Bad{}}});
  b.preload(10'000'000, n, s);
  if (pending != 0) a.request(ids(0, pending), silent);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  auto want = ids(10'000'000, n);
  Arrivals arrivals;
  arrivals.watch(a, 10'000'000, n);
  Measured m;
  a.request(std::move(want), b.url);
  m.finish(line, arrivals, n, o.num("limit", 120));
}

/// c: m pairs over `peers` bad peers, then n ops from a good one.
void bench_c(const Options& o, World& w, Line& line) {
  const auto n = o.num("n", 100), s = o.num("s", 64), m = o.num("m", 10'000), peers = o.num("peers", 5);
  const auto mode = o.text("mode", "fail");
  line.number("n", n);
  line.number("s", s);
  line.number("m", m);
  line.number("bad_peers", peers);
  line.text("mode", mode);
  std::unordered_map<Url, Bad> bad;
  for (std::uint64_t i = 0; i < peers; ++i) bad[url_of(800'000 + i)] = Bad{mode == "fail"};
  BenchNode b(w.rb, o, 900'001, {}), a(w.ra, o, 900'002, bad);
  b.preload(10'000'000, n, s);
  for (std::uint64_t i = 0; i < peers && m != 0; ++i) a.request(ids(i * (m / peers), m / peers), url_of(800'000 + i));
  auto want = ids(10'000'000, n);
  Arrivals arrivals;
  arrivals.watch(a, 10'000'000, n);
  Measured measured;
  a.request(std::move(want), b.url);
  measured.finish(line, arrivals, n, o.num("limit", 120));
}

/// d: the same n ops offered by `peers` peers; dead=1: the first of them never answers.
void bench_d(const Options& o, World& w, Line& line) {
  const auto n = o.num("n", 1000), s = o.num("s", 1024), peers = o.num("peers", 8), dead = o.num("dead", 0);
  line.number("n", n);
  line.number("s", s);
  line.number("peers", peers);
  line.number("dead", dead);
  line.number("latency_ms", o.num("latency_ms", 0));
  std::vector<std::unique_ptr<BenchNode>> sources;
  std::unordered_map<Url, Bad> bad;
  std::vector<Url> urls;
  for (std::uint64_t i = 0; i < peers; ++i) {
    if (i < dead) {
      urls.push_back(url_of(800'000 + i));
      bad[urls.back()] = Bad{};
      continue;
    }
    sources.push_back(std::make_unique<BenchNode>(w.rb, o, 900'100 + i, std::unordered_map<Url, Bad>{}));
    sources.back()->preload(0, n, s);
    urls.push_back(sources.back()->url);
  }
  BenchNode a(w.ra, o, 900'002, bad);
  Arrivals arrivals;
  arrivals.watch(a, 0, n);
  Measured m;
  for (const auto& url : urls) a.request(ids(0, n), url);
  m.finish(line, arrivals, n, o.num("limit", 120));
  std::this_thread::sleep_for(std::chrono::milliseconds(o.num("settle_ms", 3000)));
  std::uint64_t served = 0;
  for (auto& source : sources) {
    on(source->runtime, [&] { served += source->fetch->stats().bytes_served; });
  }
  line.number("served_bytes", served);
  line.number("op_bytes_ratio", static_cast<double>(served) / static_cast<double>(n * std::max<std::uint64_t>(s, 32)));
}

/// e: memory of m pending pairs over `peers` peers that never answer.
void bench_e(const Options& o, World& w, Line& line) {
  const auto m = o.num("m", 100'000), peers = o.num("peers", 1);
  line.number("pairs", m);
  line.number("peers", peers);
  std::unordered_map<Url, Bad> bad;
  for (std::uint64_t i = 0; i < peers; ++i) bad[url_of(800'000 + i)] = Bad{};
  BenchNode a(w.ra, o, 900'002, bad);
  const auto rss0 = status_kib("VmRSS:");
  const double cpu0 = cpu_seconds();
  const auto per = m / peers;
  for (std::uint64_t i = 0; i < peers; ++i) {
    for (std::uint64_t at = 0; at < per; at += 1000) {
      a.request(ids(i * per + at, std::min<std::uint64_t>(1000, per - at)), url_of(800'000 + i));
    }
  }
  std::this_thread::sleep_for(std::chrono::seconds(1));
  const auto rss = status_kib("VmRSS:");
  line.number("rss_start_kib", rss0);
  line.number("rss_growth_kib", rss - rss0);
  line.number("rss_bytes_per_pair", static_cast<double>(rss - rss0) * 1024 / static_cast<double>(m));
  line.number("cpu_s", cpu_seconds() - cpu0);
}

/// f: a lower bound for any fetch of n ops of s bytes: as much new memory, in blocks like those of messages, and one
/// copy into it.
void bench_f(const Options& o, Line& line) {
  const auto n = o.num("n", 100), s = o.num("s", 1U << 20);
  constexpr std::size_t kBlock = 4U << 20;
  const std::vector<std::uint8_t> source(kBlock, 7);
  std::vector<std::shared_ptr<std::uint8_t[]>> kept;
  kept.reserve(n * s / kBlock + 1);
  const double cpu0 = cpu_seconds();
  const auto begin = Clock::now();
  for (std::size_t at = 0; at < n * s; at += kBlock) {
    kept.push_back(make_buffer(kBlock));
    std::memcpy(kept.back().get(), source.data(), std::min<std::size_t>(kBlock, n * s - at));
  }
  const double wall = std::chrono::duration<double>(Clock::now() - begin).count();
  line.number("wall_s", wall);
  line.number("cpu_s", cpu_seconds() - cpu0);
  line.number("ops_per_s", static_cast<double>(n) / wall);
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const auto eq = arg.find('=');
    if (eq == std::string::npos) return std::cerr << "usage: fetch_anchor key=value…\n", 2;
    o.kv[arg.substr(0, eq)] = arg.substr(eq + 1);
  }
  World world(o);
  Line line(o);
  const auto bench = o.text("bench", "a");
  if (bench == "a")
    bench_a(o, world, line);
  else if (bench == "b")
    bench_b(o, world, line);
  else if (bench == "c")
    bench_c(o, world, line);
  else if (bench == "d")
    bench_d(o, world, line);
  else if (bench == "e")
    bench_e(o, world, line);
  else if (bench == "f")
    bench_f(o, line);
  else
    return std::cerr << "no such bench\n", 2;
  line.print();
  std::fflush(stdout);
  ::_exit(0);  // like the Rust side: no teardown of a busy node
}
