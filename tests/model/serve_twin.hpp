// The serving side of fetch written naively: every sum is recomputed, every list is searched. Also the run that feeds
// the same commands to it and to ServeCore.
#pragma once

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/fetch/serve_core.hpp"
#include "kitsune2/bytes.hpp"
#include "model/commands.hpp"

namespace kitsune2::model {

class ServeTwin {
 public:
  explicit ServeTwin(const ServeCore::Limits& limits) : limits_(limits) {}

  std::optional<ServeCore::RequestId> on_request(const Url& url, std::uint64_t cost, Time now, bool is_small,
                                                 std::size_t ids) {
    last_request_ = now;
    pass_to(now);
    std::uint64_t own = 0;
    std::size_t count = 0;
    for (const auto& r : requests_) {
      if (r.peer == url) own += r.cost, count += r.joined;
    }
    const bool has_enough =
        count >= limits_.max_requests_per_peer || (count > 0 && own + cost > ServeCore::kMaxQueuedBytes);
    if (!has_enough) make_room(url, own + cost, count);
    if (has_enough || !fits(own + cost, count)) {
      serve();
      return std::nullopt;
    }
    note_arrival(url, count, now);
    // The last request of this peer.
    const auto last =
        std::find_if(requests_.rbegin(), requests_.rend(), [&](const Request& r) { return r.peer == url; });
    if (is_small && last != requests_.rend() && last->is_small && !last->has_begun && last->joined < 64) {
      last->cost += cost;
      ++last->joined;
      last->ids += ids;
      const ServeCore::RequestId id = last->id;
      serve();
      return id;
    }
    requests_.push_back({++requests_seen_, url, cost, false, false, is_small, 1, ids});
    queue_up(url);
    serve();
    return requests_seen_;
  }

  void note_round_trip(const Url& peer, Duration trip) {
    known(peer).trip = trip;
    known(peer).is_measured = known(peer).took_large;
    serve();
  }

  bool on_read_ended(ServeCore::ReadId id, const ServeCore::ReadOutcome& outcome, Time now) {
    pass_to(now);
    Message& message = *find(id);
    if (message.is_stale) {
      erase(id);
      serve();
      return false;
    }
    note_major(message);
    auto& request = *first_request(message.peer);
    request.has_left_over = outcome.left_over;
    request.held += outcome.ops;
    if (!outcome.left_over && outcome.is_exhausted) {
      if (request.ids > 3 * request.joined) known(message.peer).got_few = true;
    }
    if (request.held > 3 * request.joined) known(message.peer).got_few = false;
    if (!outcome.left_over && outcome.is_exhausted) end_request(message.peer);
    if (outcome.has_ops) {
      Known& of_peer = known(message.peer);
      of_peer.has_large_ops = outcome.bytes > outcome.ops * 7680;
      const std::uint64_t weight = asks_again(message.peer) ? 8 : 1;
      if (message.is_minor && is_contended()) change(-static_cast<std::int64_t>(weight * outcome.bytes));
      message.bytes = outcome.bytes;
      message.stage = Stage::ready;
      message.since = now;
      if (!has(message.peer, Stage::sending)) send(message, now);
      queue_up(message.peer);
    } else {
      const Url peer = message.peer;
      erase(id);
      queue_up(peer);
    }
    serve();
    return true;
  }

  bool on_read_failed(ServeCore::ReadId id) {
    const Message message = *find(id);
    erase(id);
    if (!message.is_stale) {
      end_request(message.peer);
      queue_up(message.peer);
    }
    serve();
    return !message.is_stale;
  }

  void on_sent(ServeCore::ReadId id, bool ok, Time now, std::uint64_t again_bytes) {
    pass_to(now);
    const Message message = *find(id);
    erase(id, ok);
    if (ok && !message.is_minor) change(static_cast<std::int64_t>(message.bytes));
    std::erase_if(watched_, [&](const auto& w) { return w.id == id; });
    if (!message.is_stale) {
      const Url& peer = message.peer;
      if (ok) {
        Known& of_peer = known(peer);
        of_peer.taken = std::min(of_peer.taken + message.bytes, ServeCore::kProvenBytes);
        of_peer.sent += message.bytes;
        of_peer.sent_again += again_bytes;
        const Duration took = now - message.since;
        if (message.bytes > 15'360) of_peer.took_large = true;
        const Duration trip = distance(of_peer);
        if (trip >= Duration(3'000) && message.bytes > 15'360) {
          const Duration flow = took > trip ? took - trip : Duration(1);
          const std::uint64_t sixteen =
              message.bytes * static_cast<std::uint64_t>(16 * trip.count()) / static_cast<std::uint64_t>(flow.count());
          of_peer.far_bytes = std::min(std::min(sixteen, 16 * message.bytes), limits_.max_far_response_bytes);
        }
        for (Message& other : messages_) {
          if (!other.is_stale && other.peer == peer && other.stage == Stage::ready) {
            send(other, now);
            break;
          }
        }
      } else {
        for (std::size_t i = 0; i < messages_.size();) {
          Message& other = messages_[i];
          if (other.is_stale || other.peer != peer) {
            ++i;
          } else if (other.stage == Stage::ready) {
            actions_.emplace_back(ServeCore::Discard{other.id});
            note_major(other);
            messages_.erase(messages_.begin() + static_cast<std::ptrdiff_t>(i));
          } else {
            other.is_stale = true;
            ++i;
          }
        }
        if (auto* request = first_request(peer); request != nullptr && request->has_begun) end_request(peer);
      }
      queue_up(peer);
    }
    serve();
  }

  void forget(const Url& peer) {
    std::erase_if(known_, [&](const auto& k) { return k.peer == peer; });
    while (first_request(peer) != nullptr) end_request(peer);
    for (std::size_t i = 0; i < messages_.size();) {
      Message& message = messages_[i];
      if (message.is_stale || message.peer != peer) {
        ++i;
      } else if (message.stage == Stage::ready) {
        actions_.emplace_back(ServeCore::Discard{message.id});
        note_major(message);
        messages_.erase(messages_.begin() + static_cast<std::ptrdiff_t>(i));
      } else {
        message.is_stale = true;
        ++i;
      }
    }
    for (auto& turns : turns_) std::erase(turns, peer);
    serve();
  }

  std::optional<Time> next_deadline() const {
    std::vector<Time> times;
    if (!watched_.empty() && (!turns_[0].empty() || !turns_[2].empty()))
      times.push_back(watched_.front().since + ServeCore::kPatience);
    if ((!turns_[2].empty() || !turns_[3].empty()) && is_contended() && !reads_minor() && level_ <= 0) {
      times.push_back(now_ + Duration(-level_ / 64 + 1));
      const bool has_majors = !turns_[0].empty() || !turns_[1].empty() || is_a_major_served();
      if (!has_majors) times.push_back(others_until_);
    }
    if (times.empty()) return std::nullopt;
    return *std::min_element(times.begin(), times.end());
  }

  void on_deadline(Time now) {
    pass_to(now);
    std::vector<Watch> late;
    while ((!turns_[0].empty() || !turns_[2].empty()) && !watched_.empty() &&
           now - watched_.front().since >= ServeCore::kPatience) {
      late.push_back({watched_.front().id, watched_.front().peer, now});
      watched_.erase(watched_.begin());
    }
    for (const Watch& watch : late) {
      actions_.emplace_back(ServeCore::Disconnect{watch.peer});
      watched_.push_back(watch);
    }
    serve();
  }

  std::size_t reads_under_way() const {
    return static_cast<std::size_t>(
        std::count_if(messages_.begin(), messages_.end(), [](const auto& m) { return m.stage == Stage::reading; }));
  }
  bool is_busy(Time now) const {
    const bool waits = std::any_of(messages_.begin(), messages_.end(), [](const auto& m) { return !m.is_stale; });
    return waits || !requests_.empty() || (last_request_ && now < *last_request_ + ServeCore::kBusyFor);
  }
  std::vector<ServeCore::Action> take_actions() { return std::exchange(actions_, {}); }

 private:
  enum class Stage { reading, ready, sending };
  struct Request {
    ServeCore::RequestId id;
    Url peer;
    std::uint64_t cost;
    bool has_begun;
    bool has_left_over;
    bool is_small;
    std::size_t joined;
    std::size_t ids;
    std::uint64_t held = 0;
  };
  /// A response, from its read to the end of its send. `bytes`: first its limit, later its size.
  struct Message {
    ServeCore::ReadId id;
    Url peer;
    std::size_t lane;
    bool is_minor;
    std::uint64_t bytes;
    Stage stage;
    Time since;
    bool is_stale;            ///< its peer is gone, or an earlier message to that peer has failed
    std::uint64_t place = 0;  ///< in the order of sending
  };
  struct Known {
    Url peer;
    std::uint64_t taken = 0;
    Duration trip{0};
    bool took_large = false, is_measured = false, had_many = false;
    std::vector<Time> ended{};           ///< S13: of each request
    std::vector<Duration> came_after{};  ///< S13: of each request that counts, since the one before last ended
    bool has_large_ops = false, got_few = false;
    std::uint64_t far_bytes = 0;
    std::uint64_t sent = 0, sent_again = 0;
  };
  struct Watch {
    ServeCore::ReadId id;
    Url peer;
    Time since;
  };

  /// S5. `own`: with the new request; `count`: how many wait without it.
  bool fits(std::uint64_t own, std::size_t count) const {
    std::uint64_t all = 0;
    for (const auto& r : requests_) all += r.cost;
    if (all == 0) return true;
    if (all > ServeCore::kMaxAllQueuedBytes) return false;
    const std::uint64_t left = ServeCore::kMaxAllQueuedBytes - all;
    return count == 0 && own <= 65'536 ? own <= left : own <= left / 6;
  }
  /// S15.
  void make_room(const Url& url, std::uint64_t own, std::size_t count) {
    std::vector<Message> lie;
    for (const Message& message : messages_) {
      if (message.stage == Stage::sending) lie.push_back(message);
    }
    std::ranges::sort(lie, {}, &Message::place);
    for (const Message& message : lie) {
      if (fits(own, count) || now_ - message.since < std::chrono::seconds(2)) return;
      if (message.is_stale) continue;
      if (message.peer == url) return;
      const bool is_reading = has(message.peer, Stage::reading);
      ServeCore::Drop dropped{message.peer, 0, 0};
      for (std::size_t i = requests_.size(); i-- > 0;) {
        if (requests_[i].peer != message.peer) continue;
        if (is_reading && first_request(message.peer) == &requests_[i]) continue;
        actions_.emplace_back(ServeCore::Forget{requests_[i].id});
        dropped.requests += requests_[i].joined;
        dropped.cost += requests_[i].cost;
        requests_.erase(requests_.begin() + static_cast<std::ptrdiff_t>(i));
      }
      if (dropped.requests > 0) actions_.emplace_back(dropped);
      queue_up(message.peer);
    }
  }
  Known& known(const Url& peer) {
    for (Known& each : known_) {
      if (each.peer == peer) return each;
    }
    return known_.emplace_back(Known{.peer = peer});
  }
  std::size_t lane_of(const Url& peer) { return known(peer).taken >= ServeCore::kProvenBytes ? 1 : 0; }
  bool asks_again(const Url& peer) {
    const Known& of_peer = known(peer);
    return of_peer.sent_again >= (1U << 20) && 2 * of_peer.sent_again > of_peer.sent;
  }
  /// S13. The last request that ended is the one before last, or the last one, if none waits.
  void note_arrival(const Url& peer, std::size_t waiting, Time now) {
    Known& of_peer = known(peer);
    if (waiting > 1) of_peer.had_many = true;
    if (of_peer.had_many) return;
    const std::size_t back = 2 - waiting;
    if (of_peer.ended.size() >= back) of_peer.came_after.push_back(now - of_peer.ended[of_peer.ended.size() - back]);
  }
  static Duration distance(const Known& of_peer) {
    Duration least = of_peer.trip;
    if (of_peer.is_measured) return least;
    for (const Duration each : of_peer.came_after) least = std::min(least, each);
    return least;
  }
  /// S11. One that is not taken counts in the second in which that began, and in the next one.
  bool counts(const Message& message) const {
    const auto second = [](Time at) { return std::chrono::floor<std::chrono::seconds>(at.time_since_epoch()).count(); };
    return !message.is_minor && (message.stage == Stage::reading || second(now_) - second(message.since) <= 1);
  }
  bool is_a_major_served() const {
    return std::ranges::any_of(messages_, [&](const Message& message) { return counts(message); });
  }
  bool reads_minor() const {
    return std::ranges::any_of(messages_, [](const auto& m) { return m.is_minor && m.stage == Stage::reading; });
  }
  /// S11.
  bool is_contended() const {
    return now_ < others_until_ || !turns_[0].empty() || !turns_[1].empty() || is_a_major_served();
  }
  void note_major(const Message& message, bool is_taken = false) {
    if (counts(message) || (is_taken && !message.is_minor)) others_until_ = now_ + ServeCore::kBusyFor;
  }
  void pass_to(Time now) {
    if (now <= now_) return;
    level_ = std::min<std::int64_t>(16 << 20, level_ + 64 * (now - now_).count());
    now_ = now;
  }
  void change(std::int64_t bytes) { level_ = std::clamp<std::int64_t>(level_ + bytes, -(16 << 20), 16 << 20); }
  std::uint64_t most_bytes(const Url& peer) {
    const Known of_peer = known(peer);
    const bool is_far = distance(of_peer) >= Duration(3'000);
    std::uint64_t most = limits_.max_response_bytes;
    const std::uint64_t used = serving_bytes(1), left = used < (64U << 20) ? (64U << 20) - used : 0;
    if (lane_of(peer) == 1 && left < 32U << 20) most = std::min(most, std::max<std::uint64_t>(left / 16, 15'360));
    if (lane_of(peer) == 0) {
      const auto trusted = std::max(ServeCore::kFirstResponseBytes, ServeCore::kTrust * of_peer.taken);
      most = std::min({most, ServeCore::kProvenBytes, trusted});
    } else if (is_far && of_peer.has_large_ops) {
      most = std::max(most, std::min<std::uint64_t>(
                                {of_peer.far_bytes, (32U << 20) / std::max<std::size_t>(1, peers()), left / 2}));
    }
    const Request* first = first_request(peer);
    const bool is_joined = first != nullptr && first->joined > 1;
    if (is_joined) return std::min<std::uint64_t>(most, 15'360);
    if (asks_again(peer) && is_contended()) return std::min<std::uint64_t>(most, 65'536);
    return is_far && !of_peer.has_large_ops ? std::min<std::uint64_t>(most, 15'360) : most;
  }
  std::uint64_t serving_bytes(std::size_t lane) const {
    std::uint64_t sum = 0;
    for (const Message& message : messages_) sum += message.lane == lane ? message.bytes : 0;
    return sum;
  }
  Message* find(ServeCore::ReadId id) {
    const auto it = std::find_if(messages_.begin(), messages_.end(), [&](const auto& m) { return m.id == id; });
    return it == messages_.end() ? nullptr : &*it;
  }
  void erase(ServeCore::ReadId id, bool is_taken = false) {
    note_major(*find(id), is_taken);
    std::erase_if(messages_, [&](const auto& m) { return m.id == id; });
  }
  bool has(const Url& peer, Stage stage) const {
    return std::any_of(messages_.begin(), messages_.end(),
                       [&](const auto& m) { return !m.is_stale && m.peer == peer && m.stage == stage; });
  }
  Request* first_request(const Url& peer) {
    const auto it = std::find_if(requests_.begin(), requests_.end(), [&](const auto& r) { return r.peer == peer; });
    return it == requests_.end() ? nullptr : &*it;
  }
  void end_request(const Url& peer) {
    const auto it = std::find_if(requests_.begin(), requests_.end(), [&](const auto& r) { return r.peer == peer; });
    actions_.emplace_back(ServeCore::Forget{it->id});
    for (Known& each : known_) {
      if (each.peer == peer) each.ended.insert(each.ended.end(), it->joined, now_);
    }
    requests_.erase(it);
  }
  void queue_up(const Url& peer) {
    if (first_request(peer) == nullptr) {
      for (auto& turns : turns_) std::erase(turns, peer);
      return;
    }
    if (has(peer, Stage::reading) || has(peer, Stage::ready)) return;
    for (const auto& turns : turns_) {
      if (std::find(turns.begin(), turns.end(), peer) != turns.end()) return;
    }
    const std::size_t lane = lane_of(peer);
    const bool takes_much = std::any_of(messages_.begin(), messages_.end(), [&](const auto& m) {
      return !m.is_stale && m.peer == peer && m.stage == Stage::sending && m.bytes > limits_.max_response_bytes;
    });
    if (takes_much || (lane == 0 && has(peer, Stage::sending))) return;
    const Request& first = *first_request(peer);
    const bool has_few = !known(peer).has_large_ops && (first.ids <= 3 * first.joined || known(peer).got_few);
    const bool is_minor = has_few || asks_again(peer);
    turns_[lane + (is_minor ? 2 : 0)].push_back(peer);
  }
  std::size_t peers() const {
    std::vector<Url> urls;
    for (const Request& request : requests_) urls.push_back(request.peer);
    for (const Message& message : messages_) {
      if (!message.is_stale) urls.push_back(message.peer);
    }
    std::sort(urls.begin(), urls.end());
    return static_cast<std::size_t>(std::unique(urls.begin(), urls.end()) - urls.begin());
  }
  bool may_read(std::size_t turns) {
    if (turns_[turns].empty() || reads_under_way() >= ServeCore::kMaxReads) return false;
    if (turns >= 2 && is_contended() && (reads_minor() || level_ <= 0)) return false;
    const std::uint64_t under_way = serving_bytes(turns % 2);
    return under_way == 0 || under_way + most_bytes(turns_[turns].front()) <= ServeCore::kMaxServingBytes;
  }
  void serve() {
    while (may_read(0) || may_read(1)) read(0);
    while (may_read(2) || may_read(3)) read(2);
  }
  void read(std::size_t kind) {
    std::size_t& next = next_lane_[kind / 2];
    const std::size_t lane = may_read(kind + next) ? next : 1 - next;
    next = 1 - lane;
    auto& turns = turns_[kind + lane];
    const Url peer = turns.front();
    turns.erase(turns.begin());
    Request& request = *first_request(peer);
    const std::size_t ids = peers() > 1 ? ServeCore::kSharedIdsPerRead : ServeCore::kMaxIdsPerRead;
    const std::uint64_t most = most_bytes(peer);
    if (kind == 2 && is_contended() && !request.has_begun) change(-static_cast<std::int64_t>(request.joined << 14));
    messages_.push_back({++reads_seen_, peer, lane, kind == 2, most, Stage::reading, {}, false});
    actions_.emplace_back(
        ServeCore::Read{reads_seen_, request.id, peer, std::exchange(request.has_left_over, false), ids, most});
    request.has_begun = true;
  }
  void send(Message& message, Time now) {
    message.stage = Stage::sending;
    message.since = now;
    message.place = ++sends_seen_;
    if (message.lane == 0) watched_.push_back({message.id, message.peer, now});
    actions_.emplace_back(ServeCore::Send{message.id, message.peer});
  }

  const ServeCore::Limits limits_;
  std::vector<Request> requests_;  ///< of all peers, in the order of arrival
  std::vector<Message> messages_;
  std::vector<Url> turns_[4];  ///< unproven, proven; the same for minor requests
  std::size_t next_lane_[2] = {1, 1};
  Time now_{}, others_until_{};
  std::int64_t level_ = 16 << 20;
  std::vector<Watch> watched_;
  std::vector<Known> known_;
  std::vector<ServeCore::Action> actions_;
  std::optional<Time> last_request_;
  std::uint64_t requests_seen_ = 0, reads_seen_ = 0, sends_seen_ = 0;
};

/// The cases that runs have met, so that a test can see that none is missing.
struct ServeCoverage {
  std::uint64_t commands = 0, requests = 0, refused = 0, reads = 0, left_over = 0, sends = 0, failed_sends = 0;
  std::uint64_t framed = 0, far = 0, discarded = 0, forgotten = 0, disconnected = 0, stale_reads = 0, proven = 0,
                waiting = 0, joined = 0, held_back = 0, again = 0, dropped = 0;
};

/// Reads commands from bytes and gives them to the core and to the twin. Throws std::logic_error when they differ.
class ServeTwinRun {
 public:
  explicit ServeTwinRun(ByteView commands, ServeCoverage* coverage = nullptr) : commands_(commands) {
    if (coverage != nullptr) coverage_ = coverage;
    // A few peers soon prove themselves; many compete for the room.
    const int peers = byte() % 2 == 0 ? 24 : 3;
    for (int i = 0; i < peers; ++i) urls_.push_back(Url::parse("ws://h:1/peer" + std::to_string(i)).value());
  }

  void run() {
    while (!commands_.is_empty()) {
      ++coverage_->commands;
      step();
      compare();
    }
  }

 private:
  std::uint8_t byte() { return commands_.byte(); }

  void step() {
    const std::uint8_t what = byte() % 16;
    if (what < 6) return ask();
    if (what < 10 && !reads_.empty()) return end_read();
    if (what < 14 && !sends_.empty()) return end_send();
    if (what == 14) return pass_time();
    if (what == 15) return byte() % 4 == 0 ? leave() : tell_trip();
  }

  void ask() {
    const Url& peer = urls_[byte() % urls_.size()];
    static constexpr std::uint64_t kCosts[] = {4096, 20'000, 1U << 20, 3U << 20};
    const std::uint64_t cost = kCosts[byte() % 4];
    const std::uint8_t size = byte();
    const bool is_small = size % 2 == 0;
    const std::size_t ids = size / 2 % 8;
    const auto id = core_.on_request(peer, cost, now_, is_small, ids);
    check(id == twin_.on_request(peer, cost, now_, is_small, ids), "request");
    ++(id ? coverage_->requests : coverage_->refused);
    coverage_->joined += id && *id <= newest_ ? 1 : 0;
    if (id) newest_ = std::max(newest_, *id);
  }

  void tell_trip() {
    const Url& peer = urls_[byte() % urls_.size()];
    const Duration trip{std::int64_t{1} << (byte() % 20)};
    core_.note_round_trip(peer, trip);
    twin_.note_round_trip(peer, trip);
  }

  void end_read() {
    const std::size_t at = byte() % reads_.size();
    const ServeCore::Read read = reads_[at];
    reads_.erase(reads_.begin() + static_cast<std::ptrdiff_t>(at));
    const std::uint8_t how = byte();
    if (how % 8 == 0) {
      const bool is_wanted = core_.on_read_failed(read.read);
      check(is_wanted == twin_.on_read_failed(read.read), "read_failed");
      return;
    }
    ServeCore::ReadOutcome outcome;
    outcome.has_ops = how % 8 != 1;
    outcome.ops = 1 + byte() % 64;
    if (outcome.has_ops) outcome.bytes = how % 8 == 2 ? 2 * read.max_bytes : read.max_bytes * byte() / 255;
    outcome.left_over = outcome.has_ops && (how & 16U) != 0;
    outcome.is_exhausted = (how & 32U) != 0;
    const bool is_wanted = core_.on_read_ended(read.read, outcome, now_);
    check(is_wanted == twin_.on_read_ended(read.read, outcome, now_), "read_ended");
    coverage_->stale_reads += is_wanted ? 0 : 1;
  }

  void end_send() {
    const std::size_t at = byte() % sends_.size();
    const ServeCore::ReadId id = sends_[at];
    sends_.erase(sends_.begin() + static_cast<std::ptrdiff_t>(at));
    const std::uint8_t how = byte();
    const bool ok = how % 8 != 0;
    const std::uint64_t again = how < 96 ? std::uint64_t{how} << 16 : 0;
    coverage_->failed_sends += ok ? 0 : 1;
    coverage_->again += again > 0 ? 1 : 0;
    core_.on_sent(id, ok, now_, again);
    twin_.on_sent(id, ok, now_, again);
  }

  void pass_time() {
    const auto deadline = core_.next_deadline();
    if (const std::uint8_t how = byte(); how % 4 == 0 && deadline) {
      now_ = std::max(now_, *deadline);
    } else {
      now_ += Duration(std::int64_t{1} << (how % 24));
    }
    if (deadline && now_ >= *deadline) {
      core_.on_deadline(now_);
      twin_.on_deadline(now_);
    }
  }

  void leave() {
    const Url& peer = urls_[byte() % urls_.size()];
    core_.forget(peer);
    twin_.forget(peer);
    ++coverage_->forgotten;
  }

  void compare() {
    const std::vector<ServeCore::Action> actions = core_.take_actions();
    check(actions == twin_.take_actions(), "actions");
    for (const auto& action : actions) {
      if (const auto* read = std::get_if<ServeCore::Read>(&action)) {
        reads_.push_back(*read);
        ++coverage_->reads;
        coverage_->left_over += read->left_over ? 1 : 0;
        coverage_->framed += read->max_bytes == ServeCore::kFrameBytes ? 1 : 0;
        coverage_->far += read->max_bytes > kLimits.max_response_bytes ? 1 : 0;
        coverage_->proven += read->max_bytes > ServeCore::kProvenBytes ? 1 : 0;
      } else if (const auto* send = std::get_if<ServeCore::Send>(&action)) {
        sends_.push_back(send->read);
        ++coverage_->sends;
      } else if (std::holds_alternative<ServeCore::Discard>(action)) {
        ++coverage_->discarded;
      } else if (std::holds_alternative<ServeCore::Disconnect>(action)) {
        ++coverage_->disconnected;
      } else if (const auto* drop = std::get_if<ServeCore::Drop>(&action)) {
        coverage_->dropped += drop->requests;
      }
    }
    check(core_.next_deadline() == twin_.next_deadline(), "next_deadline");
    check(core_.is_busy(now_) == twin_.is_busy(now_), "is_busy");
    check(core_.reads_under_way() == twin_.reads_under_way(), "reads_under_way");
    coverage_->waiting += core_.next_deadline() ? 1 : 0;
    coverage_->held_back += core_.next_deadline() && *core_.next_deadline() - now_ <= ServeCore::kBusyFor ? 1 : 0;
    core_.check_invariants();
  }

  void check(bool same, const char* what) const {
    if (same) return;
    throw std::logic_error(std::string("ServeCore and its twin differ in ") + what + " after command " +
                           std::to_string(coverage_->commands));
  }

  static constexpr ServeCore::Limits kLimits{.max_requests_per_peer = 5, .max_response_bytes = 8U << 20};
  Commands commands_;
  ServeCoverage own_coverage_;
  ServeCoverage* coverage_ = &own_coverage_;
  ServeCore core_{kLimits};
  ServeTwin twin_{kLimits};
  Time now_{};
  ServeCore::RequestId newest_ = 0;
  std::vector<Url> urls_;
  std::vector<ServeCore::Read> reads_;
  std::vector<ServeCore::ReadId> sends_;
};

}  // namespace kitsune2::model
