// The publish module.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "kitsune2/publish.hpp"
#include "log/log.hpp"
#include "wire/lists.hpp"

namespace kitsune2 {

class CorePublish final : public Publish, public std::enable_shared_from_this<CorePublish> {
 public:
  CorePublish(Runtime& runtime, const CorePublishConfig& config, const SpaceId& space, std::shared_ptr<Fetch> fetch,
              std::shared_ptr<PeerStore> peers, std::shared_ptr<Transport> transport, const Verifier& verifier);
  /// Registers with the transport.
  Result<void> start();

  // --- from the transport
  Result<void> on_message(const Url& peer, const Bytes& data);
  void on_disconnect(const Url& peer);

  void publish_ops(std::vector<OpId> op_ids, const Url& target, Handler<> done) override;
  void publish_agent(AgentInfoPtr info, const Url& target, Handler<> done) override;
  PublishStats stats() const override {
    assert_on_strand(runtime_, "Publish::stats");
    return stats_;
  }
  std::shared_ptr<void> on_unconfirmed(std::function<void(const Url& peer)> callback) override;
  void stop() override;

 private:
  struct Job;
  /// Ids that a peer told us of, on their way to the fetch module in pieces.
  struct Offer {
    wire::IdList ids;
    wire::IdList::iterator next;
    std::uint64_t left;
    std::uint64_t bytes;
  };
  /// What is kept of a peer that sends: while it is connected, and until the store has answered.
  struct Sender {
    std::deque<Offer> offers;
    bool in_turn = false;
    std::uint64_t waiting_ids = 0;    ///< also those that the store is asked about
    std::uint64_t waiting_bytes = 0;  ///< of the messages in `offers`
    double bucket = 0;                ///< agent infos that it may send now
    Time bucket_at = Time::min();
    bool connected = true;
  };

  void send_next(const std::shared_ptr<Job>& job);
  void sent_to(const Url& target);
  void tell_unconfirmed(const Url& target);
  void take_ops(const Url& peer, wire::IdList ids);
  bool may_look_up();
  void next_pieces();
  void end_offer(Sender& sender);
  void piece_done(const Url& peer, std::uint64_t count, Time begun, const Result<void>& added);
  void rest_after(Time begun);
  void take_agent(const Url& peer, const Bytes& json);
  bool may_send_agent(const Url& peer);
  void drop_if_idle(std::unordered_map<Url, Sender>::iterator it);

  Runtime& runtime_;
  const CorePublishConfig config_;
  const SpaceId space_;
  std::shared_ptr<Fetch> fetch_;
  std::shared_ptr<PeerStore> peers_;
  std::shared_ptr<Transport> transport_;
  const Verifier& verifier_;
  std::unordered_map<Url, Sender> senders_;
  std::uint64_t queued_ids_ = 0;
  std::uint64_t waiting_ids_ = 0, waiting_bytes_ = 0;
  std::deque<Url> turns_;  ///< senders with offers
  std::size_t pieces_ = 0;
  Runtime::TimerId rest_ = 0;
  /// When ids were last sent to a peer, for as long as it is connected.
  std::unordered_map<Url, Time> sent_at_;
  using Callback = std::function<void(const Url& peer)>;
  std::vector<std::weak_ptr<Callback>> on_unconfirmed_;
  PublishStats stats_;
  log::Gate log_gate_;
  bool stopped_ = false;
};

}  // namespace kitsune2
