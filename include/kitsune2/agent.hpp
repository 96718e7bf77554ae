// Agents: the members of a space, and the signed infos by which others know them.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kitsune2/arc.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// What an agent says about itself. Rust: `AgentInfo`. See docs/protocol-wire.md, "Signed agent infos".
struct AgentInfo {
  AgentId agent;
  SpaceId space;
  Timestamp created_at;
  Timestamp expires_at;
  bool is_tombstone = false;
  std::optional<Url> url;
  DhtArc storage_arc;
  friend bool operator==(const AgentInfo&, const AgentInfo&) = default;
};

/// Signs with an agent's key. Strand only. An exception counts as an error.
class Signer {
 public:
  virtual ~Signer() = default;
  /// Returns the 64-byte Ed25519 signature of `message`.
  virtual Result<Bytes> sign(const AgentInfo& info, ByteView message) = 0;
};

/// Checks signatures. Thread-safe.
class Verifier {
 public:
  virtual ~Verifier() = default;
  virtual bool verify(const AgentInfo& info, ByteView message, ByteView signature) const = 0;
};

/// The default verifier: Ed25519; the key is the agent id (32 bytes).
const Verifier& ed25519_verifier();

class AgentInfoSigned;
using AgentInfoPtr = std::shared_ptr<const AgentInfoSigned>;

/// An agent info with its signature. The signed JSON string is kept exactly as it was received. Immutable. *Rule*:
/// every object has been verified or was made by `sign`, so its signature can always be trusted.
class AgentInfoSigned {
 public:
  /// The largest accepted JSON, in bytes. The bootstrap server accepts 1024; gossip may carry more.
  static constexpr std::size_t kMaxJsonBytes = 16 * 1024;

  /// Parses and verifies the outer JSON object. Errc::malformed naming the field, Errc::bad_signature, Errc::too_large.
  /// The times are not checked here: see `is_expired`. Stricter than a JSON parser where stock nodes are, and where
  /// readers could disagree on what was signed: no key twice, no escapes in ids, times and signature. `form`: what the
  /// agent's url may be, which its dialect says.
  static Result<AgentInfoPtr> decode(std::string_view json, const Verifier& verifier = ed25519_verifier(),
                                     const UrlForm& form = url_form(Dialect::v0_2));
  /// Parses a JSON list of the above, as a bootstrap server answers it. Errc::malformed if the text is no JSON list or
  /// has more than `max_entries`; else one result for each entry, so that one bad entry does not hide the others.
  static Result<std::vector<Result<AgentInfoPtr>>> decode_list(std::string_view json, std::size_t max_entries = 1024,
                                                               const Verifier& verifier = ed25519_verifier(),
                                                               const UrlForm& form = url_form(Dialect::v0_2));
  /// Encodes `info` in the reference's key order and signs it. An empty url counts as none. Errors: the signer's;
  /// Errc::invalid_argument for an agent or space id of 0 or over 1024 bytes, or a signature that is not 64 bytes long.
  static Result<AgentInfoPtr> sign(Signer& signer, const AgentInfo& info);

  const AgentInfo& info() const { return info_; }
  const AgentInfo* operator->() const { return &info_; }
  /// The exact string that was signed.
  const std::string& inner() const { return inner_; }
  const Bytes& signature() const { return signature_; }
  /// The outer JSON, as sent to the bootstrap server and published. For a received info: exactly the bytes received.
  const std::string& encode() const { return encoded_; }
  bool is_expired(Timestamp now) const { return info_.expires_at <= now; }

 private:
  AgentInfoSigned() = default;
  AgentInfo info_;
  std::string inner_;
  Bytes signature_;
  std::string encoded_;
};

/// An agent of this node: its key and its arcs. Strand only. Rust: `LocalAgent`.
class LocalAgent : public Signer {
 public:
  virtual const AgentId& agent() const = 0;
  /// The arc that the agent claims to hold now. Gossip sets it when it has found more of the target in sync.
  virtual DhtArc cur_storage_arc() const = 0;
  virtual void set_cur_storage_arc(DhtArc arc) = 0;
  /// The arc of whole sectors that the agent wants to hold; gossip moves the storage arc towards it. With an empty one
  /// the agent takes part without storing: gossip offers it no ops. See Space::local_agent_join.
  virtual DhtArc tgt_storage_arc() const = 0;
  virtual void set_tgt_storage_arc(DhtArc arc) = 0;
  /// Sets the function that is called when the info must be signed again. It is called from within set_cur_storage_arc
  /// if the arc has changed. There is one callback; a new one replaces it.
  virtual void on_changed(std::function<void()> callback) = 0;
};

/// An agent with an Ed25519 key in memory. The key is wiped on destruction and never printed. The target arc is full
/// until it is set; the storage arc is empty until gossip or the host sets it. (In the reference the target is empty
/// too until the host sets it.)
class Ed25519LocalAgent : public LocalAgent {
 public:
  /// A fresh random key.
  static std::shared_ptr<Ed25519LocalAgent> generate();
  /// `seed` must be exactly 32 bytes long; otherwise Errc::invalid_argument.
  static Result<std::shared_ptr<Ed25519LocalAgent>> from_seed(ByteView seed);
  /// Reads the key file, or creates it (mode 0600, written atomically and synced; never replaces another file). Errors:
  /// Errc::io or Errc::disk_full, naming the path, also for a symbolic link; Errc::invalid_argument if others may read
  /// or write the file; Errc::corrupt if it does not hold a key.
  static Result<std::shared_ptr<Ed25519LocalAgent>> load_or_create(const std::string& path);

  ~Ed25519LocalAgent() override;
  const AgentId& agent() const override { return id_; }
  DhtArc cur_storage_arc() const override { return cur_; }
  void set_cur_storage_arc(DhtArc arc) override;
  DhtArc tgt_storage_arc() const override { return tgt_; }
  void set_tgt_storage_arc(DhtArc arc) override { tgt_ = arc; }
  void on_changed(std::function<void()> callback) override { changed_ = std::move(callback); }
  Result<Bytes> sign(const AgentInfo& info, ByteView message) override;

 private:
  Ed25519LocalAgent();
  struct Secret;
  std::unique_ptr<Secret> secret_;
  AgentId id_;
  DhtArc cur_;
  DhtArc tgt_ = DhtArc::full();
  std::function<void()> changed_;
};

}  // namespace kitsune2
