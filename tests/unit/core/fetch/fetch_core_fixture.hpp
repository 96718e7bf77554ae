// The common part of tests of the fetch core: names for ops and sources, and the core at a time set by the test.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "core/fetch/fetch_core.hpp"

namespace kitsune2::fetch_core_test {

constexpr Time kStart{Duration(1'000'000'000)};
constexpr Duration kTick{1};
constexpr Duration kDelay{2'000'000};
constexpr Duration kBackOff{20'000'000};

inline Url source(std::size_t i) { return Url::parse("wss://relay:443/s" + std::to_string(i)).value(); }
inline OpId op(std::size_t i) { return OpId::from_text("op" + std::to_string(i)); }
inline std::vector<OpId> ops(std::size_t first, std::size_t count) {
  std::vector<OpId> out;
  for (std::size_t i = first; i < first + count; ++i) out.push_back(op(i));
  return out;
}

class CoreFixture : public ::testing::Test {
 protected:
  void TearDown() override {
    if (core_) core().check_invariants();
  }
  /// Made at the first call, with the `config_` of that moment.
  FetchCore& core() {
    if (!core_) core_ = std::make_unique<FetchCore>(config_);
    return *core_;
  }
  /// Everything that can be requested now, sent at once.
  std::vector<FetchRequest> ask_all() {
    std::vector<FetchRequest> out;
    core().poll(now_);
    while (auto request = core().next_request(now_)) {
      core().on_sent(request->id, now_);
      out.push_back(std::move(*request));
    }
    core().check_invariants();
    return out;
  }
  void answer(const FetchRequest& request, std::uint64_t op_size = 100) {
    core().on_response(request.source, request.op_ids, op_size * request.op_ids.size(), now_);
    core().on_stored(request.op_ids, now_);
  }
  FetchAnswer respond(const Url& from, const std::vector<OpId>& ids, std::uint64_t invalid = 0) {
    FetchAnswer out = core().on_response(from, ids, 100 * ids.size(), now_, invalid);
    core().check_invariants();
    return out;
  }
  void pass(Duration time) {
    now_ += time;
    core().poll(now_);
  }

  CoreFetchConfig config_;
  Time now_ = kStart;

 private:
  std::unique_ptr<FetchCore> core_;
};

}  // namespace kitsune2::fetch_core_test
