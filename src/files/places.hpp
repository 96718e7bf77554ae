// Whether one path lies in the folder of another.
#pragma once

#include <string>

namespace kitsune2::files {

/// Whether `path` is `folder` or lies below it, judged by device and inode, so that other spellings and symbolic links
/// on the way do not hide it. What does not exist yet is judged by the place where it would be made. A second mount of
/// a part of `folder` is not recognised.
bool is_inside(const std::string& path, const std::string& folder);
/// Whether one of them is inside the other.
bool overlap(const std::string& one, const std::string& two);

}  // namespace kitsune2::files
