// What tests of an op store need: a world, a folder, calls that wait for their handler, and ops with a given location
// and time. Needs GoogleTest.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kitsune2/op_store.hpp"
#include "kitsune2/testing/sim_runtime.hpp"

namespace kitsune2::testing {

/// A folder that is removed together with the object.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "k2-store-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TempDir() {
    std::error_code ec;
    std::filesystem::remove_all(path_, ec);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string operator/(std::string_view name) const { return (path_ / name).string(); }
  std::string str() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

/// A world with one runtime, and store calls that wait for their outcome.
class StoreWorld {
 public:
  StoreWorld() : runtime_(world_.make_runtime()) {}

  SimWorld& world() { return world_; }
  SimRuntime& runtime() { return *runtime_; }
  Timestamp now() const { return runtime_->wall_now(); }
  void set_now(Timestamp now) { world_.set_wall_now(now); }

  /// Makes a call and runs the world until its handler has run.
  template <class T>
  Result<T> wait(const std::function<void(Handler<T>)>& call) {
    std::optional<Result<T>> out;
    bool inside = true;
    call([&](Result<T> result) {
      EXPECT_FALSE(inside) << "a handler ran inside the call";
      EXPECT_FALSE(out.has_value()) << "a handler ran twice";
      out.emplace(std::move(result));
    });
    inside = false;
    EXPECT_TRUE(world_.wait_for([&] { return out.has_value(); })) << "a handler never ran";
    if (!out) return make_error(Errc::timed_out, "no handler");
    return *out;
  }

  Result<ProcessedOps> process(OpStore& s, std::vector<Bytes> ops) {
    return wait<ProcessedOps>([&](auto done) { s.process_incoming_ops(std::move(ops), std::move(done)); });
  }
  Result<ProcessedOps> store_described(OpStore& s, std::vector<std::pair<OpDescription, Bytes>> ops) {
    return wait<ProcessedOps>([&](auto done) { s.store_described_ops(std::move(ops), std::move(done)); });
  }
  Result<std::vector<MetaOp>> retrieve(OpStore& s, std::vector<OpId> ids, std::uint64_t max_bytes = UINT64_MAX) {
    return wait<std::vector<MetaOp>>([&](auto done) { s.retrieve_ops(std::move(ids), max_bytes, std::move(done)); });
  }
  Result<std::vector<OpId>> filter(OpStore& s, std::vector<OpId> ids) {
    return wait<std::vector<OpId>>([&](auto done) { s.filter_out_existing_ops(std::move(ids), std::move(done)); });
  }
  Result<OpIdsInSlice> slice(OpStore& s, DhtArc arc, Timestamp start, Timestamp end) {
    return wait<OpIdsInSlice>([&](auto done) { s.retrieve_op_hashes_in_time_slice(arc, start, end, std::move(done)); });
  }
  Result<OpIdsBounded> bounded(OpStore& s, DhtArc arc, Timestamp start, std::uint32_t limit = UINT32_MAX) {
    return wait<OpIdsBounded>([&](auto done) { s.retrieve_op_ids_bounded(arc, start, limit, std::move(done)); });
  }
  Result<OpIdsBounded> bounded(OpStore& s, OpIdsQuery query) {
    return wait<OpIdsBounded>([&](auto done) { s.retrieve_op_ids_bounded(std::move(query), std::move(done)); });
  }
  Result<std::vector<OpId>> filter_intact(OpStore& s, std::vector<OpId> ids) {
    return wait<std::vector<OpId>>([&](auto done) { s.filter_out_intact_ops(std::move(ids), std::move(done)); });
  }
  Result<OpPage> list(OpStore& s, OpListQuery query) {
    return wait<OpPage>([&](auto done) { s.list_ops(std::move(query), std::move(done)); });
  }
  /// All pages, one after the other.
  std::vector<OpRecord> list_all(OpStore& s, OpListQuery query) {
    std::vector<OpRecord> out;
    for (;;) {
      auto page = list(s, query);
      EXPECT_TRUE(page);
      if (!page) return out;
      EXPECT_LE(page->ops.size(), query.limit);
      out.insert(out.end(), page->ops.begin(), page->ops.end());
      if (!page->next) return out;
      EXPECT_TRUE(!query.after || *page->next > *query.after) << "a cursor does not move";
      query.after = page->next;
    }
  }
  Result<OpSumsPage> sums(OpStore& s, OpSumsQuery query) {
    return wait<OpSumsPage>([&](auto done) { s.sum_ops(std::move(query), std::move(done)); });
  }
  Result<std::optional<Timestamp>> earliest(OpStore& s, DhtArc arc) {
    return wait<std::optional<Timestamp>>([&](auto done) { s.earliest_timestamp_in_arc(arc, std::move(done)); });
  }
  Result<void> put_slice_hash(OpStore& s, DhtArc arc, std::uint64_t index, std::string_view hash) {
    return wait<void>([&](auto done) { s.store_slice_hash(arc, index, Bytes::copy_of(hash), std::move(done)); });
  }
  Result<std::uint64_t> slice_count(OpStore& s, DhtArc arc) {
    return wait<std::uint64_t>([&](auto done) { s.slice_hash_count(arc, std::move(done)); });
  }
  Result<std::optional<Bytes>> slice_hash(OpStore& s, DhtArc arc, std::uint64_t index) {
    return wait<std::optional<Bytes>>([&](auto done) { s.retrieve_slice_hash(arc, index, std::move(done)); });
  }
  Result<std::vector<std::pair<std::uint64_t, Bytes>>> slice_hashes(OpStore& s, DhtArc arc) {
    return wait<std::vector<std::pair<std::uint64_t, Bytes>>>(
        [&](auto done) { s.retrieve_slice_hashes(arc, std::move(done)); });
  }
  Result<void> add_pending(OpStore& s, std::vector<OpId> ids, const Url& source) {
    return wait<void>([&](auto done) { s.add_pending(std::move(ids), source, std::move(done)); });
  }
  Result<void> remove_source(OpStore& s, const Url& source) {
    return wait<void>([&](auto done) { s.remove_pending_source(source, std::move(done)); });
  }
  using Pending = std::vector<std::pair<Url, std::vector<OpId>>>;
  /// All pending requests, sorted so that they can be compared.
  Pending pending(OpStore& s) {
    auto out = wait<Pending>([&](auto done) { s.retrieve_pending(std::move(done)); });
    EXPECT_TRUE(out);
    if (!out) return {};
    for (auto& [url, ids] : *out) std::sort(ids.begin(), ids.end());
    std::sort(out->begin(), out->end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    return *out;
  }
  /// The same, read in pages of `limit`, with each pair once.
  Pending pending_in_pages(OpStore& s, std::size_t limit) {
    std::map<Url, std::vector<OpId>> all;
    for (std::uint64_t after = 0;;) {
      auto page = wait<PendingPage>([&](auto done) { s.retrieve_pending_page(after, limit, std::move(done)); });
      EXPECT_TRUE(page);
      if (!page) return {};
      for (auto& [url, ids] : page->requests) all[url].insert(all[url].end(), ids.begin(), ids.end());
      if (!page->next) break;
      EXPECT_GT(*page->next, after);
      after = *page->next;
    }
    Pending out(all.begin(), all.end());
    for (auto& [url, ids] : out) {
      std::sort(ids.begin(), ids.end());
      ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    }
    return out;
  }
  Result<void> remove_pending(OpStore& s, std::vector<OpId> ids, const Url& source) {
    return wait<void>([&](auto done) { s.remove_pending(std::move(ids), source, std::move(done)); });
  }
  Result<OpStoreStats> stats(OpStore& s) {
    return wait<OpStoreStats>([&](auto done) { s.stats(std::move(done)); });
  }

 private:
  SimWorld world_;
  std::unique_ptr<SimRuntime> runtime_;
};

/// An op of the memory-op policy with a given id (cut or zero-padded to 32 bytes) and time, and `extra` payload.
inline Bytes timed_op(ByteView id, std::int64_t created_at, std::size_t extra = 0) {
  std::string json = "{\"created_at\":" + std::to_string(created_at) + ",\"op_data\":[";
  for (std::size_t i = 0; i < 32 + extra; ++i) {
    if (i > 0) json += ',';
    json += std::to_string(i < id.size() && i < 32 ? id[i] : 0);
  }
  return Bytes(json + "]}");
}

/// An id at a location: the location's four bytes, then a number in the next two groups that cancels out.
inline OpId id_at(std::uint32_t loc, std::uint32_t number = 0) {
  std::array<std::uint8_t, 32> id{};
  for (unsigned i = 0; i < 4; ++i) {
    id[i] = static_cast<std::uint8_t>(loc >> (8 * i));
    id[4 + i] = id[8 + i] = static_cast<std::uint8_t>(number >> (8 * i));
  }
  return OpId(id);
}

inline Bytes op_at(std::uint32_t loc, std::int64_t created_at, std::uint32_t number = 0, std::size_t extra = 0) {
  return timed_op(id_at(loc, number), created_at, extra);
}

inline Url peer_url(int number) { return Url::parse("ws://127.0.0.1:1000/peer" + std::to_string(number)).value(); }

inline const SpaceId& test_space() {
  static const SpaceId space = SpaceId::from_text("store-test");
  return space;
}

}  // namespace kitsune2::testing
