// Reads what to name in a round: new ops, and to newcomers the history, through the slots of gossip::ReadQueue.
#include "node/gossip/new_ops_reader.hpp"

#include <algorithm>
#include <utility>

#include "log/log.hpp"

namespace kitsune2 {

void NewOpsReader::read(const NewOpsWish& wish, std::function<bool()> is_wanted, Done done) {
  if (wish.limit == 0 || wish.common.empty()) return name_nothing(wish.since, false, std::move(done));
  using For = gossip::ReadQueue::For;
  const auto asker =
      std::make_shared<const Asker>(Asker{wish.we_started ? For::ours : For::theirs, std::move(is_wanted)});
  if (wish.starts_over) return name_again(asker, wish, std::move(done));
  const auto place = wish.ours ? std::nullopt : newcomers_.place(wish.agents, wish.common);
  if (place && *place < wish.since) return name_history(asker, wish, *place, std::move(done));
  query(asker, {wish.common, wish.since, wish.limit, kMostIds}, [place, done = std::move(done)](NewOps named) {
    if (place) named.history_to = std::max(*place, named.next);
    done(std::move(named));
  });
}

void NewOpsReader::name_nothing(Timestamp next, bool more, Done done) {
  NewOps none;
  none.next = next;
  none.more = more;
  runtime_.post([done = std::move(done), none] { done(none); });
}

/// Out of the allowance of newcomers. D8.
void NewOpsReader::name_again(const AskerPtr& asker, const NewOpsWish& wish, Done done) {
  const auto room = newcomers_.room(runtime_.now(), wish.most_bytes);
  if (room.ids == 0 || room.bytes == 0) return name_nothing(wish.since, true, std::move(done));
  const Query piece{wish.common, wish.since, std::min(wish.limit, room.bytes), room.ids};
  query(asker, piece, [weak = weak_from_this(), done = std::move(done)](NewOps named) {
    if (auto self = weak.lock()) self->newcomers_.spend(named.ids.size(), named.bytes);
    done(std::move(named));
  });
}

/// From `from` on as much as there is room for, and besides what was asked for.
void NewOpsReader::name_history(const AskerPtr& asker, const NewOpsWish& wish, Timestamp from, Done done) {
  const auto with_recent = [weak = weak_from_this(), asker, wish, done = std::move(done)](NewOps old) {
    if (auto self = weak.lock()) self->name_recent_too(asker, wish, std::move(old), done);
  };
  const auto room = newcomers_.room(runtime_.now(), wish.most_bytes);
  if (room.ids == 0 || room.bytes == 0) return name_nothing(from, true, with_recent);
  const Query piece{wish.common, from, std::min(wish.limit, room.bytes), room.ids};
  const bool is_full = room.bytes >= wish.most_bytes / 2;
  query(asker, piece, [weak = weak_from_this(), asker, piece, limit = wish.limit, is_full, with_recent](NewOps old) {
    auto self = weak.lock();
    if (!self) return;
    // An op of more than half of what there can be: it may have all of it.
    if (old.ids.empty() && old.more && !old.failed && is_full && limit > piece.limit) {
      auto whole = piece;
      whole.limit = limit;
      return self->query(asker, whole, with_recent);
    }
    with_recent(std::move(old));
  });
}

void NewOpsReader::name_recent_too(const AskerPtr& asker, const NewOpsWish& wish, NewOps old, const Done& done) {
  newcomers_.spend(old.ids.size(), old.bytes);
  old.history_to = old.next;
  // All of it, or so much that it includes what was asked for.
  if (!old.more || old.next > wish.since) return done(std::move(old));
  const Query rest{wish.common, wish.since, wish.limit - std::min<std::uint64_t>(wish.limit, old.bytes),
                   kMostIds - std::min(kMostIds, old.ids.size())};
  query(asker, rest, [old = std::move(old), done](NewOps recent) {
    recent.history_to = old.history_to;
    recent.ids.insert(recent.ids.begin(), old.ids.begin(), old.ids.end());
    done(std::move(recent));
  });
}

// ---------------------------------------------------------------- the store

void NewOpsReader::query(const AskerPtr& asker, const Query& query, Done done) {
  if (stopped_) return;
  reads_.emplace(queue_.add(asker->whom), Read{query, asker, std::move(done)});
  go_on();
}

void NewOpsReader::go_on() {
  runtime_.cancel(timer_);
  timer_ = 0;
  if (stopped_) return;
  while (const auto id = queue_.begin(runtime_.now())) begin(*id);
  if (const auto at = queue_.next(runtime_.now())) {
    timer_ = runtime_.schedule(*at, [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->go_on();
    });
  }
}

void NewOpsReader::begin(gossip::ReadQueue::Id id) {
  Read& read = reads_.at(id);
  read.begun = runtime_.now();
  // A hostile set of sectors could mean 256 queries: one over the hull, and the rest is left out here.
  store_->retrieve_op_ids_bounded(OpIdsQuery{read.query.sectors.hull(), read.query.since, read.query.limit,
                                             read.query.most_ids, read.stop.get_token()},
                                  [weak = weak_from_this(), id](const Result<OpIdsBounded>& found) {
                                    if (auto self = weak.lock()) self->answered(id, found);
                                  });
}

void NewOpsReader::answered(gossip::ReadQueue::Id id, const Result<OpIdsBounded>& found) {
  queue_.ended(id, runtime_.now());
  if (auto node = reads_.extract(id); node && !stopped_ && node.mapped().asker->is_wanted()) {
    NewOps out = named(node.mapped().query, found);
    out.took = runtime_.now() - node.mapped().begun;
    node.mapped().done(std::move(out));
  }
  go_on();
}

NewOps NewOpsReader::named(const Query& asked, const Result<OpIdsBounded>& found) const {
  NewOps out;
  if (!found) {
    log::warn("gossip", "cannot read new ops: " + found.error().to_string());
    out.next = asked.since;
    out.more = out.failed = true;
    return out;
  }
  for (const OpId& id : found->op_ids) {
    if (asked.sectors.contains(store_->policy().location(id.view()))) out.ids.push_back(id.bytes());
  }
  out.bytes = found->bytes;
  out.next = found->next;
  out.more = found->cut;
  return out;
}

void NewOpsReader::sweep() {
  for (auto it = reads_.begin(); it != reads_.end();) {
    if (it->second.asker->is_wanted()) {
      ++it;
    } else if (queue_.drop(it->first)) {
      it->second.stop.request_stop();
      ++it;
    } else {
      it = reads_.erase(it);
    }
  }
}

void NewOpsReader::stop() {
  stopped_ = true;
  runtime_.cancel(timer_);
  timer_ = 0;
  for (auto& [id, read] : reads_) read.stop.request_stop();
  reads_.clear();
}

}  // namespace kitsune2
