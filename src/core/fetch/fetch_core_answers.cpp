// What the fetch core makes of the ops that peers send.
#include <algorithm>
#include <bit>

#include "core/fetch/fetch_core.hpp"

namespace kitsune2 {

void FetchCore::on_progress(const Url& url, std::uint64_t bytes, Time now) {
  advance(now);
  const std::uint32_t from = find_source(url);
  if (from == kNoSlot || bytes == 0) return;
  Source& source = sources_[from];
  source.last_part = now_;
  for (std::uint32_t slot = source.requests.head; slot != kNoSlot; slot = requests_[slot].by_source.next) {
    if (!requests_[slot].is_sent) continue;
    source.window.on_heard(requests_[slot].mark, now_);  // messages come in order
    break;
  }
  sign_of_life(from);
  refresh(from);
}

void FetchCore::sign_of_life(std::uint32_t from) {
  // Mostly they are the last ones of the deadlines already, in this order: then nothing has to be moved.
  const List& list = sources_[from].requests;
  std::uint32_t last = kNoSlot;
  bool in_place = true;
  for (std::uint32_t slot = list.head; slot != kNoSlot; slot = requests_[slot].by_source.next) {
    Request& request = requests_[slot];
    if (!request.is_sent) continue;
    in_place = in_place && (last == kNoSlot || request.by_deadline.prev == last);
    request.deadline = now_ + delay_;
    last = slot;
  }
  if (in_place && (last == kNoSlot || last == deadlines_.tail)) return;
  for (std::uint32_t slot = list.head; slot != kNoSlot; slot = requests_[slot].by_source.next) {
    if (requests_[slot].is_sent) arm(slot);
  }
}

/// R4: a request of this source was answered, as far as it will be.
void FetchCore::grow(std::uint32_t slot) {
  const Request& request = requests_[slot];
  Source& source = sources_[request.source];
  const std::uint32_t factor = source.has_shrunk ? 2 : 4;
  source.most_ids = std::max(source.most_ids, std::min(factor * request.size, config_.max_ids_per_request));
}

/// An op of a message that is not to be fetched any more, or never was.
FetchVerdict FetchCore::take_unexpected(std::uint32_t from, const OpId& op_id, std::uint32_t hash, bool is_storing,
                                        Arrival& arrival) {
  const bool asked = take_late(from, hash);
  if (!is_storing && asked && forget_dropped(op_id)) {
    ops_[new_op(op_id, hash)].state = State::storing;
    ++storing_ops_;
    ++arrival.wanted;
    arrival.any_pending = true;
    return FetchVerdict::wanted;
  }
  if (!asked) ++arrival.unasked;
  if (!is_storing) return asked ? FetchVerdict::not_pending : FetchVerdict::unasked;
  arrival.any_pending = true;
  return FetchVerdict::duplicate;
}

/// An op of a message: whether it is wanted, and which request it answers.
FetchVerdict FetchCore::take_op(std::uint32_t from, const OpId& op_id, Arrival& arrival) {
  const bool is_next = is_op(arrival.next_op, op_id);
  const std::uint32_t hash = is_next ? ops_[arrival.next_op].hash : hash_of(op_id);
  const std::uint32_t op = is_next ? arrival.next_op : find({op_id.view(), hash});
  if (op != kNoSlot) arrival.next_op = op_after(op);
  if (op == kNoSlot || ops_[op].state == State::storing) {
    return take_unexpected(from, op_id, hash, op != kNoSlot, arrival);
  }
  arrival.any_pending = true;
  ++arrival.wanted;
  const std::uint32_t slot = ops_[op].request;
  unqueue_op(op, State::storing);
  ++storing_ops_;
  if (slot == kNoSlot) {
    take_late(from, hash);
    return FetchVerdict::wanted;
  }
  if (requests_[slot].source == from) {
    answer_request(slot, op, arrival);
  } else {
    take_late(from, hash);
    add_late(requests_[slot].source, hash);
  }
  leave_request(op);
  return FetchVerdict::wanted;
}

/// An op of this request has come from the source that it was asked of, and is about to leave the request.
void FetchCore::answer_request(std::uint32_t slot, std::uint32_t op, Arrival& arrival) {
  Request& request = requests_[slot];
  if (request.answered == 0 && request.is_sent && request.read_mark != 0) note_order(request, op, arrival);
  ++request.answered;
  ++arrival.answered;
  if (arrival.touched != request.id) {
    arrival.touched_several = arrival.touched_several || arrival.touched != 0;
    arrival.touched = request.id;
    if (request.is_sent) {
      sources_[request.source].window.on_heard(request.mark, now_);
      arrival.mark = request.mark;
    }
  }
  if (request.left == 1) {
    arrival.completed = std::max(arrival.completed, request.id);
    grow(slot);
  }
}

/// R19: the first op of a marked request has come.
void FetchCore::note_order(const Request& request, std::uint32_t op, Arrival& arrival) {
  std::uint32_t& bits = sources_[request.source].read_bits;
  bits = op == request.first ? bits + static_cast<std::uint32_t>(std::bit_width(request.size)) - 1 : 0;
  if (bits < kReadBits) return;
  bits = 0;
  arrival.read_mark = std::max(arrival.read_mark, request.read_mark);
}

/// The source has sent ops that were of use, of `size` bytes on average.
void FetchCore::note_answer(Source& source, Arrival& arrival, std::uint64_t size) {
  source.unanswered = false;
  source.last_answer = now_;
  source.op_size = source.op_size == 0 ? size : (source.op_size - source.op_size / 4) + size / 4;
  source.op_size = std::max<std::uint64_t>(1, source.op_size);
  if (arrival.mark) {
    source.window.on_delivered(*arrival.mark, arrival.answered * (size + FetchWindow::kOpCost), now_);
  }
}

/// Sent requests before request `end` have had their answers: what they lack will not come.
void FetchCore::close_before(std::uint32_t from, std::uint64_t end, FetchAnswer& out) {
  Source& source = sources_[from];
  for (std::uint32_t slot = source.requests.head; slot != kNoSlot && requests_[slot].id < end;) {
    const std::uint32_t next = requests_[slot].by_source.next;
    if (requests_[slot].is_sent) {
      if (requests_[slot].answered > 0) {
        grow(slot);
      } else {
        narrow(source);
      }
      close_as_missing(slot, out.missing, out.unserved);
    }
    slot = next;
  }
}

FetchAnswer FetchCore::on_response(const Url& url, std::span<const OpId> op_ids, std::uint64_t bytes, Time now,
                                   std::uint64_t invalid) {
  advance(now);
  FetchAnswer out;
  out.verdicts.reserve(op_ids.size());
  std::uint32_t from = find_source(url);
  if (from == kNoSlot && departed_.contains(url)) {
    from = new_source(url);  // for what it still owes
    rest(from);
  }
  Arrival arrival;
  for (const OpId& op_id : op_ids) out.verdicts.push_back(take_op(from, op_id, arrival));

  const std::uint64_t bad = invalid + (config_.accept_unsolicited ? 0 : arrival.unasked);
  from = find_source(url);  // R12 may have forgotten one that had nothing to answer
  if (from == kNoSlot && bad > 0 && sources_.size() < most_sources()) {
    from = new_source(url);
    rest(from);
  }
  if (from == kNoSlot) return out;

  if (arrival.any_pending) {
    Source& source = sources_[from];
    source.last_ops = op_ids.size();
    note_answer(source, arrival, std::max<std::uint64_t>(1, bytes / op_ids.size()));
    if (!source.put_aside || (arrival.wanted > 0 && bad == 0)) clear_back_off(from);
    close_before(from, arrival.touched_several ? arrival.completed : arrival.touched, out);
    sign_of_life(from);
    refresh(from);
  }
  out.read_mark = arrival.read_mark;
  judge(from, arrival.wanted, bad, out);
  return out;
}

}  // namespace kitsune2
