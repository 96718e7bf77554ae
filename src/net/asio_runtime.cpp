// The real runtime over Asio: its thread, its timers, and the tasks that other threads post.
#include "kitsune2/asio_runtime.hpp"

#include <sodium.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <cstdio>

#include "core/callback.hpp"
#include "kitsune2/ids.hpp"
#include "net/asio_runtime_impl.hpp"

namespace kitsune2 {

namespace asio = boost::asio;

void AsioRuntime::Impl::flush_later(std::shared_ptr<net::LoopItem> what) {
  dirty.push_back(std::move(what));
  if (dirty.size() != 1) return;
  asio::post(io, [this] {
    auto batch = std::move(dirty);
    dirty.clear();
    for (auto& item : batch) item->flush_now();
    if (!dirty.empty()) return;  // a flush made new output, whose own turn is posted already
    batch.clear();
    dirty = std::move(batch);  // keeps the storage
  });
}

AsioRuntime::Impl::Scratch& AsioRuntime::Impl::fresh(Scratch& scratch) {
  if (!scratch || scratch.use_count() != 1) scratch = Scratch(new std::uint8_t[kScratchBytes]);
  return scratch;
}

Time AsioRuntime::Impl::now() const {
  return Time(std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch()));
}

void AsioRuntime::Impl::run(const char* what, const Task& task) {
  try {
    task();
  } catch (...) {
    // The type names the function that posted the task.
    const std::string where = std::string(what) + " on the strand, " + demangled(task.target_type().name()) + ',';
    callback_threw(where.c_str());
  }
}

void AsioRuntime::Impl::drain() {
  std::vector<Task> batch;
  {
    std::lock_guard lock(mutex);
    batch.swap(posted);
  }
  for (auto& task : batch) {
    run("a task", task);
    task = nullptr;  // its captures are destroyed before the next task runs, as if it had been called directly
  }
  batch.clear();
  std::lock_guard lock(mutex);
  if (posted.empty()) {
    wake_pending = false;
    if (posted.capacity() < batch.capacity() && batch.capacity() <= 4096) posted.swap(batch);
    return;
  }
  asio::post(io, [this] { drain(); });
}

void AsioRuntime::Impl::arm() {
  while (!heap.empty() && !timers.contains(heap.front().id)) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
  }
  if (heap.empty() || heap.front().at >= armed_for) return;  // waking too early does no harm
  // For times hours ahead, look again later: the whole range of Time does not fit Asio's nanoseconds.
  const Time start = now();
  armed_for = std::clamp(heap.front().at, start, start + std::chrono::hours(1));
  alarm.expires_after(armed_for - start);
  alarm.async_wait([this](const boost::system::error_code& ec) {
    if (!ec) run_timers();
  });
}

void AsioRuntime::Impl::run_timers() {
  armed_for = Time::max();
  const Time due = now();
  const TimerId newest = next_timer;  // what these tasks schedule waits for the next turn, even if it is due at once
  std::vector<Due> later;
  while (!heap.empty() && heap.front().at <= due) {
    const Due next = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    if (next.id >= newest) {
      later.push_back(next);
      continue;
    }
    const auto it = timers.find(next.id);
    if (it == timers.end()) continue;
    Task task = std::move(it->second);
    timers.erase(it);
    run("a timer's task", task);
  }
  for (const Due& entry : later) {
    heap.push_back(entry);
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  }
  arm();
}

namespace {

/// Runs before main, and so before any hashed container or second thread: see `set_hash_seed`.
[[maybe_unused]] const bool hash_is_seeded = [] {
  if (sodium_init() < 0) {
    std::fputs("libsodium cannot start: no source of randomness\n", stderr);
    std::abort();
  }
  std::uint64_t seed = 0;
  randombytes_buf(&seed, sizeof(seed));
  set_hash_seed(seed);
  return true;
}();

}  // namespace

AsioRuntime::AsioRuntime(LogOptions log) : impl_(std::make_unique<Impl>()) {
  impl_->logger = log.callback ? std::make_shared<log::Logger>(std::move(log)) : log::current();
}

AsioRuntime::~AsioRuntime() { stop(); }

void AsioRuntime::start() {
  Impl& im = *impl_;
  std::lock_guard lock(im.mutex);
  if (im.running || im.stopped) return;
  im.running = true;
  im.thread = std::thread([&im] {
    const log::Scope scope(im.logger);
    im.strand = std::this_thread::get_id();
    const auto work = asio::make_work_guard(im.io);
    call_application("a connection's handler on the strand", [&im] { im.io.run(); });
    im.strand = std::thread::id();
  });
}

void AsioRuntime::stop() {
  Impl& im = *impl_;
  if (AsioRuntime::on_strand())
    misuse("AsioRuntime::stop was called on the strand, which it joins: call it on another thread");
  const log::Scope scope(im.logger);  // what is destroyed here may log
  std::vector<Task> dropped;
  {
    std::unique_lock lock(im.mutex);
    if (im.stopped) return;
    im.stopped = true;
  }
  im.io.stop();
  if (im.thread.joinable()) im.thread.join();
  {
    std::lock_guard lock(im.mutex);
    im.running = false;
    dropped.swap(im.posted);
  }
  im.changed.notify_all();
  dropped.clear();
  im.dirty.clear();
  while (!im.open.empty()) {
    net::LoopItem* item = *im.open.begin();
    im.open.erase(item);
    item->drop();
  }
  while (!im.timers.empty()) {
    auto timers = std::move(im.timers);
    im.timers.clear();
    timers.clear();
  }
}

bool AsioRuntime::on_strand() const { return impl_->strand.load() == std::this_thread::get_id(); }

bool AsioRuntime::allows_caller() const {
  const auto strand = impl_->strand.load(std::memory_order_relaxed);
  return strand == std::this_thread::get_id() || strand == std::thread::id();
}

bool AsioRuntime::call(const Task& task) {
  if (on_strand()) {
    task();
    return true;
  }
  Impl& im = *impl_;
  struct Turn {
    bool done = false;
  };
  auto turn = std::make_shared<Turn>();
  {
    std::lock_guard lock(im.mutex);
    if (!im.running || im.stopped) return false;
  }
  // `task` is used only while this call waits: the posted task runs it before `done`, or never.
  post([&im, turn, &task] {
    task();
    std::lock_guard lock(im.mutex);
    turn->done = true;
    im.changed.notify_all();
  });
  std::unique_lock lock(im.mutex);
  im.changed.wait(lock, [&] { return turn->done || (im.stopped && !im.running); });
  return turn->done;
}

Time AsioRuntime::now() const { return impl_->now(); }

Timestamp AsioRuntime::wall_now() const {
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  return {std::chrono::duration_cast<std::chrono::microseconds>(since).count()};
}

void AsioRuntime::post(Task task) {
  Impl& im = *impl_;
  {
    std::lock_guard lock(im.mutex);
    if (!im.stopped) {
      im.posted.push_back(std::move(task));
      if (im.wake_pending) return;
      im.wake_pending = true;
    } else {
      return;  // `task` is a parameter: it is destroyed after the lock is released
    }
  }
  asio::post(im.io, [&im] { im.drain(); });
}

Runtime::TimerId AsioRuntime::schedule(Time at, Task task) {
  Impl& im = *impl_;
  const TimerId id = im.next_timer++;
  {
    std::lock_guard lock(im.mutex);
    if (im.stopped) return id;
  }
  im.timers.emplace(id, std::move(task));
  im.heap.push_back({at, id});
  std::push_heap(im.heap.begin(), im.heap.end(), std::greater<>());
  // Cancelled timers stay in the heap until their time; many of them are swept at once.
  if (im.heap.size() > 64 && im.heap.size() > 2 * im.timers.size()) {
    std::erase_if(im.heap, [&im](const Impl::Due& due) { return !im.timers.contains(due.id); });
    std::make_heap(im.heap.begin(), im.heap.end(), std::greater<>());
  }
  im.arm();
  return id;
}

void AsioRuntime::cancel(TimerId timer) {
  const auto it = impl_->timers.find(timer);
  if (it == impl_->timers.end()) return;
  const Task last = std::move(it->second);  // its captures are destroyed when the map is consistent again
  impl_->timers.erase(it);
}

void AsioRuntime::random_bytes(std::span<std::uint8_t> out) { randombytes_buf(out.data(), out.size()); }

}  // namespace kitsune2
