// The frames that wait for one client of the relay of dialect 0.5, in fair turns of those who sent them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>

#include "kitsune2/bytes.hpp"
#include "transport/iroh/relay_frames.hpp"

namespace kitsune2::server {

/// Deficit round robin (Shreedhar and Varghese, 1995) on two levels.
///
///  F1  Addresses take turns, and in the turn of an address its senders do. In each turn one may send kQuantum, and
///      what it had left; what it does not need is lost when nothing of it waits. *Rationale*: who sends much fills its
///      own part of the queue and delays nobody else's frames; keys cost nothing, addresses cost something.
///  F2  A frame costs its bytes, and kDatagramCost for each datagram in it, at most kMostCost. *Rationale*: a small
///      datagram is as much work for the receiver as one of 1,200 bytes.
///  F3  Frames of a sender keep their order.
///  F4  An address has at most three quarters of what it and nobody has, in bytes and in frames, and a sender three
///      quarters of that part, counted in the same way. Of whom nothing waits, one frame may wait while there is room.
///      *Rationale*: however many wait, something is left for others.
/// Empty, it has allocated nothing. Calls are O(1) but for finding the sender: O(addresses and senders that wait).
class FairQueue {
 public:
  using Ip = std::array<std::uint8_t, 16>;
  using Id = kitsune2::iroh::EndpointId;
  static constexpr std::size_t kQuantum = 16U << 10;
  static constexpr std::size_t kDatagramCost = 512;
  static constexpr std::size_t kMostCost = 256U << 10;
  static constexpr std::size_t kBatchHead = 1 + 32 + 1 + 2;  ///< of a batch: type, sender, ECN bits, segment size
  static constexpr std::size_t kFrameOverhead = 4;           ///< a server's WebSocket header for 126 to 65535 bytes

  /// F2. Of a frame as the relay sends it.
  static std::size_t cost_of(ByteView frame);

  bool empty() const { return frames_ == 0; }
  std::size_t frames() const { return frames_; }
  /// With kFrameOverhead for each frame.
  std::size_t bytes() const { return bytes_; }
  /// F4. Whether a frame of `bytes`, its overhead included, may wait, if there is room for so much in all.
  bool may_add(const Ip& address, const Id& sender, std::size_t bytes, std::size_t most_frames,
               std::size_t most_bytes) const;
  void add(const Ip& address, const Id& sender, Bytes frame);
  /// The frame whose turn it is. Not if it is empty.
  const Bytes& front();
  Bytes take();
  /// O(n); tests.
  void check_invariants() const;

 private:
  struct Turn {
    std::size_t deficit = 0;
    bool begun = false;
  };
  struct Sender {
    Id key{};
    std::list<Bytes> frames;  ///< no deque, which takes 600 bytes for one frame
    std::size_t bytes = 0;
    Turn turn;
  };
  struct Source {
    Ip address{};
    std::list<Sender> senders;  ///< in the order of their turns
    std::size_t frames = 0, bytes = 0;
    Turn turn;
  };

  std::list<Source> sources_;  ///< in the order of their turns
  std::size_t frames_ = 0, bytes_ = 0;
};

}  // namespace kitsune2::server
