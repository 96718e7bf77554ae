// Comparisons that are put off, written naively: all lists are kept, and each question is answered from them. And the
// run that feeds the same lists to it and to PutOffs.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/gossip/put_offs.hpp"
#include "kitsune2/bytes.hpp"
#include "model/commands.hpp"

namespace kitsune2::model {

class PutOffsTwin {
 public:
  bool is_due(const Url& peer) const {
    std::vector<bool> of_peer;
    for (const auto& [url, was_put_off] : rounds_) {
      if (url == peer) of_peer.push_back(was_put_off);
    }
    if (of_peer.size() < 3) return false;
    return of_peer[of_peer.size() - 1] && of_peer[of_peer.size() - 2] && of_peer[of_peer.size() - 3];
  }
  bool on_list(const Url& peer, const gossip::NamedList& list) {
    bool is_put_off = true;
    if (!list.is_cut) is_put_off = false;
    if (list.ids == 0 || list.is_by_allowance) is_put_off = false;
    if (is_due(peer)) is_put_off = false;
    rounds_.emplace_back(peer, is_put_off);
    return is_put_off;
  }

 private:
  std::vector<std::pair<Url, bool>> rounds_;
};

/// Feeds lists made from bytes to PutOffs and to the twin. Throws std::logic_error when they differ.
class PutOffsTwinRun {
 public:
  struct Coverage {
    std::uint64_t put_off = 0, due = 0;
  };
  explicit PutOffsTwinRun(ByteView commands, Coverage* coverage = nullptr) : commands_(commands), coverage_(coverage) {}
  void run() {
    while (!commands_.is_empty()) step();
  }

 private:
  void step() {
    const std::uint8_t what = commands_.byte(), which = commands_.byte();
    const Url peer = Url::parse("ws://r:1/p" + std::to_string(which % 3)).value();
    // Mostly lists that are cut off and name something.
    const gossip::NamedList list{what % 8 == 0 ? 0U : what % 8 * 1'000U, which / 4 % 8 != 0, what / 8 % 8 == 0};
    const bool is_due = put_offs_.is_due(peer);
    if (is_due != twin_.is_due(peer)) throw std::logic_error("PutOffs and its twin differ in who is due");
    const bool is_put_off = put_offs_.on_list(peer, list);
    if (is_put_off != twin_.on_list(peer, list))
      throw std::logic_error("PutOffs and its twin differ in what is put off");
    if (coverage_ == nullptr) return;
    coverage_->put_off += is_put_off ? 1 : 0;
    coverage_->due += is_due ? 1 : 0;
  }

  Commands commands_;
  Coverage* coverage_;
  gossip::PutOffs put_offs_;
  PutOffsTwin twin_;
};

}  // namespace kitsune2::model
