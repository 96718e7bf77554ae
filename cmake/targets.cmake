# k2_library(NAME [DEPENDS other…]): the static library k2_NAME from src/NAME, exported as kitsune2::NAME.
# Only what is named in DEPENDS may be included: the graph has one direction (docs/architecture.md).
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
endfunction()

function(k2_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual $<$<BOOL:${K2_WERROR}>:-Werror>)
endfunction()

# k2_test(NAME DIR LABEL [LIBS…]): one GoogleTest program from all *.cpp below DIR; each test case is a ctest test.
function(k2_test name dir label)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${dir}/*.cpp")
  if(NOT sources)
    return()
  endif()
  add_executable(${name} ${sources})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(${name} PRIVATE ${ARGN} GTest::gtest GTest::gtest_main)
  k2_warnings(${name})
  include(GoogleTest)
  gtest_discover_tests(${name} PROPERTIES LABELS ${label} TIMEOUT 300 DISCOVERY_TIMEOUT 60)
endfunction()
