# What the libraries need, all from Debian bookworm's packages (see cmake/packages.txt).
# The installed package file loads this too: keep it free of project variables.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(Boost 1.81 REQUIRED)
find_package(OpenSSL 3 REQUIRED)
find_package(SQLite3 3.37 REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
if(NOT TARGET sodium::sodium)
  pkg_check_modules(K2_SODIUM REQUIRED IMPORTED_TARGET libsodium>=1.0.18)
  add_library(sodium::sodium INTERFACE IMPORTED GLOBAL)
  set_property(TARGET sodium::sodium PROPERTY INTERFACE_LINK_LIBRARIES PkgConfig::K2_SODIUM)
endif()
