// The refusal of QUIC, by itself and over a socket.
#include "server/iroh/quic_refusal.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

#include "net/udp.hpp"
#include "support/sockets.hpp"

namespace kitsune2::server {
namespace {

std::vector<std::uint8_t> initial(std::uint32_t version, std::vector<std::uint8_t> to, std::vector<std::uint8_t> from) {
  std::vector<std::uint8_t> out(1200, 7);
  std::size_t at = 0;
  out[at++] = 0xc3;
  for (int shift = 24; shift >= 0; shift -= 8) out[at++] = static_cast<std::uint8_t>(version >> shift);
  for (const auto& id : {to, from}) {
    out[at++] = static_cast<std::uint8_t>(id.size());
    for (const std::uint8_t byte : id) out[at++] = byte;
  }
  return out;
}

TEST(QuicRefusal, AFirstPacketGetsAReservedVersionAndItsIdsTheOtherWayRound) {
  const auto answer = refuse_quic(initial(1, {1, 2, 3}, {9, 8}));
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(to_hex(*answer),
            "c000000000"
            "020908"
            "03010203"
            "1a1a1a1a");
}

TEST(QuicRefusal, TheVersionOfferedIsNeverTheClients) {
  const auto answer = refuse_quic(initial(0x1a1a1a1a, {}, {}));
  ASSERT_TRUE(answer.has_value());
  EXPECT_TRUE(to_hex(*answer).ends_with("2a2a2a2a"));
}

TEST(QuicRefusal, WhatBeginsNoConnectionGetsNoAnswer) {
  auto packet = initial(1, {1, 2, 3}, {9, 8});
  EXPECT_FALSE(refuse_quic(ByteView(packet).first(1199))) << "an answer must not be longer than what asks for it";
  EXPECT_FALSE(refuse_quic({}));
  EXPECT_FALSE(refuse_quic(initial(0, {1}, {2}))) << "answers to answers would never end";
  packet[0] = 0x43;
  EXPECT_FALSE(refuse_quic(packet)) << "a short header";
  packet[0] = 0xc3;
  packet[5] = 21;
  EXPECT_FALSE(refuse_quic(packet));
  packet[5] = 3;
  packet[9] = 255;
  EXPECT_FALSE(refuse_quic(packet));
}

TEST(QuicRefusal, EveryLengthOfIdsIsReadInside) {
  for (unsigned to = 0; to < 256; ++to) {
    for (unsigned from = 0; from < 256; ++from) {
      std::vector<std::uint8_t> packet(1200, static_cast<std::uint8_t>(from));
      packet[0] = 0xff;
      packet[4] = 1;  // the version
      packet[5] = static_cast<std::uint8_t>(to);
      const auto answer = refuse_quic(packet);
      EXPECT_EQ(answer.has_value(), to <= 20 && from <= 20);
      if (answer) {
        EXPECT_LE(answer->size(), 7U + 40 + 4);
      }
    }
  }
}

TEST(QuicRefusal, AnswersOverASocketAndAPortThatIsTakenIsAnError) {
  test::Loop loop;
  auto responder = net::UdpResponder::listen(loop, "127.0.0.1:0", refuse_quic);
  ASSERT_TRUE(responder.has_value()) << responder.error().to_string();
  const std::string address = (*responder)->address();
  EXPECT_EQ(net::UdpResponder::listen(loop, address, refuse_quic).error().code, Errc::already_exists);
  EXPECT_EQ(net::UdpResponder::listen(loop, "nowhere:1", refuse_quic).error().code, Errc::invalid_argument);
  loop.call([&] { (*responder)->start(); });
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const timeval patience{test::kPatience.count(), 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(test::port_of(address))));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
  for (const auto& packet : {std::vector<std::uint8_t>(5, 0), initial(1, {1}, {2})}) {
    EXPECT_EQ(::send(fd, packet.data(), packet.size(), 0), static_cast<ssize_t>(packet.size()));
  }
  std::array<std::uint8_t, 100> answer{};
  EXPECT_EQ(::recv(fd, answer.data(), answer.size(), 0), 13);
  ::close(fd);
  loop.call([&] { (*responder)->stop(); });
}

}  // namespace
}  // namespace kitsune2::server
