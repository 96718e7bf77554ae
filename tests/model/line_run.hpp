// A node that fetches over simulated lines: FetchCore, a ServeCore for each source, and between them delay, rate,
// jitter, the permits of tx5, and lost connections. Only time is simulated.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "core/fetch/fetch_core.hpp"
#include "core/fetch/serve_core.hpp"

namespace kitsune2::model {

struct Line {
  Duration trip{};          ///< the round trip
  double bytes_per_us = 0;  ///< from the source to the fetching node; 0: no limit
  Duration jitter{};        ///< additional delay up to this, for each message; messages do not overtake each other
  Duration lost_every{};    ///< how often the connection is lost; zero: never
  bool splits = true;       ///< false: the peer answers each request with one message, like a stock node
};

class LineRun {
 public:
  static constexpr std::uint64_t kFrame = 16'380;
  static constexpr std::uint64_t kOpHead = 6;  ///< of the encoding, for each op
  static constexpr Duration kSendQueue = std::chrono::milliseconds(20);
  /// The time to read a message, compute its ids and pass it on, and that to read and encode a response.
  static constexpr Duration kWork{20};

  struct Result {
    Duration took{};
    std::uint64_t requests = 0, messages = 0, permits = 0, overdue = 0;
    std::uint64_t most_asked = 0;                 ///< the most bytes requested at a time
    std::map<std::size_t, std::uint64_t> served;  ///< bytes, by source
    bool complete = false;
  };

  LineRun(const CoreFetchConfig& config, std::vector<Line> lines, std::uint64_t seed = 1)
      : config_(config), fetch_(config), random_(seed) {
    for (std::size_t i = 0; i < lines.size(); ++i) {
      auto peer = std::make_unique<Peer>();
      peer->line = lines[i];
      peer->url = Url::parse("ws://relay:80/source" + std::to_string(i)).value();
      peer->serve = std::make_unique<ServeCore>(
          ServeCore::Limits{CoreFetchConfig{}.max_incoming_requests_per_peer, 4U << 20, 32U << 20});
      peers_.push_back(std::move(peer));
    }
  }

  /// Fetches all of `count` ops of `size` bytes from all sources.
  Result run(std::size_t count, std::uint64_t size, Duration most = std::chrono::minutes(10)) {
    size_ = size;
    std::vector<OpId> ids;
    for (std::size_t i = 0; i < count; ++i) ids.push_back(id_of(i));
    for (auto& peer : peers_) {
      fetch_.add(ids, peer->url, now_);
      if (peer->line.lost_every > Duration(0)) lose_later(*peer);
    }
    pump();
    while (!events_.empty() && fetch_.pending_ops() > 0 && now_ - Time{} < most) {
      const Event event = events_.top();
      events_.pop();
      now_ = event.at;
      event.what();
      pump();
    }
    out_.complete = fetch_.pending_ops() == 0;
    out_.took = now_ - Time{};
    return out_;
  }

 private:
  struct Asked {
    std::vector<OpId> ids;
    std::size_t next = 0;
  };
  struct Peer {
    Line line;
    Url url;
    std::unique_ptr<ServeCore> serve;
    std::map<ServeCore::RequestId, Asked> asked;
    std::map<ServeCore::ReadId, std::vector<OpId>> answers;
    Time line_free{}, arrives{}, request_arrives{};
    std::uint64_t connection = 0;
  };
  struct Event {
    Time at;
    std::uint64_t order;
    std::function<void()> what;
    bool operator<(const Event& other) const { return std::pair(other.at, other.order) < std::pair(at, order); }
  };

  static OpId id_of(std::size_t i) {
    std::string text(32, 'i');
    for (int b = 0; b < 4; ++b) text[static_cast<std::size_t>(b)] = static_cast<char>(i >> (8 * b));
    return OpId::from_text(text);
  }
  void at(Time when, std::function<void()> what) { events_.push({when, ++order_, std::move(what)}); }
  Duration half(const Peer& peer) {
    Duration out = peer.line.trip / 2;
    if (peer.line.jitter > Duration(0))
      out += Duration(static_cast<std::int64_t>(random_()) % peer.line.jitter.count());
    return out;
  }

  void pump() {
    out_.overdue += fetch_.poll(now_).overdue;
    while (auto request = fetch_.next_request(now_)) {
      ++out_.requests;
      const auto it = std::find_if(peers_.begin(), peers_.end(), [&](auto& p) { return p->url == request->source; });
      Peer& peer = **it;
      fetch_.on_sent(request->id, now_);
      peer.request_arrives = std::max(peer.request_arrives, now_ + half(peer));
      at(peer.request_arrives, [this, &peer, ids = request->op_ids, connection = peer.connection] {
        if (connection == peer.connection) ask(peer, ids);
      });
    }
    out_.most_asked = std::max<std::uint64_t>(out_.most_asked, fetch_.counts().asked_ops * size_);
    if (const auto deadline = fetch_.next_deadline(); deadline && (!woken_ || *deadline < *woken_)) {
      woken_ = deadline;
      at(*deadline, [this] { woken_.reset(); });
    }
  }

  void ask(Peer& peer, const std::vector<OpId>& ids) {
    if (peer.line.splits) peer.serve->note_round_trip(peer.url, peer.line.trip);
    const auto id = peer.serve->on_request(peer.url, 4096 + 34 * ids.size(), now_);
    if (id) peer.asked[*id] = {ids};
    perform(peer);
  }

  void perform(Peer& peer) {
    for (const auto& action : peer.serve->take_actions()) {
      if (const auto* read = std::get_if<ServeCore::Read>(&action)) {
        at(now_ + kWork, [this, &peer, read = *read, connection = peer.connection] {
          if (connection == peer.connection) end_read(peer, read);
        });
      } else if (const auto* send = std::get_if<ServeCore::Send>(&action)) {
        begin_send(peer, send->read);
      }
    }
  }

  void end_read(Peer& peer, const ServeCore::Read& read) {
    ServeCore::ReadOutcome outcome;
    std::vector<OpId> ids;
    const auto it = peer.asked.find(read.request);
    if (it != peer.asked.end()) {
      Asked& asked = it->second;
      const bool framed = read.max_bytes <= ServeCore::kFrameBytes && size_ + kOpHead <= kFrame;
      while (asked.next < asked.ids.size()) {
        const std::uint64_t more = size_ * (ids.size() + 1);
        if (!ids.empty() && peer.line.splits && more > read.max_bytes) break;
        if (!ids.empty() && peer.line.splits && framed && (size_ + kOpHead) * (ids.size() + 1) > kFrame) break;
        ids.push_back(asked.ids[asked.next++]);
      }
      outcome.is_exhausted = asked.next == asked.ids.size();
    }
    outcome.has_ops = !ids.empty();
    outcome.ops = ids.size();
    outcome.bytes = size_ * ids.size();
    if (outcome.has_ops) peer.answers[read.read] = ids;
    peer.serve->on_read_ended(read.read, outcome, now_);
    perform(peer);
  }

  void begin_send(Peer& peer, ServeCore::ReadId id) {
    const std::uint64_t bytes = (size_ + kOpHead) * peer.answers[id].size();
    ++out_.messages;
    if (bytes <= kFrame) return chunks(peer, id, bytes);
    ++out_.permits;
    // The permit is requested behind what is on the line already.
    const Time asked = std::max(peer.line_free, now_);
    at(asked + half(peer) + half(peer), [this, &peer, id, bytes, connection = peer.connection] {
      if (connection == peer.connection) chunks(peer, id, bytes);
    });
  }

  void chunks(Peer& peer, ServeCore::ReadId id, std::uint64_t bytes) {
    const double rate = peer.line.bytes_per_us;
    const Time begun = std::max(peer.line_free, now_);
    const auto takes = [&](std::uint64_t n) {
      return Duration(rate > 0 ? static_cast<std::int64_t>(static_cast<double>(n) / rate) : 0);
    };
    peer.line_free = begun + takes(bytes);
    const Duration way = half(peer);
    const auto connection = peer.connection;
    for (std::uint64_t came = kFrame; came < bytes; came += 16 * kFrame) {
      at(std::max(peer.arrives, begun + takes(came) + way), [this, &peer, connection] {
        if (connection == peer.connection) fetch_.on_progress(peer.url, kFrame, now_);
      });
    }
    peer.arrives = std::max(peer.arrives, peer.line_free + way) + kWork;
    at(peer.arrives, [this, &peer, connection, ids = peer.answers[id], index = index_of(peer)] {
      if (connection != peer.connection) return;
      fetch_.on_response(peer.url, ids, size_ * ids.size(), now_);
      fetch_.on_stored(ids, now_);
      out_.served[index] += size_ * ids.size();
    });
    at(std::max(now_, peer.line_free - kSendQueue), [this, &peer, id, connection] {
      peer.answers.erase(id);
      if (connection != peer.connection) return;
      peer.serve->on_sent(id, true, now_);
      perform(peer);
    });
  }

  void lose_later(Peer& peer) {
    at(now_ + peer.line.lost_every, [this, &peer] {
      ++peer.connection;
      peer.serve = std::make_unique<ServeCore>(
          ServeCore::Limits{CoreFetchConfig{}.max_incoming_requests_per_peer, 4U << 20, 32U << 20});
      peer.asked.clear();
      peer.answers.clear();
      peer.line_free = peer.arrives = peer.request_arrives = now_;
      fetch_.on_disconnect(peer.url, now_);
      lose_later(peer);
    });
  }

  std::size_t index_of(const Peer& peer) const {
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      if (peers_[i].get() == &peer) return i;
    }
    return peers_.size();
  }

  const CoreFetchConfig config_;
  FetchCore fetch_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Peer>> peers_;
  std::priority_queue<Event> events_;
  std::uint64_t order_ = 0;
  std::uint64_t size_ = 0;
  Time now_{};
  std::optional<Time> woken_;
  Result out_;
};

}  // namespace kitsune2::model
