// The rate at which the relay forwards, beside that of a plain Beast WebSocket echo with the same clients, and the cost
// of masking. In both, one message comes in and one goes out: echo returns it to its sender, the relay passes it to
// another client. Servers run on a thread of their own, whose CPU time is counted separately. Usage: relay_bench
// [seconds per row]
#include <pthread.h>
#include <sodium.h>
#include <time.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/websocket.hpp>
#include <boost/beast/websocket/detail/mask.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/relay_server.hpp"
#include "net/ws_codec.hpp"
#include "net/ws_connector.hpp"
#include "transport/sbd/sbd_frames.hpp"

namespace kitsune2 {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
using tcp = asio::ip::tcp;
using Clock = std::chrono::steady_clock;

double cpu_seconds(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

clockid_t clock_of(pthread_t thread) {
  clockid_t out{};
  ::pthread_getcpuclockid(thread, &out);
  return out;
}

/// A Beast echo server like those in its examples: one async read, one async write, one thread.
class BeastEcho {
 public:
  BeastEcho() : acceptor_(io_, tcp::endpoint(asio::ip::address_v4::loopback(), 0)) {
    accept();
    thread_ = std::thread([this] { io_.run(); });
  }
  ~BeastEcho() {
    io_.stop();
    thread_.join();
  }
  std::string url() const { return "ws://127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port()) + "/x"; }
  clockid_t clock() { return clock_of(thread_.native_handle()); }

 private:
  struct Session : std::enable_shared_from_this<Session> {
    explicit Session(tcp::socket socket) : ws(std::move(socket)) {}
    void run() {
      ws.next_layer().set_option(tcp::no_delay(true));
      ws.binary(true);
      ws.async_accept([self = shared_from_this()](beast::error_code ec) {
        if (!ec) self->read();
      });
    }
    void read() {
      ws.async_read(buffer, [self = shared_from_this()](beast::error_code ec, std::size_t) {
        if (!ec) self->write();
      });
    }
    void write() {
      ws.async_write(buffer.data(), [self = shared_from_this()](beast::error_code ec, std::size_t) {
        if (ec) return;
        self->buffer.consume(self->buffer.size());
        self->read();
      });
    }
    beast::websocket::stream<tcp::socket> ws;
    beast::flat_buffer buffer;
  };
  void accept() {
    acceptor_.async_accept([this](beast::error_code ec, tcp::socket socket) {
      if (ec) return;
      std::make_shared<Session>(std::move(socket))->run();
      accept();
    });
  }
  asio::io_context io_{1};
  tcp::acceptor acceptor_;
  std::thread thread_;
};

/// A sender that keeps its queue full, and a receiver that counts.
struct Pair {
  std::shared_ptr<WsConnection> sender;
  std::shared_ptr<WsConnection> receiver;  // null: the sender receives its own messages
  std::array<std::uint8_t, 32> keys[2];
  std::array<std::uint8_t, 64> secrets[2];
  Bytes message;
  std::uint64_t received = 0;
  int ready = 0;
  bool on = false;

  void pump() {
    while (on && sender->send(message)) {
    }
  }
};

struct Row {
  double messages_per_second = 0;
  double mib_per_second = 0;
  double server_us_per_message = 0;
};

class Load {
 public:
  explicit Load(std::string url) : url_(std::move(url)) { loop_.start(); }
  ~Load() {
    loop_.call([this] {
      pairs_.clear();
      connector_.reset();
    });
  }

  Row measure(bool relay, std::size_t count, std::size_t size, double seconds, clockid_t server_clock) {
    std::promise<void> all_ready;
    loop_.call([&] {
      connector_ = make_ws_connector(loop_);
      for (std::size_t i = 0; i < count; ++i) {
        auto pair = std::make_unique<Pair>();
        Pair* p = pair.get();
        pairs_.push_back(std::move(pair));
        const int needed = relay ? 2 : 1;
        const auto ready = [this, p, needed, &all_ready] {
          if (++p->ready == needed && ++ready_pairs_ == pairs_.size()) all_ready.set_value();
        };
        for (int side = 0; side < needed; ++side) {
          crypto_sign_keypair(p->keys[side].data(), p->secrets[side].data());
          auto& ws = side == 0 ? p->sender : p->receiver;
          WsHandlers handlers;
          handlers.on_writable = [p] { p->pump(); };
          handlers.on_close = [](const Error& why) {
            if (why.code != Errc::cancelled) std::fprintf(stderr, "closed: %s\n", why.to_string().c_str());
          };
          if (!relay) {
            handlers.on_open = ready;
            handlers.on_message = [p](const Bytes&) { ++p->received; };
          } else {
            handlers.on_message = [p, side, ready, &ws](const Bytes& m) {
              if (side == 1 && p->ready == 2 && m[0] + m[1] + m[2] != 0) {
                ++p->received;
                return;
              }
              const auto frame = sbd::parse_frame(m);
              if (frame->kind == sbd::FrameKind::auth_request) {
                ws->send(sbd::encode_auth_response(sbd::sign_nonce(frame->body, p->secrets[side])));
              } else if (frame->kind == sbd::FrameKind::ready) {
                ready();
              } else if (frame->kind == sbd::FrameKind::forward) {
                ++p->received;
              }
            };
          }
          WsOptions options;
          options.max_queue_bytes = 256U << 10;
          ws = connector_->connect(relay ? url_ + "/" + sbd::to_path(p->keys[side]) : url_, options,
                                   std::move(handlers));
        }
        p->message = sbd::encode_forward(p->keys[relay ? 1 : 0], std::vector<std::uint8_t>(size - 32, 7));
      }
    });
    all_ready.get_future().wait();
    const auto count_all = [&] {
      std::uint64_t out = 0;
      loop_.call([&] {
        for (const auto& p : pairs_) out += p->received;
      });
      return out;
    };
    loop_.call([&] {
      for (const auto& p : pairs_) {
        p->on = true;
        p->pump();
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(200));  // warm-up
    const std::uint64_t before = count_all();
    const double cpu = cpu_seconds(server_clock);
    const auto start = Clock::now();
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    const double wall = std::chrono::duration<double>(Clock::now() - start).count();
    const double used = cpu_seconds(server_clock) - cpu;
    const auto n = static_cast<double>(count_all() - before);
    loop_.call([&] {
      for (const auto& p : pairs_) p->on = false;
      pairs_.clear();
    });
    ready_pairs_ = 0;
    return {n / wall, n * static_cast<double>(size) / wall / (1 << 20), used / n * 1e6};
  }

 private:
  AsioRuntime loop_;
  std::string url_;
  std::unique_ptr<WsConnector> connector_;
  std::vector<std::unique_ptr<Pair>> pairs_;
  std::size_t ready_pairs_ = 0;
};

template <class F>
double nanos_per_call(F f) {
  const auto start = Clock::now();
  int calls = 0;
  while (Clock::now() - start < std::chrono::milliseconds(200)) {
    for (int i = 0; i < 100; ++i) f();
    calls += 100;
  }
  return std::chrono::duration<double, std::nano>(Clock::now() - start).count() / calls;
}

void masking() {
  std::vector<std::uint8_t> source(20'000, 1);
  std::vector<std::uint8_t> target(20'000);
  const double ours = nanos_per_call([&] { net::ws_mask(target.data(), source.data(), source.size(), 0x12345678); });
  const double plain = nanos_per_call([&] {
    std::memcpy(target.data(), source.data(), source.size());
    asm volatile("" : : "r"(target.data()) : "memory");
  });
  beast::websocket::detail::prepared_key key;
  beast::websocket::detail::prepare_key(key, 0x12345678);
  const double beasts = nanos_per_call([&] {
    std::memcpy(target.data(), source.data(), source.size());
    beast::websocket::detail::mask_inplace(asio::buffer(target), key);
  });
  std::printf("copy and mask 20000 bytes: ours %.0f ns, Beast %.0f ns, memcpy alone %.0f ns\n", ours, beasts, plain);
  std::printf("{\"row\":\"mask\",\"bytes\":20000,\"ours_ns\":%.1f,\"beast_ns\":%.1f,\"memcpy_ns\":%.1f}\n", ours,
              beasts, plain);
}

}  // namespace
}  // namespace kitsune2

int main(int argc, char** argv) {
  using namespace kitsune2;  // NOLINT(google-build-using-namespace)
  const double seconds = argc > 1 ? std::atof(argv[1]) : 2.0;
  if (sodium_init() < 0) return 1;
  masking();
  std::printf("%6s %6s | %12s %10s %10s | %12s %10s %10s | ratio\n", "bytes", "pairs", "echo msg/s", "MiB/s", "us CPU",
              "relay msg/s", "MiB/s", "us CPU");
  for (const std::size_t pairs : {1U, 16U}) {
    for (const std::size_t size : {100U, 1'000U, 16'000U, 20'000U}) {
      Row echo;
      Row relay;
      {
        BeastEcho server;
        Load load(server.url());
        echo = load.measure(false, pairs, size, seconds, server.clock());
      }
      {
        AsioRuntime runtime;
        runtime.start();
        RelayServerOptions options;
        options.disable_rate_limiting = true;
        auto server = RelayServer::start(runtime, options);
        if (!server) {
          std::fprintf(stderr, "%s\n", server.error().to_string().c_str());
          return 1;
        }
        pthread_t thread{};
        runtime.call([&] { thread = ::pthread_self(); });
        {
          Load load((*server)->relay_url());
          relay = load.measure(true, pairs, size, seconds, clock_of(thread));
        }
        (*server)->stop();
      }
      std::printf("%6zu %6zu | %12.0f %10.1f %10.2f | %12.0f %10.1f %10.2f | %.2f\n", size, pairs,
                  echo.messages_per_second, echo.mib_per_second, echo.server_us_per_message, relay.messages_per_second,
                  relay.mib_per_second, relay.server_us_per_message,
                  relay.messages_per_second / echo.messages_per_second);
      std::printf(
          "{\"row\":\"relay\",\"bytes\":%zu,\"pairs\":%zu,\"echo_per_s\":%.0f,\"relay_per_s\":%.0f,\"echo_cpu_us\":%."
          "3f,"
          "\"relay_cpu_us\":%.3f}\n",
          size, pairs, echo.messages_per_second, relay.messages_per_second, echo.server_us_per_message,
          relay.server_us_per_message);
      std::fflush(stdout);
    }
  }
  return 0;
}
