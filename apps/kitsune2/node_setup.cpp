#include "node_setup.hpp"

#include <unistd.h>

#include <future>
#include <map>
#include <nlohmann/json.hpp>

namespace kitsune2::cli {

namespace {
constexpr std::chrono::milliseconds kLeavePatience{300};
constexpr std::uint32_t kLastInfosPatienceMs = 300;
}  // namespace

Result<NodeOptions> node_options(const Common& common, const NodeArgs& args) {
  auto config = load_config(common);
  if (!config) return config.error();
  NodeOptions options;
  options.config = std::move(*config);
  // Whoever presses Ctrl-C waits for the end. The library's own patience is for a service that is restarted.
  if (common.config_file.empty()) options.config.core_bootstrap.stop_patience_ms = kLastInfosPatienceMs;
  options.data_dir = args.data;
  options.tls_ca_file = args.tls_ca;
  options.admin = args.admin;
  return options;
}

Result<std::unique_ptr<RunningNode>> RunningNode::start(NodeOptions options, SpaceId space, const std::string& role) {
  std::unique_ptr<RunningNode> out(new RunningNode());
  out->role_ = role;
  out->handler_ = files::FilesHandler::make();
  options.handler = out->handler_;
  const std::string data = options.data_dir;
  auto node = Node::start(std::move(options));
  if (!node) return node.error();
  out->node_ = std::move(*node);
  auto agent = out->node_->agent();
  if (!agent) return agent.error();
  out->agent_ = *agent;
  if (space.empty()) space = files::default_space(out->agent_->agent());
  out->node_->run([&] { out->handler_->allow_space(space); });
  auto made = out->node_->space(space);
  if (!made) return made.error();
  out->space_ = *made;
  out->node_->run([&] { out->handler_->attach(out->space_); });
  auto socket = StatusSocket::start(data, [self = out.get()] { return self->status_json(); });
  if (!socket) return socket.error();
  out->socket_ = std::move(*socket);
  return out;
}

Result<void> RunningNode::join(DhtArc arc) {
  auto joined = node_->join(space_, agent_, arc);
  joined_ = joined.has_value();
  return joined;
}

void RunningNode::stop() {
  socket_.reset();
  if (!node_) return;
  if (std::exchange(joined_, false)) {
    // Peers that can be reached hear of it in this time. Those that cannot are not waited for: the user is waiting.
    const auto left = std::make_shared<std::promise<void>>();
    auto leaving = left->get_future();
    node_->run([&] { space_->local_agent_leave(agent_->agent(), [left] { left->set_value(); }); });
    leaving.wait_for(kLeavePatience);
  }
  node_->run([&] { handler_->attach(nullptr); });
  space_.reset();
  node_->stop();  // leaves the space, if that has not been done
  node_.reset();
}

RunningNode::~RunningNode() { stop(); }

std::string RunningNode::status_json() {
  nlohmann::json json = {{"running", true}, {"role", role_}, {"pid", static_cast<std::int64_t>(::getpid())}};
  json["relay"] = node_->relay_url();
  json["agent"] = agent_->agent().to_string();
  const auto stats = node_->wait<OpStoreStats>([&](auto done) { space_->op_store().stats(done); });
  nlohmann::json space = {{"space", space_->id().to_string()}};
  space["ops"] = stats ? stats->ops : 0;
  space["bytes"] = stats ? stats->bytes : 0;
  node_->run([&] {
    auto& fetch = space_->fetch();
    const auto summary = fetch.state_summary();
    std::map<std::string, std::uint64_t> pending;
    for (const auto& [op, urls] : summary.pending_requests) {
      for (const auto& url : urls) ++pending[url.to_string()];
    }
    space["url"] = space_->current_url() ? nlohmann::json(space_->current_url()->to_string()) : nlohmann::json();
    if (const auto failure = space_->transport_failure()) json["relay_failure"] = failure->error.message;
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
    for (const auto& [id, report] : node_->kitsune().report().snapshot()) {
      if (id != space_->id()) continue;
      for (const auto& [url, peer] : report.peers) {
        if (peer.ops_served == 0) continue;
        space["served_to"].push_back(
            {{"peer", url.to_string()}, {"ops", peer.ops_served}, {"bytes", peer.bytes_served}});
      }
    }
    space["peers"] = nlohmann::json::array();
    for (const auto& info : space_->peer_store().get_all()) {
      if (info->info().agent == agent_->agent()) continue;
      space["peers"].push_back({{"agent", info->info().agent.to_string()},
                                {"url", info->info().url ? info->info().url->to_string() : ""},
                                {"arc", info->info().storage_arc.to_string()}});
    }
  });
  json["spaces"] = nlohmann::json::array({space});
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

}  // namespace kitsune2::cli
