// A small valid database that each execution of a target damages, by edits of its file or by rows from the input.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "fuzz/damage.hpp"
#include "fuzz/fuzz.hpp"
#include "fuzz/scratch.hpp"
#include "store/sqlite/db.hpp"

namespace kitsune2::fuzz {

class SmallDb {
 public:
  explicit SmallDb(const std::string& name) : path_(scratch_.path(name)) {}

  const std::string& path() const { return path_; }

  /// Makes the file at the path the valid file. Its pages become small, so that an edit at a random position hits
  /// something (in the first 64 KiB).
  void keep(std::size_t most_bytes = 65'536) {
    auto c = open();
    K2_ASSERT(c.run("PRAGMA journal_mode=DELETE; PRAGMA page_size=512; VACUUM; PRAGMA journal_mode=WAL").has_value());
    c.run("PRAGMA wal_checkpoint(TRUNCATE)").value();
    c = open();
    file_ = read_file(path_);
    K2_ASSERT(file_.size() < most_bytes);
  }

  /// Restores the valid file and damages it. Input: one byte of kind; even: edits (damage.hpp); odd: what
  /// `put_rows(connection, input)` makes of it.
  template <class PutRows>
  void damage(const Bytes& input, PutRows put_rows) const {
    for (const char* beside : {"-wal", "-shm", "-data"}) std::filesystem::remove(path_ + beside);
    const Bytes rest = input.slice(1);
    if (input[0] % 2 == 0) {
      write_file(path_, ByteView(damaged(file_, rest)));
    } else {
      write_file(path_, ByteView(file_));
      auto c = open();
      put_rows(c, rest);
    }
  }

 private:
  sqlite::Connection open() const {
    auto c = sqlite::Connection::open(path_, sqlite::Connection::Mode::write);
    K2_ASSERT(c.has_value());
    return std::move(*c);
  }

  Scratch scratch_;
  std::string path_;
  std::vector<std::uint8_t> file_;
};

}  // namespace kitsune2::fuzz
