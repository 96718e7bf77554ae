// Finds the databases of a data folder.
#include "databases.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>

#include "files/shares.hpp"
#include "kitsune2/bytes.hpp"

namespace kitsune2::cli {

namespace {

/// Whether a file of this name may be the database of a space; see space_path.
bool names_a_space(const std::string& file) {
  if (!file.ends_with(".db") || file.ends_with(".peers.db") || file.starts_with(files::kUnfinished)) return false;
  std::vector<std::uint8_t> raw;
  return file.starts_with("h-") || file.starts_with("_-") || from_base64url(file.substr(0, file.size() - 3), raw);
}

}  // namespace

Result<std::vector<std::string>> databases_of(const std::string& data) {
  std::error_code error;
  std::vector<std::string> out;
  for (std::filesystem::directory_iterator it(data, error), end; !error && it != end; it.increment(error)) {
    if (names_a_space(it->path().filename().string())) out.push_back(it->path().string());
  }
  if (error) return make_error(Errc::io, data + ": " + error.message());
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace kitsune2::cli
