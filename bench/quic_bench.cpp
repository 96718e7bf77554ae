// What QUIC itself costs: messages of 1 MiB between two connections (ngtcp2 with GnuTLS) in one process, whose
// datagrams are handed over in memory. No socket, relay, fetch, hash or store.
//
// usage: quic_bench [MIB]
// Prints {"bytes", "wall_s", "cpu_s", "datagrams"}; the handshake is not counted. Both ends are counted.
#include <sodium.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "process.hpp"
#include "transport/quic/connection.hpp"

using namespace kitsune2;
using bench::fail;
using bench::must;

namespace {

constexpr std::size_t kMessageBytes = 1U << 20;

Time now() { return Time(std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch())); }

quic::Random random_bytes() {
  return [](std::span<std::uint8_t> out) { randombytes_buf(out.data(), out.size()); };
}

std::shared_ptr<const quic::Identity> identity(std::uint8_t byte) {
  quic::Identity::Seed seed{};
  seed.fill(byte);
  return must(quic::Identity::create(seed));
}

struct Ends {
  std::shared_ptr<const quic::Identity> sender_identity = identity(1), receiver_identity = identity(2);
  std::unique_ptr<quic::Connection> sender, receiver;
  std::size_t datagrams = 0;

  Ends() {
    sender =
        must(quic::Connection::dial(sender_identity, quic::Config{}, random_bytes(), receiver_identity->key(), now()));
  }

  /// Hands over what `from` has to send now. False: nothing.
  bool move(quic::Connection& from, quic::Connection* to) {
    bool any = false;
    while (const auto batch = from.produce(now())) {
      any = true;
      for (std::size_t at = 0; at < batch->content.size(); at += batch->segment_bytes) {
        const ByteView datagram =
            batch->content.view().subspan(at, std::min(batch->segment_bytes, batch->content.size() - at));
        ++datagrams;
        if (to == nullptr) {
          receiver = must(quic::Connection::accept(receiver_identity, quic::Config{}, random_bytes(),
                                                   sender_identity->key(), datagram, now()));
          to = receiver.get();
        }
        to->receive(datagram, now());
      }
    }
    return any;
  }

  /// One exchange in each direction, and what is due.
  void turn() {
    bool any = move(*sender, receiver.get());
    if (receiver) any = move(*receiver, sender.get()) || any;
    if (any) return;
    for (quic::Connection* end : {sender.get(), receiver.get()}) {
      if (end == nullptr) continue;
      if (end->closed()) fail(end->closed()->error.to_string());
      if (end->next_deadline() <= now()) end->on_deadline(now());
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (sodium_init() < 0) fail("libsodium could not be initialised");
  const std::size_t messages = argc > 1 ? std::stoul(argv[1]) : 100;
  std::vector<Bytes> items;
  for (std::size_t i = 0; i < messages; ++i) {
    std::vector<std::uint8_t> item(kMessageBytes);
    randombytes_buf(item.data(), item.size());
    items.emplace_back(std::move(item));
  }

  Ends ends;
  while (!ends.sender->is_open() || !ends.receiver || !ends.receiver->is_open()) ends.turn();
  ends.datagrams = 0;
  const auto begin = now();
  const auto before = bench::usage();
  std::size_t next = 0, received = 0;
  while (received < messages * kMessageBytes) {
    // About as much waits as a window holds.
    while (next < messages && ends.sender->queued_bytes() < 4 * kMessageBytes)
      must(ends.sender->send(ByteChain(items[next++])));
    ends.turn();
    while (const auto part = ends.receiver->read()) received += part->data.size();
    ends.sender->take_sent();
  }
  const double wall = std::chrono::duration<double>(now() - begin).count();
  const auto after = bench::usage();
  std::cout << R"({"bytes":)" << received << R"(,"wall_s":)" << wall << R"(,"cpu_s":)" << after.cpu_s - before.cpu_s
            << R"(,"datagrams":)" << ends.datagrams << "}" << std::endl;
  return 0;
}
