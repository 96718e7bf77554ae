// What a fetch of files wants, from whom: windows of ops over the fetch module, live sources, ops that nobody has.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "kitsune2/files.hpp"

namespace kitsune2::files {

/// One op to get.
struct Want {
  OpId id;
  std::uint64_t bytes = 0;  ///< payload; 0 for the share's own ops (root, lists, manifest)
  bool counted = false;     ///< a data op: in the progress figures
};

/// What the engine's threads see of it.
struct WantsView {
  std::uint64_t epoch = 0;  ///< grows with every change
  std::size_t pending = 0;
  std::size_t missing = 0;
  std::size_t sources = 0, live_sources = 0;
  std::uint64_t ops_held = 0, bytes_held = 0, held_before = 0;
  std::uint64_t fetched_ops = 0, fetched_bytes = 0;
  std::uint64_t damaged = 0;  ///< ops that were found damaged in the store
  std::uint64_t bytes_arriving = 0, received_bytes = 0;
  FetchWait wait = FetchWait::nothing;
  std::string wait_reason;
  std::string wait_hint;  ///< the same for who will not wait any longer
  /// Nothing is pending but what live sources lack, and it has been so for `missing_after`.
  bool settled = false;
  std::chrono::milliseconds quiet{0};  ///< since a byte came; zero while nothing is wanted
  std::optional<Error> store_error;
};

/// Strand-side half of a fetch of files.
///
/// *Rules*. W1: an op is pending from `add` until it is durable or missing. W2: an op is missing when every live source
/// said so, or when all live sources answer pings, none is on back-off, and not one byte came for `missing_after`. It
/// stays asked for: a new source may have it, and then it counts as held. W3: every source is asked for every pending
/// op; the fetch module sees to it that an op is under way from one of them at a time. W4: a source is an agent of the
/// space with a url and a storage arc that is not empty; its new url replaces the old one. W5: a source lives while it
/// was heard of in the last kLiveFor: an answer, a pong, or bytes of an answer that is not whole yet. *Rationale*: a
/// large answer over a slow line takes minutes, and holds back all pongs behind it. W6: while no source lives and
/// something is wanted, the first of the things that a source needs and that is not there is told as the reason of
/// waiting. W7: an info that comes costs one look-up, however many are known; what is gone is found by the tick. W8:
/// anybody can claim to be a source, under any number of urls. So at most kMaxSources are kept, those first that have
/// answered; of those that have not, kUnprovenAsked at a time are asked for ops, each for kUnprovenOps, and who says
/// nothing for kLiveFor gives its turn to another. The first answer, to a ping too, makes a source like any other.
/// W9: an op that is found damaged in the store is pending again; in the progress figures it stays held.
/// Thread rule: strand only, but for `view` and `wait`.
class Wants : public std::enable_shared_from_this<Wants> {
 public:
  static constexpr Duration kLiveFor = std::chrono::seconds(7);
  static constexpr Duration kPingEvery = std::chrono::seconds(2);
  static constexpr Duration kPollEvery = std::chrono::seconds(3);
  static constexpr std::size_t kMaxSources = 1024;
  /// How long one that has not answered keeps its place where there is none for others.
  static constexpr Duration kTryFor = std::chrono::seconds(2);
  static constexpr std::size_t kUnprovenAsked = 8;
  static constexpr std::size_t kUnprovenOps = 64;
  /// Sources of which the user is told that they came and went.
  static constexpr std::uint32_t kToldSources = 256;
  static constexpr std::uint64_t kToldDamaged = 20;
  /// Something that is missing for so long is not only late: the reason of waiting then says what may be wrong.
  static constexpr Duration kHintAfter = std::chrono::seconds(8);

  struct Options {
    std::chrono::milliseconds missing_after{10'000};
    std::chrono::milliseconds tick{250};
    std::function<void(const std::string&)> notice;  ///< on the strand
    std::function<void(const Url&)> bad_source;      ///< on the strand
  };

  Wants(Runtime& runtime, std::shared_ptr<Space> space, std::shared_ptr<FilesHandler> handler, AgentId self,
        Options options);

  void start();
  /// No callback afterwards. What is pending in the fetch module stays there.
  void stop();
  /// Leaves out what the store holds (and counts it), asks all sources for the rest. `done`: they are pending.
  void add(std::vector<Want> wants, Handler<> done);
  /// Those of `ids` that are missing now.
  std::vector<OpId> missing_of(const std::vector<OpId>& ids) const;

  /// Whether one of `ids` is pending now.
  bool is_pending(const std::vector<OpId>& ids) const;
  std::vector<OpId> all_missing() const;

  /// Any thread: wakes those who wait.
  void poke();
  /// Any thread.
  WantsView view() const;
  /// Any thread: waits until `view().epoch` is another than `epoch`, at most `limit`.
  WantsView wait(std::uint64_t epoch, std::chrono::milliseconds limit) const;

 private:
  struct Item {
    std::uint64_t bytes = 0;
    std::uint64_t refs = 0;              ///< counted references
    std::vector<std::uint32_t> lacking;  ///< serials of sources that said they lack it
  };
  struct Source {
    std::uint32_t serial = 0;
    std::optional<Time> heard;
    std::optional<Time> pinged;
    bool pinging = false;
    bool proven = false;  ///< it has been heard of
    bool told = false;    ///< the user was told of it
    unsigned pings = 0;
    Time found_at{};
    std::optional<Time> asked_at;  ///< unproven: since when it has its turn
    std::size_t asked_ops = 0;     ///< in that turn
    bool dropped = false;          ///< the fetch module gave it up, or had no room: ask anew when it is heard of
    unsigned pongs = 0;            ///< since something came
    std::uint64_t received = 0;    ///< FetchLoad::source_received_bytes, as last seen
    bool said_bad = false;         ///< the user knows that it sends what was not asked for
  };

  void tick();
  void look_at_bytes();
  void look_at_wait();
  std::pair<FetchWait, std::string> reason_to_wait(bool for_long) const;
  bool is_wanted() const { return !pending_.empty() || !missing_.empty(); }
  void look_for_sources();
  void on_info(const AgentInfoSigned& info);
  const Url* offer_of(const AgentInfoSigned& info, const std::optional<Url>& own_url, Timestamp wall);
  bool add_source(const Url& url);
  std::size_t unproven_asked() const;
  void ask_first(const Url& url, Source& source);
  void rotate_unproven();
  void ping();
  void heard(const Url& url);
  void ask(const Url& url, std::vector<OpId> ids);
  void ask_all(const Url& url);
  void forget_stale();
  bool live(const Source& source) const;
  std::size_t live_count() const;
  void stored(const Url& peer, const std::vector<StoredOp>& ops, std::uint64_t bytes);
  void hold(const Item& item);
  void damaged(const std::vector<OpRecord>& ops);
  void ask_everybody(const std::vector<OpId>& ids);
  void lacking(const Url& peer, const std::vector<OpId>& ops);
  void unserved(const Url& peer, std::vector<OpId> ops);
  void filtered(std::vector<Want> wants, const std::vector<OpId>& lacking);
  void judge();
  void recheck();
  bool quiet_and_answering() const;
  void publish();
  void notice(const std::string& text);

  Runtime& runtime_;
  const std::shared_ptr<Space> space_;
  const std::shared_ptr<FilesHandler> handler_;
  const AgentId self_;
  const Options options_;

  std::unordered_map<OpId, Item> pending_;
  std::unordered_map<OpId, Item> missing_;
  std::unordered_set<OpId> suspects_;  ///< pending, and said to be lacked by someone
  std::unordered_map<Url, Source> sources_;
  std::uint32_t next_serial_ = 1;
  std::size_t turn_ = 0;        ///< which source is asked first
  std::size_t next_fresh_ = 0;  ///< which of the urls without a place is next
  std::size_t filters_ = 0;
  std::unordered_set<OpId> stored_meanwhile_;
  bool rechecking_ = false;
  bool stale_forgotten_ = false;
  bool was_live_ = false;
  std::size_t others_ = 0;  ///< other agents in the space, sources or not
  std::uint64_t received_before_ = 0;
  Time last_byte_{}, changed_at_{}, polled_at_{};
  Time wait_since_{};  ///< since when `figures_.wait` is what it is
  Runtime::TimerId timer_ = 0;
  bool stopped_ = false;
  std::shared_ptr<void> subscription_;
  std::shared_ptr<void> fetch_subscription_;
  std::shared_ptr<void> store_subscription_;
  Lifetime lifetime_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  WantsView view_;     ///< under mutex_
  WantsView figures_;  ///< strand only: the counters that `publish` copies
};

}  // namespace kitsune2::files
