// Loaded before a program (LD_PRELOAD), it makes the system one without UDP segmentation offload: several datagrams in
// one call are refused, both ways. For programs whose sockets go through the C library.
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <cerrno>

namespace {

template <class F>
F* next(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" int setsockopt(int fd, int level, int option, const void* value, socklen_t size) noexcept {
  static auto* const real = next<int(int, int, int, const void*, socklen_t)>("setsockopt");
  if (level == SOL_UDP && (option == UDP_SEGMENT || option == UDP_GRO)) {
    errno = ENOPROTOOPT;
    return -1;
  }
  return real(fd, level, option, value, size);
}

extern "C" ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  static auto* const real = next<ssize_t(int, const msghdr*, int)>("sendmsg");
  for (const cmsghdr* header = CMSG_FIRSTHDR(message); header != nullptr;
       header = CMSG_NXTHDR(const_cast<msghdr*>(message), const_cast<cmsghdr*>(header))) {  // NOLINT
    if (header->cmsg_level == SOL_UDP && header->cmsg_type == UDP_SEGMENT) {
      errno = EOPNOTSUPP;
      return -1;
    }
  }
  return real(fd, message, flags);
}
