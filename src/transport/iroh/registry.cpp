// The slot of each peer: simultaneous opens, preflights and their deadline.
#include "transport/iroh/registry.hpp"

#include "kitsune2/error.hpp"

namespace kitsune2::iroh {
namespace {

// As the reference says it.
constexpr std::string_view kSupersededText = "superseded by preferred connection";
constexpr std::string_view kManyText = "too many connections";
constexpr std::string_view kLateText = "timed out waiting for preflight (src: deadline has elapsed)";

}  // namespace

void Registry::forget(Id id) {
  const auto found = connections_.find(id);
  waiting_.erase({found->second.until, id});
  const EndpointId peer = found->second.peer;
  connections_.erase(found);
  const auto slot = slots_.find(peer);
  if (slot == slots_.end() || slot->second != id) return;
  slots_.erase(slot);
  if (spares_ == Spares::closed) return;
  for (const Id other : others_of(peer, id)) {
    if (is_active(other)) slots_[peer] = other;
  }
}

std::vector<Registry::Id> Registry::others_of(const EndpointId& peer, Id but) const {
  std::vector<Id> out;
  for (const auto& [id, connection] : connections_) {
    if (id != but && connection.peer == peer) out.push_back(id);
  }
  return out;
}

void Registry::close(Id id, std::uint64_t code, std::string_view reason, Outcome& out) {
  forget(id);
  out.close.push_back({id, code, reason});
}

bool Registry::claim(Id id, Connection& connection, Outcome& out) {
  const auto slot = slots_.find(connection.peer);
  if (slot != slots_.end() && spares_ == Spares::closed) {
    if (is_preferred(connections_.at(slot->second)) && !is_preferred(connection)) {
      close(id, close_code::kSuperseded, kSupersededText, out);
      return false;
    }
    close(slot->second, close_code::kSuperseded, kSupersededText, out);
  }
  slots_[connection.peer] = id;
  if (spares_ == Spares::closed) return true;
  const std::vector<Id> spares = others_of(connection.peer, id);
  for (std::size_t i = 0; i + kMostSpares < spares.size(); ++i) close(spares[i], close_code::kFailure, kManyText, out);
  return true;
}

Registry::Outcome Registry::on_opened(Id id, const EndpointId& peer, bool dialled, Time now) {
  const auto [entry, is_new] = connections_.emplace(id, Connection{peer, dialled, false, now + kPreflightLimit});
  K2_ASSERT(is_new);
  waiting_.emplace(entry->second.until, id);
  Outcome out;
  if (dialled && claim(id, entry->second, out)) out.send_preflight = id;
  return out;
}

Registry::Outcome Registry::on_preflight(Id id, Time now) {
  Outcome out;
  const auto found = connections_.find(id);
  if (found == connections_.end() || found->second.greeted) return out;
  Connection& connection = found->second;
  if (now >= connection.until) {
    close(id, close_code::kFailure, kLateText, out);
    return out;
  }
  if (!connection.dialled) {
    if (!claim(id, connection, out)) return out;
    out.send_preflight = id;
  }
  connection.greeted = true;
  waiting_.erase({connection.until, id});
  out.active = id;
  return out;
}

bool Registry::on_ended(Id id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return false;
  const bool held = holder(found->second.peer) == id;
  forget(id);
  return held;
}

Registry::Outcome Registry::on_deadline(Time now) {
  Outcome out;
  while (!waiting_.empty() && waiting_.begin()->first <= now)
    close(waiting_.begin()->second, close_code::kFailure, kLateText, out);
  return out;
}

std::optional<Registry::Id> Registry::holder(const EndpointId& peer) const {
  const auto slot = slots_.find(peer);
  return slot == slots_.end() ? std::nullopt : std::optional<Id>(slot->second);
}

bool Registry::is_active(Id id) const {
  const auto found = connections_.find(id);
  return found != connections_.end() && found->second.greeted;
}

}  // namespace kitsune2::iroh
