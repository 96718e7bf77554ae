// Encrypts and decrypts what nodes send each other over a relay.
#include "transport/tx5/e2e.hpp"

#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kitsune2/ids.hpp"

namespace kitsune2::tx5 {
namespace {

template <std::size_t N>
void wipe(std::array<std::uint8_t, N>& secret) {
  sodium_memzero(secret.data(), secret.size());
}

}  // namespace

bool crypto_ready() { return sodium_init() >= 0; }

std::optional<NodeKey> NodeKey::from_seed(const Seed& seed) {
  NodeKey key;
  crypto_sign_seed_keypair(key.id_.data(), key.secret_.data(), seed.data());
  if (!sbd::is_legal_node_id(key.id_)) return std::nullopt;
  if (crypto_sign_ed25519_pk_to_curve25519(key.curve_id_.data(), key.id_.data()) != 0) return std::nullopt;
  crypto_sign_ed25519_sk_to_curve25519(key.curve_secret_.data(), key.secret_.data());
  return key;
}

NodeKey::NodeKey(NodeKey&& other) noexcept
    : id_(other.id_), secret_(other.secret_), curve_id_(other.curve_id_), curve_secret_(other.curve_secret_) {
  wipe(other.secret_);
  wipe(other.curve_secret_);
}

NodeKey::~NodeKey() {
  wipe(secret_);
  wipe(curve_secret_);
}

std::optional<SessionKeys> SessionKeys::derive(const NodeKey& mine, const NodeId& peer) {
  std::array<std::uint8_t, 32> curve{};
  if (peer == mine.id_ || crypto_sign_ed25519_pk_to_curve25519(curve.data(), peer.data()) != 0) return std::nullopt;
  SessionKeys keys;
  const bool client = std::memcmp(curve.data(), mine.curve_id_.data(), curve.size()) > 0;
  const int failed = client ? crypto_kx_client_session_keys(keys.rx_.data(), keys.tx_.data(), mine.curve_id_.data(),
                                                            mine.curve_secret_.data(), curve.data())
                            : crypto_kx_server_session_keys(keys.rx_.data(), keys.tx_.data(), mine.curve_id_.data(),
                                                            mine.curve_secret_.data(), curve.data());
  if (failed != 0) return std::nullopt;
  return keys;
}

SessionKeys::SessionKeys(SessionKeys&& other) noexcept : rx_(other.rx_), tx_(other.tx_) {
  wipe(other.rx_);
  wipe(other.tx_);
}

SessionKeys::~SessionKeys() {
  wipe(rx_);
  wipe(tx_);
}

E2eSession::Opened E2eSession::open(ByteView body, std::span<std::uint8_t> room) {
  if (body.empty()) return {Event::undecryptable, {}};
  const ByteView rest = body.subspan(1);
  switch (body[0]) {
    case kNewStream: {
      if (rest.size() != kStreamHeaderBytes) return {Event::undecryptable, {}};
      const std::uint64_t name = keyed_hash(rest);
      if (std::find(memory_.begin(), memory_.end(), name) != memory_.end()) return {};
      StreamState::Header header;
      std::copy(rest.begin(), rest.end(), header.begin());
      begun_ = std::make_unique<StreamState>(header, keys_.rx());
      begun_name_ = name;
      return {Event::new_stream, {}};
    }
    case kMessage:
      if (!decrypt_ && !begun_) return {};
      if (rest.size() < kSealBytes) return {Event::undecryptable, {}};
      return open_message(rest, room);
    case kRequestNewStream:
      if (!rest.empty()) return {Event::undecryptable, {}};
      encrypt_.reset();
      return {Event::new_stream_request, {}};
    default:
      return {Event::undecryptable, {}};
  }
}

std::optional<Bytes> E2eSession::opened_by(StreamState& stream, ByteView sealed) {
  const std::size_t size = sealed.size() - kSealBytes;
  auto storage = std::make_shared_for_overwrite<std::uint8_t[]>(size);
  if (!stream.open(sealed, storage.get())) return std::nullopt;
  const ByteView plaintext{storage.get(), size};
  return Bytes::share(std::move(storage), plaintext);
}

E2eSession::Opened E2eSession::open_message(ByteView sealed, std::span<std::uint8_t> room) {
  Opened out;
  out.event = Event::plaintext;
  const std::size_t size = sealed.size() - kSealBytes;
  if (decrypt_ && size > 0 && size <= room.size()) {
    if (decrypt_->open(sealed, room.data())) {
      out.placed = size;
      return out;
    }
  } else if (decrypt_) {
    if (auto plaintext = opened_by(*decrypt_, sealed)) {
      out.plaintext = std::move(*plaintext);
      return out;
    }
  }
  if (begun_) {
    if (auto plaintext = opened_by(*begun_, sealed)) {
      decrypt_ = std::move(begun_);
      memory_.push_back(begun_name_);
      if (memory_.size() > kRemembered) memory_.pop_front();
      out.plaintext = std::move(*plaintext);
      out.first = true;
      return out;
    }
  }
  return {Event::undecryptable, {}};
}

Bytes E2eSession::start_stream(const StreamState::Header& header) {
  encrypt_.reset();
  encrypt_.emplace(header, keys_.tx());
  std::vector<std::uint8_t> out(sbd::kHeaderBytes + 1 + kStreamHeaderBytes);
  std::copy(peer_.begin(), peer_.end(), out.begin());
  out[sbd::kHeaderBytes] = kNewStream;
  std::copy(header.begin(), header.end(), out.begin() + sbd::kHeaderBytes + 1);
  return Bytes(std::move(out));
}

Bytes E2eSession::seal(std::span<const ByteView> parts) {
  K2_ASSERT(encrypt_.has_value());
  std::size_t length = 0;
  for (const ByteView part : parts) length += part.size();
  K2_ASSERT(length <= kMaxPlaintext);
  auto storage = std::make_shared_for_overwrite<std::uint8_t[]>(kOverhead + length);
  std::copy(peer_.begin(), peer_.end(), storage.get());
  storage[sbd::kHeaderBytes] = kMessage;
  encrypt_->seal(parts, storage.get() + sbd::kHeaderBytes + 1);
  const ByteView message{storage.get(), kOverhead + length};
  return Bytes::share(std::move(storage), message);
}

Bytes E2eSession::request_stream() const {
  const std::uint8_t type = kRequestNewStream;
  return sbd::encode_forward(peer_, ByteView(&type, 1));
}

}  // namespace kitsune2::tx5
