// Bodies of forwards: never crashes, nothing but what the peer encrypted ever decrypts, and no forgery costs the peer
// its stream. Input: messages of one byte of length and so many bytes.
#include "transport/tx5/e2e.hpp"

#include <algorithm>

#include "fuzz/fuzz.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)
using tx5::E2eSession;

namespace {

tx5::NodeKey key_of(std::uint8_t fill) {
  tx5::crypto_ready();
  tx5::NodeKey::Seed seed;
  seed.fill(fill);
  return std::move(*tx5::NodeKey::from_seed(seed));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const tx5::NodeKey mine = key_of(1);
  static const tx5::NodeKey peer = key_of(2);
  E2eSession here(peer.id(), std::move(*tx5::SessionKeys::derive(mine, peer.id())));
  E2eSession there(mine.id(), std::move(*tx5::SessionKeys::derive(peer, mine.id())));
  const Bytes input = fuzz::input(data, size);
  here.open(there.start_stream({}).view().subspan(sbd::kHeaderBytes));
  bool replaced = false;
  for (std::size_t at = 0; at < input.size();) {
    const Bytes body = input.slice(at + 1, input[at]).compact();
    at += 1 + input[at];
    const auto opened = here.open(body);
    K2_ASSERT(opened.event != E2eSession::Event::plaintext);
    replaced = replaced || opened.event == E2eSession::Event::new_stream;
    if (opened.event == E2eSession::Event::new_stream) K2_ASSERT(body.size() == 1 + tx5::kStreamHeaderBytes);
  }
  const auto opened = here.open(there.seal(as_bytes("he"), as_bytes("re")).view().subspan(sbd::kHeaderBytes));
  // A forged NewStream does replace the state (the protocol has no proof for it); nothing else may.
  K2_ASSERT(replaced || (opened.event == E2eSession::Event::plaintext && opened.plaintext.text() == "here"));
  return 0;
}
