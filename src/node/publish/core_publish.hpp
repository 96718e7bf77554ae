// The publish module.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "core/publish/offers.hpp"
#include "kitsune2/publish.hpp"
#include "log/log.hpp"
#include "wire/lists.hpp"

namespace kitsune2 {

/// Implements `Publish`. Offers decides whose ids are looked up next;
/// this object keeps the ids, asks fetch, and sends.
class CorePublish final : public Publish, public std::enable_shared_from_this<CorePublish> {
 public:
  CorePublish(Runtime& runtime, const CorePublishConfig& config, const SpaceId& space, std::shared_ptr<Fetch> fetch,
              std::shared_ptr<PeerStore> peers, std::shared_ptr<Transport> transport, const Verifier& verifier,
              std::shared_ptr<PeerBudget> budget);
  /// Registers with the transport.
  Result<void> start();

  // --- from the transport
  Result<void> on_message(const Url& peer, const Bytes& data);
  void on_disconnect(const Url& peer);

  void publish_ops(std::vector<OpId> op_ids, const Url& target, Handler<> done) override;
  void publish_ops_with_metadata(std::vector<PublishOp> ops, const Url& target, Handler<> done) override;
  void publish_agent(AgentInfoPtr info, const Url& target, Handler<> done) override;
  PublishStats stats() const override {
    assert_on_strand(runtime_, "Publish::stats");
    return stats_;
  }
  std::shared_ptr<void> on_unconfirmed(std::function<void(const Url& peer)> callback) override;
  void stop() override;

 private:
  struct Job;
  /// Ids that a peer has announced, being passed to the fetch module in pieces.
  struct Offer {
    wire::IdList ids;
    wire::IdList::iterator next;
    wire::DataList metadata;  ///< of each id; empty: there is none at all
    wire::DataList::iterator next_metadata;
  };

  void begin(std::shared_ptr<Job> job);
  void send_next(const std::shared_ptr<Job>& job);
  void on_sent(const Url& target);
  void tell_unconfirmed(const Url& target);
  void take_ops(const Url& peer, wire::IdList ids, wire::DataList metadata);
  void next_pieces();
  void look_up(const Offers::Piece& piece);
  /// `asked`: how many of its ids fetch was asked for; the others are counted as refused already.
  void on_piece_done(const Offers::Piece& piece, std::uint64_t asked, const Result<void>& added);
  /// Sets the timer for what the core is waiting for.
  void arm();
  void take_agent(const Url& peer, const Bytes& json);

  Runtime& runtime_;
  const CorePublishConfig config_;
  const SpaceId space_;
  std::shared_ptr<Fetch> fetch_;
  std::shared_ptr<PeerStore> peers_;
  std::shared_ptr<Transport> transport_;
  const Verifier& verifier_;
  const std::shared_ptr<PeerBudget> budget_;
  Offers core_;
  std::unordered_map<Offers::OfferId, Offer> offers_;
  std::uint64_t queued_ids_ = 0;
  std::uint64_t queued_metadata_bytes_ = 0;
  Runtime::TimerId timer_ = 0;
  Time timer_at_{};
  /// When ids were last sent to a peer, while it is connected.
  std::unordered_map<Url, Time> sent_at_;
  using Callback = std::function<void(const Url& peer)>;
  std::vector<std::weak_ptr<Callback>> on_unconfirmed_;
  PublishStats stats_;
  log::Gate log_gate_, unheard_gate_;
  bool stopped_ = false;
};

}  // namespace kitsune2
