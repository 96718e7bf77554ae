// Reads from the op store what to name to a peer in a round.
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

/// Ids for a peer.
struct NewOps {
  std::vector<Bytes> ids;
  std::uint64_t bytes = 0;                   ///< of their ops
  Timestamp next;                            ///< where the next ones begin
  bool more = false;                         ///< the limit left some out
  bool failed = false;                       ///< the store could not be read
  Duration took{};                           ///< the last read for it, at the store
  std::optional<Timestamp> history_to = {};  ///< up to where a newcomer has been named all
};

/// What a peer asks for in a round.
struct NewOpsWish {
  SectorSet common;
  Timestamp since;
  std::uint32_t limit = 0;       ///< bytes of payload
  std::uint32_t most_bytes = 0;  ///< what is allowed in a round, and to all newcomers within a minute
  std::vector<AgentId> agents;
  bool we_started = false;   ///< the round
  bool ours = false;         ///< it is of our kind: asks from the beginning by itself
  bool starts_over = false;  ///< it asks again, within the interval, for what it was named already
};

/// Slices in which a comparison found a difference.
struct SliceWish {
  Url peer;
  std::vector<dht::SliceRef> slices;
  std::uint64_t limit = 0;       ///< bytes of payload, and
  std::uint64_t most_ids = 0;    ///< ids, that may still be named in the round
  std::uint64_t most_bytes = 0;  ///< a larger op is never named
  /// What one side has named to the other in this round already, by `NewOpsReader::mark_of`.
  boost::unordered_flat_set<std::uint64_t> but = {};
  bool we_started = false;  ///< the round
};

/// Rules: gossip::ReadQueue (Q), gossip::Newcomers (N) for what was not asked for, and gossip::ListingPlaces (P). A
/// read that nobody waits for any more is stopped at the store. Strand only.
class NewOpsReader : public std::enable_shared_from_this<NewOpsReader> {
 public:
  /// Ids in one message: 8 MiB of 32-byte ids.
  static constexpr std::size_t kMostIds = 250'000;
  /// A listing of slices is cut after so many pages: each looks at OpStore::kMostLookedAt ops at most.
  static constexpr std::size_t kMostPages = 64;
  /// A listing that has taken so long ends after a page: its round has a limit, and what was read must count.
  static constexpr Duration kLongestListing = std::chrono::seconds(3);
  static constexpr std::size_t kPage = 4'096;
  using Done = std::function<void(NewOps)>;

  NewOpsReader(Runtime& runtime, std::shared_ptr<OpStore> store) : runtime_(runtime), store_(std::move(store)) {}
  ~NewOpsReader() { runtime_.cancel(timer_); }
  NewOpsReader(const NewOpsReader&) = delete;
  NewOpsReader& operator=(const NewOpsReader&) = delete;

  /// `done`, later, unless `is_wanted` says no by then: the round is over. It is called here, before the store is
  /// asked and when it has answered.
  void read(const NewOpsWish& wish, std::function<bool()> is_wanted, Done done);
  /// The ids in slices that were found different. `random`: gossip::ListingPlaces, P2.
  void list(SliceWish wish, std::uint32_t random, std::function<bool()> is_wanted, Done done);
  static std::uint64_t mark_of(const Bytes& id) { return keyed_hash(id.view()); }
  /// Rounds may have ended: gives up what nobody waits for.
  void sweep();
  /// There is no room for another round of others.
  bool is_full() const { return queue_.is_full(); }
  gossip::Newcomers& newcomers() { return newcomers_; }
  /// Gives up all.
  void stop();

 private:
  /// For whom a read is.
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
    std::vector<gossip::ListingPiece> pieces;
    AskerPtr asker;
    Done done;
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

  void name_again(const AskerPtr& asker, const NewOpsWish& wish, Done done);
  void name_history(const AskerPtr& asker, const NewOpsWish& wish, Timestamp from, Done done);
  void name_recent_too(const AskerPtr& asker, const NewOpsWish& wish, NewOps old, const Done& done);
  /// Nothing is named, so the bookmark stays: otherwise what was not named now would never be.
  void name_nothing(Timestamp next, bool more, Done done);

  void go_on_listing(const ListingPtr& listing);
  void on_listed(const ListingPtr& listing, const Result<OpPage>& page);
  void cut_after(const ListingPtr& listing, std::size_t taken);
  void end_listing(const ListingPtr& listing, std::optional<gossip::ListingCursor> cut_at);

  void query(const AskerPtr& asker, const Query& query, Done done);
  void query_page(const AskerPtr& asker, OpListQuery query, PageDone done);
  void add(const AskerPtr& asker, std::variant<IdsRead, PageRead> what);
  void go_on();
  void begin(gossip::ReadQueue::Id id);
  /// Takes the read out; nullopt: nobody waits for it any more.
  std::optional<Read> on_read_ended(gossip::ReadQueue::Id id);
  NewOps named(const Query& asked, const Result<OpIdsBounded>& found) const;

  Runtime& runtime_;
  std::shared_ptr<OpStore> store_;
  gossip::ReadQueue queue_;
  gossip::Newcomers newcomers_;
  gossip::ListingPlaces places_;
  std::map<gossip::ReadQueue::Id, Read> reads_;
  Runtime::TimerId timer_ = 0;
  bool stopped_ = false;
};

}  // namespace kitsune2
