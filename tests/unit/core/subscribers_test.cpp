// Lists of listeners.
#include "core/subscribers.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <string>

namespace kitsune2 {
namespace {

using Listener = std::function<void(const std::string&)>;

struct SubscribersTest : ::testing::Test {
  void tell(const std::string& what) {
    list.tell([&](const Listener& listener) { listener(what); });
  }
  Listener note(const std::string& name) {
    return [this, name](const std::string& what) { heard += name + what + " "; };
  }
  Subscribers<Listener> list;
  std::string heard;
};

TEST_F(SubscribersTest, AllHearInTheOrderOfSubscribingUntilTheirTokenGoes) {
  tell("0");
  auto a = list.add(note("a")), b = list.add(note("b")), c = list.add(note("c"));
  tell("1");
  b.reset();
  tell("2");
  EXPECT_EQ(heard, "a1 b1 c1 a2 c2 ");
}

TEST_F(SubscribersTest, AListenerThatIsDroppedMeanwhileHearsNothingMore) {
  std::shared_ptr<void> b;
  auto a = list.add([&](const std::string&) { b.reset(); });
  b = list.add(note("b"));
  tell("1");
  EXPECT_EQ(heard, "");
}

TEST_F(SubscribersTest, AListenerMayDropItselfAndWhatItHoldsLivesAsLongAsItsCall) {
  std::shared_ptr<void> a;
  const auto held = std::make_shared<std::string>("held");
  a = list.add([this, &a, held](const std::string&) {
    a.reset();
    list.add(note("x"));  // removes the entries that have ended
    heard += *held;
  });
  tell("1");
  EXPECT_EQ(heard, "held");
  EXPECT_EQ(held.use_count(), 1) << "and no longer";
}

TEST_F(SubscribersTest, ASubscriberAddedDuringAnEventHearsOfTheNext) {
  std::shared_ptr<void> b;
  auto a = list.add([&](const std::string&) {
    if (!b) b = list.add(note("b"));
  });
  tell("1");
  tell("2");
  EXPECT_EQ(heard, "b2 ");
}

}  // namespace
}  // namespace kitsune2
