// A second fetch core that is slow and simple; fetch_twin_run.hpp compares the two.
//
// FetchTwin keeps everything in vectors and searches them, without indexes, lists and maintained orders. Its behaviour
// follows directly from the rules in src/core/fetch/fetch_core.hpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "core/fetch/fetch_core.hpp"
#include "model/window_twin.hpp"

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
    if (!op_ids.empty() && source(url) == nullptr) new_source(url);
    for (const OpId& id : fresh) {
      Op* op = find(id);
      if (op == nullptr) {
        ops_.emplace_back().id = id;
        op = &ops_.back();
        std::erase(dropped_, id);
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
    if (best == nullptr) return take_over();
    // The queue of that source, in the order of arrival.
    std::vector<Op*> queue;
    for (Op& op : ops_) {
      const Pair* pair = pair_of(op, best->url);
      if (pair != nullptr && pair->place == Place::ready) queue.push_back(&op);
    }
    std::sort(queue.begin(), queue.end(),
              [&](const Op* a, const Op* b) { return pair_of(*a, best->url)->order < pair_of(*b, best->url)->order; });

    std::uint64_t limit = best->most_ids;
    if (best->op_size > 0) limit = std::min(limit, std::max<std::uint64_t>(1, ids_by_size(*best)));
    if (doubtful(*best)) {
      limit = std::min<std::uint64_t>(limit, 16);
    } else if (is_far(*best) && best->op_size > 0) {
      if (queue.front()->pairs.size() > 1) limit = std::min(limit, ids_by_time(*best));
    } else {
      std::uint64_t able = 0;
      for (const Source& each : sources_) able += can_be_asked(each) && !doubtful(each) ? 1 : 0;
      const std::uint64_t open = open_requests(best->url);
      const std::uint64_t free = open < config_.parallel_request_count ? config_.parallel_request_count - open : 1;
      const std::uint64_t places = free * std::min<std::uint64_t>(queue.front()->pairs.size(), able);
      std::uint64_t share = queue.size() / places;
      if (share * places < queue.size()) ++share;
      limit = std::min(limit, std::max<std::uint64_t>(16, share));
    }
    if (queue.size() > limit) queue.resize(limit);
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < queue.size(); ++i) {
      bytes += queue[i]->id.size() + 3;
      if (i > 0 && bytes > 15'360) queue.resize(i);
    }

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

  void mark(FetchRequest& message, std::uint64_t mark, std::uint64_t first) {
    Request& request = *find_request(message.id);
    std::swap(request.asked[0], request.asked[first % request.asked.size()]);
    message.op_ids = request.asked;
    request.read_mark = mark;
  }

  void on_sent(std::uint64_t id, Time now) {
    advance(now);
    Request* request = find_request(id);
    if (request == nullptr || request->is_sent) return;
    request->is_sent = true;
    request->sent_at = now_;
    request->hostage = now_ + 15 * delay();
    request->hostage_order = ++order_;
    arm(*request);
    Source& from = *source(request->source);
    const bool alone = std::none_of(requests_.begin(), requests_.end(), [&](const Request& other) {
      return other.source == from.url && other.is_sent && other.id != id;
    });
    request->mark = from.window.on_sent(alone, asked_cost(from), config_.max_window_bytes, now_);
    if (!source(request->source)->put_aside) clear_back_off(*source(request->source));
    end_finished();
  }

  std::optional<FetchGivenUp> on_send_failed(std::uint64_t id, Time now) {
    advance(now);
    Request* request = find_request(id);
    if (request == nullptr) return std::nullopt;
    Source& from = *source(request->source);
    const bool counts = from.failures == 0 || request->begun >= from.until;
    if (counts && from.failures == config_.num_back_off_intervals) return drop(from.url);
    if (counts) begin_interval(from);
    release(*request);
    requests_.erase(requests_.begin() + (request - requests_.data()));
    return std::nullopt;
  }

  FetchLost on_disconnect(const Url& url, Time now) {
    advance(now);
    FetchLost out;
    if (source(url) != nullptr) source(url)->shown = 0;
    for (const std::uint64_t id : request_ids_of(url)) {
      Request& request = *find_request(id);
      if (!request.is_sent) continue;
      Source& from = *source(url);
      const bool heard = from.last_answer >= request.sent_at;
      from.unanswered = from.unanswered || !heard;
      const bool silent = is_silent(request);
      for (const OpId& op_id : still_of(request)) {
        from.late.push_back(op_id);
        if (silent && note_silence(op_id, url, out.unserved)) continue;
        Op& op = *find(op_id);
        Pair& pair = *pair_of(op, url);
        if (silent && pair.silences > 4) {
          wait(pair, std::min(pair.silences - 4, 7) - 1);
        } else if (!heard) {
          wait(pair, 0);
        }
        queue(op);
      }
      requests_.erase(requests_.begin() + (&request - requests_.data()));
      ++out.ended;
    }
    return out;
  }

  void on_progress(const Url& url, std::uint64_t bytes, Time now) {
    advance(now);
    if (bytes > 0 && source(url) != nullptr) {
      source(url)->last_part = now_;
      for (const std::uint64_t id : request_ids_of(url)) {
        if (!find_request(id)->is_sent) continue;
        source(url)->window.on_heard(find_request(id)->mark, now_);
        break;
      }
    }
    if (bytes > 0) sign_of_life(url);
  }

  FetchAnswer on_response(const Url& url, const std::vector<OpId>& op_ids, std::uint64_t bytes, Time now,
                          std::uint64_t invalid) {
    advance(now);
    FetchAnswer out;
    std::vector<std::uint64_t> touched;
    std::vector<std::uint64_t> completed;
    std::vector<WindowTwin::Mark> marks;  // of the requests of this source that got an op, in that order
    std::uint64_t answered = 0;
    bool pending = false;
    std::uint64_t wanted = 0;
    std::uint64_t unasked = 0;
    if (source(url) == nullptr && departed_credit(url) > 0) new_source(url);
    for (const OpId& id : op_ids) {
      Op* op = find(id);
      if (op == nullptr || op->state == State::storing) {
        const bool asked = take_late(url, id);
        if (op == nullptr && asked && std::erase(dropped_, id) > 0) {
          ops_.emplace_back().id = id;
          ops_.back().state = State::storing;
          pending = true;
          ++wanted;
          out.verdicts.push_back(FetchVerdict::wanted);
          continue;
        }
        if (!asked) ++unasked;
        pending = pending || op != nullptr;
        out.verdicts.push_back(op != nullptr ? FetchVerdict::duplicate
                               : asked       ? FetchVerdict::not_pending
                                             : FetchVerdict::unasked);
        continue;
      }
      pending = true;
      ++wanted;
      out.verdicts.push_back(FetchVerdict::wanted);
      const bool asked_of_it = op->state == State::asked && find_request(op->request)->source == url;
      if (asked_of_it) {
        Request& request = *find_request(op->request);
        if (request.answered == 0 && request.is_sent && request.read_mark != 0) note_order(request, id, out);
        ++request.answered;
        ++answered;
        if (request.is_sent && (touched.empty() || touched.back() != request.id)) {
          source(url)->window.on_heard(request.mark, now_);
          marks.push_back(request.mark);
        }
        touched.push_back(request.id);
        if (ops_of(request).size() == 1) {
          completed.push_back(request.id);
          grow(request);
        }
      } else {
        take_late(url, id);
        if (op->state == State::asked) source(find_request(op->request)->source)->late.push_back(id);
      }
      op->state = State::storing;
      op->request = 0;
      for (Pair& pair : op->pairs) {
        if (pair.place == Place::ready) enter(pair, Place::idle);
      }
    }
    end_finished();
    const std::uint64_t bad = invalid + (config_.accept_unsolicited ? 0 : unasked);
    if (bad > 0 && source(url) == nullptr) new_source(url);
    Source* from = source(url);
    if (from == nullptr) return out;
    if (pending) {
      from->unanswered = false;
      from->last_answer = now_;
      const std::uint64_t size = std::max<std::uint64_t>(1, bytes / op_ids.size());
      from->last_ops = op_ids.size();
      from->op_size =
          from->op_size == 0 ? size : std::max<std::uint64_t>(1, from->op_size - from->op_size / 4 + size / 4);
      if (!marks.empty()) from->window.on_delivered(marks.back(), answered * (size + 64), now_);
      if (!from->put_aside || (wanted > 0 && bad == 0)) clear_back_off(*from);
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
        if (request.answered == 0) from->window.on_lost(config_.max_window_bytes, now_);
        close_as_missing(id, out.missing, out.unserved);
      }
      sign_of_life(url);
    }
    // In sixteenths of a point: a wanted op takes one of them back.
    from->score -= std::min(from->score, wanted);
    from->score = std::min<std::uint64_t>(32 * 16, from->score + bad * 16);
    if (bad > 0 && from->score == 32 * 16) put_aside(url, out);
    return out;
  }

  bool owes(const Url& url) const {
    const Source* from = source(url);
    return from != nullptr ? !from->late.empty() || from->late_more > 0 : departed_credit(url) > 0;
  }

  FetchReplaced replace_source(const Url& old_url, const Url& new_url, Time now) {
    advance(now);
    FetchReplaced out;
    if (old_url == new_url || source(old_url) == nullptr) return out;
    out.known = true;
    if (pairs_at(old_url) + pairs_at(new_url) > config_.max_pending_per_peer) {
      out.refused = pairs_at(old_url);
      return out;
    }
    for (const std::uint64_t id : request_ids_of(old_url)) release(*find_request(id));
    std::erase_if(requests_, [&](const Request& r) { return r.source == old_url; });
    std::vector<std::pair<std::tuple<int, int, std::uint64_t>, OpId>> moving;
    for (const Op& op : ops_) {
      const Pair* pair = pair_of(op, old_url);
      if (pair == nullptr) continue;
      const int place = pair->place == Place::ready ? 0 : pair->place == Place::idle ? 1 : 2;
      moving.emplace_back(std::tuple(place, place == 2 ? pair->level : 0, pair->order), op.id);
    }
    std::sort(moving.begin(), moving.end());
    const Source old = *source(old_url);
    if (!moving.empty()) {
      if (source(new_url) == nullptr) {
        new_source(new_url);
        source(new_url)->op_size = old.op_size;
        source(new_url)->most_ids = std::max(source(new_url)->most_ids, old.most_ids);
      }
      Source& to = *source(new_url);
      to.late_more += old.late.size() + old.late_more;
      to.score = std::max(to.score, old.score);
    }
    for (const auto& [rank, id] : moving) {
      Op& op = *find(id);
      if (pair_of(op, new_url) != nullptr) {
        std::erase_if(op.pairs, [&](const Pair& p) { return p.source == old_url; });
        continue;
      }
      Pair& pair = *pair_of(op, old_url);
      pair.source = new_url;
      pair.silences = 0;
      enter(pair, op.state == State::queued ? Place::ready : Place::idle);
      out.moved.push_back(id);
    }
    forget(old_url);
    return out;
  }

  std::uint64_t on_stored(const std::vector<OpId>& op_ids, Time now) {
    advance(now);
    std::uint64_t count = 0;
    for (const OpId& id : op_ids) {
      const Op* asked = find(id);
      if (asked != nullptr && asked->state == State::asked) {
        source(find_request(asked->request)->source)->late.push_back(id);
      }
      count += std::erase_if(ops_, [&](const Op& op) { return op.id == id; });
      std::erase(dropped_, id);
    }
    end_finished();
    return count;
  }

  std::vector<OpId> on_store_failed(const std::vector<OpId>& op_ids, Time now) {
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
      op->taken_over = false;
      for (Pair& pair : op->pairs) {
        pair.silences = 0;
        if (pair.place == Place::idle) wait(pair, 0);
      }
    }
    return orphaned;
  }

  void on_refused(const std::vector<OpId>& op_ids, const Url& url, Time now) {
    advance(now);
    for (const OpId& id : op_ids) {
      Op* op = find(id);
      if (op == nullptr || op->state != State::storing) continue;
      std::erase_if(op->pairs, [&](const Pair& pair) { return pair.source == url; });
      if (op->pairs.empty()) {
        ops_.erase(ops_.begin() + (op - ops_.data()));
      } else {
        queue(*op);
      }
    }
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
    departed_.clear();
    dropped_.clear();
    hurry_again_ = Time::min();
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
          close_as_missing(id, out.missing, out.unserved);
          continue;
        }
        from.window.on_lost(config_.max_window_bytes, now_);
        if (from.last_answer < request.sent_at) {
          from.unanswered = true;
          from.most_ids = std::max<std::uint64_t>(1, std::min<std::uint64_t>(from.most_ids, 32) / 2);
          from.has_shrunk = true;
        }
        const bool silent = is_silent(request);
        const Url url = request.source;
        for (const OpId& op_id : still_of(request)) {
          from.late.push_back(op_id);
          if (silent && note_silence(op_id, url, out.unserved)) continue;
          Op& op = *find(op_id);
          Pair& pair = *pair_of(op, url);
          if (silent && pair.silences > 4) {
            wait(pair, std::min(pair.silences - 4, 7) - 1);
          } else if (op.pairs.size() > 1) {
            wait(pair, 0);
          }
          queue(op);
        }
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

  std::uint64_t pending_pairs(const Url& url) const { return pairs_at(url); }
  std::uint64_t under_way(const Url& url) const { return open_requests(url); }
  std::uint64_t take_overs() const { return take_overs_; }

  /// Whether the op is pending, with these sources in this order.
  bool has_with(const OpId& id, const std::vector<Url>& urls) const {
    const Op* op = find(id);
    return op != nullptr && std::equal(op->pairs.begin(), op->pairs.end(), urls.begin(), urls.end(),
                                       [](const Pair& pair, const Url& url) { return pair.source == url; });
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
    std::uint64_t order = 0;  ///< the order of arrival at this place
    Time due{};
    int level = 0;
    int silences = 0;
  };
  struct Op {
    OpId id;
    State state = State::queued;
    std::uint64_t request = 0;
    bool taken_over = false;
    std::vector<Pair> pairs;
  };
  struct Request {
    std::uint64_t id = 0;
    Url source;
    std::vector<OpId> asked;
    std::uint64_t size = 0;
    std::uint64_t answered = 0;
    bool is_sent = false;
    std::uint64_t read_mark = 0;
    Time begun{}, sent_at{}, deadline{}, hostage{};
    WindowTwin::Mark mark = 0;
    std::uint64_t deadline_order = 0, hostage_order = 0;
  };
  struct Source {
    Url url;
    std::uint64_t age = 0;
    std::uint64_t turn = 0;
    std::uint64_t op_size = 0;
    std::uint64_t last_ops = 1;
    std::uint64_t most_ids = 0;
    bool has_shrunk = false;
    bool unanswered = false;
    Time last_answer = Time::min();
    Time last_part = Time::min();
    std::uint32_t failures = 0;
    Time until{};
    bool backing_off = false;
    bool put_aside = false;
    std::uint64_t score = 0;
    std::vector<OpId> late = {};  ///< requested and unanswered, each as often as it was requested
    std::uint64_t late_more = 0;
    int shown = 0;  ///< bits that it has read
    WindowTwin window = {};
  };

  static Duration ms(std::uint64_t n) { return Duration(static_cast<std::int64_t>(n) * 1000); }
  Duration delay() const { return ms(config_.re_insert_outgoing_request_delay_ms); }
  void advance(Time now) { now_ = std::max(now_, now); }

  template <class Ops>
  static auto find_in(Ops& ops, const OpId& id) -> decltype(ops.data()) {
    for (auto& op : ops) {
      if (op.id.view().front() == id.view().front() && op.id == id) return &op;  // most differ in the first byte
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

  void new_source(const Url& url) {
    sources_.push_back({.url = url, .age = ++ages_});
    sources_.back().most_ids = std::min<std::uint64_t>(32, config_.max_ids_per_request);
    sources_.back().late_more = departed_credit(url);
    std::erase_if(departed_, [&](const auto& each) { return each.first == url; });
  }
  void forget(const Url& given) {
    const Url url = given;
    const Source& from = *source(url);
    if (from.late.size() + from.late_more > 0) departed_.emplace_back(url, from.late.size() + from.late_more);
    std::erase_if(sources_, [&](const Source& s) { return s.url == url; });
  }
  std::uint64_t departed_credit(const Url& url) const {
    for (const auto& [each, credit] : departed_) {
      if (each == url) return credit;
    }
    return 0;
  }
  bool take_late(const Url& url, const OpId& id) {
    Source* from = source(url);
    if (from == nullptr) return false;
    const auto it = std::find(from->late.begin(), from->late.end(), id);
    if (it != from->late.end()) {
      from->late.erase(it);
      return true;
    }
    if (from->late_more == 0) return false;
    --from->late_more;
    return true;
  }
  void put_aside(const Url& given, FetchAnswer& out) {
    const Url url = given;
    out.put_aside = true;
    if (pairs_at(url) == 0 && open_requests(url) == 0) return;
    Source& from = *source(url);
    if (from.failures == 0 || now_ >= from.until) {
      if (from.failures == config_.num_back_off_intervals) {
        out.given_up = drop(url);
        return;
      }
      begin_interval(from);
    }
    from.put_aside = true;
    for (const std::uint64_t id : request_ids_of(url)) release(*find_request(id));
    std::erase_if(requests_, [&](const Request& r) { return r.source == url; });
  }
  void begin_interval(Source& from) {
    std::uint64_t interval = config_.first_back_off_interval_ms;
    for (std::uint32_t i = 0; i < from.failures; ++i) {
      interval = std::min<std::uint64_t>(2 * interval, config_.last_back_off_interval_ms);
    }
    ++from.failures;
    from.until = now_ + ms(interval);
    from.backing_off = true;
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
  bool is_far(const Source& s) const { return config_.parallel_request_count == 2 && s.window.is_long(); }
  std::uint64_t asked_ops(const Source& s) const {
    std::uint64_t n = 0;
    for (const Op& op : ops_) {
      n += op.state == State::asked && find_request(op.request)->source == s.url ? 1 : 0;
    }
    return n;
  }
  std::uint64_t asked_cost(const Source& s) const { return asked_ops(s) * (s.op_size + 64); }
  bool has_place(const Source& s) const {
    const std::uint64_t open = open_requests(s.url);
    if (doubtful(s)) return open < 1;
    if (open < config_.parallel_request_count) return true;
    return is_far(s) && s.op_size > 0 && open < config_.max_parallel_request_count &&
           asked_cost(s) < s.window.bytes(config_.max_window_bytes, sources_.size() == 1);
  }
  /// The ids of an answer of one frame of a distant source; or of half the window, if that is more than the target.
  std::uint64_t ids_by_size(const Source& s) const {
    std::uint64_t target = config_.target_request_bytes;
    if (is_far(s)) {
      if (s.op_size <= 15'360) return 15'360 / (s.op_size + 8);
      const std::uint64_t far = std::min<std::uint64_t>(32U << 20U, 8 * s.window.bytes(config_.max_window_bytes));
      if (target == 4U << 20U) target = std::max(target, far);
    }
    return target / s.op_size;
  }
  /// How many ops arrive in a quarter of a second. Of large ops: in half a second or in eight round trips, whichever is
  /// longer; in whole answers if that is more than one.
  std::uint64_t ids_by_time(const Source& s) const {
    std::uint64_t time = 250'000;
    const bool large = s.op_size > 15'360;
    if (large) time = std::max<std::uint64_t>(500'000, 8 * static_cast<std::uint64_t>(s.window.round_trip()->count()));
    std::uint64_t bytes = s.window.rate() * time / 1'000'000;
    if (large && bytes > config_.target_request_bytes) {
      bytes = bytes / config_.target_request_bytes * config_.target_request_bytes;
    }
    return bytes == 0 ? UINT64_MAX : std::max<std::uint64_t>(1, bytes / (s.op_size + 64));
  }
  bool can_be_asked(const Source& s) const {
    if (s.backing_off || !has_place(s)) return false;
    for (const Op& op : ops_) {
      const Pair* pair = pair_of(op, s.url);
      if (pair != nullptr && pair->place == Place::ready) return true;
    }
    return false;
  }

  /// Microseconds until all has come that open requests ask of it, and what one op takes; 0: not known.
  std::pair<std::uint64_t, std::uint64_t> backlog(const Source& s) const {
    std::vector<const Request*> sent;
    for (const Request& each : requests_) {
      if (each.source == s.url && each.is_sent) sent.push_back(&each);
    }
    if (sent.empty()) return {};
    const Time first = sent.front()->sent_at;
    if (s.last_answer <= first && s.last_part <= first) return {};
    std::uint64_t an_op = static_cast<std::uint64_t>((now_ - sent.front()->sent_at).count());
    const bool known = s.op_size > 0 && s.window.rate() > 0;
    if (an_op < 500'000) return {};
    if (known) an_op = (s.op_size + 64) * 1'000'000 / s.window.rate();
    std::uint64_t ops = 0;
    for (const Request* each : sent) ops += each->size - each->answered;
    if (known) ops = std::min(ops, asked_ops(s) + s.last_ops - 1);
    return {ops * an_op, an_op};
  }

  /// When nothing is ready, the ops last requested from the source that is furthest behind are requested from a free
  /// one.
  std::optional<FetchRequest> take_over() {
    std::vector<Source*> free, behind;
    for (Source& each : sources_) {
      if (!each.backing_off && !doubtful(each) && has_place(each) && each.op_size > 0 && each.window.rate() > 0 &&
          pairs_at(each.url) > 0) {
        free.push_back(&each);
      }
      if (asked_ops(each) > 0) behind.push_back(&each);
    }
    if (free.empty() || behind.empty() || sources_.size() < 2 || now_ < hurry_again_) return std::nullopt;
    std::size_t looks = 4096;
    std::sort(free.begin(), free.end(),
              [](const Source* a, const Source* b) { return std::pair(a->turn, a->age) < std::pair(b->turn, b->age); });
    std::stable_sort(behind.begin(), behind.end(),
                     [&](const Source* a, const Source* b) { return backlog(*a).first > backlog(*b).first; });
    for (Source* to : free) {
      if (!to->late.empty() || to->late_more > 0) continue;
      const std::uint64_t an_op = std::max<std::uint64_t>(1, (to->op_size + 64) * 1'000'000 / to->window.rate());
      const auto trip = static_cast<std::uint64_t>(to->window.round_trip().value_or(Duration(0)).count());
      const std::uint64_t until = trip + asked_cost(*to) * 1'000'000 / to->window.rate();
      if (until > 500'000 + 2 * trip) continue;
      for (Source* from : behind) {
        const auto [time, each] = backlog(*from);
        if (from == to || time <= 500'000 || time < 500'000 + 2 * (until + an_op)) continue;
        std::uint64_t most = std::max<std::uint64_t>(1, (time - until) / (each + an_op));
        most = std::min({most, to->most_ids, std::max<std::uint64_t>(1, ids_by_size(*to)), ids_by_time(*to)});
        const std::vector<Op*> ops = last_asked(*from, *to, most, looks);
        if (ops.empty()) continue;
        Request request;
        request.id = ++request_ids_;
        request.source = to->url;
        request.begun = now_;
        request.size = ops.size();
        FetchRequest out{request.id, to->url, {}};
        for (Op* op : ops) {
          from->late.push_back(op->id);
          op->request = request.id;
          op->taken_over = true;
          out.op_ids.push_back(op->id);
        }
        request.asked = out.op_ids;
        to->turn = request.id;
        arm(request);
        requests_.push_back(request);
        end_finished();
        ++take_overs_;
        return out;
      }
    }
    hurry_again_ = now_ + Duration(4 * (sources_.size() + 4096 - looks));
    return std::nullopt;
  }

  std::vector<Op*> last_asked(const Source& from, const Source& to, std::uint64_t most, std::size_t& looks) {
    std::vector<Op*> all, out;
    for (auto request = requests_.rbegin(); request != requests_.rend(); ++request) {
      if (request->source != from.url || !request->is_sent) continue;
      std::vector<Op*> ops = ops_of(*request);
      all.insert(all.end(), ops.rbegin(), ops.rend());
    }
    all.resize(std::min({all.size(), std::size_t{512}, looks}));
    looks -= all.size();  // if nothing is found
    std::uint64_t bytes = 0;
    for (Op* op : all) {
      const Pair* pair = pair_of(*op, to.url);
      if (op->taken_over || pair == nullptr || pair->place != Place::idle) continue;
      bytes += op->id.size() + 3;
      if (out.size() == most || (bytes > 15'360 && !out.empty())) break;
      out.push_back(op);
    }
    return out;
  }

  /// An answer that begins with the id which was put in front shows how many times the list could have been halved.
  void note_order(const Request& request, const OpId& came, FetchAnswer& out) {
    int& shown = source(request.source)->shown;
    if (came != request.asked[0]) shown = 0;
    for (std::size_t n = request.asked.size(); came == request.asked[0] && n > 1; n /= 2) ++shown;
    if (shown >= 16) out.read_mark = std::max(out.read_mark, request.read_mark);
    if (shown >= 16) shown = 0;
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
    op.taken_over = false;
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
    const std::uint64_t next = (from.has_shrunk ? 2 : 4) * request.size;
    from.most_ids = std::max(from.most_ids, std::min<std::uint64_t>(next, config_.max_ids_per_request));
  }
  /// The remaining ops of this request, in the order requested.
  std::vector<Op*> ops_of(const Request& request) {
    std::vector<Op*> out;
    for (const OpId& id : request.asked) {
      Op* op = find(id);
      if (op != nullptr && op->request == request.id) out.push_back(op);
    }
    return out;
  }
  void release(const Request& request) {
    for (Op* op : ops_of(request)) {
      source(request.source)->late.push_back(op->id);
      queue(*op);
    }
  }
  void release_shared(const Request& request) {
    for (Op* op : ops_of(request)) {
      if (op->pairs.size() < 2) continue;
      source(request.source)->late.push_back(op->id);
      wait(*pair_of(*op, request.source), 0);
      queue(*op);
    }
  }
  std::vector<OpId> still_of(const Request& request) {
    std::vector<OpId> out;
    for (const Op* op : ops_of(request)) out.push_back(op->id);
    return out;
  }
  bool is_silent(const Request& request) const {
    return request.answered == 0 && source(request.source)->last_part < request.sent_at - 15 * delay();
  }
  /// A pair ends with its twelfth silence, or with the 32nd if the source answers nothing. The op ends with its last
  /// pair.
  bool note_silence(const OpId& id, const Url& url, std::vector<FetchUnserved>& out) {
    Op& op = *find(id);
    const int most = source(url)->last_answer >= now_ - 128 * delay() ? 12 : 32;
    if (++pair_of(op, url)->silences < most) return false;
    if (out.empty() || out.back().source != url) out.push_back({url, {}, {}});
    out.back().op_ids.push_back(id);
    std::erase_if(op.pairs, [&](const Pair& p) { return p.source == url; });
    if (!op.pairs.empty()) {
      queue(op);
      return true;
    }
    out.back().orphaned.push_back(id);
    dropped_.push_back(id);
    std::erase_if(ops_, [&](const Op& o) { return o.id == out.back().orphaned.back(); });
    return true;
  }
  void close_as_missing(std::uint64_t id, std::vector<FetchMissing>& out, std::vector<FetchUnserved>& unserved) {
    Request& request = *find_request(id);
    FetchMissing missing{request.source, {}};
    for (const OpId& op_id : still_of(request)) {
      missing.op_ids.push_back(op_id);
      source(request.source)->late.push_back(op_id);
      if (note_silence(op_id, request.source, unserved)) continue;
      Op& op = *find(op_id);
      Pair& pair = *pair_of(op, request.source);
      wait(pair, std::min(pair.silences, 7) - 1);
      queue(op);
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
    from.put_aside = false;
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
    forget(url);
    return out;
  }

  CoreFetchConfig config_;
  Time now_ = Time::min();
  std::vector<Op> ops_;
  std::vector<Request> requests_;
  std::vector<Source> sources_;
  std::vector<std::pair<Url, std::uint64_t>> departed_;  ///< what removed sources had left unanswered
  std::vector<OpId> dropped_;                            ///< ops that ended with their last pair, because of silence
  Time hurry_again_ = Time::min();                       ///< when to look for the next take-over
  std::uint64_t order_ = 0;
  std::uint64_t ages_ = 0;
  std::uint64_t request_ids_ = 0;
  std::uint64_t take_overs_ = 0;
};

}  // namespace kitsune2::model
