// One node's end of the memory network.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "transport/memory/hub.hpp"

namespace kitsune2::memory {

/// The connections of one node: what TransportBackend promises, over the frames of the hub. Strand only.
///
/// A connection is open once the peer's preflight has arrived; messages that are sent before that wait. What arrives
/// from a peer goes through an inbox. It hands on each frame when its delay has passed, and never before an earlier
/// frame of that peer, even if the delays are such that it would overtake.
class Endpoint : public std::enable_shared_from_this<Endpoint> {
 public:
  Endpoint(Runtime& runtime, std::shared_ptr<MemoryNetwork::Hub> hub, std::string name);
  ~Endpoint();

  void start(TransportEvents& events);
  std::optional<Url> url() const;
  void send(const Url& peer, Bytes message, Handler<> done);
  void disconnect(const Url& peer, const CloseReason& reason, Bytes farewell);
  std::uint64_t max_message_bytes() const { return hub_->options_.max_message_bytes; }
  TransportStats stats() const;
  void stop(std::function<void()> done);

  // --- called by the hub, on the strand
  /// A frame is on its way; it arrives after `frame.delay`.
  void on_frame(const Url& from, Frame frame);
  /// A frame that this side sent was lost on its way. The connection is dropped after the loss timeout.
  void on_lost(const Url& peer, std::uint64_t connection);
  /// The connection was cut, with notice.
  void on_cut(const Url& peer, std::uint64_t connection);
  /// Goes offline, and comes back at `next` after `gap`.
  void change_url(const Url& next, Duration gap);

 private:
  /// A message that waits until the connection is open.
  struct Waiting {
    Bytes message;
    Handler<> done;
  };
  /// A message whose bytes are leaving, on a link with a bandwidth.
  struct Sending {
    Time until;  ///< its last byte has left then
    std::uint64_t bytes = 0;
    Handler<> done;
  };
  struct Connection {
    std::uint64_t id = 0;    ///< the hub's number; 0 while this side has not begun to connect
    bool announced = false;  ///< `peer_connect` has succeeded, so `peer_disconnect` must follow
    bool open = false;       ///< the peer's preflight has arrived
    std::deque<Waiting> waiting;
    std::deque<Sending> sending;
    std::uint64_t queued_bytes = 0;  ///< of both queues
    Time busy_until{};               ///< the link has sent everything so far by then
    Runtime::TimerId timer = 0;      ///< while connecting, its limit; after that, the end of the first of `sending`
    TransportConnectionStats stats;
  };
  struct Arrival {
    Time begins;  ///< its first byte arrives
    Time at;      ///< all of it has arrived
    Frame frame;
    std::size_t reported = 0;  ///< bytes of which `recv_progress` has told
  };
  /// The frames of one peer that are on their way, in order.
  struct Inbox {
    std::deque<Arrival> arrivals;
    Runtime::TimerId timer = 0;
  };
  /// A `peer_disconnect` that is due.
  struct Notice {
    Url peer;
    std::optional<std::string> reason;
  };

  /// Wraps `f(self)` so that it does nothing once this endpoint is gone.
  template <class F>
  auto guarded(F f) {
    return [weak = weak_from_this(), f = std::move(f)]() mutable {
      if (auto self = weak.lock()) f(*self);
    };
  }
  void fail(Handler<> done, Errc code, const std::string& message);
  void open(const Url& peer);
  void transmit(const Url& peer, Connection& connection, Bytes message, Handler<> done);
  Fate put_on_wire(const Url& peer, Connection& connection, Frame::Kind kind, Bytes data, Duration delay,
                   Duration wire_time);
  void on_sent_some(const Url& peer, std::uint64_t connection);
  void close_later(const Url& peer, std::uint64_t connection, Duration delay, const std::string& reason);
  void close(const Url& peer, const std::optional<std::string>& reason, const Error& for_waiting, bool tell_peer);
  void handle(const Url& from, Frame& frame);
  void accept(const Url& from, Frame& frame);
  void on_preflight(const Url& from, Frame& frame);
  void read_inbox(const Url& from);
  /// When the next part of a message that is arriving is to be reported. nullopt: not before all of it is there.
  static std::optional<Time> next_progress(const Arrival& head);
  void wait_for_inbox(const Url& from, Inbox& inbox);
  /// Calls `peer_disconnect` for each connection that has ended. It runs before anything else that is reported, so that
  /// the node never hears of a new connection to a peer before the end of the old one.
  void give_notices();
  /// Null if that connection has ended.
  Connection* find(const Url& peer, std::uint64_t connection);

  Runtime& runtime_;
  const std::shared_ptr<MemoryNetwork::Hub> hub_;
  const std::string name_;
  Url own_;
  bool online_ = false;
  bool stopped_ = false;
  TransportEvents* events_ = nullptr;
  std::map<Url, Connection> connections_;
  std::map<Url, Inbox> inboxes_;
  std::deque<Notice> notices_;
};

}  // namespace kitsune2::memory
