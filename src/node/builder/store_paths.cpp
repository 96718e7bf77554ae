#include "node/builder/store_paths.hpp"

#include <fcntl.h>
#include <sodium.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "log/log.hpp"

namespace kitsune2 {
namespace {

constexpr std::size_t kMaxNameChars = 100;

std::string reason(int error) { return std::strerror(error); }

std::string trimmed_digits(const char* text, std::size_t size) {
  std::string out;
  for (std::size_t i = 0; i < size && text[i] >= '0' && text[i] <= '9'; ++i) out += text[i];
  return out;
}

}  // namespace

std::string space_path(const std::string& dir, const SpaceId& space) {
  std::string name = space.to_string();
  if (name.size() > kMaxNameChars) {
    std::array<std::uint8_t, 32> hash{};
    const ByteView id = space.view();
    crypto_generichash(hash.data(), hash.size(), id.data(), id.size(), nullptr, 0);
    name = "h-" + to_hex(hash);
  }
  // No name of ours begins with a dash (an id may).
  if (name.starts_with('-')) name.insert(name.begin(), '_');
  return dir + '/' + name;
}

Result<std::unique_ptr<DataDir>> DataDir::open(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (error) return make_error(Errc::io, path + ": " + error.message());
  if (!std::filesystem::is_directory(absolute, error)) {
    if (absolute.has_parent_path()) std::filesystem::create_directories(absolute.parent_path(), error);
    // An error of the parents shows here, by name.
    if (::mkdir(absolute.c_str(), 0700) != 0 && errno != EEXIST)
      return make_error(errno == ENOSPC ? Errc::disk_full : Errc::io, path + ": cannot be made: " + reason(errno));
    if (!std::filesystem::is_directory(absolute, error)) return make_error(Errc::io, path + ": is not a directory");
  } else {
    struct stat info {};
    if (::stat(absolute.c_str(), &info) == 0 && (info.st_mode & 0077) != 0)
      log::warn("node", path + ": others can read it (chmod 700)");
  }

  const std::string lock = (absolute / "node.lock").string();
  const int fd = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return make_error(errno == ENOSPC ? Errc::disk_full : Errc::io, lock + ": " + reason(errno));
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int why = errno;
    std::array<char, 32> text{};
    const ssize_t size = ::pread(fd, text.data(), text.size(), 0);
    ::close(fd);
    if (why != EWOULDBLOCK) return make_error(Errc::io, lock + ": " + reason(why));
    const std::string holder = trimmed_digits(text.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
    return make_error(Errc::already_exists,
                      path + ": in use by " + (holder.empty() ? "another process" : "process " + holder));
  }
  const std::string pid = std::to_string(::getpid()) + '\n';
  // Only for the message above: a full disk must not keep a node from starting to read.
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size()))
    log::warn("node", lock + ": " + reason(errno));
  return std::unique_ptr<DataDir>(new DataDir(path, fd));
}

DataDir::~DataDir() { ::close(lock_fd_); }

}  // namespace kitsune2
