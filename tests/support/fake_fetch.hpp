// A fetch module that does nothing, as a base class.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "kitsune2/fetch.hpp"

namespace kitsune2 {

struct FakeFetch : Fetch {
  void request_ops(std::vector<OpId>, const Url&, Handler<>) override {}
  void request_offered_ops(std::vector<OpId> ids, const Url& peer, Handler<> done) override {
    request_ops(std::move(ids), peer, std::move(done));
  }
  void set_offer_filter(std::function<bool(const Url&)>) override {}
  void remove_source(const Url&) override {}
  void replace_source(const Url&, const Url&) override {}
  FetchStateSummary state_summary() const override { return {}; }
  FetchStats stats() const override { return {}; }
  std::uint64_t pending_ops() const override { return 0; }
  void notify_on_drained(std::function<void()>) override {}
  std::shared_ptr<void> subscribe(FetchEvents) override { return nullptr; }
};

}  // namespace kitsune2
