// Opens and closes the files of an op store. The rules are in the header.
#include "store/sqlite/op_files.hpp"

#include <sys/stat.h>

#include <utility>

#include "store/sqlite/op_schema.hpp"

namespace kitsune2::sqlite {

OpFiles::OpFiles(const Environment& environment, const OpPolicy& policy, const SpaceId& space, std::string path,
                 const SqliteOpStoreOptions& options)
    : vfs_(environment.vfs),
      merge_rules_(environment.merge_rules),
      blocks_(environment.blocks),
      sums_rules_(environment.sums_rules),
      least_large_bytes_(environment.least_large_bytes),
      policy_(policy),
      space_(space),
      path_(std::move(path)),
      options_(options) {}

Result<void> OpFiles::check_owner(const SqliteOpStoreInfo& info) const {
  if (info.space == space_ && info.policy == policy_.name()) return {};
  return make_error(Errc::already_exists, path_ + ": this store is of space " + info.space.to_string() +
                                              " and policy " + info.policy + ", not of " + space_.to_string() +
                                              " and " + std::string(policy_.name()));
}

/// `for_new`: null if there must be a store.
Result<void> OpFiles::open_connections(const Format* for_new) {
  auto shelf = std::make_shared<runs::RunShelf>();
  std::shared_ptr<GatherVfs> vfs;
  std::optional<OpWriter> writer;
  if (!options_.read_only) {
    vfs = std::make_shared<GatherVfs>(vfs_);
    auto opened = OpWriter::open(path_, {.max_database_bytes = options_.max_database_bytes,
                                         .vfs = vfs,
                                         .policy = &policy_,
                                         .for_new = for_new,
                                         .merge_rules = merge_rules_,
                                         .blocks = blocks_,
                                         .shelf = shelf,
                                         .sums_rules = sums_rules_,
                                         .least_large_bytes = least_large_bytes_});
    if (!opened) return opened.error();
    writer = std::move(*opened);
    if (for_new != nullptr) {
      if (auto ok = writer->bind_to(space_, policy_.name()); !ok) return ok;
    }
  }
  auto reader = OpReader::open(path_, options_.read_only, vfs ? vfs->name() : vfs_, &policy_,
                               {merge_rules_, blocks_, std::move(shelf)});
  if (!reader) return reader.error();
  if (for_new == nullptr) {
    const auto info = reader->info();
    if (!info) return info.error();
    if (auto ok = check_owner(*info); !ok) return ok;
  }
  shared_vfs_ = std::move(vfs);
  writer_ = std::move(writer);
  reader_ = std::move(*reader);
  return {};
}

Result<void> OpFiles::open() {
  if (options_.read_only) {
    const auto state = inspect_file(path_);
    if (!state) return state.error();
    if (*state != FileState::present) return make_error(Errc::not_found, path_ + ": there is no op store");
    return open_connections(nullptr);
  }
  if (is_ours()) {
    auto taken = FileLock::take(path_);
    if (!taken) return taken.error();
    lock_ = std::move(*taken);
    const auto state = inspect_file(path_);
    if (!state) return state.error();
    if (*state == FileState::missing) {
      if (auto ok = create_file(path_); !ok) return ok;
    }
  }
  return open_connections(options_.index_in_runs ? &kRunsFormat : &kTablesFormat);
}

Result<void> OpFiles::open_again() {
  if (is_open()) return {};
  const auto open_it = [&]() -> Result<void> {
    if (!is_ours()) return open_connections(nullptr);
    if (auto ok = lock_->take_again(path_); !ok) return ok;
    const auto state = inspect_file(path_);
    if (!state) return state.error();
    if (*state != FileState::present) {
      return make_error(Errc::not_found,
                        path_ + ": the store is not there any more; it was moved or removed meanwhile");
    }
    const bool same = mark() == mark_;
    auto ok = open_connections(nullptr);
    changed_ = changed_ || (ok && !same);
    return ok;
  };
  auto ok = open_it();
  if (!ok && lock_) lock_->rest();
  return ok;
}

bool OpFiles::close_for_now() {
  if (!is_open()) return true;
  if (!writer_->clear_wal()) return false;
  reader_.reset();
  writer_.reset();
  shared_vfs_.reset();
  if (lock_) {
    mark_ = mark();
    lock_->rest();
  }
  return true;
}

void OpFiles::close() {
  reader_.reset();
  writer_.reset();  // the last one to close copies the WAL: it knows whether that is allowed
  shared_vfs_.reset();
  lock_.reset();
}

OpFiles::Mark OpFiles::mark() const {
  struct stat info {};
  if (::stat(path_.c_str(), &info) != 0) return {};
  return {info.st_ino, info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
}

}  // namespace kitsune2::sqlite
