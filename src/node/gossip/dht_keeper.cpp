// Keeps a DHT model equal to an op store: has it or reads it at the start, then listens. Rules: H of DhtKeeper.
#include "node/gossip/dht_keeper.hpp"

#include <algorithm>
#include <utility>

#include "log/log.hpp"

namespace kitsune2 {
namespace {

std::uint64_t mark_of(const OpRecord& op) { return keyed_hash(op.op_id.view()); }

}  // namespace

void DhtKeeper::start() {
  subscription_ = store_->subscribe({
      .ops_stored =
          [weak = weak_from_this()](const std::vector<OpRecord>& ops) {
            if (auto self = weak.lock()) self->on_stored(ops);
          },
      .ops_damaged =
          [weak = weak_from_this()](const std::vector<OpRecord>&) {
            if (auto self = weak.lock()) self->on_damaged();
          },
  });
  without_since_ = runtime_.now();
  read_anew();
}

void DhtKeeper::stop() {
  stopped_ = true;
  stop_.request_stop();
  subscription_.reset();
  runtime_.cancel(timer_);
  timer_ = 0;
  runtime_.cancel(damage_timer_);
  damage_timer_ = 0;
  model_.reset();
}

const dht::DhtModel* DhtKeeper::model() {
  if (!is_read_ || stopped_) return nullptr;
  const Timestamp now = runtime_.wall_now();
  if (now + kClockSetBack < dht::unit_start(model_->layout().end_unit())) {
    read_later();
    return nullptr;
  }
  if (!marks_.empty() && runtime_.now() >= read_at_ + kRememberedFor) forget_pages();
  model_->update(now);
  return &*model_;
}

/// H4.
void DhtKeeper::on_damaged() {
  is_damaged_ = true;
  // While it reads, or is about to, this waits for the end of that.
  if (stopped_ || !is_read_ || damage_timer_ != 0) return;
  if (runtime_.now() >= rests_until_) return read_later();
  damage_timer_ = runtime_.schedule(rests_until_, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    self->damage_timer_ = 0;
    if (self->is_damaged_) self->on_damaged();
  });
}

void DhtKeeper::read_later() {
  if (stopped_ || timer_ != 0) return;
  if (is_read_) without_since_ = runtime_.now();
  stop_.request_stop();
  ++run_;
  is_read_ = is_page_under_way_ = false;
  model_.reset();
  timer_ = runtime_.schedule_after(kReadAgainAfter, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self || self->stopped_) return;
    self->timer_ = 0;
    self->read_anew();
  });
}

void DhtKeeper::read_anew() {
  stop_ = {};
  ++run_;
  is_read_ = is_damaged_ = false;
  after_.reset();
  told_.clear();
  forget_pages();
  refused_ = 0;
  model_.emplace(runtime_.wall_now());
  // What is stored until the sums come is in them.
  const bool asked = store_->retrieve_dht_sums([weak = weak_from_this(), run = run_](const Result<DhtSums>& sums) {
    auto self = weak.lock();
    if (self && !self->stopped_ && run == self->run_) self->on_sums(sums);
  });
  if (!asked) read_page();
}

void DhtKeeper::on_sums(const Result<DhtSums>& sums) {
  model_.emplace(runtime_.wall_now());
  if (sums && load(*sums)) return has_read();
  log::debug("gossip", "all ops are read for comparing them with peers" +
                           (sums ? std::string() : ": " + sums.error().to_string()));
  model_.emplace(runtime_.wall_now());
  read_page();
}

/// Returns false if the sums are not those of a model of now.
bool DhtKeeper::load(const DhtSums& sums) {
  for (std::size_t i = 0; i < sums.cells.size(); ++i) {
    const DhtSums::Cell& from = sums.cells[i];
    const dht::DhtModel::Cell cell{dht::CombinedHash(sums.hash(i)), from.ops};
    if (from.units == 1) {
      if (!model_->load_unit(from.sector, from.first_unit, cell)) return false;
      continue;
    }
    if (from.units != dht::kUnitsPerSlice || from.first_unit < 0 || from.first_unit % dht::kUnitsPerSlice != 0)
      return false;
    const auto slice = static_cast<std::uint64_t>(from.first_unit / dht::kUnitsPerSlice);
    const auto loaded = model_->load_slice(from.sector, slice, cell);
    if (!loaded || !*loaded) return false;
  }
  model_->load_apart(sums.apart);
  return true;
}

void DhtKeeper::has_read() {
  is_read_ = true;
  read_at_ = runtime_.now();
  rests_until_ = read_at_ + std::min<Duration>(kRest * (read_at_ - without_since_), kLongestRest);
  if (is_damaged_) on_damaged();
}

void DhtKeeper::read_page() {
  OpListQuery query;
  query.after = after_;
  query.limit = kPage;
  query.stop = stop_.get_token();
  is_page_under_way_ = true;
  store_->list_ops(std::move(query), [weak = weak_from_this(), run = run_](const Result<OpPage>& page) {
    auto self = weak.lock();
    if (self && !self->stopped_ && run == self->run_) self->on_page(page);
  });
}

void DhtKeeper::on_page(const Result<OpPage>& page) {
  is_page_under_way_ = false;
  if (!page) {
    log::warn("gossip", "cannot read the ops for comparing them with peers: " + page.error().to_string());
    return read_later();
  }
  for (const OpRecord& op : page->ops) add(op);
  remember(page->ops);
  for (const OpRecord& op : std::exchange(told_, {})) {
    const bool comes_later = page->next && op.created_at >= page->next->created_at;
    if (!comes_later && !marks_.contains(mark_of(op))) add(op);
  }
  after_ = page->next;
  page->next ? read_page() : has_read();
}

void DhtKeeper::remember(const std::vector<OpRecord>& page) {
  auto& marks = pages_.emplace_back();
  marks.reserve(page.size());
  for (const OpRecord& op : page) marks.push_back(mark_of(op));
  marks_.insert(marks.begin(), marks.end());
  if (pages_.size() <= kPagesRemembered) return;
  for (const std::uint64_t mark : pages_.front()) marks_.erase(mark);
  pages_.pop_front();
}

void DhtKeeper::forget_pages() {
  pages_ = {};
  marks_ = {};
}

void DhtKeeper::on_stored(const std::vector<OpRecord>& ops) {
  if (stopped_ || !model_) return;
  if (is_read_) {
    if (!marks_.empty() && runtime_.now() >= read_at_ + kRememberedFor) forget_pages();
    for (const OpRecord& op : ops) {
      if (marks_.empty() || !marks_.contains(mark_of(op))) add(op);
    }
  } else if (is_page_under_way_) {
    told_.insert(told_.end(), ops.begin(), ops.end());
  }
}

void DhtKeeper::add(const OpRecord& op) {
  const auto added = model_->add(op.location, op.created_at, op.op_id.view());
  if (added) return;
  if (refused_++ == 0) log::warn("gossip", "an op that is in no comparison with peers: " + added.error().to_string());
}

}  // namespace kitsune2
