// What is to be sent to peers of whom no agent is known yet, until one is.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <map>
#include <utility>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// Keeps messages to peers that have no known agent in the space (`known_peers_only`). The reference refuses them. Here
/// they wait while the bootstrap server is asked, so that an application can ask a peer for ops of which it has the url
/// only, for instance from a link.
///
///  U1  A message waits for at most kPatience.
///  U2  At most kMostMessages with kMostBytes wait together; one beyond that is refused.
///      Reason: only this node puts messages here, so there is nobody to be fair to.
///  U3  Messages are given back in the order in which they came.
/// Pure. Every call is O(messages).
class UnsentBook {
 public:
  static constexpr Duration kPatience = std::chrono::seconds(5);
  static constexpr std::size_t kMostMessages = 256;
  static constexpr std::size_t kMostBytes = 8U << 20U;

  struct Message {
    Url peer;
    SpaceId space;
    ByteChain content;
    Handler<> done;
    Time until{};  ///< set by `hold`
  };

  /// False: refused, and `message` is as it was.
  bool hold(Message& message, Time now) {
    if (messages_.size() >= kMostMessages || message.content.size() > kMostBytes - bytes_) return false;
    bytes_ += message.content.size();
    message.until = now + kPatience;
    messages_.push_back(std::move(message));
    return true;
  }
  /// Take out what waits for a peer in a space, in a space, for too long, and all.
  std::vector<Message> take(const Url& peer, const SpaceId& space) {
    return take_if([&](const Message& message) { return message.peer == peer && message.space == space; });
  }
  std::vector<Message> take(const SpaceId& space) {
    return take_if([&](const Message& message) { return message.space == space; });
  }
  std::vector<Message> take_expired(Time now) {
    return take_if([&](const Message& message) { return message.until <= now; });
  }
  std::vector<Message> take_all() {
    return take_if([](const Message&) { return true; });
  }

  std::size_t size() const { return messages_.size(); }
  /// A peer of each space in which something waits.
  std::map<SpaceId, Url> waiting() const {
    std::map<SpaceId, Url> out;
    for (const Message& message : messages_) out.emplace(message.space, message.peer);
    return out;
  }

 private:
  template <class Gone>
  std::vector<Message> take_if(Gone gone) {
    const auto kept = [&](const Message& message) { return !gone(message); };
    const auto first = std::stable_partition(messages_.begin(), messages_.end(), kept);
    std::vector<Message> out(std::make_move_iterator(first), std::make_move_iterator(messages_.end()));
    messages_.erase(first, messages_.end());
    for (const Message& message : out) bytes_ -= message.content.size();
    return out;
  }

  std::vector<Message> messages_;  ///< the oldest first
  std::size_t bytes_ = 0;
};

}  // namespace kitsune2
