// A QUIC connection by ngtcp2, with TLS by GnuTLS. This is the only source that knows their interfaces.
#include "transport/quic/connection.hpp"

#include <gnutls/gnutls.h>
#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>

#include <algorithm>
#include <cstddef>
#include <deque>
#include <limits>
#include <map>

#include "transport/quic/library_memory.hpp"

namespace kitsune2::quic {
namespace {

constexpr std::size_t kFirstNameBytes = 18;  ///< of the name that a dialler makes up for its peer
static_assert(kLeastDatagram == NGTCP2_MAX_UDP_PAYLOAD_SIZE);
constexpr std::size_t kMaxReason = 1024;
constexpr std::size_t kMaxPieces = 16;       ///< of messages, in one datagram
constexpr std::size_t kMaxLostStreams = 16;  ///< that the peer stopped, and of which it has not acknowledged everything
constexpr std::size_t kMaxReserved = 16U << 10;
constexpr std::size_t kMaxCloseAnswers = 8;  ///< doubling: after 1, 2, 4, … datagrams

constexpr Duration kLeastStuckWait = std::chrono::milliseconds(1);
constexpr Duration kMostStuckWait = std::chrono::seconds(1);

/// An Ed25519 key in DER, before the 32 bytes of the key itself.
constexpr std::array<std::uint8_t, 12> kKeyPrefix = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                                                     0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
constexpr const char* kPriorities =
    "NONE:+VERS-TLS1.3:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:+AEAD:+SHA256:+SHA384:+GROUP-X25519"
    ":+GROUP-SECP256R1:+ECDHE-ECDSA:+SIGN-EDDSA-ED25519:+CTYPE-CLI-RAWPK:+CTYPE-SRV-RAWPK:%DISABLE_TLS13_COMPAT_MODE";

ngtcp2_tstamp to_ngtcp2(Time time) {
  return static_cast<ngtcp2_tstamp>(std::max<std::int64_t>(0, time.time_since_epoch().count())) * NGTCP2_MICROSECONDS;
}
ngtcp2_duration to_ngtcp2(Duration duration) {
  return static_cast<ngtcp2_duration>(std::max<std::int64_t>(0, duration.count())) * NGTCP2_MICROSECONDS;
}

std::string words_of(int code) { return ngtcp2_strerror(code); }

/// Hands the library's memory to the library, as C functions.
ngtcp2_mem as_ngtcp2(LibraryMemory& memory) {
  return {&memory, [](std::size_t size, void* user) { return static_cast<LibraryMemory*>(user)->allocate(size); },
          [](void* pointer, void* user) { static_cast<LibraryMemory*>(user)->release(pointer); },
          [](std::size_t count, std::size_t each, void* user) {
            return static_cast<LibraryMemory*>(user)->allocate_zeros(count, each);
          },
          [](void* pointer, std::size_t size, void* user) {
            return static_cast<LibraryMemory*>(user)->reallocate(pointer, size);
          }};
}

/// The one path: which way a datagram takes is the owner's business.
struct Path {
  Path() {
    address.sin_family = AF_INET;
    path.local = {reinterpret_cast<ngtcp2_sockaddr*>(&address), sizeof address};
    path.remote = path.local;
  }
  Path(const Path&) = delete;
  Path& operator=(const Path&) = delete;
  ngtcp2_sockaddr_in address{};
  ngtcp2_path path{};
};

ngtcp2_cid to_cid(ByteView bytes) {
  ngtcp2_cid out{};
  ngtcp2_cid_init(&out, bytes.data(), bytes.size());
  return out;
}
ConnectionName to_name(const ngtcp2_cid& cid) { return ConnectionName(ByteView(cid.data, cid.datalen)); }

}  // namespace

ConnectionName::ConnectionName(ByteView bytes) : size_(static_cast<std::uint8_t>(std::min(bytes.size(), kMaxBytes))) {
  std::copy_n(bytes.begin(), size_, bytes_.begin());
}

struct Connection::Impl {
  struct Message {
    Ticket ticket = 0;
    ByteChain body;
  };
  /// A stream of our own, and the messages on it that are sent and not acknowledged, with where they end.
  struct Outgoing {
    std::int64_t id = -1;
    std::uint64_t sent = 0;
    std::deque<std::pair<std::uint64_t, ByteChain>> messages;
  };
  struct Incoming {
    std::vector<std::uint8_t> data;
    bool end = false;
    bool given_up = false;
  };

  Impl(std::shared_ptr<const Identity> own_identity, const Config& its_config, Random its_random,
       std::optional<Key> expected_key, bool dials)
      : own(std::move(own_identity)),
        config(its_config),
        random(std::move(its_random)),
        expected(expected_key),
        dialled(dials),
        memory(its_config.max_library_bytes) {}
  ~Impl() { free_library(); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  static Impl& of(void* user) { return *static_cast<Impl*>(user); }
  /// By which the peer is to call this connection.
  void make_name(std::span<std::uint8_t> name) const {
    random(name);
    if (config.mark_name && name.size() == kOwnNameBytes) config.mark_name(name.first<kOwnNameBytes>());
  }

  Result<void> start_tls();
  static void set_crypto_callbacks(ngtcp2_callbacks& calls);
  static void set_connection_callbacks(ngtcp2_callbacks& calls);
  static void set_stream_callbacks(ngtcp2_callbacks& calls);
  ngtcp2_settings settings_at(Time now);
  ngtcp2_transport_params parameters() const;
  Result<void> start(const ngtcp2_pkt_hd* first, Time now);
  int check_key();

  void free_library();
  /// Nothing may be done with the connection any more: the library's one is gone.
  bool over() const { return closed.has_value(); }
  void end(Closed how, Time now);
  void end_by_library(int code, Time now);
  void end_by_peer(Time now);
  void write_close(const ngtcp2_connection_close_error& why, Time now);

  bool choose_stream();
  std::size_t gather(std::array<ngtcp2_vec, kMaxPieces>& out) const;
  void advance(std::size_t bytes);
  bool lose_stream();
  ngtcp2_ssize write_packet(std::span<std::uint8_t> into, Time now);
  void acknowledge(Outgoing& stream, std::uint64_t upto);
  void note_sent(bool whole);
  void forget_lost(std::int64_t id);
  /// A stream of the peer; nullptr: it was read to its end, or given up and has ended.
  Incoming* incoming(std::int64_t id);
  void end_incoming(std::int64_t id);
  void forget_incoming(std::int64_t id);
  std::int64_t reading_id() const { return static_cast<std::int64_t>(reading * 4) + (dialled ? 3 : 2); }

  const std::shared_ptr<const Identity> own;
  const Config config;
  const Random random;
  const std::optional<Key> expected;
  const bool dialled;
  bool opened = false;
  std::optional<Key> peer;
  bool blocked = false;  ///< by the peer's windows, as far as is known
  bool stopped = false;  ///< the peer has stopped `sending`
  bool close_due = false;
  bool finish_noted = false;

  LibraryMemory memory;
  std::uint64_t progress = 0;
  std::size_t received_memory = 0;  ///< of that what was allocated while datagrams were received, less what was freed
  ngtcp2_mem allocator = as_ngtcp2(memory);
  ngtcp2_conn* conn = nullptr;
  gnutls_session_t session = nullptr;
  ngtcp2_crypto_conn_ref reference{};
  Path path;

  std::optional<Closed> closed;
  std::vector<NameChange> names;

  std::deque<Message> waiting;  ///< of the first one a part may have gone out:
  std::size_t first_sent = 0;   ///< so much, which is up to
  std::size_t piece = 0;        ///< this piece of it,
  std::size_t piece_sent = 0;   ///< of which so much has
  Outgoing sending;
  std::map<std::int64_t, Outgoing>
      lost;  ///< streams that the peer stopped, until it has acknowledged what went out on them
  std::size_t queued = 0;
  std::size_t unacknowledged = 0;
  Ticket last_ticket = 0;
  std::vector<Sent> sent;
  std::size_t burst = 0;  ///< bytes since the last pause

  std::map<std::int64_t, Incoming> streams;
  std::uint64_t reading = 0;
  std::size_t last_part = 0;  ///< bytes of what was read last: the next part may be as large

  // The library goes on naming a deadline that has passed when it may not send what is due (before the peer's address
  // is proven, three times what it has sent).
  Time not_before = Time::min();
  Duration stuck_wait = kLeastStuckWait;

  std::optional<Bytes> close_datagram;
  std::size_t answers = 0, until_answer = 1;
  Time finish_at = Time::max();
};

// --- handshake

/// Q1. Asked by GnuTLS when the peer's key has come; that it has signed with it is checked by GnuTLS itself.
int Connection::Impl::check_key() {
  unsigned count = 0;
  const gnutls_datum_t* entries = gnutls_certificate_get_peers(session, &count);
  if (entries == nullptr || count != 1) return -1;
  const ByteView der(entries[0].data, entries[0].size);
  if (der.size() != kKeyPrefix.size() + Key{}.size() || !std::equal(kKeyPrefix.begin(), kKeyPrefix.end(), der.begin()))
    return -1;
  Key key{};
  std::copy(der.begin() + kKeyPrefix.size(), der.end(), key.begin());
  if (expected && key != *expected) return -1;
  peer = key;
  return 0;
}

Result<void> Connection::Impl::start_tls() {
  const auto refused = [](const char* what, int code) {
    return make_error(Errc::unsupported, std::string("GnuTLS: ") + what + ": " + gnutls_strerror(code));
  };
  const unsigned flags =
      (dialled ? GNUTLS_CLIENT : GNUTLS_SERVER) | GNUTLS_ENABLE_RAWPK | GNUTLS_NO_TICKETS | GNUTLS_NO_AUTO_SEND_TICKET;
  if (const int code = gnutls_init(&session, flags); code != 0) return refused("session", code);
  if (const int code = gnutls_priority_set_direct(session, kPriorities, nullptr); code != 0)
    return refused("priorities", code);
  if (const int code = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, own->credentials()); code != 0)
    return refused("credentials", code);
  std::string alpn = config.alpn;
  const gnutls_datum_t protocol{reinterpret_cast<unsigned char*>(alpn.data()), static_cast<unsigned>(alpn.size())};
  if (const int code = gnutls_alpn_set_protocols(session, &protocol, 1, GNUTLS_ALPN_MANDATORY); code != 0)
    return refused("application protocol", code);
  if (dialled && config.server_name) {
    const std::string name = server_name_of(*expected);
    if (const int code = gnutls_server_name_set(session, GNUTLS_NAME_DNS, name.data(), name.size()); code != 0)
      return refused("server name", code);
  }
  if (!dialled) gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
  const int configured = dialled ? ngtcp2_crypto_gnutls_configure_client_session(session)
                                 : ngtcp2_crypto_gnutls_configure_server_session(session);
  if (configured != 0) return make_error(Errc::unsupported, "GnuTLS: no QUIC");
  reference.get_conn = [](ngtcp2_crypto_conn_ref* ref) { return of(ref->user_data).conn; };
  reference.user_data = this;
  gnutls_session_set_ptr(session, &reference);
  gnutls_session_set_verify_function(session, [](gnutls_session_t asked) {
    const auto* ref = static_cast<ngtcp2_crypto_conn_ref*>(gnutls_session_get_ptr(asked));
    return of(ref->user_data).check_key();
  });
  return {};
}

/// The callbacks for which ngtcp2_crypto has functions of its own.
void Connection::Impl::set_crypto_callbacks(ngtcp2_callbacks& calls) {
  calls.client_initial = ngtcp2_crypto_client_initial_cb;
  calls.recv_client_initial = ngtcp2_crypto_recv_client_initial_cb;
  calls.recv_crypto_data = ngtcp2_crypto_recv_crypto_data_cb;
  calls.encrypt = ngtcp2_crypto_encrypt_cb;
  calls.decrypt = ngtcp2_crypto_decrypt_cb;
  calls.hp_mask = ngtcp2_crypto_hp_mask_cb;
  calls.recv_retry = ngtcp2_crypto_recv_retry_cb;
  calls.update_key = ngtcp2_crypto_update_key_cb;
  calls.delete_crypto_aead_ctx = ngtcp2_crypto_delete_crypto_aead_ctx_cb;
  calls.delete_crypto_cipher_ctx = ngtcp2_crypto_delete_crypto_cipher_ctx_cb;
  calls.version_negotiation = ngtcp2_crypto_version_negotiation_cb;
}

/// Randomness, names of the connection, and the end of the handshake.
void Connection::Impl::set_connection_callbacks(ngtcp2_callbacks& calls) {
  calls.get_path_challenge_data = [](ngtcp2_conn*, std::uint8_t* data, void* user) {
    of(user).random({data, NGTCP2_PATH_CHALLENGE_DATALEN});
    return 0;
  };
  calls.rand = [](std::uint8_t* data, std::size_t size, const ngtcp2_rand_ctx* context) {
    of(context->native_handle).random({data, size});
  };
  calls.get_new_connection_id = [](ngtcp2_conn*, ngtcp2_cid* cid, std::uint8_t* token, std::size_t size, void* user) {
    Impl& me = of(user);
    cid->datalen = size;
    me.make_name({cid->data, size});
    me.random({token, NGTCP2_STATELESS_RESET_TOKENLEN});
    me.names.push_back({to_name(*cid), true});
    return 0;
  };
  calls.remove_connection_id = [](ngtcp2_conn*, const ngtcp2_cid* cid, void* user) {
    of(user).names.push_back({to_name(*cid), false});
    return 0;
  };
  calls.handshake_completed = [](ngtcp2_conn* its, void* user) {
    Impl& me = of(user);
    if (!me.peer) return static_cast<int>(NGTCP2_ERR_CALLBACK_FAILURE);
    me.opened = true;
    if (me.config.keep_alive > Duration::zero())
      ngtcp2_conn_set_keep_alive_timeout(its, to_ngtcp2(me.config.keep_alive));
    return 0;
  };
}

void Connection::Impl::set_stream_callbacks(ngtcp2_callbacks& calls) {
  calls.recv_stream_data = [](ngtcp2_conn* its, std::uint32_t flags, std::int64_t id, std::uint64_t,
                              const std::uint8_t* data, std::size_t size, void* user, void*) {
    Impl& me = of(user);
    me.progress += size;
    Incoming* stream = me.incoming(id);
    if (stream == nullptr || stream->given_up) {
      ngtcp2_conn_extend_max_offset(its, size);
    } else {
      // Not for streams that have to wait: there can be a hundred of them, with a byte each.
      if (stream->data.empty() && id == me.reading_id()) stream->data.reserve(std::min(me.last_part, kMaxReserved));
      stream->data.insert(stream->data.end(), data, data + size);
    }
    if ((flags & NGTCP2_STREAM_DATA_FLAG_FIN) != 0) me.end_incoming(id);
    return 0;
  };
  calls.stream_reset = [](ngtcp2_conn*, std::int64_t id, std::uint64_t, std::uint64_t, void* user, void*) {
    of(user).end_incoming(id);
    return 0;
  };
  calls.stream_stop_sending = [](ngtcp2_conn*, std::int64_t id, std::uint64_t, void* user, void*) {
    Impl& me = of(user);
    if (id == me.sending.id) me.stopped = true;
    return 0;
  };
  calls.stream_close = [](ngtcp2_conn* its, std::uint32_t, std::int64_t id, std::uint64_t, void* user, void*) {
    if (ngtcp2_conn_is_local_stream(its, id) != 0) of(user).forget_lost(id);
    return 0;
  };
  calls.acked_stream_data_offset = [](ngtcp2_conn*, std::int64_t id, std::uint64_t offset, std::uint64_t size,
                                      void* user, void*) {
    Impl& me = of(user);
    me.progress += size;
    if (id == me.sending.id) {
      me.acknowledge(me.sending, offset + size);
    } else if (const auto found = me.lost.find(id); found != me.lost.end()) {
      me.acknowledge(found->second, offset + size);
      if (found->second.messages.empty()) me.lost.erase(found);
    }
    return 0;
  };
}

ngtcp2_settings Connection::Impl::settings_at(Time now) {
  ngtcp2_settings settings{};
  ngtcp2_settings_default(&settings);
  settings.initial_ts = to_ngtcp2(now);
  settings.rand_ctx.native_handle = this;
  settings.max_tx_udp_payload_size = std::max(config.datagram_bytes, kLeastDatagram);
  settings.no_tx_udp_payload_size_shaping = 1;
  settings.no_pmtud = 1;
  settings.handshake_timeout = to_ngtcp2(config.handshake_timeout);
  return settings;
}

ngtcp2_transport_params Connection::Impl::parameters() const {
  ngtcp2_transport_params params{};
  ngtcp2_transport_params_default(&params);
  params.initial_max_streams_uni = config.max_streams;
  params.initial_max_stream_data_uni = config.stream_window;
  params.initial_max_data = config.connection_window;
  params.max_idle_timeout = to_ngtcp2(config.idle_timeout);
  params.max_udp_payload_size = 1472;
  params.active_connection_id_limit = 5;
  return params;
}

Result<void> Connection::Impl::start(const ngtcp2_pkt_hd* first, Time now) {
  if (Result<void> tls = start_tls(); !tls) return tls;
  ngtcp2_callbacks calls{};
  set_crypto_callbacks(calls);
  set_connection_callbacks(calls);
  set_stream_callbacks(calls);
  const ngtcp2_settings settings = settings_at(now);
  ngtcp2_transport_params params = parameters();

  std::array<std::uint8_t, kFirstNameBytes> name{};
  make_name(std::span(name).first(kOwnNameBytes));
  const ngtcp2_cid ours = to_cid(ByteView(name).first(kOwnNameBytes));
  names.push_back({to_name(ours), true});
  int code = 0;
  if (first != nullptr) {
    params.original_dcid = first->dcid;
    names.push_back({to_name(first->dcid), true});
    code = ngtcp2_conn_server_new(&conn, &first->scid, &ours, &path.path, first->version, &calls, &settings, &params,
                                  &allocator, this);
  } else {
    random(name);
    const ngtcp2_cid theirs = to_cid(name);
    code = ngtcp2_conn_client_new(&conn, &theirs, &ours, &path.path, NGTCP2_PROTO_VER_V1, &calls, &settings, &params,
                                  &allocator, this);
  }
  if (code != 0) return make_error(Errc::overloaded, "QUIC: " + words_of(code));
  ngtcp2_conn_set_tls_native_handle(conn, session);
  return {};
}

// --- the end

void Connection::Impl::end(Closed how, Time now) {
  closed = std::move(how);
  for (const Message& message : waiting) sent.push_back({message.ticket, false});
  waiting.clear();
  sending = Outgoing{};
  lost.clear();
  queued = 0;
  unacknowledged = 0;
  const auto wait = std::chrono::duration_cast<Duration>(std::chrono::nanoseconds(ngtcp2_conn_get_pto(conn)));
  finish_at = now + 3 * std::max<Duration>(wait, std::chrono::milliseconds(1));
  free_library();
}

void Connection::Impl::free_library() {
  if (conn != nullptr) ngtcp2_conn_del(std::exchange(conn, nullptr));
  if (session != nullptr) gnutls_deinit(std::exchange(session, nullptr));
}

void Connection::Impl::write_close(const ngtcp2_connection_close_error& why, Time now) {
  std::vector<std::uint8_t> buffer(kLeastDatagram);
  ngtcp2_pkt_info info{};
  const ngtcp2_ssize size =
      ngtcp2_conn_write_connection_close(conn, &path.path, &info, buffer.data(), buffer.size(), &why, to_ngtcp2(now));
  if (size <= 0) return;
  buffer.resize(static_cast<std::size_t>(size));
  close_datagram = Bytes(std::move(buffer));
  close_due = true;
}

void Connection::Impl::end_by_library(int code, Time now) {
  if (over()) return;
  Closed how;
  how.by = Closed::By::us;
  switch (code) {
    case NGTCP2_ERR_DRAINING:
      end_by_peer(now);
      return;
    case NGTCP2_ERR_IDLE_CLOSE:
      how.by = Closed::By::nobody;
      how.error = make_error(Errc::timed_out, "nothing came from the peer for the idle time");
      end(std::move(how), now);
      finish_at = now;
      return;
    case NGTCP2_ERR_HANDSHAKE_TIMEOUT:
      how.by = Closed::By::nobody;
      how.error = make_error(Errc::timed_out, "the peer did not end the handshake in time");
      end(std::move(how), now);
      finish_at = now;
      return;
    case NGTCP2_ERR_DROP_CONN:
    case NGTCP2_ERR_RETRY:
      how.error = make_error(Errc::malformed, "no handshake came of the first datagram");
      end(std::move(how), now);
      finish_at = now;
      return;
    default:
      break;
  }
  ngtcp2_connection_close_error why{};
  ngtcp2_connection_close_error_default(&why);
  if (code == NGTCP2_ERR_CRYPTO) {
    const std::uint8_t alert = ngtcp2_conn_get_tls_alert(conn);
    ngtcp2_connection_close_error_set_transport_error_tls_alert(&why, alert, nullptr, 0);
    const char* name = gnutls_alert_get_name(static_cast<gnutls_alert_description_t>(alert));
    how.error =
        make_error(Errc::peer_fault, std::string("the handshake failed: ") + (name != nullptr ? name : "no alert"));
  } else {
    ngtcp2_connection_close_error_set_transport_error_liberr(&why, code, nullptr, 0);
    how.error = make_error(code == NGTCP2_ERR_NOMEM ? Errc::overloaded : Errc::peer_fault, "QUIC: " + words_of(code));
  }
  how.code = why.error_code;
  write_close(why, now);
  end(std::move(how), now);
}

void Connection::Impl::end_by_peer(Time now) {
  ngtcp2_connection_close_error why{};
  ngtcp2_conn_get_connection_close_error(conn, &why);
  Closed how;
  how.by = Closed::By::peer;
  how.application = why.type == NGTCP2_CONNECTION_CLOSE_ERROR_CODE_TYPE_APPLICATION;
  how.code = why.error_code;
  if (why.reason != nullptr) how.reason.assign(reinterpret_cast<const char*>(why.reason), why.reasonlen);
  how.error = make_error(Errc::disconnected, "the peer closed the connection, code " + std::to_string(how.code) +
                                                 (how.application ? "" : " of QUIC") +
                                                 (how.reason.empty() ? "" : ": " + how.reason));
  end(std::move(how), now);
}

// --- sending

/// Q3. Whether there is a stream to write on, and something to write.
bool Connection::Impl::choose_stream() {
  if (!opened || blocked || queued == 0) return false;
  if (sending.id >= 0) return true;
  return ngtcp2_conn_open_uni_stream(conn, &sending.id, nullptr) == 0;
}

/// The first message has gone out, or what is left of it never will.
void Connection::Impl::note_sent(bool whole) {
  Message& message = waiting.front();
  queued -= message.body.size() - first_sent;
  unacknowledged += message.body.size();
  sent.push_back({message.ticket, whole});
  sending.messages.emplace_back(sending.sent, std::move(message.body));
  waiting.pop_front();
  first_sent = piece = piece_sent = 0;
}

/// The stream is of no use any more. False: the peer has stopped too much.
bool Connection::Impl::lose_stream() {
  stopped = blocked = false;
  if (first_sent > 0) note_sent(false);
  Outgoing gone = std::exchange(sending, Outgoing{});
  if (!gone.messages.empty()) lost.emplace(gone.id, std::move(gone));
  std::size_t held = 0;
  for (const auto& [id, stream] : lost) {
    for (const auto& message : stream.messages) held += message.second.size();
  }
  return lost.size() <= kMaxLostStreams && (lost.size() <= 1 || held <= config.max_queue_bytes);
}

/// Not always said of a stream that the peer has stopped: acknowledgements let go of it, too.
void Connection::Impl::forget_lost(std::int64_t id) {
  const auto found = lost.find(id);
  if (found == lost.end()) return;
  acknowledge(found->second, std::numeric_limits<std::uint64_t>::max());
  lost.erase(found);
}

std::size_t Connection::Impl::gather(std::array<ngtcp2_vec, kMaxPieces>& out) const {
  std::size_t count = 0;
  std::size_t at = piece, skip = piece_sent, bytes = 0;
  for (const Message& message : waiting) {
    const std::span<const Bytes> pieces = message.body.pieces();
    for (; at < pieces.size(); ++at) {
      // The library does not write what it is told to send.
      out[count] = {
          const_cast<std::uint8_t*>(pieces[at].data()) + skip,  // NOLINT(cppcoreguidelines-pro-type-const-cast)
          pieces[at].size() - skip};
      bytes += out[count].len;
      skip = 0;
      if (++count == out.size() || bytes >= config.datagram_bytes) return count;
    }
    at = 0;
  }
  return count;
}

void Connection::Impl::advance(std::size_t bytes) {
  while (bytes > 0) {
    const std::span<const Bytes> pieces = waiting.front().body.pieces();
    const std::size_t part = std::min(bytes, pieces[piece].size() - piece_sent);
    bytes -= part;
    piece_sent += part;
    first_sent += part;
    queued -= part;
    sending.sent += part;
    if (piece_sent < pieces[piece].size()) return;
    piece_sent = 0;
    if (++piece == pieces.size()) note_sent(true);
  }
}

void Connection::Impl::acknowledge(Outgoing& stream, std::uint64_t upto) {
  while (!stream.messages.empty() && stream.messages.front().first <= upto) {
    unacknowledged -= stream.messages.front().second.size();
    stream.messages.pop_front();
  }
}

/// One datagram. 0: nothing to send now.
ngtcp2_ssize Connection::Impl::write_packet(std::span<std::uint8_t> into, Time now) {
  while (true) {
    if (stopped && !lose_stream()) return NGTCP2_ERR_PROTO;
    std::array<ngtcp2_vec, kMaxPieces> pieces{};
    const bool has_data = choose_stream();
    const std::size_t count = has_data ? gather(pieces) : 0;
    ngtcp2_pkt_info info{};
    ngtcp2_ssize taken = -1;
    const ngtcp2_ssize size = ngtcp2_conn_writev_stream(conn, &path.path, &info, into.data(), into.size(), &taken,
                                                        NGTCP2_WRITE_STREAM_FLAG_NONE, has_data ? sending.id : -1,
                                                        has_data ? pieces.data() : nullptr, count, to_ngtcp2(now));
    if (taken > 0) advance(static_cast<std::size_t>(taken));
    if (size == NGTCP2_ERR_STREAM_DATA_BLOCKED) {
      blocked = true;
    } else if (size == NGTCP2_ERR_STREAM_SHUT_WR || size == NGTCP2_ERR_STREAM_NOT_FOUND) {
      stopped = true;
    } else {
      return size;
    }
  }
}

// --- streams of the peer. That the library closes a stream is no help: it does not say so of one that was given up.

Connection::Impl::Incoming* Connection::Impl::incoming(std::int64_t id) {
  const auto found = streams.find(id);
  if (found != streams.end()) return &found->second;
  return id < reading_id() ? nullptr : &streams[id];
}

void Connection::Impl::end_incoming(std::int64_t id) {
  Incoming* stream = incoming(id);
  if (stream == nullptr) return;
  stream->end = true;
  if (stream->given_up) forget_incoming(id);
}

/// The peer may open another one instead.
void Connection::Impl::forget_incoming(std::int64_t id) {
  streams.erase(id);
  if (!over()) ngtcp2_conn_extend_max_streams_uni(conn, 1);
}

// --- what the owner calls

Connection::Connection(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Connection::~Connection() = default;

Result<std::unique_ptr<Connection>> Connection::dial(std::shared_ptr<const Identity> own, const Config& config,
                                                     Random random, const Key& peer, Time now) {
  auto impl = std::make_unique<Impl>(std::move(own), config, std::move(random), peer, true);
  if (const Result<void> started = impl->start(nullptr, now); !started) return started.error();
  return std::unique_ptr<Connection>(new Connection(std::move(impl)));
}

Result<std::unique_ptr<Connection>> Connection::accept(std::shared_ptr<const Identity> own, const Config& config,
                                                       Random random, const std::optional<Key>& peer, ByteView datagram,
                                                       Time now) {
  ngtcp2_pkt_hd first{};
  if (ngtcp2_accept(&first, datagram.data(), datagram.size()) != 0)
    return make_error(Errc::malformed, "not the first packet of a handshake");
  auto impl = std::make_unique<Impl>(std::move(own), config, std::move(random), peer, false);
  if (const Result<void> started = impl->start(&first, now); !started) return started.error();
  return std::unique_ptr<Connection>(new Connection(std::move(impl)));
}

void Connection::receive(ByteView datagram, Time now) {
  Impl& me = *impl_;
  if (me.over()) {
    // Q7.
    if (me.close_datagram && me.answers < kMaxCloseAnswers && --me.until_answer == 0) {
      me.until_answer = std::size_t{1} << ++me.answers;
      me.close_due = true;
    }
    return;
  }
  if (datagram.empty()) return;
  me.blocked = false;  // a larger window may be in it, of the stream or of the connection
  me.not_before = Time::min();
  me.stuck_wait = kLeastStuckWait;
  const ngtcp2_pkt_info info{};
  const std::size_t before = me.memory.used();
  const int code =
      ngtcp2_conn_read_pkt(me.conn, &me.path.path, &info, datagram.data(), datagram.size(), to_ngtcp2(now));
  me.received_memory += me.memory.used();
  me.received_memory -= std::min(me.received_memory, before);
  if (code != 0) me.end_by_library(code, now);
}

std::optional<Batch> Connection::produce(Time now, std::size_t most, std::size_t largest) {
  Impl& me = *impl_;
  if (me.over()) {
    if (!std::exchange(me.close_due, false) || now >= me.finish_at) return std::nullopt;
    return Batch{*me.close_datagram, me.close_datagram->size()};
  }
  const std::size_t limit =
      me.opened ? std::max(std::min(me.config.datagram_bytes, largest), kLeastDatagram) : kLeastDatagram;
  // Most batches are small, so that a buffer of this size each would cost more than the copy.
  thread_local std::vector<std::uint8_t> buffer;
  if (buffer.size() < limit * most) buffer.resize(limit * most);
  std::size_t used = 0, segment = 0;
  const std::size_t quantum = std::max(ngtcp2_conn_get_send_quantum(me.conn), limit);
  for (std::size_t count = 0; count < most && me.burst < quantum; ++count) {
    const std::size_t room = segment != 0 ? segment : limit;
    const ngtcp2_ssize size = me.write_packet(std::span(buffer).subspan(used, room), now);
    if (size < 0) {
      me.end_by_library(static_cast<int>(size), now);
      break;
    }
    if (size == 0) {
      if (me.burst > 0) me.burst = quantum;
      break;
    }
    used += static_cast<std::size_t>(size);
    me.burst += static_cast<std::size_t>(size);
    if (segment == 0) segment = static_cast<std::size_t>(size);
    if (static_cast<std::size_t>(size) < room) break;
  }
  if (!me.over() && me.burst >= quantum) {
    me.burst = 0;
    // Before there is a round trip to go by, the library takes a third of a second for one, and would pause for 26 ms
    // after the first datagram. What goes out until then is less than a first window.
    if (me.opened) ngtcp2_conn_update_pkt_tx_time(me.conn, to_ngtcp2(now));
  }
  if (used == 0) {
    if (me.over()) return me.close_due ? produce(now, most, largest) : std::nullopt;
    if (ngtcp2_conn_get_expiry(me.conn) <= to_ngtcp2(now)) {
      me.not_before = now + me.stuck_wait;
      me.stuck_wait = std::min(me.stuck_wait * 2, kMostStuckWait);
    }
    return std::nullopt;
  }
  return Batch{Bytes::copy_of(ByteView(buffer).first(used)), segment};
}

Time Connection::next_deadline() const {
  if (impl_->over()) return impl_->finish_noted ? Time::max() : impl_->finish_at;
  const ngtcp2_tstamp at = ngtcp2_conn_get_expiry(impl_->conn);
  const ngtcp2_tstamp micros = at / NGTCP2_MICROSECONDS + (at % NGTCP2_MICROSECONDS != 0 ? 1 : 0);
  if (at == std::numeric_limits<ngtcp2_tstamp>::max() ||
      micros > static_cast<ngtcp2_tstamp>(Time::max().time_since_epoch().count()))
    return Time::max();
  return std::max(impl_->not_before, Time(Duration(static_cast<Duration::rep>(micros))));
}

void Connection::on_deadline(Time now) {
  Impl& me = *impl_;
  if (me.over()) {
    me.finish_noted = now >= me.finish_at;
    return;
  }
  if (ngtcp2_conn_get_expiry(me.conn) > to_ngtcp2(now)) return;
  if (const int code = ngtcp2_conn_handle_expiry(me.conn, to_ngtcp2(now)); code != 0) me.end_by_library(code, now);
}

bool Connection::is_open() const { return impl_->opened; }
bool Connection::is_dialled() const { return impl_->dialled; }
const std::optional<Key>& Connection::peer() const { return impl_->peer; }
const std::optional<Closed>& Connection::closed() const { return impl_->closed; }
bool Connection::is_finished(Time now) const { return impl_->over() && now >= impl_->finish_at; }
std::uint64_t Connection::progress() const { return impl_->progress; }
std::size_t Connection::library_bytes() const { return impl_->memory.used(); }
std::size_t Connection::received_library_bytes() const { return impl_->over() ? 0 : impl_->received_memory; }

std::optional<Duration> Connection::round_trip() const {
  if (!impl_->opened || impl_->over()) return std::nullopt;
  ngtcp2_conn_stat stat{};
  ngtcp2_conn_get_conn_stat(impl_->conn, &stat);
  if (stat.smoothed_rtt == 0) return std::nullopt;
  return std::chrono::duration_cast<Duration>(std::chrono::nanoseconds(stat.smoothed_rtt));
}

Result<Connection::Ticket> Connection::send(ByteChain message) {
  Impl& me = *impl_;
  K2_ASSERT(!message.empty());
  if (me.over()) return make_error(Errc::disconnected, "the connection is closed");
  if (me.queued > 0 && me.queued + message.size() > me.config.max_queue_bytes)
    return make_error(Errc::overloaded, "too much waits to be sent to this peer");
  me.queued += message.size();
  me.waiting.push_back({++me.last_ticket, std::move(message)});
  return me.last_ticket;
}

std::vector<Connection::Sent> Connection::take_sent() { return std::exchange(impl_->sent, {}); }
bool Connection::has_sent() const { return !impl_->sent.empty(); }
std::size_t Connection::queued_bytes() const { return impl_->queued; }
std::size_t Connection::unacknowledged_bytes() const { return impl_->unacknowledged; }

std::optional<Connection::Part> Connection::read() {
  Impl& me = *impl_;
  const auto found = me.streams.find(me.reading_id());
  if (found == me.streams.end()) return std::nullopt;
  Impl::Incoming& stream = found->second;
  if (stream.data.empty() && !stream.end) return std::nullopt;
  me.last_part = stream.data.size();
  if (!stream.data.empty() && !me.over()) {
    // A stream that has ended has no window any more, which the library notices by itself.
    ngtcp2_conn_extend_max_stream_offset(me.conn, found->first, stream.data.size());
    ngtcp2_conn_extend_max_offset(me.conn, stream.data.size());
  }
  Part out{me.reading, Bytes(std::exchange(stream.data, {})), stream.end};
  if (stream.end) {
    me.forget_incoming(found->first);
    ++me.reading;
  }
  return out;
}

void Connection::forget_unread() {
  if (impl_->over()) impl_->streams.clear();
}

void Connection::stop_reading() {
  Impl& me = *impl_;
  if (me.over()) return;
  const auto found = me.streams.find(me.reading_id());
  if (found == me.streams.end()) return;
  Impl::Incoming& stream = found->second;
  ngtcp2_conn_extend_max_offset(me.conn, stream.data.size());
  stream.data = {};
  if (stream.end) {
    me.forget_incoming(found->first);
  } else {
    stream.given_up = true;
    ngtcp2_conn_shutdown_stream_read(me.conn, found->first, 0);
  }
  ++me.reading;
}

void Connection::close(std::uint64_t code, const std::string& reason, Time now) {
  Impl& me = *impl_;
  if (me.over()) return;
  Closed how{Closed::By::us, true, code, reason, make_error(Errc::cancelled, "closed by this node: " + reason)};
  ngtcp2_connection_close_error why{};
  ngtcp2_connection_close_error_default(&why);
  std::vector<std::uint8_t> text(reason.begin(),
                                 reason.begin() + static_cast<std::ptrdiff_t>(std::min(reason.size(), kMaxReason)));
  ngtcp2_connection_close_error_set_application_error(&why, code, text.data(), text.size());
  me.write_close(why, now);
  me.end(std::move(how), now);
}

std::vector<Connection::NameChange> Connection::take_name_changes() { return std::exchange(impl_->names, {}); }

std::optional<Addressed> addressed_to(ByteView datagram) {
  ngtcp2_version_cid found{};
  if (datagram.empty() || ngtcp2_pkt_decode_version_cid(&found, datagram.data(), datagram.size(), kOwnNameBytes) != 0)
    return std::nullopt;
  if (found.dcidlen > ConnectionName::kMaxBytes) return std::nullopt;
  ngtcp2_pkt_hd first{};
  return Addressed{ConnectionName(ByteView(found.dcid, found.dcidlen)),
                   ngtcp2_accept(&first, datagram.data(), datagram.size()) == 0};
}

}  // namespace kitsune2::quic
