// The common part of histories of nodes that fetch: trouble, then calm, in which everything must be completed; and the
// record of what a node was told.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "kitsune2/fetch.hpp"
#include "kitsune2/testing/sim_runtime.hpp"
#include "sim/scenarios.hpp"

namespace kitsune2::sim {

/// What the fetch module of a node has said over all lives of the node, and what must therefore be true.
class Ledger {
 public:
  explicit Ledger(testing::SimWorld& world) : world_(world) {}

  std::string name;

  /// The node begins a new life: nobody waits for anything, and the contents of its disk are not known yet.
  void restarted();
  /// `lacking`: those of `ops` that its disk does not hold. Whatever it claimed before must be there.
  void looked_up(const std::vector<OpId>& ops, const std::vector<OpId>& lacking);
  void stored(const std::vector<StoredOp>& ops);
  /// Ops that became durable by a call to the store itself.
  void stored(const std::vector<OpId>& ops);
  void gave_up(const Url& source);
  /// `source` never sent these, so they are no longer promised from there.
  void unserved(const Url& source, const std::vector<OpId>& ops);
  /// Pairs promised from `old_url` are promised from `new_url`, for this life: nobody is told when the store has them,
  /// and what a crash leaves at the old url is announced again by gossip.
  void moved(const Url& old_url, const Url& new_url);
  /// request_ops has succeeded.
  void asked(const FetchStateSummary& now, const std::vector<OpId>& ids, const Url& source);
  /// Calls notify_on_drained. `this` and `fetch` must outlive its answer.
  void watch_drained(Fetch& fetch);

  bool is_drained() const { return drained_told_ == drained_wanted_; }
  const std::set<OpId>& claimed() const { return claimed_; }
  bool has_given_up(const Url& source) const { return given_up_.contains(source); }

  /// Nothing that was promised is forgotten. Valid only once the module has read again what was pending before a
  /// restart.
  void check_nothing_forgotten(const FetchStateSummary& now) const;
  std::string describe(const Fetch& fetch) const;

 private:
  void fulfil(const OpId& id);

  testing::SimWorld& world_;
  std::map<OpId, std::set<Url>> promised_;  ///< op -> sources that it is pending from
  std::map<OpId, std::set<Url>> moved_;     ///< the same for this life
  std::set<OpId> claimed_;                  ///< reported as durable, or found on disk after a crash
  std::set<Url> given_up_;                  ///< at any time
  int drained_wanted_ = 0, drained_told_ = 0;
  bool looked_up_ = false;  ///< since the start
  /// What was promised when drained was reported, before it was known which of it is on disk.
  std::set<OpId> drained_of_;
};

/// The course of such a history.
class Course {
 public:
  virtual ~Course() = default;
  Ran run();

 protected:
  struct Pace {
    std::size_t rounds = 0;
    std::size_t longest_pause_ms = 0;
    std::size_t wants_one_in = 1, drained_one_in = 1, looks_one_in = 1;  ///< rounds
    Duration most_recovery{};
  };

  virtual testing::SimWorld& world() = 0;
  std::size_t pick(std::size_t below) { return static_cast<std::size_t>(world().random(below)); }
  static bool ok();

  virtual Pace pace() = 0;
  virtual void mischief() = 0;
  virtual void someone_wants_something() = 0;
  virtual void someone_watches_drained() = 0;
  virtual void check_nothing_forgotten() = 0;
  /// Ends all faults, and starts every node that is to live.
  virtual void calm() = 0;
  /// Called once per minute of the calm, until all is done.
  virtual void each_minute() = 0;
  virtual bool all_done() = 0;
  virtual std::string describe() = 0;
  virtual void check() = 0;
  virtual void check_end() = 0;
};

}  // namespace kitsune2::sim
