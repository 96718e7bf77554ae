// A DatagramFilter in the language in which the system runs filters of sockets.
#pragma once

#include <linux/filter.h>

#include <vector>

#include "transport/datagram_filter.hpp"

namespace kitsune2::net {

/// The program of SO_ATTACH_FILTER for a UDP socket that lets in what `filter` does; of a strict one also names of
/// which the first four bytes are those of a name in the list. Of several datagrams that the system hands over as one
/// (UDP_GRO) it sees the first one.
std::vector<sock_filter> program_of(const DatagramFilter& filter);

}  // namespace kitsune2::net
