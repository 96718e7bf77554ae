// One node's end of the memory network.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "transport/memory/hub.hpp"

namespace kitsune2::memory {

/// Implements MemoryBackend. Strand only.
///
/// A connection is `connecting` until the peer's preflight has arrived; messages sent meanwhile wait. Incoming frames
/// of a peer pass through an inbox that keeps their order whatever the delays.
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

  // --- from the hub, on the strand
  void on_frame(const Url& from, Frame frame);
  /// A message of this connection vanished: drops the connection after the loss timeout.
  void on_lost(const Url& peer, std::uint64_t connection);
  void on_cut(const Url& peer, std::uint64_t connection);
  void change_url(const Url& next, Duration gap);

 private:
  struct Waiting {
    Bytes message;
    Handler<> done;
  };
  struct Sending {
    Time until;
    std::uint64_t bytes = 0;
    Handler<> done;
  };
  struct Connection {
    std::uint64_t id = 0;    ///< 0: not begun
    bool announced = false;  ///< peer_connect succeeded, so peer_disconnect is owed
    bool open = false;       ///< the peer's preflight has arrived
    std::deque<Waiting> waiting;
    std::deque<Sending> sending;  ///< on a link with a bandwidth
    std::uint64_t queued_bytes = 0;
    Time busy_until{};
    Runtime::TimerId timer = 0;
    TransportConnectionStats stats;
  };
  struct Arrival {
    Time begins, at;
    Frame frame;
    std::size_t reported = 0;
  };
  struct Inbox {
    std::deque<Arrival> arrivals;
    Runtime::TimerId timer = 0;
  };
  struct Notice {
    Url peer;
    std::optional<std::string> reason;
  };

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
  /// When the next part of a message in transit arrives; nullopt: only as a whole.
  static std::optional<Time> next_progress(const Arrival& head);
  void wait_for_inbox(const Url& from, Inbox& inbox);
  void give_notices();
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
