// Faults of the machine for a real process, by LD_PRELOAD: I/O errors of chosen files, and a wall clock that jumps.
//
// K2_FAULT_CONTROL names a file of seven little-endian int64 that the test changes while the program runs (faults.py):
//   0 clock offset, microseconds, added to CLOCK_REALTIME     1 which calls fail: 1 write, 2 sync, 4 read, 8 open
//   2 errno that they fail with                               3 how many matching calls pass before
//   4 how many fail then (0: all)                             5, 6 counted here: calls that passed, that failed
// K2_FAULT_PATH: only files whose path has this in it.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace {

struct Control {
  std::atomic<std::int64_t> clock_us, mask, error, skip, count, passed, failed;
};
static_assert(sizeof(Control) == 56);

template <class F>
F* real(const char* name) {
  return reinterpret_cast<F*>(::dlsym(RTLD_NEXT, name));
}

Control* control() {
  static Control* const mapped = [] {
    const char* path = std::getenv("K2_FAULT_CONTROL");
    if (path == nullptr) return static_cast<Control*>(nullptr);
    const int fd = real<int(const char*, int, ...)>("open")(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return static_cast<Control*>(nullptr);
    void* at = ::mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ::close(fd);
    return at == MAP_FAILED ? nullptr : static_cast<Control*>(at);
  }();
  return mapped;
}

bool chosen(const char* path) {
  static const char* const part = std::getenv("K2_FAULT_PATH");
  return part != nullptr && std::strstr(path, part) != nullptr;
}

/// Whether this call must fail; then errno is set.
bool fails(int kind, const char* path) {
  Control* c = control();
  if (c == nullptr || (c->mask & kind) == 0 || !chosen(path)) return false;
  if (c->passed < c->skip || (c->count > 0 && c->failed >= c->count)) {
    ++c->passed;
    return false;
  }
  ++c->failed;
  errno = static_cast<int>(c->error.load());
  return true;
}

bool fails(int kind, int fd) {
  Control* c = control();
  if (c == nullptr || (c->mask & kind) == 0) return false;
  char link[32], path[4096];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const auto n = ::readlink(link, path, sizeof path - 1);
  if (n <= 0) return false;
  path[n] = 0;
  return fails(kind, path);
}

}  // namespace

extern "C" {

ssize_t write(int fd, const void* data, size_t size) {
  static auto* const next = real<ssize_t(int, const void*, size_t)>("write");
  return fails(1, fd) ? -1 : next(fd, data, size);
}
ssize_t pwrite(int fd, const void* data, size_t size, off_t at) {
  static auto* const next = real<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  return fails(1, fd) ? -1 : next(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t at) {
  static auto* const next = real<ssize_t(int, const void*, size_t, off64_t)>("pwrite64");
  return fails(1, fd) ? -1 : next(fd, data, size, at);
}
int fsync(int fd) {
  static auto* const next = real<int(int)>("fsync");
  return fails(2, fd) ? -1 : next(fd);
}
int fdatasync(int fd) {
  static auto* const next = real<int(int)>("fdatasync");
  return fails(2, fd) ? -1 : next(fd);
}
ssize_t pread(int fd, void* data, size_t size, off_t at) {
  static auto* const next = real<ssize_t(int, void*, size_t, off_t)>("pread");
  return fails(4, fd) ? -1 : next(fd, data, size, at);
}
ssize_t pread64(int fd, void* data, size_t size, off64_t at) {
  static auto* const next = real<ssize_t(int, void*, size_t, off64_t)>("pread64");
  return fails(4, fd) ? -1 : next(fd, data, size, at);
}
int openat(int dir, const char* path, int flags, ...) {
  static auto* const next = real<int(int, const char*, int, ...)>("openat");
  std::va_list rest;
  va_start(rest, flags);
  const auto mode = static_cast<mode_t>((flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, int) : 0);
  va_end(rest);
  const bool writes = (flags & (O_WRONLY | O_RDWR)) != 0;
  return writes && fails(8, path) ? -1 : next(dir, path, flags, mode);
}

int clock_gettime(clockid_t clock, timespec* out) {
  static auto* const next = real<int(clockid_t, timespec*)>("clock_gettime");
  const int rc = next(clock, out);
  Control* c = rc == 0 && clock == CLOCK_REALTIME ? control() : nullptr;
  if (c != nullptr) {
    const std::int64_t us = out->tv_sec * 1'000'000 + out->tv_nsec / 1000 + c->clock_us;
    out->tv_sec = us / 1'000'000;
    out->tv_nsec = us % 1'000'000 * 1000;
  }
  return rc;
}
int gettimeofday(timeval* out, void*) {
  timespec now{};
  const int rc = clock_gettime(CLOCK_REALTIME, &now);
  out->tv_sec = now.tv_sec;
  out->tv_usec = now.tv_nsec / 1000;
  return rc;
}
time_t time(time_t* out) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  if (out != nullptr) *out = now.tv_sec;
  return now.tv_sec;
}
}
