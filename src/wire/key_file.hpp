// Key files: an Ed25519 seed on disk.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "kitsune2/error.hpp"

namespace kitsune2 {

/// The seed in the key file at `path`, in the format and with the errors of Ed25519LocalAgent::load_or_create. A fresh
/// one is made, durably and with mode 0600, if there is no file. For keys that are not an agent's: whoever holds the
/// seed must wipe it.
Result<std::array<std::uint8_t, 32>> load_or_create_seed(const std::string& path);

}  // namespace kitsune2
