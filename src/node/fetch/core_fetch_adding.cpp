// The part of the fetch module that makes ops pending: look-ups, bounds, and the record in the op store.
#include <algorithm>
#include <iterator>
#include <utility>

#include "node/fetch/core_fetch.hpp"

namespace kitsune2 {
namespace {

/// As in WireLimits: an id that a peer would refuse is not requested.
constexpr std::size_t kMaxIdBytes = 1024;
/// The part of max_offered_bytes that the offers of newcomers may fill: what a peer names without ever having sent
/// anything is kept in memory and on the disk until it is given up, and must not take the room of peers that send.
constexpr std::uint64_t kNewcomersPart = 5;
/// A count looks at each source.
constexpr Duration kCountNewcomersEvery = std::chrono::seconds(1);
/// The number of open requests of an earlier run that are read at a time.
constexpr std::size_t kResumePiece = 16'384;

}  // namespace

// ---------------------------------------------------------------- what an earlier run left open

void CoreFetch::resume(std::uint64_t after) {
  resuming_ = true;
  if (filters_ == 0) stored_meanwhile_.clear();  // the piece that is being read leaves it out
  ++store_calls_;
  store_->retrieve_pending_page(after, kResumePiece, lifetime_.guard([this, after](const Result<PendingPage>& page) {
    if (!page && !stopped_) {
      // Unknown is not none: until they are read, nobody is told that nothing is pending.
      if (resume_gate_.open(runtime_.now()))
        log::warn("fetch", "cannot read the open requests of an earlier run: " + page.error().to_string());
      const auto delay = std::chrono::milliseconds(config_.re_insert_outgoing_request_delay_ms);
      runtime_.schedule_after(delay, lifetime_.guard([this, after] {
        if (!stopped_) resume(after);
      }));
      return on_store_call_done();
    }
    resuming_ = false;
    if (!stopped_) {
      for (const auto& [kept_source, kept_ids] : page->requests) {
        const auto source = current(kept_source, 0);
        if (!source) continue;
        auto op_ids = kept_ids;
        std::erase_if(op_ids, [&](const OpId& id) { return stored_meanwhile_.contains(id); });
        const auto added = core_.add(op_ids, *source, runtime_.now());
        if (added.refused == 0) continue;
        log::warn("fetch", "too many open requests: " + std::to_string(added.refused) + " to " + source->to_string() +
                               " stay in the store until the next start");
      }
      if (page->next) resume(*page->next);
    }
    on_lookup_ended();
    if (!resuming_) pump();
    check_drained();
    on_store_call_done();
  }));
}

void CoreFetch::on_lookup_ended() {
  if (filters_ > 0 || resuming_) return;
  stored_meanwhile_.clear();
  moved_meanwhile_.clear();
}

/// The current url of a source after what happened meanwhile, from the move `since` on; nullopt if it was removed.
std::optional<Url> CoreFetch::current(const Url& source, std::size_t since) const {
  std::optional<Url> out = source;
  for (std::size_t i = since; i < moved_meanwhile_.size() && out; ++i) {
    const auto& [old_url, new_url] = moved_meanwhile_[i];
    if (*out == old_url) out = new_url;
  }
  return out;
}

// ---------------------------------------------------------------- adding

void CoreFetch::request_ops(std::vector<OpId> op_ids, const Url& source, Handler<> done) {
  assert_on_strand(runtime_, "Fetch::request_ops");
  request(std::move(op_ids), {}, source, std::move(done));
}

void CoreFetch::request_offered_ops(std::vector<OpId> op_ids, const Url& peer, Handler<> done) {
  assert_on_strand(runtime_, "Fetch::request_offered_ops");
  offer(std::move(op_ids), {}, peer, std::move(done));
}

void CoreFetch::request_published_ops(std::vector<PublishOp> ops, const Url& peer, Handler<> done) {
  assert_on_strand(runtime_, "Fetch::request_published_ops");
  std::vector<OpId> op_ids;
  op_ids.reserve(ops.size());
  Metadata metadata;
  for (PublishOp& op : ops) {
    if (!op.metadata.empty()) metadata.emplace(op.op_id, std::move(op.metadata));
    op_ids.push_back(std::move(op.op_id));
  }
  offer(std::move(op_ids), std::move(metadata), peer, std::move(done));
}

/// False: there is no room.
bool CoreFetch::keep_metadata(const OpId& op_id, const Url& source, const Bytes& metadata) {
  metadata_.set_outside(judged_metadata_ + writer_.metadata_cost());
  if (metadata_.keep(op_id, source, metadata, !budget_->is_known(source))) return true;
  ++stats_.metadata_dropped;
  return false;
}

void CoreFetch::forget_metadata(Adding& adding) {
  for (const OpId& id : std::exchange(adding.described, {})) {
    if (!core_.has(id, adding.source)) metadata_.forget(id, adding.source);
  }
}

void CoreFetch::offer(std::vector<OpId> op_ids, Metadata metadata, const Url& peer, Handler<> done) {
  Result<void> outcome;
  if (!offer_wanted_ || offer_wanted_(peer)) {
    if (budget_->charge(peer, cost_of_offer(op_ids.size())) != PeerStanding::good) {
      outcome = make_error(Errc::overloaded, "the peer is over its budget");
    } else if (!take_room_for_offer(op_ids, peer)) {
      outcome = make_error(Errc::overloaded, "too many offered ops are pending");
    } else {
      return request(std::move(op_ids), std::move(metadata), peer, std::move(done));
    }
  }
  runtime_.post([done = std::move(done), outcome = std::move(outcome)] { done(outcome); });
}

void CoreFetch::count_newcomers() {
  const Time now = runtime_.now();
  if (newcomers_counted_at_ && now < *newcomers_counted_at_ + kCountNewcomersEvery) return;
  newcomers_counted_at_ = now;
  newcomers_bytes_ = 0;
  core_.for_each_source([this](const Url& url, std::uint64_t pairs) {
    if (!budget_->is_known(url)) newcomers_bytes_ += pairs * FetchLoad::kPairBytes;
  });
}

/// Newcomers have a part of the room together, whatever the known peers have taken of it.
bool CoreFetch::take_room_for_offer(const std::vector<OpId>& op_ids, const Url& peer) {
  const FetchLoad now = load(peer);
  std::uint64_t offered = op_ids.size() * FetchLoad::kPairBytes;
  for (const OpId& id : op_ids) offered += id.size() - std::min<std::size_t>(id.size(), 32);
  if (now.bytes + offered > config_.max_offered_bytes) return false;
  const bool is_newcomer = !budget_->is_known(peer);
  const std::uint64_t room = config_.max_offered_bytes / (is_newcomer ? kNewcomersPart : 1);
  if (is_newcomer) count_newcomers();
  const std::uint64_t taken = is_newcomer ? newcomers_bytes_ : now.bytes;
  const std::uint64_t own = now.source_pairs * FetchLoad::kPairBytes;
  const std::uint64_t others = taken - std::min(own, taken);
  if (taken + offered > room || own + offered > (room - std::min(others, room)) / 4) return false;
  if (is_newcomer) newcomers_bytes_ += offered;
  return true;
}

void CoreFetch::request(std::vector<OpId> op_ids, Metadata metadata, const Url& source, Handler<> done) {
  const auto finish = [&](Result<void> result) {
    runtime_.post([done = std::move(done), result = std::move(result)] { done(result); });
  };
  if (stopped_) return finish(make_error(Errc::cancelled, "fetch is stopped"));
  if (!source.is_peer()) {
    return finish(make_error(Errc::invalid_argument, "not the url of a peer: " + source.to_string()));
  }
  if (transport_->url() == source) {
    return finish(make_error(Errc::invalid_argument, "ops are not fetched from this node itself"));
  }
  const auto bad = [](const OpId& id) { return id.empty() || id.size() > kMaxIdBytes; };
  if (std::any_of(op_ids.begin(), op_ids.end(), bad)) {
    return finish(make_error(Errc::invalid_argument, "op ids have 1 to 1024 bytes"));
  }
  for (const auto& [id, about] : metadata) {
    if (core_.has(id, source)) keep_metadata(id, source, about);
  }
  // Pending ops need not be looked up. But the caller is promised durability, so it waits for their writes.
  bool any_known = false;
  if (core_.pending_pairs(source) > 0 && !persists_.has_unwritten(source)) {
    any_known = core_.take_known(op_ids, source) > 0;
  }
  if (op_ids.empty()) {
    if (any_known && persists_.is_open()) return persists_.wait(std::move(done));
    return finish({});
  }
  const std::uint64_t count = op_ids.size();
  if (count > config_.max_pending_per_peer || core_.pending_pairs() + adding_ + count > config_.max_pending) {
    return finish(make_error(Errc::overloaded, std::to_string(core_.pending_pairs()) + " requests are pending"));
  }
  adding_ += count;
  auto adding = std::make_shared<Adding>(Adding{std::move(op_ids), source, std::move(done)});
  for (const auto& [id, about] : metadata) {
    if (!core_.has(id, source) && keep_metadata(id, source, about)) adding->described.push_back(id);
  }
  adding->any_known = any_known;
  adding->failures = persists_.failures();
  // Where the bound might refuse the list, that is decided for the whole list at once.
  const bool fits = core_.pending_pairs(source) + adding_ <= config_.max_pending_per_peer && !resuming_;
  adding->piece = fits ? std::size_t{config_.parallel_request_count} * config_.max_ids_per_request : count;
  if (keep_pending_) adding->persist = persists_.begin();
  look_up(adding);
}

void CoreFetch::look_up(const std::shared_ptr<Adding>& adding) {
  const std::size_t count = std::min(adding->piece, adding->op_ids.size() - adding->looked_up);
  const auto first = std::make_move_iterator(adding->op_ids.begin() + static_cast<std::ptrdiff_t>(adding->looked_up));
  std::vector<OpId> piece(first, first + static_cast<std::ptrdiff_t>(count));
  adding->looked_up += count;
  adding->moves_seen = moved_meanwhile_.size();
  ++filters_;
  ++store_calls_;
  store_->filter_out_existing_ops(std::move(piece),
                                  lifetime_.guard([this, adding, count](Result<std::vector<OpId>> result) {
                                    adding_ -= count;
                                    --filters_;
                                    on_looked_up(adding, std::move(result));
                                    check_drained();
                                    on_store_call_done();
                                  }));
}

void CoreFetch::on_looked_up(const std::shared_ptr<Adding>& adding, Result<std::vector<OpId>> result) {
  Result<void> ok;
  if (stopped_) {
    ok = make_error(Errc::cancelled, "fetch is stopped");
  } else if (!result) {
    ok = result.error().context("looking up ops");
  } else if (auto source = current(adding->source, adding->moves_seen)) {
    adding->source = std::move(*source);
    ok = add(*adding, *result);
  } else {
    // What earlier pieces made pending was removed with the source, in the store too.
    adding->open = 0;
    ok = make_error(Errc::cancelled, "the source " + adding->source.to_string() + " was removed meanwhile");
  }
  on_lookup_ended();
  const std::size_t left = adding->op_ids.size() - adding->looked_up;
  if (ok && left > 0) return look_up(adding);
  adding_ -= left;
  forget_metadata(*adding);
  adding->op_ids.resize(adding->open);
  if (ok && keep_pending_ && adding->open > 0) return persist(adding);
  on_added(adding, ok);
}

/// Makes ops pending in the core that a look-up found missing. For a durable store, keeps the new ones for `persist`.
Result<void> CoreFetch::add(Adding& adding, std::vector<OpId>& op_ids) {
  if (!stored_meanwhile_.empty()) {
    std::erase_if(op_ids, [&](const OpId& id) { return stored_meanwhile_.contains(id); });
  }
  std::vector<std::uint32_t> fresh;
  const auto added = core_.add(op_ids, adding.source, runtime_.now(), keep_pending_ ? &fresh : nullptr);
  if (added.refused > 0) {
    return make_error(Errc::overloaded, "too many requests to " + adding.source.to_string() + " are pending");
  }
  pump_soon();
  if (!keep_pending_) return {};
  auto next = fresh.begin();
  for (std::size_t i = 0; i < op_ids.size(); ++i) {
    const bool is_fresh = next != fresh.end() && *next == i;
    if (is_fresh) ++next;
    if (is_fresh || persists_.take_unwritten(op_ids[i], adding.source)) {
      adding.op_ids[adding.open++] = std::move(op_ids[i]);
    } else {
      adding.any_known = true;
    }
  }
  return {};
}

void CoreFetch::persist(const std::shared_ptr<Adding>& adding) {
  ++store_calls_;
  // A copy, so that it is known what is missing if the write fails.
  store_->add_pending(adding->op_ids, adding->source, lifetime_.guard([this, adding](const Result<void>& result) {
    on_added(adding, result ? result : Result<void>(result.error().context("the requests are open, but not durably")));
    on_store_call_done();
  }));
}

/// The list has been handled completely.
void CoreFetch::on_added(const std::shared_ptr<Adding>& adding, const Result<void>& result) {
  if (!result && keep_pending_ && adding->open > 0) persists_.failed(adding->source, adding->op_ids);
  std::vector<Persists::Waiting> released;
  if (adding->persist != 0) released = persists_.end(adding->persist, result.has_value());
  const auto not_durable = [] { return make_error(Errc::internal, "requests could not be made durable"); };
  if (result && adding->any_known && adding->failures != persists_.failures()) {
    // What it found pending may be among what could not be written meanwhile.
    if (adding->done) adding->done(not_durable());
  } else if (result && adding->any_known && persists_.is_open()) {
    persists_.wait(std::move(adding->done));
  } else if (adding->done) {
    adding->done(result);
  }
  for (const auto& waiting : released) {
    waiting.done(waiting.has_failed ? Result<void>(not_durable()) : Result<void>());
  }
}

// ---------------------------------------------------------------- removing

void CoreFetch::remove_source(const Url& source) {
  assert_on_strand(runtime_, "Fetch::remove_source");
  if (stopped_) return;
  name_all_of(source);
  std::erase_if(unsent_, [&](const Unsent& item) { return item.source == source; });
  server_.forget(source);
  if (filters_ > 0 || resuming_) moved_meanwhile_.emplace_back(source, std::nullopt);
  const auto gone = core_.remove_source(source, runtime_.now());
  metadata_.forget_source(source);
  // Before the store has told what an earlier run left open, that may be of this source, too.
  if (resuming_ || (gone && gone->pairs > 0)) forget_pending(source);
  pump();
  post_drained_check();
}

void CoreFetch::replace_source(const Url& old_url, const Url& new_url) {
  assert_on_strand(runtime_, "Fetch::replace_source");
  if (stopped_ || old_url == new_url || !new_url.is_peer() || transport_->url() == new_url) return;
  name_all_of(old_url);
  if (filters_ > 0 || resuming_) moved_meanwhile_.emplace_back(old_url, new_url);
  auto replaced = core_.replace_source(old_url, new_url, runtime_.now());
  if (replaced.refused > 0) {
    log::warn("fetch", "too many open requests to " + new_url.to_string() + "; those to its old url are not moved");
  }
  if (replaced.refused > 0) {
    // What is being looked up will be pending at the new url.
    std::vector<OpId> left;
    metadata_.for_each([&](const OpId& id, const Url& source) {
      if (source == old_url && !core_.has(id, source)) left.push_back(id);
    });
    return metadata_.forget(left, old_url);
  }
  metadata_.move_source(old_url, new_url);
  if (!replaced.known) return;
  std::erase_if(unsent_, [&](const Unsent& item) { return item.source == old_url; });
  if (keep_pending_) persist_replaced(std::move(replaced.moved), old_url, new_url);
  pump();
}

/// Writes the new pairs first, then removes the old ones: a crash in between leaves both, and one of them works.
void CoreFetch::persist_replaced(std::vector<OpId> op_ids, const Url& old_url, const Url& new_url) {
  const auto forget_old = [this, old_url] {
    if (core_.pending_pairs(old_url) == 0) forget_pending(old_url);
  };
  if (op_ids.empty()) return forget_old();
  auto adding = std::make_shared<Adding>();
  adding->open = op_ids.size();
  adding->op_ids = std::move(op_ids);
  adding->source = new_url;
  adding->persist = persists_.begin();
  adding->done = [new_url, forget_old](const Result<void>& result) {
    if (result) return forget_old();
    log::warn("fetch", "cannot move requests to " + new_url.to_string() + ": " + result.error().to_string());
  };
  persist(adding);
}

void CoreFetch::forget_pending(const Url& source) {
  persists_.forget(source);
  if (!keep_pending_) return;
  ++store_calls_;
  store_->remove_pending_source(source, lifetime_.guard([this, source](const Result<void>& result) {
    if (!result)
      log::warn("fetch", "cannot remove the requests to " + source.to_string() + ": " + result.error().to_string());
    on_store_call_done();
  }));
}

}  // namespace kitsune2
