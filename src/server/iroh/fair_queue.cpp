// Whose frame is next: deficit round robin of addresses, and of the senders of each.
#include "server/iroh/fair_queue.hpp"

#include <algorithm>
#include <utility>

#include "kitsune2/error.hpp"

namespace kitsune2::server {
namespace {

constexpr std::uint8_t kBatchFromRelay = 7;

/// The first of `list` that may send what costs `cost(it)`; those before it have had their turn.
template <class List, class Cost>
auto& first_in_turn(List& list, const Cost& cost) {
  while (true) {
    auto& one = list.front();
    if (!std::exchange(one.turn.begun, true)) one.turn.deficit += FairQueue::kQuantum;
    if (cost(one) <= one.turn.deficit) return one;
    one.turn.begun = false;
    list.splice(list.end(), list, list.begin());
  }
}

template <class List, class Is>
auto* find(List& list, const Is& is) {
  const auto found = std::ranges::find_if(list, is);
  return found == list.end() ? nullptr : &*found;
}

}  // namespace

std::size_t FairQueue::cost_of(ByteView frame) {
  std::size_t datagrams = 1;
  if (frame.size() > kBatchHead && frame[0] == kBatchFromRelay) {
    const std::size_t segment = std::size_t{frame[kBatchHead - 2]} << 8U | frame[kBatchHead - 1];
    if (segment != 0) datagrams = (frame.size() - kBatchHead + segment - 1) / segment;
  }
  return std::min(frame.size() + datagrams * kDatagramCost, kMostCost);
}

bool FairQueue::may_add(const Ip& address, const Id& sender, std::size_t bytes, std::size_t most_frames,
                        std::size_t most_bytes) const {
  if (frames_ >= most_frames || bytes_ + bytes > most_bytes) return false;
  const Source* source = find(sources_, [&](const Source& one) { return one.address == address; });
  if (source == nullptr) return true;
  const auto part = [](std::size_t held, std::size_t free) { return held + free - (held + free) / 4; };
  const std::size_t its_frames = part(source->frames, most_frames - frames_);
  const std::size_t its_bytes = part(source->bytes, most_bytes - bytes_);
  if (source->frames + 1 > its_frames || source->bytes + bytes > its_bytes) return false;
  const Sender* of = find(source->senders, [&](const Sender& one) { return one.key == sender; });
  if (of == nullptr) return true;
  return of->frames.size() + 1 <= part(of->frames.size(), its_frames - source->frames) &&
         of->bytes + bytes <= part(of->bytes, its_bytes - source->bytes);
}

void FairQueue::add(const Ip& address, const Id& sender, Bytes frame) {
  const std::size_t bytes = frame.size() + kFrameOverhead;
  Source* source = find(sources_, [&](const Source& one) { return one.address == address; });
  if (source == nullptr) {
    source = &sources_.emplace_back();
    source->address = address;
  }
  Sender* of = find(source->senders, [&](const Sender& one) { return one.key == sender; });
  if (of == nullptr) {
    of = &source->senders.emplace_back();
    of->key = sender;
  }
  of->frames.push_back(std::move(frame));
  of->bytes += bytes;
  source->frames += 1;
  source->bytes += bytes;
  frames_ += 1;
  bytes_ += bytes;
}

const Bytes& FairQueue::front() {
  const auto of_sender = [](const Sender& one) { return cost_of(one.frames.front()); };
  Source& source =
      first_in_turn(sources_, [&](Source& one) { return of_sender(first_in_turn(one.senders, of_sender)); });
  return source.senders.front().frames.front();
}

Bytes FairQueue::take() {
  const std::size_t cost = cost_of(front());
  Source& source = sources_.front();
  Sender& sender = source.senders.front();
  Bytes out = std::move(sender.frames.front());
  const std::size_t bytes = out.size() + kFrameOverhead;
  sender.frames.pop_front();
  sender.bytes -= bytes;
  sender.turn.deficit -= cost;
  source.frames -= 1;
  source.bytes -= bytes;
  source.turn.deficit -= cost;
  frames_ -= 1;
  bytes_ -= bytes;
  if (sender.frames.empty()) source.senders.pop_front();
  if (source.senders.empty()) sources_.pop_front();
  return out;
}

void FairQueue::check_invariants() const {
  std::size_t frames = 0, bytes = 0;
  for (const Source& source : sources_) {
    std::size_t of_source = 0, count = 0;
    for (const Sender& sender : source.senders) {
      std::size_t own = 0;
      for (const Bytes& frame : sender.frames) own += frame.size() + kFrameOverhead;
      K2_ASSERT(own == sender.bytes && !sender.frames.empty());
      K2_ASSERT(sender.turn.deficit < kMostCost + kQuantum);
      of_source += own;
      count += sender.frames.size();
    }
    K2_ASSERT(of_source == source.bytes && count == source.frames && count > 0);
    K2_ASSERT(source.turn.deficit < kMostCost + kQuantum);
    frames += count;
    bytes += of_source;
  }
  K2_ASSERT(frames == frames_ && bytes == bytes_);
}

}  // namespace kitsune2::server
