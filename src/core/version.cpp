// The version of the library, for programs that link it.
#include "kitsune2/version.hpp"

#define K2_TEXT_(x) #x
#define K2_TEXT(x) K2_TEXT_(x)

namespace kitsune2 {

const char* version() noexcept {
  return K2_TEXT(KITSUNE2_VERSION_MAJOR) "." K2_TEXT(KITSUNE2_VERSION_MINOR) "." K2_TEXT(KITSUNE2_VERSION_PATCH);
}

}  // namespace kitsune2
