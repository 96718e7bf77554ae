// Plain sockets and threads for tests of the network code.
#include "support/sockets.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <vector>

namespace kitsune2::test {

std::string port_of(const std::string& address) { return address.substr(address.rfind(':') + 1); }

RawSocket::RawSocket(const std::string& address, const std::string& local) {
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd_ < 0) return;
  timeval limit{kPatience.count(), 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  const int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  if (!local.empty()) {
    ::inet_pton(AF_INET, local.c_str(), &to.sin_addr);
    if (::bind(fd_, reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0) {
      close();
      return;
    }
  }
  to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(port_of(address))));
  ::inet_pton(AF_INET, address.substr(0, address.rfind(':')).c_str(), &to.sin_addr);
  if (::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0) close();
}

RawSocket::~RawSocket() { close(); }

void RawSocket::close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

void RawSocket::shut_output() const { ::shutdown(fd_, SHUT_WR); }

void RawSocket::set_receive_buffer(int bytes) const { ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)); }

bool RawSocket::send(std::string_view data) const {
  while (!data.empty()) {
    const ssize_t n = ::send(fd_, data.data(), data.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    data.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

std::string RawSocket::receive(std::size_t size) const {
  std::string out(size, '\0');
  const ssize_t n = ::recv(fd_, out.data(), size, 0);
  out.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return out;
}

std::string RawSocket::receive_exactly(std::size_t size) const {
  std::string out;
  while (out.size() < size) {
    const std::string more = receive(size - out.size());
    if (more.empty()) break;
    out += more;
  }
  return out;
}

std::string RawSocket::receive_all() const {
  std::string out;
  for (std::string more = receive(65536); !more.empty(); more = receive(65536)) out += more;
  return out;
}

std::string RawSocket::receive_answer() const {
  std::string out;
  while (out.find("\r\n\r\n") == std::string::npos) {
    const std::string more = receive(1);
    if (more.empty()) return out;
    out += more;
  }
  const std::string field = "Content-Length: ";
  const auto at = out.find(field);
  if (at != std::string::npos) out += receive_exactly(std::stoul(out.substr(at + field.size())));
  return out;
}

RawWs::RawWs(const std::string& address, const std::string& path, const std::string& extra_headers,
             const std::string& local)
    : socket_(address, local) {
  if (!socket_.connected()) return;
  socket_.send("GET " + path + " HTTP/1.1\r\nHost: " + address +
               "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
               "Sec-WebSocket-Version: 13\r\n" +
               extra_headers + "\r\n");
  const std::string answer = socket_.receive_answer();
  if (answer.size() > 12) status_ = std::stoi(answer.substr(9, 3));
}

bool RawWs::send_frame(std::uint8_t first_byte, ByteView payload) {
  std::vector<std::uint8_t> frame = {first_byte};
  if (payload.size() < 126) {
    frame.push_back(static_cast<std::uint8_t>(0x80 | payload.size()));
  } else if (payload.size() < 65536) {
    frame.insert(frame.end(), {0x80 | 126, static_cast<std::uint8_t>(payload.size() >> 8),
                               static_cast<std::uint8_t>(payload.size())});
  } else {
    frame.push_back(0x80 | 127);
    for (int i = 7; i >= 0; --i) frame.push_back(static_cast<std::uint8_t>(std::uint64_t{payload.size()} >> (8 * i)));
  }
  const std::uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
  frame.insert(frame.end(), key, key + 4);
  for (std::size_t i = 0; i < payload.size(); ++i) frame.push_back(static_cast<std::uint8_t>(payload[i] ^ key[i % 4]));
  return socket_.send(ByteView(frame));
}

std::optional<Bytes> RawWs::receive() {
  while (true) {
    const std::string head = socket_.receive_exactly(2);
    if (head.size() < 2) return std::nullopt;
    std::size_t size = static_cast<std::uint8_t>(head[1]) & 0x7f;
    if (size >= 126) {
      const std::string more = socket_.receive_exactly(size == 126 ? 2 : 8);
      size = 0;
      for (const char c : more) size = size << 8 | static_cast<std::uint8_t>(c);
    }
    const std::string payload = socket_.receive_exactly(size);
    if (payload.size() != size) return std::nullopt;
    switch (head[0] & 0x0f) {
      case 8:
        if (size >= 2) {
          close_code_ = static_cast<std::uint16_t>(static_cast<std::uint8_t>(payload[0]) << 8 |
                                                   static_cast<std::uint8_t>(payload[1]));
          close_reason_ = payload.substr(2);
        }
        return std::nullopt;
      case 10:
        continue;
      default:
        return Bytes(payload);
    }
  }
}

TempDir::TempDir() {
  std::string name = (std::filesystem::temp_directory_path() / "k2net.XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TempDir::write(const std::string& name, std::string_view content) const {
  const std::string out = path_ + "/" + name;
  std::ofstream(out, std::ios::binary) << content;
  return out;
}

namespace {

struct Pem {
  std::string text;
  explicit Pem(const std::function<int(BIO*)>& write) {
    BIO* bio = BIO_new(BIO_s_mem());
    write(bio);
    char* data = nullptr;
    const long n = BIO_get_mem_data(bio, &data);
    text.assign(data, static_cast<std::size_t>(n));
    BIO_free(bio);
  }
};

std::string key_pem(EVP_PKEY* key) {
  return Pem([key](BIO* bio) { return PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr); })
      .text;
}

std::string cert_pem(X509* cert) {
  return Pem([cert](BIO* bio) { return PEM_write_bio_X509(bio, cert); }).text;
}

void extend(X509* cert, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX ctx;
  X509V3_set_ctx(&ctx, issuer, cert, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &ctx, nid, value.c_str());
  X509_add_ext(cert, extension, -1);
  X509_EXTENSION_free(extension);
}

X509* make_cert(EVP_PKEY* key, const std::string& name, X509* issuer, EVP_PKEY* issuer_key, int days,
                const std::string& alt_names) {
  X509* cert = X509_new();
  X509_set_version(cert, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(cert), issuer == nullptr ? 1 : 2);
  X509_gmtime_adj(X509_getm_notBefore(cert), -10L * 86400);
  X509_gmtime_adj(X509_getm_notAfter(cert), days * 86400L);
  X509_set_pubkey(cert, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(cert, X509_get_subject_name(issuer == nullptr ? cert : issuer));
  if (issuer == nullptr) extend(cert, cert, NID_basic_constraints, "critical,CA:TRUE");
  if (!alt_names.empty()) extend(cert, issuer, NID_subject_alt_name, alt_names);
  X509_sign(cert, issuer_key, EVP_sha256());
  return cert;
}

}  // namespace

Certificates::Certificates(const std::string& names, int days) {
  EVP_PKEY* ca_key = EVP_EC_gen("P-256");
  EVP_PKEY* server_key = EVP_EC_gen("P-256");
  EVP_PKEY* third_key = EVP_EC_gen("P-256");
  X509* ca_cert = make_cert(ca_key, "test CA", nullptr, ca_key, 100, {});
  X509* server_cert = make_cert(server_key, "test server", ca_cert, ca_key, days, names);
  ca = dir.write("ca.pem", cert_pem(ca_cert));
  cert = dir.write("cert.pem", cert_pem(server_cert));
  key = dir.write("key.pem", key_pem(server_key));
  other_key = dir.write("other.pem", key_pem(third_key));
  X509_free(ca_cert);
  X509_free(server_cert);
  EVP_PKEY_free(ca_key);
  EVP_PKEY_free(server_key);
  EVP_PKEY_free(third_key);
}

}  // namespace kitsune2::test
