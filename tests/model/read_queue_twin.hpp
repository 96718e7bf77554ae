// The queue of reads for rounds of gossip, written naively: one list in the order of arrival, searched each time. Also
// the run that gives the same commands to the twin and to ReadQueue.
#pragma once

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/gossip/read_queue.hpp"
#include "kitsune2/bytes.hpp"
#include "model/commands.hpp"

namespace kitsune2::model {

class ReadQueueTwin {
 public:
  using Id = gossip::ReadQueue::Id;
  using For = gossip::ReadQueue::For;

  Id add(For whom) {
    reads_.push_back({++last_, whom, std::nullopt});
    return last_;
  }
  std::optional<Id> begin(Time now) {
    for (const For whom : {For::ours, For::theirs}) {
      Read* first = first_waiting(whom);
      if (first == nullptr || is_busy(whom) || (whom == For::theirs && rests_at(now))) continue;
      first->begun = now;
      return first->id;
    }
    return std::nullopt;
  }
  void on_ended(Id id, Time now, bool serving) {
    for (const Read& read : reads_) {
      if (read.id != id || !read.begun || read.whom == For::ours) continue;
      last_end_ = now;
      rest_ = std::min<Duration>((serving ? 5 : 2) * (now - *read.begun), std::chrono::seconds(2));
    }
    std::erase_if(reads_, [&](const Read& read) { return read.id == id && read.begun; });
  }
  bool drop(Id id) {
    std::erase_if(reads_, [&](const Read& read) { return read.id == id && !read.begun; });
    return std::any_of(reads_.begin(), reads_.end(), [&](const Read& read) { return read.id == id; });
  }
  std::optional<Time> next(Time now) {
    if (first_waiting(For::ours) != nullptr && !is_busy(For::ours)) return now;
    if (first_waiting(For::theirs) == nullptr || is_busy(For::theirs)) return std::nullopt;
    return rests_at(now) ? *last_end_ + rest_ : now;
  }
  bool is_full() const {
    return std::count_if(reads_.begin(), reads_.end(),
                         [](const Read& read) { return read.whom == For::theirs && !read.begun; }) >= 64;
  }

 private:
  struct Read {
    Id id;
    For whom;
    std::optional<Time> begun;
  };
  Read* first_waiting(For whom) {
    const auto it =
        std::find_if(reads_.begin(), reads_.end(), [&](const Read& read) { return read.whom == whom && !read.begun; });
    return it == reads_.end() ? nullptr : &*it;
  }
  bool is_busy(For whom) const {
    return std::any_of(reads_.begin(), reads_.end(), [&](const Read& read) { return read.whom == whom && read.begun; });
  }
  bool rests_at(Time now) const { return last_end_ && now < *last_end_ + rest_; }

  std::vector<Read> reads_;
  std::optional<Time> last_end_;
  Duration rest_{};
  Id last_ = 0;
};

/// Reads commands from bytes and gives them to the queue and to the twin. Throws std::logic_error when they differ.
class ReadQueueTwinRun {
 public:
  explicit ReadQueueTwinRun(ByteView commands, std::uint64_t* begun = nullptr) : commands_(commands), begun_(begun) {}
  void run() {
    while (!commands_.is_empty()) {
      step();
      check(queue_.next(now_) == twin_.next(now_), "next");
      check(queue_.is_full() == twin_.is_full(), "is_full");
      check(queue_.under_way() <= 2, "the slots");
    }
  }

 private:
  std::uint8_t byte() { return commands_.byte(); }
  static void check(bool same, const char* what) {
    if (!same) throw std::logic_error(std::string("ReadQueue and its twin differ in ") + what);
  }
  void step() {
    using For = gossip::ReadQueue::For;
    const std::uint8_t what = byte() % 8, more = byte();
    // Any id that was ever given out.
    const gossip::ReadQueue::Id id = last_ == 0 ? 0 : last_ - more % std::min<std::uint64_t>(last_, 70);
    switch (what) {
      case 0:
      case 1: {
        const For whom = more % 8 == 0 ? For::ours : For::theirs;
        last_ = queue_.add(whom);
        return check(last_ == twin_.add(whom), "add");
      }
      case 2:
      case 3: {
        const auto next = queue_.begin(now_);
        if (next && begun_ != nullptr) ++*begun_;
        if (next) latest_ = *next;
        return check(next == twin_.begin(now_), "begin");
      }
      case 4:
      case 5:
        queue_.on_ended(more % 4 == 0 ? id : latest_, now_, what == 5);
        return twin_.on_ended(more % 4 == 0 ? id : latest_, now_, what == 5);
      case 6:
        return check(queue_.drop(id) == twin_.drop(id), "drop");
      default:
        now_ += Duration(std::int64_t{1} << (more % 24));
    }
  }

  Commands commands_;
  std::uint64_t* begun_;
  gossip::ReadQueue queue_;
  ReadQueueTwin twin_;
  gossip::ReadQueue::Id last_ = 0, latest_ = 0;  ///< the last id given out, and the last that began
  Time now_ = Time(std::chrono::hours(1));
};

}  // namespace kitsune2::model
