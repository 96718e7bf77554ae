// A node's figures as Prometheus text, and whether it is well.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "kitsune2/kitsune.hpp"

namespace kitsune2 {

/// Strand only. The op stores' figures come from their threads: they are asked every five seconds and shown as they
/// last came.
class NodeMetrics : public std::enable_shared_from_this<NodeMetrics> {
 public:
  /// `more`: text to be appended (an embedded relay's figures); may be empty. `relay`: what the node should be
  /// connected to; empty: nothing.
  NodeMetrics(Runtime& runtime, std::weak_ptr<Kitsune> kitsune, std::string relay, std::function<std::string()> more);
  ~NodeMetrics();
  void start();
  /// Asks the op store of a space that is new, so that it need not wait for the next turn.
  void ask_store(const SpaceId& space);

  /// Prometheus text exposition format, version 0.0.4.
  std::string render() const;
  /// Nothing, or what is wrong: no connection to the relay, a store that refused a write within the last minute or that
  /// has found damage within the last hour.
  std::optional<std::string> problem() const;

 private:
  void refresh();

  Runtime& runtime_;
  std::weak_ptr<Kitsune> kitsune_;
  const std::string relay_;
  std::function<std::string()> more_;
  struct Store {
    OpStoreStats stats;
    std::optional<Time> damaged_at;  ///< when damage was seen last
  };
  std::map<SpaceId, Store> stores_;
  Runtime::TimerId timer_ = 0;
};

}  // namespace kitsune2
