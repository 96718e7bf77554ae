// Answers other peers' fetch requests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "core/fetch/serve_core.hpp"
#include "kitsune2/fetch.hpp"
#include "kitsune2/op_store.hpp"
#include "kitsune2/runtime.hpp"
#include "kitsune2/transport.hpp"
#include "log/log.hpp"
#include "wire/fetch_messages.hpp"

namespace kitsune2 {

/// Carries out what ServeCore decides: keeps the ids of the requests, reads the store, encodes and sends. Strand only.
/// The rules (S1 to S6) are ServeCore's. What is not held is counted and logged.
///
/// *Budget*: a peer is charged for its messages and for looking up what is not held. What it asks for, is held and it
/// takes costs it nothing: turns divide that already, and a budget on top of it would idle a node that has nobody else
/// to serve.
///
/// S7: a response is never larger than a message of the transport. An op that does not fit into one by itself is left
/// out, counted and logged. *Reason*: a store may hold such ops from before its limit, and the others of that request
/// are not to suffer from it. A response that S8 keeps within a frame is cut so that the whole message fits into one.
class FetchServer {
 public:
  /// What a waiting request costs besides its ids: it keeps the message, which may have fields that are not known.
  static constexpr std::uint64_t kRequestBytes = 4096;
  /// A message up to kSmallMessageBytes is copied, and costs kSmallRequestBytes besides its own. *Reason*: a stock node
  /// asks for each op in a message of its own, for thousands of ops at once, and from 0.3 on does not ask again.
  static constexpr std::uint64_t kSmallMessageBytes = 512;
  static constexpr std::uint64_t kSmallRequestBytes = 448;
  /// A message of tx5 that needs no permit.
  static constexpr std::uint64_t kFrameMessageBytes = 16'380;

  using Served = std::function<void(const Url& peer, std::uint64_t ops, std::uint64_t bytes)>;

  /// `stats` outlives this; `served` is called when the transport took a response.
  FetchServer(Runtime& runtime, const CoreFetchConfig& config, const SpaceId& space, std::shared_ptr<OpStore> store,
              std::shared_ptr<Transport> transport, std::shared_ptr<PeerBudget> budget, FetchStats& stats,
              Served served);
  ~FetchServer() { runtime_.cancel(timer_); }
  FetchServer(const FetchServer&) = delete;
  FetchServer& operator=(const FetchServer&) = delete;

  void request(const Url& peer, wire::IdList op_ids);
  /// The peer's connection is gone: its requests are dropped.
  void forget(const Url& peer);
  /// Drops everything.
  void stop();
  std::size_t reads_under_way() const { return core_.reads_under_way(); }
  /// Peers wait for answers, or a moment ago did.
  bool busy() const { return core_.is_busy(runtime_.now()); }
  /// Called whenever a read ends and none is left.
  void on_idle(std::function<void()> callback) { idle_ = std::move(callback); }

 private:
  struct Request {
    wire::IdList ids;
    wire::IdList::iterator next;
    std::vector<OpId> left_over;  ///< of the last read: cut off by the byte limit
    PeerWork charged;             ///< for its message; given back with the first ops that are taken
  };
  struct Answer {
    ByteChain message;
    std::uint64_t ops = 0;
    std::uint64_t bytes = 0;  ///< of payload
    PeerWork charged;         ///< see Request
  };

  /// Carries out the core's actions, then sets the timer.
  void perform();
  void on(const ServeCore::Read& read);
  void on(const ServeCore::Send& send);
  void on(const ServeCore::Discard& discard) { answers_.erase(discard.read); }
  void on(const ServeCore::Forget& forget) { requests_.erase(forget.request); }
  void on(const ServeCore::Disconnect& disconnect);
  void read_ended(const ServeCore::Read& read, std::vector<OpId> asked, Result<std::vector<MetaOp>> result);
  void sent(const Url& peer, ServeCore::ReadId read, const Answer& answer, const Result<void>& result);
  /// How many of `ops`, from the first on, a message of `most` bytes holds.
  std::size_t fitting(const std::vector<MetaOp>& ops, std::uint64_t most) const;
  void too_large(const Url& peer, const MetaOp& op);
  void note_missing(const Url& peer, const std::vector<OpId>& asked, const std::vector<MetaOp>& held,
                    std::size_t looked_at);

  Runtime& runtime_;
  const SpaceId space_;
  const std::shared_ptr<OpStore> store_;
  const std::shared_ptr<Transport> transport_;
  const std::shared_ptr<PeerBudget> budget_;
  FetchStats& stats_;
  const Served served_;
  const std::uint64_t max_message_bytes_;
  ServeCore core_;
  std::unordered_map<ServeCore::RequestId, Request> requests_;
  std::unordered_map<ServeCore::ReadId, Answer> answers_;  ///< read, and not sent yet
  Runtime::TimerId timer_ = 0;
  bool performing_ = false;
  bool stopped_ = false;
  std::function<void()> idle_;
  log::Gate missing_gate_, refused_gate_, failed_gate_, too_large_gate_;
  Lifetime lifetime_;
};

}  // namespace kitsune2
