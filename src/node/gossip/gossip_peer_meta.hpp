// What gossip remembers about each peer, in the PeerMetaStore.
#pragma once

#include <charconv>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "core/gossip/bookmark.hpp"
#include "kitsune2/peer_store.hpp"

namespace kitsune2 {

/// Typed access. Keys, texts (decimal numbers) and lifetimes are the reference's, except `kBookmarkSectors`, which is
/// ours. Failed writes are ignored: without these notes, a round only happens earlier or asks for more. For the same
/// reason they are written within a minute, together; but what is forgotten because requests were dropped is forgotten
/// on disk at once. A note from the future does not count: it means that our clock was set back, and peers must not
/// wait until that time comes again.
class GossipPeerMeta {
 public:
  static constexpr const char* kLastTimestamp = "gossip:last_timestamp";
  static constexpr const char* kNewOpsBookmark = "gossip:new_ops_bookmark";
  static constexpr const char* kBookmarkSectors = "gossip:bookmark_sectors";
  static constexpr const char* kBehaviorErrors = "gossip:peer_behavior_errors";
  static constexpr const char* kLocalErrors = "gossip:local_errors";
  static constexpr const char* kBusy = "gossip:peer_busy";
  static constexpr const char* kTerminated = "gossip:peer_terminated";
  static constexpr const char* kCompletedRounds = "gossip:completed_rounds";
  static constexpr const char* kTimeouts = "gossip:peer_timeouts";

  GossipPeerMeta(Runtime& runtime, std::shared_ptr<PeerMetaStore> store)
      : runtime_(runtime), store_(std::move(store)) {}

  /// When either side last tried. It decides whose turn it is, but is no reason to wait: see gossip::RoundBook, D2.
  std::optional<Timestamp> last_gossip(const Url& peer) const { return past(peer, kLastTimestamp); }
  void set_last_gossip(const Url& peer, Timestamp at) {
    put(peer, kLastTimestamp, at.micros, std::chrono::minutes(10));
  }
  using Bookmark = gossip::Bookmark;
  /// Also nullopt if the sectors are not known.
  std::optional<Bookmark> bookmark(const Url& peer) const {
    const auto at = time(peer, kNewOpsBookmark);
    const auto text = store_->get(peer, kBookmarkSectors);
    const auto sectors = text ? SectorSet::parse(text->text()) : std::nullopt;
    if (!at || !sectors) return std::nullopt;
    return Bookmark{*at, *sectors};
  }
  void set_bookmark(const Url& peer, const Bookmark& bookmark) {
    const Duration lifetime = std::chrono::hours(24);
    put(peer, kBookmarkSectors, bookmark.sectors.to_string(), lifetime);
    put(peer, kNewOpsBookmark, bookmark.at.micros, lifetime);
  }
  /// Forgets a bookmark that can no longer be relied on; durably, even if the machine crashes now.
  void forget_bookmark(const Url& peer) { store_->remove(peer, kNewOpsBookmark); }
  /// Forgets a bookmark that is of no use any more. It would do no harm, so this is not durable at once.
  void drop_bookmark(const Url& peer) { store_->remove_soon(peer, kNewOpsBookmark); }
  void forget_bookmarks() {
    for (const auto& [peer, value] : store_->get_all_by_key(kNewOpsBookmark)) forget_bookmark(peer);
  }
  void drop_bookmarks() {
    for (const auto& [peer, value] : store_->get_all_by_key(kNewOpsBookmark)) drop_bookmark(peer);
  }
  /// Adds one to a counter.
  void count(const Url& peer, const char* key) {
    const bool long_lived = key == kCompletedRounds || key == kTimeouts;
    put(peer, key, number(peer, key).value_or(0) + 1, std::chrono::hours(long_lived ? 24 : 1));
  }
  /// How often it was counted, within the lifetime of the counter.
  std::optional<std::uint64_t> counted(const Url& peer, const char* key) const {
    const auto out = number(peer, key);
    if (!out || *out < 0) return std::nullopt;
    return static_cast<std::uint64_t>(*out);
  }
  /// Where new ops of the peer begin, whichever sectors that holds for.
  std::optional<Timestamp> bookmark_time(const Url& peer) const { return time(peer, kNewOpsBookmark); }
  /// Writes what was not written to disk yet.
  void flush() { store_->flush(); }

 private:
  std::optional<std::int64_t> number(const Url& peer, const char* key) const {
    const auto bytes = store_->get(peer, key);
    if (!bytes) return std::nullopt;
    const std::string_view text = bytes->text();
    std::int64_t out = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return out;
  }
  std::optional<Timestamp> time(const Url& peer, const char* key) const {
    const auto micros = number(peer, key);
    if (!micros) return std::nullopt;
    return Timestamp{*micros};
  }
  std::optional<Timestamp> past(const Url& peer, const char* key) const {
    const auto at = time(peer, key);
    return at && *at <= runtime_.wall_now() ? at : std::nullopt;
  }
  void put(const Url& peer, const char* key, std::int64_t value, Duration lifetime) {
    put(peer, key, std::to_string(value), lifetime);
  }
  void put(const Url& peer, const char* key, std::string text, Duration lifetime) {
    static_cast<void>(store_->put_soon(peer, key, Bytes(std::move(text)), runtime_.wall_now() + lifetime));
  }

  Runtime& runtime_;
  std::shared_ptr<PeerMetaStore> store_;
};

}  // namespace kitsune2
