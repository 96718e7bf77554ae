// Defines the two symbols that kitsune2/abi.hpp declares. Their names depend on the flags with which this file is
// compiled, so a program that was compiled with other flags asks the linker for symbols that do not exist.
#include "kitsune2/abi.hpp"

const char KITSUNE2_ABI_CONTAINERS = 1;
const char KITSUNE2_ABI_STRINGS = 1;
