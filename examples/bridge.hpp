// Carries ops from one space to another, in the same process: what a host does that is in two networks.
#pragma once

#include <kitsune2/kitsune2.hpp>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

/// One direction of a bridge: every op that becomes held in `from`, and every one that is held there at the start, is
/// stored in `to` and announced to the peers there. Two of them make a bridge. Both spaces must have the same policy,
/// so that an op has the same id on both sides: then what came from the other side is held there already, and nothing
/// goes round in circles.
///
/// The two spaces have strands of their own, so this object lives on the strand of `from`, and posts to the other one.
/// It holds the ids that are to be carried, and the bytes of one batch. What the other store refuses or cannot write
/// now is left out; the next start carries it.
class OneWay : public std::enable_shared_from_this<OneWay> {
 public:
  struct Side {
    kitsune2::Runtime& runtime;
    std::shared_ptr<kitsune2::Space> space;
  };

  /// To be called on the strand of `from`. Dropping the result, there, ends it.
  static std::shared_ptr<OneWay> start(const Side& from, const Side& to) {
    std::shared_ptr<OneWay> out(new OneWay(from, to));
    // First to hear of new ops, then to read what is held: some come both ways.
    kitsune2::OpStoreEvents events;
    events.ops_stored = [weak = out->weak_from_this()](const std::vector<kitsune2::OpRecord>& ops) {
      if (const auto self = weak.lock()) self->add(ops);
    };
    out->subscription_ = from.space->op_store().subscribe(std::move(events));
    out->list(std::nullopt);
    return out;
  }

 private:
  static constexpr std::size_t kBatchOps = 256;
  static constexpr std::uint64_t kBatchBytes = 8U << 20;

  OneWay(const Side& from, const Side& to) : from_(from), to_(to) {}

  void list(std::optional<kitsune2::OpCursor> after) {
    from_.space->op_store().list_ops({.after = after},
                                     [weak = weak_from_this()](kitsune2::Result<kitsune2::OpPage> page) {
                                       const auto self = weak.lock();
                                       if (!self || !page) return;
                                       self->add(page->ops);
                                       if (page->next) self->list(page->next);
                                     });
  }

  void add(const std::vector<kitsune2::OpRecord>& ops) {
    for (const auto& op : ops) waiting_.insert(op.op_id);
    carry();
  }

  void carry() {
    if (is_carrying_ || waiting_.empty()) return;
    is_carrying_ = true;
    std::vector<kitsune2::OpId> ids;
    for (auto id = waiting_.begin(); id != waiting_.end() && ids.size() < kBatchOps; ++id) ids.push_back(*id);
    from_.space->op_store().retrieve_ops(
        ids, kBatchBytes, [weak = weak_from_this(), ids](kitsune2::Result<std::vector<kitsune2::MetaOp>> ops) {
          const auto self = weak.lock();
          if (!self) return;
          if (!ops || ops->empty()) return self->done(ids);  // gone from the store, or it cannot be read
          std::vector<kitsune2::OpId> read;
          std::vector<kitsune2::Bytes> payloads;
          for (auto& op : *ops) {
            read.push_back(op.op_id);
            payloads.push_back(std::move(op.op_data));
          }
          self->put(std::move(read), std::move(payloads));
        });
  }

  /// On the other strand, and back.
  void put(std::vector<kitsune2::OpId> ids, std::vector<kitsune2::Bytes> payloads) {
    to_.runtime.post([weak = weak_from_this(), &home = from_.runtime, space = to_.space, ids = std::move(ids),
                      payloads = std::move(payloads)]() mutable {
      space->op_store().process_incoming_ops(
          std::move(payloads), [weak, &home, space, ids](kitsune2::Result<kitsune2::ProcessedOps> stored) {
            if (stored && !stored->newly_stored.empty()) announce(*space, stored->newly_stored);
            home.post([weak, ids] {
              if (const auto self = weak.lock()) self->done(ids);
            });
          });
    });
  }

  static void announce(kitsune2::Space& space, const std::vector<kitsune2::OpId>& ids) {
    std::set<kitsune2::Url> peers;
    for (const auto& info : space.peer_store().get_all()) {
      if (info->info().url && info->info().url != space.current_url()) peers.insert(*info->info().url);
    }
    // Who is not reached learns of them by gossip.
    for (const auto& peer : peers) space.publish().publish_ops(ids, peer, [](const kitsune2::Result<void>&) {});
  }

  void done(const std::vector<kitsune2::OpId>& ids) {
    for (const auto& id : ids) waiting_.erase(id);
    is_carrying_ = false;
    carry();
  }

  const Side from_, to_;
  std::set<kitsune2::OpId> waiting_;
  bool is_carrying_ = false;
  std::shared_ptr<void> subscription_;
};
