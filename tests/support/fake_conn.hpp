// A connection whose far end is played by a test or a fuzzer, on any runtime.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "kitsune2/runtime.hpp"
#include "net/conn.hpp"

namespace kitsune2::test {

/// The far end of one connection.
class FakeConn final : public net::Conn {
 public:
  FakeConn(Runtime& runtime, const std::string& ip) : runtime_(runtime), ip_(*net::IpAddress::parse(ip)) {}

  std::shared_ptr<net::ConnEvents> events;
  std::string sent;  // what the "network" has taken
  bool takes_output = true;
  bool paused = false;
  bool closed = false;
  std::string pending;  // input that was not used

  void receive(std::string_view data) {
    if (closed || !events) return;
    pending += data;
    offer();
  }
  void offer() {
    while (!closed && !paused && !pending.empty()) {
      const std::shared_ptr<std::uint8_t[]> none;
      std::string chunk = pending;
      const std::size_t used = events->on_data({reinterpret_cast<std::uint8_t*>(chunk.data()), chunk.size(), none});
      K2_ASSERT(used <= pending.size());
      pending.erase(0, used);
      if (used == 0 || closed) return;
    }
  }
  void take_output() {
    takes_output = true;
    stalled_.reset();
    drain();
  }
  /// The other side closes.
  void hang_up() { abort(make_error(Errc::disconnected, "gone")); }

  net::ByteBuffer& out() override { return out_; }
  void flush() override {
    runtime_.post([this, alive = std::weak_ptr<int>(alive_)] {
      if (!alive.lock()) return;
      if (takes_output) {
        drain();
      } else if (!stalled_ && !out_.empty()) {
        stalled_ = runtime_.now();
      }
    });
  }
  std::size_t queued() const override { return out_.size(); }
  void pause() override { paused = true; }
  void resume() override {
    paused = false;
    runtime_.post([this, alive = std::weak_ptr<int>(alive_)] {
      if (alive.lock()) offer();
    });
  }
  void close(Error why, Duration) override {
    if (closed) return;
    if (takes_output) sent += as_text({out_.data(), out_.size()});
    out_.release();
    abort(std::move(why));
  }
  void abort(Error why) override {
    if (std::exchange(closed, true)) return;
    runtime_.post([events = std::exchange(events, nullptr), why] {
      if (events) events->on_closed(why);
    });
  }
  const net::IpAddress& remote_ip() const override { return ip_; }
  const std::string& remote() const override { return name_; }
  std::optional<Time> stalled_since() const override { return stalled_; }

 private:
  void drain() {
    sent += as_text({out_.data(), out_.size()});
    if (out_.empty()) return;
    out_.consume(out_.size());
    if (!closed && events) {
      runtime_.post([this, alive = std::weak_ptr<int>(alive_)] {
        if (alive.lock() && events) events->on_sent(out_.size());
      });
    }
  }

  Runtime& runtime_;
  net::IpAddress ip_;
  std::string name_ = "test";
  net::ByteBuffer out_;
  std::optional<Time> stalled_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace kitsune2::test
