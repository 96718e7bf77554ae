// The attackers of hostile.py that use QUIC against its sense, through the victim's relay: endpoints that do not read,
// do not finish what they begin, or send what is no QUIC at all.
#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>

#include "hostile_attack.hpp"
#include "kitsune2/fetch.hpp"
#include "support/raw_endpoint.hpp"
#include "support/whole_messages.hpp"

using namespace std::chrono_literals;

namespace kitsune2::hostile {
namespace {

constexpr std::string_view kKinds[] = {"quic-deaf",    "quic-trickle",    "quic-streams",
                                       "quic-rubbish", "quic-handshakes", "quic-no-preflight"};

/// With what an attack has done to it.
struct Attacker {
  std::unique_ptr<test::RawEndpoint> endpoint;
  std::size_t acts = 0;
  bool began = false;
  std::shared_ptr<Listing> listing;
};

class QuicAttack final : public Attack {
 public:
  QuicAttack(AsioRuntime& runtime, Plan plan)
      : runtime_(runtime),
        plan_(std::move(plan)),
        ws_(make_ws_connector(runtime)),
        http_(make_http_client(runtime)),
        ids_(all_ids(plan_.ops, plan_.size)),
        victim_(*iroh::endpoint_id(plan_.victim)) {}
  void start() override { turn(); }
  Tally tally() const override {
    return {tally_.messages, tally_.bytes, tally_.failed, tally_.closed, tally_.received, 0};
  }
  std::size_t peers() const override {
    return static_cast<std::size_t>(
        std::count_if(attackers_.begin(), attackers_.end(), [](const auto& one) { return one.endpoint->is_up(); }));
  }

 private:
  void turn() {
    for (int i = 0; i < 4 && attackers_.size() < plan_.peers; ++i) attackers_.push_back(come());
    for (auto& one : attackers_) {
      if (!one.endpoint->is_up()) continue;
      act(one);
      one.endpoint->turn();
      // With another key, which costs nothing.
      if (plan_.kind == "quic-handshakes" && one.acts >= 200) one = come();
    }
    ++turns_;
    runtime_.schedule_after(5ms, [this] { turn(); });
  }
  Attacker come() {
    test::RawEndpointOptions options;
    options.reads = plan_.kind != "quic-deaf";
    options.preflights = plan_.kind != "quic-no-preflight";
    Attacker out;
    out.endpoint = std::make_unique<test::RawEndpoint>(runtime_, ws_, plan_.relay, tally_, std::move(options));
    return out;
  }

  void act(Attacker& one) {
    const std::string& kind = plan_.kind;
    test::RawEndpoint& endpoint = *one.endpoint;
    if (kind == "quic-rubbish") return rubbish(endpoint);
    if (kind == "quic-handshakes") {
      // The first datagram of a handshake, and nothing more of it.
      for (int i = 0; i < 4; ++i) {
        endpoint.vanish();
        endpoint.dial(victim_);
        endpoint.turn();
        one.acts += 1;
      }
      return;
    }
    if (kind == "quic-no-preflight") {
      // A whole handshake, and nothing more.
      if (endpoint.is_open()) endpoint.vanish();
      if (one.acts++ % 8 == 0) endpoint.dial(victim_);
      return;
    }
    if (!endpoint.is_open()) {
      one.began = false;
      if (one.acts++ % 40 == 0) endpoint.dial(victim_);
      return;
    }
    const bool begins = !std::exchange(one.began, true);
    if (kind == "quic-deaf") {
      if (!one.listing) {
        one.listing = std::make_shared<Listing>(runtime_, *http_, plan_, endpoint.url());
        one.listing->begin([] {});
      }
      if (endpoint.queued() > 100'000) return;
      const std::size_t count = std::min<std::size_t>(ids_.size() - 1, 400);
      const std::size_t first = next_++ * count % (ids_.size() - count);
      endpoint.write(
          iroh::encode_data(ByteChain(wire::whole_fetch_request(plan_.space, std::span(ids_).subspan(first, count)))));
    } else if (kind == "quic-trickle") {
      // The largest frame there may be, a byte at a time.
      if (begins) {
        const std::uint32_t size = (100U << 20) - iroh::kFrameHeaderBytes;
        const std::array<std::uint8_t, 5> header = {
            1, static_cast<std::uint8_t>(size >> 24), static_cast<std::uint8_t>(size >> 16 & 0xff),
            static_cast<std::uint8_t>(size >> 8 & 0xff), static_cast<std::uint8_t>(size & 0xff)};
        endpoint.write(ByteChain(Bytes::copy_of(ByteView(header))));
      } else if (turns_ % 20 == 0) {
        endpoint.write(ByteChain(Bytes::copy_of("x")));
      }
    } else if (kind == "quic-streams") {
      // Frames of a kind that does not exist: the victim gives each stream up, and the next one is opened.
      if (endpoint.queued() < 10'000) endpoint.write(ByteChain(Bytes::copy_of(std::string(1000, '\x7f'))));
    }
  }

  /// Random datagrams, half of which look like the first one of a handshake.
  void rubbish(test::RawEndpoint& endpoint) {
    constexpr std::size_t kSize = 1200, kCount = 40;
    for (int i = 0; i < 4; ++i) {
      std::vector<std::uint8_t> content(kSize * kCount);
      runtime_.random_bytes(content);
      for (std::size_t at = 0; at < content.size(); at += 2 * kSize) {
        // An Initial packet of version 1, ids of 8 bytes, no token, the length of what follows.
        const std::array<std::uint8_t, 6> head = {0xc3, 0, 0, 0, 1, 8};
        std::copy(head.begin(), head.end(), content.begin() + static_cast<std::ptrdiff_t>(at));
        content[at + 14] = 8;
        content[at + 23] = 0;
        content[at + 24] = 0x44;
        content[at + 25] = static_cast<std::uint8_t>((kSize - 26) & 0xff);
      }
      if (!endpoint.send_raw(victim_, Bytes::copy_of(ByteView(content)), kSize)) return;
    }
  }

  AsioRuntime& runtime_;
  const Plan plan_;
  std::shared_ptr<WsConnector> ws_;
  std::unique_ptr<HttpClient> http_;
  std::vector<OpId> ids_;
  const iroh::EndpointId victim_;
  std::uint64_t next_ = 0, turns_ = 0;
  test::RawTally tally_;
  std::vector<Attacker> attackers_;
};

}  // namespace

std::unique_ptr<Attack> make_quic_attack(AsioRuntime& runtime, Plan plan) {
  if (std::find(std::begin(kKinds), std::end(kKinds), plan.kind) == std::end(kKinds)) return nullptr;
  return std::make_unique<QuicAttack>(runtime, std::move(plan));
}

}  // namespace kitsune2::hostile
