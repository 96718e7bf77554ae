// The relay's core under random commands: invariants hold after each one, closed connections get no actions, and a held
// sender is always released or closed.
#include <map>
#include <set>
#include <vector>

#include "fuzz/fuzz.hpp"
#include "server/sbd/relay_core.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)
using server::RelayCore;

namespace {

struct Play {
  RelayCore core;
  Time now{std::chrono::seconds(100)};
  std::set<RelayCore::ConnId> open;
  std::set<RelayCore::ConnId> held;
  std::map<RelayCore::ConnId, std::size_t> queued;

  static server::RelayLimits limits() {
    server::RelayLimits out;
    out.clients = 8;
    out.ip_kbps = 100'000;
    out.ip_byte_burst = 200'000;
    out.send_queue_bytes = 50'000;
    return out;
  }
  Play() : core(limits()) {}

  void take() {
    std::vector<RelayCore::Action> actions;
    core.take_actions(actions);
    for (const auto& action : actions) {
      K2_ASSERT(open.contains(action.conn));
      if (action.kind == RelayCore::Action::Kind::close) {
        open.erase(action.conn);
        held.erase(action.conn);
      }
      if (action.kind == RelayCore::Action::Kind::resume) K2_ASSERT(held.erase(action.conn) == 1);
    }
    core.check_invariants();
    K2_ASSERT(core.client_count() == open.size());
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Play p;
  RelayCore::ConnId next = 1;
  for (std::size_t i = 0; i + 2 < size && i < 3000; i += 3) {
    const std::uint8_t what = data[i];
    const std::uint8_t x = data[i + 1];
    const std::uint8_t y = data[i + 2];
    RelayCore::Ip ip{};
    ip[15] = x % 3;
    sbd::NodeId key{};
    key[0] = static_cast<std::uint8_t>(y % 5);  // 0: not legal
    const RelayCore::ConnId conn = 1 + x % 16;
    switch (what % 8) {
      case 0: {
        const auto id = next++;
        if (!p.core.on_open(id, ip, key, {}, p.now)) p.open.insert(id);
        break;
      }
      case 1:
        p.core.on_close(conn, p.now);
        p.open.erase(conn);
        p.held.erase(conn);
        break;
      case 2:
        p.now += std::chrono::milliseconds(x * y);
        p.core.poll(p.now);
        break;
      case 3:
        p.core.on_queue(conn, y * 200U, p.now);
        break;
      case 4:
        p.core.on_other_bytes(conn, y * 10U, p.now);
        break;
      case 5: {
        // A command with the following bytes of the input.
        std::vector<std::uint8_t> m(32 + y);
        m[28] = "ksla"[x % 4];
        m[29] = "erbr"[x % 4];
        m[30] = "edre"[x % 4];
        m[31] = "pyts"[x % 4];
        const auto head = ByteView(m).subspan(0, std::min(m.size(), RelayCore::kHeadBytes));
        p.core.on_message(conn, head, m.size(), p.now);
        break;
      }
      default: {
        std::vector<std::uint8_t> m(RelayCore::kHeadBytes);
        m[0] = key[0];
        const std::size_t bytes = y * 80U;
        const auto head = ByteView(m).subspan(0, std::min(bytes, m.size()));
        const auto routed = p.core.on_message(conn, head, bytes, p.now);
        if (routed.verdict == RelayCore::Verdict::hold) p.held.insert(conn);
        if (routed.verdict == RelayCore::Verdict::forward) K2_ASSERT(p.open.contains(routed.to));
        break;
      }
    }
    p.take();
  }
  // Without further input, every connection is closed in the end.
  for (int polls = 0; p.core.next_deadline(); ++polls) {
    K2_ASSERT(polls < 1000);
    p.now = std::max(p.now, *p.core.next_deadline());
    p.core.poll(p.now);
    p.take();
  }
  K2_ASSERT(p.open.empty() && p.core.address_count() == 0);
  return 0;
}
