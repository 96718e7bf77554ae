// The address of a relay as people write it.
#pragma once

#include <string_view>

#include "kitsune2/url.hpp"

namespace kitsune2 {

/// The relay's url in canonical form: a missing port is the scheme's, slashes at the end go. Errc::invalid_config for
/// what is no relay's url.
Result<Url> canonical_relay_url(std::string_view text);

}  // namespace kitsune2
