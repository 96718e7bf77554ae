// Which of many stores have their files open: who waits, who is closed, and when. Pure: it is told the time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "kitsune2/time.hpp"

namespace kitsune2::sqlite {

/// A process has a limit of descriptors, and may have more stores than fit below it. So a store has its files open only
/// while it is used, and for a while after that.
///
/// *Rules*.
///  O1  The stores with *room* (they are open, are being opened, or are being closed) have `most` descriptors at most,
///      together. *Reason*: at the limit of the process not only a store fails, but every socket.
///  O2  A store in use is not closed. *Reason*: what is under way has a transaction and statements.
///  O3  Where there is no room, of the stores that nobody uses those are closed that were used longest ago; no more of
///      them than are needed. *Reason*: to open one again costs some milliseconds, and the one that was used last will
///      be used next, most likely.
///  O4  Who finds no room waits, and those who wait get room in the order in which they came. Whoever uses a store that
///      has room does not wait. *Reason*: everybody has a turn. As a store is closed when nobody uses it and others
///      wait, those who are always busy cannot keep them out.
///  O5  When no store has room, one gets it, though it has more than `most` descriptors. *Reason*: one at a time is
///  slow,
///      but none at all would be the end.
///  O6  A store that was not used for `idle` may be closed (`close_if_idle`).
///  O7  A store that cannot be closed stays as it is, counts as used at that moment, and is not asked again before
///      `kRest` has passed. *Reason*: a backup that reads it takes a while, and others may be closed without waiting
///      for it; and where the disk fails, asking again at once would go on without end.
///  O8  Who cannot wait (`use_now`) gets room beyond `most`, and stores are closed for it afterwards, as for one who
///      waits. *Reason*: a store that ends writes what it was given, on a thread for which others wait.
///
/// Not thread-safe.
class OpenStores {
 public:
  using Id = std::uint64_t;
  /// Who uses a store; one bit.
  using User = unsigned;
  static constexpr Duration kRest = std::chrono::seconds(1);

  OpenStores(std::size_t most, Duration idle) : most_(most), idle_(idle) {}

  /// From now on. No effect on stores that have room until another one asks for it.
  void set_most(std::size_t descriptors) { most_ = descriptors; }

  /// A store without room, that needs so many descriptors. Returns its number, which no other store has or gets.
  Id add(std::size_t descriptors) {
    stores_[++last_].descriptors = descriptors;
    return last_;
  }
  /// The store is no more, and nobody waits for it.
  void remove(Id id) {
    set(stores_.at(id), State::closed);
    std::erase_if(waiting_, [&](const auto& who) { return who.first == id; });
    std::erase_if(granted_, [&](const auto& who) { return who.first == id; });
    std::erase(to_close_, id);
    stores_.erase(id);
    serve();
  }

  /// Whether `user` may use the store, which goes on until `release`. False: it waits, and is one of `take_granted`
  /// later, and uses the store from then on. Asking again while it waits has no effect.
  bool use(Id id, User user) {
    Store& store = stores_.at(id);
    if (store.state == State::open) store.users |= user;
    if ((store.users & user) == 0) {
      if (std::ranges::find(waiting_, std::pair(id, user)) == waiting_.end()) waiting_.emplace_back(id, user);
      serve();
    }
    if ((store.users & user) == 0) return false;
    std::erase(granted_, std::pair(id, user));
    return true;
  }
  /// O8. A store that was about to be closed is not: `is_closing` says so.
  void use_now(Id id, User user) {
    Store& store = stores_.at(id);
    std::erase(to_close_, id);
    std::erase(waiting_, std::pair(id, user));
    store.users |= user;
    open(id, store);
    std::erase(granted_, std::pair(id, user));
    serve();
  }
  /// `was_called`: the use was for somebody, not for the store's own work, and so counts for O3 and O6. No effect if
  /// `user` does not use the store.
  void release(Id id, User user, Time now, bool was_called = true) {
    Store& store = stores_.at(id);
    if ((store.users & user) == 0) return;
    store.users &= ~user;
    if (was_called) store.used_at = now;
    now_ = std::max(now_, now);
    std::erase(granted_, std::pair(id, user));
    serve();
  }
  /// `user` neither uses the store any more nor waits for it.
  void forget(Id id, User user, Time now) {
    std::erase(waiting_, std::pair(id, user));
    release(id, user, now, false);
    serve();
  }

  /// How long it takes at least until the store may be closed for O6. Zero: it is time, and nobody uses it.
  Duration left(Id id, Time now) const {
    const Store& store = stores_.at(id);
    return store.users != 0 ? idle_ : std::max(store.used_at + idle_ - now, Duration(0));
  }
  /// O6. True: the store is being closed now, until `closed` or `stays_open`.
  bool close_if_idle(Id id, Time now) {
    Store& store = stores_.at(id);
    if (store.state != State::open || left(id, now) > Duration(0)) return false;
    set(store, State::closing);
    return true;
  }
  bool is_open(Id id) const { return stores_.at(id).state == State::open; }
  bool is_closing(Id id) const { return stores_.at(id).state == State::closing; }
  /// The store is closed, or could not be opened. No effect while it is in use.
  void closed(Id id) {
    Store& store = stores_.at(id);
    if (store.users != 0) return;
    set(store, State::closed);
    std::erase(to_close_, id);
    serve();
  }
  /// O7. No effect unless it is being closed.
  void stays_open(Id id, Time now) {
    Store& store = stores_.at(id);
    if (store.state != State::closing) return;
    store.used_at = now;
    store.rests_until = now + kRest;
    now_ = std::max(now_, now);
    std::erase(to_close_, id);
    open(id, store);
    serve();
  }
  /// Everything that nobody uses is to be closed.
  void close_unused() {
    for (auto& [id, store] : stores_) {
      if (store.state == State::open && store.users == 0) begin_closing(id, store);
    }
  }

  /// Those that have to be closed, since the last time. Each is being closed until `closed` or `stays_open`.
  std::vector<Id> take_to_close() { return std::exchange(to_close_, {}); }
  /// Those who have waited and now use their store, since the last time.
  std::vector<std::pair<Id, User>> take_granted() { return std::exchange(granted_, {}); }

  /// Descriptors of all that have room.
  std::size_t taken() const { return taken_; }
  /// Of these, descriptors of those that are being closed.
  std::size_t closing() const { return closing_; }
  std::size_t size() const { return stores_.size(); }

 private:
  enum class State { closed, open, closing };
  struct Store {
    std::size_t descriptors = 0;
    State state = State::closed;
    unsigned users = 0;
    Time used_at{};
    Time rests_until{};  ///< O7
  };

  void set(Store& store, State state) {
    if (store.state != State::closed) taken_ -= store.descriptors;
    if (store.state == State::closing) closing_ -= store.descriptors;
    store.state = state;
    if (state != State::closed) taken_ += store.descriptors;
    if (state == State::closing) closing_ += store.descriptors;
  }
  void begin_closing(Id id, Store& store) {
    set(store, State::closing);
    to_close_.push_back(id);
  }
  /// For all who wait for it.
  void open(Id id, Store& store) {
    set(store, State::open);
    for (auto it = waiting_.begin(); it != waiting_.end();) {
      if (it->first != id) {
        ++it;
        continue;
      }
      store.users |= it->second;
      granted_.push_back(*it);
      it = waiting_.erase(it);
    }
  }

  /// Gives room to those who wait, in their order, and has stores closed for the first of them who finds none.
  void serve() {
    while (!waiting_.empty()) {
      const Id id = waiting_.front().first;
      Store& store = stores_.at(id);
      if (store.state == State::closing) break;  // it is opened again when that is done
      if (taken_ > 0 && taken_ + store.descriptors > most_) return make_room(store.descriptors);
      open(id, store);
    }
    make_room(0);
  }

  /// Those that are being closed count as closed.
  void make_room(std::size_t descriptors) {
    while (taken_ - closing_ > 0 && taken_ - closing_ + descriptors > most_) {
      auto oldest = stores_.end();
      for (auto it = stores_.begin(); it != stores_.end(); ++it) {
        if (it->second.state != State::open || it->second.users != 0 || it->second.rests_until > now_) continue;
        if (oldest == stores_.end() || it->second.used_at < oldest->second.used_at) oldest = it;
      }
      if (oldest == stores_.end()) return;
      begin_closing(oldest->first, oldest->second);
    }
  }

  std::size_t most_;
  Duration idle_;
  Id last_ = 0;
  Time now_{};               ///< the latest that was told
  std::size_t taken_ = 0;    ///< by all that have room
  std::size_t closing_ = 0;  ///< of these, by those that are being closed
  std::map<Id, Store> stores_;
  std::deque<std::pair<Id, User>> waiting_;
  std::vector<std::pair<Id, User>> granted_;
  std::vector<Id> to_close_;
};

}  // namespace kitsune2::sqlite
