// A UDP socket that answers datagrams one by one. Without Asio.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::net {

/// Answers each datagram at once, or not at all. An answer that the system has no room for is lost. At most kInTurn
/// datagrams are read in one turn of the loop. Strand only, but for `listen`.
class UdpResponder {
 public:
  static constexpr int kInTurn = 16;
  /// Longer datagrams are cut.
  static constexpr std::size_t kMostBytes = 2048;
  /// nullopt: no answer.
  using Answer = std::function<std::optional<Bytes>(ByteView datagram)>;

  /// `address`: "host:port". Errors: Errc::already_exists (the port is taken), Errc::io, Errc::invalid_argument. Any
  /// thread.
  static Result<std::shared_ptr<UdpResponder>> listen(AsioRuntime& runtime, const std::string& address, Answer answer);
  virtual ~UdpResponder() = default;
  /// "host:port" with the actual port.
  virtual const std::string& address() const = 0;
  /// Starts answering.
  virtual void start() = 0;
  virtual void stop() = 0;
};

}  // namespace kitsune2::net
