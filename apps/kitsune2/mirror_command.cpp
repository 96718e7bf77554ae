// `kitsune2 mirror`: holds all that is in the space of a link, and serves it until a signal comes.
#include <filesystem>
#include <fstream>

#include "node_setup.hpp"
#include "serving_display.hpp"

namespace kitsune2::cli {

namespace {

constexpr std::uint64_t kMiB = 1U << 20U;

/// Remembers in the data folder of which spaces all was held once. *Rationale*: a mirror that comes back when the
/// sharer is gone has nobody to be compared with. What it held it holds still, so it claims it at once.
class HeldSpaces {
 public:
  explicit HeldSpaces(const std::string& data) : path_(std::filesystem::path(data) / "mirrored") {}

  bool contains(const SpaceId& space) const {
    std::ifstream file(path_);
    for (std::string line; std::getline(file, line);) {
      if (line == space.to_string()) return true;
    }
    return false;
  }
  /// Returns false if it could not be written.
  bool add(const SpaceId& space) const {
    std::ofstream file(path_, std::ios::app);
    file << space.to_string() << '\n';
    return static_cast<bool>(file.flush());
  }

 private:
  const std::filesystem::path path_;
};

/// What the mirror holds; prints changes, and keeps to the limit.
class HoldingDisplay {
 public:
  HoldingDisplay(RunningNode& node, Output& out, const MirrorArgs& args)
      : node_(node), out_(out), limit_(args.limit_mib * kMiB), held_spaces_(args.node.data) {
    is_noted_ = held_spaces_.contains(node.space()->id());
  }

  /// Whether all was held in an earlier run.
  bool held_all() const { return is_noted_; }

  void look() {
    const auto stats =
        node_.node().wait<OpStoreStats>([&](auto done) { node_.space()->op_store().stats(std::move(done)); });
    if (!stats) return;
    GossipCoverage coverage;
    const bool accepts = limit_ == 0 || stats->bytes < limit_;
    node_.node().run([&] {
      coverage = node_.space()->gossip().coverage();
      node_.handler()->accept_offers(accepts);
    });
    if (!accepts && accepts_) {
      out_.warn("kitsune2: --limit is reached: " + human_bytes(static_cast<double>(stats->bytes)) +
                " are held, and no more ops are taken in");
      out_.event(JsonLine("limit_reached").add("bytes", stats->bytes));
    }
    accepts_ = accepts;
    note_all(coverage);
    if (stats->ops == ops_ && coverage.storage_sectors == sectors_) return;
    const bool is_all = coverage.storage_sectors == coverage.target_sectors;
    const std::string line = counted(stats->ops, "op") + ", " + human_bytes(static_cast<double>(stats->bytes)) +
                             " held" + (is_all ? "" : "; not compared with others yet");
    out_.status(line);
    if (is_all && sectors_ != coverage.storage_sectors) out_.note(line);
    out_.event(JsonLine("held")
                   .add("ops", stats->ops)
                   .add("bytes", stats->bytes)
                   .add("target_sectors", static_cast<std::uint64_t>(coverage.target_sectors))
                   .add("storage_sectors", static_cast<std::uint64_t>(coverage.storage_sectors)));
    ops_ = stats->ops;
    sectors_ = coverage.storage_sectors;
  }

 private:
  void note_all(const GossipCoverage& coverage) {
    if (is_noted_ || coverage.target_sectors == 0 || coverage.storage_sectors < coverage.target_sectors) return;
    is_noted_ = true;
    if (held_spaces_.add(node_.space()->id())) return;
    out_.warn(
        "kitsune2: the data folder cannot be written, so a restart without other nodes will not serve this space");
  }

  RunningNode& node_;
  Output& out_;
  const std::uint64_t limit_;
  const HeldSpaces held_spaces_;
  bool is_noted_ = false, accepts_ = true;
  std::optional<std::uint64_t> ops_;
  std::size_t sectors_ = 0;
};

}  // namespace

int run_mirror(const Common& common, const MirrorArgs& args, Signals& signals) {
  Output out(common);
  signals.end_late_with(kInterrupted);
  auto link = files::Link::parse(args.link);
  if (!link) return out.error(link.error());
  auto options = node_options(common, args.node, *link);
  if (!options) return out.error(options.error());
  auto running = RunningNode::start(std::move(*options), link->space, "mirror", signals);
  if (!running) return out.error(running.error());
  RunningNode& node = **running;
  HoldingDisplay holding(node, out, args);
  // Before anybody knows of the node, so that the limit counts from the first offer on.
  holding.look();
  const DhtArc claimed = holding.held_all() ? DhtArc::full() : DhtArc::none();
  if (auto joined = node.join(DhtArc::full(), claimed); !joined) return out.error(joined.error());

  signals.end_late_with(kOk);
  {
    ServingDisplay serving(node, out);
    while (!signals.wait(std::chrono::milliseconds(500))) {
      serving.look();
      holding.look();
    }
  }
  out.clear_status();
  out.note("stopping");
  node.stop();
  return kOk;
}

}  // namespace kitsune2::cli
