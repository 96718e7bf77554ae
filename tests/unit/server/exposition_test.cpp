// Figures in Prometheus' text format.
#include "server/exposition.hpp"

#include <gtest/gtest.h>

#include <array>

namespace kitsune2::server {
namespace {

TEST(Exposition, AHistogramCountsUpToEachBound) {
  Exposition out;
  const std::array<double, 2> bounds{0.5, 2};
  out.add_histogram("k2_wait_seconds", "Waits.", "space=\"a\"", bounds, std::array<std::uint64_t, 3>{3, 1, 2}, 7.25);
  out.add_histogram("k2_wait_seconds", "Waits.", "space=\"b\"", bounds, std::array<std::uint64_t, 3>{0, 0, 0}, 0);
  EXPECT_EQ(out.str(),
            "# HELP k2_wait_seconds Waits.\n"
            "# TYPE k2_wait_seconds histogram\n"
            "k2_wait_seconds_bucket{space=\"a\",le=\"0.5\"} 3\n"
            "k2_wait_seconds_bucket{space=\"a\",le=\"2\"} 4\n"
            "k2_wait_seconds_bucket{space=\"a\",le=\"+Inf\"} 6\n"
            "k2_wait_seconds_sum{space=\"a\"} 7.25\n"
            "k2_wait_seconds_count{space=\"a\"} 6\n"
            "k2_wait_seconds_bucket{space=\"b\",le=\"0.5\"} 0\n"
            "k2_wait_seconds_bucket{space=\"b\",le=\"2\"} 0\n"
            "k2_wait_seconds_bucket{space=\"b\",le=\"+Inf\"} 0\n"
            "k2_wait_seconds_sum{space=\"b\"} 0\n"
            "k2_wait_seconds_count{space=\"b\"} 0\n");
}

}  // namespace
}  // namespace kitsune2::server
