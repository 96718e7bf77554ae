# make install: headers, static libraries, CMake package, pkg-config files, documents, examples; apps/kitsune2 adds the
# program, its man page and completions.
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

# The prefix is relative to the file, because `cmake --install --prefix` may differ from the configured one.
file(RELATIVE_PATH K2_PC_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
if(K2_IROH)
  # Not as required packages: --static would also ask for the libraries inside GnuTLS, and their -dev packages are
  # not needed.
  set(K2_PC_IROH_LIBS " -lngtcp2_crypto_gnutls -lngtcp2 -lgnutls")
endif()
foreach(pc kitsune2 kitsune2_testing)
  configure_file(cmake/${pc}.pc.in ${CMAKE_CURRENT_BINARY_DIR}/${pc}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${pc}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()

install(CODE "set(K2_SOURCE \"${PROJECT_SOURCE_DIR}\")
set(K2_WORK \"${PROJECT_BINARY_DIR}/installed_documents\")
set(K2_DOCDIR \"${CMAKE_INSTALL_DOCDIR}\")
set(K2_INCLUDEDIR \"${CMAKE_INSTALL_INCLUDEDIR}\")")
install(SCRIPT cmake/install_documents.cmake)
