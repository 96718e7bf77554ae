// The QUIC connections of one endpoint: finding them by name, turns, bounds.
#include "transport/quic/endpoint.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace kitsune2::quic {
namespace {

/// A relay takes a batch as one message: on a slow line what is urgent, such as a ping, waits for the end of it. A
/// socket takes up to 65,507 bytes in one call, and loses what is too much.
std::size_t most_segments(Lane lane) { return lane == Lane::direct ? 44 : Connection::kMaxSegments; }

}  // namespace

Result<Endpoint::Id> Endpoint::dial(const Key& peer, Time now) {
  if (entries_.size() >= limits_.max_connections) return make_error(Errc::overloaded, "too many connections");
  Result<std::unique_ptr<Connection>> made = Connection::dial(own_, config_, random_, peer, now);
  if (!made) return made.error();
  return add(std::move(*made), peer, false);
}

Endpoint::Id Endpoint::add(std::unique_ptr<Connection> connection, const Key& peer, bool incoming) {
  const Id id = ++last_;
  Entry& entry = entries_[id];
  entry.connection = std::move(connection);
  entry.peer = peer;
  if (incoming) {
    entry.shaking = true;
    handshakes_.insert(id);
    ++handshakes_of_[peer];
  }
  update(id, entry, false);
  return id;
}

void Endpoint::accept(const Key& from, ByteView datagram, Time now) {
  if (entries_.size() >= limits_.max_connections) return;
  const auto of_peer = handshakes_of_.find(from);
  if (of_peer != handshakes_of_.end() && of_peer->second >= limits_.max_handshakes_per_peer) return;
  if (!may_open(from, now)) return;
  if (handshakes_.size() >= limits_.max_handshakes) {
    const Id oldest = *handshakes_.begin();
    Entry& entry = entries_.at(oldest);
    entry.connection->close(0, "too many handshakes", now);
    update(oldest, entry, true);
  }
  Result<std::unique_ptr<Connection>> made = Connection::accept(own_, config_, random_, from, datagram, now);
  if (!made) return;
  const Id id = add(std::move(*made), from, true);
  Entry& entry = entries_.at(id);
  entry.connection->receive(datagram, now);
  update(id, entry, true);
  bound_libraries(now);
}

bool Endpoint::may_open(const Key& from, Time now) {
  const auto place_in = [&](auto& table, const auto& who) -> Time& {
    if (table.size() >= kMostOpenings) std::erase_if(table, [&](const auto& one) { return one.second <= now; });
    if (table.size() >= kMostOpenings) table.clear();
    return table[who];
  };
  const auto may = [&](Time whole, std::size_t burst, Duration every) {
    return std::max(whole, now) + every <= now + static_cast<Duration::rep>(burst) * every;
  };
  Time& of_peer = place_in(openings_, from);
  if (!may(of_peer, limits_.opening_burst, limits_.opening_every)) return false;
  if (const auto group = group_of_ ? group_of_(from) : std::nullopt) {
    Time& of_group = place_in(openings_of_group_, *group);
    if (!may(of_group, limits_.group_opening_burst, limits_.group_opening_every)) return false;
    of_group = std::max(of_group, now) + limits_.group_opening_every;
  }
  of_peer = std::max(of_peer, now) + limits_.opening_every;
  return true;
}

/// The connection that gets the datagram; none: it was dropped, or has opened one.
Endpoint::Receiver Endpoint::receiver(const Key& from, ByteView datagram, Time now) {
  const std::optional<Addressed> addressed = addressed_to(datagram);
  if (!addressed) return {};
  const auto found = names_.find(addressed->name);
  if (found == names_.end()) {
    if (addressed->opening) accept(from, datagram, now);
    return {};
  }
  Entry& entry = entries_.at(found->second);
  return entry.peer == from ? Receiver{found->second, &entry} : Receiver();
}

Endpoint::Receiver Endpoint::receiver_from_anywhere(ByteView datagram) {
  const std::optional<Addressed> addressed = addressed_to(datagram);
  if (!addressed || addressed->opening) return {};
  const auto found = names_.find(addressed->name);
  if (found == names_.end()) return {};
  Entry& entry = entries_.at(found->second);
  return hears_anywhere(entry) ? Receiver{found->second, &entry} : Receiver();
}

bool Endpoint::hears_anywhere(const Entry& entry) {
  return entry.anywhere && !entry.released && entry.connection->is_open();
}

/// Most datagrams that come together are for one connection: what they have changed is taken in once. `on_received` is
/// told what each has brought.
template <typename Choose, typename OnReceived>
std::optional<Endpoint::Id> Endpoint::receive_each(ByteView content, std::size_t segment_bytes, Time now,
                                                   Choose&& choose, OnReceived&& on_received) {
  std::optional<Id> last;
  Receiver before;
  const auto finish = [&] {
    if (before.entry != nullptr) update(before.id, *before.entry, true);
    before = {};
  };
  for (std::size_t at = 0; at < content.size();) {
    const ByteView datagram = content.subspan(at, std::min(segment_bytes, content.size() - at));
    at += datagram.size();
    const Receiver receiver = choose(datagram);
    if (receiver.id != before.id) finish();
    if (receiver.entry == nullptr) continue;
    const Connection& connection = *receiver.entry->connection;
    const std::uint64_t before_it = connection.progress();
    receiver.entry->connection->receive(datagram, now);
    on_received(receiver, connection.progress() - before_it);
    update_names(receiver.id, *receiver.entry);
    before = receiver;
    last = receiver.id;
  }
  finish();
  bound_libraries(now);
  return last;
}

void Endpoint::receive(const Key& from, ByteView content, std::size_t segment_bytes, Time now) {
  receive_each(
      content, segment_bytes, now, [&](ByteView datagram) { return receiver(from, datagram, now); },
      [](const Receiver&, std::uint64_t) {});
}

std::optional<Endpoint::Id> Endpoint::receive_from_anywhere(ByteView content, std::size_t segment_bytes, Time now) {
  return receive_each(
      content, segment_bytes, now,
      [&](ByteView datagram) {
        const Receiver out = receiver_from_anywhere(datagram);
        if (out.entry == nullptr) ++for_nobody_;
        return out;
      },
      [&](const Receiver& receiver, std::uint64_t progress) { count(receiver, progress); });
}

void Endpoint::count(const Receiver& receiver, std::uint64_t progress) {
  Came& came = receiver.entry->came;
  came.brought += progress;
  if (progress == 0 && came.useless++ == 0) with_useless_.push_back(receiver.id);
}

Endpoint::Useless Endpoint::take_useless() {
  Useless out;
  out.for_nobody = std::exchange(for_nobody_, 0);
  for (const Id id : std::exchange(with_useless_, {})) {
    const auto found = entries_.find(id);
    if (found != entries_.end()) out.of_connections.emplace(id, std::exchange(found->second.came, {}));
  }
  return out;
}

void Endpoint::count_library(Entry& entry, std::size_t bytes) {
  library_bytes_ = library_bytes_ - std::exchange(entry.library_bytes, bytes) + bytes;
}

void Endpoint::bound_libraries(Time now) {
  while (library_bytes_ > limits_.max_library_bytes) {
    const auto largest = std::ranges::max_element(
        entries_, {}, [](const auto& entry) { return entry.second.connection->received_library_bytes(); });
    if (largest->second.connection->closed()) return;  // what is left is of no open connection
    largest->second.connection->close(0, "QUIC needs too much memory", now);
    update(largest->first, largest->second, true);
  }
}

void Endpoint::listen_anywhere(Id id, bool on) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  found->second.anywhere = on;
  ++names_version_;
}

std::vector<ConnectionName> Endpoint::names_from_anywhere(Id id) const {
  const auto found = entries_.find(id);
  if (found == entries_.end() || !hears_anywhere(found->second)) return {};
  return found->second.names;
}

void Endpoint::set_lane(Id id, Lane lane, std::size_t datagram_bytes) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  entry.datagram_bytes = datagram_bytes;
  if (entry.lane == lane) return;
  const Time deadline = entry.deadline;
  set_deadline(id, entry, Time::max());
  entry.lane = lane;
  set_deadline(id, entry, deadline);
  take_turn(id, entry);
}

void Endpoint::take_turn(Id id, Entry& entry) {
  if (std::exchange(entry.in_turn[index(entry.lane)], true)) return;
  turns_[index(entry.lane)].push_back(id);
}

void Endpoint::update_names(Id id, Entry& entry) {
  for (const Connection::NameChange& change : entry.connection->take_name_changes()) {
    if (entry.anywhere) ++names_version_;
    if (change.added) {
      // A name that another connection has is not taken from it.
      if (names_.emplace(change.name, id).second) entry.names.push_back(change.name);
    } else if (std::erase(entry.names, change.name) != 0) {
      names_.erase(change.name);
    }
  }
}

void Endpoint::update(Id id, Entry& entry, bool changed) {
  update_names(id, entry);
  if (entry.shaking && (entry.connection->is_open() || entry.connection->closed())) end_handshake(id, entry);
  count_library(entry, entry.connection->library_bytes());
  take_turn(id, entry);
  if (changed && !entry.changed && !entry.released) {
    entry.changed = true;
    changed_.push_back(id);
  }
  set_deadline(id, entry, entry.connection->next_deadline());
}

void Endpoint::end_handshake(Id id, Entry& entry) {
  entry.shaking = false;
  handshakes_.erase(id);
  const auto of_peer = handshakes_of_.find(entry.peer);
  if (--of_peer->second == 0) handshakes_of_.erase(of_peer);
}

void Endpoint::set_deadline(Id id, Entry& entry, Time at) {
  if (at == entry.deadline) return;
  auto& deadlines = deadlines_[index(entry.lane)];
  deadlines.erase({entry.deadline, id});
  entry.deadline = at;
  if (at != Time::max()) deadlines.emplace(at, id);
}

std::optional<Endpoint::Output> Endpoint::produce(Time now, Lane lane) {
  std::deque<Id>& turns = turns_[index(lane)];
  while (!turns.empty()) {
    const Id id = turns.front();
    turns.pop_front();
    const auto found = entries_.find(id);
    if (found == entries_.end()) continue;
    Entry& entry = found->second;
    bool& in_turn = entry.in_turn[index(lane)];
    in_turn = false;
    if (entry.lane != lane) continue;
    const bool was_over = entry.connection->closed().has_value();
    std::optional<Batch> batch = entry.connection->produce(now, most_segments(lane), entry.datagram_bytes);
    if (!batch) {
      // Nothing more until the connection is touched again; what was sent may be news for the owner.
      const bool ended = !was_over && entry.connection->closed().has_value();
      in_turn = true;  // so that it does not get another turn
      update(id, entry, ended || entry.connection->has_sent());
      in_turn = false;
      continue;
    }
    update(id, entry, entry.connection->has_sent());
    return Output{id, entry.peer, std::move(*batch)};
  }
  return std::nullopt;
}

Time Endpoint::next_deadline(Lane lane) const {
  const auto& deadlines = deadlines_[index(lane)];
  return deadlines.empty() ? Time::max() : deadlines.begin()->first;
}

void Endpoint::on_deadline(Time now) {
  // Each due connection once: one whose deadline stays in the past must not keep us here.
  std::vector<Id> due;
  for (const auto& deadlines : deadlines_) {
    for (const auto& [at, id] : deadlines) {
      if (at > now) break;
      due.push_back(id);
    }
  }
  for (const Id id : due) {
    Entry& entry = entries_.at(id);
    entry.connection->on_deadline(now);
    if (entry.released && entry.connection->is_finished(now)) {
      erase(id);
    } else {
      update(id, entry, true);
    }
  }
}

std::optional<Endpoint::Id> Endpoint::next_changed() {
  while (!changed_.empty()) {
    const Id id = changed_.front();
    changed_.pop_front();
    const auto found = entries_.find(id);
    if (found == entries_.end()) continue;
    found->second.changed = false;
    if (!found->second.released) return id;
  }
  return std::nullopt;
}

Connection* Endpoint::find(Id id) {
  const auto found = entries_.find(id);
  return found == entries_.end() || found->second.released ? nullptr : found->second.connection.get();
}

const Key& Endpoint::peer_of(Id id) const {
  const auto found = entries_.find(id);
  K2_ASSERT(found != entries_.end());
  return found->second.peer;
}

void Endpoint::touched(Id id) {
  const auto found = entries_.find(id);
  if (found != entries_.end()) update(id, found->second, false);
}

void Endpoint::release(Id id, Time now) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  entry.connection->close(0, "", now);
  entry.connection->forget_unread();
  entry.released = true;
  if (entry.connection->is_finished(now)) {
    erase(id);
    return;
  }
  update(id, entry, false);
}

void Endpoint::erase(Id id) {
  const auto found = entries_.find(id);
  Entry& entry = found->second;
  if (entry.shaking) end_handshake(id, entry);
  deadlines_[index(entry.lane)].erase({entry.deadline, id});
  for (const ConnectionName& name : entry.names) names_.erase(name);
  count_library(entry, 0);
  entries_.erase(found);
}

}  // namespace kitsune2::quic
