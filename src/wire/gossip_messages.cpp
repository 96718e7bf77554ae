// Reads and writes the messages of the module "k2gossip".
#include "wire/gossip_messages.hpp"

#include "wire/k2proto.hpp"

namespace kitsune2::wire {

namespace {

/// Fields of ours: docs/protocol-gossip.md, "Our own nodes".
constexpr std::uint32_t kAbilitiesField = 20'000;
constexpr std::uint32_t kMoreOpsField = 20'001;

/// Decodes one gossip message: the budget of elements is shared by all of its lists.
///
/// Each `read` merges one message into `out`, as protobuf has it: a message field that comes twice is the merge of
/// both, a number or byte string is the last one.
class Decoder {
 public:
  Decoder(Dialect dialect, const Bytes& message, const WireLimits& limits)
      : dialect_(dialect), message_(message), limits_(limits), budget_(limits.max_items) {}

  bool ok() const { return !error_; }
  const Error& error() const { return *error_; }
  void fail(std::string text, Errc code = Errc::malformed) {
    if (!error_) error_ = Error(code, std::move(text));
  }

  void read(ByteView view, AcceptResponse& out) {
    walk(view, "AcceptResponseMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          id_item(r, out.missing_agents);
          break;
        case 2:
          text_item(r, out.provided_agents);
          break;
        case 3:
          id_item(r, out.new_ops);
          break;
        case 4:
          out.updated_new_since.micros = r.int64();
          break;
        default:
          break;
      }
    });
  }

  void read(ByteView view, SnapshotMinimal& out) {
    walk(view, "SnapshotMinimalMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          out.disc_boundary.micros = r.int64();
          break;
        case 2:
          out.disc_top_hash = hash(r);
          break;
        case 3:
          hash_item(r, out.ring_top_hashes);
          break;
        default:
          break;
      }
    });
  }

  void read(ByteView view, SnapshotDiscSectors& out) {
    walk(view, "SnapshotDiscSectorsMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          out.disc_boundary.micros = r.int64();
          break;
        case 2:
          number_items(r, out.disc_sectors);
          break;
        case 3:
          hash_item(r, out.disc_sector_hashes);
          break;
        default:
          break;
      }
    });
  }

  void read(ByteView view, DiscSliceHashes& out) {
    walk(view, "DiscSliceHashes", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          number_items(r, out.slice_indices);
          break;
        case 2:
          hash_item(r, out.hashes);
          break;
        default:
          break;
      }
    });
    same_length(out.slice_indices.size(), out.hashes.size(), "DiscSliceHashes");
  }

  void read(ByteView view, SnapshotDiscSectorDetails& out) {
    walk(view, "SnapshotDiscSectorDetailsMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          out.disc_boundary.micros = r.int64();
          break;
        case 2:
          number_items(r, out.sector_indices);
          break;
        case 3:
          message_item(r, out.disc_slice_hashes);
          break;
        default:
          break;
      }
    });
  }

  void read(ByteView view, RingSectorHashes& out) {
    walk(view, "RingSectorHashes", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          number_items(r, out.sector_indices);
          break;
        case 2:
          hash_item(r, out.hashes);
          break;
        default:
          break;
      }
    });
    same_length(out.sector_indices.size(), out.hashes.size(), "RingSectorHashes");
  }

  void read(ByteView view, SnapshotRingSectorDetails& out) {
    walk(view, "SnapshotRingSectorDetailsMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          out.disc_boundary.micros = r.int64();
          break;
        case 2:
          number_items(r, out.ring_indices);
          break;
        case 3:
          message_item(r, out.ring_sector_hashes);
          break;
        default:
          break;
      }
    });
  }

  void read(ByteView view, GossipInitiate& out) {
    std::optional<std::vector<std::uint32_t>> arc_set;
    walk(view, "K2GossipInitiateMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          out.session_id = session(r);
          break;
        case 10:
          id_item(r, out.participating_agents);
          break;
        case 11:
          arc_words(r, arc_set);
          break;
        case 12:
          out.tie_breaker = r.uint32();
          break;
        case 20:
          out.new_since.micros = r.int64();
          break;
        case 21:
          out.max_op_data_bytes = r.uint32();
          break;
        case 22:
          op_count(r, out.dht_op_count);
          break;
        case kAbilitiesField:
          out.abilities = r.uint32();
          break;
        default:
          break;
      }
    });
    require_arc_set(arc_set, out.arc_set);
  }

  void read(ByteView view, GossipAccept& out) {
    std::optional<std::vector<std::uint32_t>> arc_set;
    walk(view, "K2GossipAcceptMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          out.session_id = session(r);
          break;
        case 10:
          id_item(r, out.participating_agents);
          break;
        case 11:
          arc_words(r, arc_set);
          break;
        case 12:
          id_item(r, out.missing_agents);
          break;
        case 20:
          out.new_since.micros = r.int64();
          break;
        case 21:
          out.max_op_data_bytes = r.uint32();
          break;
        case 22:
          id_item(r, out.new_ops);
          break;
        case 23:
          out.updated_new_since.micros = r.int64();
          break;
        case 24:
          op_count(r, out.dht_op_count);
          break;
        case 30:
          message(r, out.snapshot);
          break;
        case kAbilitiesField:
          out.abilities = r.uint32();
          break;
        case kMoreOpsField:
          out.more_ops = r.boolean();
          break;
        default:
          break;
      }
    });
    require_arc_set(arc_set, out.arc_set);
  }

  void read(ByteView view, GossipNoDiff& out) {
    std::optional<AcceptResponse> response;
    walk(view, "K2GossipNoDiffMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          out.session_id = session(r);
          break;
        case 2:
          message(r, response);
          break;
        case 10:
          out.cannot_compare = r.boolean();
          break;
        case kMoreOpsField:
          out.more_ops = r.boolean();
          break;
        default:
          break;
      }
    });
    require(response, out.accept_response, "accept_response");
  }

  void read(ByteView view, GossipDiscSectorsDiff& out) {
    std::optional<AcceptResponse> response;
    std::optional<SnapshotDiscSectors> snapshot;
    walk(view, "K2GossipDiscSectorsDiffMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          out.session_id = session(r);
          break;
        case 2:
          message(r, response);
          break;
        case 10:
          message(r, snapshot);
          break;
        default:
          break;
      }
    });
    require(response, out.accept_response, "accept_response");
    require(snapshot, out.snapshot, "snapshot");
    same_length(out.snapshot.disc_sectors.size(), out.snapshot.disc_sector_hashes.size(), "SnapshotDiscSectorsMessage");
  }

  void read(ByteView view, GossipDiscSectorDetailsDiff& out) {
    std::optional<SnapshotDiscSectorDetails> snapshot;
    walk(view, "K2GossipDiscSectorDetailsDiffMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          out.session_id = session(r);
          break;
        case 10:
          text_item(r, out.provided_agents);
          break;
        case 20:
          message(r, snapshot);
          break;
        default:
          break;
      }
    });
    require_details(snapshot, out.snapshot);
  }

  void read(ByteView view, GossipDiscSectorDetailsDiffResponse& out) {
    std::optional<SnapshotDiscSectorDetails> snapshot;
    walk(view, "K2GossipDiscSectorDetailsDiffResponseMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          out.session_id = session(r);
          break;
        case 10:
          id_item(r, out.missing_ids);
          break;
        case 20:
          message(r, snapshot);
          break;
        default:
          break;
      }
    });
    require_details(snapshot, out.snapshot);
  }

  void read(ByteView view, GossipRingSectorDetailsDiff& out) {
    std::optional<AcceptResponse> response;
    std::optional<SnapshotRingSectorDetails> snapshot;
    walk(view, "K2GossipRingSectorDetailsDiffMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          out.session_id = session(r);
          break;
        case 10:
          message(r, response);
          break;
        case 20:
          message(r, snapshot);
          break;
        default:
          break;
      }
    });
    require(response, out.accept_response, "accept_response");
    require_details(snapshot, out.snapshot);
  }

  void read(ByteView view, GossipRingSectorDetailsDiffResponse& out) {
    std::optional<SnapshotRingSectorDetails> snapshot;
    walk(view, "K2GossipRingSectorDetailsDiffResponseMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          out.session_id = session(r);
          break;
        case 10:
          id_item(r, out.missing_ids);
          break;
        case 20:
          message(r, snapshot);
          break;
        default:
          break;
      }
    });
    require_details(snapshot, out.snapshot);
  }

  void read(ByteView view, GossipHashes& out) {
    walk(view, "K2GossipHashesMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          out.session_id = session(r);
          break;
        case 10:
          id_item(r, out.missing_ids);
          break;
        default:
          break;
      }
    });
  }

  void read(ByteView view, GossipAgents& out) {
    walk(view, "K2GossipAgentsMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          out.session_id = session(r);
          break;
        case 10:
          text_item(r, out.provided_agents);
          break;
        default:
          break;
      }
    });
  }

  void read(ByteView view, GossipBusy& out) {
    walk(view, "K2GossipBusyMessage", [&](ProtoReader& r) {
      if (r.field() == 1) {
        out.session_id = session(r);
      } else if (r.field() == kAbilitiesField) {
        out.abilities = r.uint32();
      }
    });
  }

  void read(ByteView view, GossipTerminate& out) {
    walk(view, "K2GossipTerminateMessage", [&](ProtoReader& r) {
      switch (r.field()) {
        case 1:
          out.session_id = session(r);
          break;
        case 2:
          if (r.bytes().size() > limits_.max_text_bytes) {
            r.fail("a text over the limit", Errc::too_large);
          } else {
            out.reason = slice_of(message_, as_bytes(r.text()));
          }
          break;
        default:
          break;
      }
    });
  }

 private:
  template <class F>
  void walk(ByteView view, const char* name, F on_field) {
    if (error_) return;
    ProtoReader reader(view);
    while (!error_ && reader.next()) on_field(reader);
    if (!error_ && !reader.ok()) error_ = reader.error(name);
  }

  bool spend(ProtoReader& r) {
    if (budget_ == 0) return r.fail("too many elements", Errc::too_large);
    --budget_;
    return true;
  }
  /// A byte string of `least` to `most` bytes.
  ByteView bounded(ProtoReader& r, std::size_t least, std::size_t most) {
    const ByteView view = r.bytes();
    if (view.size() < least) r.fail("an id of 0 bytes");
    if (view.size() > most) r.fail("a byte string over the limit", Errc::too_large);
    return r.ok() ? view : ByteView{};
  }
  Bytes session(ProtoReader& r) { return slice_of(message_, bounded(r, 0, limits_.max_id_bytes)); }
  Bytes hash(ProtoReader& r) { return slice_of(message_, bounded(r, 0, limits_.max_id_bytes)); }
  void item(ProtoReader& r, std::vector<Bytes>& out, std::size_t least, std::size_t most) {
    const ByteView view = bounded(r, least, most);
    if (r.ok() && spend(r)) out.push_back(slice_of(message_, view));
  }
  void id_item(ProtoReader& r, std::vector<Bytes>& out) { item(r, out, 1, limits_.max_id_bytes); }
  void hash_item(ProtoReader& r, std::vector<Bytes>& out) { item(r, out, 0, limits_.max_id_bytes); }
  void text_item(ProtoReader& r, std::vector<Bytes>& out) { item(r, out, 0, limits_.max_text_bytes); }
  template <class Number>
  void number_items(ProtoReader& r, std::vector<Number>& out) {
    r.numbers([&](std::uint64_t value) {
      if (!spend(r)) return false;
      out.push_back(static_cast<Number>(value));
      return true;
    });
  }
  template <class T>
  void message_item(ProtoReader& r, std::vector<T>& out) {
    const ByteView view = r.bytes();
    if (r.ok() && spend(r)) read(view, out.emplace_back());
  }
  template <class T>
  void message(ProtoReader& r, std::optional<T>& out) {
    const ByteView view = r.bytes();
    if (!r.ok()) return;
    if (!out) out.emplace();
    read(view, *out);
  }
  void op_count(ProtoReader& r, std::optional<std::uint64_t>& out) const {
    if (gossip_tells_op_count(dialect_)) out = r.varint();
  }
  void arc_words(ProtoReader& r, std::optional<std::vector<std::uint32_t>>& out) {
    const ByteView view = r.bytes();
    if (!r.ok()) return;
    if (!out) out.emplace();
    walk(view, "ArcSetMessage", [&](ProtoReader& inner) {
      if (inner.field() == 1) number_items(inner, *out);
    });
  }

  void require_arc_set(const std::optional<std::vector<std::uint32_t>>& in, ArcSetWords& out) {
    if (error_) return;
    if (!in) return fail("gossip: no arc_set");
    if (in->size() != out.words.size()) {
      return fail("gossip: an arc_set of " + std::to_string(in->size()) + " words, expected 16");
    }
    std::copy(in->begin(), in->end(), out.words.begin());
  }
  template <class T>
  void require(std::optional<T>& in, T& out, const char* name) {
    if (error_) return;
    if (!in) return fail(std::string("gossip: no ") + name);
    out = std::move(*in);
  }
  void require_details(std::optional<SnapshotDiscSectorDetails>& in, SnapshotDiscSectorDetails& out) {
    require(in, out, "snapshot");
    same_length(out.sector_indices.size(), out.disc_slice_hashes.size(), "SnapshotDiscSectorDetailsMessage");
  }
  void require_details(std::optional<SnapshotRingSectorDetails>& in, SnapshotRingSectorDetails& out) {
    require(in, out, "snapshot");
    same_length(out.ring_indices.size(), out.ring_sector_hashes.size(), "SnapshotRingSectorDetailsMessage");
  }
  void same_length(std::size_t a, std::size_t b, const char* name) {
    if (a != b) fail(std::string(name) + ": " + std::to_string(a) + " indices but " + std::to_string(b) + " hashes");
  }

  const Dialect dialect_;
  const Bytes& message_;
  const WireLimits& limits_;
  std::size_t budget_;
  std::optional<Error> error_;
};

template <class Message>
Result<GossipMessage> decode_as(Dialect dialect, const Bytes& message, const WireLimits& limits) {
  Decoder decoder(dialect, message, limits);
  Message out;
  decoder.read(message.view(), out);
  if (decoder.ok() && out.session_id.empty()) decoder.fail("gossip: no session_id");
  if (!decoder.ok()) return decoder.error();
  return GossipMessage(std::move(out));
}

using DecodeFunction = Result<GossipMessage> (*)(Dialect, const Bytes&, const WireLimits&);

template <std::size_t... I>
constexpr std::array<DecodeFunction, sizeof...(I)> decode_table(std::index_sequence<I...>) {
  return {&decode_as<std::variant_alternative_t<I, GossipMessage>>...};
}
constexpr auto kDecoders = decode_table(std::make_index_sequence<std::variant_size_v<GossipMessage>>{});

// ---- encoding: one `put` per message, run once to measure and once to write

/// There even if 0.
template <class Sink>
void put_optional(Sink& s, std::uint32_t field, const std::optional<std::uint64_t>& value) {
  if (!value) return;
  put_tag(s, field, WireType::varint);
  s.varint(*value);
}

// Declared before put_nested, which must see every message that stands inside another one.
template <class Sink>
void put(Sink& s, const SnapshotDiscSectorDetails& m);
template <class Sink>
void put(Sink& s, const SnapshotRingSectorDetails& m);

template <class Sink>
void put(Sink& s, const ArcSetWords& m) {
  put_packed(s, 1, m.words);
}
template <class Sink>
void put(Sink& s, const AcceptResponse& m) {
  put_items(s, 1, m.missing_agents);
  put_items(s, 2, m.provided_agents);
  put_items(s, 3, m.new_ops);
  put_int64(s, 4, m.updated_new_since.micros);
}
template <class Sink>
void put(Sink& s, const SnapshotMinimal& m) {
  put_int64(s, 1, m.disc_boundary.micros);
  put_bytes(s, 2, m.disc_top_hash);
  put_items(s, 3, m.ring_top_hashes);
}
template <class Sink>
void put(Sink& s, const SnapshotDiscSectors& m) {
  put_int64(s, 1, m.disc_boundary.micros);
  put_packed(s, 2, m.disc_sectors);
  put_items(s, 3, m.disc_sector_hashes);
}
template <class Sink>
void put(Sink& s, const DiscSliceHashes& m) {
  put_packed(s, 1, m.slice_indices);
  put_items(s, 2, m.hashes);
}
template <class Sink>
void put(Sink& s, const RingSectorHashes& m) {
  put_packed(s, 1, m.sector_indices);
  put_items(s, 2, m.hashes);
}
template <class Sink, class Message>
void put_nested(Sink& s, std::uint32_t field, const Message& m) {
  put_message(s, field, [&](auto& inner) { put(inner, m); });
}
template <class Sink>
void put(Sink& s, const SnapshotDiscSectorDetails& m) {
  put_int64(s, 1, m.disc_boundary.micros);
  put_packed(s, 2, m.sector_indices);
  for (const DiscSliceHashes& hashes : m.disc_slice_hashes) put_nested(s, 3, hashes);
}
template <class Sink>
void put(Sink& s, const SnapshotRingSectorDetails& m) {
  put_int64(s, 1, m.disc_boundary.micros);
  put_packed(s, 2, m.ring_indices);
  for (const RingSectorHashes& hashes : m.ring_sector_hashes) put_nested(s, 3, hashes);
}
template <class Sink>
void put(Sink& s, const GossipInitiate& m) {
  put_bytes(s, 1, m.session_id);
  put_items(s, 10, m.participating_agents);
  put_nested(s, 11, m.arc_set);
  put_number(s, 12, m.tie_breaker);
  put_int64(s, 20, m.new_since.micros);
  put_number(s, 21, m.max_op_data_bytes);
  put_optional(s, 22, m.dht_op_count);
  put_number(s, kAbilitiesField, m.abilities);
}
template <class Sink>
void put(Sink& s, const GossipAccept& m) {
  put_bytes(s, 1, m.session_id);
  put_items(s, 10, m.participating_agents);
  put_nested(s, 11, m.arc_set);
  put_items(s, 12, m.missing_agents);
  put_int64(s, 20, m.new_since.micros);
  put_number(s, 21, m.max_op_data_bytes);
  put_items(s, 22, m.new_ops);
  put_int64(s, 23, m.updated_new_since.micros);
  put_optional(s, 24, m.dht_op_count);
  if (m.snapshot) put_nested(s, 30, *m.snapshot);
  put_number(s, kAbilitiesField, m.abilities);
  put_number(s, kMoreOpsField, m.more_ops ? 1 : 0);
}
template <class Sink>
void put(Sink& s, const GossipNoDiff& m) {
  put_bytes(s, 1, m.session_id);
  put_nested(s, 2, m.accept_response);
  put_number(s, 10, m.cannot_compare ? 1 : 0);
  put_number(s, kMoreOpsField, m.more_ops ? 1 : 0);
}
template <class Sink>
void put(Sink& s, const GossipDiscSectorsDiff& m) {
  put_bytes(s, 1, m.session_id);
  put_nested(s, 2, m.accept_response);
  put_nested(s, 10, m.snapshot);
}
template <class Sink>
void put(Sink& s, const GossipDiscSectorDetailsDiff& m) {
  put_bytes(s, 1, m.session_id);
  put_items(s, 10, m.provided_agents);
  put_nested(s, 20, m.snapshot);
}
template <class Sink>
void put(Sink& s, const GossipDiscSectorDetailsDiffResponse& m) {
  put_bytes(s, 1, m.session_id);
  put_items(s, 10, m.missing_ids);
  put_nested(s, 20, m.snapshot);
}
template <class Sink>
void put(Sink& s, const GossipRingSectorDetailsDiff& m) {
  put_bytes(s, 1, m.session_id);
  put_nested(s, 10, m.accept_response);
  put_nested(s, 20, m.snapshot);
}
template <class Sink>
void put(Sink& s, const GossipRingSectorDetailsDiffResponse& m) {
  put_bytes(s, 1, m.session_id);
  put_items(s, 10, m.missing_ids);
  put_nested(s, 20, m.snapshot);
}
template <class Sink>
void put(Sink& s, const GossipHashes& m) {
  put_bytes(s, 1, m.session_id);
  put_items(s, 10, m.missing_ids);
}
template <class Sink>
void put(Sink& s, const GossipAgents& m) {
  put_bytes(s, 1, m.session_id);
  put_items(s, 10, m.provided_agents);
}
template <class Sink>
void put(Sink& s, const GossipBusy& m) {
  put_bytes(s, 1, m.session_id);
  put_number(s, kAbilitiesField, m.abilities);
}
template <class Sink>
void put(Sink& s, const GossipTerminate& m) {
  put_bytes(s, 1, m.session_id);
  put_bytes(s, 2, m.reason);
}

}  // namespace

Result<GossipMessage> decode_gossip(Dialect dialect, const Bytes& data, const WireLimits& limits) {
  Result<TypedMessage> typed = decode_typed(data, "K2GossipMessage");
  if (!typed) return typed.error();
  const auto index = static_cast<std::size_t>(typed->type) - 1;
  if (typed->type < 1 || index >= kDecoders.size()) {
    return make_error(Errc::malformed, "K2GossipMessage: unknown type " + std::to_string(typed->type));
  }
  return kDecoders[index](dialect, typed->data, limits);
}

Bytes encode_gossip(const GossipMessage& message) {
  const auto body = [&](auto& sink) { std::visit([&](const auto& m) { put(sink, m); }, message); };
  SizeSink measure;
  body(measure);
  return build_typed(static_cast<std::int32_t>(type_of(message)), measure.size(), body);
}

}  // namespace kitsune2::wire
