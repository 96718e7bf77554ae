// What this library was built with.
#pragma once

namespace kitsune2::iroh {

/// False for a build without QUIC (K2_IROH=OFF), in which `make_iroh_transport` fails with Errc::unsupported.
bool has_quic();

}  // namespace kitsune2::iroh
