// Whether one path lies inside the folder of another.
#pragma once

#include <string>

namespace kitsune2::files {

/// Whether `path` is `folder` or lies below it. Judges by device and inode, so that other spellings and symbolic links
/// on the way do not matter. A path that does not exist yet is judged by the place where it would be created. Does not
/// recognise a second mount of a part of `folder`.
bool is_inside(const std::string& path, const std::string& folder);
/// Whether one of the two is inside the other.
bool overlap(const std::string& one, const std::string& two);

}  // namespace kitsune2::files
