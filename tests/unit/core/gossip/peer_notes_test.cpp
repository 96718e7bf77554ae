// What is kept about peers, beside a plain list.
#include "core/gossip/peer_notes.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "unit/core/named.hpp"

namespace kitsune2::gossip {
namespace {

using tests::url;

TEST(PeerNotes, WhoWasTouchedLongestAgoIsDropped) {
  constexpr std::size_t kMost = 4;
  PeerNotes<int, kMost> notes;
  std::vector<std::pair<Url, int>> naive;  // the most recent last
  std::mt19937 random(1);                  // NOLINT(cert-msc32-c,cert-msc51-cpp): the same each time
  int dropped = 0;
  for (int i = 0; i < 10'000; ++i) {
    const Url peer = url(random() % 7);
    const auto at = std::find_if(naive.begin(), naive.end(), [&](const auto& entry) { return entry.first == peer; });
    const int* found = notes.find(peer);
    ASSERT_EQ(found != nullptr, at != naive.end()) << i;
    if (found != nullptr) {
      ASSERT_EQ(*found, at->second) << i;
    }
    if (random() % 8 == 0) {
      notes.erase(peer);
      if (at != naive.end()) naive.erase(at);
    } else if (random() % 8 != 0) {
      int value = 0;
      if (at != naive.end()) {
        value = at->second;
        naive.erase(at);
      }
      ASSERT_EQ(notes.touch(peer), value) << i;
      notes.touch(peer) = i;
      naive.emplace_back(peer, i);
      if (naive.size() > kMost) naive.erase(naive.begin()), ++dropped;
    }
    ASSERT_EQ(notes.size(), naive.size()) << i;
  }
  EXPECT_GT(dropped, 1'000);
}

}  // namespace
}  // namespace kitsune2::gossip
