// A node's figures as Prometheus text, and whether it is well.
#include "node/metrics.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "server/exposition.hpp"

namespace kitsune2 {

using server::Exposition;
using server::quoted_label;

namespace {

constexpr Duration kRefresh = std::chrono::seconds(5);
/// How long a node is not well after damage was found. *Rationale*: a disk that lost bits once is likely to lose more.
constexpr Duration kShowsDamage = std::chrono::hours(1);

struct FetchCounter {
  const char* name;
  const char* help;
  std::uint64_t FetchStats::*value;
};
constexpr FetchCounter kFetchCounters[] = {
    {"kitsune2_fetch_ops_fetched_total", "Ops that this node asked for and has stored.", &FetchStats::ops_fetched},
    {"kitsune2_fetch_fetched_bytes_total", "Payload of those ops.", &FetchStats::bytes_fetched},
    {"kitsune2_fetch_ops_served_total", "Ops sent to peers.", &FetchStats::ops_served},
    {"kitsune2_fetch_served_bytes_total", "Payload of those ops.", &FetchStats::bytes_served},
    {"kitsune2_fetch_requests_sent_total", "Request messages sent.", &FetchStats::requests_sent},
    {"kitsune2_fetch_requests_failed_total", "Request messages that could not be sent.", &FetchStats::requests_failed},
    {"kitsune2_fetch_requests_overdue_total", "Requests that were not answered in time.",
     &FetchStats::requests_overdue},
    {"kitsune2_fetch_requests_received_total", "Request messages received.", &FetchStats::requests_received},
    {"kitsune2_fetch_requests_refused_total", "Request messages dropped because too many were waiting.",
     &FetchStats::requests_refused},
    {"kitsune2_fetch_ops_not_held_total", "Ops that peers asked for and this node does not hold.",
     &FetchStats::ops_not_held},
    {"kitsune2_fetch_ops_unsolicited_total", "Ops rejected because they were not asked for.",
     &FetchStats::ops_unsolicited},
    {"kitsune2_fetch_ops_invalid_total", "Ops that the policy of the application or the store refused.",
     &FetchStats::ops_invalid},
    {"kitsune2_fetch_ops_duplicate_total", "Ops that came twice, or late.", &FetchStats::ops_duplicate},
    {"kitsune2_fetch_peers_put_aside_total",
     "Times that a peer was put aside for ops that are invalid or were not asked for.", &FetchStats::peers_put_aside},
    {"kitsune2_fetch_store_failures_total", "Writes that failed in the op store.", &FetchStats::store_failures},
    {"kitsune2_fetch_pairs_given_up_total", "Requests dropped because the peer was unresponsive.",
     &FetchStats::pairs_dropped_unresponsive},
    {"kitsune2_fetch_pairs_unserved_total", "Requests dropped because the peer never sent the op.",
     &FetchStats::pairs_dropped_unserved},
    {"kitsune2_fetch_ops_too_large_total", "Ops that peers asked for and that no message can carry.",
     &FetchStats::ops_too_large},
    {"kitsune2_fetch_metadata_dropped_total", "Ops that are fetched without their metadata: there was no room for it.",
     &FetchStats::metadata_dropped},
};

struct PublishCounter {
  const char* name;
  const char* help;
  std::uint64_t PublishStats::*value;
};
constexpr PublishCounter kPublishCounters[] = {
    {"kitsune2_publish_ops_sent_total", "Op ids published to peers.", &PublishStats::ops_sent},
    {"kitsune2_publish_agents_sent_total", "Agent infos published to peers.", &PublishStats::agents_sent},
    {"kitsune2_publish_send_failures_total", "Publish messages that could not be sent.", &PublishStats::send_failures},
    {"kitsune2_publish_ops_received_total", "Op ids that peers published.", &PublishStats::ops_received},
    {"kitsune2_publish_ops_refused_total", "Of those, dropped because a bound was reached.",
     &PublishStats::ops_refused},
    {"kitsune2_publish_agents_received_total", "Agent infos that peers published.", &PublishStats::agents_received},
    {"kitsune2_publish_agents_invalid_total", "Of those, malformed or with a wrong signature.",
     &PublishStats::agents_invalid},
    {"kitsune2_publish_agents_refused_total", "Of those, of another space or with times that are not credible.",
     &PublishStats::agents_refused},
    {"kitsune2_publish_agents_rate_limited_total", "Of those, dropped unread because the peer sent too many.",
     &PublishStats::agents_rate_limited},
};

struct GossipCounter {
  const char* name;
  const char* help;
  std::uint64_t GossipStats::*value;
};
constexpr GossipCounter kGossipCounters[] = {
    {"kitsune2_gossip_rounds_initiated_total", "Rounds started by this node.", &GossipStats::initiated},
    {"kitsune2_gossip_rounds_accepted_total", "Rounds started by peers.", &GossipStats::accepted},
    {"kitsune2_gossip_rounds_completed_total", "Rounds that were completed.", &GossipStats::completed},
    {"kitsune2_gossip_discs_compared_total", "Rounds that found a difference in ops older than about a week.",
     &GossipStats::discs_compared},
    {"kitsune2_gossip_rings_compared_total", "Rounds that found a difference in younger ops.",
     &GossipStats::rings_compared},
    {"kitsune2_gossip_timeouts_total", "Rounds given up because the peer did not answer.", &GossipStats::timeouts},
    {"kitsune2_gossip_busy_sent_total", "Rounds refused because too many were under way.", &GossipStats::busy_sent},
    {"kitsune2_gossip_too_soon_total", "Rounds ignored because they came too soon after the last one.",
     &GossipStats::too_soon},
    {"kitsune2_gossip_peer_errors_total", "Messages that broke the protocol.", &GossipStats::peer_errors},
    {"kitsune2_gossip_ops_named_total", "Op ids sent to peers.", &GossipStats::ops_named},
    {"kitsune2_gossip_ops_learned_total", "Op ids received from peers.", &GossipStats::ops_learned},
    {"kitsune2_gossip_agents_learned_total", "Agent infos accepted from peers.", &GossipStats::agents_learned},
};

struct ReportCounter {
  const char* space_name;
  const char* space_help;
  const char* peer_name;
  const char* peer_help;
  std::uint64_t PeerReport::*value;
};
constexpr ReportCounter kReportCounters[] = {
    {"kitsune2_report_ops_fetched_total", "Ops fetched from peers.", "kitsune2_peer_ops_fetched_total",
     "Ops fetched from this peer.", &PeerReport::ops_fetched},
    {"kitsune2_report_fetched_bytes_total", "Payload of those ops.", "kitsune2_peer_fetched_bytes_total",
     "Payload of those ops.", &PeerReport::bytes_fetched},
    {"kitsune2_report_ops_served_total", "Ops served to peers.", "kitsune2_peer_ops_served_total",
     "Ops served to this peer.", &PeerReport::ops_served},
    {"kitsune2_report_served_bytes_total", "Payload of those ops.", "kitsune2_peer_served_bytes_total",
     "Payload of those ops.", &PeerReport::bytes_served},
    {"kitsune2_report_failures_total", "Peers given up.", "kitsune2_peer_failures_total",
     "Times this peer was given up.", &PeerReport::failures},
};

void add_budget(Exposition& out, const PeerBudgetStats& stats) {
  out.add("kitsune2_budget_waits_total", "counter", "Work of peers over their budget that was left undone.", "",
          stats.waits);
  out.add("kitsune2_budget_put_aside_total", "counter", "Peers put aside: over their budget, and they went on.", "",
          stats.put_aside);
  out.add("kitsune2_budget_refused_total", "counter", "Connections of peers that are put aside.", "", stats.refused);
  out.add("kitsune2_budget_known_peers", "gauge", "Peers known by useful exchange.", "", stats.known);
  out.add("kitsune2_budget_aside", "gauge", "Urls, agents and addresses that are put aside.", "", stats.aside);
}

void add_transport(Exposition& out, const TransportStats& transport) {
  out.add("kitsune2_up", "gauge", "Whether the node has a url.", "", transport.peer_urls.empty() ? 0 : 1);
  out.add("kitsune2_transport_connections", "gauge", "Open connections.", "", transport.connections.size());
  const auto direct = std::ranges::count_if(transport.connections, &TransportConnectionStats::is_direct);
  out.add("kitsune2_transport_direct_connections", "gauge", "Of those, the ones that do not go through the relay.", "",
          static_cast<std::uint64_t>(direct));
  std::uint64_t sent = 0, received = 0, sent_bytes = 0, received_bytes = 0;
  for (const auto& c : transport.connections) {
    sent += c.send_message_count, received += c.recv_message_count;
    sent_bytes += c.send_bytes, received_bytes += c.recv_bytes;
  }
  out.add("kitsune2_transport_open_sent_messages", "gauge", "Messages sent over the open connections.", "", sent);
  out.add("kitsune2_transport_open_sent_bytes", "gauge", "Bytes sent over the open connections.", "", sent_bytes);
  out.add("kitsune2_transport_open_received_messages", "gauge", "Messages received over the open connections.", "",
          received);
  out.add("kitsune2_transport_open_received_bytes", "gauge", "Bytes received over the open connections.", "",
          received_bytes);
  out.add("kitsune2_transport_blocked_total", "counter", "Connections and messages that were refused.", "",
          transport.blocked_message_count);
}

/// Of one space, but for its store.
void add_space(Exposition& out, Space& space, const std::string& label) {
  const FetchStats fetch = space.fetch().stats();
  for (const auto& c : kFetchCounters) out.add(c.name, "counter", c.help, label, fetch.*c.value);
  const auto latency = [&](const char* name, const char* help, const LatencyHistogram& of) {
    out.add_histogram(name, help, label, LatencyHistogram::kBounds, of.counts, of.sum_seconds);
  };
  latency("kitsune2_fetch_answer_seconds", "From a request to the first part of its answer.", fetch.answers);
  latency("kitsune2_fetch_store_write_seconds", "Writes of fetched ops into the op store.", fetch.store_writes);
  out.add("kitsune2_fetch_pending_ops", "gauge", "Ops to be fetched.", label, space.fetch().pending_ops());
  const PublishStats publish = space.publish().stats();
  for (const auto& c : kPublishCounters) out.add(c.name, "counter", c.help, label, publish.*c.value);
  const GossipStats gossip = space.gossip().stats();
  for (const auto& c : kGossipCounters) out.add(c.name, "counter", c.help, label, gossip.*c.value);
  const GossipCoverage coverage = space.gossip().coverage();
  out.add("kitsune2_gossip_target_sectors", "gauge", "Sectors that own agents want to hold.", label,
          coverage.target_sectors);
  out.add("kitsune2_gossip_storage_sectors", "gauge", "Sectors that own agents claim to hold.", label,
          coverage.storage_sectors);
  out.add("kitsune2_gossip_in_sync_sectors", "gauge", "Sectors of the target found in sync with a peer.", label,
          coverage.in_sync_sectors);
  out.add("kitsune2_peers", "gauge", "Agents known.", label, space.peer_store().get_all().size());
  out.add("kitsune2_local_agents", "gauge", "Own agents.", label, space.local_agent_store().get_all().size());
}

/// `store`: null while it has not answered: its figures are not a number then, and not absent.
void add_store(Exposition& out, const OpStoreStats* store, const std::string& label) {
  const auto figure = [&](std::uint64_t OpStoreStats::*value) {
    return store != nullptr ? static_cast<double>(store->*value) : std::numeric_limits<double>::quiet_NaN();
  };
  out.add_real("kitsune2_store_ops", "gauge", "Ops held.", label, figure(&OpStoreStats::ops));
  out.add_real("kitsune2_store_bytes", "gauge", "Payload of the ops held.", label, figure(&OpStoreStats::bytes));
  out.add_real("kitsune2_store_damaged_ops_total", "counter", "Ops found damaged on the disk, and dropped.", label,
               figure(&OpStoreStats::damaged));
  out.add_real("kitsune2_store_mended_entries_total", "counter", "Entries of ops that were wrong and set right.", label,
               figure(&OpStoreStats::mended));
}

void add_reports(Exposition& out, const Report& reports) {
  for (const auto& [id, report] : reports.snapshot()) {
    const std::string label = "space=" + quoted_label(id.to_string());
    for (const auto& c : kReportCounters) out.add(c.space_name, "counter", c.space_help, label, report.total.*c.value);
    for (const auto& [url, peer] : report.peers) {
      const std::string both = label + ",peer=" + quoted_label(url.to_string());
      for (const auto& c : kReportCounters) out.add(c.peer_name, "counter", c.peer_help, both, peer.*c.value);
    }
  }
}

}  // namespace

NodeMetrics::NodeMetrics(Runtime& runtime, std::weak_ptr<Kitsune> kitsune, std::string relay,
                         std::function<std::string()> more)
    : runtime_(runtime), kitsune_(std::move(kitsune)), relay_(std::move(relay)), more_(std::move(more)) {}

NodeMetrics::~NodeMetrics() { runtime_.cancel(timer_); }

void NodeMetrics::start() { refresh(); }

void NodeMetrics::refresh() {
  if (auto kitsune = kitsune_.lock()) {
    for (const SpaceId& id : kitsune->list_spaces()) ask_store(id);
  }
  timer_ = runtime_.schedule_after(kRefresh, [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->refresh();
  });
}

void NodeMetrics::ask_store(const SpaceId& id) {
  const auto kitsune = kitsune_.lock();
  const auto space = kitsune ? kitsune->space_if_exists(id) : nullptr;
  if (!space) return;
  space->op_store().stats([weak = weak_from_this(), id](const Result<OpStoreStats>& stats) {
    auto self = weak.lock();
    if (!self || !stats) return;
    Store& store = self->stores_[id];
    if (stats->damaged > store.stats.damaged) store.damaged_at = self->runtime_.now();
    store.stats = *stats;
  });
}

std::string NodeMetrics::render() const {
  Exposition out;
  if (const auto kitsune = kitsune_.lock()) {
    add_transport(out, kitsune->transport().stats());
    add_budget(out, kitsune->budget().stats());
    const auto spaces = kitsune->list_spaces();
    out.add("kitsune2_spaces", "gauge", "Spaces.", "", spaces.size());
    for (const SpaceId& id : spaces) {
      const auto space = kitsune->space_if_exists(id);
      if (!space) continue;
      const std::string label = "space=" + quoted_label(id.to_string());
      const auto store = stores_.find(id);
      add_space(out, *space, label);
      add_store(out, store == stores_.end() ? nullptr : &store->second.stats, label);
    }
    add_reports(out, kitsune->report());
  }
  return out.str() + (more_ ? more_() : std::string()) + server::process_metrics();
}

std::optional<std::string> NodeMetrics::problem() const {
  const auto kitsune = kitsune_.lock();
  if (!kitsune) return "the node is stopped";
  if (!relay_.empty() && !kitsune->transport().url()) return "no connection to the relay " + relay_;
  for (const SpaceId& id : kitsune->list_spaces()) {
    const auto space = kitsune->space_if_exists(id);
    if (!space) continue;
    if (const auto failure = space->recent_store_failure())
      return "the op store of space " + id.to_string() + ": " + failure->to_string();
    const auto store = stores_.find(id);
    if (store != stores_.end() && store->second.damaged_at && runtime_.now() - *store->second.damaged_at < kShowsDamage)
      return "the op store of space " + id.to_string() + ": ops were damaged on the disk and dropped, " +
             std::to_string(store->second.stats.damaged) + " since the start";
  }
  return std::nullopt;
}

}  // namespace kitsune2
