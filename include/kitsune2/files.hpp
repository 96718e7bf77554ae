// Folders as ops: links, sharing and fetching. `kitsune2 share` and `kitsune2 fetch` are built on this.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "kitsune2/dialect.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/kitsune.hpp"
#include "kitsune2/op_store.hpp"
#include "kitsune2/runtime.hpp"

namespace kitsune2::files {

/// The space that earlier versions of the program used for all shares of a node, unless the user named one. Still
/// served, so that old links keep working. Whoever has one of them can reach the other shares in that space.
SpaceId default_space(const AgentId& sharer);

/// The space of one share, unless the user names one. There is one space for each root and key, so the same content of
/// the same node keeps its link. *Rationale*: nodes of a space tell each other of all their ops, so a link to one share
/// of a space would give access to its other shares. The id is derived from a signature by `node`'s key that is never
/// shown: without that key nobody can relate the spaces of two shares, or a space and its content. Errors: the
/// signer's.
Result<SpaceId> own_space(Ed25519LocalAgent& node, const OpId& root);
/// The agent of `node` in `space`, derived from the key in the same way, so that nobody sees that two shares belong to
/// one node. In `default_space` it is `node` itself, as before; elsewhere `node`'s id is not shown, because that space
/// follows from it. Errors: the signer's.
Result<std::shared_ptr<Ed25519LocalAgent>> agent_for(const std::shared_ptr<Ed25519LocalAgent>& node,
                                                     const SpaceId& space);

/// The address of a shared folder: `kitsune2://HOST:PORT/<space>/<root op id>[?tls=1][,relay=PATH][,network=DIALECT]`,
/// both ids in URL-safe base64 without padding. HOST:PORT is the relay and bootstrap server. Without `network` the
/// share is in dialect 0.2; `relay` is left out for the path that a server of ours has. No other spelling is accepted,
/// except that `&` may stand for a comma, and that what is often copied along with a link is ignored: white space,
/// quotes and brackets around it, a full stop or a slash after it.
struct Link {
  std::string host;  ///< a name, an IPv4 address, or an IPv6 address without brackets
  std::uint16_t port = 0;
  bool tls = false;
  SpaceId space;  ///< 1..1024 bytes
  OpId root;      ///< 32 bytes
  Dialect network = Dialect::v0_2;
  /// The path of an iroh relay, without slashes around it. No part of the address of others.
  std::string relay_path = std::string(kRelayPath);

  static constexpr std::string_view kRelayPath = "relay";

  /// Errc::invalid_argument names the part that is wrong.
  static Result<Link> parse(std::string_view text);
  std::string to_string() const;
  /// "ws://host:port" or "wss://…", with iroh "http://host:port/path": what NodeOptions::relay takes.
  std::string relay_url() const;

  friend bool operator==(const Link&, const Link&) = default;
};

/// Splits "host:port", with an IPv6 host in brackets. Errc::invalid_argument says what is wrong.
Result<std::pair<std::string, std::uint16_t>> parse_host_port(std::string_view text);

/// What the root op says about a shared folder.
struct FolderSummary {
  std::uint64_t files = 0;
  std::uint64_t dirs = 0;
  std::uint64_t bytes = 0;  ///< of all files
  std::uint64_t ops = 0;    ///< references to data ops; an op that is used twice counts twice
  std::uint64_t links = 0;  ///< symbolic links
  friend bool operator==(const FolderSummary&, const FolderSummary&) = default;
};

/// A problem with one path, for the user to know.
struct PathIssue {
  enum class Kind {
    skipped,     ///< not shared by its kind: a link out of the folder, a socket, a device, a reserved name
    unreadable,  ///< the system refused to read it
    changed,     ///< it changed while it was being read
    missing,     ///< no source has one of its ops
    exists,      ///< something else is in its place in the output folder
    unwritable,  ///< the system refused to write it
  };
  Kind kind = Kind::skipped;
  std::string path;  ///< as the user gave it, and found below it; not escaped
  std::string reason;
  /// It is a symbolic link that was left out. There may be thousands, so count them rather than print each.
  bool link = false;
};
std::string_view to_string(PathIssue::Kind kind);
/// Returns `path` with control characters, invalid UTF-8 and marks that change the direction of writing as \xNN, so
/// that it is safe to print on a terminal.
std::string printable(std::string_view path);

// ------------------------------------------------------------------------------------------------------------ sharing

struct ShareProgress {
  std::uint64_t files = 0, dirs = 0;
  std::uint64_t bytes = 0;  ///< read so far, including the file that is being read
  /// The total to read, determined by a scan of all names before the first file is read. The folder may change
  /// meanwhile.
  std::uint64_t files_in_all = 0, bytes_in_all = 0;
};

struct ShareOptions {
  /// Keep modification times. False: the same contents give the same root whenever they were written.
  bool mtime = false;
  /// Directories that are never shared, even within a shared folder: the node's own data directory (with its key). A
  /// path inside one of them is refused.
  std::vector<std::string> exclude;
  /// Stores to compare with: new ops that one of them holds too are counted (`ShareReport::twice_ops`).
  std::vector<std::shared_ptr<OpStore>> elsewhere;
  /// Called on the calling thread for each path that is left out.
  std::function<void(const PathIssue&)> issue;
  /// Called on the calling thread, at most every 100 ms.
  std::function<void(const ShareProgress&)> progress;
};

struct ShareReport {
  OpId root;
  FolderSummary folder;
  std::uint64_t ops = 0;            ///< ops of the share, list ops included; a repeated one counts each time
  std::uint64_t new_ops = 0;        ///< those that the store did not hold before
  std::uint64_t new_bytes = 0;      ///< bytes of `new_ops`
  std::uint64_t different_ops = 0;  ///< like `ops`, but a repeated op counts once
  std::uint64_t twice_ops = 0;      ///< those of `new_ops` that a store of `ShareOptions::elsewhere` also holds
  std::uint64_t twice_bytes = 0;
  /// Those of `new_ops` that the store held in a damaged form.
  std::uint64_t repaired_ops = 0;
  std::uint64_t skipped = 0;         ///< PathIssue::Kind::skipped
  std::uint64_t links_left_out = 0;  ///< those of `skipped` that are symbolic links
  std::uint64_t failed = 0;          ///< unreadable or changed
};

/// Cuts `paths` into ops and stores them. The contents of a single folder become the contents of the share. Of several
/// paths, or a file, each is in the share under its last name, as with `cp -r`.
///
/// *Rules*. The same names, contents, permission bits and links give the same root id, in whatever order the paths are
/// given. Symbolic links inside a folder are never followed: one whose target is inside the given folder is kept as a
/// link; one that leads out of it is reported and left out. A path that is a link itself is followed, because the user
/// named it. Whatever cannot be read is reported and left out. Ops that the store already holds are read and checked
/// (OpStore::filter_out_intact_ops), and damaged ones are stored again. Memory: a few batches of ops, the names of the
/// folders on the way down, 8 bytes per op, and 32 bytes per 256 KiB of the largest file. Blocks; must not be called on
/// the strand.
/// Errors: Errc::invalid_argument (a path does not exist, two paths have the same name), Errc::cancelled, the store's.
Result<ShareReport> share_paths(Runtime& runtime, OpStore& store, const std::vector<std::string>& paths,
                                const ShareOptions& options, const std::stop_token& stop = {});

/// If `paths` still make up the share `root`, stores the ops of it that `store` lacks or holds damaged, and returns
/// their number. Uses only `mtime` and `exclude` of `options`. Reads every byte twice. Errors: those of share_paths;
/// Errc::not_found: the paths have changed since they were shared.
Result<std::uint64_t> repair_paths(Runtime& runtime, OpStore& store, const OpId& root,
                                   const std::vector<std::string>& paths, const ShareOptions& options,
                                   const std::stop_token& stop = {});

/// Like share_paths, but stores nothing: returns the root that `share_paths` would give now. Reads every
/// byte.
Result<ShareReport> name_paths(const std::vector<std::string>& paths, const ShareOptions& options,
                               const std::stop_token& stop = {});

/// Returns what `paths` contain, from a scan of all names that reads no file; `ops` stays 0. Calls neither `issue` nor
/// `progress`.
Result<FolderSummary> scan_paths(const std::vector<std::string>& paths, const ShareOptions& options,
                                 const std::stop_token& stop = {});

// ----------------------------------------------------------------------------------------------------------- fetching

/// What a fetch is waiting for while no source answers: the first thing that is wrong.
enum class FetchWait {
  nothing,      ///< a source answers, or nothing is requested
  connecting,   ///< to the relay or the bootstrap server; nothing has failed yet
  relay,        ///< the relay cannot be reached
  bootstrap,    ///< the bootstrap server, which knows the sources, does not answer
  empty_space,  ///< no other node is in the space
  no_source,    ///< other nodes are in the space, but none of them offers ops
  no_answer,    ///< a source is known, but was not heard from in the last seconds
};
std::string_view to_string(FetchWait wait);

struct FetchProgress {
  enum class Phase {
    finding,   ///< the root op has not arrived
    fetching,  ///< ops are missing
    writing,   ///< all available ops have arrived
  };
  Phase phase = Phase::finding;
  FolderSummary folder;        ///< zero while finding
  std::uint64_t ops_held = 0;  ///< those of folder.ops that are held
  std::uint64_t bytes_held = 0;
  std::uint64_t bytes_arriving = 0;  ///< arrived in addition and not stored yet, including parts of unfinished answers
  std::uint64_t files_done = 0;      ///< written, or found in place
  /// Those of folder.bytes that were written or found in place, including the file that is being written.
  std::uint64_t bytes_written = 0;
  std::uint64_t fetched_ops = 0, fetched_bytes = 0;  ///< fetched over the network by this call, and stored
  std::uint64_t received_bytes = 0;                  ///< received over the network by this call, every byte
  std::uint64_t pending = 0;                         ///< ops requested that have not arrived
  std::uint64_t missing = 0;                         ///< ops that every source said it lacks
  std::size_t sources = 0;                           ///< agents that offer the space
  std::size_t live_sources = 0;  ///< those heard from in the last seconds, with an answer or a part of one
  FetchWait wait = FetchWait::nothing;
  std::string wait_reason;  ///< `wait` and its cause in words for a user, safe to print; empty for `nothing`
};

struct FetchOptions {
  std::string out_dir;  ///< created if it does not exist
  /// Directories that a share must never reach: the node's own data directory. *Rationale*: a share may contain files
  /// of any name, such as the rollback journal of a database.
  std::vector<std::string> exclude;
  /// Replace existing files that differ. False: they are left alone and reported.
  bool overwrite = false;
  /// Give up if ops are wanted and not a single byte arrived for this long, with or without sources. nullopt: never.
  std::optional<std::chrono::milliseconds> timeout;
  /// Give up on ops that no source has: all live sources were asked, they do answer, and nothing arrived for this long.
  std::chrono::milliseconds missing_after = std::chrono::seconds(10);
  /// The most ops that are requested at the same time.
  std::size_t window_ops = 20'000;
  /// How often the engine checks sources, sends pings and reports progress.
  std::chrono::milliseconds tick = std::chrono::milliseconds(250);
  /// Called when the root op has arrived, before anything else of the share is fetched: what the share claims to
  /// contain, and the free space of `out_dir`'s disk if it is known. Called on a thread of the engine, like the others.
  std::function<void(const FolderSummary&, std::optional<std::uint64_t> room)> found;
  std::function<void(const PathIssue&)> issue;         ///< called on a thread of the engine, one call at a time
  std::function<void(const FetchProgress&)> progress;  ///< each tick; called in the same way
  std::function<void(const OpId&)> missing_op;         ///< an op was given up; called in the same way
  std::function<void(const std::string&)> notice;      ///< a line for the user (a source came or went); in the same way
  /// A source sent ops that do not parse or were not requested: usually ops with damaged bytes, which therefore have
  /// another id. Called once for each source and url, in the same way.
  std::function<void(const Url& source)> bad_source;
};

struct FetchReport {
  FolderSummary folder;
  std::uint64_t files_written = 0;
  std::uint64_t files_kept = 0;     ///< existed already, identical
  std::uint64_t files_failed = 0;   ///< ops are missing, the system refused, or something else is in the file's place
  std::uint64_t files_unknown = 0;  ///< files whose names are not known, because the list of files is incomplete
  std::uint64_t dirs_failed = 0;    ///< the system refused, or something else is in the place; not counting those below
  std::uint64_t links_written = 0;
  std::uint64_t links_kept = 0;    ///< existed already, with the same target
  std::uint64_t links_failed = 0;  ///< the system refused, or something else is in the place
  std::uint64_t missing_ops = 0;
  std::uint64_t fetched_ops = 0, fetched_bytes = 0;
  std::uint64_t held_before_ops = 0;  ///< those of folder.ops that were in the store already and were not requested
  std::uint64_t damaged_ops = 0;      ///< found damaged in the store, and requested again
  bool complete() const { return files_failed == 0 && files_unknown == 0 && dirs_failed == 0 && links_failed == 0; }
};

/// The handler for both sides, to be passed in `NodeOptions::handler`. Answers the liveness questions of fetchers ("are
/// you there?") and receives the answers. *Rationale*: the fetch protocol is silent about ops that are not held, so
/// silence alone cannot tell a dead source from one that lacks an op. Refuses all ops that peers offer, unless it is
/// told otherwise: a share is what its link says, so neither a sharer nor a fetcher accepts ops that it did not
/// request. A mirror does. Messages: docs/file-format.md. Strand only, except `make`.
class FilesHandler : public KitsuneHandler {
 public:
  static std::shared_ptr<FilesHandler> make();
  /// Allows a space to be made. No other spaces can be, so that no message of a stranger creates databases.
  virtual void allow_space(SpaceId space) = 0;
  /// Adds an allowed space in which to answer; `ping` asks in the last one added. Null: answers in no space any more.
  virtual void attach(std::shared_ptr<Space> space) = 0;
  /// Whether ops that peers offer are accepted from now on, in all spaces. What was accepted before still comes.
  virtual void accept_offers(bool accept) = 0;
  /// Sets the function that is called for each answer to `ping`. Empty: none.
  virtual void on_pong(std::function<void(const Url& from)> callback) = 0;
  /// Asks `peer` whether it is there. `finished` is called when the question has left, or could not be sent.
  virtual void ping(const Url& peer, std::function<void()> finished) = 0;
};

/// Fetches the share `root` and writes it to `out_dir`. The sources are all agents of the space that have a url and a
/// storage arc that is not empty, except `self`. Waits for a source for ever, unless `timeout` says otherwise.
///
/// *Rules*.
///  F1  Nothing that the store holds is requested, so a call after a kill resumes.
///  F2  At most `window_ops` are pending at a time, however large the share.
///  F3  A file appears under its name only when it is complete, verified by hash, and on disk (written to a temporary
///      name in its folder, synced in groups, renamed).
///  F4  No path of the share leaves `out_dir`, not even through symbolic links that exist there.
///  F5  An existing identical file is kept.
///  F6  An op that no source has delays only the files that need it.
///  F7  Permission bits are the share's less the process's umask; bits beyond rwxrwxrwx are never set. Existing files
///      only lose permissions, unless `overwrite` is set.
///  F8  Links are created after all files are written, and folders get their bits last. No link of a share leads out of
///      `out_dir`.
///  F9  `stop` is checked before each piece of work. What is unfinished in `out_dir` is removed; what is stored stays.
///  F10 `out_dir` and the folders of `exclude` must not overlap, by device and inode; otherwise Errc::invalid_argument,
///      before anything is created.
///  F11 When the call has returned, the names of everything written are durable, not only the contents.
///  F12 A share costs no more than its different ops justify. Memory does not depend on what the share claims. The list
///      of files may have 64 MiB plus 32 times the bytes of all ops held of the space, the files 16 GiB plus 1,024
///      times these bytes (Errc::malformed). A share for which the disk has no room is not begun (Errc::disk_full).
///  F13 An op found damaged in the store is fetched again, like one that was never held.
///
/// Blocks; must not be called on the strand. Errors: Errc::cancelled (stopped), Errc::timed_out, Errc::malformed (the
/// share is invalid), Errc::disk_full, Errc::corrupt, Errc::io. Problems of single files are in the report and are not
/// errors.
Result<FetchReport> fetch_files(Runtime& runtime, const std::shared_ptr<Space>& space,
                                const std::shared_ptr<FilesHandler>& handler, const AgentId& self, const OpId& root,
                                const FetchOptions& options, const std::stop_token& stop = {});

}  // namespace kitsune2::files
