// Virtual time: one queue of tasks and timers for all nodes of a world.
#include "kitsune2/testing/sim_runtime.hpp"

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace kitsune2::testing {
namespace {

constexpr std::int64_t kWallStart = 1'767'225'600'000'000;  // 2026-01-01
constexpr std::size_t kMostTasksAtOnce = 10'000'000;

std::uint64_t scramble(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

/// splitmix64: small, with a state of a single number.
struct Random {
  std::uint64_t state;
  std::uint64_t next() { return scramble(state += 0x9E3779B97F4A7C15ULL); }
};

struct Entry {
  std::uint32_t node;
  Task task;
};

}  // namespace

struct SimWorld::State {
  explicit State(std::uint64_t s) : seed(s), random{s} {}

  struct Ready {
    std::uint64_t sequence;
    Entry entry;
  };
  using Key = std::pair<std::int64_t, std::uint64_t>;

  const std::uint64_t seed;
  const std::thread::id owner = std::this_thread::get_id();
  Random random;
  std::atomic<std::int64_t> now{0};
  std::atomic<std::int64_t> wall_offset{kWallStart};
  std::uint64_t next_sequence = 1;
  /// Posted at the present instant, in order. Separate from the timers, because most work is of this kind.
  std::deque<Ready> ready;
  std::map<Key, Entry> timers;
  std::unordered_map<std::uint64_t, std::int64_t> timer_times;  ///< timer id (its sequence) -> its time
  std::uint64_t hash = 0x6b32;
  std::uint64_t tasks = 0;
  std::int64_t instant = 0;
  std::uint64_t tasks_at_instant = 0;
  std::function<void()> after_step;
  std::uint32_t nodes = 0;
  bool over = false;

  std::mutex mutex;
  std::condition_variable arrived;
  std::vector<std::pair<std::uint32_t, Task>> external;  ///< guarded by mutex
  std::vector<bool> dead;                                ///< by node; guarded by mutex

  bool is_dead(std::uint32_t node) {
    const std::lock_guard lock(mutex);
    return over || dead[node];
  }

  void post(std::uint32_t node, Task task) {
    if (std::this_thread::get_id() == owner) {
      if (is_dead(node)) return;
      ready.push_back({next_sequence++, {node, std::move(task)}});
      return;
    }
    {
      const std::lock_guard lock(mutex);
      if (over || dead[node]) return;
      external.emplace_back(node, std::move(task));
    }
    arrived.notify_all();
  }

  void take_external() {
    std::vector<std::pair<std::uint32_t, Task>> taken;
    {
      const std::lock_guard lock(mutex);
      if (external.empty()) return;
      taken.swap(external);
    }
    for (auto& [node, task] : taken) ready.push_back({next_sequence++, {node, std::move(task)}});
  }

  /// Runs the next task by (time, sequence), if its time is at most `limit`.
  bool run_one(std::int64_t limit) {
    take_external();
    Entry entry;
    std::uint64_t sequence = 0;
    const auto timer = timers.begin();
    const bool timer_due = timer != timers.end() && timer->first.first <= limit;
    if (!ready.empty() && (!timer_due || timer->first.first > now || timer->first.second > ready.front().sequence)) {
      sequence = ready.front().sequence;
      entry = std::move(ready.front().entry);
      ready.pop_front();
    } else if (timer_due) {
      sequence = timer->first.second;
      if (timer->first.first > now) now = timer->first.first;
      timer_times.erase(sequence);
      entry = std::move(timer->second);
      timers.erase(timer);
    } else {
      return false;
    }
    ++tasks;
    if (now != instant) {
      instant = now;
      tasks_at_instant = 0;
    }
    if (++tasks_at_instant > kMostTasksAtOnce) {
      std::fprintf(stderr, "SimWorld: work at one instant does not end (seed %llu)\n",
                   static_cast<unsigned long long>(seed));
      std::abort();
    }
    add_trace(static_cast<std::uint64_t>(now.load()));
    add_trace((static_cast<std::uint64_t>(entry.node) << 48) ^ sequence);
    entry.task();
    entry.task = nullptr;  // captures are destroyed before the invariants are checked
    if (after_step) after_step();
    return true;
  }

  void add_trace(std::uint64_t value) { hash = scramble(hash * 0x9E3779B97F4A7C15ULL + value); }

  void drop(std::uint32_t node, bool all) {
    std::vector<Task> doomed;  // their destructors may call this object
    {
      const std::lock_guard lock(mutex);
      if (all) over = true;
      for (std::size_t i = 0; i < dead.size(); ++i) {
        if (all || i == node) dead[i] = true;
      }
      std::erase_if(external, [&](auto& item) {
        if (!all && item.first != node) return false;
        doomed.push_back(std::move(item.second));
        return true;
      });
    }
    std::erase_if(ready, [&](Ready& item) {
      if (!all && item.entry.node != node) return false;
      doomed.push_back(std::move(item.entry.task));
      return true;
    });
    for (auto it = timers.begin(); it != timers.end();) {
      if (!all && it->second.node != node) {
        ++it;
        continue;
      }
      doomed.push_back(std::move(it->second.task));
      timer_times.erase(it->first.second);
      it = timers.erase(it);
    }
  }
};

struct SimRuntime::Impl {
  std::shared_ptr<SimWorld::State> world;
  std::uint32_t index;
  std::atomic<std::int64_t> skew{0};
  std::mutex random_mutex;
  Random random;
};

SimWorld::SimWorld(std::uint64_t seed) : state_(std::make_shared<State>(seed)) {}
SimWorld::~SimWorld() { state_->drop(0, true); }

std::unique_ptr<SimRuntime> SimWorld::make_runtime() {
  const auto index = state_->nodes++;
  {
    const std::lock_guard lock(state_->mutex);
    state_->dead.push_back(false);
  }
  return std::unique_ptr<SimRuntime>(new SimRuntime(state_, index, scramble(state_->seed + 1) ^ scramble(index + 1)));
}

Time SimWorld::now() const { return Time(Duration(state_->now.load())); }

void SimWorld::set_wall_now(Timestamp now) { state_->wall_offset = now.micros - state_->now.load(); }

bool SimWorld::step() { return state_->run_one(Time::max().time_since_epoch().count()); }

std::size_t SimWorld::run_ready() {
  std::size_t count = 0;
  while (state_->run_one(state_->now)) ++count;
  return count;
}

void SimWorld::run_until(Time t) {
  const auto limit = t.time_since_epoch().count();
  while (state_->run_one(limit)) {
  }
  if (limit > state_->now) state_->now = limit;
}

bool SimWorld::run_until(const std::function<bool()>& done, Duration limit) {
  const auto end = (now() + limit).time_since_epoch().count();
  while (!done()) {
    if (state_->run_one(end)) continue;
    return false;
  }
  return true;
}

bool SimWorld::run_until_idle(Duration limit) {
  const auto end = (now() + limit).time_since_epoch().count();
  while (state_->run_one(end)) {
  }
  return state_->timers.empty();
}

bool SimWorld::step_to_next_deadline() {
  run_ready();
  if (state_->timers.empty()) return false;
  run_until(Time(Duration(state_->timers.begin()->first.first)));
  return true;
}

bool SimWorld::wait_for(const std::function<bool()>& done, std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  for (;;) {
    while (!done()) {
      if (!state_->run_one(state_->now)) break;
    }
    if (done()) return true;
    std::unique_lock lock(state_->mutex);
    if (!state_->arrived.wait_until(lock, end, [&] { return !state_->external.empty(); })) return false;
  }
}

void SimWorld::on_step(std::function<void()> callback) { state_->after_step = std::move(callback); }
std::uint64_t SimWorld::trace_hash() const { return state_->hash; }
void SimWorld::trace(std::uint64_t value) { state_->add_trace(value); }

void SimWorld::trace(ByteView value) {
  std::uint64_t sum = value.size();
  for (const auto byte : value) sum = sum * 1'099'511'628'211ULL + byte;
  state_->add_trace(sum);
}

std::uint64_t SimWorld::tasks_run() const { return state_->tasks; }
std::uint64_t SimWorld::random(std::uint64_t below) { return below == 0 ? 0 : state_->random.next() % below; }
std::uint64_t SimWorld::seed() const { return state_->seed; }

SimRuntime::SimRuntime(std::shared_ptr<SimWorld::State> state, std::uint32_t index, std::uint64_t seed)
    : impl_(new Impl{std::move(state), index, {}, {}, {seed}}) {}
SimRuntime::~SimRuntime() { crash(); }

void SimRuntime::crash() { impl_->world->drop(impl_->index, false); }
bool SimRuntime::crashed() const { return impl_->world->is_dead(impl_->index); }
void SimRuntime::set_wall_skew(Duration skew) { impl_->skew = skew.count(); }
std::uint32_t SimRuntime::index() const { return impl_->index; }

Time SimRuntime::now() const { return Time(Duration(impl_->world->now.load())); }

Timestamp SimRuntime::wall_now() const {
  return Timestamp{impl_->world->wall_offset.load()} + Duration(impl_->world->now.load()) +
         Duration(impl_->skew.load());
}

void SimRuntime::post(Task task) { impl_->world->post(impl_->index, std::move(task)); }

Runtime::TimerId SimRuntime::schedule(Time at, Task task) {
  auto& world = *impl_->world;
  K2_ASSERT(std::this_thread::get_id() == world.owner);
  if (world.is_dead(impl_->index)) return 0;
  const auto time = std::max(at.time_since_epoch().count(), world.now.load());
  const auto id = world.next_sequence++;
  world.timers.emplace(SimWorld::State::Key{time, id}, Entry{impl_->index, std::move(task)});
  world.timer_times.emplace(id, time);
  return id;
}

void SimRuntime::cancel(TimerId timer) {
  auto& world = *impl_->world;
  const auto it = world.timer_times.find(timer);
  if (it == world.timer_times.end()) return;
  const auto node = world.timers.extract({it->second, timer});  // destroyed after the maps are consistent
  world.timer_times.erase(it);
}

bool SimRuntime::allows_caller() const { return std::this_thread::get_id() == impl_->world->owner; }

void SimRuntime::random_bytes(std::span<std::uint8_t> out) {
  const std::lock_guard lock(impl_->random_mutex);
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (i % 8 == 0) word = impl_->random.next();
    out[i] = static_cast<std::uint8_t>(word >> (8 * (i % 8)));
  }
}

}  // namespace kitsune2::testing
