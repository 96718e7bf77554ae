// The symbols that a program must find to link. A library that was built in another way lacks them.
#include "kitsune2/abi.hpp"

const char KITSUNE2_ABI_CONTAINERS = 1;
const char KITSUNE2_ABI_STRINGS = 1;
