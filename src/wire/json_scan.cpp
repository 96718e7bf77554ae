// A strict pull scanner for JSON from peers.
#include "wire/json_scan.hpp"

#include <cstdint>

#include "wire/protobuf.hpp"

namespace kitsune2::wire {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Returns -1 if `c` is not a hexadecimal digit.
int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

unsigned hex4_of(std::string_view text, std::size_t at) {
  unsigned out = 0;
  for (std::size_t i = 0; i < 4; ++i) out = out * 16 + static_cast<unsigned>(hex_value(text[at + i]));
  return out;
}

void append_utf8(std::string& out, unsigned code) {
  const auto put = [&](unsigned byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0U | (code >> 6));
    put(0x80U | (code & 0x3FU));
  } else if (code < 0x10000) {
    put(0xE0U | (code >> 12));
    put(0x80U | ((code >> 6) & 0x3FU));
    put(0x80U | (code & 0x3FU));
  } else {
    put(0xF0U | (code >> 18));
    put(0x80U | ((code >> 12) & 0x3FU));
    put(0x80U | ((code >> 6) & 0x3FU));
    put(0x80U | (code & 0x3FU));
  }
}

bool is_high_surrogate(unsigned code) { return code >= 0xD800 && code <= 0xDBFF; }
bool is_low_surrogate(unsigned code) { return code >= 0xDC00 && code <= 0xDFFF; }

}  // namespace

std::string JsonString::unescaped() const {
  if (!escaped) return std::string(raw);
  std::string out;
  out.reserve(raw.size());
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '\\') {
      out.push_back(raw[i]);
      continue;
    }
    switch (raw[++i]) {
      case 'b':
        out.push_back('\b');
        break;
      case 'f':
        out.push_back('\f');
        break;
      case 'n':
        out.push_back('\n');
        break;
      case 'r':
        out.push_back('\r');
        break;
      case 't':
        out.push_back('\t');
        break;
      case 'u': {
        unsigned code = hex4_of(raw, i + 1);
        i += 4;
        if (is_high_surrogate(code)) {  // the other half follows, as the scanner has checked
          code = 0x10000 + ((code - 0xD800) << 10) + (hex4_of(raw, i + 3) - 0xDC00);
          i += 6;
        }
        append_utf8(out, code);
        break;
      }
      default:
        out.push_back(raw[i]);
        break;  // quote, backslash, slash
    }
  }
  return out;
}

void append_json_string(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out.push_back('"');
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += "\\u00";
          out.push_back(kHex[static_cast<unsigned char>(c) >> 4]);
          out.push_back(kHex[static_cast<unsigned char>(c) & 15U]);
        } else {
          out.push_back(c);
        }
    }
  }
  out.push_back('"');
}

char JsonScanner::peek() {
  while (pos_ < text_.size()) {
    const char c = text_[pos_];
    if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return c;
    ++pos_;
  }
  return '\0';
}

bool JsonScanner::expect(char c, const char* why) {
  if (!ok()) return false;
  if (peek() != c) return fail(why);
  ++pos_;
  return true;
}

bool JsonScanner::open(char c) {
  if (!expect(c, c == '{' ? "expected an object" : "expected an array")) return false;
  if (++depth_ > kMaxDepth) return fail("nested too deeply");
  return true;
}

bool JsonScanner::close_at_once(char c) {
  if (peek() != c) return false;
  ++pos_;
  return true;
}

bool JsonScanner::comma() {
  if (!ok() || peek() != ',') return false;
  ++pos_;
  return true;
}

bool JsonScanner::hex4(unsigned& out) {
  if (text_.size() - pos_ < 4) return fail("truncated escape");
  for (std::size_t i = 0; i < 4; ++i) {
    if (hex_value(text_[pos_ + i]) < 0) return fail("bad escape");
  }
  out = hex4_of(text_, pos_);
  pos_ += 4;
  return true;
}

bool JsonScanner::string(JsonString& out) {
  if (!expect('"', "expected a string")) return false;
  const std::size_t start = pos_;
  out.escaped = false;
  for (;;) {
    if (pos_ >= text_.size()) return fail("a string without end");
    const char c = text_[pos_++];
    if (c == '"') break;
    if (static_cast<unsigned char>(c) < 0x20) return fail("a control character in a string");
    if (c != '\\') continue;
    out.escaped = true;
    if (pos_ >= text_.size()) return fail("a string without end");
    switch (text_[pos_++]) {
      case '"':
      case '\\':
      case '/':
      case 'b':
      case 'f':
      case 'n':
      case 'r':
      case 't':
        break;
      case 'u': {
        unsigned code = 0;
        if (!hex4(code)) return false;
        if (is_low_surrogate(code)) return fail("half a surrogate pair");
        if (is_high_surrogate(code)) {
          if (text_.substr(pos_, 2) != "\\u") return fail("half a surrogate pair");
          pos_ += 2;
          if (!hex4(code)) return false;
          if (!is_low_surrogate(code)) return fail("half a surrogate pair");
        }
        break;
      }
      default:
        return fail("bad escape");
    }
  }
  out.raw = text_.substr(start, pos_ - 1 - start);
  if (!is_utf8(out.raw)) return fail("a string that is not UTF-8");
  return true;
}

bool JsonScanner::digits() {
  const std::size_t start = pos_;
  while (pos_ < text_.size() && is_digit(text_[pos_])) ++pos_;
  return pos_ > start;
}

bool JsonScanner::number(std::string_view& out) {
  if (!ok()) return false;
  peek();
  const std::size_t start = pos_;
  const auto next_is = [&](char c) { return pos_ < text_.size() && text_[pos_] == c; };
  if (next_is('-')) ++pos_;
  if (next_is('0')) {
    ++pos_;
  } else if (!digits()) {
    return fail("expected a number");
  }
  if (next_is('.')) {
    ++pos_;
    if (!digits()) return fail("bad number");
  }
  if (next_is('e') || next_is('E')) {
    ++pos_;
    if (next_is('+') || next_is('-')) ++pos_;
    if (!digits()) return fail("bad number");
  }
  out = text_.substr(start, pos_ - start);
  return true;
}

bool JsonScanner::literal(std::string_view word) {
  if (!ok()) return false;
  peek();
  if (text_.substr(pos_, word.size()) != word) return false;
  pos_ += word.size();
  return true;
}

bool JsonScanner::boolean(bool& out) {
  if (literal("true")) {
    out = true;
  } else if (literal("false")) {
    out = false;
  } else {
    return fail("expected true or false");
  }
  return true;
}

bool JsonScanner::null_if_next() { return literal("null"); }

bool JsonScanner::skip_value(std::string_view* out) {
  if (!ok()) return false;
  const char first = peek();
  const std::size_t start = pos_;
  JsonString text;
  std::string_view number_text;
  bool good = false;
  switch (first) {
    case '{':
      good = object([this](const JsonString&) { return skip_value(); });
      break;
    case '[':
      good = array([this] { return skip_value(); });
      break;
    case '"':
      good = string(text);
      break;
    case 't':
      good = literal("true");
      break;
    case 'f':
      good = literal("false");
      break;
    case 'n':
      good = literal("null");
      break;
    default:
      good = number(number_text);
      break;
  }
  if (!good) return fail("expected a value");
  if (out != nullptr) *out = text_.substr(start, pos_ - start);
  return true;
}

bool JsonScanner::at_end() {
  peek();
  return pos_ == text_.size();
}

}  // namespace kitsune2::wire
