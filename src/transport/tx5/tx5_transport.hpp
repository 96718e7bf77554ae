// The TransportBackend over relay links: one for the own url, more for peers on other relays.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kitsune2/config.hpp"
#include "kitsune2/transport.hpp"
#include "kitsune2/transport_tx5.hpp"
#include "transport/tx5/relay_link.hpp"

namespace kitsune2::tx5 {

/// The relay that a configuration names. Errc::invalid_config naming the key: there is none, or it has no TLS and must
/// have it.
Result<Url> relay_of(const Tx5TransportConfig& config);

/// See make_tx5_transport. `limits` are there for tests; the defaults are what is shipped. The numbers of `config` are
/// in their ranges (abort): a node has checked its whole configuration, make_tx5_transport checks this section.
class Tx5Transport final : public TransportBackend, private LinkOwner {
 public:
  static Result<std::unique_ptr<Tx5Transport>> create(Runtime& runtime, std::shared_ptr<WsConnector> connector,
                                                      const Tx5TransportConfig& config, const LinkLimits& limits,
                                                      const NetworkConfig& network = {});

  /// Before `start`: where to note the addresses of peers at a relay inside this process, for others to look them up.
  void note_addresses(std::shared_ptr<PeerAddresses> addresses) { shared_.addresses = std::move(addresses); }
  /// Before `start`: how much use a peer was, for choosing whom to keep (RelayLink R6).
  void judge_by(std::function<std::uint64_t(const Url&)> usefulness) { shared_.usefulness = std::move(usefulness); }

  void start(TransportEvents& events) override;
  std::optional<Url> url() const override;
  std::optional<TransportFailure> failure() const override;
  void send(const Url& peer, ByteChain message, Handler<> done) override;
  void disconnect(const Url& peer, const CloseReason& reason, Bytes farewell) override;
  std::uint64_t max_message_bytes() const override { return shared_.connection.message_size_max; }
  std::optional<Duration> round_trip(const Url& peer) const override;
  std::uint64_t sent_mark(const Url& peer) const override;
  void was_read(const Url& peer, std::uint64_t mark) override;
  void wasted(const Url& peer, std::uint64_t bytes) override;
  void on_server_answered() override;
  TransportStats stats() const override;
  void stop(std::function<void()> done) override;

 private:
  Tx5Transport(Runtime& runtime, std::shared_ptr<WsConnector> connector, Url relay, bool allow_plain_text);
  LinkOwner& owner() { return *this; }
  void on_link_up(RelayLink& link) override;
  void on_link_down(RelayLink& link) override;
  void on_link_finished(RelayLink& link) override;
  bool make_room(RelayLink& asking) override;
  /// The link for peers of `relay`, opened if it may be.
  Result<RelayLink*> link_for(const Url& relay);
  /// The link and the peer behind it; no link if it is not open.
  std::pair<RelayLink*, NodeId> find(const Url& peer) const;

  LinkShared shared_;
  const Url relay_;
  const bool allow_plain_text_;
  bool stopped_ = false;
  std::unique_ptr<RelayLink> home_;
  std::map<Url, std::unique_ptr<RelayLink>> foreign_;
  std::vector<std::unique_ptr<RelayLink>> finished_;  ///< to be destroyed when they are not in a call
  Lifetime lifetime_;
};

}  // namespace kitsune2::tx5
