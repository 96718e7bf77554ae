// Keeps what publishers have said about pending ops. The rules are in the header.
#include "core/fetch/metadata_book.hpp"

#include <algorithm>
#include <utility>

#include "kitsune2/error.hpp"

namespace kitsune2 {

bool MetadataBook::keep(const OpId& op_id, const Url& source, const Bytes& metadata, bool is_newcomer) {
  if (metadata.empty()) return true;
  const auto known = sources_.find(source);
  if (known != sources_.end() && known->second.entries.contains(op_id)) return true;
  const std::uint64_t cost = cost_of(metadata);
  const std::uint64_t own = known == sources_.end() ? 0 : known->second.bytes;
  const std::uint64_t room = is_newcomer ? kMostBytes / kNewcomersPart : kMostBytes;
  const std::uint64_t all = bytes() + outside_bytes_;
  const std::uint64_t taken = is_newcomer ? newcomers_bytes_ : all;
  const std::uint64_t others = taken - std::min(own, taken);
  if (all + cost > kMostBytes || taken + cost > room || own + cost > (room - std::min(others, room)) / 4) {
    return false;
  }
  insert(op_id, sources_.try_emplace(source).first, metadata, is_newcomer);
  return true;
}

void MetadataBook::insert(const OpId& op_id, Sources::iterator source, Bytes metadata, bool is_newcomer) {
  auto& holders = holders_[op_id];
  const auto entry = source->second.entries.try_emplace(op_id).first;
  entry->second = Entry{std::move(metadata), is_newcomer, &source->first, holders.size()};
  holders.push_back(&entry->second);
  const std::uint64_t cost = cost_of(entry->second.metadata);
  source->second.bytes += cost;
  (is_newcomer ? newcomers_bytes_ : known_bytes_) += cost;
}

/// Leaves a source that has become empty to the caller.
void MetadataBook::erase(Sources::iterator source, Entries::iterator entry) {
  const std::uint64_t cost = cost_of(entry->second.metadata);
  source->second.bytes -= cost;
  (entry->second.is_newcomer ? newcomers_bytes_ : known_bytes_) -= cost;
  const auto holders = holders_.find(entry->first);
  const std::size_t at = entry->second.at;
  holders->second[at] = holders->second.back();
  holders->second[at]->at = at;
  holders->second.pop_back();
  if (holders->second.empty()) holders_.erase(holders);
  source->second.entries.erase(entry);
}

Bytes MetadataBook::find(const OpId& op_id, const Url& source) const {
  const auto known = sources_.find(source);
  if (known == sources_.end()) return {};
  const auto entry = known->second.entries.find(op_id);
  return entry == known->second.entries.end() ? Bytes() : entry->second.metadata;
}

void MetadataBook::forget(const OpId& op_id) {
  for (auto holders = holders_.find(op_id); holders != holders_.end(); holders = holders_.find(op_id)) {
    forget(op_id, Url(*holders->second.back()->source));
  }
}

void MetadataBook::forget(const OpId& op_id, const Url& source) {
  const auto known = sources_.find(source);
  if (known == sources_.end()) return;
  const auto entry = known->second.entries.find(op_id);
  if (entry != known->second.entries.end()) erase(known, entry);
  if (known->second.entries.empty()) sources_.erase(known);
}

void MetadataBook::forget(std::span<const OpId> op_ids) {
  if (empty()) return;
  for (const OpId& id : op_ids) forget(id);
}

void MetadataBook::forget(std::span<const OpId> op_ids, const Url& source) {
  if (empty()) return;
  for (const OpId& id : op_ids) forget(id, source);
}

void MetadataBook::forget_source(const Url& source) {
  const auto known = sources_.find(source);
  if (known == sources_.end()) return;
  while (!known->second.entries.empty()) erase(known, known->second.entries.begin());
  sources_.erase(known);
}

void MetadataBook::move_source(const Url& old_url, const Url& new_url) {
  if (old_url == new_url || !sources_.contains(old_url)) return;
  const auto to = sources_.try_emplace(new_url).first;
  const auto from = sources_.find(old_url);
  while (!from->second.entries.empty()) {
    const auto entry = from->second.entries.begin();
    const OpId op_id = entry->first;
    Bytes metadata = entry->second.metadata;
    const bool is_newcomer = entry->second.is_newcomer;
    erase(from, entry);
    if (!to->second.entries.contains(op_id)) insert(op_id, to, std::move(metadata), is_newcomer);
  }
  sources_.erase(from);
}

std::size_t MetadataBook::entries() const {
  std::size_t out = 0;
  for (const auto& [url, source] : sources_) out += source.entries.size();
  return out;
}

void MetadataBook::check_invariants() const {
  std::uint64_t known = 0, newcomers = 0;
  std::size_t count = 0;
  for (const auto& [url, source] : sources_) {
    K2_ASSERT(!source.entries.empty());
    std::uint64_t own = 0;
    for (const auto& [op_id, entry] : source.entries) {
      K2_ASSERT(!entry.metadata.empty() && entry.source == &url);
      K2_ASSERT(holders_.at(op_id).at(entry.at) == &entry);
      (entry.is_newcomer ? newcomers : known) += cost_of(entry.metadata);
      own += cost_of(entry.metadata);
      ++count;
    }
    K2_ASSERT(own == source.bytes);
  }
  std::size_t held = 0;
  for (const auto& [op_id, holders] : holders_) {
    K2_ASSERT(!holders.empty());
    held += holders.size();
  }
  K2_ASSERT(known == known_bytes_ && newcomers == newcomers_bytes_ && held == count);
  K2_ASSERT(bytes() <= kMostBytes && newcomers <= kMostBytes / kNewcomersPart);
}

}  // namespace kitsune2
