// The comparison in a round: which message follows which, and what ends it. Rules R6, R7, R10, R11, R13 of
// gossip::Rounds.
#include <gtest/gtest.h>

#include <array>
#include <string>

#include "core/gossip/round.hpp"

namespace kitsune2::gossip {
namespace {

using namespace std::chrono_literals;

const Url kPeer = Url::parse("ws://relay:1/peer").value();
const Bytes kSession = Bytes::copy_of("session");

SectorSet sectors_of(const DhtArc& arc) {
  SectorSet out;
  out.add(arc);
  return out;
}

struct ComparisonTest : ::testing::Test {
  const Timestamp wall{Timestamp::from_seconds(1'700'000'000)};
  const AgentId me{Bytes::copy_of("me")};
  SectorSet common = sectors_of(DhtArc::full());
  Rounds rounds;
  dht::DhtModel ours{wall}, theirs{wall};

  static void put(dht::DhtModel& model, std::uint32_t sector, Timestamp created_at, std::uint8_t name) {
    std::array<std::uint8_t, 32> id{};
    id.fill(name);
    ASSERT_TRUE(model.add(sector << SectorSet::kBits, created_at, ByteView(id)));
  }
  Timestamp old() const { return wall - 24h * 100; }
  Timestamp recent() const { return wall - 2h; }

  void start() { rounds.start(kPeer, kSession, {{me}, common}, {5, Timestamp{7}}, Time(1h)); }
  void accept() {
    rounds.accept(kPeer, {kSession, 1}, {{me}, sectors_of(DhtArc::full())}, common, Time(1h));
    ASSERT_NE(rounds.accepted(kPeer, kSession, Timestamp{9}), nullptr);
  }
  AnswerAccept answer(bool is_ours = false) {
    start();
    auto action = rounds.on(kPeer, AcceptSaid{kSession, common, {}, theirs.minimal(common), is_ours}, &ours);
    EXPECT_TRUE(std::holds_alternative<AnswerAccept>(action));
    return std::get<AnswerAccept>(action);
  }
  /// What the peer shows of the disc when it is asked with `shown`.
  dht::DiscSectorDetailsSnapshot details(const dht::DiscSectorsSnapshot& shown) {
    auto next = theirs.handle(shown, std::nullopt, common).value();
    return std::get<dht::DiscSectorDetailsSnapshot>(std::get<dht::SendSnapshot>(next).snapshot);
  }
  /// A round in which the disc is compared, to its end or until our ids are to be sent.
  void compare_disc(bool is_ours, bool breaks_off) {
    const auto out = answer(is_ours);
    const auto* shown = std::get_if<dht::DiscSectorsSnapshot>(&out.answer);
    ASSERT_NE(shown, nullptr);
    ASSERT_NE(rounds.on_answer(kPeer, kSession), nullptr);
    ASSERT_NE(as<NameIds>(rounds.on(kPeer, DiscDetailsSaid{kSession, details(*shown)}, &ours)), nullptr);
    if (breaks_off) {
      ASSERT_TRUE(rounds.end(kPeer, kSession));
    } else {
      ASSERT_NE(as<Completed>(rounds.on(kPeer, HashesSaid{kSession})), nullptr);
    }
  }
  /// Whether a round compares the rings although the discs differ. It breaks off after our answer, which is NO_DIFF
  /// unless `compares`.
  bool are_rings_first(bool is_ours, bool compares = true) {
    const auto out = answer(is_ours);
    EXPECT_NE(rounds.on_answer(kPeer, kSession, compares), nullptr);
    EXPECT_TRUE(rounds.end(kPeer, kSession));
    return out.disc_differs;
  }
  template <class T>
  static const T* as(const Action& action) {
    return std::get_if<T>(&action);
  }
};

TEST_F(ComparisonTest, WhereNothingDiffersAllOfTheCommonSectorsAreInSync) {
  put(ours, 3, old(), 1);
  put(theirs, 3, old(), 1);
  common = sectors_of(DhtArc(0, (1U << 25) - 1));
  const auto out = answer();
  EXPECT_EQ(out.in_sync, common);
  ASSERT_NE(std::get_if<AnswerAccept::NoDiff>(&out.answer), nullptr);
  EXPECT_FALSE(std::get<AnswerAccept::NoDiff>(out.answer).cannot_compare);
}

TEST_F(ComparisonTest, WithoutAModelOrWithAnotherLayoutItIsSaidThatNothingCanBeCompared) {
  start();
  const AcceptSaid said{kSession, common, {}, theirs.minimal(common)};
  const auto without = rounds.on(kPeer, said, nullptr);
  EXPECT_TRUE(std::get<AnswerAccept::NoDiff>(as<AnswerAccept>(without)->answer).cannot_compare);
  EXPECT_TRUE(as<AnswerAccept>(without)->in_sync.empty());
  theirs = dht::DhtModel(wall + 24h * 10);
  EXPECT_TRUE(std::get<AnswerAccept::NoDiff>(answer().answer).cannot_compare);
}

TEST_F(ComparisonTest, ADifferenceInTheDiscGoesThroughItsThreeSteps) {
  put(ours, 3, old(), 1);
  put(theirs, 4, old(), 2);
  put(theirs, 5, recent(), 3);
  const auto out = answer();
  EXPECT_TRUE(out.in_sync.empty()) << "nothing is learnt of the rings";
  const auto* shown = std::get_if<dht::DiscSectorsSnapshot>(&out.answer);
  ASSERT_NE(shown, nullptr);
  EXPECT_EQ(as<Fault>(rounds.on(kPeer, HashesSaid{kSession})) != nullptr, true) << "not yet";
  const auto action = rounds.on(kPeer, DiscDetailsSaid{kSession, details(*shown)}, &ours);
  const auto* name = as<NameIds>(action);
  ASSERT_NE(name, nullptr);
  EXPECT_TRUE(std::holds_alternative<dht::DiscSectorDetailsSnapshot>(name->snapshot));
  ASSERT_EQ(name->slices.size(), 2U) << "each side has one that the other lacks";
  EXPECT_EQ(name->slices[0].sector, 3U);
  EXPECT_EQ(name->slices[1].sector, 4U);
  const auto end = rounds.on(kPeer, HashesSaid{kSession});
  ASSERT_NE(as<Completed>(end), nullptr);
  EXPECT_FALSE(as<Completed>(end)->decline);
  EXPECT_FALSE(rounds.has_any_with(kPeer));
}

TEST_F(ComparisonTest, OfTheDiscTheAcceptorHasTheLastWord) {
  put(ours, 3, old(), 1);
  put(theirs, 4, old(), 2);
  accept();
  auto next = theirs.handle(ours.minimal(common), std::nullopt, common).value();
  const auto& disc = std::get<dht::DiscSectorsSnapshot>(std::get<dht::SendSnapshot>(next).snapshot);
  const auto action = rounds.on(kPeer, DiscSectorsSaid{kSession, {}, disc}, &ours, 0);
  const auto* show = as<ShowDisc>(action);
  ASSERT_NE(show, nullptr);
  EXPECT_EQ(show->asked_since, Timestamp{9});
  next = theirs.handle(show->snapshot, std::nullopt, common).value();
  const auto& details = std::get<dht::DiscSectorDetailsSnapshot>(std::get<dht::SendSnapshotAndIds>(next).snapshot);
  const auto last = rounds.on(kPeer, DiscDetailsResponseSaid{kSession, details}, &ours);
  ASSERT_NE(as<NameIds>(last), nullptr);
  EXPECT_TRUE(std::holds_alternative<std::monostate>(as<NameIds>(last)->snapshot));
  EXPECT_EQ(as<NameIds>(last)->slices.size(), 2U);
  EXPECT_TRUE(rounds.end(kPeer, kSession)) << "it is over when HASHES leaves";
}

TEST_F(ComparisonTest, OfTheRingsTheInitiatorHasTheLastWord) {
  put(ours, 3, recent(), 1);
  put(theirs, 4, recent(), 2);
  put(ours, 5, recent(), 3);
  put(theirs, 5, recent(), 3);
  const auto out = answer();
  const auto* shown = std::get_if<dht::RingSectorDetailsSnapshot>(&out.answer);
  ASSERT_NE(shown, nullptr);
  auto next = theirs.handle(*shown, std::nullopt, common).value();
  const auto& back = std::get<dht::RingSectorDetailsSnapshot>(std::get<dht::SendSnapshotAndIds>(next).snapshot);
  const auto action = rounds.on(kPeer, RingDetailsResponseSaid{kSession, back}, &ours);
  const auto* name = as<NameIds>(action);
  ASSERT_NE(name, nullptr);
  EXPECT_TRUE(std::holds_alternative<std::monostate>(name->snapshot));
  EXPECT_EQ(name->slices.size(), 2U);
  EXPECT_EQ(name->in_sync.count(), SectorSet::kCount - 2);
  EXPECT_TRUE(name->in_sync.test(5)) << "it was shown, and is the same";
  EXPECT_FALSE(name->in_sync.test(3) || name->in_sync.test(4));

  accept();
  const auto as_acceptor = rounds.on(kPeer, RingDetailsSaid{kSession, {}, back}, &ours);
  ASSERT_NE(as<NameIds>(as_acceptor), nullptr);
  EXPECT_TRUE(std::holds_alternative<dht::RingSectorDetailsSnapshot>(as<NameIds>(as_acceptor)->snapshot));
  EXPECT_EQ(as<NameIds>(as_acceptor)->asked_since, Timestamp{9});
  rounds.end(kPeer, kSession);  // ours is found first
  EXPECT_NE(as<Completed>(rounds.on(kPeer, HashesSaid{kSession})), nullptr);
}

/// C2 and C4 of gossip::ComparisonTurns. A stock node would claim to store what it lacks.
TEST_F(ComparisonTest, RoundsThatBreakOffBeforeTheIdsOfThePeerGiveTheRingsNoTurn) {
  put(ours, 3, old(), 1);
  put(ours, 5, recent(), 2);
  for (int i = 0; i < 5; ++i) compare_disc(false, true);
  for (std::uint32_t i = 0; i < ComparisonTurns::kDiscTurns; ++i) {
    EXPECT_FALSE(are_rings_first(false)) << "after " << i << " that came to their end";
    compare_disc(false, true);
    compare_disc(false, false);
  }
  EXPECT_TRUE(are_rings_first(false));
}

/// C3 and C4: a turn of the disc it was all the same.
TEST_F(ComparisonTest, WithAPeerOfOursRoundsOfTheDiscThatBreakOffAreTurns) {
  put(ours, 3, old(), 1);
  put(ours, 5, recent(), 2);
  for (std::uint32_t i = 0; i < ComparisonTurns::kDiscTurns; ++i) {
    EXPECT_FALSE(are_rings_first(true));
    compare_disc(true, true);
  }
  EXPECT_TRUE(are_rings_first(true));
  EXPECT_FALSE(are_rings_first(true));
}

/// C4. New ops were named in place of the comparison.
TEST_F(ComparisonTest, ARoundThatAnswersWithNoDiffTakesNoTurnFromTheRings) {
  put(ours, 3, old(), 1);
  put(ours, 5, recent(), 2);
  for (const bool is_ours : {false, true}) {
    rounds = Rounds();
    for (std::uint32_t i = 0; i < ComparisonTurns::kDiscTurns; ++i) compare_disc(is_ours, is_ours);
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(are_rings_first(is_ours, false)) << i;
    const std::uint32_t turns = is_ours ? 1 : ComparisonTurns::kRingTurns;  // C3, C2
    for (std::uint32_t i = 0; i < turns; ++i) EXPECT_TRUE(are_rings_first(is_ours)) << i;
    EXPECT_FALSE(are_rings_first(is_ours));
  }
}

TEST_F(ComparisonTest, AfterNoDiffInPlaceOfAComparisonNothingOfItIsExpected) {
  put(ours, 3, old(), 1);
  const auto out = answer();
  ASSERT_NE(rounds.on_answer(kPeer, kSession, false), nullptr);
  const auto shown = details(std::get<dht::DiscSectorsSnapshot>(out.answer));
  EXPECT_NE(as<Fault>(rounds.on(kPeer, DiscDetailsSaid{kSession, shown}, &ours)), nullptr);
  EXPECT_NE(as<Completed>(rounds.on(kPeer, AgentsSaid{kSession})), nullptr);
  EXPECT_EQ(rounds.on_answer(kPeer, kSession), nullptr) << "it is over";
}

TEST_F(ComparisonTest, ASnapshotOfWhatIsNotCommonEndsTheRound) {
  put(ours, 3, old(), 1);
  common = sectors_of(DhtArc(0, (1U << 25) - 1));
  const dht::CombinedHash hash(Bytes::copy_of("hash").view());
  const Timestamp boundary = ours.layout().disc_boundary();
  accept();
  EXPECT_NE(as<Fault>(rounds.on(kPeer, DiscSectorsSaid{kSession, {}, {boundary, {{4, hash}}}}, &ours, 0)), nullptr);
  EXPECT_FALSE(rounds.has_any_with(kPeer));
  accept();
  EXPECT_NE(as<Fault>(rounds.on(kPeer, RingDetailsSaid{kSession, {}, {boundary, {{0, {{4, hash}}}}}}, &ours)), nullptr);
  EXPECT_FALSE(rounds.has_any_with(kPeer));
  const auto out = answer();
  ASSERT_TRUE(std::holds_alternative<dht::DiscSectorsSnapshot>(out.answer));
  const dht::DiscSectorDetailsSnapshot after_disc{boundary, {{3, {{ours.layout().full_slices(), hash}}}}};
  EXPECT_NE(as<Fault>(rounds.on(kPeer, DiscDetailsSaid{kSession, after_disc}, &ours)), nullptr);
  EXPECT_FALSE(rounds.has_any_with(kPeer));
}

TEST_F(ComparisonTest, AgentsThatWereNotDeclaredEndIt) {
  for (int kind = 0; kind < 2; ++kind) {
    accept();
    const std::vector<Bytes> other = {Bytes::copy_of("other")};
    const auto action = kind == 0 ? rounds.on(kPeer, DiscSectorsSaid{kSession, other, {}}, &ours, 0)
                                  : rounds.on(kPeer, RingDetailsSaid{kSession, other, {}}, &ours);
    EXPECT_NE(as<Fault>(action), nullptr);
    EXPECT_FALSE(rounds.has_any_with(kPeer));
  }
}

TEST_F(ComparisonTest, WhenNothingIsLeftToCompareTheRoundEndsWell) {
  // The op came on another way meanwhile.
  put(ours, 3, old(), 1);
  accept();
  const dht::DiscSectorsSnapshot same = std::get<dht::DiscSectorsSnapshot>(
      std::get<dht::SendSnapshot>(ours.handle(theirs.minimal(common), std::nullopt, common).value()).snapshot);
  const auto action = rounds.on(kPeer, DiscSectorsSaid{kSession, {me.bytes()}, same}, &ours, 0);
  ASSERT_NE(as<Finish>(action), nullptr);
  EXPECT_TRUE(as<Finish>(action)->is_compared);
  accept();
  const auto no_model = rounds.on(kPeer, DiscSectorsSaid{kSession, {}, same}, nullptr, 0);
  EXPECT_NE(as<Finish>(no_model), nullptr);
  ASSERT_TRUE(std::holds_alternative<dht::DiscSectorsSnapshot>(answer().answer));
  put(theirs, 3, old(), 1);
  const dht::DiscSectorDetailsSnapshot details{
      ours.layout().disc_boundary(),
      std::get<dht::DiscSectorDetailsSnapshot>(
          std::get<dht::SendSnapshot>(
              ours.handle(dht::DiscSectorsSnapshot{ours.layout().disc_boundary(), {}}, std::nullopt, common).value())
              .snapshot)
          .sectors};
  const auto end = rounds.on(kPeer, DiscDetailsSaid{kSession, details}, &ours);
  ASSERT_NE(as<Completed>(end), nullptr);
  EXPECT_TRUE(as<Completed>(end)->decline);
}

TEST_F(ComparisonTest, AgentsAndTerminateEndTheComparisonWell) {
  put(ours, 3, old(), 1);
  ASSERT_TRUE(std::holds_alternative<dht::DiscSectorsSnapshot>(answer().answer));
  EXPECT_NE(as<Completed>(rounds.on(kPeer, AgentsSaid{kSession})), nullptr);
  ASSERT_TRUE(std::holds_alternative<dht::DiscSectorsSnapshot>(answer().answer));
  EXPECT_NE(as<Completed>(rounds.on(kPeer, TerminateSaid{kSession})), nullptr);
}

TEST_F(ComparisonTest, ADiscOfMoreHashesThanAMessageHoldsIsShownInParts) {
  // 512 sectors of 300 slices.
  for (std::uint32_t sector = 0; sector < SectorSet::kCount; ++sector) {
    for (int slice = 1; slice <= 300; ++slice) put(ours, sector, Timestamp{0} + slice * 512 * dht::kUnit, 1);
  }
  std::vector<SectorSet> seen;
  for (const std::uint32_t turn : {0U, 500U}) {
    accept();
    const auto action =
        rounds.on(kPeer, DiscSectorsSaid{kSession, {}, {ours.layout().disc_boundary(), {}}}, &ours, turn);
    const auto* show = as<ShowDisc>(action);
    ASSERT_NE(show, nullptr);
    std::size_t hashes = 0;
    for (const auto& [sector, slices] : show->snapshot.sectors) {
      EXPECT_EQ(slices.size(), 300U);
      hashes += slices.size();
    }
    EXPECT_LE(hashes, Rounds::kMostHashes);
    EXPECT_GT(hashes, Rounds::kMostHashes - 300);
    EXPECT_EQ(show->snapshot.sectors.contains(turn), true);
    EXPECT_EQ(show->snapshot.sectors.contains((turn + 500) % 512), false);
    rounds.end(kPeer, kSession);
  }
}

}  // namespace
}  // namespace kitsune2::gossip
