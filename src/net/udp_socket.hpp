// The real UdpBinder: sockets of the system.
#pragma once

#include <memory>

#include "transport/udp.hpp"

namespace kitsune2 {

class AsioRuntime;

/// `runtime` must outlive the binder and its sockets. A socket on [::] takes IPv4, too; where the system has no IPv6 it
/// is one on 0.0.0.0. Datagrams of one sender are sent and received several at a time where the system can
/// (UDP_SEGMENT, UDP_GRO). They are never cut into fragments: one that is too large for its way is lost.
std::shared_ptr<UdpBinder> make_udp_binder(AsioRuntime& runtime);

}  // namespace kitsune2
