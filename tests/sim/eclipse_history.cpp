// A node that many strangers try to cut off from an honest peer that it knows.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/budget.hpp"
#include "model/offers_twin.hpp"
#include "model/peer_budget_twin.hpp"
#include "model/peer_eviction_twin.hpp"
#include "sim/scenarios.hpp"
#include "unit/node/node_harness.hpp"

namespace kitsune2::sim {
namespace {

using namespace std::chrono_literals;
using node_test::kSpace;
using node_test::Net;
using node_test::Scripted;
using node_test::SimNode;

/// Verifying a thousand real signatures would take most of a seed's time, and is not the subject here.
class Believes final : public Verifier {
 public:
  bool verify(const AgentInfo&, ByteView, ByteView) const override { return true; }
};
const Believes kBelieves;

class Forger final : public Signer {
 public:
  Result<Bytes> sign(const AgentInfo&, ByteView) override { return Bytes::copy_of(std::string(64, 'x')); }
};

/// The addresses from which the attacker is seen to come.
enum class Seen { one_address, many_addresses, nowhere };

/// The victim `b` knows `honest`, by useful exchange or because `honest` was there first. Then the attacker does what
/// it can: infos of fresh agents with its own urls, with urls of nobody and with that of the honest peer; ids that
/// nobody holds, requests for them, meaningless bytes; and it returns under new urls. The victim must never lose the
/// honest peer's info or its own, and in the end what the honest peer publishes must reach the victim soon. In dialects
/// where only known peers are heard, the bootstrap server lists some of the attacker's urls; the others wait to be
/// heard.
class Eclipse {
 public:
  explicit Eclipse(std::uint64_t seed)
      : net_(seed), dialect_(dialect_of_seed(seed)), seen_(static_cast<Seen>(pick(3))) {
    for (auto* node : {&victim_, &honest_}) node->builder.config.network.dialect = dialect_;
    // A thousand keys are many or few for the store; both should occur.
    keys_left_ = seed % 50 == 0 ? 1'000 : 60 + pick(200);
    const std::size_t most = 40 + pick(keys_left_ / 2);
    victim_.builder.verifier = &kBelieves;
    victim_.builder.peer_store = [most](const ModuleContext& c) {
      return Result<std::shared_ptr<PeerStore>>(make_memory_peer_store(*c.runtime, c.space, most));
    };
    victim_.builder.address_group = [this](const Url& url) { return group_of(url); };
    if (pick(2) == 0) {
      // So small that the attacker meets every limit.
      auto& budget = victim_.builder.config.peer_budget;
      budget.peer_ms_per_second = 1 + static_cast<std::uint32_t>(pick(20));
      budget.peer_burst_ms = 20 + static_cast<std::uint32_t>(pick(100));
      budget.newcomers_ms_per_second = budget.group_ms_per_second = 1 + static_cast<std::uint32_t>(pick(50));
      budget.newcomers_burst_ms = budget.group_burst_ms = 20 + static_cast<std::uint32_t>(pick(300));
      budget.first_aside_ms = 1'000 + static_cast<std::uint32_t>(pick(60'000));
    }
  }

  Ran run() {
    victim_.start();
    honest_.start();
    EXPECT_TRUE(victim_.join(victim_agent_));
    EXPECT_TRUE(honest_.join(honest_agent_));
    bring_honest_info();
    exchange();
    const auto rounds = 4 + pick(keys_left_ == 1'000 ? 60 : 16);
    for (std::uint64_t i = 0; i < rounds && !::testing::Test::HasFailure(); ++i) {
      for (std::uint64_t left = 1 + pick(12); left > 0; --left) attack();
      if (pick(3) != 0) net_.world.run_for(Duration(pick(20'000'000)));
      if (honest_.info_of(honest_agent_)->info().created_at != brought_) bring_honest_info();
      check();
    }
    exchange();
    run_twins();
    return {net_.world.trace_hash(), net_.world.tasks_run()};
  }

 private:
  std::uint64_t pick(std::uint64_t n) { return net_.world.random(n); }

  std::optional<AddressGroup> group_of(const Url& url) const {
    if (seen_ == Seen::nowhere) return std::nullopt;
    if (url == honest_.url) return "192.0.2.1";
    if (seen_ == Seen::one_address) return "10.0.0.1";
    return "10.0.0." + std::to_string(std::hash<std::string_view>()(url.str()) % 64);
  }

  void bring_honest_info() {
    const auto info = honest_.info_of(honest_agent_);
    ASSERT_NE(info, nullptr);
    brought_ = info->info().created_at;
    victim_.space->peer_store().insert_from({info}, honest_.url.to_string());
    if (known_peers_only(dialect_)) honest_.space->peer_store().insert({victim_.info_of(victim_agent_)});
  }

  /// The honest peer publishes some ops, which must reach the victim soon.
  void exchange() {
    const auto ids = honest_.add_ops(next_op_, 1 + pick(20));
    next_op_ += ids.size();
    const bool arrived = net_.world.run_until(
        [&] {
          if (net_.world.now() >= publish_at_) {
            honest_.space->publish().publish_ops(ids, victim_.url, {});
            publish_at_ = net_.world.now() + 5s;
          }
          return victim_.held() >= next_op_ - 1;
        },
        2min);
    const auto& budget = victim_.kitsune->budget();
    EXPECT_TRUE(arrived) << "what the honest peer publishes does not come; known: " << budget.is_known(honest_.url)
                         << ", waits: " << budget.waits_until(honest_.url).has_value()
                         << ", put aside: " << budget.stats().put_aside << ", held: " << victim_.held() << " of "
                         << next_op_ - 1 << ", pending: " << victim_.space->fetch().pending_ops();
  }

  Scripted& attacker() {
    if (attackers_.empty() || (attackers_.size() < 24 && pick(4) == 0)) {
      auto& fresh = attackers_.emplace_back(net_, "bad" + std::to_string(attackers_.size()), dialect_);
      if (known_peers_only(dialect_) && pick(3) != 0) {
        victim_.space->peer_store().insert_from({forged_info(fresh.url, true)}, "http://bootstrap");
      }
    }
    return attackers_[pick(attackers_.size())];
  }

  AgentInfoPtr forged_info(const Url& own, bool at_own_url = false) {
    AgentInfo info;
    info.space = kSpace;
    info.agent = AgentId(as_bytes("forged agent number " + std::to_string(100'000 + pick(keys_left_))));
    info.created_at = victim_.runtime->wall_now() + Duration(pick(170'000'000));
    info.expires_at = info.created_at + Duration(1'000'000 + pick(1'799'000'000));
    switch (at_own_url ? 0 : pick(4)) {
      case 0:
        info.url = own;
        break;
      case 1:
        info.url = honest_.url;
        break;
      default:
        info.url = MemoryNetwork::url_of("nobody" + std::to_string(pick(10'000)));
    }
    info.storage_arc = DhtArc::full();
    Forger forger;
    return AgentInfoSigned::sign(forger, info).value();
  }

  void attack() {
    Scripted& bad = attacker();
    switch (pick(8)) {
      case 0:
      case 1:
      case 2:
      case 3:
        for (std::uint64_t left = 1 + pick(20); left > 0; --left) {
          bad.send(victim_.url, kPublishModule, wire::encode_publish_agent(forged_info(bad.url)->encode()));
        }
        return;
      case 4: {
        const auto ids = testing::ids_of(testing::make_ops(*make_prefix_policy(), 1'000'000 + pick(1'000'000), 200));
        return bad.send(victim_.url, kPublishModule, wire::encode_publish_ops(dialect_, ids));
      }
      case 5:
        return bad.send(victim_.url, kGossipModule, Bytes::copy_of("nonsense"));
      case 6:
        victim_.space->fetch().request_ops(testing::ids_of(testing::make_ops(*make_prefix_policy(), 5'000'000, 100)),
                                           MemoryNetwork::url_of("nobody" + std::to_string(pick(10'000))),
                                           [](const Result<void>&) {});
        return;
      default:
        bad.transport->disconnect(victim_.url, {CloseCode::on_purpose, "bye"});
        net_.world.run_ready();
    }
  }

  void check() {
    EXPECT_NE(victim_.space->peer_store().get(honest_agent_->agent()), nullptr) << "the honest peer is forgotten";
    EXPECT_NE(victim_.space->peer_store().get(victim_agent_->agent()), nullptr) << "an own agent is forgotten";
  }

  /// The rules at work here, against their naive forms.
  void run_twins() {
    std::vector<std::uint8_t> commands(200);
    const auto renew = [&] {
      for (auto& byte : commands) byte = static_cast<std::uint8_t>(pick(256));
    };
    renew();
    EXPECT_NO_THROW(model::PeerBudgetTwinRun(commands).run());
    renew();
    EXPECT_NO_THROW(model::OffersTwinRun(commands).run());
    renew();
    EXPECT_NO_THROW(model::run_peer_eviction(commands));
  }

  Net net_;
  const Dialect dialect_;
  const Seen seen_;
  std::uint64_t keys_left_ = 0;
  SimNode victim_{net_, "victim"};
  SimNode honest_{net_, "honest"};
  std::shared_ptr<LocalAgent> victim_agent_ = testing::make_agent(1), honest_agent_ = testing::make_agent(2);
  std::deque<Scripted> attackers_;
  Timestamp brought_;
  std::uint64_t next_op_ = 1;
  Time publish_at_{};
};

}  // namespace

Ran run_eclipse_history(std::uint64_t seed) { return Eclipse(seed).run(); }

}  // namespace kitsune2::sim
