// Timestamps as text.
#include "kitsune2/time.hpp"

#include <cstdio>

namespace kitsune2 {

namespace {

struct Date {
  std::int64_t year;
  int month;
  int day;
};

/// The proleptic Gregorian date of a day number counted from 1970-01-01. std::chrono's calendar ends in the year
/// 32,767; a hostile timestamp reaches the year 294,247.
Date date_of_day(std::int64_t day) {
  // Count in eras of 400 years from 0000-03-01, so that the leap day is the last of its year.
  const std::int64_t shifted = day + 719'468;
  const std::int64_t era = (shifted >= 0 ? shifted : shifted - 146'096) / 146'097;
  const std::int64_t in_era = shifted - era * 146'097;
  const std::int64_t year_of_era = (in_era - in_era / 1'460 + in_era / 36'524 - in_era / 146'096) / 365;
  const std::int64_t in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const std::int64_t march_month = (5 * in_year + 2) / 153;
  const int day_of_month = static_cast<int>(in_year - (153 * march_month + 2) / 5 + 1);
  const int month = static_cast<int>(march_month < 10 ? march_month + 3 : march_month - 9);
  return {year_of_era + era * 400 + (month <= 2 ? 1 : 0), month, day_of_month};
}

}  // namespace

std::string Timestamp::to_string() const {
  constexpr std::int64_t kDay = 86'400'000'000;
  std::int64_t day = micros / kDay;
  std::int64_t rest = micros % kDay;
  if (rest < 0) {
    rest += kDay;
    --day;
  }
  const Date date = date_of_day(day);
  const auto seconds = static_cast<int>(rest / 1'000'000);
  char text[64];
  std::snprintf(text, sizeof text, "%s%04lld-%02d-%02dT%02d:%02d:%02d.%06dZ", date.year < 0 ? "-" : "",
                static_cast<long long>(date.year < 0 ? -date.year : date.year), date.month, date.day, seconds / 3600,
                seconds / 60 % 60, seconds % 60, static_cast<int>(rest % 1'000'000));
  return text;
}

}  // namespace kitsune2
