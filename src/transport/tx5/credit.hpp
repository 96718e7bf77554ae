// How much may be under way to one peer through the relay. Pure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

namespace kitsune2::tx5 {

struct CreditLimits {
  /// Bytes under way to a peer behind somebody else's relay, before it has shown that it reads (C2).
  std::uint64_t first = 256U << 10;
  /// The most, whatever it has shown. 500 Mbit/s with a round trip of 200 ms are 12.5 MB.
  std::uint64_t most = 16U << 20;
  /// Through the relay inside this process.
  std::uint64_t in_process = 1U << 20;
};

/// The bytes that this node has passed to its relay for one peer and that nobody is known to have received.
///
/// *Why*: a relay keeps what it cannot deliver, and when it keeps too much for one receiver it stops reading from the
/// sender: this node's only line, with all its peers. A peer that requests much and reads nothing would block all
/// others. What a peer sends is no sign that it reads.
///
///  C1  A relay inside this process reports what a peer's socket has received, or what is lost (RelayCore R9), and only
///      that returns credit. Messages wait while `in_process` bytes or more are under way.
///  C2  Through another relay only a granted permit shows that a peer reads: a grant answers a request that was sent
///      after everything else, so everything else has been read. While more than the window is under way, the next
///      message needs a permit, however small it is. A granted message may be sent to its end, because the peer has
///      asked for its bytes. The window is `first` plus twice what a peer has read, at most `most`. *Rationale*: a
///      stock node grants in half a round trip, so an honest peer loses one round trip after 256 KiB, after 512 KiB
///      more, and so on, and in the long run one per 16 MiB of small messages; large ones need permits anyway. To have
///      much under way, a peer must have read half as much before.
///  C3  Through another relay, what the peer has sent and could not know without having read (FetchCore R19) shows that
///      it has read everything before. *Rationale*: the requests for many small ops are larger than the window, and the
///      grant of a permit waits behind the answers to them.
/// So at most `in_process` and a frame are under way; or, through another relay, the window and a frame, or one granted
/// message; each with the few control frames that a connection may send at any time.
/// Thread rule: confined to the owner's strand.
class SendCredit {
 public:
  enum class Source {
    permits,  ///< C2
    relay,    ///< C1
  };

  SendCredit(const CreditLimits& limits, Source source) : limits_(limits), source_(source) {}

  /// `bytes` were passed to the relay.
  void on_sent(std::uint64_t bytes) { sent_ += bytes; }
  /// What was sent last requests a permit.
  void on_asked() { asked_at_ = sent_; }
  /// That permit was granted.
  void on_granted() {
    if (asked_at_ && source_ == Source::permits) taken_ = std::max(taken_, *asked_at_);
    asked_at_.reset();
  }
  /// The peer has read the first `bytes` that were passed to the relay. No effect for another source.
  void on_read(std::uint64_t bytes) {
    if (source_ == Source::permits) taken_ = std::max(taken_, std::min(bytes, sent_));
  }
  /// The relay inside this process reports that `bytes` more were received, or are lost. No effect for another source.
  void on_returned(std::uint64_t bytes) {
    if (source_ == Source::relay) taken_ = std::min(taken_ + bytes, sent_);
  }

  std::uint64_t sent() const { return sent_; }
  /// Whether on_read() has an effect.
  bool counts_reading() const { return source_ == Source::permits; }
  std::uint64_t under_way() const { return sent_ - taken_; }
  std::uint64_t window() const {
    if (source_ == Source::relay) return limits_.in_process;
    return std::min(limits_.most, limits_.first + 2 * taken_);
  }
  /// Whether the next frame of a message may be sent: a message of one frame, or a chunk of a granted one.
  bool may_send() const { return source_ == Source::permits || under_way() < window(); }
  /// Whether a message in a frame of `bytes` needs a permit.
  bool must_ask(std::uint64_t bytes) const { return source_ == Source::permits && under_way() + bytes > window(); }

 private:
  CreditLimits limits_;
  Source source_;
  std::uint64_t sent_ = 0;
  std::uint64_t taken_ = 0;  ///< of sent_, certainly read by the peer
  std::optional<std::uint64_t> asked_at_;
};

}  // namespace kitsune2::tx5
