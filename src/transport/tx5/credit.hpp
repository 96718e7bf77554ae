// How much may be under way to one peer through the relay. Pure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

namespace kitsune2::tx5 {

struct CreditLimits {
  /// Under way to a peer behind a relay of somebody else, before it has shown that it reads (C2).
  std::uint64_t first = 256U << 10;
  /// The most, whatever it has shown. 500 Mbit/s over a round trip of 200 ms are 12.5 MB.
  std::uint64_t most = 16U << 20;
  /// Through the relay inside this process.
  std::uint64_t in_process = 1U << 20;
};

/// The bytes that this node has handed to its relay for one peer and that nobody is known to have taken.
///
/// *Why*: a relay keeps what it cannot deliver, and when it keeps too much for one receiver it holds the sender: this
/// node's one line, with all its peers. A peer that asks for much and reads nothing would hold up all others. What a
/// peer sends is no sign that it reads.
///
///  C1  A relay inside this process tells what a peer's socket has taken, or what is lost (RelayCore R9), and only that
///      brings credit back. Messages wait while `in_process` bytes or more are under way.
///  C2  Through another relay only a granted permit shows that a peer reads: a grant answers a request that was sent
///      after all else, so all else has been read. While more than the window is under way, the next message goes by a
///      permit, however small it is. A message that was granted may be sent to its end: the peer has asked for its
///      bytes. The window is `first` and twice what a peer has read, `most` at most. *Rationale*: a stock node grants
///      in half a round trip, so an honest peer loses one round trip after 256 KiB, after 512 KiB more, and so on, and
///      in the long run one for each 16 MiB of small messages; large ones ask for permits anyway. To have much under
///      way a peer must have read half as much before.
/// So under way are at most `in_process` and a frame; or, through another relay, the window and a frame, or one message
/// that was granted; each with the few control frames that a connection may send at any time.
/// Thread rule: confined to the owner's strand.
class SendCredit {
 public:
  enum class Source {
    permits,  ///< C2
    relay,    ///< C1
  };

  SendCredit(const CreditLimits& limits, Source source) : limits_(limits), source_(source) {}

  /// `bytes` were handed to the relay.
  void sent(std::uint64_t bytes) { sent_ += bytes; }
  /// What was sent last asks for a permit.
  void asked() { asked_at_ = sent_; }
  /// That permit was granted.
  void granted() {
    if (asked_at_ && source_ == Source::permits) taken_ = std::max(taken_, *asked_at_);
    asked_at_.reset();
  }
  /// The relay inside this process says that `bytes` more were taken, or are lost. No effect for another source.
  void returned(std::uint64_t bytes) {
    if (source_ == Source::relay) taken_ = std::min(taken_ + bytes, sent_);
  }

  std::uint64_t under_way() const { return sent_ - taken_; }
  std::uint64_t window() const {
    if (source_ == Source::relay) return limits_.in_process;
    return std::min(limits_.most, limits_.first + 2 * taken_);
  }
  /// Whether the next frame of a message may go: one of its own, or a chunk of one that was granted.
  bool may_send() const { return source_ == Source::permits || under_way() < window(); }
  /// Whether a message in a frame of `bytes` has to ask for a permit.
  bool must_ask(std::uint64_t bytes) const { return source_ == Source::permits && under_way() + bytes > window(); }

 private:
  CreditLimits limits_;
  Source source_;
  std::uint64_t sent_ = 0;
  std::uint64_t taken_ = 0;  ///< of it, read by the peer for certain
  std::optional<std::uint64_t> asked_at_;
};

}  // namespace kitsune2::tx5
