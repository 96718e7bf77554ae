// One peer over the relay; the rules are in the header.
#include "transport/tx5/connection.hpp"

#include <algorithm>
#include <boost/container/small_vector.hpp>
#include <cstring>
#include <string_view>

namespace kitsune2::tx5 {
namespace {

constexpr std::size_t kLetters = 4;
constexpr std::size_t kNonceBytes = 32;
constexpr std::string_view kHandshakeRequest = "hreq";
constexpr std::string_view kHandshakeResponse = "hres";
constexpr std::string_view kFallback = "fmsg";
constexpr std::string_view kKeepalive = "keep";

/// How much longer a frame may take than the line does: turns, pacing, a busy relay.
constexpr Duration kQueues = std::chrono::seconds(1);
/// No keepalive is queued while this much is queued already.
constexpr std::size_t kBusyControl = 8;

std::array<std::uint8_t, kLetters + kFrameHeaderBytes> fallback_head(FrameType type, std::size_t value) {
  std::array<std::uint8_t, kLetters + kFrameHeaderBytes> head{};
  std::memcpy(head.data(), kFallback.data(), kLetters);
  const FrameHeader header = encode_frame_header(type, static_cast<std::uint32_t>(value));
  std::copy(header.begin(), header.end(), head.begin() + kLetters);
  return head;
}

Error fault(std::string what) { return make_error(Errc::peer_fault, "tx5: " + std::move(what)); }

}  // namespace

Connection::Connection(const NodeId& peer, SessionKeys keys, const ConnectionConfig& config, const Entropy& entropy,
                       Origin origin, Time now, Duration relay_round_trip, SendCredit::Source credit)
    : e2e_(peer, std::move(keys)),
      config_(config),
      entropy_(entropy),
      peer_round_trip_(2 * std::min(relay_round_trip, kLongestRoundTrip)),
      phase_(Phase::silent),
      decoder_(config.message_size_max),
      credit_(config.credit, credit),
      started_(now),
      attempt_at_(now),
      last_heard_(now),
      next_stream_request_(now),
      keepalive_interval_(config.timeout / 2) {
  if (origin == Origin::local) begin_handshake(now);
}

Duration Connection::in_flight() const { return peer_round_trip_ + kQueues; }
Duration Connection::answer_time() const { return std::max(kLeastAnswerTime, in_flight()); }
Duration Connection::opening_limit() const { return std::max(config_.timeout, 2 * answer_time() + 2 * kQueues); }
Duration Connection::preflight_limit() const { return std::max<Duration>(config_.timeout / 3, answer_time()); }
Duration Connection::silence_limit() const { return std::max(config_.timeout, answer_time() + kQueues); }

Duration Connection::retry_interval() const {
  const Duration first = std::max(answer_time(), std::min<Duration>(kFirstRetry, config_.timeout / 4));
  return first * (1 << std::min(attempts_ > 0 ? attempts_ - 1 : 0, 3U));
}

void Connection::queue_signal(std::string_view letters, ByteView rest, bool fresh_stream) {
  Control control;
  control.fresh_stream = fresh_stream;
  control.size = static_cast<std::uint8_t>(kLetters + rest.size());
  K2_ASSERT(control.size <= control.bytes.size());
  std::memcpy(control.bytes.data(), letters.data(), kLetters);
  std::copy(rest.begin(), rest.end(), control.bytes.begin() + kLetters);
  control_.push_back(control);
}

void Connection::queue_request(bool fresh_stream) { queue_signal(kHandshakeRequest, nonce_, fresh_stream); }

void Connection::begin_handshake(Time now) {
  if (phase_ != Phase::handshake) {
    phase_ = Phase::handshake;
    handshake_began_ = now;
    entropy_(nonce_);
  }
  attempts_ += 1;
  attempt_at_ = now;
  peer_streams_ = 0;
  if (attempts_ > 1) queue_signal(kFallback, encode_frame_header(FrameType::reserved0, 0), true);
  queue_request(true);
}

Connection::Outcome Connection::restart(Time now) {
  Outcome out;
  out.restarted = true;
  control_.clear();
  grant_queued_ = stream_request_queued_ = stream_asked_ = false;
  failing_since_.reset();
  std::erase_if(queue_, [](const Outgoing& o) { return o.preflight; });
  if (!queue_.empty()) {
    queue_.front().offset = queue_.front().piece = queue_.front().piece_offset = 0;
    prepare(queue_.front());
  }
  decoder_ = FrameDecoder(config_.message_size_max);
  phase_ = Phase::silent;
  peer_nonce_.reset();
  answered_ = got_response_ = false;
  requests_seen_ = 0;
  keepalive_interval_ = config_.timeout / 2;
  trip_.reset();
  trip_at_.reset();
  begin_handshake(now);
  return out;
}

Connection::Outcome Connection::on_body(ByteView body, Time now) {
  Outcome out;
  // Before the end of the handshake chunks do not count.
  const bool may_be_chunk = phase_ == Phase::open || phase_ == Phase::opening;
  const auto room = may_be_chunk ? decoder_.lend(kLetters) : std::span<std::uint8_t>();
  E2eSession::Opened opened = e2e_.open(body, room);
  if (!room.empty()) {
    if (opened.placed > kLetters && as_text(room.first(kLetters)) == kFallback) {
      if (auto chunk = decoder_.keep(opened.placed - kLetters)) {
        last_heard_ = now;
        failing_since_.reset();
        on_decoded(std::move(*chunk), now, out);
        return out;
      }
    }
    if (opened.placed > 0) opened.plaintext = Bytes::copy_of(room.first(opened.placed));
    decoder_.take_back();
  }
  switch (opened.event) {
    case E2eSession::Event::plaintext:
      failing_since_.reset();
      if (opened.first && may_be_chunk && !may_begin(opened.plaintext)) return start_over(now, 1);
      if (opened.first) stream_asked_ = false;
      on_plaintext(opened.plaintext, now, out);
      break;
    case E2eSession::Event::undecryptable:
      on_undecryptable(now);
      break;
    case E2eSession::Event::new_stream:
      peer_streams_ += 1;
      break;
    case E2eSession::Event::ignored:
    case E2eSession::Event::new_stream_request:
      break;
  }
  return out;
}

/// Asks for a new stream. In the middle of a message it does so only if nothing has decrypted for a while: a new stream
/// would end the message (R11), and the forgery of a stranger must not be able to cause that.
void Connection::on_undecryptable(Time now) {
  if (!failing_since_) failing_since_ = now;
  if (!e2e_.is_decrypting() || stream_request_queued_ || now < next_stream_request_) return;
  if (decoder_.is_receiving_chunks() && now < *failing_since_ + kStreamRequestInterval) return;
  next_stream_request_ = now + kStreamRequestInterval;
  stream_request_queued_ = true;
  control_.push_back(Control{});
}

/// R11. `first`: the first plaintext of a new stream, on a connection past its handshake.
bool Connection::may_begin(const Bytes& first) const {
  const std::string_view letters = first.text().substr(0, kLetters);
  if (letters == kHandshakeRequest) return true;
  const auto closing = encode_frame_header(FrameType::reserved0, 0);
  if (letters == kFallback && std::ranges::equal(first.view().subspan(kLetters), closing)) return true;
  return stream_asked_ && !decoder_.is_receiving_chunks();
}

/// `attempts`: how many handshakes were begun so far. If there was one, the closing frame goes first, because a peer
/// that still has its connection ignores requests.
Connection::Outcome Connection::start_over(Time now, unsigned attempts) {
  attempts_ = attempts;
  started_ = now;
  last_heard_ = now;
  return restart(now);
}

void Connection::on_plaintext(const Bytes& plaintext, Time now, Outcome& out) {
  if (plaintext.size() < kLetters) {
    out.error = fault("a signal message of " + std::to_string(plaintext.size()) + " bytes");
    return;
  }
  last_heard_ = now;
  if (phase_ == Phase::silent) begin_handshake(now);
  const std::string_view letters = plaintext.text().substr(0, kLetters);
  const ByteView rest = plaintext.view().subspan(kLetters);
  if (letters == kFallback) {
    // Before the end of the handshake it belongs to an earlier connection.
    if (phase_ != Phase::handshake) on_frame(plaintext.slice(kLetters), now, out);
  } else if (letters == kHandshakeRequest || letters == kHandshakeResponse) {
    if (rest.size() != kNonceBytes) {
      out.error = fault("a handshake message of the wrong length");
    } else if (letters == kHandshakeRequest) {
      on_handshake_request(rest, now, out);
    } else {
      on_handshake_response(rest, now, out);
    }
  } else if (letters == kKeepalive) {
    on_keepalive(now);
  }
  // offr, answ and icem are for WebRTC, which we do not speak; anything else is from a later version.
}

void Connection::on_handshake_request(ByteView nonce, Time now, Outcome& out) {
  const bool repeated = peer_nonce_ && std::ranges::equal(*peer_nonce_, nonce);
  if (repeated && (phase_ == Phase::open || (phase_ == Phase::opening && now < echoes_until_))) return;
  if (phase_ != Phase::handshake) out = start_over(now);
  if (requests_seen_ >= kMaxHandshakeRequests) return;
  // After a second hreq, a first one long after ours, or a second stream since ours began, the peer may have missed our
  // stream or discarded what it read of it. So our hreq is repeated, and before the hres: until the peer has our hres
  // it is in its handshake, where one more hreq does no harm.
  if (requests_seen_ > 0 || now - attempt_at_ >= in_flight() || peer_streams_ > 1) queue_request(true);
  requests_seen_ += 1;
  peer_nonce_.emplace();
  std::copy(nonce.begin(), nonce.end(), peer_nonce_->begin());
  last_peer_keepalive_ = now;
  queue_signal(kHandshakeResponse, nonce);
  answered_ = true;
  if (got_response_) finish_handshake(now, out);
}

void Connection::on_handshake_response(ByteView nonce, Time now, Outcome& out) {
  // Another nonce than ours answers an earlier attempt.
  if (phase_ != Phase::handshake || !std::ranges::equal(nonce_, nonce)) return;
  got_response_ = true;
  if (attempts_ == 1 && !trip_) trip_ = now - attempt_at_;
  if (answered_) finish_handshake(now, out);
}

void Connection::finish_handshake(Time now, Outcome& out) {
  phase_ = Phase::opening;
  echoes_until_ = now + 2 * std::max<Duration>(now - handshake_began_, kQueues);
  out.handshake_done = true;
}

Result<void> Connection::open_with(Bytes preflight, Time now) {
  K2_ASSERT(phase_ == Phase::opening);
  if (preflight.size() > std::min<std::uint64_t>(config_.message_size_max, kMaxFrameValue)) {
    return make_error(Errc::too_large, "a preflight of " + std::to_string(preflight.size()) + " bytes");
  }
  queue_signal(kFallback, version_frame());
  Outgoing first;
  first.message = std::move(preflight);
  first.preflight = true;
  prepare(first);
  queue_.push_front(std::move(first));
  next_keepalive_ = now + keepalive_interval_;
  attempt_at_ = now;
  return {};
}

void Connection::on_keepalive(Time now) {
  const Duration gap = std::max<Duration>(now - last_peer_keepalive_, kMinKeepalive);
  last_peer_keepalive_ = now;
  // Two thirds, so that a delay in the network is not taken for a shorter interval. Otherwise two nodes of ours would
  // lead each other to ever shorter ones.
  const bool shorter = gap < keepalive_interval_ * 2 / 3;
  if (!shorter && gap <= keepalive_interval_ * 3 / 2) return;
  keepalive_interval_ = std::min<Duration>(gap, config_.timeout / 2);
  if (shorter) next_keepalive_ = std::min(next_keepalive_, now + keepalive_interval_ / 2);
}

void Connection::note_permit_wait(Duration wait, Time now) {
  if (trip_at_ && wait >= *trip_ && now - *trip_at_ <= kTripAge) return;
  trip_ = wait;
  trip_at_ = now;
}

void Connection::on_frame(const Bytes& frame, Time now, Outcome& out) {
  Result<FrameDecoder::Decoded> decoded = decoder_.decode(frame);
  if (!decoded) {
    out.error = decoded.error();
    return;
  }
  on_decoded(std::move(*decoded), now, out);
}

void Connection::on_decoded(FrameDecoder::Decoded decoded, Time now, Outcome& out) {
  switch (decoded.event) {
    case FrameDecoder::Event::nothing:
      return;
    case FrameDecoder::Event::permit_request:
      out.permit_wanted = true;
      return;
    case FrameDecoder::Event::permit_grant:
      if (queue_.empty() || queue_.front().state != Outgoing::State::waiting ||
          decoded.value != queue_.front().message.size()) {
        out.error = fault("a grant that was not asked for");
        return;
      }
      queue_.front().state = Outgoing::State::chunks;
      credit_.on_granted();
      note_permit_wait(now - waiting_since_, now);
      return;
    case FrameDecoder::Event::progress:
      last_chunk_ = now;
      out.progress = decoded.value;
      return;
    case FrameDecoder::Event::message:
      last_chunk_ = now;
      out.permit_done = decoded.chunked;
      stats_.received_messages += 1;
      stats_.received_bytes += decoded.message.size();
      out.message = std::move(decoded.message);
      phase_ = Phase::open;
      return;
  }
}

void Connection::grant() {
  if (!decoder_.is_awaiting_permit() || grant_queued_) return;
  queue_signal(kFallback, encode_frame_header(FrameType::permit_grant, decoder_.permitted()));
  control_.back().grant = true;
  grant_queued_ = true;
}

Connection::Outcome Connection::on_time(Time now) {
  Outcome out;
  const auto unresponsive = [&out](const char* what) { out.error = make_error(Errc::peer_unresponsive, what); };
  switch (phase_) {
    case Phase::silent:
      if (now >= started_ + kSilentLimit) unresponsive("a stream without a message");
      return out;
    case Phase::handshake:
    case Phase::opening:
      if (now >= started_ + opening_limit()) {
        unresponsive(phase_ == Phase::handshake ? "no handshake" : "no preflight");
        return out;
      }
      break;
    case Phase::open:
      if (now >= last_heard_ + silence_limit()) {
        unresponsive("nothing heard");
        return out;
      }
      break;
  }
  if (phase_ == Phase::handshake) {
    // What is still queued has not been sent, so the peer could not answer it.
    if (now >= std::max(attempt_at_, last_heard_) + retry_interval()) {
      if (control_.empty()) {
        begin_handshake(now);
      } else {
        attempt_at_ = now;
      }
    }
    return out;
  }
  if (phase_ == Phase::opening && now >= std::max(attempt_at_, last_heard_) + preflight_limit()) return restart(now);
  check_waits(now, out);
  if (out.error) return out;
  if (ask_after_ && now >= *ask_after_) ask_after_.reset();
  if (now >= next_keepalive_) {
    if (control_.size() < kBusyControl) queue_signal(kKeepalive, {});
    next_keepalive_ = now + keepalive_interval_;
  }
  return out;
}

/// The time limits of an open connection for what only the peer can end.
void Connection::check_waits(Time now, Outcome& out) const {
  const auto unresponsive = [&out](std::string what) {
    out.error = make_error(Errc::peer_unresponsive, std::move(what));
  };
  if (!queue_.empty() && queue_.front().state == Outgoing::State::waiting && now >= waiting_since_ + silence_limit()) {
    unresponsive("no permit for a message of " + std::to_string(queue_.front().message.size()) + " bytes");
  } else if (decoder_.is_receiving_chunks() && now >= last_chunk_ + silence_limit()) {
    unresponsive("a permit that is not used");
  } else if (credit_wait_ && now >= *credit_wait_ + silence_limit()) {
    unresponsive("it takes nothing of what is sent to it");
  }
}

Time Connection::next_deadline() const {
  if (phase_ == Phase::silent) return started_ + kSilentLimit;
  if (phase_ == Phase::handshake) {
    return std::min(started_ + opening_limit(), std::max(attempt_at_, last_heard_) + retry_interval());
  }
  Time next = next_keepalive_;
  if (phase_ == Phase::opening) {
    next = std::min({next, started_ + opening_limit(), std::max(attempt_at_, last_heard_) + preflight_limit()});
  } else {
    next = std::min(next, last_heard_ + silence_limit());
  }
  if (!queue_.empty() && queue_.front().state == Outgoing::State::waiting) {
    next = std::min(next, waiting_since_ + silence_limit());
  }
  if (decoder_.is_receiving_chunks()) next = std::min(next, last_chunk_ + silence_limit());
  if (credit_wait_) next = std::min(next, *credit_wait_ + silence_limit());
  if (ask_after_ && !queue_.empty() && must_ask_for_credit()) next = std::min(next, *ask_after_);
  return next;
}

void Connection::prepare(Outgoing& outgoing) {
  outgoing.state = outgoing.message.size() <= kMaxChunkBytes ? Outgoing::State::whole : Outgoing::State::ask;
}

Result<void> Connection::enqueue(ByteChain message, Handler<>& done) {
  const std::uint64_t limit = std::min<std::uint64_t>(config_.message_size_max, kMaxFrameValue);
  if (message.size() > limit) {
    return make_error(Errc::too_large, "a message of " + std::to_string(message.size()) + " bytes, at most " +
                                           std::to_string(limit) + " allowed");
  }
  const std::size_t cost = message.size() + kMessageOverhead;
  if (queue_bytes_ > 0 && queue_bytes_ + cost > config_.max_queue_bytes) {
    return make_error(Errc::overloaded, "the queue to this peer is full");
  }
  queue_bytes_ += cost;
  Outgoing outgoing;
  outgoing.message = std::move(message);
  outgoing.done = std::move(done);
  prepare(outgoing);
  queue_.push_back(std::move(outgoing));
  return {};
}

/// Notes since when a message cannot be sent for want of credit (R12).
void Connection::wait_for_credit(Time now) {
  if (queue_.empty() || credit_.may_send()) {
    credit_wait_.reset();
  } else if (!credit_wait_) {
    credit_wait_ = now;
  }
}

void Connection::on_credit_returned(std::uint64_t bytes, Time now) {
  credit_.on_returned(bytes);
  credit_wait_.reset();
  wait_for_credit(now);
}

std::uint64_t Connection::next_position() const {
  if (!credit_.counts_reading()) return 0;
  // Of what waits, without what surrounds it; the preflight is not counted in queue_bytes_.
  const bool preflight = !queue_.empty() && queue_.front().preflight;
  const std::size_t messages = queue_.size() - (preflight ? 1 : 0);
  const std::size_t begun = messages == 0 || preflight ? 0 : queue_.front().offset;
  return credit_.sent() + queue_bytes_ - messages * kMessageOverhead - begun;
}

void Connection::on_read(std::uint64_t bytes, Time now) {
  credit_.on_read(bytes);
  ask_after_ = now + kAskAfter;
}

Connection::Pulled Connection::handed(Bytes frame) {
  credit_.on_sent(frame.size());
  return {std::move(frame), {}};
}

void Connection::dial(Time now) {
  if (phase_ != Phase::silent) return;
  started_ = now;
  begin_handshake(now);
}

std::vector<Handler<>> Connection::take_handlers() {
  std::vector<Handler<>> handlers;
  for (Outgoing& outgoing : queue_) {
    if (outgoing.done) handlers.push_back(std::move(outgoing.done));
  }
  queue_.clear();
  queue_bytes_ = 0;
  credit_wait_.reset();
  return handlers;
}

/// Whether the next message would go in one frame if more of what was sent were known to have been read.
bool Connection::must_ask_for_credit() const {
  const Outgoing& next = queue_.front();
  const std::size_t size = next.message.size();
  // An empty message cannot ask for a permit; only tests send one.
  return next.state == Outgoing::State::whole && size > 0 &&
         credit_.must_ask(kOverhead + kLetters + kFrameHeaderBytes + size);
}

bool Connection::has_data() const {
  // Control frames first: the version must be out before the preflight.
  if (!control_.empty() || queue_.empty() || queue_.front().state == Outgoing::State::waiting) return false;
  if (!credit_.may_send() || (ask_after_ && must_ask_for_credit())) return false;
  return phase_ == Phase::open || (phase_ == Phase::opening && queue_.front().preflight);
}

Bytes Connection::start_stream() {
  peer_streams_ = 0;
  StreamState::Header header;
  entropy_(header);
  return e2e_.start_stream(header);
}

Connection::Pulled Connection::pull_control(Time now) {
  K2_ASSERT(!control_.empty());
  Control& next = control_.front();
  if (next.size == 0) {
    stream_request_queued_ = false;
    stream_asked_ = true;
    control_.pop_front();
    return handed(e2e_.request_stream());
  }
  if (next.fresh_stream) {
    next.fresh_stream = false;
    e2e_.drop_encrypt();
    if (phase_ == Phase::handshake) attempt_at_ = std::max(attempt_at_, now);
  }
  if (!e2e_.is_encrypting()) return handed(start_stream());
  Pulled out = handed(e2e_.seal(ByteView(next.bytes).first(next.size), {}));
  if (next.grant) {
    // Not before the grant is sent: a peer that sends chunks earlier could make us queue grants without end.
    decoder_.on_granted();
    grant_queued_ = false;
    last_chunk_ = now;
  }
  control_.pop_front();
  wait_for_credit(now);
  return out;
}

/// A frame with the next `size` bytes of the message.
Bytes Connection::seal(FrameType type, Outgoing& from, std::size_t size) {
  const auto head = fallback_head(type, size);
  boost::container::small_vector<ByteView, 8> parts{ByteView(head)};
  from.offset += size;
  const auto pieces = from.message.pieces();
  while (size > 0) {
    const ByteView rest = pieces[from.piece].view().subspan(from.piece_offset);
    const ByteView part = rest.first(std::min(rest.size(), size));
    parts.push_back(part);
    size -= part.size();
    from.piece_offset += part.size();
    if (part.size() < rest.size()) break;
    ++from.piece;
    from.piece_offset = 0;
  }
  return e2e_.seal(parts);
}

std::size_t Connection::next_data_bytes() const {
  const Outgoing& next = queue_.front();
  if (next.state == Outgoing::State::chunks) return std::min(next.message.size() - next.offset, kMaxChunkBytes);
  return next.state == Outgoing::State::whole ? next.message.size() : 0;
}

Connection::Pulled Connection::pull_data(Time now) {
  K2_ASSERT(has_data());
  if (!e2e_.is_encrypting()) return handed(start_stream());
  Outgoing& next = queue_.front();
  const std::size_t size = next.message.size();
  if (must_ask_for_credit()) next.state = Outgoing::State::ask;
  Pulled out;
  bool complete = false;
  switch (next.state) {
    case Outgoing::State::whole:
      out = handed(seal(FrameType::message, next, size));
      complete = true;
      break;
    case Outgoing::State::ask:
      out = handed(e2e_.seal(fallback_head(FrameType::permit_request, size), {}));
      credit_.on_asked();
      next.state = Outgoing::State::waiting;
      waiting_since_ = now;
      break;
    case Outgoing::State::waiting:
      break;
    case Outgoing::State::chunks: {
      out = handed(seal(FrameType::chunk, next, std::min(size - next.offset, kMaxChunkBytes)));
      complete = next.offset == size;
      break;
    }
  }
  if (complete) {
    stats_.sent_messages += 1;
    stats_.sent_bytes += size;
    if (!next.preflight) queue_bytes_ -= size + kMessageOverhead;
    out.done = std::move(next.done);
    queue_.pop_front();
  }
  wait_for_credit(now);
  return out;
}

std::vector<Bytes> Connection::closing_frames(const Bytes& message) {
  std::vector<Bytes> frames;
  if (phase_ != Phase::opening && phase_ != Phase::open) return frames;
  if (!e2e_.is_encrypting()) frames.push_back(start_stream());
  const bool between_messages =
      queue_.empty() || queue_.front().state == Outgoing::State::whole || queue_.front().state == Outgoing::State::ask;
  if (phase_ == Phase::open && between_messages && !message.empty() && message.size() <= kMaxChunkBytes) {
    frames.push_back(e2e_.seal(fallback_head(FrameType::message, message.size()), message));
  }
  frames.push_back(e2e_.seal(fallback_head(FrameType::reserved0, 0), {}));
  return frames;
}

}  // namespace kitsune2::tx5
