// Numbers and words as people read and type them.
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
/// "1:05:09", "12 days"; "?" for what is no time.
std::string human_time(double seconds);
/// `width` characters of bar.
std::string bar(double part, int width);
/// The first of `lines`, which say the same at less and less length, that has no more than `width` columns; if none
/// does, the beginning of the last.
std::string fitting(const std::vector<std::string>& lines, std::size_t width);
/// The one of `known` that `word` may be a slip of: one or two letters wrong, missing, too many, or two swapped.
std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& known);

}  // namespace kitsune2::cli
