// PeerStore and PeerMetaStore, memory and SQLite; the local agent store and the block list.
#include "kitsune2/peer_store.hpp"
#include "kitsune2/sqlite_store.hpp"

#include <sys/stat.h>

#include <set>

#include "store_harness.hpp"

namespace kitsune2::testing {
namespace {

constexpr std::int64_t kSecond = 1'000'000;

class PeerStores : public ::testing::TestWithParam<bool> {
 protected:
  PeerStores() { open(); }

  void open(std::size_t max_agents = 10'000, std::size_t max_entries = 100'000) {
    peers_.reset();
    meta_.reset();
    if (GetParam()) {
      auto stores =
          open_sqlite_peer_stores(w_.runtime(), space_, path_, ed25519_verifier(), max_agents, max_entries).value();
      peers_ = std::move(stores.peers);
      meta_ = std::move(stores.meta);
    } else {
      peers_ = make_memory_peer_store(w_.runtime(), space_, max_agents);
      meta_ = make_memory_peer_meta_store(w_.runtime(), max_entries);
    }
  }

  /// Agent `number` as of `age` seconds after now, at url `number`.
  AgentInfoPtr info(std::uint64_t number, DhtArc arc = DhtArc::full(), int age = 0, bool tombstone = false) {
    return AgentInfoBuilder{.space = space_,
                            .created_at = w_.now() + Duration{age * kSecond},
                            .url = peer_url(static_cast<int>(number)),
                            .storage_arc = arc,
                            .is_tombstone = tombstone}
        .sign(*make_agent(number));
  }
  AgentId id(std::uint64_t number) { return make_agent(number)->agent(); }
  std::vector<AgentInfoPtr> sorted(std::vector<AgentInfoPtr> infos) {
    std::sort(infos.begin(), infos.end(), [](auto& a, auto& b) { return a->info().agent < b->info().agent; });
    return infos;
  }
  /// The numbers of the urls, in the order given.
  static std::vector<std::string> names(const std::vector<AgentInfoPtr>& infos) {
    std::vector<std::string> out;
    for (const auto& info : infos) out.emplace_back(info->info().url->peer_id()->substr(4));
    return out;
  }
  void pass(std::int64_t seconds) { w_.set_now(w_.now() + Duration{seconds * kSecond}); }

  StoreWorld w_;
  TempDir dir_;
  std::string path_ = dir_ / "peers.db";
  SpaceId space_ = test_space();
  std::shared_ptr<PeerStore> peers_;
  std::shared_ptr<PeerMetaStore> meta_;
};

INSTANTIATE_TEST_SUITE_P(All, PeerStores, ::testing::Values(false, true),
                         [](const auto& test) { return std::string(test.param ? "sqlite" : "memory"); });

// -------------------------------------------------------------------- PeerStore

TEST_P(PeerStores, EmptyStore) {
  EXPECT_TRUE(peers_->get_all().empty());
  EXPECT_EQ(peers_->get(id(1)), nullptr);
  EXPECT_TRUE(peers_->get_by_overlapping_storage_arc(DhtArc::full()).empty());
  EXPECT_TRUE(peers_->get_near_location(0, 10).empty());
  EXPECT_TRUE(peers_->get_by_url(peer_url(1)).empty());
  peers_->remove(id(1));
  peers_->insert({});
}

TEST_P(PeerStores, GivesBackWhatWasInserted) {
  const auto a = info(1);
  const auto b = info(2);
  peers_->insert({a, b});
  EXPECT_EQ(peers_->get(id(1)), a);
  EXPECT_EQ(sorted(peers_->get_all()), sorted({a, b}));
  EXPECT_EQ(peers_->get_by_url(peer_url(2)), std::vector{b});
  peers_->remove(id(1));
  EXPECT_EQ(peers_->get(id(1)), nullptr);
  EXPECT_TRUE(peers_->get_by_url(peer_url(1)).empty());
  EXPECT_EQ(peers_->get_all(), std::vector{b});
}

TEST_P(PeerStores, TheNewestWinsInAnyOrder) {
  const auto older = info(1, DhtArc::full(), 0);
  const auto newer = info(1, DhtArc(1, 2), 10);
  const auto same_age = info(1, DhtArc(3, 4), 10);
  peers_->insert({newer});
  peers_->insert({older});
  EXPECT_EQ(peers_->get(id(1)), newer);
  peers_->insert({same_age});
  EXPECT_EQ(peers_->get(id(1)), newer);
  peers_->remove(id(1));
  peers_->insert({older, newer, older});
  EXPECT_EQ(peers_->get(id(1)), newer);
}

TEST_P(PeerStores, AnInfoFromBeforeTheClockWasSetBackKeepsNothingOut) {
  pass(24 * 3600);
  peers_->insert({info(1), info(2, DhtArc::full(), 0, true)});
  pass(-24 * 3600);
  const auto back = info(1), alive = info(2);
  peers_->insert({back, alive});
  EXPECT_EQ(peers_->get(id(1)), back);
  EXPECT_EQ(peers_->get(id(2)), alive);
  // Within what is believed of a clock the newest wins.
  const auto ahead = info(1, DhtArc(1, 2), 180);
  peers_->insert({ahead});
  peers_->insert({info(1, DhtArc(3, 4), 1)});
  EXPECT_EQ(peers_->get(id(1)), ahead);
}

TEST_P(PeerStores, ATombstoneHidesTheAgentAndKeepsOlderInfosOut) {
  peers_->insert({info(1)});
  peers_->insert({info(1, DhtArc::full(), 10, true)});
  peers_->insert({info(1, DhtArc::full(), 5)});
  EXPECT_EQ(peers_->get(id(1)), nullptr);
  EXPECT_TRUE(peers_->get_all().empty());
  EXPECT_TRUE(peers_->get_by_url(peer_url(1)).empty());
  EXPECT_TRUE(peers_->get_near_location(0, 10).empty());
  EXPECT_TRUE(peers_->get_by_overlapping_storage_arc(DhtArc::full()).empty());
  const auto back = info(1, DhtArc::full(), 20);
  peers_->insert({back});
  EXPECT_EQ(peers_->get(id(1)), back);
}

TEST_P(PeerStores, ExpiredInfosAreNeitherTakenNorGiven) {
  const auto a =
      AgentInfoBuilder{
          .space = space_, .created_at = w_.now(), .lifetime = std::chrono::seconds(10), .url = std::nullopt}
          .sign(*make_agent(1));
  const auto b =
      AgentInfoBuilder{
          .space = space_, .created_at = w_.now(), .lifetime = std::chrono::seconds(20), .url = std::nullopt}
          .sign(*make_agent(2));
  peers_->insert({a, b});
  w_.set_now(a->info().expires_at - Duration{1});
  EXPECT_EQ(peers_->get_all().size(), 2U);
  w_.set_now(a->info().expires_at);
  EXPECT_EQ(peers_->get_all(), std::vector{b});
  EXPECT_EQ(peers_->get(id(1)), nullptr);
  peers_->remove(id(2));
  w_.set_now(b->info().expires_at);
  peers_->insert({b});
  EXPECT_TRUE(peers_->get_all().empty());
}

TEST_P(PeerStores, InfosOfAnotherSpaceHaveNoEffect) {
  peers_->insert(
      {AgentInfoBuilder{.space = SpaceId::from_text("other"), .created_at = w_.now(), .url = std::nullopt}.sign(
           *make_agent(1)),
       nullptr});
  EXPECT_TRUE(peers_->get_all().empty());
}

TEST_P(PeerStores, AnInfoIsKeptFor20MinutesAtMost) {
  const auto long_lived =
      AgentInfoBuilder{
          .space = space_, .created_at = w_.now(), .lifetime = std::chrono::minutes(30), .url = peer_url(1)}
          .sign(*make_agent(1));
  peers_->insert({long_lived});
  pass(20 * 60 - 1);
  EXPECT_EQ(peers_->get(id(1)), long_lived);
  pass(1);
  EXPECT_EQ(peers_->get(id(1)), nullptr);
  peers_->insert({long_lived});
  EXPECT_EQ(peers_->get(id(1)), nullptr) << "and does not come back";
}

TEST_P(PeerStores, AFullStoreKeepsItsBound) {
  open(3);
  std::vector<AgentInfoPtr> infos;
  for (int i = 0; i < 5; ++i) infos.push_back(info(static_cast<std::uint64_t>(i)));
  int updates = 0;
  const auto subscription = peers_->on_update([&](const auto&) { ++updates; });
  peers_->insert(infos);
  EXPECT_EQ(peers_->get_all().size(), 3U);
  EXPECT_EQ(updates, 3);
}

TEST_P(PeerStores, NeitherOwnAgentsNorPeersInUseAreDisplacedByStrangers) {
  open(100);
  peers_->set_use([&](const AgentInfo& info) {
    PeerUse use;
    use.is_own = info.agent == id(1);
    use.in_use = info.url == peer_url(2);
    return use;
  });
  peers_->insert({info(1), info(2)});
  pass(1);
  for (std::uint64_t i = 1000; i < 2000; ++i) {
    // Half of them claim the url of the one in use.
    const auto forged =
        AgentInfoBuilder{.space = space_, .created_at = w_.now(), .url = peer_url(i % 2 == 0 ? 2 : static_cast<int>(i))}
            .sign(*make_agent(i));
    peers_->insert_from({forged}, "ws://h:1/bad");
  }
  EXPECT_LE(peers_->get_all().size(), 100U);
  EXPECT_NE(peers_->get(id(1)), nullptr);
  EXPECT_NE(peers_->get(id(2)), nullptr);
}

TEST_P(PeerStores, ABringerOfManyInfosDisplacesItsOwn) {
  open(100);
  for (std::uint64_t i = 1; i <= 30; ++i) {
    peers_->insert_from({info(i)}, peer_url(static_cast<int>(i)).to_string());  // each comes itself
  }
  pass(60);
  for (std::uint64_t i = 1000; i < 3000; ++i) peers_->insert_from({info(i)}, "ws://h:1/bad");
  for (std::uint64_t i = 1; i <= 30; ++i) EXPECT_NE(peers_->get(id(i)), nullptr) << i;
}

TEST_P(PeerStores, UsefulPeersOutlastAThousandBringers) {
  open(100);
  peers_->set_use([&](const AgentInfo& info) {
    PeerUse use;
    use.usefulness = info.agent == id(7) ? 1 : 0;
    return use;
  });
  peers_->insert_from({info(5)}, "bootstrap");
  pass(1);
  for (std::uint64_t i = 1000; i < 1100; ++i) peers_->insert_from({info(i)}, peer_url(static_cast<int>(i)).to_string());
  peers_->insert_from({info(7)}, peer_url(7).to_string());
  for (std::uint64_t i = 2000; i < 3000; ++i) peers_->insert_from({info(i)}, peer_url(static_cast<int>(i)).to_string());
  EXPECT_NE(peers_->get(id(7)), nullptr) << "it was of use, and came when the store was full already";
  EXPECT_NE(peers_->get(id(5)), nullptr) << "it was there before all others";
}

TEST_P(PeerStores, OverlappingStorageArcs) {
  const auto fraction = [](double f) { return static_cast<std::uint32_t>(4294967295.0 * f); };
  const auto inside = info(1, DhtArc(400, UINT32_MAX / 2 - 400));
  const auto outside = info(2, DhtArc(fraction(0.8), fraction(0.9)));
  const auto nothing = info(3, DhtArc::none());
  peers_->insert({inside, outside, nothing});
  EXPECT_EQ(peers_->get_by_overlapping_storage_arc(DhtArc(0, UINT32_MAX / 2)), std::vector{inside});
  EXPECT_EQ(peers_->get_by_overlapping_storage_arc(DhtArc::full()).size(), 2U);
  EXPECT_TRUE(peers_->get_by_overlapping_storage_arc(DhtArc::none()).empty());
  EXPECT_EQ(peers_->get_by_overlapping_storage_arc(DhtArc(fraction(0.85), 500)).size(), 2U);  // wraps
}

TEST_P(PeerStores, NearLocationIsByDistanceToTheArc) {
  for (std::uint32_t i = 0; i < 8; ++i) {
    const std::uint32_t loc = UINT32_MAX / 8 * i;
    peers_->insert({info(i, DhtArc(loc, loc + 1))});
  }
  peers_->insert({info(10, DhtArc::none()), info(11, DhtArc::full(), 0, true)});
  using Names = std::vector<std::string>;
  EXPECT_EQ(names(peers_->get_near_location(0, 42)), (Names{"0", "1", "7", "2", "6", "3", "5", "4"}));
  EXPECT_EQ(names(peers_->get_near_location(UINT32_MAX, 42)), (Names{"0", "1", "7", "2", "6", "3", "5", "4"}));
  EXPECT_EQ(names(peers_->get_near_location(UINT32_MAX / 2, 42)), (Names{"4", "5", "3", "6", "2", "7", "1", "0"}));
  EXPECT_EQ(names(peers_->get_near_location(UINT32_MAX / 2, 2)), (Names{"4", "5"}));
  EXPECT_TRUE(peers_->get_near_location(0, 0).empty());
}

TEST_P(PeerStores, EquallyNearAgentsTakeTurns) {
  for (std::uint64_t i = 0; i < 8; ++i) peers_->insert({info(i)});
  std::set<std::string> first;
  for (std::uint32_t loc = 0; loc < 1'000; ++loc) {
    const auto near = names(peers_->get_near_location(loc, 1));
    EXPECT_EQ(near, names(peers_->get_near_location(loc, 1)));
    first.insert(near.at(0));
  }
  EXPECT_EQ(first.size(), 8U);
}

TEST_P(PeerStores, ManyAgentsAtOneUrl) {
  const auto at = [&](std::uint64_t number, int url, int age) {
    return AgentInfoBuilder{.space = space_, .created_at = w_.now() + Duration{age * kSecond}, .url = peer_url(url)}
        .sign(*make_agent(number));
  };
  const auto a = at(1, 1, 0);
  const auto b = at(2, 1, 0);
  peers_->insert({a, b, at(3, 2, 0)});
  EXPECT_EQ(sorted(peers_->get_by_url(peer_url(1))), sorted({a, b}));
  const auto moved = at(2, 9, 1);
  peers_->insert({moved});
  EXPECT_EQ(peers_->get_by_url(peer_url(1)), std::vector{a});
  EXPECT_EQ(peers_->get_by_url(peer_url(9)), std::vector{moved});
}

TEST_P(PeerStores, UpdatesTellOfWhatIsNewOrNewer) {
  std::vector<AgentInfoPtr> heard;
  auto subscription = peers_->on_update([&](const AgentInfoPtr& i) {
    EXPECT_EQ(peers_->get(i->info().agent), i->info().is_tombstone ? nullptr : i);  // it is in already
    heard.push_back(i);
  });
  const auto a = info(1);
  const auto b = info(2);
  const auto newer = info(1, DhtArc::full(), 5);
  const auto gone = info(2, DhtArc::full(), 5, true);
  peers_->insert({a, b});
  peers_->insert({a});
  peers_->insert({newer, gone});
  EXPECT_EQ(heard, (std::vector{a, b, newer, gone}));
  subscription.reset();
  peers_->insert({info(3)});
  EXPECT_EQ(heard.size(), 4U);
}

TEST_P(PeerStores, AnUpdateMayEndItsSubscriptionAndInsert) {
  int first = 0;
  int second = 0;
  std::shared_ptr<void> subscription = peers_->on_update([&](const AgentInfoPtr&) {
    ++first;
    subscription.reset();
    peers_->insert({info(7)});
  });
  const auto other = peers_->on_update([&](const AgentInfoPtr&) { ++second; });
  peers_->insert({info(1), info(2)});
  EXPECT_EQ(first, 1);
  EXPECT_EQ(second, 3);
}

// ---------------------------------------------------------------- PeerMetaStore

TEST_P(PeerStores, NotesByPeerAndKey) {
  EXPECT_EQ(meta_->get(peer_url(1), "k"), std::nullopt);
  EXPECT_TRUE(meta_->put(peer_url(1), "k", Bytes::copy_of("one"), std::nullopt));
  EXPECT_TRUE(meta_->put(peer_url(2), "k", Bytes::copy_of("two"), std::nullopt));
  EXPECT_TRUE(meta_->put(peer_url(1), "other", Bytes(), std::nullopt));
  EXPECT_EQ(meta_->get(peer_url(1), "k"), Bytes::copy_of("one"));
  EXPECT_EQ(meta_->get(peer_url(1), "other"), Bytes());
  EXPECT_EQ(meta_->get_all_by_key("k"), (std::vector<std::pair<Url, Bytes>>{{peer_url(1), Bytes::copy_of("one")},
                                                                            {peer_url(2), Bytes::copy_of("two")}}));
  EXPECT_TRUE(meta_->put(peer_url(1), "k", Bytes::copy_of("new"), std::nullopt));
  EXPECT_EQ(meta_->get(peer_url(1), "k"), Bytes::copy_of("new"));
  meta_->remove(peer_url(1), "k");
  meta_->remove(peer_url(9), "k");
  EXPECT_EQ(meta_->get(peer_url(1), "k"), std::nullopt);
  EXPECT_EQ(meta_->get_all_by_key("k").size(), 1U);
  EXPECT_TRUE(meta_->get_all_by_key("none").empty());
}

TEST_P(PeerStores, NotesExpire) {
  const Timestamp expiry = w_.now() + Duration{10 * kSecond};
  EXPECT_TRUE(meta_->put(peer_url(1), "k", Bytes::copy_of("v"), expiry));
  w_.set_now(expiry - Duration{1});
  EXPECT_EQ(meta_->get_all_by_key("k").size(), 1U);
  w_.set_now(expiry);
  EXPECT_EQ(meta_->get(peer_url(1), "k"), std::nullopt);
  EXPECT_TRUE(meta_->get_all_by_key("k").empty());
}

TEST_P(PeerStores, NotesAreBounded) {
  open(10, 3);
  EXPECT_EQ(meta_->put(peer_url(1), std::string(257, 'k'), Bytes(), std::nullopt).error().code, Errc::too_large);
  EXPECT_EQ(meta_->put(peer_url(1), "k", Bytes(std::string((1U << 20) + 1, 'v')), std::nullopt).error().code,
            Errc::too_large);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(meta_->put(peer_url(i), "k", Bytes::copy_of("v"), std::nullopt));
  EXPECT_TRUE(meta_->put(peer_url(2), "brief", Bytes::copy_of("v"), w_.now() + Duration{kSecond}));
  EXPECT_EQ(meta_->put(peer_url(5), "k", Bytes(), std::nullopt).error().code, Errc::overloaded);
  EXPECT_TRUE(meta_->put(peer_url(1), "k", Bytes::copy_of("w"), std::nullopt));  // replaces
  pass(1);
  EXPECT_TRUE(meta_->put(peer_url(5), "k", Bytes(), std::nullopt));  // the expired one has made room
  EXPECT_EQ(meta_->put(peer_url(6), "k", Bytes(), std::nullopt).error().code, Errc::overloaded);
  meta_->remove(peer_url(5), "k");
  EXPECT_TRUE(meta_->put(peer_url(6), "k", Bytes(), std::nullopt));
}

// Room is made by the expiry that a note has now, not by one that it had.
TEST_P(PeerStores, AFullStoreOfNotesDropsWhatHasExpiredAndNothingElse) {
  open(10, 3);
  const auto after = [&](int seconds) { return w_.now() + Duration{seconds * kSecond}; };
  EXPECT_TRUE(meta_->put(peer_url(1), "k", Bytes::copy_of("a"), after(1)));
  EXPECT_TRUE(meta_->put(peer_url(1), "k", Bytes::copy_of("b"), after(10)));
  EXPECT_TRUE(meta_->put(peer_url(2), "k", Bytes::copy_of("c"), after(1)));
  EXPECT_TRUE(meta_->put(peer_url(2), "k", Bytes::copy_of("d"), std::nullopt));
  EXPECT_TRUE(meta_->put(peer_url(3), "k", Bytes::copy_of("e"), after(1)));
  meta_->remove(peer_url(3), "k");
  EXPECT_TRUE(meta_->put(peer_url(3), "k", Bytes::copy_of("f"), after(2)));
  pass(1);
  EXPECT_EQ(meta_->put(peer_url(4), "k", Bytes(), std::nullopt).error().code, Errc::overloaded);
  EXPECT_EQ(meta_->get_all_by_key("k").size(), 3U);
  pass(1);
  EXPECT_TRUE(meta_->put(peer_url(4), "k", Bytes::copy_of("g"), std::nullopt)) << "one has expired";
  EXPECT_EQ(meta_->get(peer_url(1), "k"), Bytes::copy_of("b"));
  EXPECT_EQ(meta_->get(peer_url(2), "k"), Bytes::copy_of("d"));
  EXPECT_EQ(meta_->get(peer_url(3), "k"), std::nullopt);
  pass(10);
  EXPECT_TRUE(meta_->put(peer_url(5), "k", Bytes(), std::nullopt)) << "one more has";
  EXPECT_EQ(meta_->put(peer_url(6), "k", Bytes(), std::nullopt).error().code, Errc::overloaded);
}

TEST_P(PeerStores, NotesThatMayWaitAreSeenAtOnce) {
  EXPECT_TRUE(meta_->put_soon(peer_url(1), "k", Bytes::copy_of("v"), std::nullopt));
  EXPECT_EQ(meta_->get(peer_url(1), "k"), Bytes::copy_of("v"));
  meta_->remove_soon(peer_url(1), "k");
  EXPECT_EQ(meta_->get(peer_url(1), "k"), std::nullopt);
  EXPECT_EQ(meta_->put_soon(peer_url(1), std::string(257, 'k'), Bytes(), std::nullopt).error().code, Errc::too_large);
}

// ---------------------------------------------------------------- only the file

class SqlitePeerStoresTest : public PeerStores {};
INSTANTIATE_TEST_SUITE_P(File, SqlitePeerStoresTest, ::testing::Values(true),
                         [](const auto&) { return std::string("sqlite"); });

TEST_P(SqlitePeerStoresTest, InfosOfOthersAreWrittenTogetherWithinASecond) {
  open(3);
  const auto held = [&] {
    std::vector<AgentInfoPtr> out = peers_->get_all();
    open(3);  // as after a crash
    EXPECT_LE(peers_->get_all().size(), out.size());
    return peers_->get_all().size();
  };
  peers_->insert_from({info(1)}, "a peer");
  peers_->insert_from({info(2)}, "a peer");
  EXPECT_EQ(held(), 0U) << "a crash within the second";
  peers_->insert_from({info(1)}, "a peer");
  peers_->insert_from({info(2)}, "a peer");
  w_.world().run_for(std::chrono::seconds(1));
  EXPECT_EQ(held(), 2U);
  for (std::uint64_t i = 3; i < 20; ++i) peers_->insert_from({info(i)}, "a peer");
  w_.world().run_for(std::chrono::seconds(1));
  EXPECT_EQ(held(), 3U) << "who had to go is not in the file either";
  for (std::uint64_t i = 1; i < 20; ++i) peers_->remove(id(i));
  peers_->insert_from({info(1)}, "a peer");
  peers_->insert({info(2)});
  EXPECT_EQ(held(), 2U) << "an own one is written at once, with what waits";
  peers_->insert_from({info(3)}, "a peer");
  peers_->close();
  EXPECT_EQ(held(), 3U);
}

TEST_P(SqlitePeerStoresTest, NotesThatMayWaitAreWrittenByFlushAndClose) {
  EXPECT_TRUE(meta_->put(peer_url(1), "k", Bytes::copy_of("v"), std::nullopt));
  const auto text_of = [&](int peer, const char* key) {
    const auto note = meta_->get(peer_url(peer), key);
    return note ? note->str() : std::string("none");
  };
  EXPECT_TRUE(meta_->put_soon(peer_url(1), "k", Bytes::copy_of("w"), std::nullopt));
  EXPECT_TRUE(meta_->put_soon(peer_url(2), "k", Bytes::copy_of("2"), std::nullopt));
  open();
  EXPECT_EQ(text_of(1, "k") + text_of(2, "k"), "vnone") << "a crash within the minute";
  EXPECT_TRUE(meta_->put_soon(peer_url(1), "k", Bytes::copy_of("w"), std::nullopt));
  EXPECT_TRUE(meta_->put_soon(peer_url(2), "k", Bytes::copy_of("2"), std::nullopt));
  meta_->flush();
  meta_->remove_soon(peer_url(1), "k");
  open();
  EXPECT_EQ(text_of(1, "k") + text_of(2, "k"), "w2");
  meta_->remove_soon(peer_url(1), "k");
  meta_->remove_soon(peer_url(2), "k");
  meta_->remove(peer_url(2), "k");
  EXPECT_TRUE(meta_->put_soon(peer_url(3), "k", Bytes::copy_of("3"), std::nullopt));
  open();
  EXPECT_EQ(text_of(1, "k") + text_of(2, "k") + text_of(3, "k"), "wnonenone") << "remove is durable at once";
  meta_->remove_soon(peer_url(1), "k");
  EXPECT_TRUE(meta_->put_soon(peer_url(3), "k", Bytes::copy_of("3"), std::nullopt));
  meta_->close();
  open();
  EXPECT_EQ(text_of(1, "k") + text_of(3, "k"), "none3");
}

TEST_P(SqlitePeerStoresTest, EverythingIsThereAfterReopening) {
  const auto a = info(1, DhtArc(5, 6));
  peers_->insert({a, info(2), info(3)});
  peers_->remove(id(2));
  peers_->insert({info(3, DhtArc::full(), 5, true)});
  EXPECT_TRUE(meta_->put(peer_url(1), "k", Bytes::copy_of("v"), std::nullopt));
  EXPECT_TRUE(meta_->put(peer_url(1), "gone", Bytes::copy_of("v"), std::nullopt));
  EXPECT_TRUE(meta_->put(peer_url(1), "brief", Bytes::copy_of("v"), w_.now() + Duration{kSecond}));
  meta_->remove(peer_url(1), "gone");
  open();
  ASSERT_EQ(peers_->get_all().size(), 1U);
  EXPECT_EQ(peers_->get(id(1))->encode(), a->encode());
  peers_->insert({info(3)});
  EXPECT_EQ(peers_->get(id(3)), nullptr);  // its tombstone is there too
  EXPECT_EQ(meta_->get(peer_url(1), "k"), Bytes::copy_of("v"));
  EXPECT_EQ(meta_->get(peer_url(1), "gone"), std::nullopt);
  EXPECT_EQ(meta_->get(peer_url(1), "brief"), Bytes::copy_of("v"));
  pass(30 * 60);
  open();
  EXPECT_TRUE(peers_->get_all().empty());
  EXPECT_EQ(meta_->get(peer_url(1), "brief"), std::nullopt);
}

TEST_P(SqlitePeerStoresTest, ClosedStoresLetGoOfTheirFileAndChangeItNoMore) {
  peers_->insert({info(1)});
  EXPECT_TRUE(meta_->put(peer_url(1), "k", Bytes::copy_of("v"), std::nullopt));
  const auto old_peers = peers_;
  const auto old_meta = meta_;
  old_peers->close();
  old_meta->close();
  open();
  EXPECT_EQ(peers_->get_all().size(), 1U);
  old_peers->insert({info(2)});
  EXPECT_EQ(old_peers->get_all().size(), 2U) << "in memory it goes on";
  old_peers->remove(id(1));
  EXPECT_EQ(old_meta->put(peer_url(2), "k", Bytes(), std::nullopt).error().code, Errc::cancelled);
  old_meta->remove(peer_url(1), "k");
  open();
  EXPECT_EQ(peers_->get_all().size(), 1U);
  EXPECT_EQ(meta_->get(peer_url(1), "k"), Bytes::copy_of("v"));
}

TEST_P(SqlitePeerStoresTest, InfosThatWereChangedInTheFileAreLeftOut) {
  peers_->insert({info(1), info(2)});
  peers_.reset();
  meta_.reset();
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(db,
                         "UPDATE agent SET json=replace(json,'peer1','peer9');"
                         "INSERT INTO agent VALUES(x'00',9223372036854775807,'junk')",
                         nullptr, nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(db);
  open();
  EXPECT_EQ(names(peers_->get_all()), std::vector<std::string>{"2"});
}

TEST_P(SqlitePeerStoresTest, TheBoundHoldsInTheFileToo) {
  open(2);
  peers_->insert({info(1), info(2, DhtArc::full(), 1), info(3, DhtArc::full(), 2)});
  const auto kept = peers_->get_all();
  open();
  EXPECT_EQ(peers_->get_all().size(), 2U);
  for (const auto& one : kept) EXPECT_NE(peers_->get(one->info().agent), nullptr);
}

TEST_P(SqlitePeerStoresTest, AnotherSpaceASecondOpenerAndOtherFilesAreRefused) {
  const auto second = open_sqlite_peer_stores(w_.runtime(), space_, path_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::already_exists);
  EXPECT_NE(second.error().message.find("in use by process"), std::string::npos);
  peers_.reset();
  meta_.reset();
  const auto other = open_sqlite_peer_stores(w_.runtime(), SpaceId::from_text("other"), path_);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, Errc::already_exists);
  EXPECT_NE(other.error().message.find(space_.to_string()), std::string::npos);
  const auto ops = open_sqlite_op_store(w_.runtime(), make_prefix_policy(), space_, path_);
  ASSERT_FALSE(ops);
  EXPECT_EQ(ops.error().code, Errc::corrupt);
  const std::string junk = dir_ / "junk.db";
  std::ofstream(junk) << std::string(4'096, 'j');
  EXPECT_EQ(open_sqlite_peer_stores(w_.runtime(), space_, junk).error().code, Errc::corrupt);
  EXPECT_EQ(open_sqlite_peer_stores(w_.runtime(), space_, dir_ / "no/such.db").error().code, Errc::io);
}

TEST_P(SqlitePeerStoresTest, FilesAreForTheOwnerOnly) {
  peers_->insert({info(1)});
  for (const char* suffix : {"", "-wal", "-shm"}) {
    struct stat s {};
    ASSERT_EQ(::stat((path_ + suffix).c_str(), &s), 0) << suffix;
    EXPECT_EQ(s.st_mode & 0777, 0600U) << suffix;
  }
}

// -------------------------------------------------------------- LocalAgentStore

TEST(LocalAgentStoreTest, AddsReplacesRemoves) {
  const auto store = make_memory_local_agent_store();
  EXPECT_TRUE(store->get_all().empty());
  const auto a = make_agent(1);
  const auto b = make_agent(2);
  store->add(a);
  store->add(b);
  store->add(nullptr);
  EXPECT_EQ(store->get_all().size(), 2U);
  const auto again = make_agent(1);
  store->add(again);
  EXPECT_EQ(store->get_all().size(), 2U);
  EXPECT_TRUE(store->contains(a->agent()));
  EXPECT_FALSE(store->contains(make_agent(3)->agent()));
  EXPECT_TRUE(store->LocalAgentStore::contains(a->agent())) << "as a store of an application's own has it";
  EXPECT_FALSE(store->LocalAgentStore::contains(make_agent(3)->agent()));
  EXPECT_EQ(store->remove(a->agent()), again);
  EXPECT_FALSE(store->contains(a->agent()));
  EXPECT_EQ(store->remove(a->agent()), nullptr);
  EXPECT_EQ(store->get_all(), (std::vector<std::shared_ptr<LocalAgent>>{b}));
}

// -------------------------------------------------------------------- BlockList

TEST(BlockListTest, BlocksUntilUnblockedOrTheTimeHasCome) {
  StoreWorld w;
  const auto blocks = make_memory_block_list(w.runtime());
  const AgentId agent = make_agent(1)->agent();
  EXPECT_FALSE(blocks->is_peer_blocked(peer_url(1)));
  EXPECT_FALSE(blocks->is_agent_blocked(agent));
  blocks->block_peer(peer_url(1), std::nullopt);
  const Timestamp until = w.now() + Duration{kSecond};
  blocks->block_agent(agent, until);
  EXPECT_TRUE(blocks->is_peer_blocked(peer_url(1)));
  EXPECT_FALSE(blocks->is_peer_blocked(peer_url(2)));
  w.set_now(until - Duration{1});
  EXPECT_TRUE(blocks->is_agent_blocked(agent));
  w.set_now(until);
  EXPECT_FALSE(blocks->is_agent_blocked(agent));
  blocks->unblock_peer(peer_url(1));
  EXPECT_FALSE(blocks->is_peer_blocked(peer_url(1)));
  blocks->unblock_agent(agent);  // not blocked: no effect
}

TEST(BlockListTest, BlockingAgainNeverShortens) {
  StoreWorld w;
  const auto blocks = make_memory_block_list(w.runtime());
  const auto in = [&](int seconds) { return w.now() + Duration{seconds * kSecond}; };
  blocks->block_peer(peer_url(1), in(10));
  blocks->block_peer(peer_url(1), in(5));
  blocks->block_peer(peer_url(2), std::nullopt);
  blocks->block_peer(peer_url(2), in(1));
  blocks->block_peer(peer_url(3), in(1));
  blocks->block_peer(peer_url(3), std::nullopt);
  blocks->block_peer(peer_url(4), in(-1));  // has passed: no effect
  EXPECT_FALSE(blocks->is_peer_blocked(peer_url(4)));
  w.set_now(in(7));
  for (int i = 1; i <= 3; ++i) EXPECT_TRUE(blocks->is_peer_blocked(peer_url(i))) << i;
  w.set_now(in(4));
  EXPECT_FALSE(blocks->is_peer_blocked(peer_url(1)));
  EXPECT_TRUE(blocks->is_peer_blocked(peer_url(2)));
  EXPECT_TRUE(blocks->is_peer_blocked(peer_url(3)));
}

TEST(BlockListTest, ListenersHearOfEachBlockUntilTheirTokenGoes) {
  StoreWorld w;
  const auto blocks = make_memory_block_list(w.runtime());
  std::vector<std::string> heard;
  BlockEvents events;
  events.peer_blocked = [&](const Url& peer) {
    heard.push_back(peer.to_string());
    EXPECT_TRUE(blocks->is_peer_blocked(peer)) << "it is in force already";
  };
  events.agent_blocked = [&](const AgentId&) { heard.emplace_back("agent"); };
  auto token = blocks->on_block(events);
  const auto only_peers = blocks->on_block({.peer_blocked = [&](const Url&) { heard.emplace_back("other"); }});
  blocks->block_peer(peer_url(1), std::nullopt);
  blocks->block_agent(AgentId::from_text("a"), std::nullopt);
  blocks->unblock_peer(peer_url(1));
  token.reset();
  blocks->block_peer(peer_url(2), std::nullopt);
  EXPECT_EQ(heard, (std::vector<std::string>{peer_url(1).to_string(), "other", "agent", "other"}));
}

TEST(BlockListTest, ManyShortBlocksLeaveTheLongOnes) {
  StoreWorld w;
  const auto blocks = make_memory_block_list(w.runtime());
  blocks->block_peer(peer_url(0), std::nullopt);
  for (int i = 1; i < 1'000; ++i) {
    blocks->block_peer(peer_url(i), w.now() + Duration{kSecond});
    if (i % 100 == 0) w.set_now(w.now() + Duration{2 * kSecond});
  }
  EXPECT_TRUE(blocks->is_peer_blocked(peer_url(0)));
  EXPECT_FALSE(blocks->is_peer_blocked(peer_url(50)));
  EXPECT_TRUE(blocks->is_peer_blocked(peer_url(999)));
}

}  // namespace
}  // namespace kitsune2::testing
