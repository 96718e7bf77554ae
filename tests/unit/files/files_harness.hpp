// For tests of files: a temporary folder, manifests built by hand, a store on a real runtime.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "files/manifest.hpp"
#include "files/store_access.hpp"
#include "files/tree.hpp"
#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/files.hpp"

namespace kitsune2::files::test {

namespace fs = std::filesystem;

/// The whole file, in one read: a byte at a time takes ThreadSanitizer half a second a MiB.
inline std::string content_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return {};
  std::string out(static_cast<std::size_t>(file.tellg()), '\0');
  file.seekg(0).read(out.data(), static_cast<std::streamsize>(out.size()));
  return out;
}

class TempDir {
 public:
  TempDir() {
    std::string pattern = (fs::temp_directory_path() / "k2-files-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const fs::path& path() const { return path_; }
  std::string str(const std::string& below = {}) const { return (below.empty() ? path_ : path_ / below).string(); }
  void write(const std::string& name, std::string_view bytes) const {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  std::string read(const std::string& name) const { return content_of(path_ / name); }

 private:
  fs::path path_;
};

/// Bytes that look random and are the same every time.
inline std::string noise(std::size_t size, std::uint64_t seed) {
  std::string out(size, '\0');
  std::uint64_t x = seed * 0x9e3779b97f4a7c15ULL + 1;
  for (auto& c : out) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    c = static_cast<char>(x >> 32);
  }
  return out;
}

/// Everything below a folder: path -> contents ("/" for folders), with "*" before the contents of executables.
inline std::map<std::string, std::string> snapshot(const fs::path& root) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    const auto name = fs::relative(entry.path(), root).string();
    if (entry.is_symlink()) {
      out[name] = "-> " + fs::read_symlink(entry.path()).string();
    } else if (entry.is_directory()) {
      out[name] = "/";
    } else {
      const std::string bytes = content_of(entry.path());
      const bool exec = (entry.status().permissions() & fs::perms::owner_exec) != fs::perms::none;
      out[name] = (exec ? "*" : "") + bytes;
    }
  }
  return out;
}

/// Ops in a map.
struct OpMap {
  std::map<OpId, Bytes> ops;
  PutOp put() {
    return [this](Bytes op) -> Result<OpId> {
      const OpId id = op_id_of(op);
      ops[id] = std::move(op);
      return id;
    };
  }
  GetOp get() {
    return [this](const OpId& id, const std::vector<OpId>&) -> Result<Bytes> {
      const auto it = ops.find(id);
      if (it == ops.end()) return make_error(Errc::not_found, "op " + id.to_string());
      return it->second;
    };
  }
};

struct RunningStore {
  RunningStore() {
    runtime.start();
    runtime.call([this] { store = make_memory_op_store(runtime, make_sha256_policy()); });
  }
  ~RunningStore() {
    runtime.call([this] { store.reset(); });
    runtime.stop();
  }
  OpStoreStats stats() {
    return wait_on<OpStoreStats>(runtime, [&](auto done) { store->stats(std::move(done)); }).value();
  }
  AsioRuntime runtime;
  std::shared_ptr<OpStore> store;
};

}  // namespace kitsune2::files::test
