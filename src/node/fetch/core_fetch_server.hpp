// Answers other peers' fetch requests.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "kitsune2/fetch.hpp"
#include "kitsune2/op_store.hpp"
#include "kitsune2/runtime.hpp"
#include "kitsune2/transport.hpp"
#include "log/log.hpp"
#include "wire/fetch_messages.hpp"

namespace kitsune2 {

/// The queue of incoming requests. Strand only.
///
/// *Rules*. S1: the requests of one peer are answered in the order in which they came, one store read and one send at a
/// time; peers take turns, message by message. S2: what is held is sent, what is not is counted and logged; nothing is
/// sent if nothing is held. S3: a response has at most `max_response_bytes` of payload (one larger op goes alone); the
/// next one is read while the transport takes the last one, and no further. *Rationale*: a durable store reads about as
/// fast as a message leaves. A read is of at most kMaxIdsPerRead ids, of kSharedIdsPerRead while other peers are served
/// too. *Rationale*: nobody waits behind a long read for a peer that asks for much at once. Requests of our nodes are
/// shorter, so it costs them nothing. S4: a response that cannot be sent ends its request, and the next one if a part
/// of it was read meanwhile; asking again is the requester's matter. S5: bounds: `max_incoming_requests_per_peer`
/// requests and kMaxQueuedBytes of them wait for one peer (kMaxAllQueuedBytes for all), further ones are refused and
/// counted; all reads and responses under way together are held to kMaxServingBytes for peers that have shown that they
/// listen, and to as much for the others. *Rationale*: a request is small and its answer is large; a peer that asks and
/// does not listen must cost little. S6: a peer has shown it when it took kProvenBytes on this connection. Until then a
/// response has at most kTrust times what it took so far (the first one kFirstResponseBytes, none over kProvenBytes),
/// and if it has not taken one within kPatience while others wait for room, it is disconnected. *Rationale*: a response
/// that needs the receiver's permit stays in memory until that comes. Peers that ask for much and never permit it would
/// else have all the room, and nobody else an answer. The first response needs no permit, so a newcomer never waits
/// behind them.
class FetchServer {
 public:
  static constexpr std::uint64_t kMaxServingBytes = 64U << 20;
  static constexpr std::uint64_t kFirstResponseBytes = 12U << 10;
  static constexpr std::uint64_t kTrust = 4;
  static constexpr std::uint64_t kProvenBytes = 1U << 20;
  /// See `busy`.
  static constexpr Duration kBusyFor = std::chrono::milliseconds(100);
  static constexpr Duration kPatience = std::chrono::seconds(10);
  static constexpr std::uint64_t kMaxQueuedBytes = 8U << 20;
  static constexpr std::uint64_t kMaxAllQueuedBytes = 64U << 20;
  static constexpr std::size_t kMaxIdsPerRead = 4096;
  static constexpr std::size_t kSharedIdsPerRead = 512;
  /// Reads under way: each may bring one op that is larger than what was counted for it.
  static constexpr std::size_t kMaxReads = 16;
  /// Counted for each request that waits, besides its ids.
  static constexpr std::uint64_t kRequestBytes = 4096;

  using Served = std::function<void(const Url& peer, std::uint64_t ops, std::uint64_t bytes)>;

  /// `stats` outlives this; `served` is called when the transport took a response.
  FetchServer(Runtime& runtime, const CoreFetchConfig& config, const SpaceId& space, std::shared_ptr<OpStore> store,
              std::shared_ptr<Transport> transport, FetchStats& stats, Served served);
  ~FetchServer() { runtime_.cancel(timer_); }
  FetchServer(const FetchServer&) = delete;
  FetchServer& operator=(const FetchServer&) = delete;

  void request(const Url& peer, wire::IdList op_ids);
  /// The peer's connection is gone: its requests are dropped.
  void forget(const Url& peer);
  /// Drops everything.
  void stop();
  std::size_t reads_under_way() const { return reads_; }
  /// Peers wait for answers, or a moment ago did.
  bool busy() const { return !peers_.empty() || runtime_.now() < busy_until_; }
  /// Called whenever a read ends and none is left.
  void on_idle(std::function<void()> callback) { idle_ = std::move(callback); }

 private:
  struct Request {
    wire::IdList ids;
    wire::IdList::iterator next;
    bool begun = false;
  };
  /// S6: peers that have shown that they listen, and the others.
  struct Lane {
    std::deque<Url> turns;
    std::uint64_t serving_bytes = 0;
  };
  struct Answer {
    ByteChain message;
    std::uint64_t ops = 0;
    std::uint64_t bytes = 0;  ///< of payload; counted in its lane
    Lane* lane = nullptr;
  };
  struct Peer {
    std::deque<Request> requests;
    std::uint64_t queued_bytes = 0;
    std::uint64_t serial = 0;  ///< tells this entry from a later one of the same url
    bool reading = false;
    bool sending = false;
    bool in_turn = false;         ///< is in its lane's turns
    std::vector<OpId> rest;       ///< of the last read: cut off by the byte limit
    std::optional<Answer> ready;  ///< read, and waits for the send before it

    bool idle() const { return requests.empty() && !reading && !sending && !ready; }
  };
  /// A response of the unproven lane on its way; in the order of sending.
  struct Unproven {
    Url peer;
    std::uint64_t serial;
    Time since;
  };

  Lane& lane_of(const Url& peer);
  void took(const Url& peer, std::uint64_t bytes);
  std::uint64_t most_bytes(const Url& peer) const;
  bool has_room(const Lane& lane) const;
  void watch();
  void send_away_silent();
  void take_turn(const Url& peer, Peer& entry);
  void serve();
  void read(const Url& peer, Peer& entry, Lane& lane);
  void got(const Url& peer, std::uint64_t serial, Lane& lane, std::vector<OpId> asked,
           Result<std::vector<MetaOp>> result);
  void send(const Url& peer, Peer& entry, Answer answer);
  void sent(const Url& peer, std::uint64_t serial, std::uint64_t ops, std::uint64_t bytes, const Result<void>& result);
  /// The first request: all of it is read, or nothing more of it is wanted.
  void end_request(Peer& entry);
  void end_if_read(Peer& entry);
  void drop_ready(Peer& entry);
  void go_on(const Url& peer, Peer& entry);
  void note_missing(const Url& peer, const std::vector<OpId>& asked, const std::vector<MetaOp>& held,
                    std::size_t looked_at);
  Peer* find(const Url& peer, std::uint64_t serial);

  Runtime& runtime_;
  const CoreFetchConfig config_;
  const SpaceId space_;
  const std::shared_ptr<OpStore> store_;
  const std::shared_ptr<Transport> transport_;
  FetchStats& stats_;
  const Served served_;
  std::map<Url, Peer> peers_;
  Lane proven_, unproven_;
  std::map<Url, std::uint64_t> taken_;  ///< bytes on this connection, up to kProvenBytes
  std::list<Unproven> watched_;
  Runtime::TimerId timer_ = 0;
  std::uint64_t queued_bytes_ = 0;
  std::uint64_t next_serial_ = 1;
  Time busy_until_ = Time::min();
  std::size_t reads_ = 0;
  bool stopped_ = false;
  std::function<void()> idle_;
  log::Gate missing_gate_, refused_gate_, failed_gate_;
  Lifetime lifetime_;
};

}  // namespace kitsune2
