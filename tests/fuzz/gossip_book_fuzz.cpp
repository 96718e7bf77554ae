// Gossip's book of rounds under any order of events: stock peers are never asked within their interval, those of ours
// not twice a second, and the book never asks to be looked at in the past, without end or without bound.
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/gossip/round_book.hpp"
#include "fuzz/fuzz.hpp"

using namespace kitsune2;          // NOLINT(google-build-using-namespace)
using namespace kitsune2::gossip;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace std::chrono_literals;
  constexpr std::size_t kPeers = 8;
  std::vector<Url> peers;
  for (std::size_t i = 0; i < kPeers; ++i) peers.push_back(Url::parse("ws://r:1/p" + std::to_string(i)).value());

  RoundBook book;
  const Pace pace{120s, 10s, 300s, 5s};
  Time now(1h), url_at = now;
  book.set_pace(pace, now, 0);
  book.on_own_url(now);
  std::map<Url, Time> contact;  // at this own url
  std::map<Url, bool> ours;
  const auto met = [&](const Url& peer) {
    book.on_met(peer, now);
    contact[peer] = now;
  };

  for (std::size_t i = 0; i + 1 < size; i += 2) {
    const std::uint8_t what = data[i], more = data[i + 1];
    const Url& peer = peers[more % kPeers];
    switch (what % 16) {
      case 0:
        now += Duration(std::chrono::milliseconds(more));
        break;
      case 1:
        now += Duration(std::chrono::seconds(more));
        break;
      case 2:
        book.on_own_url(now);
        url_at = now;
        contact.clear();
        break;
      case 3:
        if (contact.contains(peer)) book.on_no_answer(peer, now, more % 2 == 0);
        break;
      case 4:
        book.on_publish_lost(peer, now);
        break;
      case 5:
        book.on_has_more(peer, now);
        break;
      case 6:
        book.on_broken(peer, now);
        break;
      case 7:
        book.on_connected(peer, now);
        break;
      case 8:
        // Half of them are of our kind.
        if (more % 2 == 0) {
          book.on_is_ours(peer, now);
          ours[peer] = true;
        }
        break;
      case 9:
        if (contact.contains(peer)) book.on_busy(peer, now);
        break;
      case 10:
        if (book.answer(peer, ours[peer], now) == RoundBook::Answer::accept) met(peer);
        break;
      case 11:
        book.on_completed(peer, now - Duration(std::chrono::milliseconds(more)));
        break;
      case 12:
        book.set_pace(pace, now, more * 16'777'216U);
        break;
      default: {
        const Time next = book.next_try(now);
        K2_ASSERT(next >= now);
        if (next - now > 1h) break;
        now = next;
        std::vector<RoundBook::Candidate> candidates;
        for (std::size_t p = 0; p < kPeers; ++p) {
          if (more >> p & 1U) candidates.push_back({peers[p], p % 2 == 0});
        }
        const auto chosen = book.choose(candidates, now, more, more);
        if (!chosen) break;
        if (const auto last = contact.find(*chosen); last != contact.end()) {
          K2_ASSERT(now - last->second >= (ours[*chosen] ? Duration(RoundBook::kQuickest) : Duration(300s)));
        }
        book.on_attempt(*chosen, now);
        contact[*chosen] = now;
        // Sometimes it answers.
        if (what % 2 == 0) met(*chosen);
      }
    }
    K2_ASSERT(book.size() <= kPeers);
    K2_ASSERT(book.owed() <= kPeers);
  }
  // Left alone, it comes to rest: the turns, and nothing in between.
  now += 3h;
  std::size_t tries = 0;
  for (const Time end = now + 1h; book.next_try(now) < end; ++tries) {
    now = book.next_try(now);
    K2_ASSERT(tries < 2'000);
    book.choose({}, now, 0, 0);
  }
  return 0;
}
