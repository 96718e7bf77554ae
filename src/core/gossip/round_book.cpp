// Whom to gossip with and when: what is kept of each peer, and the choice.
#include "core/gossip/round_book.hpp"

#include <algorithm>

namespace kitsune2::gossip {
namespace {

/// A share of `most` that `random` chooses.
Duration part_of(Duration most, std::uint32_t random) {
  return Duration(static_cast<Duration::rep>(static_cast<double>(most.count()) * (random / 4294967296.0)));
}

}  // namespace

// -------------------------------------------------------------------- what happened

void RoundBook::set_pace(const Pace& pace, Time now, std::uint32_t random) {
  pace_ = pace;
  regular_at_ = now + pace_.initiate_interval + part_of(pace_.initiate_jitter, random);
  if (!own_url_at_) return;
  catch_up_wait_ = std::min(catch_up_wait_, pace_.initial_initiate_interval);
  next_catch_up_ = now + catch_up_wait_;
}

void RoundBook::on_own_url(Time now) {
  own_url_at_ = now;
  met_since_ = 0;
  catch_up_wait_ = std::min(kFirstTry, pace_.initial_initiate_interval);
  next_catch_up_ = now + catch_up_wait_;
  // Who did not answer was perhaps not the one who was away.
  for (auto& [url, peer] : peers_) peer.unanswered = 0;
}

void RoundBook::on_attempt(const Url& url, Time now) {
  Peer& peer = at(url, now);
  peer.tried = now;
}

void RoundBook::on_no_answer(const Url& url, Time now, bool waited) {
  Peer& peer = at(url, now);
  peer.unanswered += 1;
  // It may have come in just now: the wait begins here. D1. But not if it went out from an earlier own url.
  if (peer.tried && own_url_at_ && *peer.tried >= *own_url_at_) peer.tried = now;
  if (peer.ours && !owed_.contains(url)) owe(url, now, now + kQuickest);
  postpone(url, now);
  const Time next = waited ? now : now + kAfterFailure;
  if (peer.tried_for == Reason::regular) regular_at_ = std::min(regular_at_, next);
  if (peer.tried_for == Reason::catch_up) next_catch_up_ = std::min(next_catch_up_, next);
}

void RoundBook::on_busy(const Url& url, Time now) {
  Peer& peer = at(url, now);
  peer.tried = now;
  peer.unanswered = 0;
  if (peer.ours) {
    owe(url, now, now + kAfterBusy);
  } else {
    postpone(url, now);
  }
}

void RoundBook::on_met(const Url& url, Time now) {
  Peer& peer = at(url, now);
  if (own_url_at_ && (!peer.met || *peer.met < *own_url_at_)) ++met_since_;
  peer.met = now;
  peer.unanswered = 0;
}

void RoundBook::on_completed(const Url& url, Time begun) {
  const auto it = owed_.find(url);
  if (it == owed_.end()) return;
  if (it->second.reason_at < begun) {
    owed_.erase(it);
  } else {
    it->second.since = it->second.reason_at;
  }
}

void RoundBook::on_broken(const Url& url, Time now) { owe(url, now, now + kQuickest); }

void RoundBook::on_is_ours(const Url& url, Time now) { at(url, now).ours = true; }

void RoundBook::on_connected(const Url& url, Time now) {
  if (const auto peer = peers_.find(url); peer != peers_.end()) peer->second.unanswered = 0;
  if (const auto it = owed_.find(url); it != owed_.end()) it->second.due = std::min(it->second.due, now);
}

void RoundBook::on_publish_lost(const Url& url, Time now) {
  const auto moved = moved_.find(url);
  owe(moved == moved_.end() ? url : moved->second, now, now + kQuickest);
}

void RoundBook::on_moved(const Url& old_url, const Url& new_url, Time now) {
  if (old_url == new_url) return;
  // It is found out within minutes that a publish was lost; what is forgotten here comes in its turn.
  if (moved_.size() >= kMostOwed) moved_.clear();
  for (auto& [from, to] : moved_) {
    if (to == old_url) to = new_url;
  }
  moved_.insert_or_assign(old_url, new_url);
  moved_.erase(new_url);
  if (auto node = owed_.extract(old_url)) owe(new_url, node.mapped().reason_at, now + kQuickest);
}

void RoundBook::on_has_more(const Url& url, Time now) { owe(url, now, now + kQuickest); }

RoundBook::Peer& RoundBook::at(const Url& url, Time now) {
  if (peers_.size() >= kMostPeers && !peers_.contains(url)) make_room();
  Peer& peer = peers_[url];
  if (peer.touched != Time::min() && now > peer.touched) {
    peer.tokens = std::min(kBurst, peer.tokens + std::chrono::duration<double>(now - peer.touched) / kQuickest);
  }
  peer.touched = std::max(peer.touched, now);
  return peer;
}

/// What is owed already stays so from then on: each new reason would make the next try an early one.
void RoundBook::owe(const Url& url, Time now, Time due) {
  if (owed_.size() >= kMostOwed && !owed_.contains(url)) {
    owed_.erase(std::min_element(owed_.begin(), owed_.end(),
                                 [](const auto& a, const auto& b) { return a.second.since < b.second.since; }));
  }
  const auto [it, is_new] = owed_.try_emplace(url, Owed{now, now, due});
  if (is_new) return;
  it->second.reason_at = now;
  it->second.due = std::max(it->second.due, due);
}

void RoundBook::postpone(const Url& url, Time now) {
  const auto it = owed_.find(url);
  if (it == owed_.end()) return;
  if (now - it->second.since > kOwedLasts) {
    owed_.erase(it);
    return;
  }
  const Duration most = std::max(kQuickest, pace_.initiate_interval);
  it->second.due = now + std::clamp((now - it->second.since) / 4, kQuickest, most);
}

void RoundBook::make_room() {
  std::vector<Time> touched;
  touched.reserve(peers_.size());
  for (const auto& [url, peer] : peers_) touched.push_back(peer.touched);
  const auto middle = touched.begin() + static_cast<std::ptrdiff_t>(touched.size() / 2);
  std::nth_element(touched.begin(), middle, touched.end());
  std::erase_if(peers_, [limit = *middle](const auto& entry) { return entry.second.touched <= limit; });
}

bool RoundBook::catching_up(Time now) const {
  if (!own_url_at_) return false;
  return met_since_ == 0 || (met_since_ < kCatchUpRounds && now - *own_url_at_ < kCatchUpLasts);
}

std::optional<Time> RoundBook::contact(const Url& url, const Peer& peer) const {
  const bool knows_our_link = !peer.ours && home_ && url.relay() != *home_;
  std::optional<Time> out;
  for (const auto& time : {peer.met, peer.tried}) {
    if (time && (knows_our_link || (own_url_at_ && *time >= *own_url_at_))) out = out ? std::max(*out, *time) : *time;
  }
  return out;
}

Time RoundBook::may_ask_at(const Url& url, bool owed) const {
  const auto it = peers_.find(url);
  if (it == peers_.end()) return Time::min();
  const Peer& peer = it->second;
  const auto last = contact(url, peer);
  if (!last) return Time::min();
  if (peer.ours && owed) return *last + kQuickest;
  const auto doubled = std::min<std::uint32_t>(peer.unanswered < 2 ? 0 : peer.unanswered - 1, 3);
  return *last + pace_.min_initiate_interval * (1U << doubled);
}

// -------------------------------------------------------------------- rounds that we start

Time RoundBook::next_try(Time now) const {
  Time out = regular_at_;
  if (catching_up(now)) out = std::min(out, next_catch_up_);
  for (const auto& [url, owed] : owed_) out = std::min(out, owed.due);
  return std::max({out, not_before_, now});
}

std::optional<Url> RoundBook::choose(std::span<const Candidate> candidates, Time now, std::uint32_t random,
                                     std::uint32_t jitter) {
  const bool regular = now >= regular_at_;
  const bool catch_up = catching_up(now) && now >= next_catch_up_;
  if (regular) regular_at_ = now + pace_.initiate_interval + part_of(pace_.initiate_jitter, jitter);
  if (catch_up) {
    catch_up_wait_ =
        std::clamp(catch_up_wait_ * 6 / 5, Duration(1), std::max(Duration(1), pace_.initial_initiate_interval));
    next_catch_up_ = now + catch_up_wait_;
  }
  const auto take = [&](const Candidate& chosen, Reason reason) {
    at(chosen.url, now).tried_for = reason;
    return chosen.url;
  };
  if (regular) {
    if (const auto* chosen = choose_turn(candidates, false, now, random)) return take(*chosen, Reason::regular);
  }
  if (catch_up) {
    if (const auto* chosen = choose_turn(candidates, true, now, random)) return take(*chosen, Reason::catch_up);
  }
  if (const auto* chosen = choose_owed(candidates, now)) return take(*chosen, Reason::owed);
  return std::nullopt;
}

const RoundBook::Candidate* RoundBook::choose_owed(std::span<const Candidate> candidates, Time now) {
  std::vector<Url> due;
  for (const auto& [url, owed] : owed_) {
    if (owed.due <= now) due.push_back(url);
  }
  if (due.empty()) return nullptr;
  std::unordered_map<Url, const Candidate*> known;
  for (const auto& candidate : candidates) known.emplace(candidate.url, &candidate);
  const Candidate* out = nullptr;
  for (const Url& url : due) {
    const auto it = known.find(url);
    // Perhaps its info comes again, or another url.
    if (it == known.end()) {
      postpone(url, now);
      continue;
    }
    Owed& owed = owed_.at(url);
    owed.due = std::max(owed.due, may_ask_at(url, true));
    if (owed.due > now) continue;
    if (out == nullptr || owed.since < owed_.at(out->url).since) out = it->second;
  }
  return out;
}

const RoundBook::Candidate* RoundBook::choose_turn(std::span<const Candidate> candidates, bool strangers_only, Time now,
                                                   std::uint32_t random) {
  const auto silent = [this](const Candidate& c) {
    const auto it = peers_.find(c.url);
    return it != peers_.end() && it->second.unanswered > 0;
  };
  const auto best = [&](bool of_silent, bool of_overlapping) -> const Candidate* {
    std::vector<const Candidate*> fresh;
    const Candidate* oldest = nullptr;
    for (const auto& candidate : candidates) {
      if (silent(candidate) != of_silent || candidate.overlaps != of_overlapping) continue;
      const Time from = may_ask_at(candidate.url, false);
      if (from > now || (strangers_only && from != Time::min())) continue;
      if (!candidate.last_gossip) {
        fresh.push_back(&candidate);
      } else if (oldest == nullptr || *candidate.last_gossip < *oldest->last_gossip) {
        oldest = &candidate;
      }
    }
    return fresh.empty() ? oldest : fresh[random % fresh.size()];
  };
  const bool silent_first = !strangers_only && ++choices_ % kSilentOneIn == 0;
  for (const bool of_silent : {silent_first, !silent_first}) {
    for (const bool of_overlapping : {true, false}) {
      if (const auto* found = best(of_silent, of_overlapping)) return found;
    }
  }
  return nullptr;
}

// -------------------------------------------------------------------- rounds that others start

RoundBook::Answer RoundBook::answer(const Url& url, bool ours, Time now) {
  if (!ours) return met_lately(url, now) ? Answer::too_soon : Answer::accept;
  Peer& peer = at(url, now);
  peer.ours = true;
  if (peer.tokens < 1) return Answer::busy;
  peer.tokens -= 1;
  return Answer::accept;
}

void RoundBook::on_told(const Url& url, Timestamp next, Time now) { at(url, now).told = next; }

bool RoundBook::starts_over(const Url& url, Timestamp since, Time now) const {
  const auto it = peers_.find(url);
  return it != peers_.end() && it->second.told && since < *it->second.told && met_lately(url, now);
}

bool RoundBook::met_lately(const Url& url, Time now) const {
  const auto it = peers_.find(url);
  if (it == peers_.end()) return false;
  const auto& met = it->second.met;
  return met && own_url_at_ && *met >= *own_url_at_ && now - *met < pace_.min_initiate_interval;
}

}  // namespace kitsune2::gossip
