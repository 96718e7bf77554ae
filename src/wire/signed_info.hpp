// A signed agent info as a bootstrap server sees it: it stores and returns infos that it cannot interpret completely.
#pragma once

#include <string_view>

#include "kitsune2/agent.hpp"

namespace kitsune2::wire {

/// Checks the outer JSON object as `AgentInfoSigned::decode` does, but for the url, which may be any string: agents of
/// other dialects have urls of other schemes and paths, and only they dial them. The `url` of what is returned is
/// empty. The same errors.
Result<AgentInfo> check_signed_info(std::string_view json, const Verifier& verifier);

}  // namespace kitsune2::wire
