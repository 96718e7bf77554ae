// Which dialect a node speaks.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "kitsune2/config.hpp"
#include "kitsune2/dialect.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2 {

/// That of a node of which nothing says it: 0.5, or 0.2 if the library was built without QUIC.
Dialect default_dialect();

/// The dialect of a node, by the first of these that says it:
///  1. `named`, by the caller or the user;
///  2. `network.dialect` of `config`;
///  3. the data in `data_dir`;
///  4. the scheme of `relay`, or without one that of the relay in `config`: ws and wss are 0.2, http and https are 0.5;
///  5. `default_dialect`.
/// `relay`, `data_dir`: empty if there is none. Errors: those of `dialect_of_folder`.
Result<Dialect> choose_dialect(std::optional<Dialect> named, const Config& config, std::string_view relay,
                               const std::string& data_dir);

/// For an error about what does not fit the dialect, if nobody has named it: "; the node speaks N because DIR has data
/// of dialect N", or nothing if the data in `data_dir` is not the reason.
std::string because_of_folder(Dialect dialect, const std::string& data_dir);

}  // namespace kitsune2
