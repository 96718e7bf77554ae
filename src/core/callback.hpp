// Calls of the application's code from inside the library, and what happens when it throws.
#pragma once

#include <exception>
#include <string>
#include <type_traits>
#include <utility>

#include "kitsune2/error.hpp"
#include "kitsune2/runtime.hpp"

namespace kitsune2 {

/// The readable form of a type's name, from what `type_info::name` returns.
std::string demangled(const char* name);
/// "std::runtime_error: what it says" for the exception that is being handled.
std::string describe_exception();

/// Ends the program with a message that names `where` and the exception that is being handled.
[[noreturn]] void callback_threw(const char* where) noexcept;
/// The same for a misuse of the library: `what` is a whole sentence.
[[noreturn]] void misuse(const std::string& what) noexcept;

/// "file:line".
std::string to_string(const boost::source_location& where);
/// For calls that wait for the strand: ends the program with a message that names `call` ("Node::run") and `where` it
/// was made, if it was made on the strand.
void assert_may_block(const Runtime& runtime, const char* call, const boost::source_location* where = nullptr);

/// Calls a callback of the application, named `where` ("SpaceHandler::recv_notify"). If it throws, the program ends and
/// says where. *Rationale*: nobody waits for the outcome of a notification, so nobody could handle the exception, and
/// after half a callback the application is in a state that it did not foresee.
template <class F>
auto call_application(const char* where, F&& f) -> decltype(f()) {
  try {
    return std::forward<F>(f)();
  } catch (...) {
    callback_threw(where);
  }
}

/// Calls code of the application that returns a Result, where the caller can handle the failure. An exception becomes
/// Errc::internal, "<where> threw <exception>".
template <class F>
auto call_for_result(const char* where, F&& f) -> std::remove_cvref_t<decltype(f())> {
  try {
    return std::forward<F>(f)();
  } catch (...) {
    return make_error(Errc::internal, std::string(where) + " threw " + describe_exception());
  }
}

}  // namespace kitsune2
