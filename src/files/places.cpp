// Whether one path lies inside the folder of another, by device and inode, up to the root.
#include "files/places.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <tuple>
#include <vector>

namespace kitsune2::files {

namespace {

namespace fs = std::filesystem;

/// A file or folder. One that does not exist has only a name.
struct Place {
  dev_t device = 0;
  ino_t inode = 0;
  std::string name;
  friend bool operator==(const Place& a, const Place& b) {
    return std::tie(a.device, a.inode, a.name) == std::tie(b.device, b.inode, b.name);
  }
};

/// `path` and all folders above it.
std::vector<Place> places_of(const std::string& path) {
  std::error_code error;
  const fs::path absolute = fs::absolute(path, error);
  fs::path at = fs::weakly_canonical(error ? fs::path(path) : absolute, error);
  if (error) at = absolute.lexically_normal();
  if (!at.has_filename() && at != at.root_path()) at = at.parent_path();  // a trailing slash
  std::vector<Place> out;
  while (true) {
    struct stat info {};
    out.push_back(::stat(at.c_str(), &info) == 0 ? Place{info.st_dev, info.st_ino, {}} : Place{0, 0, at.string()});
    if (!at.has_relative_path()) return out;
    at = at.parent_path();
  }
}

}  // namespace

bool is_inside(const std::string& path, const std::string& folder) {
  const auto places = places_of(path);
  return std::find(places.begin(), places.end(), places_of(folder).front()) != places.end();
}

bool overlap(const std::string& one, const std::string& two) { return is_inside(one, two) || is_inside(two, one); }

}  // namespace kitsune2::files
