// A whole connection against a peer whose crypto is right and whose words are the input, with time, sends and grants in
// between: never crashes, its control queue stays bounded, every send completes at most once and every closed
// connection stays quiet. Input: commands of one byte and their arguments.
#include "transport/tx5/connection.hpp"

#include <algorithm>
#include <string>

#include "fuzz/fuzz.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)
using tx5::Connection;

namespace {

tx5::NodeKey key_of(std::uint8_t fill) {
  tx5::crypto_ready();
  tx5::NodeKey::Seed seed;
  seed.fill(fill);
  return std::move(*tx5::NodeKey::from_seed(seed));
}

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  bool done() const { return size_ == 0; }
  std::uint8_t byte() {
    if (size_ == 0) return 0;
    size_ -= 1;
    return *data_++;
  }
  std::string bytes(std::size_t count) {
    std::string out;
    while (count-- > 0 && size_ > 0) out.push_back(static_cast<char>(byte()));
    return out;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const tx5::NodeKey mine = key_of(1);
  static const tx5::NodeKey peer = key_of(2);
  Input input(data, size);
  tx5::ConnectionConfig config;
  config.timeout = std::chrono::seconds(20);
  config.message_size_max = 100'000;
  config.max_queue_bytes = 200'000;
  std::uint8_t salt = 0;
  const tx5::Entropy entropy = [&salt](std::span<std::uint8_t> out) { std::ranges::fill(out, ++salt); };
  Time now{};
  const auto origin = (input.byte() & 1) != 0 ? Connection::Origin::local : Connection::Origin::peer;
  Connection connection(peer.id(), std::move(*tx5::SessionKeys::derive(mine, peer.id())), config, entropy, origin, now);
  tx5::E2eSession voice(mine.id(), std::move(*tx5::SessionKeys::derive(peer, mine.id())));
  connection.on_body(voice.start_stream({}).view().subspan(sbd::kHeaderBytes), now);

  std::string nonce(32, '\0');  // of the connection's last hreq, so that a handshake can be finished
  std::size_t accepted = 0, completed = 0, pulled_controls = 0;
  bool closed = false;
  const auto hear = [&](const Connection::Pulled& pulled) {
    if (pulled.done) pulled.done({});
    K2_ASSERT(pulled.frame.size() <= sbd::kMaxMessageBytes);
    const auto opened = voice.open(pulled.frame.view().subspan(sbd::kHeaderBytes));
    K2_ASSERT(opened.event != tx5::E2eSession::Event::undecryptable);
    if (opened.event == tx5::E2eSession::Event::plaintext && opened.plaintext.text().starts_with("hreq")) {
      nonce = opened.plaintext.slice(4).str();
    }
  };
  const auto apply = [&](const Connection::Outcome& out) {
    if (out.error) {
      closed = true;
      return;
    }
    if (out.message) K2_ASSERT(out.message->size() <= config.message_size_max);
    if (out.handshake_done) K2_ASSERT(connection.open_with(Bytes::copy_of("\x08\x01"), now).has_value());
    if (out.permit_wanted) K2_ASSERT(connection.permit_bytes() > 0);
  };
  const auto say = [&](const std::string& text) {
    if (!voice.is_encrypting()) connection.on_body(voice.start_stream({}).view().subspan(sbd::kHeaderBytes), now);
    if (text.size() <= tx5::kMaxPlaintext) {
      apply(connection.on_body(voice.seal(as_bytes(text), {}).view().subspan(sbd::kHeaderBytes), now));
    }
  };
  const auto say_frame = [&](std::uint32_t type, std::uint32_t value, const std::string& payload) {
    say("fmsg" + std::string(as_text(tx5::encode_frame_header(static_cast<tx5::FrameType>(type), value))) + payload);
  };

  while (!input.done() && !closed) {
    switch (const std::uint8_t command = input.byte(); command % 14) {
      case 0:
        apply(connection.on_body(as_bytes(input.bytes(input.byte())), now));
        break;
      case 1:
        say(input.bytes(input.byte()));
        break;
      case 2:
        say("hreq" + std::string(32, static_cast<char>(input.byte())));
        break;
      case 3:
        say("hres" + nonce);
        break;
      case 4:
        say("fmsg\x42tx5");
        break;
      case 5: {
        const std::string payload = input.bytes(input.byte());
        say_frame(3, static_cast<std::uint32_t>(payload.size()), payload);
        break;
      }
      case 6: {
        const std::string payload(1 + std::size_t{input.byte()} * 64, 'c');
        say_frame(4, static_cast<std::uint32_t>(payload.size()), payload);
        break;
      }
      case 7:
        say_frame(5, std::uint32_t{input.byte()} << (input.byte() % 20), {});
        break;
      case 8:
        say_frame(6, std::uint32_t{input.byte()} << 8 | input.byte(), {});
        break;
      case 9:
        connection.grant();
        break;
      case 10:
        now += std::chrono::milliseconds(1) * (1 << (input.byte() % 16));
        apply(connection.on_time(now));
        break;
      case 11: {
        Handler<> done = [&completed](Result<void>) { completed += 1; };
        const std::size_t bytes = std::size_t{input.byte()} << 8 | input.byte();
        if (connection.enqueue(Bytes(std::vector<std::uint8_t>(bytes)), done)) accepted += 1;
        break;
      }
      case 12:
        connection.on_body(voice.start_stream({}).view().subspan(sbd::kHeaderBytes), now);
        break;
      default:
        if (connection.has_control()) {
          hear(connection.pull_control(now));
        } else if (connection.has_data()) {
          hear(connection.pull_data(now));
        }
        break;
    }
    K2_ASSERT(completed <= accepted);
  }
  for (; connection.has_control(); ++pulled_controls) {
    K2_ASSERT(pulled_controls < 400);
    hear(connection.pull_control(now));
  }
  const std::size_t left = connection.take_handlers().size();
  K2_ASSERT(completed + left == accepted);
  for (const Bytes& frame : connection.closing_frames(Bytes::copy_of("bye"))) {
    K2_ASSERT(frame.size() <= sbd::kMaxMessageBytes);
  }
  return 0;
}
