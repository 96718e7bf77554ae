// Answers UDP datagrams.
#include "net/udp.hpp"

#include <array>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <utility>

#include "net/asio_runtime_impl.hpp"
#include "net/conn.hpp"

namespace kitsune2::net {

namespace asio = boost::asio;
using asio::ip::udp;
using boost::system::error_code;

namespace {

class ResponderImpl final : public UdpResponder, public std::enable_shared_from_this<ResponderImpl> {
 public:
  ResponderImpl(udp::socket socket, Answer answer, std::string address)
      : socket_(std::move(socket)), answer_(std::move(answer)), address_(std::move(address)) {}

  const std::string& address() const override { return address_; }
  void start() override { wait(); }
  void stop() override {
    error_code ec;
    socket_.close(ec);
    answer_ = nullptr;
  }

 private:
  void wait() {
    socket_.async_wait(udp::socket::wait_read, [self = shared_from_this()](const error_code& ec) {
      if (ec || !self->answer_) return;
      self->read();
      self->wait();
    });
  }
  void read() {
    for (int i = 0; i < kInTurn; ++i) {
      error_code ec;
      udp::endpoint from;
      const std::size_t size = socket_.receive_from(asio::buffer(buffer_), from, 0, ec);
      if (ec) return;
      const auto out = answer_({buffer_.data(), size});
      if (out) socket_.send_to(asio::buffer(out->data(), out->size()), from, 0, ec);
    }
  }

  udp::socket socket_;
  Answer answer_;
  std::string address_;
  std::array<std::uint8_t, kMostBytes> buffer_{};
};

std::string text_of(const udp::endpoint& endpoint) {
  const std::string host = endpoint.address().to_string();
  const std::string port = std::to_string(endpoint.port());
  return endpoint.address().is_v6() ? "[" + host + "]:" + port : host + ":" + port;
}

}  // namespace

Result<std::shared_ptr<UdpResponder>> UdpResponder::listen(AsioRuntime& runtime, const std::string& address,
                                                           Answer answer) {
  const auto parts = split_host_port(address);
  if (!parts) return parts.error().context("udp");
  error_code ec;
  const auto ip = asio::ip::make_address(parts->first, ec);
  if (ec) return make_error(Errc::invalid_argument, "udp " + address + ": not an address");
  const udp::endpoint endpoint(ip, parts->second);
  udp::socket socket(runtime.impl().io);
  socket.open(endpoint.protocol(), ec);
  if (!ec && ip.is_v6()) socket.set_option(asio::ip::v6_only(true), ec);
  if (!ec) socket.bind(endpoint, ec);
  if (!ec) socket.non_blocking(true, ec);
  const udp::endpoint bound = ec ? udp::endpoint() : socket.local_endpoint(ec);
  if (ec) {
    const bool taken = ec == asio::error::address_in_use;
    return make_error(taken ? Errc::already_exists : Errc::io, "udp " + address + ": " + ec.message());
  }
  return std::static_pointer_cast<UdpResponder>(
      std::make_shared<ResponderImpl>(std::move(socket), std::move(answer), text_of(bound)));
}

}  // namespace kitsune2::net
