// A second fetch core that is slow and plain, and a driver that runs both through the same commands and compares them.
//
// FetchTwin keeps everything in vectors and searches them: no index, no list, no order that is kept up. What it says
// follows from the rules in src/core/fetch_core.hpp one by one. run_fetch_twins() reads commands from bytes, so that a
// random test and a fuzzer share it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/fetch_core.hpp"

namespace kitsune2::model {

class FetchTwin {
 public:
  explicit FetchTwin(const CoreFetchConfig& config) : config_(config) {}

  FetchAdded add(const std::vector<OpId>& op_ids, const Url& url, Time now) {
    advance(now);
    FetchAdded out;
    std::vector<OpId> fresh;
    for (const OpId& id : op_ids) {
      const Op* op = find(id);
      const bool known = op != nullptr && pair_of(*op, url) != nullptr;
      if (known || std::find(fresh.begin(), fresh.end(), id) != fresh.end()) {
        ++out.known;
      } else {
        fresh.push_back(id);
      }
    }
    std::uint64_t all = 0;
    for (const Op& op : ops_) all += op.pairs.size();
    if (all + fresh.size() > config_.max_pending || pairs_at(url) + fresh.size() > config_.max_pending_per_peer) {
      if (!fresh.empty()) {
        out.refused = fresh.size();
        return out;
      }
    }
    if (!op_ids.empty() && source(url) == nullptr) {
      sources_.push_back({url, ++ages_});
      sources_.back().most_ids = std::min<std::uint64_t>(32, config_.max_ids_per_request);
    }
    for (const OpId& id : fresh) {
      Op* op = find(id);
      if (op == nullptr) {
        ops_.emplace_back().id = id;
        op = &ops_.back();
      }
      op->pairs.push_back({url});
      enter(op->pairs.back(), op->state == State::queued ? Place::ready : Place::idle);
    }
    out.added = fresh.size();
    return out;
  }

  std::optional<FetchRequest> next_request(Time now) {
    advance(now);
    Source* best = nullptr;
    for (Source& each : sources_) {
      if (!can_be_asked(each)) continue;
      const auto rank = [this](const Source& s) { return std::tuple(doubtful(s), s.turn, s.age); };
      if (best == nullptr || rank(each) < rank(*best)) best = &each;
    }
    if (best == nullptr) return std::nullopt;
    // The queue of that source, first come first.
    std::vector<Op*> queue;
    for (Op& op : ops_) {
      const Pair* pair = pair_of(op, best->url);
      if (pair != nullptr && pair->place == Place::ready) queue.push_back(&op);
    }
    std::sort(queue.begin(), queue.end(),
              [&](const Op* a, const Op* b) { return pair_of(*a, best->url)->order < pair_of(*b, best->url)->order; });

    std::uint64_t limit = best->most_ids;
    if (best->op_size > 0) {
      limit = std::min(limit, std::max<std::uint64_t>(1, config_.target_request_bytes / best->op_size));
    }
    if (doubtful(*best)) {
      limit = std::min<std::uint64_t>(limit, 16);
    } else {
      std::uint64_t able = 0;
      for (const Source& each : sources_) able += can_be_asked(each) && !doubtful(each) ? 1 : 0;
      const std::uint64_t places = (config_.parallel_request_count - open_requests(best->url)) *
                                   std::min<std::uint64_t>(queue.front()->pairs.size(), able);
      std::uint64_t share = queue.size() / places;
      if (share * places < queue.size()) ++share;
      limit = std::min(limit, std::max<std::uint64_t>(16, share));
    }
    if (queue.size() > limit) queue.resize(limit);

    Request request;
    request.id = ++request_ids_;
    request.source = best->url;
    request.begun = now_;
    request.size = queue.size();
    FetchRequest out{request.id, best->url, {}};
    for (Op* op : queue) {
      op->state = State::asked;
      op->request = request.id;
      for (Pair& pair : op->pairs) {
        if (pair.place == Place::ready) enter(pair, Place::idle);
      }
      out.op_ids.push_back(op->id);
    }
    request.asked = out.op_ids;
    best->turn = request.id;
    arm(request);
    requests_.push_back(request);
    return out;
  }

  void sent(std::uint64_t id, Time now) {
    advance(now);
    Request* request = find_request(id);
    if (request == nullptr || request->is_sent) return;
    request->is_sent = true;
    request->sent_at = now_;
    request->hostage = now_ + 15 * delay();
    request->hostage_order = ++order_;
    arm(*request);
    clear_back_off(*source(request->source));
    end_finished();
  }

  std::optional<FetchGivenUp> failed(std::uint64_t id, Time now) {
    advance(now);
    Request* request = find_request(id);
    if (request == nullptr) return std::nullopt;
    Source& from = *source(request->source);
    const bool counts = from.failures == 0 || request->begun >= from.until;
    if (counts && from.failures == config_.num_back_off_intervals) return drop(from.url);
    if (counts) {
      std::uint64_t interval = config_.first_back_off_interval_ms;
      for (std::uint32_t i = 0; i < from.failures; ++i) {
        interval = std::min<std::uint64_t>(2 * interval, config_.last_back_off_interval_ms);
      }
      ++from.failures;
      from.until = now_ + ms(interval);
      from.backing_off = true;
    }
    release(*request);
    requests_.erase(requests_.begin() + (request - requests_.data()));
    return std::nullopt;
  }

  std::uint64_t connection_lost(const Url& url, Time now) {
    advance(now);
    std::uint64_t ended = 0;
    for (const std::uint64_t id : request_ids_of(url)) {
      Request& request = *find_request(id);
      if (!request.is_sent) continue;
      Source& from = *source(url);
      const bool heard = from.last_answer >= request.sent_at;
      from.unanswered = from.unanswered || !heard;
      for (Op* op : ops_of(request)) {
        if (!heard) wait(*pair_of(*op, url), 0);
        queue(*op);
      }
      requests_.erase(requests_.begin() + (&request - requests_.data()));
      ++ended;
    }
    return ended;
  }

  void progress(const Url& url, std::uint64_t bytes, Time now) {
    advance(now);
    if (bytes > 0) sign_of_life(url);
  }

  FetchAnswer response(const Url& url, const std::vector<OpId>& op_ids, std::uint64_t bytes, Time now) {
    advance(now);
    FetchAnswer out;
    std::vector<std::uint64_t> touched;
    std::vector<std::uint64_t> completed;
    bool pending = false;
    for (const OpId& id : op_ids) {
      Op* op = find(id);
      if (op == nullptr) {
        out.verdicts.push_back(FetchVerdict::not_pending);
        continue;
      }
      pending = true;
      if (op->state == State::storing) {
        out.verdicts.push_back(FetchVerdict::duplicate);
        continue;
      }
      out.verdicts.push_back(FetchVerdict::wanted);
      if (op->state == State::asked) {
        Request& request = *find_request(op->request);
        if (request.source == url) {
          ++request.answered;
          touched.push_back(request.id);
          if (ops_of(request).size() == 1) {
            completed.push_back(request.id);
            grow(request);
          }
        }
      }
      op->state = State::storing;
      op->request = 0;
      for (Pair& pair : op->pairs) {
        if (pair.place == Place::ready) enter(pair, Place::idle);
      }
    }
    end_finished();
    Source* from = source(url);
    if (from == nullptr || !pending) return out;
    from->unanswered = false;
    from->last_answer = now_;
    const std::uint64_t size = std::max<std::uint64_t>(1, bytes / op_ids.size());
    from->op_size =
        from->op_size == 0 ? size : std::max<std::uint64_t>(1, from->op_size - from->op_size / 4 + size / 4);
    clear_back_off(*from);
    std::sort(touched.begin(), touched.end());
    touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
    std::uint64_t upto = 0;
    if (touched.size() == 1) {
      upto = touched[0];
    } else if (!completed.empty()) {
      upto = *std::max_element(completed.begin(), completed.end());
    }
    for (const std::uint64_t id : request_ids_of(url)) {
      Request& request = *find_request(id);
      if (id >= upto || !request.is_sent) continue;
      if (request.answered > 0) grow(request);
      close_as_missing(id, out.missing);
    }
    sign_of_life(url);
    return out;
  }

  std::uint64_t stored(const std::vector<OpId>& op_ids, Time now) {
    advance(now);
    std::uint64_t count = 0;
    for (const OpId& id : op_ids) {
      count += std::erase_if(ops_, [&](const Op& op) { return op.id == id; });
    }
    end_finished();
    return count;
  }

  std::vector<OpId> store_failed(const std::vector<OpId>& op_ids, Time now) {
    advance(now);
    std::vector<OpId> orphaned;
    for (const OpId& id : op_ids) {
      Op* op = find(id);
      if (op == nullptr || op->state != State::storing) continue;
      if (op->pairs.empty()) {
        orphaned.push_back(id);
        ops_.erase(ops_.begin() + (op - ops_.data()));
        continue;
      }
      op->state = State::queued;
      for (Pair& pair : op->pairs) {
        if (pair.place == Place::idle) wait(pair, 0);
      }
    }
    return orphaned;
  }

  std::optional<FetchGivenUp> remove_source(const Url& url, Time now) {
    advance(now);
    if (source(url) == nullptr) return std::nullopt;
    return drop(url);
  }

  void clear() {
    ops_.clear();
    requests_.clear();
    sources_.clear();
  }

  FetchDue poll(Time now) {
    advance(now);
    FetchDue out;
    for (Source& each : sources_) {
      if (each.backing_off && each.until <= now_) each.backing_off = false;
    }
    for (const std::uint64_t id :
         due_requests([](const Request& r) { return std::pair(r.deadline, r.deadline_order); })) {
      Request& request = *find_request(id);
      Source& from = *source(request.source);
      if (!request.is_sent) {
        from.unanswered = true;
        release_shared(request);
        arm(request);
      } else {
        ++out.overdue;
        if (request.answered > 0) {
          close_as_missing(id, out.missing);
          continue;
        }
        if (from.last_answer < request.sent_at) {
          from.unanswered = true;
          from.most_ids = std::max<std::uint64_t>(1, std::min<std::uint64_t>(from.most_ids, 32) / 2);
        }
        release_shared(request);
        release(request);
        requests_.erase(requests_.begin() + (&request - requests_.data()));
      }
    }
    for (const std::uint64_t id : due_requests(
             [](const Request& r) { return std::pair(r.is_sent ? r.hostage : Time::max(), r.hostage_order); })) {
      Request& request = *find_request(id);
      request.hostage = now_ + 15 * delay();
      request.hostage_order = ++order_;
      if (request.answered == 0) source(request.source)->unanswered = true;
      release_shared(request);
    }
    end_finished();
    std::vector<std::pair<Op*, Pair*>> due;
    for (Op& op : ops_) {
      for (Pair& pair : op.pairs) {
        if (pair.place == Place::waiting && pair.due <= now_) due.emplace_back(&op, &pair);
      }
    }
    std::sort(due.begin(), due.end(), [](const auto& a, const auto& b) {
      const auto rank = [](const Pair& p) { return std::tuple(p.due, p.level, p.order); };
      return rank(*a.second) < rank(*b.second);
    });
    for (auto& [op, pair] : due) enter(*pair, op->state == State::queued ? Place::ready : Place::idle);
    return out;
  }

  std::optional<Time> next_deadline() const {
    Time out = Time::max();
    for (const Source& each : sources_) out = each.backing_off ? std::min(out, each.until) : out;
    for (const Request& each : requests_) {
      out = std::min(out, each.deadline);
      if (each.is_sent) out = std::min(out, each.hostage);
    }
    for (const Op& op : ops_) {
      for (const Pair& pair : op.pairs) out = pair.place == Place::waiting ? std::min(out, pair.due) : out;
    }
    if (out == Time::max()) return std::nullopt;
    return out;
  }

  bool is_wanted(const OpId& id) const {
    const Op* op = find(id);
    return op != nullptr && op->state != State::storing;
  }
  bool has(const OpId& id, const Url& url) const {
    const Op* op = find(id);
    return op != nullptr && pair_of(*op, url) != nullptr;
  }

  FetchCounts counts() const {
    FetchCounts out;
    out.ops = ops_.size();
    for (const Op& op : ops_) {
      out.pairs += op.pairs.size();
      out.storing_ops += op.state == State::storing ? 1 : 0;
      if (op.state != State::asked) continue;
      ++out.asked_ops;
      out.known_bytes += source(find_request(op.request)->source)->op_size;
    }
    out.requests = requests_.size();
    out.sources = sources_.size();
    for (const Source& each : sources_) out.sources_backing_off += each.backing_off ? 1 : 0;
    return out;
  }

  std::map<OpId, std::vector<Url>> summary() const {
    std::map<OpId, std::vector<Url>> out;
    for (const Op& op : ops_) {
      for (const Pair& pair : op.pairs) out[op.id].push_back(pair.source);
      if (op.pairs.empty()) out[op.id];
    }
    return out;
  }

  std::map<Url, Time> backing_off() const {
    std::map<Url, Time> out;
    for (const Source& each : sources_) {
      if (each.backing_off) out[each.url] = each.until;
    }
    return out;
  }

  std::vector<OpId> storing() const {
    std::vector<OpId> out;
    for (const Op& op : ops_) {
      if (op.state == State::storing) out.push_back(op.id);
    }
    return out;
  }

 private:
  enum class State { queued, asked, storing };
  enum class Place { idle, ready, waiting };
  struct Pair {
    Url source;
    Place place = Place::idle;
    std::uint64_t order = 0;  ///< of coming to this place
    Time due{};
    int level = 0;
    int misses = 0;
  };
  struct Op {
    OpId id;
    State state = State::queued;
    std::uint64_t request = 0;
    std::vector<Pair> pairs;
  };
  struct Request {
    std::uint64_t id = 0;
    Url source;
    std::vector<OpId> asked;
    std::uint64_t size = 0;
    std::uint64_t answered = 0;
    bool is_sent = false;
    Time begun{}, sent_at{}, deadline{}, hostage{};
    std::uint64_t deadline_order = 0, hostage_order = 0;
  };
  struct Source {
    Url url;
    std::uint64_t age = 0;
    std::uint64_t turn = 0;
    std::uint64_t op_size = 0;
    std::uint64_t most_ids = 0;
    bool unanswered = false;
    Time last_answer = Time::min();
    std::uint32_t failures = 0;
    Time until{};
    bool backing_off = false;
  };

  static Duration ms(std::uint64_t n) { return Duration(static_cast<std::int64_t>(n) * 1000); }
  Duration delay() const { return ms(config_.re_insert_outgoing_request_delay_ms); }
  void advance(Time now) { now_ = std::max(now_, now); }

  template <class Ops>
  static auto find_in(Ops& ops, const OpId& id) -> decltype(ops.data()) {
    for (auto& op : ops) {
      if (op.id == id) return &op;
    }
    return nullptr;
  }
  Op* find(const OpId& id) { return find_in(ops_, id); }
  const Op* find(const OpId& id) const { return find_in(ops_, id); }
  template <class AnOp>
  static auto pair_of(AnOp& op, const Url& url) -> decltype(op.pairs.data()) {
    for (auto& pair : op.pairs) {
      if (pair.source == url) return &pair;
    }
    return nullptr;
  }
  Source* source(const Url& url) { return const_cast<Source*>(std::as_const(*this).source(url)); }
  const Source* source(const Url& url) const {
    for (const Source& each : sources_) {
      if (each.url == url) return &each;
    }
    return nullptr;
  }
  Request* find_request(std::uint64_t id) { return const_cast<Request*>(std::as_const(*this).find_request(id)); }
  const Request* find_request(std::uint64_t id) const {
    for (const Request& each : requests_) {
      if (each.id == id) return &each;
    }
    return nullptr;
  }

  std::uint64_t pairs_at(const Url& url) const {
    std::uint64_t n = 0;
    for (const Op& op : ops_) n += pair_of(op, url) != nullptr ? 1 : 0;
    return n;
  }
  std::uint64_t open_requests(const Url& url) const {
    std::uint64_t n = 0;
    for (const Request& each : requests_) n += each.source == url ? 1 : 0;
    return n;
  }
  bool doubtful(const Source& s) const { return s.unanswered || s.failures > 0; }
  bool can_be_asked(const Source& s) const {
    const std::uint64_t places = doubtful(s) ? 1 : config_.parallel_request_count;
    if (s.backing_off || open_requests(s.url) >= places) return false;
    for (const Op& op : ops_) {
      const Pair* pair = pair_of(op, s.url);
      if (pair != nullptr && pair->place == Place::ready) return true;
    }
    return false;
  }

  void enter(Pair& pair, Place place) {
    pair.place = place;
    pair.order = ++order_;
  }
  void wait(Pair& pair, int level) {
    enter(pair, Place::waiting);
    pair.level = level;
    pair.due = now_ + delay() * (1 << level);
  }
  void queue(Op& op) {
    op.state = State::queued;
    op.request = 0;
    for (Pair& pair : op.pairs) {
      if (pair.place == Place::idle) enter(pair, Place::ready);
    }
  }
  void arm(Request& request) {
    request.deadline = now_ + delay();
    request.deadline_order = ++order_;
  }
  void grow(const Request& request) {
    Source& from = *source(request.source);
    from.most_ids = std::max(from.most_ids, std::min<std::uint64_t>(2 * request.size, config_.max_ids_per_request));
  }
  /// What is still of this request, in the order asked.
  std::vector<Op*> ops_of(const Request& request) {
    std::vector<Op*> out;
    for (const OpId& id : request.asked) {
      Op* op = find(id);
      if (op != nullptr && op->request == request.id) out.push_back(op);
    }
    return out;
  }
  void release(const Request& request) {
    for (Op* op : ops_of(request)) queue(*op);
  }
  void release_shared(const Request& request) {
    for (Op* op : ops_of(request)) {
      if (op->pairs.size() < 2) continue;
      wait(*pair_of(*op, request.source), 0);
      queue(*op);
    }
  }
  void close_as_missing(std::uint64_t id, std::vector<FetchMissing>& out) {
    Request& request = *find_request(id);
    FetchMissing missing{request.source, {}};
    for (Op* op : ops_of(request)) {
      missing.op_ids.push_back(op->id);
      Pair& pair = *pair_of(*op, request.source);
      pair.misses = std::min(pair.misses + 1, 7);
      wait(pair, pair.misses - 1);
      queue(*op);
    }
    if (!missing.op_ids.empty()) out.push_back(missing);
    requests_.erase(requests_.begin() + (&request - requests_.data()));
  }
  void end_finished() {
    std::erase_if(requests_, [this](const Request& r) { return r.is_sent && ops_of(r).empty(); });
  }
  std::vector<std::uint64_t> request_ids_of(const Url& url) const {
    std::vector<std::uint64_t> out;
    for (const Request& each : requests_) {
      if (each.source == url) out.push_back(each.id);
    }
    return out;
  }
  template <class Key>
  std::vector<std::uint64_t> due_requests(Key key) const {
    std::vector<std::pair<std::pair<Time, std::uint64_t>, std::uint64_t>> due;
    for (const Request& each : requests_) {
      if (key(each).first <= now_) due.emplace_back(key(each), each.id);
    }
    std::sort(due.begin(), due.end());
    std::vector<std::uint64_t> out;
    for (const auto& each : due) out.push_back(each.second);
    return out;
  }
  void sign_of_life(const Url& url) {
    for (const std::uint64_t id : request_ids_of(url)) {
      if (find_request(id)->is_sent) arm(*find_request(id));
    }
  }
  void clear_back_off(Source& from) {
    from.failures = 0;
    from.backing_off = false;
  }
  FetchGivenUp drop(const Url& given) {
    const Url url = given;
    FetchGivenUp out{url, {}, pairs_at(url)};
    for (const std::uint64_t id : request_ids_of(url)) release(*find_request(id));
    std::erase_if(requests_, [&](const Request& r) { return r.source == url; });
    for (Op& op : ops_) {
      const bool had = std::erase_if(op.pairs, [&](const Pair& p) { return p.source == url; }) > 0;
      if (had && op.pairs.empty() && op.state != State::storing) out.orphaned.push_back(op.id);
    }
    std::erase_if(ops_, [](const Op& op) { return op.pairs.empty() && op.state != State::storing; });
    std::erase_if(sources_, [&](const Source& s) { return s.url == url; });
    return out;
  }

  CoreFetchConfig config_;
  Time now_ = Time::min();
  std::vector<Op> ops_;
  std::vector<Request> requests_;
  std::vector<Source> sources_;
  std::uint64_t order_ = 0;
  std::uint64_t ages_ = 0;
  std::uint64_t request_ids_ = 0;
};

/// The two disagree. The text says where.
struct Divergence : std::logic_error {
  using std::logic_error::logic_error;
};

/// How often the commands of a run reached what matters: a test asserts that nothing stays at zero.
struct TwinCoverage {
  std::uint64_t commands = 0, requests = 0, full_requests = 0, overdue = 0, lost = 0, missing = 0, given_up = 0,
                orphaned = 0, refused = 0, wanted = 0, duplicates = 0, stored = 0, store_failures = 0, back_offs = 0,
                many_sources = 0;
};

/// Reads commands from `bytes` until they end, runs them on both and compares every output and the whole visible state
/// after each. Throws Divergence; a broken invariant aborts.
class FetchTwinRun {
 public:
  explicit FetchTwinRun(std::span<const std::uint8_t> bytes, TwinCoverage* coverage = nullptr)
      : bytes_(bytes), coverage_(coverage != nullptr ? *coverage : own_coverage_) {}

  void run() {
    CoreFetchConfig config = pick_config();
    FetchCore core(config);
    FetchTwin twin(config);
    core_ = &core;
    twin_ = &twin;
    while (at_ < bytes_.size()) {
      step();
      ++coverage_.commands;
      compare();
    }
  }

 private:
  static constexpr std::size_t kSources = 12;

  std::uint8_t byte() { return at_ < bytes_.size() ? bytes_[at_++] : 0; }

  CoreFetchConfig pick_config() {
    CoreFetchConfig config;
    const std::uint8_t shape = byte();
    config.parallel_request_count = 1 + shape % 3;
    config.re_insert_outgoing_request_delay_ms = (shape & 4U) != 0 ? 2'000 : 1;
    config.first_back_off_interval_ms = (shape & 8U) != 0 ? 20'000 : 1'500;
    config.last_back_off_interval_ms = config.first_back_off_interval_ms * 5;
    config.num_back_off_intervals = 1 + (shape >> 4U) % 4;
    const std::uint8_t bounds = byte();
    config.max_ids_per_request = (bounds & 1U) != 0 ? 512 : 1 + bounds % 50;
    config.target_request_bytes = (bounds & 2U) != 0 ? 4U << 20U : 2'000;
    if ((bounds & 4U) != 0) config.max_pending = 60;
    if ((bounds & 8U) != 0) config.max_pending_per_peer = 25;
    op_count_ = (bounds & 16U) != 0 ? 5 : (bounds & 32U) != 0 ? 20 : 80;
    return config;
  }

  const Url& url(std::size_t i) {
    if (urls_.empty()) {
      for (std::size_t n = 0; n < kSources; ++n) {
        urls_.push_back(Url::parse("ws://relay:80/peer" + std::to_string(n)).value());
      }
    }
    return urls_[i % kSources];
  }
  OpId op(std::size_t i) {
    // Of different lengths: some on the heap.
    i %= op_count_;
    std::string text(i % 7 == 0 ? 50 : 32, static_cast<char>('a' + i % 26));
    text[0] = static_cast<char>(i);
    return OpId::from_text(text);
  }
  /// A run of ops with a step, now and then one twice.
  std::vector<OpId> some_ops() {
    const std::uint8_t first = byte();
    const std::uint8_t shape = byte();
    const std::size_t count = (shape & 0x80U) != 0 ? shape & 0x7fU : shape & 7U;
    const std::size_t stride = 1 + first % 3;
    std::vector<OpId> out;
    for (std::size_t i = 0; i < count; ++i) out.push_back(op(first + i * stride));
    return out;
  }
  const FetchRequest* some_request() {
    if (seen_.empty()) return nullptr;
    const std::uint8_t choice = byte();
    // Mostly recent ones, so that many are still under way.
    const std::size_t back = (choice & 0x80U) != 0 ? choice & 0x7fU : choice & 3U;
    return &seen_[seen_.size() - 1 - back % seen_.size()];
  }
  std::uint64_t some_request_id() {
    const FetchRequest* request = some_request();
    return request != nullptr ? request->id : byte();
  }

  void step() {
    if (seen_.size() > 200) seen_.erase(seen_.begin(), seen_.end() - 100);
    const std::uint8_t command = byte();
    switch (command % 23) {
      case 0:
      case 1:
        return do_add();
      case 2:
      case 3:
        return static_cast<void>(do_next_request());
      case 4:
        return do_sent(some_request_id());
      case 5:
        return do_failed(some_request_id());
      case 6:
      case 7:
      case 8:
        return do_answer();
      case 9:
        return do_response(url(byte()), some_ops(), byte() % 12);
      case 10:
        return do_stored(twin_->storing());
      case 11:
        return do_stored(some_ops());
      case 12:
        return do_store_failed();
      case 13: {
        const Url& from = url(byte());
        const std::uint8_t bytes = byte();
        core_->progress(from, bytes, now_);
        twin_->progress(from, bytes, now_);
        return;
      }
      case 14:
        return byte() < 24 ? do_remove_source() : do_poll();
      case 15: {
        now_ += Duration(std::int64_t{1} << (byte() % 33));
        return do_poll();
      }
      case 16:
        jump();
        return do_poll();
      case 17:
        if (const auto deadline = core_->next_deadline()) now_ = std::max(now_, *deadline - Duration(1));
        return do_poll();
      case 18: {
        const std::uint8_t choice = byte();
        if (choice == 0) {
          core_->clear();
          twin_->clear();
        } else if (choice < 64) {
          const Time before = now_;
          now_ -= Duration(std::int64_t{1} << (choice % 24));
          do_poll();
          now_ = before;
        }
        return;
      }
      case 19: {
        // Sources that lack the same ops again and again.
        const std::uint8_t mask = byte();
        for (int i = byte() % 12; i > 0; --i) {
          const std::size_t before = seen_.size();
          pump();
          for (std::size_t r = before; r < seen_.size(); ++r) {
            do_response(seen_[r].source, part_of(seen_[r], mask), 9);
            do_stored(twin_->storing());
          }
          jump();
          do_poll();
        }
        return;
      }
      case 20: {
        // Signs of life, but nothing else, for up to 31 times half a second or half a millisecond.
        const Url& from = url(byte());
        const Duration step = core_->next_deadline().value_or(now_) - now_;
        pump();
        for (int i = byte() % 32; i > 0; --i) {
          now_ += std::clamp(step / 2, Duration(500), Duration(1'000'000));
          core_->progress(from, 1, now_);
          twin_->progress(from, 1, now_);
          do_poll();
        }
        return;
      }
      case 21: {
        const Url& from = url(byte());
        if (byte() % 2 == 0) pump();
        const std::uint64_t ended = core_->connection_lost(from, now_);
        expect(ended == twin_->connection_lost(from, now_), "connection_lost");
        coverage_.lost += ended;
        return;
      }
      default:
        return pump();
    }
  }

  /// What a driver does after each event.
  void pump() {
    do_poll();
    while (do_next_request()) do_sent(seen_.back().id);
  }
  void jump() {
    if (const auto deadline = core_->next_deadline()) now_ = std::max(now_, *deadline);
  }

  void do_add() {
    const Url& from = url(byte());
    const std::vector<OpId> ops = some_ops();
    const FetchAdded a = core_->add(ops, from, now_);
    const FetchAdded b = twin_->add(ops, from, now_);
    expect(a.added == b.added && a.known == b.known && a.refused == b.refused, "add");
    coverage_.refused += a.refused;
  }
  bool do_next_request() {
    auto a = core_->next_request(now_);
    const auto b = twin_->next_request(now_);
    expect(a.has_value() == b.has_value(), "next_request: one of them has none");
    if (!a) return false;
    expect(a->id == b->id && a->source == b->source, "next_request: whom");
    expect(a->op_ids == b->op_ids, "next_request: what");
    ++coverage_.requests;
    coverage_.full_requests += a->op_ids.size() >= 32 ? 1 : 0;
    seen_.push_back(std::move(*a));
    return true;
  }
  void do_sent(std::uint64_t id) {
    core_->sent(id, now_);
    twin_->sent(id, now_);
  }
  void do_failed(std::uint64_t id) {
    const auto a = core_->failed(id, now_);
    const auto b = twin_->failed(id, now_);
    compare_given_up(a, b, "failed");
    coverage_.back_offs += core_->backing_off().empty() ? 0 : 1;
  }
  /// A peer answers a request: all of it, or the part that a mask tells.
  void do_answer() {
    const FetchRequest* request = some_request();
    if (request == nullptr) return;
    const std::uint8_t mask = byte();
    const std::vector<OpId> ops = part_of(*request, mask);
    do_response(request->source, ops, byte() % 12);
  }
  static std::vector<OpId> part_of(const FetchRequest& request, std::uint8_t mask) {
    std::vector<OpId> ops;
    for (std::size_t i = 0; i < request.op_ids.size(); ++i) {
      if (mask >= 128 || (mask >> (i % 7) & 1U) != 0) ops.push_back(request.op_ids[i]);
    }
    return ops;
  }
  void do_response(const Url& from, const std::vector<OpId>& ops, unsigned size_bits) {
    const std::uint64_t bytes = ops.size() * (std::uint64_t{1} << size_bits);
    const FetchAnswer a = core_->response(from, ops, bytes, now_);
    const FetchAnswer b = twin_->response(from, ops, bytes, now_);
    expect(a.verdicts == b.verdicts, "response: verdicts");
    compare_missing(a.missing, b.missing, "response");
    for (const FetchVerdict verdict : a.verdicts) {
      coverage_.wanted += verdict == FetchVerdict::wanted ? 1 : 0;
      coverage_.duplicates += verdict == FetchVerdict::duplicate ? 1 : 0;
    }
  }
  void do_stored(const std::vector<OpId>& ops) {
    const std::uint64_t a = core_->stored(ops, now_);
    expect(a == twin_->stored(ops, now_), "stored");
    coverage_.stored += a;
  }
  void do_store_failed() {
    std::vector<OpId> ops = twin_->storing();
    if ((byte() & 1U) != 0) ops.push_back(op(byte()));
    coverage_.store_failures += ops.size();
    expect(core_->store_failed(ops, now_) == twin_->store_failed(ops, now_), "store_failed");
  }
  void do_remove_source() {
    const Url& from = url(byte());
    const auto a = core_->remove_source(from, now_);
    compare_given_up(a, twin_->remove_source(from, now_), "remove_source");
  }
  void do_poll() {
    const FetchDue a = core_->poll(now_);
    const FetchDue b = twin_->poll(now_);
    expect(a.overdue == b.overdue, "poll: overdue");
    compare_missing(a.missing, b.missing, "poll");
    coverage_.overdue += a.overdue;
  }

  void compare_given_up(const std::optional<FetchGivenUp>& a, std::optional<FetchGivenUp> b, const char* where) {
    expect(a.has_value() == b.has_value(), where);
    if (!a) return;
    std::vector<OpId> orphaned = a->orphaned;
    std::sort(orphaned.begin(), orphaned.end());
    std::sort(b->orphaned.begin(), b->orphaned.end());
    expect(a->source == b->source && a->pairs == b->pairs && orphaned == b->orphaned, where);
    ++coverage_.given_up;
    coverage_.orphaned += orphaned.size();
  }
  void compare_missing(const std::vector<FetchMissing>& a, const std::vector<FetchMissing>& b, const char* where) {
    expect(a.size() == b.size(), where);
    for (std::size_t i = 0; i < a.size(); ++i) {
      expect(a[i].source == b[i].source && a[i].op_ids == b[i].op_ids, where);
      coverage_.missing += a[i].op_ids.size();
    }
  }
  void compare() {
    core_->check_invariants();
    expect(core_->counts() == twin_->counts(), "counts");
    expect(core_->pending_ops() == twin_->counts().ops, "pending_ops");
    expect(core_->next_deadline() == twin_->next_deadline(), "next_deadline");
    std::map<OpId, std::vector<Url>> summary;
    core_->for_each_op([&](const OpId& id, const std::vector<Url>& urls) {
      summary[id] = urls;
      coverage_.many_sources += urls.size() > 8 ? 1 : 0;
    });
    expect(summary == twin_->summary(), "summary");
    const auto list = core_->backing_off();
    expect(std::map<Url, Time>(list.begin(), list.end()) == twin_->backing_off(), "backing_off");
    const OpId asked = op(coverage_.commands);
    const Url& from = url(coverage_.commands / 3);
    expect(core_->is_wanted(asked) == twin_->is_wanted(asked), "is_wanted");
    expect(core_->has(asked, from) == twin_->has(asked, from), "has");
  }
  void expect(bool same, const char* what) const {
    if (same) return;
    std::ostringstream text;
    text << "the fetch core and its twin disagree on " << what << " after byte " << at_ << " of " << bytes_.size();
    throw Divergence(text.str());
  }

  std::span<const std::uint8_t> bytes_;
  std::size_t at_ = 0;
  TwinCoverage own_coverage_;
  TwinCoverage& coverage_;
  std::size_t op_count_ = 0;
  std::vector<Url> urls_;
  std::vector<FetchRequest> seen_;
  Time now_{Duration(1'000'000'000'000)};
  FetchCore* core_ = nullptr;
  FetchTwin* twin_ = nullptr;
};

}  // namespace kitsune2::model
