// A list of listeners. Each is called as long as its token exists.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace kitsune2 {

/// A list of listeners (a function, or a struct of functions). One thread at a time (the owner's strand).
///
/// *Rules*. Listeners are called in the order of subscribing. A listener whose token is dropped is not called again,
/// not even for the event that is being delivered. During a call, listeners may subscribe, drop tokens and destroy the
/// list; a new listener is called from the next event on. Objects that a listener holds live until its call returns.
template <class Listener>
class Subscribers {
 public:
  std::shared_ptr<void> add(Listener listener) {
    std::erase_if(entries_, [](const Entry& entry) { return entry.token.expired(); });
    auto token = std::make_shared<char>();
    entries_.push_back({token, std::make_shared<const Listener>(std::move(listener))});
    return token;
  }

  /// Calls `call(listener)` for each listener.
  template <class F>
  void tell(F call) const {
    if (entries_.empty()) return;
    const auto entries = entries_;  // a snapshot, which also keeps the listeners alive
    for (const Entry& entry : entries) {
      if (!entry.token.expired()) call(*entry.listener);
    }
  }

 private:
  struct Entry {
    std::weak_ptr<void> token;
    std::shared_ptr<const Listener> listener;
  };
  std::vector<Entry> entries_;
};

}  // namespace kitsune2
