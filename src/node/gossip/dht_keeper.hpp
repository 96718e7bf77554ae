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

/// Reads the ops of a store into a DHT model at the start, in pages, and hears of new ones from then on.
///
/// *Rules*. H1: there is no model until all is read. H2: each op counts once. What is told while a page is under way
/// counts if the page does not have it and no later one will: pages are in the order of creation, and of storing where
/// that is the same. And what a page had counts no more when it is told of afterwards: a store may show an op to its
/// readers a moment before it tells of it. The ids of the last `kPagesRemembered` pages are known for that. H3: when
/// ops are found damaged, or the clock was set back by more than `kClockSetBack`, all is read anew, `kReadAgainAfter`
/// later; after a read that failed too. *Rationale*: H3, of a damaged op it is not certain where it lay, and sums
/// cannot be put right by guessing. A layout of the future compares with nobody.
///
/// Memory: that of the model (`dht::DhtModel`, M4). Strand only.
class DhtKeeper : public std::enable_shared_from_this<DhtKeeper> {
 public:
  static constexpr std::size_t kPage = 4'096;
  static constexpr std::size_t kPagesRemembered = 64;
  /// After the last page, they are.
  static constexpr Duration kRememberedFor = std::chrono::seconds(10);
  static constexpr Duration kReadAgainAfter = std::chrono::seconds(10);
  static constexpr Duration kClockSetBack = std::chrono::hours(1);

  DhtKeeper(Runtime& runtime, std::shared_ptr<OpStore> store) : runtime_(runtime), store_(std::move(store)) {}
  ~DhtKeeper() { runtime_.cancel(timer_); }
  DhtKeeper(const DhtKeeper&) = delete;
  DhtKeeper& operator=(const DhtKeeper&) = delete;

  void start();
  void stop();
  /// As of now; nullptr: H1. Holds until this is called again.
  const dht::DhtModel* model();
  /// Ops whose ids have another length than the others; they are in no comparison.
  std::uint64_t refused() const { return refused_; }

 private:
  void read_anew();
  void read_later();
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
  std::optional<OpCursor> after_;                   ///< what was read
  std::vector<OpRecord> told_;                      ///< while the page is under way
  std::deque<std::vector<std::uint64_t>> pages_;    ///< marks of ids
  boost::unordered_flat_set<std::uint64_t> marks_;  ///< those of pages_
  Time read_at_{};
  std::stop_source stop_;
  std::uint64_t run_ = 0;  ///< pages of an earlier reading are not heard
  Runtime::TimerId timer_ = 0;
  std::uint64_t refused_ = 0;
  bool stopped_ = false;
};

}  // namespace kitsune2
