// Reads, checks, signs and writes agent infos.
#include <charconv>

#include "kitsune2/agent.hpp"
#include "wire/json_scan.hpp"
#include "wire/signed_info.hpp"

namespace kitsune2 {

namespace {

using wire::JsonScanner;
using wire::JsonString;

constexpr std::size_t kSignatureBytes = 64;
constexpr std::size_t kMaxIdBytes = 1024;

/// Parses decimal digits with an optional sign, as the reference's parser does.
bool parse_int64(std::string_view text, std::int64_t& out) {
  if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-')) return false;
  }
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, out);
  return error == std::errc() && stop == end && !text.empty();
}

bool parse_uint32(std::string_view text, std::uint32_t& out) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, out);
  return error == std::errc() && stop == end;
}

/// Reads members of an object by name: each known one at most once; remembers which value was wrong.
class Members {
 public:
  explicit Members(JsonScanner& scanner, const char* path) : scanner_(scanner), path_(path) {}

  /// Marks `name` as read. False (with an error) if it was read before.
  bool once(bool& seen, const char* name) {
    name_ = name;
    if (seen) return scanner_.fail("given twice");
    seen = true;
    return true;
  }
  /// A string without escapes: stock nodes refuse unnecessary escapes.
  bool plain_string(std::string_view& out) {
    JsonString text;
    if (!scanner_.string(text)) return false;
    if (text.escaped) return scanner_.fail("escapes are not allowed here");
    out = text.raw;
    return true;
  }
  bool base64(std::vector<std::uint8_t>& out) {
    std::string_view text;
    if (!plain_string(text)) return false;
    return from_base64url(text, out) || scanner_.fail("not base64url without padding");
  }
  template <class IdType>
  bool id(IdType& out) {
    std::vector<std::uint8_t> bytes;
    if (!base64(bytes)) return false;
    if (bytes.empty() || bytes.size() > kMaxIdBytes) return scanner_.fail("an id must have 1 to 1024 bytes");
    out = IdType(ByteView(bytes));
    return true;
  }
  bool timestamp(Timestamp& out) {
    std::string_view text;
    if (!plain_string(text)) return false;
    return parse_int64(text, out.micros) || scanner_.fail("not a decimal string of 64 bits");
  }
  Error missing(const char* name) const {
    return make_error(Errc::malformed, std::string(path_) + "." + name + ": missing");
  }
  Error error() const {
    return make_error(Errc::malformed, std::string(path_) + "." + name_ + ": " + scanner_.what() + " (at byte " +
                                           std::to_string(scanner_.offset()) + ")");
  }
  void in(const char* name) { name_ = name; }

 private:
  JsonScanner& scanner_;
  const char* path_;
  const char* name_ = "";
};

/// What a url must be; null: any string, which is left alone.
using UrlRule = const UrlForm*;

bool read_url(JsonScanner& scanner, UrlRule rule, std::optional<Url>& out) {
  if (scanner.null_if_next()) return true;
  JsonString text;
  if (!scanner.string(text)) return false;
  if (rule == nullptr) return true;
  Result<Url> url = Url::parse(text.escaped ? text.unescaped() : std::string(text.raw), *rule);
  if (!url) return scanner.fail("not a canonical url");
  out = std::move(*url);
  return true;
}

bool read_arc(JsonScanner& scanner, DhtArc& out) {
  if (scanner.null_if_next()) return true;
  std::uint32_t ends[2] = {};
  std::size_t count = 0;
  const bool good = scanner.array([&] {
    std::string_view number;
    if (!scanner.number(number)) return false;
    if (count == 2) return scanner.fail("more than two numbers");
    return parse_uint32(number, ends[count++]) || scanner.fail("not a number of 32 bits");
  });
  if (!good) return false;
  if (count != 2) return scanner.fail("expected two numbers");
  out = DhtArc(ends[0], ends[1]);
  return true;
}

Result<AgentInfo> parse_inner(std::string_view json, UrlRule rule) {
  JsonScanner scanner(json);
  Members members(scanner, "agentInfo");
  AgentInfo info;
  bool agent = false;
  bool space = false;
  bool created = false;
  bool expires = false;
  bool tombstone = false;
  bool url = false;
  bool arc = false;
  const bool good = scanner.object([&](const JsonString& raw_key) {
    const std::string key = raw_key.unescaped();
    if (key == "agent") return members.once(agent, "agent") && members.id(info.agent);
    if (key == "space") return members.once(space, "space") && members.id(info.space);
    if (key == "createdAt") return members.once(created, "createdAt") && members.timestamp(info.created_at);
    if (key == "expiresAt") return members.once(expires, "expiresAt") && members.timestamp(info.expires_at);
    if (key == "isTombstone") return members.once(tombstone, "isTombstone") && scanner.boolean(info.is_tombstone);
    if (key == "url") return members.once(url, "url") && read_url(scanner, rule, info.url);
    if (key == "storageArc") return members.once(arc, "storageArc") && read_arc(scanner, info.storage_arc);
    members.in("(unknown key)");
    return scanner.skip_value();
  });
  if (!good) return members.error();
  if (!scanner.at_end()) {
    scanner.fail("bytes after the object");
    return members.error();
  }
  if (!agent) return members.missing("agent");
  if (!space) return members.missing("space");
  if (!created) return members.missing("createdAt");
  if (!expires) return members.missing("expiresAt");
  if (!tombstone) return members.missing("isTombstone");
  return info;
}

std::string encode_inner(const AgentInfo& info) {
  std::string out;
  out.reserve(320);
  out += R"({"agent":")";
  out += info.agent.to_string();
  out += R"(","space":")";
  out += info.space.to_string();
  out += R"(","createdAt":")";
  out += std::to_string(info.created_at.micros);
  out += R"(","expiresAt":")";
  out += std::to_string(info.expires_at.micros);
  out += R"(","isTombstone":)";
  out += info.is_tombstone ? "true" : "false";
  out += R"(,"url":)";
  if (info.url && !info.url->empty()) {
    wire::append_json_string(out, info.url->str());
  } else {
    out += "null";
  }
  out += R"(,"storageArc":)";
  if (info.storage_arc.empty()) {
    out += "null";
  } else {
    out += '[' + std::to_string(info.storage_arc.start()) + ',' + std::to_string(info.storage_arc.end()) + ']';
  }
  out += '}';
  return out;
}

std::string encode_outer(std::string_view inner, ByteView signature) {
  std::string out;
  out.reserve(inner.size() + inner.size() / 8 + 140);
  out += R"({"agentInfo":)";
  wire::append_json_string(out, inner);
  out += R"(,"signature":")";
  out += to_base64url(signature);
  out += R"("})";
  return out;
}

struct Parts {
  AgentInfo info;
  std::string inner;
  std::vector<std::uint8_t> signature;
};

Result<Parts> parse_and_verify(std::string_view json, const Verifier& verifier, UrlRule rule) {
  constexpr std::size_t kMaxJsonBytes = AgentInfoSigned::kMaxJsonBytes;
  if (json.size() > kMaxJsonBytes) {
    return make_error(Errc::too_large, "agent info: " + std::to_string(json.size()) + " bytes, at most " +
                                           std::to_string(kMaxJsonBytes));
  }
  JsonScanner scanner(json);
  Members members(scanner, "signed agent info");
  bool has_info = false;
  bool has_signature = false;
  Parts out;
  const bool good = scanner.object([&](const JsonString& raw_key) {
    const std::string key = raw_key.unescaped();
    if (key == "agentInfo") {
      JsonString text;
      if (!members.once(has_info, "agentInfo") || !scanner.string(text)) return false;
      out.inner = text.unescaped();
      return true;
    }
    if (key == "signature") return members.once(has_signature, "signature") && members.base64(out.signature);
    members.in("(unknown key)");
    return scanner.skip_value();
  });
  if (!good) return members.error();
  if (!scanner.at_end()) {
    scanner.fail("bytes after the object");
    return members.error();
  }
  if (!has_info) return members.missing("agentInfo");
  if (!has_signature) return members.missing("signature");
  if (out.signature.size() != kSignatureBytes) {
    return make_error(Errc::malformed,
                      "signed agent info.signature: " + std::to_string(out.signature.size()) + " bytes, expected 64");
  }
  Result<AgentInfo> info = parse_inner(out.inner, rule);
  if (!info) return info.error();
  if (!verifier.verify(*info, as_bytes(out.inner), out.signature)) {
    return make_error(Errc::bad_signature, "agent info of " + info->agent.to_string());
  }
  out.info = std::move(*info);
  return out;
}

}  // namespace

Result<AgentInfo> wire::check_signed_info(std::string_view json, const Verifier& verifier) {
  auto parts = parse_and_verify(json, verifier, nullptr);
  if (!parts) return parts.error();
  return std::move(parts->info);
}

Result<AgentInfoPtr> AgentInfoSigned::decode(std::string_view json, const Verifier& verifier, const UrlForm& form) {
  auto parts = parse_and_verify(json, verifier, &form);
  if (!parts) return parts.error();
  std::shared_ptr<AgentInfoSigned> out(new AgentInfoSigned());
  out->info_ = std::move(parts->info);
  out->inner_ = std::move(parts->inner);
  out->signature_ = Bytes(std::move(parts->signature));
  out->encoded_ = std::string(json);
  return AgentInfoPtr(std::move(out));
}

Result<std::vector<Result<AgentInfoPtr>>> AgentInfoSigned::decode_list(std::string_view json, std::size_t max_entries,
                                                                       const Verifier& verifier, const UrlForm& form) {
  JsonScanner scanner(json);
  std::vector<std::string_view> elements;
  const bool good = scanner.array([&] {
    if (elements.size() == max_entries) return scanner.fail("too many entries");
    return scanner.skip_value(&elements.emplace_back());
  });
  if (good && !scanner.at_end()) scanner.fail("bytes after the list");
  if (!scanner.ok()) {
    return make_error(Errc::malformed, std::string("list of agent infos: ") + scanner.what() + " (at byte " +
                                           std::to_string(scanner.offset()) + ")");
  }
  std::vector<Result<AgentInfoPtr>> out;
  out.reserve(elements.size());
  for (const std::string_view element : elements) out.push_back(decode(element, verifier, form));
  return out;
}

Result<AgentInfoPtr> AgentInfoSigned::sign(Signer& signer, const AgentInfo& info) {
  if (info.agent.empty() || info.agent.size() > kMaxIdBytes || info.space.empty() || info.space.size() > kMaxIdBytes) {
    return make_error(Errc::invalid_argument, "agent info: agent and space must have 1 to 1024 bytes");
  }
  std::string inner = encode_inner(info);
  Result<Bytes> signature = signer.sign(info, as_bytes(inner));
  if (!signature) return signature.error().context("signing the agent info");
  if (signature->size() != kSignatureBytes) {
    return make_error(Errc::invalid_argument, "agent info: the signer gave a signature of " +
                                                  std::to_string(signature->size()) + " bytes, expected 64");
  }
  std::shared_ptr<AgentInfoSigned> out(new AgentInfoSigned());
  out->info_ = info;
  if (out->info_.url && out->info_.url->empty()) out->info_.url.reset();
  out->encoded_ = encode_outer(inner, *signature);
  if (out->encoded_.size() > kMaxJsonBytes) {
    return make_error(Errc::too_large, "agent info: " + std::to_string(out->encoded_.size()) + " bytes, at most " +
                                           std::to_string(kMaxJsonBytes));
  }
  out->inner_ = std::move(inner);
  out->signature_ = std::move(*signature);
  return AgentInfoPtr(std::move(out));
}

}  // namespace kitsune2
