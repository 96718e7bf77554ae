// What src/net knows about the runtime: the loop, the read buffers shared by all connections, the batched flush.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <queue>
#include <thread>
#include <vector>

#include "kitsune2/asio_runtime.hpp"
#include "log/log.hpp"

namespace kitsune2 {

namespace net {
/// An open connection, as the loop sees it.
class LoopItem {
 public:
  virtual ~LoopItem() = default;
  /// Passes output to the operating system at the end of a turn in which `flush_later` was called.
  virtual void flush_now() = 0;
  /// The loop has stopped: close, and release the owner without calling it. *Rationale*: owner and connection keep each
  /// other alive while the connection is open.
  virtual void drop() = 0;
};
}  // namespace net

struct AsioRuntime::Impl {
  /// One read takes up to this much: many small messages, or a dozen large ones, in one system call. A little more than
  /// a power of two, so that four of the largest frames of the relay of 0.5 (64 KiB and their heads) are whole in it:
  /// what is left of a frame is copied before the next read.
  static constexpr std::size_t kScratchBytes = 260U << 10;
  using Scratch = std::shared_ptr<std::uint8_t[]>;

  /// A read buffer of which nobody holds a slice. All connections of the loop share it, so an idle one needs none.
  Scratch& plain_scratch() { return fresh(plain); }
  Scratch& cipher_scratch() { return fresh(cipher); }

  /// Calls `flush_now` after the current turn's handlers, so that their output is sent together. Strand only.
  void flush_later(std::shared_ptr<net::LoopItem> what);

  /// The log of the strand; null: the process's.
  std::shared_ptr<log::Logger> logger;

  // --- posted tasks
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Task> posted;   // guarded
  bool wake_pending = false;  // guarded: a drain has been posted
  bool running = false;       // guarded
  bool stopped = false;       // guarded
  std::atomic<std::thread::id> strand{};
  std::thread thread;

  void drain();
  /// Runs a task; one that throws ends the program.
  static void run(const char* what, const Task& task);

  // --- timers, strand only
  struct Due {
    Time at;
    TimerId id;
    bool operator>(const Due& other) const { return at != other.at ? at > other.at : id > other.id; }
  };
  std::vector<Due> heap;  // a min-heap, including cancelled ids
  boost::unordered_flat_map<TimerId, Task> timers;
  TimerId next_timer = 1;
  Time armed_for = Time::max();

  // --- connections, strand only
  boost::unordered_flat_set<net::LoopItem*> open;

  void arm();
  void run_timers();
  Time now() const;

  static Scratch& fresh(Scratch& scratch);
  Scratch plain;
  Scratch cipher;
  std::vector<std::shared_ptr<net::LoopItem>> dirty;

  // The last member, destroyed first: its handlers own connections, which use the members above.
  boost::asio::io_context io{1};
  boost::asio::steady_timer alarm{io};
};

}  // namespace kitsune2
