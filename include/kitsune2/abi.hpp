// Lets a program that cannot work with the library as it was built fail to compile or to link. Otherwise it would link
// and crash, because std::string and the containers would have different layouts on the two sides.
//
// * An older language: a compiler error that says so, and nothing after it.
// * `-D_GLIBCXX_DEBUG`, `-D_GLIBCXX_USE_CXX11_ABI=0` on one side only: an undefined symbol whose name says which flag.
//
// Every public header includes this one. It costs two pointers in the program's constant data and no code.
#pragma once

#if __cplusplus < 202002L
#error "kitsune2 needs C++20: compile with -std=c++20"
#include "kitsune2 needs C++20: compile with -std=c++20"  // unlike #error, a missing file ends the compilation
#endif

#include <version>

#ifdef _GLIBCXX_DEBUG
#define KITSUNE2_ABI_CONTAINERS kitsune2_must_be_built_with_GLIBCXX_DEBUG_as_this_program_is
#else
#define KITSUNE2_ABI_CONTAINERS kitsune2_must_be_built_without_GLIBCXX_DEBUG_as_this_program_is
#endif
#if defined(_GLIBCXX_USE_CXX11_ABI) && !_GLIBCXX_USE_CXX11_ABI
#define KITSUNE2_ABI_STRINGS kitsune2_must_be_built_with_GLIBCXX_USE_CXX11_ABI_0_as_this_program_is
#else
#define KITSUNE2_ABI_STRINGS kitsune2_must_be_built_with_GLIBCXX_USE_CXX11_ABI_1_as_this_program_is
#endif

/// Defined by the library (src/core/abi.cpp), for the way in which it was built.
extern "C" const char KITSUNE2_ABI_CONTAINERS;
extern "C" const char KITSUNE2_ABI_STRINGS;

namespace kitsune2::detail {

// The names differ from build to build, so that the linker cannot take one file's definition for another's.
#define KITSUNE2_ABI_CHECK_(symbol) inline const char* const check_##symbol = &::symbol
#define KITSUNE2_ABI_CHECK(symbol) KITSUNE2_ABI_CHECK_(symbol)
[[gnu::used, gnu::retain]] KITSUNE2_ABI_CHECK(KITSUNE2_ABI_CONTAINERS);
[[gnu::used, gnu::retain]] KITSUNE2_ABI_CHECK(KITSUNE2_ABI_STRINGS);

}  // namespace kitsune2::detail
