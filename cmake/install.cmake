# make install: headers, static libraries, CMake package, pkg-config file, program, man page, completions.
include(CMakePackageConfigHelpers)

set(k2_libraries k2_core k2_log k2_wire k2_store k2_transport k2_net k2_server k2_node k2_files k2_testing)
install(TARGETS ${k2_libraries} kitsune2 EXPORT kitsune2Targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/kitsune2 DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.hpp")
install(EXPORT kitsune2Targets NAMESPACE kitsune2:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kitsune2)

configure_package_config_file(cmake/kitsune2Config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/kitsune2Config.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kitsune2)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/kitsune2ConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/kitsune2Config.cmake ${CMAKE_CURRENT_BINARY_DIR}/kitsune2ConfigVersion.cmake
              cmake/dependencies.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kitsune2)

# The prefix is told relative to the file: `cmake --install --prefix` may differ from the configured one.
file(RELATIVE_PATH K2_PC_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
configure_file(cmake/kitsune2.pc.in ${CMAKE_CURRENT_BINARY_DIR}/kitsune2.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/kitsune2.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
