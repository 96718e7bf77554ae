// Which datagrams of strangers are dropped before anything is done with them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "kitsune2/bytes.hpp"

namespace kitsune2 {

/// Datagrams that come to a socket from anywhere. Each that a peer may send repeats eight bytes that this node has made
/// up and told to that peer: the name of a connection, of an offer, or of a ping. Two of the eight follow from the
/// others by secret numbers. So what somebody sends to whom no such name was told is known at a glance, without a table
/// of all names. The system can do that before such a datagram takes room of the socket (`UdpSocket::let_in_only`).
///
///  U1  A datagram is let in if it has one of the known shapes, and the eight bytes at the place of that shape are
///      marked. Of random ones one in 65,536 is.
///  U2  This is no proof, and says nothing about who sends: whoever was told a name, or sees the traffic, can repeat
///      it. What is let in is judged as if there were no filter.
///  U3  Marked names look random. *Rationale*: whoever sees them must not be able to tell which connections are of one
///      node (RFC 9000, 5.1).
///  U4  A strict one has a list of names for each shape, and lets in these only. *Rationale*: names that are not used
///      any more keep their mark, and whoever was told one can flood the socket with it.
/// Pure.
class DatagramFilter {
 public:
  static constexpr std::size_t kNameBytes = 8;
  using Name = std::span<std::uint8_t, kNameBytes>;
  using NameBytes = std::array<std::uint8_t, kNameBytes>;
  /// A name must be somewhere in a datagram that begins so.
  struct Shape {
    std::uint32_t mask = 0, first = 0;  ///< of the first four bytes, in the order of the network
    std::uint16_t fifth = kAny;         ///< the fifth byte
    std::uint8_t least = 0;             ///< bytes of the whole datagram, at least 5 and where the name ends
    std::uint8_t name_at = 0;
  };
  static constexpr std::uint16_t kAny = 256;
  using Shapes = std::array<Shape, 3>;
  /// Of each shape, in order.
  using Names = std::array<std::vector<NameBytes>, std::tuple_size_v<Shapes>>;
  static constexpr std::size_t kMostNames = 1024;  ///< of all shapes together: the system bounds programs
  struct Secret {
    std::uint32_t before = 0, by = 1, again_by = 1, after = 0;  ///< `by` and `again_by` are odd
  };
  static constexpr unsigned kFold = 16, kFoldAgain = 15;

  DatagramFilter(const Shapes& shapes, const std::function<void(std::span<std::uint8_t>)>& random);

  /// Changes the last two bytes of a random name.
  void mark(Name name) const;
  /// U4: this filter for `names` only. They need not be in order; of more than kMostNames the first ones count.
  DatagramFilter only(Names names) const;
  /// U4: this filter for all that is marked.
  DatagramFilter all() const;
  /// U1, U4.
  bool lets_in(ByteView datagram) const;

  const Shapes& shapes() const { return shapes_; }
  const Secret& secret() const { return secret_; }
  /// nullopt: it is not strict.
  const std::optional<Names>& names() const { return names_; }

 private:
  std::uint16_t mark_of(std::uint32_t first) const;

  Shapes shapes_;
  Secret secret_;
  std::optional<Names> names_;
};

}  // namespace kitsune2
