// A signed agent info as a bootstrap server sees it, which stores and returns infos that it cannot fully interpret.
#pragma once

#include <string_view>

#include "kitsune2/agent.hpp"

namespace kitsune2::wire {

/// Checks the outer JSON object like `AgentInfoSigned::decode`, except that the url may be any string: agents of other
/// dialects have urls with other schemes and paths, and only those agents dial them. The `url` of the result is empty.
/// The same errors.
Result<AgentInfo> check_signed_info(std::string_view json, const Verifier& verifier);

}  // namespace kitsune2::wire
