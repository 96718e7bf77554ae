// The ledger of a node's promises, and the course of a history: trouble, then calm.
#include "sim/course.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace kitsune2::sim {
namespace {

/// Removes and returns the ops of which `source` was a source.
std::vector<OpId> take_back(std::map<OpId, std::set<Url>>& pairs, const Url& source) {
  std::vector<OpId> out;
  for (auto it = pairs.begin(); it != pairs.end();) {
    if (it->second.erase(source) > 0) out.push_back(it->first);
    it = it->second.empty() ? pairs.erase(it) : std::next(it);
  }
  return out;
}

}  // namespace

void Ledger::restarted() {
  drained_wanted_ = drained_told_ = 0;
  looked_up_ = false;
  drained_of_.clear();
  moved_.clear();
}

void Ledger::looked_up(const std::vector<OpId>& ops, const std::vector<OpId>& lacking) {
  const std::set<OpId> lacks(lacking.begin(), lacking.end());
  for (const auto& id : claimed_) EXPECT_FALSE(lacks.contains(id)) << name << " lost " << id.to_string();
  for (const auto& id : ops) {
    if (lacks.contains(id)) continue;
    fulfil(id);
  }
  looked_up_ = true;
  for (const auto& id : drained_of_) {
    EXPECT_FALSE(promised_.contains(id)) << name << ": drained is told before what was pending is read again";
  }
}

void Ledger::stored(const std::vector<StoredOp>& ops) {
  for (const auto& op : ops) {
    world_.trace(op.op_id);
    fulfil(op.op_id);
  }
}

void Ledger::stored(const std::vector<OpId>& ops) {
  for (const auto& id : ops) fulfil(id);
}

void Ledger::fulfil(const OpId& id) {
  claimed_.insert(id);
  promised_.erase(id);
  moved_.erase(id);
}

void Ledger::gave_up(const Url& source) {
  given_up_.insert(source);
  take_back(promised_, source);
  take_back(moved_, source);
}

void Ledger::unserved(const Url& source, const std::vector<OpId>& ops) {
  for (auto* pairs : {&promised_, &moved_}) {
    for (const auto& id : ops) {
      const auto it = pairs->find(id);
      if (it == pairs->end()) continue;
      it->second.erase(source);
      if (it->second.empty()) pairs->erase(it);
    }
  }
}

void Ledger::moved(const Url& old_url, const Url& new_url) {
  for (const auto& id : take_back(promised_, old_url)) moved_[id].insert(new_url);
  for (const auto& id : take_back(moved_, old_url)) moved_[id].insert(new_url);
}

void Ledger::asked(const FetchStateSummary& now, const std::vector<OpId>& ids, const Url& source) {
  // What the module reports as pending now must stay so until the op is durable or the source is given up.
  for (const auto& id : ids) {
    const auto it = now.pending_requests.find(id);
    if (it == now.pending_requests.end()) {
      EXPECT_TRUE(claimed_.contains(id) || given_up_.contains(source))
          << name << " does not hold and does not fetch " << id.to_string();
    } else if (std::find(it->second.begin(), it->second.end(), source) != it->second.end()) {
      promised_[id].insert(source);
    }
  }
}

void Ledger::watch_drained(Fetch& fetch) {
  ++drained_wanted_;
  fetch.notify_on_drained([this, &fetch] {
    ++drained_told_;
    EXPECT_EQ(fetch.pending_ops(), 0U) << "drained is told while ops are pending";
    if (looked_up_) {
      EXPECT_TRUE(promised_.empty() && moved_.empty()) << "drained is told before what was pending is read again";
    } else {
      for (const auto& [id, sources] : promised_) drained_of_.insert(id);
    }
  });
}

void Ledger::check_nothing_forgotten(const FetchStateSummary& now) const {
  for (const auto* pairs : {&promised_, &moved_}) {
    for (const auto& [id, sources] : *pairs) {
      const auto it = now.pending_requests.find(id);
      ASSERT_NE(it, now.pending_requests.end()) << name << " forgot " << id.to_string();
      for (const auto& source : sources) {
        EXPECT_NE(std::find(it->second.begin(), it->second.end(), source), it->second.end())
            << name << " forgot that " << source.to_string() << " has " << id.to_string();
      }
    }
  }
}

std::string Ledger::describe(const Fetch& fetch) const {
  const auto stats = fetch.stats();
  const auto summary = fetch.state_summary();
  std::string out =
      name + ": holds " + std::to_string(claimed_.size()) + ", pending " + std::to_string(fetch.pending_ops()) +
      ", drained " + std::to_string(drained_told_) + "/" + std::to_string(drained_wanted_) + ", requests sent " +
      std::to_string(stats.requests_sent) + " failed " + std::to_string(stats.requests_failed) + " overdue " +
      std::to_string(stats.requests_overdue) + " outstanding " + std::to_string(summary.outstanding_requests) +
      " received " + std::to_string(stats.requests_received) + " refused " + std::to_string(stats.requests_refused) +
      ", ops served " + std::to_string(stats.ops_served) + " invalid " + std::to_string(stats.ops_invalid) +
      " unsolicited " + std::to_string(stats.ops_unsolicited) + ", store failures " +
      std::to_string(stats.store_failures) + "\n";
  for (const auto& [id, sources] : summary.pending_requests) {
    out += "  " + id.to_string() + " from";
    for (const auto& source : sources) out += " " + source.to_string();
    out += "\n";
  }
  for (const auto& [peer, until] : summary.peers_on_backoff) out += "  back-off " + peer.to_string() + "\n";
  return out;
}

bool Course::ok() { return !::testing::Test::HasFailure(); }

Ran Course::run() {
  const auto pace = this->pace();
  for (auto rounds = pace.rounds; rounds > 0 && ok(); --rounds) {
    world().run_for(std::chrono::milliseconds(pick(pace.longest_pause_ms)));
    for (auto n = pick(3); n > 0; --n) mischief();
    if (pick(pace.wants_one_in) == 0) someone_wants_something();
    if (pick(pace.drained_one_in) == 0) someone_watches_drained();
    if (pick(pace.looks_one_in) == 0) check_nothing_forgotten();
  }
  calm();
  check_nothing_forgotten();
  const auto end = world().now() + pace.most_recovery;
  bool done = false;
  while (!done && world().now() < end && ok()) {
    each_minute();
    const auto minute_ends = world().now() + std::chrono::minutes(1);
    done = world().run_until([this] { return all_done(); }, std::chrono::minutes(1));
    // Nothing may be due for longer than that: a back-off.
    if (!done) world().run_until(minute_ends);
  }
  EXPECT_TRUE(done) << describe();
  check();
  check_end();
  return {world().trace_hash(), world().tasks_run()};
}

}  // namespace kitsune2::sim
