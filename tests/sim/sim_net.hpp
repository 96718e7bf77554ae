// TCP in virtual time: streams cut into pieces, with latency, bandwidth, full buffers, resets and silence.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kitsune2/testing/sim_runtime.hpp"
#include "net/conn.hpp"
#include "net/dial.hpp"

namespace kitsune2::sim {

class SimConn;

/// Several machines, each on an access link of its own, and the connections between them.
///
/// *Model*.
///  N1  A connection carries bytes in order, in pieces of any size, at the speed of the slower access link and with the
///      latency of both; connections wait for each other only on links they share.
///  N2  At most `window` bytes are under way; a reader that pauses stops the writer.
///  N3  What meets a blocked link is sent again later. After kGiveUp without progress the waiting end is told
///      (Errc::io), the other end never.
///  N4  A machine that is cut off resets its connections in the middle of what is under way.
///  N5  Bytes to a machine that died silently stay unanswered until it is up again; then a reset answers them.
///  N6  An attempt to connect is repeated after 1, 3 and 7 s and fails after net::kTcpConnectLimit.
///  N7  A deafened connection accepts what is sent to it and carries nothing further; nobody is told.
///
/// All choices come from the world's seed.
class SimNet {
 public:
  using Host = std::uint32_t;
  struct Link {
    Duration latency = std::chrono::milliseconds(5);
    std::uint64_t bytes_per_second = 0;  ///< each way; 0: no limit
  };
  using Accept = std::function<std::shared_ptr<net::ConnEvents>(const std::shared_ptr<net::Conn>&)>;
  struct Counters {
    std::uint64_t connections = 0, pieces = 0, bytes = 0, cut_in_flight = 0, given_up = 0, resets = 0, silenced = 0;
    std::uint64_t deafened = 0;
  };
  static constexpr Duration kGiveUp = std::chrono::seconds(40);
  static constexpr Duration kRetry = std::chrono::milliseconds(500);

  explicit SimNet(testing::SimWorld& world);
  ~SimNet();
  SimNet(const SimNet&) = delete;
  SimNet& operator=(const SimNet&) = delete;

  /// Adds a machine without a process.
  Host add_host(const std::string& name);
  /// Its process runs on `runtime`, until `down`.
  void up(Host host, testing::SimRuntime& runtime);
  /// Its process is gone (crash its runtime first). `reset`: the machine lives and resets its connections.
  void down(Host host, bool reset);
  /// Dials for the process of `host`, to "ws://<name>:1".
  net::Dial dial(Host host);
  void listen(Host host, Accept accept);

  void set_link(Host host, const Link& link) { hosts_[host].link = link; }
  /// Nothing arrives at or leaves the machine.
  void block(Host host, bool blocked) { hosts_[host].blocked = blocked; }
  bool is_blocked(Host host) const { return hosts_[host].blocked; }
  /// Resets all its connections somewhere inside what is under way.
  void cut(Host host);
  /// Its connections carry nothing any more, and nobody is told.
  void silence(Host host);
  /// Its connections stay open and carry nothing, like those of a process that hangs.
  void deafen(Host host);
  void set_window(std::size_t bytes) { window_ = bytes; }

  const Counters& counters() const { return counters_; }
  std::size_t open_connections() const { return conns_.size(); }

 private:
  friend class SimConn;
  struct Machine {
    std::string name;
    testing::SimRuntime* runtime = nullptr;
    Link link;
    bool blocked = false;
    Accept accept;
    Time up_free{}, down_free{};
    net::IpAddress ip;
  };

  void connect(const std::shared_ptr<SimConn>& conn, const std::string& to, Duration timeout);
  void knock(const std::shared_ptr<SimConn>& conn, Host host, Host remote);
  Time arrival(Host from, Host to, std::size_t size);
  bool can_pass(Host a, Host b) const { return !hosts_[a].blocked && !hosts_[b].blocked; }
  std::uint64_t random(std::uint64_t below) { return world_.random(below); }
  std::vector<std::shared_ptr<SimConn>> conns_of(Host host) const;

  testing::SimWorld& world_;
  std::unique_ptr<testing::SimRuntime> runtime_;
  std::vector<Machine> hosts_;
  std::map<std::uint64_t, std::shared_ptr<SimConn>> conns_;  ///< the open ones
  std::uint64_t next_conn_ = 1;
  std::size_t window_ = 64U << 10;
  Counters counters_;
};

}  // namespace kitsune2::sim
