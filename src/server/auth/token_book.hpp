// Which tokens are good, and which keys their holders have named. Pure: it is told the time and a random number.
#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/slots/slots.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"
#include "transport/iroh/relay_frames.hpp"

namespace kitsune2::server {

/// The tokens of a server whose clients authenticate themselves to a hook server; or, without one, those that anyone
/// gets who asks. The counterparts in Rust are AuthTokenTracker, RelayConnTracker and RelayAllowlist of
/// kitsune2_bootstrap_srv 0.5.3.
///
/// *Rules*.
///  K1  Without a hook server no token is needed, but one that is presented must have been given by `issue`. Such a
///      token is 16 random bytes and their seal under the book's secret. *Rationale*: everybody gets them, so nothing
///      is remembered of them, and nobody can fill the book. They stay good until the book ends (the reference's end
///      after five minutes without use).
///  K2  With a hook server a token is needed, and only those are good that the hook server has given (`admit`). One
///      ends `idle` after its last use. Each check renews it, and it does not end while a connection to the relay
///      that it opened lives.
///  K3  Of a token only its digest under the book's secret is kept, and digests are compared in constant time.
///      *Rationale*: how long an answer takes tells nothing about a token, and the book has none that could be read.
///  K4  The holder of a good token can name keys. A key stays on the list as long as the token that named it last is
///      good. *Rationale*: a stock node presents the token of its start for ever, and comes back with one that has
///      ended; it tells its key every two minutes with a token that it renews.
///  K5  There are at most `tokens` and `keys`, and `keys_of_token` of one token. When all places are taken, a newcomer
///      gets the place of another one of its kind, by slots::choose; the number of uses counts as the use. A key that
///      is one too many for its token gets the place of another key of that token. *Rationale*: whoever passes the
///      hook server may ask for tokens without end, and come from many addresses.
///  K6  A key that was registered is on the list, and opens the relay also for a client that presents no token. It
///      stays registered as long as it is on the list, also when it is named otherwise. *Rationale*: a stock node of
///      0.4.1 registers its key with a token and connects without one. Who kept a key alive presents a token, and is
///      refused without one, as by the reference 0.5.3. Otherwise one client could end the other one's registration.
/// Calls are O(1), but O(n) in the keys of a token that ends, and O(n²) in the sample of slots::choose when all places
/// are taken. Thread rule: one thread.
class TokenBook {
 public:
  using Address = slots::Address;
  using Key = kitsune2::iroh::EndpointId;
  using Secret = std::array<std::uint8_t, 32>;
  /// The number of a token. They are not used again.
  using Number = std::uint64_t;

  static constexpr Duration kIdleLimit = std::chrono::minutes(5);
  /// A longer one is not good, whoever gave it.
  static constexpr std::size_t kMaxTokenBytes = 4096;

  struct Limits {
    std::size_t tokens = 65'536;
    std::size_t keys = 65'536;
    std::size_t keys_of_token = 16'384;
    Duration idle = kIdleLimit;
  };

  /// `needed`: there is a hook server. `secret`: random bytes.
  TokenBook(bool needed, const Secret& secret, const Limits& limits);
  TokenBook(bool needed, const Secret& secret) : TokenBook(needed, secret, Limits()) {}
  ~TokenBook();
  TokenBook(const TokenBook&) = delete;
  TokenBook& operator=(const TokenBook&) = delete;

  /// K1. A token for whoever asks, of 43 characters. `random`: fresh random bytes.
  std::string issue(const std::array<std::uint8_t, 16>& random) const;
  /// K2. `token`: the hook server's, for a client at `from`. False: there is no place for it, so it is not good.
  /// A token that is good already is renewed.
  bool admit(std::string_view token, const Address& from, Time now, std::uint64_t random);
  /// Whether a request that presents `token` (nullopt: none) may go on. Renews it.
  bool check(std::optional<std::string_view> token, Time now);

  /// What a connection to the relay may do: all (`good`); come in if its key is on the list, because it presents a
  /// token that is not good (`stale`); come in if its key is registered, because it presents none (`by_key`);
  /// nothing, because no key is registered either.
  enum class Access { good, stale, by_key, none };
  struct Opened {
    Access access = Access::none;
    std::optional<Number> token;  ///< to be given to `closed` when the connection has ended
  };
  /// A connection to the relay presents `token`. Renews it, and holds it until `closed`.
  Opened open(std::optional<std::string_view> token, Time now);
  /// No effect if the token is gone.
  void closed(Number token, Time now);

  /// How a key is named: as a node of 0.5 does it, or as one of 0.4.1 (K6).
  enum class As { kept_alive, registered };
  /// K4. The holder of `token` names a key. False: the token is not good, or there is no place. Without a hook server
  /// it has no effect, and is true.
  bool list(const Key& key, As as, std::string_view token, const Address& from, Time now, std::uint64_t random);
  bool is_listed(const Key& key, Time now) const;
  bool is_registered(const Key& key, Time now) const;

  /// Forgets the tokens that have ended, and their keys. O(n).
  void prune(Time now);

  bool needed() const { return needed_; }
  std::size_t tokens() const { return tokens_.size(); }
  std::size_t keys() const { return keys_.size(); }
  std::size_t registered_keys() const { return registered_; }
  /// O(n), for tests.
  void check_invariants() const;

 private:
  using Digest = std::array<std::uint8_t, 32>;
  struct Token;
  struct Named;
  struct Hash {
    std::size_t operator()(const std::array<std::uint8_t, 32>& bytes) const noexcept { return keyed_hash(bytes); }
  };

  Digest digest(std::string_view token) const;
  bool is_sealed(std::string_view token) const;
  bool is_good(const Token& token, Time now) const;
  /// The good token with this text, renewed; null: there is none.
  Token* use(std::string_view token, Time now);
  void forget(Token& token);
  void forget(Named& named);
  void prune_again(Time now);
  bool make_place_for_token(const Address& newcomer, Time now, std::uint64_t random);
  bool make_place_for_key(const Address& newcomer, Time now, std::uint64_t random);
  bool make_place_in(const Token& holder, const Address& newcomer, std::uint64_t random);
  bool drop_key_of(const std::vector<Named*>& keys, const Address& newcomer, std::uint64_t random);

  const bool needed_;
  Secret secret_;
  const Limits limits_;
  Number next_ = 1;
  Time pruned_at_{};
  std::size_t registered_ = 0;
  boost::unordered_flat_map<Digest, std::unique_ptr<Token>, Hash> tokens_;
  boost::unordered_flat_map<Number, Token*> by_number_;
  boost::unordered_flat_map<Key, std::unique_ptr<Named>, Hash> keys_;
  std::vector<Token*> token_order_;  // so that one can be drawn at random
  std::vector<Named*> key_order_;
};

}  // namespace kitsune2::server
