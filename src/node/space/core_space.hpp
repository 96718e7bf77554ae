// One space: its modules, its local agents and the infos that make them known.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "core/access/known_urls.hpp"
#include "core/access/stranger_polls.hpp"
#include "kitsune2/builder.hpp"
#include "log/log.hpp"

namespace kitsune2 {

class CoreSpace final : public Space, public std::enable_shared_from_this<CoreSpace> {
 public:
  /// Makes all modules with `builder`'s factories, in its order. `context` must be filled up to and including `space`.
  static Result<std::shared_ptr<CoreSpace>> create(const Builder& builder, ModuleContext context,
                                                   std::shared_ptr<SpaceHandler> handler);
  ~CoreSpace() override;

  const SpaceId& id() const override { return context_.space; }
  PeerStore& peer_store() override { return *context_.peer_store; }
  LocalAgentStore& local_agent_store() override { return *context_.local_agent_store; }
  OpStore& op_store() override { return *context_.op_store; }
  Fetch& fetch() override { return *context_.fetch; }
  Publish& publish() override { return *context_.publish; }
  Gossip& gossip() override { return *gossip_; }
  PeerMetaStore& peer_meta_store() override { return *context_.peer_meta_store; }
  Bootstrap& bootstrap() override { return *context_.bootstrap; }
  std::optional<Url> current_url() const override;
  std::optional<TransportFailure> transport_failure() const override;
  void local_agent_join(std::shared_ptr<LocalAgent> agent, Handler<> done) override;
  void local_agent_join_with_arc(std::shared_ptr<LocalAgent> agent, DhtArc arc, Handler<> done) override;
  void local_agent_leave(const AgentId& agent, std::function<void()> done) override;
  void send_notify(const Url& to, Bytes data, Handler<> done) override;
  std::optional<Error> recent_store_failure() const override;
  void stop(std::function<void()> done) override;

  /// The peer at `url` is blocked now: drops what was to be fetched from it.
  void on_source_blocked(const Url& url);
  /// Whether one of the space's agents is known at `url`: by KnownUrls, or else by the peer store.
  bool is_known(const Url& url) const;
  /// A peer that is not known speaks: the bootstrap server is asked who it is, as often as StrangerPolls allows.
  void on_stranger(const Url& peer);

 private:
  class MessageHandler;
  class Counter;

  CoreSpace(ModuleContext context, std::shared_ptr<SpaceHandler> handler);
  void listen_to_fetch();
  void tell_use_of_peers();
  Result<void> make_modules(const Builder& builder);
  void start();
  void join(std::shared_ptr<LocalAgent> agent, Handler<> done);
  void on_new_url();
  void follow_peers();
  void name_again_later(const Url& peer);
  void on_peer_seen(const AgentInfoPtr& info);
  void schedule_check();
  void check_infos();
  void sign_soon(const AgentId& agent);
  Result<void> sign_and_spread(const std::shared_ptr<LocalAgent>& agent);
  void sign_again_if_overtaken(const AgentInfo& info);
  Result<AgentInfoPtr> sign(LocalAgent& agent, bool tombstone);
  void broadcast(const AgentInfoPtr& info, std::function<void()> done);
  void close();

  Runtime& runtime() const { return *context_.runtime; }
  const CoreSpaceConfig& config() const { return context_.config->current().core_space; }

  /// Where an agent is according to its newest info, and where it was before.
  struct Whereabouts {
    Url now, before;
  };

  ModuleContext context_;
  std::shared_ptr<SpaceHandler> handler_;
  std::shared_ptr<Gossip> gossip_;
  std::set<Url> unserved_by_;               ///< peers that will be asked to announce their ops again
  std::map<AgentId, Timestamp> signed_at_;  ///< created_at of the last info of each local agent
  std::map<AgentId, bool> to_sign_;         ///< agents for which signing is posted
  unsigned overtaken_ = 0;                  ///< how often others knew newer infos of local agents
  Runtime::TimerId check_timer_ = 0;
  std::shared_ptr<void> subscription_;
  std::shared_ptr<void> peer_subscription_;
  std::shared_ptr<void> fetch_subscription_;
  /// The last known url of each agent, also of expired infos, to recognise an agent that returns elsewhere.
  std::unordered_map<AgentId, Whereabouts> last_urls_;
  std::size_t prune_urls_at_ = 0;
  KnownUrls known_urls_;
  StrangerPolls stranger_polls_;
  std::optional<std::pair<Time, Error>> store_failure_;
  bool warned_of_empty_arc_ = false;
  bool stopping_ = false;
  bool stopped_ = false;
  std::vector<std::function<void()>> on_stopped_;
};

}  // namespace kitsune2
