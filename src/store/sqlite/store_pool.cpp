// The pool of stores with open files: locks, and tells who was waiting or has to close.
#include "store/sqlite/store_pool.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <utility>

namespace kitsune2::sqlite {

StorePool::StorePool(Options options)
    : options_(std::move(options)), stores_(options_.most(), options_.idle), process_(::getpid()) {}

void StorePool::tell() {
  bool more = true;
  bool granted = false;
  while (std::exchange(more, false)) {
    for (const auto id : stores_.take_to_close()) {
      if (!members_.at(id)->give_up()) continue;
      stores_.closed(id);
      more = true;
    }
    for (const auto& [id, user] : stores_.take_granted()) {
      granted = true;
      if (Member* member = members_.at(id); member != nullptr) member->has_room(user);
    }
  }
  if (granted) told_.notify_all();
}

void StorePool::close_unused() {
  const std::lock_guard lock(mutex_);
  stores_.close_unused();
  tell();
}

std::size_t StorePool::taken() const {
  const std::lock_guard lock(mutex_);
  return stores_.taken();
}

bool StorePool::is_closing() const {
  const std::lock_guard lock(mutex_);
  return stores_.closing() > 0;
}

StorePool::Place::Place(std::shared_ptr<StorePool> pool, std::size_t descriptors) : pool_(std::move(pool)) {
  const std::lock_guard lock(pool_->mutex_);
  if (std::exchange(pool_->process_, ::getpid()) != ::getpid()) {
    pool_->stores_ = OpenStores(pool_->options_.most(), pool_->options_.idle);
    pool_->members_.clear();
  }
  id_ = pool_->stores_.add(descriptors);
  pool_->members_[id_] = nullptr;
}

StorePool::Place::~Place() {
  const std::lock_guard lock(pool_->mutex_);
  pool_->members_.erase(id_);
  pool_->stores_.remove(id_);
  pool_->tell();
}

void StorePool::Place::belongs_to(Member& member) {
  const std::lock_guard lock(pool_->mutex_);
  pool_->members_[id_] = &member;
}

bool StorePool::Place::use(User user) {
  const std::lock_guard lock(pool_->mutex_);
  if (!pool_->stores_.is_open(id_)) pool_->stores_.set_most(pool_->options_.most());
  const bool may = pool_->stores_.use(id_, user);
  pool_->tell();
  return may;
}

void StorePool::Place::use_now(User user) {
  const std::lock_guard lock(pool_->mutex_);
  if (!pool_->stores_.is_open(id_)) pool_->stores_.set_most(pool_->options_.most());
  pool_->stores_.use_now(id_, user);
  pool_->tell();
}

void StorePool::Place::use_after_waiting(User user) {
  std::unique_lock lock(pool_->mutex_);
  pool_->stores_.set_most(pool_->options_.most());
  while (!pool_->stores_.use(id_, user)) {
    pool_->tell();
    if (pool_->stores_.use(id_, user)) break;
    pool_->told_.wait(lock);
  }
  pool_->tell();
}

void StorePool::Place::release(User user, bool was_called) {
  const std::lock_guard lock(pool_->mutex_);
  pool_->stores_.release(id_, user, pool_->options_.now(), was_called);
  pool_->tell();
}

void StorePool::Place::forget(User user) {
  const std::lock_guard lock(pool_->mutex_);
  pool_->stores_.forget(id_, user, pool_->options_.now());
  pool_->tell();
}

Duration StorePool::Place::left() const {
  const std::lock_guard lock(pool_->mutex_);
  return pool_->stores_.left(id_, pool_->options_.now());
}

bool StorePool::Place::close_if_idle() {
  const std::lock_guard lock(pool_->mutex_);
  return pool_->stores_.close_if_idle(id_, pool_->options_.now());
}

bool StorePool::Place::is_open() const {
  const std::lock_guard lock(pool_->mutex_);
  return pool_->stores_.is_open(id_);
}

bool StorePool::Place::is_closing() const {
  const std::lock_guard lock(pool_->mutex_);
  return pool_->stores_.is_closing(id_);
}

void StorePool::Place::closed() {
  const std::lock_guard lock(pool_->mutex_);
  pool_->stores_.closed(id_);
  pool_->tell();
}

void StorePool::Place::stays_open() {
  const std::lock_guard lock(pool_->mutex_);
  pool_->stores_.stays_open(id_, pool_->options_.now());
  pool_->tell();
}

std::size_t soft_limit() {
  struct rlimit limit {};
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? static_cast<std::size_t>(limit.rlim_cur) : 1'024;
}

}  // namespace kitsune2::sqlite
