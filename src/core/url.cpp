// Reads urls of peers and relays, which have to be in the reference's canonical form.
#include "kitsune2/url.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

namespace kitsune2 {

namespace {

constexpr std::string_view kSeparator = "://";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_lower_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); }
bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }
bool is_ascii(char c) { return static_cast<unsigned char>(c) < 0x80; }

/// A decimal number without leading zeros up to `max`.
std::optional<std::uint32_t> canonical_number(std::string_view text, std::uint32_t max) {
  if (text.empty() || text.size() > 5 || (text.size() > 1 && text[0] == '0')) return std::nullopt;
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value > max) return std::nullopt;
  return value;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> out;
  while (true) {
    const std::size_t at = text.find(separator);
    out.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return out;
    text.remove_prefix(at + 1);
  }
}

/// Whether a url parser takes a host with this last label for an IPv4 address.
bool is_ipv4_label(std::string_view label) {
  if (label.empty()) return false;
  if (std::all_of(label.begin(), label.end(), is_digit)) return true;
  return label.starts_with("0x") && std::all_of(label.begin() + 2, label.end(), is_lower_hex);
}

bool is_canonical_ipv4(std::string_view host) {
  const auto parts = split(host, '.');
  return parts.size() == 4 &&
         std::all_of(parts.begin(), parts.end(), [](auto part) { return canonical_number(part, 255).has_value(); });
}

/// The one spelling of an IPv6 address: lower-case hex groups, the first longest run of two or more zero groups is
/// "::".
std::string write_ipv6(const std::array<std::uint16_t, 8>& groups) {
  std::size_t best = 8;
  std::size_t best_length = 1;
  for (std::size_t i = 0; i < 8; ++i) {
    std::size_t length = 0;
    while (i + length < 8 && groups[i + length] == 0) ++length;
    if (length > best_length) {
      best = i;
      best_length = length;
    }
  }
  std::string out;
  for (std::size_t i = 0; i < 8; ++i) {
    if (i == best) {
      out += "::";
      i += best_length - 1;
      continue;
    }
    if (!out.empty() && out.back() != ':') out += ':';
    std::array<char, 4> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), groups[i], 16).ptr;
    out.append(digits.data(), end);
  }
  return out;
}

/// Groups of one side of "::", appended to `out`. False: not hex groups, or more than eight.
bool read_ipv6_groups(std::string_view text, std::vector<std::uint16_t>& out) {
  if (text.empty()) return true;
  for (const std::string_view part : split(text, ':')) {
    if (part.empty() || part.size() > 4 || !std::all_of(part.begin(), part.end(), is_lower_hex)) return false;
    std::uint16_t value = 0;
    std::from_chars(part.data(), part.data() + part.size(), value, 16);
    out.push_back(value);
  }
  return out.size() <= 8;
}

bool is_canonical_ipv6(std::string_view text) {
  if (text.size() > 39) return false;
  std::vector<std::uint16_t> head;
  std::vector<std::uint16_t> tail;
  const std::size_t gap = text.find("::");
  if (!read_ipv6_groups(text.substr(0, gap), head)) return false;
  if (gap != std::string_view::npos && !read_ipv6_groups(text.substr(gap + 2), tail)) return false;
  const std::size_t count = head.size() + tail.size();
  if (gap == std::string_view::npos ? count != 8 : count > 7) return false;
  std::array<std::uint16_t, 8> groups{};
  std::copy(head.begin(), head.end(), groups.begin());
  std::copy(tail.rbegin(), tail.rend(), groups.rbegin());
  return write_ipv6(groups) == text;
}

/// An "xn--" label must decode (RFC 3492) to characters beyond ASCII and its controls. Whether IDNA permits these
/// characters is not checked: that takes Unicode's tables, and such a host only fails to resolve.
bool is_punycode(std::string_view label) {
  constexpr std::uint32_t kBase = 36;
  const std::size_t dash = label.rfind('-');
  std::uint64_t points = dash == std::string_view::npos ? 0 : dash;
  const std::string_view digits = dash == std::string_view::npos ? label : label.substr(dash + 1);
  if (digits.empty() || label.size() > 1000) return false;
  std::uint64_t code = 128;
  std::uint64_t position = 0;
  std::uint64_t bias = 72;
  bool first = true;
  for (std::size_t i = 0; i < digits.size();) {
    const std::uint64_t old = position;
    std::uint64_t weight = 1;
    for (std::uint64_t k = kBase;; k += kBase) {
      if (i == digits.size()) return false;
      const char c = digits[i++];
      std::uint64_t digit = 0;
      if (c >= 'a' && c <= 'z') {
        digit = static_cast<std::uint64_t>(c - 'a');
      } else if (is_digit(c)) {
        digit = static_cast<std::uint64_t>(c - '0') + 26;
      } else {
        return false;
      }
      position += digit * weight;
      if (position > UINT32_MAX) return false;
      const std::uint64_t threshold = k <= bias ? 1 : std::min<std::uint64_t>(k - bias, 26);
      if (digit < threshold) break;
      weight *= kBase - threshold;
      if (weight > UINT32_MAX) return false;
    }
    ++points;
    std::uint64_t delta = first ? (position - old) / 700 : (position - old) / 2;
    delta += delta / points;
    std::uint64_t k = 0;
    for (; delta > 455; k += kBase) delta /= 35;
    bias = k + 36 * delta / (delta + 38);
    first = false;
    code += position / points;
    position = position % points + 1;
    if (code < 0xa0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return false;
  }
  return true;
}

bool is_canonical_host(std::string_view host) {
  if (host.empty()) return false;
  if (host.front() == '[') {
    return host.size() > 2 && host.back() == ']' && is_canonical_ipv6(host.substr(1, host.size() - 2));
  }
  static constexpr std::string_view kForbidden = " %#/:<>?@[\\]^|";
  for (const char c : host) {
    if (is_control(c) || !is_ascii(c) || (c >= 'A' && c <= 'Z') || kForbidden.find(c) != std::string_view::npos) {
      return false;
    }
  }
  auto labels = split(host, '.');
  for (const std::string_view label : labels) {
    if (label.starts_with("xn--") && !is_punycode(label.substr(4))) return false;
  }
  if (labels.size() > 1 && labels.back().empty()) labels.pop_back();
  return !is_ipv4_label(labels.back()) || is_canonical_ipv4(host);
}

/// A path segment that a url parser leaves as it is.
bool is_canonical_segment(std::string_view segment) {
  static constexpr std::string_view kEncoded = " \"<>`#?{}\\/";
  for (const char c : segment) {
    if (is_control(c) || !is_ascii(c) || kEncoded.find(c) != std::string_view::npos) return false;
  }
  // "." and "..", also with an escaped dot, are steps in the path and vanish.
  std::string plain;
  for (std::size_t i = 0; i < segment.size(); ++i) {
    const bool escaped = segment.size() - i >= 3 && segment[i] == '%' && segment[i + 1] == '2' &&
                         (segment[i + 2] == 'e' || segment[i + 2] == 'E');
    plain += escaped ? '.' : segment[i];
    if (escaped) i += 2;
    if (plain.size() > 2) return true;
  }
  return !plain.empty() && plain != "." && plain != "..";
}

bool is_scheme(std::string_view scheme, const UrlForm& form) {
  return scheme == "ws" || scheme == "wss" || (form.http && (scheme == "http" || scheme == "https"));
}

/// What follows the first slash.
bool is_canonical_path(std::string_view path, const UrlForm& form) {
  if (!form.relay_path) return is_canonical_segment(path);
  return std::ranges::all_of(split(path, '/'), is_canonical_segment);
}

bool is_canonical(std::string_view text, const UrlForm& form) {
  const std::size_t separator = text.find(kSeparator);
  if (separator == std::string_view::npos || !is_scheme(text.substr(0, separator), form)) return false;
  std::string_view rest = text.substr(separator + kSeparator.size());
  const std::size_t slash = rest.find('/');
  if (slash != std::string_view::npos && !is_canonical_path(rest.substr(slash + 1), form)) return false;
  rest = rest.substr(0, slash);
  const std::size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos) return false;
  return canonical_number(rest.substr(colon + 1), UINT16_MAX).has_value() && is_canonical_host(rest.substr(0, colon));
}

/// What the writer of a refused url probably meant; empty if that is not clear.
std::string guess_canonical(std::string_view text, const UrlForm& form) {
  const auto lower = [](std::string_view part) {
    std::string out(part);
    for (char& c : out) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    return out;
  };
  const std::size_t separator = text.find(kSeparator);
  if (separator == std::string_view::npos) return {};
  const std::string scheme = lower(text.substr(0, separator));
  if (!is_scheme(scheme, form)) return {};
  std::string_view rest = text.substr(separator + kSeparator.size());
  rest = rest.substr(0, rest.find_first_of("?#"));
  std::string_view path;
  if (const std::size_t slash = rest.find('/'); slash != std::string_view::npos) {
    path = rest.substr(slash);
    rest = rest.substr(0, slash);
  }
  if (path == "/") path = {};
  if (const std::size_t at = rest.rfind('@'); at != std::string_view::npos) rest.remove_prefix(at + 1);
  std::string out = scheme + std::string(kSeparator) + lower(rest);
  const std::size_t colon = rest.rfind(':');
  const std::size_t bracket = rest.rfind(']');
  if (colon == std::string_view::npos || (bracket != std::string_view::npos && colon < bracket)) {
    out += scheme == "wss" || scheme == "https" ? ":443" : ":80";
  }
  out += path;
  return is_canonical(out, form) ? out : std::string();
}

/// Text from a peer or a user, fit for a message.
std::string quoted(std::string_view text) {
  constexpr std::size_t kMax = 120;
  std::string out = "\"";
  for (const char c : text.substr(0, kMax)) out += is_control(c) || !is_ascii(c) ? '?' : c;
  return out + (text.size() > kMax ? "...\"" : "\"");
}

}  // namespace

Result<Url> Url::parse(std::string_view text, const UrlForm& form) {
  if (!is_canonical(text, form)) {
    const std::string path = form.relay_path ? "[/path][/id]" : "[/id]";
    const auto like = [&](const char* scheme) { return scheme + std::string("://host:port") + path; };
    std::string message = "not a canonical peer url, ";
    if (form.http) message += like("http") + ", " + like("https") + ", ";
    message += like("ws") + " or " + like("wss") + ": " + quoted(text);
    const std::string expected = guess_canonical(text, form);
    if (!expected.empty()) message += "; expected " + expected;
    return make_error(Errc::malformed, std::move(message));
  }
  Url out;
  out.text_ = Bytes::copy_of(text);
  return out;
}

std::string_view Url::scheme() const noexcept { return str().substr(0, str().find(':')); }

std::string_view Url::addr() const noexcept {
  std::string_view text = str();
  const std::size_t separator = text.find(kSeparator);
  if (separator == std::string_view::npos) return {};
  text.remove_prefix(separator + kSeparator.size());
  return text.substr(0, text.find('/'));
}

std::string_view Url::host() const noexcept {
  std::string_view text = addr();
  text = text.substr(0, text.rfind(':'));
  if (!text.empty() && text.front() == '[') text = text.substr(1, text.size() - 2);
  return text;
}

std::uint16_t Url::port() const noexcept {
  const std::string_view text = addr();
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return 0;
  return static_cast<std::uint16_t>(canonical_number(text.substr(colon + 1), UINT16_MAX).value_or(0));
}

std::optional<std::string_view> Url::peer_id() const noexcept {
  const std::string_view address = addr();
  if (address.empty()) return std::nullopt;
  const std::string_view text = str();
  const auto after = static_cast<std::size_t>(address.data() - text.data()) + address.size();
  if (after >= text.size() || text.ends_with('/')) return std::nullopt;
  return text.substr(text.rfind('/') + 1);
}

Url Url::relay() const {
  if (!is_peer()) return *this;
  const std::string_view address = addr();
  const std::size_t address_end = static_cast<std::size_t>(address.data() - str().data()) + address.size();
  const std::size_t last = str().rfind('/');
  Url out;
  out.text_ = text_.slice(0, last == address_end ? last : last + 1);
  return out;
}

}  // namespace kitsune2
