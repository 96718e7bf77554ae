// The bootstrap server's checks of an info, and its lists by space; the rules are in the header.
#include "server/bootstrap_core.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "wire/signed_info.hpp"

namespace kitsune2::server {

namespace {

constexpr Duration kClockSkew = std::chrono::minutes(3);
constexpr Duration kMaxLife = std::chrono::minutes(30);
constexpr std::size_t kEntryOverhead = 256;  // what an entry costs besides its body, about

std::string error_json(std::string_view text) {
  nlohmann::json out;
  out["error"] = text;
  return out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// Makes all the cheap checks before the expensive one.
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

BootstrapAnswer BootstrapCore::put(std::string_view space, std::string_view agent, std::string_view body,
                                   Timestamp now) {
  if (body.size() > kMaxBodyBytes) return refuse(413, "length limit exceeded");
  const auto space_id = from_path<SpaceId>(space);
  const auto agent_id = from_path<AgentId>(agent);
  if (!space_id || !agent_id) return refuse(400, "the path is not base64url");
  const PathVerifier verifier(verifier_, *space_id, *agent_id, now);
  const auto decoded = wire::check_signed_info(body, verifier);
  if (decoded.has_error()) {
    if (!verifier.refusal.empty()) return refuse(500, verifier.refusal);
    if (decoded.error().code == Errc::bad_signature) return refuse(500, "InvalidSignature");
    return refuse(500, decoded.error().message);
  }
  return store(*space_id, *decoded, body, now);
}

BootstrapAnswer BootstrapCore::store(const SpaceId& space_id, const AgentInfo& info, std::string_view body,
                                     Timestamp now) {
  const auto accepted = [&] {
    ++counters_.puts;
    count();
    return BootstrapAnswer{200, "{}"};
  };
  const std::size_t cost = body.size() + kEntryOverhead;
  const auto found = spaces_.find(space_id);
  if (found == spaces_.end()) {
    if (info.is_tombstone) return accepted();  // nothing to remove
    if (spaces_.size() >= limits_.max_spaces) return refuse(503, "too many spaces");
    if (bytes_ + cost > limits_.max_bytes) return refuse(503, "too many entries");
  }
  Space& space = found != spaces_.end() ? found->second : spaces_[space_id];
  prune_space(space, now);

  const auto same = [&](const auto& entry) { return entry.agent == info.agent; };
  const auto old = std::find_if(space.entries.begin(), space.entries.end(), same);
  const std::size_t freed = old != space.entries.end() ? old->body.size() + kEntryOverhead : 0;
  if (!info.is_tombstone && bytes_ - freed + cost > limits_.max_bytes) return refuse(503, "too many entries");
  const auto grave = std::find_if(space.graves.begin(), space.graves.end(), same);
  // What is from the future was put before this clock was set back: it keeps nothing out.
  const auto newer = [&](const auto& held) {
    return held.created_at >= info.created_at && held.created_at <= now + kClockSkew;
  };
  const bool stale = (old != space.entries.end() && newer(*old)) || (grave != space.graves.end() && newer(*grave));
  if (!stale && info.is_tombstone) {
    if (old != space.entries.end()) {
      bytes_ -= freed;
      --entries_;
      space.entries.erase(old);
    }
    bury(space, info);
  } else if (!stale) {
    if (old != space.entries.end()) {
      bytes_ -= freed;
      *old = Entry{info.agent, info.created_at, info.expires_at, std::string(body)};
    } else {
      make_room(space, std::max<std::size_t>(limits_.max_entries_per_space, 1) - 1);
      space.entries.push_back({info.agent, info.created_at, info.expires_at, std::string(body)});
      ++entries_;
    }
    bytes_ += cost;
  }
  return accepted();
}

/// The one in the middle goes until at most `entries` are left.
void BootstrapCore::make_room(Space& space, std::size_t entries) {
  while (space.entries.size() > entries) {
    const auto middle = space.entries.begin() + static_cast<std::ptrdiff_t>(space.entries.size() / 2);
    bytes_ -= middle->body.size() + kEntryOverhead;
    --entries_;
    space.entries.erase(middle);
  }
}

void BootstrapCore::set_max_entries_per_space(std::size_t entries) {
  limits_.max_entries_per_space = entries;
  for (auto& [id, space] : spaces_) {
    make_room(space, entries);
    if (space.graves.size() > 4 * entries) {
      space.graves.erase(space.graves.begin(), space.graves.end() - static_cast<std::ptrdiff_t>(4 * entries));
    }
  }
  count();
}

void BootstrapCore::bury(Space& space, const AgentInfo& info) {
  std::erase_if(space.graves, [&](const Grave& grave) { return grave.agent == info.agent; });
  if (space.graves.size() >= 4 * limits_.max_entries_per_space) space.graves.erase(space.graves.begin());
  space.graves.push_back({info.agent, info.created_at});
}

BootstrapAnswer BootstrapCore::get(std::string_view space, Timestamp now) {
  const auto id = from_path<SpaceId>(space);
  if (!id) return refuse(400, "the path is not base64url");
  ++counters_.gets;
  std::string out = "[";
  if (const auto it = spaces_.find(*id); it != spaces_.end()) {
    for (const Entry& entry : it->second.entries) {
      if (entry.expires_at <= now) continue;
      if (out.size() > 1) out += ',';
      out += entry.body;
    }
  }
  out += ']';
  return {200, std::move(out)};
}

void BootstrapCore::prune_space(Space& space, Timestamp now) {
  std::erase_if(space.entries, [&](const Entry& entry) {
    if (entry.expires_at > now) return false;
    bytes_ -= entry.body.size() + kEntryOverhead;
    --entries_;
    return true;
  });
  // What is older than a tombstone is refused by its created_at from here on.
  std::erase_if(space.graves, [&](const Grave& grave) { return grave.created_at + kClockSkew < now; });
}

void BootstrapCore::prune(Timestamp now) {
  for (auto& [id, space] : spaces_) prune_space(space, now);
  boost::unordered::erase_if(
      spaces_, [](const auto& space) { return space.second.entries.empty() && space.second.graves.empty(); });
  count();
}

void BootstrapCore::count() {
  counters_.spaces.store(spaces_.size());
  counters_.entries.store(entries_);
}

void BootstrapCore::check_invariants() const {
  std::size_t bytes = 0;
  std::size_t entries = 0;
  for (const auto& [id, space] : spaces_) {
    K2_ASSERT(space.entries.size() <= limits_.max_entries_per_space);
    K2_ASSERT(space.graves.size() <= 4 * limits_.max_entries_per_space);
    entries += space.entries.size();
    for (const Entry& entry : space.entries) bytes += entry.body.size() + kEntryOverhead;
  }
  K2_ASSERT(spaces_.size() <= limits_.max_spaces);
  K2_ASSERT(bytes == bytes_ && entries == entries_);
  K2_ASSERT(bytes_ <= limits_.max_bytes);
}

}  // namespace kitsune2::server
