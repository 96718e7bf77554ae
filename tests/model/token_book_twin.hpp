// The naive twin of TokenBook: a list of the tokens themselves and one of the keys, gone through each time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kitsune2/error.hpp"
#include "server/auth/token_book.hpp"

namespace kitsune2::model {

class TokensUnderTest {
 public:
  using Book = server::TokenBook;

  /// `tight`: with few places. Which of several gives up its place is the business of slots::choose; the twin only
  /// knows that it is one.
  explicit TokensUnderTest(bool tight)
      : limits_{tight ? 6U : 1000U, tight ? 6U : 1000U, tight ? 3U : 1000U}, book_(true, {7}, limits_) {}

  /// Takes one step. Any three numbers make a valid one.
  void step(std::uint8_t command, std::uint8_t what, std::uint8_t who) {
    const std::string token = "token-" + std::to_string(what % 16);
    const std::size_t before = book_.tokens();
    bool may_lose = false;
    switch (command % 9) {
      case 0:
      case 1: {
        const bool known = good(token);
        may_lose = !known && before == limits_.tokens;
        drop_ended(token);
        const bool admitted = book_.admit(token, address(who), now_, ++random_);
        K2_ASSERT(admitted || before == limits_.tokens);
        if (Token* found = find(token)) {  // renewed, or given again after it had lost its place
          found->last_used = now_;
          if (!admitted) remove(token);
        } else if (admitted) {
          tokens_.push_back({token, now_, 0});
        }
        break;
      }
      case 2:
        use(token, book_.check(token, now_));
        break;
      case 3: {
        const auto opened = book_.open(token, now_);
        use(token, opened.access == Book::Access::good);
        if (opened.token) {
          ++find(token)->open;
          open_.push_back({token, *opened.token});
        }
        break;
      }
      case 4:
        if (!open_.empty()) {
          const auto at = open_.begin() + what % static_cast<std::ptrdiff_t>(open_.size());
          book_.closed(at->number, now_);
          if (Token* found = find(at->token); found != nullptr && found->open > 0) {
            --found->open;
            found->last_used = now_;
          }
          open_.erase(at);
        }
        break;
      case 5: {
        const bool registers = (who & 16U) != 0;
        const auto as = registers ? Book::As::registered : Book::As::kept_alive;
        const bool was_registered = is_registered(key(who));
        const bool listed = book_.list(key(who), as, token, address(what), now_, ++random_);
        K2_ASSERT(!listed || good(token));
        if (!listed && limits_.tokens < 100 && good(token)) {  // there is no place, or the token has lost its own
          find(token)->last_used = now_;
          break;
        }
        use(token, listed);
        if (!listed) break;
        std::erase_if(keys_, [&](const Named& named) { return named.key == key(who); });
        keys_.push_back({key(who), token, registers || was_registered});
        break;
      }
      case 6: {
        const auto named = std::find_if(keys_.begin(), keys_.end(), [&](const Named& n) { return n.key == key(who); });
        const bool expected = named != keys_.end() && good(named->token);
        const bool listed = book_.is_listed(key(who), now_);
        K2_ASSERT(listed == expected || (!listed && limits_.tokens < 100));
        const bool registered = book_.is_registered(key(who), now_);
        K2_ASSERT(registered == is_registered(key(who)) || (!registered && limits_.tokens < 100));
        break;
      }
      case 7:
        now_ += std::chrono::seconds(what);
        break;
      case 8:
        book_.prune(now_);
        std::erase_if(tokens_, [&](const Token& t) { return !good(t.text); });
        break;
    }
    K2_ASSERT(!book_.check(std::nullopt, now_));
    const auto access = book_.open(std::nullopt, now_).access;
    const bool some = std::any_of(keys_.begin(), keys_.end(), [&](const Named& n) { return is_registered(n.key); });
    K2_ASSERT(access == Book::Access::by_key || (access == Book::Access::none && (!some || limits_.tokens < 100)));
    K2_ASSERT((access == Book::Access::by_key) == (book_.registered_keys() > 0));
    book_.check_invariants();
    if (limits_.tokens < 100) {
      K2_ASSERT(book_.tokens() <= limits_.tokens && book_.keys() <= limits_.keys);
    } else {
      K2_ASSERT(!may_lose && book_.tokens() <= tokens_.size());
    }
  }

  /// A server that is left alone holds nothing.
  void end() {
    for (const Open& open : open_) book_.closed(open.number, now_);
    now_ += Book::kIdleLimit;
    book_.prune(now_);
    K2_ASSERT(book_.tokens() == 0 && book_.keys() == 0 && book_.registered_keys() == 0);
  }

 private:
  struct Token {
    std::string text;
    Time last_used;
    std::size_t open;
  };
  struct Named {
    Book::Key key;
    std::string token;
    bool registered;
  };
  struct Open {
    std::string token;
    Book::Number number;
  };

  static Book::Address address(std::uint8_t number) {
    Book::Address out{};
    out[10] = out[11] = 0xff;
    out[12] = number % 4;
    out[15] = number % 8;
    return out;
  }
  static Book::Key key(std::uint8_t number) {
    Book::Key out{};
    out[0] = number % 16;
    return out;
  }
  Token* find(const std::string& text) {
    const auto it = std::find_if(tokens_.begin(), tokens_.end(), [&](const Token& t) { return t.text == text; });
    return it == tokens_.end() ? nullptr : &*it;
  }
  bool good(const std::string& text) {
    const Token* found = find(text);
    return found != nullptr && (found->open > 0 || now_ - found->last_used < Book::kIdleLimit);
  }
  bool is_registered(const Book::Key& key) {
    return std::any_of(keys_.begin(), keys_.end(),
                       [&](const Named& named) { return named.key == key && named.registered && good(named.token); });
  }
  void remove(const std::string& text) {
    std::erase_if(tokens_, [&](const Token& t) { return t.text == text; });
    std::erase_if(keys_, [&](const Named& named) { return named.token == text; });
    // A connection that opened with it is no longer of interest to a later token with this text.
    for (Open& open : open_) {
      if (open.token == text) open.token.clear();
    }
  }
  void drop_ended(const std::string& text) {
    if (!good(text)) remove(text);
  }
  /// The book said whether `text` is good, and has renewed it.
  void use(const std::string& text, bool is_good) {
    const bool expected = good(text);
    K2_ASSERT(is_good == expected || (!is_good && limits_.tokens < 100));
    if (is_good) find(text)->last_used = now_;
    if (!is_good) remove(text);
  }

  const Book::Limits limits_;
  Book book_;
  Time now_{std::chrono::hours(1)};
  std::uint64_t random_ = 0;
  std::vector<Token> tokens_;
  std::vector<Named> keys_;
  std::vector<Open> open_;
};

}  // namespace kitsune2::model
