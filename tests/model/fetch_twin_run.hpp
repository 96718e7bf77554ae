// Runs the fetch core and its naive twin with the same commands and compares them. FetchTwinRun reads the commands from
// bytes, so that a random test and a fuzzer can share it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/fetch_twin.hpp"

namespace kitsune2::model {

/// The core and the twin disagree; the text says where.
struct Divergence : std::logic_error {
  using std::logic_error::logic_error;
};

/// How often a run has reached the important cases: a test asserts that none of them stays at zero.
struct TwinCoverage {
  std::uint64_t commands = 0, requests = 0, full_requests = 0, overdue = 0, lost = 0, missing = 0, given_up = 0,
                orphaned = 0, refused = 0, wanted = 0, duplicates = 0, stored = 0, store_failures = 0,
                refused_pairs = 0, back_offs = 0, many_sources = 0, replaced = 0, moved = 0, merged = 0, late = 0,
                unasked = 0, put_aside = 0, put_aside_given_up = 0, further = 0, unserved = 0, unserved_orphans = 0,
                late_after_all = 0, take_overs = 0, read = 0;
};

/// How thorough a run is: thorough for the random test; quick for the fuzzer, which finds more with a hundred small
/// runs than with a large one.
enum class TwinPace {
  thorough,  ///< the whole state is compared after each command; up to 80 ops, and long silences
  quick,     ///< the state is compared after every 16th command and at the end; mostly 8 ops
};

/// Reads commands from `bytes` until they end, runs them on both, and compares every output and, as often as the pace
/// says, the whole visible state. Throws Divergence; a broken invariant aborts.
class FetchTwinRun {
 public:
  explicit FetchTwinRun(std::span<const std::uint8_t> bytes, TwinCoverage* coverage = nullptr,
                        TwinPace pace = TwinPace::thorough)
      : bytes_(bytes), coverage_(coverage != nullptr ? *coverage : own_coverage_), pace_(pace) {}

  void run() {
    CoreFetchConfig config = pick_config();
    FetchCore core(config);
    FetchTwin twin(config);
    core_ = &core;
    twin_ = &twin;
    while (at_ < bytes_.size()) {
      step();
      ++coverage_.commands;
      if (pace_ == TwinPace::thorough || coverage_.commands % 16 == 0) compare();
    }
    compare();
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
    config.accept_unsolicited = (bounds & 64U) != 0;
    if ((bounds & 128U) != 0) config.max_parallel_request_count = 5;
    if ((bounds & 5U) == 5U) config.max_window_bytes = 40'000;
    const bool few = pace_ == TwinPace::quick;
    op_count_ = (bounds & 16U) != 0 ? 5 : (bounds & 32U) != 0 ? 20 : few && bounds % 4 != 0 ? 8 : 80;
    return config;
  }

  static const Url& url(std::size_t i) {
    static const std::vector<Url> urls = [] {
      std::vector<Url> out;
      for (std::size_t n = 0; n < kSources; ++n) {
        out.push_back(Url::parse("ws://relay:80/peer" + std::to_string(n)).value());
      }
      return out;
    }();
    return urls[i % kSources];
  }
  static constexpr std::size_t kMostOps = 80;
  const OpId& op(std::size_t i) const {
    static const std::vector<OpId> ids = [] {
      std::vector<OpId> out;
      for (std::size_t n = 0; n < kMostOps; ++n) {
        // Of different lengths, so that some are on the heap.
        std::string text(n % 7 == 0 ? 50 : 32, static_cast<char>('a' + n % 26));
        text[0] = static_cast<char>(n);
        out.push_back(OpId::from_text(text));
      }
      return out;
    }();
    return ids[i % op_count_];
  }
  /// A sequence of ops with a step, sometimes with a repetition.
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
    switch (command % 25) {
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
      case 9: {
        // In this order with every compiler, unlike the arguments of a call.
        const Url from = url(byte());
        const auto ops = some_ops();
        return do_response(from, ops, byte() % 12);
      }
      case 10:
        return do_stored(twin_->storing());
      case 11:
        return do_stored(some_ops());
      case 12:
        return do_store_failed();
      case 13: {
        const Url& from = url(byte());
        const std::uint8_t bytes = byte();
        core_->on_progress(from, bytes, now_);
        twin_->on_progress(from, bytes, now_);
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
        } else if (choice < 160) {
          now_ += Duration(std::int64_t{1} << (choice % 28));  // and nobody checks what is due
        } else if (choice < 164) {
          do_behind();
        }
        return;
      }
      case 19: {
        // Sources that lack the same ops repeatedly.
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
        // Only signs of life, for up to 31 times half a second or half a millisecond.
        const Url& from = url(byte());
        const Duration step = core_->next_deadline().value_or(now_) - now_;
        pump();
        for (int i = byte() % 32; i > 0; --i) {
          now_ += std::clamp(step / 2, Duration(500), Duration(1'000'000));
          core_->on_progress(from, 1, now_);
          twin_->on_progress(from, 1, now_);
          do_poll();
        }
        return;
      }
      case 21: {
        const Url& from = url(byte());
        if (byte() % 2 == 0) pump();
        return do_connection_lost(from);
      }
      case 22: {
        const std::uint8_t choice = byte();
        return choice < 64 ? do_replace_source() : choice < 192 ? do_silence() : pump();
      }
      case 23: {
        // Ops that fail the policy, beside some valid ones.
        const Url& from = url(byte());
        const std::uint8_t count = byte();
        return do_response(from, count % 2 == 0 ? std::vector<OpId>{} : some_ops(), 9, count % 40);
      }
      default:
        return pump();
    }
  }

  /// The calls of a driver after each event.
  void pump() {
    do_poll();
    while (do_next_request()) do_sent(seen_.back().id);
  }
  void jump() {
    if (const auto deadline = core_->next_deadline()) now_ = std::max(now_, *deadline);
  }

  void do_add() {
    const Url& from = url(byte());
    add_ops(some_ops(), from);
  }
  void add_ops(const std::vector<OpId>& ops, const Url& from) {
    const FetchAdded a = core_->add(ops, from, now_);
    const FetchAdded b = twin_->add(ops, from, now_);
    expect(a.added == b.added && a.known == b.known && a.refused == b.refused, "add");
    coverage_.refused += a.refused;
  }
  bool do_next_request() {
    auto a = core_->next_request(now_);
    const std::uint64_t take_overs = twin_->take_overs();
    auto b = twin_->next_request(now_);
    coverage_.take_overs += twin_->take_overs() - take_overs;
    expect(a.has_value() == b.has_value(), "next_request: one of them has none");
    if (!a) return false;
    expect(a->id == b->id && a->source == b->source, "next_request: whom");
    expect(a->op_ids == b->op_ids, "next_request: what");
    if (a->id % 4 != 0) {
      core_->mark(*a, a->id, a->id * 7);
      twin_->mark(*b, b->id, b->id * 7);
      expect(a->op_ids == b->op_ids, "mark: what");
    }
    ++coverage_.requests;
    coverage_.further += twin_->under_way(a->source) > 3 ? 1 : 0;
    coverage_.full_requests += a->op_ids.size() >= 32 ? 1 : 0;
    seen_.push_back(std::move(*a));
    return true;
  }
  void do_sent(std::uint64_t id) {
    core_->on_sent(id, now_);
    twin_->on_sent(id, now_);
  }
  void do_failed(std::uint64_t id) {
    const auto a = core_->on_send_failed(id, now_);
    const auto b = twin_->on_send_failed(id, now_);
    compare_given_up(a, b, "failed");
    coverage_.back_offs += core_->backing_off().empty() ? 0 : 1;
  }
  /// A long silence, or sources that answer only in part, or connections that break repeatedly; then perhaps an answer
  /// to what may have been dropped.
  void do_silence() {
    const std::uint8_t shape = byte();
    const std::uint8_t mask = byte() % 128;
    // 32 rounds are the most silences that any rule counts.
    const int longest = pace_ == TwinPace::quick ? 3 : 8;
    for (int i = 16 * (shape % longest); i > 0; --i) {
      const std::size_t before = seen_.size();
      pump();
      if ((shape & 0x20U) != 0) do_connection_lost(url(static_cast<std::size_t>(i)));
      if ((shape & 0x80U) != 0) {
        for (std::size_t r = before; r < seen_.size(); r += 2) do_response(seen_[r].source, part_of(seen_[r], mask), 9);
        do_stored(twin_->storing());
      }
      jump();
      do_poll();
    }
    if ((shape & 0x40U) != 0) do_answer();
  }
  void do_connection_lost(const Url& from) {
    const FetchLost a = core_->on_disconnect(from, now_);
    const FetchLost b = twin_->on_disconnect(from, now_);
    expect(a.ended == b.ended, "connection_lost");
    compare_unserved(a.unserved, b.unserved, "connection_lost");
    coverage_.lost += a.ended;
  }
  /// A peer answers a request: all of it, or the part that a mask selects.
  void do_answer() {
    const FetchRequest* request = some_request();
    if (request == nullptr) return;
    const std::uint8_t mask = byte();
    const std::vector<OpId> ops = part_of(*request, mask);
    do_response(request->source, ops, byte() % 17);
  }
  static std::vector<OpId> part_of(const FetchRequest& request, std::uint8_t mask) {
    std::vector<OpId> ops;
    for (std::size_t i = 0; i < request.op_ids.size(); ++i) {
      if (mask >= 128 || (mask >> (i % 7) & 1U) != 0) ops.push_back(request.op_ids[i]);
    }
    return ops;
  }
  /// A new beginning: the same ops at a few sources, which all answer but one; that one gives signs of life, sends an
  /// op now and then, or nothing at all.
  void do_behind() {
    core_->clear();
    twin_->clear();
    const std::uint8_t shape = byte();
    const std::size_t sources = 2 + shape % 3;
    std::vector<OpId> ops;
    for (std::size_t i = 0; i < op_count_; ++i) ops.push_back(op(i));
    for (std::size_t i = 0; i < sources; ++i) add_ops(ops, url(i));
    std::size_t first = seen_.size();
    std::vector<OpId> slow;  // what the first source was asked for
    pump();
    for (int i = byte() % 32; i > 0; --i) {
      now_ += Duration(std::int64_t{1'000} << (byte() % 10));
      const std::uint8_t life = byte();
      if (life % 4 < 2 && shape < 192) {
        core_->on_progress(url(0), 1, now_);
        twin_->on_progress(url(0), 1, now_);
      }
      if (life < 64 && shape < 192 && !slow.empty()) {
        do_response(url(0), {slow.front()}, 9 + life % 9);
        slow.erase(slow.begin());
      }
      for (; life >= 32 && first < seen_.size(); ++first) {
        const auto& [id, from, asked] = seen_[first];
        if (from == url(0)) {
          slow.insert(slow.end(), asked.begin(), asked.end());
        } else {
          do_response(from, asked, 9 + life % 9);
        }
      }
      do_stored(twin_->storing());
      pump();
      compare();
    }
  }
  void do_response(const Url& from, const std::vector<OpId>& ops, unsigned size_bits, std::uint64_t invalid = 0) {
    const std::uint64_t bytes = ops.size() * (std::uint64_t{1} << size_bits);
    const std::uint64_t known = core_->pending_ops();
    const FetchAnswer a = core_->on_response(from, ops, bytes, now_, invalid);
    const FetchAnswer b = twin_->on_response(from, ops, bytes, now_, invalid);
    expect(a.verdicts == b.verdicts, "response: verdicts");
    compare_missing(a.missing, b.missing, "response");
    compare_unserved(a.unserved, b.unserved, "response");
    coverage_.late_after_all += core_->pending_ops() > known ? 1 : 0;
    expect(a.put_aside == b.put_aside, "response: put aside");
    expect(a.read_mark == b.read_mark, "response: what was read");
    coverage_.read += a.read_mark != 0 ? 1 : 0;
    compare_given_up(a.given_up, b.given_up, "response");
    coverage_.put_aside += a.put_aside ? 1 : 0;
    coverage_.put_aside_given_up += a.given_up ? 1 : 0;
    for (const FetchVerdict verdict : a.verdicts) {
      coverage_.wanted += verdict == FetchVerdict::wanted ? 1 : 0;
      coverage_.duplicates += verdict == FetchVerdict::duplicate ? 1 : 0;
      coverage_.late += verdict == FetchVerdict::not_pending ? 1 : 0;
      coverage_.unasked += verdict == FetchVerdict::unasked ? 1 : 0;
    }
  }
  void do_stored(const std::vector<OpId>& ops) {
    const std::uint64_t a = core_->on_stored(ops, now_);
    expect(a == twin_->on_stored(ops, now_), "stored");
    coverage_.stored += a;
  }
  void do_store_failed() {
    std::vector<OpId> ops = twin_->storing();
    const std::uint8_t how = byte();
    if ((how & 1U) != 0) ops.push_back(op(byte()));
    if ((how & 6U) == 6) {
      const Url& from = url(byte());
      const std::uint64_t pairs = core_->pending_pairs();
      core_->on_refused(ops, from, now_);
      twin_->on_refused(ops, from, now_);
      coverage_.refused_pairs += pairs - core_->pending_pairs();
      return;
    }
    coverage_.store_failures += ops.size();
    expect(core_->on_store_failed(ops, now_) == twin_->on_store_failed(ops, now_), "store_failed");
  }
  void do_remove_source() {
    const Url& from = url(byte());
    const auto a = core_->remove_source(from, now_);
    compare_given_up(a, twin_->remove_source(from, now_), "remove_source");
  }
  void do_replace_source() {
    const Url& from = url(byte());
    const Url& to = url(byte());
    const std::uint64_t pairs = core_->pending_pairs(from);
    const FetchReplaced a = core_->replace_source(from, to, now_);
    const FetchReplaced b = twin_->replace_source(from, to, now_);
    expect(a.known == b.known && a.refused == b.refused && a.moved == b.moved, "replace_source");
    if (!a.known || a.refused > 0) return;
    ++coverage_.replaced;
    coverage_.moved += a.moved.size();
    coverage_.merged += pairs - a.moved.size();
  }
  void do_poll() {
    const FetchDue a = core_->poll(now_);
    const FetchDue b = twin_->poll(now_);
    expect(a.overdue == b.overdue, "poll: overdue");
    compare_missing(a.missing, b.missing, "poll");
    compare_unserved(a.unserved, b.unserved, "poll");
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
  void compare_unserved(const std::vector<FetchUnserved>& a, const std::vector<FetchUnserved>& b, const char* where) {
    expect(a.size() == b.size(), where);
    for (std::size_t i = 0; i < a.size(); ++i) {
      expect(a[i].source == b[i].source && a[i].op_ids == b[i].op_ids && a[i].orphaned == b[i].orphaned, where);
      coverage_.unserved += a[i].op_ids.size();
      coverage_.unserved_orphans += a[i].orphaned.size();
    }
  }
  void compare() {
    core_->check_invariants();
    expect(core_->counts() == twin_->counts(), "counts");
    expect(core_->pending_ops() == twin_->counts().ops, "pending_ops");
    expect(core_->next_deadline() == twin_->next_deadline(), "next_deadline");
    core_->for_each_op([&](const OpId& id, const std::vector<Url>& urls) {
      expect(twin_->has_with(id, urls), "the sources of an op");
      coverage_.many_sources += urls.size() > 8 ? 1 : 0;
    });
    const auto list = core_->backing_off();
    expect(std::map<Url, Time>(list.begin(), list.end()) == twin_->backing_off(), "backing_off");
    const OpId asked = op(coverage_.commands);
    const Url& from = url(coverage_.commands / 3);
    expect(core_->is_wanted(asked) == twin_->is_wanted(asked), "is_wanted");
    expect(core_->has(asked, from) == twin_->has(asked, from), "has");
    std::vector<OpId> rest, twin_rest;
    for (std::size_t i = 0; i < 4; ++i) rest.push_back(op(coverage_.commands + i * (1 + coverage_.commands % 2)));
    std::copy_if(rest.begin(), rest.end(), std::back_inserter(twin_rest),
                 [&](const OpId& id) { return !twin_->has(id, from); });
    const std::size_t count = rest.size();
    expect(core_->take_known(rest, from) == count - twin_rest.size() && rest == twin_rest, "take_known");
    expect(core_->owes(from) == twin_->owes(from), "owes");
    expect(core_->pending_pairs(from) == twin_->pending_pairs(from), "pending_pairs");
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
  const TwinPace pace_;
  std::size_t op_count_ = 0;
  std::vector<FetchRequest> seen_;
  Time now_{Duration(1'000'000'000'000)};
  FetchCore* core_ = nullptr;
  FetchTwin* twin_ = nullptr;
};

}  // namespace kitsune2::model
