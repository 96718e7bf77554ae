// A C++ node that is driven by lines on stdin, the counterpart of interop/rust/src/bin/rust-peer.rs with the same
// arguments, commands and events, so that a test can put either kind in any place.
#include <openssl/sha.h>
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <map>
#include <mutex>
#include <set>
#include <sstream>

#include "kitsune2/kitsune2.hpp"

using namespace kitsune2;
using namespace std::chrono_literals;

namespace {

const auto kStart = std::chrono::steady_clock::now();
std::string g_name;
std::mutex g_out;

void say(const std::string& event) {
  const auto ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - kStart).count();
  const std::lock_guard lock(g_out);
  std::cout << ms << ' ' << g_name << ' ' << event << std::endl;
}

Bytes sha256(ByteView data) {
  std::vector<std::uint8_t> out(SHA256_DIGEST_LENGTH);
  SHA256(data.data(), data.size(), out.data());
  return Bytes(std::move(out));
}

std::vector<std::uint8_t> from_hex(const std::string& text) {
  std::vector<std::uint8_t> out;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) out.push_back(std::stoul(text.substr(i, 2), nullptr, 16));
  return out;
}

/// The arc from the first to the last of 512 sectors, as in "128-255".
DhtArc arc_of(const std::string& sectors) {
  const auto first = std::stoul(sectors), last = std::stoul(sectors.substr(sectors.find('-') + 1));
  return DhtArc::of_sectors(static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(last - first + 1));
}

/// The stock test op: JSON with an array of numbers.
Bytes memory_op(Timestamp at, ByteView payload) {
  std::string json = "{\"created_at\":" + std::to_string(at.micros) + ",\"op_data\":[";
  for (std::size_t i = 0; i < payload.size(); ++i) {
    if (i != 0) json += ',';
    json += std::to_string(payload[i]);
  }
  return Bytes(json + "]}");
}

struct PeerSpace : SpaceHandler {
  explicit PeerSpace(std::size_t i) : index(i) {}
  void recv_notify(const Url&, const SpaceId&, Bytes data) override {
    say("NOTIFY " + std::to_string(index) + ' ' + std::to_string(data.size()) + ' ' + to_hex(sha256(data)));
  }
  /// Ops that came with the metadata that peers of these tests publish: the first bytes of the id.
  void on_space_created(Space& space) override {
    ear = space.fetch().subscribe({.metadata_stored = [this](const Url&, const std::vector<PublishOp>& ops) {
      for (const auto& op : ops) described += op.metadata == about(op.op_id) ? 1 : 0;
      say("METADATA " + std::to_string(index) + ' ' + std::to_string(described));
    }});
  }
  static Bytes about(const OpId& id) { return Bytes::copy_of(id.view().first(8)); }
  std::size_t index;
  std::size_t described = 0;
  std::shared_ptr<void> ear;
};

struct PeerHandler : KitsuneHandler {
  std::map<SpaceId, std::size_t> indexes;
  void new_listening_address(const Url& url) override { say("ONLINE " + url.to_string()); }
  void peer_disconnect(const Url& peer, const std::optional<std::string>& reason) override {
    say("DISCONNECTED " + peer.to_string() + ' ' + reason.value_or("-"));
  }
  Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId& space) override {
    const auto it = indexes.find(space);
    if (it == indexes.end()) return make_error(Errc::not_found, "not a space of this test");
    return std::shared_ptr<SpaceHandler>(std::make_shared<PeerSpace>(it->second));
  }
};

struct Peer {
  Dialect dialect = Dialect::v0_2;
  std::unique_ptr<Node> node;
  std::vector<std::shared_ptr<Space>> spaces;
  std::vector<AgentId> agents;
  std::vector<std::vector<OpId>> own;
  std::vector<std::size_t> peer_counts;
  std::vector<std::uint64_t> have;

  std::vector<Url> peers(std::size_t i) {
    return node->run([&] {
      std::vector<Url> out;
      for (const auto& info : spaces[i]->peer_store().get_all()) {
        bool local = false;
        for (const auto& agent : spaces[i]->local_agent_store().get_all())
          local |= agent->agent() == info->info().agent;
        if (!local && info->info().url) out.push_back(*info->info().url);
      }
      return out;
    });
  }

  std::string command(const std::string& line) {
    std::istringstream in(line);
    std::string word;
    in >> word;
    if (word == "ops") {
      std::size_t n = 0, min = 0, max = 0;
      std::string tag;
      if (!(in >> n >> min >> max >> tag)) return "usage: ops COUNT MIN MAX TAG [AGE]";
      std::int64_t age = 0;
      in >> age;
      const Timestamp created = node->runtime().wall_now() - std::chrono::seconds(age);
      for (std::size_t i = 0; i < spaces.size(); ++i) {
        std::vector<Bytes> ops;
        for (std::size_t k = 0; k < n; ++k) {
          const auto label = g_name + '/' + tag + '/' + std::to_string(i) + '/' + std::to_string(k);
          const auto head = sha256(as_bytes(label));
          std::vector<std::uint8_t> payload(head.begin(), head.end());
          payload.resize(std::max<std::size_t>(min + (max - min) * k / n, 32), '.');
          ops.push_back(memory_op(created, payload));
        }
        auto done = node->wait<ProcessedOps>(
            [&](auto h) { spaces[i]->op_store().process_incoming_ops(std::move(ops), std::move(h)); });
        if (!done) return done.error().to_string();
        for (const auto& op : done->stored) own[i].push_back(op.op_id);
      }
      return {};
    }
    if (word == "publish" || word == "notify") {
      std::size_t size = 0;
      if (word == "notify" && !(in >> size)) return "usage: notify SIZE";
      std::vector<std::uint8_t> data(size);
      for (std::size_t k = 0; k < size; ++k) data[k] = k % 251;
      const Bytes payload(std::move(data));
      for (std::size_t i = 0; i < spaces.size(); ++i) {
        for (const auto& url : peers(i)) {
          auto told = [word, url](Result<void> r) {
            if (!r) say("FAILED " + word + ' ' + url.to_string() + ' ' + r.error().to_string());
          };
          node->run([&] {
            if (word == "publish") {
              std::vector<PublishOp> ops;
              for (const auto& id : own[i]) ops.push_back({id, PeerSpace::about(id)});
              spaces[i]->publish().publish_ops_with_metadata(std::move(ops), url, told);
            } else
              spaces[i]->send_notify(url, payload, told);
          });
        }
      }
      return {};
    }
    if (word == "fetch" || word == "rawfetch") {
      std::string url_text, id;
      in >> url_text;
      auto url = Url::parse(url_text, url_form(dialect));
      if (!url) return url.error().to_string();
      std::vector<OpId> ids;
      while (in >> id) ids.emplace_back(ByteView(from_hex(id)));
      // Our module batches on its own, so both commands use it.
      auto r = node->wait<void>([&](auto h) { spaces[0]->fetch().request_ops(ids, *url, std::move(h)); });
      return r ? std::string{} : r.error().to_string();
    }
    if (word == "own") {
      std::string out = "OWN";
      for (const auto& id : own[0]) out += ' ' + to_hex(id);
      say(out);
      return {};
    }
    if (word == "stats") {
      const auto stats = node->run([&] { return node->kitsune().transport().stats(); });
      say("STATS connections " + std::to_string(stats.connections.size()));
      const auto fetch = node->run([&] { return spaces[0]->fetch().stats(); });
      say("FETCH requests " + std::to_string(fetch.requests_received) + " served " + std::to_string(fetch.ops_served) +
          " missing " + std::to_string(fetch.ops_not_held) + " fetched " + std::to_string(fetch.ops_fetched) +
          " asked " + std::to_string(fetch.requests_sent) + " pending " +
          std::to_string(node->run([&] { return spaces[0]->fetch().pending_ops(); })));
      const auto gossip = node->run([&] { return spaces[0]->gossip().stats(); });
      say("GOSSIP completed " + std::to_string(gossip.completed) + " timeouts " + std::to_string(gossip.timeouts) +
          " errors " + std::to_string(gossip.peer_errors));
      say("ROUNDS initiated " + std::to_string(gossip.initiated) + " accepted " + std::to_string(gossip.accepted) +
          " discs " + std::to_string(gossip.discs_compared) + " rings " + std::to_string(gossip.rings_compared) +
          " busy_sent " + std::to_string(gossip.busy_sent) + " busy_received " + std::to_string(gossip.busy_received));
      return {};
    }
    if (word == "leave") {
      for (std::size_t i = 0; i < spaces.size(); ++i) {
        auto r = node->wait<void>([&](auto h) { spaces[i]->local_agent_leave(agents[i], [h] { h(Result<void>()); }); });
        if (!r) return r.error().to_string();
      }
      return {};
    }
    return "unknown command " + word;
  }

  void look() {
    for (std::size_t i = 0; i < spaces.size(); ++i) {
      const auto n = peers(i).size();
      if (n != peer_counts[i]) {
        peer_counts[i] = n;
        say("PEERS " + std::to_string(i) + ' ' + std::to_string(n));
      }
      auto stats = node->wait<OpStoreStats>([&](auto h) { spaces[i]->op_store().stats(std::move(h)); });
      if (!stats || stats->ops == have[i]) continue;
      auto ids = node->wait<OpIdsBounded>([&](auto h) {
        spaces[i]->op_store().retrieve_op_ids_bounded(DhtArc::full(), Timestamp{0}, UINT32_MAX, std::move(h));
      });
      if (!ids) continue;
      have[i] = ids->op_ids.size();
      std::vector<std::uint8_t> sum(32);
      for (const auto& id : ids->op_ids) {
        for (std::size_t b = 0; b < 32 && b < id.size(); ++b) sum[b] ^= id.view()[b];
      }
      say("HAVE " + std::to_string(i) + ' ' + std::to_string(have[i]) + ' ' + to_hex(sum));
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, std::string> args{{"--space", "interop"}, {"--spaces", "1"},    {"--timeout-s", "60"},
                                          {"--gossip-ms", "0"},   {"--poll-ms", "500"}, {"--dialect", "0.2"},
                                          {"--arc", "0-511"}};
  for (int i = 1; i + 1 < argc; i += 2) args[argv[i]] = argv[i + 1];
  g_name = args["--name"];
  // stdout is for events. K2_LOG=debug logs more.
  const char* level = std::getenv("K2_LOG");
  set_process_log({[](const LogLine& line) {
                     std::cerr << line.time.to_string() + ' ' + std::string(to_string(line.level)) + ' ' +
                                      std::string(line.area) + ": " + std::string(line.text) + '\n';
                   },
                   log_level_from(level == nullptr ? "info" : level).value_or(LogLevel::info)});

  auto handler = std::make_shared<PeerHandler>();
  NodeOptions options;
  options.policy = make_memory_op_policy();
  const auto dialect = dialect_of(args["--dialect"]);
  if (!dialect) return std::cerr << "no dialect " << args["--dialect"] << '\n', 1;
  options.dialect = dialect;
  options.relay = uses_iroh(*dialect) ? "http://" + args["--server"] + "/relay" : "ws://" + args["--server"];
  options.data_dir = args["--data"];
  options.handler = handler;
  if (const std::string& material = args["--auth-material-base64"]; !material.empty()) {
    options.config.core_bootstrap.auth_material_base64 = material;
    options.config.iroh_transport.auth_material_relay_base64 = material;
  }
  if (args.contains("--bootstrap")) options.config.core_bootstrap.server_url = "http://" + args["--bootstrap"];
  options.config.core_bootstrap.backoff_min_ms = std::stoul(args["--poll-ms"]);
  options.config.core_bootstrap.backoff_max_ms = 2 * options.config.core_bootstrap.backoff_min_ms;
  options.config.tx5_transport.timeout_s = std::stoul(args["--timeout-s"]);
  const auto gossip = std::stoul(args["--gossip-ms"]);
  options.config.k2_gossip.initiate_interval_ms = gossip == 0 ? 3'600'000 : gossip;
  options.config.k2_gossip.initial_initiate_interval_ms = options.config.k2_gossip.initiate_interval_ms;
  if (gossip != 0) options.config.k2_gossip.min_initiate_interval_ms = gossip / 2;
  const auto set = [&](const char* name, std::uint32_t& value) {
    if (args.contains(name)) value = static_cast<std::uint32_t>(std::stoul(args[name]));
  };
  set("--gossip-jitter-ms", options.config.k2_gossip.initiate_jitter_ms);
  set("--min-gossip-ms", options.config.k2_gossip.min_initiate_interval_ms);
  set("--op-bytes", options.config.k2_gossip.max_gossip_op_bytes);
  set("--op-bytes", options.config.k2_gossip.max_request_gossip_op_bytes);
  set("--accept", options.config.k2_gossip.max_concurrent_accepted_rounds);
  set("--round-timeout-ms", options.config.k2_gossip.round_timeout_ms);

  std::vector<SpaceId> ids;
  for (std::size_t i = 0; i < std::stoul(args["--spaces"]); ++i) {
    ids.push_back(SpaceId::from_text(i == 0 ? args["--space"] : args["--space"] + '-' + std::to_string(i)));
    handler->indexes[ids.back()] = i;
  }

  auto node = Node::start(options);
  if (!node) return std::cerr << node.error().to_string() << '\n', 1;
  Peer peer;
  peer.dialect = *dialect;
  peer.node = std::move(*node);
  for (const auto& id : ids) {
    auto space = peer.node->space(id);
    if (!space) return std::cerr << space.error().to_string() << '\n', 1;
    auto agent = Ed25519LocalAgent::generate();
    agent->set_tgt_storage_arc(arc_of(args["--arc"]));
    peer.agents.push_back(agent->agent());
    peer.spaces.push_back(*space);
    auto joined = peer.node->wait<void>([&](auto h) { (*space)->local_agent_join(agent, std::move(h)); });
    if (!joined) return std::cerr << joined.error().to_string() << '\n', 1;
  }
  peer.own.resize(ids.size());
  peer.peer_counts.assign(ids.size(), SIZE_MAX);
  peer.have.assign(ids.size(), 0);
  auto online = peer.node->wait_online(10min);  // the test decides how long is enough
  if (!online) return std::cerr << online.error().to_string() << '\n', 1;
  say("URL " + online->to_string());

  std::string buffer;
  for (;;) {
    pollfd in{STDIN_FILENO, POLLIN, 0};
    if (::poll(&in, 1, 50) > 0) {
      char chunk[65536];
      const auto n = ::read(STDIN_FILENO, chunk, sizeof chunk);
      if (n <= 0) break;
      buffer.append(chunk, n);
      for (std::size_t end; (end = buffer.find('\n')) != std::string::npos; buffer.erase(0, end + 1)) {
        const auto line = buffer.substr(0, end);
        if (line == "quit") {
          peer.spaces.clear();
          peer.node->stop();
          say("END");
          return 0;
        }
        const auto error = peer.command(line);
        say(error.empty() ? ("OK " + line).substr(0, 60) : "ERR " + error);
      }
    }
    peer.look();
  }
  return 0;
}
