// Urls and agents by name or number, for tests that only tell them apart.
#pragma once

#include <string>

#include "kitsune2/agent.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::tests {

inline Url url(const std::string& name) { return Url::parse("ws://relay:1/" + name).value(); }
inline Url url(int number) { return url("p" + std::to_string(number)); }
/// The url of a peer.
inline Url peer(int number) { return url(number); }

inline AgentId agent(const std::string& name) { return AgentId(Bytes::copy_of(name)); }
inline AgentId agent(int number) { return agent("agent-" + std::to_string(number)); }

}  // namespace kitsune2::tests
