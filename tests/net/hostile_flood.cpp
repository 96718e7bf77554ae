// The attackers of hostile.py that need no key: they send HTTP requests and WebSocket frames over plain sockets as fast
// as they can. This file also replaces two functions of the C library, through which all attackers of the program go.
// So it decides from which address they connect, and whether they read.
#undef _FORTIFY_SOURCE  // with it, clang has the bodies of these functions in the system headers
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <thread>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hostile_attack.hpp"
#include "kitsune2/testing/builders.hpp"

using namespace std::chrono_literals;

namespace kitsune2::hostile {
namespace {

std::atomic<bool> deaf = false;

std::string frames(std::uint8_t first, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) {
    // Empty, with a mask of zeros. The message of fragments never ends.
    const char head = static_cast<char>(first == 0x02 && i > 0 ? 0x00 : first);
    out += std::string{head, '\x80', 0, 0, 0, 0};
  }
  return out;
}

class Flood final : public Attack {
 public:
  Flood(AsioRuntime& runtime, Plan plan) : runtime_(runtime), plan_(std::move(plan)) {}
  ~Flood() override {
    over_ = true;
    if (thread_.joinable()) thread_.join();
  }
  static bool knows(const std::string& kind) {
    return kind.starts_with("http-") || kind.starts_with("ws-") || kind.starts_with("fill-") || kind == "nothing" ||
           kind == "spin";
  }
  void start() override {
    const std::string place = plan_.place();
    const std::size_t colon = place.rfind(':');
    to_.sin_family = AF_INET;
    to_.sin_addr.s_addr = ::inet_addr(place.substr(0, colon).c_str());
    to_.sin_port = htons(static_cast<std::uint16_t>(std::stoul(place.substr(colon + 1))));
    prepare();
    const bool is_harmless = plan_.kind == "nothing" || plan_.kind == "spin";
    thread_ = std::thread([this, is_harmless] { is_harmless ? spin() : run(); });
  }
  Tally tally() const override {
    const std::lock_guard lock(mutex_);
    return tally_;
  }
  std::size_t peers() const override { return open_; }

 private:
  struct Client {
    int fd = -1;
    std::string left;    ///< the rest of what is being sent
    std::size_t at = 0;  ///< the index in `bodies_`
    std::chrono::steady_clock::time_point again{};
  };

  static std::string put(const SpaceId& space, const AgentInfoSigned& info, const std::string& body) {
    return "PUT /bootstrap/" + space.to_string() + "/" + info.info().agent.to_string() +
           " HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  void prepare() {
    const auto agent = testing::make_agent(3'000'000);
    testing::AgentInfoBuilder builder{.space = plan_.space, .url = plan_.victim};
    builder.created_at = runtime_.wall_now();
    if (plan_.kind == "http-get") {
      bodies_.push_back("GET /bootstrap/" + plan_.space.to_string() + " HTTP/1.1\r\nHost: a\r\n\r\n");
    } else if (plan_.kind == "http-put") {
      const auto info = builder.sign(*agent);
      std::string body(info->encode());
      const std::size_t at = body.find("signature") + 40;
      body[at] = body[at] == 'A' ? 'B' : 'A';
      bodies_.push_back(put(plan_.space, *info, body));
    } else if (plan_.kind == "fill-bootstrap") {
      // One agent, in more spaces than a server keeps.
      builder.lifetime = 29min;
      for (int i = 0; i < 12'000; ++i) {
        builder.space = SpaceId::from_text("space " + std::to_string(i));
        const auto info = builder.sign(*agent);
        bodies_.push_back(put(builder.space, *info, std::string(info->encode())));
      }
    } else if (plan_.kind == "fill-space") {
      // Many agents, in a space that the server knows.
      builder.lifetime = 29min;
      for (std::uint64_t i = 0; i < 512; ++i) {
        const auto fresh = testing::make_agent(4'000'000 + i);
        const auto info = builder.sign(*fresh);
        bodies_.push_back(put(plan_.space, *info, std::string(info->encode())));
      }
    } else {
      ws_ = true;
      const std::uint8_t first = plan_.kind == "ws-ping" ? 0x89 : plan_.kind == "ws-pong" ? 0x8a : 0x02;
      bodies_.push_back(frames(first, 256));
      if (first == 0x02) bodies_.push_back(frames(0x00, 256));
    }
  }
  void open(Client& c) {
    c = Client();
    c.fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): how the C library takes addresses
    if (::connect(c.fd, reinterpret_cast<const sockaddr*>(&to_), sizeof to_) != 0 && errno != EINPROGRESS) close(c);
    if (ws_)
      c.left =
          "GET /iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: "
          "Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
  }
  void close(Client& c) {
    if (c.fd >= 0) ::close(c.fd);
    c.fd = -1;
    c.again = std::chrono::steady_clock::now() + 50ms;
  }
  /// Reads and drops what has arrived. False: the connection was closed.
  bool drain(Client& c, Tally& done) {
    char room[65536];
    while (true) {
      const ssize_t got = ::syscall(SYS_recvfrom, c.fd, room, sizeof room, MSG_DONTWAIT, nullptr, nullptr);
      if (got > 0) {
        done.received += static_cast<std::uint64_t>(got);
        continue;
      }
      return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    }
  }
  bool write(Client& c, Tally& done) {
    for (int turn = 0; turn < 8; ++turn) {
      if (c.left.empty()) {
        c.left = bodies_[c.at % bodies_.size()];
        // If there are several bodies, the clients send them in turn. A message of fragments continues where it was.
        c.at = ws_ && bodies_.size() == 2 ? 1 : next_++;
        done.messages += ws_ ? 256 : 1;
      }
      const ssize_t sent = ::send(c.fd, c.left.data(), c.left.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
      done.bytes += static_cast<std::uint64_t>(sent);
      c.left.erase(0, static_cast<std::size_t>(sent));
      if (!c.left.empty()) return true;
    }
    return true;
  }
  /// What a measurement is worth: no attack, with and without the processor time of one.
  void spin() {
    while (!over_) {
      if (plan_.kind == "nothing") std::this_thread::sleep_for(10ms);
      const auto until = std::chrono::steady_clock::now() + 1ms;
      while (plan_.kind == "spin" && std::chrono::steady_clock::now() < until) {
      }
      const std::lock_guard lock(mutex_);
      tally_.messages += 1;
    }
  }
  void run() {
    std::vector<Client> clients(plan_.peers);
    std::vector<pollfd> polls;
    while (!over_) {
      polls.clear();
      Tally done;
      std::size_t open_now = 0;
      for (Client& c : clients) {
        if (c.fd < 0 && std::chrono::steady_clock::now() >= c.again) open(c);
        if (c.fd >= 0) ++open_now;
        polls.push_back({.fd = c.fd, .events = POLLIN | POLLOUT, .revents = 0});
      }
      open_ = open_now;
      ::poll(polls.data(), polls.size(), 20);
      for (std::size_t i = 0; i < clients.size(); ++i) {
        Client& c = clients[i];
        if (c.fd < 0 || polls[i].revents == 0) continue;
        const bool fine = ((polls[i].revents & (POLLERR | POLLHUP)) == 0) && drain(c, done) &&
                          ((polls[i].revents & POLLOUT) == 0 || write(c, done));
        if (fine) continue;
        done.closed += 1;
        close(c);
      }
      const std::lock_guard lock(mutex_);
      tally_.messages += done.messages;
      tally_.bytes += done.bytes;
      tally_.closed += done.closed;
      tally_.received += done.received;
    }
    for (Client& c : clients) close(c);
  }

  AsioRuntime& runtime_;
  const Plan plan_;
  sockaddr_in to_{};
  bool ws_ = false;
  std::vector<std::string> bodies_;
  std::size_t next_ = 0;
  std::thread thread_;
  std::atomic<bool> over_ = false;
  std::atomic<std::size_t> open_ = 0;
  mutable std::mutex mutex_;
  Tally tally_;
};

/// How many addresses the sockets connect from, in turn; 0 leaves the choice to the system.
std::atomic<std::uint32_t> addresses = 0;
std::atomic<std::uint32_t> first_address = 0;
std::atomic<std::uint32_t> next_address = 0;

}  // namespace

std::unique_ptr<Attack> make_flood(AsioRuntime& runtime, Plan plan) {
  if (!Flood::knows(plan.kind)) return nullptr;
  return std::make_unique<Flood>(runtime, std::move(plan));
}

void stop_reading() { deaf = true; }
void come_from(std::size_t count, std::size_t network) {
  first_address = 0x7f000002U + (static_cast<std::uint32_t>(network) << 8);
  addresses = static_cast<std::uint32_t>(count);
}

}  // namespace kitsune2::hostile

// These replace the functions of the C library in this program.
extern "C" {

int connect(int fd, const sockaddr* to, socklen_t size) {
  using namespace kitsune2::hostile;
  if (addresses != 0 && to->sa_family == AF_INET) {
    sockaddr_in from{};
    from.sin_family = AF_INET;
    from.sin_addr.s_addr = htonl(first_address + next_address++ % addresses);
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): how the C library takes addresses
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&from), sizeof from) != 0) return -1;
  }
  return static_cast<int>(::syscall(SYS_connect, fd, to, size));
}

ssize_t recv(int fd, void* room, std::size_t size, int flags) {
  if (kitsune2::hostile::deaf) {
    errno = EAGAIN;
    return -1;
  }
  return ::syscall(SYS_recvfrom, fd, room, size, flags, nullptr, nullptr);
}

ssize_t recvmsg(int fd, msghdr* message, int flags) {
  if (kitsune2::hostile::deaf) {
    errno = EAGAIN;
    return -1;
  }
  return ::syscall(SYS_recvmsg, fd, message, flags);
}

}  // extern "C"
