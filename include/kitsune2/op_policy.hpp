// The host's rules for ops: their ids, and which of them are valid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"

namespace kitsune2 {

/// An op with its id. Rust: `MetaOp`.
struct MetaOp {
  OpId op_id;
  Bytes op_data;
  friend bool operator==(const MetaOp&, const MetaOp&) = default;
};

/// An op as the DHT model sees it, ordered by (created_at, op_id). Rust: `StoredOp`.
struct StoredOp {
  Timestamp created_at;
  OpId op_id;
  friend auto operator<=>(const StoredOp&, const StoredOp&) = default;
};

/// A single op to be published, with the host's metadata. Rust: `PublishOp`.
struct PublishOp {
  OpId op_id;
  /// Opaque to this library. It goes with the id to each peer to which the op is published, and there, when the op is
  /// fetched from this node, to the policy (`OpPolicy::judge_incoming`) and the store (`OpStore::store_incoming_ops`).
  /// It is neither stored here nor passed on by others, and gossip does not carry it. Empty: none.
  Bytes metadata = {};
  friend bool operator==(const PublishOp&, const PublishOp&) = default;
};

/// The largest message that a transport accepts unless configured otherwise: the default of
/// `tx5Transport.messageSizeMax`.
inline constexpr std::uint64_t kDefaultMaxMessageBytes = 64U << 20;
/// The largest op that fits into a message of `message_bytes`. An op is never split, so a larger one could be stored
/// but never sent. The difference leaves room for the frames and the longest space id (1,024 bytes).
constexpr std::uint64_t largest_op_bytes(std::uint64_t message_bytes) {
  constexpr std::uint64_t kAround = 2048;
  return message_bytes > kAround ? message_bytes - kAround : 0;
}
inline constexpr std::uint64_t kDefaultMaxOpBytes = largest_op_bytes(kDefaultMaxMessageBytes);

/// What the host derives from the bytes of an op.
struct OpDescription {
  OpId op_id;
  Timestamp created_at;
};

/// An op that was fetched, on its way to the store. Rust: `IncomingOp`.
struct IncomingOp {
  OpDescription description;
  Bytes op_data;
  /// What the peer that has sent the op had published with its id; empty: nothing.
  Bytes metadata;
};

/// The host's rules for ops: computes id and creation time from the bytes, says whether they are valid, and where an id
/// is on the ring. Pure and thread-safe: called on the strand and on store threads. If `describe` throws, the op is
/// refused (Errc::internal with the exception's message). The same bytes must always give the same answer, on every
/// node: stores use it to check what they read from the disk, and drop ops that no longer have their id.
class OpPolicy {
 public:
  virtual ~OpPolicy() = default;
  /// Errc::malformed or Errc::too_large for bytes that are not a valid op.
  virtual Result<OpDescription> describe(ByteView op_data) const = 0;
  /// The location of an op on the ring, computed from its id alone, because stores look up ids by location. Default:
  /// the reference's, the XOR of the id's groups of four bytes.
  virtual std::uint32_t location(ByteView op_id) const noexcept { return dht_location(op_id); }
  /// Whether an op that was fetched may be stored, which `describe` has accepted. `metadata`: what the peer that sent
  /// it had published with its id; empty if nothing (it came by gossip, the dialect has none, there was no room for
  /// more, or this node was restarted). The store and the listeners get exactly this metadata. An error refuses the op
  /// from this peer: it is counted (`FetchEvents::ops_invalid`) and not requested from the peer again, unless it is
  /// named anew; other peers that have named it are asked. Nothing else happens to the peer, which did what it was
  /// asked to. Called on the strand, once for each op that was asked for and would be stored; with
  /// `coreFetch.acceptUnsolicited` also for the others that come, mostly without metadata. The op's bytes and id do not
  /// depend on it. Default: every op may.
  virtual Result<void> judge_incoming(const OpDescription& /*op*/, ByteView /*op_data*/, ByteView /*metadata*/) const {
    return {};
  }
  /// A stable name, kept in the database so that a store is not opened with another policy: "sha256", "memory-op". It
  /// identifies the whole policy: one with other ids, times or locations needs another name.
  virtual std::string_view name() const = 0;
};

/// id: SHA-256 of the bytes. created_at: 1970, unless the bytes start with a `k2op` envelope
/// (docs/store-format.md).
std::shared_ptr<const OpPolicy> make_sha256_policy(std::size_t max_op_bytes = kDefaultMaxOpBytes);
/// The stock test op of kitsune2_core. Bytes: JSON {"created_at":<µs>,"op_data":[<u8>…]}. id: the first 32 bytes of
/// op_data, zero-padded. At most kDefaultMaxOpBytes. For use with nodes that have kitsune2_core's memory op store.
std::shared_ptr<const OpPolicy> make_memory_op_policy();
/// id: the first 32 bytes of the op, zero-padded. created_at: 1970. No checks. For tests and benchmarks only.
std::shared_ptr<const OpPolicy> make_prefix_policy();

}  // namespace kitsune2
