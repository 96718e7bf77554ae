// The symbols that a program must find, by which a library that was built otherwise does not link.
#include "kitsune2/abi.hpp"

const char KITSUNE2_ABI_CONTAINERS = 1;
const char KITSUNE2_ABI_STRINGS = 1;
