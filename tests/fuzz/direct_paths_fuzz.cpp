// Direct paths with peers that tell any address, answer or not, from where they like, over lines that carry any size,
// and with datagrams of anybody: the judge counts after each command. Input: commands of one byte, with bytes of their
// own.
#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "fuzz/fuzz.hpp"
#include "unit/transport/iroh/direct_judge.hpp"

using namespace kitsune2;         // NOLINT(google-build-using-namespace)
using namespace kitsune2::tests;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes input = fuzz::input(data, size);
  if (input.empty()) return 0;
  if (iroh::is_direct_offer(input)) {
    if (const auto offer = iroh::decode_offer(input))
      K2_ASSERT(iroh::decode_offer(iroh::encode_offer(*offer))->addresses == offer->addresses);
  }
  static_cast<void>(iroh::has_direct_mark(input));
  std::size_t at = 0;
  const auto byte = [&] { return at < input.size() ? input[at++] : std::uint8_t{0}; };
  DirectJudge judge((byte() & 1U) != 0);
  const auto address = [&] {
    const std::uint8_t kind = byte();
    const auto host = static_cast<std::uint8_t>(kind / 8 % 8);
    switch (kind % 8) {
      case 0:
      case 1:
        return UdpAddress::v4(8, 0, 0, host, 5000);
      case 2:
      case 3:
        return UdpAddress::v4(10, 0, 0, host, 5000);
      case 4:
        return UdpAddress::v4(127, 0, 0, 1, static_cast<std::uint16_t>(2000 + host));
      case 5:
        return UdpAddress::v4(static_cast<std::uint8_t>(192 + host * 8), 0, 0, 1, 5000);
      case 6:
        return UdpAddress::v4(8, 8, 8, 8, static_cast<std::uint16_t>(host * 200));
      default: {
        UdpAddress out;
        for (std::uint8_t& one : out.ip) one = byte();
        out.port = static_cast<std::uint16_t>(byte() << 8U | byte());
        return out;
      }
    }
  };
  const auto addresses = [&](std::size_t most) {
    std::vector<UdpAddress> out;
    for (std::size_t i = byte() % most; i > 0; --i) out.push_back(address());
    return out;
  };
  std::size_t seen = 0, relayed = 0;
  // A while in which the two ways have round trips of their own.
  const auto live = [&](DirectJudge::Id id, std::uint8_t path, std::uint8_t relay) {
    for (int i = 0; i < 80 && judge.pings.size() < 500; ++i) {
      judge.sent(id);
      judge.pass(std::chrono::milliseconds(500));
      const std::size_t first = judge.pings.size() - std::min<std::size_t>(judge.pings.size(), 4);
      for (std::size_t n = first; n < judge.pings.size(); ++n) {
        if (judge.now - judge.pings[n].at >= std::chrono::milliseconds(path)) judge.answer(n, judge.pings[n].to);
      }
      const std::size_t last = judge.relay_pings.size();
      if (last > 0 && judge.now - judge.relay_pings[last - 1].at >= std::chrono::milliseconds(relay * 2))
        judge.answer_relay(last - 1);
    }
  };
  while (at < input.size()) {
    const std::uint8_t command = byte();
    const DirectJudge::Id id = 1 + command / 16 % 4;
    switch (command % 16) {
      case 0:
        judge.tell_ours(id, addresses(4));
        break;
      case 1:
        judge.hear_theirs(id, addresses(10));
        break;
      case 2:
        judge.ping_us(id, address(), byte() * 6U);
        break;
      case 3:
        judge.unreachable(address());
        break;
      case 4:
        if (command >= 240) {
          judge.forget(id);
        } else if (command >= 224) {
          judge.lose_relay();
        } else if (command >= 128) {
          judge.ping_us_by_relay(id, DirectJudge::endpoint_of(1 + byte() % 4U));
        } else if (command < 64) {
          const std::uint8_t path = byte();
          live(id, path, byte());
        } else {
          const UdpAddress line = address();
          judge.carries[line] = 1190 + byte() * 2U;
        }
        break;
      case 5:
        judge.sent(id);
        break;
      case 6:
        if (judge.pings.empty()) break;
        if (const std::size_t number = byte() % judge.pings.size(); command < 192) {
          judge.answer(number, address());
        } else {
          judge.answer(number, judge.pings[number].to, {.pinger = DirectJudge::endpoint_of(id), .pinged = {}});
          judge.ping_us_as({}, id, judge.pings[number].to);
        }
        break;
      case 7: {
        std::vector<std::uint8_t> raw = {0x1b, 'k', '2', 'd'};
        for (std::size_t i = byte(); i > 0; --i) raw.push_back(byte());
        judge.raw(address(), Bytes(std::move(raw)));
        break;
      }
      case 8:
      case 9:
      case 10:
        for (; seen < judge.pings.size(); ++seen) judge.answer(seen, judge.pings[seen].to);
        if (command >= 64) break;
        for (; relayed < judge.relay_pings.size(); ++relayed) judge.answer_relay(relayed);
        break;
      case 11:
        seen = judge.pings.size();
        relayed = judge.relay_pings.size();
        break;
      default:
        judge.pass(std::chrono::microseconds(1U << (byte() % 26)));
        break;
    }
    // The judge looks at everything that was sent, each time.
    if (judge.pings.size() > 2000) return 0;
  }
  return 0;
}
