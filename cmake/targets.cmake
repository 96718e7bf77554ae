set(K2_PRECOMPILED <algorithm> <array> <functional> <map> <memory> <optional> <set> <span> <string> <utility> <variant> <vector>
                   <boost/unordered/unordered_flat_map.hpp>)

# k2_library(NAME [DEPENDS other…]): the static library k2_NAME from src/NAME, exported as kitsune2::NAME.
# It may include only the libraries in DEPENDS: dependencies have one direction (docs/architecture.md).
function(k2_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/${name}/*.cpp")
  add_library(k2_${name} STATIC ${sources})
  add_library(kitsune2::${name} ALIAS k2_${name})
  set_target_properties(k2_${name} PROPERTIES OUTPUT_NAME kitsune2_${name} EXPORT_NAME ${name} LINKER_LANGUAGE CXX)
  target_include_directories(k2_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
                                        $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>)
  target_compile_features(k2_${name} PUBLIC cxx_std_20)
  foreach(dep ${ARG_DEPENDS})
    target_link_libraries(k2_${name} PUBLIC k2_${dep})
  endforeach()
  k2_warnings(k2_${name})
  k2_unity(k2_${name})
  list(LENGTH sources count)
  if(count GREATER 4)
    k2_precompile(k2_${name} ${K2_PRECOMPILED})
  endif()
endfunction()

# k2_unity(TARGET): with K2_UNITY, compiles its sources eight at a time, so they share no name at file level
# (scripts/check_rules.py). To read the same headers again takes half of the time of a source by itself.
function(k2_unity target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${K2_UNITY} UNITY_BUILD_BATCH_SIZE 8)
  if(K2_UNITY AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # A class of an included source may have a member whose type nobody else can name: nobody else sees the class.
    target_compile_options(${target} PRIVATE -Wno-subobject-linkage)
  endif()
endfunction()

# k2_precompile(TARGET HEADERS…): with K2_PRECOMPILE, reads these headers once for all sources of the target. For builds
# that nobody edits in, as those of CI: a source that lacks an include still compiles here.
function(k2_precompile target)
  if(NOT K2_PRECOMPILE)
    return()
  endif()
  target_precompile_headers(${target} PRIVATE ${ARGN})
  # ccache can then keep the objects: neither compiler puts the time of the build into what it writes.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -fpch-preprocess)
  else()
    target_compile_options(${target} PRIVATE "SHELL:-Xclang -fno-pch-timestamp")
  endif()
endfunction()

function(k2_warnings target)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    target_compile_options(${target} PRIVATE -Wno-restrict)  # g++ 12 warns of its own std::string at -O3 (GCC bug 105651)
  endif()
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual $<$<BOOL:${K2_WERROR}>:-Werror>)
endfunction()

# k2_test(NAME DIR LABEL [ALONE FILTER] [ONE_THREAD FILTER] [THREADLESS FILE…] [SEPARATE FILE…] [LIBS…]): one program of
# GoogleTest from all *.cpp below DIR.
# Each test case is a ctest test; under a sanitizer, where to start a program takes up to 0.12 s of processor time,
# several cases are one (k2_parts). The two filters are of GoogleTest.
#   ALONE: what needs a process of its own, because it forks where other cases have had threads, or counts threads.
#   ONE_THREAD: what starts no thread and takes long. The build with ThreadSanitizer, which has nothing to find there,
#   leaves it out.
#   THREADLESS: sources below DIR none of whose cases starts a thread. The build with ThreadSanitizer does not compile
#   them. The test threadless.NAME runs them once more, and fails if one does start a thread.
#   SEPARATE: sources below DIR that are compiled one by one where K2_UNITY compiles eight at a time, because they have
#   names at file level that another source of the program has, too (scripts/check_rules.py finds them).
function(k2_test name dir label)
  cmake_parse_arguments(ARG "" "ALONE;ONE_THREAD" "THREADLESS;SEPARATE;LIBS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${dir}/*.cpp")
  if(NOT sources)
    return()
  endif()
  if(K2_SANITIZE MATCHES thread)
    list(TRANSFORM ARG_THREADLESS PREPEND "${dir}/")
    list(REMOVE_ITEM sources ${ARG_THREADLESS})
  endif()
  add_executable(${name} ${sources})
  k2_unity(${name})
  list(TRANSFORM ARG_SEPARATE PREPEND "${dir}/")
  set_property(SOURCE ${ARG_SEPARATE} PROPERTY SKIP_UNITY_BUILD_INCLUSION ON)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} ${ARG_UNPARSED_ARGUMENTS} GTest::gtest GTest::gtest_main)
  k2_warnings(${name})
  if(label MATCHES "unit|net")
    # People wait for tests to compile, not to run: under a sanitizer this takes a third of the time.
    if(K2_SANITIZE)
      target_compile_options(${name} PRIVATE -O0)
    else()
      target_compile_options(${name} PRIVATE -O1)
    endif()
  endif()
  list(LENGTH sources count)
  if(count GREATER 4)
    k2_precompile(${name} ${K2_PRECOMPILED} <gtest/gtest.h> <fstream> <random> <thread>)
  endif()
  include(GoogleTest)
  if(NOT K2_SANITIZE)
    gtest_discover_tests(${name} PROPERTIES LABELS ${label} TIMEOUT 300 DISCOVERY_TIMEOUT 60)
    if(ARG_THREADLESS)
      k2_threadless(${name} ${dir} ${ARG_THREADLESS})
    endif()
    return()
  endif()
  set(left_out "${ARG_ALONE}")
  if(K2_SANITIZE MATCHES thread AND ARG_ONE_THREAD)
    string(JOIN ":" left_out ${left_out} "${ARG_ONE_THREAD}")
  endif()
  k2_parts(${name} ${label} ${count} "-${left_out}")
  if(ARG_ALONE)
    gtest_discover_tests(${name} TEST_FILTER "${ARG_ALONE}" TEST_PREFIX ${name}. PROPERTIES LABELS ${label} TIMEOUT 300 DISCOVERY_TIMEOUT 60)
  endif()
endfunction()

# k2_threadless(PROGRAM DIR SOURCE…): a test that runs the cases of these sources where no thread can be started.
function(k2_threadless name dir)
  set(filter)
  foreach(source ${ARGN})
    file(STRINGS ${dir}/${source} cases REGEX "^(TYPED_)?TEST(_[A-Z]+)*\\(")
    list(TRANSFORM cases REPLACE "^[A-Z_]+\\(([A-Za-z0-9_]+).*" "\\1")
    list(REMOVE_DUPLICATES cases)
    foreach(suite ${cases})
      string(APPEND filter "${suite}.*:*/${suite}.*:${suite}/*.*:")
    endforeach()
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${dir}/${source})
  endforeach()
  add_test(NAME threadless.${name} COMMAND ${name} --gtest_brief=1 --gtest_filter=${filter})
  set_tests_properties(threadless.${name} PROPERTIES LABELS unit TIMEOUT 300 ENVIRONMENT "LD_PRELOAD=$<TARGET_FILE:k2_no_threads>")
endfunction()

# k2_parts(PROGRAM LABEL PARTS FILTER): the test cases that FILTER leaves, as ctest tests of several cases each; one for
# each source is about right. GoogleTest deals the cases out, so a part has some of each source. scripts/run_parts.py
# counts the cases.
function(k2_parts name label parts filter)
  math(EXPR last "${parts} - 1")
  foreach(part RANGE ${last})
    add_test(NAME ${name}.part_${part} COMMAND ${name} --gtest_filter=${filter})
    set_tests_properties(${name}.part_${part} PROPERTIES LABELS ${label} TIMEOUT 3600
                         ENVIRONMENT "GTEST_TOTAL_SHARDS=${parts};GTEST_SHARD_INDEX=${part}")
  endforeach()
endfunction()
