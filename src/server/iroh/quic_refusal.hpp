// How the relay refuses QUIC connections, so that nobody waits for one.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kitsune2/bytes.hpp"

namespace kitsune2::server {

/// The answer to a datagram that begins a QUIC connection: a Version Negotiation packet (RFC 9000, 17.2.1) that offers
/// a reserved version only, so that the client gives up at once. nullopt: the datagram begins none, and gets no answer.
///
///  Q1  Only what could be a first packet is answered: a long header with a version, and at least 1,200 bytes, as each
///      client must send. The answer is shorter, so nobody can use this port to amplify. *Rationale*: a stock node of
///      dialect 0.5 asks its relay on UDP port 7842 for its own address, and waits 3 s for a relay that is silent.
///  Q2  The version offered is never that of the client, who would have to ignore the answer.
/// Pure.
std::optional<Bytes> refuse_quic(ByteView datagram);

/// The UDP addresses at which stock nodes ask a relay that listens at `listen` ("host:port" each): port 7842 of each,
/// but not of loopback, where several relays of tests would compete for it, nor of a host that is a name. Pure.
std::vector<std::string> discovery_addresses(const std::vector<std::string>& listen);

}  // namespace kitsune2::server
