// Two QUIC endpoints and a network that the input commands: it loses, repeats, reorders, damages and invents datagrams,
// lets time pass, sends, reads, gives up and closes. Nothing crashes; each message is reported once; nothing due stays
// due; what is kept is bounded; the keys are the right ones. That what is read is what was sent is for the unit tests.
#include <algorithm>
#include <deque>
#include <memory>
#include <set>

#include "fuzz/fuzz.hpp"
#include "transport/quic/endpoint.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

std::shared_ptr<const quic::Identity> identity(std::uint8_t byte) {
  quic::Identity::Seed seed{};
  seed.fill(byte);
  return quic::Identity::create(seed).value();
}

quic::Random numbers(std::uint64_t start) {
  return [state = start](std::span<std::uint8_t> out) mutable {
    for (std::uint8_t& byte : out) {
      state = state * 6364136223846793005U + 1442695040888963407U;
      byte = static_cast<std::uint8_t>(state >> 56);
    }
  };
}

quic::Config small() {
  quic::Config out;
  out.stream_window = 20'000;
  out.connection_window = 30'000;
  out.max_streams = 3;
  out.max_queue_bytes = 100'000;
  return out;
}

/// The byte at a place of a message: a message says its own length and number.
std::uint8_t byte_at(std::size_t message, std::size_t at) { return static_cast<std::uint8_t>(message * 31 + at * 7); }

struct Side {
  Side(std::uint8_t number, const quic::EndpointLimits& limits)
      : endpoint(identities()[number], small(), numbers(number + 1U), limits) {}
  static const std::array<std::shared_ptr<const quic::Identity>, 3>& identities() {
    static const std::array<std::shared_ptr<const quic::Identity>, 3> out = {identity(1), identity(2), identity(3)};
    return out;
  }

  quic::Endpoint endpoint;
  std::deque<Bytes> to_come;  ///< datagrams on their way to it
  std::size_t messages = 0;
  std::set<std::pair<quic::Endpoint::Id, quic::Connection::Ticket>> outstanding;
};

class World {
 public:
  World() { dial(0); }

  Side& side(std::uint8_t byte) { return *sides_[byte & 1]; }
  const quic::Key& other_key(std::uint8_t byte) { return sides_[(byte & 1) ^ 1]->endpoint.key(); }

  void dial(std::uint8_t byte) {
    if (side(byte).endpoint.size() < 3) (void)side(byte).endpoint.dial(other_key(byte), now_);
  }
  quic::Endpoint::Id some(std::uint8_t byte) { return 1 + (byte >> 1) % 3; }

  void flush() {
    for (std::uint8_t from = 0; from < 2; ++from) {
      while (const auto out = side(from).endpoint.produce(now_)) {
        K2_ASSERT(out->to == other_key(from) && out->batch.segment_bytes > 0 && out->batch.segment_bytes <= 1452);
        for (std::size_t at = 0; at < out->batch.content.size(); at += out->batch.segment_bytes) {
          auto& way = side(from ^ 1).to_come;
          if (way.size() < 500)
            way.push_back(
                out->batch.content.slice(at, std::min(out->batch.segment_bytes, out->batch.content.size() - at)));
        }
      }
    }
    look();
  }

  void look() {
    for (std::uint8_t at = 0; at < 2; ++at) {
      Side& here = side(at);
      while (const auto id = here.endpoint.next_changed()) {
        quic::Connection& connection = *here.endpoint.find(*id);
        for (const auto& sent : connection.take_sent()) K2_ASSERT(here.outstanding.erase({*id, sent.ticket}) == 1);
        if (connection.is_open()) K2_ASSERT(connection.peer() == other_key(at));
        K2_ASSERT(connection.library_bytes() <= small().max_library_bytes);
        if (connection.closed()) {
          K2_ASSERT(connection.queued_bytes() == 0);
          here.endpoint.release(*id, now_);
          std::erase_if(here.outstanding, [&](const auto& one) { return one.first == *id; });
        }
      }
    }
  }

  void deliver(std::uint8_t byte, std::size_t index, bool keep) {
    auto& way = side(byte).to_come;
    if (way.empty()) return;
    const std::size_t at = index % way.size();
    const Bytes datagram = way[at];
    if (!keep) way.erase(way.begin() + static_cast<std::ptrdiff_t>(at));
    side(byte).endpoint.receive(other_key(byte), datagram, now_);
  }
  void deliver_all() {
    for (int round = 0; round < 4; ++round) {
      for (std::uint8_t to = 0; to < 2; ++to) {
        while (!side(to).to_come.empty()) deliver(to, 0, false);
      }
      flush();
    }
  }
  void damage(std::uint8_t byte, std::uint8_t index, std::uint8_t where, std::uint8_t what) {
    auto& way = side(byte).to_come;
    if (way.empty()) return;
    Bytes& datagram = way[index % way.size()];
    std::vector<std::uint8_t> bytes(datagram.begin(), datagram.end());
    bytes[where % bytes.size()] ^= what;
    bytes.resize(std::max<std::size_t>(1, bytes.size() - what % 4));
    datagram = Bytes(std::move(bytes));
  }
  void invent(std::uint8_t byte, ByteView datagram) { side(byte).endpoint.receive(other_key(byte), datagram, now_); }

  void send(std::uint8_t byte, std::size_t size) {
    Side& here = side(byte);
    const auto id = some(byte);
    quic::Connection* connection = here.endpoint.find(id);
    if (connection == nullptr) return;
    std::vector<std::uint8_t> bytes(size + 1);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = byte_at(size, i);
    if (const auto ticket = connection->send(Bytes(std::move(bytes)))) here.outstanding.emplace(id, *ticket);
    here.endpoint.touched(id);
  }
  void read(std::uint8_t byte) {
    quic::Connection* connection = side(byte).endpoint.find(some(byte));
    if (connection == nullptr) return;
    while (const auto part = connection->read()) {
      K2_ASSERT(part->end || !part->data.empty());
      K2_ASSERT(part->data.size() <= small().stream_window);
      K2_ASSERT(connection->peer().has_value());
    }
    side(byte).endpoint.touched(some(byte));
  }
  void stop_reading(std::uint8_t byte) {
    if (quic::Connection* connection = side(byte).endpoint.find(some(byte))) connection->stop_reading();
    side(byte).endpoint.touched(some(byte));
  }
  void close(std::uint8_t byte, std::uint8_t code) {
    if (quic::Connection* connection = side(byte).endpoint.find(some(byte))) connection->close(code, "because", now_);
    side(byte).endpoint.touched(some(byte));
  }
  void pass(std::uint8_t units) {
    now_ += std::chrono::milliseconds(units) * 10;
    for (const auto& one : sides_) {
      one->endpoint.on_deadline(now_);
    }
    flush();
    for (const auto& one : sides_) {
      one->endpoint.on_deadline(now_);
      K2_ASSERT(one->endpoint.next_deadline() > now_);
    }
    look();
  }

 private:
  Time now_{std::chrono::seconds(1)};
  const quic::EndpointLimits limits_{6, 3, 2};
  std::unique_ptr<Side> sides_[2] = {std::make_unique<Side>(0, limits_), std::make_unique<Side>(1, limits_)};
};

}  // namespace

// Commands of a byte each, with what follows them.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ByteView rest(data, size);
  const auto byte = [&rest] {
    const std::uint8_t out = rest.empty() ? 0 : rest[0];
    rest = rest.subspan(std::min<std::size_t>(1, rest.size()));
    return out;
  };
  World world;
  world.flush();
  for (int steps = 0; !rest.empty() && steps < 300; ++steps) {
    const std::uint8_t command = byte();
    const std::uint8_t which = command >> 4;
    switch (command & 15) {
      case 0:
        world.deliver_all();
        break;
      case 1:
        world.deliver(which, 0, false);
        break;
      case 2:
        world.deliver(which, byte(), false);
        break;
      case 3:
        world.deliver(which, byte(), true);
        break;
      case 4: {
        const std::uint8_t index = byte(), where = byte();
        world.damage(which, index, where, byte());
        break;
      }
      case 5: {
        const std::size_t length = std::min<std::size_t>(byte() * 6U, rest.size());
        const Bytes invented = fuzz::input(rest.data(), length);
        rest = rest.subspan(length);
        world.invent(which, invented);
        break;
      }
      case 6:
        world.pass(byte());
        break;
      case 7:
        world.pass(1);
        break;
      case 8:
        world.send(which, byte());
        break;
      case 9:
        world.send(which, byte() * 256U);
        break;
      case 10:
        world.read(which);
        break;
      case 11:
        world.stop_reading(which);
        break;
      case 12:
        world.close(which, byte());
        break;
      case 13:
        world.dial(which);
        break;
      default:
        world.deliver_all();
        break;
    }
    world.flush();
  }
  return 0;
}
