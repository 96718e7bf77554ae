// The naive twin of InputBook: a list of who keeps what, in which everything is added up anew.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>

#include "kitsune2/error.hpp"
#include "model/commands.hpp"
#include "server/input_book.hpp"

namespace kitsune2::model {

class InputBookUnderTest {
 public:
  using Book = server::InputBook;

  /// Takes one step. Any bytes make a valid one.
  void step(Commands& in) {
    const Book::Id id = in.byte();
    Book::Address address{};
    address[3] = static_cast<std::uint8_t>(id % 5);  // 0: this process
    switch (in.byte() % 4) {
      case 0:
        set(id, address, 0);
        break;
      case 1:
        now_ += std::chrono::milliseconds(in.byte());
        break;
      default:
        set(id, address, std::size_t{in.byte()} * 64);
        break;
    }
    const std::size_t most = std::size_t{in.byte()} * 64;
    while (const auto chosen = book_.choose(most, random_ += 0x9e3779b97f4a7c15ULL, now_)) {
      K2_ASSERT(sum([](const One&) { return true; }) > most);
      const One& one = kept_.at(*chosen);
      // Where all are looked at, it is the heaviest; among many, one of a sample.
      if (kept_.size() <= slots::kSample) {
        for (const auto& [other_id, other] : kept_) K2_ASSERT(weight(other) <= weight(one));
      } else {
        K2_ASSERT(std::ranges::any_of(kept_, [&](const auto& other) { return weight(other.second) <= weight(one); }));
      }
      set(*chosen, one.address, 0);
      ++chosen_;
    }
    K2_ASSERT(sum([](const One&) { return true; }) <= most);
    compare();
  }

  std::size_t chosen() const { return chosen_; }

 private:
  struct One {
    Book::Address address{};
    std::size_t bytes = 0;
    Time since{};
  };

  void set(Book::Id id, Book::Address address, std::size_t bytes) {
    book_.set(id, address, bytes, now_);
    if (address == Book::Address{}) return;
    kept_.erase(id);
    if (bytes > 0) kept_[id] = {address, bytes, now_};
  }
  template <class Is>
  std::size_t sum(const Is& is) const {
    std::size_t out = 0;
    for (const auto& [id, one] : kept_) out += is(one) ? one.bytes : 0;
    return out;
  }
  std::uint64_t weight(const One& one) const {
    const auto ms = static_cast<std::uint64_t>((now_ - one.since) / std::chrono::milliseconds(1));
    return sum([&](const One& other) { return other.address == one.address; }) * (ms + 1);
  }
  void compare() const {
    book_.check_invariants();
    K2_ASSERT(book_.bytes() == sum([](const One&) { return true; }) && book_.connections() == kept_.size());
    for (const auto& [id, one] : kept_) K2_ASSERT(book_.bytes_of(id) == one.bytes);
  }

  Book book_;
  std::map<Book::Id, One> kept_;
  Time now_{std::chrono::seconds(1000)};
  std::uint64_t random_ = 1;
  std::size_t chosen_ = 0;
};

}  // namespace kitsune2::model
