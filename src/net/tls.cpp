// TLS over OpenSSL, between buffers in memory.
#include "net/tls.hpp"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509err.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "log/log.hpp"

namespace kitsune2::net {

namespace {

struct CtxDeleter {
  void operator()(SSL_CTX* ctx) const { SSL_CTX_free(ctx); }
};
using CtxPtr = std::unique_ptr<SSL_CTX, CtxDeleter>;

/// The text of the newest meaningful entry in OpenSSL's error queue; empties the queue.
std::string openssl_reason() {
  std::string out;
  while (const unsigned long code = ERR_get_error()) {
    if (ERR_GET_LIB(code) == ERR_LIB_SYS) {
      out = std::strerror(ERR_GET_REASON(code));
      break;  // the rest only repeats that the system refused
    }
    const char* text = ERR_reason_error_string(code);
    // "PEM lib" only says that it was the PEM reader; what it found came before.
    if (text != nullptr && (out.empty() || std::strcmp(text, "PEM lib") != 0)) out = text;
  }
  ERR_clear_error();
  return out.empty() ? "unknown reason" : out;
}

CtxPtr make_context(const SSL_METHOD* method) {
  CtxPtr ctx(SSL_CTX_new(method));
  if (!ctx) return ctx;
  SSL_CTX_set_min_proto_version(ctx.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(ctx.get(), SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(ctx.get(), SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  return ctx;
}

/// Incoming and outgoing ciphertext. The BIO below works on it directly, without a second copy inside OpenSSL.
struct Wire {
  ByteBuffer in;
  ByteBuffer out;
};

int wire_read(BIO* bio, char* out, int size) {
  auto& wire = *static_cast<Wire*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (wire.in.empty()) {
    BIO_set_retry_read(bio);
    return -1;
  }
  const std::size_t n = std::min(wire.in.size(), static_cast<std::size_t>(std::max(size, 0)));
  std::memcpy(out, wire.in.data(), n);
  wire.in.consume(n);
  return static_cast<int>(n);
}

int wire_write(BIO* bio, const char* data, int size) {
  BIO_clear_retry_flags(bio);
  static_cast<Wire*>(BIO_get_data(bio))->out.append(as_bytes({data, static_cast<std::size_t>(std::max(size, 0))}));
  return size;
}

long wire_ctrl(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

int wire_create(BIO* bio) {
  BIO_set_init(bio, 1);
  return 1;
}

BIO_METHOD* wire_method() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "kitsune2 buffers");
    BIO_meth_set_read(m, wire_read);
    BIO_meth_set_write(m, wire_write);
    BIO_meth_set_ctrl(m, wire_ctrl);
    BIO_meth_set_create(m, wire_create);
    return m;
  }();
  return method;
}

/// An honest peer changes its keys after gigabytes.
constexpr std::uint64_t kFreeKeyUpdates = 16;
constexpr std::uint64_t kBytesForAKeyUpdate = 1U << 20;

bool is_ip_literal(const std::string& host) {
  std::uint8_t raw[16];
  return inet_pton(AF_INET, host.c_str(), raw) == 1 || inet_pton(AF_INET6, host.c_str(), raw) == 1;
}

}  // namespace

struct TlsContext::Impl {
  CtxPtr ctx;
  bool verify = false;
};

TlsContext::~TlsContext() = default;

Result<std::shared_ptr<TlsContext>> TlsContext::client(const TlsOptions& options) {
  std::shared_ptr<TlsContext> out(new TlsContext);
  out->impl_ = std::make_unique<Impl>();
  out->impl_->ctx = make_context(TLS_client_method());
  SSL_CTX* ctx = out->impl_->ctx.get();
  if (ctx == nullptr) return make_error(Errc::internal, "TLS cannot start: " + openssl_reason());
  out->impl_->verify = options.verify;
  if (options.verify) {
    SSL_CTX_set_default_verify_paths(ctx);  // a machine without system roots may still have a CA file
    ERR_clear_error();
    if (!options.ca_file.empty() && SSL_CTX_load_verify_locations(ctx, options.ca_file.c_str(), nullptr) != 1) {
      return make_error(Errc::io, "CA file " + options.ca_file + ": " + openssl_reason());
    }
  }
  SSL_CTX_set_verify(ctx, options.verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  return out;
}

Result<std::shared_ptr<TlsContext>> TlsContext::server(const std::string& cert_file, const std::string& key_file) {
  std::shared_ptr<TlsContext> out(new TlsContext);
  out->impl_ = std::make_unique<Impl>();
  out->impl_->ctx = make_context(TLS_server_method());
  SSL_CTX* ctx = out->impl_->ctx.get();
  if (ctx == nullptr) return make_error(Errc::internal, "TLS cannot start: " + openssl_reason());
  if (SSL_CTX_use_certificate_chain_file(ctx, cert_file.c_str()) != 1) {
    return make_error(Errc::io, "TLS certificate " + cert_file + ": " + openssl_reason());
  }
  // No prompt for a passphrase: nobody could answer it.
  SSL_CTX_set_default_passwd_cb(ctx, [](char*, int, int, void*) { return 0; });
  if (SSL_CTX_use_PrivateKey_file(ctx, key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
    if (ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH) {
      ERR_clear_error();
      return make_error(Errc::io, "TLS key " + key_file + " does not belong to certificate " + cert_file);
    }
    return make_error(Errc::io, "TLS key " + key_file + ": " + openssl_reason());
  }
  // Connections are long-lived and clients are many, so no sessions are kept and no tickets are made.
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
  SSL_CTX_set_num_tickets(ctx, 0);
  return out;
}

ClientTls::Stamp ClientTls::stamp_of(const std::string& file) {
  struct stat info {};
  if (file.empty() || ::stat(file.c_str(), &info) != 0) return {};
  return {static_cast<std::int64_t>(info.st_ino), static_cast<std::int64_t>(info.st_size),
          static_cast<std::int64_t>(info.st_mtim.tv_sec), static_cast<std::int64_t>(info.st_mtim.tv_nsec)};
}

Result<std::shared_ptr<TlsContext>> ClientTls::get(const TlsOptions& options) {
  Entry& entry = entries_[{options.ca_file, options.verify}];
  const Stamp stamp = stamp_of(options.ca_file);
  if (entry.context && stamp == entry.stamp) return entry.context;
  auto made = TlsContext::client(options);
  if (!made) {
    if (!entry.context) return made.error();
    log::warn("net", "keeping the old trusted certificates: " + made.error().message);
  } else {
    entry.context = *made;
  }
  entry.stamp = stamp;
  return entry.context;
}

struct TlsEngine::Impl {
  std::shared_ptr<TlsContext> context;
  SSL* ssl = nullptr;
  Wire wire;
  std::string at;
  bool client = false;
  bool established = false;
  std::uint64_t received = 0;
  std::uint64_t key_updates = 0;

  /// Whether the peer has changed its keys too often: each change costs work and may ask for one in return.
  bool too_many_key_updates() const { return key_updates > kFreeKeyUpdates + received / kBytesForAKeyUpdate; }

  static void on_handshake_message(int sent, int /*version*/, int type, const void* bytes, std::size_t size,
                                   SSL* /*ssl*/, void* self) {
    if (sent != 0 || type != SSL3_RT_HANDSHAKE || size == 0) return;
    if (*static_cast<const std::uint8_t*>(bytes) != SSL3_MT_KEY_UPDATE) return;
    auto& impl = *static_cast<Impl*>(self);
    impl.key_updates += 1;
    if (impl.too_many_key_updates()) impl.wire.in.consume(impl.wire.in.size());  // OpenSSL stops reading
  }

  explicit Impl(std::shared_ptr<TlsContext> c) : context(std::move(c)) {
    ssl = SSL_new(context->impl_->ctx.get());
    K2_ASSERT(ssl != nullptr);
    BIO* bio = BIO_new(wire_method());
    K2_ASSERT(bio != nullptr);
    BIO_set_data(bio, &wire);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_msg_callback(ssl, on_handshake_message);
    SSL_set_msg_callback_arg(ssl, this);
  }
  ~Impl() { SSL_free(ssl); }

  Error failure(int code) const {
    if (code == SSL_ERROR_ZERO_RETURN) return make_error(Errc::disconnected, "closed by the other side");
    const long verdict = SSL_get_verify_result(ssl);
    if (client && context->impl_->verify && !established && verdict != X509_V_OK) {
      ERR_clear_error();
      return make_error(Errc::peer_unresponsive,
                        "the certificate of " + at + " is refused: " + X509_verify_cert_error_string(verdict));
    }
    // What arrives does not look like TLS at all.
    const bool no_tls = client && !established && ERR_GET_REASON(ERR_peek_error()) == SSL_R_WRONG_VERSION_NUMBER;
    const std::string why = openssl_reason();
    return make_error(established ? Errc::disconnected : Errc::peer_unresponsive,
                      "TLS" + (at.empty() ? std::string() : " with " + at) + ": " + why +
                          (no_tls ? "; does the server speak TLS there?" : ""));
  }
};

TlsEngine::TlsEngine(std::shared_ptr<TlsContext> context, const std::string& host, std::string at)
    : impl_(std::make_unique<Impl>(std::move(context))) {
  impl_->client = true;
  impl_->at = std::move(at);
  X509_VERIFY_PARAM* param = SSL_get0_param(impl_->ssl);
  X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  if (is_ip_literal(host)) {
    X509_VERIFY_PARAM_set1_ip_asc(param, host.c_str());  // no SNI, which has names only
  } else {
    X509_VERIFY_PARAM_set1_host(param, host.c_str(), host.size());
    SSL_set_tlsext_host_name(impl_->ssl, host.c_str());
  }
  SSL_set_connect_state(impl_->ssl);
}

TlsEngine::TlsEngine(std::shared_ptr<TlsContext> context) : impl_(std::make_unique<Impl>(std::move(context))) {
  SSL_set_accept_state(impl_->ssl);
}

TlsEngine::~TlsEngine() = default;

void TlsEngine::feed(ByteView ciphertext) { impl_->wire.in.append(ciphertext); }
ByteBuffer& TlsEngine::output() { return impl_->wire.out; }
bool TlsEngine::is_established() const { return impl_->established; }

bool TlsEngine::export_key(std::string_view label, ByteView context, std::span<std::uint8_t> out) const {
  if (!impl_->established) return false;
  if (SSL_version(impl_->ssl) < TLS1_3_VERSION && SSL_get_extms_support(impl_->ssl) != 1) return false;
  ERR_clear_error();
  const int rc = SSL_export_keying_material(impl_->ssl, out.data(), out.size(), label.data(), label.size(),
                                            context.data(), context.size(), 1);
  ERR_clear_error();
  return rc == 1;
}

Result<void> TlsEngine::handshake() {
  if (impl_->established) return {};
  ERR_clear_error();
  const int rc = SSL_do_handshake(impl_->ssl);
  if (rc == 1) {
    impl_->established = true;
    return {};
  }
  const int code = SSL_get_error(impl_->ssl, rc);
  if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE) return {};
  return impl_->failure(code);
}

Result<std::size_t> TlsEngine::read(std::uint8_t* out, std::size_t size) {
  ERR_clear_error();
  std::size_t n = 0;
  const int rc = SSL_read_ex(impl_->ssl, out, size, &n);
  impl_->received += n;
  if (impl_->too_many_key_updates()) return make_error(Errc::peer_fault, "TLS: too many key updates");
  if (rc == 1) return n;
  const int code = SSL_get_error(impl_->ssl, rc);
  if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE) return std::size_t{0};
  return impl_->failure(code);
}

Result<void> TlsEngine::write(ByteView plain) {
  if (plain.empty()) return {};
  ERR_clear_error();
  std::size_t n = 0;
  const int rc = SSL_write_ex(impl_->ssl, plain.data(), plain.size(), &n);
  if (rc == 1 && n == plain.size()) return {};  // no partial writes, because the BIO accepts everything
  return impl_->failure(SSL_get_error(impl_->ssl, rc));
}

void TlsEngine::close() {
  if (!impl_->established) return;
  ERR_clear_error();
  SSL_shutdown(impl_->ssl);
  ERR_clear_error();
}

}  // namespace kitsune2::net
