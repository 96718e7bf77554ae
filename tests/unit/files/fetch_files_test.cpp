// The engine of a fetch over real modules: nodes of one process on a memory network.
#include <array>
#include <atomic>
#include <set>
#include <thread>

#include "files/wants.hpp"
#include "kitsune2/builder.hpp"
#include "kitsune2/testing/waiters.hpp"
#include "kitsune2/transport_memory.hpp"
#include "unit/files/files_harness.hpp"

namespace kitsune2::files {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using test::noise;
using test::snapshot;
using test::TempDir;

const SpaceId kSpace = SpaceId::from_text("test");

/// A node: runtime, modules, one agent.
class TestNode {
 public:
  TestNode(std::shared_ptr<MemoryNetwork> network, const std::string& test_id, const std::string& name,
           std::shared_ptr<const OpPolicy> policy = nullptr) {
    Builder builder = default_test_builder(std::move(network), name, std::move(policy));
    builder.config.mem_bootstrap.test_id = test_id;
    builder.config.mem_bootstrap.poll_freq_ms = 20;
    builder.config.core_fetch.re_insert_outgoing_request_delay_ms = 100;
    builder.config.core_fetch.first_back_off_interval_ms = 50;
    builder.config.core_fetch.last_back_off_interval_ms = 200;
    runtime.start();
    handler = FilesHandler::make();
    runtime.call([&] {
      handler->allow_space(kSpace);
      kitsune = builder.build(runtime).value();
      EXPECT_TRUE(kitsune->register_handler(handler));
    });
    space =
        wait_on<std::shared_ptr<Space>>(runtime, [&](auto done) { kitsune->space(kSpace, std::move(done)); }).value();
    runtime.call([&] { handler->attach(space); });
  }
  ~TestNode() {
    if (!stopped_) stop();
  }
  void stop() {
    stopped_ = true;
    static_cast<void>(wait_on<void>(runtime, [&](auto done) { kitsune->stop([done] { done(Result<void>()); }); }));
    runtime.call([&] {
      handler->attach(nullptr);
      space.reset();
      kitsune.reset();
    });
    runtime.stop();
  }
  void join(DhtArc arc) {
    static_cast<void>(wait_on<void>(runtime, [&](auto done) {
      agent->set_cur_storage_arc(arc);
      agent->set_tgt_storage_arc(arc);
      space->local_agent_join(agent, std::move(done));
    }));
  }
  Result<FetchReport> fetch(const OpId& root, const FetchOptions& options, const std::stop_token& token = {}) {
    return fetch_files(runtime, space, handler, agent->agent(), root, options, token);
  }
  void store(const std::map<OpId, Bytes>& ops) {
    std::vector<Bytes> payloads;
    for (const auto& [id, bytes] : ops) payloads.push_back(bytes);
    auto done = wait_on<ProcessedOps>(
        runtime, [&](auto handler_) { space->op_store().process_incoming_ops(payloads, std::move(handler_)); });
    ASSERT_TRUE(done);
  }
  std::uint64_t served() {
    std::uint64_t out = 0;
    runtime.call([&] { out = space->fetch().stats().ops_served; });
    return out;
  }

  AsioRuntime runtime;
  std::shared_ptr<FilesHandler> handler;
  std::shared_ptr<Kitsune> kitsune;
  std::shared_ptr<Space> space;
  std::shared_ptr<Ed25519LocalAgent> agent = Ed25519LocalAgent::generate();

 private:
  bool stopped_ = false;
};

/// A store with damaged bytes: these bytes are stored under the ids of others.
class DamagedPolicy : public OpPolicy {
 public:
  DamagedPolicy(Bytes damaged, OpId id) : damaged_(std::move(damaged)), id_(std::move(id)) {}
  Result<OpDescription> describe(ByteView op) const override {
    auto described = sha256_->describe(op);
    if (described && as_text(op) == damaged_.text()) described->op_id = id_;
    return described;
  }
  std::string_view name() const override { return sha256_->name(); }

 private:
  const Bytes damaged_;
  const OpId id_;
  const std::shared_ptr<const OpPolicy> sha256_ = make_sha256_policy();
};

class FetchFiles : public ::testing::Test {
 protected:
  std::unique_ptr<TestNode> node(std::shared_ptr<const OpPolicy> policy = nullptr) {
    return std::make_unique<TestNode>(network_, ::testing::UnitTest::GetInstance()->current_test_info()->name(),
                                      "n" + std::to_string(++nodes_), std::move(policy));
  }
  /// All ops of a share of `from`, by id.
  std::map<OpId, Bytes> ops_of(const std::string& from, OpId& root) {
    test::RunningStore scratch;
    auto report = share_paths(scratch.runtime, *scratch.store, {from}, {});
    EXPECT_TRUE(report);
    root = report->root;
    std::map<OpId, Bytes> out;
    auto ids = wait_on<OpIdsInSlice>(scratch.runtime, [&](auto done) {
      scratch.store->retrieve_op_hashes_in_time_slice(DhtArc::full(), Timestamp::min(), Timestamp::max(),
                                                      std::move(done));
    });
    auto held = retrieve_held(scratch.runtime, *scratch.store, ids->op_ids);
    for (auto& op : *held) out.emplace(op.op_id, op.op_data);
    return out;
  }
  std::unique_ptr<TestNode> sharer(const std::map<OpId, Bytes>& ops) {
    auto out = node();
    out->store(ops);
    out->join(DhtArc::full());
    return out;
  }
  FetchOptions options() {
    FetchOptions out;
    out.out_dir = out_.str("out");
    out.tick = 10ms;
    out.missing_after = 400ms;
    out.issue = [this](const PathIssue& issue) { issues_.emplace(issue.path, std::string(to_string(issue.kind))); };
    out.missing_op = [this](const OpId& id) { missing_.insert(id); };
    return out;
  }
  void fill() {
    from_.write("a/empty", "");
    from_.write("a/small", "hello");
    from_.write("b/large", noise(5 * kChunkBytes + 77, 1));
    from_.write("b/zeros", std::string(4 * kChunkBytes, '\0'));  // one op, four times
    for (int i = 0; i < 40; ++i) from_.write("many/" + std::to_string(i), noise(10'000, 10 + i));
    fs::create_directories(from_.path() / "nothing" / "in here");
    fs::permissions(from_.path() / "a/small", fs::perms::owner_exec, fs::perm_options::add);
  }

  std::shared_ptr<MemoryNetwork> network_ = MemoryNetwork::create();
  TempDir from_, out_;
  std::map<std::string, std::string> issues_;
  std::set<OpId> missing_;
  int nodes_ = 0;
};

/// A share with one file: `count` times the same chunk.
OpId share_of_one_file(test::OpMap& share, const std::string& chunk, std::uint64_t count, std::uint8_t chunk_log2) {
  const OpId op = share.put()(Bytes::copy_of(chunk)).value();
  FileHead head;
  head.name = "one";
  head.size = count * chunk.size();
  std::vector<std::uint8_t> manifest;
  ManifestEncoder::begin(manifest);
  ManifestEncoder::file(manifest, head, std::vector<OpId>(count, op));
  ManifestEncoder::dir_end(manifest);
  TreeWriter tree(share.put(), chunk_log2);
  EXPECT_TRUE(tree.write(manifest));
  RootOp root;
  root.chunk_log2 = chunk_log2;
  root.top = tree.finish().value();
  root.manifest_bytes = tree.bytes();
  root.folder = FolderSummary{1, 0, head.size, count};
  return share.put()(root.encode()).value();
}

TEST_F(FetchFiles, WholeFolderAndOnceMore) {
  fill();
  OpId root;
  const auto ops = ops_of(from_.str(), root);
  auto source = sharer(ops);
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  auto report = fetcher->fetch(root, options());
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_TRUE(report->complete());
  EXPECT_EQ(report->files_written, 44U);
  EXPECT_EQ(report->fetched_ops, ops.size());
  EXPECT_EQ(report->held_before_ops, 0U);
  EXPECT_EQ(snapshot(out_.path() / "out"), snapshot(from_.path()));
  EXPECT_TRUE(issues_.empty());

  auto again = fetcher->fetch(root, options());
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(again->fetched_ops, 0U);
  EXPECT_EQ(again->files_kept, 44U);
  EXPECT_EQ(again->files_written, 0U);
  EXPECT_EQ(again->held_before_ops, again->folder.ops);
}

TEST_F(FetchFiles, HeldOpsAreNotFetchedAgain) {
  fill();
  OpId root;
  const auto ops = ops_of(from_.str(), root);
  auto source = sharer(ops);
  auto fetcher = node();
  std::map<OpId, Bytes> half;
  for (const auto& [id, bytes] : ops) {
    if (id.view()[0] % 2 == 0) half.emplace(id, bytes);
  }
  ASSERT_GT(half.size(), 2U);
  ASSERT_LT(half.size(), ops.size());
  fetcher->store(half);
  fetcher->join(DhtArc::none());
  auto report = fetcher->fetch(root, options());
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_EQ(report->fetched_ops, ops.size() - half.size());
  EXPECT_EQ(snapshot(out_.path() / "out"), snapshot(from_.path()));
}

TEST_F(FetchFiles, SourcesThatHaveHalfEach) {
  fill();
  OpId root;
  const auto ops = ops_of(from_.str(), root);
  std::map<OpId, Bytes> one, two;
  for (const auto& [id, bytes] : ops) (id.view()[1] % 2 == 0 ? one : two).emplace(id, bytes);
  auto first = sharer(one), second = sharer(two);
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  auto report = fetcher->fetch(root, options());
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_EQ(report->fetched_ops, ops.size());
  EXPECT_EQ(snapshot(out_.path() / "out"), snapshot(from_.path()));
  EXPECT_TRUE(missing_.empty());
}

TEST_F(FetchFiles, MissingOpsDelayOnlyTheirFiles) {
  fill();
  OpId root;
  auto ops = ops_of(from_.str(), root);
  const OpId lost = op_id_of(as_bytes(std::string_view(from_.read("b/large")).substr(kChunkBytes, kChunkBytes)));
  ASSERT_EQ(ops.erase(lost), 1U);
  auto source = sharer(ops);
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  auto report = fetcher->fetch(root, options());
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_FALSE(report->complete());
  EXPECT_EQ(report->missing_ops, 1U);
  EXPECT_EQ(report->files_failed, 1U);
  EXPECT_EQ(report->files_written, 43U);
  EXPECT_EQ(missing_, std::set<OpId>{lost});
  EXPECT_EQ(issues_, (std::map<std::string, std::string>{{"b/large", "missing"}}));
  auto expected = snapshot(from_.path());
  expected.erase("b/large");
  EXPECT_EQ(snapshot(out_.path() / "out"), expected);
}

TEST_F(FetchFiles, AllOpsOfTheFilesMissing) {
  // The source holds none of the requested ops and so never answers: the pings show that it is there.
  fill();
  OpId root;
  auto ops = ops_of(from_.str(), root);
  const RootOp decoded = RootOp::decode(ops.at(root)).value();
  auto source = sharer({{root, ops.at(root)}, {decoded.top, ops.at(decoded.top)}});
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  auto report = fetcher->fetch(root, options());
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_EQ(report->missing_ops, ops.size() - 2);
  EXPECT_EQ(report->files_written, 1U);  // the empty one
  EXPECT_EQ(report->files_failed, 43U);
}

TEST_F(FetchFiles, PartOfTheListMissing) {
  for (int i = 0; i < 2000; ++i) {
    std::string name = std::to_string(10'000 + i);
    from_.write(name + std::string(200, 'n'), "");
  }
  OpId root;
  auto ops = ops_of(from_.str(), root);
  const RootOp decoded = RootOp::decode(ops.at(root)).value();
  const auto chunks = decode_list(ops.at(decoded.top), 1, decoded.chunk_log2, decoded.manifest_bytes).value();
  ASSERT_EQ(chunks.size(), 2U);
  ops.erase(chunks[1]);
  auto source = sharer(ops);
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  auto report = fetcher->fetch(root, options());
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_FALSE(report->complete());
  EXPECT_GT(report->files_written, 1000U);
  EXPECT_EQ(report->files_written + report->files_unknown, 2000U);
  EXPECT_EQ(report->missing_ops, 1U);
}

TEST_F(FetchFiles, RootMissing) {
  auto source = sharer({});
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  auto report = fetcher->fetch(op_id_of(as_bytes("nobody has this")), options());
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Errc::not_found);
}

TEST_F(FetchFiles, NoSourceAndATimeout) {
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  auto opts = options();
  opts.timeout = 100ms;
  auto report = fetcher->fetch(op_id_of(as_bytes("nobody")), opts);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Errc::timed_out);
  EXPECT_NE(report.error().message.find("no source was found"), std::string::npos);
}

TEST_F(FetchFiles, StopsWhenAsked) {
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  std::stop_source stop;
  auto opts = options();
  std::atomic<bool> waits{false};
  opts.progress = [&](const FetchProgress&) { waits = true; };
  std::thread stopper([&] {
    ASSERT_TRUE(testing::poll_until([&] { return waits.load(); }));
    stop.request_stop();
  });
  auto report = fetcher->fetch(op_id_of(as_bytes("nobody")), opts, stop.get_token());
  stopper.join();
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Errc::cancelled);
}

TEST_F(FetchFiles, AStopWhileAllOpsAreHeldEndsTheWriting) {
  // 8 GiB of zeros from one op: writing all of it would take long.
  constexpr std::uint64_t kChunks = 32'768;
  constexpr std::uint64_t kSize = kChunks * kChunkBytes;
  test::OpMap share;
  const OpId root = share_of_one_file(share, std::string(kChunkBytes, '\0'), kChunks, kChunkLog2);
  auto fetcher = node();
  fetcher->store(share.ops);
  fetcher->join(DhtArc::none());
  std::stop_source stop;
  auto opts = options();
  FetchProgress last;
  opts.progress = [&](const FetchProgress& p) {
    last = p;
    if (p.phase == FetchProgress::Phase::writing && p.bytes_written > 0) stop.request_stop();
  };
  auto report = fetcher->fetch(root, opts, stop.get_token());
  ASSERT_FALSE(report) << "it wrote everything";
  EXPECT_EQ(report.error().code, Errc::cancelled);
  EXPECT_LT(last.bytes_written, kSize / 2);
  EXPECT_EQ(last.wait, FetchWait::nothing) << "there is no source, and nobody needs one";
  EXPECT_TRUE(snapshot(out_.path() / "out").empty()) << "what is unfinished is removed";
}

TEST_F(FetchFiles, TheReasonOfWaitingIsReported) {
  fill();
  OpId root;
  const auto ops = ops_of(from_.str(), root);
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  std::unique_ptr<TestNode> other, source;
  std::atomic<FetchWait> wait{FetchWait::connecting};
  std::set<std::string> reasons;
  auto opts = options();
  opts.progress = [&](const FetchProgress& p) {
    EXPECT_EQ(p.wait == FetchWait::nothing, p.wait_reason.empty()) << p.wait_reason;
    reasons.insert(p.wait_reason);
    wait = p.wait;
  };
  std::thread script([&] {
    ASSERT_TRUE(testing::poll_until([&] { return wait == FetchWait::empty_space; }));
    other = node();
    other->join(DhtArc::none());
    ASSERT_TRUE(testing::poll_until([&] { return wait == FetchWait::no_source; }));
    source = sharer(ops);
  });
  auto report = fetcher->fetch(root, opts);
  script.join();
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_EQ(reasons.count("no other node is in the space yet"), 1U);
  EXPECT_EQ(reasons.count("nodes in the space: 1, but none of them shares"), 1U);
}

TEST_F(FetchFiles, ATimeoutNamesTheReasonAndAsksWhetherTheLinkIsRight) {
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  auto opts = options();
  opts.timeout = 300ms;
  auto report = fetcher->fetch(op_id_of(as_bytes("nobody")), opts);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().message,
            "no source was found: no other node is in the space; is the link right, and does somebody share it now?");
}

TEST_F(FetchFiles, ASlowSourceIsAliveAndItsBytesCountAsProgress) {
  // The op takes seven seconds, and the answers to pings wait behind it. Only its bytes can show that the source is
  // there.
  constexpr std::size_t kSize = 1U << 20;
  test::OpMap share;
  const OpId root = share_of_one_file(share, noise(kSize, 1), 1, 20);
  auto source = sharer(share.ops);
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  auto opts = options();
  opts.timeout = 4s;
  opts.missing_after = 3s;
  bool slow = false;
  std::uint64_t arriving_seen = 0, partly = 0;
  opts.progress = [&](const FetchProgress& p) {
    if (p.phase != FetchProgress::Phase::fetching || p.pending == 0) return;
    if (!std::exchange(slow, true)) return;
    EXPECT_EQ(p.wait, FetchWait::nothing) << p.wait_reason;
    EXPECT_EQ(p.live_sources, 1U);
    EXPECT_EQ(p.missing, 0U);
    EXPECT_GE(p.bytes_held + p.bytes_arriving, arriving_seen) << "progress never goes back";
    arriving_seen = p.bytes_held + p.bytes_arriving;
    if (p.bytes_arriving > 0 && p.bytes_arriving < kSize) ++partly;
  };
  network_->set_default_link({.bytes_per_second = 150'000});
  auto report = fetcher->fetch(root, opts);
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_EQ(report->missing_ops, 0U);
  EXPECT_GT(partly, 10U);
}

TEST_F(FetchFiles, ASourceOfDamagedDataIsReportedAndNotWaitedForForEver) {
  fill();
  OpId root;
  auto ops = ops_of(from_.str(), root);
  const std::string good = from_.read("b/large").substr(kChunkBytes, kChunkBytes);
  std::string bad = good;
  bad[5] ^= 1;
  const OpId id = op_id_of(as_bytes(good));
  ASSERT_EQ(ops.erase(id), 1U);
  auto source = node(std::make_shared<DamagedPolicy>(Bytes::copy_of(bad), id));
  ops.emplace(id, Bytes::copy_of(bad));
  source->store(ops);
  source->join(DhtArc::full());
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  std::vector<Url> named;
  auto opts = options();
  opts.bad_source = [&](const Url& url) { named.push_back(url); };
  auto report = fetcher->fetch(root, opts);
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_EQ(report->missing_ops, 1U);
  EXPECT_EQ(report->files_failed, 1U);
  std::optional<Url> source_url;
  source->runtime.call([&] { source_url = source->space->current_url(); });
  EXPECT_EQ(named, std::vector<Url>{*source_url}) << "once";
}

TEST_F(FetchFiles, AFetchThatNeedsNoSourceDoesNotTimeOut) {
  fill();
  OpId root;
  const auto ops = ops_of(from_.str(), root);
  auto fetcher = node();
  fetcher->store(ops);
  fetcher->join(DhtArc::none());
  auto opts = options();
  opts.timeout = 1ms;
  opts.progress = [&](const FetchProgress& p) { EXPECT_EQ(p.wait, FetchWait::nothing) << p.wait_reason; };
  opts.notice = [&](const std::string& text) { ADD_FAILURE() << text; };
  auto report = fetcher->fetch(root, opts);
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_EQ(snapshot(out_.path() / "out"), snapshot(from_.path()));
}

TEST_F(FetchFiles, SourceThatComesLate) {
  fill();
  OpId root;
  const auto ops = ops_of(from_.str(), root);
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  std::unique_ptr<TestNode> source;
  std::atomic<bool> waits{false};
  auto opts = options();
  opts.missing_after = 30s;  // nothing is, however slow the machine
  opts.progress = [&](const FetchProgress& p) { waits = p.live_sources == 0; };
  std::thread late([&] {
    ASSERT_TRUE(testing::poll_until([&] { return waits.load(); }));
    source = sharer(ops);
  });
  auto report = fetcher->fetch(root, opts);
  late.join();
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_EQ(snapshot(out_.path() / "out"), snapshot(from_.path()));
}

TEST_F(FetchFiles, SmallWindowsBoundPendingOps) {
  for (int i = 0; i < 60; ++i) from_.write(std::to_string(i), noise(kPackFileBytes + 1000, i));  // one op each
  OpId root;
  const auto ops = ops_of(from_.str(), root);
  auto source = sharer(ops);
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  auto opts = options();
  opts.missing_after = 30s;  // nothing is, however slow the machine
  opts.window_ops = 4;
  std::uint64_t most = 0;
  opts.progress = [&](const FetchProgress& p) { most = std::max(most, p.pending); };
  auto report = fetcher->fetch(root, opts);
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_EQ(report->fetched_ops, ops.size());
  EXPECT_LE(most, 4U);
  EXPECT_EQ(snapshot(out_.path() / "out"), snapshot(from_.path()));
}

TEST_F(FetchFiles, HostileSharesAreRefused) {
  using Encoder = ManifestEncoder;
  const auto run = [&](const std::function<void(std::vector<std::uint8_t>&, std::map<OpId, Bytes>&)>& body,
                       FolderSummary folder) {
    std::map<OpId, Bytes> ops;
    std::vector<std::uint8_t> manifest;
    Encoder::begin(manifest);
    body(manifest, ops);
    Encoder::dir_end(manifest);
    RootOp root;
    root.manifest_bytes = manifest.size();
    root.folder = folder;
    const Bytes chunk(std::move(manifest));
    root.top = op_id_of(chunk);
    ops.emplace(root.top, chunk);
    const Bytes root_bytes = root.encode();
    const OpId id = op_id_of(root_bytes);
    ops.emplace(id, root_bytes);
    auto source = sharer(ops);
    auto fetcher = node();
    fetcher->join(DhtArc::none());
    auto report = fetcher->fetch(id, options());
    return report ? std::string("nothing wrong") : report.error().to_string();
  };
  const Bytes data = Bytes::copy_of("twelve bytes");
  const auto put = [&](std::map<OpId, Bytes>& ops) {
    ops.emplace(op_id_of(data), data);
    return op_id_of(data);
  };
  FileHead file;
  file.name = "file";
  file.size = 5;
  // A chunk that is longer than the file, a pack that is longer than it says.
  EXPECT_EQ(run([&](auto& m, auto& ops) { Encoder::file(m, file, {put(ops)}); }, FolderSummary{1, 0, 5, 1}),
            "malformed: file: a chunk has a wrong size");
  file.packed = true;
  const auto long_pack = [&](auto& m, auto& ops) {
    Encoder::pack(m, put(ops), 5);
    Encoder::file(m, file, {});
  };
  EXPECT_EQ(run(long_pack, FolderSummary{1, 0, 5, 1}), "malformed: file: a pack has a wrong size");
  // A name that leads out of the folder, written by hand.
  const auto climbs = [&](auto& m, auto&) { m.insert(m.end(), {1, 2, '.', '.', 2, 4, 'e', 'v', 'i', 'l', 0, 0, 0}); };
  EXPECT_EQ(run(climbs, FolderSummary{1, 1, 0, 0}), "malformed: list of files, at byte 9, in \"\": the name . or ..");
  // Counts that promise more than follows.
  EXPECT_EQ(
      run([&](auto&, auto&) {}, FolderSummary{3, 0, 0, 0}),
      "malformed: list of files, at byte 6, in \"\": fewer files, folders, links, bytes or ops than the root op says");
  EXPECT_FALSE(fs::exists(out_.path() / "evil"));
  const auto left =
      fs::exists(out_.path() / "out") ? snapshot(out_.path() / "out") : std::map<std::string, std::string>{};
  EXPECT_TRUE(left.empty());
}

TEST_F(FetchFiles, LinksAndModesArriveAsTheyWere) {
  from_.write("a/private", "for me");
  from_.write("a/read only", "r");
  from_.write("locked/inside/tool", noise(kPackFileBytes + 1, 1));
  fs::create_symlink("../a/private", from_.path() / "locked/up");
  fs::create_symlink("a", from_.path() / "folder link");
  fs::create_symlink("folder link/read only", from_.path() / "through");
  fs::create_symlink("nowhere", from_.path() / "dangling");
  const std::map<std::string, mode_t> modes = {{"a/private", 0600},          {"a/read only", 0444},
                                               {"locked/inside/tool", 0750}, {"a", 0700},
                                               {"locked/inside", 0500},      {"locked", 0555}};
  for (const auto& name : {"a/private", "a/read only", "locked/inside/tool", "a", "locked/inside", "locked"}) {
    ASSERT_EQ(::chmod(from_.str(name).c_str(), modes.at(name)), 0);
  }
  OpId root;
  const auto ops = ops_of(from_.str(), root);
  auto source = sharer(ops);
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  const auto look = [&] {
    EXPECT_EQ(snapshot(out_.path() / "out"), snapshot(from_.path()));
    for (const auto& [name, mode] : modes) {
      struct stat info {};
      ASSERT_EQ(::lstat(out_.str("out/" + name).c_str(), &info), 0) << name;
      EXPECT_EQ(info.st_mode & 07777, mode & ~022U) << name;
    }
  };
  const mode_t before = ::umask(022);
  auto report = fetcher->fetch(root, options());
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_TRUE(report->complete());
  EXPECT_EQ((std::array{report->folder.links, report->links_written, report->links_kept, report->links_failed}),
            (std::array<std::uint64_t, 4>{4, 4, 0, 0}));
  look();
  // Once more: everything exists, including folders that may not be written in.
  ASSERT_EQ(::chmod(out_.str("out/locked/inside").c_str(), 0700), 0);
  fs::remove(out_.path() / "out/locked/inside/tool");
  ASSERT_EQ(::chmod(out_.str("out/locked/inside").c_str(), 0500), 0);
  auto again = fetcher->fetch(root, options());
  ::umask(before);
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ((std::array{again->files_written, again->files_kept, again->links_written, again->links_kept}),
            (std::array<std::uint64_t, 4>{1, 2, 0, 4}));
  look();
  for (const char* name : {"locked", "locked/inside"}) {  // so that the folders can be removed
    ::chmod(from_.str(name).c_str(), 0700);
    ::chmod(out_.str(std::string("out/") + name).c_str(), 0700);
  }
  EXPECT_TRUE(issues_.empty());
}

TEST_F(FetchFiles, NothingIsTakenInThatWasNotAskedFor) {
  fill();
  OpId root;
  const auto ops = ops_of(from_.str(), root);
  auto source = sharer(ops);
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  auto stranger = sharer({});
  const Bytes junk = Bytes::copy_of(noise(1000, 99));
  stranger->store({{op_id_of(junk), junk}});
  // The stranger publishes its op to both, repeatedly, while the share is fetched.
  std::atomic<bool> done{false};
  std::uint64_t published = 0;
  std::thread offers([&] {
    while (!done) {
      stranger->runtime.call([&] {
        for (const auto& info : stranger->space->peer_store().get_all()) {
          if (info->info().agent == stranger->agent->agent() || !info->info().url) continue;
          stranger->space->publish().publish_ops({op_id_of(junk)}, *info->info().url, [&](const Result<void>& sent) {
            if (sent) ++published;
          });
        }
      });
      std::this_thread::sleep_for(5ms);
    }
  });
  auto report = fetcher->fetch(root, options());
  ASSERT_TRUE(testing::poll_until([&] {
    std::uint64_t now = 0;
    stranger->runtime.call([&] { now = published; });
    return now >= 4;
  }));
  done = true;
  offers.join();
  ASSERT_TRUE(report) << report.error().to_string();
  for (auto* node : {source.get(), fetcher.get()}) {
    const auto stats =
        wait_on<OpStoreStats>(node->runtime, [&](auto handler) { node->space->op_store().stats(std::move(handler)); });
    EXPECT_EQ(stats->ops, ops.size());
    std::uint64_t pending = 1;
    node->runtime.call([&] { pending = node->space->fetch().pending_ops(); });
    EXPECT_EQ(pending, 0U);
  }
  EXPECT_EQ(stranger->served(), 0U);
}

TEST_F(FetchFiles, AShareThatIsLargerThanTheDiskIsRefusedBeforeItIsFetched) {
  test::OpMap share;
  RootOp root;
  root.chunk_log2 = 22;
  root.manifest_bytes = std::uint64_t{1} << 34;
  root.folder = FolderSummary{1, 0, std::uint64_t{1} << 50, std::uint64_t{1} << 28};
  root.top = op_id_of(as_bytes("nobody has the list"));
  const OpId id = share.put()(root.encode()).value();
  auto source = sharer(share.ops);
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  std::uint64_t found = 0;
  auto opts = options();
  opts.found = [&](const FolderSummary& folder, std::optional<std::uint64_t> room) {
    EXPECT_TRUE(room);
    found = folder.bytes;
  };
  auto report = fetcher->fetch(id, opts);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Errc::disk_full) << report.error().message;
  EXPECT_EQ(found, std::uint64_t{1} << 50);
}

TEST_F(FetchFiles, AListThatRepeatsItsPartsIsRefused) {
  // A list of 128 MiB from 300 KB of ops: a file of 4 GiB.
  test::OpMap share;
  const auto put = share.put();
  constexpr std::uint64_t kLists = 32, kUnder = 4096 * 1024, kTotal = kLists * kUnder, kIds = (kTotal - 32) / 32;
  const OpId data = put(Bytes::copy_of(noise(1024, 1))).value();
  std::vector<std::uint8_t> head;
  FileHead file;
  file.size = kIds * 1024;
  file.name = std::string(32 - 1 - 5 - 3 - 5, 'n');  // which makes it 32 bytes with the end: the size takes 5
  ManifestEncoder::begin(head);
  ManifestEncoder::file(head, file, {});
  ASSERT_EQ(head.size(), 31U);
  std::vector<std::uint8_t> ids;
  for (int i = 0; i < 64; ++i) ids.insert(ids.end(), data.view().begin(), data.view().end());
  const auto chunk = [&](std::size_t from, std::size_t size) { return std::string(as_text(ids).substr(from, size)); };
  const OpId first = put(Bytes::copy_of(std::string(as_text(head)) + chunk(0, 1024 - 31))).value();
  const OpId middle = put(Bytes::copy_of(chunk(1, 1024))).value();
  const OpId last = put(Bytes::copy_of(chunk(1, 1023) + std::string(1, '\0'))).value();
  std::vector<OpId> children(4096, middle);
  const OpId middle_list = put(encode_list(1, 10, kUnder, children)).value();
  children.front() = first;
  std::vector<OpId> lists(kLists, middle_list);
  lists.front() = put(encode_list(1, 10, kUnder, children)).value();
  children.front() = middle;
  children.back() = last;
  lists.back() = put(encode_list(1, 10, kUnder, children)).value();
  RootOp root;
  root.chunk_log2 = 10;
  root.manifest_bytes = kTotal;
  root.folder = FolderSummary{1, 0, file.size, kIds};
  root.top = put(encode_list(2, 10, kTotal, lists)).value();
  const OpId id = put(root.encode()).value();
  auto source = sharer(share.ops);
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  auto report = fetcher->fetch(id, options());
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Errc::malformed) << report.error().message;
  EXPECT_NE(report.error().message.find("repeats its parts: it has 128.0 MiB, made of"), std::string::npos)
      << report.error().message;
  EXPECT_TRUE(snapshot(out_.path() / "out").empty());
}

TEST_F(FetchFiles, TheOutputFolderAndTheDataFolderNeverOverlap) {
  fs::create_directories(out_.path() / "data");
  fs::create_directory_symlink(out_.path() / "data", out_.path() / "link");
  auto fetcher = node();
  auto opts = options();
  opts.exclude = {out_.str("data")};
  for (const std::string out : {"data", "link", "link/below", "."}) {
    opts.out_dir = out_.str(out);
    auto report = fetcher->fetch(op_id_of(as_bytes("nobody has this")), opts);
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, Errc::invalid_argument) << out;
  }
  EXPECT_FALSE(fs::exists(out_.path() / "data/below"));
}

TEST_F(FetchFiles, ForgedSourcesAreAskedForLittle) {
  // Anybody can sign infos of new agents at urls where nobody is. The honest source comes after all of them.
  for (int i = 0; i < 400; ++i) from_.write(std::to_string(i), noise(kPackFileBytes + 1, i));
  OpId root;
  const auto ops = ops_of(from_.str(), root);
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  std::vector<AgentInfoPtr> forged;
  for (int i = 0; i < 1500; ++i) {
    AgentInfo info;
    const auto agent = Ed25519LocalAgent::generate();
    info.agent = agent->agent();
    info.space = kSpace;
    info.created_at = fetcher->runtime.wall_now();
    info.expires_at = info.created_at + std::chrono::minutes(20);
    info.url = Url::parse("ws://nowhere.example:1/" + std::to_string(i)).value();
    info.storage_arc = DhtArc::full();
    forged.push_back(AgentInfoSigned::sign(*agent, info).value());
  }
  fetcher->runtime.call([&] { fetcher->space->peer_store().insert(forged); });
  std::unique_ptr<TestNode> source;
  std::uint64_t most_pairs = 0, most_sources = 0, notices = 0;
  auto opts = options();
  opts.tick = 100ms;         // each looks at all infos, which takes ThreadSanitizer more than 10 ms
  opts.missing_after = 30s;  // nothing is, however slow the machine
  opts.notice = [&](const std::string&) { ++notices; };
  opts.progress = [&](const FetchProgress& p) {
    fetcher->runtime.call([&] { most_pairs = std::max(most_pairs, fetcher->space->fetch().load({}).pairs); });
    most_sources = std::max<std::uint64_t>(most_sources, p.sources);
    if (!source) source = sharer(ops);
  };
  auto report = fetcher->fetch(root, opts);
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_EQ(snapshot(out_.path() / "out"), snapshot(from_.path()));
  EXPECT_LE(most_sources, Wants::kMaxSources);
  EXPECT_LE(most_pairs, ops.size() + Wants::kUnprovenAsked * Wants::kUnprovenOps) << "one source's worth, and a little";
  EXPECT_LE(notices, 2 * Wants::kToldSources);
}

TEST_F(FetchFiles, SourcesShareTheLoad) {
  for (int i = 0; i < 200; ++i) from_.write(std::to_string(i), noise(kPackFileBytes + 1, i));
  OpId root;
  const auto ops = ops_of(from_.str(), root);
  auto first = sharer(ops), second = sharer(ops);
  auto fetcher = node();
  fetcher->join(DhtArc::none());
  auto opts = options();
  opts.missing_after = 30s;  // nothing is, however slow the machine
  opts.window_ops = 16;      // many rounds, so that both get their turns
  auto report = fetcher->fetch(root, opts);
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_EQ(report->fetched_ops, ops.size());
  EXPECT_EQ(first->served() + second->served(), ops.size());
  EXPECT_GT(first->served(), 0U);
  EXPECT_GT(second->served(), 0U);
}

}  // namespace
}  // namespace kitsune2::files
