// The common part of targets for clients: a connection whose far end is played by the input, in virtual time.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "fuzz/fuzz.hpp"
#include "kitsune2/testing/sim_runtime.hpp"
#include "net/dial.hpp"
#include "support/fake_conn.hpp"

namespace kitsune2::fuzz {

struct Dialled {
  testing::SimWorld world{1};
  std::unique_ptr<testing::SimRuntime> runtime = world.make_runtime();
  std::shared_ptr<test::FakeConn> conn;  ///< the last one that was dialled
  net::ConnectTarget target;             ///< its address

  /// A dial that always connects.
  net::Dial dial() {
    return [this](net::ConnectTarget where, Duration, std::shared_ptr<net::ConnEvents> events) {
      target = std::move(where);
      conn = std::make_shared<test::FakeConn>(*runtime, "10.0.0.1");
      conn->events = std::move(events);
      runtime->post([c = conn] { c->events->on_connected(); });
      return conn;
    };
  }

  /// Runs commands of one byte, until the connection is closed. 0: the far end closes. 255: time passes. One that `own`
  /// handles (it returns true). Otherwise that many bytes arrive. Calls `check` after each.
  template <class Own, class Check>
  void play(ByteView commands, Own own, Check check) {
    for (std::size_t at = 0; at < commands.size() && !conn->closed;) {
      const std::uint8_t command = commands[at++];
      if (command == 0) {
        conn->hang_up();
      } else if (command == 255) {
        world.run_for(std::chrono::seconds(7));
      } else if (!own(command)) {
        const std::size_t n = std::min<std::size_t>(command, commands.size() - at);
        conn->receive(as_text(commands.subspan(at, n)));
        at += n;
      }
      world.run_ready();
      check();
    }
  }
};

}  // namespace kitsune2::fuzz
