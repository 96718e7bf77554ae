// Version 1 of the op store's schema: see op_db_target.hpp.
#include "fuzz/op_db_target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const bool is_quick = kitsune2::fuzz::make_sqlite_quick();
  K2_ASSERT(is_quick);
  static const kitsune2::fuzz::Base base(false);
  return kitsune2::fuzz::run_op_db(data, size, base);
}
