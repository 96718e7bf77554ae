// Keeps the DHT model of a space equal to its op store.
#pragma once

#include <boost/unordered/unordered_flat_set.hpp>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <stop_token>
#include <vector>

#include "core/dht/dht_model.hpp"
#include "kitsune2/op_store.hpp"
#include "kitsune2/runtime.hpp"

namespace kitsune2 {

/// Makes a DHT model of all ops of a store at the start, and adds those that are stored from then on.
///
/// *Rules*.
///  H1  There is no model until everything has been read.
///  H2  Each op counts once. An op that is reported while a page is being read counts if neither that page nor a later
///      one has it; pages are in the order of creation, and of storing among equals. An op that a page had does not
///      count again when it is reported afterwards: a store may show an op to its readers a moment before it reports
///      it. For this the ids of the last `kPagesRemembered` pages are remembered.
///  H3  When ops are found damaged, when the clock was set back by more than `kClockSetBack`, or after a read that
///      failed, everything is read again, `kReadAgainAfter` later. Rationale: it is not certain where a damaged op was,
///      and sums cannot be corrected by guessing. A layout of the future can be compared with nobody's.
///  H4  After there was no model for a time, further damage is seen to only when `kRest` times that time has passed, or
///      `kLongestRest`; until then the model stays as it is, with the damaged ops. Rationale: an op is found damaged
///      when a peer asks for it. If the disk has many, peers must not make the node read its store again and again, nor
///      keep it from comparing. What is found lacking late is fetched late, but not days late because reads failed for
///      hours.
///  H5  A store that keeps sums is asked for them, and no op is read. If it cannot give them, or if the clock was set
///      back meanwhile, all ops are read as from any other store.
///
/// Memory: that of the model (`dht::DhtModel`, M4). Strand only.
class DhtKeeper : public std::enable_shared_from_this<DhtKeeper> {
 public:
  static constexpr std::size_t kPage = 4'096;
  static constexpr std::size_t kPagesRemembered = 64;
  /// After the last page, they are.
  static constexpr Duration kRememberedFor = std::chrono::seconds(10);
  static constexpr Duration kReadAgainAfter = std::chrono::seconds(10);
  static constexpr int kRest = 9;
  static constexpr Duration kLongestRest = std::chrono::hours(1);
  static constexpr Duration kClockSetBack = std::chrono::minutes(5);

  DhtKeeper(Runtime& runtime, std::shared_ptr<OpStore> store) : runtime_(runtime), store_(std::move(store)) {}
  ~DhtKeeper() {
    runtime_.cancel(timer_);
    runtime_.cancel(damage_timer_);
  }
  DhtKeeper(const DhtKeeper&) = delete;
  DhtKeeper& operator=(const DhtKeeper&) = delete;

  void start();
  void stop();
  /// The model as of now, or nullptr (H1). The pointer is valid until the next call.
  const dht::DhtModel* model();
  /// How many ops are in no comparison, because their ids have another length than the first one's.
  std::uint64_t refused() const { return refused_; }

 private:
  void on_damaged();
  void read_anew();
  void read_later();
  void on_sums(const Result<DhtSums>& sums);
  bool load(const DhtSums& sums);
  void has_read();
  void read_page();
  void on_page(const Result<OpPage>& page);
  void add(const OpRecord& op);
  void remember(const std::vector<OpRecord>& page);
  void forget_pages();
  void on_stored(const std::vector<OpRecord>& ops);

  Runtime& runtime_;
  std::shared_ptr<OpStore> store_;
  std::shared_ptr<void> subscription_;
  std::optional<dht::DhtModel> model_;
  bool is_read_ = false;
  bool is_page_under_way_ = false;
  std::optional<OpCursor> after_;                   ///< up to where the store was read
  std::vector<OpRecord> told_;                      ///< ops that were reported while the page is being read
  std::deque<std::vector<std::uint64_t>> pages_;    ///< hashes of the ids of the last pages
  boost::unordered_flat_set<std::uint64_t> marks_;  ///< all hashes in pages_
  Time read_at_{};
  std::stop_source stop_;
  std::uint64_t run_ = 0;  ///< the number of this reading; pages of an earlier one are ignored
  Runtime::TimerId timer_ = 0;
  Time without_since_{};     ///< since when there is no model
  Time rests_until_{};       ///< H4
  bool is_damaged_ = false;  ///< damage was told of, and is not seen to yet
  Runtime::TimerId damage_timer_ = 0;
  std::uint64_t refused_ = 0;
  bool stopped_ = false;
};

}  // namespace kitsune2
