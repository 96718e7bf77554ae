// The differences between the dialects, and their names.
#include "kitsune2/dialect.hpp"

#include <gtest/gtest.h>

#include "core/gossip/dialect_rules.hpp"

namespace kitsune2 {
namespace {

constexpr Dialect kAll[] = {Dialect::v0_2, Dialect::v0_4, Dialect::v0_5};

TEST(Dialect, NamesAreReadBack) {
  for (const Dialect dialect : kAll) EXPECT_EQ(dialect_of(to_string(dialect)), dialect);
  EXPECT_EQ(to_string(Dialect::v0_2), "0.2");
  EXPECT_EQ(to_string(Dialect::v0_4), "0.4");
  EXPECT_EQ(to_string(Dialect::v0_5), "0.5");
  for (const char* name : {"", "0.3", "0.2.2", "v0_2", "0.5 "}) EXPECT_EQ(dialect_of(name), std::nullopt) << name;
}

// 0.4 has the messages of 0.2 (except for the count in gossip) over the transport of 0.5.
TEST(Dialect, FormsAndRulesAreApart) {
  struct Row {
    const char* name;
    bool (*holds)(Dialect);
    bool v0_2, v0_4, v0_5;
  };
  const Row rows[] = {
      {"op_carries_id", [](Dialect d) { return op_carries_id(d); }, false, false, true},
      {"publish_carries_metadata", [](Dialect d) { return publish_carries_metadata(d); }, false, false, true},
      {"gossip_tells_op_count", [](Dialect d) { return gossip_tells_op_count(d); }, false, true, true},
      {"takes_bursts_of_rounds", [](Dialect d) { return gossip::takes_bursts_of_rounds(d); }, false, true, true},
      {"uses_iroh", [](Dialect d) { return uses_iroh(d); }, false, true, true},
      {"url_form(...).http", [](Dialect d) { return url_form(d).http; }, false, true, true},
      {"url_form(...).relay_path", [](Dialect d) { return url_form(d).relay_path; }, false, true, true},
      {"known_peers_only", [](Dialect d) { return known_peers_only(d); }, false, true, true},
      {"one_connection_counts", [](Dialect d) { return one_connection_counts(d); }, false, false, true},
      {"dials_by_name", [](Dialect d) { return dials_by_name(d); }, false, true, false},
      {"offers_relay_v2", [](Dialect d) { return offers_relay_v2(d); }, false, false, true},
      {"close_has_code", [](Dialect d) { return close_has_code(d); }, false, false, true},
      {"close_has_text", [](Dialect d) { return close_has_text(d); }, false, true, true},
      {"refused_message_closes", [](Dialect d) { return refused_message_closes(d); }, true, false, false},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(row.holds(Dialect::v0_2), row.v0_2) << row.name;
    EXPECT_EQ(row.holds(Dialect::v0_4), row.v0_4) << row.name;
    EXPECT_EQ(row.holds(Dialect::v0_5), row.v0_5) << row.name;
  }
  EXPECT_EQ(gossip::initial_initiate_interval_ms(Dialect::v0_2), 5'000U);
  EXPECT_EQ(gossip::initial_initiate_interval_ms(Dialect::v0_4), 1'000U);
  EXPECT_EQ(gossip::initial_initiate_interval_ms(Dialect::v0_5), 1'000U);
}

}  // namespace
}  // namespace kitsune2
