// The naive twin of SendCredit: it keeps every frame, and marks those that the peer has read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kitsune2/error.hpp"
#include "transport/tx5/credit.hpp"

namespace kitsune2::model {

class CreditUnderTest {
 public:
  CreditUnderTest(const tx5::CreditLimits& limits, tx5::SendCredit::Source source)
      : limits_(limits), source_(source), credit_(limits, source) {}

  /// Does what a connection does, with a frame or an answer of `amount` bytes.
  void step(std::uint8_t command, std::uint16_t amount) {
    const std::uint64_t bytes = 60 + amount % 16'400;
    switch (command % 5) {
      case 0:
        // Sends a message, or the request for a permit if it has to ask. It sends nothing else while a request is open.
        if (waiting_ || !credit_.may_send()) break;
        if (credit_.must_ask(bytes)) {
          send(71);
          credit_.on_asked();
          waiting_ = frames_.size();
          granting_ = bytes;
        } else {
          send(bytes);
          K2_ASSERT(credit_.under_way() <= most_under_way() + 16'460);
        }
        break;
      case 1:
        // The peer reads everything before the request, and grants it.
        if (!waiting_) break;
        read(*waiting_);
        credit_.on_granted();
        waiting_.reset();
        send(granting_);  // the chunk
        break;
      case 2:
        // The relay of this process says how much was taken; no other relay is believed.
        credit_.on_returned(amount);
        if (source_ == tx5::SendCredit::Source::relay) told_ = std::min<std::uint64_t>(told_ + amount, sent());
        break;
      case 4:
        // The peer shows that it has read so much, or claims to have read what was never sent.
        credit_.on_read(amount * 16ULL);
        read_bytes(amount * 16ULL);
        break;
      case 3:
        if (control_ < 16) send(100);
        ++control_;
        break;
    }
    K2_ASSERT(credit_.under_way() == sent() - taken());
    K2_ASSERT(credit_.window() <= std::max(limits_.most, limits_.in_process));
  }

 private:
  struct Frame {
    std::uint64_t bytes;
    bool read;
  };
  void send(std::uint64_t bytes) {
    credit_.on_sent(bytes);
    frames_.push_back({bytes, false});
  }
  void read(std::size_t count) {
    if (source_ != tx5::SendCredit::Source::permits) return;
    for (std::size_t i = 0; i < count; ++i) frames_[i].read = true;
  }
  void read_bytes(std::uint64_t bytes) {
    if (source_ == tx5::SendCredit::Source::permits) shown_ = std::max(shown_, std::min(bytes, sent()));
  }
  std::uint64_t sent() const {
    std::uint64_t out = 0;
    for (const Frame& frame : frames_) out += frame.bytes;
    return out;
  }
  std::uint64_t taken() const {
    std::uint64_t out = told_;
    for (const Frame& frame : frames_) out += frame.read ? frame.bytes : 0;
    return std::max(out, shown_);
  }
  std::uint64_t most_under_way() const {
    if (source_ == tx5::SendCredit::Source::relay) return limits_.in_process + 1600;
    return std::min(limits_.most, limits_.first + 2 * taken()) + 1600;
  }

  const tx5::CreditLimits limits_;
  const tx5::SendCredit::Source source_;
  tx5::SendCredit credit_;
  std::vector<Frame> frames_;
  std::optional<std::size_t> waiting_;  ///< how many frames the peer reads before it grants the open request
  std::uint64_t granting_ = 0;
  std::uint64_t told_ = 0;
  std::uint64_t shown_ = 0;
  int control_ = 0;
};

}  // namespace kitsune2::model
