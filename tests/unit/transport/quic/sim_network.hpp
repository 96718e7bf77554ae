// A network between two QUIC connections, in virtual time: latency, loss, reordering, duplication, a largest datagram.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "transport/quic/connection.hpp"

namespace kitsune2::quic::tests {

struct Faults {
  double loss = 0, duplication = 0, reorder = 0;
  Duration latency = std::chrono::milliseconds(10);
  std::size_t largest = 65'535;  ///< a larger datagram vanishes
  double damage = 0;             ///< a byte of it is changed
};

inline Identity::Seed seed(std::uint8_t byte) {
  Identity::Seed out{};
  out.fill(byte);
  return out;
}
inline std::shared_ptr<const Identity> identity(std::uint8_t byte) { return Identity::create(seed(byte)).value(); }

inline Random random_of(std::uint64_t number) {
  auto engine = std::make_shared<std::mt19937_64>(number);
  return [engine](std::span<std::uint8_t> out) {
    for (std::uint8_t& byte : out) byte = static_cast<std::uint8_t>((*engine)());
  };
}

/// A message whose bytes say where they belong.
inline Bytes pattern(std::size_t size, std::uint32_t salt = 0) {
  std::vector<std::uint8_t> out(size);
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::uint8_t>((i * 2654435761U + salt) >> 13);
  return Bytes(std::move(out));
}

/// Two ends: the one that dials and, when its first datagram has come, the one that accepts.
class Pair {
 public:
  explicit Pair(std::uint64_t number, const Config& client = {}, const Config& server = {})
      : server_config_(server), engine_(number), number_(number) {
    ends_[0] = Connection::dial(identity(1), client, random_of(number), expected_, now_).value();
  }
  Pair(std::uint64_t number, const Key& expected, std::optional<Key> accepted = {}, const Config& client = {},
       const Config& server = {})
      : server_config_(server), expected_(expected), accepted_(accepted), engine_(number), number_(number) {
    ends_[0] = Connection::dial(identity(1), client, random_of(number), expected_, now_).value();
  }

  Connection& client() { return *ends_[0]; }
  Connection& server() { return *ends_[1]; }
  bool has_server() const { return ends_[1] != nullptr; }

  /// Everything that is due now goes out, and time passes to the next thing that happens, until `limit` from now or
  /// until `done` says so. Whether `done` did.
  template <class Done>
  bool run(Duration limit, Done done) {
    const Time until = now_ + limit;
    while (true) {
      flush();
      if (done()) return true;
      Time next = until;
      if (!under_way_.empty()) next = std::min(next, under_way_.begin()->first);
      for (const auto& end : ends_) {
        if (end && !end->is_finished(now_)) next = std::min(next, std::max(now_, end->next_deadline()));
      }
      if (next >= until) {
        now_ = until;
        return done();
      }
      now_ = next;
      deliver();
      for (const auto& end : ends_) {
        if (end && end->next_deadline() <= now_) end->on_deadline(now_);
      }
    }
  }
  void run(Duration limit) {
    run(limit, [] { return false; });
  }
  bool open() {
    return run(std::chrono::seconds(60), [this] { return client().is_open() && has_server() && server().is_open(); });
  }
  /// Reads all that has come to `to` at the first stream.
  void read_all(Connection& from, std::vector<std::uint8_t>& into) {
    while (const auto part = from.read()) into.insert(into.end(), part->data.begin(), part->data.end());
  }

  Faults faults;
  std::string trace;  ///< what went where, when, without its bytes
  std::size_t datagrams = 0;
  bool cut = false;                ///< nothing passes
  std::size_t largest = kAnySize;  ///< that either end is asked for
  Time now_{std::chrono::seconds(5)};

 private:
  struct UnderWay {
    int to;
    Bytes datagram;
  };
  double chance() { return std::uniform_real_distribution<double>(0, 1)(engine_); }

  void flush() {
    for (int from = 0; from < 2; ++from) {
      if (!ends_[from]) continue;
      while (const auto batch = ends_[from]->produce(now_, Connection::kMaxSegments, largest)) {
        for (std::size_t at = 0; at < batch->content.size(); at += batch->segment_bytes)
          put(1 - from, batch->content.slice(at, std::min(batch->segment_bytes, batch->content.size() - at)));
      }
    }
  }
  void put(int to, Bytes datagram) {
    ++datagrams;
    trace += std::to_string(now_.time_since_epoch().count()) + (to == 1 ? ">" : "<") + std::to_string(datagram.size()) +
             "\n";
    if (cut || datagram.size() > faults.largest || chance() < faults.loss) return;
    if (chance() < faults.damage) {
      std::vector<std::uint8_t> bytes(datagram.begin(), datagram.end());
      bytes[engine_() % bytes.size()] ^= static_cast<std::uint8_t>(1 + engine_() % 255);
      datagram = Bytes(std::move(bytes));
    }
    const int copies = chance() < faults.duplication ? 2 : 1;
    for (int i = 0; i < copies; ++i) {
      const Duration more = chance() < faults.reorder ? faults.latency * 2 : Duration::zero();
      under_way_.emplace(now_ + faults.latency + more, UnderWay{to, datagram});
    }
  }
  void deliver() {
    while (!under_way_.empty() && under_way_.begin()->first <= now_) {
      const UnderWay one = under_way_.begin()->second;
      under_way_.erase(under_way_.begin());
      if (one.to == 1 && !ends_[1]) {
        auto accepted =
            Connection::accept(identity(2), server_config_, random_of(number_ + 1), accepted_, one.datagram, now_);
        if (!accepted) continue;
        ends_[1] = std::move(*accepted);
      }
      ends_[one.to]->receive(one.datagram, now_);
    }
  }

  const Config server_config_;
  const Key expected_ = identity(2)->key();
  const std::optional<Key> accepted_;
  std::unique_ptr<Connection> ends_[2];
  std::multimap<Time, UnderWay> under_way_;
  std::mt19937_64 engine_;
  const std::uint64_t number_;
};

}  // namespace kitsune2::quic::tests
