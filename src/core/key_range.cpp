// Numbers of the configuration, and what is said of one that is out of its range.
#include <string>

#include "kitsune2/config.hpp"

namespace kitsune2 {

std::string KeyRange::fault(std::uint64_t value) const {
  if (contains(value)) return {};
  return "must be a whole number in " + std::to_string(least) + ".." + std::to_string(most) + ", got " +
         std::to_string(value);
}

}  // namespace kitsune2
