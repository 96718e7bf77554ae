// Preloaded into a test program (LD_PRELOAD), it ends it when a thread is started. It guards the list of test sources
// that the build with ThreadSanitizer leaves out (THREADLESS in tests/CMakeLists.txt).
#include <pthread.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

extern "C" int pthread_create(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*) {
  constexpr std::string_view kWhy =
      "A test of a source that is listed as THREADLESS in tests/CMakeLists.txt starts a thread. Take the source out of "
      "that list, so that it runs under ThreadSanitizer.\n";
  [[maybe_unused]] const auto written = write(STDERR_FILENO, kWhy.data(), kWhy.size());
  std::abort();
}
