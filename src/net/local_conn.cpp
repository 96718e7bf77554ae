// Connections inside the process: two lanes of bytes between two threads, and the door to the server.
#include "net/local_conn.hpp"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "net/asio_runtime_impl.hpp"
#include "net/leftover.hpp"

namespace kitsune2::net {

/// One end. Each is confined to the strand of its own runtime; what both use is in the lanes.
class LocalConn final : public Conn, public LoopItem, public std::enable_shared_from_this<LocalConn> {
 public:
  /// One direction of a connection.
  struct Lane {
    std::mutex mutex;
    // All guarded:
    ByteBuffer bytes;                 // sent, and not received yet
    bool ended = false;               // the sender will add nothing more
    bool receiver_awake = false;      // a task for the receiver is posted
    bool sender_awake = false;        // a task for the sender is posted
    AsioRuntime* receiver = nullptr;  // null: that end is closed
    AsioRuntime* sender = nullptr;
    std::weak_ptr<LocalConn> to, from;
    // The size of `bytes`, read without the lock.
    std::atomic<std::size_t> size{0};
  };

  LocalConn(AsioRuntime& runtime, std::shared_ptr<Lane> out, std::shared_ptr<Lane> in)
      : runtime_(runtime), im_(runtime.impl()), out_lane_(std::move(out)), in_lane_(std::move(in)) {
    im_.open.insert(this);
  }
  ~LocalConn() override {
    leave();
    im_.open.erase(this);
  }

  /// Makes both ends; each learns of it in a task on its own strand.
  static std::shared_ptr<Conn> make(AsioRuntime& runtime, const std::shared_ptr<LocalDoor>& door,
                                    std::shared_ptr<ConnEvents> events) {
    auto up = std::make_shared<Lane>();
    auto down = std::make_shared<Lane>();
    auto client = std::make_shared<LocalConn>(runtime, up, down);
    client->events_ = std::move(events);
    up->sender = down->receiver = &runtime;
    up->from = down->to = client;
    const std::lock_guard lock(door->mutex_);
    if (door->server_ == nullptr) {
      client->abort(make_error(Errc::peer_unresponsive, "the server in this process is stopped"));
    } else {
      door->server_->post([door, up, down] { arrive(*door, up, down); });
    }
    return client;
  }

  // --- Conn
  ByteBuffer& out() override { return out_; }

  void flush() override {
    if (flush_queued_ || state_ != State::open) return;
    flush_queued_ = true;
    im_.flush_later(shared_from_this());
  }

  std::size_t queued() const override { return out_.size() + out_lane_->size.load(std::memory_order_relaxed); }
  void pause() override { paused_ = true; }

  void resume() override {
    if (!std::exchange(paused_, false) || state_ != State::open) return;
    // What has arrived already is to be handled before more is taken: its end would come before it.
    resume_queued_ = true;
    runtime_.post([weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self) return;
      self->resume_queued_ = false;
      self->receive();
    });
  }

  void close(Error why, Duration /*linger*/) override {
    if (state_ == State::closed) return;
    if (state_ == State::open) hand_over();
    abort(std::move(why));
  }

  void abort(Error why) override {
    if (state_ == State::closed) return;
    shut();
    runtime_.post([self = shared_from_this(), why = std::move(why)] { self->report_closed(why); });
  }

  const IpAddress& remote_ip() const override { return ip_; }
  const std::string& remote() const override { return remote_; }
  std::optional<Time> stalled_since() const override { return stalled_since_; }

  // --- LoopItem
  void flush_now() override {
    flush_queued_ = false;
    if (state_ == State::open) hand_over();
  }

  void drop() override {
    const auto self = shared_from_this();
    if (state_ != State::closed) shut();
    events_.reset();
  }

 private:
  enum class State { connecting, open, closed };

  /// Runs on the server's strand.
  static void arrive(LocalDoor& door, const std::shared_ptr<Lane>& up, const std::shared_ptr<Lane>& down) {
    AsioRuntime* server = nullptr;
    {
      const std::lock_guard lock(door.mutex_);
      server = door.server_;
    }
    std::shared_ptr<LocalConn> end;
    if (server != nullptr) {
      end = std::make_shared<LocalConn>(*server, down, up);
      end->events_ = door.accept_(end);
    }
    if (!end || !end->events_) {
      const std::lock_guard lock(down->mutex);
      down->ended = true;
      wake(down->receiver, down->to, down->receiver_awake, &LocalConn::receive);
      return;
    }
    // Before the client can learn of it: what the client sends, or its end, comes after this task.
    server->post([end] { end->opened(); });
    for (Lane* lane : {up.get(), down.get()}) {
      const std::lock_guard lock(lane->mutex);
      (lane == up.get() ? lane->to : lane->from) = end;
      (lane == up.get() ? lane->receiver : lane->sender) = server;
      if (lane == down.get()) wake(lane->receiver, lane->to, lane->receiver_awake, &LocalConn::opened);
    }
  }

  /// Posts a call to an end, if the end exists and no call is posted yet. Holds the lane's lock, so that the end's
  /// runtime cannot disappear meanwhile: closing takes the lock first.
  static void wake(AsioRuntime* runtime, const std::weak_ptr<LocalConn>& end, bool& awake, void (LocalConn::*call)()) {
    if (runtime == nullptr || awake) return;
    awake = true;
    runtime->post([end, call] {
      if (const auto self = end.lock()) (self.get()->*call)();
    });
  }

  void opened() {
    if (state_ != State::connecting) return;
    state_ = State::open;
    const auto keep = events_;
    keep->on_connected();
    receive();
  }

  void hand_over() {
    if (out_.empty()) return;
    Lane& lane = *out_lane_;
    const std::lock_guard lock(lane.mutex);
    if (lane.bytes.empty()) {
      std::swap(lane.bytes, out_);
    } else {
      lane.bytes.append({out_.data(), out_.size()});
      out_.consume(out_.size());
    }
    lane.size.store(lane.bytes.size(), std::memory_order_relaxed);
    if (!stalled_since_) stalled_since_ = im_.now();
    wake(lane.receiver, lane.to, lane.receiver_awake, &LocalConn::receive);
  }

  /// Receives one read buffer; more is left for the loop's next turn.
  void receive() {
    Lane& lane = *in_lane_;
    if (state_ == State::connecting) {  // refused
      const std::lock_guard lock(lane.mutex);
      lane.receiver_awake = false;
      if (!lane.ended) return;
    }
    if (state_ == State::connecting) {
      return finish(make_error(Errc::peer_unresponsive, "refused by the server in this process"));
    }
    if (state_ != State::open) return;
    const auto scratch = im_.plain_scratch();
    const std::size_t kept = leftover_.size();
    std::size_t n = 0;
    bool ended = false;
    {
      const std::lock_guard lock(lane.mutex);
      lane.receiver_awake = false;
      if (paused_ || resume_queued_) return;
      n = std::min(lane.bytes.size(), AsioRuntime::Impl::kScratchBytes - kept);
      if (n > 0) {
        std::memcpy(scratch.get() + kept, lane.bytes.data(), n);
        lane.bytes.consume(n);
        lane.size.store(lane.bytes.size(), std::memory_order_relaxed);
        wake(lane.sender, lane.from, lane.sender_awake, &LocalConn::taken);
      }
      if (!lane.bytes.empty()) wake(lane.receiver, lane.to, lane.receiver_awake, &LocalConn::receive);
      ended = lane.ended && lane.bytes.empty();
    }
    leftover_.copy_to(scratch.get());
    if (kept + n > 0) deliver(scratch, kept + n);
    if (ended && state_ == State::open && !paused_ && !resume_queued_) {
      finish(make_error(Errc::disconnected, "closed by the other side"));
    }
  }

  void deliver(const AsioRuntime::Impl::Scratch& scratch, std::size_t size) {
    leftover_.clear();
    const auto keep = events_;
    const std::size_t used = keep->on_data({scratch.get(), size, scratch});
    if (state_ != State::open) return;
    leftover_.keep(scratch.get(), used, size);
    if (leftover_.size() < AsioRuntime::Impl::kScratchBytes || paused_) return;
    finish(make_error(Errc::too_large, "more input than fits the read buffer"));
  }

  /// The other end has received some of our output.
  void taken() {
    {
      const std::lock_guard lock(out_lane_->mutex);
      out_lane_->sender_awake = false;
    }
    if (state_ != State::open) return;
    const std::size_t left = queued();
    stalled_since_ = left == 0 ? std::nullopt : std::optional(im_.now());
    const auto keep = events_;
    keep->on_sent(left);
  }

  /// The other end will learn of it, and nobody uses this end's runtime any more.
  void leave() {
    {
      const std::lock_guard lock(out_lane_->mutex);
      out_lane_->sender = nullptr;
      if (!std::exchange(out_lane_->ended, true)) {
        wake(out_lane_->receiver, out_lane_->to, out_lane_->receiver_awake, &LocalConn::receive);
      }
    }
    const std::lock_guard lock(in_lane_->mutex);
    in_lane_->receiver = nullptr;
    in_lane_->bytes.release();
    in_lane_->size.store(0, std::memory_order_relaxed);
  }

  void shut() {
    state_ = State::closed;
    leave();
    out_.release();
    leftover_.release();
    stalled_since_.reset();
  }

  void finish(const Error& why) {
    if (state_ == State::closed) return;
    const auto self = shared_from_this();
    shut();
    report_closed(why);
  }

  void report_closed(const Error& why) {
    if (const auto events = std::exchange(events_, nullptr)) events->on_closed(why);
  }

  AsioRuntime& runtime_;
  AsioRuntime::Impl& im_;
  const std::shared_ptr<Lane> out_lane_, in_lane_;
  std::shared_ptr<ConnEvents> events_;
  State state_ = State::connecting;
  bool paused_ = false;
  bool resume_queued_ = false;
  bool flush_queued_ = false;
  const IpAddress ip_{};
  const std::string remote_ = "this process";
  ByteBuffer out_;
  Leftover leftover_;
  std::optional<Time> stalled_since_;
};

void LocalDoor::shut() {
  const std::lock_guard lock(mutex_);
  server_ = nullptr;
}

std::shared_ptr<Conn> connect(AsioRuntime& runtime, const std::shared_ptr<LocalDoor>& door,
                              std::shared_ptr<ConnEvents> events) {
  return LocalConn::make(runtime, door, std::move(events));
}

}  // namespace kitsune2::net
