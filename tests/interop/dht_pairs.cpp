// Random op sets, given to the DHT model of this product and to that of stock kitsune2_dht. Every value that either of
// them shows must be equal.
//
// usage: dht-pairs ORACLE PAIRS SEED
//
// ORACLE is interop/rust/src/bin/dht-oracle.rs, of which two processes run. A case is a few nodes, each pair of which
// is compared: most of the time goes into making a model. An oracle is told of a case in lines:
//   case NUMBER SHOWN
//   node NAME NOW LATER BUDGET SECTORS              for each node
//   op ID CREATED_AT BYTES HOLDERS early|late       for each op; HOLDERS: the names of nodes
//   end
// and answers with the lines that `answer` makes here: how each node divides time, what it holds in the sectors SHOWN
// after the late ops were stored, and again after its update at LATER, if that is not NOW. Then a round of each pair:
// all messages of a comparison, with the ids that are sent within the budget.
//
// The exit status is 0 if all pairs were equal, and if a pair in which this side lacks an op was not.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <optional>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/dht/dht_model.hpp"
#include "kitsune2/ids.hpp"

namespace {

using namespace kitsune2;
using namespace kitsune2::dht;

constexpr std::int64_t kMicros = kUnit.count();  // of a unit
constexpr std::int64_t kSlice = kUnitsPerSlice * kMicros;
constexpr std::int64_t kHour = 4 * kMicros;
constexpr std::int64_t kDay = 24 * kHour;

struct Op {
  std::string id;
  std::int64_t created_at = 0;
  std::uint64_t bytes = 0;
  std::string holders;
  bool is_late = false;
};

constexpr std::size_t kNodes = 5;
constexpr std::uint64_t kPairs = kNodes * (kNodes - 1) / 2;

struct Node {
  char name = 'a';
  std::int64_t now = 0, later = 0;
  std::uint64_t budget = 0;
  SectorSet sectors;
};

struct Case {
  std::uint64_t number = 0;
  std::array<Node, kNodes> nodes;
  SectorSet shown;
  std::vector<Op> ops;
};

std::string to_hex(ByteView bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  if (bytes.empty()) return "-";
  std::string out;
  for (const std::uint8_t byte : bytes) {
    out += kDigits[byte >> 4U];
    out += kDigits[byte & 15U];
  }
  return out;
}

/// Makes cases. The same seed makes the same ones.
class Maker {
 public:
  explicit Maker(std::uint64_t seed) : random_(seed) {}

  Case make(std::uint64_t number) {
    Case out;
    out.number = number;
    std::vector<std::uint32_t> sectors{0, SectorSet::kCount - 1};
    for (std::uint64_t i = 1 + below(12); i > 0; --i) sectors.push_back(sector());
    const bool is_full = chance(6);
    const std::int64_t now = some_time();
    std::int64_t earliest = now;
    for (Node& node : out.nodes) {
      node.name = static_cast<char>('a' + (&node - out.nodes.data()));
      set_clock(node, now);
      earliest = std::min(earliest, node.now);
      node.budget = chance(2) ? 100U << 20U : chance(3) ? 0 : below(4000);
      node.sectors = some_sectors(sectors);
      if (is_full) node.sectors.add(DhtArc::full());
    }
    if (chance(4)) {
      out.shown.add(DhtArc::full());
    } else {
      for (const std::uint32_t s : sectors) out.shown.set(s);
    }
    add_ops(out, sectors, earliest);
    return out;
  }

 private:
  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  bool chance(std::uint64_t one_in) { return below(one_in) == 0; }
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(below(static_cast<std::uint64_t>(high - low + 1)));
  }
  std::uint32_t sector() { return static_cast<std::uint32_t>(below(SectorSet::kCount)); }

  std::int64_t some_time() {
    // Some years from now, or shortly after 1970, where there are few slices and rings.
    std::int64_t now = chance(16) ? between(2 * kMicros, 4 * kSlice) : between(56 * 365 * kDay, 60 * 365 * kDay);
    if (chance(4)) {  // around a moment at which the layout changes
      now = now / kSlice * kSlice + (chance(2) ? kSlice - kMicros : between(2, kUnitsPerSlice) * kMicros);
      now += between(-1, 1);
    }
    return now;
  }

  void set_clock(Node& node, std::int64_t now) {
    std::int64_t apart = 0;
    if (chance(3)) apart = chance(2) ? between(-3 * kMicros, 3 * kMicros) : between(-60'000'000, 60'000'000);
    if (chance(12)) apart = chance(2) ? between(-4 * kHour, 4 * kHour) : between(-20 * kDay, 20 * kDay);
    node.now = node.later = std::max(now + apart, 2 * kMicros);
    if (!chance(4)) return;
    const std::int64_t ahead[] = {
        0, 1, between(0, kMicros), between(0, 8) * kMicros, between(0, kSlice), between(0, 40 * kDay)};
    node.later += ahead[below(std::size(ahead))];
  }

  SectorSet some_sectors(const std::vector<std::uint32_t>& of_ops) {
    SectorSet out;
    switch (below(8)) {
      case 0:
        out.add(DhtArc::full());
        break;
      case 1:
        break;  // none
      case 2:
      case 3:
      case 4:
        for (const std::uint32_t s : of_ops) {
          if (!chance(4)) out.set(s);
        }
        break;
      default:
        for (std::uint64_t arcs = 1 + below(3); arcs > 0; --arcs)
          out.add(DhtArc::of_sectors(sector(), 64 + below(192)));
    }
    return out;
  }

  std::int64_t created_at(std::int64_t now) {
    std::int64_t at = 0;
    if (chance(4)) {  // around a border of units or slices
      const std::int64_t size = chance(2) ? kSlice : kMicros;
      at = now / size * size - static_cast<std::int64_t>(below(5)) * size + between(-1, 1);
    } else {
      // Of minutes to four years: as many of minutes as of hours, days, months.
      const double most = 4 * 365.25 * 24 * 60;
      at = now - static_cast<std::int64_t>(std::pow(most, std::uniform_real_distribution(0.0, 1.0)(random_)) * 6e7);
    }
    // The reference refuses to start with an op of more than a unit in the future at some times of the week, and does
    // not expect one from before 1970.
    return std::clamp(at, std::int64_t{0}, now + kMicros - 1);
  }

  std::string id(std::size_t size, std::uint32_t location) {
    std::string out(size, '\0');
    for (char& byte : out) byte = static_cast<char>(below(256));
    const std::uint32_t change = dht_location(as_bytes(out)) ^ location;
    for (unsigned i = 0; i < 4; ++i) out[i] = static_cast<char>(out[i] ^ static_cast<char>(change >> (8 * i) & 255U));
    return out;
  }

  void add_ops(Case& to, const std::vector<std::uint32_t>& sectors, std::int64_t now) {
    const std::size_t id_size = chance(2) ? 32 : chance(2) ? 36 : 8;
    const std::uint64_t count = chance(16) ? 0 : chance(4) ? below(8) : below(60);
    const bool is_disc_equal = chance(3);                                               // so that rings are compared
    const std::uint64_t differing = chance(5) ? 0 : chance(3) ? below(5) : below(100);  // percent of the ops
    const bool has_late = chance(3);
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint32_t first = sectors[below(sectors.size())] << SectorSet::kBits;
      const std::uint32_t last = first + ((1U << SectorSet::kBits) - 1);
      const std::uint32_t inside[] = {first, last, static_cast<std::uint32_t>(between(first, last))};
      Op op{id(id_size, inside[below(3)]), created_at(now), 1 + below(500), "", has_late && chance(3)};
      const bool is_old = now - op.created_at > 2 * kSlice;
      const bool differs = below(100) < differing && !(is_disc_equal && is_old);
      for (const Node& node : to.nodes) {
        if (!differs || chance(2)) op.holders += node.name;
      }
      if (!op.holders.empty()) to.ops.push_back(std::move(op));
    }
  }

  std::mt19937_64 random_;
};

std::string question(const Case& asked) {
  std::ostringstream out;
  out << "case " << asked.number << ' ' << asked.shown.to_string() << '\n';
  for (const Node& node : asked.nodes) {
    out << "node " << node.name << ' ' << node.now << ' ' << node.later << ' ' << node.budget << ' '
        << node.sectors.to_string() << '\n';
  }
  for (const Op& op : asked.ops) {
    out << "op " << to_hex(as_bytes(op.id)) << ' ' << op.created_at << ' ' << op.bytes << ' ' << op.holders << ' '
        << (op.is_late ? "late" : "early") << '\n';
  }
  out << "end\n";
  return out.str();
}

template <class Map>
void print(std::ostream& out, const Map& map) {
  for (const auto& [key, value] : map) {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, CombinedHash>) {
      out << ' ' << key << '=' << to_hex(value.view());
    } else {
      out << ' ' << key << ':';
      print(out, value);
    }
  }
}

std::string to_text(const Snapshot& snapshot) {
  std::ostringstream out;
  if (const auto* minimal = std::get_if<MinimalSnapshot>(&snapshot)) {
    out << "minimal " << minimal->disc_boundary.micros << ' ' << to_hex(minimal->disc_top_hash.view());
    for (const CombinedHash& hash : minimal->ring_top_hashes) out << ' ' << to_hex(hash.view());
  } else if (const auto* discs = std::get_if<DiscSectorsSnapshot>(&snapshot)) {
    out << "disc_sectors " << discs->disc_boundary.micros;
    print(out, discs->sectors);
  } else if (const auto* slices = std::get_if<DiscSectorDetailsSnapshot>(&snapshot)) {
    out << "disc_sector_details " << slices->disc_boundary.micros;
    print(out, slices->sectors);
  } else {
    const auto& rings = std::get<RingSectorDetailsSnapshot>(snapshot);
    out << "ring_sector_details " << rings.disc_boundary.micros;
    print(out, rings.rings);
  }
  return out.str();
}

/// How often something was seen in the answers.
using Seen = std::map<std::string, std::uint64_t>;

/// The model of a node, with the ops that it holds.
class Side {
 public:
  Side(const Node& node, const std::vector<Op>& all) : node_(node), all_(all), model_({node.now}) { store(false); }

  const Node& node() const { return node_; }
  const DhtModel& model() const { return model_; }

  void store(bool late) {
    for (const Op& op : all_) {
      if (op.is_late != late || op.holders.find(node_.name) == std::string::npos) continue;
      ops_.push_back(&op);
      if (!model_.add(dht_location(as_bytes(op.id)), {op.created_at}, as_bytes(op.id))) throw std::logic_error("add");
    }
  }
  void update() { model_.update({node_.later}); }

  void print_layout(std::ostream& out) const {
    out << node_.name << " layout " << model_.layout().disc_boundary().micros << ' ' << model_.next_update().micros;
    for (const Ring& ring : model_.layout().rings())
      out << ' ' << unit_start(ring.first_unit).micros << '+' << ring.units() * kMicros;
    out << '\n';
  }

  void print_all(std::ostream& out, const SectorSet& sectors) const {
    const auto line = [&](const Snapshot& snapshot) { out << node_.name << ' ' << to_text(snapshot) << '\n'; };
    const auto ask = [&](const Snapshot& snapshot) {
      return std::get<SendSnapshot>(model_.handle(snapshot, std::nullopt, sectors).value()).snapshot;
    };
    const MinimalSnapshot minimal = model_.minimal(sectors);
    out << node_.name << " next_update " << model_.next_update().micros << '\n';
    line(minimal);
    const CombinedHash odd(as_bytes("a hash that nobody has"));
    MinimalSnapshot other = minimal;
    other.disc_top_hash = odd;
    auto discs = std::get<DiscSectorsSnapshot>(ask(other));
    line(discs);
    if (!discs.sectors.empty()) {
      for (auto& [sector, hash] : discs.sectors) hash = odd;
      line(ask(discs));
    }
    if (minimal.ring_top_hashes.empty()) return;
    other = minimal;
    for (auto& hash : other.ring_top_hashes) hash = odd;
    line(ask(other));
  }

  /// The ids that the reference sends for these slices: it leaves out each slice that is too large.
  std::string ids_of(const std::vector<SliceRef>& slices, Seen& seen) const {
    std::string ids;
    std::uint64_t used = 0;
    for (const SliceRef& slice : slices) {
      std::vector<const Op*> found;
      std::uint64_t bytes = 0;
      for (const Op* op : ops_) {
        if (SectorSet::sector_of(dht_location(as_bytes(op->id))) != slice.sector ||
            op->created_at < slice.start.micros || op->created_at >= slice.end.micros)
          continue;
        found.push_back(op);
        bytes += op->bytes;
      }
      if (used + bytes > node_.budget) {
        ++seen["a list that the budget cut"];
        continue;
      }
      used += bytes;
      std::sort(found.begin(), found.end(), [](const Op* x, const Op* y) {
        return x->created_at != y->created_at ? x->created_at < y->created_at : x->id < y->id;
      });
      for (const Op* op : found) ids += ' ' + to_hex(as_bytes(op->id));
    }
    return "ids " + std::to_string(used) + ids;
  }

 private:
  const Node& node_;
  const std::vector<Op>& all_;
  DhtModel model_;
  std::vector<const Op*> ops_;
};

void print_round(std::ostream& out, const Side& first, const Side& second, Seen& seen) {
  const SectorSet common = first.node().sectors.common(second.node().sectors);
  out << first.node().name << second.node().name << " common " << common.to_string() << '\n';
  if (common.empty()) {
    ++seen["no common sector"];
    return;
  }
  Snapshot theirs = first.model().minimal(common);
  out << first.node().name << " accepts " << to_text(theirs) << '\n';
  std::array<std::optional<Snapshot>, 2> shown;
  for (std::size_t turn = 0;; ++turn) {
    const Side& side = turn % 2 == 0 ? second : first;
    const auto next = side.model().handle(theirs, shown[turn % 2], common);
    out << side.node().name << " answers ";
    if (!next) {
      out << next.error().to_string() << '\n';
      return;
    }
    if (std::holds_alternative<Identical>(*next)) {
      out << "identical\n";
      ++seen[turn == 0 ? "two that are identical" : "a later step that found no difference"];
      return;
    }
    if (std::holds_alternative<CannotCompare>(*next)) {
      out << "cannot_compare\n";
      ++seen["two that cannot be compared"];
      return;
    }
    if (const auto* ids = std::get_if<SendIds>(&*next)) {
      out << side.ids_of(ids->slices, seen) << '\n';
      ++seen["a round to the end"];
      return;
    }
    if (const auto* send = std::get_if<SendSnapshot>(&*next)) {
      theirs = send->snapshot;
      out << to_text(theirs) << '\n';
    } else {
      const auto& both = std::get<SendSnapshotAndIds>(*next);
      theirs = both.snapshot;
      out << to_text(theirs) << " and " << side.ids_of(both.slices, seen) << '\n';
    }
    static constexpr const char* kKinds[] = {"", "disc sectors", "disc sector details", "ring sector details"};
    ++seen[kKinds[theirs.index()]];
    shown[turn % 2] = theirs;
  }
}

std::string answer(const Case& asked, Seen& seen) {
  std::ostringstream out;
  std::vector<Side> sides;
  for (const Node& node : asked.nodes) {
    Side& side = sides.emplace_back(node, asked.ops);
    side.print_layout(out);
    side.store(true);
    side.print_all(out, asked.shown);
    if (node.later != node.now) {
      side.update();
      side.print_all(out, asked.shown);
    }
    side.model().check_invariants();
  }
  for (std::size_t second = 1; second < kNodes; ++second) {
    for (std::size_t first = 0; first < second; ++first) {
      const bool is_swapped = (first + second) % 2 == 1;
      print_round(out, sides[is_swapped ? second : first], sides[is_swapped ? first : second], seen);
    }
  }
  out << "end\n";
  return out.str();
}

/// A process of the oracle, with pipes.
class Oracle {
 public:
  explicit Oracle(const std::string& path) {
    int in[2], out[2];
    if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    child_ = ::fork();
    if (child_ == 0) {
      ::dup2(in[0], 0);
      ::dup2(out[1], 1);
      ::execl(path.c_str(), path.c_str(), nullptr);
      std::perror(path.c_str());
      ::_exit(127);
    }
    ::close(in[0]);
    ::close(out[1]);
    to_ = ::fdopen(in[1], "w");
    from_ = ::fdopen(out[0], "r");
  }
  Oracle(const Oracle&) = delete;
  Oracle& operator=(const Oracle&) = delete;
  ~Oracle() {
    std::fclose(to_);
    std::fclose(from_);
    ::waitpid(child_, nullptr, 0);
  }

  /// It reads the whole question before it answers.
  std::string ask(const std::string& question) {
    std::fwrite(question.data(), 1, question.size(), to_);
    std::fflush(to_);
    std::string out;
    char* line = nullptr;
    std::size_t size = 0;
    for (ssize_t n = 0; (n = ::getline(&line, &size, from_)) > 0;) {
      out.append(line, static_cast<std::size_t>(n));
      if (std::string_view(line, static_cast<std::size_t>(n)) == "end\n") break;
    }
    std::free(line);
    return out;
  }

 private:
  pid_t child_ = -1;
  std::FILE* to_ = nullptr;
  std::FILE* from_ = nullptr;
};

/// The first line that differs, of both.
std::string difference(const std::string& ours, const std::string& theirs) {
  std::istringstream a(ours), b(theirs);
  for (std::string x, y;;) {
    const bool has_x = !std::getline(a, x).fail(), has_y = !std::getline(b, y).fail();
    if (!has_x) x = "(nothing)";
    if (!has_y) y = "(nothing)";
    if (x != y || !has_x) return "  ours:   " + x.substr(0, 400) + "\n  theirs: " + y.substr(0, 400) + '\n';
  }
}

struct Outcome {
  std::uint64_t equal = 0, different = 0;  ///< cases
  Seen seen;
  std::string first_difference;
};

Outcome compare(const std::string& path, std::uint64_t cases, std::uint64_t seed) {
  Oracle oracle(path);
  Maker maker(seed);
  Outcome out;
  for (std::uint64_t number = 0; number < cases; ++number) {
    const Case asked = maker.make(number);
    const std::string text = question(asked), theirs = oracle.ask(text), ours = answer(asked, out.seen);
    if (ours == theirs) {
      ++out.equal;
    } else if (++out.different == 1) {
      out.first_difference = "case " + std::to_string(number) + " of seed " + std::to_string(seed) + " differs:\n" +
                             difference(ours, theirs) + text;
    }
  }
  return out;
}

/// Whether an op that only the oracle is told of makes a difference.
bool is_awake(const std::string& path) {
  Case asked = Maker(1).make(0);
  asked.ops.assign(1, Op{std::string(32, 'x'), 0, 1, "b", false});
  asked.shown.add(DhtArc::full());
  const std::string text = question(asked);
  Seen seen;
  Oracle oracle(path);
  if (oracle.ask(text) != answer(asked, seen)) return false;
  asked.ops.clear();
  return oracle.ask(text) != answer(asked, seen);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return std::cerr << "usage: dht-pairs ORACLE PAIRS SEED\n", 2;
  const std::string oracle = argv[1];
  const std::uint64_t cases = (std::stoull(argv[2]) + kPairs - 1) / kPairs, seed = std::stoull(argv[3]);
  if (!is_awake(oracle)) return std::cerr << "an op that one model lacks makes no difference\n", 1;
  std::array<Outcome, 2> halves;
  std::thread other([&] { halves[1] = compare(oracle, cases - cases / 2, seed + 1); });
  halves[0] = compare(oracle, cases / 2, seed);
  other.join();
  Seen seen = halves[0].seen;
  for (const auto& [what, count] : halves[1].seen) seen[what] += count;
  for (const auto& [what, count] : seen) std::cout << "SEEN " << count << ' ' << what << '\n';
  for (const Outcome& half : halves) std::cerr << half.first_difference;
  const std::uint64_t equal = halves[0].equal + halves[1].equal, different = halves[0].different + halves[1].different;
  std::cout << "END " << equal * kPairs << " pairs equal, " << different * kPairs << " different, seed " << seed
            << std::endl;
  return different == 0 ? 0 : 1;
}
