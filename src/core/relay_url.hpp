// The address of a relay as people write it.
#pragma once

#include <string_view>

#include "kitsune2/url.hpp"

namespace kitsune2 {

/// The relay's url in canonical form, as `Url::relay` of its peers gives it: a missing port is the scheme's, slashes at
/// the end go, but for one behind a path, where the form allows one. Errc::invalid_config for what is no relay's url.
Result<Url> canonical_relay_url(std::string_view text, const UrlForm& form = url_form(Dialect::v0_2));

}  // namespace kitsune2
