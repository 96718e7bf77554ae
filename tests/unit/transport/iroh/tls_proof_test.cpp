// The proof of a key to the relay's TLS.
#include "transport/iroh/tls_proof.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace kitsune2::iroh {
namespace {

EndpointKey::Seed seed_of(std::uint8_t byte) {
  EndpointKey::Seed out;
  out.fill(byte);
  return out;
}

/// A TLS session that exports 0, 1, 2, …, and from `first` on in another session.
struct Session {
  std::uint8_t first = 0;
  EndpointId expected{};
  KeyExporter exporter() {
    return [this](std::string_view label, ByteView context, std::span<std::uint8_t> out) {
      EXPECT_EQ(label, "iroh-relay handshake v1");
      EXPECT_EQ(out.size(), 32U);
      EXPECT_TRUE(std::equal(context.begin(), context.end(), expected.begin(), expected.end()));
      std::iota(out.begin(), out.end(), first);
      return true;
    };
  }
};

struct IrohTlsProof : ::testing::Test {
  const EndpointKey key{seed_of(0xa6)};
  Session session{0, key.id()};
};

// The expected text was made by another implementation of Ed25519, from what iroh-relay 1.4.1 puts into the header.
TEST_F(IrohTlsProof, IsWhatTheReferenceWouldSend) {
  const auto proof = make_tls_proof(key, session.exporter());
  ASSERT_TRUE(proof);
  EXPECT_EQ(*proof,
            "OKov5Drgt4iC-aED_Ky_e-iF7_rhEJzkaitHe3dO4khA6FNpHRsosN27nhgnmT7qDu_l9T_IXKVuTv5A3Zo3Ck2Sy_"
            "7cgfwnB-0TJsIy6G2iEQGr2hmvyEJUT2u_ed2IARAREhMUFRYXGBkaGxwdHh8");
  EXPECT_EQ(check_tls_proof(*proof, session.exporter()), key.id());
}

TEST_F(IrohTlsProof, OfAnotherSessionProvesNothing) {
  const auto proof = make_tls_proof(key, session.exporter());
  Session other{1, key.id()};
  EXPECT_FALSE(check_tls_proof(*proof, other.exporter()));
}

TEST_F(IrohTlsProof, WithoutTlsThereIsNone) {
  const auto nothing = [](std::string_view, ByteView, std::span<std::uint8_t>) { return false; };
  EXPECT_FALSE(make_tls_proof(key, nothing));
  EXPECT_FALSE(make_tls_proof(key, {}));
  const auto proof = make_tls_proof(key, session.exporter());
  EXPECT_FALSE(check_tls_proof(*proof, nothing));
}

TEST_F(IrohTlsProof, AnyChangeMakesItWorthless) {
  const auto proof = make_tls_proof(key, session.exporter());
  const KeyExporter any = [](std::string_view, ByteView, std::span<std::uint8_t> out) {
    std::iota(out.begin(), out.end(), std::uint8_t{0});
    return true;
  };
  ASSERT_TRUE(check_tls_proof(*proof, any));
  for (std::size_t i = 0; i < proof->size(); ++i) {
    std::string changed = *proof;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    EXPECT_FALSE(check_tls_proof(changed, any)) << i;
    changed[i] = '=';
    EXPECT_FALSE(check_tls_proof(changed, any)) << i;
    EXPECT_FALSE(check_tls_proof(proof->substr(0, i), any)) << i;
  }
  EXPECT_FALSE(check_tls_proof(*proof + 'A', any));
}

}  // namespace
}  // namespace kitsune2::iroh
