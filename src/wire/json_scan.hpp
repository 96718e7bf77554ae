// A strict pull scanner for JSON that peers send.
//
// Why not nlohmann::json: what a peer signs must mean the same to every reader. So duplicate keys, a byte order mark
// and NUL must be refused, and it matters whether a string was written with escapes (stock nodes refuse them in ids,
// and one such agent info in a bootstrap answer makes them drop the whole answer). A DOM hides all of this.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace kitsune2::wire {

/// A string as written in the text, without its quotes. UTF-8, escapes and control characters have been checked.
struct JsonString {
  std::string_view raw;
  bool escaped = false;  ///< has at least one backslash

  /// The characters that it stands for.
  std::string unescaped() const;
};

/// Appends `text` as a JSON string with quotes, escaping only what must be escaped (as serde_json does).
void append_json_string(std::string& out, std::string_view text);

/// Walks through a JSON text. Never throws on input, never allocates; kMaxDepth bounds the recursion. Every reader
/// returns false after an error; `what` and `offset` describe the first one.
class JsonScanner {
 public:
  static constexpr int kMaxDepth = 32;

  explicit JsonScanner(std::string_view text) : text_(text) {}

  /// Calls `on_member(JsonString key)`, which must read exactly one value and return whether that succeeded.
  template <class F>
  bool object(F on_member) {
    if (!open('{')) return false;
    if (!close_at_once('}')) {
      do {
        JsonString key;
        if (!string(key) || !expect(':', "expected ':'") || !on_member(key)) return fail("bad value");
      } while (comma());
      if (!expect('}', "expected ',' or '}'")) return false;
    }
    --depth_;
    return ok();
  }
  /// Calls `on_element()`, with the same duty.
  template <class F>
  bool array(F on_element) {
    if (!open('[')) return false;
    if (!close_at_once(']')) {
      do {
        if (!on_element()) return fail("bad value");
      } while (comma());
      if (!expect(']', "expected ',' or ']'")) return false;
    }
    --depth_;
    return ok();
  }
  bool string(JsonString& out);
  /// A number as written in the text.
  bool number(std::string_view& out);
  bool boolean(bool& out);
  /// Reads `null` if it is next. Otherwise returns false without an error.
  bool null_if_next();
  /// Reads any value. `out` (may be null) receives its part of the text.
  bool skip_value(std::string_view* out = nullptr);
  /// Whether the end of the text is reached (after white space).
  bool at_end();

  /// The next character that is not white space; 0 at the end.
  char peek();
  bool ok() const { return error_ == nullptr; }
  const char* what() const { return error_ != nullptr ? error_ : "no error"; }
  std::size_t offset() const { return pos_; }
  /// Keeps the first error. Always returns false.
  bool fail(const char* why) {
    if (error_ == nullptr) error_ = why;
    return false;
  }

 private:
  bool expect(char c, const char* why);
  bool open(char c);
  bool close_at_once(char c);
  bool comma();
  bool literal(std::string_view word);
  bool hex4(unsigned& out);
  bool digits();

  std::string_view text_;
  std::size_t pos_ = 0;
  int depth_ = 0;
  const char* error_ = nullptr;
};

}  // namespace kitsune2::wire
