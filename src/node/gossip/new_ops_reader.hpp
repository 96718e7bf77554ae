// Finds out which ops to name to a peer in a round, by reads of the op store.
#pragma once

#include <boost/unordered/unordered_flat_set.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <variant>
#include <vector>

#include "core/dht/sector_set.hpp"
#include "core/dht/snapshot.hpp"
#include "core/gossip/listing_places.hpp"
#include "core/gossip/newcomers.hpp"
#include "core/gossip/read_queue.hpp"
#include "kitsune2/op_store.hpp"
#include "kitsune2/runtime.hpp"

namespace kitsune2 {

/// The ids to name to a peer, as the store has given them.
struct NewOps {
  std::vector<Bytes> ids;
  std::uint64_t bytes = 0;                   ///< the payload of their ops
  Timestamp next;                            ///< the time from which on the next ids are to be read
  bool more = false;                         ///< a limit has cut the list off
  bool failed = false;                       ///< the store could not be read
  bool is_by_allowance = false;              ///< what has cut it off is the allowance of newcomers
  Duration took{};                           ///< how long the last read took at the store
  std::optional<Timestamp> history_to = {};  ///< a newcomer has been named everything stored before this
};

/// What a peer asks for in a round.
struct NewOpsWish {
  SectorSet common;
  Timestamp since;
  std::uint32_t limit = 0;       ///< the most payload bytes
  std::size_t most_ids = 0;      ///< and ids
  std::uint32_t most_bytes = 0;  ///< the most for any round, and for all newcomers in a minute
  std::vector<AgentId> agents;
  bool we_started = false;   ///< the round
  bool ours = false;         ///< the peer runs this implementation, and asks for old ops by itself
  bool starts_over = false;  ///< the peer asks again, within the interval, for what it was told
};

/// The slices in which a comparison has found a difference, and how much of them may be named.
struct SliceWish {
  Url peer;
  std::vector<dht::SliceRef> slices;
  std::uint64_t limit = 0;       ///< how many payload bytes may still be named in the round
  std::uint64_t most_ids = 0;    ///< and how many ids
  std::uint64_t most_bytes = 0;  ///< a larger op is never named
  /// What one side has named to the other in this round already, by `NewOpsReader::mark_of`.
  boost::unordered_flat_set<std::uint64_t> but = {};
  bool we_started = false;  ///< the round
};

/// Reads what to name, by the rules of gossip::ReadQueue (Q), of gossip::Newcomers (N) for ops that the peer did not
/// ask for, and of gossip::ListingPlaces (P) for slices. A read for which nobody waits any more is stopped at the
/// store. Strand only.
class NewOpsReader : public std::enable_shared_from_this<NewOpsReader> {
 public:
  /// The most ids in one message, which are 8 MiB if each has 32 bytes.
  static constexpr std::size_t kMostIds = 250'000;
  /// A listing of slices is cut off after so many pages. Each looks at no more than OpStore::kMostLookedAt ops.
  static constexpr std::size_t kMostPages = 64;
  /// A listing ends after the page at which it has taken this long, because its round has a time limit and what was
  /// read must not be in vain.
  static constexpr Duration kLongestListing = std::chrono::seconds(3);
  static constexpr std::size_t kPage = 4'096;
  using Done = std::function<void(NewOps)>;

  /// `serving`: whether ops are served to peers now; without it: never. Q4
  NewOpsReader(Runtime& runtime, std::shared_ptr<OpStore> store, std::function<bool()> serving = nullptr)
      : runtime_(runtime), store_(std::move(store)), serving_(std::move(serving)) {}
  ~NewOpsReader() { runtime_.cancel(timer_); }
  NewOpsReader(const NewOpsReader&) = delete;
  NewOpsReader& operator=(const NewOpsReader&) = delete;

  /// Calls `done` later, unless `is_wanted` returns false because the round is over. It is asked in this call, before
  /// the store is asked, and when the store has answered.
  void read(const NewOpsWish& wish, std::function<bool()> is_wanted, Done done);
  /// The same for the slices that were found different. `random`: see gossip::ListingPlaces, P2.
  void list(SliceWish wish, std::uint32_t random, std::function<bool()> is_wanted, Done done);
  static std::uint64_t mark_of(ByteView id) { return keyed_hash(id); }
  /// To be called when rounds may have ended: gives up the reads for which nobody waits any more.
  void sweep();
  /// Whether so many reads wait that no further round of others is accepted. Q5
  bool is_full() const { return queue_.is_full(); }
  gossip::Newcomers& newcomers() { return newcomers_; }
  /// Gives up all reads.
  void stop();

 private:
  /// The round for which a read is.
  struct Asker {
    gossip::ReadQueue::For whom;
    std::function<bool()> is_wanted;
  };
  using AskerPtr = std::shared_ptr<const Asker>;
  struct Query {
    SectorSet sectors;
    Timestamp since;
    std::uint64_t limit;
    std::size_t most_ids;
  };
  using PageDone = std::function<void(const Result<OpPage>&)>;
  struct IdsRead {
    Query query;
    Done done;
  };
  struct PageRead {
    OpListQuery query;
    PageDone done;
  };
  struct Read {
    std::variant<IdsRead, PageRead> what;
    AskerPtr asker;
    std::stop_source stop = {};
    Time begun = {};
  };
  struct Listing {
    SliceWish wish;
    gossip::ListingPlaces* places = nullptr;
    std::vector<gossip::ListingPiece> pieces = {};
    AskerPtr asker = {};
    Done done = {};
    NewOps out = {};
    std::size_t piece = 0, pages = 0;
    Time begun = {};

    gossip::ListingCursor here() const {
      const auto& at = pieces[piece];
      return at.after.value_or(gossip::ListingCursor{at.start, Timestamp::min()});
    }
    OpListQuery query(std::size_t limit) const;
  };
  using ListingPtr = std::shared_ptr<Listing>;

  /// What may be named to a newcomer now.
  struct Allowed {
    Query piece;
    bool is_short = false;  ///< the allowance makes it less than what was asked for
    bool is_large = false;  ///< at least half of what the allowance can ever be
  };
  /// nullopt: nothing.
  std::optional<Allowed> allowed(const NewOpsWish& wish, Timestamp from);
  void name_again(const AskerPtr& asker, const NewOpsWish& wish, Done done);
  void name_history(const AskerPtr& asker, const NewOpsWish& wish, Timestamp from, Done done);
  void name_recent_too(const AskerPtr& asker, const NewOpsWish& wish, NewOps old, const Done& done);
  /// Names nothing, and leaves the bookmark where it is. Otherwise what is left out now would never be named.
  void name_nothing(Timestamp next, bool is_by_allowance, Done done);

  void go_on_listing(const ListingPtr& listing);
  void on_listed(const ListingPtr& listing, const Result<OpPage>& page);
  void cut_after(const ListingPtr& listing, std::size_t taken);
  void end_listing(const ListingPtr& listing, std::optional<gossip::ListingCursor> cut_at);

  void query(const AskerPtr& asker, const Query& query, Done done);
  void query_page(const AskerPtr& asker, OpListQuery query, PageDone done);
  void add(const AskerPtr& asker, std::variant<IdsRead, PageRead> what);
  void go_on();
  void begin(gossip::ReadQueue::Id id);
  /// The store has answered: takes the read out. nullopt if nobody waits for it any more.
  std::optional<Read> take(gossip::ReadQueue::Id id);
  /// What it brought has been dealt with. Q2
  void on_read_ended(gossip::ReadQueue::Id id);
  NewOps named(const Query& asked, const Result<OpIdsBounded>& found) const;
  /// Copies `ids` into one buffer: an allocation for each would be most of the work.
  static void append(const std::vector<ByteView>& ids, std::vector<Bytes>& out);

  Runtime& runtime_;
  std::shared_ptr<OpStore> store_;
  std::function<bool()> serving_;
  gossip::ReadQueue queue_;
  gossip::Newcomers newcomers_;
  gossip::ListingPlaces disc_places_, ring_places_;  ///< P4
  std::map<gossip::ReadQueue::Id, Read> reads_;
  Runtime::TimerId timer_ = 0;
  bool stopped_ = false;
};

}  // namespace kitsune2
