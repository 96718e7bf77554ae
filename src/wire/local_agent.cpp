// Agents of this node: their keys, the key file, and signing and verifying with Ed25519.
#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <new>

#include "kitsune2/agent.hpp"
#include "wire/key_file.hpp"

namespace kitsune2 {

namespace {

constexpr std::size_t kSeedBytes = crypto_sign_SEEDBYTES;
constexpr std::size_t kPublicBytes = crypto_sign_PUBLICKEYBYTES;
constexpr std::size_t kSecretBytes = crypto_sign_SECRETKEYBYTES;

/// The key file has one line, `k2-ed25519-v1 <seed> <public key>`, both in base64url. The public key reveals damage.
constexpr std::string_view kFileMagic = "k2-ed25519-v1 ";
constexpr std::size_t kKeyText = 43;  // 32 bytes as base64url
constexpr std::size_t kFileBytes = kFileMagic.size() + kKeyText + 1 + kKeyText + 1;

void init_sodium() {
  static const bool ready = sodium_init() >= 0;
  K2_ASSERT(ready);
}

/// Bytes that are wiped on destruction: seeds and the contents of key files.
template <std::size_t N>
struct Wiped : std::array<char, N> {
  Wiped() { this->fill(0); }
  Wiped(const Wiped&) = delete;
  Wiped& operator=(const Wiped&) = delete;
  ~Wiped() { sodium_memzero(this->data(), N); }
};

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

Error io_error(const std::string& path, const char* what, int error) {
  const Errc code = error == ENOSPC || error == EDQUOT ? Errc::disk_full : Errc::io;
  return make_error(code, path + ": " + what + ": " + std::strerror(error));
}

bool write_all(int fd, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t n = ::write(fd, data, size);
    if (n < 0) {
      if (errno == EINTR) continue;
      return false;
    }
    data += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

/// Puts `text` at `path` (0600, durable). Returns false if there is a file already, which is left as it is.
Result<bool> create_key_file(const std::string& path, const char* text, std::size_t size) {
  std::array<std::uint8_t, 8> random{};
  randombytes_buf(random.data(), random.size());
  const std::string temporary = path + ".new-" + to_hex(random);
  Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return io_error(path, "cannot create the key file", errno);
  const auto give_up = [&](const char* what) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return io_error(path, what, error);
  };
  if (::fchmod(fd.get(), 0600) != 0) return give_up("cannot set the mode");
  if (!write_all(fd.get(), text, size)) return give_up("cannot write the key file");
  if (::fsync(fd.get()) != 0) return give_up("cannot sync the key file");
  // A hard link never replaces a file: of two processes that start together, one wins and the other reads its key.
  bool made = ::link(temporary.c_str(), path.c_str()) == 0;
  int link_error = made ? 0 : errno;
  if (!made && (link_error == EPERM || link_error == EOPNOTSUPP || link_error == ENOSYS)) {
    made = ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) == 0;
    link_error = made ? 0 : errno;
  }
  ::unlink(temporary.c_str());
  if (!made) {
    if (link_error == EEXIST) return false;
    return io_error(path, "cannot create the key file", link_error);
  }
  const Fd folder(::open(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder || ::fsync(folder.get()) != 0) return io_error(path, "cannot sync the folder", errno);
  return true;
}

class Ed25519Verifier : public Verifier {
 public:
  Ed25519Verifier() { init_sodium(); }
  bool verify(const AgentInfo& info, ByteView message, ByteView signature) const override {
    if (info.agent.size() != kPublicBytes || signature.size() != crypto_sign_BYTES) return false;
    return crypto_sign_verify_detached(signature.data(), message.data(), message.size(), info.agent.view().data()) == 0;
  }
};

}  // namespace

const Verifier& ed25519_verifier() {
  static const Ed25519Verifier verifier;
  return verifier;
}

/// The secret key, in pages of its own that are neither swapped nor dumped, and wiped when freed.
struct Ed25519LocalAgent::Secret {
  Secret() : key(static_cast<std::uint8_t*>(sodium_malloc(kSecretBytes))) {
    if (key == nullptr) throw std::bad_alloc();
  }
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret() { sodium_free(key); }

  std::uint8_t* const key;
};

Ed25519LocalAgent::Ed25519LocalAgent() {
  init_sodium();
  secret_ = std::make_unique<Secret>();
}

Ed25519LocalAgent::~Ed25519LocalAgent() = default;

std::shared_ptr<Ed25519LocalAgent> Ed25519LocalAgent::generate() {
  init_sodium();
  Wiped<kSeedBytes> seed;
  randombytes_buf(seed.data(), seed.size());
  return *from_seed(as_bytes({seed.data(), seed.size()}));
}

Result<std::shared_ptr<Ed25519LocalAgent>> Ed25519LocalAgent::from_seed(ByteView seed) {
  if (seed.size() != kSeedBytes) {
    return make_error(Errc::invalid_argument, "agent seed: " + std::to_string(seed.size()) + " bytes, expected 32");
  }
  std::shared_ptr<Ed25519LocalAgent> agent(new Ed25519LocalAgent());
  std::array<std::uint8_t, kPublicBytes> public_key{};
  crypto_sign_seed_keypair(public_key.data(), agent->secret_->key, seed.data());
  sodium_mprotect_readonly(agent->secret_->key);
  agent->id_ = AgentId(ByteView(public_key));
  return agent;
}

namespace {

/// Puts the seed into `seed`. Returns the agent that has this key.
Result<std::shared_ptr<Ed25519LocalAgent>> read_key_file(const Fd& fd, const std::string& path,
                                                         Wiped<kSeedBytes>& seed) {
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return io_error(path, "cannot read the key file", errno);
  if (!S_ISREG(status.st_mode)) return make_error(Errc::io, path + ": not a regular file");
  if ((status.st_mode & 077U) != 0) {
    return make_error(Errc::invalid_argument, path + ": other users may read or write this key; set its mode to 0600");
  }
  Wiped<kFileBytes + 1> text;
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t n = ::read(fd.get(), text.data() + size, text.size() - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error(path, "cannot read the key file", errno);
    if (n == 0) break;
    size += static_cast<std::size_t>(n);
  }
  const Error corrupt(Errc::corrupt, path + ": not a key file of kitsune2");
  const std::string_view line(text.data(), size);
  if (size != kFileBytes || !line.starts_with(kFileMagic) || line[kFileMagic.size() + kKeyText] != ' ' ||
      line.back() != '\n') {
    return corrupt;
  }
  std::size_t seed_size = 0;
  if (sodium_base642bin(reinterpret_cast<unsigned char*>(seed.data()), seed.size(), line.data() + kFileMagic.size(),
                        kKeyText, nullptr, &seed_size, nullptr, sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0 ||
      seed_size != kSeedBytes) {
    return corrupt;
  }
  Result<std::shared_ptr<Ed25519LocalAgent>> agent = Ed25519LocalAgent::from_seed(as_bytes({seed.data(), seed.size()}));
  if (!agent) return agent;
  if ((*agent)->agent().to_string() != line.substr(kFileMagic.size() + kKeyText + 1, kKeyText)) return corrupt;
  return agent;
}

/// False: there is a file by now.
Result<bool> make_key_file(const std::string& path) {
  Wiped<kSeedBytes> seed;
  randombytes_buf(seed.data(), seed.size());
  Result<std::shared_ptr<Ed25519LocalAgent>> fresh = Ed25519LocalAgent::from_seed(as_bytes({seed.data(), seed.size()}));
  if (!fresh) return fresh.error();
  Wiped<kFileBytes + 1> text;
  std::memcpy(text.data(), kFileMagic.data(), kFileMagic.size());
  char* out = text.data() + kFileMagic.size();
  sodium_bin2base64(out, kKeyText + 1, reinterpret_cast<const unsigned char*>(seed.data()), seed.size(),
                    sodium_base64_VARIANT_URLSAFE_NO_PADDING);
  out[kKeyText] = ' ';
  const std::string id = (*fresh)->agent().to_string();
  std::memcpy(out + kKeyText + 1, id.data(), kKeyText);
  out[2 * kKeyText + 1] = '\n';
  return create_key_file(path, text.data(), kFileBytes);
}

Result<std::shared_ptr<Ed25519LocalAgent>> read_or_make(const std::string& path, Wiped<kSeedBytes>& seed) {
  init_sodium();
  // The second turn reads the file that the first one, or another process, has made.
  for (int turn = 0; turn < 2; ++turn) {
    const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (fd) return read_key_file(fd, path, seed);
    if (errno != ENOENT || turn == 1) return io_error(path, "cannot open the key file", errno);
    if (const auto made = make_key_file(path); !made) return made.error();
  }
  return make_error(Errc::internal, path + ": the key file appeared and disappeared again");
}

}  // namespace

Result<std::shared_ptr<Ed25519LocalAgent>> Ed25519LocalAgent::load_or_create(const std::string& path) {
  Wiped<kSeedBytes> seed;
  return read_or_make(path, seed);
}

Result<std::array<std::uint8_t, 32>> load_or_create_seed(const std::string& path) {
  Wiped<kSeedBytes> seed;
  const auto agent = read_or_make(path, seed);
  if (!agent) return agent.error();
  std::array<std::uint8_t, 32> out{};
  std::memcpy(out.data(), seed.data(), out.size());
  return out;
}

void Ed25519LocalAgent::set_cur_storage_arc(DhtArc arc) {
  if (arc == cur_) return;
  cur_ = arc;
  if (changed_) changed_();
}

Result<Bytes> Ed25519LocalAgent::sign(const AgentInfo& info, ByteView message) {
  static_cast<void>(info);
  std::vector<std::uint8_t> signature(crypto_sign_BYTES);
  crypto_sign_detached(signature.data(), nullptr, message.data(), message.size(), secret_->key);
  return Bytes(std::move(signature));
}

}  // namespace kitsune2
