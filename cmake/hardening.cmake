# The flags of Debian's hardening=+all, control-flow protection where the compiler has it, and no path of the build in
# the result, so that it is the same wherever it is built. scripts/check_hardening.py checks the program. Not used with
# sanitizers, which have guards of their own.
option(K2_HARDENING "Build with the hardening flags of distributions" ${PROJECT_IS_TOP_LEVEL})
if(NOT K2_HARDENING OR K2_SANITIZE)
  return()
endif()
include(CheckCXXCompilerFlag)
include(CheckPIESupported)
check_pie_supported()
add_compile_options(-fstack-protector-strong -Wformat -Werror=format-security "-ffile-prefix-map=${PROJECT_SOURCE_DIR}=.")
# Fortified functions need an optimiser. -U: some compilers define it on their own.
add_compile_options("$<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=2>")
add_link_options(-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
check_cxx_compiler_flag(-fcf-protection K2_HAS_CF_PROTECTION)
if(K2_HAS_CF_PROTECTION)
  add_compile_options(-fcf-protection)
endif()
