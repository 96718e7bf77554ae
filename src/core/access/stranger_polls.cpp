// Polls for strangers: a few that count, and those who become known take theirs away.
#include "core/access/stranger_polls.hpp"

#include <algorithm>

namespace kitsune2 {

bool StrangerPolls::ask_for(const Url& peer, Time now) {
  for (; !polls_.empty() && next_end_ <= now; next_end_ += kEvery) polls_.pop_front();
  if (polls_.size() >= kMost) return false;
  if (std::ranges::any_of(polls_, [&](const Poll& poll) { return poll.peer == peer && now < poll.at + kAgain; }))
    return false;
  if (polls_.empty()) next_end_ = now + kEvery;
  polls_.push_back({peer, now});
  return true;
}

void StrangerPolls::on_known(const Url& peer) {
  std::erase_if(polls_, [&](const Poll& poll) { return poll.peer == peer; });
}

}  // namespace kitsune2
