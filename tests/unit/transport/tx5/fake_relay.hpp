// An sbd relay and its sockets in virtual time, and peers that are played by hand.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kitsune2/testing/sim_runtime.hpp"
#include "kitsune2/transport.hpp"
#include "transport/tx5/connection.hpp"
#include "transport/tx5/tx5_transport.hpp"
#include "transport/ws.hpp"

namespace kitsune2::tests {

using sbd::NodeId;
using std::chrono::milliseconds;
using std::chrono::seconds;

class FakeSocket;

/// The relay: handshake, forwards with the header rewritten, idle limit, rate limit. Unknown destinations are dropped
/// without a word, as in sbd 0.1.0.
class FakeRelay {
 public:
  struct Options {
    std::int32_t byte_nanos = 1;
    std::int32_t idle_millis = 10'000;
    Duration latency = milliseconds(5);  ///< one way, of the sockets that are opened from now on, and of attached peers
    bool areq_before_lbrt = false;
    bool accept = true;                  ///< false: connections are refused
    bool answer = true;                  ///< false: the handshake never goes on
    std::uint64_t bytes_per_second = 0;  ///< of each client's socket; 0: no limit
  };

  FakeRelay(testing::SimWorld& world, std::string url);
  ~FakeRelay();

  Options options;
  /// Sees every forward; false drops it.
  std::function<bool(const NodeId& from, const NodeId& to, ByteView body)> filter;

  const std::string& url() const { return url_; }
  std::size_t connections() const { return sockets_.size(); }
  std::vector<NodeId> node_ids() const;
  /// Closes all connections, as when the relay dies.
  void cut();
  /// Sends raw bytes to every client.
  void to_all(const Bytes& message);
  /// A new rate, told to all.
  void set_byte_nanos(std::int32_t nanos);

  // A peer without a socket.
  void attach(const NodeId& id, std::function<void(const NodeId& from, ByteView body)> receive);
  void detach(const NodeId& id) { attached_.erase(id); }
  void forward(const NodeId& from, const NodeId& to, ByteView body);

  std::uint64_t handshakes = 0;
  std::uint64_t keepalives = 0;
  std::uint64_t dropped = 0;  ///< forwards to nobody
  std::uint64_t rate_violations = 0;
  std::set<NodeId> seen_ids;  ///< of all connections ever
  std::vector<Time> connect_times;

 private:
  friend class FakeSocket;
  friend class FakeConnector;
  void on_client_message(const std::shared_ptr<FakeSocket>& socket, const Bytes& message);
  void on_connect(const std::shared_ptr<FakeSocket>& socket);
  void check_idle(const std::shared_ptr<FakeSocket>& socket);
  void drop(const std::shared_ptr<FakeSocket>& socket, Error why);

  testing::SimWorld& world_;
  std::string url_;
  std::unique_ptr<testing::SimRuntime> runtime_;
  std::vector<std::shared_ptr<FakeSocket>> sockets_;
  std::map<NodeId, std::function<void(const NodeId&, ByteView)>> attached_;
};

/// All relays of a test, by url.
class FakeConnector final : public WsConnector {
 public:
  FakeConnector(testing::SimRuntime& runtime, std::map<std::string, FakeRelay*> relays)
      : runtime_(runtime), relays_(std::move(relays)) {}
  std::shared_ptr<WsConnection> connect(const std::string& url, const WsOptions& options, WsHandlers handlers) override;

 private:
  testing::SimRuntime& runtime_;
  std::map<std::string, FakeRelay*> relays_;
};

/// Writes down what a backend tells.
class Recorder final : public TransportEvents {
 public:
  void new_listening_address(const Url& own_url) override { addresses.push_back(own_url); }
  void listening_address_lost() override { addresses_lost += 1; }
  Result<Bytes> peer_connect(const Url& peer) override;
  Result<void> recv_data(const Url& peer, Bytes message) override;
  void recv_progress(const Url& peer, std::size_t bytes) override;
  void peer_disconnect(const Url& peer, const std::optional<std::string>& reason) override;
  bool shares_space(const Url& peer) override { return shares && shares(peer); }

  std::vector<std::string> messages_from(const Url& peer) const;
  bool connected(const Url& peer) const { return live.contains(peer); }

  Bytes preflight = Bytes::copy_of("\x08\x01");
  std::function<Result<void>(const Url&)> on_connect;
  std::function<Result<void>(const Url&, const Bytes&)> on_data;
  std::function<void(const Url&)> on_disconnect;
  std::function<bool(const Url&)> shares;

  std::vector<Url> addresses;
  int addresses_lost = 0;
  std::multiset<Url> live;
  std::map<Url, std::vector<Bytes>> messages;  ///< the preflight first
  std::map<Url, std::size_t> progress;
  std::vector<std::pair<Url, std::optional<std::string>>> disconnects;
  int connects = 0;
  int violations = 0;  ///< of the contract of TransportEvents
};

/// One node: runtime, backend, recorder.
class TestNode {
 public:
  TestNode(testing::SimWorld& world, std::vector<FakeRelay*> relays, Tx5TransportConfig config = {},
           tx5::LinkLimits limits = {});
  ~TestNode();

  Url url() const;
  /// The result comes into `results` in order of completion.
  void send(const Url& to, Bytes message);
  void send(const Url& to, const std::string& text) { send(to, Bytes::copy_of(text)); }

  std::unique_ptr<testing::SimRuntime> runtime;
  Recorder events;
  std::unique_ptr<tx5::Tx5Transport> transport;
  std::vector<Result<void>> results;
};

/// A peer played by hand: its crypto is right, what it says is the test's choice.
class HandPeer {
 public:
  HandPeer(testing::SimWorld& /*world*/, FakeRelay& relay, std::uint8_t seed);
  ~HandPeer();

  const NodeId& id() const { return key_.id(); }
  Url url() const;
  /// Begins a stream to `to` (again, if there is one).
  void new_stream(const NodeId& to);
  /// Encrypts and sends; begins a stream if there is none.
  void say(const NodeId& to, const Bytes& plaintext);
  void say(const NodeId& to, std::string_view letters, ByteView rest = {});
  void say_frame(const NodeId& to, tx5::FrameType type, std::uint32_t value, ByteView rest = {});
  /// Sends a forward's body as it is.
  void say_raw(const NodeId& to, ByteView body) { relay_.forward(id(), to, body); }
  /// Drops all encryption state, as a stock node does when it closes.
  void forget(const NodeId& to) { sessions_.erase(to); }
  /// Handshake by the rules, then the version frame and a preflight. `hear` is asked first and may take a message.
  void obey(bool preflight = true) {
    obey_ = true;
    preflight_ = preflight;
  }
  void say_hreq(const NodeId& to);
  void open(const NodeId& to);

  std::function<bool(const NodeId& from, const Bytes& plaintext)> hear;
  std::vector<std::string> heard;  ///< all plaintexts
  std::vector<std::string> letters_heard() const;
  std::size_t count(std::string_view letters) const;
  std::size_t new_streams = 0;
  std::size_t stream_requests = 0;
  /// Whole messages, framing undone. The preflight first.
  std::vector<std::string> messages;
  bool closed = false;  ///< the closing frame came

 private:
  tx5::E2eSession& session(const NodeId& peer);
  void receive(const NodeId& from, ByteView body);
  void on_plaintext(const NodeId& from, const Bytes& plaintext);

  FakeRelay& relay_;
  tx5::NodeKey key_;
  std::map<NodeId, tx5::E2eSession> sessions_;
  std::map<NodeId, std::array<std::uint8_t, 32>> nonces_;
  std::map<NodeId, std::pair<bool, bool>> done_;
  std::string partial_;
  bool obey_ = false;
  bool preflight_ = true;
  std::uint8_t salt_ = 1;
};

NodeId node_id_of(const Url& url);
Tx5TransportConfig plain_config();
std::string filled(std::size_t size, char with = 'x');

}  // namespace kitsune2::tests
