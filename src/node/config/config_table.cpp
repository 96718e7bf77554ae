// The table of all configuration keys.
#include "node/config/config_table.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "core/relay_url.hpp"
#include "net/url_parts.hpp"
#include "node/bootstrap/token_client.hpp"
#include "transport/udp.hpp"

namespace kitsune2::config_table {
namespace {

constexpr std::uint64_t kDayMs = 86'400'000;
constexpr std::uint64_t kU32 = UINT32_MAX;
constexpr std::uint64_t kTiB = 1ULL << 40;

std::string check_bootstrap_url(const std::string& text) {
  if (is_placeholder(text)) return {};
  if (!net::parse_url(text, "http", "https")) return "must be like https://host:port, got \"" + text + '"';
  return {};
}

std::string check_relay_url(const std::string& text) {
  if (is_placeholder(text)) return {};
  if (!canonical_relay_url(text)) return "must be like wss://host:port, got \"" + text + '"';
  return {};
}

std::string check_iroh_relay_url(const std::string& text) {
  if (canonical_relay_url(text, url_form(Dialect::v0_5)).has_error())
    return "must be like https://host:port/path, got \"" + text + '"';
  return {};
}

std::string check_udp_address(const std::string& text) { return fault_of_address(text); }

std::string check_material(const std::string& text) {
  return auth_material(text) ? "" : "must be base64 (standard alphabet, with padding) of 1 to 65536 bytes";
}

std::string check_fetch(const Config& c) {
  if (c.core_fetch.last_back_off_interval_ms < c.core_fetch.first_back_off_interval_ms)
    return "lastBackOffIntervalMs: must not be below firstBackOffIntervalMs";
  if (c.core_fetch.max_pending_per_peer > c.core_fetch.max_pending)
    return "maxPendingPerPeer: must not be above maxPending";
  return {};
}

std::string check_budget(const Config& c) {
  if (c.peer_budget.longest_aside_ms < c.peer_budget.first_aside_ms)
    return "longestAsideMs: must not be below firstAsideMs";
  return {};
}

std::string check_bootstrap(const Config& c) {
  if (c.core_bootstrap.backoff_max_ms < c.core_bootstrap.backoff_min_ms)
    return "backoffMaxMs: must not be below backoffMinMs";
  return {};
}

std::string check_tx5(const Config& c) {
  const auto& t = c.tx5_transport;
  if (t.ephemeral_udp_port_min && t.ephemeral_udp_port_max && *t.ephemeral_udp_port_max < *t.ephemeral_udp_port_min)
    return "ephemeralUdpPortMax: must not be below ephemeralUdpPortMin";
  return {};
}

#define K2_SLOT(member) [](Config& c) -> Slot { return &c.member; }

const std::array kCoreFetch = {
    Key{.name = "parallelRequestCount",
        .slot = K2_SLOT(core_fetch.parallel_request_count),
        .doc = "Unanswered request messages that one peer may have at a time.",
        .min = 1,
        .max = 255},
    Key{.name = "reInsertOutgoingRequestDelayMs",
        .slot = K2_SLOT(core_fetch.re_insert_outgoing_request_delay_ms),
        .doc = "If a requested op has not come after this long, it is requested again, from its next source.",
        .min = 1,
        .max = kDayMs},
    Key{.name = "firstBackOffIntervalMs",
        .slot = K2_SLOT(core_fetch.first_back_off_interval_ms),
        .doc = "First back-off of an unresponsive peer. Each further one is twice as long.",
        .min = 1,
        .max = kDayMs},
    Key{.name = "lastBackOffIntervalMs",
        .slot = K2_SLOT(core_fetch.last_back_off_interval_ms),
        .doc = "Longest back-off of an unresponsive peer.",
        .min = 1,
        .max = kDayMs},
    Key{.name = "numBackOffIntervals",
        .slot = K2_SLOT(core_fetch.num_back_off_intervals),
        .doc = "Number of back-offs after which all requests to the peer are dropped.",
        .min = 1,
        .max = 64},
    Key{.name = "maxParallelRequestCount",
        .slot = K2_SLOT(core_fetch.max_parallel_request_count),
        .doc = "Unanswered request messages that a far peer may have at a time, if its round trip and rate call for "
               "that many. A parallelRequestCount other than the default is obeyed as it is.",
        .min = 1,
        .max = 16'384,
        .reference = false},
    Key{.name = "maxWindowBytes",
        .slot = K2_SLOT(core_fetch.max_window_bytes),
        .doc = "Payload that all unanswered requests to a far peer may ask for together.",
        .min = 1U << 15,
        .max = 1U << 30,
        .reference = false},
    Key{.name = "maxIdsPerRequest",
        .slot = K2_SLOT(core_fetch.max_ids_per_request),
        .doc = "Op ids in one request message. A request also has at most 15 KiB of them (438 ids of 32 bytes), so "
               "that it needs no permit.",
        .min = 1,
        .max = 1U << 20,
        .reference = false},
    Key{.name = "targetRequestBytes",
        .slot = K2_SLOT(core_fetch.target_request_bytes),
        .doc = "Payload that one request aims to ask for, judged by the sizes of ops that the peer has sent.",
        .min = 1,
        .max = 1U << 30,
        .reference = false},
    Key{.name = "maxResponseBytes",
        .slot = K2_SLOT(core_fetch.max_response_bytes),
        .doc = "Payload in one response message. A larger answer is split into several messages.",
        .min = 1,
        .max = 1U << 30,
        .reference = false},
    Key{.name = "maxFarResponseBytes",
        .slot = K2_SLOT(core_fetch.max_far_response_bytes),
        .doc = "The same for large ops to a far peer: larger, so that the wait for the permit is a small part of the "
               "time. It has no effect if maxResponseBytes is not at its default.",
        .min = 1,
        .max = 1U << 30,
        .reference = false},
    Key{.name = "maxIncomingRequestsPerPeer",
        .slot = K2_SLOT(core_fetch.max_incoming_requests_per_peer),
        .doc = "Requests of one peer that may wait for an answer. More are dropped and counted.",
        .min = 1,
        .max = 1U << 20,
        .reference = false},
    Key{.name = "maxPending",
        .slot = K2_SLOT(core_fetch.max_pending),
        .doc = "Pending (op, peer) pairs in all. Requests beyond that are refused.",
        .min = 1,
        .max = kU32,
        .reference = false},
    Key{.name = "maxPendingPerPeer",
        .slot = K2_SLOT(core_fetch.max_pending_per_peer),
        .doc = "Pending pairs of one peer. Requests beyond that are refused.",
        .min = 1,
        .max = kU32,
        .reference = false},
    Key{.name = "maxOfferedBytes",
        .slot = K2_SLOT(core_fetch.max_offered_bytes),
        .doc = "Memory for the requests that peers cause by publish and gossip, at 128 bytes each. Ids beyond that are "
               "dropped. Peers that have not exchanged anything useful yet may use a fifth of it together. One peer "
               "may use a quarter of what the others leave.",
        .min = 1U << 20,
        .max = kTiB,
        .reference = false},
    Key{.name = "acceptUnsolicited",
        .slot = K2_SLOT(core_fetch.accept_unsolicited),
        .doc = "If true, ops that nobody asked for are stored, as in 0.2.2. If false, they are rejected and counted.",
        .reference = false},
    Key{.name = "persistPending",
        .slot = K2_SLOT(core_fetch.persist_pending),
        .doc = "If true and the op store is durable, open requests are kept in it, and a restarted node continues with "
               "them.",
        .reference = false},
};

const std::array kCorePublish = {
    Key{.name = "maxMetadataBytes",
        .slot = K2_SLOT(core_publish.max_metadata_bytes),
        .doc = "Metadata of one op, in bytes. An op with more is neither published nor taken from a peer.",
        .max = 65'536,
        .since = "0.5.3"},
    Key{.name = "maxIdsPerMessage",
        .slot = K2_SLOT(core_publish.max_ids_per_message),
        .doc = "Op ids in one publish message. A publish with more, or too large for the transport, is split.",
        .min = 1,
        .max = 1U << 20,
        .reference = false},
};

const std::array kCoreBootstrap = {
    Key{.name = "serverUrl",
        .slot = K2_SLOT(core_bootstrap.server_url),
        .doc = "The url of the bootstrap server, http or https.",
        .check = check_bootstrap_url},
    Key{.name = "backoffMinMs",
        .slot = K2_SLOT(core_bootstrap.backoff_min_ms),
        .doc = "First wait of the put and poll loops.",
        .min = 1,
        .max = kDayMs,
        .at_run_time = true},
    Key{.name = "backoffMaxMs",
        .slot = K2_SLOT(core_bootstrap.backoff_max_ms),
        .doc = "Longest wait of the put and poll loops.",
        .min = 1,
        .max = kDayMs,
        .at_run_time = true},
    Key{.name = "authMaterialBase64",
        .slot = K2_SLOT(core_bootstrap.auth_material_base64),
        .doc =
            "What the server's authentication asks for, in base64 with padding: it is put to /authenticate, and each "
            "request carries the token of the answer. Null: no authentication. A key of kitsune2 0.5.3.",
        .reference = false,
        .check = check_material},
    Key{.name = "maxResponseBytes",
        .slot = K2_SLOT(core_bootstrap.max_response_bytes),
        .doc = "A longer answer of the server is refused.",
        .min = 1024,
        .max = 1U << 30,
        .reference = false,
        .at_run_time = true},
    Key{.name = "stopPatienceMs",
        .slot = K2_SLOT(core_bootstrap.stop_patience_ms),
        .doc = "How long a stop waits for the server to accept the last agent infos.",
        .min = 0,
        .max = kDayMs,
        .reference = false,
        .at_run_time = true},
};

const std::array kCoreSpace = {
    Key{.name = "reSignFreqMs",
        .slot = K2_SLOT(core_space.re_sign_freq_ms),
        .doc = "How often own agent infos are checked for their expiry.",
        .min = 1,
        .max = kDayMs,
        .at_run_time = true},
    Key{.name = "reSignExpireTimeMs",
        .slot = K2_SLOT(core_space.re_sign_expire_time_ms),
        .doc = "An info that expires within this time is signed again. Infos are valid for 20 minutes.",
        .min = 0,
        .max = kDayMs,
        .at_run_time = true},
};

const std::array kMemBootstrap = {
    Key{.name = "testId",
        .slot = K2_SLOT(mem_bootstrap.test_id),
        .doc = "Nodes of one memory network that have the same id find each other."},
    Key{.name = "pollFreqMs",
        .slot = K2_SLOT(mem_bootstrap.poll_freq_ms),
        .doc = "How often the peer store is updated.",
        .min = 1,
        .max = kDayMs,
        .at_run_time = true},
};

const std::array kNetwork = {
    Key{.name = "dialect",
        .slot = K2_SLOT(network.dialect),
        .doc =
            "The range of kitsune2 versions whose wire the node speaks. Null: that of what is in the data folder; "
            "else, "
            "if a relay is set, the one whose relays have such urls (ws, wss: 0.2; http, https: 0.5); else 0.5 (0.2 in "
            "a build without QUIC).",
        .reference = false},
    Key{.name = "tlsCaFile",
        .slot = K2_SLOT(network.tls_ca_file),
        .doc = "A PEM file with certificates to trust in addition to the system's, for wss and https relays "
               "and https bootstrap servers.",
        .reference = false},
};

const std::array kTx5Transport = {
    Key{.name = "serverUrl",
        .slot = K2_SLOT(tx5_transport.server_url),
        .doc = "The url of the sbd relay: wss, or ws if signalAllowPlainText is set.",
        .check = check_relay_url},
    Key{.name = "signalAllowPlainText",
        .slot = K2_SLOT(tx5_transport.signal_allow_plain_text),
        .doc = "Allow a relay without TLS."},
    Key{.name = "timeoutS",
        .slot = K2_SLOT(tx5_transport.timeout_s),
        .doc = "Limit, in seconds, of a connect, a send and an idle connection. Below 8 s a connect, and below 4 s "
               "each of them, is still given the time that an answer over a slow line needs (protocol-tx5.md).",
        .min = Tx5TransportConfig::kTimeoutS.least,
        .max = Tx5TransportConfig::kTimeoutS.most},
    Key{.name = "webrtcConfig",
        .slot = [](Config& c) -> Slot { return JsonText{&c.tx5_transport.webrtc_config}; },
        .doc = "Accepted and kept, but without effect, because this node speaks only through the relay."},
    Key{.name = "tracingEnabled",
        .slot = K2_SLOT(tx5_transport.tracing_enabled),
        .doc = "Accepted and kept, but without effect (WebRTC)."},
    Key{.name = "ephemeralUdpPortMin",
        .slot = K2_SLOT(tx5_transport.ephemeral_udp_port_min),
        .doc = "Accepted and kept, but without effect (WebRTC).",
        .min = 0,
        .max = 65'535},
    Key{.name = "ephemeralUdpPortMax",
        .slot = K2_SLOT(tx5_transport.ephemeral_udp_port_max),
        .doc = "Accepted and kept, but without effect (WebRTC).",
        .min = 0,
        .max = 65'535},
    Key{.name = "messageSizeMax",
        .slot = K2_SLOT(tx5_transport.message_size_max),
        .doc = "Size of an incoming message in bytes. A larger one is refused and its connection closed.",
        .min = Tx5TransportConfig::kMessageSizeMax.least,
        .max = Tx5TransportConfig::kMessageSizeMax.most,
        .reference = false},
    Key{.name = "maxQueueBytesPerPeer",
        .slot = K2_SLOT(tx5_transport.max_queue_bytes_per_peer),
        .doc = "Bytes that may wait to be sent to one peer.",
        .min = Tx5TransportConfig::kMaxQueueBytesPerPeer.least,
        .max = Tx5TransportConfig::kMaxQueueBytesPerPeer.most,
        .reference = false},
    Key{.name = "maxPeers",
        .slot = K2_SLOT(tx5_transport.max_peers),
        .doc = "Connections at a time.",
        .min = Tx5TransportConfig::kMaxPeers.least,
        .max = Tx5TransportConfig::kMaxPeers.most,
        .reference = false},
    Key{.name = "tlsCaFile",
        .slot = K2_SLOT(network.tls_ca_file),
        .doc = "The old name of `network.tlsCaFile`. It is an error to give both.",
        .reference = false,
        .now = "network.tlsCaFile"},
};

const std::array kIrohTransport = {
    Key{.name = "relayUrl",
        .slot = K2_SLOT(iroh_transport.relay_url),
        .doc = "The url of the iroh relay, written as all peers write it: https, or http if relayAllowPlainText is "
               "set. A node whose dialect uses iroh needs it. In the reference null means the public relays of a third "
               "party; this node never uses them unasked.",
        .check = check_iroh_relay_url},
    Key{.name = "relayAllowPlainText",
        .slot = K2_SLOT(iroh_transport.relay_allow_plain_text),
        .doc = "Allow a relay without TLS."},
    Key{.name = "maxFrameBytes",
        .slot = K2_SLOT(iroh_transport.max_frame_bytes),
        .doc = "Size of a message with its header in bytes. A larger one is refused, and the stream that brings it.",
        .min = IrohTransportConfig::kMaxFrameBytes.least,
        .max = IrohTransportConfig::kMaxFrameBytes.most},
    Key{.name = "connectTimeoutS",
        .slot = K2_SLOT(iroh_transport.connect_timeout_s),
        .doc = "Limit, in seconds, of a connect and of what waits for it.",
        .min = IrohTransportConfig::kConnectTimeoutS.least,
        .max = IrohTransportConfig::kConnectTimeoutS.most},
    Key{.name = "authMaterialRelayBase64",
        .slot = K2_SLOT(iroh_transport.auth_material_relay_base64),
        .doc = "What the authentication of the relay's server asks for, in base64 with padding: it is put to "
               "/authenticate, and the relay is presented the token of the answer. Null: no authentication. A key of "
               "kitsune2 0.5.3, which has it for single spaces only.",
        .check = check_material},
    Key{.name = "relayKeepaliveIntervalS",
        .slot = K2_SLOT(iroh_transport.relay_keepalive_interval_s),
        .doc = "How often, in seconds, the relay's server is told that this endpoint is still there. No effect without "
               "authMaterialRelayBase64. Servers of kitsune2 forget it after five minutes.",
        .min = 1,
        .max = kU32},
    Key{.name = "maxQueueBytesPerPeer",
        .slot = K2_SLOT(iroh_transport.max_queue_bytes_per_peer),
        .doc = "Bytes that may wait to be sent to one peer.",
        .min = IrohTransportConfig::kMaxQueueBytesPerPeer.least,
        .max = IrohTransportConfig::kMaxQueueBytesPerPeer.most,
        .reference = false},
    Key{.name = "maxPeers",
        .slot = K2_SLOT(iroh_transport.max_peers),
        .doc = "Connections at a time.",
        .min = IrohTransportConfig::kMaxPeers.least,
        .max = IrohTransportConfig::kMaxPeers.most,
        .reference = false},
    Key{.name = "keepEndpointKey",
        .slot = K2_SLOT(iroh_transport.keep_endpoint_key),
        .doc = "Keep the endpoint's key in the data folder (node.key), so that the node has the same url after a "
               "restart. As in the reference, each start makes a fresh one otherwise. In dialect 0.5, a node that was "
               "killed and starts again within a minute may reach about half of the peers only after up to 60 s: they "
               "still hold its old connection, and it counts.",
        .reference = false},
    Key{.name = "directPaths",
        .slot = K2_SLOT(iroh_transport.direct_paths),
        .doc = "Reach other nodes of this implementation by UDP where that works, beside the relay. Peers that have "
               "been heard in a common space are told this node's addresses. False: everything goes through the relay, "
               "nobody is told an address, and no UDP socket is opened.",
        .reference = false},
    Key{.name = "directBindAddress",
        .slot = K2_SLOT(iroh_transport.direct_bind_address),
        .doc = "Address and port of the UDP socket, like 0.0.0.0:7000 or [::]:7000. Null: all addresses, or loopback "
               "where the relay is on loopback, and a free port. Peers take ports from 1024 on.",
        .reference = false,
        .check = check_udp_address},
    Key{.name = "directExternalAddress",
        .slot = K2_SLOT(iroh_transport.direct_external_address),
        .doc = "Address and port under which peers outside reach the UDP socket, for example where a router forwards "
               "a port. It is told to them besides the addresses of the machine.",
        .reference = false,
        .check = check_udp_address},
};

const std::array kK2Gossip = {
    Key{.name = "maxGossipOpBytes",
        .slot = K2_SLOT(k2_gossip.max_gossip_op_bytes),
        .doc = "Payload of the ops whose ids this node asks for in one round.",
        .min = 0,
        .max = kU32,
        .at_run_time = true},
    Key{.name = "maxRequestGossipOpBytes",
        .slot = K2_SLOT(k2_gossip.max_request_gossip_op_bytes),
        .doc = "Payload of the ops whose ids this node announces in one round, whatever the peer asks for.",
        .min = 0,
        .max = kU32,
        .at_run_time = true},
    Key{.name = "initialInitiateIntervalMs",
        .slot = K2_SLOT(k2_gossip.initial_initiate_interval_ms),
        .doc = "Longest wait before the first round (the waits start at 10 ms and grow by a factor of 1.2), and "
               "shortest one before a round that follows for what the storage arcs still lack. Null: 5000 in dialect "
               "0.2, 1000 in later ones, as in 0.2.2 and 0.5.3.",
        .min = 1,
        .max = kDayMs,
        .at_run_time = true},
    Key{.name = "initiateIntervalMs",
        .slot = K2_SLOT(k2_gossip.initiate_interval_ms),
        .doc = "Wait between the rounds that this node starts.",
        .min = 1,
        .max = kDayMs,
        .at_run_time = true},
    Key{.name = "initiateJitterMs",
        .slot = K2_SLOT(k2_gossip.initiate_jitter_ms),
        .doc = "Largest random addition to that wait.",
        .min = 0,
        .max = kDayMs,
        .at_run_time = true},
    Key{.name = "minInitiateIntervalMs",
        .slot = K2_SLOT(k2_gossip.min_initiate_interval_ms),
        .doc = "Time after a round with a stock peer in which this node starts none with it; in dialects 0.4 and 0.5: "
               "none without a reason. How many rounds a peer may start is said by the next two keys; in dialect 0.2 "
               "it may always start one when this time has passed.",
        .min = 0,
        .max = kDayMs,
        .at_run_time = true},
    Key{.name = "initiateBurstFactor",
        .slot = K2_SLOT(k2_gossip.initiate_burst_factor),
        .doc = "A stock peer may start initiateBurstFactor × initiateBurstWindowCount rounds (at most 1000 count) in "
               "initiateBurstWindowCount × initiateIntervalMs.",
        .min = 0,
        .max = 10'000,
        .at_run_time = true,
        .since = "0.2.8"},
    Key{.name = "initiateBurstWindowCount",
        .slot = K2_SLOT(k2_gossip.initiate_burst_window_count),
        .doc = "See initiateBurstFactor.",
        .min = 0,
        .max = 10'000,
        .at_run_time = true,
        .since = "0.2.8"},
    Key{.name = "roundTimeoutMs",
        .slot = K2_SLOT(k2_gossip.round_timeout_ms),
        .doc = "A round that takes longer is forgotten.",
        .min = 1,
        .max = kDayMs,
        .at_run_time = true},
    Key{.name = "maxConcurrentAcceptedRounds",
        .slot = K2_SLOT(k2_gossip.max_concurrent_accepted_rounds),
        .doc = "Rounds of others at a time; more are answered with BUSY. 0 means no limit.",
        .min = 0,
        .max = kU32,
        .at_run_time = true},
};

const std::array kPeerBudget = {
    Key{.name = "peerMsPerSecond",
        .slot = K2_SLOT(peer_budget.peer_ms_per_second),
        .doc = "Work that one peer may cause, in milliseconds of one core per second. What turns out useful is given "
               "back.",
        .min = 1,
        .max = 64'000,
        .reference = false},
    Key{.name = "peerBurstMs",
        .slot = K2_SLOT(peer_budget.peer_burst_ms),
        .doc = "Work that one peer may cause at once. Catching up with 1,000,000 ops takes 2,300 before anything is "
               "given back.",
        .min = 1,
        .max = kDayMs,
        .reference = false},
    Key{.name = "groupMsPerSecond",
        .slot = K2_SLOT(peer_budget.group_ms_per_second),
        .doc = "Work that all newcomers of one address may cause per second, if the relay is inside the node and "
               "reports addresses.",
        .min = 1,
        .max = 64'000,
        .reference = false},
    Key{.name = "groupBurstMs",
        .slot = K2_SLOT(peer_budget.group_burst_ms),
        .doc = "Work that they may cause at once.",
        .min = 1,
        .max = kDayMs,
        .reference = false},
    Key{.name = "newcomersMsPerSecond",
        .slot = K2_SLOT(peer_budget.newcomers_ms_per_second),
        .doc = "Work that all newcomers without a known address, such as those behind another relay, may cause per "
               "second.",
        .min = 1,
        .max = 64'000,
        .reference = false},
    Key{.name = "newcomersBurstMs",
        .slot = K2_SLOT(peer_budget.newcomers_burst_ms),
        .doc = "Work that they may cause at once.",
        .min = 1,
        .max = kDayMs,
        .reference = false},
    Key{.name = "firstAsideMs",
        .slot = K2_SLOT(peer_budget.first_aside_ms),
        .doc = "How long a peer is put aside that goes on although it is over its budget. Doubled each time.",
        .min = 1,
        .max = kDayMs,
        .reference = false},
    Key{.name = "longestAsideMs",
        .slot = K2_SLOT(peer_budget.longest_aside_ms),
        .doc = "The longest time for which a peer is put aside.",
        .min = 1,
        .max = kDayMs,
        .reference = false},
};

#undef K2_SLOT

constexpr bool uses_tx5(Dialect dialect) { return !uses_iroh(dialect); }

const std::array kSections = {
    Section{"coreFetch", "Fetching ops from peers, and serving ops to them.", kCoreFetch, check_fetch},
    Section{"corePublish", "Announcing new ops and agents to peers.", kCorePublish},
    Section{"peerBudget", "How much work a peer may cause.", kPeerBudget, check_budget},
    Section{"coreBootstrap", "Finding the first peers through a bootstrap server.", kCoreBootstrap, check_bootstrap},
    Section{"coreSpace", "Signing the node's own agent infos again before they expire.", kCoreSpace},
    Section{"memBootstrap", "Finding peers inside one process, for tests.", kMemBootstrap},
    Section{"network", "Settings for all connections.", kNetwork},
    Section{"tx5Transport", "Connections to peers through a relay, in dialect 0.2.", kTx5Transport, check_tx5, "0.2.2",
            uses_tx5},
    Section{"irohTransport", "Connections to peers through an iroh relay, in dialects 0.4 and 0.5.", kIrohTransport,
            nullptr, "0.5.3", uses_iroh},
    Section{"k2Gossip", "Finding ops and agents that publish missed.", kK2Gossip},
};

std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

}  // namespace

std::span<const Section> sections() { return kSections; }

bool is_placeholder(std::string_view url) {
  return url == "<https://your.bootstrap.url>" || url == "<wss://your.sbd.url>";
}

Result<net::UrlParts> bootstrap_server(const CoreBootstrapConfig& config) {
  const std::string problem = is_placeholder(config.server_url) ? "is not set" : check_bootstrap_url(config.server_url);
  if (!problem.empty()) return make_error(Errc::invalid_config, "coreBootstrap.serverUrl: " + problem);
  return net::parse_url(config.server_url, "http", "https");
}

Nearest nearest(std::string_view name, std::span<const std::string_view> names) {
  Nearest best{{}, SIZE_MAX};
  // A name of a megabyte is close to nothing, and not worth the table.
  name = name.substr(0, 128);
  for (const std::string_view candidate : names) {
    const std::size_t count = edits(name, candidate);
    if (count < best.edits) best = {candidate, count};
  }
  return best;
}

}  // namespace kitsune2::config_table
