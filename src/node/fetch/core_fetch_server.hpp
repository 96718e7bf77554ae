// Answers other peers' fetch requests.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "core/fetch/serve_core.hpp"
#include "core/fetch/served_sample.hpp"
#include "kitsune2/fetch.hpp"
#include "kitsune2/op_store.hpp"
#include "kitsune2/runtime.hpp"
#include "kitsune2/transport.hpp"
#include "log/log.hpp"
#include "wire/fetch_messages.hpp"

namespace kitsune2 {

/// Carries out what ServeCore decides: keeps the ids of the requests, reads the store, encodes and sends. Counts and
/// logs ids that are not held. The rules are ServeCore's, except S7. Strand only.
///
/// *Budget*: a peer is charged for its messages, and for looking up ops that are not held. Ops that are held and that
/// it receives are free: the turns divide that work already, and a budget would idle a node that serves nobody else.
/// What is sent to a peer again is no useful exchange.
///
/// *Rule*.
///  S7  A response is never larger than a message of the transport. An op that does not fit into a message is left out,
///      counted and logged. *Reason*: a store may hold such ops from before its limit, and the other ops of that
///      request should not suffer. A response that S8 limits to a frame is cut so that the whole message fits into one.
class FetchServer {
 public:
  /// The cost of a waiting request besides its ids: its message is kept, which may have unknown fields.
  static constexpr std::uint64_t kRequestBytes = 4096;
  /// A message up to kSmallMessageBytes is copied, and costs kSmallRequestBytes in addition. *Reason*: a stock node
  /// requests each op in a separate message, thousands at a time, and from 0.3 on does not ask again.
  static constexpr std::uint64_t kSmallMessageBytes = 512;
  static constexpr std::uint64_t kSmallRequestBytes = 448;
  /// The largest tx5 message that needs no permit.
  static constexpr std::uint64_t kFrameMessageBytes = 16'380;

  using Served = std::function<void(const Url& peer, std::uint64_t ops, std::uint64_t bytes)>;

  /// `stats` must outlive this object; `served` is called when the transport has accepted a response.
  FetchServer(Runtime& runtime, const CoreFetchConfig& config, const SpaceId& space, std::shared_ptr<OpStore> store,
              std::shared_ptr<Transport> transport, std::shared_ptr<PeerBudget> budget, FetchStats& stats,
              Served served);
  ~FetchServer() { runtime_.cancel(timer_); }
  FetchServer(const FetchServer&) = delete;
  FetchServer& operator=(const FetchServer&) = delete;

  void on_request(const Url& peer, wire::IdList op_ids);
  /// The peer's connection is closed, so its requests are dropped.
  void forget(const Url& peer);
  /// Drops everything.
  void stop();
  std::size_t reads_under_way() const { return core_.reads_under_way(); }
  /// Whether peers wait for answers, or did a moment ago.
  bool is_busy() const { return core_.is_busy(runtime_.now()); }
  /// Sets the function that is called whenever a read ends and none is left.
  void on_idle(std::function<void()> callback) { idle_ = std::move(callback); }

 private:
  /// One message, or several that have joined (S10).
  struct Request {
    struct Ids {
      wire::IdList list;
      wire::IdList::iterator next;
    };
    std::deque<Ids> ids;  ///< those that were not read yet; none is empty
    /// Those from `left_from` on were cut off from the reads before by the byte limit; no id twice.
    std::vector<OpId> left_over;
    std::size_t left_from = 0;
    std::size_t at_a_time = 0;  ///< how many of them are read next
    PeerWork charged;           ///< for its message; given back with the first ops that are received
  };
  struct Answer {
    ByteChain message;
    std::uint64_t ops = 0;
    std::uint64_t bytes = 0;  ///< bytes of payload
    PeerWork charged;         ///< see Request
    std::shared_ptr<ServedSample> sample;
    std::vector<ServedSample::Op> covered;  ///< those of `ops` that the sample covers
  };

  /// Carries out the core's actions, then sets the timer.
  void perform();
  void on(const ServeCore::Read& read);
  void on(const ServeCore::Send& send);
  void on(const ServeCore::Discard& discard) { answers_.erase(discard.read); }
  void on(const ServeCore::Forget& forget) { requests_.erase(forget.request); }
  void on(const ServeCore::Disconnect& disconnect);
  void on(const ServeCore::Drop& drop);
  void on_read_ended(const ServeCore::Read& read, std::vector<OpId> asked, Result<std::vector<MetaOp>> result);
  void on_sent(const Url& peer, ServeCore::ReadId read, const Answer& answer, const Result<void>& result);
  /// How many of `ops`, from the first on, fit into a message of `most` bytes.
  std::size_t fitting(const std::vector<MetaOp>& ops, std::uint64_t most) const;
  void on_too_large(const Url& peer, const MetaOp& op);
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
  /// By peer, while it is connected. Answers under way share them.
  std::unordered_map<Url, std::shared_ptr<ServedSample>> served_before_;
  Runtime::TimerId timer_ = 0;
  Time timer_at_{};
  bool performing_ = false;
  bool stopped_ = false;
  std::function<void()> idle_;
  log::Gate missing_gate_, refused_gate_, dropped_gate_, failed_gate_, too_large_gate_;
  Lifetime lifetime_;
};

}  // namespace kitsune2
