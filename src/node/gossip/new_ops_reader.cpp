// Reads what to name in a round: new ops, and to newcomers the history, through the slots of gossip::ReadQueue.
#include "node/gossip/new_ops_reader.hpp"

#include <algorithm>
#include <utility>

#include "core/buffer.hpp"
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
  query(asker, {wish.common, wish.since, wish.limit, wish.most_ids}, [place, done = std::move(done)](NewOps named) {
    if (place) named.history_to = std::max(*place, named.next);
    done(std::move(named));
  });
}

void NewOpsReader::name_nothing(Timestamp next, bool is_by_allowance, Done done) {
  NewOps none;
  none.next = next;
  none.more = none.is_by_allowance = is_by_allowance;
  runtime_.post([done = std::move(done), none] { done(none); });
}

std::optional<NewOpsReader::Allowed> NewOpsReader::allowed(const NewOpsWish& wish, Timestamp from) {
  const auto room = newcomers_.room(runtime_.now(), wish.most_bytes);
  if (room.ids == 0 || room.bytes == 0) return std::nullopt;
  Allowed out{{wish.common, from, std::min(wish.limit, room.bytes), std::min<std::size_t>(wish.most_ids, room.ids)}};
  out.is_short = out.piece.limit < wish.limit || out.piece.most_ids < wish.most_ids;
  out.is_large = room.bytes >= wish.most_bytes / 2;
  return out;
}

/// Out of the allowance of newcomers. D8.
void NewOpsReader::name_again(const AskerPtr& asker, const NewOpsWish& wish, Done done) {
  const auto allowance = allowed(wish, wish.since);
  if (!allowance) return name_nothing(wish.since, true, std::move(done));
  query(asker, allowance->piece,
        [weak = weak_from_this(), is_short = allowance->is_short, done = std::move(done)](NewOps named) {
          if (auto self = weak.lock()) self->newcomers_.spend(named.ids.size(), named.bytes);
          named.is_by_allowance = named.more && is_short;
          done(std::move(named));
        });
}

/// From `from` on as much as there is room for, and besides what was asked for.
void NewOpsReader::name_history(const AskerPtr& asker, const NewOpsWish& wish, Timestamp from, Done done) {
  const auto with_recent = [weak = weak_from_this(), asker, wish, done = std::move(done)](NewOps old) {
    if (auto self = weak.lock()) self->name_recent_too(asker, wish, std::move(old), done);
  };
  const auto allowance = allowed(wish, from);
  if (!allowance) return name_nothing(from, true, with_recent);
  query(asker, allowance->piece,
        [weak = weak_from_this(), asker, allowance = *allowance, limit = wish.limit, with_recent](NewOps old) {
          auto self = weak.lock();
          if (!self) return;
          old.is_by_allowance = old.more && allowance.is_short;
          // An op of more than half of what there can be: it may have all of it.
          if (old.ids.empty() && old.more && !old.failed && allowance.is_large && limit > allowance.piece.limit) {
            auto whole = allowance.piece;
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
                   wish.most_ids - std::min(wish.most_ids, old.ids.size())};
  query(asker, rest, [old = std::move(old), done](NewOps recent) {
    recent.history_to = old.history_to;
    recent.bytes += old.bytes;
    recent.ids.insert(recent.ids.begin(), old.ids.begin(), old.ids.end());
    done(std::move(recent));
  });
}

// ---------------------------------------------------------------- slices

void NewOpsReader::list(SliceWish wish, std::uint32_t random, std::function<bool()> is_wanted, Done done) {
  using For = gossip::ReadQueue::For;
  auto listing = std::make_shared<Listing>();
  const bool of_disc = !wish.slices.empty() && wish.slices.front().is_of_disc();
  listing->places = of_disc ? &disc_places_ : &ring_places_;
  listing->pieces = listing->places->order(wish.peer, wish.slices, random);
  listing->asker =
      std::make_shared<const Asker>(Asker{wish.we_started ? For::ours : For::theirs, std::move(is_wanted)});
  listing->wish = std::move(wish);
  listing->done = std::move(done);
  listing->begun = runtime_.now();
  if (!listing->pieces.empty() && listing->wish.most_ids > 0 && listing->wish.limit > 0) return go_on_listing(listing);
  listing->out.more = !listing->pieces.empty();
  runtime_.post([listing] { listing->done(std::move(listing->out)); });
}

OpListQuery NewOpsReader::Listing::query(std::size_t limit) const {
  const auto& at = pieces[piece];
  OpListQuery q;
  q.arc = at.sectors.hull();
  q.start = at.start;
  q.end = at.end;
  if (at.after) q.after = OpCursor{at.after->created_at, at.after->stored_at};
  q.limit = limit;
  return q;
}

void NewOpsReader::go_on_listing(const ListingPtr& listing) {
  if (listing->piece == listing->pieces.size()) return end_listing(listing, std::nullopt);
  const std::uint64_t ids_left = listing->wish.most_ids - listing->out.ids.size();
  const bool took_long = listing->pages > 0 && runtime_.now() - listing->begun >= kLongestListing;
  if (ids_left == 0 || listing->pages == kMostPages || took_long) return end_listing(listing, listing->here());
  ++listing->pages;
  auto query = listing->query(static_cast<std::size_t>(std::min<std::uint64_t>(ids_left, kPage)));
  query_page(listing->asker, std::move(query), [weak = weak_from_this(), listing](const Result<OpPage>& page) {
    if (auto self = weak.lock()) self->on_listed(listing, page);
  });
}

void NewOpsReader::on_listed(const ListingPtr& listing, const Result<OpPage>& page) {
  NewOps& out = listing->out;
  if (!page) {
    log::warn("gossip", "cannot read the ids of a slice: " + page.error().to_string());
    out.failed = true;
    return end_listing(listing, listing->here());
  }
  auto& piece = listing->pieces[listing->piece];
  SliceWish& wish = listing->wish;
  std::vector<ByteView> ids;
  ids.reserve(page->ops.size());
  std::optional<std::size_t> over;
  for (std::size_t i = 0; i < page->ops.size() && !over; ++i) {
    const OpRecord& op = page->ops[i];
    if (!piece.sectors.contains(op.location) || op.size > wish.most_bytes) continue;
    const std::uint64_t mark = mark_of(op.op_id.view());
    if (wish.but.contains(mark)) continue;
    if (out.bytes + op.size > wish.limit) {
      over = i;
      continue;
    }
    out.bytes += op.size;
    ids.push_back(op.op_id.view());
    wish.but.insert(mark);
  }
  append(ids, out.ids);
  if (over) return cut_after(listing, *over);
  if (page->next) {
    piece.after = gossip::ListingCursor{page->next->created_at, page->next->stored_at};
  } else {
    ++listing->piece;
  }
  go_on_listing(listing);
}

/// So many ops of the page that was read last were looked at: where that is, is asked of the store.
void NewOpsReader::cut_after(const ListingPtr& listing, std::size_t taken) {
  if (taken == 0) return end_listing(listing, listing->here());
  query_page(listing->asker, listing->query(taken), [weak = weak_from_this(), listing](const Result<OpPage>& page) {
    auto self = weak.lock();
    if (!self) return;
    const bool found = page && page->next;
    self->end_listing(listing,
                      found ? gossip::ListingCursor{page->next->created_at, page->next->stored_at} : listing->here());
  });
}

void NewOpsReader::end_listing(const ListingPtr& listing, std::optional<gossip::ListingCursor> cut_at) {
  if (cut_at) {
    listing->places->on_cut(listing->wish.peer, *cut_at);
  } else {
    listing->places->on_finished(listing->wish.peer);
  }
  listing->out.more = cut_at.has_value();
  listing->out.took = runtime_.now() - listing->begun;
  listing->done(std::move(listing->out));
}

// ---------------------------------------------------------------- the store

void NewOpsReader::query(const AskerPtr& asker, const Query& query, Done done) {
  add(asker, IdsRead{query, std::move(done)});
}

void NewOpsReader::query_page(const AskerPtr& asker, OpListQuery query, PageDone done) {
  add(asker, PageRead{std::move(query), std::move(done)});
}

void NewOpsReader::add(const AskerPtr& asker, std::variant<IdsRead, PageRead> what) {
  if (stopped_) return;
  reads_.emplace(queue_.add(asker->whom), Read{std::move(what), asker});
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
  if (auto* page = std::get_if<PageRead>(&read.what)) {
    OpListQuery query = page->query;
    query.stop = read.stop.get_token();
    return store_->list_ops(std::move(query), [weak = weak_from_this(), id](const Result<OpPage>& found) {
      auto self = weak.lock();
      if (!self) return;
      if (auto taken = self->take(id)) std::get<PageRead>(taken->what).done(found);
      self->on_read_ended(id);
    });
  }
  const Query& query = std::get<IdsRead>(read.what).query;
  // A hostile set of sectors could mean 256 queries: one over the hull, and the rest is left out here.
  store_->retrieve_op_ids_bounded(
      OpIdsQuery{query.sectors.hull(), query.since, query.limit, query.most_ids, read.stop.get_token()},
      [weak = weak_from_this(), id](const Result<OpIdsBounded>& found) {
        auto self = weak.lock();
        if (!self) return;
        if (auto taken = self->take(id)) {
          const auto& ids = std::get<IdsRead>(taken->what);
          NewOps out = self->named(ids.query, found);
          out.took = self->runtime_.now() - taken->begun;
          ids.done(std::move(out));
        }
        self->on_read_ended(id);
      });
}

void NewOpsReader::on_read_ended(gossip::ReadQueue::Id id) {
  queue_.on_ended(id, runtime_.now(), serving_ && serving_());
  go_on();
}

std::optional<NewOpsReader::Read> NewOpsReader::take(gossip::ReadQueue::Id id) {
  auto node = reads_.extract(id);
  if (!node || stopped_ || !node.mapped().asker->is_wanted()) return std::nullopt;
  return std::move(node.mapped());
}

NewOps NewOpsReader::named(const Query& asked, const Result<OpIdsBounded>& found) const {
  NewOps out;
  if (!found) {
    log::warn("gossip", "cannot read new ops: " + found.error().to_string());
    out.next = asked.since;
    out.more = out.failed = true;
    return out;
  }
  std::vector<ByteView> ids;
  for (const OpId& id : found->op_ids) {
    if (asked.sectors.contains(store_->policy().location(id.view()))) ids.push_back(id.view());
  }
  out.ids.reserve(ids.size());
  append(ids, out.ids);
  out.bytes = found->bytes;
  out.next = found->next;
  out.more = found->cut;
  return out;
}

/// The buffer lives as long as one of them, so it has no room for what was left out, which may be most of the hull.
void NewOpsReader::append(const std::vector<ByteView>& ids, std::vector<Bytes>& out) {
  std::size_t bytes = 0;
  for (const ByteView id : ids) bytes += id.size();
  const auto buffer = make_buffer(bytes);
  std::uint8_t* at = buffer.get();
  for (const ByteView id : ids) {
    out.push_back(Bytes::share(buffer, {at, id.size()}));
    at = std::copy(id.begin(), id.end(), at);
  }
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
