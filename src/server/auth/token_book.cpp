// Tokens by their digests, and the keys that their holders named. The rules are in the header.
#include "server/auth/token_book.hpp"

#include <sodium.h>

#include <algorithm>
#include <utility>

#include "kitsune2/error.hpp"

namespace kitsune2::server {
namespace {

constexpr std::size_t kRandomBytes = 16, kSealBytes = 16;

}  // namespace

struct TokenBook::Token {
  Number number = 0;
  Digest digest{};
  Address from{};
  Time since{};
  Time last_used{};
  std::uint64_t uses = 0;
  std::size_t open = 0;  // connections to the relay
  std::vector<Named*> keys;
  std::size_t rank = 0;  // in token_order_
};

struct TokenBook::Named {
  Key key{};
  Address from{};
  Time since{};
  std::uint64_t uses = 0;
  bool registered = false;
  Token* token = nullptr;
  std::size_t rank = 0;      // in key_order_
  std::size_t in_token = 0;  // in token->keys
};

TokenBook::TokenBook(bool needed, const Secret& secret, const Limits& limits)
    : needed_(needed), secret_(secret), limits_(limits) {
  K2_ASSERT(sodium_init() >= 0);
}

TokenBook::~TokenBook() { sodium_memzero(secret_.data(), secret_.size()); }

TokenBook::Digest TokenBook::digest(std::string_view token) const {
  Digest out;
  crypto_generichash(out.data(), out.size(), reinterpret_cast<const unsigned char*>(token.data()), token.size(),
                     secret_.data(), secret_.size());
  return out;
}

std::string TokenBook::issue(const std::array<std::uint8_t, kRandomBytes>& random) const {
  const Digest seal = digest({reinterpret_cast<const char*>(random.data()), random.size()});
  std::array<std::uint8_t, kRandomBytes + kSealBytes> out;
  std::copy(random.begin(), random.end(), out.begin());
  std::copy_n(seal.begin(), kSealBytes, out.begin() + kRandomBytes);
  return to_base64url(out);
}

bool TokenBook::is_sealed(std::string_view token) const {
  std::vector<std::uint8_t> raw;
  if (!from_base64url(token, raw) || raw.size() != kRandomBytes + kSealBytes) return false;
  const Digest seal = digest({reinterpret_cast<const char*>(raw.data()), kRandomBytes});
  return sodium_memcmp(seal.data(), raw.data() + kRandomBytes, kSealBytes) == 0;
}

bool TokenBook::is_good(const Token& token, Time now) const {
  return token.open > 0 || now - token.last_used < limits_.idle;
}

TokenBook::Token* TokenBook::use(std::string_view token, Time now) {
  if (token.size() > kMaxTokenBytes) return nullptr;
  const Digest wanted = digest(token);
  // The table compares digests as it likes; whoever does not know the secret cannot choose them.
  const auto it = tokens_.find(wanted);
  if (it == tokens_.end() || sodium_memcmp(it->first.data(), wanted.data(), wanted.size()) != 0) return nullptr;
  Token& found = *it->second;
  if (!is_good(found, now)) {
    forget(found);
    return nullptr;
  }
  found.last_used = now;
  ++found.uses;
  return &found;
}

bool TokenBook::admit(std::string_view token, const Address& from, Time now, std::uint64_t random) {
  if (token.empty() || token.size() > kMaxTokenBytes) return false;
  if (use(token, now) != nullptr) return true;
  if (tokens_.size() >= limits_.tokens && !make_place_for_token(from, now, random)) return false;
  auto made = std::make_unique<Token>();
  made->number = next_++;
  made->digest = digest(token);
  made->from = from;
  made->since = made->last_used = now;
  made->rank = token_order_.size();
  token_order_.push_back(made.get());
  by_number_.emplace(made->number, made.get());
  const Digest digest = made->digest;
  tokens_.emplace(digest, std::move(made));
  return true;
}

bool TokenBook::check(std::optional<std::string_view> token, Time now) {
  if (!token) return !needed_;
  return needed_ ? use(*token, now) != nullptr : is_sealed(*token);
}

TokenBook::Opened TokenBook::open(std::optional<std::string_view> token, Time now) {
  if (!needed_) return {Access::good, std::nullopt};
  if (!token) return {registered_ == 0 ? Access::none : Access::by_key, std::nullopt};
  Token* found = use(*token, now);
  if (found == nullptr) return {Access::stale, std::nullopt};
  ++found->open;
  return {Access::good, found->number};
}

void TokenBook::closed(Number token, Time now) {
  const auto it = by_number_.find(token);
  if (it == by_number_.end()) return;
  K2_ASSERT(it->second->open > 0);
  --it->second->open;
  it->second->last_used = now;
}

bool TokenBook::list(const Key& key, As as, std::string_view token, const Address& from, Time now,
                     std::uint64_t random) {
  if (!needed_) return true;
  Token* holder = use(token, now);
  if (holder == nullptr) return false;
  const bool registers = as == As::registered;
  auto made = std::make_unique<Named>();
  made->since = now;
  made->registered = registers;
  if (const auto it = keys_.find(key); it != keys_.end()) {
    Named& named = *it->second;
    ++named.uses;
    if (named.token == holder) {
      if (registers && !std::exchange(named.registered, true)) ++registered_;
      return true;
    }
    if (!make_place_in(*holder, from, random)) return false;
    made->since = named.since;
    made->uses = named.uses;
    made->registered = registers || (named.registered && is_good(*named.token, now));
    forget(named);
  } else if (!make_place_in(*holder, from, random) || !make_place_for_key(from, now, random)) {
    return false;
  }
  made->key = key;
  made->from = from;
  made->token = holder;
  made->in_token = holder->keys.size();
  made->rank = key_order_.size();
  registered_ += made->registered ? 1U : 0U;
  holder->keys.push_back(made.get());
  key_order_.push_back(made.get());
  keys_.emplace(key, std::move(made));
  return true;
}

bool TokenBook::is_listed(const Key& key, Time now) const {
  const auto it = keys_.find(key);
  return it != keys_.end() && is_good(*it->second->token, now);
}

bool TokenBook::is_registered(const Key& key, Time now) const {
  const auto it = keys_.find(key);
  return it != keys_.end() && it->second->registered && is_good(*it->second->token, now);
}

void TokenBook::forget(Named& named) {
  registered_ -= named.registered ? 1U : 0U;
  Named* last = named.token->keys.back();
  named.token->keys[named.in_token] = last;
  last->in_token = named.in_token;
  named.token->keys.pop_back();
  key_order_[named.rank] = key_order_.back();
  key_order_[named.rank]->rank = named.rank;
  key_order_.pop_back();
  keys_.erase(Key(named.key));
}

void TokenBook::forget(Token& token) {
  while (!token.keys.empty()) forget(*token.keys.back());
  token_order_[token.rank] = token_order_.back();
  token_order_[token.rank]->rank = token.rank;
  token_order_.pop_back();
  by_number_.erase(token.number);
  tokens_.erase(Digest(token.digest));
}

bool TokenBook::make_place_for_token(const Address& newcomer, Time now, std::uint64_t random) {
  prune_again(now);
  if (tokens_.size() < limits_.tokens) return true;
  Token* chosen = slots::choose_from(token_order_, newcomer, random, [](const Token& token) {
    return std::optional(slots::Slot{token.from, token.since, token.uses, false});
  });
  if (chosen == nullptr) return false;
  forget(*chosen);
  return true;
}

bool TokenBook::make_place_for_key(const Address& newcomer, Time now, std::uint64_t random) {
  if (keys_.size() < limits_.keys) return true;
  prune_again(now);
  return keys_.size() < limits_.keys || drop_key_of(key_order_, newcomer, random);
}

bool TokenBook::make_place_in(const Token& holder, const Address& newcomer, std::uint64_t random) {
  return holder.keys.size() < limits_.keys_of_token || drop_key_of(holder.keys, newcomer, random);
}

bool TokenBook::drop_key_of(const std::vector<Named*>& keys, const Address& newcomer, std::uint64_t random) {
  Named* chosen = slots::choose_from(keys, newcomer, random, [](const Named& named) {
    return std::optional(slots::Slot{named.from, named.since, named.uses, false});
  });
  if (chosen == nullptr) return false;
  forget(*chosen);
  return true;
}

/// Not for each newcomer, because it looks at all.
void TokenBook::prune_again(Time now) {
  if (now - pruned_at_ >= std::chrono::seconds(1)) prune(now);
}

void TokenBook::prune(Time now) {
  pruned_at_ = now;
  for (std::size_t i = token_order_.size(); i > 0; --i) {
    Token& token = *token_order_[i - 1];
    if (!is_good(token, now)) forget(token);
  }
}

void TokenBook::check_invariants() const {
  K2_ASSERT(tokens_.size() <= limits_.tokens && keys_.size() <= limits_.keys);
  K2_ASSERT(tokens_.size() == token_order_.size() && tokens_.size() == by_number_.size());
  K2_ASSERT(keys_.size() == key_order_.size());
  std::size_t named = 0, registered = 0;
  for (const auto& [digest, token] : tokens_) {
    K2_ASSERT(token->digest == digest && token_order_[token->rank] == token.get());
    K2_ASSERT(by_number_.at(token->number) == token.get());
    for (std::size_t i = 0; i < token->keys.size(); ++i) {
      K2_ASSERT(token->keys[i]->token == token.get() && token->keys[i]->in_token == i);
    }
    K2_ASSERT(token->keys.size() <= limits_.keys_of_token);
    named += token->keys.size();
  }
  for (const auto& [key, entry] : keys_) {
    K2_ASSERT(entry->key == key && key_order_[entry->rank] == entry.get());
    registered += entry->registered ? 1U : 0U;
  }
  K2_ASSERT(named == keys_.size() && registered == registered_);
}

}  // namespace kitsune2::server
