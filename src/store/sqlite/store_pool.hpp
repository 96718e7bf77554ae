// The stores of a process that share the room for open files: OpenStores behind a mutex, with those whom it tells.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "store/sqlite/open_stores.hpp"

namespace kitsune2::sqlite {

/// The rules are those of OpenStores. *Thread rule*: any thread. The members are called with the pool's mutex held, so
/// a member does what is asked at once, or tells another thread to.
class StorePool : public std::enable_shared_from_this<StorePool> {
 public:
  using User = OpenStores::User;
  struct Options {
    /// How many descriptors the stores may have; asked whenever one is to be opened.
    std::function<std::size_t()> most;
    Duration idle;
    std::function<Time()> now;
  };
  class Member {
   public:
    Member() = default;
    virtual ~Member() = default;
    Member(const Member&) = delete;
    Member& operator=(const Member&) = delete;
    /// One that has waited uses the store now.
    virtual void has_room(User user) = 0;
    /// The files are to be closed. True: they are. False: they will be, or it is said that they stay open.
    virtual bool give_up() = 0;
  };

  /// The place of a store in the pool, which it keeps alive.
  class Place {
   public:
    Place(std::shared_ptr<StorePool> pool, std::size_t descriptors);
    ~Place();
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;

    /// Who is told. Before that nobody is, so somebody must be using the store.
    void belongs_to(Member& member);

    bool use(User user);
    void use_now(User user);
    /// Waits until there is room. Not on a thread that closes files.
    void use_after_waiting(User user);
    void release(User user, bool was_called = true);
    void forget(User user);
    Duration left() const;
    bool close_if_idle();
    bool is_open() const;
    bool is_closing() const;
    void closed();
    void stays_open();

   private:
    const std::shared_ptr<StorePool> pool_;
    OpenStores::Id id_;
  };

  explicit StorePool(Options options);

  /// Everything that nobody uses is closed, as if there were no room for it.
  void close_unused();
  /// The descriptors of all that are open, or on their way.
  std::size_t taken() const;
  /// Whether some are being closed.
  bool is_closing() const;

 private:
  /// Tells the members. Under the mutex.
  void tell();

  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable told_;
  OpenStores stores_;
  int process_;  ///< a child that was forked has none of its parent's stores
  std::map<OpenStores::Id, Member*> members_;
};

/// What a process may have of its descriptors. `soft`: its limit.
///  P1  All stores together have a half of it. *Reason*: the rest is for sockets and for the application.
///      Beside it, each thread of the stores has the file of large ops open while it reads or writes some: 16 in all.
///  P2  Of this half peer stores have a quarter. *Reason*: they are read from memory, and written now and then.
///  P3  There are bounds, whatever the limit is: kLeast… and kMost…. *Reason*: an open store has memory, too; and with
///      less than the least nothing would work.
inline constexpr std::size_t kLeastForOpStores = 24, kMostForOpStores = 1'536;
inline constexpr std::size_t kLeastForPeerStores = 16, kMostForPeerStores = 512;
constexpr std::size_t descriptors_for_op_stores(std::size_t soft) {
  return std::clamp(soft / 8 * 3, kLeastForOpStores, kMostForOpStores);
}
constexpr std::size_t descriptors_for_peer_stores(std::size_t soft) {
  return std::clamp(soft / 8, kLeastForPeerStores, kMostForPeerStores);
}

/// What an open store has: database, WAL, shared memory. Its two connections share them (GatherVfs), and its lock takes
/// none (FileLock).
inline constexpr std::size_t kOpStoreDescriptors = 3;
/// The same, of one connection.
inline constexpr std::size_t kPeerStoreDescriptors = 3;

/// The soft limit of descriptors of this process.
std::size_t soft_limit();

}  // namespace kitsune2::sqlite
