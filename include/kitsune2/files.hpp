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

#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/kitsune.hpp"
#include "kitsune2/op_store.hpp"
#include "kitsune2/runtime.hpp"

namespace kitsune2::files {

/// The space of all shares of a node in earlier versions of the program, where the user named none. Still served, so
/// that links of that time go on working. Whoever holds one of them can reach the others of that space.
SpaceId default_space(const AgentId& sharer);

/// Where one share lives if the user names no space: one space for each root and key, so the same content of the same
/// node has the same link. *Rationale*: nodes of one space tell each other of all their ops, so two shares in one space
/// are one share for whoever has a link to either. The id is derived from a signature by `node`'s key that is never
/// shown: nobody without that key can tell one share's space from another's, or from the content. Errors: the signer's.
Result<SpaceId> own_space(Ed25519LocalAgent& node, const OpId& root);
/// Who speaks for `node` in `space`: an agent for each space, derived from the key in the same way. So nobody sees that
/// two shares are one node's. In `default_space` it is `node` itself, as it was; elsewhere its id is not shown, because
/// that space follows from it. Errors: the signer's.
Result<std::shared_ptr<Ed25519LocalAgent>> agent_for(const std::shared_ptr<Ed25519LocalAgent>& node,
                                                     const SpaceId& space);

/// Where a shared folder is found: `kitsune2://HOST:PORT/<space>/<root op id>[?tls=1]`, both ids in URL-safe base64
/// without padding. HOST:PORT is the relay and bootstrap server. Only this spelling is accepted, but for what comes
/// along when a link is copied out of a text: white space, quotes and brackets around it, a full stop or a slash behind
/// it.
struct Link {
  std::string host;  ///< a name, an IPv4 address, or an IPv6 address without brackets
  std::uint16_t port = 0;
  bool tls = false;
  SpaceId space;  ///< 1..1024 bytes
  OpId root;      ///< 32 bytes

  /// Errc::invalid_argument naming the part that is wrong.
  static Result<Link> parse(std::string_view text);
  std::string to_string() const;
  /// "ws://host:port" or "wss://…": what NodeOptions::relay takes.
  std::string relay_url() const;

  friend bool operator==(const Link&, const Link&) = default;
};

/// Splits "host:port", with an IPv6 host in brackets. Errc::invalid_argument naming what is wrong.
Result<std::pair<std::string, std::uint16_t>> parse_host_port(std::string_view text);

/// What the root op says of a shared folder.
struct FolderSummary {
  std::uint64_t files = 0;
  std::uint64_t dirs = 0;
  std::uint64_t bytes = 0;  ///< of all files
  std::uint64_t ops = 0;    ///< references to data ops; an op that is used twice counts twice
  std::uint64_t links = 0;  ///< symbolic links
  friend bool operator==(const FolderSummary&, const FolderSummary&) = default;
};

/// Something about one path that the user should know.
struct PathIssue {
  enum class Kind {
    skipped,     ///< a kind of thing that is not shared: a link that leads out, a socket, a device, a reserved name
    unreadable,  ///< the system refused
    changed,     ///< it changed while it was read
    missing,     ///< nobody gave one of its ops
    exists,      ///< something else is at its place in the output folder
    unwritable,  ///< the system refused
  };
  Kind kind = Kind::skipped;
  std::string path;  ///< as given by the user and found below it; not escaped
  std::string reason;
  /// A symbolic link that was left out. There may be thousands: a program had better count them than print each.
  bool link = false;
};
std::string_view to_string(PathIssue::Kind kind);
/// `path` with control characters, bytes that are no UTF-8 and marks that turn the direction of writing as \xNN: safe
/// to print on a terminal.
std::string printable(std::string_view path);

// ------------------------------------------------------------------------------------------------------------ sharing

struct ShareProgress {
  std::uint64_t files = 0, dirs = 0;
  std::uint64_t bytes = 0;  ///< read so far, those of the file that is being read included
  /// What there is to read. Found by a look at all names before the first file is read; the folder may change
  /// meanwhile.
  std::uint64_t files_in_all = 0, bytes_in_all = 0;
};

struct ShareOptions {
  /// Keep modification times. Off: the same contents give the same root whenever they were written.
  bool mtime = false;
  /// Directories that are never shared, whatever they are below: the node's own data directory (its key!). A path in
  /// one of them is refused.
  std::vector<std::string> exclude;
  /// Stores whose ops are counted when they are stored here once more (`ShareReport::twice_ops`).
  std::vector<std::shared_ptr<OpStore>> elsewhere;
  /// Called for each path that is left out. On the calling thread.
  std::function<void(const PathIssue&)> issue;
  /// Called at most every 100 ms. On the calling thread.
  std::function<void(const ShareProgress&)> progress;
};

struct ShareReport {
  OpId root;
  FolderSummary folder;
  std::uint64_t ops = 0;            ///< ops that make up the share, list ops included; a repeated one counts each time
  std::uint64_t new_ops = 0;        ///< those that the store did not hold
  std::uint64_t new_bytes = 0;      ///< their bytes
  std::uint64_t different_ops = 0;  ///< as `ops`, but a repeated one counts once
  std::uint64_t twice_ops = 0;      ///< those of `new_ops` that a store of `ShareOptions::elsewhere` holds too
  std::uint64_t twice_bytes = 0;
  /// Those of `new_ops` that the store held, and that were found damaged on its disk.
  std::uint64_t repaired_ops = 0;
  std::uint64_t skipped = 0;         ///< PathIssue::Kind::skipped
  std::uint64_t links_left_out = 0;  ///< those of `skipped` that are symbolic links
  std::uint64_t failed = 0;          ///< unreadable or changed
};

/// Cuts `paths` into ops and stores them. One folder: its contents are the share's contents. Several paths, or a file:
/// each is in the share under its last name, as `cp -r` would do.
///
/// *Rules*. Same names, contents, permission bits and links give the same root id, in whatever order `paths` are.
/// Symbolic links inside are never followed. One whose target stays in the folder that was named is kept as a link, one
/// that leads out of it is reported and left out; a path that is itself a link is followed: the user named it. What
/// cannot be read is reported and left out. Memory: a few batches of ops, the names of the folders on the way down, 8
/// bytes for each op, and 32 bytes for each 256 KiB of the largest file. What the store holds already is read and
/// compared with its ids (OpStore::filter_out_intact_ops): what was damaged on the disk is stored anew. Blocks; any
/// thread but the runtime's strand.
/// Errors: Errc::invalid_argument (a path that does not exist, two paths of one name), Errc::cancelled, the store's.
Result<ShareReport> share_paths(Runtime& runtime, OpStore& store, const std::vector<std::string>& paths,
                                const ShareOptions& options, const std::stop_token& stop = {});

/// Stores anew what `store` lacks of the share `root`, or holds damaged, if `paths` still make up that share; gives how
/// many ops that were. Of `options` only `mtime` and `exclude` count. Reads every byte twice. Errors as share_paths;
/// Errc::not_found: the paths have changed since they were shared.
Result<std::uint64_t> repair_paths(Runtime& runtime, OpStore& store, const OpId& root,
                                   const std::vector<std::string>& paths, const ShareOptions& options,
                                   const std::stop_token& stop = {});

/// The same as share_paths without storing anything: tells the root that `share_paths` would give now. Reads every
/// byte.
Result<ShareReport> name_paths(const std::vector<std::string>& paths, const ShareOptions& options,
                               const std::stop_token& stop = {});

/// What `paths` hold by a look at all names, without reading a file; `ops` stays 0. Calls neither `issue` nor
/// `progress`.
Result<FolderSummary> scan_paths(const std::vector<std::string>& paths, const ShareOptions& options,
                                 const std::stop_token& stop = {});

// ----------------------------------------------------------------------------------------------------------- fetching

/// For what a fetch waits while no source answers, the first thing that is wrong.
enum class FetchWait {
  nothing,      ///< a source answers, or nothing is wanted
  connecting,   ///< to the relay, to the bootstrap server; nothing has failed yet
  relay,        ///< the relay cannot be reached
  bootstrap,    ///< the bootstrap server, which knows the sources, does not answer
  empty_space,  ///< no other node is in the space
  no_source,    ///< other nodes are in the space, but none of them offers ops
  no_answer,    ///< a source is known, but has not been heard of in the last seconds
};
std::string_view to_string(FetchWait wait);

struct FetchProgress {
  enum class Phase {
    finding,   ///< no root op yet
    fetching,  ///< ops are missing
    writing,   ///< all ops that can be had are here
  };
  Phase phase = Phase::finding;
  FolderSummary folder;        ///< zero while finding
  std::uint64_t ops_held = 0;  ///< of folder.ops
  std::uint64_t bytes_held = 0;
  std::uint64_t bytes_arriving = 0;  ///< on top: come, and not stored yet; also of an answer that is not whole yet
  std::uint64_t files_done = 0;      ///< written, or found in place
  /// Of folder.bytes: written, or found in place; of the file that is being written too.
  std::uint64_t bytes_written = 0;
  std::uint64_t fetched_ops = 0, fetched_bytes = 0;  ///< over the network, by this call, and stored
  std::uint64_t received_bytes = 0;                  ///< over the network, by this call, down to the last byte
  std::uint64_t pending = 0;                         ///< ops asked for and not here
  std::uint64_t missing = 0;                         ///< ops that every source said it lacks
  std::size_t sources = 0;                           ///< agents that offer the space
  std::size_t live_sources = 0;  ///< those heard of in the last seconds: an answer, or a part of one
  FetchWait wait = FetchWait::nothing;
  std::string wait_reason;  ///< `wait` for a user, with its cause, safe to print; empty for `nothing`
};

struct FetchOptions {
  std::string out_dir;  ///< made if missing
  /// Directories that a share must never reach: the node's own data directory. *Rationale*: a share may have files of
  /// any name, such as the rollback journal of a database.
  std::vector<std::string> exclude;
  /// Replace existing files that differ. Off: they are left alone and reported.
  bool overwrite = false;
  /// Give up when something is wanted and not one byte has come for so long, source or no source. nullopt: never.
  std::optional<std::chrono::milliseconds> timeout;
  /// Give up on ops that no source has: when all live sources were asked, do answer, and nothing came for so long.
  std::chrono::milliseconds missing_after = std::chrono::seconds(10);
  /// Most ops that are asked for at once.
  std::size_t window_ops = 20'000;
  /// How often the engine looks around: sources, pings, progress.
  std::chrono::milliseconds tick = std::chrono::milliseconds(250);
  /// The root op is here: what the share has by its own word, and what the disk of `out_dir` has room for, where that
  /// is known. Before anything else of it is fetched; on a thread of the engine, as the others.
  std::function<void(const FolderSummary&, std::optional<std::uint64_t> room)> found;
  std::function<void(const PathIssue&)> issue;         ///< on a thread of the engine, one call at a time
  std::function<void(const FetchProgress&)> progress;  ///< each tick; the same
  std::function<void(const OpId&)> missing_op;         ///< an op was given up; the same
  std::function<void(const std::string&)> notice;      ///< a line for the user (a source came, went); the same
  /// A source sent ops that do not parse or were not asked for: usually ops whose bytes are damaged, and which so have
  /// another id. Once for each source and url; the same.
  std::function<void(const Url& source)> bad_source;
};

struct FetchReport {
  FolderSummary folder;
  std::uint64_t files_written = 0;
  std::uint64_t files_kept = 0;     ///< were there, identical
  std::uint64_t files_failed = 0;   ///< missing ops, or refused by the system, or something else is there
  std::uint64_t files_unknown = 0;  ///< the list of files itself is not whole: so many are not even known by name
  std::uint64_t dirs_failed = 0;    ///< could not be made, or something else is there; not those below them
  std::uint64_t links_written = 0;
  std::uint64_t links_kept = 0;    ///< were there, with the same target
  std::uint64_t links_failed = 0;  ///< refused by the system, or something else is there
  std::uint64_t missing_ops = 0;
  std::uint64_t fetched_ops = 0, fetched_bytes = 0;
  std::uint64_t held_before_ops = 0;  ///< of folder.ops: in the store already, not asked for
  std::uint64_t damaged_ops = 0;      ///< found damaged in the store, and asked for again
  bool complete() const { return files_failed == 0 && files_unknown == 0 && dirs_failed == 0 && links_failed == 0; }
};

/// What both sides put into `NodeOptions::handler`: answers the liveness questions of fetchers ("are you there?") and
/// hears the answers. *Rationale*: the fetch protocol is silent about ops that are not held, so silence alone cannot
/// tell a dead source from one that lacks an op. Refuses all ops that peers offer by themselves: neither a sharer nor a
/// fetcher takes in what it did not ask for. Messages: docs/file-format.md. Strand only, but for `make`.
class FilesHandler : public KitsuneHandler {
 public:
  static std::shared_ptr<FilesHandler> make();
  /// Only the spaces of these calls may be made, by whomever: a stranger's message must not make databases.
  virtual void allow_space(SpaceId space) = 0;
  /// One more space to answer in, an allowed one; `ping` asks in the last one. Null: answers in no space any more.
  virtual void attach(std::shared_ptr<Space> space) = 0;
  /// Calls back for each answer to `ping`. Empty: none.
  virtual void on_pong(std::function<void(const Url& from)> callback) = 0;
  /// Asks `peer` whether it is there. `finished`: the question left, or could not be sent.
  virtual void ping(const Url& peer, std::function<void()> finished) = 0;
};

/// Fetches the share `root` and writes it to `out_dir`. Sources: all agents of the space with a url and a storage arc
/// that is not empty, but `self`. Goes on for ever while there is none, unless `timeout` says otherwise.
///
/// *Rules*. F1: nothing is asked for that the store holds; so a call after a kill resumes. F2: at most `window_ops` are
/// pending at once, however large the share. F3: a file appears under its name only when it is whole, verified by hash,
/// and on disk (written to a temporary name in its folder, synced in groups, renamed). F4: no path of the share leaves
/// `out_dir`, symbolic links that are there included. F5: an existing identical file is kept. F6: an op that no source
/// has holds up nothing but the files that need it. F7: permission bits are the share's less the process's umask; bits
/// beyond rwxrwxrwx are never set. What is there already only loses permissions, unless `overwrite`. F8: links are made
/// when all files are written, and folders get their bits last; no link of a share leads out of `out_dir`. F9: `stop`
/// is looked at before each piece of work, however much of it is left; what is unfinished in `out_dir` is removed, what
/// is stored stays. F10: `out_dir` and the folders of `exclude` never overlap, by device and inode:
/// Errc::invalid_argument, before anything is made. F11: when it has returned, the names of all that was written are
/// durable, not only the contents. F12: a share costs no more than its different ops justify: memory does not depend
/// on what it says of itself, the list of files may have 64 MiB and 32 times the bytes of all ops that are held of the
/// space, the files 16 GiB and 1,024 times these bytes (Errc::malformed); and what the disk has no room for is not
/// begun (Errc::disk_full). F13: an op that is found damaged in the store is fetched again, like one that was never
/// held. Blocks; any thread but the strand. Errors: Errc::cancelled (stopped), Errc::timed_out, Errc::malformed (the
/// share is nonsense), Errc::disk_full, Errc::corrupt, Errc::io. What concerns single files is in the report, not an
/// error.
Result<FetchReport> fetch_files(Runtime& runtime, const std::shared_ptr<Space>& space,
                                const std::shared_ptr<FilesHandler>& handler, const AgentId& self, const OpId& root,
                                const FetchOptions& options, const std::stop_token& stop = {});

}  // namespace kitsune2::files
