// The receiving side of publish. The rules are in the header.
#include "core/publish/offers.hpp"

#include <algorithm>

#include "kitsune2/error.hpp"

namespace kitsune2 {

std::optional<Offers::OfferId> Offers::offer(const Url& peer, std::uint64_t ids, std::uint64_t bytes, bool is_known) {
  const std::uint64_t part = is_known ? 1 : 2;
  Sender& sender = senders_[peer];
  sender.is_connected = true;
  const auto over = [](std::uint64_t waiting, std::uint64_t more, std::uint64_t bound) {
    return waiting > 0 && waiting + more > bound;
  };
  if (over(sender.waiting_ids, ids, kMaxWaitingIdsPerPeer) || over(waiting_ids_, ids, kMaxWaitingIds / part) ||
      over(sender.waiting_bytes, bytes, kMaxWaitingBytesPerPeer) ||
      over(waiting_bytes_, bytes, kMaxWaitingBytes / part)) {
    return std::nullopt;
  }
  sender.waiting_ids += ids;
  sender.waiting_bytes += bytes;
  waiting_ids_ += ids;
  waiting_bytes_ += bytes;
  sender.offers.push_back({++last_offer_, ids, bytes});
  take_turn(peer, sender);
  return last_offer_;
}

void Offers::take_turn(const Url& peer, Sender& sender) {
  if (sender.offers.empty() || sender.in_turn || sender.held_until) return;
  sender.in_turn = true;
  turns_.push_back(peer);
}

void Offers::release_held(Time now) {
  while (!held_.empty() && held_.begin()->first <= now) {
    const auto it = senders_.find(held_.begin()->second);
    held_.erase(held_.begin());
    it->second.held_until.reset();
    take_turn(it->first, it->second);
    drop_if_idle(it);
  }
}

std::optional<Url> Offers::next_peer(bool serving, Time now) {
  release_held(now);
  if (rest_until_ && *rest_until_ <= now) rest_until_.reset();
  if (turns_.empty() || rest_until_ || pieces_ >= (serving ? 1 : kMaxPieces)) return std::nullopt;
  return turns_.front();
}

Offers::Piece Offers::next_piece(Time now) {
  K2_ASSERT(!turns_.empty());
  Piece out;
  out.peer = std::move(turns_.front());
  turns_.pop_front();
  Sender& sender = senders_.at(out.peer);
  sender.in_turn = false;
  Offer& offer = sender.offers.front();
  out.offer = offer.id;
  out.ids = std::min(offer.left, kPieceIds);
  out.begun = now;
  offer.left -= out.ids;
  out.is_last = offer.left == 0;
  if (out.is_last) end_offer(sender);
  take_turn(out.peer, sender);
  ++pieces_;
  return out;
}

void Offers::hold(const Url& peer, Time until) {
  const auto it = senders_.find(peer);
  if (it == senders_.end()) return;
  Sender& sender = it->second;
  if (sender.held_until) held_.erase({*sender.held_until, peer});
  sender.held_until = until;
  held_.emplace(until, peer);
  if (std::exchange(sender.in_turn, false)) std::erase(turns_, peer);
}

/// The message of the first offer is no longer needed.
void Offers::end_offer(Sender& sender) {
  const std::uint64_t bytes = sender.offers.front().bytes;
  sender.waiting_bytes -= bytes;
  waiting_bytes_ -= bytes;
  sender.offers.pop_front();
}

Offers::Dropped Offers::on_piece_done(const Piece& piece, bool ok, bool serving, Time now) {
  const auto it = senders_.find(piece.peer);
  K2_ASSERT(it != senders_.end() && pieces_ > 0);
  Sender& sender = it->second;
  --pieces_;
  waiting_ids_ -= piece.ids;
  sender.waiting_ids -= piece.ids;
  Dropped out;
  if (!ok) {
    out.bytes = sender.waiting_bytes;
    for (; !sender.offers.empty(); end_offer(sender)) {
      const Offer& offer = sender.offers.front();
      out.offers.push_back(offer.id);
      out.ids += offer.left;
      sender.waiting_ids -= offer.left;
      waiting_ids_ -= offer.left;
    }
    if (std::exchange(sender.in_turn, false)) std::erase(turns_, piece.peer);
  }
  drop_if_idle(it);
  if (!rest_until_ && now > piece.begun && serving)
    rest_until_ = now + std::min(kRests * (now - piece.begun), kLongestRest);
  return out;
}

bool Offers::may_send_agent(const Url& peer, bool is_known, Time now) {
  senders_[peer].is_connected = true;
  return agents_.take(peer, is_known, 1, now) == 1;
}

void Offers::on_disconnect(const Url& peer) {
  const auto it = senders_.find(peer);
  if (it == senders_.end()) return;
  it->second.is_connected = false;
  drop_if_idle(it);
}

void Offers::drop_if_idle(Senders::iterator it) {
  const Sender& sender = it->second;
  if (sender.is_connected || sender.waiting_ids > 0) return;
  if (sender.held_until) held_.erase({*sender.held_until, it->first});
  agents_.forget(it->first);
  senders_.erase(it);
}

std::optional<Time> Offers::next_deadline() const {
  std::optional<Time> out;
  if (rest_until_ && !turns_.empty()) out = rest_until_;
  if (!held_.empty()) out = out ? std::min(*out, held_.begin()->first) : held_.begin()->first;
  return out;
}

void Offers::check_invariants() const {
  std::uint64_t ids = 0, bytes = 0, in_turn = 0, held = 0;
  for (const auto& [url, sender] : senders_) {
    std::uint64_t own_bytes = 0, left = 0;
    for (const Offer& offer : sender.offers) {
      K2_ASSERT(offer.left > 0);
      own_bytes += offer.bytes;
      left += offer.left;
    }
    K2_ASSERT(own_bytes == sender.waiting_bytes && left <= sender.waiting_ids);
    K2_ASSERT(sender.is_connected || sender.waiting_ids > 0);
    K2_ASSERT(sender.in_turn == (!sender.offers.empty() && !sender.held_until));
    K2_ASSERT(!sender.held_until || held_.contains({*sender.held_until, url}));
    ids += sender.waiting_ids;
    bytes += sender.waiting_bytes;
    in_turn += sender.in_turn ? 1 : 0;
    held += sender.held_until ? 1 : 0;
  }
  K2_ASSERT(agents_.peers() <= senders_.size());
  K2_ASSERT(ids == waiting_ids_ && bytes == waiting_bytes_ && in_turn == turns_.size() && held == held_.size());
}

}  // namespace kitsune2
