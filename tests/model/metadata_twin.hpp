// The metadata of pending ops kept naively: a list, of which every sum is recomputed. Also the run that feeds the same
// commands to it and to MetadataBook.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/fetch/metadata_book.hpp"
#include "model/commands.hpp"

namespace kitsune2::model {

class MetadataTwin {
 public:
  struct Entry {
    OpId op_id;
    Url source;
    Bytes metadata;
    bool is_newcomer = false;
  };

  bool keep(const OpId& op_id, const Url& source, const Bytes& metadata, bool is_newcomer) {
    if (metadata.empty() || !find(op_id, source).empty()) return true;
    const std::uint64_t cost = MetadataBook::kEntryBytes + metadata.size();
    std::uint64_t all = outside, own = 0, part = is_newcomer ? 0 : outside;
    for (const Entry& entry : entries_) {
      const std::uint64_t one = MetadataBook::kEntryBytes + entry.metadata.size();
      all += one;
      if (entry.source == source) own += one;
      if (!is_newcomer || entry.is_newcomer) part += one;
    }
    if (all + cost > MetadataBook::kMostBytes) return false;
    const std::uint64_t room = MetadataBook::kMostBytes / (is_newcomer ? MetadataBook::kNewcomersPart : 1);
    if (part + cost > room) return false;
    // A source may have become known, or another one's entries may have come to it: what it has may be of both kinds.
    const std::uint64_t others = part > own ? part - own : 0;
    if (own + cost > (room - others) / 4) return false;
    entries_.push_back({op_id, source, metadata, is_newcomer});
    return true;
  }
  Bytes find(const OpId& op_id, const Url& source) const {
    for (const Entry& entry : entries_) {
      if (entry.op_id == op_id && entry.source == source) return entry.metadata;
    }
    return {};
  }
  void forget(const OpId& op_id) {
    std::erase_if(entries_, [&](const Entry& e) { return e.op_id == op_id; });
  }
  void forget(const OpId& op_id, const Url& source) {
    std::erase_if(entries_, [&](const Entry& e) { return e.op_id == op_id && e.source == source; });
  }
  void forget_source(const Url& source) {
    std::erase_if(entries_, [&](const Entry& e) { return e.source == source; });
  }
  void move_source(const Url& old_url, const Url& new_url) {
    if (old_url == new_url) return;
    const std::vector<Entry> before = entries_;
    forget_source(old_url);
    for (Entry entry : before) {
      if (entry.source != old_url || !find(entry.op_id, new_url).empty()) continue;
      entry.source = new_url;
      entries_.push_back(entry);
    }
  }
  const std::vector<Entry>& entries() const { return entries_; }
  std::uint64_t outside = 0;

 private:
  std::vector<Entry> entries_;
};

/// The cases that runs have met, so that a test can see that none is missing.
struct MetadataCoverage {
  std::uint64_t kept = 0, repeated = 0, refused = 0, found = 0, forgotten = 0, gone = 0, moved = 0, held = 0;
};

/// Reads commands from bytes and gives them to the book and to the twin. Throws std::logic_error when they differ.
class MetadataTwinRun {
 public:
  explicit MetadataTwinRun(ByteView commands, MetadataCoverage* coverage = nullptr) : commands_(commands) {
    if (coverage != nullptr) coverage_ = coverage;
    for (int i = 0; i < 6; ++i) urls_.push_back(Url::parse("ws://h:1/peer" + std::to_string(i)).value());
    for (int i = 0; i < 12; ++i) ids_.push_back(OpId::from_text("op " + std::to_string(i)));
  }

  void run() {
    while (!commands_.is_empty()) {
      step();
      compare();
    }
  }

 private:
  /// Of sizes near the bounds, so that few entries reach them.
  static std::vector<Bytes> samples() {
    std::vector<Bytes> out;
    for (const std::size_t size : {0U, 1U, 1024U, 1U << 20U, 3U << 20U, 9U << 20U}) {
      out.emplace_back(std::string(size, 'm'));
    }
    return out;
  }
  static void check(bool ok, const char* what) {
    if (!ok) throw std::logic_error(std::string("the metadata and its twin differ: ") + what);
  }
  const Bytes& metadata() {
    static const std::vector<Bytes> all = samples();
    return all[commands_.byte() % all.size()];
  }
  const Url& url() { return urls_[commands_.byte() % urls_.size()]; }
  const OpId& id() { return ids_[commands_.byte() % ids_.size()]; }

  void step() {
    const std::uint8_t what = commands_.byte();
    if (what / 8 == 9) return hold();
    switch (what % 8) {
      case 4:
        ++coverage_->forgotten;
        return forget_op();
      case 5: {
        const OpId& op = id();
        const Url& source = url();
        book_.forget(op, source);
        return twin_.forget(op, source);
      }
      case 6: {
        const Url& source = url();
        ++coverage_->gone;
        book_.forget_source(source);
        return twin_.forget_source(source);
      }
      case 7: {
        const Url& from = url();
        const Url& to = url();
        ++coverage_->moved;
        book_.move_source(from, to);
        return twin_.move_source(from, to);
      }
      default:
        return keep();
    }
  }
  void keep() {
    const OpId& op = id();
    const Url& source = url();
    const Bytes& about = metadata();
    const bool is_newcomer = commands_.byte() % 2 == 0;
    if (!twin_.find(op, source).empty()) ++coverage_->repeated;
    const bool kept = twin_.keep(op, source, about, is_newcomer);
    check(book_.keep(op, source, about, is_newcomer) == kept, "what is kept");
    ++(kept ? coverage_->kept : coverage_->refused);
  }
  void hold() {
    twin_.outside = std::uint64_t{commands_.byte()} << 17;
    book_.set_outside(twin_.outside);
    ++coverage_->held;
  }
  void forget_op() {
    const OpId& op = id();
    const std::vector<OpId> ops{op, id()};
    book_.forget(ops);
    for (const OpId& each : ops) twin_.forget(each);
  }
  void compare() {
    book_.check_invariants();
    check(book_.entries() == twin_.entries().size(), "entries");
    std::uint64_t bytes = 0;
    for (const auto& entry : twin_.entries()) {
      // The same buffer: to compare 64 MiB after each command would take minutes.
      const Bytes found = book_.find(entry.op_id, entry.source);
      check(found.data() == entry.metadata.data() && found.size() == entry.metadata.size(), "metadata");
      bytes += MetadataBook::kEntryBytes + entry.metadata.size();
      ++coverage_->found;
    }
    check(book_.bytes() == bytes && book_.empty() == twin_.entries().empty(), "bytes");
    book_.for_each([&](const OpId& op, const Url& source) { check(!twin_.find(op, source).empty(), "a pair"); });
  }

  Commands commands_;
  MetadataCoverage own_;
  MetadataCoverage* coverage_ = &own_;
  std::vector<Url> urls_;
  std::vector<OpId> ids_;
  MetadataBook book_;
  MetadataTwin twin_;
};

}  // namespace kitsune2::model
