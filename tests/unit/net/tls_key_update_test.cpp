// Key updates within a TLS connection are counted and limited.
#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>

#include <string>
#include <vector>

#include "net/tls.hpp"
#include "support/sockets.hpp"

namespace kitsune2::net {
namespace {

/// A client of OpenSSL, and our engine as its server.
struct TlsPair {
  TlsPair() {
    SSL_CTX* ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, nullptr);
    client = SSL_new(ctx);
    SSL_CTX_free(ctx);
    SSL_set_bio(client, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(client);
    for (int i = 0; i < 10 && !(server.is_established() && SSL_is_init_finished(client) == 1); ++i) {
      SSL_do_handshake(client);
      to_server();
      EXPECT_TRUE(server.handshake().has_value());
      to_client();
    }
    EXPECT_TRUE(server.is_established());
  }
  ~TlsPair() { SSL_free(client); }

  void to_server() {
    char* data = nullptr;
    BIO* out = SSL_get_wbio(client);
    const long n = BIO_get_mem_data(out, &data);
    if (n > 0) server.feed(as_bytes({data, static_cast<std::size_t>(n)}));
    BIO_reset(out);
  }
  void to_client() {
    auto& out = server.output();
    if (!out.empty()) BIO_write(SSL_get_rbio(client), out.data(), static_cast<int>(out.size()));
    out.consume(out.size());
  }
  void update_keys(int times) {
    for (int i = 0; i < times; ++i) {
      ASSERT_EQ(SSL_key_update(client, SSL_KEY_UPDATE_REQUESTED), 1);
      ASSERT_EQ(SSL_do_handshake(client), 1);
      // The answers are read, because otherwise OpenSSL would not ask again.
      char none = 0;
      SSL_read(client, &none, 1);
    }
  }
  Result<std::size_t> read() { return server.read(buffer.data(), buffer.size()); }

  test::Certificates certificates;
  TlsEngine server{*TlsContext::server(certificates.cert, certificates.key)};
  SSL* client = nullptr;
  std::vector<std::uint8_t> buffer = std::vector<std::uint8_t>(256U << 10);
};

TEST(TlsKeyUpdate, AFloodEndsTheConnection) {
  TlsPair p;
  int updates = 0;
  while (updates < 10'000) {
    p.update_keys(1);
    p.to_server();
    ++updates;
    const auto n = p.read();
    if (n.has_error()) {
      EXPECT_EQ(n.error().code, Errc::peer_fault);
      EXPECT_NE(n.error().message.find("too many key updates"), std::string::npos);
      break;
    }
    p.to_client();
  }
  EXPECT_EQ(updates, 17);
}

TEST(TlsKeyUpdate, AFloodInOneReadIsNotWorkedOff) {
  TlsPair p;
  p.update_keys(5'000);
  p.to_server();
  EXPECT_EQ(p.read().error().code, Errc::peer_fault);
  EXPECT_LT(p.server.output().size(), 2'000U) << "the answers that were asked for";
}

TEST(TlsKeyUpdate, OneForEachMebibyteIsFine) {
  TlsPair p;
  const std::string mebibyte(1U << 20, 'x');
  std::size_t received = 0;
  for (int i = 0; i < 40; ++i) {
    ASSERT_EQ(SSL_write(p.client, mebibyte.data(), static_cast<int>(mebibyte.size())), static_cast<int>(1U << 20));
    p.update_keys(1);
    p.to_server();
    while (true) {
      const auto n = p.read();
      ASSERT_TRUE(n.has_value()) << n.error().message;
      if (*n == 0) break;
      received += *n;
    }
    p.to_client();
  }
  EXPECT_EQ(received, 40U << 20);
}

}  // namespace
}  // namespace kitsune2::net
