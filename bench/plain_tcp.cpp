// A lower bound for a transfer over a line: one request, and the same bytes read from a TCP connection, without ids,
// hashes and encryption. The connection is warm: one byte was requested and read before the clock starts.
//
// usage: plain_tcp serve DATA SIZE | plain_tcp get ADDR DATA SIZE      as bench/peers/README.md says
#include <boost/asio.hpp>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "process.hpp"

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using kitsune2::bench::usage;

namespace {

std::vector<char> whole(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Answers "1" with the first byte and "a" with all of them.
void answer(Tcp::socket& socket, const std::vector<char>& data) {
  char question = 0;
  boost::system::error_code error;
  while (asio::read(socket, asio::buffer(&question, 1), error) == 1) {
    asio::write(socket, asio::buffer(data.data(), question == 'a' ? data.size() : 1), error);
  }
}

int serve(const std::string& path) {
  const auto data = whole(path);
  asio::io_context io;
  Tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
  const auto before = usage();
  std::thread([&] {
    for (;;) {
      auto socket = acceptor.accept();
      socket.set_option(Tcp::no_delay(true));
      answer(socket, data);
    }
  }).detach();
  std::cout << R"({"addr":"127.0.0.1:)" << acceptor.local_endpoint().port() << "\"}" << std::endl;
  while (std::cin.get() != std::istream::traits_type::eof()) {
  }
  const auto after = usage();
  std::cout << R"({"cpu_s":)" << after.cpu_s - before.cpu_s << R"(,"peak_rss_bytes":)" << after.peak_rss_bytes << "}"
            << std::endl;
  std::_Exit(0);
}

int get(const std::string& address, const std::string& path, std::size_t size) {
  const auto data = whole(path);
  const auto colon = address.rfind(':');
  asio::io_context io;
  Tcp::socket socket(io);
  socket.connect({asio::ip::make_address(address.substr(0, colon)),
                  static_cast<std::uint16_t>(std::stoi(address.substr(colon + 1)))});
  socket.set_option(Tcp::no_delay(true));
  std::vector<char> got(data.size());
  asio::write(socket, asio::buffer("1", 1));
  asio::read(socket, asio::buffer(got.data(), 1));

  const auto begin = std::chrono::steady_clock::now();
  const auto before = usage();
  asio::write(socket, asio::buffer("a", 1));
  asio::read(socket, asio::buffer(got));
  const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const auto after = usage();
  if (got != data) {
    std::cerr << "plain_tcp: the data differ\n";
    return 1;
  }
  std::cout << R"({"items":)" << data.size() / size << R"(,"bytes":)" << data.size() << R"(,"wall_s":)" << wall
            << R"(,"cpu_s":)" << after.cpu_s - before.cpu_s << R"(,"peak_rss_bytes":)" << after.peak_rss_bytes << "}"
            << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.size() == 3 && args[0] == "serve") return serve(args[1]);
  if (args.size() == 4 && args[0] == "get") return get(args[1], args[2], std::stoul(args[3]));
  std::cerr << "usage: plain_tcp serve DATA SIZE | plain_tcp get ADDR DATA SIZE\n";
  return 2;
}
