// Numbers as people read them.
#pragma once

#include <string>

namespace kitsune2::cli {

/// "1.5 GiB"
std::string human_bytes(double bytes);
/// "1:05:09"
std::string human_time(double seconds);
/// `width` characters of bar.
std::string bar(double part, int width);

}  // namespace kitsune2::cli
