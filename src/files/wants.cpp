// The ops that a fetch of files wants, and their sources.
#include "files/wants.hpp"

#include <algorithm>

namespace kitsune2::files {

Wants::Wants(Runtime& runtime, std::shared_ptr<Space> space, std::shared_ptr<FilesHandler> handler, AgentId self,
             Options options)
    : runtime_(runtime),
      space_(std::move(space)),
      handler_(std::move(handler)),
      self_(std::move(self)),
      options_(std::move(options)) {}

void Wants::start() {
  last_byte_ = changed_at_ = runtime_.now();
  polled_at_ = runtime_.now() - kPollEvery;
  wait_since_ = runtime_.now();
  received_before_ = space_->fetch().stats().bytes_received;
  FetchEvents events;
  const std::weak_ptr<Wants> weak = weak_from_this();
  events.ops_stored = [weak](const Url& peer, const std::vector<StoredOp>& ops, std::uint64_t bytes) {
    if (auto self = weak.lock()) self->on_stored(peer, ops, bytes);
  };
  events.ops_missing = [weak](const Url& peer, const std::vector<OpId>& ops) {
    if (auto self = weak.lock()) self->on_lacking(peer, ops);
  };
  events.peer_given_up = [weak](const Url& peer, const std::vector<OpId>&) {
    auto self = weak.lock();
    if (!self || self->stopped_) return;
    if (const auto it = self->sources_.find(peer); it != self->sources_.end()) it->second.dropped = true;
  };
  events.store_failed = [weak](const Error& error) {
    auto self = weak.lock();
    if (!self || self->stopped_) return;
    self->figures_.store_error = error;
    self->publish();
  };
  events.ops_unserved = [weak](const Url& peer, const std::vector<OpId>& ops, const std::vector<OpId>&) {
    if (auto self = weak.lock(); self && !self->stopped_) self->on_unserved(peer, ops);
  };
  fetch_subscription_ = space_->fetch().subscribe(std::move(events));
  OpStoreEvents stored;
  stored.ops_damaged = [weak](const std::vector<OpRecord>& ops) {
    if (auto self = weak.lock(); self && !self->stopped_) self->on_damaged(ops);
  };
  store_subscription_ = space_->op_store().subscribe(std::move(stored));
  handler_->on_pong([weak](const Url& from) {
    auto self = weak.lock();
    if (!self || self->stopped_) return;
    if (const auto it = self->sources_.find(from); it != self->sources_.end()) ++it->second.pongs;
    self->on_heard(from);
  });
  subscription_ = space_->peer_store().on_update([weak](const AgentInfoPtr& info) {
    if (auto self = weak.lock(); self && !self->stopped_) self->on_info(*info);
  });
  tick();
}

void Wants::stop() {
  if (stopped_) return;
  stopped_ = true;
  runtime_.cancel(timer_);
  subscription_.reset();
  handler_->on_pong({});
  fetch_subscription_.reset();
  store_subscription_.reset();
  lifetime_.end();
  publish();
}

void Wants::notice(const std::string& text) {
  if (options_.notice) options_.notice(text);
}

bool Wants::is_live(const Source& source) const { return source.heard && runtime_.now() - *source.heard <= kLiveFor; }

std::size_t Wants::live_count() const {
  if (!space_->current_url()) return 0;  // no url: nobody can answer, whatever was heard before
  return static_cast<std::size_t>(
      std::count_if(sources_.begin(), sources_.end(), [&](const auto& entry) { return is_live(entry.second); }));
}

void Wants::tick() {
  if (stopped_) return;
  look_for_sources();
  look_at_bytes();
  ping();
  judge();
  look_at_wait();
  const bool now_live = live_count() > 0;
  if (was_live_ && !now_live && is_wanted()) notice("no source answers now");
  was_live_ = now_live;
  if (!now_live && runtime_.now() - polled_at_ >= kPollEvery) {
    polled_at_ = runtime_.now();
    space_->bootstrap().poll_now();
  }
  publish();
  timer_ = runtime_.schedule_after(options_.tick, lifetime_.guard([this] { tick(); }));
}

/// W5: counts the bytes since the last look. Those of a source that sends damaged ops keep the source alive, but give
/// no reason to hope for more: it may send them for ever.
void Wants::look_at_bytes() {
  const Fetch& fetch = space_->fetch();
  figures_.received_bytes = fetch.stats().bytes_received - received_before_;
  if (!is_wanted()) last_byte_ = runtime_.now();
  std::vector<Url> heard_of;
  for (auto& [url, source] : sources_) {
    const FetchLoad load = fetch.load(url);
    const bool is_bad = load.source_refused_ops > 0;
    if (load.source_received_bytes > source.received) {
      heard_of.push_back(url);
      if (!is_bad) last_byte_ = runtime_.now();
    }
    source.received = load.source_received_bytes;
    if (is_bad && !std::exchange(source.said_bad, true) && options_.bad_source) options_.bad_source(url);
  }
  for (const auto& url : heard_of) on_heard(url);
}

/// W6.
std::pair<FetchWait, std::string> Wants::reason_to_wait(bool for_long) const {
  if (!space_->current_url()) {
    const auto failure = space_->transport_failure();
    if (!failure) return {FetchWait::connecting, "connecting to the relay"};
    return {FetchWait::relay, "the relay cannot be reached: " + printable(failure->error.message)};
  }
  if (sources_.empty()) {
    const auto bootstrap = space_->bootstrap().status();
    if (bootstrap.failure) {
      return {FetchWait::bootstrap, "the bootstrap server does not answer: " + printable(bootstrap.failure->message)};
    }
    if (!bootstrap.has_answered) return {FetchWait::connecting, "asking the bootstrap server for sources"};
    if (others_ == 0) {
      return {FetchWait::empty_space, for_long ? "no other node is in the space; is the link right, and does somebody "
                                                 "share it now?"
                                               : "no other node is in the space yet"};
    }
    return {FetchWait::no_source, "nodes in the space: " + std::to_string(others_) + ", but none of them shares"};
  }
  const std::string known = sources_.size() == 1 ? "1 source is known and has"
                                                 : std::to_string(sources_.size()) + " sources are known and have";
  return {FetchWait::no_answer,
          known + (for_long ? " not answered for a while; perhaps offline" : " not answered yet")};
}

void Wants::look_at_wait() {
  const auto now = runtime_.now();
  std::pair<FetchWait, std::string> wait{FetchWait::nothing, {}};
  if (live_count() == 0 && is_wanted()) {
    wait = reason_to_wait(false);
    figures_.wait_hint = reason_to_wait(true).second;
    if (wait.first == figures_.wait && now - wait_since_ >= kHintAfter) wait.second = figures_.wait_hint;
  }
  if (wait.first != figures_.wait) wait_since_ = now;
  figures_.wait = wait.first;
  figures_.wait_reason = std::move(wait.second);
}

/// Returns the url at which an info offers ops (W4); null if it is this node's own, or offers none.
const Url* Wants::offer_of(const AgentInfoSigned& info, const std::optional<Url>& own_url, Timestamp wall) {
  const AgentInfo& agent = info.info();
  if (agent.agent == self_ || !agent.url || agent.url == own_url || agent.is_tombstone || info.is_expired(wall)) {
    return nullptr;
  }
  ++others_;
  return agent.storage_arc.empty() ? nullptr : &*agent.url;
}

/// W7.
void Wants::on_info(const AgentInfoSigned& info) {
  const Url* const url = offer_of(info, space_->current_url(), runtime_.wall_now());
  if (url == nullptr || sources_.count(*url) != 0) return;
  Places places = look_at_places();
  static_cast<void>(add_source(*url, places));
}

void Wants::look_for_sources() {
  const auto own_url = space_->current_url();
  const auto wall = runtime_.wall_now();
  std::unordered_set<Url> offered;
  others_ = 0;
  for (const auto& info : space_->peer_store().get_all()) {
    if (const Url* const url = offer_of(*info, own_url, wall)) offered.insert(*url);
  }
  for (auto it = sources_.begin(); it != sources_.end();) {
    if (offered.count(it->first) != 0) {
      ++it;
      continue;
    }
    if (it->second.told) notice("source " + it->first.to_string() + " is gone");
    space_->fetch().remove_source(it->first);
    it = sources_.erase(it);
  }
  std::vector<const Url*> fresh;
  for (const auto& url : offered) {
    if (sources_.count(url) == 0) fresh.push_back(&url);
  }
  // Where there is no room for all, the sources take turns.
  Places places = fresh.empty() ? Places() : look_at_places();
  for (std::size_t i = 0; i < fresh.size(); ++i) {
    if (!add_source(*fresh[next_fresh_++ % fresh.size()], places)) break;
  }
  rotate_unproven();
  if (!sources_.empty()) forget_stale();
}

Wants::Places Wants::look_at_places() const {
  Places out;
  for (const auto& [url, source] : sources_) {
    if (source.proven) continue;
    if (source.asked_at) ++out.asked;
    if (sources_.size() >= kMaxSources && runtime_.now() - source.found_at > kTryFor) out.silent.push_back(url);
  }
  return out;
}

/// W8. Returns false if there is no room.
bool Wants::add_source(const Url& url, Places& places) {
  if (sources_.count(url) != 0) return true;
  if (sources_.size() >= kMaxSources) {
    // A source that had its time and stayed silent makes room.
    if (places.silent.empty()) return false;
    const auto silent = sources_.find(places.silent.back());
    places.silent.pop_back();
    if (silent->second.asked_at) --places.asked;
    space_->fetch().remove_source(silent->first);
    sources_.erase(silent);
  }
  Source& source = sources_[url];
  source.serial = next_serial_++;
  source.found_at = runtime_.now();
  source.told = source.serial <= kToldSources;
  changed_at_ = runtime_.now();
  if (source.told) notice("found a source: " + url.to_string());
  if (places.asked < kUnprovenAsked) {
    ++places.asked;
    ask_first(url, source);
  }
  return true;
}

void Wants::ask_first(const Url& url, Source& source) {
  source.asked_at = runtime_.now();
  source.asked_ops = 0;
  ask_all(url);
}

/// Gives others their turn if some that were asked have not answered.
void Wants::rotate_unproven() {
  std::vector<Url> waiting;
  std::size_t asked = 0;
  for (const auto& [url, source] : sources_) {
    if (source.proven) continue;
    if (source.asked_at) {
      ++asked;
    } else if (waiting.size() < kUnprovenAsked) {
      waiting.push_back(url);
    }
  }
  for (auto& [url, source] : sources_) {
    if (asked + waiting.size() <= kUnprovenAsked) break;  // there is room for all
    if (source.proven || !source.asked_at || runtime_.now() - *source.asked_at <= kLiveFor) continue;
    source.asked_at.reset();
    space_->fetch().remove_source(url);
    --asked;
  }
  for (const auto& url : waiting) {
    if (asked >= kUnprovenAsked) break;
    ++asked;
    ask_first(url, sources_.at(url));
  }
}

/// Requests of an earlier run to urls that no agent has any more would only time out.
void Wants::forget_stale() {
  if (std::exchange(stale_forgotten_, true)) return;
  std::unordered_set<Url> stale;
  for (const auto& [op, urls] : space_->fetch().state_summary().pending_requests) {
    for (const auto& url : urls) {
      if (sources_.count(url) == 0) stale.insert(url);
    }
  }
  for (const auto& url : stale) space_->fetch().remove_source(url);
}

void Wants::ask_all(const Url& url) {
  std::vector<OpId> ids;
  ids.reserve(pending_.size() + missing_.size());
  for (const auto& [id, item] : pending_) ids.push_back(id);
  for (const auto& [id, item] : missing_) ids.push_back(id);
  ask(url, std::move(ids));
}

void Wants::ask(const Url& url, std::vector<OpId> ids) {
  Source& source = sources_.at(url);
  if (!source.proven) {
    if (!source.asked_at) return;
    ids.resize(std::min(ids.size(), kUnprovenOps - std::min(kUnprovenOps, source.asked_ops)));
    source.asked_ops += ids.size();
  }
  if (ids.empty()) return;
  space_->fetch().request_ops(std::move(ids), url, lifetime_.guard([this, url](const Result<void>& asked) {
    if (asked) return;
    if (const auto it = sources_.find(url); it != sources_.end()) it->second.dropped = true;
  }));
}

void Wants::ping() {
  const auto now = runtime_.now();
  const Duration missing_after = options_.missing_after;
  const bool doubtful = now - last_byte_ >= std::min<Duration>(std::chrono::seconds(1), missing_after / 4);
  const Duration normal =
      doubtful ? std::clamp<Duration>(missing_after / 4, std::chrono::milliseconds(50), kPingEvery) : kPingEvery;
  for (auto& [url, source] : sources_) {
    if (source.pinging) continue;
    // A source that has never answered is asked less and less often: there may be many that do not exist.
    const Duration every = source.proven ? normal : normal * (1 << std::min(source.pings, 3U));
    if (source.pinged && now - *source.pinged < every) continue;
    if (!doubtful && source.heard && now - *source.heard < kPingEvery) continue;
    source.pinging = true;
    source.pinged = now;
    ++source.pings;
    const auto serial = source.serial;
    handler_->ping(url, lifetime_.guard([this, url = url, serial] {
      const auto it = sources_.find(url);
      if (it != sources_.end() && it->second.serial == serial) it->second.pinging = false;
    }));
  }
}

void Wants::on_heard(const Url& url) {
  const auto it = sources_.find(url);
  if (it == sources_.end()) return;
  if (!is_live(it->second)) changed_at_ = runtime_.now();  // it gets time to answer
  it->second.heard = runtime_.now();
  const bool is_new = !std::exchange(it->second.proven, true);
  if (std::exchange(it->second.dropped, false) || is_new) ask_all(url);
}

void Wants::add(std::vector<Want> wants, Handler<> done) {
  std::vector<OpId> ids;
  ids.reserve(wants.size());
  std::unordered_set<OpId> seen;
  for (const auto& want : wants) {
    if (seen.insert(want.id).second) ids.push_back(want.id);
  }
  ++filters_;
  auto shared = std::make_shared<std::vector<Want>>(std::move(wants));
  space_->op_store().filter_out_existing_ops(
      std::move(ids), lifetime_.guard([this, shared, done = std::move(done)](Result<std::vector<OpId>> lacking) {
        --filters_;
        if (lacking) on_filtered(std::move(*shared), *lacking);
        if (filters_ == 0) stored_meanwhile_.clear();
        publish();
        if (lacking) {
          done(Result<void>());
        } else {
          done(lacking.error());
        }
      }));
}

void Wants::on_filtered(std::vector<Want> wants, const std::vector<OpId>& lacking) {
  const std::unordered_set<OpId> not_held(lacking.begin(), lacking.end());
  std::vector<OpId> fresh;
  for (const auto& want : wants) {
    const std::uint64_t refs = want.counted ? 1 : 0;
    if (not_held.count(want.id) == 0 || stored_meanwhile_.count(want.id) != 0) {
      figures_.ops_held += refs;
      figures_.bytes_held += refs * want.bytes;
      if (not_held.count(want.id) == 0) figures_.held_before += refs;
      continue;
    }
    const auto known = missing_.find(want.id);
    if (known != missing_.end()) {
      known->second.refs += refs;
      continue;
    }
    auto [it, inserted] = pending_.try_emplace(want.id);
    it->second.bytes = want.bytes;
    it->second.refs += refs;
    if (inserted) fresh.push_back(want.id);
  }
  if (fresh.empty()) return;
  changed_at_ = runtime_.now();
  ask_everybody(fresh);
}

void Wants::ask_everybody(const std::vector<OpId>& ids) {
  // Sources take turns at being first, so that each has work from the start.
  std::vector<Url> urls;
  for (const auto& [url, source] : sources_) urls.push_back(url);
  std::sort(urls.begin(), urls.end());
  if (!urls.empty()) {
    std::rotate(urls.begin(), urls.begin() + static_cast<std::ptrdiff_t>(turn_++ % urls.size()), urls.end());
  }
  for (const auto& url : urls) ask(url, ids);
}

void Wants::hold(const Item& item) {
  figures_.ops_held += item.refs;
  figures_.bytes_held += item.refs * item.bytes;
}

void Wants::on_stored(const Url& peer, const std::vector<StoredOp>& ops, std::uint64_t bytes) {
  if (stopped_) return;
  for (const auto& op : ops) {
    if (filters_ > 0) stored_meanwhile_.insert(op.op_id);
    for (auto* map : {&pending_, &missing_}) {
      const auto it = map->find(op.op_id);
      if (it == map->end()) continue;
      hold(it->second);
      map->erase(it);
    }
    suspects_.erase(op.op_id);
  }
  figures_.fetched_ops += ops.size();
  figures_.fetched_bytes += bytes;
  last_byte_ = runtime_.now();
  for (auto& [url, source] : sources_) source.pongs = 0;
  on_heard(peer);
  publish();
}

void Wants::on_lacking(const Url& peer, const std::vector<OpId>& ops) {
  if (stopped_) return;
  const auto source = sources_.find(peer);
  if (source == sources_.end()) return;
  const auto serial = source->second.serial;
  for (const auto& id : ops) {
    const auto it = pending_.find(id);
    if (it == pending_.end()) continue;
    auto& lacking = it->second.lacking;
    if (std::find(lacking.begin(), lacking.end(), serial) == lacking.end()) lacking.push_back(serial);
    suspects_.insert(id);
  }
  on_heard(peer);
  judge();
  publish();
}

/// The fetch module no longer asks this source for them, but the ops may still appear there.
void Wants::on_unserved(const Url& peer, std::vector<OpId> ops) {
  if (sources_.count(peer) == 0) return;
  std::erase_if(ops, [this](const OpId& id) { return pending_.count(id) == 0 && missing_.count(id) == 0; });
  ask(peer, std::move(ops));
}

bool Wants::quiet_and_answering() const {
  if (live_count() == 0 || filters_ > 0) return false;
  if (runtime_.now() - std::max(last_byte_, changed_at_) < Duration(options_.missing_after)) return false;
  const auto back_off = space_->fetch().state_summary().peers_on_backoff;
  for (const auto& [url, source] : sources_) {
    if (!is_live(source)) continue;
    if (source.pongs < 2 || source.dropped || back_off.count(url) != 0) return false;
  }
  return true;
}

void Wants::judge() {
  if (!suspects_.empty()) {
    std::vector<std::uint32_t> living;
    for (const auto& [url, source] : sources_) {
      if (is_live(source)) living.push_back(source.serial);
    }
    for (auto it = suspects_.begin(); it != suspects_.end() && !living.empty();) {
      const auto item = pending_.find(*it);
      if (item == pending_.end()) {
        it = suspects_.erase(it);
        continue;
      }
      const auto& lacking = item->second.lacking;
      const bool nobody = std::all_of(living.begin(), living.end(), [&](std::uint32_t serial) {
        return std::find(lacking.begin(), lacking.end(), serial) != lacking.end();
      });
      if (!nobody) {
        ++it;
        continue;
      }
      missing_.emplace(*it, std::move(item->second));
      pending_.erase(item);
      it = suspects_.erase(it);
    }
  }
  const bool idle = pending_.empty() && missing_.empty();
  const bool quiet = !idle && quiet_and_answering();
  if (quiet && !pending_.empty()) recheck();
  figures_.settled = quiet && pending_.empty();
}

/// The last check before ops are reported missing: the store itself says what it holds.
void Wants::recheck() {
  if (std::exchange(rechecking_, true)) return;
  std::vector<OpId> ids;
  ids.reserve(pending_.size());
  for (const auto& [id, item] : pending_) ids.push_back(id);
  auto asked = ids;
  space_->op_store().filter_out_existing_ops(
      std::move(ids), lifetime_.guard([this, asked = std::move(asked)](Result<std::vector<OpId>> lacking) {
        rechecking_ = false;
        if (!lacking) return;
        const std::unordered_set<OpId> not_held(lacking->begin(), lacking->end());
        const bool still_quiet = quiet_and_answering();
        for (const auto& id : asked) {
          const auto it = pending_.find(id);
          if (it == pending_.end()) continue;
          if (not_held.count(id) == 0) {
            hold(it->second);
          } else if (still_quiet) {
            missing_.emplace(id, std::move(it->second));
          } else {
            continue;
          }
          suspects_.erase(id);
          pending_.erase(it);
        }
        publish();
      }));
}

/// W9.
void Wants::on_damaged(const std::vector<OpRecord>& ops) {
  std::vector<OpId> fresh;
  for (const auto& op : ops) {
    if (missing_.count(op.op_id) != 0) continue;
    // Who looks between the drop and this event finds the op absent and adds it to the wants; it counts all the same.
    if (pending_.try_emplace(op.op_id).second) {
      fresh.push_back(op.op_id);
      stored_meanwhile_.erase(op.op_id);
    }
    if (figures_.damaged++ < kToldDamaged)
      notice("an op was damaged on the disk and is fetched again: " + op.op_id.to_string());
  }
  if (fresh.empty()) return;
  changed_at_ = last_byte_ = runtime_.now();  // it is requested from now on
  ask_everybody(fresh);
  publish();
}

bool Wants::is_pending(const std::vector<OpId>& ids) const {
  return std::any_of(ids.begin(), ids.end(), [this](const OpId& id) { return pending_.count(id) != 0; });
}

std::vector<OpId> Wants::missing_of(const std::vector<OpId>& ids) const {
  std::vector<OpId> out;
  for (const auto& id : ids) {
    if (missing_.count(id) != 0) out.push_back(id);
  }
  return out;
}

std::vector<OpId> Wants::all_missing() const {
  std::vector<OpId> out;
  out.reserve(missing_.size());
  for (const auto& [id, item] : missing_) out.push_back(id);
  return out;
}

void Wants::poke() {
  {
    const std::lock_guard lock(mutex_);
    ++view_.epoch;
  }
  changed_.notify_all();
}

void Wants::publish() {
  figures_.pending = pending_.size();
  figures_.missing = missing_.size();
  figures_.sources = sources_.size();
  figures_.live_sources = live_count();
  const bool is_waiting = figures_.live_sources == 0 && is_wanted();
  if (is_waiting != (figures_.wait != FetchWait::nothing)) look_at_wait();
  figures_.bytes_arriving = space_->fetch().load({}).arriving_bytes;
  figures_.quiet = is_wanted() ? std::chrono::duration_cast<std::chrono::milliseconds>(runtime_.now() - last_byte_)
                               : std::chrono::milliseconds(0);
  {
    const std::lock_guard lock(mutex_);
    const auto epoch = view_.epoch + 1;
    view_ = figures_;
    view_.epoch = epoch;
  }
  changed_.notify_all();
}

WantsView Wants::view() const {
  const std::lock_guard lock(mutex_);
  return view_;
}

WantsView Wants::wait(std::uint64_t epoch, std::chrono::milliseconds limit) const {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, limit, [&] { return view_.epoch != epoch; });
  return view_;
}

}  // namespace kitsune2::files
