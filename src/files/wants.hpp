// The ops that a fetch of files wants: windows over the fetch module, live sources, ops that nobody has.
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

/// An op to get.
struct Want {
  OpId id;
  std::uint64_t bytes = 0;  ///< payload; 0 for the share's own ops (root, lists, manifest)
  bool counted = false;     ///< whether it is a data op, which the progress figures count
};

/// The state as the engine's threads see it.
struct WantsView {
  std::uint64_t epoch = 0;  ///< grows with each change
  std::size_t pending = 0;
  std::size_t missing = 0;
  std::size_t sources = 0, live_sources = 0;
  std::uint64_t ops_held = 0, bytes_held = 0, held_before = 0;
  std::uint64_t fetched_ops = 0, fetched_bytes = 0;
  std::uint64_t damaged = 0;  ///< ops found damaged in the store
  std::uint64_t bytes_arriving = 0, received_bytes = 0;
  FetchWait wait = FetchWait::nothing;
  std::string wait_reason;
  std::string wait_hint;  ///< the same for a user who waits no longer
  /// Whether nothing is pending except what live sources lack, and has not been for `missing_after`.
  bool settled = false;
  std::chrono::milliseconds quiet{0};  ///< since the last byte arrived; zero while nothing is wanted
  std::optional<Error> store_error;
};

/// The part of a fetch of files that runs on the strand.
///
/// *Rules*.
///  W1  An op is pending from `add` until it is durable or missing.
///  W2  An op is missing when every live source said so, or when all live sources answer pings, none is on back-off,
///      and not one byte arrived for `missing_after`. It remains requested: a new source may have it, and then it
///      counts as held.
///  W3  Every source is asked for every pending op; the fetch module makes sure that an op is under way from one of
///      them at a time.
///  W4  A source is an agent of the space with a url and a storage arc that is not empty; its new url replaces the old
///      one.
///  W5  A source is live if it was heard from within the last kLiveFor: an answer, a pong, or bytes of an incomplete
///      answer. Rationale: a large answer over a slow line takes minutes, and holds back all pongs behind it.
///  W6  While no source is live and something is wanted, the reason for waiting is the first missing thing among those
///      that a source needs.
///  W7  A new info costs one look-up, however many are known; the tick finds the infos that are gone.
///  W8  Anybody can claim to be a source, under any number of urls. So at most kMaxSources are kept, preferring those
///      that have answered. Of the others kUnprovenAsked at a time are asked for ops, each for kUnprovenOps; one that
///      stays silent for kLiveFor gives its turn to another. The first answer, even to a ping, makes a source like any
///      other.
///  W9  An op found damaged in the store is pending again; in the progress figures it remains held.
/// Thread rule: strand only, except `view` and `wait`.
class Wants : public std::enable_shared_from_this<Wants> {
 public:
  static constexpr Duration kLiveFor = std::chrono::seconds(7);
  static constexpr Duration kPingEvery = std::chrono::seconds(2);
  static constexpr Duration kPollEvery = std::chrono::seconds(3);
  static constexpr std::size_t kMaxSources = 1024;
  /// How long a source without an answer keeps its place when there is none for others.
  static constexpr Duration kTryFor = std::chrono::seconds(2);
  static constexpr std::size_t kUnprovenAsked = 8;
  static constexpr std::size_t kUnprovenOps = 64;
  /// The number of sources whose coming and going is reported to the user.
  static constexpr std::uint32_t kToldSources = 256;
  static constexpr std::uint64_t kToldDamaged = 20;
  /// After this time something missing is not merely late: the reason for waiting then says what may be wrong.
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
  /// No callback is called afterwards. What is pending in the fetch module remains there.
  void stop();
  /// Counts and leaves out what the store holds, and asks all sources for the rest. `done`: the rest is pending.
  void add(std::vector<Want> wants, Handler<> done);
  /// Returns those of `ids` that are missing now.
  std::vector<OpId> missing_of(const std::vector<OpId>& ids) const;

  /// Whether one of `ids` is pending now.
  bool is_pending(const std::vector<OpId>& ids) const;
  std::vector<OpId> all_missing() const;

  /// Wakes the threads that wait. Any thread.
  void poke();
  /// Any thread.
  WantsView view() const;
  /// Waits until `view().epoch` differs from `epoch`, or for `limit`. Any thread.
  WantsView wait(std::uint64_t epoch, std::chrono::milliseconds limit) const;

 private:
  struct Item {
    std::uint64_t bytes = 0;
    std::uint64_t refs = 0;              ///< counted references
    std::vector<std::uint32_t> lacking;  ///< serials of the sources that said they lack it
  };
  struct Source {
    std::uint32_t serial = 0;
    std::optional<Time> heard;
    std::optional<Time> pinged;
    bool pinging = false;
    bool proven = false;  ///< whether it has answered
    bool told = false;    ///< whether the user was told about it
    unsigned pings = 0;
    Time found_at{};
    std::optional<Time> asked_at;  ///< unproven: when its turn began
    std::size_t asked_ops = 0;     ///< in that turn
    bool dropped = false;          ///< the fetch module gave it up or had no room: ask again when it is heard from
    unsigned pongs = 0;            ///< since something arrived
    std::uint64_t received = 0;    ///< FetchLoad::source_received_bytes, as last seen
    bool said_bad = false;         ///< the user was told that it sends what was not requested
  };

  void tick();
  void look_at_bytes();
  void look_at_wait();
  std::pair<FetchWait, std::string> reason_to_wait(bool for_long) const;
  bool is_wanted() const { return !pending_.empty() || !missing_.empty(); }
  void look_for_sources();
  void on_info(const AgentInfoSigned& info);
  const Url* offer_of(const AgentInfoSigned& info, const std::optional<Url>& own_url, Timestamp wall);
  /// Those that have not answered. Looked at once for many new sources.
  struct Places {
    std::size_t asked = 0;    ///< whose turn it is
    std::vector<Url> silent;  ///< where all places are taken: that have had theirs for kTryFor
  };
  Places look_at_places() const;
  bool add_source(const Url& url, Places& places);
  void ask_first(const Url& url, Source& source);
  void rotate_unproven();
  void ping();
  void on_heard(const Url& url);
  void ask(const Url& url, std::vector<OpId> ids);
  void ask_all(const Url& url);
  void forget_stale();
  bool is_live(const Source& source) const;
  std::size_t live_count() const;
  void on_stored(const Url& peer, const std::vector<StoredOp>& ops, std::uint64_t bytes);
  void hold(const Item& item);
  void on_damaged(const std::vector<OpRecord>& ops);
  void ask_everybody(const std::vector<OpId>& ids);
  void on_lacking(const Url& peer, const std::vector<OpId>& ops);
  void on_unserved(const Url& peer, std::vector<OpId> ops);
  void on_filtered(std::vector<Want> wants, const std::vector<OpId>& lacking);
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
  std::unordered_set<OpId> suspects_;  ///< pending, and lacked by a source, as that said
  std::unordered_map<Url, Source> sources_;
  std::uint32_t next_serial_ = 1;
  std::size_t turn_ = 0;        ///< which source is asked first
  std::size_t next_fresh_ = 0;  ///< the url without a place whose turn is next
  std::size_t filters_ = 0;
  std::unordered_set<OpId> stored_meanwhile_;
  bool rechecking_ = false;
  bool stale_forgotten_ = false;
  bool was_live_ = false;
  std::size_t others_ = 0;  ///< other agents in the space, sources or not
  std::uint64_t received_before_ = 0;
  Time last_byte_{}, changed_at_{}, polled_at_{};
  Time wait_since_{};  ///< when `figures_.wait` got its value
  Runtime::TimerId timer_ = 0;
  bool stopped_ = false;
  std::shared_ptr<void> subscription_;
  std::shared_ptr<void> fetch_subscription_;
  std::shared_ptr<void> store_subscription_;
  Lifetime lifetime_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  WantsView view_;     ///< under mutex_
  WantsView figures_;  ///< strand only: the figures that `publish` copies
};

}  // namespace kitsune2::files
