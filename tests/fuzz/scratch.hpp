// A folder in memory (if /dev/shm exists) for targets whose input is a file. Removed when the process ends normally.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "fuzz/fuzz.hpp"

namespace kitsune2::fuzz {

class Scratch {
 public:
  Scratch() {
    std::string name = (std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp");
    name += "/k2fuzz-XXXXXX";
    K2_ASSERT(::mkdtemp(name.data()) != nullptr);
    dir_ = name;
  }
  ~Scratch() {
    std::error_code ec;
    std::filesystem::remove_all(dir_, ec);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::string path(const std::string& name) const { return dir_ + '/' + name; }

 private:
  std::string dir_;
};

/// Replaces the file's content; 0600.
inline void write_file(const std::string& path, ByteView content) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  K2_ASSERT(fd >= 0);
  for (std::size_t done = 0; done < content.size();) {
    const auto n = ::write(fd, content.data() + done, content.size() - done);
    K2_ASSERT(n > 0);
    done += static_cast<std::size_t>(n);
  }
  ::close(fd);
}

inline std::vector<std::uint8_t> read_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  K2_ASSERT(fd >= 0);
  struct stat info {};
  K2_ASSERT(::fstat(fd, &info) == 0);
  std::vector<std::uint8_t> out(static_cast<std::size_t>(info.st_size));
  for (std::size_t done = 0; done < out.size();) {
    const auto n = ::read(fd, out.data() + done, out.size() - done);
    K2_ASSERT(n > 0);
    done += static_cast<std::size_t>(n);
  }
  ::close(fd);
  return out;
}

}  // namespace kitsune2::fuzz
