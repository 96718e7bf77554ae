// Numbers and words in the forms that people read and type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kitsune2::cli {

/// "1.5 GiB"
std::string human_bytes(double bytes);
/// "1 file", "2 files".
std::string counted(std::uint64_t count, std::string_view one);
/// "1:05:09", "12 days"; "?" for something that is not a time.
std::string human_time(double seconds);
/// A bar of `width` characters.
std::string bar(double part, int width);
/// Returns the first of `lines` that has at most `width` columns; if none does, the beginning of the last. They say the
/// same in fewer and fewer words.
std::string fitting(const std::vector<std::string>& lines, std::size_t width);
/// Returns the one of `known` that `word` may be a misspelling of: one or two letters wrong, missing, added or swapped.
std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& known);

}  // namespace kitsune2::cli
