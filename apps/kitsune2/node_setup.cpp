// The common part of `share`, `fetch` and `mirror`: a running node with its spaces and its status.
#include "node_setup.hpp"

#include <unistd.h>

#include <algorithm>
#include <future>
#include <map>
#include <nlohmann/json.hpp>

#include "log/log.hpp"
#include "node/builder/dialect_choice.hpp"

namespace kitsune2::cli {

namespace {
constexpr std::chrono::milliseconds kLeavePatience{300};
constexpr std::uint32_t kLastInfosPatienceMs = 300;

std::string hex(const Bytes& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const std::uint8_t byte : bytes) {
    out += kDigits[byte >> 4U];
    out += kDigits[byte & 15U];
  }
  return out;
}

nlohmann::json rounds_json(const std::vector<GossipRoundSummary>& rounds) {
  auto out = nlohmann::json::array();
  for (const auto& round : rounds) {
    out.push_back({{"peer", round.session_with_peer.to_string()},
                   {"age_ms", std::chrono::duration_cast<std::chrono::milliseconds>(round.age).count()}});
  }
  return out;
}

/// What is not known is left out.
nlohmann::json gossip_peer_json(const Url& url, const GossipPeerMetaSummary& peer) {
  nlohmann::json out = {{"peer", url.to_string()}, {"storage_arc", peer.storage_arc.to_string()}};
  const auto time = [&](const char* key, const std::optional<Timestamp>& at) {
    if (at) out[key] = at->to_string();
  };
  const auto count = [&](const char* key, const std::optional<std::uint64_t>& value) {
    if (value) out[key] = *value;
  };
  time("last_gossip", peer.last_gossip_timestamp);
  time("new_ops_bookmark", peer.new_ops_bookmark);
  count("peer_behavior_errors", peer.peer_behavior_errors);
  count("local_errors", peer.local_errors);
  count("peer_busy", peer.peer_busy);
  count("peer_terminated", peer.peer_terminated);
  count("completed_rounds", peer.completed_rounds);
  count("peer_timeouts", peer.peer_timeouts);
  time("in_sync_at", peer.in_sync_at);
  if (peer.in_sync_at) out["in_sync_sectors"] = peer.in_sync_sectors;
  return out;
}

nlohmann::json gossip_json(Gossip& gossip) {
  const auto summary = gossip.state_summary({.include_dht_summary = true});
  nlohmann::json out = {{"target_sectors", summary.coverage.target_sectors},
                        {"storage_sectors", summary.coverage.storage_sectors},
                        {"in_sync_sectors", summary.coverage.in_sync_sectors},
                        {"rounds_completed", gossip.stats().completed},
                        {"initiated_rounds", rounds_json(summary.initiated_rounds)},
                        {"accepted_rounds", rounds_json(summary.accepted_rounds)},
                        {"dht", nlohmann::json::array()},
                        {"peers", nlohmann::json::array()}};
  for (const auto& [arc, segment] : summary.dht_summary) {
    auto rings = nlohmann::json::array();
    for (const auto& hash : segment.ring_top_hashes) rings.push_back(hex(hash));
    out["dht"].push_back({{"arc", arc.to_string()},
                          {"disc_boundary", segment.disc_boundary.to_string()},
                          {"disc_top_hash", hex(segment.disc_top_hash)},
                          {"ring_top_hashes", std::move(rings)}});
  }
  for (const auto& [url, peer] : summary.peer_meta) out["peers"].push_back(gossip_peer_json(url, peer));
  return out;
}

/// The part of `status` for one space.
nlohmann::json space_json(Node& node, Space& at, const Ed25519LocalAgent& agent) {
  const auto stats = node.wait<OpStoreStats>([&](auto done) { at.op_store().stats(done); });
  nlohmann::json space = {{"space", at.id().to_string()}, {"agent", agent.agent().to_string()}};
  space["ops"] = stats ? stats->ops : 0;
  space["bytes"] = stats ? stats->bytes : 0;
  space["damaged_ops"] = stats ? stats->damaged : 0;
  space["mended_entries"] = stats ? stats->mended : 0;
  node.run([&] {
    auto& fetch = at.fetch();
    const auto summary = fetch.state_summary();
    std::map<std::string, std::uint64_t> pending;
    for (const auto& [op, urls] : summary.pending_requests) {
      for (const auto& url : urls) ++pending[url.to_string()];
    }
    space["url"] = at.current_url() ? nlohmann::json(at.current_url()->to_string()) : nlohmann::json();
    space["pending_ops"] = summary.pending_ops;
    space["requests_under_way"] = summary.outstanding_requests;
    space["pending"] = nlohmann::json::array();
    for (const auto& [url, count] : pending) space["pending"].push_back({{"source", url}, {"ops", count}});
    space["back_off"] = nlohmann::json::array();
    for (const auto& [url, until] : summary.peers_on_backoff) {
      space["back_off"].push_back({{"source", url.to_string()}, {"until", until.to_string()}});
    }
    const auto s = fetch.stats();
    space["fetched"] = {{"ops", s.ops_fetched}, {"bytes", s.bytes_fetched}};
    space["served"] = {{"ops", s.ops_served}, {"bytes", s.bytes_served}};
    space["served_to"] = nlohmann::json::array();
    for (const auto& [id, report] : node.kitsune().report().snapshot()) {
      if (id != at.id()) continue;
      for (const auto& [url, peer] : report.peers) {
        if (peer.ops_served == 0) continue;
        space["served_to"].push_back(
            {{"peer", url.to_string()}, {"ops", peer.ops_served}, {"bytes", peer.bytes_served}});
      }
    }
    space["gossip"] = gossip_json(at.gossip());
    std::map<Url, bool> is_direct;
    for (const auto& connection : node.kitsune().transport().stats().connections) {
      bool& any = is_direct[connection.peer];
      any = any || connection.is_direct;
    }
    space["peers"] = nlohmann::json::array();
    for (const auto& info : at.peer_store().get_all()) {
      if (info->info().agent == agent.agent()) continue;
      const auto way = info->info().url ? is_direct.find(*info->info().url) : is_direct.end();
      const bool is_connected = way != is_direct.end();
      space["peers"].push_back({{"agent", info->info().agent.to_string()},
                                {"url", info->info().url ? info->info().url->to_string() : ""},
                                {"arc", info->info().storage_arc.to_string()},
                                {"connected", is_connected},
                                {"direct", is_connected && way->second}});
    }
  });
  return space;
}

}  // namespace

Result<NodeOptions> node_options(const Common& common, const NodeArgs& args, std::optional<Dialect> linked) {
  auto config = load_config(common);
  if (!config) return config.error();
  NodeOptions options{.config = std::move(*config)};
  std::optional<Dialect> named = linked;
  if (!args.network.empty()) named = dialect_of(args.network);
  if (linked && named != linked) {
    return make_error(Errc::invalid_argument, "the link is of network " + std::string(to_string(*linked)) +
                                                  ", which contradicts --network " + args.network);
  }
  const auto dialect = choose_dialect(named, options.config, args.relay, args.data);
  if (!dialect) return dialect.error();
  options.config.network.dialect = *dialect;
  // A user who presses Ctrl-C waits for the end. The library's own patience is for a service that is restarted.
  if (common.config_file.empty()) options.config.core_bootstrap.stop_patience_ms = kLastInfosPatienceMs;
  options.data_dir = args.data;
  options.tls_ca_file = args.tls_ca;
  options.admin = args.admin;
  return options;
}

Result<NodeOptions> node_options(const Common& common, const NodeArgs& args, const files::Link& link) {
  auto options = node_options(common, args, link.network);
  if (!options) return options;
  options->relay = link.relay_url();
  if (args.relay.empty()) return options;
  auto url = relay_url(args.relay, link.network);
  if (!url) return url.error();
  options->relay = *url;
  return options;
}

Result<std::unique_ptr<RunningNode>> RunningNode::start(NodeOptions options, SpaceId space, const std::string& role,
                                                        Signals& signals) {
  std::unique_ptr<RunningNode> out(new RunningNode());
  out->role_ = role;
  out->network_ = options.config.network.spoken();
  out->handler_ = files::FilesHandler::make();
  options.handler = out->handler_;
  const std::string data = options.data_dir;
  auto node = Node::start(std::move(options));
  if (!node) return node.error();
  out->node_ = std::move(*node);
  out->signals_ = &signals;
  signals.on_hangup([node = out->node_.get()] {
    const auto read = node->reload_certificates();
    if (!read) return log::error("kitsune2", "SIGHUP: keeping the old certificates: " + read.error().message);
    log::info("kitsune2", "SIGHUP: certificates reloaded");
  });
  auto agent = out->node_->agent();
  if (!agent) return agent.error();
  out->key_ = *agent;
  if (!space.empty()) {
    if (auto opened = out->open(space); !opened) return opened.error();
  }
  auto socket = StatusSocket::start(data, [self = out.get()] { return self->status_json(); });
  if (!socket) return socket.error();
  out->socket_ = std::move(*socket);
  return out;
}

RunningNode::Place* RunningNode::find(const SpaceId& space) {
  const auto at = std::find_if(places_.begin(), places_.end(), [&](const Place& p) { return p.space->id() == space; });
  return at == places_.end() ? nullptr : &*at;
}

bool RunningNode::is_open(const SpaceId& space) {
  const std::lock_guard lock(mutex_);
  return find(space) != nullptr;
}

std::vector<std::shared_ptr<Space>> RunningNode::spaces() {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Space>> out;
  for (const auto& place : places_) out.push_back(place.space);
  return out;
}

Result<void> RunningNode::open(const SpaceId& id) {
  {
    const std::lock_guard lock(mutex_);
    if (const Place* place = find(id)) {
      space_ = place->space;
      agent_ = place->agent;
      return {};
    }
  }
  auto agent = files::agent_for(key_, id);
  if (!agent) return agent.error();
  node_->run([&] { handler_->allow_space(id); });
  auto made = node_->space(id);
  if (!made) return made.error();
  space_ = *made;
  node_->run([&] { handler_->attach(space_); });
  const std::lock_guard lock(mutex_);
  agent_ = *agent;
  places_.push_back(Place{space_, agent_, false});
  return {};
}

Result<void> RunningNode::join(DhtArc target, DhtArc claimed) {
  std::shared_ptr<Ed25519LocalAgent> agent;
  {
    const std::lock_guard lock(mutex_);
    Place* place = find(space_->id());
    if (place->joined) return {};
    agent = place->agent;
  }
  node_->run([&] { agent->set_cur_storage_arc(claimed); });
  auto joined = node_->join(space_, agent, target);
  const std::lock_guard lock(mutex_);
  find(space_->id())->joined = joined.has_value();
  return joined;
}

void RunningNode::stop() {
  socket_.reset();
  if (!node_) return;
  signals_->on_hangup(nullptr);
  // Reachable peers learn of it within this time, in all spaces at the same time. Others are not waited for, because
  // the user is waiting.
  const auto left = std::make_shared<std::promise<void>>();
  auto leaving = left->get_future();
  node_->run([&] {
    const auto open = std::make_shared<std::size_t>(1);
    const auto one = [left, open] {
      if (--*open == 0) left->set_value();
    };
    for (auto& place : places_) {
      if (!std::exchange(place.joined, false)) continue;
      ++*open;
      place.space->local_agent_leave(place.agent->agent(), one);
    }
    one();
  });
  leaving.wait_for(kLeavePatience);
  node_->run([&] { handler_->attach(nullptr); });
  places_.clear();
  space_.reset();
  node_->stop();  // leaves the spaces, if that was not done yet
  node_.reset();
}

RunningNode::~RunningNode() { stop(); }

std::string RunningNode::status_json() {
  nlohmann::json json = {{"running", true}, {"role", role_}, {"pid", static_cast<std::int64_t>(::getpid())}};
  json["relay"] = node_->relay_url();
  json["network"] = std::string(to_string(network_));
  json["agent"] = key_->agent().to_string();
  json["spaces"] = nlohmann::json::array();
  std::vector<Place> places;
  {
    const std::lock_guard lock(mutex_);
    places = places_;
  }
  // The latest one first, where a user looks for it.
  std::reverse(places.begin(), places.end());
  for (const auto& place : places) json["spaces"].push_back(space_json(*node_, *place.space, *place.agent));
  if (!places.empty()) {
    node_->run([&] {
      if (const auto failure = places.front().space->transport_failure())
        json["relay_failure"] = failure->error.message;
    });
  }
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

}  // namespace kitsune2::cli
