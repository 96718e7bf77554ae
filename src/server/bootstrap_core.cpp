// The bootstrap server's checks of an info, and its answers. The rules are in the header.
#include "server/bootstrap_core.hpp"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "wire/signed_info.hpp"

namespace kitsune2::server {

namespace {

constexpr Duration kClockSkew = BootstrapBook::kClockSkew;
constexpr Duration kMaxLife = std::chrono::minutes(30);

std::string error_json(std::string_view text) {
  nlohmann::json out;
  out["error"] = text;
  return out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// Makes all cheap checks before the expensive one.
class PathVerifier final : public Verifier {
 public:
  PathVerifier(const Verifier& inner, const SpaceId& space, const AgentId& agent, Timestamp now)
      : inner_(inner), space_(space), agent_(agent), now_(now) {}

  bool verify(const AgentInfo& info, ByteView message, ByteView signature) const override {
    refusal = judge(info);
    return refusal.empty() && inner_.verify(info, message, signature);
  }

  mutable std::string_view refusal;

 private:
  std::string_view judge(const AgentInfo& info) const {
    if (info.agent.size() != 32) return "InvalidAgentPubKey";
    if (info.agent != agent_) return "InvalidAgent";
    if (info.space != space_) return "InvalidSpace";
    if (info.created_at < now_ - kClockSkew || info.created_at > now_ + kClockSkew) return "InvalidCreatedAt";
    if (info.expires_at < now_ || info.expires_at <= info.created_at) return "InvalidExpiresAt";
    if (info.expires_at - info.created_at > kMaxLife) return "InvalidExpiresAt";
    return {};
  }

  const Verifier& inner_;
  const SpaceId& space_;
  const AgentId& agent_;
  Timestamp now_;
};

template <class SomeId>
std::optional<SomeId> from_path(std::string_view segment) {
  std::vector<std::uint8_t> raw;
  if (segment.empty() || !from_base64url(segment, raw)) return std::nullopt;
  return SomeId(ByteView(raw));
}

}  // namespace

BootstrapAnswer BootstrapCore::refuse(int status, std::string_view error) {
  ++counters_.refused;
  return {status, error_json(error)};
}

BootstrapAnswer BootstrapCore::put(std::string_view space, std::string_view agent, std::string_view body, Timestamp now,
                                   const BootstrapBook::Address& from, std::uint64_t random) {
  if (body.size() > kMaxBodyBytes) return refuse(413, "length limit exceeded");
  const auto space_id = from_path<SpaceId>(space);
  const auto agent_id = from_path<AgentId>(agent);
  if (!space_id || !agent_id) return refuse(400, "the path is not base64url");
  const PathVerifier verifier(verifier_, *space_id, *agent_id, now);
  const auto decoded = wire::check_signed_info(body, verifier);
  if (!decoded) {
    if (!verifier.refusal.empty()) return refuse(500, verifier.refusal);
    if (decoded.error().code == Errc::bad_signature) return refuse(500, "InvalidSignature");
    return refuse(500, decoded.error().message);
  }
  const BootstrapBook::Info info{
      decoded->agent, decoded->created_at, decoded->expires_at, decoded->is_tombstone, body, from};
  const auto outcome = book_.put(*space_id, info, now, random);
  count();
  switch (outcome) {
    case BootstrapBook::Outcome::too_many_spaces:
      return refuse(503, "too many spaces: this server holds " + std::to_string(book_.limits().max_spaces) +
                             ", which others use; try again later, or use another bootstrap server");
    case BootstrapBook::Outcome::too_many_entries:
      return refuse(503,
                    "too many entries: this server holds " + std::to_string(book_.limits().max_bytes) +
                        " bytes of agent infos, which others use; try again later, or use another bootstrap server");
    case BootstrapBook::Outcome::taken:
      break;
  }
  ++counters_.puts;
  return {200, "{}"};
}

void BootstrapCore::set_max_entries_per_space(std::size_t entries) {
  book_.set_max_entries_per_space(entries);
  count();
}

BootstrapAnswer BootstrapCore::get(std::string_view space, Timestamp now, const BootstrapBook::Address& reader) {
  const auto id = from_path<SpaceId>(space);
  if (!id) return refuse(400, "the path is not base64url");
  ++counters_.gets;
  return {200, book_.list(*id, now, reader)};
}

void BootstrapCore::prune(Timestamp now) {
  book_.prune(now);
  count();
}

void BootstrapCore::count() {
  counters_.spaces.store(book_.spaces());
  counters_.entries.store(book_.entries());
  counters_.evicted.store(book_.evicted_spaces());
}

}  // namespace kitsune2::server
