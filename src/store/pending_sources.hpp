// Which ops are to be fetched from which sources: the memory store's pending table.
#pragma once

#include <algorithm>
#include <boost/unordered/unordered_flat_map.hpp>
#include <map>
#include <utility>
#include <vector>

#include "kitsune2/ids.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::store {

/// A set of (op, source) pairs. Sources are numbered; one source of an op is in place, others are in a list beside the
/// table. add, remove_op: O(1) and the number of the op's sources. remove_source: O(n) of the table, and nothing if the
/// source has no pair. *Rationale*: ops are removed one by one, a source once in many minutes.
class PendingSources {
 public:
  bool empty() const { return ops_.empty(); }

  /// No effect if the pair exists already.
  void add(const OpId& op_id, const Url& source) {
    const auto [name, is_new] = numbers_.try_emplace(source, next_number_);
    if (is_new) {
      urls_.emplace(next_number_++, source);
    }
    const std::uint32_t number = name->second;
    const auto [it, inserted] = ops_.try_emplace(op_id, number);
    if (inserted) {
      ++pairs_[number];
      return;
    }
    if (it->second == number) return;
    auto& others = more_[op_id];
    if (std::find(others.begin(), others.end(), number) != others.end()) return;
    others.push_back(number);
    ++pairs_[number];
  }

  void remove_op(const OpId& op_id) {
    const auto it = ops_.find(op_id);
    if (it == ops_.end()) return;
    release(it->second);
    ops_.erase(it);
    if (more_.empty()) return;
    if (const auto others = more_.find(op_id); others != more_.end()) {
      for (const std::uint32_t number : others->second) release(number);
      more_.erase(others);
    }
  }

  /// No effect if the pair does not exist.
  void remove(const OpId& op_id, const Url& source) {
    const auto name = numbers_.find(source);
    const auto it = ops_.find(op_id);
    if (name == numbers_.end() || it == ops_.end()) return;
    const std::uint32_t number = name->second;
    const auto others = more_.find(op_id);
    if (it->second == number) {
      if (others == more_.end()) {
        ops_.erase(it);
      } else {
        it->second = others->second.front();
        others->second.erase(others->second.begin());
      }
    } else if (others == more_.end() || std::erase(others->second, number) == 0) {
      return;
    }
    if (others != more_.end() && others->second.empty()) more_.erase(others);
    release(number);
  }

  void remove_source(const Url& source) {
    const auto name = numbers_.find(source);
    if (name == numbers_.end()) return;
    const std::uint32_t number = name->second;
    erase_if(more_, [&](auto& entry) {
      std::erase(entry.second, number);
      return entry.second.empty();
    });
    for (auto it = ops_.begin(); it != ops_.end();) {
      if (it->second != number) {
        ++it;
      } else if (const auto others = more_.find(it->first); others != more_.end()) {
        it->second = others->second.front();
        others->second.erase(others->second.begin());
        if (others->second.empty()) more_.erase(others);
        ++it;
      } else {
        ops_.erase(it++);
      }
    }
    forget(number);
  }

  std::vector<std::pair<Url, std::vector<OpId>>> all() const {
    std::map<std::uint32_t, std::vector<OpId>> by_number;
    for (const auto& [op_id, number] : ops_) by_number[number].push_back(op_id);
    for (const auto& [op_id, others] : more_) {
      for (const std::uint32_t number : others) by_number[number].push_back(op_id);
    }
    std::vector<std::pair<Url, std::vector<OpId>>> out;
    out.reserve(by_number.size());
    for (auto& [number, op_ids] : by_number) {
      std::sort(op_ids.begin(), op_ids.end());  // the table's own order differs from run to run
      out.emplace_back(urls_.at(number), std::move(op_ids));
    }
    return out;
  }

 private:
  void release(std::uint32_t number) {
    const auto it = pairs_.find(number);
    if (--it->second == 0) forget(number);
  }
  void forget(std::uint32_t number) {
    pairs_.erase(number);
    if (const auto it = urls_.find(number); it != urls_.end()) {
      numbers_.erase(it->second);
      urls_.erase(it);
    }
  }

  boost::unordered_flat_map<OpId, std::uint32_t, std::hash<OpId>> ops_;  ///< op -> its first source
  boost::unordered_flat_map<OpId, std::vector<std::uint32_t>, std::hash<OpId>> more_;
  boost::unordered_flat_map<Url, std::uint32_t, std::hash<Url>> numbers_;
  boost::unordered_flat_map<std::uint32_t, std::uint64_t> pairs_;  ///< source -> its pairs
  std::map<std::uint32_t, Url> urls_;
  std::uint32_t next_number_ = 0;
};

}  // namespace kitsune2::store
