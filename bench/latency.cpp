// One op at a time: the latency from storing and publishing it at one node to storing it at a peer, over a given line.
// Both nodes are in this process; the relay is in the publishing one. With DIR the stores are durable, in DIR.
//
// usage: latency COUNT SIZE [DIR]
// Prints {"addr": …} of the publishing node, reads one line, the address of the line to it (HOST:PORT), and prints
// {"ops", "p50_s", "p90_s", "p99_s", "commit_p50_s", "far_commit_p50_s"}: the last two are the times that the stores of
// the two nodes take, the far one's for an op of another space that is handed to it after each that was published.
#include <algorithm>
#include <future>
#include <iostream>
#include <mutex>
#include <string>
#include <vector>

#include "kitsune2/kitsune2.hpp"
#include "process.hpp"

using namespace kitsune2;
using Clock = std::chrono::steady_clock;

namespace {

using bench::fail;
using bench::must;

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) fail("usage: latency COUNT SIZE [DIR]");
  const std::size_t count = std::stoul(argv[1]);
  const std::size_t size = std::stoul(argv[2]);
  const std::string dir = argc > 3 ? argv[3] : "";
  const SpaceId id = SpaceId::from_text("bench");

  NodeOptions near_options;
  near_options.dialect = Dialect::v0_2;
  near_options.listen = "127.0.0.1:0";
  if (!dir.empty()) near_options.data_dir = dir + "/from";
  const auto from = must(Node::start(std::move(near_options)));
  const auto from_space = must(from->space(id));
  const std::string own = must(from->wait_online(std::chrono::seconds(30))).to_string();
  std::cout << R"({"addr":")" << own << "\"}" << std::endl;
  std::string line;
  std::getline(std::cin, line);

  NodeOptions far_options;
  far_options.relay = "ws://" + line;
  if (!dir.empty()) far_options.data_dir = dir + "/to";
  const auto to = must(Node::start(std::move(far_options)));
  const auto to_space = must(to->space(id));
  const std::string at = must(to->wait_online(std::chrono::seconds(30))).to_string();
  // The same relay, under its key at the publishing node.
  const Url target = must(Url::parse(own.substr(0, own.rfind('/')) + at.substr(at.rfind('/'))));

  std::mutex mutex;
  std::promise<Clock::time_point> arrived;
  const auto subscription = to->run([&] {
    FetchEvents events;
    events.ops_stored = [&](const Url&, const std::vector<StoredOp>&, std::uint64_t) {
      const std::scoped_lock lock(mutex);
      arrived.set_value(Clock::now());
    };
    return to_space->fetch().subscribe(std::move(events));
  });

  const auto other_space = must(to->space(SpaceId::from_text("other")));
  std::vector<double> total, commit, far_commit;
  for (std::size_t i = 0; i <= count; ++i) {
    std::future<Clock::time_point> here;
    {
      const std::scoped_lock lock(mutex);
      arrived = {};
      here = arrived.get_future();
    }
    std::string text(std::max<std::size_t>(size, 8), 'o');
    for (std::size_t b = 0; b < 8; ++b) text[b] = static_cast<char>(i >> (8 * b));
    const auto begin = Clock::now();
    auto stored = must(from->wait<ProcessedOps>([&](auto done) {
      std::vector<Bytes> ops{Bytes::copy_of(std::string_view(text))};
      from_space->op_store().process_incoming_ops(std::move(ops), done);
    }));
    const auto committed = Clock::now();
    must(from->wait<void>(
        [&](auto done) { from_space->publish().publish_ops({stored.stored.at(0).op_id}, target, done); }));
    if (here.wait_for(std::chrono::seconds(30)) != std::future_status::ready) fail("an op did not come");
    if (i == 0) continue;  // it was only for making the connection
    total.push_back(seconds(here.get() - begin));
    commit.push_back(seconds(committed - begin));
    const auto far_begin = Clock::now();
    must(to->wait<ProcessedOps>([&](auto done) {
      std::vector<Bytes> ops{Bytes::copy_of(std::string_view(text))};
      other_space->op_store().process_incoming_ops(std::move(ops), done);
    }));
    far_commit.push_back(seconds(Clock::now() - far_begin));
  }
  std::sort(total.begin(), total.end());
  std::sort(commit.begin(), commit.end());
  std::sort(far_commit.begin(), far_commit.end());
  const auto at_share = [&](double share) {
    return total[static_cast<std::size_t>(share * static_cast<double>(count - 1))];
  };
  std::cout << R"({"ops":)" << count << R"(,"p50_s":)" << at_share(0.5) << R"(,"p90_s":)" << at_share(0.9)
            << R"(,"p99_s":)" << at_share(0.99) << R"(,"commit_p50_s":)" << commit[count / 2]
            << R"(,"far_commit_p50_s":)" << far_commit[count / 2] << "}" << std::endl;
  return 0;
}
