// Ends the process with a message when the application's code threw or the library was misused.
#include "core/callback.hpp"

#include <cxxabi.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

namespace kitsune2 {

std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
  return status == 0 && text ? text.get() : name;
}

std::string describe_exception() {
  const std::type_info* type = abi::__cxa_current_exception_type();
  std::string name = type != nullptr ? demangled(type->name()) : "an exception";
  try {
    throw;
  } catch (const std::exception& e) {
    return name + ": " + e.what();
  } catch (...) {
    return name;
  }
}

void callback_threw(const char* where) noexcept {
  std::fprintf(stderr, "kitsune2: %s threw %s; a callback must not throw\n", where, describe_exception().c_str());
  std::fflush(stderr);
  std::abort();
}

void misuse(const std::string& what) noexcept {
  std::fprintf(stderr, "kitsune2: %s\n", what.c_str());
  std::fflush(stderr);
  std::abort();
}

std::string to_string(const boost::source_location& where) {
  return std::string(where.file_name()) + ':' + std::to_string(where.line());
}

void assert_may_block(const Runtime& runtime, const char* call, const boost::source_location* where) {
  if (!runtime.on_strand()) return;
  misuse(std::string(call) + " was called on the strand" + (where != nullptr ? " at " + to_string(*where) : "") +
         ", which must never block, least of all for itself: call it on another thread, or start the asynchronous call "
         "without waiting (see kitsune2/runtime.hpp, thread rule)");
}

void called_off_strand(const char* call) noexcept {
  misuse(std::string(call) +
         " was called off the strand; call it in Node::run or Node::wait, or post it to the runtime (see "
         "kitsune2/runtime.hpp, thread rule)");
}

}  // namespace kitsune2
