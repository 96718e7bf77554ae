// A slow line between two programs of this machine: TCP with delay,
// limited rate, jitter or connections that are cut.
// Prints {"addr": "127.0.0.1:PORT"}, forwards every connection there to TARGET, and ends when its input ends.
//
// usage: line_proxy TARGET_HOST:PORT [rtt=MS] [mbit=N] [jitter=MS] [drop=S]
//     rtt     half of it is added each way
//     mbit    the rate of the line each way, shared by all connections; 20 ms of it may wait at the sending end
//     jitter  additional delay up to this, drawn for each piece that was read; pieces do not overtake each other
//     drop    all connections are cut after this many seconds, repeatedly
#include <boost/asio.hpp>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;

namespace {

constexpr std::size_t kPieceBytes = 64 << 10;
constexpr std::chrono::milliseconds kSendQueue{20};

struct Line {
  microseconds delay{0};
  double bytes_per_us = 0;  ///< 0: no limit
  std::int64_t jitter_us = 0;
  std::mt19937_64 random{1};
};

/// One direction of all connections: when what is read now will have left the sending end completely.
struct Rate {
  Clock::time_point free_at = Clock::now();
};

/// One direction of one connection.
class Way : public std::enable_shared_from_this<Way> {
 public:
  Way(Line& line, Rate& rate, std::shared_ptr<Tcp::socket> from, std::shared_ptr<Tcp::socket> to)
      : line_(line),
        rate_(rate),
        from_(std::move(from)),
        to_(std::move(to)),
        reading_(to_->get_executor()),
        delivery_(to_->get_executor()) {}

  void start() { read(); }

 private:
  struct Piece {
    Clock::time_point due;
    std::vector<char> bytes;
  };

  void read() {
    // A full queue at the sending end delays the sender, as a socket of a slow line does.
    const auto wait = rate_.free_at - Clock::now() - kSendQueue;
    if (line_.bytes_per_us > 0 && wait > Clock::duration::zero()) {
      reading_.expires_after(wait);
      reading_.async_wait([self = shared_from_this()](auto error) {
        if (!error) self->read();
      });
      return;
    }
    buffer_.resize(line_.bytes_per_us > 0 ? std::min<std::size_t>(kPieceBytes, 8 << 10) : kPieceBytes);
    from_->async_read_some(asio::buffer(buffer_), [self = shared_from_this()](auto error, std::size_t size) {
      if (error) return self->close();
      self->take(size);
      self->read();
    });
  }

  void take(std::size_t size) {
    auto at = Clock::now();
    if (line_.bytes_per_us > 0) {
      rate_.free_at =
          std::max(rate_.free_at, at) +
          std::chrono::nanoseconds(static_cast<std::int64_t>(1000.0 * static_cast<double>(size) / line_.bytes_per_us));
      at = rate_.free_at;
    }
    at += line_.delay;
    if (line_.jitter_us > 0) at += microseconds(static_cast<std::int64_t>(line_.random()) % line_.jitter_us);
    last_ = std::max(last_, at);
    buffer_.resize(size);
    queue_.push_back({last_, std::move(buffer_)});
    buffer_ = {};
    if (queue_.size() == 1) deliver();
  }

  void deliver() {
    const auto now = Clock::now();
    if (queue_.front().due > now) {
      delivery_.expires_at(queue_.front().due);
      delivery_.async_wait([self = shared_from_this()](auto error) {
        if (!error) self->deliver();
      });
      return;
    }
    // Everything due is sent in one call.
    std::vector<asio::const_buffer> due;
    for (const Piece& piece : queue_) {
      if (piece.due > now || due.size() == 16) break;
      due.push_back(asio::buffer(piece.bytes));
    }
    const std::size_t count = due.size();
    asio::async_write(*to_, due, [self = shared_from_this(), count](auto error, std::size_t) {
      if (error) return self->close();
      self->queue_.erase(self->queue_.begin(), self->queue_.begin() + static_cast<std::ptrdiff_t>(count));
      if (!self->queue_.empty()) return self->deliver();
      if (self->is_ended_) self->close();
    });
  }

  void close() {
    is_ended_ = true;
    if (!queue_.empty()) return;  // what is on the line still arrives
    boost::system::error_code ignored;
    to_->close(ignored);
    from_->close(ignored);
  }

  Line& line_;
  Rate& rate_;
  std::shared_ptr<Tcp::socket> from_, to_;
  asio::steady_timer reading_, delivery_;
  std::vector<char> buffer_;
  std::deque<Piece> queue_;
  Clock::time_point last_{};
  bool is_ended_ = false;
};

class Proxy {
 public:
  Proxy(asio::io_context& io, Tcp::endpoint target, Line line, std::chrono::seconds drop)
      : io_(io),
        target_(std::move(target)),
        line_(line),
        acceptor_(io, {asio::ip::address_v4::loopback(), 0}),
        drop_timer_(io),
        drop_(drop) {
    std::cout << R"({"addr":"127.0.0.1:)" << acceptor_.local_endpoint().port() << "\"}" << std::endl;
    accept();
    if (drop_.count() > 0) drop_later();
  }

 private:
  void accept() {
    acceptor_.async_accept([this](auto error, Tcp::socket socket) {
      if (error) return;
      auto near = std::make_shared<Tcp::socket>(std::move(socket));
      auto far = std::make_shared<Tcp::socket>(io_);
      far->async_connect(target_, [this, near, far](auto failed) {
        if (failed) return;
        for (const auto& each : {near, far}) each->set_option(Tcp::no_delay(true));
        std::make_shared<Way>(line_, up_, near, far)->start();
        std::make_shared<Way>(line_, down_, far, near)->start();
        open_.emplace_back(near);
        open_.emplace_back(far);
      });
      accept();
    });
  }

  void drop_later() {
    drop_timer_.expires_after(drop_);
    drop_timer_.async_wait([this](auto error) {
      if (error) return;
      for (const auto& weak : open_) {
        boost::system::error_code ignored;
        if (const auto socket = weak.lock()) socket->close(ignored);
      }
      open_.clear();
      drop_later();
    });
  }

  asio::io_context& io_;
  const Tcp::endpoint target_;
  Line line_;
  Rate up_, down_;
  Tcp::acceptor acceptor_;
  asio::steady_timer drop_timer_;
  const std::chrono::seconds drop_;
  std::vector<std::weak_ptr<Tcp::socket>> open_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::string target = argc > 1 ? argv[1] : "";
  const auto colon = target.rfind(':');
  if (colon == std::string::npos) {
    std::cerr << "usage: line_proxy TARGET_HOST:PORT [rtt=MS] [mbit=N] [jitter=MS] [drop=S]\n";
    return 2;
  }
  Line line;
  std::chrono::seconds drop{0};
  for (int i = 2; i < argc; ++i) {
    const std::string arg = argv[i];
    const auto equals = arg.find('=');
    const std::string name = arg.substr(0, equals);
    const double value = equals == std::string::npos ? 0 : std::atof(arg.c_str() + equals + 1);
    if (name == "rtt") line.delay = microseconds(static_cast<std::int64_t>(value * 500));
    if (name == "mbit") line.bytes_per_us = value / 8;
    if (name == "jitter") line.jitter_us = static_cast<std::int64_t>(value * 1000);
    if (name == "drop") drop = std::chrono::seconds(static_cast<std::int64_t>(value));
  }
  asio::io_context io(1);
  const auto port = static_cast<std::uint16_t>(std::atoi(target.c_str() + colon + 1));
  Proxy proxy(io, {asio::ip::make_address(target.substr(0, colon)), port}, line, drop);
  asio::posix::stream_descriptor input(io, 0);
  std::array<char, 256> ignored{};
  std::function<void()> wait = [&] {
    input.async_read_some(asio::buffer(ignored), [&](auto error, std::size_t) {
      if (error) return io.stop();
      wait();
    });
  };
  wait();
  io.run();
  return 0;
}
