// A budget for the work that a peer causes: one account for all modules of all spaces.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kitsune2/abi.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// Work that a peer causes, priced in microseconds of one core. The prices are rounded up from measurements on the
/// machine of docs/benchmarks.md.
///
///     budget->charge(peer, PeerWork().messages(1).verifications(infos.size()));
class PeerWork {
 public:
  static constexpr std::int64_t kMessage = 5;         ///< parsed and handed to its module
  static constexpr std::int64_t kLookUp = 1;          ///< of one id in the op store
  static constexpr std::int64_t kVerification = 100;  ///< of one signature
  static constexpr std::int64_t kRow = 1;             ///< written to a database in a common transaction
  static constexpr std::int64_t kCommit = 300;        ///< a transaction of its own
  static constexpr std::int64_t kKiB = 1;             ///< per KiB received, or read from disk
  /// Something that no honest node sends: a message of a round that does not exist, an info with a wrong signature.
  /// A penalty, so that a peer that sends nothing else is put aside soon.
  static constexpr std::int64_t kNonsense = 5'000;

  constexpr PeerWork& messages(std::uint64_t n) { return add(n, kMessage); }
  constexpr PeerWork& look_ups(std::uint64_t n) { return add(n, kLookUp); }
  constexpr PeerWork& verifications(std::uint64_t n) { return add(n, kVerification); }
  constexpr PeerWork& rows(std::uint64_t n) { return add(n, kRow); }
  constexpr PeerWork& commits(std::uint64_t n) { return add(n, kCommit); }
  constexpr PeerWork& bytes(std::uint64_t n) { return add(n / 1024, kKiB); }
  constexpr PeerWork& nonsense(std::uint64_t n) {
    const std::int64_t before = micros_;
    add(n, kNonsense);
    penalty_ += micros_ - before;
    return *this;
  }
  /// Work that was measured, such as a scan of the store.
  constexpr PeerWork& time(Duration took) { return add(took.count() > 0 ? std::uint64_t(took.count()) : 0, 1); }

  constexpr std::int64_t micros() const { return micros_; }
  /// Of these, what is no work: nobody but the peer and its address pays for it.
  constexpr std::int64_t penalty() const { return penalty_; }

 private:
  /// An hour: more than any account can be short of.
  static constexpr std::int64_t kMost = 3'600'000'000;
  constexpr PeerWork& add(std::uint64_t n, std::int64_t price) {
    micros_ = n >= std::uint64_t(kMost) ? kMost : micros_ + static_cast<std::int64_t>(n) * price;
    if (micros_ > kMost) micros_ = kMost;
    return *this;
  }
  std::int64_t micros_ = 0;
  std::int64_t penalty_ = 0;
};

/// Where a peer's connection to the relay comes from, as coarse as one party can easily have many of: an IPv4 address,
/// or the /56 of an IPv6 address. Any short text that is the same for all of one group.
using AddressGroup = std::string;
/// What a relay inside the node knows about `peer`; nullopt for a peer that is not at that relay. Called on the strand.
using AddressGroupOf = std::function<std::optional<AddressGroup>(const Url& peer)>;

/// What a peer may do now.
enum class PeerStanding : std::uint8_t {
  good,   ///< its work is done
  waits,  ///< over its budget: its requests are dropped or done later
  over,   ///< far over its budget: its connection is being closed, and it is put aside for a time
};

/// Counters since start. Monotonic but for the last three.
struct PeerBudgetStats {
  std::uint64_t waits = 0;      ///< charges to a peer that was over its budget
  std::uint64_t put_aside = 0;  ///< how often a peer was put aside
  std::uint64_t refused = 0;    ///< connections refused because the peer is put aside
  std::uint64_t accounts = 0;   ///< peers with an account now
  std::uint64_t known = 0;      ///< peers known by useful exchange now
  std::uint64_t aside = 0;      ///< urls, agents and address groups put aside now
};

/// The accounts of one node: one object for all its spaces. src/core/budget/peer_budget_core.hpp has the rules and
/// their reasons, the configuration's section `peerBudget` the rates. Strand only.
///
/// A module charges the work that it does for a peer, and leaves requests of a peer that must wait undone:
///
///     if (budget.charge(peer, PeerWork().messages(1).look_ups(ids)) != PeerStanding::good) return;
///
/// It gives back the charge for what turned out to be useful, so that honest work costs nothing in the end.
class PeerBudget {
 public:
  virtual ~PeerBudget() = default;
  /// Charges `work` to `peer`. If the peer is `over` then, this object closes its connection and puts it aside.
  virtual PeerStanding charge(const Url& peer, PeerWork work) = 0;
  /// Reports a useful exchange with `peer`: `ops`, of `bytes` in total, that it sent and this node wanted, or that it
  /// requested and received. Gives back `work`, which was charged for them before.
  virtual void useful(const Url& peer, std::uint64_t ops, std::uint64_t bytes, PeerWork work) = 0;
  /// When `peer` no longer has to wait; nullopt: it does not have to.
  virtual std::optional<Time> waits_until(const Url& peer) const = 0;
  /// Whether there has been useful exchange with `peer`.
  virtual bool is_known(const Url& peer) const = 0;
  /// How useful `peer` has been. Grows with ops and bytes; used to choose which peers to keep.
  virtual std::uint64_t usefulness(const Url& peer) const = 0;
  /// The peer's address group, if it is known.
  virtual std::optional<AddressGroup> address_group(const Url& peer) const = 0;
  virtual PeerBudgetStats stats() const = 0;
};

/// A budget that charges nothing and never makes a peer wait; for tests, and for applications with rules of their own.
std::shared_ptr<PeerBudget> make_no_peer_budget();

}  // namespace kitsune2
