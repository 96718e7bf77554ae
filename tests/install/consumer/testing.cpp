// An application's own test, in virtual time, with kitsune2::testing.
#include <iostream>

#include <kitsune2/kitsune2.hpp>
#include <kitsune2/testing/sim_runtime.hpp>

int main() {
  kitsune2::testing::SimWorld world(1);
  auto runtime = world.make_runtime();
  bool ran = false;
  runtime->schedule_after(std::chrono::hours(1), [&] { ran = true; });
  world.run_for(std::chrono::hours(2));
  std::cout << (ran ? "an hour passed\n" : "no time passed\n");
  return ran ? 0 : 1;
}
